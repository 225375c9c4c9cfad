//! Any bytes as commands of the engine: no panic, no overflow, and every invariant of the histories holds. What bytes mean is in
//! `engine/tests/support/fuzzed.rs`; `engine/tests/fuzzed.rs` runs the same without a fuzzer.
#![no_main]

#[path = "../../engine/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = support::fuzzed::run(bytes) {
        panic!("{broken}");
    }
});
