//! Retention: deletes ended tasks whose retention has elapsed.

use super::job::Context;
use crate::store::Result;
use crate::store::ops::delete::{DeleteReason, Deleted, delete};
use crate::store::views::page::past_retention;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let Some(next_due) = &context.next_due else { return Ok(()) };
    loop {
        let ids = past_retention(&context.shard, next_due.now).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let results = delete(&context.shard, &mut context.caller, &DeleteReason::RetentionElapsed, &ids).await?;
        if !results.contains(&Deleted::Now) {
            return Ok(());
        }
    }
}
