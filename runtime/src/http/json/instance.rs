//! `Instance`: a server with everything this daemon knows of it.

use std::collections::BTreeMap;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::time::{Now, Wall};
use orchestrator_core::topology::text::{Scale, Status, is_checked_within, status};
use orchestrator_core::topology::{
    self, Flavour, ProbeReport, PromotionRule, ReplicaStatus, ThreadState, UsingGtid,
};
use serde::Serialize;

use super::{
    BinlogCoordinates, Key, NullBool, NullInt64, column_time, computed_time, key_set, quoted,
};

/// A server of the wire. Members that no build of this daemon fills (pseudo-GTID, agents) keep their empty value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Instance {
    pub key: Key,
    pub instance_alias: String,
    pub uptime: u64,
    #[serde(rename = "ServerID")]
    pub server_id: u64,
    #[serde(rename = "ServerUUID")]
    pub server_uuid: String,
    pub version: String,
    pub version_comment: String,
    pub flavor_name: String,
    pub read_only: bool,
    #[serde(rename = "Binlog_format")]
    pub binlog_format: String,
    pub binlog_row_image: String,
    pub log_bin_enabled: bool,
    pub log_slave_updates_enabled: bool,
    pub log_replication_updates_enabled: bool,
    pub self_binlog_coordinates: BinlogCoordinates,
    pub master_key: Key,
    #[serde(rename = "MasterUUID")]
    pub master_uuid: String,
    #[serde(rename = "AncestryUUID")]
    pub ancestry_uuid: String,
    pub is_detached_master: bool,
    #[serde(rename = "Slave_SQL_Running")]
    pub slave_sql_running: bool,
    #[serde(rename = "ReplicationSQLThreadRuning")]
    pub replication_sql_thread_runing: bool,
    #[serde(rename = "Slave_IO_Running")]
    pub slave_io_running: bool,
    #[serde(rename = "ReplicationIOThreadRuning")]
    pub replication_io_thread_runing: bool,
    #[serde(rename = "ReplicationSQLThreadState")]
    pub replication_sql_thread_state: i8,
    #[serde(rename = "ReplicationIOThreadState")]
    pub replication_io_thread_state: i8,
    pub has_replication_filters: bool,
    #[serde(rename = "GTIDMode")]
    pub gtid_mode: String,
    #[serde(rename = "SupportsOracleGTID")]
    pub supports_oracle_gtid: bool,
    #[serde(rename = "UsingOracleGTID")]
    pub using_oracle_gtid: bool,
    #[serde(rename = "UsingMariaDBGTID")]
    pub using_mariadb_gtid: bool,
    #[serde(rename = "UsingPseudoGTID")]
    pub using_pseudo_gtid: bool,
    pub read_binlog_coordinates: BinlogCoordinates,
    pub exec_binlog_coordinates: BinlogCoordinates,
    pub is_detached: bool,
    pub relaylog_coordinates: BinlogCoordinates,
    #[serde(rename = "LastSQLError")]
    pub last_sql_error: String,
    #[serde(rename = "LastIOError")]
    pub last_io_error: String,
    pub seconds_behind_master: NullInt64,
    #[serde(rename = "SQLDelay")]
    pub sql_delay: u64,
    pub executed_gtid_set: String,
    pub gtid_purged: String,
    pub gtid_errant: String,
    pub slave_lag_seconds: NullInt64,
    pub replication_lag_seconds: NullInt64,
    pub slave_hosts: Vec<Key>,
    pub replicas: Vec<Key>,
    pub cluster_name: String,
    pub suggested_cluster_alias: String,
    pub data_center: String,
    pub region: String,
    pub physical_environment: String,
    pub replication_depth: u64,
    pub is_co_master: bool,
    pub has_replication_credentials: bool,
    pub replication_credentials_available: bool,
    pub semi_sync_available: bool,
    pub semi_sync_priority: u64,
    /// Percona's, like the next.
    pub semi_sync_master_plugin_new_version: bool,
    pub semi_sync_replica_plugin_new_version: bool,
    pub semi_sync_master_enabled: bool,
    pub semi_sync_replica_enabled: bool,
    pub semi_sync_master_timeout: u64,
    pub semi_sync_master_wait_for_replica_count: u64,
    pub semi_sync_master_status: bool,
    pub semi_sync_master_clients: u64,
    pub semi_sync_replica_status: bool,
    pub last_seen_timestamp: String,
    pub is_last_check_valid: bool,
    pub is_up_to_date: bool,
    pub is_recently_checked: bool,
    pub seconds_since_last_seen: NullInt64,
    #[serde(rename = "CountMySQLSnapshots")]
    pub count_mysql_snapshots: u64,
    pub is_candidate: bool,
    pub promotion_rule: String,
    pub is_downtimed: bool,
    pub downtime_reason: String,
    pub downtime_owner: String,
    pub downtime_end_timestamp: String,
    pub elapsed_downtime: u64,
    pub unresolved_hostname: String,
    #[serde(rename = "AllowTLS")]
    pub allow_tls: bool,
    /// Percona's, like the next eleven.
    #[serde(rename = "ReplicationSSLCAFile")]
    pub replication_ssl_ca_file: String,
    #[serde(rename = "ReplicationSSLCAPath")]
    pub replication_ssl_ca_path: String,
    #[serde(rename = "ReplicationSSLCert")]
    pub replication_ssl_cert: String,
    #[serde(rename = "ReplicationSSLCipher")]
    pub replication_ssl_cipher: String,
    #[serde(rename = "ReplicationSSLCRLFile")]
    pub replication_ssl_crl_file: String,
    #[serde(rename = "ReplicationSSLCRLPath")]
    pub replication_ssl_crl_path: String,
    #[serde(rename = "ReplicationSSLKey")]
    pub replication_ssl_key: String,
    #[serde(rename = "ReplicationSSLVerifyServerCert")]
    pub replication_ssl_verify_server_cert: NullBool,
    #[serde(rename = "ReplicationTLSVersion")]
    pub replication_tls_version: String,
    #[serde(rename = "ReplicationTLSCiphersuites")]
    pub replication_tls_ciphersuites: String,
    pub replication_source_public_key_path: String,
    pub replication_get_source_public_key: NullBool,
    pub problems: Vec<&'static str>,
    pub last_discovery_latency: u64,
    pub replication_group_name: String,
    pub replication_group_is_single_primary: bool,
    pub replication_group_member_state: String,
    pub replication_group_member_role: String,
    pub replication_group_members: Vec<Key>,
    pub replication_group_primary_instance_key: Key,
    /// Percona's: always an empty object.
    #[serde(rename = "QSP")]
    pub qsp: BTreeMap<String, String>,
}

/// A downtime as the wire shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downtime {
    pub owner: String,
    pub reason: String,
    pub began: Wall,
    pub until: Wall,
}

/// A server, and what replicated state says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub instance: topology::Instance,
    /// The rule registered for it.
    pub rule: Option<PromotionRule>,
    /// Its downtime, if one is in force.
    pub downtime: Option<Downtime>,
    /// A recovery replaced it as primary, and it takes writes all the same.
    pub is_second_primary: bool,
    /// A recovery replaced it as primary, and servers replicate from it all the same.
    pub is_followed_though_replaced: bool,
}

impl Facts {
    /// The rule it would be promoted by.
    #[must_use]
    pub fn promotion_rule(&self) -> PromotionRule {
        self.rule
            .or_else(|| self.instance.suggested_rule())
            .unwrap_or_default()
    }

    /// The wire's list of problems. The lag of `scale` is `ReasonableReplicationLagSeconds`.
    #[must_use]
    pub fn problems(&self, scale: Scale, now: Now) -> Vec<&'static str> {
        let mut problems = problems(&self.instance, scale, now);
        if self.is_second_primary {
            problems.push("two_writeable_primaries");
        }
        if self.is_followed_though_replaced {
            problems.push("replaced_primary_has_replicas");
        }
        problems
    }

    /// The server as the wire has it. The lag of `scale` is `ReasonableReplicationLagSeconds`.
    #[must_use]
    pub fn to_wire(&self, scale: Scale, now: Now) -> Instance {
        let instance = &self.instance;
        let mut wire = Instance {
            key: Key::from(&instance.key),
            flavor_name: String::from("unknown"),
            ..Instance::default()
        };
        if let Some(report) = &instance.report {
            fill_from_report(&mut wire, report);
        } else {
            let none = ThreadState::NoThread as i8;
            wire.replication_sql_thread_state = none;
            wire.replication_io_thread_state = none;
            wire.relaylog_coordinates.r#type = 1;
        }
        let place = &instance.place;
        wire.ancestry_uuid.clone_from(&place.ancestry);
        wire.gtid_errant.clone_from(&place.errant);
        wire.cluster_name.clone_from(&place.cluster_name);
        wire.suggested_cluster_alias
            .clone_from(&place.suggested_alias);
        wire.replication_depth = u64::from(place.depth);
        wire.is_co_master = place.is_co_primary;
        wire.last_seen_timestamp = column_time(instance.seen.map(|_| instance.seen_at));
        wire.is_last_check_valid = instance.is_last_check_valid();
        wire.is_up_to_date = is_checked_within(instance, 1, scale.poll, now.mono);
        wire.is_recently_checked = is_checked_within(instance, 5, scale.poll, now.mono);
        wire.seconds_since_last_seen =
            NullInt64::from(instance.seen.map(|seen| now.mono.since(seen).as_secs()));
        wire.is_candidate = matches!(
            self.promotion_rule(),
            PromotionRule::Must | PromotionRule::Prefer
        );
        wire.promotion_rule = String::from(self.promotion_rule().name());
        if let Some(downtime) = &self.downtime {
            wire.is_downtimed = true;
            wire.downtime_reason.clone_from(&downtime.reason);
            wire.downtime_owner.clone_from(&downtime.owner);
            wire.downtime_end_timestamp = computed_time(Some(downtime.until));
            wire.elapsed_downtime = now
                .wall
                .since(downtime.began)
                .as_secs()
                .saturating_mul(1_000_000_000);
        }
        wire.problems = self.problems(scale, now);
        wire
    }
}

/// At most one of the first four, then those that stand beside them. The lag of `scale` is
/// `ReasonableReplicationLagSeconds`.
#[must_use]
pub fn problems(instance: &topology::Instance, scale: Scale, now: Now) -> Vec<&'static str> {
    let mut problems = Vec::new();
    match status(instance, scale, now.mono) {
        Status::Invalid => problems.push("last_check_invalid"),
        Status::Unchecked => problems.push("not_recently_checked"),
        Status::NonReplicating => problems.push("not_replicating"),
        Status::Lag => problems.push("replication_lag"),
        Status::Ok => {}
    }
    if !instance.place.errant.is_empty() {
        problems.push("errant_gtid");
    }
    let group = instance
        .report
        .as_ref()
        .and_then(|report| report.group.as_ref());
    if group.is_some_and(|group| !group.name.is_empty() && group.state != "ONLINE") {
        problems.push("group_replication_member_not_online");
    }
    let rights = instance
        .report
        .as_ref()
        .map(|report| &report.missing_privileges);
    if rights.is_some_and(|missing| !missing.is_empty()) {
        problems.push("missing_privileges");
    }
    let refused = instance.report.as_ref().map(|report| &report.refused);
    if refused.is_some_and(|refused| !refused.is_empty()) {
        problems.push("refused_queries");
    }
    problems
}

fn fill_from_report(wire: &mut Instance, report: &ProbeReport) {
    wire.uptime = report.uptime_s;
    wire.server_id = u64::from(report.server_id);
    wire.server_uuid.clone_from(&report.server_uuid);
    wire.version.clone_from(&report.version.text);
    wire.version_comment.clone_from(&report.version_comment);
    wire.flavor_name = String::from(report.flavour.name());
    wire.read_only = report.read_only;
    wire.binlog_format.clone_from(&report.binlog_format);
    wire.binlog_row_image.clone_from(&report.binlog_row_image);
    wire.log_bin_enabled = report.log_bin;
    wire.log_slave_updates_enabled = report.log_replica_updates;
    wire.log_replication_updates_enabled = report.log_replica_updates;
    if let Some(at) = &report.binlog {
        wire.self_binlog_coordinates = BinlogCoordinates::binary(at);
    }
    wire.gtid_mode.clone_from(&report.gtid_mode);
    wire.supports_oracle_gtid = !matches!(report.gtid_mode.as_str(), "" | "OFF");
    wire.executed_gtid_set = text_of(report.executed.as_ref());
    wire.gtid_purged = text_of(report.purged.as_ref());
    wire.replicas = key_set(&report.replicas);
    wire.slave_hosts.clone_from(&wire.replicas);
    wire.has_replication_credentials = report
        .replication
        .as_ref()
        .is_some_and(|status| !status.user.is_empty());
    wire.replication_credentials_available = report.credentials_available;

    let classification = &report.classification;
    wire.instance_alias
        .clone_from(&classification.instance_alias);
    wire.data_center.clone_from(&classification.data_center);
    wire.region.clone_from(&classification.region);
    wire.physical_environment
        .clone_from(&classification.physical_environment);
    wire.semi_sync_priority = u64::from(classification.semi_sync_priority);

    let semi_sync = &report.semi_sync;
    wire.semi_sync_available = semi_sync.available;
    wire.semi_sync_master_plugin_new_version = semi_sync.source_spelling;
    wire.semi_sync_replica_plugin_new_version = semi_sync.replica_spelling;
    wire.semi_sync_master_enabled = semi_sync.source_enabled;
    wire.semi_sync_replica_enabled = semi_sync.replica_enabled;
    wire.semi_sync_master_timeout = semi_sync.source_timeout_ms;
    wire.semi_sync_master_wait_for_replica_count = u64::from(semi_sync.source_wait_count);
    wire.semi_sync_master_status = semi_sync.source_status;
    wire.semi_sync_master_clients = u64::from(semi_sync.source_clients);
    wire.semi_sync_replica_status = semi_sync.replica_status;

    let lag = NullInt64::from(report.lag_s());
    wire.slave_lag_seconds = lag;
    wire.replication_lag_seconds = lag;
    wire.last_discovery_latency = u64::try_from(report.latency.as_nanos()).unwrap_or(u64::MAX);
    if let Some(group) = &report.group {
        wire.replication_group_name.clone_from(&group.name);
        wire.replication_group_is_single_primary = group.single_primary;
        wire.replication_group_member_state.clone_from(&group.state);
        wire.replication_group_member_role.clone_from(&group.role);
        wire.replication_group_members = key_set(&group.members);
        wire.replication_group_primary_instance_key = Key::from(&group.primary);
    }
    fill_from_replication(wire, report.replication.as_ref(), report.flavour);
}

fn fill_from_replication(wire: &mut Instance, status: Option<&ReplicaStatus>, flavour: Flavour) {
    let (io, sql) = status.map_or((ThreadState::NoThread, ThreadState::NoThread), |status| {
        (status.io, status.sql)
    });
    wire.replication_io_thread_state = io as i8;
    wire.replication_sql_thread_state = sql as i8;
    wire.replication_io_thread_runing = io == ThreadState::Running;
    wire.replication_sql_thread_runing = sql == ThreadState::Running;
    wire.slave_io_running = wire.replication_io_thread_runing;
    wire.slave_sql_running = wire.replication_sql_thread_runing;
    wire.relaylog_coordinates.r#type = 1;
    let Some(status) = status else {
        return;
    };
    wire.master_key = Key::from(&status.source);
    wire.is_detached_master = InstanceKey::is_detached(&status.source);
    wire.master_uuid = if status.source_uuid.is_empty() && flavour == Flavour::Mariadb {
        String::from("No")
    } else {
        status.source_uuid.clone()
    };
    wire.has_replication_filters = status.has_filters;
    wire.using_oracle_gtid = status.auto_position;
    wire.using_mariadb_gtid = status.using_gtid != UsingGtid::No;
    wire.read_binlog_coordinates = BinlogCoordinates::binary(&status.read);
    wire.exec_binlog_coordinates = BinlogCoordinates::binary(&status.exec);
    wire.is_detached = status.exec.file.starts_with("//");
    wire.relaylog_coordinates = BinlogCoordinates::relay(&status.relay);
    wire.last_sql_error = quoted(&status.sql_error);
    wire.last_io_error = quoted(&status.io_error);
    wire.seconds_behind_master = NullInt64::from(status.seconds_behind);
    wire.sql_delay = u64::from(status.sql_delay_s);
    wire.allow_tls = status.tls_allowed;
    fill_options(wire, &status.options);
}

/// The channel options that have members of their own. They are named as the server's status columns or as the words of
/// `CHANGE REPLICATION SOURCE`; a literal's quotes are not part of its value.
fn fill_options(wire: &mut Instance, options: &[(String, String)]) {
    for (name, literal) in options {
        let name = name.to_ascii_uppercase();
        let name = name
            .trim_start_matches("MASTER_")
            .trim_start_matches("SOURCE_");
        let value = literal.trim_matches('\'');
        let text = || String::from(value);
        let truth = NullBool {
            bool: matches!(value, "1") || value.eq_ignore_ascii_case("yes"),
            valid: true,
        };
        match name {
            "SSL_CA" | "SSL_CA_FILE" => wire.replication_ssl_ca_file = text(),
            "SSL_CAPATH" | "SSL_CA_PATH" => wire.replication_ssl_ca_path = text(),
            "SSL_CERT" => wire.replication_ssl_cert = text(),
            "SSL_CIPHER" => wire.replication_ssl_cipher = text(),
            "SSL_CRL" | "SSL_CRLFILE" => wire.replication_ssl_crl_file = text(),
            "SSL_CRLPATH" => wire.replication_ssl_crl_path = text(),
            "SSL_KEY" => wire.replication_ssl_key = text(),
            "SSL_VERIFY_SERVER_CERT" => wire.replication_ssl_verify_server_cert = truth,
            "TLS_VERSION" => wire.replication_tls_version = text(),
            "TLS_CIPHERSUITES" => wire.replication_tls_ciphersuites = text(),
            "PUBLIC_KEY_PATH" => wire.replication_source_public_key_path = text(),
            "GET_MASTER_PUBLIC_KEY" | "GET_SOURCE_PUBLIC_KEY" | "GET_PUBLIC_KEY" => {
                wire.replication_get_source_public_key = truth;
            }
            _ => {}
        }
    }
}

fn text_of(set: Option<&orchestrator_core::gtid::GtidSet>) -> String {
    set.map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use orchestrator_core::gtid::{self, GtidSet};
    use orchestrator_core::id::Identity;
    use orchestrator_core::time::Mono;
    use orchestrator_core::topology::{Classification, Place, Version};

    use super::*;
    use crate::http::json::{encode, tests::example};

    const NOW: Now = Now {
        mono: Mono::from_nanos(100_000_000_000),
        wall: Wall::from_secs(1_741_083_074),
    };
    const SCALE: Scale = Scale {
        poll: Duration::from_secs(5),
        lag: Duration::from_secs(10),
    };
    /// What Percona's program adds to the documented example.
    const EXTRAS: &[&str] = &[
        r#""SemiSyncMasterPluginNewVersion":false,"SemiSyncReplicaPluginNewVersion":false,"#,
        concat!(
            r#""ReplicationSSLCAFile":"","ReplicationSSLCAPath":"","ReplicationSSLCert":"","#,
            r#""ReplicationSSLCipher":"","ReplicationSSLCRLFile":"","ReplicationSSLCRLPath":"","#,
            r#""ReplicationSSLKey":"","#,
            r#""ReplicationSSLVerifyServerCert":{"Bool":false,"Valid":false},"#,
            r#""ReplicationTLSVersion":"","ReplicationTLSCiphersuites":"","#,
            r#""ReplicationSourcePublicKeyPath":"","#,
            r#""ReplicationGetSourcePublicKey":{"Bool":false,"Valid":false},"#
        ),
        r#","QSP":{}"#,
    ];

    fn coordinates(file: &str, position: u64) -> topology::BinlogCoordinates {
        topology::BinlogCoordinates {
            file: file.into(),
            position,
        }
    }

    fn documented() -> Facts {
        let key = InstanceKey::new("db2.shop.example", 3306);
        let seen = NOW.mono - Duration::from_secs(2);
        let mut instance = topology::Instance::new(key, NOW);
        instance.checked = Some(seen);
        instance.seen = Some(seen);
        instance.seen_at = Wall::from_secs(1_741_083_072);
        instance.place = Place {
            cluster_name: "db1.shop.example:3306".into(),
            depth: 1,
            suggested_alias: "shop".into(),
            ancestry: "2c71d0aa-0b7d-11ef-8f10-0242ac110002,3f2a9c1e-0b7d-11ef-9a51-0242ac110003"
                .into(),
            ..Place::default()
        };
        instance.report = Some(Arc::new(ProbeReport {
            identity: Identity("3f2a9c1e-0b7d-11ef-9a51-0242ac110003".into()),
            uptime_s: 86_420,
            server_id: 102,
            server_uuid: "3f2a9c1e-0b7d-11ef-9a51-0242ac110003".into(),
            version: Version::parse("8.0.36"),
            version_comment: "MySQL Community Server - GPL".into(),
            read_only: true,
            log_bin: true,
            log_replica_updates: true,
            binlog_format: "ROW".into(),
            binlog_row_image: "FULL".into(),
            binlog: Some(coordinates("binlog.000017", 90_211)),
            gtid_mode: "ON".into(),
            executed: Some(
                GtidSet::parse(
                    gtid::Flavour::Oracle,
                    "2c71d0aa-0b7d-11ef-8f10-0242ac110002:1-881",
                )
                .unwrap(),
            ),
            replication: Some(ReplicaStatus {
                source: InstanceKey::new("db1.shop.example", 3306),
                source_uuid: "2c71d0aa-0b7d-11ef-8f10-0242ac110002".into(),
                user: "repl".into(),
                io: ThreadState::Running,
                sql: ThreadState::Running,
                read: coordinates("binlog.000031", 4471),
                exec: coordinates("binlog.000031", 4471),
                relay: coordinates("db2-relay-bin.000009", 4680),
                seconds_behind: Some(0),
                auto_position: true,
                ..ReplicaStatus::default()
            }),
            credentials_available: true,
            classification: Classification {
                data_center: "ams1".into(),
                region: "eu".into(),
                physical_environment: "prod".into(),
                ..Classification::default()
            },
            latency: Duration::from_nanos(18_230_411),
            ..ProbeReport::default()
        }));
        Facts {
            instance,
            rule: Some(PromotionRule::Prefer),
            downtime: None,
            is_second_primary: false,
            is_followed_though_replaced: false,
        }
    }

    #[test]
    fn the_documented_example() {
        let mut text =
            String::from_utf8(encode(&documented().to_wire(SCALE, NOW)).unwrap()).unwrap();
        for extra in EXTRAS {
            assert!(text.contains(extra), "{extra}");
            text = text.replace(extra, "");
        }
        // The example is of a MySQL backend, and uses pseudo-GTID, which this daemon does not know.
        let expected = example("Instance")
            .replace("2025-03-04 10:11:12", "2025-03-04T10:11:12Z")
            .replace("\"UsingPseudoGTID\":true", "\"UsingPseudoGTID\":false");
        assert_eq!(text, expected);
    }

    #[test]
    fn errors_downtime_and_options() {
        let mut facts = documented();
        facts.downtime = Some(Downtime {
            owner: "ann".into(),
            reason: "disk".into(),
            began: NOW.wall - Duration::from_millis(61_500),
            until: NOW.wall + Duration::from_secs(60),
        });
        let report = Arc::get_mut(facts.instance.report.as_mut().unwrap()).unwrap();
        let status = report.replication.as_mut().unwrap();
        status.sql = ThreadState::Stopped;
        status.sql_error = "it's \"broken\"".into();
        status.seconds_behind = None;
        status.source.host = "//db1".into();
        status.options = vec![
            ("Master_SSL_CA_File".into(), "'/ca.pem'".into()),
            ("SOURCE_SSL_VERIFY_SERVER_CERT".into(), "1".into()),
            ("MASTER_HEARTBEAT_PERIOD".into(), "5".into()),
        ];
        let wire = facts.to_wire(SCALE, NOW);
        assert_eq!(wire.last_sql_error, r#""it's \"broken\"""#);
        assert_eq!(wire.seconds_behind_master, NullInt64::default());
        assert_eq!(wire.elapsed_downtime, 61_000_000_000);
        assert_eq!(wire.downtime_end_timestamp, "2025-03-04 10:12:14");
        assert!(wire.is_detached_master);
        assert_eq!(wire.problems, ["not_replicating"]);
        assert_eq!(wire.replication_ssl_ca_file, "/ca.pem");
        assert_eq!(
            wire.replication_ssl_verify_server_cert,
            NullBool {
                bool: true,
                valid: true
            }
        );
    }

    #[test]
    fn a_server_that_never_answered() {
        let facts = Facts {
            instance: topology::Instance::new(InstanceKey::new("a", 1), NOW),
            rule: None,
            downtime: None,
            is_second_primary: false,
            is_followed_though_replaced: false,
        };
        let wire = facts.to_wire(SCALE, NOW);
        assert_eq!(wire.replication_io_thread_state, -1);
        assert_eq!(wire.last_seen_timestamp, "");
        assert_eq!(wire.promotion_rule, "neutral");
        assert_eq!(wire.problems, ["last_check_invalid"]);
        assert_eq!(wire.seconds_since_last_seen, NullInt64::default());
    }
}
