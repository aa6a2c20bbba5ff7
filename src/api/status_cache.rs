//! Reads the totals and queues of the data set for `/metrics` and `/stats`. At most one reading runs at a time.
//! Requests that arrive during a reading wait for its end, and share the next reading. If it fails, they share its failure:
//! while Redis does not answer, no request waits longer than one reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::views::queue_stats::{DatasetStats, QueueStatsList, dataset_stats};
use crate::store::{Error, Result, Store};

/// Time limit of the totals: two commands for each shard.
const TOTALS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of the queues, which are read one after another.
const QUEUES_TIMEOUT: Duration = Duration::from_secs(3);

/// The last reading of the data set.
#[derive(Default, Debug)]
pub struct StatusCache {
    /// Locked during a reading.
    last: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    started_at: Instant,
    ended_at: Instant,
    status: Result<Status>,
}

/// The state of the data set.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) dataset: Arc<DatasetStats>,
    /// The queues, or the error of their reading.
    pub(super) queues: Result<Arc<QueueStatsList>>,
}

impl StatusCache {
    /// Returns a reading that began after this call, or the failure of one that was running.
    ///
    /// # Errors
    /// Returns the error of Redis, and [`Unavailable`](Error::Unavailable) if the totals took over 1 s.
    pub(super) async fn read(&self, store: &Store) -> Result<Status> {
        let requested_at = Instant::now();
        let mut last = self.last.lock().await;
        let answers = |reading: &&Reading| {
            reading.started_at >= requested_at || reading.status.is_err() && reading.ended_at >= requested_at
        };
        if let Some(reading) = last.as_ref().filter(answers) {
            return reading.status.clone();
        }
        let started_at = Instant::now();
        let status = read_status(store).await;
        if let Some(error) = status.as_ref().map_or_else(Some, |status| status.queues.as_ref().err()) {
            tracing::debug!(%error, "reading the data set failed");
        }
        *last = Some(Reading { started_at, ended_at: Instant::now(), status: status.clone() });
        status
    }
}

async fn read_status(store: &Store) -> Result<Status> {
    let dataset = timeout(TOTALS_TIMEOUT, dataset_stats(store)).await.map_err(Error::timed_out)??;
    let queues = timeout(QUEUES_TIMEOUT, dataset.queue_stats(store)).await.map_err(Error::timed_out).flatten();
    Ok(Status { dataset: Arc::new(dataset), queues: queues.map(Arc::new) })
}
