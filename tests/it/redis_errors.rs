//! Errors of a Redis that does not serve now: each is a 503 with Retry-After, and the server recovers by itself.

use deadpool_redis::redis::cmd;
use serde_json::json;

use crate::support::Fixture;
use crate::support::redis::{Flavour, connect};

/// Submits until a request fails, which must be 503 `unavailable`.
async fn expect_unavailable(fixture: &Fixture) {
    let refused = fixture.until(|| async {
        let answer = fixture.http.post("/tasks", &json!({"queue": "q"})).await;
        (answer.status != 201).then_some(answer)
    });
    let refused = refused.await;
    assert_eq!(refused.problem(503).0, "unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(fixture.http.get("/readyz").await.problem(503).0, "unavailable");
}

async fn recovered(fixture: &Fixture) {
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.submit("q", json!(1)).await;
    fixture.claim_one("q").await;
}

#[tokio::test]
async fn slow_script_of_another_client_is_503_until_it_ends() {
    let fixture = Fixture::start().await;
    fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("busy-reply-threshold").arg(1)).await;
    let url = fixture.redis.url.clone();
    let slow = tokio::spawn(async move {
        let mut connection = connect(&url).await.unwrap();
        cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut connection).await
    });
    expect_unavailable(&fixture).await;
    fixture.redis.ask::<()>(cmd("SCRIPT").arg("KILL")).await;
    assert!(slow.await.unwrap().is_err());
    recovered(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn master_that_becomes_a_replica_is_503_until_it_is_a_master_again() {
    // A node of a Cluster rejects the command.
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let fixture = Fixture::start().await;
    fixture.redis.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(1)).await;
    expect_unavailable(&fixture).await;
    fixture.redis.ask::<()>(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    recovered(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn redis_without_room_for_connections_is_503_until_there_is_room() {
    let fixture = Fixture::start().await;
    let mut admin = connect(&fixture.redis.url).await.unwrap();
    let limit = |clients: u32| cmd("CONFIG").arg("SET").arg("maxclients").arg(clients).to_owned();
    limit(1).exec_async(&mut admin).await.unwrap();
    for kind in ["normal", "pubsub"] {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).exec_async(&mut admin).await.unwrap();
    }
    expect_unavailable(&fixture).await;
    limit(1000).exec_async(&mut admin).await.unwrap();
    recovered(&fixture).await;
    fixture.end().await;
}
