//! One server: what it holds, who is logged in, what it refuses, and what survives its death. No clock, no socket: the
//! host tells it what time it is and carries its words.
//!
//! What holds: a transaction in the binary log survives a kill; nothing is applied twice; what was received and not
//! applied is kept apart from what was applied, and is lost exactly where a real server loses it; a session is an object,
//! and whatever it had in flight, held or waited for goes with it.
//!
//! Statements are in [`super::statement`], replication is in [`super::replication`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use orchestrator_core::gtid::mariadb::{Domain, Last, ServerId};
use orchestrator_core::gtid::{Gtid, GtidSet, MariadbGtidSet, OracleGtidSet, Origin, Uuid};
use orchestrator_core::id::{Identity, InstanceKey};
use orchestrator_core::topology::{
    BinlogCoordinates, Flavour, MissingPrivilege, ProbeReport, Purpose, SemiSync, Version,
    WrittenBy,
};
use serde::{Deserialize, Serialize};

use super::replication::{Channel, Receiver};
use super::statement::{InFlight, Operation};

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Mysql,
    Mariadb,
}

impl Kind {
    /// What `@@version` says.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Kind::Mysql => "9.7.4",
            Kind::Mariadb => "10.11.19-MariaDB-log",
        }
    }

    /// From a start of the process with little data to the first login.
    #[must_use]
    pub const fn start_takes(self) -> Duration {
        match self {
            Kind::Mysql => Duration::from_millis(1_500),
            Kind::Mariadb => Duration::from_millis(600),
        }
    }
}

/// How much one transaction adds to a log.
pub(super) const TRANSACTION_BYTES: u64 = 300;
pub(super) const BINLOG_HEADER_BYTES: u64 = 157;
pub(super) const BINLOG_FILE: &str = "binlog.000001";

/// An orderly stop of MySQL leaves replicas attached for so long.
const STOP_KEEPS_DUMPS: Duration = Duration::from_secs(8);
/// And then, or at once where there are none, waits so long for sessions that are in the middle of something.
const STOP_KEEPS_SESSIONS: Duration = Duration::from_secs(2);

/// `max_connections` where nobody says.
pub const CONNECTIONS_MAX: usize = 300;

/// Who makes backups.
const BACKUP: &str = "backup";

/// Error numbers, the same on both where both have them.
pub mod code {
    pub const TOO_MANY_CONNECTIONS: u16 = 1040;
    pub const ACCESS_DENIED: u16 = 1045;
    pub const SERVER_SHUTDOWN: u16 = 1053;
    pub const DUPLICATE_KEY: u16 = 1062;
    pub const UNKNOWN_STATEMENT: u16 = 1064;
    pub const NO_SUCH_THREAD: u16 = 1094;
    pub const UNKNOWN_VARIABLE: u16 = 1193;
    pub const SLAVE_MUST_STOP: u16 = 1198;
    pub const NOT_A_REPLICA: u16 = 1200;
    pub const ACCESS_DENIED_SPECIFIC: u16 = 1227;
    pub const NOT_SUPPORTED: u16 = 1235;
    pub const FATAL_READING_BINLOG: u16 = 1236;
    /// What MySQL shows on the replica of that.
    pub const SOURCE_FATAL_READING_BINLOG: u16 = 13114;
    pub const READ_ONLY: u16 = 1290;
    pub const CANNOT_CONNECT: u32 = 2003;
    pub const RECEIVER_MUST_STOP: u16 = 3021;
    pub const OFFLINE: u16 = 3032;
    pub const CHANNEL_MUST_STOP: u16 = 3081;
    pub const NO_TAG: u16 = 6038;
}

/// The name of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransactionId {
    Oracle { uuid: u128, number: u64 },
    Mariadb { server_id: u32, sequence: u64 },
}

/// Where a row goes. The model knows no other tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Table {
    /// What clients were promised: a row a write, its number the key.
    Ledger,
    /// Rows without a key of the client's.
    Note,
    /// Written to the log and forgotten: definitions, accounts.
    None,
}

/// A committed transaction as it travels through logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub id: TransactionId,
    /// What the client wrote: its own number of it.
    pub write: u64,
    pub table: Table,
    /// When it was committed first: simulated time.
    pub at: Duration,
}

impl TransactionId {
    pub(super) fn insert_into(self, set: &mut GtidSet) {
        match (self, set) {
            (Self::Oracle { uuid, number }, GtidSet::Oracle(set)) => {
                let origin = Origin::untagged(Uuid(uuid));
                set.insert(Gtid::new(origin, number).expect("numbers begin with 1"));
            }
            (
                Self::Mariadb {
                    server_id,
                    sequence,
                },
                GtidSet::Mariadb(set),
            ) => set.advance(
                Domain(0),
                Last {
                    sequence,
                    server_id: ServerId(server_id),
                },
            ),
            (id, set) => panic!("{id:?} in a set of {}", set.flavour()),
        }
    }

    pub(super) fn is_in(self, set: &GtidSet) -> bool {
        match (self, set) {
            (Self::Oracle { uuid, number }, GtidSet::Oracle(set)) => {
                Gtid::new(Origin::untagged(Uuid(uuid)), number)
                    .is_some_and(|gtid| set.contains_gtid(&gtid))
            }
            (Self::Mariadb { sequence, .. }, GtidSet::Mariadb(set)) => set
                .last(Domain(0))
                .is_some_and(|last| last.sequence >= sequence),
            (id, set) => panic!("{id:?} in a set of {}", set.flavour()),
        }
    }
}

/// What the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Running,
    /// An orderly stop under way, since: nobody is let in any more.
    Stopping(Duration),
    /// Ended, by `kill -9` or after an orderly stop: the machine is up, nobody listens.
    Killed,
    /// `SIGSTOP`: the kernel accepts connections and takes bytes, the process does nothing.
    Frozen,
}

/// Who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// The daemons'.
    Orchestrator,
    /// A replica's receiver; its own key.
    Replication(InstanceKey),
    /// Any other by name. Without an entry in [`Server::grant`] it may write rows and nothing else.
    Application(String),
}

/// A refusal: error number and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerError {
    pub code: u16,
    pub message: String,
}

pub(crate) fn error(code: u16, message: impl Into<String>) -> ServerError {
    ServerError {
        code,
        message: message.into(),
    }
}

/// One login, until it ends or is ended.
#[derive(Debug)]
pub(crate) struct Session {
    pub account: Account,
    pub since: Duration,
    pub in_flight: Option<InFlight>,
    /// `FLUSH TABLES WITH READ LOCK` is held.
    pub read_lock: bool,
    /// Rows of the open transaction.
    pub transaction: Option<Vec<(Table, u64)>>,
    /// It reads the binary log, as a semi-synchronous replica or not.
    pub dump: Option<Dump>,
}

/// A replica's reading of the binary log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dump {
    pub acknowledges: bool,
    /// How many transactions of the log it said it has received.
    pub acknowledged: usize,
}

/// Who takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    Writable,
    ReadOnly,
    /// MySQL's `super_read_only`.
    SuperReadOnly,
}

/// Both sides of semi-synchronous replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemiSyncSettings {
    pub source_enabled: bool,
    pub replica_enabled: bool,
    pub timeout: Duration,
    /// How many replicas must have a transaction. MariaDB has no such setting: one.
    pub count: u32,
    /// Waits between the log and the storage engine (`AFTER_SYNC`), else behind both.
    pub after_sync: bool,
}

/// A server.
#[derive(Debug)]
pub struct Server {
    pub key: InstanceKey,
    pub kind: Kind,
    pub server_id: u32,
    pub(super) process: Process,
    /// Counts the starts of the process.
    boot: u64,
    pub(super) started: Duration,
    access_at_start: Access,
    pub(super) access: Access,
    pub(super) event_scheduler: bool,
    pub(super) offline: bool,
    /// Logins beyond so many are refused.
    pub(crate) connections_max: usize,
    /// Every login is refused with this error.
    login_refusal: Option<ServerError>,
    /// The daemons' account may look, and change nothing.
    only_looks: bool,
    pub(crate) privileges: BTreeMap<String, BTreeSet<String>>,
    /// By user; asked for over the MySQL protocol only.
    pub(crate) passwords: BTreeMap<String, String>,
    pub(super) semi_sync: SemiSyncSettings,
    /// The source's side is in force: switched off by a wait that took too long.
    pub(super) semi_sync_status: bool,
    /// Places in the log of transactions whose clients wait for acknowledgements, since when.
    pub(super) unacknowledged: BTreeMap<usize, Duration>,
    /// Those among them that the storage engine has not got.
    pub(super) uncommitted: BTreeSet<usize>,
    pub(super) binlog: Vec<Transaction>,
    /// MySQL's `gtid_executed`; MariaDB's `gtid_binlog_pos`.
    pub(super) executed: GtidSet,
    /// What its binary logs do not hold any more, and only MySQL tells.
    pub(super) purged: GtidSet,
    /// MariaDB's `gtid_slave_pos`.
    pub(super) replicated: GtidSet,
    /// MariaDB's `gtid_binlog_state`: the last sequence number of each server in this log.
    pub(super) written_by: BTreeMap<u32, u64>,
    pub(super) relay: VecDeque<Transaction>,
    /// MySQL's `Retrieved_Gtid_Set`; MariaDB's `Gtid_IO_Pos`.
    pub(super) received: GtidSet,
    pub(super) relay_log_recovery: bool,
    /// A power cut takes what was committed within so long, and what was received and not applied; none: nothing.
    unsynced: Option<Duration>,
    pub(super) net_timeout: Duration,
    /// What `meta.cluster` says: the name that people gave the cluster.
    pub(crate) cluster_name: String,
    pub(super) channel: Option<Channel>,
    /// The applier fails at its next transaction.
    pub(super) applier_fault: Option<ServerError>,
    /// One transaction takes the applier so long, where the host does not draw it.
    pub(super) apply_takes: Option<Duration>,
    pub(super) rows: BTreeSet<(Table, u64)>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    sessions_ever: u64,
    notes_ever: u64,
    pub(super) asked_ever: u64,
    pub(super) locks: BTreeMap<String, u64>,
    /// For the oracles: every write that was ever committed or received here.
    pub(super) ever_held: BTreeSet<u64>,
    /// For the oracles: those among them that a power cut took, and that did not come back.
    pub(super) lost_with_power: BTreeSet<u64>,
    /// For the oracles: transactions that were received and not applied when a statement made the server forget them.
    pub(super) forgotten_ever: usize,
    /// For the oracles: when it was made writable.
    pub(super) opened: Vec<Duration>,
}

impl Server {
    /// A running server without data. One that is read-only is so from its configuration: after a restart too.
    #[must_use]
    pub fn new(key: InstanceKey, kind: Kind, server_id: u32, read_only: bool) -> Self {
        let empty = match kind {
            Kind::Mysql => GtidSet::Oracle(OracleGtidSet::new()),
            Kind::Mariadb => GtidSet::Mariadb(MariadbGtidSet::new()),
        };
        let access = match (read_only, kind) {
            (false, _) => Access::Writable,
            (true, Kind::Mysql) => Access::SuperReadOnly,
            (true, Kind::Mariadb) => Access::ReadOnly,
        };
        Self {
            key,
            kind,
            server_id,
            process: Process::Running,
            boot: 1,
            started: Duration::ZERO,
            access_at_start: access,
            access,
            event_scheduler: true,
            offline: false,
            connections_max: CONNECTIONS_MAX,
            login_refusal: None,
            only_looks: false,
            privileges: BTreeMap::new(),
            passwords: BTreeMap::new(),
            semi_sync: SemiSyncSettings {
                source_enabled: false,
                replica_enabled: false,
                timeout: Duration::from_secs(10),
                count: 1,
                after_sync: kind == Kind::Mysql,
            },
            semi_sync_status: false,
            unacknowledged: BTreeMap::new(),
            uncommitted: BTreeSet::new(),
            binlog: Vec::new(),
            executed: empty.clone(),
            purged: empty.clone(),
            replicated: empty.clone(),
            written_by: BTreeMap::new(),
            relay: VecDeque::new(),
            received: empty,
            relay_log_recovery: false,
            unsynced: None,
            net_timeout: Duration::from_secs(60),
            cluster_name: String::new(),
            channel: None,
            applier_fault: None,
            apply_takes: None,
            rows: BTreeSet::new(),
            sessions: BTreeMap::new(),
            sessions_ever: 0,
            notes_ever: 0,
            asked_ever: 0,
            locks: BTreeMap::new(),
            ever_held: BTreeSet::new(),
            lost_with_power: BTreeSet::new(),
            forgotten_ever: 0,
            opened: Vec::new(),
        }
    }

    // What a scenario sets.

    /// MySQL's `relay_log_recovery`: what was received and not applied is dropped at a start.
    pub fn set_relay_log_recovery(&mut self, on: bool) {
        self.relay_log_recovery = on;
    }

    /// `sync_binlog=0` with `innodb_flush_log_at_trx_commit=2`: the system writes what was committed so long ago or before.
    /// None: each commit is synced (`sync_binlog=1`).
    pub fn set_unsynced(&mut self, within: Option<Duration>) {
        self.unsynced = within;
    }

    /// `replica_net_timeout`, `slave_net_timeout`.
    pub fn set_net_timeout(&mut self, timeout: Duration) {
        self.net_timeout = timeout;
    }

    #[must_use]
    pub fn net_timeout(&self) -> Duration {
        self.net_timeout
    }

    /// `PURGE BINARY LOGS` up to here. Who reads the log goes on from its place.
    pub fn purge_logs(&mut self) {
        self.purged = self.executed.clone();
    }

    /// MariaDB's `RESET MASTER`: its log begins anew, and knows of nobody who wrote.
    pub fn reset_log(&mut self) {
        self.release_unacknowledged();
        self.binlog.clear();
        self.written_by.clear();
        self.executed = GtidSet::Mariadb(MariadbGtidSet::new());
    }

    /// The only row of the table `meta.cluster`, over the MySQL protocol.
    pub fn set_cluster_name(&mut self, name: &str) {
        name.clone_into(&mut self.cluster_name);
    }

    /// `max_connections`: logins beyond are refused with error 1040.
    pub fn set_connections_max(&mut self, connections: usize) {
        self.connections_max = connections;
    }

    /// Refuses every login with this error (1045, 1040, 1203, 1226), or none.
    pub fn refuse_logins(&mut self, refusal: Option<ServerError>) {
        self.login_refusal = refusal;
    }

    /// Takes from the daemons' account all rights but those to look, or gives them back.
    pub fn set_only_looks(&mut self, only_looks: bool) {
        self.only_looks = only_looks;
    }

    /// The daemons' account may change nothing here.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        self.only_looks
    }

    /// Lets an account log in over the MySQL protocol with this password.
    pub fn create_user(&mut self, user: &str, password: &str) {
        self.passwords.insert(user.to_owned(), password.to_owned());
    }

    /// A session is a replica's: over the MySQL protocol that is known when it asks for the log.
    pub(crate) fn register_replica(&mut self, session: u64, replica: InstanceKey) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.account = Account::Replication(replica);
        }
    }

    /// A backup begins and takes `FLUSH TABLES WITH READ LOCK`, or all backups end. Whether that makes a difference.
    pub fn set_backup(&mut self, on: bool, now: Duration) -> bool {
        let is_backup = |session: &Session| matches!(&session.account, Account::Application(user) if user == BACKUP);
        let under_way: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_backup(session))
            .map(|(number, _)| *number)
            .collect();
        let is_other = on == under_way.is_empty();
        if on && is_other {
            let session = self.log_in_at(Account::Application(BACKUP.to_owned()), now);
            self.ask(session, Operation::FlushWithReadLock, now);
        }
        if !on && is_other {
            for session in under_way {
                self.log_out(session);
            }
            self.proceed(now);
        }
        is_other
    }

    /// Gives an account rights by their names in GRANT: `ALL PRIVILEGES`, `SUPER`, `READ_ONLY ADMIN` ...
    pub fn grant<'a>(&mut self, user: &str, rights: impl IntoIterator<Item = &'a str>) {
        let held = self.privileges.entry(user.to_owned()).or_default();
        held.extend(rights.into_iter().map(str::to_owned));
    }

    /// Sets semi-synchronous replication up as a configuration file does, before anybody is logged in.
    pub fn set_semi_sync(&mut self, settings: SemiSyncSettings) {
        self.semi_sync_status = settings.source_enabled;
        self.semi_sync = settings;
    }

    #[must_use]
    pub fn semi_sync(&self) -> &SemiSyncSettings {
        &self.semi_sync
    }

    /// From here on each transaction takes the applier so long; none: as the host draws it.
    pub fn set_apply_takes(&mut self, takes: Option<Duration>) {
        self.apply_takes = takes;
    }

    #[must_use]
    pub fn apply_takes(&self) -> Option<Duration> {
        self.apply_takes
    }

    // What it is.

    pub(crate) fn uuid(&self) -> u128 {
        u128::from(self.server_id)
    }

    #[must_use]
    pub fn identity(&self) -> Identity {
        match self.kind {
            Kind::Mysql => Identity(Uuid(self.uuid()).to_string()),
            Kind::Mariadb => Identity(format!(
                "{}@{}:{}",
                self.server_id, self.key.host, self.key.port
            )),
        }
    }

    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// Which start of the process this is, counted from 1.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Somebody who dials gets an answer of the kernel at least.
    #[must_use]
    pub fn listens(&self) -> bool {
        match self.process {
            Process::Running | Process::Frozen => true,
            Process::Stopping(_) | Process::Killed => false,
        }
    }

    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.process == Process::Running && self.access == Access::Writable
    }

    /// The daemons can make it read-only at once: they are let in and have the right, and no global read lock is held.
    #[must_use]
    pub fn can_be_closed(&self) -> bool {
        self.login_refusal.is_none()
            && !self.only_looks
            && self.sessions.len() < self.connections_max
            && !self.sessions.values().any(|session| session.read_lock)
    }

    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Applied, or written here.
    #[must_use]
    pub fn executed(&self) -> GtidSet {
        match self.kind {
            Kind::Mysql => self.executed.clone(),
            Kind::Mariadb => self
                .executed
                .union(&self.replicated)
                .expect("both are MariaDB's"),
        }
    }

    /// The transactions in its log, in its own order.
    #[must_use]
    pub fn transactions(&self) -> &[Transaction] {
        &self.binlog
    }

    /// The committed rows of a table.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = u64> {
        self.rows
            .range((table, 0)..=(table, u64::MAX))
            .map(|(_, row)| *row)
    }

    /// Every write that was ever committed or received here, kept or not.
    #[must_use]
    pub fn ever_held(&self) -> &BTreeSet<u64> {
        &self.ever_held
    }

    /// When a statement made it writable.
    #[must_use]
    pub fn opened(&self) -> &[Duration] {
        &self.opened
    }

    /// Writes that it held and that a power cut took from it, as far as they did not come back.
    #[must_use]
    pub fn lost_with_power(&self) -> &BTreeSet<u64> {
        &self.lost_with_power
    }

    /// How many transactions statements made it forget that were received and not applied.
    #[must_use]
    pub fn forgotten_ever(&self) -> usize {
        self.forgotten_ever
    }

    /// What changes whenever the process, a session or the receiver begins or ends, and else does not.
    pub(super) fn lives(&self) -> impl PartialEq + use<> {
        let sessions = (self.sessions_ever, self.sessions.len());
        (self.process, self.boot, sessions, self.receiver_life())
    }

    /// How many are logged in, whoever they are.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.sessions.len()
    }

    /// Of each session: whose it is.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.sessions.values().map(|session| &session.account)
    }

    /// Places in the log of transactions whose clients wait for acknowledgements.
    pub fn waits_for_acknowledgement(&self) -> impl Iterator<Item = &Transaction> {
        self.unacknowledged
            .keys()
            .filter_map(|place| self.binlog.get(*place))
    }

    // The process.

    /// `kill -9`. What is not on the disk is gone: sessions, locks, and on MariaDB the relay log. A transaction that
    /// waited for acknowledgements is in the log: it is committed when the server is up again.
    pub fn kill(&mut self) {
        self.process = Process::Killed;
        self.sessions.clear();
        self.locks.clear();
        self.release_unacknowledged();
        if let Some(channel) = &mut self.channel {
            channel.dialling = None;
        }
    }

    /// The machine loses power: the process is gone, and with it what the system had not written so far.
    pub fn lose_power(&mut self, now: Duration) {
        self.kill();
        let Some(within) = self.unsynced else {
            return;
        };
        let is_written = |transaction: &Transaction| transaction.at + within <= now;
        let kept = self.binlog.iter().rposition(is_written);
        self.cut_log(kept.map_or(0, |last| last + 1));
        // `sync_relay_log` is 10000 on both.
        let received = self.relay.iter().map(|transaction| transaction.write);
        self.lost_with_power.extend(received);
        self.purge_relay_log();
    }

    /// Only the first `kept` transactions of the log are there, and in the storage engine.
    fn cut_log(&mut self, kept: usize) {
        let lost = self.binlog.split_off(kept);
        for transaction in &lost {
            self.rows.remove(&(transaction.table, transaction.write));
            self.lost_with_power.insert(transaction.write);
        }
        let is_lost = |id: TransactionId| lost.iter().any(|transaction| transaction.id == id);
        let mut of_lost = self.empty_set();
        for transaction in &lost {
            transaction.id.insert_into(&mut of_lost);
        }
        match self.kind {
            Kind::Mysql => {
                let less = |set: &GtidSet| match (set, &of_lost) {
                    (GtidSet::Oracle(set), GtidSet::Oracle(lost)) => {
                        GtidSet::Oracle(set.subtract(lost))
                    }
                    (other, _) => other.clone(),
                };
                (self.executed, self.purged) = (less(&self.executed), less(&self.purged));
            }
            Kind::Mariadb => {
                let (mut executed, mut replicated) = (self.empty_set(), self.empty_set());
                self.written_by.clear();
                for transaction in &self.binlog {
                    transaction.id.insert_into(&mut executed);
                    if let TransactionId::Mariadb {
                        server_id,
                        sequence,
                    } = transaction.id
                    {
                        self.written_by.insert(server_id, sequence);
                        if server_id != self.server_id {
                            transaction.id.insert_into(&mut replicated);
                        }
                    }
                }
                let last_of = |set: &GtidSet| match set {
                    GtidSet::Mariadb(set) => set.last(Domain(0)),
                    GtidSet::Oracle(_) => None,
                };
                // The position is a row of the storage engine's, too.
                let stood_at_lost = last_of(&self.replicated).is_some_and(|last| {
                    is_lost(TransactionId::Mariadb {
                        server_id: last.server_id.0,
                        sequence: last.sequence,
                    })
                });
                if stood_at_lost {
                    self.replicated = replicated;
                }
                if !executed.is_superset(&self.purged).unwrap_or(false) {
                    self.purged = executed.clone();
                }
                self.executed = executed;
            }
        }
    }

    fn empty_set(&self) -> GtidSet {
        match self.kind {
            Kind::Mysql => GtidSet::Oracle(OracleGtidSet::new()),
            Kind::Mariadb => GtidSet::Mariadb(MariadbGtidSet::new()),
        }
    }

    /// SIGTERM. MariaDB is gone at once, and nobody is told why. MySQL refuses dials, ends all sessions but its replicas'
    /// (a `SLEEP` in flight has its answer before) and keeps those attached for 8 s.
    pub fn stop(&mut self, now: Duration) {
        assert_eq!(self.process, Process::Running, "{}", self.key);
        if self.kind == Kind::Mariadb {
            self.kill();
            return;
        }
        self.process = Process::Stopping(now);
        let attached: Vec<u64> = self.replicas().map(|(id, _)| id).collect();
        let others: Vec<u64> = self.sessions.keys().copied().collect();
        for session in others.into_iter().filter(|id| !attached.contains(id)) {
            if !self.interrupt_sleep(session) {
                self.kill_session_now(session);
            }
        }
    }

    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        matches!(self.process, Process::Stopping(_))
    }

    /// When an orderly stop lets go of its replicas, and when it is over.
    pub(super) fn stop_times(&self, since: Duration) -> (Duration, Duration) {
        let dumps = since + STOP_KEEPS_DUMPS;
        let is_source = self.sessions.values().any(|session| session.dump.is_some());
        if is_source {
            (dumps, dumps + STOP_KEEPS_SESSIONS)
        } else {
            (dumps, since + STOP_KEEPS_SESSIONS)
        }
    }

    pub fn freeze(&mut self) {
        assert_eq!(self.process, Process::Running, "{}", self.key);
        self.process = Process::Frozen;
    }

    /// What arrived meanwhile is executed first, in the order in which it arrived.
    pub fn thaw(&mut self) {
        assert_eq!(self.process, Process::Frozen, "{}", self.key);
        self.process = Process::Running;
    }

    /// Starts a process that ended. Replication starts by itself (`skip_replica_start` is off).
    pub fn start(&mut self, now: Duration) {
        assert_eq!(self.process, Process::Killed, "{}", self.key);
        self.process = Process::Running;
        self.boot += 1;
        self.started = now;
        self.access = self.access_at_start;
        self.event_scheduler = true;
        self.offline = false;
        self.semi_sync_status = self.semi_sync.source_enabled;
        let forgets = match self.kind {
            Kind::Mysql => self.relay_log_recovery,
            Kind::Mariadb => self
                .channel
                .as_ref()
                .is_none_or(|channel| channel.using_gtid),
        };
        if let Some(channel) = &mut self.channel {
            channel.start();
        }
        if forgets {
            self.purge_relay_log();
        }
    }

    /// What an operator does who rebuilds an ended server: no data, no replication, another `server_id`, read-only lest
    /// somebody writes before it replicates; its accounts and the rest of its configuration stay.
    pub fn wipe(&mut self, server_id: u32) {
        assert_eq!(self.process, Process::Killed, "{}", self.key);
        let mut fresh = Server::new(self.key.clone(), self.kind, server_id, true);
        fresh.process = Process::Killed;
        fresh.boot = self.boot;
        fresh.connections_max = self.connections_max;
        fresh.privileges = std::mem::take(&mut self.privileges);
        fresh.passwords = std::mem::take(&mut self.passwords);
        fresh.semi_sync = self.semi_sync.clone();
        fresh.relay_log_recovery = self.relay_log_recovery;
        fresh.unsynced = self.unsynced;
        fresh.net_timeout = self.net_timeout;
        fresh.cluster_name = std::mem::take(&mut self.cluster_name);
        *self = fresh;
    }

    // Sessions.

    /// Lets somebody in.
    ///
    /// # Errors
    /// 1040 when there are too many; 3032 while the server is offline; what [`Server::refuse_logins`] was told.
    pub fn try_log_in(&mut self, account: Account, now: Duration) -> Result<u64, ServerError> {
        if let Some(refusal) = &self.login_refusal {
            return Err(refusal.clone());
        }
        if self.sessions.len() >= self.connections_max {
            return Err(error(code::TOO_MANY_CONNECTIONS, "Too many connections"));
        }
        if self.offline && !self.is_administrator(&account) {
            return Err(error(
                code::OFFLINE,
                "The server is currently in offline mode",
            ));
        }
        Ok(self.log_in_at(account, now))
    }

    /// The number that the next session will have.
    pub(crate) fn next_session(&self) -> u64 {
        self.sessions_ever + 1
    }

    /// A session, whatever the limits.
    pub fn log_in(&mut self, account: Account) -> u64 {
        self.log_in_at(account, Duration::ZERO)
    }

    fn log_in_at(&mut self, account: Account, now: Duration) -> u64 {
        self.sessions_ever += 1;
        let session = Session {
            account,
            since: now,
            in_flight: None,
            read_lock: false,
            transaction: None,
            dump: None,
        };
        self.sessions.insert(self.sessions_ever, session);
        self.sessions_ever
    }

    /// Whether an account stays through offline mode.
    pub(super) fn is_administrator(&self, account: &Account) -> bool {
        match account {
            Account::Orchestrator => true,
            Account::Replication(_) => false,
            Account::Application(user) => {
                self.holds_any(user, &["SUPER", "CONNECTION_ADMIN", "CONNECTION ADMIN"])
            }
        }
    }

    /// Whether an account was granted one of these rights, or all.
    #[must_use]
    pub fn holds_any(&self, user: &str, rights: &[&str]) -> bool {
        self.privileges.get(user).is_some_and(|held| {
            held.contains("ALL PRIVILEGES") || rights.iter().any(|right| held.contains(*right))
        })
    }

    /// The session ended, or its connection did; its locks, its open transaction and what it waited for with it.
    pub fn log_out(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.locks.retain(|_, holder| *holder != session);
    }

    #[must_use]
    pub fn has_session(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Sessions of applications, except those of `spared` users.
    #[must_use]
    pub fn client_sessions(&self, spared: &[String]) -> Vec<u64> {
        self.sessions
            .iter()
            .filter(|(_, session)| match &session.account {
                Account::Application(user) => !spared.contains(user),
                Account::Orchestrator | Account::Replication(_) => false,
            })
            .map(|(session, _)| *session)
            .collect()
    }

    /// `GET_LOCK` without waiting.
    pub fn get_lock(&mut self, name: &str, session: u64) -> bool {
        match self.locks.get(name) {
            Some(holder) => *holder == session,
            None => {
                self.locks.insert(name.to_owned(), session);
                true
            }
        }
    }

    /// `IS_USED_LOCK`.
    #[must_use]
    pub fn lock_holder(&self, name: &str) -> Option<u64> {
        self.locks.get(name).copied()
    }

    // The log.

    /// Everything in the log, in the storage engine or not.
    pub(super) fn logged(&self) -> GtidSet {
        let mut logged = self.executed.clone();
        for place in &self.uncommitted {
            self.binlog[*place].id.insert_into(&mut logged);
        }
        logged
    }

    /// Writes a row of an own transaction into the log; its place there. The storage engine follows at once, or when it
    /// was acknowledged.
    pub(super) fn log_own(&mut self, table: Table, write: u64, now: Duration) -> usize {
        let logged = self.logged();
        let id = match &logged {
            GtidSet::Oracle(set) => TransactionId::Oracle {
                uuid: self.uuid(),
                number: set
                    .next_number(&Origin::untagged(Uuid(self.uuid())))
                    .expect("a run has few transactions"),
            },
            GtidSet::Mariadb(own) => {
                let last = |set: &GtidSet| match set {
                    GtidSet::Mariadb(set) => set.last(Domain(0)).map_or(0, |last| last.sequence),
                    GtidSet::Oracle(_) => 0,
                };
                let own = own.last(Domain(0)).map_or(0, |last| last.sequence);
                TransactionId::Mariadb {
                    server_id: self.server_id,
                    sequence: 1 + own.max(last(&self.replicated)),
                }
            }
        };
        let transaction = Transaction {
            id,
            write,
            table,
            at: now,
        };
        let place = self.binlog.len();
        self.log(transaction);
        if self.semi_sync.source_enabled && self.semi_sync_status {
            self.unacknowledged.insert(place, now);
            if self.semi_sync.after_sync {
                self.uncommitted.insert(place);
                return place;
            }
        }
        self.commit(place);
        place
    }

    pub(super) fn log(&mut self, transaction: Transaction) {
        self.holds(transaction.write);
        if let TransactionId::Mariadb {
            server_id,
            sequence,
        } = transaction.id
        {
            self.written_by.insert(server_id, sequence);
        }
        self.binlog.push(transaction);
    }

    /// It has this write, in its log or relay log.
    pub(super) fn holds(&mut self, write: u64) {
        self.ever_held.insert(write);
        self.lost_with_power.remove(&write);
    }

    /// The storage engine has it.
    pub(super) fn commit(&mut self, place: usize) {
        let transaction = self.binlog[place];
        transaction.id.insert_into(&mut self.executed);
        if transaction.table != Table::None {
            self.rows.insert((transaction.table, transaction.write));
        }
    }

    /// Nobody waits any more for the acknowledgement of this place.
    pub(super) fn release(&mut self, place: usize) {
        self.unacknowledged.remove(&place);
        if self.uncommitted.remove(&place) {
            self.commit(place);
        }
    }

    pub(super) fn release_unacknowledged(&mut self) {
        let places: Vec<usize> = self.unacknowledged.keys().copied().collect();
        for place in places {
            self.release(place);
        }
    }

    /// A semi-synchronous replica says that it has received the first `count` transactions of this log.
    pub fn acknowledge(&mut self, session: u64, count: usize) {
        let Some(dump) = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.dump.as_mut())
        else {
            return;
        };
        dump.acknowledged = dump.acknowledged.max(count);
        let mut acknowledged: Vec<usize> = self
            .sessions
            .values()
            .filter_map(|session| session.dump)
            .filter(|dump| dump.acknowledges)
            .map(|dump| dump.acknowledged)
            .collect();
        acknowledged.sort_unstable_by(|one, other| other.cmp(one));
        let enough = (self.semi_sync.count.max(1) as usize).saturating_sub(1);
        let Some(everywhere) = acknowledged.get(enough).copied() else {
            return;
        };
        let held: Vec<usize> = self
            .unacknowledged
            .range(..everywhere)
            .map(|(place, _)| *place)
            .collect();
        for place in held {
            self.release(place);
        }
        // Caught up again: it waits again from the next transaction on.
        if self.semi_sync.source_enabled && everywhere >= self.binlog.len() {
            self.semi_sync_status = true;
        }
    }

    /// The session reads the log from here on.
    pub fn begin_dump(&mut self, session: u64, acknowledges: bool) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.dump = Some(Dump {
                acknowledges,
                acknowledged: 0,
            });
        }
    }

    pub(crate) fn semi_sync_clients(&self) -> usize {
        self.sessions
            .values()
            .filter(|session| session.dump.is_some_and(|dump| dump.acknowledges))
            .count()
    }

    pub(crate) fn semi_sync_status(&self) -> bool {
        self.semi_sync.source_enabled && self.semi_sync_status
    }

    /// The replica's side is in force: from the start of its receiver on.
    pub(crate) fn semi_sync_replica_status(&self) -> bool {
        self.channel
            .as_ref()
            .is_some_and(|channel| channel.receiver == Receiver::Running && channel.acknowledges)
    }

    pub(crate) fn gtid_slave_pos(&self) -> &GtidSet {
        &self.replicated
    }

    /// MySQL's `gtid_executed`, MariaDB's `gtid_binlog_pos`.
    pub(crate) fn gtid_own(&self) -> &GtidSet {
        &self.executed
    }

    /// MySQL's `gtid_purged`.
    pub(crate) fn gtid_purged(&self) -> &GtidSet {
        &self.purged
    }

    pub(crate) fn started(&self) -> Duration {
        self.started
    }

    pub(crate) fn event_scheduler(&self) -> bool {
        self.event_scheduler
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline
    }

    pub(crate) fn relay_log_recovery(&self) -> bool {
        self.relay_log_recovery
    }

    /// A number for a row without a key of its own, never the same twice on any server.
    pub(crate) fn next_note(&mut self) -> u64 {
        self.notes_ever += 1;
        u64::from(self.server_id) << 32 | self.notes_ever
    }

    pub(crate) fn binlog_coordinates(&self) -> BinlogCoordinates {
        BinlogCoordinates {
            file: BINLOG_FILE.to_owned(),
            position: BINLOG_HEADER_BYTES + TRANSACTION_BYTES * self.binlog.len() as u64,
        }
    }

    /// MariaDB's `gtid_binlog_state`.
    pub(crate) fn binlog_state(&self) -> Vec<WrittenBy> {
        self.written_by
            .iter()
            .map(|(server_id, sequence)| WrittenBy {
                domain: 0,
                server_id: *server_id,
                sequence: *sequence,
            })
            .collect()
    }

    /// The replicas that are attached.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = (u64, &InstanceKey)> {
        self.sessions
            .iter()
            .filter_map(|(id, session)| match &session.account {
                Account::Replication(replica) => Some((*id, replica)),
                Account::Orchestrator | Account::Application(_) => None,
            })
    }

    // What a probe sees.

    fn missing_privileges(&self) -> Vec<MissingPrivilege> {
        let missing = |purpose| MissingPrivilege {
            purpose,
            grant: "GRANT ALL PRIVILEGES ON *.* TO orchestrator@'%'".to_owned(),
        };
        let purposes = [
            Purpose::Halt,
            Purpose::Fence,
            Purpose::Promote,
            Purpose::Kill,
        ];
        let lacking = purposes.into_iter().filter(|_| self.only_looks);
        lacking.map(missing).collect()
    }

    #[must_use]
    pub fn report(&self, now: Duration) -> ProbeReport {
        let is_mariadb = self.kind == Kind::Mariadb;
        ProbeReport {
            identity: self.identity(),
            self_key: self.key.clone(),
            server_id: self.server_id,
            server_uuid: if is_mariadb {
                String::new()
            } else {
                self.identity().0
            },
            flavour: if is_mariadb {
                Flavour::Mariadb
            } else {
                Flavour::Mysql
            },
            version: Version::parse(self.kind.version()),
            uptime_s: now.saturating_sub(self.started).as_secs(),
            read_only: self.access != Access::Writable,
            super_read_only: self.says_super_read_only(),
            log_bin: true,
            log_replica_updates: true,
            binlog_format: "ROW".to_owned(),
            binlog_row_image: "FULL".to_owned(),
            binlog: Some(self.binlog_coordinates()),
            gtid_mode: if is_mariadb {
                String::new()
            } else {
                "ON".to_owned()
            },
            executed: Some(self.executed()),
            purged: (!is_mariadb).then(|| self.purged.clone()),
            binlog_gtid: is_mariadb.then(|| self.executed.clone()),
            replicated_gtid: is_mariadb.then(|| self.replicated.clone()),
            binlog_state: if is_mariadb {
                self.binlog_state()
            } else {
                Vec::new()
            },
            replication: self
                .channel
                .as_ref()
                .map(|channel| self.replica_status(channel, now)),
            replicas: self
                .replicas()
                .map(|(_, replica)| replica.clone())
                .collect(),
            semi_sync: SemiSync {
                available: true,
                source_enabled: self.semi_sync.source_enabled,
                replica_enabled: self.semi_sync.replica_enabled,
                source_timeout_ms: u64::try_from(self.semi_sync.timeout.as_millis())
                    .unwrap_or(u64::MAX),
                source_wait_count: self.semi_sync.count,
                source_status: self.semi_sync_status(),
                source_clients: u32::try_from(self.semi_sync_clients()).unwrap_or(u32::MAX),
                replica_status: self.semi_sync_replica_status(),
                after_sync: self.semi_sync.after_sync,
                source_spelling: !is_mariadb,
                replica_spelling: !is_mariadb,
            },
            credentials_available: true,
            missing_privileges: self.missing_privileges(),
            ..ProbeReport::default()
        }
    }
}
