//! Compares replies of the API with those of the model. Expected times are the model's milliseconds; actual times that
//! match are converted to those.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slotwheel::domain::slot::Slot;
use slotwheel::domain::state::State;
use slotwheel::domain::time::TimestampMs;

use super::steps::{Call, Name};
use super::{Claimed, Ended, Model, Problem, Reply, Task};
use crate::support::Answer;

/// How late, by the model's clock, a thing may be seen to have happened: less than the time between two things.
const SLACK: i64 = 20_000;

/// Errors that a task keeps.
const MAX_ERRORS: usize = 10;

/// The server's words for what the model names.
pub(super) struct Names {
    /// Redis' clock when the model's was zero.
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

    /// The JSON of a task; the id of a new task is taken from `seen`.
    pub(super) fn task(&mut self, task: &Task, seen: &Value) -> Value {
        let errors = task.errors.iter().skip(task.errors.len().saturating_sub(MAX_ERRORS)).map(|failure| {
            let (message, details) = match failure.kind {
                "lease_expired" => ("the lease expired before the worker reported", Value::Null),
                "max_acquired" => {
                    ("the worker released the task, which had been delivered max_acquired times", Value::Null)
                }
                _ => ("it broke", json!([1])),
            };
            let (at, attempt, worker, kind) = (failure.at, failure.attempt, failure.worker, failure.kind);
            json!({"at": at, "attempt": attempt, "worker": worker, "type": kind, "message": message,
                "details": details})
        });
        let errors: Vec<Value> = errors.collect();
        let mut shown = self.content(task, seen);
        let after = task.after.filter(|_| task.state == State::Scheduled);
        for (name, value) in [
            ("state", json!(task.state.as_str())),
            ("attempts", json!(task.attempts)),
            ("acquired", json!(task.acquired)),
            ("max_acquired", json!(task.spec.max_acquired.unwrap_or(1000))),
            ("result", json!(task.result)),
            ("result_dropped", json!(false)),
            ("errors", json!(errors)),
            ("run_at", json!(task.run_at)),
            ("after", after.map_or(Value::Null, |name| self.id(name).clone())),
            ("finished_at", json!(task.finished_at)),
            ("worker", json!(task.worker)),
            ("lease_until", json!(task.lease.as_ref().map(|lease| lease.until))),
            ("cancel_requested", json!(task.lease.is_some() && task.cancel)),
        ] {
            shown[name] = value;
        }
        shown
    }

    /// Fields common to tasks and claimed tasks.
    fn content(&mut self, task: &Task, seen: &Value) -> Value {
        let spec = &task.spec;
        json!({
            "id": known(&mut self.ids, task.name, &seen["id"]),
            "queue": spec.queue,
            "key": spec.key,
            "slot": Slot::of_key(task.slot_key().as_bytes()).number(),
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

    /// The JSON of a claimed task; the token of a new lease is taken from `seen`.
    fn claimed_task(&mut self, task: &Task, seen: &Value) -> Value {
        let mut shown = self.content(task, seen);
        shown["attempt"] = json!(task.attempts + 1);
        shown["lease"] = known(&mut self.tokens, (task.name, task.acquired), &seen["lease"]);
        shown["lease_until"] = json!(task.lease.as_ref().map(|lease| lease.until));
        shown
    }

    fn moved(&self, name: Name, ended: &Ended) -> Value {
        json!({"id": self.id(name), "state": ended.state.as_str(), "run_at": ended.run_at, "adjusted": []})
    }

    /// How the reply differs from the model's.
    pub(super) fn judge(&mut self, call: &Call, answer: &Answer, wanted: &Reply) -> Vec<String> {
        let mut seen = answer.json();
        let submits = matches!(call, Call::Submit(..) | Call::SubmitBatch(_));
        let (status, wanted) = match wanted {
            Reply::Batch(items) => {
                let results: Vec<Value> = items
                    .iter()
                    .enumerate()
                    .map(|(place, item)| {
                        let part = if matches!(item, Reply::Problem(_)) { "problem" } else { "task" };
                        let (status, wanted) = self.wanted(item, true, &mut seen["results"][place][part]);
                        let mut shown = json!({"status": status, "task": null, "problem": null});
                        shown[part] = wanted;
                        shown
                    })
                    .collect();
                (200, json!({"results": results}))
            }
            Reply::Met(submitted, claimed) => {
                // A task that was there before is read behind the submit: the claim may have taken it.
                let is_taken = seen["submit"]["state"] == "leased";
                let taken = match &**submitted {
                    Reply::Task(200, task) if is_taken => claimed.tasks.iter().find(|one| one.name == task.name),
                    _ => None,
                };
                let taken = taken.map(|task| Reply::Task(200, Box::new(task.clone())));
                let submitted = taken.as_ref().unwrap_or(submitted);
                let (status, submitted) = self.wanted(submitted, true, &mut seen["submit"]);
                let tasks = self.claimed(Some(claimed), &mut seen["claim"]["tasks"]);
                (status, json!({"submit": submitted, "claim": {"tasks": tasks}}))
            }
            one => self.wanted(one, submits, &mut seen),
        };
        let mut differences = self.differences("status", &json!(answer.status), &json!(status));
        if differences.is_empty() {
            differences = self.differences("answer", &seen, &wanted);
        }
        differences
    }

    /// Status and body of the model; `seen` is converted to the model's ids, tokens and times.
    fn wanted(&mut self, reply: &Reply, submits: bool, seen: &mut Value) -> (u16, Value) {
        match reply {
            Reply::Task(status, task) => {
                let mut wanted = self.task(task, seen);
                if submits {
                    wanted["deduplicated"] = json!(*status == 200);
                }
                (*status, wanted)
            }
            Reply::Gone(status, name) => {
                *seen = json!({"id": seen["id"], "state": seen["state"], "deduplicated": seen["deduplicated"]});
                (*status, json!({"id": self.id(*name), "state": null, "deduplicated": *status == 200}))
            }
            Reply::Batch(_) | Reply::Met(..) => unreachable!("an item has no items"),
            Reply::Claimed(claimed) => (200, json!({"tasks": self.claimed(Some(claimed), &mut seen["tasks"])})),
            Reply::Transitioned(name, ended) => (200, self.moved(*name, ended)),
            Reply::Completed(results, then) => {
                let (tasks, claim_problem) = match then {
                    Some(Err(of)) => (json!([]), problem(of)),
                    Some(Ok(claimed)) => (self.claimed(Some(claimed), &mut seen["tasks"]), Value::Null),
                    None => (Value::Null, Value::Null),
                };
                if !seen["claim_problem"].is_null() {
                    seen["claim_problem"] = problem_seen(&seen["claim_problem"]);
                }
                let results: Vec<Value> = match seen.get("results") {
                    // A single item, not one of a batch.
                    None => {
                        let state = results[0].as_ref().map_or("refused", |state| state.as_str());
                        let wanted = json!({"id": seen["id"], "state": state, "tasks": tasks,
                            "claim_problem": claim_problem, "adjusted": []});
                        return (200, wanted);
                    }
                    Some(_) => results.iter().map(|result| match result {
                        Ok(state) => {
                            json!({"status": 200, "state": state.as_str(), "problem": null, "adjusted": []})
                        }
                        Err(of) => json!({"status": of.0, "state": null, "problem": problem(of), "adjusted": []}),
                    }),
                }
                .collect();
                for result in seen["results"].as_array_mut().into_iter().flatten() {
                    result.as_object_mut().expect("an object").remove("id");
                    if !result["problem"].is_null() {
                        result["problem"] = problem_seen(&result["problem"]);
                    }
                }
                (200, json!({"results": results, "tasks": tasks, "claim_problem": claim_problem}))
            }
            Reply::Returned(results) => {
                for result in seen["results"].as_array_mut().into_iter().flatten() {
                    result.as_object_mut().expect("an object").remove("id");
                    if !result["problem"].is_null() {
                        result["problem"] = problem_seen(&result["problem"]);
                    }
                }
                let results = results.iter().map(|result| match result {
                    Ok(ended) => json!({"status": 200, "state": ended.state.as_str(), "run_at": ended.run_at,
                        "problem": null, "adjusted": []}),
                    Err(of) => json!({"status": of.0, "state": null, "run_at": null, "problem": problem(of),
                        "adjusted": []}),
                });
                (200, json!({"results": results.collect::<Vec<_>>()}))
            }
            Reply::Heartbeats(beats) => {
                for beat in seen["tasks"].as_array_mut().into_iter().flatten() {
                    beat.as_object_mut().expect("an object").remove("id");
                    if !beat["problem"].is_null() {
                        beat["problem"] = problem_seen(&beat["problem"]);
                    }
                }
                let beats = beats.iter().map(|beat| match beat {
                    Ok((until, cancel)) => {
                        json!({"lease_until": until, "cancel_requested": cancel, "problem": null, "adjusted": []})
                    }
                    Err(of) => json!({"lease_until": null, "cancel_requested": null, "problem": problem(of),
                        "adjusted": []}),
                });
                (200, json!({"tasks": beats.collect::<Vec<_>>()}))
            }
            Reply::Queue(name, paused) => {
                *seen = json!({"queue": seen["queue"], "paused": seen["paused"]});
                (200, json!({"queue": name, "paused": paused}))
            }
            Reply::Purged(moved) => (200, json!({"deleted": moved, "more": false})),
            Reply::Nothing => (204, Value::Null),
            Reply::Problem(of) => {
                *seen = problem_seen(seen);
                (of.0, problem(of))
            }
        }
    }

    /// Claimed tasks of the model; null if the request claimed none. Tasks of a repeated claim come in any order.
    fn claimed(&mut self, claimed: Option<&Claimed>, seen: &mut Value) -> Value {
        let Some(Claimed { tasks, ordered }) = claimed else { return Value::Null };
        if !ordered && let Some(list) = seen.as_array_mut() {
            list.sort_by_key(|task| tasks.iter().position(|own| *self.id(own.name) == task["id"]));
        }
        let name = |seen: &Value| {
            let known = self.ids.iter().find(|(_, id)| **id == seen["id"]);
            known.map_or("one never submitted".to_owned(), |(name, _)| format!("{name:?}"))
        };
        let got: Vec<String> = seen.as_array().into_iter().flatten().map(name).collect();
        let wanted: Vec<String> = tasks.iter().map(|task| format!("{:?}", task.name)).collect();
        if got != wanted {
            *seen = json!(got.join(", "));
            return json!(wanted.join(", "));
        }
        let tasks = tasks.iter().enumerate().map(|(place, task)| self.claimed_task(task, &seen[place]));
        tasks.collect()
    }

    /// The differences, one per line; empty if both agree.
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
                let seen = TimestampMs::parse(text).map(|at| at.0 - self.epoch);
                if !seen.is_some_and(|seen| (time..time + SLACK).contains(&seen)) {
                    found.push(format!("{at} is {seen:?}, the model says {time}"));
                }
            }
            (seen, wanted) if seen == wanted => {}
            (seen, wanted) => found.push(format!("{at} is {seen}, the model says {wanted}")),
        }
    }
}

/// The fields of a problem that the model knows.
fn problem(of: &Problem) -> Value {
    json!({"status": of.0, "code": of.1, "state": of.2.map(State::as_str)})
}

/// The same of what the server says.
fn problem_seen(seen: &Value) -> Value {
    json!({"status": seen["status"], "code": seen["code"], "state": seen["state"]})
}

/// The JSON of a queue without the age of its oldest task; `null` for an unknown queue.
pub(super) fn queue(model: &Model, name: &str) -> Option<Value> {
    let queue = model.queues.get(name).filter(|queue| queue.known)?;
    let mut counts = json!({"submitted": queue.submitted, "deleted": queue.removed});
    for state in State::ALL {
        let standing = model.tasks.values().filter(|task| task.spec.queue == name && task.state == state);
        counts[state.as_str()] = json!(standing.count());
    }
    Some(json!({"queue": name, "paused": queue.paused, "counts": counts, "unreadable": false}))
}
