//! The numbered steps of the schema, the same for each kind of database, and which of them a database lacks.
//!
//! A step is pinned by a checksum of the text it has in the database's own words, so that a schema that another build made is
//! noticed. What a step does to tables that are there already is decided by each adapter when it runs.

use std::collections::BTreeMap;

use super::tables::{TABLES, Table};
use super::{BackendError, Deploy, Place};

/// Where the steps that ran are recorded.
pub(super) const MIGRATIONS_TABLE: &str = "orchestrator_migrations";

/// One step.
pub(super) struct Migration {
    pub version: i64,
    pub name: &'static str,
    /// The oldest release, by the newest step it has, that can use the tables after this one. A step that only adds tables or
    /// columns leaves this as it was, so that the release before can come back.
    pub oldest_reader: i64,
    pub tables: &'static [&'static Table],
}

/// Only ever appended to.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "tables",
    oldest_reader: 1,
    tables: TABLES,
}];

pub(super) fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// A step as a database records it.
pub(super) struct Done {
    pub checksum: String,
    pub oldest_reader: i64,
}

/// The steps that a database lacks, by those that it records.
///
/// # Errors
/// Another build made it, a later release changed it in a way that this one cannot live with, or there is something to do
/// and the configuration forbids it.
pub(super) fn missing(
    done: &BTreeMap<i64, Done>,
    checksum_of: impl Fn(&Migration) -> String,
    place: &Place,
    deploy: Deploy,
) -> Result<Vec<&'static Migration>, BackendError> {
    let wrong = |reason: String| BackendError::Schema {
        place: place.clone(),
        reason,
    };
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        let wanted = checksum_of(migration);
        match done.get(&migration.version) {
            None => missing.push(migration),
            Some(Done { checksum, .. }) if *checksum == wanted => {}
            Some(Done { checksum, .. }) => {
                return Err(wrong(format!(
                    "its migration {} ({}) has checksum {checksum}, this release's has {wanted}: another build made it",
                    migration.version, migration.name
                )));
            }
        }
    }
    let known = newest_version();
    if let Some(newest) = done.keys().next_back().filter(|newest| **newest > known) {
        let oldest_reader = done.values().map(|done| done.oldest_reader).max();
        if let Some(oldest) = oldest_reader.filter(|oldest| *oldest > known) {
            return Err(wrong(format!(
                "a later release changed its tables (to version {newest}), and this one knows version {known}, where {oldest} \
                 is the oldest that can use them: install that release again, or give this daemon an empty database, which it \
                 fills from RaftDataDir"
            )));
        }
        tracing::warn!(
            "{place} has the tables of a later release (version {newest}, this one knows {known}), which this one can use"
        );
    }
    match deploy {
        Deploy::Refuse { key } if !missing.is_empty() => Err(wrong(format!(
            "its tables are not those of this release and {key} forbids to change them; unset it for one start"
        ))),
        Deploy::Apply | Deploy::Refuse { .. } => Ok(missing),
    }
}
