#![no_main]

#[path = "../memory.rs"]
mod memory;
#[allow(dead_code, reason = "the rooms of the other targets")]
#[path = "../../crates/shrinkd-core/tests/core/hostile_input/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::framing::holds(bytes));
