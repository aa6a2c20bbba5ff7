//! The throughput model against reality: random tasks and workers on a real server and a real Redis, for a minute or
//! `SLOTWHEEL_SIMULATION_MINUTES`. It is a separate program, so that no other test runs beside it, and needs a release
//! build, because a debug build adds several ms to each task: `cargo test --release --test simulation`.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../it/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::queue_simulation::{Draw, Replay, Work, poisson};
use support::{Fixture, Http, report_with};
use tokio::time::{Instant, sleep_until};

const CONCURRENCY: usize = 6;
/// The longest window of `/stats`: a longer run is read in several.
const WINDOW: Duration = Duration::from_secs(900);
/// Minimum length for comparing waits with the prediction. In a minute, the mean wait of a perfect server is off by a
/// fifth in one run of four.
const LONG: Duration = Duration::from_secs(3600);
const BUCKET: Duration = Duration::from_secs(5);
/// Overhead of claim and completion per task, in addition to 2 %.
const OVERHEAD_MS: f64 = 3.0;

/// The timer fires at the next whole millisecond: this is its mean delay.
const TIMER: Duration = Duration::from_micros(500);

/// Returns the start of the next bucket of Redis' counters; Redis uses this machine's clock.
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

/// Works until `end`; each completion also claims the next task.
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

/// Figures of `/stats` over windows of equal length, combined.
#[derive(Default, Debug)]
struct Measured {
    m: f64,
    s: f64,
    utilisation: f64,
    /// The reciprocal of c.
    ms_a_task: f64,
    wait_ms: f64,
    predicted_wait_ms: f64,
}

impl Measured {
    fn of(windows: &[Value]) -> Self {
        let mean = |of: &dyn Fn(&Value) -> f64| windows.iter().map(of).sum::<f64>() / windows.len() as f64;
        let started = mean(&|stats| figure(stats, "claimed"));
        let of_tasks = |of: &dyn Fn(&Value) -> f64| mean(&|stats| of(stats) * figure(stats, "claimed")) / started;
        Measured {
            m: mean(&|stats| figure(stats, "m")),
            s: mean(&|stats| figure(stats, "s")),
            utilisation: mean(&|stats| figure(stats, "utilisation")),
            ms_a_task: of_tasks(&|stats| 1000.0 / figure(stats, "c")),
            wait_ms: of_tasks(&|stats| figure(stats, "wait_mean_ms")),
            predicted_wait_ms: of_tasks(&|stats| figure(stats, "predicted_wait_mean_ms")),
        }
    }
}

fn near(name: &str, measured: f64, wanted: f64, more: f64) {
    let (low, high) = (wanted * 0.98, wanted * 1.02 + more);
    assert!((low..=high).contains(&measured), "{name}: {measured} is not in {low}..{high}");
}

#[tokio::test(flavor = "multi_thread")]
async fn measured_waits_are_those_of_a_replay_of_the_same_draws() {
    let minutes = std::env::var("SLOTWHEEL_SIMULATION_MINUTES").map_or(1, |minutes| minutes.parse().expect("minutes"));
    let length = Duration::from_secs(60 * minutes);
    let window = length.min(WINDOW);
    assert!((minutes * 60).is_multiple_of(window.as_secs()), "whole windows");
    let fixture = Fixture::with(|written| {
        written.shards = Some(1);
        // Longer than the client keeps a connection, so no request meets its close.
        written.limits.idle_timeout_ms = Some(600_000);
    })
    .await;
    let work_of = Work::Exponential(Duration::from_millis(100));
    let draws: Arc<[Draw]> = poisson(7, 40.0, work_of).take_while(|draw| draw.comes < length).collect();
    let start = next_bucket();
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..CONCURRENCY {
        workers.spawn(work(fixture.http.clone(), format!("w{number}"), draws.clone(), start + length));
    }
    let submitter = tokio::spawn(submit_all(fixture.http.clone(), draws.clone(), start));
    let mut windows = Vec::new();
    let mut end = start;
    while end + window <= start + length {
        end += window;
        // A window can be read one second after its end.
        sleep_until(end + Duration::from_millis(1020)).await;
        let path = format!("/stats?queue=q&window_ms={}", window.as_millis());
        windows.push(fixture.http.get(&path).await.expect(200));
    }
    submitter.await.expect("all submitted");
    workers.join_all().await;

    let (measured, replay) = (Measured::of(&windows), Replay::of(&draws, CONCURRENCY, length));
    println!(
        "windows: {windows:#?}\nmeasured: {measured:#?}\nreplay: m {} c {} utilisation {} wait {} ms, p95 {} ms",
        replay.m,
        replay.c,
        replay.utilisation,
        replay.mean_wait_ms(),
        replay.quantile_ms(0.95)
    );
    assert!(windows.iter().all(|stats| stats["n"] == CONCURRENCY as u64));
    near("m", measured.m, replay.m, 0.0);
    near("ms a task", measured.ms_a_task, 1000.0 / replay.c, OVERHEAD_MS);
    let share = OVERHEAD_MS * replay.c / 1000.0;
    near("utilisation", measured.utilisation, replay.utilisation, replay.utilisation * share);
    let s = replay.m * CONCURRENCY as f64 / replay.c;
    near("s", measured.s, s, s * share);
    let (waited, wanted) = (measured.wait_ms, replay.mean_wait_ms());
    assert!((waited - wanted).abs() <= 3.0 + 0.1 * wanted, "waited {waited} ms, and {wanted} in the replay");
    assert!(windows.iter().all(|stats| figure(stats, "wait_p50_ms") <= figure(stats, "wait_p95_ms")));
    if length >= LONG {
        let predicted = measured.predicted_wait_ms;
        assert!((waited - predicted).abs() <= 0.2 * predicted, "waited {waited} ms, and {predicted} predicted");
    }
    fixture.end().await;
}
