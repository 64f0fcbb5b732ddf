//! For fuzzing: what servers answer, as text, goes through everything that reads it.

use std::collections::BTreeMap;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::topology::{THROUGH_FENCE_MAX, ThroughFence};

use super::dialect::Dialect;
use super::read::Part;
use super::report::{Tables, assemble};
use super::settings::ProbeSettings;
use super::table::Table;

/// Most grants that can be missing: there are not more purposes and rights than that.
const MISSING_MAX: usize = 40;

/// Takes a text of tables: a first line with the version, then for each table `@` and the name of its part, a line with
/// its columns and a line for each row, cells between bars, `\N` for NULL; `!` instead of `@` is a part that the server
/// refused. Panics only if a promise is broken: any rows make a report or none, and a report is whole.
pub fn check_tables(text: &str) {
    let mut lines = text.lines();
    let dialect = Dialect::new(lines.next().unwrap_or_default(), "");
    let parts = || Part::OURS.iter().chain(Part::USERS);
    let mut tables = Tables::new();
    let mut refused = BTreeMap::new();
    let mut current = None;
    for line in lines {
        if let Some(name) = line.strip_prefix('!') {
            if let Some(part) = parts().find(|part| format!("{part:?}") == name) {
                tables.remove(part);
                refused.insert(*part, 1227);
            }
            current = None;
        } else if let Some(name) = line.strip_prefix('@') {
            current = parts().find(|part| format!("{part:?}") == name).copied();
        } else if let Some(part) = current {
            let cells = line.split('|').map(str::to_owned);
            match tables.get_mut(&part) {
                None => {
                    let columns = cells.collect();
                    tables.insert(
                        part,
                        Table {
                            columns,
                            rows: Vec::new(),
                        },
                    );
                }
                Some(table) => table
                    .rows
                    .push(cells.map(|cell| (cell != "\\N").then_some(cell)).collect()),
            }
        }
    }
    let key = InstanceKey::new("probed", 3306);
    for settings in [
        ProbeSettings::default(),
        ProbeSettings {
            discover_by_show_replicas: true,
            own_name: super::OwnName::ReportHost,
            ..ProbeSettings::default()
        },
    ] {
        let Ok(report) = assemble(&key, &dialect, &settings, &tables, &refused) else {
            continue;
        };
        assert!(report.self_key.is_valid(), "{:?}", report.self_key);
        assert!(!report.identity.0.is_empty());
        if let (Some(held), Some(executed)) = (report.held(), &report.executed) {
            assert_eq!(held.is_superset(executed), Ok(true));
        }
        let _ = (
            report.held_from_source(),
            report.has_unapplied(),
            report.lag_s(),
        );
        let _ = report.written_here_beyond(&report);
        assert!(report.missing_privileges.len() <= MISSING_MAX);
        for missing in &report.missing_privileges {
            assert!(missing.grant.starts_with("GRANT "), "{}", missing.grant);
        }
        assert!(report.missing_privileges.is_empty() || report.privileges_unknown.is_none());
        if let ThroughFence::Accounts { named, .. } = &report.through_fence {
            assert!((1..=THROUGH_FENCE_MAX).contains(&named.len()), "{named:?}");
        }
        let bytes = postcard::to_stdvec(&report).expect("a report is data");
        assert_eq!(
            postcard::from_bytes::<orchestrator_core::topology::ProbeReport>(&bytes),
            Ok(report)
        );
    }
}
