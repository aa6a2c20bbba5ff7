//! How much a server bears: the table of the settings in `[limits]`.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, invalid};

/// Defines what may be written of each limit, from the one table of them.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident: $flag:literal, $env:literal, $min:literal..=$max:literal;)*) => {
        /// Limits as they were written in one place. What is absent there is left to the others.
        #[derive(Clone, Default, Debug, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct RawLimits {
            $(
                $(#[doc = $doc])*
                #[arg(long = $flag, env = $env, value_name = "NUMBER", help_heading = "Limits")]
                pub $name: Option<u64>,
            )*
        }

        /// Each limit as a number within its range.
        struct Numbers {
            $($name: u64,)*
        }

        impl RawLimits {
            /// What `self` leaves open, taken from `below`.
            pub(super) fn or(self, below: RawLimits) -> RawLimits {
                RawLimits { $($name: self.$name.or(below.$name),)* }
            }

            fn numbers(self) -> Result<Numbers, ConfigError> {
                Ok(Numbers {
                    $($name: {
                        let number = self.$name.unwrap_or_default();
                        if !($min..=$max).contains(&number) {
                            let why = concat!("it takes ", stringify!($min), " to ", stringify!($max));
                            return invalid(concat!("limits.", stringify!($name)), number, why);
                        }
                        number
                    },)*
                })
            }
        }
    };
}

limits! {
    /// How long, in ms, a new connection may be silent
    connect_idle_timeout_ms: "limits-connect-idle-timeout-ms", "SLOTWHEEL_LIMITS_CONNECT_IDLE_TIMEOUT_MS", 10..=3_600_000;
    /// How long, in ms, the head of a request may take from its first byte on
    head_timeout_ms: "limits-head-timeout-ms", "SLOTWHEEL_LIMITS_HEAD_TIMEOUT_MS", 10..=3_600_000;
    /// How large, in bytes, the head of a request may be
    max_head_bytes: "limits-max-head-bytes", "SLOTWHEEL_LIMITS_MAX_HEAD_BYTES", 1024..=1_048_576;
    /// How many headers a request may have
    max_headers: "limits-max-headers", "SLOTWHEEL_LIMITS_MAX_HEADERS", 10..=1000;
    /// How long, in ms, a body may take whatever its size
    body_timeout_ms: "limits-body-timeout-ms", "SLOTWHEEL_LIMITS_BODY_TIMEOUT_MS", 10..=3_600_000;
    /// How many bytes of a body earn it one more second
    min_body_bytes_per_second: "limits-min-body-bytes-per-second", "SLOTWHEEL_LIMITS_MIN_BODY_BYTES_PER_SECOND", 1..=1_073_741_824;
    /// How long, in ms, a body may take at all
    max_body_timeout_ms: "limits-max-body-timeout-ms", "SLOTWHEEL_LIMITS_MAX_BODY_TIMEOUT_MS", 10..=86_400_000;
    /// How long, in ms, a connection may be idle between requests
    idle_timeout_ms: "limits-idle-timeout-ms", "SLOTWHEEL_LIMITS_IDLE_TIMEOUT_MS", 10..=86_400_000;
    /// How long, in ms, a client may leave its answer unread
    write_timeout_ms: "limits-write-timeout-ms", "SLOTWHEEL_LIMITS_WRITE_TIMEOUT_MS", 10..=3_600_000;
    /// How old, in ms, a connection may get, give or take a tenth; 0: any age
    max_connection_age_ms: "limits-max-connection-age-ms", "SLOTWHEEL_LIMITS_MAX_CONNECTION_AGE_MS", 0..=604_800_000;
    /// How many connections there may be
    max_connections: "limits-max-connections", "SLOTWHEEL_LIMITS_MAX_CONNECTIONS", 1..=1_000_000;
    /// How many connections one address may have; 0: as many as there may be
    max_connections_per_address: "limits-max-connections-per-address", "SLOTWHEEL_LIMITS_MAX_CONNECTIONS_PER_ADDRESS", 0..=1_000_000;
    /// How many requests one HTTP/2 connection may have under way
    http2_max_streams: "limits-http2-max-streams", "SLOTWHEEL_LIMITS_HTTP2_MAX_STREAMS", 1..=10_000;
    /// How many requests may wait, for tasks, for a task's end, or for events
    max_waiting_requests: "limits-max-waiting-requests", "SLOTWHEEL_LIMITS_MAX_WAITING_REQUESTS", 1..=1_000_000;
    /// How many events are kept for those who listen
    max_buffered_events: "limits-max-buffered-events", "SLOTWHEEL_LIMITS_MAX_BUFFERED_EVENTS", 16..=65_536;
    /// How many bytes of request bodies may be held in memory
    max_body_memory_bytes: "limits-max-body-memory-bytes", "SLOTWHEEL_LIMITS_MAX_BODY_MEMORY_BYTES", 8_388_608..=1_099_511_627_776;
}

/// How much a server bears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the start of a connection to its first byte.
    pub connect_idle_timeout: Duration,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Bytes of a head.
    pub max_head_bytes: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// For a body of any size.
    pub body_timeout: Duration,
    /// Bytes of a body for which it gets one more second.
    pub min_body_bytes_per_second: u64,
    /// For a body, whatever it has earned.
    pub max_body_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// For an answer that its client does not read.
    pub write_timeout: Duration,
    /// After which a connection is asked to end.
    pub max_connection_age: Option<Duration>,
    /// Connections of all addresses.
    pub max_connections: usize,
    /// Connections of one address.
    pub max_connections_per_address: usize,
    /// Requests under way on one HTTP/2 connection.
    pub http2_max_streams: u32,
    /// Requests that wait.
    pub max_waiting_requests: usize,
    /// Events in memory.
    pub max_buffered_events: usize,
    /// Bytes of bodies in memory.
    pub max_body_memory_bytes: usize,
}

impl RawLimits {
    /// What they mean.
    pub(super) fn resolve(self) -> Result<Limits, ConfigError> {
        let numbers = self.numbers()?;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let duration = Duration::from_millis;
        Ok(Limits {
            connect_idle_timeout: duration(numbers.connect_idle_timeout_ms),
            head_timeout: duration(numbers.head_timeout_ms),
            max_head_bytes: count(numbers.max_head_bytes),
            max_headers: count(numbers.max_headers),
            body_timeout: duration(numbers.body_timeout_ms),
            min_body_bytes_per_second: numbers.min_body_bytes_per_second,
            max_body_timeout: duration(numbers.max_body_timeout_ms),
            idle_timeout: duration(numbers.idle_timeout_ms),
            write_timeout: duration(numbers.write_timeout_ms),
            max_connection_age: (numbers.max_connection_age_ms > 0).then(|| duration(numbers.max_connection_age_ms)),
            max_connections: count(numbers.max_connections),
            max_connections_per_address: match numbers.max_connections_per_address {
                0 => count(numbers.max_connections),
                per_address => count(per_address),
            },
            http2_max_streams: u32::try_from(numbers.http2_max_streams).unwrap_or(u32::MAX),
            max_waiting_requests: count(numbers.max_waiting_requests),
            max_buffered_events: count(numbers.max_buffered_events),
            max_body_memory_bytes: count(numbers.max_body_memory_bytes),
        })
    }
}
