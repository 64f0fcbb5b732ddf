//! The raft port: handshakes, then requests, one at a time on each connection.
//!
//! Everything that comes in is bounded: the connections, the time for a handshake, the bytes of a frame, the time for its
//! rest once it began, the snapshot a peer may send. A peer that breaks a bound loses its connection; raft does not notice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest,
};
use openraft_rt::{AsyncRuntime, Select2};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::PeerMessage;
use super::callers::{self, Callers};
use super::handle::note_progress;
use super::id::{LogPosition, NodeId};
use super::incoming::{Incoming, Place};
use super::link::displaced;
use super::log::{LogStore, tell_of_promise};
use super::machine::{self, LEADER_BYTES};
use super::node::{Node, Verdict, locked};
use super::sight;
use super::tls::Wire;
use super::types::{Raft, Snapshot, SnapshotMeta};
use super::wire::{
    self, AppendAnswer, FRAME_BYTES_MAX, HELLO_BYTES_MAX, Handshake, Hello, HelloAnswer, LogIdV1,
    Refusal, RefusalKind, Request, Response, SNAPSHOT_BYTES_MAX, TransferAnswer, VoteV1, invalid,
};
use crate::env::{Env, Mutant, sleep, spawn, timeout, timeout_io};

/// Connections of members open at one time.
const CONNECTIONS_MAX: usize = 256;
/// A connection introduces itself within this time. No test waits for it to pass, and a busy machine must not make one do
/// so.
const HELLO_DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 3 });
/// The rest of a frame follows its beginning within this time; an answer is taken within this time.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// A connection on which nothing came for this long is closed.
const IDLE_DEADLINE: Duration = Duration::from_secs(120);
/// The layer above answers a peer's question within this time.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// Terms and indexes beyond this are not what a daemon sends; arithmetic on them could overflow.
const NUMBER_MAX: u64 = 1 << 60;

/// Accepts connections until raft ends.
pub(super) async fn serve<E: Env>(node: Arc<Node<E>>, mut listener: E::Listener) {
    let mut stop = node.stop.subscribe();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let callers = Callers::default();
    spawn::<E>(callers.clone().know_members(node.clone()));
    loop {
        let accepted =
            match E::Rt::select2(stop.wait_for(|stop| *stop), E::accept(&mut listener)).await {
                Select2::First(_) => return,
                Select2::Second(accepted) => accepted,
            };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(entered) = callers.enter::<E>(&peer) {
                    let serving = serve_until_stop(
                        node.clone(),
                        stream,
                        peer,
                        (callers.clone(), entered),
                        room.clone(),
                    );
                    spawn::<E>(serving);
                }
            }
            Err(error) => {
                // Out of file descriptors, for one: try again, but not in a hot loop.
                tracing::warn!("raft connection not accepted: {error}");
                sleep::<E>(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_until_stop<E: Env>(
    node: Arc<Node<E>>,
    stream: E::Stream,
    peer: String,
    (callers, entered): (Callers, callers::Caller),
    room: Arc<Semaphore>,
) {
    let mut stop = node.stop.subscribe();
    let serving = async {
        let accepted = timeout_io::<E, _>(HELLO_DEADLINE, node.security.accept::<E>(stream)).await;
        let mut stream = accepted.inspect_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                callers.came_without_tls::<E>(&peer, &error.to_string());
            }
        })?;
        let from =
            timeout_io::<E, _>(HELLO_DEADLINE, shake_hands(&node, &mut stream, &peer)).await?;
        drop(entered);
        let Some(caller) = from else {
            return Ok(());
        };
        let _place = room.try_acquire().map_err(|_| {
            io::Error::other(format!("{CONNECTIONS_MAX} members' connections are open"))
        })?;
        serve_member(&node, stream, caller).await
    };
    if let Select2::Second(Err(error)) = E::Rt::select2(stop.wait_for(|stop| *stop), serving).await
    {
        tracing::debug!(peer, "raft connection ended: {error}");
    }
}

/// Who introduced itself as a member.
struct Caller {
    node: u64,
    /// Its process.
    instance: u64,
    protocol: u8,
}

async fn serve_member<E: Env>(
    node: &Arc<Node<E>>,
    mut stream: Wire<E::Stream>,
    caller: Caller,
) -> io::Result<()> {
    let Caller {
        node: from,
        instance,
        protocol,
    } = caller;
    let mut snapshot = None;
    loop {
        let Some(length) = timeout_io::<E, _>(
            IDLE_DEADLINE,
            wire::read_length(&mut stream, FRAME_BYTES_MAX),
        )
        .await?
        else {
            return Ok(());
        };
        let frame =
            timeout_io::<E, _>(FRAME_DEADLINE, wire::read_rest(&mut stream, length)).await?;
        let request: Request = wire::decode_frame(&frame, protocol)?;
        check_numbers(&request)?;
        if !locked(&node.peers).heard(from, instance, E::mono()) {
            return Err(displaced(from));
        }
        let response = answer(node, from, request, &mut snapshot).await?;
        let frame = wire::encode_frame(&response, protocol)?;
        timeout_io::<E, _>(FRAME_DEADLINE, wire::write_frame(&mut stream, &frame)).await?;
    }
}

/// Whose requests follow; `None` when none are to follow.
async fn shake_hands<E: Env>(
    node: &Arc<Node<E>>,
    stream: &mut Wire<E::Stream>,
    peer: &str,
) -> io::Result<Option<Caller>> {
    let own = node.settings.release.protocols;
    let frame = wire::read_frame(stream, HELLO_BYTES_MAX).await?;
    let version = |text| {
        Verdict::Refused(Refusal {
            kind: RefusalKind::Version,
            text,
        })
    };
    let mut agreed = None;
    let mut is_told = false;
    // It is answered in the form in which it called; who used none that is known is told so in the own one.
    let mut answers_in = wire::opening(own);
    let mut instance = 0;
    let (caller, verdict) = match wire::decode_handshake::<Hello>(&frame, own) {
        Ok((said, form)) => {
            let Handshake {
                message: hello,
                speaks,
            } = said;
            answers_in = form;
            agreed = wire::common(own, speaks);
            let last = hello
                .sender
                .last
                .map_or(0, |last| last.index.max(last.term));
            if hello.sender.term.max(last).max(hello.sender.boot) > NUMBER_MAX {
                return Err(invalid("an introduction with impossible numbers"));
            }
            let vouched = stream.vouches_for(&hello.sender.advertise).and_then(|()| {
                let certificate = stream.certificate();
                let impostor = node.impostor(hello.sender.node, peer, certificate.as_ref());
                is_told = impostor.is_some();
                impostor.map_or(Ok(()), Err)
            });
            let verdict = match vouched {
                Ok(()) if agreed.is_none() => version(wire::nothing_in_common(own, speaks)),
                Ok(()) => judge(node, &hello).await,
                Err(text) => Verdict::Refused(Refusal {
                    kind: RefusalKind::OtherNode,
                    text,
                }),
            };
            instance = hello.sender.instance;
            (hello.sender.node, verdict)
        }
        Err(error) => (0, version(format!("the call was not understood: {error}"))),
    };
    let mut unheard = None;
    let (refusal, from) = match verdict {
        Verdict::Accepted => {
            let caller = |protocol| Caller {
                node: caller,
                instance,
                protocol,
            };
            (None, agreed.map(caller))
        }
        Verdict::Introduced(why) => {
            unheard = why;
            (None, None)
        }
        Verdict::Refused(why) => {
            if !is_told && node.is_news(caller, &why.text) {
                tracing::info!(peer, from = %NodeId(caller), "raft connection refused: {}", why.text);
            }
            (Some(why), None)
        }
    };
    let remark = locked(&node.explained).get(&caller).cloned().or(unheard);
    // Nobody is let in where no leader can be.
    let remark = remark.map(|remark| sight::memory_lost(node).unwrap_or(remark));
    let answer = HelloAnswer {
        sender: node.introduction(),
        refusal,
        remark,
    };
    let answer = wire::encode_handshake(&answer, answers_in, own)?;
    wire::write_frame(stream, &answer).await?;
    Ok(from)
}

/// Joins whoever invites this daemon, and judges.
async fn judge<E: Env>(node: &Arc<Node<E>>, hello: &Hello) -> Verdict {
    if hello.invites
        && hello.to == node.id
        && let Some(cluster) = hello.sender.cluster
        && let Err(text) = node.join(cluster).await
    {
        return Verdict::Refused(Refusal {
            kind: RefusalKind::OtherCluster,
            text,
        });
    }
    node.judge_hello(hello)
}

/// What no member sends is not done; it is told of once for as long as it goes on. `kind` is the same for all of a sort.
fn disobey<E: Env>(node: &Node<E>, from: u64, kind: &'static str, what: &str) -> Response {
    let why = format!("node {} sent {what}; it is not obeyed", NodeId(from));
    if node.is_news(from, kind) {
        tracing::warn!("raft request refused: {why}");
    }
    Response::Failed(why)
}

/// Serves one request. An error ends the connection.
async fn answer<E: Env>(
    node: &Arc<Node<E>>,
    from: u64,
    request: Request,
    snapshot: &mut Option<Place>,
) -> io::Result<Response> {
    if let Some(named) = named_in(&request)
        && named != from
    {
        let what = format!("a request in the name of node {}", NodeId(named));
        return Ok(disobey(node, from, "it speaks for others", &what));
    }
    if let Some(what) = contradiction(&request) {
        // Pieces that follow are not of what was begun before.
        *snapshot = None;
        return Ok(disobey(node, from, what, what));
    }
    let Some(raft) = node.raft.get() else {
        return Ok(Response::Failed("raft is being started".to_owned()));
    };
    match request {
        Request::Append {
            vote,
            prev,
            entries,
            commit,
        } => append(node, raft, from, vote, prev, entries, commit).await,
        Request::Vote {
            vote,
            last,
            transfer,
        } => {
            // What a leader knows of its followers' logs is gone with its term.
            note_progress(node, raft);
            node.saw(from, vote.term, None);
            if withholds_votes(node) || is_filtered(node, from) {
                return Ok(withheld(node));
            }
            let mut rpc = VoteRequest::new(wire::vote::<E>(vote), last.map(wire::log_id::<E>));
            rpc.leadership_transfer = transfer;
            let outcome = raft.vote(rpc).await;
            if outcome.as_ref().is_ok_and(|answer| answer.vote_granted) {
                tell_of_promise(vote, node.id);
            }
            Ok(voted::<E>(outcome))
        }
        Request::PreVote { vote, last } => {
            if withholds_votes(node) || is_filtered(node, from) {
                return Ok(withheld(node));
            }
            let rpc = VoteRequest::new(wire::vote::<E>(vote), last.map(wire::log_id::<E>));
            Ok(voted::<E>(raft.pre_vote(rpc).await))
        }
        Request::Transfer {
            from: vote,
            to,
            last,
        } => {
            if withholds_votes(node) {
                return Ok(Response::Failed(
                    "this node has just been started".to_owned(),
                ));
            }
            let rpc =
                TransferLeaderRequest::new(wire::vote::<E>(vote), to, last.map(wire::log_id::<E>));
            Ok(match raft.handle_transfer_leader(rpc).await {
                Ok(Ok(())) => Response::Transfer(TransferAnswer::Taken),
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
                    Response::Transfer(TransferAnswer::VoteChanged {
                        expected: wire::mirror_vote::<E>(&expected),
                        actual: wire::mirror_vote::<E>(&actual),
                    })
                }
                Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
                    Response::Transfer(TransferAnswer::NotFlushed {
                        expected: expected.as_ref().map(wire::mirror_log_id::<E>),
                        actual: actual.as_ref().map(wire::mirror_log_id::<E>),
                    })
                }
                Err(error) => Response::Failed(error.to_string()),
            })
        }
        Request::SnapshotBegin {
            vote,
            last,
            membership,
            bytes,
            digest,
        } => {
            if bytes > SNAPSHOT_BYTES_MAX {
                return Err(invalid(format!(
                    "a snapshot of {bytes} bytes; allowed are {SNAPSHOT_BYTES_MAX}"
                )));
            }
            let Some(last) = last else {
                return Err(invalid("a snapshot of no entries"));
            };
            let incoming = Incoming {
                vote,
                last,
                membership,
                bytes,
                digest,
                data: Vec::new(),
            };
            *snapshot = Some(node.receiving.begin(from, incoming));
            Ok(Response::SnapshotHeld(0))
        }
        Request::SnapshotPiece { offset, bytes } => {
            let place = snapshot
                .as_ref()
                .ok_or_else(|| invalid("a piece of no snapshot"))?;
            match place.push(offset, &bytes) {
                Some(Ok(held)) => Ok(Response::SnapshotHeld(held)),
                Some(Err(())) => Err(invalid("a piece of a snapshot that does not fit")),
                None => Ok(gave_way()),
            }
        }
        Request::SnapshotEnd => {
            let place = snapshot
                .take()
                .ok_or_else(|| invalid("the end of no snapshot"))?;
            match place.take() {
                Some(incoming) => install(node, raft, incoming).await,
                None => Ok(gave_way()),
            }
        }
        Request::Tell(bytes) => {
            let message = PeerMessage {
                from: NodeId(from),
                bytes,
                reply: None,
            };
            Ok(match node.inbox.try_send(message) {
                Ok(()) => Response::Told,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Response::Failed("too many messages wait".to_owned())
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    Response::Failed("nobody takes messages".to_owned())
                }
            })
        }
        Request::Ask(bytes) => {
            let (reply, answer) = oneshot::channel();
            let message = PeerMessage {
                from: NodeId(from),
                bytes,
                reply: Some(reply),
            };
            if node.inbox.try_send(message).is_err() {
                return Ok(Response::Failed("too many messages wait".to_owned()));
            }
            let answered = timeout_io::<E, _>(ASK_DEADLINE, async {
                answer
                    .await
                    .map_err(|_| io::Error::other("the question was not answered"))
            })
            .await;
            Ok(match answered {
                Ok(bytes) => Response::Answer(bytes),
                Err(error) => Response::Failed(error.to_string()),
            })
        }
    }
}

async fn append<E: Env>(
    node: &Arc<Node<E>>,
    raft: &Raft<E>,
    from: u64,
    vote: VoteV1,
    prev: Option<LogIdV1>,
    entries: Vec<wire::EntryV1>,
    commit: Option<LogIdV1>,
) -> io::Result<Response> {
    let mut next = prev.map_or(0, |prev| prev.index + 1);
    for entry in &entries {
        if entry.id.index != next {
            return Err(invalid("entries that do not follow one another"));
        }
        next = entry.id.index + 1;
    }
    let rpc = AppendEntriesRequest {
        vote: wire::vote::<E>(vote),
        prev_log_id: prev.map(wire::log_id::<E>),
        entries: entries
            .into_iter()
            .map(wire::entry::<E>)
            .collect::<io::Result<_>>()?,
        leader_commit: commit.map(wire::log_id::<E>),
    };
    let answer = match raft.append_entries(rpc).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Response::Failed(error.to_string())),
    };
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        *locked(&node.leader_heard) = Some((from, E::mono()));
        node.saw(from, vote.term, None);
    }
    Ok(Response::Append(match answer {
        AppendEntriesResponse::Success => AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(upto) => {
            AppendAnswer::Partial(upto.as_ref().map(wire::mirror_log_id::<E>))
        }
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => {
            AppendAnswer::HigherVote(wire::mirror_vote::<E>(&vote))
        }
    }))
}

fn gave_way() -> Response {
    Response::Failed("the snapshot gave way to later ones, it is to be sent again".to_owned())
}

async fn install<E: Env>(
    node: &Node<E>,
    raft: &Raft<E>,
    incoming: Incoming,
) -> io::Result<Response> {
    let Incoming {
        vote,
        last,
        membership,
        bytes,
        digest,
        data,
    } = incoming;
    let Ok(_installing) = node.installing.try_lock() else {
        return Ok(Response::Failed(
            "another snapshot is being installed".to_owned(),
        ));
    };
    let (check_image, reads) = (node.settings.check_image, node.settings.release.reads);
    // Whether the driver can read it is known before it replaces the file from which this daemon starts.
    let (data, checked) = E::blocking(move || {
        let found: [u8; 32] = Sha256::digest(&data).into();
        let is_whole = data.len() as u64 == bytes && found == digest;
        let checked = is_whole.then(|| {
            let (leader, image) = machine::parts(&data).map_err(|error| error.to_string())?;
            let at = LogPosition {
                term: last.term,
                node: NodeId(leader),
                index: last.index,
            };
            check_image(image, at, reads)
        });
        (data, checked)
    })
    .await;
    match checked {
        None => return Err(invalid("a snapshot that does not match its digest")),
        Some(Ok(())) => {}
        Some(Err(why)) => {
            let why = format!(
                "the snapshot up to entry {} cannot be read: {why}; it is not installed",
                last.index
            );
            tracing::warn!("{why}");
            return Ok(Response::Failed(why));
        }
    }
    let meta = SnapshotMeta::<E> {
        last_log_id: Some(wire::log_id::<E>(last)),
        last_membership: wire::stored_membership::<E>(membership)?,
    };
    let committed = raft.with_raft_state(|state| state.local_committed().copied());
    let committed = match committed.await {
        Ok(committed) => committed.as_ref().map(wire::mirror_log_id::<E>),
        Err(error) => return Ok(Response::Failed(error.to_string())),
    };
    if let Some(committed) = committed
        && rewrites(last, committed)
    {
        let why = format!(
            "the snapshot ends with entry {} of term {}, and here entry {} of term {} is committed; it is not installed",
            last.index, last.term, committed.index, committed.term
        );
        tracing::warn!("{why}");
        return Ok(Response::Failed(why));
    }
    // Said first: whoever sent it may not wait for the answer.
    tracing::info!("a snapshot was received, up to entry {}", last.index);
    let installed = raft
        .install_full_snapshot(
            wire::vote::<E>(vote),
            Snapshot::<E> {
                meta,
                snapshot: data,
            },
        )
        .await;
    let response = match installed {
        Ok(response) => response,
        Err(error) => return Ok(Response::Failed(error.to_string())),
    };
    let answered = wire::mirror_vote::<E>(&response.vote);
    // One that tells nothing new is not installed, and answered at once, while the entries that it covers may still be on their
    // way to the disk; the leader counts all of them as held here. Of one that is refused for a higher vote nothing is on its
    // way.
    let held = node.snapshot.newest().and_then(|head| head.last);
    if answered == vote
        && held < Some(last)
        && let Err(why) = flushed(&node.store, last.index, FRAME_DEADLINE).await
    {
        return Ok(Response::Failed(why));
    }
    Ok(Response::SnapshotInstalled(answered))
}

/// Waits until the entry at `index` is on the disk; why it is not.
async fn flushed<E: Env>(
    store: &LogStore<E>,
    index: u64,
    deadline: Duration,
) -> Result<(), String> {
    match timeout::<E, _>(deadline, store.flushed_to(index)).await {
        Some(waited) => waited.map_err(|error| error.to_string()),
        None => Err(format!(
            "the entries that the snapshot covers, up to {index}, were not on the disk within {} ms",
            deadline.as_millis()
        )),
    }
}

/// What a request is that no leader sends, since no log holds it. openraft takes some of it for a fault of this process, and
/// ends it.
pub(super) fn contradiction(request: &Request) -> Option<&'static str> {
    match request {
        Request::Append {
            vote,
            prev,
            entries,
            commit,
        } => {
            let ids = prev.iter().chain(entries.iter().map(|entry| &entry.id));
            let terms = ids.map(|id| id.term);
            let is_later = |term: u64| term > vote.term;
            if !vote.committed {
                Some("entries without being elected")
            } else if !terms.clone().is_sorted() {
                Some("entries whose terms fall")
            } else if terms.chain(commit.map(|id| id.term)).any(is_later) {
                Some("entries of a later term than its own")
            } else {
                None
            }
        }
        Request::SnapshotBegin {
            vote,
            last,
            membership,
            bytes,
            ..
        } => {
            let Some(last) = last else {
                // A leader sends one in place of entries that it has cut off.
                return Some("a snapshot of no entries");
            };
            let is_beyond = |at: LogIdV1| at.term > last.term || at.index > last.index;
            if !vote.committed {
                Some("a snapshot without being elected")
            } else if last.term > vote.term {
                Some("a snapshot of a later term than its own")
            } else if membership.at.is_some_and(is_beyond) {
                Some("a snapshot with members of a later entry")
            } else if *bytes < LEADER_BYTES as u64 {
                Some("a snapshot that is too short")
            } else {
                None
            }
        }
        Request::Vote { .. }
        | Request::PreVote { .. }
        | Request::Transfer { .. }
        | Request::SnapshotPiece { .. }
        | Request::SnapshotEnd
        | Request::Tell(_)
        | Request::Ask(_) => None,
    }
}

/// Whether a snapshot up to `last` has another entry where one is committed: it is of a later term, and no further.
fn rewrites(last: LogIdV1, committed: LogIdV1) -> bool {
    last > committed && last.index <= committed.index
}

/// In whose name a request is made, where it decides who leads. Everybody speaks for itself: a candidate and a leader send
/// their own vote, also with a snapshot and to the one that is to take over, and nobody passes on another's.
fn named_in(request: &Request) -> Option<u64> {
    match request {
        Request::Append { vote, .. }
        | Request::Vote { vote, .. }
        | Request::PreVote { vote, .. }
        | Request::Transfer { from: vote, .. }
        | Request::SnapshotBegin { vote, .. } => Some(vote.node),
        // What was begun was checked.
        Request::SnapshotPiece { .. }
        | Request::SnapshotEnd
        | Request::Tell(_)
        | Request::Ask(_) => None,
    }
}

/// openraft restores the leader's lease as zero at a start: until it must have run out, this voter promises nothing, or a
/// leader that it acknowledged before the restart could still believe in it.
fn withholds_votes<E: Env>(node: &Node<E>) -> bool {
    E::mono() < node.votes_from && !E::has(Mutant::EarlyVotes)
}

/// Never: a voter that missed a change of members would refuse the only one that can lead.
fn is_filtered<E: Env>(node: &Node<E>, candidate: u64) -> bool {
    E::has(Mutant::FilteredVotes) && {
        let members = sight::members(node);
        !members.is_empty() && !members.contains(&candidate)
    }
}

fn withheld<E: Env>(node: &Node<E>) -> Response {
    let durable = node.store.durable();
    let vote = durable.vote.unwrap_or(VoteV1 {
        term: 0,
        node: node.id,
        committed: false,
    });
    Response::Vote {
        vote,
        granted: false,
        last: durable.last,
    }
}

fn voted<E: Env>(
    outcome: Result<
        openraft::raft::VoteResponse<super::types::Config<E>>,
        openraft::errors::RaftError<super::types::Config<E>>,
    >,
) -> Response {
    match outcome {
        Ok(response) => Response::Vote {
            vote: wire::mirror_vote::<E>(&response.vote),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(wire::mirror_log_id::<E>),
        },
        Err(error) => Response::Failed(error.to_string()),
    }
}

pub(super) fn check_numbers(request: &Request) -> io::Result<()> {
    let id =
        |id: &Option<LogIdV1>| id.is_none_or(|id| id.term <= NUMBER_MAX && id.index <= NUMBER_MAX);
    let vote = |vote: &VoteV1| vote.term <= NUMBER_MAX;
    let fine = match request {
        Request::Append {
            vote: by,
            prev,
            entries,
            commit,
        } => vote(by) && id(prev) && id(commit) && entries.iter().all(|entry| id(&Some(entry.id))),
        Request::Vote { vote: by, last, .. } | Request::PreVote { vote: by, last } => {
            vote(by) && id(last)
        }
        Request::Transfer { from, last, .. } => vote(from) && id(last),
        Request::SnapshotBegin {
            vote: by,
            last,
            membership,
            ..
        } => vote(by) && id(last) && id(&membership.at),
        Request::SnapshotPiece { .. }
        | Request::SnapshotEnd
        | Request::Tell(_)
        | Request::Ask(_) => true,
    };
    if fine {
        Ok(())
    } else {
        Err(invalid("a request with impossible numbers"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::env::TokioEnv;
    use crate::raft::test_folder::Folder;
    use crate::raft::wire::{EntryV1, MembershipV1, PayloadV1, StoredMembershipV1};

    const fn id(term: u64, index: u64) -> LogIdV1 {
        LogIdV1 { term, index }
    }

    fn vote(term: u64, committed: bool) -> VoteV1 {
        VoteV1 {
            term,
            node: 7,
            committed,
        }
    }

    /// Entries of these terms that follow `prev`.
    fn append(by: VoteV1, prev: Option<LogIdV1>, terms: &[u64], commit: LogIdV1) -> Request {
        let first = prev.map_or(0, |prev| prev.index + 1);
        let entry = |(term, index): (&u64, u64)| EntryV1 {
            id: id(*term, index),
            payload: PayloadV1::Blank,
        };
        Request::Append {
            vote: by,
            prev,
            entries: terms.iter().zip(first..).map(entry).collect(),
            commit: Some(commit),
        }
    }

    fn snapshot(
        by: VoteV1,
        last: Option<LogIdV1>,
        members: Option<LogIdV1>,
        bytes: u64,
    ) -> Request {
        Request::SnapshotBegin {
            vote: by,
            last,
            membership: StoredMembershipV1 {
                at: members,
                membership: MembershipV1 {
                    voters: vec![BTreeSet::from([7])],
                    members: BTreeSet::from([7]),
                },
            },
            bytes,
            digest: [0; 32],
        }
    }

    #[track_caller]
    fn check(request: &Request, wanted: Option<&str>) {
        assert_eq!(contradiction(request), wanted, "{request:?}");
    }

    #[test]
    fn entries_that_no_log_holds_are_named() {
        let (by, prev) = (vote(3, true), Some(id(2, 4)));
        check(&append(by, None, &[0, 1, 3], id(3, 2)), None);
        check(&append(by, prev, &[2, 3, 3], id(2, 4)), None);
        check(&append(by, prev, &[], id(3, 9)), None);
        let unelected = Some("entries without being elected");
        check(&append(vote(3, false), prev, &[3], id(2, 4)), unelected);
        let falling = Some("entries whose terms fall");
        check(&append(by, prev, &[1], id(2, 4)), falling);
        check(&append(by, None, &[0, 2, 1], id(0, 0)), falling);
        let later = Some("entries of a later term than its own");
        check(&append(by, Some(id(4, 4)), &[], id(2, 4)), later);
        check(&append(by, prev, &[3, 4], id(2, 4)), later);
        check(&append(by, prev, &[3], id(4, 4)), later);
    }

    #[test]
    fn a_snapshot_that_no_leader_has_is_named() {
        let (by, last) = (vote(3, true), Some(id(3, 9)));
        check(&snapshot(by, last, last, 8), None);
        check(&snapshot(by, Some(id(2, 9)), Some(id(1, 3)), 8), None);
        check(&snapshot(by, last, None, 8), None);
        check(
            &snapshot(by, None, None, 8),
            Some("a snapshot of no entries"),
        );
        check(
            &snapshot(vote(3, false), last, last, 8),
            Some("a snapshot without being elected"),
        );
        check(
            &snapshot(by, Some(id(4, 9)), last, 8),
            Some("a snapshot of a later term than its own"),
        );
        let members = Some("a snapshot with members of a later entry");
        check(&snapshot(by, last, Some(id(3, 10)), 8), members);
        check(&snapshot(by, Some(id(2, 9)), Some(id(3, 9)), 8), members);
        check(
            &snapshot(by, last, last, 7),
            Some("a snapshot that is too short"),
        );
    }

    #[test]
    fn what_is_committed_is_not_written_anew() {
        let committed = id(2, 5);
        for (last, wanted) in [
            (id(2, 5), false),
            (id(1, 5), false),
            (id(2, 6), false),
            (id(3, 6), false),
            (id(3, 5), true),
            (id(3, 0), true),
        ] {
            assert_eq!(rewrites(last, committed), wanted, "{last:?}");
        }
    }

    /// The entries of a snapshot may never come to the disk: the connection is not held by that, and the leader is told.
    #[tokio::test]
    async fn who_sent_a_snapshot_does_not_wait_for_ever() {
        let folder = Folder::make("never-flushed");
        let opened = LogStore::<TokioEnv>::open(&folder.0, 7, true)
            .await
            .unwrap();
        let why = flushed(&opened.store, 5, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert!(
            why.contains("up to 5, were not on the disk within 1 ms"),
            "{why}"
        );
        opened.store.close().await;
        assert!(flushed(&opened.store, 5, FRAME_DEADLINE).await.is_err());
    }
}
