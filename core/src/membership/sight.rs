//! What a daemon sees of the others over its raft connections.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::time::Duration;

use crate::{id::NodeId, replicated::Protocols, time::Mono};

/// Everything that one daemon sees, itself left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    pub own: Own,
    /// Its own `RaftNodes`, in the order of the file.
    pub listed: Vec<Listed>,
    /// The list that the cluster was formed with, or with which it was let in; empty as long as that is not known.
    pub came_with: Vec<String>,
    pub nodes: BTreeMap<NodeId, Seen>,
    /// The end of its log.
    pub last_index: u64,
    /// `RaftReplaceSilentSeconds`
    pub replace_silent: Duration,
    /// `RaftReplacePerHour`
    pub replace_per_hour: u64,
}

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    pub raft_address: String,
    pub http_uri: String,
    /// The program's version.
    pub build: String,
    /// The newest version of commands and of snapshots that it reads.
    pub reads_command: u32,
    pub reads_snapshot: u32,
    /// The raft protocols that it speaks; none as long as raft has not told.
    pub protocols: Option<Protocols>,
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub entry: String,
    /// Who answers there; none as long as nobody does.
    pub node: Option<NodeId>,
}

/// One other daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it says it is reached.
    pub address: String,
    /// When that address was dialled and led to it.
    pub answers: Option<Mono>,
    /// When it was heard of last.
    pub heard: Option<Mono>,
    pub standing: Standing,
    /// Up to where it holds the log; known to the leader.
    pub matched: Option<u64>,
    /// The newest version of commands and snapshots that it reads; none as long as it was not heard since this daemon started.
    pub reads: Option<u32>,
}

/// What a daemon is to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It votes, or holds the log.
    Member,
    /// It belongs to this cluster or to none, and may become a member.
    Stranger,
    /// It cannot become one: why, as the rest of a sentence that begins with its name.
    Elsewhere(String),
}

impl Sight {
    /// A daemon as people know it.
    #[must_use]
    pub fn name(&self, node: NodeId) -> String {
        match self.nodes.get(&node) {
            Some(seen) if !seen.address.is_empty() => format!("{} (node {node})", seen.address),
            Some(_) | None => format!("node {node}"),
        }
    }
}
