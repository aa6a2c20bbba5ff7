//! Settings, in two stages: what was written ([`Written`]), then what it means ([`Config`]).

mod limits;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::slot::Shards;

pub use limits::{Limits, RawLimits};

/// The defaults, which document every setting.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// What was written in one place: a file, the environment, or flags. What is absent there is left to the others.
#[derive(Clone, Default, Debug, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Address and port to listen on
    #[arg(long, env = "SLOTWHEEL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Listen on addresses other than loopback although there is no authentication yet
    #[arg(long, env = "SLOTWHEEL_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// Where the managed Redis keeps its data
    #[arg(long, env = "SLOTWHEEL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A Redis to use instead of the managed one
    #[arg(long, env = "SLOTWHEEL_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// PEM file with the certificates from which a rediss:// server's must descend
    #[arg(long, env = "SLOTWHEEL_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// What an accepted submit survives: fsync, everysec or replicated; empty: fsync with the managed Redis, else
    /// what the Redis is set up for
    #[arg(long, env = "SLOTWHEEL_DURABILITY", value_name = "LEVEL")]
    pub durability: Option<String>,
    /// With --durability replicated: how many replicas must have a submit before it is accepted
    #[arg(long, env = "SLOTWHEEL_REPLICAS", value_name = "COUNT")]
    pub replicas: Option<u8>,
    /// What every key begins with
    #[arg(long, env = "SLOTWHEEL_PREFIX", value_name = "WORD")]
    pub prefix: Option<String>,
    /// How many shards the slots are cut into; decided at the first start
    #[arg(long, env = "SLOTWHEEL_SHARDS", value_name = "COUNT")]
    pub shards: Option<u16>,
    /// Threads that serve requests; 0: one for each processor but one
    #[arg(long, env = "SLOTWHEEL_THREADS", value_name = "COUNT")]
    pub threads: Option<u16>,
    /// How often, in ms, a server looks for what signals have missed
    #[arg(long, env = "SLOTWHEEL_POLL_INTERVAL_MS", value_name = "MS")]
    pub poll_interval_ms: Option<u64>,
    /// How long, in ms, requests may take to finish once the server is told to stop
    #[arg(long, env = "SLOTWHEEL_SHUTDOWN_TIMEOUT_MS", value_name = "MS")]
    pub shutdown_timeout_ms: Option<u64>,
    /// How long, in ms, a server that is told to stop still serves, so that others see that it is not ready
    #[arg(long, env = "SLOTWHEEL_DRAIN_MS", value_name = "MS")]
    pub drain_ms: Option<u64>,
    /// What is logged: error, warn, info, debug or trace, also per module
    #[arg(long, env = "SLOTWHEEL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Form of the log: text or json
    #[arg(long, env = "SLOTWHEEL_LOG_FORMAT", value_name = "FORM")]
    pub log_format: Option<String>,
    /// Collector that spans are sent to by OTLP over HTTP; empty: none are sent
    #[arg(long, env = "SLOTWHEEL_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How much it bears.
    #[command(flatten)]
    #[serde(default)]
    pub limits: RawLimits,
}

/// Which Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisSource {
    /// Our own, in this directory.
    Embedded(PathBuf),
    /// Somebody's.
    External {
        /// Its URL.
        url: String,
        /// PEM of the certificates from which its own must descend.
        ca: Option<PathBuf>,
    },
}

/// What an accepted submit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// What the Redis is set up for; nothing is checked.
    AsConfigured,
    /// It is on disk: nothing is lost, if the disk honours fsync.
    Fsync,
    /// It is in the append-only file, flushed each second: a power failure loses about two seconds.
    Everysec,
    /// So many replicas have it.
    Replicated(u8),
}

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

/// What only tests set: no file, environment or flag reaches it.
#[derive(Clone, Default, Debug)]
pub struct TestHooks {
    /// Added to Redis' clock by every script, ms.
    pub time_offset: Arc<AtomicI64>,
    /// Lua put before every script.
    pub script_prefix: String,
}

/// What the settings mean.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Which Redis.
    pub redis: RedisSource,
    /// What an accepted submit survives.
    pub durability: Durability,
    /// What keys begin with.
    pub prefix: String,
    /// As asked for; `None`: as founded.
    pub shards: Option<Shards>,
    /// Threads that serve requests; `None`: one for each processor but one.
    pub threads: Option<NonZeroUsize>,
    /// Between sweeps.
    pub poll_interval: Duration,
    /// For what is under way at the end.
    pub shutdown_timeout: Duration,
    /// Before that, for others to see that it stops.
    pub drain: Duration,
    /// How much it bears.
    pub limits: Limits,
    /// Filter of the log.
    pub log: String,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Base of the paths of the collector that spans are sent to.
    pub otlp_endpoint: Option<String>,
    /// For tests.
    pub test_hooks: TestHooks,
}

/// A setting that means nothing, or two that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("the settings file {0}: {1}")]
    File(PathBuf, String),
    /// A setting.
    #[error("the setting {name} is {value}: {reason}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What was written.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn invalid<T>(name: &'static str, value: impl ToString, reason: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Setting { name, value: value.to_string(), reason })
}

impl RawConfig {
    /// Reads a file in TOML.
    pub fn from_toml(name: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::File(name.to_owned(), error.to_string()))
    }

    /// What `self` leaves open, taken from `below`.
    pub fn merge_under(self, below: RawConfig) -> RawConfig {
        RawConfig {
            listen: self.listen.or(below.listen),
            insecure: self.insecure.or(below.insecure),
            data_dir: self.data_dir.or(below.data_dir),
            redis_url: self.redis_url.or(below.redis_url),
            redis_ca: self.redis_ca.or(below.redis_ca),
            durability: self.durability.or(below.durability),
            replicas: self.replicas.or(below.replicas),
            prefix: self.prefix.or(below.prefix),
            shards: self.shards.or(below.shards),
            threads: self.threads.or(below.threads),
            poll_interval_ms: self.poll_interval_ms.or(below.poll_interval_ms),
            shutdown_timeout_ms: self.shutdown_timeout_ms.or(below.shutdown_timeout_ms),
            drain_ms: self.drain_ms.or(below.drain_ms),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            otlp_endpoint: self.otlp_endpoint.or(below.otlp_endpoint),
            limits: self.limits.or(below.limits),
        }
    }

    /// What it means, over the defaults.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let defaults = RawConfig::from_toml(Path::new("config.default.toml"), DEFAULTS)?;
        let raw = self.merge_under(defaults);
        let listen = raw.listen.unwrap_or_default();
        let Ok(address) = listen.parse::<SocketAddr>() else {
            return invalid("listen", listen, "it takes an IP address and a port, like 127.0.0.1:8080 or [::1]:8080");
        };
        if !address.ip().is_loopback() && !raw.insecure.unwrap_or(false) {
            return invalid(
                "listen",
                address,
                "whoever reaches this address could do everything, because there is no authentication yet. \
                 Listen on 127.0.0.1, or say --insecure if the network is trusted",
            );
        }
        let prefix = raw.prefix.unwrap_or_default();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if prefix.is_empty() || prefix.len() > 32 || !prefix.bytes().all(is_allowed) {
            return invalid("prefix", prefix, "it takes 1 to 32 letters, digits, - and _");
        }
        let shards = match raw.shards.unwrap_or(0) {
            0 => None,
            count => match Shards::new(count) {
                Some(shards) => Some(shards),
                None => return invalid("shards", count, "it takes a power of two from 1 to 1024"),
            },
        };
        let threads = match raw.threads.unwrap_or(0) {
            count @ 0..=1024 => NonZeroUsize::new(count.into()),
            count => return invalid("threads", count, "it takes 0 to 1024"),
        };
        let poll_interval_ms = raw.poll_interval_ms.unwrap_or_default();
        if !(10..=60_000).contains(&poll_interval_ms) {
            return invalid("poll_interval_ms", poll_interval_ms, "it takes 10 to 60000");
        }
        let log_format = match raw.log_format.as_deref() {
            Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            other => return invalid("log_format", other.unwrap_or_default(), "it takes text or json"),
        };
        let otlp_endpoint = raw.otlp_endpoint.filter(|url| !url.is_empty());
        if let Some(url) = &otlp_endpoint {
            if !cfg!(feature = "otlp") {
                return invalid("otlp_endpoint", url, "this program cannot send spans: build it with --features otlp");
            }
            if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
                return invalid("otlp_endpoint", url, "it takes a URL like http://localhost:4318");
            }
        }
        let is_not_empty = |path: &PathBuf| !path.as_os_str().is_empty();
        let redis = match raw.redis_url.filter(|url| !url.is_empty()) {
            Some(url) => RedisSource::External { url, ca: raw.redis_ca.filter(is_not_empty) },
            None => RedisSource::Embedded(raw.data_dir.unwrap_or_default()),
        };
        let level = raw.durability.unwrap_or_default();
        let durability = match (level.as_str(), &redis, raw.replicas.unwrap_or_default()) {
            ("", RedisSource::Embedded(_), _) | ("fsync", _, _) => Durability::Fsync,
            ("", RedisSource::External { .. }, _) => Durability::AsConfigured,
            ("everysec", _, _) => Durability::Everysec,
            ("replicated", RedisSource::Embedded(_), _) => {
                return invalid(
                    "durability",
                    level,
                    "the managed Redis has no replicas: name one that has with --redis-url",
                );
            }
            ("replicated", RedisSource::External { .. }, 0) => return invalid("replicas", 0, "it takes 1 to 255"),
            ("replicated", RedisSource::External { .. }, replicas) => Durability::Replicated(replicas),
            _ => return invalid("durability", level, "it takes fsync, everysec or replicated"),
        };
        Ok(Config {
            listen: address,
            redis,
            durability,
            prefix,
            shards,
            threads,
            poll_interval: Duration::from_millis(poll_interval_ms),
            shutdown_timeout: Duration::from_millis(raw.shutdown_timeout_ms.unwrap_or_default()),
            drain: Duration::from_millis(raw.drain_ms.unwrap_or_default()),
            limits: raw.limits.resolve()?,
            log: raw.log.unwrap_or_default(),
            log_format,
            otlp_endpoint,
            test_hooks: TestHooks::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawConfig {
        RawConfig::from_toml(Path::new("test"), text).unwrap()
    }

    #[test]
    fn defaults_set_every_field_and_resolve() {
        let config = RawConfig::default().resolve().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.redis, RedisSource::Embedded("./slotwheel-data".into()));
        assert_eq!(config.shards, None);
        assert_eq!(config.limits.max_connections_per_address, config.limits.max_connections);
    }

    #[test]
    fn later_source_overrides_earlier() {
        let config = raw("prefix = \"a\"").merge_under(raw("prefix = \"b\"\nshards = 4")).resolve().unwrap();
        assert_eq!((config.prefix.as_str(), config.shards), ("a", Shards::new(4)));
    }

    #[test]
    fn invalid_settings_are_rejected() {
        for text in [
            "listen = \"localhost\"",
            "listen = \"0.0.0.0:80\"",
            "shards = 3",
            "prefix = \"a:b\"",
            "threads = 1025",
            "poll_interval_ms = 1",
            "log_format = \"xml\"",
            "otlp_endpoint = \"localhost:4318\"",
            "durability = \"always\"",
            "durability = \"replicated\"",
            "durability = \"replicated\"\nredis_url = \"redis://a\"\nreplicas = 0",
            "[limits]\nhead_timeout_ms = 0",
            "[limits]\nmax_buffered_events = 65537",
        ] {
            assert!(raw(text).resolve().is_err(), "{text}");
        }
        assert!(RawConfig::from_toml(Path::new("test"), "colour = 1").is_err());
        assert!(RawConfig::from_toml(Path::new("test"), "[limits]\ncolour = 1").is_err());
        assert!(raw("listen = \"0.0.0.0:80\"\ninsecure = true").resolve().is_ok());
    }
}
