//! A small model of MySQL and MariaDB servers: what they hold, their replication threads, read-only, and what each
//! statement does to them, the purging of relay logs included (`spec/server-facts.md` F1 to F6).

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::{
    gtid::{self, GtidSet},
    id::{Identity, InstanceKey},
    recovery::statement::{SourcePosition, Statement},
    topology::{
        BinlogCoordinates, Flavour, MissingPrivilege, ProbeReport, ReplicaStatus, SemiSync,
        ThreadState, ThroughFence, UsingGtid, Version, WrittenBy,
    },
};

/// One transaction: who wrote it first, and its number (per writer on MySQL, per domain on MariaDB).
pub type Txn = (u32, u64);

const SECOND: u64 = 1_000_000_000;
const ACCESS_DENIED: u32 = 1045;
const FATAL_READING_BINLOG: u32 = 1236;

pub type Flowed = (
    Option<(InstanceKey, usize, bool)>,
    [usize; 2],
    [bool; 4],
    Option<u16>,
);

#[derive(Debug, Clone)]
pub struct Channel {
    pub source: InstanceKey,
    pub io: bool,
    pub sql: bool,
    /// What came over this channel.
    pub received: BTreeSet<Txn>,
    /// What the receiver ended with, or its last dial.
    pub io_error: Option<(u32, &'static str)>,
}

impl Channel {
    pub fn to(source: InstanceKey) -> Self {
        Self {
            source,
            io: true,
            sql: true,
            received: BTreeSet::new(),
            io_error: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Server {
    pub key: InstanceKey,
    pub flavour: Flavour,
    pub server_id: u32,
    pub up: bool,
    pub frozen: bool,
    /// Nanoseconds.
    pub started: u64,
    pub read_only: bool,
    /// What its configuration says after a restart.
    pub starts_read_only: bool,
    pub applied: BTreeSet<Txn>,
    pub channel: Option<Channel>,
    /// What its binary logs do not hold any more: who lacks any of it is refused with error 1236.
    pub purged: BTreeSet<Txn>,
    /// Its account is refused at every source but the first one: its receiver dials on, with error 1045.
    pub is_denied: bool,
    /// Receives nothing although it is connected.
    pub deaf: bool,
    /// Its receiver runs on although its source is gone: nobody told it that the connection is lost.
    pub believes: bool,
    /// Its applier runs and gets nowhere.
    pub stuck: bool,
    /// Its applier stops with this error.
    pub sql_error: Option<u16>,
    /// Fences that wait in its socket buffers.
    pub fences: usize,
    pub log_bin: bool,
    /// It replicates by file and position: MySQL with `gtid_mode` OFF, MariaDB with `Using_Gtid` No.
    pub without_gtid: bool,
    /// Of its channel, to be stated again.
    pub options: Vec<(String, String)>,
    /// It takes no more connections, and answers every one with error 1040.
    pub overloaded: bool,
    /// Rights that our account lacks there.
    pub missing_privileges: Vec<MissingPrivilege>,
    pub through_fence: ThroughFence,
    /// It is set to acknowledge what it receives.
    pub acknowledges: bool,
    /// What it refuses to a probe.
    pub refused: Vec<(u16, String)>,
    /// How it looked when replication last flowed, and moved nothing.
    pub flowed: Option<Flowed>,
    /// Its receiver is still dialling its source until then, in nanoseconds.
    pub connects_at: u64,
    /// Until then its source looks for the place in its log, and its receiver runs.
    pub arrives_at: u64,
    /// Every statement that was run here.
    pub statements: Vec<String>,
    /// Statements that do nothing and answer with this error, by their display.
    pub refuses: BTreeMap<String, u16>,
    /// The statement, by its display, together with which somebody's stop of the applier takes effect.
    pub applier_stops_with: Option<String>,
}

impl Server {
    pub fn identity(&self) -> Identity {
        match self.flavour {
            Flavour::Mariadb => Identity(format!("{}@{}", self.server_id, self.key.host)),
            _ => Identity(uuid(self.server_id)),
        }
    }

    pub fn answers(&self) -> bool {
        self.up && !self.frozen
    }

    pub fn held(&self) -> BTreeSet<Txn> {
        let mut held = self.applied.clone();
        if let Some(channel) = &self.channel {
            held.extend(&channel.received);
        }
        held
    }

    pub fn has_unapplied(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| {
            channel
                .received
                .iter()
                .any(|txn| !self.applied.contains(txn))
        })
    }

    pub fn write(&mut self) -> Option<Txn> {
        if !self.answers() || self.read_only {
            return None;
        }
        Some(self.write_anyway())
    }

    /// As a user with all rights does.
    pub fn write_anyway(&mut self) -> Txn {
        let last = match self.flavour {
            Flavour::Mariadb => self.applied.iter().map(|(_, number)| *number).max(),
            _ => self
                .applied
                .iter()
                .filter(|(origin, _)| *origin == self.server_id)
                .map(|(_, number)| *number)
                .max(),
        };
        let txn = (self.server_id, last.unwrap_or(0) + 1);
        self.applied.insert(txn);
        txn
    }

    pub fn restart(&mut self, now: u64) {
        self.up = true;
        self.frozen = false;
        self.fences = 0;
        self.started = now;
        self.read_only = self.starts_read_only;
    }

    fn purge(&mut self, what: &Statement) {
        let lost = self.has_unapplied();
        assert!(
            !lost,
            "{}: {what} threw away received transactions that were not applied",
            self.key
        );
        if let Some(channel) = &mut self.channel {
            channel.received.clear();
        }
    }

    /// Runs a statement as the server would.
    pub fn run(&mut self, statement: &Statement) -> Result<(), (u16, String)> {
        let text = statement.to_string();
        self.statements.push(text.clone());
        if let Some(code) = self.refuses.get(&text) {
            return Err((*code, format!("the model refuses {text}")));
        }
        if self.applier_stops_with.as_ref() == Some(&text)
            && let Some(channel) = &mut self.channel
        {
            self.applier_stops_with = None;
            channel.sql = false;
        }
        let is_mariadb = self.flavour == Flavour::Mariadb;
        let threads = self
            .channel
            .as_ref()
            .map_or((false, false), |channel| (channel.io, channel.sql));
        let no_channel = || {
            (
                1200,
                String::from("The server is not configured as replica"),
            )
        };
        match statement {
            Statement::Fence | Statement::MakeReadOnly { .. } => self.read_only = true,
            Statement::MakeWriteable => {
                self.fences = 0;
                self.read_only = false;
            }
            Statement::KillClients { .. } => {}
            Statement::RunHook { .. } => panic!("a hook is nothing for a server"),
            Statement::StopIoThread => self.channel.as_mut().ok_or_else(no_channel)?.io = false,
            Statement::StopSqlThread => self.channel.as_mut().ok_or_else(no_channel)?.sql = false,
            Statement::StopReplication => {
                let channel = self.channel.as_mut().ok_or_else(no_channel)?;
                channel.io = false;
                channel.sql = false;
            }
            Statement::StartIoThread | Statement::StartSqlThread | Statement::StartReplication => {
                if is_mariadb && threads == (false, false) {
                    self.purge(statement);
                }
                if is_mariadb && !threads.1 && *statement == Statement::StartIoThread {
                    self.purge(statement);
                }
                let failing = self.sql_error.is_some();
                let channel = self.channel.as_mut().ok_or_else(no_channel)?;
                if *statement != Statement::StartSqlThread {
                    channel.io_error = None;
                }
                channel.io |= *statement != Statement::StartSqlThread;
                channel.sql |= *statement != Statement::StartIoThread && !failing;
            }
            Statement::ChangeSource {
                source, position, ..
            } => {
                if self.without_gtid && !is_mariadb {
                    return Err((
                        1777,
                        String::from(
                            "SOURCE_AUTO_POSITION = 1 cannot be executed because @@GLOBAL.GTID_MODE = OFF",
                        ),
                    ));
                }
                self.without_gtid = false;
                let keeps = !is_mariadb && threads.1;
                let allowed = match position {
                    SourcePosition::OracleKept => !threads.0,
                    SourcePosition::OracleAuto | SourcePosition::MariadbSlavePos => {
                        threads == (false, false)
                    }
                };
                if !allowed {
                    return Err((1198, String::from("threads are running")));
                }
                if !keeps {
                    self.purge(statement);
                }
                match &mut self.channel {
                    Some(channel) => channel.source = source.clone(),
                    None => {
                        self.channel = Some(Channel {
                            source: source.clone(),
                            io: false,
                            sql: false,
                            received: BTreeSet::new(),
                            io_error: None,
                        });
                    }
                }
            }
            Statement::ResetReplicaAll => {
                if threads != (false, false) {
                    return Err((1198, String::from("threads are running")));
                }
                self.purge(statement);
                self.channel = None;
            }
            Statement::SetGtidSlavePos { .. }
            | Statement::SemiSyncSource { .. }
            | Statement::SemiSyncReplica { .. } => {
                return Err((1193, String::from("not in the model")));
            }
        }
        Ok(())
    }
}

pub fn uuid(server_id: u32) -> String {
    format!("{server_id:08x}-0000-0000-0000-000000000000")
}

/// All servers of the world.
#[derive(Debug, Default)]
pub struct Fleet {
    pub servers: BTreeMap<InstanceKey, Server>,
    /// What replicas call a source, where that is not its own name.
    pub called: BTreeMap<InstanceKey, InstanceKey>,
}

impl Fleet {
    /// Replication goes on: what can be received is received, what can be applied is applied.
    pub fn flow(&mut self, now: u64) {
        let keys: Vec<InstanceKey> = self.servers.keys().cloned().collect();
        for key in keys {
            let server = &self.servers[&key];
            if !server.answers() {
                continue;
            }
            let Some(channel) = &server.channel else {
                continue;
            };
            let refusal = self.refusal(server, channel, now);
            if let Some(refusal) = refusal {
                let channel = self.servers.get_mut(&key).expect("it was there");
                let channel = channel.channel.as_mut().expect("it was there");
                channel.io = refusal.0 != FATAL_READING_BINLOG;
                channel.io_error = Some(refusal);
            }
            let server = &self.servers[&key];
            let channel = server.channel.as_ref().expect("it was there");
            // Nothing moved since the last time.
            let state = (
                self.servers
                    .get(&channel.source)
                    .map(|source| (source.key.clone(), source.applied.len(), source.answers())),
                [server.applied.len(), channel.received.len()],
                [channel.io, channel.sql, server.deaf, server.stuck],
                server.sql_error,
            );
            if server.flowed.as_ref() == Some(&state) {
                continue;
            }
            let mut received = BTreeSet::new();
            if channel.io
                && channel.io_error.is_none()
                && !server.deaf
                && let Some(source) = self.servers.get(&channel.source)
                && source.answers()
            {
                received = source
                    .applied
                    .difference(&server.applied)
                    .copied()
                    .collect();
            }
            let server = self.servers.get_mut(&key).expect("it was there");
            let (stuck, failing) = (server.stuck, server.sql_error.is_some());
            let channel = server.channel.as_mut().expect("it was there");
            channel.received.extend(received);
            if failing
                && channel
                    .received
                    .iter()
                    .any(|txn| !server.applied.contains(txn))
            {
                channel.sql = false;
            }
            if channel.sql && !stuck {
                server.applied.extend(channel.received.iter().copied());
            }
            let moved = state.1 != [server.applied.len(), channel.received.len()]
                || state.2[1] != channel.sql;
            server.flowed = (!moved).then_some(state);
        }
    }

    /// What its source says to a receiver that runs.
    fn refusal(&self, server: &Server, channel: &Channel, now: u64) -> Option<(u32, &'static str)> {
        let source = self.servers.get(&channel.source)?;
        if !channel.io || !source.answers() {
            return None;
        }
        if server.is_denied && source.server_id != 1 {
            return Some((ACCESS_DENIED, "Access denied for user 'repl'"));
        }
        (now >= server.arrives_at && !server.held().is_superset(&source.purged))
            .then_some((FATAL_READING_BINLOG, "Got fatal error 1236 from source"))
    }

    pub fn report(&self, key: &InstanceKey, now: u64) -> ProbeReport {
        let server = &self.servers[key];
        let is_mariadb = server.flavour == Flavour::Mariadb;
        let set = |txns: &BTreeSet<Txn>| {
            if is_mariadb {
                mariadb_position(txns)
            } else if server.without_gtid {
                oracle_set(&BTreeSet::new())
            } else {
                oracle_set(txns)
            }
        };
        // What replication brought: everything but what this server wrote itself, unless it came back to it.
        let replicated: BTreeSet<Txn> = server
            .applied
            .iter()
            .copied()
            .filter(|(origin, _)| *origin != server.server_id)
            .collect();
        let replication = server.channel.as_ref().map(|channel| {
            let reached = self
                .servers
                .get(&channel.source)
                .is_some_and(|source| source.up || server.believes);
            let is_denied = channel.io_error.is_some();
            let mut received = channel.received.clone();
            if is_mariadb {
                received.extend(&replicated);
                if server.without_gtid {
                    received.clear();
                }
            }
            ReplicaStatus {
                source: self
                    .called
                    .get(&channel.source)
                    .unwrap_or(&channel.source)
                    .clone(),
                source_uuid: self
                    .servers
                    .get(&channel.source)
                    .filter(|_| !is_mariadb)
                    .map_or(String::new(), |source| uuid(source.server_id)),
                source_server_id: self
                    .servers
                    .get(&channel.source)
                    .map_or(0, |source| source.server_id),
                user: String::from("repl"),
                io: match (
                    channel.io,
                    reached && !is_denied && now >= server.connects_at,
                ) {
                    (false, _) => ThreadState::Stopped,
                    (true, true) => ThreadState::Running,
                    (true, false) => ThreadState::Other,
                },
                sql: if channel.sql {
                    ThreadState::Running
                } else {
                    ThreadState::Stopped
                },
                read: BinlogCoordinates {
                    file: if channel.io && reached && !is_denied && now >= server.arrives_at {
                        String::from("binlog.000001")
                    } else {
                        String::new()
                    },
                    position: 4,
                },
                io_errno: channel.io_error.map_or(0, |(number, _)| number),
                io_error: match channel.io_error {
                    None => String::new(),
                    // As servers count them.
                    Some((_, text)) if channel.io => format!("{text} (attempt {})", now / SECOND),
                    Some((_, text)) => String::from(text),
                },
                sql_errno: if channel.sql {
                    0
                } else {
                    server.sql_error.map_or(0, u32::from)
                },
                relay_log_space: if server.has_unapplied() { 100_000 } else { 300 },
                seconds_behind: Some(0),
                auto_position: !is_mariadb && !server.without_gtid,
                using_gtid: if is_mariadb && !server.without_gtid {
                    UsingGtid::SlavePos
                } else {
                    UsingGtid::No
                },
                received: Some(set(&received)),
                options: server.options.clone(),
                ..ReplicaStatus::default()
            }
        });
        ProbeReport {
            identity: server.identity(),
            self_key: key.clone(),
            server_id: server.server_id,
            server_uuid: if is_mariadb {
                String::new()
            } else {
                uuid(server.server_id)
            },
            flavour: server.flavour,
            version: Version::parse(if is_mariadb {
                "10.11.19-MariaDB"
            } else {
                "9.7.4"
            }),
            uptime_s: (now - server.started) / 1_000_000_000,
            read_only: server.read_only,
            super_read_only: server.read_only && !is_mariadb,
            log_bin: server.log_bin,
            log_replica_updates: true,
            binlog_format: String::from("ROW"),
            gtid_mode: String::from(match (is_mariadb, server.without_gtid) {
                (true, _) => "",
                (false, true) => "OFF",
                (false, false) => "ON",
            }),
            executed: Some(set(&server.applied)),
            purged: (!is_mariadb).then(|| set(&server.purged)),
            binlog_state: server
                .applied
                .iter()
                .filter(|_| is_mariadb)
                .fold(BTreeMap::<u32, u64>::new(), |mut last, (origin, number)| {
                    let held = last.entry(*origin).or_default();
                    *held = (*held).max(*number);
                    last
                })
                .into_iter()
                .map(|(server_id, sequence)| WrittenBy {
                    domain: 0,
                    server_id,
                    sequence,
                })
                .collect(),
            binlog_gtid: is_mariadb.then(|| set(&server.applied)),
            replicated_gtid: is_mariadb.then(|| set(&replicated)),
            replication,
            missing_privileges: server.missing_privileges.clone(),
            through_fence: server.through_fence.clone(),
            semi_sync: SemiSync {
                replica_enabled: server.acknowledges,
                ..SemiSync::default()
            },
            refused: server.refused.clone(),
            replicas: self
                .servers
                .values()
                .filter(|other| {
                    other
                        .channel
                        .as_ref()
                        .is_some_and(|channel| channel.source == *key && channel.io)
                })
                .map(|other| other.key.clone())
                .collect(),
            ..ProbeReport::default()
        }
    }
}

fn mariadb_position(txns: &BTreeSet<Txn>) -> GtidSet {
    let last = txns
        .iter()
        .max_by_key(|(origin, number)| (*number, *origin));
    let text = last.map_or(String::new(), |(origin, number)| {
        format!("0-{origin}-{number}")
    });
    GtidSet::parse(gtid::Flavour::Mariadb, &text).expect("a position of ours")
}

fn oracle_set(txns: &BTreeSet<Txn>) -> GtidSet {
    let text: Vec<String> = txns
        .iter()
        .map(|(origin, number)| format!("{}:{number}", uuid(*origin)))
        .collect();
    GtidSet::parse(gtid::Flavour::Oracle, &text.join(",")).expect("a set of ours")
}
