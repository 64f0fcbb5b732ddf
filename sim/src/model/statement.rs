//! Statements as objects: asked for by a session, carried on as the server's state and the time allow, answered once.
//!
//! What holds: statements go on in the order in which they were asked for, and while the process is frozen none does; a
//! session that is ended takes its statement along; what a statement waits for is looked at again after every change.
//!
//! What waits for what, as measured on both kinds: a read-only waits for statements that write (it took 3.7 s behind one of
//! 4 s) and without limit for commits that wait for acknowledgements, and while it is waited for every further write waits
//! behind it; open transactions that do nothing do not hold it up, and their COMMIT is refused. Killing the clients that
//! wait for acknowledgements frees it on MariaDB; on MySQL they are disconnected and their transactions go on waiting, until
//! the source's side of semi-sync is switched off, which commits them. `FLUSH TABLES WITH READ LOCK` stops the applier and
//! STOP of it, and neither the receiver nor a change of read-only.

use std::time::Duration;

use orchestrator_core::gtid::GtidSet;
use orchestrator_core::recovery::{SourcePosition, Statement};
use serde::{Deserialize, Serialize};

use super::replication::{Change, Position, Receiver};
use super::server::{
    Access, Account, Kind, Process, Server, ServerError, Table, TransactionId, code, error,
};

/// A dial that had no answer for so long is one into silence: MySQL's STOP of the receiver waits for it.
const DIALS_AT_ONCE: Duration = Duration::from_millis(50);
/// And takes so long.
const STOP_OF_SILENT_DIAL: Duration = Duration::from_secs(2);

/// What a session may ask of its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Access(Access),
    EventScheduler(bool),
    /// MySQL's `offline_mode`.
    Offline(bool),
    SemiSyncSource(bool),
    SemiSyncReplica(bool),
    SemiSyncTimeout(Duration),
    SemiSyncCount(u32),
    SemiSyncPoint {
        after_sync: bool,
    },
    GtidSlavePos(GtidSet),
    Threads {
        receiver: Option<bool>,
        applier: Option<bool>,
    },
    Change(Change),
    ResetReplicaAll,
    Kill(u64),
    /// `KILL USER`, which MySQL has not.
    KillUser(String),
    GetLock {
        name: String,
        within: Duration,
    },
    ReleaseLock(String),
    Sleep(Duration),
    /// A row, of a statement that takes so long.
    Write {
        table: Table,
        row: u64,
        takes: Duration,
    },
    Begin,
    Commit,
    Rollback,
    FlushWithReadLock,
    UnlockTables,
}

/// What a statement that succeeded came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// Whether the lock was got, or released; none if there was none.
    Locked(Option<bool>),
    /// A `SLEEP` that was ended before its time.
    Interrupted,
}

pub type Outcome = Result<Answer, ServerError>;

/// A statement under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    order: u64,
    operation: Operation,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Asked,
    /// Goes on at that time.
    Until(Duration),
    /// A read-only that waits for whoever writes.
    Closing,
    /// Waits for the acknowledgement of its last transaction, at this place in the log.
    Acknowledging(usize),
    Ended(Outcome),
}

const fn done() -> Stage {
    Stage::Ended(Ok(Answer::Done))
}

impl Operation {
    /// What a statement of the daemons' comes to on a server of this kind.
    ///
    /// # Errors
    /// 1064 where this kind has no such statement.
    pub fn of(kind: Kind, statement: &Statement) -> Result<Vec<Operation>, ServerError> {
        let unknown = |what: &str| Err(error(code::UNKNOWN_STATEMENT, what));
        let threads = |receiver, applier| vec![Operation::Threads { receiver, applier }];
        Ok(match statement {
            Statement::Fence => match kind {
                Kind::Mysql => vec![Operation::Access(Access::SuperReadOnly)],
                Kind::Mariadb => vec![
                    Operation::Access(Access::ReadOnly),
                    Operation::EventScheduler(false),
                ],
            },
            Statement::MakeWriteable => vec![Operation::Access(Access::Writable)],
            Statement::MakeReadOnly { super_read_only } => {
                vec![Operation::Access(match (kind, super_read_only) {
                    (Kind::Mysql, true) => Access::SuperReadOnly,
                    (Kind::Mysql, false) | (Kind::Mariadb, _) => Access::ReadOnly,
                })]
            }
            Statement::KillClients { .. } => {
                return unknown("killing clients is a loop of the adapter's");
            }
            Statement::StopIoThread => threads(Some(false), None),
            Statement::StartIoThread => threads(Some(true), None),
            Statement::StopSqlThread => threads(None, Some(false)),
            Statement::StartSqlThread => threads(None, Some(true)),
            Statement::StopReplication => threads(Some(false), Some(false)),
            Statement::StartReplication => threads(Some(true), Some(true)),
            Statement::ChangeSource {
                source,
                position,
                options,
            } => {
                let position = match (kind, position) {
                    (Kind::Mysql, SourcePosition::OracleAuto)
                    | (Kind::Mariadb, SourcePosition::MariadbSlavePos) => Some(Position::Gtid),
                    (Kind::Mysql, SourcePosition::OracleKept) => None,
                    (Kind::Mysql, SourcePosition::MariadbSlavePos)
                    | (Kind::Mariadb, SourcePosition::OracleAuto | SourcePosition::OracleKept) => {
                        return unknown("no such option");
                    }
                };
                let mut change = Change {
                    host: Some(source.host.clone()),
                    port: Some(source.port),
                    position,
                    // The model's machines trust each other.
                    user: Some("repl".to_owned()),
                    ..Change::default()
                };
                for (name, literal) in options {
                    change.option(name, literal);
                }
                if position.is_none() {
                    // Left as they are while the applier runs, as the adapter leaves them.
                    change.options.retain(|(name, _)| name != "DELAY");
                }
                vec![Operation::Change(change)]
            }
            Statement::ResetReplicaAll => vec![Operation::ResetReplicaAll],
            Statement::SetGtidSlavePos { position } => match kind {
                Kind::Mariadb => vec![Operation::GtidSlavePos(position.clone())],
                Kind::Mysql => return unknown("no such variable"),
            },
            Statement::SemiSyncSource { enabled } => vec![Operation::SemiSyncSource(*enabled)],
            Statement::SemiSyncReplica { enabled } => vec![Operation::SemiSyncReplica(*enabled)],
            Statement::RunHook { .. } => return unknown("a hook is nothing for a server"),
        })
    }
}

impl Server {
    /// A session asks for something; the answer is to be taken with [`Server::take_outcome`]. A session asks for one thing
    /// at a time.
    pub fn ask(&mut self, session: u64, operation: Operation, now: Duration) {
        self.asked_ever += 1;
        let order = self.asked_ever;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.in_flight = Some(InFlight {
                order,
                operation,
                stage: Stage::Asked,
            });
        }
        self.proceed(now);
    }

    /// The answer to what a session asked for, once there is one.
    pub fn take_outcome(&mut self, session: u64) -> Option<Outcome> {
        let session = self.sessions.get_mut(&session)?;
        let in_flight = session
            .in_flight
            .take_if(|in_flight| matches!(in_flight.stage, Stage::Ended(_)))?;
        match in_flight.stage {
            Stage::Ended(outcome) => Some(outcome),
            Stage::Asked | Stage::Until(_) | Stage::Closing | Stage::Acknowledging(_) => None,
        }
    }

    /// Whether a session has a statement under way.
    #[must_use]
    pub fn is_busy(&self, session: u64) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.in_flight.is_some())
    }

    /// Whether an answer can be taken.
    #[must_use]
    pub fn is_answered(&self, session: u64) -> bool {
        self.sessions.get(&session).is_some_and(|session| {
            session
                .in_flight
                .as_ref()
                .is_some_and(|in_flight| matches!(in_flight.stage, Stage::Ended(_)))
        })
    }

    /// Executes a statement of the daemons' that need not wait for anything.
    ///
    /// # Errors
    /// As the server refuses it; 1205 when it would have to wait.
    pub fn execute(&mut self, statement: &Statement, now: Duration) -> Result<(), ServerError> {
        let session = self.log_in(Account::Orchestrator);
        let mut ended = Ok(());
        for operation in Operation::of(self.kind, statement)? {
            self.ask(session, operation, now);
            ended = match self.take_outcome(session) {
                Some(outcome) => outcome.map(|_| ()),
                None => Err(error(1205, "it has to wait")),
            };
            if ended.is_err() {
                break;
            }
        }
        self.log_out(session);
        ended
    }

    /// An application writes and commits, in no time and without waiting for acknowledgements.
    ///
    /// # Errors
    /// 1290 while the server is read-only: the account has DML rights only.
    pub fn write(&mut self, write: u64, now: Duration) -> Result<TransactionId, ServerError> {
        self.may_write(&Account::Application(String::new()))?;
        let place = self.log_own(Table::Ledger, write, now);
        self.release(place);
        Ok(self.binlog[place].id)
    }

    fn may_write(&self, account: &Account) -> Result<(), ServerError> {
        let privileged = match (self.kind, account) {
            (_, Account::Orchestrator) => true,
            (_, Account::Replication(_)) => false,
            (Kind::Mysql, Account::Application(user)) => {
                self.holds_any(user, &["SUPER", "CONNECTION_ADMIN"])
            }
            (Kind::Mariadb, Account::Application(user)) => {
                self.holds_any(user, &["READ_ONLY ADMIN"])
            }
        };
        match (self.access, privileged) {
            (Access::Writable, _) | (Access::ReadOnly, true) => Ok(()),
            (Access::ReadOnly | Access::SuperReadOnly, _) => Err(error(
                code::READ_ONLY,
                format!(
                    "The {} server is running with the --{} option so it cannot execute this statement",
                    match self.kind {
                        Kind::Mysql => "MySQL",
                        Kind::Mariadb => "MariaDB",
                    },
                    if self.access == Access::SuperReadOnly {
                        "super-read-only"
                    } else {
                        "read-only"
                    }
                ),
            )),
        }
    }

    /// How many sessions wait to make the server read-only.
    pub(super) fn closing(&self) -> usize {
        self.sessions
            .values()
            .filter_map(|session| session.in_flight.as_ref())
            .filter(|in_flight| in_flight.stage == Stage::Closing)
            .count()
    }

    /// What MySQL's `@@super_read_only` says: it runs ahead of a statement that is waited for, and `@@read_only` does not.
    #[must_use]
    pub fn says_super_read_only(&self) -> bool {
        self.access == Access::SuperReadOnly
            || self.sessions.values().any(|session| {
                session.in_flight.as_ref().is_some_and(|in_flight| {
                    in_flight.stage == Stage::Closing
                        && in_flight.operation == Operation::Access(Access::SuperReadOnly)
                })
            })
    }

    /// Somebody is in the middle of a write.
    fn is_written_to(&self) -> bool {
        !self.unacknowledged.is_empty()
            || self.sessions.values().any(|session| {
                session.in_flight.as_ref().is_some_and(|in_flight| {
                    matches!(
                        (&in_flight.operation, &in_flight.stage),
                        (Operation::Write { .. }, Stage::Until(_))
                    )
                })
            })
    }

    /// A read lock of another session, or a read-only that is waited for.
    fn writes_wait(&self, session: u64) -> bool {
        self.is_closing()
            || self
                .sessions
                .iter()
                .any(|(id, other)| *id != session && other.read_lock)
    }

    /// Carries on whatever can be. True: something came of it.
    pub fn proceed(&mut self, now: Duration) -> bool {
        let mut moved = false;
        loop {
            let mut more = self.time_passes(now);
            let works = match self.process {
                Process::Running | Process::Stopping(_) => true,
                Process::Frozen | Process::Killed => false,
            };
            if works {
                let mut asked: Vec<(u64, u64)> = self
                    .sessions
                    .iter()
                    .filter_map(|(id, session)| {
                        let in_flight = session.in_flight.as_ref()?;
                        (!matches!(in_flight.stage, Stage::Ended(_)))
                            .then_some((in_flight.order, *id))
                    })
                    .collect();
                asked.sort_unstable();
                for (_, session) in asked {
                    more |= self.carry_on(session, now);
                }
            }
            if !more {
                return moved;
            }
            moved = true;
        }
    }

    /// When [`Server::proceed`] has something to do although nothing happens.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        if self.process == Process::Frozen {
            return None;
        }
        let statements =
            self.sessions
                .values()
                .filter_map(|session| match session.in_flight.as_ref()?.stage {
                    Stage::Until(at) => Some(at),
                    Stage::Asked | Stage::Closing | Stage::Acknowledging(_) | Stage::Ended(_) => {
                        None
                    }
                });
        let acknowledgement = self
            .unacknowledged
            .values()
            .min()
            .map(|since| *since + self.semi_sync.timeout);
        let stop = match self.process {
            Process::Stopping(since) => {
                let (dumps, all) = self.stop_times(since);
                Some(dumps.min(all))
            }
            Process::Running | Process::Frozen | Process::Killed => None,
        };
        statements.chain(acknowledgement).chain(stop).min()
    }

    fn time_passes(&mut self, now: Duration) -> bool {
        if self.process == Process::Frozen || self.process == Process::Killed {
            return false;
        }
        let timeout = self.semi_sync.timeout;
        if self
            .unacknowledged
            .values()
            .any(|since| *since + timeout <= now)
        {
            self.semi_sync_status = false;
            self.release_unacknowledged();
            return true;
        }
        if let Process::Stopping(since) = self.process {
            let (dumps, all) = self.stop_times(since);
            if all <= now {
                self.kill();
                return true;
            }
            let attached: Vec<u64> = self.replicas().map(|(id, _)| id).collect();
            if dumps <= now && !attached.is_empty() {
                for session in attached {
                    self.log_out(session);
                }
                // Whoever is left has the rest of the time.
                self.process = Process::Stopping(dumps);
                return true;
            }
        }
        false
    }

    /// One step of one statement. True: something came of it.
    fn carry_on(&mut self, session: u64, now: Duration) -> bool {
        let Some(mut in_flight) = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.in_flight.take())
        else {
            return false;
        };
        let before = in_flight.stage.clone();
        in_flight.stage = self.stage(session, &in_flight.operation, before.clone(), now);
        let moved = in_flight.stage != before;
        // A session may have ended itself.
        if let Some(session) = self.sessions.get_mut(&session) {
            session.in_flight = Some(in_flight);
        }
        moved
    }

    fn stage(&mut self, session: u64, operation: &Operation, stage: Stage, now: Duration) -> Stage {
        if let Stage::Acknowledging(place) = stage {
            let waits = self.unacknowledged.range(..=place).next_back().is_some();
            return if waits { stage } else { done() };
        }
        let ended = |result: Result<(), ServerError>| Stage::Ended(result.map(|()| Answer::Done));
        match operation {
            Operation::Access(Access::Writable) => {
                self.set_access(Access::Writable, now);
                done()
            }
            Operation::Access(access) => {
                if self.is_written_to() {
                    return Stage::Closing;
                }
                self.set_access(*access, now);
                done()
            }
            Operation::EventScheduler(on) => {
                self.event_scheduler = *on;
                done()
            }
            Operation::Offline(on) => {
                self.offline = *on;
                if *on {
                    self.drop_ordinary_sessions();
                }
                done()
            }
            Operation::SemiSyncSource(on) => {
                self.semi_sync.source_enabled = *on;
                self.semi_sync_status = *on;
                if !*on {
                    self.release_unacknowledged();
                }
                done()
            }
            Operation::SemiSyncReplica(on) => {
                self.semi_sync.replica_enabled = *on;
                done()
            }
            Operation::SemiSyncTimeout(timeout) => {
                self.semi_sync.timeout = *timeout;
                done()
            }
            Operation::SemiSyncCount(count) => {
                self.semi_sync.count = *count;
                done()
            }
            Operation::SemiSyncPoint { after_sync } => {
                self.semi_sync.after_sync = *after_sync;
                done()
            }
            Operation::GtidSlavePos(position) => ended(self.set_gtid_slave_pos(position)),
            Operation::Threads { receiver, applier } => {
                self.threads_stage(*receiver, *applier, stage, now)
            }
            Operation::Change(change) => ended(self.change_source(change)),
            Operation::ResetReplicaAll => ended(self.reset_replica()),
            Operation::Kill(other) => ended(self.kill_session(*other)),
            Operation::KillUser(user) => {
                let meant: Vec<u64> = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| {
                        matches!(&session.account, Account::Application(name) if name == user)
                    })
                    .map(|(id, _)| *id)
                    .collect();
                for id in meant {
                    self.kill_session_now(id);
                }
                done()
            }
            Operation::GetLock { name, within } => {
                let until = match stage {
                    Stage::Until(at) => at,
                    _ => now + *within,
                };
                if self.get_lock(name, session) {
                    Stage::Ended(Ok(Answer::Locked(Some(true))))
                } else if until <= now {
                    Stage::Ended(Ok(Answer::Locked(Some(false))))
                } else {
                    Stage::Until(until)
                }
            }
            Operation::ReleaseLock(name) => {
                let held = self.locks.get(name).map(|holder| *holder == session);
                if held == Some(true) {
                    self.locks.remove(name);
                }
                Stage::Ended(Ok(Answer::Locked(held)))
            }
            Operation::Sleep(duration) => match stage {
                Stage::Until(at) if at <= now => done(),
                Stage::Until(_) => stage,
                _ => Stage::Until(now + *duration),
            },
            Operation::Write { table, row, takes } => {
                self.write_stage(session, *table, *row, *takes, stage, now)
            }
            Operation::Begin => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.transaction = Some(Vec::new());
                }
                done()
            }
            Operation::Commit => self.commit_stage(session, now),
            Operation::Rollback => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.transaction = None;
                }
                done()
            }
            Operation::FlushWithReadLock => {
                if self.is_written_to() {
                    return Stage::Asked;
                }
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.read_lock = true;
                }
                done()
            }
            Operation::UnlockTables => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.read_lock = false;
                }
                done()
            }
        }
    }

    fn threads_stage(
        &mut self,
        receiver: Option<bool>,
        applier: Option<bool>,
        stage: Stage,
        now: Duration,
    ) -> Stage {
        if applier == Some(false) && self.applier_is_blocked() {
            return stage;
        }
        if receiver == Some(false) && self.kind == Kind::Mysql {
            match stage {
                Stage::Until(at) if now < at => return stage,
                Stage::Until(_) => {}
                _ => {
                    let silent = self.channel.as_ref().is_some_and(|channel| {
                        channel.receiver == Receiver::Connecting
                            && channel
                                .dialling
                                .is_some_and(|since| since + DIALS_AT_ONCE <= now)
                    });
                    if silent {
                        return Stage::Until(now + STOP_OF_SILENT_DIAL);
                    }
                }
            }
        }
        Stage::Ended(self.threads(receiver, applier).map(|()| Answer::Done))
    }

    fn set_gtid_slave_pos(&mut self, position: &GtidSet) -> Result<(), ServerError> {
        self.must_be_stopped()?;
        match (self.kind, position) {
            (Kind::Mariadb, GtidSet::Mariadb(_)) => {
                self.replicated = position.clone();
                Ok(())
            }
            _ => Err(error(code::UNKNOWN_VARIABLE, "no such variable")),
        }
    }

    fn write_stage(
        &mut self,
        session: u64,
        table: Table,
        row: u64,
        takes: Duration,
        stage: Stage,
        now: Duration,
    ) -> Stage {
        if let Stage::Until(at) = stage {
            if now < at {
                return stage;
            }
        } else {
            if self.writes_wait(session) {
                return Stage::Asked;
            }
            let Some(asking) = self.sessions.get(&session) else {
                return stage;
            };
            if let Err(refusal) = self.may_write(&asking.account) {
                return Stage::Ended(Err(refusal));
            }
            if table != Table::None && self.rows.contains(&(table, row)) {
                return Stage::Ended(Err(error(
                    code::DUPLICATE_KEY,
                    format!("Duplicate entry '{row}' for key 'PRIMARY'"),
                )));
            }
            if let Some(transaction) = self
                .sessions
                .get_mut(&session)
                .and_then(|session| session.transaction.as_mut())
            {
                transaction.push((table, row));
                return done();
            }
            if !takes.is_zero() {
                return Stage::Until(now + takes);
            }
        }
        self.log_rows(&[(table, row)], now)
    }

    fn commit_stage(&mut self, session: u64, now: Duration) -> Stage {
        let waits = self.writes_wait(session);
        let Some(asking) = self.sessions.get(&session) else {
            return Stage::Asked;
        };
        let rows = asking.transaction.clone().unwrap_or_default();
        if rows.is_empty() {
            return done();
        }
        if waits {
            return Stage::Asked;
        }
        let allowed = self.may_write(&asking.account);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.transaction = None;
        }
        match allowed {
            Ok(()) => self.log_rows(&rows, now),
            Err(refusal) => Stage::Ended(Err(refusal)),
        }
    }

    fn log_rows(&mut self, rows: &[(Table, u64)], now: Duration) -> Stage {
        let mut last = None;
        for (table, row) in rows {
            last = Some(self.log_own(*table, *row, now));
        }
        match last {
            Some(place) if self.unacknowledged.contains_key(&place) => Stage::Acknowledging(place),
            Some(_) | None => done(),
        }
    }

    /// `KILL`.
    ///
    /// # Errors
    /// 1094 when there is no such session.
    pub fn kill_session(&mut self, session: u64) -> Result<(), ServerError> {
        if !self.has_session(session) {
            return Err(error(
                code::NO_SUCH_THREAD,
                format!("Unknown thread id: {session}"),
            ));
        }
        self.kill_session_now(session);
        Ok(())
    }

    /// Answers a `SLEEP` that is in flight. False: there is none.
    pub(super) fn interrupt_sleep(&mut self, session: u64) -> bool {
        let in_flight = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.in_flight.as_mut())
            .filter(|in_flight| matches!(in_flight.operation, Operation::Sleep(_)));
        let Some(in_flight) = in_flight else {
            return false;
        };
        in_flight.stage = Stage::Ended(Ok(Answer::Interrupted));
        true
    }

    pub(super) fn kill_session_now(&mut self, session: u64) {
        let waited_for = self.sessions.get(&session).and_then(|session| {
            match session.in_flight.as_ref()?.stage {
                Stage::Acknowledging(place) => Some(place),
                Stage::Asked | Stage::Until(_) | Stage::Closing | Stage::Ended(_) => None,
            }
        });
        self.log_out(session);
        // MySQL's goes on waiting without its client.
        if let (Some(place), Kind::Mariadb) = (waited_for, self.kind) {
            self.release(place);
        }
    }

    /// What `offline_mode` does to those who are no administrators: replicas go too.
    fn drop_ordinary_sessions(&mut self) {
        let meant: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| !self.is_administrator(&session.account))
            .map(|(id, _)| *id)
            .collect();
        for session in meant {
            self.kill_session_now(session);
        }
    }
}
