//! Expired leases.

use deadpool_redis::redis::cmd;

use super::tasks::{LeaseState, lease_states};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::shard::Shard;

/// Returns the leases of the queue that expire at `now` or before, at most 500.
pub async fn expired_leases(shard: &Shard, queue: &QueueName, now: TimestampMs) -> Result<Vec<(TaskId, LeaseState)>> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(shard.keys.leased(queue)).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limits::MAX_CALL_ITEMS);
    let list = read_list(shard.send(&command).await?)?;
    let ids: Vec<TaskId> = list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    let leases = lease_states(shard, &ids).await?;
    Ok(ids.into_iter().zip(leases).filter_map(|(id, holding)| Some((id, holding?))).collect())
}
