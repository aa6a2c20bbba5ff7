//! See `slotwheel::store::fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::store::fuzz::records(bytes));
