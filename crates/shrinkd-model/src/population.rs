//! A population: the blocks that share (mu, tau), and their sketches under the models of correlation.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use super::block::{Block, BlockError, Covariance};
use super::direction::Direction;
use super::fit::Correlation;
use super::icc::{IccNodes, PriorIcc};
use super::parallel::{chunk_of_exact_sums, map_chunks};
use super::sketch::{Cell, MOMENTS, OutOfRange, Sketch, cell_from_bytes, cell_to_bytes};
use super::spectrum::Component;

/// Moments that are kept of each series at the nodes above 0, where what they miss is far below the error of interpolation.
const ALIKE_MOMENTS: usize = 16;

/// Blocks per unit of work: sums are formed within it, so that its size affects the last bits of the result.
pub(crate) const CHUNK: usize = 256;

/// A block in its population: decomposed once, with the variant that represents it under [`Correlation::OnePerExperiment`].
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    block: Block,
    components: Vec<Component>,
    chosen: usize,
    direction: Direction,
}

/// Why a block cannot join a population.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl Member {
    /// Decomposes a block that variant `chosen` represents under [`Correlation::OnePerExperiment`].
    ///
    /// # Errors
    /// Where the block has no spectral form, or a component does not fit the sketch under some model of correlation.
    pub fn new(block: Block, chosen: usize) -> Result<Member, MemberError> {
        let components = Member::check(&block)?;
        Ok(Member::restore(block, components, chosen))
    }

    /// The components of a block that can join a population, whichever variant represents it.
    ///
    /// # Errors
    /// As for [`Member::new`].
    pub fn check(block: &Block) -> Result<Vec<Component>, MemberError> {
        let components = block.components()?;
        for component in components.iter().copied().chain((0..block.len()).map(|i| alone(block, i))) {
            Sketch::check(&component)?;
        }
        let is_dense = matches!(block.covariance(), Covariance::Dense { .. });
        if block.len() > 1 && (is_dense || !is_within_range(&components)) {
            for icc in &IccNodes::of(block.len()).iccs()[1..] {
                block.components_at(*icc)?.iter().try_for_each(Sketch::check)?;
            }
        }
        Ok(components)
    }

    /// A member whose components were computed before, and are not checked again.
    pub fn restore(block: Block, components: Vec<Component>, chosen: usize) -> Member {
        Member { chosen: chosen.min(block.len() - 1), block, components, direction: Direction::default() }
    }

    /// The same member, of which this direction is the better one.
    pub fn with_direction(self, direction: Direction) -> Member {
        Member { direction, ..self }
    }

    /// Which way of its effects is better: up, unless [`Member::with_direction`] says otherwise.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The components of the block itself.
    pub fn own_components(&self) -> &[Component] {
        &self.components
    }

    /// The block as it was measured.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The block under a model of correlation.
    pub fn under(&self, correlation: Correlation) -> Cow<'_, Block> {
        match correlation {
            Correlation::Modelled | Correlation::ControlOnly => Cow::Borrowed(&self.block),
            Correlation::Ignored => Cow::Owned(self.block.independent()),
            Correlation::OnePerExperiment => Cow::Owned(self.block.single(self.chosen)),
        }
    }

    /// Which of the block's variants have estimates under a model of correlation.
    pub fn variants(&self, correlation: Correlation) -> std::ops::Range<usize> {
        match correlation {
            Correlation::Modelled | Correlation::ControlOnly | Correlation::Ignored => 0..self.block.len(),
            Correlation::OnePerExperiment => self.chosen..self.chosen + 1,
        }
    }

    /// The variant that represents the block under [`Correlation::OnePerExperiment`].
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// The components of the block under a model of correlation.
    pub fn components(&self, correlation: Correlation) -> Cow<'_, [Component]> {
        match correlation {
            Correlation::Modelled | Correlation::ControlOnly => Cow::Borrowed(&self.components),
            Correlation::Ignored | Correlation::OnePerExperiment => {
                self.variants(correlation).map(|i| alone(&self.block, i)).collect()
            }
        }
    }
}

/// Whether the components of a block at an intraclass correlation of 0 leave no doubt that those at any other fit: see
/// [`Block::components_at`]. Most blocks with a shared control, whose decomposition cannot fail, are spared it at every node.
fn is_within_range(components: &[Component]) -> bool {
    let distance: f64 = components.iter().map(|component| component.b * component.b / component.lambda).sum();
    components.iter().all(|component| (1e-90..1e90).contains(&component.lambda)) && distance < 1e12
}

/// Effect `i` of a block as a component of its own.
fn alone(block: &Block, i: usize) -> Component {
    Component { lambda: block.sampling_variance(i), a: 1.0, b: block.effects()[i] }
}

/// What of a population's sketches is stored and summed apart from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Blocks of one variant, which are the same under every model of correlation.
    OneVariant,
    /// Blocks of two to six variants, at each node of the intraclass correlation: see [`IccNodes::few`].
    SeveralVariants,
    /// Blocks of more, at the nodes for these: see [`IccNodes::many`].
    ManyVariants,
    /// The variants of all these blocks as if they were independent.
    Ignored,
    /// The one variant of each of these blocks that stands for it.
    OnePerExperiment,
}

impl Part {
    pub const ALL: [Part; 5] =
        [Part::OneVariant, Part::SeveralVariants, Part::ManyVariants, Part::Ignored, Part::OnePerExperiment];

    /// Where a block of so many variants is added as it is.
    pub(crate) fn of(variants: usize) -> Part {
        match variants {
            1 => Part::OneVariant,
            _ if IccNodes::are_few(variants) => Part::SeveralVariants,
            _ => Part::ManyVariants,
        }
    }

    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::OneVariant => "one_variant",
            Part::SeveralVariants => "several_variants",
            Part::ManyVariants => "many_variants",
            Part::Ignored => "ignored",
            Part::OnePerExperiment => "one_per_experiment",
        }
    }
}

/// A population's sketches, from which its likelihood follows under every model of correlation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketches {
    one_variant: Sketch,
    several_variants: Vec<Sketch>,
    many_variants: Vec<Sketch>,
    ignored: Sketch,
    one_per_experiment: Sketch,
    sizes: BTreeMap<u32, i64>,
}

impl Default for Sketches {
    fn default() -> Sketches {
        let at_nodes = |nodes: &IccNodes| vec![Sketch::default(); nodes.iccs().len()];
        Sketches {
            one_variant: Sketch::default(),
            several_variants: at_nodes(IccNodes::few()),
            many_variants: at_nodes(IccNodes::many()),
            ignored: Sketch::default(),
            one_per_experiment: Sketch::default(),
            sizes: BTreeMap::new(),
        }
    }
}

impl Sketches {
    /// The sketches of these members, added up in parts on several threads, the number of which changes no bit.
    ///
    /// # Errors
    /// As [`Sketches::add`].
    pub fn of_members(members: &[Member], threads: usize) -> Result<Sketches, MemberError> {
        let chunk = chunk_of_exact_sums(members.len(), threads);
        let parts = map_chunks(members, chunk, threads, |members| {
            let mut part = Sketches::default();
            members.iter().try_for_each(|member| part.add(member)).map(|()| part)
        });
        parts.into_iter().try_fold(Sketches::default(), |mut total, part| {
            total.merge(&part?);
            Ok(total)
        })
    }

    /// Adds a block.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn add(&mut self, member: &Member) -> Result<(), MemberError> {
        self.apply(member, 1, Sketch::add_moments)
    }

    /// Subtracts a block.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn subtract(&mut self, member: &Member) -> Result<(), MemberError> {
        self.apply(member, -1, Sketch::subtract_moments)
    }

    /// Adds the sketches of other blocks.
    pub fn merge(&mut self, other: &Sketches) {
        for part in Part::ALL {
            for (mine, theirs) in self.part_mut(part).iter_mut().zip(other.part(part)) {
                mine.merge(theirs);
            }
        }
        for (&size, &blocks) in &other.sizes {
            self.count(size, blocks);
        }
    }

    /// The sketch under a model of correlation, `icc` being 0.
    pub fn of(&self, correlation: Correlation) -> Cow<'_, Sketch> {
        match correlation {
            Correlation::Modelled | Correlation::ControlOnly => sum(&self.one_variant, self.independent_effects()),
            Correlation::Ignored => sum(&self.one_variant, Cow::Borrowed(&self.ignored)),
            Correlation::OnePerExperiment => sum(&self.one_variant, Cow::Borrowed(&self.one_per_experiment)),
        }
    }

    /// Blocks of several variants, `icc` being 0.
    fn independent_effects(&self) -> Cow<'_, Sketch> {
        sum(&self.several_variants[0], Cow::Borrowed(&self.many_variants[0]))
    }

    /// How many blocks there are of each number of variants from two on.
    pub fn sizes(&self) -> &BTreeMap<u32, i64> {
        &self.sizes
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.one_variant.effects() + self.blocks_of_several_variants()
    }

    /// How many blocks there are of two variants and more.
    pub fn blocks_of_several_variants(&self) -> u64 {
        u64::try_from(self.sizes.values().sum::<i64>()).unwrap_or(0)
    }

    /// Adds so many blocks of a number of variants to [`Sketches::sizes`], which does not count those of one.
    pub fn count(&mut self, variants: u32, blocks: i64) {
        if variants < 2 {
            return;
        }
        let count = self.sizes.entry(variants).or_default();
        *count += blocks;
        if *count == 0 {
            self.sizes.remove(&variants);
        }
    }

    /// The parts that have a cell which is not all zero.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(|part| !self.octaves(*part).is_empty())
    }

    /// The cells of a part, as they are stored: of each octave that has any the number, two bytes from the least, and its cells.
    pub fn cells_to_bytes(&self, part: Part) -> Vec<u8> {
        let mut bytes = Vec::new();
        for octave in self.octaves(part) {
            bytes.extend(octave.to_le_bytes());
            for sketch in self.part(part) {
                cell_to_bytes(&sketch.cell(octave).copied().unwrap_or_default(), &mut bytes);
            }
        }
        bytes
    }

    /// Adds what [`Sketches::cells_to_bytes`] wrote; `None`, and nothing is added, where that has been damaged.
    pub fn add_cells(&mut self, part: Part, mut bytes: &[u8]) -> Option<()> {
        let sketches = self.part_mut(part);
        let mut octaves: Vec<(i16, Vec<Cell>)> = Vec::new();
        while let Some((octave, rest)) = bytes.split_first_chunk() {
            bytes = rest;
            let cells = sketches.iter().map(|_| cell_from_bytes(&mut bytes)).collect::<Option<_>>()?;
            octaves.push((i16::from_le_bytes(*octave), cells));
        }
        if !bytes.is_empty() || !octaves.is_sorted_by(|(octave, _), (next, _)| octave < next) {
            return None;
        }
        for (octave, cells) in &octaves {
            sketches.iter_mut().zip(cells).for_each(|(sketch, cell)| sketch.add_cell(*octave, cell));
        }
        Some(())
    }

    /// The octaves in which a part has a cell that is not all zero.
    fn octaves(&self, part: Part) -> BTreeSet<i16> {
        self.part(part).iter().flat_map(Sketch::cells).map(|(octave, _)| octave).collect()
    }

    /// What `compute` gives under each model of correlation, computed once for those that are the same: all of them where every
    /// experiment has one variant, and the first two where the intraclass correlation is 0.
    pub fn map_distinct<T: Clone>(
        &self,
        icc: &PriorIcc,
        compute: impl Fn(Correlation) -> T,
    ) -> [T; Correlation::COUNT] {
        let (control_only, ignored, one) = (self.independent_effects(), &self.ignored, &self.one_per_experiment);
        let of_modelled = compute(Correlation::Modelled);
        let of_control_only = match self.sizes.is_empty() || icc.is_zero() {
            true => of_modelled.clone(),
            false => compute(Correlation::ControlOnly),
        };
        let of_ignored = match ignored == &*control_only {
            true => of_control_only.clone(),
            false => compute(Correlation::Ignored),
        };
        let of_one = match one {
            one if one == &*control_only => of_control_only.clone(),
            one if one == ignored => of_ignored.clone(),
            _ => compute(Correlation::OnePerExperiment),
        };
        [of_modelled, of_control_only, of_ignored, of_one]
    }

    /// The sketches of a part: of [`Part::SeveralVariants`] and [`Part::ManyVariants`] one for each node of the intraclass
    /// correlation.
    pub fn part(&self, part: Part) -> &[Sketch] {
        match part {
            Part::OneVariant => slice::from_ref(&self.one_variant),
            Part::SeveralVariants => &self.several_variants,
            Part::ManyVariants => &self.many_variants,
            Part::Ignored => slice::from_ref(&self.ignored),
            Part::OnePerExperiment => slice::from_ref(&self.one_per_experiment),
        }
    }

    fn part_mut(&mut self, part: Part) -> &mut [Sketch] {
        match part {
            Part::OneVariant => slice::from_mut(&mut self.one_variant),
            Part::SeveralVariants => &mut self.several_variants,
            Part::ManyVariants => &mut self.many_variants,
            Part::Ignored => slice::from_mut(&mut self.ignored),
            Part::OnePerExperiment => slice::from_mut(&mut self.one_per_experiment),
        }
    }

    fn apply(
        &mut self,
        member: &Member,
        sign: i64,
        change: impl Fn(&mut Sketch, &[Component], usize) -> Result<(), OutOfRange>,
    ) -> Result<(), MemberError> {
        let variants = member.block.len();
        if variants == 1 {
            return Ok(change(&mut self.one_variant, &member.components, MOMENTS)?);
        }
        let nodes = IccNodes::of(variants).iccs().iter().zip(self.part_mut(Part::of(variants)));
        for (node, (&icc, sketch)) in nodes.enumerate() {
            match node {
                0 => change(sketch, &member.components, MOMENTS)?,
                _ => change(sketch, &member.block.components_at(icc)?, ALIKE_MOMENTS)?,
            }
        }
        for i in 0..variants {
            change(&mut self.ignored, &[alone(&member.block, i)], MOMENTS)?;
        }
        change(&mut self.one_per_experiment, &[alone(&member.block, member.chosen)], MOMENTS)?;
        self.count(variants as u32, sign);
        Ok(())
    }
}

fn sum<'a>(left: &'a Sketch, right: Cow<'a, Sketch>) -> Cow<'a, Sketch> {
    if right.is_empty() {
        return Cow::Borrowed(left);
    }
    if left.is_empty() {
        return right;
    }
    let mut sum = right.into_owned();
    sum.merge(left);
    Cow::Owned(sum)
}
