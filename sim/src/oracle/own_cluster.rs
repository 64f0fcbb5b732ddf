//! Own cluster: no daemon runs on the backend of another cluster than its raft data directory is of. What such a backend holds
//! was never decided where the daemon is a member, and its rows are taken for what was.

use orchestrator_core::id::ClusterId;

/// A daemon began to run. `held`: the cluster that its backend names, `own`: that of its raft data directory; none: no cluster
/// so far.
///
/// # Errors
/// They are two.
pub fn began(daemon: &str, held: Option<ClusterId>, own: Option<ClusterId>) -> Result<(), String> {
    match (held, own) {
        (Some(held), Some(own)) if held != own => Err(format!(
            "own cluster: {daemon} is of cluster {own} and runs on the backend of cluster {held}"
        )),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}
