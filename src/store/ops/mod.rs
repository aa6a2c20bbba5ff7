//! Transitions: each is one script and, beside it, its only caller.
//!
//! Every operation has the same shape: a shard, the caller whose number makes repeating harmless, then what to do.
//! A list of items gets a list of answers in the same order; no item may name what another item of the call names.

use super::error::{Error, Result};
use super::redis::reply::{ReplyReader, read_list};
use super::redis::script::Script;
use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use deadpool_redis::redis::Value;

/// Declares the modules of the transitions, and lists their scripts and those of the views.
macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        $(pub mod $op;)*

        /// All scripts.
        pub static ALL: &[&Script] = &[
            $(&$op::SCRIPT,)*
            &super::views::next_due::SCRIPT,
            &super::views::page::SCRIPT,
            &super::views::stats::SCRIPT,
            &super::views::verify_invariants::SCRIPT,
        ];
    };
}

ops! {
    apply_settings,
    cancel,
    claim,
    complete,
    delete,
    enable_events,
    expire_leases,
    expire_tasks,
    fail,
    heartbeat,
    idempotency,
    promote,
    prune_callers,
    record_workers,
    release,
    repair,
    retry,
    sample_leases,
    set_settings,
    submit,
    subscribe_completion,
    touch_dataset,
}

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
        "lease_lost" => Ok(LeaseEnd::LeaseLost(item.state()?)),
        "unknown" => Ok(LeaseEnd::Unknown),
        tag if tag == done_tag => {
            Ok(LeaseEnd::Done { state: item.state()?, run_at: item.optional_time()?, repeated: false })
        }
        other => unexpected_reply(script, other),
    }
}
