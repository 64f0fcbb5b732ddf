//! Rows that people write beside the daemon, by the forced command line.
//!
//! No daemon reads them: they are seen by whoever reads the tables, and by commands that look at this backend. So that they
//! do not stay for ever, as if they had been decided, the same transaction leaves a mark; a daemon that opens the database
//! and finds it writes all rows of the replicated state anew, and the mark goes with them. The mark is a row of
//! `orchestrator_projection` beside the one that counts, so that a release that knows of no marks reads what it always did.

use orchestrator_core::replicated::Change;
use orchestrator_core::time::Wall;

use super::migrations::newest_version;
use super::rows::{Row, Rows, Value, Write};
use super::{BackendError, Place, mysql, sqlite, tables};
use crate::env::Env;

/// Finds a row if there is a mark.
pub(super) const FIND: &str = "SELECT 1 FROM orchestrator_projection WHERE anchor = 2";
/// Removes the mark.
pub(super) const FORGET: &str = "DELETE FROM orchestrator_projection WHERE anchor = 2";

/// Writes what changed to a database that its daemon may be using. That one is made to wait for a transaction of a few rows,
/// as by any other of them; nothing is read from it that it could have changed meanwhile.
///
/// # Errors
/// It is not there, cannot be written, or never held a state of this program.
pub async fn write<E: Env>(place: &Place, changes: &[Change]) -> Result<(), BackendError> {
    let mut writes = Vec::new();
    let mut rows = Rows::default();
    for change in changes {
        rows.of(change, &mut writes);
    }
    let wall = super::wall::<E>();
    match place {
        Place::Sqlite(path) => {
            let path = path.clone();
            E::blocking(move || sqlite::write_by_hand::<E>(&path, &writes, wall)).await
        }
        Place::Mysql(backend) => mysql::write_by_hand::<E>(backend, &writes, wall).await,
    }
}

/// The rows, and the mark.
pub(super) fn marked(writes: &[Write], wall: Wall) -> Vec<Write> {
    let mark = Row::new(
        &tables::ORCHESTRATOR_PROJECTION,
        [
            ("anchor", 2_u8.into()),
            ("cluster_id", "".into()),
            ("daemon", "".into()),
            ("token", "".into()),
            ("written_at", wall.into()),
            ("applied_index", Value::Null),
            ("applied_term", Value::Null),
            ("applied_node", "".into()),
            ("digest", "".into()),
            ("schema_version", Value::Number(newest_version())),
        ],
    );
    let mut all = writes.to_vec();
    all.push(Write::Put(mark));
    all
}
