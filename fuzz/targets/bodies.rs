//! See `slotwheel::api::fuzz::bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::api::fuzz::bodies(bytes));
