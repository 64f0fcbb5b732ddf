//! One statement of a session: read, checked against the account's rights, carried out on the model, answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use orchestrator_core::gtid::{self, GtidSet};

use super::rights::{self, Act};
use super::syntax::{Comparison, Expression, Parser, Token, like};
use super::tables::{self, Rows, Value};
use crate::model::host::World;
use crate::model::replication::{Change, Position};
use crate::model::server::{Access, Server, ServerError, Table, code, error};
use crate::model::statement::{Answer, Operation};
use crate::model::{Host, Kind};

/// What a statement came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Done { affected: u64 },
    Rows(Rows),
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Stop {
    Refused(ServerError),
    /// The session is over.
    Over,
}

impl From<ServerError> for Stop {
    fn from(refusal: ServerError) -> Self {
        Stop::Refused(refusal)
    }
}

/// A session of a model server, as the protocol sees it.
#[derive(Debug)]
pub struct Conversation {
    pub host: Host,
    pub session: u64,
    pub user: String,
}

const DONE: Reply = Reply::Done { affected: 0 };
const NO_TIME: Duration = Duration::ZERO;

impl Conversation {
    /// Carries out one statement.
    ///
    /// # Errors
    /// The server's refusal, or that the session is over.
    pub async fn execute<E: World>(&self, text: &str, tokens: &[Token]) -> Result<Reply, Stop> {
        let mut parser = Parser::new(text, tokens);
        let kind = self.host.look(|server| server.kind);
        if parser.word("SELECT") {
            return self.select::<E>(parser).await;
        }
        if parser.word("DO") {
            let list = parser.list()?;
            parser.end()?;
            for (expression, _) in &list {
                self.evaluate::<E>(expression).await?;
            }
            return Ok(DONE);
        }
        if parser.word("SHOW") {
            return self.show::<E>(parser, kind).await;
        }
        if parser.word("SET") {
            return self.set::<E>(parser).await;
        }
        if parser.word("INSERT") {
            return self.insert::<E>(parser).await;
        }
        if parser.word("KILL") {
            return self.kill::<E>(parser, kind).await;
        }
        for (words, operation) in [
            ("BEGIN", Operation::Begin),
            ("START TRANSACTION", Operation::Begin),
            ("COMMIT", Operation::Commit),
            ("ROLLBACK", Operation::Rollback),
            ("UNLOCK TABLES", Operation::UnlockTables),
        ] {
            if parser.words(words) {
                parser.end()?;
                return self.done::<E>(operation).await;
            }
        }
        if parser.words("FLUSH TABLES WITH READ LOCK") {
            parser.end()?;
            self.allowed::<E>(Act::Reload).await?;
            return self.done::<E>(Operation::FlushWithReadLock).await;
        }
        // One file is all there is of a model's log: what a purge takes away is all but the open one, and that is empty.
        if parser.words("FLUSH BINARY LOGS") {
            parser.end()?;
            self.allowed::<E>(Act::Reload).await?;
            return Ok(DONE);
        }
        if parser.words("PURGE BINARY LOGS BEFORE") {
            parser.text_value()?;
            parser.end()?;
            self.allowed::<E>(Act::Administer).await?;
            self.host.change(Server::purge_logs);
            return Ok(DONE);
        }
        if kind == Kind::Mariadb && parser.words("RESET MASTER") {
            parser.end()?;
            self.allowed::<E>(Act::Reload).await?;
            self.host.change(Server::reset_log);
            return Ok(DONE);
        }
        if let Some(on) = [("START", true), ("STOP", false)]
            .into_iter()
            .find_map(|(word, on)| parser.word(word).then_some(on))
        {
            return self.threads::<E>(parser, kind, on).await;
        }
        if parser.word("RESET") {
            replica_word(&mut parser, kind)?;
            parser.expect_word("ALL")?;
            channel(&mut parser, kind)?;
            parser.end()?;
            self.allowed::<E>(Act::Reload).await?;
            return self.done::<E>(Operation::ResetReplicaAll).await;
        }
        if parser.word("CHANGE") {
            let change = change(&mut parser, kind)?;
            self.allowed::<E>(Act::Replication).await?;
            return self.done::<E>(Operation::Change(change)).await;
        }
        if parser.word("USE") {
            parser.name()?;
            parser.end()?;
            return Ok(DONE);
        }
        self.administer::<E>(parser).await
    }

    async fn perform<E: World>(&self, operation: Operation) -> Result<Answer, Stop> {
        let outcome = self.host.perform::<E>(self.session, operation).await;
        Ok(outcome.ok_or(Stop::Over)??)
    }

    async fn done<E: World>(&self, operation: Operation) -> Result<Reply, Stop> {
        self.perform::<E>(operation).await?;
        Ok(DONE)
    }

    async fn look<E: World, T>(
        &self,
        look: impl FnOnce(&Server, Duration) -> Result<T, ServerError> + Send,
    ) -> Result<T, Stop> {
        self.host.until_awake().await;
        let now = E::elapsed();
        Ok(self.host.look(|server| look(server, now))?)
    }

    async fn allowed<E: World>(&self, act: Act) -> Result<(), Stop> {
        self.look::<E, _>(|server, _| rights::check(server, &self.user, act))
            .await
    }

    // SELECT.

    async fn select<E: World>(&self, mut parser: Parser<'_>) -> Result<Reply, Stop> {
        let list = parser.list()?;
        if !parser.word("FROM") {
            if parser.word("LIMIT") {
                parser.number::<u64>()?;
            }
            parser.end()?;
            let mut row = Vec::new();
            for (expression, _) in &list {
                row.push(self.evaluate::<E>(expression).await?);
            }
            return Ok(Reply::Rows(Rows {
                columns: list.into_iter().map(|(_, name)| name).collect(),
                rows: vec![row],
            }));
        }
        let mut table = parser.name()?.to_ascii_lowercase();
        if parser.mark(".") {
            table = format!("{table}.{}", parser.name()?.to_ascii_lowercase());
        }
        let condition = if parser.word("WHERE") {
            Some(parser.expression()?)
        } else {
            None
        };
        parser.end()?;
        let rows = self
            .look::<E, _>(|server, now| {
                rights::check_table(server, &self.user, "SELECT", &table)?;
                let source = tables::named(server, &table, &self.user, now)?;
                project(self, server, &list, &source, condition.as_ref())
            })
            .await?;
        Ok(Reply::Rows(rows))
    }

    /// An expression without a table: calls that wait are made from left to right.
    async fn evaluate<E: World>(&self, expression: &Expression) -> Result<Value, Stop> {
        let mut calls = Vec::new();
        waiting(expression, &mut calls);
        let mut results = VecDeque::new();
        for (name, arguments) in calls {
            let mut values = Vec::new();
            for argument in arguments {
                values.push(
                    self.look::<E, _>(|server, _| Scope::bare(self, server).value(argument))
                        .await?
                        .unwrap_or_default(),
                );
            }
            let operation = match (name, values.as_slice()) {
                ("sleep", [seconds]) => Operation::Sleep(duration(seconds)),
                ("get_lock", [name, within]) => Operation::GetLock {
                    name: name.to_lowercase(),
                    within: duration(within),
                },
                ("release_lock", [name]) => Operation::ReleaseLock(name.to_lowercase()),
                _ => {
                    return Err(Stop::Refused(error(
                        1582,
                        format!("Incorrect parameter count in the call to '{name}'"),
                    )));
                }
            };
            results.push_back(match self.perform::<E>(operation).await? {
                Answer::Done => Some("0".to_owned()),
                Answer::Interrupted => Some("1".to_owned()),
                Answer::Locked(got) => got.map(|got| u8::from(got).to_string()),
            });
        }
        self.look::<E, _>(|server, _| {
            Scope {
                results: RefCell::new(results),
                ..Scope::bare(self, server)
            }
            .value(expression)
        })
        .await
    }

    // SHOW.

    async fn show<E: World>(&self, mut parser: Parser<'_>, kind: Kind) -> Result<Reply, Stop> {
        let mysql = kind == Kind::Mysql;
        let status = if mysql {
            parser.words("REPLICA STATUS").then_some(false)
        } else if parser.words("ALL SLAVES STATUS") {
            Some(true)
        } else {
            (parser.words("SLAVE STATUS") || parser.words("REPLICA STATUS")).then_some(false)
        };
        if let Some(all) = status {
            channel(&mut parser, kind)?;
            parser.end()?;
            self.allowed::<E>(Act::ShowReplicaStatus).await?;
            return self
                .rows::<E>(|server, now| tables::replica_status(server, all, now))
                .await;
        }
        if parser.words(if mysql { "REPLICAS" } else { "SLAVE HOSTS" }) {
            parser.end()?;
            self.allowed::<E>(Act::ShowReplicas).await?;
            return self.rows::<E>(|server, _| tables::replicas(server)).await;
        }
        if parser.words(if mysql {
            "BINARY LOG STATUS"
        } else {
            "MASTER STATUS"
        }) {
            parser.end()?;
            self.allowed::<E>(Act::ShowBinlogStatus).await?;
            return self
                .rows::<E>(|server, _| tables::binlog_status(server))
                .await;
        }
        if parser.words("BINARY LOGS") {
            parser.end()?;
            self.allowed::<E>(Act::ShowBinlogStatus).await?;
            return self
                .rows::<E>(|server, _| tables::binary_logs(server))
                .await;
        }
        if parser.word("GRANTS") {
            parser.end()?;
            return self
                .rows::<E>(|server, _| tables::grants(server, &self.user))
                .await;
        }
        if parser.words("FULL PROCESSLIST") || parser.word("PROCESSLIST") {
            parser.end()?;
            let look = |server: &Server, now| {
                tables::named(server, "information_schema.processlist", &self.user, now)
            };
            return Ok(Reply::Rows(self.look::<E, _>(look).await?));
        }
        if parser.word("WARNINGS") {
            parser.end()?;
            let nothing = tables::table(&["Level", "Code", "Message"], Vec::new());
            return Ok(Reply::Rows(nothing));
        }
        if !parser.word("GLOBAL") {
            parser.word("SESSION");
        }
        let are_variables = if parser.word("VARIABLES") {
            true
        } else if parser.word("STATUS") {
            false
        } else {
            return Err(Stop::Refused(
                parser
                    .fails::<()>()
                    .err()
                    .unwrap_or_else(|| error(code::UNKNOWN_STATEMENT, "no such SHOW")),
            ));
        };
        let condition = if parser.word("LIKE") {
            let pattern = parser.text_value()?;
            Some(Expression::Binary(
                Comparison::Like,
                Box::new(Expression::Column("Variable_name".to_owned())),
                Box::new(Expression::Literal(Some(pattern))),
            ))
        } else if parser.word("WHERE") {
            Some(parser.expression()?)
        } else {
            None
        };
        parser.end()?;
        let rows = self
            .look::<E, _>(|server, now| {
                let pairs = if are_variables {
                    tables::variables(server)
                } else {
                    tables::statuses(server, now)
                };
                let all = tables::table(
                    &["Variable_name", "Value"],
                    pairs
                        .into_iter()
                        .map(|(name, value)| vec![Some(name), value])
                        .collect(),
                );
                let list = ["Variable_name", "Value"]
                    .map(|name| (Expression::Column(name.to_owned()), name.to_owned()));
                project(self, server, &list, &all, condition.as_ref())
            })
            .await?;
        Ok(Reply::Rows(rows))
    }

    async fn rows<E: World>(
        &self,
        rows: impl FnOnce(&Server, Duration) -> Rows + Send,
    ) -> Result<Reply, Stop> {
        Ok(Reply::Rows(
            self.look::<E, _>(|server, now| Ok(rows(server, now)))
                .await?,
        ))
    }

    // SET.

    async fn set<E: World>(&self, mut parser: Parser<'_>) -> Result<Reply, Stop> {
        if parser.word("NAMES") {
            parser.value()?;
            return Ok(DONE);
        }
        loop {
            let (name, global) = parser.assigned()?;
            if !parser.mark("=") {
                parser.expect_mark(":=")?;
            }
            let (value, _) = parser.value()?;
            if global {
                self.set_global::<E>(&name, &value).await?;
            } else if name == "gtid_next" {
                self.look::<E, _>(|server, _| self.may_name(server, &value))
                    .await?;
            }
            if !parser.mark(",") {
                parser.end()?;
                return Ok(DONE);
            }
        }
    }

    /// Whether the next transaction may have this name.
    fn may_name(&self, server: &Server, name: &str) -> Result<(), ServerError> {
        if server.kind == Kind::Mariadb {
            let unknown = "Unknown system variable 'gtid_next'";
            return Err(error(code::UNKNOWN_VARIABLE, unknown));
        }
        if name.eq_ignore_ascii_case("automatic") {
            return Ok(());
        }
        let is_tagged = name.split(':').count() == 3;
        if is_tagged && !server.holds_any(&self.user, &["TRANSACTION_GTID_TAG"]) {
            let needed = "Access denied; you need the TRANSACTION_GTID_TAG privilege";
            return Err(error(code::NO_TAG, needed));
        }
        Err(error(
            code::NOT_SUPPORTED,
            "the model writes nothing under a name that it is given",
        ))
    }

    async fn set_global<E: World>(&self, name: &str, value: &str) -> Result<(), Stop> {
        // Unknown ones are refused before rights are looked at.
        self.look::<E, _>(|server, _| tables::variable(server, name).map(|_| ()))
            .await?;
        let wrong = || {
            Stop::Refused(error(
                1231,
                format!("Variable '{name}' can't be set to the value of '{value}'"),
            ))
        };
        let switch = || match value.to_ascii_lowercase().as_str() {
            "1" | "on" | "true" => Ok(true),
            "0" | "off" | "false" => Ok(false),
            _ => Err(wrong()),
        };
        let number = || value.parse::<u32>().map_err(|_| wrong());
        let (act, operation) = match name {
            "read_only" => {
                let before = self.host.look(Server::access);
                let access = match (switch()?, before) {
                    (false, _) => Access::Writable,
                    (true, Access::SuperReadOnly) => Access::SuperReadOnly,
                    (true, Access::Writable | Access::ReadOnly) => Access::ReadOnly,
                };
                (Act::SetReadOnly, Operation::Access(access))
            }
            "super_read_only" => {
                let before = self.host.look(Server::access);
                let access = match (switch()?, before) {
                    (true, _) => Access::SuperReadOnly,
                    (false, Access::Writable) => Access::Writable,
                    (false, Access::ReadOnly | Access::SuperReadOnly) => Access::ReadOnly,
                };
                (Act::SetReadOnly, Operation::Access(access))
            }
            "event_scheduler" => (Act::SetOther, Operation::EventScheduler(switch()?)),
            "offline_mode" => (Act::SetOther, Operation::Offline(switch()?)),
            "rpl_semi_sync_source_enabled" | "rpl_semi_sync_master_enabled" => {
                (Act::SetSemiSyncSource, Operation::SemiSyncSource(switch()?))
            }
            "rpl_semi_sync_replica_enabled" | "rpl_semi_sync_slave_enabled" => (
                Act::SetSemiSyncReplica,
                Operation::SemiSyncReplica(switch()?),
            ),
            "rpl_semi_sync_source_timeout" | "rpl_semi_sync_master_timeout" => (
                Act::SetSemiSyncSource,
                Operation::SemiSyncTimeout(Duration::from_millis(u64::from(number()?))),
            ),
            "rpl_semi_sync_source_wait_for_replica_count" => {
                (Act::SetSemiSyncSource, Operation::SemiSyncCount(number()?))
            }
            "rpl_semi_sync_source_wait_point" | "rpl_semi_sync_master_wait_point" => (
                Act::SetSemiSyncSource,
                Operation::SemiSyncPoint {
                    after_sync: match value.to_ascii_uppercase().as_str() {
                        "AFTER_SYNC" => true,
                        "AFTER_COMMIT" => false,
                        _ => return Err(wrong()),
                    },
                },
            ),
            "gtid_slave_pos" => {
                let set = GtidSet::parse(gtid::Flavour::Mariadb, value).map_err(|_| wrong())?;
                (Act::SetSlavePosition, Operation::GtidSlavePos(set))
            }
            _ => {
                self.allowed::<E>(Act::SetOther).await?;
                return Err(Stop::Refused(error(
                    1238,
                    format!("Variable '{name}' is a read only variable"),
                )));
            }
        };
        self.allowed::<E>(act).await?;
        self.perform::<E>(operation).await?;
        Ok(())
    }

    // Rows.

    async fn insert<E: World>(&self, mut parser: Parser<'_>) -> Result<Reply, Stop> {
        parser.expect_word("INTO")?;
        let schema = parser.name()?;
        parser.expect_mark(".")?;
        let name = parser.name()?;
        let table = format!("{schema}.{name}").to_ascii_lowercase();
        if parser.mark("(") {
            parser.name()?;
            while parser.mark(",") {
                parser.name()?;
            }
            parser.expect_mark(")")?;
        }
        let mut takes = NO_TIME;
        let mut values = Vec::new();
        if parser.word("VALUES") {
            loop {
                parser.expect_mark("(")?;
                let mut row = vec![parser.value()?.0];
                while parser.mark(",") {
                    row.push(parser.value()?.0);
                }
                parser.expect_mark(")")?;
                values.push(row);
                if !parser.mark(",") {
                    break;
                }
            }
        } else {
            parser.expect_word("SELECT")?;
            parser.expect_word("SLEEP")?;
            parser.expect_mark("(")?;
            takes = duration(&parser.value()?.0);
            parser.expect_mark(")")?;
            values.push(Vec::new());
        }
        parser.end()?;
        self.look::<E, _>(|server, _| rights::check_table(server, &self.user, "INSERT", &table))
            .await?;
        for row in &values {
            let (table, row) = match (table.as_str(), row.as_slice()) {
                ("app.ledger", [client, number]) => {
                    let row = client
                        .parse()
                        .ok()
                        .zip(number.parse().ok())
                        .and_then(|(client, number)| tables::ledger_row(client, number));
                    let row = row.ok_or_else(|| {
                        Stop::Refused(error(1264, "Out of range value for a column"))
                    })?;
                    (Table::Ledger, row)
                }
                ("app.note", _) => (Table::Note, self.host.change(Server::next_note)),
                ("app.ledger", _) => {
                    return Err(Stop::Refused(error(
                        1136,
                        "Column count doesn't match value count at row 1",
                    )));
                }
                _ => {
                    return Err(Stop::Refused(error(
                        1146,
                        format!("Table '{table}' doesn't exist"),
                    )));
                }
            };
            self.perform::<E>(Operation::Write { table, row, takes })
                .await?;
        }
        Ok(Reply::Done {
            affected: values.len() as u64,
        })
    }

    async fn kill<E: World>(&self, mut parser: Parser<'_>, kind: Kind) -> Result<Reply, Stop> {
        if kind == Kind::Mariadb && parser.word("USER") {
            let user = parser.value()?.0;
            parser.end()?;
            self.allowed::<E>(Act::SetOther).await?;
            return self.done::<E>(Operation::KillUser(user)).await;
        }
        parser.word("CONNECTION");
        let session: u64 = parser.number()?;
        parser.end()?;
        let administers = ["SUPER", "CONNECTION ADMIN", "CONNECTION_ADMIN"];
        self.look::<E, _>(|server, _| {
            let own = server
                .sessions
                .get(&session)
                .is_none_or(|other| tables::user_of(&other.account) == self.user);
            if own || server.holds_any(&self.user, &administers) {
                Ok(())
            } else {
                Err(error(
                    1095,
                    format!("You are not owner of thread {session}"),
                ))
            }
        })
        .await?;
        self.done::<E>(Operation::Kill(session)).await
    }

    async fn threads<E: World>(
        &self,
        mut parser: Parser<'_>,
        kind: Kind,
        on: bool,
    ) -> Result<Reply, Stop> {
        replica_word(&mut parser, kind)?;
        let (receiver, applier) = if parser.word("IO_THREAD") {
            (Some(on), None)
        } else if parser.word("SQL_THREAD") {
            (None, Some(on))
        } else {
            (Some(on), Some(on))
        };
        channel(&mut parser, kind)?;
        parser.end()?;
        self.allowed::<E>(Act::Replication).await?;
        self.done::<E>(Operation::Threads { receiver, applier })
            .await
    }

    /// Accounts and definitions. Definitions are written to the log and forgotten: the model has its tables.
    async fn administer<E: World>(&self, mut parser: Parser<'_>) -> Result<Reply, Stop> {
        let mut created = None;
        let mut granted = None;
        if parser.words("CREATE USER") {
            parser.words("IF NOT EXISTS");
            let user = account(&mut parser)?;
            let mut password = String::new();
            if parser.words("IDENTIFIED BY") {
                password = parser.text_value()?;
            }
            parser.end()?;
            created = Some((user, password));
        } else if parser.word("GRANT") {
            granted = Some(grant(&mut parser)?);
        } else if !(parser.words("CREATE DATABASE") || parser.words("CREATE TABLE")) {
            return Err(Stop::Refused(parser.fails::<()>().err().unwrap_or_else(
                || error(code::UNKNOWN_STATEMENT, "no such statement"),
            )));
        }
        self.allowed::<E>(Act::Administer).await?;
        let write = Operation::Write {
            table: Table::None,
            row: 0,
            takes: NO_TIME,
        };
        self.perform::<E>(write).await?;
        self.host.change(|server| {
            if let Some((user, password)) = &created {
                server.create_user(user, password);
            }
            if let Some((user, rights)) = &granted {
                server.grant(user, rights.iter().map(String::as_str));
            }
        });
        Ok(DONE)
    }
}

/// Gives a server's accounts what statements of CREATE USER and GRANT say, as a template of its data would have it.
///
/// # Errors
/// The statement that is none of these.
pub fn prepare(server: &mut Server, statement: &str) -> Result<(), ServerError> {
    for tokens in super::syntax::statements(statement) {
        let tokens = tokens?;
        let mut parser = Parser::new(statement, &tokens);
        if parser.words("CREATE USER") {
            parser.words("IF NOT EXISTS");
            let user = account(&mut parser)?;
            parser.expect_word("IDENTIFIED")?;
            parser.expect_word("BY")?;
            let password = parser.text_value()?;
            parser.end()?;
            server.create_user(&user, &password);
        } else if parser.word("GRANT") {
            let (user, rights) = grant(&mut parser)?;
            server.grant(&user, rights.iter().map(String::as_str));
        } else {
            return parser.fails();
        }
    }
    Ok(())
}

fn replica_word(parser: &mut Parser<'_>, kind: Kind) -> Result<(), ServerError> {
    let known = match kind {
        Kind::Mysql => parser.word("REPLICA"),
        Kind::Mariadb => parser.word("SLAVE") || parser.word("REPLICA"),
    };
    if known { Ok(()) } else { parser.fails() }
}

fn channel(parser: &mut Parser<'_>, kind: Kind) -> Result<(), ServerError> {
    if kind == Kind::Mysql && parser.words("FOR CHANNEL") {
        let name = parser.text_value()?;
        if !name.is_empty() {
            return Err(error(3074, format!("Channel '{name}' does not exist")));
        }
    }
    Ok(())
}

fn change(parser: &mut Parser<'_>, kind: Kind) -> Result<Change, ServerError> {
    let words = match kind {
        Kind::Mysql => "REPLICATION SOURCE TO",
        Kind::Mariadb => "MASTER TO",
    };
    if !parser.words(words) {
        return parser.fails();
    }
    let mut change = Change::default();
    loop {
        let name = parser.name()?.to_ascii_uppercase();
        parser.expect_mark("=")?;
        let (value, literal) = parser.value()?;
        let wrong = || error(code::UNKNOWN_STATEMENT, format!("{name}={literal}"));
        match (kind, name.as_str()) {
            (Kind::Mysql, "SOURCE_HOST") | (Kind::Mariadb, "MASTER_HOST") => {
                change.host = Some(value);
            }
            (Kind::Mysql, "SOURCE_PORT") | (Kind::Mariadb, "MASTER_PORT") => {
                change.port = Some(value.parse().map_err(|_| wrong())?);
            }
            (Kind::Mysql, "SOURCE_USER") | (Kind::Mariadb, "MASTER_USER") => {
                change.user = Some(value);
            }
            (Kind::Mysql, "SOURCE_PASSWORD") | (Kind::Mariadb, "MASTER_PASSWORD") => {
                change.password = Some(value);
            }
            (Kind::Mysql, "SOURCE_AUTO_POSITION") => {
                change.position = Some(match value.as_str() {
                    "1" => Position::Gtid,
                    "0" => Position::File,
                    _ => return Err(wrong()),
                });
            }
            (Kind::Mariadb, "MASTER_USE_GTID") => {
                change.position = Some(match value.to_ascii_lowercase().as_str() {
                    "slave_pos" => Position::Gtid,
                    "no" => Position::File,
                    _ => return Err(wrong()),
                });
            }
            (_, "RELAY_LOG_FILE" | "RELAY_LOG_POS") => change.keeps_relay_log = true,
            (Kind::Mysql, other)
                if other.starts_with("SOURCE_") || other == "GET_SOURCE_PUBLIC_KEY" =>
            {
                change.option(other, &literal);
            }
            (Kind::Mariadb, other) if other.starts_with("MASTER_") => {
                change.option(other, &literal);
            }
            (_, other) if crate::model::replication::PLAIN_OPTIONS.contains(&other) => {
                change.option(other, &literal);
            }
            _ => return Err(wrong()),
        }
        if !parser.mark(",") {
            break;
        }
    }
    channel(parser, kind)?;
    parser.end()?;
    Ok(change)
}

/// `'user'@'host'`: the user. The model lets users in from anywhere.
fn account(parser: &mut Parser<'_>) -> Result<String, ServerError> {
    let (user, _) = parser.value()?;
    if parser.mark("@") {
        parser.value()?;
    }
    Ok(user)
}

/// The user, and rights by name; those on less than everything with the place.
fn grant(parser: &mut Parser<'_>) -> Result<(String, Vec<String>), ServerError> {
    let mut rights = Vec::new();
    loop {
        let mut right = parser.name()?.to_ascii_uppercase();
        while !parser.mark(",") {
            if parser.word("ON") {
                rights.push(right);
                let everywhere = parser.mark("*");
                let schema = if everywhere {
                    String::new()
                } else {
                    parser.name()?.to_ascii_lowercase()
                };
                parser.expect_mark(".")?;
                let table = if parser.mark("*") {
                    "*".to_owned()
                } else {
                    parser.name()?.to_ascii_lowercase()
                };
                parser.expect_word("TO")?;
                let user = account(parser)?;
                parser.words("WITH GRANT OPTION");
                parser.end()?;
                if !everywhere {
                    for right in &mut rights {
                        *right = format!("{right} ON {schema}.{table}");
                    }
                }
                return Ok((user, rights));
            }
            right = format!("{right} {}", parser.name()?.to_ascii_uppercase());
        }
        rights.push(right);
    }
}

fn duration(seconds: &str) -> Duration {
    let seconds: f64 = seconds.parse().unwrap_or(0.0);
    // A lock that is waited for without end is waited for a day.
    let seconds = if seconds < 0.0 { 86_400.0 } else { seconds };
    Duration::try_from_secs_f64(seconds.min(31_536_000.0)).unwrap_or_default()
}

/// Calls that may have to wait, from left to right.
fn waiting<'a>(expression: &'a Expression, calls: &mut Vec<(&'a str, &'a [Expression])>) {
    match expression {
        Expression::Call(name, arguments) => {
            if ["sleep", "get_lock", "release_lock"].contains(&name.as_str()) {
                calls.push((name, arguments));
            } else {
                for argument in arguments {
                    waiting(argument, calls);
                }
            }
        }
        Expression::Binary(_, left, right) | Expression::And(left, right) => {
            waiting(left, calls);
            waiting(right, calls);
        }
        Expression::Any(left, any) => {
            waiting(left, calls);
            for one in any {
                waiting(one, calls);
            }
        }
        Expression::Literal(_)
        | Expression::Variable(_)
        | Expression::Column(_)
        | Expression::CountAll => {}
    }
}

/// What an expression is evaluated in.
struct Scope<'a> {
    conversation: &'a Conversation,
    server: &'a Server,
    /// Of calls that were made beforehand.
    results: RefCell<VecDeque<Value>>,
    columns: &'a [String],
    row: Option<&'a [Value]>,
    /// All rows, for what is counted over them.
    all: &'a [Vec<Value>],
}

impl<'a> Scope<'a> {
    fn bare(conversation: &'a Conversation, server: &'a Server) -> Self {
        Scope {
            conversation,
            server,
            results: RefCell::default(),
            columns: &[],
            row: None,
            all: &[],
        }
    }

    fn value(&self, expression: &Expression) -> Result<Value, ServerError> {
        let truth = |truth: bool| Some(u8::from(truth).to_string());
        Ok(match expression {
            Expression::Literal(value) => value.clone(),
            Expression::Variable(name) => tables::variable(self.server, name)?,
            Expression::CountAll => Some(self.all.len().to_string()),
            Expression::Column(name) => self
                .row
                .and_then(|row| tables::cell(self.columns, row, name))
                .cloned()
                .ok_or_else(|| error(1054, format!("Unknown column '{name}'")))?,
            Expression::Call(name, arguments) => self.call(name, arguments)?,
            Expression::And(left, right) => {
                let both = is_true(&self.value(left)?) && is_true(&self.value(right)?);
                truth(both)
            }
            Expression::Binary(comparison, left, right) => {
                match (self.value(left)?, self.value(right)?) {
                    (Some(left), Some(right)) => truth(compare(*comparison, &left, &right)),
                    _ => None,
                }
            }
            Expression::Any(left, any) => {
                let Some(left) = self.value(left)? else {
                    return Ok(None);
                };
                let mut found = false;
                for one in any {
                    let one = self.value(one)?;
                    found |= one.is_some_and(|one| compare(Comparison::Equal, &left, &one));
                }
                truth(found)
            }
        })
    }

    fn call(&self, name: &str, arguments: &[Expression]) -> Result<Value, ServerError> {
        let unknown = || error(1305, format!("FUNCTION {name} does not exist"));
        let first = || -> Result<String, ServerError> {
            let argument = arguments.first().ok_or_else(unknown)?;
            Ok(self.value(argument)?.unwrap_or_default())
        };
        Ok(match name {
            "sleep" | "get_lock" | "release_lock" => {
                self.results.borrow_mut().pop_front().flatten()
            }
            "connection_id" => Some(self.conversation.session.to_string()),
            "is_used_lock" => self
                .server
                .lock_holder(&first()?.to_lowercase())
                .map(|holder| holder.to_string()),
            "is_free_lock" => {
                let free = self.server.lock_holder(&first()?.to_lowercase()).is_none();
                Some(u8::from(free).to_string())
            }
            "version" => Some(self.server.kind.version().to_owned()),
            "user" | "current_user" => Some(format!("{}@%", self.conversation.user)),
            "database" | "schema" => None,
            // No account has roles.
            "current_role" => match self.server.kind {
                Kind::Mysql => Some(String::from("NONE")),
                Kind::Mariadb => None,
            },
            "max" => {
                let argument = arguments.first().ok_or_else(unknown)?;
                let mut greatest: Value = None;
                for row in self.all {
                    let scope = Scope {
                        row: Some(row),
                        results: RefCell::default(),
                        ..*self
                    };
                    greatest = greatest.max(scope.value(argument)?);
                }
                greatest
            }
            _ => return Err(unknown()),
        })
    }
}

fn is_true(value: &Value) -> bool {
    value
        .as_deref()
        .is_some_and(|text| text.parse::<f64>().is_ok_and(|number| number != 0.0))
}

fn compare(comparison: Comparison, left: &str, right: &str) -> bool {
    let order = match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right),
        _ => Some(left.to_lowercase().cmp(&right.to_lowercase())),
    };
    match comparison {
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Unequal => order.is_some_and(std::cmp::Ordering::is_ne),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::Like => like(right, left),
    }
}

fn counts(expression: &Expression) -> bool {
    match expression {
        Expression::CountAll => true,
        Expression::Call(name, arguments) => name == "max" || arguments.iter().any(counts),
        Expression::Binary(_, left, right) | Expression::And(left, right) => {
            counts(left) || counts(right)
        }
        Expression::Any(left, any) => counts(left) || any.iter().any(counts),
        Expression::Literal(_) | Expression::Variable(_) | Expression::Column(_) => false,
    }
}

/// The select list over the rows that the condition lets through.
fn project(
    conversation: &Conversation,
    server: &Server,
    list: &[(Expression, String)],
    source: &Rows,
    condition: Option<&Expression>,
) -> Result<Rows, ServerError> {
    let mut kept = Vec::new();
    for row in &source.rows {
        let scope = Scope {
            columns: &source.columns,
            row: Some(row),
            ..Scope::bare(conversation, server)
        };
        let keep = match condition {
            None => true,
            Some(condition) => is_true(&scope.value(condition)?),
        };
        if keep {
            kept.push(row.clone());
        }
    }
    if let [(Expression::Column(star), _)] = list
        && star == "*"
    {
        return Ok(Rows {
            columns: source.columns.clone(),
            rows: kept,
        });
    }
    let columns = list.iter().map(|(_, name)| name.clone()).collect();
    let scope = |row| Scope {
        columns: &source.columns,
        row,
        all: &kept,
        ..Scope::bare(conversation, server)
    };
    let project = |row| {
        list.iter()
            .map(|(expression, _)| scope(row).value(expression))
            .collect::<Result<Vec<Value>, ServerError>>()
    };
    let rows = if list.iter().any(|(expression, _)| counts(expression)) {
        vec![project(kept.first().map(Vec::as_slice))?]
    } else {
        kept.iter()
            .map(|row| project(Some(row)))
            .collect::<Result<_, _>>()?
    };
    Ok(Rows { columns, rows })
}
