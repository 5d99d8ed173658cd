//! What is stored in packed columns, byte for byte: a database outlives the build that filled it, so that another layout needs another
//! variant, or another column. Bytes in hexadecimal, spaces between fields.

use std::fmt::Write;

use shrinkd_core::pack;
use shrinkd_model::{Component, Node};

use super::*;

fn assert_bytes(bytes: &[u8], expected: &str) {
    let got = bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    });
    assert_eq!(got, expected.split_whitespace().collect::<String>());
}

/// The statistics of a key that holds this measurement.
fn statistics(measurement: Measurement) -> Vec<u8> {
    let Ok(ReportedResult::Whole { key, measured, properties, findings, .. }) = whole(conversion(), 0.5) else {
        panic!("a result")
    };
    let result = ReportedResult::Whole { key, measurement, measured, properties, findings };
    let mut ledger = ExperimentLedger::default();
    ledger.apply(event(1, [Ok(result)]));
    ledger.statistics(&conversion()).expect("the key holds a result").1
}

#[test]
fn the_bytes_of_statistics_never_change() {
    let arm = |variant: &str, statistics| Arm { variant: variant.to_owned(), statistics };
    let control = arm("c", ArmStatistics::Moments { n: 300, mean: 1.5, m2: -2.0 });
    let summary = arm("s", ArmStatistics::Summary { n: None, mean: 0.25, standard_error: 0.125 });
    let counted = arm("t", ArmStatistics::Summary { n: Some(1), mean: 0.25, standard_error: 0.125 });
    let successes = arm("u", ArmStatistics::Successes { n: u64::MAX, successes: 2 });
    let whole = arms(Some(control.clone()), [summary, counted, successes]);
    assert_bytes(
        &statistics(Measurement::Arms(whole)),
        "00 00 01 01 63 00 ac02 000000000000f83f 00000000000000c0 03 01 73 01 00 000000000000d03f \
         000000000000c03f 01 74 01 01 01 000000000000d03f 000000000000c03f 01 75 02 ffffffffffffffffff01 02",
    );
    let effects = |uncertainty| {
        let variants = ["a", "b"].map(str::to_owned).to_vec();
        statistics(Measurement::Effects(Effects { variants, estimates: vec![1.0, -0.5], uncertainty }))
    };
    let (variances, control_variance) = (vec![2.0, 4.0], 0.5);
    let [shared, scaled, own] = [
        Uncertainty::SharedControl { variances: variances.clone(), control_variance },
        Uncertainty::ScaledVariances { variances: variances.clone(), control_variance },
        Uncertainty::TreatmentVariances { variances, control_variance },
    ];
    assert_bytes(
        &effects(shared),
        "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 00 02 0000000000000040 0000000000001040 \
         000000000000e03f",
    );
    assert_bytes(
        &effects(Uncertainty::Covariance { matrix: vec![2.0, 0.5, 0.5, 4.0] }),
        "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 01 04 0000000000000040 000000000000e03f \
         000000000000e03f 0000000000001040",
    );
    assert_bytes(
        &effects(scaled),
        "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 02 02 0000000000000040 0000000000001040 \
         000000000000e03f",
    );
    assert_bytes(
        &effects(own),
        "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 03 02 0000000000000040 0000000000001040 \
         000000000000e03f",
    );
    for (form, byte) in [(VarianceForm::Delta, "00"), (VarianceForm::Scaled, "01"), (VarianceForm::Treatment, "02")] {
        assert_bytes(
            &effects(Uncertainty::Units { variances: vec![2.0, 4.0], form, units: vec![3, 300], control_units: 7 }),
            &format!(
                "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 04 02 0000000000000040 0000000000001040 {byte} \
                 02 03 ac02 07"
            ),
        );
    }
    let form = VarianceForm::Scaled;
    assert_bytes(
        &effects(Uncertainty::SomeUnits {
            variances: vec![2.0, 4.0],
            form,
            units: vec![None, Some(300)],
            control_units: 7,
        }),
        "00 01 02 01 61 01 62 02 000000000000f03f 000000000000e0bf 05 02 0000000000000040 0000000000001040 01 \
         02 00 01 ac02 07",
    );
    let moments = PairedMoments { n: 300, mean: 1.5, m2: 2.0, second_mean: -0.5, second_m2: 4.0, comoment: 0.5 };
    for (statistics_of, byte) in [(ArmStatistics::Ratio(moments), "03"), (ArmStatistics::Covariate(moments), "04")] {
        assert_bytes(
            &statistics(Measurement::Arms(arms(Some(arm("c", statistics_of)), []))),
            &format!(
                "00 00 01 01 63 {byte} ac02 000000000000f83f 0000000000000040 000000000000e0bf 0000000000001040 \
                 000000000000e03f 00"
            ),
        );
    }

    let mut ledger = ExperimentLedger::default();
    let treatment = arm("t", ArmStatistics::Moments { n: 2, mean: 1.0, m2: 0.5 });
    ledger.apply(part(1, "first", conversion(), arms(Some(control), [])));
    ledger.apply(part(1, "second", conversion(), arms(None, [treatment])));
    assert_bytes(
        &ledger.statistics(&conversion()).expect("a sum").1,
        "01 02 05 6669727374 01 01 63 00 ac02 000000000000f83f 00000000000000c0 00 06 7365636f6e64 00 01 01 \
         74 00 02 000000000000f03f 000000000000e03f",
    );
}

#[test]
fn the_bytes_of_retractions_never_change() {
    let mut ledger = ExperimentLedger::default();
    ledger.apply(event(300, [retraction("m", None, None)]));
    ledger.apply(event(2, [retraction("n", Some("all"), None), retraction("o", Some("all"), Some(Scale::LogRatio))]));
    ledger.apply(event(3, [retraction("p", Some("all"), Some(Scale::LogOdds))]));
    assert_bytes(
        &ledger.retractions().expect("retractions"),
        "04 01 6d 00 00 ac02 01 6e 01 03 616c6c 00 02 01 6f 01 03 616c6c 01 02 02 01 70 01 03 616c6c 01 03 03",
    );
}

#[test]
fn the_bytes_of_blocks_components_and_nodes_never_change() {
    let names = ["a", "b"].map(str::to_owned).to_vec();
    let shared = Block::shared_control(vec![1.0, -0.5], vec![2.0, 4.0], 0.5).expect("a block");
    let dense = Block::dense(vec![1.0, -0.5], vec![2.0, 0.5, 0.5, 4.0]).expect("a block");
    let measured = |block, is_continuity_corrected, control_variance_source| {
        let (variants, raw_variances) = (names.clone(), vec![2.0, 4.0]);
        pack(&Measured { variants, block, raw_variances, is_continuity_corrected, control_variance_source })
    };
    assert_bytes(
        &measured(shared, false, ControlVarianceSource::Arms),
        "02 01 61 01 62 02 000000000000f03f 000000000000e0bf 00 02 0000000000000040 0000000000001040 \
         000000000000e03f 02 0000000000000040 0000000000001040 00 00",
    );
    assert_bytes(
        &measured(dense, true, ControlVarianceSource::None),
        "02 01 61 01 62 02 000000000000f03f 000000000000e0bf 01 04 0000000000000040 000000000000e03f \
         000000000000e03f 0000000000001040 02 0000000000000040 0000000000001040 01 03",
    );
    assert_bytes(
        &pack(&[Component { lambda: 1.0, a: -0.5, b: 2.0 }][..]),
        "01 000000000000f03f 000000000000e0bf 0000000000000040",
    );
    let nodes = [
        Node { weight: 1.0, tau: 0.0, icc: 0.0, mu_mean: -0.5, mu_variance: 2.0 },
        Node { weight: 1.0 / 3.0, tau: 1e-300, icc: 0.0, mu_mean: -0.0, mu_variance: f64::MAX },
    ];
    assert_bytes(
        &pack(&nodes[..]),
        "02 000000000000f03f 0000000000000000 000000000000e0bf 0000000000000040 555555555555d53f \
         59f3f8c21f6ea501 0000000000000080 ffffffffffffef7f",
    );
}
