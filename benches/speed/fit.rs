//! A fit: from a sketch to the posterior of (mu, tau) with all its summaries, and to the nodes for its effects.

use std::time::Instant;

use shrinkd_model::{
    Component, DirectLikelihood, Node, Posterior, Priors, Sketch, SketchLikelihood, condense, quadrature,
};

use shrinkd::simulate::Scenario;

use crate::data;
use crate::stopwatch::{Aim, Baseline, Item, Stopwatch};

const SMALL: usize = 1_000;
const LARGE: usize = 1_000_000;

/// Populations that are fitted directly from their components.
const DIRECT: [usize; 2] = [1_000, 100_000];

const AIM_SPREAD: f64 = 0.3e-3;
const AIM_REFERENCE: f64 = 1e-3;
const AIM_GROWTH: f64 = 1.2;

pub fn measure(stopwatch: &mut Stopwatch) {
    let small = data::sketch(&data::spread(SMALL));
    let components = data::spread(LARGE);
    let large = data::sketch(&components);

    stopwatch.heading("a fit from the sketch");
    let seconds = time(stopwatch, "15 octaves, 1,000 effects", &small, Aim::Seconds(AIM_SPREAD));
    let baseline = Baseline { name: "1,000 effects", seconds };
    time(stopwatch, "15 octaves, 1,000,000 effects", &large, Aim::Times(AIM_GROWTH, &baseline));
    time_condensed(stopwatch, "15 octaves, 1,000 effects, condensed", &small, Aim::Against(&baseline));
    let simulated = Scenario::ALL.map(|scenario| (scenario.as_str().to_owned(), data::scenario(scenario)));
    for (name, blocks) in simulated.into_iter().chain(data::references()) {
        let sketch = data::sketch(&data::components(&blocks));
        let seconds = time(stopwatch, &name, &sketch, Aim::Seconds(AIM_REFERENCE));
        let plain = Baseline { name: "without", seconds };
        time_condensed(stopwatch, &format!("{name}, condensed"), &sketch, Aim::Against(&plain));
    }

    stopwatch.heading("the same from the components, one by one");
    let baseline = Baseline { name: "the sketch", ..baseline };
    for effects in DIRECT {
        let what = format!("{effects} effects");
        let item = Item { what: &what, count: 1, aim: Aim::Against(&baseline) };
        stopwatch.time(&item, || components[..effects].to_vec(), direct);
    }
    let start = Instant::now();
    std::hint::black_box(direct(components));
    stopwatch.record("1000000 effects, once", start.elapsed().as_secs_f64(), Aim::Against(&baseline));
}

fn time(stopwatch: &mut Stopwatch, what: &str, sketch: &Sketch, aim: Aim<'_>) -> Option<f64> {
    stopwatch.time(&Item { what, count: 1, aim }, || (), |()| fit(sketch))
}

fn time_condensed(stopwatch: &mut Stopwatch, what: &str, sketch: &Sketch, aim: Aim<'_>) {
    stopwatch.time(&Item { what, count: 1, aim }, || (), |()| condensed(sketch));
}

fn fit(sketch: &Sketch) -> Posterior {
    quadrature(&SketchLikelihood::new(sketch), &Priors::default()).expect("proper")
}

/// The fit, and the fewest nodes to average its effects over.
pub fn condensed(sketch: &Sketch) -> (Posterior, Vec<Node>) {
    let (likelihood, priors) = (SketchLikelihood::new(sketch), Priors::default());
    let posterior = quadrature(&likelihood, &priors).expect("proper");
    let nodes = condense(&likelihood, &priors, &posterior.nodes);
    (posterior, nodes)
}

fn direct(components: Vec<Component>) -> Posterior {
    quadrature(&DirectLikelihood::new(components), &Priors::default()).expect("proper")
}
