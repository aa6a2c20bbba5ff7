//! Workers: most behave correctly; some are slow, freeze for a while, or disconnect during a request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Read, Request, Sent, claimed, digest, time};
use super::producer::retry_later;
use super::{pause, poison};
use crate::history::event::{Answer, Call};
use crate::support::{report_with, text};

/// Wait of a claim.
const WAIT_MS: u64 = 1500;

/// Works until `stop` is cancelled, and finishes its leases. A `polite` worker only completes.
pub async fn work(mut client: Client, polite: Arc<AtomicBool>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let mut held: VecDeque<Value> = claim(&mut client).await.into();
        while let Some(task) = held.pop_front() {
            let polite = polite.load(Ordering::Relaxed);
            held.extend(handle(&mut client, &task, polite).await);
        }
    }
}

fn wanted(client: &mut Client) -> (i64, Value) {
    let lease_ms = client.rng.random_range(1000..3000);
    let max = if client.chance(60) { 1 } else { client.rng.random_range(2..10) };
    let mut queues = client.queues.to_vec();
    queues.rotate_left(client.rng.random_range(0..client.queues.len()));
    if client.chance(10) {
        queues.insert(0, poison::QUEUE);
    }
    let body = json!({
        "queues": queues, "worker": client.name, "max": max, "wait_ms": WAIT_MS, "lease_ms": lease_ms,
    });
    (lease_ms, body)
}

fn tasks(body: &Value) -> Vec<Value> {
    body["tasks"].as_array().cloned().unwrap_or_default()
}

/// Claims; with a claim id, repeats the claim until there is a reply.
async fn claim(client: &mut Client) -> Vec<Value> {
    let mut op = client.begin();
    let (lease_ms, mut body) = wanted(client);
    let named = client.chance(50);
    if named {
        body["claim_id"] = json!(client.unique(op, 0));
    }
    for _ in 0..3 {
        let call = Call::Claim { lease_ms, claim_id: named };
        let request = Request::post("/claim", body.clone()).waiting(WAIT_MS);
        match client.send(&mut op, call, request, |body| Ok(Answer::Claimed(claimed(&body["tasks"])))).await {
            Sent::Ok(_, body) => return tasks(&body),
            Sent::Unknown if named => retry_later(client).await,
            _ => break,
        }
    }
    retry_later(client).await;
    Vec::new()
}

/// Handles a task in a random way; returns the tasks claimed with its completion.
async fn handle(client: &mut Client, task: &Value, polite: bool) -> Vec<Value> {
    if polite {
        return complete(client, task, false).await;
    }
    match client.rng.random_range(0..100) {
        0..52 => return complete(client, task, false).await,
        52..80 => return complete(client, task, true).await,
        80..86 => fail(client, task).await,
        86..91 => release(client, task).await,
        91..94 => {
            for _ in 0..client.rng.random_range(1..4) {
                let rest = client.rng.random_range(100..600);
                pause(Duration::from_millis(rest)).await;
                heartbeat(client, task).await;
            }
            return complete(client, task, false).await;
        }
        94..95 => {
            // Simulates a frozen worker: it continues after its lease has expired.
            pause(Duration::from_millis(3200)).await;
            return complete(client, task, false).await;
        }
        95..98 => {
            complete(client, task, false).await;
            // Another report with the token of an ended lease.
            fail(client, task).await;
        }
        _ => {}
    }
    Vec::new()
}

fn names(task: &Value) -> (String, String) {
    (text(&task["id"]).into(), digest(text(&task["lease"])))
}

fn ended(body: &Value) -> Read {
    let (state, run_at) = (text(&body["state"]).into(), time(&body["run_at"]));
    Ok(Answer::Ended { state, run_at, tasks: claimed(&body["tasks"]) })
}

/// Sends a report until there is a reply, or the timeout ends.
async fn report(client: &mut Client, path: &str, body: Value, call: impl Fn() -> Call) -> Option<Value> {
    let mut op = client.begin();
    let wait = if body["claim"].is_object() { WAIT_MS } else { 0 };
    for _ in 0..5 {
        let request = Request::post(path, body.clone()).waiting(wait);
        match client.send(&mut op, call(), request, ended).await {
            Sent::Ok(_, body) => return Some(body),
            Sent::Unknown if client.chance(85) => retry_later(client).await,
            _ => return None,
        }
    }
    None
}

async fn complete(client: &mut Client, task: &Value, with_claim: bool) -> Vec<Value> {
    let (id, token) = names(task);
    let result = format!("{}/{token}", client.name);
    let mut body = report_with(task, json!({"result": result}));
    let mut lease_ms = None;
    if with_claim {
        let (asked, claim) = wanted(client);
        lease_ms = Some(asked);
        body["claim"] = claim;
    }
    let call = || Call::Complete { id: id.clone(), token: token.clone(), result: result.clone(), lease_ms };
    report(client, "/complete", body, call).await.map(|body| tasks(&body)).unwrap_or_default()
}

async fn fail(client: &mut Client, task: &Value) {
    let (id, token) = names(task);
    let mut body = report_with(task, json!({"error": {"type": "chaos", "message": "it went wrong"}}));
    if client.chance(50) {
        body["retry_in_ms"] = json!(client.rng.random_range(0..800));
    }
    report(client, "/fail", body, || Call::Fail { id: id.clone(), token: token.clone(), retry: true }).await;
}

async fn release(client: &mut Client, task: &Value) {
    let (id, token) = names(task);
    let delay = if client.chance(50) { 0 } else { client.rng.random_range(1..500) };
    let body = report_with(task, json!({"delay_ms": delay}));
    report(client, "/release", body, || Call::Release { id: id.clone(), token: token.clone() }).await;
}

async fn heartbeat(client: &mut Client, task: &Value) {
    let (id, token) = names(task);
    let mut op = client.begin();
    let body = json!({"worker": client.name, "tasks": [crate::support::report(task)]});
    let read = |body: &Value| match &body["tasks"][0] {
        task if task["problem"].is_object() => Err(text(&task["problem"]["code"]).into()),
        task => Ok(Answer::Held { until: time(&task["lease_until"]).expect("a time") }),
    };
    client.send(&mut op, Call::Heartbeat { id, token }, Request::post("/heartbeat", body), read).await;
}

/// Claims on separate connections and disconnects before the reply: by FIN, RST, half-close, or by silence.
pub async fn be_rude(mut client: Client, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let mut op = client.begin();
        let (lease_ms, body) = wanted(&mut client);
        let body = body.to_string();
        let head = "POST /claim HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ";
        let request = format!("{head}{}\r\n\r\n{body}", body.len());
        let server = client.any_server();
        let Ok(mut stream) = TcpStream::connect(server).await else { continue };
        client.invoke(&mut op, Call::Claim { lease_ms, claim_id: false });
        let _ = stream.write_all(request.as_bytes()).await;
        let rest = client.rng.random_range(0..400);
        pause(Duration::from_millis(rest)).await;
        match client.rng.random_range(0..4) {
            0 => drop(stream),
            1 => {
                let _ = stream.set_zero_linger();
            }
            2 => {
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
            }
            _ => pause(Duration::from_millis(500)).await,
        }
        client.recorder.count("claims left alone", 1);
        client.unknown(op, "gone before the answer");
    }
}
