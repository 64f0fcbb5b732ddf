//! From the configuration to the core's [`Policy`], which the leader proposes and every daemon then obeys.
//!
//! Neither credentials nor paths go into it. What holds: the defaults of both are the same, and each field of the
//! policy follows from a key (both are tested).

use std::time::Duration;

use orchestrator_core::policy::{DeposedAction, Policy, ReturnPolicy};

use super::settings::{DeposedPrimaryAction, PrimaryReturnPolicy, Settings, UnappliedRelayLog};

/// The keys from which the policy follows. A reload reaches these and those of the hooks ([`super::KEYS_OF_HOOKS`]); every other one
/// waits for a restart.
pub const KEYS_OF_POLICY: &[&str] = &[
    "InstancePollSeconds",
    "ReasonableInstanceCheckSeconds",
    "ReasonableReplicationLagSeconds",
    "ReasonableLockedSemiSyncMasterSeconds",
    "ReduceReplicationAnalysisCount",
    "EnforceExactSemiSyncReplicas",
    "RecoverNonWriteableMaster",
    "RecoverMasterClusterFilters",
    "RecoverIntermediateMasterClusterFilters",
    "RecoveryIgnoreHostnameFilters",
    "PromotionIgnoreHostnameFilters",
    "ProblemIgnoreHostnameFilters",
    "RecoveryPeriodBlockMinutes",
    "RecoveryPeriodBlockSeconds",
    "FailureDetectionPeriodBlockMinutes",
    "ApplyMySQLPromotionAfterMasterFailover",
    "PreventCrossDataCenterMasterFailover",
    "PreventCrossRegionMasterFailover",
    "FailMasterPromotionOnLagMinutes",
    "FailMasterPromotionIfSQLThreadNotUpToDate",
    "DelayMasterPromotionIfSQLThreadNotUpToDate",
    "MasterFailoverLostInstancesDowntimeMinutes",
    "CandidateInstanceExpireMinutes",
    "UnseenInstanceForgetHours",
    "AuditPurgeDays",
    "ClusterNameToAlias",
    "DiscoveryIgnoreHostnameFilters",
    "DiscoveryIgnoreReplicaHostnameFilters",
    "DiscoveryIgnoreMasterHostnameFilters",
    "SafetyProfile",
    "PrimaryGonePatienceMilliseconds",
    "PlannedStopPatienceSeconds",
    "PrimaryReturnPolicy",
    "ReopenRestartedPrimary",
    "HaltDeadlineMilliseconds",
    "DonorCatchupSeconds",
    "PromotionDrainSecondsMax",
    "RefuseLossyPromotion",
    "WitnessQuorum",
    "DeposedPrimaryAction",
    "QuarantineSpareUsers",
    "ObserveOnly",
];

impl Settings {
    /// The policy that this configuration asks for.
    pub fn policy(&self) -> Policy {
        let Settings {
            analysis,
            recovery,
            failover,
            discovery,
            names,
            classification,
            lag,
            pools,
            audit,
            ..
        } = self;
        Policy {
            poll: discovery.poll,
            reasonable_check: discovery.check_grace,
            reasonable_lag: lag.reasonable,
            reasonable_locked_semi_sync: analysis.locked_semi_sync,
            reduce_analysis: analysis.reduce,
            enforce_exact_semi_sync: recovery.exact_semi_sync_replicas,
            recover_non_writeable: recovery.recover_non_writeable_primary,
            recover_primary_filters: recovery.primary_filters.clone(),
            recover_intermediate_filters: recovery.intermediate_filters.clone(),
            recovery_ignore_hosts: analysis.ignore_hosts.clone(),
            promotion_ignore_hosts: pools.never_promote_hosts.clone(),
            problem_ignore_hosts: names.problem_ignore_hosts.clone(),
            cool_down: recovery.block,
            detection_block: analysis.detection_block,
            apply_promotion: recovery.apply_promotion,
            prevent_cross_data_center: recovery.prevent_cross_data_center,
            prevent_cross_region: recovery.prevent_cross_region,
            fail_promotion_on_lag: recovery.fail_promotion_on_lag.unwrap_or(Duration::ZERO),
            fail_promotion_if_not_applied: recovery.unapplied_relay_log == UnappliedRelayLog::Fail,
            skip_drain: recovery.unapplied_relay_log == UnappliedRelayLog::Promote,
            lost_downtime: recovery.lost_downtime,
            candidate_expiry: pools.candidate_expiry,
            unseen_forget: discovery.forget_unseen,
            audit_purge: audit.purge_after,
            cluster_name_to_alias: classification
                .cluster_name_to_alias
                .clone()
                .into_iter()
                .collect(),
            ignore_hosts: discovery.ignore_hosts.clone(),
            ignore_replica_hosts: discovery.ignore_replica_hosts.clone(),
            ignore_source_hosts: discovery.ignore_source_hosts.clone(),
            gone_patience: failover.primary_gone_patience,
            planned_stop_patience: failover.planned_stop_patience,
            return_policy: match failover.primary_return {
                PrimaryReturnPolicy::Resume => ReturnPolicy::Resume,
                PrimaryReturnPolicy::Continue => ReturnPolicy::Continue,
            },
            reopen_restarted_primary: failover.reopen_restarted_primary,
            halt_deadline: failover.halt_deadline,
            donor_catchup: failover.donor_catchup,
            drain_max: failover.promotion_drain_max,
            refuse_lossy: failover.refuse_lossy_promotion,
            witness_quorum: failover
                .witness_quorum
                .map_or(0, |quorum| u32::try_from(quorum).unwrap_or(u32::MAX)),
            deposed_action: match failover.deposed_primary_action {
                DeposedPrimaryAction::ReadOnlyAndKill => DeposedAction::ReadOnlyAndKill,
                DeposedPrimaryAction::ReadOnly => DeposedAction::ReadOnly,
                DeposedPrimaryAction::Report => DeposedAction::Report,
            },
            spare_users: failover.quarantine_spare_users.clone(),
            observe_only: self.process.observe_only,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_files;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_defaults_of_both_are_the_same() {
        let policy = Settings::default().policy();
        // The core takes zero for "as the lag", which the configuration has put there already.
        let default = Policy::default();
        assert_eq!(
            policy,
            Policy {
                reasonable_locked_semi_sync: default.reasonable_lag,
                ..default
            }
        );
    }

    #[test]
    fn each_field_follows_from_a_key() {
        let file = json!({
            "InstancePollSeconds": 6,
            "ReasonableInstanceCheckSeconds": 2,
            "ReasonableReplicationLagSeconds": 11,
            "ReasonableLockedSemiSyncMasterSeconds": 12,
            "ReduceReplicationAnalysisCount": false,
            "EnforceExactSemiSyncReplicas": true,
            "RecoverNonWriteableMaster": true,
            "RecoverMasterClusterFilters": ["a"],
            "RecoverIntermediateMasterClusterFilters": ["b"],
            "RecoveryIgnoreHostnameFilters": ["c"],
            "PromotionIgnoreHostnameFilters": ["d"],
            "ProblemIgnoreHostnameFilters": ["e"],
            "RecoveryPeriodBlockSeconds": 13,
            "FailureDetectionPeriodBlockMinutes": 14,
            "ApplyMySQLPromotionAfterMasterFailover": false,
            "PreventCrossDataCenterMasterFailover": true,
            "PreventCrossRegionMasterFailover": true,
            "ReplicationLagQuery": "select 1",
            "FailMasterPromotionOnLagMinutes": 15,
            "FailMasterPromotionIfSQLThreadNotUpToDate": true,
            "MasterFailoverLostInstancesDowntimeMinutes": 16,
            "CandidateInstanceExpireMinutes": 17,
            "UnseenInstanceForgetHours": 18,
            "AuditPurgeDays": 19,
            "ClusterNameToAlias": {"f": "g"},
            "DiscoveryIgnoreHostnameFilters": ["h"],
            "DiscoveryIgnoreReplicaHostnameFilters": ["i"],
            "DiscoveryIgnoreMasterHostnameFilters": ["j"],
            "PrimaryGonePatienceMilliseconds": 20,
            "PlannedStopPatienceSeconds": 21,
            "PrimaryReturnPolicy": "resume",
            "ReopenRestartedPrimary": false,
            "HaltDeadlineMilliseconds": 22,
            "DonorCatchupSeconds": 23,
            "PromotionDrainSecondsMax": 24,
            "RefuseLossyPromotion": true,
            "WitnessQuorum": 1,
            "DeposedPrimaryAction": "report",
            "QuarantineSpareUsers": ["k"],
            "ObserveOnly": true,
        });
        // Read when the file is settled, or by the probes; all else is what a reload reaches.
        let apart = [
            "DelayMasterPromotionIfSQLThreadNotUpToDate",
            "RecoveryPeriodBlockMinutes",
            "SafetyProfile",
            "ReplicationLagQuery",
        ];
        let mut named: Vec<&str> = file
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .filter(|name| !apart.contains(name))
            .collect();
        let mut reloaded: Vec<&str> = KEYS_OF_POLICY.to_vec();
        reloaded.retain(|name| !apart.contains(name));
        named.sort_unstable();
        reloaded.sort_unstable();
        assert_eq!(named, reloaded);
        let policy_of = |file: serde_json::Value| {
            let loaded = parse_files(&[("f", file.to_string().as_bytes())], &|_| None);
            serde_json::to_value(loaded.expect("accepted").settings.policy())
                .expect("a policy is data")
        };
        let (default, changed) = (policy_of(json!({})), policy_of(file));
        let fields = default.as_object().expect("a policy is an object");
        let same: Vec<&String> = fields
            .keys()
            .filter(|field| default[*field] == changed[*field])
            .collect();
        // Failing a promotion and not waiting exclude each other: the latter has its own file. Of the return policies
        // one is supported.
        assert_eq!(same, ["return_policy", "skip_drain"]);
        let skipping = policy_of(json!({"DelayMasterPromotionIfSQLThreadNotUpToDate": false}));
        assert_eq!(skipping["skip_drain"], true);
        assert_eq!(changed["deposed_action"], "Report");
        assert_eq!(changed["donor_catchup"], json!({"secs": 23, "nanos": 0}));
    }
}
