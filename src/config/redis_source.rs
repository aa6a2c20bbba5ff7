//! The Redis of the settings, shown without its password.

use std::fmt;
use std::path::PathBuf;

/// The Redis to use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisSource {
    /// The embedded Redis, with its data in this directory.
    Embedded(PathBuf),
    /// An external Redis.
    External {
        /// Its URL.
        url: String,
        /// PEM file of the CA certificates; `None`: the system's.
        ca: Option<PathBuf>,
    },
}

/// The location of the data, without a password.
impl fmt::Display for RedisSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisSource::Embedded(directory) => write!(f, "{}", directory.display()),
            RedisSource::External { url, .. } => f.write_str(&without_password(url)),
        }
    }
}

/// Parameters of a Redis URL that are shown. `pass` is not, in any encoding.
const SHOWN_PARAMETERS: [&str; 3] = ["db=", "user=", "protocol="];

/// Returns a Redis URL without its password, in the user information or in the query.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (user, location) = match rest.rsplit_once('@') {
        Some((user_info, location)) if !scheme.contains("unix") => {
            (user_info.split([':', '?']).next().unwrap_or_default(), location)
        }
        _ => ("", rest),
    };
    let separator = if user.is_empty() { "" } else { "@" };
    let (location, query) = location.split_once('?').unwrap_or((location, ""));
    let is_shown = |pair: &&str| SHOWN_PARAMETERS.iter().any(|name| pair.starts_with(name));
    let query: Vec<&str> = query.split('&').filter(is_shown).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("{scheme}://{user}{separator}{location}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("rediss://user:secret@host/1", "rediss://user@host/1"),
            ("redis://:se@cr/et@host", "redis://host"),
            ("redis://:secret@[::1]:6379?protocol=resp3", "redis://[::1]:6379?protocol=resp3"),
            ("unix:///run/a@b.sock?db=1&user=u&pass=secret", "unix:///run/a@b.sock?db=1&user=u"),
            ("unix:///run/sock?db=1&p%61ss=secret", "unix:///run/sock?db=1"),
            ("redis://:sec?ret@host", "redis://host"),
            ("secret@host", ""),
        ] {
            assert_eq!(RedisSource::External { url: url.into(), ca: None }.to_string(), shown, "{url}");
        }
    }
}
