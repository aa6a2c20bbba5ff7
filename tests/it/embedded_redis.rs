//! The embedded Redis.

use std::os::unix::fs::PermissionsExt as _;

use slotwheel::config::{Durability, MaxMemory, RawConfig};
use slotwheel::store::redis::embedded::{EmbeddedRedis, EmbeddedRedisError};
use tokio_util::sync::CancellationToken;

use deadpool_redis::redis::{self, cmd};

use crate::support::poll::poll;
use crate::support::redis::{TempDir, connect};

async fn ask(url: &str, words: &[&str]) -> redis::RedisResult<Vec<String>> {
    let mut connection = connect(url).await?;
    cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
}

async fn setting(url: &str, name: &str) -> String {
    ask(url, &["CONFIG", "GET", name]).await.unwrap()[1].clone()
}

/// Returns the process id that Redis reports.
async fn pid(url: &str) -> String {
    let mut connection = connect(url).await.unwrap();
    let info: String = cmd("INFO").arg("server").query_async(&mut connection).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned()
}

/// Sends the command until the reply satisfies `wanted`.
async fn until(url: &str, words: &[&str], wanted: impl Fn(&redis::RedisResult<Vec<String>>) -> bool) {
    let check = || async { wanted(&ask(url, words).await).then_some(()) };
    poll(std::time::Duration::from_secs(20), check).await.expect("the reply within 20 s");
}

fn kill(pid: &str) {
    assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

#[tokio::test]
async fn embedded_redis_is_private_durable_and_compact() {
    let directory = TempDir::new();
    let home = directory.path().join("data");
    let managed = EmbeddedRedis::start(&home, Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
    let url = managed.url();
    assert_eq!(std::fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    for (name, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxmemory-policy", "noeviction"),
        ("hash-max-listpack-value", "4096"),
        ("port", "0"),
    ] {
        assert_eq!(setting(&url, name).await, value, "{name}");
    }
    managed.stop().await;
    assert!(connect(&url).await.is_err(), "redis-server has stopped");
}

#[tokio::test]
async fn embedded_redis_may_use_half_of_the_memory_by_default() {
    let directory = TempDir::new();
    let max_memory = RawConfig::default().resolve().expect("settings").embedded_max_memory;
    let managed = EmbeddedRedis::start(directory.path(), Durability::Fsync, max_memory).await.unwrap();

    let limit: u64 = setting(&managed.url(), "maxmemory").await.parse().unwrap();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap();
    let machine = machine.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap().trim_end_matches("kB");
    let half = machine.trim().parse::<u64>().unwrap() * 1024 / 2;
    // A container may have less than the machine.
    assert!(limit > 0 && limit <= half, "{limit} of {half}");

    // The next server has another limit, and adopts this Redis.
    drop(managed);
    let managed = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(12_345_678)).await;
    let managed = managed.unwrap();
    assert_eq!(setting(&managed.url(), "maxmemory").await, "12345678");
    managed.stop().await;
}

#[tokio::test]
async fn servers_never_share_a_data_directory() {
    let directory = TempDir::new();
    let managed = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
    assert!(matches!(
        EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await,
        Err(EmbeddedRedisError::InUse(_))
    ));
    managed.stop().await;
    EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap().stop().await;
}

#[tokio::test]
async fn running_embedded_redis_is_adopted() {
    let directory = TempDir::new();
    let first = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
    let before = pid(&first.url()).await;
    // A crash of the server releases the lock and leaves Redis running.
    drop(first);
    let second = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
    assert_eq!(pid(&second.url()).await, before);
    let url = second.url();
    second.stop().await;
    assert!(connect(&url).await.is_err());
}

#[tokio::test]
async fn redis_with_another_data_directory_is_not_adopted() {
    let (directory, elsewhere) = (TempDir::new(), TempDir::new());
    let socket = directory.path().join("redis.sock");
    let mut stranger = std::process::Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", socket.to_str().unwrap(), "--save", ""])
        .current_dir(elsewhere.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("unix://{}", socket.display());
    until(&url, &["CONFIG", "GET", "dir"], Result::is_ok).await;
    let refused = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await;
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(matches!(refused, Err(EmbeddedRedisError::ForeignRedis { .. })), "{refused:?}");
}

#[tokio::test]
async fn embedded_redis_that_dies_is_restarted_with_its_data() {
    let directory = TempDir::new();
    for adopted in [false, true] {
        let mut managed = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
        if adopted {
            drop(managed);
            managed = EmbeddedRedis::start(directory.path(), Durability::Fsync, MaxMemory::Bytes(0)).await.unwrap();
        }
        let url = managed.url();
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(managed.supervise(stop.clone()));
        let _ = ask(&url, &["RPUSH", "list", "x"]).await;
        kill(&pid(&url).await);
        until(&url, &["LRANGE", "list", "0", "0"], |answer| answer.as_ref().is_ok_and(|list| list == &["x"])).await;
        stop.cancel();
        keeper.await.unwrap();
        assert!(connect(&url).await.is_err());
    }
}

#[tokio::test]
async fn path_too_long_for_a_socket_is_rejected_with_an_explanation() {
    let directory = TempDir::new();
    let long = directory.path().join("x".repeat(90));
    assert!(matches!(
        EmbeddedRedis::start(&long, Durability::Fsync, MaxMemory::Bytes(0)).await,
        Err(EmbeddedRedisError::PathTooLong(_))
    ));
}
