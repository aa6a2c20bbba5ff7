//! Repairs indexes, counts and keys that contradict the tasks.

use deadpool_redis::redis::Value;

use crate::domain::limits;
use crate::store::audit::Invariant;
use crate::store::error::Result;
use crate::store::redis::reply::{ReplyReader, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "repair", ["wheel", "dedupe", "invariants", "queue_invariants"]);

/// Violation of an invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The violation; empty for a remark about an invariant that cannot be checked.
    pub problem: String,
    /// The repair, done or possible; or the remark.
    pub repair: String,
}

/// Checks each invariant again and repairs its violations. Returns the violations of each.
pub async fn repair(shard: &Shard, caller: &mut Caller, invariants: &[Invariant]) -> Result<Vec<Vec<Violation>>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_COMPLETED_MS).push_int(limits::RETAIN_DEAD_MS).push_int(limits::RETAIN_OTHER_MS);
    call.push_usize(invariants.len());
    for invariant in invariants {
        for argument in invariant.script_args() {
            call.push(argument);
        }
    }
    parse_violations(call.send().await?, invariants.len())
}

/// Reads the violations of `count` invariants.
pub(in crate::store) fn parse_violations(reply: Value, count: usize) -> Result<Vec<Vec<Violation>>> {
    super::parse_items(reply, count, |list| {
        list.map(|pair| {
            let mut pair: ReplyReader = read_list(pair)?;
            Ok(Violation { problem: pair.text()?, repair: pair.text()? })
        })
        .collect()
    })
}
