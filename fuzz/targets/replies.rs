//! See `slotwheel::store::fuzz::replies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::store::fuzz::replies(bytes));
