//! Drives `portcullis_invariants::cidr`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_invariants::cidr(data));
