//! Drains a queue with the client of openapi-generator, rust: drain URL QUEUE PAYLOADS.

use openapi::apis::configuration::Configuration;
use openapi::apis::work_api::{self as work, CompleteTaskError};
use openapi::apis::{Error, queues_api, system_api, tasks_api};
use openapi::models::*;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let queue = args[2].as_str();
    let payloads: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&args[3]).unwrap()).unwrap();
    let client = Configuration { base_path: args[1].clone(), ..Configuration::new() };

    system_api::get_readiness(&client).await.unwrap();
    for (n, payload) in payloads.iter().enumerate() {
        let task = SubmitRequest {
            queue: Some(queue.into()),
            key: Some(format!("key {n}")),
            payload: Some(Some(payload.clone())),
            ..SubmitRequest::new()
        };
        tasks_api::submit_task(&client, task, None, None, None).await.unwrap();
    }
    let good = SubmitBatchItem {
        queue: Some(queue.into()),
        payload: Some(payloads.last().cloned()),
        tags: Some(vec!["sdk".into()]),
        ..SubmitBatchItem::new()
    };
    let bad = SubmitBatchItem {
        delay_ms: Some(1),
        run_at: Some(chrono::Utc::now().fixed_offset()),
        ..SubmitBatchItem::new()
    };
    let batch = SubmitBatchRequest::new(vec![good, bad]);
    let results = tasks_api::submit_tasks(&client, batch, None, None).await.unwrap().results;
    assert!(results[0].task.as_ref().unwrap().tags == ["sdk"] && results[0].problem.is_none(), "{results:?}");
    assert!(results[1].task.is_none() && results[1].problem.as_ref().unwrap().code == "invalid_value", "{results:?}");

    let (mut completed, mut turn, mut last) = (0, 0, None);
    loop {
        let claim = ClaimRequest {
            queues: Some(vec![queue.into()]),
            worker: Some("sdk".into()),
            max: Some(10),
            wait_ms: Some(200),
            claim_id: Some(format!("claim {queue} {turn}")),
            ..ClaimRequest::new()
        };
        let tasks = work::claim_tasks(&client, claim, None).await.unwrap().tasks;
        if tasks.is_empty() {
            break;
        }
        let beat = |task: &ClaimedTask| HeartbeatItem {
            progress: Some(Some(json!({"page": 1}))),
            ..HeartbeatItem::new(task.id, task.lease.clone())
        };
        let beat = HeartbeatRequest::new(tasks.iter().map(beat).collect());
        for held in work::heartbeat_tasks(&client, beat).await.unwrap().tasks {
            assert!(held.problem.is_none() && held.lease_until.is_some(), "{held:?}");
        }
        for task in tasks {
            turn += 1;
            if turn == 1 {
                work::release_task(&client, ReleaseRequest::new(task.id, task.lease)).await.unwrap();
            } else if turn == 2 {
                let error = ReportedError {
                    message: Some("failed once".into()),
                    details: Some(task.payload),
                    ..ReportedError::new()
                };
                let report = FailRequest { retry_in_ms: Some(0), ..FailRequest::new(task.id, task.lease, error) };
                work::fail_task(&client, report).await.unwrap();
            } else {
                let report = CompleteRequest { result: Some(task.payload), ..CompleteRequest::new(task.id, task.lease) };
                work::complete_task(&client, report).await.unwrap();
                (completed, last) = (completed + 1, Some(task.id));
            }
        }
    }

    let last = last.unwrap();
    let stale = CompleteBatchRequest::new(vec![Completion::new(last, "stale".into())]);
    let results = work::complete_tasks(&client, stale).await.unwrap().results;
    assert_eq!(results[0].problem.as_ref().unwrap().code, "lease_lost");
    let task = tasks_api::get_task(&client, &last.to_string(), None, None).await.unwrap();
    assert!(task.state == "completed" && task.finished_at.is_some() && task.progress == Some(json!({"page": 1})));
    let list = tasks_api::list_tasks(&client, queue, "completed", None, None, None).await.unwrap();
    assert_eq!(list.tasks.len(), completed);
    assert_eq!(queues_api::get_queue(&client, queue).await.unwrap().counts.completed, completed as i64);
    system_api::get_stats(&client, Some(queue), None, None).await.unwrap();
    system_api::list_workers(&client, None, None).await.unwrap();
    assert!(system_api::get_slots(&client, Some("key 1")).await.unwrap().key_slot.is_some());
    match work::complete_task(&client, CompleteRequest::new(last, "stale".into())).await {
        Err(Error::ResponseError(response)) => match response.entity {
            // The enum is untagged: serde takes the first variant whose type fits, whatever the status.
            Some(CompleteTaskError::Status400(problem)) => println!("completed {completed}, problem {}", problem.code),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
