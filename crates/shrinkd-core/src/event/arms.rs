//! The arms of a result, and how they are read: successes are kept as counts, what else is sent with a count as n, mean and
//! M2.

use serde::{Deserialize, Serialize};

use super::leaf::Number;
use super::lenient::Lenient;
use super::refusal::{Path, Reason, Refusal, Refusals, drop_faulty, quote};
use super::sums::{PairedMoments, moments_of_sums};
use super::wire::{self, AtMost, MAX_VARIANTS};

/// Control and treatments of one result; a part may lack either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    pub control: Option<Arm>,
    /// Sorted by variant.
    pub treatments: Vec<Arm>,
}

/// One arm's statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub variant: String,
    pub statistics: ArmStatistics,
}

/// What an arm reports of its units, in the metric's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ArmStatistics {
    /// `n` units with mean and `m2 = (n - 1) variance`: means with variances, and sums, are turned into this.
    Moments { n: u64, mean: f64, m2: f64 },
    /// A mean and its standard error; the count is only informative.
    Summary { n: Option<u64>, mean: f64, standard_error: f64 },
    /// `successes` of `n` units, at most as many. Version 0.1 kept them as `Moments`.
    Successes { n: u64, successes: u64 },
    /// A ratio metric: the value is the numerator's mean over the denominator's.
    Ratio(PairedMoments),
    /// A metric with a covariate, which the value is adjusted for (CUPED) together with the other arms.
    Covariate(PairedMoments),
}

/// What all arms of a result have in common, because they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mean,
    Ratio,
    Adjusted,
}

impl Arms {
    /// Arms in the order in which they are kept.
    pub(super) fn sorted(control: Option<Arm>, mut treatments: Vec<Arm>) -> Arms {
        treatments.sort_by(|a, b| a.variant.cmp(&b.variant));
        Arms { control, treatments }
    }

    /// Makes successes of all arms where one is of successes and none holds anything but ones and zeros: the sums of an arm
    /// without events do not say that its units count 1 or 0, but the other arms do.
    fn count_constants(&mut self) {
        let mut all = self.control.iter().chain(&self.treatments).map(|arm| arm.statistics);
        let is_any = all.clone().any(|statistics| matches!(statistics, ArmStatistics::Successes { .. }));
        if !is_any || !all.all(|statistics| statistics.successes().is_some()) {
            return;
        }
        for Arm { statistics, .. } in self.control.iter_mut().chain(&mut self.treatments) {
            if let (Some(n), Some(successes)) = (statistics.n(), statistics.successes()) {
                *statistics = ArmStatistics::Successes { n, successes };
            }
        }
    }

    /// # Errors
    /// `duplicate_variant` where two arms have one name.
    pub(super) fn check_names(&self) -> Result<(), Refusal> {
        let names = self.treatments.iter().map(|arm| arm.variant.as_str());
        let twin = |control: &Arm| names.clone().find(|name| *name == control.variant);
        let detail = if let Some(name) = duplicate(names.clone()) {
            format!("names variant {} twice, keep one", quote(name))
        } else if let Some(name) = self.control.as_ref().and_then(twin) {
            format!("names variant {} like the control, rename one", quote(name))
        } else {
            return Ok(());
        };
        Err(Refusal::new(Reason::DuplicateVariant, detail))
    }

    /// The sentence that says so where arms that cannot be compared are in one result.
    pub(super) fn check_kinds(&self) -> Result<(), String> {
        let mut kinds = self.control.iter().chain(&self.treatments).map(|arm| arm.statistics.kind());
        let first = kinds.next();
        if kinds.all(|kind| Some(kind) == first) {
            return Ok(());
        }
        Err("must have denominator_sum in all arms or in none, and likewise covariate_sum".to_owned())
    }
}

impl ArmStatistics {
    /// The number of units, where it is known.
    pub fn n(&self) -> Option<u64> {
        match self {
            ArmStatistics::Moments { n, .. } | ArmStatistics::Successes { n, .. } => Some(*n),
            ArmStatistics::Ratio(moments) | ArmStatistics::Covariate(moments) => Some(moments.n),
            ArmStatistics::Summary { n, .. } => *n,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            ArmStatistics::Ratio(_) => Kind::Ratio,
            ArmStatistics::Covariate(_) => Kind::Adjusted,
            ArmStatistics::Moments { .. } | ArmStatistics::Summary { .. } | ArmStatistics::Successes { .. } => {
                Kind::Mean
            }
        }
    }

    /// How many units are 1, where all that are not are known to be 0.
    pub(super) fn successes(&self) -> Option<u64> {
        match *self {
            ArmStatistics::Successes { successes, .. } => Some(successes),
            ArmStatistics::Moments { mean: 0.0, m2: 0.0, .. } => Some(0),
            ArmStatistics::Moments { n, mean: 1.0, m2: 0.0 } => Some(n),
            ArmStatistics::Moments { .. }
            | ArmStatistics::Summary { .. }
            | ArmStatistics::Ratio(_)
            | ArmStatistics::Covariate(_) => None,
        }
    }

    /// The successes that version 0.1 kept as these moments, bit for bit; what was sent otherwise stays as it is.
    pub(crate) fn as_successes(self) -> ArmStatistics {
        let ArmStatistics::Moments { n, mean, m2 } = self else { return self };
        // A float saturates where it is cast. A constant may be of any metric.
        let successes = (mean * n as f64).round() as u64;
        let is_counted = (1..n).contains(&successes) && were_moments(n, successes, mean, m2);
        if is_counted { ArmStatistics::Successes { n, successes } } else { self }
    }

    /// The arm's mean and its sampling variance `s^2`: sample variance over n, or the standard error squared. Where no unit
    /// or every one succeeded, the variance is that of the rate `(s + 1/2) / (n + 1)`. That of a ratio `R = a / b` of means is the
    /// delta method's, the variance of the mean of `(y - R x) / b` (Deng, Knoblich & Lu, "Applying the delta method in metric
    /// analytics", KDD 2018). A covariate is left out of account.
    pub(super) fn mean_and_variance(&self) -> (f64, f64) {
        let of_moments = |n: u64, (mean, m2): (f64, f64)| (mean, m2 / n.saturating_sub(1) as f64 / n as f64);
        match *self {
            ArmStatistics::Moments { n, mean, m2 } => of_moments(n, (mean, m2)),
            ArmStatistics::Summary { mean, standard_error, .. } => (mean, standard_error * standard_error),
            ArmStatistics::Successes { n, successes } if successes == 0 || successes == n => {
                let rate = (successes as f64 + 0.5) / (n as f64 + 1.0);
                (moments(n, successes).0, rate * (1.0 - rate) / n as f64)
            }
            ArmStatistics::Successes { n, successes } => of_moments(n, moments(n, successes)),
            ArmStatistics::Ratio(moments) => {
                let ratio = moments.mean / moments.second_mean;
                let m2 = moments.residual_m2(ratio) / moments.second_mean / moments.second_mean;
                of_moments(moments.n, (ratio, m2))
            }
            ArmStatistics::Covariate(PairedMoments { n, mean, m2, .. }) => of_moments(n, (mean, m2)),
        }
    }

    /// Whether the error of the mean is known.
    pub(super) fn has_spread(&self) -> bool {
        match *self {
            ArmStatistics::Moments { m2, .. } => m2 > 0.0,
            ArmStatistics::Summary { standard_error, .. } => standard_error > 0.0,
            ArmStatistics::Successes { .. } => true,
            ArmStatistics::Covariate(moments) => moments.m2 > 0.0,
            // Without a denominator there is no ratio, which is judged elsewhere.
            ArmStatistics::Ratio(moments) => {
                moments.second_mean == 0.0 || moments.residual_m2(moments.mean / moments.second_mean) > 0.0
            }
        }
    }
}

/// The arms that can be used, and why each other treatment cannot.
pub(super) fn read_arms<'a>(
    control: Option<Lenient<Box<wire::Arm<'a>>>>,
    treatments: Option<Lenient<AtMost<Lenient<Box<wire::Arm<'a>>>, MAX_VARIANTS>>>,
    at: Path<'_>,
    refusals: &mut Refusals,
) -> (Arms, Vec<Refusal>) {
    let at_control = at.field("control");
    // An arm with a mean says its variance itself.
    let (mut has_means, mut is_control_faulty) = (false, false);
    let control = control.and_then(|sent| refusals.accept(at_control, sent.shape())).map(|arm| {
        has_means |= arm.mean.is_some();
        let (arm, fault) = read_arm(&arm, at_control, refusals);
        is_control_faulty = fault.is_some();
        fault.into_iter().for_each(|fault| refusals.join(fault));
        arm
    });
    let at_treatments = at.field("treatments");
    let sent = treatments
        .and_then(|sent| refusals.accept(at_treatments, sent.shape()))
        .map(|variants| variants.0)
        .unwrap_or_default();
    check_count(sent.len(), at_treatments, refusals);
    let mut treatments = Vec::with_capacity(sent.len());
    let mut faults = Vec::new();
    for (index, arm) in sent.into_iter().enumerate() {
        let at = at_treatments.item(index);
        if let Some(arm) = refusals.accept(at, arm.shape()) {
            has_means |= arm.mean.is_some();
            let (arm, fault) = read_arm(&arm, at, refusals);
            treatments.push(arm);
            faults.extend(fault);
        }
    }
    let mut arms = Arms::sorted(control, treatments);
    if let Err(refusal) = arms.check_names() {
        refusals.note(at_treatments, refusal);
    }
    let faults = drop_faulty(&mut arms.treatments, |arm| &arm.variant, faults, refusals);
    // Sums that contradict each other are of no kind, and say so themselves.
    if !is_control_faulty && let Err(detail) = arms.check_kinds() {
        refusals.note(at, Refusal::violation(detail));
    }
    if !has_means {
        arms.count_constants();
    }
    (arms, faults)
}

/// Notes `too_many_variants` where a result has more than [`MAX_VARIANTS`].
pub(super) fn check_count(variants: usize, at: Path<'_>, refusals: &mut Refusals) {
    if variants > MAX_VARIANTS {
        let detail = format!("has more than {MAX_VARIANTS} variants, split the result by segment or experiment");
        refusals.note(at, Refusal::new(Reason::TooManyVariants, detail));
    }
}

/// The name that appears twice among sorted names, if any.
pub(super) fn duplicate<'a>(sorted: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    sorted.clone().zip(sorted.skip(1)).find(|(name, next)| name == next).map(|(name, _)| name)
}

/// An arm, and what is wrong with its numbers. What else is wrong with it is noted.
fn read_arm(arm: &wire::Arm<'_>, at: Path<'_>, refusals: &mut Refusals) -> (Arm, Option<Refusal>) {
    let noted = refusals.reason();
    refusals.note_repeated_key(at, arm.repeated());
    let variant = refusals.required(at.field("variant"), arm.variant.as_ref()).unwrap_or_default().into_owned();
    let mut numbers = Refusals::default();
    let statistics = read_statistics(arm, at, refusals, &mut numbers);
    refusals.name_variant(noted, &variant);
    numbers.name_variant(None, &variant);
    (Arm { variant, statistics }, numbers.into_result().err())
}

/// Notes mixed forms among the `refusals`, and what is wrong with the numbers of the form among the `numbers`.
fn read_statistics(
    arm: &wire::Arm<'_>,
    at: Path<'_>,
    refusals: &mut Refusals,
    numbers: &mut Refusals,
) -> ArmStatistics {
    let is_ratio = arm.denominator_sum.is_some()
        || arm.denominator_sum_squares.is_some()
        || arm.numerator_denominator_sum_product.is_some();
    let has_covariate =
        arm.covariate_sum.is_some() || arm.covariate_sum_squares.is_some() || arm.main_covariate_sum_product.is_some();
    let has_sums = arm.sum.is_some() || arm.sum_squares.is_some() || is_ratio || has_covariate;
    let spreads = [arm.variance.is_some(), arm.standard_deviation.is_some(), arm.standard_error.is_some()];
    let has_mean = arm.mean.is_some() || spreads.contains(&true);
    let forms = [arm.successes.is_some(), has_sums, has_mean].into_iter().filter(|&given| given).count();
    if forms != 1 || spreads.into_iter().filter(|&given| given).count() > 1 {
        let detail = "must be in one form: n with mean and variance or standard_deviation, with sum and sum_squares or with \
                      successes, or mean with standard_error";
        // Where all numbers are null, as exports have an arm without units, no form is mixed with another.
        let noted = if forms == 0 { &mut *numbers } else { &mut *refusals };
        noted.note(at, Refusal::violation(detail));
    }
    if is_ratio && has_covariate {
        let detail = "must have the sums of a denominator or those of a covariate: send an adjusted ratio as effects";
        refusals.note(at, Refusal::violation(detail));
    }
    if arm.standard_error.is_some() {
        let mean = numbers.required(at.field("mean"), arm.mean.as_ref()).unwrap_or_default();
        let standard_error =
            numbers.optional(at.field("standard_error"), arm.standard_error.as_ref()).unwrap_or_default();
        let n = numbers.optional(at.field("n"), arm.n.as_ref());
        return ArmStatistics::Summary { n, mean, standard_error };
    }
    let n = numbers.required(at.field("n"), arm.n.as_ref()).unwrap_or_default();
    let statistics = if arm.successes.is_some() {
        let successes = numbers.optional(at.field("successes"), arm.successes.as_ref()).unwrap_or_default();
        from_successes(n, successes)
    } else if is_ratio {
        let second = Second {
            sum: ("denominator_sum", &arm.denominator_sum),
            sum_squares: ("denominator_sum_squares", &arm.denominator_sum_squares),
            product: ("numerator_denominator_sum_product", &arm.numerator_denominator_sum_product),
        };
        read_paired(arm, &second, n, at, numbers).map(ArmStatistics::Ratio)
    } else if has_covariate {
        let second = Second {
            sum: ("covariate_sum", &arm.covariate_sum),
            sum_squares: ("covariate_sum_squares", &arm.covariate_sum_squares),
            product: ("main_covariate_sum_product", &arm.main_covariate_sum_product),
        };
        read_paired(arm, &second, n, at, numbers).map(ArmStatistics::Covariate)
    } else if has_sums {
        let sum = numbers.required(at.field("sum"), arm.sum.as_ref()).unwrap_or_default();
        let sum_squares = numbers.required(at.field("sum_squares"), arm.sum_squares.as_ref()).unwrap_or_default();
        from_sums(n, sum, sum_squares)
    } else {
        let mean = numbers.required(at.field("mean"), arm.mean.as_ref()).unwrap_or_default();
        let variance = read_variance(arm, at, numbers);
        Ok(ArmStatistics::Moments { n, mean, m2: n.saturating_sub(1) as f64 * variance })
    };
    statistics.unwrap_or_else(|detail| {
        numbers.note(at, Refusal::new(Reason::InconsistentSums, detail));
        ArmStatistics::Moments { n, mean: 0.0, m2: 0.0 }
    })
}

/// The variance per unit of an arm with a mean.
fn read_variance(arm: &wire::Arm<'_>, at: Path<'_>, numbers: &mut Refusals) -> f64 {
    if let Some(sent) = &arm.standard_deviation {
        let deviation = numbers.optional(at.field("standard_deviation"), Some(sent)).unwrap_or_default();
        // One below 0 gives a variance below 0, which is refused as such.
        return deviation * deviation.abs();
    }
    if arm.variance.is_none() {
        let detail = "is required and is missing or null: beside mean send variance (per unit) or standard_deviation with n, or \
                      standard_error";
        numbers.note(at.field("variance"), Refusal::violation(detail));
    }
    numbers.optional(at.field("variance"), arm.variance.as_ref()).unwrap_or_default()
}

/// Where the sums of the second value of each unit stand, and that of its products with the first.
struct Second<'r, 'a> {
    sum: (&'static str, &'r Option<Number<'a>>),
    sum_squares: (&'static str, &'r Option<Number<'a>>),
    product: (&'static str, &'r Option<Number<'a>>),
}

fn read_paired(
    arm: &wire::Arm<'_>,
    second: &Second<'_, '_>,
    n: u64,
    at: Path<'_>,
    numbers: &mut Refusals,
) -> Result<PairedMoments, String> {
    let all = [("sum", &arm.sum), ("sum_squares", &arm.sum_squares), second.sum, second.sum_squares, second.product];
    let [sum, sum_squares, second_sum, second_sum_squares, product] = all.map(|(name, sent)| {
        if sent.is_none() {
            let detail = format!(
                "is required and is missing or null: send n, sum, sum_squares, {}, {} and {}",
                second.sum.0, second.sum_squares.0, second.product.0
            );
            numbers.note(at.field(name), Refusal::violation(detail));
        }
        numbers.optional(at.field(name), sent.as_ref()).unwrap_or_default()
    });
    PairedMoments::of_sums(n, (sum, sum_squares), (second_sum, second_sum_squares), product)
}

fn from_successes(n: u64, successes: u64) -> Result<ArmStatistics, String> {
    if successes > n {
        return Err(format!("successes is {successes}, more than n = {n}"));
    }
    Ok(ArmStatistics::Successes { n, successes })
}

/// Mean and M2 of `x` ones and `n - x` zeros: `x / n` and `x (n - x) / n`.
pub(super) fn moments(n: u64, successes: u64) -> (f64, f64) {
    let mean = if n == 0 { 0.0 } else { successes as f64 / n as f64 };
    (mean, mean * n.saturating_sub(successes) as f64)
}

/// Whether version 0.1 kept so many successes as these moments: sent as such, or as sums.
pub(super) fn were_moments(n: u64, successes: u64, mean: f64, m2: f64) -> bool {
    let sum = successes as f64;
    (mean, m2) == moments(n, successes) || moments_of_sums(n, sum, sum).is_ok_and(|moments| moments == (mean, m2))
}

/// Whole units of which all have their own square are ones and zeros: successes.
fn from_sums(n: u64, sum: f64, sum_squares: f64) -> Result<ArmStatistics, String> {
    let (mean, m2) = moments_of_sums(n, sum, sum_squares)?;
    let is_count = sum == sum_squares && sum.fract() == 0.0 && sum > 0.0 && sum < n as f64;
    Ok(if is_count {
        ArmStatistics::Successes { n, successes: sum as u64 }
    } else {
        ArmStatistics::Moments { n, mean, m2 }
    })
}
