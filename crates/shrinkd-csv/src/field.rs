//! The fields that a column can hold, and how people and platforms spell them.

macro_rules! fields {
    ($($name:ident = $field:literal $spellings:tt,)*) => {
        /// What a column holds. The names are those of the event contract, but for `is_control` and `control_n`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = concat!("`", $field, "`")] $name,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &[Field] = &[$(Field::$name,)*];

            /// The name by which `--map` and messages call it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Field::$name => $field,)*
                }
            }

            /// Its name as that of a member of a JSON object, between the comma before and the colon behind.
            pub(crate) fn member(self) -> &'static [u8] {
                match self {
                    $(Field::$name => concat!(",\"", $field, "\":").as_bytes(),)*
                }
            }

            /// Other spellings, reduced by [`reduced`], the likeliest first.
            fn spellings(self) -> &'static [&'static str] {
                match self {
                    $(Field::$name => &$spellings,)*
                }
            }
        }
    };
}

fields! {
    ExperimentId = "experiment_id" [
        "experiment", "experimentkey", "experimentname", "expid", "expname", "exp", "testid", "testname", "test", "abtest", "study",
        "trialindex", "trial", "campaign", "name"
    ],
    Revision = "revision" ["rev"],
    CompletedAt = "completed_at" [
        "completed", "completedon", "endedat", "ended", "endat", "enddate", "endtime", "endts", "dateend", "experimentendts", "finishedat",
        "finished", "stoppedat", "date", "ds"
    ],
    StartedAt = "started_at" [
        "started", "startedon", "startat", "startdate", "starttime", "startts", "datestart", "experimentstartts", "start"
    ],
    Decision = "decision" ["outcome", "verdict"],
    ShippedVariant = "shipped_variant" ["shipped", "winner"],
    Metric = "metric" ["metricname", "metrickey", "metricid", "kpi", "measure", "goal"],
    Segment = "segment" ["dimensionvalue", "metricdimension", "dimension", "slice"],
    Scale = "scale" ["lifttype", "differencetype", "effecttype"],
    Direction = "direction" ["desiredchange", "desireddirection"],
    Coverage = "coverage" [],
    ControlVariance = "control_variance" ["controlvar"],
    ControlN = "control_n" ["ncontrol", "controlusers", "controlunits", "controlvisitors", "controlsamplesize"],
    Variant = "variant" [
        "variantkey", "variantname", "variantid", "variation", "variationkey", "variationname", "variationid", "variationindex", "arm",
        "armname", "experimentgroup", "groupname", "group", "treatment", "treatmentname", "branch", "cell", "bucket"
    ],
    IsControl = "is_control" ["iscontrolgroup", "isbaseline", "control", "baseline"],
    N = "n" [
        "users", "visitors", "units", "samplesize", "nusers", "numusers", "usercount", "totalusers", "assignmentcount", "numberofsamples",
        "numberofusers", "numberofvisitors", "participants", "subjects", "sessions", "exposures", "impressions", "observations", "nobs", "samples", "size", "count", "total"
    ],
    Successes = "successes" [
        "conversions", "converted", "converters", "success", "conversioncount", "numconversions", "convertedusers", "nconverted", "numberofconversions", "clicks",
        "signups"
    ],
    Mean = "mean" ["avg", "average", "metricmean", "samplemean", "meanvalue", "variantmetricvalue", "metricvalue", "value"],
    StandardDeviation = "standard_deviation" ["sd", "std", "stddev", "stdev", "standarddev", "samplesd", "samplestd"],
    Variance = "variance" ["var", "samplevariance", "vi"],
    StandardError = "standard_error" ["se", "stderr", "stderror", "sem", "standarderr", "standarderrorofthemean", "standarderrorofmean", "sei"],
    Sum = "sum" ["metricsum", "totalvalue", "sumvalue"],
    SumSquares = "sum_squares" ["sumofsquares", "sumsquared", "sumsq", "sumsquare"],
    DenominatorSum = "denominator_sum" [],
    DenominatorSumSquares = "denominator_sum_squares" [],
    NumeratorDenominatorSumProduct = "numerator_denominator_sum_product" [],
    CovariateSum = "covariate_sum" [],
    CovariateSumSquares = "covariate_sum_squares" [],
    MainCovariateSumProduct = "main_covariate_sum_product" [],
    Estimate = "estimate" [
        "effect", "effectsize", "pointestimate", "treatmenteffect", "lift", "uplift", "difference", "diff", "delta", "absolutedelta", "absdelta",
        "ate", "yi"
    ],
    CiLow = "ci_low" [
        "cilower", "lowerci", "ci95low", "ci95lower", "95cilow", "95cilower", "cilow95", "lower95", "lowerci95", "confidenceintervallower", "lowerbound", "lower", "conflow", "lowerconfidencelimit", "lcl"
    ],
    CiHigh = "ci_high" [
        "ciupper", "upperci", "ci95high", "ci95upper", "95cihigh", "95ciupper", "cihigh95", "upper95", "upperci95", "confidenceintervalupper", "upperbound", "upper", "confhigh", "upperconfidencelimit", "ucl"],
    CiLevel = "ci_level" ["confidencelevel", "level", "confidence"],
}

impl Field {
    /// How well a header fits: 0 for the field's own name, then its other spellings in their order. `None` where it does not.
    pub(crate) fn rank(self, header: &str) -> Option<usize> {
        let header = reduced(header);
        if header == reduced(self.as_str()) {
            return Some(0);
        }
        self.spellings().iter().position(|spelling| *spelling == header).map(|position| position + 1)
    }

    /// In how many letters a header differs from the field's own name, where so few that it was probably meant: one, in a long name
    /// two. A short name has ordinary words next to it, as `sum` has `num`, and `scale` has `sale`.
    pub(crate) fn misspelt_by(self, header: &str) -> Option<usize> {
        let name = reduced(self.as_str());
        let most = match name.len() {
            0..=5 => 0,
            6..=11 => 1,
            _ => 2,
        };
        Some(strsim::osa_distance(&reduced(header), &name)).filter(|distance| (1..=most).contains(distance))
    }

    /// The field of a name that `--map` gives.
    pub fn named(name: &str) -> Option<Field> {
        Field::ALL.iter().copied().find(|field| reduced(field.as_str()) == reduced(name))
    }

    /// Whether its cells are numbers.
    pub(crate) fn is_number(self) -> bool {
        use Field::{ControlN, ControlVariance, Coverage, Revision};
        self >= Field::N || matches!(self, Coverage | ControlN | ControlVariance | Revision)
    }

    /// Whether these are whole numbers.
    pub(crate) fn is_count(self) -> bool {
        matches!(self, Field::N | Field::Successes | Field::ControlN | Field::Revision)
    }

    /// Whether these are sums of squares or of products, or variances: in percent they would be ten-thousandths.
    pub(crate) fn is_square(self) -> bool {
        matches!(
            self,
            Field::Variance
                | Field::ControlVariance
                | Field::SumSquares
                | Field::DenominatorSumSquares
                | Field::NumeratorDenominatorSumProduct
                | Field::CovariateSumSquares
                | Field::MainCovariateSumProduct
        )
    }

    /// Whether these are in the unit of the metric, or in its square.
    pub(crate) fn is_in_units(self) -> bool {
        use Field::{
            CiHigh, CiLow, ControlVariance, Estimate, Mean, StandardDeviation, StandardError, Sum, SumSquares, Variance,
        };
        matches!(
            self,
            Mean | StandardDeviation
                | Variance
                | StandardError
                | Sum
                | SumSquares
                | Estimate
                | CiLow
                | CiHigh
                | ControlVariance
        )
    }

    /// Whether its cells are dates or times.
    pub(crate) fn is_timestamp(self) -> bool {
        matches!(self, Field::CompletedAt | Field::StartedAt)
    }
}

/// A name without what people write differently: letters and digits alone, in lower case.
pub(crate) fn reduced(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_spelling_is_reduced_and_belongs_to_one_field() {
        let mut seen = BTreeSet::new();
        for field in Field::ALL {
            assert_eq!(Field::named(field.as_str()), Some(*field));
            for spelling in
                field.spellings().iter().map(|spelling| (*spelling).to_owned()).chain([reduced(field.as_str())])
            {
                assert_eq!(reduced(&spelling), spelling);
                assert!(seen.insert(spelling.clone()), "{spelling} is spelt twice");
            }
        }
    }
}
