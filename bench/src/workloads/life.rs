//! (b) A full life, one task per request: every connection submits a task, claims any one and completes it.

use anyhow::Result;

use super::fill::random_key;
use super::{Entry, Goal, QUEUE, Round, Script, Workload, ratio};
use crate::adapters::Client;
use crate::load::{Measured, Run};
use crate::stats::Wanted;
use crate::systems::Kind;

pub(super) fn workload() -> Workload {
    let mut entries: Vec<Entry> =
        Kind::full_life().map(|kind| Entry::new(kind, Script::Life { keyed: false })).collect();
    entries.push(Entry::new(Kind::Limit, Script::Life { keyed: false }));
    entries.push(Entry::new(Kind::EmptyServer, Script::EmptyServer));
    let mut goals = Vec::new();
    for (peer, cost, bound) in [
        ("ocypod", "CPU per task, to ocypod's", 0.23),
        ("lmstfy", "CPU per task, to lmstfy's", 0.40),
        ("faktory", "CPU per task, to Faktory's", 0.50),
    ] {
        goals.push(Goal::new(cost, Wanted::AtMost(bound), ratio("slotwheel", Measured::cost, peer)));
    }
    // Three times Faktory's is more than two processors can do beside the load, see docs/performance.md.
    for (peer, rate) in [("ocypod", "tasks/s, to ocypod's"), ("lmstfy", "tasks/s, to lmstfy's")] {
        goals.push(Goal::new(rate, Wanted::AtLeast(3.0), ratio("slotwheel", Measured::rate, peer)));
    }
    goals.push(Goal::new("CPU per task, to the limit and three empty requests", Wanted::AtMost(2.0), to_the_least));
    let to_the_handler = ratio("slotwheel", Measured::request_cost, "empty");
    goals.push(Goal::new("server's CPU per request, to the empty handler's", Wanted::AtMost(1.3), to_the_handler));
    Workload { goals, ..Workload::new("b", "full life, one task per request (submit, claim, complete)", entries) }
}

fn to_the_least(round: &Round) -> Option<f64> {
    let least = round.get("limit")?.cost() + 3.0 * round.get("empty")?.cost();
    Some(round.get("slotwheel")?.cost() / least)
}

pub(super) async fn script<C: Client>(client: &mut C, run: &Run<'_>, keyed: bool) -> Result<()> {
    let key = keyed.then(random_key);
    run.submit(client, QUEUE, key.as_deref()).await?;
    for job in run.take(client, QUEUE, 1).await? {
        run.finish(client, QUEUE, &job).await?;
        run.counted(1);
    }
    Ok(())
}
