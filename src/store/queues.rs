//! Operations on whole queues: settings, purge and removal.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{Error, Result};
use super::ops::apply_settings::{apply_settings, remove_copy};
use super::ops::delete::{DeleteReason, delete_readable};
use super::ops::remove_queue::{QueueRemoved, remove_queue};
use super::ops::remove_settings::mark_settings_removed;
use super::ops::set_settings::set_settings;
use super::settings::SettingChange;
use super::shard::Store;
use super::views::queues::{master_settings, purgeable, queue as read_queue};

use crate::domain::queue::QueueName;
use crate::domain::state::State;

/// Calls of one purge, each of up to 100 tasks: few, because other clients of Redis wait meanwhile.
const MAX_PURGE_CALLS: u32 = 100;
const MAX_PURGED_PER_CALL: usize = 100;
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
        let mut caller = store.callers().take();
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
/// The error of the first call. After an error of a later call, the purge ends early: there may be more.
pub async fn purge(store: &Store, queue: &QueueName, states: &[State]) -> Result<(u64, bool)> {
    let mut caller = store.callers().take();
    let reason = DeleteReason::Purge(states.to_vec());
    let (mut deleted, mut calls) = (0, 0);
    for shard in store.shards() {
        for state in states {
            loop {
                let mut ids = match purgeable(shard, queue, *state, MAX_PURGED_PER_CALL).await {
                    Err(_) if deleted > 0 => return Ok((deleted, true)),
                    ids => ids?,
                };
                // Behind the last page there are only tasks that came meanwhile, for example those that this purge has started.
                let is_last = ids.len() < MAX_PURGED_PER_CALL;
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
                let deleted_now = match delete_readable(shard, &mut caller, &reason, &ids).await {
                    Err(_) if deleted > 0 => return Ok((deleted, true)),
                    deleted_now => deleted_now?,
                };
                deleted += deleted_now as u64;
                if deleted_now == 0 || is_last && deleted_now == ids.len() {
                    break;
                }
            }
        }
    }
    Ok((deleted, false))
}

/// Outcome of a removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// The queue is removed, or was never there. Holds the number of ended tasks deleted with it.
    Done(u64),
    /// The queue has more ended tasks than one removal deletes. Holds the number deleted so far.
    Unfinished(u64),
    /// Tasks of the queue wait or are leased. Holds their number, as far as it is known.
    NotEmpty(i64),
}

/// Removes a queue without waiting and leased tasks: its ended tasks, at most 10,000 a call, then its counts and its
/// name, then its settings. A task that is submitted at the same time is kept, in a new queue of this name.
///
/// # Errors
/// The first error of a call. The removal can be repeated. If only copies of the settings are left, upkeep removes them.
pub async fn remove(store: &Store, queue: &QueueName) -> Result<Removal> {
    if let Some(found) = read_queue(store, queue).await? {
        let counts = found.counts;
        let unended = counts.scheduled + counts.ready + counts.leased;
        if unended > 0 {
            return Ok(Removal::NotEmpty(unended));
        }
    }
    let ended: Vec<State> = State::ALL.into_iter().filter(|state| state.has_ended()).collect();
    let (deleted, more) = purge(store, queue, &ended).await?;
    if more {
        return Ok(Removal::Unfinished(deleted));
    }
    timeout(SETTINGS_TIMEOUT, forget(store, queue, deleted)).await.map_err(Error::timed_out)?
}

/// Forgets a queue without tasks. The settings go last: a removal that fails before has not changed them.
async fn forget(store: &Store, queue: &QueueName, deleted: u64) -> Result<Removal> {
    let mut caller = store.callers().take();
    for shard in store.shards() {
        match remove_queue(shard, &mut caller, queue).await? {
            QueueRemoved::Now => {}
            QueueRemoved::NotEmpty => return Ok(Removal::NotEmpty(1)),
            QueueRemoved::HasEnded => return Ok(Removal::Unfinished(deleted)),
        }
    }
    let mut outcome = Ok(Removal::Done(deleted));
    if let Some(version) = mark_settings_removed(store, &mut caller, queue).await? {
        for shard in store.shards() {
            let removed = remove_copy(shard, &mut caller, queue, version).await;
            outcome = removed.and(outcome);
        }
    }
    outcome
}
