//! The poisoned queue: from the first fault to the end of the run, one of its keys and one of its tasks are unreadable.
//! All other queues are served as without it.

use std::process::Command;
use std::time::Duration;

use deadpool_redis::redis::{Cmd, cmd};
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;

use super::client::{Client, Read, Request, Sent, claimed, payload};
use super::clock;
use crate::history::event::{Answer, Call, Item, Outcome};
use crate::support::poll::poll;
use crate::support::text;

/// Its name. Workers claim from it too.
pub const QUEUE: &str = "poisoned";
/// A queue beside it, used after all faults.
const BESIDE: &str = "beside";
/// Its keys and its record, one of which becomes unreadable.
pub const KEYS: [&str; 5] = ["wheel", "scheduled", "leased", RECORD, "settings_copy"];
const RECORD: &str = "record";

/// Its tasks are delayed, and one is leased, until the fault has come.
const DELAY_MS: i64 = 3000;
/// The most by which upkeep of another queue may be late.
const LATE: Duration = Duration::from_secs(3);
/// Time for each server to meet the poison, or its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Submits the tasks of the queue: each of them needs upkeep, and so meets the poison. Returns the task whose key becomes
/// unreadable.
pub async fn prepare(client: &mut Client) -> TaskId {
    let mut op = client.begin();
    let mut items: Vec<Item> =
        (0..4).map(|place| Item { name: client.unique(op, place), priority: 4, ..Item::default() }).collect();
    let mut tasks: Vec<Value> =
        items.iter().map(|item| json!({"queue": QUEUE, "payload": payload(&item.name)})).collect();
    for place in 1..4 {
        items[place].delay_ms = DELAY_MS;
        tasks[place]["delay_ms"] = json!(DELAY_MS);
    }
    tasks[2]["expires_in_ms"] = json!(DELAY_MS + 1000);
    let read = |body: &Value| -> Read {
        let results = body["results"].as_array().expect("results").iter();
        let outcome = |result: &Value| {
            let (id, slot) = (text(&result["task"]["id"]).to_owned(), result["task"]["slot"].as_u64());
            Outcome::Created { id, slot: slot.expect("a slot") as u16 }
        };
        Ok(Answer::Submitted(results.map(outcome).collect()))
    };
    let request = Request::post("/tasks/batch", json!({"tasks": tasks}));
    let sent = client.send(&mut op, Call::Submit { queue: QUEUE.into(), items }, request, read).await;
    let Sent::Ok(_, body) = sent else { panic!("there is no fault yet") };

    let mut op = client.begin();
    let claim = json!({"queues": [QUEUE], "lease_ms": DELAY_MS, "worker": client.name});
    let call = Call::Claim { lease_ms: DELAY_MS, claim_id: false };
    let read = |body: &Value| -> Read { Ok(Answer::Claimed(claimed(&body["tasks"]))) };
    client.send(&mut op, call, Request::post("/claim", claim), read).await;
    TaskId::parse(text(&body["results"][3]["task"]["id"])).expect("an id")
}

/// The commands that make a key of the queue, or its record, and a task unreadable.
pub fn commands(key: &str, task: &TaskId) -> [Cmd; 2] {
    let keys = clock::keys();
    let of_queue = match key {
        RECORD => cmd("HSET").arg(keys.callers()).arg(format!("queue:{QUEUE}")).arg("x").to_owned(),
        key => cmd("SET").arg(format!("{}{key}:{QUEUE}", keys.base())).arg("x").to_owned(),
    };
    [of_queue, cmd("SET").arg(keys.task(task)).arg("x").to_owned()]
}

/// Checks that each server reports the queue and serves another, and that a repair sets the poison aside. Returns what is
/// wrong. Comes after all faults.
pub async fn check(client: &mut Client, redis: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(beside_in_time(client).await);
    wrong.extend(until_degraded(client, true).await);
    wrong.extend(repair(redis).err());
    wrong.extend(until_degraded(client, false).await);
    wrong
}

/// Runs `doctor --repair`, and returns what it said. The error: it failed, or there is no poison aside.
///
/// While servers run, a pass can miss a count that is wrong by one if another task moves at that moment.
pub fn repair(redis: &str) -> Result<String, String> {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    doctor.args(["doctor", "--repair", "--redis-url", redis]).env_remove("SLOTWHEEL_CONFIG");
    let output = doctor.output().expect("the doctor");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() && said.contains("set aside under quarantine:") {
        true => Ok(said),
        false => Err(format!("the repair of the poisoned queue: {said}")),
    }
}

/// Checks that a delay, a deadline and a lease of a queue beside the poisoned one end in their time.
async fn beside_in_time(client: &mut Client) -> Option<String> {
    client.post("/tasks", json!({"queue": BESIDE})).await;
    client.post("/claim", json!({"queues": [BESIDE], "lease_ms": 1000, "worker": client.name})).await;
    client.post("/tasks", json!({"queue": BESIDE, "delay_ms": 1000})).await;
    client.post("/tasks", json!({"queue": BESIDE, "expires_in_ms": 1000})).await;
    let (server, path) = (client.any_server(), format!("/queues/{BESIDE}"));
    let counts = || async { client.get_from(server, &path).await["counts"].clone() };
    let in_time = poll(Duration::from_secs(1) + LATE, || async {
        let counts = counts().await;
        (counts["ready"] == 2 && counts["expired"] == 1).then_some(())
    });
    match in_time.await {
        Some(()) => None,
        None => Some(format!("a queue beside the poisoned one is late: {}", counts().await)),
    }
}

/// Waits until every server reports the queue, or none does.
async fn until_degraded(client: &Client, expected: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for server in client.servers.clone() {
        let shown = poll(PATIENCE, || async {
            let ready = client.get_from(server, "/readyz").await;
            let degradations = ready["degradations"].as_array().expect("degradations");
            let of_queue = |one: &Value| one["reason"] == "upkeep_failing" && one["subject"] == QUEUE;
            (degradations.iter().any(of_queue) == expected).then_some(())
        });
        if shown.await.is_none() {
            let ready = client.get_from(server, "/readyz").await;
            wrong.push(format!("poisoned queue expected in /readyz: {expected}; shown: {ready}"));
        }
    }
    wrong
}
