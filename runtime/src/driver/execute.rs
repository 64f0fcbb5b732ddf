//! Effects in tasks of their own. No policy, no retry: each ends in one input.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orchestrator_core::id::{Epoch, LogPosition, NodeId};
use orchestrator_core::node::{Effect, HookRun, Input, Proposal, StepEnd};
use orchestrator_core::recovery::{Hook, HookFacts, Outcome};
use orchestrator_core::replicated::{Members, wire};
use orchestrator_core::time::Mono;
use tokio::sync::{Semaphore, mpsc};

use super::Message;
use crate::env::{Env, Mutant, spawn};
use crate::fleet::{Fleet, Gate, SignSender};
use crate::hooks::Hooks;

/// What the driver needs of raft.
pub trait Consensus: Clone + Send + Sync + 'static {
    /// Proposes command bytes; the answer's bytes when committed.
    fn propose(
        &self,
        bytes: Vec<u8>,
        deadline: Duration,
    ) -> impl Future<Output = ProposeEnd> + Send;
    /// Confirms leadership with a quorum: the epoch, and until when nobody else can lead.
    fn confirm(&self) -> impl Future<Output = Result<(Epoch, Duration), String>> + Send;
    fn tell(&self, bytes: Vec<u8>);
    fn tell_one(&self, to: NodeId, bytes: Vec<u8>);
    /// Appends exactly these members after the entry `base`, and lets the invited join before.
    fn seat(
        &self,
        base: LogPosition,
        members: Members,
        invited: BTreeSet<NodeId>,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Gives leadership to one of these.
    fn hand_over(&self, to: BTreeSet<NodeId>) -> impl Future<Output = Result<(), String>> + Send;
    /// Newcomers are told why they are not let in.
    fn explain(&self, reasons: BTreeMap<NodeId, String>);
    /// It is looked who answers at these addresses.
    fn greet(&self, addresses: BTreeMap<String, Option<NodeId>>);
}

/// How a proposal ended, in bytes.
pub enum ProposeEnd {
    Committed(Vec<u8>),
    Refused,
    Unknown,
}

/// Carries effects out.
pub struct Executor<E: Env, F: Fleet, C: Consensus> {
    fleet: F,
    hooks: Arc<dyn Hooks>,
    pub(super) consensus: Arc<OnceLock<C>>,
    inbox: mpsc::UnboundedSender<Message>,
    probes: Arc<Semaphore>,
    env: PhantomData<E>,
}

impl<E: Env, F: Fleet, C: Consensus> Executor<E, F, C> {
    pub(super) fn new(
        fleet: F,
        hooks: Arc<dyn Hooks>,
        inbox: mpsc::UnboundedSender<Message>,
        probes_max: usize,
    ) -> Self {
        Executor {
            fleet,
            hooks,
            consensus: Arc::new(OnceLock::new()),
            inbox,
            probes: Arc::new(Semaphore::new(probes_max.max(1))),
            env: PhantomData,
        }
    }

    pub(super) fn execute(&self, effect: Effect) {
        let inbox = self.inbox.clone();
        // The driver may have ended; then nobody wants the outcome.
        let send = move |input| {
            let _ = inbox.send(Message::Input(input));
        };
        match effect {
            Effect::Probe { key, urgent } => {
                let fleet = self.fleet.clone();
                let probes = self.probes.clone();
                spawn::<E>(async move {
                    // Urgent ones do not stand in line behind a fleet of dead servers.
                    let permit = if urgent {
                        None
                    } else {
                        probes.acquire().await.ok()
                    };
                    let end = fleet.probe(key).await;
                    drop(permit);
                    send(Input::Probed(end));
                });
            }
            Effect::Watch { key, redial } => {
                let signs = SignSender::new(move |key, sign| send(Input::Signed(key, sign)));
                self.fleet.watch(key, redial, signs);
            }
            Effect::Unwatch { key } => self.fleet.unwatch(&key),
            Effect::Drop { key } => self.fleet.drop_server(&key),
            Effect::Run { uid, epoch, step } => {
                let fleet = self.fleet.clone();
                let gate = Leadership::<E, C>(self.consensus.clone(), PhantomData);
                spawn::<E>(async move {
                    let end = fleet.run(uid, epoch, step, gate).await;
                    send(Input::StepEnded(end));
                });
            }
            // Its epoch is the intent's, which is committed.
            Effect::RunHook {
                run,
                epoch,
                hook,
                facts,
            } => {
                let hooks = self.hooks.clone();
                let gate = Leadership::<E, C>(self.consensus.clone(), PhantomData);
                spawn::<E>(async move {
                    hooks.prepare(hook).await;
                    let outcome = match gate.confirm(epoch).await {
                        Ok(until) if Mono::from_elapsed(E::mono()) < until => {
                            run_hook::<E>(&*hooks, hook, *facts).await
                        }
                        Ok(_) => Outcome::Refused {
                            code: 0,
                            reason: String::from("the confirmation of leadership came too late"),
                        },
                        Err(reason) => Outcome::Refused { code: 0, reason },
                    };
                    send(match run {
                        HookRun::Step { uid, step } => Input::StepEnded(StepEnd {
                            uid,
                            step,
                            epoch,
                            outcome,
                            identity: None,
                            report: None,
                        }),
                        HookRun::Detection(number) => Input::DetectionHookEnded {
                            number,
                            epoch,
                            hook,
                            outcome,
                        },
                    });
                });
            }
            Effect::FenceFrozen { uid, epoch: _, key } => self.fleet.fence_frozen(&uid, &key),
            Effect::Propose {
                id,
                bytes,
                deadline,
            } => {
                let Some(consensus) = self.consensus.get().cloned() else {
                    send(Input::Proposed(id, Proposal::Refused));
                    return;
                };
                spawn::<E>(async move {
                    let outcome = match consensus.propose(bytes, deadline).await {
                        ProposeEnd::Committed(answer) => match wire::decode_answer(&answer) {
                            Ok(answer) => Proposal::Committed(answer),
                            Err(error) => {
                                tracing::error!(
                                    "the answer to a committed command cannot be read: {error}"
                                );
                                Proposal::Unknown
                            }
                        },
                        ProposeEnd::Refused => Proposal::Refused,
                        ProposeEnd::Unknown => Proposal::Unknown,
                    };
                    send(Input::Proposed(id, outcome));
                });
            }
            Effect::Tell(message) => {
                if let (Some(consensus), Ok(bytes)) =
                    (self.consensus.get(), postcard::to_stdvec(&message))
                {
                    consensus.tell(bytes);
                }
            }
            Effect::TellOne(to, message) => {
                if let (Some(consensus), Ok(bytes)) =
                    (self.consensus.get(), postcard::to_stdvec(&message))
                {
                    consensus.tell_one(to, bytes);
                }
            }
            Effect::Seat {
                base,
                members,
                invited,
            } => {
                let Some(consensus) = self.consensus.get().cloned() else {
                    send(Input::Seated(Err(String::from("raft is not up"))));
                    return;
                };
                spawn::<E>(async move {
                    let ended = consensus.seat(base, members, invited).await;
                    send(Input::Seated(ended));
                });
            }
            Effect::HandOver { to } => {
                let Some(consensus) = self.consensus.get().cloned() else {
                    send(Input::Seated(Err(String::from("raft is not up"))));
                    return;
                };
                spawn::<E>(async move {
                    let ended = consensus.hand_over(to).await;
                    send(Input::Seated(ended));
                });
            }
            Effect::Explain(reasons) => {
                if let Some(consensus) = self.consensus.get() {
                    consensus.explain(reasons);
                }
            }
            Effect::Greet(addresses) => {
                if let Some(consensus) = self.consensus.get() {
                    consensus.greet(addresses);
                }
            }
            // Answered by the driver itself.
            Effect::Answer(..) => {}
        }
    }
}

async fn run_hook<E: Env>(hooks: &dyn Hooks, hook: Hook, facts: HookFacts) -> Outcome {
    let outcome = hooks.run(hook, facts.clone()).await;
    if E::has(Mutant::HookRepeated) && outcome != Outcome::Done {
        return hooks.run(hook, facts).await;
    }
    outcome
}

/// Leadership as the fleet asks for it before each statement.
struct Leadership<E, C>(Arc<OnceLock<C>>, PhantomData<E>);

impl<E: Env, C: Consensus> Gate for Leadership<E, C> {
    async fn confirm(&self, epoch: Epoch) -> Result<Mono, String> {
        let Some(consensus) = self.0.get() else {
            return Err(String::from("raft is not up"));
        };
        if E::has(Mutant::NoConfirmation) {
            return Ok(Mono::from_elapsed(E::mono() + Duration::from_secs(3600)));
        }
        let (confirmed, valid_until) = consensus.confirm().await?;
        if confirmed != epoch {
            return Err(format!(
                "epoch {epoch} is over: this daemon leads under {confirmed}"
            ));
        }
        Ok(Mono::from_elapsed(valid_until))
    }
}
