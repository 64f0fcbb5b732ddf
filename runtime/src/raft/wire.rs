//! What travels between daemons and what the log keeps: mirror types, and the frames around them.
//!
//! The encodings are a contract of ours, not openraft's: each frame and each stored entry begins with a version byte, and
//! the types below are changed only by adding a version. Input from a peer is bounded before it is read and checked while
//! it is converted; nothing here panics on it.
//!
//! Two daemons agree on the newest protocol that both speak, before anything else is said. From protocol 3 on a handshake
//! states the oldest and the newest that its sender speaks, in a form that is never changed but by what is put behind its
//! end; all frames after it begin with the protocol agreed on. Protocol 2 knows only itself: a handshake in its form means
//! that its sender speaks nothing else, and it has the same types.

use std::collections::BTreeSet;
use std::io;

use openraft::entry::RaftEntry;
use openraft::impls::EmptyNode;
use openraft::vote::leader_id_std::CommittedLeaderId;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use orchestrator_core::replicated::Protocols;

use super::id::NodeId;
use super::types::{Entry, LogId, Membership, Proposal, StoredMembership, Vote};
use crate::env::Env;

/// The protocols that this release speaks. An old one is given up by a release only after the release before spoke a later
/// one: a rolling upgrade passes through both.
pub const PROTOCOLS: Protocols = Protocols {
    oldest: 2,
    newest: 3,
};
/// The protocol that only knows itself.
pub(super) const LONELY: u8 = 2;
/// The form of a handshake that states what its sender speaks, in whatever protocol: the first one that had it.
pub(super) const HANDSHAKE: u8 = 3;
/// The version of a stored entry.
const ENTRY_FORMAT: u8 = 1;
/// Bytes of one frame after its length, at most.
pub(super) const FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of a handshake frame, at most: what a stranger may make this daemon hold.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 10;
/// Bytes of entries that one append request carries, at most (one entry may exceed it, up to [`COMMAND_BYTES_MAX`]).
pub(super) const APPEND_BYTES_MAX: usize = 2 << 20;
/// Bytes of one command, at most. Leaves room for the request around it.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Bytes of one piece of a snapshot on the wire.
pub(super) const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;
/// Bytes of a snapshot that a daemon accepts, from a peer or from a file, at most.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Term and index of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LogIdV1 {
    pub(super) term: u64,
    pub(super) index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoteV1 {
    pub(super) term: u64,
    pub(super) node: u64,
    pub(super) committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MembershipV1 {
    /// Voters: one set, or two while a change is under way.
    pub(super) voters: Vec<BTreeSet<u64>>,
    /// Voters and learners.
    pub(super) members: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMembershipV1 {
    pub(super) at: Option<LogIdV1>,
    pub(super) membership: MembershipV1,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PayloadV1 {
    Blank,
    Command { leader: u64, command: Vec<u8> },
    Membership(MembershipV1),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryV1 {
    pub(super) id: LogIdV1,
    pub(super) payload: PayloadV1,
}

/// Opens every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) sender: Introduction,
    /// The identity that is meant, or 0: "whoever you are, introduce yourself", after which the connection ends.
    pub(super) to: u64,
    /// The sender lets the one that is meant into its cluster.
    pub(super) invites: bool,
}

/// The other side's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HelloAnswer {
    pub(super) sender: Introduction,
    /// Why nothing that follows on this connection is processed; `None`: go on.
    pub(super) refusal: Option<Refusal>,
    /// Why the one who dialled is no member, as far as the other side knows.
    pub(super) remark: Option<String>,
}

/// Why a daemon does not listen to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) kind: RefusalKind,
    /// A sentence for the log and the status.
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RefusalKind {
    /// Another identity was meant.
    OtherNode,
    /// The two do not belong to one cluster.
    OtherCluster,
    /// The caller's identity went back: it must never be used again.
    WentBack,
    /// Another process runs under the caller's identity.
    Twice,
    /// The caller was not understood.
    Version,
}

/// What a daemon says of itself at the beginning of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) node: u64,
    /// Where it belongs; of one that belongs nowhere, and cannot be let in where its list leads to, where its backend belongs.
    pub(super) cluster: Option<[u8; 32]>,
    pub(super) boot: u64,
    /// Drawn at each start: tells two processes with one identity and one boot number apart.
    pub(super) instance: u64,
    /// Durable, like the next field.
    pub(super) term: u64,
    pub(super) last: Option<LogIdV1>,
    /// Where this daemon says it is reached by raft.
    pub(super) advertise: String,
    /// Where this daemon says it is reached by HTTP.
    pub(super) http_uri: String,
    /// The newest version of commands and snapshots it reads.
    pub(super) version: u32,
    /// Neither log nor vote nor a cluster's backend: may take part in a first formation.
    pub(super) empty: bool,
    /// The identities its list of nodes leads to, sorted; empty until all are known.
    pub(super) listed: Vec<u64>,
}

impl Introduction {
    /// It takes part in raft: one whose backend is all that it has of a cluster holds neither a log nor a vote.
    pub(super) const fn has_memory(&self) -> bool {
        self.term > 0 || self.last.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Append {
        vote: VoteV1,
        prev: Option<LogIdV1>,
        entries: Vec<EntryV1>,
        commit: Option<LogIdV1>,
    },
    Vote {
        vote: VoteV1,
        last: Option<LogIdV1>,
        transfer: bool,
    },
    PreVote {
        vote: VoteV1,
        last: Option<LogIdV1>,
    },
    Transfer {
        from: VoteV1,
        to: u64,
        last: Option<LogIdV1>,
    },
    SnapshotBegin {
        vote: VoteV1,
        last: Option<LogIdV1>,
        membership: StoredMembershipV1,
        bytes: u64,
        digest: [u8; 32],
    },
    SnapshotPiece {
        offset: u64,
        bytes: Vec<u8>,
    },
    SnapshotEnd,
    /// A message of the layer above that expects no answer.
    Tell(Vec<u8>),
    /// A message of the layer above that expects one.
    Ask(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    Append(AppendAnswer),
    Vote {
        vote: VoteV1,
        granted: bool,
        last: Option<LogIdV1>,
    },
    Transfer(TransferAnswer),
    /// A piece was taken: all bytes up to here are held.
    SnapshotHeld(u64),
    SnapshotInstalled(VoteV1),
    Told,
    Answer(Vec<u8>),
    /// The request was understood and could not be served.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    Success,
    Partial(Option<LogIdV1>),
    Conflict,
    HigherVote(VoteV1),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TransferAnswer {
    Taken,
    VoteChanged {
        expected: VoteV1,
        actual: VoteV1,
    },
    NotFlushed {
        expected: Option<LogIdV1>,
        actual: Option<LogIdV1>,
    },
}

/// The newest protocol that both speak.
pub(super) fn common(own: Protocols, theirs: Protocols) -> Option<u8> {
    let newest = own.newest.min(theirs.newest);
    let oldest = own.oldest.max(theirs.oldest);
    (oldest <= newest)
        .then_some(newest)
        .and_then(|newest| u8::try_from(newest).ok())
}

/// Why two daemons cannot talk, for both of them; the first is who says it.
pub(super) fn nothing_in_common(own: Protocols, theirs: Protocols) -> String {
    let older = if own.newest < theirs.oldest {
        "this daemon"
    } else {
        "the other"
    };
    format!(
        "this daemon speaks raft protocols {} to {}, the other {} to {}: they have none in common; upgrade {older}",
        own.oldest, own.newest, theirs.oldest, theirs.newest
    )
}

/// What a handshake said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handshake<T> {
    pub(super) message: T,
    /// What its sender speaks.
    pub(super) speaks: Protocols,
}

/// The form of a handshake that a daemon opens a connection with.
pub(super) fn opening(own: Protocols) -> u8 {
    if own.newest < u32::from(HANDSHAKE) {
        LONELY
    } else {
        HANDSHAKE
    }
}

/// A frame of a handshake in one of its two forms.
pub(super) fn encode_handshake<T: Serialize>(
    message: &T,
    form: u8,
    own: Protocols,
) -> io::Result<Vec<u8>> {
    if form == LONELY {
        return encode_frame(message, LONELY);
    }
    let byte = |version: u32| u8::try_from(version).map_err(invalid);
    frame(&[HANDSHAKE, byte(own.oldest)?, byte(own.newest)?], message)
}

/// Reads a frame of a handshake (version byte and body), as a daemon does that speaks these; and in which form it came.
pub(super) fn decode_handshake<T: DeserializeOwned>(
    bytes: &[u8],
    own: Protocols,
) -> io::Result<(Handshake<T>, u8)> {
    match bytes {
        [] => Err(invalid("an empty frame")),
        [LONELY, body @ ..] => {
            let message = decode_exact(body)?;
            let only = u32::from(LONELY);
            let speaks = Protocols {
                oldest: only,
                newest: only,
            };
            Ok((Handshake { message, speaks }, LONELY))
        }
        // What a later protocol put behind the end is its own.
        [HANDSHAKE, oldest, newest, body @ ..] if own.newest >= u32::from(HANDSHAKE) => {
            let (message, _) = postcard::take_from_bytes(body).map_err(invalid)?;
            let speaks = Protocols {
                oldest: (*oldest).into(),
                newest: (*newest).into(),
            };
            Ok((Handshake { message, speaks }, HANDSHAKE))
        }
        [version, ..] => Err(invalid(format!(
            "the peer speaks protocol version {version}, this daemon {} to {}",
            own.oldest, own.newest
        ))),
    }
}

/// A frame of the protocol that was agreed on.
pub(super) fn encode_frame<T: Serialize>(message: &T, protocol: u8) -> io::Result<Vec<u8>> {
    frame(&[protocol], message)
}

fn frame<T: Serialize>(head: &[u8], message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(invalid)?;
    let length = body.len() + head.len();
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!(
            "a message of {length} bytes is over the limit of {FRAME_BYTES_MAX}"
        )));
    }
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    frame.extend_from_slice(head);
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The message in a frame's bytes (version byte and body), all of which it must use. The types are the same in all
/// protocols so far.
pub(super) fn decode_frame<T: DeserializeOwned>(frame: &[u8], protocol: u8) -> io::Result<T> {
    match frame.split_first() {
        Some((version, body)) if *version == protocol => decode_exact(body),
        Some((version, _)) => Err(invalid(format!(
            "a frame of protocol version {version} on a connection of version {protocol}"
        ))),
        None => Err(invalid("an empty frame")),
    }
}

fn decode_exact<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(invalid(format!(
            "{} bytes too many at the end of a message",
            rest.len()
        ))),
        Err(error) => Err(invalid(error)),
    }
}

/// Reads the length of the next frame. `Ok(None)`: the peer closed the connection between two frames.
pub(super) async fn read_length<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: usize,
) -> io::Result<Option<usize>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        let more = stream.read(&mut head[have..]).await?;
        if more == 0 {
            return if have == 0 {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        have += more;
    }
    let length = u32::from_be_bytes(head) as usize;
    if length == 0 || length > limit {
        return Err(invalid(format!(
            "a frame of {length} bytes; allowed are 1 to {limit}"
        )));
    }
    Ok(Some(length))
}

/// Reads the rest of a frame. Memory grows with what arrives, not with what the length claims.
pub(super) async fn read_rest<S: AsyncRead + Unpin>(
    stream: &mut S,
    length: usize,
) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(length.min(64 << 10));
    let got = stream.take(length as u64).read_to_end(&mut frame).await?;
    if got < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

/// Reads one frame whole; the end of the connection is an error.
pub(super) async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: usize,
) -> io::Result<Vec<u8>> {
    match read_length(stream, limit).await? {
        Some(length) => read_rest(stream, length).await,
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes one frame and flushes it.
pub(super) async fn write_frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frame: &[u8],
) -> io::Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await
}

/// The stored form of an entry.
pub(super) fn encode_entry(entry: &EntryV1) -> io::Result<Vec<u8>> {
    let mut bytes = vec![ENTRY_FORMAT];
    bytes.extend(postcard::to_stdvec(entry).map_err(invalid)?);
    Ok(bytes)
}

/// Reads the stored form of an entry.
pub(super) fn decode_entry(bytes: &[u8]) -> io::Result<EntryV1> {
    match bytes.split_first() {
        Some((&ENTRY_FORMAT, body)) => decode_exact(body),
        Some((version, _)) => Err(invalid(format!(
            "a log entry of format {version}; this program reads {ENTRY_FORMAT}"
        ))),
        None => Err(invalid("an empty log entry")),
    }
}

pub(super) fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

pub(super) fn log_id<E: Env>(id: LogIdV1) -> LogId<E> {
    LogId::<E>::new(CommittedLeaderId::new(id.term), id.index)
}

pub(super) fn mirror_log_id<E: Env>(id: &LogId<E>) -> LogIdV1 {
    LogIdV1 {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(super) fn vote<E: Env>(vote: VoteV1) -> Vote<E> {
    if vote.committed {
        Vote::<E>::new_committed(vote.term, vote.node)
    } else {
        Vote::<E>::new(vote.term, vote.node)
    }
}

pub(super) fn mirror_vote<E: Env>(vote: &Vote<E>) -> VoteV1 {
    VoteV1 {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn membership(mirror: MembershipV1) -> io::Result<Membership> {
    let members = mirror
        .members
        .into_iter()
        .map(|node| (node, EmptyNode::new()));
    let members: std::collections::BTreeMap<u64, EmptyNode> = members.collect();
    if mirror.voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(mirror.voters, members).map_err(invalid)
}

pub(super) fn mirror_membership(membership: &Membership) -> MembershipV1 {
    MembershipV1 {
        voters: membership.get_joint_config().clone(),
        members: membership.nodes().map(|(node, _)| *node).collect(),
    }
}

/// The members as the layer above knows them.
pub(super) fn members(membership: &Membership) -> super::Members {
    let set = |set: &BTreeSet<u64>| set.iter().map(|node| NodeId(*node)).collect();
    super::Members {
        voters: membership.get_joint_config().iter().map(set).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
    }
}

/// The same, the other way round.
pub(super) fn membership_of(members: &super::Members) -> io::Result<Membership> {
    membership(MembershipV1 {
        voters: members
            .voters
            .iter()
            .map(|set| set.iter().map(|node| node.0).collect())
            .collect(),
        members: members.all().iter().map(|node| node.0).collect(),
    })
}

pub(super) fn stored_membership<E: Env>(
    mirror: StoredMembershipV1,
) -> io::Result<StoredMembership<E>> {
    Ok(StoredMembership::<E>::new(
        mirror.at.map(log_id::<E>),
        membership(mirror.membership)?,
    ))
}

pub(super) fn mirror_stored_membership<E: Env>(stored: &StoredMembership<E>) -> StoredMembershipV1 {
    StoredMembershipV1 {
        at: stored.log_id().as_ref().map(mirror_log_id::<E>),
        membership: mirror_membership(stored.membership()),
    }
}

pub(super) fn entry<E: Env>(mirror: EntryV1) -> io::Result<Entry<E>> {
    let payload = match mirror.payload {
        PayloadV1::Blank => openraft::EntryPayload::Blank,
        PayloadV1::Command { leader, command } => {
            openraft::EntryPayload::Normal(Proposal { leader, command })
        }
        PayloadV1::Membership(found) => openraft::EntryPayload::Membership(membership(found)?),
    };
    Ok(Entry::<E>::new(log_id::<E>(mirror.id), payload))
}

pub(super) fn mirror_entry<E: Env>(entry: &Entry<E>) -> EntryV1 {
    let payload = match &entry.payload {
        openraft::EntryPayload::Blank => PayloadV1::Blank,
        openraft::EntryPayload::Normal(proposal) => PayloadV1::Command {
            leader: proposal.leader,
            command: proposal.command.clone(),
        },
        openraft::EntryPayload::Membership(found) => {
            PayloadV1::Membership(mirror_membership(found))
        }
    };
    EntryV1 {
        id: mirror_log_id::<E>(&entry.log_id()),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{DedicatedRuntime, TokioEnv};
    use proptest::prelude::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = DedicatedRuntime::start("wire-test", 1).unwrap();
        let outcome = runtime.run(future);
        runtime.stop();
        outcome
    }

    fn append() -> Request {
        Request::Append {
            vote: VoteV1 {
                term: 3,
                node: 7,
                committed: true,
            },
            prev: None,
            entries: vec![
                EntryV1 {
                    id: LogIdV1 { term: 0, index: 0 },
                    payload: PayloadV1::Blank,
                },
                EntryV1 {
                    id: LogIdV1 { term: 3, index: 1 },
                    payload: PayloadV1::Command {
                        leader: 7,
                        command: vec![1, 2, 3],
                    },
                },
            ],
            commit: Some(LogIdV1 { term: 0, index: 0 }),
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for protocol in [2, 3] {
            let frame = encode_frame(&append(), protocol).unwrap();
            let mut input = frame.as_slice();
            let read = run(read_frame(&mut input, FRAME_BYTES_MAX)).unwrap();
            assert_eq!(decode_frame::<Request>(&read, protocol).unwrap(), append());
            assert!(decode_frame::<Request>(&read, protocol + 1).is_err());
        }
    }

    /// The bytes on the wire are a contract: this test changes only together with [`PROTOCOLS`].
    #[test]
    fn the_bytes_of_a_frame_stay() {
        let vote = Request::Vote {
            vote: VoteV1 {
                term: 300,
                node: 1,
                committed: false,
            },
            last: Some(LogIdV1 { term: 2, index: 9 }),
            transfer: true,
        };
        for protocol in [2, 3] {
            let frame = encode_frame(&vote, protocol).unwrap();
            assert_eq!(frame, [0, 0, 0, 10, protocol, 1, 0xac, 2, 1, 0, 1, 2, 9, 1]);
        }
    }

    fn speaks(oldest: u32, newest: u32) -> Protocols {
        Protocols { oldest, newest }
    }

    fn hello() -> Hello {
        Hello {
            sender: Introduction {
                node: 300,
                cluster: None,
                boot: 1,
                instance: 4,
                term: 5,
                last: Some(LogIdV1 { term: 2, index: 9 }),
                advertise: "a:1".to_owned(),
                http_uri: "h".to_owned(),
                version: 1,
                empty: true,
                listed: vec![7],
            },
            to: 0,
            invites: false,
        }
    }

    /// Both forms of a handshake stay for ever: it is how two daemons of any releases find out what they can talk in.
    #[test]
    fn the_bytes_of_a_handshake_stay() {
        let said = [
            0xac, 2, 0, 1, 4, 5, 1, 2, 9, 3, b'a', b':', b'1', 1, b'h', 1, 1, 1, 7, 0, 0,
        ];
        let lonely = encode_handshake(&hello(), LONELY, speaks(2, 2)).unwrap();
        assert_eq!(lonely, [&[0, 0, 0, 22, 2], &said[..]].concat());
        let stated = encode_handshake(&hello(), opening(speaks(3, 5)), speaks(3, 5)).unwrap();
        assert_eq!(stated, [&[0, 0, 0, 24, 3, 3, 5], &said[..]].concat());
    }

    #[test]
    fn a_handshake_says_what_its_sender_speaks() {
        let read = |bytes: &[u8], own| decode_handshake::<Hello>(bytes, own);
        let said = |speaks| Handshake {
            message: hello(),
            speaks,
        };
        let lonely = encode_handshake(&hello(), LONELY, speaks(2, 3)).unwrap();
        assert_eq!(
            read(&lonely[4..], speaks(2, 3)).unwrap(),
            (said(speaks(2, 2)), LONELY)
        );
        let mut stated = encode_handshake(&hello(), HANDSHAKE, speaks(3, 5)).unwrap();
        // What a later one says behind the end does not matter to this one.
        stated.extend([1, 2, 3]);
        assert_eq!(
            read(&stated[4..], speaks(2, 3)).unwrap(),
            (said(speaks(3, 5)), HANDSHAKE)
        );
        // The release before does not know this form, and says what it speaks.
        let error = read(&stated[4..], speaks(2, 2)).unwrap_err().to_string();
        assert!(
            error.contains("protocol version 3, this daemon 2 to 2"),
            "{error}"
        );
        let error = read(&[9, 0], speaks(2, 3)).unwrap_err().to_string();
        assert!(error.contains("protocol version 9"), "{error}");
    }

    #[test]
    fn the_newest_protocol_of_both_is_agreed_on() {
        assert_eq!(common(speaks(2, 3), speaks(2, 2)), Some(2));
        assert_eq!(common(speaks(2, 3), speaks(3, 5)), Some(3));
        assert_eq!(common(speaks(2, 5), speaks(3, 4)), Some(4));
        assert_eq!(common(speaks(2, 3), speaks(4, 5)), None);
        assert_eq!(common(speaks(4, 5), speaks(2, 3)), None);
        assert!(nothing_in_common(speaks(2, 3), speaks(4, 5)).ends_with("upgrade this daemon"));
        assert!(nothing_in_common(speaks(4, 5), speaks(2, 3)).ends_with("upgrade the other"));
    }

    #[test]
    fn bad_frames_are_refused() {
        let check = |bytes: &[u8], limit: usize, wanted: &str| {
            let mut input = bytes;
            let error = run(read_frame(&mut input, limit)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        check(&[0, 0, 0, 0], 10, "a frame of 0 bytes");
        check(&[0, 0, 0, 11], 10, "a frame of 11 bytes");
        check(&[255; 4], FRAME_BYTES_MAX, "a frame of 4294967295 bytes");
        check(&[0, 0], 10, "unexpected end");
        check(&[0, 0, 0, 5, 2, 2], 10, "unexpected end");
        assert!(
            decode_frame::<Request>(&[9, 0], 3)
                .unwrap_err()
                .to_string()
                .contains("protocol version 9")
        );
        let mut long = encode_frame(&Request::SnapshotEnd, 3).unwrap().split_off(4);
        long.push(0);
        assert!(
            decode_frame::<Request>(&long, 3)
                .unwrap_err()
                .to_string()
                .contains("too many")
        );
    }

    #[test]
    fn the_end_between_frames_is_no_error() {
        let mut input: &[u8] = &[];
        assert_eq!(run(read_length(&mut input, 10)).unwrap(), None);
    }

    #[test]
    fn impossible_memberships_are_refused() {
        // A voter that is no member.
        let mirror = MembershipV1 {
            voters: vec![BTreeSet::from([1, 2])],
            members: BTreeSet::from([1]),
        };
        assert!(membership(mirror).is_err());
        let mirror = MembershipV1 {
            voters: vec![BTreeSet::from([1, 2])],
            members: BTreeSet::from([1, 2, 3]),
        };
        assert_eq!(
            mirror_membership(&membership(mirror.clone()).unwrap()),
            mirror
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = vec![3];
            framed.extend(&bytes);
            if let Ok(Request::Append { entries, .. }) = decode_frame::<Request>(&framed, 3) {
                for found in entries {
                    let _ = entry::<TokioEnv>(found);
                }
            }
            let _ = decode_handshake::<Hello>(&framed, PROTOCOLS);
            let _ = decode_frame::<Response>(&framed, 3);
            let _ = decode_entry(&bytes);
        }

        #[test]
        fn entries_survive_storage(term in any::<u64>(), index in any::<u64>(), command in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mirror = EntryV1 { id: LogIdV1 { term, index }, payload: PayloadV1::Command { leader: term, command } };
            let stored = encode_entry(&mirror).unwrap();
            let read = decode_entry(&stored).unwrap();
            prop_assert_eq!(mirror_entry::<TokioEnv>(&entry::<TokioEnv>(read).unwrap()), mirror);
        }
    }
}
