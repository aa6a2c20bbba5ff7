//! Whether what an audit suspects is wrong: each subject looked at in one piece, while others write.

use crate::store::audit::Invariant;
use crate::store::error::Result;
use crate::store::ops::repair::{Violation, found};
use crate::store::redis::script::Script;
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = Script {
    name: "verify_invariants",
    text: concat!(
        "#!lua flags=no-writes\n",
        include_str!("../ops/lib/look.lua"),
        include_str!("../ops/lib/stage.lua"),
        include_str!("../ops/lib/wheel.lua"),
        include_str!("../ops/lib/truth.lua"),
        include_str!("verify_invariants.lua"),
    ),
};

/// What is wrong with each subject.
pub async fn verify_invariants(shard: &Shard, invariants: &[Invariant]) -> Result<Vec<Vec<Violation>>> {
    let mut arguments = vec![invariants.len().to_string().into_bytes()];
    arguments.extend(invariants.iter().flat_map(Invariant::script_args));
    found(shard.read_script(&SCRIPT, arguments).await?, invariants.len())
}
