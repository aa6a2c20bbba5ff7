//! Upkeep takes turns between queues and jobs: a mass of work of one kind in one queue delays no other work.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::Fixture;

/// Tasks of a mass: upkeep works on them for longer than on a few of another queue.
const MASS: usize = 8000;
/// The longest time by which a delay may be late beside a mass, on a machine that is busy with other tests.
const LATE: Duration = Duration::from_millis(1000);

/// Submits `MASS` tasks like `task` to queue `mass`.
async fn submit_mass(fixture: &Fixture, task: Value) {
    let batch = json!({"tasks": vec![task; 1000]});
    join_all((0..MASS / 1000).map(|_| async { fixture.http.post("/tasks/batch", &batch).await.expect(200) })).await;
}

/// Measures by how much a delay of 100 ms is late, while the mass is being worked on.
async fn lateness(fixture: &Fixture) -> Duration {
    let started = Instant::now();
    fixture.submit_with(json!({"queue": "other", "delay_ms": 100})).await;
    fixture.claim_one("other").await;
    started.elapsed().saturating_sub(Duration::from_millis(100))
}

/// Advances the clock so that the mass is due, and asserts that a delay is on time while upkeep works on it.
async fn assert_delay_on_time(fixture: &Fixture, advance: i64, is_done: impl Fn(&Value) -> i64) {
    fixture.advance(advance);
    fixture.until(|| async { (is_done(&fixture.counts("mass").await) > 0).then_some(()) }).await;
    let late = lateness(fixture).await;
    let done = is_done(&fixture.counts("mass").await);
    println!("{late:?} late; {done} of {MASS} done");
    assert!(done < MASS as i64, "upkeep works on the mass all the time");
    assert!(late < LATE, "{late:?}");
}

#[tokio::test]
async fn mass_of_due_tasks_delays_no_task_of_another_queue() {
    let fixture = Fixture::with_shards(1).await;
    submit_mass(&fixture, json!({"queue": "mass", "delay_ms": 100_000})).await;
    assert_delay_on_time(&fixture, 100_000, |counts| counts["ready"].as_i64().unwrap()).await;
    fixture.end().await;
}

#[tokio::test]
async fn mass_of_expiring_tasks_delays_no_task_of_another_queue() {
    let fixture = Fixture::with_shards(1).await;
    submit_mass(&fixture, json!({"queue": "mass", "expires_in_ms": 100_000})).await;
    assert_delay_on_time(&fixture, 100_000, |counts| counts["expired"].as_i64().unwrap()).await;
    fixture.end().await;
}
