//! The command `slotwheel doctor --repair`.

use std::process::{Command, Output, Stdio};

use deadpool_redis::redis::cmd;
use serde_json::json;
use slotwheel::store::layout::queue::Field;

use crate::support::Fixture;
use crate::support::records::raise;

async fn doctor(fixture: &Fixture, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.arg("doctor").args(arguments).args(["--redis-url", &fixture.redis.url]);
    command.env_remove("SLOTWHEEL_CONFIG").stdin(Stdio::null());
    let output = crate::support::output(command).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[tokio::test]
async fn repair_lists_its_repairs_and_succeeds_if_nothing_remains() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let store = fixture.store().await;
    let id_bytes = slotwheel::domain::id::TaskId::parse(crate::support::text(&id)).unwrap();
    let shard = store.shard_for_task(&id_bytes);
    let slot = shard.keys.slot(&slotwheel::domain::queue::QueueName::parse("q").unwrap(), 4, id_bytes.slot());
    fixture.redis.ask::<()>(cmd("ZREM").arg(&slot).arg(id_bytes.as_bytes())).await;
    raise(&fixture.redis, &shard.keys.callers(), "shard", Field::dead, 1).await;

    let (output, said) = doctor(&fixture, &[]).await;
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&format!("DEFECT shard {}: task {}", shard.index, crate::support::text(&id))), "{said}");

    let (output, said) = doctor(&fixture, &["--repair"]).await;
    assert!(output.status.success(), "{said}");
    let lines = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    assert!(lines("FOUND") == 5 && lines("REPAIRED") == 2 && lines("DEFECT") == 0, "{said}");
    assert!(
        said.contains("missing, but state is ready in queue q; added") && said.ends_with("no defects found\n"),
        "{said}"
    );

    let (output, said) = doctor(&fixture, &["--repair"]).await;
    assert!(output.status.success() && !said.contains("REPAIRED"), "{said}");
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn repair_fails_if_a_violation_remains() {
    let fixture = Fixture::start().await;
    let store = fixture.store().await;
    let key = [store.first_shard().keys.base().as_bytes(), b"task:no id"].concat();
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(slotwheel::store::record::fields::STATE).arg("ready")).await;
    let (output, said) = doctor(&fixture, &["--repair"]).await;
    assert!(!output.status.success() && said.ends_with("1 defect\n"), "{said}");
    assert!(said.contains("has an id of 5 bytes instead of 16"), "{said}");
    fixture.redis.ask::<()>(cmd("DEL").arg(&key)).await;
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_is_named_and_set_aside_by_repair() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let store = fixture.store().await;
    let task = slotwheel::domain::id::TaskId::parse(crate::support::text(&id)).unwrap();
    let shard = store.shard_for_task(&task);
    fixture.redis.ask::<()>(cmd("SET").arg(shard.keys.task(&task)).arg("x")).await;

    let (output, said) = doctor(&fixture, &[]).await;
    let defect =
        format!("DEFECT shard {}: task {}: the type is string, expected hash", shard.index, crate::support::text(&id));
    assert!(!output.status.success() && said.contains(&defect), "{said}");
    let (output, said) = doctor(&fixture, &["--repair"]).await;
    assert!(output.status.success() && said.contains("expected hash; set aside under quarantine:"), "{said}");
    assert!(said.contains("1 unreadable keys are set aside"), "{said}");
    fixture.end().await;
}

#[tokio::test]
async fn callers_of_another_type_are_named_and_set_aside_by_repair() {
    let fixture = Fixture::start().await;
    let store = fixture.store().await;
    let shard = store.first_shard();
    fixture.submit("q", json!(1)).await;
    fixture.redis.ask::<()>(cmd("SET").arg(shard.keys.callers()).arg("x")).await;

    let reason = "the type of callers is string, expected hash";
    let ready = fixture.http.get("/readyz").await;
    assert_eq!(ready.problem(503).0, "unavailable");
    assert!(ready.text.contains(reason) && ready.text.contains("doctor --repair"), "{}", ready.text);
    let (output, said) = doctor(&fixture, &[]).await;
    assert!(!output.status.success() && said.contains(&format!("DEFECT shard 0: {reason}")), "{said}");
    assert!(said.ends_with("1 defect\n"), "{said}");

    let (output, said) = doctor(&fixture, &["--repair"]).await;
    assert!(output.status.success() && said.contains("so that no script runs; set aside under quarantine:"), "{said}");
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.submit("q", json!(2)).await;
    fixture.claim_one("q").await;
    fixture.end().await;
}

#[tokio::test]
async fn stored_task_is_shown_with_the_meaning_of_each_value() {
    let fixture = Fixture::start().await;
    let task =
        fixture.submit_with(json!({"queue": "mail", "payload": {"a": 1}, "priority": 7, "max_attempts": 3})).await;
    let claimed = fixture.claim_one("mail").await;
    let store = fixture.store().await;
    let id = slotwheel::domain::id::TaskId::parse(crate::support::text(&task["id"])).unwrap();
    let key = store.shard_for_task(&id).keys.task(&id);
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg("zz").arg("of a later release")).await;

    let (output, said) = doctor(&fixture, &["show", crate::support::text(&task["id"])]).await;
    assert!(output.status.success(), "{said}");
    let value = |name: &str| {
        let line = said
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap_or_else(|| panic!("{name} in {said}"));
        line[name.len()..].trim().to_owned()
    };
    assert!(value("S").starts_with("leased "), "{said}");
    assert!(
        value("placement.priority").starts_with("7 ") && value("placement.max_attempts").starts_with("3 "),
        "{said}"
    );
    assert!(value("placement.queue").starts_with("mail "), "{said}");
    let created_at = format!("({})", crate::support::text(&claimed["created_at"]));
    assert!(value("placement.created_at").contains(&created_at), "{said}");
    assert!(value("lease.lease_token").starts_with(crate::support::text(&claimed["lease"])), "{said}");
    assert!(value("zz").contains("a later release"), "{said}");

    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(slotwheel::store::record::fields::LEASE).arg("x")).await;
    let (output, said) = doctor(&fixture, &["show", crate::support::text(&task["id"])]).await;
    assert!(output.status.success() && said.contains("unreadable"), "{said}");
    fixture.redis.ask::<()>(cmd("DEL").arg(&key)).await;
    let (output, said) = doctor(&fixture, &["show", crate::support::text(&task["id"])]).await;
    assert!(!output.status.success() && said.contains("no task"), "{said}");
    slotwheel::store::audit::repair(&store, |_| {}).await.expect("a repair");
    fixture.end().await;
}
