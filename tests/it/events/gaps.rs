//! Gaps: a stream receives the number of events that it missed, or null if the number is unknown.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::config::RawLimits;
use slotwheel::store::Caller;
use slotwheel::store::ops::enable_events::enable_events;

use super::{limited, submit_many};
use crate::support::Fixture;
use crate::support::event_stream::Stream;
use crate::support::script_lab::{Lab, task};

/// Closes each connection that is subscribed to wake-ups or events.
async fn cut(fixture: &Fixture) {
    let killed: i64 = fixture.redis.ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
    assert!(killed >= 2, "{killed} connections");
}

#[tokio::test]
async fn broken_redis_connection_sends_a_gap_to_all_streams() {
    let fixture = Fixture::start().await;
    let (mut one, mut other) = (Stream::open(&fixture.http, "").await, Stream::open(&fixture.http, "?queue=q").await);
    let before = fixture.submit("q", json!(1)).await;
    for stream in [&mut one, &mut other] {
        stream.expect(&before, json!(null), json!("ready")).await;
    }
    cut(&fixture).await;
    one.missed(json!(null)).await;
    other.missed(json!(null)).await;
    // The gap may repeat. No later event is lost.
    let task = fixture.submit("q", json!(2)).await;
    for stream in [&mut one, &mut other] {
        loop {
            match stream.event().await.unwrap() {
                (name, data) if name == "task" => break assert_eq!(data["id"], task["id"]),
                (_, data) => assert_eq!(data["count"], json!(null)),
            }
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn events_not_published_by_scripts_are_sent_as_a_gap() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    let mut streams = [Stream::open(&fixture.http, "").await, Stream::open(&other, "").await];
    // The state after a failover to a replica that lacked the field.
    for shard in fixture.store().await.shards() {
        let gone: i64 = fixture.redis.ask(cmd("HDEL").arg(shard.keys.callers()).arg("events")).await;
        assert_eq!(gone, 1);
    }
    fixture.submit("q", json!(1)).await;
    for stream in &mut streams {
        // If the other server has enabled events again first, the event itself may arrive before the gap.
        while stream.event().await.unwrap() != ("gap".into(), json!({"count": null})) {}
    }
    fixture.end().await;
}

#[tokio::test]
async fn reconnect_of_an_idle_stream_resumes_without_a_gap() {
    let fixture = limited(RawLimits { max_buffered_events: Some(512), ..RawLimits::default() }).await;
    let mut quiet = Stream::open(&fixture.http, "?queue=a").await;
    for _ in 0..6 {
        submit_many(&fixture, 100).await;
    }
    // The stream receives its cursor each 128 events, before they are overwritten.
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    let (begun, mut place) = (quiet.place().await, String::new());
    // Each cursor arrives as it becomes due, not only with the keep-alive after 15 s.
    while place.is_empty() || number(&place) < number(&begun) + 600 - 127 {
        let next = tokio::time::timeout(Duration::from_secs(10), quiet.place());
        place = next.await.expect("a cursor before the keep-alive");
    }
    drop(quiet);
    let task = fixture.submit("a", json!(1)).await;
    let mut again = Stream::open_behind(&fixture.http, "?queue=a", &place).await;
    again.expect(&task, json!(null), json!("ready")).await;
    fixture.end().await;
}

#[tokio::test]
async fn stream_during_a_redis_outage_begins_with_a_gap_and_continues() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    let mut stream = Stream::open(&fixture.http, "").await;
    fixture.redis.kill();
    // The other server has never subscribed. A 503 would end a standard client for good.
    let began = std::time::Instant::now();
    let mut early = Stream::open(&other, "").await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    early.missed(json!(null)).await;
    fixture.redis.restart().await;
    stream.missed(json!(null)).await;
    // When the server is subscribed, another gap covers the time until then. No later event is lost.
    early.missed(json!(null)).await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    let mut late = Stream::open(&other, "").await;
    let task = fixture.submit("q", json!(1)).await;
    late.expect(&task, json!(null), json!("ready")).await;
    while early.event().await.unwrap().0 != "task" {}
    fixture.end().await;
}

#[tokio::test]
async fn event_gap_detection_uses_redis_time_not_the_test_clock() {
    let lab = Lab::start().await;
    let (mut one, mut other) = (Caller::new(), Caller::new());
    let first = enable_events(lab.shard(), &mut one).await.unwrap();
    lab.at(3_600_000);
    for caller in [&mut other, &mut one] {
        assert_eq!(enable_events(lab.shard(), caller).await.unwrap(), first, "the period continues");
    }
    // The lab's clock does not move: the period is over. The first caller starts a new one, and all others see it.
    lab.ask::<()>(cmd("HSET").arg(lab.key("callers")).arg("events").arg(format!("2000000000 {first}"))).await;
    let second = enable_events(lab.shard(), &mut one).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(enable_events(lab.shard(), &mut other).await.unwrap(), second);
    // An invalid value fails no other call.
    lab.ask::<()>(cmd("HSET").arg(lab.key("callers")).arg("events").arg("soon")).await;
    lab.submit(&[task(1)]).await.unwrap();
    assert_ne!(enable_events(lab.shard(), &mut other).await.unwrap(), second);
    lab.end().await;
}
