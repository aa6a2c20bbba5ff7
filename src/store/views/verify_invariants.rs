//! Verifies invariants: one script checks each of them atomically while other calls write.

use crate::domain::limits;
use crate::store::error::Result;
use crate::store::invariant::{Invariant, Violation, parse_violations};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "verify_invariants", ["clock", "confirmed_clock", "transaction", "records", "due", "set_due", "task", "write_task", "counts", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "dedupe", "index_end", "ended_flag", "unindex_end", "list_keys", "invariants", "dedupe_invariants", "retained_invariants", "set_aside", "wheel_invariants", "queue_invariants", "count_invariants"]);

/// Returns the violations of each invariant.
pub async fn verify_invariants(shard: &Shard, invariants: &[Invariant]) -> Result<Vec<Vec<Violation>>> {
    let retentions = [limits::RETAIN_COMPLETED_MS, limits::RETAIN_DEAD_MS, limits::RETAIN_OTHER_MS];
    let mut arguments: Vec<Vec<u8>> = retentions.iter().map(|ms| ms.to_string().into_bytes()).collect();
    arguments.push(invariants.len().to_string().into_bytes());
    arguments.extend(invariants.iter().flat_map(Invariant::script_args));
    parse_violations(shard.read_script(&SCRIPT, arguments).await?, invariants.len())
}
