//! Where in a message a fault stands, as a JSON path such as `$.results[0].treatments[1].n`.

use std::fmt;

/// A path that is built on the stack while a message is read and written out only when something is refused.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(super) fn item(&'a self, index: usize) -> Path<'a> {
        Path::Item(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("$"),
            Path::Field(parent, name) if is_plain(name) => write!(f, "{parent}.{name}"),
            Path::Field(parent, name) => write!(f, "{parent}[{}]", quote(name)),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    (1..=QUOTED_CHARS).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const QUOTED_CHARS: usize = 60;

/// Producer's text as it may stand in a sentence: escaped, because tables cannot hold every character, and cut short.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
