//! The wire format, field by field. The published schema is generated from these types.
//!
//! Every field is optional here. Which ones are required is declared for the schema and checked by the reader, which can
//! report the path.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::leaf::{
    Count, Decision, DirectionName, Flag, Identifier, KindName, Level, Number, Revision, ScaleName, Share, Status,
    Timestamp, VarianceForm, Version,
};
use super::lenient::{Key, Lenient, Shape};
use super::refusal::Path;
use super::schema_rules;
use super::unknown::{Part, UnknownFields};

/// Treatments or effects that one result may have.
pub(super) const MAX_VARIANTS: usize = 1_000;

/// Results that one message may have: each that is refused is a row, and a message has room for half a million.
pub const MAX_RESULTS: usize = 1_000;

/// The keys of an object that should not be there. Hardly any object has one, so that they are kept apart from its fields.
#[derive(Default)]
struct OddKeys<'a> {
    unknown: BTreeSet<Cow<'a, str>>,
    /// The first that appears twice.
    repeated: Option<Cow<'a, str>>,
}

/// A wire struct, every field optional. Unknown keys are remembered, and so is a repeated one.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        #[derive(Default, JsonSchema)]
        $(#[$meta])*
        pub(super) struct $name<'a> {
            $($(#[$field_meta])* pub(super) $field: Option<$kind>,)*
            #[schemars(skip)]
            odd: Option<Box<OddKeys<'a>>>,
        }

        impl $name<'_> {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// The first key that appears twice.
            pub(super) fn repeated(&self) -> Option<&str> {
                self.odd.as_ref()?.repeated.as_deref()
            }
        }

        impl Part for $name<'_> {
            fn note_unknown(&self, at: Path<'_>, found: &mut UnknownFields) {
                if let Some(odd) = &self.odd {
                    found.note(at, odd.unknown.iter().map(|key| &**key));
                }
                $(self.$field.note_unknown(at.field(stringify!($field)), found);)*
            }
        }

        impl<'a> Shape<'a> for $name<'a> {
            const EXPECTED: &'static str = "an object";

            fn from_map<A: MapAccess<'a>>(mut map: A) -> Result<Lenient<Self>, A::Error> {
                #[derive(Default)]
                struct Seen {
                    $($field: bool,)*
                }
                let (mut object, mut seen) = (Self::default(), Seen::default());
                while let Some(Key(key)) = map.next_key()? {
                    let is_new = match &*key {
                        $(stringify!($field) => {
                            object.$field = map.next_value()?;
                            !std::mem::replace(&mut seen.$field, true)
                        })*
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            object.odd.get_or_insert_default().unknown.insert(key.clone())
                        }
                    };
                    if !is_new {
                        object.odd.get_or_insert_default().repeated.get_or_insert(key);
                    }
                }
                Ok(Lenient::Right(object))
            }
        }
    };
}

object! {
    /// One completed experiment at one revision, or, with `"retracted": true`, its withdrawal as a whole. A message
    /// is at most 1 MiB; its Kafka key is the experiment_id. Fields that are not named here are ignored. null means
    /// absent. A key must not appear twice in an object.
    #[schemars(transform = schema_rules::event)]
    Event {
        /// Version of this contract: 1, or 2, which is 1 with `kind`.
        #[schemars(required)]
        schema_version: Version<'a>,
        /// Names the experiment: 1 to 512 bytes of UTF-8 without control characters, like every identifier here.
        #[schemars(required)]
        experiment_id: Identifier<'a>,
        /// Orders the versions of an experiment: a result of a larger revision replaces that of a smaller one.
        revision: Revision<'a>,
        /// When the experiment was completed, RFC 3339 with an offset; a space for the T and an offset without its colon or minutes
        /// are taken too.
        completed_at: Timestamp<'a>,
        /// `experiment`, or `holdout` for users who are kept from many changes at once: stored, and in no population; `experiment`
        /// where absent. Needs schema_version 2, so that a worker that does not know holdouts refuses them.
        kind: KindName<'a>,
        /// When the experiment was started, likewise; not after completed_at.
        started_at: Timestamp<'a>,
        /// The variant that all users have got since; the control where nothing was shipped.
        shipped_variant: Identifier<'a>,
        /// Names this message; required where a result accumulates.
        event_id: Identifier<'a>,
        /// Any labels; populations may be formed over them.
        labels: Lenient<Labels<'a>>,
        /// What the platform decided. Any value is taken; the share of those that mean shipped (`shipped`, unless configured
        /// otherwise) is reported, because estimates are off where only winners are sent.
        decision: Decision<'a>,
        /// One entry for each metric, segment and scale, at most 1,000. An invalid entry is refused alone.
        #[schemars(with = "Option<AtMost<Reported, MAX_RESULTS>>")]
        results: Lenient<AtMost<&'a RawValue, MAX_RESULTS>>,
        /// true withdraws every result of the experiment and forgets its revisions.
        retracted: Flag<'a>,
    }
}

object! {
    /// What was measured of one metric in one segment: `control` and `treatments`, or `effects`. Or, with
    /// `"status": "retracted"`, the withdrawal of what was sent before; what else such an entry holds is ignored.
    #[schemars(rename = "Result", transform = schema_rules::result)]
    Reported {
        /// Names the metric.
        #[schemars(required)]
        metric: Identifier<'a>,
        /// Names the segment of users; `all` where absent. A retraction without it covers all segments.
        segment: Identifier<'a>,
        /// How an effect compares treatment i with control c: `absolute` m_i - m_c, `relative` (m_i - m_c) / |m_c|,
        /// `log_ratio` ln(m_i / m_c), `log_odds` the difference of ln(m / (1 - m)) of two rates; `absolute` where absent. A
        /// retraction without it covers all scales.
        scale: ScaleName<'a>,
        /// Which way of the effects is better: `increase`, or `decrease` for latencies and errors; where absent, what is configured
        /// for the population, else `increase`. No estimate depends on it, only what says better or best.
        direction: DirectionName<'a>,
        /// The share of the whole traffic that the effects apply to, above 0 and at most 1; 1 where absent.
        coverage: Share<'a>,
        /// `reported`, or `retracted` to withdraw; `reported` where absent.
        status: Status<'a>,
        /// The arm that every treatment is compared with. Beside `effects` its variant and n alone, from which
        /// `control_variance` is imputed where it is absent and effects have n.
        control: Lenient<Box<Arm<'a>>>,
        /// The treatments, at most 1,000, each with its own name.
        treatments: Lenient<AtMost<Lenient<Box<Arm<'a>>>, MAX_VARIANTS>>,
        /// Effects that the producer computed, at most 1,000, instead of arms.
        effects: Lenient<AtMost<Lenient<Effect<'a>>, MAX_VARIANTS>>,
        /// The control's part of the sampling variance of every effect, on `absolute` the variance of the control's
        /// mean. Two or more effects need it, or `covariance`, or n of an effect and of the control; 0 where nothing is
        /// shared.
        control_variance: Number<'a>,
        /// What `variance` contains on `relative`: `delta` d_i + (1 + estimate_i)^2 c, as the delta method has it, or `scaled`
        /// d_i + c; `delta` where absent. On the other scales both are the same.
        variance_form: VarianceForm<'a>,
        /// The full sampling covariance of the effects, one row for each effect, symmetric.
        covariance: Lenient<AtMost<Lenient<AtMost<Number<'a>, MAX_VARIANTS>>, MAX_VARIANTS>>,
        /// true adds this as one part (a shard, a region) to the parts of the same revision: arms with n and an
        /// event_id are needed, and the control or the treatments may be left to other parts.
        accumulate: Flag<'a>,
    }
}

object! {
    /// One arm in one of these forms: n with mean and variance (or standard_deviation), n with sum and sum_squares, n with
    /// successes, or mean with standard_error. Sums may come with those of a denominator (a ratio metric) or of a covariate
    /// (CUPED), in all arms of a result alike. Beside `effects` a control has n alone.
    #[schemars(transform = schema_rules::arm)]
    Arm {
        /// Names the variant.
        #[schemars(required)]
        variant: Identifier<'a>,
        /// Number of units, at least 2 (of a part: any). Only informative beside standard_error.
        n: Count<'a>,
        /// Mean over the units, in the metric's unit.
        mean: Number<'a>,
        /// Sample variance per unit (n - 1 convention), in the metric's unit squared; not the variance of the mean.
        variance: Number<'a>,
        /// Standard deviation per unit, instead of variance.
        standard_deviation: Number<'a>,
        /// Standard error of the mean, in the metric's unit.
        standard_error: Number<'a>,
        /// Sum over the units; of a ratio metric the numerator's.
        sum: Number<'a>,
        /// Sum of squares over the units.
        sum_squares: Number<'a>,
        /// Sum of the denominator over the units. Makes the metric a ratio: sum / denominator_sum.
        denominator_sum: Number<'a>,
        /// Sum of squares of the denominator over the units.
        denominator_sum_squares: Number<'a>,
        /// Sum over the units of numerator times denominator.
        numerator_denominator_sum_product: Number<'a>,
        /// Sum of a covariate over the units, such as the same metric before the experiment; the means are adjusted for it.
        covariate_sum: Number<'a>,
        /// Sum of squares of the covariate over the units.
        covariate_sum_squares: Number<'a>,
        /// Sum over the units of metric times covariate.
        main_covariate_sum_product: Number<'a>,
        /// Number of units that count 1 where all others count 0, at most n.
        successes: Count<'a>,
    }
}

object! {
    /// One effect against the control, in the unit of the scale. Its sampling error is sent as one of variance,
    /// standard_error, ci_low with ci_high, and treatment_variance.
    #[schemars(transform = schema_rules::effect)]
    Effect {
        /// Names the variant.
        #[schemars(required)]
        variant: Identifier<'a>,
        /// The effect.
        #[schemars(required)]
        estimate: Number<'a>,
        /// Its whole sampling variance, the control's part included; may be left out beside `covariance`.
        variance: Number<'a>,
        /// Its standard error, instead of variance.
        standard_error: Number<'a>,
        /// Lower end of its symmetric normal interval, on the scale of the estimate; with ci_high instead of variance.
        ci_low: Number<'a>,
        /// Upper end of its interval.
        ci_high: Number<'a>,
        /// Level of the interval; 0.95 where absent.
        ci_level: Level<'a>,
        /// Number of units of the treatment. With the control's n it says what of variance is the control's.
        n: Count<'a>,
        /// What the treatment alone brings to it, without the control's part, instead of `variance`. Needed on `relative`
        /// where the control's mean is below 0.
        treatment_variance: Number<'a>,
    }
}

/// The objects of a message and their fields.
pub(super) const OBJECTS: [(&str, &[&str]); 4] = [
    ("the message", Event::FIELDS),
    ("a result", Reported::FIELDS),
    ("an arm", Arm::FIELDS),
    ("an effect", Effect::FIELDS),
];

impl Arm<'_> {
    /// Whether it has more than its variant and n.
    pub(super) fn has_numbers(&self) -> bool {
        let Arm { mean, variance, standard_deviation, standard_error, sum, sum_squares, .. } = self;
        let Arm { denominator_sum, denominator_sum_squares, numerator_denominator_sum_product, .. } = self;
        let Arm { covariate_sum, covariate_sum_squares, main_covariate_sum_product, successes, .. } = self;
        let units = [mean, variance, standard_deviation, standard_error, sum, sum_squares];
        let denominator = [denominator_sum, denominator_sum_squares, numerator_denominator_sum_product];
        let covariate = [covariate_sum, covariate_sum_squares, main_covariate_sum_product];
        let all = units.into_iter().chain(denominator).chain(covariate);
        successes.is_some() || all.into_iter().any(Option::is_some)
    }
}

/// A list of at most this many items, or one more where it is too long. Further items are dropped, so that memory is bounded.
pub(super) struct AtMost<T, const MOST: usize>(pub(super) Vec<T>);

#[derive(Default)]
pub(super) struct Labels<'a> {
    pub(super) entries: BTreeMap<Cow<'a, str>, Option<Identifier<'a>>>,
    pub(super) repeated: Option<Cow<'a, str>>,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Shape<'de> for AtMost<T, MOST> {
    const EXPECTED: &'static str = "an array";

    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Lenient<Self>, A::Error> {
        let mut items = Vec::new();
        while items.len() <= MOST
            && let Some(item) = seq.next_element()?
        {
            items.push(item);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::Right(AtMost(items)))
    }
}

/// Any key may be a label.
impl Part for Labels<'_> {}

/// Results are read one by one.
impl Part for &RawValue {}

impl<'de> Shape<'de> for Labels<'de> {
    const EXPECTED: &'static str = "an object";

    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Lenient<Self>, A::Error> {
        let mut labels = Labels::default();
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value()?;
            if labels.entries.insert(key.clone(), value).is_some() {
                labels.repeated.get_or_insert(key);
            }
        }
        Ok(Lenient::Right(labels))
    }
}

impl<T: JsonSchema, const MOST: usize> JsonSchema for AtMost<T, MOST> {
    fn schema_name() -> Cow<'static, str> {
        format!("At_most_{MOST}_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "array", "maxItems": MOST, "items": generator.subschema_for::<T>() })
    }
}

impl JsonSchema for Labels<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Labels".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "propertyNames": generator.subschema_for::<Identifier<'_>>(),
            "additionalProperties": generator.subschema_for::<Option<Identifier<'_>>>()
        })
    }
}
