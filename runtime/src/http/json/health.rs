//! `HealthStatus`, `NodeHealth`, `RaftStatus` and what it lists.

use serde::Serialize;

/// A daemon in the list of daemons.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeHealth {
    pub hostname: String,
    pub token: String,
    pub app_version: String,
    pub first_seen_active: String,
    pub last_seen_active: String,
    pub extra_info: String,
    pub command: String,
    #[serde(rename = "DBBackend")]
    pub db_backend: String,
    /// RFC 3339; the zero time in lists.
    pub last_reported: String,
}

/// The zero value of the wire's `time`.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// How this daemon does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthStatus {
    pub healthy: bool,
    pub hostname: String,
    pub token: String,
    pub is_active_node: bool,
    pub active_node: NodeHealth,
    pub error: Option<String>,
    pub available_nodes: Vec<NodeHealth>,
    pub raft_leader: String,
    pub is_raft_leader: bool,
    #[serde(rename = "RaftLeaderURI")]
    pub raft_leader_uri: String,
    pub raft_advertise: String,
    pub raft_healthy_members: Vec<String>,
    /// What should not be: members that hold another state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
}

/// How this daemon's raft does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftStatus {
    pub raft_bind: String,
    pub raft_advertise: String,
    pub state: String,
    pub healthy: bool,
    pub is_part_of_quorum: bool,
    pub leader: String,
    #[serde(rename = "LeaderURI")]
    pub leader_uri: String,
    pub peers: Vec<String>,
    /// This daemon's identity, in hex.
    pub node: String,
    pub cluster: String,
    pub term: u64,
    /// Positions in the raft log: the first one it holds (a member that lacks what is before it gets a snapshot), the last one it holds, the last it knows to be committed, the last it applied. Of several
    /// daemons that hold a cluster's past, whoever applied most has most of it.
    pub first_log_index: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    /// Why it is not healthy; empty when it is.
    pub reason: String,
    pub members: Vec<RaftMember>,
    /// Addresses of members that are not there.
    pub missing: Vec<String>,
    /// The change of members that is under way; empty for none.
    pub change: String,
    /// Why a change of members stands still, or why `RaftNodes` is not obeyed.
    pub waiting: Vec<String>,
    /// The versions of commands and snapshots that are switched on: a release that does not read them cannot come back.
    pub command_version: u32,
    pub snapshot_version: u32,
    /// What a later version waits for, in words; empty when no member reads a later one.
    pub upgrade: String,
    /// Keys in which this daemon's configuration file differs from what all obey, which is the leader's.
    pub differing_settings: Vec<String>,
    /// Daemons that ask to be let in.
    pub strangers: Vec<RaftStranger>,
    /// The original program's databases that members were first started on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub originals: Vec<RaftOriginal>,
}

/// A database of the original program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftOriginal {
    pub node: String,
    pub hostname: String,
    /// When a server was read last, by the database.
    pub last_seen: String,
    pub servers: u64,
    /// `adopted`, `being adopted`, `kept aside`
    pub state: String,
}

/// A member of the raft cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftMember {
    pub node: String,
    pub address: String,
    pub hostname: String,
    pub app_version: String,
    /// The newest version of commands and snapshots that it reads; 0 as long as it did not say.
    pub reads_version: u32,
    /// The raft protocols that it speaks, `oldest-newest`; empty as long as that is not known (before version 2).
    pub raft_protocols: String,
    pub voter: bool,
    pub healthy: bool,
    /// Zero for this daemon; none when it was never heard of.
    pub last_contact_milliseconds: Option<u64>,
    /// Of the log: as the leader knows it; to others as of the last greeting, every few seconds. None of one that was not greeted
    /// so far.
    pub entries_behind: Option<u64>,
    /// In words; empty when there is none.
    pub problem: String,
}

/// A daemon that is no member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RaftStranger {
    pub node: String,
    pub address: String,
    /// Why it is not let in.
    pub reason: String,
}

/// How this daemon does, and what it sees of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Condition {
    pub healthy: bool,
    /// What keeps this daemon from being healthy.
    pub reasons: Vec<String>,
    /// What is wrong elsewhere.
    pub warnings: Vec<String>,
    pub node: String,
    pub hostname: String,
    pub app_version: String,
    pub state: String,
    pub is_leading: bool,
    pub cluster: String,
    pub term: u64,
    pub leader: Option<ConditionLeader>,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub members: Vec<RaftMember>,
    pub missing: Vec<String>,
    pub change: String,
    pub waiting: Vec<String>,
    pub strangers: Vec<RaftStranger>,
    pub backend: ConditionBackend,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConditionLeader {
    pub node: String,
    pub address: String,
    pub hostname: String,
    #[serde(rename = "URI")]
    pub uri: String,
}

/// The database of this daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConditionBackend {
    pub name: String,
    pub oldest_unwritten_milliseconds: u64,
    pub error: String,
}
