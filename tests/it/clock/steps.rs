//! Steps of Redis' clock while it runs, by libfaketime.

use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};

use super::{assert_completed_at_once, ms};
use crate::metrics::metrics;
use crate::support::redis::OwnRedis;
use crate::support::{Fixture, report};

const HOUR_S: i64 = 3600;

/// A server on a Redis whose clock the test sets.
async fn start() -> Fixture {
    let redis = OwnRedis::with_own_clock(&[]).await;
    let url = redis.url.clone();
    Fixture::on(redis, url, |_| {}).await
}

/// Sets Redis' clock to `seconds` ahead of the machine's, and waits until the server has noticed it.
async fn set_clock(fixture: &Fixture, seconds: i64) {
    fixture.redis.set_clock(seconds);
    let expected = if seconds == 0 { "ready" } else { "degraded" };
    fixture.until(|| async { (fixture.http.get("/readyz").await.json()["status"] == expected).then_some(()) }).await;
    let shift = metrics(fixture).await;
    let shift = shift.value("slotwheel_clock_shift_seconds", &[]).expect("a gauge");
    assert!((shift + seconds as f64).abs() < 1.0, "{shift} after a step to {seconds}");
}

/// Submits a task with a delay of a second, calls `step`, and returns the wait until the task was claimed.
async fn delayed_over(fixture: &Fixture, step: i64) -> Duration {
    let task = fixture.submit_with(json!({"queue": "delayed", "delay_ms": 1000})).await;
    let began = Instant::now();
    fixture.redis.set_clock(step);
    assert_eq!(fixture.claim_one("delayed").await["id"], task["id"]);
    began.elapsed()
}

async fn leased(fixture: &Fixture) -> Value {
    fixture.submit_with(json!({"queue": "q", "max_attempts": 1})).await;
    fixture.claim_one("q").await
}

#[tokio::test]
async fn clock_set_an_hour_forward_ends_no_lease_delay_or_retention() {
    let fixture = start().await;
    let ended = leased(&fixture).await;
    fixture.http.post("/complete", &report(&ended)).await.expect(200);
    let task = leased(&fixture).await;
    let waiting = fixture.submit_with(json!({"queue": "later", "delay_ms": 600_000, "expires_in_ms": 900_000})).await;
    let keyed = json!({"queue": "keyed", "dedupe": {"key": "k", "window_ms": 60_000}});
    let holder = fixture.submit_with(keyed.clone()).await;
    let once = [("idempotency-key", "once"), ("content-type", "application/json")];
    let body = json!({"queue": "once"}).to_string();
    let first = fixture.http.post_with("/tasks", &once[..1], body.as_bytes()).await.expect(201);

    let waited = delayed_over(&fixture, HOUR_S).await;

    assert!((Duration::from_millis(950)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    set_clock(&fixture, HOUR_S).await;
    assert_eq!(fixture.task(&waiting["id"]).await["state"], "scheduled");
    assert_eq!(fixture.task(&ended["id"]).await["state"], "completed", "kept for an hour");
    assert_eq!(fixture.http.post("/tasks", &keyed).await.expect(200)["id"], holder["id"]);
    let again = fixture.http.post_with("/tasks", &once[..1], body.as_bytes()).await;
    assert_eq!(again.json()["id"], first["id"]);
    // Times are those of the data set.
    assert!((ms(&fixture.submit("q", json!(1)).await["created_at"]) - ms(&first["created_at"])).abs() < 60_000);
    fixture.http.post("/complete", &report(&task)).await.expect(200);
    assert_completed_at_once(&fixture, &task).await;
    let status = fixture.http.get("/readyz").await.expect(200);
    assert_eq!(status["degradations"][0]["reason"], "clock_stepped");
    assert_eq!(status["degradations"][0]["subject"], "shard 0");
    // Redis forgot the counters of the last minutes, so there is no window.
    assert_eq!(fixture.http.get("/stats").await.problem(503).0, "unavailable");

    // The clock is set right again.
    let task = leased(&fixture).await;
    set_clock(&fixture, 0).await;
    fixture.http.post("/complete", &report(&task)).await.expect(200);
    let steps = metrics(&fixture).await;
    let shards = f64::from(fixture.config.shards.expect("a number").count());
    assert_eq!(steps.value("slotwheel_clock_steps_total", &[]), Some(2.0 * shards));
    fixture.end().await;
}

#[tokio::test]
async fn clock_set_an_hour_back_delays_nothing_by_it() {
    let mut fixture = start().await;
    let task = leased(&fixture).await;

    let waited = delayed_over(&fixture, -HOUR_S).await;

    assert!((Duration::from_millis(950)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    set_clock(&fixture, -HOUR_S).await;
    // A server that starts later knows the shift.
    let other = fixture.another_server().await;
    assert_eq!(other.get("/readyz").await.expect(200)["status"], "degraded");
    fixture.advance(61_000);
    assert_eq!(other.post("/complete", &report(&task)).await.problem(409).0, "lease_lost", "it keeps its length");
    fixture.end().await;
}

#[tokio::test]
async fn server_started_after_a_step_does_not_take_it_for_an_outage() {
    let redis = OwnRedis::with_own_clock(&[]).await;
    let url = redis.url.clone();
    // The first server notices a step no earlier than at its next touch.
    let mut fixture = Fixture::on(redis, url, |written| written.poll_interval_ms = Some(60_000)).await;
    let waiting = fixture.submit_with(json!({"queue": "later", "delay_ms": 600_000})).await;
    let record = cmd("HGET").arg(fixture.store().await.first_shard().keys.callers()).arg("clock").clone();
    let touch = || fixture.redis.ask::<String>(&record);
    let last_touch = touch().await;
    fixture.until(|| async { (touch().await != last_touch).then_some(()) }).await;

    fixture.redis.set_clock(HOUR_S);
    let other = fixture.another_server().await;

    let status = other.get("/readyz").await.expect(200);
    assert_eq!(status["degradations"][0]["reason"], "clock_stepped", "{status}");
    assert_eq!(fixture.task(&waiting["id"]).await["state"], "scheduled");
    fixture.end().await;
}

#[tokio::test]
async fn step_during_a_slow_touch_is_measured_by_a_faster_one() {
    let fixture = start().await;
    let shift = || async {
        let store = fixture.store().await;
        store.first_shard().clock.read_shift_ms().await.expect("a shift")
    };
    // Each server touches the clock within a second, and the reply waits for the thaw.
    fixture.redis.freeze();
    fixture.redis.set_clock(-HOUR_S);
    super::pass(&fixture, super::OUTAGE).await;
    fixture.redis.thaw();

    let shift = fixture.until(|| async { Some(shift().await).filter(|shift| *shift != 0) }).await;

    assert!((shift - HOUR_S * 1000).abs() < 600, "{shift}");
    fixture.end().await;
}

/// Shows the touches of a server a clock that is an hour ahead, while a key exists. Only confirm_clock has further arguments.
const AHEAD: &str = "
local real = redis
local redis = setmetatable({ call = function(name, ...)
  local reply = real.call(name, ...)
  if name == 'TIME' and not ARGV[5] and real.call('EXISTS', ARGV[1] .. 'ahead') == 1 then reply[1] = reply[1] + 3600 end
  return reply
end }, { __index = real })";

#[tokio::test]
async fn clock_set_back_before_its_step_is_confirmed_is_judged_again() {
    let fixture = Fixture::start().await;
    let before = fixture.submit("q", json!(1)).await;
    let store = fixture.store_with(&fixture.redis.url, AHEAD).await;
    let shard = store.first_shard();
    shard.touch_clock().await.expect("a touch");
    let ahead = format!("{}ahead", shard.keys.base());
    fixture.redis.ask::<()>(cmd("SET").arg(&ahead).arg("x")).await;

    let confirmed = shard.touch_clock().await;

    assert!(confirmed.is_err(), "the clock differs from the one that was judged");
    fixture.redis.ask::<()>(cmd("DEL").arg(&ahead)).await;
    assert_eq!(shard.clock.read_shift_ms().await.expect("a shift"), 0);
    let after = fixture.submit("q", json!(2)).await;
    assert!((0..60_000).contains(&(ms(&after["created_at"]) - ms(&before["created_at"]))), "{after}");
    fixture.end().await;
}

#[tokio::test]
async fn clock_set_during_an_outage_prolongs_leases_by_the_outage_alone() {
    let fixture = start().await;
    fixture.submit_with(json!({"queue": "q", "max_attempts": 1})).await;
    let claim = json!({"queues": ["q"], "lease_ms": 1000});
    let task = fixture.http.post("/claim", &claim).await.expect(200)["tasks"][0].clone();
    fixture.redis.freeze();
    fixture.redis.set_clock(HOUR_S);
    super::pass(&fixture, super::OUTAGE).await;
    fixture.redis.thaw();

    fixture
        .until(|| async { (fixture.http.post("/complete", &report(&task)).await.status == 200).then_some(()) })
        .await;

    assert_completed_at_once(&fixture, &task).await;
    let key = fixture.store().await.first_shard().keys.outages();
    let outages: Vec<String> = fixture.redis.ask(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await;
    let (from, until) = outages[0].split_once(' ').expect("two times");
    let length = until.parse::<i64>().expect("a time") - from.parse::<i64>().expect("a time");
    assert!((2000..10_000).contains(&length), "{length}");
    fixture.end().await;
}

#[tokio::test]
async fn accepted_clock_ends_the_shift_and_no_lease() {
    let fixture = start().await;
    let task = leased(&fixture).await;
    set_clock(&fixture, HOUR_S).await;
    let doctor = async |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        command.args(["doctor", "--redis-url", &fixture.redis.url]).args(more);
        let output = crate::support::output(command).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(doctor(&[]).await.contains("ADVICE shard 0: the clock of Redis was set, and the shard's is shifted by -"));

    assert!(doctor(&["--accept-clock"]).await.contains("shard 0 uses Redis' clock again, without the shift of -"));

    fixture.until(|| async { (fixture.http.get("/readyz").await.json()["status"] == "ready").then_some(()) }).await;
    let now = ms(&fixture.submit("other", json!(1)).await["created_at"]);
    assert!(now - ms(&task["lease_until"]) > 1000 * HOUR_S - 120_000, "an hour later");
    fixture.http.post("/complete", &report(&task)).await.expect(200);
    assert_completed_at_once(&fixture, &task).await;
    assert!(!doctor(&[]).await.contains("the clock of Redis"));
    fixture.end().await;
}
