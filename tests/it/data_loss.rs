//! Data loss: a missing, replaced or rolled-back data set is detected, and served again when an operator accepts it.

use deadpool_redis::redis::{Value, cmd};
use serde_json::json;

use crate::empty_queues;
use crate::metrics::metrics;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, text};

/// Waits until the server is not ready because of a data loss, and returns the detail of its answer.
async fn detected_loss(fixture: &Fixture) -> String {
    fixture
        .until(|| async {
            let answer = fixture.http.get("/readyz").await;
            (answer.status == 503 && answer.json()["code"] == "data_lost")
                .then(|| text(&answer.json()["detail"]).to_owned())
        })
        .await
}

async fn ready(fixture: &Fixture) {
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
}

/// Runs `slotwheel doctor`, which must report findings, and returns its output.
async fn doctor(fixture: &Fixture) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(["doctor", "--redis-url", &fixture.redis.url]);
    let output = crate::support::output(command).await;
    assert!(!output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

async fn accept(fixture: &Fixture) -> String {
    let shards = fixture.config.shards.expect("a number").count().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(["doctor", "--accept-loss", "--redis-url", &fixture.redis.url, "--shards", &shards]);
    let output = crate::support::output(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn flushed_redis_is_reported_as_data_loss_not_as_an_empty_queue() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.redis.ask::<()>(cmd("FLUSHALL").arg("SYNC")).await;

    assert!(detected_loss(&fixture).await.contains("the data set is missing"));
    // Each shard is checked separately.
    let all =
        format!("slotwheel_data_loss{{reason=\"missing\"}} {}\n", fixture.config.shards.expect("a number").count());
    let metrics = || async { fixture.http.get("/metrics").await.text };
    fixture.until(|| async { metrics().await.contains(&all).then_some(()) }).await;
    for (path, body) in [("/tasks", json!({"queue": "q"})), ("/claim", json!({"queues": ["q"]}))] {
        assert_eq!(fixture.http.post(path, &body).await.problem(503).0, "data_lost");
    }
    assert!(fixture.http.get("/livez").await.status == 200);

    assert!(doctor(&fixture).await.contains("the data set is missing"));
    assert!(accept(&fixture).await.contains("accepted"));
    ready(&fixture).await;
    fixture.submit("q", json!(2)).await;
    assert_eq!(fixture.claim_one("q").await["payload"], json!(2));
    fixture.end().await;
}

#[tokio::test]
async fn claim_of_a_queue_known_to_be_empty_fails_after_a_data_loss() {
    let (fixture, reads) = empty_queues::start(16).await;
    empty_queues::learn_empty(&fixture, &reads, "q").await;
    fixture.redis.ask::<()>(cmd("FLUSHALL").arg("SYNC")).await;
    let missing = [("reason", "missing")];
    fixture
        .until(|| async { (metrics(&fixture).await.count("slotwheel_data_loss", &missing) == 16.0).then_some(()) })
        .await;

    let claim = json!({"queues": ["q"], "wait_ms": 10_000});
    assert_eq!(fixture.http.post("/claim", &claim).await.problem(503).0, "data_lost");

    accept(&fixture).await;
    ready(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn dataset_rolled_back_is_detected_and_served() {
    let fixture = Fixture::with_shards(1).await;
    fixture.submit("q", json!(1)).await;
    let key = fixture.store().await.first_shard().keys.dataset();
    let generation = || async { fixture.redis.ask::<i64>(cmd("HGET").arg(&key).arg("generation")).await };
    fixture.until(|| async { (generation().await > 3).then_some(()) }).await;
    // An older generation, as in a restored backup.
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg("generation").arg(1)).await;

    assert!(detected_loss(&fixture).await.contains("rolled back"));
    fixture.claim_one("q").await;
    // The counters of the window are incomplete.
    assert_eq!(fixture.http.get("/stats?queue=q").await.problem(503).0, "data_lost");
    let seen = generation().await;
    fixture.until(|| async { (generation().await > seen + 6).then_some(()) }).await;
    assert!(detected_loss(&fixture).await.contains("rolled back"), "new writes do not restore the lost ones");

    accept(&fixture).await;
    ready(&fixture).await;
    fixture.http.get("/stats?queue=q").await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn dataset_replaced_by_another_is_detected_until_the_original_returns() {
    if Flavour::of_this_run() == Flavour::Cluster {
        // A Cluster has one database.
        return;
    }
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.redis.ask::<Value>(cmd("SWAPDB").arg(0).arg(1)).await;
    detected_loss(&fixture).await;
    // Another server starts on the other database and creates its own data set.
    let mut other = Fixture::on(OwnRedis::single(&[]).await, fixture.redis.url.clone(), |_| {}).await;
    fixture
        .until(|| async { fixture.http.get("/readyz").await.text.contains("another data set replaced").then_some(()) })
        .await;
    other.redis.url = fixture.redis.url.clone();
    other.end().await;

    fixture.redis.ask::<Value>(cmd("SWAPDB").arg(0).arg(1)).await;
    ready(&fixture).await;
    assert_eq!(fixture.claim_one("q").await["payload"], json!(1));
    fixture.end().await;
}

#[tokio::test]
async fn server_started_on_a_dataset_with_a_missing_shard_is_not_ready() {
    let mut fixture = Fixture::with_shards(16).await;
    fixture.submit("q", json!(1)).await;
    fixture.stop_servers().await;
    let key = fixture.store().await.shards()[5].keys.dataset();
    fixture.redis.ask::<()>(cmd("DEL").arg(key)).await;
    let output = doctor(&fixture).await;
    assert!(output.contains("shard 5: the data set is missing"), "{output}");

    accept(&fixture).await;
    fixture.http = fixture.another_server().await;
    fixture.claim_one("q").await;
    fixture.end().await;
}
