//! Channels of Redis belong to no database: those of a server carry its database and its data set.

use deadpool_redis::redis::cmd;
use serde_json::json;

use crate::support::event_stream::Stream;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, Http, text};

const RARE_POLLS: u64 = 60_000;

/// Returns the value of a line of `/metrics`.
async fn metric(http: &Http, name: &str) -> u64 {
    let metrics = http.get("/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
    line.trim().parse().expect("a number")
}

#[tokio::test]
async fn servers_of_two_databases_hear_nothing_of_each_other() {
    // A Cluster has one database.
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let redis = OwnRedis::start().await;
    let (url, second_url) = (redis.url.clone(), format!("{}?db=1", redis.url));
    let polls = |written: &mut slotwheel::config::RawConfig| written.poll_interval_ms = Some(RARE_POLLS);
    let first = Fixture::on(redis, url, polls).await;
    // Its own Redis is idle, and its audit reads the database that it uses.
    let mut second = Fixture::on(OwnRedis::start().await, second_url.clone(), polls).await;
    second.redis.url = second_url;
    let mut heard = Stream::open(&first.http, "").await;
    let mut others = Stream::open(&second.http, "").await;
    let ready = "slotwheel_wakeups_total{kind=\"ready\"}";
    for number in 0..3 {
        let task = second.submit(&format!("q{number}"), json!(number)).await;
        others.expect(&task, json!(null), json!("ready")).await;
    }
    let task = first.submit("own", json!(1)).await;
    heard.expect(&task, json!(null), json!("ready")).await;
    first.until(|| async { (metric(&second.http, ready).await == 3).then_some(()) }).await;
    first.until(|| async { (metric(&first.http, ready).await == 1).then_some(()) }).await;
    drop((heard, others));
    second.end().await;
    first.end().await;
}

#[tokio::test]
async fn server_hears_the_channels_of_an_accepted_data_set() {
    let mut fixture = Fixture::with(|written| written.poll_interval_ms = Some(RARE_POLLS)).await;
    let mut stream = Stream::open(&fixture.http, "").await;
    fixture.redis.ask::<()>(cmd("FLUSHALL").arg("SYNC")).await;
    fixture.until(|| async { (fixture.http.get("/readyz").await.status == 503).then_some(()) }).await;
    let shards = fixture.config.shards.expect("a number").count().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(["doctor", "--accept-loss", "--redis-url", &fixture.redis.url, "--shards", &shards]);
    assert!(crate::support::output(command).await.status.success());
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    // This server opens the new data set; the first one has moved to its channels.
    let other = fixture.another_server().await;
    let gaps = "slotwheel_wakeups_total{kind=\"gap\"}";
    fixture.until(|| async { (metric(&fixture.http, gaps).await >= 2).then_some(()) }).await;
    let http = fixture.http.clone();
    let waiting =
        tokio::spawn(
            async move { http.post("/claim", &json!({"queues": ["w"], "wait_ms": 20_000})).await.expect(200) },
        );
    let line = "slotwheel_waiting_requests 2\n";
    fixture.until(|| async { fixture.http.get("/metrics").await.text.contains(line).then_some(()) }).await;
    assert!(fixture.claim_now("w", 1).await.is_empty());
    let task = other.post("/tasks", &json!({"queue": "w"})).await.expect(201);
    assert_eq!(text(&waiting.await.unwrap()["tasks"][0]["id"]), text(&task["id"]));
    // The stream has a gap for the time in between, and then the events of the new data set.
    stream.missed(json!(null)).await;
    loop {
        other.post("/tasks", &json!({"queue": "e"})).await.expect(201);
        let event = tokio::time::timeout(std::time::Duration::from_millis(500), stream.event()).await;
        if event.is_ok_and(|event| event.expect("an event").0 == "task") {
            break;
        }
    }
    drop(stream);
    fixture.end().await;
}
