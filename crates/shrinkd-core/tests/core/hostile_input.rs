//! Bytes from outside, the worst of them: what the fuzz targets (`make fuzz`) promise, for as many cases as seconds allow,
//! for the seeds that fuzzing left, and for the bugs that it found.

mod found;
pub mod properties;

use std::path::Path;

use proptest::prelude::*;

use properties::{block, decode, framing, stored};

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_history_of_messages_is_taken_or_refused_with_a_reason_and_can_be_taken_back(mut bytes in bytes(1_000)) {
        bytes.insert(0, 0);
        decode::holds(&bytes);
    }

    #[test]
    fn any_numbers_make_a_block_that_is_finite_and_exact_or_a_refusal(bytes in bytes(300)) {
        block::holds(&bytes);
    }

    #[test]
    fn any_payload_says_the_same_in_a_frame_as_without_one(bytes in bytes(600)) {
        framing::holds(&bytes);
    }

    #[test]
    fn any_damage_to_what_is_stored_is_an_error_or_a_value(bytes in bytes(600)) {
        stored::holds(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_blocks_together_have_a_finite_posterior_or_a_reason_why_not(bytes in bytes(300)) {
        block::population_holds(&bytes);
    }
}

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_seed_of_the_fuzz_targets_holds() {
    let targets: [Target; 4] =
        [("decode", decode::holds), ("block", block::holds), ("framing", framing::holds), ("stored", stored::holds)];
    for (target, holds) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let mut seeds = 0;
        for entry in folder.read_dir().expect("the seeds are committed") {
            holds(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
            seeds += 1;
        }
        assert!(seeds > 10, "{target} has {seeds} seeds");
    }
}
