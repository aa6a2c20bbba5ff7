//! The survey of a new waiter: reads in all shards at once where its queues may have ready tasks, before it claims in any.
//!
//! So its first task comes from the first of its queues that has ready tasks in any shard, and there from the shard with
//! the highest priority. A shard that does not answer in time is checked by a claim call instead. If only one shard may
//! have tasks for it, the claim call itself finds the best, and there is no survey.
//!
//! The surveys of waiters that arrive together share one read of each shard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

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

/// The queues of a waiter to read in one shard.
#[derive(Debug)]
struct SurveyRequest {
    queues: Vec<QueueName>,
    /// Gets whether the shard was read.
    reply: oneshot::Sender<bool>,
}

/// Registers waiters, and surveys the shards for them.
#[derive(Debug)]
pub(super) struct Surveyor {
    store: Store,
    waiters: Arc<Waiters>,
    /// By shard: the survey loop.
    loops: Vec<mpsc::UnboundedSender<SurveyRequest>>,
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

    /// Adds a waiter, and surveys the shards that may have tasks for it.
    pub(super) async fn register(&self, request: ClaimRequest, is_long_poll: bool) -> WaitHandle {
        // A waiter must check a blocked shard: otherwise it would wait instead of getting the error.
        self.store.blocked_shards().for_each(|shard| self.waiters.invalidate(shard.index));
        let queues = request.queues.clone();
        let (wait_handle, survey) = self.waiters.register(request, is_long_poll);
        let Some(mut survey) = survey else { return wait_handle };
        let deadline = Instant::now() + SURVEY_TIMEOUT;
        let mut readings: FuturesUnordered<_> =
            survey.shards.iter().map(|shard| self.read(*shard, queues.clone())).collect();
        while let Ok(Some(reading)) = timeout_at(deadline, readings.next()).await {
            survey.read.extend(reading);
        }
        wait_handle
    }

    /// Returns the shard once it is read, and `None` if it cannot be read.
    async fn read(&self, shard: usize, queues: Vec<QueueName>) -> Option<usize> {
        let (reply, reply_receiver) = oneshot::channel();
        self.loops.get(shard)?.send(SurveyRequest { queues, reply }).ok()?;
        reply_receiver.await.ok()?.then_some(shard)
    }
}

/// Reads a shard for the surveys that arrived during the read before.
async fn survey_loop(shard: Shard, waiters: Arc<Waiters>, mut receiver: mpsc::UnboundedReceiver<SurveyRequest>) {
    let mut requests = Vec::new();
    while receiver.recv_many(&mut requests, MAX_SURVEYS).await > 0 {
        // Claims that this process can read without waiting join the same survey.
        yield_now().await;
        while requests.len() < MAX_SURVEYS
            && let Ok(request) = receiver.try_recv()
        {
            requests.push(request);
        }
        requests.retain(|request| !request.reply.is_closed());
        let queues: BTreeSet<QueueName> = requests.iter().flat_map(|request| request.queues.iter().cloned()).collect();
        let reading = timeout(SURVEY_TIMEOUT, read_shard(&shard, &waiters, queues.into_iter().collect())).await;
        if let Ok(Err(error)) = &reading {
            tracing::debug!(%error, shard = shard.index, "surveying ready tasks failed");
        }
        let is_read = matches!(reading, Ok(Ok(())));
        for request in requests.drain(..) {
            let _ = request.reply.send(is_read);
        }
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
