//! Tasks by id, their leases, and the ready tasks of a queue in claim order.

use std::collections::BTreeMap;

use deadpool_redis::redis::{Value, cmd, pipe};

use super::next_due::next_due;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::retry::Backoff;
use crate::domain::task::Task;
use crate::domain::token::Token;
use crate::store::error::{Result, if_readable};
use crate::store::opaque::decode_backoff;
use crate::store::record::fields;
use crate::store::shard::{Shard, Store};
use crate::store::task_hash::TaskHash;

/// Returns the task as it is by Redis' clock. `None`: there is no such task.
pub async fn task(store: &Store, id: TaskId) -> Result<Option<Task>> {
    let shard = store.shard_for_task(&id);
    let reply = shard.send(cmd("HGETALL").arg(shard.keys.task(&id))).await?;
    match TaskHash::parse(id, reply)?.map(|fields| fields.task()).transpose()? {
        Some(task) if task.may_expire() => Ok(Some(task.at(next_due(shard).await?.now))),
        task => Ok(task),
    }
}

/// Returns the existing tasks in the order of `ids` until 2 MiB are read, and the number of ids covered. Each task is as
/// it is by Redis' clock. Unreadable tasks are left out.
pub async fn tasks(store: &Store, ids: &[TaskId]) -> Result<(Vec<Task>, usize)> {
    let (mut found, mut covered, mut length) = (Vec::new(), 0, 0);
    for chunk in ids.chunks(8) {
        // One pipeline per shard: on a Cluster, all keys of a pipeline lie in one Redis slot.
        let mut by_shard: BTreeMap<usize, Vec<TaskId>> = BTreeMap::new();
        for id in chunk {
            by_shard.entry(store.layout().shard_of(id.slot())).or_default().push(*id);
        }
        let mut read = BTreeMap::new();
        for ids in by_shard.values() {
            let Some(first) = ids.first() else { continue };
            let shard = store.shard_for_task(first);
            let mut pipeline = pipe();
            for id in ids {
                pipeline.cmd("HGETALL").arg(shard.keys.task(id));
            }
            let mut now = None;
            for (id, reply) in ids.iter().zip(shard.send_pipeline(&pipeline).await?) {
                let fields = if_readable(TaskHash::parse(*id, reply))?.flatten();
                let Some(mut task) = fields.map(|fields| if_readable(fields.task())).transpose()?.flatten() else {
                    continue;
                };
                if task.may_expire() {
                    let now = match now {
                        Some(now) => now,
                        None => *now.insert(next_due(shard).await?.now),
                    };
                    task = task.at(now);
                }
                read.insert(*id, task);
            }
        }
        for id in chunk {
            if let Some(task) = read.remove(id) {
                length += task.payload.get().len() + task.result.as_ref().map_or(0, |result| result.get().len());
                found.push(task);
            }
        }
        covered += chunk.len();
        if length >= limits::MAX_CALL_BYTES {
            break;
        }
    }
    Ok((found, covered))
}

/// The part of a lease that decides about a retry when it expires.
#[derive(Clone, Debug)]
pub struct LeaseState {
    /// The token of the last lease, which may have ended. `None`: the task was never leased.
    pub lease: Option<Token>,
    /// The worker of that lease.
    pub worker: String,
    /// The backoff of the task.
    pub backoff: Backoff,
    /// Failed attempts before this lease. The number changes only when a lease ends.
    pub attempts: u32,
}

impl LeaseState {
    /// Returns the delay before the retry in ms. `random` is drawn from 0..1.
    pub fn retry_delay_ms(&self, random: f64) -> i64 {
        self.backoff.wait_ms(self.attempts.saturating_add(1), random)
    }
}

/// Returns the last lease of each task, in order. `None`: there is no such task. Shards fail alone.
pub async fn lease_states_of(store: &Store, ids: &[TaskId]) -> Vec<Result<Option<LeaseState>>> {
    let mut found: Vec<Result<Option<LeaseState>>> = ids.iter().map(|_| Ok(None)).collect();
    for shard in store.shards() {
        let is_here = |(_, id): &(usize, &TaskId)| store.layout().shard_of(id.slot()) == shard.index;
        let here: Vec<(usize, &TaskId)> = ids.iter().enumerate().filter(is_here).collect();
        for chunk in here.chunks(limits::MAX_CALL_ITEMS) {
            let ids: Vec<TaskId> = chunk.iter().map(|(_, id)| **id).collect();
            let states = match lease_states(shard, &ids).await {
                Ok(states) => states.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); chunk.len()],
            };
            for ((index, _), state) in chunk.iter().zip(states) {
                if let Some(entry) = found.get_mut(*index) {
                    *entry = state;
                }
            }
        }
    }
    found
}

/// Returns the last lease of each task of one shard. `None`: there is no such task.
pub async fn lease_states(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<LeaseState>>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for id in ids {
        pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&LEASE_STATE_FIELDS);
    }
    let replies = shard.send_pipeline(&pipeline).await?;
    ids.iter().zip(replies).map(|(id, reply)| decode_lease_state(*id, reply)).collect()
}

const LEASE_STATE_FIELDS: [&str; 3] = [fields::PLACEMENT, fields::LEASE, fields::BACKOFF];

pub(in crate::store) fn decode_lease_state(id: TaskId, reply: Value) -> Result<Option<LeaseState>> {
    let task = TaskHash::parse_named(id, &LEASE_STATE_FIELDS, reply)?;
    Ok(task.map(|task| LeaseState {
        lease: task.lease(),
        worker: task.worker(),
        backoff: task.bytes(fields::BACKOFF).map(decode_backoff).unwrap_or_default(),
        attempts: task.attempts(),
    }))
}
