//! Rows of a database that the state does not hold. They are named in the log before the tables are written anew, since
//! nobody can look at them afterwards: somebody may have written them there, or they are of another member's past.

use std::collections::{BTreeMap, BTreeSet};

use super::Place;
use super::question::Texts;
use super::rows::{Value, Write};
use super::tables::{Role, TABLES, Table};

/// Finds a row if a state of ours was written there. The rows of an original's tables were copied when they were adopted.
pub(super) const HELD_A_STATE: &str =
    "SELECT 1 FROM orchestrator_projection WHERE anchor = 1 AND applied_index IS NOT NULL";
/// So many rows of a table are looked at.
pub(super) const LOOKED_AT_MAX: usize = 10_000;
/// So many of those that are removed are named.
const NAMED_MAX: usize = 10;

/// The tables that are written anew.
pub(super) fn tables() -> impl Iterator<Item = &'static Table> {
    TABLES
        .iter()
        .copied()
        .filter(|table| table.role == Role::Replicated)
}

/// Keys of rows, by the names of their tables.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<&'static str, BTreeSet<Vec<String>>>);

impl Keys {
    /// Of the rows that are in these tables once all is written.
    pub(super) fn of(writes: impl Iterator<Item = Write>) -> Self {
        let mut keys = Self::default();
        for write in writes {
            let (Write::Put(row) | Write::Refresh { row, .. }) = write else {
                continue;
            };
            if row.table.role != Role::Replicated {
                continue;
            }
            let key = row.table.key.iter().map(|name| {
                let place = row
                    .table
                    .columns
                    .iter()
                    .position(|column| column.name == *name);
                match place.and_then(|place| row.values.get(place)) {
                    Some(Value::Number(number)) => number.to_string(),
                    Some(Value::Text(text)) => text.clone(),
                    Some(Value::Null) | None => String::new(),
                }
            });
            keys.0
                .entry(row.table.name)
                .or_default()
                .insert(key.collect());
        }
        keys
    }

    /// Names those rows of a table that are none of these. `held` has the columns of their keys.
    pub(super) fn tell_others(
        &self,
        place: &Place,
        table: &Table,
        held: impl Iterator<Item = Texts>,
    ) {
        if let Some(others) = self.others(table, held) {
            tracing::warn!(
                "{place}: what this daemon's state does not hold is removed from {}: {others}",
                table.name
            );
        }
    }

    fn others(&self, table: &Table, held: impl Iterator<Item = Texts>) -> Option<String> {
        let none = BTreeSet::new();
        let known = self.0.get(table.name).unwrap_or(&none);
        let mut count = 0_usize;
        let mut named = Vec::new();
        for row in held {
            let key: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            if known.contains(&key) {
                continue;
            }
            count += 1;
            if named.len() < NAMED_MAX {
                named.push(key.join(":"));
            }
        }
        let more = if count > named.len() { ", ..." } else { "" };
        (count > 0).then(|| {
            format!(
                "{count} row(s), by {}: {}{more}",
                table.key.join(":"),
                named.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::id::InstanceKey;
    use orchestrator_core::replicated::{Change, Tag};
    use orchestrator_core::time::Wall;

    use super::super::rows::Rows;
    use super::super::tables::DATABASE_INSTANCE_TAGS;
    use super::*;

    fn held(rows: &[(&str, &str)]) -> impl Iterator<Item = Texts> {
        let rows = rows.iter().map(|(host, tag)| {
            [*host, "3306", *tag]
                .map(|text| Some(text.to_owned()))
                .to_vec()
        });
        rows.collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn rows_of_nobody_are_named() {
        let mut writes = Vec::new();
        let change = Change::Tag {
            key: InstanceKey::new("db1", 3306),
            name: String::from("known"),
            tag: Some(Tag {
                value: String::from("x"),
                at: Wall::from_secs(1),
            }),
        };
        Rows::default().of(&change, &mut writes);
        let keys = Keys::of(writes.into_iter());
        let table = &DATABASE_INSTANCE_TAGS;
        assert_eq!(keys.others(table, held(&[("db1", "known")])), None);
        assert_eq!(
            keys.others(
                table,
                held(&[("db1", "by-hand"), ("db1", "known"), ("db2", "known")])
            ),
            Some(String::from(
                "2 row(s), by hostname:port:tag_name: db1:3306:by-hand, db2:3306:known"
            ))
        );
        let many: Vec<String> = (0..12).map(|number| format!("db{number:02}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|host| (host.as_str(), "t")).collect();
        let said = keys.others(table, held(&many)).unwrap();
        assert!(
            said.starts_with("12 row(s)") && said.ends_with("db09:3306:t, ..."),
            "{said}"
        );
    }
}
