//! What the commands promise that need no store, and `shrinkd demo`.

#[path = "../common/mod.rs"]
mod common;

mod article;
mod cases;
mod commands;
mod demo;
mod direction;
mod files;
mod fit;
mod fit_references;
mod fit_table;
mod rule;
mod simulate;
mod study;
mod when;
