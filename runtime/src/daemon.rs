//! A daemon put together: node, driver, raft, fleet and HTTP, in any environment.
//!
//! Three steps, since raft runs on threads of its own and replays its log into the driver while it starts:
//! [`Prepared::new`], then the driver runs, then [`crate::raft::start`], then [`Prepared`]'s ends are attached.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{Epoch, InstanceKey, LogPosition, NodeId};
use orchestrator_core::node::{self, Fatal, Identification, Input, Node, RaftView, Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::{Answer, Members, Replicated};
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::{self, Backend, BackendHealth, Observation, Seen};
use crate::driver::{self, Consensus, Driver, DriverHandle, ProposeEnd};
use crate::env::{Env, Mutant, spawn};
use crate::fleet::Fleet;
use crate::hooks::Hooks;
use crate::http;
use crate::kv::{Handle, Told};
use crate::raft::{
    ClusterId, PeerMessage, Proposed, RaftHandle, RaftState, RaftSummary, Release, StartDecision,
    StartReport,
};
use crate::roll::{News, Roll};

/// How long a confirmation of leadership may take.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);
/// How long a change of members may take to be committed.
const SEAT_DEADLINE: Duration = Duration::from_secs(10);
/// The others are looked at this often.
const SIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// The state of raft is looked at this often even if nothing was heard of it: leadership ends by silence.
const RAFT_LOOK: Duration = Duration::from_millis(50);
/// Age of the oldest change that is not in the backend, at which leadership is yielded, and at which the daemon ends.
const BACKEND_YIELD: Duration = Duration::from_secs(5);
const BACKEND_LOST: Duration = Duration::from_secs(30);
/// How long the reason of an end is waited for.
const REASON_PATIENCE: Duration = Duration::from_secs(1);
/// Messages of peers that may wait in the driver's inbox.
const PEER_MESSAGES_AHEAD: usize = 64;
/// How often the whole replicated state is looked at.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// What a daemon is set up with, beside raft's own settings.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    pub identification: Identification,
    pub policy: Policy,
    /// The same as in raft's settings.
    pub release: Release,
    /// `ListenAddress` as `host:port`.
    pub listen: String,
    pub http: http::Settings,
    /// `DiscoveryMaxConcurrency`
    pub probes_max: usize,
    /// `DiscoverySeeds`
    pub seeds: Vec<InstanceKey>,
    pub hooks: Arc<dyn Hooks>,
    /// Asks the publisher of key-value pairs for a round; none: nothing is published.
    pub publication: Option<Handle>,
    /// Has the configuration read again; none: there is no file.
    pub reloads: Option<mpsc::Sender<Reload>>,
}

/// Where the answer to a wish to read the configuration again goes: what changed and waits for a restart, or what is wrong.
pub type Reload = oneshot::Sender<Result<String, String>>;

/// A daemon whose driver is ready to run.
pub struct Prepared<E: Env, F: Fleet> {
    pub settings: DaemonSettings,
    pub driver: Driver<E, F, Raft<E>>,
    pub ends: driver::Ends,
    slot: Arc<std::sync::OnceLock<Raft<E>>>,
    backend: Option<Backend>,
}

impl<E: Env, F: Fleet> Prepared<E, F> {
    /// The driver does not run so far. What is applied goes to the backend, if one was opened; its writer is spawned here.
    pub fn new(
        settings: DaemonSettings,
        fleet: F,
        seed: u64,
        mut backend: Option<backend::Opened>,
    ) -> Self {
        let (channels, ends) = driver::channels();
        let original = backend.as_mut().and_then(|opened| opened.original.take());
        let node = Node::new(
            settings.identification.clone(),
            settings.policy.clone(),
            Replicated::default(),
        )
        .reading(settings.release.reads);
        let backend = backend.map(|opened| opened.start::<E, _>(NodeView(ends.handle.clone())));
        let batches = backend.as_ref().map(Backend::batches);
        let counts = settings.hooks.counts();
        ends.handle.input(Input::LocalHooks(counts));
        if let Some(original) = original {
            ends.handle.input(Input::LocalOriginal(Box::new(original)));
        }
        let driver = Driver::new(
            node,
            seed,
            channels,
            fleet,
            settings.hooks.clone(),
            settings.probes_max,
            batches,
        );
        let slot = driver.consensus_slot();
        Prepared {
            settings,
            driver,
            ends,
            slot,
            backend,
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
                backend: self.backend,
            },
        )
    }
}

/// What is left of a prepared daemon while its driver runs.
pub struct Attachable<E: Env> {
    pub settings: DaemonSettings,
    pub ends: driver::Ends,
    slot: Arc<std::sync::OnceLock<Raft<E>>>,
    backend: Option<Backend>,
}

/// A running daemon.
pub struct Running<E: Env> {
    pub handle: DriverHandle,
    pub raft: RaftHandle<E>,
    /// Where HTTP is served, `ip:port`.
    pub http_address: String,
    /// Set when the daemon can go on no more: the reason is its last line.
    pub fatal: watch::Receiver<Option<Fatal>>,
    pub backend: Option<Backend>,
    stop: watch::Sender<bool>,
}

impl<E: Env> Attachable<E> {
    /// Serves HTTP for a daemon that acts on nothing: each answer says why.
    ///
    /// # Errors
    /// The HTTP address cannot be listened on.
    pub async fn hold(self, reason: String) -> Result<Held, String> {
        let (stop, stopped) = watch::channel(false);
        let daemon = HeldDaemon(Arc::from(reason));
        let http_address = serve_http::<E, _>(self.settings, daemon, stopped).await?;
        Ok(Held { http_address, stop })
    }

    /// Joins raft to the running driver and serves HTTP.
    ///
    /// # Errors
    /// The HTTP address cannot be listened on, or the HTTP settings cannot be served.
    pub async fn attach(
        self,
        raft: RaftHandle<E>,
        report: StartReport,
    ) -> Result<Running<E>, String> {
        let Attachable {
            settings,
            ends,
            slot,
            backend,
        } = self;
        let consensus = Raft(raft.clone());
        // The slot was empty: a daemon is attached once.
        let _ = slot.set(consensus);
        let joins_with_rows = matches!(report.decision, StartDecision::WaitAsStranger { .. });
        match &report.decision {
            StartDecision::Replay { .. } => {}
            StartDecision::Rebuild { reason } | StartDecision::DiscardBackend { reason } => {
                tracing::warn!("the backend is rebuilt: {reason}");
                if let Some(backend) = &backend {
                    backend.rebuild(reason.clone());
                }
            }
            // Raft did not start with these; or waits, says so itself, and the backend stays as it is until the node joins.
            StartDecision::WentBack { .. }
            | StartDecision::Refuse { .. }
            | StartDecision::WaitAsStranger { .. } => {}
        }
        spawn::<E>(follow_raft(
            raft.clone(),
            ends.handle.clone(),
            backend.clone(),
            joins_with_rows,
        ));
        spawn::<E>(look_around(raft.clone(), ends.handle.clone()));
        if let Some(backend) = &backend {
            spawn::<E>(yield_when_behind(raft.clone(), backend.health()));
        }
        spawn::<E>(hear_peers::<E>(report.messages, ends.handle.clone()));
        spawn::<E>(audit::<E>(ends.handle.clone()));
        if !settings.seeds.is_empty() {
            spawn::<E>(crate::seeds::plant::<E>(
                settings.seeds.clone(),
                ends.handle.clone(),
            ));
        }
        let served = Served {
            handle: ends.handle.clone(),
            raft: raft.clone(),
            backend: backend.as_ref().map(Backend::health),
            publication: settings.publication.clone(),
            reloads: settings.reloads.clone(),
        };
        let (stop, stopped) = watch::channel(false);
        let http_address = serve_http::<E, _>(settings, served, stopped).await?;
        Ok(Running {
            handle: ends.handle,
            raft,
            http_address,
            fatal: ends.fatal,
            stop,
            backend,
        })
    }
}

/// Listens, and serves HTTP in a task of its own; the address, `ip:port`.
async fn serve_http<E: Env, D: http::Daemon>(
    settings: DaemonSettings,
    daemon: D,
    stopped: watch::Receiver<bool>,
) -> Result<String, String> {
    http::check::<E>(&settings.http)
        .await
        .map_err(|error| error.to_string())?;
    let listener = E::bind(&settings.listen).await.map_err(|error| {
        format!(
            "ListenAddress {} cannot be listened on: {error}",
            settings.listen
        )
    })?;
    let address = E::local_address(&listener).map_err(|error| error.to_string())?;
    spawn::<E>(async move {
        if let Err(error) = http::serve::<E, D>(listener, settings.http, daemon, stopped).await {
            tracing::error!("HTTP is not served: {error}");
        }
    });
    Ok(address)
}

impl<E: Env> Running<E> {
    /// Waits until the daemon can go on no more, and says why.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        let ended = async {
            // An error: the driver is gone without a word.
            let _ = fatal.wait_for(Option::is_some).await;
            String::from("the driver ended")
        };
        let reason = tokio::select! {
            biased;
            reason = ended => reason,
            reason = self.raft.failed() => return self.node_failed().await.unwrap_or(reason),
            reason = backend_lost(self.backend.as_ref().map(Backend::health)) => reason,
        };
        if let Some(reason) = self.node_failed().await {
            return reason;
        }
        // The driver ends too when raft does, and may be the first to be heard.
        let of_raft = crate::env::timeout::<E, _>(REASON_PATIENCE, self.raft.failed());
        of_raft.await.unwrap_or(reason)
    }

    /// Why the node failed, if it did. Raft ends too when the node does: the node's reason is the first one.
    async fn node_failed(&self) -> Option<String> {
        let fatal = self.fatal.borrow().clone()?;
        if let Some(entry) = fatal.entry {
            self.raft.failed_at(entry, &fatal.reason).await;
        }
        Some(fatal.reason)
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
        if let Some(backend) = self.backend
            && let Err(error) = backend.close().await
        {
            tracing::warn!(
                "the backend is behind, and will be brought up at the next start: {error}"
            );
        }
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

    async fn seat(
        &self,
        base: LogPosition,
        members: Members,
        invited: BTreeSet<NodeId>,
    ) -> Result<(), String> {
        self.0.seat(base, &members, &invited, SEAT_DEADLINE).await
    }

    async fn hand_over(&self, to: BTreeSet<NodeId>) -> Result<(), String> {
        self.0.transfer_to(&to).await
    }

    fn explain(&self, reasons: BTreeMap<NodeId, String>) {
        self.0.explain(reasons);
    }

    fn greet(&self, addresses: BTreeMap<String, Option<NodeId>>) {
        self.0.greet(addresses);
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

/// A leader whose backend does not keep up hands over: what people read there would grow stale.
async fn yield_when_behind<E: Env>(
    raft: RaftHandle<E>,
    mut health: watch::Receiver<BackendHealth>,
) {
    loop {
        let behind = health
            .wait_for(|health| health.oldest_unwritten > BACKEND_YIELD)
            .await
            .is_ok();
        if !behind {
            return;
        }
        if raft.leading().is_some() {
            tracing::error!(
                "the backend is over {} s behind: yielding leadership",
                BACKEND_YIELD.as_secs()
            );
            if let Err(error) = raft.step_down().await {
                tracing::warn!("leadership was not handed over: {error}");
            }
        }
        crate::env::sleep::<E>(BACKEND_YIELD).await;
    }
}

/// Ends when the backend is so far behind that the daemon must not go on; never without one.
async fn backend_lost(health: Option<watch::Receiver<BackendHealth>>) -> String {
    let Some(mut health) = health else {
        return std::future::pending().await;
    };
    match health
        .wait_for(|health| health.oldest_unwritten > BACKEND_LOST)
        .await
    {
        Ok(health) => format!(
            "the backend could not be written for over {} s: {}; mend it, then start again: what was decided is kept in the raft \
             data directory",
            BACKEND_LOST.as_secs(),
            health.error.as_deref().unwrap_or("it does not answer")
        ),
        // Closed with the daemon.
        Err(_) => std::future::pending().await,
    }
}

/// The node as the backend's writer looks at it.
struct NodeView(DriverHandle);

impl backend::View for NodeView {
    async fn replicated(&self) -> Option<Replicated> {
        self.0.look(|node, _| node.replicated().clone()).await.ok()
    }

    async fn observe(&self, mut seen: Seen) -> Option<(Seen, Vec<Observation>)> {
        self.0
            .look(move |node, _| {
                let found = seen.look(node.replicated(), &node.observed().instances);
                (seen, found)
            })
            .await
            .ok()
    }
}

/// Looks at the whole replicated state at intervals, beside the driver's work.
async fn audit<E: Env>(driver: DriverHandle) {
    loop {
        crate::env::sleep::<E>(AUDIT_INTERVAL).await;
        let Ok(replicated) = driver.look(|node, _| node.replicated().clone()).await else {
            return;
        };
        if let Err(breach) = E::blocking(move || replicated.check_invariants()).await {
            driver.end(format!(
                "a bug of this program, or damaged memory: {breach}"
            ));
            return;
        }
    }
}

/// Tells the driver what raft looks like, whenever that changes.
async fn follow_raft<E: Env>(
    raft: RaftHandle<E>,
    driver: DriverHandle,
    backend: Option<Backend>,
    joins_with_rows: bool,
) {
    let mut cluster = None;
    let mut changes = raft.watch();
    let mut told = None;
    loop {
        let view = raft_view(&raft);
        if cluster.is_none()
            && let Some(found) = raft.cluster()
        {
            cluster = Some(found);
            if let Some(backend) = &backend {
                backend.set_cluster(found);
                if joins_with_rows {
                    backend.rebuild(
                        "this node was let into the cluster with a backend that was used before",
                    );
                }
            }
        }
        if told.as_ref() != Some(&view) {
            match (view.leading, told.as_ref().and_then(|told| told.leading)) {
                (now, before) if now == before => {}
                (Some(epoch), _) => {
                    crate::trace::event("leads", format_args!("{} {}", epoch.term, Known(cluster)));
                }
                (None, _) => crate::trace::event("follows", format_args!("no longer leading")),
            }
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

/// Tells the driver what the other daemons look like, and the log who of them is missing.
async fn look_around<E: Env>(raft: RaftHandle<E>, driver: DriverHandle) {
    let mut ends = raft.watch();
    let mut roll = Roll::default();
    loop {
        call_roll(&mut roll, &raft);
        driver.input(Input::Sight(Box::new(raft.sight())));
        let wait = crate::env::sleep::<E>(SIGHT_INTERVAL);
        let ended = tokio::select! {
            biased;
            ended = closed(&mut ends) => ended,
            () = wait => false,
        };
        if ended {
            return;
        }
    }
}

fn call_roll<E: Env>(roll: &mut Roll, raft: &RaftHandle<E>) {
    let summary = raft.summary();
    let term = (summary.state == RaftState::Leader).then_some(summary.term);
    let now = driver::now::<E>();
    for news in roll.call(E::mono(), now.wall, term, &raft.peers()) {
        match news {
            News::Gone(text) => tracing::warn!("{text}"),
            News::Back(text) => tracing::info!("{text}"),
        }
    }
}

/// The cluster as far as it is known.
struct Known(Option<ClusterId>);

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(cluster) => write!(f, "{cluster}"),
            None => f.write_str("unknown"),
        }
    }
}

/// Returns once raft has ended.
async fn closed(watch: &mut watch::Receiver<RaftSummary>) -> bool {
    while watch.changed().await.is_ok() {}
    true
}

async fn hear_peers<E: Env>(mut messages: mpsc::Receiver<PeerMessage>, driver: DriverHandle) {
    let mut ahead = 0;
    while let Some(message) = messages.recv().await {
        // The driver's inbox has no bound of its own: whoever talks more than it can take in waits for it.
        ahead += 1;
        if ahead >= PEER_MESSAGES_AHEAD {
            ahead = 0;
            if driver.look(|_, _| ()).await.is_err() {
                return;
            }
        }
        match postcard::from_bytes(&message.bytes) {
            Ok(mut decoded) => {
                if E::has(Mutant::LoneVerdict) {
                    count_as_silent(&mut decoded);
                }
                driver.input(Input::Peer(message.from, decoded));
            }
            Err(error) => {
                tracing::warn!(from = %message.from, "a message of a peer cannot be read: {error}")
            }
        }
    }
}

/// For [`Mutant::LoneVerdict`].
fn count_as_silent(message: &mut node::PeerMessage) {
    if let node::PeerMessage::Opinions(opinions) = message {
        for opinion in opinions {
            opinion.kind = node::OpinionKind::Silent;
        }
    }
}

/// A daemon that serves HTTP and nothing else, until it is dropped.
pub struct Held {
    /// Where HTTP is served, `ip:port`.
    pub http_address: String,
    stop: watch::Sender<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// A held daemon as the HTTP API sees it.
#[derive(Clone)]
struct HeldDaemon(Arc<str>);

impl http::Daemon for HeldDaemon {
    async fn read<T: Send + 'static>(
        &self,
        _look: impl FnOnce(&http::Sight<'_>) -> T + Send + 'static,
    ) -> Result<T, http::Gone> {
        Err(http::Gone)
    }

    async fn ask(&self, _request: Request, _deadline: Duration) -> Reply {
        Reply::NotLeading { leader: None }
    }

    fn raft(&self) -> http::RaftFacts {
        http::RaftFacts::held(&self.0)
    }

    fn backend(&self) -> BackendHealth {
        BackendHealth::default()
    }

    async fn publish(&self) -> Result<Vec<Told>, String> {
        Ok(Vec::new())
    }

    async fn perform(&self, _order: http::Order) -> Result<String, String> {
        Err(self.0.to_string())
    }
}

/// The daemon as the HTTP API sees it.
pub struct Served<E: Env> {
    handle: DriverHandle,
    raft: RaftHandle<E>,
    backend: Option<watch::Receiver<BackendHealth>>,
    publication: Option<Handle>,
    reloads: Option<mpsc::Sender<Reload>>,
}

impl<E: Env> Clone for Served<E> {
    fn clone(&self) -> Self {
        Served {
            handle: self.handle.clone(),
            raft: self.raft.clone(),
            backend: self.backend.clone(),
            publication: self.publication.clone(),
            reloads: self.reloads.clone(),
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
                let members = node.members_view();
                look(&http::Sight {
                    now,
                    members: &members,
                    instances: &node.observed().instances,
                    replicated: node.replicated(),
                    diagnosis: node.diagnosis(),
                    filters: node.filters(),
                    local_policy: node.local_policy(),
                    disagreements: node.disagreements(),
                })
            })
            .await
            .map_err(|_| http::Gone)
    }

    async fn ask(&self, request: Request, deadline: Duration) -> Reply {
        if E::has(Mutant::HastyAnswer) && matches!(request, Request::Decide(_)) {
            let handle = self.handle.clone();
            spawn::<E>(async move {
                let _ = handle.ask::<E>(request, deadline).await;
            });
            return Reply::Decided(Answer::Done);
        }
        self.handle.ask::<E>(request, deadline).await
    }

    fn raft(&self) -> http::RaftFacts {
        http::RaftFacts::of(&self.raft.status())
    }

    fn backend(&self) -> BackendHealth {
        let health = self.backend.as_ref();
        health.map_or_else(BackendHealth::default, |health| health.borrow().clone())
    }

    async fn publish(&self) -> Result<Vec<Told>, String> {
        match &self.publication {
            Some(publication) => publication.compare::<E>().await,
            None => Ok(Vec::new()),
        }
    }

    async fn perform(&self, order: http::Order) -> Result<String, String> {
        let done = |()| String::new();
        match order {
            http::Order::HandOver { to: None } => self.raft.step_down().await.map(done),
            http::Order::HandOver { to: Some(to) } => self.raft.transfer_to(&to).await.map(done),
            http::Order::Snapshot => self.raft.make_snapshot().await.map(done),
            http::Order::Reload => {
                let (reply, answer) = oneshot::channel();
                let reloads = self.reloads.as_ref().ok_or("there is no file")?;
                let gone = "the daemon is shutting down";
                reloads.send(reply).await.map_err(|_| gone)?;
                answer.await.map_err(|_| gone)?
            }
        }
    }
}
