//! Encodes requests as paths and bodies, and sends them.

use std::time::Duration;

use serde_json::{Value, json};

use super::compare::Names;
use super::steps::{Call, ClaimSpec, Held, Mode, Proof, Retry, Spec, Start, Target};
use super::{Claimed, HOUR, Reply};
use crate::metrics::metrics_of;
use crate::support::poll::poll;
use crate::support::{Answer, Http, text};

/// An unknown id and an unknown token.
const NOBODY: &str = "0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d";
const GARBAGE: &str = "Q29uZmlkZW50bHkgZmFsc2";

fn id(names: &Names, target: &Target) -> Value {
    match target {
        Target::Task(name) => names.id(*name).clone(),
        Target::NoTask => json!(NOBODY),
    }
}

pub(super) fn proof(names: &Names, held: &Held, more: Value) -> Value {
    let lease = match held.1 {
        Proof::Lease(name, nth) => names.token(name, nth).clone(),
        Proof::Garbage => json!(GARBAGE),
        Proof::Malformed => json!("none"),
    };
    joined(json!({"id": id(names, &held.0), "lease": lease}), more)
}

/// Sends a request, and answers the answer.
pub(super) async fn send(http: &Http, names: &Names, call: &Call, wanted: &Reply) -> Answer {
    let done = |(held, result): &(Held, u8)| proof(names, held, json!({"result": result}));
    let failed = |(held, retry): &(Held, Retry)| {
        let error = json!({"type": "broken", "message": "it broke", "details": [1]});
        let retry = match retry {
            Retry::AsSubmitted => json!({}),
            Retry::Never => json!({"retry": false}),
            Retry::In(hours) => json!({"retry_in_ms": hours * HOUR}),
        };
        proof(names, held, joined(json!({"error": error}), retry))
    };
    let task = |target: &Target, verb: &str| format!("/tasks/{}{verb}", text(&id(names, target)));
    match call {
        Call::Submit(_, spec) => submit(http, spec).await,
        Call::Meet(ask, _, spec) => {
            let gets_tasks = matches!(wanted, Reply::Met(_, Claimed { tasks, .. }) if !tasks.is_empty());
            let wait_ms = if gets_tasks { 20_000 } else { 50 };
            let (own, body) = (http.clone(), joined(asked(ask), json!({"wait_ms": wait_ms})));
            let claim = tokio::spawn(async move { own.post("/claim", &body).await });
            let waits = || async {
                let waiting = metrics_of(http).await.count("slotwheel_waiting_requests", &[]);
                (waiting > 0.0 || claim.is_finished()).then_some(())
            };
            poll(Duration::from_secs(20), waits).await.expect("a claim that waits");
            let submitted = submit(http, spec).await;
            let claimed = claim.await.expect("no panic").expect(200);
            let text = json!({"submit": submitted.json(), "claim": claimed}).to_string();
            Answer { text, ..submitted }
        }
        Call::SubmitBatch(tasks) => {
            let items = tasks.iter().map(|(_, spec)| match spec.once {
                Some(key) => joined(submitted(spec), json!({"idempotency_key": key})),
                None => submitted(spec),
            });
            http.post("/tasks/batch", &json!({"tasks": items.collect::<Vec<_>>()})).await
        }
        Call::Claim(ask) => http.post("/claim", &asked(ask)).await,
        Call::Complete(held, result, then) => {
            http.post("/complete", &and_claim(done(&(*held, *result)), then.as_ref())).await
        }
        Call::CompleteBatch(items, then) => {
            let items: Vec<Value> = items.iter().map(done).collect();
            http.post("/complete/batch", &and_claim(json!({"completions": items}), then.as_ref())).await
        }
        Call::Fail(held, retry) => http.post("/fail", &failed(&(*held, *retry))).await,
        Call::FailBatch(items) => {
            let items: Vec<Value> = items.iter().map(failed).collect();
            http.post("/fail/batch", &json!({"failures": items})).await
        }
        Call::Release(held, delay) => {
            http.post("/release", &proof(names, held, json!({"delay_ms": delay * HOUR}))).await
        }
        Call::ReleaseBatch(items) => {
            let items = items.iter().map(|(held, delay)| proof(names, held, json!({"delay_ms": delay * HOUR})));
            http.post("/release/batch", &json!({"releases": items.collect::<Vec<_>>()})).await
        }
        Call::Revoke(target, 0, None) => http.post_nothing(&task(target, "/release")).await,
        Call::Revoke(target, delay, nth) => {
            let number = nth.map_or(json!({}), |nth| json!({"acquired": nth}));
            http.post(&task(target, "/release"), &joined(json!({"delay_ms": delay * HOUR}), number)).await
        }
        Call::Run(target) => http.post_nothing(&task(target, "/run")).await,
        Call::Heartbeat(beats) => {
            let tasks = beats.iter().map(|(held, lease, progress)| {
                let lease = lease.map_or(json!({}), |hours| json!({"lease_ms": hours * HOUR}));
                let progress = progress.map_or(json!({}), |done| json!({"progress": done}));
                proof(names, held, joined(lease, progress))
            });
            http.post("/heartbeat", &json!({"tasks": tasks.collect::<Vec<_>>()})).await
        }
        Call::Cancel(target) => http.post_nothing(&task(target, "/cancel")).await,
        Call::Retry(target) => http.post_nothing(&task(target, "/retry")).await,
        Call::Delete(target) => http.delete(&task(target, "")).await,
        Call::Pause(queue) => http.post_nothing(&format!("/queues/{queue}/pause")).await,
        Call::Resume(queue) => http.post_nothing(&format!("/queues/{queue}/resume")).await,
        Call::Remove(queue) => http.delete(&format!("/queues/{queue}")).await,
        Call::Purge(queue, states) => {
            let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            http.post(&format!("/queues/{queue}/purge"), &json!({"states": states})).await
        }
    }
}

async fn submit(http: &Http, spec: &Spec) -> Answer {
    let headers: Vec<(&str, &str)> = spec.once.iter().map(|key| ("idempotency-key", *key)).collect();
    http.post_with("/tasks", &headers, submitted(spec).to_string().as_bytes()).await
}

fn joined(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn asked(ask: &ClaimSpec) -> Value {
    let ClaimSpec { queues, max, lease, worker, claim_id } = ask;
    let body = json!({"queues": queues, "max": max, "lease_ms": lease * HOUR, "worker": worker});
    claim_id.map_or(body.clone(), |id| joined(body, json!({"claim_id": id})))
}

fn and_claim(body: Value, then: Option<&ClaimSpec>) -> Value {
    then.map_or(body.clone(), |ask| joined(body, json!({"claim": asked(ask)})))
}

fn submitted(spec: &Spec) -> Value {
    let waits: Vec<i64> = spec.backoff.iter().map(|hours| hours * HOUR).collect();
    let mut body = json!({
        "queue": spec.queue,
        "priority": spec.priority,
        "payload": {"n": spec.payload},
        "tags": [format!("tag{}", spec.payload)],
        "headers": {"n": spec.payload.to_string()},
        "max_attempts": spec.max_attempts,
        "backoff": {"kind": "list", "delays_ms": waits, "jitter": "none"},
        "max_run_ms": spec.max_run * HOUR,
    });
    let mut say = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[name] = value;
        }
    };
    say("max_acquired", spec.max_acquired.map(Value::from));
    say("key", spec.key.map(Value::from));
    say("expires_in_ms", spec.expires_in.map(|hours| json!(hours * HOUR)));
    say("retain_ms", spec.retain.map(|hours| json!(hours * HOUR)));
    match spec.start {
        Start::In(hours) => say("delay_ms", Some(json!(hours * HOUR))),
        Start::Past => say("run_at", Some(json!("2001-02-03T04:05:06Z"))),
        Start::TooFar => say("run_at", Some(json!("9001-02-03T04:05:06Z"))),
    }
    say(
        "dedupe",
        spec.dedupe.map(|(key, mode, window)| {
            let mode = match mode {
                Mode::Keep => "keep",
                Mode::Replace => "replace",
                Mode::Debounce => "debounce",
                Mode::After => "after",
            };
            let body = json!({"key": key, "mode": mode});
            window.map_or(body.clone(), |hours| joined(body, json!({"window_ms": hours * HOUR})))
        }),
    );
    body
}
