//! The alert rules of deploy/prometheus with shorter durations, for tests that cannot wait for minutes.

/// Rules with shorter durations, and the numbers in them that are no durations, each with the name of its alert.
pub struct Shortened {
    pub rules: String,
    pub numbers: Vec<(String, String)>,
}

/// Divides every duration by `speedup`: `for`, ranges, and thresholds of expressions in seconds.
///
/// Panics on any number that it cannot classify, so that no duration is overlooked.
pub fn shorten(rules: &str, speedup: u32) -> Shortened {
    let mut shortened = Shortened { rules: String::new(), numbers: Vec::new() };
    let (mut alert, mut is_expression, mut left) = ("", false, String::new());
    for line in rules.lines() {
        let (indent, text) = line.split_at(line.len() - line.trim_start().len());
        let (key, value) = text.split_once(": ").unwrap_or((text, ""));
        is_expression &= !key.ends_with(':');
        shortened.rules.push_str(indent);
        match key {
            "- alert" => alert = value,
            "for" | "keep_firing_for" => {
                is_expression = false;
                shortened.rules.push_str(&format!("{key}: {}\n", duration(value, speedup)));
                continue;
            }
            "expr" => {
                is_expression = true;
                left.clear();
                shortened.rules.push_str("expr: ");
            }
            _ => {}
        }
        match is_expression && !text.starts_with('#') {
            true => {
                let text = text.strip_prefix("expr: ").unwrap_or(text);
                let numbers = expression(text, speedup, &mut left, &mut shortened.rules);
                shortened.numbers.extend(numbers.into_iter().map(|number| (alert.to_owned(), number)));
            }
            false => shortened.rules.push_str(text),
        }
        shortened.rules.push('\n');
    }
    shortened
}

/// Shortens a line of PromQL, and returns the numbers that are no durations. `left` is what precedes in the same operand of
/// `and`, `or` and `unless`: the left side of a comparison tells the unit of the threshold on its right.
fn expression(text: &str, speedup: u32, left: &mut String, shortened: &mut String) -> Vec<String> {
    let (mut numbers, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        let length = match first {
            '"' => rest[1..].find('"').expect("a string ends on its line") + 2,
            '[' => rest.find(']').expect("a range ends on its line") + 1,
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '[' => {
                let range = duration(&token[1..token.len() - 1], speedup);
                shortened.push_str(&format!("[{range}]"));
            }
            _ if first.is_ascii_digit() && left.trim_end().ends_with("offset") => {
                shortened.push_str(&duration(token, speedup));
            }
            _ if first.is_ascii_digit() => {
                let is_threshold = left.trim_end().ends_with(['<', '>', '=']);
                assert!(is_threshold, "{token} in `{text}` is no threshold, and may be a duration");
                if left.contains("_seconds") {
                    let seconds: f64 = token.parse().expect("a number of seconds");
                    shortened.push_str(&(seconds / f64::from(speedup)).to_string());
                } else {
                    numbers.push(token.to_owned());
                    shortened.push_str(token);
                }
            }
            _ => shortened.push_str(token),
        }
        match token {
            "and" | "or" | "unless" => left.clear(),
            _ => left.push_str(token),
        }
    }
    numbers
}

/// A duration of Prometheus, divided, in milliseconds.
pub fn duration(text: &str, speedup: u32) -> String {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().unwrap_or_else(|_| panic!("`{text}` is no duration"));
    let milliseconds = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => panic!("`{text}` is no duration in seconds, minutes or hours"),
    };
    format!("{}ms", number * milliseconds / u64::from(speedup))
}

const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yml");

#[test]
fn every_duration_in_the_rules_is_shortened() {
    let shortened = shorten(RULES, 1_000);
    // Ratios, counts and rates are no durations, and neither is 0.
    let mut numbers: Vec<(&str, &str)> =
        shortened.numbers.iter().map(|(alert, number)| (alert.as_str(), number.as_str())).collect();
    numbers.retain(|(_, number)| *number != "0" && *number != "1");
    let rest = [
        ("ShrinkdRejectedRatioHigh", "0.05"),
        ("ShrinkdPopulationsNearLimit", "0.9"),
        ("ShrinkdPopulationsGrowFast", "0.1"),
        ("ShrinkdFencedRepeatedly", "3"),
    ];
    assert_eq!(numbers, rest);
    for (line, before) in shortened.rules.lines().zip(RULES.lines()) {
        let words =
            |line: &str| line.replace(['[', ']'], " ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (word, before) in words(line).iter().zip(words(before)) {
            let is_duration = before.starts_with(|c: char| c.is_ascii_digit()) && before.ends_with(['s', 'm', 'h']);
            assert!(!is_duration || word.ends_with("ms"), "`{before}` was not shortened in {line}");
        }
    }
    assert_eq!(shortened.rules.lines().count(), RULES.lines().count());
}

#[test]
#[should_panic(expected = "may be a duration")]
fn a_number_that_may_be_a_duration_is_refused() {
    shorten("- alert: A\n  expr: shrinkd_lag_seconds + 300 > 0\n", 30);
}
