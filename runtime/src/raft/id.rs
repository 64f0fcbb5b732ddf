//! The names raft shares with the core.

pub use orchestrator_core::id::{ClusterId, Epoch, LogPosition, NodeId};
