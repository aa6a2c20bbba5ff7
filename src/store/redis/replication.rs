//! Waits until replicas have what was written: the durability `replicated`.
//!
//! WAIT blocks the connection that it is sent on, and speaks only of what that connection has written. So it has a
//! connection of its own, on which a write of its own goes ahead: replicas get writes in order, and who has this one
//! has all before it. That it is the same Redis that answered the call, and not another or an older one behind the same
//! address, is seen by the record that the call has left there.

use deadpool_redis::redis::{Value, pipe};

use super::client::{Client, RedisConfig};
use super::reply::int;
use crate::store::error::{Error, Result};
use crate::store::keys::Keys;

/// How long replicas may take, ms; below the time in which a call must be answered.
const WAIT_TIMEOUT_MS: u32 = 1000;

/// The connection on which replicas are waited for.
#[derive(Debug)]
pub struct Replication {
    client: Client,
    required: u8,
}

impl Replication {
    /// Connects in order to wait for `wanted` replicas.
    pub async fn connect(config: &RedisConfig, required: u8) -> Result<Self> {
        Ok(Replication { client: Client::connect(config.clone()).await?, required })
    }

    /// Returns once so many replicas have what call `number` of `pump` has written.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] when fewer say so in time: it is written all the same.
    pub(in crate::store) async fn wait(&self, keys: &Keys, caller_id: &str, sequence: u64) -> Result<()> {
        let mut pipeline = pipe();
        pipeline.cmd("HGET").arg(keys.callers()).arg(caller_id);
        pipeline.cmd("HINCRBY").arg(keys.dataset()).arg("replica_waits").arg(1);
        pipeline.cmd("WAIT").arg(self.required).arg(WAIT_TIMEOUT_MS);
        let unconfirmed = |why: String| Error::Unconfirmed(format!("{why}, {} are wanted", self.required));
        let answers = self.client.send_pipeline(&pipeline).await.map_err(|error| unconfirmed(error.to_string()))?;
        let mut answers = answers.into_iter();
        let is_this_call = match answers.next() {
            Some(Value::BulkString(record)) => record.starts_with(format!("{sequence} ").as_bytes()),
            _ => false,
        };
        if !is_this_call {
            return Err(unconfirmed("another Redis, or an older state of it, has come between".into()));
        }
        let acknowledged = answers.next_back().map_or(Ok(0), int)?;
        if acknowledged < i64::from(self.required) {
            return Err(unconfirmed(format!("{acknowledged} have it after {WAIT_TIMEOUT_MS} ms")));
        }
        Ok(())
    }
}
