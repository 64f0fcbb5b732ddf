//! What the log says of the daemons themselves: descriptions, declarations, and the change of members.

use super::*;

/// Longest address or list entry that a member may declare, in bytes.
const ADDRESS_BYTES_MAX: usize = 300;
/// How long a begun swap counts.
const SWAPS_KEPT: core::time::Duration = core::time::Duration::from_secs(3600);
/// Most swaps that are kept; one more makes the oldest go.
const SWAPS_MAX: usize = 64;

impl Replicated {
    /// Writes down the members that raft committed with an entry. Entries that were applied already are ignored; the
    /// first of a cluster has index 0.
    pub fn seat(&mut self, at: LogPosition, members: &Members) -> Applied {
        let is_first = at.index == 0 && self.membership.members.voters.is_empty();
        let mut changes = Vec::new();
        if at.index <= self.applied.index && !is_first {
            return Applied {
                answer: refuse(format!("entry {at} was applied already")),
                changes,
            };
        }
        self.applied = at;
        if is_first {
            self.adoption.founders = members.voters.iter().flatten().copied().collect();
        }
        let former = core::mem::replace(
            &mut self.membership,
            Membership {
                members: members.clone(),
                at,
                voters_since: at,
            },
        );
        if former.members.voters == members.voters {
            self.membership.voters_since = former.voters_since;
        } else if !members.is_joint() {
            // Whatever was under way, this is what came of it.
            self.change = None;
        }
        if !members.is_joint() {
            // Those who left are not described any more, and their declarations are nobody's.
            let left = |node: &NodeId| !members.contains(*node);
            let gone: BTreeSet<NodeId> = self
                .members
                .iter()
                .map(|(node, _)| *node)
                .chain(self.declarations.iter().map(|(node, _)| *node))
                .filter(left)
                .collect();
            for node in gone {
                if self.members.remove(&node).is_some() {
                    changes.push(Change::Member(node, None));
                }
                if self.declarations.remove(&node).is_some() {
                    changes.push(Change::Declaration(node, None));
                }
            }
        }
        Applied {
            answer: Answer::Done,
            changes,
        }
    }
}

impl Application<'_> {
    /// The first declaration of an identity is its list at the time it came, and asks for nothing: a fresh identity
    /// declares nothing.
    pub(super) fn declare(
        &mut self,
        node: NodeId,
        entries: &[String],
        identities: &[NodeId],
    ) -> Decision {
        if !self.state.membership.members.contains(node) {
            return Err(invalid(format!("{node} is no member and declares nothing")));
        }
        let is_first = !self.state.declarations.contains(&node);
        let identities: BTreeSet<NodeId> = if is_first {
            BTreeSet::new()
        } else {
            identities.iter().copied().collect()
        };
        if !is_first && identities.is_empty() {
            return Err(invalid("a declaration of no members"));
        }
        if identities.len() > MEMBERS_MAX || entries.len() > MEMBERS_MAX {
            return Err(full("declared members", MEMBERS_MAX));
        }
        let entries = entries
            .iter()
            .map(|entry| bounded(entry.clone(), ADDRESS_BYTES_MAX))
            .collect();
        let row = Declaration {
            entries,
            identities,
            position: self.at,
            at: self.now,
        };
        self.state.declarations.put(node, row.clone());
        self.changes.push(Change::Declaration(node, Some(row)));
        Ok(Answer::Done)
    }

    pub(super) fn set_version(&mut self, command: u32, snapshot: u32) -> Decision {
        let held = self.state.versions;
        if command < held.command || snapshot < held.snapshot {
            return Err(invalid(format!(
                "versions {}/{} are switched on already; they never go back",
                held.command, held.snapshot
            )));
        }
        let wanted = Versions { command, snapshot };
        if held != wanted {
            self.state.versions = wanted;
            // Of a version that this daemon does not read nothing will be written: its node ends.
            self.state
                .set_form(snapshot.min(u32::from(SNAPSHOT_VERSION)));
            self.changes.push(Change::Version(wanted));
        }
        Ok(Answer::Done)
    }

    pub(super) fn describe_member(&mut self, node: NodeId, mut member: Member) -> Decision {
        if !self.state.membership.members.contains(node) {
            return Err(invalid(format!("{node} is no member and is not described")));
        }
        let former = self.state.members.get(&node);
        member.protocols = former.and_then(|former| former.protocols);
        self.state.members.put(node, member.clone());
        self.changes.push(Change::Member(node, Some(member)));
        Ok(Answer::Done)
    }

    pub(super) fn describe_protocols(&mut self, node: NodeId, protocols: Protocols) -> Decision {
        if self.state.form < 2 {
            return Err(invalid(
                "version 2 of snapshots is not switched on, and no other has room for this",
            ));
        }
        let member = self
            .state
            .members
            .get(&node)
            .ok_or_else(|| Refusal::NotFound(format!("description of member {node}")))?;
        let member = Member {
            protocols: Some(protocols),
            ..member.clone()
        };
        self.state.members.put(node, member.clone());
        self.changes.push(Change::Member(node, Some(member)));
        Ok(Answer::Done)
    }

    /// The gate of every change of members: decided from the membership entry that the leader saw, one at a time.
    pub(super) fn begin_member_change(
        &mut self,
        epoch: Epoch,
        base: u64,
        wanted: &[NodeId],
        cause: &ChangeCause,
    ) -> Decision {
        self.check_term(epoch)?;
        let wanted: BTreeSet<NodeId> = wanted.iter().copied().collect();
        let membership = &self.state.membership;
        if membership.at.index != base {
            return Err(invalid(format!(
                "the members were changed at {}, and this was decided from entry {base}",
                membership.at
            )));
        }
        let Some(voters) = membership.members.settled() else {
            return Err(invalid("a change of members is being finished"));
        };
        if let Some(running) = &self.state.change {
            return Err(invalid(format!(
                "another change of members is under way: {}",
                running.cause
            )));
        }
        if wanted.is_empty() || wanted.len() > MEMBERS_MAX {
            return Err(invalid(format!("{} members", wanted.len())));
        }
        if wanted == *voters {
            return Err(invalid("these are the members already"));
        }
        match cause {
            ChangeCause::Declared => {
                if wanted.len() < voters.len() {
                    return Err(invalid(
                        "RaftNodes may add and replace members, not remove them: raft-remove-peer does",
                    ));
                }
                let agreeing = self.state.declarers_of(&wanted).len();
                if agreeing * 2 <= voters.len() {
                    return Err(invalid(format!(
                        "{agreeing} of {} members declare this list",
                        voters.len()
                    )));
                }
            }
            ChangeCause::Swapped {
                former,
                newcomer,
                address,
            } => {
                let mut swapped = voters.clone();
                if !swapped.remove(former) || !swapped.insert(*newcomer) || swapped != wanted {
                    return Err(invalid(format!(
                        "{wanted:?} is not the members with {newcomer} in place of {former}"
                    )));
                }
                let swap = Swap {
                    address: bounded(address.clone(), ADDRESS_BYTES_MAX),
                    at: self.now,
                };
                self.forget_swaps();
                self.state.swaps.push(swap);
            }
            ChangeCause::Operator { .. } => {}
        }
        let cause = match cause {
            ChangeCause::Operator { request } => ChangeCause::Operator {
                request: text(request),
            },
            other => other.clone(),
        };
        self.state.change = Some(MemberChange {
            wanted,
            cause,
            position: self.at,
            began: self.now,
        });
        Ok(Answer::Numbered(self.at.index))
    }

    fn forget_swaps(&mut self) {
        let now = self.now;
        self.state.swaps.retain(|swap| swap.at + SWAPS_KEPT > now);
        if self.state.swaps.len() >= SWAPS_MAX {
            self.state.swaps.remove(0);
        }
    }

    /// Gives a change up, while nothing but learners was added.
    pub(super) fn end_member_change(&mut self, epoch: Epoch, base: u64, reason: &str) -> Decision {
        self.check_term(epoch)?;
        let membership = &self.state.membership;
        if membership.at.index != base || membership.members.is_joint() {
            return Err(invalid(format!(
                "the members were changed at {}, and this was decided from entry {base}",
                membership.at
            )));
        }
        let change = self
            .state
            .change
            .take()
            .ok_or_else(|| Refusal::NotFound("change of members".to_string()))?;
        self.state.given_up = Some(GivenUp {
            wanted: change.wanted,
            reason: text(reason),
            at: self.now,
        });
        Ok(Answer::Done)
    }
}
