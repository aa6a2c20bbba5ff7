//! Reads the memory of the shard's Redis. If it is short, deletes the tasks that ended first.

use std::time::Duration;

use super::job::Context;
use crate::degradations::Reason;
use crate::store::history::{make_room, read_memory, sample_history};
use crate::store::memory::{MemoryReading, RELIEVED_PERCENT, SHORT_PERCENT};
use crate::store::{Error, Result, Shard};

/// How long the degradation is listed after memory was short.
const RAISED_FOR: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let shard = &context.shard;
    let reading = match read(context).await {
        // INFO is not allowed: requests still make room when Redis rejects a submit.
        Err(Error::Unexpected(error) | Error::Denied(error)) => {
            tracing::debug!(error, "reading the memory of Redis failed");
            return Ok(());
        }
        reading => reading?,
    };
    if reading.is_above(SHORT_PERCENT) {
        make_room(shard, RELIEVED_PERCENT).await?;
    }
    let sampled = sample_history(shard).await;
    set_degradation(context, &shard.memory.reading().unwrap_or(reading));
    sampled
}

/// Reads the memory of the shard's master. One Redis is the master of all shards: the first shard reads it for all.
async fn read(context: &Context) -> Result<MemoryReading> {
    let Context { store, shard, .. } = context;
    let first = store.first_shard();
    match first.memory.reading() {
        Some(reading) if !store.client().is_cluster() && shard.index != first.index => {
            shard.memory.set_reading(reading.clone());
            Ok(reading)
        }
        _ => read_memory(shard).await,
    }
}

fn set_degradation(context: &Context, reading: &MemoryReading) {
    let Context { store, shard, .. } = context;
    let subject = subject(context, shard);
    if !shard.memory.was_short_within(RAISED_FOR) {
        store.degradations().clear(Reason::MemoryShort, &subject);
        return;
    }
    let history = shard.memory.history().unwrap_or_default();
    let MemoryReading { used, max, .. } = reading;
    let remedy = match reading.is_above(SHORT_PERCENT) {
        true => "no more ended tasks can be deleted, and submits are rejected when it is full",
        false => "above 90 %, ended tasks are deleted before the end of their retention",
    };
    let detail = format!(
        "{used} of {max} bytes are in use, of these about {} by {} ended tasks: {remedy}. Raise maxmemory, or keep ended \
         tasks for less time",
        history.bytes, history.tasks
    );
    store.degradations().raise(Reason::MemoryShort, &subject, detail);
}

/// Returns the degraded part: the one Redis, or the shard of a Cluster.
fn subject(context: &Context, shard: &Shard) -> String {
    match context.store.client().is_cluster() {
        true => format!("shard {}", shard.index),
        false => "redis".to_owned(),
    }
}
