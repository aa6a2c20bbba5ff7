//! Brings a shard's copy of a queue's settings up to date, or removes it.

use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::settings::{self, SettingChange};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "apply_settings", ["front"]);

/// Brings the copy up to `version`. Returns whether it was behind.
pub async fn apply_settings(
    shard: &Shard,
    caller: &mut Caller,
    queue: &QueueName,
    version: i64,
    settings: &QueueSettings,
) -> Result<bool> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(queue.as_str()).push_int(version);
    for SettingChange { field, value } in settings::encode(settings) {
        call.push(field).push(value);
    }
    Ok(reply::int(call.send().await?)? == 1)
}

/// Removes the copy, if it is older than `version`, at which the settings were removed.
pub async fn remove_copy(shard: &Shard, caller: &mut Caller, queue: &QueueName, version: i64) -> Result<()> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(queue.as_str()).push_int(version);
    reply::int(call.send().await?).map(drop)
}
