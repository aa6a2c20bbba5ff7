//! Plays a trace against two servers on one Redis, behind a proxy that can lose replies, and compares replies and final
//! state with the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::{Script, cmd};
use futures_util::future::join_all;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine as _, StateMachineTest};
use serde_json::{Value, json};
use slotwheel::domain::queue::QueueName;
use slotwheel::store::keys::Keys;
use tokio::runtime::{Builder, Runtime};

use super::compare::{Names, queue};
use super::generate::{Stop, Trace};
use super::http_requests::{proof, send};
use super::steps::{Call, ClaimSpec, Fault, Name, QUEUES, Step};
use super::{DUPLICATE_DELAY, HOUR, Model};
use crate::metrics::metrics_of;
use crate::support::poll::INTERVAL;
use crate::support::proxy::Proxy;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::{Fixture, Http, text};

/// Traces of a plain run; `PROPTEST_CASES` asks for more, `PROPTEST_RNG_SEED` for those of a run before.
const CASES: u32 = 24;
/// Steps of a trace: fewer than the model's clock has room for.
const STEPS: std::ops::Range<usize> = 20..45;

#[test]
fn servers_reply_and_store_as_the_model_does() {
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
    config.max_shrink_time = 60_000;
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&Trace::sequential_strategy(STEPS), |(start, steps, seen)| {
        System::test_sequential(config.clone(), start, steps, seen);
        Ok::<(), TestCaseError>(())
    });
    match outcome {
        // Otherwise the traces would show nothing about them.
        Ok(()) => assert!(HAND_OFFS.load(Ordering::Relaxed) > 0, "no task was handed over"),
        Err(TestError::Fail(why, (_, steps, _))) => {
            let steps: Vec<String> =
                steps.iter().enumerate().map(|(place, step)| format!("{:3}  {step:?}", place + 1)).collect();
            panic!("PROPTEST_RNG_SEED={seed}; the shortest trace that was found:\n{}\n{why}", steps.join("\n"));
        }
        Err(other) => panic!("PROPTEST_RNG_SEED={seed}: {other}"),
    }
}

/// Tasks that their submits handed over, in all traces.
static HAND_OFFS: AtomicU64 = AtomicU64::new(0);

struct System {
    runtime: Runtime,
    player: Player,
}

struct Player {
    fixture: Fixture,
    servers: Vec<Http>,
    proxy: Option<Proxy>,
    /// The keys of the only shard.
    keys: Arc<Keys>,
    names: Names,
    /// Offset by which the test has advanced the clock.
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

    fn teardown(mut system: System, mut trace: Trace) {
        // At the end every ready task is claimed: that shows the whole order of each queue.
        for queue in QUEUES {
            let all = ClaimSpec { queues: vec![queue], max: 100, lease: 1, worker: "ann", claim_id: None };
            for call in [Call::Resume(queue), Call::Claim(all)] {
                let step = Step::Send { call, server: 0, fault: Fault::Nothing };
                trace = Trace::apply(trace, &step);
                system = System::apply(system, &trace, step);
            }
        }
        let hand_offs = system.runtime.block_on(system.player.hand_offs());
        HAND_OFFS.fetch_add(hand_offs, Ordering::Relaxed);
        system.runtime.block_on(system.player.fixture.end());
    }
}

/// Reads Redis' clock.
fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as i64
}

impl Player {
    async fn start() -> Self {
        // A kill of Redis loses no acknowledged write.
        let redis = OwnRedis::with(&["--appendfsync", "always"]).await;
        let (mut url, mut proxy) = (redis.url.clone(), None);
        // A Cluster client connects to the address that the node announces, past any proxy.
        if Flavour::of_this_run() != Flavour::Cluster {
            let passing = Proxy::start(url.trim_start_matches("unix://").to_owned()).await;
            url = passing.url.clone();
            proxy = Some(passing);
        }
        let mut fixture = Fixture::on(redis, url, |written| {
            // Order holds within a shard.
            written.shards = Some(1);
            written.poll_interval_ms = Some(10);
        })
        .await;
        let servers = vec![fixture.http.clone(), fixture.another_server().await];
        let names = Names::since(clock());
        let keys = fixture.store().await.first_shard().keys.clone();
        Player { fixture, servers, proxy, keys, names, moved: 0 }
    }

    /// Advances Redis' clock to the model's.
    fn set_clock(&mut self, now: i64) {
        let ahead = self.names.epoch + now - (clock() + self.moved);
        assert!(ahead > -DUPLICATE_DELAY / 2, "this machine is too slow for the model's clock, by {} ms", -ahead);
        if ahead > 0 {
            self.fixture.advance(ahead);
            self.moved += ahead;
        }
    }

    async fn play(&mut self, trace: &Trace, step: &Step) {
        match step {
            Step::Send { call, server, fault } => {
                let mut call = call.clone();
                for (model, wanted) in &trace.replies {
                    self.set_clock(model.now);
                    if *fault == Fault::Lost {
                        self.lose_reply_to(&call);
                    }
                    let answer = send(&self.servers[*server], &self.names, &call, wanted).await;
                    if let Some(proxy) = &self.proxy {
                        proxy.lose_no_more();
                    }
                    let differences = self.names.judge(&call, &answer, wanted);
                    assert!(
                        differences.is_empty(),
                        "{call:?}: {differences:#?}\nanswered {} {}",
                        answer.status,
                        answer.text
                    );
                    // Transitions caused by time belong here, not to the duplicate.
                    self.await_upkeep(model).await;
                    call = call.again();
                }
            }
            Step::Advance(_) | Step::Outage(_) => {
                for (place, Stop { model, lost }) in trace.stops.iter().enumerate() {
                    self.set_clock(model.now);
                    if let (Step::Outage(hours), 0) = (step, place) {
                        self.record_outage(model.now, hours * HOUR).await;
                    }
                    for held in lost {
                        // Upkeep may or may not have run yet.
                        let body = proof(&self.names, held, json!({"result": "too late"}));
                        let (code, _) = self.servers[0].post("/complete", &body).await.problem(409);
                        assert_eq!(code, "lease_lost", "{held:?} has run out");
                    }
                    self.await_upkeep(model).await;
                }
            }
            Step::FlushScripts => {
                self.fixture.redis.ask::<()>(cmd("SCRIPT").arg("FLUSH")).await;
                self.reach(&trace.model).await;
            }
            Step::RestartRedis => {
                self.fixture.redis.kill();
                self.fixture.redis.restart().await;
                for server in &self.servers {
                    self.fixture.until(|| async { server.is_ready().await.then_some(()) }).await;
                }
                self.reach(&trace.model).await;
            }
        }
    }

    /// Records an outage as the server does that ends it.
    async fn record_outage(&self, from: i64, length: i64) {
        let from = self.names.epoch + from;
        let mut command = cmd("ZADD");
        command.arg(self.keys.outages()).arg(from);
        self.fixture.redis.ask::<()>(command.arg(format!("{from} {}", from + length))).await;
    }

    /// Tasks that the servers have handed over.
    async fn hand_offs(&self) -> u64 {
        let pages = join_all(self.servers.iter().map(metrics_of)).await;
        pages.iter().map(|page| page.count("slotwheel_hand_offs_total", &[]) as u64).sum()
    }

    async fn reach(&mut self, model: &Model) {
        self.set_clock(model.now);
        self.await_upkeep(model).await;
    }

    /// Waits until upkeep has reached the model's state. After the first timeout the trace is known to fail, so
    /// shrinking waits less.
    async fn await_upkeep(&mut self, model: &Model) {
        static IMPATIENT: AtomicBool = AtomicBool::new(false);
        let patience = Duration::from_secs(if IMPATIENT.load(Ordering::Relaxed) { 1 } else { 20 });
        let started = Instant::now();
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let mut differences = self.read_back(model).await;
            if differences.is_empty() {
                differences = self.overdue_queues(model).await;
            }
            if differences.is_empty() {
                return;
            }
            if started.elapsed() > patience {
                IMPATIENT.store(true, Ordering::Relaxed);
                panic!("read back after {patience:?}: {differences:#?}");
            }
        }
    }

    /// Queues with leases that upkeep has neither ended nor prolonged yet, or in which it has not promoted since: a promotion
    /// that begins at one time and runs at the next would overtake the leases that end then.
    async fn overdue_queues(&self, model: &Model) -> Vec<String> {
        let now = self.names.epoch + model.now;
        let mut overdue = Vec::new();
        let due: u64 = self.fixture.redis.ask(cmd("ZCOUNT").arg(self.keys.due()).arg("-inf").arg(now)).await;
        if due > 0 {
            overdue.push(format!("{due} queues are overdue"));
        }
        for name in QUEUES {
            let leased = self.keys.leased(&QueueName::parse(name).expect("a name"));
            let count: u64 = self.fixture.redis.ask(cmd("ZCOUNT").arg(leased).arg("-inf").arg(now)).await;
            if count > 0 {
                overdue.push(format!("{count} leases of {name} are overdue"));
            }
        }
        overdue
    }

    /// Differences between the model and the server for every task and queue ever named.
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

    /// Loses the next reply to this call's script.
    fn lose_reply_to(&self, call: &Call) {
        let Some(proxy) = &self.proxy else { return };
        let script = match call {
            Call::Submit(_, spec) if spec.once.is_some() => "idempotency",
            Call::Submit(..) | Call::SubmitBatch(_) | Call::Meet(..) => "submit",
            Call::Claim(_) | Call::Complete(_, _, Some(_)) => "claim",
            Call::Complete(..) | Call::CompleteBatch(..) => "complete",
            Call::Fail(..) | Call::FailBatch(_) => "fail",
            Call::Release(..) | Call::ReleaseBatch(_) | Call::Revoke(..) => "release",
            Call::Run(_) => "run_now",
            Call::Heartbeat(_) => "heartbeat",
            Call::Cancel(_) => "cancel",
            Call::Retry(_) => "retry",
            Call::Delete(_) | Call::Purge(..) => "delete",
            Call::Remove(_) => "remove_queue",
            Call::Pause(_) => "set_settings",
            Call::Resume(_) => "apply_settings",
        };
        let script = slotwheel::store::ops::ALL.iter().find(|known| known.name == script).expect("a script");
        let prelude = &self.fixture.config.test_hooks.injected_lua;
        let text = script.full_text(prelude);
        proxy.lose_next(Script::new(&text).get_hash());
    }
}
