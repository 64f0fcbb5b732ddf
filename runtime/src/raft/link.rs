//! Connections to peers, and openraft's network on top of them.
//!
//! Every connection begins with the handshake; one on which another identity answers is closed before anything was
//! processed. A connection carries one request at a time. It is dialled by a task of its own, so that a caller's short
//! deadline does not undo a dial that takes longer; it is dropped when a request on it was given up.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use openraft_rt::{AsyncRuntime, Select2};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::id::NodeId;
use super::node::{Node, locked};
use super::tls::Wire;
use super::types::{Config, Snapshot, SnapshotData, Vote};
use super::wire::{
    self, AppendAnswer, FRAME_BYTES_MAX, HELLO_BYTES_MAX, Handshake, Hello, HelloAnswer,
    Introduction, LONELY, RefusalKind, Request, Response, SNAPSHOT_PIECE_BYTES, TransferAnswer,
    invalid,
};
use crate::env::{Env, spawn, timeout_io};

/// Idle connections kept for one peer.
const IDLE_MAX: usize = 4;
/// Dials under way to one peer.
const DIALS_MAX: usize = 4;
/// A dial with its handshake takes this long at most.
pub(super) const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// Installing a snapshot that was sent takes this long at most.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);
/// One piece of a snapshot takes this long at most.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);

/// An idle connection is not used any more after this time: the peer closes it a little later.
const IDLE_AGE_MAX: Duration = Duration::from_secs(90);

/// A connection after its handshake.
struct Connection<E: Env> {
    stream: Wire<E::Stream>,
    /// The one that was agreed on.
    protocol: u8,
    /// The process that answered.
    instance: u64,
    /// When it was used last.
    used: Duration,
}

/// All connections that this daemon dialled, by peer.
pub(super) struct Pool<E: Env>(Mutex<BTreeMap<u64, Slot<E>>>);

struct Slot<E: Env> {
    idle: Vec<Connection<E>>,
    waiting: VecDeque<oneshot::Sender<io::Result<Connection<E>>>>,
    dials: usize,
}

impl<E: Env> Default for Pool<E> {
    fn default() -> Self {
        Pool(Mutex::new(BTreeMap::new()))
    }
}

impl<E: Env> Default for Slot<E> {
    fn default() -> Self {
        Slot {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            dials: 0,
        }
    }
}

impl<E: Env> Pool<E> {
    fn with<T>(&self, peer: u64, act: impl FnOnce(&mut Slot<E>) -> T) -> T {
        act(locked(&self.0).entry(peer).or_default())
    }

    /// The idle connection to a peer that was used last.
    fn idle(&self, peer: u64) -> Option<Connection<E>> {
        let now = E::mono();
        self.with(peer, |slot| {
            slot.idle
                .retain(|connection| now < connection.used + IDLE_AGE_MAX);
            slot.idle.pop()
        })
    }

    /// Closes what is idle and disappoints who waits; dials under way still count.
    pub(super) fn clear(&self) {
        for slot in locked(&self.0).values_mut() {
            slot.idle.clear();
            slot.waiting.clear();
        }
    }
}

/// Sends a request to a peer and waits for its answer, `deadline` at most, dialling included.
pub(super) async fn call<E: Env>(
    node: &Arc<Node<E>>,
    peer: u64,
    request: &Request,
    deadline: Duration,
) -> io::Result<Response> {
    if *node.stop.borrow() {
        return Err(io::Error::new(
            io::ErrorKind::NotConnected,
            "this raft has ended",
        ));
    }
    let outcome = timeout_io::<E, _>(deadline, call_within(node, peer, request)).await;
    if outcome
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    {
        // Whatever made this one silent made the idle ones silent too.
        node.pool.with(peer, |slot| slot.idle.clear());
    }
    outcome
}

async fn call_within<E: Env>(
    node: &Arc<Node<E>>,
    peer: u64,
    request: &Request,
) -> io::Result<Response> {
    if let Some(connection) = node.pool.idle(peer) {
        match exchange::<E>(connection, request).await {
            Ok((connection, response)) => return give_back(node, peer, connection, response),
            // The peer closed it while it was idle, as when it was restarted: all older ones are as dead. Requests of
            // raft may be repeated; a message to the layer above may not.
            Err(error) if matches!(request, Request::Tell(_) | Request::Ask(_)) => {
                node.pool.with(peer, |slot| slot.idle.clear());
                return Err(error);
            }
            Err(_) => node.pool.with(peer, |slot| slot.idle.clear()),
        }
    }
    let connection = dialled(node, peer).await?;
    let (connection, response) = exchange::<E>(connection, request).await?;
    give_back(node, peer, connection, response)
}

/// Takes the answer, unless another process has the peer's identity by now.
fn give_back<E: Env>(
    node: &Arc<Node<E>>,
    peer: u64,
    connection: Connection<E>,
    response: Response,
) -> io::Result<Response> {
    if !locked(&node.peers).heard(peer, connection.instance, E::mono()) {
        return Err(displaced(peer));
    }
    deliver(node, peer, Ok(connection));
    Ok(response)
}

/// What is said on the connections of a process that is this identity's no more.
pub(super) fn displaced(peer: u64) -> io::Error {
    io::Error::other(format!("another process is node {} by now", NodeId(peer)))
}

async fn exchange<E: Env>(
    mut connection: Connection<E>,
    request: &Request,
) -> io::Result<(Connection<E>, Response)> {
    let protocol = connection.protocol;
    let frame = wire::encode_frame(request, protocol)?;
    wire::write_frame(&mut connection.stream, &frame).await?;
    let answer = wire::read_frame(&mut connection.stream, FRAME_BYTES_MAX).await?;
    connection.used = E::mono();
    Ok((connection, wire::decode_frame(&answer, protocol)?))
}

/// A connection that was not used before.
async fn dialled<E: Env>(node: &Arc<Node<E>>, peer: u64) -> io::Result<Connection<E>> {
    let (waiter, connection) = oneshot::channel();
    let dial = node.pool.with(peer, |slot| {
        slot.waiting.retain(|waiter| !waiter.is_closed());
        slot.waiting.push_back(waiter);
        let dial = slot.dials < DIALS_MAX.min(slot.waiting.len());
        if dial {
            slot.dials += 1;
        }
        dial
    });
    if dial {
        let node = node.clone();
        spawn::<E>(async move {
            let outcome = dial_peer(&node, peer).await;
            node.pool.with(peer, |slot| slot.dials -= 1);
            deliver(&node, peer, outcome);
        });
    }
    connection
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
}

/// Gives the outcome of a dial, or a connection that is free again, to whoever waits; else a connection stays idle.
fn deliver<E: Env>(node: &Arc<Node<E>>, peer: u64, mut outcome: io::Result<Connection<E>>) {
    if *node.stop.borrow() {
        return;
    }
    node.pool.with(peer, |slot| {
        while let Some(waiter) = slot.waiting.pop_front() {
            match waiter.send(outcome) {
                Ok(()) => return,
                Err(back) => outcome = back,
            }
        }
        if let Ok(connection) = outcome
            && slot.idle.len() < IDLE_MAX
        {
            slot.idle.push(connection);
        }
    });
}

/// Dials a peer's addresses in turn until the peer itself answers.
async fn dial_peer<E: Env>(node: &Arc<Node<E>>, peer: u64) -> io::Result<Connection<E>> {
    let addresses = locked(&node.peers).addresses(peer);
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        format!("no address is known of node {}", NodeId(peer)),
    );
    for address in addresses {
        match timeout_io::<E, _>(DIAL_DEADLINE, greet(node, &address, peer)).await {
            Ok((who, (stream, protocol))) => {
                return Ok(Connection {
                    stream,
                    protocol,
                    instance: who.instance,
                    used: E::mono(),
                });
            }
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Lets a newcomer into this daemon's cluster.
pub(super) async fn invite<E: Env>(node: &Arc<Node<E>>, newcomer: u64) -> io::Result<()> {
    let mut addresses = locked(&node.peers).addresses(newcomer);
    if let Some(stranger) = locked(&node.strangers).get(newcomer) {
        let answered = stranger
            .answered
            .as_ref()
            .map(|(address, _)| address.clone());
        addresses.extend(answered);
    }
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        format!("no address is known of node {}", NodeId(newcomer)),
    );
    for address in addresses {
        let hello = Hello {
            sender: node.introduction(),
            to: newcomer,
            invites: true,
        };
        match timeout_io::<E, _>(DIAL_DEADLINE, say_hello(node, &address, hello)).await {
            Ok(_) => return Ok(()),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Connects to an address and exchanges introductions; `wanted` is the identity that is meant, or 0. The caller bounds it
/// in time.
pub(super) async fn greet<E: Env>(
    node: &Arc<Node<E>>,
    address: &str,
    wanted: u64,
) -> io::Result<(Introduction, Agreed<E>)> {
    let hello = Hello {
        sender: node.introduction(),
        to: wanted,
        invites: false,
    };
    say_hello(node, address, hello).await
}

/// A connection and the protocol that was agreed on for it.
type Agreed<E> = (Wire<<E as Env>::Stream>, u8);

async fn say_hello<E: Env>(
    node: &Arc<Node<E>>,
    address: &str,
    hello: Hello,
) -> io::Result<(Introduction, Agreed<E>)> {
    let own = node.settings.release.protocols;
    let wanted = hello.to;
    let form = wire::opening(own);
    let (mut stream, mut said) = open(node, address, &hello, form).await?;
    if form != LONELY
        && said.speaks.newest == u32::from(LONELY)
        && wire::common(own, said.speaks).is_some()
        && matches!(&said.message.refusal, Some(refusal) if refusal.kind == RefusalKind::Version)
    {
        // A daemon of the release before did not understand the opening. It has its own.
        (stream, said) = open(node, address, &hello, LONELY).await?;
    }
    let Handshake {
        message: answer,
        speaks,
    } = said;
    if let Some(why) = node.impostor(answer.sender.node, address, stream.certificate().as_ref()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    // A refusal comes without one, and what was said before is as true as it was.
    if answer.remark.is_some() || answer.refusal.is_none() {
        node.note_remark(address, answer.remark);
    }
    node.judge_answer(wanted, address, &answer.sender)
        .map_err(io::Error::other)?;
    match answer.refusal {
        Some(refusal) => {
            node.refused_by(wanted, &answer.sender, &refusal);
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("refused: {}", refusal.text),
            ))
        }
        None => match wire::common(own, speaks) {
            Some(protocol) => Ok((answer.sender, (stream, protocol))),
            None => {
                let why = wire::nothing_in_common(own, speaks);
                node.tell_once(answer.sender.node, &why);
                Err(invalid(why))
            }
        },
    }
}

/// Connects, says this in this form, and reads the answer.
async fn open<E: Env>(
    node: &Arc<Node<E>>,
    address: &str,
    hello: &Hello,
    form: u8,
) -> io::Result<(Wire<E::Stream>, Handshake<HelloAnswer>)> {
    let own = node.settings.release.protocols;
    let mut stream = node.security.connect::<E>(address).await?;
    wire::write_frame(&mut stream, &wire::encode_handshake(hello, form, own)?).await?;
    let answer = wire::read_frame(&mut stream, HELLO_BYTES_MAX).await?;
    let (answer, _) = wire::decode_handshake(&answer, own)?;
    Ok((stream, answer))
}

/// Makes openraft's connections.
pub(super) struct Network<E: Env>(pub(super) Arc<Node<E>>);

/// openraft's view of one peer.
pub(super) struct Peer<E: Env> {
    node: Arc<Node<E>>,
    to: u64,
}

impl<E: Env> RaftNetworkFactory<Config<E>> for Network<E> {
    type Network = Peer<E>;

    async fn new_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> Peer<E> {
        Peer {
            node: self.0.clone(),
            to: target,
        }
    }
}

impl<E: Env> Peer<E> {
    async fn call(
        &self,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, Unreachable<Config<E>>> {
        let outcome = call(&self.node, self.to, request, deadline).await;
        outcome
            .and_then(understood)
            .map_err(|error| Unreachable::new(&error))
    }

    /// Requests that write wait for the peer's disk, which may take longer than openraft's deadline (one heartbeat).
    fn write_deadline(&self, option: &RPCOption) -> Duration {
        option.hard_ttl().max(self.node.settings.election_timeout())
    }
}

fn understood(response: Response) -> io::Result<Response> {
    match response {
        Response::Failed(reason) => Err(io::Error::other(reason)),
        other => Ok(other),
    }
}

fn unexpected<E: Env>() -> Unreachable<Config<E>> {
    Unreachable::new(&invalid(
        "the peer answered something else than it was asked",
    ))
}

impl<E: Env> RaftNetworkV2<Config<E>> for Peer<E> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Config<E>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Config<E>>, RPCError<Config<E>>> {
        let request = Request::Append {
            vote: wire::mirror_vote::<E>(&rpc.vote),
            prev: rpc.prev_log_id.as_ref().map(wire::mirror_log_id::<E>),
            entries: rpc.entries.iter().map(wire::mirror_entry::<E>).collect(),
            commit: rpc.leader_commit.as_ref().map(wire::mirror_log_id::<E>),
        };
        match self.call(&request, self.write_deadline(&option)).await? {
            Response::Append(answer) => Ok(match answer {
                AppendAnswer::Success => AppendEntriesResponse::Success,
                AppendAnswer::Partial(upto) => {
                    AppendEntriesResponse::PartialSuccess(upto.map(wire::log_id::<E>))
                }
                AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
                AppendAnswer::HigherVote(vote) => {
                    AppendEntriesResponse::HigherVote(wire::vote::<E>(vote))
                }
            }),
            _ => Err(unexpected::<E>().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Config<E>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config<E>>, RPCError<Config<E>>> {
        let request = Request::Vote {
            vote: wire::mirror_vote::<E>(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(wire::mirror_log_id::<E>),
            transfer: rpc.leadership_transfer,
        };
        self.voted(&request, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Config<E>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config<E>>, RPCError<Config<E>>> {
        let request = Request::PreVote {
            vote: wire::mirror_vote::<E>(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(wire::mirror_log_id::<E>),
        };
        self.voted(&request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<E>,
        snapshot: Snapshot<E>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Config<E>>, StreamingError<Config<E>>> {
        match E::Rt::select2(cancel, self.send_snapshot(vote, snapshot)).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(outcome) => match outcome {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Config<E>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Config<E>>, RPCError<Config<E>>> {
        let request = Request::Transfer {
            from: wire::mirror_vote::<E>(rpc.from_leader()),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().map(wire::mirror_log_id::<E>),
        };
        match self.call(&request, self.write_deadline(&option)).await? {
            Response::Transfer(answer) => Ok(match answer {
                TransferAnswer::Taken => Ok(()),
                TransferAnswer::VoteChanged { expected, actual } => {
                    Err(TransferLeaderError::VoteChanged {
                        expected: wire::vote::<E>(expected),
                        actual: wire::vote::<E>(actual),
                    })
                }
                TransferAnswer::NotFlushed { expected, actual } => {
                    Err(TransferLeaderError::LogNotFlushed {
                        expected: expected.map(wire::log_id::<E>),
                        actual: actual.map(wire::log_id::<E>),
                    })
                }
            }),
            _ => Err(unexpected::<E>().into()),
        }
    }

    /// A peer that does not answer is tried at every other heartbeat at first, and at every fourth election timeout later.
    fn backoff(&self) -> Option<Backoff> {
        let first = self.node.settings.heartbeat() * 2;
        let longest = self.node.settings.election_timeout() * 4;
        Some(Backoff::new(std::iter::successors(
            Some(first),
            move |wait| Some((*wait * 2).min(longest)),
        )))
    }
}

impl<E: Env> Peer<E> {
    async fn voted(
        &self,
        request: &Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<Config<E>>, RPCError<Config<E>>> {
        match self.call(request, self.write_deadline(option)).await? {
            Response::Vote {
                vote,
                granted,
                last,
            } => Ok(VoteResponse::new(
                wire::vote::<E>(vote),
                last.map(wire::log_id::<E>),
                granted,
            )),
            _ => Err(unexpected::<E>().into()),
        }
    }

    /// Sends a snapshot in pieces on a connection of its own, so that nothing else waits behind it.
    async fn send_snapshot(&self, vote: Vote<E>, snapshot: Snapshot<E>) -> io::Result<Vote<E>> {
        let data = snapshot.snapshot;
        let begin = Request::SnapshotBegin {
            vote: wire::mirror_vote::<E>(&vote),
            last: snapshot
                .meta
                .last_log_id
                .as_ref()
                .map(wire::mirror_log_id::<E>),
            membership: wire::mirror_stored_membership::<E>(&snapshot.meta.last_membership),
            bytes: data.len() as u64,
            digest: Sha256::digest(&data).into(),
        };
        let connection = timeout_io::<E, _>(DIAL_DEADLINE, dialled(&self.node, self.to)).await?;
        let mut connection = self.send_piece(connection, &begin, 0).await?;
        let mut offset = 0;
        for piece in data.chunks(SNAPSHOT_PIECE_BYTES) {
            let request = Request::SnapshotPiece {
                offset,
                bytes: piece.to_vec(),
            };
            offset += piece.len() as u64;
            connection = self.send_piece(connection, &request, offset).await?;
        }
        let end = Request::SnapshotEnd;
        let (connection, response) =
            timeout_io::<E, _>(INSTALL_DEADLINE, exchange(connection, &end)).await?;
        match understood(give_back(&self.node, self.to, connection, response)?)? {
            Response::SnapshotInstalled(vote) => Ok(wire::vote::<E>(vote)),
            _ => Err(invalid(
                "the peer answered something else than it was asked",
            )),
        }
    }

    async fn send_piece(
        &self,
        connection: Connection<E>,
        request: &Request,
        held: u64,
    ) -> io::Result<Connection<E>> {
        let (connection, response) =
            timeout_io::<E, _>(PIECE_DEADLINE, exchange(connection, request)).await?;
        match understood(response)? {
            Response::SnapshotHeld(count) if count == held => Ok(connection),
            _ => Err(invalid("the peer did not take a piece of the snapshot")),
        }
    }
}
