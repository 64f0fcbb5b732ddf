//! What MySQL servers look like: the facts a probe brings, and how servers hang together.
//!
//! Everything here is *Observed*: this node's own, rebuilt by probing, never in the raft log. A fact is kept until a
//! later probe replaces it; how old it is stands beside it.

pub mod edges;
pub mod instance;
pub mod place;
pub mod report;
pub mod text;

pub use edges::Edges;
pub use instance::{Instance, Place, ProbeFailure};
pub use report::{
    BinlogCoordinates, Classification, Flavour, GroupMembership, MissingPrivilege, ProbeReport,
    PromotionRule, Purpose, ReplicaStatus, SemiSync, THROUGH_FENCE_MAX, ThreadState, ThroughFence,
    UsingGtid, Version, WrittenBy,
};
