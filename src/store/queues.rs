//! Operations on whole queues: settings and purge.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{Error, Result};
use super::ops::apply_settings::apply_settings;
use super::ops::delete::{DeleteReason, Deleted, delete};
use super::ops::set_settings::set_settings;
use super::settings::SettingChange;
use super::shard::{Caller, Store};
use super::views::queues::{master_settings, purgeable};
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;

/// Calls of one purge, each of up to 500 tasks.
const MAX_PURGE_CALLS: u32 = 20;
/// The deadline for writing settings to all shards.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);

/// Changes a setting of a queue: the master copy first, then the copy of each shard. If a shard fails, upkeep brings
/// its copy up to date.
///
/// # Errors
/// The first error of a shard. [`Error::Unavailable`] after 10 s. [`Error::Unexpected`] if the master copy is missing after
/// its write, as after a FLUSHALL.
pub async fn set_queue_setting(store: &Store, queue: &QueueName, change: SettingChange) -> Result<()> {
    let write = async {
        let mut caller = Caller::new();
        set_settings(store, &mut caller, queue, &change).await?;
        // The copies are replaced as a whole: a copy may lack earlier changes of other settings.
        let missing = || Error::Unexpected(format!("settings of queue {queue} are missing right after their write"));
        let (version, settings) = master_settings(store, queue).await?.ok_or_else(missing)?;
        let mut outcome = Ok(());
        for shard in store.shards() {
            let applied = apply_settings(shard, &mut caller, queue, version, &settings).await;
            outcome = outcome.and(applied.map(drop));
        }
        outcome
    };
    timeout(SETTINGS_TIMEOUT, write).await.map_err(Error::timed_out)?
}

/// Deletes the queue's tasks in these states, at most 10,000. Returns the number deleted, and whether there may be
/// more.
///
/// # Errors
/// The first error of a call. Tasks deleted before it stay deleted.
pub async fn purge(store: &Store, queue: &QueueName, states: &[State]) -> Result<(u64, bool)> {
    let mut caller = Caller::new();
    let reason = DeleteReason::Purge(states.to_vec());
    let (mut deleted, mut calls) = (0, 0);
    for shard in store.shards() {
        for state in states {
            loop {
                let mut ids = purgeable(shard, queue, *state, limits::MAX_CALL_ITEMS).await?;
                // A task that moved while its queue was read may appear twice.
                let mut seen = HashSet::new();
                ids.retain(|id| seen.insert(*id));
                if ids.is_empty() {
                    break;
                }
                if calls == MAX_PURGE_CALLS {
                    return Ok((deleted, true));
                }
                calls += 1;
                let outcomes = delete(shard, &mut caller, &reason, &ids).await?;
                let deleted_now = outcomes.iter().filter(|outcome| **outcome == Deleted::Now).count();
                deleted += deleted_now as u64;
                if deleted_now == 0 {
                    break;
                }
            }
        }
    }
    Ok((deleted, false))
}
