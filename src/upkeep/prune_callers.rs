//! Deletes the last-call records of callers that no longer exist.

use super::job::Context;
use crate::store::ops::prune_callers::prune_callers;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let mut outcome = Ok(());
    // An unavailable shard does not keep the others from being pruned.
    for shard in context.store.shards() {
        outcome = outcome.and(prune_shard(shard, &mut context.caller).await);
    }
    outcome
}

async fn prune_shard(shard: &Shard, caller: &mut Caller) -> Result<()> {
    let mut cursor = "0".to_owned();
    loop {
        cursor = prune_callers(shard, caller, &cursor).await?;
        if cursor == "0" {
            return Ok(());
        }
    }
}
