//! Drives `portcullis_invariants::proxy_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::proxy_header(data));
