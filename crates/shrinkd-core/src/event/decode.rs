//! Bytes to messages, and what makes a message invalid as a whole.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use time::OffsetDateTime;

use super::form::Form;
use super::leaf::{SCHEMA_VERSION_WITH_KIND, check_identifier};
use super::lenient::Lenient;
use super::refusal::{Path, Reason, Refusal, Refusals};
use super::results::read_results;
use super::unknown::{Part, UnknownFields};
use super::wire::{self, MAX_RESULTS};
use super::{Event, Message};

/// Messages of more bytes are refused unread.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Decodes one message and validates it as far as that is possible without state.
///
/// # Errors
/// What makes the message invalid as a whole: `too_large`, `malformed_json`, `unsupported_version`,
/// `schema_violation`, `invalid_identifier`. The refusal of a result is that result's entry in [`Event::results`].
pub fn decode(bytes: &[u8]) -> Result<Message, Refusal> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(message_too_large(bytes.len()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| malformed(bytes, &format!("not UTF-8 from byte {} on", error.valid_up_to()), ""))?;
    let parsed: Lenient<wire::Event<'_>> = serde_json::from_str(text).map_err(|error| unparsed(text, &error))?;
    let mut unknown = UnknownFields::default();
    parsed.note_unknown(Path::Root, &mut unknown);
    read(parsed.shape().map_err(|refusal| refusal.at(Path::Root))?, unknown)
}

/// The refusal of a message of this many bytes, for readers that do not keep them all.
pub fn message_too_large(bytes: usize) -> Refusal {
    Refusal::new(Reason::TooLarge, format!("the message has {bytes} bytes, at most {MAX_MESSAGE_BYTES} are accepted"))
}

fn read(event: wire::Event<'_>, mut unknown: UnknownFields) -> Result<Message, Refusal> {
    let mut refusals = Refusals::default();
    let root = Path::Root;
    refusals.note_repeated_key(root, event.repeated());
    let version = refusals.required(root.field("schema_version"), event.schema_version.as_ref());
    let experiment_id =
        refusals.required(root.field("experiment_id"), event.experiment_id.as_ref()).unwrap_or_default();
    if refusals.optional(root.field("retracted"), event.retracted.as_ref()) == Some(true) {
        if event.results.is_some() {
            refusals.note(root.field("results"), Refusal::violation("must not be given with \"retracted\": true"));
        }
        refusals.into_result()?;
        return Ok(Message::Tombstone { experiment_id: experiment_id.into_owned() });
    }
    let kind = refusals.optional(root.field("kind"), event.kind.as_ref());
    if kind.is_some() && version.is_some_and(|version| version < SCHEMA_VERSION_WITH_KIND) {
        let detail = format!(
            "needs \"schema_version\": {SCHEMA_VERSION_WITH_KIND}, so that workers that do not know it refuse it"
        );
        refusals.note(root.field("kind"), Refusal::violation(detail));
    }
    if event.revision.is_none() {
        let detail = "is required and is missing or null, send 1 if results are never corrected";
        refusals.note(root.field("revision"), Refusal::violation(detail));
    }
    let revision = refusals.optional(root.field("revision"), event.revision.as_ref()).unwrap_or_default();
    let completed_at = refusals.required(root.field("completed_at"), event.completed_at.as_ref());
    let started_at = refusals.optional(root.field("started_at"), event.started_at.as_ref());
    if let Some((started_at, completed_at)) =
        started_at.zip(completed_at).filter(|(started, completed)| started > completed)
    {
        let detail = format!("is {started_at}, after completed_at, which is {completed_at}");
        refusals.note(root.field("started_at"), Refusal::violation(detail));
    }
    let shipped_variant = refusals.optional(root.field("shipped_variant"), event.shipped_variant.as_ref());
    let event_id = refusals.optional(root.field("event_id"), event.event_id.as_ref());
    let labels = event
        .labels
        .and_then(|sent| refusals.accept(root.field("labels"), sent.shape()))
        .map(|labels| read_labels(labels, &mut refusals));
    let decision = refusals.optional(root.field("decision"), event.decision.as_ref()).flatten();
    if event.results.is_none() {
        refusals.note(root.field("results"), Refusal::missing());
    }
    let results = event
        .results
        .and_then(|sent| refusals.accept(root.field("results"), sent.shape()))
        .map(|results| results.0)
        .unwrap_or_default();
    if results.len() > MAX_RESULTS {
        let detail =
            format!("has more than {MAX_RESULTS} results, split them over several messages of the same revision");
        refusals.note(root.field("results"), Refusal::violation(detail));
    }
    // A missing required field has been noted, so that no default below gets past this line.
    refusals.into_result().map_err(|refusal| unknown.explain(refusal))?;
    Ok(Message::Event(Event {
        revision,
        completed_at: completed_at.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        results: read_results(&results, &experiment_id, event_id.is_some(), &mut unknown),
        unknown_fields: unknown.into_vec(),
        experiment_id: experiment_id.into_owned(),
        event_id: event_id.map(Cow::into_owned),
        kind: kind.unwrap_or_default(),
        started_at,
        shipped_variant: shipped_variant.map(Cow::into_owned),
        labels: labels.unwrap_or_default(),
        decision,
    }))
}

fn read_labels(labels: wire::Labels<'_>, refusals: &mut Refusals) -> BTreeMap<String, String> {
    let at = Path::Root.field("labels");
    refusals.note_repeated_key(at, labels.repeated.as_deref());
    let mut read = BTreeMap::new();
    for (key, value) in labels.entries {
        if let Err(refusal) = check_identifier(&key) {
            refusals.note(at.field(&key), refusal);
        }
        if let Some(value) = refusals.optional(at.field(&key), value.as_ref()) {
            read.insert(key.into_owned(), value.into_owned());
        }
    }
    read
}

/// Why the parser failed: the text is not JSON, or it is JSON with an invalid value, such as half a surrogate pair in a
/// key.
fn unparsed(text: &str, error: &serde_json::Error) -> Refusal {
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Refusal::violation(format!("cannot be read: {error}")).at(Path::Root);
    }
    let hint = if text.contains("NaN") || text.contains("Infinity") {
        "; JSON has no NaN and no Infinity: send null instead, which leaves out that variant alone"
    } else if error.is_eof() {
        "; it is cut short, or goes on in the next message or line: each event is one message, in a file one line"
    } else {
        ""
    };
    malformed(text.as_bytes(), &format!("not JSON: {error}"), hint)
}

/// Says what the bytes look like; where they look like nothing else, the hint.
fn malformed(bytes: &[u8], problem: &str, hint: &str) -> Refusal {
    let hint = Form::of(bytes).map_or_else(|| hint.to_owned(), |form| format!("; it looks like {form}"));
    Refusal::new(Reason::MalformedJson, format!("the message is {problem}{hint}"))
}
