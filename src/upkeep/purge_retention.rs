//! Forgets ended tasks whose time of retention is over.

use crate::domain::time::TimestampMs;
use crate::store::ops::delete::{DeleteReason, Deleted, delete};
use crate::store::views::page::past_retention;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller, now: TimestampMs) -> Result<()> {
    loop {
        let ids = past_retention(shard, now).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let results = delete(shard, caller, &DeleteReason::RetentionElapsed, &ids).await?;
        if !results.contains(&Deleted::Now) {
            return Ok(());
        }
    }
}
