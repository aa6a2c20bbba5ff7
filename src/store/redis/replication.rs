//! Waits until replicas have a write: the durability level `replicated`.
//!
//! WAIT blocks its connection and covers only the writes of that connection. It therefore runs on its own connection,
//! after a write of its own: replicas apply writes in order, so a replica with this write has all earlier ones. The
//! caller's record is read first. It proves that this Redis is the one that ran the call, not another or an older one
//! behind the same address.

use deadpool_redis::redis::{Value, pipe};

use super::client::Client;
use super::config::RedisConfig;
use super::reply::int;
use crate::store::error::{Error, Result};
use crate::store::layout::{CALL, call};

/// How long to wait for replicas, in ms. Less than the time limit of a call.
const WAIT_TIMEOUT_MS: u32 = 1000;

/// A connection for waiting for replicas.
#[derive(Debug)]
pub struct Replication {
    client: Client,
    required: u8,
}

/// A script call whose write replicas must have.
pub(in crate::store) struct WrittenCall<'a> {
    /// The hash of the shard's callers.
    pub(in crate::store) callers_key: Vec<u8>,
    /// The hash of the shard's data set.
    pub(in crate::store) dataset_key: Vec<u8>,
    pub(in crate::store) caller_id: &'a str,
    pub(in crate::store) sequence: u64,
}

impl Replication {
    /// Connects in order to wait for `required` replicas per write.
    pub async fn connect(config: &RedisConfig, required: u8) -> Result<Self> {
        Ok(Replication { client: Client::connect(config.clone(), &[]).await?, required })
    }

    /// Returns when the required number of replicas have the write of `written`.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] if fewer replicas confirm it in time. The write itself took effect.
    pub(in crate::store) async fn wait(&self, written: WrittenCall<'_>) -> Result<()> {
        let mut pipeline = pipe();
        pipeline.cmd("HGET").arg(written.callers_key).arg(written.caller_id);
        pipeline.cmd("HINCRBY").arg(written.dataset_key).arg("replica_waits").arg(1);
        pipeline.cmd("WAIT").arg(self.required).arg(WAIT_TIMEOUT_MS);
        let unconfirmed = |why: String| Error::Unconfirmed(format!("{why}; {} required", self.required));
        let replies = self.client.send_pipeline(&pipeline).await.map_err(|error| unconfirmed(error.to_string()))?;
        let mut replies = replies.into_iter();
        let is_this_call = match replies.next() {
            Some(Value::BulkString(record)) => {
                CALL.decode(&record).is_ok_and(|record| record.uint(call::Field::sequence) == written.sequence)
            }
            _ => false,
        };
        if !is_this_call {
            return Err(unconfirmed("another Redis, or an older state of this one, answered".into()));
        }
        let acknowledged = replies.next_back().map_or(Ok(0), int)?;
        if acknowledged < i64::from(self.required) {
            return Err(unconfirmed(format!("{acknowledged} replicas confirmed after {WAIT_TIMEOUT_MS} ms")));
        }
        Ok(())
    }
}
