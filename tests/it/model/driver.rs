//! Plays a trace to two servers on one Redis, behind a proxy that can lose replies, and holds what they say and what can
//! be read back against the model.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::{Script, cmd};
use futures_util::future::join_all;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine as _, StateMachineTest};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::calls::{Ask, Call, Fault, Held, Mode, Name, Proof, QUEUES, Retry, Spec, Start, Step, Target};
use super::compare::{Names, problem, problem_seen, queue};
use super::generate::{Stop, Trace};
use super::{AGAIN, Claimed, HOUR, Model, Reply};
use crate::support::proxy::Proxy;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Answer, Fixture, Http, text};

/// Traces of a plain run; `PROPTEST_CASES` asks for more, `PROPTEST_RNG_SEED` for those of a run before.
const CASES: u32 = 24;
/// Steps of a trace: fewer than the model's clock has room for.
const STEPS: std::ops::Range<usize> = 1..41;
/// An id and a token that nobody has.
const NOBODY: &str = "0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d";
const GARBAGE: &str = "Q29uZmlkZW50bHkgZmFsc2";

#[test]
fn servers_answer_and_keep_what_the_model_says() {
    let flavour = Flavour::of_this_run();
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        // A Cluster takes two seconds to start.
        config.cases = if flavour == Flavour::Cluster { CASES / 4 } else { CASES };
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    let seed = config.rng_seed;
    config.failure_persistence = None;
    config.max_shrink_iters = 300;
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&Trace::sequential_strategy(STEPS), |(start, steps, seen)| {
        System::test_sequential(config.clone(), start, steps, seen);
        Ok::<(), TestCaseError>(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (_, steps, _))) => {
            let steps: Vec<String> =
                steps.iter().enumerate().map(|(place, step)| format!("{:3}  {step:?}", place + 1)).collect();
            panic!("PROPTEST_RNG_SEED={seed}; the shortest trace that was found:\n{}\n{why}", steps.join("\n"));
        }
        Err(other) => panic!("PROPTEST_RNG_SEED={seed}: {other}"),
    }
}

struct System {
    runtime: Runtime,
    player: Player,
}

struct Player {
    fixture: Fixture,
    servers: Vec<Http>,
    proxy: Option<Proxy>,
    names: Names,
    /// By how much the test has moved the clock.
    moved: i64,
}

impl StateMachineTest for System {
    type SystemUnderTest = System;
    type Reference = Trace;

    fn init_test(_: &Trace) -> System {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let player = runtime.block_on(Player::start());
        System { runtime, player }
    }

    fn apply(mut system: System, trace: &Trace, step: Step) -> System {
        system.runtime.block_on(system.player.play(trace, &step));
        system
    }

    fn teardown(system: System, _: Trace) {
        system.runtime.block_on(system.player.fixture.end());
    }
}

/// What Redis' clock says.
fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as i64
}

impl Player {
    async fn start() -> Self {
        // Nothing that was answered is lost when Redis is killed.
        let redis = OwnRedis::with(&["--appendfsync", "always"]).await;
        let (mut url, mut proxy) = (redis.url.clone(), None);
        // A Cluster's client speaks to the address that the node announces, past any proxy.
        if Flavour::of_this_run() != Flavour::Cluster {
            let passing = Proxy::start(url.trim_start_matches("unix://").to_owned()).await;
            url = passing.url.clone();
            proxy = Some(passing);
        }
        let mut fixture = Fixture::on(redis, url, |written| {
            // Order is that of a shard.
            written.shards = Some(1);
            written.sweep_ms = Some(10);
        })
        .await;
        let servers = vec![fixture.http.clone(), fixture.another_server().await];
        let names = Names::since(clock());
        Player { fixture, servers, proxy, names, moved: 0 }
    }

    /// Moves Redis' clock to what the model's shows.
    fn set_clock(&mut self, now: i64) {
        let ahead = self.names.epoch + now - (clock() + self.moved);
        assert!(ahead > -AGAIN / 2, "this machine is too slow for the model's clock, by {} ms", -ahead);
        if ahead > 0 {
            self.fixture.advance(ahead);
            self.moved += ahead;
        }
    }

    async fn play(&mut self, trace: &Trace, step: &Step) {
        match step {
            Step::Send { call, server, fault } => {
                let mut call = call.clone();
                for (now, wanted) in &trace.replies {
                    self.set_clock(*now);
                    if *fault == Fault::Lost {
                        self.lose_reply_to(&call);
                    }
                    let answer = self.send(&call, *server).await;
                    if let Some(proxy) = &self.proxy {
                        proxy.lose_no_more();
                    }
                    let differences = self.judge(&call, &answer, wanted);
                    assert!(
                        differences.is_empty(),
                        "{call:?}: {differences:#?}\nanswered {} {}",
                        answer.status,
                        answer.text
                    );
                    call = call.again();
                }
            }
            Step::Advance(_) => {
                for Stop { model, lost } in &trace.stops {
                    self.set_clock(model.now);
                    for held in lost {
                        // Whether or not upkeep has seen it yet.
                        let body = self.proof(held, json!({"result": "too late"}));
                        let (code, _) = self.servers[0].post("/complete", &body).await.problem(409);
                        assert_eq!(code, "lease_lost", "{held:?} has run out");
                    }
                    self.settle(model).await;
                }
            }
            Step::FlushScripts => self.fixture.redis.ask::<()>(cmd("SCRIPT").arg("FLUSH")).await,
            Step::RestartRedis => {
                self.fixture.redis.kill();
                self.fixture.redis.restart().await;
                for server in &self.servers {
                    self.fixture.until(|| async { server.is_ready().await.then_some(()) }).await;
                }
            }
        }
        self.set_clock(trace.model.now);
        self.settle(&trace.model).await;
    }

    /// Upkeep comes to where the model is.
    async fn settle(&mut self, model: &Model) {
        let started = Instant::now();
        loop {
            let differences = self.read_back(model).await;
            if differences.is_empty() {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "read back after 20 s: {differences:#?}");
            tokio::task::yield_now().await;
        }
    }

    /// How every task and queue that was ever named differs from the model's.
    async fn read_back(&mut self, model: &Model) -> Vec<String> {
        let names: Vec<Name> = model.made.iter().copied().collect();
        let paths = names.iter().map(|name| format!("/tasks/{}", text(self.names.id(*name))));
        let paths: Vec<String> = paths.chain(QUEUES.iter().map(|queue| format!("/queues/{queue}"))).collect();
        let reads = paths.iter().enumerate().map(|(place, path)| self.servers[place % 2].get(path));
        let answers = join_all(reads).await;
        let (tasks, queues) = answers.split_at(names.len());
        let mut differences = Vec::new();
        for (name, answer) in names.iter().zip(tasks) {
            let seen = answer.json();
            let (seen, wanted) = match model.tasks.get(name) {
                Some(task) => (seen.clone(), self.names.task(task, &seen)),
                None => (json!(answer.status), json!(404)),
            };
            differences.extend(self.names.differences(&format!("{name:?}"), &seen, &wanted));
        }
        for (name, answer) in QUEUES.iter().zip(queues) {
            let mut seen = answer.json();
            let wanted = match queue(model, name) {
                Some(mut wanted) => {
                    let age = seen["oldest_ready_age_ms"].take();
                    wanted["oldest_ready_age_ms"] = Value::Null;
                    if age.is_null() != (wanted["counts"]["ready"] == 0) {
                        differences.push(format!("the oldest ready task of {name} has the age {age}"));
                    }
                    wanted
                }
                None => {
                    seen = json!(answer.status);
                    json!(404)
                }
            };
            differences.extend(self.names.differences(name, &seen, &wanted));
        }
        differences
    }

    /// The next answer to the script that does this is lost.
    fn lose_reply_to(&self, call: &Call) {
        let Some(proxy) = &self.proxy else { return };
        let script = match call {
            Call::Submit(_, spec) if spec.once.is_some() => "remember",
            Call::Submit(..) | Call::SubmitBatch(_) => "submit",
            Call::Claim(_) | Call::Complete(_, _, Some(_)) => "claim",
            Call::Complete(..) | Call::CompleteBatch(..) => "complete",
            Call::Fail(..) => "fail",
            Call::Release(..) => "release",
            Call::Heartbeat(_) => "heartbeat",
            Call::Cancel(_) => "cancel",
            Call::Retry(_) => "retry",
            Call::Delete(_) | Call::Purge(..) => "remove",
            Call::Pause(_) => "settings",
            Call::Resume(_) => "configure",
        };
        let script = slotwheel::store::ops::ALL.iter().find(|known| known.name == script).expect("a script");
        let prelude = &self.fixture.config.testing.prelude;
        let text = match script.text.split_once('\n') {
            Some((first, rest)) if !prelude.is_empty() => format!("{first}\n{prelude}\n{rest}"),
            _ => script.text.to_owned(),
        };
        proxy.lose_next(Script::new(&text).get_hash());
    }

    fn id(&self, target: &Target) -> Value {
        match target {
            Target::Task(name) => self.names.id(*name).clone(),
            Target::Nobody => json!(NOBODY),
        }
    }

    fn proof(&self, held: &Held, more: Value) -> Value {
        let lease = match held.1 {
            Proof::Lease(name, nth) => self.names.token(name, nth).clone(),
            Proof::Garbage => json!(GARBAGE),
            Proof::Malformed => json!("none"),
        };
        joined(json!({"id": self.id(&held.0), "lease": lease}), more)
    }

    async fn send(&self, call: &Call, server: usize) -> Answer {
        let http = &self.servers[server];
        let done = |(held, result): &(Held, u8)| self.proof(held, json!({"result": result}));
        let task = |target: &Target, verb: &str| format!("/tasks/{}{verb}", text(&self.id(target)));
        match call {
            Call::Submit(_, spec) => {
                let headers: Vec<(&str, &str)> = spec.once.iter().map(|key| ("idempotency-key", *key)).collect();
                http.post_with("/tasks", &headers, submitted(spec).to_string().as_bytes()).await
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
            Call::Fail(held, retry) => {
                let error = json!({"type": "broken", "message": "it broke", "details": [1]});
                let retry = match retry {
                    Retry::AsSubmitted => json!({}),
                    Retry::Never => json!({"retry": false}),
                    Retry::In(hours) => json!({"retry_in_ms": hours * HOUR}),
                };
                http.post("/fail", &self.proof(held, joined(json!({"error": error}), retry))).await
            }
            Call::Release(held, delay) => {
                http.post("/release", &self.proof(held, json!({"delay_ms": delay * HOUR}))).await
            }
            Call::Heartbeat(beats) => {
                let tasks = beats.iter().map(|(held, lease, progress)| {
                    let lease = lease.map_or(json!({}), |hours| json!({"lease_ms": hours * HOUR}));
                    let progress = progress.map_or(json!({}), |done| json!({"progress": done}));
                    self.proof(held, joined(lease, progress))
                });
                http.post("/heartbeat", &json!({"tasks": tasks.collect::<Vec<_>>()})).await
            }
            Call::Cancel(target) => http.post_nothing(&task(target, "/cancel")).await,
            Call::Retry(target) => http.post_nothing(&task(target, "/retry")).await,
            Call::Delete(target) => http.delete(&task(target, "")).await,
            Call::Pause(queue) => http.post_nothing(&format!("/queues/{queue}/pause")).await,
            Call::Resume(queue) => http.post_nothing(&format!("/queues/{queue}/resume")).await,
            Call::Purge(queue, states) => {
                let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
                http.post(&format!("/queues/{queue}/purge"), &json!({"states": states})).await
            }
        }
    }

    /// How the answer differs from the model's.
    fn judge(&mut self, call: &Call, answer: &Answer, wanted: &Reply) -> Vec<String> {
        let mut seen = answer.json();
        let submits = matches!(call, Call::Submit(..) | Call::SubmitBatch(_));
        let (status, wanted) = match wanted {
            Reply::Batch(items) => {
                let results: Vec<Value> = items
                    .iter()
                    .enumerate()
                    .map(|(place, item)| {
                        let result = &mut seen["results"][place];
                        if let Reply::Problem(_) = item {
                            result["problem"] = problem_seen(&result["problem"]);
                        }
                        let (status, item_wanted) = self.wanted(item, true, &mut result["task"].clone());
                        match item {
                            Reply::Problem(_) => json!({"status": status, "task": null, "problem": item_wanted}),
                            _ => json!({"status": status, "task": item_wanted, "problem": null}),
                        }
                    })
                    .collect();
                (200, json!({"results": results}))
            }
            one => self.wanted(one, submits, &mut seen),
        };
        let mut differences = self.names.differences("status", &json!(answer.status), &json!(status));
        if differences.is_empty() {
            differences = self.names.differences("answer", &seen, &wanted);
        }
        differences
    }

    /// Status and body as the model says; `seen` is brought to what the model knows.
    fn wanted(&mut self, reply: &Reply, submits: bool, seen: &mut Value) -> (u16, Value) {
        match reply {
            Reply::Task(status, task) => {
                let mut wanted = self.names.task(task, seen);
                if submits {
                    wanted["deduplicated"] = json!(*status == 200);
                }
                (*status, wanted)
            }
            Reply::Gone(status, name) => {
                *seen = json!({"id": seen["id"], "state": seen["state"], "deduplicated": seen["deduplicated"]});
                (*status, json!({"id": self.names.id(*name), "state": null, "deduplicated": *status == 200}))
            }
            Reply::Batch(_) => unreachable!("a batch has no batches"),
            Reply::Claimed(claimed) => (200, json!({"tasks": self.claimed(Some(claimed), &mut seen["tasks"])})),
            Reply::Moved(name, ended) => (200, self.names.moved(*name, ended)),
            Reply::Completed(results, then) => {
                let tasks = self.claimed(then.as_ref(), &mut seen["tasks"]);
                let results: Vec<Value> = match seen.get("results") {
                    // One that is not of a batch.
                    None => {
                        let state = results[0].as_ref().map_or("refused", |state| state.as_str());
                        return (200, json!({"id": seen["id"], "state": state, "tasks": tasks}));
                    }
                    Some(_) => results.iter().map(|result| match result {
                        Ok(state) => json!({"status": 200, "state": state.as_str(), "problem": null}),
                        Err(of) => json!({"status": of.0, "state": null, "problem": problem(of)}),
                    }),
                }
                .collect();
                for result in seen["results"].as_array_mut().into_iter().flatten() {
                    result.as_object_mut().expect("an object").remove("id");
                    if !result["problem"].is_null() {
                        result["problem"] = problem_seen(&result["problem"]);
                    }
                }
                (200, json!({"results": results, "tasks": tasks}))
            }
            Reply::Beats(beats) => {
                for beat in seen["tasks"].as_array_mut().into_iter().flatten() {
                    beat.as_object_mut().expect("an object").remove("id");
                    if !beat["problem"].is_null() {
                        beat["problem"] = problem_seen(&beat["problem"]);
                    }
                }
                let beats = beats.iter().map(|beat| match beat {
                    Ok((until, cancel)) => json!({"lease_until": until, "cancel_requested": cancel, "problem": null}),
                    Err(of) => json!({"lease_until": null, "cancel_requested": null, "problem": problem(of)}),
                });
                (200, json!({"tasks": beats.collect::<Vec<_>>()}))
            }
            Reply::Queue(name, paused) => {
                *seen = json!({"queue": seen["queue"], "paused": seen["paused"]});
                (200, json!({"queue": name, "paused": paused}))
            }
            Reply::Purged(moved) => (200, json!({"moved": moved, "more": false})),
            Reply::Nothing => (204, Value::Null),
            Reply::Problem(of) => {
                *seen = problem_seen(seen);
                (of.0, problem(of))
            }
        }
    }

    /// Claimed tasks as the model says; null where nothing was claimed. Those that were claimed before come in any order.
    fn claimed(&mut self, claimed: Option<&Claimed>, seen: &mut Value) -> Value {
        let Some(Claimed { tasks, ordered }) = claimed else { return Value::Null };
        if !ordered && let Some(list) = seen.as_array_mut() {
            list.sort_by_key(|task| tasks.iter().position(|own| *self.names.id(own.name) == task["id"]));
        }
        let tasks = tasks.iter().enumerate().map(|(place, task)| self.names.claimed(task, &seen[place]));
        tasks.collect()
    }
}

fn joined(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn asked(ask: &Ask) -> Value {
    let Ask { queues, max, lease, worker, claim_id } = ask;
    let body = json!({"queues": queues, "max": max, "lease_ms": lease * HOUR, "worker": worker});
    claim_id.map_or(body.clone(), |id| joined(body, json!({"claim_id": id})))
}

fn and_claim(body: Value, then: Option<&Ask>) -> Value {
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
            };
            let body = json!({"key": key, "mode": mode});
            window.map_or(body.clone(), |hours| joined(body, json!({"window_ms": hours * HOUR})))
        }),
    );
    body
}
