//! Completes leased tasks.

use serde_json::value::RawValue;

use super::{LeaseEnd, LeaseRef, WhenFull, is_large};
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::RawJson;
use crate::store::error::Result;
use crate::store::opaque;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

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
    completions: &[Completion],
    when_full: WhenFull,
) -> Result<Vec<LeaseEnd>> {
    let has_large = || completions.iter().map(|completion| is_large(&completion.result));
    let mut call = match when_full == WhenFull::Fail && has_large().any(|large| large) {
        true => shard.growing_call(&SCRIPT, caller),
        false => shard.call(&SCRIPT, caller),
    };
    call.push_int(limits::RETAIN_COMPLETED_MS).push_usize(completions.len());
    for Completion { lease_ref, result } in completions {
        let is_null = result.get() == RawValue::NULL.get();
        call.push(lease_ref.id.as_bytes()).push(lease_ref.token_bytes()).push(if is_null {
            Vec::new()
        } else if when_full == WhenFull::Drop && is_large(result) {
            opaque::encode_dropped()
        } else {
            opaque::encode(result)
        });
    }
    let mut outcomes = super::parse_items(call.send().await?, completions.len(), parse_item)?;
    if when_full == WhenFull::Drop {
        super::mark_dropped(&mut outcomes, has_large());
    }
    let transitions = shard.transitions();
    super::count_lease_ends(transitions, &transitions.completed, &outcomes);
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "completed", Some(State::Completed), item)
}
