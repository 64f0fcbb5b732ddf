//! Reading tables as texts: what is asked of a database, and what its rows say.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::time::Wall;

use super::ASIDE_MAX;
use super::tables::Table;

/// The longest that reading waits for another process that has the database locked.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A row as texts, and nothing for NULL.
pub(super) type Texts = Vec<Option<String>>;

/// Where a table's rows are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    InPlace,
    /// As they were set aside when the database was adopted; the last time, if that was more than once.
    Aside,
}

/// What is asked of one table. A table that is missing has no rows, and a column that is missing is NULL in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub table: &'static Table,
    pub stored: Stored,
    /// Times come as seconds since 1970.
    pub columns: &'static [&'static str],
    /// Only the rows with the greatest values of this column, so many, greatest first.
    pub newest: Option<(&'static str, usize)>,
}

impl Question {
    /// All rows of a table of this release.
    pub(super) const fn of(table: &'static Table, columns: &'static [&'static str]) -> Self {
        Self {
            table,
            stored: Stored::InPlace,
            columns,
            newest: None,
        }
    }

    /// All rows of a table of the original.
    pub(super) const fn of_original(
        table: &'static Table,
        columns: &'static [&'static str],
    ) -> Self {
        Self {
            stored: Stored::Aside,
            ..Self::of(table, columns)
        }
    }

    pub(super) const fn newest(self, by: &'static str, count: usize) -> Self {
        Self {
            newest: Some((by, count)),
            ..self
        }
    }

    /// The names that its table may have, the best last; one is missing only if those after it are.
    pub(super) fn names(&self) -> Vec<String> {
        match self.stored {
            Stored::InPlace => vec![self.table.name.to_owned()],
            Stored::Aside => aside_names(self.table).collect(),
        }
    }

    /// The statement, with its columns as `express` writes them; `quote` writes names.
    pub(super) fn sql(
        &self,
        name: &str,
        present: &BTreeSet<String>,
        quote: impl Fn(&str) -> String,
        express: impl Fn(&str) -> String,
    ) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                if present.contains(*column) {
                    express(column)
                } else {
                    "NULL".to_owned()
                }
            })
            .collect();
        let mut sql = format!("SELECT {} FROM {}", columns.join(", "), quote(name));
        if let Some((column, count)) = self.newest {
            sql.push_str(&format!(" ORDER BY {} DESC LIMIT {count}", quote(column)));
        }
        sql
    }
}

/// The names under which a table may be set aside, in the order in which they are taken.
pub(super) fn aside_names(table: &Table) -> impl Iterator<Item = String> + use<> {
    let name = table.name;
    (1..ASIDE_MAX).map(move |number| match number {
        1 => format!("{name}_original"),
        _ => format!("{name}_original{number}"),
    })
}

pub(super) fn text(row: &Texts, column: usize) -> String {
    row.get(column).cloned().flatten().unwrap_or_default()
}

pub(super) fn number(row: &Texts, column: usize) -> Option<u64> {
    row.get(column)?.as_ref()?.parse().ok()
}

pub(super) fn is_set(row: &Texts, column: usize) -> bool {
    number(row, column).is_some_and(|number| number != 0)
}

pub(super) fn time(row: &Texts, column: usize) -> Option<Wall> {
    // A column with fractions gives them.
    let seconds = row.get(column)?.as_ref()?.split('.').next()?;
    seconds.parse().ok().map(Wall::from_secs)
}

/// Of a host in one column and a port in the next.
pub(super) fn key_at(row: &Texts, column: usize) -> Option<InstanceKey> {
    Some(InstanceKey::new(
        text(row, column),
        u16::try_from(number(row, column + 1)?).ok()?,
    ))
}

/// Of a row that begins with a host and a port.
pub(super) fn key(row: &Texts) -> Option<InstanceKey> {
    key_at(row, 0)
}
