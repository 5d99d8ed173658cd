#![no_main]

#[path = "../memory.rs"]
mod memory;
#[path = "../../crates/shrinkd-csv/tests/hostile/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::holds(bytes));
