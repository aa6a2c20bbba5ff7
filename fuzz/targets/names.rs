//! See `slotwheel::domain::fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::domain::fuzz::names(bytes));
