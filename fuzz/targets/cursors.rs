//! See `slotwheel::api::fuzz::cursors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::api::fuzz::cursors(bytes));
