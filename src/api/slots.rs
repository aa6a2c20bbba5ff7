//! `GET /slots`: the slots and task counts of each shard, and the slot of a key.

use axum::extract::State as Shared;
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::extract::Query;
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use crate::domain::limits;
use crate::domain::slot::Slot;
use crate::store::views::queue_records::shard_record;

#[derive(Serialize)]
struct SlotsResponse {
    shards: Vec<ShardJson>,
    key_slot: Option<KeySlot>,
}

#[derive(Serialize)]
struct ShardJson {
    shard: usize,
    first_slot: u16,
    last_slot: u16,
    ready: i64,
    scheduled: i64,
    leased: i64,
}

#[derive(Serialize)]
struct KeySlot {
    key: String,
    slot: u16,
    shard: usize,
}

pub(super) async fn read(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let key = query.optional("key");
    query.deny_unknown()?;
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > limits::MAX_NAME_BYTES) {
        return Err(Problem::at("?key", Code::TooLong, "key must have 1 to 256 bytes"));
    }
    let store = api.store();
    let layout = store.layout();
    let records = try_join_all(store.shards().iter().map(shard_record)).await?;
    let shards = records.into_iter().enumerate().map(|(shard, record)| {
        let (first_slot, last_slot) = layout.slot_range(shard);
        let (ready, scheduled, leased) = (record.counts.ready, record.counts.scheduled, record.counts.leased);
        ShardJson { shard, first_slot, last_slot, ready, scheduled, leased }
    });
    let key_slot = key.map(|key| {
        let slot = Slot::of_key(key.as_bytes());
        KeySlot { key, slot: slot.number(), shard: layout.shard_of(slot) }
    });
    Ok(response::ok(&SlotsResponse { shards: shards.collect(), key_slot }))
}
