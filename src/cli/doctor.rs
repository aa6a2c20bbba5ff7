//! The doctor: says what is wrong with a Redis and the data set on it, and mends what can be mended.
//!
//! One line per finding, and per thing mended. What it says is wrong has been looked at in one piece, so it may be asked
//! while servers are at work.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::Remedies;
use crate::app;
use crate::config::Config;
use crate::store::audit::{Finding, Report, Step, audit, repair};
use crate::store::client::Target;
use crate::store::found::{Founded, existing, found, is_lost};
use crate::store::gate::Loss;
use crate::store::{Client, Store, check, pulse};

/// Examines what the settings name; fails if anything is wrong and stays so.
pub(super) async fn run(config: Config, remedies: Remedies) -> anyhow::Result<ExitCode> {
    let (target, managed) = app::attach(&config).await?;
    let outcome = examine(&config, target, &remedies).await;
    if let Some(managed) = managed {
        managed.stop().await;
    }
    let wrong = outcome?;
    println!("{}", if wrong == 0 { "all is well".to_owned() } else { format!("{wrong} findings") });
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what is wrong and what was mended; how much is wrong at the end.
async fn examine(config: &Config, target: Target, remedies: &Remedies) -> anyhow::Result<usize> {
    let client = Arc::new(Client::connect(target).await.context("no answer of Redis")?);
    let mut wrong = 0;
    for finding in check::check(&client, config.durability).await? {
        println!("{} {}", if finding.fatal { "WRONG " } else { "ADVICE" }, finding.text);
        wrong += usize::from(finding.fatal);
    }
    if remedies.accept_loss {
        let founded = found(&client, &config.prefix, config.shards).await?;
        let store = Store::new(client.clone(), founded.shards, &config.prefix);
        pulse::accept(&store, &founded).await?;
        println!(
            "data set {} is accepted as it is; servers that know it with another number of shards than {} do not take \
             it: start them again",
            founded.id,
            founded.shards.count()
        );
    }
    if is_lost(&client, &config.prefix).await? {
        println!("WRONG  {}", Loss::Gone.explain());
        return Ok(wrong + 1);
    }
    let Some(founded) = existing(&client, &config.prefix).await? else {
        println!("there is no data set with the prefix {} yet: the first server makes it", config.prefix);
        return Ok(wrong);
    };
    if let Some(asked) = config.shards.filter(|asked| *asked != founded.shards) {
        println!(
            "WRONG  {} shards are asked for and the data set has {}: start with --shards {} or without",
            asked.count(),
            founded.shards.count(),
            founded.shards.count()
        );
        wrong += 1;
    }
    let store = Store::new(client, founded.shards, &config.prefix);
    for (shard, loss) in pulse::strangers(&store, &founded).await? {
        println!("WRONG  shard {shard}: {}", loss.explain());
        wrong += 1;
    }
    let report = match remedies.repair {
        true => repair(&store, tell).await?,
        false => audit(&store).await?,
    };
    print(&report, &founded);
    Ok(wrong + report.findings.len())
}

/// One step of a repair.
fn tell(step: Step) {
    match step {
        Step::Found(Finding { shard, text }) => println!("FOUND  shard {shard}: {text}"),
        Step::Mended(Finding { shard, text }) => println!("MENDED shard {shard}: {text}"),
    }
}

fn print(report: &Report, founded: &Founded) {
    for Finding { shard, text } in &report.findings {
        println!("WRONG  shard {shard}: {text}");
    }
    for Finding { shard, text } in &report.remarks {
        println!("ADVICE shard {shard}: {text}");
    }
    println!(
        "data set {}: {} tasks of {} queues in {} shards; {} submitted so far, {} ready, {} leased",
        founded.id,
        report.tasks,
        report.queues,
        founded.shards.count(),
        report.totals.submitted,
        report.totals.ready,
        report.totals.leased,
    );
}
