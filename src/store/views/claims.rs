//! The leases of a claim id, for a repeated claim.

use deadpool_redis::redis::{cmd, pipe};

use super::next_due::next_due;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::task::ClaimedTask;
use crate::store::error::{Result, if_readable};
use crate::store::record::{TaskHash, fields};
use crate::store::redis::reply::{bytes, read_list};
use crate::store::shard::{Shard, Store};

/// Returns the tasks of all shards that are leased under this claim id, with their tokens.
pub async fn claimed(store: &Store, claim: &Digest) -> Result<Vec<ClaimedTask>> {
    let reads = store.shards().iter().map(|shard| leased_in_shard(shard, claim));
    let found: Vec<Vec<ClaimedTask>> = futures_util::future::try_join_all(reads).await?;
    Ok(found.into_iter().flatten().collect())
}

async fn leased_in_shard(shard: &Shard, claim: &Digest) -> Result<Vec<ClaimedTask>> {
    let members = read_list(shard.send(cmd("SMEMBERS").arg(shard.keys.claim(claim))).await?)?;
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
        if fields.bytes(fields::CLAIM_DIGEST) == Some(claim.as_bytes())
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
                found.push(task);
            }
        }
    }
    Ok(found)
}
