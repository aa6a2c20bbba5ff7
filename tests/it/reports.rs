//! A report is taken whatever its content: values beyond their limits are changed, and `adjusted` lists them.

use serde_json::{Value, json};

use crate::support::{Fixture, report, report_with, text};

async fn claimed_task(fixture: &Fixture) -> Value {
    fixture.submit_with(json!({"queue": "q", "key": "k"})).await;
    fixture.claim_one("q").await
}

fn adjusted(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(pointer, reason)| json!({"pointer": pointer, "reason": reason})).collect()
}

#[tokio::test]
async fn long_message_and_type_of_a_failure_are_cut() {
    let fixture = Fixture::start().await;
    let task = claimed_task(&fixture).await;
    let traceback = format!("Traceback (most recent call last):\n{}ValueError: ü", "  é\n".repeat(1500));
    let error = json!({"type": "T".repeat(300), "message": traceback});
    let body = report_with(&task, json!({"error": error, "retry_in_ms": i64::MAX}));

    let answer = fixture.http.post("/fail", &body).await.expect(200);

    let wanted = [("/error/type", "cut"), ("/error/message", "cut"), ("/retry_in_ms", "clamped")];
    assert_eq!((&answer["state"], &answer["adjusted"]), (&json!("scheduled"), &adjusted(&wanted)));
    let stored = &fixture.task(&task["id"]).await["errors"][0];
    let message = text(&stored["message"]);
    assert!(message.len() <= 4096 && text(&stored["type"]).len() <= 256);
    assert!(message.starts_with("Traceback") && message.ends_with("ValueError: ü"), "{message}");
    assert!(message.contains(&format!("[cut, {} bytes]", traceback.len())), "{message}");
    fixture.end().await;
}

#[tokio::test]
async fn failure_without_message_and_with_an_empty_type_is_stored() {
    let fixture = Fixture::start().await;
    let task = claimed_task(&fixture).await;
    let answer = fixture.http.post("/fail", &report_with(&task, json!({"error": {"type": ""}}))).await.expect(200);
    assert_eq!(answer["adjusted"], json!([]));
    let stored = &fixture.task(&task["id"]).await["errors"][0];
    assert_eq!((&stored["type"], &stored["message"]), (&json!("Error"), &json!("")));
    fixture.end().await;
}

#[tokio::test]
async fn result_over_its_limit_is_stored_as_a_cut_string() {
    let fixture = Fixture::start().await;
    let (object, string) = (json!({"rows": ["\u{1}".repeat(60_000)]}), json!("\"".repeat(300_000)));
    for (result, bytes) in [(&object, object.to_string().len()), (&string, 300_000)] {
        let task = claimed_task(&fixture).await;
        let body = report_with(&task, json!({"result": result}));
        let answer = fixture.http.post("/complete", &body).await.expect(200);
        assert_eq!((&answer["state"], &answer["adjusted"]), (&json!("completed"), &adjusted(&[("/result", "cut")])));
        let stored = fixture.task(&task["id"]).await["result"].clone();
        assert!(text(&stored).contains(&format!("[cut, {bytes} bytes]")));
        assert!(stored.to_string().len() <= 256 * 1024);
        assert!(result.to_string().starts_with(&text(&stored)[..1]));
    }
    fixture.end().await;
}

#[tokio::test]
async fn progress_details_and_batches_name_what_was_adjusted() {
    let fixture = Fixture::start().await;
    let (task, large) = (claimed_task(&fixture).await, "x".repeat(256 * 1024));
    let item = report_with(&task, json!({"progress": large, "lease_ms": 1}));
    let body = json!({"worker": "w".repeat(257), "tasks": [report(&task), item]});
    let tasks = fixture.http.post("/heartbeat", &body).await.expect(200)["tasks"].clone();
    assert_eq!(tasks[0]["adjusted"], adjusted(&[("/worker", "cut")]));
    let wanted = [("/worker", "cut"), ("/tasks/1/lease_ms", "clamped"), ("/tasks/1/progress", "cut")];
    assert_eq!(tasks[1]["adjusted"], adjusted(&wanted));
    assert!(tasks[1]["lease_until"].is_string());
    let body = json!({"completions": [report(&task), report_with(&task, json!({"result": large}))]});
    let results = fixture.http.post("/complete/batch", &body).await.expect(200)["results"].clone();
    assert_eq!(results[0]["adjusted"], json!([]));
    assert_eq!(results[1]["adjusted"], adjusted(&[("/completions/1/result", "cut")]));

    let task = claimed_task(&fixture).await;
    let error = json!({"message": "m", "details": large});
    let answer = fixture.http.post("/fail", &report_with(&task, json!({"error": error}))).await.expect(200);
    assert_eq!(answer["adjusted"], adjusted(&[("/error/details", "cut")]));
    fixture.end().await;
}

#[tokio::test]
async fn delay_of_a_release_is_clamped() {
    let fixture = Fixture::start().await;
    let task = claimed_task(&fixture).await;
    let answer = fixture.http.post("/release", &report_with(&task, json!({"delay_ms": -1}))).await.expect(200);
    assert_eq!((&answer["state"], &answer["adjusted"]), (&json!("ready"), &adjusted(&[("/delay_ms", "clamped")])));
    fixture.end().await;
}

#[tokio::test]
async fn parts_that_no_parser_reads_are_replaced_in_a_report() {
    let fixture = Fixture::start().await;
    let post = |path: &'static str, task: &Value, more: &str| {
        let body = format!("{{\"id\":{},\"lease\":{},{more}}}", task["id"], task["lease"]);
        let http = fixture.http.clone();
        async move { http.post_text(path, &body).await.expect(200) }
    };
    let replaced = adjusted(&[("/result", "replaced")]);
    for (result, wanted) in [
        (r#"{"a":"\ud83d!","b":"\ud83d\ude00"}"#, json!({"a": "\u{FFFD}!", "b": "😀"})),
        (r#"[1e400,NaN,-Infinity,12]"#, json!([null, null, null, 12])),
        (r#"{"a":1,"b":{"c":0},"a":2}"#, json!({"a": 2, "b": {"c": 0}})),
    ] {
        let task = claimed_task(&fixture).await;
        let answer = post("/complete", &task, &format!("\"result\":{result}")).await;
        assert_eq!((&answer["state"], &answer["adjusted"]), (&json!("completed"), &replaced), "{result}");
        assert_eq!(fixture.task(&task["id"]).await["result"], wanted);
    }
    let task = claimed_task(&fixture).await;
    let error = r#""error":{"type":"\udc00","message":"half \ud83d","details":[1e999]},"retry_in_ms":1e999"#;
    let wanted = ["/error/type", "/error/message", "/error/details"].map(|pointer| (pointer, "replaced"));
    let wanted = [&wanted[..], &[("/retry_in_ms", "clamped")]].concat();
    assert_eq!(post("/fail", &task, error).await["adjusted"], adjusted(&wanted));
    let stored = fixture.task(&task["id"]).await["errors"][0].clone();
    assert_eq!((&stored["message"], &stored["details"]), (&json!("half \u{FFFD}"), &json!([null])));
    fixture.end().await;
}

#[tokio::test]
async fn bytes_outside_utf8_and_deep_values_are_taken_in_a_report() {
    let fixture = Fixture::start().await;
    let task = claimed_task(&fixture).await;
    let (id, lease) = (&task["id"], &task["lease"]);
    let deep = format!("[1,{}{}]", "[".repeat(100), "]".repeat(100));
    let beat = format!(r#"{{"tasks":[{{"id":{id},"lease":{lease},"progress":{deep}}}]}}"#);
    let beat = fixture.http.post_text("/heartbeat", &beat).await.expect(200)["tasks"][0].clone();
    assert_eq!(beat["adjusted"], adjusted(&[("/tasks/0/progress", "cut")]));
    let stored = fixture.task(id).await["progress"].clone();
    assert_eq!(stored[0], 1);
    assert!(stored.to_string().contains("\"[[[["), "{stored}");

    let mut body = format!(r#"{{"id":{id},"lease":{lease},"error":{{"message":"caf"#).into_bytes();
    body.extend(b"\xe9\"}}");
    let answer = fixture.http.post_with("/fail", &[], &body).await.expect(200);
    assert_eq!(answer["adjusted"], adjusted(&[("/error/message", "replaced")]));
    assert_eq!(fixture.task(id).await["errors"][0]["message"], "caf\u{FFFD}");
    fixture.end().await;
}

#[tokio::test]
async fn report_of_several_mib_is_taken() {
    let fixture = Fixture::start().await;
    let task = claimed_task(&fixture).await;
    let error = json!({"message": "m".repeat(5 << 20), "details": "d".repeat(2 << 20)});
    let answer = fixture.http.post("/fail", &report_with(&task, json!({"error": error}))).await.expect(200);
    assert_eq!(answer["adjusted"], adjusted(&[("/error/message", "cut"), ("/error/details", "cut")]));
    fixture.end().await;
}
