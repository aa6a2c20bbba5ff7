//! Pages of an index by time.

use deadpool_redis::redis::{Value, cmd};

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{bytes, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "page", []);

/// A place in an index: a score, and the id that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// In ms.
    pub score: i64,
    /// At that score.
    pub id: TaskId,
}

/// The index of tasks in `state` that is ordered by time, and whether its newest come first. `None` for `ready`,
/// which is ordered by slot.
fn time_index(queue: &QueueName, state: State) -> Option<(String, bool)> {
    match state {
        State::Scheduled => Some((format!("scheduled:{queue}"), false)),
        State::Leased => Some((format!("leased:{queue}"), false)),
        State::Ready => None,
        State::Completed | State::Dead | State::Cancelled | State::Expired => {
            Some((format!("ended:{queue}:{state}"), true))
        }
    }
}

/// Whether the list of this state begins with the newest.
pub fn is_newest_first(state: State) -> bool {
    state.has_ended()
}

/// At most `limit` places behind `after` among the shard's tasks of the queue in `state`, by time: scheduled by
/// run time, leased by the end of the lease, ended ones newest first. Empty for `ready`.
pub async fn page_by_time(
    shard: &Shard,
    queue: &QueueName,
    state: State,
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<Position>> {
    let Some((index, newest)) = time_index(queue, state) else { return Ok(Vec::new()) };
    let (score, id) = match after {
        None => (String::new(), Vec::new()),
        Some(place) => (place.score.to_string(), place.id.as_bytes().to_vec()),
    };
    let arguments = vec![
        index.into_bytes(),
        if newest { b"1".to_vec() } else { Vec::new() },
        score.into_bytes(),
        id,
        limit.to_string().into_bytes(),
    ];
    decode(shard.read_script(&SCRIPT, arguments).await?)
}

/// Reads the places of a page.
pub(in crate::store) fn decode(reply: Value) -> Result<Vec<Position>> {
    let mut reply = read_list(reply)?;
    let mut positions = Vec::with_capacity(reply.len() / 2);
    while reply.len() > 0 {
        positions.push(Position { id: reply.id()?, score: reply.int()? });
    }
    Ok(positions)
}

/// Ended tasks whose time of retention is over at `now`, at most one call's worth.
pub async fn past_retention(shard: &Shard, now: TimestampMs) -> Result<Vec<TaskId>> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(shard.keys.retention()).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limits::MAX_CALL_ITEMS);
    let list = read_list(shard.send(&command).await?)?;
    Ok(list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect())
}
