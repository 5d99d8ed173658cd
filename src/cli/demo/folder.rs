//! The folder of a demo: its files, and how it is recognized.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cli::{CliError, simulate};
use crate::simulate::Message;

const EVENTS: &str = "events.ndjson";
const CONFIG: &str = "shrinkd.toml";
const DATABASE: &str = "shrinkd.db";

/// Every file of a demo, including the database's write-ahead log and its index.
const FILES: [&str; 5] = [EVENTS, CONFIG, DATABASE, "shrinkd.db-wal", "shrinkd.db-shm"];

/// The first line of a demo's configuration, by which its folder is recognized.
const MARKER: &str = "# Made by `shrinkd demo`, which removes this folder's files when it is run again.";

/// A folder with the configuration of a demo in it.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates the folder, or removes the files of an earlier demo from it.
    ///
    /// # Errors
    /// Where it contains anything else, or cannot be written to.
    pub(super) fn make(path: &Path) -> Result<Folder, CliError> {
        let folder = Folder { path: path.to_owned() };
        fs::create_dir_all(path).map_err(|error| cannot("create", path, &error))?;
        let names = folder.names()?;
        if let Some(foreign) = folder.foreign(&names) {
            return Err(CliError::Usage(format!(
                "{} contains {foreign}, which is not from a demo: choose another folder with --dir",
                path.display()
            )));
        }
        // The configuration goes last: an interrupted run leaves a folder that is still recognized as a demo's.
        for name in names.iter().filter(|name| *name != CONFIG) {
            folder.remove(name)?;
        }
        let config = config_text(&folder)?;
        fs::write(folder.config(), config).map_err(|error| cannot("write", &folder.config(), &error))?;
        Ok(folder)
    }

    /// Writes the messages to the events file, and returns their number.
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

    /// Names of all files in the folder.
    fn names(&self) -> Result<Vec<String>, CliError> {
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| cannot("read", &self.path, &error))?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// A file in the folder that is not from a demo, if there is one.
    fn foreign<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let is_demo = fs::read_to_string(self.config()).is_ok_and(|text| text.starts_with(MARKER));
        names.iter().map(String::as_str).find(|name| !is_demo || !FILES.contains(name))
    }

    fn remove(&self, name: &str) -> Result<(), CliError> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))
    }
}

/// A configuration with absolute paths, so that `shrinkd run` works with it from any directory.
fn config_text(folder: &Folder) -> Result<String, CliError> {
    let text = |path: PathBuf| {
        let path = std::path::absolute(path)?;
        path.into_os_string().into_string().map_err(|path| {
            CliError::Usage(format!("{} is not UTF-8: choose another folder with --dir", path.display()))
        })
    };
    let events = toml::Value::from(text(folder.events())?);
    let url = toml::Value::from(format!("sqlite://{}", text(folder.database())?));
    Ok(format!(
        "{MARKER}\n\
         # To process more events, append them to the file and run `shrinkd run --config` with this file.\n\n\
         [source.file]\npath = {events}\n\n\
         [store]\nurl = {url}\n\n\
         [http]\n# Any free port; it is logged at start-up.\nlisten = \"127.0.0.1:0\"\n"
    ))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::Io(io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display())))
}
