//! What bytes that are not JSON look like, for the sentence that refuses them. A guess from the first bytes, or from a structure
//! that text would hardly have; it decides nothing.

use std::fmt;

use super::keyed::Framed;

/// A form in which messages come that should be JSON in UTF-8. Shown as a clause: what it is, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    ByteOrderMark,
    Utf16,
    /// By the name of the format.
    Compressed(&'static str),
    AvroFile,
    /// Avro's single-object encoding.
    AvroObject,
    Parquet,
    FramedAvro {
        schema_id: u32,
    },
    FramedProtobuf {
        schema_id: u32,
    },
    FramedJson {
        schema_id: u32,
    },
    Protobuf,
    MessagePack,
    Csv,
    PythonDict,
}

/// The first bytes of formats that begin with a fixed number.
const MAGIC: [(&[u8], Form); 11] = [
    (b"\xef\xbb\xbf", Form::ByteOrderMark),
    (b"\xff\xfe", Form::Utf16),
    (b"\xfe\xff", Form::Utf16),
    (b"\x1f\x8b", Form::Compressed("gzip")),
    (b"\x28\xb5\x2f\xfd", Form::Compressed("zstd")),
    (b"\x04\x22\x4d\x18", Form::Compressed("LZ4")),
    (b"\xfd7zXZ\0", Form::Compressed("xz")),
    (b"PK\x03\x04", Form::Compressed("zip")),
    (b"Obj\x01", Form::AvroFile),
    (b"\xc3\x01", Form::AvroObject),
    (b"PAR1", Form::Parquet),
];

impl Form {
    /// The form that bytes have which could not be parsed as JSON; `None` if they look like JSON with a mistake in it, or like nothing
    /// that is known.
    pub fn of(bytes: &[u8]) -> Option<Form> {
        let magic = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic));
        if let Some(&(_, form)) = magic {
            return Some(form);
        }
        if is_utf16(bytes) {
            return Some(Form::Utf16);
        }
        if let Some(Framed { schema_id, content }) = Framed::read(bytes) {
            return Some(match content {
                _ if begins_json(content) => Form::FramedJson { schema_id },
                _ if is_framed_protobuf(content) => Form::FramedProtobuf { schema_id },
                _ => Form::FramedAvro { schema_id },
            });
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) => of_text(text),
            _ if begins_json(bytes) => None,
            _ if is_messagepack(bytes) => Some(Form::MessagePack),
            _ => is_protobuf(bytes).then_some(Form::Protobuf),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SEND_JSON: &str = "send JSON, plain or as Confluent's JSON Schema serializer writes it";
        match self {
            Form::ByteOrderMark => write!(f, "UTF-8 with a byte order mark: leave out the byte order mark"),
            Form::Utf16 => write!(f, "UTF-16: send UTF-8"),
            Form::Compressed(name) => write!(
                f,
                "{name}: send the JSON itself, and let the producer compress its batches (compression.type), which Kafka undoes"
            ),
            Form::AvroFile => write!(f, "an Avro file: {SEND_JSON}"),
            Form::AvroObject => write!(f, "Avro: {SEND_JSON}"),
            Form::Parquet => write!(f, "Parquet: {SEND_JSON}"),
            Form::FramedAvro { schema_id } => {
                write!(f, "Avro in Confluent's framing (schema id {schema_id}): {SEND_JSON}")
            }
            Form::FramedProtobuf { schema_id } => {
                write!(f, "Protobuf in Confluent's framing (schema id {schema_id}): {SEND_JSON}")
            }
            Form::FramedJson { schema_id } => write!(
                f,
                "JSON in Confluent's framing (schema id {schema_id}), which is taken off messages from Kafka only: leave out its \
                 first 5 bytes"
            ),
            Form::Protobuf => write!(f, "Protobuf: {SEND_JSON}"),
            Form::MessagePack => write!(f, "MessagePack: {SEND_JSON}"),
            Form::Csv => write!(f, "CSV: `shrinkd convert --from csv` makes events of it"),
            Form::PythonDict => write!(f, "a Python dict as it is printed: write it with json.dumps"),
        }
    }
}

fn of_text(text: &str) -> Option<Form> {
    let text = text.trim_start();
    if text.starts_with("{'") {
        return Some(Form::PythonDict);
    }
    if begins_json(text.as_bytes()) {
        return None;
    }
    let line = text.lines().next().unwrap_or_default();
    [',', ';', '\t'].iter().any(|&separator| line.matches(separator).count() >= 2).then_some(Form::Csv)
}

/// Whether an object or an array begins here, as all messages do that are JSON.
fn begins_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Two ASCII characters, of which the first could begin JSON, in either order of bytes.
fn is_utf16(bytes: &[u8]) -> bool {
    let (first, second) = match *bytes {
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] => (first, second),
        _ => return false,
    };
    matches!(first, b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t') && second.is_ascii() && second != 0
}

/// A map whose first key is a short name.
fn is_messagepack(bytes: &[u8]) -> bool {
    let key = match bytes {
        [0x81..=0x8f, key @ ..] | [0xde, _, _, key @ ..] | [0xdf, _, _, _, _, key @ ..] => key,
        _ => return false,
    };
    let name = match key {
        [length @ 0xa1..=0xbf, name @ ..] => name.get(..usize::from(length - 0xa0)),
        [0xd9, length, name @ ..] => name.get(..usize::from(*length)),
        _ => None,
    };
    name.is_some_and(|name| name.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')))
}

/// In a frame, Protobuf follows the path to its message within the schema: how many indexes, then each. Zero alone is the first
/// message. Long paths are left out, because they could be the length of a text in Avro, and the text.
fn is_framed_protobuf(content: &[u8]) -> bool {
    const MOST_INDEXES: u64 = 4;
    const LARGEST_INDEX: u64 = 15;
    // Each is zigzag-encoded: even where it is not negative.
    let number = |bytes: &mut &[u8]| varint(bytes).filter(|zigzag| zigzag % 2 == 0).map(|zigzag| zigzag / 2);
    let mut rest = content;
    let indexes = match number(&mut rest) {
        Some(count @ 0..=MOST_INDEXES) => count,
        _ => return false,
    };
    (0..indexes).all(|_| number(&mut rest).is_some_and(|index| index <= LARGEST_INDEX)) && is_protobuf(rest)
}

/// Whether the bytes are fields of Protobuf from the first to the last, and one of them has a length, as text does.
fn is_protobuf(mut bytes: &[u8]) -> bool {
    const LARGEST_FIELD: u64 = 1_000;
    let mut has_text = false;
    while !bytes.is_empty() {
        let Some(tag) = varint(&mut bytes).filter(|tag| (1..=LARGEST_FIELD).contains(&(tag >> 3))) else {
            return false;
        };
        let length = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut bytes).and_then(|length| usize::try_from(length).ok()),
            5 => Some(4),
            _ => None,
        };
        let Some((_, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else { return false };
        has_text |= tag & 7 == 2;
        bytes = rest;
    }
    has_text
}

/// Takes a number of 7 bits a byte, the lowest first, of at most 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
