//! Notes of unreadable data that this server met. A queue with a note is a degradation until the data is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::degradations::{Degradations, Reason};
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;

/// Tasks noted per queue and shard. Further ones are postponed all the same.
const MAX_TASKS: usize = 100;
/// Queues noted per shard.
const MAX_QUEUES: usize = 1000;
/// After this time without a failure, a queue counts as processed again if the cause of its failure is not known. Longer than
/// entries are postponed.
const FORGET_AFTER: Duration = Duration::from_secs(90);

/// The unreadable data that this server met in all shards.
#[derive(Debug)]
pub struct Notes {
    degradations: Arc<Degradations>,
    /// By subject: a queue, or a shard if the queue is not known; then by shard.
    subjects: Mutex<BTreeMap<String, BTreeMap<usize, Note>>>,
}

/// Noted data of one queue in one shard.
#[derive(Debug)]
pub(super) struct Noted {
    /// The queue; `None` if it is not known.
    pub(super) queue: Option<QueueName>,
    /// Unreadable tasks.
    pub(super) tasks: Vec<TaskId>,
}

/// The unreadable data of one queue in one shard.
#[derive(Default, Debug)]
struct Note {
    /// The queue; `None` if it is not known.
    queue: Option<QueueName>,
    /// Unreadable tasks, with the reason.
    tasks: BTreeMap<TaskId, String>,
    /// The reason why no task of the queue can be processed.
    queue_failure: Option<QueueFailure>,
}

#[derive(Debug)]
struct QueueFailure {
    reason: String,
    failed_at: Instant,
    /// Whether keys of the queue were found to have another type.
    is_cause_known: bool,
    /// Whether a claim of the queue has failed.
    stops_claims: bool,
}

impl Notes {
    pub(super) fn new(degradations: Arc<Degradations>) -> Self {
        Notes { degradations, subjects: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<usize, Note>>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a task that cannot be processed.
    pub fn add_task(&self, shard: usize, queue: Option<&QueueName>, task: TaskId, reason: &str) {
        self.change(shard, queue, |note| {
            if note.tasks.len() < MAX_TASKS {
                note.tasks.insert(task, reason.to_owned());
            }
        });
    }

    /// Notes the tasks that a claim passed over because they are unreadable, each with the index of its queue in `queues`.
    pub fn add_passed_over(&self, shard: usize, queues: &[QueueName], tasks: Vec<(usize, TaskId)>) {
        for (index, id) in tasks {
            let reason = format!("task {id}: its key or a field is unreadable");
            self.add_task(shard, queues.get(index), id, &reason);
        }
    }

    /// Notes that no task of the queue can be processed in the shard.
    pub fn add_queue(&self, shard: usize, queue: Option<&QueueName>, reason: &str, is_cause_known: bool) {
        self.change(shard, queue, |note| {
            let stops_claims = note.queue_failure.as_ref().is_some_and(|failure| failure.stops_claims);
            let (reason, failed_at) = (reason.to_owned(), Instant::now());
            note.queue_failure = Some(QueueFailure { reason, failed_at, is_cause_known, stops_claims });
        });
    }

    /// Notes that claims of a queue fail, after its failure was noted.
    pub fn mark_claims_failed(&self, shard: usize, queue: &QueueName) {
        self.change(shard, Some(queue), |note| {
            note.queue_failure.iter_mut().for_each(|failure| failure.stops_claims = true);
        });
    }

    /// Notes a queue with keys or a record that cannot be read.
    pub fn add_unreadable_keys(&self, shard: usize, queue: &QueueName, keys: &[String]) {
        self.add_queue(shard, Some(queue), &format!("the type or layout of {} is wrong", keys.join("; ")), true);
    }

    /// Returns those of `queues` whose claims are known to fail in the shard, with the reason.
    pub fn failed_claims(&self, shard: usize, queues: &[QueueName]) -> BTreeMap<QueueName, String> {
        let subjects = self.lock();
        if subjects.is_empty() {
            return BTreeMap::new();
        }
        let failure = |queue: &QueueName| {
            let failure = subjects.get(queue.as_str())?.get(&shard)?.queue_failure.as_ref()?;
            (failure.is_cause_known && failure.stops_claims).then(|| (queue.clone(), failure.reason.clone()))
        };
        queues.iter().filter_map(failure).collect()
    }

    /// Whether no task of the queue can be processed in the shard.
    pub fn has_failed(&self, shard: usize, queue: &QueueName) -> bool {
        let subjects = self.lock();
        let note = subjects.get(queue.as_str()).and_then(|shards| shards.get(&shard));
        note.is_some_and(|note| note.queue_failure.is_some())
    }

    /// Returns the noted data of the shard.
    pub(super) fn of_shard(&self, shard: usize) -> Vec<Noted> {
        let subjects = self.lock();
        let notes = subjects.values().filter_map(|shards| shards.get(&shard));
        notes.map(|note| Noted { queue: note.queue.clone(), tasks: note.tasks.keys().copied().collect() }).collect()
    }

    /// Forgets tasks that can be read again; and, if its keys can be read, the failure of the queue.
    pub(super) fn forget(&self, shard: usize, queue: Option<&QueueName>, readable: &[TaskId], has_readable_keys: bool) {
        self.change(shard, queue, |note| {
            readable.iter().for_each(|task| drop(note.tasks.remove(task)));
            note.queue_failure.take_if(|failure| match failure.is_cause_known {
                true => has_readable_keys,
                false => failure.failed_at.elapsed() >= FORGET_AFTER,
            });
        });
    }

    /// Changes a note, and raises or clears the degradation of its subject.
    fn change(&self, shard: usize, queue: Option<&QueueName>, change: impl FnOnce(&mut Note)) {
        let subject = queue.map_or_else(|| format!("shard {shard}"), |queue| queue.as_str().to_owned());
        let mut subjects = self.lock();
        let of_shard = subjects.values().filter(|shards| shards.contains_key(&shard)).count();
        let shards = subjects.entry(subject.clone()).or_default();
        if shards.contains_key(&shard) || of_shard < MAX_QUEUES {
            let note = shards.entry(shard).or_default();
            note.queue = queue.cloned();
            change(note);
        }
        shards.retain(|_, note| !note.tasks.is_empty() || note.queue_failure.is_some());
        match shards.values().next() {
            Some(note) => self.degradations.raise(Reason::UpkeepFailing, &subject, note.detail()),
            None => {
                subjects.remove(&subject);
                self.degradations.clear(Reason::UpkeepFailing, &subject);
            }
        }
    }
}

impl Note {
    /// Returns the consequence and the remedy, for an operator.
    fn detail(&self) -> String {
        let reason = self.queue_failure.as_ref().map(|failure| &failure.reason).or_else(|| self.tasks.values().next());
        let what = match (&self.queue_failure, self.tasks.len()) {
            (Some(_), _) if self.queue.is_none() => "the shard is not processed".to_owned(),
            (Some(_), _) => "the queue is not processed".to_owned(),
            (None, 1) => "1 task is not processed".to_owned(),
            (None, count) => format!("{count} tasks are not processed"),
        };
        let reason = reason.map_or("", String::as_str);
        format!("{what}: {reason}; `slotwheel doctor --repair` sets unreadable data aside")
    }
}
