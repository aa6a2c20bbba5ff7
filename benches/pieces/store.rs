//! Steps of `store` for `make pieces`: decoding replies of scripts. Compiled only for that.

use deadpool_redis::redis::Value;

use super::error::Result;
use super::ops::claim::{self, ClaimReply};
use super::ops::submit::{self, Submitted};
use super::redis::reply;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;

/// Unpacks the reply of a script.
///
/// # Errors
/// The reply is malformed.
pub fn decode_msgpack(packed: Vec<u8>) -> Result<impl Sized> {
    reply::decode_msgpack(Value::BulkString(packed))
}

/// Decodes the reply to a submit of `count` tasks.
///
/// # Errors
/// The reply is malformed.
pub fn decode_submit(packed: Vec<u8>, count: usize) -> Result<Vec<Submitted>> {
    let items = reply::parse_items(reply::decode_msgpack(Value::BulkString(packed))?, count, submit::parse_item)?;
    Ok(items.into_iter().map(|(submitted, _expired)| submitted).collect())
}

/// Decodes the reply to a claim with these queues and tokens.
///
/// # Errors
/// The reply is malformed.
pub fn claimed(packed: Vec<u8>, queues: &[QueueName], tokens: &[Token]) -> Result<ClaimReply> {
    claim::parse_reply(reply::decode_msgpack(Value::BulkString(packed))?, queues, tokens)
}
