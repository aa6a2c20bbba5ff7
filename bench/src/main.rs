//! Slotwheel's benchmark: the same work for Slotwheel, its peers and the limit, in one run, in alternation.
//!
//! In reading order: `workloads` define the work; `systems` lists the systems under test, `adapters` drive them; `load`
//! and `open_loop` generate load and measure; `spent` and `command_stats` read the costs; `http` and `line_protocol` are
//! clients, `processes` starts servers; `limit` and `empty_server` are lower bounds; `ledger` detects lost and duplicate
//! work; `stats` and `report` summarise.

mod adapters;
mod command_stats;
mod empty_server;
mod http;
mod ledger;
mod limit;
mod line_protocol;
mod load;
mod machine;
mod open_loop;
mod processes;
mod report;
mod round_trip;
mod spent;
mod stats;
mod systems;
mod workloads;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{PathBuf, absolute};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use adapters::{Fsync, Settings};
use load::Plan;
use report::Absent;
use systems::{Kind, System};
use workloads::{Entry, Round, Workload};

/// Runs workloads and prints a table for each.
#[derive(Parser)]
#[command(after_help = workloads::list())]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Workloads: letters, or whole names (d: both d and d-keyed) [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Systems [default: all that are installed]
    #[arg(long, value_delimiter = ',')]
    systems: Vec<Kind>,
    /// Rounds of each system; an interval needs six
    #[arg(long, default_value_t = 12)]
    pairs: usize,
    /// Length of a round's window, s
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Warm-up before each window, s
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Length of the steady load of each system in (k), divided among the rounds, s
    #[arg(long, default_value_t = 600.0)]
    steady_seconds: f64,
    /// Connections of workloads without their own number
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Payload size, bytes
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Redis' appendfsync
    #[arg(long, value_enum, default_value = "everysec")]
    fsync: Fsync,
    /// Connect to Redis by unix socket if the system can, as with an embedded Redis [default: TCP]
    #[arg(long)]
    unix: bool,
    /// Slotwheel's binary
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/slotwheel"))]
    slotwheel: PathBuf,
    /// Another build, compared as the system `other`
    #[arg(long, alias = "against")]
    other: Option<PathBuf>,
    /// Directory of the installed peers
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/.installed"))]
    peers: PathBuf,
    /// Directory for data, on a disk like that of a real Redis
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    place: PathBuf,
}

#[derive(Subcommand)]
enum Mode {
    /// Serve the empty handler
    EmptyServer {
        /// Address
        address: SocketAddr,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Mode::EmptyServer { address }) = arguments.mode {
        return empty_server::serve(address);
    }
    // One thread, because the load shares the processors with the systems under test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run(&arguments) => done,
            // Dropping the future kills all started processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn run(arguments: &Arguments) -> Result<()> {
    // Each process runs in its own directory.
    let settings = Settings {
        fsync: arguments.fsync,
        unix: arguments.unix,
        place: absolute(&arguments.place)?,
        slotwheel: absolute(&arguments.slotwheel)?,
        other: arguments.other.as_deref().map(absolute).transpose()?.unwrap_or_default(),
        peers: absolute(&arguments.peers)?,
        shards: 1,
    };
    let plan = Plan {
        connections: arguments.connections,
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        window: Duration::from_secs_f64(arguments.seconds),
        steady_window: Duration::from_secs_f64(arguments.steady_seconds / arguments.pairs as f64),
        payload: arguments.payload,
    };
    println!("{}", machine::describe(&settings, &plan, arguments.pairs));
    let asked = |workload: &Workload| {
        let letter = workload.id.split('-').next().unwrap_or_default();
        arguments.only.is_empty() || arguments.only.iter().any(|only| only == workload.id || only == letter)
    };
    for mut workload in workloads::all().into_iter().filter(asked) {
        workload.entries.retain(|entry| match arguments.systems.as_slice() {
            [] => entry.kind != Kind::Other || arguments.other.is_some(),
            systems => systems.contains(&entry.kind),
        });
        println!("{}", play(&workload, &settings, &plan, arguments.pairs).await);
    }
    Ok(())
}

/// Starts all systems, runs each once in every round in alternating order, and returns the report.
async fn play(workload: &Workload, settings: &Settings, plan: &Plan, pairs: usize) -> String {
    let mut absent = Absent::new();
    let mut started: Vec<(&Entry, Box<dyn System>)> = Vec::new();
    // Each entry with the index of its system.
    let mut playing: Vec<(&Entry, usize)> = Vec::new();
    for entry in &workload.entries {
        if !entry.kind.can(&entry.script) {
            absent.insert(entry.label.clone(), "has no such thing".to_owned());
            continue;
        }
        let same = |(other, _): &(&Entry, _)| (other.kind, &other.instance) == (entry.kind, &entry.instance);
        if let Some(place) = started.iter().position(same) {
            playing.push((entry, place));
            continue;
        }
        eprint!("\r({}) starting {} … ", workload.id, entry.label);
        match start(entry, settings).await {
            Ok(contender) => {
                playing.push((entry, started.len()));
                started.push((entry, contender));
            }
            Err(error) => drop(absent.insert(entry.label.clone(), format!("not measured: {error:#}"))),
        }
    }
    let versions: BTreeMap<Kind, String> = started.iter().map(|(entry, one)| (entry.kind, one.version())).collect();
    let versions: String = versions.iter().map(|(kind, version)| format!("- {}: {version}\n", kind.name())).collect();
    let mut rounds: Vec<Round> = Vec::new();
    let pairs = if workload.once { 1 } else { pairs };
    for number in 0..pairs {
        eprint!("\r({}) round {} of {pairs}            ", workload.id, number + 1);
        let mut round = Round::new();
        let mut order = playing.clone();
        if number % 2 == 1 {
            order.reverse();
        }
        for (entry, place) in order {
            if absent.contains_key(&entry.label) {
                continue;
            }
            let plan = Plan { connections: entry.connections.unwrap_or(plan.connections), ..*plan };
            match started[place].1.round(&entry.script, &plan).await {
                Ok(measured) => drop(round.insert(entry.label.clone(), measured)),
                // A failed system has no figures, not even those of earlier rounds.
                Err(error) => drop(absent.insert(entry.label.clone(), format!("**failed**: {error:#}"))),
            }
        }
        rounds.push(round);
    }
    eprintln!();
    for round in &mut rounds {
        round.retain(|label, _| !absent.contains_key(label));
    }
    format!("{}\n{versions}", report::workload(workload, &rounds, &absent))
}

async fn start(entry: &Entry, settings: &Settings) -> Result<Box<dyn System>> {
    let contender = entry.kind.start(&Settings { shards: entry.shards, ..settings.clone() }).await?;
    if let Some(fill) = &entry.fill {
        contender.fill(fill).await?;
    }
    Ok(contender)
}
