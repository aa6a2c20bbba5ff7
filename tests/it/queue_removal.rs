//! A removed queue leaves nothing, and no task is lost by a removal.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::store::Caller;
use slotwheel::store::ops::apply_settings::apply_settings;
use slotwheel::store::views::queues::{copy_versions, settings_page};

use crate::support::script_lab::queue;
use crate::support::{Fixture, report, text};

async fn use_once(fixture: &Fixture, name: &str) {
    fixture.submit(name, json!(1)).await;
    let task = fixture.claim_one(name).await;
    fixture.http.post("/complete", &report(&task)).await.expect(200);
}

/// Returns every key and every member of an index that names the queue, except statistics, which expire.
async fn traces(fixture: &Fixture, name: &str) -> Vec<String> {
    let script = "local found = {}
        for _, key in ipairs(redis.call('KEYS', '*')) do
          local kind = redis.call('TYPE', key).ok
          if string.find(key, ARGV[1], 1, true) then found[#found + 1] = key end
          if kind == 'zset' and redis.call('ZSCORE', key, ARGV[1]) then found[#found + 1] = 'member of ' .. key end
        end
        return found";
    fixture.redis.ask(cmd("EVAL").arg(script).arg(0).arg(name)).await
}

#[tokio::test]
async fn removed_queue_leaves_no_key_and_the_totals_keep_its_tasks() {
    let fixture = Fixture::start().await;
    use_once(&fixture, "gone").await;
    use_once(&fixture, "kept").await;

    assert_eq!(fixture.http.delete("/queues/gone").await.expect(200), json!({"deleted": 1, "more": false}));

    assert_eq!(traces(&fixture, "gone").await, [""; 0]);
    assert_eq!(fixture.http.get("/queues/gone").await.problem(404).0, "queue_not_found");
    let page = fixture.http.get("/queues").await.expect(200);
    let names: Vec<&str> = page["queues"].as_array().unwrap().iter().map(|queue| text(&queue["queue"])).collect();
    assert_eq!(names, ["kept"]);
    // A repeated request has the result of a removal without tasks.
    assert_eq!(fixture.http.delete("/queues/gone").await.expect(200), json!({"deleted": 0, "more": false}));
    use_once(&fixture, "gone").await;
    assert_eq!(fixture.counts("gone").await["submitted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn repeated_removals_leave_no_record_each() {
    let fixture = Fixture::with_shards(1).await;
    let callers = fixture.store().await.shards()[0].keys.callers();
    let records = || async { fixture.redis.ask::<usize>(cmd("HLEN").arg(&callers)).await };
    use_once(&fixture, "q").await;
    fixture.http.delete("/queues/q").await.expect(200);
    let before = records().await;
    for n in 0..20 {
        fixture.http.post_nothing(&format!("/queues/q{n}/pause")).await.expect(200);
        fixture.http.delete(&format!("/queues/q{n}")).await.expect(200);
    }
    // Other callers of the server have started meanwhile.
    assert!(records().await < before + 10, "{before} records before, {} after", records().await);
    fixture.end().await;
}

#[tokio::test]
async fn queue_with_waiting_or_leased_tasks_is_not_removed() {
    let fixture = Fixture::start().await;
    use_once(&fixture, "q").await;
    let ready = fixture.submit("q", json!(1)).await;
    assert_eq!(fixture.http.delete("/queues/q").await.problem(409).0, "queue_not_empty");
    let leased = fixture.claim_one("q").await;
    assert_eq!(leased["id"], ready["id"]);
    assert_eq!(fixture.http.delete("/queues/q").await.problem(409).0, "queue_not_empty");
    fixture.http.post("/complete", &report(&leased)).await.expect(200);
    let scheduled = fixture.submit_with(json!({"queue": "q", "delay_ms": 60_000})).await;
    assert_eq!(fixture.http.delete("/queues/q").await.problem(409).0, "queue_not_empty");
    assert_eq!(fixture.counts("q").await["completed"], 2);
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&scheduled["id"]))).await.expect(200);
    assert_eq!(fixture.http.delete("/queues/q").await.expect(200)["deleted"], 3);
    fixture.end().await;
}

#[tokio::test]
async fn settings_of_a_removed_queue_are_forgotten_in_every_shard() {
    let fixture = Fixture::with_shards(4).await;
    use_once(&fixture, "gone").await;
    fixture.http.post_nothing("/queues/gone/pause").await.expect(200);
    let store = fixture.store().await;
    let (_, version, paused) = settings_page(&store, None, 1).await.unwrap().settings.remove(0);

    fixture.http.delete("/queues/gone").await.expect(200);

    fixture.submit("gone", json!(1)).await;
    assert_eq!(fixture.http.get("/queues/gone").await.expect(200)["paused"], false);
    // A server that had read the settings before their removal applies them afterwards.
    let (shard, name) = (&store.shards()[3], queue("gone"));
    apply_settings(shard, &mut Caller::new(), &name, version, &paused.unwrap()).await.unwrap();
    assert_eq!(fixture.http.get("/queues/gone").await.expect(200)["paused"], true);
    fixture
        .until(|| async { copy_versions(shard, std::slice::from_ref(&name)).await.unwrap().is_empty().then_some(()) })
        .await;
    let task = fixture.claim_one("gone").await;
    fixture.http.post("/complete", &report(&task)).await.expect(200);
    fixture.http.delete("/queues/gone").await.expect(200);
    fixture.advance(60_000);
    fixture.until(|| async { traces(&fixture, "gone").await.is_empty().then_some(()) }).await;
    fixture.end().await;
}

#[tokio::test]
async fn settings_made_right_after_a_removal_are_applied_and_kept() {
    let fixture = Fixture::start().await;
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    fixture.http.delete("/queues/q").await.expect(200);
    assert_eq!(fixture.http.get("/queues/q").await.status, 404);
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    fixture.advance(120_000);
    fixture.submit("q", json!(1)).await;
    assert!(fixture.claim_now("q", 1).await.is_empty());
    let page = settings_page(&fixture.store().await, None, 9).await.unwrap().settings;
    assert!(page[0].2.is_some_and(|settings| settings.paused), "{page:?}");
    fixture.end().await;
}

#[tokio::test]
async fn submits_during_removals_are_neither_lost_nor_miscounted() {
    let fixture = Fixture::with_shards(4).await;
    let submitting = async {
        let mut ids: Vec<Value> = Vec::new();
        for n in 0..40 {
            let task = fixture.submit_with(json!({"queue": "q", "key": format!("k{n}")})).await;
            ids.push(task["id"].clone());
            assert_eq!(fixture.counts("q").await["ready"], 1, "task {n}");
            let claimed = fixture.claim_one("q").await;
            assert_eq!(fixture.counts("q").await["leased"], 1, "task {n}");
            fixture.http.post("/complete", &report(&claimed)).await.expect(200);
        }
        ids
    };
    let removing = async {
        loop {
            let answer = fixture.http.delete("/queues/q").await;
            assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
        }
    };
    tokio::select! {
        ids = submitting => assert_eq!(ids.len(), 40),
        () = removing => {}
    }
    // The audit compares the totals of each shard with its queues.
    fixture.end().await;
}
