//! Messages as JSON text: events of few experiments, metrics and variants, so that they meet, with hostile values, missing
//! and doubled fields and broken text here and there.

use super::choices::Choices;

/// Numbers as no formatter would write them, some of them no JSON.
const NUMBERS: &[&str] = &[
    "1e400",
    "-1e400",
    "1e-400",
    "5e-324",
    "1e308",
    "-0",
    "-0.0",
    "1000.0",
    "1e3",
    "1E+2",
    "1.5",
    "-1",
    "0",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e30",
    "123456789012345678901234567890.5",
    "1e99999999999999999999",
    "1e-99999999999999999999",
    "0.1e-7",
    "1e154",
    "NaN",
    "-Infinity",
    "01",
    ".5",
    "1.",
    "0x1p3",
];

/// What stands where something else is expected.
const STRANGERS: &[&str] = &[
    "null",
    "true",
    "false",
    "\"x\"",
    "\"\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"a\":1,\"a\":1}",
    "0.5",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"a\\u0085\"",
    "1e400",
];

const FIELDS: &[&str] = &[
    "metric",
    "segment",
    "scale",
    "status",
    "control",
    "treatments",
    "effects",
    "control_variance",
    "covariance",
    "accumulate",
    "variant",
    "n",
    "mean",
    "variance",
    "standard_error",
    "sum",
    "sum_squares",
    "successes",
    "estimate",
    "standard_deviation",
    "denominator_sum",
    "covariate_sum",
    "ci_low",
    "ci_high",
    "ci_level",
    "unknown",
    "retracted",
    "revision",
    "results",
];

pub fn message(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut text = Text { choices, out: String::new(), item: 0 };
    text.message();
    let mut bytes = text.out.into_bytes();
    if choices.one_in(8) {
        choices.damage(&mut bytes);
    }
    bytes
}

struct Text<'c, 'a> {
    choices: &'c mut Choices<'a>,
    out: String,
    /// The place of the current item in its list.
    item: usize,
}

type Write<'c, 'a> = fn(&mut Text<'c, 'a>);

impl<'c, 'a> Text<'c, 'a> {
    fn message(&mut self) {
        let experiment: Write = |text| text.name(&["exp-1", "exp-2"]);
        if self.choices.one_in(16) {
            let fields: [(&str, Write); 3] = [
                ("schema_version", |text| text.put("1")),
                ("experiment_id", experiment),
                ("retracted", |text| text.put("true")),
            ];
            return self.object(&fields);
        }
        let fields: [(&str, Write); 8] = [
            ("schema_version", |text| text.put("1")),
            ("experiment_id", experiment),
            ("revision", |text| text.count(4)),
            ("completed_at", |text| {
                let times = ["2026-11-01T12:00:00Z", "2026-02-30T00:00:00+05:30", "9999-12-31T23:59:60Z", "0000-01-01"];
                text.name(&times);
            }),
            ("event_id", |text| text.name(&["part-1", "part-2", "part-3"])),
            ("labels", |text| text.object(&[("team", |text| text.name(&["search", "ads"])), ("tier", Text::anything)])),
            ("decision", |text| text.name(&["shipped", "dropped"])),
            ("results", |text| text.array(3, Text::result)),
        ];
        self.object(&fields);
    }

    fn result(&mut self) {
        let metric: (&str, Write) = ("metric", |text| text.name(&["m", "revenue"]));
        let segment: (&str, Write) = ("segment", |text| text.name(&["all", "new"]));
        let scale: (&str, Write) = ("scale", |text| text.name(&["absolute", "relative", "log_ratio", "log_odds"]));
        let control: (&str, Write) = ("control", |text| text.control());
        let treatments: (&str, Write) = ("treatments", |text| text.array(4, Text::arm));
        let effects: (&str, Write) = ("effects", |text| text.array(4, Text::effect));
        let accumulate: (&str, Write) = ("accumulate", |text| text.put("true"));
        let retracted: (&str, Write) = ("status", |text| text.put("\"retracted\""));
        match self.choices.byte() % 14 {
            0..=2 => self.object(&[metric, scale, control, treatments]),
            3 => self.object(&[metric, accumulate, control, treatments]),
            4 => self.object(&[metric, scale, accumulate, treatments]),
            5 => self.object(&[metric, accumulate, control]),
            6 | 7 => self.object(&[metric, segment, scale, effects, ("control_variance", Text::small)]),
            8 => self.object(&[metric, scale, effects, ("covariance", Text::covariance)]),
            9 => self.object(&[metric, retracted]),
            10 => self.object(&[metric, segment, scale, retracted]),
            11 => {
                let units: (&str, Write) = ("control", |text| {
                    text.object(&[("variant", |text| text.put("\"control\"")), ("n", |text| text.count(200))])
                });
                self.object(&[metric, scale, units, effects]);
            }
            12 => {
                let whole: (&str, Write) = ("control", |text| text.paired("control"));
                self.object(&[metric, scale, whole, ("treatments", |text| text.array(3, |text| text.paired("t")))]);
            }
            _ => self.object(&[metric, segment, scale, effects]),
        }
    }

    fn arm(&mut self) {
        let variant: (&str, Write) = ("variant", Text::variant);
        let n: (&str, Write) = ("n", |text| text.count(200));
        let mean: (&str, Write) = ("mean", Text::number);
        match self.choices.byte() % 4 {
            0 => self.object(&[variant, n, mean, ("variance", Text::small)]),
            1 => self.object(&[variant, n, ("successes", |text| text.count(100))]),
            2 => self.object(&[variant, n, ("sum", Text::number), ("sum_squares", |text| text.count(250))]),
            _ => self.object(&[variant, mean, ("standard_error", Text::small)]),
        }
    }

    fn effect(&mut self) {
        let (variant, estimate): ((&str, Write), (&str, Write)) =
            (("variant", Text::variant), ("estimate", Text::number));
        match self.choices.byte() % 4 {
            0 => self.object(&[variant, estimate, ("standard_error", Text::small), ("n", |text| text.count(200))]),
            1 => {
                let level: (&str, Write) = ("ci_level", Text::small);
                self.object(&[
                    variant,
                    ("estimate", |text| text.put("0.5")),
                    ("ci_low", Text::small),
                    ("ci_high", Text::small),
                    level,
                ]);
            }
            2 => self.object(&[variant, estimate, ("variance", |text| text.count(9)), ("n", |text| text.count(200))]),
            _ => self.object(&[variant, estimate, ("variance", |text| text.count(9))]),
        }
    }

    /// An arm with the sums of a denominator, for once of a covariate.
    fn paired(&mut self, name: &'static str) {
        let variant: (&str, Write) =
            if name == "control" { ("variant", |text| text.put("\"control\"")) } else { ("variant", Text::variant) };
        let sums: [(&str, Write); 3] =
            [("n", |text| text.count(200)), ("sum", |text| text.count(100)), ("sum_squares", |text| text.count(250))];
        let names = match self.choices.one_in(12) {
            true => ["covariate_sum", "covariate_sum_squares", "main_covariate_sum_product"],
            false => ["denominator_sum", "denominator_sum_squares", "numerator_denominator_sum_product"],
        };
        let second: [(&str, Write); 3] = [
            (names[0], |text| text.count(200)),
            (names[1], |text| text.count(250)),
            (names[2], |text| text.count(100)),
        ];
        let fields: Vec<(&str, Write)> = [variant].into_iter().chain(sums).chain(second).collect();
        self.object(&fields);
    }

    fn control(&mut self) {
        self.item = 4;
        self.arm();
    }

    /// The name that goes with the place in the list, for once another's.
    fn variant(&mut self) {
        let own = self.item.min(4);
        let names = ["a", "b", "c", "d", "control", "a", "b", "c", "d"];
        if self.choices.one_in(32) { self.name(&names) } else { self.put(&format!("\"{}\"", names[own])) }
    }

    /// Mostly a valid one of 2 x 2 or 1 x 1, at times near singular.
    fn covariance(&mut self) {
        match self.choices.byte() % 6 {
            0 => self.put("[[2,1],[1,2]]"),
            1 => self.put("[[1]]"),
            2 => self.put("[[1,0.9999999999999999],[0.9999999999999999,1]]"),
            3 => self.put("[[4,0,0],[0,5,1],[0,1,6]]"),
            4 => self.put("[[1e-100,0],[0,1e100]]"),
            _ => self.array(3, |text| text.array(3, Text::number)),
        }
    }

    /// A number that is plain for most bytes: a small share of 1, above 0.
    fn small(&mut self) {
        if self.choices.one_in(12) {
            return self.number();
        }
        let share = f64::from(self.choices.byte()) / 256.0 + 0.001;
        self.out.push_str(&share.to_string());
    }

    fn number(&mut self) {
        if self.choices.one_in(16) {
            let number = self.choices.pick(NUMBERS);
            return self.put(number);
        }
        let number = if self.choices.one_in(8) { self.choices.number() } else { self.choices.modest() };
        // What is no number at all is written as one that is too large.
        if number.is_finite() { self.out.push_str(&format!("{number:?}")) } else { self.put("1e400") }
    }

    fn count(&mut self, most: usize) {
        if self.choices.one_in(24) {
            return self.number();
        }
        let count = self.choices.below(most) + 1;
        self.out.push_str(&count.to_string());
    }

    fn name(&mut self, names: &[&str]) {
        if !self.choices.one_in(48) {
            let name = self.choices.pick(names);
            return self.out.push_str(&format!("\"{name}\""));
        }
        let long = "é".repeat(256 + self.choices.below(2));
        let name = self.choices.pick(&[
            "",
            "\\u0000",
            "\\ud800",
            "a/b%2F=",
            "\\n",
            "\u{85}",
            "\\u00e9",
            long.as_str(),
            "\u{10ffff}",
        ]);
        self.out.push_str(&format!("\"{name}\""));
    }

    fn anything(&mut self) {
        let stranger = self.choices.pick(STRANGERS);
        self.put(stranger);
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn array(&mut self, most: usize, item: Write<'c, 'a>) {
        self.out.push('[');
        for index in 0..=self.choices.below(most) {
            if index > 0 {
                self.out.push(',');
            }
            self.item = index;
            if self.choices.one_in(48) { self.anything() } else { item(self) }
        }
        self.out.push(']');
    }

    /// An object with these fields, of which one may be missing, of another kind, doubled, or joined by a stranger.
    fn object(&mut self, fields: &[(&str, Write<'c, 'a>)]) {
        self.out.push('{');
        let start = self.out.len();
        for (name, write) in fields {
            let fate = self.choices.byte();
            if fate == 255 {
                continue;
            }
            self.key(name, start);
            if fate == 254 {
                self.anything()
            } else {
                write(self)
            }
            if fate == 253 {
                self.key(name, start);
                write(self);
            }
            if fate == 252 {
                let stranger = self.choices.pick(FIELDS);
                self.key(stranger, start);
                self.number();
            }
        }
        self.out.push('}');
    }

    fn key(&mut self, name: &str, start: usize) {
        if self.out.len() > start {
            self.out.push(',');
        }
        self.out.push_str(&format!("\"{name}\":"));
    }
}
