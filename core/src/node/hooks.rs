//! Hooks, as this daemon has them run: those of the detections that it registered as the leader, those of recoveries
//! that have ended, and what each is told. Which comes next is decided in [`hook`].
//!
//! A detection's hooks are run once, by the leader that registered it; where that leader ends before they do, the next
//! one does not repeat them, and the recovery goes on without them. A recovery waits for the hooks of its detection, and
//! is not attempted if one fails: the next attempt begins with that hook.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{Cause, Effect, HookRun, Level, Node, Output, note};
use crate::{
    analysis::{code::Code, diagnose::InstanceType},
    id::{Epoch, InstanceKey, StepId, Uid},
    recovery::{
        Hook, HookFacts, HookList, Outcome, Recovery, Stage,
        dead_primary::{self, hook_step, hooks_after},
        hook::{self, Successor},
    },
    replicated::{Command, Detection},
    time::Now,
};

/// Detections whose hooks are remembered; the oldest are forgotten first.
const TELLING_MAX: usize = 1_024;
/// Nobody is served by the hooks of a recovery that ended so long ago, by the log's time.
const ANNOUNCE_AGE_MAX: Duration = Duration::from_secs(3_600);

/// Where the hooks of a detection stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Telling {
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
    /// A detection was registered: its hooks are run by the leader that found it.
    pub(super) fn tell_detection(
        &mut self,
        now: Now,
        number: u64,
        detection: &Detection,
        out: &mut Output,
    ) {
        let is_mine = detection.processing_token == self.identification.token;
        if self.leading().is_none() || !is_mine || self.hooks.get(HookList::OnFailureDetection) == 0
        {
            return;
        }
        while self.telling.len() >= TELLING_MAX {
            self.telling.pop_first();
        }
        self.run_detection_hook(now, number, 0, out);
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
        if let Some(Telling {
            place,
            state: State::Failed(_),
        }) = self.telling.get(&number)
        {
            self.run_detection_hook(now, number, *place, out);
        }
    }

    fn run_detection_hook(&mut self, now: Now, number: u64, place: u32, out: &mut Output) {
        let (Some(epoch), Some(detection)) =
            (self.leading(), self.replicated.detection(number).cloned())
        else {
            return;
        };
        let hook = Hook {
            list: HookList::OnFailureDetection,
            place,
        };
        let facts = HookFacts {
            idempotency_key: format!("detection-{number}/{hook}"),
            ..self.facts(
                now,
                &detection.server,
                &detection.analysis,
                (&detection.cluster_name, &detection.cluster_alias),
                &detection.replicas,
            )
        };
        self.telling.insert(
            number,
            Telling {
                place,
                state: State::Running,
            },
        );
        out.effects.push(Effect::RunHook {
            run: HookRun::Detection(number),
            epoch,
            hook,
            facts: Box::new(facts),
        });
    }

    pub(super) fn detection_hook_ended(
        &mut self,
        now: Now,
        number: u64,
        hook: Hook,
        outcome: Outcome,
        out: &mut Output,
    ) {
        let leads = self.leading().is_some();
        let Some(telling) = self.telling.get_mut(&number) else {
            return;
        };
        let failure = hook::failure_of(&outcome);
        match failure {
            Some(why) => {
                let why = format!("{hook}: {why}");
                note(
                    out,
                    Level::Error,
                    None,
                    format!("detection {number}: {why}; no recovery is attempted without it"),
                );
                telling.state = State::Failed(why);
            }
            // It may lead on under the same epoch: what was not run is then run before another attempt.
            None if hook.place + 1 < self.hooks.get(HookList::OnFailureDetection) && !leads => {
                telling.place = hook.place + 1;
                telling.state = State::Failed(format!(
                    "the hooks after {hook} were not run: this daemon did not lead"
                ));
            }
            None if hook.place + 1 < self.hooks.get(HookList::OnFailureDetection) => {
                self.run_detection_hook(now, number, hook.place + 1, out);
                return;
            }
            None => telling.state = State::Done,
        }
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

    /// Where the hooks of a detection stand, as far as this leader knows.
    pub(super) fn told(&self, number: u64) -> hook::Next {
        match self.telling.get(&number).map(|telling| &telling.state) {
            Some(State::Running) => hook::Next::Wait,
            Some(State::Failed(why)) => hook::Next::Failed(why.clone()),
            Some(State::Done) | None => hook::Next::Finished,
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
        let is_old = self.replicated.log_time().since(ended) > ANNOUNCE_AGE_MAX;
        let next = hook::next(recovery, lists, &self.hooks, epoch);
        let (stage, steps, lines) = match next {
            hook::Next::Wait => {
                self.wait_until.insert(uid, now.mono + ANNOUNCE_AGE_MAX);
                return;
            }
            hook::Next::Run(hook) if !is_old => (
                Stage::PostHooks,
                alloc::vec![hook_step(recovery, hook)],
                alloc::vec![format!("running hook {hook}")],
            ),
            hook::Next::Run(hook) => (
                Stage::Closed,
                Vec::new(),
                alloc::vec![format!(
                    "{hook} and what comes after it is not run: the recovery ended over an hour ago"
                )],
            ),
            hook::Next::Failed(_) | hook::Next::Finished => (Stage::Closed, Vec::new(), Vec::new()),
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
