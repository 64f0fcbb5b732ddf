//! The backend as a schema of a MySQL or MariaDB server.
//!
//! One connection, texts only, several statements a round trip: rows go out as inserts of many rows. The session is in UTC,
//! in a mode in which a value that does not fit is cut and no row is refused for it: what is shown to people must not stop
//! what is written for them. Nothing is left to the server's clock, defaults or counters.
//!
//! The schema is made by the same numbered migrations as a SQLite file's. Data definition commits by itself here, so each
//! of its steps may find itself done already. A schema that the original program made is adopted in place: missing columns
//! are added, those that would cut texts are widened, indexes that forbid equal rows are dropped, rows that the projection is going to rewrite are copied to
//! `<table>_original` beforehand. No table is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use mysql_async::Conn;
use orchestrator_core::id::InstanceKey;
use orchestrator_core::time::Wall;
use orchestrator_core::topology::ProbeFailure;
use sha2::{Digest as _, Sha256};

use super::by_hand;
use super::database::{Attempt, Found, Held, Mark, Rewrite, Source, Stamp};
use super::foreign;
use super::migrations::{Done, MIGRATIONS_TABLE, Migration, missing, newest_version};
use super::original;
use super::question::{Question, Texts, aside_names};
use super::rows::{Row, Value, Write, hex};
use super::tables::{Kind, Role, Table};
use super::{Adopted, BackendError, Place, RUNS_KEPT, Settings, database};
use crate::config::{MaxAllowedPacket, MysqlBackend};
use crate::env::Env;
use crate::mysql::connect::{Dialer, query_within};
use crate::mysql::{ProbeSettings, TlsMode};

/// Texts are sent when they are this long. Servers take 4 MiB and more by default.
const TEXT_BYTES: usize = 512 * 1024;
/// Changes of tables may rewrite them.
const DEFINE_DEADLINE: Duration = Duration::from_secs(300);
/// What a `mediumtext` holds.
const MEDIUMTEXT_BYTES: u64 = 16_777_215;
/// How long another daemon's deployment is waited for, in seconds.
const DEPLOY_WAIT_S: u32 = 30;
/// What a statement may take where the configuration sets no bound.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An open connection to the schema.
pub(super) struct Database {
    session: Session,
    token: String,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.session.place)
    }
}

/// A connection, and what is needed to say what its errors mean.
struct Session {
    conn: Conn,
    backend: Box<MysqlBackend>,
    place: Place,
    deadline: Duration,
}

impl Session {
    /// Logs in and chooses the schema, creating it if it is missing and may be created.
    async fn open<E: Env>(backend: &MysqlBackend) -> Result<Self, BackendError> {
        check_named(backend)?;
        let place = Place::Mysql(Box::new(backend.clone()));
        let deadline = if backend.read_timeout.is_zero() {
            READ_TIMEOUT
        } else {
            backend.read_timeout
        };
        let settings = dial_settings(backend);
        let key = InstanceKey::new(backend.host.clone(), backend.port);
        let conn = Dialer::new(&key, &settings)
            .dial::<E>(&settings, backend.connect_timeout)
            .await
            .map_err(|failure| explain(backend, &failure))?;
        let mut session = Session {
            conn,
            backend: Box::new(backend.clone()),
            place,
            deadline,
        };
        session
            .run::<E>(
                "SET SESSION time_zone='+00:00', sql_mode='NO_AUTO_VALUE_ON_ZERO', autocommit=1",
            )
            .await?;
        let database = quote(&backend.database);
        if let Err(error) = session.run::<E>(&format!("USE {database}")).await {
            // Unknown, or not ours to see: it is made if that is allowed, and else the first error is told.
            let made = session
                .run::<E>(&format!("CREATE DATABASE IF NOT EXISTS {database}"))
                .await;
            if made.is_err() {
                return Err(error);
            }
            session.run::<E>(&format!("USE {database}")).await?;
        }
        if backend.reject_read_only {
            let read_only = session.value::<E>("SELECT @@global.read_only").await?;
            if read_only.as_deref() == Some("1") {
                return Err(session.failed(
                    "the server is read-only, and MySQLOrchestratorRejectReadOnly is set",
                ));
            }
        }
        Ok(session)
    }

    /// Of one table, if it is there.
    async fn texts<E: Env>(&mut self, question: &Question) -> Result<Vec<Texts>, BackendError> {
        let mut held = None;
        for name in question.names() {
            if !exists::<E>(self, &name).await? {
                break;
            }
            held = Some(name);
        }
        let Some(name) = held else {
            return Ok(Vec::new());
        };
        let present = columns_of::<E>(self, &name)
            .await?
            .into_iter()
            .map(|column| column.name)
            .collect();
        let sql = question.sql(&name, &present, quote, |column| {
            let quoted = quote(column);
            match question.table.column(column).map(|column| column.kind) {
                Some(Kind::Time | Kind::MaybeTime) => format!("UNIX_TIMESTAMP({quoted})"),
                Some(_) | None => quoted,
            }
        });
        self.ask::<E>(&sql).await
    }

    fn failed(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Failed {
            place: self.place.clone(),
            reason: reason.into(),
        }
    }

    /// The rows of the last statement that brought any.
    async fn ask_within<E: Env>(
        &mut self,
        sql: &str,
        deadline: Duration,
    ) -> Result<Vec<Texts>, BackendError> {
        let tables = query_within::<E>(&mut self.conn, sql, deadline)
            .await
            .map_err(|failure| explain(&self.backend, &failure))?;
        Ok(tables
            .into_iter()
            .next_back()
            .map_or_else(Vec::new, |table| table.rows))
    }

    async fn ask<E: Env>(&mut self, sql: &str) -> Result<Vec<Texts>, BackendError> {
        let deadline = self.deadline;
        self.ask_within::<E>(sql, deadline).await
    }

    async fn run<E: Env>(&mut self, sql: &str) -> Result<(), BackendError> {
        self.ask::<E>(sql).await.map(|_| ())
    }

    /// Changes a table: may take long.
    async fn define<E: Env>(&mut self, sql: &str) -> Result<(), BackendError> {
        self.ask_within::<E>(sql, DEFINE_DEADLINE).await.map(|_| ())
    }

    async fn value<E: Env>(&mut self, sql: &str) -> Result<Option<String>, BackendError> {
        let rows = self.ask::<E>(sql).await?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next().flatten()))
    }
}

/// Refuses a configuration that does not say where the schema is.
fn check_named(backend: &MysqlBackend) -> Result<(), BackendError> {
    let named = [
        ("MySQLOrchestratorHost", &backend.host),
        ("MySQLOrchestratorDatabase", &backend.database),
    ];
    let missing: Vec<&str> = named
        .into_iter()
        .filter(|(_, value)| value.is_empty())
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(BackendError::Unnamed { missing })
    }
}

fn dial_settings(backend: &MysqlBackend) -> ProbeSettings {
    let tls = &backend.tls_material;
    let defaults = ProbeSettings::default();
    ProbeSettings {
        user: backend.credentials.user.clone(),
        password: backend.credentials.password.expose().to_owned(),
        connect_timeout: backend.connect_timeout,
        read_timeout: backend.read_timeout,
        max_allowed_packet: match backend.max_allowed_packet {
            MaxAllowedPacket::DriverDefault | MaxAllowedPacket::AskServer => {
                defaults.max_allowed_packet
            }
            MaxAllowedPacket::Bytes(bytes) => {
                usize::try_from(bytes).unwrap_or(defaults.max_allowed_packet)
            }
        },
        tls: if backend.tls {
            TlsMode::Required
        } else {
            TlsMode::Off
        },
        tls_ca: tls.authorities.clone(),
        tls_cert: tls.certificate.clone(),
        tls_key: tls.key.clone(),
        tls_skip_verify: tls.skip_verify,
        ..defaults
    }
}

/// What an error of the server means for whoever runs the daemon.
fn explain(backend: &MysqlBackend, failure: &ProbeFailure) -> BackendError {
    let place = || Place::Mysql(Box::new(backend.clone()));
    match failure {
        // ER_DBACCESS_DENIED, ER_ACCESS_DENIED, ER_BAD_DB, ER_TABLEACCESS_DENIED, ER_COLUMNACCESS_DENIED,
        // ER_SPECIFIC_ACCESS_DENIED.
        ProbeFailure::ServerError {
            code: code @ (1044 | 1045 | 1049 | 1142 | 1143 | 1227),
            message,
        } => BackendError::NoRight {
            backend: Box::new(backend.clone()),
            reason: format!("error {code}: {message}"),
        },
        // CR_SSL_CONNECTION_ERROR
        ProbeFailure::ServerError {
            code: 2026,
            message,
        } => BackendError::Failed {
            place: place(),
            reason: format!(
                "no TLS ({message}); MySQLOrchestratorSSLCAFile must vouch for the server's certificate, which must be for \
                 MySQLOrchestratorHost, and the server's ssl_ca for MySQLOrchestratorSSLCertFile"
            ),
        },
        ProbeFailure::ServerError { code, message } => BackendError::Failed {
            place: place(),
            reason: format!("error {code}: {message}"),
        },
        other => BackendError::Unreachable {
            place: place(),
            reason: other.to_string(),
        },
    }
}

/// Reads rows of a schema, without becoming its writer.
pub(super) async fn answer<E: Env>(
    backend: &MysqlBackend,
    questions: &[Question],
) -> Result<Vec<Vec<Texts>>, BackendError> {
    let mut session = Session::open::<E>(backend).await?;
    let mut answers = Vec::new();
    for question in questions {
        answers.push(session.texts::<E>(question).await?);
    }
    Ok(answers)
}

/// Writes rows to a schema that holds a state of ours, beside its daemon, in one transaction. After an error it is gone with
/// the connection.
pub(super) async fn write_by_hand<E: Env>(
    backend: &MysqlBackend,
    writes: &[Write],
    wall: Wall,
) -> Result<(), BackendError> {
    let mut session = Session::open::<E>(backend).await?;
    if !exists::<E>(&mut session, MIGRATIONS_TABLE).await? {
        return Err(session.failed("it never held a state of a raft cluster"));
    }
    let mut texts = Texting::default();
    texts.add("START TRANSACTION");
    // One after the other with the daemon's own.
    texts.add("SELECT token FROM orchestrator_projection WHERE anchor = 1 FOR UPDATE");
    for write in by_hand::marked(writes, wall) {
        texts.put(&write);
    }
    texts.add("COMMIT");
    let text = texts.take();
    session.run::<E>(&text).await
}

/// Opens the schema, creating it if missing, and brings its tables to this release's.
pub(super) async fn open<E: Env>(
    backend: &MysqlBackend,
    settings: &Settings,
    silent: Option<&Mark>,
    wall: Wall,
) -> Result<(Database, Found), BackendError> {
    let mut session = Session::open::<E>(backend).await?;
    let adopted = deploy::<E>(&mut session, settings, wall).await?;
    let mut found = take::<E>(&mut session, settings, silent, wall).await?;
    found.adopted = adopted;
    for question in &original::QUESTIONS {
        found.original.push(session.texts::<E>(question).await?);
    }
    let database = Database {
        session,
        token: settings.token.clone(),
    };
    Ok((database, found))
}

impl Database {
    /// Writes rows, where they stand and whose they are in one transaction. After an error the connection's transaction is
    /// gone with the connection, unless the server itself said no.
    pub(super) async fn write<E: Env>(
        mut self,
        source: &impl Source,
        rewrite: Rewrite,
        stamp: Stamp,
    ) -> Attempt {
        match self.try_write::<E>(source, rewrite, stamp).await {
            Ok(()) => Attempt::Written(database::Database::Mysql(self)),
            Err(error @ BackendError::Unreachable { .. }) => Attempt::Lost(Some(error)),
            Err(error) => match self.session.run::<E>("ROLLBACK").await {
                Ok(()) => Attempt::Failed(database::Database::Mysql(self), error),
                Err(_) => Attempt::Lost(Some(error)),
            },
        }
    }

    async fn try_write<E: Env>(
        &mut self,
        source: &impl Source,
        rewrite: Rewrite,
        stamp: Stamp,
    ) -> Result<(), BackendError> {
        self.session.run::<E>("START TRANSACTION").await?;
        let held = self
            .session
            .ask::<E>(
                "SELECT token, cluster_id FROM orchestrator_projection WHERE anchor = 1 FOR UPDATE",
            )
            .await?;
        self.check_owner(held, stamp)?;
        let mut texts = Texting::default();
        match rewrite {
            Rewrite::Nothing => {}
            Rewrite::Replicated => {
                if !self
                    .session
                    .ask::<E>(foreign::HELD_A_STATE)
                    .await?
                    .is_empty()
                {
                    self.name_others::<E>(source).await?;
                }
                for table in foreign::tables() {
                    texts.add(&format!("DELETE FROM {}", quote(table.name)));
                }
                texts.add(by_hand::FORGET);
            }
        }
        for write in source.writes() {
            texts.put(&write);
            if texts.is_long() {
                let text = texts.take();
                self.session.run::<E>(&text).await?;
            }
        }
        texts.add(&stamp_text(stamp));
        texts.add("COMMIT");
        let text = texts.take();
        self.session.run::<E>(&text).await
    }

    /// Names the rows that are not among those that are going to be written.
    async fn name_others<E: Env>(&mut self, source: &impl Source) -> Result<(), BackendError> {
        let keys = foreign::Keys::of(source.writes());
        for table in foreign::tables() {
            let held = format!(
                "SELECT {} FROM {} LIMIT {}",
                quoted(table.key),
                quote(table.name),
                foreign::LOOKED_AT_MAX
            );
            let held = self.session.ask::<E>(&held).await?;
            keys.tell_others(&self.session.place, table, held.into_iter());
        }
        Ok(())
    }

    /// The schema is still this process's and this cluster's.
    fn check_owner(&self, held: Vec<Texts>, stamp: Stamp) -> Result<(), BackendError> {
        let Some(row) = held.into_iter().next() else {
            return Err(self
                .session
                .failed("its row in orchestrator_projection is gone"));
        };
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        let (holder, cluster) = (
            row.next().unwrap_or_default(),
            row.next().unwrap_or_default(),
        );
        if holder != self.token {
            return Err(BackendError::TakenOver {
                place: self.session.place.clone(),
                token: holder,
            });
        }
        match stamp.cluster {
            Some(own) if !cluster.is_empty() && cluster != own.to_string() => {
                Err(BackendError::OtherCluster {
                    place: self.session.place.clone(),
                    found: cluster,
                    own,
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn stamp_text(stamp: Stamp) -> String {
    let mut text = format!(
        "UPDATE orchestrator_projection SET written_at = {}",
        literal(&Value::from(stamp.wall))
    );
    if let Some(cluster) = stamp.cluster {
        let _ = write!(
            text,
            ", cluster_id = {}",
            literal(&cluster.to_string().into())
        );
    }
    if let Some((at, digest)) = stamp.applied {
        let _ = write!(
            text,
            ", applied_index = {}, applied_term = {}, applied_node = {}, digest = {}",
            at.index,
            at.term,
            literal(&at.node.to_string().into()),
            literal(&hex(&digest).into())
        );
    }
    text.push_str(" WHERE anchor = 1");
    text
}

/// Texts that are sent together. Rows that are put into one table one after another are one statement.
#[derive(Default)]
struct Texting {
    text: String,
    /// The table of an insert that is not finished.
    inserting: Option<&'static Table>,
}

impl Texting {
    fn is_long(&self) -> bool {
        self.text.len() >= TEXT_BYTES
    }

    fn take(&mut self) -> String {
        self.finish();
        std::mem::take(&mut self.text)
    }

    fn finish(&mut self) {
        if let Some(table) = self.inserting.take() {
            self.text.push_str(&on_duplicate(table, None));
        }
    }

    fn add(&mut self, statement: &str) {
        self.finish();
        if !self.text.is_empty() {
            self.text.push_str(";\n");
        }
        self.text.push_str(statement);
    }

    fn put(&mut self, write: &Write) {
        match write {
            Write::Put(row) => self.insert(row),
            Write::Refresh { row, columns } => {
                let insert = format!(
                    "{}{}{}",
                    insert_into(row.table),
                    tuple(row),
                    on_duplicate(row.table, Some(columns))
                );
                self.add(&insert);
            }
            Write::Delete {
                table,
                columns,
                values,
            } => {
                let conditions: Vec<String> = columns
                    .iter()
                    .zip(values)
                    .map(|(column, value)| format!("{} = {}", quote(column), literal(value)))
                    .collect();
                self.add(&format!(
                    "DELETE FROM {} WHERE {}",
                    quote(table.name),
                    conditions.join(" AND ")
                ));
            }
            Write::DeleteRange {
                table,
                column,
                from,
                to,
            } => self.add(&format!(
                "DELETE FROM {} WHERE {} BETWEEN {from} AND {to}",
                quote(table.name),
                quote(column)
            )),
            Write::DeleteBefore {
                table,
                column,
                before,
            } => self.add(&format!(
                "DELETE FROM {} WHERE {} < {}",
                quote(table.name),
                quote(column),
                literal(&Value::from(*before))
            )),
        }
    }

    fn insert(&mut self, row: &Row) {
        let goes_on = self
            .inserting
            .is_some_and(|table| std::ptr::eq(table, row.table));
        if goes_on {
            self.text.push_str(", ");
        } else {
            self.add(&insert_into(row.table));
            self.inserting = Some(row.table);
        }
        self.text.push_str(&tuple(row));
    }
}

fn insert_into(table: &Table) -> String {
    let names: Vec<String> = table
        .columns
        .iter()
        .map(|column| quote(column.name))
        .collect();
    format!(
        "INSERT INTO {} ({}) VALUES ",
        quote(table.name),
        names.join(", ")
    )
}

fn tuple(row: &Row) -> String {
    let values: Vec<String> = row.values.iter().map(literal).collect();
    format!("({})", values.join(", "))
}

/// What becomes of a row that is there: all of it is written anew, or these columns. `VALUES()` is understood by all
/// versions of both flavours (MySQL 8.0.20 and later would rather have an alias, which MariaDB does not know).
fn on_duplicate(table: &Table, columns: Option<&[&str]>) -> String {
    let all: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name)
        .filter(|name| !table.key.contains(name))
        .collect();
    let columns = columns.unwrap_or(if all.is_empty() { table.key } else { &all });
    let set: Vec<String> = columns
        .iter()
        .map(|column| format!("{name} = VALUES({name})", name = quote(column)))
        .collect();
    format!(" ON DUPLICATE KEY UPDATE {}", set.join(", "))
}

/// A value as a literal of a session without `NO_BACKSLASH_ESCAPES`.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => String::from("NULL"),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => {
            let mut literal = String::with_capacity(text.len() + 2);
            literal.push('\'');
            for character in text.chars() {
                match character {
                    '\'' => literal.push_str("\\'"),
                    '\\' => literal.push_str("\\\\"),
                    '\0' => literal.push_str("\\0"),
                    '\n' => literal.push_str("\\n"),
                    '\r' => literal.push_str("\\r"),
                    '\u{1a}' => literal.push_str("\\Z"),
                    other => literal.push(other),
                }
            }
            literal.push('\'');
            literal
        }
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    names.join(", ")
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

// --- the schema ---

fn column_type(kind: Kind) -> String {
    match kind {
        Kind::Id => String::from("bigint NOT NULL"),
        Kind::Name(characters) => format!("varchar({characters}) NOT NULL DEFAULT ''"),
        Kind::Text => String::from("mediumtext NOT NULL"),
        Kind::Number => String::from("bigint NOT NULL DEFAULT 0"),
        Kind::MaybeNumber => String::from("bigint NULL"),
        Kind::Flag => String::from("tinyint NOT NULL DEFAULT 0"),
        Kind::MaybeFlag => String::from("tinyint NULL"),
        Kind::Time => String::from("timestamp NOT NULL DEFAULT '1971-01-01 00:00:00'"),
        // Without `NULL` some versions make a timestamp that is never null.
        Kind::MaybeTime => String::from("timestamp NULL DEFAULT NULL"),
        Kind::Bytes => String::from("mediumblob NULL"),
    }
}

/// Names are compared byte by byte: what the state tells apart its projection must tell apart.
fn create_table(table: &Table) -> String {
    let mut parts: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{} {}", quote(column.name), column_type(column.kind)))
        .collect();
    let list = |columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|column| quote(column)).collect();
        columns.join(", ")
    };
    parts.push(format!("PRIMARY KEY ({})", list(table.key)));
    // Names have at most 64 characters.
    for (number, columns) in (1..).zip(table.indexes) {
        parts.push(format!(
            "KEY by_{number}_{} ({})",
            columns[0],
            list(columns)
        ));
    }
    format!(
        "CREATE TABLE {} ({}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        quote(table.name),
        parts.join(", ")
    )
}

fn checksum(migration: &Migration) -> String {
    let mut hash = Sha256::new();
    for table in migration.tables {
        hash.update(create_table(table));
        hash.update("\n");
    }
    hex(&hash.finalize())
}

async fn deploy<E: Env>(
    session: &mut Session,
    settings: &Settings,
    wall: Wall,
) -> Result<Option<Adopted>, BackendError> {
    // Names of locks have at most 64 characters.
    let database: String = session.backend.database.chars().take(40).collect();
    let lock = literal(&format!("orchestrator/deploy/{database}").into());
    let wait = Duration::from_secs(u64::from(DEPLOY_WAIT_S) + 5);
    let locked = session
        .ask_within::<E>(&format!("SELECT GET_LOCK({lock}, {DEPLOY_WAIT_S})"), wait)
        .await?;
    if locked.first().and_then(|row| row.first()?.as_deref()) != Some("1") {
        return Err(session.failed("another daemon has been changing its tables for half a minute"));
    }
    let adopted = deploy_locked::<E>(session, settings, wall).await;
    session
        .run::<E>(&format!("SELECT RELEASE_LOCK({lock})"))
        .await?;
    adopted
}

async fn deploy_locked<E: Env>(
    session: &mut Session,
    settings: &Settings,
    wall: Wall,
) -> Result<Option<Adopted>, BackendError> {
    let is_ours = exists::<E>(session, MIGRATIONS_TABLE).await?;
    let mut done: BTreeMap<i64, Done> = BTreeMap::new();
    if is_ours {
        let rows = session
            .ask::<E>(&format!(
                "SELECT version, checksum, oldest_reader FROM {MIGRATIONS_TABLE}"
            ))
            .await?;
        for row in rows {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let version = row.next().and_then(|version| version.parse().ok());
            let checksum = row.next();
            let oldest_reader = row.next().and_then(|oldest| oldest.parse().ok());
            if let (Some(version), Some(checksum), Some(oldest_reader)) =
                (version, checksum, oldest_reader)
            {
                let recorded = Done {
                    checksum,
                    oldest_reader,
                };
                done.insert(version, recorded);
            }
        }
    }
    let missing = missing(&done, checksum, &session.place, settings.deploy)?;
    if missing.is_empty() {
        return Ok(None);
    }
    migrate::<E>(session, &missing, is_ours, settings, wall).await
}

async fn migrate<E: Env>(
    session: &mut Session,
    missing: &[&Migration],
    is_ours: bool,
    settings: &Settings,
    wall: Wall,
) -> Result<Option<Adopted>, BackendError> {
    let mut adopted = Adopted::default();
    let mut found_tables = false;
    for migration in missing {
        for table in migration.tables {
            if exists::<E>(session, table.name).await? {
                found_tables = true;
                adopt::<E>(session, table, &mut adopted).await?;
            } else {
                session.define::<E>(&create_table(table)).await?;
            }
        }
        // After the tables: a deployment that was interrupted is taken up again.
        session
            .define::<E>(&format!(
                "CREATE TABLE IF NOT EXISTS {MIGRATIONS_TABLE} (version bigint NOT NULL PRIMARY KEY, name varchar(64) NOT \
                 NULL, checksum varchar(64) NOT NULL, oldest_reader bigint NOT NULL, app_version varchar(64) NOT NULL, applied_at timestamp NOT NULL DEFAULT \
                 '1971-01-01 00:00:00') ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
            ))
            .await?;
        let values = [
            Value::Number(migration.version),
            migration.name.into(),
            checksum(migration).into(),
            Value::Number(migration.oldest_reader),
            settings.app_version.clone().into(),
            wall.into(),
        ];
        let values: Vec<String> = values.iter().map(literal).collect();
        session
            .run::<E>(&format!(
                "INSERT INTO {MIGRATIONS_TABLE} (version, name, checksum, oldest_reader, app_version, applied_at) VALUES ({})",
                values.join(", ")
            ))
            .await?;
    }
    let (version, at) = (
        literal(&settings.app_version.clone().into()),
        literal(&wall.into()),
    );
    session
        .run::<E>(&format!(
            "REPLACE INTO orchestrator_db_deployments (deployed_version, deployed_timestamp) VALUES ({version}, {at})"
        ))
        .await?;
    Ok((found_tables && !is_ours).then_some(adopted))
}

async fn exists<E: Env>(session: &mut Session, table: &str) -> Result<bool, BackendError> {
    let table = literal(&table.into());
    let found = session
        .value::<E>(&format!(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = {table}"
        ))
        .await?;
    Ok(found.is_some())
}

/// A column as a schema has it.
struct Present {
    name: String,
    is_required: bool,
    /// Has a default or counts by itself.
    has_default: bool,
    /// So many characters and bytes, of a text.
    holds: Option<(u64, u64)>,
}

impl Present {
    /// Texts that this release writes are cut in it.
    fn cuts(&self, kind: Kind) -> bool {
        let Some((characters, bytes)) = self.holds else {
            return false;
        };
        match kind {
            Kind::Name(wanted) => characters < u64::from(wanted),
            Kind::Text => bytes < MEDIUMTEXT_BYTES,
            _ => false,
        }
    }
}

async fn columns_of<E: Env>(
    session: &mut Session,
    table: &str,
) -> Result<Vec<Present>, BackendError> {
    let table = literal(&table.into());
    let rows = session
        .ask::<E>(&format!(
            "SELECT column_name, is_nullable, column_default IS NOT NULL OR extra LIKE '%auto_increment%', \
             character_maximum_length, character_octet_length FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = {table}"
        ))
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            Present {
                name: row.next().unwrap_or_default().to_ascii_lowercase(),
                is_required: row.next().as_deref() == Some("NO"),
                has_default: row.next().as_deref() == Some("1"),
                holds: row
                    .next()
                    .and_then(|characters| characters.parse().ok())
                    .zip(row.next().and_then(|bytes| bytes.parse().ok())),
            }
        })
        .collect())
}

/// The unique indexes of a table, by name, with their columns; the primary key is `PRIMARY`.
async fn unique_indexes<E: Env>(
    session: &mut Session,
    table: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>, BackendError> {
    let table = literal(&table.into());
    let rows = session
        .ask::<E>(&format!(
            "SELECT index_name, column_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND \
             table_name = {table} AND non_unique = 0"
        ))
        .await?;
    let mut indexes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        if let (Some(index), Some(column)) = (row.next(), row.next()) {
            indexes
                .entry(index)
                .or_default()
                .insert(column.to_ascii_lowercase());
        }
    }
    Ok(indexes)
}

/// Makes a table that somebody else made fit for this release.
async fn adopt<E: Env>(
    session: &mut Session,
    table: &'static Table,
    adopted: &mut Adopted,
) -> Result<(), BackendError> {
    let name = quote(table.name);
    let rows = session
        .value::<E>(&format!("SELECT count(*) FROM {name}"))
        .await?
        .and_then(|rows| rows.parse::<u64>().ok())
        .unwrap_or(0);
    if rows > 0 {
        adopted.rows.insert(table.name, rows);
    }
    if table.role == Role::Observed {
        adopted.instances = instances::<E>(session, table.name).await?;
    }
    let present = columns_of::<E>(session, table.name).await?;
    let unique = unique_indexes::<E>(session, table.name).await?;
    if !fits(table, &present, unique.get("PRIMARY")) {
        let aside = name_aside::<E>(session, table).await?;
        session
            .define::<E>(&format!("RENAME TABLE {name} TO {}", quote(&aside)))
            .await?;
        session.define::<E>(&create_table(table)).await?;
        adopted.set_aside.insert(table.name, aside);
        return Ok(());
    }
    let is_missing = |name: &str| !present.iter().any(|held| held.name == name);
    for column in table
        .columns
        .iter()
        .filter(|column| is_missing(column.name))
    {
        session
            .define::<E>(&format!(
                "ALTER TABLE {name} ADD COLUMN {} {}",
                quote(column.name),
                column_type(column.kind)
            ))
            .await?;
    }
    let will_be_rewritten = match table.role {
        Role::Replicated | Role::Observed => true,
        Role::Own | Role::Kept => false,
    };
    if will_be_rewritten && rows > 0 {
        let aside = name_aside::<E>(session, table).await?;
        session
            .define::<E>(&format!(
                "CREATE TABLE {aside} LIKE {name}; INSERT INTO {aside} SELECT * FROM {name}",
                aside = quote(&aside)
            ))
            .await?;
        adopted.set_aside.insert(table.name, aside);
    }
    if table.is_written() {
        for index in unique.keys().filter(|index| *index != "PRIMARY") {
            session
                .define::<E>(&format!("ALTER TABLE {name} DROP INDEX {}", quote(index)))
                .await?;
        }
        widen::<E>(session, table, &present).await?;
    }
    Ok(())
}

/// Columns that would cut what is written into them hold as much as those that this release makes. Where the server cannot
/// have that, as in a key of an old row format, people see less, and nothing else comes of it.
async fn widen<E: Env>(
    session: &mut Session,
    table: &Table,
    present: &[Present],
) -> Result<(), BackendError> {
    let (mut names, mut changes) = (Vec::new(), Vec::new());
    for held in present {
        let column = table.column(&held.name);
        if let Some(column) = column.filter(|column| held.cuts(column.kind)) {
            let wanted = column_type(column.kind);
            let (of_text, rest) = wanted.split_once(' ').unwrap_or((&wanted, ""));
            changes.push(format!(
                "MODIFY {} {of_text} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin {rest}",
                quote(column.name)
            ));
            names.push(column.name);
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    let change = format!("ALTER TABLE {} {}", quote(table.name), changes.join(", "));
    match session.define::<E>(&change).await {
        Err(BackendError::Failed { reason, .. } | BackendError::NoRight { reason, .. }) => {
            tracing::warn!(
                "{}: {} was made by another program, and cuts what is too long for its columns {}: {reason}",
                session.place,
                table.name,
                names.join(", ")
            );
            Ok(())
        }
        done => done,
    }
}

/// Rows of this release can be written into the table as it is, once missing columns are added.
fn fits(table: &Table, present: &[Present], key: Option<&BTreeSet<String>>) -> bool {
    let has = |name: &&str| present.iter().any(|column| column.name == **name);
    if !table.key.iter().all(has) {
        return false;
    }
    if !table.is_written() {
        return true;
    }
    let wanted: BTreeSet<String> = table.key.iter().map(|name| String::from(*name)).collect();
    if key != Some(&wanted) {
        return false;
    }
    present.iter().all(|held| match table.column(&held.name) {
        Some(column) => !(held.is_required && column.kind.may_be_null()),
        None => !held.is_required || held.has_default,
    })
}

/// A free name for what a table was.
async fn name_aside<E: Env>(session: &mut Session, table: &Table) -> Result<String, BackendError> {
    let mut last = String::new();
    for name in aside_names(table) {
        last = name;
        if !exists::<E>(session, &last).await? {
            break;
        }
    }
    Ok(last)
}

async fn instances<E: Env>(
    session: &mut Session,
    table: &str,
) -> Result<BTreeSet<InstanceKey>, BackendError> {
    let rows = session
        .ask::<E>(&format!("SELECT hostname, port FROM {}", quote(table)))
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let mut row = row.into_iter().flatten();
            // What no daemon of ours wrote may hold any number.
            Some(InstanceKey::new(row.next()?, row.next()?.parse().ok()?))
        })
        .collect())
}

/// Makes the schema this process's, and reads what it holds.
async fn take<E: Env>(
    session: &mut Session,
    settings: &Settings,
    silent: Option<&Mark>,
    wall: Wall,
) -> Result<Found, BackendError> {
    session.run::<E>("START TRANSACTION").await?;
    let held = session
        .ask::<E>(
            "SELECT daemon, token, date_format(written_at, '%Y-%m-%d %H:%i:%s'), cluster_id, \
             applied_index, applied_term, applied_node, digest FROM orchestrator_projection WHERE anchor = 1 FOR UPDATE",
        )
        .await?;
    let mut found = Found::default();
    let (owner, token, at) = (
        literal(&settings.owner().into()),
        literal(&settings.token.clone().into()),
        literal(&wall.into()),
    );
    let version = newest_version();
    let text = match held.into_iter().next().map(read_held) {
        None => format!(
            "INSERT INTO orchestrator_projection (anchor, cluster_id, daemon, token, written_at, applied_index, applied_term, \
             applied_node, digest, schema_version) VALUES (1, '', {owner}, {token}, {at}, NULL, NULL, '', '', {version})"
        ),
        Some(held) => {
            if let Some(why) = held.not_to_be_taken(settings, silent) {
                session.run::<E>("ROLLBACK").await?;
                return Err(why);
            }
            found.position = held.position(held.is_own(settings));
            let digest = if held.is_own(settings) {
                "digest"
            } else {
                "''"
            };
            format!(
                "UPDATE orchestrator_projection SET digest = {digest}, daemon = {owner}, \
                 token = {token}, written_at = {at}, schema_version = {version} WHERE anchor = 1"
            )
        }
    };
    session.run::<E>(&format!("{text}; COMMIT")).await?;
    found.is_by_hand = session.value::<E>(by_hand::FIND).await?.is_some();
    remember_run::<E>(session, settings, wall).await?;
    found.instances = instances::<E>(session, "database_instance").await?;
    Ok(found)
}

fn read_held(row: Texts) -> Held {
    let mut row = row.into_iter();
    let mut next = || row.next().flatten();
    let text = Option::<String>::unwrap_or_default;
    Held {
        daemon: text(next()),
        token: text(next()),
        written_at: text(next()),
        cluster: text(next()),
        index: next().and_then(|index| index.parse().ok()),
        term: next().and_then(|term| term.parse().ok()),
        leader: text(next()),
        digest: text(next()),
    }
}

/// A line of `node_health_history`; the oldest make room.
async fn remember_run<E: Env>(
    session: &mut Session,
    settings: &Settings,
    wall: Wall,
) -> Result<(), BackendError> {
    let (host, token) = (
        literal(&settings.host_name.clone().into()),
        literal(&settings.token.clone().into()),
    );
    let known = session
        .value::<E>(&format!(
            "SELECT 1 FROM node_health_history WHERE hostname = {host} AND token = {token} LIMIT 1"
        ))
        .await?;
    if known.is_some() {
        return Ok(());
    }
    let newest = session
        .value::<E>("SELECT coalesce(max(history_id), 0) FROM node_health_history")
        .await?
        .and_then(|newest| newest.parse::<i64>().ok())
        .unwrap_or(0);
    let id = newest.saturating_add(1);
    let values = [
        Value::Number(id),
        settings.host_name.clone().into(),
        settings.token.clone().into(),
        wall.into(),
        settings.extra_info.clone().into(),
        settings.command.clone().into(),
        settings.app_version.clone().into(),
    ];
    let values: Vec<String> = values.iter().map(literal).collect();
    session
        .run::<E>(&format!(
            "INSERT INTO node_health_history (history_id, hostname, token, first_seen_active, extra_info, command, \
             app_version) VALUES ({}); DELETE FROM node_health_history WHERE history_id <= {}",
            values.join(", "),
            id.saturating_sub(RUNS_KEPT)
        ))
        .await
}

#[cfg(test)]
mod tests {
    use super::super::migrations::MIGRATIONS;
    use super::super::tables::TABLES;
    use super::*;
    use crate::config::BackendKind;

    /// A change of the tables is a new migration: schemas that exist would otherwise be refused.
    #[test]
    fn migrations_are_what_they_were() {
        let checksums: Vec<String> = MIGRATIONS.iter().map(checksum).collect();
        assert_eq!(
            checksums,
            ["8be2a98acbe0d74d8435f970ead2b5eeb1b042c619a32aebc5d9a050226a32b8"]
        );
    }

    #[test]
    fn a_server_or_schema_that_is_not_named_is_asked_for() {
        let BackendKind::Mysql(mut backend) = crate::config::Settings::default().backend.kind
        else {
            panic!("the default is a schema of a server");
        };
        let refused = |backend: &MysqlBackend| check_named(backend).unwrap_err().to_string();
        let none = refused(&backend);
        assert!(
            none.contains("MySQLOrchestratorHost and MySQLOrchestratorDatabase are not set: add"),
            "{none}"
        );
        backend.database = String::from("orchestrator");
        let no_host = refused(&backend);
        assert!(
            no_host.contains("and MySQLOrchestratorHost is not set: add"),
            "{no_host}"
        );
        backend.host = String::from("127.0.0.1");
        assert_eq!(check_named(&backend), Ok(()));
    }

    /// Neither flavour indexes a text without a length.
    #[test]
    fn what_is_indexed_has_a_length() {
        for table in TABLES {
            let indexed = table.indexes.iter().copied().flatten().chain(table.key);
            for name in indexed {
                let column = table.column(name).expect("a column");
                assert!(
                    !matches!(column.kind, Kind::Text | Kind::Bytes),
                    "{}.{name}",
                    table.name
                );
            }
        }
    }

    #[test]
    fn values_are_literals() {
        let check = |value: &str, wanted: &str| {
            assert_eq!(literal(&String::from(value).into()), wanted);
        };
        check("plain", "'plain'");
        check("it's", "'it\\'s'");
        check("back\\slash", "'back\\\\slash'");
        check("a\0b\nc\rd\u{1a}e\"f", "'a\\0b\\nc\\rd\\Ze\"f'");
        check("'; drop table x; --", "'\\'; drop table x; --'");
        assert_eq!(literal(&Value::Null), "NULL");
        assert_eq!(literal(&Value::Number(-1)), "-1");
    }

    #[test]
    fn rows_of_one_table_are_one_statement() {
        let table = &super::super::tables::CLUSTER_ALIAS;
        let row = |name: &str| {
            Write::Put(Row::new(
                table,
                [
                    ("cluster_name", String::from(name).into()),
                    ("alias", String::from("a").into()),
                    ("last_registered", Value::Null),
                ],
            ))
        };
        let mut texts = Texting::default();
        texts.put(&row("x"));
        texts.put(&row("y"));
        texts.add("COMMIT");
        assert_eq!(
            texts.take(),
            "INSERT INTO `cluster_alias` (`cluster_name`, `alias`, `last_registered`) VALUES ('x', 'a', NULL), ('y', 'a', NULL) \
             ON DUPLICATE KEY UPDATE `alias` = VALUES(`alias`), `last_registered` = VALUES(`last_registered`);\nCOMMIT"
        );
        assert_eq!(texts.take(), "");
    }
}
