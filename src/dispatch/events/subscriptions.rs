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

use super::ring_buffer::{BufferedEvent, EventBuffer, EventData};
use crate::dispatch::batcher::with_request_timeout;
use crate::dispatch::claim::poll_limit::PollPermit;
use crate::domain::queue::QueueName;
use crate::store::notify::events;
use crate::store::notify::events::EventMessage;
use crate::store::ops::enable_events::enable_events;
use crate::store::{Caller, Error, Result, Shard, Store};

/// How often scripts are asked to go on reporting; well below the time for which they then do.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How soon where that went wrong.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How long changes are still heard when nobody listens: who comes back in this time has missed nothing.
const IDLE_GRACE: Duration = Duration::from_secs(10);
/// Events that a reader gets at once.
const READ_LIMIT: usize = 64;
/// How long somebody rests after events none of which were for it, so that those for others do not wake it each time.
const COALESCE_DELAY: Duration = Duration::from_millis(20);

/// What is heard, and by whom.
#[derive(Debug)]
pub(in crate::dispatch) struct Subscriptions {
    store: Store,
    /// Names this run of this server: numbers of events mean nothing elsewhere.
    run_id: u64,
    feed: watch::Sender<Feed>,
    /// So many events are kept.
    capacity: usize,
    /// Somebody has come to listen.
    subscriber_arrived: Notify,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Feed {
    buffer: EventBuffer,
    /// In so many shards scripts report, and it is heard.
    enabled_shards: usize,
}

/// One who listens. It counts among those who wait until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    feed: watch::Receiver<Feed>,
    run_id: u64,
    queues: Vec<QueueName>,
    seen_number: u64,
    /// The number of the last place that it was told.
    last_cursor_sent: u64,
    /// It is told its place after so many events of which none is for it: so it finds it again when it comes back.
    cursor_interval: u64,
    /// It was told of events that this server does not have.
    cursor_unknown: bool,
    stop: CancellationToken,
    _permit: PollPermit,
}

/// Where in the course of events somebody has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The run of a server.
    pub run_id: u64,
    /// The number of the last event seen.
    pub number: u64,
}

impl Subscriptions {
    /// Of at most `most` events; hears until `stop`, as long as somebody listens.
    pub(in crate::dispatch) fn new(store: &Store, capacity: usize, stop: &CancellationToken) -> Arc<Self> {
        let feed = watch::Sender::new(Feed { buffer: EventBuffer::new(capacity), enabled_shards: 0 });
        let run_id = rand::random();
        Arc::new(Subscriptions {
            store: store.clone(),
            run_id,
            feed,
            capacity,
            subscriber_arrived: Notify::new(),
            stop: stop.clone(),
        })
    }

    /// Ends after `stop`.
    pub(in crate::dispatch) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.subscriber_arrived.notified() => {}
                () = self.stop.cancelled() => return,
            }
            if self.feed.is_closed() {
                continue;
            }
            tokio::select! {
                () = self.receive() => {}
                () = wait_until_idle(&self.feed, &self.subscriber_arrived) => {}
                () = self.stop.cancelled() => return,
            }
            self.feed.send_modify(|feed| feed.enabled_shards = 0);
        }
    }

    /// Hears all shards until it is dropped.
    async fn receive(self: &Arc<Self>) {
        let subscribed = Arc::new(Notify::new());
        let on_message = {
            let (subscriptions, subscribed) = (self.clone(), subscribed.clone());
            move |message| {
                subscriptions.feed.send_modify(|heard| match message {
                    EventMessage::Events(task_events) => heard.buffer.push_all(task_events),
                    EventMessage::Gap => {
                        heard.buffer.push_gap();
                        subscribed.notify_one();
                    }
                });
            }
        };
        // Heard first, reported then: so nothing is reported that nobody hears.
        let enabling = async {
            subscribed.notified().await;
            join_all(self.store.shards().iter().map(|shard| self.keep_enabled(shard))).await;
        };
        join(events::subscribe(&self.store, on_message), enabling).await;
    }

    /// Has the shard's scripts report until it is dropped.
    async fn keep_enabled(&self, shard: &Shard) {
        let mut caller = Caller::new();
        let mut known_period: Option<String> = None;
        loop {
            match enable_events(shard, &mut caller).await {
                Ok(period) => {
                    match &known_period {
                        None => self.feed.send_modify(|feed| feed.enabled_shards += 1),
                        // They have ceased meanwhile, whoever made them begin again.
                        Some(previous) if *previous != period => self.feed.send_modify(|feed| feed.buffer.push_gap()),
                        Some(_) => {}
                    }
                    known_period = Some(period);
                    sleep(REFRESH_INTERVAL).await;
                }
                Err(error) => {
                    tracing::debug!(%error, shard = shard.index, "changes may go unreported");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Somebody listens to changes in `queues` (none: in all), behind `mark` if it has one. Whatever happens after this
    /// has returned is told.
    pub(in crate::dispatch) async fn subscribe(
        &self,
        permit: PollPermit,
        queues: Vec<QueueName>,
        cursor: Option<Cursor>,
    ) -> Result<Subscription> {
        let mut feed = self.feed.subscribe();
        self.subscriber_arrived.notify_one();
        let shards = self.store.shards().len();
        let latest = with_request_timeout(async {
            tokio::select! {
                enabled = feed.wait_for(|feed| feed.enabled_shards == shards) => {
                    let stopping = |_| Error::Unavailable("the server is stopping".into());
                    enabled.map(|feed| feed.buffer.latest_number()).map_err(stopping)
                }
                () = self.stop.cancelled() => Ok(0),
            }
        })
        .await?;
        let known_cursor = cursor.filter(|cursor| cursor.run_id == self.run_id && cursor.number <= latest);
        let seen_number = known_cursor.map_or(latest, |cursor| cursor.number);
        Ok(Subscription {
            feed,
            run_id: self.run_id,
            queues,
            seen_number,
            last_cursor_sent: seen_number,
            cursor_interval: self.capacity as u64 / 4,
            cursor_unknown: cursor.is_some() && known_cursor.is_none(),
            stop: self.stop.clone(),
            _permit: permit,
        })
    }
}

/// Returns when nobody has listened for a while. Whoever comes says so by `wanted`: since it last was quiet, somebody may
/// have been here and gone.
async fn wait_until_idle(feed: &watch::Sender<Feed>, subscriber_arrived: &Notify) {
    loop {
        feed.closed().await;
        let arrived = timeout(IDLE_GRACE, subscriber_arrived.notified()).await.is_ok();
        if !arrived && feed.is_closed() {
            return;
        }
    }
}

impl Subscription {
    /// Where it is.
    pub fn cursor(&self) -> Cursor {
        Cursor { run_id: self.run_id, number: self.seen_number }
    }

    /// The next events, as many as are there, within bounds; none if there are none for so long, or if its place is to
    /// be told. `None`: the server stops. It may be dropped without harm.
    pub async fn next(&mut self, max_wait: Duration) -> Option<Vec<BufferedEvent>> {
        if std::mem::take(&mut self.cursor_unknown) {
            return Some(vec![BufferedEvent { number: self.seen_number, data: EventData::Gap(None) }]);
        }
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            events = timeout(max_wait, self.read_events()) => {
                self.last_cursor_sent = self.seen_number;
                Some(events.unwrap_or_default())
            }
        }
    }

    /// The next events that are for it; none if its place is to be told.
    async fn read_events(&mut self) -> Vec<BufferedEvent> {
        loop {
            let (events, seen_number, latest) = {
                let buffer = &self.feed.borrow_and_update().buffer;
                let (events, seen_number) = buffer.read_after(self.seen_number, &self.queues, READ_LIMIT);
                (events, seen_number, buffer.latest_number())
            };
            let has_advanced = seen_number > self.seen_number;
            self.seen_number = seen_number;
            if !events.is_empty() || seen_number - self.last_cursor_sent >= self.cursor_interval {
                return events;
            }
            if seen_number < latest {
                continue;
            }
            if has_advanced {
                sleep(COALESCE_DELAY).await;
            }
            if self.feed.changed().await.is_err() {
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

    use crate::dispatch::claim::poll_limit::PollLimit;
    use crate::dispatch::events::subscriptions::*;
    use crate::domain::id::TaskId;
    use crate::domain::state::State;
    use crate::domain::time::TimestampMs;
    use crate::store::notify::events::TaskEvent;

    fn task_event(queue: &str) -> TaskEvent {
        let (id, queue) = (TaskId::from_bytes(&[7; 16]).unwrap(), QueueName::parse(queue).unwrap());
        TaskEvent { id, queue, from: None, to: Some(State::Ready), at: TimestampMs(0) }
    }

    /// Of changes in queue `own`, from the first on.
    fn subscribe_to_own(feed: &watch::Sender<Feed>) -> Subscription {
        Subscription {
            feed: feed.subscribe(),
            run_id: 1,
            queues: vec![QueueName::parse("own").unwrap()],
            seen_number: 0,
            last_cursor_sent: 0,
            cursor_interval: u64::MAX,
            cursor_unknown: false,
            stop: CancellationToken::new(),
            _permit: PollLimit::new(1).try_acquire().unwrap(),
        }
    }

    fn new_feed() -> watch::Sender<Feed> {
        watch::Sender::new(Feed { buffer: EventBuffer::new(65_536), enabled_shards: 1 })
    }

    #[tokio::test]
    async fn subscription_is_not_polled_for_each_event_of_other_queues() {
        let feed = new_feed();
        let mut quiet = subscribe_to_own(&feed);
        let polls = Arc::new(AtomicUsize::new(0));
        let counted_polls = {
            let polls = polls.clone();
            async move {
                let mut pending = Box::pin(quiet.read_events());
                std::future::poll_fn(|context| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    pending.as_mut().poll(context)
                })
                .await
            }
        };
        let events = tokio::spawn(counted_polls);
        for _ in 0..2000 {
            feed.send_modify(|feed| feed.buffer.push_all(vec![task_event("other")]));
            yield_now().await;
        }
        let polled = polls.load(Ordering::Relaxed);
        assert!((1..1000).contains(&polled), "{polled} times");
        feed.send_modify(|feed| feed.buffer.push_all(vec![task_event("own")]));
        assert_eq!(events.await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn feed_outlives_the_last_subscription_by_the_idle_grace() {
        let (feed, subscriber_arrived) = (new_feed(), Notify::new());
        let started = Instant::now();
        let arrive = || {
            subscriber_arrived.notify_one();
            subscribe_to_own(&feed)
        };
        // One after another, and each for a second; between two of them it is quiet for most of the time that is allowed.
        let subscribers = async {
            drop(arrive());
            for _ in 0..3 {
                sleep(IDLE_GRACE - Duration::from_secs(1)).await;
                let subscription = arrive();
                sleep(Duration::from_secs(1)).await;
                drop(subscription);
            }
        };
        tokio::join!(wait_until_idle(&feed, &subscriber_arrived), subscribers);
        let idle = started.elapsed() - 3 * IDLE_GRACE;
        assert!((IDLE_GRACE..IDLE_GRACE + Duration::from_secs(1)).contains(&idle), "{idle:?}");
    }

    #[tokio::test]
    async fn event_far_behind_is_found_without_a_new_one() {
        let feed = new_feed();
        let mut task_events = vec![task_event("other"); 60_000];
        task_events.push(task_event("own"));
        feed.send_modify(|feed| feed.buffer.push_all(task_events));
        let events = subscribe_to_own(&feed).next(Duration::from_secs(30)).await.unwrap();
        assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [60_001]);
    }
}
