//! A change that was made is no error, whatever fails behind it.

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use slotwheel::store::record::fields;

use crate::support::{Fixture, report, report_with, text};

#[tokio::test]
async fn accepted_completion_is_200_with_the_problem_of_its_claim() {
    let fixture = Fixture::with_shards(1).await;
    let mut tasks = Vec::new();
    for number in 0..2 {
        fixture.submit("q", json!(number)).await;
        tasks.push(fixture.claim_one("q").await);
    }
    // A claim of this queue fails.
    let wheel = fixture.store().await.first_shard().keys.wheel(&QueueName::parse("bad").unwrap());
    fixture.redis.ask::<()>(cmd("SET").arg(&wheel).arg("x")).await;
    let claim = json!({"claim": {"queues": ["bad"]}});

    let answer = fixture.http.post("/complete", &report_with(&tasks[0], claim.clone())).await.expect(200);
    assert_eq!((&answer["state"], &answer["tasks"]), (&json!("completed"), &json!([])));
    assert_eq!(answer["claim_problem"]["code"], "internal");

    let batch = json!({"completions": [report(&tasks[1])], "claim": claim["claim"]});
    let answer = fixture.http.post("/complete/batch", &batch).await.expect(200);
    assert_eq!((&answer["results"][0]["status"], &answer["tasks"]), (&json!(200), &json!([])));
    assert_eq!(answer["claim_problem"]["code"], "internal");
    assert_eq!(fixture.counts("q").await["completed"], 2);
    fixture.redis.ask::<()>(cmd("DEL").arg(&wheel)).await;
    fixture.end().await;
}

#[tokio::test]
async fn deduplicated_submit_is_200_if_the_holder_is_unreadable() {
    let fixture = Fixture::start().await;
    let body = json!({"queue": "q", "payload": 1, "dedupe": {"key": "k"}, "delay_ms": 60_000});
    let holder = fixture.submit_with(body.clone()).await;
    let id = TaskId::parse(text(&holder["id"])).unwrap();
    let key = fixture.store().await.shard_for_task(&id).keys.task(&id);
    let document: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(&key).arg(fields::DOCUMENT)).await;
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(fields::DOCUMENT).arg("?")).await;

    let again = fixture.http.post("/tasks", &body).await.expect(200);
    assert_eq!((&again["id"], &again["state"]), (&holder["id"], &json!(null)));
    assert_eq!(again["deduplicated"], true);

    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(fields::DOCUMENT).arg(document)).await;
    fixture.end().await;
}
