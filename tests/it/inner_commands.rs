//! The number of commands that scripts call in a task's life. A script's fixed cost is mostly that number.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::slot::Shards;
use slotwheel::domain::state::State;
use slotwheel::domain::task::NewTask;
use slotwheel::store::dataset::identity;
use slotwheel::store::ops::claim::ClaimCall;
use slotwheel::store::ops::complete::{Completion, complete};
use slotwheel::store::ops::complete_and_claim::{CompleteAndClaimCall, FollowingClaim};
use slotwheel::store::ops::submit::{Offers, Submitted, submit};
use slotwheel::store::ops::{LeaseEnd, LeaseRef, WhenFull};
use slotwheel::store::redis::config::RedisConfig;
use slotwheel::store::{Caller, Client, Shard, Store};

use crate::support::Fixture;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::script_lab::{document, queue, task, want};

/// Commands of a life with one task a call, which nothing waits for: submit, claim, complete.
const LIFE: [(&str, usize); 3] = [("submit", 7), ("claim", 10), ("complete", 7)];

/// The same for a task whose worker claims it with the completion of the one before.
const CHAINED_LIFE: [(&str, usize); 2] = [("submit", 7), ("complete_and_claim", 14)];

/// Opens a store with one shard as a server does: without any Lua of tests in its scripts.
async fn plain_store() -> (OwnRedis, Store) {
    let redis = OwnRedis::single(&[]).await;
    let config = RedisConfig { url: redis.url.clone(), ..RedisConfig::default() };
    let client = Client::connect(config, slotwheel::store::ops::ALL).await.expect("a connection");
    let dataset = identity::open_or_create(&client, "sw", Shards::new(1)).await.expect("a data set");
    let store = Store::new(Arc::new(client), dataset.shards, &dataset.id, "sw");
    (redis, store)
}

/// Submits, claims and completes task `n`. Calls `after` behind each.
async fn life(shard: &Shard, caller: &mut Caller, n: u16, mut after: impl AsyncFnMut(&'static str)) {
    submit(shard, caller, &[task(n)], &Offers::default()).await.expect("a submit");
    after("submit").await;
    let queues = [queue("q")];
    let claimed = ClaimCall::new(shard, caller, &queues, &[want(1, None, 1)]).send().await.expect("a claim");
    after("claim").await;
    let [(_, claimed)] = &claimed.tasks[..] else { panic!("one task: {claimed:?}") };
    let lease_ref = LeaseRef { id: claimed.id, lease: Some(claimed.lease) };
    let done = Completion { lease_ref, result: document("null") };
    let ended = complete(shard, caller, &[done], WhenFull::Store).await.expect("a completion");
    assert!(matches!(ended[..], [LeaseEnd::Done { state: State::Completed, .. }]), "{ended:?}");
    after("complete").await;
}

/// Returns the calls of each command since the last call of this function, without those of the test.
async fn called(redis: &OwnRedis) -> BTreeMap<String, usize> {
    let statistics: String = redis.ask(cmd("INFO").arg("commandstats")).await;
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let of_test = ["info", "config|resetstat", "evalsha", "client|setinfo", "hello", "ping", "select"];
    let called = statistics.lines().filter_map(line).filter(|(name, _)| !of_test.contains(&&**name)).collect();
    redis.ask::<()>(cmd("CONFIG").arg("RESETSTAT")).await;
    called
}

/// Returns the number of calls without those that move the counters of the last 5 s into their bucket: a read, a write, and the
/// time of its deletion.
fn commands(called: &BTreeMap<String, usize>) -> usize {
    called.values().sum::<usize>() - 3 * called.get("pexpire").unwrap_or(&0)
}

#[tokio::test]
async fn scripts_of_a_life_call_no_more_commands_than_they_need() {
    let (mut redis, store) = plain_store().await;
    let (shard, mut caller) = (store.first_shard(), Caller::new());
    // The first life loads the scripts, lists the queue, and sets its time in `due`.
    life(shard, &mut caller, 10, async |_| ()).await;
    for n in 11..20 {
        called(&redis).await;
        let mut counts = Vec::new();
        life(shard, &mut caller, n, async |step| counts.push((step, called(&redis).await))).await;
        for ((step, called), (expected_step, expected)) in counts.iter().zip(LIFE) {
            assert_eq!((*step, commands(called)), (expected_step, expected), "life {n}: {called:?}");
        }
    }
    redis.stop().await;
}

#[tokio::test]
async fn completions_that_claim_the_next_task_take_two_scripts_a_life() {
    let (mut redis, store) = plain_store().await;
    let (shard, mut caller, queues) = (store.first_shard(), Caller::new(), [queue("q")]);
    life(shard, &mut caller, 10, async |_| ()).await;
    submit(shard, &mut caller, &[task(11)], &Offers::default()).await.expect("a submit");
    let claimed = ClaimCall::new(shard, &mut caller, &queues, &[want(1, None, 1)]).send().await.expect("a claim");
    let mut leased = claimed.tasks[0].1.clone();
    for n in 12..20 {
        called(&redis).await;
        submit(shard, &mut caller, &[task(n)], &Offers::default()).await.expect("a submit");
        let submit_commands = called(&redis).await;
        let lease_ref = LeaseRef { id: leased.id, lease: Some(leased.lease) };
        let done = Completion { lease_ref, result: document("null") };
        let claim = FollowingClaim { completion: 0, batch: None, request: want(1, None, 1) };
        let completions = [done];
        let call = CompleteAndClaimCall::new(shard, &mut caller, &completions, &queues, &[claim]);
        let (ended, claimed) = call.send().await.expect("a completion");
        assert!(matches!(ended[..], [LeaseEnd::Done { state: State::Completed, .. }]), "{ended:?}");
        leased = claimed.tasks[0].1.clone();
        assert_eq!(leased.id, task(n).id);
        for (mut called, (step, expected)) in [submit_commands, called(&redis).await].into_iter().zip(CHAINED_LIFE) {
            // The first life loads the script.
            if n == 12 {
                called.remove("eval");
            }
            assert_eq!(commands(&called), expected, "{step} of life {n}: {called:?}");
        }
    }
    redis.stop().await;
}

#[tokio::test]
async fn submit_of_ids_that_may_be_stored_stores_each_task_once() {
    let (mut redis, store) = plain_store().await;
    let (shard, mut caller) = (store.first_shard(), Caller::new());
    submit(shard, &mut caller, &[task(11)], &Offers::default()).await.expect("a submit");
    let again = [NewTask { may_be_stored: true, ..task(11) }, task(12)];
    let outcomes = submit(shard, &mut caller, &again, &Offers::default()).await.expect("a submit").outcomes;
    assert!(matches!(outcomes[..], [Submitted::AlreadyStored, Submitted::Created { .. }]), "{outcomes:?}");
    redis.stop().await;
}

/// Returns how often EXISTS was called.
async fn lookups(redis: &OwnRedis) -> usize {
    called(redis).await.remove("exists").unwrap_or(0)
}

#[tokio::test]
async fn parts_of_a_failed_batch_look_up_the_ids_of_their_tasks() {
    // Where keys are touched before they are written, ids are looked up too.
    if Flavour::of_this_run() != Flavour::Single {
        return;
    }
    let fixture = Fixture::with_shards(1).await;
    let submit = async |queues: [&str; 3]| {
        let tasks: Vec<Value> = queues.iter().map(|queue| json!({"queue": queue})).collect();
        let answer = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        let statuses = answer["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap());
        statuses.collect::<Vec<u64>>()
    };
    assert_eq!(submit(["q", "bad", "q"]).await, [201; 3]);
    lookups(&fixture.redis).await;
    assert_eq!(submit(["q", "bad", "q"]).await, [201; 3]);
    assert_eq!(lookups(&fixture.redis).await, 0);

    let callers = fixture.store().await.first_shard().keys.callers();
    let record: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(&callers).arg("queue:bad")).await;
    fixture.redis.ask::<()>(cmd("HSET").arg(&callers).arg("queue:bad").arg("x")).await;
    lookups(&fixture.redis).await;
    assert_eq!(submit(["q", "bad", "q"]).await, [201, 500, 201]);
    assert!(lookups(&fixture.redis).await > 0);
    fixture.redis.ask::<()>(cmd("HSET").arg(&callers).arg("queue:bad").arg(record)).await;
    fixture.end().await;
}
