//! A server that knows a queue to be empty asks Redis nothing for a claim that waits, and misses no task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool_redis::redis::{self, cmd};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::metrics::{metrics, metrics_of};
use crate::support::{Fixture, Http, report};

/// A poll interval that is too long to make up for a missing wake-up, or to be counted.
pub const RARE_POLLS: u64 = 60_000;

/// Reads of queues' records outside of scripts, which surveys and polls make, and `/metrics` too.
pub struct Reads {
    count: Arc<AtomicUsize>,
    /// Those of `/metrics`.
    of_metrics: AtomicUsize,
    /// The last number that the stream of all commands has shown.
    shown: watch::Receiver<usize>,
}

impl Reads {
    pub async fn start(fixture: &Fixture) -> Self {
        let client = redis::Client::open(fixture.redis.url.as_str()).expect("a URL");
        let monitor = client.get_async_monitor().await.expect("a connection");
        let count = Arc::new(AtomicUsize::new(0));
        let (shows, shown) = watch::channel(0);
        let counted = count.clone();
        tokio::spawn(async move {
            let mut lines = std::pin::pin!(monitor.into_on_message::<String>());
            while let Some(line) = lines.next().await {
                if let Some((_, number)) = line.split_once("\"ECHO\" \"") {
                    shows.send_replace(number.trim_end_matches('"').parse().expect("a number"));
                } else if !line.contains(" lua] ") && line.contains(":callers\" \"queue:") && line.contains("\"HMGET\"")
                {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Reads { count, of_metrics: AtomicUsize::new(0), shown }
    }

    /// Returns the number of reads so far.
    async fn count(&self, fixture: &Fixture) -> usize {
        let mut shown = self.shown.clone();
        let number = *shown.borrow() + 1;
        fixture.redis.ask::<String>(cmd("ECHO").arg(number)).await;
        shown.wait_for(|last| *last >= number).await.expect("the stream of all commands");
        self.count.load(Ordering::Relaxed)
    }
}

/// Starts a server and waits until it is subscribed.
pub async fn start(shards: u16) -> (Fixture, Reads) {
    let change = |written: &mut slotwheel::config::RawConfig| {
        written.shards = Some(shards);
        written.poll_interval_ms = Some(RARE_POLLS);
    };
    let fixture = Fixture::with(change).await;
    is_subscribed(&fixture, &fixture.http).await;
    let reads = Reads::start(&fixture).await;
    (fixture, reads)
}

pub async fn is_subscribed(fixture: &Fixture, http: &Http) {
    let gaps = [("kind", "gap")];
    fixture
        .until(|| async { (metrics_of(http).await.count("slotwheel_wakeups_total", &gaps) >= 1.0).then_some(()) })
        .await;
}

/// Calls of the scripts of a task's life so far.
pub async fn scripts(fixture: &Fixture) -> f64 {
    let page = metrics(fixture).await;
    let calls = |call| page.count("slotwheel_redis_call_duration_seconds_count", &[("call", call)]);
    ["submit", "claim", "complete"].map(calls).iter().sum()
}

/// Calls of the scripts of a task's life so far, and reads of records outside of scripts.
async fn calls(fixture: &Fixture, reads: &Reads) -> f64 {
    let before = reads.count(fixture).await;
    let scripts = scripts(fixture).await;
    let others = before - reads.of_metrics.fetch_add(reads.count(fixture).await - before, Ordering::Relaxed);
    scripts + others as f64
}

async fn claim(http: &Http, queue: &str, wait_ms: u64) -> Vec<Value> {
    let body = json!({"queues": [queue], "wait_ms": wait_ms, "worker": "w"});
    http.post("/claim", &body).await.expect(200)["tasks"].as_array().expect("tasks").clone()
}

/// Claims until the server asks Redis nothing, because it knows the queue to be empty.
pub async fn learn_empty(fixture: &Fixture, reads: &Reads, queue: &str) {
    let check = || async {
        let before = calls(fixture, reads).await;
        assert!(claim(&fixture.http, queue, 1).await.is_empty());
        (calls(fixture, reads).await == before).then_some(())
    };
    fixture.until(check).await;
}

/// Returns the calls for each task that is submitted, claimed and completed, one at a time: the fewest of three rounds. A
/// poll, or an interruption of the wake-ups, reads all shards in some round.
async fn calls_of_a_life(shards: u16) -> f64 {
    const LIVES: u32 = 50;
    let (fixture, reads) = start(shards).await;
    let mut fewest = f64::INFINITY;
    for _ in 0..3 {
        learn_empty(&fixture, &reads, "q").await;
        let before = calls(&fixture, &reads).await;
        for number in 0..LIVES {
            let id = fixture.submit("q", json!(number)).await["id"].clone();
            let claimed = fixture.claim_one("q").await;
            assert_eq!(claimed["id"], id);
            fixture.http.post("/complete", &report(&claimed)).await.expect(200);
        }
        fewest = fewest.min((calls(&fixture, &reads).await - before) / f64::from(LIVES));
    }
    fixture.end().await;
    fewest
}

#[tokio::test]
async fn life_of_a_task_takes_three_calls_with_16_shards() {
    let calls = calls_of_a_life(16).await;
    assert!((3.0..=3.1).contains(&calls), "{calls}");
}

#[tokio::test]
async fn life_of_a_task_takes_three_calls_with_64_shards() {
    let calls = calls_of_a_life(64).await;
    assert!((3.0..=3.4).contains(&calls), "{calls}");
}

#[tokio::test]
async fn short_claims_of_an_empty_queue_ask_redis_nothing() {
    let (fixture, reads) = start(16).await;
    // A poll reads all shards in some round.
    let mut fewest = f64::INFINITY;
    for _ in 0..3 {
        learn_empty(&fixture, &reads, "q").await;
        let before = calls(&fixture, &reads).await;
        for _ in 0..50 {
            assert!(claim(&fixture.http, "q", 1).await.is_empty());
        }
        fewest = fewest.min(calls(&fixture, &reads).await - before);
    }
    assert_eq!(fewest, 0.0);

    // A claim that does not wait checks every shard.
    let before = calls(&fixture, &reads).await;
    assert!(claim(&fixture.http, "q", 0).await.is_empty());
    assert!(calls(&fixture, &reads).await - before >= 16.0);
    fixture.end().await;
}

#[tokio::test]
async fn waiters_that_arrive_together_share_the_reads_of_shards() {
    const WAITERS: usize = 50;
    let (fixture, reads) = start(16).await;
    let before = calls(&fixture, &reads).await;
    let claims = (0..WAITERS).map(|number| claim(&fixture.http, if number % 2 == 0 { "q" } else { "r" }, 50));
    assert!(futures_util::future::join_all(claims).await.iter().all(Vec::is_empty));
    let calls = calls(&fixture, &reads).await - before;
    assert!(calls < (16 * WAITERS / 2) as f64, "{calls}");
    fixture.end().await;
}

#[tokio::test]
async fn task_of_another_server_is_claimed_though_the_queue_was_empty() {
    let (mut fixture, reads) = start(16).await;
    let other = fixture.another_server().await;
    for _ in 0..20 {
        learn_empty(&fixture, &reads, "q").await;
        let id = other.post("/tasks", &json!({"queue": "q"})).await.expect(201)["id"].clone();
        assert_eq!(claim(&fixture.http, "q", 10_000).await[0]["id"], id);
    }
    fixture.end().await;
}

#[tokio::test]
async fn task_of_a_resumed_queue_is_claimed_though_it_was_paused() {
    let (mut fixture, reads) = start(16).await;
    let other = fixture.another_server().await;
    let paused = other.post("/tasks", &json!({"queue": "q"})).await.expect(201)["id"].clone();
    other.post_nothing("/queues/q/pause").await.expect(200);
    learn_empty(&fixture, &reads, "q").await;
    other.post_nothing("/queues/q/resume").await.expect(200);
    assert_eq!(claim(&fixture.http, "q", 10_000).await[0]["id"], paused);
    fixture.end().await;
}
