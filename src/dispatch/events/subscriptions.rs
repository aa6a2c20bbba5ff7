//! Subscriptions to task events.
//!
//! While there are subscriptions, this server keeps events enabled in Redis: scripts then publish each transition. All
//! subscriptions read one buffer, so a slow reader delays only itself. Some time after the last subscription ends, the
//! server stops enabling events, and scripts stop publishing them. A subscription that may have missed events receives
//! a gap: loss is never silent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ring_buffer::{BufferedEvent, EventBuffer, EventData};
use crate::dispatch::claim::poll_limit::PollPermit;
use crate::domain::queue::QueueName;
use crate::store::notify::events;
use crate::store::notify::events::EventMessage;
use crate::store::ops::enable_events::enable_events;
use crate::store::{Caller, Shard, Store};

/// Interval at which events are enabled again, well below the time for which Redis keeps them enabled.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after enabling them failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Time for which the feed outlives the last subscription. A client that reconnects within it misses nothing.
const IDLE_GRACE: Duration = Duration::from_secs(10);
/// Events returned at once.
const READ_LIMIT: usize = 64;
/// Time for a first subscription in Redis. After it, a stream begins with a gap.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after events of other queues only, so that not each of them wakes the subscription.
const COALESCE_DELAY: Duration = Duration::from_millis(20);

/// The feed of this server, and its subscriptions.
#[derive(Debug)]
pub(in crate::dispatch) struct Subscriptions {
    store: Store,
    /// Identifies this run of this server. Event numbers are valid within one run.
    run_id: u64,
    feed: watch::Sender<Feed>,
    /// Events kept.
    capacity: usize,
    /// Notified by each new subscription.
    subscriber_arrived: Notify,
    stop: CancellationToken,
}

/// The events received, and how far receiving them is set up.
#[derive(Debug)]
struct Feed {
    buffer: EventBuffer,
    /// Shards that are subscribed and have events enabled.
    enabled_shards: usize,
}

/// A subscription to task events. It counts as a waiting request until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    feed: watch::Receiver<Feed>,
    run_id: u64,
    queues: Vec<QueueName>,
    seen_number: u64,
    /// The number of the last cursor that the client received.
    last_cursor_sent: u64,
    /// Events of other queues after which the client receives its cursor. It can then resume before they are
    /// overwritten.
    cursor_interval: u64,
    /// The client resumed from a cursor that this run does not know, or not all shards were subscribed in time.
    begins_with_gap: bool,
    /// The number of shards.
    shards: usize,
    stop: CancellationToken,
    _permit: PollPermit,
}

/// A position in the events of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The run of the server.
    pub run_id: u64,
    /// The number of the last event seen.
    pub number: u64,
}

impl Subscriptions {
    /// Keeps at most `capacity` events. Ends at `stop`.
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

    /// Receives events while there are subscriptions. Runs until `stop`.
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

    /// Receives the events of all shards until it is dropped.
    async fn receive(self: &Arc<Self>) {
        let subscribed = Arc::new(Notify::new());
        let on_message = {
            let (subscriptions, subscribed) = (self.clone(), subscribed.clone());
            move |message| {
                subscriptions.feed.send_modify(|feed| match message {
                    EventMessage::Events(task_events) => feed.buffer.push_all(task_events),
                    EventMessage::Gap => {
                        feed.buffer.push_gap();
                        subscribed.notify_one();
                    }
                });
            }
        };
        // Enabled only once subscribed: no event is published before that.
        let enabling = async {
            subscribed.notified().await;
            join_all(self.store.shards().iter().map(|shard| self.keep_enabled(shard))).await;
        };
        join(events::subscribe(&self.store, on_message), enabling).await;
    }

    /// Keeps events enabled in a shard until it is dropped.
    async fn keep_enabled(&self, shard: &Shard) {
        let mut caller = Caller::new();
        let mut known_period: Option<String> = None;
        loop {
            match enable_events(shard, &mut caller).await {
                Ok(period) => {
                    match &known_period {
                        // For streams that did not wait: the shard's events were missed so far.
                        None => self.feed.send_modify(|feed| {
                            feed.buffer.push_gap();
                            feed.enabled_shards += 1;
                        }),
                        // Events were disabled in between, whichever server enabled them again.
                        Some(previous) if *previous != period => self.feed.send_modify(|feed| feed.buffer.push_gap()),
                        Some(_) => {}
                    }
                    known_period = Some(period);
                    sleep(REFRESH_INTERVAL).await;
                }
                Err(error) => {
                    tracing::debug!(%error, shard = shard.index, "enabling events failed");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Subscribes to the events of `queues` (empty: all), after `cursor` if there is one. Every event after the return
    /// is delivered, or a gap. If not all shards can be subscribed soon, the subscription begins with a gap.
    pub(in crate::dispatch) async fn subscribe(
        &self,
        permit: PollPermit,
        queues: Vec<QueueName>,
        cursor: Option<Cursor>,
    ) -> Subscription {
        let mut feed = self.feed.subscribe();
        self.subscriber_arrived.notify_one();
        let shards = self.store.shards().len();
        let all_enabled = async {
            tokio::select! {
                enabled = feed.wait_for(|feed| feed.enabled_shards == shards) => enabled.is_ok(),
                () = self.stop.cancelled() => true,
            }
        };
        // A client waits no longer for a shard that is known to be unavailable.
        let is_available = self.store.blocked_shards().next().is_none();
        let max_wait = if is_available { SUBSCRIBE_TIMEOUT } else { Duration::ZERO };
        let is_complete = timeout(max_wait, all_enabled).await.unwrap_or(false);
        let latest = feed.borrow().buffer.latest_number();
        let known_cursor = cursor.filter(|cursor| cursor.run_id == self.run_id && cursor.number <= latest);
        let seen_number = known_cursor.map_or(latest, |cursor| cursor.number);
        Subscription {
            feed,
            run_id: self.run_id,
            queues,
            seen_number,
            last_cursor_sent: seen_number,
            cursor_interval: self.capacity as u64 / 4,
            begins_with_gap: !is_available || !is_complete || (cursor.is_some() && known_cursor.is_none()),
            shards,
            stop: self.stop.clone(),
            _permit: permit,
        }
    }
}

/// Returns once there has been no subscription for [`IDLE_GRACE`]. `subscriber_arrived` also reveals a subscription
/// that began and ended between two checks.
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
    /// The position behind the events returned so far.
    pub fn cursor(&self) -> Cursor {
        Cursor { run_id: self.run_id, number: self.seen_number }
    }

    /// Whether the first event is a gap.
    pub fn begins_with_gap(&self) -> bool {
        self.begins_with_gap
    }

    fn gap(&self) -> Vec<BufferedEvent> {
        vec![BufferedEvent { number: self.seen_number, data: EventData::Gap(None) }]
    }

    /// Returns the next events, up to a limit. Returns none after `max_wait`, or when the client should receive its
    /// cursor. Returns `None` when the server stops. Cancel safe.
    pub async fn next(&mut self, max_wait: Duration) -> Option<Vec<BufferedEvent>> {
        if std::mem::take(&mut self.begins_with_gap) {
            return Some(self.gap());
        }
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            events = timeout(max_wait, self.read_events()) => {
                self.last_cursor_sent = self.seen_number;
                let events = events.unwrap_or_default();
                // While a shard is not subscribed, a cursor alone would hide that its events are missing.
                let is_complete = self.feed.borrow().enabled_shards >= self.shards;
                Some(if events.is_empty() && !is_complete { self.gap() } else { events })
            }
        }
    }

    /// Returns the next events of its queues, or none when the client should receive its cursor.
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
                // The feed has ended with the server. `next` returns at its stop.
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
    use crate::dispatch::claim::poll_limit::PollLimit;
    use crate::domain::id::TaskId;
    use crate::domain::state::State;
    use crate::domain::time::TimestampMs;
    use crate::store::notify::events::TaskEvent;

    fn task_event(queue: &str) -> TaskEvent {
        let (id, queue) = (TaskId::from_bytes(&[7; 16]).unwrap(), QueueName::parse(queue).unwrap());
        TaskEvent { id, queue, from: None, to: Some(State::Ready), at: TimestampMs(0) }
    }

    /// Subscribes to queue `own`, from the first event.
    fn subscribe_to_own(feed: &watch::Sender<Feed>) -> Subscription {
        Subscription {
            feed: feed.subscribe(),
            run_id: 1,
            queues: vec![QueueName::parse("own").unwrap()],
            seen_number: 0,
            last_cursor_sent: 0,
            cursor_interval: u64::MAX,
            begins_with_gap: false,
            shards: 1,
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
        // Subscriptions of one second, with pauses just below the grace.
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
