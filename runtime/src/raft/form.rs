//! First start: how nodes that never met become one cluster; and how a node of a cluster keeps track of its peers.
//!
//! Decides when a cluster is formed: when every entry of the list answers with an identity of its own, all of them empty
//! and all reporting the same set. The lowest identity then initialises. The cluster's id is the hash of the set, so a
//! node that decides later than another decides the same. Never forms with fewer than all, and never by itself again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use openraft::impls::EmptyNode;
use openraft_rt::{AsyncRuntime, Select2};

use super::id::{ClusterId, NodeId};
use super::identity::cluster_of;
use super::link::{DIAL_DEADLINE, greet};
use super::node::{Node, locked};
use super::wire::Introduction;
use crate::env::{Env, sleep, timeout_io};

/// Between two rounds of dialling while there is no cluster.
const FORM_INTERVAL: Duration = Duration::from_millis(200);
/// Between two rounds of dialling entries that lead to nobody known, once there is one.
const GREET_INTERVAL: Duration = Duration::from_secs(5);

/// What dialling one entry of the list found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) entry: String,
    /// Who answered; an error in words otherwise.
    pub(super) answer: Result<Introduction, String>,
}

/// What follows from a round of dialling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Formation {
    /// Not yet; why, in words, and the identities if all are known.
    Wait { reason: String, listed: Vec<u64> },
    /// The list is wrong.
    Wrong(String),
    /// These form a cluster.
    Form(Vec<u64>),
}

/// Whether these nodes form a cluster.
pub(super) fn formation(own: u64, empty: bool, found: &[Found]) -> Formation {
    let mut by_node: BTreeMap<u64, &str> = BTreeMap::new();
    let mut missing = Vec::new();
    for Found { entry, answer } in found {
        match answer {
            Ok(introduction) => {
                if let Some(other) = by_node.insert(introduction.node, entry) {
                    return Formation::Wrong(format!(
                        "the RaftNodes entries {other} and {entry} lead to one node, {}; each entry names a node of its own",
                        NodeId(introduction.node)
                    ));
                }
            }
            Err(error) => missing.push(format!("{entry} ({error})")),
        }
    }
    if !missing.is_empty() {
        let reason = format!(
            "waiting for {} before the cluster is formed",
            missing.join(", ")
        );
        return Formation::Wait {
            reason,
            listed: Vec::new(),
        };
    }
    let members: Vec<u64> = by_node.keys().copied().collect();
    if !by_node.contains_key(&own) {
        let entries: Vec<&str> = found.iter().map(|found| found.entry.as_str()).collect();
        return Formation::Wrong(format!(
            "none of the RaftNodes entries ({}) leads to this node; the list names every node, this one included",
            entries.join(", ")
        ));
    }
    let wait = |reason: String| Formation::Wait {
        reason,
        listed: members.clone(),
    };
    if !empty {
        return wait(
            "this node is not empty: it does not form a cluster, a member must let it in"
                .to_owned(),
        );
    }
    let cluster = cluster_of(&members);
    for Found { entry, answer } in found {
        let Ok(introduction) = answer else { continue };
        if introduction.node == own {
            continue;
        }
        match introduction.cluster {
            // It was sooner to see what this node sees.
            Some(theirs) if theirs == cluster.0 => {}
            Some(theirs) => {
                return wait(format!(
                    "{entry} belongs to cluster {} already; this node waits for a member of it to let it in",
                    ClusterId(theirs)
                ));
            }
            None if !introduction.empty => {
                return wait(format!(
                    "{entry} is not empty and belongs to no cluster; its data must be looked at"
                ));
            }
            None if introduction.listed.is_empty() => {
                return wait(format!("waiting for {entry} to find every node"));
            }
            None if introduction.listed != members => {
                return wait(format!(
                    "{entry} has a list of other nodes than this one; RaftNodes must agree everywhere"
                ));
            }
            None => {}
        }
    }
    Formation::Form(members)
}

/// Runs until raft ends: forms the cluster if there is none, then keeps peers' addresses known.
pub(super) async fn run<E: Env>(node: Arc<Node<E>>) {
    let mut stop = node.stop.subscribe();
    let outcome = E::Rt::select2(stop.wait_for(|stop| *stop), form_then_greet(&node)).await;
    if let Select2::Second(Err(reason)) = outcome {
        node.fail(reason);
    }
}

async fn form_then_greet<E: Env>(node: &Arc<Node<E>>) -> Result<(), String> {
    while node.cluster().is_none() {
        let found = dial_all(node).await;
        match formation(node.id, node.is_empty(), &found) {
            Formation::Wait { reason, listed } => {
                *locked(&node.listed) = listed;
                let news = locked(&node.waiting).replace(reason.clone()).as_ref() != Some(&reason);
                if news {
                    tracing::info!("{reason}");
                }
                sleep::<E>(FORM_INTERVAL).await;
            }
            Formation::Wrong(reason) => return Err(reason),
            Formation::Form(members) => {
                locked(&node.listed).clone_from(&members);
                found_cluster(node, members).await?;
            }
        }
    }
    initialise(node).await?;
    *locked(&node.waiting) = None;
    loop {
        let now = E::mono();
        for entry in &node.settings.nodes {
            let known = {
                let peers = locked(&node.peers);
                let peer = peers.at_address(entry).and_then(|peer| peers.get(peer));
                peer.and_then(|peer| peer.heard)
                    .is_some_and(|heard| now < heard + GREET_INTERVAL)
            };
            if !known && *entry != node.settings.advertise {
                let _ = timeout_io::<E, _>(DIAL_DEADLINE, greet(node, entry, 0)).await;
            }
        }
        sleep::<E>(GREET_INTERVAL).await;
    }
}

async fn dial_all<E: Env>(node: &Arc<Node<E>>) -> Vec<Found> {
    let mut found = Vec::new();
    for entry in &node.settings.nodes {
        let answer = if *entry == node.settings.advertise {
            Ok(node.introduction())
        } else {
            let greeted = timeout_io::<E, _>(DIAL_DEADLINE, greet(node, entry, 0)).await;
            greeted
                .map(|(introduction, _)| introduction)
                .map_err(|error| error.to_string())
        };
        found.push(Found {
            entry: entry.clone(),
            answer,
        });
    }
    found
}

/// Makes this node a founder, durably, before anything is said in the cluster's name.
async fn found_cluster<E: Env>(node: &Arc<Node<E>>, members: Vec<u64>) -> Result<(), String> {
    let mut identity = locked(&node.identity).clone();
    identity.cluster = Some(cluster_of(&members));
    identity.founders = members;
    let (directory, record) = (node.directory.clone(), identity.clone());
    let saved: io::Result<()> = E::blocking(move || record.save::<E>(&directory)).await;
    saved.map_err(|error| format!("the identity record cannot be written: {error}"))?;
    tracing::info!(cluster = %cluster_of(&identity.founders), "the raft cluster is formed");
    *locked(&node.identity) = identity;
    Ok(())
}

/// The lowest founder writes the first membership, once; also after a start that was interrupted in between.
async fn initialise<E: Env>(node: &Arc<Node<E>>) -> Result<(), String> {
    let founders = locked(&node.identity).founders.clone();
    if founders.first() != Some(&node.id) || !node.store.is_empty() {
        return Ok(());
    }
    let Some(raft) = node.raft.get() else {
        return Ok(());
    };
    let members: BTreeMap<u64, EmptyNode> = founders
        .into_iter()
        .map(|founder| (founder, EmptyNode::new()))
        .collect();
    match raft.initialize(members).await {
        // Not allowed: a peer was heard meanwhile that knows the cluster already.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(format!("the cluster cannot be initialised: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction(node: u64, listed: &[u64]) -> Introduction {
        Introduction {
            node,
            cluster: None,
            boot: 1,
            instance: node,
            term: 0,
            last: None,
            advertise: String::new(),
            http_uri: String::new(),
            version: 1,
            empty: true,
            listed: listed.to_vec(),
        }
    }

    fn found(nodes: &[u64]) -> Vec<Found> {
        let answer = |node: &u64| Found {
            entry: format!("n{node}:1"),
            answer: Ok(introduction(*node, nodes)),
        };
        nodes.iter().map(answer).collect()
    }

    fn change(found: &mut [Found], place: usize, edit: impl FnOnce(&mut Introduction)) {
        edit(found[place].answer.as_mut().unwrap());
    }

    #[track_caller]
    fn check(outcome: Formation, wanted: &str) {
        let text = format!("{outcome:?}");
        assert!(text.contains(wanted), "{text}, wanted {wanted}");
    }

    #[test]
    fn all_agree_and_form() {
        assert_eq!(
            formation(2, true, &found(&[1, 2, 3])),
            Formation::Form(vec![1, 2, 3])
        );
        assert_eq!(formation(7, true, &found(&[7])), Formation::Form(vec![7]));
    }

    #[test]
    fn one_that_formed_sooner_is_followed() {
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 0, |node| {
            node.cluster = Some(cluster_of(&[1, 2, 3]).0);
            node.empty = false;
        });
        assert_eq!(formation(2, true, &nodes), Formation::Form(vec![1, 2, 3]));
    }

    #[test]
    fn fewer_than_all_wait() {
        let mut nodes = found(&[1, 2, 3]);
        nodes[2].answer = Err("connection refused".to_owned());
        check(
            formation(1, true, &nodes),
            "waiting for n3:1 (connection refused)",
        );
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 1, |node| node.listed.clear());
        check(
            formation(1, true, &nodes),
            "waiting for n2:1 to find every node",
        );
    }

    #[test]
    fn lists_that_differ_wait() {
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 1, |node| node.listed = vec![1, 2, 4]);
        check(formation(1, true, &nodes), "n2:1 has a list of other nodes");
    }

    #[test]
    fn nobody_forms_with_one_that_is_not_empty() {
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 1, |node| node.empty = false);
        check(formation(1, true, &nodes), "n2:1 is not empty");
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 1, |node| node.cluster = Some([9; 32]));
        check(formation(1, true, &nodes), "belongs to cluster 0909");
        check(
            formation(1, false, &found(&[1, 2, 3])),
            "this node is not empty",
        );
    }

    #[test]
    fn wrong_lists_are_errors() {
        check(
            formation(9, true, &found(&[1, 2, 3])),
            "Wrong(\"none of the RaftNodes entries",
        );
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 2, |node| node.node = 2);
        check(
            formation(1, true, &nodes),
            "Wrong(\"the RaftNodes entries n2:1 and n3:1 lead to one node",
        );
    }
}
