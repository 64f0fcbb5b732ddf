//! What the rows of a backend show of the fleet, beside a daemon that writes them: for commands that look at one backend.
//!
//! The rows hold less than a daemon knows: what they lack is as if it had never been seen. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_core::gtid::{self, GtidSet};
use orchestrator_core::id::{InstanceKey, LogPosition};
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::{Command, Replicated, Stamped};
use orchestrator_core::time::{Mono, Now, Wall};
use orchestrator_core::topology::{
    BinlogCoordinates, Classification, Flavour, GroupMembership, Instance, Place as InPlace,
    ProbeReport, ReplicaStatus, SemiSync, ThreadState, UsingGtid, Version,
};
use serde_json::Value;

use super::question::{Question, Texts};
use super::read_back;
use super::tables::{CLUSTER_ALIAS, DATABASE_INSTANCE};
use super::{BackendError, Place, mysql, sqlite};
use crate::env::Env;

/// What a backend shows.
#[derive(Debug)]
pub struct Shown {
    /// When a daemon wrote to it last.
    pub written: Wall,
    pub now: Now,
    pub state: Replicated,
    pub instances: BTreeMap<InstanceKey, Instance>,
}

const COLUMNS: &[&str] = &[
    "hostname",
    "port",
    "last_checked",
    "last_seen",
    "last_check_partial_success",
    "uptime",
    "server_id",
    "server_uuid",
    "version",
    "version_comment",
    "instance_alias",
    "log_bin",
    "log_slave_updates",
    "binlog_format",
    "binlog_row_image",
    "binary_log_file",
    "binary_log_pos",
    "master_host",
    "master_port",
    "master_uuid",
    "ancestry_uuid",
    "allow_tls",
    "replication_credentials_available",
    "has_replication_credentials",
    "replication_sql_thread_state",
    "replication_io_thread_state",
    "has_replication_filters",
    "last_sql_error",
    "last_io_error",
    "master_log_file",
    "read_master_log_pos",
    "relay_master_log_file",
    "exec_master_log_pos",
    "relay_log_file",
    "relay_log_pos",
    "seconds_behind_master",
    "slave_lag_seconds",
    "sql_delay",
    "oracle_gtid",
    "mariadb_gtid",
    "gtid_mode",
    "executed_gtid_set",
    "gtid_purged",
    "gtid_errant",
    "slave_hosts",
    "cluster_name",
    "suggested_cluster_alias",
    "replication_depth",
    "is_co_master",
    "data_center",
    "region",
    "physical_environment",
    "read_only",
    "semi_sync_enforced",
    "semi_sync_available",
    "semi_sync_master_enabled",
    "semi_sync_master_timeout",
    "semi_sync_master_wait_for_slave_count",
    "semi_sync_master_status",
    "semi_sync_master_clients",
    "semi_sync_replica_enabled",
    "semi_sync_replica_status",
    "replication_group_name",
    "replication_group_is_single_primary_mode",
    "replication_group_member_state",
    "replication_group_member_role",
    "replication_group_members",
    "replication_group_primary_host",
    "replication_group_primary_port",
];

const QUESTIONS: [Question; 2] = [
    Question::of(&DATABASE_INSTANCE, COLUMNS),
    Question::of(&CLUSTER_ALIAS, &["cluster_name", "alias"]),
];

/// Reads what a backend shows, judged by this policy.
///
/// # Errors
/// It is not there, cannot be read, or never held a state of this program.
pub async fn shown<E: Env>(place: &Place, policy: Policy) -> Result<Shown, BackendError> {
    let said = read_back::read_back::<E>(place).await?;
    let answers = match place {
        Place::Sqlite(path) => {
            let path = path.clone();
            E::blocking(move || sqlite::answer::<E>(&path, &QUESTIONS)).await?
        }
        Place::Mysql(backend) => mysql::answer::<E>(backend, &QUESTIONS).await?,
    };
    let wall = super::wall::<E>();
    // The clock of the rows is the wall's: a reading of it stands for one of the other kind.
    let now = Now {
        mono: Mono::from_nanos(wall.nanos()),
        wall,
    };
    let none = Vec::new();
    let answer = |place: usize| answers.get(place).unwrap_or(&none);
    let instances = answer(0)
        .iter()
        .filter_map(|row| instance(&Row(row), now))
        .map(|instance| (instance.key.clone(), instance))
        .collect();
    let aliases = answer(1).iter().map(|row| Command::SetClusterAlias {
        cluster_name: row.first().cloned().flatten().unwrap_or_default(),
        alias: row.get(1).cloned().flatten().unwrap_or_default(),
        by_operator: false,
    });
    let policy = Command::SetPolicy(Box::new(policy));
    // Aliases that people gave come after those that servers say, and count for more.
    let (servers, people): (Vec<_>, Vec<_>) = said.commands.into_iter().partition(|command| {
        matches!(
            command,
            Command::Know { .. } | Command::RecordCluster { .. }
        )
    });
    let commands = std::iter::once(policy)
        .chain(servers)
        .chain(aliases)
        .chain(people);
    let mut state = Replicated::default();
    for (index, command) in (1..).zip(commands) {
        let at = LogPosition {
            index,
            term: 1,
            ..LogPosition::default()
        };
        // What is refused is of a row that stands for nothing any more.
        let _ = state.apply(at, &Stamped { wall, command });
    }
    Ok(Shown {
        written: said.written,
        now,
        state,
        instances,
    })
}

/// The columns of a server.
struct Row<'a>(&'a Texts);

impl Row<'_> {
    fn maybe(&self, column: &str) -> Option<&str> {
        let place = COLUMNS.iter().position(|known| *known == column)?;
        self.0.get(place)?.as_deref()
    }

    fn text(&self, column: &str) -> String {
        self.maybe(column).unwrap_or_default().to_owned()
    }

    fn number<N: std::str::FromStr + Default>(&self, column: &str) -> N {
        self.maybe_number(column).unwrap_or_default()
    }

    fn maybe_number<N: std::str::FromStr>(&self, column: &str) -> Option<N> {
        self.maybe(column)?.parse().ok()
    }

    fn flag(&self, column: &str) -> bool {
        self.number::<i64>(column) != 0
    }

    fn time(&self, column: &str) -> Option<Wall> {
        self.maybe_number(column).map(Wall::from_secs)
    }

    fn key(&self, host: &str, port: &str) -> InstanceKey {
        InstanceKey::new(self.text(host), self.number(port))
    }

    fn coordinates(&self, file: &str, position: &str) -> BinlogCoordinates {
        BinlogCoordinates {
            file: self.text(file),
            position: self.number(position),
        }
    }

    fn thread(&self, column: &str) -> ThreadState {
        match self.number::<i64>(column) {
            0 => ThreadState::Stopped,
            1 => ThreadState::Running,
            2 => ThreadState::Other,
            _ => ThreadState::NoThread,
        }
    }

    /// A text that was written as JSON.
    fn unquoted(&self, column: &str) -> String {
        serde_json::from_str(&self.text(column)).unwrap_or_default()
    }

    fn keys(&self, column: &str) -> Vec<InstanceKey> {
        let list: Vec<Value> = serde_json::from_str(&self.text(column)).unwrap_or_default();
        let key = |value: &Value| {
            let port = value["Port"].as_u64()?;
            let host = value["Hostname"].as_str()?;
            Some(InstanceKey::new(host, u16::try_from(port).ok()?))
        };
        list.iter().filter_map(key).collect()
    }

    fn transactions(&self, column: &str, flavour: gtid::Flavour) -> Option<GtidSet> {
        GtidSet::parse(flavour, self.maybe(column)?).ok()
    }
}

fn instance(row: &Row<'_>, now: Now) -> Option<Instance> {
    let key = row.key("hostname", "port");
    if key.host.is_empty() {
        return None;
    }
    let mono = |at: Wall| Mono::from_nanos(at.nanos());
    // The year 1971 stands where none is known.
    let known = |at: &Wall| at.secs() > 2 * 365 * 24 * 3600;
    let (checked, seen) = (
        row.time("last_checked").filter(known),
        row.time("last_seen").filter(known),
    );
    let mut instance = Instance::new(key, now);
    instance.checked = checked.map(mono);
    instance.checked_at = checked.unwrap_or(Wall::EPOCH);
    instance.seen = seen.map(mono);
    instance.seen_at = seen.unwrap_or(Wall::EPOCH);
    instance.attempted = instance.checked;
    instance.partial_success = row.flag("last_check_partial_success");
    instance.place = InPlace {
        cluster_name: row.text("cluster_name"),
        root: instance.key.clone(),
        depth: row.number("replication_depth"),
        is_co_primary: row.flag("is_co_master"),
        suggested_alias: row.text("suggested_cluster_alias"),
        errant: row.text("gtid_errant"),
        ancestry: row.text("ancestry_uuid"),
    };
    if seen.is_some() {
        instance.report = Some(Arc::new(report(row)));
    }
    Some(instance)
}

fn report(row: &Row<'_>) -> ProbeReport {
    let (version, comment) = (row.text("version"), row.text("version_comment"));
    let (flavour, transactions) = if version.contains("MariaDB") {
        (Flavour::Mariadb, gtid::Flavour::Mariadb)
    } else if version.contains("maxscale") {
        (Flavour::MaxScale, gtid::Flavour::Mariadb)
    } else if comment.contains("Percona") {
        (Flavour::Percona, gtid::Flavour::Oracle)
    } else {
        (Flavour::Mysql, gtid::Flavour::Oracle)
    };
    let source = row.key("master_host", "master_port");
    let group = row.text("replication_group_name");
    ProbeReport {
        server_id: row.number("server_id"),
        server_uuid: row.text("server_uuid"),
        flavour,
        version: Version::parse(&version),
        version_comment: comment,
        uptime_s: row.number("uptime"),
        read_only: row.flag("read_only"),
        log_bin: row.flag("log_bin"),
        log_replica_updates: row.flag("log_slave_updates"),
        binlog_format: row.text("binlog_format"),
        binlog_row_image: row.text("binlog_row_image"),
        binlog: row
            .flag("log_bin")
            .then(|| row.coordinates("binary_log_file", "binary_log_pos")),
        gtid_mode: row.text("gtid_mode"),
        executed: row.transactions("executed_gtid_set", transactions),
        purged: row.transactions("gtid_purged", transactions),
        replication: (!source.host.is_empty()).then(|| replication(row, source)),
        semi_sync: SemiSync {
            available: row.flag("semi_sync_available"),
            source_enabled: row.flag("semi_sync_master_enabled"),
            replica_enabled: row.flag("semi_sync_replica_enabled"),
            source_timeout_ms: row.number("semi_sync_master_timeout"),
            source_wait_count: row.number("semi_sync_master_wait_for_slave_count"),
            source_status: row.flag("semi_sync_master_status"),
            source_clients: row.number("semi_sync_master_clients"),
            replica_status: row.flag("semi_sync_replica_status"),
            ..SemiSync::default()
        },
        replicas: row.keys("slave_hosts"),
        group: (!group.is_empty()).then(|| GroupMembership {
            name: group,
            single_primary: row.flag("replication_group_is_single_primary_mode"),
            state: row.text("replication_group_member_state"),
            role: row.text("replication_group_member_role"),
            members: row.keys("replication_group_members"),
            primary: row.key(
                "replication_group_primary_host",
                "replication_group_primary_port",
            ),
        }),
        credentials_available: row.flag("replication_credentials_available"),
        classification: Classification {
            data_center: row.text("data_center"),
            region: row.text("region"),
            physical_environment: row.text("physical_environment"),
            instance_alias: row.text("instance_alias"),
            cluster_alias: row.text("suggested_cluster_alias"),
            semi_sync_priority: row.number("semi_sync_enforced"),
            lag_s: row.maybe_number("slave_lag_seconds"),
            ..Classification::default()
        },
        ..ProbeReport::default()
    }
}

fn replication(row: &Row<'_>, source: InstanceKey) -> ReplicaStatus {
    ReplicaStatus {
        source,
        source_uuid: row.text("master_uuid"),
        user: String::from(if row.flag("has_replication_credentials") {
            "?"
        } else {
            ""
        }),
        io: row.thread("replication_io_thread_state"),
        sql: row.thread("replication_sql_thread_state"),
        io_error: row.unquoted("last_io_error"),
        sql_error: row.unquoted("last_sql_error"),
        read: row.coordinates("master_log_file", "read_master_log_pos"),
        exec: row.coordinates("relay_master_log_file", "exec_master_log_pos"),
        relay: row.coordinates("relay_log_file", "relay_log_pos"),
        seconds_behind: row.maybe_number("seconds_behind_master"),
        sql_delay_s: row.number("sql_delay"),
        auto_position: row.flag("oracle_gtid"),
        using_gtid: if row.flag("mariadb_gtid") {
            UsingGtid::SlavePos
        } else {
            UsingGtid::No
        },
        has_filters: row.flag("has_replication_filters"),
        tls_allowed: row.flag("allow_tls"),
        ..ReplicaStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Value as Written, Write, observed};
    use super::*;

    /// The texts that a database would answer.
    fn texts(instance: &Instance, now: Now) -> Texts {
        let Write::Put(row) = observed(instance, now) else {
            panic!("the row of a server that was read is put");
        };
        let of = |column: &&str| {
            let place = row.table.columns.iter().position(|at| at.name == *column);
            match &row.values[place.expect("a column")] {
                Written::Null => None,
                Written::Number(number) => Some(number.to_string()),
                Written::Text(text) => Some(text.clone()),
            }
        };
        let mut texts: Texts = COLUMNS.iter().map(of).collect();
        texts[2] = Some(instance.checked_at.secs().to_string());
        texts[3] = Some(instance.seen_at.secs().to_string());
        texts
    }

    #[test]
    fn what_is_written_of_a_server_is_read_back() {
        let wall = Wall::from_secs(1_800_000_000);
        let now = Now {
            mono: Mono::from_nanos(wall.nanos()),
            wall,
        };
        let mut written = Instance::new(InstanceKey::new("db2", 3306), now);
        written.checked = Some(now.mono);
        written.seen = Some(now.mono);
        written.attempted = Some(now.mono);
        written.checked_at = wall;
        written.seen_at = wall;
        written.partial_success = true;
        written.place = InPlace {
            cluster_name: String::from("db1:3306"),
            root: written.key.clone(),
            depth: 1,
            suggested_alias: String::from("shop"),
            errant: String::from("00000000-0000-0000-0000-000000000002:7"),
            ..InPlace::default()
        };
        written.report = Some(Arc::new(ProbeReport {
            server_id: 2,
            server_uuid: String::from("00000000-0000-0000-0000-000000000002"),
            version: Version::parse("8.4.2"),
            uptime_s: 99,
            read_only: true,
            log_bin: true,
            log_replica_updates: true,
            binlog_format: String::from("ROW"),
            binlog: Some(BinlogCoordinates {
                file: String::from("binlog.000007"),
                position: 4711,
            }),
            gtid_mode: String::from("ON"),
            executed: GtidSet::parse(
                gtid::Flavour::Oracle,
                "00000000-0000-0000-0000-000000000001:1-5",
            )
            .ok(),
            replication: Some(ReplicaStatus {
                source: InstanceKey::new("db1", 3306),
                io: ThreadState::Stopped,
                sql: ThreadState::Running,
                io_error: String::from("error connecting to \"db1\""),
                seconds_behind: None,
                auto_position: true,
                ..ReplicaStatus::default()
            }),
            replicas: vec![InstanceKey::new("db3", 3306)],
            classification: Classification {
                data_center: String::from("east"),
                cluster_alias: String::from("shop"),
                ..Classification::default()
            },
            ..ProbeReport::default()
        }));
        let texts = texts(&written, now);
        let read = instance(&Row(&texts), now).expect("a server");
        assert_eq!(read.key, written.key);
        assert_eq!(read.place, written.place);
        assert_eq!(read.report, {
            let mut report = ProbeReport::clone(written.report.as_deref().expect("a report"));
            report.purged = GtidSet::parse(gtid::Flavour::Oracle, "").ok();
            Some(Arc::new(report))
        });
        assert!(read.is_last_check_valid());
        // Written again it is the same row.
        assert_eq!(observed(&read, now), observed(&written, now));
    }
}
