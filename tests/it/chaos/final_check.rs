//! The end of a run: all tasks are read back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Read, Request, Sent, number, time};
use super::pause;
use super::producer::QUEUES;
use crate::history::event::{self, Answer, Call, Counts};
use crate::support::text;

fn counts(body: &Value) -> Read {
    Ok(Answer::Counts(serde_json::from_value(body["counts"].clone()).expect("counts")))
}

/// Records the counts of a queue; `None` if there was no reply.
pub async fn sample(client: &mut Client, queue: &str) -> Option<Counts> {
    let mut op = client.begin();
    let request = Request::get(format!("/queues/{queue}"));
    match client.send(&mut op, Call::Counts { queue: queue.into() }, request, counts).await {
        Sent::Ok(Answer::Counts(counts), _) => Some(counts),
        _ => None,
    }
}

fn open(counts: Counts) -> i64 {
    counts.scheduled + counts.ready + counts.leased
}

/// Samples the queues in turn, and reports the number of tasks that have not ended.
pub async fn watch(mut client: Client, waiting: Arc<AtomicI64>, stop: CancellationToken) {
    let mut open_of = [0; QUEUES.len()];
    while !stop.is_cancelled() {
        for (queue, open_tasks) in QUEUES.iter().zip(&mut open_of) {
            if let Some(counts) = sample(&mut client, queue).await {
                *open_tasks = open(counts);
            }
            pause(Duration::from_millis(60)).await;
        }
        waiting.store(open_of.iter().sum(), Ordering::Relaxed);
    }
}

/// Returns when all tasks have ended; an error after the timeout.
pub async fn drained(client: &mut Client) -> Result<(), String> {
    let all = async {
        loop {
            let mut left = 0;
            for queue in QUEUES {
                left += sample(client, queue).await.map_or(1, open);
            }
            if left == 0 {
                return;
            }
            pause(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), all).await.map_err(|_| "tasks are left that never end".to_owned())
}

/// Tasks that the servers have handed over.
pub async fn hand_offs(servers: &[SocketAddr]) -> u64 {
    let mut sum = 0;
    for server in servers {
        let Ok(answer) = reqwest::get(format!("http://{server}/metrics")).await else { continue };
        let page = answer.text().await.unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix("slotwheel_hand_offs_total "));
        sum += line.map_or(0, |count| count.parse::<u64>().expect("a count"));
    }
    sum
}

/// Reads every task of every queue, page by page, as one event per queue; then the counts.
pub async fn read_back(client: &mut Client) {
    for queue in QUEUES {
        let mut op = client.begin();
        let mut tasks = Vec::new();
        client.invoke(&mut op, Call::Tasks { queue: queue.into() });
        for state in ["scheduled", "ready", "leased", "completed", "dead", "cancelled", "expired"] {
            let mut cursor = String::new();
            loop {
                let path = format!("/tasks?queue={queue}&state={state}&limit=500{cursor}");
                let page = client.get(&path).await;
                tasks.extend(page["tasks"].as_array().expect("tasks").iter().map(read));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
        }
        client.ok(op, Answer::Tasks(tasks));
        sample(client, queue).await.expect("counts");
    }
}

fn read(task: &Value) -> event::Read {
    event::Read {
        id: text(&task["id"]).into(),
        name: text(&task["payload"]["n"]).into(),
        state: text(&task["state"]).into(),
        attempts: number(&task["attempts"]),
        max_attempts: number(&task["max_attempts"]),
        acquired: number(&task["acquired"]),
        result: task["result"].as_str().map(str::to_owned),
        created_at: time(&task["created_at"]).expect("a time"),
        finished_at: time(&task["finished_at"]),
    }
}
