//! Bytes to messages.
use super::{Message, Refusal};
/// Decodes one message.
pub fn decode(_bytes: &[u8]) -> Result<Message, Refusal> {
    todo!()
}
