//! Optional fields of requests: null counts as absent, and a field that has its default is never rejected.

use serde_json::{Map, Value, json};

use crate::support::contract::CONTRACT;
use crate::support::{Fixture, report, report_with};

fn schema(mut schema: &'static Value) -> &'static Value {
    while let Some(reference) = schema["$ref"].as_str() {
        schema = CONTRACT.pointer(reference.trim_start_matches('#')).expect("a schema");
    }
    schema
}

fn properties(schema: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, field)| (name.as_str(), self::schema(field)))
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
}

/// A request with its required fields only; `lease` has the task and token of a report.
fn required_only(schema: &'static Value, lease: &Value) -> Value {
    let required = properties(schema).filter(|(name, _)| is_required(schema, name));
    let value = |name: &str, field: &'static Value| match name {
        "id" | "lease" => lease[name].clone(),
        "states" => json!(["dead"]),
        _ if field["type"] == "array" => json!([required_only(self::schema(&field["items"]), lease)]),
        _ if field["type"] == "object" => required_only(field, lease),
        _ => json!("k"),
    };
    required.map(|(name, field)| (name.to_owned(), value(name, field))).collect::<Map<_, _>>().into()
}

/// Pairs of requests, with a null field and without it, for each optional field at any depth, with its path.
fn pairs(schema: &'static Value, lease: &Value) -> Vec<(String, Value, Value)> {
    let base = required_only(schema, lease);
    let with = |name: &str, value: Value| {
        let mut request = base.clone();
        request[name] = value;
        request
    };
    let mut found = Vec::new();
    for (name, field) in properties(schema) {
        if !is_required(schema, name) {
            found.push((name.to_owned(), with(name, Value::Null), base.clone()));
        }
        let (item, in_list) = match field["type"].as_str() {
            Some("array") => (self::schema(&field["items"]), true),
            _ => (field, false),
        };
        for (path, null, absent) in pairs_of_object(item, lease) {
            let wrap = |value: Value| with(name, if in_list { json!([value]) } else { value });
            found.push((format!("{name}/{path}"), wrap(null), wrap(absent)));
        }
    }
    found
}

fn pairs_of_object(schema: &'static Value, lease: &Value) -> Vec<(String, Value, Value)> {
    if schema["type"] == "object" { pairs(schema, lease) } else { Vec::new() }
}

/// The answer without its ids and times.
fn comparable(value: &Value) -> Value {
    let is_own = |name: &str| matches!(name, "id" | "lease" | "request_id" | "slot") || name.ends_with("_at");
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| !is_own(name) && *name != "lease_until" && *name != "at");
            fields.map(|(name, value)| (name.clone(), comparable(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(comparable).collect(),
        other => other.clone(),
    }
}

/// Sends the request that `choose` picks for a new lease. Returns the answer and the task after it.
async fn sent(fixture: &Fixture, path: &str, choose: impl Fn(&Value) -> Value) -> Value {
    fixture.submit_with(json!({"queue": "q", "backoff": {"jitter": "none"}})).await;
    let lease = fixture.claim_one("q").await;
    let beat = report_with(&lease, json!({"progress": "half"}));
    fixture.http.post("/heartbeat", &json!({"tasks": [beat]})).await.expect(200);
    let answer = fixture.http.post(path, &choose(&lease)).await;
    let task = fixture.task(&lease["id"]).await;
    if task["state"] == "leased" {
        fixture.http.post("/complete", &report(&lease)).await.expect(200);
    }
    for queue in ["q", "default"] {
        let purge = json!({"states": ["ready", "scheduled"]});
        fixture.http.post(&format!("/queues/{queue}/purge"), &purge).await.expect(200);
    }
    comparable(&json!({"status": answer.status, "answer": answer.json(), "task": task}))
}

#[tokio::test]
async fn null_in_each_optional_field_has_the_answer_of_its_absence() {
    let fixture = Fixture::with_shards(1).await;
    let mut tried = 0;
    for (path, operations) in CONTRACT["paths"].as_object().unwrap() {
        let body = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        if body.is_null() || path.contains('{') && !path.ends_with("purge") {
            continue;
        }
        let (path, body) = (path.replace("{queue}", "other"), schema(body));
        let nothing = json!({});
        for index in 0..pairs(body, &nothing).len() {
            let name = pairs(body, &nothing)[index].0.clone();
            let with_null = sent(&fixture, &path, |lease| pairs(body, lease)[index].1.clone()).await;
            let without = sent(&fixture, &path, |lease| pairs(body, lease)[index].2.clone()).await;
            assert_eq!(with_null, without, "{path}: {name}");
            assert!(with_null["status"].as_u64() < Some(300), "{path} {name}: {with_null}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried} fields");
    fixture.end().await;
}

#[tokio::test]
async fn request_with_every_default_is_accepted() {
    let fixture = Fixture::start().await;
    let backoff = json!({"kind": "fixed", "base_ms": 5000, "factor": 2, "max_ms": 3_600_000, "jitter": "full",
        "delays_ms": []});
    let defaults = json!({"queue": "q", "payload": null, "key": null, "priority": 4, "delay_ms": 0,
        "run_at": "2030-01-01T00:00:00Z", "expires_in_ms": null, "max_attempts": 5, "backoff": backoff, "max_run_ms": 0,
        "retain_ms": null, "tags": [], "headers": {}, "dedupe": null});
    assert_eq!(fixture.submit_with(defaults).await["state"], "scheduled");
    for path in ["/queues/q/pause", "/queues/q/resume"] {
        fixture.http.post_text(path, "null").await.expect(200);
    }
    let claim = fixture.http.post_with("/claim", &[("prefer", "wait=0")], br#"{"queues":["q"],"wait_ms":0}"#).await;
    assert_eq!((claim.status, claim.header("preference-applied")), (200, Some("wait=0")));
    fixture.end().await;
}
