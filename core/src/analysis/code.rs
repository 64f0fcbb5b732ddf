//! The analysis codes: their wire names, what they say, and what follows from each.
//!
//! A code is a term of the wire (HTTP API, hooks, tables), so the variants are spelled as the wire spells them. What
//! follows from a code is a row of a table: which repair it has, whether a detection of it is registered, and what
//! every daemon does at once to see more clearly. Nothing here decides which code holds; see [`super::rules`].

use core::fmt;
use serde::{Deserialize, Serialize};

/// What is the matter with one server (`Analysis` of the HTTP API).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Code {
    #[default]
    NoProblem,
    DeadMasterWithoutReplicas,
    DeadMaster,
    DeadMasterAndReplicas,
    DeadMasterAndSomeReplicas,
    UnreachableMasterWithLaggingReplicas,
    UnreachableMaster,
    MasterSingleReplicaNotReplicating,
    MasterSingleReplicaDead,
    AllMasterReplicasNotReplicating,
    AllMasterReplicasNotReplicatingOrDead,
    LockedSemiSyncMasterHypothesis,
    LockedSemiSyncMaster,
    MasterWithTooManySemiSyncReplicas,
    /// Part of the vocabulary; no rule yields it.
    MasterWithoutReplicas,
    DeadCoMaster,
    DeadCoMasterAndSomeReplicas,
    UnreachableCoMaster,
    AllCoMasterReplicasNotReplicating,
    DeadIntermediateMaster,
    DeadIntermediateMasterWithSingleReplica,
    DeadIntermediateMasterWithSingleReplicaFailingToConnect,
    DeadIntermediateMasterAndSomeReplicas,
    DeadIntermediateMasterAndReplicas,
    UnreachableIntermediateMasterWithLaggingReplicas,
    UnreachableIntermediateMaster,
    AllIntermediateMasterReplicasFailingToConnectOrDead,
    AllIntermediateMasterReplicasNotReplicating,
    FirstTierReplicaFailingToConnectToMaster,
    BinlogServerFailingToConnectToMaster,
    DeadReplicationGroupMemberWithReplicas,
    /// As an analysis of its own, under `RecoverNonWriteableMaster`; the structure code of the same name is apart.
    NoWriteableMasterStructureWarning,
    /// The only answer is that it takes no more connections (errors 1040, 1203, 1226): it lives.
    OverloadedPrimary,
}

/// What repairs a problem.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Repair {
    /// The entry is only shown.
    #[default]
    Ignored,
    /// Nothing is repaired, yet the entry counts as detected.
    Nothing,
    DeadPrimary,
    DeadCoPrimary,
    DeadIntermediate,
    DeadGroupMember,
    LockedSemiSync,
    ExactSemiSync,
    NonWriteablePrimary,
}

impl Repair {
    /// Changes a topology.
    #[must_use]
    pub const fn is_actionable(self) -> bool {
        match self {
            Self::Ignored | Self::Nothing => false,
            Self::DeadPrimary
            | Self::DeadCoPrimary
            | Self::DeadIntermediate
            | Self::DeadGroupMember
            | Self::LockedSemiSync
            | Self::ExactSemiSync
            | Self::NonWriteablePrimary => true,
        }
    }

    /// The repair while the server's replicas were just made to dial again by ourselves: what looks dead may only be
    /// our own doing, so it is detected and left alone.
    #[must_use]
    pub const fn in_grace(self) -> Self {
        match self {
            Self::DeadPrimary | Self::LockedSemiSync => Self::Nothing,
            Self::Ignored
            | Self::Nothing
            | Self::DeadCoPrimary
            | Self::DeadIntermediate
            | Self::DeadGroupMember
            | Self::ExactSemiSync
            | Self::NonWriteablePrimary => self,
        }
    }
}

/// What every daemon does at once, before any gate, to see more clearly.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Emergent {
    #[default]
    Nothing,
    /// Probe the server.
    Probe,
    /// Probe the server and all its replicas.
    ProbeWithReplicas,
    /// Probe the server's source.
    ProbeSource,
    /// Probe the server and note where its log stands.
    ProbeAndNoteCoordinates,
    /// Stop and start the IO thread of all replicas, so that connections that only look alive are dialled again.
    RestartReplicaIo,
}

/// A row of the table of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeFacts {
    /// As the wire spells it.
    pub name: &'static str,
    /// One line for people; empty when nothing is the matter.
    pub description: &'static str,
    pub repair: Repair,
    /// A detection is registered and the detection hooks run.
    pub registers_detection: bool,
    pub emergent: Emergent,
}

const fn shown(name: &'static str, description: &'static str) -> CodeFacts {
    CodeFacts {
        name,
        description,
        repair: Repair::Ignored,
        registers_detection: false,
        emergent: Emergent::Nothing,
    }
}

const fn detected(name: &'static str, description: &'static str, repair: Repair) -> CodeFacts {
    CodeFacts {
        name,
        description,
        repair,
        registers_detection: true,
        emergent: Emergent::Nothing,
    }
}

impl CodeFacts {
    const fn at_once(mut self, emergent: Emergent) -> Self {
        self.emergent = emergent;
        self
    }
}

impl Code {
    /// Every code, in the order of declaration.
    pub const ALL: [Self; 33] = [
        Self::NoProblem,
        Self::DeadMasterWithoutReplicas,
        Self::DeadMaster,
        Self::DeadMasterAndReplicas,
        Self::DeadMasterAndSomeReplicas,
        Self::UnreachableMasterWithLaggingReplicas,
        Self::UnreachableMaster,
        Self::MasterSingleReplicaNotReplicating,
        Self::MasterSingleReplicaDead,
        Self::AllMasterReplicasNotReplicating,
        Self::AllMasterReplicasNotReplicatingOrDead,
        Self::LockedSemiSyncMasterHypothesis,
        Self::LockedSemiSyncMaster,
        Self::MasterWithTooManySemiSyncReplicas,
        Self::MasterWithoutReplicas,
        Self::DeadCoMaster,
        Self::DeadCoMasterAndSomeReplicas,
        Self::UnreachableCoMaster,
        Self::AllCoMasterReplicasNotReplicating,
        Self::DeadIntermediateMaster,
        Self::DeadIntermediateMasterWithSingleReplica,
        Self::DeadIntermediateMasterWithSingleReplicaFailingToConnect,
        Self::DeadIntermediateMasterAndSomeReplicas,
        Self::DeadIntermediateMasterAndReplicas,
        Self::UnreachableIntermediateMasterWithLaggingReplicas,
        Self::UnreachableIntermediateMaster,
        Self::AllIntermediateMasterReplicasFailingToConnectOrDead,
        Self::AllIntermediateMasterReplicasNotReplicating,
        Self::FirstTierReplicaFailingToConnectToMaster,
        Self::BinlogServerFailingToConnectToMaster,
        Self::DeadReplicationGroupMemberWithReplicas,
        Self::NoWriteableMasterStructureWarning,
        Self::OverloadedPrimary,
    ];

    /// The code's row of the table.
    #[must_use]
    pub const fn facts(self) -> CodeFacts {
        match self {
            Self::NoProblem => shown("NoProblem", ""),
            Self::DeadMasterWithoutReplicas => shown(
                "DeadMasterWithoutReplicas",
                "The master does not answer, and nothing replicates from it",
            ),
            Self::DeadMaster => detected(
                "DeadMaster",
                "The master does not answer, and none of its replicas replicates",
                Repair::DeadPrimary,
            ),
            Self::DeadMasterAndReplicas => detected(
                "DeadMasterAndReplicas",
                "Neither the master nor any of its replicas answers",
                Repair::Nothing,
            )
            .at_once(Emergent::ProbeSource),
            Self::DeadMasterAndSomeReplicas => detected(
                "DeadMasterAndSomeReplicas",
                "The master and some of its replicas do not answer, and no replica that answers replicates",
                Repair::DeadPrimary,
            ),
            Self::UnreachableMasterWithLaggingReplicas => detected(
                "UnreachableMasterWithLaggingReplicas",
                "The master does not answer; its replicas believe that they replicate, but all of them lag",
                Repair::Nothing,
            )
            .at_once(Emergent::RestartReplicaIo),
            Self::UnreachableMaster => detected(
                "UnreachableMaster",
                "The master does not answer here, yet some of its replicas replicate: perhaps only the network is at fault",
                Repair::Nothing,
            )
            .at_once(Emergent::ProbeWithReplicas),
            Self::MasterSingleReplicaNotReplicating => shown(
                "MasterSingleReplicaNotReplicating",
                "The master answers, but its only replica does not replicate",
            ),
            Self::MasterSingleReplicaDead => shown(
                "MasterSingleReplicaDead",
                "The master answers, but its only replica does not",
            ),
            Self::AllMasterReplicasNotReplicating => detected(
                "AllMasterReplicasNotReplicating",
                "The master answers, but none of its replicas replicates",
                Repair::Nothing,
            )
            .at_once(Emergent::Probe),
            Self::AllMasterReplicasNotReplicatingOrDead => detected(
                "AllMasterReplicasNotReplicatingOrDead",
                "The master answers, but none of its replicas replicates",
                Repair::Nothing,
            )
            .at_once(Emergent::Probe),
            Self::LockedSemiSyncMasterHypothesis => shown(
                "LockedSemiSyncMasterHypothesis",
                "The semi-sync master seems to wait for acknowledgements of too few replicas; it is looked at further",
            )
            .at_once(Emergent::ProbeAndNoteCoordinates),
            Self::LockedSemiSyncMaster => detected(
                "LockedSemiSyncMaster",
                "Writes on the semi-sync master wait for more acknowledging replicas than are connected",
                Repair::LockedSemiSync,
            ),
            Self::MasterWithTooManySemiSyncReplicas => detected(
                "MasterWithTooManySemiSyncReplicas",
                "More replicas acknowledge than the semi-sync master waits for",
                Repair::ExactSemiSync,
            ),
            Self::MasterWithoutReplicas => {
                shown("MasterWithoutReplicas", "Nothing replicates from the master")
            }
            Self::DeadCoMaster => detected(
                "DeadCoMaster",
                "The co-master does not answer, and none of its replicas replicates",
                Repair::DeadCoPrimary,
            ),
            Self::DeadCoMasterAndSomeReplicas => detected(
                "DeadCoMasterAndSomeReplicas",
                "The co-master and some of its replicas do not answer, and no replica that answers replicates",
                Repair::DeadCoPrimary,
            ),
            Self::UnreachableCoMaster => shown(
                "UnreachableCoMaster",
                "The co-master does not answer here, yet some of its replicas replicate: perhaps only the network is at fault",
            ),
            Self::AllCoMasterReplicasNotReplicating => shown(
                "AllCoMasterReplicasNotReplicating",
                "The co-master answers, but none of its replicas replicates",
            ),
            Self::DeadIntermediateMaster => detected(
                "DeadIntermediateMaster",
                "The intermediate master does not answer, and none of its replicas replicates",
                Repair::DeadIntermediate,
            ),
            Self::DeadIntermediateMasterWithSingleReplica => shown(
                "DeadIntermediateMasterWithSingleReplica",
                "The intermediate master does not answer, and its only replica does not replicate for another reason",
            ),
            Self::DeadIntermediateMasterWithSingleReplicaFailingToConnect => detected(
                "DeadIntermediateMasterWithSingleReplicaFailingToConnect",
                "The intermediate master does not answer, and its only replica cannot connect to it",
                Repair::DeadIntermediate,
            ),
            Self::DeadIntermediateMasterAndSomeReplicas => detected(
                "DeadIntermediateMasterAndSomeReplicas",
                "The intermediate master and some of its replicas do not answer, and no replica that answers replicates",
                Repair::DeadIntermediate,
            ),
            Self::DeadIntermediateMasterAndReplicas => detected(
                "DeadIntermediateMasterAndReplicas",
                "Neither the intermediate master nor any of its replicas answers",
                Repair::Nothing,
            ),
            Self::UnreachableIntermediateMasterWithLaggingReplicas => detected(
                "UnreachableIntermediateMasterWithLaggingReplicas",
                "The intermediate master does not answer; its replicas believe that they replicate, but all of them lag",
                Repair::Nothing,
            )
            .at_once(Emergent::RestartReplicaIo),
            Self::UnreachableIntermediateMaster => shown(
                "UnreachableIntermediateMaster",
                "The intermediate master does not answer here, yet some of its replicas replicate: perhaps only the network is at fault",
            ),
            Self::AllIntermediateMasterReplicasFailingToConnectOrDead => detected(
                "AllIntermediateMasterReplicasFailingToConnectOrDead",
                "The intermediate master answers here, but every replica of it that answers fails to connect to it",
                Repair::DeadIntermediate,
            ),
            Self::AllIntermediateMasterReplicasNotReplicating => shown(
                "AllIntermediateMasterReplicasNotReplicating",
                "The intermediate master answers, but no replica of it that answers replicates",
            ),
            Self::FirstTierReplicaFailingToConnectToMaster => shown(
                "FirstTierReplicaFailingToConnectToMaster",
                "A direct replica of the topology's master cannot connect to it",
            )
            .at_once(Emergent::ProbeSource),
            Self::BinlogServerFailingToConnectToMaster => shown(
                "BinlogServerFailingToConnectToMaster",
                "The binlog server cannot connect to its master",
            ),
            Self::DeadReplicationGroupMemberWithReplicas => detected(
                "DeadReplicationGroupMemberWithReplicas",
                "The group member does not answer, and no replica outside the group that uses it as its source replicates",
                Repair::DeadGroupMember,
            ),
            Self::NoWriteableMasterStructureWarning => detected(
                "NoWriteableMasterStructureWarning",
                "The master has replicas, but is read-only",
                Repair::NonWriteablePrimary,
            ),
            Self::OverloadedPrimary => detected(
                "OverloadedPrimary",
                "The master answers that it takes no more connections: it lives, and nobody is promoted in its place",
                Repair::Nothing,
            )
            .at_once(Emergent::Probe),
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    #[must_use]
    pub const fn description(self) -> &'static str {
        self.facts().description
    }

    /// The code of a wire name; none for text that names no code.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// When every replica is in a downtime, this problem, which lies with the replicas, is excused with them.
    #[must_use]
    pub const fn is_excused_by_replicas_downtime(self) -> bool {
        matches!(
            self,
            Self::AllMasterReplicasNotReplicating
                | Self::AllMasterReplicasNotReplicatingOrDead
                | Self::MasterSingleReplicaDead
                | Self::AllCoMasterReplicasNotReplicating
                | Self::DeadIntermediateMasterWithSingleReplica
                | Self::DeadIntermediateMasterWithSingleReplicaFailingToConnect
                | Self::DeadIntermediateMasterAndReplicas
                | Self::DeadIntermediateMasterAndSomeReplicas
                | Self::AllIntermediateMasterReplicasFailingToConnectOrDead
                | Self::AllIntermediateMasterReplicasNotReplicating
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is unwise about how a server and its replicas are set up (`StructureAnalysis`): shown, never repaired.
/// Declared in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StructureCode {
    /// A primary that a recovery replaced takes writes beside the one that was promoted. First, as the loudest.
    TwoWriteablePrimariesStructureWarning,
    /// Servers replicate from a primary that a recovery replaced: nothing protects them when it dies.
    ReplacedPrimaryHasReplicasStructureWarning,
    NoLoggingReplicasStructureWarning,
    NoFailoverSupportStructureWarning,
    StatementAndMixedLoggingReplicasStructureWarning,
    StatementAndRowLoggingReplicasStructureWarning,
    MixedAndRowLoggingReplicasStructureWarning,
    MultipleMajorVersionsLoggingReplicasStructureWarning,
    DifferentGTIDModesStructureWarning,
    ErrantGTIDStructureWarning,
    NoWriteableMasterStructureWarning,
    NotEnoughValidSemiSyncReplicasStructureWarning,
    /// Our account lacks rights there.
    MissingPrivilegesStructureWarning,
    /// What our account may do there could not be read.
    UnknownPrivilegesStructureWarning,
    /// Not every daemon can see it, so that fewer can agree on its death.
    UnseenByDaemonsStructureWarning,
    /// The server refused statements of the probe, perhaps queries of the configuration.
    RefusedQueriesStructureWarning,
    /// Clients of the primary could go on writing when it is fenced.
    UnfenceableUsersStructureWarning,
}

impl StructureCode {
    /// Every code, in the order in which they are listed.
    pub const ALL: [Self; 17] = [
        Self::TwoWriteablePrimariesStructureWarning,
        Self::ReplacedPrimaryHasReplicasStructureWarning,
        Self::NoLoggingReplicasStructureWarning,
        Self::NoFailoverSupportStructureWarning,
        Self::StatementAndMixedLoggingReplicasStructureWarning,
        Self::StatementAndRowLoggingReplicasStructureWarning,
        Self::MixedAndRowLoggingReplicasStructureWarning,
        Self::MultipleMajorVersionsLoggingReplicasStructureWarning,
        Self::DifferentGTIDModesStructureWarning,
        Self::ErrantGTIDStructureWarning,
        Self::NoWriteableMasterStructureWarning,
        Self::NotEnoughValidSemiSyncReplicasStructureWarning,
        Self::MissingPrivilegesStructureWarning,
        Self::UnknownPrivilegesStructureWarning,
        Self::UnseenByDaemonsStructureWarning,
        Self::RefusedQueriesStructureWarning,
        Self::UnfenceableUsersStructureWarning,
    ];

    /// As the wire spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoWriteablePrimariesStructureWarning => "TwoWriteablePrimariesStructureWarning",
            Self::ReplacedPrimaryHasReplicasStructureWarning => {
                "ReplacedPrimaryHasReplicasStructureWarning"
            }
            Self::NoLoggingReplicasStructureWarning => "NoLoggingReplicasStructureWarning",
            Self::NoFailoverSupportStructureWarning => "NoFailoverSupportStructureWarning",
            Self::StatementAndMixedLoggingReplicasStructureWarning => {
                "StatementAndMixedLoggingReplicasStructureWarning"
            }
            Self::StatementAndRowLoggingReplicasStructureWarning => {
                "StatementAndRowLoggingReplicasStructureWarning"
            }
            Self::MixedAndRowLoggingReplicasStructureWarning => {
                "MixedAndRowLoggingReplicasStructureWarning"
            }
            Self::MultipleMajorVersionsLoggingReplicasStructureWarning => {
                "MultipleMajorVersionsLoggingReplicasStructureWarning"
            }
            Self::DifferentGTIDModesStructureWarning => "DifferentGTIDModesStructureWarning",
            Self::ErrantGTIDStructureWarning => "ErrantGTIDStructureWarning",
            Self::NoWriteableMasterStructureWarning => "NoWriteableMasterStructureWarning",
            Self::NotEnoughValidSemiSyncReplicasStructureWarning => {
                "NotEnoughValidSemiSyncReplicasStructureWarning"
            }
            Self::MissingPrivilegesStructureWarning => "MissingPrivilegesStructureWarning",
            Self::UnknownPrivilegesStructureWarning => "UnknownPrivilegesStructureWarning",
            Self::UnseenByDaemonsStructureWarning => "UnseenByDaemonsStructureWarning",
            Self::RefusedQueriesStructureWarning => "RefusedQueriesStructureWarning",
            Self::UnfenceableUsersStructureWarning => "UnfenceableUsersStructureWarning",
        }
    }

    /// The code of a wire name; none for text that names no code.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

impl fmt::Display for StructureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, format};

    #[test]
    fn names_are_the_variants_and_lead_back_to_them() {
        let mut names = BTreeSet::new();
        for code in Code::ALL {
            assert_eq!(code.name(), format!("{code:?}"));
            assert_eq!(Code::parse(code.name()), Some(code));
            assert!(names.insert(code.name()), "{code} is listed twice");
        }
        assert_eq!(names.len(), Code::ALL.len());
        for code in StructureCode::ALL {
            assert_eq!(code.name(), format!("{code:?}"));
            assert_eq!(StructureCode::parse(code.name()), Some(code));
        }
        assert_eq!(Code::parse("deadmaster"), None);
    }

    #[test]
    fn whatever_is_repaired_is_detected_first_and_described() {
        for code in Code::ALL {
            let facts = code.facts();
            assert_eq!(
                facts.registers_detection,
                facts.repair != Repair::Ignored,
                "{code}"
            );
            assert_eq!(
                facts.description.is_empty(),
                code == Code::NoProblem,
                "{code}"
            );
        }
    }

    #[test]
    fn our_own_restart_of_replication_excuses_only_what_it_can_cause() {
        for code in Code::ALL {
            let excused = matches!(
                code,
                Code::DeadMaster | Code::DeadMasterAndSomeReplicas | Code::LockedSemiSyncMaster
            );
            let repair = code.facts().repair;
            assert_eq!(repair.in_grace() != repair, excused, "{code}");
        }
    }
}
