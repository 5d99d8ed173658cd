//! Keeping secrets out of whatever is printed.
//!
//! The rule: a value is printed only where its name is on a list of harmless ones ([`Properties`](super::Properties),
//! [`StoreUrl`](super::StoreUrl)), an error never repeats a text that was refused, and texts that come from elsewhere are
//! redacted.

/// Replaces a secret where it would be printed.
pub const MASK: &str = "***";

/// The shortest part of a secret that is taken for one. Shorter words are in too many texts.
const SHORTEST_PART: usize = 4;

/// A text of a library or a server without these secrets, and without words that are a part of one: some errors quote a
/// value from where it became unreadable. It masks too much rather than too little.
pub(super) fn redact<'a>(text: &str, secrets: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut text = text.to_owned();
    for secret in secrets.clone().filter(|secret| secret.len() >= SHORTEST_PART) {
        text = text.replace(secret, MASK);
    }
    let is_secret = |word: &str| {
        let is_part = |secret: &str| secret == word || (word.len() >= SHORTEST_PART && secret.contains(word));
        !word.is_empty() && secrets.clone().any(is_part)
    };
    let masked = text.split_inclusive(char::is_whitespace).map(|part| {
        let word = part.trim_matches(|c: char| !c.is_alphanumeric());
        if is_secret(word) { part.replace(word, MASK) } else { part.to_owned() }
    });
    masked.collect()
}

/// A name that somebody chose, where it may be printed: one with other characters than names have may be a whole setting with
/// its value.
pub(super) fn plain_name(name: &str) -> &str {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '[' | ']');
    if name.chars().all(is_plain) { name } else { MASK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_its_parts_are_masked_in_a_text_and_nothing_else() {
        let secrets = ["principal=app hunter2", "p@ss", "x1"];
        let redacted = |text| redact(text, secrets.into_iter());
        assert_eq!(redacted("cannot read `principal=app hunter2`, line 3"), "cannot read `***`, line 3");
        assert_eq!(redacted("unrecognised value beginning at: hunter2"), "unrecognised value beginning at: ***");
        assert_eq!(redacted("user:p@ss@host \"x1\" x12"), "user:***@host \"***\" x12");
        assert_eq!(redacted("connection refused by db:5432"), "connection refused by db:5432");
    }
}
