//! Makes scheduled tasks ready when their time has come. Runs after `reap`, because it sets the queue's time in `due`.

use crate::domain::queue::QueueName;
use crate::store::ops::promote::promote;
use crate::store::{Caller, Result, Shard};

pub(super) async fn run(shard: &Shard, caller: &mut Caller, queue: &QueueName) -> Result<()> {
    while promote(shard, caller, queue).await? {}
    Ok(())
}
