//! Words and rules: what a task is, which states it passes through, where its slot lies.
//!
//! Nothing here reads a clock, waits, or talks to anything: every function's answer follows from its arguments.

pub mod digest;
pub mod erlang;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
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
