//! Checks `callers` of each shard, which every script reads. If it has another type, no script runs, that of a repair
//! included: it is set aside by plain commands.

use deadpool_redis::redis::cmd;

use super::{Finding, RepairEvent};
use crate::store::error::Result;
use crate::store::isolation::unreadable_callers;
use crate::store::redis::reply::read_list;
use crate::store::shard::{Shard, Store};

/// Returns a finding for each shard in which no script runs.
pub async fn check_callers(store: &Store) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for shard in store.shards() {
        let found = unreadable_callers(shard).await?;
        findings.extend(found.map(|text| Finding { shard: shard.index, text }));
    }
    Ok(findings)
}

/// Sets each `callers` of another type aside. The next call founds it again. Calls `on_event` for each step.
pub async fn set_callers_aside(store: &Store, mut on_event: impl FnMut(RepairEvent)) -> Result<()> {
    for finding in check_callers(store).await? {
        let Some(shard) = store.shards().get(finding.shard) else { continue };
        on_event(RepairEvent::Found(finding.clone()));
        let aside = set_aside(shard).await?;
        let text = format!("{}; set aside under {aside}", finding.text);
        on_event(RepairEvent::Repaired(Finding { text, ..finding }));
    }
    Ok(())
}

/// Returns the prefix of the new name.
async fn set_aside(shard: &Shard) -> Result<String> {
    let base = shard.keys.base();
    let mut time = read_list(shard.client().send_to_master_of(base, &cmd("TIME")).await?)?;
    let aside = format!("quarantine:{}", 1000 * time.int()?);
    let name = format!("{base}{aside}:callers");
    shard.send(cmd("RENAME").arg(shard.keys.callers()).arg(name)).await?;
    Ok(aside)
}
