//! Pages of the indexes by time.

use deadpool_redis::redis::{Value, cmd};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "page", ["clock", "transaction", "records", "piece_functions", ("local function use_pieces()" ["pieces"]), "ended_range"]);

/// A position in an index: a score, then an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The score: a time in ms.
    pub score: i64,
    /// The task with that score.
    pub id: TaskId,
}

/// Returns the index by time of tasks in `state`. `None` for `ready`, whose index is by slot.
fn time_index(state: State) -> Option<&'static str> {
    match state {
        State::Scheduled => Some("scheduled"),
        State::Leased => Some("leased"),
        State::Ready => None,
        State::Completed | State::Dead | State::Cancelled | State::Expired => Some("ended"),
    }
}

/// Whether the list of this state begins with the newest task.
pub fn is_newest_first(state: State) -> bool {
    state.has_ended()
}

/// Returns at most `limit` positions after `after` among the shard's tasks of the queue in `state`: scheduled tasks by
/// run time, leased tasks by lease expiry, ended tasks newest first. Empty for `ready`.
pub async fn page_by_time(
    shard: &Shard,
    queue: &QueueName,
    state: State,
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<Position>> {
    let Some(index) = time_index(state) else { return Ok(Vec::new()) };
    let (score, id) = match after {
        None => (String::new(), Vec::new()),
        Some(position) => (position.score.to_string(), position.id.as_bytes().to_vec()),
    };
    let arguments = vec![
        index.into(),
        queue.as_str().into(),
        if is_newest_first(state) { state.as_str().into() } else { Vec::new() },
        score.into_bytes(),
        id,
        limit.to_string().into_bytes(),
    ];
    decode(shard.read_script(&SCRIPT, arguments).await?)
}

/// Decodes the positions of a page.
pub(in crate::store) fn decode(reply: Value) -> Result<Vec<Position>> {
    let mut reply = read_list(reply)?;
    let mut positions = Vec::with_capacity(reply.len() / 2);
    while reply.len() > 0 {
        positions.push(Position { id: reply.id()?, score: reply.int()? });
    }
    Ok(positions)
}

/// Returns ended tasks whose retention has elapsed at `now`, at most `limit`.
pub async fn past_retention(shard: &Shard, now: TimestampMs, limit: usize) -> Result<Vec<TaskId>> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(shard.keys.retention()).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limit);
    let list = read_list(shard.send(&command).await?)?;
    Ok(list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect())
}
