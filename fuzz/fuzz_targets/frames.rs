//! Drives `portcullis_invariants::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::frames(data));
