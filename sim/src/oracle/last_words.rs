//! Last words: a daemon whose disk failed, or that may not use its backend, ends with a reason that says what people are to do.

/// It is to get an empty raft directory.
pub const MOVE_AWAY: &str = "move the directory away";
/// It is to get an empty backend.
pub const MOVE_BACKEND_AWAY: &str = "it is rebuilt from RaftDataDir";
const REMEDIES: [&str; 7] = [
    MOVE_AWAY,
    MOVE_BACKEND_AWAY,
    "comes back as another",
    "start again",
    "make room",
    "give the user that runs orchestrator the right",
    "run there: CREATE DATABASE IF NOT EXISTS",
];

/// # Errors
/// The reason names no remedy.
pub fn judge(daemon: &str, reason: &str) -> Result<(), String> {
    if REMEDIES.iter().any(|remedy| reason.contains(remedy)) {
        Ok(())
    } else {
        Err(format!(
            "last words: {daemon} ended because of its disk or its backend, without a word of what to do: {reason}"
        ))
    }
}
