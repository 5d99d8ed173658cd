//! What makes a block, and what is refused with the place and the number.

use shrinkd_model::{Block, BlockError};

#[test]
fn what_makes_no_block_is_refused_with_its_place_and_its_number() {
    use BlockError::*;
    let shared = |effects: &[f64], d: &[f64], c| Block::shared_control(effects.to_vec(), d.to_vec(), c).unwrap_err();
    let dense = |effects: &[f64], matrix: &[f64]| Block::dense(effects.to_vec(), matrix.to_vec()).unwrap_err();
    let length = |what, found, expected, expected_numbers| Length { what, found, expected, expected_numbers };

    assert_eq!(shared(&[], &[], 1.0), Empty);
    assert_eq!(shared(&[1.0, 2.0], &[1.0], 1.0), length("treatment_variances", 1, 2, 2));
    assert_eq!(shared(&[1.0, 2.0], &[1.0, -3.0], 1.0), NonPositiveVariance { index: 1, value: -3.0 });
    assert_eq!(shared(&[1.0, 2.0], &[1.0, 0.0], 1.0), NonPositiveVariance { index: 1, value: 0.0 });
    assert_eq!(shared(&[1.0], &[1.0], -0.5), NegativeControlVariance(-0.5));
    assert!(matches!(shared(&[1.0, f64::NAN], &[1.0, 1.0], 1.0), NonFinite { what: "estimate", index: 1, .. }));
    assert!(matches!(
        shared(&[1.0], &[f64::INFINITY], 1.0),
        NonFinite { what: "treatment_variances", index: 0, value: f64::INFINITY }
    ));
    assert!(matches!(shared(&[1.0], &[1.0], f64::NAN), NonFinite { what: "control_variance", index: 0, .. }));

    assert_eq!(dense(&[], &[]), Empty);
    assert_eq!(dense(&[1.0, 2.0], &[1.0, 0.0, 1.0]), length("covariance", 3, 2, 4));
    assert_eq!(
        dense(&[1.0, 2.0, 3.0], &[1.0, 0.1, 0.2, 0.1, 2.0, 0.3, 0.2, 0.3, -4.0]),
        NonPositiveVariance { index: 2, value: -4.0 }
    );
    assert_eq!(
        dense(&[1.0, 2.0, 3.0], &[1.0, 0.1, 0.2, 0.1, 2.0, 0.3, 0.2, 0.4, 4.0]),
        NotSymmetric { row: 2, column: 1 }
    );
    assert_eq!(dense(&[1.0, 2.0], &[1.0, 1.5, 1.5, 1.0]), NotPositiveDefinite);
}

#[test]
fn a_control_without_an_error_makes_a_block() {
    let block = Block::shared_control(vec![1.0], vec![2.0], 0.0).expect("nothing is shared");
    assert_eq!((block.effects(), block.len()), (&[1.0][..], 1));
}

#[test]
fn a_covariance_is_made_symmetric_to_the_last_bit_where_it_nearly_is() {
    let (below, above) = (0.5, 0.5 + 1e-10);
    let block = |matrix| Block::dense(vec![1.0, 2.0], matrix).expect("it is symmetric to 1e-9");
    let mean = f64::midpoint(below, above);
    assert_eq!(block(vec![1.0, above, below, 1.0]), block(vec![1.0, mean, mean, 1.0]));
}

#[test]
fn the_components_of_a_dense_covariance_keep_small_variances_beside_large_ones() {
    // Equal correlations of 0.5, and standard errors over sixteen decades: the determinant is known.
    let (n, correlation) = (9, 0.5_f64);
    let se = |i: usize| 10_f64.powi(2 * i as i32 - 8);
    let sigma = |i: usize, j: usize| se(i) * se(j) * if i == j { 1.0 } else { correlation };
    let effects: Vec<f64> = (0..n).map(se).collect();
    let block = Block::dense(effects.clone(), (0..n * n).map(|at| sigma(at / n, at % n)).collect()).expect("a block");
    let components = block.components().expect("components");
    let log_det: f64 = components.iter().map(|component| component.lambda.ln()).sum();
    let known = (0..n).map(|i| 2.0 * se(i).ln()).sum::<f64>()
        + (n - 1) as f64 * (1.0 - correlation).ln()
        + (1.0 + (n - 1) as f64 * correlation).ln();
    assert!((log_det - known).abs() < 1e-12 * n as f64, "{log_det} {known}");
    // delta' Sigma^-1 delta of effects of one standard error each: the sum of the inverse of the correlations.
    let square: f64 = components.iter().map(|component| component.b * component.b / component.lambda).sum();
    let known = n as f64 / (1.0 + (n - 1) as f64 * correlation);
    assert!((square / known - 1.0).abs() < 1e-12, "{square} {known}");
}

#[test]
fn symmetric_is_what_is_so_to_1e_9_of_the_standard_errors_of_both_effects() {
    // Standard errors of 100 and 1/100.
    let block = |upper: f64| Block::dense(vec![1.0, 2.0], vec![1e4, upper, 0.0, 1e-4]);
    assert!(block(0.9e-9).is_ok());
    assert_eq!(block(1.1e-9), Err(BlockError::NotSymmetric { row: 1, column: 0 }));
}
