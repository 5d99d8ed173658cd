//! Messages from Kafka with any key and any payload, framed or not.

use shrinkd_core::{KeyRule, MAX_MESSAGE_BYTES, Message, Reason, check_key, decode, decode_keyed, decode_tombstone};

use super::choices::Choices;
use super::decode::check_refusal;
use super::message::message;

/// The first byte says what the rest is: a payload as it is, one behind a frame, or an event behind a frame. The length of the key comes
/// next.
pub fn holds(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (form, length) = (choices.byte(), choices.below(16));
    let rest = choices.rest();
    let (key, content) = rest.split_at(length.min(rest.len()));
    let key = (form & 4 == 0).then_some(key);
    match form & 3 {
        0 => check(key, content),
        1 => check_framed(key, content),
        _ => check_framed(key, &message(&mut Choices::new(content))),
    }
    match decode_tombstone(key) {
        Ok(message) => assert_eq!(decode_keyed(KeyRule::Any, key, None), Ok(message)),
        Err(refusal) => check_refusal(&refusal),
    }
}

/// Without a frame a payload is what it is by itself, whatever its key; a key only takes away.
fn check(key: Option<&[u8]>, payload: &[u8]) {
    let any = decode_keyed(KeyRule::Any, key, Some(payload));
    if payload.first() != Some(&0) {
        assert_eq!(any, decode(payload));
    }
    check_rules(any, key, payload);
}

/// A frame makes no difference to content that can be read, nor to the reason why it cannot.
fn check_framed(key: Option<&[u8]>, content: &[u8]) {
    let payload = [&[0, 0, 0, 1, 2], content].concat();
    let (framed, plain) = (decode_keyed(KeyRule::Any, key, Some(&payload)), decode(content));
    match (&framed, &plain) {
        (Err(framed), Err(plain)) => assert_eq!(framed.reason, plain.reason, "{framed} and {plain}"),
        (Err(framed), Ok(_)) => assert!(framed.reason == Reason::TooLarge && payload.len() > MAX_MESSAGE_BYTES),
        (framed, plain) => assert_eq!(framed, plain),
    }
    check_rules(framed, key, &payload);
}

fn check_rules(any: Result<Message, shrinkd_core::Refusal>, key: Option<&[u8]>, payload: &[u8]) {
    let strict = decode_keyed(KeyRule::ExperimentId, key, Some(payload));
    match any {
        Ok(message) => assert_eq!(strict, check_key(&message, key).map(|()| message)),
        Err(refusal) => {
            check_refusal(&refusal);
            assert_eq!(strict, Err(refusal));
        }
    }
}
