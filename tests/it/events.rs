//! `GET /events` sends each transition once to the subscriptions of its queue, and a gap where it cannot.

mod gaps;

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_redis::redis::{self, AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, cmd};
use futures_util::future::join_all;
use serde_json::{Value, json};
use slotwheel::config::RawLimits;
use tokio::sync::mpsc;

use crate::support::event_stream::{PATIENCE, Stream, narrow};
use crate::support::{Fixture, Http, report, report_with, text};

async fn limited(limits: RawLimits) -> Fixture {
    Fixture::with(|written| written.limits = limits).await
}

/// Submits `count` tasks in one batch.
async fn submit_many(fixture: &Fixture, count: usize) -> Vec<Value> {
    let tasks = vec![json!({"queue": "q"}); count];
    let answer = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    answer["results"].as_array().unwrap().iter().map(|result| result["task"].clone()).collect()
}

#[tokio::test]
async fn transition_is_sent_once() {
    let fixture = Fixture::start().await;
    let http = &fixture.http;
    let mut stream = Stream::open(http, "?queue=q").await;
    let verb = |task: &Value, verb: &str| format!("/tasks/{}/{verb}", text(&task["id"]));

    // Submitted, claimed, completed twice, deleted.
    let task = fixture.submit("q", json!(1)).await;
    let change = stream.change().await;
    let sent = json!({"id": task["id"], "queue": "q", "from": null, "state": "ready", "at": task["created_at"]});
    assert_eq!(change, sent);
    let claimed = fixture.claim_one("q").await;
    stream.expect(&task, json!("ready"), json!("leased")).await;
    for _ in 0..2 {
        http.post("/complete", &report(&claimed)).await.expect(200);
    }
    stream.expect(&task, json!("leased"), json!("completed")).await;
    http.delete(&format!("/tasks/{}", text(&task["id"]))).await;
    stream.expect(&task, json!("completed"), json!(null)).await;

    let error = json!({"type": "Broken", "message": "so it is"});
    // Failed with a retry, released, failed without one, retried, cancelled.
    let task = fixture.submit("q", json!(2)).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    let claimed = fixture.claim_one("q").await;
    stream.expect(&task, json!("ready"), json!("leased")).await;
    http.post("/fail", &report_with(&claimed, json!({"error": error, "retry_in_ms": 10}))).await.expect(200);
    stream.expect(&task, json!("leased"), json!("scheduled")).await;
    stream.expect(&task, json!("scheduled"), json!("ready")).await;
    let claimed = fixture.claim_one("q").await;
    stream.expect(&task, json!("ready"), json!("leased")).await;
    http.post("/release", &report(&claimed)).await.expect(200);
    stream.expect(&task, json!("leased"), json!("ready")).await;
    let claimed = fixture.claim_one("q").await;
    stream.expect(&task, json!("ready"), json!("leased")).await;
    // A request that changes no state causes no event.
    http.post("/heartbeat", &json!({"worker": "w", "tasks": [report(&claimed)]})).await.expect(200);
    http.post("/fail", &report_with(&claimed, json!({"error": error, "retry": false}))).await.expect(200);
    stream.expect(&task, json!("leased"), json!("dead")).await;
    http.post_nothing(&verb(&task, "retry")).await.expect(200);
    stream.expect(&task, json!("dead"), json!("ready")).await;
    for _ in 0..2 {
        http.post_nothing(&verb(&task, "cancel")).await.expect(200);
    }
    stream.expect(&task, json!("ready"), json!("cancelled")).await;

    // Submitted with a delay, then made ready and delayed again by its dedupe key.
    let dedupe = json!({"key": "k", "mode": "debounce"});
    let later = json!({"queue": "q", "delay_ms": 60_000, "dedupe": dedupe});
    let task = fixture.submit_with(later.clone()).await;
    stream.expect(&task, json!(null), json!("scheduled")).await;
    http.post("/tasks", &json!({"queue": "q", "dedupe": dedupe})).await.expect(200);
    stream.expect(&task, json!("scheduled"), json!("ready")).await;
    http.post("/tasks", &later).await.expect(200);
    stream.expect(&task, json!("ready"), json!("scheduled")).await;
    http.post("/queues/q/purge", &json!({"states": ["scheduled"]})).await.expect(200);
    stream.expect(&task, json!("scheduled"), json!(null)).await;

    // Changed by upkeep: expired, lease expired, deleted after its retention.
    let task = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 1000, "retain_ms": 10_000_000})).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    fixture.advance(1000);
    stream.expect(&task, json!("ready"), json!("expired")).await;
    let task = fixture.submit_with(json!({"queue": "q", "max_attempts": 1, "retain_ms": 10_000})).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    fixture.claim_one("q").await;
    stream.expect(&task, json!("ready"), json!("leased")).await;
    fixture.advance(60_000);
    stream.expect(&task, json!("leased"), json!("dead")).await;
    fixture.advance(10_000);
    stream.expect(&task, json!("dead"), json!(null)).await;

    // A large batch.
    let tasks = submit_many(&fixture, 250).await;
    let mut sent = BTreeSet::new();
    for _ in &tasks {
        let change = stream.change().await;
        assert_eq!(change["state"], "ready");
        sent.insert(text(&change["id"]).to_owned());
    }
    assert_eq!(sent, tasks.iter().map(|task| text(&task["id"]).to_owned()).collect());
    fixture.end().await;
}

#[tokio::test]
async fn events_of_other_servers_are_sent_only_for_requested_queues() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    let (mut all, mut some) = (Stream::open(&other, "").await, Stream::open(&other, "?queue=a&queue=b").await);
    let mut submitted = Vec::new();
    for queue in ["a", "c", "b", "a"] {
        let task = fixture.submit(queue, json!(1)).await;
        all.expect(&task, json!(null), json!("ready")).await;
        submitted.push(task);
    }
    for task in [&submitted[0], &submitted[2], &submitted[3]] {
        some.expect(task, json!(null), json!("ready")).await;
    }
    // The transitions were made by another server. The streams end with their own server.
    fixture.stop_servers().await;
    assert!(all.event().await.is_none() && some.event().await.is_none());
    fixture.end().await;
}

#[tokio::test]
async fn slow_reader_gets_a_gap_with_the_exact_number() {
    let fixture = limited(RawLimits { max_buffered_events: Some(16), ..RawLimits::default() }).await;
    let (mut slow, _connection, _sender) = narrow(&fixture.http, 1000).await;
    let mut quick = Stream::open(&fixture.http, "").await;
    let mut submitted = BTreeSet::new();
    for _ in 0..40 {
        for task in submit_many(&fixture, 10).await {
            submitted.insert(text(&task["id"]).to_owned());
        }
        for _ in 0..10 {
            quick.change().await;
        }
    }
    let (mut sent, mut missed) = (BTreeSet::new(), 0);
    while sent.len() + missed < submitted.len() {
        match slow.event().await.unwrap() {
            (name, data) if name == "gap" => {
                missed += usize::try_from(data["count"].as_u64().unwrap()).unwrap();
            }
            (_, data) => assert!(sent.insert(text(&data["id"]).to_owned()), "sent twice"),
        }
    }
    assert!(missed > 0 && sent.len() > 16, "{missed} missed, {} sent", sent.len());
    assert_eq!(sent.len() + missed, submitted.len());
    assert!(sent.is_subset(&submitted));
    // From here on the reader keeps up and receives every event.
    let task = fixture.submit("q", json!(1)).await;
    slow.expect(&task, json!(null), json!("ready")).await;
    fixture.end().await;
}

#[tokio::test]
async fn reconnect_resumes_at_the_last_event_or_gets_a_gap() {
    let mut fixture = limited(RawLimits { max_buffered_events: Some(16), ..RawLimits::default() }).await;
    let mut first = Stream::open(&fixture.http, "").await;
    // The stream has an id before its first event.
    let begun = first.place().await;
    drop(first);
    let task = fixture.submit("q", json!(1)).await;
    let mut again = Stream::open_behind(&fixture.http, "", &begun).await;
    again.expect(&task, json!(null), json!("ready")).await;
    let seen = again.id.clone();
    // This stream keeps the feed of the server alive.
    let mut witness = Stream::open(&fixture.http, "?queue=q").await;
    drop(again);

    // The length of the gap is unknown for an id of another server or of none.
    let other = fixture.another_server().await;
    for id in [seen.as_str(), "x", "0000000000000000-3"] {
        let mut elsewhere = Stream::open_behind(&other, "", id).await;
        elsewhere.missed(json!(null)).await;
        let task = fixture.submit("other", json!(1)).await;
        elsewhere.expect(&task, json!(null), json!("ready")).await;
    }

    // Three events from above, then twenty. The buffer keeps the last sixteen.
    for _ in 0..2 {
        for _ in submit_many(&fixture, 10).await {
            witness.change().await;
        }
    }
    let mut late = Stream::open_behind(&fixture.http, "", &seen).await;
    late.missed(json!(7)).await;
    for _ in 0..16 {
        assert_eq!(late.change().await["queue"], "q");
    }
    fixture.end().await;
}

#[tokio::test]
async fn stream_of_a_draining_server_continues_and_then_ends() {
    let mut fixture = Fixture::with(|written| written.drain_ms = Some(2000)).await;
    let mut stream = Stream::open(&fixture.http, "").await;
    fixture.tell_to_stop();
    assert_eq!(fixture.http.get("/readyz").await.problem(503).0, "stopping");
    let task = fixture.submit("q", json!(1)).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    assert!(stream.event().await.is_none());
    fixture.stop_servers().await;
    fixture.end().await;
}

/// Subscribers to the events of the first shard.
async fn subscribers(fixture: &Fixture) -> i64 {
    let channel = fixture.store().await.first_shard().events_channel();
    let (_, count): (String, i64) = fixture.redis.ask(cmd("PUBSUB").arg("SHARDNUMSUB").arg(channel)).await;
    count
}

#[tokio::test]
async fn head_request_does_not_subscribe() {
    let fixture = Fixture::start().await;
    let url = format!("http://{}/events", fixture.http.address);
    let answer = reqwest::Client::new().head(url).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(subscribers(&fixture).await, 0);
    let stream = Stream::open(&fixture.http, "").await;
    assert_eq!(subscribers(&fixture).await, 1);
    drop(stream);
    fixture.end().await;
}

#[tokio::test]
async fn events_are_not_published_without_a_subscriber() {
    let fixture = Fixture::with_shards(1).await;
    let channel = fixture.store().await.first_shard().events_channel();
    let (pushes, mut received) = mpsc::unbounded_channel();
    let url = fixture.redis.url.clone();
    let client = redis::Client::open(url.as_str()).unwrap();
    let info = client.get_connection_info().clone();
    let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = redis::Client::open(info.set_redis_settings(resp3)).unwrap();
    let config = AsyncConnectionConfig::new().set_push_sender(pushes).set_response_timeout(Some(PATIENCE));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    cmd("SSUBSCRIBE").arg(&channel).exec_async(&mut connection).await.unwrap();
    let mut next = async || loop {
        let push: PushInfo = received.recv().await.unwrap();
        // A message without events checks the permission to publish.
        if push.kind == PushKind::SMessage && push.data[1] != redis::Value::BulkString(vec![0x91, 0]) {
            return push.data[1].clone();
        }
    };

    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let sent: i64 = fixture.redis.ask(cmd("SPUBLISH").arg(&channel).arg("all quiet")).await;
    assert_eq!(sent, 1, "only this test subscribes");
    assert_eq!(next().await, redis::Value::BulkString(b"all quiet".into()));

    let mut stream = Stream::open(&fixture.http, "").await;
    let task = fixture.submit("q", json!(1)).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    let redis::Value::BulkString(report) = next().await else { panic!("no text") };
    assert!(report.windows(5).any(|window| window == b"ready"));

    // An idle stream receives its cursor from time to time. After it ends, the server soon unsubscribes.
    while stream.places < 2 {
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.event()).await;
    }
    let seen = stream.id.clone();
    drop(stream);
    fixture
        .until(|| async {
            // This takes ten seconds. Rare checks leave the machine to other tests.
            fixture.http.post("/claim", &json!({"queues": ["none"], "wait_ms": 500})).await.expect(200);
            (subscribers(&fixture).await == 1).then_some(())
        })
        .await;
    // A new stream makes it subscribe again. A stream that resumes gets a gap for the time in between.
    let mut back = Stream::open_behind(&fixture.http, "", &seen).await;
    back.missed(json!(null)).await;
    let mut new = Stream::open(&fixture.http, "").await;
    let task = fixture.submit("q", json!(2)).await;
    for stream in [&mut back, &mut new] {
        stream.expect(&task, json!(null), json!("ready")).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn streams_count_as_waiting_requests() {
    let fixture = limited(RawLimits { max_waiting_requests: Some(2), ..RawLimits::default() }).await;
    let one = Stream::open(&fixture.http, "").await;
    let other = Stream::open(&fixture.http, "").await;
    let refused = fixture.http.get("/events").await;
    assert_eq!(refused.problem(503).0, "too_many_waiting");
    assert!(refused.header("retry-after").is_some());
    drop(other);
    let other = fixture.until(|| async {
        let line = "slotwheel_waiting_requests 1\n";
        fixture.http.get("/metrics").await.text.contains(line).then_some(())
    });
    other.await;
    let _third = Stream::open(&fixture.http, "").await;
    drop(one);
    fixture.end().await;
}

#[tokio::test]
async fn idle_stream_is_kept_and_unread_stream_is_closed() {
    let limits = RawLimits {
        idle_timeout_ms: Some(1000),
        write_timeout_ms: Some(1000),
        connect_idle_timeout_ms: Some(1000),
        ..RawLimits::default()
    };
    let mut fixture = limited(limits).await;
    let (mut resting, _own, _own_sender) = narrow(&fixture.http, 60_000).await;
    let mut over_one = Stream::open(&fixture.http, "").await;
    let (mut unread, connection, _sender) = narrow(&fixture.http, 1000).await;
    unread.block().await.unwrap();
    // Three times the idle and write timeouts. The time has to pass, because the test shows that nothing happens in it.
    fixture.http.post("/claim", &json!({"queues": ["none"], "wait_ms": 3000})).await.expect(200);
    let tasks = submit_many(&fixture, 100).await;
    for stream in [&mut resting, &mut over_one] {
        for _ in &tasks {
            stream.change().await;
        }
    }
    // The window of the unread stream stays full.
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("an end").unwrap();
    assert!(ended.is_err(), "the connection is cut without a GOAWAY");
    // The connection of this test's requests has been closed as idle.
    fixture.http = Http::new(fixture.http.address);
    let line = "slotwheel_waiting_requests 2\n";
    fixture.until(|| async { fixture.http.get("/metrics").await.text.contains(line).then_some(()) }).await;
    let closed = fixture.http.get("/metrics").await.text;
    assert!(closed.contains("slotwheel_connections_closed_total{reason=\"write_timeout\"} 1\n"), "{closed}");
    let task = fixture.submit("q", json!(1)).await;
    for stream in [&mut resting, &mut over_one] {
        stream.expect(&task, json!(null), json!("ready")).await;
    }
    drop(unread);
    fixture.end().await;
}

#[tokio::test]
async fn invalid_queues_are_rejected() {
    let fixture = Fixture::start().await;
    let refused = async |query: &str, status: u16| fixture.http.get(&format!("/events{query}")).await.problem(status);
    let at = |code: &str, place: &str| (code.to_owned(), Some(place.to_owned()));
    assert_eq!(refused("?queue=a&queue=%7Ba%7D", 422).await, at("invalid_queue", "?queue"));
    assert_eq!(refused("?queue=", 422).await, at("invalid_queue", "?queue"));
    let many: Vec<String> = (0..33).map(|n| format!("queue=q{n}")).collect();
    assert_eq!(refused(&format!("?{}", many.join("&")), 422).await, at("too_long", "?queue"));
    assert_eq!(refused("?queue=a&state=ready", 400).await, at("invalid_query", "?state"));
    fixture.end().await;
}

#[tokio::test]
async fn streams_get_the_same_events() {
    let fixture = Fixture::start().await;
    let mut streams = join_all((0..50).map(|_| Stream::open(&fixture.http, ""))).await;
    let tasks = submit_many(&fixture, 100).await;
    let wanted: BTreeSet<_> = tasks.iter().map(|task| text(&task["id"]).to_owned()).collect();
    for stream in &mut streams {
        let mut sent = BTreeSet::new();
        for _ in &tasks {
            sent.insert(text(&stream.change().await["id"]).to_owned());
        }
        assert_eq!(sent, wanted);
    }
    fixture.end().await;
}
