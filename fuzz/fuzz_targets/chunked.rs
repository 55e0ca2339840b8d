//! Drives `portcullis_invariants::chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::chunked(data));
