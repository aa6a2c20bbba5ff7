//! Makes scheduled tasks ready when their delay has ended.

use super::job::Context;
use crate::store::Result;
use crate::store::ops::promote::promote;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let Some(next_due) = &context.next_due else { return Ok(()) };
    for queue in &next_due.due_queues {
        while promote(&context.shard, &mut context.caller, queue).await? {}
    }
    Ok(())
}
