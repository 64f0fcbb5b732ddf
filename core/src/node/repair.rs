//! Repairing: what was committed is carried out, and what comes next is proposed.
//!
//! A recovery moves only while this node leads and owns it. Each move is a proposal; effects go out when it is
//! committed, under this epoch; outcomes are committed before anything is built on them.

use alloc::{boxed::Box, format, string::ToString, sync::Arc, vec::Vec};

use rand_core::Rng;

use super::{
    Adopt, Cause, Effect, Entries, Fatal, Level, Node, Output, Proposal, RaftView, Reply, StepEnd,
    note,
};
use crate::{
    analysis::verdict::Watched,
    id::{Epoch, InstanceKey, LogPosition, ProposalId, StepId, Uid},
    node::input::OpinionKind,
    policy::Policy,
    recovery::{
        DeadKind, End, HookCounts, Outcome, Phase, Purpose, Recovery, Stage, Statement, StepKind,
        audit,
        dead_primary::{self, Move, Progress, Reading, View},
        hook, operation,
    },
    replicated::{Answer, Command, Entry, wire},
    time::{Mono, Now},
    topology::{Instance, PromotionRule},
};

/// Least pause between two thoughts about one recovery.
const WAIT_MIN: core::time::Duration = core::time::Duration::from_millis(1);
/// What was decided so long before it is heard of is told as what it is: a daemon that is started reads its log once more, and
/// whoever is woken by its warnings must not be woken by these. Clocks of daemons may differ by as much without a word, and a
/// leader is the first to hear of what took long to be committed.
const OLD_NEWS: core::time::Duration = core::time::Duration::from_secs(60);
/// Pause after a move that was refused or not committed.
pub(super) const MOVE_AGAIN_AFTER: core::time::Duration = core::time::Duration::from_millis(100);

pub(super) fn unknown() -> Reply {
    Reply::Unknown("it was proposed, and whether it was committed is not known".to_string())
}

impl Node {
    pub(super) fn raft_changed(&mut self, now: Now, view: RaftView, out: &mut Output) {
        let before = self.raft.leading;
        self.raft = view;
        self.quorum_changed(now, out);
        if self.raft.leading == before {
            return;
        }
        if self.raft.leading.is_some() && self.raft.leading != self.last_led {
            self.progress.clear();
            self.outcomes.clear();
            self.remembered.clear();
            self.unrecorded.clear();
            self.last_led = self.raft.leading;
        }
        self.wait_until.clear();
        self.beginning.clear();
        self.members_leadership_changed(now, out);
        // What was proposed under the former epoch is void, or shows when it is applied; nothing waits for its end.
        let void: Vec<ProposalId> = self
            .proposals
            .iter()
            .filter(|(_, (cause, _))| !matches!(cause, Cause::Request(_) | Cause::Discover(..)))
            .map(|(id, _)| *id)
            .collect();
        for id in void {
            match self.proposals.remove(&id) {
                Some((Cause::Begin(_, uid), _)) => self.answer_operation(&uid, unknown(), out),
                Some((Cause::MembersFor(request, _), _)) => {
                    out.effects.push(Effect::Answer(request, unknown()));
                }
                Some(_) | None => {}
            }
        }
        match self.raft.leading {
            Some(epoch) => {
                note(
                    out,
                    Level::Info,
                    None,
                    format!("this daemon leads, epoch {epoch}"),
                );
                self.house_at = now.mono;
            }
            None => note(
                out,
                Level::Info,
                None,
                "this daemon does not lead any more".to_string(),
            ),
        }
    }

    pub(super) fn committed(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        entries: Entries,
        out: &mut Output,
    ) {
        for (at, entry) in entries {
            let bytes = match entry {
                Entry::Command(bytes) => bytes,
                Entry::Blank => {
                    self.replicated.pass(at);
                    self.note_digest(out);
                    out.applied.push(Answer::Done);
                    continue;
                }
                Entry::Members(members) => {
                    let applied = self.replicated.seat(at, &members);
                    out.applied.push(Answer::Done);
                    out.changes.extend(applied.changes);
                    self.note_digest(out);
                    self.members_seated(now, out);
                    continue;
                }
            };
            let newest = u8::try_from(self.reads.command).unwrap_or(u8::MAX);
            match wire::decode_command_up_to(newest, &bytes) {
                Ok(stamped) => {
                    let told = out.notes.len();
                    let applied = self.replicated.apply(at, &stamped);
                    if let Err(fatal) = self.check_versions(at) {
                        out.fatal = Some(fatal);
                        return;
                    }
                    if let Err(fatal) = self.check_entry(at, &applied.changes) {
                        out.fatal = Some(fatal);
                        return;
                    }
                    self.note_digest(out);
                    for change in &applied.changes {
                        self.learned.follow(now.mono, change);
                    }
                    for change in &applied.changes {
                        self.follow_record(now, change);
                    }
                    if let Answer::Refused(refusal) = &applied.answer {
                        note(
                            out,
                            Level::Debug,
                            None,
                            format!("entry {at} was refused: {refusal}"),
                        );
                    } else {
                        self.follow_up(now, rng, at, &stamped.command, out);
                    }
                    if let (Command::RegisterDetection(detection), Answer::Numbered(number)) =
                        (&stamped.command, &applied.answer)
                    {
                        self.tell_detection(now, *number, detection, out);
                    }
                    out.applied.push(applied.answer);
                    out.changes.extend(applied.changes);
                    let age = now.wall.since(stamped.wall);
                    if age >= OLD_NEWS && self.leading().is_none() {
                        for note in out.notes.iter_mut().skip(told) {
                            note.level = note.level.min(Level::Info);
                            note.text = format!("{} s ago: {}", age.as_secs(), note.text);
                        }
                    }
                }
                Err(error) => {
                    out.fatal = Some(Fatal {
                        entry: Some(at),
                        reason: format!(
                            "entry {at} of the raft log cannot be read: {error}; this daemon is too old for its cluster, or \
                             the log is damaged; nothing was changed"
                        ),
                    });
                    return;
                }
            }
        }
    }

    /// Whether this daemon still reads what its cluster writes. From the entry on that switches a later version on it
    /// must not hold the state: what comes behind that entry would be lost on it.
    pub(super) fn check_versions(&self, at: LogPosition) -> Result<(), Fatal> {
        let held = self.replicated.versions();
        let reads = self.reads;
        if held.command <= reads.command && held.snapshot <= reads.snapshot {
            return Ok(());
        }
        Err(Fatal {
            entry: Some(at),
            reason: format!(
                "entry {at} of the raft log switched on version {} of commands and {} of snapshots, and this daemon reads \
                 them up to {} and {}: it is too old for its cluster; install the release that the other members run; \
                 nothing was lost",
                held.command, held.snapshot, reads.command, reads.snapshot
            ),
        })
    }

    /// What a command that took effect means for this node.
    fn follow_up(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        at: LogPosition,
        command: &Command,
        out: &mut Output,
    ) {
        match command {
            Command::Know { keys, .. } => {
                for key in keys {
                    if self.replicated.is_known(key) {
                        self.know(now, rng, key);
                    }
                }
            }
            Command::Forget { keys } => {
                // Those that a recovery needs stay known.
                for key in keys {
                    if !self.replicated.is_known(key) {
                        self.forget(now, key, out);
                    }
                }
            }
            Command::SetPolicy(_) => {
                self.policy_changed(now);
                self.tell_policy(out);
            }
            Command::BeginDowntime { key, .. }
            | Command::EndDowntime { key }
            | Command::BeginMaintenance { key, .. }
            | Command::EndMaintenance { key } => self.refresh(now, key, None),
            Command::BeginRecovery { uid, server, .. } => {
                if let Some(recovery) = self.replicated.recovery(uid) {
                    note(
                        out,
                        Level::Warning,
                        Some(uid),
                        format!(
                            "{} of {server} in cluster {} began",
                            recovery.purpose, recovery.cluster_name
                        ),
                    );
                    if recovery.detection != 0 {
                        note(
                            out,
                            Level::Info,
                            Some(uid),
                            format!(
                                "it was detected as {} (detection {})",
                                recovery.analysis, recovery.detection
                            ),
                        );
                    }
                }
                self.log_lines(uid, 0, out);
                self.beginning.remove(server);
                self.tell_again(now, uid, out);
            }
            Command::TakeOver { uid, epoch } => {
                note(
                    out,
                    Level::Warning,
                    Some(uid),
                    format!("taken over by epoch {epoch}"),
                );
            }
            Command::Intend {
                uid,
                epoch,
                stage,
                steps,
                lines,
                ..
            } => {
                self.log_lines(uid, lines.len(), out);
                if *stage == Stage::Closed {
                    self.outcomes.remove(uid);
                }
                if self.leading() == Some(*epoch) {
                    for step in steps {
                        let effect = match step.statements.first() {
                            Some(Statement::RunHook { hook }) => {
                                self.hook_effect(now, uid, step.id, *epoch, *hook)
                            }
                            Some(_) | None => Some(Effect::Run {
                                uid: uid.clone(),
                                epoch: *epoch,
                                step: step.clone(),
                            }),
                        };
                        out.effects.extend(effect);
                    }
                } else if self.last_led == Some(*epoch) {
                    // Its own, committed while it had no quorum: nobody sends these, so none has happened, should it lead on
                    // under this epoch.
                    let held_back = steps.iter().map(|step| {
                        let reason = "not sent: its leader had no quorum when it was committed";
                        let outcome = Outcome::Refused {
                            code: 0,
                            reason: reason.to_string(),
                        };
                        (step.id, outcome)
                    });
                    self.outcomes
                        .entry(uid.clone())
                        .or_default()
                        .extend(held_back);
                }
                let is_promotion = *stage == Stage::Promote
                    && steps.iter().any(|step| step.kind == StepKind::Promote);
                if is_promotion
                    && let Some(recovery) = self.replicated.recovery(uid)
                    && recovery.purpose
                        == (Purpose::DeadPrimary {
                            kind: DeadKind::Silent,
                        })
                {
                    let key = recovery.server.clone();
                    // Not where this daemon sees it alive, nor when an old entry is replayed at start: another server,
                    // or the same one in another role, may answer there by this time.
                    let is_missing = self.watched.get(&key).is_some_and(|watched| {
                        watched.missing_since().is_some()
                            && (watched.identity.is_none()
                                || recovery.identity.is_none()
                                || watched.identity == recovery.identity)
                    });
                    if !is_missing {
                        return;
                    }
                    out.effects.push(Effect::FenceFrozen {
                        uid: uid.clone(),
                        epoch: *epoch,
                        key,
                    });
                }
            }
            Command::Settle {
                uid,
                outcomes,
                lines,
                ..
            } => {
                self.log_lines(uid, lines.len(), out);
                self.read_repointed(now, uid, outcomes, out);
            }
            Command::Remark {
                uid,
                lines,
                errors,
                possible_loss,
                ..
            } => {
                self.log_lines(uid, lines.len(), out);
                for error in errors {
                    note(out, Level::Error, Some(uid), error.clone());
                }
                for loss in possible_loss {
                    note(
                        out,
                        Level::Warning,
                        Some(uid),
                        format!("possible loss: {loss}"),
                    );
                }
            }
            Command::EndRecovery {
                uid, end, lines, ..
            } => {
                self.log_lines(uid, lines.len(), out);
                self.recovery_ended(now, uid, end, out);
            }
            Command::LiftQuarantine { identity, reason } => {
                note(
                    out,
                    Level::Info,
                    None,
                    format!("the quarantine of {identity} is lifted: {reason}"),
                );
            }
            Command::RegisterDetection(detection) => {
                // Of a death that this daemon judged; the others learn the uid with the recovery.
                let uid = self
                    .suspicions
                    .get(&detection.server)
                    .and_then(|suspicion| suspicion.uid.as_ref());
                note(
                    out,
                    Level::Warning,
                    uid,
                    format!(
                        "detected {} on {} at {at}",
                        detection.analysis, detection.server
                    ),
                );
            }
            Command::TellOfDetection {
                number,
                epoch,
                next,
                ..
            } => self.telling_went_on(now, *number, *epoch, *next, out),
            Command::Adopt { rows, .. } => {
                for key in &rows.known {
                    if self.replicated.is_known(key) {
                        self.know(now, rng, key);
                    }
                }
                self.adopted(command, out);
            }
            Command::SetVersion { command, snapshot } => note(
                out,
                Level::Info,
                None,
                format!(
                    "every member reads them: version {command} of commands and version {snapshot} of snapshots are switched \
                     on; releases that do not read them cannot come back"
                ),
            ),
            Command::SetClusterAlias { .. }
            | Command::ChooseOriginal { .. }
            | Command::SetClusterDomain { .. }
            | Command::RecordCluster { .. }
            | Command::Declare { .. }
            | Command::DescribeMember { .. }
            | Command::DescribeProtocols { .. }
            | Command::RegisterCandidate { .. }
            | Command::PutTag { .. }
            | Command::DeleteTag { .. }
            | Command::SetRecoveriesEnabled { .. }
            | Command::Acknowledge { .. }
            | Command::MarkFenced { .. }
            | Command::MarkPrimary { .. }
            | Command::MarkWitnesses { .. } => {}
            Command::BeginMemberChange { .. } | Command::EndMemberChange { .. } => {
                self.change_decided(now, command, out);
            }
        }
    }

    /// Every daemon watches the promoted server as soon as it has replicas, however long others are waited for: who never had
    /// a connection there could not tell that it died.
    fn read_repointed(
        &mut self,
        now: Now,
        uid: &Uid,
        outcomes: &[(StepId, Outcome)],
        out: &mut Output,
    ) {
        let Some(recovery) = self.replicated.recovery_shared(uid) else {
            return;
        };
        for (id, outcome) in outcomes {
            if *outcome == Outcome::Done
                && let Some((step, _)) = recovery.steps.get(id)
                && step.kind == StepKind::Repoint
            {
                self.probe(now, &step.server, true, out);
            }
        }
    }

    fn recovery_ended(&mut self, now: Now, uid: &Uid, end: &End, out: &mut Output) {
        self.progress.remove(uid);
        // A hook that was begun while replicas were regrouped may have ended while this was on its way through raft.
        if !self.is_announced(uid) {
            self.outcomes.remove(uid);
        }
        self.wait_until.remove(uid);
        let Some(recovery) = self.replicated.recovery(uid).cloned() else {
            return;
        };
        let (level, text) = match end {
            End::Succeeded => match &recovery.successor {
                Some(successor) => (
                    Level::Warning,
                    format!(
                        "ended: {successor} is the primary of {} now",
                        recovery.cluster_name
                    ),
                ),
                None => (Level::Info, "ended: done".to_string()),
            },
            End::Undone { reason } => (Level::Warning, format!("ended, undone: {reason}")),
            End::Failed { reason } => (Level::Error, format!("ended, FAILED: {reason}")),
        };
        note(out, level, Some(uid), text);
        self.learned.settle(now.mono, recovery.cluster);
        self.left_halted.ended(&recovery);
        if recovery.purpose.is_recovery() {
            self.repaired_at.insert(recovery.cluster, now.mono);
        }
        if recovery.purpose.is_recovery()
            && matches!(end, End::Failed { .. })
            && let Some(suspicion) = self.suspicions.get_mut(&recovery.server)
        {
            // What was refused for a reason is not tried without pause.
            let wait = super::judge::VERDICT_AGAIN * (1 << suspicion.failures.min(4));
            suspicion.failures += 1;
            suspicion.again = now.mono + wait;
        }
        if recovery.purpose.is_recovery() && recovery.is_successful() {
            self.dialled_until.insert(
                recovery.server.clone(),
                now.mono + super::judge::DIAL_AFTER_PROMOTION,
            );
            self.house_at = now.mono;
        }
        // One is fenced at a time, and clients may be writing to the next.
        if matches!(recovery.purpose, Purpose::Quarantine { .. }) {
            self.house_at = now.mono;
        }
        let members: Vec<InstanceKey> = recovery
            .participants
            .iter()
            .cloned()
            .chain([recovery.server.clone()])
            .collect();
        for key in members {
            self.observed.standing_still.remove(&key);
            self.place(now, &key);
            self.refresh(now, &key, None);
            self.probe(now, &key, true, out);
        }
        if let Some(request) = self.operations.remove(uid) {
            let reply = match end {
                End::Succeeded => Reply::Operated(recovery.server.clone()),
                End::Undone { reason } | End::Failed { reason } => Reply::Failed(reason.clone()),
            };
            out.effects.push(Effect::Answer(request, reply));
        }
    }

    /// The last lines of a recovery's audit, into the log of every daemon.
    fn log_lines(&self, uid: &Uid, count: usize, out: &mut Output) {
        let Some(recovery) = self.replicated.recovery(uid) else {
            return;
        };
        let from = recovery.lines.len().saturating_sub(count);
        for line in &recovery.lines[from..] {
            note(out, Level::Info, Some(uid), line.message.clone());
        }
    }

    pub(super) fn proposed(
        &mut self,
        now: Now,
        id: ProposalId,
        outcome: Proposal,
        out: &mut Output,
    ) {
        let Some((cause, _)) = self.proposals.remove(&id) else {
            return;
        };
        match cause {
            Cause::Request(request) => {
                let reply = match outcome {
                    Proposal::Committed(answer) => Reply::Decided(answer),
                    Proposal::Refused => Reply::NotLeading {
                        leader: self.raft.leader,
                    },
                    Proposal::Unknown => unknown(),
                };
                out.effects.push(Effect::Answer(request, reply));
            }
            Cause::Begin(key, uid) => {
                self.beginning.remove(&key);
                match outcome {
                    Proposal::Committed(Answer::Refused(refusal)) => {
                        note(
                            out,
                            Level::Warning,
                            Some(&uid),
                            format!("{key}: no recovery: {refusal}"),
                        );
                        self.answer_operation(&uid, Reply::Refused(refusal), out);
                    }
                    Proposal::Committed(_) => {}
                    Proposal::Refused | Proposal::Unknown => {
                        note(
                            out,
                            Level::Warning,
                            Some(&uid),
                            format!("{key}: opening a recovery was not committed: {outcome:?}"),
                        );
                        let reply = match outcome {
                            Proposal::Refused => Reply::NotLeading {
                                leader: self.raft.leader,
                            },
                            Proposal::Unknown | Proposal::Committed(_) => unknown(),
                        };
                        self.answer_operation(&uid, reply, out);
                    }
                }
            }
            // It may have ended by this very proposal.
            Cause::Recovery(uid) if !(self.is_running(&uid) || self.is_announced(&uid)) => {}
            Cause::Recovery(uid) => {
                if let Proposal::Committed(Answer::Refused(refusal)) = &outcome {
                    note(
                        out,
                        Level::Warning,
                        Some(&uid),
                        format!("a move was refused: {refusal}"),
                    );
                    self.wait_until.insert(uid, now.mono + MOVE_AGAIN_AFTER);
                } else if matches!(outcome, Proposal::Committed(_)) {
                    self.wait_until.insert(uid, now.mono);
                } else {
                    // A leader that hands over refuses at once, until its successor is elected.
                    self.wait_until.insert(uid, now.mono + MOVE_AGAIN_AFTER);
                }
            }
            Cause::Detection { key, uid, begin } => {
                let is_committed = matches!(&outcome, Proposal::Committed(answer) if !matches!(answer, Answer::Refused(_)));
                self.detection_proposed(now, &key, uid, *begin, is_committed, out);
            }
            Cause::Discover(key, requests) => {
                self.discover_proposed(&key, requests, &outcome, out);
            }
            Cause::Telling(number) => self.telling_proposed(now, number, &outcome, out),
            Cause::House | Cause::Members => {}
            Cause::MembersFor(request, wanted) => {
                self.change_proposed(request, &wanted, outcome, out);
            }
        }
    }

    pub(super) fn step_ended(&mut self, now: Now, end: StepEnd, out: &mut Output) {
        let StepEnd {
            uid,
            step,
            epoch,
            outcome,
            report,
            ..
        } = end;
        if let Some(report) = report {
            let key = self
                .replicated
                .recovery(&uid)
                .and_then(|recovery| recovery.steps.get(&step))
                .map(|(step, _)| step.server.clone());
            if let Some(key) = key {
                self.seen(now, &key, now.mono, report, Adopt::IfKnown, out);
            }
        }
        // The slowest steps may end after their recovery. One that ends while the quorum is lost counts: without a
        // successor this daemon leads on under the same epoch.
        if self.last_led != Some(epoch) || !(self.is_running(&uid) || self.is_announced(&uid)) {
            return;
        }
        if let Some(progress) = self.progress.get_mut(&uid) {
            progress.ended_at.insert(step, now.mono);
        }
        self.outcomes
            .entry(uid.clone())
            .or_default()
            .push((step, outcome));
        self.wait_until.insert(uid, now.mono);
    }

    fn is_announced(&self, uid: &Uid) -> bool {
        self.replicated
            .recovery(uid)
            .is_some_and(Recovery::is_announced)
    }

    fn is_running(&self, uid: &Uid) -> bool {
        self.replicated
            .recovery(uid)
            .is_some_and(Recovery::is_running)
    }

    fn answer_operation(&mut self, uid: &Uid, reply: Reply, out: &mut Output) {
        if let Some(request) = self.operations.remove(uid) {
            out.effects.push(Effect::Answer(request, reply));
        }
    }

    /// When a recovery may move on by time alone: not while its next move is on its way through raft.
    pub(super) fn next_move(&self) -> Option<Mono> {
        self.leading()?;
        self.replicated
            .running()
            .chain(self.replicated.announced())
            .filter(|recovery| !self.is_moving(&recovery.uid))
            .filter_map(|recovery| self.wait_until.get(&recovery.uid).copied())
            .chain(self.next_telling())
            .min()
    }

    fn is_moving(&self, uid: &Uid) -> bool {
        self.proposals
            .values()
            .any(|(cause, _)| matches!(cause, Cause::Recovery(moving) if moving == uid))
    }

    /// Moves every recovery that may move, and what comes before it.
    pub(super) fn drive_all(&mut self, now: Now, out: &mut Output) {
        let Some(epoch) = self.leading() else { return };
        let running: Vec<Uid> = self
            .replicated
            .running()
            .chain(self.replicated.announced())
            .map(|recovery| recovery.uid.clone())
            .collect();
        for uid in running {
            let due = self.wait_until.get(&uid).is_none_or(|at| *at <= now.mono);
            if due && !self.is_moving(&uid) {
                self.drive(now, &uid, epoch, out);
            }
        }
        self.drive_tellings(now, epoch, out);
    }

    /// How steps ended of which the record does not know it; others are forgotten.
    fn unsettled(&mut self, recovery: &Recovery) -> Vec<(StepId, Outcome)> {
        let Some(outcomes) = self.outcomes.get_mut(&recovery.uid) else {
            return Vec::new();
        };
        outcomes.retain(|(step, outcome)| match recovery.steps.get(step) {
            Some((_, Phase::Intended(_))) => true,
            Some((_, Phase::Settled(held))) => {
                matches!(held, Outcome::Unknown { .. })
                    && !matches!(outcome, Outcome::Unknown { .. })
            }
            None => false,
        });
        outcomes.clone()
    }

    fn drive(&mut self, now: Now, uid: &Uid, epoch: Epoch, out: &mut Output) {
        let Some(recovery) = self.replicated.recovery_shared(uid) else {
            return;
        };
        if recovery.owner != epoch {
            self.wait_until
                .insert(uid.clone(), now.mono + core::time::Duration::from_secs(1));
            self.propose(
                now,
                Cause::Recovery(uid.clone()),
                Command::TakeOver {
                    uid: uid.clone(),
                    epoch,
                },
                out,
            );
            return;
        }
        let outcomes = self.unsettled(&recovery);
        if !outcomes.is_empty() {
            let command = Command::Settle {
                uid: uid.clone(),
                epoch,
                outcomes: outcomes.clone(),
                lines: audit::outcome_lines(&recovery, &outcomes),
            };
            self.wait_until
                .insert(uid.clone(), now.mono + super::HOUSE_INTERVAL);
            // They are kept until that is applied: it may be refused for want of a quorum.
            self.propose(now, Cause::Recovery(uid.clone()), command, out);
            return;
        }
        if recovery.is_announced() {
            self.announce(now, &recovery, epoch, out);
            return;
        }
        let mut progress = self
            .progress
            .remove(uid)
            .unwrap_or_else(|| Progress::new(now.mono));
        let view = Seen {
            node: self,
            now,
            began: progress.began,
            recovery: &recovery,
        };
        let next = if recovery.purpose.is_recovery() {
            dead_primary::next(&recovery, &view, &mut progress, epoch)
        } else {
            operation::next(&recovery, &view, &mut progress)
        };
        self.progress.insert(uid.clone(), progress);
        self.make(now, &recovery, epoch, next, out);
    }

    fn make(
        &mut self,
        now: Now,
        recovery: &Arc<Recovery>,
        epoch: Epoch,
        next: Move,
        out: &mut Output,
    ) {
        let uid = recovery.uid.clone();
        let command = match next {
            Move::Wait { until } => {
                self.wait_until.insert(uid, until.max(now.mono + WAIT_MIN));
                return;
            }
            Move::Look { keys, until } => {
                for key in keys {
                    self.probe(now, &key, true, out);
                }
                self.wait_until.insert(uid, until.max(now.mono + WAIT_MIN));
                return;
            }
            Move::Intend {
                stage,
                candidate,
                steps,
                mut lines,
            } => {
                lines.extend(audit::intent_lines(stage, epoch, &steps));
                Command::Intend {
                    uid: uid.clone(),
                    epoch,
                    stage,
                    candidate,
                    steps,
                    ending: None,
                    lines,
                }
            }
            Move::Undo {
                ending,
                steps,
                mut lines,
            } => {
                lines.extend(audit::intent_lines(Stage::Undo, epoch, &steps));
                Command::Intend {
                    uid: uid.clone(),
                    epoch,
                    stage: Stage::Undo,
                    candidate: None,
                    steps,
                    ending: Some(Box::new(ending)),
                    lines,
                }
            }
            Move::Remark {
                lines,
                errors,
                possible_loss,
            } => Command::Remark {
                uid: uid.clone(),
                epoch,
                lines,
                errors,
                possible_loss,
            },
            Move::End {
                end,
                successor,
                lost,
                participants,
                lines,
            } => {
                let instance = successor
                    .as_ref()
                    .and_then(|key| self.observed.instances.get(key));
                let identity = instance.and_then(|instance| instance.identity()).cloned();
                let alias = instance
                    .and_then(|instance| instance.report.as_ref())
                    .map(|report| report.classification.instance_alias.clone())
                    .unwrap_or_default();
                Command::EndRecovery {
                    uid: uid.clone(),
                    epoch,
                    end,
                    successor,
                    successor_identity: identity,
                    successor_alias: alias,
                    lost,
                    participants,
                    lines,
                }
            }
        };
        // Thought over again when the proposal has ended, or at once in a while if it could not be made.
        self.wait_until
            .insert(uid.clone(), now.mono + super::HOUSE_INTERVAL);
        self.propose(now, Cause::Recovery(uid), command, out);
    }
}

/// The planner's view of this node.
pub(super) struct Seen<'a> {
    node: &'a Node,
    now: Now,
    /// When this leader began to act for it.
    began: Mono,
    recovery: &'a Recovery,
}

impl Node {
    /// For plans that are not those of a running recovery.
    pub(super) const fn planners_view<'a>(&'a self, now: Now, recovery: &'a Recovery) -> Seen<'a> {
        Seen {
            node: self,
            now,
            began: now.mono,
            recovery,
        }
    }
}

impl Seen<'_> {
    /// Another server than the failed one answers at its address; and not that one's data under another name, in use.
    fn is_another_there(&self, watched: &Watched) -> bool {
        let key = &self.recovery.server;
        let is_named_otherwise = watched.identity.is_some()
            && self.recovery.identity.is_some()
            && watched.identity != self.recovery.identity;
        let report_of = |key: &InstanceKey| self.node.observed.instances.get(key)?.report.as_ref();
        let Some(report) =
            report_of(key).filter(|report| Some(&report.identity) == watched.identity.as_ref())
        else {
            return false;
        };
        // Of every replica that has anything: one may have transactions of its own.
        let lacks_something = || {
            let held = self.recovery.replicas.iter().filter_map(|replica| {
                let held = report_of(replica)?.executed.as_ref()?;
                (!held.is_empty()).then_some(held)
            });
            let lacks = |held| {
                let here = report.executed.as_ref();
                here.is_some_and(|here| here.is_superset(held) == Ok(false))
            };
            let mut held = held.peekable();
            held.peek().is_some() && held.all(lacks)
        };
        is_named_otherwise && (report.read_only || lacks_something())
    }
}

impl View for Seen<'_> {
    fn now(&self) -> Now {
        self.now
    }

    fn policy(&self) -> &Policy {
        self.node.policy()
    }

    fn reading(&self, key: &InstanceKey) -> Option<Reading<'_>> {
        let instance = self.node.observed.instances.get(key)?;
        Some(Reading {
            report: instance.report.as_deref()?,
            seen: instance.seen?,
        })
    }

    fn checked(&self, key: &InstanceKey) -> Option<Mono> {
        self.node.observed.instances.get(key)?.checked
    }

    fn replicas_of(&self, key: &InstanceKey) -> Vec<InstanceKey> {
        let observed = &self.node.observed;
        let follow = observed.edges.replicas_of(key).iter();
        // Of a member that this process never read nobody knows whom it follows.
        let record = self.node.replicated.cluster_of(key);
        let unread = record.into_iter().flat_map(|record| {
            record.members.iter().filter(|member| {
                let instance = observed.instances.get(*member);
                *member != key && instance.is_some_and(|instance| instance.report.is_none())
            })
        });
        follow.chain(unread).cloned().collect()
    }

    fn members_of(&self, key: &InstanceKey) -> Vec<InstanceKey> {
        let record = self.node.replicated.cluster_of(key);
        let members = record.into_iter().flat_map(|record| record.members.iter());
        let answers = |member: &&InstanceKey| {
            let instance = self.node.observed.instances.get(*member);
            instance.is_some_and(Instance::is_last_check_valid)
        };
        members.filter(answers).cloned().collect()
    }

    fn rule(&self, key: &InstanceKey) -> PromotionRule {
        self.node
            .replicated
            .rule_of(key, self.now.wall)
            .or_else(|| {
                self.node
                    .observed
                    .instances
                    .get(key)
                    .and_then(|instance| instance.suggested_rule())
            })
            .unwrap_or_default()
    }

    fn is_ignored_for_promotion(&self, key: &InstanceKey) -> bool {
        self.node.filters.promotion_ignore.matches_host(&key.host)
    }

    fn names_whom_it_replaced(&self, key: &InstanceKey) -> bool {
        let instance = self.node.observed.instances.get(key);
        let source = instance.and_then(Instance::configured_source);
        let record = self.node.replicated.cluster_of(key);
        let record = record.filter(|record| record.primary == *key);
        record
            .zip(source)
            .is_some_and(|(record, source)| self.node.is_left_behind(record, source))
    }

    fn is_downtimed(&self, key: &InstanceKey) -> bool {
        self.node
            .replicated
            .downtime_of(key, self.now.wall)
            .is_some_and(|downtime| !downtime.is_lost_in_recovery())
    }

    fn has_returned(&self) -> bool {
        let key = &self.recovery.server;
        // Another server behind the same address says nothing of the old one.
        let is_it = |identity: &Option<crate::id::Identity>| {
            identity.is_none()
                || self.recovery.identity.is_none()
                || *identity == self.recovery.identity
        };
        let here = self.node.watched.get(key).is_some_and(|watched| {
            watched.missing_since().is_none()
                && watched.last_life().is_some()
                && is_it(&watched.identity)
        });
        // What another daemon saw counts from when this leader began.
        here || self.node.heard.get(key).is_some_and(|heard| {
            heard.values().any(|(opinion, at)| {
                opinion.kind == OpinionKind::Alive
                    && super::judge::life_of(opinion, *at).is_some_and(|life| life > self.began)
                    && is_it(&opinion.identity)
            })
        })
    }

    fn hooks(&self) -> &HookCounts {
        &self.node.hooks
    }

    fn detection_hooks(&self) -> hook::Next {
        self.node.told(self.recovery.detection)
    }

    fn last_failed_dial(&self) -> Option<Mono> {
        let watched = self.node.watched.get(&self.recovery.server)?;
        // Where another server is connected to, nobody dials any more, and the old one is not there.
        if watched.is_connected() && self.is_another_there(watched) {
            return watched.last_life();
        }
        watched.last_failed_dial()
    }
}
