//! Stores new tasks, or hands them over to waiting requests.

use deadpool_redis::redis::Value;

use super::claim::WaiterRequest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::task::{DedupeMode, NewTask, StartTime};
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::error::{Error, Result};
use crate::store::metrics::count_matching;
use crate::store::record;
use crate::store::redis::reply::{ReplyReader, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, ScriptCall, Shard};

pub(super) static SCRIPT: Script = script!(grow "submit", ["due", "events", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", ("local function define_submit_with_options(create)" ["waiting", "submit_options", "counts", "transition", "task", "write_task", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry", "holder", "submit_keyed"]), ("local function define_hand_off(at)" ["wait_times", "begin_lease", "outages", "repeated_lease", "hand_off"])]);

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Submitted {
    /// The task is stored.
    Created {
        /// Ready or scheduled.
        state: State,
        /// Redis' time, which is the time of creation.
        at: TimestampMs,
        /// When the task can be claimed, if not at once.
        run_at: Option<TimestampMs>,
        /// When the task expires.
        expires_at: Option<TimestampMs>,
    },
    /// The task is stored, and waits for the end of another.
    CreatedAfter {
        /// Redis' time, which is the time of creation.
        at: TimestampMs,
        /// When the task expires.
        expires_at: Option<TimestampMs>,
        /// The task whose end it waits for.
        after: TaskId,
    },
    /// An earlier call has stored a task with this id.
    AlreadyStored,
    /// This task holds the dedupe key and stays as it is.
    Existing(TaskId),
    /// This task holds the dedupe key and has taken over the content.
    Replaced(TaskId),
    /// `run_at` is too far from Redis' clock.
    TooFar,
    /// The task would expire before `run_at`, or at that time.
    PastExpiry,
}

/// Waiting requests to which a submit may hand tasks over, in order of arrival.
#[derive(Default, Debug)]
pub struct Offers {
    /// The queues to which the requests refer.
    pub queues: Vec<QueueName>,
    /// The requests.
    pub requests: Vec<WaiterRequest>,
    /// The maximum of tasks to hand over.
    pub max_tasks: usize,
}

/// A task that a submit has handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandOff {
    /// Index of the request.
    pub request: usize,
    /// Index of the task in the call.
    pub task: usize,
    /// Its id.
    pub id: TaskId,
    /// The token of its lease.
    pub lease: Token,
    /// The end of its lease.
    pub lease_until: TimestampMs,
}

/// The result of a submit.
#[derive(Default, Debug)]
pub struct SubmitReply {
    /// One outcome for each task, in order. A task that was handed over was created as ready.
    pub outcomes: Vec<Submitted>,
    /// The tasks that were handed over.
    pub hand_offs: Vec<HandOff>,
}

/// Stores `tasks`. No two may have the same dedupe key. A ready task goes to the first of the `offers` that is for its queue
/// and has room, if no other task of the queue is ready in the shard. The leases in the reply belong to those requests.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) when Redis has no memory left: nothing was stored.
/// [`Unconfirmed`](crate::store::Error::Unconfirmed) when they are stored, but on fewer replicas than configured. After an
/// error, [`resolve_hand_offs`](super::resolve_hand_offs) returns the tasks that were handed over.
pub async fn submit(shard: &Shard, caller: &mut Caller, tasks: &[NewTask], offers: &Offers) -> Result<SubmitReply> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::MAX_RUN_AT_OFFSET_MS).push_int(limits::RETAIN_OTHER_MS);
    call.push_usize(usize::from(tasks.iter().any(|task| task.may_be_stored))).push_usize(tasks.len());
    for task in tasks {
        call.push(task.id.as_bytes()).push(task.queue.as_str()).push_int(task.priority).push_int(task.slot.number());
        call.push(record::placement_start(task));
        push_options(&mut call, task);
        let fields = record::submitted_fields(task)?;
        call.push_usize(fields.len());
        for (name, value) in fields {
            call.push(name).push(value);
        }
    }
    push_offers(&mut call, tasks.len(), offers);
    let mut reply = read_list(call.send().await?)?;
    let (outcomes, expired): (Vec<Submitted>, Vec<u64>) =
        super::parse_items(reply.value()?, tasks.len(), parse_item)?.into_iter().unzip();
    let hand_offs = parse_hand_offs(reply.value()?)?;
    shard.transitions().submitted.add(count_matching(&outcomes, |outcome| {
        matches!(outcome, Submitted::Created { .. } | Submitted::CreatedAfter { .. })
    }));
    shard.transitions().claimed.add(hand_offs.len() as u64);
    shard.transitions().expired.add(expired.into_iter().sum());
    // Also if no task is new: a task may be stored by an earlier call that was not confirmed.
    call.wait_for_replicas().await?;
    Ok(SubmitReply { outcomes, hand_offs })
}

/// Appends the offers, if there are any, with a token for each task that they may take.
fn push_offers(call: &mut ScriptCall<'_>, task_count: usize, offers: &Offers) {
    if offers.requests.is_empty() {
        return;
    }
    let room: usize = offers.requests.iter().map(|request| request.max).sum();
    let tokens = room.min(task_count).min(offers.max_tasks);
    call.push_usize(tokens);
    for _ in 0..tokens {
        call.push(Token::new(rand::random()).as_bytes());
    }
    call.push_usize(offers.requests.len());
    for WaiterRequest { max, lease_ms, worker, claim_id, queues } in &offers.requests {
        call.push_usize(*max)
            .push_int(*lease_ms)
            .push(worker)
            .push(claim_id.map(|claim_id| claim_id.to_bytes()).unwrap_or_default())
            .push_usize(queues.len());
        for queue in queues.iter().filter_map(|index| offers.queues.get(*index)) {
            call.push(queue.as_str());
        }
    }
}

/// Reads the hand-offs of a reply.
pub(in crate::store) fn parse_hand_offs(list: Value) -> Result<Vec<HandOff>> {
    let parse = |mut entry: ReplyReader| {
        let (request, task) = (super::zero_based(entry.int()?)?, super::zero_based(entry.int()?)?);
        let (lease_until, id) = (TimestampMs(entry.int()?), entry.id()?);
        let lease = Token::from_bytes(&entry.bytes()?);
        let lease = lease.ok_or_else(|| Error::Unexpected("submit hands a task over without a token".into()))?;
        Ok(HandOff { request, task, id, lease, lease_until })
    };
    read_list(list)?.map(|entry| parse(read_list(entry)?)).collect()
}

/// Appends the options: none if the task has none, else all.
fn push_options(call: &mut ScriptCall<'_>, task: &NewTask) {
    let NewTask { start, expires_in_ms, dedupe, .. } = task;
    if *start == StartTime::After(0) && expires_in_ms.is_none() && dedupe.is_none() {
        call.push_usize(0);
        return;
    }
    let (delay_ms, run_at) = match start {
        StartTime::After(ms) => (*ms, String::new()),
        StartTime::At(time) => (0, time.0.to_string()),
    };
    call.push_usize(6).push_int(delay_ms).push(run_at).push(expires_in_ms.map(|ms| ms.to_string()).unwrap_or_default());
    match dedupe {
        None => call.push("").push("").push(""),
        Some(dedupe) => call
            .push(dedupe.digest.as_bytes())
            .push(match dedupe.mode {
                DedupeMode::Keep => "keep",
                DedupeMode::Replace => "replace",
                DedupeMode::Debounce => "debounce",
                DedupeMode::After => "after",
            })
            .push(dedupe.window_ms.map(|ms| ms.to_string()).unwrap_or_default()),
    };
}

/// Reads the reply to one item: the outcome, and how many tasks it found expired.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<(Submitted, u64)> {
    let outcome = match item.text()?.as_str() {
        "ready" => {
            Submitted::Created { state: State::Ready, at: TimestampMs(item.int()?), run_at: None, expires_at: None }
        }
        "created" => Submitted::Created {
            state: item.state()?,
            at: TimestampMs(item.int()?),
            run_at: item.optional_time()?,
            expires_at: item.optional_time()?,
        },
        "created_after" => Submitted::CreatedAfter {
            at: TimestampMs(item.int()?),
            expires_at: item.optional_time()?,
            after: item.id()?,
        },
        "already_stored" => Submitted::AlreadyStored,
        "existing" => Submitted::Existing(item.id()?),
        "replaced" => Submitted::Replaced(item.id()?),
        "too_far" => Submitted::TooFar,
        "past_expiry" => Submitted::PastExpiry,
        other => return super::unexpected_reply(&SCRIPT, other),
    };
    Ok((outcome, super::trailing_count(&mut item)?))
}
