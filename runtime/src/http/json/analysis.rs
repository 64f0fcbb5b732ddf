//! `ReplicationAnalysis`.

use orchestrator_core::analysis::Problem;
use orchestrator_core::time::Wall;
use orchestrator_core::topology::Classification;
use serde::Serialize;

use crate::mysql::fence_text;

use super::{BinlogCoordinates, ClusterInfo, Key, computed_time, key_set};

/// A server that has a problem, or heads a structure that has one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplicationAnalysis {
    pub analyzed_instance_key: Key,
    pub analyzed_instance_master_key: Key,
    pub cluster_details: ClusterInfo,
    pub analyzed_instance_data_center: String,
    pub analyzed_instance_region: String,
    pub analyzed_instance_physical_environment: String,
    pub analyzed_instance_binlog_coordinates: BinlogCoordinates,
    pub is_master: bool,
    pub is_replication_group_member: bool,
    pub is_co_master: bool,
    pub last_check_valid: bool,
    pub last_check_partial_success: bool,
    pub count_replicas: u64,
    pub count_valid_replicas: u64,
    pub count_valid_replicating_replicas: u64,
    pub count_replicas_failing_to_connect_to_master: u64,
    pub count_downtimed_replicas: u64,
    pub replication_depth: u64,
    pub replicas: Vec<Key>,
    pub slave_hosts: Vec<Key>,
    pub is_failing_to_connect_to_master: bool,
    pub analysis: String,
    pub description: String,
    pub structure_analysis: Option<Vec<String>>,
    pub is_downtimed: bool,
    pub is_replicas_downtimed: bool,
    pub downtime_end_timestamp: String,
    pub downtime_remaining_seconds: i64,
    pub is_binlog_server: bool,
    #[serde(rename = "PseudoGTIDImmediateTopology")]
    pub pseudo_gtid_immediate_topology: bool,
    #[serde(rename = "OracleGTIDImmediateTopology")]
    pub oracle_gtid_immediate_topology: bool,
    #[serde(rename = "MariaDBGTIDImmediateTopology")]
    pub mariadb_gtid_immediate_topology: bool,
    pub binlog_server_immediate_topology: bool,
    pub semi_sync_master_enabled: bool,
    pub semi_sync_master_status: bool,
    pub semi_sync_master_wait_for_replica_count: u64,
    pub semi_sync_master_clients: u64,
    pub count_semi_sync_replicas_enabled: u64,
    pub count_logging_replicas: u64,
    pub count_statement_based_logging_replicas: u64,
    pub count_mixed_based_logging_replicas: u64,
    pub count_row_based_logging_replicas: u64,
    pub count_distinct_major_versions_logging_replicas: u64,
    pub count_delayed_replicas: u64,
    pub count_lagging_replicas: u64,
    pub is_actionable_recovery: bool,
    pub processing_node_hostname: String,
    pub processing_node_token: String,
    pub count_additional_agreeing_nodes: u64,
    pub start_active_period: String,
    pub skippable_due_to_downtime: bool,
    #[serde(rename = "GTIDMode")]
    pub gtid_mode: String,
    #[serde(rename = "MinReplicaGTIDMode")]
    pub min_replica_gtid_mode: String,
    #[serde(rename = "MaxReplicaGTIDMode")]
    pub max_replica_gtid_mode: String,
    #[serde(rename = "MaxReplicaGTIDErrant")]
    pub max_replica_gtid_errant: String,
    pub command_hint: String,
    pub is_read_only: bool,
}

/// The code's description, and what the structure codes alone do not tell.
fn described(problem: &Problem) -> String {
    let description = Some(String::from(problem.description())).filter(|text| !text.is_empty());
    let evidence = &problem.evidence;
    let is_second = evidence.other_primary.is_some();
    let flavour = evidence.report.as_ref().map(|report| report.flavour);
    let remedy = flavour
        .filter(|_| is_second)
        .map(|flavour| format!("this closes it: {}", fence_text(flavour)));
    // The first detail says what the remedy is for.
    let mut details = problem.details();
    if let Some(remedy) = remedy {
        details.insert(1.min(details.len()), remedy);
    }
    let texts: Vec<String> = description.into_iter().chain(details).collect();
    texts.join("; ")
}

/// A problem, and who found it.
pub struct Judged<'a> {
    pub problem: &'a Problem,
    pub now: Wall,
    pub host_name: &'a str,
    pub process_token: &'a str,
}

impl Judged<'_> {
    /// The problem as the wire has it.
    #[must_use]
    pub fn to_wire(&self) -> ReplicationAnalysis {
        let problem = self.problem;
        let evidence = &problem.evidence;
        let report = evidence.report.as_deref();
        let classification = report.map(|report| &report.classification);
        let text_of = |part: fn(&Classification) -> &String| {
            classification.map_or_else(String::new, |known| part(known).clone())
        };
        let replicas = key_set(&problem.replicas);
        let semi_sync = evidence.semi_sync();
        ReplicationAnalysis {
            analyzed_instance_key: Key::from(&problem.key),
            analyzed_instance_master_key: Key::from(&problem.source),
            cluster_details: ClusterInfo {
                cluster_name: problem.cluster.name.clone(),
                cluster_alias: problem.cluster.alias.clone(),
                cluster_domain: problem.cluster.domain.clone(),
                count_instances: 0,
                heuristic_lag: 0,
                has_automated_master_recovery: problem.cluster.recovers_primary,
                has_automated_intermediate_master_recovery: problem.cluster.recovers_intermediate,
            },
            analyzed_instance_data_center: text_of(|known| &known.data_center),
            analyzed_instance_region: text_of(|known| &known.region),
            analyzed_instance_physical_environment: text_of(|known| &known.physical_environment),
            analyzed_instance_binlog_coordinates: report
                .and_then(|report| report.binlog.as_ref())
                .map(BinlogCoordinates::binary)
                .unwrap_or_default(),
            is_master: evidence.is_primary,
            is_replication_group_member: evidence.is_group_member,
            is_co_master: evidence.is_co_primary,
            last_check_valid: evidence.last_check_valid,
            last_check_partial_success: evidence.last_check_partial_success,
            count_replicas: u64::from(evidence.replicas),
            count_valid_replicas: u64::from(evidence.valid_replicas),
            count_valid_replicating_replicas: u64::from(evidence.replicating_replicas),
            count_replicas_failing_to_connect_to_master: u64::from(
                evidence.failing_to_connect_replicas,
            ),
            count_downtimed_replicas: u64::from(evidence.downtimed_replicas),
            replication_depth: u64::from(evidence.depth),
            slave_hosts: replicas.clone(),
            replicas,
            is_failing_to_connect_to_master: evidence.is_failing_to_connect,
            analysis: String::from(problem.code.name()),
            description: described(problem),
            structure_analysis: (!problem.structure.is_empty()).then(|| {
                let names = problem.structure.iter().map(|code| code.name());
                names.map(String::from).collect()
            }),
            is_downtimed: evidence.is_downtimed,
            is_replicas_downtimed: problem.is_replicas_downtimed,
            downtime_end_timestamp: computed_time(evidence.downtime_end),
            downtime_remaining_seconds: evidence.downtime_remaining_s(self.now),
            is_binlog_server: evidence.is_binlog_server,
            pseudo_gtid_immediate_topology: evidence.uses_pseudo_gtid,
            oracle_gtid_immediate_topology: evidence.all_use_oracle_gtid(),
            mariadb_gtid_immediate_topology: evidence.all_use_mariadb_gtid(),
            binlog_server_immediate_topology: evidence.all_are_binlog_servers(),
            semi_sync_master_enabled: semi_sync.is_some_and(|state| state.source_enabled),
            semi_sync_master_status: semi_sync.is_some_and(|state| state.source_status),
            semi_sync_master_wait_for_replica_count: semi_sync
                .map_or(0, |state| u64::from(state.source_wait_count)),
            semi_sync_master_clients: semi_sync.map_or(0, |state| u64::from(state.source_clients)),
            count_semi_sync_replicas_enabled: u64::from(evidence.semi_sync_replicas),
            count_logging_replicas: u64::from(evidence.logging_replicas),
            count_statement_based_logging_replicas: u64::from(evidence.statement_replicas),
            count_mixed_based_logging_replicas: u64::from(evidence.mixed_replicas),
            count_row_based_logging_replicas: u64::from(evidence.row_replicas),
            count_distinct_major_versions_logging_replicas: u64::from(evidence.major_versions),
            count_delayed_replicas: u64::from(evidence.delayed_replicas),
            count_lagging_replicas: u64::from(evidence.lagging_replicas),
            is_actionable_recovery: false,
            processing_node_hostname: String::from(self.host_name),
            processing_node_token: String::from(self.process_token),
            count_additional_agreeing_nodes: 0,
            start_active_period: String::new(),
            skippable_due_to_downtime: problem.is_skippable,
            gtid_mode: String::from(evidence.gtid_mode().unwrap_or_default()),
            min_replica_gtid_mode: evidence.gtid_mode_min.clone(),
            max_replica_gtid_mode: evidence.gtid_mode_max.clone(),
            max_replica_gtid_errant: evidence.errant_max.clone(),
            command_hint: String::new(),
            is_read_only: evidence.is_read_only,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::{encode, tests::example};

    /// The names of an object's members, in order, at its first level.
    fn members(object: &str) -> Vec<String> {
        let (mut depth, mut names, mut rest) = (0, Vec::new(), object);
        while let Some(character) = rest.chars().next() {
            match character {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                '"' => {
                    let end = rest[1..].find('"').unwrap() + 1;
                    if depth == 1 && rest[end + 1..].starts_with(':') {
                        names.push(String::from(&rest[1..end]));
                    }
                    rest = &rest[end..];
                }
                _ => {}
            }
            rest = &rest[rest.chars().next().unwrap().len_utf8()..];
        }
        names
    }

    #[test]
    fn members_are_in_the_documented_order() {
        let empty = encode(&ReplicationAnalysis::default()).unwrap();
        let names = members(&String::from_utf8(empty).unwrap());
        assert_eq!(names.len(), 57);
        assert_eq!(names, members(example("ReplicationAnalysis")));
    }
}
