//! Completes leased tasks.

use std::borrow::Borrow;

use deadpool_redis::redis::Value;
use serde_json::value::RawValue;

use super::{LeaseEnd, LeaseRef, WhenFull, is_large};
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::RawJson;
use crate::store::error::Result;
use crate::store::opaque;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, ScriptCall, Shard};

pub(super) static SCRIPT: Script = script!(write "complete", ["events", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "piece_functions", ("local function use_pieces()" ["pieces"]), "index_end", "lease_ends", ("local function define_complete()" ["due", "counts", "transition", "task", "dedupe", "free_dedupe", "finish_task", "outages", "lease", "end_lease", "complete_any"]), "complete_tasks"]);

/// A task to complete.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The task and its token.
    pub lease_ref: LeaseRef,
    /// Result of the execution; JSON `null` for none.
    pub result: RawJson,
}

/// Ends the tasks as completed, if the tokens hold their leases.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) with [`WhenFull::Fail`], if Redis has no memory left for a large result.
pub async fn complete(
    shard: &Shard,
    caller: &mut Caller,
    completions: &[impl Borrow<Completion>],
    when_full: WhenFull,
) -> Result<Vec<LeaseEnd>> {
    let call = completing_call(&SCRIPT, shard, caller, completions, when_full);
    let reply = call.send().await?;
    read_outcomes(&call, reply, completions, when_full)
}

/// Returns a call of a script that completes these tasks.
pub(super) fn completing_call<'a>(
    script: &'static Script,
    shard: &'a Shard,
    caller: &mut Caller,
    completions: &[impl Borrow<Completion>],
    when_full: WhenFull,
) -> ScriptCall<'a> {
    let has_large = has_large(completions).any(|large| large);
    let mut call = match when_full == WhenFull::Fail && has_large {
        true => shard.growing_call(script, caller),
        false => shard.call(script, caller),
    };
    call.push_int(limits::RETAIN_COMPLETED_MS).push_usize(completions.len());
    for Completion { lease_ref, result } in completions.iter().map(Borrow::borrow) {
        let is_null = result.get() == RawValue::NULL.get();
        call.push(lease_ref.id.as_bytes()).push(lease_ref.token_bytes()).push(if is_null {
            Vec::new()
        } else if when_full == WhenFull::Drop && is_large(result) {
            opaque::encode_dropped()
        } else {
            opaque::encode(result)
        });
    }
    call
}

fn has_large(completions: &[impl Borrow<Completion>]) -> impl Iterator<Item = bool> {
    completions.iter().map(|completion| is_large(&completion.borrow().result))
}

/// Reads the outcomes of completions, and counts them.
pub(super) fn read_outcomes(
    call: &ScriptCall<'_>,
    reply: Value,
    completions: &[impl Borrow<Completion>],
    when_full: WhenFull,
) -> Result<Vec<LeaseEnd>> {
    let mut outcomes = super::parse_items(reply, completions.len(), parse_item)?;
    if when_full == WhenFull::Drop {
        super::mark_dropped(&mut outcomes, has_large(completions));
    }
    let transitions = call.transitions();
    super::count_lease_ends(transitions, &transitions.completed, &outcomes);
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "completed", Some(State::Completed), item)
}
