//! How the data set stands at a glance, for whoever asks. One reading at a time: who asks while one is under way waits for
//! its end, and shares the next with all others who do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::views::overview::{Depths, Overview, overview};
use crate::store::{Error, Result, Store};

/// What Redis may take to answer at all: two commands of each shard.
const ANSWERS: Duration = Duration::from_secs(1);
/// What it may take for the queues, one after another.
const TELLS: Duration = Duration::from_secs(3);

/// Readings of the data set.
#[derive(Default, Debug)]
pub struct Overviews {
    /// Held by whoever reads.
    last: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    began: Instant,
    seen: Result<Seen>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) all: Arc<Overview>,
    /// Or why they were not seen.
    pub(super) depths: Result<Arc<Depths>>,
}

impl Overviews {
    /// What there is; what was begun to be read after this was asked for will do.
    ///
    /// # Errors
    /// Why Redis did not answer: [`Unavailable`](Error::Unavailable) also where it took over a second.
    pub(super) async fn read(&self, store: &Store) -> Result<Seen> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.began >= asked) {
            return reading.seen.clone();
        }
        let began = Instant::now();
        let seen = look(store).await;
        if let Some(error) = seen.as_ref().map_or_else(Some, |seen| seen.depths.as_ref().err()) {
            tracing::debug!(%error, "the data set was not seen whole");
        }
        *last = Some(Reading { began, seen: seen.clone() });
        seen
    }
}

async fn look(store: &Store) -> Result<Seen> {
    let all = timeout(ANSWERS, overview(store)).await.map_err(Error::late)??;
    let depths = timeout(TELLS, all.depths(store)).await.map_err(Error::late).flatten();
    Ok(Seen { all: Arc::new(all), depths: depths.map(Arc::new) })
}
