//! Vote, log, committed position and what is known of peers: one SQLite file of a raft data directory.
//!
//! Never answers for a write that is not on stable storage (WAL, `synchronous=FULL`, one writer task that commits whatever
//! waits as one transaction), never repeats a write that failed, and never mends what it finds damaged: a row that does
//! not match its checksum, or a hole, is a refused start.
//!
//! Holds between calls: memory is ahead of the file by the jobs in the queue, in the same order; `durable` is what the
//! file certainly has.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use super::journal;
use super::peers::PeerRecord;
use super::types::{Config, Entry, LogId, Vote};
use super::wire::{self, LogIdV1, VoteV1, invalid};
use crate::env::{Env, Mutant, spawn};

const FILE: &str = "raft.sqlite";
const FORMAT: &str = "2";
/// The row that says what the others are to hold.
const STATE: &str = "state";
/// Jobs that one transaction takes, at most.
const GROUP_JOBS_MAX: usize = 1024;

/// Why the store cannot be opened.
#[derive(Debug)]
pub(super) enum LogError {
    Io(String),
    Damaged(String),
}

/// One change of the file.
enum Op {
    Put {
        index: u64,
        term: u64,
        data: Arc<[u8]>,
    },
    /// Removes `from..to`.
    Remove {
        from: u64,
        to: u64,
    },
    Value {
        key: &'static str,
        value: Vec<u8>,
    },
    Peer {
        node: u64,
        value: Vec<u8>,
    },
}

/// Whom to tell that a job is on stable storage.
enum Done<E: Env> {
    Flushed(IOFlushed<Config<E>>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

enum Job<E: Env> {
    Write {
        ops: Vec<Op>,
        done: Done<E>,
        after: Written,
    },
    Close(oneshot::Sender<()>),
}

/// Vote and last log id as the file has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Durable {
    pub(super) vote: Option<VoteV1>,
    pub(super) last: Option<LogIdV1>,
}

/// What the rows are to say, written with each commit: a row that is hidden by damage elsewhere in the file has no checksum
/// that tells of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    durable: Durable,
    committed: Option<LogIdV1>,
    purged: Option<LogIdV1>,
}

struct Stored {
    term: u64,
    data: Arc<[u8]>,
}

#[derive(Default)]
struct Shared {
    entries: BTreeMap<u64, Stored>,
    bytes: u64,
    vote: Option<VoteV1>,
    committed: Option<LogIdV1>,
    purged: Option<LogIdV1>,
    durable: Durable,
    commit_longest: Duration,
    /// When the commit that is under way was begun.
    committing_since: Option<Duration>,
    failed: Option<String>,
}

impl Shared {
    fn last(&self) -> Option<LogIdV1> {
        self.entries
            .last_key_value()
            .map(|(index, stored)| LogIdV1 {
                term: stored.term,
                index: *index,
            })
            .or(self.purged)
    }

    fn state(&self) -> Durable {
        Durable {
            vote: self.vote,
            last: self.last(),
        }
    }

    fn written(&self) -> Written {
        Written {
            durable: self.state(),
            committed: self.committed,
            purged: self.purged,
        }
    }

    fn put(&mut self, index: u64, stored: Stored) {
        self.bytes += stored.data.len() as u64;
        if let Some(old) = self.entries.insert(index, stored) {
            self.bytes -= old.data.len() as u64;
        }
    }

    fn dropped(&mut self, gone: BTreeMap<u64, Stored>) {
        self.bytes -= gone
            .values()
            .map(|stored| stored.data.len() as u64)
            .sum::<u64>();
    }
}

/// A handle on the store; all clones are one store.
pub(super) struct LogStore<E: Env> {
    /// Whose it is.
    node: u64,
    jobs: mpsc::UnboundedSender<Job<E>>,
    shared: Arc<Mutex<Shared>>,
    /// The index of the last entry that the file certainly has. Closed when the writer has ended.
    flushed: watch::Receiver<u64>,
}

impl<E: Env> Clone for LogStore<E> {
    fn clone(&self) -> Self {
        LogStore {
            node: self.node,
            jobs: self.jobs.clone(),
            shared: self.shared.clone(),
            flushed: self.flushed.clone(),
        }
    }
}

/// What is found at opening.
pub(super) struct Opened<E: Env> {
    pub(super) store: LogStore<E>,
    pub(super) peers: BTreeMap<u64, PeerRecord>,
}

impl<E: Env> LogStore<E> {
    /// Opens the store of a directory, checks every row, and starts its writer.
    ///
    /// `minted` says that the identity was made just now: only then may the file be missing or nameless.
    pub(super) async fn open(
        directory: &Path,
        node: u64,
        minted: bool,
    ) -> Result<Opened<E>, LogError> {
        let path = directory.join(FILE);
        let (connection, shared, peers) =
            E::blocking(move || load::<E>(&path, node, minted)).await?;
        let (tell, flushed) = watch::channel(index_of(shared.durable));
        let shared = Arc::new(Mutex::new(shared));
        let (jobs, queue) = mpsc::unbounded_channel();
        spawn::<E>(write_jobs::<E>(connection, queue, shared.clone(), tell));
        Ok(Opened {
            store: LogStore {
                node,
                jobs,
                shared,
                flushed,
            },
            peers,
        })
    }

    /// Ends the writer after what is queued; the file is closed when this returns.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }

    pub(super) fn durable(&self) -> Durable {
        self.lock().durable
    }

    /// Returns when the file certainly has the entry at `index`; in error if it never will.
    pub(super) async fn flushed_to(&self, index: u64) -> io::Result<()> {
        let mut flushed = self.flushed.clone();
        let waited = flushed.wait_for(|last| *last >= index).await.map(drop);
        waited.map_err(|_| stopped(&self.lock()))
    }

    /// Nothing was ever written: no vote, no entry.
    pub(super) fn is_empty(&self) -> bool {
        let shared = self.lock();
        shared.vote.is_none() && shared.last().is_none()
    }

    pub(super) fn purged(&self) -> Option<LogIdV1> {
        self.lock().purged
    }

    pub(super) fn last(&self) -> Option<LogIdV1> {
        self.lock().last()
    }

    pub(super) fn committed(&self) -> Option<LogIdV1> {
        self.lock().committed
    }

    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        self.lock().entries.get(&index).map(|stored| stored.term)
    }

    /// Bytes of the entries held.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The index up to which entries must go so that those left hold at most `bytes`.
    pub(super) fn index_to_purge_for(&self, bytes: u64) -> Option<u64> {
        let shared = self.lock();
        let mut excess = shared.bytes.saturating_sub(bytes);
        let mut upto = None;
        for (index, stored) in &shared.entries {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(stored.data.len() as u64);
            upto = Some(*index);
        }
        upto
    }

    /// The longest commit since the last call; one that is under way counts by what it has taken so far, for it may never
    /// end.
    pub(super) fn take_commit_longest(&self) -> Duration {
        let mut shared = self.lock();
        let ended = std::mem::take(&mut shared.commit_longest);
        let since = shared.committing_since;
        ended.max(since.map_or(Duration::ZERO, |since| E::mono().saturating_sub(since)))
    }

    /// Why the writer stopped, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Keeps what is known of a peer; rides along with the next commit.
    pub(super) fn save_peer(&self, node: u64, record: &PeerRecord) -> io::Result<()> {
        let value = record.encode().map_err(invalid)?;
        let shared = self.lock();
        self.queue(&shared, vec![Op::Peer { node, value }], Done::Nobody)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the lock held, so that the queue's order is memory's order.
    fn queue(
        &self,
        shared: &MutexGuard<'_, Shared>,
        ops: Vec<Op>,
        done: Done<E>,
    ) -> io::Result<()> {
        self.jobs
            .send(Job::Write {
                ops,
                done,
                after: shared.written(),
            })
            .map_err(|_| stopped(shared))
    }

    async fn write(
        &self,
        change: impl FnOnce(&mut Shared) -> io::Result<Vec<Op>> + Send,
    ) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        {
            let mut shared = self.lock();
            let ops = change(&mut shared)?;
            self.queue(&shared, ops, Done::Waiter(done))?;
        }
        match written.await {
            Ok(outcome) => outcome,
            Err(_) => Err(stopped(&self.lock())),
        }
    }
}

fn index_of(durable: Durable) -> u64 {
    durable.last.map_or(0, |last| last.index)
}

fn stopped(shared: &Shared) -> io::Error {
    io::Error::other(
        shared
            .failed
            .clone()
            .unwrap_or_else(|| "the raft log is closed".to_owned()),
    )
}

/// The writer: owns the connection, commits what waits, tells whom it concerns. Ends at the first error, for good: whether
/// a failed fsync wrote anything cannot be known.
async fn write_jobs<E: Env>(
    mut connection: Connection,
    mut queue: mpsc::UnboundedReceiver<Job<E>>,
    shared: Arc<Mutex<Shared>>,
    flushed: watch::Sender<u64>,
) {
    let mut jobs = Vec::new();
    let mut close = None;
    while close.is_none() && queue.recv_many(&mut jobs, GROUP_JOBS_MAX).await > 0 {
        let (mut ops, mut told, mut last) = (Vec::new(), Vec::new(), None);
        for job in jobs.drain(..) {
            match job {
                Job::Write {
                    ops: more,
                    done,
                    after,
                } => {
                    ops.extend(more);
                    told.push(done);
                    last = Some(after);
                }
                Job::Close(done) => close = Some(done),
            }
        }
        let Some(state) = last else {
            continue;
        };
        let begun = E::mono();
        shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .committing_since = Some(begun);
        let (back, outcome) = E::blocking(move || {
            let outcome = commit(&mut connection, &ops, &state);
            (connection, outcome)
        })
        .await;
        connection = back;
        let failure = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.committing_since = None;
            match outcome {
                Ok(()) => {
                    shared.durable = state.durable;
                    flushed.send_replace(index_of(shared.durable));
                    shared.commit_longest =
                        shared.commit_longest.max(E::mono().saturating_sub(begun));
                    None
                }
                Err(error) => {
                    let text = format!(
                        "the raft log {} cannot be written ({error}); free the disk or replace it, then start again: what \
                         was acknowledged is kept",
                        connection.path().unwrap_or_default()
                    );
                    shared.failed = Some(text.clone());
                    Some(text)
                }
            }
        };
        for done in told {
            let outcome = match &failure {
                None => Ok(()),
                Some(text) => Err(io::Error::other(text.clone())),
            };
            match done {
                Done::Flushed(callback) => callback.io_completed(outcome),
                Done::Waiter(waiter) => {
                    let _ = waiter.send(outcome);
                }
                Done::Nobody => {}
            }
        }
        if failure.is_some() {
            break;
        }
    }
    let _ = E::blocking(move || drop(connection)).await;
    drop(queue);
    if let Some(done) = close {
        let _ = done.send(());
    }
}

fn commit(connection: &mut Connection, ops: &[Op], state: &Written) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let state = postcard::to_stdvec(state)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let state = Op::Value {
        key: STATE,
        value: state,
    };
    for op in ops.iter().chain([&state]) {
        match op {
            Op::Put { index, term, data } => {
                transaction
                    .prepare_cached(
                        "insert or replace into log(idx, term, data, sum) values(?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![
                        *index as i64,
                        *term as i64,
                        &data[..],
                        entry_sum(*index, *term, data)
                    ])?;
            }
            Op::Remove { from, to } => {
                transaction
                    .prepare_cached("delete from log where idx >= ?1 and idx < ?2")?
                    .execute(params![*from as i64, (*to).min(i64::MAX as u64) as i64])?;
            }
            Op::Value { key, value } => {
                transaction
                    .prepare_cached(
                        "insert or replace into value(key, data, sum) values(?1, ?2, ?3)",
                    )?
                    .execute(params![key, value, value_sum(key, value)])?;
            }
            Op::Peer { node, value } => {
                transaction
                    .prepare_cached(
                        "insert or replace into peer(node, data, sum) values(?1, ?2, ?3)",
                    )?
                    .execute(params![
                        *node as i64,
                        value,
                        value_sum(&node.to_string(), value)
                    ])?;
            }
        }
    }
    transaction.commit()
}

fn entry_sum(index: u64, term: u64, data: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(index.to_be_bytes());
    hash.update(term.to_be_bytes());
    hash.update(data);
    hash.finalize()[..8].to_vec()
}

fn value_sum(key: &str, data: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(key.as_bytes());
    hash.update([0]);
    hash.update(data);
    hash.finalize()[..8].to_vec()
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let is_damage = match error.sqlite_error_code() {
            // The last one: what the file says that its tables are does not suit our statements.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => true,
            Some(_) => false,
            None => matches!(
                error,
                Error::SqlInputError { .. }
                    | Error::InvalidColumnType(..)
                    | Error::FromSqlConversionFailure(..)
                    | Error::IntegralValueOutOfRange(..)
            ),
        };
        if is_damage {
            LogError::Damaged(error.to_string())
        } else {
            LogError::Io(error.to_string())
        }
    }
}

fn load<E: Env>(
    path: &Path,
    node: u64,
    minted: bool,
) -> Result<(Connection, Shared, BTreeMap<u64, PeerRecord>), LogError> {
    let there = E::exists(path).map_err(|error| LogError::Io(error.to_string()))?;
    if !there && !minted {
        return Err(LogError::Damaged(format!("{} is missing", path.display())));
    }
    let ahead = path.with_extension("sqlite-wal");
    if E::exists(&ahead).map_err(|error| LogError::Io(error.to_string()))? {
        let file = E::read_file(&ahead).map_err(|error| LogError::Io(error.to_string()))?;
        if let Some(rot) = journal::rot(&file) {
            return Err(LogError::Damaged(rot));
        }
    }
    let connection = E::open_db(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let synchronous = if E::has(Mutant::UnsyncedLog) {
        "NORMAL"
    } else {
        "FULL"
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch(
        "create table if not exists log(idx integer primary key, term integer not null, data blob not null, sum blob not null) strict;
         create table if not exists value(key text primary key, data blob not null, sum blob not null) strict, without rowid;
         create table if not exists peer(node integer primary key, data blob not null, sum blob not null) strict;",
    )?;
    settle(&connection)?;
    let mut shared = Shared {
        vote: read_value(&connection, "vote")?,
        committed: read_value(&connection, "committed")?,
        purged: read_value(&connection, "purged")?,
        ..Shared::default()
    };
    read_entries(&connection, &mut shared)?;
    shared.durable = shared.state();
    claim(&connection, node, minted, &shared)?;
    let written: Written = read_value(&connection, STATE)?.unwrap_or_default();
    if written != shared.written() {
        return Err(LogError::Damaged(format!(
            "what was written last is {written:?}, and what is read {:?}",
            shared.written()
        )));
    }
    let peers = read_peers(&connection)?;
    Ok((connection, shared, peers))
}

/// Makes durable whatever a reader sees. A process before this one may have ended because a sync failed: the system goes on
/// showing what it was given, and loses it with the next power cut, without a word at any later sync. Copied into the
/// database it is written again.
fn settle(connection: &Connection) -> Result<(), LogError> {
    let busy: i64 =
        connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
    if busy == 0 {
        Ok(())
    } else {
        Err(LogError::Io("another process reads the log".to_owned()))
    }
}

/// The file belongs to one identity. A nameless one is what a first start that was interrupted leaves behind.
fn claim(
    connection: &Connection,
    node: u64,
    minted: bool,
    shared: &Shared,
) -> Result<(), LogError> {
    let format: Option<String> = read_value(connection, "format")?;
    if let Some(format) = format.filter(|format| format != FORMAT) {
        return Err(LogError::Io(format!(
            "the log has format {format}, and this program reads {FORMAT}"
        )));
    }
    let owner: Option<u64> = read_value(connection, "node")?;
    match owner {
        Some(owner) if owner == node => Ok(()),
        Some(owner) if minted && (shared.vote.is_some() || shared.last().is_some()) => {
            Err(LogError::Damaged(format!(
                "the identity record is missing, and the log belongs to node {owner:016x}"
            )))
        }
        Some(owner) if !minted => Err(LogError::Damaged(format!(
            "the log belongs to node {owner:016x} and the identity record to {node:016x}"
        ))),
        None if !minted => Err(LogError::Damaged("the log names no node".to_owned())),
        Some(_) | None => {
            for (key, value) in [
                (
                    "format",
                    postcard::to_stdvec(FORMAT).map_err(|error| LogError::Io(error.to_string()))?,
                ),
                (
                    "node",
                    postcard::to_stdvec(&node).map_err(|error| LogError::Io(error.to_string()))?,
                ),
            ] {
                connection.execute(
                    "insert or replace into value(key, data, sum) values(?1, ?2, ?3)",
                    params![key, value, value_sum(key, &value)],
                )?;
            }
            Ok(())
        }
    }
}

fn read_value<T: DeserializeOwned>(
    connection: &Connection,
    key: &str,
) -> Result<Option<T>, LogError> {
    let found: Option<(Vec<u8>, Vec<u8>)> = connection
        .query_row("select data, sum from value where key = ?1", [key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((data, sum)) = found else {
        return Ok(None);
    };
    if sum != value_sum(key, &data) {
        return Err(LogError::Damaged(format!(
            "the checksum of '{key}' does not match"
        )));
    }
    match postcard::from_bytes(&data) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(LogError::Damaged(format!(
            "'{key}' cannot be read: {error}"
        ))),
    }
}

fn read_entries(connection: &Connection, shared: &mut Shared) -> Result<(), LogError> {
    let mut statement = connection.prepare("select idx, term, data, sum from log order by idx")?;
    let mut rows = statement.query([])?;
    let mut next = shared.purged.map_or(0, |purged| purged.index + 1);
    while let Some(row) = rows.next()? {
        let (index, term) = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
        let (data, sum): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        if index != next {
            return Err(LogError::Damaged(format!(
                "the log has entry {index} where {next} belongs"
            )));
        }
        if sum != entry_sum(index, term, &data) {
            return Err(LogError::Damaged(format!(
                "the checksum of log entry {index} does not match"
            )));
        }
        shared.put(
            index,
            Stored {
                term,
                data: data.into(),
            },
        );
        next += 1;
    }
    Ok(())
}

fn read_peers(connection: &Connection) -> Result<BTreeMap<u64, PeerRecord>, LogError> {
    let mut statement = connection.prepare("select node, data, sum from peer order by node")?;
    let mut rows = statement.query([])?;
    let mut peers = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let node = row.get::<_, i64>(0)? as u64;
        let (data, sum): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
        let record = (sum == value_sum(&node.to_string(), &data))
            .then(|| PeerRecord::decode(&data).ok())
            .flatten();
        let record = record.ok_or_else(|| {
            LogError::Damaged(format!("what was known of node {node:016x} is damaged"))
        })?;
        peers.insert(node, record);
    }
    Ok(peers)
}

fn value_op<T: Serialize>(key: &'static str, value: &T) -> io::Result<Op> {
    Ok(Op::Value {
        key,
        value: postcard::to_stdvec(value).map_err(invalid)?,
    })
}

impl<E: Env> RaftLogReader<Config<E>> for LogStore<E> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<E>>, io::Error> {
        let found: Vec<Arc<[u8]>> = self
            .lock()
            .entries
            .range(range)
            .map(|(_, stored)| stored.data.clone())
            .collect();
        found
            .iter()
            .map(|data| wire::entry::<E>(wire::decode_entry(data)?))
            .collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<E>>, io::Error> {
        Ok(self.lock().vote.map(wire::vote::<E>))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<E>>, io::Error> {
        let mut found: Vec<Arc<[u8]>> = Vec::new();
        let mut bytes = 0;
        for (_, stored) in self.lock().entries.range(start..end) {
            bytes += stored.data.len();
            if bytes > wire::APPEND_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(stored.data.clone());
        }
        found
            .iter()
            .map(|data| wire::entry::<E>(wire::decode_entry(data)?))
            .collect()
    }
}

/// A node promised its vote in a term: its word stands across every restart.
pub(super) fn tell_of_promise(vote: VoteV1, node: u64) {
    crate::trace::event(
        "vote",
        format_args!("{} {:016x} {node:016x}", vote.term, vote.node),
    );
}

impl<E: Env> RaftLogStorage<Config<E>> for LogStore<E> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Config<E>>, io::Error> {
        let shared = self.lock();
        Ok(LogState {
            last_purged_log_id: shared.purged.map(wire::log_id::<E>),
            last_log_id: shared.last().map(wire::log_id::<E>),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<E>) -> Result<(), io::Error> {
        let vote = wire::mirror_vote::<E>(vote);
        self.write(|shared| {
            shared.vote = Some(vote);
            Ok(vec![value_op("vote", &vote)?])
        })
        .await?;
        // Another's may have been seen only; who is given this node's is told of where that is answered.
        if !vote.committed && vote.node == self.node {
            tell_of_promise(vote, self.node);
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId<E>>) -> Result<(), io::Error> {
        let Some(committed) = committed.as_ref().map(wire::mirror_log_id::<E>) else {
            return Ok(());
        };
        // A hint, so not waited for: it is committed together with or after the entries it speaks of.
        let mut shared = self.lock();
        shared.committed = Some(committed);
        self.queue(
            &shared,
            vec![value_op("committed", &committed)?],
            Done::Nobody,
        )
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<E>>, io::Error> {
        Ok(self.lock().committed.map(wire::log_id::<E>))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<Config<E>>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry<E>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        for entry in entries {
            let mirror = wire::mirror_entry::<E>(&entry);
            let data: Arc<[u8]> = wire::encode_entry(&mirror)?.into();
            rows.push((mirror.id, data));
        }
        let mut shared = self.lock();
        let mut ops = Vec::with_capacity(rows.len());
        for (id, data) in rows {
            shared.put(
                id.index,
                Stored {
                    term: id.term,
                    data: data.clone(),
                },
            );
            ops.push(Op::Put {
                index: id.index,
                term: id.term,
                data,
            });
        }
        let done = if E::has(Mutant::EarlyAcknowledgement) {
            callback.io_completed(Ok(()));
            Done::Nobody
        } else {
            Done::Flushed(callback)
        };
        self.queue(&shared, ops, done)
    }

    async fn truncate_after(&mut self, last: Option<LogId<E>>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        self.write(|shared| {
            let gone = shared.entries.split_off(&from);
            shared.dropped(gone);
            Ok(vec![Op::Remove { from, to: u64::MAX }])
        })
        .await
    }

    async fn purge(&mut self, upto: LogId<E>) -> Result<(), io::Error> {
        let upto = wire::mirror_log_id::<E>(&upto);
        self.write(|shared| {
            let kept = shared.entries.split_off(&(upto.index + 1));
            let gone = std::mem::replace(&mut shared.entries, kept);
            shared.dropped(gone);
            shared.purged = Some(upto);
            let mut ops = vec![
                value_op("purged", &upto)?,
                Op::Remove {
                    from: 0,
                    to: upto.index + 1,
                },
            ];
            // A snapshot that was installed past the log's end makes everything up to it committed.
            if shared.committed < Some(upto) {
                shared.committed = Some(upto);
                ops.push(value_op("committed", &upto)?);
            }
            Ok(ops)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{DedicatedRuntime, TokioEnv};
    use crate::raft::test_folder::Folder;
    use crate::raft::wire::{EntryV1, PayloadV1};

    type Store = LogStore<TokioEnv>;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = DedicatedRuntime::start("log-test", 1).unwrap();
        let outcome = runtime.run(future);
        runtime.stop();
        outcome
    }

    fn command(term: u64, index: u64) -> Entry<TokioEnv> {
        let payload = PayloadV1::Command {
            leader: 7,
            command: vec![index as u8; 100],
        };
        wire::entry::<TokioEnv>(EntryV1 {
            id: LogIdV1 { term, index },
            payload,
        })
        .unwrap()
    }

    async fn open(folder: &Folder, minted: bool) -> Result<Store, LogError> {
        LogStore::open(&folder.0, 7, minted)
            .await
            .map(|opened| opened.store)
    }

    async fn append(store: &mut Store, term: u64, indexes: std::ops::Range<u64>) {
        let (tx, rx) =
            <openraft_rt_tokio::TokioRuntime as openraft_rt::AsyncRuntime>::Oneshot::channel();
        let entries: Vec<_> = indexes.map(|index| command(term, index)).collect();
        store.append(entries, IOFlushed::signal(tx)).await.unwrap();
        rx.await.unwrap().unwrap();
    }

    use openraft_rt::Oneshot;

    /// A store with entries 0..10 of term 1 and 10..20 of term 2, purged up to 4, closed.
    async fn filled(folder: &Folder) {
        let mut store = open(folder, true).await.unwrap();
        assert!(store.is_empty());
        store
            .save_vote(&Vote::<TokioEnv>::new_committed(2, 7))
            .await
            .unwrap();
        append(&mut store, 1, 0..12).await;
        store
            .truncate_after(Some(wire::log_id::<TokioEnv>(LogIdV1 {
                term: 1,
                index: 9,
            })))
            .await
            .unwrap();
        append(&mut store, 2, 10..20).await;
        let committed = wire::log_id::<TokioEnv>(LogIdV1 { term: 2, index: 15 });
        store.save_committed(Some(committed)).await.unwrap();
        store
            .purge(wire::log_id::<TokioEnv>(LogIdV1 { term: 1, index: 4 }))
            .await
            .unwrap();
        store.close().await;
    }

    #[test]
    fn everything_is_there_after_a_restart() {
        run(async {
            let folder = Folder::make("log");
            filled(&folder).await;
            let mut store = open(&folder, false).await.unwrap();
            assert!(!store.is_empty());
            assert_eq!(
                store.read_vote().await.unwrap(),
                Some(Vote::<TokioEnv>::new_committed(2, 7))
            );
            assert_eq!(store.durable().last, Some(LogIdV1 { term: 2, index: 19 }));
            assert_eq!(store.committed(), Some(LogIdV1 { term: 2, index: 15 }));
            let state = store.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id.unwrap().index, 4);
            let read = store.try_get_log_entries(0..100).await.unwrap();
            let expected: Vec<_> = (5..10)
                .map(|index| command(1, index))
                .chain((10..20).map(|index| command(2, index)))
                .collect();
            assert_eq!(read, expected);
            assert_eq!(
                store.bytes(),
                read.len() as u64 * (store.bytes() / read.len() as u64)
            );
            store.close().await;
        });
    }

    #[test]
    fn append_answers_with_what_is_durable() {
        run(async {
            let folder = Folder::make("log-durable");
            let mut store = open(&folder, true).await.unwrap();
            append(&mut store, 1, 0..3).await;
            assert_eq!(store.durable().last, Some(LogIdV1 { term: 1, index: 2 }));
            store.close().await;
            let late = store
                .save_vote(&Vote::<TokioEnv>::new(1, 7))
                .await
                .unwrap_err();
            assert!(late.to_string().contains("closed"), "{late}");
        });
    }

    #[test]
    fn reads_for_a_peer_are_bounded_and_never_empty() {
        run(async {
            let folder = Folder::make("log-limited");
            let mut store = open(&folder, true).await.unwrap();
            let payload = PayloadV1::Command {
                leader: 7,
                command: vec![1; wire::APPEND_BYTES_MAX / 2 + 1],
            };
            let big = |index| {
                wire::entry::<TokioEnv>(EntryV1 {
                    id: LogIdV1 { term: 1, index },
                    payload: payload.clone(),
                })
                .unwrap()
            };
            store
                .append(vec![big(0), big(1), big(2)], IOFlushed::noop())
                .await
                .unwrap();
            assert_eq!(store.limited_get_log_entries(0, 3).await.unwrap().len(), 1);
            assert_eq!(
                store.index_to_purge_for(wire::APPEND_BYTES_MAX as u64),
                Some(1)
            );
            assert_eq!(store.index_to_purge_for(u64::MAX), None);
            store.close().await;
        });
    }

    /// Damages a closed store with one statement and expects the next start to be refused for `wanted`.
    async fn damaged(statement: &str, wanted: &str) {
        let folder = Folder::make("log-damage");
        filled(&folder).await;
        let connection = Connection::open(folder.0.join(FILE)).unwrap();
        connection.execute_batch(statement).unwrap();
        drop(connection);
        match open(&folder, false).await {
            Err(LogError::Damaged(reason)) => assert!(reason.contains(wanted), "{reason}"),
            Err(LogError::Io(error)) => panic!("an error that is no damage: {error}"),
            Ok(_) => panic!("opened after: {statement}"),
        }
    }

    #[test]
    fn damage_is_a_refused_start() {
        run(async {
            damaged(
                "update log set data = zeroblob(length(data)) where idx = 7",
                "checksum of log entry 7",
            )
            .await;
            damaged(
                "update log set term = 9 where idx = 19",
                "checksum of log entry 19",
            )
            .await;
            damaged("delete from log where idx = 8", "entry 9 where 8 belongs").await;
            damaged(
                "update value set data = x'00' where key = 'vote'",
                "checksum of 'vote'",
            )
            .await;
            damaged(
                "update log set sum = x'00' where idx = 5",
                "checksum of log entry 5",
            )
            .await;
            damaged("delete from value where key = 'node'", "names no node").await;
            damaged("alter table log rename column sum to sun", "no such column").await;
        });
    }

    /// Whatever bit rots in the file, a start reads what was written, or is refused.
    #[test]
    fn no_changed_bit_is_taken_for_what_was_written() {
        run(async {
            let folder = Folder::make("log-bits");
            filled(&folder).await;
            let path = folder.0.join(FILE);
            let good = std::fs::read(&path).unwrap();
            let all = |store: &LogStore<TokioEnv>| {
                let shared = store.lock();
                let entries: Vec<_> = shared
                    .entries
                    .iter()
                    .map(|(index, stored)| (*index, stored.term, stored.data.clone()))
                    .collect();
                (entries, shared.vote, shared.purged, shared.committed)
            };
            let store = open(&folder, false).await.unwrap();
            let wanted = all(&store);
            store.close().await;
            // Page headers, where one bit hides rows, are all tried; of the rest every so many-th byte.
            let places = (0..good.len()).filter(|place| place % 4096 < 120 || place % 29 == 0);
            let (mut refused, mut read) = (0, 0);
            for place in places {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << (place % 8);
                for name in TokioEnv::list_dir(&folder.0).unwrap() {
                    std::fs::remove_file(folder.0.join(name)).unwrap();
                }
                std::fs::write(&path, bytes).unwrap();
                match open(&folder, false).await {
                    Err(_) => refused += 1,
                    Ok(store) => {
                        assert_eq!(all(&store), wanted, "byte {place}");
                        store.close().await;
                        read += 1;
                    }
                }
            }
            assert!(
                refused > 100 && read > 100,
                "{refused} refused, {read} read"
            );
        });
    }

    #[test]
    fn a_missing_or_foreign_log_is_a_refused_start() {
        run(async {
            let folder = Folder::make("log-missing");
            assert!(matches!(
                open(&folder, false).await,
                Err(LogError::Damaged(_))
            ));
            filled(&folder).await;
            let other = LogStore::<TokioEnv>::open(&folder.0, 8, false).await;
            assert!(matches!(other, Err(LogError::Damaged(_))));
            let minted = LogStore::<TokioEnv>::open(&folder.0, 8, true).await;
            assert!(matches!(minted, Err(LogError::Damaged(_))));
        });
    }

    #[test]
    fn an_interrupted_first_start_is_taken_over() {
        run(async {
            let folder = Folder::make("log-first");
            open(&folder, true).await.unwrap().close().await;
            let taken = LogStore::<TokioEnv>::open(&folder.0, 8, true).await;
            taken.ok().unwrap().store.close().await;
        });
    }

    #[test]
    fn a_file_that_is_no_database_is_damage() {
        run(async {
            let folder = Folder::make("log-garbage");
            std::fs::write(folder.0.join(FILE), [7; 4096]).unwrap();
            assert!(matches!(
                open(&folder, false).await,
                Err(LogError::Damaged(_))
            ));
        });
    }
}
