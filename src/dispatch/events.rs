//! Tells those who listen what becomes of tasks.
//!
//! While somebody listens here, scripts are asked to report what they change, and what they report goes into one ring
//! from which all who listen read; what comes of a slow reader is its own affair. When nobody has listened for a
//! while, it ends: scripts report no more once nobody asks them to. What was missed is told to each who may have
//! missed it, never passed over in silence.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::gather::in_time;
use super::polls::Place;
use super::ring::{Event, Ring, Told};
use crate::domain::queue::QueueName;
use crate::store::change::{self, News};
use crate::store::ops::listen::listen;
use crate::store::{Caller, Error, Result, Shard, Store};

/// How often scripts are asked to go on reporting; well below the time for which they then do.
const AGAIN: Duration = Duration::from_secs(5);
/// How soon where that went wrong.
const SOON: Duration = Duration::from_millis(500);
/// How long changes are still heard when nobody listens: who comes back in this time has missed nothing.
const LINGER: Duration = Duration::from_secs(10);
/// Events that a reader gets at once.
const AT_ONCE: usize = 64;
/// How long somebody rests after events none of which were for it, so that those for others do not wake it each time.
const REST: Duration = Duration::from_millis(20);

/// What is heard, and by whom.
#[derive(Debug)]
pub(super) struct Events {
    store: Store,
    /// Names this run of this server: numbers of events mean nothing elsewhere.
    run: u64,
    heard: watch::Sender<Heard>,
    /// So many events are kept.
    most: usize,
    /// Somebody has come to listen.
    wanted: Notify,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Heard {
    ring: Ring,
    /// In so many shards scripts report, and it is heard.
    shards: usize,
}

/// One who listens. It counts among those who wait until it is dropped.
#[derive(Debug)]
pub struct Listener {
    heard: watch::Receiver<Heard>,
    run: u64,
    queues: Vec<QueueName>,
    seen: u64,
    /// The number of the last place that it was told.
    told: u64,
    /// It is told its place after so many events of which none is for it: so it finds it again when it comes back.
    apart: u64,
    /// It was told of events that this server does not have.
    lost: bool,
    stop: CancellationToken,
    _place: Place,
}

/// Where in the course of events somebody has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The run of a server.
    pub run: u64,
    /// The number of the last event seen.
    pub number: u64,
}

impl Events {
    /// Of at most `most` events; hears until `stop`, as long as somebody listens.
    pub(super) fn new(store: &Store, most: usize, stop: &CancellationToken) -> Arc<Self> {
        let heard = watch::Sender::new(Heard { ring: Ring::new(most), shards: 0 });
        let run = rand::random();
        Arc::new(Events { store: store.clone(), run, heard, most, wanted: Notify::new(), stop: stop.clone() })
    }

    /// Ends after `stop`.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = self.stop.cancelled() => return,
            }
            if self.heard.is_closed() {
                continue;
            }
            tokio::select! {
                () = self.hear() => {}
                () = deserted(&self.heard, &self.wanted) => {}
                () = self.stop.cancelled() => return,
            }
            self.heard.send_modify(|heard| heard.shards = 0);
        }
    }

    /// Hears all shards until it is dropped.
    async fn hear(self: &Arc<Self>) {
        let stands = Arc::new(Notify::new());
        let take = {
            let (events, stands) = (self.clone(), stands.clone());
            move |news| {
                events.heard.send_modify(|heard| match news {
                    News::Changes(changes) => heard.ring.add(changes),
                    News::Missed => {
                        heard.ring.add_gap();
                        stands.notify_one();
                    }
                });
            }
        };
        // Heard first, reported then: so nothing is reported that nobody hears.
        let asking = async {
            stands.notified().await;
            join_all(self.store.shards().iter().map(|shard| self.ask(shard))).await;
        };
        join(change::hear(&self.store, take), asking).await;
    }

    /// Has the shard's scripts report until it is dropped.
    async fn ask(&self, shard: &Shard) {
        let mut caller = Caller::new();
        let mut known: Option<String> = None;
        loop {
            match listen(shard, &mut caller).await {
                Ok(since) => {
                    match &known {
                        None => self.heard.send_modify(|heard| heard.shards += 1),
                        // They have ceased meanwhile, whoever made them begin again.
                        Some(known) if *known != since => self.heard.send_modify(|heard| heard.ring.add_gap()),
                        Some(_) => {}
                    }
                    known = Some(since);
                    sleep(AGAIN).await;
                }
                Err(error) => {
                    tracing::debug!(%error, shard = shard.index, "changes may go unreported");
                    sleep(SOON).await;
                }
            }
        }
    }

    /// Somebody listens to changes in `queues` (none: in all), behind `mark` if it has one. Whatever happens after this
    /// has returned is told.
    pub(super) async fn listen(&self, place: Place, queues: Vec<QueueName>, mark: Option<Mark>) -> Result<Listener> {
        let mut heard = self.heard.subscribe();
        self.wanted.notify_one();
        let shards = self.store.shards().len();
        let latest = in_time(async {
            tokio::select! {
                all = heard.wait_for(|heard| heard.shards == shards) => {
                    let gone = |_| Error::Unavailable("the server is stopping".into());
                    all.map(|heard| heard.ring.latest()).map_err(gone)
                }
                () = self.stop.cancelled() => Ok(0),
            }
        })
        .await?;
        let known = mark.filter(|mark| mark.run == self.run && mark.number <= latest);
        let seen = known.map_or(latest, |mark| mark.number);
        Ok(Listener {
            heard,
            run: self.run,
            queues,
            seen,
            told: seen,
            apart: self.most as u64 / 4,
            lost: mark.is_some() && known.is_none(),
            stop: self.stop.clone(),
            _place: place,
        })
    }
}

/// Returns when nobody has listened for a while. Whoever comes says so by `wanted`: since it last was quiet, somebody may
/// have been here and gone.
async fn deserted(heard: &watch::Sender<Heard>, wanted: &Notify) {
    loop {
        heard.closed().await;
        let came = timeout(LINGER, wanted.notified()).await.is_ok();
        if !came && heard.is_closed() {
            return;
        }
    }
}

impl Listener {
    /// Where it is.
    pub fn mark(&self) -> Mark {
        Mark { run: self.run, number: self.seen }
    }

    /// The next events, as many as are there, within bounds; none if there are none for so long, or if its place is to
    /// be told. `None`: the server stops. It may be dropped without harm.
    pub async fn next(&mut self, within: Duration) -> Option<Vec<Event>> {
        if std::mem::take(&mut self.lost) {
            return Some(vec![Event { number: self.seen, told: Told::Missed(None) }]);
        }
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            events = timeout(within, self.more()) => {
                self.told = self.seen;
                Some(events.unwrap_or_default())
            }
        }
    }

    /// The next events that are for it; none if its place is to be told.
    async fn more(&mut self) -> Vec<Event> {
        loop {
            let (events, seen, latest) = {
                let ring = &self.heard.borrow_and_update().ring;
                let (events, seen) = ring.after(self.seen, &self.queues, AT_ONCE);
                (events, seen, ring.latest())
            };
            let has_moved = seen > self.seen;
            self.seen = seen;
            if !events.is_empty() || seen - self.told >= self.apart {
                return events;
            }
            if seen < latest {
                continue;
            }
            if has_moved {
                sleep(REST).await;
            }
            if self.heard.changed().await.is_err() {
                // The server is gone, and with it whoever would tell it so.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;
    use crate::dispatch::polls::Polls;
    use crate::domain::id::TaskId;
    use crate::domain::state::State;
    use crate::domain::time::Millis;
    use crate::store::change::Change;

    fn change(queue: &str) -> Change {
        let (id, queue) = (TaskId::from_bytes(&[7; 16]).unwrap(), QueueName::parse(queue).unwrap());
        Change { id, queue, from: None, to: Some(State::Ready), at: Millis(0) }
    }

    /// Of changes in queue `own`, from the first on.
    fn listener(heard: &watch::Sender<Heard>) -> Listener {
        Listener {
            heard: heard.subscribe(),
            run: 1,
            queues: vec![QueueName::parse("own").unwrap()],
            seen: 0,
            told: 0,
            apart: u64::MAX,
            lost: false,
            stop: CancellationToken::new(),
            _place: Polls::new(1).enter().unwrap(),
        }
    }

    fn hearing() -> watch::Sender<Heard> {
        watch::Sender::new(Heard { ring: Ring::new(65_536), shards: 1 })
    }

    #[tokio::test]
    async fn whoever_is_not_concerned_is_not_woken_by_each_change() {
        let heard = hearing();
        let mut quiet = listener(&heard);
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = {
            let looks = looks.clone();
            async move {
                let mut more = Box::pin(quiet.more());
                std::future::poll_fn(|context| {
                    looks.fetch_add(1, Ordering::Relaxed);
                    more.as_mut().poll(context)
                })
                .await
            }
        };
        let events = tokio::spawn(counted);
        for _ in 0..2000 {
            heard.send_modify(|heard| heard.ring.add(vec![change("other")]));
            yield_now().await;
        }
        let looked = looks.load(Ordering::Relaxed);
        assert!((1..1000).contains(&looked), "{looked} times");
        heard.send_modify(|heard| heard.ring.add(vec![change("own")]));
        assert_eq!(events.await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_hears_on_for_a_while_after_the_last_who_listened_has_gone() {
        let (heard, wanted) = (hearing(), Notify::new());
        let begun = Instant::now();
        let come = || {
            wanted.notify_one();
            listener(&heard)
        };
        // One after another, and each for a second; between two of them it is quiet for most of the time that is allowed.
        let visitors = async {
            drop(come());
            for _ in 0..3 {
                sleep(LINGER - Duration::from_secs(1)).await;
                let one = come();
                sleep(Duration::from_secs(1)).await;
                drop(one);
            }
        };
        tokio::join!(deserted(&heard, &wanted), visitors);
        let quiet = begun.elapsed() - 3 * LINGER;
        assert!((LINGER..LINGER + Duration::from_secs(1)).contains(&quiet), "{quiet:?}");
    }

    #[tokio::test]
    async fn what_lies_far_behind_is_found_though_nothing_more_happens() {
        let heard = hearing();
        let mut changes = vec![change("other"); 60_000];
        changes.push(change("own"));
        heard.send_modify(|heard| heard.ring.add(changes));
        let events = listener(&heard).next(Duration::from_secs(30)).await.unwrap();
        assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [60_001]);
    }
}
