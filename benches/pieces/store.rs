//! What `make pieces` measures of the way to Redis: answers of scripts, as they come over the wire, are read. Compiled
//! for that only.

use deadpool_redis::redis::Value;

use super::error::Result;
use super::ops::claim::{self, ClaimReply};
use super::ops::submit::{self, Submitted};
use super::redis::reply;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;

/// What a script has packed, as the lists that it was.
///
/// # Errors
/// It is not packed as scripts do.
pub fn decode_msgpack(packed: Vec<u8>) -> Result<impl Sized> {
    reply::decode_msgpack(Value::BulkString(packed))
}

/// The answer to a submit of `count` tasks.
///
/// # Errors
/// It is no such answer.
pub fn decode_submit(packed: Vec<u8>, count: usize) -> Result<Vec<Submitted>> {
    reply::parse_items(reply::decode_msgpack(Value::BulkString(packed))?, count, submit::parse_item)
}

/// The answer to a claim that sent these queues and tokens.
///
/// # Errors
/// It is no such answer.
pub fn claimed(packed: Vec<u8>, queues: &[QueueName], tokens: &[Token]) -> Result<ClaimReply> {
    claim::parse_reply(reply::decode_msgpack(Value::BulkString(packed))?, queues, tokens)
}
