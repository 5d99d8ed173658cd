//! What tables become.

use std::io::Read;

use shrinkd_core::{Message, Refusal, ReportedResult, decode};
use shrinkd_csv::{Form, MapArg, Table, TableError};
use time::OffsetDateTime;

/// The events of a table, and what is refused with its row.
fn read_mapped(text: &str, map: &[&str]) -> Result<(Vec<String>, Vec<String>), TableError> {
    let map: Vec<MapArg> = map.iter().map(|map| map.parse().expect("a map")).collect();
    let mut refused = Vec::new();
    let note = |row: u64, refusal: Refusal| format!("row {row}: {refusal}");
    let table = Table::new(text.as_bytes(), &map, OffsetDateTime::UNIX_EPOCH)?;
    let experiments = table.read(|row, refusal| refused.push(note(row, refusal)))?;
    let mut events = Vec::new();
    for (row, event) in experiments {
        match event {
            Ok(event) => events.push(String::from_utf8(event).expect("UTF-8")),
            Err(refusal) => refused.push(note(row, refusal)),
        }
    }
    Ok((events, refused))
}

#[track_caller]
fn read(text: &str) -> (Vec<String>, Vec<String>) {
    read_mapped(text, &[]).expect("a table")
}

/// The events of a table of which nothing is refused.
#[track_caller]
fn events(text: &str) -> Vec<String> {
    let (events, refused) = read(text);
    assert!(refused.is_empty(), "{refused:?}");
    events
}

#[track_caller]
fn refused_once(text: &str) -> String {
    let (_, refused) = read(text);
    assert_eq!(refused.len(), 1, "{refused:?}");
    refused.into_iter().next().unwrap_or_default()
}

#[test]
fn rows_of_one_experiment_become_one_event_wherever_they_stand() {
    let text = "experiment,metric,variant,users,conversions,ended\n\
                a,m1,control,100,10,2026-01-01\n\
                b,m1,control,200,20,2026-01-02\n\
                a,m2,control,100,1,2026-01-01\n\
                a,m1,B,100,12,2026-01-03\n\
                b,m1,B,200,24,2026-01-02\n\
                a,m2,B,100,2,2026-01-01\n";
    assert_eq!(
        events(text),
        [
            r#"{"schema_version":1,"experiment_id":"a","revision":1,"completed_at":"2026-01-03T00:00:00Z","results":[{"metric":"m1","control":{"variant":"control","n":100,"successes":10},"treatments":[{"variant":"B","n":100,"successes":12}]},{"metric":"m2","control":{"variant":"control","n":100,"successes":1},"treatments":[{"variant":"B","n":100,"successes":2}]}]}"#,
            r#"{"schema_version":1,"experiment_id":"b","revision":1,"completed_at":"2026-01-02T00:00:00Z","results":[{"metric":"m1","control":{"variant":"control","n":200,"successes":20},"treatments":[{"variant":"B","n":200,"successes":24}]}]}"#,
        ]
    );
}

#[test]
fn every_event_of_a_table_is_one_of_the_contract() {
    for text in [
        "experiment_id,variant,estimate,variance\ne1,t,0.1,0.01\n",
        "study,yi,vi\ns1,0.3,0.04\n",
        "exp,metric,segment,scale,arm,is_control,n,mean,var\ne,m,de,Log-Ratio,a,yes,10,1,2\ne,m,de,Log-Ratio,b,no,10,2,2\n",
        "name,metric_name,metric_dimension,experiment_group,units,mean,stderr\ne,m,!statsig_topline,Control,9,1,0.1\ne,m,!statsig_topline,Test,9,1,0.1\n",
        "trial_index,arm_name,metric_name,mean,sem\n0,baseline,m,1,0.5\n0,0_1,m,1,0.5\n",
        "experiment,variant,users,sum,sum_squares\ne,0,10,5,5\ne,1,10,6,6\n",
    ] {
        for event in events(text) {
            let Ok(Message::Event(event)) = decode(event.as_bytes()) else { panic!("{event} is refused") };
            for result in event.results {
                assert!(matches!(result, Ok(ReportedResult::Whole { .. })), "{text}: {result:?}");
            }
        }
    }
}

#[test]
fn the_revision_is_that_of_the_column_and_each_makes_an_event() {
    let events = events("experiment,variant,estimate,variance,rev\ne,t,1,1,3\ne,t,2,1,4\n");
    assert!(events[0].contains("\"revision\":3") && events[1].contains("\"revision\":4"), "{events:?}");
}

#[test]
fn a_decision_and_a_direction_are_those_of_the_first_row_that_names_them() {
    let text = "experiment,metric,variant,users,conversions,decision,shipped_variant,direction\n\
                a,m,control,100,10,,,\n\
                a,m,B,100,12,ship,B,decrease\n\
                a,m,C,100,12,stop,C,increase\n";
    let [event] = &events(text)[..] else { panic!("one event") };
    for member in [r#""decision":"ship""#, r#""shipped_variant":"B""#, r#""direction":"decrease""#] {
        assert!(event.contains(member), "{event} without {member}");
    }
}

#[test]
fn a_time_comes_from_the_column_else_it_is_that_of_the_file() {
    let with = events("experiment,variant,estimate,variance,end_date\ne,t,1,1,2026-01-31 12:00\n");
    assert!(with[0].contains("\"completed_at\":\"2026-01-31T12:00:00Z\""), "{with:?}");
    let without = events("experiment,variant,estimate,variance\ne,t,1,1\n");
    assert!(without[0].contains("\"completed_at\":\"1970-01-01T00:00:00Z\""), "{without:?}");
    let (events, refused) = read("experiment,variant,estimate,variance,end_date\ne,t,1,1,1/2/2026\n");
    assert!(refused[0].starts_with("row 2: schema_violation: column \"end_date\" holds \"1/2/2026\""), "{refused:?}");
    assert!(events.is_empty() && refused.len() == 1, "the row is left out: {events:?} {refused:?}");
}

#[test]
fn a_date_is_read_by_the_order_of_day_and_month_that_the_others_in_the_file_have() {
    let text = "experiment,variant,estimate,variance,end_date\ne,t,1,1,1/2/2026\nf,t,1,1,";
    for (other, want) in [("1/31/2026", "2026-01-02"), ("31/1/2026", "2026-02-01")] {
        let event = &events(&format!("{text}{other}\n"))[0];
        assert!(event.contains(&format!("\"completed_at\":\"{want}T00:00:00Z\"")), "{event}");
    }
}

#[test]
fn cells_are_read_whatever_quotes_separators_and_marks_they_come_with() {
    let quoted = "\u{feff}experiment,variant,users,conversions\r\n\"a, \"\"b\"\"\",Control,\"1,000\", 100 \r\n\"a, \"\"b\"\"\",T,\"1,000,000\",120\r\n";
    let quoted = quoted.strip_prefix('\u{feff}').expect("the reader of files takes it off");
    let want = r#""experiment_id":"a, \"b\"","revision":1"#;
    let event = &events(quoted)[0];
    assert!(event.contains(want) && event.contains(r#""n":1000,"successes":100}"#), "{event}");
    let semicolons =
        "sep=;\nexperiment;variant;users;mean;variance\ne;control;1.000;0,5;0,25\ne;t;1.000;1.234,5;1e-3\n";
    let event = &events(semicolons)[0];
    assert!(event.contains(r#""n":1000,"mean":0.5,"variance":0.25"#) && event.contains(r#""mean":1234.5"#), "{event}");
    let tabs = "experiment\tvariant\testimate\tse\ne\tt\t+5%\t2.5 %\n";
    assert!(events(tabs)[0].contains(r#""estimate":5e-2,"standard_error":2.5e-2"#));
}

#[test]
fn numbers_that_may_be_thousands_or_decimals_are_refused_unless_another_number_tells() {
    let of = |delimiter: &str, rows: &[[&str; 3]]| {
        let rows = rows.iter().zip(["control", "B"]).map(|(row, variant)| {
            ["e", variant].iter().chain(row).map(|cell| format!("\"{cell}\"")).collect::<Vec<_>>().join(delimiter)
                + "\n"
        });
        format!("{}\n{}", ["experiment", "variant", "users", "mean", "sd"].join(delimiter), rows.collect::<String>())
    };
    let unclear = "which may be thousands or a number with three decimals, and the other numbers in the beginning of the file do \
                   not tell which: write thousands without a separator (1234), or one more decimal (1.2340)";
    let count = "which may be thousands or a number with decimals: write";
    // A table with three decimals, one with thousands, and both: where no number tells, the delimiter may.
    for (row, [comma, tab]) in [
        (["812.000", "3.102", "1.250"], [Err(count), Err(count)]),
        (["812,000", "3,102", "1,250"], [Ok(r#""n":812000,"mean":3102,"#), Err(unclear)]),
        (["10,000", "1.100", "2"], [Ok(r#""n":10000,"mean":1.100,"#), Err(unclear)]),
        (["10.000", "1,100", "2"], [Err(count), Err(unclear)]),
        (["10,000", "25", "2"], [Ok(r#""n":10000,"mean":25,"#), Err(unclear)]),
        (["812", "3.102", "2"], [Ok(r#""n":812,"mean":3.102,"#), Ok(r#""n":812,"mean":3.102,"#)]),
    ] {
        for (delimiter, want) in [(",", comma), ("\t", tab), (";", Err(unclear))] {
            let (events, refused) = read(&of(delimiter, &[row, row]));
            match want {
                Ok(want) => assert!(events[0].contains(want), "{row:?}: {events:?} {refused:?}"),
                Err(told) => {
                    assert!(events.is_empty() && refused.len() == 2, "{row:?}: {events:?}");
                    assert!(refused[0].contains(told), "{row:?}: {refused:?}");
                }
            }
        }
    }
    for delimiter in [",", ";", "\t"] {
        for (row, other, want) in [
            (["10,000", "1.100", "2"], ["9", "1.25", "2"], r#""n":10000,"mean":1.100,"#),
            (["10.000", "1,100", "2"], ["9", "1,25", "2"], r#""n":10000,"mean":1.100,"#),
            (["10.000", "1.100", "2"], ["1.000.000", "1", "2"], r#""n":10000,"mean":1100,"#),
            (["812", "3.102", "2"], ["9", "3.1020", "2"], r#""n":812,"mean":3.102,"#),
            (["812", "3,102", "2"], ["9", "3,1020", "2"], r#""n":812,"mean":3.102,"#),
            (["10000.0", "1.100", "2"], ["9", "1", "2"], r#""n":10000.0,"mean":1.100,"#),
        ] {
            let event = &events(&of(delimiter, &[row, other]))[0];
            assert!(event.contains(want), "{event}");
        }
        // Both marks: only what can be read in one way is read.
        let (events, refused) = read(&of(delimiter, &[["812", "0.5", "2"], ["9", "1,5", "3.102"]]));
        assert!(events.is_empty() || !events[0].contains("\"B\""), "{events:?}");
        assert!(refused[0].contains("not a number with a decimal point"), "{refused:?}");
        // A count with decimals is one of thousands more likely.
        let (_, refused) = read(&of(delimiter, &[["10.000", "0.5", "2"], ["9", "1.5", "3"]]));
        assert!(refused[0].contains(count), "{refused:?}");
    }
}

#[test]
fn a_header_with_a_percent_sign_is_the_unit_of_its_column_and_a_level_is_not() {
    let event = &events("experiment,variant,lift (%),std err (%)\ne,t,5,1%\n")[0];
    assert!(event.contains(r#""estimate":5e-2,"standard_error":1e-2"#), "{event}");
    let event = &events("experiment,variant,lift,95% CI lower,95% CI upper\ne,t,5,4,6\n")[0];
    assert!(event.contains(r#""estimate":5,"ci_low":4,"ci_high":6"#), "{event}");
}

#[test]
fn squares_and_counts_are_never_in_percent() {
    let square = refused_once("experiment,variant,lift (%),variance (%)\ne,t,5,1\n");
    assert!(square.contains("a square cannot be in percent"), "{square}");
    let columns = [
        "sum_squares",
        "denominator_sum_squares",
        "numerator_denominator_sum_product",
        "covariate_sum_squares",
        "main_covariate_sum_product",
        "users",
    ];
    for column in columns {
        let what = if column == "users" { "a count" } else { "a square" };
        let header = format!("experiment,variant,sum,{}", columns.join(","));
        let (row, header) = ("e,t,5,1,1,1,1,1,1", header.replace(column, &format!("{column} (%)")));
        // The sum and its squares are in one unit.
        let header = if column == "sum_squares" { header.replacen("sum,", "sum (%),", 1) } else { header };
        let refused = refused_once(&format!("{header}\n{row}\n"));
        assert!(refused.contains(&format!("{what} cannot be in percent")), "{refused}");
    }
    let control = refused_once("experiment,variant,lift,variance,control_variance\ne,t,5,1,1%\n");
    assert!(control.contains("a square cannot be in percent"), "{control}");
    events("experiment,variant,lift,variance,se (%),control_variance (%)\ne,t,5,1,,\n");
}

#[test]
fn a_table_whose_headers_disagree_about_percent_is_refused_unless_cells_have_the_sign() {
    for (text, percent, other) in [
        ("experiment,variant,lift (%),se\ne,t,5,1\n", "lift (%)", "se"),
        ("experiment,variant,lift,se (%)\ne,t,5,1\n", "se (%)", "lift"),
        ("experiment,variant,lift (%),variance\ne,t,5,1\n", "lift (%)", "variance"),
        ("experiment,variant,lift (%),ci_low (%),ci_high\ne,t,5%,4,6\n", "lift (%)", "ci_high"),
        ("experiment,variant,users,mean (%),sd\ne,t,9,5,1\n", "mean (%)", "sd"),
        ("experiment,variant,mean,standard_error (%)\ne,t,5,1\n", "standard_error (%)", "mean"),
        ("experiment,variant,lift (%),se (%),control_variance\ne,t,5,1,1\n", "lift (%)", "control_variance"),
    ] {
        let error = read_mapped(text, &[]).expect_err("two units").to_string();
        let told = format!("column {percent:?} is in percent by its header, column {other:?} is not");
        assert!(error.starts_with(&told) && error.contains("in row 2"), "{error}");
    }
    for text in [
        "experiment,variant,lift (%),se\ne,t,5,1%\n",
        "experiment,variant,lift (%),se (%),variance\ne,t,5,1,\n",
        "experiment,variant,users,conversions,mean (%),sd\ne,control,9,1,11,.3\ne,t,9,1,11,.3\n",
    ] {
        events(text);
    }
}

#[test]
fn what_spreadsheets_add_does_no_harm() {
    let text = "experiment,\"variant\n(name)\",users,conversions,,\na,control,100,10,,\na,B,100,12,,\n,,,,,\n,,,,,\n";
    let text = text.replace("\"variant\n(name)\"", "\"vari\nant\"");
    assert!(events(&text)[0].contains(r#""treatments":[{"variant":"B","n":100,"successes":12}]"#));
}

#[test]
fn rows_without_content_do_not_count_and_keep_their_numbers() {
    let text = "experiment,variant,estimate,variance\ne,t,1,1\n,,,\n,,,\nf,t,x,1\n,,,\n";
    let table = Table::new(text.as_bytes(), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
    let mut refused = Vec::new();
    assert_eq!(table.read(|row, _| refused.push(row)).expect("rows").rows(), 2);
    assert_eq!(refused, [5]);
}

#[test]
fn a_row_that_is_left_out_says_nothing_of_its_result() {
    let text = "experiment,variant,estimate,variance,direction,coverage,control_variance,control_n,completed_at,started_at,decision\n\
                e,B,1,1,increase,0.5,0.1,9,2026-03-01,2026-01-03,LATE\n\
                e,C,1,1,decrease,0.9,0.2,8,2026-02-01,2026-01-02,ship\n";
    let want = &events(&text.replace("e,B,1,1,increase,0.5,0.1,9,2026-03-01,2026-01-03,LATE\n", ""))[0];
    // Each cell that can be refused, the last of them included.
    for (cell, wrong) in [
        ("e,B,1,1", "e,B,x,1"),
        ("increase,0.5", "increase,x"),
        ("0.1,9", "x,9"),
        ("0.1,9", "0.1,x"),
        ("2026-03-01", "x"),
        ("2026-01-03", "x"),
    ] {
        let (events, refused) = read(&text.replace(cell, wrong));
        assert_eq!((&events[..], refused.len()), (&[want.clone()][..], 1), "{wrong}: {refused:?}");
    }
    // Of two rows that contradict each other in one number, the second does not say another either.
    let text = "experiment,variant,estimate,variance,coverage,control_n\ne,B,1,1,0.5,\ne,C,1,1,0.9,8\n";
    let (events, refused) = read(text);
    assert!(refused.len() == 1 && !events[0].contains("\"n\":8"), "{events:?}");
}

#[test]
fn the_first_64_kib_tell_the_mark_and_a_record_that_they_cut_does_not() {
    // Fewer than a thousand of them.
    let row = format!("{};t;10.000;1.234,5;2,25\n", "e".repeat(60));
    let text = format!("experiment;variant;users;estimate;variance\n{}", row.repeat(1_000));
    for pad in 0..=row.len() {
        let text = text.replacen("\ne", &format!("\n{}", "e".repeat(pad + 1)), 1);
        let (first, rest) = text.as_bytes().split_at(50);
        let table = Table::new(first.chain(rest), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
        let read = table.read(|row, refusal| panic!("{pad}: row {row}: {refusal}")).expect("rows");
        assert_eq!(read.rows(), 1_000);
    }
}

#[test]
fn a_column_looks_misspelt_only_where_few_letters_separate_it_from_a_field_that_the_table_lacks() {
    let tables = ["experiment,variant,users,mean,sd", "experiment,variant,users,conversions", "study,yi,vi"];
    let misspelt = |header: &str, column: &str| {
        let text = format!("{header},{column}\n");
        let table = Table::new(text.as_bytes(), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
        let experiments = table.read(|_, refusal| panic!("{refusal}")).expect("no rows");
        experiments.columns().misspelt().map(|(_, field)| field.as_str()).next()
    };
    for column in [
        "duration",
        "median",
        "precision",
        "status",
        "state",
        "stats",
        "sale",
        "num",
        "total_revenue",
        "session_id",
        "order_count",
        "conversion_rate",
        "metric_type",
        "completed_by",
        "note",
        "rate",
        "team",
        "owner",
        "id",
    ] {
        for header in tables {
            assert_eq!(misspelt(header, column), None, "{column} in {header}");
        }
    }
    for (header, column, field) in [
        (tables[0], "varaince", Some("variance")),
        (tables[0], "standrad_error", Some("standard_error")),
        (tables[0], "Stadnard Eror", Some("standard_error")),
        (tables[2], "segmnt", Some("segment")),
        (tables[1], "shiped variant", Some("shipped_variant")),
        (tables[0], "Completd At", Some("completed_at")),
        // The other form's.
        (tables[0], "estimte", None),
        (tables[1], "control_varaince", None),
        (tables[2], "sucesses", None),
        (tables[2], "covariate_sun", None),
        // The table has it.
        (tables[0], "varint", None),
    ] {
        assert_eq!(misspelt(header, column), field, "{column} in {header}");
    }
    let error = read_mapped("experiment_di,variant,users,conversions\n", &[]).expect_err("no experiment").to_string();
    assert!(error.contains("Is experiment_di meant to be experiment_id? "), "{error}");
    let error = read_mapped("experiment,variant,estimte,se\n", &[]).expect_err("no estimate").to_string();
    assert!(error.contains("Is estimte meant to be estimate? "), "{error}");
}

#[test]
fn an_empty_cell_is_an_absent_number_that_the_contract_judges() {
    let event = &events("experiment,variant,users,conversions\ne,control,100,10\ne,B,100,\ne,C,NA,12\n")[0];
    assert!(
        event.contains(r#"{"variant":"B","n":100}"#) && event.contains(r#"{"variant":"C","successes":12}"#),
        "{event}"
    );
}

#[test]
fn a_number_that_cannot_be_read_is_refused_with_its_row_and_column_and_takes_no_other_row_along() {
    let (events, refused) = read("experiment,variant,users,conversions\ne,control,100,10\ne,B,100,many\ne,C,100,12\n");
    assert!(events[0].contains("\"C\"") && !events[0].contains("\"B\""), "{events:?}");
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("row 3: schema_violation: column \"conversions\" holds \"many\", which is not a number"),
        "{refused:?}"
    );
    assert!(refused[0].ends_with("(experiment \"e\", metric \"conversion\")"), "{refused:?}");
    // Of a control the result cannot do without.
    let (events, refused) = read("experiment,variant,users,conversions\ne,control,x,10\ne,B,100,12\n");
    assert!(
        events.is_empty() && refused.len() == 2 && refused[1].contains("row of the control could not be read"),
        "{refused:?}"
    );
    for end in ["\n", "\r\n"] {
        let lines = ["experiment,variant,estimate,variance", "a,t,1,1", "b,t,1,1", "c,t,x,1", "d,t,1,1", ""];
        assert!(refused_once(&lines.join(end)).starts_with("row 4: "), "{end:?}");
    }
    let open = refused_once("experiment,variant,estimate,variance\ne,\"t,1,1\ne,t,1,1\n");
    assert!(open.contains("is there a quotation mark that is not closed?"), "{open}");
    let ragged = refused_once("experiment,variant,estimate,variance\ne,t,1\n");
    assert!(ragged.starts_with("row 2: schema_violation: has 3 cells, the header 4"), "{ragged}");
}

#[test]
fn the_control_is_told_by_a_column_or_by_its_name_or_the_result_is_refused() {
    for name in ["control", "Control", "BASELINE", "0", "control group"] {
        let event = &events(&format!("experiment,variant,users,conversions\ne,B,9,1\ne,{name},9,1\n"))[0];
        assert!(event.contains(&format!(r#""control":{{"variant":"{name}""#)), "{event}");
    }
    let told = events("experiment,variant,control,users,conversions\ne,old,1,9,1\ne,new,0,9,1\n");
    assert!(told[0].contains(r#""control":{"variant":"old""#), "{told:?}");
    let none = refused_once("experiment,variant,users,conversions\ne,A,9,1\ne,B,9,1\n");
    assert!(none.contains("add a column is_control, or name one with --map is_control=COLUMN"), "{none}");
    let two = refused_once("experiment,variant,users,conversions\ne,control,9,1\ne,baseline,9,1\n");
    assert!(two.contains("more than one of its variants"), "{two}");
    let days = refused_once("experiment,variant,users,conversions\ne,control,9,1\ne,control,9,2\ne,B,9,1\n");
    assert!(days.contains("variant \"control\" has 2 rows") && days.contains("--map segment=COLUMN"), "{days}");
    let floats = events("experiment,variant,is_control,users,conversions\ne,old,1.0,9,1\ne,new,0.0,9,1\n");
    assert!(floats[0].contains(r#""control":{"variant":"old""#), "{floats:?}");
    let nobody = refused_once("experiment,variant,is_control,users,conversions\ne,A,no,9,1\ne,B,no,9,1\n");
    assert!(nobody.contains("is_control is true of none"), "{nobody}");
}

#[test]
fn effects_take_the_n_of_a_control_that_has_no_estimate() {
    let event = &events("experiment,variant,lift,se,users\ne,control,,,500\ne,B,0.1,0.02,400\n")[0];
    assert!(
        event.contains(r#""control":{"variant":"control","n":500},"effects":[{"variant":"B","n":400,"estimate":0.1"#),
        "{event}"
    );
    let event = &events("experiment,variant,lift,variance,control_variance\ne,B,0.1,0.02,0.01\ne,C,0.1,0.02,0.01\n")[0];
    assert!(event.ends_with(r#"],"control_variance":0.01}]}"#), "{event}");
    let two = refused_once("experiment,variant,lift,variance,control_variance\ne,B,0.1,0.02,0.01\ne,C,0.1,0.02,0.02\n");
    assert!(two.contains("control_variance is 0.02, in another row of the same result it is 0.01"), "{two}");
    for nothing in ["0,0", "0,", "0.0,0", "NA,"] {
        let event =
            &events(&format!("experiment,variant,lift,se,users\ne,control,{nothing},500\ne,B,0.1,0.02,400\n"))[0];
        assert!(event.contains(r#""control":{"variant":"control","n":500},"effects":[{"variant":"B""#), "{event}");
    }
    let level = &events("experiment,variant,effect,ci_lower,ci_upper,confidence_level\ne,B,0.1,0,0.2,90\n")[0];
    assert!(level.contains(r#""ci_low":0,"ci_high":0.2,"ci_level":90e-2"#), "{level}");
}

#[test]
fn directions_and_segments_are_read_as_platforms_write_them() {
    let event = &events("experiment,variant,lift,se,desired_change,dimension\ne,B,0.1,0.02,DECREASE,All\n")[0];
    assert!(event.contains(r#"{"metric":"effect","direction":"decrease","effects""#), "{event}");
}

#[test]
fn arms_go_before_effects_and_counts_before_means() {
    let text = "experiment,variant,users,conversions,mean,sd,lift,se\ne,control,9,1,.1,.3,,\ne,B,9,1,.1,.3,.5,.1\n";
    let table = Table::new(text.as_bytes(), &[], OffsetDateTime::UNIX_EPOCH).expect("a table");
    let experiments = table.read(|_, refusal| panic!("{refusal}")).expect("rows");
    assert_eq!(experiments.columns().form, Form::Arms);
    assert_eq!(experiments.columns().unused().collect::<Vec<_>>(), ["lift"]);
    assert!(String::from_utf8_lossy(&experiments.first().expect("an event")).contains(r#""n":9,"successes":1}"#));
}

#[test]
fn a_column_of_another_name_is_mapped_and_goes_before_all_spellings() {
    let text = "experiment,variant,users,mean,avg_value,sd\ne,control,9,1,2,3\ne,B,9,1,2,3\n";
    let (events, _) = read_mapped(text, &["mean=avg_value"]).expect("a table");
    assert!(events[0].contains(r#""mean":2,"standard_deviation":3"#), "{events:?}");
    let missing = read_mapped(text, &["mean=avg"]).expect_err("no such column").to_string();
    assert!(missing.contains("--map mean=avg: the table has no such column, but experiment, variant"), "{missing}");
    let unknown = "means=avg".parse::<MapArg>().expect_err("no such field");
    assert!(unknown.contains("standard_deviation"), "{unknown}");
}

#[test]
fn columns_that_say_too_little_are_named_with_what_is_missing_and_what_to_do() {
    let error = read_mapped("a,b\n1,2\n", &[]).expect_err("nothing is understood").to_string();
    for part in ["Its columns: a, b", "Understood: none", "experiment_id", "variant", "--map FIELD=COLUMN"] {
        assert!(error.contains(part), "{error}");
    }
    let error = read_mapped("experiment,variant,mean\n", &[]).expect_err("no precision").to_string();
    assert!(error.contains("the precision of the mean"), "{error}");
}

#[test]
fn a_quote_that_is_not_closed_ends_in_a_sentence_and_not_in_memory() {
    let text = format!("experiment,variant,estimate,variance\ne,\"t,1,1\n{}", "e,t,1,1\n".repeat(300_000));
    let error = read_mapped(&text, &[]).expect_err("no end").to_string();
    assert!(error.starts_with("row 2 has more than 1048576 bytes: is there a quotation mark"), "{error}");
}

#[test]
fn results_beyond_what_one_message_holds_go_into_another_of_the_same_revision() {
    let rows: String = (0..1_500).map(|i| format!("e,m{i},t,1,1\n")).collect();
    let events = events(&format!("experiment,metric,variant,estimate,variance\n{rows}"));
    let results = |event: &String| match decode(event.as_bytes()) {
        Ok(Message::Event(event)) => event.results.iter().filter(|result| result.is_ok()).count(),
        other => panic!("{other:?}"),
    };
    assert_eq!(events.iter().map(results).collect::<Vec<_>>(), [1_000, 500]);
}

#[test]
fn an_experiment_of_more_rows_than_a_message_holds_is_refused_and_takes_no_other_along() {
    let mut table = "experiment,metric,variant,n,mean,variance\nlarge,m,control,10,1,2\n".to_owned();
    table.extend((0..40_000).map(|i| format!("large,m,v{i},10,1,2\n")));
    table += "small,m,control,10,1,2\nsmall,m,v1,10,1,2\n";
    let (events, refused) = read(&table);
    assert_eq!(refused, ["row 2: too_large: the message has more than 1048576 bytes, the most that are accepted"]);
    assert!(events.len() == 1 && events[0].contains("\"small\""), "{events:?}");
}
