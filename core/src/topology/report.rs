//! What one successful probe saw of one server. Adapters fill it; nothing here judges.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, time::Duration};
use serde::{Deserialize, Serialize};

use crate::{
    gtid::GtidSet,
    id::{Identity, InstanceKey},
};

/// Whose server it is; decides the dialect before any version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Flavour {
    #[default]
    Mysql,
    Percona,
    Mariadb,
    MaxScale,
}

impl Flavour {
    /// `FlavorName` of the HTTP API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "MySQL",
            Self::Percona => "Percona",
            Self::Mariadb => "MariaDB",
            Self::MaxScale => "MaxScale",
        }
    }
}

/// A server version: the text it reports, and the numbers for comparison (numerically, never as text).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    pub numbers: (u32, u32, u32),
    pub text: String,
}

impl Version {
    /// Reads the leading `major.minor.patch` of a version text; what is missing counts as 0. MariaDB's `5.5.5-` prefix
    /// of the handshake is skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let digits = text.strip_prefix("5.5.5-").unwrap_or(text);
        let mut numbers = digits
            .split(|c: char| !c.is_ascii_digit())
            .take(3)
            .map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            numbers: (next(), next(), next()),
            text: String::from(text),
        }
    }

    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.numbers >= (major, minor, patch)
    }

    /// The first two numbers, as replication compatibility compares them.
    #[must_use]
    pub const fn major(&self) -> (u32, u32) {
        (self.numbers.0, self.numbers.1)
    }
}

/// State of a replication thread, with the numbers of the HTTP API (`ReplicationThreadState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum ThreadState {
    /// The server has no replication configured.
    #[default]
    NoThread = -1,
    Stopped = 0,
    /// Exactly `Yes`.
    Running = 1,
    /// `Connecting`, `Preparing`: not running.
    Other = 2,
}

/// A place in a binary or relay log. File names compare by the number in their extension, not as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BinlogCoordinates {
    pub file: String,
    pub position: u64,
}

/// MariaDB's `Using_Gtid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum UsingGtid {
    #[default]
    No,
    SlavePos,
    CurrentPos,
}

/// The default channel of `SHOW REPLICA STATUS`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// As the server states it, resolved.
    pub source: InstanceKey,
    /// Empty on MariaDB.
    pub source_uuid: String,
    /// MariaDB's `Master_Server_Id`; 0 when not reported.
    pub source_server_id: u32,
    pub user: String,
    pub io: ThreadState,
    pub sql: ThreadState,
    /// Error number of the IO thread, 0 for none.
    pub io_errno: u32,
    pub io_error: String,
    pub sql_errno: u32,
    pub sql_error: String,
    /// Received: file and position in the source's log.
    pub read: BinlogCoordinates,
    /// Applied: file and position in the source's log.
    pub exec: BinlogCoordinates,
    pub relay: BinlogCoordinates,
    /// Bytes in relay logs; a MariaDB server with no more than a header holds nothing unapplied.
    pub relay_log_space: u64,
    /// Seconds; none when the server says NULL.
    pub seconds_behind: Option<u64>,
    /// Configured delay in seconds.
    pub sql_delay_s: u32,
    /// MySQL's Auto_Position.
    pub auto_position: bool,
    /// MariaDB.
    pub using_gtid: UsingGtid,
    /// Received from the source: `Retrieved_Gtid_Set` (MySQL) or `Gtid_IO_Pos` (MariaDB, which lies when no thread runs
    /// and the relay log is empty). Use [`ProbeReport::held`].
    pub received: Option<GtidSet>,
    pub has_filters: bool,
    pub tls_allowed: bool,
    /// Seconds the server waits for its source before it gives up the connection; 0 when not known.
    pub net_timeout_s: u32,
    /// Heartbeats received on this channel since start; none where not readable.
    pub heartbeats_received: Option<u64>,
    /// The channel's other options as read, in the server's own spelling, to be stated again on a repoint: name and
    /// literal (TLS family, public key, retry interval and count, heartbeat period, compression, bind ...).
    pub options: Vec<(String, String)>,
}

impl ReplicaStatus {
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.io == ThreadState::Running && self.sql == ThreadState::Running
    }

    /// The IO thread cannot reach its source: by the text of its error, as the original has it (both wordings).
    #[must_use]
    pub fn is_failing_to_connect(&self) -> bool {
        if self.io == ThreadState::Running || self.sql != ThreadState::Running {
            return false;
        }
        let text = self.io_error.to_ascii_lowercase();
        let Some(at) = text.find("error ") else {
            return false;
        };
        let rest = &text[at..];
        rest.contains("connecting to master") || rest.contains("connecting to source")
    }

    #[must_use]
    pub fn uses_any_gtid(&self) -> bool {
        self.auto_position || self.using_gtid != UsingGtid::No
    }
}

/// Semi-synchronous replication, both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SemiSync {
    /// Both plugins are loaded (or built in).
    pub available: bool,
    pub source_enabled: bool,
    pub replica_enabled: bool,
    /// Milliseconds.
    pub source_timeout_ms: u64,
    pub source_wait_count: u32,
    pub source_status: bool,
    pub source_clients: u32,
    pub replica_status: bool,
    /// Waits after the sync of the log, before the commit in the engine (`AFTER_SYNC`): only then nothing is seen that
    /// may be lost.
    pub after_sync: bool,
    /// The server knows the `source`/`replica` spelling of the variables.
    pub source_spelling: bool,
    pub replica_spelling: bool,
}

/// Group replication membership.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupMembership {
    pub name: String,
    pub single_primary: bool,
    pub state: String,
    pub role: String,
    pub members: Vec<InstanceKey>,
    pub primary: InstanceKey,
}

/// How willingly a server is promoted. Ordered best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum PromotionRule {
    Must,
    Prefer,
    #[default]
    Neutral,
    PreferNot,
    MustNot,
}

impl PromotionRule {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Prefer => "prefer",
            Self::Neutral => "neutral",
            Self::PreferNot => "prefer_not",
            Self::MustNot => "must_not",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "must" => Some(Self::Must),
            "prefer" => Some(Self::Prefer),
            "neutral" => Some(Self::Neutral),
            "prefer_not" => Some(Self::PreferNot),
            "must_not" => Some(Self::MustNot),
            _ => None,
        }
    }
}

/// What the configured patterns and queries say of a server. Empty text: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Classification {
    pub data_center: String,
    pub region: String,
    pub physical_environment: String,
    pub instance_alias: String,
    pub cluster_alias: String,
    pub cluster_domain: String,
    pub promotion_rule: Option<PromotionRule>,
    pub semi_sync_priority: u8,
    /// Result of `ReplicationLagQuery` in seconds.
    pub lag_s: Option<u64>,
}

/// What a right is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    Probe,
    Halt,
    Fence,
    Promote,
    Kill,
    Credentials,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Halt => "halt",
            Self::Fence => "fence",
            Self::Promote => "promote",
            Self::Kill => "kill",
            Self::Credentials => "credentials",
        })
    }
}

/// A right that our account lacks, and the statement that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPrivilege {
    pub purpose: Purpose,
    pub grant: String,
}

/// Which clients a fence of this server would not stop: `super_read_only` of MySQL stops everybody, `read_only` of MariaDB
/// does not stop accounts with READ ONLY ADMIN (F8). System accounts and our own are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ThroughFence {
    /// None, or it was not asked for so far.
    #[default]
    Nobody,
    /// Accounts as the server quotes them, at most [`THROUGH_FENCE_MAX`] of them; `has_more` says that there are others.
    Accounts { named: Vec<String>, has_more: bool },
    /// Our account may not read it; the statement that mends it.
    Unknown { grant: String },
}

/// Most accounts that are named as not stopped by a fence.
pub const THROUGH_FENCE_MAX: usize = 5;

/// How far one server wrote into a MariaDB log, in one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WrittenBy {
    pub domain: u32,
    pub server_id: u32,
    pub sequence: u64,
}

/// What one successful probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    pub identity: Identity,
    /// The key this server calls itself by (`MySQLHostnameResolveMethod`); the probed key when it does not say.
    pub self_key: InstanceKey,
    pub server_id: u32,
    /// Empty on MariaDB.
    pub server_uuid: String,
    pub flavour: Flavour,
    pub version: Version,
    pub version_comment: String,
    pub uptime_s: u64,
    pub read_only: bool,
    pub super_read_only: bool,
    pub log_bin: bool,
    pub log_replica_updates: bool,
    /// `STATEMENT`, `MIXED`, `ROW`.
    pub binlog_format: String,
    pub binlog_row_image: String,
    pub binlog: Option<BinlogCoordinates>,
    /// MySQL's `gtid_mode`; empty on MariaDB.
    pub gtid_mode: String,
    /// Applied or written here: `gtid_executed` (MySQL), per domain the greater of `gtid_binlog_pos` and
    /// `gtid_slave_pos` (MariaDB).
    pub executed: Option<GtidSet>,
    pub purged: Option<GtidSet>,
    /// MariaDB's `gtid_binlog_pos` alone: what its own log ends with. None on MySQL.
    pub binlog_gtid: Option<GtidSet>,
    /// MariaDB's `gtid_slave_pos` alone: what replication applied here. None on MySQL.
    pub replicated_gtid: Option<GtidSet>,
    /// MariaDB's `gtid_binlog_state`: for each domain and each server that ever wrote into this server's log, the last
    /// sequence number. The positions above keep one server a domain, so that a transaction written here is hidden by
    /// the next one replicated. Empty on MySQL.
    pub binlog_state: Vec<WrittenBy>,
    /// MariaDB's `gtid_domain_id`; 0 elsewhere.
    pub gtid_domain: u32,
    /// None: replication is not configured here.
    pub replication: Option<ReplicaStatus>,
    /// Names of further replication channels: shown, counted as held, and making the server no candidate.
    pub other_channels: Vec<String>,
    /// What the other channels received, united.
    pub other_received: Option<GtidSet>,
    pub semi_sync: SemiSync,
    /// Replicas as this server lists them.
    pub replicas: Vec<InstanceKey>,
    pub group: Option<GroupMembership>,
    /// Galera's wsrep is on.
    pub galera: bool,
    pub credentials_available: bool,
    pub classification: Classification,
    pub missing_privileges: Vec<MissingPrivilege>,
    /// Why it is not known what our account may do; none if it is, or was not read so far.
    pub privileges_unknown: Option<String>,
    pub through_fence: ThroughFence,
    /// Statements of the probe that the server refused when each was tried last: error number (0: it gave no usable answer)
    /// and what is missing thereby.
    pub refused: Vec<(u16, String)>,
    pub latency: Duration,
}

impl ProbeReport {
    /// Everything this server holds: applied, and received but not applied (`FAILOVER.md` section 3). MariaDB's
    /// `Gtid_IO_Pos` counts only if a replication thread runs or the relay log holds more than its header (F4).
    #[must_use]
    pub fn held(&self) -> Option<GtidSet> {
        let mut held = self.executed.clone()?;
        for received in self
            .trusted_received()
            .into_iter()
            .chain(self.other_received.as_ref())
        {
            held = held.union(received).ok()?;
        }
        Some(held)
    }

    /// Whether the sets here tell what was received from `source`. Without GTID they are empty, or lag behind, which looks
    /// like a replica that holds nothing.
    ///
    /// A MySQL replica by file and position keeps full sets as long as each transaction carries its GTID from the source:
    /// with `gtid_mode` ON on both. It is halted and compared like others, and pointed elsewhere with
    /// SOURCE_AUTO_POSITION = 1 when it has applied all. For a source that gives no GTIDs each replica may make them up
    /// for itself (ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS; MySQL 8.4, 19.1.3.6): then no two of them agree. MariaDB's `Gtid_IO_Pos` is empty without `Using_Gtid`.
    #[must_use]
    pub fn knows_what_it_holds_of(&self, source: Option<&Self>) -> bool {
        let Some(status) = &self.replication else {
            return false;
        };
        match self.flavour {
            Flavour::Mariadb | Flavour::MaxScale => status.uses_any_gtid(),
            Flavour::Mysql | Flavour::Percona => {
                let has_mode_on = |report: &Self| report.gtid_mode == "ON";
                status.auto_position || has_mode_on(self) && source.is_some_and(has_mode_on)
            }
        }
    }

    /// What replication brought here, applied or only received: [`Self::held`] without what was written here by
    /// somebody else. The primary's transactions are counted with this one.
    #[must_use]
    pub fn held_from_source(&self) -> Option<GtidSet> {
        let mut held = match &self.replicated_gtid {
            Some(replicated) => replicated.clone(),
            None => self.executed.clone()?,
        };
        if let Some(received) = self.trusted_received() {
            held = held.union(received).ok()?;
        }
        Some(held)
    }

    /// MariaDB: domains in which this server wrote what `primary` was never seen to have, up to which sequence number.
    #[must_use]
    pub fn written_here_beyond(&self, primary: &Self) -> Vec<WrittenBy> {
        self.binlog_state
            .iter()
            .filter(|own| own.server_id == self.server_id)
            .filter(|own| {
                !primary.binlog_state.iter().any(|theirs| {
                    theirs.domain == own.domain
                        && theirs.server_id == own.server_id
                        && theirs.sequence >= own.sequence
                })
            })
            .copied()
            .collect()
    }

    /// What the server refused, in words.
    pub fn refusals(&self) -> impl Iterator<Item = String> + '_ {
        self.refused.iter().map(|(code, what)| match code {
            0 => format!("not read: {what}"),
            code => format!("refused with error {code}: {what}"),
        })
    }

    /// Received and not applied.
    #[must_use]
    pub fn has_unapplied(&self) -> bool {
        match (
            self.replicated_gtid.as_ref().or(self.executed.as_ref()),
            self.trusted_received(),
        ) {
            (Some(executed), Some(received)) => !executed.is_superset(received).unwrap_or(true),
            _ => false,
        }
    }

    fn trusted_received(&self) -> Option<&GtidSet> {
        let status = self.replication.as_ref()?;
        let received = status.received.as_ref()?;
        let believed = self.flavour != Flavour::Mariadb
            || status.io == ThreadState::Running
            || status.sql == ThreadState::Running
            || status.relay_log_space > MARIADB_RELAY_LOG_HEADER_BYTES;
        believed.then_some(received)
    }

    #[must_use]
    pub fn lag_s(&self) -> Option<u64> {
        self.classification.lag_s.or_else(|| {
            self.replication
                .as_ref()
                .and_then(|status| status.seconds_behind)
        })
    }
}

/// `Relay_Log_Space` of a MariaDB relay log that holds nothing, at most: a change of source and a purge leave one file with
/// its header (256 bytes were measured on 10.11; F1, F4) and, where logs are encrypted, an event of 40 bytes. One that
/// ever received something holds the source's header too. Any more allowance, and a few small transactions would pass for
/// nothing.
const MARIADB_RELAY_LOG_HEADER_BYTES: u64 = 320;
