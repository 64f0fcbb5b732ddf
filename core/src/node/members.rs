//! The daemons' own membership: each member has said of itself what is true, the leader makes the next move of
//! [`membership`], and whoever asks is told why somebody waits.
//!
//! One move at a time: nothing is decided while a proposal or an effect of this kind is on its way. What an effect came to
//! is not believed but looked at, in what is committed.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{Cause, Effect, Level, Node, Output, PeerMessage, Proposal, Reply, Word, note};
use crate::{
    id::{NodeId, RequestId},
    membership::{self, Judgement, Move, Sight, View},
    replicated::{Answer, ChangeCause, Command, Refusal},
    time::{Mono, Now},
};

/// An effect of which nothing is heard for so long is taken for lost.
const SEAT_LOST: Duration = Duration::from_secs(20);
/// What the leader did not commit is said to it again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(2);
/// Most operators that wait for a change of members.
const WAITING_MAX: usize = 16;
/// For so long a newcomer is looked for that an operator asks for: daemons dial once in two seconds.
const SOUGHT_FOR: Duration = Duration::from_secs(6);

/// What is kept between looks at the membership.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeping {
    pub(super) sight: Sight,
    leading_since: Option<Mono>,
    /// An effect is on its way since.
    seating: Option<Mono>,
    /// When something was said to the leader last.
    pub(super) said: Option<Mono>,
    /// What the last look came to.
    judgement: Judgement,
    /// Where daemons are looked for.
    greeted: BTreeMap<String, Option<NodeId>>,
    /// Why the own list is not declared.
    not_declared: Option<String>,
    /// Who waits for the change that is under way.
    waiting: Vec<RequestId>,
    /// Newcomers that are asked for and were not seen so far.
    sought: Vec<Sought>,
    /// The last failure of an effect, so that it is told of once.
    failure: Option<String>,
}

/// A newcomer that an operator asks for. Its own list may leave this daemon out, as that of one that is to take this one's
/// place does: then it is to be dialled first.
#[derive(Debug, Clone)]
struct Sought {
    request: RequestId,
    newcomer: String,
    /// Whom it is to replace, if anybody.
    former: Option<String>,
    until: Mono,
}

/// What a daemon shows of the membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembersView {
    /// Why a change stands still, or why a list is not obeyed.
    pub waiting: Vec<String>,
    /// Newcomers, with their addresses and why they are not let in.
    pub strangers: Vec<(NodeId, String, String)>,
}

impl Node {
    /// What there is to show of the membership.
    #[must_use]
    pub fn members_view(&self) -> MembersView {
        let keeping = &self.members;
        let waiting = keeping.judgement.waiting.iter();
        let strangers = keeping.judgement.strangers.iter();
        MembersView {
            waiting: waiting.chain(&keeping.not_declared).cloned().collect(),
            strangers: strangers
                .map(|(node, why)| {
                    let seen = keeping.sight.nodes.get(node);
                    let address = seen.map_or_else(String::new, |seen| seen.address.clone());
                    (*node, address, why.clone())
                })
                .collect(),
        }
    }

    fn membership_view(&self, now: Now) -> View<'_> {
        View {
            now,
            own: self.raft.node,
            replicated: &self.replicated,
            sight: &self.members.sight,
            leading_since: self.members.leading_since,
        }
    }

    pub(super) fn keep_members(&mut self, now: Now, out: &mut Output) {
        self.say_own(now, out);
        let view = self.membership_view(now);
        let judgement = membership::judge(&view);
        if judgement.strangers != self.members.judgement.strangers {
            self.tell_of_strangers(&judgement.strangers, out);
            out.effects
                .push(Effect::Explain(judgement.strangers.clone()));
        }
        if judgement.waiting != self.members.judgement.waiting
            && let Some(waiting) = &judgement.waiting
        {
            note(
                out,
                Level::Warning,
                None,
                format!("the change of members waits: {waiting}"),
            );
        }
        let next = judgement.next.clone();
        self.members.judgement = judgement;
        self.find_sought(now, out);
        let mut addresses = membership::addresses(&self.replicated);
        for sought in &self.members.sought {
            addresses.entry(sought.newcomer.clone()).or_default();
        }
        if addresses != self.members.greeted {
            out.effects.push(Effect::Greet(addresses.clone()));
            self.members.greeted = addresses;
        }
        if let Some(since) = self.members.seating {
            if now.mono.since(since) < SEAT_LOST {
                return;
            }
            self.members.seating = None;
        }
        let is_pending = self
            .proposals
            .values()
            .any(|(cause, _)| matches!(cause, Cause::Members | Cause::MembersFor(..)));
        if let Some(next) = next
            && !is_pending
        {
            self.make_move(now, next, out);
        }
    }

    fn make_move(&mut self, now: Now, next: Move, out: &mut Output) {
        let Some(epoch) = self.leading() else { return };
        match next {
            Move::Begin {
                base,
                wanted,
                cause,
            } => {
                let command = Command::BeginMemberChange {
                    epoch,
                    base,
                    wanted: wanted.into_iter().collect(),
                    cause,
                };
                self.propose(now, Cause::Members, command, out);
            }
            Move::GiveUp { base, reason } => {
                let command = Command::EndMemberChange {
                    epoch,
                    base,
                    reason,
                };
                self.propose(now, Cause::Members, command, out);
            }
            Move::SwitchOn(versions) => {
                let command = Command::SetVersion {
                    command: versions.command,
                    snapshot: versions.snapshot,
                };
                self.propose(now, Cause::Members, command, out);
            }
            Move::Seat {
                base,
                members,
                invited,
            } => {
                note(out, Level::Info, None, format!("members to be: {members}"));
                self.members.seating = Some(now.mono);
                out.effects.push(Effect::Seat {
                    base,
                    members,
                    invited,
                });
            }
            Move::HandOver(to) => {
                note(
                    out,
                    Level::Info,
                    None,
                    "this daemon leaves the cluster: another one is to lead".to_string(),
                );
                self.members.seating = Some(now.mono);
                out.effects.push(Effect::HandOver { to });
            }
        }
    }

    fn tell_of_strangers(&self, strangers: &BTreeMap<NodeId, String>, out: &mut Output) {
        for (node, why) in strangers {
            let is_news = self.members.judgement.strangers.get(node) != Some(why);
            if is_news && why != membership::LET_IN {
                note(
                    out,
                    Level::Warning,
                    None,
                    format!(
                        "{} asks to join and is not let in: {why}",
                        self.members.sight.name(*node)
                    ),
                );
            }
        }
    }

    // --- what this daemon says of itself ---

    /// Has the leader propose what the log does not know of this daemon.
    fn say_own(&mut self, now: Now, out: &mut Output) {
        let own = self.raft.node;
        if !self.replicated.membership().members.contains(own) {
            return;
        }
        let again = self
            .members
            .said
            .is_none_or(|at| now.mono.since(at) >= SAY_AGAIN);
        if !again {
            return;
        }
        let mut words = Vec::new();
        let me = self.members.sight.own.clone();
        let described = self.replicated.member(own).is_some_and(|member| {
            member.raft_address == me.raft_address
                && member.http_uri == me.http_uri
                && member.host_name == self.identification.host_name
                && member.build == me.build
                && member.reads_command == me.reads_command
                && member.reads_snapshot == me.reads_snapshot
                && member.original == self.original.as_ref().map(|original| original.summary)
        });
        if !described && !me.raft_address.is_empty() {
            words.push(Word::Describe {
                raft_address: me.raft_address,
                http_uri: me.http_uri,
                host_name: self.identification.host_name.clone(),
                build: me.build,
                reads_command: me.reads_command,
                reads_snapshot: me.reads_snapshot,
                original: self.original.as_ref().map(|original| original.summary),
            });
        }
        let held = self.replicated.versions();
        if held.command.min(held.snapshot) >= 2
            && let Some(protocols) = me.protocols
            && let Some(member) = self.replicated.member(own)
            && member.protocols != Some(protocols)
        {
            words.push(Word::Speaks(protocols));
        }
        words.extend(self.part_to_adopt());
        let view = View {
            leading_since: None,
            ..self.membership_view(now)
        };
        let mut not_declared = None;
        match membership::word(&view) {
            None => {}
            Some(membership::Word::First(entries)) => words.push(Word::Declare {
                entries,
                identities: Vec::new(),
            }),
            Some(membership::Word::Wants(entries, identities)) => words.push(Word::Declare {
                entries,
                identities: identities.into_iter().collect(),
            }),
            Some(membership::Word::Not(why)) => not_declared = Some(why),
        }
        if let Some(why) = &not_declared
            && self.members.not_declared.as_ref() != Some(why)
        {
            note(out, Level::Warning, None, why.clone());
        }
        self.members.not_declared = not_declared;
        if words.is_empty() {
            return;
        }
        if self.leading().is_some() {
            for word in words {
                self.propose_for(now, own, word, out);
            }
        } else if let Some(leader) = self.raft.leader.filter(|leader| *leader != own) {
            for word in words {
                out.effects
                    .push(Effect::TellOne(leader, PeerMessage::Propose(word)));
            }
        } else {
            return;
        }
        self.members.said = Some(now.mono);
    }

    /// Proposes what a member says of itself.
    pub(super) fn propose_for(&mut self, now: Now, from: NodeId, word: Word, out: &mut Output) {
        if self.leading().is_none() || !self.replicated.membership().members.contains(from) {
            return;
        }
        let command = match word {
            Word::Describe {
                raft_address,
                http_uri,
                host_name,
                build,
                reads_command,
                reads_snapshot,
                original,
            } => Command::DescribeMember {
                node: from,
                raft_address,
                http_uri,
                host_name,
                build,
                reads_command,
                reads_snapshot,
                original,
            },
            Word::Adopt {
                part,
                is_last,
                rows,
            } => Command::Adopt {
                node: from,
                part,
                is_last,
                rows,
            },
            Word::Speaks(protocols) => Command::DescribeProtocols {
                node: from,
                protocols,
            },
            Word::Declare {
                entries,
                identities,
            } => Command::Declare {
                node: from,
                entries,
                identities,
            },
        };
        self.propose(now, Cause::House, command, out);
    }

    // --- what happened ---

    pub(super) fn members_leadership_changed(&mut self, now: Now, out: &mut Output) {
        self.members.leading_since = self.raft.leading.map(|_| now.mono);
        self.members.seating = None;
        self.members.failure = None;
        // Told again: what was said while raft was being started was heard by nobody.
        self.members.greeted.clear();
        if self.raft.leading.is_none() {
            let leader = self.raft.leader;
            for sought in core::mem::take(&mut self.members.sought) {
                let reply = Reply::NotLeading { leader };
                out.effects.push(Effect::Answer(sought.request, reply));
            }
            for request in core::mem::take(&mut self.members.waiting) {
                let why = "the change of members was begun, and goes on under another leader";
                out.effects
                    .push(Effect::Answer(request, Reply::Unknown(why.to_string())));
            }
        }
    }

    /// Raft committed other members.
    pub(super) fn members_seated(&mut self, now: Now, out: &mut Output) {
        let members = &self.replicated.membership().members;
        note(out, Level::Info, None, format!("members: {members}"));
        self.members.failure = None;
        self.house_at = now.mono;
        if self.replicated.member_change().is_none() && !members.is_joint() {
            for request in core::mem::take(&mut self.members.waiting) {
                let done = Reply::Decided(Answer::Done);
                out.effects.push(Effect::Answer(request, done));
            }
        }
    }

    /// A change was begun or given up.
    pub(super) fn change_decided(&mut self, now: Now, command: &Command, out: &mut Output) {
        self.house_at = now.mono;
        if let Some(change) = self.replicated.member_change() {
            let wanted: Vec<String> = change
                .wanted
                .iter()
                .map(|node| self.members.sight.name(*node))
                .collect();
            note(
                out,
                Level::Warning,
                None,
                format!(
                    "the members are changed to {}: {}",
                    wanted.join(", "),
                    change.cause
                ),
            );
        } else if let Command::EndMemberChange { reason, .. } = command {
            note(
                out,
                Level::Error,
                None,
                format!("the change of members is given up: {reason}"),
            );
            for request in core::mem::take(&mut self.members.waiting) {
                let why = format!("the change of members was given up: {reason}");
                out.effects
                    .push(Effect::Answer(request, Reply::Failed(why)));
            }
        }
    }

    /// An effect came back.
    pub(super) fn seat_ended(&mut self, now: Now, ended: Result<(), String>, out: &mut Output) {
        self.members.seating = None;
        match ended {
            Ok(()) => self.house_at = now.mono,
            Err(why) => {
                if self.members.failure.as_ref() != Some(&why) {
                    note(
                        out,
                        Level::Warning,
                        None,
                        format!("the members were not changed, it is tried again: {why}"),
                    );
                }
                self.members.failure = Some(why);
            }
        }
    }

    // --- what operators ask for ---

    pub(super) fn add_peer(&mut self, now: Now, id: RequestId, address: &str, out: &mut Output) {
        if let Some(why) = self.lost_its_memory(now, address) {
            return refuse(id, why, out);
        }
        let Some(node) = self
            .member_at(address)
            .or_else(|| self.newcomer_at(address))
        else {
            return self.seek(now, id, None, address, out);
        };
        let request = format!("an operator adds {address}");
        self.change_to(now, id, request, out, |wanted| {
            wanted.insert(node);
        });
    }

    pub(super) fn remove_peer(&mut self, now: Now, id: RequestId, address: &str, out: &mut Output) {
        let leaves = self.member_at(address).or_else(|| self.joining_at(address));
        if leaves.is_none() && !self.is_no_members(now, address) {
            return refuse(id, no_member(address), out);
        }
        let request = format!("an operator removes {address}");
        self.change_to(now, id, request, out, |wanted| {
            wanted.retain(|node| Some(*node) != leaves);
        });
    }

    pub(super) fn replace_peer(
        &mut self,
        now: Now,
        id: RequestId,
        former: &str,
        newcomer: &str,
        out: &mut Output,
    ) {
        if former == newcomer {
            let why = format!(
                "{former} is to be replaced by itself: a daemon that was provisioned anew takes its old place without being \
                 asked to"
            );
            return refuse(id, why, out);
        }
        if let Some(why) = self.lost_its_memory(now, newcomer) {
            return refuse(id, why, out);
        }
        let is_in = self.member_at(newcomer);
        let Some(node) = is_in.or_else(|| self.newcomer_at(newcomer)) else {
            return self.seek(now, id, Some(former), newcomer, out);
        };
        let leaves = self.member_at(former);
        if let (Some(leaver), Some(member)) = (leaves, is_in)
            && leaver != member
            && self.stay_both(leaver, member)
        {
            let why = format!(
                "{newcomer} is a member already and can take nobody's place: raft-remove-peer takes {former} out"
            );
            return refuse(id, why, out);
        }
        if leaves.is_none() && (is_in.is_none() || !self.is_no_members(now, former)) {
            return refuse(id, no_member(former), out);
        }
        let request = format!("an operator replaces {former} by {newcomer}");
        self.change_to(now, id, request, out, |wanted| {
            wanted.retain(|member| Some(*member) != leaves);
            wanted.insert(node);
        });
    }

    /// Has a newcomer dialled that nobody saw so far; the request waits for that.
    fn seek(
        &mut self,
        now: Now,
        request: RequestId,
        former: Option<&str>,
        newcomer: &str,
        out: &mut Output,
    ) {
        if self.members.sought.len() >= WAITING_MAX {
            return refuse(request, nobody_waits(newcomer), out);
        }
        self.members.sought.push(Sought {
            request,
            newcomer: newcomer.to_string(),
            former: former.map(ToString::to_string),
            until: now.mono + SOUGHT_FOR,
        });
        self.house_at = now.mono;
    }

    /// Goes on with the requests whose newcomers are seen by now, and refuses those that waited for long enough.
    fn find_sought(&mut self, now: Now, out: &mut Output) {
        for sought in core::mem::take(&mut self.members.sought) {
            let newcomer = &sought.newcomer;
            let is_seen =
                self.member_at(newcomer).is_some() || self.newcomer_at(newcomer).is_some();
            match &sought.former {
                None if is_seen => self.add_peer(now, sought.request, newcomer, out),
                Some(former) if is_seen => {
                    self.replace_peer(now, sought.request, former, newcomer, out);
                }
                _ if now.mono >= sought.until => {
                    refuse(sought.request, nobody_waits(newcomer), out);
                }
                _ => self.members.sought.push(sought),
            }
        }
    }

    /// Two members of which the change that is under way, if there is one, takes neither out.
    fn stay_both(&self, one: NodeId, other: NodeId) -> bool {
        let goal = self.replicated.membership().members.voters.last();
        let change = self.replicated.member_change().map(|change| &change.wanted);
        goal.into_iter()
            .chain(change)
            .all(|members| members.contains(&one) && members.contains(&other))
    }

    /// The daemon that waits to be let in and answers at this raft address.
    fn newcomer_at(&self, address: &str) -> Option<NodeId> {
        let members = &self.replicated.membership().members;
        let nodes = self.members.sight.nodes.iter();
        nodes
            .filter(|(node, seen)| {
                seen.address == address && seen.answers.is_some() && !members.is_voter(**node)
            })
            .max_by_key(|(_, seen)| seen.answers)
            .map(|(node, _)| *node)
    }

    /// The voter with this raft address: as the log has it, or the own list, or as it is seen while neither knows it.
    fn member_at(&self, address: &str) -> Option<NodeId> {
        let members = &self.replicated.membership().members;
        let sight = &self.members.sight;
        let described = self.replicated.members();
        let described = described.filter(|(_, row)| row.raft_address == address);
        let listed = sight.listed.iter().filter(|listed| listed.entry == address);
        let seen = sight
            .nodes
            .iter()
            .filter(|(_, seen)| seen.address == address);
        described
            .map(|(node, _)| node)
            .chain(listed.filter_map(|listed| listed.node))
            .chain(seen.map(|(node, _)| *node))
            .find(|node| members.is_voter(*node))
    }

    /// Who becomes a member by the change that is under way, and is seen at this raft address.
    fn joining_at(&self, address: &str) -> Option<NodeId> {
        let wanted = self.replicated.member_change()?.wanted.iter();
        let nodes = &self.members.sight.nodes;
        wanted
            .copied()
            .find(|node| nodes.get(node).is_some_and(|seen| seen.address == address))
    }

    /// The member with this raft address is gone, and another identity answers there: which of them is meant is not known.
    fn lost_its_memory(&self, now: Now, address: &str) -> Option<String> {
        let member = self.member_at(address)?;
        let newcomer = self.newcomer_at(address)?;
        let answered = |node| self.members.sight.nodes.get(&node)?.answers;
        let last = answered(newcomer)?;
        (member != self.raft.node
            && answered(member) < Some(last)
            && now.mono.since(last) <= membership::ANSWERS)
            .then(|| {
                format!(
                    "the member at {address} is gone, and another identity answers there: it takes that place by itself \
                     (raft-health says for what it waits), or by raft-remove-peer and then raft-add-peer"
                )
            })
    }

    /// Whether this raft address is a known one and no member's: of a daemon that is seen, or of the own list. One that is
    /// neither is a typing error rather than the address of somebody who left; and an entry where nobody answers may be another
    /// name of a member that is gone.
    fn is_no_members(&self, now: Now, address: &str) -> bool {
        let sight = &self.members.sight;
        if sight.nodes.values().any(|seen| seen.address == address) {
            return true;
        }
        let voters = self.replicated.membership().members.voters.iter().flatten();
        let is_named = |node: NodeId| {
            let row = self.replicated.member(node);
            sight.listed.iter().any(|listed| {
                listed.node == Some(node) || row.is_some_and(|row| row.raft_address == listed.entry)
            })
        };
        let view = self.membership_view(now);
        let all_are_accounted_for = voters
            .copied()
            .all(|node| is_named(node) || view.is_living(node));
        let mut listed = sight.listed.iter();
        listed.any(|listed| {
            listed.entry == address && (listed.node.is_some() || all_are_accounted_for)
        })
    }

    /// Begins the change that `edit` makes of the members, and answers when it is done: at once where nothing is left to do,
    /// as when somebody asks once more who did not hear what became of it.
    fn change_to(
        &mut self,
        now: Now,
        id: RequestId,
        request: String,
        out: &mut Output,
        edit: impl Fn(&mut BTreeSet<NodeId>),
    ) {
        let Some(epoch) = self.leading() else { return };
        let membership = self.replicated.membership();
        if self.members.waiting.len() >= WAITING_MAX {
            return refuse(id, "too many changes of members wait".to_string(), out);
        }
        let goal = membership.members.voters.last().cloned();
        let mut wanted = goal.clone().unwrap_or_default();
        edit(&mut wanted);
        let change = self.replicated.member_change();
        let under_way = match membership.members.settled() {
            Some(_) => change.map(|change| &change.wanted),
            None => goal.as_ref(),
        };
        if under_way == Some(&wanted) {
            // Asked for once more while it is done.
            self.members.waiting.push(id);
            return;
        }
        let is_so_already = |members: &BTreeSet<NodeId>| {
            let mut edited = members.clone();
            edit(&mut edited);
            edited == *members
        };
        if membership.members.settled().is_some_and(is_so_already)
            && change.is_none_or(|change| is_so_already(&change.wanted))
        {
            let done = Reply::Decided(Answer::Done);
            return out.effects.push(Effect::Answer(id, done));
        }
        let Some(voters) = membership.members.settled() else {
            return refuse(id, "a change of members is being finished".to_string(), out);
        };
        let view = self.membership_view(now);
        if let Err(why) = membership::check_begin(&view, voters, &wanted) {
            return refuse(id, why, out);
        }
        let command = Command::BeginMemberChange {
            epoch,
            base: membership.at.index,
            wanted: wanted.iter().copied().collect(),
            cause: ChangeCause::Operator { request },
        };
        let cause = Cause::MembersFor(id, wanted);
        if let Err(refusal) = self.try_propose(now, cause, command, out) {
            out.effects
                .push(Effect::Answer(id, Reply::Refused(refusal)));
        }
    }

    pub(super) fn change_proposed(
        &mut self,
        request: RequestId,
        wanted: &BTreeSet<NodeId>,
        outcome: Proposal,
        out: &mut Output,
    ) {
        let reply = match outcome {
            Proposal::Committed(Answer::Numbered(index)) => {
                let begun = self
                    .replicated
                    .member_change()
                    .is_some_and(|change| change.position.index == index);
                if begun {
                    self.members.waiting.push(request);
                    return;
                }
                // Whoever led meanwhile went on with it.
                if self.replicated.membership().members.settled() == Some(wanted) {
                    Reply::Decided(Answer::Done)
                } else {
                    let why = "the change of members was begun, and what became of it is not known";
                    Reply::Unknown(why.to_string())
                }
            }
            Proposal::Committed(Answer::Refused(refusal)) => Reply::Refused(refusal),
            Proposal::Committed(answer) => Reply::Decided(answer),
            Proposal::Refused => Reply::NotLeading {
                leader: self.raft.leader,
            },
            Proposal::Unknown => {
                Reply::Unknown("whether the change of members was begun is not known".to_string())
            }
        };
        out.effects.push(Effect::Answer(request, reply));
    }
}

fn nobody_waits(address: &str) -> String {
    format!("no daemon that waits to be let in answers at {address}: start it first")
}

fn no_member(address: &str) -> String {
    format!("no member has the address {address}")
}

fn refuse(id: RequestId, why: String, out: &mut Output) {
    out.effects
        .push(Effect::Answer(id, Reply::Refused(Refusal::Invalid(why))));
}
