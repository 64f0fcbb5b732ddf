//! Which rows a change of state comes to, whatever database they go to.
//!
//! A row is a function of what it is about and nothing else: no clock, no counter, no earlier row. Rewriting everything
//! therefore gives the same rows as following every change. Every column of a table is given, in the table's order.
//!
//! Daemons, declarations, policy and versions have no table; known servers are seen in `database_instance`, which holds
//! what was observed of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{AuditLine, Recovery};
use orchestrator_core::replicated::{
    Blocked, Candidate, Change, Detection, Downtime, Maintenance, Tag,
};
use orchestrator_core::time::{Mono, Now, Wall};
use orchestrator_core::topology::{
    Flavour, Instance, ProbeReport, ThreadState, UsingGtid, Version,
};

use super::tables::{self, Table};

/// Room for the lines of one recovery's audit in `recovery_step_id`, which is made of the recovery's number and the
/// line's. Lines beyond it are not shown.
const LINES_PER_RECOVERY_MAX: u64 = 1_000_000;

/// What the original has where no time is known and one must stand.
const NO_TIME: &str = "1971-01-01 00:00:00";

/// What a column is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
}

/// One row, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub table: &'static Table,
    /// One a column.
    pub values: Vec<Value>,
}

impl Row {
    /// Panics unless every column is given, in order: which columns those are is known beforehand.
    pub(super) fn new<const N: usize>(
        table: &'static Table,
        values: [(&'static str, Value); N],
    ) -> Self {
        assert_eq!(N, table.columns.len(), "columns of {}", table.name);
        let values = table
            .columns
            .iter()
            .zip(values)
            .map(|(column, (name, value))| {
                assert_eq!(column.name, name, "column of {}", table.name);
                value
            })
            .collect();
        Self { table, values }
    }
}

/// One change of the database's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// There is this row with its key, and no other.
    Put(Row),
    /// The same if there is none with its key; else only these columns are written.
    Refresh {
        row: Row,
        columns: &'static [&'static str],
    },
    /// No row has these values.
    Delete {
        table: &'static Table,
        columns: &'static [&'static str],
        values: Vec<Value>,
    },
    /// No row has a number from `from` to `to` in this column.
    DeleteRange {
        table: &'static Table,
        column: &'static str,
        from: i64,
        to: i64,
    },
    /// No row has a time before this one in this column.
    DeleteBefore {
        table: &'static Table,
        column: &'static str,
        before: Wall,
    },
}

impl From<u64> for Value {
    /// Numbers that a database cannot hold are shown as the greatest that it can.
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Number(i64::from(flag))
    }
}

impl From<ThreadState> for Value {
    fn from(state: ThreadState) -> Self {
        Self::Number(i64::from(state as i8))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Wall> for Value {
    fn from(at: Wall) -> Self {
        Self::Text(timestamp(at))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// `YYYY-MM-DD hh:mm:ss`, UTC.
pub(super) fn timestamp(at: Wall) -> String {
    at.to_string().replace('T', " ").replace('Z', "")
}

/// The bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads [`hex`] back.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// Turns changes into rows, in their order. Carries from a cluster's record to the rows that come with it when that
/// cluster was recorded.
#[derive(Debug, Default)]
pub(super) struct Rows {
    recorded: BTreeMap<String, Wall>,
}

impl Rows {
    pub(super) fn of(&mut self, change: &Change, to: &mut Vec<Write>) {
        match change {
            Change::Version(_)
            | Change::Member(..)
            | Change::Declaration(..)
            | Change::Policy(_)
            | Change::Known(..)
            | Change::Forgotten(..)
            | Change::Deposed(..) => {}
            Change::Cluster(_, record) => {
                if let Some(record) = record {
                    self.recorded.insert(record.name.clone(), record.recorded);
                }
            }
            Change::ClusterAlias {
                cluster_name,
                alias,
            } => to.push(match alias {
                Some(alias) => Write::Put(Row::new(
                    &tables::CLUSTER_ALIAS,
                    [
                        ("cluster_name", cluster_name.into()),
                        ("alias", alias.into()),
                        ("last_registered", self.recorded(cluster_name)),
                    ],
                )),
                None => of_cluster(&tables::CLUSTER_ALIAS, cluster_name),
            }),
            Change::ClusterAliasOverride {
                cluster_name,
                alias,
            } => to.push(match alias {
                Some(alias) => Write::Put(Row::new(
                    &tables::CLUSTER_ALIAS_OVERRIDE,
                    [
                        ("cluster_name", cluster_name.into()),
                        ("alias", alias.into()),
                    ],
                )),
                None => of_cluster(&tables::CLUSTER_ALIAS_OVERRIDE, cluster_name),
            }),
            Change::ClusterDomain {
                cluster_name,
                domain,
            } => to.push(match domain {
                Some(domain) => Write::Put(Row::new(
                    &tables::CLUSTER_DOMAIN_NAME,
                    [
                        ("cluster_name", cluster_name.into()),
                        ("domain_name", domain.into()),
                        ("last_registered", self.recorded(cluster_name)),
                    ],
                )),
                None => of_cluster(&tables::CLUSTER_DOMAIN_NAME, cluster_name),
            }),
            Change::Downtime(key, row) => to.push(match row {
                Some(row) => Write::Put(downtime(key, row)),
                None => of_server(&tables::DATABASE_INSTANCE_DOWNTIME, key),
            }),
            Change::Maintenance(key, row) => {
                // The table is keyed by number, the state by server: the server's earlier one goes.
                to.push(of_server(&tables::DATABASE_INSTANCE_MAINTENANCE, key));
                if let Some(row) = row {
                    to.push(Write::Put(maintenance(key, row)));
                }
            }
            Change::Candidate(key, row) => to.push(match row {
                Some(row) => Write::Put(candidate(key, row)),
                None => of_server(&tables::CANDIDATE_DATABASE_INSTANCE, key),
            }),
            Change::Tag { key, name, tag } => to.push(match tag {
                Some(row) => Write::Put(tag_row(key, name, row)),
                None => Write::Delete {
                    table: &tables::DATABASE_INSTANCE_TAGS,
                    columns: &["hostname", "port", "tag_name"],
                    values: vec![(&key.host).into(), key.port.into(), name.into()],
                },
            }),
            Change::GlobalStop(since) => to.push(match since {
                Some(_) => Write::Put(Row::new(
                    &tables::GLOBAL_RECOVERY_DISABLE,
                    [("disable_recovery", 1_u8.into())],
                )),
                None => Write::Delete {
                    table: &tables::GLOBAL_RECOVERY_DISABLE,
                    columns: &["disable_recovery"],
                    values: vec![1_u8.into()],
                },
            }),
            Change::Detection(number, row) => to.push(match row {
                Some(row) => Write::Put(detection(row)),
                None => Write::Delete {
                    table: &tables::TOPOLOGY_FAILURE_DETECTION,
                    columns: &["detection_id"],
                    values: vec![(*number).into()],
                },
            }),
            Change::Recovery(number, row) => match row {
                // Operations are undertakings of the same kind, and no recoveries in the sense of this table.
                Some(row) if row.purpose.is_recovery() => to.push(Write::Put(recovery(row))),
                Some(_) => {}
                None => {
                    to.push(Write::Delete {
                        table: &tables::TOPOLOGY_RECOVERY,
                        columns: &["recovery_id"],
                        values: vec![(*number).into()],
                    });
                    let (from, to_id) = (
                        line_id(*number, 0),
                        line_id(*number, LINES_PER_RECOVERY_MAX - 1),
                    );
                    if let (Some(from), Some(to_id)) = (from, to_id) {
                        to.push(Write::DeleteRange {
                            table: &tables::TOPOLOGY_RECOVERY_STEPS,
                            column: "recovery_step_id",
                            from,
                            to: to_id,
                        });
                    }
                }
            },
            Change::RecoveryLine {
                uid,
                number,
                index,
                line,
            } => {
                if let Some(id) = line_id(*number, *index) {
                    to.push(Write::Put(recovery_line(id, &uid.0, line)));
                }
            }
            Change::Blocked(key, row) => to.push(match row {
                Some(row) => Write::Put(blocked(key, row)),
                None => of_server(&tables::BLOCKED_TOPOLOGY_RECOVERY, key),
            }),
        }
    }

    fn recorded(&self, cluster_name: &str) -> Value {
        Value::Text(
            self.recorded
                .get(cluster_name)
                .map_or_else(|| NO_TIME.to_owned(), |at| timestamp(*at)),
        )
    }
}

fn of_cluster(table: &'static Table, cluster_name: &str) -> Write {
    Write::Delete {
        table,
        columns: &["cluster_name"],
        values: vec![cluster_name.into()],
    }
}

fn of_server(table: &'static Table, key: &InstanceKey) -> Write {
    Write::Delete {
        table,
        columns: &["hostname", "port"],
        values: vec![(&key.host).into(), key.port.into()],
    }
}

/// `recovery_step_id` of a line; none where there is no room for it.
fn line_id(number: u64, index: u64) -> Option<i64> {
    if index >= LINES_PER_RECOVERY_MAX {
        return None;
    }
    let id = number
        .checked_mul(LINES_PER_RECOVERY_MAX)?
        .checked_add(index)?;
    i64::try_from(id).ok()
}

fn downtime(key: &InstanceKey, row: &Downtime) -> Row {
    Row::new(
        &tables::DATABASE_INSTANCE_DOWNTIME,
        [
            ("hostname", (&key.host).into()),
            ("port", key.port.into()),
            ("downtime_active", true.into()),
            ("begin_timestamp", row.began.into()),
            ("end_timestamp", row.until.into()),
            ("owner", (&row.owner).into()),
            ("reason", (&row.reason).into()),
        ],
    )
}

fn maintenance(key: &InstanceKey, row: &Maintenance) -> Row {
    Row::new(
        &tables::DATABASE_INSTANCE_MAINTENANCE,
        [
            ("database_instance_maintenance_id", row.number.into()),
            ("hostname", (&key.host).into()),
            ("port", key.port.into()),
            ("maintenance_active", true.into()),
            ("begin_timestamp", row.began.into()),
            ("end_timestamp", row.until.into()),
            ("owner", (&row.owner).into()),
            ("reason", (&row.reason).into()),
            // Nobody's process holds it: it is in the state of all daemons.
            ("processing_node_hostname", "".into()),
            ("processing_node_token", "".into()),
            ("explicitly_bounded", true.into()),
        ],
    )
}

fn candidate(key: &InstanceKey, row: &Candidate) -> Row {
    Row::new(
        &tables::CANDIDATE_DATABASE_INSTANCE,
        [
            ("hostname", (&key.host).into()),
            ("port", key.port.into()),
            ("last_suggested", row.at.into()),
            ("priority", 1_u8.into()),
            ("promotion_rule", row.rule.name().into()),
        ],
    )
}

fn tag_row(key: &InstanceKey, name: &str, row: &Tag) -> Row {
    Row::new(
        &tables::DATABASE_INSTANCE_TAGS,
        [
            ("hostname", (&key.host).into()),
            ("port", key.port.into()),
            ("tag_name", name.into()),
            ("tag_value", (&row.value).into()),
            ("last_updated", row.at.into()),
        ],
    )
}

fn detection(row: &Detection) -> Row {
    // When an inactive one ended is not kept; what must differ from 0 is its own time.
    let ended = if row.is_active { 0 } else { row.at.secs() };
    Row::new(
        &tables::TOPOLOGY_FAILURE_DETECTION,
        [
            ("detection_id", row.number.into()),
            ("hostname", (&row.server.host).into()),
            ("port", row.server.port.into()),
            ("in_active_period", row.is_active.into()),
            ("start_active_period", row.at.into()),
            ("end_active_period_unixtime", ended.into()),
            ("processing_node_hostname", (&row.processing_node).into()),
            ("processcing_node_token", (&row.processing_token).into()),
            ("analysis", (&row.analysis).into()),
            ("cluster_name", (&row.cluster_name).into()),
            ("cluster_alias", (&row.cluster_alias).into()),
            ("count_affected_slaves", count(row.replicas.len())),
            ("slave_hosts", comma_list(&row.replicas).into()),
            ("is_actionable", row.is_actionable.into()),
        ],
    )
}

fn recovery(row: &Recovery) -> Row {
    let ended = row.end.as_ref().map(|(at, _)| *at);
    let acknowledged = row.acknowledged.as_ref();
    let successor = row.successor.clone().unwrap_or_default();
    Row::new(
        &tables::TOPOLOGY_RECOVERY,
        [
            ("recovery_id", row.number.into()),
            ("hostname", (&row.server.host).into()),
            ("port", row.server.port.into()),
            ("in_active_period", row.is_running().into()),
            ("start_active_period", row.began.into()),
            (
                "end_active_period_unixtime",
                ended.map_or(0, Wall::secs).into(),
            ),
            ("end_recovery", ended.into()),
            ("processing_node_hostname", (&row.processing_node).into()),
            ("processcing_node_token", (&row.processing_token).into()),
            ("successor_hostname", successor.host.into()),
            ("successor_port", successor.port.into()),
            ("successor_alias", (&row.successor_alias).into()),
            ("analysis", (&row.analysis).into()),
            ("cluster_name", (&row.cluster_name).into()),
            ("cluster_alias", (&row.cluster_alias).into()),
            ("count_affected_slaves", count(row.replicas.len())),
            ("slave_hosts", comma_list(&row.replicas).into()),
            (
                "participating_instances",
                comma_list(&row.participants).into(),
            ),
            ("lost_slaves", comma_list(&row.lost).into()),
            ("all_errors", row.all_errors().join("\n").into()),
            ("is_successful", row.is_successful().into()),
            ("acknowledged", acknowledged.is_some().into()),
            ("acknowledged_at", acknowledged.map(|by| by.at).into()),
            (
                "acknowledged_by",
                acknowledged.map_or("", |by| by.by.as_str()).into(),
            ),
            (
                "acknowledge_comment",
                acknowledged.map_or("", |by| by.comment.as_str()).into(),
            ),
            ("last_detection_id", row.detection.into()),
            ("uid", (&row.uid.0).into()),
        ],
    )
}

fn recovery_line(id: i64, uid: &str, line: &AuditLine) -> Row {
    Row::new(
        &tables::TOPOLOGY_RECOVERY_STEPS,
        [
            ("recovery_step_id", Value::Number(id)),
            ("recovery_uid", uid.into()),
            ("audit_at", line.at.into()),
            ("message", (&line.message).into()),
        ],
    )
}

fn blocked(key: &InstanceKey, row: &Blocked) -> Row {
    Row::new(
        &tables::BLOCKED_TOPOLOGY_RECOVERY,
        [
            ("hostname", (&key.host).into()),
            ("port", key.port.into()),
            ("cluster_name", (&row.cluster_name).into()),
            ("analysis", (&row.analysis).into()),
            ("last_blocked_timestamp", row.at.into()),
            ("blocking_recovery_id", row.number.into()),
        ],
    )
}

/// What was seen of a server. A daemon that never reached it keeps what an earlier one wrote, and says when it tried.
pub(super) fn observed(instance: &Instance, now: Now) -> Write {
    let row = observed_row(instance, now);
    if instance.report.is_some() {
        Write::Put(row)
    } else {
        Write::Refresh {
            row,
            columns: &[
                "last_checked",
                "last_attempted_check",
                "last_check_partial_success",
            ],
        }
    }
}

/// A server that is not observed any more.
pub(super) fn unobserved(key: &InstanceKey) -> Write {
    of_server(&tables::DATABASE_INSTANCE, key)
}

fn observed_row(instance: &Instance, now: Now) -> Row {
    let nothing = ProbeReport::default();
    let report = instance.report.as_deref().unwrap_or(&nothing);
    let no_replication = Default::default();
    let replication = report.replication.as_ref().unwrap_or(&no_replication);
    let no_group = Default::default();
    let group = report.group.as_ref().unwrap_or(&no_group);
    let binlog = report.binlog.clone().unwrap_or_default();
    let semi_sync = &report.semi_sync;
    let classification = &report.classification;
    let place = &instance.place;
    let checked = instance.checked.map(|_| instance.checked_at);
    let attempted = instance.attempted.map(|at| wall_of(at, now));
    let or_none = |at: Option<Wall>| at.map_or_else(|| NO_TIME.into(), Value::from);
    Row::new(
        &tables::DATABASE_INSTANCE,
        [
            ("hostname", (&instance.key.host).into()),
            ("port", instance.key.port.into()),
            ("last_checked", or_none(checked)),
            ("last_attempted_check", or_none(attempted)),
            ("last_seen", instance.seen.map(|_| instance.seen_at).into()),
            (
                "last_check_partial_success",
                instance.partial_success.into(),
            ),
            (
                "last_discovery_latency",
                u64::try_from(report.latency.as_nanos())
                    .unwrap_or(u64::MAX)
                    .into(),
            ),
            ("uptime", report.uptime_s.into()),
            ("server_id", report.server_id.into()),
            ("server_uuid", (&report.server_uuid).into()),
            ("version", (&report.version.text).into()),
            ("major_version", major_version(&report.version).into()),
            ("version_comment", (&report.version_comment).into()),
            ("instance_alias", (&classification.instance_alias).into()),
            ("log_bin", report.log_bin.into()),
            ("log_slave_updates", report.log_replica_updates.into()),
            ("binlog_format", (&report.binlog_format).into()),
            ("binlog_row_image", (&report.binlog_row_image).into()),
            (
                "binlog_server",
                (report.flavour == Flavour::MaxScale).into(),
            ),
            ("binary_log_file", binlog.file.into()),
            ("binary_log_pos", binlog.position.into()),
            ("master_host", (&replication.source.host).into()),
            ("master_port", replication.source.port.into()),
            ("master_uuid", (&replication.source_uuid).into()),
            ("ancestry_uuid", (&place.ancestry).into()),
            ("allow_tls", replication.tls_allowed.into()),
            (
                "replication_credentials_available",
                report.credentials_available.into(),
            ),
            (
                "has_replication_credentials",
                (!replication.user.is_empty()).into(),
            ),
            (
                "slave_sql_running",
                (replication.sql == ThreadState::Running).into(),
            ),
            (
                "slave_io_running",
                (replication.io == ThreadState::Running).into(),
            ),
            ("replication_sql_thread_state", replication.sql.into()),
            ("replication_io_thread_state", replication.io.into()),
            ("has_replication_filters", replication.has_filters.into()),
            ("last_sql_error", quoted(&replication.sql_error).into()),
            ("last_io_error", quoted(&replication.io_error).into()),
            ("master_log_file", (&replication.read.file).into()),
            ("read_master_log_pos", replication.read.position.into()),
            ("relay_master_log_file", (&replication.exec.file).into()),
            ("exec_master_log_pos", replication.exec.position.into()),
            ("relay_log_file", (&replication.relay.file).into()),
            ("relay_log_pos", replication.relay.position.into()),
            ("seconds_behind_master", replication.seconds_behind.into()),
            ("slave_lag_seconds", report.lag_s().into()),
            ("sql_delay", replication.sql_delay_s.into()),
            ("oracle_gtid", replication.auto_position.into()),
            (
                "supports_oracle_gtid",
                (!matches!(report.gtid_mode.as_str(), "" | "OFF")).into(),
            ),
            (
                "mariadb_gtid",
                (replication.using_gtid != UsingGtid::No).into(),
            ),
            ("pseudo_gtid", false.into()),
            ("gtid_mode", (&report.gtid_mode).into()),
            (
                "executed_gtid_set",
                text_of(report.executed.as_ref()).into(),
            ),
            ("gtid_purged", text_of(report.purged.as_ref()).into()),
            ("gtid_errant", (&place.errant).into()),
            ("num_slave_hosts", count(report.replicas.len())),
            ("slave_hosts", json_list(&report.replicas).into()),
            ("cluster_name", (&place.cluster_name).into()),
            ("suggested_cluster_alias", (&place.suggested_alias).into()),
            ("replication_depth", place.depth.into()),
            ("is_co_master", place.is_co_primary.into()),
            ("data_center", (&classification.data_center).into()),
            ("region", (&classification.region).into()),
            (
                "physical_environment",
                (&classification.physical_environment).into(),
            ),
            ("read_only", report.read_only.into()),
            (
                "semi_sync_enforced",
                classification.semi_sync_priority.into(),
            ),
            ("semi_sync_available", semi_sync.available.into()),
            ("semi_sync_master_enabled", semi_sync.source_enabled.into()),
            (
                "semi_sync_master_timeout",
                semi_sync.source_timeout_ms.into(),
            ),
            (
                "semi_sync_master_wait_for_slave_count",
                semi_sync.source_wait_count.into(),
            ),
            ("semi_sync_master_status", semi_sync.source_status.into()),
            ("semi_sync_master_clients", semi_sync.source_clients.into()),
            (
                "semi_sync_replica_enabled",
                semi_sync.replica_enabled.into(),
            ),
            ("semi_sync_replica_status", semi_sync.replica_status.into()),
            ("replication_group_name", (&group.name).into()),
            (
                "replication_group_is_single_primary_mode",
                group.single_primary.into(),
            ),
            ("replication_group_member_state", (&group.state).into()),
            ("replication_group_member_role", (&group.role).into()),
            (
                "replication_group_members",
                json_list(&group.members).into(),
            ),
            (
                "replication_group_primary_host",
                (&group.primary.host).into(),
            ),
            ("replication_group_primary_port", group.primary.port.into()),
        ],
    )
}

/// When an earlier reading of the monotonic clock was, as the wall clock has it.
fn wall_of(at: Mono, now: Now) -> Wall {
    now.wall - now.mono.since(at)
}

fn count(rows: usize) -> Value {
    (rows as u64).into()
}

fn text_of(set: Option<&impl ToString>) -> String {
    set.map(ToString::to_string).unwrap_or_default()
}

fn major_version(version: &Version) -> String {
    if version.text.is_empty() {
        return String::new();
    }
    let (major, minor) = version.major();
    format!("{major}.{minor}")
}

fn sorted(keys: &[InstanceKey]) -> Vec<&InstanceKey> {
    let mut sorted: Vec<&InstanceKey> = keys.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted
}

/// `host:port`, comma separated.
fn comma_list(keys: &[InstanceKey]) -> String {
    let texts: Vec<String> = sorted(keys).into_iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// `[{"Hostname":"db1","Port":3306}]`
fn json_list(keys: &[InstanceKey]) -> String {
    let list: Vec<_> = sorted(keys)
        .into_iter()
        .map(|key| serde_json::json!({"Hostname": key.host, "Port": key.port}))
        .collect();
    serde_json::Value::Array(list).to_string()
}

/// A server's error as a JSON string of printable ASCII; nothing for none.
fn quoted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let json = serde_json::Value::from(text).to_string();
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_errors_have_the_form_that_readers_know() {
        let keys = [InstanceKey::new("db2", 3306), InstanceKey::new("db1", 3307)];
        assert_eq!(comma_list(&keys), "db1:3307,db2:3306");
        assert_eq!(
            json_list(&keys),
            r#"[{"Hostname":"db1","Port":3307},{"Hostname":"db2","Port":3306}]"#
        );
        assert_eq!(comma_list(&[]), "");
        assert_eq!(json_list(&[]), "[]");
        assert_eq!(quoted(""), "");
        assert_eq!(
            quoted("no \"host\"\n\u{e9}\u{7f}"),
            r#""no \"host\"\n\u00e9\u007f""#
        );
    }

    #[test]
    fn digests_are_read_back() {
        let digest: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 8).unwrap());
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!(unhex(""), None);
        assert_eq!(unhex(&"é".repeat(32)), None);
        assert_eq!(unhex(&"g".repeat(64)), None);
    }

    #[test]
    fn lines_of_different_recoveries_have_different_numbers() {
        assert_eq!(line_id(1, 0), Some(1_000_000));
        assert_eq!(line_id(1, 999_999), Some(1_999_999));
        assert_eq!(line_id(1, 1_000_000), None);
        assert_eq!(line_id(u64::MAX, 0), None);
    }

    #[test]
    fn every_observed_column_is_given() {
        let now = Now::default();
        let instance = Instance::new(InstanceKey::new("db1", 3306), now);
        // The columns are checked as the row is made.
        assert!(matches!(observed(&instance, now), Write::Refresh { .. }));
    }
}
