//! Samples the number of leases of each worker. Of all servers, the first in each 5 s records it.

use super::job::Context;
use crate::store::Result;
use crate::store::ops::sample_leases::sample_leases;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let mut sampled_at = None;
    let mut outcome = Ok(());
    // An unavailable shard does not keep the others from being sampled.
    for shard in context.store.shards() {
        match sample_leases(shard, &mut context.caller, sampled_at).await {
            Ok(time) => sampled_at = sampled_at.or(Some(time)),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}
