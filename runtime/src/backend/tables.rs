//! The tables of the backend as data: names and columns are those that the original's readers know
//! (`spec/backend.md` section 5), types are spelt by the adapter of each database.
//!
//! Decides which tables are rows of this daemon's state and which are only there so that a query on them does not fail.
//! A change here is a new migration: the adapter pins what the list looked like at each version by a checksum.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The only column of a key, a number that is given and never counted by the database.
    Id,
    /// A name of at most so many characters.
    Name(u16),
    /// Text of any length.
    Text,
    Number,
    /// A number that may be unknown.
    MaybeNumber,
    /// 0 or 1.
    Flag,
    /// 0, 1 or, for a lock that was let go, nothing.
    MaybeFlag,
    /// UTC, `YYYY-MM-DD hh:mm:ss`.
    Time,
    MaybeTime,
    Bytes,
}

impl Kind {
    pub(super) const fn may_be_null(self) -> bool {
        match self {
            Self::MaybeNumber | Self::MaybeFlag | Self::MaybeTime | Self::Bytes => true,
            Self::Id | Self::Name(_) | Self::Text | Self::Number | Self::Flag | Self::Time => false,
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

/// Who writes a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Rows of the replicated state: a rewrite empties it first.
    Replicated,
    /// What this daemon saw of the fleet.
    Observed,
    /// About this daemon and this database.
    Own,
    /// Kept for its readers; nothing writes it.
    Kept,
}

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub name: &'static str,
    pub role: Role,
    pub columns: &'static [Column],
    /// Of the columns.
    pub key: &'static [&'static str],
    /// Never unique beside the key: what is unique is decided by the state, not by its projection.
    pub indexes: &'static [&'static [&'static str]],
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// This daemon writes rows into it.
    pub(super) const fn is_written(&self) -> bool {
        match self.role {
            Role::Replicated | Role::Observed | Role::Own => true,
            Role::Kept => false,
        }
    }
}

/// `Name` of 128 characters, the most common length.
const NAME: Kind = Kind::Name(128);

macro_rules! table {
    ($const:ident, $name:literal, $role:ident, key $key:expr, index $indexes:expr, { $($column:literal $kind:expr),* $(,)? }) => {
        pub(super) static $const: Table = Table {
            name: $name,
            role: Role::$role,
            columns: {
                #[allow(unused_imports)]
                use Kind::*;
                &[$(Column { name: $column, kind: $kind }),*]
            },
            key: &$key,
            indexes: $indexes,
        };
    };
}

// --- instances and topology ---

table!(DATABASE_INSTANCE, "database_instance", Observed, key ["hostname", "port"],
    index &[&["cluster_name"], &["last_checked"], &["last_seen"], &["master_host", "master_port"], &["suggested_cluster_alias"]], {
    "hostname" NAME, "port" Number,
    "last_checked" Time, "last_attempted_check" Time, "last_seen" MaybeTime, "last_check_partial_success" Flag,
    "last_discovery_latency" Number, "uptime" Number,
    "server_id" Number, "server_uuid" Name(64), "version" NAME, "major_version" Name(16), "version_comment" NAME,
    "instance_alias" NAME,
    "log_bin" Flag, "log_slave_updates" Flag, "binlog_format" Name(16), "binlog_row_image" Name(16),
    "binlog_server" Flag, "binary_log_file" NAME, "binary_log_pos" Number,
    "master_host" NAME, "master_port" Number, "master_uuid" Name(64), "ancestry_uuid" Text, "allow_tls" Flag,
    "replication_credentials_available" Flag, "has_replication_credentials" Flag,
    "slave_sql_running" Flag, "slave_io_running" Flag,
    "replication_sql_thread_state" Number, "replication_io_thread_state" Number,
    "has_replication_filters" Flag, "last_sql_error" Text, "last_io_error" Text,
    "master_log_file" NAME, "read_master_log_pos" Number, "relay_master_log_file" NAME, "exec_master_log_pos" Number,
    "relay_log_file" NAME, "relay_log_pos" Number,
    "seconds_behind_master" MaybeNumber, "slave_lag_seconds" MaybeNumber, "sql_delay" Number,
    "oracle_gtid" Flag, "supports_oracle_gtid" Flag, "mariadb_gtid" Flag, "pseudo_gtid" Flag,
    "gtid_mode" Name(32), "executed_gtid_set" Text, "gtid_purged" Text, "gtid_errant" Text,
    "num_slave_hosts" Number, "slave_hosts" Text, "cluster_name" NAME, "suggested_cluster_alias" NAME,
    "replication_depth" Number, "is_co_master" Flag,
    "data_center" Name(32), "region" Name(32), "physical_environment" Name(32),
    "read_only" Flag,
    "semi_sync_enforced" Number, "semi_sync_available" Flag, "semi_sync_master_enabled" Flag,
    "semi_sync_master_timeout" Number, "semi_sync_master_wait_for_slave_count" Number,
    "semi_sync_master_status" Flag, "semi_sync_master_clients" Number,
    "semi_sync_replica_enabled" Flag, "semi_sync_replica_status" Flag,
    "replication_group_name" Name(64), "replication_group_is_single_primary_mode" Flag,
    "replication_group_member_state" Name(16), "replication_group_member_role" Name(16),
    "replication_group_members" Text, "replication_group_primary_host" NAME, "replication_group_primary_port" Number,
});

table!(DATABASE_INSTANCE_TOPOLOGY_HISTORY, "database_instance_topology_history", Kept,
    key ["snapshot_unix_timestamp", "hostname", "port"], index &[&["cluster_name"]], {
    "snapshot_unix_timestamp" Number, "hostname" NAME, "port" Number, "master_host" NAME, "master_port" Number,
    "cluster_name" NAME, "version" NAME,
});

table!(DATABASE_INSTANCE_COORDINATES_HISTORY, "database_instance_coordinates_history", Kept, key ["history_id"],
    index &[&["hostname", "port", "recorded_timestamp"], &["recorded_timestamp"]], {
    "history_id" Id, "hostname" NAME, "port" Number, "recorded_timestamp" Time, "last_seen" Time,
    "binary_log_file" NAME, "binary_log_pos" Number, "relay_log_file" NAME, "relay_log_pos" Number,
});

table!(DATABASE_INSTANCE_STALE_BINLOG_COORDINATES, "database_instance_stale_binlog_coordinates", Kept,
    key ["hostname", "port"], index &[&["first_seen"]], {
    "hostname" NAME, "port" Number, "binary_log_file" NAME, "binary_log_pos" Number, "first_seen" Time,
});

table!(DATABASE_INSTANCE_BINLOG_FILES_HISTORY, "database_instance_binlog_files_history", Kept, key ["history_id"],
    index &[&["hostname", "port", "binary_log_file"], &["last_seen"]], {
    "history_id" Id, "hostname" NAME, "port" Number, "binary_log_file" NAME, "binary_log_pos" Number,
    "first_seen" Time, "last_seen" Time,
});

table!(DATABASE_INSTANCE_RECENT_RELAYLOG_HISTORY, "database_instance_recent_relaylog_history", Kept,
    key ["hostname", "port"], index &[&["current_seen"]], {
    "hostname" NAME, "port" Number, "current_relay_log_file" NAME, "current_relay_log_pos" Number,
    "current_seen" Time, "prev_relay_log_file" NAME, "prev_relay_log_pos" Number, "prev_seen" Time,
});

table!(DATABASE_INSTANCE_LONG_RUNNING_QUERIES, "database_instance_long_running_queries", Kept,
    key ["hostname", "port", "process_id"], index &[&["process_started_at"]], {
    "hostname" NAME, "port" Number, "process_id" Number, "process_started_at" Time, "process_user" Name(16),
    "process_host" NAME, "process_db" NAME, "process_command" NAME, "process_time_seconds" Number,
    "process_state" NAME, "process_info" Text,
});

table!(DATABASE_INSTANCE_TLS, "database_instance_tls", Kept, key ["hostname", "port"], index &[], {
    "hostname" NAME, "port" Number, "required" Flag,
});

table!(MASTER_POSITION_EQUIVALENCE, "master_position_equivalence", Kept, key ["equivalence_id"],
    index &[&["last_suggested"], &["master2_host", "master2_port", "master2_binary_log_file", "master2_binary_log_pos"]], {
    "equivalence_id" Id, "master1_host" NAME, "master1_port" Number, "master1_binary_log_file" NAME,
    "master1_binary_log_pos" Number, "master2_host" NAME, "master2_port" Number, "master2_binary_log_file" NAME,
    "master2_binary_log_pos" Number, "last_suggested" Time,
});

table!(CLUSTER_INJECTED_PSEUDO_GTID, "cluster_injected_pseudo_gtid", Kept, key ["cluster_name"], index &[], {
    "cluster_name" NAME, "time_injected" Time,
});

// --- names, classification, what people said ---

table!(HOSTNAME_RESOLVE, "hostname_resolve", Kept, key ["hostname"], index &[&["resolved_timestamp"]], {
    "hostname" NAME, "resolved_hostname" NAME, "resolved_timestamp" Time,
});

table!(HOSTNAME_RESOLVE_HISTORY, "hostname_resolve_history", Kept, key ["resolved_hostname"],
    index &[&["hostname"], &["resolved_timestamp"]], {
    "resolved_hostname" NAME, "hostname" NAME, "resolved_timestamp" Time,
});

table!(HOSTNAME_UNRESOLVE, "hostname_unresolve", Kept, key ["hostname"],
    index &[&["unresolved_hostname"], &["last_registered"]], {
    "hostname" NAME, "unresolved_hostname" NAME, "last_registered" Time,
});

table!(HOSTNAME_UNRESOLVE_HISTORY, "hostname_unresolve_history", Kept, key ["unresolved_hostname"],
    index &[&["hostname"], &["last_registered"]], {
    "unresolved_hostname" NAME, "hostname" NAME, "last_registered" Time,
});

table!(HOSTNAME_IPS, "hostname_ips", Kept, key ["hostname"], index &[], {
    "hostname" NAME, "ipv4" NAME, "ipv6" NAME, "last_updated" Time,
});

table!(CLUSTER_ALIAS, "cluster_alias", Replicated, key ["cluster_name"], index &[&["alias"], &["last_registered"]], {
    "cluster_name" NAME, "alias" NAME, "last_registered" Time,
});

table!(CLUSTER_ALIAS_OVERRIDE, "cluster_alias_override", Replicated, key ["cluster_name"], index &[], {
    "cluster_name" NAME, "alias" NAME,
});

table!(CLUSTER_DOMAIN_NAME, "cluster_domain_name", Replicated, key ["cluster_name"],
    index &[&["domain_name"], &["last_registered"]], {
    "cluster_name" NAME, "domain_name" NAME, "last_registered" Time,
});

table!(DATABASE_INSTANCE_TAGS, "database_instance_tags", Replicated, key ["hostname", "port", "tag_name"],
    index &[&["tag_name"]], {
    "hostname" NAME, "port" Number, "tag_name" NAME, "tag_value" Text, "last_updated" Time,
});

table!(DATABASE_INSTANCE_POOL, "database_instance_pool", Kept, key ["hostname", "port", "pool"], index &[&["pool"]], {
    "hostname" NAME, "port" Number, "pool" NAME, "registered_at" Time,
});

table!(CANDIDATE_DATABASE_INSTANCE, "candidate_database_instance", Replicated, key ["hostname", "port"],
    index &[&["last_suggested"]], {
    "hostname" NAME, "port" Number, "last_suggested" Time, "priority" Number, "promotion_rule" Name(16),
});

table!(HOST_ATTRIBUTES, "host_attributes", Kept, key ["hostname", "attribute_name"],
    index &[&["attribute_name"], &["submit_timestamp"], &["expire_timestamp"]], {
    "hostname" NAME, "attribute_name" NAME, "attribute_value" Text, "submit_timestamp" Time,
    "expire_timestamp" MaybeTime,
});

table!(KV_STORE, "kv_store", Own, key ["store_key"], index &[&["last_updated"]], {
    "store_key" Name(255), "store_value" Text, "last_updated" Time,
});

// --- failures and recoveries ---

table!(TOPOLOGY_FAILURE_DETECTION, "topology_failure_detection", Replicated, key ["detection_id"],
    index &[&["hostname", "port", "in_active_period", "end_active_period_unixtime", "is_actionable"],
        &["in_active_period", "start_active_period"]], {
    "detection_id" Id, "hostname" NAME, "port" Number, "in_active_period" Flag, "start_active_period" Time,
    "end_active_period_unixtime" Number, "processing_node_hostname" NAME, "processcing_node_token" NAME,
    "analysis" NAME, "cluster_name" NAME, "cluster_alias" NAME, "count_affected_slaves" Number, "slave_hosts" Text,
    "is_actionable" Flag,
});

table!(TOPOLOGY_RECOVERY, "topology_recovery", Replicated, key ["recovery_id"],
    index &[&["hostname", "port", "in_active_period", "end_active_period_unixtime"],
        &["in_active_period", "start_active_period"], &["start_active_period"],
        &["cluster_name", "in_active_period"], &["acknowledged", "acknowledged_at"], &["last_detection_id"], &["uid"]], {
    "recovery_id" Id, "hostname" NAME, "port" Number, "in_active_period" Flag, "start_active_period" Time,
    "end_active_period_unixtime" Number, "end_recovery" MaybeTime, "processing_node_hostname" NAME,
    "processcing_node_token" NAME, "successor_hostname" NAME, "successor_port" Number, "successor_alias" NAME,
    "analysis" NAME, "cluster_name" NAME, "cluster_alias" NAME, "count_affected_slaves" Number, "slave_hosts" Text,
    "participating_instances" Text, "lost_slaves" Text, "all_errors" Text, "is_successful" Flag,
    "acknowledged" Flag, "acknowledged_at" MaybeTime, "acknowledged_by" NAME, "acknowledge_comment" Text,
    "last_detection_id" Number, "uid" NAME,
});

table!(TOPOLOGY_RECOVERY_STEPS, "topology_recovery_steps", Replicated, key ["recovery_step_id"],
    index &[&["recovery_uid"]], {
    "recovery_step_id" Id, "recovery_uid" NAME, "audit_at" Time, "message" Text,
});

table!(BLOCKED_TOPOLOGY_RECOVERY, "blocked_topology_recovery", Replicated, key ["hostname", "port"],
    index &[&["cluster_name", "last_blocked_timestamp"]], {
    "hostname" NAME, "port" Number, "cluster_name" NAME, "analysis" NAME, "last_blocked_timestamp" Time,
    "blocking_recovery_id" Number,
});

table!(DATABASE_INSTANCE_LAST_ANALYSIS, "database_instance_last_analysis", Kept, key ["hostname", "port"],
    index &[&["analysis_timestamp"]], {
    "hostname" NAME, "port" Number, "analysis_timestamp" Time, "analysis" NAME,
});

table!(DATABASE_INSTANCE_ANALYSIS_CHANGELOG, "database_instance_analysis_changelog", Kept, key ["changelog_id"],
    index &[&["hostname", "port", "analysis_timestamp"], &["analysis_timestamp"]], {
    "changelog_id" Id, "hostname" NAME, "port" Number, "analysis_timestamp" Time, "analysis" NAME,
});

table!(DATABASE_INSTANCE_PEER_ANALYSIS, "database_instance_peer_analysis", Kept, key ["peer", "hostname", "port"],
    index &[], {
    "peer" NAME, "hostname" NAME, "port" Number, "analysis_timestamp" Time, "analysis" NAME,
});

table!(GLOBAL_RECOVERY_DISABLE, "global_recovery_disable", Replicated, key ["disable_recovery"], index &[], {
    "disable_recovery" Id,
});

table!(DATABASE_INSTANCE_DOWNTIME, "database_instance_downtime", Replicated, key ["hostname", "port"],
    index &[&["end_timestamp"]], {
    "hostname" NAME, "port" Number, "downtime_active" MaybeFlag, "begin_timestamp" Time, "end_timestamp" Time,
    "owner" NAME, "reason" Text,
});

table!(DATABASE_INSTANCE_MAINTENANCE, "database_instance_maintenance", Replicated,
    key ["database_instance_maintenance_id"],
    index &[&["maintenance_active", "hostname", "port"], &["hostname", "port"], &["begin_timestamp"], &["end_timestamp"]], {
    "database_instance_maintenance_id" Id, "hostname" NAME, "port" Number, "maintenance_active" MaybeFlag,
    "begin_timestamp" Time, "end_timestamp" MaybeTime, "owner" NAME, "reason" Text,
    "processing_node_hostname" NAME, "processing_node_token" NAME, "explicitly_bounded" Flag,
});

// --- nodes, access, audit, schema ---

table!(ACTIVE_NODE, "active_node", Kept, key ["anchor"], index &[], {
    "anchor" Id, "hostname" NAME, "token" NAME, "first_seen_active" Time, "last_seen_active" Time,
});

table!(NODE_HEALTH, "node_health", Own, key ["hostname", "token"], index &[&["last_seen_active"]], {
    "hostname" NAME, "token" NAME, "extra_info" NAME, "command" NAME, "app_version" Name(64),
    "first_seen_active" Time, "last_seen_active" Time, "db_backend" Name(255), "incrementing_indicator" Number,
});

table!(NODE_HEALTH_HISTORY, "node_health_history", Own, key ["history_id"],
    index &[&["first_seen_active"], &["hostname", "token"]], {
    "history_id" Id, "hostname" NAME, "token" NAME, "first_seen_active" Time, "extra_info" NAME, "command" NAME,
    "app_version" Name(64),
});

table!(ACCESS_TOKEN, "access_token", Kept, key ["access_token_id"], index &[&["public_token"], &["generated_at"]], {
    "access_token_id" Id, "public_token" NAME, "secret_token" NAME, "generated_at" Time, "generated_by" NAME,
    "is_acquired" Flag, "is_reentrant" Flag, "acquired_at" MaybeTime,
});

table!(AUDIT, "audit", Kept, key ["audit_id"],
    index &[&["audit_timestamp"], &["hostname", "port", "audit_timestamp"]], {
    "audit_id" Id, "audit_timestamp" Time, "audit_type" NAME, "hostname" NAME, "port" Number, "cluster_name" NAME,
    "message" Text,
});

table!(ORCHESTRATOR_DB_DEPLOYMENTS, "orchestrator_db_deployments", Own, key ["deployed_version"], index &[], {
    "deployed_version" NAME, "deployed_timestamp" Time,
});

table!(ORCHESTRATOR_METADATA, "orchestrator_metadata", Kept, key ["anchor"], index &[], {
    "anchor" Id, "last_deployed_version" NAME, "last_deployed_timestamp" Time,
});

table!(ASYNC_REQUEST, "async_request", Kept, key ["request_id"], index &[&["begin_timestamp"]], {
    "request_id" Id, "command" NAME, "hostname" NAME, "port" Number, "destination_hostname" NAME,
    "destination_port" Number, "pattern" Text, "gtid_hint" Name(32), "begin_timestamp" MaybeTime,
    "end_timestamp" MaybeTime, "story" Text,
});

table!(RAFT_STORE, "raft_store", Kept, key ["store_id"], index &[&["store_key"]], {
    "store_id" Id, "store_key" Name(255), "store_value" Bytes,
});

table!(RAFT_LOG, "raft_log", Kept, key ["log_index"], index &[], {
    "log_index" Id, "term" Number, "log_type" Number, "data" Bytes,
});

table!(RAFT_SNAPSHOT, "raft_snapshot", Kept, key ["snapshot_id"], index &[&["snapshot_name"]], {
    "snapshot_id" Id, "snapshot_name" NAME, "snapshot_meta" Text, "created_at" Time,
});

// --- agents ---

table!(HOST_AGENT, "host_agent", Kept, key ["hostname"], index &[&["token"], &["last_submitted"]], {
    "hostname" NAME, "port" Number, "token" NAME, "last_submitted" Time, "last_checked" MaybeTime,
    "last_seen" MaybeTime, "mysql_port" MaybeNumber, "count_mysql_snapshots" Number,
});

table!(AGENT_SEED, "agent_seed", Kept, key ["agent_seed_id"],
    index &[&["target_hostname", "is_complete"], &["source_hostname", "is_complete"]], {
    "agent_seed_id" Id, "target_hostname" NAME, "source_hostname" NAME, "start_timestamp" Time,
    "end_timestamp" MaybeTime, "is_complete" Flag, "is_successful" Flag,
});

table!(AGENT_SEED_STATE, "agent_seed_state", Kept, key ["agent_seed_state_id"], index &[&["agent_seed_id"]], {
    "agent_seed_state_id" Id, "agent_seed_id" Number, "state_timestamp" Time, "state_action" NAME,
    "error_message" Text,
});

// --- ours ---

table!(ORCHESTRATOR_PROJECTION, "orchestrator_projection", Own, key ["anchor"], index &[], {
    // 1. A row with 2, of which nothing else counts, says that rows were written by hand: see `by_hand`.
    "anchor" Id,
    // 64 hexadecimal digits; empty until the daemon belongs to a cluster.
    "cluster_id" Name(64),
    // Who writes here: the daemon, and the token of its process.
    "daemon" Name(255), "token" NAME, "written_at" Time,
    // The last entry of the raft log whose changes are in the rows; none: the rows are nobody's state.
    "applied_index" MaybeNumber, "applied_term" MaybeNumber, "applied_node" Name(16),
    // Of the replicated state at that entry, 64 hexadecimal digits.
    "digest" Name(64),
    "schema_version" Number,
});

/// Every table of migration 1.
pub(super) const TABLES: &[&Table] = &[
    &DATABASE_INSTANCE,
    &DATABASE_INSTANCE_TOPOLOGY_HISTORY,
    &DATABASE_INSTANCE_COORDINATES_HISTORY,
    &DATABASE_INSTANCE_STALE_BINLOG_COORDINATES,
    &DATABASE_INSTANCE_BINLOG_FILES_HISTORY,
    &DATABASE_INSTANCE_RECENT_RELAYLOG_HISTORY,
    &DATABASE_INSTANCE_LONG_RUNNING_QUERIES,
    &DATABASE_INSTANCE_TLS,
    &MASTER_POSITION_EQUIVALENCE,
    &CLUSTER_INJECTED_PSEUDO_GTID,
    &HOSTNAME_RESOLVE,
    &HOSTNAME_RESOLVE_HISTORY,
    &HOSTNAME_UNRESOLVE,
    &HOSTNAME_UNRESOLVE_HISTORY,
    &HOSTNAME_IPS,
    &CLUSTER_ALIAS,
    &CLUSTER_ALIAS_OVERRIDE,
    &CLUSTER_DOMAIN_NAME,
    &DATABASE_INSTANCE_TAGS,
    &DATABASE_INSTANCE_POOL,
    &CANDIDATE_DATABASE_INSTANCE,
    &HOST_ATTRIBUTES,
    &KV_STORE,
    &TOPOLOGY_FAILURE_DETECTION,
    &TOPOLOGY_RECOVERY,
    &TOPOLOGY_RECOVERY_STEPS,
    &BLOCKED_TOPOLOGY_RECOVERY,
    &DATABASE_INSTANCE_LAST_ANALYSIS,
    &DATABASE_INSTANCE_ANALYSIS_CHANGELOG,
    &DATABASE_INSTANCE_PEER_ANALYSIS,
    &GLOBAL_RECOVERY_DISABLE,
    &DATABASE_INSTANCE_DOWNTIME,
    &DATABASE_INSTANCE_MAINTENANCE,
    &ACTIVE_NODE,
    &NODE_HEALTH,
    &NODE_HEALTH_HISTORY,
    &ACCESS_TOKEN,
    &AUDIT,
    &ORCHESTRATOR_DB_DEPLOYMENTS,
    &ORCHESTRATOR_METADATA,
    &ASYNC_REQUEST,
    &RAFT_STORE,
    &RAFT_LOG,
    &RAFT_SNAPSHOT,
    &HOST_AGENT,
    &AGENT_SEED,
    &AGENT_SEED_STATE,
    &ORCHESTRATOR_PROJECTION,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_consistent() {
        assert_eq!(TABLES.len(), 47 + 1, "those of the original, and ours");
        let names: BTreeSet<_> = TABLES.iter().map(|table| table.name).collect();
        assert_eq!(names.len(), TABLES.len());
        for table in TABLES {
            let columns: BTreeSet<_> = table.columns.iter().map(|column| column.name).collect();
            assert_eq!(columns.len(), table.columns.len(), "{}", table.name);
            for name in table
                .key
                .iter()
                .chain(table.indexes.iter().copied().flatten())
            {
                assert!(table.column(name).is_some(), "{}.{name}", table.name);
            }
            for column in table
                .columns
                .iter()
                .filter(|column| column.kind == Kind::Id)
            {
                assert_eq!(table.key, [column.name], "{}", table.name);
            }
        }
    }
}
