//! The registry of workers that claim, wait or send heartbeats at this server. Requests update it in memory. Changes
//! are written to Redis in bulk, so that every server can list all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::claim::waiters::Waiters;
use crate::domain::limits::{MAX_CALL_ITEMS, WORKER_TIMEOUT_MS};
use crate::domain::queue::QueueName;
use crate::domain::worker::Worker;
use crate::store::ops::record_workers::{WorkerSeen, record_workers};
use crate::store::{Caller, Result, Shard};

/// Interval at which new workers and changes are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which an unchanged worker is written again: three times before its record times out.
const REFRESH_INTERVAL: Duration = Duration::from_millis(WORKER_TIMEOUT_MS as u64 / 3);
/// Workers kept. Clients choose the names; further ones are ignored.
const MAX_WORKERS: usize = 50_000;

#[derive(Debug)]
struct WorkerEntry {
    worker: Worker,
    last_seen: Instant,
    /// Its last claim, or the last time it was found waiting.
    last_claimed: Option<Instant>,
    /// When its current data was written; `None`: not yet.
    last_written: Option<Instant>,
}

/// The workers of this server, by name.
#[derive(Default, Debug)]
pub(super) struct WorkerRegistry {
    entries: Mutex<HashMap<String, WorkerEntry>>,
}

impl WorkerRegistry {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, WorkerEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a claim.
    pub(super) fn record_claim(
        &self,
        name: &str,
        address: IpAddr,
        concurrency: u32,
        queues: &[QueueName],
        now: Instant,
    ) {
        self.update_entry(name, address, now, |entry| {
            entry.last_claimed = Some(now);
            if entry.worker.concurrency != concurrency || entry.worker.queues != queues {
                entry.worker.concurrency = concurrency;
                entry.worker.queues = queues.to_vec();
                entry.last_written = None;
            }
        });
    }

    /// Records a heartbeat.
    pub(super) fn record_heartbeat(&self, name: &str, address: IpAddr, now: Instant) {
        self.update_entry(name, address, now, |_| {});
    }

    fn update_entry(&self, name: &str, address: IpAddr, now: Instant, apply: impl FnOnce(&mut WorkerEntry)) {
        let mut entries = self.lock();
        let has_room = entries.len() < MAX_WORKERS;
        let entry = match entries.get_mut(name) {
            Some(entry) => entry,
            None if !has_room => return,
            None => {
                let new_entry = WorkerEntry {
                    worker: Worker::unknown(name),
                    last_seen: now,
                    last_claimed: None,
                    last_written: None,
                };
                entries.entry(name.to_owned()).or_insert(new_entry)
            }
        };
        entry.last_seen = now;
        entry.worker.address = Some(address);
        apply(entry);
    }

    /// Returns the workers to write: changed ones, and live ones whose last write is [`REFRESH_INTERVAL`] ago. Removes
    /// workers that have timed out.
    fn pending_writes(&self, waiting_workers: impl Iterator<Item = String>, now: Instant) -> Vec<WorkerSeen> {
        let mut entries = self.lock();
        for name in waiting_workers {
            if let Some(entry) = entries.get_mut(&name) {
                entry.last_seen = now;
                entry.last_claimed = Some(now);
            }
        }
        entries.retain(|_, entry| {
            entry.last_written.is_none() || now - entry.last_seen < Duration::from_millis(WORKER_TIMEOUT_MS as u64)
        });
        let pending = entries.values().filter(|entry| {
            entry
                .last_written
                .is_none_or(|last_written| now - last_written >= REFRESH_INTERVAL && entry.last_seen > last_written)
        });
        let worker_seen = |entry: &WorkerEntry| WorkerSeen {
            worker: entry.worker.clone(),
            seen_ago: now - entry.last_seen,
            claimed_ago: entry.last_claimed.map(|last_claimed| now - last_claimed),
        };
        pending.map(worker_seen).collect()
    }

    /// Records that these data were written at `now`. A worker changed since stays to be written.
    fn mark_written(&self, workers_seen: &[WorkerSeen], now: Instant) {
        let mut entries = self.lock();
        for WorkerSeen { worker, .. } in workers_seen {
            if let Some(entry) = entries.get_mut(&worker.name)
                && (entry.worker.concurrency, &entry.worker.queues) == (worker.concurrency, &worker.queues)
            {
                entry.last_written = Some(now);
            }
        }
    }

    /// Writes to `first_shard` until `stop`.
    pub(super) async fn run(self: Arc<Self>, first_shard: Shard, waiters: Arc<Waiters>, stop: CancellationToken) {
        let mut caller = Caller::new();
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.write_pending(&first_shard, &mut caller, &waiters).await {
                tracing::debug!(%error, "writing seen workers failed; retrying");
            }
        }
    }

    async fn write_pending(&self, first_shard: &Shard, caller: &mut Caller, waiters: &Waiters) -> Result<()> {
        let now = Instant::now();
        for workers_seen in self.pending_writes(waiters.workers().into_iter(), now).chunks(MAX_CALL_ITEMS) {
            record_workers(first_shard, caller, workers_seen).await?;
            self.mark_written(workers_seen, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn names(pending: &[WorkerSeen]) -> Vec<&str> {
        pending.iter().map(|seen| seen.worker.name.as_str()).collect()
    }

    #[test]
    fn live_worker_is_written_regularly_and_a_timed_out_one_is_removed() {
        let registry = WorkerRegistry::default();
        let queues = [QueueName::default_queue()];
        let no_waiters = || std::iter::empty();
        let start = Instant::now();
        registry.record_claim("w", LOCALHOST, 2, &queues, start);
        let pending = registry.pending_writes(no_waiters(), start);
        assert_eq!(names(&pending), ["w"]);
        assert_eq!(names(&registry.pending_writes(no_waiters(), start)), ["w"], "pending until written");
        registry.mark_written(&pending, start);
        assert!(registry.pending_writes(no_waiters(), start).is_empty());
        let later = start + REFRESH_INTERVAL;
        assert!(registry.pending_writes(no_waiters(), later).is_empty(), "not seen since the write");
        assert_eq!(
            names(&registry.pending_writes(["w".to_owned()].into_iter(), later)),
            ["w"],
            "a waiting worker is live"
        );
        registry.record_claim("w", LOCALHOST, 3, &queues, later);
        registry.mark_written(&pending, later);
        let pending = registry.pending_writes(no_waiters(), later);
        assert_eq!(names(&pending), ["w"], "a change after the write is pending");
        registry.mark_written(&pending, later);
        let expired_at = later + Duration::from_millis(WORKER_TIMEOUT_MS as u64);
        assert!(registry.pending_writes(no_waiters(), expired_at).is_empty());
        assert!(registry.lock().is_empty());
    }

    #[test]
    fn registry_size_is_bounded_for_unlimited_names() {
        let registry = WorkerRegistry::default();
        (0..MAX_WORKERS + 10)
            .for_each(|number| registry.record_heartbeat(&number.to_string(), LOCALHOST, Instant::now()));
        assert_eq!(registry.lock().len(), MAX_WORKERS);
    }
}
