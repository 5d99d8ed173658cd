//! Messages with a key, as Kafka has them: the frame in front of a payload, and what the key has to be.

use serde::{Deserialize, Serialize};

use super::decode::{MAX_MESSAGE_BYTES, decode, message_too_large};
use super::form::Form;
use super::leaf::check_identifier;
use super::refusal::{Reason, Refusal, quote};
use super::{Event, Message};

/// What the key of a message with a payload has to be. The key of a tombstone is always an experiment's id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRule {
    /// The message's `experiment_id`: then all messages of an experiment are in one partition, in the order in which they were
    /// produced.
    #[default]
    ExperimentId,
    /// Anything, or null. Messages of one experiment may then be in several partitions, which are read in any order.
    Any,
}

/// Decodes a message from Kafka, of which the key is a part. A frame in front of the payload is taken off.
///
/// # Errors
/// As for [`decode`], [`check_key`] and [`decode_tombstone`]. The frame counts towards [`MAX_MESSAGE_BYTES`].
pub fn decode_keyed(rule: KeyRule, key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<Message, Refusal> {
    let Some(payload) = payload else { return decode_tombstone(key) };
    let message = decode_framed(payload)?;
    if rule == KeyRule::ExperimentId {
        check_key(&message, key)?;
    }
    Ok(message)
}

/// Compares a message with its key, which is null where the producer sent none.
///
/// # Errors
/// `key_mismatch` where the key is not the message's `experiment_id`: the key determines the partition, which all messages of
/// an experiment should share.
pub fn check_key(message: &Message, key: Option<&[u8]>) -> Result<(), Refusal> {
    let (Message::Event(Event { experiment_id, .. }) | Message::Tombstone { experiment_id }) = message;
    if key == Some(experiment_id.as_bytes()) {
        return Ok(());
    }
    let found = key.map_or("null".to_owned(), |key| quote(&String::from_utf8_lossy(key)));
    let detail = format!(
        "the key is {found}, it must be the experiment_id {}; a topic with other keys can be read with source.kafka.key = \"any\"",
        quote(experiment_id)
    );
    Err(Refusal::new(Reason::KeyMismatch, detail))
}

/// Decodes a message without a payload, which withdraws the experiment that its key names.
///
/// # Errors
/// `key_mismatch` where there is no key or it is not UTF-8, `invalid_identifier` where it could not name an experiment.
pub fn decode_tombstone(key: Option<&[u8]>) -> Result<Message, Refusal> {
    let mismatch = |found: &str| {
        let detail = format!("the key is {found}; a null payload withdraws the experiment whose id is the key");
        Refusal::new(Reason::KeyMismatch, detail)
    };
    let key = key.ok_or_else(|| mismatch("null"))?;
    let experiment_id = std::str::from_utf8(key).map_err(|_| mismatch("not UTF-8"))?;
    check_identifier(experiment_id)
        .map_err(|refusal| Refusal { detail: format!("the key {}", refusal.detail), ..refusal })?;
    Ok(Message::Tombstone { experiment_id: experiment_id.to_owned() })
}

/// Decodes a payload, perhaps in a frame. No JSON begins with the zero byte of a frame.
fn decode_framed(payload: &[u8]) -> Result<Message, Refusal> {
    let Some(Framed { schema_id, content }) = Framed::read(payload) else { return decode(payload) };
    if payload.len() > MAX_MESSAGE_BYTES {
        return Err(message_too_large(payload.len()));
    }
    decode(content).map_err(|refusal| match (refusal.reason, Form::of(payload)) {
        (Reason::MalformedJson, Some(Form::FramedJson { .. })) => {
            let detail = format!("{}; the frame in front of it (schema id {schema_id}) is not counted", refusal.detail);
            Refusal { detail, ..refusal }
        }
        (Reason::MalformedJson, Some(form)) => {
            Refusal::new(Reason::MalformedJson, format!("the message is not JSON; it looks like {form}"))
        }
        _ => refusal,
    })
}

/// A payload in Confluent's [wire format][1]: a zero byte, the id of its schema in the registry as four bytes, big-endian, and the
/// content that a serializer has made. That of the JSON Schema serializer is JSON.
///
/// [1]: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
pub(super) struct Framed<'a> {
    pub schema_id: u32,
    pub content: &'a [u8],
}

impl<'a> Framed<'a> {
    /// `None` where there is no frame, or nothing in it.
    pub fn read(bytes: &'a [u8]) -> Option<Framed<'a>> {
        let (&[0, a, b, c, d], content) = bytes.split_first_chunk()? else { return None };
        (!content.is_empty()).then(|| Framed { schema_id: u32::from_be_bytes([a, b, c, d]), content })
    }
}
