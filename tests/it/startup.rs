//! Start-up: a server rejects an unsuitable Redis or data set with an explanation.

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::config::RawConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, text};

/// Returns the error of a server that fails to start with these settings.
async fn refusal(written: RawConfig) -> String {
    let config = RawConfig { listen: Some("127.0.0.1:0".into()), ..written }.resolve().expect("settings");
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let error = slotwheel::app::run(config, listener, CancellationToken::new()).await.expect_err("no start");
    format!("{error:#}")
}

#[tokio::test]
async fn shard_count_is_recorded_and_never_changes() {
    let mut fixture = Fixture::with_shards(16).await;
    fixture.submit("q", json!(1)).await;
    fixture.stop_servers().await;

    let redis_url = Some(fixture.redis.url.clone());
    let why = refusal(RawConfig { redis_url, shards: Some(4), ..RawConfig::default() }).await;

    assert!(why.contains("created with 16 shards") && why.contains("--shards 16"), "{why}");
    fixture.config.shards = None;
    fixture.http = fixture.another_server().await;
    assert_eq!(fixture.http.get("/slots").await.expect(200)["shards"].as_array().unwrap().len(), 16);
    fixture.end().await;
}

#[tokio::test]
async fn data_set_of_another_layout_is_refused_and_unchanged() {
    let mut fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.stop_servers().await;
    let store = fixture.store().await;
    let meta = store.first_shard().keys.meta();
    for (layout, shown) in [(None, "layout 1"), (Some("6"), "layout 6")] {
        let mut change = cmd(if layout.is_some() { "HSET" } else { "HDEL" });
        fixture.redis.ask::<()>(change.arg(&meta).arg("layout").arg(layout)).await;
        let before: Vec<String> = fixture.redis.ask(cmd("HGETALL").arg(&meta)).await;

        let redis_url = Some(fixture.redis.url.clone());
        let why = refusal(RawConfig { redis_url, ..RawConfig::default() }).await;
        assert!(why.contains(shown) && why.contains("layout 5") && why.contains("--prefix"), "{why}");
        assert_eq!(fixture.redis.ask::<Vec<String>>(cmd("HGETALL").arg(&meta)).await, before);
    }
    fixture.redis.ask::<()>(cmd("HSET").arg(&meta).arg("layout").arg(5)).await;
    fixture.http = fixture.another_server().await;
    fixture.claim_one("q").await;
    fixture.end().await;
}

#[tokio::test]
async fn redis_with_an_eviction_policy_is_rejected() {
    let redis = OwnRedis::with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let why = refusal(RawConfig { redis_url: Some(redis.url.clone()), ..RawConfig::default() }).await;
    assert!(why.contains("maxmemory-policy is allkeys-lru") && why.contains("noeviction"), "{why}");
}

#[tokio::test]
async fn readiness_reports_an_eviction_policy_set_later() {
    let fixture = Fixture::start().await;
    fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;
    let answer = fixture.http.get("/readyz").await;
    assert_eq!(answer.problem(503).0, "unavailable");
    assert!(text(&answer.json()["detail"]).contains("noeviction"));
    fixture.end().await;
}

#[tokio::test]
async fn redis_url_sets_user_password_and_database() {
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let redis = OwnRedis::start().await;
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("wheel").arg("on").arg(">secret").arg("~*").arg("&*").arg("+@all");
    redis.ask::<()>(&user).await;
    let url = format!("{}?db=3&user=wheel&pass=secret", redis.url);
    let wrong = refusal(RawConfig { redis_url: Some(url.replace("secret", "wrong")), ..RawConfig::default() });
    let url_of_redis = redis.url.clone();
    let mut fixture = Fixture::on(redis, url, |_| {}).await;
    fixture.submit("q", json!(1)).await;
    let keyspace: String = fixture.redis.ask(cmd("INFO").arg("keyspace")).await;
    assert!(keyspace.contains("db3:") && !keyspace.contains("db0:"), "{keyspace}");
    let why = wrong.await;
    assert!(!why.contains("wrong"), "the password is not shown: {why}");
    // The audit reads the database that the server wrote to.
    fixture.redis.url = format!("{url_of_redis}?db=3");
    fixture.end().await;
}

#[tokio::test]
async fn redis_is_reached_over_tls() {
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let directory = crate::support::redis::TempDir::new();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    certificates(directory.path());
    let port = crate::support::ports::free_port().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("redis.crt"), path("redis.key"));
    let redis = OwnRedis::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://localhost:{port}");
    let unknown = refusal(RawConfig { redis_url: Some(url.clone()), ..RawConfig::default() });
    let why = tokio::time::timeout(std::time::Duration::from_secs(60), unknown).await.expect("a refusal");
    assert!(why.contains("certificate") || why.contains("UnknownIssuer"), "{why}");
    let fixture = Fixture::on(redis, url, |written| written.redis_ca = Some(ca.into())).await;
    fixture.submit("q", json!(1)).await;
    fixture.claim_one("q").await;
    fixture.end().await;
}

/// Creates a certificate authority and a certificate for localhost.
fn certificates(directory: &std::path::Path) {
    let run = |arguments: &[&str]| {
        let done =
            std::process::Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        "2",
        "-subj",
        "/CN=test ca",
    ]);
    run(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "redis.key",
        "-out",
        "redis.csr",
        "-subj",
        "/CN=localhost",
    ]);
    std::fs::write(directory.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    run(&[
        "x509",
        "-req",
        "-in",
        "redis.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "ext",
        "-out",
        "redis.crt",
    ]);
}
