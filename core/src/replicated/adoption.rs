//! What the original program's databases said, taken over once by a cluster that is formed on their daemons.
//!
//! Each daemon that founded the cluster has a database of its own. They are alike and not the same, so one of them is chosen:
//! the one that was written last, unless people name another. Its daemon sends what it says in parts, through the log like
//! everything else. What the cluster has come to know meanwhile is newer, and wins.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use super::{
    command::Detection,
    state::{Candidate, Downtime, Maintenance, Tag},
};
use crate::{
    id::{InstanceKey, NodeId},
    recovery::Recovery,
    time::Wall,
};

/// What a daemon found in its backend when it was first started on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalSummary {
    /// When a server was read last, by the database.
    pub newest: Wall,
    pub servers: u64,
}

/// A part of what a database of the original program says. Times are the database's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OriginalRows {
    pub known: Vec<InstanceKey>,
    pub clusters: Vec<OriginalCluster>,
    pub downtimes: Vec<(InstanceKey, Downtime)>,
    pub maintenance: Vec<(InstanceKey, Maintenance)>,
    pub candidates: Vec<(InstanceKey, Candidate)>,
    pub tags: Vec<((InstanceKey, String), Tag)>,
    /// Oldest first.
    pub detections: Vec<Detection>,
    /// Oldest first; all of them have ended, and what they run on is filled in by apply.
    pub recoveries: Vec<Recovery>,
    /// Since when recoveries were disabled.
    pub stopped: Option<Wall>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalCluster {
    pub primary: InstanceKey,
    pub members: Vec<InstanceKey>,
    /// As people set it; empty for none.
    pub alias: String,
}

impl OriginalRows {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How far the adoption is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adoption {
    /// The first voters of the cluster: only their databases are older than it.
    pub founders: BTreeSet<NodeId>,
    /// Whose database is to be taken over, by people.
    pub chosen: Option<NodeId>,
    /// Whose is being taken over, and how many parts of it were.
    pub under_way: Option<(NodeId, u32)>,
    /// Whose was taken over last.
    pub adopted: Option<Adopted>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    pub node: NodeId,
    pub summary: OriginalSummary,
    /// Log time.
    pub at: Wall,
}
