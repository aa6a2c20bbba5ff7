//! Leases that have run out.

use deadpool_redis::redis::cmd;

use super::tasks::{Holding, holdings};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::store::error::Result;
use crate::store::reply::{bytes, items};
use crate::store::shard::Shard;

/// Leases of the queue that end at `now` or before, at most one call's worth.
pub async fn overdue(shard: &Shard, queue: &QueueName, now: Millis) -> Result<Vec<(TaskId, Holding)>> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(shard.keys.leased(queue)).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limits::CALL_ITEMS);
    let list = items(shard.send(&command).await?)?;
    let ids: Vec<TaskId> = list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
    let found = holdings(shard, &ids).await?;
    Ok(ids.into_iter().zip(found).filter_map(|(id, holding)| Some((id, holding?))).collect())
}
