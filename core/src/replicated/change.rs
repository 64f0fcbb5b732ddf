//! What applying a command changed, row by row, with the rows' full contents: for the backend's projection and for
//! whatever a daemon keeps for reading. Holds nothing that is not in [`super::Replicated`].

use alloc::{string::String, sync::Arc};

use super::{
    command::Detection,
    state::{
        Blocked, Candidate, ClusterRecord, Declaration, Deposed, Downtime, Known, Maintenance,
        Member, Tag, Versions,
    },
};
use crate::{
    id::{ClusterKey, Identity, InstanceKey, NodeId, Uid},
    policy::Policy,
    recovery::{AuditLine, Recovery},
    time::Wall,
};

/// One row as it is after a command; `None` where the row is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Version(Versions),
    Member(NodeId, Option<Member>),
    Declaration(NodeId, Option<Declaration>),
    Policy(Arc<Policy>),
    /// A server is known, or is known no more.
    Known(InstanceKey, Option<Known>),
    /// Not to be taken back before this time.
    Forgotten(InstanceKey, Option<Wall>),
    /// The whole record. The three that follow come with it where what they are about has changed; they are the rows of
    /// the original's tables, keyed by the cluster's name.
    Cluster(ClusterKey, Option<Arc<ClusterRecord>>),
    /// The alias that the cluster is shown with.
    ClusterAlias {
        cluster_name: String,
        alias: Option<String>,
    },
    ClusterAliasOverride {
        cluster_name: String,
        alias: Option<String>,
    },
    ClusterDomain {
        cluster_name: String,
        domain: Option<String>,
    },
    Downtime(InstanceKey, Option<Downtime>),
    Maintenance(InstanceKey, Option<Maintenance>),
    Candidate(InstanceKey, Option<Candidate>),
    Tag {
        key: InstanceKey,
        name: String,
        tag: Option<Tag>,
    },
    /// Set while recoveries are disabled: since when.
    GlobalStop(Option<Wall>),
    Detection(u64, Option<Arc<Detection>>),
    Recovery(u64, Option<Arc<Recovery>>),
    /// The `index`-th line (from 0) of a recovery's audit; comes after the recovery's own row.
    RecoveryLine {
        uid: Uid,
        number: u64,
        index: u64,
        line: AuditLine,
    },
    Blocked(InstanceKey, Option<Blocked>),
    Deposed(Identity, Option<Deposed>),
}
