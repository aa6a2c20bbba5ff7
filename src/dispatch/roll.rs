//! Who has been here: workers that claim, wait or send heartbeats. Noted in memory with each request, and written to
//! Redis in bulk, so that every server knows of all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::waiters::Waiters;
use crate::domain::limits::{ALIVE_MS, CALL_ITEMS};
use crate::domain::queue::QueueName;
use crate::domain::worker::Worker;
use crate::store::ops::sight::{Sighting, sight};
use crate::store::{Caller, Result, Shard};

/// How soon a new worker, or what is new of one, is known to all.
const EVERY: Duration = Duration::from_secs(1);
/// How often one that stays is written again: three times before it would count as gone.
const AGAIN: Duration = Duration::from_millis(ALIVE_MS as u64 / 3);
/// Workers of one server; names are the clients' choice, and those beyond are not noted.
const MOST: usize = 50_000;

#[derive(Debug)]
struct Entry {
    worker: Worker,
    seen: Instant,
    /// When it claimed last, or was seen to wait.
    claimed: Option<Instant>,
    /// When it was written as it is; `None`: not yet.
    written: Option<Instant>,
}

/// The workers that this server knows.
#[derive(Default, Debug)]
pub(super) struct Roll {
    entries: Mutex<HashMap<String, Entry>>,
}

impl Roll {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker claims from `queues`.
    pub(super) fn claims(&self, name: &str, address: IpAddr, concurrency: u32, queues: &[QueueName], now: Instant) {
        self.note(name, address, now, |entry| {
            entry.claimed = Some(now);
            if entry.worker.concurrency != concurrency || entry.worker.queues != queues {
                entry.worker.concurrency = concurrency;
                entry.worker.queues = queues.to_vec();
                entry.written = None;
            }
        });
    }

    /// A worker sends a heartbeat.
    pub(super) fn beats(&self, name: &str, address: IpAddr, now: Instant) {
        self.note(name, address, now, |_| {});
    }

    fn note(&self, name: &str, address: IpAddr, now: Instant, learn: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        let has_room = entries.len() < MOST;
        let entry = match entries.get_mut(name) {
            Some(entry) => entry,
            None if !has_room => return,
            None => {
                let unknown = Entry { worker: Worker::unknown(name), seen: now, claimed: None, written: None };
                entries.entry(name.to_owned()).or_insert(unknown)
            }
        };
        entry.seen = now;
        entry.worker.address = Some(address);
        learn(entry);
    }

    /// What is to be written now: what is new, and who is still here and was last written a while ago. Those who have
    /// gone are struck off.
    fn due(&self, waiting: impl Iterator<Item = String>, now: Instant) -> Vec<Sighting> {
        let mut entries = self.lock();
        for name in waiting {
            if let Some(entry) = entries.get_mut(&name) {
                entry.seen = now;
                entry.claimed = Some(now);
            }
        }
        entries.retain(|_, entry| entry.written.is_none() || now - entry.seen < Duration::from_millis(ALIVE_MS as u64));
        let due = entries
            .values()
            .filter(|entry| entry.written.is_none_or(|written| now - written >= AGAIN && entry.seen > written));
        let sighting = |Entry { worker, seen, claimed, .. }: &Entry| Sighting {
            worker: worker.clone(),
            seen: now - *seen,
            claimed: claimed.map(|claimed| now - claimed),
        };
        due.map(sighting).collect()
    }

    /// These were written at `now`, as they were then.
    fn wrote(&self, sightings: &[Sighting], now: Instant) {
        let mut entries = self.lock();
        for Sighting { worker, .. } in sightings {
            if let Some(entry) = entries.get_mut(&worker.name)
                && (entry.worker.concurrency, &entry.worker.queues) == (worker.concurrency, &worker.queues)
            {
                entry.written = Some(now);
            }
        }
    }

    /// Writes until `stop`.
    pub(super) async fn keep(self: Arc<Self>, home: Shard, waiters: Arc<Waiters>, stop: CancellationToken) {
        let mut caller = Caller::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.write(&home, &mut caller, &waiters).await {
                tracing::debug!(%error, "workers that were seen are written later");
            }
        }
    }

    async fn write(&self, home: &Shard, caller: &mut Caller, waiters: &Waiters) -> Result<()> {
        let now = Instant::now();
        for sightings in self.due(waiters.workers().into_iter(), now).chunks(CALL_ITEMS) {
            sight(home, caller, sightings).await?;
            self.wrote(sightings, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn names(due: &[Sighting]) -> Vec<&str> {
        due.iter().map(|sighting| sighting.worker.name.as_str()).collect()
    }

    #[test]
    fn one_that_stays_is_written_now_and_then_and_one_that_has_gone_is_struck_off() {
        let roll = Roll::default();
        let queues = [QueueName::default_queue()];
        let none = || std::iter::empty();
        let start = Instant::now();
        roll.claims("w", HERE, 2, &queues, start);
        let due = roll.due(none(), start);
        assert_eq!(names(&due), ["w"]);
        assert_eq!(names(&roll.due(none(), start)), ["w"], "until it is written");
        roll.wrote(&due, start);
        assert!(roll.due(none(), start).is_empty());
        let later = start + AGAIN;
        assert!(roll.due(none(), later).is_empty(), "it was not seen since");
        assert_eq!(names(&roll.due(["w".to_owned()].into_iter(), later)), ["w"], "it waits");
        roll.claims("w", HERE, 3, &queues, later);
        roll.wrote(&due, later);
        let due = roll.due(none(), later);
        assert_eq!(names(&due), ["w"], "what is new of it is not what was written");
        roll.wrote(&due, later);
        let gone = later + Duration::from_millis(ALIVE_MS as u64);
        assert!(roll.due(none(), gone).is_empty());
        assert!(roll.lock().is_empty());
    }

    #[test]
    fn names_without_end_do_not_fill_the_memory() {
        let roll = Roll::default();
        (0..MOST + 10).for_each(|n| roll.beats(&n.to_string(), HERE, Instant::now()));
        assert_eq!(roll.lock().len(), MOST);
    }
}
