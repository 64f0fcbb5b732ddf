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
    pub tables: &'static [&'static Table],
}

/// Only ever appended to.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "tables",
    tables: TABLES,
}];

pub(super) fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// The steps that a database lacks, by the checksums of those that it records.
///
/// # Errors
/// Another build made it, or there is something to do and the configuration forbids it.
pub(super) fn missing(
    done: &BTreeMap<i64, String>,
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
            Some(checksum) if *checksum == wanted => {}
            Some(checksum) => {
                return Err(wrong(format!(
                    "its migration {} ({}) has checksum {checksum}, this release's has {wanted}: another build made it",
                    migration.version, migration.name
                )));
            }
        }
    }
    if let Some(newest) = done
        .keys()
        .next_back()
        .filter(|newest| **newest > newest_version())
    {
        tracing::warn!(
            "{place} has the schema of a later release (version {newest}, this one knows {}); columns are only ever added, \
             going on",
            newest_version()
        );
    }
    match deploy {
        Deploy::Refuse { key } if !missing.is_empty() => Err(wrong(format!(
            "its tables are not those of this release and {key} forbids to change them; unset it for one start"
        ))),
        Deploy::Apply | Deploy::Refuse { .. } => Ok(missing),
    }
}
