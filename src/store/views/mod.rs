//! Reading: nothing here changes anything, and each call's work is bounded.

pub mod claims;
pub mod confirm;
pub mod courses;
pub mod horizon;
pub mod overdue;
pub mod overview;
pub mod page;
pub mod queues;
pub mod stats;
pub mod tasks;
pub mod workers;
