//! Repairs indexes, counts and keys that contradict the tasks.

use crate::domain::limits;
use crate::store::error::Result;
use crate::store::invariant::{Invariant, Violation, parse_violations};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "repair", ["due", "set_due", "task", "write_task", "counts", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "dedupe", "index_end", "ended_flag", "unindex_end", "list_keys", "invariants", "dedupe_invariants", "retained_invariants", "set_aside", "wheel_invariants", "queue_invariants", "count_invariants"]);

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
