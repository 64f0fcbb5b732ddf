//! The HTTP API: the paths and documents that existing clients, proxies and scripts know.
//!
//! Decides who answers a request (this daemon or the leader, [`relay`]), who may ask for it ([`access`]), and how an
//! answer is spelled ([`json`]); what is asked for is decided by the node, which it reaches through [`Daemon`]. It keeps
//! no state of its own and never answers with an empty body. What cannot be parsed as a request does not come so far: the HTTP
//! library turns it away with a bare 400, 414 or 431, and takes no body for those.
//!
//! Holds for every request: a change is either asked of the node exactly once or answered with 503 (nothing was done);
//! where nobody knows what came of it the answer is 504, never an error that reads like *not done*; what a daemon without
//! a leader says of the fleet is marked with [`STALE_HEADER`].

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use orchestrator_core::id::NodeId;
use orchestrator_core::node::{Reply, Request};

use crate::backend::BackendHealth;
use crate::kv::Told;
use crate::raft::{RaftState, RaftStatusView};

pub mod access;
mod answer;
mod audit;
mod change;
mod condition;
mod fleet;
mod forecast;
pub mod json;
mod local;
mod names;
mod orders;
mod params;
mod relay;
pub mod routes;
mod server;
mod settings;
pub mod sight;
mod tls;

#[cfg(test)]
mod tests;

pub use server::{ServeError, check, converse, listen, serve};
pub use settings::{Authentication, Process, Settings, Unserved, VERSION};
pub use sight::Sight;
pub use tls::TlsSettings;

/// On answers that a daemon without a leader gave from what it knows itself; the value says why.
pub const STALE_HEADER: &str = "x-orchestrator-stale";
/// On requests that a follower passed on; the value is its node id. Such a request is not passed on again.
pub const RELAYED_HEADER: &str = "x-orchestrator-relayed";

/// The daemon as the HTTP API sees it. Clones are handles to the same one.
pub trait Daemon: Clone + Send + Sync + 'static {
    /// Looks at the node from within its own task. Keep it cheap: take what is needed and go on outside.
    fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Sight<'_>) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Gone>> + Send;

    /// Asks for something; the reply is [`Reply::Unknown`] when none came within `deadline`.
    fn ask(&self, request: Request, deadline: Duration) -> impl Future<Output = Reply> + Send;

    /// What this daemon's raft looks like at this moment.
    fn raft(&self) -> RaftFacts;

    /// How far the database is behind.
    fn backend(&self) -> BackendHealth;

    /// Has this daemon's key-value stores compared with what is decided, and tells what they say; an error in words.
    fn publish(&self) -> impl Future<Output = Result<Vec<Told>, String>> + Send;

    /// Has this daemon do something itself, and waits until it is done: a remark, or why it was not.
    fn perform(&self, order: Order) -> impl Future<Output = Result<String, String>> + Send;
}

/// What a daemon does itself when it is told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Lead no more; one of these leads, or whichever voter can.
    HandOver { to: Option<BTreeSet<NodeId>> },
    /// Write a snapshot of all that is applied.
    Snapshot,
    /// Read the configuration again. The remark names the keys that changed and wait for a restart.
    Reload,
}

/// The node has ended: the daemon is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// A member of the raft cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    /// Its raft address, `host:port`.
    pub address: String,
    /// Where its HTTP API is, `scheme://host:port`; empty when it is not known.
    pub http_uri: String,
    /// It votes; else it only holds the log.
    pub is_voter: bool,
    /// It was heard of lately. Followers hear little of each other: the leader's list is the complete one.
    pub is_healthy: bool,
    /// Since it was heard of; zero for this daemon.
    pub heard: Option<Duration>,
    /// How many entries of the log it lacks: as the leader knows it, to others as of the last greeting.
    pub lacks: Option<u64>,
    /// Why it is not listened to, or does not listen.
    pub refusal: Option<String>,
    /// Why somebody else is not listened to who calls itself this one; this one is as healthy as ever.
    pub impostor: Option<String>,
}

/// What this daemon's raft looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftFacts {
    pub node: NodeId,
    pub state: RaftState,
    /// By the one function of `RAFT.md` section 5: it may act.
    pub is_leading: bool,
    /// A voter that leads, or heard its leader within an election timeout; else why it is not.
    pub health: Result<(), String>,
    /// The leader of the current term, this daemon included; none while nobody is known to be, or the last one is silent.
    pub leader: Option<Peer>,
    /// All members, this daemon included.
    pub peers: Vec<Peer>,
    /// `RaftBind` and `RaftAdvertise`, as `host:port`.
    pub bind: String,
    pub advertise: String,
    /// `DefaultRaftPort`
    pub default_port: u16,
    /// The cluster's id; empty while there is none.
    pub cluster: String,
    pub term: u64,
    /// The first index that this daemon's log still holds: whoever lacks what is before it needs a snapshot.
    pub first_log: u64,
    /// The last index of this daemon's log, the last that it knows to be committed, and the last that it applied.
    pub last_log: u64,
    pub committed: u64,
    pub applied: u64,
}

/// A member counts as healthy when it was heard of within this time.
const HEARD: Duration = Duration::from_secs(2);

impl RaftFacts {
    /// Of a daemon whose raft was not started, for this reason.
    #[must_use]
    pub fn held(reason: &str) -> RaftFacts {
        RaftFacts {
            node: NodeId::default(),
            state: RaftState::Shutdown,
            is_leading: false,
            health: Err(reason.to_owned()),
            leader: None,
            peers: Vec::new(),
            bind: String::new(),
            advertise: String::new(),
            default_port: 0,
            cluster: String::new(),
            term: 0,
            first_log: 0,
            last_log: 0,
            committed: 0,
            applied: 0,
        }
    }

    /// What raft shows.
    #[must_use]
    pub fn of(status: &RaftStatusView) -> RaftFacts {
        let summary = &status.summary;
        let peers: Vec<Peer> = status
            .members
            .iter()
            .map(|member| Peer {
                node: member.node,
                address: member.address.clone().unwrap_or_default(),
                http_uri: member.http_uri.clone().unwrap_or_default(),
                is_voter: member.voter,
                is_healthy: member.refusal.is_none()
                    && member.last_contact.is_some_and(|since| since <= HEARD),
                heard: member.last_contact,
                lacks: member.lacks,
                refusal: member.refusal.clone(),
                impostor: member.impostor.clone(),
            })
            .collect();
        let known = |node: NodeId| peers.iter().find(|peer| peer.node == node).cloned();
        // Raft goes on naming the last leader for as long as nobody else is elected.
        let is_silent = |node: &NodeId| {
            let mut members = status.members.iter();
            members
                .find(|member| member.node == *node)
                .is_some_and(|member| member.last_contact.is_none_or(|since| since > HEARD))
        };
        let leader = summary.leader.filter(|node| !is_silent(node));
        let leader = leader.map(|node| {
            let mut leader = known(node).unwrap_or(Peer {
                node,
                address: String::new(),
                http_uri: String::new(),
                is_voter: true,
                is_healthy: false,
                heard: None,
                lacks: None,
                refusal: None,
                impostor: None,
            });
            if let Some(address) = &status.leader_address {
                leader.address.clone_from(address);
            }
            if let Some(uri) = &status.leader_http_uri {
                leader.http_uri.clone_from(uri);
            }
            leader
        });
        RaftFacts {
            node: status.node,
            state: summary.state,
            is_leading: summary.leading.is_some(),
            health: if summary.healthy {
                Ok(())
            } else {
                Err(summary
                    .reason
                    .clone()
                    .unwrap_or_else(|| String::from("not part of a quorum")))
            },
            leader,
            peers,
            bind: status.bind.clone(),
            advertise: status.advertise.clone(),
            default_port: status.default_port,
            cluster: status
                .cluster
                .map_or_else(String::new, |cluster| cluster.to_string()),
            term: summary.term,
            first_log: status.purged.map_or(0, |purged| purged + 1),
            last_log: status.last_log_index.unwrap_or(0),
            committed: status.committed.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
        }
    }
}
