//! Expire: tasks whose deadline passed while they waited.

use crate::domain::limits;
use crate::store::error::Result;
use crate::store::reply;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("expire", flags = " flags=allow-oom", ["call", "stage", "news", "wheel", "lease", "waiting"]);

/// Ends waiting tasks past their deadline. Whether there may be more.
pub async fn expire(shard: &Shard, caller: &mut Caller) -> Result<bool> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_OTHER_MS).count(limits::CALL_ITEMS);
    let ended = reply::int(call.send().await?)?;
    shard.transitions().expired.add(ended.unsigned_abs());
    Ok(ended >= limits::CALL_ITEMS as i64)
}
