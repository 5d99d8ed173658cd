//! What fuzzing found, each as the promise that it broke.

use shrinkd_core::{ControlVarianceSource, Measured, pack, unpack};
use shrinkd_model::{Block, BlockError, BlockPosterior, Node};

/// Rounding made the smaller eigenvalue 0, and 0 / 0 of it at tau = 0. Next to singular a covariance is refused; this near
/// to it, the estimates are finite.
#[test]
fn a_covariance_next_to_singular_is_refused_or_has_finite_estimates_where_tau_is_0() {
    let matrix = vec![7.880658045413279, -864.0301804542542, -864.0301804542542, 94731.70240783691];
    assert_eq!(Block::dense(vec![0.7, 0.7], matrix), Err(BlockError::NotPositiveDefinite));
    let matrix = vec![1.0, -0.999_999_999_94, -0.999_999_999_94, 1.0];
    let block = Block::dense(vec![0.7, 0.7], matrix).unwrap();
    let node = Node { weight: 1.0, tau: 0.0, icc: 0.0, mu_mean: 0.25, mu_variance: 1.0 };
    let posterior = BlockPosterior::new(&block, &[node]);
    for i in 0..2 {
        let estimate = posterior.estimate(i);
        assert!((estimate.mean - 0.25).abs() < 1e-12 && (estimate.sd - 1.0).abs() < 1e-12, "{estimate:?}");
    }
}

/// Halves of subnormal numbers are rounded, so that the mean of two equal ones was another.
#[test]
fn a_covariance_with_a_subnormal_entry_comes_back_from_its_bytes_as_it_was() {
    let block = Block::dense(vec![1.0, 2.0], vec![1.0, 5e-324, 5e-324, 1.0]).unwrap();
    assert_eq!(block.sampling_covariance(0, 1), 5e-324);
    assert_eq!(unpack::<Block>("block", &pack(&block)), Ok(block));
}

/// One name too many was an index beyond the block's end when its estimates were written.
#[test]
fn a_stored_block_whose_names_are_not_as_many_as_its_effects_is_damaged() {
    let block = Block::shared_control(vec![1.0], vec![1.0], 0.0).unwrap();
    for names in [0, 2] {
        let measured = Measured {
            variants: vec!["a".to_owned(); names],
            block: block.clone(),
            raw_variances: vec![1.0; block.len()],
            is_continuity_corrected: false,
            control_variance_source: ControlVarianceSource::Arms,
        };
        assert!(unpack::<Measured>("block", &pack(&measured)).is_err(), "{names} names");
    }
}
