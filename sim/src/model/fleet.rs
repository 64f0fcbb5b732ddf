//! The daemon's side of the model servers: the fleet adapter over simulated sockets.
//!
//! It does what [`orchestrator::mysql`] does on real servers, connection by connection (probe, pulse, fence, action) and
//! lock by lock, so that a black hole, an end of file, a refused dial and a login that never comes look to the core as
//! they do there. No policy and no retry of its own, except that a kept probe connection found closed is dialled again
//! once, as there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::env::{Env, Mutant, sleep, spawn, timeout};
use orchestrator::fleet::{Fleet, Gate, SignSender};
use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::{Epoch, Identity, InstanceKey, Uid};
use orchestrator_core::node::{ProbeEnd, Sign, StepEnd};
use orchestrator_core::recovery::{Lane, Outcome, Statement, Step, StepKind};
use orchestrator_core::time::Mono;
use orchestrator_core::topology::{MissingPrivilege, ProbeFailure, ProbeReport, ThreadState};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::server::{Account, code};
use super::told::{self, Cause};
use super::wire::{Greeting, Reply, Request, receive, send};

/// How long a login of a pulse, a fence or a late look may take.
const LOGIN: Duration = Duration::from_millis(800);
/// How long a login of a probe or an action connection may take.
const CONNECT: Duration = Duration::from_secs(2);
const PROBE: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_millis(1_300);
const SILENT: Duration = Duration::from_millis(2_500);
/// No pulse lives so long without its own deadlines ending it.
const PULSE_END: Duration = Duration::from_secs(3_600);
const BEAT: Duration = Duration::from_secs(1);
const LOCKING: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);
const READING: Duration = Duration::from_secs(2);
const RARELY: Duration = Duration::from_secs(3_600);
const AT_INTERVALS: Duration = Duration::from_secs(60);
/// An idle fence connection holds one of so many locks `orchestrator/idle/N`, by which it is known.
const IDLE_LOCKS: u32 = 32;
const LOCKS: [&str; 3] = [
    "orchestrator/act",
    "orchestrator/fence",
    "orchestrator/kill",
];

fn idle_lock(number: u32) -> String {
    format!("orchestrator/idle/{number}")
}

const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Act => 0,
        Lane::Fence => 1,
        Lane::Kill => 2,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fleet of one daemon. Clones share everything.
pub struct SimFleet<E: Env> {
    servers: Arc<Mutex<BTreeMap<InstanceKey, Arc<Kept<E>>>>>,
    /// Whether this daemon promoted a server, for mistakes that are made behind a promotion.
    has_promoted: Arc<AtomicBool>,
}

impl<E: Env> Clone for SimFleet<E> {
    fn clone(&self) -> Self {
        Self {
            servers: self.servers.clone(),
            has_promoted: self.has_promoted.clone(),
        }
    }
}

impl<E: Env> Default for SimFleet<E> {
    fn default() -> Self {
        Self {
            servers: Arc::default(),
            has_promoted: Arc::default(),
        }
    }
}

/// What is kept to one server.
struct Kept<E: Env> {
    key: InstanceKey,
    probe: tokio::sync::Mutex<Option<Connection<E>>>,
    watched: Mutex<Option<Arc<Watched<E>>>>,
    lanes: Mutex<Option<Arc<Lanes<E>>>>,
    /// The fleet's.
    has_promoted: Arc<AtomicBool>,
}

struct Watched<E: Env> {
    redial_nanos: AtomicU64,
    signs: Mutex<SignSender>,
    stopped: watch::Sender<bool>,
    fence: Mutex<Option<Connection<E>>>,
    fence_dialling: AtomicBool,
}

/// The action connections of one epoch, by lane.
struct Lanes<E: Env> {
    epoch: Epoch,
    slots: [tokio::sync::Mutex<Option<Connection<E>>>; 3],
    own: Mutex<BTreeSet<u64>>,
    stopped: watch::Sender<bool>,
}

/// A connection, logged in. Nothing is outstanding on it between calls.
struct Connection<E: Env> {
    stream: E::Stream,
    session: u64,
    identity: Identity,
    /// The rights that were missing when they were asked for last, and when that was.
    lacks: Option<(Duration, Vec<MissingPrivilege>)>,
}

async fn dial<E: Env>(
    key: &InstanceKey,
    within: Duration,
    account: Account,
) -> Result<Connection<E>, ProbeFailure> {
    let until = E::mono() + within;
    let address = key.to_string();
    let mut stream = match timeout::<E, _>(within, E::connect(&address)).await {
        None => return Err(ProbeFailure::Unreachable),
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ProbeFailure::Refused);
        }
        Some(Err(_)) => return Err(ProbeFailure::Unreachable),
        Some(Ok(stream)) => stream,
    };
    let log_in = async {
        let greeting: Greeting = receive(&mut stream).await?;
        send(&mut stream, &Request::LogIn(account)).await?;
        let reply: Reply = receive(&mut stream).await?;
        io::Result::Ok((greeting, reply))
    };
    match timeout::<E, _>(until.saturating_sub(E::mono()), log_in).await {
        None => Err(ProbeFailure::NoLogin),
        Some(Err(error)) => Err(broken(&error)),
        Some(Ok((greeting, Reply::LoggedIn(session)))) => Ok(Connection {
            stream,
            session,
            identity: greeting.identity,
            lacks: None,
        }),
        Some(Ok((_, Reply::Error(refusal)))) => Err(ProbeFailure::ServerError {
            code: refusal.code,
            message: refusal.message,
        }),
        Some(Ok((_, other))) => Err(ProbeFailure::Garbled(format!("{other:?} to a login"))),
    }
}

fn broken(error: &io::Error) -> ProbeFailure {
    if error.kind() == io::ErrorKind::InvalidData {
        ProbeFailure::Garbled(error.to_string())
    } else {
        ProbeFailure::Closed
    }
}

impl<E: Env> Connection<E> {
    /// Asks and waits. After any failure but the server's own refusal the connection must be dropped.
    async fn ask(&mut self, request: Request, within: Duration) -> Result<Reply, ProbeFailure> {
        let conversation = async {
            send(&mut self.stream, &request).await?;
            receive::<Reply>(&mut self.stream).await
        };
        match timeout::<E, _>(within, conversation).await {
            None => Err(ProbeFailure::Stalled),
            Some(Err(error)) => Err(broken(&error)),
            Some(Ok(Reply::Error(refusal))) => Err(ProbeFailure::ServerError {
                code: refusal.code,
                message: refusal.message,
            }),
            Some(Ok(reply)) => Ok(reply),
        }
    }

    async fn read(
        &mut self,
        within: Duration,
        has_promoted: &AtomicBool,
    ) -> Result<Box<ProbeReport>, ProbeFailure> {
        let began = E::mono();
        match self.ask(Request::Probe, within).await? {
            Reply::Report(mut report) => {
                report.latency = E::mono().saturating_sub(began);
                self.remember_rights(&mut report);
                if E::has(Mutant::UndrainedPromotion)
                    || E::has(Mutant::HastyRepoint) && has_promoted.load(Ordering::Relaxed)
                {
                    count_received_as_applied(&mut report);
                }
                if E::has(Mutant::ErrantFollower) && has_promoted.load(Ordering::Relaxed) {
                    hide_what_it_holds(&mut report);
                }
                if E::has(Mutant::UnseenFollower) && has_promoted.load(Ordering::Relaxed) {
                    count_as_receiving(&mut report);
                }
                Ok(report)
            }
            other => Err(ProbeFailure::Garbled(format!("{other:?} to a probe"))),
        }
    }

    /// Rights are asked for on connect and rarely, and sooner where some are missing.
    fn remember_rights(&mut self, report: &mut ProbeReport) {
        let now = E::mono();
        match &self.lacks {
            Some((asked, missing))
                if now
                    < *asked
                        + if missing.is_empty() {
                            RARELY
                        } else {
                            AT_INTERVALS
                        } =>
            {
                report.missing_privileges.clone_from(missing);
            }
            Some(_) | None => self.lacks = Some((now, report.missing_privileges.clone())),
        }
    }

    async fn sessions(
        &mut self,
        request: Request,
        within: Duration,
    ) -> Result<Vec<u64>, ProbeFailure> {
        match self.ask(request, within).await? {
            Reply::Sessions(sessions) => Ok(sessions),
            Reply::Holders(holders) => Ok(holders.into_iter().flatten().collect()),
            other => Err(ProbeFailure::Garbled(format!("{other:?} to a list"))),
        }
    }

    /// One that is gone already is no failure.
    async fn kill(&mut self, session: u64, within: Duration) -> Result<(), ProbeFailure> {
        match self.ask(Request::KillSession(session), within).await {
            Ok(_) => Ok(()),
            Err(ProbeFailure::ServerError { code, .. }) if code == code::NO_SUCH_THREAD => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Holds a connection with an answer outstanding until the server ends it.
    async fn linger(mut self) {
        let mut buffer = [0; 256];
        while matches!(self.stream.read(&mut buffer).await, Ok(count) if count > 0) {}
    }
}

/// For [`Mutant::UndrainedPromotion`] and [`Mutant::HastyRepoint`].
fn count_received_as_applied(report: &mut ProbeReport) {
    let status = report.replication.as_ref();
    let Some(received) = status.and_then(|status| status.received.clone()) else {
        return;
    };
    for applied in [&mut report.executed, &mut report.replicated_gtid] {
        if let Some(applied) = applied
            && let Ok(both) = applied.union(&received)
        {
            *applied = both;
        }
    }
}

/// For [`Mutant::UnseenFollower`].
fn count_as_receiving(report: &mut ProbeReport) {
    if let Some(status) = &mut report.replication {
        status.io = ThreadState::Running;
        status.read.file = "a log".to_owned();
    }
}

/// For [`Mutant::EqualReplicas`] and [`Mutant::ErrantFollower`].
fn hide_what_it_holds(report: &mut ProbeReport) {
    let received = report
        .replication
        .as_mut()
        .map(|status| &mut status.received);
    let sets = [
        Some(&mut report.executed),
        Some(&mut report.replicated_gtid),
        received,
    ];
    for held in sets.into_iter().flatten() {
        *held = held.as_ref().map(|held| GtidSet::empty(held.flavour()));
    }
}

impl<E: Env> SimFleet<E> {
    fn kept(&self, key: &InstanceKey) -> Arc<Kept<E>> {
        lock(&self.servers)
            .entry(key.clone())
            .or_insert_with(|| {
                Arc::new(Kept {
                    key: key.clone(),
                    probe: tokio::sync::Mutex::new(None),
                    watched: Mutex::new(None),
                    lanes: Mutex::new(None),
                    has_promoted: self.has_promoted.clone(),
                })
            })
            .clone()
    }

    fn known(&self, key: &InstanceKey) -> Option<Arc<Kept<E>>> {
        lock(&self.servers).get(key).cloned()
    }
}

impl<E: Env> Kept<E> {
    async fn probe(&self) -> Result<Box<ProbeReport>, ProbeFailure> {
        let mut slot = self.probe.lock().await;
        if let Some(mut kept) = slot.take() {
            match kept.read(PROBE, &self.has_promoted).await {
                Ok(report) => {
                    *slot = Some(kept);
                    return Ok(report);
                }
                Err(failure) => {
                    // Its end tells of the past.
                    if failure != ProbeFailure::Closed {
                        return Err(failure);
                    }
                }
            }
        }
        let mut fresh = dial::<E>(&self.key, CONNECT, Account::Orchestrator).await?;
        let report = fresh.read(PROBE, &self.has_promoted).await?;
        *slot = Some(fresh);
        Ok(report)
    }

    fn stop_watch(&self) {
        if let Some(watched) = lock(&self.watched).take() {
            watched.stopped.send_replace(true);
            *lock(&watched.fence) = None;
        }
    }
}

impl<E: Env> Fleet for SimFleet<E> {
    async fn probe(&self, key: InstanceKey) -> ProbeEnd {
        let began = Mono::from_elapsed(E::mono());
        let result = self.kept(&key).probe().await;
        ProbeEnd {
            key,
            began,
            partial_success: result.is_ok(),
            result,
        }
    }

    fn watch(&self, key: InstanceKey, redial: Duration, signs: SignSender) {
        let kept = self.kept(&key);
        let mut current = lock(&kept.watched);
        if let Some(watched) = current.as_ref() {
            watched
                .redial_nanos
                .store(redial.as_nanos() as u64, Ordering::Relaxed);
            *lock(&watched.signs) = signs;
            return;
        }
        let watched = Arc::new(Watched {
            redial_nanos: AtomicU64::new(redial.as_nanos() as u64),
            signs: Mutex::new(signs),
            stopped: watch::Sender::new(false),
            fence: Mutex::new(None),
            fence_dialling: AtomicBool::new(false),
        });
        *current = Some(watched.clone());
        drop(current);
        spawn::<E>(async move {
            tokio::select! {
                biased;
                () = watched.until_stopped() => {}
                () = pulse::<E>(&kept, &watched) => {}
            }
        });
    }

    fn unwatch(&self, key: &InstanceKey) {
        if let Some(kept) = self.known(key) {
            kept.stop_watch();
        }
    }

    fn drop_server(&self, key: &InstanceKey) {
        let Some(kept) = lock(&self.servers).remove(key) else {
            return;
        };
        kept.stop_watch();
        if let Some(lanes) = lock(&kept.lanes).take() {
            lanes.stopped.send_replace(true);
        }
    }

    async fn run(&self, uid: Uid, epoch: Epoch, step: Step, gate: impl Gate + 'static) -> StepEnd {
        let kept = self.kept(&step.server);
        let mut end = StepEnd {
            uid,
            step: step.id,
            epoch,
            outcome: Outcome::Done,
            identity: None,
            report: None,
        };
        let pass = Pass { gate, epoch };
        if let Err(outcome) = attempt::<E>(&kept, &step, &pass, &mut end).await {
            end.outcome = outcome;
        } else if step.kind == StepKind::Promote {
            self.has_promoted.store(true, Ordering::Relaxed);
        }
        end
    }

    fn fence_frozen(&self, _uid: &Uid, key: &InstanceKey) {
        let Some(kept) = self.known(key) else {
            return;
        };
        if let Some(watched) = lock(&kept.watched).clone() {
            leave_fence(&kept, &watched);
        }
    }
}

// The watch.

/// Writes the fence into the idle connection and leaves it there.
fn leave_fence<E: Env>(kept: &Arc<Kept<E>>, watched: &Arc<Watched<E>>) {
    let Some(mut idle) = lock(&watched.fence).take() else {
        return;
    };
    let (kept, watched) = (kept.clone(), watched.clone());
    spawn::<E>(async move {
        tokio::select! {
            biased;
            () = watched.until_stopped() => {}
            () = async {
                told::sent(&kept.key, idle.session, &Statement::Fence, Cause::FrozenFence);
                if send(&mut idle.stream, &Request::Execute(Statement::Fence)).await.is_ok() {
                    idle.linger().await;
                }
            } => {}
        }
    });
}

impl<E: Env> Watched<E> {
    async fn until_stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        // The sender lives in `self`.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    fn sign(&self, key: &InstanceKey, sign: Sign) {
        if !*self.stopped.borrow() {
            let signs = lock(&self.signs).clone();
            signs.send(key, sign);
        }
    }

    fn redial(&self) -> Duration {
        Duration::from_nanos(self.redial_nanos.load(Ordering::Relaxed))
    }
}

async fn pulse<E: Env>(kept: &Arc<Kept<E>>, watched: &Arc<Watched<E>>) {
    let mut up = dial_until_up::<E>(kept, watched).await;
    loop {
        watched.sign(&kept.key, Sign::PulseUp(up.identity.clone()));
        refresh_fence::<E>(kept, watched);
        up = beat::<E>(kept, watched, up).await;
    }
}

/// Keeps a statement in flight until the connection is over, and dials the next one.
async fn beat<E: Env>(
    kept: &Arc<Kept<E>>,
    watched: &Arc<Watched<E>>,
    mut up: Connection<E>,
) -> Connection<E> {
    loop {
        let began = E::mono();
        let mut spare = None;
        let mut answer = Box::pin(up.ask(Request::Sleep(BEAT), PULSE_END));
        let ended = match timeout::<E, _>(LATE, &mut answer).await {
            Some(ended) => Some(ended),
            None => {
                watched.sign(&kept.key, Sign::PulseLate);
                let late = async {
                    tokio::select! {
                        biased;
                        ended = &mut answer => return ended,
                        found = dial_until_up::<E>(kept, watched) => {
                            let identity = found.identity.clone();
                            watched.sign(&kept.key, Sign::DialAnswered(identity));
                            spare = Some(found);
                        }
                    }
                    answer.await
                };
                timeout::<E, _>(SILENT - LATE, late).await
            }
        };
        let over = match ended {
            Some(Ok(_) | Err(ProbeFailure::ServerError { .. })) => None,
            Some(Err(_)) => Some(Sign::PulseClosed),
            None => Some(Sign::PulseSilent),
        };
        if let Some(sign) = over {
            if sign == Sign::PulseSilent && E::has(Mutant::UnaskedFence) {
                leave_fence(kept, watched);
            }
            watched.sign(&kept.key, sign);
            return match spare {
                Some(found) => found,
                None => dial_until_up::<E>(kept, watched).await,
            };
        }
        watched.sign(&kept.key, Sign::PulseBeat);
        if E::has(Mutant::SessionsKept)
            && let Ok(another) = dial::<E>(&kept.key, LOGIN, Account::Orchestrator).await
        {
            spawn::<E>(another.linger());
        }
        if lock(&watched.fence).is_none() {
            refresh_fence::<E>(kept, watched);
        }
        let rest = BEAT.saturating_sub(E::mono().saturating_sub(began));
        if !rest.is_zero() {
            sleep::<E>(rest).await;
        }
    }
}

/// Dials, one dial in flight, one each interval, until a login is complete. Each failure is a sign.
async fn dial_until_up<E: Env>(kept: &Kept<E>, watched: &Watched<E>) -> Connection<E> {
    loop {
        let began = E::mono();
        let failure = match dial::<E>(&kept.key, LOGIN, Account::Orchestrator).await {
            Ok(up) => return up,
            Err(failure) => failure,
        };
        let sign = match failure {
            ProbeFailure::Refused => Sign::DialRefused,
            ProbeFailure::Unreachable | ProbeFailure::Unresolved(_) => Sign::DialUnreachable,
            ProbeFailure::ServerError { code, .. } => Sign::DialError(code),
            ProbeFailure::NoLogin
            | ProbeFailure::Stalled
            | ProbeFailure::Closed
            | ProbeFailure::Garbled(_) => Sign::DialNoLogin,
        };
        watched.sign(&kept.key, sign);
        let rest = watched
            .redial()
            .saturating_sub(E::mono().saturating_sub(began));
        if !rest.is_zero() {
            sleep::<E>(rest).await;
        }
    }
}

/// Puts a fresh idle connection in the place of the old one.
fn refresh_fence<E: Env>(kept: &Arc<Kept<E>>, watched: &Arc<Watched<E>>) {
    if watched.fence_dialling.swap(true, Ordering::AcqRel) {
        return;
    }
    let (kept, watched) = (kept.clone(), watched.clone());
    spawn::<E>(async move {
        let dialled = dial::<E>(&kept.key, LOGIN, Account::Orchestrator).await;
        if let Ok(mut idle) = dialled
            && take_idle_lock(&mut idle).await
            && !*watched.stopped.borrow()
        {
            *lock(&watched.fence) = Some(idle);
        }
        watched.fence_dialling.store(false, Ordering::Release);
    });
}

async fn take_idle_lock<E: Env>(idle: &mut Connection<E>) -> bool {
    for number in 0..IDLE_LOCKS {
        match idle.ask(Request::GetLock(idle_lock(number)), LOGIN).await {
            Ok(Reply::Locked(true)) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

// Steps.

struct Pass<G> {
    gate: G,
    epoch: Epoch,
}

impl<G: Gate> Pass<G> {
    /// Confirms the epoch; the statement must be written at once.
    async fn confirm<E: Env>(&self) -> Result<(), Outcome> {
        let until = self.gate.confirm(self.epoch).await.map_err(unsent)?;
        if Mono::from_elapsed(E::mono()) < until {
            Ok(())
        } else {
            Err(unsent("the confirmation of leadership ran out"))
        }
    }
}

fn unsent(reason: impl Into<String>) -> Outcome {
    Outcome::Refused {
        code: 0,
        reason: reason.into(),
    }
}

/// A failure before anything was sent that changes the server.
fn before(failure: ProbeFailure) -> Outcome {
    match failure {
        ProbeFailure::ServerError { code, message } => Outcome::Refused {
            code,
            reason: message,
        },
        other => unsent(format!("nothing was sent: {other}")),
    }
}

async fn attempt<E: Env>(
    kept: &Arc<Kept<E>>,
    step: &Step,
    pass: &Pass<impl Gate>,
    end: &mut StepEnd,
) -> Result<(), Outcome> {
    let lanes = lanes_of(kept, pass.epoch)?;
    let slot = &lanes.slots[lane_index(step.lane)];
    let patience = CONNECT + LOCKING + step.deadline;
    let Some(mut slot) = timeout::<E, _>(patience, slot.lock()).await else {
        return Err(unsent("an earlier step of this lane goes on"));
    };
    let mut action = match slot.take() {
        Some(action) => match still_there(action, step.lane).await {
            Some(action) => action,
            None => open::<E>(kept, &lanes, step.lane, pass).await?,
        },
        None => open::<E>(kept, &lanes, step.lane, pass).await?,
    };
    end.identity = Some(action.identity.clone());
    if step
        .identity
        .as_ref()
        .is_some_and(|wanted| *wanted != action.identity)
    {
        let reason = format!("another server answers: {}", action.identity);
        *slot = Some(action);
        return Err(unsent(reason));
    }
    let until = E::mono() + step.deadline;
    let cause = Cause::Step {
        uid: end.uid.clone(),
        step: step.id,
        kind: step.kind,
        epoch: pass.epoch,
    };
    for statement in &step.statements {
        match run_one::<E>(kept, &lanes, action, statement, &cause, pass, until).await {
            (Some(back), Ok(())) => action = back,
            (Some(back), Err(outcome)) => {
                *slot = Some(back);
                return Err(outcome);
            }
            (None, outcome) => return outcome,
        }
    }
    if step.read_after {
        match action.read(READING, &kept.has_promoted).await {
            Ok(mut report) => {
                if step.kind == StepKind::Halt && E::has(Mutant::EqualReplicas) {
                    hide_what_it_holds(&mut report);
                }
                end.report = Some(report);
            }
            Err(ProbeFailure::ServerError { .. }) => {}
            Err(_) => return Ok(()),
        }
    }
    *slot = Some(action);
    Ok(())
}

/// The lanes of this epoch; those of an earlier one are let go.
fn lanes_of<E: Env>(kept: &Kept<E>, epoch: Epoch) -> Result<Arc<Lanes<E>>, Outcome> {
    let mut current = lock(&kept.lanes);
    if let Some(lanes) = current.as_ref() {
        if lanes.epoch == epoch {
            return Ok(lanes.clone());
        }
        if lanes.epoch > epoch {
            return Err(unsent("a later epoch acts on this server"));
        }
        lanes.stopped.send_replace(true);
    }
    let fresh = Arc::new(Lanes {
        epoch,
        slots: std::array::from_fn(|_| tokio::sync::Mutex::new(None)),
        own: Mutex::default(),
        stopped: watch::Sender::new(false),
    });
    *current = Some(fresh.clone());
    Ok(fresh)
}

async fn holders<E: Env>(
    action: &mut Connection<E>,
    within: Duration,
) -> Result<Vec<Option<u64>>, ProbeFailure> {
    let names = LOCKS.map(str::to_owned).to_vec();
    match action.ask(Request::LockHolders(names), within).await? {
        Reply::Holders(holders) => Ok(holders),
        other => Err(ProbeFailure::Garbled(format!("{other:?} to a question"))),
    }
}

/// Whether a kept action connection is alive and has its lock.
async fn still_there<E: Env>(mut action: Connection<E>, lane: Lane) -> Option<Connection<E>> {
    let holders = holders(&mut action, LOGIN).await.ok()?;
    (holders.get(lane_index(lane)).copied().flatten() == Some(action.session)).then_some(action)
}

/// Opens an action connection: login, eviction of whoever holds one of the three locks, the lane's own lock.
async fn open<E: Env>(
    kept: &Arc<Kept<E>>,
    lanes: &Lanes<E>,
    lane: Lane,
    pass: &Pass<impl Gate>,
) -> Result<Connection<E>, Outcome> {
    let until = E::mono() + CONNECT + LOCKING;
    let left = || until.saturating_sub(E::mono());
    let idle = match lane {
        Lane::Fence => {
            let watched = lock(&kept.watched).clone();
            watched.and_then(|watched| lock(&watched.fence).take())
        }
        Lane::Act | Lane::Kill => None,
    };
    let answering = match idle {
        Some(mut idle) => holders(&mut idle, LOGIN).await.is_ok().then_some(idle),
        None => None,
    };
    let mut action = match answering {
        Some(idle) => idle,
        None => dial::<E>(&kept.key, CONNECT, Account::Orchestrator)
            .await
            .map_err(before)?,
    };
    lock(&lanes.own).insert(action.session);
    let locked = async {
        loop {
            let strangers: BTreeSet<u64> = holders(&mut action, left())
                .await
                .map_err(before)?
                .into_iter()
                .flatten()
                .filter(|session| !lock(&lanes.own).contains(session))
                .collect();
            if strangers.is_empty() {
                break;
            }
            if left().is_zero() {
                return Err(unsent("a session keeps a lock and does not go"));
            }
            for session in strangers {
                pass.confirm::<E>().await?;
                action.kill(session, left()).await.map_err(before)?;
            }
            sleep::<E>(LOOK).await;
        }
        pass.confirm::<E>().await?;
        let name = LOCKS[lane_index(lane)].to_owned();
        match action.ask(Request::GetLock(name), left()).await {
            Ok(Reply::Locked(true)) => Ok(()),
            Ok(_) => Err(unsent("the lock is held by another session")),
            Err(failure) => Err(before(failure)),
        }
    }
    .await;
    match locked {
        Ok(()) => Ok(action),
        Err(outcome) => {
            lock(&lanes.own).remove(&action.session);
            Err(outcome)
        }
    }
}

/// Runs one statement. The connection comes back unless it is lost.
async fn run_one<E: Env>(
    kept: &Arc<Kept<E>>,
    lanes: &Arc<Lanes<E>>,
    mut action: Connection<E>,
    statement: &Statement,
    cause: &Cause,
    pass: &Pass<impl Gate>,
    until: Duration,
) -> (Option<Connection<E>>, Result<(), Outcome>) {
    let left = || until.saturating_sub(E::mono());
    if let Statement::KillClients { spare_users } = statement {
        let spared = spare_users.clone();
        let request = Request::ClientSessions { spared };
        let ended = kill_all::<E>(&mut action, request, pass, until).await;
        return keep(action, ended);
    }
    if *statement == Statement::MakeWriteable {
        // A fence that waits in another session of our account must not close what is opened here.
        let names = (0..IDLE_LOCKS)
            .map(idle_lock)
            .chain([LOCKS[1].to_owned()])
            .collect();
        let request = Request::LockHolders(names);
        let ended = kill_all::<E>(&mut action, request, pass, until).await;
        if ended.is_err() {
            return keep(action, ended);
        }
        // The own idle one was as good as any other's: it is dialled again at the next beat.
        if let Some(watched) = lock(&kept.watched).clone() {
            *lock(&watched.fence) = None;
        }
    }
    if let Err(outcome) = pass.confirm::<E>().await {
        return (Some(action), Err(outcome));
    }
    if left().is_zero() {
        let outcome = unsent("the step's deadline passed before it was sent");
        return (Some(action), Err(outcome));
    }
    if *statement == Statement::Fence && E::has(Mutant::UnsentFence) {
        return (Some(action), Ok(()));
    }
    told::sent(&kept.key, action.session, statement, cause.clone());
    let mut answer = action
        .ask(Request::Execute(statement.clone()), left())
        .await;
    if E::has(Mutant::ActionReopened)
        && answer == Err(ProbeFailure::Closed)
        && let Ok(again) = dial::<E>(&kept.key, CONNECT, Account::Orchestrator).await
    {
        action = again;
        told::sent(&kept.key, action.session, statement, cause.clone());
        answer = action
            .ask(Request::Execute(statement.clone()), left())
            .await;
    }
    match answer {
        Ok(_) => (Some(action), Ok(())),
        Err(ProbeFailure::ServerError { code, message }) => {
            let reason = format!("{statement}: {message}");
            (Some(action), Err(Outcome::Refused { code, reason }))
        }
        Err(ProbeFailure::Stalled) => {
            let reason = format!("{statement}: no answer in time");
            if *statement == Statement::Fence {
                leave_pending::<E>(lanes.clone(), action);
            } else {
                lock(&lanes.own).remove(&action.session);
                abandon::<E>(kept.clone(), action);
            }
            (None, Err(Outcome::Unknown { reason }))
        }
        Err(failure) => {
            lock(&lanes.own).remove(&action.session);
            let reason = format!("{statement}: {failure}");
            (None, Err(Outcome::Unknown { reason }))
        }
    }
}

/// A connection on which the server answered, in whatever way, can be used again.
fn keep<E: Env>(
    action: Connection<E>,
    ended: Result<(), (Outcome, bool)>,
) -> (Option<Connection<E>>, Result<(), Outcome>) {
    match ended {
        Ok(()) => (Some(action), Ok(())),
        Err((outcome, true)) => (Some(action), Err(outcome)),
        Err((outcome, false)) => (None, Err(outcome)),
    }
}

/// Lists and kills until nobody else is left. `true` beside a failure: the connection can still be used.
async fn kill_all<E: Env>(
    action: &mut Connection<E>,
    list: Request,
    pass: &Pass<impl Gate>,
    until: Duration,
) -> Result<(), (Outcome, bool)> {
    let left = || until.saturating_sub(E::mono());
    let own = action.session;
    let fails = |failure: ProbeFailure| {
        let usable = matches!(failure, ProbeFailure::ServerError { .. });
        (before(failure), usable)
    };
    loop {
        let listed = action.sessions(list.clone(), left()).await.map_err(fails)?;
        let mut found = false;
        for session in listed {
            if session == own {
                continue;
            }
            found = true;
            pass.confirm::<E>()
                .await
                .map_err(|outcome| (outcome, true))?;
            action.kill(session, left()).await.map_err(fails)?;
        }
        if !found {
            return Ok(());
        }
        if left().is_zero() {
            let reason = "sessions were left at the deadline".to_owned();
            return Err((Outcome::Unknown { reason }, true));
        }
        sleep::<E>(LOOK).await;
    }
}

/// The fence outlives its deadline: it stays on its connection until it is executed, its session is killed, or the
/// lanes are let go.
fn leave_pending<E: Env>(lanes: Arc<Lanes<E>>, action: Connection<E>) {
    spawn::<E>(async move {
        let mut stopped = lanes.stopped.subscribe();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = action.linger() => {}
        }
    });
}

/// Drops a connection with a statement on it and kills its session over another one.
fn abandon<E: Env>(kept: Arc<Kept<E>>, action: Connection<E>) {
    let (session, identity) = (action.session, action.identity.clone());
    drop(action);
    spawn::<E>(async move {
        if let Ok(mut other) = dial::<E>(&kept.key, LOGIN, Account::Orchestrator).await
            && other.identity == identity
        {
            let _ = other.kill(session, LOGIN).await;
        }
    });
}
