//! The rules all daemons judge and act by: proposed by the leader from its file, committed, then used by everybody.
//!
//! Never holds credentials or paths. A daemon whose file differs shows that as a problem and uses the committed one.

use alloc::{string::String, vec::Vec};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// `PrimaryReturnPolicy`: what to do when the old primary answers before the promote intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum ReturnPolicy {
    /// Undo the recovery and make it writable again.
    #[default]
    Resume,
    /// Go on as a planned takeover from a live, fenced server.
    Continue,
}

/// `DeposedPrimaryAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum DeposedAction {
    #[default]
    ReadOnlyAndKill,
    ReadOnly,
    Report,
}

/// What judging and repairing obey. Durations are named with their key's unit in the configuration; keys in
/// parentheses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// (`InstancePollSeconds`)
    pub poll: Duration,
    /// (`ReasonableInstanceCheckSeconds`)
    pub reasonable_check: Duration,
    /// (`ReasonableReplicationLagSeconds`)
    pub reasonable_lag: Duration,
    /// (`ReasonableLockedSemiSyncMasterSeconds`; 0 stands for the lag above)
    pub reasonable_locked_semi_sync: Duration,
    /// (`ReduceReplicationAnalysisCount`)
    pub reduce_analysis: bool,
    /// (`EnforceExactSemiSyncReplicas`)
    pub enforce_exact_semi_sync: bool,
    /// (`RecoverNonWriteableMaster`)
    pub recover_non_writeable: bool,
    /// (`RecoverMasterClusterFilters`)
    pub recover_primary_filters: Vec<String>,
    /// (`RecoverIntermediateMasterClusterFilters`)
    pub recover_intermediate_filters: Vec<String>,
    /// (`RecoveryIgnoreHostnameFilters`), regular expressions on the host name
    pub recovery_ignore_hosts: Vec<String>,
    /// (`PromotionIgnoreHostnameFilters`)
    pub promotion_ignore_hosts: Vec<String>,
    /// (`ProblemIgnoreHostnameFilters`)
    pub problem_ignore_hosts: Vec<String>,
    /// (`RecoveryPeriodBlockSeconds`), counted from the end of a completed promotion
    pub cool_down: Duration,
    /// (`FailureDetectionPeriodBlockMinutes`)
    pub detection_block: Duration,
    /// (`ApplyMySQLPromotionAfterMasterFailover`)
    pub apply_promotion: bool,
    /// (`PreventCrossDataCenterMasterFailover`)
    pub prevent_cross_data_center: bool,
    /// (`PreventCrossRegionMasterFailover`)
    pub prevent_cross_region: bool,
    /// (`FailMasterPromotionOnLagMinutes`; zero: off)
    pub fail_promotion_on_lag: Duration,
    /// (`FailMasterPromotionIfSQLThreadNotUpToDate`)
    pub fail_promotion_if_not_applied: bool,
    /// (`DelayMasterPromotionIfSQLThreadNotUpToDate` set to false in the file: promote without the drain)
    pub skip_drain: bool,
    /// (`MasterFailoverLostInstancesDowntimeMinutes`, else 365 days)
    pub lost_downtime: Duration,
    /// (`CandidateInstanceExpireMinutes`)
    pub candidate_expiry: Duration,
    /// (`UnseenInstanceForgetHours`)
    pub unseen_forget: Duration,
    /// (`AuditPurgeDays`)
    pub audit_purge: Duration,
    /// (`ClusterNameToAlias`): regular expression on the cluster name, alias
    pub cluster_name_to_alias: Vec<(String, String)>,
    /// (`DiscoveryIgnoreHostnameFilters`), (`...ReplicaHostnameFilters`), (`...MasterHostnameFilters`)
    pub ignore_hosts: Vec<String>,
    pub ignore_replica_hosts: Vec<String>,
    pub ignore_source_hosts: Vec<String>,
    /// (`PrimaryGonePatienceMilliseconds`)
    pub gone_patience: Duration,
    /// (`PlannedStopPatienceSeconds`)
    pub planned_stop_patience: Duration,
    /// (`PrimaryReturnPolicy`)
    pub return_policy: ReturnPolicy,
    /// (`ReopenRestartedPrimary`)
    pub reopen_restarted_primary: bool,
    /// (`HaltDeadlineMilliseconds`)
    pub halt_deadline: Duration,
    /// (`DonorCatchupSeconds`)
    pub donor_catchup: Duration,
    /// (`PromotionDrainSecondsMax`)
    pub drain_max: Duration,
    /// (`RefuseLossyPromotion`)
    pub refuse_lossy: bool,
    /// (`WitnessQuorum`; 0: a majority of all voters)
    pub witness_quorum: u32,
    /// (`DeposedPrimaryAction`)
    pub deposed_action: DeposedAction,
    /// (`QuarantineSpareUsers`)
    pub spare_users: Vec<String>,
    /// (`ObserveOnly`)
    pub observe_only: bool,
}

impl Policy {
    /// The configuration's keys in which this one differs from another.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            poll,
            reasonable_check,
            reasonable_lag,
            reasonable_locked_semi_sync,
            reduce_analysis,
            enforce_exact_semi_sync,
            recover_non_writeable,
            recover_primary_filters,
            recover_intermediate_filters,
            recovery_ignore_hosts,
            promotion_ignore_hosts,
            problem_ignore_hosts,
            cool_down,
            detection_block,
            apply_promotion,
            prevent_cross_data_center,
            prevent_cross_region,
            fail_promotion_on_lag,
            fail_promotion_if_not_applied,
            skip_drain,
            lost_downtime,
            candidate_expiry,
            unseen_forget,
            audit_purge,
            cluster_name_to_alias,
            ignore_hosts,
            ignore_replica_hosts,
            ignore_source_hosts,
            gone_patience,
            planned_stop_patience,
            return_policy,
            reopen_restarted_primary,
            halt_deadline,
            donor_catchup,
            drain_max,
            refuse_lossy,
            witness_quorum,
            deposed_action,
            spare_users,
            observe_only,
        } = self;
        [
            (poll != &other.poll, "InstancePollSeconds"),
            (
                reasonable_check != &other.reasonable_check,
                "ReasonableInstanceCheckSeconds",
            ),
            (
                reasonable_lag != &other.reasonable_lag,
                "ReasonableReplicationLagSeconds",
            ),
            (
                reasonable_locked_semi_sync != &other.reasonable_locked_semi_sync,
                "ReasonableLockedSemiSyncMasterSeconds",
            ),
            (
                reduce_analysis != &other.reduce_analysis,
                "ReduceReplicationAnalysisCount",
            ),
            (
                enforce_exact_semi_sync != &other.enforce_exact_semi_sync,
                "EnforceExactSemiSyncReplicas",
            ),
            (
                recover_non_writeable != &other.recover_non_writeable,
                "RecoverNonWriteableMaster",
            ),
            (
                recover_primary_filters != &other.recover_primary_filters,
                "RecoverMasterClusterFilters",
            ),
            (
                recover_intermediate_filters != &other.recover_intermediate_filters,
                "RecoverIntermediateMasterClusterFilters",
            ),
            (
                recovery_ignore_hosts != &other.recovery_ignore_hosts,
                "RecoveryIgnoreHostnameFilters",
            ),
            (
                promotion_ignore_hosts != &other.promotion_ignore_hosts,
                "PromotionIgnoreHostnameFilters",
            ),
            (
                problem_ignore_hosts != &other.problem_ignore_hosts,
                "ProblemIgnoreHostnameFilters",
            ),
            (cool_down != &other.cool_down, "RecoveryPeriodBlockSeconds"),
            (
                detection_block != &other.detection_block,
                "FailureDetectionPeriodBlockMinutes",
            ),
            (
                apply_promotion != &other.apply_promotion,
                "ApplyMySQLPromotionAfterMasterFailover",
            ),
            (
                prevent_cross_data_center != &other.prevent_cross_data_center,
                "PreventCrossDataCenterMasterFailover",
            ),
            (
                prevent_cross_region != &other.prevent_cross_region,
                "PreventCrossRegionMasterFailover",
            ),
            (
                fail_promotion_on_lag != &other.fail_promotion_on_lag,
                "FailMasterPromotionOnLagMinutes",
            ),
            (
                fail_promotion_if_not_applied != &other.fail_promotion_if_not_applied,
                "FailMasterPromotionIfSQLThreadNotUpToDate",
            ),
            (
                skip_drain != &other.skip_drain,
                "DelayMasterPromotionIfSQLThreadNotUpToDate",
            ),
            (
                lost_downtime != &other.lost_downtime,
                "MasterFailoverLostInstancesDowntimeMinutes",
            ),
            (
                candidate_expiry != &other.candidate_expiry,
                "CandidateInstanceExpireMinutes",
            ),
            (
                unseen_forget != &other.unseen_forget,
                "UnseenInstanceForgetHours",
            ),
            (audit_purge != &other.audit_purge, "AuditPurgeDays"),
            (
                cluster_name_to_alias != &other.cluster_name_to_alias,
                "ClusterNameToAlias",
            ),
            (
                ignore_hosts != &other.ignore_hosts,
                "DiscoveryIgnoreHostnameFilters",
            ),
            (
                ignore_replica_hosts != &other.ignore_replica_hosts,
                "DiscoveryIgnoreReplicaHostnameFilters",
            ),
            (
                ignore_source_hosts != &other.ignore_source_hosts,
                "DiscoveryIgnoreMasterHostnameFilters",
            ),
            (
                gone_patience != &other.gone_patience,
                "PrimaryGonePatienceMilliseconds",
            ),
            (
                planned_stop_patience != &other.planned_stop_patience,
                "PlannedStopPatienceSeconds",
            ),
            (return_policy != &other.return_policy, "PrimaryReturnPolicy"),
            (
                reopen_restarted_primary != &other.reopen_restarted_primary,
                "ReopenRestartedPrimary",
            ),
            (
                halt_deadline != &other.halt_deadline,
                "HaltDeadlineMilliseconds",
            ),
            (donor_catchup != &other.donor_catchup, "DonorCatchupSeconds"),
            (drain_max != &other.drain_max, "PromotionDrainSecondsMax"),
            (refuse_lossy != &other.refuse_lossy, "RefuseLossyPromotion"),
            (witness_quorum != &other.witness_quorum, "WitnessQuorum"),
            (
                deposed_action != &other.deposed_action,
                "DeposedPrimaryAction",
            ),
            (spare_users != &other.spare_users, "QuarantineSpareUsers"),
            (observe_only != &other.observe_only, "ObserveOnly"),
        ]
        .into_iter()
        .filter_map(|(differs, key)| differs.then_some(key))
        .collect()
    }
}

impl Default for Policy {
    fn default() -> Self {
        const fn secs(secs: u64) -> Duration {
            Duration::from_secs(secs)
        }
        Self {
            poll: secs(5),
            reasonable_check: secs(1),
            reasonable_lag: secs(10),
            reasonable_locked_semi_sync: Duration::ZERO,
            reduce_analysis: true,
            enforce_exact_semi_sync: false,
            recover_non_writeable: false,
            recover_primary_filters: Vec::new(),
            recover_intermediate_filters: Vec::new(),
            recovery_ignore_hosts: Vec::new(),
            promotion_ignore_hosts: Vec::new(),
            problem_ignore_hosts: Vec::new(),
            cool_down: secs(3600),
            detection_block: secs(3600),
            apply_promotion: true,
            prevent_cross_data_center: false,
            prevent_cross_region: false,
            fail_promotion_on_lag: Duration::ZERO,
            fail_promotion_if_not_applied: false,
            skip_drain: false,
            lost_downtime: secs(365 * 86_400),
            candidate_expiry: secs(3600),
            unseen_forget: secs(240 * 3600),
            audit_purge: secs(7 * 86_400),
            cluster_name_to_alias: Vec::new(),
            ignore_hosts: Vec::new(),
            ignore_replica_hosts: Vec::new(),
            ignore_source_hosts: Vec::new(),
            gone_patience: Duration::ZERO,
            planned_stop_patience: secs(15),
            return_policy: ReturnPolicy::Resume,
            reopen_restarted_primary: true,
            halt_deadline: Duration::from_millis(1500),
            donor_catchup: secs(30),
            drain_max: secs(60),
            refuse_lossy: false,
            witness_quorum: 0,
            deposed_action: DeposedAction::ReadOnlyAndKill,
            spare_users: Vec::new(),
            observe_only: false,
        }
    }
}
