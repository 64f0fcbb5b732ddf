//! A recovery as a replicated document: everything the next leader needs to go on, and everything the audit shows.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, time::Duration};
use serde::{Deserialize, Serialize};

use super::statement::{Lane, Statement};
use crate::{
    id::{ClusterKey, Epoch, Identity, InstanceKey, StepId, Uid},
    time::Wall,
};

/// How a primary was found dead (`FAILOVER.md` section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeadKind {
    Gone,
    Silent,
}

/// Why something is done to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Promote a replica in place of a dead primary.
    DeadPrimary {
        kind: DeadKind,
    },
    /// Close a deposed primary that is back.
    Quarantine {
        deposed_by: Uid,
    },
    /// A primary came back read-only from a restart within patience: make it writable again.
    Reopen,
    /// An operator's one-step operation.
    SetReadOnly,
    SetWriteable,
    /// A replica that was lost when its cluster was regrouped answers again: point it at the primary. Or one that an undone
    /// recovery left halted: it names that primary, and is to receive from it again.
    Rejoin {
        primary: InstanceKey,
    },
}

impl fmt::Display for DeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "gone",
            Self::Silent => "silent",
        })
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeadPrimary { kind } => write!(f, "recovery (primary {kind})"),
            Self::Quarantine { .. } => f.write_str("quarantine"),
            Self::Reopen => f.write_str("reopening"),
            Self::SetReadOnly => f.write_str("set-read-only"),
            Self::SetWriteable => f.write_str("set-writeable"),
            Self::Rejoin { primary } => write!(f, "rejoining to {primary}"),
        }
    }
}

impl Purpose {
    /// A recovery in the sense of the audit; the others are operations.
    #[must_use]
    pub const fn is_recovery(&self) -> bool {
        matches!(self, Self::DeadPrimary { .. })
    }
}

/// Where a recovery stands. A stage is committed with its steps before any of them runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Stage {
    /// Committed, nothing done.
    #[default]
    Begun,
    FenceAndHalt,
    Drain,
    /// The point of no return.
    Promote,
    Regroup,
    Tidy,
    /// Putting things back as they were.
    Undo,
    /// One-step operations.
    Operate,
    /// The recovery has ended, and may have hooks to run.
    Ended,
    /// Hooks that come before anything is changed.
    PreHooks,
    /// Hooks of a recovery that has ended.
    PostHooks,
    /// Nothing is left to do for it.
    Closed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "begun",
            Self::FenceAndHalt => "fence-and-halt",
            Self::Drain => "drain",
            Self::Promote => "promote",
            Self::Regroup => "regroup",
            Self::Tidy => "tidy",
            Self::Undo => "undo",
            Self::Operate => "operate",
            Self::Ended => "ended",
            Self::PreHooks => "pre-hooks",
            Self::PostHooks => "post-hooks",
            Self::Closed => "closed",
        })
    }
}

/// What a step is for: names its precondition, its `done_when` and whether it may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepKind {
    /// Read-only on the old primary. Repeatable.
    Fence,
    /// Kill the old primary's clients. Repeatable.
    KillClients,
    /// Stop receiving, keep applying. Repeatable.
    Halt,
    /// Start the applier of the chosen one. Repeatable.
    Drain,
    /// Reset and open the chosen one. Looked at again before it is repeated.
    Promote,
    /// Make the promoted server forget that it was a replica. Repeatable; nobody waits for it: on MySQL a half received
    /// transaction holds it up for a minute.
    Reset,
    /// Point a sibling at the promoted server. Looked at again before it is repeated.
    Repoint,
    /// Start receiving again where it was stopped. Repeatable.
    Resume,
    /// Make the returned primary writable again. Repeatable.
    Reopen,
    /// An operator's.
    Operate,
    /// A command of the operators' own. It cannot be looked at: repeated only if its leader ended.
    Hook,
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// Proven not to have happened: not sent, or the server said no (error number, 0 for ours, and text).
    Refused {
        code: u16,
        reason: String,
    },
    /// Sent, and no answer: only looking again tells.
    Unknown {
        reason: String,
    },
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Committed under this epoch; the effect may be out.
    Intended(Epoch),
    Settled(Outcome),
}

/// Statements for one server, run in order over one lane until one fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    pub kind: StepKind,
    pub server: InstanceKey,
    /// The server that must answer there; none if it was never identified.
    pub identity: Option<Identity>,
    pub lane: Lane,
    pub statements: Vec<Statement>,
    /// From sending the first statement.
    pub deadline: Duration,
    /// The server is read again afterwards, on the same connection, and the reading comes back with the outcome.
    pub read_after: bool,
}

impl Step {
    /// Whether it may be judged by what a server of this identity shows.
    #[must_use]
    pub fn is_meant_for(&self, identity: &Identity) -> bool {
        self.identity.as_ref().is_none_or(|meant| meant == identity)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: ", self.id, self.server)?;
        if self.statements.is_empty() {
            f.write_str("read again, nothing to change")?;
        }
        for (n, statement) in self.statements.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{statement}")?;
        }
        Ok(())
    }
}

/// A line of the recovery's audit (`topology_recovery_steps`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    pub at: Wall,
    pub message: String,
}

/// How a recovery ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// A successor is writable (or promoted without `apply_promotion`); for operations: done.
    Succeeded,
    /// The primary came back and was made writable again.
    Undone { reason: String },
    /// Nothing was promoted; what was changed has been put back where it could be.
    Failed { reason: String },
}

/// Acknowledgement by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub at: Wall,
    pub by: String,
    pub comment: String,
}

/// One recovery or operation on one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub uid: Uid,
    /// `Id` of the API: counted by apply.
    pub number: u64,
    pub purpose: Purpose,
    pub cluster: ClusterKey,
    /// As it was named when this began.
    pub cluster_name: String,
    pub cluster_alias: String,
    /// The server it is about: the dead primary, or the operation's server.
    pub server: InstanceKey,
    pub identity: Option<Identity>,
    /// Analysis code at detection.
    pub analysis: String,
    /// Its replicas at detection.
    pub replicas: Vec<InstanceKey>,
    /// Who may act for it.
    pub owner: Epoch,
    /// Host name and process token of the daemon that began it, for the API.
    pub processing_node: String,
    pub processing_token: String,
    pub began: Wall,
    pub stage: Stage,
    pub steps: BTreeMap<StepId, (Step, Phase)>,
    pub candidate: Option<InstanceKey>,
    pub successor: Option<InstanceKey>,
    pub successor_alias: String,
    /// Replicas that could not follow.
    pub lost: Vec<InstanceKey>,
    pub participants: Vec<InstanceKey>,
    /// What may have been lost, in words; empty when it is known that nothing was.
    pub possible_loss: Vec<String>,
    pub errors: Vec<String>,
    pub lines: Vec<AuditLine>,
    pub end: Option<(Wall, End)>,
    pub acknowledged: Option<Acknowledgement>,
    /// Detection that led here; 0 for none.
    pub detection: u64,
    /// The primary was read-only before it failed, and stays so if it returns in time.
    pub was_read_only: bool,
    /// What it will have come to when what was begun is undone.
    pub ending: Option<End>,
}

impl Recovery {
    /// Whether it is about this server, or did or does something there.
    #[must_use]
    pub fn involves(&self, key: &InstanceKey) -> bool {
        self.server == *key
            || self.candidate.as_ref() == Some(key)
            || self.replicas.contains(key)
            || self.steps.values().any(|(step, _)| step.server == *key)
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    #[must_use]
    pub fn is_successful(&self) -> bool {
        matches!(self.end, Some((_, End::Succeeded)))
    }

    /// What went wrong in it, and why it failed if it did.
    #[must_use]
    pub fn all_errors(&self) -> Vec<String> {
        let mut all = self.errors.clone();
        if let Some((_, End::Failed { reason })) = &self.end
            && !all.contains(reason)
        {
            all.push(reason.clone());
        }
        all
    }

    /// It has ended, and its hooks have not all run.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.purpose.is_recovery()
            && self.end.is_some()
            && matches!(self.stage, Stage::Ended | Stage::PostHooks)
    }

    /// Something was, or may have been, changed on a server.
    #[must_use]
    pub fn has_acted(&self) -> bool {
        self.steps
            .values()
            .any(|(step, _)| step.kind != StepKind::Hook)
    }

    /// It closed the failed primary, or does not know that it did not: with a step, or with the statements that were left in
    /// the connections of a silent one when the promotion began.
    #[must_use]
    pub fn may_have_closed(&self) -> bool {
        let is_silent = matches!(
            self.purpose,
            Purpose::DeadPrimary {
                kind: DeadKind::Silent
            }
        );
        is_silent && self.is_past_return()
            || self
                .steps_of(StepKind::Fence)
                .any(|(_, phase)| !matches!(phase, Phase::Settled(Outcome::Refused { .. })))
    }

    /// The promote intent is committed: there is no way back.
    #[must_use]
    pub fn is_past_return(&self) -> bool {
        self.steps
            .values()
            .any(|(step, _)| step.kind == StepKind::Promote)
    }

    /// The server that a failover has opened, however long its replicas are waited for: the cluster's primary from then on.
    #[must_use]
    pub fn opened(&self) -> Option<&InstanceKey> {
        let (step, _) = self
            .steps_of(StepKind::Promote)
            .find(|(_, phase)| matches!(phase, Phase::Settled(Outcome::Done)))?;
        matches!(self.purpose, Purpose::DeadPrimary { .. }).then_some(&step.server)
    }

    pub fn steps_of(&self, kind: StepKind) -> impl Iterator<Item = (&Step, &Phase)> {
        self.steps
            .values()
            .filter(move |(step, _)| step.kind == kind)
            .map(|(step, phase)| (step, phase))
    }

    #[must_use]
    pub fn next_step_id(&self) -> StepId {
        StepId(self.steps.last_key_value().map_or(0, |(id, _)| id.0) + 1)
    }
}
