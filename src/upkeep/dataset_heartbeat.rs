//! Proves that a shard accepts writes, and detects loss of its data.

use super::job::Context;
use crate::store::Result;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    context.loss_detector.check(&context.shard, &mut context.caller).await
}
