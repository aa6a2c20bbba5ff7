//! Drains a queue with the client of progenitor: drain URL QUEUE PAYLOADS.

use std::fmt::Debug;

use client::types::{self, ListTasksState, Problem};
use client::{Client, Error};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

/// Returns the request with these fields. Its strings with limits are types of their own, so that a literal is long.
fn request<T: serde::de::DeserializeOwned>(fields: Value) -> T {
    serde_json::from_value(fields).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let queue = args[2].as_str();
    let payloads: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&args[3]).unwrap()).unwrap();
    let client = Client::new(&args[1]);

    client.get_readiness().await.unwrap();
    for (n, payload) in payloads.iter().enumerate() {
        let task = types::SubmitRequest {
            payload: Some(payload.clone()),
            ..request(json!({"queue": queue, "key": format!("key {n}")}))
        };
        client.submit_task(None, None, None, &task).await.unwrap();
    }
    let batch = request(json!({"tasks": [
        {"queue": queue, "payload": payloads.last(), "tags": ["sdk"]},
        {"queue": queue, "delay_ms": 1, "run_at": "2026-03-02T09:15:04Z"},
    ]}));
    let results = client.submit_tasks(None, None, &batch).await.unwrap().into_inner().results;
    assert!(results[0].task.as_ref().unwrap().tags == ["sdk"] && results[0].problem.is_none(), "{results:?}");
    assert!(results[1].task.is_none() && results[1].problem.as_ref().unwrap().code == "invalid_value", "{results:?}");

    let (mut completed, mut turn, mut last) = (0, 0, None);
    loop {
        let claim = json!({"queues": [queue], "worker": "sdk", "max": 10, "wait_ms": 200, "claim_id": format!("claim {queue} {turn}")});
        let tasks = client.claim_tasks(None, &request(claim)).await.unwrap().into_inner().tasks;
        if tasks.is_empty() {
            break;
        }
        let beat = |task: &types::ClaimedTask| json!({"id": task.id, "lease": task.lease, "progress": {"page": 1}});
        let beat = json!({"worker": "sdk", "tasks": tasks.iter().map(beat).collect::<Vec<_>>()});
        for held in client.heartbeat_tasks(&request(beat)).await.unwrap().into_inner().tasks {
            assert!(held.problem.is_none() && held.lease_until.is_some(), "{held:?}");
        }
        for task in tasks {
            turn += 1;
            let lease = json!({"id": task.id, "lease": task.lease});
            if turn == 1 {
                client.release_task(&request(lease)).await.unwrap();
            } else if turn == 2 {
                let error = json!({"message": "failed once", "details": task.payload});
                let report = json!({"id": task.id, "lease": task.lease, "error": error, "retry_in_ms": 0});
                client.fail_task(&request(report)).await.unwrap();
            } else {
                let report = types::CompleteRequest { result: Some(task.payload), ..request(lease) };
                client.complete_task(&report).await.unwrap();
                (completed, last) = (completed + 1, Some(task.id));
            }
        }
    }

    let last = last.unwrap();
    let stale = json!({"id": last, "lease": "stale"});
    let results = client.complete_tasks(&request(json!({"completions": [stale]}))).await.unwrap().into_inner().results;
    assert_eq!(results[0].problem.as_ref().unwrap().code, "lease_lost");
    let task = client.get_task(&last, None, None).await.unwrap().into_inner();
    assert!(task.state == "completed" && task.finished_at.is_some() && task.progress == json!({"page": 1}), "{task:?}");
    let list = client.list_tasks(None, None, &queue.parse().unwrap(), ListTasksState::Completed, None).await.unwrap();
    assert_eq!(list.tasks.len(), completed);
    assert_eq!(client.get_queue(&queue.parse().unwrap()).await.unwrap().counts.completed, completed as i64);
    client.get_stats(Some(&queue.parse().unwrap()), None, None).await.unwrap();
    client.list_workers(None, None).await.unwrap();
    let key = "key 1".parse().unwrap();
    assert!(client.get_slots(Some(&key)).await.unwrap().key_slot.is_some());
    let problem = problem(client.complete_task(&request(stale)).await).await;
    println!("completed {completed}, problem {}", problem.code);
}

/// Reads the problem of a failed call: progenitor leaves the body of `application/problem+json` to the caller.
async fn problem<T: Debug>(response: Result<T, Error<client::ByteStream>>) -> Problem {
    let Err(Error::ErrorResponse(response)) = response else { panic!("{response:?}") };
    let parts: Vec<_> = response.into_inner().into_inner().try_collect().await.unwrap();
    serde_json::from_slice(&parts.concat()).unwrap()
}
