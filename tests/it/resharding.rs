//! Migration of a shard's Redis slot in a Cluster: requests get 503 meanwhile, and no transition is half done.

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::domain::slot::Slot;

use crate::support::Fixture;
use crate::support::event_stream::Stream;
use crate::support::ports::free_port;
use crate::support::redis::OwnRedis;

/// Starts a node of a Cluster. Returns it with its port.
async fn node() -> (OwnRedis, u16) {
    let (port, bus) = (free_port(), free_port());
    let (own, its_bus) = (port.to_string(), bus.to_string());
    let announce = ["--cluster-announce-ip", "127.0.0.1"];
    let cluster = ["--port", &own, "--cluster-enabled", "yes", "--cluster-port", &its_bus];
    let mut redis = OwnRedis::single(&[&cluster[..], &announce].concat()).await;
    redis.url = format!("redis://127.0.0.1:{port}");
    (redis, port)
}

async fn id(redis: &OwnRedis) -> String {
    redis.ask(cmd("CLUSTER").arg("MYID")).await
}

/// Waits until the Cluster is complete and this node knows both nodes.
async fn whole(redis: &OwnRedis) {
    let settled = async {
        loop {
            let info: String = redis.ask(cmd("CLUSTER").arg("INFO")).await;
            if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), settled).await.expect("a Cluster of two");
}

async fn set_slot(redis: &OwnRedis, slot: u16, how: &str, node: &str) {
    redis.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).arg(node)).await;
}

async fn migrate(from: &OwnRedis, to: u16, key: &[u8]) {
    from.ask::<()>(cmd("MIGRATE").arg("127.0.0.1").arg(to).arg(key).arg(0).arg(5000)).await;
}

#[tokio::test]
async fn migrating_slot_is_rejected_whole_and_served_on_its_new_node() {
    let ((first, _), (mut second, port)) = (node().await, node().await);
    first.ask::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383)).await;
    let nodes: String = second.ask(cmd("CLUSTER").arg("NODES")).await;
    let bus = nodes.split(['@', ' ', ',']).nth(2).expect("a bus port").to_owned();
    first.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(port).arg(bus)).await;
    whole(&first).await;
    whole(&second).await;
    let url = first.url.clone();
    let fixture = Fixture::on(first, url, |written| written.shards = Some(16)).await;
    let task = json!({"queue": "q", "key": "k"});
    let mut stream = Stream::open(&fixture.http, "").await;
    fixture.submit_with(task.clone()).await;
    stream.change().await;
    let keys = fixture.store().await.shard_for_slot(Slot::of_key(b"k")).keys.clone();
    let moving = Slot::of_key(keys.base().as_bytes()).number();
    let (from, to) = (id(&fixture.redis).await, id(&second).await);

    set_slot(&second, moving, "IMPORTING", &from).await;
    set_slot(&fixture.redis, moving, "MIGRATING", &to).await;
    migrate(&fixture.redis, port, &keys.callers()).await;

    assert_eq!(fixture.http.post("/tasks", &task).await.problem(503).0, "unavailable");
    let arrived: i64 = second.ask(&cmd("DBSIZE")).await;
    assert_eq!(arrived, 1, "only the migrated key is on the new node");

    let rest = cmd("CLUSTER").arg("GETKEYSINSLOT").arg(moving).arg(1000).to_owned();
    for key in fixture.redis.ask::<Vec<Vec<u8>>>(&rest).await {
        migrate(&fixture.redis, port, &key).await;
    }
    for redis in [&second, &fixture.redis] {
        set_slot(redis, moving, "NODE", &to).await;
    }
    fixture.until(|| async { (fixture.http.post("/tasks", &task).await.status == 201).then_some(()) }).await;
    assert_eq!(fixture.counts("q").await["submitted"], 2);
    // The channel migrated too: a gap is reported, and later events arrive. The gap is reported only after the new
    // subscription.
    let (mut submitted, mut last) = (2, json!(null));
    loop {
        let (name, data) = stream.event().await.unwrap();
        if name == "gap" {
            last = fixture.submit_with(task.clone()).await["id"].clone();
            submitted += 1;
        } else if data["id"] == last {
            break;
        }
    }
    for _ in 0..submitted {
        fixture.claim_one("q").await;
    }
    fixture.end().await;
    second.stop().await;
}
