//! Keeps at most `max_ended_per_queue` ended tasks of a queue in each state: deletes those that ended first.

use super::job::Context;
use crate::store::Result;
use crate::store::history::bound_queues;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    if context.max_ended_per_queue == 0 {
        return Ok(());
    }
    let after = context.last_checked.take();
    context.last_checked =
        bound_queues(&context.store, &mut context.caller, context.max_ended_per_queue, after).await?;
    Ok(())
}
