//! A population: the blocks that share (mu, tau), and their sketches under the three models of correlation.

use std::borrow::Cow;

use super::block::{Block, BlockError};
use super::direction::Direction;
use super::fit::Correlation;
use super::parallel::map_chunks;
use super::sketch::{Cell, OutOfRange, Sketch};
use super::spectrum::Component;

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
            Correlation::Modelled => Cow::Borrowed(&self.block),
            Correlation::Ignored => Cow::Owned(self.block.independent()),
            Correlation::OnePerExperiment => Cow::Owned(self.block.single(self.chosen)),
        }
    }

    /// Which of the block's variants have estimates under a model of correlation.
    pub fn variants(&self, correlation: Correlation) -> std::ops::Range<usize> {
        match correlation {
            Correlation::Modelled | Correlation::Ignored => 0..self.block.len(),
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
            Correlation::Modelled => Cow::Borrowed(&self.components),
            _ => self.variants(correlation).map(|i| alone(&self.block, i)).collect(),
        }
    }
}

/// Effect `i` of a block as a component of its own.
fn alone(block: &Block, i: usize) -> Component {
    Component { lambda: block.sampling_variance(i), a: 1.0, b: block.effects()[i] }
}

/// A population's sketches under the three models of correlation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketches {
    by_correlation: [Sketch; 3],
}

impl Sketches {
    /// The sketches of these members, added up in parts on several threads, the number of which changes no bit.
    ///
    /// # Errors
    /// As [`Sketches::add`].
    pub fn of_members(members: &[Member], threads: usize) -> Result<Sketches, OutOfRange> {
        let parts = map_chunks(members, CHUNK, threads, |members| {
            let mut part = Sketches::default();
            members.iter().try_for_each(|member| part.add(member)).map(|()| part)
        });
        parts.into_iter().try_fold(Sketches::default(), |mut total, part| {
            total.merge(&part?);
            Ok(total)
        })
    }

    /// Adds a block under every model of correlation.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn add(&mut self, member: &Member) -> Result<(), OutOfRange> {
        self.apply(member, Sketch::add)
    }

    /// Subtracts a block under every model of correlation.
    ///
    /// # Errors
    /// None for a [`Member`], which was checked when it was made.
    pub fn subtract(&mut self, member: &Member) -> Result<(), OutOfRange> {
        self.apply(member, Sketch::subtract)
    }

    /// Adds the sketches of other blocks.
    pub fn merge(&mut self, other: &Sketches) {
        for (mine, theirs) in self.by_correlation.iter_mut().zip(&other.by_correlation) {
            mine.merge(theirs);
        }
    }

    /// Adds one cell of the sketch under a model of correlation.
    pub fn add_cell(&mut self, correlation: Correlation, octave: i16, cell: &Cell) {
        self.by_correlation[correlation as usize].add_cell(octave, cell);
    }

    /// The sketch under one model of correlation.
    pub fn of(&self, correlation: Correlation) -> &Sketch {
        &self.by_correlation[correlation as usize]
    }

    /// What `compute` gives under each model of correlation, computed once for those whose sketches are the same: all of them where
    /// every experiment has one variant.
    pub fn map_distinct<T: Clone>(&self, compute: impl Fn(Correlation) -> T) -> [T; 3] {
        let [modelled, ignored, one] = Correlation::ALL.map(|correlation| self.of(correlation));
        let of_modelled = compute(Correlation::Modelled);
        let of_ignored = if ignored == modelled { of_modelled.clone() } else { compute(Correlation::Ignored) };
        let of_one = match one {
            one if one == modelled => of_modelled.clone(),
            one if one == ignored => of_ignored.clone(),
            _ => compute(Correlation::OnePerExperiment),
        };
        [of_modelled, of_ignored, of_one]
    }

    fn apply(
        &mut self,
        member: &Member,
        change: impl Fn(&mut Sketch, &[Component]) -> Result<(), OutOfRange>,
    ) -> Result<(), OutOfRange> {
        let [modelled, ignored, one] = &mut self.by_correlation;
        change(modelled, &member.components)?;
        for i in 0..member.block.len() {
            change(ignored, &[alone(&member.block, i)])?;
        }
        change(one, &[alone(&member.block, member.chosen)])
    }
}
