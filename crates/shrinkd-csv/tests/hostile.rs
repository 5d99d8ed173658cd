//! Tables of any bytes: what the fuzz target promises, for as many cases as seconds allow, and for the seeds.

#[path = "hostile/properties.rs"]
mod properties;

use std::path::Path;

use proptest::prelude::*;

/// Bytes that tables are made of, so that cases get beyond the first cell.
fn cells() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => prop::sample::select(&b"0123456789.,;\t\n\"-+%eE ctrlbasenyNA"[..]),
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_table_is_refused_as_a_whole_or_its_events_are_read_by_the_decoder(mut bytes in cells(), header in 0_u8..=properties::HEADERS.len() as u8) {
        bytes.insert(0, header);
        properties::holds(&bytes);
    }
}

#[test]
fn every_seed_of_the_fuzz_target_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/csv");
    let mut seeds = 0;
    for entry in folder.read_dir().expect("the seeds are committed") {
        properties::holds(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
        seeds += 1;
    }
    assert!(seeds >= 5, "{seeds} seeds");
}
