//! The folder of a demo: its files, and how it is told from anybody else's.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::{CliError, simulate};
use crate::simulate::Message;

const EVENTS: &str = "events.ndjson";
const CONFIG: &str = "shrinkd.toml";
const DATABASE: &str = "shrinkd.db";

/// Everything that a demo leaves behind, the database's log and index included.
const FILES: [&str; 5] = [EVENTS, CONFIG, DATABASE, "shrinkd.db-wal", "shrinkd.db-shm"];

/// The first line of a demo's configuration, by which its folder is known.
const MARKER: &str = "# Made by `shrinkd demo`, which removes this folder's files when it is run again.";

/// A folder with the configuration of a demo in it.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder, or clears it of an earlier demo.
    ///
    /// # Errors
    /// Where it holds anything else, or cannot be written to.
    pub(super) fn make(path: &Path) -> Result<Folder, CliError> {
        let folder = Folder { path: path.to_owned() };
        fs::create_dir_all(path).map_err(|error| cannot("make", path, &error))?;
        let names = folder.names()?;
        if let Some(foreign) = folder.foreign(&names) {
            return Err(CliError::Usage(format!(
                "{} holds {foreign}, which no demo has made: give another folder with --dir",
                path.display()
            )));
        }
        // The configuration last: by it the folder is still known where this is cut short.
        for name in names.iter().filter(|name| *name != CONFIG) {
            folder.remove(name)?;
        }
        let config = config_text(&folder)?;
        fs::write(folder.config(), config).map_err(|error| cannot("write", &folder.config(), &error))?;
        Ok(folder)
    }

    /// Writes messages to the file of events; returns how many there were.
    pub(super) fn write_events(&self, messages: impl Iterator<Item = Message>) -> Result<u64, CliError> {
        let path = self.events();
        let write = || {
            let mut out = BufWriter::with_capacity(1 << 16, File::create(&path)?);
            let mut count = 0;
            for message in messages {
                simulate::write_line(&mut out, &message)?;
                count += 1;
            }
            out.flush()?;
            Ok(count)
        };
        write().map_err(|error| cannot("write", &path, &error))
    }

    pub(super) fn events(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// What is in the folder.
    fn names(&self) -> Result<Vec<String>, CliError> {
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| cannot("read", &self.path, &error))?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// The name of something in the folder that is not a demo's.
    fn foreign<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let is_demo = fs::read_to_string(self.config()).is_ok_and(|text| text.starts_with(MARKER));
        names.iter().map(String::as_str).find(|name| !is_demo || !FILES.contains(name))
    }

    fn remove(&self, name: &str) -> Result<(), CliError> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))
    }
}

/// The embedded default, with paths that hold wherever `shrinkd run` is started.
fn config_text(folder: &Folder) -> Result<String, CliError> {
    let text = |path: PathBuf| {
        let path = std::path::absolute(path)?;
        path.into_os_string()
            .into_string()
            .map_err(|path| CliError::Usage(format!("{} is not UTF-8: give another folder with --dir", path.display())))
    };
    let events = toml::Value::from(text(folder.events())?);
    let url = toml::Value::from(format!("sqlite://{}", text(folder.database())?));
    Ok(format!(
        "{MARKER}\n\
         # To go on with it, append events to the file and run `shrinkd run --config` with this file.\n\n\
         [source.file]\npath = {events}\n\n\
         [store]\nurl = {url}\n\n\
         [http]\n# A free port, which the log names.\nlisten = \"127.0.0.1:0\"\n"
    ))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::Io(io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display())))
}
