//! Mend: what does not fit the tasks as they are is set right.

use deadpool_redis::redis::Value;

use crate::domain::limits;
use crate::store::audit::Invariant;
use crate::store::error::Result;
use crate::store::redis::reply::{ReplyReader, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "repair", ["wheel", "dedupe", "invariants", "queue_invariants"]);

/// What was found of a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What is wrong; empty where it only remarks on what cannot be looked at.
    pub problem: String,
    /// What mends it, or mended it; or the remark.
    pub repair: String,
}

/// Looks at each subject again and mends what is wrong with it. What was, for each.
pub async fn repair(shard: &Shard, caller: &mut Caller, invariants: &[Invariant]) -> Result<Vec<Vec<Violation>>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_COMPLETED_MS).push_int(limits::RETAIN_DEAD_MS).push_int(limits::RETAIN_OTHER_MS);
    call.push_usize(invariants.len());
    for invariant in invariants {
        for argument in invariant.script_args() {
            call.push(argument);
        }
    }
    found(call.send().await?, invariants.len())
}

/// Reads what was found of `count` subjects.
pub(in crate::store) fn found(reply: Value, count: usize) -> Result<Vec<Vec<Violation>>> {
    super::parse_items(reply, count, |list| {
        list.map(|pair| {
            let mut pair: ReplyReader = read_list(pair)?;
            Ok(Violation { problem: pair.text()?, repair: pair.text()? })
        })
        .collect()
    })
}
