//! Drives `portcullis_invariants::redaction`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::redaction(data));
