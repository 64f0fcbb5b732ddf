//! Replication of one server: its channel, the two threads, the relay log, and the source's side of the log.
//!
//! What holds: received and applied are two things; the relay log is forgotten where a real server forgets it. On MariaDB
//! in GTID mode that is whenever a thread starts with both stopped, a restart included (102 transactions were seen to go),
//! and `Gtid_IO_Pos` goes on naming what a change of source dropped. On MySQL it is a change of the channel with both
//! threads stopped (be it of SOURCE_DELAY alone) and, with `relay_log_recovery`, a restart; its `Retrieved_Gtid_Set` tells
//! the truth. Started before the receiver is stopped, MariaDB's applier keeps everything; so does file and position with
//! `MASTER_USE_GTID=no`.

use std::time::Duration;

use orchestrator_core::gtid::mariadb::{Domain, Last};
use orchestrator_core::gtid::{GtidSet, OracleGtidSet, Uuid};
use orchestrator_core::id::{Identity, InstanceKey};
use orchestrator_core::topology::{BinlogCoordinates, ReplicaStatus, ThreadState, UsingGtid};
use serde::{Deserialize, Serialize};

use super::server::{
    Access, BINLOG_FILE, BINLOG_HEADER_BYTES, Kind, Process, Server, ServerError,
    TRANSACTION_BYTES, Table, Transaction, code, error,
};

/// A relay log with nothing in it takes so many bytes on MariaDB.
const RELAY_LOG_HEADER_BYTES: u64 = 256;

/// Between heartbeats of a source with nothing to send.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// The receiver of replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Stopped,
    Connecting,
    Running,
}

/// How the receiver finds its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// MySQL's `SOURCE_AUTO_POSITION=1`, MariaDB's `MASTER_USE_GTID=slave_pos`.
    Gtid,
    /// By file and position.
    File,
}

/// What a CHANGE statement states. What it leaves out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub position: Option<Position>,
    /// `RELAY_LOG_FILE` or `RELAY_LOG_POS`: the relay log is kept.
    pub keeps_relay_log: bool,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Every other option: its name without the word for the source in front, and its literal.
    pub options: Vec<(String, String)>,
}

/// The default replication channel.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub source: InstanceKey,
    pub source_uuid: String,
    pub source_server_id: u32,
    pub user: String,
    pub password: String,
    /// In the order in which they were first stated; see [`Change::options`].
    pub options: Vec<(String, String)>,
    pub using_gtid: bool,
    pub receiver: Receiver,
    pub receiver_error: (u32, String),
    /// The source that it names has begun to send its log.
    pub has_arrived: bool,
    /// Since when a dial has had no answer.
    pub dialling: Option<Duration>,
    /// The receiver acknowledges: it was started with the replica's side of semi-sync on.
    pub acknowledges: bool,
    pub applier: bool,
    pub applier_error: (u32, String),
    pub heartbeats: u64,
    /// Counts the starts of the receiver: what an earlier one connected to is let go.
    pub starts: u64,
}

impl Channel {
    fn new(source: InstanceKey) -> Self {
        Channel {
            source,
            source_uuid: String::new(),
            source_server_id: 0,
            user: String::new(),
            password: String::new(),
            options: Vec::new(),
            using_gtid: true,
            receiver: Receiver::Stopped,
            receiver_error: (0, String::new()),
            has_arrived: false,
            dialling: None,
            acknowledges: false,
            applier: false,
            applier_error: (0, String::new()),
            heartbeats: 0,
            starts: 0,
        }
    }

    /// Both threads on, as after a start of the process.
    pub fn start(&mut self) {
        self.receiver = Receiver::Connecting;
        self.starts += 1;
        self.receiver_error = (0, String::new());
        self.dialling = None;
        self.applier = true;
        self.applier_error = (0, String::new());
        self.heartbeats = 0;
    }

    pub fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, literal)| literal.as_str())
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds: f64 = self.option(name)?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    pub fn delay(&self) -> Duration {
        self.seconds("DELAY").unwrap_or_default()
    }

    /// Between two dials of the receiver.
    pub fn connect_retry(&self, unset: Duration) -> Duration {
        self.seconds("CONNECT_RETRY").unwrap_or(unset)
    }

    fn state(&mut self, name: &str, literal: &str) {
        match self.options.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => literal.clone_into(known),
            None => self.options.push((name.to_owned(), literal.to_owned())),
        }
    }
}

/// Options of a channel that concern the applier: they can be stated only while it is stopped.
const APPLIER_OPTIONS: [&str; 6] = [
    "DELAY",
    "PRIVILEGE_CHECKS_USER",
    "REQUIRE_ROW_FORMAT",
    "REQUIRE_TABLE_PRIMARY_KEY_CHECK",
    "ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS",
    "GTID_ONLY",
];

/// Of MySQL's receiver, which then chooses its source by itself.
const AUTO_FAILOVER: &str = "CONNECTION_AUTO_FAILOVER";

/// Options whose name has no word for the source in it.
pub(crate) const PLAIN_OPTIONS: [&str; 5] = [
    "NETWORK_NAMESPACE",
    "REQUIRE_ROW_FORMAT",
    "REQUIRE_TABLE_PRIMARY_KEY_CHECK",
    "ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS",
    "GTID_ONLY",
];

impl Change {
    /// An option by its name in a statement of either flavour.
    pub fn option(&mut self, name: &str, literal: &str) {
        let upper = name.to_ascii_uppercase();
        let name = match upper.as_str() {
            "GET_SOURCE_PUBLIC_KEY" | "GET_MASTER_PUBLIC_KEY" => "GET_PUBLIC_KEY",
            other => other
                .strip_prefix("SOURCE_")
                .or_else(|| other.strip_prefix("MASTER_"))
                .unwrap_or(other),
        };
        self.options.push((name.to_owned(), literal.to_owned()));
    }
}

impl Server {
    /// Sets replication up as a finished installation has it: both threads on.
    pub fn replicate_from(&mut self, source: InstanceKey) {
        let mut channel = Channel::new(source);
        "repl".clone_into(&mut channel.user);
        channel.start();
        self.channel = Some(channel);
    }

    /// Sets the account that the receiver logs in with.
    pub fn set_replication_account(&mut self, user: &str, password: &str) {
        if let Some(channel) = &mut self.channel {
            user.clone_into(&mut channel.user);
            password.clone_into(&mut channel.password);
        }
    }

    /// States an option of the channel, as a finished installation has it: `DELAY`, `CONNECT_RETRY` ...
    pub fn set_channel_option(&mut self, name: &str, literal: &str) {
        if let Some(channel) = &mut self.channel {
            channel.state(name, literal);
        }
    }

    /// The applier stays so far behind its source (`SOURCE_DELAY`).
    pub fn set_delay(&mut self, delay: Duration) {
        self.set_channel_option("DELAY", &delay.as_secs().to_string());
    }

    /// The applier fails at its next transaction, and again whenever it is started, until it is mended with none.
    pub fn set_applier_fault(&mut self, fault: Option<ServerError>) {
        self.applier_fault = fault;
    }

    /// The source it replicates from.
    #[must_use]
    pub fn source(&self) -> Option<&InstanceKey> {
        self.channel.as_ref().map(|channel| &channel.source)
    }

    /// Whether its receiver was let in by the source that it names, and not turned away since.
    #[must_use]
    pub fn follows_its_source(&self) -> bool {
        self.channel
            .as_ref()
            .is_some_and(|channel| channel.receiver != Receiver::Stopped && channel.has_arrived)
    }

    /// Whether both threads run.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        self.channel
            .as_ref()
            .is_some_and(|channel| channel.receiver == Receiver::Running && channel.applier)
    }

    /// Received and not applied.
    pub fn unapplied(&self) -> impl Iterator<Item = &Transaction> {
        self.relay.iter()
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    pub(crate) fn received(&self) -> &GtidSet {
        &self.received
    }

    // The receiver.

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

    /// Which life of the receiver this is, and of which process; none while it is stopped.
    pub(crate) fn receiver_life(&self) -> Option<(u64, u64)> {
        let channel = self.channel.as_ref()?;
        (channel.receiver != Receiver::Stopped && self.process != Process::Killed)
            .then_some((self.boot(), channel.starts))
    }

    /// What a replica that holds `held` is to be sent, from a place in the log on; and the next place.
    ///
    /// # Errors
    /// The replica holds what this log does not, or lacks what was purged from it when it begins to read: error 1236.
    pub fn dump(
        &self,
        held: &GtidSet,
        from: usize,
    ) -> Result<(Vec<Transaction>, usize), ServerError> {
        let has_beyond = match (held, &self.logged()) {
            (GtidSet::Oracle(held), GtidSet::Oracle(own)) => {
                let uuid = Uuid(self.uuid());
                !own.contains(&held.restricted_to_uuid(uuid))
            }
            (GtidSet::Mariadb(held), GtidSet::Mariadb(_)) => {
                !held.domains().all(|(_, last)| self.had(last))
            }
            _ => true,
        };
        if has_beyond {
            return Err(error(
                code::FATAL_READING_BINLOG,
                "the replica has more transactions than the source's binary log",
            ));
        }
        if from == 0 && !held.is_superset(&self.purged).unwrap_or(false) {
            return Err(error(
                code::FATAL_READING_BINLOG,
                "the source purged binary logs with transactions that the replica requires",
            ));
        }
        let sent = self.binlog[from.min(self.binlog.len())..]
            .iter()
            .filter(|transaction| !transaction.id.is_in(held))
            .copied()
            .collect();
        Ok((sent, self.binlog.len()))
    }

    /// MariaDB: whether its log had this transaction of that server, or its own replication stands there. How far the log has
    /// gone since by other servers' numbers says nothing.
    fn had(&self, last: Last) -> bool {
        let is_logged = self
            .written_by
            .get(&last.server_id.0)
            .is_some_and(|newest| *newest >= last.sequence);
        is_logged
            || matches!(&self.replicated, GtidSet::Mariadb(own) if own.last(Domain(0)) == Some(last))
    }

    /// The receiver dials its source.
    pub fn receiver_dials(&mut self, now: Duration) {
        if let Some(channel) = &mut self.channel {
            channel.dialling = Some(now);
        }
    }

    /// The receiver logged in at its source.
    pub fn receiver_connected(&mut self, source: &Identity, server_id: u32) {
        let acknowledges = self.semi_sync.replica_enabled;
        if let Some(channel) = &mut self.channel {
            channel.receiver = Receiver::Running;
            channel.receiver_error = (0, String::new());
            channel.dialling = None;
            channel.acknowledges = acknowledges;
            channel.source_server_id = server_id;
            if self.kind == Kind::Mysql {
                channel.source_uuid = source.0.clone();
            }
        }
    }

    /// The first of the source's log arrives.
    pub fn log_arrives(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.has_arrived = true;
        }
    }

    /// The receiver lost its source, or did not get to it. A dial into silence leaves no error.
    pub fn receiver_lost(&mut self, refused: bool) {
        self.receiver_failed(
            refused.then(|| (code::CANNOT_CONNECT, "Can't connect to server".to_owned())),
        );
    }

    /// The same, with the error that the dial ended with.
    pub fn receiver_failed(&mut self, reason: Option<(u32, String)>) {
        let word = self.source_word();
        if let Some(channel) = &mut self.channel
            && channel.receiver != Receiver::Stopped
        {
            channel.receiver = Receiver::Connecting;
            channel.dialling = None;
            if let Some((number, text)) = reason {
                channel.receiver_error = (
                    number,
                    format!(
                        "error reconnecting to {word} '{}@{}': {text}",
                        channel.user, channel.source
                    ),
                );
            }
        }
    }

    fn source_word(&self) -> &'static str {
        match self.kind {
            Kind::Mysql => "source",
            Kind::Mariadb => "master",
        }
    }

    /// The source refused for good: the receiver stops. MySQL has a number of its own for what the source said.
    pub fn receiver_refused(&mut self, refusal: &ServerError) {
        let word = self.source_word();
        let number = match self.kind {
            Kind::Mysql if refusal.code == code::FATAL_READING_BINLOG => {
                code::SOURCE_FATAL_READING_BINLOG
            }
            Kind::Mysql | Kind::Mariadb => refusal.code,
        };
        if let Some(channel) = &mut self.channel {
            channel.receiver = Receiver::Stopped;
            channel.dialling = None;
            channel.receiver_error = (
                u32::from(number),
                format!(
                    "Got fatal error {} from {word} when reading data from binary log: '{}'",
                    refusal.code, refusal.message
                ),
            );
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
        self.holds(transaction.write);
        self.relay.push_back(transaction);
    }

    // The applier.

    /// A global read lock (of a backup, or of a read-only that is waited for) keeps the applier in the middle of a
    /// transaction. Its thread says "Yes" all the same.
    pub(crate) fn applier_is_blocked(&self) -> bool {
        !self.relay.is_empty()
            && self.channel.as_ref().is_some_and(|channel| channel.applier)
            && (self.is_closing() || self.sessions.values().any(|session| session.read_lock))
    }

    /// When the applier may take the next transaction; none when it has nothing to do or cannot.
    #[must_use]
    pub fn applies_at(&self) -> Option<Duration> {
        let channel = self.channel.as_ref()?;
        let runs = match self.process {
            Process::Running | Process::Stopping(_) => true,
            Process::Killed | Process::Frozen => false,
        };
        if !runs || !channel.applier || self.applier_is_blocked() {
            return None;
        }
        let next = self.relay.front()?;
        let delay = channel.delay();
        Some(if delay.is_zero() {
            Duration::ZERO
        } else {
            next.at + delay
        })
    }

    /// Whether the applier has something to do.
    #[must_use]
    pub fn can_apply(&self, now: Duration) -> bool {
        self.applies_at().is_some_and(|at| at <= now)
    }

    /// The applier commits the next transaction, or stops at it.
    pub fn apply(&mut self, now: Duration) {
        if !self.can_apply(now) {
            return;
        }
        let Some(transaction) = self.relay.front().copied() else {
            return;
        };
        // MariaDB applies whatever lies behind gtid_slave_pos, be it in its own log or not.
        let is_new = match self.kind {
            Kind::Mysql => !transaction.id.is_in(&self.executed),
            Kind::Mariadb => !transaction.id.is_in(&self.replicated),
        };
        let row = (transaction.table, transaction.write);
        let fault = match (&self.applier_fault, transaction.table) {
            (Some(fault), _) => Some(fault.clone()),
            (None, Table::None) => None,
            (None, Table::Ledger | Table::Note) => {
                (is_new && self.rows.contains(&row)).then(|| {
                    error(
                        code::DUPLICATE_KEY,
                        format!("Duplicate entry '{}' for key 'PRIMARY'", transaction.write),
                    )
                })
            }
        };
        if let Some(fault) = fault {
            if let Some(channel) = &mut self.channel {
                channel.applier = false;
                channel.applier_error = (u32::from(fault.code), fault.message);
            }
            return;
        }
        self.relay.pop_front();
        if is_new {
            let place = self.binlog.len();
            self.log(transaction);
            self.commit(place);
        }
        if self.kind == Kind::Mariadb {
            transaction.id.insert_into(&mut self.replicated);
        }
    }

    /// A statement made it forget what it had received.
    fn forget_relay_log(&mut self) {
        self.forgotten_ever += self.relay.len();
        self.purge_relay_log();
    }

    pub(super) fn purge_relay_log(&mut self) {
        self.relay.clear();
        self.received = match self.kind {
            Kind::Mysql => GtidSet::Oracle(OracleGtidSet::new()),
            Kind::Mariadb => self.replicated.clone(),
        };
    }

    // Statements.

    pub(super) fn must_be_stopped(&self) -> Result<(), ServerError> {
        match &self.channel {
            Some(channel) if channel.receiver != Receiver::Stopped || channel.applier => {
                Err(error(
                    match self.kind {
                        Kind::Mysql => code::CHANNEL_MUST_STOP,
                        Kind::Mariadb => code::SLAVE_MUST_STOP,
                    },
                    "This operation cannot be performed with running replication threads; stop them first",
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn threads(
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
        let both_stopped = channel.receiver == Receiver::Stopped && !channel.applier;
        if starts && both_stopped && self.kind == Kind::Mariadb && channel.using_gtid {
            self.forget_relay_log();
        }
        let channel = self.channel.as_mut().expect("looked at above");
        match receiver {
            Some(true) if channel.receiver == Receiver::Stopped => {
                channel.receiver = Receiver::Connecting;
                channel.starts += 1;
                channel.receiver_error = (0, String::new());
            }
            Some(false) => {
                channel.receiver = Receiver::Stopped;
                channel.dialling = None;
            }
            Some(true) | None => {}
        }
        if let Some(on) = applier {
            if on && !channel.applier {
                channel.applier_error = (0, String::new());
            }
            channel.applier = on;
        }
        Ok(())
    }

    pub(super) fn change_source(&mut self, change: &Change) -> Result<(), ServerError> {
        let running = self.channel.as_ref().map(|channel| {
            (
                channel.receiver != Receiver::Stopped,
                channel.applier,
                channel.using_gtid,
            )
        });
        let (receiver_runs, applier_runs, used_gtid) = running.unwrap_or((false, false, false));
        match self.kind {
            Kind::Mariadb => self.must_be_stopped()?,
            Kind::Mysql => {
                let concerns_applier = change
                    .options
                    .iter()
                    .any(|(name, _)| APPLIER_OPTIONS.contains(&name.as_str()));
                let concerns_receiver = change.host.is_some()
                    || change.port.is_some()
                    || change.user.is_some()
                    || change
                        .options
                        .iter()
                        .any(|(name, _)| !APPLIER_OPTIONS.contains(&name.as_str()));
                let concerns_both = change.position.is_some()
                    || change.options.iter().any(|(name, _)| name == AUTO_FAILOVER);
                // What concerns both is stated only while both are stopped; the rest only while the thread that it
                // concerns is.
                if (concerns_both && (receiver_runs || applier_runs))
                    || (concerns_receiver && concerns_applier && (receiver_runs || applier_runs))
                    || (concerns_applier && applier_runs)
                {
                    return self.must_be_stopped();
                }
                if concerns_receiver && receiver_runs {
                    return Err(error(
                        code::RECEIVER_MUST_STOP,
                        "This operation cannot be performed with a running replica io thread; run STOP REPLICA IO_THREAD FOR CHANNEL '' first.",
                    ));
                }
            }
        }
        if !receiver_runs && !applier_runs && !change.keeps_relay_log {
            match self.kind {
                Kind::Mysql => self.forget_relay_log(),
                // Gtid_IO_Pos goes on saying what was in it.
                Kind::Mariadb => {
                    self.forgotten_ever += self.relay.len();
                    self.relay.clear();
                }
            }
        }
        let kind = self.kind;
        let net_timeout = self.net_timeout;
        let channel = self.channel.get_or_insert_with(|| {
            let mut channel = Channel::new(InstanceKey::new("", 3306));
            if kind == Kind::Mysql {
                // What a channel of 9.7 has from the beginning.
                channel.state("RETRY_COUNT", "10");
                channel.state("SSL", "1");
            }
            channel
        });
        if change.host.is_some() || change.port.is_some() {
            if let Some(host) = &change.host {
                channel.source.host.clone_from(host);
            }
            if let Some(port) = change.port {
                channel.source.port = port;
            }
            channel.source_uuid = String::new();
            channel.source_server_id = 0;
            channel.has_arrived = false;
        }
        // MariaDB's every change puts the heartbeat back to half of the patience, MySQL's one of host or port; and nothing else.
        if kind == Kind::Mariadb || change.host.is_some() || change.port.is_some() {
            let half = net_timeout.as_secs_f64() / 2.0;
            channel.state("HEARTBEAT_PERIOD", &format!("{half:.3}"));
        }
        channel.using_gtid = match change.position {
            Some(Position::Gtid) => true,
            Some(Position::File) => false,
            None => used_gtid,
        };
        if let Some(user) = &change.user {
            channel.user.clone_from(user);
        }
        if let Some(password) = &change.password {
            channel.password.clone_from(password);
        }
        for (name, literal) in &change.options {
            channel.state(name, literal);
        }
        Ok(())
    }

    /// `RESET REPLICA ALL`.
    pub(super) fn reset_replica(&mut self) -> Result<(), ServerError> {
        self.must_be_stopped()?;
        self.forget_relay_log();
        self.channel = None;
        Ok(())
    }

    // What a probe sees.

    /// The lag as the server itself tells it: none while a thread is down.
    pub(crate) fn seconds_behind(&self, now: Duration) -> Option<u64> {
        let channel = self.channel.as_ref()?;
        if channel.receiver != Receiver::Running || !channel.applier {
            return None;
        }
        Some(
            self.relay
                .front()
                .map_or(0, |first| now.saturating_sub(first.at).as_secs()),
        )
    }

    pub(crate) fn relay_log_space(&self) -> u64 {
        RELAY_LOG_HEADER_BYTES + TRANSACTION_BYTES * self.relay.len() as u64
    }

    /// Where the applier stands in its source's log, and where the receiver does.
    pub(crate) fn source_coordinates(&self) -> (BinlogCoordinates, BinlogCoordinates) {
        let applied = BINLOG_HEADER_BYTES + TRANSACTION_BYTES * self.binlog.len() as u64;
        let waiting = TRANSACTION_BYTES * self.relay.len() as u64;
        let has_arrived = self
            .channel
            .as_ref()
            .is_some_and(|channel| channel.has_arrived);
        let exec = BinlogCoordinates {
            file: BINLOG_FILE.to_owned(),
            position: applied,
        };
        // A change of source empties the name until the first of the log arrives.
        let read = BinlogCoordinates {
            file: if has_arrived { BINLOG_FILE } else { "" }.to_owned(),
            position: applied + waiting,
        };
        (exec, read)
    }

    pub(crate) fn relay_coordinates(&self) -> BinlogCoordinates {
        BinlogCoordinates {
            file: "relay.000002".to_owned(),
            position: 4 + BINLOG_HEADER_BYTES + TRANSACTION_BYTES * self.binlog.len() as u64,
        }
    }

    pub(super) fn replica_status(&self, channel: &Channel, now: Duration) -> ReplicaStatus {
        let is_mariadb = self.kind == Kind::Mariadb;
        let (exec, read) = self.source_coordinates();
        let word = if is_mariadb { "MASTER" } else { "SOURCE" };
        ReplicaStatus {
            source: channel.source.clone(),
            source_uuid: channel.source_uuid.clone(),
            source_server_id: channel.source_server_id,
            user: channel.user.clone(),
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
            sql_errno: channel.applier_error.0,
            sql_error: channel.applier_error.1.clone(),
            read,
            exec,
            relay: self.relay_coordinates(),
            relay_log_space: self.relay_log_space(),
            seconds_behind: self.seconds_behind(now),
            sql_delay_s: u32::try_from(channel.delay().as_secs()).unwrap_or(u32::MAX),
            auto_position: !is_mariadb && channel.using_gtid,
            using_gtid: if is_mariadb && channel.using_gtid {
                UsingGtid::SlavePos
            } else {
                UsingGtid::No
            },
            received: Some(self.received.clone()),
            net_timeout_s: u32::try_from(self.net_timeout.as_secs()).unwrap_or(u32::MAX),
            heartbeats_received: Some(channel.heartbeats),
            options: channel
                .options
                .iter()
                .map(|(name, literal)| match name.as_str() {
                    "GET_PUBLIC_KEY" => (format!("GET_{word}_PUBLIC_KEY"), literal.clone()),
                    name if PLAIN_OPTIONS.contains(&name) => (name.to_owned(), literal.clone()),
                    name => (format!("{word}_{name}"), literal.clone()),
                })
                .collect(),
            ..ReplicaStatus::default()
        }
    }

    /// A read-only that somebody asked for is waited for.
    pub(super) fn is_closing(&self) -> bool {
        self.closing() > 0
    }

    /// Makes it so, and notes when it was opened.
    pub(super) fn set_access(&mut self, access: Access, now: Duration) {
        if access == Access::Writable && self.access != Access::Writable {
            self.opened.push(now);
        }
        self.access = access;
    }
}
