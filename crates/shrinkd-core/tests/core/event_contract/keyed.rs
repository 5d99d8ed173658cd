//! Messages from Kafka: their keys, the frame in front of their payloads, and what a payload looks like that is not JSON.

use shrinkd_core::{KeyRule, MAX_MESSAGE_BYTES, Message, Reason, Refusal, decode, decode_keyed};

use super::corpus::{GOOD, good_messages};

const KEY: Option<&[u8]> = Some(b"exp-1");

/// A payload as Confluent's serializers write it.
fn framed(content: &[u8]) -> Vec<u8> {
    [&[0, 0, 1, 0x86, 0xa1], content].concat()
}

fn refused(payload: &[u8]) -> Refusal {
    decode_keyed(KeyRule::Any, None, Some(payload)).expect_err("not an event")
}

#[test]
fn a_frame_in_front_of_json_is_taken_off() {
    for (name, text) in good_messages().into_iter().filter(|(_, text)| text.len() + 5 <= MAX_MESSAGE_BYTES) {
        let message = decode(text.as_bytes());
        assert_eq!(decode_keyed(KeyRule::Any, None, Some(&framed(text.as_bytes()))), message, "{name}");
    }
    assert!(decode_keyed(KeyRule::ExperimentId, KEY, Some(&framed(format!(" \n{GOOD}").as_bytes()))).is_ok());
    let refusal = decode(&framed(GOOD.as_bytes())).unwrap_err();
    assert_eq!(refusal.reason, Reason::MalformedJson, "files have no frames");
    assert!(
        refusal.detail.contains("framing (schema id 100001), which is taken off messages from Kafka only"),
        "{refusal}"
    );
}

#[test]
fn what_is_wrong_behind_a_frame_is_said_as_without_it() {
    let version = GOOD.replace("\"schema_version\": 1", "\"schema_version\": 3");
    assert_eq!(refused(&framed(version.as_bytes())), decode(version.as_bytes()).unwrap_err());
    let cut_short = &GOOD.as_bytes()[..40];
    let (plain, behind) = (refused(cut_short).to_string(), refused(&framed(cut_short)).to_string());
    assert_eq!(behind, format!("{plain}; the frame in front of it (schema id 100001) is not counted"));
}

#[test]
fn a_frame_counts_towards_the_limit_of_a_message() {
    let padded = |bytes: usize| format!("{GOOD}{}", " ".repeat(bytes - GOOD.len()));
    let most = framed(padded(MAX_MESSAGE_BYTES - 5).as_bytes());
    assert!(decode_keyed(KeyRule::ExperimentId, KEY, Some(&most)).is_ok());
    assert_eq!(refused(&framed(padded(MAX_MESSAGE_BYTES - 4).as_bytes())).reason, Reason::TooLarge);
}

#[test]
fn with_any_key_the_key_is_not_compared_but_that_of_a_tombstone_still_names_the_experiment() {
    for key in [None, Some(b"exp-2".as_slice()), Some(b"\xff"), Some(b"")] {
        assert!(decode_keyed(KeyRule::Any, key, Some(GOOD.as_bytes())).is_ok(), "{key:?}");
        let strict = decode_keyed(KeyRule::ExperimentId, key, Some(GOOD.as_bytes())).unwrap_err();
        assert_eq!(strict.reason, Reason::KeyMismatch, "{key:?}");
    }
    let withdrawn = Ok(Message::Tombstone { experiment_id: "exp-1".to_owned() });
    assert_eq!(decode_keyed(KeyRule::Any, KEY, None), withdrawn);
    for (key, reason) in [
        (None, Reason::KeyMismatch),
        (Some(b"\xff".as_slice()), Reason::KeyMismatch),
        (Some(b"a\0b"), Reason::InvalidIdentifier),
    ] {
        assert_eq!(decode_keyed(KeyRule::Any, key, None).unwrap_err().reason, reason, "{key:?}");
    }
}

/// `{"schema_version": ..}` in two bytes a letter.
fn utf16(is_little_endian: bool) -> Vec<u8> {
    let bytes = |unit: u16| if is_little_endian { unit.to_le_bytes() } else { unit.to_be_bytes() };
    GOOD.encode_utf16().flat_map(bytes).collect()
}

/// A record of an id, a revision and a number, in Avro: lengths and whole numbers are zigzag-encoded.
const AVRO: &[u8] = b"\x0aexp-1\x0e\x00\x00\x00\x00\x00\x00\xf0\x3f";
/// The same in Protobuf: fields 1 to 3.
const PROTOBUF: &[u8] = b"\x0a\x05exp-1\x10\x07\x19\x00\x00\x00\x00\x00\x00\xf0\x3f";

#[test]
fn a_payload_that_is_not_json_is_refused_with_what_it_looks_like() {
    let bom = format!("\u{feff}{GOOD}").into_bytes();
    let with_bom = |bytes: Vec<u8>, bom: [u8; 2]| [bom.to_vec(), bytes].concat();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\x56".to_vec(), "gzip: send the JSON itself"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x58\x09\0".to_vec(), "zstd: send the JSON itself"),
        ("LZ4", b"\x04\x22\x4d\x18\x64\x40\xa7".to_vec(), "LZ4: send the JSON itself"),
        ("Avro, framed", framed(AVRO), "Avro in Confluent's framing (schema id 100001): send JSON"),
        ("Avro of null and a text, framed", framed(b"\0\x0aexp-1"), "Avro in Confluent's framing"),
        ("Protobuf, framed", framed(&[b"\0", PROTOBUF].concat()), "Protobuf in Confluent's framing (schema id 100001)"),
        ("Protobuf, framed, the second message", framed(&[b"\x02\x02", PROTOBUF].concat()), "Protobuf in Confluent's"),
        ("a frame around gzip", framed(b"\x1f\x8b\x08\0\0\0\0"), "Confluent's framing"),
        ("Protobuf", PROTOBUF.to_vec(), "Protobuf: send JSON"),
        ("an Avro file", b"Obj\x01\x04\x16avro.schema".to_vec(), "an Avro file: send JSON"),
        ("an Avro object", [b"\xc3\x01\x11\x22\x33\x44\x55\x66\x77\x88", AVRO].concat(), "Avro: send JSON"),
        ("Parquet", b"PAR1\x15\x04\x15\x10".to_vec(), "Parquet: send JSON"),
        ("MessagePack", b"\x82\xaeschema_version\x01\xadexperiment_id\xa5exp-1".to_vec(), "MessagePack: send JSON"),
        ("a CSV header", b"experiment,metric,variant,n,mean".to_vec(), "CSV: `shrinkd convert --from csv`"),
        ("a line of CSV", b"exp-1,conversion,B,1000,0.112".to_vec(), "CSV: `shrinkd convert --from csv`"),
        ("CSV with NaN", b"exp-1;conversion;B;NaN\r\n".to_vec(), "CSV: "),
        ("TSV", b"exp-1\tconversion\tB\t1000".to_vec(), "CSV: "),
        ("UTF-8 with a BOM", bom, "leave out the byte order mark"),
        ("UTF-16LE", utf16(true), "UTF-16: send UTF-8"),
        ("UTF-16BE", utf16(false), "UTF-16: send UTF-8"),
        ("UTF-16LE with a BOM", with_bom(utf16(true), [0xff, 0xfe]), "UTF-16: send UTF-8"),
        ("UTF-16BE with a BOM", with_bom(utf16(false), [0xfe, 0xff]), "UTF-16: send UTF-8"),
        ("a Python dict", b"{'schema_version': 1, 'experiment_id': 'exp-1'}".to_vec(), "json.dumps"),
    ];
    for (name, bytes, says) in table {
        let refusal = refused(&bytes);
        assert_eq!(refusal.reason, Reason::MalformedJson, "{name}");
        assert!(refusal.detail.contains("it looks like ") && refusal.detail.contains(says), "{name}: {refusal}");
        assert!(!refusal.detail.chars().any(char::is_control), "{name}: {refusal:?}");
    }
}

#[test]
fn json_with_a_mistake_looks_like_nothing_else() {
    let spoilt = GOOD.replacen("exp-1", "exp\0", 1);
    let latin = [b"{\"experiment_id\": \"caf\xe9\", \"revision\": 1, ", GOOD.as_bytes()].concat();
    for (bytes, says) in [
        (&GOOD.as_bytes()[..40], "it is cut short"),
        (b"{", "it is cut short"),
        (b"{\"schema_version\": NaN}", "JSON has no NaN"),
        (spoilt.as_bytes(), "not JSON: control character"),
        (&latin, "not UTF-8 from byte"),
        (b"hello", "not JSON: expected value"),
        (b"\0", "not JSON"),
        (b"\0\0\0\0\x01", "not JSON"),
        (b"", "not JSON: EOF"),
    ] {
        let refusal = refused(bytes);
        assert_eq!(refusal.reason, Reason::MalformedJson, "{refusal}");
        assert!(refusal.detail.contains(says) && !refusal.detail.contains("looks like"), "{refusal}");
    }
}
