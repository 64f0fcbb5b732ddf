//! `TopologyRecovery` and what goes with it.

use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::Detection;
use serde::Serialize;

use super::{
    BinlogCoordinates, ClusterInfo, Key, ReplicationAnalysis, column_time, computed_time, key_set,
};

/// A recovery, or in the list of failure detections a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TopologyRecovery {
    pub id: u64,
    #[serde(rename = "UID")]
    pub uid: String,
    pub analysis_entry: ReplicationAnalysis,
    pub successor_key: Option<Key>,
    pub successor_alias: String,
    pub successor_binlog_coordinates: Option<BinlogCoordinates>,
    pub is_active: bool,
    pub is_successful: bool,
    pub lost_replicas: Vec<Key>,
    pub participating_instance_keys: Vec<Key>,
    pub all_errors: Vec<String>,
    pub recovery_start_timestamp: String,
    pub recovery_end_timestamp: String,
    pub processing_node_hostname: String,
    pub processing_node_token: String,
    pub acknowledged: bool,
    pub acknowledged_at: String,
    pub acknowledged_by: String,
    pub acknowledged_comment: String,
    pub last_detection_id: u64,
    pub related_recovery_id: u64,
    pub r#type: String,
    pub recovery_type: String,
}

/// A line of a recovery's audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TopologyRecoveryStep {
    pub id: u64,
    #[serde(rename = "RecoveryUID")]
    pub recovery_uid: String,
    pub audit_at: String,
    pub message: String,
}

/// A failure on which nothing is done because of a recovery before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockedTopologyRecovery {
    pub failed_instance_key: Key,
    pub cluster_name: String,
    pub analysis: String,
    pub last_blocked_timestamp: String,
    pub blocking_recovery_id: u64,
}

/// Whether automatic recoveries are configured for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    pub recovers_primary: bool,
    pub recovers_intermediate: bool,
}

/// The few facts that a row of the audit keeps of the analysis.
fn analysis_entry(
    server: Key,
    analysis: &str,
    (cluster_name, cluster_alias): (&str, &str),
    flags: Flags,
    replicas: Vec<Key>,
) -> ReplicationAnalysis {
    ReplicationAnalysis {
        analyzed_instance_key: server,
        analysis: String::from(analysis),
        cluster_details: ClusterInfo {
            cluster_name: String::from(cluster_name),
            cluster_alias: String::from(match cluster_alias {
                "" => cluster_name,
                alias => alias,
            }),
            has_automated_master_recovery: flags.recovers_primary,
            has_automated_intermediate_master_recovery: flags.recovers_intermediate,
            ..ClusterInfo::default()
        },
        count_replicas: u64::try_from(replicas.len()).unwrap_or(u64::MAX),
        slave_hosts: replicas.clone(),
        replicas,
        ..ReplicationAnalysis::default()
    }
}

/// A recovery as the audit lists it. Whether it is active depends on the moment: the caller says.
#[must_use]
pub fn recovery_row(recovery: &Recovery, flags: Flags) -> TopologyRecovery {
    let acknowledged = recovery.acknowledged.as_ref();
    // A possible loss is no error of the recovery: it stands among its steps.
    let errors = recovery.all_errors();
    TopologyRecovery {
        id: recovery.number,
        uid: recovery.uid.0.clone(),
        analysis_entry: analysis_entry(
            Key::from(&recovery.server),
            &recovery.analysis,
            (&recovery.cluster_name, &recovery.cluster_alias),
            flags,
            key_set(&recovery.replicas),
        ),
        // Always an object here: the zero key stands for none.
        successor_key: Some(
            recovery
                .successor
                .as_ref()
                .map(Key::from)
                .unwrap_or_default(),
        ),
        successor_alias: recovery.successor_alias.clone(),
        successor_binlog_coordinates: None,
        is_active: false,
        is_successful: recovery.is_successful(),
        lost_replicas: key_set(&recovery.lost),
        participating_instance_keys: key_set(&recovery.participants),
        all_errors: errors,
        recovery_start_timestamp: column_time(Some(recovery.began)),
        recovery_end_timestamp: computed_time(recovery.end.as_ref().map(|(at, _)| *at)),
        processing_node_hostname: recovery.processing_node.clone(),
        processing_node_token: recovery.processing_token.clone(),
        acknowledged: acknowledged.is_some(),
        acknowledged_at: column_time(acknowledged.map(|given| given.at)),
        acknowledged_by: acknowledged.map_or_else(String::new, |given| given.by.clone()),
        acknowledged_comment: acknowledged.map_or_else(String::new, |given| given.comment.clone()),
        last_detection_id: recovery.detection,
        related_recovery_id: 0,
        // The audit keeps neither kind.
        r#type: String::new(),
        recovery_type: String::from("NotMasterRecovery"),
    }
}

/// A detection as the audit lists it, with the recovery that it led to (0: none).
#[must_use]
pub fn detection_row(
    detection: &Detection,
    flags: Flags,
    related_recovery_id: u64,
) -> TopologyRecovery {
    let began = column_time(Some(detection.at));
    TopologyRecovery {
        id: detection.number,
        analysis_entry: ReplicationAnalysis {
            start_active_period: began.clone(),
            ..analysis_entry(
                Key::from(&detection.server),
                &detection.analysis,
                (&detection.cluster_name, &detection.cluster_alias),
                flags,
                key_set(&detection.replicas),
            )
        },
        is_active: detection.is_active,
        recovery_start_timestamp: began,
        processing_node_hostname: detection.processing_node.clone(),
        processing_node_token: detection.processing_token.clone(),
        related_recovery_id,
        ..TopologyRecovery::default()
    }
}

/// The audit of a recovery, in order: why what was done, each statement when it was intended, and how it ended
/// (`orchestrator_core::recovery::audit`). Ids count from 1 within it.
#[must_use]
pub fn recovery_steps(recovery: &Recovery) -> Vec<TopologyRecoveryStep> {
    (1..)
        .zip(&recovery.lines)
        .map(|(id, line)| TopologyRecoveryStep {
            id,
            recovery_uid: recovery.uid.0.clone(),
            audit_at: column_time(Some(line.at)),
            message: line.message.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::encode;

    #[test]
    fn members_are_in_the_documented_order() {
        let text = String::from_utf8(encode(&TopologyRecovery::default()).unwrap()).unwrap();
        let (head, rest) = text.split_once(r#""AnalysisEntry":{"#).unwrap();
        assert_eq!(head, r#"{"Id":0,"UID":"","#);
        let (_, tail) = rest.split_once(r#""IsReadOnly":false},"#).unwrap();
        assert_eq!(
            tail,
            concat!(
                r#""SuccessorKey":null,"SuccessorAlias":"","SuccessorBinlogCoordinates":null,"#,
                r#""IsActive":false,"IsSuccessful":false,"LostReplicas":[],"#,
                r#""ParticipatingInstanceKeys":[],"AllErrors":[],"RecoveryStartTimestamp":"","#,
                r#""RecoveryEndTimestamp":"","ProcessingNodeHostname":"","ProcessingNodeToken":"","#,
                r#""Acknowledged":false,"AcknowledgedAt":"","AcknowledgedBy":"","#,
                r#""AcknowledgedComment":"","LastDetectionId":0,"RelatedRecoveryId":0,"Type":"","#,
                r#""RecoveryType":""}"#
            )
        );
    }
}
