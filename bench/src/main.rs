//! Slotwheel's benchmark: the same work for Slotwheel, its peers and the limit, in one run, in turn.
//!
//! In reading order: `workloads` say who does what; `contenders` are those who do; `sides` are the systems under test;
//! `load` makes the load and measures; `http` and `lines` speak to servers, `processes` starts and watches them;
//! `limit` and `empty` are what it costs at the least; `ledger` finds lost and doubled work; `stats` and `report` say
//! what came out.

mod adapters;
mod empty_server;
mod http;
mod ledger;
mod limit;
mod line_protocol;
mod load;
mod machine;
mod processes;
mod report;
mod round_trip;
mod stats;
mod systems;
mod workloads;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{PathBuf, absolute};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use systems::{Contender, Kind};
use load::Plan;
use report::Absent;
use adapters::{Fsync, Settings};
use workloads::{Entry, Round, Workload};

/// Runs workloads and prints a table of each.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Workloads: letters, or whole names (d: both d and d-keyed). All, if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Who takes part. All that are installed, if not given.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<Kind>,
    /// How many times each side has its turn. An interval needs six.
    #[arg(long, default_value_t = 12)]
    pairs: usize,
    /// Length of one turn.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What comes before it and does not count.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Connections of the workloads that do not say it themselves.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Redis' appendfsync.
    #[arg(long, value_enum, default_value = "everysec")]
    fsync: Fsync,
    /// Over a unix socket to Redis where a side can, as a managed Redis has it; else over TCP.
    #[arg(long)]
    unix: bool,
    /// Slotwheel's binary.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/slotwheel"))]
    slotwheel: PathBuf,
    /// Another build of it, to be compared as the side `other`.
    #[arg(long, alias = "against")]
    other: Option<PathBuf>,
    /// Where the peers are installed.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/.installed"))]
    peers: PathBuf,
    /// Where fresh directories are made: on a disk like that of a real Redis.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    place: PathBuf,
}

#[derive(Subcommand)]
enum Mode {
    /// Serves the handler that does nothing.
    EmptyServer {
        /// Where.
        address: SocketAddr,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Mode::EmptyServer { address }) = arguments.mode {
        return empty_server::serve(address);
    }
    // One thread, because the load shares the processors with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run(&arguments) => done,
            // What was started ends as it is dropped.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn run(arguments: &Arguments) -> Result<()> {
    // What is started runs in a directory of its own.
    let settings = Settings {
        fsync: arguments.fsync,
        unix: arguments.unix,
        place: absolute(&arguments.place)?,
        slotwheel: absolute(&arguments.slotwheel)?,
        other: arguments.other.as_deref().map(absolute).transpose()?.unwrap_or_default(),
        peers: absolute(&arguments.peers)?,
    };
    let plan = Plan {
        connections: arguments.connections,
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        window: Duration::from_secs_f64(arguments.seconds),
        payload: arguments.payload,
    };
    println!("{}", machine::describe(&settings, &plan, arguments.pairs));
    let asked = |workload: &Workload| {
        let letter = workload.id.split('-').next().unwrap_or_default();
        arguments.only.is_empty() || arguments.only.iter().any(|only| only == workload.id || only == letter)
    };
    for mut workload in workloads::all().into_iter().filter(asked) {
        workload.entries.retain(|entry| match arguments.sides.as_slice() {
            [] => entry.kind != Kind::Other || arguments.other.is_some(),
            sides => sides.contains(&entry.kind),
        });
        println!("{}", play(&workload, &settings, &plan, arguments.pairs).await);
    }
    Ok(())
}

/// Starts all who take part, gives each its turn in every round, and tells what came out. The order alternates.
async fn play(workload: &Workload, settings: &Settings, plan: &Plan, pairs: usize) -> String {
    let mut absent = Absent::new();
    let mut started: Vec<(&Entry, Box<dyn Contender>)> = Vec::new();
    // Each entry with the place of what it runs on.
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
                // One that fails has no figures at all, also not those of the rounds before.
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

async fn start(entry: &Entry, settings: &Settings) -> Result<Box<dyn Contender>> {
    let contender = entry.kind.start(settings).await?;
    if let Some(fill) = &entry.fill {
        contender.fill(fill).await?;
    }
    Ok(contender)
}
