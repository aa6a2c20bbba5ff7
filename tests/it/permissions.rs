//! Permissions of the Redis user: the documented ones suffice, channels are optional, and each other missing one is named.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::config::{Durability, RawConfig};
use slotwheel::store::redis::preflight::check_config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::event_stream::Stream;
use crate::support::http::Answer;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, report, report_with, text};

/// Gives the user `wheel` these ACL rules and no others.
async fn set_user(redis: &OwnRedis, rules: &str) {
    let mut command = cmd("ACL");
    command.arg("SETUSER").arg("wheel").arg("reset").arg("on").arg(">secret");
    command.arg(rules.split_whitespace().collect::<Vec<_>>());
    redis.ask::<()>(&command).await;
}

/// Returns the URL of the user `wheel`.
fn url(redis: &OwnRedis) -> String {
    match redis.url.strip_prefix("redis://") {
        Some(address) => format!("redis://wheel:secret@{address}"),
        None => format!("{}?user=wheel&pass=secret", redis.url),
    }
}

/// Returns the ACL rules of docs/redis.md.
fn documented_rules() -> String {
    let page = include_str!("../../docs/redis.md");
    let command = page.split("    ACL SETUSER slotwheel").nth(1).expect("the command").split("\n\n").next().unwrap();
    let words = command.split_whitespace().filter(|word| *word != "\\");
    words.filter(|word| *word != "on" && !word.starts_with('>')).collect::<Vec<_>>().join(" ")
}

/// A poll interval that is too long to make up for a missing wake-up.
const RARE_POLLS: u64 = 60_000;

/// Starts a server as the user `wheel` with these rules.
async fn start(rules: &str, poll_interval_ms: u64) -> Fixture {
    let redis = OwnRedis::start().await;
    set_user(&redis, rules).await;
    let url = url(&redis);
    Fixture::on(redis, url, |written| written.poll_interval_ms = Some(poll_interval_ms)).await
}

/// Returns the subjects of the degradations that /readyz lists.
async fn degraded(fixture: &Fixture) -> Vec<String> {
    let ready = fixture.http.get("/readyz").await.expect(200);
    let degradations = ready["degradations"].as_array().unwrap().iter();
    let missing = degradations.filter(|degradation| degradation["reason"] == "missing_permission");
    missing.map(|degradation| text(&degradation["subject"]).to_owned()).collect()
}

/// Sends requests of each kind, and expects success.
async fn live(fixture: &Fixture) {
    let http = &fixture.http;
    let done = fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_now("q", 1).await.remove(0);
    assert_eq!(claimed["id"], done["id"]);
    http.post("/heartbeat", &json!({"worker": "w", "tasks": [report(&claimed)]})).await.expect(200);
    http.post("/complete", &report(&claimed)).await.expect(200);
    let keyed = json!({"queue": "q", "key": "k", "dedupe": {"key": "d"}, "delay_ms": 1, "expires_in_ms": 60_000});
    let failed = fixture.submit_with(keyed).await;
    fixture.until_state(&failed["id"], "ready").await;
    let claim = json!({"queues": ["q"], "claim_id": "c"});
    let claimed = http.post("/claim", &claim).await.expect(200)["tasks"][0].clone();
    assert_eq!(http.post("/claim", &claim).await.expect(200)["tasks"][0]["lease"], claimed["lease"]);
    let error = json!({"error": {"message": "m"}, "retry": false});
    http.post("/fail", &report_with(&claimed, error)).await.expect(200);
    http.post_nothing(&format!("/tasks/{}/retry", text(&failed["id"]))).await.expect(200);
    let claimed = fixture.claim_now("q", 1).await.remove(0);
    http.post("/release", &report(&claimed)).await.expect(200);
    http.post_nothing(&format!("/tasks/{}/cancel", text(&failed["id"]))).await.expect(200);
    assert_eq!(http.delete(&format!("/tasks/{}", text(&failed["id"]))).await.status, 204);
    http.post_nothing("/queues/q/pause").await.expect(200);
    http.post_nothing("/queues/q/resume").await.expect(200);
    http.post("/queues/q/purge", &json!({"states": ["completed"]})).await.expect(200);
    for path in ["/queues", "/queues/q", "/tasks?queue=q&state=dead", "/stats", "/slots", "/workers"] {
        http.get(path).await.expect(200);
    }
}

/// Returns the tasks of a claim that waits while a task is submitted.
async fn wait_and_submit(fixture: &Fixture) -> Value {
    let http = fixture.http.clone();
    let waiting =
        tokio::spawn(
            async move { http.post("/claim", &json!({"queues": ["w"], "wait_ms": 20_000})).await.expect(200) },
        );
    let line = "slotwheel_waiting_requests 1\n";
    fixture.until(|| async { fixture.http.get("/metrics").await.text.contains(line).then_some(()) }).await;
    // When this claim is answered, the one that waits has checked all shards.
    assert!(fixture.claim_now("w", 1).await.is_empty());
    fixture.submit("w", json!(1)).await;
    waiting.await.unwrap()["tasks"].clone()
}

#[tokio::test]
async fn documented_permissions_suffice_for_server_and_doctor() {
    // The check of scripts calls COMMAND.
    let more = if Flavour::of_this_run() == Flavour::Shim { " +command" } else { "" };
    let mut fixture = start(&format!("{}{more}", documented_rules()), RARE_POLLS).await;
    live(&fixture).await;
    let tasks = wait_and_submit(&fixture).await;
    assert_eq!(tasks.as_array().unwrap().len(), 1, "a wake-up ends the wait, not a poll");
    let mut stream = Stream::open(&fixture.http, "?queue=e").await;
    let task = fixture.submit("e", json!(1)).await;
    stream.expect(&task, json!(null), json!("ready")).await;
    assert_eq!(degraded(&fixture).await, [""; 0]);
    drop(stream);
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(["doctor", "--repair", "--redis-url", &url(&fixture.redis)]).env_remove("SLOTWHEEL_CONFIG");
    let output = crate::support::output(command).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.ends_with("no defects found\n"), "{said}");
    assert!(!said.contains("CONFIG GET is not allowed"), "{said}");
    fixture.stop_servers().await;
    fixture.end().await;
}

#[tokio::test]
async fn user_without_channels_is_served_and_reported_as_degraded() {
    // Redis 7 gives a new user no channels.
    let fixture = start("~* +@all", 150).await;
    live(&fixture).await;
    fixture.until(|| async { (degraded(&fixture).await == ["spublish", "ssubscribe"]).then_some(()) }).await;
    let ready = fixture.http.get("/readyz").await.expect(200);
    assert!(text(&ready["degradations"][0]["detail"]).contains("+spublish +ssubscribe &sw:*"), "{ready}");
    // Each claim that waits checks for tasks first, and submits to an empty queue succeed.
    fixture.submit("empty", json!(1)).await;
    fixture.claim_one("empty").await;
    set_user(&fixture.redis, "~* &* +@all").await;
    fixture.until(|| async { degraded(&fixture).await.is_empty().then_some(()) }).await;
    assert_eq!(wait_and_submit(&fixture).await.as_array().unwrap().len(), 1);
    set_user(&fixture.redis, "~* &other +@all").await;
    fixture.until(|| async { (degraded(&fixture).await == ["spublish", "ssubscribe"]).then_some(()) }).await;
    live(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn queue_known_to_be_empty_is_checked_again_once_no_wakeup_arrives() {
    let mut fixture = start("~* &* +@all", RARE_POLLS).await;
    let other = fixture.another_server().await;
    // A wake-up arrives, and the queue is empty again.
    assert_eq!(wait_and_submit(&fixture).await.as_array().unwrap().len(), 1);
    assert!(fixture.claim_now("w", 1).await.is_empty());

    // Redis closes the connections that use a channel without permission.
    set_user(&fixture.redis, "~* +@all").await;
    fixture.until(|| async { (degraded(&fixture).await.contains(&"ssubscribe".into())).then_some(()) }).await;
    let task = other.post("/tasks", &json!({"queue": "w"})).await.expect(201);

    assert_eq!(fixture.claim_one("w").await["id"], task["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn lost_permission_rejects_requests_until_it_is_granted_again() {
    let fixture = start("~* &* +@all", 150).await;
    fixture.submit("q", json!(1)).await;
    set_user(&fixture.redis, "~* &* +@all -zadd").await;
    let refused = fixture.until(|| async {
        let answer = fixture.http.get("/readyz").await;
        (answer.status == 503 && text(&answer.json()["detail"]).contains("+zadd")).then_some(answer)
    });
    assert_eq!(refused.await.problem(503).0, "unavailable");
    for shard in fixture.store().await.shards() {
        // A completion would write half of its changes.
        assert!(fixture.http.get("/slots").await.status == 503, "{}", shard.index);
    }
    set_user(&fixture.redis, "~* &* +@all").await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.claim_one("q").await;
    fixture.end().await;
}

/// Returns the error of a server that fails to start as the user `wheel`.
async fn refusal(redis: &OwnRedis) -> String {
    let written = RawConfig { listen: Some("127.0.0.1:0".into()), redis_url: Some(url(redis)), ..RawConfig::default() };
    let config = written.resolve().expect("settings");
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let running = slotwheel::app::run(config, listener, CancellationToken::new());
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), running).await.expect("no start");
    format!("{:#}", outcome.expect_err("no start"))
}

#[tokio::test]
async fn start_without_a_required_permission_names_the_missing_rules() {
    let redis = OwnRedis::start().await;
    for (rules, missing) in [
        ("~* &* +@all -zadd -hset", "+hset +zadd"),
        ("~* &* +@all -evalsha", "+evalsha"),
        ("~* &* +@all -hmget -ping", "+hmget +ping"),
        // A server that runs checks the types of keys.
        ("~* &* +@all -type", "+type"),
        ("~* &* +@read +@connection +@scripting +cluster", "+hdel +hset"),
        ("~other:* &* +@all", "~sw:*"),
        ("%R~* &* +@all", "~sw:*"),
    ] {
        set_user(&redis, rules).await;
        let why = refusal(&redis).await;
        assert!(why.contains(missing), "{rules}: {why}");
    }
}

/// The sets of docs/redis.md: their rules, and whether channels are missing.
const COMMON_SETS: [(&str, bool); 8] = [
    ("~* &* +@all", false),
    ("~* +@all", true),
    ("~sw:* &sw:* +@all", false),
    ("~* &* +@all -@admin", false),
    ("~* &* +@all -@dangerous", false),
    ("~sw:* &sw:* +@all -@admin -@dangerous", false),
    ("~* &* +@all -config -info", false),
    ("~sw:* &sw:* +@all -@pubsub", true),
];

#[tokio::test]
async fn common_sets_of_permissions_are_served() {
    let page = include_str!("../../docs/redis.md");
    for (rules, lacks_channels) in COMMON_SETS {
        assert!(page.contains(&format!("| `{rules}` |")), "{rules}");
        let fixture = start(rules, if lacks_channels { 150 } else { RARE_POLLS }).await;
        live(&fixture).await;
        let missing = if lacks_channels { vec!["spublish", "ssubscribe"] } else { vec![] };
        fixture.until(|| async { (degraded(&fixture).await == missing).then_some(()) }).await;
        fixture.end().await;
    }
}

/// Waits until the answer names the authentication. The first 503 may name the killed connection instead.
async fn unauthenticated(fixture: &Fixture, request: impl AsyncFn() -> Answer) -> Answer {
    let refused = fixture.until(|| async {
        let answer = request().await;
        (answer.status == 503 && answer.text.contains("authentication")).then_some(answer)
    });
    let refused = refused.await;
    assert_eq!(refused.problem(503).0, "unavailable");
    refused
}

#[tokio::test]
async fn changed_password_is_503_until_redis_accepts_it_again() {
    let fixture = start("~* &* +@all", 150).await;
    fixture.submit("q", json!(1)).await;
    let deny = async |words: &[&str]| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg("wheel");
        command.arg(words);
        fixture.redis.ask::<()>(&command).await;
        fixture.redis.ask::<i64>(cmd("CLIENT").arg("KILL").arg("USER").arg("wheel")).await;
    };
    for refusal in [&["resetpass", ">other"][..], &["off"]] {
        deny(refusal).await;
        let refused =
            unauthenticated(&fixture, async || fixture.http.post("/tasks", &json!({"queue": "q"})).await).await;
        assert!(refused.header("retry-after").is_some());
        unauthenticated(&fixture, async || fixture.http.get("/readyz").await).await;
        deny(&["on", "resetpass", ">secret"]).await;
        fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    }
    fixture.claim_one("q").await;
    fixture.end().await;
}

#[tokio::test]
async fn password_set_on_an_open_redis_is_503_until_it_is_removed() {
    let fixture = Fixture::start().await;
    let mut admin = crate::support::redis::connect(&fixture.redis.url).await.unwrap();
    let set = cmd("CONFIG").arg("SET").arg("requirepass").arg("new").to_owned();
    set.exec_async(&mut admin).await.unwrap();
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(&mut admin).await.unwrap();
    unauthenticated(&fixture, async || fixture.http.get("/readyz").await).await;
    unauthenticated(&fixture, async || fixture.http.post("/tasks", &json!({"queue": "q"})).await).await;
    let reset = cmd("CONFIG").arg("SET").arg("requirepass").arg("").to_owned();
    reset.exec_async(&mut admin).await.unwrap();
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.submit("q", json!(1)).await;
    fixture.end().await;
}

#[tokio::test]
async fn connection_opened_while_redis_has_a_password_is_used_once_it_has_none() {
    let fixture = Fixture::start().await;
    let store = fixture.store().await;
    let mut admin = crate::support::redis::connect(&fixture.redis.url).await.unwrap();
    let set_password = |password: &str| cmd("CONFIG").arg("SET").arg("requirepass").arg(password).to_owned();
    set_password("new").exec_async(&mut admin).await.unwrap();
    // Puts the connection in the state of one opened now: without a user.
    store.client().send(&cmd("RESET")).await.unwrap();
    set_password("").exec_async(&mut admin).await.unwrap();

    check_config(store.client(), Durability::AsConfigured).await.expect("the settings of Redis");
    fixture.end().await;
}

#[test]
fn documented_permissions_are_those_of_the_code() {
    let rules = format!("resetchannels -@all {}", slotwheel::store::permissions::sufficient_rules("sw"));
    assert_eq!(documented_rules(), rules, "docs/redis.md and src/store/permissions.rs");
}
