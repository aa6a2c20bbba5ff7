//! (g) 1, 100 and 10,000 queues with 100,000 waiting tasks in all: lives as in (b), each on a random queue.

use anyhow::Result;
use rand::RngExt as _;

use super::fill::{Fill, queue_name};
use super::{Entry, Goal, Script, Workload, ratio};
use crate::adapters::Client;
use crate::load::{Measured, Run};
use crate::stats::Wanted;
use crate::systems::Kind;

const COUNTS: [(usize, &str); 3] = [(10_000, "10,000 queues"), (100, "100 queues"), (1, "1 queue")];

pub(super) fn workload() -> Workload {
    let entries = COUNTS.map(|(queues, label)| {
        let fill = Some(Fill { tasks: 100_000, queues, keyed: false, payload: 100 });
        let (label, instance) = (label.to_owned(), label.to_owned());
        Entry { label, instance, fill, ..Entry::new(Kind::Slotwheel, Script::Scattered { queues }) }
    });
    let [(_, many), (_, some), _] = COUNTS;
    let goals = vec![
        Goal::new("CPU, 10,000 queues to 100", Wanted::AtMost(1.4), ratio(many, Measured::cost, some)),
        Goal::new("Redis, 10,000 queues to 100", Wanted::AtMost(1.4), ratio(many, Measured::redis_cost, some)),
    ];
    Workload { goals, ..Workload::new("g", "many queues", entries.into()) }
}

/// A queue with a new task has one to claim.
pub(super) async fn script<C: Client>(client: &mut C, run: &Run<'_>, queues: usize) -> Result<()> {
    let queue = queue_name(rand::rng().random_range(0..queues), queues);
    run.submit(client, &queue, None).await?;
    for job in run.take(client, &queue, 1).await? {
        run.finish(client, &queue, &job).await?;
        run.counted(1);
    }
    Ok(())
}
