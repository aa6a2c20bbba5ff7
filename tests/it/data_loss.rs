//! A data set that is gone, another, or older than it was is noticed, and served again once an operator accepts it.

use deadpool_redis::redis::{Value, cmd};
use serde_json::json;

use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, text};

/// Returns when the server is not ready because of a loss; what it says.
async fn noticed(fixture: &Fixture) -> String {
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

/// What `slotwheel doctor` says, which finds something wrong.
fn doctor(fixture: &Fixture) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"))
        .args(["doctor", "--redis-url", &fixture.redis.url])
        .output()
        .expect("doctor");
    assert!(!output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

fn accept(fixture: &Fixture) -> String {
    let shards = fixture.config.shards.expect("a number").count().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"))
        .args(["doctor", "--accept-loss", "--redis-url", &fixture.redis.url, "--shards", &shards])
        .output()
        .expect("doctor");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn flushed_redis_is_reported_as_data_loss_not_as_an_empty_queue() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.redis.ask::<()>(cmd("FLUSHALL").arg("SYNC")).await;

    assert!(noticed(&fixture).await.contains("gone"));
    // Each shard is looked at by itself.
    let all =
        format!("slotwheel_data_loss{{reason=\"missing\"}} {}\n", fixture.config.shards.expect("a number").count());
    let metrics = || async { fixture.http.get("/metrics").await.text };
    fixture.until(|| async { metrics().await.contains(&all).then_some(()) }).await;
    for (path, body) in [("/tasks", json!({"queue": "q"})), ("/claim", json!({"queues": ["q"]}))] {
        assert_eq!(fixture.http.post(path, &body).await.problem(503).0, "data_lost");
    }
    assert!(fixture.http.get("/livez").await.status == 200);

    assert!(doctor(&fixture).contains("the data set is gone"));
    assert!(accept(&fixture).contains("accepted"));
    ready(&fixture).await;
    fixture.submit("q", json!(2)).await;
    assert_eq!(fixture.claim_one("q").await["payload"], json!(2));
    fixture.end().await;
}

#[tokio::test]
async fn dataset_rolled_back_is_detected_and_served() {
    let fixture = Fixture::with_shards(1).await;
    fixture.submit("q", json!(1)).await;
    let key = fixture.store().await.first_shard().keys.dataset();
    let beats = || async { fixture.redis.ask::<i64>(cmd("HGET").arg(&key).arg("generation")).await };
    fixture.until(|| async { (beats().await > 3).then_some(()) }).await;
    // As a restored copy of yesterday would have it.
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg("generation").arg(1)).await;

    assert!(noticed(&fixture).await.contains("back in time"));
    fixture.claim_one("q").await;
    // But how much has been going on is not known any more.
    assert_eq!(fixture.http.get("/stats?queue=q").await.problem(503).0, "data_lost");
    let seen = beats().await;
    fixture.until(|| async { (beats().await > seen + 6).then_some(()) }).await;
    assert!(noticed(&fixture).await.contains("back in time"), "that it goes on does not bring back what was lost");

    accept(&fixture);
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
    noticed(&fixture).await;
    // Somebody starts a server there, which founds a data set of its own.
    let mut other = Fixture::on(OwnRedis::single(&[]).await, fixture.redis.url.clone(), |_| {}).await;
    fixture.until(|| async { fixture.http.get("/readyz").await.text.contains("another data set").then_some(()) }).await;
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
    let said = doctor(&fixture);
    assert!(said.contains("shard 5") && said.contains("gone"), "{said}");

    accept(&fixture);
    fixture.http = fixture.another_server().await;
    fixture.claim_one("q").await;
    fixture.end().await;
}
