//! Populations: which blocks share mu and tau, and which variant represents its experiment in the model that keeps one
//! variant of each experiment.
//!
//! The default grouping is one population per metric x segment x scale; the values of event labels can divide it further.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::event::{ResultKey, Scale};

/// How blocks are assigned to populations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grouping {
    /// Event labels whose values divide the populations further.
    pub labels: Vec<String>,
    /// Seed of the choice of one variant per experiment.
    pub one_per_experiment_seed: u64,
}

impl Grouping {
    /// The population of a block, by its key and the labels of its experiment. A label that the experiment does not have is
    /// empty.
    pub fn population(&self, key: ResultKey, labels: Option<&BTreeMap<String, String>>) -> PopulationName {
        let value = |label: &String| labels.and_then(|labels| labels.get(label)).cloned().unwrap_or_default();
        PopulationName { key, labels: self.labels.iter().map(|label| (label.clone(), value(label))).collect() }
    }

    /// The index of the variant that represents its experiment where only one is kept: see [`chosen_variant`].
    pub fn chosen_variant(&self, experiment_id: &str, variants: &[String]) -> usize {
        chosen_variant(self.one_per_experiment_seed, experiment_id, variants).unwrap_or(0)
    }
}

/// Names a population: `metric/segment/scale`, and `/label=value` for each label that divides it; `/` and `%` inside a part
/// are percent-encoded, in labels `=` too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PopulationName {
    key: ResultKey,
    labels: Vec<(String, String)>,
}

/// Text that names no population.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no population: expected metric/segment/scale, with / as %2F and % as %25 inside a part, and /label=value for each label that divides populations"
)]
pub struct PopulationNameError(String);

impl PopulationName {
    /// The key that the population's blocks have in their experiments.
    pub fn key(&self) -> &ResultKey {
        &self.key
    }
}

impl From<ResultKey> for PopulationName {
    fn from(key: ResultKey) -> PopulationName {
        PopulationName { key, labels: Vec::new() }
    }
}

impl fmt::Display for PopulationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", encode(&self.key.metric), encode(&self.key.segment), self.key.scale)?;
        self.labels.iter().try_for_each(|(label, value)| write!(f, "/{}={}", encode_label(label), encode_label(value)))
    }
}

impl FromStr for PopulationName {
    type Err = PopulationNameError;

    /// Reads a name back. Only the canonical spelling is accepted: a population has one name.
    fn from_str(text: &str) -> Result<PopulationName, PopulationNameError> {
        let error = || PopulationNameError(text.to_owned());
        let mut parts = text.split('/');
        let (Some(metric), Some(segment), Some(scale)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(error());
        };
        let label = |part: &str| part.split_once('=').map(|(label, value)| (decode(label), decode(value)));
        let labels = parts.map(label).collect::<Option<_>>().ok_or_else(error)?;
        let scale = Scale::ALL.into_iter().find(|s| s.as_str() == scale);
        let key = ResultKey { metric: decode(metric), segment: decode(segment), scale: scale.ok_or_else(error)? };
        let name = PopulationName { key, labels };
        let is_canonical = !metric.is_empty() && !segment.is_empty() && name.to_string() == text;
        is_canonical.then_some(name).ok_or_else(error)
    }
}

/// Names are written with every row: most have nothing to encode.
fn encode(part: &str) -> Cow<'_, str> {
    match part.bytes().any(|byte| matches!(byte, b'%' | b'/')) {
        true => part.replace('%', "%25").replace('/', "%2F").into(),
        false => part.into(),
    }
}

fn encode_label(part: &str) -> String {
    encode(part).replace('=', "%3D")
}

fn decode(part: &str) -> String {
    part.replace("%3D", "=").replace("%2F", "/").replace("%25", "%")
}

/// The variant that represents its experiment where only one is kept: the index of the one with the smallest 64-bit hash of
/// (seed, experiment, variant), ties broken by name. `None` where there are no variants.
///
/// The choice depends on nothing else, so that replays, another order of events and other machines do not change it. It is
/// published in results and must never change. The hash is FNV-1a over the seed, the experiment id and the variant (numbers as 8 bytes little
/// endian, each text preceded by its length), followed by the mixer of SplitMix64, because FNV-1a alone leaves names that
/// differ in their last byte close together.
///
/// Sources: Fowler, Noll, Vo, Eastlake, "The FNV Non-Cryptographic Hash Algorithm"; Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014.
pub fn chosen_variant<V: AsRef<str>>(seed: u64, experiment_id: &str, variants: &[V]) -> Option<usize> {
    let experiment = fnv1a_text(fnv1a(FNV_OFFSET, &seed.to_le_bytes()), experiment_id);
    let hash = |variant: &str| splitmix_finish(fnv1a_text(experiment, variant));
    let chosen = variants.iter().map(AsRef::as_ref).enumerate().min_by_key(|(_, variant)| (hash(variant), *variant));
    chosen.map(|(index, _)| index)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

/// The length first: ("ab", "c") and ("a", "bc") must differ.
fn fnv1a_text(hash: u64, text: &str) -> u64 {
    fnv1a(fnv1a(hash, &(text.len() as u64).to_le_bytes()), text.as_bytes())
}

fn splitmix_finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_as_published() {
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_mixer_is_that_of_splitmix64() {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        assert_eq!(splitmix_finish(GAMMA), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix_finish(1_234_567_u64.wrapping_add(GAMMA)), 6_457_827_717_110_365_317);
        assert_eq!(splitmix_finish(1_234_567_u64.wrapping_add(GAMMA.wrapping_mul(2))), 3_203_168_211_198_807_973);
    }
}
