//! Expires tasks that have not started before their deadline.

use super::job::{Context, Turn};
use crate::store::Result;
use crate::store::ops::expire_tasks::expire_tasks;

pub(super) async fn step(context: &mut Context, turn: &Turn) -> Result<usize> {
    expire_tasks(&context.shard, &mut context.caller, turn.limit).await
}
