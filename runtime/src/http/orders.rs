//! What a daemon is told to do itself: hand leadership over, write a snapshot, read its configuration again.
//!
//! Only `reelect` is passed on to the leader. The answer comes when the thing is done, whatever the wording of old says.

use std::collections::BTreeSet;

use orchestrator_core::id::NodeId;

use super::answer::{Answer, Failure};
use super::change::peer_address;
use super::server::Asked;
use super::{Daemon, Order};

/// No details.
const NOTHING: Option<()> = None;

/// Another member is to lead, whichever can.
pub(super) async fn reelect<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let order = Order::HandOver { to: None };
    perform(asked, order, "Unable to re-elect").await?;
    Ok(Answer::ok("Set re-elections", &NOTHING))
}

/// The member at this address is to lead.
pub(super) async fn raft_yield<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let address = peer_address(asked, "node")?;
    check_leads(asked, "raft-yield")?;
    let voters = asked.facts.peers.iter().filter(|peer| peer.is_voter);
    let wanted = voters.filter(|peer| peer.address == address);
    let wanted: BTreeSet<NodeId> = wanted.map(|peer| peer.node).collect();
    if wanted.is_empty() {
        return Err(Failure::plain(format!(
            "raft-yield: {address} is not the address of a raft member that votes: nothing was done"
        )));
    }
    hand_over(asked, wanted, "raft-yield").await?;
    Ok(Answer::ok("Asynchronously yielded", &NOTHING))
}

/// A member whose host name contains the hint is to lead.
pub(super) async fn raft_yield_hint<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let hint = asked.params.text("hint")?.unwrap_or_default().to_owned();
    check_leads(asked, "raft-yield-hint")?;
    let looked = hint.clone();
    let named = asked.shared.daemon.read(move |sight| {
        let members = sight.replicated.members();
        let named = members.filter(|(_, member)| member.host_name.contains(&looked));
        named.map(|(node, _)| node).collect::<BTreeSet<NodeId>>()
    });
    let named = named.await?;
    let voters = asked.facts.peers.iter().filter(|peer| peer.is_voter);
    let wanted: BTreeSet<NodeId> = voters
        .map(|peer| peer.node)
        .filter(|node| named.contains(node))
        .collect();
    if wanted.is_empty() {
        return Err(Failure::plain(format!(
            "raft-yield-hint: no raft member that votes has a host name that contains {hint}: nothing was done"
        )));
    }
    hand_over(asked, wanted, "raft-yield-hint").await?;
    let message = format!("Asynchronously yielded by hint {hint}");
    Ok(Answer::ok(message, &hint))
}

/// Nothing to elect where raft does it; a daemon alone leads anyhow.
pub(super) fn grab_election<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    if asked.facts.is_leading && asked.facts.peers.len() < 2 {
        return Ok(Answer::ok("Node elected as leader", &NOTHING));
    }
    Err(Failure::plain(
        "Unable to grab election: raft elects the leader; raft-yield and reelect hand leadership over",
    ))
}

pub(super) async fn raft_snapshot<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    perform(asked, Order::Snapshot, "Cannot create snapshot").await?;
    Ok(Answer::bare(&"snapshot created"))
}

/// Reads the files again that the daemon was started with. No file that a caller names.
pub(super) async fn reload_configuration<D: Daemon>(
    asked: &Asked<'_, D>,
) -> Result<Answer, Failure> {
    let file = asked.params.get("config").unwrap_or_default();
    if !file.is_empty() {
        return Err(Failure::plain(
            "Cannot reload configuration: a file that the caller names is not read; change those that the daemon was started with",
        ));
    }
    let waits = perform(asked, Order::Reload, "Cannot reload configuration").await?;
    let message = if waits.is_empty() {
        String::from("Config reloaded")
    } else {
        format!("Config reloaded; changed, and obeyed only after a restart: {waits}")
    };
    Ok(Answer::ok(message, &""))
}

/// These are asked of the leader itself: who asks names the daemon that is to lead no more.
fn check_leads<D: Daemon>(asked: &Asked<'_, D>, what: &str) -> Result<(), Failure> {
    if asked.facts.is_leading {
        return Ok(());
    }
    Err(Failure::no_leader(match &asked.facts.leader {
        Some(leader) => format!(
            "{what}: this daemon does not lead, {} does: nothing was done",
            leader.address
        ),
        None => format!("{what}: this daemon does not lead: nothing was done"),
    }))
}

/// Done already where this daemon is one of them.
async fn hand_over<D: Daemon>(
    asked: &Asked<'_, D>,
    to: BTreeSet<NodeId>,
    what: &str,
) -> Result<(), Failure> {
    if to.contains(&asked.facts.node) {
        return Ok(());
    }
    let order = Order::HandOver { to: Some(to) };
    perform(asked, order, what).await.map(drop)
}

async fn perform<D: Daemon>(
    asked: &Asked<'_, D>,
    order: Order,
    what: &str,
) -> Result<String, Failure> {
    let performed = asked.shared.daemon.perform(order).await;
    performed.map_err(|why| Failure::plain(format!("{what}: {why}")))
}
