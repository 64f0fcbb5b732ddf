//! Who belongs to the raft cluster, as replicated state: the members that raft committed, the one change of them that is
//! under way, and what became of the last one that was given up.
//!
//! The membership itself is raft's: it is only written down here, entry by entry, so that every decision about a change
//! is made from one state at one position. What holds: a change is begun against the membership entry that it names,
//! and only while no other is under way; it ends when its members are seated, or is given up while nothing but
//! learners was added.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{
    id::{LogPosition, NodeId},
    time::Wall,
};

/// What a committed entry of the raft log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Raft's own.
    Blank,
    /// A command's bytes.
    Command(Vec<u8>),
    Members(Members),
}

/// The members of a raft cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Members {
    /// One set, or two while a change is under way: a majority of each decides. None before the cluster is formed.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// They hold the log and have no vote.
    pub learners: BTreeSet<NodeId>,
}

impl Members {
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }

    /// Voters and learners.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Everybody, once.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NodeId> {
        let voters = self.voters.iter().flatten();
        voters.chain(&self.learners).copied().collect()
    }

    /// The voters when no change of them is under way.
    #[must_use]
    pub fn settled(&self) -> Option<&BTreeSet<NodeId>> {
        match self.voters.as_slice() {
            [voters] => Some(voters),
            _ => None,
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, set) in self.voters.iter().enumerate() {
            f.write_str(if place == 0 { "voters " } else { " and " })?;
            list(f, set)?;
        }
        if !self.learners.is_empty() {
            f.write_str(", learners ")?;
            list(f, &self.learners)?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, set: &BTreeSet<NodeId>) -> fmt::Result {
    for (place, node) in set.iter().enumerate() {
        write!(f, "{}{node}", if place == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// The members as raft committed them last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Membership {
    pub members: Members,
    /// The entry that made them so.
    pub at: LogPosition,
    /// The newest entry that changed who votes: what was declared before it is void.
    pub voters_since: LogPosition,
}

/// Why the members are changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeCause {
    /// A majority of the voters declared the same list.
    Declared,
    /// A machine was provisioned anew: another identity answers at a member's address.
    Swapped {
        former: NodeId,
        newcomer: NodeId,
        address: String,
    },
    /// An operator asked for it.
    Operator { request: String },
}

impl fmt::Display for ChangeCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => f.write_str("a majority of the members declared it"),
            Self::Swapped {
                former,
                newcomer,
                address,
            } => write!(f, "{address} is node {newcomer} in place of {former}"),
            Self::Operator { request } => f.write_str(request),
        }
    }
}

/// The change that is under way. How far it is shows in the membership: who is to be added is a learner or is not; the
/// voters are two sets or one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberChange {
    /// Who votes when it is done.
    pub wanted: BTreeSet<NodeId>,
    pub cause: ChangeCause,
    pub position: LogPosition,
    /// Log time.
    pub began: Wall,
}

/// A change that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    pub wanted: BTreeSet<NodeId>,
    pub reason: String,
    /// Log time.
    pub at: Wall,
}

/// A swap that was begun, kept for an hour of log time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    pub address: String,
    pub at: Wall,
}
