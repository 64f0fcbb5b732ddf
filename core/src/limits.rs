//! Every bound on what comes from outside, with its unit. Reaching one is a note, never silence.

/// Longest host name accepted, in bytes (the tables keep 128 characters).
pub const HOST_NAME_BYTES_MAX: usize = 255;
/// Most servers a node keeps in view.
pub const INSTANCES_MAX: usize = 20_000;
/// Most entries of audit kept in replicated state, each kind.
pub const AUDIT_ENTRIES_MAX: usize = 10_000;
/// Most steps a single recovery may intend before it is given up.
pub const STEPS_PER_RECOVERY_MAX: usize = 4_096;
/// Longest free text taken from an operator (reason, comment, tag value), in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Longest error text kept from a server, in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 1_024;
/// Daemons that are remembered as able to see a primary.
pub const WITNESSES_PER_CLUSTER_MAX: usize = 64;
/// Most tags one server may carry.
pub const TAGS_PER_INSTANCE_MAX: usize = 256;
/// Most requests that may wait for an answer at once.
pub const REQUESTS_PENDING_MAX: usize = 4_096;
/// Most proposals on their way through raft at once.
pub const PROPOSALS_PENDING_MAX: usize = 1_024;
/// Most servers proposed as known in one command.
pub const KNOWN_PER_COMMAND_MAX: usize = 500;

/// Cuts a text from outside to a bound, at a character boundary.
pub fn bounded(mut text: alloc::string::String, bytes_max: usize) -> alloc::string::String {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
