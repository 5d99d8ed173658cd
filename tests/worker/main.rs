//! What the worker promises: its sources, its limits, and the whole way from events to tables.

#[path = "../common/mod.rs"]
mod common;

mod dead_letters;
mod fold;
mod in_process;
mod pipeline;
mod poison;
mod source;
