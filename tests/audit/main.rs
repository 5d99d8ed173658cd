//! What is promised of a database that is filled already: audits, rebuilds, replays of refused messages, new releases.

#[path = "../common/mod.rs"]
mod common;

mod failed;
mod holdouts;
mod rebuild;
mod replay;
mod site;
mod upgrade;
mod verify;
