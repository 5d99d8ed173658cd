//! Bytes to messages, and messages to what stands in the end.

use std::collections::BTreeMap;

use shrinkd_core::{
    Change, CurrentBlock, Event, ExperimentLedger, Measured, Message, Outcome, Reason, Refusal, ReportedResult,
    ResultKey, StoredResult, check_key, decode, pack, unpack,
};
use shrinkd_model::{Component, Member, Sketches};

use super::choices::Choices;
use super::message::message;

/// A first byte of 0, which begins no message, makes a history of the rest; else the bytes are one message.
pub fn holds(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, rest)) => history(&mut Choices::new(rest)),
        _ => take(bytes, &mut BTreeMap::new()),
    }
}

fn history(choices: &mut Choices<'_>) {
    let mut experiments = BTreeMap::new();
    for _ in 0..1 + choices.below(5) {
        take(&message(choices), &mut experiments);
    }
    experiments.into_values().for_each(Experiment::end);
}

/// One message, judged and taken by the experiment that it names.
fn take(bytes: &[u8], experiments: &mut BTreeMap<String, Experiment>) {
    let message = decode(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_spaced(&message, &decode(spaced(text).as_bytes()));
    }
    match message {
        Err(refusal) => check_refusal(&refusal),
        Ok(message) => {
            check_keys(&message);
            match message {
                Message::Event(event) => {
                    check_results(&event);
                    experiments.entry(event.experiment_id.clone()).or_default().apply(event);
                }
                Message::Tombstone { experiment_id } => {
                    experiments.remove(&experiment_id).into_iter().for_each(Experiment::end);
                }
            }
        }
    }
}

/// What tables, logs and people are told: a code of the list, and a short sentence that a column can hold.
pub fn check_refusal(refusal: &Refusal) {
    assert!(Reason::ALL.contains(&refusal.reason));
    assert!(!refusal.detail.is_empty() && refusal.detail.len() < 1_000, "{refusal}");
    assert!(!refusal.detail.chars().any(char::is_control), "{refusal}");
}

fn check_keys(message: &Message) {
    let (Message::Event(Event { experiment_id, .. }) | Message::Tombstone { experiment_id }) = message;
    assert_eq!(check_key(message, Some(experiment_id.as_bytes())), Ok(()));
    for key in [None, Some(&experiment_id.as_bytes()[1..])] {
        assert_eq!(check_key(message, key).unwrap_err().reason, Reason::KeyMismatch);
    }
}

fn check_results(event: &Event) {
    for (index, result) in event.results.iter().enumerate() {
        match result {
            Err(refusal) => {
                check_refusal(refusal);
                assert!(refusal.detail.starts_with(&format!("$.results[{index}]")), "{refusal}");
                assert!(refusal.reason >= Reason::SchemaViolation, "{refusal}");
            }
            Ok(ReportedResult::Whole { measurement, measured, findings, .. }) => {
                findings.refused.iter().for_each(check_refusal);
                assert_eq!(unpack("measurement", &pack(measurement)).as_ref(), Ok(measurement));
                check_measured(measured);
            }
            Ok(ReportedResult::Part { arms, .. }) => assert_eq!(unpack("arms", &pack(arms)).as_ref(), Ok(arms)),
            Ok(ReportedResult::Retraction { .. }) => {}
        }
    }
}

/// A measured block has a name for each effect, comes back from its bytes and fits a population.
fn check_measured(measured: &Measured) {
    let Measured { variants, block, raw_variances, .. } = measured;
    assert_eq!((variants.len(), raw_variances.len()), (block.len(), block.len()));
    assert!(raw_variances.iter().all(|variance| *variance > 0.0 && variance.is_finite()), "{raw_variances:?}");
    assert!(variants.windows(2).all(|pair| pair[0] < pair[1]), "{variants:?}");
    assert_eq!(unpack::<Measured>("measured", &pack(measured)).as_ref(), Ok(measured));
    Member::new(block.clone(), 0).expect("what is measured fits a population");
}

/// The same text with spaces around all that stands outside of strings: it says the same.
fn spaced(text: &str) -> String {
    let (mut out, mut is_inside, mut is_escaped) = (String::with_capacity(2 * text.len()), false, false);
    for letter in text.chars() {
        let is_structure = !is_inside && "{}[],:".contains(letter);
        out.extend(is_structure.then_some(' '));
        out.push(letter);
        out.extend(is_structure.then_some('\n'));
        is_inside ^= letter == '"' && !is_escaped;
        is_escaped = is_inside && letter == '\\' && !is_escaped;
    }
    out
}

fn check_spaced(plain: &Result<Message, Refusal>, spaced: &Result<Message, Refusal>) {
    let reason = |refusal: &Refusal| refusal.reason;
    match (plain, spaced) {
        (Ok(Message::Event(plain)), Ok(Message::Event(spaced))) => {
            // The detail may name the place in the text.
            let results = |event: &Event| -> Vec<_> {
                event.results.iter().map(|result| result.clone().map_err(|refusal| reason(&refusal))).collect()
            };
            assert_eq!(results(plain), results(spaced));
            let head = |event: &Event| Event { results: Vec::new(), ..event.clone() };
            assert_eq!(head(plain), head(spaced));
        }
        (_, Err(refusal)) if refusal.reason == Reason::TooLarge => {}
        (plain, spaced) => {
            assert_eq!(plain.as_ref().map_err(reason), spaced.as_ref().map_err(reason));
        }
    }
}

/// An experiment's ledger as the worker keeps it, with the sketches that its changes add up to.
#[derive(Default)]
struct Experiment {
    ledger: ExperimentLedger,
    sketches: Sketches,
    /// What was added of each key and is not taken back yet: the components as a store keeps them.
    held: BTreeMap<ResultKey, Vec<u8>>,
    events: Vec<Event>,
}

impl Experiment {
    fn apply(&mut self, event: Event) {
        let mut restored = self.restored();
        self.events.push(event.clone());
        let count = event.results.len();
        let applied = self.ledger.apply(event.clone());
        assert_eq!(restored.apply(event), applied, "a ledger goes on from its stored form as from itself");
        assert_eq!(restored, self.ledger);
        assert_eq!(applied.outcomes.len(), count);
        for outcome in &applied.outcomes {
            if let Outcome::Pending(refusal) | Outcome::Refused(refusal) = outcome {
                check_refusal(refusal);
            }
        }
        applied.changes.into_iter().for_each(|change| self.change(change));
        assert_eq!(self.restored(), self.ledger);
    }

    fn change(&mut self, Change { key, before, after }: Change) {
        assert!(before.is_some() || after.is_some());
        if let Some(CurrentBlock { measured, .. }) = before {
            let stored = self.held.remove(&key).expect("what is taken back was added");
            let components: Vec<Component> = unpack("components", &stored).expect("own bytes");
            let member = Member::restore(measured.block, components, 0);
            self.sketches.subtract(&member).expect("what was added can be taken back");
        }
        if let Some(CurrentBlock { measured, .. }) = after {
            let member = Member::new(measured.block, 0).expect("a block that stands fits");
            self.held.insert(key, pack(member.own_components()));
            self.sketches.add(&member).expect("a member fits");
        }
    }

    /// The ledger out of what a store would keep of it.
    fn restored(&self) -> ExperimentLedger {
        let keys = self.ledger.blocks().map(|(key, ..)| key).chain(self.ledger.pending().map(|(key, _)| key));
        let results = keys.map(|key| {
            let (revision, statistics) = self.ledger.statistics(key).expect("a result that stands");
            let measured = self.ledger.estimate(key).and_then(Result::ok).map(pack);
            let measured = measured.map(|bytes| unpack("block", &bytes).expect("own bytes"));
            let properties = self.ledger.properties(key).expect("a result");
            StoredResult { key: key.clone(), revision, statistics, properties, measured }
        });
        let (latest, retractions) = (self.ledger.latest().cloned(), self.ledger.retractions());
        ExperimentLedger::restore(latest, retractions.as_deref(), results).expect("own bytes")
    }

    /// What was applied may come again; the sketches are those of the blocks that stand; a tombstone leaves nothing.
    fn end(mut self) {
        let mut again = self.ledger.clone();
        for event in self.events.drain(..).rev() {
            assert_eq!(again.apply(event).changes, [], "an event that comes again changes no block");
        }
        assert_eq!(again, self.ledger, "and nothing else");
        let mut standing = Sketches::default();
        for (_, _, measured) in self.ledger.blocks() {
            standing.add(&Member::new(measured.block.clone(), 0).expect("it fits")).expect("it fits");
        }
        assert_eq!(self.sketches, standing);
        let withdrawn = self.ledger.tombstone();
        withdrawn.into_iter().for_each(|change| self.change(change));
        assert_eq!(self.sketches, Sketches::default());
        assert_eq!(self.ledger, ExperimentLedger::default());
    }
}
