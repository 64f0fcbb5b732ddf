//! What comes next when a primary is dead (`FAILOVER.md` sections 2 to 4): one stage at a time, from the record and a
//! fresh view, so that any leader can go on where another stopped.
//!
//! *Fence and halt, choose, drain, promote, regroup, tidy.* Nothing is decided from memory: a step of another epoch,
//! or one whose outcome is unknown, is looked at again. Before the promote intent a returned primary undoes it all.
//! MariaDB's relay logs are never purged: threads are started and stopped in the one safe order (F1, F2).

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::time::Duration;

use super::{
    audit,
    candidate::{
        Choice, Contender, Failed, cannot_apply, choose, lacks_purged, missing_of, unapplied,
        without_errant, without_gtid,
    },
    document::{DeadKind, End, Outcome, Phase, Purpose, Recovery, Stage, Step, StepKind},
    hook::{self, Hook, HookCounts, HookList},
    statement::{Lane, SourcePosition, Statement},
};
use crate::{
    gtid::GtidSet,
    id::{Epoch, Identity, InstanceKey, StepId},
    policy::{DeposedAction, Policy},
    time::{Mono, Now},
    topology::{Flavour, ProbeReport, PromotionRule, ReplicaStatus, ThreadState},
};

/// The fence on an old primary that answers: nothing waits for it longer.
const FENCE_DEADLINE: Duration = Duration::from_millis(300);
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const PROMOTE_DEADLINE: Duration = Duration::from_secs(10);
/// The returned primary answered just now.
const REOPEN_DEADLINE: Duration = Duration::from_secs(3);
const REPOINT_DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the minute for which a half received transaction holds up the end of an applier.
const RESET_DEADLINE: Duration = Duration::from_secs(75);
/// The recovery ends without it after this time, so that a failure of the promoted server is not kept waiting.
const RESET_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a server that is to make progress.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A candidate that applied nothing for this long is left for the next holder of the same.
const DRAIN_STALL: Duration = Duration::from_secs(10);
/// How fresh the last failed dial of a *gone* primary must be when the promotion is intended.
const LAST_DIAL_MAX: Duration = Duration::from_millis(250);
/// Replicas that could not be reached are waited for so long before the recovery ends without them.
const REGROUP_PATIENCE: Duration = Duration::from_secs(20);
/// A receiver that runs and does not say which file of its source's log it reads is believed to have arrived there after
/// this time. See [`follows`].
const SILENT_CONNECTION_SETTLES: Duration = Duration::from_secs(5);
/// A server that could not be read for so long counts as not answering. Nobody waits for a promoted one that does not, so
/// that its own failure is not kept waiting.
const UNREAD_MAX: Duration = Duration::from_secs(2);
/// Hooks that come after a promotion wait for so long for the replicas to be pointed at the promoted server, since they are
/// told which were lost; no longer, and not until those are seen to follow, since clients are waiting for them.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(1);
/// No hook of any configuration may run longer.
const HOOK_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Of each of the other steps of a recovery.
const STEP_TRIES: usize = 3;
/// There is no way back from a promotion, so it is tried for so long: what refuses it may be a login that is refused for a moment.
const PROMOTE_PATIENCE: Duration = Duration::from_secs(20);
/// MySQL's STOP REPLICA IO_THREAD takes up to 2.05 s while the receiver dials a host that is dark (F16).
const HALT_STEP_DEADLINE_MIN: Duration = Duration::from_secs(3);
/// Members of the cluster that were not its replicas are read again when a recovery begins: one may have been attached a moment
/// ago. Nobody waits for them longer.
const MEMBERS_PATIENCE: Duration = Duration::from_millis(250);
/// Where all halts take longer than the halt deadline, the others are waited for so long when the first has ended: they end at
/// about the same time, and any of them may hold more.
const HALT_TOGETHER: Duration = Duration::from_millis(250);
/// On one server, those before the promotion included.
const HALT_TRIES: usize = 8;
const FENCE_TRIES: usize = 10;
/// Between two attempts to point a replica at the promoted server.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// One server as it is known at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    pub report: &'a ProbeReport,
    /// When it was read.
    pub seen: Mono,
}

/// What the planner looks at.
pub trait View {
    fn now(&self) -> Now;
    fn policy(&self) -> &Policy;
    /// The newest facts, however old.
    fn reading(&self, key: &InstanceKey) -> Option<Reading<'_>>;
    /// When a probe last ended there, well or not.
    fn checked(&self, key: &InstanceKey) -> Option<Mono>;
    /// Servers that replicate from this one, by what they say, and recorded members of its cluster that were never read.
    fn replicas_of(&self, key: &InstanceKey) -> Vec<InstanceKey>;
    /// Recorded members of its cluster that answered when they were dialled last, whomever they followed then.
    fn members_of(&self, key: &InstanceKey) -> Vec<InstanceKey>;
    fn rule(&self, key: &InstanceKey) -> PromotionRule;
    fn is_ignored_for_promotion(&self, key: &InstanceKey) -> bool;
    /// It is recorded as a primary and names the source that it replaced, which the recovery could not remove.
    fn names_whom_it_replaced(&self, key: &InstanceKey) -> bool;
    /// In a downtime that people began.
    fn is_downtimed(&self, key: &InstanceKey) -> bool;
    /// The failed primary gave a sign of life after it was judged dead, to any daemon.
    fn has_returned(&self) -> bool;
    /// The newest dial of the failed primary that brought nothing, by this daemon.
    fn last_failed_dial(&self) -> Option<Mono>;
    /// How many hooks this daemon's file has.
    fn hooks(&self) -> &HookCounts;
    /// Where the hooks of the detection that led here stand.
    fn detection_hooks(&self) -> hook::Next;
}

/// What this leader remembers of a recovery beside the record: times, which are its own. Lost with the leadership;
/// nothing in it is needed to be right, only to be quick.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// When this leader began to act for it.
    pub began: Mono,
    pub stage: Stage,
    pub stage_since: Mono,
    /// When the outcomes of steps arrived here.
    pub ended_at: BTreeMap<StepId, Mono>,
    drained_to: Option<GtidSet>,
    drained_at: Mono,
    /// What the candidate had to apply when it was first looked at for its drain, and when that was.
    drained_from: Option<(InstanceKey, u64, Mono)>,
    /// Candidates given up, and why.
    pub passed_over: BTreeMap<InstanceKey, String>,
    /// Replicas that were seen to follow the promoted server. What becomes of them afterwards is not for this recovery.
    followed: BTreeSet<InstanceKey>,
    said: BTreeSet<String>,
}

impl Progress {
    #[must_use]
    pub fn new(began: Mono) -> Self {
        Self {
            began,
            stage_since: began,
            drained_at: began,
            ..Self::default()
        }
    }

    /// True the first time.
    pub fn say_once(&mut self, text: &str) -> bool {
        self.said.insert(text.to_string())
    }
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Nothing before something happens, or this time.
    Wait { until: Mono },
    /// Read these again, and think again at this time at the latest.
    Look { keys: Vec<InstanceKey>, until: Mono },
    Intend {
        stage: Stage,
        candidate: Option<InstanceKey>,
        steps: Vec<Step>,
        lines: Vec<String>,
    },
    /// What was begun is to be undone; how it ends when these steps are.
    Undo {
        ending: End,
        steps: Vec<Step>,
        lines: Vec<String>,
    },
    /// Something for the record alone.
    Remark {
        lines: Vec<String>,
        errors: Vec<String>,
        possible_loss: Vec<String>,
    },
    End {
        end: End,
        successor: Option<InstanceKey>,
        lost: Vec<InstanceKey>,
        participants: Vec<InstanceKey>,
        lines: Vec<String>,
    },
}

/// Where a step stands, in the eyes of the leader that must go on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Pending,
    Done,
    NotDone(String),
    /// Only a reading after this time tells.
    LookAfter(Mono),
}

/// Plans the next move. Pure but for `progress`, which holds this leader's own times.
#[must_use]
pub fn next(recovery: &Recovery, view: &impl View, progress: &mut Progress, mine: Epoch) -> Move {
    let now = view.now().mono;
    if progress.stage != recovery.stage {
        progress.stage = recovery.stage;
        progress.stage_since = now;
        progress.drained_to = None;
        progress.drained_from = None;
        progress.drained_at = now;
    }
    let plan = Plan {
        recovery,
        view,
        mine,
        now,
    };
    let mut next = plan.next(progress);
    if let Move::End { lines, .. } = &mut next {
        lines.extend(plan.left_open(progress));
    }
    next
}

/// The replicas of a running recovery that are known not to follow the promoted server, for hooks that do not wait for its
/// end.
#[must_use]
pub fn left_behind(
    recovery: &Recovery,
    view: &impl View,
    progress: &Progress,
    mine: Epoch,
) -> Vec<InstanceKey> {
    if !recovery.is_past_return() {
        return Vec::new();
    }
    let plan = Plan {
        recovery,
        view,
        mine,
        now: view.now().mono,
    };
    plan.left_behind(progress)
}

struct Plan<'a, V: View> {
    recovery: &'a Recovery,
    view: &'a V,
    mine: Epoch,
    now: Mono,
}

impl<V: View> Plan<'_, V> {
    fn next(&self, progress: &mut Progress) -> Move {
        let stage = self.recovery.stage;
        if !self.recovery.is_past_return() && stage != Stage::Undo && self.view.has_returned() {
            // What it does, the hooks after an end may undo: it ends first, within its own deadline.
            if stage == Stage::PreHooks && matches!(self.next_hook_before(), hook::Next::Wait) {
                return Move::Wait {
                    until: self.now + HOOK_DEADLINE,
                };
            }
            return self.fence_returned_early(progress).unwrap_or_else(|| {
                self.undo(
                    End::Undone {
                        reason: String::from("the primary answered before the promotion"),
                    },
                    progress,
                )
            });
        }
        match stage {
            Stage::Begun | Stage::PreHooks => self.pre_hooks(),
            Stage::FenceAndHalt => self.after_halt(progress),
            Stage::Drain => self.drain(progress),
            Stage::Promote => self.promote(progress),
            Stage::Regroup | Stage::Tidy => self.regroup(progress),
            Stage::Undo => self.after_undo(progress),
            Stage::Operate | Stage::Ended | Stage::PostHooks | Stage::Closed => Move::Wait {
                until: self.now + Duration::from_secs(60),
            },
        }
    }

    /// Of each step that has no known outcome: what its server shows.
    fn left_open(&self, progress: &Progress) -> Vec<String> {
        let open = self
            .recovery
            .steps
            .values()
            .filter(|(step, phase)| step.kind != StepKind::Hook && !is_known(phase));
        open.map(|(step, phase)| {
            audit::seen_line(
                step,
                &match self.state(step, phase, progress) {
                    // Its look says done whatever the server shows: clients come and go.
                    State::Done if step.kind == StepKind::KillClients => {
                        String::from("whom it disconnected cannot be looked at")
                    }
                    State::Pending => String::from("it has not ended"),
                    State::Done => String::from("looked at again: done"),
                    State::NotDone(why) => self.done_later(step, progress).unwrap_or(why),
                    State::LookAfter(_) => self
                        .done_later(step, progress)
                        .unwrap_or_else(|| String::from("it was not looked at again")),
                },
            )
        })
        .collect()
    }

    /// The later step that did on that server what this one was to do: its next attempt, or, of a halt, what undid it or pointed
    /// the halted replica elsewhere, which makes it receive again, so that it looks as if it had never been halted.
    fn done_later(&self, step: &Step, progress: &Progress) -> Option<String> {
        let mut later = self.recovery.steps.values().filter(|(other, _)| {
            let follows_a_halt = step.kind == StepKind::Halt
                && matches!(other.kind, StepKind::Repoint | StepKind::Resume);
            other.id > step.id
                && other.server == step.server
                && (other.kind == step.kind || follows_a_halt)
        });
        later
            .find(|(other, phase)| self.state(other, phase, progress) == State::Done)
            .map(|(other, _)| format!("{} was done there later", other.id))
    }

    fn failed(&self) -> &InstanceKey {
        &self.recovery.server
    }

    /// The failed primary's replicas: as detected, whatever else says it replicates from there, and what was pointed elsewhere
    /// since, which does not say so any more.
    fn siblings(&self) -> Vec<InstanceKey> {
        let mut all: BTreeSet<InstanceKey> = self.recovery.replicas.iter().cloned().collect();
        all.extend(self.view.replicas_of(self.failed()));
        let repointed = self.recovery.steps_of(StepKind::Repoint);
        all.extend(repointed.map(|(step, _)| step.server.clone()));
        all.remove(self.failed());
        all.into_iter().collect()
    }

    fn step(
        &self,
        offset: u64,
        kind: StepKind,
        server: &InstanceKey,
        lane: Lane,
        statements: Vec<Statement>,
        deadline: Duration,
    ) -> Step {
        Step {
            id: StepId(self.recovery.next_step_id().0 + offset),
            kind,
            server: server.clone(),
            identity: self.identity_of(server),
            lane,
            statements,
            deadline,
            read_after: true,
        }
    }

    /// Who must answer there. At the failed primary's address that is the one that failed, whoever else may answer.
    fn identity_of(&self, server: &InstanceKey) -> Option<Identity> {
        let known = || {
            self.view
                .reading(server)
                .map(|reading| reading.report.identity.clone())
        };
        if server == self.failed() {
            self.recovery.identity.clone().or_else(known)
        } else {
            known()
        }
    }

    /// How often this was intended on that server.
    fn tries(&self, kind: StepKind, server: &InstanceKey) -> usize {
        self.recovery
            .steps_of(kind)
            .filter(|(step, _)| step.server == *server)
            .count()
    }

    /// How often it was pointed at the promoted server since it was halted last: one that was not halted any more is pointed anew.
    fn tries_since_halt(&self, server: &InstanceKey) -> usize {
        let of = |kind| {
            let steps = self.recovery.steps_of(kind);
            steps.filter(|(step, _)| step.server == *server)
        };
        let halted = of(StepKind::Halt).last().map(|(step, _)| step.id);
        let pointed = of(StepKind::Repoint);
        pointed.filter(|(step, _)| Some(step.id) > halted).count()
    }

    // --- hooks ---

    fn next_hook_before(&self) -> hook::Next {
        let lists = [HookList::PreFailover];
        hook::next(self.recovery, &lists, self.view.hooks(), self.mine)
    }

    /// Hooks come before anything is changed; whether the primary is still dead is looked at after each.
    fn pre_hooks(&self) -> Move {
        let wait = Move::Wait {
            until: self.now + HOOK_DEADLINE,
        };
        match self.view.detection_hooks() {
            hook::Next::Wait => return wait,
            hook::Next::Failed(why) => return not_attempted(&why),
            hook::Next::Run(_) | hook::Next::Finished => {}
        }
        match self.next_hook_before() {
            hook::Next::Wait => wait,
            hook::Next::Failed(why) => not_attempted(&why),
            hook::Next::Run(hook) => Move::Intend {
                stage: Stage::PreHooks,
                candidate: None,
                steps: vec![hook_step(self.recovery, hook)],
                lines: vec![format!("running hook {hook}")],
            },
            hook::Next::Finished => self.fence_and_halt(),
        }
    }

    // --- fence and halt ---

    fn semi_sync_refusal(&self) -> Option<String> {
        let report = |key| self.view.reading(key).map(|reading| reading.report);
        let siblings = self.siblings();
        let replicas = siblings.iter().filter_map(|key| Some((key, report(key)?)));
        semi_sync_refusal((self.failed(), report(self.failed())), replicas)
    }

    fn fence_and_halt(&self) -> Move {
        if let Some(reason) = self.semi_sync_refusal() {
            return Move::End {
                end: End::Failed { reason },
                successor: None,
                lost: Vec::new(),
                participants: Vec::new(),
                lines: Vec::new(),
            };
        }
        let siblings = self.siblings();
        let refusals: Vec<String> = siblings
            .iter()
            .filter(|key| self.is_without_gtid(key) && !self.is_unread(key))
            .map(without_gtid)
            .collect();
        // The choice would refuse, and a halt is a change.
        if !refusals.is_empty() {
            return Move::End {
                end: End::Failed {
                    reason: refusals.join("; "),
                },
                successor: None,
                lost: Vec::new(),
                participants: Vec::new(),
                lines: vec![String::from("nothing had been changed")],
            };
        }
        let mut lines = Vec::new();
        let mut steps = Vec::new();
        lines.push(match self.recovery.purpose {
            Purpose::DeadPrimary { kind: DeadKind::Silent } => format!(
                "{} does not answer and cannot be fenced before the promotion is decided; each daemon leaves a fence in its \
                 connection there then",
                self.failed()
            ),
            _ => format!("{} refuses connections: nothing to fence; it is dialled without pause from here on", self.failed()),
        });
        if self.recovery.was_read_only {
            lines.push(format!(
                "{} was read-only before it failed, and stays so if it returns in time",
                self.failed()
            ));
        }
        for key in siblings {
            match self.halt_statements(&key) {
                // It does not answer, either, and holds nobody up.
                Some(_) if self.is_without_gtid(&key) => {
                    lines.push(format!("{}: not halted", without_gtid(&key)));
                }
                Some(statements) => {
                    steps.push(self.halt(steps.len() as u64, &key, statements));
                }
                None => lines.push(format!("{key} was never read: not halted")),
            }
        }
        if steps.is_empty() {
            return Move::End {
                end: End::Failed {
                    reason: format!("{} has no replica that can be reached", self.failed()),
                },
                successor: None,
                lost: Vec::new(),
                participants: Vec::new(),
                lines,
            };
        }
        Move::Intend {
            stage: Stage::FenceAndHalt,
            candidate: None,
            steps,
            lines,
        }
    }

    /// As it was last read.
    fn is_without_gtid(&self, key: &InstanceKey) -> bool {
        let failed = self.view.reading(self.failed());
        self.view.reading(key).is_some_and(|reading| {
            let report = reading.report;
            report.replication.is_some()
                && !report.knows_what_it_holds_of(failed.map(|failed| failed.report))
        })
    }

    /// None for a server that was never read.
    fn halt_statements(&self, key: &InstanceKey) -> Option<Vec<Statement>> {
        halt_statements(self.view.reading(key)?.report)
    }

    fn after_halt(&self, progress: &mut Progress) -> Move {
        let deadline = progress.stage_since + self.view.policy().halt_deadline;
        let mut look = Vec::new();
        let mut pending = false;
        let mut steps: Vec<Step> = Vec::new();
        for (step, phase) in self.newest_halts() {
            let is_unsure = matches!(
                phase,
                Phase::Intended(_) | Phase::Settled(Outcome::Unknown { .. })
            );
            match self.state(step, phase, progress) {
                State::Pending => pending = true,
                // The leader that intended it may have ended before it was done.
                State::NotDone(_)
                    if is_unsure && self.tries(StepKind::Halt, &step.server) < STEP_TRIES =>
                {
                    if let Some(statements) = self.halt_statements(&step.server) {
                        steps.push(self.halt(steps.len() as u64, &step.server, statements));
                    }
                }
                State::LookAfter(_) => look.push(step.server.clone()),
                // Another leader saw it; this one has not so far.
                State::Done if !self.is_read_since(&step.server, progress.began) => {
                    look.push(step.server.clone())
                }
                State::Done | State::NotDone(_) => {}
            }
        }
        let mut lines = Vec::new();
        if !steps.is_empty() {
            lines.push(String::from("halting again what was not halted"));
        }
        for key in self.attached_lately() {
            if let Some(statements) = self.halt_statements(&key) {
                lines.push(format!(
                    "{key} turns out to replicate from {}: halting it, too",
                    self.failed()
                ));
                steps.push(self.halt(steps.len() as u64, &key, statements));
            }
        }
        if !steps.is_empty() && self.now < deadline {
            return Move::Intend {
                stage: Stage::FenceAndHalt,
                candidate: None,
                steps,
                lines,
            };
        }
        if self.now < progress.began + MEMBERS_PATIENCE {
            look.extend(self.members_to_read(progress));
        }
        if self.now < deadline && (pending || !look.is_empty()) {
            let until = if look.is_empty() {
                deadline
            } else {
                deadline.min(self.now + LOOK_INTERVAL)
            };
            return Move::Look { keys: look, until };
        }
        let first = self
            .recovery
            .steps_of(StepKind::Halt)
            .filter(|(_, phase)| **phase == Phase::Settled(Outcome::Done))
            .filter_map(|(step, _)| progress.ended_at.get(&step.id).copied())
            .min();
        if let Some(first) = first.filter(|first| *first > deadline)
            && self.now < first + HALT_TOGETHER
            && let Some(Move::Look { keys, until }) = self.wait_for_halts(progress)
        {
            let until = until.min(first + HALT_TOGETHER);
            return Move::Look { keys, until };
        }
        self.choose(progress)
    }

    /// Replicas of the failed primary that this recovery has not halted, and has read.
    fn attached_lately(&self) -> Vec<InstanceKey> {
        let mut siblings = self.siblings();
        siblings.retain(|key| {
            self.tries(StepKind::Halt, key) == 0
                && !self.is_without_gtid(key)
                && self.view.reading(key).is_some()
        });
        siblings
    }

    /// Members that count as no replica of the failed primary by what was read before this leader began.
    fn members_to_read(&self, progress: &Progress) -> Vec<InstanceKey> {
        let siblings = self.siblings();
        let mut members = self.view.members_of(self.failed());
        members.retain(|key| {
            key != self.failed()
                && !siblings.contains(key)
                && self
                    .view
                    .checked(key)
                    .is_none_or(|checked| checked < progress.began)
        });
        members
    }

    /// The last halt of each server, in the order of servers.
    fn newest_halts(&self) -> impl Iterator<Item = (&Step, &Phase)> {
        let newest: BTreeMap<&InstanceKey, (&Step, &Phase)> = self
            .recovery
            .steps_of(StepKind::Halt)
            .map(|(step, phase)| (&step.server, (step, phase)))
            .collect();
        newest.into_values()
    }

    fn halt(&self, offset: u64, server: &InstanceKey, statements: Vec<Statement>) -> Step {
        let deadline = self.halt_step_deadline();
        self.step(
            offset,
            StepKind::Halt,
            server,
            Lane::Act,
            statements,
            deadline,
        )
    }

    /// The recovery goes on without it at the halt deadline, if somebody can be chosen then.
    fn halt_step_deadline(&self) -> Duration {
        let deadline = self.view.policy().halt_deadline;
        deadline.max(HALT_STEP_DEADLINE_MIN)
    }

    /// Halts of which it is not known so far whether they were done, within their own deadlines: who is halted a moment later
    /// may make a refusal needless.
    fn wait_for_halts(&self, progress: &Progress) -> Option<Move> {
        let mut keys = Vec::new();
        let mut until: Option<Mono> = None;
        for (step, phase) in self.newest_halts() {
            let deadline = progress.stage_since + step.deadline;
            if self.now >= deadline {
                continue;
            }
            match self.state(step, phase, progress) {
                State::Pending => until = Some(until.map_or(deadline, |at| at.min(deadline))),
                State::LookAfter(_) => {
                    let again = deadline.min(self.now + LOOK_INTERVAL);
                    until = Some(until.map_or(again, |at| at.min(again)));
                    keys.push(step.server.clone());
                }
                State::Done | State::NotDone(_) => {}
            }
        }
        Some(Move::Look {
            keys,
            until: until?,
        })
    }

    /// Replicas that could not be halted, and hold what the best of the others lacks: their halts are waited for, and repeated
    /// where they were refused, within the deadline of one.
    fn halt_holders(&self, unread: &[InstanceKey], progress: &Progress) -> Option<Move> {
        if let Some(wait) = self.wait_for_halts(progress) {
            return Some(wait);
        }
        let until = progress.stage_since + self.halt_step_deadline();
        if self.recovery.stage != Stage::FenceAndHalt || self.now >= until {
            return None;
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut waits = false;
        for key in unread.iter().filter(|key| !self.is_unread(key)) {
            let ready = self.halt_statements(key);
            if let Some(Ready::Halt(statements)) =
                ready.map(|statements| self.halt_late(key, statements, progress))
            {
                steps.push(self.halt(steps.len() as u64, key, statements));
            } else if self.is_just_tried(StepKind::Halt, key, progress) {
                waits = true;
            }
        }
        if !steps.is_empty() {
            let lines = vec![String::from(
                "halting again what holds more than the others",
            )];
            return Some(Move::Intend {
                stage: Stage::FenceAndHalt,
                candidate: None,
                steps,
                lines,
            });
        }
        waits.then(|| Move::Look {
            keys: Vec::new(),
            until: until.min(self.now + LOOK_INTERVAL),
        })
    }

    fn is_read_since(&self, key: &InstanceKey, since: Mono) -> bool {
        self.view
            .reading(key)
            .is_some_and(|reading| reading.seen >= since)
    }

    /// It answered before the promotion was decided, and replicas are halted: it is closed until they receive again, lest it
    /// takes writes that a leader which does not see it would promote somebody without. Nobody is disconnected. None when that
    /// was done or tried, or there is nothing to close.
    fn fence_returned_early(&self, progress: &Progress) -> Option<Move> {
        let is_only_reported = self.view.policy().deposed_action == DeposedAction::Report;
        // Of one that was never read it is not known whether it is to be opened again.
        let report = self.view.reading(self.failed())?.report;
        let is_closed = self.recovery.was_read_only || report.replication.is_some();
        if is_closed || is_only_reported || !self.recovery.has_acted() {
            return None;
        }
        if let Some((step, phase)) = self.recovery.steps_of(StepKind::Fence).last() {
            return match self.state(step, phase, progress) {
                State::Pending => Some(Move::Wait {
                    until: self.now + step.deadline,
                }),
                State::Done | State::NotDone(_) | State::LookAfter(_) => None,
            };
        }
        let statements = vec![Statement::MakeReadOnly {
            super_read_only: true,
        }];
        Some(Move::Intend {
            stage: self.recovery.stage,
            candidate: self.recovery.candidate.clone(),
            steps: vec![self.step(
                0,
                StepKind::Fence,
                self.failed(),
                Lane::Fence,
                statements,
                FENCE_DEADLINE,
            )],
            lines: vec![format!(
                "{} answered before the promotion was decided: closing it until its replicas receive again",
                self.failed()
            )],
        })
    }

    // --- choose ---

    fn choose(&self, progress: &mut Progress) -> Move {
        let siblings = self.siblings();
        let passed_over = progress.passed_over.clone();
        let mut contenders = Vec::new();
        let mut unread = Vec::new();
        for key in &siblings {
            let halted = self
                .recovery
                .steps_of(StepKind::Halt)
                .filter(|(step, _)| step.server == *key)
                .any(|(step, phase)| self.state(step, phase, progress) == State::Done);
            match self.view.reading(key) {
                Some(reading)
                    if halted
                        && self.is_read_since(key, progress.began)
                        && reading
                            .report
                            .replication
                            .as_ref()
                            .is_some_and(|status| status.io == ThreadState::Stopped) =>
                {
                    contenders.push(Contender {
                        key,
                        report: reading.report,
                        rule: self.view.rule(key),
                        ignored: self.view.is_ignored_for_promotion(key),
                        is_downtimed: self.view.is_downtimed(key),
                        passed_over: passed_over.get(key).map(String::as_str),
                    });
                }
                _ => unread.push(key.clone()),
            }
        }
        let failed = Failed {
            report: self
                .view
                .reading(self.failed())
                .map(|reading| reading.report),
        };
        if let Some(reason) = self.semi_sync_refusal() {
            return self.undo(End::Failed { reason }, progress);
        }
        let choice = choose(&contenders, failed, self.view.policy());
        let mut possible_loss = Vec::new();
        let known_loss = match &choice {
            Choice::Promote { candidate, .. } => self.held_elsewhere(&unread, candidate, failed),
            Choice::Refuse { .. } => Vec::new(),
        };
        if !known_loss.is_empty()
            && let Some(wait) = self.halt_holders(&unread, progress)
        {
            return wait;
        }
        possible_loss.extend(known_loss);
        if !unread.is_empty() {
            let names: Vec<String> = unread.iter().map(ToString::to_string).collect();
            possible_loss.push(format!(
                "not halted and not read, may hold more: {}",
                names.join(", ")
            ));
            if self.view.policy().refuse_lossy {
                if let Some(wait) = self.wait_for_halts(progress) {
                    return wait;
                }
                let reason = format!(
                    "possible loss and RefuseLossyPromotion is set: {}",
                    possible_loss.join("; ")
                );
                return self.undo(End::Failed { reason }, progress);
            }
        }
        match choice {
            Choice::Refuse { reason } => self
                .wait_for_halts(progress)
                .unwrap_or_else(|| self.undo(End::Failed { reason }, progress)),
            Choice::Promote {
                candidate,
                because,
                cannot_follow,
                ..
            } => {
                // What this leader said may not have been committed, and a loss that is not stated is a promise.
                if progress.say_once("choice") || self.recovery.possible_loss.is_empty() {
                    let mut lines = vec![format!("chosen: {candidate}")];
                    lines.extend(because);
                    lines.extend(
                        cannot_follow
                            .iter()
                            .map(|(key, why)| format!("{key} cannot follow {candidate}: {why}")),
                    );
                    let chosen = self.view.reading(&candidate).map(|reading| reading.report);
                    let missing = failed
                        .report
                        .zip(chosen)
                        .and_then(|(failed, chosen)| missing_of(failed, chosen));
                    if let Some(missing) = missing {
                        possible_loss.push(format!(
                            "{} was seen to have {missing} transaction(s) that {candidate} did not receive",
                            self.failed()
                        ));
                    }
                    possible_loss.push(String::from(
                        "replication was asynchronous: what the primary acknowledged and no replica received is lost, if there was any",
                    ));
                    lines.extend(
                        possible_loss
                            .iter()
                            .map(|loss| format!("possible loss: {loss}")),
                    );
                    return Move::Remark {
                        lines,
                        errors: Vec::new(),
                        possible_loss,
                    };
                }
                let report = self.view.reading(&candidate).map(|reading| reading.report);
                if report.is_some_and(|report| {
                    report.has_unapplied() && !self.may_apply_afterwards(report)
                }) {
                    return self.begin_drain(&candidate);
                }
                self.begin_promotion(&candidate, progress)
            }
        }
    }

    /// What replicas that could not be halted were last seen to have received, and this candidate did not.
    fn held_elsewhere(
        &self,
        unread: &[InstanceKey],
        candidate: &InstanceKey,
        failed: Failed<'_>,
    ) -> Vec<String> {
        let Some(chosen) = self
            .view
            .reading(candidate)
            .and_then(|reading| reading.report.held_from_source())
        else {
            return Vec::new();
        };
        let missing = |key: &InstanceKey| {
            let report = self.view.reading(key)?.report;
            if !report.knows_what_it_holds_of(failed.report) {
                return None;
            }
            let (theirs, _) = without_errant(report, report.held_from_source()?, failed);
            let missing = chosen.missing_count(&theirs).ok()?;
            (missing > 0).then(|| {
                format!(
                    "{key} was seen to hold {missing} transaction(s) that {candidate} did not receive, and could not be halted"
                )
            })
        };
        unread.iter().filter_map(missing).collect()
    }

    // --- drain ---

    fn begin_drain(&self, candidate: &InstanceKey) -> Move {
        let report = self.view.reading(candidate).map(|reading| reading.report);
        let sql = report
            .and_then(|report| report.replication.as_ref())
            .map_or(ThreadState::NoThread, |status| status.sql);
        let mut lines = vec![format!(
            "{candidate} has not applied all it received: draining"
        )];
        if self.view.policy().skip_drain {
            lines.push(String::from(
                "DelayMasterPromotionIfSQLThreadNotUpToDate is false, which is not obeyed on MariaDB: clients' transactions would \
                 get the numbers of those that are to be applied",
            ));
        }
        let steps = if sql == ThreadState::Running {
            Vec::new()
        } else {
            lines.push(format!(
                "the applier of {candidate} does not run: starting it"
            ));
            vec![self.step(
                0,
                StepKind::Drain,
                candidate,
                Lane::Act,
                vec![Statement::StartSqlThread],
                REPOINT_DEADLINE,
            )]
        };
        Move::Intend {
            stage: Stage::Drain,
            candidate: Some(candidate.clone()),
            steps,
            lines,
        }
    }

    /// The policy asks for a promotion without the drain, which is done where it loses nothing: MariaDB would give what clients
    /// write the numbers of what is to be applied, and replicas that hold that would never be sent what clients wrote.
    fn may_apply_afterwards(&self, report: &ProbeReport) -> bool {
        self.view.policy().skip_drain && report.flavour != Flavour::Mariadb
    }

    fn drain(&self, progress: &mut Progress) -> Move {
        let Some(candidate) = self.recovery.candidate.clone() else {
            return self.choose(progress);
        };
        for (step, phase) in self.recovery.steps_of(StepKind::Drain) {
            if self.state(step, phase, progress) == State::Pending {
                return Move::Wait {
                    until: self.now + step.deadline,
                };
            }
        }
        let look = Move::Look {
            keys: vec![candidate.clone()],
            until: self.now + LOOK_INTERVAL,
        };
        let Some(reading) = self
            .view
            .reading(&candidate)
            .filter(|reading| reading.seen > progress.stage_since)
        else {
            if self.now.since(progress.stage_since) > DRAIN_STALL {
                return self.pass_over(&candidate, "it cannot be read any more", progress);
            }
            return look;
        };
        let report = reading.report;
        if !report.has_unapplied() {
            return self.begin_promotion(&candidate, progress);
        }
        let status = report.replication.as_ref();
        if status.is_some_and(|status| status.sql != ThreadState::Running && status.sql_errno == 0)
            && self.tries(StepKind::Drain, &candidate) < STEP_TRIES
            && self.is_safe_to_apply(report)
        {
            return self.begin_drain(&candidate);
        }
        if let Some(status) =
            status.filter(|status| status.sql != ThreadState::Running && status.sql_errno != 0)
        {
            let why = format!(
                "its applier stopped on error {}: {}",
                status.sql_errno, status.sql_error
            );
            return self.pass_over(&candidate, &why, progress);
        }
        // Somebody stopped it since it was chosen.
        if let Some(why) = cannot_apply(report) {
            return self.pass_over(&candidate, &format!("it {why}"), progress);
        }
        let left = unapplied(report);
        let is_first = progress
            .drained_from
            .as_ref()
            .is_none_or(|(of, ..)| *of != candidate);
        if let Some(left) = left.filter(|_| is_first) {
            progress.drained_from = Some((candidate.clone(), left, self.now));
        }
        let applied = report
            .replicated_gtid
            .clone()
            .or_else(|| report.executed.clone());
        if applied != progress.drained_to {
            progress.drained_to = applied;
            progress.drained_at = self.now;
        } else if self.now.since(progress.drained_at) > DRAIN_STALL {
            return self.pass_over(&candidate, "its applier makes no progress", progress);
        }
        if self.now.since(progress.stage_since) > self.view.policy().drain_max
            && progress.say_once("drain-max")
        {
            return Move::Remark {
                lines: Vec::new(),
                errors: vec![self.still_draining(&candidate, left, progress)],
                possible_loss: Vec::new(),
            };
        }
        look
    }

    /// How much is left, how long that takes at the rate so far, and what a promotion at this moment would lose.
    fn still_draining(
        &self,
        candidate: &InstanceKey,
        left: Option<u64>,
        progress: &Progress,
    ) -> String {
        let left_in_words = left.map_or(String::from("it is not known how much is left"), |left| {
            format!("{left} transaction(s) are left")
        });
        let estimate = left.zip(progress.drained_from.as_ref()).map_or(
            String::new(),
            |(left, (_, first, since))| {
                let took_ms = u64::try_from(self.now.since(*since).as_millis()).unwrap_or(u64::MAX);
                let took = took_ms.saturating_add(500) / 1000;
                match first.saturating_sub(left) {
                    0 => format!(", and none fewer than {took} s ago"),
                    applied => format!(
                        ", {applied} were applied in {took} s, so that it takes about {} s more",
                        (left.saturating_mul(took_ms) / applied).div_ceil(1000)
                    ),
                }
            },
        );
        let mut text = format!(
            "{candidate} is still applying what it received after PromotionDrainSecondsMax ({} s): {left_in_words}{estimate}; \
             the promotion waits, since promoting it now would lose what is left",
            self.view.policy().drain_max.as_secs()
        );
        if !self.recovery.possible_loss.is_empty() {
            text.push_str("; possible loss in any case: ");
            text.push_str(&self.recovery.possible_loss.join("; "));
        }
        text
    }

    /// Starting the applier throws nothing away: on MariaDB a receiver must run beside it, or nothing be unapplied (F1).
    fn is_safe_to_apply(&self, report: &ProbeReport) -> bool {
        report.flavour != Flavour::Mariadb
            || report
                .replication
                .as_ref()
                .is_some_and(|status| status.io != ThreadState::Stopped)
            || !report.has_unapplied()
    }

    fn pass_over(&self, candidate: &InstanceKey, why: &str, progress: &mut Progress) -> Move {
        if !progress.passed_over.contains_key(candidate) {
            progress
                .passed_over
                .insert(candidate.clone(), why.to_string());
            progress.said.remove("choice");
            return Move::Remark {
                lines: Vec::new(),
                errors: vec![format!("{candidate} is passed over: {why}")],
                possible_loss: Vec::new(),
            };
        }
        self.choose(progress)
    }

    // --- promote ---

    fn begin_promotion(&self, candidate: &InstanceKey, progress: &Progress) -> Move {
        // The last dial is part of the precondition: a gone primary must have refused one just now.
        let gone = matches!(
            self.recovery.purpose,
            Purpose::DeadPrimary {
                kind: DeadKind::Gone
            }
        );
        let dialled = self
            .view
            .last_failed_dial()
            .is_some_and(|at| self.now.since(at) <= LAST_DIAL_MAX);
        if gone && !dialled && !self.recovery.is_past_return() {
            return Move::Wait {
                until: self.now + Duration::from_millis(10),
            };
        }
        let tries = self.recovery.steps_of(StepKind::Promote).count();
        // Opened first: nothing is received any more and all of it is applied. Stopping the applier may take a minute on
        // MySQL, where half a transaction at the end of the relay log holds it up.
        let mut statements = vec![Statement::StopIoThread];
        let mut lines = vec![format!("promoting {candidate}: the point of no return")];
        let report = self.view.reading(candidate).map(|reading| reading.report);
        if let Some(report) = report.filter(|report| report.has_unapplied()) {
            let left = unapplied(report).map_or(String::from("what"), |left| {
                format!("{left} transaction(s) that")
            });
            lines.push(format!(
                "{candidate} is opened before it has applied {left} it received, as DelayMasterPromotionIfSQLThreadNotUpToDate says: \
                 its clients see them arrive later, and one that contradicts what they write stops the applier"
            ));
            let status = report.replication.as_ref();
            if status.is_some_and(|status| status.sql != ThreadState::Running) {
                statements.insert(0, Statement::StartSqlThread);
            }
        }
        if self.view.policy().apply_promotion {
            statements.push(Statement::MakeWriteable);
        }
        if tries > 0 {
            lines.push(format!("try {}", tries + 1));
        }
        let since = self.now.since(progress.began);
        lines.push(format!("{} ms after this leader began", since.as_millis()));
        Move::Intend {
            stage: Stage::Promote,
            candidate: Some(candidate.clone()),
            steps: vec![self.step(
                0,
                StepKind::Promote,
                candidate,
                Lane::Act,
                statements,
                PROMOTE_DEADLINE,
            )],
            lines,
        }
    }

    fn promote(&self, progress: &mut Progress) -> Move {
        let Some(candidate) = self.recovery.candidate.clone() else {
            return Move::Wait {
                until: self.now + LOOK_INTERVAL,
            };
        };
        let Some((step, phase)) = self.recovery.steps_of(StepKind::Promote).last() else {
            return self.begin_promotion(&candidate, progress);
        };
        let fences = self.fence_returned(0, progress);
        if !fences.is_empty() {
            return Move::Intend {
                stage: Stage::Promote,
                candidate: Some(candidate),
                steps: fences,
                lines: vec![format!(
                    "{} is back after the promotion was decided: fencing it",
                    self.failed()
                )],
            };
        }
        // Nothing was sent to one that died: it is not open, and somebody else may be chosen.
        let is_gone = self.was_refused_each_time() && self.is_unread(&candidate);
        let is_patient = !is_gone && self.now.since(progress.stage_since) < PROMOTE_PATIENCE;
        let is_just_tried = self.is_just_tried(StepKind::Promote, &candidate, progress);
        match self.state(step, phase, progress) {
            State::Pending => Move::Wait {
                until: self.now + step.deadline.min(RETRY_INTERVAL),
            },
            State::Done => self.regroup(progress),
            State::LookAfter(_) if is_patient => Move::Look {
                keys: vec![candidate],
                until: self.now + LOOK_INTERVAL,
            },
            State::NotDone(_) if is_patient && is_just_tried => Move::Look {
                keys: vec![candidate],
                until: self.now + LOOK_INTERVAL,
            },
            State::NotDone(_) if is_patient => self.begin_promotion(&candidate, progress),
            State::NotDone(why) => self.promotion_failed(&candidate, &why, progress),
            State::LookAfter(_) => {
                self.promotion_failed(&candidate, "it cannot be read any more", progress)
            }
        }
    }

    /// No attempt to promote anybody had an effect.
    fn was_refused_each_time(&self) -> bool {
        self.recovery
            .steps_of(StepKind::Promote)
            .all(|(_, phase)| matches!(phase, Phase::Settled(Outcome::Refused { .. })))
    }

    fn promotion_failed(&self, candidate: &InstanceKey, why: &str, progress: &Progress) -> Move {
        // Only what refused each attempt, or was seen read-only after the last, is known not to be open. Else it may take writes
        // at any time, and promoting another beside it would split the cluster: it stands as the primary.
        let refused = self.was_refused_each_time();
        let ended = self
            .recovery
            .steps_of(StepKind::Promote)
            .filter_map(|(step, _)| progress.ended_at.get(&step.id).copied())
            .max()
            .unwrap_or(progress.began);
        let is_proven = refused
            || self
                .view
                .reading(candidate)
                .is_some_and(|reading| reading.report.read_only && reading.seen > ended);
        if !is_proven {
            return Move::End {
                end: End::Failed {
                    reason: format!(
                        "promoting {candidate} failed after the point of no return, and whether it was opened is not known: {why}"
                    ),
                },
                successor: Some(candidate.clone()),
                lost: Vec::new(),
                participants: self.siblings(),
                lines: vec![format!(
                    "{candidate} counts as the primary from here on, since it may have been opened; no other is promoted \
                     beside it: an operator must decide"
                )],
            };
        }
        Move::End {
            end: End::Failed {
                reason: format!("promoting {candidate} failed after the point of no return: {why}"),
            },
            successor: None,
            lost: Vec::new(),
            participants: self.siblings(),
            lines: vec![String::from(
                "the replicas are left halted until their primary is open again; an operator must decide",
            )],
        }
    }

    // --- regroup ---

    fn regroup(&self, progress: &mut Progress) -> Move {
        let Some(candidate) = self.recovery.candidate.clone() else {
            return Move::Wait {
                until: self.now + LOOK_INTERVAL,
            };
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut lines: Vec<String> = Vec::new();
        let mut look: Vec<InstanceKey> = Vec::new();
        let mut left_behind: Vec<(InstanceKey, String)> = Vec::new();
        let mut unsure: Vec<InstanceKey> = Vec::new();
        let mut pending = false;
        // Of replicas that took the statements, and are to be seen following: no hook waits for them.
        let mut arriving: Vec<InstanceKey> = Vec::new();
        let mut is_pointing_again = false;
        let patient = self.is_patient(progress);
        let is_unread = self.is_unread(&candidate);
        for key in self.siblings() {
            if key == candidate {
                continue;
            }
            let was_pointed = self.was_pointed(&key);
            match self.sibling(&key, &candidate, progress) {
                Sibling::Follows => {
                    progress.followed.insert(key);
                }
                Sibling::Pending if was_pointed => is_pointing_again = true,
                Sibling::Pending => pending = true,
                Sibling::Look | Sibling::Act(..) if was_pointed && is_unread => unsure.push(key),
                Sibling::Connecting if is_unread => unsure.push(key),
                Sibling::Look if !was_pointed => look.push(key),
                // It waits for the promoted server, which may be what fails.
                Sibling::Look | Sibling::Connecting => arriving.extend([key, candidate.clone()]),
                Sibling::Act(kind, statements, deadline) => {
                    let offset = steps.len() as u64;
                    steps.push(self.step(offset, kind, &key, Lane::Act, statements, deadline));
                }
                Sibling::Lost(why) => left_behind.push((key, why)),
            }
        }
        steps.extend(self.fence_returned(steps.len() as u64, progress));
        match self.open_again(&candidate, steps.len() as u64, progress) {
            Opened::Yes => {}
            Opened::Pending => pending = true,
            Opened::No(step) => steps.push(*step),
        }
        // No hook waits for a promoted server that applies on.
        let mut applying: Vec<InstanceKey> = Vec::new();
        let mut left_with_source: Option<String> = None;
        let tries = self.recovery.steps_of(StepKind::Reset).count();
        match self
            .recovery
            .steps_of(StepKind::Reset)
            .last()
            .map(|(step, phase)| self.state(step, phase, progress))
        {
            Some(State::Pending) if self.now.since(progress.stage_since) < RESET_PATIENCE => pending = true,
            Some(State::Pending) => lines.push(format!(
                "{candidate} is still forgetting its former source: an applier that holds half a transaction takes a minute to stop"
            )),
            Some(State::Done) => {}
            Some(State::LookAfter(_)) if patient => look.push(candidate.clone()),
            // A session of the leader before may hold the lock for a moment more.
            Some(State::NotDone(_))
                if tries < STEP_TRIES
                    && self.is_just_tried(StepKind::Reset, &candidate, progress) =>
            {
                look.push(candidate.clone());
            }
            None if !self.view.policy().apply_promotion => {}
            None | Some(State::NotDone(_))
                if tries < STEP_TRIES && self.is_still_applying(&candidate, progress) =>
            {
                if self.applies_on(&candidate, progress) {
                    applying.push(candidate.clone());
                } else {
                    left_with_source = Some(format!(
                        "{candidate} has not applied all it received; when it has, remove the replication settings of its former \
                         source (RESET REPLICA ALL), which would throw it away before, and which a restart would follow"
                    ));
                }
            }
            None => steps.push(self.reset(steps.len() as u64, &candidate)),
            Some(State::NotDone(_)) if tries < STEP_TRIES => {
                steps.push(self.reset(steps.len() as u64, &candidate));
            }
            Some(State::LookAfter(_) | State::NotDone(_)) => lines.push(format!(
                "{candidate} still has replication settings of its former source: remove them (RESET REPLICA ALL)"
            )),
        }
        if !steps.is_empty() {
            return Move::Intend {
                stage: Stage::Regroup,
                candidate: Some(candidate),
                steps,
                lines: Vec::new(),
            };
        }
        if self
            .recovery
            .steps_of(StepKind::Fence)
            .any(|(step, phase)| self.state(step, phase, progress) == State::Pending)
        {
            pending = true;
        }
        let mut errors: Vec<String> = Vec::new();
        // Told as soon as it is known, whoever is still waited for; once, since some errors count how often they came.
        for (key, why) in &left_behind {
            if progress.say_once(&format!("left behind: {key}"))
                && !self.recovery.errors.contains(why)
            {
                errors.push(why.clone());
            }
        }
        if let Some(error) = left_with_source
            && progress.say_once(&error)
            && !self.recovery.errors.contains(&error)
        {
            errors.push(error);
        }
        if !unsure.is_empty() {
            let names: Vec<String> = unsure.iter().map(ToString::to_string).collect();
            let error = format!(
                "{candidate} cannot be read any more: whether these follow it is not known: {}",
                names.join(", ")
            );
            if progress.say_once(&error) && !self.recovery.errors.contains(&error) {
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            return Move::Remark {
                lines: errors.clone(),
                errors,
                possible_loss: Vec::new(),
            };
        }
        let hooks_wait = pending || !look.is_empty();
        look.extend(arriving);
        look.extend(applying);
        if self.now < progress.began.max(progress.stage_since) + MEMBERS_PATIENCE {
            look.extend(self.members_to_read(progress));
        }
        if hooks_wait || is_pointing_again || !look.is_empty() {
            if self.recovery.stage == Stage::Regroup
                && (!hooks_wait || self.now.since(progress.stage_since) > ANNOUNCE_PATIENCE)
                && let hook::Next::Run(hook) = hook::next(
                    self.recovery,
                    &AFTER_PROMOTION,
                    self.view.hooks(),
                    self.mine,
                )
            {
                return Move::Intend {
                    stage: Stage::Regroup,
                    candidate: Some(candidate),
                    steps: vec![hook_step(self.recovery, hook)],
                    lines: vec![format!("running hook {hook} while replicas are regrouped")],
                };
            }
            let interval = if self.now.since(progress.stage_since) < ANNOUNCE_PATIENCE {
                LOOK_INTERVAL
            } else {
                LOOK_INTERVAL * 2
            };
            return Move::Look {
                keys: look,
                until: self.now + interval,
            };
        }
        // What was told already may not have been committed.
        let untold = left_behind.iter().map(|(_, why)| why.clone());
        lines.extend(untold.filter(|why| !self.is_told(why)));
        lines.push(format!("{candidate} is the primary"));
        Move::End {
            end: End::Succeeded,
            successor: Some(candidate),
            lost: left_behind.into_iter().map(|(key, _)| key).collect(),
            participants: self.siblings(),
            lines,
        }
    }

    /// Whether replicas that are not where they should be are still waited for.
    fn is_patient(&self, progress: &Progress) -> bool {
        // The promotion itself may have taken a while.
        let patience = if self.recovery.stage == Stage::Promote {
            REGROUP_PATIENCE + PROMOTE_DEADLINE * 3
        } else {
            REGROUP_PATIENCE
        };
        self.now.since(progress.stage_since) < patience
    }

    /// For a while no reading of it has ended well.
    fn is_unread(&self, key: &InstanceKey) -> bool {
        let Some(reading) = self.view.reading(key) else {
            return false;
        };
        self.view
            .checked(key)
            .is_some_and(|checked| checked > reading.seen + UNREAD_MAX)
    }

    /// Where a replica stands on its way below the promoted server.
    fn sibling(&self, key: &InstanceKey, candidate: &InstanceKey, progress: &Progress) -> Sibling {
        let last = self
            .recovery
            .steps_of(StepKind::Repoint)
            .filter(|(step, _)| step.server == *key)
            .last();
        let tries = self.tries_since_halt(key);
        if progress.followed.contains(key) {
            return Sibling::Follows;
        }
        let patient = self.is_patient(progress);
        let is_just_tried = self.is_just_tried(StepKind::Repoint, key, progress);
        let not_tried = last.is_none();
        match last.map(|(step, phase)| self.state(step, phase, progress)) {
            Some(State::Pending) => Sibling::Pending,
            Some(State::Done) => Sibling::Follows,
            Some(State::LookAfter(_)) => self.wait_for(key, candidate, patient || is_just_tried),
            Some(State::NotDone(_)) if tries < STEP_TRIES && is_just_tried => Sibling::Look,
            Some(State::NotDone(why)) if tries >= STEP_TRIES || !patient => {
                Sibling::Lost(format!("{key} could not be pointed at {candidate}: {why}"))
            }
            None | Some(State::NotDone(_)) => match self.repoint(key, candidate, progress) {
                Ready::Now(statements) => {
                    Sibling::Act(StepKind::Repoint, statements, REPOINT_DEADLINE)
                }
                Ready::Halt(statements) => {
                    let deadline = self.halt_step_deadline();
                    Sibling::Act(StepKind::Halt, statements, deadline)
                }
                // It was pointed there by somebody else.
                Ready::Already if not_tried && self.is_connected(key) => Sibling::Follows,
                Ready::Already if not_tried => self.wait_for(key, candidate, patient),
                // Only a reading after the step tells.
                Ready::Already => Sibling::Look,
                Ready::Never(why) => {
                    Sibling::Lost(format!("{key} is not pointed at {candidate}: {why}"))
                }
                Ready::Later if patient => Sibling::Look,
                Ready::Later => Sibling::Lost(format!(
                    "{key} could not be reached, or has not applied what it received: left as it is"
                )),
            },
        }
    }

    /// Of one that was pointed at the promoted server, and was not seen to follow it so far.
    fn wait_for(&self, key: &InstanceKey, candidate: &InstanceKey, patient: bool) -> Sibling {
        let reading = self.view.reading(key);
        let status = reading
            .and_then(|reading| reading.report.replication.as_ref())
            .filter(|status| status.source == *candidate);
        match status {
            Some(_) if patient => Sibling::Connecting,
            None if patient => Sibling::Look,
            Some(status) => Sibling::Lost(format!(
                "{key} does not follow {candidate}: {}",
                receiver_in_words(status)
            )),
            None => Sibling::Lost(format!(
                "{key} does not follow {candidate}: it could not be read since it was pointed there"
            )),
        }
    }

    fn is_connected(&self, key: &InstanceKey) -> bool {
        let reading = self.view.reading(key);
        reading
            .and_then(|reading| reading.report.replication.as_ref())
            .is_some_and(|status| status.io == ThreadState::Running)
    }

    /// The replicas that are known not to follow the promoted server at this moment.
    fn left_behind(&self, progress: &Progress) -> Vec<InstanceKey> {
        let Some(candidate) = &self.recovery.candidate else {
            return Vec::new();
        };
        let is_turned_away = |key: &InstanceKey| {
            let reading = self.view.reading(key);
            reading
                .and_then(|reading| reading.report.replication.as_ref())
                .is_some_and(|status| status.source == *candidate && is_turned_away(status))
        };
        self.siblings()
            .into_iter()
            .filter(|key| key != candidate)
            .filter(|key| match self.sibling(key, candidate, progress) {
                Sibling::Lost(_) => true,
                Sibling::Follows => false,
                // It may get through yet, but did not at once.
                Sibling::Pending | Sibling::Look | Sibling::Connecting | Sibling::Act(..) => {
                    is_turned_away(key) || self.tries_since_halt(key) > 1
                }
            })
            .collect()
    }

    /// The promoted server may have been restarted since it was opened, and have come back closed, as its file says.
    fn open_again(&self, candidate: &InstanceKey, offset: u64, progress: &Progress) -> Opened {
        let opening = self.recovery.steps.values().filter(|(step, _)| {
            step.server == *candidate && matches!(step.kind, StepKind::Promote | StepKind::Reopen)
        });
        let mut opened = progress.began;
        for (step, phase) in opening {
            if matches!(phase, Phase::Intended(epoch) if *epoch == self.mine) {
                return Opened::Pending;
            }
            opened = opened.max(progress.ended_at.get(&step.id).copied().unwrap_or(opened));
        }
        let is_closed = self
            .view
            .reading(candidate)
            .is_some_and(|reading| reading.seen > opened && reading.report.read_only);
        if !is_closed
            || !self.view.policy().apply_promotion
            || self.tries(StepKind::Reopen, candidate) >= STEP_TRIES
        {
            return Opened::Yes;
        }
        Opened::No(Box::new(self.step(
            offset,
            StepKind::Reopen,
            candidate,
            Lane::Act,
            vec![Statement::MakeWriteable],
            REOPEN_DEADLINE,
        )))
    }

    /// It took the statements that point it at the promoted server.
    fn was_pointed(&self, key: &InstanceKey) -> bool {
        self.recovery
            .steps_of(StepKind::Repoint)
            .any(|(step, phase)| step.server == *key && *phase == Phase::Settled(Outcome::Done))
    }

    /// The last attempt on this server ended less than a moment ago.
    fn is_just_tried(&self, kind: StepKind, key: &InstanceKey, progress: &Progress) -> bool {
        self.recovery
            .steps_of(kind)
            .filter(|(step, _)| step.server == *key)
            .filter_map(|(step, _)| progress.ended_at.get(&step.id))
            .max()
            .is_some_and(|ended| self.now.since(*ended) < RETRY_INTERVAL)
    }

    /// It may have been opened before it had applied all it received: only what was read since shows that it has.
    fn is_still_applying(&self, candidate: &InstanceKey, progress: &Progress) -> bool {
        let promoted = self
            .recovery
            .steps_of(StepKind::Promote)
            .filter_map(|(step, _)| progress.ended_at.get(&step.id).copied())
            .max();
        let since = promoted.unwrap_or(progress.began).max(progress.began);
        self.view
            .reading(candidate)
            .is_none_or(|reading| reading.seen < since || reading.report.has_unapplied())
    }

    /// It applies on, and is worth waiting for.
    fn applies_on(&self, candidate: &InstanceKey, progress: &Progress) -> bool {
        let runs = self
            .view
            .reading(candidate)
            .and_then(|reading| reading.report.replication.as_ref())
            .is_none_or(|status| status.sql == ThreadState::Running);
        runs && !self.is_unread(candidate)
            && self.now.since(progress.stage_since) < self.view.policy().drain_max
    }

    /// Nothing is left to be applied, nor received.
    fn reset(&self, offset: u64, candidate: &InstanceKey) -> Step {
        let statements = vec![Statement::StopReplication, Statement::ResetReplicaAll];
        self.step(
            offset,
            StepKind::Reset,
            candidate,
            Lane::Act,
            statements,
            RESET_DEADLINE,
        )
    }

    /// Fence and kill on the old primary, once, if it answers while the others are regrouped.
    fn fence_returned(&self, offset: u64, progress: &Progress) -> Vec<Step> {
        if !self.view.has_returned() {
            return Vec::new();
        }
        // An earlier one was of a return before that, and it may have been restarted since.
        let promoted = self.recovery.steps_of(StepKind::Promote).next();
        let promoted = promoted.map_or(StepId(0), |(step, _)| step.id);
        let fence = self.recovery.steps_of(StepKind::Fence).last();
        if let Some((step, phase)) = fence.filter(|(step, _)| step.id > promoted) {
            let is_over = match self.state(step, phase, progress) {
                State::Pending | State::Done | State::LookAfter(_) => true,
                State::NotDone(_) => {
                    self.tries(StepKind::Fence, self.failed()) >= FENCE_TRIES
                        || progress
                            .ended_at
                            .get(&step.id)
                            .is_some_and(|ended| self.now.since(*ended) < RETRY_INTERVAL)
                }
            };
            if is_over {
                return Vec::new();
            }
        }
        vec![
            self.step(
                offset,
                StepKind::Fence,
                self.failed(),
                Lane::Fence,
                vec![Statement::Fence],
                FENCE_DEADLINE,
            ),
            self.step(
                offset + 1,
                StepKind::KillClients,
                self.failed(),
                Lane::Kill,
                vec![Statement::KillClients {
                    spare_users: self.view.policy().spare_users.clone(),
                }],
                KILL_DEADLINE,
            ),
        ]
    }

    fn repoint(&self, key: &InstanceKey, candidate: &InstanceKey, progress: &Progress) -> Ready {
        let is_read = self
            .view
            .reading(key)
            .is_some_and(|reading| reading.seen >= progress.began);
        if !is_read {
            return Ready::Later;
        }
        if self.lacks_its_applier(key) {
            let statements = vec![Statement::StartSqlThread, Statement::StopIoThread];
            return self.halt_late(key, statements, progress);
        }
        match repoint(self.view, self.failed(), key, candidate) {
            Ready::Halt(statements) => self.halt_late(key, statements, progress),
            ready => ready,
        }
    }

    /// A step of ours stopped its applier and was refused behind that, since it receives again. Whatever it holds, its applier is not
    /// left so.
    fn lacks_its_applier(&self, key: &InstanceKey) -> bool {
        let steps = self.recovery.steps_of(StepKind::Repoint);
        let last = steps.filter(|(step, _)| step.server == *key).last();
        let was_stopped = last.is_some_and(|(step, phase)| {
            *phase != Phase::Settled(Outcome::Done)
                && step.statements.contains(&Statement::StopSqlThread)
        });
        let reading = self.view.reading(key);
        let status = reading.and_then(|reading| reading.report.replication.as_ref());
        was_stopped
            && status.is_some_and(|status| {
                status.source == *self.failed()
                    && status.io != ThreadState::Stopped
                    && status.sql == ThreadState::Stopped
                    && status.sql_errno == 0
            })
    }

    /// For a replica that was not halted in time, that was not known then, or that was restarted since.
    fn halt_late(
        &self,
        key: &InstanceKey,
        statements: Vec<Statement>,
        progress: &Progress,
    ) -> Ready {
        let last = self
            .recovery
            .steps_of(StepKind::Halt)
            .filter(|(step, _)| step.server == *key)
            .last();
        let is_under_way = last.is_some_and(|(step, phase)| {
            matches!(
                self.state(step, phase, progress),
                State::Pending | State::LookAfter(_)
            )
        });
        if is_under_way
            || self.is_just_tried(StepKind::Halt, key, progress)
            || self.tries(StepKind::Halt, key) >= HALT_TRIES
        {
            return Ready::Later;
        }
        Ready::Halt(statements)
    }

    // --- undo ---

    fn undo(&self, end: End, progress: &Progress) -> Move {
        if !self.recovery.has_acted() {
            return Move::End {
                end,
                successor: None,
                lost: Vec::new(),
                participants: Vec::new(),
                lines: vec![String::from("nothing had been changed")],
            };
        }
        let mut steps = Vec::new();
        let mut lines = Vec::new();
        // What this recovery closed it opens, whatever was read since.
        let was_fenced = self.recovery.may_have_closed();
        let mut is_to_be_open = was_fenced;
        match &end {
            End::Undone { reason } => {
                lines.push(format!("undoing: {reason}"));
                is_to_be_open = true;
            }
            End::Failed { reason } => lines.push(format!("nothing is promoted: {reason}")),
            End::Succeeded => {}
        }
        let heads = self
            .view
            .reading(self.failed())
            .is_some_and(|reading| reading.report.replication.is_none());
        if is_to_be_open
            && (was_fenced || heads)
            // The record says how it was, whoever began this and whatever was read of it since.
            && !self.recovery.was_read_only
        {
            steps.push(self.step(
                0,
                StepKind::Reopen,
                self.failed(),
                Lane::Act,
                vec![Statement::MakeWriteable],
                REOPEN_DEADLINE,
            ));
        }
        let mut is_waiting = false;
        for key in self.halted() {
            match self.resume(key, progress) {
                Resume::Yes => {
                    let offset = steps.len() as u64;
                    steps.push(self.resume_step(offset, key));
                }
                Resume::Look => {
                    lines.push(format!(
                        "{key} was not read since its halt ended: its receiver is started when its applier is seen to run"
                    ));
                    is_waiting = true;
                }
                Resume::No(why) => lines.push(why),
            }
        }
        if steps.is_empty() && !is_waiting {
            return Move::End {
                end,
                successor: None,
                lost: Vec::new(),
                participants: Vec::new(),
                lines,
            };
        }
        Move::Undo {
            ending: end,
            steps,
            lines,
        }
    }

    /// Replicas whose receivers this recovery stopped, or tried to.
    fn halted(&self) -> BTreeSet<&InstanceKey> {
        self.recovery
            .steps_of(StepKind::Halt)
            .filter(|(step, _)| step.statements.contains(&Statement::StopIoThread))
            .map(|(step, _)| &step.server)
            .collect()
    }

    /// Whether the receiver of a replica that this recovery halted is to be started. On MariaDB that throws the relay log away
    /// unless the applier runs (F1), and a stop of the applier that was under way when the halt came takes effect before the
    /// halt does, since the one waits for the other: only what was read after the halt had ended tells.
    fn resume(&self, key: &InstanceKey, progress: &Progress) -> Resume {
        let Some(reading) = self.view.reading(key) else {
            return Resume::Look;
        };
        if reading.report.flavour != Flavour::Mariadb {
            return Resume::Yes;
        }
        let last = self.recovery.steps.values().rfind(|(step, _)| {
            step.server == *key && matches!(step.kind, StepKind::Halt | StepKind::Resume)
        });
        if let Some((step, phase)) = last {
            let is_pending = matches!(phase, Phase::Intended(epoch) if *epoch == self.mine);
            if is_pending || reading.seen < self.ended(step, progress) {
                return Resume::Look;
            }
            // A halt without an outcome may still wait there.
            let receives = reading
                .report
                .replication
                .as_ref()
                .is_some_and(|status| status.io != ThreadState::Stopped);
            if receives && !is_known(phase) {
                return Resume::Look;
            }
        }
        if may_receive(reading.report) {
            Resume::Yes
        } else {
            Resume::No(format!(
                "{key}: its applier does not run; left halted so that nothing received is purged"
            ))
        }
    }

    /// A halt has ended by then, or was killed, and a look takes a moment. One that does not answer is left to whoever starts
    /// it when it does.
    fn is_worth_a_look(&self, key: &InstanceKey, progress: &Progress) -> bool {
        let patience = self.halt_step_deadline() + UNREAD_MAX;
        self.now.since(progress.stage_since) < patience && !self.is_unread(key)
    }

    fn is_told(&self, line: &str) -> bool {
        let mut told = self.recovery.lines.iter();
        told.any(|told| told.message == line)
    }

    fn resume_step(&self, offset: u64, key: &InstanceKey) -> Step {
        self.step(
            offset,
            StepKind::Resume,
            key,
            Lane::Act,
            vec![Statement::StartIoThread],
            REPOINT_DEADLINE,
        )
    }

    fn after_undo(&self, progress: &mut Progress) -> Move {
        let mut look = Vec::new();
        let mut errors = Vec::new();
        let mut left_closed = None;
        let mut pending = None;
        let mut steps: Vec<Step> = Vec::new();
        let newest: BTreeMap<(StepKind, &InstanceKey), (&Step, &Phase)> = self
            .recovery
            .steps
            .values()
            .filter(|(step, _)| matches!(step.kind, StepKind::Resume | StepKind::Reopen))
            .map(|(step, phase)| ((step.kind, &step.server), (step, phase)))
            .collect();
        for (step, phase) in newest.into_values() {
            // A primary that stays closed is an outage: what refuses to open it may pass.
            let is_tried_on = self.tries(step.kind, &step.server) < STEP_TRIES
                || step.kind == StepKind::Reopen
                    && self.recovery.may_have_closed()
                    && self.now.since(progress.stage_since) < PROMOTE_PATIENCE;
            let resume = if step.kind == StepKind::Resume {
                self.resume(&step.server, progress)
            } else {
                Resume::Yes
            };
            let is_read_on = resume == Resume::Yes
                || resume == Resume::Look && self.is_worth_a_look(&step.server, progress);
            match self.state(step, phase, progress) {
                // Nothing is left halted because a leader or a connection ended.
                State::NotDone(_)
                    if resume == Resume::Yes
                        && is_tried_on
                        && progress
                            .ended_at
                            .get(&step.id)
                            .is_none_or(|ended| self.now.since(*ended) >= RETRY_INTERVAL) =>
                {
                    let offset = steps.len() as u64;
                    steps.push(self.step(
                        offset,
                        step.kind,
                        &step.server,
                        step.lane,
                        step.statements.clone(),
                        step.deadline,
                    ));
                }
                State::NotDone(_) if is_read_on && is_tried_on => {
                    look.push(step.server.clone());
                }
                State::Pending => pending = pending.max(Some(self.now + step.deadline)),
                State::LookAfter(_) if self.now.since(progress.stage_since) < REGROUP_PATIENCE => {
                    look.push(step.server.clone());
                }
                State::LookAfter(_) => errors.push(format!("{step}: cannot be verified")),
                State::NotDone(why) => {
                    errors.push(format!("{step}: {why}"));
                    if step.kind == StepKind::Reopen {
                        left_closed = Some(why);
                    }
                }
                State::Done => {}
            }
        }
        for key in self.halted() {
            if self.tries(StepKind::Resume, key) > 0 {
                continue;
            }
            match self.resume(key, progress) {
                Resume::Yes => {
                    let offset = steps.len() as u64;
                    steps.push(self.resume_step(offset, key));
                }
                Resume::Look if self.is_worth_a_look(key, progress) => look.push(key.clone()),
                Resume::Look => errors.push(format!(
                    "{key}: whether its applier runs since it was halted is not known; its receiver is not started"
                )),
                Resume::No(why) if self.is_told(&why) => {}
                Resume::No(why) => errors.push(why),
            }
        }
        if !steps.is_empty() {
            return Move::Intend {
                stage: Stage::Undo,
                candidate: None,
                steps,
                lines: Vec::new(),
            };
        }
        if !look.is_empty() {
            return Move::Look {
                keys: look,
                until: self.now + LOOK_INTERVAL * 2,
            };
        }
        if let Some(until) = pending {
            return Move::Wait { until };
        }
        let end = match (&self.recovery.ending, left_closed) {
            (Some(ending), _) => ending.clone(),
            (None, Some(why)) => End::Failed {
                reason: format!(
                    "the primary answered before the promotion, and was not opened again: {why}"
                ),
            },
            (None, None) => End::Undone {
                reason: String::from("the primary answered before the promotion"),
            },
        };
        Move::End {
            end,
            successor: None,
            lost: Vec::new(),
            participants: self.siblings(),
            lines: errors,
        }
    }

    // --- steps ---

    fn state(&self, step: &Step, phase: &Phase, progress: &Progress) -> State {
        match phase {
            Phase::Intended(epoch) if *epoch == self.mine => State::Pending,
            Phase::Intended(_) => self.look(step, progress.began),
            // That its statements were taken says nothing of what the promoted server will say to it.
            Phase::Settled(Outcome::Done) if step.kind == StepKind::Repoint => {
                self.look(step, self.ended(step, progress))
            }
            Phase::Settled(Outcome::Done) => State::Done,
            Phase::Settled(Outcome::Refused { code, reason }) => {
                // Part of it may have been done before the refusal: what counts is how the server looks.
                match self.look(step, self.ended(step, progress)) {
                    State::Done => State::Done,
                    State::Pending | State::NotDone(_) | State::LookAfter(_) => {
                        State::NotDone(format!("refused ({code}): {reason}"))
                    }
                }
            }
            Phase::Settled(Outcome::Unknown { .. }) => self.look(step, self.ended(step, progress)),
        }
    }

    /// From when on a reading shows what came of a step: since its outcome arrived, or since this leader began.
    fn ended(&self, step: &Step, progress: &Progress) -> Mono {
        let ended = progress.ended_at.get(&step.id).copied();
        ended.unwrap_or(progress.began)
    }

    fn look(&self, step: &Step, after: Mono) -> State {
        match self.view.reading(&step.server) {
            Some(reading) if reading.seen > after => {
                if !step.is_meant_for(&reading.report.identity) {
                    State::NotDone(String::from("another server answers there"))
                } else if step.kind == StepKind::Repoint {
                    self.look_at_replica(&step.server, reading, after)
                } else if self.is_done(step, reading.report) {
                    State::Done
                } else {
                    State::NotDone(String::from("looked at again: not done"))
                }
            }
            _ => match self.view.checked(&step.server) {
                Some(checked) if checked > after + UNREAD_MAX => {
                    State::NotDone(String::from("it cannot be read"))
                }
                _ => State::LookAfter(after),
            },
        }
    }

    /// Of a replica that was to be pointed at the promoted server, by a reading after that.
    fn look_at_replica(&self, key: &InstanceKey, reading: Reading<'_>, after: Mono) -> State {
        let runs_for = reading.seen.since(after);
        let status = reading.report.replication.as_ref();
        match status.filter(|status| Some(&status.source) == self.recovery.candidate.as_ref()) {
            None => State::NotDone(String::from("looked at again: not done")),
            Some(status) if is_turned_away(status) => State::NotDone(receiver_in_words(status)),
            Some(status) if follows(status, runs_for) => State::Done,
            Some(_) if self.is_unread(key) => {
                State::NotDone(String::from("it cannot be read any more"))
            }
            Some(_) => State::LookAfter(reading.seen),
        }
    }

    /// What a step's server looks like once it is done.
    fn is_done(&self, step: &Step, report: &ProbeReport) -> bool {
        let status = report.replication.as_ref();
        match step.kind {
            StepKind::Fence => report.read_only,
            StepKind::KillClients => true,
            StepKind::Halt => {
                status.is_some_and(|status| matches!(status.io, ThreadState::Stopped))
            }
            StepKind::Drain => status.is_some_and(|status| status.sql == ThreadState::Running),
            StepKind::Promote => !report.read_only || !self.view.policy().apply_promotion,
            StepKind::Reset => status.is_none(),
            // Looked at in its own way: it may be neither done nor not done.
            StepKind::Repoint => false,
            StepKind::Resume => status.is_some_and(|status| status.io != ThreadState::Stopped),
            StepKind::Reopen => !report.read_only,
            // A hook leaves nothing on a server that could be looked at.
            StepKind::Operate | StepKind::Hook => false,
        }
    }
}

fn is_known(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Settled(Outcome::Done | Outcome::Refused { .. })
    )
}

/// The lists that are run after a promotion.
pub const AFTER_PROMOTION: [HookList; 2] = [HookList::PostPrimaryFailover, HookList::PostFailover];

/// The lists that are run when a recovery has ended: none if a hook before it said no.
#[must_use]
pub fn hooks_after(recovery: &Recovery) -> &'static [HookList] {
    match &recovery.end {
        Some((_, End::Succeeded)) => &AFTER_PROMOTION,
        Some((_, End::Failed { reason })) if reason.starts_with(NOT_ATTEMPTED) => &[],
        Some((_, End::Failed { .. } | End::Undone { .. })) => &[HookList::PostUnsuccessfulFailover],
        None => &[],
    }
}

const NOT_ATTEMPTED: &str = "not attempted: ";

fn not_attempted(why: &str) -> Move {
    Move::End {
        end: End::Failed {
            reason: format!("{NOT_ATTEMPTED}{why}"),
        },
        successor: None,
        lost: Vec::new(),
        participants: Vec::new(),
        lines: Vec::new(),
    }
}

/// The next step of a recovery: this hook.
#[must_use]
pub fn hook_step(recovery: &Recovery, hook: Hook) -> Step {
    Step {
        id: recovery.next_step_id(),
        kind: StepKind::Hook,
        server: recovery.server.clone(),
        identity: None,
        lane: Lane::Act,
        statements: vec![Statement::RunHook { hook }],
        deadline: HOOK_DEADLINE,
        read_after: false,
    }
}

/// A plan for clusters with semi-synchronous replication does not exist: said before anything is changed. Of a primary that was
/// never read, what its replicas are set to is all that is known.
pub(super) fn semi_sync_refusal<'a>(
    failed: (&InstanceKey, Option<&ProbeReport>),
    mut replicas: impl Iterator<Item = (&'a InstanceKey, &'a ProbeReport)>,
) -> Option<String> {
    let (failed, report) = failed;
    let Some(report) = report else {
        let (replica, report) = replicas.find(|(_, report)| report.semi_sync.replica_enabled)?;
        let name = if report.semi_sync.replica_spelling {
            "replica"
        } else {
            "slave"
        };
        return Some(format!(
            "{replica} acknowledges what it receives (semi-synchronous replication), and {failed} was never read, so that \
             whether it waited for that is not known; promoting in such a cluster is not supported by this version, so \
             nothing was changed; if it did not wait, type on each replica that acknowledges, to have the cluster repaired:  \
             SET GLOBAL rpl_semi_sync_{name}_enabled = OFF"
        ));
    };
    let semi_sync = &report.semi_sync;
    (semi_sync.source_enabled && semi_sync.source_wait_count > 0).then(|| {
        format!(
            "{failed} used semi-synchronous replication ({} acknowledgement(s)); promoting in such a cluster is not \
             supported by this version, so nothing was changed",
            semi_sync.source_wait_count
        )
    })
}

/// Whether the promoted server takes writes, as far as is known.
enum Opened {
    Yes,
    Pending,
    /// It is to be opened by this step.
    No(Box<Step>),
}

/// Where a replica stands on its way below the promoted server.
enum Sibling {
    /// Seen to be connected to it.
    Follows,
    /// A step is under way.
    Pending,
    /// To be read again.
    Look,
    /// Its receiver has not reached the promoted server so far.
    Connecting,
    Act(StepKind, Vec<Statement>, Duration),
    /// It is given up, for this reason.
    Lost(String),
}

/// Whether a replica that was halted is made to receive again.
#[derive(PartialEq, Eq)]
enum Resume {
    Yes,
    /// Only a reading of it tells.
    Look,
    /// That would throw away what it received: what the record says of it.
    No(String),
}

/// Whether a replica can be pointed elsewhere.
pub(crate) enum Ready {
    Now(Vec<Statement>),
    /// To be halted first.
    Halt(Vec<Statement>),
    Already,
    /// Not read since this leader began, or not everything received is applied.
    Later,
    Never(String),
}

/// Stop receiving, never both threads at once. None for a server that replicates from nobody.
fn halt_statements(report: &ProbeReport) -> Option<Vec<Statement>> {
    let status = report.replication.as_ref()?;
    Some(match (report.flavour, status.io, status.sql) {
        // Nothing is received; starting a thread would purge what is there (F1).
        (Flavour::Mariadb, ThreadState::Stopped, ThreadState::Stopped) => Vec::new(),
        // Stopped by people, who would not have it started by an undo.
        (_, ThreadState::Stopped, _) if status.io_errno == 0 => Vec::new(),
        // The applier first: a stop of the receiver with the applier down would purge the relay log (F2).
        (
            Flavour::Mariadb,
            _,
            ThreadState::Stopped | ThreadState::NoThread | ThreadState::Other,
        ) => {
            vec![Statement::StartSqlThread, Statement::StopIoThread]
        }
        (Flavour::Mariadb, _, ThreadState::Running) => vec![Statement::StopIoThread],
        (Flavour::Mysql | Flavour::Percona | Flavour::MaxScale, _, _) => {
            vec![Statement::StopIoThread]
        }
    })
}

/// How a replica of the failed primary is pointed at the promoted server, by what was read of it last.
pub(crate) fn repoint(
    view: &impl View,
    failed: &InstanceKey,
    key: &InstanceKey,
    candidate: &InstanceKey,
) -> Ready {
    let Some(reading) = view.reading(key) else {
        return Ready::Later;
    };
    let report = reading.report;
    let Some(status) = report.replication.as_ref() else {
        return Ready::Later;
    };
    if status.source == *candidate && !is_turned_away(status) && status.sql == ThreadState::Running
    {
        return Ready::Already;
    }
    // Whether anything is unapplied, or is more than the promoted server has, is not known either: nothing is done to it.
    let source = view.reading(failed).map(|reading| reading.report);
    if !report.knows_what_it_holds_of(source) {
        return Ready::Never(without_gtid(key));
    }
    if status.source != *candidate
        && let Some(promoted) = view.reading(candidate)
        && let Some(why) = holds_more(view, failed, report, promoted.report)
    {
        return Ready::Never(why);
    }
    // What it receives until it is pointed elsewhere nobody would look at: an old primary that thaws takes a few writes
    // before it is fenced. So it receives nothing more when it is judged.
    if status.source == *failed && status.io != ThreadState::Stopped {
        return halt_statements(report).map_or(Ready::Later, Ready::Halt);
    }
    if let Some(promoted) = view.reading(candidate)
        && let Some(why) = lacks_purged(report, promoted.report)
    {
        return Ready::Never(format!("it {why}"));
    }
    // It would never catch up, and a change of source would throw away what it could not apply.
    if report.has_unapplied() && status.sql != ThreadState::Running && status.sql_errno != 0 {
        return Ready::Never(format!(
            "its applier stopped on error {}: {}",
            status.sql_errno, status.sql_error
        ));
    }
    if let Some(why) = cannot_apply(report) {
        return Ready::Never(format!("it {why}"));
    }
    // The receiver of a halted replica is not stopped once more: a server that was restarted since it was read receives again, and
    // refuses a change of its source (error 3021, MariaDB's 1198). It is halted again then, and judged by what it received.
    let is_halted = status.source == *failed;
    let stop_what_runs = || {
        if is_halted {
            Statement::StopSqlThread
        } else {
            Statement::StopReplication
        }
    };
    match report.flavour {
        Flavour::Mariadb => {
            if report.has_unapplied() {
                return Ready::Later;
            }
            Ready::Now(vec![
                stop_what_runs(),
                change_source(candidate, SourcePosition::MariadbSlavePos, status),
                Statement::StartReplication,
            ])
        }
        Flavour::Mysql | Flavour::Percona | Flavour::MaxScale => {
            // The relay log survives a change of source only while the applier runs (F6), and stopping the applier
            // may take a minute: it is left as it is.
            if status.auto_position {
                let mut statements = Vec::new();
                if !is_halted {
                    statements.push(Statement::StopIoThread);
                }
                if status.sql != ThreadState::Running {
                    statements.push(Statement::StartSqlThread);
                }
                statements.push(change_source(candidate, SourcePosition::OracleKept, status));
                statements.push(Statement::StartReplication);
                return Ready::Now(statements);
            }
            // From file and position to GTID both threads must stop, so nothing may be left to apply.
            if report.has_unapplied() {
                return Ready::Later;
            }
            Ready::Now(vec![
                stop_what_runs(),
                change_source(candidate, SourcePosition::OracleAuto, status),
                Statement::StartReplication,
            ])
        }
    }
}

/// What a replica received of the failed primary and the promoted server did not: one that was not halted in time,
/// or was away. Following the promoted server, it would keep transactions that nobody else has.
fn holds_more(
    view: &impl View,
    failed: &InstanceKey,
    report: &ProbeReport,
    promoted: &ProbeReport,
) -> Option<String> {
    let failed = Failed {
        report: view.reading(failed).map(|reading| reading.report),
    };
    let (theirs, _) = without_errant(report, report.held_from_source()?, failed);
    let missing = promoted.held_from_source()?.missing_count(&theirs).ok()?;
    (missing > 0).then(|| {
        format!(
            "it holds {missing} transaction(s) of the failed primary that the promoted server lacks"
        )
    })
}

/// Errors that a receiver goes on dialling with, and that no further dial will mend: access denied (1045, 1698), the host
/// is not allowed or blocked (1130, 1129), and a channel whose TLS or authentication does not suit the source (2026, 2059,
/// 2061). By others, such as a log that was purged, it is stopped.
const TURNED_AWAY: [u32; 7] = [1045, 1129, 1130, 1698, 2026, 2059, 2061];

/// The receiver does not run, or dials a source that does not want it. It does not get there by waiting.
fn is_turned_away(status: &ReplicaStatus) -> bool {
    match status.io {
        ThreadState::Running => false,
        ThreadState::Other => TURNED_AWAY.contains(&status.io_errno),
        ThreadState::Stopped | ThreadState::NoThread => true,
    }
}

/// The receiver was let in, and is sent what it lacks. That it runs is not enough: for as long as the source looks for the
/// place in its log (30 ms on MySQL, up to 130 ms on MariaDB) one that is going to be refused runs, too. A change of source empties the name of the file that is read, and the first event fills it: `tests/facts`, on
/// MySQL and MariaDB.
fn follows(status: &ReplicaStatus, runs_for: Duration) -> bool {
    status.io == ThreadState::Running
        && (!status.read.file.is_empty() || runs_for >= SILENT_CONNECTION_SETTLES)
}

/// Why a replica does not receive.
fn receiver_in_words(status: &ReplicaStatus) -> String {
    let receiver = match status.io {
        ThreadState::Running => "its receiver runs",
        ThreadState::Other => "its receiver is still connecting",
        ThreadState::Stopped | ThreadState::NoThread => "its receiver has stopped",
    };
    match status.io_errno {
        0 => String::from(receiver),
        number => format!("{receiver}: error {number}: {}", status.io_error),
    }
}

/// The receiver may be started: on MariaDB beside a running applier only, or with nothing left to apply (F1).
pub(crate) fn may_receive(report: &ProbeReport) -> bool {
    report.flavour != Flavour::Mariadb
        || !report.has_unapplied()
        || report
            .replication
            .as_ref()
            .is_none_or(|status| status.sql == ThreadState::Running)
}

fn change_source(
    source: &InstanceKey,
    position: SourcePosition,
    status: &ReplicaStatus,
) -> Statement {
    Statement::ChangeSource {
        source: source.clone(),
        position,
        options: status.options.clone(),
    }
}
