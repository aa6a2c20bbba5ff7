//! The data set: its identity, and the detection of its loss.

pub mod identity;
pub mod loss_detector;
