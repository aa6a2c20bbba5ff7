//! (d) A full life in batches of 100: eight connections; each submits, claims and completes a hundred tasks. Plain, and
//! keyed: each task with a random key, over all slots.

use anyhow::Result;

use super::fill::random_key;
use super::{BATCH, Entry, Goal, QUEUE, Script, Workload, ratio};
use crate::adapters::{Client, Task};
use crate::load::{Measured, Run, Verb};
use crate::stats::Wanted;
use crate::systems::Kind;

pub(super) const CONNECTIONS: usize = 8;

pub(super) fn workload(keyed: bool) -> Workload {
    let mut entries: Vec<Entry> = Kind::full_life().map(|kind| Entry::new(kind, Script::Batches { keyed })).collect();
    entries.push(Entry::new(Kind::Limit, Script::Batches { keyed }));
    let to_the_limit = ratio("slotwheel", Measured::redis_cost, "limit");
    let mut goals = Vec::new();
    if keyed {
        goals.push(Goal::new("Redis per task, to the limit", Wanted::AtMost(1.7), to_the_limit));
        let title = "full life in batches of 100, each task with a random key";
        return Workload { goals, ..Workload::new("d-keyed", title, entries) };
    }
    goals.push(Goal::new("Redis per task, to the limit", Wanted::AtMost(1.5), to_the_limit));
    let to_bullmq = ratio("bullmq", Measured::cost, "slotwheel");
    goals.push(Goal::new("tasks per CPU second, to BullMQ's", Wanted::AtLeast(2.0), to_bullmq));
    Workload { goals, ..Workload::new("d", "full life in batches of 100", entries) }
}

pub(super) async fn script<C: Client>(client: &mut C, run: &Run<'_>, keyed: bool) -> Result<()> {
    let payloads: Vec<(String, Option<String>)> = (0..BATCH).map(|_| (run.next().1, keyed.then(random_key))).collect();
    let tasks: Vec<Task<'_>> = payloads.iter().map(|(payload, key)| Task { payload, key: key.as_deref() }).collect();
    run.timed(Verb::SubmitMany, client.submit_many(QUEUE, &tasks)).await?;
    let mut done = 0;
    while done < BATCH {
        let jobs = run.take(client, QUEUE, BATCH - done).await?;
        run.timed(Verb::FinishMany, client.finish_many(QUEUE, &jobs)).await?;
        run.finished(&jobs)?;
        run.counted(jobs.len());
        done += jobs.len();
    }
    Ok(())
}
