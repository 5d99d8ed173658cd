//! What was understood of a file that is not simply NDJSON, on stderr before anything is made of it.

use std::io::{self, Write};
use std::path::Path;

use shrinkd_csv::{Experiments, Field, Form};

use super::input::name;
use super::text::counted;
use crate::files::Messages;

/// Says what a table was taken for, and that a file is empty. Of other files there is nothing to say.
pub(super) fn write(path: &Path, messages: &Messages, out: &mut impl Write) -> io::Result<()> {
    match messages.table() {
        Some(table) => write_table(path, table, out),
        None if messages.form().is_none() => writeln!(out, "{} is empty: there is no event in it", name(path)),
        None => Ok(()),
    }
}

fn write_table(path: &Path, table: &Experiments, out: &mut impl Write) -> io::Result<()> {
    let columns = table.columns();
    let form = if columns.form == Form::Arms { "arm" } else { "effect" };
    let (rows, experiments) = (counted(table.rows(), "row"), counted(table.experiments() as u64, "experiment"));
    writeln!(out, "{}: a table with one row per {form}: {rows}, {experiments}", name(path))?;
    let width = columns.used().map(|(column, _)| column.chars().count()).max().unwrap_or_default();
    for (column, field) in columns.used() {
        let unit = if columns.is_in_percent(field) { ", in percent" } else { "" };
        writeln!(out, "  {column:<width$} -> {}{unit}", field.as_str())?;
    }
    let unused: Vec<&str> = columns.unused().filter(|column| !column.is_empty()).collect();
    if !unused.is_empty() {
        writeln!(out, "  not used: {}", unused.join(", "))?;
    }
    for misspelt in columns.misspelt() {
        writeln!(out, "  {}", did_you_mean(misspelt))?;
    }
    let assumed: Vec<String> = assumed(table).collect();
    if !assumed.is_empty() {
        writeln!(out, "  no column for {}", assumed.join(", "))?;
    }
    if let Some(event) = table.first() {
        writeln!(out, "  the first as an event: {}", String::from_utf8_lossy(&event))?;
    }
    Ok(())
}

/// What a misspelt column was probably meant to be, and how to say so.
pub(super) fn did_you_mean((column, field): (&str, Field)) -> String {
    let field = field.as_str();
    format!("{column}: did you mean {field}? Then rename it, or --map {field}={column}")
}

/// What is taken for the fields that have no column.
fn assumed(table: &Experiments) -> impl Iterator<Item = String> {
    let columns = table.columns();
    let is_arms = columns.form == Form::Arms;
    let fields = [
        (Field::Metric, format!("metric: {}", columns.default_metric())),
        (Field::Variant, "variant: treatment".to_owned()),
        (Field::IsControl, "is_control: the variant named control, baseline or 0".to_owned()),
        (Field::Revision, "revision: 1".to_owned()),
        (Field::CompletedAt, "completed_at: when the file was modified".to_owned()),
    ];
    let is_assumed = move |field| !columns.has(field) && (is_arms || field != Field::IsControl);
    fields.into_iter().filter(move |(field, _)| is_assumed(*field)).map(|(_, told)| told)
}
