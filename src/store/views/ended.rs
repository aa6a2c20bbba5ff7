//! Ended tasks, oldest first, and their size.

use deadpool_redis::redis::Value;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "ended", ["clock", "transaction", "records", "counts", "piece_functions", ("local function use_pieces()" ["pieces"])]);

/// Reads the tasks that ended first.
pub(in crate::store) static OLDEST: Script = script!(read "oldest", ["clock", "transaction", "records", "piece_functions", ("local function use_pieces()" ["pieces"])]);

/// The ended tasks of a queue in one state, and a time at or before the first of their ends, in ms.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EndedList {
    /// At or before the end of the task that ended first.
    pub oldest: i64,
    /// The queue.
    pub queue: QueueName,
    /// The state.
    pub state: State,
}

/// Lists of ended tasks, of one page of queues.
#[derive(Debug)]
pub struct EndedLists {
    /// The lists that are not empty.
    pub lists: Vec<EndedList>,
    /// The last queue of the page. `None`: there are no further queues.
    pub last: Option<QueueName>,
    /// The number of ended tasks of the shard.
    pub total: u64,
    /// A few of them at random: their number and their bytes in all.
    pub sample: (u64, u64),
}

/// Reads the lists of at most `queues` queues after `after`, and the size of at most `samples` ended tasks.
pub async fn ended_lists(
    shard: &Shard,
    after: Option<&QueueName>,
    queues: usize,
    samples: usize,
) -> Result<EndedLists> {
    let after = after.map(QueueName::as_str).unwrap_or_default();
    let arguments = vec![after.into(), queues.to_string().into(), samples.to_string().into()];
    decode(shard.read_script(&SCRIPT, arguments).await?)
}

fn decode(reply: Value) -> Result<EndedLists> {
    let mut reply = read_list(reply)?;
    let last = QueueName::parse(&reply.text()?);
    let mut count = || reply.int().map(|count| u64::try_from(count).unwrap_or(0));
    let (total, sample) = (count()?, (count()?, count()?));
    let mut lists = Vec::new();
    while let Some(queue) = reply.next() {
        let (queue, state, oldest) = (QueueName::parse(&text(queue)?), reply.state()?, reply.int()?);
        lists.extend(queue.map(|queue| EndedList { oldest, queue, state }));
    }
    Ok(EndedLists { lists, last, total, sample })
}

/// Returns for each list at most `limit` tasks that ended at or before `until`, oldest first, with the times.
pub async fn oldest_ended(
    shard: &Shard,
    lists: &[EndedList],
    until: i64,
    limit: usize,
) -> Result<Vec<Vec<(i64, TaskId)>>> {
    let mut arguments: Vec<Vec<u8>> = [until, limit as i64, lists.len() as i64].map(|n| n.to_string().into()).into();
    arguments.extend(lists.iter().flat_map(|list| [list.queue.as_str().into(), list.state.as_str().into()]));
    let mut pages = Vec::with_capacity(lists.len());
    for reply in read_list(shard.read_script(&OLDEST, arguments).await?)? {
        let mut reply = read_list(reply)?;
        let mut page = Vec::new();
        while reply.len() > 0 {
            let id = reply.bytes()?;
            let ended_at = reply.int()?;
            page.extend(TaskId::from_bytes(&id).map(|id| (ended_at, id)));
        }
        pages.push(page);
    }
    Ok(pages)
}
