//! Whether all daemons hold the same state. Each tells the others, now and then, the digest of what it has applied up to
//! some position; who has applied that position compares. A difference is an alarm: the daemons would decide differently.
//! Nothing is mended here, and nothing is decided by it.
//!
//! Holds between calls: what a peer said of a position that this daemon has not applied is kept until it has, one
//! position for each peer.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
};
use core::time::Duration;

use super::{Effect, Level, Node, Output, PeerMessage, note};
use crate::{
    id::{LogPosition, NodeId},
    time::{Mono, Now},
};

/// How often each daemon tells its digest.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Digests of the newest entries are kept, so many; a daemon that is further behind is compared when it has caught up.
const KEPT_MAX: usize = 1_024;
/// Peers that are kept count of; far more than a cluster has members.
const PEERS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// By position, ascending.
    digests: VecDeque<(LogPosition, [u8; 32])>,
    /// What peers said of positions that are not applied here.
    ahead: BTreeMap<NodeId, (LogPosition, [u8; 32])>,
    /// Whose state differs, and the first position at which that was seen.
    differs: BTreeMap<NodeId, LogPosition>,
    told: Option<Mono>,
}

impl Node {
    /// Members whose state differs from this daemon's, and where that was seen first. Empty unless something is badly
    /// wrong: a bug, damaged memory, or programs that apply a command differently.
    #[must_use]
    pub const fn disagreements(&self) -> &BTreeMap<NodeId, LogPosition> {
        &self.agreement.differs
    }

    /// An entry was applied.
    pub(super) fn note_digest(&mut self, out: &mut Output) {
        let at = self.replicated.applied();
        if self
            .agreement
            .digests
            .back()
            .is_some_and(|(last, _)| *last >= at)
        {
            return;
        }
        if self.agreement.digests.len() >= KEPT_MAX {
            self.agreement.digests.pop_front();
        }
        self.agreement.digests.push_back((at, self.digest()));
        while let Some((from, (heard, digest))) = self
            .agreement
            .ahead
            .iter()
            .find(|(_, (heard, _))| heard.index <= at.index)
            .map(|(from, heard)| (*from, *heard))
        {
            self.agreement.ahead.remove(&from);
            self.compare(from, heard, digest, out);
        }
    }

    /// A snapshot took the place of the state.
    pub(super) fn installed(&mut self) {
        self.agreement.digests.clear();
        let at = (self.replicated.applied(), self.digest());
        self.agreement.digests.push_back(at);
        self.agreement.differs.clear();
    }

    pub(super) fn tell_digest(&mut self, now: Now, out: &mut Output) {
        let due = self
            .agreement
            .told
            .is_none_or(|at| now.mono.since(at) >= TELL_INTERVAL);
        if let Some((at, digest)) = self.agreement.digests.back().copied()
            && due
        {
            self.agreement.told = Some(now.mono);
            out.effects
                .push(Effect::Tell(PeerMessage::Digest { at, digest }));
        }
    }

    pub(super) fn digest_heard(
        &mut self,
        from: NodeId,
        at: LogPosition,
        digest: [u8; 32],
        out: &mut Output,
    ) {
        if at.index <= self.replicated.applied().index {
            self.compare(from, at, digest, out);
        } else if self.agreement.ahead.len() < PEERS_MAX || self.agreement.ahead.contains_key(&from)
        {
            self.agreement.ahead.insert(from, (at, digest));
        }
    }

    fn compare(&mut self, from: NodeId, at: LogPosition, digest: [u8; 32], out: &mut Output) {
        let kept = &self.agreement.digests;
        let Ok(place) = kept.binary_search_by_key(&at.index, |(kept, _)| kept.index) else {
            // Too far behind, or before a snapshot.
            return;
        };
        let Some((own_at, own)) = kept.get(place).copied() else {
            return;
        };
        if (own_at, own) == (at, digest) {
            if self.agreement.differs.remove(&from).is_some() {
                let text =
                    format!("the state of {from} is the same as this daemon's again, at {at}");
                note(out, Level::Warning, None, text);
            }
        } else if self.agreement.differs.len() < PEERS_MAX
            && !self.agreement.differs.contains_key(&from)
        {
            self.agreement.differs.insert(from, at);
            let text = if own_at == at {
                format!(
                    "ALARM: at entry {at} of the raft log the state of {from} differs from this daemon's. One of the two is \
                     wrong: compare with the third, stop the one that differs and give it an empty RaftDataDir and backend"
                )
            } else {
                format!(
                    "ALARM: entry {} of the raft log is {at} for {from} and {own_at} for this daemon: they hold two \
                     histories. Stop the one that the others do not agree with and give it an empty RaftDataDir and backend",
                    at.index
                )
            };
            note(out, Level::Error, None, text);
        }
    }
}
