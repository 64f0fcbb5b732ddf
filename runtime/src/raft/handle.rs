//! Starting raft, and the handle on it that the rest of the daemon holds.
//!
//! *Leading* has one meaning here, and everything that acts as the leader uses it: openraft says so, the first entry of
//! the term is applied, and a quorum acknowledged within the longest election timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use openraft_rt::watch::WatchReceiver;
use openraft_rt::{AsyncRuntime, Instant, Select2};
use tokio::sync::{mpsc, oneshot, watch};

use super::broken::{Broken, note_broken};
use super::id::{ClusterId, Epoch, LogPosition, NodeId};
use super::identity::{Identity, IdentityError};
use super::incoming::Receiving;
use super::link::{Network, Pool};
use super::log::{LogError, LogStore};
use super::machine::Machine;
use super::node::{Node, locked};
use super::peers::Peers;
use super::post::{Letter, MESSAGES_MAX};
use super::snapshot::SnapshotFile;
use super::start::{LogFacts, StartDecision, decide_start};
use super::tls::Security;
use super::types::{Metrics, Proposal, Raft, metrics_of};
use super::wire::{COMMAND_BYTES_MAX, LogIdV1, Response};
use super::{
    RaftSettings, ReplicaRequest, StartError, StartReport, form, normalise_address, post, serve,
    sight,
};
use crate::env::{Barred, Env, Mutant, sleep, sleep_until, spawn, timeout};

/// How long somebody waits who asks for a snapshot.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);
/// How often bounds are looked at and progress of peers is kept.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// So many looks, one an upkeep, at a layer above that does not answer: raft has threads of its own, and would lead on for
/// a daemon that decides nothing. Looks are counted, not time: a process that was stopped for a while is no reason.
const LOOKS_TO_YIELD: u32 = 5;
const LOOKS_TO_END: u32 = 30;

/// What a daemon is to raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftState {
    Leader,
    Follower,
    Candidate,
    /// Not a voter (any more, or yet).
    Learner,
    Shutdown,
}

impl RaftState {
    /// The word of the HTTP API, which has four: a daemon that is let in, or waits to be, is a candidate there.
    pub fn as_str(self) -> &'static str {
        match self {
            RaftState::Leader => "Leader",
            RaftState::Follower => "Follower",
            RaftState::Candidate | RaftState::Learner => "Candidate",
            RaftState::Shutdown => "Shutdown",
        }
    }
}

/// What changes seldom and matters at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftSummary {
    pub state: RaftState,
    pub term: u64,
    /// The leader of the term, as far as this node knows.
    pub leader: Option<NodeId>,
    /// This node leads.
    pub leading: Option<Epoch>,
    /// Part of a quorum: it leads, or is a voter that heard its leader within an election timeout.
    pub healthy: bool,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Raft cannot go on: the daemon exits with this reason.
    pub fatal: Option<String>,
}

/// Everything there is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatusView {
    pub node: NodeId,
    pub boot: u64,
    pub cluster: Option<ClusterId>,
    pub bind: String,
    /// `DefaultRaftPort`
    pub default_port: u16,
    pub advertise: String,
    pub summary: RaftSummary,
    pub leader_address: Option<String>,
    pub leader_http_uri: Option<String>,
    pub members: Vec<MemberView>,
    pub last_log_index: Option<u64>,
    pub applied: Option<u64>,
    pub committed: Option<u64>,
    pub snapshot: Option<u64>,
    /// The last index that was cut from the log.
    pub purged: Option<u64>,
    pub log_bytes: u64,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    pub node: NodeId,
    pub voter: bool,
    pub address: Option<String>,
    pub http_uri: Option<String>,
    /// Since it was heard last; zero for this node.
    pub last_contact: Option<Duration>,
    /// How many entries of the log it lacks, of another member: as the leader knows it, to others as of the last greeting, every
    /// few seconds; the leader lacks none.
    pub lacks: Option<u64>,
    /// The newest version of commands it reads.
    pub version: Option<u32>,
    /// Why it is not listened to, or why it does not listen.
    pub refusal: Option<String>,
    /// Why somebody else is not listened to who calls itself this one.
    pub impostor: Option<String>,
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// Committed and applied; `answer` is what apply answered.
    Done { at: LogPosition, answer: Vec<u8> },
    /// Not appended anywhere.
    Refused {
        leader: Option<NodeId>,
        reason: String,
    },
    /// May or may not be committed, now or later.
    Unknown { reason: String },
}

/// Leadership that was confirmed by a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    pub epoch: Epoch,
    /// Until then ([`Env::mono`]) no other node can lead.
    pub valid_until: Duration,
}

/// This node does not lead, or cannot be sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLeading(pub String);

/// A peer did not answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskError(pub String);

/// The handle; all clones are one raft.
pub struct RaftHandle<E: Env> {
    pub(super) node: Arc<Node<E>>,
    summary: watch::Receiver<RaftSummary>,
    post: mpsc::Sender<Letter>,
}

impl<E: Env> Clone for RaftHandle<E> {
    fn clone(&self) -> Self {
        RaftHandle {
            node: self.node.clone(),
            summary: self.summary.clone(),
            post: self.post.clone(),
        }
    }
}

/// Starts raft: its directory, its port, its tasks. What the log and the newest snapshot hold is handed to `replica`
/// before this returns, so something must serve that channel meanwhile.
///
/// Run it on threads that nothing else keeps busy ([`crate::env::DedicatedRuntime`]); the handle may be used from anywhere.
pub async fn start<E: Env>(
    settings: RaftSettings,
    replica: mpsc::Sender<ReplicaRequest>,
) -> Result<(RaftHandle<E>, StartReport), StartError> {
    let directory = settings.data_dir.clone();
    let started = start_in_directory(settings, replica).await;
    started.map_err(|error| error.of(&directory))
}

async fn start_in_directory<E: Env>(
    settings: RaftSettings,
    replica: mpsc::Sender<ReplicaRequest>,
) -> Result<(RaftHandle<E>, StartReport), StartError> {
    let mut settings = checked(settings)?;
    let directory = settings.data_dir.clone();
    let lock = open_directory::<E>(&directory).await?;
    // A name that an earlier process gave, and could not make durable, is there all the same until power is lost.
    let path = directory.clone();
    E::blocking(move || E::sync_dir(&path))
        .await
        .map_err(io_error)?;
    let (mut identity, mut minted) = read_identity::<E>(&directory, settings.minted).await?;
    if let Some(reason) = identity.retired.clone() {
        let path = directory.clone();
        let aside = E::blocking(move || identity.set_aside::<E>(&path))
            .await
            .map_err(io_error)?;
        tracing::warn!(
            "an identity was retired here ({reason}); its files are in {}, and this node comes back as another",
            aside.display()
        );
        (identity, minted) = read_identity::<E>(&directory, settings.minted).await?;
    }
    let broken = {
        let directory = directory.clone();
        E::blocking(move || Broken::read::<E>(&directory))
            .await
            .map_err(io_error)?
    };
    if let Some(reason) = broken
        .as_ref()
        .and_then(|broken| broken.verdict(&directory))
    {
        return Err(StartError::Held(reason));
    }
    let opened = LogStore::<E>::open(&directory, identity.node.0, minted)
        .await
        .map_err(|error| match error {
            LogError::Io(what) => StartError::Io(what),
            LogError::Damaged(what) => StartError::Damaged(what),
        })?;
    let store = opened.store;
    let peers = Peers::new(opened.peers, settings.election_timeout());
    let started = start_with(
        &mut settings,
        replica,
        identity,
        store.clone(),
        peers,
        lock,
        broken,
    )
    .await;
    if started.is_err() {
        store.close().await;
    }
    started
}

/// Who a daemon is, by its raft data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// As the directory says or, where it says nothing, as the settings do by now.
    pub node: NodeId,
    pub cluster: Option<ClusterId>,
}

/// Refuses a raft data directory that another process has, and leaves it as it is; tells whose it will be at this start. To be
/// asked before the backend is opened: whoever opens the backend becomes its only writer, and a daemon that
/// was started twice by mistake, or in the place of another one, must not take it from the one that runs.
///
/// # Errors
/// [`StartError::InUse`], or the directory cannot be made or locked, or is damaged.
pub async fn look<E: Env>(settings: &mut RaftSettings) -> Result<Known, StartError> {
    let directory = settings.data_dir.clone();
    let looked = async {
        let _lock = open_directory::<E>(&directory).await?;
        let path = directory.clone();
        E::blocking(move || {
            let held = Identity::read::<E>(&path)?;
            let held = held.filter(|identity| identity.retired.is_none());
            held.map_or_else(|| Ok(Identity::mint::<E>()?), Ok)
        })
        .await
        .map_err(identity_error)
    };
    let Identity { node, cluster, .. } = looked.await.map_err(|error| error.of(&directory))?;
    settings.minted = Some(node);
    Ok(Known { node, cluster })
}

pub(super) fn identity_error(error: IdentityError) -> StartError {
    match error {
        IdentityError::Io(error) => io_error(error),
        IdentityError::Damaged(what) => StartError::Damaged(format!("the identity record: {what}")),
    }
}

async fn start_with<E: Env>(
    settings: &mut RaftSettings,
    replica: mpsc::Sender<ReplicaRequest>,
    identity: Identity,
    store: LogStore<E>,
    peers: Peers,
    lock: E::DirLock,
    broken: Option<Broken>,
) -> Result<(RaftHandle<E>, StartReport), StartError> {
    let directory = settings.data_dir.clone();
    let file = {
        let directory = directory.clone();
        E::blocking(move || SnapshotFile::open::<E>(&directory))
            .await
            .map_err(damaged_or_io)?
    };
    check_snapshot(&file, &store)?;
    let held = file.newest().and_then(|head| head.last);
    let decision = decide(settings, &identity, &store, held)?;
    if let StartDecision::WentBack { at } = &decision {
        return Err(gone_back::<E>(settings, identity, *at).await);
    }

    let security = Security::new(settings.tls.clone(), settings.tls_refuses_plain);
    security.check::<E>().await.map_err(StartError::Settings)?;
    let listener = E::bind(&settings.bind).await.map_err(|error| {
        StartError::Settings(format!(
            "RaftBind {} cannot be listened on: {error}",
            settings.bind
        ))
    })?;
    let listening = E::local_address(&listener).map_err(io_error)?;
    resolve_advertise(settings, &listening)?;

    // Counted before anything is said to anybody.
    {
        let (directory, record) = (directory.clone(), identity.clone());
        E::blocking(move || record.save::<E>(&directory))
            .await
            .map_err(io_error)?;
    }
    // A node that never wrote anything cannot have acknowledged a leader.
    let promised = !store.is_empty();
    let votes_from = if promised {
        E::mono() + settings.election_timeout()
    } else {
        Duration::ZERO
    };
    let (inbox, messages) = mpsc::channel(MESSAGES_MAX);
    let node = Arc::new(Node::<E> {
        id: identity.node.0,
        boot: identity.boot,
        instance: E::random_seed().map_err(io_error)?,
        settings: settings.clone(),
        directory,
        identity: Mutex::new(identity.clone()),
        store: store.clone(),
        peers: Mutex::new(peers),
        strangers: Mutex::default(),
        clusters_listed: Mutex::default(),
        own_entries: Mutex::default(),
        explained: Mutex::default(),
        greeted: Mutex::default(),
        snapshot: file.clone(),
        remarks: Mutex::default(),
        joining: tokio::sync::Mutex::default(),
        backend_cluster: settings.backend.and_then(|backend| backend.cluster),
        raft: OnceLock::new(),
        pool: Pool::default(),
        security,
        unused_backend: !matches!(decision, StartDecision::WaitAsStranger { .. }),
        // Of a cluster that was formed before: a founder that did not learn of it must find them.
        listed: Mutex::new(identity.founders.clone()),
        leader_heard: Mutex::new(None),
        hand_over: Mutex::default(),
        votes_from,
        receiving: Receiving::default(),
        installing: tokio::sync::Mutex::default(),
        inbox,
        stop: watch::Sender::new(false),
        fatal: watch::Sender::new(None),
        waiting: Mutex::new(None),
        last_refused: Mutex::default(),
        lock: Mutex::new(Some(lock)),
    });

    let config = raft_config::<E>(settings, promised)?;
    let above = Above::new(replica.clone());
    let machine = Machine::<E>::new(
        node.store.clone(),
        replica,
        file,
        node.directory.clone(),
        broken,
    );
    let raft = Raft::<E>::new(
        node.id,
        Arc::new(config),
        Network(node.clone()),
        store,
        machine,
    )
    .await
    .map_err(|error| StartError::Io(error.to_string()))?;
    // `set` fails only if it was set before.
    let _ = node.raft.set(raft.clone());
    if promised {
        let (node, raft) = (node.clone(), raft.clone());
        spawn::<E>(async move {
            sleep_until::<E>(node.votes_from).await;
            // Its own candidacy is a vote too.
            raft.runtime_config().elect(true);
        });
    }
    spawn::<E>(serve::serve(node.clone(), listener));
    spawn::<E>(form::run(node.clone()));
    let (post, letters) = mpsc::channel(MESSAGES_MAX);
    spawn::<E>(post::deliver(node.clone(), letters));
    let summary = watch::Sender::new(summarise(&node));
    let handle = RaftHandle {
        node: node.clone(),
        summary: summary.subscribe(),
        post,
    };
    spawn::<E>(watch_over(handle.clone(), summary, above));
    let report = StartReport {
        node: identity.node,
        boot: identity.boot,
        cluster: identity.cluster,
        listening,
        advertise: node.settings.advertise.clone(),
        decision,
        messages,
    };
    Ok((handle, report))
}

pub(super) fn io_error(error: io::Error) -> StartError {
    StartError::Io(error.to_string())
}

pub(super) fn damaged_or_io(error: io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::InvalidData => StartError::Damaged(error.to_string()),
        _ => io_error(error),
    }
}

/// The settings with their addresses in full, or what is wrong with them.
pub(super) fn checked(mut settings: RaftSettings) -> Result<RaftSettings, StartError> {
    let port = settings.default_port;
    let full = |what: &str, text: &str| {
        normalise_address(text, port)
            .map_err(|error| StartError::Settings(format!("{what}: {error}")))
    };
    settings.bind = full("RaftBind", &settings.bind)?;
    if !settings.advertise.is_empty() {
        settings.advertise = full("RaftAdvertise", &settings.advertise)?;
    }
    let mut nodes: Vec<String> = Vec::new();
    for node in &settings.nodes {
        let node = full("RaftNodes", node)?;
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    settings.nodes = nodes;
    if settings.heartbeat_ms == 0
        || settings.election_timeout_ms * 60 / 100 <= settings.heartbeat_ms
    {
        return Err(StartError::Settings(format!(
            "RaftHeartbeatMillis ({}) must be above 0 and below 60 % of RaftElectionTimeoutMillis ({})",
            settings.heartbeat_ms, settings.election_timeout_ms
        )));
    }
    Ok(settings)
}

fn resolve_advertise(settings: &mut RaftSettings, listening: &str) -> Result<(), StartError> {
    let bound_port = listening.rsplit(':').next().unwrap_or_default();
    if settings.advertise.is_empty() {
        let host = settings
            .bind
            .rsplit_once(':')
            .map_or(settings.bind.as_str(), |(host, _)| host);
        settings.advertise = format!("{host}:{bound_port}");
    }
    let host = settings
        .advertise
        .rsplit_once(':')
        .map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
    {
        return Err(StartError::Settings(format!(
            "RaftAdvertise is {}, where nobody is reached; name the address at which the other nodes reach this one",
            settings.advertise
        )));
    }
    if settings.nodes.is_empty() {
        settings.nodes = vec![settings.advertise.clone()];
    }
    Ok(())
}

pub(super) async fn open_directory<E: Env>(directory: &Path) -> Result<E::DirLock, StartError> {
    let path = directory.to_path_buf();
    let locked = E::blocking(move || {
        let locked = E::create_dir_all(&path).and_then(|()| E::lock_dir(&path));
        locked.map_err(|error| {
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            let barred = is_denied.then(|| E::barred(&path)).flatten();
            (error, barred)
        })
    })
    .await;
    locked.map_err(|(error, barred)| match (error.kind(), barred) {
        (io::ErrorKind::WouldBlock, _) => StartError::InUse(format!(
            "RaftDataDir {} is in use by another process; each daemon has its own",
            directory.display()
        )),
        (_, Some(barred)) => StartError::Settings(denied(directory, &barred)),
        (_, None) => StartError::Io(format!("RaftDataDir {}: {error}", directory.display())),
    })
}

/// Whose a directory is that this process may not write to, and what to do.
fn denied(directory: &Path, barred: &Barred) -> String {
    let directory = directory.display();
    let Barred {
        path,
        owner,
        mode,
        own,
    } = barred;
    let path = path.display();
    let number = own.number.to_string();
    let user = own.name.as_ref().unwrap_or(&number);
    let remedy = if owner == own {
        format!("Type: chmod u+rwx {path}")
    } else {
        format!(
            "As root, type: mkdir -p {directory} && chown -R {user} {directory} (that user must be able to enter the folders above \
             it, too); or run the daemon as the owner"
        )
    };
    format!(
        "RaftDataDir {directory}: permission denied: {path} belongs to {owner} and has mode {mode:04o}, and this daemon runs as \
         {own}. {remedy}; or name another directory"
    )
}

async fn read_identity<E: Env>(
    directory: &Path,
    minted: Option<NodeId>,
) -> Result<(Identity, bool), StartError> {
    let path = directory.to_path_buf();
    E::blocking(move || Identity::read_or_mint::<E>(&path, minted))
        .await
        .map_err(identity_error)
}

/// The log is never purged beyond the snapshot file, and what was committed is in one of the two.
pub(super) fn check_snapshot<E: Env>(
    file: &SnapshotFile,
    store: &LogStore<E>,
) -> Result<(), StartError> {
    let held = file.newest().and_then(|head| head.last);
    if let Some(purged) = store.purged()
        && held < Some(purged)
    {
        return Err(StartError::Damaged(format!(
            "the log begins after index {}, and the snapshot file {}",
            purged.index,
            held.map_or("is missing".to_owned(), |held| format!(
                "ends at {}",
                held.index
            ))
        )));
    }
    let reached = store.last().max(held);
    match store.committed() {
        Some(committed) if reached < Some(committed) => Err(StartError::Damaged(format!(
            "index {} was committed, and log and snapshot end {}",
            committed.index,
            reached.map_or("before the first".to_owned(), |reached| format!(
                "at {}",
                reached.index
            ))
        ))),
        Some(_) | None => Ok(()),
    }
}

fn decide<E: Env>(
    settings: &RaftSettings,
    identity: &Identity,
    store: &LogStore<E>,
    held: Option<LogIdV1>,
) -> Result<StartDecision, StartError> {
    let pair = |id: LogIdV1| (id.term, id.index);
    let term_at = |index| store.term_at(index);
    // A snapshot that is newer than the log takes its place: a crash may have come before the log was cut.
    let beyond = held.filter(|held| Some(*held) > store.last());
    let facts = LogFacts {
        cluster: identity.cluster,
        purged: beyond.or(store.purged()).map(pair),
        last: beyond.or(store.last()).map(pair),
        term_at: &term_at,
    };
    let is_foreign = settings
        .backend
        .and_then(|backend| backend.cluster)
        .is_some_and(|cluster| identity.cluster != Some(cluster));
    if facts.last.is_none()
        && store.is_empty()
        && identity.cluster.is_some()
        && identity.founders.is_empty()
        && !is_foreign
    {
        // It was let in and got nothing so far; whatever rows there are came from elsewhere.
        return Ok(StartDecision::Rebuild {
            reason: "this node was let into the cluster and holds nothing of it so far".to_owned(),
        });
    }
    let decision = decide_start(settings.backend, &facts);
    match &decision {
        StartDecision::Refuse { .. } if E::has(Mutant::ForeignBackend) => {
            Ok(StartDecision::Replay { from: None })
        }
        StartDecision::Refuse { reason } => Err(StartError::Refused(reason.clone())),
        StartDecision::Replay { .. }
        | StartDecision::WentBack { .. }
        | StartDecision::Rebuild { .. }
        | StartDecision::DiscardBackend { .. }
        | StartDecision::WaitAsStranger { .. } => Ok(decision),
    }
}

/// The backend knows entries that the directory does not. Entries are on stable storage before they are applied, so the
/// directory went back, and with it what this identity promised: to keep its vote could give two leaders to one term. It
/// is retired, unless nobody else could give the state back.
async fn gone_back<E: Env>(
    settings: &RaftSettings,
    mut identity: Identity,
    at: LogPosition,
) -> StartError {
    let what = format!(
        "the backend ({at}) is ahead of the raft data directory, which went back, as after a restored backup"
    );
    if settings.nodes.len() < 2 {
        return StartError::Refused(format!(
            "{what}, and there is no other member to get the state from: restore the newer directory; or move the backend \
             away, and what the directory does not know is lost"
        ));
    }
    identity.retired = Some(what.clone());
    let directory = settings.data_dir.clone();
    match E::blocking(move || identity.save::<E>(&directory)).await {
        Ok(()) => StartError::Retired(what),
        Err(error) => io_error(error),
    }
}

fn raft_config<E: Env>(
    settings: &RaftSettings,
    promised: bool,
) -> Result<openraft::Config, StartError> {
    openraft::Config {
        cluster_name: "orchestrator".to_owned(),
        heartbeat_interval: settings.heartbeat_ms,
        election_timeout_min: settings.election_timeout_ms * 60 / 100,
        election_timeout_max: settings.election_timeout_ms,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(E::has(Mutant::LeaderRestored)),
        // Switched on once this node's earlier promises must have run out.
        enable_elect: !promised || E::has(Mutant::EarlyVotes),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.log.snapshot_entries),
        max_in_snapshot_log_to_keep: settings.log.keep_entries,
        // In steps, but never so large that the log keeps much more than it is set to.
        purge_batch_size: (settings.log.keep_entries / 16).clamp(1, 256),
        max_payload_entries: 256,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Settings(error.to_string()))
}

/// The one meaning of leading.
fn leading<E: Env>(node: &Node<E>) -> Option<Epoch> {
    leading_by(node, &node.metrics()?)
}

fn leading_by<E: Env>(node: &Node<E>, metrics: &Metrics<E>) -> Option<Epoch> {
    if metrics.running_state.is_err() || metrics.state != ServerState::Leader || *node.stop.borrow()
    {
        return None;
    }
    let applied = metrics.last_applied.as_ref()?;
    if applied.leader_id.term != metrics.current_term || hands_over(node, metrics) {
        return None;
    }
    let alone = metrics
        .membership_config
        .voter_ids()
        .all(|voter| voter == node.id);
    let fresh = metrics
        .last_quorum_acked
        .as_ref()
        .is_some_and(|acked| acked.elapsed() < node.settings.election_timeout());
    (alone || fresh).then_some(Epoch {
        term: metrics.current_term,
        node: NodeId(node.id),
        boot: if E::has(Mutant::LeaderRestored) {
            0
        } else {
            node.boot
        },
    })
}

/// It gives its leadership of this term away. Its successor is elected without waiting for this node's lease, so this one
/// stops leading first.
fn hands_over<E: Env>(node: &Node<E>, metrics: &Metrics<E>) -> bool {
    locked(&node.hand_over).term == Some(metrics.current_term)
}

/// This node leads no more in a term, because another is to take over. If it is given up before that one was asked, nobody
/// knows of it, and this node leads on.
struct Resigned<'a, E: Env> {
    node: &'a Node<E>,
    is_asked: bool,
}

impl<'a, E: Env> Resigned<'a, E> {
    /// And until when leadership was confirmed to somebody; nothing if it is being handed over already.
    fn begin(node: &'a Node<E>, term: u64) -> Option<(Self, Duration)> {
        let mut hand_over = locked(&node.hand_over);
        if hand_over.term == Some(term) {
            return None;
        }
        hand_over.term = Some(term);
        let resigned = Resigned {
            node,
            is_asked: false,
        };
        Some((resigned, hand_over.confirmed_until))
    }
}

impl<E: Env> Drop for Resigned<'_, E> {
    fn drop(&mut self) {
        if !self.is_asked {
            locked(&self.node.hand_over).term = None;
        }
    }
}

fn summarise<E: Env>(node: &Node<E>) -> RaftSummary {
    let fatal = node.fatal.borrow().clone();
    let Some(metrics) = node.metrics() else {
        return RaftSummary {
            state: RaftState::Candidate,
            term: 0,
            leader: None,
            leading: None,
            healthy: false,
            reason: Some("raft is being started".to_owned()),
            fatal,
        };
    };
    let stopped = *node.stop.borrow() || fatal.is_some() || metrics.running_state.is_err();
    let state = match metrics.state {
        _ if stopped => RaftState::Shutdown,
        ServerState::Leader => RaftState::Leader,
        ServerState::Follower => RaftState::Follower,
        ServerState::Candidate => RaftState::Candidate,
        ServerState::Learner => RaftState::Learner,
        ServerState::Shutdown => RaftState::Shutdown,
    };
    let leading = if fatal.is_none() {
        leading_by(node, &metrics)
    } else {
        None
    };
    let reason = fatal
        .clone()
        .or_else(|| why_unhealthy(node, &metrics, state, leading));
    RaftSummary {
        state,
        term: metrics.current_term,
        leader: metrics.current_leader.map(NodeId),
        leading,
        healthy: reason.is_none(),
        reason,
        fatal,
    }
}

fn why_unhealthy<E: Env>(
    node: &Node<E>,
    metrics: &Metrics<E>,
    state: RaftState,
    leading: Option<Epoch>,
) -> Option<String> {
    if leading.is_some() {
        return None;
    }
    if node.cluster().is_none() {
        let waiting = locked(&node.waiting).clone();
        return Some(waiting.unwrap_or_else(|| "the cluster is being formed".to_owned()));
    }
    let lonely = |what: &str| {
        let because = sight::memory_lost(node).or_else(|| node.remark());
        Some(match because {
            Some(why) => format!("{what}: {why}"),
            None => what.to_owned(),
        })
    };
    match state {
        RaftState::Leader if hands_over(node, metrics) => lonely("it hands its leadership over"),
        RaftState::Leader => lonely("it was elected, and no quorum answers"),
        RaftState::Candidate => lonely("there is no leader; it stands for election"),
        RaftState::Learner => lonely("it is no voter"),
        RaftState::Shutdown => Some("raft has ended".to_owned()),
        RaftState::Follower => {
            let heard = *locked(&node.leader_heard);
            let fresh = heard.is_some_and(|(leader, at)| {
                Some(leader) == metrics.current_leader
                    && E::mono() < at + node.settings.election_timeout()
            });
            if fresh {
                None
            } else {
                lonely("no leader was heard within an election timeout")
            }
        }
    }
}

/// Publishes the summary as it changes, keeps the log's bounds and what is known of peers, and gives leadership away when
/// this node's disk is too slow for it.
async fn watch_over<E: Env>(
    handle: RaftHandle<E>,
    summary: watch::Sender<RaftSummary>,
    mut above: Above,
) {
    let node = handle.node.clone();
    let Some(raft) = node.raft.get().cloned() else {
        return;
    };
    let mut news = raft.metrics();
    let mut stop = node.stop.subscribe();
    let (mut upkeep_at, mut snapshot_at) = (E::mono() + UPKEEP_INTERVAL, E::mono());
    let mut snapshot = None;
    loop {
        let look = E::Rt::select2(news.changed(), sleep::<E>(node.settings.heartbeat()));
        match E::Rt::select2(stop.wait_for(|stop| *stop), look).await {
            Select2::First(_) => break,
            Select2::Second(Select2::First(Err(_))) => {
                node.fail("raft has ended".to_owned());
                break;
            }
            Select2::Second(_) => {}
        }
        let metrics = metrics_of(&raft);
        let held = metrics.snapshot.map(|id| id.index);
        let applied = metrics.last_applied.map(|id| id.index);
        if let Err(broken) = metrics.running_state {
            let reason = broken.to_string();
            node.fail(node.store.failure().unwrap_or(reason));
        } else if let Some(reason) = node.store.failure() {
            node.fail(reason);
        }
        let now = summarise(&node);
        summary.send_if_modified(|held| {
            let changed = *held != now;
            if changed {
                *held = now;
            }
            changed
        });
        if node.fatal.borrow().is_some() {
            break;
        }
        if held != snapshot {
            snapshot = held;
            snapshot_at = E::mono();
        }
        if E::mono() >= upkeep_at {
            upkeep_at = E::mono() + UPKEEP_INTERVAL;
            let due = applied > snapshot
                && E::mono() >= snapshot_at + node.settings.log.snapshot_age_max
                && !E::has(Mutant::SnapshotAged);
            keep_bounds(&node, &raft, snapshot, due).await;
            note_progress(&node, &raft);
            let longest = node.store.take_commit_longest();
            let looks = above.looks_unanswered();
            let reason = if longest > node.settings.election_timeout() {
                format!("a write to the raft log takes {} ms", longest.as_millis())
            } else if looks >= LOOKS_TO_YIELD {
                format!("the layer that decides has not answered for {looks} s")
            } else {
                String::new()
            };
            if looks >= LOOKS_TO_END {
                node.fail(format!(
                    "the layer that decides has not answered for {looks} s: this daemon ends, and is to be started again"
                ));
            }
            if !reason.is_empty() && leading(&node).is_some() {
                tracing::warn!("{reason}: leadership is given away");
                let giving = handle.clone();
                spawn::<E>(async move {
                    if let Err(why) = giving.step_down().await {
                        tracing::warn!("leadership stays here: {why}");
                    }
                });
            }
        }
    }
    summary.send_replace(summarise(&node));
}

/// Whether the layer above answers.
struct Above {
    replica: mpsc::Sender<ReplicaRequest>,
    asked: Option<oneshot::Receiver<()>>,
    unanswered: u32,
}

impl Above {
    fn new(replica: mpsc::Sender<ReplicaRequest>) -> Self {
        Above {
            replica,
            asked: None,
            unanswered: 0,
        }
    }

    /// Looks for the answer to the last question, and asks anew once it is there; how many looks in a row found none.
    fn looks_unanswered(&mut self) -> u32 {
        match self.asked.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => {
                self.unanswered += 1;
                return self.unanswered;
            }
            Some(_) => self.unanswered = 0,
            None => {}
        }
        let (reply, answer) = oneshot::channel();
        match self.replica.try_send(ReplicaRequest::Alive { reply }) {
            Ok(()) => self.asked = Some(answer),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.asked = None;
                self.unanswered += 1;
            }
            // It has ended, and so does the daemon.
            Err(mpsc::error::TrySendError::Closed(_)) => self.unanswered = 0,
        }
        self.unanswered
    }
}

/// Snapshot when the log is too big or the last one too old; cut the log behind it.
async fn keep_bounds<E: Env>(node: &Node<E>, raft: &Raft<E>, snapshot: Option<u64>, due: bool) {
    let bounds = node.settings.log;
    let kept = if E::has(Mutant::LogEmptied) {
        0
    } else {
        bounds.bytes_max / 2
    };
    let is_too_large = node.store.bytes() > bounds.bytes_max && !E::has(Mutant::LogUnbounded);
    let cut = is_too_large.then(|| node.store.index_to_purge_for(kept));
    let cut = cut.flatten();
    if due || cut > snapshot {
        let _ = raft.trigger().snapshot().await;
    }
    // As far as the one that there is goes: where much is written a new one is out of date when it is looked for.
    if let Some(upto) = cut.min(snapshot) {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

/// What the leader knows of its followers' logs is what proves later that one of them went back. How far its own log reaches it
/// tells them with each greeting: what it sends them may be on their disks before it is on its own.
pub(super) fn note_progress<E: Env>(node: &Node<E>, raft: &Raft<E>) {
    let metrics = metrics_of(raft);
    let term = metrics.current_term;
    for (peer, id) in metrics.replication.iter().flatten() {
        let last = id.as_ref().map(super::wire::mirror_log_id::<E>);
        if *peer != node.id && last.is_some_and(|last| last.term == term) {
            node.saw(*peer, term, last);
        }
    }
}

impl<E: Env> RaftHandle<E> {
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node.id)
    }

    /// The number of this run of this node.
    pub fn boot(&self) -> u64 {
        self.node.boot
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        self.node.cluster()
    }

    /// Proposes a command and waits until it was applied here, `deadline` at most.
    pub async fn propose(&self, command: Vec<u8>, deadline: Duration) -> Proposed {
        let node = &self.node;
        if command.len() > COMMAND_BYTES_MAX {
            let reason = format!(
                "a command of {} bytes; allowed are {COMMAND_BYTES_MAX}",
                command.len()
            );
            return Proposed::Refused {
                leader: None,
                reason,
            };
        }
        let Some(raft) = node.raft.get() else {
            return Proposed::Refused {
                leader: None,
                reason: "raft is being started".to_owned(),
            };
        };
        let proposal = Proposal {
            leader: node.id,
            command,
        };
        match timeout::<E, _>(deadline, raft.client_write(proposal)).await {
            None => Proposed::Unknown {
                reason: format!("no outcome within {} ms", deadline.as_millis()),
            },
            Some(Ok(written)) => Proposed::Done {
                at: LogPosition {
                    term: written.log_id.leader_id.term,
                    node: NodeId(node.id),
                    index: written.log_id.index,
                },
                answer: written.data.0,
            },
            Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Proposed::Refused {
                    leader: forward.leader_id.map(NodeId),
                    reason: "this node does not lead".to_owned(),
                }
            }
            Some(Err(error)) => Proposed::Unknown {
                reason: error.to_string(),
            },
        }
    }

    /// The epoch in which this node leads, if it does.
    pub fn leading(&self) -> Option<Epoch> {
        if self.node.fatal.borrow().is_some() {
            return None;
        }
        leading(&self.node)
    }

    /// Asks a quorum whether this node still leads; how long that answer is good for. The state is then as new as
    /// whatever was committed before this call.
    pub async fn confirm_leadership(&self, deadline: Duration) -> Result<Confirmation, NotLeading> {
        let not = |why: &str| NotLeading(why.to_owned());
        let raft = self
            .node
            .raft
            .get()
            .ok_or_else(|| not("raft is being started"))?;
        let epoch = self
            .leading()
            .ok_or_else(|| not("this node does not lead"))?;
        // The heartbeats that confirm are sent after this instant.
        let asked = E::mono();
        match timeout::<E, _>(deadline, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            None => return Err(not("no quorum answered in time")),
            Some(Err(error)) => return Err(NotLeading(error.to_string())),
            Some(Ok(_)) => {}
        }
        let valid_until = asked + self.node.settings.election_timeout_min();
        // Noted before leadership is looked at again: a hand-over that began meanwhile waits for it.
        {
            let mut hand_over = locked(&self.node.hand_over);
            hand_over.confirmed_until = hand_over.confirmed_until.max(valid_until);
        }
        if self.leading() != Some(epoch) {
            return Err(not("leadership changed meanwhile"));
        }
        Ok(Confirmation { epoch, valid_until })
    }

    /// What matters at once, as it is.
    pub fn summary(&self) -> RaftSummary {
        summarise(&self.node)
    }

    /// What matters at once, as it changes.
    pub fn watch(&self) -> watch::Receiver<RaftSummary> {
        self.summary.clone()
    }

    /// Returns when raft cannot go on, with the reason that the daemon exits with.
    pub async fn failed(&self) -> String {
        let mut fatal = self.node.fatal.subscribe();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "raft has ended".to_owned(),
        }
    }

    /// Writes down at which entry of the log the layer above failed, so that it is not tried without end.
    pub async fn failed_at(&self, entry: LogPosition, reason: &str) {
        let (directory, reason) = (self.node.directory.clone(), reason.to_owned());
        let noted = E::blocking(move || note_broken::<E>(&directory, entry, entry, &reason)).await;
        if let Err(error) = noted {
            tracing::error!("that entry {entry} failed is not written down: {error}");
        }
    }

    /// Everything there is to show.
    pub fn status(&self) -> RaftStatusView {
        let node = &self.node;
        let summary = summarise(node);
        let mut view = RaftStatusView {
            node: NodeId(node.id),
            boot: node.boot,
            cluster: node.cluster(),
            bind: node.settings.bind.clone(),
            default_port: node.settings.default_port,
            advertise: node.settings.advertise.clone(),
            leader_address: None,
            leader_http_uri: None,
            members: self.peers(),
            last_log_index: None,
            applied: None,
            committed: None,
            snapshot: node
                .snapshot
                .newest()
                .and_then(|head| head.last)
                .map(|last| last.index),
            purged: node.store.purged().map(|id| id.index),
            log_bytes: node.store.bytes(),
            summary,
        };
        let leader = view
            .members
            .iter()
            .find(|member| Some(member.node) == view.summary.leader);
        view.leader_address = leader.and_then(|leader| leader.address.clone());
        view.leader_http_uri = leader.and_then(|leader| leader.http_uri.clone());
        if let Some(metrics) = node.metrics() {
            view.last_log_index = metrics.last_log_index;
            view.applied = metrics.last_applied.map(|id| id.index);
            // What a quorum has may be more than what this node has got of it.
            let committed = metrics.cluster_committed.max(metrics.local_committed);
            view.committed = committed.map(|id| id.index);
        }
        view
    }

    /// The members of the cluster, this node included, by identity.
    pub fn peers(&self) -> Vec<MemberView> {
        let node = &self.node;
        let Some(metrics) = node.metrics() else {
            return Vec::new();
        };
        let now = E::mono();
        // Of one that this daemon never met.
        let described: BTreeMap<NodeId, String> = locked(&node.greeted)
            .iter()
            .filter_map(|(address, node)| Some(((*node)?, address.clone())))
            .collect();
        let peers = locked(&node.peers);
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let view = |id: u64| {
            let peer = peers.get(id).cloned().unwrap_or_default();
            let own = id == node.id;
            let uri = if own {
                node.settings.http_uri.clone()
            } else {
                peer.record.http_uri.clone()
            };
            MemberView {
                node: NodeId(id),
                voter: voters.contains(&id),
                address: if own {
                    Some(node.settings.advertise.clone())
                } else {
                    let met = peer.record.addresses.first().cloned();
                    met.or_else(|| described.get(&NodeId(id)).cloned())
                },
                http_uri: Some(uri).filter(|uri| !uri.is_empty()),
                last_contact: if own {
                    Some(Duration::ZERO)
                } else {
                    peer.heard.map(|heard| now.saturating_sub(heard))
                },
                lacks: match &metrics.replication {
                    Some(all) => all.get(&id).and_then(|matched| {
                        let matched = matched.as_ref()?.index;
                        Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
                    }),
                    None if metrics.current_leader == Some(id) => Some(0),
                    None => peer.lacks,
                },
                version: if own {
                    Some(node.settings.release.reads_both())
                } else {
                    peer.version
                },
                impostor: peer.impostor_at(now).map(str::to_owned),
                refusal: peer.refusal,
            }
        };
        membership.nodes().map(|(id, _)| view(*id)).collect()
    }

    /// Sends a message to every other member. It may be lost: a peer's queue is bounded and nothing is repeated.
    pub fn broadcast(&self, bytes: &[u8]) {
        for member in self.peers() {
            if member.node.0 != self.node.id {
                self.tell(member.node, bytes.to_vec());
            }
        }
    }

    /// Sends a message to one member. It may be lost. Messages to one peer keep their order.
    pub fn tell(&self, to: NodeId, bytes: Vec<u8>) {
        if self
            .post
            .try_send(Letter::Tell { to: to.0, bytes })
            .is_err()
        {
            tracing::debug!(peer = %to, "a message is dropped: {MESSAGES_MAX} wait");
        }
    }

    /// Asks one member and waits for its answer.
    pub async fn ask(
        &self,
        to: NodeId,
        bytes: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let (reply, answer) = oneshot::channel();
        let letter = Letter::Ask {
            to: to.0,
            bytes,
            deadline,
            reply,
        };
        if self.post.try_send(letter).is_err() {
            return Err(AskError(format!(
                "{MESSAGES_MAX} messages wait, or raft has ended"
            )));
        }
        match answer.await {
            Ok(Ok(Response::Answer(bytes))) => Ok(bytes),
            Ok(Ok(Response::Failed(reason))) => Err(AskError(reason)),
            Ok(Ok(_)) => Err(AskError(
                "it answered something else than it was asked".to_owned(),
            )),
            Ok(Err(error)) => Err(AskError(error.to_string())),
            Err(_) => Err(AskError("raft has ended".to_owned())),
        }
    }

    /// Gives leadership to the voter that has the whole log, if one has; returns once this node does not lead, or after
    /// one election timeout with the reason.
    pub async fn step_down(&self) -> Result<(), String> {
        self.transfer(None).await
    }

    /// Gives leadership to one of these voters, as soon as one has the whole log.
    pub async fn transfer_to(&self, to: &BTreeSet<NodeId>) -> Result<(), String> {
        self.transfer(Some(to)).await
    }

    /// Leads no more in this term from the moment on in which a voter was found, and asks that voter once every
    /// confirmation that was given has run out. Without such a voter it leads on.
    async fn transfer(&self, wanted: Option<&BTreeSet<NodeId>>) -> Result<(), String> {
        let node = &self.node;
        let raft = node.raft.get().ok_or("raft is being started")?;
        let mut news = raft.metrics();
        let outcome = timeout::<E, _>(node.settings.election_timeout(), async {
            let mut asked = false;
            loop {
                let metrics = metrics_of(raft);
                if metrics.state != ServerState::Leader {
                    return Ok(());
                }
                let term = metrics.current_term;
                let to = whole_log(node.id, &metrics, wanted);
                if !asked && to.is_some() {
                    let (mut resigned, confirmed_until) = Resigned::begin(node, term)
                        .ok_or("leadership is being handed over already")?;
                    asked = true;
                    sleep::<E>(confirmed_until.saturating_sub(E::mono())).await;
                    // Whoever has the whole log by then: nothing was added to it meanwhile by this node.
                    let to = whole_log(node.id, &metrics_of(raft), wanted).or(to);
                    if let Some(to) = to {
                        resigned.is_asked = true;
                        let asking = raft.trigger().transfer_leader(to).await;
                        asking.map_err(|error| error.to_string())?;
                    }
                }
                let changed = news.changed().await;
                changed.map_err(|_| "raft has ended".to_owned())?;
            }
        })
        .await;
        outcome.unwrap_or_else(|| Err("no voter took over within an election timeout".to_owned()))
    }

    /// Writes a snapshot of all that is applied, unless there is one, and waits until it is there.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn make_snapshot(&self) -> Result<(), String> {
        let raft = self.node.raft.get().ok_or("raft is being started")?;
        let mut news = raft.metrics();
        let Some(wanted) = metrics_of(raft).last_applied.map(|id| id.index) else {
            return Err("nothing was applied so far".to_owned());
        };
        let made = timeout::<E, _>(SNAPSHOT_DEADLINE, async {
            // One that is being written may be of before; then another one is asked for.
            let mut asked_at = None;
            loop {
                let held = metrics_of(raft).snapshot.map(|id| id.index);
                if held >= Some(wanted) {
                    return Ok(());
                }
                if asked_at != Some(held) {
                    asked_at = Some(held);
                    let asking = raft.trigger().snapshot().await;
                    asking.map_err(|error| error.to_string())?;
                }
                let changed = news.changed().await;
                changed.map_err(|_| "raft has ended".to_owned())?;
            }
        });
        let late = || Err("it is not written so far".to_owned());
        made.await.unwrap_or_else(late)
    }

    /// When this node's promises of before its start have run out.
    #[cfg(test)]
    pub(super) fn votes_from(&self) -> Duration {
        self.node.votes_from
    }

    /// As if leadership had been confirmed to somebody until then.
    #[cfg(test)]
    pub(super) fn confirm_until(&self, until: Duration) {
        locked(&self.node.hand_over).confirmed_until = until;
    }

    /// In openraft's eyes, whoever answers.
    #[cfg(test)]
    pub(super) fn is_openrafts_leader(&self) -> bool {
        let metrics = self.node.metrics();
        metrics.is_some_and(|metrics| metrics.state == ServerState::Leader)
    }

    /// Ends as a killed process does, as far as peers can tell.
    #[cfg(test)]
    pub(super) async fn vanish(&self) {
        self.end().await;
    }

    /// Ends raft: gives leadership away if it can, then stops every task and closes every file.
    pub async fn shutdown(&self) {
        if self.leading().is_some()
            && self.peers().len() > 1
            && let Err(why) = self.step_down().await
        {
            tracing::info!("leadership was not given away: {why}");
        }
        self.end().await;
    }

    async fn end(&self) {
        let node = &self.node;
        node.stop.send_replace(true);
        if let Some(raft) = node.raft.get() {
            let _ = raft.shutdown().await;
        }
        node.pool.clear();
        node.store.close().await;
        locked(&node.lock).take();
    }
}

/// The voter to give leadership to: one that holds the whole log.
fn whole_log<E: Env>(
    own: u64,
    metrics: &Metrics<E>,
    wanted: Option<&BTreeSet<NodeId>>,
) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|voter| *voter != own)
        .find(|voter| {
            let matched = replication
                .get(voter)
                .and_then(|id| id.as_ref().map(|id| id.index));
            wanted.is_none_or(|wanted| wanted.contains(&NodeId(*voter)))
                && matched.is_some()
                && matched >= metrics.last_log_index
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::User;

    #[test]
    fn a_directory_of_somebody_else_is_named_with_its_owner_and_ours() {
        let user = |number: u32, name: Option<&str>| User {
            number,
            name: name.map(str::to_owned),
        };
        let barred = Barred {
            path: "/var/lib/orchestrator".into(),
            owner: user(0, Some("root")),
            mode: 0o755,
            own: user(998, Some("orchestrator")),
        };
        let directory = Path::new("/var/lib/orchestrator/raft");
        assert_eq!(
            denied(directory, &barred),
            "RaftDataDir /var/lib/orchestrator/raft: permission denied: /var/lib/orchestrator belongs to root (user 0) and has \
             mode 0755, and this daemon runs as orchestrator (user 998). As root, type: mkdir -p /var/lib/orchestrator/raft && \
             chown -R orchestrator /var/lib/orchestrator/raft (that user must be able to enter the folders above it, too); or \
             run the daemon as the owner; or name another directory"
        );
        let nameless = Barred {
            own: user(1234, None),
            ..barred.clone()
        };
        let text = denied(directory, &nameless);
        assert!(text.contains("runs as user 1234."), "{text}");
        assert!(text.contains("chown -R 1234 /var"), "{text}");
        let closed = Barred {
            owner: barred.own.clone(),
            mode: 0o500,
            ..barred
        };
        let text = denied(directory, &closed);
        assert!(text.contains("has mode 0500,"), "{text}");
        assert!(
            text.contains("chmod u+rwx /var/lib/orchestrator;"),
            "{text}"
        );
    }

    /// Looks are counted while the layer above answers none, and from the start once it answered; one that has ended is
    /// looked after elsewhere.
    #[test]
    fn a_layer_above_that_does_not_answer_is_noticed() {
        let (replica, mut requests) = mpsc::channel(1);
        let mut above = Above::new(replica.clone());
        let looks = |above: &mut Above| [(); 3].map(|()| above.looks_unanswered());
        assert_eq!(looks(&mut above), [0, 1, 2]);
        let mut answer = || match requests.try_recv() {
            Ok(ReplicaRequest::Alive { reply }) => reply.send(()).unwrap(),
            other => panic!("{other:?}"),
        };
        answer();
        assert_eq!(looks(&mut above), [0, 1, 2]);
        // So full of other questions that there is no room for this one.
        answer();
        let (reply, _snapshot) = oneshot::channel();
        replica
            .try_send(ReplicaRequest::Snapshot { reply })
            .unwrap();
        assert_eq!(looks(&mut above), [1, 2, 3]);
        drop(requests);
        assert_eq!(looks(&mut above), [0, 0, 0]);
    }
}
