//! What operators and readers are given: configuration, metrics, health, alerts, tables, pages of documentation, and the floors
//! of the source.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod connections;
mod docs;
mod floors;
mod http;
mod lag;
mod monitoring;
mod tables;
mod telemetry;
