//! What holds whatever bytes come from outside: one room for each fuzz target, and the same for the tests of `make test`.
//!
//! | room | what is made of the bytes | promise |
//! | --- | --- | --- |
//! | `decode` | messages, well-formed with hostile spots or as they are, one after the other | a typed refusal or an event that every later step can take, store, restore and take back |
//! | `block` | measurements with hostile numbers | a typed refusal or a block whose components, sketches and estimates are finite and exact |
//! | `framing` | a key, and a payload with or without a frame | the same message or reason with a frame as without; the key only takes away |
//! | `stored` | what a database might hold after damage | a typed error or a value, without a panic |
//!
//! A property is a function of bytes, so that libFuzzer's mutations and proptest's cases reach it alike; `choices` and
//! `message` turn the bytes into structure. Compiled into `fuzz/` by its path.

pub mod block;
pub mod choices;
pub mod decode;
pub mod framing;
mod message;
pub mod stored;
