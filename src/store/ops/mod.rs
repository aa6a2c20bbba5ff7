//! Transitions: each is one script and, beside it, its only caller.
//!
//! Every operation has the same shape: a shard, the caller whose number makes repeating harmless, then what to do.
//! A list of items gets a list of answers in the same order; no item may name what another item of the call names.

pub mod apply_settings;
pub mod cancel;
pub mod claim;
pub mod complete;
pub mod delete;
pub mod enable_events;
pub mod expire_leases;
pub mod expire_tasks;
pub mod fail;
pub mod heartbeat;
pub mod idempotency;
pub mod promote;
pub mod prune_callers;
pub mod record_workers;
pub mod release;
pub mod repair;
pub mod retry;
pub mod sample_leases;
pub mod set_settings;
pub mod submit;
pub mod subscribe_completion;
pub mod touch_dataset;

use super::error::{Error, Result};
use super::redis::reply::{ReplyReader, read_list};
use super::redis::script::Script;
use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use deadpool_redis::redis::Value;

/// All scripts there are.
pub static ALL: &[&Script] = &[
    &touch_dataset::SCRIPT,
    &cancel::SCRIPT,
    &claim::SCRIPT,
    &complete::SCRIPT,
    &apply_settings::SCRIPT,
    &expire_tasks::SCRIPT,
    &fail::SCRIPT,
    &heartbeat::SCRIPT,
    &enable_events::SCRIPT,
    &repair::SCRIPT,
    &promote::SCRIPT,
    &expire_leases::SCRIPT,
    &release::SCRIPT,
    &idempotency::SCRIPT,
    &delete::SCRIPT,
    &retry::SCRIPT,
    &sample_leases::SCRIPT,
    &set_settings::SCRIPT,
    &record_workers::SCRIPT,
    &submit::SCRIPT,
    &prune_callers::SCRIPT,
    &subscribe_completion::SCRIPT,
    &super::views::verify_invariants::SCRIPT,
    &super::views::next_due::SCRIPT,
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
pub(super) fn parse_items<T>(
    reply: Value,
    expected: usize,
    parse: impl Fn(ReplyReader) -> Result<T>,
) -> Result<Vec<T>> {
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
        tag if tag == done_tag => {
            Ok(LeaseEnd::Done { state: item.state()?, run_at: item.optional_time()?, repeated: false })
        }
        other => unexpected_reply(script, other),
    }
}
