//! Drives `portcullis_invariants::request_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::request_head(data));
