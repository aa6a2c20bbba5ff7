//! Updates copies of queue settings that are older than the settings: a server may have stopped between the two writes.
//! Copies of removed settings are removed, and then the settings themselves.

use super::job::Context;
use crate::domain::queue::QueueName;
use crate::store::ops::apply_settings::{apply_settings, remove_copy};
use crate::store::ops::remove_settings::delete_removed_settings;
use crate::store::views::queues::{SettingsPage, VersionedSettings, copy_versions, settings_page};
use crate::store::{Caller, Error, Result, Shard};

/// Queues per page.
const PAGE_SIZE: usize = 500;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let mut after: Option<Vec<u8>> = None;
    let mut outcome = Ok(());
    loop {
        let SettingsPage { settings: page, last } = settings_page(&context.store, after.as_deref(), PAGE_SIZE).await?;
        let names: Vec<_> = page.iter().map(|(name, _, _)| name.clone()).collect();
        // An unavailable shard does not keep the others from being updated.
        for shard in context.store.shards() {
            outcome = outcome.and(sync_shard(shard, &mut context.caller, &names, &page).await);
        }
        if outcome.is_ok() {
            for (name, _, _) in page.iter().filter(|(_, _, settings)| settings.is_none()) {
                delete_removed_settings(&context.store, &mut context.caller, name).await?;
            }
        }
        if last.is_none() {
            return outcome;
        }
        after = last;
    }
}

async fn sync_shard(shard: &Shard, caller: &mut Caller, names: &[QueueName], page: &[VersionedSettings]) -> Result<()> {
    let copies = copy_versions(shard, names).await?;
    let mut outcome = Ok(());
    for (name, version, settings) in page {
        let copy = copies.get(name);
        match settings {
            Some(settings) if copy.is_none_or(|copy| copy < version) => {
                let applied = apply_settings(shard, caller, name, *version, settings).await;
                outcome = outcome.and(applied.map(drop));
            }
            None if copy.is_some() => outcome = outcome.and(remove_copy(shard, caller, name, *version).await),
            Some(_) | None => {}
        }
        // An unreadable copy does not keep the others from being updated.
        if outcome.as_ref().is_err_and(Error::is_outage) {
            return outcome;
        }
    }
    outcome
}
