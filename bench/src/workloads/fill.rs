//! Tasks that wait before anything is measured.

use std::cell::RefCell;

use anyhow::Result;
use futures_util::future::try_join_all;
use rand::RngExt as _;

use super::QUEUE;
use crate::ledger::{Ledger, payload};
use crate::adapters::{Capability, Client as _, Side, Task};

/// So many, spread evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Tasks in all.
    pub tasks: usize,
    /// Queues that they are spread over.
    pub queues: usize,
    /// Whether each has a random key.
    pub keyed: bool,
    /// Bytes of a payload.
    pub payload: usize,
}

const CONNECTIONS: usize = 16;
const BATCH: usize = 500;

impl Fill {
    /// Submits them all, in batches where the side has them.
    pub async fn give(&self, side: &impl Side, ledger: &Ledger) -> Result<()> {
        let batch = if can_batch(side) { BATCH } else { 1 };
        // What is still to do: a queue, and how many at once.
        let each = self.tasks / self.queues;
        let parts = (0..self.queues).flat_map(|queue| {
            (0..each).step_by(batch).map(move |done| (queue_name(queue, self.queues), batch.min(each - done)))
        });
        let parts = RefCell::new(parts);
        for queue in 0..self.queues {
            side.prepare(&queue_name(queue, self.queues)).await?;
        }
        let next = || parts.borrow_mut().next();
        let loops = (0..CONNECTIONS).map(async |_| {
            let mut client = side.connect().await?;
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

fn can_batch<S: Side>(_: &S) -> bool {
    S::CAPABILITIES.contains(&Capability::Many)
}

/// Name of one of `queues`.
pub(super) fn queue_name(queue: usize, queues: usize) -> String {
    if queues == 1 { QUEUE.to_owned() } else { format!("{QUEUE}{queue}") }
}

/// A key whose slot may be any.
pub(super) fn random_key() -> String {
    format!("k{:016x}", rand::rng().random::<u64>())
}
