//! The script checker, under which the suite runs once, finds each fault that it must find.

use deadpool_redis::redis::{self, cmd};

use crate::support::SHIM;
use crate::support::redis::{OwnRedis, connect};

/// Runs a script with this body under the checker.
async fn run(redis: &OwnRedis, body: &str) -> redis::RedisResult<redis::Value> {
    let mut connection = connect(&redis.url).await?;
    let text = format!("#!lua\n{SHIM}\nlocal call, base = redis.call, ARGV[1]\n{body}");
    cmd("EVAL").arg(text).arg(1).arg("sw:{0}:callers").arg("sw:{0}:").query_async(&mut connection).await
}

#[tokio::test]
async fn checker_finds_each_fault_and_accepts_a_correct_script() {
    let redis = OwnRedis::start().await;
    for (fault, body) in [
        ("leaves the base", "call('GET', 'elsewhere{0}')"),
        ("first touched after a write", "call('HGET', base .. 'a', 'f') call('HSET', base .. 'b', 'f', 1)"),
        (
            "first touched after a write",
            "call('EXISTS', base .. 'a') call('HSET', base .. 'a', 'f', 1) call('GET', base .. 'c')",
        ),
        (
            "writes after a wake-up",
            "call('EXISTS', base .. 'a') call('SPUBLISH', base .. 's', 1) call('SET', base .. 'a', 1)",
        ),
        (
            "touches an emptied key",
            "call('EXISTS', base .. 'z') call('ZADD', base .. 'z', 1, 'm') call('ZREM', base .. 'z', 'm') call('ZCARD', base .. 'z')",
        ),
    ] {
        let found = run(&redis, body).await.expect_err(fault).to_string();
        assert!(found.contains("SHIM") && found.contains(fault), "{body}: {found}");
    }
    let body = "call('EXISTS', base .. 'y') call('ZADD', base .. 'y', 1, 'm') call('ZREM', base .. 'y', 'm') return 1";
    run(&redis, body).await.expect("nothing is found");
}
