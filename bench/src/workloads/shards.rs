//! (j) Lives in 16 and in 64 shards on one Redis: one client with one task at a time, and 64 connections. And idle
//! claims in 16 shards: claims of an empty queue that wait for 1 ms.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Entry, QUEUE, Script, Workload};
use crate::adapters::Client;
use crate::load::{Run, Verb};
use crate::systems::Kind;

const LIFE: Script = Script::Life { keyed: false };
const CASES: [(u32, usize, Script, &str); 5] = [
    (16, 1, LIFE, "16 shards, one client"),
    (16, 64, LIFE, "16 shards, 64 connections"),
    (64, 1, LIFE, "64 shards, one client"),
    (64, 64, LIFE, "64 shards, 64 connections"),
    (16, 1, Script::IdleClaims, "16 shards, idle claims"),
];
const IDLE_WAIT: Duration = Duration::from_millis(1);

pub(super) fn workload() -> Workload {
    let mut entries = Vec::new();
    for (shards, connections, script, case) in CASES {
        for kind in [Kind::Slotwheel, Kind::Other] {
            let entry = Entry::of_case(kind, script, case);
            entries.push(Entry { connections: Some(connections), ..entry.with_shards(shards) });
        }
    }
    Workload::new("j", "16 and 64 shards on one Redis", entries)
}

/// One claim of an empty queue, counted as a task.
pub(super) async fn idle_claim<C: Client>(client: &mut C, run: &Run<'_>) -> Result<()> {
    let jobs = run.timed(Verb::Take, client.take(QUEUE, 1, IDLE_WAIT)).await?;
    ensure!(jobs.is_empty(), "an empty queue had a task");
    run.counted(1);
    Ok(())
}
