//! See `slotwheel::api::fuzz::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::api::fuzz::headers(bytes));
