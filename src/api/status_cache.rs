//! How the data set stands at a glance, for whoever asks. One reading at a time: who asks while one is under way waits for
//! its end, and shares the next with all others who do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::views::queue_stats::{DatasetStats, QueueStatsList, dataset_stats};
use crate::store::{Error, Result, Store};

/// What Redis may take to answer at all: two commands of each shard.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// What it may take for the queues, one after another.
const QUEUES_TIMEOUT: Duration = Duration::from_secs(3);

/// Readings of the data set.
#[derive(Default, Debug)]
pub struct StatusCache {
    /// Held by whoever reads.
    last: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    started_at: Instant,
    status: Result<Status>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) dataset: Arc<DatasetStats>,
    /// Or why they were not seen.
    pub(super) queues: Result<Arc<QueueStatsList>>,
}

impl StatusCache {
    /// What there is; what was begun to be read after this was asked for will do.
    ///
    /// # Errors
    /// Why Redis did not answer: [`Unavailable`](Error::Unavailable) also where it took over a second.
    pub(super) async fn read(&self, store: &Store) -> Result<Status> {
        let requested_at = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.started_at >= requested_at) {
            return reading.status.clone();
        }
        let started_at = Instant::now();
        let status = read_status(store).await;
        if let Some(error) = status.as_ref().map_or_else(Some, |seen| seen.queues.as_ref().err()) {
            tracing::debug!(%error, "the data set was not seen whole");
        }
        *last = Some(Reading { started_at, status: status.clone() });
        status
    }
}

async fn read_status(store: &Store) -> Result<Status> {
    let all = timeout(PING_TIMEOUT, dataset_stats(store)).await.map_err(Error::timed_out)??;
    let depths = timeout(QUEUES_TIMEOUT, all.queue_stats(store)).await.map_err(Error::timed_out).flatten();
    Ok(Status { dataset: Arc::new(all), queues: depths.map(Arc::new) })
}
