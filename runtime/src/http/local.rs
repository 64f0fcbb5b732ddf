//! What a daemon says of itself: leadership, raft, health. Never relayed.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use orchestrator_core::id::NodeId;
use orchestrator_core::replicated::{Member, Versions};

use super::answer::{Answer, Document, Failure};
use super::json::health::ZERO_TIME;
use super::json::{
    Condition, ConditionBackend, ConditionLeader, HealthStatus, NodeHealth, RaftMember,
    RaftOriginal, RaftStatus, RaftStranger, column_time,
};
use super::server::Asked;
use super::{Daemon, Peer, RaftFacts, Sight, VERSION, condition};
use crate::raft::RaftState;

/// 200 for the one daemon that may act; the status for all others may be chosen from 200 to 599.
pub(super) fn leader_check<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    if asked.facts.is_leading {
        return Ok(Answer::bare(&"OK"));
    }
    let status = asked
        .params
        .get("errorStatusCode")
        .and_then(|code| code.parse::<u16>().ok())
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        // These have no body, and an answer always has one.
        .filter(|status| {
            !matches!(
                *status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            )
        })
        .unwrap_or(StatusCode::NOT_FOUND);
    Ok(Answer::Bare(status, Document::of(&"Not leader")))
}

pub(super) fn raft_state<D: Daemon>(asked: &Asked<'_, D>) -> Answer {
    Answer::bare(&asked.facts.state.as_str())
}

pub(super) fn raft_leader<D: Daemon>(asked: &Asked<'_, D>) -> Answer {
    Answer::bare(&leader_address(asked))
}

/// A voter that leads, or heard its leader within an election timeout; nobody else.
pub(super) fn raft_health<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    match &asked.facts.health {
        Ok(()) => Ok(Answer::bare(&"healthy")),
        Err(why) => Err(Failure::plain(format!("unhealthy: {why}"))),
    }
}

/// What the node shows of the raft cluster's members.
#[derive(Default)]
struct Membership {
    described: BTreeMap<NodeId, Described>,
    change: String,
    waiting: Vec<String>,
    versions: Versions,
    upgrade: String,
    differing: Vec<String>,
    strangers: Vec<RaftStranger>,
    originals: Vec<RaftOriginal>,
}

fn membership(sight: &Sight<'_>) -> Membership {
    let change = sight.replicated.member_change().map(|change| {
        let wanted: Vec<String> = change.wanted.iter().map(NodeId::to_string).collect();
        format!("to {}: {}", wanted.join(", "), change.cause)
    });
    let strangers = sight.members.strangers.iter();
    Membership {
        described: described(sight),
        change: change.unwrap_or_default(),
        waiting: sight.members.waiting.clone(),
        versions: sight.replicated.versions(),
        upgrade: upgrade(sight),
        differing: differing(sight),
        strangers: strangers
            .map(|(node, address, reason)| RaftStranger {
                node: node.to_string(),
                address: address.clone(),
                reason: reason.clone(),
            })
            .collect(),
        originals: originals(sight),
    }
}

/// What a later version of commands and snapshots waits for, if a member reads one.
fn upgrade(sight: &Sight<'_>) -> String {
    let held = sight.replicated.versions();
    let reads = |member: &Member| member.reads_command.min(member.reads_snapshot);
    let members = || sight.replicated.members().map(|(_, member)| member);
    let newest = members().map(reads).max().unwrap_or_default();
    if newest <= held.command.min(held.snapshot) {
        return String::new();
    }
    let behind: Vec<String> = members()
        .filter(|member| reads(member) < newest)
        .map(|member| format!("{} reads {}", member.raft_address, reads(member)))
        .collect();
    let missing = if behind.is_empty() {
        String::from("is heard")
    } else {
        format!("reads it: {}", behind.join(", "))
    };
    format!(
        "version {newest} of commands and snapshots is switched on once every member {missing}; until then members may go \
         back to the release before"
    )
}

/// The keys in which this daemon's file differs from the policy that all obey.
fn differing(sight: &Sight<'_>) -> Vec<String> {
    let keys = sight.local_policy.differs_in(sight.policy());
    keys.into_iter().map(String::from).collect()
}

fn members(facts: &RaftFacts, described: &BTreeMap<NodeId, Described>) -> Vec<RaftMember> {
    let member = |peer: &Peer| {
        let described = described.get(&peer.node).cloned().unwrap_or_default();
        RaftMember {
            node: peer.node.to_string(),
            address: peer.address.clone(),
            hostname: described.host_name,
            app_version: described.build,
            reads_version: described.reads,
            raft_protocols: described.protocols,
            voter: peer.is_voter,
            healthy: peer.is_healthy,
            last_contact_milliseconds: peer.heard.map(millis),
            entries_behind: condition::behind(peer, facts),
            problem: condition::trouble_of(peer, facts),
        }
    };
    facts.peers.iter().map(member).collect()
}

/// Who leads, who is missing, how far behind each is, and what keeps this daemon from being healthy; 500 if something
/// does. It answers also when the node has ended.
pub(super) async fn condition<D: Daemon>(asked: &Asked<'_, D>) -> Answer {
    let facts = asked.facts;
    let settings = &asked.shared.settings;
    let backend = asked.shared.daemon.backend();
    let mut reasons = condition::reasons(facts, &backend);
    let look = |sight: &Sight<'_>| (membership(sight), shown(sight).1);
    let (membership, alarms) = match asked.shared.daemon.read(look).await {
        Ok(looked) => looked,
        Err(super::Gone) => {
            if reasons.is_empty() {
                reasons.push(String::from("the node has ended"));
            }
            Default::default()
        }
    };
    let mut warnings = condition::warnings(facts);
    warnings.extend(alarms);
    // Until somebody has led, nothing is obeyed.
    if facts.leader.is_some() && !membership.differing.is_empty() {
        warnings.push(format!(
            "the configuration file of this daemon differs from the leader's, which is obeyed, in {}: make the files the same",
            membership.differing.join(", ")
        ));
    }
    let leader = facts.leader.as_ref().map(|leader| ConditionLeader {
        node: leader.node.to_string(),
        address: leader.address.clone(),
        hostname: membership
            .described
            .get(&leader.node)
            .map_or_else(String::new, |described| described.host_name.clone()),
        uri: leader.http_uri.clone(),
    });
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let document = Condition {
        healthy: reasons.is_empty(),
        reasons,
        warnings,
        node: facts.node.to_string(),
        hostname: settings.process.host_name.clone(),
        app_version: String::from(VERSION),
        state: String::from(facts.state.as_str()),
        is_leading: facts.is_leading,
        cluster: facts.cluster.clone(),
        term: facts.term,
        leader,
        last_log_index: facts.last_log,
        applied_index: facts.applied,
        members: members(facts, &membership.described),
        missing: condition::missing(facts),
        change: membership.change,
        waiting: membership.waiting,
        strangers: membership.strangers,
        backend: ConditionBackend {
            name: settings.backend.clone(),
            oldest_unwritten_milliseconds: millis(backend.oldest_unwritten),
            error: backend.error.unwrap_or_default(),
        },
    };
    Answer::Bare(status, Document::of(&document))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn raft_status<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let facts = asked.facts;
    let membership = asked.shared.daemon.read(membership).await?;
    Ok(Answer::bare(&RaftStatus {
        raft_bind: facts.bind.clone(),
        raft_advertise: facts.advertise.clone(),
        state: String::from(facts.state.as_str()),
        healthy: facts.health.is_ok(),
        is_part_of_quorum: facts.health.is_ok(),
        leader: leader_address(asked),
        leader_uri: leader_uri(asked),
        peers: peer_addresses(asked),
        node: facts.node.to_string(),
        cluster: facts.cluster.clone(),
        term: facts.term,
        first_log_index: facts.first_log,
        last_log_index: facts.last_log,
        committed_index: facts.committed,
        applied_index: facts.applied,
        reason: facts.health.clone().err().unwrap_or_default(),
        members: members(facts, &membership.described),
        missing: condition::missing(facts),
        change: membership.change,
        waiting: membership.waiting,
        command_version: membership.versions.command,
        snapshot_version: membership.versions.snapshot,
        upgrade: membership.upgrade,
        differing_settings: membership.differing,
        strangers: membership.strangers,
        originals: membership.originals,
    }))
}

/// The original's databases, and which of them is taken over.
fn originals(sight: &Sight<'_>) -> Vec<RaftOriginal> {
    let replicated = sight.replicated;
    let next = replicated.original_to_adopt();
    let adopted = replicated.adoption().adopted.as_ref();
    replicated
        .members()
        .filter_map(|(node, member)| {
            let held = member.original?;
            let state = if next == Some(node) {
                "being adopted"
            } else if adopted.is_some_and(|adopted| adopted.node == node) {
                "adopted"
            } else {
                "kept aside"
            };
            Some(RaftOriginal {
                node: node.to_string(),
                hostname: member.host_name.clone(),
                last_seen: column_time(Some(held.newest)),
                servers: held.servers,
                state: String::from(state),
            })
        })
        .collect()
}

pub(super) fn raft_peers<D: Daemon>(asked: &Asked<'_, D>) -> Answer {
    Answer::bare(&peer_addresses(asked))
}

/// 500 whenever this daemon cannot do its part: its node has ended, its raft has shut down, or its backend is behind. A daemon that waits for
/// the others is in good health; `raft-health` tells that apart.
pub(super) async fn health<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let facts = asked.facts;
    let settings = &asked.shared.settings;
    let shown = asked.shared.daemon.read(shown).await;
    let error = match &shown {
        Ok(_) if facts.state == RaftState::Shutdown => Some(String::from("raft has shut down")),
        Ok(_) => condition::of_backend(&asked.shared.daemon.backend()),
        Err(super::Gone) => Some(match &facts.health {
            Err(why) if facts.state == RaftState::Shutdown => why.clone(),
            Ok(()) | Err(_) => String::from("the node has ended"),
        }),
    };
    let (members, alarms) = shown.unwrap_or_default();
    let leader = leader_address(asked);
    let status = HealthStatus {
        healthy: error.is_none(),
        hostname: settings.process.host_name.clone(),
        token: settings.process.token.clone(),
        is_active_node: facts.is_leading,
        active_node: NodeHealth {
            hostname: leader.clone(),
            last_reported: String::from(ZERO_TIME),
            ..NodeHealth::default()
        },
        error: error.clone(),
        available_nodes: facts
            .peers
            .iter()
            .filter(|peer| peer.is_healthy)
            .map(|peer| node_health(asked, peer, &members))
            .collect(),
        raft_leader: leader,
        is_raft_leader: facts.is_leading,
        raft_leader_uri: leader_uri(asked),
        raft_advertise: facts.advertise.clone(),
        raft_healthy_members: facts
            .peers
            .iter()
            .filter(|peer| peer.is_healthy)
            .map(|peer| peer.address.clone())
            .collect(),
        alarms,
    };
    Ok(match error {
        None => Answer::ok("Application node is healthy", &status),
        Some(error) => Answer::failed(
            Failure::plain(format!("Application node is unhealthy: {error}")),
            Document::of(&status),
        ),
    })
}

/// What a member said of itself that people want to read.
#[derive(Debug, Clone, Default)]
struct Described {
    host_name: String,
    build: String,
    reads: u32,
    protocols: String,
}

/// The members as they described themselves.
fn described(sight: &Sight<'_>) -> BTreeMap<NodeId, Described> {
    let members = sight.replicated.members();
    members
        .map(|(node, member)| {
            let described = Described {
                host_name: member.host_name.clone(),
                build: member.build.clone(),
                reads: member.reads_command.min(member.reads_snapshot),
                protocols: member.protocols.map_or_else(String::new, |spoken| {
                    format!("{}-{}", spoken.oldest, spoken.newest)
                }),
            };
            (node, described)
        })
        .collect()
}

/// The members as they described themselves, and those that hold another state, in words.
fn shown(sight: &Sight<'_>) -> (BTreeMap<NodeId, Described>, Vec<String>) {
    let alarms = sight
        .disagreements
        .iter()
        .map(|(node, at)| {
            format!(
                "the state of {node} differs from this daemon's since entry {at} of the raft log"
            )
        })
        .collect();
    (described(sight), alarms)
}

fn node_health<D: Daemon>(
    asked: &Asked<'_, D>,
    peer: &Peer,
    members: &BTreeMap<NodeId, Described>,
) -> NodeHealth {
    let settings = &asked.shared.settings;
    let is_this = peer.node == asked.facts.node;
    let own = |text: &str| String::from(if is_this { text } else { "" });
    let described = members.get(&peer.node).cloned().unwrap_or_default();
    let or_own = |said: String, own_text: &str| {
        if said.is_empty() { own(own_text) } else { said }
    };
    NodeHealth {
        hostname: or_own(described.host_name, &settings.process.host_name),
        token: own(&settings.process.token),
        app_version: or_own(described.build, VERSION),
        db_backend: own(&settings.backend),
        last_reported: String::from(ZERO_TIME),
        ..NodeHealth::default()
    }
}

/// The headers of the request, with the spelling that the wire has always had.
pub(super) fn headers(headers: &HeaderMap) -> Answer {
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        shown
            .entry(canonical(name.as_str()))
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    Answer::bare(&shown)
}

/// `x-forwarded-for` as `X-Forwarded-For`.
fn canonical(name: &str) -> String {
    let mut is_start = true;
    name.chars()
        .map(|character| {
            let shown = if is_start {
                character.to_ascii_uppercase()
            } else {
                character
            };
            is_start = character == '-';
            shown
        })
        .collect()
}

fn leader_address<D: Daemon>(asked: &Asked<'_, D>) -> String {
    let leader = asked.facts.leader.as_ref();
    leader.map_or_else(String::new, |leader| leader.address.clone())
}

fn leader_uri<D: Daemon>(asked: &Asked<'_, D>) -> String {
    let leader = asked.facts.leader.as_ref();
    leader.map_or_else(String::new, |leader| leader.http_uri.clone())
}

fn peer_addresses<D: Daemon>(asked: &Asked<'_, D>) -> Vec<String> {
    asked
        .facts
        .peers
        .iter()
        .map(|peer| peer.address.clone())
        .collect()
}
