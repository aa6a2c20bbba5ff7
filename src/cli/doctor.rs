//! The doctor: reports defects of a Redis and its data set, and repairs those that can be repaired.
//!
//! Prints one line per defect and per repair. Every reported defect was confirmed atomically, so the doctor is correct
//! while servers run.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::signals::Signals;
use crate::app;
use crate::config::Config;
use crate::domain::id::TaskId;
use crate::store::audit::{AuditReport, Finding, RepairEvent, audit, check_callers, repair, set_callers_aside};
use crate::store::dataset::identity::{Dataset, is_missing, load, open_or_create};
use crate::store::dataset::loss_detector;
use crate::store::error::DataLoss;
use crate::store::ops;
use crate::store::redis::config::RedisConfig;
use crate::store::redis::preflight;
use crate::store::views::stored_task::{StoredValue, stored_task};
use crate::store::{Client, Shard, Store};

/// Changes that the doctor may make.
#[derive(Debug, Args)]
pub(super) struct RepairOptions {
    /// Repair defects; safe while servers run, and no task is lost
    #[arg(long)]
    repair: bool,
    /// Accept detected data loss: servers resume with the current data; a missing data set is created empty
    #[arg(long)]
    accept_loss: bool,
    /// Use Redis' clock again after it was set: delays move by the shift, and leases end no earlier
    #[arg(long)]
    accept_clock: bool,
}

/// Inspects the Redis and data set of the settings. Exits with failure if a defect remains.
pub(super) async fn run(config: Config, options: RepairOptions) -> anyhow::Result<ExitCode> {
    let inspection = async |redis_config| inspect(&config, redis_config, &options).await;
    let problem_count = with_redis(&config, inspection, "interrupted; each repair so far is complete").await?;
    match problem_count {
        0 => print_line!("no defects found"),
        1 => print_line!("1 defect"),
        _ => print_line!("{problem_count} defects"),
    }
    Ok(if problem_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens the Redis of the settings, which may be the embedded one, for `work`. A signal ends it with the error `interrupted`.
async fn with_redis<T>(
    config: &Config,
    work: impl AsyncFnOnce(RedisConfig) -> anyhow::Result<T>,
    interrupted: &'static str,
) -> anyhow::Result<T> {
    let mut signals = Signals::listen().context("installing signal handlers failed")?;
    let (redis_config, embedded) = tokio::select! {
        opened = app::redis_for_inspection(config) => opened?,
        () = signals.any() => anyhow::bail!("interrupted"),
    };
    let outcome = tokio::select! {
        outcome = work(redis_config) => outcome,
        () = signals.any() => Err(anyhow::anyhow!(interrupted)),
    };
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    outcome
}

/// Prints what is stored of a task. Exits with failure if there is no such task.
pub(super) async fn show(config: Config, task: String) -> anyhow::Result<ExitCode> {
    let id = TaskId::parse(&task).with_context(|| format!("{task} is not the id of a task"))?;
    let reading = async |redis_config| stored_values(&config, redis_config, id).await;
    let Some(values) = with_redis(&config, reading, "interrupted").await? else {
        print_line!("no task {id} is stored");
        return Ok(ExitCode::FAILURE);
    };
    for StoredValue { name, value, meaning } in values {
        print_line!("{name:26} {value:46} {meaning}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn stored_values(
    config: &Config,
    redis_config: RedisConfig,
    id: TaskId,
) -> anyhow::Result<Option<Vec<StoredValue>>> {
    let client = Arc::new(Client::connect(redis_config, ops::ALL).await.context("connecting to Redis failed")?);
    let dataset = load(&client, &config.prefix).await?;
    let dataset = dataset.with_context(|| format!("there is no data set with the prefix {}", config.prefix))?;
    let store = Store::new(client, dataset.shards, &dataset.id, &config.prefix);
    Ok(stored_task(store.shard_for_task(&id), id).await?)
}

/// Prints defects and repairs. Returns the number of defects that remain.
async fn inspect(config: &Config, redis_config: RedisConfig, options: &RepairOptions) -> anyhow::Result<usize> {
    let client = Arc::new(Client::connect(redis_config, ops::ALL).await.context("connecting to Redis failed")?);
    let mut problem_count = 0;
    for finding in preflight::check_config(&client, config.durability).await? {
        print_line!("{} {}", if finding.is_fatal { "DEFECT" } else { "ADVICE" }, finding.message);
        problem_count += usize::from(finding.is_fatal);
    }
    if options.accept_loss {
        let dataset = open_or_create(&client, &config.prefix, config.shards).await?;
        let store = Store::new(client.clone(), dataset.shards, &dataset.id, &config.prefix);
        loss_detector::accept_loss(&store, &dataset).await?;
        print_line!(
            "data set {} is accepted with its current data; restart servers that run with another number of shards \
             than {}",
            dataset.id,
            dataset.shards.count()
        );
    }
    if is_missing(&client, &config.prefix).await? {
        print_line!("DEFECT {}", DataLoss::Missing.explain());
        return Ok(problem_count + 1);
    }
    let Some(dataset) = load(&client, &config.prefix).await? else {
        print_line!("no data set with the prefix {} yet: the first server creates it", config.prefix);
        return Ok(problem_count);
    };
    if let Some(requested) = config.shards.filter(|requested| *requested != dataset.shards) {
        print_line!(
            "DEFECT {} shards are requested and the data set has {}: set --shards {} or omit it",
            requested.count(),
            dataset.shards.count(),
            dataset.shards.count()
        );
        problem_count += 1;
    }
    let store = Store::new(client, dataset.shards, &dataset.id, &config.prefix);
    if options.repair {
        set_callers_aside(&store, print_repair_event).await?;
    }
    let unusable = check_callers(&store).await?;
    for Finding { shard, text } in &unusable {
        print_line!("DEFECT shard {shard}: {text}; nothing else can be checked until it is set aside with --repair");
    }
    if !unusable.is_empty() {
        return Ok(problem_count + unusable.len());
    }
    for (shard, loss) in loss_detector::foreign_shards(&store, &dataset).await? {
        print_line!("DEFECT shard {shard}: {}", loss.explain());
        problem_count += 1;
    }
    inspect_clocks(&store, options.accept_clock).await?;
    // At once for all shards: without a server, each takes 2 s. If this fails, the first call that needs the clock says why.
    let _ = store.touch_clocks().await;
    let report = match options.repair {
        true => repair(&store, print_repair_event).await?,
        false => audit(&store).await?,
    };
    print_report(&report, &dataset);
    Ok(problem_count + report.findings.len())
}

/// Prints the shifts against Redis' clock, and ends them if `accept`.
async fn inspect_clocks(store: &Store, accept: bool) -> anyhow::Result<()> {
    for Shard { index, clock, .. } in store.shards() {
        let seconds = |shift_ms: i64| shift_ms as f64 / 1000.0;
        if accept {
            match clock.accept_redis_clock().await? {
                0 => {}
                shift_ms => {
                    print_line!("shard {index} uses Redis' clock again, without the shift of {} s", seconds(shift_ms))
                }
            }
        } else {
            match clock.read_shift_ms().await? {
                0 => {}
                shift_ms => print_line!(
                    "ADVICE shard {index}: the clock of Redis was set, and the shard's is shifted by {} s, so that leases \
                     and delays keep their length; to use Redis' clock again, add --accept-clock",
                    seconds(shift_ms)
                ),
            }
        }
    }
    Ok(())
}

/// Prints one step of a repair.
fn print_repair_event(event: RepairEvent) {
    match event {
        RepairEvent::Found(Finding { shard, text }) => print_line!("FOUND shard {shard}: {text}"),
        RepairEvent::Repaired(Finding { shard, text }) => print_line!("REPAIRED shard {shard}: {text}"),
    }
}

fn print_report(report: &AuditReport, dataset: &Dataset) {
    for Finding { shard, text } in &report.findings {
        print_line!("DEFECT shard {shard}: {text}");
    }
    for Finding { shard, text } in &report.remarks {
        print_line!("ADVICE shard {shard}: {text}");
    }
    print_line!(
        "data set {}: {} tasks of {} queues in {} shards; {} submitted so far, {} ready, {} leased",
        dataset.id,
        report.tasks,
        report.queues,
        dataset.shards.count(),
        report.totals.submitted,
        report.totals.ready,
        report.totals.leased,
    );
}
