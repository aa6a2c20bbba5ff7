//! BullMQ: a library, so it generates its own load: a Node program (`bench/peers/bullmq/index.js`) that adds jobs in
//! hundreds and processes them in the same process, directly on its Redis. It reports the number of processed jobs at
//! the start and end of the window, and at the end whether each was processed once.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use super::installed::installed;
use super::{Role, Settings};
use crate::ledger::Ledger;
use crate::line_protocol::{LineConnection, number};
use crate::load::{Measured, Plan, Run};
use crate::processes::{Directory, Process, Redis, free_port};
use crate::spent::Observed;
use crate::systems::System;
use crate::workloads::{BATCH, Script};

/// The program and its Redis.
pub struct Bullmq {
    program: Process,
    redis: Redis,
    address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Bullmq {
    /// Runs the batch workload.
    pub fn can(script: &Script) -> bool {
        *script == Script::Batches { keyed: false }
    }

    /// Starts the program and its Redis.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "bullmq")?;
        let redis = Redis::start(settings, "bullmq", &[]).await?;
        let directory = Directory::fresh(settings, "bullmq")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new("node");
        command.arg(peer.directory.join("index.js")).arg(address.port().to_string());
        command.arg(redis.url(settings.unix).trim_start_matches("unix://")).env("NODE_ENV", "production");
        let mut program = Process::start(command, directory.path())?;
        program.until(async || LineConnection::connect(address).await.is_ok()).await.context("bullmq")?;
        let node = Command::new("node").arg("--version").output().context("running node")?;
        let node = String::from_utf8_lossy(&node.stdout).trim().to_owned();
        let version = format!("{} on Node {node}, one process, addBulk by two at once, concurrency 50", peer.version);
        Ok(Self { program, redis, address, version, _directory: directory })
    }

    async fn run(&self, plan: &Plan) -> Result<Measured> {
        let (ledger, mut lines) = (Ledger::default(), LineConnection::connect(self.address).await?);
        let run = Run::new(&ledger, plan);
        let start = format!("start {BATCH} {}", plan.payload);
        ask(&mut lines, &start).await?;
        let counted = async {
            tokio::time::sleep(plan.warm_up).await;
            let before = number(ask(&mut lines, "count").await?)?;
            tokio::time::sleep(plan.window).await;
            anyhow::Ok(number(ask(&mut lines, "count").await?)? - before)
        };
        let processes = vec![(Role::Server, self.program.pid()), (Role::Redis, self.redis.pid())];
        let observed = Observed::new(processes, Some(&self.redis))?;
        let (window, tasks) = tokio::try_join!(run.window(plan, &observed), counted)?;
        let end: Value = serde_json::from_slice(ask(&mut lines, "stop").await?)?;
        ensure!(end["added"] == end["processed"] && end["left"] == 0 && end["wrong"] == 0, "not each job once: {end}");
        Ok(Measured { tasks, ..run.measured(window) })
    }
}

async fn ask<'a>(lines: &'a mut LineConnection, what: &str) -> Result<&'a [u8]> {
    lines.put(&[what.as_bytes(), b"\n"]);
    lines.send().await?;
    lines.line().await
}

impl System for Bullmq {
    fn version(&self) -> String {
        self.version.clone()
    }

    fn round<'a>(&'a self, _script: &'a Script, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Measured>> {
        Box::pin(self.run(plan))
    }
}
