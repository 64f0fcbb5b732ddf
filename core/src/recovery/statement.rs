//! What may be done to a server, as data. SQL text exists only in the adapter, which knows the server's dialect.

use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};

use super::hook::Hook;
use crate::{gtid::GtidSet, id::InstanceKey};

/// Which of a daemon's own connections to a server a step goes over, each with its named lock there (`RAFT.md`
/// section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// `orchestrator/act`
    Act,
    /// `orchestrator/fence`: the idle connection opened beforehand; its read-only outlives its deadline.
    Fence,
    /// `orchestrator/kill`
    Kill,
}

/// How a replica is to find its place in the source's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourcePosition {
    /// MySQL `SOURCE_AUTO_POSITION=1`. Needs both threads stopped (error 3081 otherwise).
    OracleAuto,
    /// MySQL: as the channel has it. Needs the receiver stopped only, and so do the options stated with it: those that
    /// concern the applier are left as they are.
    OracleKept,
    /// MariaDB `MASTER_USE_GTID=slave_pos`.
    MariadbSlavePos,
}

/// One statement, or for [`Statement::KillClients`] one bounded loop of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// MySQL: `super_read_only=1`. MariaDB: `read_only=1` and the event scheduler off.
    Fence,
    /// Undoes [`Statement::Fence`], or opens a promoted server: MySQL `super_read_only=0, read_only=0`, MariaDB
    /// `read_only=0`.
    MakeWriteable,
    /// `read_only=1`, and `super_read_only=1` where asked for.
    MakeReadOnly {
        super_read_only: bool,
    },
    /// Lists and kills client sessions until none is left, except replication, system, our own account's and
    /// `spare_users`; at most until the step's deadline.
    KillClients {
        spare_users: Vec<String>,
    },
    StopIoThread,
    StartIoThread,
    StopSqlThread,
    StartSqlThread,
    StopReplication,
    StartReplication,
    /// Points replication at `source`; every other channel option that was read before is stated again.
    ChangeSource {
        source: InstanceKey,
        position: SourcePosition,
        options: Vec<(String, String)>,
    },
    /// Forgets replication settings. Only when everything received is applied.
    ResetReplicaAll,
    /// MariaDB: where a server that was a primary starts to replicate from.
    SetGtidSlavePos {
        position: GtidSet,
    },
    SemiSyncSource {
        enabled: bool,
    },
    SemiSyncReplica {
        enabled: bool,
    },
    /// Runs a command of the operators' own on the leading daemon, for this server; no connection is needed for it.
    RunHook {
        hook: Hook,
    },
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence => f.write_str("fence (read-only)"),
            Self::MakeWriteable => f.write_str("make writeable"),
            Self::MakeReadOnly {
                super_read_only: true,
            } => f.write_str("make super-read-only"),
            Self::MakeReadOnly {
                super_read_only: false,
            } => f.write_str("make read-only"),
            Self::KillClients { .. } => f.write_str("kill client sessions"),
            Self::StopIoThread => f.write_str("stop IO thread"),
            Self::StartIoThread => f.write_str("start IO thread"),
            Self::StopSqlThread => f.write_str("stop SQL thread"),
            Self::StartSqlThread => f.write_str("start SQL thread"),
            Self::StopReplication => f.write_str("stop replication"),
            Self::StartReplication => f.write_str("start replication"),
            // The options' values are nobody's business who reads an audit or a log.
            Self::ChangeSource {
                source,
                position,
                options,
            } => {
                let position = match position {
                    SourcePosition::OracleAuto => "by GTID auto position",
                    SourcePosition::OracleKept => "position kept",
                    SourcePosition::MariadbSlavePos => "by gtid_slave_pos",
                };
                write!(
                    f,
                    "change source to {source}, {position}, {} channel options stated again",
                    options.len()
                )
            }
            Self::ResetReplicaAll => f.write_str("reset replica all"),
            Self::SetGtidSlavePos { position } => write!(f, "set gtid_slave_pos to {position}"),
            Self::SemiSyncSource { enabled } => write!(f, "semi-sync source {}", on_off(*enabled)),
            Self::SemiSyncReplica { enabled } => {
                write!(f, "semi-sync replica {}", on_off(*enabled))
            }
            Self::RunHook { hook } => write!(f, "run hook {hook}"),
        }
    }
}

const fn on_off(enabled: bool) -> &'static str {
    if enabled { "on" } else { "off" }
}
