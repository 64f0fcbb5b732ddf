//! openraft's types, filled in for this daemon. Nothing of them leaves this folder.

use std::fmt;
use std::marker::PhantomData;

use openraft::OptionalSend;
use openraft_rt::watch::WatchReceiver;
use serde::{Deserialize, Serialize};

use crate::env::Env;

/// What an entry carries: a command the core encoded, opaque here, and the leader that appended it (openraft's standard
/// log id holds the term only, and there is one leader a term).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) leader: u64,
    pub(super) command: Vec<u8>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.command.len())
    }
}

/// What apply answered. Opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer(pub(super) Vec<u8>);

/// The configuration of openraft's generics, one for each environment.
///
/// `LeaderId` is the standard one (openraft's default allows several leaders in one term); node data stays empty, because
/// addresses are data of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Config<E>(PhantomData<E>);

impl<E: Env> openraft::RaftTypeConfig for Config<E> {
    type D = Proposal;
    type R = Answer;
    type NodeId = u64;
    type Node = openraft::impls::EmptyNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, Self::Node>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = E::Rt;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(super) type LogId<E> = openraft::alias::LogIdOf<Config<E>>;
pub(super) type Entry<E> = openraft::alias::EntryOf<Config<E>>;
pub(super) type Vote<E> = openraft::alias::VoteOf<Config<E>>;
pub(super) type Membership = openraft::Membership<u64, openraft::impls::EmptyNode>;
pub(super) type StoredMembership<E> = openraft::alias::StoredMembershipOf<Config<E>>;
pub(super) type SnapshotMeta<E> = openraft::alias::SnapshotMetaOf<Config<E>>;
pub(super) type SnapshotData = Vec<u8>;
pub(super) type Snapshot<E> = openraft::alias::SnapshotOf<Config<E>, SnapshotData>;
pub(super) type Raft<E> = openraft::Raft<Config<E>, super::machine::Machine<E>>;
pub(super) type Metrics<E> = openraft::RaftMetrics<Config<E>>;

/// What raft says of itself at present: a copy. A borrow is a reader's lock; raft's own task waits for it to tell what is
/// new, and whoever borrows twice with that task in between waits for ever, and raft with it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where it is borrowed, for as long as it is copied"
)]
pub(super) fn metrics_of<E: Env, S>(raft: &openraft::Raft<Config<E>, S>) -> Metrics<E>
where
    S: openraft::storage::RaftStateMachine<Config<E>>,
{
    raft.metrics().borrow_watched().clone()
}
