//! Changes a setting in the master copy of a queue's settings.

use crate::domain::queue::QueueName;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::settings::SettingChange;
use crate::store::shard::{Caller, Store};

pub(super) static SCRIPT: Script = script!(write "set_settings", []);

/// Changes the setting in the master copy, and leaves all others.
pub async fn set_settings(store: &Store, caller: &mut Caller, queue: &QueueName, change: &SettingChange) -> Result<()> {
    let mut call = store.first_shard().call(&SCRIPT, caller);
    call.push(queue.as_str()).push(change.field).push(&change.value);
    reply::int(call.send().await?).map(drop)
}
