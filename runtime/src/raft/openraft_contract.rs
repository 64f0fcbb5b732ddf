//! openraft by itself, with a log and a state machine in memory: what it does where this daemon decides before it, or does
//! instead. A test that fails after openraft was moved says which of our reasons is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, TryStreamExt};
use openraft::errors::{RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::{EmptyNode, leader_id_adv, leader_id_std};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine,
};
use openraft::vote::RaftLeaderId as _;
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftNetworkFactory, RaftNetworkV2, RaftSnapshotBuilder,
    ServerState,
};
use tokio::sync::watch;

use super::types::{
    Answer, Config, Entry, LogId, Membership, Proposal, Snapshot, SnapshotData, SnapshotMeta,
    StoredMembership, Vote, metrics_of,
};
use super::wire::{self, LogIdV1, VoteV1};
use crate::env::{DedicatedRuntime, Env as _, TokioEnv, timeout};

type C = Config<TokioEnv>;
type Raft = openraft::Raft<C, State>;

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
        Ok(None)
    }
}

impl RaftSnapshotBuilder<C> for State {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot<TokioEnv>, io::Error> {
        Ok(Snapshot::<TokioEnv> {
            meta: SnapshotMeta::<TokioEnv> {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
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

async fn start_with(
    log: &Log,
    state: State,
    network: Nobody,
    config: openraft::Config,
) -> Result<Raft, String> {
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
            fails: false,
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
