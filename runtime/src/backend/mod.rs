//! The backend database: a projection of the replicated state and of what is observed, written behind, for people and
//! tools to read. Tables and columns are the original's (`spec/backend.md` section 5).
//!
//! Nothing is judged, answered or acknowledged by what is here. The rows of the replicated state, the log position they
//! stand at, the cluster they belong to and the state's digest change in one transaction, so that a start can decide
//! what the file is worth (`RAFT.md` section 1); whatever it is, it can be rewritten from the state. Whoever sends
//! changes never waits: what waits to be written is bounded, and beyond the bound only the fact is kept that everything
//! is to be rewritten.
//!
//! `rows` says what is written, `tables` into which tables, `writer` when, `sqlite` and `mysql` how; `by_hand` writes beside
//! the daemon, on an operator's word, what the daemon discards at its next start; `read_back` reads what
//! people said, when nothing else is left of a cluster, `original` what the original program's rows say; both ask by
//! `question`. `foreign` names rows that are going to be removed because the state does not have them.

mod by_hand;
mod database;
mod foreign;
mod migrations;
mod mysql;
mod observe;
mod original;
mod question;
mod read_back;
mod rows;
mod shown;
mod sqlite;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use orchestrator_core::id::{ClusterId, InstanceKey, LogPosition, NodeId};
use orchestrator_core::node::LocalOriginal;
use orchestrator_core::replicated::{Change, Replicated};
use orchestrator_core::time::Wall;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::by_hand::write as write_by_hand;
use self::database::{Look, Mark, Watch};
pub use self::observe::{Observation, Seen};
pub use self::read_back::{ReadBack, read_back};
pub use self::shown::{Shown, shown};
use crate::config::{BackendKind, BackendSettings, MysqlBackend};
use crate::env::{Env, sleep, spawn};
use crate::raft::BackendPosition;

/// How long changes may wait for others to be written with them.
const BATCH_AGE_MAX: Duration = Duration::from_millis(50);
/// Batches written in one transaction.
const BATCHES_PER_WRITE_MAX: usize = 1_000;
/// Changes that may wait to be written.
const BACKLOG_CHANGES_MAX: usize = 100_000;
/// The same in bytes, by estimate.
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Observed servers written in one transaction.
const OBSERVATIONS_PER_WRITE_MAX: usize = 1_000;
/// How often the daemon's own row is written.
const BEAT: Duration = Duration::from_secs(1);
/// How often observed servers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Another daemon's database is that one's until its row has stood still for so long before our eyes.
const IN_USE: Duration = Duration::from_secs(10);
/// Between two looks at it: longer than a [`BEAT`].
const IN_USE_LOOK: Duration = Duration::from_millis(1_500);
/// Runs of daemons that `node_health_history` remembers.
const RUNS_KEPT: i64 = 1_000;
/// The most versions of a table that are kept aside.
const ASIDE_MAX: u32 = 100;
/// A daemon whose row is older than this is not alive (`node_health`).
const NODE_HEALTH_KEPT: Duration = Duration::from_secs(5);

/// Whether the tables may be changed at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deploy {
    Apply,
    /// The key of the configuration that forbids it.
    Refuse {
        key: &'static str,
    },
}

/// Where the backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path, or a text containing `:memory:`.
    Sqlite(PathBuf),
    Mysql(Box<MysqlBackend>),
}

impl Place {
    /// A word for what each daemon has of its own.
    const fn noun(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "file",
            Self::Mysql(_) => "schema",
        }
    }
}

/// As it is shown in `node_health` and in messages.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Mysql(backend) => write!(
                f,
                "{} at {}:{}",
                backend.database, backend.host, backend.port
            ),
        }
    }
}

/// The key of the configuration that names a place, and the place.
#[derive(Debug)]
pub struct Named<'a>(pub &'a Place);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.0 {
            Place::Sqlite(_) => "SQLite3DataFile",
            Place::Mysql(_) => "MySQLOrchestratorDatabase",
        };
        write!(f, "{key}: {}", self.0)
    }
}

/// Where the backend is, and who writes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub place: Place,
    pub deploy: Deploy,
    /// Where the daemon is, to be shown; and who it is, of one that has no identity.
    pub daemon: String,
    /// Its raft identity: tells it from another one that was given its file.
    pub identity: Option<NodeId>,
    /// The cluster that it belongs to, if it knows.
    pub cluster: Option<ClusterId>,
    pub host_name: String,
    /// Of this process, drawn at its start.
    pub token: String,
    pub app_version: String,
    /// `HttpMode` for a daemon.
    pub extra_info: String,
    pub command: String,
}

impl Settings {
    /// Whose rows they are, as the database says it.
    #[must_use]
    pub fn owner(&self) -> String {
        match self.identity {
            Some(identity) => format!("{} {identity}", self.daemon),
            None => self.daemon.clone(),
        }
    }

    /// Settings by configuration; who writes is to be filled in.
    #[must_use]
    pub fn new(backend: &BackendSettings) -> Self {
        let place = match &backend.kind {
            BackendKind::Sqlite { data_file } => Place::Sqlite(PathBuf::from(data_file)),
            BackendKind::Mysql(backend) => Place::Mysql(backend.clone()),
        };
        let deploy = if backend.skip_schema_update {
            Deploy::Refuse {
                key: "SkipOrchestratorDatabaseUpdate",
            }
        } else if backend.panic_if_different_deploy {
            Deploy::Refuse {
                key: "PanicIfDifferentDatabaseDeploy",
            }
        } else {
            Deploy::Apply
        };
        Self {
            place,
            deploy,
            daemon: String::new(),
            identity: None,
            cluster: None,
            host_name: String::new(),
            token: String::new(),
            app_version: env!("CARGO_PKG_VERSION").to_owned(),
            extra_info: String::from("HttpMode"),
            command: String::new(),
        }
    }
}

/// What a step of the node changed in the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The newest entry that was applied by then.
    pub at: LogPosition,
    /// Of the replicated state at that entry.
    pub digest: [u8; 32],
    pub contents: Contents,
}

/// How the state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// By applying entries: the rows that are different, in the order in which they became so.
    Changes(Vec<Change>),
    /// It was replaced by a snapshot.
    Replaced,
}

impl Batch {
    #[must_use]
    pub const fn changes(at: LogPosition, digest: [u8; 32], changes: Vec<Change>) -> Self {
        Self {
            at,
            digest,
            contents: Contents::Changes(changes),
        }
    }

    #[must_use]
    pub const fn replaced(at: LogPosition, digest: [u8; 32]) -> Self {
        Self {
            at,
            digest,
            contents: Contents::Replaced,
        }
    }
}

/// The node, as the backend looks at it. All batches of entries up to the state that is returned were sent before.
pub trait View: Send + Sync + 'static {
    /// A copy of the replicated state. None once the node is gone.
    fn replicated(&self) -> impl Future<Output = Option<Replicated>> + Send;
    /// Runs [`Seen::look`] on what the node observes. None once the node is gone.
    fn observe(&self, seen: Seen) -> impl Future<Output = Option<(Seen, Vec<Observation>)>> + Send;
}

/// Where the rows of a backend stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// None: written before the daemon belonged to a cluster.
    pub cluster: Option<ClusterId>,
    /// None: a cluster's, and no entry of it was written.
    pub at: Option<LogPosition>,
    /// Of the replicated state at that entry; none if it is damaged.
    pub digest: Option<[u8; 32]>,
}

/// What a database held that another program made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Rows by table, where there were any.
    pub rows: BTreeMap<&'static str, u64>,
    /// The servers it knew.
    pub instances: BTreeSet<InstanceKey>,
    /// Under which name the rows of a table are kept.
    pub set_aside: BTreeMap<&'static str, String>,
}

/// How far the backend is behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendHealth {
    /// Age of the oldest change that is not written; zero when all are.
    pub oldest_unwritten: Duration,
    /// Why the last write failed; none after one that did not.
    pub error: Option<String>,
}

/// Why the backend cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendError {
    /// The folder of the file is missing.
    NoFolder(PathBuf),
    Unwritable {
        path: PathBuf,
        reason: String,
    },
    Damaged {
        path: PathBuf,
        reason: String,
    },
    Full {
        path: PathBuf,
    },
    /// Its disk answers with errors.
    Sick {
        path: PathBuf,
        reason: String,
    },
    Busy {
        path: PathBuf,
    },
    /// Another daemon writes to it.
    InUse {
        place: Place,
        daemon: String,
        token: String,
        written_at: String,
    },
    /// Another daemon has begun to write to it.
    TakenOver {
        place: Place,
        token: String,
    },
    OtherCluster {
        place: Place,
        found: String,
        own: ClusterId,
    },
    Schema {
        place: Place,
        reason: String,
    },
    Failed {
        place: Place,
        reason: String,
    },
    /// These keys say where the schema is, and are not set.
    Unnamed {
        missing: Vec<&'static str>,
    },
    /// The server does not answer.
    Unreachable {
        place: Place,
        reason: String,
    },
    /// The server does not let our account in, or do what is needed.
    NoRight {
        backend: Box<MysqlBackend>,
        reason: String,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder(folder) => write!(
                f,
                "SQLite3DataFile: the folder {} does not exist; create it, owned by the user that runs orchestrator",
                folder.display()
            ),
            Self::Unwritable { path, reason } => write!(
                f,
                "SQLite3DataFile: {} cannot be written ({reason}); give the user that runs orchestrator the right to \
                 write the file and its folder (under systemd the unit may forbid it: ReadWritePaths=), or name another file",
                path.display()
            ),
            Self::Damaged { path, reason } => write!(
                f,
                "SQLite3DataFile: {} is damaged or no SQLite file ({reason}); move it and the files {}-wal and -shm \
                 away: it is rebuilt from RaftDataDir",
                path.display(),
                path.display()
            ),
            Self::Full { path } => write!(
                f,
                "SQLite3DataFile: no room left on the disk of {}; make room",
                path.display()
            ),
            Self::Sick { path, reason } => write!(
                f,
                "SQLite3DataFile: the disk of {} fails ({reason}); look at the system's log, mend the disk or name a file on another, \
                 then start again",
                path.display()
            ),
            Self::Busy { path } => write!(
                f,
                "SQLite3DataFile: another process has kept {} locked for writing; end it, or let it only read",
                path.display()
            ),
            Self::InUse {
                place,
                daemon,
                token,
                written_at,
            } => write!(
                f,
                "{} is in use by another daemon ({daemon}, process {token}, wrote at {written_at} UTC); each daemon needs a \
                 {} of its own",
                Named(place),
                place.noun()
            ),
            Self::TakenOver { place, token } => write!(
                f,
                "{}: another daemon (process {token}) writes to it; each daemon needs a {} of its own",
                Named(place),
                place.noun()
            ),
            Self::OtherCluster { place, found, own } => write!(
                f,
                "{} belongs to the raft cluster {found}, this daemon to {own}; name another {noun}, or move this one away: it \
                 is rebuilt from RaftDataDir",
                Named(place),
                noun = place.noun()
            ),
            Self::Schema { place, reason } => write!(
                f,
                "{}: {reason}; a {} that is moved away is rebuilt from RaftDataDir",
                Named(place),
                place.noun()
            ),
            Self::Failed { place, reason } => write!(f, "{}: {reason}", Named(place)),
            Self::Unnamed { missing } => write!(
                f,
                "BackendDB is mysql, as it is when it is not set, and {} not set: add, for a server on this machine, \
                 \"MySQLOrchestratorHost\": \"127.0.0.1\", \"MySQLOrchestratorDatabase\": \"orchestrator\", and MySQLOrchestratorUser and \
                 MySQLOrchestratorPassword of an account with all rights on that schema; or, for a file in place of a server, \
                 \"BackendDB\": \"sqlite\", \"SQLite3DataFile\": \"/var/lib/orchestrator/orchestrator.db\"",
                match &missing[..] {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(" and ")),
                }
            ),
            Self::Unreachable { place, reason } => write!(
                f,
                "{}: the server cannot be reached ({reason}); check MySQLOrchestratorHost and MySQLOrchestratorPort, and that \
                 it runs",
                Named(place)
            ),
            Self::NoRight { backend, reason } => {
                let (database, user) = (&backend.database, &backend.credentials.user);
                write!(
                    f,
                    "MySQLOrchestratorUser: {user} at {}:{} lacks a right ({reason}); run there: CREATE DATABASE IF NOT EXISTS \
                     `{database}`; CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '...'; GRANT ALL PRIVILEGES ON \
                     `{database}`.* TO '{user}'@'%'",
                    backend.host, backend.port
                )
            }
        }
    }
}

impl std::error::Error for BackendError {}

/// The database as a start finds it.
#[derive(Debug)]
pub struct Opened {
    /// None: it never held a state of ours.
    pub position: Option<Position>,
    /// Set if this start found another program's database in its place.
    pub adopted: Option<Adopted>,
    settings: Settings,
    database: database::Database,
    instances: BTreeSet<InstanceKey>,
    is_by_hand: bool,
    /// What the original program's rows say, if there are any.
    pub original: Option<LocalOriginal>,
}

/// Opens the backend, creating it if missing, and brings its tables to this release's. One that another daemon wrote to is
/// looked at again, until that one writes again (it is in use) or has been silent for long enough (it is a copy of that
/// one's, or was moved here). When it was written says nothing: two machines' clocks may differ by any amount.
///
/// # Errors
/// Names the place and what to do.
pub async fn open<E: Env>(settings: Settings) -> Result<Opened, BackendError> {
    let mut watch = Watch::default();
    let (database, found) = loop {
        let silent = watch.silent(E::mono());
        let opened = database::open::<E>(&settings, silent, wall::<E>()).await;
        let Err(BackendError::InUse {
            daemon,
            token,
            written_at,
            ..
        }) = &opened
        else {
            break opened?;
        };
        let mark = Mark {
            token: token.clone(),
            written_at: written_at.clone(),
        };
        match watch.saw(mark, E::mono()) {
            Look::First => tracing::info!(
                "{} was written to by another daemon ({daemon}) at {written_at} UTC: waiting whether that one still uses it",
                settings.place
            ),
            Look::Still => {}
            Look::Moved => break opened?,
        }
        sleep::<E>(IN_USE_LOOK).await;
    };
    if let Some(adopted) = &found.adopted {
        tracing::info!(
            "{} is another program's database: adopted in place, {} tables had rows, {} servers; kept aside: {:?}",
            settings.place,
            adopted.rows.len(),
            adopted.instances.len(),
            adopted.set_aside.values().collect::<Vec<_>>()
        );
    }
    Ok(Opened {
        position: found.position,
        adopted: found.adopted,
        settings,
        database,
        instances: found.instances,
        is_by_hand: found.is_by_hand,
        original: original::read(&found.original),
    })
}

impl Opened {
    /// For [`crate::raft::decide_start`].
    #[must_use]
    pub fn for_start(&self) -> Option<BackendPosition> {
        self.position.map(|position| BackendPosition {
            cluster: position.cluster,
            at: position.at,
            digest_ok: position.at.is_none() || position.digest.is_some(),
        })
    }

    /// Starts to write. A database that holds no state of ours is rewritten as soon as there is a state.
    pub fn start<E: Env, V: View>(self, view: V) -> Backend {
        let (batches, batches_received) = mpsc::unbounded_channel();
        let (control, control_received) = mpsc::unbounded_channel();
        let health = watch::Sender::new(BackendHealth::default());
        let backend = Backend {
            batches,
            control,
            health: health.subscribe(),
        };
        let writer = writer::Writer::<E, V>::new(self, view, health);
        spawn::<E>(writer.run(batches_received, control_received));
        backend
    }
}

/// What the writer is told beside batches.
#[derive(Debug)]
enum Control {
    Cluster(ClusterId),
    Rebuild(String),
    /// Pairs for `kv_store`.
    Pairs(Vec<(String, String)>),
    Close(oneshot::Sender<Option<String>>),
}

/// A handle on the writer. It ends when it is closed, or when all handles and senders of batches are gone.
#[derive(Debug, Clone)]
pub struct Backend {
    batches: mpsc::UnboundedSender<Batch>,
    control: mpsc::UnboundedSender<Control>,
    health: watch::Receiver<BackendHealth>,
}

impl Backend {
    /// Where batches go, in the order of their positions. Positions that the database holds already are passed over.
    #[must_use]
    pub fn batches(&self) -> mpsc::UnboundedSender<Batch> {
        self.batches.clone()
    }

    /// Over 5 s the daemon yields leadership, over 30 s it exits.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<BackendHealth> {
        self.health.clone()
    }

    /// The daemon belongs to this cluster. Until it is told, rows are written without one.
    pub fn set_cluster(&self, cluster: ClusterId) {
        // The writer is gone only after it was closed.
        let _ = self.control.send(Control::Cluster(cluster));
    }

    /// Everything is to be rewritten from the state, as soon as there is one.
    pub fn rebuild(&self, reason: impl Into<String>) {
        let _ = self.control.send(Control::Rebuild(reason.into()));
    }

    /// Puts pairs into the table `kv_store`, within a second or two; they are lost if the daemon ends before.
    pub fn publish(&self, pairs: Vec<(String, String)>) {
        let _ = self.control.send(Control::Pairs(pairs));
    }

    /// Writes what was sent and ends. An error says what was not written; raft's log has it.
    ///
    /// # Errors
    /// Why the last write failed.
    pub async fn close(self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        if self.control.send(Control::Close(reply)).is_err() {
            return Ok(());
        }
        match answer.await {
            Ok(Some(error)) => Err(error),
            // Ended by itself, having written everything.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

fn wall<E: Env>() -> Wall {
    Wall::from_nanos(u64::try_from(E::wall().as_nanos()).unwrap_or(u64::MAX))
}
