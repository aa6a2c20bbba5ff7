//! The loop of due jobs of one shard. In a round, each due job and each due queue takes one bounded step; a step that fails
//! costs its own queue or entry alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::job::{Context, DueJob, Index, Turn};
use super::metrics::JobMetrics;
use super::step_size::StepSize;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::isolation::{Condition, DueEntry, due_entries, postpone, unreadable_keys};
use crate::store::views::next_due::{DueQueue, MAX_DUE_QUEUES, NextDue, next_due_after};
use crate::store::{Error, Result};

/// Pause before the next round if the last one found due work and could do none of it.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Pause of a queue that cannot be processed.
const QUEUE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Time by which an entry that cannot be processed is postponed, in ms.
const POSTPONED_BY_MS: i64 = 60_000;

/// Limits of steps up to this number are kept after a failure.
const MAX_REDUCED: usize = 64;

/// The loop of due jobs of one shard.
pub(super) struct DueLoop {
    jobs: &'static [DueJob],
    metrics: Vec<Arc<JobMetrics>>,
    context: Context,
    poll_interval: Duration,
    /// By position of the job.
    sizes: Vec<StepSize>,
    /// The due queues that the next round passes over, because the rounds before it had them.
    skip: usize,
    /// The limits of steps that failed: by position of the job, and queue.
    reduced_limits: HashMap<(usize, Option<QueueName>), usize>,
    /// Queues that cannot be processed, with the time of the next attempt.
    paused_queues: HashMap<QueueName, Instant>,
}

impl DueLoop {
    pub(super) fn new(
        jobs: &'static [DueJob],
        metrics: &[Arc<JobMetrics>],
        context: Context,
        poll_interval: Duration,
    ) -> Self {
        DueLoop {
            jobs,
            metrics: metrics.to_vec(),
            context,
            poll_interval,
            sizes: vec![StepSize::default(); jobs.len()],
            skip: 0,
            reduced_limits: HashMap::new(),
            paused_queues: HashMap::new(),
        }
    }

    /// Runs until `stop`. `wakeup` ends a pause.
    pub(super) async fn run(mut self, wakeup: Arc<Notify>, stop: CancellationToken) {
        loop {
            let pause = self.round(&stop).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wakeup.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Gives each due job and queue a turn. Returns the pause until the next round.
    async fn round(&mut self, stop: &CancellationToken) -> Duration {
        let max_pause = self.poll_interval.mul_f64(rand::rng().random_range(0.67..1.33));
        let reading = match next_due_after(&self.context.shard, self.skip).await {
            Ok(reading) => reading,
            // Every job depends on the reading.
            Err(error) => {
                self.metrics.iter().for_each(|metrics| metrics.record_failure(&error, Some(self.context.shard.index)));
                return max_pause;
            }
        };
        for index in &reading.unreadable_indexes {
            let reason = format!("key {index} has another type");
            self.context.shard.unreadable().add_queue(self.context.shard.index, None, &reason, false);
        }
        let now = Instant::now();
        self.paused_queues.retain(|_, until| *until > now);
        let (mut has_due, mut has_worked) = (false, false);
        for (position, turn, due_at) in self.turns(&reading) {
            if stop.is_cancelled() {
                return Duration::ZERO;
            }
            has_due = true;
            // An earlier turn of this round has failed.
            if turn.queue.as_ref().is_some_and(|queue| self.paused_queues.contains_key(queue)) {
                continue;
            }
            match self.take_turn(position, &turn, due_at).await {
                Ok(worked) => has_worked |= worked,
                Err(_) => return max_pause,
            }
        }
        self.skip = next_skip(self.skip, &reading);
        let until_next = |next: TimestampMs| Duration::from_millis(u64::try_from(next.0 - reading.now.0).unwrap_or(0));
        let pause = match (has_worked, has_due) {
            (true, _) => return Duration::ZERO,
            (false, true) => RETRY_DELAY,
            (false, false) => max_pause,
        };
        reading.next_at.map_or(pause, |next| until_next(next).min(pause)).min(max_pause)
    }

    /// Returns the turns of a round, with the times since which their work is due.
    fn turns(&self, reading: &NextDue) -> Vec<(usize, Turn, TimestampMs)> {
        let mut turns = Vec::new();
        let queues: Vec<&DueQueue> =
            reading.due_queues.iter().filter(|queue| !self.paused_queues.contains_key(&queue.name)).collect();
        let turn = |position: usize, queue: Option<&QueueName>, sharing: usize| {
            let size = self.sizes.get(position).copied().unwrap_or_default();
            let limit = size.limit(sharing);
            let reduced = self.reduced_limits.get(&(position, queue.cloned())).copied();
            Turn { now: reading.now, queue: queue.cloned(), limit: reduced.map_or(limit, |reduced| reduced.min(limit)) }
        };
        for (position, job) in self.jobs.iter().enumerate() {
            if let (Index::OfShard(_), Some(due_at)) = (job.index, (job.due_at)(reading))
                && due_at <= reading.now
            {
                turns.push((position, turn(position, None, 1), due_at));
            }
        }
        for DueQueue { name, due_at } in queues.iter().copied() {
            for (position, job) in self.jobs.iter().enumerate() {
                if let Index::OfQueue(_) = job.index {
                    turns.push((position, turn(position, Some(name), queues.len()), *due_at));
                }
            }
        }
        turns
    }

    /// Takes a turn of the job at `position`. Returns whether it did work, or put aside what it cannot do.
    ///
    /// # Errors
    /// An error that concerns the whole shard.
    async fn take_turn(&mut self, position: usize, turn: &Turn, due_at: TimestampMs) -> Result<bool> {
        let (Some(job), Some(metrics)) = (self.jobs.get(position), self.metrics.get(position).cloned()) else {
            return Ok(false);
        };
        let started = Instant::now();
        let outcome = (job.step)(&mut self.context, turn).await;
        let duration = started.elapsed();
        metrics.record_run(duration);
        match outcome {
            Ok(0) => Ok(false),
            Ok(taken) => {
                metrics.record_lag(Duration::from_millis(u64::try_from(turn.now.0 - due_at.0).unwrap_or(0)));
                self.sizes.iter_mut().skip(position).take(1).for_each(|size| size.adapt(duration, taken >= turn.limit));
                let key = (position, turn.queue.clone());
                // Grows again step by step, so that an entry that fails is found again with few failures.
                if let Some(limit) = self.reduced_limits.get_mut(&key) {
                    *limit *= 2;
                    if *limit > MAX_REDUCED {
                        self.reduced_limits.remove(&key);
                    }
                }
                Ok(true)
            }
            Err(error) => {
                metrics.record_failure(&error, Some(self.context.shard.index));
                match &error {
                    Error::Unexpected(reason) => self.isolate(position, turn, reason).await,
                    _ => Err(error),
                }
            }
        }
    }

    /// Puts aside what makes a step fail: unreadable entries, the entries of a queue with an unreadable key, the whole queue,
    /// or, if the cause is not known, half of the step. Returns whether the next round may do more.
    async fn isolate(&mut self, position: usize, turn: &Turn, reason: &str) -> Result<bool> {
        let Some(job) = self.jobs.get(position) else { return Ok(false) };
        let shard = self.context.shard.clone();
        let index = job.index.key(turn.queue.as_ref());
        let entries = match due_entries(&shard, &index, turn.now, turn.limit).await {
            Ok(entries) => entries,
            // The index itself is unreadable.
            Err(Error::Unexpected(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut queues: Vec<QueueName> = turn.queue.iter().cloned().collect();
        queues.extend(entries.iter().filter_map(|entry| readable_queue(entry).cloned()));
        queues.sort();
        queues.dedup();
        for queue in queues {
            let keys = unreadable_keys(&shard, &queue).await?;
            if !keys.is_empty() {
                shard.unreadable().add_unreadable_keys(shard.index, &queue, &keys);
            }
        }
        if let Some(queue) = turn.queue.as_ref().filter(|queue| shard.unreadable().has_failed(shard.index, queue)) {
            self.paused_queues.insert(queue.clone(), Instant::now() + QUEUE_RETRY_DELAY);
            return Ok(true);
        }
        let mut aside = Vec::new();
        for entry in &entries {
            match &entry.condition {
                Condition::Unreadable(reason) => {
                    if let Some(id) = TaskId::from_bytes(&entry.member) {
                        shard.unreadable().add_task(shard.index, turn.queue.as_ref(), id, reason);
                    }
                    aside.push(entry.member.clone());
                }
                Condition::Readable(queue) if shard.unreadable().has_failed(shard.index, queue) => {
                    aside.push(entry.member.clone());
                }
                Condition::Readable(_) | Condition::Missing => {}
            }
        }
        if aside.is_empty() && turn.limit > 1 {
            self.reduced_limits.insert((position, turn.queue.clone()), turn.limit / 2);
            return Ok(true);
        }
        if aside.is_empty() {
            let queue = turn.queue.clone().or_else(|| entries.first().and_then(readable_queue).cloned());
            shard.unreadable().add_queue(shard.index, queue.as_ref(), reason, false);
            self.paused_queues.extend(queue.map(|queue| (queue, Instant::now() + QUEUE_RETRY_DELAY)));
            aside.extend(entries.into_iter().take(1).map(|entry| entry.member));
        }
        self.metrics.get(position).into_iter().for_each(|metrics| metrics.record_postponed(aside.len()));
        postpone(&shard, &index, &aside, TimestampMs(turn.now.0 + POSTPONED_BY_MS)).await?;
        Ok(!aside.is_empty())
    }
}

/// Returns the queue of an entry whose task can be read.
fn readable_queue(entry: &DueEntry) -> Option<&QueueName> {
    match &entry.condition {
        Condition::Readable(queue) => Some(queue),
        Condition::Unreadable(_) | Condition::Missing => None,
    }
}

/// Returns the number of due queues that the next round passes over.
fn next_skip(skip: usize, reading: &NextDue) -> usize {
    match skip + MAX_DUE_QUEUES {
        next if next < reading.due_count => next,
        _ => 0,
    }
}
