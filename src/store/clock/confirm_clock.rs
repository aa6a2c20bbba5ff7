//! Confirms a shard's clock, and records the outage since its last touch.

use crate::store::error::{Error, Result};
use crate::store::redis::reply::read_list;
use crate::store::redis::script::{Script, script};
use deadpool_redis::redis::Value;

pub(in crate::store) static SCRIPT: Script = script!(touch "confirm_clock", ["clock_record"]);

/// How long an outage is kept: twice the longest lease.
pub(super) const KEEP_OUTAGE_MS: i64 = 86_400_000;
/// The maximum number of outages kept.
pub(super) const MAX_OUTAGES: i64 = 100;

/// A confirmed clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Confirmed {
    /// The time in ms.
    pub(super) time_ms: i64,
    /// The length of the outage that is over; 0 if there was none.
    pub(super) outage_ms: i64,
}

/// Decodes the reply. `None`: another server was faster, or Redis' clock was set since it was read.
pub(super) fn decode(reply: Value) -> Result<Option<Confirmed>> {
    let mut reply = read_list(reply)?;
    match reply.text()?.as_str() {
        "confirmed" => Ok(Some(Confirmed { time_ms: reply.int()?, outage_ms: reply.int()? })),
        "changed" => Ok(None),
        other => Err(Error::Unexpected(format!("script confirm_clock returned {other:.40}"))),
    }
}
