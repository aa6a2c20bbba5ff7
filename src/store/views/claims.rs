//! The leases of a claim id, for a repeated claim.

use deadpool_redis::redis::{cmd, pipe};

use super::next_due::next_due;
use crate::domain::claim_id::ClaimId;
use crate::domain::id::TaskId;
use crate::domain::task::ClaimedTask;
use crate::store::error::{Result, if_readable};
use crate::store::record::fields;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::shard::{Shard, Store};
use crate::store::task_hash::TaskHash;

/// Returns the tasks of all shards that are leased under this claim id, with their tokens; `None` if all of them were
/// claimed from other queues.
pub async fn claimed(store: &Store, claim: &ClaimId) -> Result<Option<Vec<ClaimedTask>>> {
    let reads = store.shards().iter().map(|shard| leased_in_shard(shard, claim));
    let found: Vec<Vec<(ClaimedTask, bool)>> = futures_util::future::try_join_all(reads).await?;
    let found: Vec<(ClaimedTask, bool)> = found.into_iter().flatten().collect();
    let is_mismatch = !found.is_empty() && found.iter().all(|(_, is_of_claim)| !is_of_claim);
    let tasks = found.into_iter().filter(|(_, is_of_claim)| *is_of_claim).map(|(task, _)| task);
    Ok((!is_mismatch).then(|| tasks.collect()))
}

/// Returns the tasks leased under the digest of the claim id, and whether their claim had the same queues.
async fn leased_in_shard(shard: &Shard, claim: &ClaimId) -> Result<Vec<(ClaimedTask, bool)>> {
    let members = read_list(shard.send(cmd("SMEMBERS").arg(shard.keys.claim(claim.digest()))).await?)?;
    let ids: Vec<TaskId> = members.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for id in &ids {
        pipeline.cmd("HGETALL").arg(shard.keys.task(id));
    }
    let now = next_due(shard).await?.now;
    let (mut found, mut outages) = (Vec::new(), None);
    for (id, reply) in ids.iter().zip(shard.send_pipeline(&pipeline).await?) {
        let Some(fields) = if_readable(TaskHash::parse(*id, reply))?.flatten() else { continue };
        let Some(claimed_as) = fields.bytes(fields::CLAIM_DIGEST) else { continue };
        if claimed_as.starts_with(claim.digest().as_bytes())
            && let Some(mut task) = if_readable(fields.claimed())?.flatten()
        {
            if task.lease_until <= now {
                let outages = match &outages {
                    Some(outages) => outages,
                    None => outages.insert(super::outages::outages(shard).await?),
                };
                task.lease_until = outages.prolong(task.lease_until, fields.lease_set_at()?);
            }
            if task.lease_until > now {
                found.push((task, claimed_as == claim.to_bytes()));
            }
        }
    }
    Ok(found)
}
