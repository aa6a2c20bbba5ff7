//! Touches the clock of a shard, proves that the shard accepts writes, and detects loss of its data.

use super::job::Context;
use crate::store::Result;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    context.shard.touch_clock().await?;
    context.loss_detector.check(&context.shard, &mut context.caller).await
}
