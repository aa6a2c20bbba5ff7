//! Reads: no function here writes, and the work of each call is bounded.

pub mod claims;
pub mod ended;
pub mod expired_leases;
pub mod lease_details;
pub mod next_due;
pub mod outages;
pub mod page;
pub mod queue_records;
pub mod queue_stats;
pub mod queues;
pub mod ready;
pub mod stats;
pub mod stored_task;
pub mod tasks;
pub mod verify_invariants;
pub mod workers;
