//! The layers of the configuration: the defaults, the file and the environment, merged key by key, with the origin of
//! each value.
//!
//! TOML tables are merged, every other value is replaced. The keys are read from the merged table, so that each default is
//! defined in one place only.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::read::read_keys;
use super::sections::Keys;
use super::{ConfigError, Invalid, Origin};

/// The prefix of every variable that sets a key.
const PREFIX: &str = "SHRINKD__";

/// Names below this path are those of librdkafka, with dots where variables have underscores.
const PROPERTIES: [&str; 3] = ["source", "kafka", "properties"];

/// The merged layers.
pub(super) struct Layers {
    effective: Table,
    file: Option<(PathBuf, Table)>,
    variables: Vec<Variable>,
}

/// An environment variable, and the key that it sets.
struct Variable {
    name: String,
    path: Vec<String>,
    /// The file that holds the value, if the variable names one.
    file: Option<PathBuf>,
    text: String,
}

impl Layers {
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Layers, ConfigError> {
        let (defaults, complete) = (table_of(Keys::default())?, Value::Table(table_of(Keys::complete())?));
        let mut effective = defaults.clone();
        let file = file.map(|path| Ok::<_, ConfigError>((path.to_owned(), read_file(path)?))).transpose()?;
        if let Some((path, table)) = &file {
            merge(&mut effective, table.clone());
            read_keys(&effective).map_err(|error| error.at(Origin::File(path.clone())))?;
        }
        let mut variables = variables(environment)?;
        // A fixed order: of several errors, the same one is always reported.
        variables.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = variables.windows(2).find(|pair| pair[0].path == pair[1].path) {
            let problem = format!("{} sets the same key: remove one of the two", pair[1].name);
            return Err(ConfigError::Variable { variable: pair[0].name.clone(), problem });
        }
        for variable in &variables {
            merge(&mut effective, variable.table(&defaults, &complete)?);
        }
        Ok(Layers { effective, file, variables })
    }

    /// The keys of the merged layers.
    pub fn keys(&self) -> Result<Keys, ConfigError> {
        // Each layer was valid on its own: what is left is a conflict between them, reported against the last one.
        read_keys(&self.effective).map_err(|invalid| {
            let origin = self.origin(&invalid.key);
            invalid.at(origin)
        })
    }

    /// Whether there is a file.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The origin of a key's value. `key` is its path with dots.
    pub fn origin(&self, key: &str) -> Origin {
        let of_variable = |variable: &&Variable| {
            let path = variable.path.join(".");
            is_within(key, &path) || is_within(&path, key)
        };
        if let Some(variable) = self.variables.iter().rfind(of_variable) {
            return Origin::Variable(variable.name.clone());
        }
        match &self.file {
            Some((path, table)) if holds(table, key) => Origin::File(path.clone()),
            _ if holds(&self.effective, key) => Origin::Default,
            _ => Origin::NotSet,
        }
    }
}

/// Whether a key equals another one or is below it.
fn is_within(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a table has this key. Names may contain dots themselves, so every split is tried.
fn holds(table: &Table, key: &str) -> bool {
    table.iter().any(|(name, value)| match key.strip_prefix(name.as_str()) {
        Some("") => true,
        Some(rest) => match (rest.strip_prefix('.'), value) {
            (Some(rest), Value::Table(inner)) => holds(inner, rest),
            _ => false,
        },
        None => false,
    })
}

fn table_of(keys: Keys) -> Result<Table, ConfigError> {
    Table::try_from(keys).map_err(|error| ConfigError::Value {
        key: String::new(),
        origin: Origin::Default,
        problem: format!("{error} (a bug: please report it)"),
    })
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|error: toml::de::Error| {
        // The line's number, not its text, which may be a secret.
        let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        ConfigError::Syntax { path: path.to_owned(), problem: format!("{line}{}", error.message()) }
    })
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

fn variables(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Vec<Variable>, ConfigError> {
    environment
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            name.strip_prefix(PREFIX).map(str::to_lowercase).map(|keys| Variable::read(name, &keys, value))
        })
        .collect()
}

impl Variable {
    fn read(name: String, keys: &str, value: OsString) -> Result<Variable, ConfigError> {
        let invalid = |problem: String| ConfigError::Variable { variable: name.clone(), problem };
        let text = value.into_string().map_err(|_| invalid("its value is not UTF-8".to_owned()))?;
        let mut path: Vec<String> = keys.split("__").map(str::to_owned).collect();
        let key = path.last_mut().filter(|last| last.ends_with("_file") && last.len() > "_file".len());
        let file = key.map(|key| {
            key.truncate(key.len() - "_file".len());
            PathBuf::from(&text)
        });
        let text = match &file {
            Some(path) => fs::read_to_string(path)
                .map_err(|error| match path.is_absolute() {
                    true => invalid(format!("cannot read {}: {error}", path.display())),
                    // Not repeated: it may be the secret itself.
                    false => invalid(format!("cannot read the file that it names: {error}; give its absolute path")),
                })?
                .trim()
                .to_owned(),
            None => text,
        };
        if path.len() == PROPERTIES.len() + 1 && path.iter().zip(PROPERTIES).all(|(a, b)| a == b) {
            path[PROPERTIES.len()] = path[PROPERTIES.len()].replace('_', ".");
        }
        Ok(Variable { name, path, file, text })
    }

    /// The table with this key alone. The value is used as text if the key takes text, and otherwise parsed as TOML: a
    /// password that consists of digits stays text.
    fn table(&self, defaults: &Table, complete: &Value) -> Result<Table, ConfigError> {
        let text = || Value::String(self.text.clone());
        let value = if self.takes_text(complete) { text() } else { self.text.parse().unwrap_or_else(|_| text()) };
        let table =
            self.path.iter().rev().fold(value, |inner, key| Value::Table(Table::from_iter([(key.clone(), inner)])));
        let Value::Table(table) = table else { return Err(self.invalid("is not the name of a key")) };
        let mut merged = defaults.clone();
        merge(&mut merged, table.clone());
        match read_keys(&merged) {
            Ok(_) => Ok(table),
            Err(Invalid { problem, .. }) => Err(self.invalid(&problem)),
        }
    }

    /// Whether the key takes text, as the properties of librdkafka all do.
    fn takes_text(&self, complete: &Value) -> bool {
        let is_property = self.path.len() > PROPERTIES.len() && self.path.iter().zip(PROPERTIES).all(|(a, b)| a == b);
        let found = self.path.iter().try_fold(complete, |value, key| value.get(key));
        is_property || found.is_some_and(Value::is_str)
    }

    fn invalid(&self, problem: &str) -> ConfigError {
        let place = self.file.as_ref().map(|path| format!(" (in {})", path.display())).unwrap_or_default();
        ConfigError::Variable { variable: self.name.clone(), problem: format!("{problem}{place}") }
    }
}
