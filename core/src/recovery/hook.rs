//! Hooks: commands of the operators' own that run around a recovery, as steps of its record.
//!
//! Decided here: which hook comes next. One runs at a time, in the order of its list; a list may be one whose failure
//! ends the recovery, or one that is run to its end whatever fails. What a hook is, only the leading daemon's file
//! says: the record names the list and the place in it.
//!
//! A hook cannot be looked at again. One that was intended by a leader that ended may have run, or not: it is run once
//! more, under the same idempotency key, which the hook finds in its environment.

use alloc::{format, string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use super::document::{Outcome, Phase, Recovery, StepKind};
use super::statement::Statement;
use crate::id::{Epoch, InstanceKey};

/// The lists of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookList {
    OnFailureDetection,
    PreGracefulTakeover,
    PreFailover,
    PostFailover,
    PostUnsuccessfulFailover,
    PostPrimaryFailover,
    PostIntermediateFailover,
    PostGracefulTakeover,
    PostTakePrimary,
}

impl HookList {
    pub const ALL: [Self; 9] = [
        Self::OnFailureDetection,
        Self::PreGracefulTakeover,
        Self::PreFailover,
        Self::PostFailover,
        Self::PostUnsuccessfulFailover,
        Self::PostPrimaryFailover,
        Self::PostIntermediateFailover,
        Self::PostGracefulTakeover,
        Self::PostTakePrimary,
    ];

    /// The key of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnFailureDetection => "OnFailureDetectionProcesses",
            Self::PreGracefulTakeover => "PreGracefulTakeoverProcesses",
            Self::PreFailover => "PreFailoverProcesses",
            Self::PostFailover => "PostFailoverProcesses",
            Self::PostUnsuccessfulFailover => "PostUnsuccessfulFailoverProcesses",
            Self::PostPrimaryFailover => "PostMasterFailoverProcesses",
            Self::PostIntermediateFailover => "PostIntermediateMasterFailoverProcesses",
            Self::PostGracefulTakeover => "PostGracefulTakeoverProcesses",
            Self::PostTakePrimary => "PostTakeMasterProcesses",
        }
    }

    /// A failure ends what the list comes before; the hooks after it are not run.
    #[must_use]
    pub const fn is_a_gate(self) -> bool {
        match self {
            Self::OnFailureDetection | Self::PreGracefulTakeover | Self::PreFailover => true,
            Self::PostFailover
            | Self::PostUnsuccessfulFailover
            | Self::PostPrimaryFailover
            | Self::PostIntermediateFailover
            | Self::PostGracefulTakeover
            | Self::PostTakePrimary => false,
        }
    }
}

/// One command of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hook {
    pub list: HookList,
    /// From 0.
    pub place: u32,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list.name(), self.place)
    }
}

/// How many hooks each list of this daemon's file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookCounts([u32; HookList::ALL.len()]);

impl HookCounts {
    #[must_use]
    pub fn of(count: impl Fn(HookList) -> usize) -> Self {
        Self(HookList::ALL.map(|list| u32::try_from(count(list)).unwrap_or(u32::MAX)))
    }

    #[must_use]
    pub const fn get(&self, list: HookList) -> u32 {
        self.0[list as usize]
    }
}

/// Why a hook did not end well.
#[must_use]
pub fn failure_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Done => None,
        Outcome::Refused { code, reason } => Some(format!("failed ({code}): {reason}")),
        Outcome::Unknown { reason } => Some(reason.clone()),
    }
}

/// What comes next of some lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// One is running.
    Wait,
    /// To be intended.
    Run(Hook),
    /// A gate failed, for this reason.
    Failed(String),
    /// All have run.
    Finished,
}

/// Intents of one hook, at most: the one that its leader may not have lived to see the end of, or under which it was not
/// begun, and another.
const TRIES: usize = 2;

/// Refused by the daemon itself: it was not sure to lead, or the program could not be started.
const NOT_RUN: u16 = 0;

/// The next hook of these lists, in this order, by what the record says.
#[must_use]
pub fn next(recovery: &Recovery, lists: &[HookList], counts: &HookCounts, mine: Epoch) -> Next {
    for list in lists {
        for place in 0..counts.get(*list) {
            let hook = Hook { list: *list, place };
            let mut tries = 0;
            let mut last = None;
            for (step, phase) in recovery.steps_of(StepKind::Hook) {
                if step.statements.first() == Some(&Statement::RunHook { hook }) {
                    tries += 1;
                    last = Some(phase);
                }
            }
            let failure = match last {
                None => return Next::Run(hook),
                Some(Phase::Intended(epoch)) if *epoch == mine => return Next::Wait,
                Some(
                    Phase::Intended(_) | Phase::Settled(Outcome::Refused { code: NOT_RUN, .. }),
                ) if tries < TRIES => return Next::Run(hook),
                Some(Phase::Settled(Outcome::Done)) => continue,
                Some(Phase::Intended(_)) => {
                    format!("{hook}: the leaders that ran it ended before it did")
                }
                Some(Phase::Settled(Outcome::Refused { code, reason })) => {
                    format!("{hook} failed ({code}): {reason}")
                }
                Some(Phase::Settled(Outcome::Unknown { reason })) => format!("{hook}: {reason}"),
            };
            if list.is_a_gate() {
                return Next::Failed(failure);
            }
        }
    }
    Next::Finished
}

/// What a hook is told, in its environment and in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFacts {
    /// The same for each run of one hook of one recovery or detection, and for no other.
    pub idempotency_key: String,
    /// The analysis code.
    pub failure_type: String,
    pub description: String,
    pub instance_type: &'static str,
    /// `force-master-failover` and the like; empty for what the program does by itself.
    pub command: String,
    pub failed: InstanceKey,
    pub cluster_name: String,
    pub cluster_alias: String,
    pub cluster_domain: String,
    /// At detection.
    pub replicas: Vec<InstanceKey>,
    pub is_downtimed: bool,
    pub recovers_primary: bool,
    pub recovers_intermediate: bool,
    /// The daemon that runs the hook.
    pub orchestrator_host: String,
    /// Empty for a detection.
    pub uid: String,
    pub is_successful: bool,
    pub lost: Vec<InstanceKey>,
    pub successor: Option<Successor>,
}

/// Who took the failed server's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    pub key: InstanceKey,
    pub alias: String,
    /// `file:position` of its own log, where it is known.
    pub coordinates: Option<String>,
}
