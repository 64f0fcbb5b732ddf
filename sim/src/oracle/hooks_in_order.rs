//! Hooks in the documented order: those of a detection, `PreFailoverProcesses` before anything is changed on any server,
//! `PostMasterFailoverProcesses` and `PostFailoverProcesses` after the promotion, `PostUnsuccessfulFailoverProcesses` after
//! an end without one; one at a time, and none after one that said no before the failover. No hook runs without its
//! committed intent, each intent brings at most one run, none follows a run that is on record as done, and none is begun by
//! a daemon while another leads a later term. At the end every hook of a recovery has had its chance, and so has every
//! hook of a detection that was begun, whichever leaders ended during it.
//!
//! While version 1 is in force the hooks of a detection are on no record: they are run by the leader that registered it.

use std::collections::BTreeMap;

use orchestrator_core::id::{Epoch, InstanceKey, StepId, Uid};
use orchestrator_core::recovery::{End, Hook, HookList, Outcome, Phase, Statement, Step, StepKind};
use orchestrator_core::replicated::{Answer, Command, Detection};

use super::Ended;
use crate::hooks::HooksSetup;
use crate::witness::{Cause, Event};

/// A hook is intended so often, each time by another leader, before it is given up.
const INTENTS_MAX: usize = 2;

#[derive(Debug)]
struct Run {
    hook: Hook,
    daemon: String,
    /// The term in which that daemon led.
    term: u64,
    /// Whether it came to a good end; none: it runs, or its daemon ended.
    is_done: Option<bool>,
}

#[derive(Debug)]
struct Intent {
    /// None of those of a detection.
    step: Option<StepId>,
    hook: Hook,
    epoch: Epoch,
    was_run: bool,
    is_done: bool,
}

/// A recovery, as far as hooks are concerned.
#[derive(Debug)]
struct Of {
    server: InstanceKey,
    /// How many detections were registered before it began.
    detections_before: usize,
    intents: Vec<Intent>,
    runs: Vec<Run>,
    /// The first change on a server.
    changed: Option<String>,
    promoted: Option<InstanceKey>,
    end: Option<End>,
}

/// A detection, as far as hooks are concerned.
#[derive(Debug)]
struct Detected {
    server: String,
    /// Of the daemon that registered it.
    token: String,
    /// Its place among the registered.
    place: usize,
    /// Where its hooks are on record.
    record: Option<OnRecord>,
    runs: Vec<Run>,
}

#[derive(Debug, Default)]
struct OnRecord {
    intents: Vec<Intent>,
    /// All have run.
    is_closed: bool,
}

/// What was run.
#[derive(Debug, Default)]
pub struct HooksInOrder {
    pub setup: HooksSetup,
    /// The latest term that each daemon led, and in which cluster.
    led: BTreeMap<String, (String, u64)>,
    /// The latest leader of each cluster.
    newest: BTreeMap<String, (u64, String)>,
    recoveries: BTreeMap<Uid, Of>,
    /// By number.
    detections: BTreeMap<u64, Detected>,
}

impl HooksInOrder {
    /// # Errors
    /// A hook out of its turn, or a change before the hooks that come first.
    pub fn observe(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed {
                command, answer, ..
            } => {
                self.committed(command, answer);
                Ok(())
            }
            Event::Leads {
                daemon,
                cluster,
                term,
                ..
            } => {
                self.led.insert(daemon.clone(), (cluster.clone(), *term));
                let newest = self.newest.entry(cluster.clone()).or_default();
                if *term > newest.0 {
                    *newest = (*term, daemon.clone());
                }
                Ok(())
            }
            Event::Executed {
                server,
                statement,
                cause: Some(Cause::Step { uid, kind, .. }),
                ..
            } => self.executed(server, statement, uid, *kind),
            Event::HookBegan {
                daemon,
                hook,
                environment,
            } => self
                .began(daemon, *hook, environment)
                .map_err(|why| format!("hooks in order: {hook} on {daemon}: {why}")),
            Event::HookEnded {
                daemon,
                hook,
                key,
                is_done,
            } => {
                self.ended(daemon, *hook, key, *is_done);
                Ok(())
            }
            Event::Executed { .. }
            | Event::NoLongerLeads { .. }
            | Event::Refused { .. }
            | Event::Votes { .. }
            | Event::Published { .. }
            | Event::Seated { .. } => Ok(()),
        }
    }

    fn committed(&mut self, command: &Command, answer: &Answer) {
        match command {
            Command::RegisterDetection(detection) => {
                if let Answer::Numbered(number) = answer {
                    let detected = detected(detection, self.detections.len());
                    self.detections.insert(*number, detected);
                }
            }
            Command::TellOfDetection {
                number,
                epoch,
                ended,
                next,
                ..
            } => {
                let detected = self.detections.get_mut(number);
                if let Some(record) = detected.and_then(|one| one.record.as_mut()) {
                    let is_done = *ended == Some(Outcome::Done);
                    if let Some(newest) = record.intents.last_mut() {
                        newest.is_done |= is_done;
                    }
                    match next {
                        Some(place) => record.intents.push(begun(*place, *epoch)),
                        None => record.is_closed |= is_done || ended.is_none(),
                    }
                }
            }
            Command::BeginRecovery {
                uid,
                purpose,
                server,
                ..
            } if purpose.is_recovery() => {
                let detections_before = self.detections.len();
                self.recoveries.entry(uid.clone()).or_insert_with(|| Of {
                    server: server.clone(),
                    detections_before,
                    intents: Vec::new(),
                    runs: Vec::new(),
                    changed: None,
                    promoted: None,
                    end: None,
                });
            }
            Command::Intend {
                uid, epoch, steps, ..
            } => {
                if let Some(of) = self.recoveries.get_mut(uid) {
                    of.intents
                        .extend(steps.iter().filter_map(|step| intent(step, *epoch)));
                }
            }
            Command::Settle { uid, outcomes, .. } => {
                let Some(of) = self.recoveries.get_mut(uid) else {
                    return;
                };
                for (step, outcome) in outcomes {
                    for intent in of
                        .intents
                        .iter_mut()
                        .filter(|intent| intent.step == Some(*step))
                    {
                        intent.is_done |= *outcome == Outcome::Done;
                    }
                }
            }
            Command::EndRecovery { uid, end, .. } => {
                if let Some(of) = self.recoveries.get_mut(uid) {
                    of.end.get_or_insert_with(|| end.clone());
                }
            }
            _ => {}
        }
    }

    fn executed(
        &mut self,
        server: &InstanceKey,
        statement: &Statement,
        uid: &Uid,
        kind: StepKind,
    ) -> Result<(), String> {
        let setup = self.setup;
        let Some(of) = self.recoveries.get_mut(uid) else {
            return Ok(());
        };
        of.changed
            .get_or_insert_with(|| format!("{statement} on {server}"));
        if kind == StepKind::Promote && *statement == Statement::MakeWriteable {
            of.promoted = Some(server.clone());
        }
        for hook in places(setup, HookList::PreFailover) {
            let is_done = |run: &&Run| run.hook == hook && run.is_done == Some(true);
            if !of.runs.iter().any(|run| is_done(&run)) {
                return Err(format!(
                    "hooks in order: {statement} took effect on {server} before {hook} of {uid} was done"
                ));
            }
        }
        Ok(())
    }

    fn began(
        &mut self,
        daemon: &str,
        hook: Hook,
        environment: &BTreeMap<&'static str, String>,
    ) -> Result<(), String> {
        let told = |name: &str| environment.get(name).map_or("", String::as_str);
        let key = told("ORC_IDEMPOTENCY_KEY");
        let owner = key
            .strip_suffix(&format!("/{hook}"))
            .ok_or_else(|| format!("its key is '{key}'"))?;
        let (cluster, term) = self.led.get(daemon).ok_or("this daemon never led")?;
        let term = *term;
        if let Some((later, leader)) = self.newest.get(cluster)
            && *later > term
        {
            return Err(format!(
                "{leader} leads in term {later}, and this daemon led last in term {term}"
            ));
        }
        if told("ORC_ORCHESTRATOR_HOST") != daemon {
            return Err(format!(
                "it is told of daemon {}",
                told("ORC_ORCHESTRATOR_HOST")
            ));
        }
        let run = Run {
            hook,
            daemon: daemon.to_owned(),
            term,
            is_done: None,
        };
        if hook.list == HookList::OnFailureDetection {
            let number = detection_number(owner).ok_or_else(|| format!("its key is '{key}'"))?;
            return self.of_detection(number, told("ORC_FAILED_HOST"), run);
        }
        let uid = Uid(told("ORC_RECOVERY_UID").to_owned());
        if uid.0 != owner {
            return Err(format!("its key is '{key}', of recovery {uid}"));
        }
        self.of_recovery(
            &uid,
            told("ORC_SUCCESSOR_HOST"),
            told("ORC_IS_SUCCESSFUL") == "true",
            run,
        )
    }

    fn of_detection(&mut self, number: u64, server: &str, run: Run) -> Result<(), String> {
        let Some(detected) = self.detections.get_mut(&number) else {
            return Err(format!("there is no detection {number}"));
        };
        if detected.server != server {
            return Err(format!(
                "detection {number} is of {}, and it is told of {server}",
                detected.server
            ));
        }
        // What a leader that ended had begun may be at its work still, or was done without anybody to say so.
        let counts = |one: &&Run| detected.record.is_none() || one.term == run.term;
        if let Some(running) = detected
            .runs
            .iter()
            .filter(counts)
            .find(|one| one.is_done.is_none())
        {
            return Err(format!(
                "detection {number}: {} has not ended",
                running.hook
            ));
        }
        if detected
            .runs
            .iter()
            .filter(counts)
            .any(|one| one.hook == run.hook && one.is_done == Some(true))
        {
            return Err(format!("detection {number}: it was done before"));
        }
        if run.hook.place > 0 && !is_done(&detected.runs, earlier(run.hook)) {
            return Err(format!(
                "detection {number}: {} is not done",
                earlier(run.hook)
            ));
        }
        match &mut detected.record {
            Some(record) => {
                let is_of = |intent: &&mut Intent| intent.hook == run.hook;
                if record
                    .intents
                    .iter_mut()
                    .filter(is_of)
                    .any(|one| one.is_done)
                {
                    return Err(format!("detection {number}: it is on record as done"));
                }
                let intent = record
                    .intents
                    .iter_mut()
                    .filter(is_of)
                    .find(|intent| intent.epoch.term == run.term && !intent.was_run);
                let Some(intent) = intent else {
                    return Err(format!(
                        "detection {number}: nothing committed in term {} that was not run stands behind it",
                        run.term
                    ));
                };
                intent.was_run = true;
            }
            None if detected.token != format!("token-of-{}", run.daemon) => {
                return Err(format!(
                    "detection {number} is on no record, and another daemon registered it"
                ));
            }
            None => {}
        }
        detected.runs.push(run);
        Ok(())
    }

    fn of_recovery(
        &mut self,
        uid: &Uid,
        successor: &str,
        is_successful: bool,
        run: Run,
    ) -> Result<(), String> {
        let setup = self.setup;
        let Some(of) = self.recoveries.get_mut(uid) else {
            return Err(format!("there is no recovery {uid}"));
        };
        let hook = run.hook;
        let intents = || of.intents.iter().filter(|intent| intent.hook == hook);
        if intents().any(|intent| intent.is_done) {
            return Err(format!("{uid}: it is on record as done"));
        }
        if let Some(running) = of
            .runs
            .iter()
            .find(|one| one.term == run.term && one.is_done.is_none())
        {
            return Err(format!("{uid}: {} has not ended", running.hook));
        }
        let before = if hook.place > 0 {
            Some(earlier(hook))
        } else if hook.list == HookList::PostFailover {
            places(setup, HookList::PostPrimaryFailover).last()
        } else {
            None
        };
        match hook.list {
            HookList::PreFailover => {
                if let Some(changed) = &of.changed {
                    return Err(format!("{uid}: {changed} took effect before"));
                }
                if let Some(before) = before
                    && !is_done(&of.runs, before)
                {
                    return Err(format!("{uid}: {before} is not done"));
                }
                // A recovery is of the newest detection before it; what its leader detected since has hooks of its own. Those
                // that are on no record are run by the leader that registered it, and by no other.
                let newest = self
                    .detections
                    .iter()
                    .filter(|(_, detected)| {
                        detected.server == of.server.host && detected.place < of.detections_before
                    })
                    .max_by_key(|(number, _)| **number);
                if let Some((number, detected)) = newest {
                    let is_mine = |one: &&Run| one.daemon == run.daemon && one.term == run.term;
                    let open = match &detected.record {
                        Some(record) if record.is_closed => None,
                        Some(record) => record.intents.last().map(|newest| newest.hook),
                        None => detected
                            .runs
                            .iter()
                            .rfind(is_mine)
                            .filter(|one| one.is_done != Some(true))
                            .map(|one| one.hook),
                    };
                    if let Some(open) = open {
                        return Err(format!("{uid}: {open} of detection {number} is not done"));
                    }
                }
            }
            HookList::PostPrimaryFailover | HookList::PostFailover => {
                let promoted = of.promoted.as_ref().map(|server| server.host.as_str());
                if promoted != Some(successor) || !is_successful {
                    return Err(format!(
                        "{uid}: it is told of successor '{successor}', and {promoted:?} was promoted"
                    ));
                }
                if let Some(before) = before
                    && !had_its_chance(of, before)
                {
                    return Err(format!("{uid}: {before} was not run"));
                }
            }
            HookList::PostUnsuccessfulFailover => {
                if !matches!(of.end, Some(End::Failed { .. } | End::Undone { .. })) {
                    return Err(format!("{uid}: its end is {:?}", of.end));
                }
                if !successor.is_empty() || is_successful {
                    return Err(format!("{uid}: it is told of successor '{successor}'"));
                }
                if let Some(before) = before
                    && !had_its_chance(of, before)
                {
                    return Err(format!("{uid}: {before} was not run"));
                }
            }
            HookList::OnFailureDetection
            | HookList::PreGracefulTakeover
            | HookList::PostIntermediateFailover
            | HookList::PostGracefulTakeover
            | HookList::PostTakePrimary => {
                return Err(format!("{uid}: a recovery has no use for it"));
            }
        }
        let intent = of
            .intents
            .iter_mut()
            .find(|intent| intent.hook == hook && intent.epoch.term == run.term && !intent.was_run);
        let Some(intent) = intent else {
            return Err(format!(
                "{uid}: nothing committed in term {} that was not run stands behind it",
                run.term
            ));
        };
        intent.was_run = true;
        of.runs.push(run);
        Ok(())
    }

    fn ended(&mut self, daemon: &str, hook: Hook, key: &str, is_done: bool) {
        let owner = key.strip_suffix(&format!("/{hook}")).unwrap_or_default();
        let runs = if hook.list == HookList::OnFailureDetection {
            let number = detection_number(owner).unwrap_or_default();
            self.detections
                .get_mut(&number)
                .map(|detected| &mut detected.runs)
        } else {
            let of = self.recoveries.get_mut(&Uid(owner.to_owned()));
            of.map(|of| &mut of.runs)
        };
        // An earlier one may have died with its daemon.
        let mut runs = runs.into_iter().flatten().rev();
        if let Some(run) =
            runs.find(|run| run.daemon == daemon && run.hook == hook && run.is_done.is_none())
        {
            run.is_done = Some(is_done);
        }
    }

    /// # Errors
    /// A hook that was never run.
    pub fn end(&self, ended: &Ended) -> Result<(), String> {
        for recovery in ended.recoveries() {
            let Some(of) = self.recoveries.get(&recovery.uid) else {
                continue;
            };
            let lists: &[HookList] = match &recovery.end {
                Some((_, End::Succeeded)) => {
                    &[HookList::PostPrimaryFailover, HookList::PostFailover]
                }
                Some((_, End::Failed { reason })) if reason.starts_with("not attempted: ") => &[],
                Some((_, End::Failed { .. } | End::Undone { .. })) => {
                    &[HookList::PostUnsuccessfulFailover]
                }
                None => &[],
            };
            for hook in lists.iter().flat_map(|list| places(self.setup, *list)) {
                if !had_its_chance(of, hook) {
                    return Err(format!(
                        "hooks in order: {hook} of {} was never run",
                        recovery.uid
                    ));
                }
            }
        }
        let newest = self.newest.values().map(|(term, _)| *term).max();
        for (number, detected) in &self.detections {
            if let Some(left) = left(detected, newest.unwrap_or_default()) {
                return Err(format!(
                    "hooks in order: {left} of detection {number} was left by a leader that ended, and by the next one"
                ));
            }
        }
        Ok(())
    }
}

fn detected(detection: &Detection, place: usize) -> Detected {
    let record = detection.telling.as_ref().map(|telling| {
        let epoch = match telling.phase {
            Phase::Intended(epoch) => epoch,
            Phase::Settled(_) => Epoch::default(),
        };
        OnRecord {
            intents: vec![begun(telling.place, epoch)],
            is_closed: false,
        }
    });
    Detected {
        server: detection.server.host.clone(),
        token: detection.processing_token.clone(),
        place,
        record,
        runs: Vec::new(),
    }
}

/// The hook that was begun last, where the leader of an earlier term did so and nobody has seen its end or tried often enough.
fn left(detected: &Detected, newest: u64) -> Option<Hook> {
    let record = detected.record.as_ref()?;
    let last = record.intents.last()?;
    let of_it = record.intents.iter().filter(|one| one.hook == last.hook);
    let run = detected.runs.last().filter(|run| run.hook == last.hook);
    let said_no = run.is_some_and(|run| run.is_done == Some(false));
    let is_left =
        !record.is_closed && last.epoch.term < newest && of_it.count() < INTENTS_MAX && !said_no;
    is_left.then_some(last.hook)
}

fn begun(place: u32, epoch: Epoch) -> Intent {
    Intent {
        step: None,
        hook: Hook {
            list: HookList::OnFailureDetection,
            place,
        },
        epoch,
        was_run: false,
        is_done: false,
    }
}

fn detection_number(owner: &str) -> Option<u64> {
    owner.strip_prefix("detection-")?.parse().ok()
}

fn intent(step: &Step, epoch: Epoch) -> Option<Intent> {
    let Some(Statement::RunHook { hook }) = step.statements.first() else {
        return None;
    };
    Some(Intent {
        step: Some(step.id),
        hook: *hook,
        epoch,
        was_run: false,
        is_done: false,
    })
}

fn places(setup: HooksSetup, list: HookList) -> impl Iterator<Item = Hook> {
    (0..setup.count(list)).map(move |place| Hook { list, place })
}

const fn earlier(hook: Hook) -> Hook {
    Hook {
        list: hook.list,
        place: hook.place.saturating_sub(1),
    }
}

fn is_done(runs: &[Run], hook: Hook) -> bool {
    runs.iter()
        .any(|run| run.hook == hook && run.is_done == Some(true))
}

/// It was run, whatever it came to, or as many leaders as may try ended before they ran it.
fn had_its_chance(of: &Of, hook: Hook) -> bool {
    let intents = of.intents.iter().filter(|intent| intent.hook == hook);
    of.runs.iter().any(|run| run.hook == hook) || intents.count() >= INTENTS_MAX
}
