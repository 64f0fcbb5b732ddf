//! How this daemon does and what it sees of the others, in words.
//!
//! Decides what counts as missing and as behind. Two kinds are told apart: what keeps this daemon from doing its part, and
//! what is wrong elsewhere, which a person may want to mend before one more daemon is lost.

use std::time::Duration;

use super::{BackendHealth, Peer, RaftFacts};
use crate::roll::MISSING_AFTER;

/// Entries that a member may lack before it is worth a word.
const BEHIND_MAX: u64 = 1000;
/// Age of the oldest change that is not in the backend, from which on leadership is yielded.
const BACKEND_LATE: Duration = Duration::from_secs(5);

/// A member's trouble; empty when there is none.
pub(super) fn trouble_of(peer: &Peer, facts: &RaftFacts) -> String {
    if peer.node == facts.node {
        return String::new();
    }
    if let Some(why) = &peer.refusal {
        return why.clone();
    }
    match peer.heard {
        None => return String::from("it was never heard of since this daemon started"),
        Some(since) if since > MISSING_AFTER => {
            return format!("it was heard of last {} s ago", since.as_secs());
        }
        Some(_) => {}
    }
    match behind(peer, facts) {
        Some(entries) if entries > BEHIND_MAX => {
            format!("it lacks {entries} entries of the log, and is catching up")
        }
        Some(_) | None => peer.impostor.as_ref().map_or_else(String::new, |why| {
            format!("somebody else calls itself this one, and is refused: {why}")
        }),
    }
}

/// How many entries of the log a member lacks; not known of one that was never heard.
pub(super) fn behind(peer: &Peer, facts: &RaftFacts) -> Option<u64> {
    if peer.node == facts.node {
        return Some(facts.committed.saturating_sub(facts.applied));
    }
    peer.lacks
}

/// The addresses of members that are not there.
pub(super) fn missing(facts: &RaftFacts) -> Vec<String> {
    let others = facts.peers.iter().filter(|peer| peer.node != facts.node);
    others
        .filter(|peer| {
            peer.refusal.is_some() || peer.heard.is_none_or(|since| since > MISSING_AFTER)
        })
        .map(|peer| peer.address.clone())
        .collect()
}

/// What keeps this daemon from being healthy.
pub(super) fn reasons(facts: &RaftFacts, backend: &BackendHealth) -> Vec<String> {
    let of_raft = facts.health.clone().err();
    of_raft.into_iter().chain(of_backend(backend)).collect()
}

/// What keeps the backend from being healthy.
pub(super) fn of_backend(backend: &BackendHealth) -> Option<String> {
    (backend.oldest_unwritten > BACKEND_LATE).then(|| {
        format!(
            "the backend is {} s behind, and ends this daemon at 30 s: {}",
            backend.oldest_unwritten.as_secs(),
            backend.error.as_deref().unwrap_or("it does not answer")
        )
    })
}

/// What is wrong elsewhere, and what the loss of one more daemon would mean.
pub(super) fn warnings(facts: &RaftFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    for peer in &facts.peers {
        let trouble = trouble_of(peer, facts);
        if !trouble.is_empty() {
            warnings.push(format!("{} (node {}): {trouble}", peer.address, peer.node));
        }
    }
    let lacks = facts.committed.saturating_sub(facts.applied);
    if lacks > BEHIND_MAX {
        warnings.push(format!(
            "this daemon lacks {lacks} entries of the log, and is catching up: what it shows may be older"
        ));
    }
    let missing = missing(facts);
    let voters = facts.peers.iter().filter(|peer| peer.is_voter);
    let there = voters
        .clone()
        .filter(|peer| !missing.contains(&peer.address))
        .count();
    let voters = voters.count();
    let needed = voters / 2 + 1;
    if !missing.is_empty() && there == needed {
        warnings.push(format!(
            "{there} of {voters} voters are there and {needed} are needed: no further one may be lost"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::facts_of_a_follower;
    use orchestrator_core::id::NodeId;

    #[test]
    fn what_is_missing_is_said() {
        let backend = BackendHealth::default();
        let mut facts = facts_of_a_follower("http://b:3000");
        let mut third = facts.peers[1].clone();
        third.node = NodeId(3);
        third.address = String::from("10.0.0.3:10008");
        facts.peers.push(third);
        assert_eq!(reasons(&facts, &backend), Vec::<String>::new());
        assert_eq!(warnings(&facts), Vec::<String>::new());
        assert_eq!(missing(&facts), Vec::<String>::new());

        facts.peers[2].heard = Some(Duration::from_secs(12));
        assert_eq!(missing(&facts), ["10.0.0.3:10008"]);
        assert_eq!(
            warnings(&facts),
            [
                "10.0.0.3:10008 (node 0000000000000003): it was heard of last 12 s ago",
                "2 of 3 voters are there and 2 are needed: no further one may be lost",
            ]
        );

        facts.peers[2].heard = Some(Duration::ZERO);
        assert_eq!(behind(&facts.peers[2], &facts), None);
        facts.peers[2].lacks = Some(5000);
        assert_eq!(behind(&facts.peers[2], &facts), Some(5000));
        assert_eq!(warnings(&facts).len(), 1);
        assert_eq!(missing(&facts), Vec::<String>::new());

        let own = facts.peers[0].clone();
        assert_eq!((own.node, behind(&own, &facts)), (facts.node, Some(0)));
        facts.committed = facts.applied + 1001;
        assert_eq!(behind(&own, &facts), Some(1001));
        assert_eq!(
            warnings(&facts)[1],
            "this daemon lacks 1001 entries of the log, and is catching up: what it shows may be older"
        );
        facts.committed = facts.applied;

        facts.peers[2].lacks = Some(0);
        facts.peers[2].impostor = Some(String::from("its certificate is another's"));
        assert_eq!(
            warnings(&facts),
            [
                "10.0.0.3:10008 (node 0000000000000003): somebody else calls itself this one, and is refused: its certificate \
                 is another's"
            ]
        );
        assert_eq!(missing(&facts), Vec::<String>::new());

        facts.peers[2].refusal = Some(String::from("it belongs to another cluster"));
        assert_eq!(missing(&facts), ["10.0.0.3:10008"]);
        facts.health = Err(String::from("no leader"));
        let backend = BackendHealth {
            oldest_unwritten: Duration::from_secs(9),
            error: Some(String::from("disk full")),
        };
        assert_eq!(
            reasons(&facts, &backend),
            [
                "no leader",
                "the backend is 9 s behind, and ends this daemon at 30 s: disk full",
            ]
        );
    }
}
