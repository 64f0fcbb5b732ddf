//! One server: what it holds, what it refuses, and what survives its death. No clock, no socket: the host tells it what
//! time it is and carries its words.
//!
//! What holds: a committed transaction is in the binary log and survives a kill; nothing is applied twice; what was
//! received and not applied is kept apart from what was applied, and is lost exactly where a real server loses it (F1,
//! F3 to F6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use orchestrator_core::gtid::mariadb::{Domain, Last, ServerId};
use orchestrator_core::gtid::{Gtid, GtidSet, MariadbGtidSet, OracleGtidSet, Origin, Uuid};
use orchestrator_core::id::{Identity, InstanceKey};
use orchestrator_core::recovery::{SourcePosition, Statement};
use orchestrator_core::topology::{
    BinlogCoordinates, Flavour, ProbeReport, ReplicaStatus, ThreadState, UsingGtid, Version,
};
use serde::{Deserialize, Serialize};

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Mysql,
    Mariadb,
}

/// A relay log with nothing in it takes so many bytes on MariaDB (F4).
const RELAY_LOG_HEADER_BYTES: u64 = 256;
const TRANSACTION_BYTES: u64 = 300;
const BINLOG_HEADER_BYTES: u64 = 157;

/// Between heartbeats of a source with nothing to send.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Error numbers, the same on both where both have them.
pub mod code {
    pub const READ_ONLY: u16 = 1290;
    pub const NO_SUCH_THREAD: u16 = 1094;
    pub const SLAVE_MUST_STOP: u16 = 1198;
    pub const NOT_A_REPLICA: u16 = 1200;
    pub const UNKNOWN_STATEMENT: u16 = 1064;
    pub const FATAL_READING_BINLOG: u32 = 1236;
    pub const CANNOT_CONNECT: u32 = 2003;
}

/// The name of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransactionId {
    Oracle { uuid: u128, number: u64 },
    Mariadb { server_id: u32, sequence: u64 },
}

/// A committed transaction as it travels through logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub id: TransactionId,
    /// What the client wrote: its own number of it.
    pub write: u64,
    /// When it was committed first: simulated time.
    pub at: Duration,
}

impl TransactionId {
    fn insert_into(self, set: &mut GtidSet) {
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

    fn is_in(self, set: &GtidSet) -> bool {
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
    /// `kill -9`: the machine is up, nobody listens.
    Killed,
    /// `SIGSTOP`: the kernel accepts and answers, the process does nothing (F14).
    Frozen,
}

/// The receiver of replication.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Receiver {
    Stopped,
    Connecting,
    Running,
}

/// The default replication channel.
#[derive(Debug, Clone)]
struct Channel {
    source: InstanceKey,
    source_uuid: String,
    source_server_id: u32,
    options: Vec<(String, String)>,
    receiver: Receiver,
    receiver_error: (u32, String),
    applier: bool,
    heartbeats: u64,
}

/// Who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// The daemons'.
    Orchestrator,
    /// A replica's receiver; its own key.
    Replication(InstanceKey),
    Application(String),
}

/// A refusal: error number and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerError {
    pub code: u16,
    pub message: String,
}

fn error(code: u16, message: &str) -> ServerError {
    ServerError {
        code,
        message: message.to_owned(),
    }
}

/// A server.
#[derive(Debug)]
pub struct Server {
    pub key: InstanceKey,
    pub kind: Kind,
    pub server_id: u32,
    process: Process,
    /// Counts the starts of the process.
    boot: u64,
    started: Duration,
    read_only_at_start: bool,
    read_only: bool,
    super_read_only: bool,
    event_scheduler: bool,
    semi_sync: (bool, bool),
    binlog: Vec<Transaction>,
    /// MySQL's `gtid_executed`; MariaDB's `gtid_binlog_pos`.
    executed: GtidSet,
    /// MariaDB's `gtid_slave_pos`.
    replicated: GtidSet,
    relay: VecDeque<Transaction>,
    /// MySQL's `Retrieved_Gtid_Set`; MariaDB's `Gtid_IO_Pos`.
    received: GtidSet,
    channel: Option<Channel>,
    sessions: BTreeMap<u64, Account>,
    sessions_ever: u64,
    locks: BTreeMap<String, u64>,
    /// For the oracles: every write that was ever committed or received here.
    ever_held: BTreeSet<u64>,
    /// For the oracles: when it was made writable.
    opened: Vec<Duration>,
}

impl Server {
    /// A running server without data. One that is read-only is so from its configuration: after a restart too.
    #[must_use]
    pub fn new(key: InstanceKey, kind: Kind, server_id: u32, read_only: bool) -> Self {
        let empty = match kind {
            Kind::Mysql => GtidSet::Oracle(OracleGtidSet::new()),
            Kind::Mariadb => GtidSet::Mariadb(MariadbGtidSet::new()),
        };
        Self {
            key,
            kind,
            server_id,
            process: Process::Running,
            boot: 1,
            started: Duration::ZERO,
            read_only_at_start: read_only,
            read_only,
            super_read_only: read_only && kind == Kind::Mysql,
            event_scheduler: true,
            semi_sync: (false, false),
            binlog: Vec::new(),
            executed: empty.clone(),
            replicated: empty.clone(),
            relay: VecDeque::new(),
            received: empty,
            channel: None,
            sessions: BTreeMap::new(),
            sessions_ever: 0,
            locks: BTreeMap::new(),
            ever_held: BTreeSet::new(),
            opened: Vec::new(),
        }
    }

    /// Sets replication up as a finished installation has it: both threads on.
    pub fn replicate_from(&mut self, source: InstanceKey) {
        self.channel = Some(Channel {
            source,
            source_uuid: String::new(),
            source_server_id: 0,
            options: Vec::new(),
            receiver: Receiver::Connecting,
            receiver_error: (0, String::new()),
            applier: true,
            heartbeats: 0,
        });
    }

    fn uuid(&self) -> u128 {
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

    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.process == Process::Running && !self.read_only
    }

    /// The source it replicates from.
    #[must_use]
    pub fn source(&self) -> Option<&InstanceKey> {
        self.channel.as_ref().map(|channel| &channel.source)
    }

    /// Whether both threads run.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        self.channel
            .as_ref()
            .is_some_and(|channel| channel.receiver == Receiver::Running && channel.applier)
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

    /// The transactions it committed, in its own order.
    #[must_use]
    pub fn transactions(&self) -> &[Transaction] {
        &self.binlog
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

    /// Received and not applied.
    pub fn unapplied(&self) -> impl Iterator<Item = &Transaction> {
        self.relay.iter()
    }

    // The process.

    /// `kill -9`. What is not on the disk is gone: sessions, locks, and on MariaDB the relay log (F5).
    pub fn kill(&mut self) {
        self.process = Process::Killed;
        self.sessions.clear();
        self.locks.clear();
    }

    pub fn freeze(&mut self) {
        assert_eq!(self.process, Process::Running, "{}", self.key);
        self.process = Process::Frozen;
    }

    pub fn thaw(&mut self) {
        assert_eq!(self.process, Process::Frozen, "{}", self.key);
        self.process = Process::Running;
    }

    /// Starts a killed process. Replication starts by itself (`skip_replica_start` is off).
    pub fn start(&mut self, now: Duration) {
        assert_eq!(self.process, Process::Killed, "{}", self.key);
        self.process = Process::Running;
        self.boot += 1;
        self.started = now;
        self.read_only = self.read_only_at_start;
        self.super_read_only = self.read_only_at_start && self.kind == Kind::Mysql;
        self.event_scheduler = true;
        if let Some(channel) = &mut self.channel {
            channel.receiver = Receiver::Connecting;
            channel.receiver_error = (0, String::new());
            channel.applier = true;
            channel.heartbeats = 0;
        }
        if self.kind == Kind::Mariadb {
            self.purge_relay_log();
        }
    }

    // Sessions.

    pub fn log_in(&mut self, account: Account) -> u64 {
        self.sessions_ever += 1;
        self.sessions.insert(self.sessions_ever, account);
        self.sessions_ever
    }

    /// The session ended, or its connection did; its named locks with it.
    pub fn log_out(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.locks.retain(|_, holder| *holder != session);
    }

    #[must_use]
    pub fn has_session(&self, session: u64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// `KILL`.
    ///
    /// # Errors
    /// 1094 when there is no such session.
    pub fn kill_session(&mut self, session: u64) -> Result<(), ServerError> {
        if !self.has_session(session) {
            return Err(error(code::NO_SUCH_THREAD, "Unknown thread id"));
        }
        self.log_out(session);
        Ok(())
    }

    /// Sessions of applications, except those of `spared` users.
    #[must_use]
    pub fn client_sessions(&self, spared: &[String]) -> Vec<u64> {
        self.sessions
            .iter()
            .filter(|(_, account)| match account {
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

    // Writes and replication.

    /// An application writes and commits.
    ///
    /// # Errors
    /// 1290 while the server is read-only: the account has DML rights only.
    pub fn write(&mut self, write: u64, now: Duration) -> Result<TransactionId, ServerError> {
        if self.read_only {
            return Err(error(
                code::READ_ONLY,
                "The MySQL server is running with the --read-only option so it cannot execute this statement",
            ));
        }
        let id = match &self.executed {
            GtidSet::Oracle(set) => TransactionId::Oracle {
                uuid: self.uuid(),
                number: set
                    .next_number(&Origin::untagged(Uuid(self.uuid())))
                    .expect("a run has few transactions"),
            },
            GtidSet::Mariadb(_) => TransactionId::Mariadb {
                server_id: self.server_id,
                sequence: 1 + match self.executed() {
                    GtidSet::Mariadb(set) => set.last(Domain(0)).map_or(0, |last| last.sequence),
                    GtidSet::Oracle(_) => 0,
                },
            },
        };
        self.commit(Transaction { id, write, at: now });
        Ok(id)
    }

    fn commit(&mut self, transaction: Transaction) {
        transaction.id.insert_into(&mut self.executed);
        self.ever_held.insert(transaction.write);
        self.binlog.push(transaction);
    }

    /// Where the receiver is to go next: none while it is stopped.
    #[must_use]
    pub fn receiver_target(&self) -> Option<(InstanceKey, GtidSet)> {
        let channel = self.channel.as_ref()?;
        if channel.receiver == Receiver::Stopped || self.process == Process::Killed {
            return None;
        }
        let held = match self.kind {
            Kind::Mysql => self.executed.union(&self.received),
            Kind::Mariadb if self.relay.is_empty() => Ok(self.replicated.clone()),
            Kind::Mariadb => self.replicated.union(&self.received),
        };
        Some((
            channel.source.clone(),
            held.expect("a server's sets have one flavour"),
        ))
    }

    /// What a replica that holds `held` is to be sent, from a place in the log on; and the next place.
    ///
    /// # Errors
    /// The replica holds what this log does not: error 1236.
    pub fn dump(
        &self,
        held: &GtidSet,
        from: usize,
    ) -> Result<(Vec<Transaction>, usize), ServerError> {
        let is_ahead = match (held, &self.executed) {
            (GtidSet::Oracle(held), GtidSet::Oracle(own)) => {
                let uuid = Uuid(self.uuid());
                !own.contains(&held.restricted_to_uuid(uuid))
            }
            (GtidSet::Mariadb(held), GtidSet::Mariadb(own)) => !own.contains(held),
            _ => true,
        };
        if is_ahead {
            return Err(error(
                code::FATAL_READING_BINLOG as u16,
                "the replica has more transactions than the source's binary log",
            ));
        }
        let sent = self.binlog[from.min(self.binlog.len())..]
            .iter()
            .filter(|transaction| !transaction.id.is_in(held))
            .copied()
            .collect();
        Ok((sent, self.binlog.len()))
    }

    /// The receiver logged in at its source.
    pub fn receiver_connected(&mut self, source: &Identity, server_id: u32) {
        if let Some(channel) = &mut self.channel {
            channel.receiver = Receiver::Running;
            channel.receiver_error = (0, String::new());
            channel.source_server_id = server_id;
            if self.kind == Kind::Mysql {
                channel.source_uuid = source.0.clone();
            }
        }
    }

    /// The receiver lost its source, or did not get to it. A dial into silence leaves no error (F16).
    pub fn receiver_lost(&mut self, refused: bool) {
        let kind = self.kind;
        if let Some(channel) = &mut self.channel
            && channel.receiver != Receiver::Stopped
        {
            channel.receiver = Receiver::Connecting;
            if refused {
                let word = match kind {
                    Kind::Mysql => "source",
                    Kind::Mariadb => "master",
                };
                channel.receiver_error = (
                    code::CANNOT_CONNECT,
                    format!(
                        "error reconnecting to {word} 'repl@{}': Can't connect to server",
                        channel.source
                    ),
                );
            }
        }
    }

    /// The source refused for good: the receiver stops.
    pub fn receiver_refused(&mut self, refusal: &ServerError) {
        if let Some(channel) = &mut self.channel {
            channel.receiver = Receiver::Stopped;
            channel.receiver_error = (u32::from(refusal.code), refusal.message.clone());
        }
    }

    pub fn heartbeat(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.heartbeats += 1;
        }
    }

    /// A transaction arrived from the source.
    pub fn receive(&mut self, transaction: Transaction) {
        let known = match self.kind {
            Kind::Mysql => {
                transaction.id.is_in(&self.executed) || transaction.id.is_in(&self.received)
            }
            Kind::Mariadb => {
                transaction.id.is_in(&self.replicated)
                    || (!self.relay.is_empty() && transaction.id.is_in(&self.received))
            }
        };
        if known {
            return;
        }
        if self.relay.is_empty() && self.kind == Kind::Mariadb {
            self.received = self.replicated.clone();
        }
        transaction.id.insert_into(&mut self.received);
        self.ever_held.insert(transaction.write);
        self.relay.push_back(transaction);
    }

    /// Whether the applier has something to do.
    #[must_use]
    pub fn can_apply(&self) -> bool {
        self.process == Process::Running
            && !self.relay.is_empty()
            && self.channel.as_ref().is_some_and(|channel| channel.applier)
    }

    /// The applier commits the next transaction.
    pub fn apply(&mut self) {
        if !self.can_apply() {
            return;
        }
        let Some(transaction) = self.relay.pop_front() else {
            return;
        };
        if !transaction.id.is_in(&self.executed) {
            self.commit(transaction);
        }
        if self.kind == Kind::Mariadb {
            transaction.id.insert_into(&mut self.replicated);
        }
    }

    fn purge_relay_log(&mut self) {
        self.relay.clear();
        self.received = match self.kind {
            Kind::Mysql => GtidSet::Oracle(OracleGtidSet::new()),
            Kind::Mariadb => self.replicated.clone(),
        };
    }

    // Statements.

    /// Executes a statement of the daemons'. [`Statement::KillClients`] is the caller's loop, not a statement.
    ///
    /// # Errors
    /// As the server refuses it.
    pub fn execute(&mut self, statement: &Statement, now: Duration) -> Result<(), ServerError> {
        match statement {
            Statement::Fence => {
                self.close(true);
                if self.kind == Kind::Mariadb {
                    self.event_scheduler = false;
                }
                Ok(())
            }
            Statement::MakeReadOnly { super_read_only } => {
                self.close(*super_read_only);
                Ok(())
            }
            Statement::MakeWriteable => {
                if self.read_only {
                    self.opened.push(now);
                }
                self.read_only = false;
                self.super_read_only = false;
                Ok(())
            }
            Statement::StopIoThread => self.threads(Some(false), None),
            Statement::StartIoThread => self.threads(Some(true), None),
            Statement::StopSqlThread => self.threads(None, Some(false)),
            Statement::StartSqlThread => self.threads(None, Some(true)),
            Statement::StopReplication => self.threads(Some(false), Some(false)),
            Statement::StartReplication => self.threads(Some(true), Some(true)),
            Statement::ChangeSource {
                source,
                position,
                options,
            } => self.change_source(source, *position, options),
            Statement::ResetReplicaAll => {
                self.must_be_stopped()?;
                self.purge_relay_log();
                self.channel = None;
                Ok(())
            }
            Statement::SetGtidSlavePos { position } => {
                self.must_be_stopped()?;
                match (self.kind, position) {
                    (Kind::Mariadb, GtidSet::Mariadb(_)) => {
                        self.replicated = position.clone();
                        Ok(())
                    }
                    _ => Err(error(code::UNKNOWN_STATEMENT, "no such variable")),
                }
            }
            Statement::SemiSyncSource { enabled } => {
                self.semi_sync.0 = *enabled;
                Ok(())
            }
            Statement::SemiSyncReplica { enabled } => {
                self.semi_sync.1 = *enabled;
                Ok(())
            }
            Statement::KillClients { .. } => Err(error(
                code::UNKNOWN_STATEMENT,
                "killing clients is a loop of the adapter's",
            )),
        }
    }

    fn close(&mut self, also_super: bool) {
        self.read_only = true;
        if also_super && self.kind == Kind::Mysql {
            self.super_read_only = true;
        }
    }

    fn must_be_stopped(&self) -> Result<(), ServerError> {
        match &self.channel {
            Some(channel) if channel.receiver != Receiver::Stopped || channel.applier => {
                Err(error(
                    code::SLAVE_MUST_STOP,
                    "This operation cannot be performed with a running replica; run STOP REPLICA first",
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn threads(
        &mut self,
        receiver: Option<bool>,
        applier: Option<bool>,
    ) -> Result<(), ServerError> {
        let starts = receiver == Some(true) || applier == Some(true);
        let Some(channel) = &self.channel else {
            return if starts {
                Err(error(
                    code::NOT_A_REPLICA,
                    "The server is not configured as replica",
                ))
            } else {
                Ok(())
            };
        };
        // F1: MariaDB in GTID mode forgets what it received as soon as one thread starts after both were stopped.
        let both_stopped = channel.receiver == Receiver::Stopped && !channel.applier;
        if starts && both_stopped && self.kind == Kind::Mariadb {
            self.purge_relay_log();
        }
        let channel = self.channel.as_mut().expect("looked at above");
        match receiver {
            Some(true) if channel.receiver == Receiver::Stopped => {
                channel.receiver = Receiver::Connecting;
                channel.receiver_error = (0, String::new());
            }
            Some(false) => channel.receiver = Receiver::Stopped,
            Some(true) | None => {}
        }
        if let Some(on) = applier {
            channel.applier = on;
        }
        Ok(())
    }

    fn change_source(
        &mut self,
        source: &InstanceKey,
        position: SourcePosition,
        options: &[(String, String)],
    ) -> Result<(), ServerError> {
        let fits = match self.kind {
            Kind::Mysql => matches!(
                position,
                SourcePosition::OracleAuto | SourcePosition::OracleKept
            ),
            Kind::Mariadb => position == SourcePosition::MariadbSlavePos,
        };
        if !fits {
            return Err(error(code::UNKNOWN_STATEMENT, "no such option"));
        }
        // MySQL changes where the receiver goes while the applier works on, and keeps what it has to do.
        if self.kind == Kind::Mysql
            && let Some(channel) = &mut self.channel
            && channel.applier
            && channel.receiver == Receiver::Stopped
        {
            channel.source = source.clone();
            channel.source_uuid = String::new();
            channel.options = options.to_vec();
            return Ok(());
        }
        self.must_be_stopped()?;
        match self.kind {
            // F6: with both threads stopped the relay log goes, and Retrieved_Gtid_Set with it.
            Kind::Mysql => self.purge_relay_log(),
            // F4: the relay log goes, and Gtid_IO_Pos goes on saying what was in it.
            Kind::Mariadb => self.relay.clear(),
        }
        self.channel = Some(Channel {
            source: source.clone(),
            source_uuid: String::new(),
            source_server_id: 0,
            options: options.to_vec(),
            receiver: Receiver::Stopped,
            receiver_error: (0, String::new()),
            applier: false,
            heartbeats: 0,
        });
        Ok(())
    }

    // What a probe sees.

    #[must_use]
    pub fn report(&self, now: Duration) -> ProbeReport {
        let version = match self.kind {
            Kind::Mysql => "9.4.0",
            Kind::Mariadb => "10.11.11-MariaDB-log",
        };
        let is_mariadb = self.kind == Kind::Mariadb;
        let binlog_bytes = BINLOG_HEADER_BYTES + TRANSACTION_BYTES * self.binlog.len() as u64;
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
            version: Version::parse(version),
            uptime_s: now.saturating_sub(self.started).as_secs(),
            read_only: self.read_only,
            super_read_only: self.super_read_only,
            log_bin: true,
            log_replica_updates: true,
            binlog_format: "ROW".to_owned(),
            binlog_row_image: "FULL".to_owned(),
            binlog: Some(BinlogCoordinates {
                file: "binlog.000001".to_owned(),
                position: binlog_bytes,
            }),
            gtid_mode: if is_mariadb {
                String::new()
            } else {
                "ON".to_owned()
            },
            executed: Some(self.executed()),
            purged: (!is_mariadb).then(|| GtidSet::Oracle(OracleGtidSet::new())),
            binlog_gtid: is_mariadb.then(|| self.executed.clone()),
            replicated_gtid: is_mariadb.then(|| self.replicated.clone()),
            replication: self
                .channel
                .as_ref()
                .map(|channel| self.replica_status(channel, now)),
            replicas: self
                .sessions
                .values()
                .filter_map(|account| match account {
                    Account::Replication(replica) => Some(replica.clone()),
                    Account::Orchestrator | Account::Application(_) => None,
                })
                .collect(),
            credentials_available: true,
            ..ProbeReport::default()
        }
    }

    fn replica_status(&self, channel: &Channel, now: Duration) -> ReplicaStatus {
        let is_mariadb = self.kind == Kind::Mariadb;
        let applied = BINLOG_HEADER_BYTES + TRANSACTION_BYTES * self.binlog.len() as u64;
        let log = |position| BinlogCoordinates {
            file: "binlog.000001".to_owned(),
            position,
        };
        let waiting = TRANSACTION_BYTES * self.relay.len() as u64;
        ReplicaStatus {
            source: channel.source.clone(),
            source_uuid: channel.source_uuid.clone(),
            source_server_id: channel.source_server_id,
            user: "repl".to_owned(),
            io: match channel.receiver {
                Receiver::Stopped => ThreadState::Stopped,
                Receiver::Connecting => ThreadState::Other,
                Receiver::Running => ThreadState::Running,
            },
            sql: if channel.applier {
                ThreadState::Running
            } else {
                ThreadState::Stopped
            },
            io_errno: channel.receiver_error.0,
            io_error: channel.receiver_error.1.clone(),
            read: log(applied + waiting),
            exec: log(applied),
            relay: BinlogCoordinates {
                file: "relay.000002".to_owned(),
                position: 4 + applied,
            },
            relay_log_space: RELAY_LOG_HEADER_BYTES + waiting,
            seconds_behind: (channel.receiver == Receiver::Running && channel.applier).then(|| {
                self.relay
                    .front()
                    .map_or(0, |first| now.saturating_sub(first.at).as_secs())
            }),
            auto_position: !is_mariadb,
            using_gtid: if is_mariadb {
                UsingGtid::SlavePos
            } else {
                UsingGtid::No
            },
            received: Some(self.received.clone()),
            net_timeout_s: 60,
            heartbeats_received: Some(channel.heartbeats),
            options: channel.options.clone(),
            ..ReplicaStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> InstanceKey {
        InstanceKey::new(name, 3306)
    }

    /// A source with ten writes and a replica that received them all and applied four.
    fn pair(kind: Kind) -> (Server, Server) {
        let mut source = Server::new(key("p"), kind, 1, false);
        let mut replica = Server::new(key("r"), kind, 2, true);
        replica.replicate_from(key("p"));
        for write in 1..=10 {
            source.write(write, Duration::ZERO).unwrap();
        }
        let (_, held) = replica.receiver_target().unwrap();
        replica.receiver_connected(&source.identity(), 1);
        for transaction in source.dump(&held, 0).unwrap().0 {
            replica.receive(transaction);
        }
        for _ in 0..4 {
            replica.apply();
        }
        (source, replica)
    }

    fn run(server: &mut Server, statements: &[Statement]) {
        for statement in statements {
            server.execute(statement, Duration::ZERO).unwrap();
        }
    }

    fn drained(server: &mut Server) -> u64 {
        while server.can_apply() {
            server.apply();
        }
        server.executed().count()
    }

    #[test]
    fn f1_mariadb_forgets_what_it_received_when_both_threads_were_stopped() {
        use Statement::{StartIoThread, StartSqlThread, StopReplication};
        for start in [StartSqlThread, StartIoThread] {
            let (_, mut replica) = pair(Kind::Mariadb);
            run(&mut replica, &[StopReplication, start, StartSqlThread]);
            assert_eq!(drained(&mut replica), 4);
        }
        let (_, mut replica) = pair(Kind::Mysql);
        run(&mut replica, &[StopReplication, StartSqlThread]);
        assert_eq!(drained(&mut replica), 10, "MySQL keeps it (F6)");
    }

    #[test]
    fn f2_the_safe_order_keeps_everything() {
        use Statement::{StartSqlThread, StopIoThread, StopSqlThread};
        let (_, mut replica) = pair(Kind::Mariadb);
        run(&mut replica, &[StopSqlThread, StartSqlThread, StopIoThread]);
        assert_eq!(drained(&mut replica), 10);
    }

    #[test]
    fn f4_f6_changing_the_source_drops_the_relay_log() {
        for kind in [Kind::Mysql, Kind::Mariadb] {
            let (_, mut replica) = pair(kind);
            let change = Statement::ChangeSource {
                source: key("q"),
                position: match kind {
                    Kind::Mysql => SourcePosition::OracleAuto,
                    Kind::Mariadb => SourcePosition::MariadbSlavePos,
                },
                options: Vec::new(),
            };
            assert_eq!(
                replica.execute(&change, Duration::ZERO).unwrap_err().code,
                code::SLAVE_MUST_STOP
            );
            run(&mut replica, &[Statement::StopReplication, change]);
            let report = replica.report(Duration::ZERO);
            let says = report
                .replication
                .as_ref()
                .unwrap()
                .received
                .clone()
                .unwrap();
            match kind {
                Kind::Mysql => assert!(says.is_empty()),
                Kind::Mariadb => assert_eq!(says.count(), 10, "Gtid_IO_Pos lies"),
            }
            assert_eq!(report.held().unwrap().count(), 4, "and is not believed");
        }
    }

    #[test]
    fn f5_a_killed_mariadb_replica_loses_its_relay_log() {
        for (kind, left) in [(Kind::Mysql, 10), (Kind::Mariadb, 4)] {
            let (_, mut replica) = pair(kind);
            let session = replica.log_in(Account::Application("app".to_owned()));
            assert!(replica.get_lock("orchestrator/act", session));
            replica.kill();
            assert!(!replica.can_apply());
            replica.start(Duration::from_secs(1));
            assert_eq!(drained(&mut replica), left, "{kind:?}");
            assert!(!replica.has_session(session));
            assert_eq!(replica.lock_holder("orchestrator/act"), None);
            assert!(!replica.is_writable(), "read-only is in its configuration");
        }
    }

    #[test]
    fn a_fenced_server_takes_no_writes_and_a_promoted_one_does() {
        for kind in [Kind::Mysql, Kind::Mariadb] {
            let (mut source, mut replica) = pair(kind);
            run(&mut source, &[Statement::Fence]);
            assert_eq!(
                source.write(11, Duration::ZERO).unwrap_err().code,
                code::READ_ONLY
            );
            assert_eq!(drained(&mut replica), 10);
            run(
                &mut replica,
                &[
                    Statement::StopReplication,
                    Statement::ResetReplicaAll,
                    Statement::MakeWriteable,
                ],
            );
            replica.write(11, Duration::ZERO).unwrap();
            assert_eq!(replica.executed().count(), 11);
            assert!(replica.receiver_target().is_none());
        }
    }

    #[test]
    fn a_source_refuses_a_replica_that_is_ahead() {
        for kind in [Kind::Mysql, Kind::Mariadb] {
            let (source, replica) = pair(kind);
            let fresh = Server::new(key("p"), kind, 1, false);
            let (_, held) = replica.receiver_target().unwrap();
            assert!(source.dump(&held, 0).unwrap().0.is_empty());
            assert_eq!(fresh.dump(&held, 0).unwrap_err().code, 1236, "{kind:?}");
        }
    }
}
