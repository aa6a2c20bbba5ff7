//! The head of the report: machine, versions, settings.

use std::fs;
use std::process::Command;

use crate::adapters::{Fsync, Settings};
use crate::load::Plan;
use crate::processes::redis_version;

/// Returns the head as Markdown.
pub fn describe(settings: &Settings, plan: &Plan, pairs: usize) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let memory: f64 = memory.unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let commit = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let fsync = match settings.fsync {
        Fsync::Everysec => "everysec",
        Fsync::Always => "always",
    };
    format!(
        "{cores} cores of {}, {:.0} GB, Linux {}. Load, server and Redis share them.\n\
         Redis {}, append-only, `appendfsync {fsync}`, over {}. Commit {commit}.\n\
         {pairs} rounds, each system once per round for {} s after {} s of warm-up, in alternating order; payload {} bytes.\n",
        model.trim_start_matches(['\t', ' ', ':']),
        memory / 1024.0 / 1024.0,
        kernel.trim(),
        redis_version(),
        if settings.unix { "a unix socket if the system can" } else { "TCP" },
        plan.window.as_secs_f64(),
        plan.warm_up.as_secs_f64(),
        plan.payload,
    )
}
