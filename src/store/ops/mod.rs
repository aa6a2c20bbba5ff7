//! Transitions: each is one script and, beside it, its only caller.
//!
//! Every operation has the same shape: a shard, the caller whose number makes repeating harmless, then what to do.
//! A list of items gets a list of answers in the same order; no item may name what another item of the call names.

pub mod beat;
pub mod cancel;
pub mod claim;
pub mod complete;
pub mod configure;
pub mod expire;
pub mod fail;
pub mod heartbeat;
pub mod listen;
pub mod mend;
pub mod promote;
pub mod reap;
pub mod release;
pub mod remember;
pub mod remove;
pub mod retry;
pub mod sample;
pub mod settings;
pub mod sight;
pub mod submit;
pub mod tidy;
pub mod watch;

use super::error::{Error, Result};
use super::reply::{ReplyReader, read_list};
use super::script::Script;
use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use deadpool_redis::redis::Value;

/// All scripts there are.
pub static ALL: &[&Script] = &[
    &beat::SCRIPT,
    &cancel::SCRIPT,
    &claim::SCRIPT,
    &complete::SCRIPT,
    &configure::SCRIPT,
    &expire::SCRIPT,
    &fail::SCRIPT,
    &heartbeat::SCRIPT,
    &listen::SCRIPT,
    &mend::SCRIPT,
    &promote::SCRIPT,
    &reap::SCRIPT,
    &release::SCRIPT,
    &remember::SCRIPT,
    &remove::SCRIPT,
    &retry::SCRIPT,
    &sample::SCRIPT,
    &settings::SCRIPT,
    &sight::SCRIPT,
    &submit::SCRIPT,
    &tidy::SCRIPT,
    &watch::SCRIPT,
    &super::views::confirm::SCRIPT,
    &super::views::horizon::SCRIPT,
    &super::views::page::SCRIPT,
    &super::views::stats::SCRIPT,
];

/// A task with the proof that it is held.
#[derive(Clone, Debug)]
pub struct LeaseRef {
    /// Which.
    pub id: TaskId,
    /// `None`: a text that is nobody's token.
    pub lease: Option<Token>,
}

impl LeaseRef {
    /// The token as the scripts compare it; the empty string is nobody's.
    fn token_bytes(&self) -> &[u8] {
        self.lease.as_ref().map_or(&[], |lease| lease.as_bytes())
    }
}

/// What became of a verb that ends a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseEnd {
    /// The lease ended now, or had by the same verb: the task's state, and when it will run, if later.
    Done {
        /// Where the task went.
        state: State,
        /// When it can be claimed again, if not at once.
        run_at: Option<TimestampMs>,
        /// Whether it had happened before.
        repeated: bool,
    },
    /// The token is not, or no longer, that of a live lease.
    LeaseLost(State),
    /// No such task.
    Unknown,
}

/// The answers to `count` items.
pub(super) fn parse_items<T>(reply: Value, expected: usize, parse: impl Fn(ReplyReader) -> Result<T>) -> Result<Vec<T>> {
    let list = read_list(reply)?;
    if list.len() != expected {
        return Err(Error::Unexpected(format!("{} answers to {expected} items", list.len())));
    }
    list.map(|item| parse(read_list(item)?)).collect()
}

fn unexpected_reply<T>(script: &Script, tag: &str) -> Result<T> {
    Err(Error::Unexpected(format!("{} answers {tag:.40}", script.name)))
}

/// Reads `{tag, state, run_at}`, where `tag` is the verb's own for success.
fn parse_lease_end(script: &Script, done_tag: &str, mut item: ReplyReader) -> Result<LeaseEnd> {
    let tag = item.text()?;
    match tag.as_str() {
        "repeated" => Ok(LeaseEnd::Done { state: item.state()?, run_at: item.optional_time()?, repeated: true }),
        "lost" => Ok(LeaseEnd::LeaseLost(item.state()?)),
        "unknown" => Ok(LeaseEnd::Unknown),
        tag if tag == done_tag => Ok(LeaseEnd::Done { state: item.state()?, run_at: item.optional_time()?, repeated: false }),
        other => unexpected_reply(script, other),
    }
}
