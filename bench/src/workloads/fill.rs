//! Waiting tasks, submitted before the measurement.

use std::cell::RefCell;

use anyhow::Result;
use futures_util::future::try_join_all;
use rand::RngExt as _;

use super::QUEUE;
use crate::adapters::{Adapter, Capability, Client as _, Task};
use crate::ledger::{Ledger, payload};

/// A number of waiting tasks, spread evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Number of tasks.
    pub tasks: usize,
    /// Number of queues.
    pub queues: usize,
    /// Whether each has a random key.
    pub keyed: bool,
    /// Bytes of a payload.
    pub payload: usize,
}

const CONNECTIONS: usize = 16;
const BATCH: usize = 500;

impl Fill {
    /// Submits all, in batches if the system has them.
    pub async fn give(&self, system: &impl Adapter, ledger: &Ledger) -> Result<()> {
        let batch = if can_batch(system) { BATCH } else { 1 };
        // Remaining work: a queue, and the size of a batch.
        let each = self.tasks / self.queues;
        let parts = (0..self.queues).flat_map(|queue| {
            (0..each).step_by(batch).map(move |done| (queue_name(queue, self.queues), batch.min(each - done)))
        });
        let parts = RefCell::new(parts);
        for queue in 0..self.queues {
            system.prepare(&queue_name(queue, self.queues)).await?;
        }
        let next = || parts.borrow_mut().next();
        let loops = (0..CONNECTIONS).map(async |_| {
            let mut client = system.connect().await?;
            while let Some((queue, count)) = next() {
                let tasks: Vec<(String, Option<String>)> =
                    (0..count).map(|_| (payload(ledger.number(), self.payload), self.keyed.then(random_key))).collect();
                let tasks: Vec<Task<'_>> =
                    tasks.iter().map(|(payload, key)| Task { payload, key: key.as_deref() }).collect();
                match tasks.as_slice() {
                    [task] => client.submit(&queue, *task).await?,
                    tasks => client.submit_many(&queue, tasks).await?,
                }
            }
            anyhow::Ok(())
        });
        try_join_all(loops).await?;
        Ok(())
    }
}

fn can_batch<S: Adapter>(_: &S) -> bool {
    S::CAPABILITIES.contains(&Capability::Many)
}

/// Name of one of `queues`.
pub(super) fn queue_name(queue: usize, queues: usize) -> String {
    if queues == 1 { QUEUE.to_owned() } else { format!("{QUEUE}{queue}") }
}

/// Returns a key of a random slot.
pub(super) fn random_key() -> String {
    format!("k{:016x}", rand::rng().random::<u64>())
}
