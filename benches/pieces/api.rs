//! What `make pieces` measures of the way through HTTP: bodies as handlers read them, answers as they write them.
//! Compiled for that only.

use bytes::Bytes;

use super::extract::SingleBody;
use super::json::shapes::{ClaimedTaskJson, SubmittedTaskJson, TaskJson};
use super::json::validate;
use super::response;
use super::submit;
use crate::domain::limits;
use crate::domain::slot::Shards;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, NewTask, Task};

/// The look over bytes of JSON, and whether they may be parsed.
pub fn scan(json: &[u8]) -> bool {
    validate::validate(json, limits::MAX_JSON_DEPTH).is_ok()
}

/// The body of a submit, looked over and not yet parsed.
#[derive(Debug)]
pub struct Body(SingleBody);

impl Body {
    /// The body that has these bytes, if it may be parsed.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        SingleBody::from_bytes(bytes.to_vec()).ok().map(Body)
    }

    /// The task that it submits.
    pub fn task(&self, shards: Shards) -> Option<NewTask> {
        let object = self.0.object().ok()?;
        let task = submit::parse_task(&object, shards).ok()?;
        object.deny_unknown().ok().map(|()| task)
    }
}

/// A task as it stands right after its submit.
pub fn stored(task: NewTask) -> Task {
    let at = task.id.created_at();
    task.into_task(State::Ready, at, None, None)
}

/// The answer to its submit.
pub fn submitted(task: &Task) -> Bytes {
    response::encode(&SubmittedTaskJson { task: TaskJson::from(task), deduplicated: false })
}

/// Tasks as the answer to a claim lists them.
pub fn claimed(tasks: &[ClaimedTask]) -> Bytes {
    response::encode(&tasks.iter().map(ClaimedTaskJson::from).collect::<Vec<_>>())
}
