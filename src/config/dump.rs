//! The effective configuration as TOML: every key with its value and the origin of that, secrets masked.

use std::fmt::Write;

use toml::{Table, Value};

use super::Origin;
use super::layers::Layers;
use super::properties::masked_property;
use super::sections::Keys;
use super::store_url::masked_url;

/// One line for each key, `key = value  # origin`, under the headers of their sections.
pub(super) fn dump(keys: &Keys, layers: &Layers) -> String {
    let mut text = String::new();
    if let Ok(table) = Table::try_from(keys) {
        write_table(&mut text, &table, &[], layers);
    }
    text.trim_start().to_owned()
}

fn write_table(text: &mut String, table: &Table, path: &[&str], layers: &Layers) {
    let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    if !path.is_empty() && !values.is_empty() {
        let header: Vec<String> = path.iter().map(|name| key(name)).collect();
        let _ = writeln!(text, "\n[{}]", header.join("."));
    }
    for (name, value) in values {
        let full: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
        let origin = match layers.origin(&full.join(".")) {
            // A default of a section that does not exist by default.
            Origin::NotSet => Origin::Default,
            origin => origin,
        };
        let _ = writeln!(text, "{} = {}  # {origin}", key(name), masked(&full, value));
    }
    for (name, value) in tables {
        if let Value::Table(table) = value {
            let full: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            write_table(text, table, &full, layers);
        }
    }
}

fn masked(path: &[&str], value: &Value) -> Value {
    match (path, value) {
        (["store", "url"], Value::String(url)) => Value::String(masked_url(url)),
        (["source", "kafka", "properties", name], Value::String(text)) => {
            Value::String(masked_property(name, text).to_owned())
        }
        _ => value.clone(),
    }
}

/// A key in TOML: quoted unless it is a bare one.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}
