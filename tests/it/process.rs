//! The binary as a user runs it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::store::layout::queue::Field;

use crate::support::Http;
use crate::support::poll::poll;
use crate::support::raw_client::{Raw, get};
use crate::support::records::raised;
use crate::support::redis::TempDir;

fn slotwheel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(arguments).env_remove("SLOTWHEEL_CONFIG").stdin(Stdio::null());
    command
}

struct Running {
    child: Child,
    http: Http,
}

async fn start(data_dir: &Path) -> Running {
    start_with(&mut slotwheel(&["--data-dir", data_dir.to_str().unwrap()])).await
}

/// Starts it on a port that the system chooses, and reads the port from its log.
async fn start_with(command: &mut Command) -> Running {
    let mut child = command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(said.send(line))));
    let line = || heard.recv_timeout(Duration::from_secs(30)).expect("it says that it listens");
    let address = std::iter::repeat_with(line).find_map(|line| address(&line)).unwrap();
    Running { child, http: Http::new(address) }
}

fn address(line: &str) -> Option<SocketAddr> {
    line.split_once("listening address=")?.1.split(' ').next()?.parse().ok()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Whether no Redis listens on the socket.
fn is_silent(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_err()
}

/// Stops the server, and checks that it exits with success in time. It is killed otherwise.
async fn stops(child: Child) {
    signal(&child, "-TERM");
    let ending = Mutex::new(child);
    let ended = poll(Duration::from_secs(20), || async { ending.lock().unwrap().try_wait().unwrap() }).await;
    let mut child = ending.into_inner().unwrap();
    let _ = (child.kill(), child.wait());
    assert!(ended.is_some_and(|status| status.success()));
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn tasks_survive_a_stop_and_a_crash() {
    let directory = TempDir::new();
    let mut server = start(directory.path()).await;
    server.http.post("/tasks", &json!({"payload": 1})).await.expect(201);
    signal(&server.child, "-TERM");
    assert!(server.child.wait().unwrap().success());

    let mut server = start(directory.path()).await;
    server.http.post("/tasks", &json!({"payload": 2})).await.expect(201);
    signal(&server.child, "-KILL");
    server.child.wait().unwrap();

    let mut server = start(directory.path()).await;
    let tasks = server.http.post("/claim", &json!({"max": 10})).await.expect(200)["tasks"].clone();
    let payloads: Vec<_> = tasks.as_array().unwrap().iter().map(|task| task["payload"].clone()).collect();
    assert_eq!(payloads, [json!(1), json!(2)]);
    signal(&server.child, "-INT");
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test]
async fn waiters_get_an_empty_reply_when_the_server_stops() {
    let directory = TempDir::new();
    let mut server = start(directory.path()).await;
    let http = server.http.clone();
    let waiting = tokio::spawn(async move { http.post("/claim", &json!({"wait_ms": 60_000})).await });
    // A later claim is answered later: by then the first claim waits.
    server.http.post("/claim", &json!({"queues": ["other"]})).await.expect(200);
    signal(&server.child, "-TERM");
    assert_eq!(waiting.await.unwrap().expect(200), json!({"tasks": []}));
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test]
async fn server_with_a_closed_log_pipe_serves_and_stops() {
    let directory = TempDir::new();
    let mut command = slotwheel(&["--data-dir", directory.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let http = Http::new(lines.map_while(Result::ok).find_map(|line| address(&line)).unwrap());

    http.post("/tasks", &json!({"payload": 1})).await.expect(201);
    stops(child).await;
}

#[tokio::test]
async fn server_whose_log_nobody_reads_serves_and_counts_the_dropped_lines() {
    let directory = TempDir::new();
    let data_dir = directory.path().to_str().unwrap();
    let mut command = slotwheel(&["--data-dir", data_dir, "--listen", "127.0.0.1:0", "--log", "trace"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let http = Http::new(lines.by_ref().map_while(Result::ok).find_map(|line| address(&line)).unwrap());

    // The pipe takes 64 KiB, the buffer 4096 lines.
    let degraded = poll(Duration::from_secs(300), || async {
        for _ in 0..100 {
            http.post("/tasks", &json!({"payload": 1})).await.expect(201);
        }
        let ready = http.get("/readyz").await.expect(200);
        (ready["degradations"][0]["reason"] == "log_lines_dropped").then_some(())
    });
    degraded.await.expect("dropped lines are reported");
    http.get("/livez").await.expect(200);
    let metrics = http.get("/metrics").await.text;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("slotwheel_log_lines_dropped_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0);

    stops(child).await;
    drop(lines);
}

#[tokio::test]
async fn server_ignores_a_hangup_and_a_doctor_stops_its_redis_on_one() {
    let directory = TempDir::new();
    let mut server = start(directory.path()).await;
    signal(&server.child, "-HUP");
    server.http.post("/tasks", &json!({"payload": 1})).await.expect(201);
    signal(&server.child, "-TERM");
    assert!(server.child.wait().unwrap().success());

    let socket = directory.path().join("redis.sock");
    for name in ["-HUP", "-INT", "-TERM"] {
        let mut doctor = slotwheel(&["doctor", "--data-dir", directory.path().to_str().unwrap()]);
        let mut doctor = doctor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A doctor that ends before it is seen has stopped its Redis too.
        while is_silent(&socket) && doctor.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        // Fails if it has ended.
        let _ = Command::new("kill").args([name, &doctor.id().to_string()]).stderr(Stdio::null()).status().unwrap();
        doctor.wait().unwrap();
        let ended = poll(Duration::from_secs(20), || async { is_silent(&socket).then_some(()) }).await;
        assert!(ended.is_some(), "{name}: a Redis is left");
    }
}

#[test]
fn command_whose_output_is_closed_completes_with_its_exit_code() {
    let closed = || std::io::pipe().unwrap().1;
    let directory = TempDir::new();
    let data_dir = directory.path().to_str().unwrap();

    let doctor = slotwheel(&["doctor", "--data-dir", data_dir]).stdout(closed()).output().unwrap();
    let healthcheck = slotwheel(&["healthcheck", "--listen", "127.0.0.1:1"]).stderr(closed()).output().unwrap();

    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor));
    let socket = std::os::unix::net::UnixStream::connect(directory.path().join("redis.sock"));
    assert!(socket.is_err(), "the doctor stops the Redis that it started");
    assert_eq!(healthcheck.status.code(), Some(1), "{}", text(&healthcheck));
}

#[tokio::test]
async fn doctor_and_healthcheck_report_the_state() {
    let directory = TempDir::new();
    let data_dir = directory.path().to_str().unwrap().to_owned();
    let nothing = slotwheel(&["doctor", "--data-dir", &data_dir]).output().unwrap();
    assert!(text(&nothing).contains("no data set"), "{}", text(&nothing));

    let mut server = start(directory.path()).await;
    server.http.post("/tasks", &json!({"payload": 1})).await.expect(201);
    let listen = server.http.address.to_string();
    let health = slotwheel(&["healthcheck", "--listen", &listen]).output().unwrap();
    assert!(health.status.success(), "{}", text(&health));
    let doctor = slotwheel(&["doctor", "--data-dir", &data_dir]).output().unwrap();
    assert!(doctor.status.success() && text(&doctor).contains("no defects found"), "{}", text(&doctor));

    let socket = format!("unix://{data_dir}/redis.sock");
    let mut redis = deadpool_redis::redis::Client::open(socket.clone()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = cmd("KEYS").arg("*:callers").query(&mut redis).unwrap();
    let field = "queue:default";
    let record = |key: &String| {
        let mut connection = deadpool_redis::redis::Client::open(socket.clone()).unwrap().get_connection().unwrap();
        cmd("HGET").arg(key).arg(field).query::<Option<Vec<u8>>>(&mut connection).unwrap()
    };
    let (key, stored) = keys.iter().find_map(|key| Some((key, record(key)?))).unwrap();
    let changed = raised(field, &stored, Field::ready, 1);
    cmd("HSET").arg(key).arg(field).arg(changed).exec(&mut redis).unwrap();
    let doctor = slotwheel(&["doctor", "--data-dir", &data_dir]).output().unwrap();
    assert!(!doctor.status.success() && text(&doctor).contains("count of ready is 2, expected 1"), "{}", text(&doctor));

    signal(&server.child, "-TERM");
    assert!(server.child.wait().unwrap().success());
    let health = slotwheel(&["healthcheck", "--listen", &listen]).output().unwrap();
    assert!(!health.status.success());
}

#[tokio::test]
async fn invalid_settings_are_rejected_with_an_explanation() {
    for (arguments, word) in [
        (&["--listen", "0.0.0.0:0"][..], "--insecure"),
        (&["--shards", "3"], "power of two"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["--listen", "127.0.0.1:0", "--redis-url", "redis://127.0.0.1:1/x"], "redis"),
        (&["--colour"], "--colour"),
    ] {
        let output = slotwheel(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output).to_lowercase().contains(word), "{arguments:?}: {}", text(&output));
    }
}

#[tokio::test]
async fn full_disk_under_the_embedded_redis_recovers_by_itself() {
    let directory = TempDir::new();
    // A limit on file size has the effect of a full disk. Redis, which flushes every write before it answers, exits
    // and is restarted.
    let limited = "trap '' XFSZ; exec prlimit --fsize=400000:unlimited \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, "sh", env!("CARGO_BIN_EXE_slotwheel"), "--data-dir"]).arg(directory.path());
    let mut server = start_with(command.stdin(Stdio::null())).await;
    let payload = json!({"payload": "x".repeat(50_000)});
    let mut accepted = 0;
    let refused = loop {
        let answer = server.http.post("/tasks", &payload).await;
        if answer.status != 201 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "it never fills");
    };
    assert!(["disk_error", "unavailable"].contains(&refused.problem(503).0.as_str()), "{}", refused.text);
    let process = server.child.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &process, "--fsize=unlimited:unlimited"]).status();
    assert!(lifted.unwrap().success());
    let recovered = async { while server.http.post("/tasks", &json!({"queue": "after"})).await.status != 201 {} };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("it goes on by itself");
    let mut claimed = 0;
    loop {
        let tasks = server.http.post("/claim", &json!({"max": 10})).await.expect(200)["tasks"].clone();
        match tasks.as_array().unwrap().len() {
            0 => break,
            more => claimed += more,
        }
    }
    // The rejected submit may have been stored: its outcome is unknown.
    assert!(claimed == accepted || claimed == accepted + 1, "{accepted} were accepted, {claimed} are there");
    signal(&server.child, "-TERM");
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test]
async fn start_logs_version_address_contract_data_and_redis_version() {
    let directory = TempDir::new();
    let data_dir = directory.path().to_str().unwrap().to_owned();
    let mut command = slotwheel(&["--data-dir", &data_dir, "--listen", "127.0.0.1:0"]);
    let mut child = command.env("NO_COLOR", "1").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);

    let first = lines.next().unwrap();
    let listening = lines.find(|line| line.contains("listening")).unwrap();

    assert!(first.contains("starting") && first.contains(env!("CARGO_PKG_VERSION")), "{first}");
    let address = address(&listening).unwrap();
    for part in
        [format!("contract=\"http://{address}/openapi.yaml\""), format!("data={data_dir}"), "redis_version=".into()]
    {
        assert!(listening.contains(&part), "{part}: {listening}");
    }
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn help_shows_the_default_of_each_setting() {
    let output = slotwheel(&["serve", "--help"]).output().unwrap();

    let help = text(&output);
    for (flag, default) in [("--listen", "127.0.0.1:8080"), ("--replicas", "1"), ("--limits-max-headers", "100")] {
        let (_, entry) = help.split_once(flag).unwrap();
        let entry = entry.split("\n  ").take(4).collect::<Vec<_>>().join(" ");
        assert!(entry.contains(&format!("[default: {default}]")), "{flag}: {help}");
    }
}

#[tokio::test]
async fn missing_redis_server_is_reported_with_what_to_install() {
    let directory = TempDir::new();
    let data_dir = directory.path().to_str().unwrap().to_owned();
    let output =
        slotwheel(&["--listen", "127.0.0.1:0", "--data-dir", &data_dir]).env("PATH", "/nowhere").output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("apt-get install redis-server"), "{}", text(&output));
}

#[tokio::test]
async fn server_clock_a_day_off_changes_no_lease_or_delay() {
    let directory = TempDir::new();
    let library = crate::support::redis::faketime_library();
    let mut redis = crate::support::redis::OwnRedis::single(&[]).await;
    let mut command = slotwheel(&["--redis-url", &redis.url, "--poll-interval-ms", "100"]);
    command.env("LD_PRELOAD", library).env("FAKETIME", "+1d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let Running { mut child, http } = start_with(command.current_dir(directory.path())).await;

    let real = jiff::Timestamp::now();
    let task = http.post("/tasks", &json!({"delay_ms": 300, "expires_in_ms": 3_600_000})).await.expect(201);
    let time = |name: &str| task[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert!((time("created_at") - real.as_millisecond()).abs() < 10_000, "created by Redis' clock");
    assert_eq!(time("run_at") - time("created_at"), 300);
    assert!(http.post("/claim", &json!({})).await.expect(200)["tasks"].as_array().unwrap().is_empty());
    let claimed = http.post("/claim", &json!({"wait_ms": 20_000})).await.expect(200)["tasks"][0].clone();
    assert_eq!(claimed["id"], task["id"]);
    let until = claimed["lease_until"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert!((until - real.as_millisecond()) < 120_000, "leased by Redis' clock");
    http.post("/complete", &crate::support::report(&claimed)).await.expect(200);

    child.kill().unwrap();
    child.wait().unwrap();
    redis.stop().await;
}

#[tokio::test]
async fn server_at_its_open_files_limit_rejects_connections_and_serves() {
    let mut redis = crate::support::redis::OwnRedis::single(&[]).await;
    let binary = env!("CARGO_BIN_EXE_slotwheel");
    let mut command = Command::new("bash");
    // 256 files are reserved for other uses.
    command.args(["-c", "ulimit -n 276 && exec \"$0\" \"$@\"", binary, "--redis-url", &redis.url]);
    command.env_remove("SLOTWHEEL_CONFIG").stdin(Stdio::null());
    let Running { mut child, http } = start_with(&mut command).await;
    http.post("/tasks", &json!({})).await.expect(201);
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut raw = Raw::connect(http.address).await;
        if held.len() < 19 {
            raw.send(&get("/livez")).await;
            assert_eq!(raw.answer().await.expect("an answer").status, 200);
            held.push(raw);
        } else if raw.answer().await.is_none_or(|answer| answer.status == 503) {
            refused += 1;
        }
    }
    assert_eq!(refused, 81);
    http.post("/claim", &json!({})).await.expect(200);
    child.kill().unwrap();
    child.wait().unwrap();
    redis.stop().await;
}
