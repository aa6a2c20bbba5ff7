//! Whether what an audit suspects is wrong: each subject looked at in one piece, while others write.

use crate::store::audit::Invariant;
use crate::store::error::Result;
use crate::store::ops::repair::{Violation, found};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script =
    script!(read "verify_invariants", ["clock", "transaction", "wheel", "dedupe", "invariants", "queue_invariants"]);

/// What is wrong with each subject.
pub async fn verify_invariants(shard: &Shard, invariants: &[Invariant]) -> Result<Vec<Vec<Violation>>> {
    let mut arguments = vec![invariants.len().to_string().into_bytes()];
    arguments.extend(invariants.iter().flat_map(Invariant::script_args));
    found(shard.read_script(&SCRIPT, arguments).await?, invariants.len())
}
