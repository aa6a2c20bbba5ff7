//! Has the ends of tasks published to requests that wait for them.

use deadpool_redis::redis::Value;

use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "subscribe_completion", ["task", "write_task"]);

/// Has the tasks' ends published. Returns their current states, `None` if there is no such task.
pub async fn subscribe_completion(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Option<State>>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_usize(ids.len());
    for id in ids {
        call.push(id.as_bytes());
    }
    parse_reply(call.send().await?)
}

/// Reads the reply.
pub(in crate::store) fn parse_reply(reply: Value) -> Result<Vec<Option<State>>> {
    read_list(reply)?.map(|state| Ok(State::parse(&text(state)?))).collect()
}
