//! A panic in any background task ends the process, with a last line that names the thread and the place.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use serde_json::json;
use slotwheel::config::RawConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::support::Http;
use crate::support::redis::OwnRedis;

/// Name of the task to panic in, for a child process of this test.
const PANIC_IN: &str = "SLOTWHEEL_TEST_PANIC_IN";
/// URL of the child's Redis.
const REDIS_URL: &str = "SLOTWHEEL_TEST_REDIS_URL";

/// Background tasks of a server with an external Redis, after a submit.
const TASKS: [&str; 13] = [
    "batcher",
    "claim_loop",
    "dataset_heartbeat",
    "due_jobs",
    "event_subscriptions",
    "poll",
    "prune_callers",
    "sample_leases",
    "stop_waiters",
    "sync_settings",
    "wakeup_forwarder",
    "watch_log",
    "worker_registry",
];

#[tokio::test]
async fn panic_in_any_background_task_ends_the_process_with_a_last_line() {
    if let Ok(name) = std::env::var(PANIC_IN) {
        return serve_until_panic(name).await;
    }
    let mut redis = OwnRedis::start().await;
    for name in TASKS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "--nocapture",
            "panics::panic_in_any_background_task_ends_the_process_with_a_last_line",
        ]);
        child.env(PANIC_IN, name).env(REDIS_URL, &redis.url).env("NO_COLOR", "1");

        let Output { status, stderr, .. } = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();

        let log = String::from_utf8(stderr).unwrap();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(status.signal(), Some(6), "{name}: SIGABRT\n{log}");
        assert!(last.contains("panic: the process aborts") && last.contains("thread="), "{name}: {log}");
        assert!(last.contains("location=\"tests/it/panics.rs:"), "{name}: {log}");
    }
    redis.stop().await;
}

#[test]
fn release_profile_aborts_on_panic() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    assert_eq!(manifest["profile"]["release"]["panic"].as_str(), Some("abort"));
}

/// Serves in this process, whose background task `name` panics when it starts.
async fn serve_until_panic(name: String) {
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(format).with(PanicIn(name)).init();
    slotwheel::cli::abort_on_panic();
    let written = RawConfig {
        listen: Some("127.0.0.1:0".into()),
        redis_url: std::env::var(REDIS_URL).ok(),
        ..RawConfig::default()
    };
    let config = written.resolve().unwrap();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let http = Http::new(listener.local_addr().unwrap());
    let server = tokio::spawn(slotwheel::app::run(config, listener, CancellationToken::new()));
    while !http.is_ready().await {
        assert!(!server.is_finished(), "the server ended");
    }
    http.post("/tasks", &json!({"payload": 1})).await;
    server.await.unwrap().unwrap();
}

/// Panics within the background task of this name.
struct PanicIn(String);

impl<S: Subscriber> Layer<S> for PanicIn {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut name = StartedTask(None);
        event.record(&mut name);
        assert!(name.0.as_ref() != Some(&self.0), "the test panics in {}", self.0);
    }
}

struct StartedTask(Option<String>);

impl Visit for StartedTask {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "background_task" {
            self.0 = Some(value.to_owned());
        }
    }
}
