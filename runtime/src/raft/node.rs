//! What the parts of raft share in one daemon, and how an introduction is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::id::{ClusterId, NodeId};
use super::identity::Identity;
use super::incoming::Receiving;
use super::link::Pool;
use super::log::LogStore;
use super::peers::{Judgement, Peers};
use super::sight;
use super::snapshot::SnapshotFile;
use super::strangers::Strangers;
use super::tls::{Certificate, Security};
use super::types::{Metrics, Raft, metrics_of};
use super::wire::{Hello, Introduction, Refusal, RefusalKind};
use super::{PeerMessage, RaftSettings};
use crate::env::{Env, Mutant, spawn};

/// Peers of which is known why they were refused last, at most.
const REFUSED_MAX: usize = 64;
/// Bytes of a remark that are taken from a peer, at most.
const REMARK_BYTES_MAX: usize = 2_000;
/// What people are to do of whom there seem to be two. A later start shows by its number which of them is the older.
const START_AGAIN: &str = "If this directory was restored from an earlier state, start again: it is recognised then, and comes \
    back as another node. If it was copied to another machine, move it away on one of the two";

/// One daemon's raft.
pub(super) struct Node<E: Env> {
    pub(super) id: u64,
    pub(super) boot: u64,
    /// Drawn at this start.
    pub(super) instance: u64,
    pub(super) settings: RaftSettings,
    pub(super) directory: PathBuf,
    pub(super) identity: Mutex<Identity>,
    pub(super) store: LogStore<E>,
    pub(super) snapshot: SnapshotFile,
    pub(super) peers: Mutex<Peers>,
    pub(super) strangers: Mutex<Strangers>,
    /// The clusters that the entries of the own list belong to, by the last round of dialling them in which a member answered.
    pub(super) clusters_listed: Mutex<BTreeSet<[u8; 32]>>,
    /// Entries of the own list that led to this daemon itself when they were dialled last, and when that was.
    pub(super) own_entries: Mutex<BTreeMap<String, Duration>>,
    /// Addresses that the members know of, beside the own list, and who said to be there.
    pub(super) greeted: Mutex<BTreeMap<String, Option<NodeId>>>,
    /// Why newcomers are not let in, to be told to them.
    pub(super) explained: Mutex<BTreeMap<u64, String>>,
    /// Why this daemon is no member, as members said last, by the address that said it.
    pub(super) remarks: Mutex<BTreeMap<String, String>>,
    /// Held while the record learns of a cluster: it is founded or joined, once.
    pub(super) joining: tokio::sync::Mutex<()>,
    pub(super) raft: OnceLock<Raft<E>>,
    pub(super) pool: Pool<E>,
    pub(super) security: Security,
    /// May take part in a first formation: nothing was ever written, and the backend holds no cluster's state.
    pub(super) unused_backend: bool,
    /// The cluster whose state the backend holds.
    pub(super) backend_cluster: Option<ClusterId>,
    /// The identities that the list of nodes leads to; empty until all are known.
    pub(super) listed: Mutex<Vec<u64>>,
    /// The leader that was heard last, and when.
    pub(super) leader_heard: Mutex<Option<(u64, Duration)>>,
    pub(super) hand_over: Mutex<HandOver>,
    /// No vote is given before.
    pub(super) votes_from: Duration,
    /// Snapshots that peers send.
    pub(super) receiving: Receiving,
    /// Held while one of them is installed.
    pub(super) installing: tokio::sync::Mutex<()>,
    pub(super) inbox: mpsc::Sender<PeerMessage>,
    /// Becomes true when this raft is to end.
    pub(super) stop: watch::Sender<bool>,
    /// Why this raft cannot go on.
    pub(super) fatal: watch::Sender<Option<String>>,
    /// Why there is no cluster yet, in words.
    pub(super) waiting: Mutex<Option<String>>,
    /// Why who was refused last: who dials without pause is told of once.
    pub(super) last_refused: Mutex<BTreeMap<u64, String>>,
    pub(super) lock: Mutex<Option<E::DirLock>>,
}

/// What giving leadership away has to know.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// In this term this node leads no more: openraft takes no proposals and sends no heartbeats once it was told to
    /// hand over, until a term with another leader.
    pub(super) term: Option<u64>,
    /// The last confirmation of leadership is good until then.
    pub(super) confirmed_until: Duration,
}

/// The outcome of a handshake on the side that was dialled.
pub(super) enum Verdict {
    /// What follows is processed.
    Accepted,
    /// The peer only wanted to know who is here; why it is not listened to otherwise, if it is not.
    Introduced(Option<String>),
    Refused(Refusal),
}

fn refused(kind: RefusalKind, text: String) -> Verdict {
    Verdict::Refused(Refusal { kind, text })
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a node whose backend is of one cluster is not let into another.
pub(super) fn foreign(held: ClusterId, cluster: ClusterId) -> String {
    format!(
        "the backend of this node belongs to cluster {held}, and it would be let into {cluster}: two clusters are never joined. \
         Give it an empty backend, after a look at what is in this one, and start it again"
    )
}

impl<E: Env> Node<E> {
    /// What raft says of itself, once it is started.
    pub(super) fn metrics(&self) -> Option<Metrics<E>> {
        self.raft.get().map(metrics_of)
    }

    pub(super) fn cluster(&self) -> Option<ClusterId> {
        locked(&self.identity).cluster
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unused_backend && self.cluster().is_none() && self.store.is_empty()
    }

    /// The cluster that the backend belongs to, of a node that belongs to none and whose list leads to members of others: none
    /// of them can let it in.
    pub(super) fn foreign_backend(&self) -> Option<ClusterId> {
        let held = self.backend_cluster?;
        let listed = locked(&self.clusters_listed);
        let is_foreign = !listed.is_empty() && !listed.contains(&held.0);
        (is_foreign && self.cluster().is_none()).then_some(held)
    }

    pub(super) fn introduction(&self) -> Introduction {
        let durable = self.store.durable();
        let cluster = self.cluster().or_else(|| self.foreign_backend());
        Introduction {
            node: self.id,
            cluster: cluster.map(|cluster| cluster.0),
            boot: self.boot,
            instance: self.instance,
            term: durable.vote.map_or(0, |vote| vote.term),
            last: durable.last,
            advertise: self.settings.advertise.clone(),
            http_uri: self.settings.http_uri.clone(),
            version: self.settings.release.reads_both(),
            empty: self.is_empty(),
            listed: locked(&self.listed).clone(),
        }
    }

    /// Ends raft for a reason that the daemon exits with. The first reason stays. From here on nothing is said to peers or
    /// taken from them.
    pub(super) fn fail(&self, reason: String) {
        self.stop.send_replace(true);
        self.fatal.send_if_modified(|fatal| {
            if fatal.is_none() {
                *fatal = Some(reason);
                return true;
            }
            false
        });
    }

    /// Why a peer at this address is not who it says it is, by its certificate: nothing that it says is taken for that
    /// identity's. A node that was taken out keeps a certificate that is valid, and is bound by it to where it is known.
    pub(super) fn impostor(
        &self,
        claimed: u64,
        address: &str,
        certificate: Option<&Certificate>,
    ) -> Option<String> {
        let certificate = certificate?;
        let members: Option<BTreeSet<u64>> = self.metrics().map(|metrics| {
            let membership = metrics.membership_config.membership();
            membership.nodes().map(|(node, _)| *node).collect()
        });
        // People say in their file that somebody is to be there, and who was there is none of us any more.
        let is_listed = self
            .settings
            .nodes
            .iter()
            .any(|entry| certificate.is_for(entry));
        let is_left =
            |other| is_listed && matches!(&members, Some(members) if !members.contains(&other));
        let mut peers = locked(&self.peers);
        let why = peers.impostor(claimed, |address| certificate.is_for(address), is_left)?;
        if peers.note_impostor(claimed, &why, E::mono()) {
            tracing::warn!(
                peer = address,
                "somebody calls itself node {}: {why}",
                NodeId(claimed)
            );
        }
        Some(why)
    }

    /// Judges the handshake of a peer that dialled this daemon.
    pub(super) fn judge_hello(&self, hello: &Hello) -> Verdict {
        let from = &hello.sender;
        let own = self.cluster().map(|cluster| cluster.0);
        if hello.to == 0 {
            // Who dials a list learns who is there; who is there learns who dials, if they belong together.
            if from.node == self.id {
                return Verdict::Introduced(None);
            }
            if own != from.cluster {
                locked(&self.strangers).introduce(from, None, E::mono());
                return Verdict::Introduced(None);
            }
            return Verdict::Introduced(self.meet(from, None).map(|refusal| refusal.text));
        }
        if hello.to != self.id && !E::has(Mutant::AnyTarget) {
            let text = format!("this is node {}, not {}", NodeId(self.id), NodeId(hello.to));
            return refused(RefusalKind::OtherNode, text);
        }
        if from.node == self.id && !E::has(Mutant::AnyTarget) {
            let text = format!(
                "the caller names itself {}, which is this node",
                NodeId(self.id)
            );
            return refused(RefusalKind::Twice, text);
        }
        let text = match (own, from.cluster) {
            (Some(own), Some(theirs)) if own == theirs => {
                return match self.meet(from, None) {
                    Some(refusal) => Verdict::Refused(refusal),
                    None => Verdict::Accepted,
                };
            }
            (Some(own), Some(theirs)) => {
                format!(
                    "the caller belongs to cluster {}, this node to {}",
                    ClusterId(theirs),
                    ClusterId(own)
                )
            }
            (Some(own), None) => format!(
                "the caller belongs to no cluster, this node to {}",
                ClusterId(own)
            ),
            (None, _) => "this node belongs to no cluster yet".to_owned(),
        };
        refused(RefusalKind::OtherCluster, text)
    }

    /// Judges who answered a connection to `address`, on which `wanted` (0: anyone) was asked for.
    pub(super) fn judge_answer(
        &self,
        wanted: u64,
        address: &str,
        from: &Introduction,
    ) -> Result<(), String> {
        if wanted != 0 && from.node != wanted && !E::has(Mutant::AnyTarget) {
            return Err(format!(
                "{address} is node {}, not {}",
                NodeId(from.node),
                NodeId(wanted)
            ));
        }
        if from.node == self.id {
            locked(&self.own_entries).insert(address.to_owned(), E::mono());
            return Ok(());
        }
        locked(&self.own_entries).remove(address);
        if from.cluster != self.cluster().map(|cluster| cluster.0) {
            locked(&self.strangers).introduce(from, Some(address), E::mono());
            return Ok(());
        }
        match self.meet(from, Some(address)) {
            Some(refusal) => Err(refusal.text),
            None => Ok(()),
        }
    }

    /// Takes in an introduction from within the cluster (or from a node that belongs to none, like this one); why it is
    /// not listened to.
    fn meet(&self, from: &Introduction, dialled: Option<&str>) -> Option<Refusal> {
        // What it acknowledged in its earlier run counts up to the last entry: the end of its log may be what it lost.
        if let Some(raft) = self.raft.get() {
            super::handle::note_progress(self, raft);
        }
        let members = sight::members(self);
        // At a start it may not be known yet who they are.
        let is_known = !members.is_empty() || self.cluster().is_none();
        let members = is_known.then_some(&members);
        let (judgement, record) = {
            let mut peers = locked(&self.peers);
            let judgement = peers.introduce(from, dialled, E::mono(), members);
            (
                judgement,
                peers.get(from.node).map(|peer| peer.record.clone()),
            )
        };
        if matches!(judgement, Judgement::Fine(_))
            && let Some(metrics) = self.metrics()
        {
            let committed = metrics.cluster_committed.map_or(0, |id| id.index);
            let held = from.last.map_or(0, |last| last.index);
            locked(&self.peers).note_lack(from.node, committed.saturating_sub(held));
        }
        match judgement {
            Judgement::Fine(changed) => {
                locked(&self.strangers).forget(from.node);
                if changed && let Some(record) = record {
                    self.save_peer(from.node, &record);
                }
                None
            }
            Judgement::Twice(why) => {
                tracing::error!(peer = %NodeId(from.node), "{why}; the second is not listened to");
                Some(Refusal {
                    kind: RefusalKind::Twice,
                    text: why,
                })
            }
            Judgement::Early(why) => {
                tracing::debug!(peer = %NodeId(from.node), "{why}");
                // It may come again.
                Some(Refusal {
                    kind: RefusalKind::OtherNode,
                    text: why,
                })
            }
            Judgement::Back(why) => {
                tracing::error!(peer = %NodeId(from.node), "{why}; it is not listened to");
                Some(Refusal {
                    kind: RefusalKind::WentBack,
                    text: why,
                })
            }
        }
    }

    /// Says why somebody is not listened to, once for as long as nothing else is said of it.
    pub(super) fn tell_once(&self, peer: u64, why: &str) {
        if self.is_news(peer, why) {
            tracing::warn!(peer = %NodeId(peer), "not listened to by raft: {why}");
        }
    }

    /// Whether something else was said last of why a peer is refused.
    pub(super) fn is_news(&self, peer: u64, why: &str) -> bool {
        let mut last = locked(&self.last_refused);
        if last.len() >= REFUSED_MAX && !last.contains_key(&peer) {
            // Whoever goes on is told of once more.
            last.clear();
        }
        last.insert(peer, why.to_owned()).as_deref() != Some(why)
    }

    /// A peer does not listen to this daemon, which dialled `wanted` (0: anyone). Two reasons end it, if a member says so or
    /// who was meant: its identity went back and is retired for good, or another process runs under it.
    pub(super) fn refused_by(
        self: &Arc<Self>,
        wanted: u64,
        peer: &Introduction,
        refusal: &Refusal,
    ) {
        let text = format!(
            "node {} refuses this node: {}",
            NodeId(peer.node),
            refusal.text
        );
        locked(&self.peers).refuse(peer.node, Some(text.clone()));
        if refusal.kind == RefusalKind::Version {
            self.tell_once(peer.node, &text);
        }
        if peer.cluster != self.cluster().map(|cluster| cluster.0) || peer.cluster.is_none() {
            return;
        }
        let ends = matches!(refusal.kind, RefusalKind::Twice | RefusalKind::WentBack);
        if ends && wanted != peer.node && !sight::members(self).contains(&peer.node) {
            // Anybody of the cluster may be where an address leads to, and no member asked it.
            self.tell_once(
                peer.node,
                &format!("{text}; it is no member, and that is not obeyed"),
            );
            return;
        }
        match refusal.kind {
            RefusalKind::OtherNode | RefusalKind::OtherCluster | RefusalKind::Version => {}
            RefusalKind::Twice => self.fail(format!("{text}. {START_AGAIN}")),
            RefusalKind::WentBack => {
                let record = {
                    let mut identity = locked(&self.identity);
                    if identity.retired.is_some() {
                        // Another connection learnt it first and writes it down.
                        return;
                    }
                    identity.retired = Some(text.clone());
                    identity.clone()
                };
                // In a task of its own: whoever waits for this handshake may give up, and it must end all the same.
                let node = self.clone();
                spawn::<E>(async move {
                    let directory = node.directory.clone();
                    if let Err(error) = E::blocking(move || record.save::<E>(&directory)).await {
                        tracing::error!(
                            "the retirement of this identity cannot be written down: {error}"
                        );
                    }
                    node.fail(format!(
                        "{text}. This identity is retired; at the next start this node comes back as another"
                    ));
                });
            }
        }
    }

    /// A member of a cluster lets this daemon in: from here on it belongs there, durably. Accepted from the one cluster
    /// that its own list leads to, by a daemon that holds nothing of another.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn join(self: &Arc<Self>, cluster: [u8; 32]) -> Result<(), String> {
        // In a task of its own: whoever invites may give up, and a record that is half written must be finished.
        let (node, (done, joined)) = (self.clone(), oneshot::channel());
        spawn::<E>(async move {
            let _ = done.send(node.join_here(cluster).await);
        });
        let ended = |_| Err("this node ends".to_owned());
        joined.await.unwrap_or_else(ended)
    }

    async fn join_here(&self, cluster: [u8; 32]) -> Result<(), String> {
        let _joining = self.joining.lock().await;
        let cluster = ClusterId(cluster);
        let mut identity = locked(&self.identity).clone();
        match identity.cluster {
            Some(own) if own == cluster => return Ok(()),
            Some(own) => return Err(format!("this node belongs to cluster {own} already")),
            None => {}
        }
        if !self.store.is_empty() {
            return Err(
                "this node belongs to no cluster and its raft directory is not empty".to_owned(),
            );
        }
        if let Some(held) = self.backend_cluster
            && held != cluster
        {
            return Err(foreign(held, cluster));
        }
        let listed = locked(&self.clusters_listed).clone();
        if !listed.contains(&cluster.0) {
            return Err(format!(
                "none of this node's RaftNodes answers as a member of cluster {cluster}"
            ));
        }
        if listed.len() > 1 {
            return Err("this node's RaftNodes lead to members of several clusters".to_owned());
        }
        identity.cluster = Some(cluster);
        identity.founders = Vec::new();
        identity.entries.clone_from(&self.settings.nodes);
        let (directory, record) = (self.directory.clone(), identity.clone());
        E::blocking(move || record.save::<E>(&directory))
            .await
            .map_err(|error| format!("the identity record cannot be written: {error}"))?;
        tracing::info!(cluster = %cluster, "this node is let into the raft cluster");
        *locked(&self.identity) = identity;
        *locked(&self.waiting) = None;
        Ok(())
    }

    /// Keeps what a member said of why this daemon is none, or that it said nothing.
    pub(super) fn note_remark(&self, address: &str, remark: Option<String>) {
        let mut remarks = locked(&self.remarks);
        match remark.filter(|remark| remark.len() <= REMARK_BYTES_MAX) {
            Some(remark) => remarks.insert(address.to_owned(), remark),
            None => remarks.remove(address),
        };
    }

    /// What members say of why this daemon is none, once each.
    pub(super) fn remark(&self) -> Option<String> {
        let remarks = locked(&self.remarks);
        let distinct: BTreeSet<&String> = remarks.values().collect();
        if distinct.is_empty() {
            return None;
        }
        let all: Vec<&str> = distinct.into_iter().map(String::as_str).collect();
        Some(all.join("; "))
    }

    /// Notes the term, and the entry of that term, that a peer is known to have on stable storage.
    pub(super) fn saw(&self, peer: u64, term: u64, last: Option<super::wire::LogIdV1>) {
        let changed = locked(&self.peers).saw(peer, term, last);
        if let Some(record) = changed {
            self.save_peer(peer, &record);
        }
    }

    fn save_peer(&self, peer: u64, record: &super::peers::PeerRecord) {
        if let Err(error) = self.store.save_peer(peer, record) {
            tracing::debug!(
                "what was learnt of node {} is not kept: {error}",
                NodeId(peer)
            );
        }
    }
}
