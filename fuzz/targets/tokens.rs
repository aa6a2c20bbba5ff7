//! See `slotwheel::domain::fuzz::tokens`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slotwheel::domain::fuzz::tokens(bytes));
