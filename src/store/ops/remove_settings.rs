//! Removes the master copy of a queue's settings.

use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::settings::{self, SettingChange};
use crate::store::shard::{Caller, Store};

pub(super) static SCRIPT: Script = script!(write "remove_settings", []);

/// How long removed settings are known as removed. In that time upkeep deletes copies that were applied too late.
const KEPT_MS: i64 = 60_000;

/// Marks the settings as removed. Returns the version of the removal; `None` if the queue has no settings.
pub async fn mark_settings_removed(store: &Store, caller: &mut Caller, queue: &QueueName) -> Result<Option<i64>> {
    let mut call = store.first_shard().call(&SCRIPT, caller);
    call.push(queue.as_str()).push("");
    for SettingChange { field, value } in settings::encode(&QueueSettings::default()) {
        call.push(field).push(value);
    }
    Ok(Some(reply::int(call.send().await?)?).filter(|version| *version > 0))
}

/// Deletes settings that were marked as removed a minute ago. No shard may have a copy of them any more.
pub async fn delete_removed_settings(store: &Store, caller: &mut Caller, queue: &QueueName) -> Result<()> {
    let mut call = store.first_shard().call(&SCRIPT, caller);
    call.push(queue.as_str()).push_int(KEPT_MS);
    reply::int(call.send().await?).map(drop)
}
