//! Terms and rules of tasks, states, slots and leases.
//!
//! Pure functions: no clock, no waiting, no I/O. A result depends on the arguments alone.

pub mod claim_id;
pub mod digest;
pub mod erlang;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/harness/domain.rs"]
pub mod fuzz;
pub mod histogram;
pub mod id;
pub mod limits;
pub mod queue;
pub mod retry;
pub mod slot;
pub mod state;
pub mod task;
pub mod throughput;
pub mod time;
pub mod token;
pub mod trace;
pub mod worker;
