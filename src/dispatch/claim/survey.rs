//! The survey of a new waiter: reads in all shards at once where its queues may have ready tasks, before it claims in any.
//!
//! So its first task comes from the first of its queues that has ready tasks in any shard, and there from the shard with
//! the highest priority. A shard that does not answer in time is checked by a claim call instead. If only one shard may
//! have tasks for it, the claim call itself finds the best, and there is no survey.
//!
//! The surveys of waiters that arrive together share one read of each shard.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::shard_set::ShardSet;
use super::wait_handle::WaitHandle;
use super::waiter::ClaimRequest;
use super::waiters::Waiters;
use crate::background;
use crate::domain::queue::QueueName;
use crate::store::views::queue_records::ready_queues;
use crate::store::{Result, Shard, Store};

/// The time limit of a survey. A claim does not wait for a shard that hangs.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(100);
/// Surveys that share a read.
const MAX_SURVEYS: usize = 1000;

/// The reads of one survey. The survey loops hold it weakly: they read no shard for a client that has disconnected.
#[derive(Debug)]
struct SurveyReads {
    request: Arc<ClaimRequest>,
    outcomes: Mutex<ReadOutcomes>,
    /// Notified when no read is left.
    done: Notify,
}

#[derive(Debug)]
struct ReadOutcomes {
    /// The number of reads without an outcome.
    left: usize,
    /// The shards that were read.
    read: ShardSet,
}

impl SurveyReads {
    fn lock(&self) -> MutexGuard<'_, ReadOutcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the outcome of the read of a shard.
    fn record(&self, shard: usize, is_read: bool) {
        let mut outcomes = self.lock();
        outcomes.left -= 1;
        if is_read {
            outcomes.read.insert(shard);
        }
        if outcomes.left == 0 {
            self.done.notify_one();
        }
    }
}

/// Registers waiters, and surveys the shards for them.
#[derive(Debug)]
pub(super) struct Surveyor {
    store: Store,
    waiters: Arc<Waiters>,
    /// By shard: the survey loop.
    loops: Vec<mpsc::UnboundedSender<Weak<SurveyReads>>>,
}

impl Surveyor {
    /// Starts a survey loop per shard on `tasks`. The loops end when the surveyor is dropped.
    pub(super) fn start(store: &Store, waiters: &Arc<Waiters>, tasks: &TaskTracker) -> Self {
        let start_loop = |shard: &Shard| {
            let (sender, receiver) = mpsc::unbounded_channel();
            background::spawn(tasks, "survey_loop", survey_loop(shard.clone(), waiters.clone(), receiver));
            sender
        };
        let loops = store.shards().iter().map(start_loop).collect();
        Surveyor { store: store.clone(), waiters: waiters.clone(), loops }
    }

    /// Adds a waiter, and surveys the shards that may have tasks for it; see [`Waiters::register`].
    pub(super) async fn register(
        &self,
        request: ClaimRequest,
        is_long_poll: bool,
        checked: Option<usize>,
    ) -> WaitHandle {
        // A waiter must check a blocked shard: otherwise it would wait instead of getting the error.
        self.store.blocked_shards().for_each(|shard| self.waiters.invalidate(shard.index));
        let request = Arc::new(request);
        let (wait_handle, survey) = self.waiters.register(request.clone(), is_long_poll, checked);
        let Some(mut survey) = survey else { return wait_handle };
        let outcomes = ReadOutcomes { left: survey.shards.len(), read: ShardSet::default() };
        let reads = Arc::new(SurveyReads { request, outcomes: Mutex::new(outcomes), done: Notify::new() });
        for shard in survey.shards.iter() {
            let sent = self.loops.get(shard).map(|survey_loop| survey_loop.send(Arc::downgrade(&reads)));
            if !matches!(sent, Some(Ok(()))) {
                reads.record(shard, false);
            }
        }
        // The shards that were read by then count.
        let _ = timeout(SURVEY_TIMEOUT, reads.done.notified()).await;
        survey.read = std::mem::take(&mut reads.lock().read);
        wait_handle
    }
}

/// Reads a shard for the surveys that arrived during the read before.
async fn survey_loop(shard: Shard, waiters: Arc<Waiters>, mut receiver: mpsc::UnboundedReceiver<Weak<SurveyReads>>) {
    let mut received = Vec::new();
    while receiver.recv_many(&mut received, MAX_SURVEYS).await > 0 {
        // Claims that this process can read without waiting join the same survey.
        yield_now().await;
        while received.len() < MAX_SURVEYS
            && let Ok(reads) = receiver.try_recv()
        {
            received.push(reads);
        }
        let surveys: Vec<Arc<SurveyReads>> = received.drain(..).filter_map(|reads| reads.upgrade()).collect();
        let queues: BTreeSet<&QueueName> = surveys.iter().flat_map(|reads| &reads.request.queues).collect();
        let queues = queues.into_iter().cloned().collect();
        let reading = timeout(SURVEY_TIMEOUT, read_shard(&shard, &waiters, queues)).await;
        if let Ok(Err(error)) = &reading {
            tracing::debug!(%error, shard = shard.index, "surveying ready tasks failed");
        }
        let is_read = matches!(reading, Ok(Ok(())));
        surveys.iter().for_each(|reads| reads.record(shard.index, is_read));
    }
}

/// Records which of the queues have ready tasks in the shard.
pub(super) async fn read_shard(shard: &Shard, waiters: &Waiters, mut queues: Vec<QueueName>) -> Result<()> {
    let sent_at = waiters.epoch();
    let ready = ready_queues(shard, &queues).await?;
    // A claim of an unreadable queue fails. Its waiter gets the error, and does not wait.
    queues.retain(|queue| !shard.unreadable().has_failed(shard.index, queue));
    waiters.apply_found(shard.index, &queues, sent_at, ready);
    Ok(())
}
