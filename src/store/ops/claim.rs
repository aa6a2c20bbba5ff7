//! Leases ready tasks to waiting requests.

use deadpool_redis::redis::Value;

use crate::domain::claim_id::ClaimId;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::task::ClaimedTask;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::error::{Error, Result};
use crate::store::record;
use crate::store::redis::reply::{ReplyReader, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, ScriptCall, Shard};

pub(super) static SCRIPT: Script = script!(write "claim", ["due", "events", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "wait_times", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "claimable", "wheel_reader", ("local function define_key_reader()" ["keyed_member", "key_lines", "key_reader"]), "next_task", "close_queue", "begin_lease", "lease_ready", ("local function define_repetition()" ["outages", "repeated_lease", "repeated_claim"])]);

/// A request that waits for tasks.
#[derive(Clone, Debug)]
pub struct WaiterRequest {
    /// Maximum of tasks.
    pub max: usize,
    /// Length of the leases, in ms.
    pub lease_ms: i64,
    /// Name of the worker.
    pub worker: String,
    /// The claim id, if the request has one.
    pub claim_id: Option<ClaimId>,
    /// Indexes in the call's list of queues, in order of preference.
    pub queues: Vec<usize>,
}

/// Tasks that a check found in a queue of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Front {
    /// Ready tasks. The highest priority.
    Ready(u8),
    /// Only tasks that cannot be claimed: expired or unreadable ones. The next task may cause no wake-up.
    Blocked,
    /// No task. The next task causes a wake-up.
    Empty,
}

/// Result of a claim call.
#[derive(Debug, Default)]
pub struct ClaimReply {
    /// Index of the waiter in the call, and its task.
    pub tasks: Vec<(usize, ClaimedTask)>,
    /// Whether a limit of the call ended it: another call may return more.
    pub has_more: bool,
    /// Whether tasks were passed over because they had expired.
    pub has_passed_expired: bool,
    /// Indexes of the queues that were read, with what the call left of them in this shard.
    pub fronts: Vec<(usize, Front)>,
    /// Tasks passed over because they are unreadable, with the index of the queue.
    pub unreadable: Vec<(usize, TaskId)>,
}

/// A claim call. It may be sent again until it is answered: each time it returns the same leases.
pub struct ClaimCall<'a> {
    call: ScriptCall<'a>,
    queues: &'a [QueueName],
    tokens: Vec<Token>,
}

impl<'a> ClaimCall<'a> {
    /// Builds the call that leases tasks of `queues` to `waiters`, in the order of the waiters. It leases at most 100 tasks,
    /// with at most 2 MiB of documents.
    pub fn new(shard: &'a Shard, caller: &mut Caller, queues: &'a [QueueName], waiters: &[WaiterRequest]) -> Self {
        let mut call = shard.call(&SCRIPT, caller);
        let tokens = push_requests(&mut call, queues, waiters.iter());
        ClaimCall { call, queues, tokens }
    }

    /// Sends the call.
    ///
    /// # Errors
    /// After [`Unavailable`](Error::Unavailable) the script may have run. The call, sent again, returns the leases.
    pub async fn send(&self) -> Result<ClaimReply> {
        let reply = parse_reply(self.call.send().await?, self.queues, &self.tokens)?;
        self.call.transitions().claimed.add(reply.tasks.len() as u64);
        Ok(reply)
    }
}

/// Appends queues, tokens and requests. Returns the tokens: one for each task that may be leased.
pub(super) fn push_requests<'a>(
    call: &mut ScriptCall<'_>,
    queues: &[QueueName],
    waiters: impl ExactSizeIterator<Item = &'a WaiterRequest> + Clone,
) -> Vec<Token> {
    let max_tasks: usize = waiters.clone().map(|waiter| waiter.max).sum();
    let tokens: Vec<Token> = (0..max_tasks.min(limits::MAX_CALL_CLAIMS)).map(|_| Token::new(rand::random())).collect();
    call.push_usize(limits::MAX_CALL_BYTES).push_usize(queues.len());
    for queue in queues {
        call.push(queue.as_str());
    }
    call.push_usize(tokens.len());
    for token in &tokens {
        call.push(token.as_bytes());
    }
    call.push_usize(waiters.len());
    for waiter in waiters {
        call.push_usize(waiter.max)
            .push_int(waiter.lease_ms)
            .push(&waiter.worker)
            .push(waiter.claim_id.map(|claim_id| claim_id.to_bytes()).unwrap_or_default())
            .push_usize(waiter.queues.len());
        for queue in &waiter.queues {
            call.push_usize(queue + 1);
        }
    }
    tokens
}

/// Reads the reply to a call that sent these queues and tokens.
pub(in crate::store) fn parse_reply(reply: Value, queues: &[QueueName], tokens: &[Token]) -> Result<ClaimReply> {
    let mut reply = read_list(reply)?;
    let (has_more, has_passed_expired) = (reply.int()? == 1, reply.int()? == 1);
    let mut parsed = ClaimReply { has_more, has_passed_expired, ..ClaimReply::default() };
    for item in reply.list()? {
        match parse_task(read_list(item)?, queues, tokens) {
            Ok(task) => parsed.tasks.push(task),
            // The lease of this task will expire; the other tasks are delivered.
            Err(error) => tracing::error!(%error, "reading a claimed task failed"),
        }
    }
    for front in reply.list()? {
        let mut front = read_list(front)?;
        let queue = super::zero_based(front.int()?)?;
        let front = match front.int()? {
            -1 => Front::Empty,
            priority => u8::try_from(priority).map_or(Front::Blocked, Front::Ready),
        };
        parsed.fronts.push((queue, front));
    }
    for entry in reply.list()? {
        let mut entry = read_list(entry)?;
        let queue = super::zero_based(entry.int()?)?;
        parsed.unreadable.extend(TaskId::from_bytes(&entry.bytes()?).map(|id| (queue, id)));
    }
    Ok(parsed)
}

fn parse_task(mut item: ReplyReader, queues: &[QueueName], tokens: &[Token]) -> Result<(usize, ClaimedTask)> {
    let waiter = super::zero_based(item.int()?)?;
    let token = tokens.get(super::zero_based(item.int()?)?).copied();
    let token = token.ok_or_else(|| Error::Unexpected("claim names a token that was not sent".into()))?;
    let id = item.id()?;
    let lease_until = TimestampMs(item.int()?);
    let queue = queues.get(super::zero_based(item.int()?)?).cloned();
    let queue = queue.ok_or_else(|| Error::Unexpected("claim names a queue that was not sent".into()))?;
    Ok((waiter, record::decode_claimed(item, id, queue, lease_until, token)?))
}
