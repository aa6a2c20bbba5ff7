//! Resolves submits of unknown outcome that may have handed tasks over.

use super::LeaseRef;
use super::submit::parse_hand_offs;
use crate::store::error::Result;
use crate::store::redis::reply::read_list;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(touch "resolve_hand_offs", []);

/// Returns the leases of the tasks that the last call of `caller`, a submit, has handed over; some may have ended. If that call has not run, it never will. It may be repeated until it is answered, but not after a later call of `caller`.
pub async fn resolve_hand_offs(shard: &Shard, caller: &Caller) -> Result<Vec<LeaseRef>> {
    let mut reply = read_list(shard.call_in_place_of_last(&SCRIPT, caller).send().await?)?;
    reply.value()?;
    let hand_offs = parse_hand_offs(reply.value()?)?;
    Ok(hand_offs.into_iter().map(|hand_off| LeaseRef { id: hand_off.id, lease: Some(hand_off.lease) }).collect())
}
