//! (c) A full life with complete-and-claim: every connection holds a task; it submits one, then completes its own and
//! claims the next in the same request.

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;

use super::{Entry, QUEUE, Script, Workload};
use crate::adapters::{Adapter, Client};
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, Verb, WAIT};
use crate::spent::Observed;
use crate::systems::Kind;

pub(super) fn workload() -> Workload {
    let mut entries: Vec<Entry> = Kind::full_life().map(|kind| Entry::new(kind, Script::Chained)).collect();
    entries.push(Entry { label: SEPARATELY.to_owned(), ..Entry::new(Kind::Slotwheel, Script::Life { keyed: false }) });
    Workload::new("c", "full life with complete-and-claim", entries)
}

const SEPARATELY: &str = "slotwheel as in (b)";

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
    let run = Run::new(ledger, plan);
    let clients = try_join_all((0..plan.connections).map(|_| system.connect())).await?;
    let loops = try_join_all(clients.into_iter().map(async |mut client| chain(&mut client, &run).await));
    let observed = Observed::of(system)?;
    let (window, _) = tokio::try_join!(run.window(plan, &observed), loops)?;
    Ok(run.measured(window))
}

async fn chain<C: Client>(client: &mut C, run: &Run<'_>) -> Result<()> {
    run.submit(client, QUEUE, None).await?;
    let mut held = run.take(client, QUEUE, 1).await?.pop().context("a task")?;
    while !run.over() {
        run.submit(client, QUEUE, None).await?;
        let next = run.timed(Verb::FinishAndTake, client.finish_and_take(QUEUE, &held, WAIT)).await?.pop();
        run.finished(&[held])?;
        run.counted(1);
        let Some(next) = next else { bail!("a submitted task was not delivered") };
        held = next;
    }
    run.finish(client, QUEUE, &held).await
}
