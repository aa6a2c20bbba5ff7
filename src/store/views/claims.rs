//! The leases of a claim, for its repetition: those of its claim id, and those that a completed task keeps.

use deadpool_redis::redis::{Value, cmd, pipe};

use super::next_due::next_due;
use crate::domain::claim_id::ClaimId;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::task::ClaimedTask;
use crate::domain::token::Token;
use crate::store::error::{Result, if_readable};
use crate::store::record::fields;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::shard::{Shard, Store};
use crate::store::task_hash::TaskHash;

/// Length of a lease that a completed task keeps: the id of its task, and the token.
const LEASE_BYTES: usize = 32;

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

/// A completion that a claim followed.
#[derive(Clone, Copy, Debug)]
pub struct CompletedLease {
    /// The completed task.
    pub task: TaskId,
    /// The digest of the batch of completions, of which it is the last; `None`: it was alone.
    pub batch: Option<Digest>,
}

/// Returns the tasks whose leases were given by the call that completed the task, and still live.
pub async fn leased_with(store: &Store, completed: &CompletedLease) -> Result<Vec<ClaimedTask>> {
    let shard = store.shard_for_task(&completed.task);
    let kept = shard.send(cmd("HGET").arg(shard.keys.task(&completed.task)).arg(fields::FOLLOWERS)).await?;
    let kept = if kept == Value::Nil { Vec::new() } else { bytes(kept)? };
    // Only the leases of a batch have a digest in front.
    let batch = completed.batch.as_ref().map_or(&[][..], |digest| digest.as_bytes());
    let Some(leases) = kept.strip_prefix(batch).filter(|leases| leases.len() % LEASE_BYTES == 0) else {
        return Ok(Vec::new());
    };
    let lease = |lease: &[u8]| {
        let (id, token) = lease.split_at_checked(16)?;
        Some((TaskId::from_bytes(id)?, Token::from_bytes(token)?))
    };
    let leases: Vec<(TaskId, Token)> = leases.chunks_exact(LEASE_BYTES).filter_map(lease).collect();
    let ids: Vec<TaskId> = leases.iter().map(|(id, _)| *id).collect();
    let live = live_leases(shard, &ids, |_| Some(())).await?.into_iter().map(|(task, ())| task);
    Ok(live.filter(|task| leases.contains(&(task.id, task.lease))).collect())
}

/// Returns the tasks leased under the digest of the claim id, and whether their claim had the same queues.
async fn leased_in_shard(shard: &Shard, claim: &ClaimId) -> Result<Vec<(ClaimedTask, bool)>> {
    let members = read_list(shard.send(cmd("SMEMBERS").arg(shard.keys.claim(claim.digest()))).await?)?;
    let ids: Vec<TaskId> = members.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    let is_of_claim = |fields: &TaskHash| {
        let claimed_as = fields.bytes(fields::CLAIM_DIGEST)?;
        claimed_as.starts_with(claim.digest().as_bytes()).then(|| claimed_as == claim.to_bytes())
    };
    live_leases(shard, &ids, is_of_claim).await
}

/// Returns those of the tasks that are leased and that `select` takes, with what it returns.
async fn live_leases<T>(
    shard: &Shard,
    ids: &[TaskId],
    select: impl Fn(&TaskHash) -> Option<T>,
) -> Result<Vec<(ClaimedTask, T)>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for id in ids {
        pipeline.cmd("HGETALL").arg(shard.keys.task(id));
    }
    let now = next_due(shard).await?.now;
    let (mut found, mut outages) = (Vec::new(), None);
    for (id, reply) in ids.iter().zip(shard.send_pipeline(&pipeline).await?) {
        let Some(fields) = if_readable(TaskHash::parse(*id, reply))?.flatten() else { continue };
        if let Some(selected) = select(&fields)
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
                found.push((task, selected));
            }
        }
    }
    Ok(found)
}
