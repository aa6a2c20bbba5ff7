//! The counters behind `/stats`, as scripts keep them in Redis.

use std::collections::BTreeMap;

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::histogram::Bucket;
use slotwheel::domain::task::NewTask;
use slotwheel::store::Caller;
use slotwheel::store::ops::submit::{Offers, submit};
use slotwheel::store::views::stats::read_window;

use crate::support::script_lab::{Lab, queue, task};
use crate::support::{Fixture, Http, report};

#[tokio::test]
async fn wait_buckets_of_scripts_are_those_of_the_histogram() {
    let fixture = Fixture::start().await;
    let waits = [0, 15, 16, 17, 31, 32, 33, 100, 1000, 4095, 4096, 86_400_000];
    for wait in waits {
        let queue = format!("w{wait}");
        fixture.submit(&queue, json!(1)).await;
        fixture.advance(wait);
        fixture.claim_now(&queue, 1).await;
        fixture.advance(6000);
        let path = format!("/stats?queue={queue}&window_ms=10000");
        let stats = fixture.http.get(&path).await.expect(200);
        // The mean is exact, and the quantile lies in the mean's bucket.
        let (mean, p50) = (stats["wait_mean_ms"].as_f64().unwrap(), stats["wait_p50_ms"].as_f64().unwrap());
        let (low, high) = Bucket::of_ms(mean as u64).bounds();
        assert!((low as f64..high as f64).contains(&p50), "{wait}: {mean} {p50} not in {low}..{high}");
    }
    fixture.end().await;
}

async fn two_minutes(http: &Http) -> Value {
    http.get("/stats?queue=q&window_ms=120000").await.expect(200)
}

#[tokio::test]
async fn servers_agree_on_a_window_also_within_2_s_of_a_restart() {
    let mut fixture = Fixture::start().await;
    let second = fixture.another_server().await;
    for n in 0..20 {
        let http = if n % 2 == 0 { &fixture.http } else { &second };
        http.post("/tasks", &json!({"queue": "q"})).await.expect(201);
        let worker = format!("w{}", n % 4);
        let body = json!({"queues": ["q"], "worker": worker, "concurrency": 1 + n % 2, "wait_ms": 10_000});
        let claimed = http.post("/claim", &body).await.expect(200);
        fixture.advance(10 + n);
        fixture.http.post("/complete", &report(&claimed["tasks"][0])).await.expect(200);
    }
    // Each server has written its workers.
    fixture.advance(6000);
    fixture.until(|| async { (two_minutes(&fixture.http).await["n"] == 6).then_some(()) }).await;
    let all = fixture
        .until(|| async {
            let all = [two_minutes(&fixture.http).await, two_minutes(&second).await];
            (all[0]["window_end"] == all[1]["window_end"]).then_some(all)
        })
        .await;
    assert_eq!(all[0], all[1]);
    fixture.stop_last_server().await;
    // Unless the machine is busy, the window is read within 2 s of the start.
    let again = fixture.another_server().await;
    let restarted = two_minutes(&again).await;
    let other = two_minutes(&fixture.http).await;
    // Unless a new window has begun between the two readings.
    if restarted["window_end"] == other["window_end"] {
        assert_eq!(restarted, other);
    } else {
        assert_eq!(two_minutes(&again).await, other);
    }
    assert_eq!((&all[0]["submitted"], &all[0]["completed"]), (&json!(20), &json!(20)));
    fixture.end().await;
}

#[tokio::test]
async fn counters_use_few_keys_that_expire() {
    let fixture = Fixture::with_shards(1).await;
    for queue in 0..50 {
        fixture.submit(&format!("q{queue}"), json!(1)).await;
    }
    let keys: Vec<String> = fixture.redis.ask(cmd("KEYS").arg("*stats:*")).await;
    assert!((1..=3).contains(&keys.len()), "{keys:?}");
    for key in &keys {
        let left: i64 = fixture.redis.ask(cmd("PTTL").arg(key)).await;
        assert!((905_000..=920_000).contains(&left), "{key} expires after {left} ms");
        let fields: BTreeMap<String, String> = fixture.redis.ask(cmd("HGETALL").arg(key)).await;
        assert!(fields.keys().all(|field| field.ends_with(":submitted")), "{fields:?}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn counters_pending_with_a_caller_count_like_flushed_ones() {
    let lab = Lab::start().await;
    let mut caller = Caller::new();
    let seen = async || {
        let buckets = lab.ask::<Vec<Vec<u8>>>(cmd("KEYS").arg(lab.key("stats:*"))).await.len();
        let of_queue = read_window(&lab.store, Some(&queue("q")), 12).await.unwrap().counters.submitted;
        (of_queue, read_window(&lab.store, None, 12).await.unwrap().counters.submitted, buckets)
    };
    submit(lab.shard(), &mut caller, &[task(1), task(2)], &Offers::default()).await.unwrap();
    // By another caller.
    lab.submit(&[task(3)]).await.unwrap();
    lab.at(7000);
    assert_eq!(seen().await, (3, 3, 0));
    // 5 s later the pending counters are flushed, and count once.
    submit(lab.shard(), &mut caller, &[task(4)], &Offers::default()).await.unwrap();
    assert_eq!(seen().await, (3, 3, 1));
    lab.at(14_000);
    assert_eq!(seen().await, (4, 4, 1));
    // For many queues no counter stays pending, in any order of queues.
    for first in [10, 20] {
        let ten = (first..first + 10).map(|n| NewTask { queue: queue(&format!("q{n}")), ..task(n) });
        submit(lab.shard(), &mut caller, &ten.collect::<Vec<_>>(), &Offers::default()).await.unwrap();
    }
    lab.at(21_000);
    assert_eq!(seen().await, (4, 24, 3));
    submit(lab.shard(), &mut caller, &[task(40)], &Offers::default()).await.unwrap();
    lab.at(28_000);
    assert_eq!(seen().await, (5, 25, 3));
    // Counters older than the longest window are dropped without a flush.
    lab.at(2_000_000);
    submit(lab.shard(), &mut caller, &[task(41)], &Offers::default()).await.unwrap();
    lab.at(2_007_000);
    assert_eq!(seen().await, (1, 1, 3));
    lab.end().await;
}
