//! The throughput model against what really happens: a minute of random tasks and workers on a real server and a real Redis.
//! In a program of its own, so that no other test works beside it, and as released, because a build for debugging adds
//! several ms to each task: `cargo test --release --test simulation`.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../it/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::queueing::{Draw, Replay, Work, poisson};
use support::{Fixture, Http, report_with};
use tokio::time::{Instant, sleep_until};

const LANES: usize = 6;
const SECONDS: u64 = 60;
const BUCKET: Duration = Duration::from_secs(5);
/// What handing out and taking back may add to a task, besides 2 %.
const OVERHEAD_MS: f64 = 3.0;

/// The timer wakes at whole milliseconds, the next one at the earliest: so late on average.
const TIMER: Duration = Duration::from_micros(500);

/// The next time at which one of the buckets begins in which Redis counts; it has this machine's clock.
fn next_bucket() -> Instant {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    let since = Duration::from_nanos((now.as_nanos() % BUCKET.as_nanos()) as u64);
    Instant::now() + (BUCKET - since)
}

async fn submit_all(http: Http, draws: Arc<[Draw]>, start: Instant) {
    let mut sent = tokio::task::JoinSet::new();
    for (number, draw) in draws.iter().enumerate() {
        sleep_until(start + draw.comes).await;
        let http = http.clone();
        sent.spawn(async move { http.post("/tasks", &json!({"queue": "q", "payload": number})).await.expect(201) });
    }
    sent.join_all().await;
}

/// Works until `end`, and takes the next task in the same round trip in which it finishes one.
async fn work(http: Http, name: String, draws: Arc<[Draw]>, end: Instant) {
    let claim = json!({"queues": ["q"], "worker": name, "wait_ms": 1000});
    let mut answer = http.post("/claim", &claim).await.expect(200);
    loop {
        let begun = Instant::now();
        answer = match answer["tasks"].as_array().and_then(|tasks| tasks.first()) {
            Some(task) => {
                let number = task["payload"].as_u64().expect("a number") as usize;
                sleep_until(begun + draws[number].takes.saturating_sub(TIMER)).await;
                http.post("/complete", &report_with(task, json!({"claim": claim}))).await.expect(200)
            }
            None if begun >= end => return,
            None => http.post("/claim", &claim).await.expect(200),
        };
    }
}

fn figure(stats: &Value, name: &str) -> f64 {
    stats[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", stats[name]))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_a_replay_of_the_same_draws_says() {
    let fixture = Fixture::with_shards(1).await;
    let length = Duration::from_secs(SECONDS);
    let work_of = Work::Exponential(Duration::from_millis(100));
    let draws: Arc<[Draw]> = poisson(7, 40.0, work_of).take_while(|draw| draw.comes < length).collect();
    let start = next_bucket();
    let end = start + length;
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..LANES {
        workers.spawn(work(fixture.http.clone(), format!("w{number}"), draws.clone(), end));
    }
    submit_all(fixture.http.clone(), draws.clone(), start).await;
    // The window that ends with the run is whole a moment after it.
    sleep_until(end + Duration::from_millis(20)).await;
    let stats = fixture.http.get("/stats?queue=q&window_ms=60000").await.expect(200);
    workers.join_all().await;

    let replay = Replay::of(&draws, LANES, length);
    println!(
        "measured: {stats:#}\nreplay: m {} c {} utilisation {} wait {} ms, p95 {} ms",
        replay.m,
        replay.c,
        replay.utilisation,
        replay.mean_wait_ms(),
        replay.quantile_ms(0.95)
    );
    let near = |name: &str, wanted: f64, more: f64| {
        let measured = figure(&stats, name);
        let (low, high) = (wanted * 0.98, wanted * 1.02 + more);
        assert!((low..=high).contains(&measured), "{name}: {measured} is not in {low}..{high}");
    };
    assert_eq!(stats["n"], LANES as u64);
    near("m", replay.m, 0.0);
    // In ms a task: the reciprocal of c.
    let (measured, wanted) = (1000.0 / figure(&stats, "c"), 1000.0 / replay.c);
    assert!(
        (wanted * 0.98..=wanted * 1.02 + OVERHEAD_MS).contains(&measured),
        "{measured} ms a task, and {wanted} drawn"
    );
    let share = OVERHEAD_MS / wanted;
    near("utilisation", replay.utilisation, replay.utilisation * share);
    let s = replay.m * LANES as f64 / replay.c;
    near("s", s, s * share);
    let (measured, wanted) = (figure(&stats, "wait_mean_ms"), replay.mean_wait_ms());
    assert!((measured - wanted).abs() <= 3.0 + 0.1 * wanted, "waited {measured} ms, and {wanted} in the replay");
    assert!(figure(&stats, "wait_p50_ms") <= figure(&stats, "wait_p95_ms"));
    fixture.end().await;
}
