//! Names of things: newtypes with an order and a one-line form.
//!
//! Nothing here is drawn at random: ids are read from the world (servers, daemons) or are hashes of an epoch and
//! a counter, so that two runs with equal inputs name things alike.

use alloc::string::{String, ToString};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// Where a MySQL server is reached: the `InstanceKey` of the HTTP API. Ordered by host name (bytes), then port;
/// this order breaks ties in several algorithms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct InstanceKey {
    /// Host name or address; a leading `//` marks a detached source.
    pub host: String,
    pub port: u16,
}

impl InstanceKey {
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// May be probed: a host name that is neither empty, unknown (`_`) nor detached, and a port.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.host.is_empty() && self.host != "_" && !self.is_detached() && self.port > 0
    }

    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.host.starts_with("//")
    }

    /// Parses `host:port`, `host`, `[v6]:port` or a bare IPv6 address.
    ///
    /// # Errors
    /// [`KeyError`] names what is wrong with the text.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > crate::limits::HOST_NAME_BYTES_MAX + 8 {
            return Err(KeyError::TooLong);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(KeyError::Bracket)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(KeyError::Bracket),
            }
        } else {
            match text.matches(':').count() {
                0 => (text, None),
                1 => text
                    .split_once(':')
                    .map_or((text, None), |(host, port)| (host, Some(port))),
                _ => (text, None),
            }
        };
        if host.is_empty() {
            return Err(KeyError::Empty);
        }
        if host.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(KeyError::Character);
        }
        let port = match port {
            Some(port) => port.parse::<u16>().map_err(|_| KeyError::Port)?,
            None => default_port,
        };
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for InstanceKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text, 3306)
    }
}

/// Why a text is no instance key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    Empty,
    TooLong,
    Bracket,
    Character,
    Port,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty host name",
            Self::TooLong => "host name too long",
            Self::Bracket => "unbalanced bracket around an IPv6 address",
            Self::Character => "host name with a comma, a blank or a control character",
            Self::Port => "port is not a number from 0 to 65535",
        })
    }
}

/// Which server it is, whatever address it answers at: `server_uuid` on MySQL, `server_id@host` on MariaDB, which has
/// no UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Identity(pub String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A daemon: minted once per raft data directory, never reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A raft cluster of daemons: a hash of the identities that formed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 32]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who acts: one leadership of one run of one daemon. Orders by term first: a later epoch is the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Epoch {
    pub term: u64,
    pub node: NodeId,
    pub boot: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.term, self.node, self.boot)
    }
}

/// A place in the raft log. `node` is the leader that wrote the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LogPosition {
    pub index: u64,
    pub term: u64,
    pub node: NodeId,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A fleet cluster (a replication topology), whichever server is its primary: stable across failovers. A hash of the
/// log position at which it was first recorded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ClusterKey(pub u64);

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A recovery or an operation: the `UID` of the HTTP API, `<unix nanoseconds>:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Uid(pub String);

impl Uid {
    /// The uid of the `counter`-th undertaking of an epoch.
    #[must_use]
    pub fn of(epoch: Epoch, counter: u64, at: crate::time::Wall) -> Self {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        hash.update(epoch.term.to_le_bytes());
        hash.update(epoch.node.0.to_le_bytes());
        hash.update(epoch.boot.to_le_bytes());
        hash.update(counter.to_le_bytes());
        let mut text = at.nanos().to_string();
        text.push(':');
        for byte in hash.finalize() {
            text.push_str(&alloc::format!("{byte:02x}"));
        }
        Self(text)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! counter_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}
counter_id!(
    /// A request of an operator or of a script that waits for an answer; counted by the driver.
    RequestId, "request-");
counter_id!(
    /// A proposal on its way through raft; counted by the node.
    ProposalId, "proposal-");
counter_id!(
    /// A step within its undertaking, counted from 1.
    StepId, "step-");
