//! Raft between the daemons: openraft, with everything around it that keeps its promises.
//!
//! The layer above (the driver) sees commands and snapshots as bytes, and [`RaftHandle`]; openraft's types do not leave
//! this folder. What is durable, who may speak, how a first cluster comes about and what *leading* means is decided here;
//! what a command does is not.
//!
//! Holds between calls: nothing is acknowledged to a peer that is not on stable storage; an identity is never used for
//! two histories; nobody is listened to before a handshake named both sides and their cluster.

mod broken;
mod callers;
mod certificates;
mod check;
mod form;
mod handle;
pub mod id;
mod identity;
mod incoming;
mod journal;
mod link;
mod log;
mod machine;
mod node;
mod peers;
mod post;
mod recover;
mod serve;
mod sight;
mod snapshot;
pub mod start;
mod strangers;
mod tls;
mod types;
mod wire;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod openraft_contract;
#[cfg(test)]
mod test_folder;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::replicated::snapshot::SNAPSHOT_VERSION;
use orchestrator_core::replicated::wire::COMMAND_VERSION;
pub use orchestrator_core::replicated::{Entry, Members};
use orchestrator_core::replicated::{Protocols, Versions};
use tokio::sync::{mpsc, oneshot};

pub use self::broken::note_broken;
pub use self::certificates::init_certificates;
pub use self::check::check_bytes;
pub use self::form::{ask_to_form, outcome_of_forming};
pub use self::handle::{
    AskError, Confirmation, Known, MemberView, NotLeading, Proposed, RaftHandle, RaftState,
    RaftStatusView, RaftSummary, look, start,
};
pub use self::id::{ClusterId, Epoch, LogPosition, NodeId};
pub use self::recover::{Export, Recovery, examine, export, of_backend, of_file};
pub use self::start::{BackendPosition, StartDecision, decide_start};
pub use self::tls::TlsFiles;
pub use self::wire::{COMMAND_BYTES_MAX, PROTOCOLS, SNAPSHOT_BYTES_MAX};

/// How one daemon's raft is set up.
#[derive(Debug, Clone)]
pub struct RaftSettings {
    /// `RaftDataDir`.
    pub data_dir: PathBuf,
    /// The identity that this daemon gets if the directory has none ([`look`]); none: it is drawn.
    pub minted: Option<NodeId>,
    /// `RaftBind`: where the raft port listens; the port defaults to `default_port`.
    pub bind: String,
    /// `RaftAdvertise`: where peers reach it; empty: as bound. Never an unspecified address.
    pub advertise: String,
    /// Where this daemon's HTTP service is reached, told to peers.
    pub http_uri: String,
    /// `RaftNodes`: every node, this one included. Empty: this one alone.
    pub nodes: Vec<String>,
    /// `DefaultRaftPort`.
    pub default_port: u16,
    /// `RaftHeartbeatMillis`.
    pub heartbeat_ms: u64,
    /// `RaftElectionTimeoutMillis`: openraft's maximum; its minimum is 60 % of it.
    pub election_timeout_ms: u64,
    pub release: Release,
    /// The program's version, to be shown.
    pub build: String,
    /// `RaftReplaceSilentSeconds`
    pub replace_silent: Duration,
    /// `RaftReplacePerHour`
    pub replace_per_hour: u64,
    /// What the backend says of itself; `None` when it is empty.
    pub backend: Option<BackendPosition>,
    pub log: LogBounds,
    /// Whether the driver will take an image that a peer sent.
    pub check_image: CheckImage,
    /// Certificates for mutual TLS; none: the port is open to whoever reaches it.
    pub tls: Option<TlsFiles>,
    /// `RaftTLSRefusePlainText`
    pub tls_refuses_plain: bool,
}

/// What a daemon reads, and what it speaks with its peers: that of its program.
///
/// Tests have a daemon behave as one of the release before would ([`Release::BEFORE`]), so that two releases meet in one
/// cluster without a second program: the newest versions are real, and are held back, rather than made up for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The newest versions of commands and snapshots that it reads.
    pub reads: Versions,
    pub protocols: Protocols,
}

impl Release {
    pub const THIS: Release = Release {
        reads: Versions {
            command: COMMAND_VERSION as u32,
            snapshot: SNAPSHOT_VERSION as u32,
        },
        protocols: PROTOCOLS,
    };

    /// The last one that did not know of other versions: commands and snapshots of version 1, protocol 2.
    pub const BEFORE: Release = Release {
        reads: Versions {
            command: 1,
            snapshot: 1,
        },
        protocols: Protocols {
            oldest: 2,
            newest: 2,
        },
    };

    /// The one number that a handshake has for commands and snapshots.
    pub(self) fn reads_both(&self) -> u32 {
        self.reads.command.min(self.reads.snapshot)
    }
}

/// How much log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// A snapshot is made after so many entries.
    pub snapshot_entries: u64,
    /// So many entries are kept behind a snapshot for peers that are behind.
    pub keep_entries: u64,
    /// Beyond so many bytes a snapshot is made and the log is cut to half of it, whatever `keep_entries` says.
    pub bytes_max: u64,
    /// A snapshot is made after so long, if anything was applied since the last.
    pub snapshot_age_max: Duration,
}

impl Default for LogBounds {
    fn default() -> Self {
        LogBounds {
            snapshot_entries: 5_000,
            keep_entries: 10_000,
            bytes_max: 64 << 20,
            snapshot_age_max: Duration::from_secs(24 * 3600),
        }
    }
}

impl RaftSettings {
    /// Settings for a node alone, with the defaults of a local network.
    pub fn new(data_dir: impl Into<PathBuf>, bind: impl Into<String>) -> Self {
        RaftSettings {
            data_dir: data_dir.into(),
            minted: None,
            bind: bind.into(),
            advertise: String::new(),
            http_uri: String::new(),
            nodes: Vec::new(),
            default_port: 10_008,
            heartbeat_ms: 50,
            election_timeout_ms: 250,
            release: Release::THIS,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            replace_silent: Duration::from_secs(30),
            replace_per_hour: 3,
            backend: None,
            log: LogBounds::default(),
            check_image: recover::check_image,
            tls: None,
            tls_refuses_plain: false,
        }
    }

    pub(self) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// The longest election timeout, which is also a follower's lease for its leader.
    pub(self) fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms)
    }

    /// The shortest election timeout.
    pub(self) fn election_timeout_min(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms * 60 / 100)
    }
}

/// An address as `host:port`, IPv6 in brackets. Names are not resolved: that happens at each dial.
pub fn normalise_address(text: &str, default_port: u16) -> Result<String, String> {
    let key = InstanceKey::parse(text, default_port)
        .map_err(|error| format!("the address '{text}' is wrong: {error}"))?;
    Ok(if key.host.contains(':') {
        format!("[{}]:{}", key.host, key.port)
    } else {
        format!("{}:{}", key.host, key.port)
    })
}

/// An image of the driver's state at one position, to be encoded outside the driver.
pub type Image = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// Why bytes are no image of the driver's state at this position that a daemon can read which reads these versions. Takes as
/// long as reading it does.
pub type CheckImage = fn(&[u8], LogPosition, Versions) -> Result<(), String>;

/// What raft asks of the task that holds the state. Requests are served in the order they come.
pub enum ReplicaRequest {
    /// Apply committed entries, in order. One answer an entry.
    Apply {
        entries: Vec<(LogPosition, Entry)>,
        reply: oneshot::Sender<Vec<Vec<u8>>>,
    },
    /// Take an image of the state as it is, without copying more than must be.
    Snapshot { reply: oneshot::Sender<Image> },
    /// Replace the state by a snapshot's. An error (a version that cannot be read) ends raft with that reason.
    Install {
        at: LogPosition,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Answer, and nothing else.
    Alive { reply: oneshot::Sender<()> },
}

impl fmt::Debug for ReplicaRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicaRequest::Apply { entries, .. } => {
                write!(formatter, "Apply {} entries", entries.len())
            }
            ReplicaRequest::Snapshot { .. } => write!(formatter, "Snapshot"),
            ReplicaRequest::Alive { .. } => write!(formatter, "Alive"),
            ReplicaRequest::Install { at, bytes, .. } => {
                write!(formatter, "Install {} bytes at {at}", bytes.len())
            }
        }
    }
}

/// A message of the layer above, from a member of the cluster.
#[derive(Debug)]
pub struct PeerMessage {
    pub from: NodeId,
    pub bytes: Vec<u8>,
    /// Where the answer goes, when one is expected.
    pub reply: Option<oneshot::Sender<Vec<u8>>>,
}

/// What a start found.
#[derive(Debug)]
pub struct StartReport {
    pub node: NodeId,
    pub boot: u64,
    /// `None`: there is no cluster yet; the status says what is waited for.
    pub cluster: Option<ClusterId>,
    /// Where the raft port listens.
    pub listening: String,
    pub advertise: String,
    /// What is to be done with the backend.
    pub decision: StartDecision,
    /// Messages of the layer above from other members.
    pub messages: mpsc::Receiver<PeerMessage>,
}

/// Why raft was not started. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// The settings are wrong.
    Settings(String),
    /// Another process has the raft data directory.
    InUse(String),
    /// The machine did not do what was asked.
    Io(String),
    /// What is on the disk is damaged, or is not this program's.
    Damaged(String),
    /// This identity must not be used again; the next start makes another.
    Retired(String),
    /// Backend and raft data directory do not belong together.
    Refused(String),
    /// This program failed at an entry of the log as often as it is tried: the daemon is to run without raft, act on
    /// nothing and say so.
    Held(String),
}

impl StartError {
    /// With the directory that it is about.
    fn of(self, directory: &Path) -> Self {
        let directory = directory.display().to_string();
        let named = |what: String| {
            if what.contains(&directory) {
                what
            } else {
                format!("{what} (RaftDataDir {directory})")
            }
        };
        match self {
            StartError::Io(what) => StartError::Io(named(what)),
            StartError::Damaged(what) => StartError::Damaged(named(what)),
            // These name it where it matters.
            StartError::Settings(_)
            | StartError::InUse(_)
            | StartError::Retired(_)
            | StartError::Refused(_)
            | StartError::Held(_) => self,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Settings(what)
            | StartError::InUse(what)
            | StartError::Refused(what)
            | StartError::Held(what) => formatter.write_str(what),
            StartError::Io(what) => write!(
                formatter,
                "raft cannot be started: {what}. What was acknowledged is kept: mend that (a disk may be full, failing or \
                 mounted read-only), then start again"
            ),
            StartError::Damaged(what) => write!(
                formatter,
                "the raft data directory is damaged: {what}. It is not mended, since what this node promised cannot be known \
                 any more: move the directory away and start again with an empty one; the node then comes back as another"
            ),
            StartError::Retired(what) => write!(
                formatter,
                "this identity is retired: {what}. At the next start this node comes back as another"
            ),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_port() {
        let check = |text: &str, wanted: Result<&str, ()>| {
            assert_eq!(
                normalise_address(text, 10_008).as_deref().map_err(|_| ()),
                wanted,
                "{text}"
            );
        };
        check("node1", Ok("node1:10008"));
        check("node1:7", Ok("node1:7"));
        check("10.0.0.1", Ok("10.0.0.1:10008"));
        check("::1", Ok("[::1]:10008"));
        check("[::1]:7", Ok("[::1]:7"));
        check("", Err(()));
        check("node1:port", Err(()));
    }
}
