//! A task as the audit reads it.

use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::store::error::{Error, Result};
use crate::store::invariant::Invariant;
use crate::store::isolation::check_readable;
use crate::store::opaque::decode_document;
use crate::store::record::fields;
use crate::store::task_hash::TaskHash;

/// The fields of a task that the audit needs.
#[derive(Clone, Debug)]
pub(super) struct TaskSnapshot {
    pub(super) queue: QueueName,
    pub(super) state: State,
    pub(super) slot: Slot,
    pub(super) key_digest: Option<KeyDigest>,
    pub(super) priority: u8,
    pub(super) seq: i64,
    pub(super) run_at: Option<i64>,
    pub(super) lease_until: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) end_seq: i64,
    pub(super) has_own_retention: bool,
    pub(super) claim: Option<Vec<u8>>,
    pub(super) dedupe: Option<Vec<u8>>,
    /// The task whose end it waits for, and the task that waits for its end.
    pub(super) predecessor: Option<Vec<u8>>,
    pub(super) successor: Option<Vec<u8>>,
    /// The time at which it releases its dedupe key, if not at its end.
    pub(super) dedupe_until: Option<i64>,
    /// Whether it has fields that only an ended task may have.
    pub(super) has_stale_end_fields: bool,
}

impl TaskSnapshot {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Scheduled | State::Ready)
    }
}

/// Returns the invariant that an unreadable task violates.
pub(super) fn unreadable_task(id: TaskId, fields: &TaskHash, error: &Error) -> Invariant {
    let document = fields.bytes(fields::DOCUMENT).unwrap_or_default();
    let document = decode_document(document).is_none().then(|| document.to_vec());
    Invariant::TaskRecord { id, violation: error.to_string(), document }
}

/// Returns the fields that the audit needs.
pub(super) fn task_snapshot(fields: &TaskHash) -> Result<TaskSnapshot> {
    let state = check_readable(fields)?;
    let is_waiting = matches!(state, State::Scheduled | State::Ready);
    Ok(TaskSnapshot {
        queue: fields.queue()?,
        state,
        slot: fields.slot()?,
        key_digest: fields.key_digest(),
        priority: fields.priority()?,
        seq: fields.required_int(fields::SEQ)?,
        run_at: fields.int(fields::RUN_AT),
        lease_until: fields.int(fields::LEASE_UNTIL),
        expires_at: fields.int(fields::EXPIRES_AT),
        finished_at: fields.int(fields::FINISHED_AT),
        end_seq: fields.int(fields::END_SEQ).unwrap_or(0),
        has_own_retention: fields.bytes(fields::RETAIN_MS).is_some(),
        claim: fields.bytes(fields::CLAIM_DIGEST).map(|claim| claim.iter().take(16).copied().collect()),
        dedupe: fields.bytes(fields::DEDUPE_DIGEST).map(<[u8]>::to_vec),
        predecessor: fields.bytes(fields::PREDECESSOR).filter(|_| state == State::Scheduled).map(<[u8]>::to_vec),
        successor: fields.bytes(fields::SUCCESSOR).map(<[u8]>::to_vec),
        dedupe_until: fields.int(fields::DEDUPE_UNTIL),
        has_stale_end_fields: !state.has_ended()
            && (fields.int(fields::FINISHED_AT).is_some()
                || (is_waiting && fields.bytes(fields::CANCEL_REQUESTED).is_some())),
    })
}
