//! What operators and readers are given: configuration, metrics, health, alerts, tables and pages of documentation.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod docs;
mod monitoring;
mod tables;
mod telemetry;
