//! openraft by itself, with a log and a state machine in memory: what it does where this daemon decides before it, or does
//! instead. A test that fails after openraft was moved says which of our reasons is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{FutureExt as _, Stream, TryStreamExt};
use openraft::errors::{
    ClientWriteError, LinearizableReadError, RPCError, RaftError, ReplicationClosed,
    StreamingError, Unreachable,
};
use openraft::impls::{EmptyNode, leader_id_adv, leader_id_std};
use openraft::network::{Backoff, NetSnapshot, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftNetworkFactory, RaftNetworkV2, RaftSnapshotBuilder,
    ReadPolicy, ServerState, SnapshotPolicy,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::node::locked;
use super::types::{
    Answer, Config, Entry, LogId, Membership, Metrics, Proposal, Snapshot, SnapshotData,
    SnapshotMeta, StoredMembership, Vote, metrics_of,
};
use super::wire::{self, LogIdV1, VoteV1};
use crate::env::{DedicatedRuntime, Env as _, TokioEnv, timeout};

type C = Config<TokioEnv>;
type Raft = openraft::Raft<C, State>;
/// By openraft's own clock.
type Moment = openraft::alias::InstantOf<C>;

const PATIENCE: Duration = Duration::from_secs(60);
const OWN: u64 = 1;

fn id(term: u64, index: u64) -> LogId<TokioEnv> {
    wire::log_id::<TokioEnv>(LogIdV1 { term, index })
}

fn command(at: LogId<TokioEnv>) -> Entry<TokioEnv> {
    let proposal = Proposal {
        leader: OWN,
        command: vec![at.index as u8],
    };
    Entry::<TokioEnv> {
        log_id: at,
        payload: EntryPayload::Normal(proposal),
    }
}

fn members(at: LogId<TokioEnv>, nodes: &[u64]) -> Entry<TokioEnv> {
    Entry::<TokioEnv> {
        log_id: at,
        payload: EntryPayload::Membership(membership(nodes)),
    }
}

fn membership(nodes: &[u64]) -> Membership {
    let voters: BTreeSet<u64> = nodes.iter().copied().collect();
    let all: BTreeMap<u64, EmptyNode> =
        nodes.iter().map(|node| (*node, EmptyNode::new())).collect();
    Membership::new(vec![voters], all).unwrap()
}

/// What a log holds, shared with the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    vote: Option<Vote<TokioEnv>>,
    committed: Option<LogId<TokioEnv>>,
    purged: Option<LogId<TokioEnv>>,
    entries: BTreeMap<u64, Entry<TokioEnv>>,
    /// What waits for a disk that takes its time; none: entries are on it at once.
    unflushed: Option<Vec<IOFlushed<C>>>,
}

impl Log {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries that are committed, behind a purged one.
    fn with(purged: Option<LogId<TokioEnv>>, entries: Vec<Entry<TokioEnv>>) -> Log {
        let log = Log::default();
        let mut held = log.held();
        held.vote = Some(wire::vote::<TokioEnv>(VoteV1 {
            term: entries.last().map_or(1, |last| last.log_id.leader_id.term),
            node: OWN,
            committed: false,
        }));
        held.purged = purged;
        held.committed = entries.last().map(|last| last.log_id).or(purged);
        held.entries = entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect();
        drop(held);
        log
    }
}

impl RaftLogReader<C> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<TokioEnv>>, io::Error> {
        let held = self.held();
        Ok(held
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<TokioEnv>>, io::Error> {
        Ok(self.held().vote)
    }
}

impl RaftLogStorage<C> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let held = self.held();
        let last = held.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState {
            last_purged_log_id: held.purged,
            last_log_id: last.or(held.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<TokioEnv>) -> Result<(), io::Error> {
        self.held().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<TokioEnv>>,
    ) -> Result<(), io::Error> {
        self.held().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<TokioEnv>>, io::Error> {
        Ok(self.held().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry<TokioEnv>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        let mut held = self.held();
        held.entries.extend(entries);
        match &mut held.unflushed {
            Some(unflushed) => unflushed.push(callback),
            None => callback.io_completed(Ok(())),
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId<TokioEnv>>) -> Result<(), io::Error> {
        self.held()
            .entries
            .split_off(&last.map_or(0, |last| last.index + 1));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<TokioEnv>) -> Result<(), io::Error> {
        let mut held = self.held();
        held.entries = held.entries.split_off(&(upto.index + 1));
        held.purged = Some(upto);
        Ok(())
    }
}

/// A state that is nothing but its position, and may refuse to go on.
#[derive(Debug, Clone, Default)]
struct State {
    applied: Option<LogId<TokioEnv>>,
    membership: StoredMembership<TokioEnv>,
    fails: bool,
    /// The newest snapshot that was made of it.
    newest: Arc<Mutex<Option<SnapshotMeta<TokioEnv>>>>,
}

impl RaftStateMachine<C> for State {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = State;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<TokioEnv>>, StoredMembership<TokioEnv>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut stream: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = stream.try_next().await? {
            if self.fails && matches!(entry.payload, EntryPayload::Normal(_)) {
                return Err(io::Error::other("a database that does not answer"));
            }
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::<TokioEnv>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Answer(Vec::new()));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> State {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<TokioEnv>,
        _data: SnapshotData,
    ) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TokioEnv>>, io::Error> {
        let newest = locked(&self.newest).clone();
        Ok(newest.map(|meta| Snapshot::<TokioEnv> {
            meta,
            snapshot: Vec::new(),
        }))
    }
}

impl RaftSnapshotBuilder<C> for State {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot<TokioEnv>, io::Error> {
        let meta = SnapshotMeta::<TokioEnv> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        *locked(&self.newest) = Some(meta.clone());
        Ok(Snapshot::<TokioEnv> {
            meta,
            snapshot: Vec::new(),
        })
    }
}

/// A network without anybody; when it was first asked for a pre-vote.
#[derive(Debug, Clone)]
struct Nobody(watch::Sender<Option<Duration>>);

impl Nobody {
    fn new() -> Nobody {
        Nobody(watch::Sender::new(None))
    }
}

impl RaftNetworkFactory<C> for Nobody {
    type Network = Nobody;

    async fn new_client(&mut self, _target: u64, _node: &EmptyNode) -> Nobody {
        self.clone()
    }
}

fn nowhere() -> Unreachable<C> {
    Unreachable::new(&io::Error::other("nobody is there"))
}

impl RaftNetworkV2<C> for Nobody {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<C>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        Err(nowhere().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        Err(nowhere().into())
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(TokioEnv::mono);
            is_first
        });
        Err(nowhere().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<TokioEnv>,
        _snapshot: Snapshot<TokioEnv>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        Err(nowhere().into())
    }
}

/// A network that has only what must be written.
struct Plain;

impl RaftNetworkV2<C> for Plain {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<C>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        Err(nowhere().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        Err(nowhere().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<TokioEnv>,
        _snapshot: Snapshot<TokioEnv>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        Err(nowhere().into())
    }
}

/// Another node, which the test plays. It gives every vote, and takes every snapshot and every hand-over; appends and
/// heartbeats are the test's to answer.
struct Played {
    appends: mpsc::UnboundedReceiver<Letter>,
    heartbeats: mpsc::UnboundedReceiver<Letter>,
    asked: mpsc::UnboundedReceiver<Asked>,
    obliging: Arc<Mutex<bool>>,
}

/// An append or a heartbeat whose sender waits for the answer. Where it is dropped, the node could not be reached.
struct Letter {
    request: AppendEntriesRequest<C>,
    /// When it was on its way, which is after it was sent.
    at: Moment,
    reply: oneshot::Sender<AppendEntriesResponse<C>>,
}

/// What was asked of a node that took it at once.
#[derive(Debug)]
enum Asked {
    Vote(VoteRequest<C>),
    PreVote,
    Snapshot(SnapshotMeta<TokioEnv>),
    HandOver(TransferLeaderRequest<C>),
}

impl Letter {
    fn answer(self, answer: AppendEntriesResponse<C>) {
        let taken = self.reply.send(answer);
        assert!(taken.is_ok(), "nobody waits for the answer any more");
    }

    fn takes(self) {
        self.answer(AppendEntriesResponse::Success);
    }
}

impl Played {
    async fn append(&mut self) -> Letter {
        within("an append", self.appends.recv()).await.unwrap()
    }

    /// The next append with entries; those that tell how far is committed are taken.
    async fn entries(&mut self) -> Letter {
        loop {
            let letter = self.append().await;
            if !letter.request.entries.is_empty() {
                return letter;
            }
            letter.takes();
        }
    }

    async fn heartbeat(&mut self) -> Letter {
        within("a heartbeat", self.heartbeats.recv()).await.unwrap()
    }

    async fn asked(&mut self) -> Asked {
        within("a question", self.asked.recv()).await.unwrap()
    }

    /// Takes appends at once, those too that wait here.
    fn obliges(&mut self) {
        let mut obliging = locked(&self.obliging);
        *obliging = true;
        while let Ok(letter) = self.appends.try_recv() {
            letter.takes();
        }
    }
}

/// The ways to the nodes that the test plays.
struct Wires(BTreeMap<u64, Wire>);

#[derive(Clone)]
struct Wire {
    appends: mpsc::UnboundedSender<Letter>,
    heartbeats: mpsc::UnboundedSender<Letter>,
    asked: mpsc::UnboundedSender<Asked>,
    obliging: Arc<Mutex<bool>>,
    use_of: UseOf,
}

/// openraft has a connection for each.
#[derive(Clone, Copy)]
enum UseOf {
    Heartbeats,
    Others,
}

/// Nodes that the test plays: 2, 3 and so on.
fn played<const N: usize>() -> (Wires, [Played; N]) {
    let mut wires = BTreeMap::new();
    let others = std::array::from_fn(|place| {
        let (to_appends, appends) = mpsc::unbounded_channel();
        let (to_heartbeats, heartbeats) = mpsc::unbounded_channel();
        let (to_asked, asked) = mpsc::unbounded_channel();
        let obliging = Arc::new(Mutex::new(false));
        let wire = Wire {
            appends: to_appends,
            heartbeats: to_heartbeats,
            asked: to_asked,
            obliging: obliging.clone(),
            use_of: UseOf::Others,
        };
        wires.insert(OWN + 1 + place as u64, wire);
        Played {
            appends,
            heartbeats,
            asked,
            obliging,
        }
    });
    (Wires(wires), others)
}

impl RaftNetworkFactory<C> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Wire {
        self.0[&target].clone()
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Wire {
        Wire {
            use_of: UseOf::Heartbeats,
            ..self.0[&target].clone()
        }
    }
}

impl Wire {
    /// Whether it is answered at once; if not, it lies before the test.
    fn is_taken(&self, letter: Letter) -> bool {
        // Held until the letter lies there: whoever begins to oblige finds it.
        let obliging = locked(&self.obliging);
        let unread = match self.use_of {
            UseOf::Heartbeats => self.heartbeats.send(letter),
            UseOf::Others if *obliging => return true,
            UseOf::Others => self.appends.send(letter),
        };
        // A test that is at its end reads nothing.
        drop(unread);
        false
    }

    fn ask(&self, asked: Asked) {
        let _ = self.asked.send(asked);
    }
}

impl RaftNetworkV2<C> for Wire {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            request,
            at: C::now(),
            reply,
        };
        if self.is_taken(letter) {
            return Ok(AppendEntriesResponse::Success);
        }
        answer.await.map_err(|_| nowhere().into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask(Asked::Vote(rpc.clone()));
        Ok(VoteResponse::new(rpc.vote, rpc.last_log_id, true))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        _option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask(Asked::PreVote);
        Ok(VoteResponse::new(rpc.vote, rpc.last_log_id, true))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<TokioEnv>,
        snapshot: Snapshot<TokioEnv>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        self.ask(Asked::Snapshot(snapshot.meta));
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        self.ask(Asked::HandOver(rpc));
        Ok(Ok(()))
    }

    /// Nobody is waited for who could not be reached.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::ZERO)))
    }
}

/// A leader in its first term, with one entry of it at index 1, and the other nodes, which have answered nothing but votes.
async fn elected<const N: usize>(log: &Log, config: openraft::Config) -> (Raft, [Played; N]) {
    let (wires, mut others) = played();
    let raft = start_with(log, State::default(), wires, config)
        .await
        .unwrap();
    let all = OWN..=OWN + N as u64;
    let all: BTreeMap<u64, EmptyNode> = all.map(|node| (node, EmptyNode::new())).collect();
    raft.initialize(all).await.unwrap();
    for other in &mut others {
        let asked = other.asked().await;
        assert!(matches!(asked, Asked::Vote(_)), "{asked:?}");
    }
    when(&raft, "it leads", |now| now.state == ServerState::Leader).await;
    (raft, others)
}

/// A leader whose first entry is committed and held by all the other nodes, and of which nothing more is to be heard by itself.
async fn leading<const N: usize>(log: &Log, config: openraft::Config) -> (Raft, [Played; N]) {
    let (raft, mut others) = elected(log, config).await;
    let mut sent = Vec::new();
    // The entry, and that it is committed, of which nobody can know before somebody answers.
    for _ in 0..2 {
        let mut letters = Vec::new();
        for other in &mut others {
            letters.push(other.append().await);
        }
        sent.extend(letters.iter().map(|letter| letter.at));
        letters.into_iter().for_each(Letter::takes);
    }
    let first = (OWN + 1..).zip(sent.into_iter().take(N));
    for (node, entry) in first {
        let is = |now: &Metrics<TokioEnv>| heard(now, node) > Some(entry);
        when(&raft, "it knows that it is committed", is).await;
    }
    applied(&raft, 1).await;
    (raft, others)
}

/// What openraft says of itself once it is so.
async fn when(
    raft: &Raft,
    what: &str,
    is: impl Fn(&Metrics<TokioEnv>) -> bool + Send,
) -> Metrics<TokioEnv> {
    let waited = raft.wait(Some(PATIENCE)).metrics(is, what).await;
    waited.unwrap()
}

async fn applied(raft: &Raft, index: u64) {
    let is = |now: &Metrics<TokioEnv>| now.last_applied.map(|id| id.index) >= Some(index);
    when(raft, "it is applied", is).await;
}

/// The last acknowledgement of a quorum.
fn acknowledged(metrics: &Metrics<TokioEnv>) -> Option<Moment> {
    metrics.last_quorum_acked.map(|at| *at)
}

/// The last acknowledgement of one node.
fn heard(metrics: &Metrics<TokioEnv>, node: u64) -> Option<Moment> {
    let of_all = metrics.heartbeat.as_ref()?;
    of_all.get(&node)?.map(|at| *at)
}

/// How far a follower holds the log, as the leader knows.
fn matched(metrics: &Metrics<TokioEnv>, node: u64) -> Option<u64> {
    let of_all = metrics.replication.as_ref()?;
    of_all.get(&node)?.map(|id| id.index)
}

async fn write(raft: &Raft) {
    let proposal = Proposal {
        leader: OWN,
        command: vec![1],
    };
    let written = within("a write", raft.client_write(proposal)).await;
    written.unwrap();
}

/// Makes a snapshot up to this index, to which all is applied.
async fn snapshot(raft: &Raft, index: u64) {
    raft.trigger().snapshot().await.unwrap();
    let is = |now: &Metrics<TokioEnv>| now.snapshot.map(|id| id.index) == Some(index);
    when(raft, "there is a snapshot", is).await;
}

/// Asks for a cut of the log, and returns once openraft is through with that.
async fn cut(raft: &Raft, upto: u64) {
    raft.trigger().purge_log(upto).await.unwrap();
    through(raft).await;
}

/// Returns once openraft is through with what it was asked before.
async fn through(raft: &Raft) {
    let told = raft.with_raft_state(|_| ());
    within("it is through", told).await.unwrap();
}

/// Returns once the leader is through with what it was told before, the answers of other nodes included: they come one behind
/// another, and this one, with which a quorum is complete, is the last.
async fn heard_all(raft: &Raft, other: &mut Played) {
    let confirmed = raft.ensure_linearizable(ReadPolicy::ReadIndex);
    let answered = async { other.heartbeat().await.takes() };
    let (confirmed, ()) = within("it is confirmed", join(confirmed, answered)).await;
    confirmed.unwrap();
}

async fn start(log: &Log, state: State, network: Nobody) -> Result<Raft, String> {
    start_with(log, state, network, hasty()).await
}

/// With elections that come soon.
fn hasty() -> openraft::Config {
    openraft::Config {
        heartbeat_interval: 100,
        election_timeout_min: 600,
        election_timeout_max: 1_000,
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    }
}

/// With elections and leases that no test outlasts.
fn patient() -> openraft::Config {
    openraft::Config {
        election_timeout_min: 600_000,
        election_timeout_max: 3_600_000,
        ..hasty()
    }
}

/// In which nothing happens by itself: no election, no heartbeat, no snapshot and no cut, and no wait or lease runs out.
fn by_hand() -> openraft::Config {
    openraft::Config {
        heartbeat_interval: 500_000,
        enable_tick: false,
        snapshot_policy: SnapshotPolicy::Never,
        ..patient()
    }
}

async fn start_with<N>(
    log: &Log,
    state: State,
    network: N,
    config: openraft::Config,
) -> Result<Raft, String>
where
    N: RaftNetworkFactory<C>,
    N::Network: NetSnapshot<C, SnapshotData = SnapshotData>,
{
    let config = Arc::new(config.validate().unwrap());
    Raft::new(OWN, config, network, log.clone(), state)
        .await
        .map_err(|error| error.to_string())
}

fn run(test: impl Future<Output = ()>) {
    let runtime = DedicatedRuntime::start("openraft-test", 1).unwrap();
    runtime.run(test);
    runtime.stop();
}

async fn within<T>(what: &str, future: impl Future<Output = T> + Send) -> T {
    let ended = timeout::<TokioEnv, _>(PATIENCE, future).await;
    ended.unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// Why the standard leader id is chosen: by the default one a second leader may follow the first in its own term.
#[test]
fn only_the_default_leader_id_lets_one_term_have_two_leaders() {
    let standard = |node| leader_id_std::LeaderId::<u64, u64>::new(7, node);
    assert_eq!(standard(1).partial_cmp(&standard(2)), None);
    let default = |node| leader_id_adv::LeaderId::<u64, u64>::new(7, node);
    assert!(default(1) < default(2));
}

/// Why pre-votes are sent: where a network has none of its own, everybody is told that it would be elected.
#[test]
fn a_pre_vote_that_is_not_sent_is_granted() {
    run(async {
        let vote = Vote::<TokioEnv>::new(7, OWN);
        let rpc = VoteRequest::new(vote, None);
        let option = RPCOption::new(Duration::from_secs(1));
        let answer = Plain.pre_vote(rpc, option).await.unwrap();
        assert!(answer.vote_granted);
    });
}

/// Why apply changes memory only, and answers: its first error is the end of raft.
#[test]
fn an_error_of_apply_ends_raft() {
    run(async {
        let failing = State {
            fails: true,
            ..State::default()
        };
        let raft = start(&Log::default(), failing, Nobody::new())
            .await
            .unwrap();
        let alone = BTreeMap::from([(OWN, EmptyNode::new())]);
        raft.initialize(alone).await.unwrap();
        let led = raft.wait(Some(PATIENCE));
        led.state(ServerState::Leader, "it leads").await.unwrap();
        // The first is told that its answer is lost, the next one that raft is at its end.
        for _ in 0..2 {
            let proposal = Proposal {
                leader: OWN,
                command: vec![1],
            };
            let outcome = within("an answer", raft.client_write(proposal)).await;
            let ended = matches!(outcome, Err(RaftError::Fatal(_)));
            assert!(ended, "{outcome:?}");
        }
    });
}

/// Why the table of starts is gone through before openraft is given anything: some of its rows are refused...
#[test]
fn a_state_that_the_log_cannot_lead_to_is_refused() {
    run(async {
        // The backend is gone, and the log no longer begins at its beginning.
        let cut = Log::with(Some(id(1, 4)), vec![command(id(1, 5)), command(id(1, 6))]);
        let refused = start(&cut, State::default(), Nobody::new()).await;
        let refused = refused.map(drop).unwrap_err();
        assert!(refused.contains("purged"), "{refused}");

        // Another entry was applied where the log has its last one.
        let other = Log::with(None, vec![members(id(1, 0), &[OWN]), command(id(1, 1))]);
        let applied = State {
            applied: Some(id(2, 1)),
            ..State::default()
        };
        let refused = start(&other, applied, Nobody::new()).await;
        let refused = refused.map(drop).unwrap_err();
        assert!(refused.contains("corrupted"), "{refused}");
    });
}

/// ... and some are not: a backend of another history is taken as the log's own continuation, and the log is dropped.
#[test]
fn a_state_of_another_history_is_spliced_to_the_log() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN]), command(id(1, 1))]);
        let elsewhere = State {
            applied: Some(id(5, 9)),
            membership: StoredMembership::<TokioEnv>::new(Some(id(5, 8)), membership(&[7, 8])),
            ..State::default()
        };
        let raft = start(&log, elsewhere, Nobody::new()).await.unwrap();
        assert_eq!(log.held().purged, Some(id(5, 9)));
        assert!(log.held().entries.is_empty());
        raft.shutdown().await.unwrap();
    });
}

/// A node without anything is a learner that nobody hears of, and campaigns never.
#[test]
fn an_empty_node_waits_without_a_word() {
    run(async {
        let nobody = Nobody::new();
        let raft = start(&Log::default(), State::default(), nobody.clone())
            .await
            .unwrap();
        let mut asked = nobody.0.subscribe();
        // Several election timeouts.
        let campaign = asked.wait_for(Option::is_some);
        let campaign = timeout::<TokioEnv, _>(Duration::from_secs(3), campaign).await;
        assert!(campaign.is_none(), "{campaign:?}");
        assert_eq!(metrics_of(&raft).state, ServerState::Learner);
        assert!(raft.shutdown().await.is_ok());
    });
}

/// Why a restarted leader does not lead on: openraft would have it lead in the term that it led before it ended, and what that
/// one had sent could not be told from what this one sends.
#[test]
fn a_restarted_leader_leads_on_in_its_old_term_unless_it_is_told_not_to() {
    run(async {
        for leads_on in [true, false] {
            let log = Log::with(None, vec![members(id(3, 0), &[OWN, 2, 3])]);
            log.held().vote = Some(wire::vote::<TokioEnv>(VoteV1 {
                term: 3,
                node: OWN,
                committed: true,
            }));
            let changed = openraft::Config {
                enable_leader_restore: Some(leads_on),
                enable_elect: false,
                ..hasty()
            };
            let raft = start_with(&log, State::default(), Nobody::new(), changed)
                .await
                .unwrap();
            let wanted = if leads_on {
                ServerState::Leader
            } else {
                ServerState::Follower
            };
            let started = raft.wait(Some(PATIENCE));
            let metrics = started.state(wanted, "it was started").await.unwrap();
            assert_eq!(metrics.current_term, 3);
            raft.shutdown().await.unwrap();
        }
    });
}

/// Why a voter withholds its vote for a while after its start: it heard a leader a moment before it ended, and openraft has
/// forgotten when.
#[test]
fn a_restarted_voter_gives_its_vote_at_once() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        log.held().vote = Some(wire::vote::<TokioEnv>(VoteV1 {
            term: 2,
            node: 2,
            committed: true,
        }));
        let raft = start_with(&log, State::default(), Nobody::new(), patient())
            .await
            .unwrap();
        let asks = VoteRequest::new(Vote::<TokioEnv>::new(3, 3), Some(id(2, 9)));
        let answer = within("a vote", raft.vote(asks.clone())).await.unwrap();
        assert!(answer.vote_granted);
        raft.shutdown().await.unwrap();

        // One that has heard a leader in this life does not.
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        let raft = start_with(&log, State::default(), Nobody::new(), patient())
            .await
            .unwrap();
        let heartbeat = AppendEntriesRequest::<C> {
            vote: Vote::<TokioEnv>::new_committed(2, 2),
            prev_log_id: Some(id(1, 0)),
            entries: Vec::new(),
            leader_commit: Some(id(1, 0)),
        };
        raft.append_entries(heartbeat).await.unwrap();
        let answer = within("a vote", raft.vote(asks)).await.unwrap();
        assert!(!answer.vote_granted);
        raft.shutdown().await.unwrap();
    });
}

/// Why every connection begins with a handshake that names its target: what is said to a node does not, and is taken by one
/// that is in no list at all.
#[test]
fn what_is_meant_for_another_node_is_taken() {
    run(async {
        let log = Log::default();
        let raft = start(&log, State::default(), Nobody::new()).await.unwrap();
        let meant_for_seven = AppendEntriesRequest::<C> {
            vote: Vote::<TokioEnv>::new_committed(2, 8),
            prev_log_id: None,
            entries: vec![members(id(2, 0), &[7, 8])],
            leader_commit: None,
        };
        let answer = within("an answer", raft.append_entries(meant_for_seven)).await;
        assert!(
            matches!(answer, Ok(AppendEntriesResponse::Success)),
            "{answer:?}"
        );
        assert_eq!(log.held().entries.len(), 1);
        raft.shutdown().await.unwrap();
    });
}

/// Why the answer to a snapshot waits for the own log: one that tells nothing new is answered while the entries that it covers
/// are not on disk, and its sender counts them as held.
#[test]
fn an_old_snapshot_is_answered_before_the_log_is_flushed() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        log.held().unflushed = Some(Vec::new());
        let raft = start(&log, State::default(), Nobody::new()).await.unwrap();
        let vote = Vote::<TokioEnv>::new_committed(2, 2);
        let append = AppendEntriesRequest::<C> {
            vote,
            prev_log_id: Some(id(1, 0)),
            entries: vec![command(id(2, 1)), command(id(2, 2))],
            leader_commit: Some(id(2, 2)),
        };
        let mut appending = Box::pin(raft.append_entries(append));
        assert!((&mut appending).now_or_never().is_none());
        let taken = raft.wait(Some(PATIENCE));
        taken
            .log_index(Some(2), "the entries are taken")
            .await
            .unwrap();

        let meta = SnapshotMeta::<TokioEnv> {
            last_log_id: Some(id(2, 2)),
            last_membership: StoredMembership::<TokioEnv>::new(
                Some(id(1, 0)),
                membership(&[OWN, 2, 3]),
            ),
        };
        let snapshot = Snapshot::<TokioEnv> {
            meta,
            snapshot: Vec::new(),
        };
        let installed = raft.install_full_snapshot(vote, snapshot);
        within("an answer", installed).await.unwrap();
        assert!((&mut appending).now_or_never().is_none(), "it is flushed");
        let unflushed = log.held().unflushed.take();
        for callback in unflushed.into_iter().flatten() {
            callback.io_completed(Ok(()));
        }
        let answer = within("an answer", appending).await;
        assert!(matches!(answer, Ok(AppendEntriesResponse::Success)));
        raft.shutdown().await.unwrap();
    });
}

/// Why a cut-off leader is asked when it heard from a quorum last: openraft goes on calling it one.
#[test]
fn a_leader_that_nobody_hears_goes_on_leading() {
    run(async {
        let log = Log::default();
        let nobody = Nobody::new();
        let raft = start(&log, State::default(), nobody.clone()).await.unwrap();
        raft.initialize(BTreeMap::from([(OWN, EmptyNode::new())]))
            .await
            .unwrap();
        let led = raft.wait(Some(PATIENCE));
        led.state(ServerState::Leader, "it leads").await.unwrap();
        // A change of the members is refused for as long as the one before it is not committed.
        let settled = raft.wait(Some(PATIENCE));
        settled
            .applied_index_at_least(Some(1), "its first entry is committed")
            .await
            .unwrap();
        // Nobody answers on its network: it cannot reach the one that is let in.
        let second = BTreeMap::from([(2, EmptyNode::new())]);
        let changed = raft.change_membership(openraft::ChangeMembers::AddNodes(second), true);
        within("it is let in", changed).await.unwrap();
        let voters = openraft::ChangeMembers::AddVoterIds(BTreeSet::from([2]));
        let joined = raft.change_membership(voters, true);
        // Several election timeouts: it cannot commit, and leads.
        let joined = timeout::<TokioEnv, _>(Duration::from_secs(4), joined).await;
        assert!(joined.is_none(), "{joined:?}");
        assert_eq!(metrics_of(&raft).state, ServerState::Leader);
        raft.shutdown().await.unwrap();
    });
}

/// Why an election takes as long as it does: after the last heartbeat nobody campaigns for the maximum, and then for another
/// part of an election timeout.
#[test]
fn a_follower_waits_for_the_maximum_and_the_minimum_before_it_campaigns() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        let nobody = Nobody::new();
        // It has not heard of a leader so far, and on a busy machine would campaign before it does.
        let listening = openraft::Config {
            enable_elect: false,
            ..hasty()
        };
        let raft = start_with(&log, State::default(), nobody.clone(), listening)
            .await
            .unwrap();
        let heard = TokioEnv::mono();
        let heartbeat = AppendEntriesRequest::<C> {
            vote: Vote::<TokioEnv>::new_committed(2, 2),
            prev_log_id: Some(id(1, 0)),
            entries: Vec::new(),
            leader_commit: Some(id(1, 0)),
        };
        raft.append_entries(heartbeat).await.unwrap();
        raft.runtime_config().elect(true);
        let mut asked = nobody.0.subscribe();
        let first = within("a campaign", asked.wait_for(Option::is_some)).await;
        let first = first.unwrap().expect("it was waited for");
        let waited = first - heard;
        assert!(waited >= Duration::from_millis(1_600), "{waited:?}");
        raft.shutdown().await.unwrap();
    });
}

/// Why a confirmation is good from the moment in which it was asked for (`confirm_leadership`): a quorum answers heartbeats
/// that were sent after the question. What was on its way before does not count, however late it is answered. The question
/// itself sends them; no heartbeat need be due.
#[test]
fn leadership_is_confirmed_by_heartbeats_that_are_sent_after_the_question() {
    run(async {
        let log = Log::default();
        let (raft, [mut two, _three]) = leading(&log, by_hand()).await;
        let before = heard(&metrics_of(&raft), 2);
        raft.trigger().heartbeat().await.unwrap();
        let early = two.heartbeat().await;
        assert!(two.heartbeats.try_recv().is_err());

        let asked = C::now();
        let mut confirming = Box::pin(raft.ensure_linearizable(ReadPolicy::ReadIndex));
        assert!((&mut confirming).now_or_never().is_none());
        early.takes();
        let late = two.heartbeat().await;
        let is = |now: &Metrics<TokioEnv>| heard(now, 2) > before;
        let now = when(&raft, "the early one is acknowledged", is).await;
        assert!(acknowledged(&now) < Some(asked));
        through(&raft).await;
        assert!((&mut confirming).now_or_never().is_none());

        late.takes();
        within("it is confirmed", confirming).await.unwrap();
        // It is told before the metrics are.
        let is = |now: &Metrics<TokioEnv>| acknowledged(now) >= Some(asked);
        when(&raft, "the late one is acknowledged", is).await;
        raft.shutdown().await.unwrap();
    });
}

/// ... and no confirmation comes where no quorum answers them: after a lease, at the latest, it has failed. The node goes on
/// leading in openraft's eyes.
#[test]
fn leadership_is_not_confirmed_where_no_quorum_answers() {
    run(async {
        let log = Log::default();
        let short_lease = openraft::Config {
            heartbeat_interval: 100,
            election_timeout_min: 200,
            election_timeout_max: 300,
            ..by_hand()
        };
        let (raft, [mut two, mut three]) = leading(&log, short_lease).await;
        let confirming = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let losing = async {
            drop(two.heartbeat().await);
            drop(three.heartbeat().await);
        };
        let (confirmed, ()) = within("an end", join(confirming, losing)).await;
        let Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(few))) = confirmed
        else {
            panic!("{confirmed:?}");
        };
        assert_eq!(few.got, BTreeSet::from([OWN]));
        assert_eq!(metrics_of(&raft).state, ServerState::Leader);
        raft.shutdown().await.unwrap();
    });
}

/// ... nor by who does not lead, or learns of a higher vote while it asks.
#[test]
fn leadership_is_not_confirmed_by_who_does_not_lead() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        let raft = start_with(&log, State::default(), Nobody::new(), by_hand())
            .await
            .unwrap();
        let confirming = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let confirmed = within("an end", confirming).await;
        assert!(is_sent_on(&confirmed), "{confirmed:?}");
        raft.shutdown().await.unwrap();

        let log = Log::default();
        let (raft, [mut two, _three]) = leading(&log, by_hand()).await;
        let confirming = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let higher = AppendEntriesResponse::HigherVote(Vote::<TokioEnv>::new(2, 2));
        let answering = async { two.heartbeat().await.answer(higher) };
        let (confirmed, ()) = within("an end", join(confirming, answering)).await;
        assert!(is_sent_on(&confirmed), "{confirmed:?}");
        let is = |now: &Metrics<TokioEnv>| now.state == ServerState::Follower;
        when(&raft, "it leads no more", is).await;
        raft.shutdown().await.unwrap();
    });
}

/// Whether it is told to ask the leader.
fn is_sent_on<T>(confirmed: &Result<T, RaftError<C, LinearizableReadError<C>>>) -> bool {
    let why = match confirmed {
        Ok(_) | Err(RaftError::Fatal(_)) => return false,
        Err(RaftError::APIError(why)) => why,
    };
    matches!(why, LinearizableReadError::ForwardToLeader(_))
}

/// Why leading ends an election timeout after the last acknowledgement of a quorum (`leading_by`): that is when it was sent
/// what the last quorum acknowledged, append or heartbeat, and not when the answer came. There is none before a quorum has
/// answered, and what fewer answer does not make it newer.
#[test]
fn a_quorum_acknowledges_the_moment_in_which_it_was_asked() {
    run(async {
        let log = Log::default();
        let (raft, [mut two, mut three, _four, _five]) = elected(&log, by_hand()).await;
        assert_eq!(acknowledged(&metrics_of(&raft)), None);

        let (first, second) = (two.append().await, three.append().await);
        let sent = [first.at, second.at];
        first.takes();
        let now = when(&raft, "one answered", |now| heard(now, 2).is_some()).await;
        assert_eq!(acknowledged(&now), None);
        second.takes();
        let now = when(&raft, "two answered", |now| heard(now, 3).is_some()).await;
        let appended = acknowledged(&now);
        assert_eq!(appended, heard(&now, 2).min(heard(&now, 3)));
        assert!(appended.is_some() && appended <= sent.into_iter().min());

        let asked = Some(C::now());
        raft.trigger().heartbeat().await.unwrap();
        two.heartbeat().await.takes();
        let again = |now: &Metrics<TokioEnv>| heard(now, 2) >= asked;
        let now = when(&raft, "one answered again", again).await;
        assert!(acknowledged(&now) < asked, "{now:?}");
        let heartbeat = three.heartbeat().await;
        let sent = Some(heartbeat.at);
        heartbeat.takes();
        let again = |now: &Metrics<TokioEnv>| heard(now, 3) >= asked;
        let now = when(&raft, "two answered again", again).await;
        let beaten = acknowledged(&now);
        assert!(beaten >= asked && beaten <= sent, "{now:?}");
        raft.shutdown().await.unwrap();
    });
}

/// Why a voter that is alone leads without being asked when a quorum acknowledged last (`leading_by`): for openraft it did
/// when it was elected, and never again.
#[test]
fn a_leader_that_is_alone_has_its_quorum_at_its_election_only() {
    run(async {
        let log = Log::default();
        let (raft, []) = leading(&log, by_hand()).await;
        let elected = acknowledged(&metrics_of(&raft));
        assert!(elected.is_some());
        write(&raft).await;
        raft.trigger().heartbeat().await.unwrap();
        let confirming = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        within("it is confirmed", confirming).await.unwrap();
        applied(&raft, 2).await;
        assert_eq!(acknowledged(&metrics_of(&raft)), elected);
        raft.shutdown().await.unwrap();
    });
}

/// Why this node leads no more in a term in which it asked another one to take over, whether that one does or not
/// (`hands_over`): openraft calls it the leader until it sees a higher vote, but it appends nothing, confirms nothing and
/// sends no heartbeats any more, so that the others elect somebody. A proposal that it refuses is in no log.
#[test]
fn a_leader_that_hands_over_takes_nothing_and_is_called_the_leader() {
    run(async {
        let log = Log::default();
        let (raft, [mut two, mut three]) = leading(&log, by_hand()).await;
        raft.trigger().heartbeat().await.unwrap();
        two.heartbeat().await.takes();
        three.heartbeat().await.takes();

        raft.trigger().transfer_leader(2).await.unwrap();
        // Every voter is told, not only the one that is to take over.
        for other in [&mut two, &mut three] {
            let asked = other.asked().await;
            let Asked::HandOver(request) = &asked else {
                panic!("{asked:?}");
            };
            assert_eq!(*request.to_node_id(), 2);
            let own = Vote::<TokioEnv>::new_committed(1, OWN);
            assert_eq!(*request.from_leader(), own);
            assert_eq!(request.last_log_id(), Some(&id(1, 1)));
        }
        let proposal = Proposal {
            leader: OWN,
            command: vec![1],
        };
        let written = within("an end", raft.client_write(proposal)).await;
        let Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) = written else {
            panic!("{written:?}");
        };
        assert_eq!(forward.leader_id, Some(2));
        assert_eq!(log.held().entries.keys().last(), Some(&1));
        let confirming = raft.ensure_linearizable(ReadPolicy::ReadIndex);
        let confirmed = within("an end", confirming).await;
        assert!(is_sent_on(&confirmed), "{confirmed:?}");
        raft.trigger().heartbeat().await.unwrap();
        for _ in 0..3 {
            through(&raft).await;
        }
        assert!(two.heartbeats.try_recv().is_err());
        assert!(three.heartbeats.try_recv().is_err());
        assert_eq!(metrics_of(&raft).state, ServerState::Leader);
        assert_eq!(metrics_of(&raft).current_term, 1);

        // A vote is a hand-over's, or it is not given while a quorum's acknowledgement is fresh.
        let mut asks = VoteRequest::new(Vote::<TokioEnv>::new(2, 2), Some(id(1, 1)));
        let answer = within("a vote", raft.vote(asks.clone())).await.unwrap();
        assert!(!answer.vote_granted);
        asks.leadership_transfer = true;
        let answer = within("a vote", raft.vote(asks)).await.unwrap();
        assert!(answer.vote_granted);
        let is = |now: &Metrics<TokioEnv>| now.state == ServerState::Follower;
        when(&raft, "it leads no more", is).await;
        raft.shutdown().await.unwrap();
    });
}

/// Why leadership is given to who has the whole log, and is gone within moments (`transfer`): who is asked waits until it
/// holds the log, and then stands for election at once, without a pre-vote and whenever it heard the leader. A former leader's
/// request is refused.
#[test]
fn who_is_to_take_over_stands_for_election_at_once() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        let (wires, [mut two, mut three]) = played();
        let raft = start_with(&log, State::default(), wires, by_hand())
            .await
            .unwrap();
        let leader = Vote::<TokioEnv>::new_committed(2, 2);
        let append = |index: u64| AppendEntriesRequest::<C> {
            vote: leader,
            prev_log_id: Some(id(index.min(2), index - 1)),
            entries: vec![command(id(2, index))],
            leader_commit: None,
        };
        raft.append_entries(append(1)).await.unwrap();

        let former = Vote::<TokioEnv>::new_committed(1, 3);
        let request = TransferLeaderRequest::new(former, OWN, Some(id(1, 0)));
        let taken = raft.handle_transfer_leader(request);
        let taken = within("an answer", taken).await.unwrap();
        let changed = matches!(taken, Err(TransferLeaderError::VoteChanged { .. }));
        assert!(changed, "{taken:?}");

        // One entry more than it has.
        let request = TransferLeaderRequest::new(leader, OWN, Some(id(2, 2)));
        let mut taking = Box::pin(raft.handle_transfer_leader(request));
        assert!((&mut taking).now_or_never().is_none());
        through(&raft).await;
        assert!(two.asked.try_recv().is_err());
        raft.append_entries(append(2)).await.unwrap();
        let taken = within("an answer", taking).await.unwrap();
        assert_eq!(taken, Ok(()));
        for other in [&mut two, &mut three] {
            let asked = other.asked().await;
            let Asked::Vote(request) = &asked else {
                panic!("{asked:?}");
            };
            assert_eq!(request.vote, Vote::<TokioEnv>::new(3, OWN));
            assert_eq!(request.last_log_id, Some(id(2, 2)));
            assert!(request.leadership_transfer);
        }
        let is = |now: &Metrics<TokioEnv>| now.state == ServerState::Leader;
        let now = when(&raft, "it leads", is).await;
        assert_eq!(now.current_term, 3);
        raft.shutdown().await.unwrap();
    });
}

/// Why leadership is not given away before every confirmation of it has run out (`transfer`): a vote that is asked for a
/// hand-over is given whenever the voter heard its leader, and whether or not it was told of that hand-over.
#[test]
fn a_vote_for_a_hand_over_does_not_wait_for_the_lease() {
    run(async {
        let log = Log::with(None, vec![members(id(1, 0), &[OWN, 2, 3])]);
        let raft = start_with(&log, State::default(), Nobody::new(), by_hand())
            .await
            .unwrap();
        let heartbeat = AppendEntriesRequest::<C> {
            vote: Vote::<TokioEnv>::new_committed(2, 2),
            prev_log_id: Some(id(1, 0)),
            entries: Vec::new(),
            leader_commit: Some(id(1, 0)),
        };
        raft.append_entries(heartbeat).await.unwrap();
        let mut asks = VoteRequest::new(Vote::<TokioEnv>::new(3, 3), Some(id(1, 0)));
        let answer = within("a vote", raft.vote(asks.clone())).await.unwrap();
        assert!(!answer.vote_granted);
        asks.leadership_transfer = true;
        let answer = within("a vote", raft.vote(asks)).await.unwrap();
        assert!(answer.vote_granted);
        raft.shutdown().await.unwrap();
    });
}

/// Why a cut of the log can be asked for every second, by size alone (`keep_bounds`): it goes no further than the snapshot,
/// none is made where there is no snapshot, and one that goes no further than the last one changes nothing.
#[test]
fn the_log_is_cut_no_further_than_the_snapshot_reaches() {
    run(async {
        let log = Log::default();
        let (raft, []) = leading(&log, by_hand()).await;
        for _ in 2..=5 {
            write(&raft).await;
        }
        cut(&raft, 3).await;
        assert_eq!(log.held().purged, None);
        snapshot(&raft, 5).await;
        write(&raft).await;
        assert_eq!(log.held().purged, None);
        // What was asked for when there was no snapshot is forgotten.
        for (upto, purged) in [(2, 2), (1, 2), (2, 2), (6, 5), (7, 5), (3, 5)] {
            cut(&raft, upto).await;
            assert_eq!(log.held().purged, Some(id(1, purged)), "{upto}");
        }
        let left: Vec<u64> = log.held().entries.keys().copied().collect();
        assert_eq!(left, [6]);
        raft.shutdown().await.unwrap();
    });
}

/// A leader to whose second follower an append with the entry at index 2 is on its way. What there is up to index 4 is
/// committed, since the first follower holds it, and is in a snapshot.
async fn with_one_behind(log: &Log) -> (Raft, [Played; 2], Letter) {
    let (raft, [mut two, mut three]) = leading(log, by_hand()).await;
    two.obliges();
    let ((), on_its_way) = join(write(&raft), three.entries()).await;
    for _ in 3..=4 {
        write(&raft).await;
    }
    snapshot(&raft, 4).await;
    (raft, [two, three], on_its_way)
}

/// Why nothing is done about a cut that does not come (`keep_bounds`): while an append of what is to go is on its way to a
/// follower it is put off, and it is made once that is answered, or has failed. To ask for it again does not hurry it.
#[test]
fn a_cut_waits_for_an_append_that_is_on_its_way() {
    run(async {
        for is_answered in [true, false] {
            let log = Log::default();
            let (raft, [_two, mut three], on_its_way) = with_one_behind(&log).await;
            for upto in [3, 3, 2] {
                cut(&raft, upto).await;
                assert_eq!(log.held().purged, None);
            }
            if is_answered {
                // It holds the first of the entries that are to go, and gets the others.
                on_its_way.takes();
                let others = three.entries().await;
                let is = |now: &Metrics<TokioEnv>| matched(now, 3) == Some(2);
                when(&raft, "it has one more", is).await;
                assert_eq!(log.held().purged, None);
                others.takes();
            } else {
                drop(on_its_way);
            }
            let is = |now: &Metrics<TokioEnv>| now.purged == Some(id(1, 3));
            when(&raft, "it is cut", is).await;
            assert_eq!(log.held().purged, Some(id(1, 3)));
            if !is_answered {
                // What it lacks is gone.
                let asked = three.asked().await;
                let Asked::Snapshot(meta) = &asked else {
                    panic!("{asked:?}");
                };
                assert_eq!(meta.last_log_id, Some(id(1, 4)));
            }
            raft.shutdown().await.unwrap();
        }
    });
}

/// ... but who leads no more does not make what it put off, and not when it is asked for it again either. A further one it
/// makes, and a log that grows is asked for one (`keep_bounds`).
#[test]
fn a_cut_that_was_put_off_is_not_made_by_who_leads_no_more() {
    run(async {
        let log = Log::default();
        let (raft, [mut two, _three], _on_its_way) = with_one_behind(&log).await;
        cut(&raft, 3).await;
        assert_eq!(log.held().purged, None);
        raft.trigger().heartbeat().await.unwrap();
        let higher = AppendEntriesResponse::HigherVote(Vote::<TokioEnv>::new(2, 2));
        two.heartbeat().await.answer(higher);
        let is = |now: &Metrics<TokioEnv>| now.state == ServerState::Follower;
        when(&raft, "it leads no more", is).await;
        cut(&raft, 3).await;
        assert_eq!(log.held().purged, None);
        cut(&raft, 4).await;
        assert_eq!(log.held().purged, Some(id(1, 4)));
        raft.shutdown().await.unwrap();
    });
}

/// ... and what only tells a follower how far is committed is not reported when it fails: a cut that waits meanwhile waits for
/// the append behind it too, which is why a log may be too large for two failed requests (the bounds of the simulator).
#[test]
fn a_cut_does_not_learn_that_a_commit_was_not_heard() {
    run(async {
        let log = Log::default();
        let (raft, [mut two, mut three]) = leading(&log, by_hand()).await;
        // The second follower is sent the entry before the first one commits it, so that it has still to hear of that.
        let writing = write(&raft);
        let answering = async {
            let on_its_way = three.entries().await;
            two.entries().await.takes();
            on_its_way
        };
        let ((), on_its_way) = join(writing, answering).await;
        snapshot(&raft, 2).await;
        // Its failure is reported, and the entry is to be sent again. On one thread, the connection's task goes on with what
        // it finds before the leader is told.
        drop(on_its_way);
        let commit = three.append().await;
        assert_eq!(commit.request.entries.len(), 0);
        assert_eq!(commit.request.leader_commit, Some(id(1, 2)));
        heard_all(&raft, &mut two).await;
        cut(&raft, 2).await;
        assert_eq!(log.held().purged, None);
        drop(commit);
        let entry = three.append().await;
        assert_eq!(entry.request.entries.len(), 1);
        heard_all(&raft, &mut two).await;
        assert_eq!(log.held().purged, None);
        drop(entry);
        let is = |now: &Metrics<TokioEnv>| now.purged == Some(id(1, 2));
        when(&raft, "it is cut", is).await;
        raft.shutdown().await.unwrap();
    });
}
