//! Drives `portcullis_invariants::forwarded`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::forwarded(data));
