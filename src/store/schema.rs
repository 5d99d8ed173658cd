//! Whether a database has this build's schema.

use std::cmp::Ordering;

use sqlx::migrate::{AppliedMigration, MigrateError, Migrator};

use super::StoreError;

/// Refuses a database whose migrations are not exactly this build's.
pub(super) fn check_schema(known: &Migrator, applied: &[AppliedMigration]) -> Result<(), StoreError> {
    let newest = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    let schema = |advice| Err(StoreError::Schema { found, known: newest, advice });
    match found.cmp(&newest) {
        Ordering::Less => schema("run `shrinkd migrate`"),
        Ordering::Greater => schema("it was migrated by a newer build: run that one"),
        Ordering::Equal => {
            let is_same = |migration: &AppliedMigration| {
                known.iter().any(|own| own.version == migration.version && own.checksum == migration.checksum)
            };
            match applied.iter().all(is_same) {
                true => Ok(()),
                false => schema("a migration was changed after it was applied: restore the database or the build"),
            }
        }
    }
}

pub(super) fn migration_error(known: &Migrator, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) => StoreError::Schema {
            found,
            known: known.iter().map(|migration| migration.version).max().unwrap_or(0),
            advice: "it was migrated by a newer build: run that one",
        },
        error => {
            StoreError::Permanent { context: "cannot migrate the database", code: None, message: error.to_string() }
        }
    }
}
