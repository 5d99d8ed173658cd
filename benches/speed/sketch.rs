//! Adding effects to one sketch, and whole blocks to the three sketches of a population.

use shrinkd_model::{Member, Sketch, Sketches};

use crate::data;
use crate::stopwatch::{Aim, Item, Stopwatch};

const EFFECTS: usize = 10_000;
const VARIANTS: [usize; 4] = [1, 2, 3, 5];

const AIM_COMPONENT: f64 = 0.5e-6;
const AIM_EFFECT: f64 = 3e-6;

pub fn measure(stopwatch: &mut Stopwatch) {
    stopwatch.heading("taking in");
    let components = data::spread(EFFECTS);
    let item = Item { what: "a component into a sketch", count: EFFECTS, aim: Aim::Seconds(AIM_COMPONENT) };
    let mut sketch = Sketch::new();
    stopwatch.time(
        &item,
        || (),
        |()| components.iter().try_for_each(|component| sketch.add(std::slice::from_ref(component))),
    );
    for variants in VARIANTS {
        let what = format!("an effect of a block of {variants}, decomposed, into three sketches");
        let count = EFFECTS / variants;
        let blocks = data::blocks(count, variants);
        let item = Item { what: &what, count: count * variants, aim: Aim::Seconds(AIM_EFFECT) };
        let mut sketches = Sketches::default();
        stopwatch.time(
            &item,
            || blocks.clone(),
            |blocks| {
                for block in blocks {
                    let member = Member::new(block, 0).expect("in range");
                    sketches.add(&member).expect("in range");
                }
            },
        );
    }
}
