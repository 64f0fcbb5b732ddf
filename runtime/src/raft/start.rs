//! What to do at a start, decided before openraft is given anything.
//!
//! A pure function of what the backend says of itself and what the raft directory holds. The raft directory is the truth:
//! it is never discarded for a backend, and a backend of another cluster is never touched.

use super::id::{ClusterId, LogPosition};

/// What a backend says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendPosition {
    /// The cluster whose state it holds; `None`: it never held any.
    pub cluster: Option<ClusterId>,
    /// The last entry written to it.
    pub at: Option<LogPosition>,
    /// Its digest matches its rows.
    pub digest_ok: bool,
}

/// What the raft directory holds. Positions are (term, index).
pub struct LogFacts<'a> {
    pub cluster: Option<ClusterId>,
    /// The last entry that was removed from the log; a snapshot covers it.
    pub purged: Option<(u64, u64)>,
    /// The last entry there is, or `purged` when none is left.
    pub last: Option<(u64, u64)>,
    /// The term of the entry at an index, if the log holds it.
    pub term_at: &'a dyn Fn(u64) -> Option<u64>,
}

/// What is to be done. Reasons are sentences for the log and the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartDecision {
    /// The backend is equal to the log or behind it, within what the log holds: write what follows `from`.
    Replay { from: Option<LogPosition> },
    /// The backend is written anew from the local snapshot and log; rows that those do not have are named in the log before.
    Rebuild { reason: String },
    /// The backend is ahead of the log with the same history. Nothing is applied that the log does not certainly have, so
    /// the directory went back: what this identity promised is not known any more.
    WentBack { at: LogPosition },
    /// The backend contradicts the log: it is discarded and written anew.
    DiscardBackend { reason: String },
    /// The backend belongs to a cluster, named or not, and this directory to none: this node must not form a cluster; it waits to
    /// be let in.
    WaitAsStranger { reason: String },
    /// Nothing is started.
    Refuse { reason: String },
}

/// The table of starts.
pub fn decide_start(backend: Option<BackendPosition>, log: &LogFacts<'_>) -> StartDecision {
    let Some(backend) = backend else {
        return match log.last {
            None => StartDecision::Replay { from: None },
            Some(_) => StartDecision::Rebuild {
                reason: "the backend is empty".to_owned(),
            },
        };
    };
    match (backend.cluster, log.cluster) {
        (Some(held), Some(own)) if held != own => {
            return StartDecision::Refuse {
                reason: format!(
                    "the backend belongs to cluster {held} and the raft data directory to cluster {own}; give this node its \
                     own backend, or the raft data directory that belongs to this one"
                ),
            };
        }
        (Some(held), None) => {
            return StartDecision::WaitAsStranger {
                reason: format!(
                    "the backend belongs to cluster {held} and the raft data directory is new: this node does not form a \
                     cluster, it waits for a member of that cluster to let it in"
                ),
            };
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    let Some(at) = backend.at else {
        return match log.last {
            None => StartDecision::Replay { from: None },
            Some(_) => StartDecision::Rebuild {
                reason: "the backend is empty".to_owned(),
            },
        };
    };
    if log.cluster.is_none() && log.last.is_none() {
        // An identity that promised nothing has nothing to be retired for; the next one would be met by the same rows.
        return StartDecision::WaitAsStranger {
            reason: format!(
                "the backend holds the state of a cluster at {at}, does not say of which, and the raft data directory is new: this \
                 node does not form a cluster, it waits for a member of that cluster to let it in"
            ),
        };
    }
    if !backend.digest_ok {
        return StartDecision::Rebuild {
            reason: format!("the backend's rows do not match its digest at {at}"),
        };
    }
    let Some((last_term, last_index)) = log.last else {
        return StartDecision::WentBack { at };
    };
    if at.index > last_index {
        return if at.term < last_term {
            discard(
                at,
                format!(
                    "terms do not fall, and the log reached term {last_term} at index {last_index} already"
                ),
            )
        } else {
            StartDecision::WentBack { at }
        };
    }
    if at.term > last_term {
        return discard(
            at,
            format!("the log ends with term {last_term} at index {last_index}"),
        );
    }
    if let Some((purged_term, purged_index)) = log.purged {
        if at.index < purged_index {
            return StartDecision::Rebuild {
                reason: format!(
                    "the backend ends at {at}, and the log begins after {purged_index}"
                ),
            };
        }
        if at.index == purged_index {
            return if at.term == purged_term {
                StartDecision::Replay { from: Some(at) }
            } else {
                discard(at, format!("the log has term {purged_term} there"))
            };
        }
    }
    match (log.term_at)(at.index) {
        Some(term) if term == at.term => StartDecision::Replay { from: Some(at) },
        Some(term) => discard(at, format!("the log has term {term} there")),
        None => discard(at, "the log has no such entry".to_owned()),
    }
}

fn discard(at: LogPosition, why: String) -> StartDecision {
    StartDecision::DiscardBackend {
        reason: format!("the backend ends at {at} and contradicts the log: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::id::NodeId;

    const OWN: ClusterId = ClusterId([1; 32]);
    const OTHER: ClusterId = ClusterId([2; 32]);

    /// A log purged up to 2@10, with entries of term 2 up to 15 and of term 4 up to 20.
    fn term_at(index: u64) -> Option<u64> {
        match index {
            11..=15 => Some(2),
            16..=20 => Some(4),
            _ => None,
        }
    }

    fn log() -> LogFacts<'static> {
        LogFacts {
            cluster: Some(OWN),
            purged: Some((2, 10)),
            last: Some((4, 20)),
            term_at: &term_at,
        }
    }

    fn fresh() -> LogFacts<'static> {
        LogFacts {
            cluster: None,
            purged: None,
            last: None,
            term_at: &|_| None,
        }
    }

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition {
            term,
            index,
            node: NodeId(0),
        }
    }

    fn backend(term: u64, index: u64) -> Option<BackendPosition> {
        Some(BackendPosition {
            cluster: Some(OWN),
            at: Some(at(term, index)),
            digest_ok: true,
        })
    }

    #[track_caller]
    fn check(backend: Option<BackendPosition>, log: LogFacts<'_>, wanted: &str) {
        let decision = format!("{:?}", decide_start(backend, &log));
        assert!(decision.starts_with(wanted), "{decision}, wanted {wanted}");
    }

    #[test]
    fn equal_or_behind_within_the_log_is_replayed() {
        check(backend(4, 20), log(), "Replay { from: Some");
        check(backend(2, 15), log(), "Replay { from: Some");
        check(backend(2, 10), log(), "Replay { from: Some");
    }

    #[test]
    fn behind_the_purged_log_empty_or_damaged_is_rebuilt() {
        check(backend(2, 9), log(), "Rebuild");
        check(backend(1, 3), log(), "Rebuild");
        check(None, log(), "Rebuild");
        check(
            Some(BackendPosition {
                cluster: None,
                at: None,
                digest_ok: true,
            }),
            log(),
            "Rebuild",
        );
        check(
            Some(BackendPosition {
                cluster: Some(OWN),
                at: None,
                digest_ok: true,
            }),
            log(),
            "Rebuild",
        );
        check(
            Some(BackendPosition {
                digest_ok: false,
                ..backend(4, 20).unwrap()
            }),
            log(),
            "Rebuild",
        );
    }

    #[test]
    fn ahead_with_the_same_history_went_back() {
        check(backend(4, 21), log(), "WentBack");
        check(backend(5, 30), log(), "WentBack");
        let emptied = LogFacts {
            purged: None,
            last: None,
            term_at: &|_| None,
            ..log()
        };
        check(backend(4, 21), emptied, "WentBack");
    }

    #[test]
    fn contradictions_discard_the_backend() {
        check(backend(5, 20), log(), "DiscardBackend");
        check(backend(5, 18), log(), "DiscardBackend");
        check(backend(3, 18), log(), "DiscardBackend");
        check(backend(1, 10), log(), "DiscardBackend");
        check(backend(3, 25), log(), "DiscardBackend");
    }

    #[test]
    fn another_cluster_is_refused() {
        check(
            Some(BackendPosition {
                cluster: Some(OTHER),
                ..backend(4, 20).unwrap()
            }),
            log(),
            "Refuse",
        );
        check(
            Some(BackendPosition {
                cluster: Some(OTHER),
                at: None,
                digest_ok: true,
            }),
            log(),
            "Refuse",
        );
    }

    #[test]
    fn a_new_directory_with_a_used_backend_waits() {
        check(backend(4, 20), fresh(), "WaitAsStranger");
        // Its metadata rotted.
        for digest_ok in [true, false] {
            let nameless = BackendPosition {
                cluster: None,
                digest_ok,
                ..backend(4, 20).unwrap()
            };
            check(Some(nameless), fresh(), "WaitAsStranger");
        }
    }

    #[test]
    fn a_new_node_starts_from_nothing() {
        check(None, fresh(), "Replay { from: None }");
        check(
            Some(BackendPosition {
                cluster: None,
                at: None,
                digest_ok: true,
            }),
            fresh(),
            "Replay { from: None }",
        );
    }
}
