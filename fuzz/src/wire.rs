//! Frames between daemons and what lies in the raft directory.

/// The bytes as each kind of message, entry, snapshot file and identity.
pub fn run(data: &[u8]) {
    orchestrator::raft::check_bytes(data);
}
