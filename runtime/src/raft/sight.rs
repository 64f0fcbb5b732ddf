//! What the layer above is shown of the other daemons, and the changes of members that it asks for.
//!
//! Decides nothing about who is to be a member: a change is appended exactly as it was asked for, against the membership
//! entry that it was decided from, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::raft::Precondition;
use orchestrator_core::membership::{Listed, Own, Seen, Sight, Standing};
use orchestrator_core::time::Mono;

use super::id::{ClusterId, LogPosition, NodeId};
use super::link;
use super::node::{Node, locked};
use super::wire::{self, LogIdV1};
use super::{Members, RaftHandle};
use crate::env::{Env, Mutant, timeout};

/// An entry of the list leads to a daemon if it was heard, or answered there, within this time.
const LISTED_FRESH: Duration = Duration::from_secs(10);

/// Everybody who is a member by the newest membership this node knows, itself included.
pub(super) fn members<E: Env>(node: &Node<E>) -> BTreeSet<u64> {
    let Some(metrics) = node.metrics() else {
        return BTreeSet::new();
    };
    let membership = metrics.membership_config.membership();
    membership.nodes().map(|(node, _)| *node).collect()
}

/// It neither leads nor heard its leader lately.
pub(super) fn is_lonely<E: Env>(node: &Node<E>) -> bool {
    let metrics = node.metrics();
    let leads = metrics.is_some_and(|metrics| metrics.current_leader == Some(node.id));
    let patience = node.settings.election_timeout() * 4;
    let heard = *locked(&node.leader_heard);
    !leads && heard.is_none_or(|(_, at)| E::mono() >= at + patience)
}

/// Who answers at each entry of the own list.
fn listed<E: Env>(node: &Node<E>) -> Vec<Listed> {
    let now = E::mono();
    let fresh = |at: Duration| now < at + LISTED_FRESH;
    let own_entries = locked(&node.own_entries).clone();
    let peers = locked(&node.peers);
    let strangers = locked(&node.strangers);
    let leads_to = |entry: &String| {
        if *entry == node.settings.advertise || own_entries.contains_key(entry) {
            return Some(node.id);
        }
        let stranger = strangers
            .iter()
            .filter_map(|(stranger, known)| {
                let (address, at) = known.answered.as_ref()?;
                (address == entry && fresh(*at)).then_some((*at, stranger))
            })
            .max();
        let peer = peers.at_address(entry).and_then(|peer| {
            let heard = peers.get(peer)?.heard?;
            fresh(heard).then_some((heard, peer))
        });
        stranger.max(peer).map(|(_, found)| found)
    };
    node.settings
        .nodes
        .iter()
        .map(|entry| Listed {
            entry: entry.clone(),
            node: leads_to(entry).map(NodeId),
        })
        .collect()
}

/// The list that the cluster was formed with, or with which this node was let in.
fn came_with<E: Env>(node: &Node<E>) -> Vec<String> {
    let identity = locked(&node.identity);
    if E::has(Mutant::FreshDeclares) && identity.founders.is_empty() && identity.cluster.is_some() {
        return vec![node.settings.advertise.clone()];
    }
    identity.entries.clone()
}

/// The own list with who answers at each entry, if somebody does at all of them.
pub(super) fn whole_list<E: Env>(node: &Node<E>) -> Option<Vec<(String, u64)>> {
    listed(node)
        .into_iter()
        .map(|listed| Some((listed.entry, listed.node?.0)))
        .collect()
}

/// The voters whose addresses lead to somebody without memory, if so many are left that no majority can be had.
pub(super) fn memory_lost<E: Env>(node: &Node<E>) -> Option<String> {
    let metrics = node.metrics()?;
    let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
    let now = E::mono();
    let peers = locked(&node.peers);
    let strangers = locked(&node.strangers);
    let is_lost = |voter: &&u64| {
        let addresses = peers.addresses(**voter);
        let heard = peers.get(**voter).and_then(|peer| peer.heard);
        **voter != node.id
            && strangers.iter().any(|(_, stranger)| {
                stranger.answered.as_ref().is_some_and(|(address, at)| {
                    addresses.contains(address)
                        && now < *at + LISTED_FRESH
                        && heard.is_none_or(|heard| heard < *at)
                })
            })
    };
    let lost = voters.iter().filter(is_lost).count();
    let left = voters.len() - lost;
    (lost > 0 && left * 2 <= voters.len()).then(|| {
        format!(
            "{lost} of {} members have lost their memory, and what is left is no majority: decide which data counts and use \
             `orchestrator raft recover` on one node, then provision the others anew",
            voters.len()
        )
    })
}

impl<E: Env> RaftHandle<E> {
    /// What this daemon sees of the others.
    pub fn sight(&self) -> Sight {
        let node = &self.node;
        let settings = &node.settings;
        let mut sight = Sight {
            own: Own {
                raft_address: settings.advertise.clone(),
                http_uri: settings.http_uri.clone(),
                build: settings.build.clone(),
                reads_command: settings.release.reads.command,
                reads_snapshot: settings.release.reads.snapshot,
                protocols: Some(settings.release.protocols),
            },
            listed: listed(node),
            came_with: came_with(node),
            replace_silent: settings.replace_silent,
            replace_per_hour: settings.replace_per_hour,
            ..Sight::default()
        };
        let members = members(node);
        let own_cluster = node.cluster();
        for (peer, known) in locked(&node.peers).iter() {
            let address = if known.advertise.is_empty() {
                known.record.addresses.first().cloned().unwrap_or_default()
            } else {
                known.advertise.clone()
            };
            let answers = known
                .answered
                .as_ref()
                .filter(|(answered, _)| *answered == address)
                .map(|(_, at)| Mono::from_elapsed(*at));
            let standing = match &known.refusal {
                _ if members.contains(&peer) => Standing::Member,
                None => Standing::Stranger,
                Some(why) => Standing::Elsewhere(format!("is not listened to: {why}")),
            };
            let seen = Seen {
                address,
                answers,
                heard: known.heard.map(Mono::from_elapsed),
                standing,
                matched: None,
                reads: known.version,
            };
            sight.nodes.insert(NodeId(peer), seen);
        }
        for (stranger, known) in locked(&node.strangers).iter() {
            let from = &known.introduction;
            let answers = known
                .answered
                .as_ref()
                .filter(|(answered, _)| *answered == from.advertise)
                .map(|(_, at)| Mono::from_elapsed(*at));
            let standing = match (from.cluster, own_cluster) {
                (Some(theirs), Some(own)) if theirs != own.0 => Standing::Elsewhere(format!(
                    "belongs to cluster {}, and this one is {own}: two clusters are never joined; empty its RaftDataDir \
                     and backend to let it in",
                    ClusterId(theirs)
                )),
                (None, _) if from.term > 0 || from.last.is_some() => Standing::Elsewhere(
                    "belongs to no cluster, and its RaftDataDir is not empty: empty it to let it in"
                        .to_owned(),
                ),
                (Some(_) | None, _) => Standing::Stranger,
            };
            let seen = Seen {
                address: from.advertise.clone(),
                answers,
                heard: Some(Mono::from_elapsed(known.heard)),
                standing,
                matched: None,
                reads: Some(from.version),
            };
            // Whoever was met before there was a cluster is known as a peer, and is heard as a stranger since there is one.
            let is_later = |met: &Seen| met.standing != Standing::Member && met.heard < seen.heard;
            if sight.nodes.get(&NodeId(stranger)).is_none_or(is_later) {
                sight.nodes.insert(NodeId(stranger), seen);
            }
        }
        sight.nodes.remove(&NodeId(node.id));
        if let Some(metrics) = node.metrics() {
            sight.last_index = metrics.last_log_index.unwrap_or(0);
            for (peer, matched) in metrics.replication.iter().flatten() {
                if let Some(seen) = sight.nodes.get_mut(&NodeId(*peer)) {
                    seen.matched = matched.as_ref().map(|id| id.index);
                }
            }
        }
        sight
    }

    /// Appends exactly these members and waits until they are committed, if the last ones are those of the entry `base`;
    /// before that, lets the invited join.
    ///
    /// # Errors
    /// They were not appended, or it is not known whether they were; in words.
    pub async fn seat(
        &self,
        base: LogPosition,
        members: &Members,
        invited: &BTreeSet<NodeId>,
        deadline: Duration,
    ) -> Result<(), String> {
        let raft = self.node.raft.get().ok_or("raft is being started")?;
        if E::has(Mutant::ChangeInMemory) && !self.begins_or_began(base, members) {
            return Err("this leader knows of no change".to_owned());
        }
        let membership = wire::membership_of(members).map_err(|error| error.to_string())?;
        let last = LogIdV1 {
            term: base.term,
            index: base.index,
        };
        let guard = Precondition::LastMembershipLogId {
            last_membership_log_id: Some(wire::log_id::<E>(last)),
        };
        let seating = async {
            for newcomer in invited {
                link::invite(&self.node, newcomer.0)
                    .await
                    .map_err(|error| format!("node {newcomer} was not let in: {error}"))?;
            }
            raft.append_membership(membership, EntryPayload::Blank, [guard])
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        };
        timeout::<E, _>(deadline, seating)
            .await
            .unwrap_or_else(|| Err(format!("no outcome within {} s", deadline.as_secs())))
    }

    /// For [`Mutant::ChangeInMemory`]: whether halves are begun here, or are joined by who began them.
    fn begins_or_began(&self, base: LogPosition, members: &Members) -> bool {
        let was_joint = self.node.metrics().is_some_and(|metrics| {
            let membership = metrics.membership_config.membership();
            membership.get_joint_config().len() > 1
        });
        let term = self.summary().term;
        members.is_joint() || !was_joint || base.term == term
    }

    /// Looks who answers at these addresses too, beside the own list; with who said to be there.
    pub fn greet(&self, addresses: BTreeMap<String, Option<NodeId>>) {
        *locked(&self.node.greeted) = addresses;
    }

    /// What newcomers are told that are not let in.
    pub fn explain(&self, reasons: impl IntoIterator<Item = (NodeId, String)>) {
        let reasons = reasons.into_iter().map(|(node, why)| (node.0, why));
        *locked(&self.node.explained) = reasons.collect();
    }
}
