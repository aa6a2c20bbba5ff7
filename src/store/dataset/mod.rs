//! The data set: its identity, and the detection of data loss.

pub mod identity;
pub mod loss_detector;
