//! Any bytes as a topology file: parse, resolve, draw or report. Run from `topologies/`:
//!
//! ```text
//! cargo +nightly fuzz run load fuzz/corpus/load fuzz/seeds/load -- -max_total_time=300
//! ```

#![no_main]

#[path = "../../tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    invariants::check(&String::from_utf8_lossy(bytes));
});
