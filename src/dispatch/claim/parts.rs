//! A claim call in parts: if it meets unreadable data, its queues are divided until only the queue of that data fails.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::waiters::ClaimBatch;
use crate::domain::queue::QueueName;
use crate::store::isolation::unreadable_keys;
use crate::store::ops::claim::{ClaimReply, WaiterRequest};
use crate::store::{Error, Shard};

/// A part of a batch: some of its queues, and the waiters that want them and have no tasks yet.
pub(super) struct Part<'a> {
    pub(super) queues: Cow<'a, [QueueName]>,
    pub(super) requests: Cow<'a, [WaiterRequest]>,
    /// Indexes in the batch of these queues and waiters. `None`: the part is the whole batch.
    indexes: Option<(Vec<usize>, Vec<usize>)>,
}

/// The parts of a batch, and their results together.
pub(super) struct Parts<'a> {
    shard: &'a Shard,
    batch: &'a ClaimBatch,
    /// Indexes of the queues of each part that is left. `None`: the whole batch is.
    left: Option<Vec<Vec<usize>>>,
    /// The replies, with the indexes of the batch.
    pub(super) reply: ClaimReply,
    /// The queues that failed.
    pub(super) failed: BTreeMap<QueueName, Error>,
}

impl<'a> Parts<'a> {
    /// Returns the batch as one part, without queues that are known to fail.
    pub(super) fn new(shard: &'a Shard, batch: &'a ClaimBatch) -> Self {
        let failed = shard.unreadable().failed_claims(shard.index, &batch.queues);
        let left = (!failed.is_empty()).then(|| {
            let readable = batch.queues.iter().enumerate().filter(|(_, queue)| !failed.contains_key(*queue));
            vec![readable.map(|(index, _)| index).collect()]
        });
        let failed = failed.into_iter().map(|(queue, reason)| (queue, Error::Unexpected(reason))).collect();
        Parts { shard, batch, left, reply: ClaimReply::default(), failed }
    }

    /// Returns the next part that has waiters.
    pub(super) fn next(&mut self) -> Option<Part<'a>> {
        let Some(left) = &mut self.left else {
            self.left = Some(Vec::new());
            let (queues, requests) = (Cow::Borrowed(&*self.batch.queues), Cow::Borrowed(&*self.batch.requests));
            return Some(Part { queues, requests, indexes: None });
        };
        while let Some(queue_indexes) = left.pop() {
            let queues: Vec<QueueName> =
                queue_indexes.iter().filter_map(|index| self.batch.queues.get(*index).cloned()).collect();
            let (mut requests, mut waiter_indexes) = (Vec::new(), Vec::new());
            for (index, request) in self.batch.requests.iter().enumerate() {
                let is_served = self.reply.tasks.iter().any(|(waiter, _)| *waiter == index);
                let position = |queue: &usize| queue_indexes.iter().position(|other| other == queue);
                let wanted: Vec<usize> = request.queues.iter().filter_map(position).collect();
                if !is_served && !wanted.is_empty() {
                    requests.push(WaiterRequest { queues: wanted, ..request.clone() });
                    waiter_indexes.push(index);
                }
            }
            if !requests.is_empty() {
                let indexes = Some((queue_indexes, waiter_indexes));
                return Some(Part { queues: queues.into(), requests: requests.into(), indexes });
            }
        }
        None
    }

    /// Adds the reply to a part.
    pub(super) fn add_reply(&mut self, part: &Part<'_>, reply: ClaimReply) {
        let ClaimReply { tasks, has_more, has_passed_expired, fronts, unreadable } = reply;
        self.shard.unreadable().add_passed_over(self.shard.index, &part.queues, unreadable);
        self.reply.has_more |= has_more;
        self.reply.has_passed_expired |= has_passed_expired;
        let (queues, waiters) = part.indexes.as_ref().map_or((None, None), |(one, other)| (Some(one), Some(other)));
        let in_batch = |indexes: Option<&Vec<usize>>, index: usize| match indexes {
            Some(indexes) => indexes.get(index).copied(),
            None => Some(index),
        };
        let tasks = tasks.into_iter().filter_map(|(waiter, task)| Some((in_batch(waiters, waiter)?, task)));
        self.reply.tasks.extend(tasks);
        let fronts = fronts.into_iter().filter_map(|(queue, front)| Some((in_batch(queues, queue)?, front)));
        self.reply.fronts.extend(fronts);
    }

    /// Divides a part that met unreadable data. A queue alone fails, and is noted.
    pub(super) async fn divide(&mut self, part: Part<'a>, error: Error) {
        let indexes = part.indexes.map_or_else(|| (0..self.batch.queues.len()).collect(), |(queues, _)| queues);
        if let (Some(left), true) = (&mut self.left, indexes.len() > 1) {
            let (first, second) = indexes.split_at(indexes.len() / 2);
            left.extend([second.to_vec(), first.to_vec()]);
            return;
        }
        for queue in part.queues.iter() {
            match unreadable_keys(self.shard, queue).await {
                Ok(keys) if !keys.is_empty() => {
                    self.shard.unreadable().add_unreadable_keys(self.shard.index, queue, &keys);
                }
                _ => self.shard.unreadable().add_queue(self.shard.index, Some(queue), &error.to_string(), false),
            }
            self.shard.unreadable().mark_claims_failed(self.shard.index, queue);
            self.failed.insert(queue.clone(), error.clone());
        }
    }
}
