//! Beat: a write that proves that writes work, and a counter that only rises, by which a loss of data is noticed.

use crate::store::error::Result;
use crate::store::found::Founded;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("beat", flags = " flags=allow-oom", ["call", "stage"]);

/// What a beat may do to a shard that does not know its data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Nothing.
    Look,
    /// Tell it, if it knows none.
    Found,
    /// Tell it, and have all servers take it for theirs.
    Accept,
}

/// The pulse of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pulse {
    /// The data set's name and number of shards.
    pub set: String,
    /// How often it has been written, by any server.
    pub beats: i64,
    /// When an operator last accepted the set as it is, by Redis' clock in ms; 0: never.
    pub accepted: i64,
}

/// Writes the shard's pulse and answers it; `None` where there is none and none was to be made.
pub async fn beat(shard: &Shard, caller: &mut Caller, own: &Founded, purpose: Purpose) -> Result<Option<Pulse>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.arg(own.to_string()).arg(match purpose {
        Purpose::Look => "look",
        Purpose::Found => "found",
        Purpose::Accept => "accept",
    });
    let mut answer = crate::store::reply::items(call.send_in_spite_of_loss().await?)?;
    match answer.text()?.as_str() {
        "beats" => Ok(Some(Pulse { set: answer.text()?, beats: answer.int()?, accepted: answer.int()? })),
        "gone" => Ok(None),
        other => super::unexpected(&SCRIPT, other),
    }
}
