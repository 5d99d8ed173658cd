//! The pages of documentation and the code blocks in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown page of this repository.
pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

impl Page {
    /// Every page: those at the root, and all of `docs/`.
    pub fn all() -> Vec<Page> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = [root.to_path_buf(), root.join("docs")]
            .into_iter()
            .flat_map(|folder| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()));
        let mut pages: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
        pages.sort();
        pages.into_iter().map(|path| Page { text: fs::read_to_string(&path).expect("text"), path }).collect()
    }

    /// The contents of its code blocks in a language.
    pub fn blocks<'a>(&'a self, language: &str) -> impl Iterator<Item = &'a str> {
        let fence = format!("```{language}\n");
        let after_fence: Vec<&str> = self.text.split(fence.as_str()).skip(1).collect();
        after_fence.into_iter().map(|text| text.split("```").next().unwrap_or_default())
    }
}
