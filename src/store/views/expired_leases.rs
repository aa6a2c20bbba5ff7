//! Expired leases.

use deadpool_redis::redis::cmd;

use super::tasks::{LeaseState, lease_states};
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::shard::Shard;

/// The first entries of the index of leases.
#[derive(Debug)]
pub struct ExpiredLeases {
    /// The number of entries read.
    pub entries: usize,
    /// The tasks of these entries with their leases. Left out are entries whose task does not exist.
    pub leases: Vec<(TaskId, LeaseState)>,
}

/// Returns the leases of the queue that expire at `now` or before, at most `limit`.
pub async fn expired_leases(shard: &Shard, queue: &QueueName, now: TimestampMs, limit: usize) -> Result<ExpiredLeases> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(shard.keys.leased(queue)).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limit);
    let list = read_list(shard.send(&command).await?)?;
    let entries = list.len();
    let ids: Vec<TaskId> = list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    let leases = lease_states(shard, &ids).await?;
    let leases = ids.into_iter().zip(leases).filter_map(|(id, holding)| Some((id, holding?))).collect();
    Ok(ExpiredLeases { entries, leases })
}
