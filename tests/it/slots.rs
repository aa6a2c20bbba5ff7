//! Slots are those of Redis Cluster.

use deadpool_redis::redis::{self, cmd};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use slotwheel::domain::slot::Slot;

use crate::support::Fixture;
use crate::support::ports::free_port;
use crate::support::redis::OwnRedis;

#[tokio::test(flavor = "multi_thread")]
async fn slot_of_any_key_is_that_of_redis() {
    let (port, bus) = (free_port().to_string(), free_port().to_string());
    let redis = OwnRedis::single(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--port", &port]).await;
    let client = redis::Client::open(redis.url.as_str()).unwrap();
    let connection = std::cell::RefCell::new(client.get_connection().unwrap());
    let keys = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), any::<u8>()], 0..12),
        "[a-z]{0,3}\\{[a-z]{0,3}\\}[a-z{}]{0,3}".prop_map(String::into_bytes),
    ];
    tokio::task::block_in_place(|| {
        TestRunner::new(Config::with_cases(2000))
            .run(&keys, |key| {
                let theirs: u16 = cmd("CLUSTER").arg("KEYSLOT").arg(&key).query(&mut *connection.borrow_mut()).unwrap();
                prop_assert_eq!(Slot::of_key(&key).number(), theirs);
                Ok(())
            })
            .unwrap();
    });
}

#[tokio::test]
async fn slots_route_shows_shards_depth_and_the_slot_of_a_key() {
    let fixture = Fixture::with_shards(16).await;
    let task = fixture.submit_with(json!({"queue": "q", "key": "order-7"})).await;

    let slots = fixture.http.get("/slots?key=order-7").await.expect(200);

    let shards = slots["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 16);
    assert_eq!((&shards[1]["first_slot"], &shards[1]["last_slot"]), (&json!(1024), &json!(2047)));
    assert_eq!(slots["key_slot"]["slot"], task["slot"]);
    let shard = slots["key_slot"]["shard"].as_u64().unwrap() as usize;
    assert_eq!(shards[shard]["ready"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn tasks_without_routing_key_spread_over_the_shards() {
    let fixture = Fixture::with_shards(16).await;
    let tasks: Vec<_> = (0..400).map(|_| json!({"queue": "q"})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let slots = fixture.http.get("/slots").await.expect(200);
    let used = slots["shards"].as_array().unwrap().iter().filter(|shard| shard["ready"].as_i64().unwrap() > 0).count();
    assert!(used >= 8, "{used} shards");
    fixture.end().await;
}
