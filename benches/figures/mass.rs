//! How late a delay of one queue ends while a million tasks of another are due, or expire, at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Fixture;
use crate::{lateness_ms, median};

const MASS: usize = 1_000_000;
/// How far ahead the mass is due: the submits take less.
const AHEAD: Duration = Duration::from_secs(120);

/// Measures two servers, with a mass that is due and one that expires.
pub async fn measure() {
    measure_mass("due", "delay_ms", "scheduled").await;
    measure_mass("expiring", "expires_in_ms", "ready").await;
}

async fn measure_mass(name: &str, option: &str, state: &str) {
    let mut fixture = Fixture::with(|written| written.poll_interval_ms = Some(1500)).await;
    fixture.another_server().await;
    fixture.http.check = |_, _, _| {};
    let started = Instant::now();
    for _ in 0..MASS / 1000 {
        let ahead_ms = AHEAD.checked_sub(started.elapsed()).expect("the submits take less").as_millis() as u64;
        let tasks: Vec<Value> =
            (0..1000).map(|key| json!({"queue": "mass", "key": key.to_string(), option: ahead_ms})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        alone.push(lateness_ms(&fixture, "other", 100).await);
    }
    tokio::time::sleep(AHEAD.saturating_sub(started.elapsed())).await;
    while fixture.counts("mass").await[state] != 0 {
        beside.push(lateness_ms(&fixture, "other", 100).await);
    }
    assert!(beside.len() > 50, "the mass takes longer than a few delays: {}", beside.len());
    for (name, late) in [("alone", &mut alone), (name, &mut beside)] {
        let middle = median(late);
        println!(
            "{name} (mass of {MASS}, two servers): {} delays of 100 ms in another queue ended {middle:.0} ms late (median), \
             {:.0} ms at most",
            late.len(),
            late[late.len() - 1]
        );
    }
    fixture.end().await;
}
