//! Forgets ended tasks whose time of retention is over.

use crate::domain::time::Millis;
use crate::store::ops::remove::{Reason, Removed, remove};
use crate::store::views::page::past_retention;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller, now: Millis) -> Result<()> {
    loop {
        let ids = past_retention(shard, now).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let removed = remove(shard, caller, &Reason::Retained, &ids).await?;
        if !removed.contains(&Removed::Gone) {
            return Ok(());
        }
    }
}
