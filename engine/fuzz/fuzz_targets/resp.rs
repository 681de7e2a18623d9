//! Bytes of a client, as the parser of requests sees them.
#![no_main]

#[path = "../src/parse.rs"]
mod parse;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parse::fuzz_resp(data));
