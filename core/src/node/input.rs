//! What happens to a node: everything that can make it decide something.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{effect::PeerMessage, original::LocalOriginal};
use crate::{
    id::{Epoch, Identity, InstanceKey, LogPosition, NodeId, ProposalId, RequestId, StepId, Uid},
    membership::Sight,
    policy::Policy,
    recovery::{Hook, HookCounts, Outcome},
    replicated::{Answer, Command, Entry},
    time::Mono,
    topology::{ProbeFailure, ProbeReport},
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The deadline that `next_deadline` named is reached, or anything else calls for a look at the clock.
    Wake,
    /// Timers of this process ran late by more than 500 ms: its evidence of that time is worth nothing.
    RanLate,
    Probed(ProbeEnd),
    /// A sign of life or death from the connections kept to a watched server.
    Signed(InstanceKey, Sign),
    /// Committed entries, in order.
    Committed(Vec<(LogPosition, Entry)>),
    /// How a proposal ended.
    Proposed(ProposalId, Proposal),
    Raft(RaftView),
    /// What this daemon sees of the others.
    Sight(Box<Sight>),
    /// How appending members, or handing leadership over, ended.
    Seated(Result<(), String>),
    StepEnded(StepEnd),
    /// A hook of this detection ended, which was run under this epoch.
    DetectionHookEnded {
        number: u64,
        epoch: Epoch,
        hook: Hook,
        outcome: Outcome,
    },
    Peer(NodeId, PeerMessage),
    Asked(RequestId, Request),
    /// The policy of this daemon's own file, at start and at each reload.
    LocalPolicy(Box<Policy>),
    /// How many hooks this daemon's own file has, at start and at each reload.
    LocalHooks(HookCounts),
    /// What this daemon's own database holds of the original program, at start.
    LocalOriginal(Box<LocalOriginal>),
}

/// How a proposal ended. Unknown is never reported as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    Committed(Answer),
    /// Surely not in the log.
    Refused,
    Unknown,
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeEnd {
    pub key: InstanceKey,
    pub began: Mono,
    pub result: Result<Box<ProbeReport>, ProbeFailure>,
    /// The globals were read, whatever came after.
    pub partial_success: bool,
}

/// What the pulse connection, or a fresh dial, tells (`FAILOVER.md` section 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// The pulse connection logged in; which server answered.
    PulseUp(Identity),
    /// A complete packet on the pulse.
    PulseBeat,
    /// The pulse connection was closed by the peer.
    PulseClosed,
    /// Error 1053 on the pulse: an orderly stop.
    PulseShutdown,
    /// The statement in flight is late: half of its deadline passed without an answer.
    PulseLate,
    /// The pulse's deadline passed.
    PulseSilent,
    /// A fresh dial was refused.
    DialRefused,
    /// A fresh dial found no TCP connection within its deadline.
    DialUnreachable,
    /// TCP accepted, no login within the deadline.
    DialNoLogin,
    /// Logged in.
    DialAnswered(Identity),
    /// The server answered a dial with an error: a sign of life, unless it is 1053.
    DialError(u16),
}

/// What this daemon's raft looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RaftView {
    /// This daemon.
    pub node: NodeId,
    /// Set only while *leading* by the one function of `RAFT.md` section 5.
    pub leading: Option<Epoch>,
    pub leader: Option<NodeId>,
    pub voters: Vec<NodeId>,
    /// A voter that leads or heard its leader within an election timeout.
    pub healthy: bool,
}

/// How a step's effect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEnd {
    pub uid: Uid,
    pub step: StepId,
    pub epoch: Epoch,
    pub outcome: Outcome,
    /// Which server answered, where one did.
    pub identity: Option<Identity>,
    /// The reading after it, where the step asked for one and it succeeded.
    pub report: Option<Box<ProbeReport>>,
}

/// What a daemon thinks of a watched server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OpinionKind {
    Alive,
    /// Some sign is missing; no judgement so far.
    Suspect,
    /// Closed by the peer, and a fresh dial refused.
    Gone,
    /// A fresh dial refused while an older connection lives, or error 1053.
    Leaving,
    /// No answer for the silent patience, at least two failed logins.
    Silent,
    /// No right to vote: never logged in there within ten polls, own timers late, or half the fleet lost at once.
    Abstain,
}

impl fmt::Display for OpinionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Gone => "gone",
            Self::Leaving => "leaving",
            Self::Silent => "silent",
            Self::Abstain => "nothing at present",
        })
    }
}

/// One daemon's opinion of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    pub key: InstanceKey,
    /// Which server it means.
    pub identity: Option<Identity>,
    pub kind: OpinionKind,
    /// Milliseconds since the newest sign of life that this daemon had, when it said so; none: it never had one. Only a
    /// sign that came after a suspicion speaks against it.
    pub life_ms_ago: Option<u64>,
}

/// What an operator, a script or this daemon itself asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Commit a command; answered with what applying it came to.
    Decide(Command),
    /// Probe now, know the server, follow its source and replicas; answered when the probe ended.
    Discover(InstanceKey),
    /// Probe now; answered when the probe ended.
    Refresh(InstanceKey),
    /// One-step operations through intent and lock; answered when settled.
    SetReadOnly {
        key: InstanceKey,
        super_read_only: bool,
    },
    SetWriteable {
        key: InstanceKey,
    },
    /// Acknowledgement and the like that need log time.
    BeginDowntime {
        key: InstanceKey,
        owner: String,
        reason: String,
        lasts_s: u64,
    },
    /// A daemon is to become a member: the one that answers at this address. Answered when it is, or the change was given
    /// up.
    AddPeer {
        address: String,
    },
    /// A member is to leave: the one with this address. Answered like `AddPeer`.
    RemovePeer {
        address: String,
    },
    /// The member at the first address is to leave and the daemon that answers at the second to take its place, in one
    /// change. Answered like `AddPeer`; asked again, it is waited for the same change, or nothing is left to be done.
    ReplacePeer {
        former: String,
        newcomer: String,
    },
    /// The other daemon's opinions, asked again before a verdict.
    Opinions {
        of: InstanceKey,
    },
}
