//! The number of commands that scripts call in a task's life. A script's fixed cost is mostly that number.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadpool_redis::redis::cmd;
use slotwheel::domain::slot::Shards;
use slotwheel::domain::state::State;
use slotwheel::store::dataset::identity;
use slotwheel::store::ops::claim::ClaimCall;
use slotwheel::store::ops::complete::{Completion, complete};
use slotwheel::store::ops::submit::submit;
use slotwheel::store::ops::{LeaseEnd, LeaseRef, WhenFull};
use slotwheel::store::redis::config::RedisConfig;
use slotwheel::store::{Caller, Client, Shard, Store};

use crate::support::redis::OwnRedis;
use crate::support::script_lab::{document, queue, task, want};

/// Commands of a life with one task a call, which nothing waits for: submit, claim, complete.
const LIFE: [(&str, usize); 3] = [("submit", 8), ("claim", 10), ("complete", 8)];

/// Submits, claims and completes task `n`. Calls `after` behind each.
async fn life(shard: &Shard, caller: &mut Caller, n: u16, mut after: impl AsyncFnMut(&'static str)) {
    submit(shard, caller, &[task(n)]).await.expect("a submit");
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

#[tokio::test]
async fn scripts_of_a_life_call_no_more_commands_than_they_need() {
    let mut redis = OwnRedis::single(&[]).await;
    let client =
        Client::connect(RedisConfig { url: redis.url.clone(), ..RedisConfig::default() }, slotwheel::store::ops::ALL);
    let client = client.await.expect("a connection");
    let dataset = identity::open_or_create(&client, "sw", Shards::new(1)).await.expect("a data set");
    let store = Store::new(Arc::new(client), dataset.shards, &dataset.id, "sw");
    let (shard, mut caller) = (store.first_shard(), Caller::new());
    // The first life loads the scripts, lists the queue, and sets its time in `due`.
    life(shard, &mut caller, 10, async |_| ()).await;
    for n in 11..20 {
        called(&redis).await;
        let mut counts = Vec::new();
        life(shard, &mut caller, n, async |step| counts.push((step, called(&redis).await))).await;
        for ((step, called), (expected_step, expected)) in counts.iter().zip(LIFE) {
            assert_eq!((*step, called.values().sum::<usize>()), (expected_step, expected), "life {n}: {called:?}");
        }
    }
    redis.stop().await;
}
