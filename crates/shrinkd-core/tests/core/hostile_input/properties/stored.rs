//! What a database gives back, after damage: cells, sketches, packed statistics, blocks, components, nodes and names.

use shrinkd_core::{
    ControlVarianceSource, ExperimentLedger, Measured, Message, PopulationName, Properties, StoredResult, decode, pack,
    unpack,
};
use shrinkd_model::{
    Block, BlockPosterior, Cell, Component, Correlation, Direction, Likelihood, Member, Node, Sketch, SketchLikelihood,
    Sketches, cell_from_bytes, cell_to_bytes, prob_best,
};

use super::choices::Choices;
use super::message::message;

pub fn holds(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    match choices.byte() % 5 {
        0 => cells(choices.rest()),
        1 => sketch(choices),
        2 => packed(choices.rest()),
        3 => ledger(choices),
        _ => name(choices.rest()),
    }
}

/// A cell from the beginning of these bytes, and how many of them it took.
fn read_cell(bytes: &[u8]) -> Option<(usize, Cell)> {
    let mut rest = bytes;
    cell_from_bytes(&mut rest).map(|cell| (bytes.len() - rest.len(), cell))
}

fn written(cell: &Cell) -> Vec<u8> {
    let mut bytes = Vec::new();
    cell_to_bytes(cell, &mut bytes);
    bytes
}

/// Bytes that are a cell are what is written of it; any cell comes back as it was and can be taken out again.
fn cells(bytes: &[u8]) {
    if let Some((read, cell)) = read_cell(bytes) {
        assert_eq!(written(&cell), bytes[..read]);
    }
    // The beginning is repeated to the length of a cell, so that short inputs reach all of it.
    let mut bytes = bytes.iter().copied().chain([0]).cycle();
    let mut cell = Cell::default();
    cell.as_flattened_mut()
        .fill_with(|| i128::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or_default())));
    let written = written(&cell);
    assert_eq!(read_cell(&written), Some((written.len(), cell)));
    let mut sketch = Sketch::new();
    let octave = (cell[0][0] % 400) as i16;
    sketch.add_cell(octave, &cell);
    check_likelihood(&sketch);
    sketch.add_cell(octave, &cell.map(|moment| moment.map(i128::wrapping_neg)));
    assert_eq!(sketch, Sketch::new());
}

/// A sketch of real components, and its cells, damaged.
fn sketch(choices: &mut Choices<'_>) {
    let mut sketch = Sketch::new();
    for _ in 0..choices.below(4) {
        let component = Component { lambda: choices.plausible(), a: choices.modest() / 16.0, b: choices.number() };
        let before = sketch.clone();
        match sketch.add(&[component, component]) {
            Ok(()) => assert_eq!(sketch.effects(), before.effects() + 2),
            Err(_) => assert_eq!(sketch, before, "what does not fit leaves no trace"),
        }
    }
    let mut damaged = Sketch::new();
    for (octave, cell) in sketch.cells() {
        let mut bytes = written(cell);
        assert_eq!(read_cell(&bytes), Some((bytes.len(), *cell)));
        choices.damage(&mut bytes);
        if let Some((length, read)) = read_cell(&bytes) {
            assert_eq!(written(&read), bytes[..length]);
            damaged.add_cell(octave, &read);
        }
    }
    check_likelihood(&damaged);
}

/// Damage can make the sums anything; reading them must end.
fn check_likelihood(sketch: &Sketch) {
    let likelihood = SketchLikelihood::new(sketch);
    _ = (likelihood.effects(), likelihood.centre(), likelihood.at(1.0), likelihood.derivatives(0.0));
}

/// Any bytes as each of the packed columns, and what is then computed with them.
fn packed(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            if let Ok(measured) = unpack::<Measured>("block", bytes) {
                use_measured(&measured, &[Node { weight: 1.0, tau: 1.0, icc: 0.0, mu_mean: 0.0, mu_variance: 0.1 }]);
            }
        }
        1 => {
            if let Ok(components) = unpack::<Vec<Component>>("components", bytes) {
                let block = Block::shared_control(vec![1.0], vec![1.0], 0.5).expect("a block");
                // Sketches refuse what could not have been added.
                let _ = Sketches::default().subtract(&Member::restore(block, components, 7));
            }
        }
        _ => {
            if let Ok(nodes) = unpack::<Vec<Node>>("nodes", bytes)
                && nodes.len() < 64
            {
                let block = Block::shared_control(vec![1.0, 2.0], vec![1.0, 1.5], 0.5).expect("a block");
                let variants = vec!["a".to_owned(), "b".to_owned()];
                let raw_variances = vec![1.0; 2];
                use_measured(
                    &Measured {
                        variants,
                        block,
                        raw_variances,
                        is_continuity_corrected: false,
                        control_variance_source: ControlVarianceSource::Given,
                    },
                    &nodes,
                );
            }
        }
    }
}

/// What a publish does with a block and the nodes of a fit; figures of damaged nodes may be anything.
fn use_measured(Measured { variants, block, .. }: &Measured, nodes: &[Node]) {
    assert_eq!(variants.len(), block.len(), "a name for each effect");
    if !nodes.is_empty() {
        let posterior = BlockPosterior::new(block, nodes);
        for i in 0..block.len() {
            posterior.intervals(i, &posterior.estimate(i));
        }
        _ = prob_best(block, nodes, Direction::Decrease);
    }
    if let Ok(member) = Member::new(block.clone(), 0) {
        let mut sketches = Sketches::default();
        sketches.add(&member).expect("a member fits");
        check_likelihood(&sketches.of(Correlation::Modelled));
    }
}

/// What was stored of an experiment, one of its columns damaged: an error, or a ledger that goes on.
fn ledger(choices: &mut Choices<'_>) {
    let mut ledger = ExperimentLedger::default();
    let mut last = None;
    for _ in 0..1 + choices.below(3) {
        if let Ok(Message::Event(event)) = decode(&message(choices)) {
            ledger.apply(event.clone());
            last = Some(event);
        }
    }
    let mut retractions = ledger.retractions();
    if let Some(bytes) = retractions.as_mut().filter(|_| choices.one_in(4)) {
        choices.damage(bytes);
    }
    let keys = ledger.blocks().map(|(key, ..)| key).chain(ledger.pending().map(|(key, _)| key));
    let mut results = Vec::new();
    for key in keys {
        let Some((revision, mut statistics)) = ledger.statistics(key) else { return };
        let mut block = ledger.estimate(key).and_then(Result::ok).map(pack);
        match choices.byte() % 3 {
            0 => choices.damage(&mut statistics),
            1 => block.iter_mut().for_each(|bytes| choices.damage(bytes)),
            _ => {}
        }
        let Ok(measured) = block.map(|bytes| unpack("block", &bytes)).transpose() else { return };
        results.push(StoredResult {
            key: key.clone(),
            revision,
            statistics,
            properties: Properties::default(),
            measured,
        });
    }
    let Ok(mut restored) = ExperimentLedger::restore(ledger.latest().cloned(), retractions.as_deref(), results) else {
        return;
    };
    restored.blocks().for_each(|(_, _, measured)| use_measured(measured, &[]));
    if let Some(event) = last {
        restored.apply(event);
    }
    restored.tombstone();
}

/// Text names a population in one way or not at all.
fn name(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(name) = text.parse::<PopulationName>()
    {
        assert_eq!(name.to_string(), text);
        assert_eq!(
            PopulationName::from(name.key().clone()).to_string().parse().as_ref().map(PopulationName::key),
            Ok(name.key())
        );
    }
}
