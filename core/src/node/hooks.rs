//! Hooks, as this daemon has them run: those of the detections that it registered as the leader, those of recoveries
//! that have ended, and what each is told. Which comes next is decided in [`hook`].
//!
//! A recovery waits for the hooks of its detection, and is not attempted if one fails: the next attempt begins with that
//! hook. They are on record ([`Telling`]) as those of a recovery are: where the leader that runs one ends, the next one
//! runs it once more, and those after it. The registration begins the first, and each further entry says how one ended
//! and which begins, so that there are as many entries more as there are hooks, and none without hooks.
//!
//! While version 1 is in force the record has no place for them, and they are remembered by the leader that registered
//! the detection: where it ends before they do, the next one does not repeat them, and the recovery goes on without them.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{
    Cause, Effect, HookRun, Level, Node, Output, Proposal, note, repair::MOVE_AGAIN_AFTER,
};
use crate::{
    analysis::{code::Code, diagnose::InstanceType},
    id::{Epoch, InstanceKey, StepId, Uid},
    recovery::{
        Hook, HookFacts, HookList, Outcome, Phase, Recovery, Stage, Telling,
        dead_primary::{self, hook_step, hooks_after},
        hook::{self, Successor},
    },
    replicated::{Answer, Command, Detection},
    time::{Mono, Now},
};

/// Detections whose hooks are looked after; the oldest are forgotten first.
const TELLING_MAX: usize = 1_024;
/// Steps of them that are proposed at a time: at a change of leader many may be due, and what else is proposed must not wait
/// behind all of them.
const TELLINGS_AT_ONCE: usize = 16;
/// The version of commands with which the hooks of a detection are put on record.
const TELLING_SINCE: u32 = 2;
/// Nobody is served by the hooks of a detection that old; of a recovery that ended so long ago, what they tell must be true
/// still.
const ANNOUNCE_AGE_MAX: Duration = Duration::from_secs(3_600);

/// What this leader knows of the hooks of a detection beside their record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Unrecorded {
    /// How the run of this number ended.
    ended: Option<(u32, Outcome)>,
    /// A recovery began anew after a hook had failed: it is tried again.
    is_asked_again: bool,
    /// It was said that its hook is not run again.
    is_given_up: bool,
    /// They are not thought over before this time.
    wait_until: Option<Mono>,
}

/// Where the hooks of a detection stand that are not on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    place: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running,
    Failed(String),
    Done,
}

impl Node {
    fn detection_hooks(&self) -> u32 {
        self.hooks.get(HookList::OnFailureDetection)
    }

    fn telling(&self, number: u64) -> Option<&Telling> {
        self.replicated.detection(number)?.telling.as_ref()
    }

    /// The record with which a detection is registered: its first hook is begun, where it has any.
    pub(super) fn first_telling(&self) -> Option<Telling> {
        let epoch = self.leading()?;
        let has_room = self.replicated.versions().command >= TELLING_SINCE;
        (has_room && self.detection_hooks() > 0).then(|| Telling::begun(epoch))
    }

    /// A detection was registered: its hooks are run by the leader that found it.
    pub(super) fn tell_detection(
        &mut self,
        now: Now,
        number: u64,
        detection: &Detection,
        out: &mut Output,
    ) {
        if let Some(Telling {
            phase: Phase::Intended(epoch),
            ..
        }) = self.telling(number)
        {
            let epoch = *epoch;
            self.detection_hook_begins(now, number, epoch, out);
            return;
        }
        let is_mine = detection.processing_token == self.identification.token;
        if self.leading().is_none() || !is_mine || self.detection_hooks() == 0 {
            return;
        }
        while self.remembered.len() >= TELLING_MAX {
            self.remembered.pop_first();
        }
        self.run_remembered(now, number, 0, out);
    }

    /// A recovery began anew after a hook of its detection had failed: that hook is tried again.
    pub(super) fn tell_again(&mut self, now: Now, uid: &Uid, out: &mut Output) {
        let Some(number) = self
            .replicated
            .recovery(uid)
            .map(|recovery| recovery.detection)
        else {
            return;
        };
        if let (Some(telling), Some(epoch)) = (self.telling(number), self.leading()) {
            let next = telling.next(self.detection_hooks(), epoch);
            if matches!(next, hook::Next::Failed(_)) {
                self.unrecorded.entry(number).or_default().is_asked_again = true;
            }
            return;
        }
        if let Some(Remembered {
            place,
            state: State::Failed(_),
        }) = self.remembered.get(&number)
        {
            self.run_remembered(now, number, *place, out);
        }
    }

    /// What running a hook of a detection is.
    fn detection_effect(&self, now: Now, number: u64, epoch: Epoch, hook: Hook) -> Option<Effect> {
        let detection = self.replicated.detection(number)?;
        let facts = HookFacts {
            idempotency_key: format!("detection-{number}/{hook}"),
            epoch,
            ..self.facts(
                now,
                &detection.server,
                &detection.analysis,
                (&detection.cluster_name, &detection.cluster_alias),
                &detection.replicas,
            )
        };
        Some(Effect::RunHook {
            run: HookRun::Detection(number),
            epoch,
            hook,
            facts: Box::new(facts),
        })
    }

    fn run_remembered(&mut self, now: Now, number: u64, place: u32, out: &mut Output) {
        let hook = Hook {
            list: HookList::OnFailureDetection,
            place,
        };
        let effect = self
            .leading()
            .and_then(|epoch| self.detection_effect(now, number, epoch, hook));
        let Some(effect) = effect else { return };
        let state = State::Running;
        self.remembered.insert(number, Remembered { place, state });
        out.effects.push(effect);
    }

    /// It is on record that a hook of a detection was begun under this epoch.
    fn detection_hook_begins(&mut self, now: Now, number: u64, epoch: Epoch, out: &mut Output) {
        let Some((run, hook)) = self
            .telling(number)
            .map(|telling| (telling.run, telling.hook()))
        else {
            return;
        };
        if self.leading() == Some(epoch) {
            self.unrecorded.remove(&number);
            out.effects
                .extend(self.detection_effect(now, number, epoch, hook));
        } else if self.last_led == Some(epoch) {
            // Nobody runs it, should this daemon lead on under this epoch.
            let outcome = Outcome::Refused {
                code: 0,
                reason: "not run: its leader had no quorum when it was committed".to_owned(),
            };
            let unrecorded = Unrecorded {
                ended: Some((run, outcome)),
                ..Unrecorded::default()
            };
            self.unrecorded.insert(number, unrecorded);
        }
    }

    /// The record of a detection's hooks went on.
    pub(super) fn telling_went_on(
        &mut self,
        now: Now,
        number: u64,
        epoch: Epoch,
        next: Option<u32>,
        out: &mut Output,
    ) {
        if next.is_some() {
            self.detection_hook_begins(now, number, epoch, out);
            return;
        }
        self.unrecorded.remove(&number);
        self.wake_waiting(now, number);
    }

    fn wake_waiting(&mut self, now: Now, number: u64) {
        let waiting: Vec<Uid> = self
            .replicated
            .running()
            .filter(|recovery| recovery.detection == number)
            .map(|recovery| recovery.uid.clone())
            .collect();
        for uid in waiting {
            self.wait_until.insert(uid, now.mono);
        }
    }

    pub(super) fn detection_hook_ended(
        &mut self,
        now: Now,
        (number, epoch, hook): (u64, Epoch, Hook),
        outcome: Outcome,
        out: &mut Output,
    ) {
        // One that ends while the quorum is lost counts: without a successor this daemon leads on under the same epoch.
        if self.last_led != Some(epoch) {
            return;
        }
        let failure = hook::failure_of(&outcome).map(|why| format!("{hook}: {why}"));
        if let Some(why) = &failure {
            let is_run_again = self.telling(number).is_some_and(|telling| {
                let mut then = telling.clone();
                then.phase = Phase::Settled(outcome.clone());
                telling.hook() == hook && !then.rests(self.detection_hooks(), epoch)
            });
            let then = if is_run_again {
                "it is run again"
            } else {
                "no recovery is attempted without it"
            };
            let text = format!("detection {number}: {why}; {then}");
            note(out, Level::Error, None, text);
        }
        match self.telling(number) {
            Some(telling) => {
                if telling.hook() == hook && telling.phase == Phase::Intended(epoch) {
                    let ended = Some((telling.run, outcome));
                    let unrecorded = self.unrecorded.entry(number).or_default();
                    unrecorded.ended = ended;
                    unrecorded.wait_until = None;
                }
            }
            None => self.remembered_ended(now, number, hook, failure, out),
        }
    }

    fn remembered_ended(
        &mut self,
        now: Now,
        number: u64,
        hook: Hook,
        failure: Option<String>,
        out: &mut Output,
    ) {
        let leads = self.leading().is_some();
        let has_next = hook.place + 1 < self.detection_hooks();
        let Some(remembered) = self.remembered.get_mut(&number) else {
            return;
        };
        match failure {
            Some(why) => remembered.state = State::Failed(why),
            // It may lead on under the same epoch: what was not run is then run before another attempt.
            None if has_next && !leads => {
                remembered.place = hook.place + 1;
                remembered.state = State::Failed(format!(
                    "the hooks after {hook} were not run: this daemon did not lead"
                ));
            }
            None if has_next => {
                self.run_remembered(now, number, hook.place + 1, out);
                return;
            }
            None => remembered.state = State::Done,
        }
        self.wake_waiting(now, number);
    }

    /// Where the hooks of a detection stand, for a recovery that comes after them.
    pub(super) fn told(&self, number: u64) -> hook::Next {
        if let Some(telling) = self.telling(number) {
            let is_asked_again = self
                .unrecorded
                .get(&number)
                .is_some_and(|unrecorded| unrecorded.is_asked_again);
            let next = self
                .leading()
                .map(|epoch| telling.next(self.detection_hooks(), epoch));
            return match next {
                Some(hook::Next::Failed(why)) if !is_asked_again => hook::Next::Failed(why),
                Some(hook::Next::Finished) => hook::Next::Finished,
                Some(hook::Next::Wait | hook::Next::Run(_) | hook::Next::Failed(_)) | None => {
                    hook::Next::Wait
                }
            };
        }
        match self
            .remembered
            .get(&number)
            .map(|remembered| &remembered.state)
        {
            Some(State::Running) => hook::Next::Wait,
            Some(State::Failed(why)) => hook::Next::Failed(why.clone()),
            Some(State::Done) | None => hook::Next::Finished,
        }
    }

    // --- hooks of detections, as their record says ---

    /// The hooks of detections go on that are young enough to serve somebody, and those that a recovery waits for. What is
    /// older stays as it is.
    pub(super) fn drive_tellings(&mut self, now: Now, epoch: Epoch, out: &mut Output) {
        let replicated = &self.replicated;
        let is_open = |number: &u64| {
            replicated
                .detection(*number)
                .is_some_and(|detection| detection.telling.is_some())
        };
        self.unrecorded
            .retain(|number, known| is_open(number) && *known != Unrecorded::default());
        let young = self
            .tellings_of_the_last_hour(now)
            .map(|detection| detection.number);
        let awaited = replicated.running().map(|recovery| recovery.detection);
        let awaited: BTreeSet<u64> = awaited.filter(is_open).collect();
        let numbers: BTreeSet<u64> = young.chain(awaited.iter().copied()).collect();
        // What nobody looks after any more has nothing to wait for.
        for (number, known) in &mut self.unrecorded {
            if !numbers.contains(number) {
                known.wait_until = None;
            }
        }
        let under_way = self.proposals.values();
        let mut room = TELLINGS_AT_ONCE.saturating_sub(
            under_way
                .filter(|(cause, _)| matches!(cause, Cause::Telling(_)))
                .count(),
        );
        // What a recovery waits for does not stand in the queue.
        for number in awaited.iter().chain(numbers.difference(&awaited)) {
            let (number, is_awaited) = (*number, awaited.contains(number));
            let is_due = self
                .unrecorded
                .get(&number)
                .and_then(|unrecorded| unrecorded.wait_until)
                .is_none_or(|at| at <= now.mono);
            if is_due && room == 0 && !is_awaited {
                // The end of one that is on its way calls, not the clock.
                if let Some(known) = self.unrecorded.get_mut(&number) {
                    known.wait_until = None;
                }
            } else if is_due && !self.is_telling(number) {
                self.drive_telling(now, number, epoch, out);
                if self.is_telling(number) {
                    room = room.saturating_sub(1);
                }
            }
        }
    }

    fn tellings_of_the_last_hour(&self, now: Now) -> impl Iterator<Item = &Detection> {
        self.replicated
            .telling_newest_first()
            .take(TELLING_MAX)
            .take_while(move |detection| self.least_age(now, detection.at) <= ANNOUNCE_AGE_MAX)
    }

    /// When the hooks of a detection may go on by time alone.
    pub(super) fn next_telling(&self) -> Option<Mono> {
        self.unrecorded
            .iter()
            .filter_map(|(number, known)| known.wait_until.map(|at| (number, at)))
            .filter(|(number, _)| !self.is_telling(**number))
            .map(|(_, at)| at)
            .min()
    }

    fn is_telling(&self, number: u64) -> bool {
        self.proposals
            .values()
            .any(|(cause, _)| *cause == Cause::Telling(number))
    }

    fn drive_telling(&mut self, now: Now, number: u64, epoch: Epoch, out: &mut Output) {
        let Some(telling) = self.telling(number) else {
            return;
        };
        // Failed hooks stay on record for long: there may be many, and this comes with each step.
        let known = self.unrecorded.get(&number);
        let goes_on = known.is_some_and(|known| known.is_asked_again || known.ended.is_some());
        if !goes_on && telling.rests(self.detection_hooks(), epoch) {
            return self.rest(number, epoch, out);
        }
        let telling = telling.clone();
        let unrecorded = self.unrecorded.entry(number).or_default();
        unrecorded.wait_until = None;
        let is_mine = telling.phase == Phase::Intended(epoch);
        unrecorded
            .ended
            .take_if(|(run, _)| !is_mine || *run != telling.run);
        let ended = unrecorded.ended.clone();
        let is_asked_again = unrecorded.is_asked_again;
        let mut then = telling.clone();
        if let Some((_, outcome)) = &ended {
            then.phase = Phase::Settled(outcome.clone());
        }
        let next = match then.next(self.detection_hooks(), epoch) {
            hook::Next::Wait => return,
            hook::Next::Run(hook) => Some(hook.place),
            hook::Next::Failed(_) if ended.is_some() => None,
            hook::Next::Failed(_) if is_asked_again => Some(then.place),
            hook::Next::Failed(_) => return,
            hook::Next::Finished => None,
        };
        if let (Phase::Intended(by), Some(_)) = (&then.phase, next) {
            let hook = then.hook();
            let text = format!(
                "detection {number}: {hook} is run once more: epoch {by}, which ran it, is over"
            );
            note(out, Level::Info, None, text);
        }
        // Thought over again when the proposal has ended, or in a while if it could not be made.
        self.unrecorded.entry(number).or_default().wait_until =
            Some(now.mono + super::HOUSE_INTERVAL);
        let command = Command::TellOfDetection {
            number,
            epoch,
            run: telling.run,
            ended: ended.map(|(_, outcome)| outcome),
            next,
        };
        self.propose(now, Cause::Telling(number), command, out);
    }

    /// Nothing is to be done about these hooks by themselves; of one that is not run again, whoever ran it did not live to
    /// say so.
    fn rest(&mut self, number: u64, epoch: Epoch, out: &mut Output) {
        if let Some(known) = self.unrecorded.get_mut(&number)
            && known.is_given_up
        {
            known.wait_until = None;
            return;
        }
        self.unrecorded.remove(&number);
        let left = self
            .telling(number)
            .filter(|telling| matches!(telling.phase, Phase::Intended(_)));
        if let Some(hook::Next::Failed(why)) =
            left.map(|telling| telling.next(self.detection_hooks(), epoch))
        {
            let text = format!("detection {number}: {why}; it is run again only before a recovery");
            note(out, Level::Error, None, text);
            let given_up = Unrecorded {
                is_given_up: true,
                ..Unrecorded::default()
            };
            self.unrecorded.insert(number, given_up);
        }
    }

    /// A step of a detection's hooks was committed, or not.
    pub(super) fn telling_proposed(
        &mut self,
        now: Now,
        number: u64,
        outcome: &Proposal,
        out: &mut Output,
    ) {
        let is_committed = match outcome {
            Proposal::Committed(Answer::Refused(refusal)) => {
                let text =
                    format!("detection {number}: a move of its hooks was refused: {refusal}");
                note(out, Level::Warning, None, text);
                false
            }
            Proposal::Committed(_) => true,
            Proposal::Refused | Proposal::Unknown => false,
        };
        if let Some(unrecorded) = self.unrecorded.get_mut(&number) {
            unrecorded.wait_until = (!is_committed).then(|| now.mono + MOVE_AGAIN_AFTER);
        }
    }

    /// Runs the hooks of a recovery that has ended, one after another, and closes it.
    pub(super) fn announce(
        &mut self,
        now: Now,
        recovery: &Recovery,
        epoch: Epoch,
        out: &mut Output,
    ) {
        let uid = recovery.uid.clone();
        let lists = hooks_after(recovery);
        let ended = recovery.end.as_ref().map_or(now.wall, |(at, _)| *at);
        let is_old = self.least_age(now, ended) > ANNOUNCE_AGE_MAX;
        let holds = if is_old {
            self.end_holds(recovery)
        } else {
            Some(true)
        };
        let next = hook::next(recovery, lists, &self.hooks, epoch);
        let (stage, steps, lines) = match (next, holds) {
            (hook::Next::Wait, _) => {
                self.wait_until.insert(uid, now.mono + ANNOUNCE_AGE_MAX);
                return;
            }
            (hook::Next::Run(_), None) => {
                self.wait_until
                    .insert(uid, now.mono + super::HOUSE_INTERVAL);
                return;
            }
            (hook::Next::Run(hook), Some(true)) => (
                Stage::PostHooks,
                alloc::vec![hook_step(recovery, hook)],
                alloc::vec![format!("running hook {hook}")],
            ),
            (hook::Next::Run(hook), Some(false)) => (
                Stage::Closed,
                Vec::new(),
                alloc::vec![format!(
                    "{hook} and what comes after it is not run: the recovery ended over an hour ago, and {}",
                    match &recovery.successor {
                        Some(successor) if recovery.is_successful() => {
                            format!("{successor} is not the only primary any more")
                        }
                        Some(_) | None => String::from("it is acknowledged"),
                    }
                )],
            ),
            (hook::Next::Failed(_) | hook::Next::Finished, _) => {
                (Stage::Closed, Vec::new(), Vec::new())
            }
        };
        self.wait_until
            .insert(uid.clone(), now.mono + super::HOUSE_INTERVAL);
        let command = Command::Intend {
            uid: uid.clone(),
            epoch,
            stage,
            candidate: None,
            steps,
            ending: None,
            lines,
        };
        self.propose(now, Cause::Recovery(uid), command, out);
    }

    /// Whether what the hooks of an ended recovery would tell is true still: who was promoted is the primary and serves, or nobody
    /// acknowledged that it failed. None: that may show yet.
    fn end_holds(&self, recovery: &Recovery) -> Option<bool> {
        let successor = recovery.successor.as_ref();
        let Some(successor) = successor.filter(|_| recovery.is_successful()) else {
            return Some(recovery.acknowledged.is_none());
        };
        let record = self.replicated.cluster(recovery.cluster);
        match record.filter(|record| record.primary == *successor) {
            Some(record) => self.serves_alone(record),
            None => Some(false),
        }
    }

    /// What running a hook step of a recovery is.
    pub(super) fn hook_effect(
        &self,
        now: Now,
        uid: &Uid,
        step: StepId,
        epoch: Epoch,
        hook: Hook,
    ) -> Option<Effect> {
        let recovery = self.replicated.recovery(uid)?;
        // While replicas are still regrouped the candidate is the successor already.
        let successor = recovery
            .successor
            .as_ref()
            .or_else(|| {
                recovery
                    .candidate
                    .as_ref()
                    .filter(|_| recovery.is_past_return())
            })
            .filter(|_| hook.list != HookList::PostUnsuccessfulFailover);
        let successor = successor.map(|key| {
            let report = self
                .observed
                .instances
                .get(key)
                .and_then(|instance| instance.report.as_ref());
            Successor {
                key: key.clone(),
                alias: report
                    .map(|report| report.classification.instance_alias.clone())
                    .unwrap_or_default(),
                coordinates: report
                    .and_then(|report| report.binlog.as_ref())
                    .map(|log| format!("{}:{}", log.file, log.position)),
            }
        });
        let lost = match self.progress.get(uid) {
            Some(progress) if recovery.is_running() => {
                let view = self.planners_view(now, recovery);
                dead_primary::left_behind(recovery, &view, progress, epoch)
            }
            Some(_) | None => recovery.lost.clone(),
        };
        let facts = HookFacts {
            idempotency_key: format!("{uid}/{hook}"),
            epoch,
            uid: uid.to_string(),
            is_successful: successor.is_some(),
            lost,
            successor,
            ..self.facts(
                now,
                &recovery.server,
                &recovery.analysis,
                (&recovery.cluster_name, &recovery.cluster_alias),
                &recovery.replicas,
            )
        };
        Some(Effect::RunHook {
            run: HookRun::Step {
                uid: uid.clone(),
                step,
            },
            epoch,
            hook,
            facts: Box::new(facts),
        })
    }

    /// What hooks of detections and recoveries are told alike.
    fn facts(
        &self,
        now: Now,
        failed: &InstanceKey,
        analysis: &str,
        (cluster_name, alias): (&str, &str),
        replicas: &[InstanceKey],
    ) -> HookFacts {
        let code = Code::parse(analysis);
        let record = self.replicated.cluster_named(cluster_name);
        let domain = record.map_or("", |record| record.domain.as_str());
        let automated = self.filters.automated(cluster_name, alias);
        // Where none is known hooks have always been told the name.
        let or_name = |text: &str| {
            if text.is_empty() {
                cluster_name.to_owned()
            } else {
                text.to_owned()
            }
        };
        HookFacts {
            idempotency_key: String::new(),
            epoch: Epoch::default(),
            failure_type: analysis.to_owned(),
            description: code.map_or("", Code::description).to_owned(),
            instance_type: code.map_or(InstanceType::Master, InstanceType::of).name(),
            command: String::new(),
            failed: failed.clone(),
            cluster_name: cluster_name.to_owned(),
            cluster_alias: or_name(alias),
            cluster_domain: or_name(domain),
            replicas: replicas.to_vec(),
            is_downtimed: self.replicated.downtime_of(failed, now.wall).is_some(),
            recovers_primary: automated.primary,
            recovers_intermediate: automated.intermediate,
            orchestrator_host: self.identification.host_name.clone(),
            uid: String::new(),
            is_successful: false,
            lost: Vec::new(),
            successor: None,
        }
    }
}
