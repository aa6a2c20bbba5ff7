//! What comes next in a shard, and when.

use deadpool_redis::redis::Value;

use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::store::error::Result;
use crate::store::reply::{items, text};
use crate::store::script::Script;
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = Script {
    name: "horizon",
    text: concat!("#!lua flags=no-writes\n", include_str!("../ops/lib/look.lua"), include_str!("horizon.lua")),
};

/// Queues looked at in one go.
pub const QUEUES: usize = 100;

/// What the shard's clock and its indexes by time say.
#[derive(Clone, Debug)]
pub struct Horizon {
    /// Redis' time.
    pub now: Millis,
    /// Not later than the first delay, retry or lease that ends.
    pub due: Option<Millis>,
    /// The first deadline of a waiting task.
    pub deadline: Option<Millis>,
    /// The first end of a retention.
    pub retain: Option<Millis>,
    /// Queues whose time in `due` has come, at most [`QUEUES`].
    pub queues: Vec<QueueName>,
}

/// Reads it.
pub async fn horizon(shard: &Shard) -> Result<Horizon> {
    answer(shard.look(&SCRIPT, vec![QUEUES.to_string().into()]).await?)
}

/// Reads the answer.
pub(in crate::store) fn answer(reply: Value) -> Result<Horizon> {
    let mut reply = items(reply)?;
    Ok(Horizon {
        now: Millis(reply.int()?),
        due: reply.time()?,
        deadline: reply.time()?,
        retain: reply.time()?,
        queues: reply.filter_map(|queue| QueueName::parse(&text(queue).ok()?)).collect(),
    })
}
