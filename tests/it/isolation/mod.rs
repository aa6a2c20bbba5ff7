//! Unreadable data costs the task or the queue that it belongs to, and nothing else.

mod operations;

use deadpool_redis::redis::{Cmd, cmd};
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::store::record::fields;
use slotwheel::store::{Shard, Store};

use crate::metrics::metrics;
use crate::support::{Fixture, report, text};

/// Ways to make a task unreadable.
const DAMAGES: [Damage; 4] = [Damage::String, Damage::List, Damage::NoPlacement, Damage::ShortRecord];

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The key is a string.
    String,
    /// The key is a list.
    List,
    /// A record is missing.
    NoPlacement,
    /// Records are too short, and a number is none.
    ShortRecord,
    /// The document is missing.
    NoDocument,
    /// A record is of a later version.
    OtherVersion,
}

/// The store, and the shard of tasks with key `k`.
struct Place {
    store: Store,
    index: usize,
}

impl Place {
    async fn of(fixture: &Fixture) -> Self {
        let store = fixture.store().await;
        let index = store.layout().shard_of(slotwheel::domain::slot::Slot::of_key(b"k"));
        Place { store, index }
    }

    fn shard(&self) -> &Shard {
        &self.store.shards()[self.index]
    }

    fn key(&self, rest: &str) -> Vec<u8> {
        format!("{}{rest}", self.shard().keys.base()).into_bytes()
    }

    async fn damage(&self, fixture: &Fixture, id: &Value, damage: Damage) {
        let key = self.shard().keys.task(&TaskId::parse(text(id)).unwrap());
        let ask = async |command: &Cmd| fixture.redis.ask::<()>(command).await;
        match damage {
            Damage::String => ask(cmd("SET").arg(&key).arg("x")).await,
            Damage::List => {
                ask(cmd("DEL").arg(&key)).await;
                ask(cmd("RPUSH").arg(&key).arg("x")).await;
            }
            Damage::NoPlacement => ask(cmd("HDEL").arg(&key).arg(fields::PLACEMENT)).await,
            Damage::NoDocument => ask(cmd("HDEL").arg(&key).arg(fields::DOCUMENT)).await,
            Damage::OtherVersion => ask(cmd("HSET").arg(&key).arg(fields::PLACEMENT).arg("x".repeat(64))).await,
            Damage::ShortRecord => {
                for field in [fields::PLACEMENT, fields::LEASE, fields::ENDING, fields::RETAIN_MS] {
                    ask(cmd("HSET").arg(&key).arg(field).arg("\x01x")).await;
                }
            }
        }
    }

    /// Replaces a key by one of another type, and `record:<queue>`, the record of a queue, by one of another length.
    async fn replace(&self, fixture: &Fixture, rest: &str, damage: Damage) {
        if let Some(queue) = rest.strip_prefix("record:") {
            let (callers, field) = (self.shard().keys.callers(), format!("queue:{queue}"));
            return fixture.redis.ask::<()>(cmd("HSET").arg(callers).arg(field).arg("x")).await;
        }
        fixture.redis.ask::<()>(cmd("DEL").arg(self.key(rest))).await;
        match damage {
            Damage::String => fixture.redis.ask::<()>(cmd("SET").arg(self.key(rest)).arg("x")).await,
            _ => fixture.redis.ask::<()>(cmd("RPUSH").arg(self.key(rest)).arg("x")).await,
        }
    }

    /// Sets aside what is unreadable. The remaining findings would fail the test at its end.
    async fn repair(&self) {
        let rest = slotwheel::store::audit::repair(&self.store, |_| {}).await.expect("a repair").findings;
        assert!(rest.is_empty(), "{rest:#?}");
    }
}

async fn submit(fixture: &Fixture, queue: &str, more: Value) -> Value {
    let mut body = json!({"queue": queue, "key": "k"});
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    fixture.submit_with(body).await["id"].clone()
}

/// The subjects that `/readyz` lists as degraded.
async fn degraded(fixture: &Fixture) -> Vec<String> {
    let ready = fixture.http.get("/readyz").await.expect(200);
    let subjects = ready["degradations"].as_array().unwrap().iter().map(|one| {
        assert_eq!(one["reason"], "upkeep_failing");
        text(&one["subject"]).to_owned()
    });
    subjects.collect()
}

/// Waits until exactly these subjects are degraded.
async fn until_degraded(fixture: &Fixture, subjects: &[&str]) {
    fixture.until(|| async { (degraded(fixture).await == subjects).then_some(()) }).await;
}

#[tokio::test]
async fn unreadable_task_stops_no_upkeep_of_other_tasks() {
    for damage in DAMAGES {
        let fixture = Fixture::start().await;
        let place = Place::of(&fixture).await;
        let mut good = Vec::new();
        for queue in ["bad", "good"] {
            let id = submit(&fixture, queue, json!({"max_attempts": 1})).await;
            assert_eq!(fixture.claim_one(queue).await["id"], id);
            good.push((id, "dead"));
            good.push((submit(&fixture, queue, json!({"delay_ms": 50_000})).await, "ready"));
            good.push((submit(&fixture, queue, json!({"expires_in_ms": 50_000})).await, "expired"));
            let ended = submit(&fixture, queue, json!({"retain_ms": 50_000})).await;
            fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&ended))).await.expect(200);
            good.push((ended, "deleted"));
        }
        // The unreadable tasks come first in each index.
        let leased = submit(&fixture, "bad", json!({"priority": 9})).await;
        let body = json!({"queues": ["bad"], "lease_ms": 1000});
        assert_eq!(fixture.http.post("/claim", &body).await.expect(200)["tasks"][0]["id"], leased);
        let mut broken = vec![leased, submit(&fixture, "bad", json!({"delay_ms": 10_000})).await];
        broken.push(submit(&fixture, "bad", json!({"expires_in_ms": 10_000})).await);
        broken.push(submit(&fixture, "bad", json!({"retain_ms": 10_000})).await);
        fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&broken[3]))).await.expect(200);
        for id in &broken {
            place.damage(&fixture, id, damage).await;
        }

        fixture.advance(60_000);
        for (id, state) in &good {
            let path = format!("/tasks/{}", text(id));
            fixture
                .until(|| async {
                    let answer = fixture.http.get(&path).await;
                    let is_deleted = answer.status == 404 && *state == "deleted";
                    (is_deleted || (answer.status == 200 && answer.expect(200)["state"] == *state)).then_some(())
                })
                .await;
        }
        fixture.until(|| async { degraded(&fixture).await.contains(&"bad".to_owned()).then_some(()) }).await;

        place.repair().await;
        until_degraded(&fixture, &[]).await;
        let counts = fixture.counts("bad").await;
        assert_eq!(counts["deleted"], 5, "{damage:?}: {counts}");
        fixture.end().await;
    }
}

#[tokio::test]
async fn queue_with_an_unreadable_key_stops_no_upkeep_of_other_queues() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    let keys = ["wheel", "scheduled", "leased", "record", "settings_copy"];
    for key in keys {
        submit(&fixture, key, json!({"delay_ms": 10_000})).await;
        submit(&fixture, key, json!({"expires_in_ms": 10_000})).await;
        submit(&fixture, key, json!({})).await;
        let body = json!({"queues": [key], "lease_ms": 1000});
        assert_eq!(fixture.http.post("/claim", &body).await.expect(200)["tasks"].as_array().unwrap().len(), 1);
    }
    let delayed = submit(&fixture, "good", json!({"delay_ms": 50_000})).await;
    let expiring = submit(&fixture, "later", json!({"expires_in_ms": 50_000})).await;
    for (n, key) in keys.into_iter().enumerate() {
        place.replace(&fixture, &format!("{key}:{key}"), DAMAGES[n % 2]).await;
    }

    fixture.advance(60_000);
    fixture.until_state(&delayed, "ready").await;
    fixture.until_state(&expiring, "expired").await;
    until_degraded(&fixture, &["leased", "record", "scheduled", "settings_copy", "wheel"]).await;

    place.repair().await;
    until_degraded(&fixture, &[]).await;
    for key in keys {
        fixture
            .until(|| async {
                let counts = fixture.counts(key).await;
                fixture.advance(5000);
                (counts["ready"] == 2 && counts["expired"] == 1 || counts["ready"] == 3).then_some(())
            })
            .await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_is_passed_over_by_claims() {
    for damage in [Damage::String, Damage::List, Damage::NoDocument, Damage::OtherVersion] {
        let fixture = Fixture::start().await;
        let place = Place::of(&fixture).await;
        let broken = submit(&fixture, "q", json!({})).await;
        let whole = [submit(&fixture, "q", json!({})).await, submit(&fixture, "other", json!({})).await];
        place.damage(&fixture, &broken, damage).await;

        let body = json!({"queues": ["q", "other"], "max": 10});
        let claimed = fixture.http.post("/claim", &body).await.expect(200)["tasks"].clone();
        let ids: Vec<&Value> = claimed.as_array().unwrap().iter().map(|task| &task["id"]).collect();
        assert_eq!(ids, whole.iter().collect::<Vec<_>>(), "{damage:?}");
        until_degraded(&fixture, &["q"]).await;

        place.repair().await;
        until_degraded(&fixture, &[]).await;
        fixture.end().await;
    }
}

#[tokio::test]
async fn task_behind_an_unreadable_one_is_claimed_without_a_wakeup() {
    // Polls are too rare to find the task.
    let mut fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
    let other = fixture.another_server().await;
    let gaps = [("kind", "gap")];
    let is_subscribed = async || metrics(&fixture).await.count("slotwheel_wakeups_total", &gaps) >= 1.0;
    fixture.until(|| async { is_subscribed().await.then_some(()) }).await;
    let place = Place::of(&fixture).await;
    let broken = submit(&fixture, "q", json!({})).await;
    place.damage(&fixture, &broken, Damage::String).await;
    assert!(fixture.claim_now("q", 1).await.is_empty());

    // The slot is on the wheel already, so this submit causes no wake-up.
    let task = other.post("/tasks", &json!({"queue": "q", "key": "k"})).await.expect(201);

    assert_eq!(fixture.claim_one("q").await["id"], task["id"]);
    place.repair().await;
    fixture.end().await;
}

#[tokio::test]
async fn report_on_an_unreadable_task_fails_alone_in_its_batch() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    for (path, field) in [("/complete/batch", "completions"), ("/heartbeat", "tasks")] {
        for _ in 0..5 {
            submit(&fixture, "q", json!({"retain_ms": 60_000})).await;
        }
        let claimed = fixture.claim_now("q", 5).await;
        place.damage(&fixture, &claimed[2]["id"], Damage::String).await;
        let reports: Vec<Value> = claimed.iter().map(report).collect();
        let answer = fixture.http.post(path, &json!({field: reports})).await.expect(200);
        let results = answer["results"].as_array().or(answer["tasks"].as_array()).unwrap();
        let failed: Vec<bool> = results.iter().map(|result| result["problem"].is_object()).collect();
        assert_eq!(failed, [false, false, true, false, false], "{path}: {answer}");
        place.repair().await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn queue_with_an_unreadable_key_fails_alone_in_claims_and_submits() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    for (n, key) in ["wheel", "record"].into_iter().enumerate() {
        submit(&fixture, "bad", json!({})).await;
        place.replace(&fixture, &format!("{key}:bad"), DAMAGES[n % 2]).await;

        let claim = async |queues: &[&str]| {
            let body = json!({"queues": queues, "wait_ms": 10_000, "worker": "w"});
            fixture.http.post("/claim", &body).await
        };
        let submits = async {
            let task = |queue: &str| json!({"queue": queue, "key": "k"});
            let body = json!({"tasks": [task("good"), task("bad"), task("good"), task("good")]});
            let answer = fixture.http.post("/tasks/batch", &body).await.expect(200);
            answer["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect()
        };
        let (both, one, other, statuses): (_, _, _, Vec<u64>) =
            tokio::join!(claim(&["bad", "good"]), claim(&["good"]), claim(&["good", "bad"]), submits);
        for answer in [both, one, other] {
            assert_eq!(answer.expect(200)["tasks"][0]["queue"], "good", "{key}, {statuses:?}");
        }
        assert_eq!(statuses, [201, 500, 201, 201], "{key}");
        until_degraded(&fixture, &["bad"]).await;

        place.repair().await;
        until_degraded(&fixture, &[]).await;
        assert_eq!(fixture.claim_one("bad").await["queue"], "bad");
    }
    fixture.end().await;
}

#[tokio::test]
async fn lease_of_a_queue_with_an_unreadable_index_is_given_and_reported() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    for damage in [Damage::String, Damage::List] {
        submit(&fixture, "bad", json!({})).await;
        let good = submit(&fixture, "good", json!({})).await;
        place.replace(&fixture, "leased:bad", damage).await;
        let body = json!({"queues": ["bad", "good"], "max": 2});
        let claimed = fixture.http.post("/claim", &body).await.expect(200)["tasks"].clone();
        assert_eq!(claimed[1]["id"], good);
        for task in claimed.as_array().unwrap() {
            fixture.http.post("/complete", &report(task)).await.expect(200);
        }
        place.repair().await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn views_of_all_queues_leave_out_unreadable_data() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    for key in ["wheel", "scheduled", "leased", "record", "settings_copy", "settings"] {
        for queue in ["bad", "good"] {
            fixture.http.post_nothing(&format!("/queues/{queue}/resume")).await.expect(200);
            submit(&fixture, queue, json!({"delay_ms": 60_000})).await;
            submit(&fixture, queue, json!({})).await;
            submit(&fixture, queue, json!({})).await;
            fixture.claim_one(queue).await;
        }
        let first = fixture.store().await;
        let place_of_key = if key == "settings" {
            Place { index: first.first_shard().index, store: first }
        } else {
            Place::of(&fixture).await
        };
        place_of_key.replace(&fixture, &format!("{key}:bad"), Damage::String).await;

        let queues = fixture.http.get("/queues").await.expect(200);
        let good = queues["queues"].as_array().unwrap().iter().find(|one| one["queue"] == "good").unwrap();
        assert!(good["counts"]["ready"] != 0 && good["unreadable"] == false, "{key}: {queues}");
        assert!(queues["queues"].as_array().unwrap().iter().any(|one| one["queue"] == "bad"), "{key}: {queues}");
        fixture.http.get("/stats").await.expect(200);
        fixture.http.get("/stats?queue=good").await.expect(200);
        let workers = fixture.http.get("/workers").await.expect(200);
        assert!(workers["workers"].is_array());
        let metrics = fixture.http.get("/metrics").await;
        assert!(metrics.status == 200 && metrics.text.contains("slotwheel_queue_tasks{queue=\"good\""), "{key}");
        place.repair().await;
    }
    fixture.end().await;
}
