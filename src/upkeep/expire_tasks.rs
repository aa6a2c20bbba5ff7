//! Ends tasks whose deadline passed while they waited.

use crate::store::ops::expire_tasks::expire_tasks;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller) -> Result<()> {
    while expire_tasks(shard, caller).await? {}
    Ok(())
}
