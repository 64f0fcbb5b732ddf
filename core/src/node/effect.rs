//! What a node wants done, as plain data.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{fmt, time::Duration};
use serde::{Deserialize, Serialize};

use super::input::Opinion;
use crate::{
    id::{Epoch, InstanceKey, LogPosition, NodeId, ProposalId, RequestId, StepId, Uid},
    recovery::{Hook, HookFacts, Step},
    replicated::{Answer, Change, Members, OriginalRows, OriginalSummary, Protocols, Refusal},
    topology::ProbeFailure,
};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read a server. Urgent ones (of a cluster under suspicion or in recovery) go before all others.
    Probe {
        key: InstanceKey,
        urgent: bool,
    },
    /// Keep a pulse and an idle fence connection to this server; re-dial at this interval when the pulse is broken.
    /// A further one for the same server only changes the interval.
    Watch {
        key: InstanceKey,
        redial: Duration,
    },
    Unwatch {
        key: InstanceKey,
    },
    /// A forgotten server, or a name that did not become that of a server: close everything kept to it.
    Drop {
        key: InstanceKey,
    },
    /// Run a step intended under this epoch: confirm leadership before each statement.
    Run {
        uid: Uid,
        epoch: Epoch,
        step: Step,
    },
    /// Run a command of the operators' own, if this daemon still leads under this epoch.
    RunHook {
        run: HookRun,
        epoch: Epoch,
        hook: Hook,
        facts: Box<HookFacts>,
    },
    /// Write the fence statement into this daemon's own idle fence connection of a silent primary whose promote intent
    /// is committed (`RAFT.md` section 6, the one exception). Nothing is awaited.
    FenceFrozen {
        uid: Uid,
        epoch: Epoch,
        key: InstanceKey,
    },
    /// Propose these command bytes.
    Propose {
        id: ProposalId,
        bytes: Vec<u8>,
        deadline: Duration,
    },
    /// Tell every other member.
    Tell(PeerMessage),
    /// Tell one.
    TellOne(NodeId, PeerMessage),
    /// Append exactly these members, if the last ones are those of the entry `base`; before that, let the invited join.
    /// Ends in [`super::Input::Seated`].
    Seat {
        base: LogPosition,
        members: Members,
        invited: BTreeSet<NodeId>,
    },
    /// Give leadership to one of these. Ends in [`super::Input::Seated`].
    HandOver {
        to: BTreeSet<NodeId>,
    },
    /// Tell newcomers that ask why they are not let in.
    Explain(BTreeMap<NodeId, String>),
    /// Look who answers at these raft addresses too, from here on; with who said to be there.
    Greet(BTreeMap<String, Option<NodeId>>),
    Answer(RequestId, Reply),
}

/// What a hook is run for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookRun {
    /// A step of a recovery; its end is an [`Input::StepEnded`](super::Input::StepEnded).
    Step { uid: Uid, step: StepId },
    /// A detection, by its number; its end is an
    /// [`Input::DetectionHookEnded`](super::Input::DetectionHookEnded).
    Detection(u64),
}

/// What daemons say to each other beside raft. Variants are appended and never changed, since members of two releases talk
/// to each other; one that came with a later version is said once that version is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Opinions that changed, or were asked for.
    Opinions(Vec<Opinion>),
    AskOpinion(InstanceKey),
    /// The digest of the sender's replicated state at a position of the log.
    Digest {
        at: LogPosition,
        digest: [u8; 32],
    },
    /// To the leader: propose this about me.
    Propose(Word),
}

/// What a member has its leader propose about it; whom it is about is known from the connection. Changed as
/// [`PeerMessage`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    Describe {
        raft_address: String,
        http_uri: String,
        host_name: String,
        build: String,
        reads_command: u32,
        reads_snapshot: u32,
        original: Option<OriginalSummary>,
    },
    Declare {
        entries: Vec<String>,
        identities: Vec<NodeId>,
    },
    /// A part of what its database of the original program says.
    Adopt {
        part: u32,
        is_last: bool,
        rows: Box<OriginalRows>,
    },
    /// Since version 2.
    Speaks(Protocols),
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Decided(Answer),
    /// The probe brought facts; they are in the observed half.
    Probed(InstanceKey),
    ProbeFailed(ProbeFailure),
    /// An operation ended as wished.
    Operated(InstanceKey),
    Refused(Refusal),
    /// No leader, or it is somebody else: nothing was changed.
    NotLeading {
        leader: Option<NodeId>,
    },
    /// It may or may not have happened.
    Unknown(String),
    Failed(String),
}

/// Something worth a line in the log. A decision that is not a note did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    /// The recovery it belongs to.
    pub uid: Option<Uid>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.uid {
            Some(uid) => write!(f, "[{uid}] {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What one step of the node comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
    /// One for each entry of `Input::Committed`, in order.
    pub applied: Vec<Answer>,
    /// What applying them changed, for the backend.
    pub changes: Vec<Change>,
    /// The node can go on no more; the daemon exits with this as its last words.
    pub fatal: Option<Fatal>,
}

/// Why a node can go on no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// The entry of the log that brought it about, if one did: a daemon that fails at it a second time must not try it
    /// without end.
    pub entry: Option<LogPosition>,
    pub reason: String,
}
