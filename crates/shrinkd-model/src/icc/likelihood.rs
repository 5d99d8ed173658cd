//! The likelihood between the nodes of the intraclass correlation.
//!
//! Along a fixed t the likelihood is singular at `icc = 1 + d / t`. What is interpolated is therefore read at
//! `t_k = z (1 - icc_k)^(-2/3)` for one z at all nodes, in the s of [`IccNodes`]: L, log A, B / A and C - B^2 / A.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::{IccNodes, log_det_of_correlations};
use crate::fit::Correlation;
use crate::likelihood::{Derivatives, Likelihood, SketchLikelihood, Terms};
use crate::population::{Part, Sketches};
use crate::posterior::panel::{self, Panel};
use crate::sketch::Sketch;

/// The likelihood of a population with blocks of several variants, at every icc.
#[derive(Debug, Clone)]
pub struct IccLikelihood {
    /// Of the blocks of each set of nodes, about one centre. Blocks of one variant are with the first.
    groups: Vec<Group>,
    blocks: u64,
    /// a.
    scale: f64,
}

/// The blocks whose sketches are kept at the same nodes.
///
/// What the sketches give is read on panels in x, `sqrt(z) = a sinh(x)`, each when it is first asked for, and interpolated by the
/// polynomial through a panel's nodes: within 1e-13 of each value, as all of them are analytic up to `|Im x| = pi / 2`.
#[derive(Debug, Clone)]
struct Group {
    nodes: &'static IccNodes,
    /// At each node.
    likelihoods: Vec<SketchLikelihood>,
    /// At each node, the sum of `log|R|` over the blocks.
    log_dets: Vec<f64>,
    /// By node of a panel, and by node of icc.
    panels: Vec<OnceCell<Box<[Values]>>>,
}

/// The values that are interpolated: L, log A, B / A, and C - B^2 / A.
type Values = [f64; 4];

/// Width of a panel in x, and how many there are: x reaches as far as f64.
const WIDTH: f64 = 1.0;
const PANELS: usize = 360;

impl IccLikelihood {
    /// The likelihood of these sketches; `None` where no block has two variants, so that icc is in no way part of it.
    pub fn new(sketches: &Sketches) -> Option<IccLikelihood> {
        let [alone] = sketches.part(Part::OneVariant) else { return None };
        let centre = SketchLikelihood::new(&sketches.of(Correlation::Modelled)).centre();
        let mut groups: Vec<Group> = Vec::new();
        for (part, nodes) in [(Part::SeveralVariants, IccNodes::few()), (Part::ManyVariants, IccNodes::many())] {
            let of_part = sketches.part(part);
            if of_part[0].is_empty() {
                continue;
            }
            let with_alone = groups.is_empty();
            let at_node = |sketch: &Sketch| {
                let mut sketch = Cow::Borrowed(sketch);
                if with_alone {
                    sketch.to_mut().merge(alone);
                }
                SketchLikelihood::about(&sketch, centre)
            };
            let likelihoods = of_part.iter().map(at_node).collect();
            let of_sizes = |icc: f64| {
                let of_size = |(&n, &blocks): (&u32, &i64)| blocks as f64 * log_det_of_correlations(n as usize, icc);
                let own = sketches.sizes().iter().filter(|(n, _)| part == Part::of(**n as usize));
                own.map(of_size).sum()
            };
            let log_dets = nodes.iccs().iter().map(|&icc| of_sizes(icc)).collect();
            groups.push(Group { nodes, likelihoods, log_dets, panels: vec![OnceCell::new(); PANELS] });
        }
        let smallest = groups.iter().map(Group::smallest_lambda).fold(f64::INFINITY, f64::min);
        let information: f64 = groups.iter().map(|group| group.likelihoods[0].at(0.0).a).sum();
        let scale = smallest.min(1.0 / information).sqrt();
        (!groups.is_empty()).then(|| IccLikelihood { groups, blocks: sketches.blocks(), scale })
    }

    /// Number of effects, N.
    pub fn effects(&self) -> u64 {
        self.groups.iter().map(|group| group.likelihoods[0].effects()).sum()
    }

    /// Number of blocks, K.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The nodes that all blocks need: those for many variants where a block has many.
    pub(crate) fn nodes(&self) -> &'static IccNodes {
        self.groups.last().map_or_else(IccNodes::few, |group| group.nodes)
    }

    /// The likelihood at one icc, from 0 to [`LARGEST_ICC`](super::LARGEST_ICC).
    pub fn at(&self, icc: f64) -> LikelihoodAtIcc<'_> {
        let at_icc = |group| GroupAtIcc {
            group,
            coefficients: group.nodes.coefficients(icc),
            panels: vec![OnceCell::new(); PANELS],
        };
        let groups = self.groups.iter().map(at_icc).collect();
        LikelihoodAtIcc { all: self, icc, groups, stretch: (1.0 - icc).cbrt() }
    }
}

impl Group {
    fn smallest_lambda(&self) -> f64 {
        self.likelihoods.iter().map(SketchLikelihood::smallest_lambda).fold(f64::INFINITY, f64::min)
    }

    fn largest_lambda(&self) -> f64 {
        self.likelihoods.iter().map(SketchLikelihood::largest_lambda).fold(0.0, f64::max)
    }

    /// The values at every node of icc, at z.
    fn read(&self, z: f64) -> impl Iterator<Item = Values> {
        let at_nodes = self.nodes.iccs().iter().zip(&self.likelihoods).zip(&self.log_dets);
        at_nodes.map(move |((icc, likelihood), of_correlations)| {
            let Terms { log_det, a, b, c } = likelihood.at(z / (1.0 - icc).cbrt().powi(2));
            let mean = b / a;
            [log_det + of_correlations, a.ln(), mean, c - mean * b]
        })
    }

    fn panel(&self, index: usize, scale: f64) -> &[Values] {
        self.panels[index].get_or_init(|| {
            let low = WIDTH * index as f64;
            let x = Panel::nodes(low, low + WIDTH);
            x.into_iter().flat_map(|x| self.read((scale * x.sinh()).powi(2))).collect()
        })
    }
}

/// The likelihood of a population at one icc, as a function of `t = tau^2`.
#[derive(Debug, Clone)]
pub struct LikelihoodAtIcc<'a> {
    all: &'a IccLikelihood,
    icc: f64,
    groups: Vec<GroupAtIcc<'a>>,
    /// `sqrt(z) / tau`.
    stretch: f64,
}

#[derive(Debug, Clone)]
struct GroupAtIcc<'a> {
    group: &'a Group,
    /// What each node's value counts for.
    coefficients: Vec<f64>,
    panels: Vec<OnceCell<Box<[Values; panel::NODES]>>>,
}

impl GroupAtIcc<'_> {
    fn combine<const N: usize>(&self, at: impl Iterator<Item = [f64; N]>) -> [f64; N] {
        let mut sum = [0.0; N];
        for (weight, at) in self.coefficients.iter().zip(at) {
            sum.iter_mut().zip(at).for_each(|(sum, x)| *sum += weight * x);
        }
        sum
    }

    /// The terms at z, and at the x of it.
    fn terms(&self, z: f64, x: f64, scale: f64) -> Terms {
        let index = (x / WIDTH) as usize;
        let [log_det, log_a, mean, misfit] = match self.panels.get(index) {
            None => self.combine(self.group.read(z)),
            Some(panel) => {
                let values = panel.get_or_init(|| {
                    let mut at = self.group.panel(index, scale).chunks_exact(self.coefficients.len());
                    Box::new(std::array::from_fn(|_| self.combine(at.next().into_iter().flatten().copied())))
                });
                let low = WIDTH * index as f64;
                panel::interpolate(values, low, low + WIDTH, x)
            }
        };
        let a = log_a.exp();
        Terms { log_det, a, b: a * mean, c: misfit + a * mean * mean }
    }

    fn derivatives(&self, t: f64, icc: f64) -> Derivatives {
        let Group { nodes, likelihoods, log_dets, .. } = self.group;
        let at_nodes = nodes.iccs().iter().zip(likelihoods).zip(log_dets);
        // At each node the values, and their first and second derivatives in t.
        let at = at_nodes.map(|((node, likelihood), of_correlations)| -> [f64; 12] {
            let scale = ((1.0 - icc) / (1.0 - node)).cbrt().powi(2);
            let Derivatives { value, first, second } = likelihood.derivatives(t * scale);
            let mean = value.b / value.a;
            let slope = (first.b - mean * first.a) / value.a;
            let curvature = (second.b - 2.0 * slope * first.a - mean * second.a) / value.a;
            let log_slope = first.a / value.a;
            let along = |d: &Terms| d.c - mean * (2.0 * d.b - mean * d.a);
            let (once, twice) = (scale, scale * scale);
            [
                value.log_det + of_correlations,
                value.a.ln(),
                mean,
                value.c - mean * value.b,
                once * first.log_det,
                once * log_slope,
                once * slope,
                once * along(&first),
                twice * second.log_det,
                twice * (second.a / value.a - log_slope * log_slope),
                twice * curvature,
                twice * (along(&second) - 2.0 * value.a * slope * slope),
            ]
        });
        let [l, log_a, m, q, l1, log_a1, m1, q1, l2, log_a2, m2, q2] = self.combine(at);
        let a = log_a.exp();
        let (a1, a2) = (a * log_a1, a * (log_a2 + log_a1 * log_a1));
        Derivatives {
            value: Terms { log_det: l, a, b: a * m, c: q + a * m * m },
            first: Terms { log_det: l1, a: a1, b: a1 * m + a * m1, c: q1 + a1 * m * m + 2.0 * a * m * m1 },
            second: Terms {
                log_det: l2,
                a: a2,
                b: a2 * m + 2.0 * a1 * m1 + a * m2,
                c: q2 + a2 * m * m + 4.0 * a1 * m * m1 + 2.0 * a * (m1 * m1 + m * m2),
            },
        }
    }
}

impl LikelihoodAtIcc<'_> {
    /// The icc.
    pub fn icc(&self) -> f64 {
        self.icc
    }
}

impl Likelihood for LikelihoodAtIcc<'_> {
    fn effects(&self) -> u64 {
        self.all.effects()
    }

    fn smallest_lambda(&self) -> f64 {
        self.all.groups.iter().map(Group::smallest_lambda).fold(f64::INFINITY, f64::min)
    }

    fn largest_lambda(&self) -> f64 {
        self.all.groups.iter().map(Group::largest_lambda).fold(0.0, f64::max)
    }

    fn centre(&self) -> f64 {
        self.all.groups[0].likelihoods[0].centre()
    }

    fn at(&self, t: f64) -> Terms {
        let ratio = t.sqrt() * self.stretch / self.all.scale;
        // asinh; its relative error near 0 does not matter.
        let x = (ratio + (ratio * ratio + 1.0).sqrt()).min(2.0 * ratio + 1.0).ln();
        let z = t * self.stretch.powi(2);
        self.groups.iter().map(|group| group.terms(z, x, self.all.scale)).sum()
    }

    fn derivatives(&self, t: f64) -> Derivatives {
        self.groups.iter().map(|group| group.derivatives(t, self.icc)).sum()
    }
}
