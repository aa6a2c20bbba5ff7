//! A submit hands a task straight to a waiting claim: without a claim call, in order, and without losing the task.

mod scripts;

use std::time::Duration;

use deadpool_redis::redis::{Script, cmd};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::empty_queues::{RARE_POLLS, Reads, is_subscribed, learn_empty, scripts, start};
use crate::metrics::{metrics, metrics_of};
use crate::support::event_stream::Stream;
use crate::support::proxy::Proxy;
use crate::support::raw_client::{Raw, post};
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, Http, report};

fn claim_of(worker: &str) -> Value {
    json!({"queues": ["q"], "wait_ms": 30_000, "worker": worker})
}

/// Sends a claim that waits. Returns its tasks once it has ended.
pub fn wait_for_tasks(http: &Http, body: Value) -> JoinHandle<Vec<Value>> {
    let http = http.clone();
    tokio::spawn(
        async move { http.post("/claim", &body).await.expect(200)["tasks"].as_array().expect("tasks").clone() },
    )
}

/// Returns once this number of claims wait at the server.
pub async fn are_waiting(fixture: &Fixture, http: &Http, count: usize) {
    let wanted = count as f64;
    let check = || async { (metrics_of(http).await.count("slotwheel_waiting_requests", &[]) == wanted).then_some(()) };
    fixture.until(check).await;
    hears_announcements(fixture, http, 1).await;
}

/// Returns once the server has heard this many announcements of waiting claims.
async fn hears_announcements(fixture: &Fixture, http: &Http, count: usize) {
    let (wanted, kind) = (count as f64, [("kind", "waiting")]);
    let check = || async { (metrics_of(http).await.count("slotwheel_wakeups_total", &kind) >= wanted).then_some(()) };
    fixture.until(check).await;
}

/// Starts a claim that rests: the server knows that its queue is empty.
async fn rest(fixture: &Fixture, reads: &Reads, body: Value) -> JoinHandle<Vec<Value>> {
    learn_empty(fixture, reads, "q").await;
    let waiting = wait_for_tasks(&fixture.http, body);
    are_waiting(fixture, &fixture.http, 1).await;
    waiting
}

async fn count(fixture: &Fixture, name: &str) -> f64 {
    metrics(fixture).await.count(name, &[])
}

/// Lets the server act on all that it has received.
async fn settle(fixture: &Fixture) {
    for _ in 0..5 {
        fixture.http.get("/livez").await.expect(200);
    }
}

/// Submits a task, and returns once the server has sent the call to Redis, which is frozen.
async fn submit_to_frozen_redis(fixture: &Fixture) -> JoinHandle<crate::support::Answer> {
    let http = fixture.http.clone();
    let submitting = tokio::spawn(async move { http.post("/tasks", &json!({"queue": "q"})).await });
    settle(fixture).await;
    submitting
}

/// Returns the calls of scripts for each task that is submitted while a claim waits, and completed.
async fn calls_of_a_life(shards: u16) -> f64 {
    const LIVES: usize = 50;
    let (fixture, reads) = start(shards).await;
    learn_empty(&fixture, &reads, "q").await;
    let waiting: Vec<_> = (0..LIVES).map(|_| wait_for_tasks(&fixture.http, claim_of("w"))).collect();
    are_waiting(&fixture, &fixture.http, LIVES).await;
    let before = scripts(&fixture).await;
    for number in 0..LIVES {
        fixture.submit("q", json!(number)).await;
    }
    for claim in waiting {
        let tasks = claim.await.unwrap();
        assert_eq!((tasks.len(), &tasks[0]["attempt"]), (1, &json!(1)));
        fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    }
    let calls = scripts(&fixture).await - before;
    assert_eq!(count(&fixture, "slotwheel_hand_offs_total").await, LIVES as f64);
    fixture.end().await;
    calls / LIVES as f64
}

#[tokio::test]
async fn life_with_a_waiting_worker_takes_two_scripts_with_one_shard() {
    assert_eq!(calls_of_a_life(1).await, 2.0);
}

#[tokio::test]
async fn life_with_a_waiting_worker_takes_two_scripts_with_16_shards() {
    assert_eq!(calls_of_a_life(16).await, 2.0);
}

#[tokio::test]
async fn life_with_a_waiting_worker_takes_two_scripts_with_64_shards() {
    assert_eq!(calls_of_a_life(64).await, 2.0);
}

#[tokio::test]
async fn waiting_claims_get_tasks_in_order_of_arrival() {
    let (fixture, reads) = start(1).await;
    learn_empty(&fixture, &reads, "q").await;
    let mut waiting = Vec::new();
    for number in 0..5 {
        waiting.push(wait_for_tasks(&fixture.http, claim_of(&format!("w{number}"))));
        are_waiting(&fixture, &fixture.http, number + 1).await;
    }
    let mut stream = Stream::open(&fixture.http, "?queue=q").await;
    for claim in waiting {
        let task = fixture.submit("q", json!(1)).await;
        assert_eq!(task["state"], "ready", "it is answered like every other");
        let tasks = claim.await.unwrap();
        assert_eq!(tasks[0]["id"], task["id"]);
        stream.expect(&task, json!(null), json!("ready")).await;
        stream.expect(&task, json!("ready"), json!("leased")).await;
    }
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["submitted"], &counts["ready"], &counts["leased"]), (&json!(5), &json!(0), &json!(5)));
    let page = metrics(&fixture).await;
    for transition in ["submitted", "claimed"] {
        assert_eq!(page.count("slotwheel_transitions_total", &[("transition", transition)]), 5.0, "{transition}");
    }
    fixture.advance(6000);
    let stats = fixture.http.get("/stats?queue=q").await.expect(200);
    assert_eq!((&stats["wait_mean_ms"], &stats["wait_p99_ms"]), (&json!(0.0), &json!(0.0)), "{stats}");
    assert_eq!(count(&fixture, "slotwheel_hand_offs_total").await, 5.0);
    fixture.end().await;
}

#[tokio::test]
async fn handed_over_task_is_the_result_of_a_repeated_claim() {
    let (fixture, reads) = start(1).await;
    let body = json!({"queues": ["q"], "wait_ms": 30_000, "worker": "w", "claim_id": "c", "lease_ms": 60_000});
    let waiting = rest(&fixture, &reads, body.clone()).await;
    fixture.submit("q", json!(1)).await;
    let tasks = waiting.await.unwrap();
    let again = fixture.http.post("/claim", &body).await.expect(200);
    assert_eq!(again["tasks"], json!(tasks));
    assert_eq!(count(&fixture, "slotwheel_hand_offs_total").await, 1.0);
    fixture.end().await;
}

/// A server behind a proxy, and the digest of its submit script. `None` on a Cluster, whose client passes any proxy.
pub async fn behind_a_proxy(name: &str) -> Option<(Fixture, Reads, Proxy, String)> {
    if Flavour::of_this_run() == Flavour::Cluster {
        return None;
    }
    let redis = OwnRedis::start().await;
    let proxy = Proxy::start(redis.url.trim_start_matches("unix://").to_owned()).await;
    let start = Fixture::on(redis, proxy.url.clone(), |written| {
        written.shards = Some(1);
        written.poll_interval_ms = Some(RARE_POLLS);
    });
    // Boxed: the future of a server is too large for the stack of a test that calls this.
    let fixture = Box::pin(start).await;
    Box::pin(is_subscribed(&fixture, &fixture.http)).await;
    // Redis knows the script from here on: the proxy knows a call by its digest.
    fixture.submit("other", json!(1)).await;
    let script = slotwheel::store::ops::ALL.iter().find(|script| script.name == name).expect("a script");
    let text = script.full_text(&fixture.config.test_hooks.injected_lua);
    let reads = Reads::start(&fixture).await;
    Some((fixture, reads, proxy, Script::new(&text).get_hash().to_owned()))
}

#[tokio::test]
async fn lost_reply_of_a_submit_hands_the_task_over_once() {
    let Some((fixture, reads, proxy, submit)) = behind_a_proxy("submit").await else { return };
    let waiting = rest(&fixture, &reads, claim_of("w")).await;
    proxy.lose_next(&submit);
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let tasks = waiting.await.unwrap();
    assert_eq!((tasks.len(), &tasks[0]["id"]), (1, &id));
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    let task = fixture.task(&id).await;
    assert_eq!((&task["acquired"], &task["state"]), (&json!(1), &json!("completed")));
    assert_eq!(count(&fixture, "slotwheel_hand_offs_total").await, 1.0);
    fixture.end().await;
}

#[tokio::test]
async fn hand_off_of_an_unanswered_submit_is_released_to_the_next_claim() {
    let Some((fixture, reads, proxy, submit)) = behind_a_proxy("submit").await else { return };
    let waiting = rest(&fixture, &reads, claim_of("w")).await;
    proxy.lose_each(&submit);
    let body = json!({"queue": "q", "max_attempts": 1, "max_acquired": 1});
    assert_eq!(fixture.http.post("/tasks", &body).await.problem(503).0, "unavailable");
    proxy.lose_no_more();
    let tasks = waiting.await.unwrap();
    assert_eq!((tasks.len(), &tasks[0]["attempt"]), (1, &json!(1)));
    // The hand-off that no client got, and the claim.
    assert_eq!(fixture.task(&tasks[0]["id"]).await["acquired"], 2);
    assert_eq!(count(&fixture, "slotwheel_undelivered_leases_released_total").await, 1.0);
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn repeated_submit_hands_no_task_over_whose_lease_has_ended() {
    let Some((fixture, reads, proxy, submit)) = behind_a_proxy("submit").await else { return };
    let mut body = claim_of("w");
    body["lease_ms"] = json!(1000);
    let waiting = rest(&fixture, &reads, body).await;
    proxy.lose_each(&submit);
    let (http, at_once) = (fixture.http.clone(), json!({"kind": "list", "delays_ms": [0], "jitter": "none"}));
    let body = json!({"queue": "q", "backoff": at_once});
    let submitting = tokio::spawn(async move { http.post("/tasks", &body).await });
    let leased = || async {
        let counts = fixture.http.get("/queues/q").await.json()["counts"].clone();
        (counts["leased"] == 1).then_some(())
    };
    fixture.until(leased).await;
    fixture.advance(2000);
    let labels = [("transition", "lease_expired")];
    let expired =
        || async { (metrics(&fixture).await.count("slotwheel_transitions_total", &labels) == 1.0).then_some(()) };
    fixture.until(expired).await;
    proxy.lose_no_more();

    // The lease of the first call has ended: the waiting claim gets another, which lives.
    let tasks = waiting.await.unwrap();
    submitting.await.unwrap();
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn task_handed_to_a_client_that_has_gone_is_ready_again() {
    let (fixture, reads) = start(1).await;
    learn_empty(&fixture, &reads, "q").await;
    let mut client = Raw::connect(fixture.http.address).await;
    client.send(&post("/claim", &claim_of("w").to_string())).await;
    are_waiting(&fixture, &fixture.http, 1).await;
    fixture.redis.freeze();
    let submitting = submit_to_frozen_redis(&fixture).await;
    drop(client);
    settle(&fixture).await;
    fixture.redis.thaw();
    let task = submitting.await.unwrap().expect(201);
    let released =
        || async { (count(&fixture, "slotwheel_undelivered_leases_released_total").await == 1.0).then_some(()) };
    fixture.until(released).await;
    let claimed = fixture.claim_one("q").await;
    assert_eq!((&claimed["id"], &claimed["attempt"]), (&task["id"], &json!(1)));
    fixture.end().await;
}

#[tokio::test]
async fn claim_whose_wait_ends_during_its_submit_gets_the_task() {
    let (fixture, reads) = start(1).await;
    learn_empty(&fixture, &reads, "q").await;
    let body = json!({"queues": ["q"], "wait_ms": 2000, "worker": "w"});
    let mut waiting = wait_for_tasks(&fixture.http, body);
    are_waiting(&fixture, &fixture.http, 1).await;
    fixture.redis.freeze();
    let submitting = submit_to_frozen_redis(&fixture).await;
    assert!(tokio::time::timeout(Duration::from_millis(2100), &mut waiting).await.is_err(), "the call includes it");
    fixture.redis.thaw();
    let task = submitting.await.unwrap().expect(201);
    assert_eq!(waiting.await.unwrap()[0]["id"], task["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn full_redis_takes_no_task_and_no_waiting_claim() {
    let (fixture, reads) = start(1).await;
    let waiting = rest(&fixture, &reads, claim_of("w")).await;
    let set = |bytes: u64| {
        let mut command = cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        command
    };
    fixture.redis.ask::<()>(&set(1)).await;
    assert_eq!(fixture.http.post("/tasks", &json!({"queue": "q"})).await.status, 507);
    assert_eq!(fixture.http.get("/queues/q").await.status, 404);
    fixture.redis.ask::<()>(&set(0)).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let tasks = waiting.await.unwrap();
    assert_eq!((tasks.len(), &tasks[0]["id"]), (1, &id));
    assert_eq!(count(&fixture, "slotwheel_hand_offs_total").await, 1.0);
    fixture.end().await;
}

/// Two servers with as many waiting claims each. All tasks come through the first. Returns how many tasks each claim has
/// waited for, the claims of the first server first.
async fn waits_of_two_servers() -> [Vec<usize>; 2] {
    const WAITERS: usize = 32;
    const TASKS: usize = 20 * WAITERS;
    let (mut fixture, _) = start(1).await;
    let servers = [fixture.http.clone(), fixture.another_server().await];
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let begin = |server: usize| {
        let (http, sender) = (servers[server].clone(), sender.clone());
        let body = json!({"queues": ["q"], "wait_ms": 60_000, "worker": format!("w{server}")});
        tokio::spawn(async move {
            let answer = http.post("/claim", &body).await.expect(200);
            let _ = sender.send((server, answer["tasks"][0].clone()));
        });
    };
    let mut since = [const { std::collections::VecDeque::new() }; 2];
    for server in 0..2 {
        for _ in 0..WAITERS {
            begin(server);
            since[server].push_back(0);
        }
        are_waiting(&fixture, &servers[server], WAITERS).await;
    }
    // Each of both announces its claims once in a second.
    hears_announcements(&fixture, &servers[0], 6).await;
    let mut waits = [Vec::new(), Vec::new()];
    for number in 1..=TASKS {
        let id = servers[0].post("/tasks", &json!({"queue": "q"})).await.expect(201)["id"].clone();
        let (server, task) = receiver.recv().await.expect("a claim");
        assert_eq!(task["id"], id);
        servers[server].post("/complete", &report(&task)).await.expect(200);
        // Claims are served in order of arrival.
        waits[server].push(number - since[server].pop_front().expect("a claim"));
        begin(server);
        since[server].push_back(number);
    }
    for server in 0..2 {
        waits[server].extend(since[server].iter().map(|since| TASKS - since));
    }
    drop(receiver);
    let hand_offs = count(&fixture, "slotwheel_hand_offs_total").await;
    println!("{hand_offs} hand-offs, {} and {} tasks", waits[0].len() - WAITERS, waits[1].len() - WAITERS);
    fixture.end().await;
    waits
}

#[tokio::test]
async fn claims_of_two_servers_wait_about_as_long() {
    let waits = waits_of_two_servers().await;
    let mut all: Vec<usize> = waits.concat();
    all.sort_unstable();
    let median = all[all.len() / 2];
    for waits in &waits {
        let longest = waits.iter().max().expect("a wait");
        assert!(*longest <= 4 * median, "a claim waited for {longest} tasks; the median is {median}");
    }
}
