//! What holds of a table of any bytes. Compiled into `fuzz/` by its path.

use shrinkd_core::{MAX_MESSAGE_BYTES, Reason, decode};
use shrinkd_csv::Table;
use time::OffsetDateTime;

/// Headers by which rows of any bytes get past the first step; the first byte of the input chooses one, or none.
pub const HEADERS: [&str; 7] = [
    "experiment,metric,variant,is_control,users,conversions,end_date\n",
    "experiment;variant;users;mean;stddev;revision\n",
    "experiment\tvariant\tmean\tse\n",
    "experiment,segment,scale,variant,estimate,ci_low,ci_high,ci_level,n,control_n\n",
    "study,yi,vi,control_variance\n",
    "exp,arm,n,sum,sum_squares,denominator_sum,denominator_sum_squares,numerator_denominator_sum_product,start_date,end_date\n",
    "exp|segment|direction|coverage|arm|is_control|mean (%)|sem (%)|outcome|winner|start_date|end_date\n",
];

/// A table is refused as a whole, or each of its events is JSON that the decoder reads, and the same each time.
///
/// # Panics
/// If that does not hold.
pub fn holds(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let header = HEADERS.get(usize::from(*choice)).copied().unwrap_or_default();
    let text = [header.as_bytes(), rest].concat();
    let read = || {
        let mut refused = Vec::new();
        let table = Table::new(text.as_slice(), &[], OffsetDateTime::UNIX_EPOCH)?;
        let experiments = table.read(|row, refusal| refused.push((row, refusal)))?;
        let rows = experiments.rows();
        Ok::<_, shrinkd_csv::TableError>((rows, refused, experiments.collect::<Vec<_>>()))
    };
    let (rows, refused, events) = match read() {
        Ok(read) => read,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(refused.len() as u64 <= rows, "{} of {rows} rows are refused", refused.len());
    for (_, event) in &events {
        match event {
            Ok(event) => {
                assert!(event.len() <= MAX_MESSAGE_BYTES);
                if let Err(refusal) = decode(event) {
                    assert_ne!(refusal.reason, Reason::MalformedJson, "{refusal}: {}", String::from_utf8_lossy(event));
                }
            }
            Err(refusal) => assert!(!refusal.detail.is_empty()),
        }
    }
    let again = read().expect("it was read before");
    assert_eq!((rows, refused, events), again);
}
