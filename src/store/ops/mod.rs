//! Transitions: each is one script and, beside it, the function that calls it.
//!
//! Every function takes a shard, a caller, whose sequence number makes a repeated call harmless, and the items.
//! Outcomes are in the order of the items. No two items of a call may name the same task or key.

#[cfg(any(test, fuzzing))]
use deadpool_redis::redis::Value;
use serde_json::value::RawValue;

use super::error::{Error, Result};
use super::metrics::Transitions;
use super::redis::reply::{self, ReplyReader, parse_items};
use super::redis::script::Script;
use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::metrics::Counter;

/// Declares the modules of the transitions, and lists their scripts and those of the views. `(items)`: the script replies
/// for each item of its call, which `parse_item` reads.
macro_rules! ops {
    ($($op:ident $(($items:ident))?),* $(,)?) => {
        $(pub mod $op;)*

        /// All scripts.
        pub static ALL: &[&Script] = &[
            $(&$op::SCRIPT,)*
            &super::clock::confirm_clock::SCRIPT,
            &super::clock::touch_clock::SCRIPT,
            &super::views::ended::SCRIPT,
            &super::views::ended::OLDEST,
            &super::views::next_due::SCRIPT,
            &super::views::page::SCRIPT,
            &super::views::ready::SCRIPT,
            &super::views::stats::SCRIPT,
            &super::views::verify_invariants::SCRIPT,
        ];

        /// Parses the reply as that of each script that replies for each of `count` items.
        #[cfg(any(test, fuzzing))]
        pub(super) fn parse_as_each(reply: &Value, count: usize) -> Vec<Result<()>> {
            vec![$($(parse_as!(reply, count, $op $items),)?)*]
        }
    };
}

#[cfg(any(test, fuzzing))]
macro_rules! parse_as {
    ($reply:ident, $count:ident, $op:ident items) => {
        parse_items($reply.clone(), $count, $op::parse_item).map(drop)
    };
}

ops! {
    apply_settings,
    cancel(items),
    claim,
    complete(items),
    complete_and_claim,
    delete(items),
    enable_events,
    expire_leases,
    expire_tasks,
    fail(items),
    heartbeat(items),
    idempotency(items),
    promote,
    prune_callers,
    purge_ended,
    record_workers,
    release(items),
    remove_queue,
    remove_settings,
    repair,
    resolve_hand_offs,
    retry(items),
    run_now(items),
    sample_leases,
    set_settings,
    submit(items),
    subscribe_completion,
    touch_dataset,
}

/// A report's document (result, progress or details) when Redis is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// The document is stored all the same.
    Store,
    /// The call fails with [`Error::Full`] if it has a large document. Nothing is written.
    Fail,
    /// Large documents are dropped.
    Drop,
}

/// Documents up to this size are stored also when Redis is full.
const SMALL_DOCUMENT_BYTES: usize = 1024;

/// Whether the document may be refused or dropped when Redis is full.
fn is_large(document: &RawValue) -> bool {
    document.get().len() > SMALL_DOCUMENT_BYTES
}

/// A task and the token of its lease.
#[derive(Clone, Debug)]
pub struct LeaseRef {
    /// The task.
    pub id: TaskId,
    /// `None` if the request's text cannot be a token.
    pub lease: Option<Token>,
}

impl LeaseRef {
    /// The token as scripts compare it; an empty string is never a token.
    fn token_bytes(&self) -> &[u8] {
        self.lease.as_ref().map_or(&[], |lease| lease.as_bytes())
    }
}

/// Outcome of an operation that ends a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseEnd {
    /// The lease ended now, or had ended by the same operation.
    Done {
        /// State of the task after the lease.
        state: State,
        /// When the task can be claimed again, if not at once.
        run_at: Option<TimestampMs>,
        /// Whether an earlier call had ended the lease.
        repeated: bool,
        /// Whether the report's document was dropped because Redis was full.
        dropped: bool,
    },
    /// The token does not hold the lease of the task, which is in this state.
    LeaseLost(State),
    /// There is no such task.
    Unknown,
}

/// Marks the outcomes of a call that dropped its large documents. `has_large` tells for each item whether it had one.
fn mark_dropped(outcomes: &mut [LeaseEnd], has_large: impl Iterator<Item = bool>) {
    for (outcome, has_large) in outcomes.iter_mut().zip(has_large) {
        if let LeaseEnd::Done { repeated: false, dropped, .. } = outcome {
            *dropped = has_large;
        }
    }
}

impl AsRef<LeaseEnd> for LeaseEnd {
    fn as_ref(&self) -> &LeaseEnd {
        self
    }
}

impl LeaseEnd {
    /// Returns whether the report was taken without its documents, because Redis was short of memory.
    pub fn has_dropped(&self) -> bool {
        matches!(self, LeaseEnd::Done { dropped: true, .. })
    }
}

/// Counts the leases that a call ended: each in `counter`, and the state that its task went to.
fn count_lease_ends(transitions: &Transitions, counter: &Counter, outcomes: &[LeaseEnd]) {
    outcomes.iter().for_each(|outcome| count_lease_end(transitions, counter, outcome));
}

/// Counts one lease that a call ended.
fn count_lease_end(transitions: &Transitions, counter: &Counter, outcome: &LeaseEnd) {
    if let LeaseEnd::Done { state, repeated: false, .. } = outcome {
        counter.inc();
        transitions.record_end_state(*state);
    }
}

/// Reads a number that a reply ends with if it is not zero.
fn trailing_count(item: &mut ReplyReader) -> Result<u64> {
    item.next().map_or(Ok(0), |count| Ok(reply::int(count)?.unsigned_abs()))
}

fn unexpected_reply<T>(script: &Script, tag: &str) -> Result<T> {
    Err(Error::Unexpected(format!("script {} returned {tag:.40}", script.name)))
}

/// Reads an index of Lua, which starts at 1.
fn zero_based(index: i64) -> Result<usize> {
    let zero_based = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    zero_based.ok_or_else(|| Error::Unexpected(format!("index {index}, but the first is 1")))
}

/// Reads `{tag, state, run_at}`. `done_tag` is the operation's tag for success; it comes alone if `done_state` is known.
fn parse_lease_end(
    script: &Script,
    done_tag: &str,
    done_state: Option<State>,
    mut item: ReplyReader,
) -> Result<LeaseEnd> {
    let tag = item.text()?;
    match tag.as_str() {
        "repeated" => {
            let (state, run_at) = (item.state()?, item.optional_time()?);
            Ok(LeaseEnd::Done { state, run_at, repeated: true, dropped: item.next().is_some() })
        }
        "lease_lost" => Ok(LeaseEnd::LeaseLost(item.state()?)),
        "unknown" => Ok(LeaseEnd::Unknown),
        tag if tag == done_tag => match done_state {
            Some(state) => Ok(LeaseEnd::Done { state, run_at: None, repeated: false, dropped: false }),
            None => {
                let (state, run_at) = (item.state()?, item.optional_time()?);
                Ok(LeaseEnd::Done { state, run_at, repeated: false, dropped: false })
            }
        },
        other => unexpected_reply(script, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_starts_at_1() {
        assert_eq!(zero_based(1).ok(), Some(0));
        assert!(zero_based(0).is_err() && zero_based(i64::MIN).is_err());
    }
}
