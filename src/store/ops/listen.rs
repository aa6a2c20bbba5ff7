//! Listen: somebody wants to hear what becomes of tasks.

use crate::store::error::Result;
use crate::store::reply;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("listen", flags = " flags=allow-oom", ["call", "stage"]);

/// For how long scripts report after a call, by Redis' clock, in s.
pub const LISTENS_S: u8 = 15;

/// Has scripts report what they change in the shard, for [`LISTENS_S`] from now. Whether they did so up to now: if not,
/// there may have been changes that nobody will hear of.
pub async fn listen(shard: &Shard, caller: &mut Caller) -> Result<bool> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(LISTENS_S);
    Ok(reply::int(call.send().await?)? == 1)
}
