//! Chaos test: a Redis, several servers and worker processes under load, while a schedule of faults kills, freezes,
//! cuts, delays, loses, poisons, sets Redis' clock and leaves logs unread. The seed determines the schedule. At the end
//! all tasks are read back and the history is checked.
//!
//! `make chaos SECONDS=600 SEED=7` is a long run; as part of the test suite it takes a few seconds. The seed determines
//! the faults and the choices of each client, but not the timing of the machine: a run with the same seed is similar,
//! not a replay. A failed run keeps its history and the logs of the servers, and prints their folder.
//!
//! Redis runs with `appendfsync always`, so a kill -9 must not lose an acknowledged write.

mod client;
mod clock;
mod faults;
mod final_check;
mod poison;
mod processes;
mod producer;
mod proxy;
mod recorder;
mod worker;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::{Duration, Instant};

use slotwheel::store::dataset::identity;
use slotwheel::store::redis::config::RedisConfig;
use slotwheel::store::{Client as Redis, Store, audit};
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::event::Event;
use crate::history::{self, Invariant, Verdict};
use crate::support::redis::OwnRedis;
use client::Client;
use clock::ClockWatch;
use faults::World;
use processes::{Crew, Orders, Server};
use recorder::Recorder;

const SERVERS: usize = 3;
const CREWS: usize = 2;
const PRODUCERS: usize = 8;
const WORKERS: usize = 24;
const RUDE: usize = 2;
/// Workers of the calm queue: more than its tasks at one time.
const WAITING_WORKERS: usize = 8;

/// Default duration: long enough for a fault of most kinds.
const SECONDS: u64 = 5;

/// A pause by the clock: the schedule of faults needs one.
pub async fn pause(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}: it takes a number")))
}

/// The main function of a worker process; does nothing in other processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_process() {
    if let Ok(orders) = std::env::var(processes::WORKER) {
        processes::obey(serde_json::from_str(&orders).expect("orders")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_neither_lost_nor_completed_twice_under_faults() {
    let seed = from_environment("SLOTWHEEL_CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let length = Duration::from_secs(from_environment("SLOTWHEEL_CHAOS_SECONDS").unwrap_or(SECONDS));
    let folder = std::env::temp_dir().join(format!("slotwheel-chaos-{seed}-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    // Printed first, for a run that is aborted.
    println!("chaos: seed {seed}, {} s, history and logs in {}", length.as_secs(), folder.display());
    let recorder = Arc::new(Recorder::new(&folder, "main"));
    let troubles = run(seed, length, &folder, &recorder).await;

    let events = recorded(&folder);
    let began = Instant::now();
    let verdict = history::check(&events);
    let checked = began.elapsed();
    print_figures(seed, length, &recorder, &events, &verdict, checked);
    let mut wrong = troubles;
    wrong.extend(recorder.strange());
    for (invariant, _) in history::CHECKS {
        let found = verdict.findings.iter().filter(|finding| finding.invariant == invariant);
        wrong.extend(found.map(|finding| format!("{invariant:?}: {}", finding.text)).take(5));
    }
    if !wrong.is_empty() {
        let all = wrong.join("\n  ");
        panic!("chaos with seed {seed} found:\n  {all}\nhistory and logs: {}", folder.display());
    }
    std::fs::remove_dir_all(&folder).expect("to leave nothing");
}

/// Runs load, faults and the final check; returns errors outside the history.
async fn run(seed: u64, length: Duration, folder: &Path, recorder: &Arc<Recorder>) -> Vec<String> {
    // Servers have the documented permissions, and no others.
    let rules = slotwheel::store::permissions::sufficient_rules("sw");
    let user = ["--user", "wheel", "on", ">secret", "resetchannels", "-@all"].into_iter().chain(rules.split(' '));
    let settings = ["--appendfsync", "always", "--auto-aof-rewrite-min-size", "16mb"];
    let redis = OwnRedis::with_own_clock(&settings.into_iter().chain(user).collect::<Vec<_>>()).await;
    let url = redis.url.clone();
    let socket = PathBuf::from(url.strip_prefix("unix://").expect("a socket"));
    let clock = ClockWatch::start(&socket, recorder).await;
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        servers.push(Server::start(number, folder, &socket, recorder).await);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.front.address).collect();
    let mut crews = Vec::new();
    for number in 0..CREWS {
        let (servers, redis, folder) = (addresses.clone(), socket.clone(), folder.to_owned());
        crews.push(Crew::start(Orders { seed, name: format!("crew{number}"), servers, redis, folder }).await);
    }
    let client = |name: String| Client::new(name, seed, &addresses, recorder);
    let poisoned = poison::prepare(&mut client("poisoner".into())).await;
    let world = Arc::new(World {
        clock: Mutex::new(redis.clock().clone()),
        redis: Mutex::new(redis),
        url: url.clone(),
        poisoned,
        servers,
        crews,
        recorder: recorder.clone(),
        links: RwLock::default(),
        log: folder.join("faults.log"),
    });

    let waiting = Arc::new(AtomicI64::new(0));
    let polite = Arc::new(AtomicBool::new(false));
    let (stop_load, stop_work) = (CancellationToken::new(), CancellationToken::new());
    let (mut load, mut work) = (JoinSet::new(), JoinSet::new());
    for number in 0..PRODUCERS {
        load.spawn(producer::produce(client(format!("p{number}")), waiting.clone(), stop_load.clone()));
    }
    for number in 0..RUDE {
        load.spawn(worker::be_rude(client(format!("r{number}")), stop_load.clone()));
    }
    for number in 0..WORKERS {
        work.spawn(worker::work(client(format!("w{number}")), polite.clone(), stop_work.clone()));
    }
    load.spawn(producer::produce_calmly(client("calm".into()), stop_load.clone()));
    for number in 0..WAITING_WORKERS {
        let mut waiting_worker = client(format!("c{number}"));
        waiting_worker.queues = &[producer::CALM];
        work.spawn(worker::work(waiting_worker, polite.clone(), stop_work.clone()));
    }
    work.spawn(final_check::watch(client("watch".into()), waiting, stop_work.clone()));
    world.suffer(faults::schedule(seed, length, SERVERS, CREWS)).await;

    stop_load.cancel();
    let mut troubles = Vec::new();
    ended(load, &mut troubles).await;
    for crew in &world.crews {
        if !crew.stop().await {
            troubles.push("a worker process failed, see its log".into());
        }
    }
    polite.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut reader = client("reader".into());
    troubles.extend(final_check::drained(&mut reader).await.err());
    recorder.count("hand-offs since the servers' last starts", final_check::hand_offs(&addresses).await);
    // Requests in flight have arrived or are lost once the servers have ended; the rest is processed.
    for server in &world.servers {
        server.stop().await;
    }
    for server in &world.servers {
        server.resume().await;
    }
    if troubles.is_empty() {
        troubles.extend(final_check::drained(&mut reader).await.err());
    }
    stop_work.cancel();
    ended(work, &mut troubles).await;
    final_check::read_back(&mut reader).await;
    troubles.extend(poison::check(&mut reader, &url).await);
    clock.end().await;
    recorder.note_outages(&*world.redis.lock().await).await;
    for server in &world.servers {
        server.stop().await;
        recorder.count("replies lost", server.front.lost() + server.back.lost());
    }
    troubles.extend(poison::repair(&url).err());
    troubles.extend(audited(&url).await);
    world.redis.lock().await.stop().await;
    troubles
}

async fn ended(mut clients: JoinSet<()>, troubles: &mut Vec<String>) {
    while let Some(ended) = clients.join_next().await {
        troubles.extend(ended.err().map(|error| format!("a client failed: {error}")));
    }
}

/// The findings of an audit of the store after the run.
async fn audited(url: &str) -> Vec<String> {
    let client =
        Redis::connect(RedisConfig { url: url.to_owned(), ..RedisConfig::default() }, slotwheel::store::ops::ALL)
            .await
            .expect("a connection");
    let founded = identity::load(&client, "sw").await.expect("meta").expect("a data set");
    let store = Store::new(Arc::new(client), founded.shards, &founded.id, "sw");
    let report = audit::audit(&store).await.expect("an audit");
    let count = report.findings.len();
    let first = report.findings.into_iter().take(5);
    first.map(|finding| format!("the audit, one of {count}: {}", finding.text)).collect()
}

/// The events of all processes; those of one process are in order.
fn recorded(folder: &Path) -> Vec<Event> {
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.flat_map(|path| history::read(BufReader::new(std::fs::File::open(path).expect("a history")))).collect()
}

fn print_figures(
    seed: u64,
    length: Duration,
    recorder: &Recorder,
    events: &[Event],
    verdict: &Verdict,
    checked: Duration,
) {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for tasks in events.iter().filter_map(|event| match &event.ok {
        Some(crate::history::event::Answer::Tasks(tasks)) => Some(tasks),
        _ => None,
    }) {
        tasks.iter().for_each(|task| *states.entry(task.state.as_str()).or_default() += 1);
    }
    println!("chaos: seed {seed}, {} s", length.as_secs());
    println!("  {:>8} tasks", states.values().sum::<usize>());
    for (state, count) in states {
        println!("  {count:>8} {state}");
    }
    for (what, count) in recorder.tally() {
        println!("  {count:>8} {what}");
    }
    println!("  {:>8} events in the history", events.len());
    println!("  {:>8} unknown outcomes", verdict.unknown);
    println!("  {:>8} leases", verdict.leases);
    for (what, invariant) in [
        ("lost", Invariant::Lost),
        ("completed twice", Invariant::CompletedOnce),
        ("overlapping leases", Invariant::LeasesApart),
        ("accepted from a stale token", Invariant::StaleTokens),
    ] {
        println!("  {:>8} {what}", verdict.of(invariant));
    }
    println!("  {:>8} ms in the longest jump of the shard's clock", verdict.longest_jump_us / 1000);
    println!("  {:>8} findings in all", verdict.findings.len());
    println!("  {:>8} ms for {} steps of the checker", checked.as_millis(), verdict.steps);
}
