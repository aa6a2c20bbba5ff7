//! A submit stores every field as sent.

use serde_json::json;

use crate::support::{Fixture, text};

#[tokio::test]
async fn submitted_task_is_returned_and_read_back() {
    let fixture = Fixture::start().await;

    let answer = fixture.http.post("/tasks", &json!({"queue": "mail", "payload": {"to": "ada"}, "key": "k"})).await;

    let task = answer.expect(201);
    assert_eq!(answer.header("location"), Some(format!("/tasks/{}", text(&task["id"])).as_str()));
    assert_eq!(task["deduplicated"], false);
    assert_eq!((&task["queue"], &task["state"], &task["key"]), (&json!("mail"), &json!("ready"), &json!("k")));
    assert_eq!((&task["priority"], &task["max_attempts"], &task["attempts"]), (&json!(4), &json!(5), &json!(0)));
    let mut read = fixture.task(&task["id"]).await;
    read["deduplicated"] = json!(false);
    assert_eq!(read, task);
    fixture.end().await;
}

#[tokio::test]
async fn submitted_task_keeps_every_field() {
    let fixture = Fixture::start().await;
    let body = json!({
        "queue": "q", "payload": [1], "key": "k", "priority": 9, "delay_ms": 60_000, "expires_in_ms": 120_000,
        "max_attempts": 2, "backoff": {"kind": "fixed", "base_ms": 5, "jitter": "none"}, "max_run_ms": 5000,
        "retain_ms": 20_000, "tags": ["a", "b"], "headers": {"x": "y"}, "dedupe": {"key": "d"},
    });

    let id = fixture.submit_with(body).await["id"].clone();

    let task = fixture.task(&id).await;
    assert_eq!(task["state"], "scheduled");
    assert_eq!((&task["priority"], &task["max_attempts"]), (&json!(9), &json!(2)));
    assert_eq!((&task["tags"], &task["headers"]), (&json!(["a", "b"]), &json!({"x": "y"})));
    assert!(task["run_at"].is_string() && task["expires_at"].is_string());
    fixture.end().await;
}

#[tokio::test]
async fn payloads_are_returned_byte_for_byte() {
    let fixture = Fixture::start().await;
    let nested = "[".repeat(63) + &"]".repeat(63);
    for payload in [
        "[]",
        "{}",
        "null",
        r#""""#,
        "9007199254740993",
        "123456789012345678901234567890",
        "1.10",
        "-0",
        "1E+2",
        r#"{"b":1, "a" : [ ]}"#,
        r#""\ud83d\ude00 \u00e9 \" \\ \/ \u0000""#,
        "\"\u{1F600} \u{FFFF} \u{7f} \u{2028}\"",
        nested.as_str(),
    ] {
        let answer = fixture.http.post_text("/tasks", &format!("{{\"payload\":{payload}}}")).await;
        let id = answer.expect(201)["id"].clone();
        let wanted = format!("\"payload\":{payload},");
        assert!(answer.text.contains(&wanted), "{payload} is returned as {}", answer.text);
        let read = fixture.http.get(&format!("/tasks/{}", text(&id))).await;
        assert!(read.text.contains(&wanted), "{payload} is read as {}", read.text);
        let claimed = fixture.http.post("/claim", &json!({})).await;
        assert!(claimed.text.contains(&wanted), "{payload} is claimed as {}", claimed.text);
    }
    fixture.end().await;
}
