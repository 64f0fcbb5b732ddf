//! A daemon put together: node, driver, raft, fleet and HTTP, in any environment.
//!
//! Three steps, since raft runs on threads of its own and replays its log into the driver while it starts:
//! [`Prepared::new`], then the driver runs, then [`crate::raft::start`], then [`Prepared`]'s ends are attached.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{Epoch, InstanceKey, NodeId};
use orchestrator_core::node::{Identification, Input, Node, RaftView, Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::Replicated;
use tokio::sync::{mpsc, watch};

use crate::driver::{self, Consensus, Driver, DriverHandle, ProposeEnd};
use crate::env::{Env, spawn};
use crate::fleet::Fleet;
use crate::http;
use crate::raft::{PeerMessage, Proposed, RaftHandle};

/// How long a confirmation of leadership may take.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);
/// The state of raft is looked at this often even if nothing was heard of it: leadership ends by silence.
const RAFT_LOOK: Duration = Duration::from_millis(50);

/// What a daemon is set up with, beside raft's own settings.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    pub identification: Identification,
    pub policy: Policy,
    /// `ListenAddress` as `host:port`.
    pub listen: String,
    pub http: http::Settings,
    /// `DiscoveryMaxConcurrency`
    pub probes_max: usize,
    /// `DiscoverySeeds`
    pub seeds: Vec<InstanceKey>,
    /// `SQLite3DataFile`, where the projection goes; none: nothing is projected.
    pub sqlite_file: Option<PathBuf>,
}

/// A daemon whose driver is ready to run.
pub struct Prepared<E: Env, F: Fleet> {
    pub settings: DaemonSettings,
    pub driver: Driver<E, F, Raft<E>>,
    pub ends: driver::Ends,
    slot: Arc<std::sync::OnceLock<Raft<E>>>,
}

impl<E: Env, F: Fleet> Prepared<E, F> {
    /// Nothing runs so far.
    pub fn new(
        settings: DaemonSettings,
        fleet: F,
        seed: u64,
        backend: Option<mpsc::UnboundedSender<driver::Batch>>,
    ) -> Self {
        let (channels, ends) = driver::channels();
        let node = Node::new(
            settings.identification.clone(),
            settings.policy.clone(),
            Replicated::default(),
        );
        let driver = Driver::new(node, seed, channels, fleet, settings.probes_max, backend);
        let slot = driver.consensus_slot();
        Prepared {
            settings,
            driver,
            ends,
            slot,
        }
    }

    /// The driver's future, to be spawned, and what is left to be attached once raft is up.
    pub fn split(self) -> (impl Future<Output = ()> + Send + 'static, Attachable<E>) {
        (
            self.driver.run(),
            Attachable {
                settings: self.settings,
                ends: self.ends,
                slot: self.slot,
            },
        )
    }
}

/// What is left of a prepared daemon while its driver runs.
pub struct Attachable<E: Env> {
    pub settings: DaemonSettings,
    pub ends: driver::Ends,
    slot: Arc<std::sync::OnceLock<Raft<E>>>,
}

/// A running daemon.
pub struct Running<E: Env> {
    pub handle: DriverHandle,
    pub raft: RaftHandle<E>,
    /// Where HTTP is served, `ip:port`.
    pub http_address: String,
    /// Set when the daemon can go on no more: the reason is its last line.
    pub fatal: watch::Receiver<Option<String>>,
    stop: watch::Sender<bool>,
}

impl<E: Env> Attachable<E> {
    /// Joins raft to the running driver and serves HTTP.
    ///
    /// # Errors
    /// The HTTP address cannot be listened on, or the HTTP settings cannot be served.
    pub async fn attach(
        self,
        raft: RaftHandle<E>,
        messages: mpsc::Receiver<PeerMessage>,
    ) -> Result<Running<E>, String> {
        let Attachable {
            settings,
            ends,
            slot,
        } = self;
        let consensus = Raft(raft.clone());
        // The slot was empty: a daemon is attached once.
        let _ = slot.set(consensus);
        spawn::<E>(follow_raft(raft.clone(), ends.handle.clone()));
        spawn::<E>(hear_peers(messages, ends.handle.clone()));
        if !settings.seeds.is_empty() {
            spawn::<E>(plant_seeds::<E>(
                settings.seeds.clone(),
                ends.handle.clone(),
            ));
        }
        let listener = E::bind(&settings.listen).await.map_err(|error| {
            format!(
                "ListenAddress {} cannot be listened on: {error}",
                settings.listen
            )
        })?;
        let http_address = E::local_address(&listener).map_err(|error| error.to_string())?;
        let (stop, stopped) = watch::channel(false);
        let served = Served {
            handle: ends.handle.clone(),
            raft: raft.clone(),
        };
        let serving = http::serve::<E, Served<E>>(listener, settings.http, served, stopped);
        spawn::<E>(async move {
            if let Err(error) = serving.await {
                tracing::error!("HTTP is not served: {error}");
            }
        });
        Ok(Running {
            handle: ends.handle,
            raft,
            http_address,
            fatal: ends.fatal,
            stop,
        })
    }
}

impl<E: Env> Running<E> {
    /// Waits until the daemon can go on no more, and says why.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        let node = async {
            match fatal.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => String::from("the driver ended"),
            }
        };
        tokio::select! {
            biased;
            reason = node => reason,
            reason = self.raft.failed() => reason,
        }
    }

    /// Ends cleanly: no new requests, leadership handed over, raft's files closed.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if self.raft.leading().is_some()
            && let Err(error) = self.raft.step_down().await
        {
            tracing::warn!("leadership was not handed over: {error}");
        }
        self.raft.shutdown().await;
    }
}

/// Raft as the driver's executor uses it.
pub struct Raft<E: Env>(RaftHandle<E>);

impl<E: Env> Clone for Raft<E> {
    fn clone(&self) -> Self {
        Raft(self.0.clone())
    }
}

impl<E: Env> Consensus for Raft<E> {
    async fn propose(&self, bytes: Vec<u8>, deadline: Duration) -> ProposeEnd {
        match self.0.propose(bytes, deadline).await {
            Proposed::Done { answer, .. } => ProposeEnd::Committed(answer),
            Proposed::Refused { reason, .. } => {
                tracing::debug!("a proposal was refused: {reason}");
                ProposeEnd::Refused
            }
            Proposed::Unknown { reason } => {
                tracing::warn!("whether a proposal was committed is not known: {reason}");
                ProposeEnd::Unknown
            }
        }
    }

    async fn confirm(&self) -> Result<(Epoch, Duration), String> {
        self.0
            .confirm_leadership(CONFIRM_DEADLINE)
            .await
            .map(|confirmation| (confirmation.epoch, confirmation.valid_until))
            .map_err(|error| error.0)
    }

    fn tell(&self, bytes: Vec<u8>) {
        self.0.broadcast(&bytes);
    }

    fn tell_one(&self, to: NodeId, bytes: Vec<u8>) {
        self.0.tell(to, bytes);
    }
}

fn raft_view<E: Env>(raft: &RaftHandle<E>) -> RaftView {
    let status = raft.status();
    RaftView {
        node: status.node,
        leading: raft.leading(),
        leader: status.summary.leader,
        voters: status
            .members
            .iter()
            .filter(|member| member.voter)
            .map(|member| member.node)
            .collect(),
        healthy: status.summary.healthy,
    }
}

/// Tells the driver what raft looks like, whenever that changes.
async fn follow_raft<E: Env>(raft: RaftHandle<E>, driver: DriverHandle) {
    let mut changes = raft.watch();
    let mut told = None;
    loop {
        let view = raft_view(&raft);
        if told.as_ref() != Some(&view) {
            driver.input(Input::Raft(view.clone()));
            told = Some(view);
        }
        let ended = tokio::select! {
            biased;
            changed = changes.changed() => changed.is_err(),
            () = crate::env::sleep::<E>(RAFT_LOOK) => false,
        };
        if ended {
            return;
        }
    }
}

async fn hear_peers(mut messages: mpsc::Receiver<PeerMessage>, driver: DriverHandle) {
    while let Some(message) = messages.recv().await {
        match postcard::from_bytes(&message.bytes) {
            Ok(decoded) => driver.input(Input::Peer(message.from, decoded)),
            Err(error) => {
                tracing::warn!(from = %message.from, "a message of a peer cannot be read: {error}")
            }
        }
    }
}

/// Servers that the configuration names are discovered once there is a leader; only the leader gets further than being
/// told that it is not one.
async fn plant_seeds<E: Env>(mut seeds: Vec<InstanceKey>, driver: DriverHandle) {
    while !seeds.is_empty() {
        let mut left = Vec::new();
        for key in seeds {
            match driver
                .ask::<E>(Request::Discover(key.clone()), Duration::from_secs(30))
                .await
            {
                Reply::Probed(_) => tracing::info!("seed {key} is discovered"),
                Reply::NotLeading { leader: Some(_) } => {}
                _ => left.push(key),
            }
        }
        seeds = left;
        crate::env::sleep::<E>(Duration::from_secs(1)).await;
    }
}

/// The daemon as the HTTP API sees it.
pub struct Served<E: Env> {
    handle: DriverHandle,
    raft: RaftHandle<E>,
}

impl<E: Env> Clone for Served<E> {
    fn clone(&self) -> Self {
        Served {
            handle: self.handle.clone(),
            raft: self.raft.clone(),
        }
    }
}

impl<E: Env> http::Daemon for Served<E> {
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&http::Sight<'_>) -> T + Send + 'static,
    ) -> Result<T, http::Gone> {
        self.handle
            .look(move |node, now| {
                look(&http::Sight {
                    now,
                    instances: &node.observed().instances,
                    replicated: node.replicated(),
                    diagnosis: node.diagnosis(),
                    filters: node.filters(),
                })
            })
            .await
            .map_err(|_| http::Gone)
    }

    async fn ask(&self, request: Request, deadline: Duration) -> Reply {
        self.handle.ask::<E>(request, deadline).await
    }

    fn raft(&self) -> http::RaftFacts {
        http::RaftFacts::of(&self.raft.status())
    }
}
