//! Hooks: commands of the operators' own that run around a recovery, as steps of its record.
//!
//! Decided here: which hook comes next. One runs at a time, in the order of its list; a list may be one whose failure
//! ends the recovery, or one that is run to its end whatever fails. What a hook is, only the leading daemon's file
//! says: the record names the list and the place in it.
//!
//! A hook cannot be looked at again. One that was intended by a leader that ended may have run, or not: it is run once
//! more, under the same idempotency key, which the hook finds in its environment.
//!
//! The hooks of a detection come before there is a recovery with steps. Their record is a [`Telling`] of the detection,
//! under the same rules.

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
const TRIES: u32 = 2;

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
            let failure = match last.map(|last| stands(hook, last, tries, mine)) {
                None => return Next::Run(hook),
                Some(Stands::Done) => continue,
                Some(Stands::Next(next)) => return next,
                Some(Stands::Failed(why)) => why,
            };
            if list.is_a_gate() {
                return Next::Failed(failure);
            }
        }
    }
    Next::Finished
}

/// What the newest intent of a hook means for what comes next.
enum Stands {
    Done,
    /// It runs, or is to be run again.
    Next(Next),
    Failed(String),
}

fn stands(hook: Hook, last: &Phase, tries: u32, mine: Epoch) -> Stands {
    match last {
        Phase::Intended(epoch) if *epoch == mine => Stands::Next(Next::Wait),
        Phase::Intended(_) | Phase::Settled(Outcome::Refused { code: NOT_RUN, .. })
            if tries < TRIES =>
        {
            Stands::Next(Next::Run(hook))
        }
        Phase::Settled(Outcome::Done) => Stands::Done,
        Phase::Intended(_) => Stands::Failed(format!(
            "{hook}: the leaders that ran it ended before it did"
        )),
        Phase::Settled(Outcome::Refused { code, reason }) => {
            Stands::Failed(format!("{hook} failed ({code}): {reason}"))
        }
        Phase::Settled(Outcome::Unknown { reason }) => Stands::Failed(format!("{hook}: {reason}")),
    }
}

/// Where the hooks of a detection stand, on record from its registration until all have run: the newest that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// In `OnFailureDetectionProcesses`.
    pub place: u32,
    /// How many runs of these hooks were begun, this one included. It names this run: what is said of an earlier one, or
    /// decided without knowing of it, is void.
    pub run: u32,
    /// How often it was begun since it last came to an end of its own.
    pub tries: u32,
    pub phase: Phase,
}

impl Telling {
    /// The first hook is begun under this epoch.
    #[must_use]
    pub const fn begun(epoch: Epoch) -> Self {
        Self {
            place: 0,
            run: 1,
            tries: 1,
            phase: Phase::Intended(epoch),
        }
    }

    #[must_use]
    pub const fn hook(&self) -> Hook {
        Hook {
            list: HookList::OnFailureDetection,
            place: self.place,
        }
    }

    /// The hook at this place is begun: the same again, or another.
    pub fn begin(&mut self, place: u32, epoch: Epoch) {
        let has_not_run = matches!(
            self.phase,
            Phase::Intended(_) | Phase::Settled(Outcome::Refused { code: NOT_RUN, .. })
        );
        *self = Self {
            place,
            run: self.run.saturating_add(1),
            tries: if place == self.place && has_not_run {
                self.tries.saturating_add(1)
            } else {
                1
            },
            phase: Phase::Intended(epoch),
        };
    }

    /// Whether [`next`](Self::next) is to wait, or to leave a hook that failed as it is.
    #[must_use]
    pub fn rests(&self, count: u32, mine: Epoch) -> bool {
        let has_failed = match &self.phase {
            Phase::Intended(epoch) if *epoch == mine => return true,
            Phase::Intended(_) | Phase::Settled(Outcome::Refused { code: NOT_RUN, .. }) => {
                self.tries >= TRIES
            }
            Phase::Settled(outcome) => *outcome != Outcome::Done,
        };
        has_failed && self.place < count
    }

    /// The next hook, where the list has so many.
    #[must_use]
    pub fn next(&self, count: u32, mine: Epoch) -> Next {
        match stands(self.hook(), &self.phase, self.tries, mine) {
            Stands::Next(Next::Wait) => Next::Wait,
            // The list became shorter.
            Stands::Next(_) | Stands::Failed(_) if self.place >= count => Next::Finished,
            Stands::Next(next) => next,
            Stands::Failed(why) => Next::Failed(why),
            Stands::Done => match self.place.checked_add(1) {
                Some(place) if place < count => Next::Run(Hook {
                    place,
                    ..self.hook()
                }),
                Some(_) | None => Next::Finished,
            },
        }
    }
}

/// What a hook is told, in its environment and in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFacts {
    /// The same for each run of one hook of one recovery or detection, and for no other.
    pub idempotency_key: String,
    /// Under which the hook is run: of two runs the one of the lower term is the older.
    pub epoch: Epoch,
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
