//! Outages of Redis: killed, frozen, out of memory, out of disk. Requests are answered in time, do not pile up, and
//! succeed again after the outage.

use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};

use crate::metrics::metrics;
use crate::support::event_stream::Stream;
use crate::support::exposition::Exposition;
use crate::support::proxy::Proxy;
use crate::support::redis::{Flavour, OwnRedis, connect};
use crate::support::{Fixture, report, report_with};

/// A failing request may take the time limit of a call, 4 s. The rest allows for a busy machine.
const DEADLINE: Duration = Duration::from_secs(8);

#[tokio::test]
async fn killed_redis_gives_a_fast_503_until_it_restarts() {
    let mut fixture = Fixture::start().await;
    let kept = fixture.submit("q", json!(1)).await;
    fixture.redis.kill();

    let began = Instant::now();
    let first = fixture.http.post("/tasks", &json!({})).await;
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(first.problem(503).0, "unavailable");
    assert!(first.header("retry-after").is_some());
    // The breaker is open: 200 requests together take no longer than one probe.
    let began = Instant::now();
    let many = (0..200).map(|number| {
        let http = fixture.http.clone();
        async move {
            let answer = match number % 3 {
                0 => http.post("/tasks", &json!({})).await,
                1 => http.post("/claim", &json!({"wait_ms": 30_000})).await,
                _ => http.get("/queues/q").await,
            };
            assert_eq!(answer.problem(503).0, "unavailable");
        }
    });
    futures_util::future::join_all(many).await;
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(fixture.http.get("/readyz").await.status, 503);
    assert_eq!(fixture.http.get("/livez").await.status, 200);
    assert!(!fixture.http.get("/metrics").await.text.contains("slotwheel_shards_unavailable 0\n"));

    fixture.redis.restart().await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    assert_eq!(fixture.claim_one("q").await["id"], kept["id"]);
    assert!(fixture.http.get("/metrics").await.text.contains("slotwheel_shards_unavailable 0\n"));
    fixture.end().await;
}

#[tokio::test]
async fn failed_upkeep_is_counted_for_every_job() {
    let mut fixture = Fixture::start().await;
    let failures = |page: &Exposition, job: &str| {
        page.value("slotwheel_upkeep_failures_total", &[("upkeep_job", job)]).expect("a counter from the start")
    };
    // prune_callers runs every 10 minutes.
    assert_eq!(failures(&metrics(&fixture).await, "prune_callers"), 0.0);
    fixture.redis.kill();

    let jobs = [
        "promote",
        "expire_leases",
        "expire_tasks",
        "purge_retention",
        "dataset_heartbeat",
        "relieve_memory",
        "bound_history",
        "sync_settings",
        "sample_leases",
    ];
    for job in jobs {
        fixture.until(|| async { (failures(&metrics(&fixture).await, job) >= 1.0).then_some(()) }).await;
    }

    fixture.redis.restart().await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.end().await;
}

#[tokio::test]
async fn frozen_redis_gives_503_in_time_and_serves_again_when_resumed() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.redis.freeze();
    let began = Instant::now();
    let many = (0..50).map(|_| {
        let http = fixture.http.clone();
        async move { http.post("/tasks", &json!({"queue": "q", "payload": 2})).await.problem(503).0 }
    });
    futures_util::future::join_all(many).await;
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    fixture.redis.thaw();
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    let new = fixture.submit("q", json!(3)).await;
    assert_eq!(fixture.task(&new["id"]).await["state"], "ready");
    fixture.end().await;
}

/// Submits until Redis rejects a task. Returns the accepted tasks.
async fn fill(fixture: &Fixture, code: &str, status: u16) -> Vec<Value> {
    let payload = json!("x".repeat(50_000));
    let mut accepted = Vec::new();
    loop {
        let answer = fixture.http.post("/tasks", &json!({"queue": "q", "payload": payload, "retain_ms": 10_000})).await;
        if answer.status != 201 {
            assert_eq!(answer.problem(status).0, code);
            return accepted;
        }
        accepted.push(answer.json()["id"].clone());
        assert!(accepted.len() < 2000, "it never fills");
    }
}

#[tokio::test]
async fn full_redis_rejects_new_tasks_and_drains_to_empty() {
    let mut fixture = Fixture::start().await;
    let used: String = fixture.redis.ask(cmd("INFO").arg("memory")).await;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(used + 3_000_000)).await;
    let accepted = fill(&fixture, "store_full", 507).await;
    assert!(!accepted.is_empty());
    // A server can start on a full Redis and drain it.
    fixture.http = fixture.another_server().await;

    let failed = fixture.claim_one("q").await;
    fixture
        .http
        .post("/fail", &report_with(&failed, json!({"error": {"type": "e", "message": "m"}, "retry": false})))
        .await
        .expect(200);
    let released = fixture.claim_one("q").await;
    fixture.http.post("/release", &report(&released)).await.expect(200);
    let beaten = fixture.claim_one("q").await;
    let beat = json!({"worker": "w", "tasks": [report(&beaten)]});
    assert!(fixture.http.post("/heartbeat", &beat).await.expect(200)["tasks"][0]["lease_until"].is_string());
    fixture.http.post("/complete", &report(&beaten)).await.expect(200);
    for _ in 2..accepted.len() {
        let task = fixture.claim_one("q").await;
        fixture.http.post("/complete", &report(&task)).await.expect(200);
    }
    assert_eq!(fixture.counts("q").await["ready"], 0);
    fixture.advance(20_000);
    fixture.until(|| async { (fixture.counts("q").await["completed"] == 0).then_some(()) }).await;
    fixture.submit("q", json!("there is room again")).await;
    fixture.end().await;
}

/// Limits the size of the files that `process` writes.
fn limit_files(process: u32, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let done = std::process::Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    assert!(done.expect("prlimit").success());
}

#[tokio::test]
async fn full_disk_has_its_own_code_and_recovers_by_itself() {
    // A limit on file size fails writes like a full disk.
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let redis = OwnRedis::single(&["--appendfsync", "everysec"]).await;
    let (url, process) = (redis.url.clone(), redis.process());
    let fixture = Fixture::on(redis, url, |_| {}).await;
    fixture.submit("q", json!(1)).await;
    limit_files(process, "300000");
    let accepted = fill(&fixture, "disk_error", 503).await;
    assert_eq!(fixture.http.get("/readyz").await.problem(503).0, "disk_error");
    assert_eq!(fixture.http.post("/claim", &json!({"queues": ["q"]})).await.problem(503).0, "disk_error");
    for id in &accepted {
        fixture.task(id).await;
    }
    limit_files(process, "unlimited");
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    for _ in 0..=accepted.len() {
        fixture.claim_one("q").await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn repeatedly_cut_wakeups_delay_no_task_beyond_the_poll_interval() {
    let fixture = Fixture::start().await;
    let url = fixture.redis.url.clone();
    let cutting = async {
        let mut connection = connect(&url).await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let kill = cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
            let _: i64 = kill.query_async(&mut connection).await.unwrap();
        }
    };
    let working = async {
        for number in 0..20 {
            let waiting = fixture.claim_one("q");
            let submitting = fixture.submit("q", json!(number));
            let (task, _) = tokio::join!(waiting, submitting);
            fixture.http.post("/complete", &report(&task)).await.expect(200);
        }
    };
    // A claim waits at most 10 s and servers poll every 150 ms. Without polls this would take minutes.
    tokio::select! {
        () = cutting => {}
        done = tokio::time::timeout(Duration::from_secs(60), working) => done.expect("in time"),
    }
    fixture.end().await;
}

#[tokio::test]
async fn repeated_script_flushes_change_no_result() {
    let fixture = Fixture::start().await;
    let url = fixture.redis.url.clone();
    let flushing = async {
        let mut connection = connect(&url).await.unwrap();
        loop {
            cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
        }
    };
    let working = async {
        for number in 0..100 {
            fixture.submit("q", json!(number)).await;
            let task = fixture.claim_one("q").await;
            fixture.http.post("/complete", &report(&task)).await.expect(200);
        }
    };
    tokio::select! {
        () = flushing => {}
        () = working => {}
    }
    assert_eq!(fixture.counts("q").await["completed"], 100);
    fixture.end().await;
}

#[tokio::test]
async fn wakeups_arrive_again_after_their_connection_was_cut() {
    // The poll interval is too long to make up for a lost wake-up.
    let fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
    let killed: i64 = fixture.redis.ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
    assert_eq!(killed, 1);
    // A new subscription checks all queues once, which may find the first task.
    for n in 0..3 {
        let http = fixture.http.clone();
        let waiting =
            tokio::spawn(
                async move { http.post("/claim", &json!({"queues": ["q"], "wait_ms": 20_000})).await.expect(200) },
            );
        let line = "slotwheel_waiting_requests 1\n";
        fixture.until(|| async { fixture.http.get("/metrics").await.text.contains(line).then_some(()) }).await;
        // When the later claim is answered, the first has checked all shards and waits.
        assert!(fixture.claim_now("q", 1).await.is_empty());
        fixture.submit("q", json!(n)).await;
        assert_eq!(waiting.await.unwrap()["tasks"][0]["payload"], n, "the claim returns within its wait");
    }
    fixture.end().await;
}

/// Returns for each local connection to `port` whether a keepalive probe is scheduled, and in how many seconds.
fn probed(port: &str) -> Vec<(bool, f64)> {
    let port = format!("0100007F:{:04X}", port.parse::<u16>().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == port && row[3] == "01")
        .map(|row| {
            let (timer, hundredths) = row[5].split_once(':').unwrap();
            (timer == "02", f64::from(u32::from_str_radix(hundredths, 16).unwrap()) / 100.0)
        })
        .collect()
}

#[tokio::test]
async fn idle_connections_to_redis_are_probed() {
    let redis = OwnRedis::start().await;
    let url = match redis.url.strip_prefix("unix://") {
        Some(socket) => Proxy::start(socket.to_owned()).await.url,
        None => redis.url.clone(),
    };
    let port = url.rsplit(':').next().unwrap().to_owned();
    let fixture = Fixture::on(redis, url, |_| {}).await;
    let stream = Stream::open(&fixture.http, "").await;
    // Connections for commands, wake-ups and events.
    let all = || {
        let connections = probed(&port);
        let is_probed = |(probe, due): &(bool, f64)| *probe && *due <= 5.0;
        connections.len() >= 3 && connections.iter().all(is_probed)
    };
    fixture.until(|| async { all().then_some(()) }).await;
    drop(stream);
    fixture.end().await;
}
