//! Expires tasks that have not started before their deadline.

use super::job::Context;
use crate::store::Result;
use crate::store::ops::expire_tasks::expire_tasks;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    while expire_tasks(&context.shard, &mut context.caller).await? {}
    Ok(())
}
