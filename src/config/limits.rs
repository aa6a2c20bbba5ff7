//! How much a server bears: the table of the settings in `[limits]`.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, bad};

/// Defines what may be written of each limit, from the one table of them.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident: $flag:literal, $env:literal, $min:literal..=$max:literal;)*) => {
        /// Limits as they were written in one place. What is absent there is left to the others.
        #[derive(Clone, Default, Debug, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct WrittenLimits {
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

        impl WrittenLimits {
            /// What `self` leaves open, taken from `below`.
            pub(super) fn or(self, below: WrittenLimits) -> WrittenLimits {
                WrittenLimits { $($name: self.$name.or(below.$name),)* }
            }

            fn numbers(self) -> Result<Numbers, ConfigError> {
                Ok(Numbers {
                    $($name: {
                        let number = self.$name.unwrap_or_default();
                        if !($min..=$max).contains(&number) {
                            let why = concat!("it takes ", stringify!($min), " to ", stringify!($max));
                            return bad(concat!("limits.", stringify!($name)), number, why);
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
    first_byte_ms: "limits-first-byte-ms", "SLOTWHEEL_LIMITS_FIRST_BYTE_MS", 10..=3_600_000;
    /// How long, in ms, the head of a request may take from its first byte on
    head_ms: "limits-head-ms", "SLOTWHEEL_LIMITS_HEAD_MS", 10..=3_600_000;
    /// How large, in bytes, the head of a request may be
    head_bytes: "limits-head-bytes", "SLOTWHEEL_LIMITS_HEAD_BYTES", 1024..=1_048_576;
    /// How many headers a request may have
    headers: "limits-headers", "SLOTWHEEL_LIMITS_HEADERS", 10..=1000;
    /// How long, in ms, a body may take whatever its size
    body_ms: "limits-body-ms", "SLOTWHEEL_LIMITS_BODY_MS", 10..=3_600_000;
    /// How many bytes of a body earn it one more second
    body_rate: "limits-body-rate", "SLOTWHEEL_LIMITS_BODY_RATE", 1..=1_073_741_824;
    /// How long, in ms, a body may take at all
    body_total_ms: "limits-body-total-ms", "SLOTWHEEL_LIMITS_BODY_TOTAL_MS", 10..=86_400_000;
    /// How long, in ms, a connection may be idle between requests
    idle_ms: "limits-idle-ms", "SLOTWHEEL_LIMITS_IDLE_MS", 10..=86_400_000;
    /// How long, in ms, a client may leave its answer unread
    unread_ms: "limits-unread-ms", "SLOTWHEEL_LIMITS_UNREAD_MS", 10..=3_600_000;
    /// How old, in ms, a connection may get, give or take a tenth; 0: any age
    age_ms: "limits-age-ms", "SLOTWHEEL_LIMITS_AGE_MS", 0..=604_800_000;
    /// How many connections there may be
    connections: "limits-connections", "SLOTWHEEL_LIMITS_CONNECTIONS", 1..=1_000_000;
    /// How many connections one address may have; 0: as many as there may be
    connections_per_address: "limits-connections-per-address", "SLOTWHEEL_LIMITS_CONNECTIONS_PER_ADDRESS", 0..=1_000_000;
    /// How many requests one HTTP/2 connection may have under way
    streams: "limits-streams", "SLOTWHEEL_LIMITS_STREAMS", 1..=10_000;
    /// How many requests may wait, for tasks, for a task's end, or for events
    waiting_polls: "limits-waiting-polls", "SLOTWHEEL_LIMITS_WAITING_POLLS", 1..=1_000_000;
    /// How many events are kept for those who listen
    events: "limits-events", "SLOTWHEEL_LIMITS_EVENTS", 16..=65_536;
    /// How many bytes of request bodies may be held in memory
    body_memory: "limits-body-memory", "SLOTWHEEL_LIMITS_BODY_MEMORY", 8_388_608..=1_099_511_627_776;
}

/// How much a server bears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the start of a connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// For a body of any size.
    pub body: Duration,
    /// Bytes of a body for which it gets one more second.
    pub body_rate: u64,
    /// For a body, whatever it has earned.
    pub body_total: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For an answer that its client does not read.
    pub unread: Duration,
    /// After which a connection is asked to end.
    pub age: Option<Duration>,
    /// Connections of all addresses.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Requests under way on one HTTP/2 connection.
    pub streams: u32,
    /// Requests that wait.
    pub waiting_polls: usize,
    /// Events in memory.
    pub events: usize,
    /// Bytes of bodies in memory.
    pub body_memory: usize,
}

impl WrittenLimits {
    /// What they mean.
    pub(super) fn meant(self) -> Result<Limits, ConfigError> {
        let numbers = self.numbers()?;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let time = Duration::from_millis;
        Ok(Limits {
            first_byte: time(numbers.first_byte_ms),
            head: time(numbers.head_ms),
            head_bytes: size(numbers.head_bytes),
            headers: size(numbers.headers),
            body: time(numbers.body_ms),
            body_rate: numbers.body_rate,
            body_total: time(numbers.body_total_ms),
            idle: time(numbers.idle_ms),
            unread: time(numbers.unread_ms),
            age: (numbers.age_ms > 0).then(|| time(numbers.age_ms)),
            connections: size(numbers.connections),
            connections_per_address: match numbers.connections_per_address {
                0 => size(numbers.connections),
                own => size(own),
            },
            streams: u32::try_from(numbers.streams).unwrap_or(u32::MAX),
            waiting_polls: size(numbers.waiting_polls),
            events: size(numbers.events),
            body_memory: size(numbers.body_memory),
        })
    }
}
