//! Makes scheduled tasks ready when their delay has ended.

use super::job::{Context, Turn};
use crate::store::Result;
use crate::store::ops::promote::promote;

pub(super) async fn step(context: &mut Context, turn: &Turn) -> Result<usize> {
    let Some(queue) = &turn.queue else { return Ok(0) };
    promote(&context.shard, &mut context.caller, queue, turn.limit).await
}
