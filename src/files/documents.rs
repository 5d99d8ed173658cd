//! JSON messages one after the other, or in arrays, whatever the white space between and in them. In bounded memory: a message is
//! held, never the array.

use std::io::{self, BufRead};

use shrinkd_core::MAX_MESSAGE_BYTES;

/// Cuts a stream of JSON into its documents. What they hold is left to the decoder.
pub(super) struct Documents<R> {
    reader: R,
    /// Whether documents are, at present, the elements of an array.
    is_array: bool,
}

/// Where in a document a byte stands.
#[derive(Default)]
struct Scan {
    depth: u32,
    is_string: bool,
    is_escaped: bool,
}

/// What to do with a byte.
enum Step {
    /// It belongs to the document.
    Take,
    /// Likewise, and it is the last.
    TakeLast,
    /// White space, which says nothing.
    Skip,
    /// It stands after the document: a comma, or the end of the array.
    Stop,
}

impl<R: BufRead> Documents<R> {
    pub(super) fn new(reader: R) -> Documents<R> {
        Documents { reader, is_array: false }
    }

    /// Appends the next document without the white space outside its strings, and returns how many bytes it has. Of one that is too
    /// large to be a message only the beginning is appended. `None` at the end.
    ///
    /// # Errors
    /// Where reading fails.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let (mut scan, mut bytes) = (Scan::default(), 0);
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                // An array that does not end was cut short: that is a document, too, which the decoder refuses.
                let is_cut = std::mem::take(&mut self.is_array);
                return Ok((bytes > 0 || is_cut).then_some(bytes));
            }
            for (i, &byte) in buffer.iter().enumerate() {
                if byte == b'[' && bytes == 0 && !self.is_array {
                    self.is_array = true;
                    continue;
                }
                let step = scan.step(byte);
                if matches!(step, Step::Take | Step::TakeLast) {
                    bytes += 1;
                    if bytes <= MAX_MESSAGE_BYTES + 1 {
                        out.push(byte);
                    }
                }
                let is_last = match step {
                    Step::TakeLast => true,
                    Step::Stop => {
                        self.is_array &= byte != b']';
                        bytes > 0
                    }
                    Step::Take | Step::Skip => false,
                };
                if is_last {
                    self.reader.consume(i + 1);
                    return Ok(Some(bytes));
                }
            }
            let length = buffer.len();
            self.reader.consume(length);
        }
    }
}

impl Scan {
    fn step(&mut self, byte: u8) -> Step {
        if self.is_string {
            match byte {
                _ if std::mem::take(&mut self.is_escaped) => {}
                b'\\' => self.is_escaped = true,
                b'"' => self.is_string = false,
                _ => {}
            }
            return Step::Take;
        }
        match byte {
            b'"' => self.is_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Step::TakeLast;
                }
            }
            b',' | b']' if self.depth == 0 => return Step::Stop,
            _ if byte.is_ascii_whitespace() => return Step::Skip,
            _ => {}
        }
        Step::Take
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn documents(text: &str) -> Vec<String> {
        let mut documents = Documents::new(io::BufReader::with_capacity(3, text.as_bytes()));
        let mut read = Vec::new();
        loop {
            let mut document = Vec::new();
            match documents.next(&mut document).expect("memory") {
                Some(bytes) => {
                    assert_eq!(bytes, document.len());
                    read.push(String::from_utf8(document).expect("UTF-8"));
                }
                None => return read,
            }
        }
    }

    #[test]
    fn documents_are_cut_wherever_white_space_stands_and_strings_are_kept() {
        let want = [r#"{"a":"} ] \" , {","b":[1,2]}"#, r#"{"c":2}"#];
        for text in [
            "[\n  {\"a\": \"} ] \\\" , {\", \"b\": [1, 2]},\n  {\"c\": 2}\n]\n",
            "{\n\"a\": \"} ] \\\" , {\",\n\"b\": [1,\n2]}\n{\"c\": 2}",
            "{\"a\":\"} ] \\\" , {\",\"b\":[1,2]}{\"c\":2}",
        ] {
            assert_eq!(documents(text), want, "{text}");
        }
        assert_eq!(documents("[]"), [""; 0]);
        assert_eq!(documents("[1, \"x\", null]"), ["1", "\"x\"", "null"]);
        assert_eq!(
            documents("[{\"a\":1}]\n[{\"b\":[2]}, 3][]{\"c\":4}[5]"),
            ["{\"a\":1}", "{\"b\":[2]}", "3", "{\"c\":4}", "5"]
        );
    }

    proptest! {
        /// Of each: a string of any characters, whether it is pretty-printed, and whether it stands in an array with the one before it.
        #[test]
        fn objects_are_cut_as_they_were_written_in_arrays_or_not(
            written in prop::collection::vec((any::<String>(), any::<bool>(), any::<bool>()), 0..8),
        ) {
            let (mut text, mut want, mut is_array) = (String::new(), Vec::new(), false);
            for (string, is_pretty, goes_on) in &written {
                let value = json!({string: [string, 1.5, {"[": string}], "}": null});
                let pretty = if *is_pretty { serde_json::to_string_pretty(&value) } else { Ok(value.to_string()) };
                text += match (is_array, *goes_on) {
                    (true, true) => ",\n",
                    (true, false) => "]",
                    (false, true) => "\n[",
                    (false, false) => "\n",
                };
                is_array = *goes_on;
                text += &pretty.expect("JSON");
                want.push(value.to_string());
            }
            text += if is_array { "]" } else { "" };
            prop_assert_eq!(documents(&text), want);
        }
    }

    #[test]
    fn an_array_that_is_cut_short_ends_with_what_is_no_document() {
        assert_eq!(documents("[{\"a\":1}, {\"b\":"), ["{\"a\":1}", "{\"b\":"]);
        assert_eq!(documents("[{\"a\":1},"), ["{\"a\":1}", ""]);
    }
}
