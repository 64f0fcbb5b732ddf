//! Who should belong to the raft cluster, and what is done next to get there.
//!
//! Pure: from the replicated state at one position and what this daemon sees of the others, one [`Move`] at most, and
//! for every newcomer that waits the reason why. The leader makes the move; any daemon may ask for the reasons.
//!
//! What must never happen: a change decided from another membership than the one it is made against (each move names the
//! entry it was decided from); two changes at once; a membership that shrinks by a list; a voter that does not hold the
//! log; a membership without a living majority. What holds between two moves is in the replicated state, so a leader
//! that takes over goes on where the last one stopped: a membership in two halves is finished first, learners of no
//! change are removed.

mod sight;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::time::Duration;

pub use sight::{Listed, Own, Seen, Sight, Standing};

use crate::{
    id::{LogPosition, NodeId},
    replicated::{ChangeCause, MemberChange, Members, Replicated, Versions},
    time::{Mono, Now},
};

/// Who was heard within this time counts as living.
const LIVING: Duration = Duration::from_secs(3);
/// An address leads to a newcomer if it did so within this time.
pub const ANSWERS: Duration = Duration::from_secs(15);
/// Whoever is no member is heard of by greetings, every other second: one that missed a greeting is not gone.
const GREETED_WITHIN: Duration = Duration::from_secs(5);
/// A newcomer holds the log in time, or the change is given up.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// So many entries may a newcomer be behind to count as having the log.
const BEHIND_MAX: u64 = 16;
/// A list that was given up is not tried again before this.
const AGAIN: Duration = Duration::from_secs(60);

/// What a daemon knows when it judges.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub now: Now,
    pub own: NodeId,
    pub replicated: &'a Replicated,
    pub sight: &'a Sight,
    /// Since when this daemon leads without a break; none: it does not.
    pub leading_since: Option<Mono>,
}

impl View<'_> {
    /// It was heard lately, or is this daemon.
    #[must_use]
    pub fn is_living(&self, node: NodeId) -> bool {
        let heard = self.sight.nodes.get(&node).and_then(|seen| seen.heard);
        node == self.own || heard.is_some_and(|at| self.now.mono.since(at) < LIVING)
    }
}

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    Begin {
        base: u64,
        wanted: BTreeSet<NodeId>,
        cause: ChangeCause,
    },
    GiveUp {
        base: u64,
        reason: String,
    },
    /// Append exactly these members, if the last ones are those of `base`; before that, let the invited join.
    Seat {
        base: LogPosition,
        members: Members,
        invited: BTreeSet<NodeId>,
    },
    /// The leader is not among the wanted: one of these is to lead.
    HandOver(BTreeSet<NodeId>),
    SwitchOn(Versions),
}

/// What comes of judging.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    pub next: Option<Move>,
    /// Why a change stands still.
    pub waiting: Option<String>,
    /// Why each newcomer is not let in.
    pub strangers: BTreeMap<NodeId, String>,
}

/// Judges. Only a leader gets a move.
#[must_use]
pub fn judge(view: &View<'_>) -> Judgement {
    let mut judgement = Judgement {
        strangers: strangers(view),
        ..Judgement::default()
    };
    if view.leading_since.is_none() {
        return judgement;
    }
    match next(view) {
        Ok(next) => judgement.next = next,
        Err(waiting) => judgement.waiting = Some(waiting),
    }
    judgement
}

/// The next move, or why there is none although there is something to do.
fn next(view: &View<'_>) -> Result<Option<Move>, String> {
    let membership = view.replicated.membership();
    let Some(goal) = membership.members.voters.last() else {
        return Ok(None);
    };
    let base = membership.at;
    let Some(voters) = membership.members.settled() else {
        // Both halves agreed on it when it was committed: there is only the way ahead.
        if !goal.contains(&view.own) {
            return Ok(Some(Move::HandOver(goal.clone())));
        }
        let learners = membership.members.learners.iter().copied();
        return Ok(Some(Move::Seat {
            base,
            members: Members {
                voters: vec![goal.clone()],
                learners: learners.filter(|node| !goal.contains(node)).collect(),
            },
            invited: BTreeSet::new(),
        }));
    };
    if let Some(change) = view.replicated.member_change() {
        return advance(view, change, voters, base);
    }
    if !membership.members.learners.is_empty() {
        // Of a change that was given up.
        let members = Members {
            voters: vec![voters.clone()],
            learners: BTreeSet::new(),
        };
        let invited = BTreeSet::new();
        return Ok(Some(Move::Seat {
            base,
            members,
            invited,
        }));
    }
    let mut waiting = None;
    match declared(view, voters) {
        Ok(None) => {}
        Ok(Some(wanted)) => {
            return Ok(Some(Move::Begin {
                base: base.index,
                wanted,
                cause: ChangeCause::Declared,
            }));
        }
        // A list that cannot be obeyed keeps nobody from coming back.
        Err(why) => waiting = Some(why),
    }
    for former in voters {
        for newcomer in view.sight.nodes.keys() {
            if let Some(Ok((wanted, cause))) = swap(view, voters, *former, *newcomer) {
                return Ok(Some(Move::Begin {
                    base: base.index,
                    wanted,
                    cause,
                }));
            }
        }
    }
    match (switch_on(view, voters), waiting) {
        (Some(versions), _) => Ok(Some(Move::SwitchOn(versions))),
        (None, None) => Ok(None),
        (None, Some(why)) => Err(why),
    }
}

/// The next move of the change that is under way.
fn advance(
    view: &View<'_>,
    change: &MemberChange,
    voters: &BTreeSet<NodeId>,
    base: LogPosition,
) -> Result<Option<Move>, String> {
    let added: BTreeSet<NodeId> = change.wanted.difference(voters).copied().collect();
    let give_up = |reason: String| {
        Ok(Some(Move::GiveUp {
            base: base.index,
            reason,
        }))
    };
    if view.now.wall.since(change.began) > CATCH_UP_MAX {
        return give_up(format!(
            "it was not done within {} s",
            CATCH_UP_MAX.as_secs()
        ));
    }
    let learners = &view.replicated.membership().members.learners;
    let silent_max = view.sight.replace_silent.max(GREETED_WITHIN);
    for node in &added {
        if silent_for(view, *node) > silent_max {
            return give_up(format!(
                "{} did not answer for {} s",
                view.sight.name(*node),
                silent_max.as_secs()
            ));
        }
        if let Some(why) = unfit(view, *node) {
            return give_up(format!("{} {why}", view.sight.name(*node)));
        }
    }
    // Learners that belong to nothing are removed with the same entry that adds those that do.
    if *learners != added {
        let members = Members {
            voters: vec![voters.clone()],
            learners: added.clone(),
        };
        return Ok(Some(Move::Seat {
            base,
            members,
            invited: added.difference(learners).copied().collect(),
        }));
    }
    for node in &added {
        let matched = view.sight.nodes.get(node).and_then(|seen| seen.matched);
        let behind = matched.map_or(view.sight.last_index, |matched| {
            view.sight.last_index.saturating_sub(matched)
        });
        if matched.is_none() || behind > BEHIND_MAX {
            return Err(format!(
                "{} gets the log: {behind} entries to go",
                view.sight.name(*node)
            ));
        }
        if !view.is_living(*node) {
            return Err(format!("{} is not heard", view.sight.name(*node)));
        }
    }
    check_majority(view, &change.wanted)?;
    if !change.wanted.contains(&view.own) {
        let kept: BTreeSet<NodeId> = change.wanted.intersection(voters).copied().collect();
        // Where nobody stays, this daemon leads until those that come are voters.
        if !kept.is_empty() {
            return Ok(Some(Move::HandOver(kept)));
        }
    }
    let members = Members {
        voters: vec![voters.clone(), change.wanted.clone()],
        learners: BTreeSet::new(),
    };
    let invited = BTreeSet::new();
    Ok(Some(Move::Seat {
        base,
        members,
        invited,
    }))
}

/// The list that a majority of the voters declares, if it can be sat down to.
fn declared(
    view: &View<'_>,
    voters: &BTreeSet<NodeId>,
) -> Result<Option<BTreeSet<NodeId>>, String> {
    let replicated = view.replicated;
    let wanted = voters.iter().find_map(|voter| {
        let wanted = replicated.standing_declaration(*voter)?;
        let is_majority = replicated.declarers_of(wanted).len() * 2 > voters.len();
        (is_majority && wanted != voters).then_some(wanted)
    });
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    if wanted.len() < voters.len() {
        return Err(format!(
            "RaftNodes of a majority has {} entries, and there are {} members: a list adds and replaces, it does not \
             remove; raft-remove-peer does",
            wanted.len(),
            voters.len()
        ));
    }
    if let Some(given_up) = replicated.given_up()
        && given_up.wanted == *wanted
        && view.now.wall.since(given_up.at) < AGAIN
    {
        return Err(format!("it was given up lately: {}", given_up.reason));
    }
    check_begin(view, voters, wanted)?;
    Ok(Some(wanted.clone()))
}

/// Whether a change to these members may be begun: newcomers are reachable and fit, and a majority of the new lives.
///
/// # Errors
/// Why not, in words.
pub fn check_begin(
    view: &View<'_>,
    voters: &BTreeSet<NodeId>,
    wanted: &BTreeSet<NodeId>,
) -> Result<(), String> {
    for node in wanted.difference(voters) {
        if !view.is_living(*node) {
            return Err(format!(
                "{} is to be added and does not answer",
                view.sight.name(*node)
            ));
        }
        if let Some(why) = unfit(view, *node) {
            return Err(format!("{} {why}", view.sight.name(*node)));
        }
    }
    check_majority(view, wanted)
}

fn check_majority(view: &View<'_>, wanted: &BTreeSet<NodeId>) -> Result<(), String> {
    let living = wanted.iter().filter(|node| view.is_living(**node)).count();
    if living * 2 > wanted.len() {
        Ok(())
    } else {
        Err(format!(
            "only {living} of the {} wanted members are heard: without a majority nothing could be decided",
            wanted.len()
        ))
    }
}

/// Whether a newcomer takes a member's place because it answers at its address; `None`: it is somebody else's matter.
#[allow(clippy::type_complexity, reason = "one place")]
fn swap(
    view: &View<'_>,
    voters: &BTreeSet<NodeId>,
    former: NodeId,
    newcomer: NodeId,
) -> Option<Result<(BTreeSet<NodeId>, ChangeCause), String>> {
    let seen = view.sight.nodes.get(&newcomer)?;
    // One that lived too short a time to describe itself is known by where it was seen.
    let described = view.replicated.member(former);
    let address = match described {
        Some(member) => &member.raft_address,
        None => &view.sight.nodes.get(&former)?.address,
    };
    if voters.contains(&newcomer) || *address != seen.address || seen.address.is_empty() {
        return None;
    }
    Some(
        check_swap(view, former, seen)
            .map(|()| {
                let mut wanted = voters.clone();
                wanted.remove(&former);
                wanted.insert(newcomer);
                let cause = ChangeCause::Swapped {
                    former,
                    newcomer,
                    address: seen.address.clone(),
                };
                (wanted, cause)
            })
            .and_then(|(wanted, cause)| {
                check_begin(view, voters, &wanted)?;
                Ok((wanted, cause))
            }),
    )
}

fn check_swap(view: &View<'_>, former: NodeId, seen: &Seen) -> Result<(), String> {
    let limit = view.sight.replace_silent;
    let address = &seen.address;
    if view.leading_since.is_none() {
        return Err(format!(
            "{address} was node {former}: a leader replaces it once it was silent for {} s (RaftReplaceSilentSeconds)",
            limit.as_secs()
        ));
    }
    let silent = silent_for(view, former);
    if silent < limit {
        return Err(format!(
            "{address} was node {former}, and that one has been silent for less than {} s (RaftReplaceSilentSeconds)",
            limit.as_secs()
        ));
    }
    if seen
        .answers
        .is_none_or(|at| view.now.mono.since(at) > ANSWERS)
    {
        return Err(format!("{address} does not lead to it"));
    }
    let swaps = view.replicated.swaps_of(address, view.now.wall);
    if swaps as u64 >= view.sight.replace_per_hour {
        return Err(format!(
            "{address} was replaced {swaps} times within an hour (RaftReplacePerHour): raft-remove-peer and then \
             raft-add-peer do it by hand"
        ));
    }
    Ok(())
}

/// The newest versions that every member reads, if they are newer than those in force. Who is not heard at present may be
/// on its way back to the release before: it is waited for. (A member that is gone for good is replaced or removed.)
fn switch_on(view: &View<'_>, voters: &BTreeSet<NodeId>) -> Option<Versions> {
    let held = view.replicated.versions();
    let mut common: Option<Versions> = None;
    for node in voters {
        let member = view.replicated.member(*node)?;
        if !view.is_living(*node) {
            return None;
        }
        // What it says in a handshake is newer than what the log holds of it; what this daemon itself reads is not asked of the log.
        let own = &view.sight.own;
        let said = if *node == view.own {
            Some(own.reads_command.min(own.reads_snapshot))
        } else {
            view.sight.nodes.get(node).and_then(|seen| seen.reads)
        };
        let said = said.unwrap_or(u32::MAX);
        let reads = Versions {
            command: member.reads_command.min(said),
            snapshot: member.reads_snapshot.min(said),
        };
        common = Some(common.map_or(reads, |common| Versions {
            command: common.command.min(reads.command),
            snapshot: common.snapshot.min(reads.snapshot),
        }));
    }
    let common = common?;
    let wanted = Versions {
        command: common.command.max(held.command),
        snapshot: common.snapshot.max(held.snapshot),
    };
    (wanted != held).then_some(wanted)
}

/// Why a newcomer cannot be a member, whatever anybody wants.
fn unfit(view: &View<'_>, node: NodeId) -> Option<String> {
    let seen = view.sight.nodes.get(&node)?;
    if let Standing::Elsewhere(why) = &seen.standing {
        return Some(why.clone());
    }
    let held = view.replicated.versions();
    let needed = held.command.max(held.snapshot);
    let reads = seen.reads.filter(|reads| *reads < needed)?;
    Some(format!(
        "reads version {reads} of commands and snapshots, and {needed} is in use: upgrade it"
    ))
}

/// How long nothing was heard of a daemon; counted from when this one began to lead, if that is later: before, it was not
/// the one to be answered.
fn silent_for(view: &View<'_>, node: NodeId) -> Duration {
    let heard = view.sight.nodes.get(&node).and_then(|seen| seen.heard);
    let since = view.leading_since.max(heard).unwrap_or(Mono::ZERO);
    view.now.mono.since(since)
}

/// Of a newcomer: it is becoming a member, or about to.
pub(crate) const LET_IN: &str = "it is being let in";

/// Why each newcomer that was heard is not a member.
fn strangers(view: &View<'_>) -> BTreeMap<NodeId, String> {
    let membership = view.replicated.membership();
    let members = &membership.members;
    let none = BTreeSet::new();
    let voters = members.voters.last().unwrap_or(&none);
    let mut reasons = BTreeMap::new();
    if voters.is_empty() {
        return reasons;
    }
    for (node, seen) in &view.sight.nodes {
        if members.contains(*node)
            || view.now.mono.since(seen.heard.unwrap_or(Mono::ZERO)) > ANSWERS
        {
            continue;
        }
        if let Some(why) = unfit(view, *node) {
            reasons.insert(*node, format!("it {why}"));
            continue;
        }
        if let Some(change) = view.replicated.member_change()
            && change.wanted.contains(node)
        {
            reasons.insert(*node, LET_IN.to_string());
            continue;
        }
        let declarers: Vec<NodeId> = view
            .replicated
            .declarations()
            .map(|(declarer, _)| declarer)
            .filter(|declarer| {
                view.replicated
                    .standing_declaration(*declarer)
                    .is_some_and(|wanted| wanted.contains(node))
            })
            .collect();
        let by_address: Option<Result<_, String>> = voters
            .iter()
            .find_map(|former| swap(view, voters, *former, *node));
        let why = match by_address {
            Some(Err(why)) => why,
            Some(Ok(_)) => LET_IN.to_string(),
            None if declarers.is_empty() => {
                let address = match seen.address.as_str() {
                    "" => "it",
                    address => address,
                };
                let naming = view
                    .replicated
                    .declarations()
                    .filter(|(_, row)| row.entries.contains(&seen.address));
                let naming = names(view, naming.map(|(declarer, _)| declarer));
                if naming.is_empty() {
                    format!(
                        "no member has {address} in RaftNodes whose entries all answer: put it there on all members and restart \
                         them one after the other, or use raft-add-peer"
                    )
                } else {
                    format!(
                        "{address} is no member since the members were changed last, and the RaftNodes that name it are older \
                         ({naming}): use raft-add-peer to let it in, or take it out of them"
                    )
                }
            }
            None => format!(
                "{} of {} members have asked for it by a RaftNodes that was changed ({}), a majority must: restart the others with \
                 such a list, or use raft-add-peer (a list that a member came with asks for nothing)",
                declarers.len(),
                voters.len(),
                names(view, declarers.iter().copied())
            ),
        };
        reasons.insert(*node, why);
    }
    reasons
}

/// The daemons as people know them, in a row.
fn names(view: &View<'_>, nodes: impl Iterator<Item = NodeId>) -> String {
    let names: Vec<String> = nodes.map(|node| view.sight.name(node)).collect();
    names.join(", ")
}

/// Where daemons are to be looked for beside the own list: a leader that a list leaves out is not in the newcomers' lists
/// either, and would never hear of them. With who said to be there.
#[must_use]
pub fn addresses(replicated: &Replicated) -> BTreeMap<String, Option<NodeId>> {
    let declared = replicated
        .declarations()
        .filter(|(node, _)| replicated.standing_declaration(*node).is_some())
        .flat_map(|(_, row)| row.entries.iter().map(|entry| (entry.clone(), None)));
    let described = replicated
        .members()
        .map(|(node, row)| (row.raft_address.clone(), Some(node)));
    declared.chain(described).collect()
}

/// What this daemon's own list says of it that the log does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The list that it came with.
    First(Vec<String>),
    /// It wants other members.
    Wants(Vec<String>, BTreeSet<NodeId>),
    /// It would say something, and cannot so far: why.
    Not(String),
}

/// What this daemon is to declare. A list is declared once, when it is another one than was declared before; and again when
/// somebody else answers at one of its entries, as long as the declaration stands.
#[must_use]
pub fn word(view: &View<'_>) -> Option<Word> {
    let members = &view.replicated.membership().members;
    if !members.is_voter(view.own) || view.sight.listed.is_empty() {
        return None;
    }
    let entries: Vec<String> = view
        .sight
        .listed
        .iter()
        .map(|listed| listed.entry.clone())
        .collect();
    let Some(row) = view.replicated.declaration(view.own) else {
        // A sight from before the cluster was formed does not know yet, and the own list may be longer than that one.
        let came_with = view.sight.came_with.clone();
        return (!came_with.is_empty()).then_some(Word::First(came_with));
    };
    let is_same_list = row.entries == entries;
    let standing = view.replicated.standing_declaration(view.own);
    if is_same_list && standing.is_none() {
        return None;
    }
    let mut identities = BTreeSet::new();
    for listed in &view.sight.listed {
        let Some(node) = listed.node else {
            return (!is_same_list).then(|| {
                Word::Not(format!(
                    "RaftNodes was changed; it is declared once every entry answers, and {} does not",
                    listed.entry
                ))
            });
        };
        identities.insert(node);
    }
    if identities.len() != entries.len() || !identities.contains(&view.own) {
        return (!is_same_list).then(|| {
            Word::Not(String::from(
                "RaftNodes was changed; it is not declared, since its entries do not lead to as many nodes, this one among them",
            ))
        });
    }
    (!is_same_list || standing != Some(&identities)).then_some(Word::Wants(entries, identities))
}
