//! Ends tasks whose deadline passed while they waited.

use crate::store::ops::expire::expire;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller) -> Result<()> {
    while expire(shard, caller).await? {}
    Ok(())
}
