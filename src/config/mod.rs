//! Settings in two stages: as written ([`RawConfig`]), then resolved and checked ([`Config`]).

mod limits;
mod max_memory;
mod redis_source;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::slot::Shards;

pub use limits::{Limits, RawLimits};
pub use max_memory::MaxMemory;
pub use redis_source::RedisSource;

/// The default of every setting, with its documentation.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// Settings as written in one source: a file, the environment, or flags. `None`: not set there.
#[derive(Clone, Default, Debug, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// IP address and port to listen on
    #[arg(long, env = "SLOTWHEEL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Allow an address other than loopback, without authentication
    #[arg(long, env = "SLOTWHEEL_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// Data directory of the embedded Redis
    #[arg(long, env = "SLOTWHEEL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Memory of the embedded Redis: bytes, or a share of the machine's memory like 50%; 0: no limit
    #[arg(long, env = "SLOTWHEEL_EMBEDDED_MAX_MEMORY", value_name = "BYTES")]
    pub embedded_max_memory: Option<String>,
    /// Redis to use instead of the embedded one: redis://, rediss:// or unix://
    #[arg(long, env = "SLOTWHEEL_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// PEM file of the CA certificates for rediss://; empty: the system's
    #[arg(long, env = "SLOTWHEEL_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// Durability of an accepted submit: fsync, everysec or replicated; empty: fsync with the embedded Redis, otherwise
    /// as the Redis is configured
    #[arg(long, env = "SLOTWHEEL_DURABILITY", value_name = "LEVEL")]
    pub durability: Option<String>,
    /// Replicas that must acknowledge a submit with --durability replicated
    #[arg(long, env = "SLOTWHEEL_REPLICAS", value_name = "COUNT")]
    pub replicas: Option<u8>,
    /// Prefix of all Redis keys
    #[arg(long, env = "SLOTWHEEL_PREFIX", value_name = "WORD")]
    pub prefix: Option<String>,
    /// Number of shards, a power of two, fixed at the first start; 0: automatic
    #[arg(long, env = "SLOTWHEEL_SHARDS", value_name = "COUNT")]
    pub shards: Option<u16>,
    /// Threads that serve requests; 0: number of processors minus one
    #[arg(long, env = "SLOTWHEEL_THREADS", value_name = "COUNT")]
    pub threads: Option<u16>,
    /// Interval at which a server polls Redis for work of lost wake-ups
    #[arg(long, env = "SLOTWHEEL_POLL_INTERVAL_MS", value_name = "MS")]
    pub poll_interval_ms: Option<u64>,
    /// Ended tasks that a queue keeps in each state; 0: no limit
    #[arg(long, env = "SLOTWHEEL_MAX_ENDED_PER_QUEUE", value_name = "COUNT")]
    pub max_ended_per_queue: Option<u64>,
    /// Time for requests in progress to finish during shutdown
    #[arg(long, env = "SLOTWHEEL_SHUTDOWN_TIMEOUT_MS", value_name = "MS")]
    pub shutdown_timeout_ms: Option<u64>,
    /// Time that a stopping server continues to serve while /readyz returns 503
    #[arg(long, env = "SLOTWHEEL_DRAIN_MS", value_name = "MS")]
    pub drain_ms: Option<u64>,
    /// Log level (error, warn, info, debug, trace), optionally per module
    #[arg(long, env = "SLOTWHEEL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log format: text or json
    #[arg(long, env = "SLOTWHEEL_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Base URL of an OTLP/HTTP collector for spans; empty: no spans are sent
    #[arg(long, env = "SLOTWHEEL_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Limits on connections, requests and memory.
    #[command(flatten)]
    #[serde(default)]
    pub limits: RawLimits,
}

/// Durability of an accepted submit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// As the Redis is configured; nothing is checked.
    AsConfigured,
    /// On disk: nothing is lost if the disk honours fsync.
    Fsync,
    /// In the append-only file, flushed each second: a power failure loses up to about two seconds.
    Everysec,
    /// Acknowledged by this number of replicas.
    Replicated(u8),
}

/// Log format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Hooks that only tests set: no file, environment variable or flag reaches them.
#[derive(Clone, Default, Debug)]
pub struct TestHooks {
    /// Added to the Redis clock by every script, ms.
    pub clock_offset: Arc<AtomicI64>,
    /// Lua inserted after the first line of every script.
    pub injected_lua: String,
}

/// Resolved settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The Redis to use.
    pub redis: RedisSource,
    /// Memory of the embedded Redis.
    pub embedded_max_memory: MaxMemory,
    /// Ended tasks that a queue keeps in each state; 0: no limit.
    pub max_ended_per_queue: u64,
    /// Durability of an accepted submit.
    pub durability: Durability,
    /// Prefix of all Redis keys.
    pub prefix: String,
    /// Requested shards; `None`: those of the data set.
    pub shards: Option<Shards>,
    /// Threads that serve requests; `None`: number of processors minus one.
    pub threads: Option<NonZeroUsize>,
    /// Interval of polling for work of lost wake-ups.
    pub poll_interval: Duration,
    /// Time for requests in progress during shutdown.
    pub shutdown_timeout: Duration,
    /// Time before shutdown during which /readyz returns 503.
    pub drain: Duration,
    /// Limits on connections, requests and memory.
    pub limits: Limits,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Base URL of the collector for spans.
    pub otlp_endpoint: Option<String>,
    /// Hooks of tests.
    pub test_hooks: TestHooks,
}

/// An invalid setting, or settings that exclude each other.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An invalid settings file.
    #[error("the settings file {0}: {1}")]
    File(PathBuf, String),
    /// An invalid setting.
    #[error("the setting {name} is {value}: {reason}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Value as written.
        value: String,
        /// Accepted values, or what to do.
        reason: &'static str,
    },
}

fn invalid<T>(name: &'static str, value: impl ToString, reason: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Setting { name, value: value.to_string(), reason })
}

impl RawConfig {
    /// Parses a TOML file.
    pub fn from_toml(name: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            // The error's own text quotes the line, which may hold the password of `redis_url`.
            let end = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(end).filter(|byte| *byte == b'\n').count();
            ConfigError::File(name.to_owned(), format!("line {line}: {}", error.message()))
        })
    }

    /// Returns these settings, with those of `lower` for each that is not set.
    pub fn merged_over(self, lower: RawConfig) -> RawConfig {
        RawConfig {
            listen: self.listen.or(lower.listen),
            insecure: self.insecure.or(lower.insecure),
            data_dir: self.data_dir.or(lower.data_dir),
            embedded_max_memory: self.embedded_max_memory.or(lower.embedded_max_memory),
            max_ended_per_queue: self.max_ended_per_queue.or(lower.max_ended_per_queue),
            redis_url: self.redis_url.or(lower.redis_url),
            redis_ca: self.redis_ca.or(lower.redis_ca),
            durability: self.durability.or(lower.durability),
            replicas: self.replicas.or(lower.replicas),
            prefix: self.prefix.or(lower.prefix),
            shards: self.shards.or(lower.shards),
            threads: self.threads.or(lower.threads),
            poll_interval_ms: self.poll_interval_ms.or(lower.poll_interval_ms),
            shutdown_timeout_ms: self.shutdown_timeout_ms.or(lower.shutdown_timeout_ms),
            drain_ms: self.drain_ms.or(lower.drain_ms),
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            limits: self.limits.merged_over(lower.limits),
        }
    }

    /// Returns the resolved settings, with defaults for all that are not set.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let defaults = RawConfig::from_toml(Path::new("config.default.toml"), DEFAULTS)?;
        let raw = self.merged_over(defaults);
        let listen = raw.listen.unwrap_or_default();
        let Ok(address) = listen.parse::<SocketAddr>() else {
            return invalid("listen", listen, "it takes an IP address and a port, like 127.0.0.1:8080 or [::1]:8080");
        };
        if !address.ip().is_loopback() && !raw.insecure.unwrap_or(false) {
            return invalid(
                "listen",
                address,
                "there is no authentication yet: any client that reaches this address has full access. Listen on \
                 127.0.0.1, or set --insecure if the network is trusted",
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
        let embedded_max_memory = raw.embedded_max_memory.unwrap_or_default();
        let Some(embedded_max_memory) = MaxMemory::parse(&embedded_max_memory) else {
            return invalid("embedded_max_memory", embedded_max_memory, MaxMemory::FORMS);
        };
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
                    "the embedded Redis has no replicas: set --redis-url to a Redis with replicas",
                );
            }
            ("replicated", RedisSource::External { .. }, 0) => return invalid("replicas", 0, "it takes 1 to 255"),
            ("replicated", RedisSource::External { .. }, replicas) => Durability::Replicated(replicas),
            _ => return invalid("durability", level, "it takes fsync, everysec or replicated"),
        };
        Ok(Config {
            listen: address,
            redis,
            embedded_max_memory,
            max_ended_per_queue: raw.max_ended_per_queue.unwrap_or_default(),
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
        let config = raw("prefix = \"a\"").merged_over(raw("prefix = \"b\"\nshards = 4")).resolve().unwrap();
        assert_eq!((config.prefix.as_str(), config.shards), ("a", Shards::new(4)));
    }

    #[test]
    fn error_of_a_settings_file_names_the_line_and_shows_no_value() {
        for line in ["redis_url = \"redis://:secret@host", "redis_urls = \"redis://:secret@host\""] {
            let error = RawConfig::from_toml(Path::new("a.toml"), &format!("shards = 1\n{line}\n")).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("the settings file a.toml: line 2: ") && !text.contains("secret"), "{text}");
        }
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
            "embedded_max_memory = \"120%\"",
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
