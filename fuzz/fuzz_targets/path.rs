//! Drives `portcullis_invariants::path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::path(data));
