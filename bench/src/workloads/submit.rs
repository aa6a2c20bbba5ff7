//! (a) Submit alone: every connection submits one task after another, and tasks pile up.

use anyhow::Result;

use super::{Entry, Goal, QUEUE, Script, Workload, ratio};
use crate::adapters::Client;
use crate::load::{Measured, Run};
use crate::stats::Wanted;
use crate::systems::Kind;

pub(super) fn workload() -> Workload {
    let mut entries: Vec<Entry> = Kind::full_life().map(|kind| Entry::new(kind, Script::Submit)).collect();
    entries.push(Entry::new(Kind::EmptyServer, Script::EmptyServer));
    // Submits per processor second are the inverse of their cost.
    let goals = vec![
        Goal::new(
            "submits per CPU second, to ocypod's",
            Wanted::AtLeast(3.0),
            ratio("ocypod", Measured::cost, "slotwheel"),
        ),
        Goal::new(
            "submits per CPU second, to lmstfy's",
            Wanted::AtLeast(3.0),
            ratio("lmstfy", Measured::cost, "slotwheel"),
        ),
    ];
    Workload { goals, ..Workload::new("a", "submit alone", entries) }
}

pub(super) async fn script<C: Client>(client: &mut C, run: &Run<'_>) -> Result<()> {
    run.submit(client, QUEUE, None).await?;
    run.counted(1);
    Ok(())
}
