//! Drives `portcullis_invariants::access_log`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::access_log(data));
