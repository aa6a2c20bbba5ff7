//! Unreadable data costs the task or the queue that it belongs to, and nothing else.

use deadpool_redis::redis::{Cmd, cmd};
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::store::record::fields;
use slotwheel::store::{Shard, Store};

use crate::support::{Fixture, text};

/// Ways to make a task unreadable.
const DAMAGES: [Damage; 4] = [Damage::String, Damage::List, Damage::NoSlot, Damage::NoNumber];

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The key is a string.
    String,
    /// The key is a list.
    List,
    /// A field is missing.
    NoSlot,
    /// Fields are no numbers.
    NoNumber,
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
            Damage::NoSlot => ask(cmd("HDEL").arg(&key).arg(fields::SLOT)).await,
            Damage::NoNumber => {
                for field in [fields::SEQ, fields::MAX_ATTEMPTS, fields::PRIORITY, fields::RETAIN_MS] {
                    ask(cmd("HSET").arg(&key).arg(field).arg("x")).await;
                }
            }
        }
    }

    /// Replaces a key by one of another type.
    async fn replace(&self, fixture: &Fixture, rest: &str, damage: Damage) {
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
    let keys = ["wheel", "scheduled", "leased", "count", "settings_copy"];
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
    until_degraded(&fixture, &["count", "leased", "scheduled", "settings_copy", "wheel"]).await;

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
