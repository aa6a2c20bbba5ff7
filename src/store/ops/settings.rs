//! Settings: the master copy of a queue's settings.

use crate::domain::queue::{QueueName, Settings};
use crate::store::error::Result;
use crate::store::reply;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Store};

pub(super) static SCRIPT: Script = script!("settings", flags = " flags=allow-oom", ["call", "stage"]);

/// Writes the master copy; its version.
pub async fn set(store: &Store, caller: &mut Caller, queue: &QueueName, settings: &Settings) -> Result<i64> {
    let Settings { paused } = settings;
    let mut call = store.home().call(&SCRIPT, caller);
    call.arg(queue.as_str()).int(*paused);
    reply::int(call.send().await?)
}
