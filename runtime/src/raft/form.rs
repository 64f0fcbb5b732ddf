//! First start: how nodes that never met become one cluster; and how a node of a cluster keeps track of its peers.
//!
//! Decides when a cluster is formed: when every entry of the list answers with an identity of its own, all of them empty
//! and all reporting the same set. The lowest identity then initialises. The cluster's id is the hash of the set, so a
//! node that decides later than another decides the same. Never forms with fewer than all unless an
//! operator says with whom, and never by itself again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::errors::{InitializeError, RaftError};
use openraft::impls::EmptyNode;
use openraft_rt::{AsyncRuntime, Select2};

use super::id::{ClusterId, NodeId};
use super::identity::cluster_of;
use super::link::{DIAL_DEADLINE, greet};
use super::node::{Node, foreign, locked};
use super::sight;
use super::wire::Introduction;
use super::{RaftSettings, normalise_address};
use crate::env::{Env, replace_file, sleep, timeout_io};

/// An entry that led to this node itself is dialled again after so long: a name may have led astray.
const OWN_ENTRY_KEPT: Duration = Duration::from_secs(10);
/// Between two rounds of dialling while there is no cluster.
const FORM_INTERVAL: Duration = Duration::from_millis(200);
/// The same while the others have a cluster, which this node waits to be let into.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two rounds of dialling whoever is not heard, once there is one.
const GREET_INTERVAL: Duration = Duration::from_secs(2);

/// How long a member's list must be found wrong in the same way, after a start, before the daemon ends for it.
const LIST_WRONG_PATIENCE: Duration = Duration::from_secs(30);

/// A file that asks a waiting daemon to form with some nodes only, and the one that tells what came of it.
const WISH: &str = "form-request";
const WISH_OUTCOME: &str = "form-outcome";
/// For so long is it tried.
pub(super) const WISH_KEPT: Duration = Duration::from_secs(60);
/// A stranger that was not heard for so long is not dialled any more.
const STRANGER_KEPT: Duration = Duration::from_secs(60);

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

/// Who founded the cluster that another entry of the list belongs to, if this node is one of them: its id says so, whoever
/// may have been lost since.
fn founders(own: u64, found: &[Found]) -> Option<Vec<u64>> {
    found.iter().find_map(|found| {
        let introduction = found.answer.as_ref().ok()?;
        let listed = &introduction.listed;
        let is_founder = introduction.cluster? == cluster_of(listed).0 && listed.contains(&own);
        is_founder.then(|| listed.clone())
    })
}

/// Whether these nodes form a cluster.
pub(super) fn formation(own: u64, empty: bool, found: &[Found]) -> Formation {
    if empty && let Some(founders) = founders(own, found) {
        return Formation::Form(founders);
    }
    let mut by_node: BTreeMap<u64, &str> = BTreeMap::new();
    let mut missing = Vec::new();
    for Found { entry, answer } in found {
        match answer {
            Ok(introduction) => {
                if let Some(other) = by_node.insert(introduction.node, entry) {
                    return Formation::Wrong(two_entries(other, entry, introduction.node));
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
        return Formation::Wrong(not_listed(&entries));
    }
    let wait = |reason: String| Formation::Wait {
        reason,
        listed: members.clone(),
    };
    if !empty {
        let answers = found.iter().filter_map(|found| found.answer.as_ref().ok());
        let mut others = answers.filter(|introduction| introduction.node != own);
        let lost = if others.any(|other| other.cluster.is_some()) {
            ""
        } else {
            ", and no entry of RaftNodes is one; if the raft directories of all are lost, decide which data counts and use \
             `orchestrator raft recover --from-backend` on one node, then provision the others anew"
        };
        return wait(format!(
            "this node is not empty: it does not form a cluster, a member must let it in{lost}"
        ));
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

/// Runs until raft ends: forms the cluster if there is none, then keeps peers' addresses known and strangers looked after.
pub(super) async fn run<E: Env>(node: Arc<Node<E>>) {
    let mut stop = node.stop.subscribe();
    let outcome = E::Rt::select2(stop.wait_for(|stop| *stop), form_then_greet(&node)).await;
    if let Select2::Second(Err(reason)) = outcome {
        node.fail(reason);
    }
}

async fn form_then_greet<E: Env>(node: &Arc<Node<E>>) -> Result<(), String> {
    let mut wish: Option<Wish> = None;
    while node.cluster().is_none() {
        if let Some(asked) = asked_to_form(node).await {
            match asked {
                Ok(with) => {
                    wish = Some(Wish {
                        with,
                        until: E::mono() + WISH_KEPT,
                    });
                }
                Err(why) => tell_outcome(node, format!("refused: {why}")).await,
            }
        }
        let mut found = dial_all(node).await;
        if let Some(Wish { with, until }) = &wish {
            let late = (E::mono() >= *until).then(|| {
                let waiting = locked(&node.waiting).clone();
                format!(
                    "not formed within {} s: {}",
                    WISH_KEPT.as_secs(),
                    waiting.unwrap_or_default()
                )
            });
            if let Some(why) = late.or_else(|| forbidden(&found, with)) {
                tell_outcome(node, format!("refused: {why}")).await;
                wish = None;
            } else {
                found.retain(|found| with.contains(&found.entry));
            }
        }
        let members = found
            .iter()
            .filter_map(|found| found.answer.as_ref().ok())
            .filter(|introduction| introduction.has_memory());
        let clusters: BTreeSet<[u8; 32]> = members
            .filter_map(|introduction| introduction.cluster)
            .collect();
        let interval = if clusters.is_empty() {
            FORM_INTERVAL
        } else {
            ASK_INTERVAL
        };
        // Where nobody answers they are who they were.
        if !clusters.is_empty() {
            *locked(&node.clusters_listed) = clusters;
        }
        match formation(node.id, node.is_empty(), &found) {
            Formation::Wait { reason, listed } => {
                *locked(&node.listed) = listed;
                let cluster = locked(&node.clusters_listed).first().copied();
                let reason = match node.foreign_backend().zip(cluster) {
                    Some((held, cluster)) => foreign(held, ClusterId(cluster)),
                    None => reason,
                };
                let reason = match unfound(&node.settings, node.id, &found) {
                    Some(hint) => format!("{reason}; {hint}"),
                    None => reason,
                };
                wait_because(node, reason);
                sleep::<E>(interval).await;
            }
            Formation::Wrong(reason) => return Err(reason),
            Formation::Form(members) => {
                locked(&node.listed).clone_from(&members);
                // Of others in the list, the list says something that the founders did not.
                let is_founder = |found: &Found| {
                    let answer = found.answer.as_ref();
                    answer.is_ok_and(|introduction| members.contains(&introduction.node))
                };
                let entries = found.into_iter().filter(is_founder);
                let entries = entries.map(|found| found.entry).collect();
                found_cluster(node, members, entries).await?;
                if wish.take().is_some() {
                    tell_outcome(node, "formed".to_owned()).await;
                }
            }
        }
    }
    initialise(node).await?;
    *locked(&node.waiting) = None;
    let mut is_list_checked = false;
    let mut wrong: Option<(String, Duration)> = None;
    loop {
        if sight::members(node).contains(&node.id) {
            // What was said before this node was let in.
            locked(&node.remarks).clear();
        }
        if asked_to_form(node).await.is_some() {
            let why = "refused: this node belongs to a cluster already";
            tell_outcome(node, why.to_owned()).await;
        }
        let addresses = to_be_greeted(node);
        let greetings = addresses
            .iter()
            .map(|address| timeout_io::<E, _>(DIAL_DEADLINE, greet(node, address, 0)));
        join_all(greetings).await;
        if !is_list_checked {
            match sight::whole_list(node).map(|leads_to| check_list(node, &leads_to)) {
                None => wrong = None,
                Some(Ok(())) => is_list_checked = true,
                Some(Err(reason)) => wrong = Some(still_wrong::<E>(wrong, reason)?),
            }
        }
        sleep::<E>(GREET_INTERVAL).await;
    }
}

/// What an operator asks for with `orchestrator raft form`: to form with these only.
struct Wish {
    with: Vec<String>,
    until: Duration,
}

/// Asks the daemon that waits on this raft data directory to form its cluster with these nodes only. Blocks.
///
/// # Errors
/// The request cannot be left there.
pub fn ask_to_form<E: Env>(directory: &Path, with: &[String]) -> io::Result<()> {
    let outcome = directory.join(WISH_OUTCOME);
    if E::exists(&outcome)? {
        E::remove_file(&outcome)?;
    }
    replace_file::<E>(&directory.join(WISH), with.join("\n").as_bytes())
}

/// What came of it, once something did. Blocks.
///
/// # Errors
/// It cannot be read.
pub fn outcome_of_forming<E: Env>(directory: &Path) -> io::Result<Option<String>> {
    let outcome = directory.join(WISH_OUTCOME);
    if !E::exists(&outcome)? {
        return Ok(None);
    }
    let text = E::read_file(&outcome)?;
    E::remove_file(&outcome)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// The nodes that an operator wants this node to form with, if one asked since the last look.
async fn asked_to_form<E: Env>(node: &Arc<Node<E>>) -> Option<Result<Vec<String>, String>> {
    let directory = node.directory.clone();
    let text = E::blocking(move || -> io::Result<Option<Vec<u8>>> {
        let path = directory.join(WISH);
        if !E::exists(&path)? {
            return Ok(None);
        }
        let text = E::read_file(&path)?;
        E::remove_file(&path)?;
        // It is obeyed once, also when the power fails: the others have forgotten theirs.
        E::sync_dir(&directory)?;
        Ok(Some(text))
    })
    .await;
    let text = match text {
        Ok(text) => String::from_utf8_lossy(&text?).into_owned(),
        Err(error) => return Some(Err(error.to_string())),
    };
    let mut with = Vec::new();
    for entry in text.lines() {
        match normalise_address(entry, node.settings.default_port) {
            Ok(entry) if !node.settings.nodes.contains(&entry) => {
                return Some(Err(format!("{entry} is not in RaftNodes")));
            }
            Ok(entry) => with.push(entry),
            Err(why) => return Some(Err(why)),
        }
    }
    Some(Ok(with))
}

/// Why nobody may form with these only: somebody who was left out can be reached and remembers something.
fn forbidden(found: &[Found], with: &[String]) -> Option<String> {
    let members: Vec<u64> = found
        .iter()
        .filter(|found| with.contains(&found.entry))
        .filter_map(|found| found.answer.as_ref().ok())
        .map(|introduction| introduction.node)
        .collect();
    let wanted = cluster_of(&members).0;
    found.iter().find_map(|found| {
        let introduction = found.answer.as_ref().ok()?;
        // It was sooner to do what this node was asked for.
        if with.contains(&found.entry) && introduction.cluster == Some(wanted) {
            return None;
        }
        let remembers = introduction.cluster.is_some() || !introduction.empty;
        remembers.then(|| {
            let left_out = if with.contains(&found.entry) {
                ""
            } else {
                ", which was left out,"
            };
            format!("{}{left_out} is not empty", found.entry)
        })
    })
}

async fn tell_outcome<E: Env>(node: &Arc<Node<E>>, outcome: String) {
    tracing::warn!("raft form: {outcome}");
    let path = node.directory.join(WISH_OUTCOME);
    let written = E::blocking(move || replace_file::<E>(&path, outcome.as_bytes())).await;
    if let Err(error) = written {
        tracing::warn!("the outcome of raft form is not written: {error}");
    }
}

/// Says why this node waits: to its log when that is news, and to whoever asks.
fn wait_because<E: Env>(node: &Node<E>, reason: String) {
    let reason = match node.remark() {
        Some(remark) => format!("{reason}: {remark}"),
        None => reason,
    };
    let is_news = locked(&node.waiting).replace(reason.clone()).as_ref() != Some(&reason);
    if is_news {
        tracing::info!("{reason}");
    }
}

/// The addresses to be dialled: all members, since how far a log reaches, and which process is at an address, is said in a
/// handshake only and proves to the others that a copy is one; entries of the list that lead to nobody known; strangers and those
/// that are no members, whose addresses must lead to them.
fn to_be_greeted<E: Env>(node: &Node<E>) -> Vec<String> {
    let now = E::mono();
    let mut addresses = node.settings.nodes.clone();
    addresses.extend(locked(&node.greeted).keys().cloned());
    let members = sight::members(node);
    {
        let strangers = locked(&node.strangers);
        let fresh = strangers
            .iter()
            .filter(|(_, stranger)| now < stranger.heard + STRANGER_KEPT);
        addresses.extend(fresh.map(|(_, stranger)| stranger.introduction.advertise.clone()));
    }
    // Who hears no leader asks everybody: whether it is a member still is said in a handshake only.
    let asks_all = sight::is_lonely(node);
    let own_entries = locked(&node.own_entries).clone();
    let peers = locked(&node.peers);
    for member in &members {
        addresses.extend(peers.addresses(*member));
    }
    // One that is no member (any more, or yet) is let in only where its address leads to it.
    let last_met = |address: &str| {
        let peer = peers.at_address(address)?;
        let answered = peers.get(peer)?.answered.as_ref();
        let answered =
            answered.filter(|(dialled, _)| dialled == address && !members.contains(&peer));
        answered.map(|(_, at)| *at)
    };
    let mut greeted = Vec::new();
    for address in addresses {
        let is_met = last_met(&address).is_some_and(|met| now < met + GREET_INTERVAL);
        let is_own = address == node.settings.advertise
            || (own_entries.get(&address)).is_some_and(|led| now < *led + OWN_ENTRY_KEPT);
        let is_due = asks_all || !is_met;
        if !address.is_empty() && is_due && !is_own && !greeted.contains(&address) {
            greeted.push(address);
        }
    }
    greeted
}

/// What is wrong with the list of a member, once all of its entries were answered.
fn check_list<E: Env>(node: &Node<E>, leads_to: &[(String, u64)]) -> Result<(), String> {
    let mut by_node: BTreeMap<u64, &str> = BTreeMap::new();
    for (entry, led) in leads_to {
        if let Some(other) = by_node.insert(*led, entry) {
            return Err(two_entries(other, entry, *led));
        }
    }
    if by_node.contains_key(&node.id) {
        Ok(())
    } else {
        let entries: Vec<&str> = leads_to.iter().map(|(entry, _)| entry.as_str()).collect();
        Err(not_listed(&entries))
    }
}

/// A list is wrong when it is found so without a break: names lead astray for a while, and a member does not end for that.
fn still_wrong<E: Env>(
    before: Option<(String, Duration)>,
    reason: String,
) -> Result<(String, Duration), String> {
    let now = E::mono();
    match before {
        Some((same, since)) if same == reason => {
            if now >= since + LIST_WRONG_PATIENCE {
                Err(reason)
            } else {
                Ok((same, since))
            }
        }
        _ => {
            let patience = LIST_WRONG_PATIENCE.as_secs();
            tracing::error!("{reason}; this daemon ends if that holds for {patience} s");
            Ok((reason, now))
        }
    }
}

fn two_entries(one: &str, other: &str, node: u64) -> String {
    format!(
        "the RaftNodes entries {one} and {other} lead to one node, {}; each entry names a node of its own",
        NodeId(node)
    )
}

/// What to set where no entry of the list leads to the node whose list it is.
const BE_LISTED: &str = "set RaftBind to this node's own entry of RaftNodes; or set RaftAdvertise to that, and RaftBind to the \
    address at which it listens";

fn not_listed(entries: &[&str]) -> String {
    format!(
        "none of the RaftNodes entries ({}) leads to this node; the list names every node, this one included: {BE_LISTED}",
        entries.join(", ")
    )
}

/// What a node that waits for others should know if it may be one of them: of the entries that answer none is this node.
fn unfound(settings: &RaftSettings, own: u64, found: &[Found]) -> Option<String> {
    let mut answers = found.iter().filter_map(|found| found.answer.as_ref().ok());
    let is_found = answers.any(|introduction| introduction.node == own);
    let silent = found.iter().any(|found| found.answer.is_err());
    (!is_found && silent).then(|| {
        format!(
            "none of the entries that answer is this node, which may be waiting for itself: it listens at {} (RaftBind) and names \
             itself {} (RaftAdvertise, or else RaftBind); if that is no entry of RaftNodes, {BE_LISTED}",
            settings.bind, settings.advertise
        )
    })
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
async fn found_cluster<E: Env>(
    node: &Arc<Node<E>>,
    members: Vec<u64>,
    entries: Vec<String>,
) -> Result<(), String> {
    let _joining = node.joining.lock().await;
    if node.cluster().is_some() {
        return Ok(());
    }
    let mut identity = locked(&node.identity).clone();
    identity.cluster = Some(cluster_of(&members));
    identity.founders = members;
    identity.entries = entries;
    let (directory, record) = (node.directory.clone(), identity.clone());
    let saved: io::Result<()> = E::blocking(move || record.save::<E>(&directory)).await;
    saved.map_err(|error| {
        format!(
            "the identity record cannot be written: {error}. No cluster was formed by it: mend that (a disk may be full, failing or \
             mounted read-only), then start again"
        )
    })?;
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

    /// One that was lost at once, and comes back as somebody else, does not keep the others from their quorum.
    #[test]
    fn a_founder_follows_one_that_formed_whoever_was_lost_since() {
        for lost in [
            Err("connection refused".to_owned()),
            Ok(introduction(9, &[])),
        ] {
            let mut nodes = found(&[1, 2, 3]);
            change(&mut nodes, 0, |node| {
                node.cluster = Some(cluster_of(&[1, 2, 3]).0);
                node.empty = false;
            });
            nodes[1].answer = lost;
            assert_eq!(formation(3, true, &nodes), Formation::Form(vec![1, 2, 3]));
            // A newcomer is none of them, and one that holds something waits to be let in.
            assert!(!matches!(formation(4, true, &nodes), Formation::Form(_)));
            assert!(!matches!(formation(3, false, &nodes), Formation::Form(_)));
        }
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

    /// Its RaftBind, or RaftAdvertise, is none of the entries.
    #[test]
    fn one_that_may_be_waiting_for_itself_says_what_to_set() {
        let mut settings = RaftSettings::new("d", "127.0.0.1:10008");
        settings.advertise = "127.0.0.1:10008".to_owned();
        let mut nodes = found(&[1, 2, 3]);
        assert_eq!(unfound(&settings, 1, &nodes), None);
        nodes[2].answer = Err("connection refused".to_owned());
        assert_eq!(unfound(&settings, 1, &nodes), None);
        nodes[0].answer = Err("connection refused".to_owned());
        let hint = unfound(&settings, 1, &nodes).unwrap();
        for wanted in [
            "it listens at 127.0.0.1:10008 (RaftBind)",
            "names itself 127.0.0.1:10008",
            "set RaftBind to this node's own entry of RaftNodes",
        ] {
            assert!(hint.contains(wanted), "{hint}");
        }
        // All answer, and none is this node: the list is wrong, and that is said.
        assert_eq!(unfound(&settings, 9, &found(&[1, 2, 3])), None);
    }

    #[test]
    fn lists_that_differ_wait() {
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 1, |node| node.listed = vec![1, 2, 4]);
        check(formation(1, true, &nodes), "n2:1 has a list of other nodes");
    }

    #[test]
    fn the_first_of_those_who_form_by_hand_keeps_no_other_from_it() {
        let mut nodes = found(&[1, 2]);
        let with: Vec<String> = nodes.iter().map(|found| found.entry.clone()).collect();
        assert_eq!(forbidden(&nodes, &with), None);
        change(&mut nodes, 1, |node| {
            node.empty = false;
            node.cluster = Some(cluster_of(&[1, 2]).0);
        });
        assert_eq!(forbidden(&nodes, &with), None);
        change(&mut nodes, 1, |node| {
            node.cluster = Some(cluster_of(&[2, 3]).0);
        });
        assert!(forbidden(&nodes, &with).is_some());
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
    fn some_form_only_while_nobody_who_is_reached_remembers() {
        let mut nodes = found(&[1, 2, 3]);
        let with = ["n1:1".to_owned(), "n2:1".to_owned()];
        assert_eq!(forbidden(&nodes, &with), None);
        nodes[2].answer = Err("connection refused".to_owned());
        assert_eq!(forbidden(&nodes, &with), None);
        let mut nodes = found(&[1, 2, 3]);
        change(&mut nodes, 2, |node| node.empty = false);
        let why = forbidden(&nodes, &with).unwrap();
        assert!(why.contains("n3:1, which was left out"), "{why}");
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
