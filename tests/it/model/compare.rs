//! What the model says, in the words of the API. Times stand as the model's milliseconds; what the server says is turned
//! into those where it fits.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slotwheel::domain::slot::Slot;
use slotwheel::domain::state::State;
use slotwheel::domain::time::Millis;

use super::calls::Name;
use super::{Ended, Model, Problem, Task};

/// How late, by the model's clock, a thing may be seen to have happened: less than the time between two things.
const SLACK: i64 = 20_000;

/// The server's words for what the model names.
pub(super) struct Names {
    /// Redis' clock when the model's was at zero.
    pub(super) epoch: i64,
    ids: BTreeMap<Name, Value>,
    tokens: BTreeMap<(Name, u32), Value>,
}

/// Notes `seen` under `name`, or what was noted of it; `None`: another name has it.
fn known<K: Ord + Copy>(all: &mut BTreeMap<K, Value>, name: K, seen: &Value) -> Value {
    let taken = all.iter().any(|(other, value)| *other != name && value == seen);
    let noted = all.entry(name).or_insert_with(|| seen.clone()).clone();
    if taken { json!("one that is not another's") } else { noted }
}

impl Names {
    pub(super) fn since(epoch: i64) -> Self {
        Names { epoch, ids: BTreeMap::new(), tokens: BTreeMap::new() }
    }

    pub(super) fn id(&self, name: Name) -> &Value {
        self.ids.get(&name).expect("an id that was answered")
    }

    pub(super) fn token(&self, name: Name, nth: u32) -> &Value {
        self.tokens.get(&(name, nth)).expect("a token that was answered")
    }

    /// A task as it is shown; a new one's id is taken from `seen`.
    pub(super) fn task(&mut self, task: &Task, seen: &Value) -> Value {
        let errors = task.errors.values().map(|failure| {
            let (message, details) = match failure.kind {
                "lease_expired" => ("the lease ran out before the worker reported", Value::Null),
                _ => ("it broke", json!([1])),
            };
            let (at, attempt, worker, kind) = (failure.at, failure.attempt, failure.worker, failure.kind);
            let shown = json!({"at": at, "attempt": attempt, "worker": worker, "type": kind, "message": message,
                "details": details});
            (at, shown)
        });
        let mut errors: Vec<(i64, Value)> = errors.collect();
        errors.sort_by_key(|(at, _)| *at);
        let errors: Vec<Value> = errors.into_iter().map(|(_, shown)| shown).collect();
        let mut shown = self.content(task, seen);
        for (name, value) in [
            ("state", json!(task.state.as_str())),
            ("attempts", json!(task.attempts)),
            ("acquired", json!(task.acquired)),
            ("result", json!(task.result)),
            ("errors", json!(errors)),
            ("run_at", json!(task.run_at)),
            ("finished_at", json!(task.finished_at)),
            ("worker", json!(task.worker)),
            ("lease_until", json!(task.lease.as_ref().map(|lease| lease.until))),
            ("cancel_requested", json!(task.lease.is_some() && task.cancel)),
        ] {
            shown[name] = value;
        }
        shown
    }

    /// What tasks and claimed tasks show alike.
    fn content(&mut self, task: &Task, seen: &Value) -> Value {
        let spec = &task.spec;
        json!({
            "id": known(&mut self.ids, task.name, &seen["id"]),
            "queue": spec.queue,
            "key": spec.key,
            "slot": Slot::of_key(task.place().as_bytes()).number(),
            "priority": spec.priority,
            "payload": {"n": spec.payload},
            "max_attempts": spec.max_attempts,
            "progress": task.progress,
            "tags": [format!("tag{}", spec.payload)],
            "headers": {"n": spec.payload.to_string()},
            "group": null,
            "created_at": task.created_at,
            "expires_at": task.expires_at,
        })
    }

    /// A task as its worker gets it; a new lease's token is taken from `seen`.
    pub(super) fn claimed(&mut self, task: &Task, seen: &Value) -> Value {
        let mut shown = self.content(task, seen);
        shown["attempt"] = json!(task.attempts + 1);
        shown["lease"] = known(&mut self.tokens, (task.name, task.acquired), &seen["lease"]);
        shown["lease_until"] = json!(task.lease.as_ref().map(|lease| lease.until));
        shown
    }

    pub(super) fn moved(&self, name: Name, ended: &Ended) -> Value {
        json!({"id": self.id(name), "state": ended.state.as_str(), "run_at": ended.run_at})
    }

    /// What differs, as lines; none: they agree.
    pub(super) fn differences(&self, what: &str, seen: &Value, wanted: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.compare(what, seen, wanted, &mut found);
        found
    }

    fn compare(&self, at: &str, seen: &Value, wanted: &Value, found: &mut Vec<String>) {
        match (seen, wanted) {
            (Value::Object(seen), Value::Object(wanted)) => {
                for name in seen.keys().chain(wanted.keys().filter(|name| !seen.contains_key(*name))) {
                    let of = |fields: &serde_json::Map<String, Value>| {
                        fields.get(name).cloned().unwrap_or_else(|| json!("(absent)"))
                    };
                    self.compare(&format!("{at}.{name}"), &of(seen), &of(wanted), found);
                }
            }
            (Value::Array(seen), Value::Array(wanted)) if seen.len() == wanted.len() => {
                for (place, (seen, wanted)) in seen.iter().zip(wanted).enumerate() {
                    self.compare(&format!("{at}[{place}]"), seen, wanted, found);
                }
            }
            (Value::String(text), Value::Number(time)) => {
                let time = time.as_i64().expect("a time");
                let seen = Millis::parse(text).map(|at| at.0 - self.epoch);
                if !seen.is_some_and(|seen| (time..time + SLACK).contains(&seen)) {
                    found.push(format!("{at} is {seen:?}, the model says {time}"));
                }
            }
            (seen, wanted) if seen == wanted => {}
            (seen, wanted) => found.push(format!("{at} is {seen}, the model says {wanted}")),
        }
    }
}

/// What a problem shows that the model knows.
pub(super) fn problem(of: &Problem) -> Value {
    json!({"status": of.0, "code": of.1, "state": of.2.map(State::as_str)})
}

/// The same of what the server says.
pub(super) fn problem_seen(seen: &Value) -> Value {
    json!({"status": seen["status"], "code": seen["code"], "state": seen["state"]})
}

/// A queue as it is shown, but for the age of its oldest task; `None` where nobody knows it.
pub(super) fn queue(model: &Model, name: &str) -> Option<Value> {
    let queue = model.queues.get(name).filter(|queue| queue.known)?;
    let mut counts = json!({"submitted": queue.submitted, "removed": queue.removed});
    for state in State::ALL {
        let standing = model.tasks.values().filter(|task| task.spec.queue == name && task.state == state);
        counts[state.as_str()] = json!(standing.count());
    }
    Some(json!({"queue": name, "paused": queue.paused, "counts": counts}))
}
