//! Steps of `api` for `make pieces`: parsing bodies and encoding responses. Compiled only for that.

use bytes::Bytes;

use super::body::SingleBody;
use super::json::shapes::{ClaimedTaskJson, SubmittedTaskJson, TaskJson};
use super::json::validate;
use super::response;
use super::submit;
use crate::domain::limits;
use crate::domain::slot::Shards;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, NewTask, Task};

/// Scans JSON. Returns whether it may be parsed.
pub fn scan(json: &[u8]) -> bool {
    validate::validate(json, limits::MAX_JSON_DEPTH).is_ok()
}

/// The body of a submit, scanned and not yet parsed.
#[derive(Debug)]
pub struct Body(SingleBody);

impl Body {
    /// Returns the body with these bytes; `None` if it may not be parsed.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        SingleBody::from_bytes(bytes.to_vec()).ok().map(Body)
    }

    /// Parses the submitted task.
    pub fn task(&self, shards: Shards) -> Option<NewTask> {
        let object = self.0.object().ok()?;
        let task = submit::parse_task(&object, shards).ok()?;
        object.deny_unknown().ok().map(|()| task)
    }
}

/// Returns the task as stored directly after its submit.
pub fn stored(task: NewTask) -> Task {
    let at = task.id.created_at();
    task.into_task(State::Ready, at, None, None)
}

/// Encodes the response to a submit.
pub fn submitted(task: &Task) -> Bytes {
    response::encode(&SubmittedTaskJson { task: TaskJson::from(task), deduplicated: false })
}

/// Encodes the tasks of the response to a claim.
pub fn claimed(tasks: &[ClaimedTask]) -> Bytes {
    response::encode(&tasks.iter().map(ClaimedTaskJson::from).collect::<Vec<_>>())
}
