//! What a file is, told by the beginning of what it holds.

use std::fmt;

use serde::de::IgnoredAny;

use super::BOM;

/// A form in which events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// NDJSON: a message a line.
    Lines,
    /// JSON messages over several lines, one after the other or in an array.
    Documents,
    /// CSV or TSV.
    Table,
}

/// A file in none of these forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUnderstood {
    /// What it seems to be.
    kind: Option<&'static str>,
    first_lines: Vec<String>,
}

impl std::error::Error for NotUnderstood {}

/// What is known by its first bytes, and not read.
const OTHERS: [(&[u8], &str); 12] = [
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"ARROW1", "an Arrow file"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x1f\x8b", "compressed twice"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];

/// Lines of a file that are shown, and characters of each.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARS: usize = 100;

impl Form {
    /// By the first bytes; `is_whole` says that there are no more. `None` if there is nothing but blanks.
    ///
    /// # Errors
    /// [`NotUnderstood`]
    pub fn of(head: &[u8], is_whole: bool) -> Result<Option<Form>, NotUnderstood> {
        let head = head.strip_prefix(BOM).unwrap_or(head);
        let text = head.trim_ascii_start();
        let lines = || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let is_message = |line: &[u8]| line.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok();
        match text.first() {
            None if is_whole => Ok(None),
            None => Ok(Some(Form::Lines)),
            Some(b'[') => Ok(Some(Form::Documents)),
            // What ends in the middle of a document began one that goes over several lines.
            Some(b'{') => Ok(Some(if is_message(lines().next().unwrap_or_default()) {
                Form::Lines
            } else {
                let mut documents = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
                match documents.next() {
                    Some(Ok(_)) => Form::Documents,
                    Some(Err(error)) if error.is_eof() && text.contains(&b'\n') && !lines().any(is_message) => {
                        Form::Documents
                    }
                    _ => Form::Lines,
                }
            })),
            // Something else stands before the first message.
            Some(_) if lines().any(is_message) => Ok(Some(Form::Lines)),
            Some(_)
                if OTHERS.iter().all(|(magic, _)| !text.starts_with(magic))
                    && !text.contains(&0)
                    // What is JSON behind something else has commas, too.
                    && !has_json(lines().next().unwrap_or_default())
                    && shrinkd_csv::delimiter(text).is_some() =>
            {
                Ok(Some(Form::Table))
            }
            Some(_) => Err(NotUnderstood::new(text)),
        }
    }
}

/// Whether a line is JSON from its first brace on. That alone stands in the names of columns, too: `metric {unit}`.
fn has_json(line: &[u8]) -> bool {
    let json = line.iter().position(|byte| *byte == b'{').and_then(|start| line.get(start..));
    json.is_some_and(|json| serde_json::from_slice::<IgnoredAny>(json).is_ok())
}

impl NotUnderstood {
    /// Of a file that begins with these bytes.
    pub fn new(text: &[u8]) -> NotUnderstood {
        let kind = OTHERS.iter().find(|(magic, _)| text.starts_with(magic)).map(|(_, kind)| *kind);
        let kind = kind.or_else(|| text.contains(&0).then_some("a binary file"));
        let shown = |line: &[u8]| String::from_utf8_lossy(line).trim_end().chars().take(SHOWN_CHARS).collect();
        let lines = text.split(|byte| *byte == b'\n').take(if kind.is_some() { 0 } else { SHOWN_LINES });
        NotUnderstood { kind, first_lines: lines.map(shown).filter(|line: &String| !line.is_empty()).collect() }
    }
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "it is {kind}")?,
            None => write!(f, "it is neither JSON nor a table with a header. It begins:")?,
        }
        for line in &self.first_lines {
            write!(f, "\n  {}", line.escape_debug())?;
        }
        let separator = if self.kind.is_some() { ". " } else { "\n" };
        write!(
            f,
            "{separator}Send NDJSON (one event a line; `shrinkd schema` has the fields), a JSON array, or CSV in UTF-8 with a header and \
             one row per arm, each plain or compressed with gzip or zstd"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_told_by_its_beginning() {
        for (text, form) in [
            ("{\"a\":1}\n{\"a\":2}\n", Form::Lines),
            ("\u{feff}{\"a\":1}\r\n", Form::Lines),
            ("{\"a\":NaN}\n{\"a\":2}\n", Form::Lines),
            ("starting up\n{\"a\":2}\n", Form::Lines),
            ("{\"a\":1,\n\nnot json\n{\"a\":2}\n", Form::Lines),
            ("\n{\n \"a\": 1\n}\n", Form::Documents),
            ("{\n \"a\": 1", Form::Documents),
            ("{\"a\":1}{\"a\":2}", Form::Documents),
            ("[{\"a\":1}]", Form::Documents),
            ("\u{feff}experiment,variant\n", Form::Table),
            ("experiment\tvariant\n", Form::Table),
            ("sep=;\nexperiment;variant\n", Form::Table),
            ("experiment,metric {unit},variant\n", Form::Table),
        ] {
            assert_eq!(Form::of(text.as_bytes(), true), Ok(Some(form)), "{text}");
        }
        assert_eq!(Form::of(b" \n", true), Ok(None));
        assert_eq!(Form::of(b"", true), Ok(None));
    }

    #[test]
    fn what_is_in_none_of_them_is_shown_or_named_with_what_to_send() {
        let told = |bytes: &[u8]| Form::of(bytes, true).expect_err("no form").to_string();
        assert!(told(b"PAR1\0\0").starts_with("it is a Parquet file. Send NDJSON"), "{}", told(b"PAR1\0\0"));
        assert!(told(b"\xff\xfea\0,\0").starts_with("it is UTF-16. Send"));
        assert!(told(&[0; 100]).starts_with("it is a binary file. Send"));
        let text = told(b"hello\nworld\n");
        assert!(text.contains("begins:\n  hello\n  world\nSend NDJSON"), "{text}");
        let text = told(b"INFO {\"a\": 1, \"b\": 2}\n");
        assert!(text.contains("begins:\n  INFO {"), "{text}");
    }
}
