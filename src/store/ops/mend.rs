//! Mend: what does not fit the tasks as they are is set right.

use deadpool_redis::redis::Value;

use crate::domain::limits;
use crate::store::audit::Subject;
use crate::store::error::Result;
use crate::store::reply::{Items, items};
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("mend", flags = " flags=allow-oom", ["call", "stage", "wheel", "truth"]);

/// What was found of a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What is wrong; empty where it only remarks on what cannot be looked at.
    pub what: String,
    /// What mends it, or mended it; or the remark.
    pub remedy: String,
}

/// Looks at each subject again and mends what is wrong with it. What was, for each.
pub async fn mend(shard: &Shard, caller: &mut Caller, subjects: &[Subject]) -> Result<Vec<Vec<Found>>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_COMPLETED_MS).int(limits::RETAIN_DEAD_MS).int(limits::RETAIN_OTHER_MS);
    call.count(subjects.len());
    for subject in subjects {
        for argument in subject.arguments() {
            call.arg(argument);
        }
    }
    found(call.send().await?, subjects.len())
}

/// Reads what was found of `count` subjects.
pub(in crate::store) fn found(reply: Value, count: usize) -> Result<Vec<Vec<Found>>> {
    super::answers(reply, count, |list| {
        list.map(|pair| {
            let mut pair: Items = items(pair)?;
            Ok(Found { what: pair.text()?, remedy: pair.text()? })
        })
        .collect()
    })
}
