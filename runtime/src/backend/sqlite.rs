//! The backend in a SQLite file: its statements, and how its tables come to be.
//!
//! The file is in WAL mode with `synchronous=NORMAL`: others may read it at any time, and a power cut may take back the
//! newest transactions whole, which the raft log then brings again. No statement uses the database's clock, defaults,
//! counters or randomness: every value is given.
//!
//! Migrations are numbered, checksummed and run once, all in one transaction. A file of the original is adopted in place:
//! missing columns are added, indexes that forbid equal rows are replaced by plain ones, rows that the projection is going
//! to rewrite are copied to `<table>_original` beforehand. No table is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_core::id::{ClusterId, InstanceKey};
use orchestrator_core::time::Wall;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, ToSql, Transaction, TransactionBehavior,
    params_from_iter,
};
use sha2::{Digest as _, Sha256};

use super::by_hand;
use super::database::{Found, Held, Mark, Rewrite, Source, Stamp};
use super::foreign;
use super::migrations::{Done, MIGRATIONS_TABLE, Migration, missing, newest_version};
use super::original;
use super::question::{PATIENCE, Question, Texts, aside_names};
use super::rows::{Row, Value, Write, hex, timestamp};
use super::tables::{Kind, Role, TABLES, Table};
use super::{Adopted, BackendError, Place, RUNS_KEPT, Settings};
use crate::env::Env;

/// How long a statement waits for another process's lock on the file.
const BUSY: Duration = Duration::from_secs(5);
/// The log file of SQLite is cut to this when it was checkpointed, in bytes.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;
/// Statements kept prepared.
const STATEMENTS_KEPT: usize = 256;

/// A file that is no file.
const MEMORY: &str = ":memory:";

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The statements that put a row.
#[derive(Debug)]
struct Statements {
    insert: String,
    update: String,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    token: String,
    statements: BTreeMap<&'static str, Statements>,
}

/// Opens the file, creating it if missing, and brings its tables to this release's. Blocks.
pub(super) fn open<E: Env>(
    path: PathBuf,
    settings: &Settings,
    silent: Option<&Mark>,
    wall: Wall,
) -> Result<(Database, Found), BackendError> {
    if !is_memory(&path) {
        check_folder::<E>(&path)?;
    }
    let explain = |error| explain(&path, &error);
    let connection = E::open_db(&path).map_err(explain)?;
    connection.busy_timeout(BUSY).map_err(explain)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let mut database = Database {
        connection,
        token: settings.token.clone(),
        statements: TABLES
            .iter()
            .map(|table| (table.name, statements(table)))
            .collect(),
        path: path.clone(),
    };
    database.set_modes().map_err(explain)?;
    let adopted = database.deploy(settings, wall)?;
    let mut found = database.take(settings, silent, wall)?;
    found.adopted = adopted;
    for question in &original::QUESTIONS {
        let rows = texts(&database.connection, question);
        found.original.push(rows.map_err(explain)?);
    }
    Ok((database, found))
}

/// Reads rows of a file that is there, without becoming its writer. Blocks.
pub(super) fn answer<E: Env>(
    path: &Path,
    questions: &[Question],
) -> Result<Vec<Vec<Texts>>, BackendError> {
    check_folder::<E>(path)?;
    let missing = |reason: String| BackendError::Failed {
        place: Place::Sqlite(path.to_path_buf()),
        reason,
    };
    match E::exists(path) {
        Ok(true) => {}
        Ok(false) => return Err(missing("it does not exist".to_owned())),
        Err(error) => return Err(missing(error.to_string())),
    }
    let explain = |error| explain(path, &error);
    let connection = E::open_db(path).map_err(explain)?;
    connection.busy_timeout(PATIENCE).map_err(explain)?;
    let mut answers = Vec::new();
    for question in questions {
        answers.push(texts(&connection, question).map_err(explain)?);
    }
    Ok(answers)
}

/// Writes rows to a file that is there and holds a state of ours, beside its daemon, in one transaction. Blocks.
pub(super) fn write_by_hand<E: Env>(
    path: &Path,
    writes: &[Write],
    wall: Wall,
) -> Result<(), BackendError> {
    let failed = |reason: &str| BackendError::Failed {
        place: Place::Sqlite(path.to_path_buf()),
        reason: reason.to_owned(),
    };
    if !E::exists(path).map_err(|error| failed(&error.to_string()))? {
        return Err(failed("it does not exist"));
    }
    let explain = |error| explain(path, &error);
    let mut connection = E::open_db(path).map_err(explain)?;
    // Its daemon holds the lock for as long as one of its transactions takes.
    connection.busy_timeout(PATIENCE).map_err(explain)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(explain)?;
    if !exists(&transaction, MIGRATIONS_TABLE).map_err(explain)? {
        return Err(failed("it never held a state of a raft cluster"));
    }
    let statements = TABLES
        .iter()
        .map(|table| (table.name, statements(table)))
        .collect();
    for write in by_hand::marked(writes, wall) {
        put(&transaction, &statements, &write).map_err(explain)?;
    }
    transaction.commit().map_err(explain)
}

fn texts(connection: &Connection, question: &Question) -> rusqlite::Result<Vec<Texts>> {
    let mut held = None;
    for name in question.names() {
        if !exists(connection, &name)? {
            break;
        }
        held = Some(name);
    }
    let Some(name) = held else {
        return Ok(Vec::new());
    };
    let present = columns_of(connection, &name)?
        .into_iter()
        .map(|column| column.name)
        .collect();
    let sql = question.sql(&name, &present, quote, |column| {
        let quoted = quote(column);
        match question.table.column(column).map(|column| column.kind) {
            Some(Kind::Time | Kind::MaybeTime) => {
                format!("cast(strftime('%s', {quoted}) as text)")
            }
            Some(_) | None => format!("cast({quoted} as text)"),
        }
    });
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        (0..question.columns.len())
            .map(|column| row.get(column))
            .collect()
    })?;
    rows.collect()
}

fn is_memory(path: &Path) -> bool {
    path.to_string_lossy().contains(MEMORY)
}

fn check_folder<E: Env>(path: &Path) -> Result<(), BackendError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    match E::exists(folder) {
        Ok(true) => Ok(()),
        Ok(false) => Err(BackendError::NoFolder(folder.to_owned())),
        Err(error) => Err(BackendError::Unwritable {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// What an error of SQLite means for whoever runs the daemon.
fn explain(path: &Path, error: &rusqlite::Error) -> BackendError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => BackendError::Unwritable { path, reason },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            BackendError::Damaged { path, reason }
        }
        Some(ErrorCode::DiskFull) => BackendError::Full { path },
        Some(ErrorCode::SystemIoFailure) => BackendError::Sick { path, reason },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BackendError::Busy { path },
        _ => BackendError::Failed {
            place: Place::Sqlite(path),
            reason,
        },
    }
}

impl Database {
    fn set_modes(&self) -> rusqlite::Result<()> {
        let mode: String =
            self.connection
                .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if !mode.eq_ignore_ascii_case("wal") && !is_memory(&self.path) {
            tracing::warn!(
                "{} cannot be read while it is written: its journal is {mode}, not wal",
                self.path.display()
            );
        }
        self.connection
            .pragma_update(None, "synchronous", "normal")?;
        self.connection
            .pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))
    }

    /// The file is where it was opened. Blocks.
    pub(super) fn is_there<E: Env>(&self) -> bool {
        is_memory(&self.path) || E::exists(&self.path).unwrap_or(false)
    }

    /// Runs the migrations that are missing. Returns what was adopted if the file was the original's.
    fn deploy(&mut self, settings: &Settings, wall: Wall) -> Result<Option<Adopted>, BackendError> {
        let path = self.path.clone();
        let explain = |error| explain(&path, &error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(explain)?;
        let is_ours = exists(&transaction, MIGRATIONS_TABLE).map_err(explain)?;
        let done = if is_ours {
            recorded(&transaction).map_err(explain)?
        } else {
            BTreeMap::new()
        };
        let place = Place::Sqlite(path.clone());
        let missing = missing(&done, checksum, &place, settings.deploy)?;
        if missing.is_empty() {
            return Ok(None);
        }
        let adopted = migrate(&transaction, &missing, is_ours, settings, wall).map_err(explain)?;
        transaction.commit().map_err(explain)?;
        Ok(adopted)
    }

    /// Makes the file this process's, and reads what it holds.
    fn take(
        &mut self,
        settings: &Settings,
        silent: Option<&Mark>,
        wall: Wall,
    ) -> Result<Found, BackendError> {
        let path = self.path.clone();
        let explain = |error| explain(&path, &error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(explain)?;
        let row = transaction
            .query_row(
                "select daemon, token, written_at, cluster_id, applied_index, applied_term, applied_node, digest \
                 from orchestrator_projection where anchor = 1",
                [],
                |row| {
                    Ok(Held {
                        daemon: row.get(0)?,
                        token: row.get(1)?,
                        written_at: row.get(2)?,
                        cluster: row.get(3)?,
                        index: row.get(4)?,
                        term: row.get(5)?,
                        leader: row.get(6)?,
                        digest: row.get(7)?,
                    })
                },
            )
            .optional()
            .map_err(explain)?;
        let owner = settings.owner();
        let mut found = Found::default();
        let taken = match row {
            None => transaction.execute(
                "insert into orchestrator_projection (anchor, cluster_id, daemon, token, written_at, applied_index, \
                 applied_term, applied_node, digest, schema_version) values (1, '', ?1, ?2, ?3, null, null, '', '', ?4)",
                (&owner, &settings.token, timestamp(wall), newest_version()),
            ),
            Some(held) => {
                if let Some(why) = held.not_to_be_taken(settings, silent) {
                    return Err(why);
                }
                found.position = held.position(held.is_own(settings));
                transaction.execute(
                    "update orchestrator_projection set digest = case when ?5 then digest else '' end, daemon = ?1, \
                     token = ?2, written_at = ?3, schema_version = ?4 where anchor = 1",
                    (
                        &owner,
                        &settings.token,
                        timestamp(wall),
                        newest_version(),
                        held.is_own(settings),
                    ),
                )
            }
        };
        taken.map_err(explain)?;
        found.is_by_hand = transaction
            .query_row(by_hand::FIND, [], |_| Ok(()))
            .optional()
            .map_err(explain)?
            .is_some();
        remember_run(&transaction, settings, wall).map_err(explain)?;
        found.instances = instances(&transaction, "database_instance").map_err(explain)?;
        transaction.commit().map_err(explain)?;
        Ok(found)
    }

    /// Writes rows, where they stand and whose they are in one transaction; with `rewrite`, over emptied tables. Nothing is
    /// written on an error. Blocks.
    pub(super) fn write(
        &mut self,
        rewrite: Rewrite,
        source: &impl Source,
        stamp: Stamp,
    ) -> Result<(), BackendError> {
        let path = self.path.clone();
        let explain = |error| explain(&path, &error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(explain)?;
        check_owner(&transaction, &path, &self.token, stamp.cluster)?;
        match rewrite {
            Rewrite::Nothing => {}
            Rewrite::Replicated => {
                // As with a key that is no text. They are removed all the same.
                if let Err(error) = name_others(&transaction, &path, source) {
                    tracing::warn!(
                        "{}: rows that are removed cannot be named: {error}",
                        path.display()
                    );
                }
                for table in foreign::tables() {
                    execute(&transaction, &format!("delete from {}", table.name), &[])
                        .map_err(explain)?;
                }
                execute(&transaction, by_hand::FORGET, &[]).map_err(explain)?;
            }
        }
        for write in source.writes() {
            put(&transaction, &self.statements, &write).map_err(explain)?;
        }
        stamp_it(&transaction, stamp).map_err(explain)?;
        transaction.commit().map_err(explain)
    }
}

/// Names the rows that are not among those that are going to be written.
fn name_others(
    transaction: &Transaction<'_>,
    path: &Path,
    source: &impl Source,
) -> rusqlite::Result<()> {
    let held_a_state = transaction.query_row(foreign::HELD_A_STATE, [], |_| Ok(()));
    if held_a_state.optional()?.is_none() {
        return Ok(());
    }
    let keys = foreign::Keys::of(source.writes());
    let place = Place::Sqlite(path.to_owned());
    for table in foreign::tables() {
        keys.tell_others(&place, table, keys_of(transaction, table)?.into_iter());
    }
    Ok(())
}

/// The keys of a table's rows.
fn keys_of(transaction: &Transaction<'_>, table: &Table) -> rusqlite::Result<Vec<Texts>> {
    let columns: Vec<String> = table
        .key
        .iter()
        .map(|name| format!("cast({} as text)", quote(name)))
        .collect();
    let mut statement = transaction.prepare(&format!(
        "select {} from {} limit {}",
        columns.join(", "),
        table.name,
        foreign::LOOKED_AT_MAX
    ))?;
    let rows = statement.query_map([], |row| {
        (0..table.key.len()).map(|column| row.get(column)).collect()
    })?;
    rows.collect()
}

fn column_type(kind: Kind) -> String {
    match kind {
        // Exactly this spelling makes the number the row's own.
        Kind::Id => String::from("integer not null"),
        Kind::Name(characters) => format!("varchar({characters}) not null default ''"),
        Kind::Text => String::from("text not null default ''"),
        Kind::Number => String::from("bigint not null default 0"),
        Kind::MaybeNumber => String::from("bigint null"),
        Kind::Flag => String::from("tinyint not null default 0"),
        Kind::MaybeFlag => String::from("tinyint null"),
        Kind::Time => String::from("timestamp not null default '1971-01-01 00:00:00'"),
        Kind::MaybeTime => String::from("timestamp null"),
        Kind::Bytes => String::from("blob null"),
    }
}

fn create_table(table: &Table) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{} {}", quote(column.name), column_type(column.kind)))
        .collect();
    format!(
        "create table {} ({}, primary key ({}))",
        table.name,
        columns.join(", "),
        table.key.join(", ")
    )
}

/// Names of indexes are global in SQLite.
fn create_index(table: &Table, columns: &[&str]) -> String {
    format!(
        "create index if not exists {}_by_{} on {} ({})",
        table.name,
        columns.join("_"),
        table.name,
        columns.join(", ")
    )
}

fn checksum(migration: &Migration) -> String {
    let mut hash = Sha256::new();
    for table in migration.tables {
        hash.update(create_table(table));
        hash.update("\n");
        for index in table.indexes {
            hash.update(create_index(table, index));
            hash.update("\n");
        }
    }
    hex(&hash.finalize())
}

/// A name of a database whose makers may have chosen any.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn statements(table: &Table) -> Statements {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
    let assign = |column: &&str| {
        let place = names
            .iter()
            .position(|name| name == column)
            .map_or(0, |place| place + 1);
        format!("{column} = ?{place}")
    };
    let others: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !table.key.contains(name))
        .collect();
    let set = if others.is_empty() { &names } else { &others };
    let set: Vec<String> = set.iter().map(assign).collect();
    let key: Vec<String> = table.key.iter().map(assign).collect();
    Statements {
        insert: format!(
            "insert into {} ({}) values ({})",
            table.name,
            names.join(", "),
            places.join(", ")
        ),
        update: format!(
            "update {} set {} where {}",
            table.name,
            set.join(", "),
            key.join(" and ")
        ),
    }
}

fn execute(connection: &Connection, sql: &str, values: &[&Value]) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(sql)?
        .execute(params_from_iter(values.iter().copied()))
}

fn put(
    connection: &Connection,
    statements: &BTreeMap<&'static str, Statements>,
    write: &Write,
) -> rusqlite::Result<()> {
    match write {
        Write::Put(row) => {
            let prepared = &statements[row.table.name];
            let values: Vec<&Value> = row.values.iter().collect();
            if execute(connection, &prepared.update, &values)? == 0 {
                execute(connection, &prepared.insert, &values)?;
            }
        }
        Write::Refresh { row, columns } => refresh(connection, statements, row, columns)?,
        Write::Delete {
            table,
            columns,
            values,
        } => {
            let conditions: Vec<String> = columns
                .iter()
                .map(|column| format!("{column} = ?"))
                .collect();
            let sql = format!(
                "delete from {} where {}",
                table.name,
                conditions.join(" and ")
            );
            let values: Vec<&Value> = values.iter().collect();
            execute(connection, &sql, &values)?;
        }
        Write::DeleteRange {
            table,
            column,
            from,
            to,
        } => {
            let sql = format!("delete from {} where {column} between ? and ?", table.name);
            execute(
                connection,
                &sql,
                &[&Value::Number(*from), &Value::Number(*to)],
            )?;
        }
        Write::DeleteBefore {
            table,
            column,
            before,
        } => {
            let sql = format!("delete from {} where {column} < ?", table.name);
            execute(connection, &sql, &[&Value::from(*before)])?;
        }
    }
    Ok(())
}

fn refresh(
    connection: &Connection,
    statements: &BTreeMap<&'static str, Statements>,
    row: &Row,
    columns: &[&str],
) -> rusqlite::Result<()> {
    let table = row.table;
    let of = |name: &str| {
        table
            .columns
            .iter()
            .zip(&row.values)
            .find(|(column, _)| column.name == name)
            .map_or(&Value::Null, |(_, value)| value)
    };
    let set: Vec<String> = columns
        .iter()
        .map(|column| format!("{column} = ?"))
        .collect();
    let key: Vec<String> = table
        .key
        .iter()
        .map(|column| format!("{column} = ?"))
        .collect();
    let sql = format!(
        "update {} set {} where {}",
        table.name,
        set.join(", "),
        key.join(" and ")
    );
    let values: Vec<&Value> = columns
        .iter()
        .chain(table.key)
        .map(|name| of(name))
        .collect();
    if execute(connection, &sql, &values)? == 0 {
        let values: Vec<&Value> = row.values.iter().collect();
        execute(connection, &statements[table.name].insert, &values)?;
    }
    Ok(())
}

/// The file is still this process's and this cluster's.
fn check_owner(
    connection: &Connection,
    path: &Path,
    token: &str,
    cluster: Option<ClusterId>,
) -> Result<(), BackendError> {
    let held = connection
        .prepare_cached("select token, cluster_id from orchestrator_projection where anchor = 1")
        .and_then(|mut statement| {
            statement
                .query_row([], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })
                .optional()
        })
        .map_err(|error| explain(path, &error))?;
    let Some((holder, held_cluster)) = held else {
        return Err(BackendError::Failed {
            place: Place::Sqlite(path.to_owned()),
            reason: String::from("its row in orchestrator_projection is gone"),
        });
    };
    if holder != token {
        return Err(BackendError::TakenOver {
            place: Place::Sqlite(path.to_owned()),
            token: holder,
        });
    }
    match cluster {
        Some(own) if !held_cluster.is_empty() && held_cluster != own.to_string() => {
            Err(BackendError::OtherCluster {
                place: Place::Sqlite(path.to_owned()),
                found: held_cluster,
                own,
            })
        }
        Some(_) | None => Ok(()),
    }
}

fn stamp_it(connection: &Connection, stamp: Stamp) -> rusqlite::Result<()> {
    let wall = Value::from(stamp.wall);
    if let Some(cluster) = stamp.cluster {
        execute(
            connection,
            "update orchestrator_projection set cluster_id = ? where anchor = 1",
            &[&Value::from(cluster.to_string())],
        )?;
    }
    match stamp.applied {
        Some((at, digest)) => execute(
            connection,
            "update orchestrator_projection set written_at = ?, applied_index = ?, applied_term = ?, applied_node = ?, \
             digest = ? where anchor = 1",
            &[
                &wall,
                &at.index.into(),
                &at.term.into(),
                &at.node.to_string().into(),
                &hex(&digest).into(),
            ],
        )?,
        None => execute(
            connection,
            "update orchestrator_projection set written_at = ? where anchor = 1",
            &[&wall],
        )?,
    };
    Ok(())
}

/// A line of `node_health_history`; the oldest make room.
fn remember_run(connection: &Connection, settings: &Settings, wall: Wall) -> rusqlite::Result<()> {
    let newest: i64 = connection.query_row(
        "select coalesce(max(history_id), 0) from node_health_history",
        [],
        |row| row.get(0),
    )?;
    let is_new = connection
        .query_row(
            "select 1 from node_health_history where hostname = ?1 and token = ?2",
            (&settings.host_name, &settings.token),
            |_| Ok(()),
        )
        .optional()?
        .is_none();
    if is_new {
        let id = newest.saturating_add(1);
        connection.execute(
            "insert into node_health_history (history_id, hostname, token, first_seen_active, extra_info, command, \
             app_version) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                id,
                &settings.host_name,
                &settings.token,
                timestamp(wall),
                &settings.extra_info,
                &settings.command,
                &settings.app_version,
            ),
        )?;
        connection.execute(
            "delete from node_health_history where history_id <= ?1",
            [id.saturating_sub(RUNS_KEPT)],
        )?;
    }
    Ok(())
}

fn exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection
        .query_row(
            "select 1 from sqlite_master where type = 'table' and name = ?1 collate nocase",
            [table],
            |_| Ok(()),
        )
        .optional()
        .map(|row| row.is_some())
}

fn recorded(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, Done>> {
    let mut statement = connection.prepare(&format!(
        "select version, checksum, oldest_reader from {MIGRATIONS_TABLE}"
    ))?;
    let rows = statement.query_map([], |row| {
        let done = Done {
            checksum: row.get(1)?,
            oldest_reader: row.get(2)?,
        };
        Ok((row.get(0)?, done))
    })?;
    rows.collect()
}

fn instances(connection: &Connection, table: &str) -> rusqlite::Result<BTreeSet<InstanceKey>> {
    let mut statement =
        connection.prepare(&format!("select hostname, port from {}", quote(table)))?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    let mut keys = BTreeSet::new();
    for row in rows {
        let (host, port) = row?;
        // What no daemon of ours wrote may hold any number.
        if let Ok(port) = u16::try_from(port) {
            keys.insert(InstanceKey::new(host, port));
        }
    }
    Ok(keys)
}

fn migrate(
    connection: &Connection,
    missing: &[&Migration],
    is_ours: bool,
    settings: &Settings,
    wall: Wall,
) -> rusqlite::Result<Option<Adopted>> {
    connection.execute_batch(&format!(
        "create table if not exists {MIGRATIONS_TABLE} (version integer not null primary key, name varchar(64) not null, \
         checksum varchar(64) not null, oldest_reader integer not null, app_version varchar(64) not null, applied_at timestamp \
         not null)"
    ))?;
    let mut adopted = Adopted::default();
    let mut found_tables = false;
    for migration in missing {
        for table in migration.tables {
            if exists(connection, table.name)? {
                found_tables = true;
                adopt(connection, table, &mut adopted)?;
            } else {
                connection.execute_batch(&create_table(table))?;
            }
            for index in table.indexes {
                connection.execute_batch(&create_index(table, index))?;
            }
        }
        connection.execute(
            &format!(
                "insert into {MIGRATIONS_TABLE} (version, name, checksum, oldest_reader, app_version, applied_at) \
                 values (?1, ?2, ?3, ?4, ?5, ?6)"
            ),
            (
                migration.version,
                migration.name,
                checksum(migration),
                migration.oldest_reader,
                &settings.app_version,
                timestamp(wall),
            ),
        )?;
    }
    connection.execute(
        "delete from orchestrator_db_deployments where deployed_version = ?1",
        [&settings.app_version],
    )?;
    connection.execute(
        "insert into orchestrator_db_deployments (deployed_version, deployed_timestamp) values (?1, ?2)",
        (&settings.app_version, timestamp(wall)),
    )?;
    Ok((found_tables && !is_ours).then_some(adopted))
}

/// A column as a file has it.
struct Present {
    name: String,
    is_required: bool,
    has_default: bool,
    is_key: bool,
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Present>> {
    let mut statement = connection.prepare(&format!("pragma table_info({})", quote(table)))?;
    let rows = statement.query_map([], |row| {
        Ok(Present {
            name: row.get::<_, String>(1)?.to_ascii_lowercase(),
            is_required: row.get::<_, i64>(3)? != 0,
            has_default: row.get::<_, Option<String>>(4)?.is_some(),
            is_key: row.get::<_, i64>(5)? != 0,
        })
    })?;
    rows.collect()
}

/// Makes a table that somebody else made fit for this release.
fn adopt(
    connection: &Connection,
    table: &'static Table,
    adopted: &mut Adopted,
) -> rusqlite::Result<()> {
    let rows: i64 =
        connection.query_row(&format!("select count(*) from {}", table.name), [], |row| {
            row.get(0)
        })?;
    if rows > 0 {
        adopted.rows.insert(table.name, rows.unsigned_abs());
    }
    if table.role == Role::Observed {
        adopted.instances = instances(connection, table.name)?;
    }
    if !fits(connection, table)? {
        let aside = name_aside(connection, table)?;
        connection.execute_batch(&format!("alter table {} rename to {aside}", table.name))?;
        connection.execute_batch(&create_table(table))?;
        adopted.set_aside.insert(table.name, aside);
        return Ok(());
    }
    let present = columns_of(connection, table.name)?;
    for column in table.columns {
        if !present.iter().any(|held| held.name == column.name) {
            connection.execute_batch(&format!(
                "alter table {} add column {} {}",
                table.name,
                quote(column.name),
                column_type(column.kind)
            ))?;
        }
    }
    let will_be_rewritten = match table.role {
        Role::Replicated | Role::Observed => true,
        Role::Own | Role::Kept => false,
    };
    if will_be_rewritten && rows > 0 {
        let aside = name_aside(connection, table)?;
        connection.execute_batch(&format!(
            "create table {aside} as select * from {}",
            table.name
        ))?;
        adopted.set_aside.insert(table.name, aside);
    }
    if table.is_written() {
        for (name, _) in unique_indexes(connection, table.name)?
            .iter()
            .filter(|(_, origin)| *origin == Origin::Statement)
        {
            connection.execute_batch(&format!("drop index {}", quote(name)))?;
        }
    }
    Ok(())
}

/// What made an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Statement,
    Constraint,
    Key,
}

fn unique_indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, Origin)>> {
    let mut statement = connection.prepare(&format!("pragma index_list({})", quote(table)))?;
    let rows = statement.query_map([], |row| {
        let origin = match row.get::<_, String>(3)?.as_str() {
            "pk" => Origin::Key,
            "u" => Origin::Constraint,
            _ => Origin::Statement,
        };
        Ok((row.get::<_, String>(1)?, row.get::<_, i64>(2)? != 0, origin))
    })?;
    let mut indexes = Vec::new();
    for row in rows {
        let (name, is_unique, origin) = row?;
        if is_unique {
            indexes.push((name, origin));
        }
    }
    Ok(indexes)
}

/// Rows of this release can be written into the table as it is, once missing columns are added.
fn fits(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let present = columns_of(connection, table.name)?;
    let has = |name: &&str| present.iter().any(|column| column.name == **name);
    if !table.key.iter().all(has) {
        return Ok(false);
    }
    if !table.is_written() {
        return Ok(true);
    }
    let key: BTreeSet<&str> = present
        .iter()
        .filter(|column| column.is_key)
        .map(|column| column.name.as_str())
        .collect();
    let wanted: BTreeSet<&str> = table.key.iter().copied().collect();
    if !key.is_empty() && key != wanted {
        return Ok(false);
    }
    let takes_ours = present.iter().all(|held| match table.column(&held.name) {
        Some(column) => !(held.is_required && column.kind.may_be_null()),
        None => !held.is_required || held.has_default,
    });
    let forbids_equal_rows = unique_indexes(connection, table.name)?
        .iter()
        .any(|(_, origin)| *origin == Origin::Constraint);
    Ok(takes_ours && !forbids_equal_rows)
}

/// A free name for what a table was.
fn name_aside(connection: &Connection, table: &Table) -> rusqlite::Result<String> {
    let mut last = String::new();
    for name in aside_names(table) {
        last = name;
        if !exists(connection, &last)? {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::super::migrations::MIGRATIONS;
    use super::*;

    /// A change of the tables is a new migration: files that exist would otherwise be refused.
    #[test]
    fn migrations_are_what_they_were() {
        for (migration, wanted) in MIGRATIONS
            .iter()
            .zip(["b923cdf74e661aa54a5ebcc7d072d9082ef4ba56e6060cb78f64988f557f12da"])
        {
            assert_eq!(
                checksum(migration),
                wanted,
                "migration {}",
                migration.version
            );
        }
    }

    #[test]
    fn rows_are_put_by_their_key() {
        let statements = statements(&super::super::tables::CLUSTER_ALIAS);
        assert_eq!(
            statements.insert,
            "insert into cluster_alias (cluster_name, alias, last_registered) values (?1, ?2, ?3)"
        );
        assert_eq!(
            statements.update,
            "update cluster_alias set alias = ?2, last_registered = ?3 where cluster_name = ?1"
        );
    }
}
