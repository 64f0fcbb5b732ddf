//! The rule tables: which code holds, given the evidence.
//!
//! [`CHAIN`] is tried from the top and the first rule that holds names the problem; its order is part of its meaning.
//! The rules of [`STRUCTURE`] are independent of each other and of the chain. Rules read evidence and policy, never
//! the clock. Numbers are those of the specification of failure analysis, section 3.

use super::{
    code::{Code, StructureCode},
    evidence::Evidence,
};
use crate::policy::Policy;

/// When a rule holds.
pub type Predicate = fn(&Evidence, &Policy) -> bool;

/// One rule of the chain.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub number: u8,
    pub holds: Predicate,
    pub code: Code,
}

const fn rule(number: u8, holds: Predicate, code: Code) -> Rule {
    Rule {
        number,
        holds,
        code,
    }
}

/// For servers that are not members of a replication group. A co-primary names a source, so it is no primary here, and
/// goes on to the rules for intermediate sources when its own do not hold.
pub const CHAIN: [Rule; 31] = [
    // Whatever its replicas do: it answers.
    rule(
        0,
        |e, _| e.is_primary && !e.last_check_valid && e.is_overloaded,
        Code::OverloadedPrimary,
    ),
    rule(
        1,
        |e, _| dead_primary(e) && e.replicas == 0,
        Code::DeadMasterWithoutReplicas,
    ),
    rule(
        2,
        |e, _| dead_primary(e) && all_valid(e) && none_replicating(e),
        Code::DeadMaster,
    ),
    rule(
        3,
        |e, _| dead_primary(e) && e.replicas > 0 && none_valid(e) && none_replicating(e),
        Code::DeadMasterAndReplicas,
    ),
    rule(
        4,
        |e, _| dead_primary(e) && some_valid(e) && none_replicating(e),
        Code::DeadMasterAndSomeReplicas,
    ),
    rule(
        5,
        |e, _| dead_primary(e) && only_lagging(e),
        Code::UnreachableMasterWithLaggingReplicas,
    ),
    rule(
        6,
        |e, _| dead_primary(e) && !e.last_check_partial_success && any_replicating(e),
        Code::UnreachableMaster,
    ),
    rule(
        7,
        |e, _| {
            dead_primary(e)
                && e.last_check_partial_success
                && e.failing_to_connect_replicas > 0
                && any_replicating(e)
        },
        Code::UnreachableMaster,
    ),
    // The semi-sync rules ask for no valid check: what was last read of an unreachable source still counts.
    rule(
        8,
        |e, _| e.is_primary && too_few_acknowledge(e) && e.is_stale,
        Code::LockedSemiSyncMaster,
    ),
    rule(
        8,
        |e, _| e.is_primary && too_few_acknowledge(e) && !e.is_stale,
        Code::LockedSemiSyncMasterHypothesis,
    ),
    rule(
        9,
        |e, policy| policy.enforce_exact_semi_sync && e.is_primary && too_many_acknowledge(e),
        Code::MasterWithTooManySemiSyncReplicas,
    ),
    rule(
        10,
        |e, policy| {
            policy.recover_non_writeable
                && live_primary(e)
                && e.is_read_only
                && e.replicating_replicas > 0
        },
        Code::NoWriteableMasterStructureWarning,
    ),
    rule(
        11,
        |e, _| live_primary(e) && e.replicas == 1 && all_valid(e) && none_replicating(e),
        Code::MasterSingleReplicaNotReplicating,
    ),
    rule(
        12,
        |e, _| live_primary(e) && e.replicas == 1 && none_valid(e),
        Code::MasterSingleReplicaDead,
    ),
    rule(
        13,
        |e, _| live_primary(e) && e.replicas > 1 && all_valid(e) && none_replicating(e),
        Code::AllMasterReplicasNotReplicating,
    ),
    rule(
        14,
        |e, _| live_primary(e) && e.replicas > 1 && some_valid(e) && none_replicating(e),
        Code::AllMasterReplicasNotReplicatingOrDead,
    ),
    rule(
        15,
        |e, _| dead_co_primary(e) && e.replicas > 0 && all_valid(e) && none_replicating(e),
        Code::DeadCoMaster,
    ),
    rule(
        16,
        |e, _| dead_co_primary(e) && e.replicas > 0 && some_valid(e) && none_replicating(e),
        Code::DeadCoMasterAndSomeReplicas,
    ),
    rule(
        17,
        |e, _| dead_co_primary(e) && !e.last_check_partial_success && any_replicating(e),
        Code::UnreachableCoMaster,
    ),
    rule(
        18,
        |e, _| e.is_co_primary && e.last_check_valid && e.replicas > 0 && none_replicating(e),
        Code::AllCoMasterReplicasNotReplicating,
    ),
    rule(
        19,
        |e, _| {
            dead_intermediate(e)
                && e.replicas == 1
                && all_valid(e)
                && e.failing_to_connect_replicas == e.replicas
                && none_replicating(e)
        },
        Code::DeadIntermediateMasterWithSingleReplicaFailingToConnect,
    ),
    rule(
        20,
        |e, _| dead_intermediate(e) && e.replicas == 1 && all_valid(e) && none_replicating(e),
        Code::DeadIntermediateMasterWithSingleReplica,
    ),
    rule(
        21,
        |e, _| dead_intermediate(e) && e.replicas > 1 && all_valid(e) && none_replicating(e),
        Code::DeadIntermediateMaster,
    ),
    rule(
        22,
        |e, _| dead_intermediate(e) && some_valid(e) && none_replicating(e),
        Code::DeadIntermediateMasterAndSomeReplicas,
    ),
    rule(
        23,
        |e, _| dead_intermediate(e) && e.replicas > 0 && none_valid(e),
        Code::DeadIntermediateMasterAndReplicas,
    ),
    rule(
        24,
        |e, _| dead_intermediate(e) && only_lagging(e),
        Code::UnreachableIntermediateMasterWithLaggingReplicas,
    ),
    rule(
        25,
        |e, _| dead_intermediate(e) && !e.last_check_partial_success && any_replicating(e),
        Code::UnreachableIntermediateMaster,
    ),
    rule(
        26,
        |e, _| {
            live_intermediate(e)
                && e.replicas > 1
                && none_replicating(e)
                && e.failing_to_connect_replicas > 0
                && e.failing_to_connect_replicas == e.valid_replicas
        },
        Code::AllIntermediateMasterReplicasFailingToConnectOrDead,
    ),
    // Of replicas none of which answers nothing can be said.
    rule(
        27,
        |e, _| live_intermediate(e) && e.valid_replicas > 0 && none_replicating(e),
        Code::AllIntermediateMasterReplicasNotReplicating,
    ),
    rule(
        28,
        |e, _| e.is_binlog_server && e.is_failing_to_connect,
        Code::BinlogServerFailingToConnectToMaster,
    ),
    rule(
        29,
        |e, _| e.depth == 1 && e.is_failing_to_connect,
        Code::FirstTierReplicaFailingToConnectToMaster,
    ),
];

/// The chain for members of a replication group, which repair their group by themselves.
pub const GROUP_CHAIN: [Rule; 1] = [rule(
    30,
    |e, _| !e.last_check_valid && e.replicas > 0 && none_replicating(e),
    Code::DeadReplicationGroupMemberWithReplicas,
)];

/// Everything unwise about how a server and its replicas are set up, in the order in which it is listed.
pub const STRUCTURE: [(StructureCode, Predicate); 17] = [
    (
        StructureCode::TwoWriteablePrimariesStructureWarning,
        |e, _| e.other_primary.is_some(),
    ),
    (
        StructureCode::ReplacedPrimaryHasReplicasStructureWarning,
        |e, _| e.is_followed_though_replaced(),
    ),
    (StructureCode::NoLoggingReplicasStructureWarning, |e, _| {
        e.is_primary && e.replicas > 1 && e.logging_replicas == 0
    }),
    (StructureCode::NoFailoverSupportStructureWarning, |e, _| {
        e.is_primary
            && e.replicas > 1
            && !e.all_use_oracle_gtid()
            && !e.all_use_mariadb_gtid()
            && !e.all_are_binlog_servers()
            && !e.uses_pseudo_gtid
    }),
    (
        StructureCode::StatementAndMixedLoggingReplicasStructureWarning,
        |e, _| e.is_primary && e.statement_replicas > 0 && e.mixed_replicas > 0,
    ),
    (
        StructureCode::StatementAndRowLoggingReplicasStructureWarning,
        |e, _| e.is_primary && e.statement_replicas > 0 && e.row_replicas > 0,
    ),
    (
        StructureCode::MixedAndRowLoggingReplicasStructureWarning,
        |e, _| e.is_primary && e.mixed_replicas > 0 && e.row_replicas > 0,
    ),
    (
        StructureCode::MultipleMajorVersionsLoggingReplicasStructureWarning,
        |e, _| e.is_primary && e.major_versions > 1,
    ),
    (StructureCode::DifferentGTIDModesStructureWarning, |e, _| {
        e.replicas > 0
            && e.gtid_mode()
                .is_some_and(|mode| mode != e.gtid_mode_min || mode != e.gtid_mode_max)
    }),
    (StructureCode::ErrantGTIDStructureWarning, |e, _| {
        !e.errant_max.is_empty()
    }),
    (StructureCode::NoWriteableMasterStructureWarning, |e, _| {
        e.is_primary && e.is_read_only
    }),
    (
        StructureCode::NotEnoughValidSemiSyncReplicasStructureWarning,
        |e, _| {
            e.is_primary
                && e.semi_sync().is_some_and(|semi_sync| {
                    semi_sync.source_enabled
                        && !semi_sync.source_status
                        && semi_sync.source_wait_count > 0
                        && semi_sync.source_clients < semi_sync.source_wait_count
                })
        },
    ),
    (StructureCode::MissingPrivilegesStructureWarning, |e, _| {
        e.lacks_privileges()
    }),
    (StructureCode::UnknownPrivilegesStructureWarning, |e, _| {
        e.report
            .as_ref()
            .is_some_and(|report| report.privileges_unknown.is_some())
    }),
    (StructureCode::UnseenByDaemonsStructureWarning, |e, _| {
        e.daemons_seeing.is_some()
    }),
    (StructureCode::RefusedQueriesStructureWarning, |e, _| {
        e.refuses_queries()
    }),
    (StructureCode::UnfenceableUsersStructureWarning, |e, _| {
        e.has_unfenceable_users()
    }),
];

/// The first rule that holds for the evidence.
#[must_use]
pub fn first_rule(evidence: &Evidence, policy: &Policy) -> Option<&'static Rule> {
    const fn chain_of(evidence: &Evidence) -> &'static [Rule] {
        if evidence.is_group_member {
            &GROUP_CHAIN
        } else {
            &CHAIN
        }
    }
    chain_of(evidence)
        .iter()
        .find(|rule| (rule.holds)(evidence, policy))
}

/// Every structure code that holds for the evidence, in order.
pub fn structure<'a>(
    evidence: &'a Evidence,
    policy: &'a Policy,
) -> impl Iterator<Item = StructureCode> + 'a {
    STRUCTURE
        .iter()
        .filter(|(_, holds)| holds(evidence, policy))
        .map(|(code, _)| *code)
}

const fn dead_primary(e: &Evidence) -> bool {
    e.is_primary && !e.last_check_valid
}

const fn live_primary(e: &Evidence) -> bool {
    e.is_primary && e.last_check_valid
}

const fn dead_co_primary(e: &Evidence) -> bool {
    e.is_co_primary && !e.last_check_valid
}

const fn dead_intermediate(e: &Evidence) -> bool {
    !e.is_primary && !e.last_check_valid
}

const fn live_intermediate(e: &Evidence) -> bool {
    !e.is_primary && e.last_check_valid
}

const fn all_valid(e: &Evidence) -> bool {
    e.valid_replicas == e.replicas
}

const fn some_valid(e: &Evidence) -> bool {
    e.valid_replicas > 0 && e.valid_replicas < e.replicas
}

const fn none_valid(e: &Evidence) -> bool {
    e.valid_replicas == 0
}

const fn none_replicating(e: &Evidence) -> bool {
    e.replicating_replicas == 0
}

/// Replicating replicas are valid ones.
const fn any_replicating(e: &Evidence) -> bool {
    e.replicating_replicas > 0
}

/// All replicas lag though some believe that they replicate; if all are delayed on purpose that says nothing.
const fn only_lagging(e: &Evidence) -> bool {
    e.lagging_replicas == e.replicas
        && e.delayed_replicas < e.replicas
        && e.replicating_replicas > 0
}

fn too_few_acknowledge(e: &Evidence) -> bool {
    e.semi_sync().is_some_and(|semi_sync| {
        semi_sync.source_enabled
            && semi_sync.source_status
            && semi_sync.source_wait_count > 0
            && semi_sync.source_clients < semi_sync.source_wait_count
    })
}

fn too_many_acknowledge(e: &Evidence) -> bool {
    e.semi_sync().is_some_and(|semi_sync| {
        semi_sync.source_enabled
            && semi_sync.source_status
            && semi_sync.source_wait_count > 0
            && semi_sync.source_clients > semi_sync.source_wait_count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_name_every_code_that_can_be_found() {
        assert!(
            CHAIN
                .windows(2)
                .all(|pair| pair[0].number <= pair[1].number)
        );
        for code in Code::ALL {
            let listed = CHAIN
                .iter()
                .chain(&GROUP_CHAIN)
                .filter(|rule| rule.code == code)
                .count();
            let expected = match code {
                Code::NoProblem | Code::MasterWithoutReplicas => 0,
                Code::UnreachableMaster => 2,
                _ => 1,
            };
            assert_eq!(listed, expected, "{code}");
        }
        assert!(
            STRUCTURE
                .iter()
                .map(|(code, _)| *code)
                .eq(StructureCode::ALL)
        );
    }

    /// What must hold of every conceivable evidence, tried on all small combinations: a primary or intermediate source
    /// that does not answer and whose replicas do not replicate is never passed over in silence.
    #[test]
    fn no_dead_source_is_passed_over() {
        let policy = Policy::default();
        for replicas in 0..4u32 {
            for valid_replicas in 0..=replicas {
                for failing_to_connect_replicas in 0..=valid_replicas {
                    for (is_primary, is_co_primary) in
                        [(true, false), (true, true), (false, false), (false, true)]
                    {
                        let evidence = Evidence {
                            is_primary,
                            is_co_primary,
                            replicas,
                            valid_replicas,
                            failing_to_connect_replicas,
                            ..Evidence::default()
                        };
                        let found = first_rule(&evidence, &policy).map(|rule| rule.code);
                        assert_eq!(
                            found.is_some(),
                            is_primary || replicas > 0,
                            "{evidence:?}: {found:?}"
                        );
                    }
                }
            }
        }
    }
}
