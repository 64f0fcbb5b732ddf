//! Everything that can be decided, as data. A command is stamped with wall time by its proposer; its bytes are a
//! contract (`replicated::wire`).

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use super::{
    adoption::{OriginalRows, OriginalSummary},
    members::ChangeCause,
    state::Protocols,
};
use crate::{
    id::{Epoch, Identity, InstanceKey, NodeId, StepId, Uid},
    policy::Policy,
    recovery::{End, Outcome, Purpose, Stage, Step, Telling},
    time::Wall,
    topology::PromotionRule,
};

/// A command and when its proposer's clock said it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    pub wall: Wall,
    pub command: Command,
}

/// A failure as first registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detection {
    /// `detection_id`, counted by apply.
    pub number: u64,
    pub server: InstanceKey,
    pub analysis: String,
    pub cluster_name: String,
    pub cluster_alias: String,
    pub replicas: Vec<InstanceKey>,
    pub is_actionable: bool,
    pub processing_node: String,
    pub processing_token: String,
    /// Log time.
    pub at: Wall,
    /// Cleared by acknowledgement, a completed recovery or age.
    pub is_active: bool,
    /// Where its hooks stand; none: there are none to be run, or all have run. Said once version 2 is in force: with the
    /// registration the first one is begun, under an epoch of its entry's term.
    pub telling: Option<Telling>,
}

/// Which recoveries a person acknowledges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckScope {
    All,
    Number(u64),
    Uid(Uid),
    Cluster { name: String, alias: String },
    Instance(InstanceKey),
}

/// A change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    // --- the daemons themselves ---
    /// A member's list changed: it wants exactly these identities. The first one of an identity only says what its list
    /// is.
    Declare {
        node: NodeId,
        /// The list as it is in the file, with ports.
        entries: Vec<String>,
        /// Who answers there.
        identities: Vec<NodeId>,
    },
    /// Switches command and snapshot kinds on, once every member reads them.
    SetVersion {
        command: u32,
        snapshot: u32,
    },
    /// What a member says of itself: addresses, and the newest versions it reads.
    DescribeMember {
        node: NodeId,
        raft_address: String,
        http_uri: String,
        host_name: String,
        /// The program's version, to be shown.
        build: String,
        reads_command: u32,
        reads_snapshot: u32,
        /// What it found in its backend of the original program.
        original: Option<OriginalSummary>,
    },
    /// What a member says besides, once version 2 is in force.
    DescribeProtocols {
        node: NodeId,
        protocols: Protocols,
    },
    SetPolicy(Box<Policy>),
    /// These are to be the voters; decided from the membership entry with index `base`.
    BeginMemberChange {
        epoch: Epoch,
        base: u64,
        wanted: Vec<NodeId>,
        cause: ChangeCause,
    },
    /// The change that is under way is given up.
    EndMemberChange {
        epoch: Epoch,
        base: u64,
        reason: String,
    },

    // --- the fleet ---
    /// These servers are to be probed. `by_operator` overrides a recent forget.
    Know {
        keys: Vec<InstanceKey>,
        by_operator: bool,
    },
    /// Removed, and not taken back for three polls unless an operator says so.
    Forget {
        keys: Vec<InstanceKey>,
    },
    /// A cluster is seen with this primary: gives it a stable key, or follows a primary that people changed by hand.
    RecordCluster {
        primary: InstanceKey,
        identity: Option<Identity>,
        members: Vec<InstanceKey>,
    },
    SetClusterAlias {
        cluster_name: String,
        alias: String,
        by_operator: bool,
    },
    SetClusterDomain {
        cluster_name: String,
        domain: String,
    },
    BeginDowntime {
        key: InstanceKey,
        owner: String,
        reason: String,
        until: Wall,
    },
    EndDowntime {
        key: InstanceKey,
    },
    BeginMaintenance {
        key: InstanceKey,
        owner: String,
        reason: String,
        until: Wall,
    },
    EndMaintenance {
        key: InstanceKey,
    },
    RegisterCandidate {
        key: InstanceKey,
        rule: PromotionRule,
    },
    PutTag {
        key: InstanceKey,
        name: String,
        value: String,
    },
    /// With `value`, only where it is equal. Without a key, everywhere.
    DeleteTag {
        key: Option<InstanceKey>,
        name: String,
        value: Option<String>,
    },

    // --- failures and recoveries ---
    SetRecoveriesEnabled {
        enabled: bool,
    },
    RegisterDetection(Detection),
    /// How the hooks of a detection go on. None is run before its beginning is committed, in this or in the registration.
    /// Exists since version 2.
    TellOfDetection {
        number: u64,
        epoch: Epoch,
        /// The newest run ([`Telling::run`]), as the proposer knows it.
        run: u32,
        /// How that run ended, which this epoch had begun.
        ended: Option<Outcome>,
        /// The hook at this place is begun. None: nothing is left to run, unless the one that ended failed.
        next: Option<u32>,
    },
    /// Opens a recovery or an operation; refused while the cluster has one running, in cool-down, or when stopped.
    BeginRecovery {
        uid: Uid,
        purpose: Purpose,
        epoch: Epoch,
        server: InstanceKey,
        identity: Option<Identity>,
        cluster_name: String,
        analysis: String,
        replicas: Vec<InstanceKey>,
        processing_node: String,
        processing_token: String,
        /// An operator asked: cool-down and the global stop do not apply.
        forced: bool,
        /// The primary was read-only before it failed, and no restart had made it so: it stays so if it returns in time.
        was_read_only: bool,
    },
    /// The next leader becomes the owner of a running recovery.
    TakeOver {
        uid: Uid,
        epoch: Epoch,
    },
    /// The next stage with its steps, before any of them runs. Steps whose ids exist already (Unknown, or of another
    /// epoch) are intended anew under this epoch.
    Intend {
        uid: Uid,
        epoch: Epoch,
        stage: Stage,
        candidate: Option<InstanceKey>,
        steps: Vec<Step>,
        /// What this recovery will have come to when the steps are done; for an undo.
        ending: Option<Box<End>>,
        lines: Vec<String>,
    },
    /// How steps ended.
    Settle {
        uid: Uid,
        epoch: Epoch,
        outcomes: Vec<(StepId, Outcome)>,
        lines: Vec<String>,
    },
    /// Lines of audit that go with no other change.
    Remark {
        uid: Uid,
        epoch: Epoch,
        lines: Vec<String>,
        errors: Vec<String>,
        possible_loss: Vec<String>,
    },
    EndRecovery {
        uid: Uid,
        epoch: Epoch,
        end: End,
        successor: Option<InstanceKey>,
        successor_identity: Option<Identity>,
        successor_alias: String,
        lost: Vec<InstanceKey>,
        participants: Vec<InstanceKey>,
        lines: Vec<String>,
    },
    Acknowledge {
        scope: AckScope,
        owner: String,
        comment: String,
    },
    /// A deposed primary is one no more: it replicates cleanly, or people chose it.
    LiftQuarantine {
        identity: Identity,
        reason: String,
    },
    /// A deposed primary was seen closed.
    MarkFenced {
        identity: Identity,
        at_uptime_s: u64,
    },
    /// A cluster's primary was seen writeable, or closed by people (without an uptime).
    MarkPrimary {
        primary: InstanceKey,
        identity: Identity,
        writeable_at_uptime_s: Option<u64>,
    },
    /// One part of what a member's database of the original program says. Parts are counted from 0, and come in order.
    Adopt {
        node: NodeId,
        part: u32,
        is_last: bool,
        rows: Box<OriginalRows>,
    },
    /// People name the member whose database is taken over, in the place of the one that was written last.
    ChooseOriginal {
        node: NodeId,
    },
    /// These daemons could log in to a cluster's primary while it was well.
    MarkWitnesses {
        primary: InstanceKey,
        identity: Identity,
        nodes: Vec<NodeId>,
    },
}

/// What applying a command came to: the same on every daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// So many rows changed.
    Changed(u64),
    /// A number that apply gave (recovery, detection).
    Numbered(u64),
    Refused(Refusal),
}

/// Why apply changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    NotFound(String),
    /// Another recovery or operation holds the cluster.
    ClusterBusy {
        by: Uid,
    },
    /// Within the cool-down of a completed recovery.
    CoolDown {
        by: Uid,
        until: Wall,
    },
    RecoveriesDisabled,
    /// The proposer's epoch does not own it, or is not its own entry's term.
    NotOwner {
        owner: Epoch,
    },
    Ended,
    Full {
        what: String,
        limit: u64,
    },
    Invalid(String),
    /// The server is in downtime.
    InDowntime {
        until: Wall,
    },
    /// The server is under maintenance.
    InMaintenance {
        until: Wall,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "{what} not found"),
            Self::ClusterBusy { by } => write!(f, "recovery {by} is running on this cluster"),
            Self::CoolDown { by, until } => {
                write!(
                    f,
                    "recovery {by} was completed here recently; blocked until {until} or until it is acknowledged"
                )
            }
            Self::RecoveriesDisabled => f.write_str("recoveries are disabled globally"),
            Self::NotOwner { owner } => write!(f, "owned by epoch {owner}"),
            Self::Ended => f.write_str("already ended"),
            Self::Full { what, limit } => write!(f, "too many {what}: the limit is {limit}"),
            Self::Invalid(why) => f.write_str(why),
            Self::InDowntime { until } => write!(f, "the server is in downtime until {until}"),
            Self::InMaintenance { until } => {
                write!(f, "the server is under maintenance until {until}")
            }
        }
    }
}
