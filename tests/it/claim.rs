//! A claim gets ready tasks, in order, as soon as there are any.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Fixture, text};

#[tokio::test]
async fn claim_leases_the_task() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();

    let claimed = fixture.claim_one("q").await;

    assert_eq!((&claimed["id"], &claimed["attempt"], &claimed["payload"]), (&id, &json!(1), &json!(1)));
    assert_eq!(text(&claimed["lease"]).len(), 22);
    let task = fixture.task(&id).await;
    assert_eq!((&task["state"], &task["worker"]), (&json!("leased"), &json!("w")));
    assert_eq!((&task["acquired"], &task["attempts"]), (&json!(1), &json!(0)));
    assert_eq!(task["lease_until"], claimed["lease_until"]);
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn worker_without_a_name_is_named_by_its_address() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.claim_now("q", 1).await;
    assert_eq!(fixture.task(&id).await["worker"], "anonymous@127.0.0.1");
    fixture.end().await;
}

#[tokio::test]
async fn waiting_claim_gets_a_task_submitted_later() {
    let fixture = Fixture::start().await;
    let http = fixture.http.clone();
    let waiting = tokio::spawn(async move { http.post("/claim", &json!({"queues": ["q"], "wait_ms": 20_000})).await });

    let id = fixture.submit("q", json!(1)).await["id"].clone();

    assert_eq!(waiting.await.unwrap().expect(200)["tasks"][0]["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn claim_without_a_task_returns_empty_when_its_wait_ends() {
    let fixture = Fixture::start().await;
    for wait_ms in [0, 30] {
        let answer = fixture.http.post("/claim", &json!({"queues": ["nobody"], "wait_ms": wait_ms})).await;
        assert_eq!(answer.expect(200), json!({"tasks": []}));
    }
    fixture.end().await;
}

#[tokio::test]
async fn prefer_wait_header_is_applied_and_acknowledged() {
    let fixture = Fixture::start().await;
    fixture.submit("default", json!(1)).await;
    let answer = fixture.http.post_with("/claim", &[("prefer", "wait=5")], b"{}").await;
    assert_eq!(answer.header("preference-applied"), Some("wait=5"));
    assert_eq!(answer.expect(200)["tasks"].as_array().unwrap().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn waiting_claims_for_one_task_are_served_once() {
    let fixture = Fixture::start().await;
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let http = fixture.http.clone();
            tokio::spawn(async move { http.post("/claim", &json!({"queues": ["q"], "wait_ms": 3000})).await })
        })
        .collect();

    let id = fixture.submit("q", json!(1)).await["id"].clone();

    let answers = join_all(waiting).await;
    let got: Vec<Value> = answers
        .into_iter()
        .flat_map(|answer| answer.unwrap().expect(200)["tasks"].as_array().unwrap().clone())
        .collect();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["id"], id);
    assert_eq!(fixture.task(&id).await["acquired"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn tasks_of_a_queue_are_claimed_in_order_of_submission() {
    // With several shards, the order holds within each.
    let fixture = Fixture::with_shards(1).await;
    let tasks: Vec<Value> = (0..1000).map(|n| json!({"queue": "q", "payload": n})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);

    let mut got = Vec::new();
    while got.len() < 1000 {
        let tasks = fixture.claim_now("q", 100).await;
        assert!(!tasks.is_empty());
        got.extend(tasks.iter().map(|task| task["payload"].as_i64().unwrap()));
    }

    assert_eq!(got, (0..1000).collect::<Vec<i64>>());
    fixture.end().await;
}

#[tokio::test]
async fn higher_priority_overtakes_also_within_a_slot() {
    let fixture = Fixture::start().await;
    for priority in [1, 9, 5, 9] {
        let body = json!({"queue": "q", "key": "k", "priority": priority, "payload": priority});
        fixture.submit_with(body).await;
    }
    let got: Vec<Value> = fixture.claim_now("q", 10).await.iter().map(|task| task["payload"].clone()).collect();
    assert_eq!(got, [json!(9), json!(9), json!(5), json!(1)]);
    fixture.end().await;
}

#[tokio::test]
async fn best_priority_is_claimed_across_shards() {
    let fixture = Fixture::with_shards(16).await;
    for (key, priority) in [("a", 2), ("b", 9), ("c", 5), ("d", 7)] {
        fixture.submit_with(json!({"queue": "q", "key": key, "priority": priority, "payload": priority})).await;
    }
    // The wake-up of a waiter names the shard with ready tasks; the poll names their priority.
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(fixture.claim_one("q").await["payload"].as_i64().unwrap());
    }
    got.sort_unstable();
    assert_eq!(got, [2, 5, 7, 9]);
    fixture.end().await;
}

#[tokio::test]
async fn queues_are_preferred_in_the_order_of_the_claim() {
    let fixture = Fixture::start().await;
    for queue in ["low", "high", "low", "high"] {
        fixture.submit_with(json!({"queue": queue, "key": "k", "payload": queue})).await;
    }
    let body = json!({"queues": ["high", "low"], "max": 3});
    let tasks = fixture.http.post("/claim", &body).await.expect(200)["tasks"].clone();
    let got: Vec<&str> = tasks.as_array().unwrap().iter().map(|task| text(&task["payload"])).collect();
    assert_eq!(got, ["high", "high", "low"]);
    fixture.end().await;
}

#[tokio::test]
async fn claim_with_a_task_does_not_wait_to_fill_up() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let body = json!({"queues": ["q"], "max": 100, "wait_ms": 60_000});
    let claim = fixture.http.post("/claim", &body);
    let answer = tokio::time::timeout(Duration::from_secs(10), claim).await.expect("an immediate response");
    assert_eq!(answer.expect(200)["tasks"].as_array().unwrap().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn first_task_is_the_best_of_all_shards() {
    let fixture = Fixture::with_shards(16).await;
    for round in 0..20 {
        // Keys spread the tasks over the shards.
        for number in 0..8 {
            let key = format!("{round}-{number}");
            fixture.submit_with(json!({"queue": "low", "payload": 0, "key": key, "priority": 9})).await;
            fixture.submit_with(json!({"queue": "first", "payload": 0, "key": format!("f{key}"), "priority": 1})).await;
        }
        let urgent = json!({"queue": "first", "payload": 1, "key": format!("u{round}"), "priority": 9});
        let urgent = fixture.submit_with(urgent).await["id"].clone();
        let claim = json!({"queues": ["first", "low"], "max": 1, "wait_ms": if round % 2 == 0 { 0 } else { 10_000 }});
        let claimed = fixture.http.post("/claim", &claim).await.expect(200)["tasks"][0].clone();
        assert_eq!(claimed["id"], urgent, "round {round}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn claim_takes_no_task_of_a_lower_queue_before_the_higher_is_empty() {
    let fixture = Fixture::with_shards(16).await;
    for number in 0..40 {
        let key = number.to_string();
        fixture.submit_with(json!({"queue": "low", "payload": 0, "key": key})).await;
        fixture.submit_with(json!({"queue": "first", "payload": 0, "key": key})).await;
    }
    let mut queues = Vec::new();
    while queues.len() < 80 {
        let claim = json!({"queues": ["first", "low"], "max": 7, "wait_ms": 10_000});
        let claimed = fixture.http.post("/claim", &claim).await.expect(200);
        queues.extend(claimed["tasks"].as_array().unwrap().iter().map(|task| text(&task["queue"]).to_owned()));
    }
    let (first, low) = queues.split_at(40);
    assert!(first.iter().all(|queue| queue == "first") && low.iter().all(|queue| queue == "low"), "{queues:?}");
    fixture.end().await;
}

#[tokio::test]
async fn repeated_claim_id_gets_the_same_tasks() {
    let fixture = Fixture::start().await;
    for n in 0..6 {
        fixture.submit_with(json!({"queue": "q", "key": format!("k{n}"), "payload": n})).await;
    }
    let body = json!({"queues": ["q"], "max": 3, "claim_id": "once"});
    let mut first = fixture.http.post("/claim", &body).await.expect(200)["tasks"].as_array().unwrap().clone();
    let mut again = fixture.http.post("/claim", &body).await.expect(200)["tasks"].as_array().unwrap().clone();
    let other = fixture.claim_now("q", 10).await;

    first.sort_by_key(|task| text(&task["id"]).to_owned());
    again.sort_by_key(|task| text(&task["id"]).to_owned());
    assert!(!first.is_empty());
    assert_eq!(first, again);
    assert!(other.iter().all(|task| !first.iter().any(|own| own["id"] == task["id"])));
    for task in &first {
        fixture.http.post("/complete", &crate::support::report(task)).await.expect(200);
    }
    let after = fixture.http.post("/claim", &body).await.expect(200)["tasks"].as_array().unwrap().clone();
    assert!(after.iter().all(|task| !first.iter().any(|own| own["id"] == task["id"])));
    fixture.end().await;
}

#[tokio::test]
async fn waiter_with_sixteen_full_shards_moves_one_task() {
    let fixture = Fixture::with_shards(16).await;
    let tasks: Vec<Value> = (0..320).map(|n| json!({"queue": "q", "key": format!("k{n}")})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);

    fixture.claim_one("q").await;

    let mut acquired = 0;
    for state in ["ready", "leased"] {
        let page = fixture.http.get(&format!("/tasks?queue=q&state={state}&limit=1000")).await.expect(200);
        acquired +=
            page["tasks"].as_array().unwrap().iter().map(|task| task["acquired"].as_i64().unwrap()).sum::<i64>();
    }
    assert_eq!(acquired, 1);
    fixture.end().await;
}

#[tokio::test]
async fn claim_delivers_at_most_2_mib_and_at_least_one_task() {
    let fixture = Fixture::with_shards(1).await;
    let large = "x".repeat(250 * 1024);
    for _ in 0..12 {
        fixture.submit("q", json!(large)).await;
    }
    let first = fixture.claim_now("q", 100).await.len();
    assert!((1..=8).contains(&first), "{first} tasks of 250 KiB");
    let mut all = first;
    while all < 12 {
        let more = fixture.claim_now("q", 100).await.len();
        assert!(more > 0);
        all += more;
    }
    fixture.end().await;
}

#[tokio::test]
async fn thousand_submits_into_a_queue_publish_one_wakeup() {
    let fixture = Fixture::with_shards(1).await;
    if crate::support::redis::Flavour::of_this_run() == crate::support::redis::Flavour::Cluster {
        // The statistics of a Cluster count the messages of its bus. The scripts are the same.
        return fixture.end().await;
    }
    let before = published(&fixture).await;
    for _ in 0..10 {
        let tasks: Vec<Value> = (0..100).map(|n| json!({"queue": "q", "payload": n})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    assert_eq!(published(&fixture).await - before, 1);
    fixture.end().await;
}

/// Calls of SPUBLISH so far.
async fn published(fixture: &Fixture) -> u64 {
    use deadpool_redis::redis::cmd;
    let statistics: String = fixture.redis.ask(cmd("INFO").arg("commandstats")).await;
    let line = statistics.lines().find(|line| line.starts_with("cmdstat_spublish:")).unwrap_or_default();
    let calls = line.split(['=', ',']).nth(1).unwrap_or("0");
    calls.parse().unwrap()
}

#[tokio::test]
async fn repeated_claim_takes_over_the_wait_of_the_first() {
    let fixture = Fixture::start().await;
    let claim = || {
        let http = fixture.http.clone();
        let body = json!({"queues": ["q"], "claim_id": "mine", "wait_ms": 20_000});
        tokio::spawn(async move { http.post("/claim", &body).await.expect(200)["tasks"].clone() })
    };
    let first = claim();
    // This claim is answered after the first one is registered as a waiter.
    fixture.claim_now("q", 1).await;
    let second = claim();
    assert_eq!(first.await.unwrap(), json!([]));
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    assert_eq!(second.await.unwrap()[0]["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn claim_id_counts_for_its_worker_and_queues() {
    let fixture = Fixture::with_shards(1).await;
    for queue in ["q", "q", "q", "r"] {
        fixture.submit_with(json!({"queue": queue})).await;
    }
    let claim = |worker: &str, queues: &[&str]| {
        let body = json!({"worker": worker, "queues": queues, "claim_id": "1"});
        let http = fixture.http.clone();
        async move { http.post("/claim", &body).await }
    };
    let id = |answer: crate::support::Answer| answer.expect(200)["tasks"][0]["id"].clone();
    let first = id(claim("ann", &["q", "s"]).await);
    assert_eq!(id(claim("ann", &["s", "q"]).await), first);
    assert_ne!(id(claim("bob", &["q", "s"]).await), first);
    let (code, pointer) = claim("ann", &["r"]).await.problem(422);
    assert_eq!((code.as_str(), pointer.as_deref()), ("claim_id_mismatch", Some("/claim_id")));
    assert_eq!(fixture.counts("r").await["ready"], 1);

    let next = fixture.claim_one("q").await;
    let body = json!({"worker": "ann", "queues": ["r"], "claim_id": "1"});
    let body = crate::support::report_with(&next, json!({"claim": body}));
    let problem = fixture.http.post("/complete", &body).await.expect(200)["claim_problem"].clone();
    assert_eq!(problem["code"], "claim_id_mismatch");
    assert_eq!(problem["errors"][0]["pointer"], "/claim/claim_id");

    fixture.advance(60_001);
    assert_eq!(claim("ann", &["r"]).await.expect(200)["tasks"][0]["queue"], "r");
    fixture.end().await;
}
