//! Leases given under a claim id, for a claim that is repeated.

use deadpool_redis::redis::{cmd, pipe};

use super::horizon::horizon;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::task::Claimed;
use crate::store::error::Result;
use crate::store::record::Fields;
use crate::store::reply::{bytes, items};
use crate::store::shard::{Shard, Store};

/// The tasks of all shards that are leased under this claim id, with their tokens.
pub async fn claimed(store: &Store, claim: &Digest) -> Result<Vec<Claimed>> {
    let looks = store.shards().iter().map(|shard| in_shard(shard, claim));
    let found: Vec<Vec<Claimed>> = futures_util::future::try_join_all(looks).await?;
    Ok(found.into_iter().flatten().collect())
}

async fn in_shard(shard: &Shard, claim: &Digest) -> Result<Vec<Claimed>> {
    let members = items(shard.send(cmd("SMEMBERS").arg(shard.keys.claim(claim))).await?)?;
    let ids: Vec<TaskId> = members.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for id in &ids {
        pipeline.cmd("HGETALL").arg(shard.keys.task(id));
    }
    let now = horizon(shard).await?.now;
    let mut found = Vec::new();
    for (id, answer) in ids.iter().zip(shard.read(&pipeline).await?) {
        let Some(fields) = Fields::of(*id, answer)? else { continue };
        if fields.bytes("C") == Some(claim.as_bytes())
            && let Some(task) = fields.claimed()?
            && task.lease_until > now
        {
            found.push(task);
        }
    }
    Ok(found)
}
