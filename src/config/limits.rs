//! Limits on connections, requests and memory: the table of the settings in `[limits]`.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, invalid};

/// Defines the settings, their flags and their ranges from one table.
macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $unit:literal, $min:literal..=$max:literal,
            $flag:literal, $env:literal;
    )*) => {
        /// Limits as written in one source: a file, the environment, or flags. `None`: not set there.
        #[derive(Clone, Default, Debug, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct RawLimits {
            $(
                $(#[doc = $doc])*
                #[arg(long = $flag, env = $env, value_name = $unit, help_heading = "Limits")]
                pub $name: Option<u64>,
            )*
        }

        /// The limits as numbers within their ranges.
        struct CheckedLimits {
            $($name: u64,)*
        }

        impl RawLimits {
            /// Returns these limits, with those of `lower` for each that is not set.
            pub(super) fn merged_over(self, lower: RawLimits) -> RawLimits {
                RawLimits { $($name: self.$name.or(lower.$name),)* }
            }

            fn check_ranges(self) -> Result<CheckedLimits, ConfigError> {
                Ok(CheckedLimits {
                    $($name: {
                        let number = self.$name.unwrap_or_default();
                        if !($min..=$max).contains(&number) {
                            let reason = concat!("it takes ", stringify!($min), " to ", stringify!($max));
                            return invalid(concat!("limits.", stringify!($name)), number, reason);
                        }
                        number
                    },)*
                })
            }
        }
    };
}

limits! {
    /// Close a new connection that has sent nothing for this time
    connect_idle_timeout_ms: "MS", 10..=3_600_000,
        "limits-connect-idle-timeout-ms", "SLOTWHEEL_LIMITS_CONNECT_IDLE_TIMEOUT_MS";
    /// Maximum time for a request's head, from its first byte
    head_timeout_ms: "MS", 10..=3_600_000,
        "limits-head-timeout-ms", "SLOTWHEEL_LIMITS_HEAD_TIMEOUT_MS";
    /// Maximum size of a request's head
    max_head_bytes: "BYTES", 1024..=1_048_576,
        "limits-max-head-bytes", "SLOTWHEEL_LIMITS_MAX_HEAD_BYTES";
    /// Maximum number of headers of a request
    max_headers: "COUNT", 10..=1000,
        "limits-max-headers", "SLOTWHEEL_LIMITS_MAX_HEADERS";
    /// Time for a request's body of any size
    body_timeout_ms: "MS", 10..=3_600_000,
        "limits-body-timeout-ms", "SLOTWHEEL_LIMITS_BODY_TIMEOUT_MS";
    /// Received bytes of a body that extend its time by one second
    min_body_bytes_per_second: "BYTES", 1..=1_073_741_824,
        "limits-min-body-bytes-per-second", "SLOTWHEEL_LIMITS_MIN_BODY_BYTES_PER_SECOND";
    /// Maximum time for a request's body, including extensions
    max_body_timeout_ms: "MS", 10..=86_400_000,
        "limits-max-body-timeout-ms", "SLOTWHEEL_LIMITS_MAX_BODY_TIMEOUT_MS";
    /// Close a connection that is idle between requests for this time
    idle_timeout_ms: "MS", 10..=86_400_000,
        "limits-idle-timeout-ms", "SLOTWHEEL_LIMITS_IDLE_TIMEOUT_MS";
    /// Close a connection whose client has not read its response for this time
    write_timeout_ms: "MS", 10..=3_600_000,
        "limits-write-timeout-ms", "SLOTWHEEL_LIMITS_WRITE_TIMEOUT_MS";
    /// Maximum age of a connection, varied by up to 10 %; 0: unlimited
    max_connection_age_ms: "MS", 0..=604_800_000,
        "limits-max-connection-age-ms", "SLOTWHEEL_LIMITS_MAX_CONNECTION_AGE_MS";
    /// Maximum number of connections
    max_connections: "COUNT", 1..=1_000_000,
        "limits-max-connections", "SLOTWHEEL_LIMITS_MAX_CONNECTIONS";
    /// Maximum number of connections per client address; 0: no limit per address
    max_connections_per_address: "COUNT", 0..=1_000_000,
        "limits-max-connections-per-address", "SLOTWHEEL_LIMITS_MAX_CONNECTIONS_PER_ADDRESS";
    /// Maximum number of concurrent requests on one HTTP/2 connection
    http2_max_streams: "COUNT", 1..=10_000,
        "limits-http2-max-streams", "SLOTWHEEL_LIMITS_HTTP2_MAX_STREAMS";
    /// Maximum number of requests that wait for tasks, for a task's end, or for events
    max_waiting_requests: "COUNT", 1..=1_000_000,
        "limits-max-waiting-requests", "SLOTWHEEL_LIMITS_MAX_WAITING_REQUESTS";
    /// Maximum number of events kept in memory for subscribers
    max_buffered_events: "COUNT", 16..=65_536,
        "limits-max-buffered-events", "SLOTWHEEL_LIMITS_MAX_BUFFERED_EVENTS";
    /// Maximum memory for request bodies
    max_body_memory_bytes: "BYTES", 8_388_608..=1_099_511_627_776,
        "limits-max-body-memory-bytes", "SLOTWHEEL_LIMITS_MAX_BODY_MEMORY_BYTES";
}

/// Resolved limits of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Time for the first byte of a new connection.
    pub connect_idle_timeout: Duration,
    /// Time for a request's head, from its first byte.
    pub head_timeout: Duration,
    /// Maximum size of a request's head.
    pub max_head_bytes: usize,
    /// Maximum number of headers of a request.
    pub max_headers: usize,
    /// Time for a request's body of any size.
    pub body_timeout: Duration,
    /// Received bytes of a body that extend its time by one second.
    pub min_body_bytes_per_second: u64,
    /// Maximum time for a request's body, including extensions.
    pub max_body_timeout: Duration,
    /// Time that a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Time for a client to read a response.
    pub write_timeout: Duration,
    /// Age at which a connection is closed after its next response; `None`: never.
    pub max_connection_age: Option<Duration>,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of connections per client address.
    pub max_connections_per_address: usize,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub http2_max_streams: u32,
    /// Maximum number of waiting requests.
    pub max_waiting_requests: usize,
    /// Maximum number of events in memory.
    pub max_buffered_events: usize,
    /// Maximum memory for request bodies.
    pub max_body_memory_bytes: usize,
}

impl RawLimits {
    /// Returns the resolved limits.
    pub(super) fn resolve(self) -> Result<Limits, ConfigError> {
        let checked = self.check_ranges()?;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let duration = Duration::from_millis;
        Ok(Limits {
            connect_idle_timeout: duration(checked.connect_idle_timeout_ms),
            head_timeout: duration(checked.head_timeout_ms),
            max_head_bytes: count(checked.max_head_bytes),
            max_headers: count(checked.max_headers),
            body_timeout: duration(checked.body_timeout_ms),
            min_body_bytes_per_second: checked.min_body_bytes_per_second,
            max_body_timeout: duration(checked.max_body_timeout_ms),
            idle_timeout: duration(checked.idle_timeout_ms),
            write_timeout: duration(checked.write_timeout_ms),
            max_connection_age: (checked.max_connection_age_ms > 0).then(|| duration(checked.max_connection_age_ms)),
            max_connections: count(checked.max_connections),
            max_connections_per_address: match checked.max_connections_per_address {
                0 => count(checked.max_connections),
                per_address => count(per_address),
            },
            http2_max_streams: u32::try_from(checked.http2_max_streams).unwrap_or(u32::MAX),
            max_waiting_requests: count(checked.max_waiting_requests),
            max_buffered_events: count(checked.max_buffered_events),
            max_body_memory_bytes: count(checked.max_body_memory_bytes),
        })
    }
}
