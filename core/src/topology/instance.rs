//! One server as this node knows it: the newest facts, how old they are, and where it stands in its topology.

use alloc::{string::String, sync::Arc};
use serde::{Deserialize, Serialize};

use super::report::{ProbeReport, PromotionRule, ThreadState};
use crate::{
    id::{Identity, InstanceKey},
    time::{Mono, Now, Wall},
};

/// Why a probe brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeFailure {
    /// TCP said no: nobody listens.
    Refused,
    /// No TCP connection within the deadline, or no route.
    Unreachable,
    /// Its name has no address, or nobody who would know answered in time; why.
    Unresolved(String),
    /// TCP accepted, the login did not complete within the deadline.
    NoLogin,
    /// The server answered with an error, which is a sign of life (1040, 1045, 1203, 1226, a TLS refusal ...).
    ServerError { code: u16, message: String },
    /// Logged in; the probe itself did not complete within its deadline.
    Stalled,
    /// The connection ended in the middle.
    Closed,
    /// What came could not be read.
    Garbled(String),
}

impl ProbeFailure {
    /// The server proved to be alive, even if it cannot be used.
    #[must_use]
    pub const fn proves_life(&self) -> bool {
        match self {
            // 1053: server shutdown in progress, an orderly stop.
            Self::ServerError { code, .. } => *code != 1053,
            Self::Refused
            | Self::Unreachable
            | Self::Unresolved(_)
            | Self::NoLogin
            | Self::Stalled
            | Self::Closed
            | Self::Garbled(_) => false,
        }
    }
}

impl core::fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("no connection within the deadline"),
            Self::Unresolved(why) => write!(f, "its name does not resolve: {why}"),
            Self::NoLogin => f.write_str("connected, but no login within the deadline"),
            Self::ServerError { code, message } => write!(f, "server error {code}: {message}"),
            Self::Stalled => {
                f.write_str("logged in, but the probe did not complete within its deadline")
            }
            Self::Closed => f.write_str("connection closed by the server"),
            Self::Garbled(what) => write!(f, "unreadable answer: {what}"),
        }
    }
}

/// Where a server stands, derived from what is observed (`spec/probing.md` section 7).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// `host:port` of the cluster's head.
    pub cluster_name: String,
    /// The topology's root as followed upward; the server itself when it has no known source.
    pub root: InstanceKey,
    /// 0 for a primary.
    pub depth: u32,
    pub is_co_primary: bool,
    pub suggested_alias: String,
    /// Transactions that the cluster's primary does not have; canonical text, empty for none.
    pub errant: String,
    /// Server UUIDs from the root down to this server, comma separated.
    pub ancestry: String,
}

/// One server as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub key: InstanceKey,
    /// The newest successful probe.
    pub report: Option<Arc<ProbeReport>>,
    /// When the newest probe began.
    pub attempted: Option<Mono>,
    /// When a probe last ended, well or not.
    pub checked: Option<Mono>,
    /// When a probe last succeeded.
    pub seen: Option<Mono>,
    /// The same for showing.
    pub checked_at: Wall,
    pub seen_at: Wall,
    /// The newest probe got as far as the globals.
    pub partial_success: bool,
    pub failure: Option<ProbeFailure>,
    pub place: Place,
    /// When this node came to know the server.
    pub known_since: Mono,
    /// It was promoted away from the source that its settings still name: it heads its cluster all the same.
    pub left_source: bool,
}

impl Instance {
    #[must_use]
    pub fn new(key: InstanceKey, now: Now) -> Self {
        Self {
            key,
            report: None,
            attempted: None,
            checked: None,
            seen: None,
            checked_at: Wall::EPOCH,
            seen_at: Wall::EPOCH,
            partial_success: false,
            failure: None,
            place: Place::default(),
            known_since: now.mono,
            left_source: false,
        }
    }

    /// `IsLastCheckValid`: the newest completed probe succeeded.
    #[must_use]
    pub fn is_last_check_valid(&self) -> bool {
        matches!((self.checked, self.seen), (Some(checked), Some(seen)) if checked <= seen)
    }

    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.report.as_ref().map(|report| &report.identity)
    }

    /// The source it replicates from, if replication is configured and names one that it was not promoted away from.
    #[must_use]
    pub fn source(&self) -> Option<&InstanceKey> {
        if self.left_source {
            return None;
        }
        self.configured_source()
    }

    /// The source that its settings name.
    #[must_use]
    pub fn configured_source(&self) -> Option<&InstanceKey> {
        let source = &self.report.as_ref()?.replication.as_ref()?.source;
        (!source.host.is_empty() && source.host != "_" && source.port != 0).then_some(source)
    }

    #[must_use]
    pub fn io(&self) -> ThreadState {
        self.report
            .as_ref()
            .and_then(|report| report.replication.as_ref())
            .map_or(ThreadState::NoThread, |s| s.io)
    }

    #[must_use]
    pub fn sql(&self) -> ThreadState {
        self.report
            .as_ref()
            .and_then(|report| report.replication.as_ref())
            .map_or(ThreadState::NoThread, |s| s.sql)
    }

    #[must_use]
    pub fn read_only(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.read_only)
    }

    /// The rule its own probe brought; a registered one, in replicated state, comes first.
    #[must_use]
    pub fn suggested_rule(&self) -> Option<PromotionRule> {
        self.report
            .as_ref()
            .and_then(|report| report.classification.promotion_rule)
    }
}
