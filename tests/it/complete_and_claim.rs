//! The call that completes a task also claims the next ones, in order, and without losing a task.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::digest::Digest;
use slotwheel::domain::queue::QueueSettings;
use slotwheel::domain::task::NewTask;
use slotwheel::store::Caller;
use slotwheel::store::ops::LeaseRef;
use slotwheel::store::ops::apply_settings::apply_settings;
use slotwheel::store::ops::claim::{ClaimReply, Front, WaiterRequest};
use slotwheel::store::ops::complete::Completion;
use slotwheel::store::ops::complete_and_claim::{CompleteAndClaimCall, FollowingClaim};
use slotwheel::store::views::claims::{CompletedLease, leased_with};

use crate::empty_queues::start;
use crate::hand_off::behind_a_proxy;
use crate::metrics::metrics;
use crate::support::event_stream::Stream;
use crate::support::proxy::Proxy;
use crate::support::raw_client::{Raw, post};
use crate::support::script_lab::{Lab, document, id, queue, task, want};
use crate::support::{Fixture, report, report_with};

/// Returns how often this script was called.
async fn calls(fixture: &Fixture, script: &str) -> f64 {
    metrics(fixture).await.count("slotwheel_redis_call_duration_seconds_count", &[("call", script)])
}

fn then_claim(task: &Value) -> Value {
    report_with(task, json!({"claim": {"queues": ["q"], "worker": "w", "wait_ms": 1000}}))
}

/// Returns the batch of these completions, and the claim that follows.
fn batch(tasks: &[Value], claim: Value) -> Value {
    json!({"completions": tasks.iter().map(report).collect::<Vec<_>>(), "claim": claim})
}

#[tokio::test]
async fn next_task_is_claimed_by_the_call_of_the_completion() {
    let (fixture, _) = start(1).await;
    for number in 0..4 {
        fixture.submit("q", json!(number)).await;
    }
    let mut held = fixture.claim_one("q").await;
    let claims = calls(&fixture, "claim").await;
    let mut stream = Stream::open(&fixture.http, "?queue=q").await;
    for number in 1..4 {
        let answer = fixture.http.post("/complete", &then_claim(&held)).await.expect(200);
        assert_eq!((&answer["state"], &answer["tasks"][0]["payload"]), (&json!("completed"), &json!(number)));
        stream.expect(&held, json!("leased"), json!("completed")).await;
        held = answer["tasks"][0].clone();
        stream.expect(&held, json!("ready"), json!("leased")).await;
    }
    let now = report_with(&held, json!({"claim": {"queues": ["q"]}}));
    assert_eq!(fixture.http.post("/complete", &now).await.expect(200)["tasks"], json!([]), "the call has checked");
    assert_eq!((calls(&fixture, "complete_and_claim").await, calls(&fixture, "claim").await), (4.0, claims));
    assert_eq!(calls(&fixture, "complete").await, 0.0);
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["ready"], &counts["leased"], &counts["completed"]), (&json!(0), &json!(0), &json!(4)));
    let page = metrics(&fixture).await;
    for (transition, count) in [("claimed", 4.0), ("completed", 4.0)] {
        assert_eq!(page.count("slotwheel_transitions_total", &[("transition", transition)]), count, "{transition}");
    }
    fixture.advance(6000);
    let stats = fixture.http.get("/stats?queue=q").await.expect(200);
    assert_eq!((&stats["claimed"], &stats["completed"]), (&json!(4), &json!(4)), "{stats}");
    assert!(stats["wait_p99_ms"].is_number(), "{stats}");
    fixture.end().await;
}

#[tokio::test]
async fn repeated_completion_gets_the_tasks_that_are_still_leased() {
    let (fixture, _) = start(1).await;
    for number in 0..4 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_one("q").await;
    let body = report_with(&held, json!({"claim": {"queues": ["q"], "max": 2}}));
    let first = fixture.http.post("/complete", &body).await.expect(200);
    assert_eq!(first["tasks"].as_array().unwrap().len(), 2);
    let again = fixture.http.post("/complete", &body).await.expect(200);
    assert_eq!(again, first);

    // The lease of a task that was released and claimed again was not given with the completion.
    fixture.http.post("/release", &report(&first["tasks"][0])).await.expect(200);
    let released = fixture.claim_one("q").await;
    assert_eq!(released["id"], first["tasks"][0]["id"]);
    let again = fixture.http.post("/complete", &body).await.expect(200);
    assert_eq!(again["tasks"], json!([first["tasks"][1]]));

    // None of them is left: the repetition claims, and its repetition gets the same.
    fixture.http.post("/complete", &report(&first["tasks"][1])).await.expect(200);
    let next = fixture.http.post("/complete", &body).await.expect(200);
    assert_eq!(next["tasks"][0]["payload"], 3);
    assert_eq!(fixture.http.post("/complete", &body).await.expect(200), next);
    fixture.end().await;
}

#[tokio::test]
async fn batch_and_one_of_its_completions_claim_different_tasks() {
    let (fixture, _) = start(1).await;
    for number in 0..6 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_now("q", 2).await;
    let claim = json!({"queues": ["q"], "max": 2});
    let first = fixture.http.post("/complete/batch", &batch(&held, claim.clone())).await.expect(200);
    assert_eq!(calls(&fixture, "complete_and_claim").await, 1.0);
    let again = fixture.http.post("/complete/batch", &batch(&held, claim.clone())).await.expect(200);
    assert_eq!(again, first);
    let alone = fixture.http.post("/complete", &report_with(&held[1], json!({"claim": claim}))).await.expect(200);
    let payloads =
        |answer: &Value| answer["tasks"].as_array().unwrap().iter().map(|task| task["payload"].clone()).collect();
    let of_all: [Vec<Value>; 2] = [payloads(&first), payloads(&alone)];
    assert_eq!(of_all, [vec![json!(2), json!(3)], vec![json!(4), json!(5)]]);
    fixture.end().await;
}

#[tokio::test]
async fn batch_whose_last_completion_is_rejected_claims_with_the_others() {
    let (fixture, _) = start(1).await;
    for number in 0..3 {
        fixture.submit("q", json!(number)).await;
    }
    let mut held = fixture.claim_now("q", 2).await;
    held[1]["lease"] = json!("other");
    let body = batch(&held, json!({"queues": ["q"]}));
    let first = fixture.http.post("/complete/batch", &body).await.expect(200);
    assert_eq!((&first["results"][1]["status"], &first["tasks"][0]["payload"]), (&json!(409), &json!(2)));
    assert_eq!(fixture.http.post("/complete/batch", &body).await.expect(200)["tasks"], first["tasks"]);
    fixture.end().await;
}

#[tokio::test]
async fn batch_with_a_repeated_completion_keeps_its_next_task() {
    let (fixture, _) = start(1).await;
    for number in 0..3 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_now("q", 2).await;
    fixture.http.post("/complete", &report(&held[0])).await.expect(200);
    let next = fixture.http.post("/complete/batch", &batch(&held, json!({"queues": ["q"]}))).await.expect(200);
    assert_eq!(calls(&fixture, "complete_and_claim").await, 1.0);
    // A release would have run by now.
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.http.post("/complete", &report(&next["tasks"][0])).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn completion_with_a_claim_id_resumes_the_claim_of_that_id() {
    let (fixture, _) = start(1).await;
    for number in 0..3 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_one("q").await;
    let claim = json!({"queues": ["q"], "worker": "w", "claim_id": "c"});
    let claimed = fixture.http.post("/claim", &claim).await.expect(200);
    let answer = fixture.http.post("/complete", &report_with(&held, json!({"claim": claim}))).await.expect(200);
    assert_eq!(answer["tasks"], claimed["tasks"]);
    fixture.end().await;
}

#[tokio::test]
async fn claim_of_a_client_that_has_gone_is_released_uncounted() {
    let (fixture, _) = start(1).await;
    fixture.submit("q", json!(0)).await;
    let held = fixture.claim_one("q").await;
    let next = fixture.submit("q", json!(1)).await;
    // Without a time of its last touch, the clock is confirmed: else Redis would refuse the call as one of an outage.
    let store = fixture.store().await;
    fixture.redis.ask::<()>(cmd("HDEL").arg(store.first_shard().keys.callers()).arg("clock")).await;
    fixture.redis.freeze();
    let mut client = Raw::connect(fixture.http.address).await;
    client.send(&post("/complete", &then_claim(&held).to_string())).await;
    drop(client);
    fixture.redis.thaw();
    let released = || async {
        let count = metrics(&fixture).await.count("slotwheel_undelivered_leases_released_total", &[]);
        (count == 1.0).then_some(())
    };
    fixture.until(released).await;
    let claimed = fixture.claim_one("q").await;
    assert_eq!((&claimed["id"], &claimed["attempt"]), (&next["id"], &json!(1)));
    fixture.until_state(&held["id"], "completed").await;
    fixture.end().await;
}

/// Starts a server that reaches Redis through a proxy, and completes a task with a claim. Returns also the digest of the script
/// and the next task. `None` on a Cluster.
async fn behind_a_proxy_of_completions() -> Option<(Fixture, Proxy, String, Value)> {
    let (fixture, _, proxy, digest) = behind_a_proxy("complete_and_claim").await?;
    for number in 0..2 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_one("q").await;
    // Redis knows the script from here on.
    let next = fixture.http.post("/complete", &then_claim(&held)).await.expect(200)["tasks"][0].clone();
    Some((fixture, proxy, digest, next))
}

#[tokio::test]
async fn lost_reply_of_a_completion_leases_the_next_task_once() {
    let Some((fixture, proxy, digest, held)) = behind_a_proxy_of_completions().await else { return };
    let id = fixture.submit("q", json!(2)).await["id"].clone();
    proxy.lose_next(&digest);
    let answer = fixture.http.post("/complete", &then_claim(&held)).await.expect(200);
    assert_eq!((&answer["tasks"][0]["id"], &answer["tasks"][0]["attempt"]), (&id, &json!(1)));
    assert_eq!(fixture.task(&id).await["acquired"], 1);
    fixture.http.post("/complete", &report(&answer["tasks"][0])).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn completion_of_unknown_outcome_keeps_its_next_task_for_a_repetition() {
    let Some((fixture, proxy, digest, held)) = behind_a_proxy_of_completions().await else { return };
    let id = fixture.submit("q", json!(2)).await["id"].clone();
    proxy.lose_each(&digest);
    assert_eq!(fixture.http.post("/complete", &then_claim(&held)).await.problem(503).0, "unavailable");
    proxy.lose_no_more();
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    assert_eq!(fixture.task(&held["id"]).await["state"], "completed");
    let answer = fixture.http.post("/complete", &then_claim(&held)).await.expect(200);
    assert_eq!((&answer["tasks"][0]["id"], &answer["tasks"][0]["attempt"]), (&id, &json!(1)));
    // Nothing takes it from the worker.
    fixture.http.post("/complete", &report(&answer["tasks"][0])).await.expect(200);
    assert_eq!(fixture.task(&id).await["acquired"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn full_redis_takes_completions_with_claims() {
    let (fixture, _) = start(1).await;
    for number in 0..3 {
        fixture.submit("q", json!(number)).await;
    }
    let held = fixture.claim_one("q").await;
    let set = |bytes: u64| cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).clone();
    fixture.redis.ask::<()>(&set(1)).await;
    let answer = fixture.http.post("/complete", &then_claim(&held)).await.expect(200);
    assert_eq!(answer["tasks"][0]["payload"], 1);
    // A large result gives way, and not the completion.
    let claim = json!({"claim": {"queues": ["q"]}, "result": "x".repeat(10_000)});
    let answer = fixture.http.post("/complete", &report_with(&answer["tasks"][0], claim)).await.expect(200);
    assert_eq!((&answer["state"], &answer["tasks"][0]["payload"]), (&json!("completed"), &json!(2)));
    assert_eq!(answer["adjusted"][0]["pointer"], "/result");
    fixture.redis.ask::<()>(&set(0)).await;
    fixture.end().await;
}

fn claim_behind(completion: usize, request: WaiterRequest) -> FollowingClaim {
    FollowingClaim { completion, batch: None, request }
}

fn done(lab: &Lab, n: u16) -> Completion {
    Completion { lease_ref: lab.held(n), result: document("1") }
}

/// Submits tasks, and leases the first of them.
async fn lease_first(lab: &Lab, tasks: &[NewTask], count: usize) {
    lab.submit(tasks).await.unwrap();
    assert_eq!(lab.claim(&["q"], &[want(count, None, 1)]).await.unwrap().len(), count);
}

#[tokio::test]
async fn claims_get_tasks_in_their_order_and_only_behind_accepted_completions() {
    let lab = Lab::start().await;
    let other = |n| NewTask { queue: queue("r"), ..task(n) };
    lease_first(&lab, &[task(11), task(12), task(13), task(14), task(15), other(31), other(32)], 3).await;
    let lost = done(&lab, 12);
    lab.complete_and_claim(&["q"], std::slice::from_ref(&lost), &[]).await.unwrap();
    let reversed = WaiterRequest { queues: vec![1, 0], ..want(2, None, 2) };
    let claims = [claim_behind(1, want(9, None, 2)), claim_behind(0, want(1, None, 2)), claim_behind(2, reversed)];
    let completions = [done(&lab, 11), lost, done(&lab, 13)];
    let (_, reply) = lab.complete_and_claim(&["q", "r"], &completions, &claims).await.unwrap();
    let got: Vec<_> = reply.tasks.iter().map(|(claim, task)| (*claim, task.id)).collect();
    assert_eq!(got, [(1, id(14)), (2, id(31)), (2, id(32))], "the completion of the first claim is a repetition");
    assert!(
        !reply.has_more && reply.fronts.contains(&(0, Front::Ready(4))) && reply.fronts.contains(&(1, Front::Empty))
    );
    lab.end().await;
}

#[tokio::test]
async fn completed_task_keeps_the_leases_that_its_claim_got() {
    let lab = Lab::start().await;
    lease_first(&lab, &[task(11), task(12), task(13), task(14)], 2).await;
    let batch = Some(Digest::of(&[b"batch"]));
    let claims =
        [claim_behind(0, want(1, None, 1)), FollowingClaim { completion: 1, batch, request: want(1, None, 1) }];
    let (_, reply) = lab.complete_and_claim(&["q"], &[done(&lab, 11), done(&lab, 12)], &claims).await.unwrap();
    for (completed, batch, expected) in
        [(11, None, Some(0)), (12, batch, Some(1)), (11, batch, None), (12, None, None), (13, None, None)]
    {
        let kept = leased_with(&lab.store, &CompletedLease { task: id(completed), batch }).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|index: usize| reply.tasks[index].1.lease).collect();
        assert_eq!(kept.iter().map(|task| task.lease).collect::<Vec<_>>(), expected, "{completed}, {batch:?}");
    }
    lab.at(61_000);
    assert!(leased_with(&lab.store, &CompletedLease { task: id(11), batch: None }).await.unwrap().is_empty());
    lab.end().await;
}

#[tokio::test]
async fn paused_queue_and_limits_of_a_call_leave_tasks() {
    let lab = Lab::start().await;
    let large = |n| NewTask { payload: document(&format!("\"{}\"", "x".repeat(1_500_000))), ..task(n) };
    lease_first(&lab, &[task(11), task(12), large(13), large(14)], 2).await;
    let pause = QueueSettings { paused: true };
    apply_settings(lab.shard(), &mut Caller::new(), &queue("q"), 1, &pause).await.unwrap();
    let claim = claim_behind(0, want(2, None, 1));
    let (_, reply) = lab.complete_and_claim(&["q"], &[done(&lab, 11)], std::slice::from_ref(&claim)).await.unwrap();
    assert!(reply.tasks.is_empty() && !reply.has_more);
    apply_settings(lab.shard(), &mut Caller::new(), &queue("q"), 2, &QueueSettings::default()).await.unwrap();
    let (_, reply) = lab.complete_and_claim(&["q"], &[done(&lab, 12)], &[claim]).await.unwrap();
    assert_eq!((reply.tasks.len(), reply.has_more), (1, true), "two documents exceed the bytes of a call");
    lab.end().await;
}

#[tokio::test]
async fn call_sent_again_returns_the_same_without_leases_that_have_ended() {
    let lab = Lab::start().await;
    lease_first(&lab, &[task(11), task(12), task(13), task(14), task(15)], 2).await;
    let (mut caller, queues) = (Caller::new(), [queue("q")]);
    let completions = [done(&lab, 11), done(&lab, 12)];
    let claims = [claim_behind(1, want(1, None, 1)), claim_behind(0, want(2, None, 1))];
    let call = CompleteAndClaimCall::new(lab.shard(), &mut caller, &completions, &queues, &claims);
    let (ends, claimed) = call.send().await.unwrap();
    let leases = |claimed: &ClaimReply| -> Vec<_> {
        claimed.tasks.iter().map(|(claim, task)| (*claim, task.id, task.lease, task.lease_until)).collect()
    };
    let (ends_again, again) = call.send().await.unwrap();
    assert_eq!((ends_again, leases(&again)), (ends.clone(), leases(&claimed)));
    assert_eq!(claimed.tasks.len(), 3);

    let first = &claimed.tasks[0].1;
    let first = Completion { lease_ref: LeaseRef { id: first.id, lease: Some(first.lease) }, ..done(&lab, 11) };
    lab.complete_and_claim(&["q"], &[first], &[]).await.unwrap();
    let (ends_again, again) = call.send().await.unwrap();
    assert_eq!((ends_again, leases(&again)), (ends, leases(&claimed)[1..].to_vec()));
    lab.end().await;
}
