//! The figures of docs/figures.md, measured on this machine: `make figures`.
//!
//! Ratios compare two stores measured alternately in one run: one with a thousand ready tasks, one with a million.
//! Times are those of Redis, from `INFO commandstats`, so that they exclude the client and other load.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod faults;
mod mass;
mod server;
mod slow;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::time::Instant;

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use serde_json::{Value, json};
use slotwheel::store::ops::expire_tasks::expire_tasks;
use slotwheel::store::{Caller, Shard};

use support::{Fixture, report, text};

const SMALL: usize = 1_000;
const LARGE: usize = 1_000_000;
const ROUNDS: usize = 12;
const PAYLOAD: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

fn main() {
    // `make figures ONLY=keyed` selects one group.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_selected = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if is_selected("slow") {
            slow::measure().await;
        }
        if is_selected("waiting") {
            measure_delivery().await;
            measure_delay().await;
        }
        if is_selected("mass") {
            mass::measure().await;
        }
        if is_selected("faults") {
            faults::measure().await;
        }
        for (name, keyed) in [("plain", false), ("keyed", true)] {
            if is_selected(name) {
                compare_sizes(keyed).await;
            }
        }
    });
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures the time from a submit to its delivery to one of 16 waiting claims.
async fn measure_delivery() {
    let fixture = Fixture::start().await;
    let mut latencies = Vec::new();
    for round in 0..50 {
        let queue = format!("q{round}");
        let waiting: Vec<_> = (0..16)
            .map(|_| {
                let (http, body) = (fixture.http.clone(), json!({"queues": [queue], "wait_ms": 1000}));
                tokio::spawn(async move {
                    let answer = http.post("/claim", &body).await.expect(200);
                    (Instant::now(), answer["tasks"].as_array().unwrap().len())
                })
            })
            .collect();
        // All 16 wait once a later claim has been answered.
        fixture.claim_now(&queue, 1).await;
        fixture.claim_now(&queue, 1).await;
        let sent = Instant::now();
        fixture.submit(&queue, json!(1)).await;
        let answers: Vec<(Instant, usize)> = join_all(waiting).await.into_iter().map(Result::unwrap).collect();
        let served: Vec<_> = answers.iter().filter(|(_, tasks)| *tasks == 1).collect();
        assert_eq!(served.len(), 1, "one gets it");
        latencies.push(served[0].0.duration_since(sent).as_secs_f64() * 1000.0);
    }
    let middle = median(&mut latencies);
    println!(
        "16 waiting claims, one submit: one gets it after {middle:.1} ms (median of 50), {:.1} ms at most",
        latencies[49]
    );
    fixture.end().await;
}

/// Measures the time from submit to claim of a task with a delay of 500 ms, by Redis' clock.
async fn measure_delay() {
    let fixture = Fixture::with(|written| written.poll_interval_ms = Some(1500)).await;
    let mut delays = Vec::new();
    for round in 0..20 {
        delays.push(500.0 + lateness_ms(&fixture, &format!("q{round}"), 500).await);
    }
    let middle = median(&mut delays);
    println!(
        "a delay of 500 ms: claimed after {middle:.0} ms (median of 20), {:.0} to {:.0} ms",
        delays[0], delays[19]
    );
    fixture.end().await;
}

/// Returns how much later than its time a delay ends in a lease, by Redis' clock.
async fn lateness_ms(fixture: &Fixture, queue: &str, delay_ms: u64) -> f64 {
    let task = fixture.submit_with(json!({"queue": queue, "delay_ms": delay_ms})).await;
    let claimed = fixture.claim_one(queue).await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let ms = |time: &Value| text(time).parse::<jiff::Timestamp>().unwrap().as_millisecond();
    (ms(&claimed["lease_until"]) - 60_000 - ms(&task["run_at"])) as f64
}

struct FilledStore {
    fixture: Fixture,
    shard: Shard,
    keyed: bool,
    count: usize,
}

impl FilledStore {
    async fn fill(count: usize, keyed: bool) -> Self {
        // Without upkeep: its jobs are called where they are measured.
        let mut fixture = Fixture::with(|written| {
            written.shards = Some(1);
            written.poll_interval_ms = Some(60_000);
        })
        .await;
        fixture.http.check = |_, _, _| {};
        let shard = fixture.store().await.first_shard().clone();
        let store = FilledStore { fixture, shard, keyed, count };
        let empty = store.memory().await;
        let mut remaining = count;
        while remaining > 0 {
            let size = remaining.min(1000);
            let tasks: Vec<Value> = (0..size).map(|_| store.new_task()).collect();
            store.fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
            remaining -= size;
        }
        let bytes_per_task = (store.memory().await - empty) as f64 / count as f64;
        let payload = PAYLOAD.len() + 2;
        println!(
            "{}: {bytes_per_task:.0} bytes of Redis a task, {:.0} beyond its payload",
            store.name(),
            bytes_per_task - payload as f64
        );
        store
    }

    fn name(&self) -> String {
        format!("{} {} ready tasks", self.count, if self.keyed { "keyed" } else { "plain" })
    }

    fn new_task(&self) -> Value {
        match self.keyed {
            true => json!({"queue": "q", "payload": PAYLOAD, "key": rand::random::<u64>().to_string()}),
            false => json!({"queue": "q", "payload": PAYLOAD}),
        }
    }

    async fn memory(&self) -> i64 {
        let info: String = self.fixture.redis.ask(cmd("INFO").arg("memory")).await;
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    }

    /// Returns the total time per command, µs. Commands called by a script count for both.
    async fn command_times(&self) -> HashMap<String, f64> {
        let info: String = self.fixture.redis.ask(cmd("INFO").arg("commandstats")).await;
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let usec = rest.split(',').find_map(|part| part.strip_prefix("usec="))?;
            Some((name.to_owned(), usec.parse().ok()?))
        };
        info.lines().filter_map(line).collect()
    }

    /// Returns the time of `work` in `commands`, µs.
    async fn measure_cost(&self, commands: &[&str], work: impl AsyncFnOnce()) -> f64 {
        let before = self.command_times().await;
        work().await;
        let after = self.command_times().await;
        let total = |times: &HashMap<String, f64>| commands.iter().filter_map(|name| times.get(*name)).sum::<f64>();
        total(&after) - total(&before)
    }

    /// Measures cancel and expiry of tasks from the middle, reading a task, a page of a list, and the last two as seen
    /// by the client, in that order.
    async fn measure_operations(&self) -> [f64; 6] {
        let page = "/tasks?queue=q&state=ready&limit=100";
        // A cursor at about the middle: by seq within one slot, by slot number among many.
        let first = self.fixture.http.get("/tasks?queue=q&state=ready&limit=1").await.expect(200);
        let place: Vec<i64> = text(&first["next_cursor"]).split('-').map(|part| part.parse().unwrap()).collect();
        let middle = match self.keyed {
            true => format!("{page}&cursor=4-8192-0"),
            false => format!("{page}&cursor=4-{}-{}", place[1], place[2] + self.count as i64 / 2),
        };
        let victims = self.fixture.http.get(&middle).await.expect(200)["tasks"].as_array().unwrap().clone();
        assert!(victims.len() >= 50, "there is a middle");
        let begun = Instant::now();
        let get = self.measure_cost(&["hgetall"], async || {
            for task in &victims {
                self.fixture.task(&task["id"]).await;
            }
        });
        let get = get.await / victims.len() as f64;
        let get_request = begun.elapsed().as_micros() as f64 / victims.len() as f64;
        let begun = Instant::now();
        let list = self.measure_cost(&["zrangebyscore", "hgetall"], async || {
            drop(self.fixture.http.get(&middle).await.expect(200))
        });
        let list = list.await;
        let list_request = begun.elapsed().as_micros() as f64;
        let cancel = self.measure_cost(&["evalsha"], async || {
            for task in &victims {
                self.fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&task["id"]))).await.expect(200);
            }
        });
        let cancel = cancel.await / victims.len() as f64;
        let tasks: Vec<Value> = victims.iter().map(|_| self.new_task()).collect();
        self.fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        let mut tasks: Vec<Value> = (0..100).map(|_| self.new_task()).collect();
        for task in &mut tasks {
            task["expires_in_ms"] = json!(1);
        }
        self.fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        self.fixture.advance(10);
        let mut caller = Caller::new();
        let expiry = self.measure_cost(&["evalsha", "eval"], async || {
            assert_eq!(expire_tasks(&self.shard, &mut caller, 500).await.unwrap(), 100)
        });
        [cancel, expiry.await / 100.0, get, list, get_request, list_request]
    }
}

/// Compares a million ready tasks with a thousand.
async fn compare_sizes(keyed: bool) {
    let (small, large) = (FilledStore::fill(SMALL, keyed).await, FilledStore::fill(LARGE, keyed).await);
    let names = [
        "cancel from the middle",
        "expiry",
        "get",
        "page of the list",
        "get, the whole request",
        "page, the whole request",
    ];
    let mut rows: Vec<[Vec<f64>; 2]> = names.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for _ in 0..ROUNDS {
        for (index, store) in [&small, &large].into_iter().enumerate() {
            for (row, value) in rows.iter_mut().zip(store.measure_operations().await) {
                row[index].push(value);
            }
        }
    }
    println!(
        "\n| {} | µs at {SMALL} | µs at {LARGE} | ratio |\n|---|---|---|---|",
        if keyed { "keyed" } else { "plain" }
    );
    for (name, [few, many]) in names.iter().zip(&mut rows) {
        let mut ratios: Vec<f64> = few.iter().zip(many.iter()).map(|(few, many)| many / few).collect();
        println!("| {name} | {:.1} | {:.1} | {:.2} |", median(few), median(many), median(&mut ratios));
    }
    println!();
    small.fixture.end().await;
    // Ending the fixture also audits the million tasks.
    large.fixture.end().await;
}
