//! Writes the master copy of a queue's settings.

use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::settings;
use crate::store::shard::{Caller, Store};

pub(super) static SCRIPT: Script = script!(write "set_settings", []);

/// Writes the master copy. Returns its version.
pub async fn set_settings(
    store: &Store,
    caller: &mut Caller,
    queue: &QueueName,
    settings: &QueueSettings,
) -> Result<i64> {
    let mut call = store.first_shard().call(&SCRIPT, caller);
    call.push(queue.as_str());
    for (field, value) in settings::encode(settings) {
        call.push(field).push(value);
    }
    reply::int(call.send().await?)
}
