//! The durability levels: the Redis settings that each requires, and the confirmation it waits for.

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::config::{Durability, RawConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::hand_off::{are_waiting, wait_for_tasks};
use crate::support::Fixture;
use crate::support::exposition::Exposition;
use crate::support::ports::free_port;
use crate::support::redis::OwnRedis;

/// Returns the error of a server that fails to start with this level on this Redis.
async fn refusal(redis: &OwnRedis, level: &str) -> String {
    let written = RawConfig {
        listen: Some("127.0.0.1:0".into()),
        redis_url: Some(redis.url.clone()),
        durability: Some(level.into()),
        ..RawConfig::default()
    };
    let config = written.resolve().expect("settings");
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let error = slotwheel::app::run(config, listener, CancellationToken::new()).await.expect_err("no start");
    format!("{error:#}")
}

#[tokio::test]
async fn redis_below_the_durability_level_is_rejected_with_what_to_set() {
    for (arguments, level, word) in [
        (&["--appendonly", "no"][..], "fsync", "appendonly is no"),
        (&["--appendfsync", "everysec"], "fsync", "appendfsync is everysec"),
        (
            &["--appendfsync", "always", "--no-appendfsync-on-rewrite", "yes"],
            "fsync",
            "no-appendfsync-on-rewrite is yes",
        ),
        (&["--appendonly", "no"], "everysec", "appendonly is no"),
        (&["--appendfsync", "no"], "everysec", "appendfsync is no"),
        (&[], "replicated", "min-replicas-to-write is 0"),
    ] {
        let redis = OwnRedis::single(arguments).await;
        let why = refusal(&redis, level).await;
        assert!(why.contains(word) && why.contains(level), "{level} on {arguments:?}: {why}");
    }
}

#[tokio::test]
async fn redis_set_up_for_each_durability_level_is_accepted() {
    for (appendfsync, level, meant) in
        [("always", "fsync", Durability::Fsync), ("everysec", "everysec", Durability::Everysec)]
    {
        let redis = OwnRedis::single(&["--appendfsync", appendfsync]).await;
        let url = redis.url.clone();
        let fixture = Fixture::on(redis, url, |written| written.durability = Some(level.into())).await;
        assert_eq!(fixture.config.durability, meant);
        fixture.submit("q", json!(1)).await;
        fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("appendfsync").arg("no")).await;
        assert!(fixture.http.get("/readyz").await.text.contains("appendfsync is no"));
        fixture.end().await;
    }
}

#[tokio::test]
async fn replicated_submit_is_acknowledged_only_once_a_replica_has_it() {
    // A replica connects over TCP.
    let port = free_port().to_string();
    let master = ["--port", &port, "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10"];
    let master = OwnRedis::single(&master).await;
    let replica = OwnRedis::single(&["--replicaof", "127.0.0.1", &port]).await;
    let linked = async {
        // The master counts the replica only after its first acknowledgement.
        while !master.ask::<String>(cmd("INFO").arg("replication")).await.contains("min_slaves_good_slaves:1") {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), linked).await.expect("a replica");
    let url = master.url.clone();
    let fixture = Fixture::on(master, url, |written| {
        written.durability = Some("replicated".into());
        written.replicas = Some(1);
    })
    .await;
    let task = fixture.submit("q", json!("here and there")).await;
    let there: usize = replica.ask(cmd("EXISTS").arg(task_key(&fixture, &task).await)).await;
    assert_eq!(there, 1, "the accepted task is replicated");

    let body = json!({"queues": ["waited"], "wait_ms": 30_000, "worker": "w"});
    let waiting = wait_for_tasks(&fixture.http, body);
    are_waiting(&fixture, &fixture.http, 1).await;

    // The replica is frozen, and the master has not noticed yet: the write is not confirmed.
    replica.freeze();
    // A hand-off that is not confirmed reaches no client. It is released, and claimed.
    assert_eq!(fixture.http.post("/tasks", &json!({"queue": "waited"})).await.problem(503).0, "not_replicated");
    let tasks = waiting.await.unwrap();
    assert_eq!((tasks.len(), &fixture.task(&tasks[0]["id"]).await["acquired"]), (1, &json!(2)));
    let body = json!({"queue": "q", "payload": "here"}).to_string();
    let key = [("idempotency-key", "once")];
    let answer = fixture.http.post_with("/tasks", &key, body.as_bytes()).await;
    assert_eq!(answer.problem(503).0, "not_replicated");
    let metrics = Exposition::older(&fixture.http.get("/metrics").await.text);
    assert_eq!(metrics.value("slotwheel_redis_errors_total", &[("kind", "unconfirmed")]), Some(2.0));
    replica.thaw();
    let accepted = fixture
        .until(|| async {
            let answer = fixture.http.post_with("/tasks", &key, body.as_bytes()).await;
            (answer.status != 503).then_some(answer)
        })
        .await;
    assert!(accepted.status < 300, "{}", accepted.text);
    let there: usize = replica.ask(cmd("EXISTS").arg(task_key(&fixture, &accepted.json()).await)).await;
    assert_eq!(there, 1);
    assert_eq!(fixture.counts("q").await["submitted"], 2, "the repeated submit stores no second task");
    fixture.end().await;
}

async fn task_key(fixture: &Fixture, task: &serde_json::Value) -> Vec<u8> {
    let id = slotwheel::domain::id::TaskId::parse(task["id"].as_str().expect("an id")).expect("an id");
    fixture.store().await.shard_for_task(&id).keys.task(&id)
}
