//! Producers: they submit single tasks and batches, with keys, delays, dedupe keys and deadlines, repeat unanswered
//! submits under their Idempotency-Key, and cancel some tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Request, Sent, is_open, payload};
use super::pause;
use crate::history::event::{Answer, Call, Item, Outcome};
use crate::support::text;

pub const QUEUES: [&str; 4] = ["plain", "keyed", "mixed", CALM];
/// The queue with waiting workers: its tasks are few, so that their submits hand them over.
pub const CALM: &str = "calm";
/// The queues of the other workers.
pub const BUSY: [&str; 3] = ["plain", "keyed", "mixed"];

/// Limit of waiting tasks; producers pause above it.
const BACKLOG: i64 = 600;

/// Submits until `stop` is cancelled.
pub async fn produce(mut client: Client, waiting: Arc<AtomicI64>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if waiting.load(Ordering::Relaxed) > BACKLOG {
            pause(Duration::from_millis(50)).await;
            continue;
        }
        let queue = BUSY[client.rng.random_range(0..BUSY.len())];
        match client.rng.random_range(0..100) {
            0..15 => batch(&mut client, queue).await,
            _ => one(&mut client, queue).await,
        }
        let rest = client.rng.random_range(1..15);
        pause(Duration::from_millis(rest)).await;
    }
}

/// Submits single tasks to the calm queue until `stop` is cancelled.
pub async fn produce_calmly(mut client: Client, stop: CancellationToken) {
    while !stop.is_cancelled() {
        one(&mut client, CALM).await;
        let rest = client.rng.random_range(10..60);
        pause(Duration::from_millis(rest)).await;
    }
}

/// A task for a queue: its item in the history, and its body.
fn task(client: &mut Client, queue: &str, name: String) -> (Item, Value) {
    let mut body = json!({
        "queue": queue,
        "payload": payload(&name),
        "backoff": {"kind": "fixed", "base_ms": 150, "jitter": "none"},
        "max_attempts": if client.chance(5) { 2 } else { 30 },
    });
    let mut item = Item { name, priority: 4, ..Item::default() };
    if queue == "keyed" {
        // Eight slots with five keys each.
        let number = client.rng.random_range(0..40);
        let key = format!("{{s{}}}k{number}", number % 8);
        body["key"] = json!(key);
        item.key = Some(key);
    }
    if queue == "mixed" {
        match client.rng.random_range(0..5) {
            0 => {
                item.delay_ms = client.rng.random_range(1..1500);
                body["delay_ms"] = json!(item.delay_ms);
            }
            1 => {
                item.priority = client.rng.random_range(0..10);
                body["priority"] = json!(item.priority);
            }
            2 | 3 => {
                let key = format!("d{}", client.rng.random_range(0..25));
                body["dedupe"] = json!({"key": key});
                item.dedupe = Some(key);
            }
            _ => body["expires_in_ms"] = json!(client.rng.random_range(200..8000)),
        }
    }
    (item, body)
}

fn outcome(status: u64, task: &Value) -> Outcome {
    let id = text(&task["id"]).to_owned();
    match status {
        200 => Outcome::Kept { id },
        _ => Outcome::Created { id, slot: task["slot"].as_u64().expect("a slot") as u16 },
    }
}

async fn one(client: &mut Client, queue: &str) {
    let mut op = client.begin();
    let name = client.unique(op, 0);
    let (item, body) = task(client, queue, name.clone());
    let key = client.chance(75).then_some(name);
    for _ in 0..6 {
        let call = Call::Submit { queue: queue.into(), items: vec![item.clone()] };
        let request = Request::post("/tasks", body.clone()).keyed(key.clone());
        let read = |body: &Value| {
            let status = if body["deduplicated"] == true { 200 } else { 201 };
            Ok(Answer::Submitted(vec![outcome(status, body)]))
        };
        match client.send(&mut op, call, request, read).await {
            Sent::Ok(_, body) => {
                if client.chance(3) {
                    cancel(client, text(&body["id"])).await;
                }
                return;
            }
            // Without a key, a repeated submit would create another task.
            Sent::Unknown if key.is_some() => retry_later(client).await,
            _ => return,
        }
    }
}

async fn batch(client: &mut Client, queue: &str) {
    let mut op = client.begin();
    let count = client.rng.random_range(2..20);
    let keyed = client.chance(75);
    let (mut items, mut bodies) = (Vec::new(), Vec::new());
    for place in 0..count {
        let name = client.unique(op, place);
        let (item, mut body) = task(client, queue, name.clone());
        if keyed {
            body["idempotency_key"] = json!(name);
        }
        items.push(item);
        bodies.push(body);
    }
    for _ in 0..6 {
        let call = Call::Submit { queue: queue.into(), items: items.clone() };
        let read = |body: &Value| {
            let results = body["results"].as_array().expect("results").iter();
            let outcomes = results.map(|result| match result["status"].as_u64().expect("a status") {
                status @ (200 | 201) => outcome(status, &result["task"]),
                _ => match text(&result["problem"]["code"]) {
                    code if is_open(code) => Outcome::Unknown(code.into()),
                    code => Outcome::Fail(code.into()),
                },
            });
            Ok(Answer::Submitted(outcomes.collect()))
        };
        let sent = client.send(&mut op, call, Request::post("/tasks/batch", json!({"tasks": bodies})), read).await;
        let open = match &sent {
            Sent::Ok(Answer::Submitted(outcomes), _) => outcomes.iter().any(|one| matches!(one, Outcome::Unknown(_))),
            Sent::Unknown => true,
            _ => false,
        };
        if !open || !keyed {
            return;
        }
        retry_later(client).await;
    }
}

async fn cancel(client: &mut Client, id: &str) {
    let mut op = client.begin();
    let read = |body: &Value| Ok(Answer::Cancelled { state: text(&body["state"]).into() });
    let request = Request::post_nothing(format!("/tasks/{id}/cancel"));
    client.send(&mut op, Call::Cancel { id: id.into() }, request, read).await;
}

pub async fn retry_later(client: &mut Client) {
    let rest = client.rng.random_range(20..400);
    pause(Duration::from_millis(rest)).await;
}
