//! The claim engine: waiting claims, the loop that claims for them, and the delivery of tasks.

pub(super) mod claim_loop;
pub(super) mod delivery;
pub(super) mod poll_limit;
pub(super) mod wait_queue;
pub(super) mod waiters;
