//! The one task that owns the [`Node`]: it takes inputs in, lets the node decide, and hands effects over.
//!
//! It never waits on raft, MySQL or HTTP: effects run in tasks of their own and come back as inputs. What it must keep
//! is the order: entries are applied in the order raft gives them, and an answer is given for each before the next.

mod execute;
mod handle;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{LogPosition, RequestId};
use orchestrator_core::node::{Effect, Fatal, Input, Level, Node, Output, Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::{Replicated, wire};
use orchestrator_core::time::{Mono, Now, Wall};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::execute::{Consensus, Executor, ProposeEnd};
pub use self::handle::{DriverGone, DriverHandle};
use crate::backend::Batch;
use crate::env::Env;
use crate::fleet::Fleet;
use crate::hooks::Hooks;
use crate::raft::ReplicaRequest;

/// A timer that fires this much late means that this process did not run for a while.
const LATE: Duration = Duration::from_millis(500);
/// Inputs taken in before the clock is looked at again.
const INPUTS_PER_ROUND: usize = 256;
const ROUND_MAX: Duration = Duration::from_millis(5);

/// What comes to the driver beside raft's requests.
pub(crate) enum Message {
    Input(Input),
    /// A look at the node, from within its task.
    Look(Box<dyn FnOnce(&Node, Now) + Send>),
    Ask(Request, oneshot::Sender<Reply>),
    Reload(Box<Policy>),
    /// The daemon can go on no more, for this reason.
    End(String),
}

/// Owns the node.
pub struct Driver<E: Env, F: Fleet, C: Consensus> {
    node: Node,
    rng: StdRng,
    inbox: mpsc::UnboundedReceiver<Message>,
    replica: mpsc::Receiver<ReplicaRequest>,
    executor: Executor<E, F, C>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    last_request: u64,
    /// Where what was applied is written behind.
    backend: Option<mpsc::UnboundedSender<Batch>>,
    fatal: watch::Sender<Option<Fatal>>,
}

thread_local! {
    static APPLYING: Cell<Option<(LogPosition, LogPosition)>> = const { Cell::new(None) };
}

/// The first and the last of the entries that this thread is applying: for a panic hook, which runs on the thread that
/// panics.
#[must_use]
pub fn applying() -> Option<(LogPosition, LogPosition)> {
    APPLYING.get()
}

/// The current reading of both clocks.
pub fn now<E: Env>() -> Now {
    Now {
        mono: Mono::from_elapsed(E::mono()),
        wall: Wall::from_nanos(u64::try_from(E::wall().as_nanos()).unwrap_or(u64::MAX)),
    }
}

/// The ends of the driver's channels that others hold.
pub struct Ends {
    pub handle: DriverHandle,
    /// For [`crate::raft::start`].
    pub replica: mpsc::Sender<ReplicaRequest>,
    /// Set when the node can go on no more.
    pub fatal: watch::Receiver<Option<Fatal>>,
}

/// The driver's own ends, from [`channels`].
pub struct Channels {
    inbox: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    replica: mpsc::Receiver<ReplicaRequest>,
    fatal: watch::Sender<Option<Fatal>>,
}

/// The channels of a driver, before it exists: raft needs one end while it starts.
pub fn channels() -> (Channels, Ends) {
    let (sender, inbox) = mpsc::unbounded_channel();
    let (replica, requests) = mpsc::channel(64);
    let fatal = watch::Sender::new(None);
    let ends = Ends {
        handle: DriverHandle::new(sender.clone()),
        replica,
        fatal: fatal.subscribe(),
    };
    (
        Channels {
            inbox,
            sender,
            replica: requests,
            fatal,
        },
        ends,
    )
}

impl<E: Env, F: Fleet, C: Consensus> Driver<E, F, C> {
    /// A driver for this node. `consensus` may be set later through the executor: raft replays its log into the driver
    /// while it starts.
    pub fn new(
        node: Node,
        seed: u64,
        channels: Channels,
        fleet: F,
        hooks: Arc<dyn Hooks>,
        probes_max: usize,
        backend: Option<mpsc::UnboundedSender<Batch>>,
    ) -> Self {
        Driver {
            node,
            rng: StdRng::seed_from_u64(seed),
            inbox: channels.inbox,
            replica: channels.replica,
            executor: Executor::new(fleet, hooks, channels.sender, probes_max),
            waiting: BTreeMap::new(),
            last_request: 0,
            backend,
            fatal: channels.fatal,
        }
    }

    /// Where raft is told to the executor once it is up.
    pub fn consensus_slot(&self) -> std::sync::Arc<std::sync::OnceLock<C>> {
        self.executor.consensus.clone()
    }

    /// Runs until every handle is gone or the node can go on no more.
    pub async fn run(mut self) {
        loop {
            let (deadline, _why) = self.node.next_deadline();
            let deadline = Duration::from_nanos(deadline.nanos());
            let began = E::mono();
            let message = {
                let wait = deadline.saturating_sub(began);
                tokio::select! {
                    biased;
                    request = self.replica.recv() => request.map_or(Woken::Closed, Woken::Replica),
                    message = self.inbox.recv() => message.map_or(Woken::Closed, Woken::Message),
                    () = crate::env::sleep::<E>(wait) => Woken::Timer,
                }
            };
            // Whatever came first: after a stop of the whole process messages wait before the timer is looked at.
            if E::mono().saturating_sub(deadline.max(began)) > LATE {
                self.step(Input::RanLate);
            }
            match message {
                Woken::Closed => return,
                Woken::Timer => self.step(Input::Wake),
                Woken::Replica(request) => self.replica(request),
                Woken::Message(message) => {
                    self.message(message);
                    let round = E::mono();
                    for _ in 1..INPUTS_PER_ROUND {
                        // Looks at a large fleet take milliseconds each, and raft must not wait for all of them.
                        if E::mono().saturating_sub(round) > ROUND_MAX {
                            break;
                        }
                        match self.inbox.try_recv() {
                            Ok(message) => self.message(message),
                            Err(_) => break,
                        }
                    }
                }
            }
            if self.fatal.borrow().is_some() {
                return;
            }
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.step(input),
            Message::Look(look) => look(&self.node, self.node.time(now::<E>())),
            Message::Ask(request, reply) => {
                self.last_request += 1;
                let id = RequestId(self.last_request);
                self.waiting.insert(id, reply);
                self.waiting.retain(|_, reply| !reply.is_closed());
                self.step(Input::Asked(id, request));
            }
            Message::Reload(policy) => self.step(Input::LocalPolicy(policy)),
            Message::End(reason) => self.end(Fatal {
                entry: None,
                reason,
            }),
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Output::default();
        self.node.step(now::<E>(), &mut self.rng, input, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Output) {
        let Output {
            effects,
            notes,
            applied: _,
            changes,
            fatal,
        } = out;
        for note in &notes {
            crate::trace::event("note", format_args!("{note}"));
            let uid = note
                .uid
                .as_ref()
                .map(|uid| uid.0.as_str())
                .unwrap_or_default();
            let text = note.text.as_str();
            match (note.level, uid.is_empty()) {
                (Level::Debug, true) => tracing::debug!("{text}"),
                (Level::Debug, false) => tracing::debug!(recovery = uid, "{text}"),
                (Level::Info, true) => tracing::info!("{text}"),
                (Level::Info, false) => tracing::info!(recovery = uid, "{text}"),
                (Level::Warning, true) => tracing::warn!("{text}"),
                (Level::Warning, false) => tracing::warn!(recovery = uid, "{text}"),
                (Level::Error, true) => tracing::error!("{text}"),
                (Level::Error, false) => tracing::error!(recovery = uid, "{text}"),
            }
        }
        if let Some(backend) = &self.backend
            && !changes.is_empty()
        {
            // The receiver is gone only while the daemon ends.
            let _ = backend.send(Batch::changes(
                self.node.replicated().applied(),
                self.node.digest(),
                changes,
            ));
        }
        for effect in effects {
            crate::trace::event("effect", format_args!("{effect:?}"));
            match effect {
                Effect::Answer(id, reply) => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        // Whoever asked may have gone.
                        let _ = waiting.send(reply);
                    }
                }
                other => self.executor.execute(other),
            }
        }
        if let Some(fatal) = fatal {
            self.end(fatal);
        }
    }

    fn end(&self, fatal: Fatal) {
        tracing::error!("{}", fatal.reason);
        self.fatal.send_replace(Some(fatal));
    }

    fn replica(&mut self, request: ReplicaRequest) {
        match request {
            ReplicaRequest::Apply { entries, reply } => {
                let mut out = Output::default();
                let count = entries.len();
                APPLYING.set(
                    entries
                        .first()
                        .zip(entries.last())
                        .map(|((first, _), (last, _))| (*first, *last)),
                );
                self.node.step(
                    now::<E>(),
                    &mut self.rng,
                    Input::Committed(entries),
                    &mut out,
                );
                APPLYING.set(None);
                let version = self.node.replicated().versions().command;
                let answers: Vec<Vec<u8>> = out
                    .applied
                    .iter()
                    .map(|answer| wire::encode_answer(version, answer))
                    .collect();
                let fatal = out.fatal.is_some();
                self.carry_out(out);
                if fatal || answers.len() != count {
                    // Raft is not answered: nothing is acknowledged that was not applied, and the daemon ends.
                    return;
                }
                let _ = reply.send(answers);
            }
            ReplicaRequest::Alive { reply } => {
                // Raft may have ended meanwhile.
                let _ = reply.send(());
            }
            ReplicaRequest::Snapshot { reply } => {
                let image = self.node.replicated().clone();
                let _ = reply.send(Box::new(move || image.encode_snapshot()));
            }
            ReplicaRequest::Install { at, bytes, reply } => {
                let newest = u8::try_from(self.node.reads().snapshot).unwrap_or(u8::MAX);
                match Replicated::decode_snapshot_up_to(newest, &bytes) {
                    Ok(replicated) => {
                        let mut out = Output::default();
                        self.node
                            .install(now::<E>(), &mut self.rng, replicated, &mut out);
                        if out.fatal.is_some() {
                            // Raft is not answered, and the daemon ends.
                            self.carry_out(out);
                            return;
                        }
                        tracing::info!("state at {at} installed from a snapshot");
                        if let Some(backend) = &self.backend {
                            // No row tells what is not in the state any more: all of them are written anew, unless they are
                            // as new already. The receiver is gone only while the daemon ends.
                            let _ = backend.send(Batch::replaced(
                                self.node.replicated().applied(),
                                self.node.digest(),
                            ));
                        }
                        self.carry_out(out);
                        let _ = reply.send(Ok(()));
                    }
                    Err(error) => {
                        let _ = reply
                            .send(Err(format!("the snapshot at {at} cannot be read: {error}")));
                    }
                }
            }
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Woken {
    Closed,
    Timer,
    Replica(ReplicaRequest),
    Message(Message),
}
