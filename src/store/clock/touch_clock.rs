//! Moves the last touch of a shard's clock on.

use crate::store::error::{Error, Result};
use crate::store::redis::reply::read_list;
use crate::store::redis::script::{Script, script};
use deadpool_redis::redis::Value;

pub(in crate::store) static SCRIPT: Script = script!(touch "touch_clock", ["clock_record"]);

/// The outcome of a touch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Touched {
    /// The clock agrees with its last touch, and is confirmed.
    Confirmed(Reading),
    /// The clock does not agree with its last touch: there was an outage, or Redis' clock was set.
    Unconfirmed {
        /// The clock now.
        reading: Reading,
        /// The time of the last touch, by the shard's clock in ms.
        last_touch_ms: i64,
        /// The record of the clock, for [`super::confirm_clock`].
        record: Vec<u8>,
    },
}

/// A reading of a shard's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// The time in ms.
    pub(super) time_ms: i64,
    /// The shift against Redis' clock in ms.
    pub(super) shift_ms: i64,
}

/// Decodes the reply.
pub(super) fn decode(reply: Value) -> Result<Touched> {
    let mut reply = read_list(reply)?;
    let tag = reply.text()?;
    let reading = Reading { time_ms: reply.int()?, shift_ms: reply.int()? };
    match tag.as_str() {
        "touched" => Ok(Touched::Confirmed(reading)),
        "unconfirmed" => Ok(Touched::Unconfirmed { reading, last_touch_ms: reply.int()?, record: reply.bytes()? }),
        other => Err(Error::Unexpected(format!("script touch_clock returned {other:.40}"))),
    }
}
