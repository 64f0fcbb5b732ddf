//! The seam between the daemon and the world.
//!
//! Decides nothing: it names everything the runtime may ask of a machine (an executor, two clocks, randomness,
//! sockets, names, SQLite files and plain files), so that one and the same daemon runs on tokio and in the two
//! simulators. Nothing outside this folder and the simulators may reach for these things by another way.
//!
//! Holds between calls: [`Env::mono`] never goes back; a file function that returned `Ok` for a write has put the
//! bytes on stable storage; a name created or renamed is durable once [`Env::sync_dir`] of its folder returned.

use std::fmt::{self, Debug};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use tokio::io::{AsyncRead, AsyncWrite};

mod tokio_env;

pub use tokio_env::{DedicatedRuntime, TokioEnv};

/// A mistake that the simulators put back on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The handshake does not ask whether the caller means this node.
    AnyTarget,
    /// The log is cut up to where it was applied, whatever the snapshot file covers.
    PurgeBeyondSnapshot,
    /// A backend of another cluster is taken for this node's own.
    ForeignBackend,
    /// A restarted leader goes on leading in its old term, and epochs do not tell its lives apart.
    LeaderRestored,
    /// Votes are given right after a start.
    EarlyVotes,
    /// The log is not synced at each commit.
    UnsyncedLog,
    /// Statements are sent without asking whether this daemon still leads.
    NoConfirmation,
    /// Only whom the own membership names is given a vote.
    FilteredVotes,
    /// A change of members is known to nobody but the leader that began it.
    ChangeInMemory,
    /// Entries are applied before this node has them on stable storage.
    AppliedUnsynced,
    /// A log says that it has its newest entries on stable storage before it has written them.
    EarlyAcknowledgement,
    /// An identity that was let in declares the list that it came with.
    FreshDeclares,
    /// A hook that failed is run again at once, under the same intent.
    HookRepeated,
    /// A key-value pair is written whatever decision the one that is there comes from.
    AnyPublication,
    /// An action connection that was lost is opened again, without confirmation or lock, and its statement repeated.
    ActionReopened,
    /// What was received counts as applied, so that no promotion waits for it.
    UndrainedPromotion,
    /// It is not looked at what a replica holds when one is chosen.
    EqualReplicas,
    /// A halt stops both threads of a replica.
    BothStopped,
    /// Behind a promotion, what a replica received counts as applied, so that it is pointed elsewhere at once.
    HastyRepoint,
    /// The fence is left in the idle connection of a silent server before any promotion is committed.
    UnaskedFence,
    /// The fence is taken for done and not sent.
    UnsentFence,
    /// Each daemon stamps what it applies with its own clock.
    OwnClock,
    /// With each beat of a pulse one more connection is opened, and none is closed.
    SessionsKept,
    /// It is not looked at what a replica holds when it is pointed at a promoted server.
    ErrantFollower,
    /// A replica that was pointed elsewhere is taken for one that receives.
    UnseenFollower,
    /// The record of a recovery that ended well names another server than it promoted.
    MisnamedEnd,
    /// Whoever ends by a fault does not say what is to be done.
    NoLastWords,
    /// Nobody looks how large the log is.
    LogUnbounded,
    /// A log that is too large is cut up to the snapshot, and not to half of what it may hold.
    LogEmptied,
    /// Nobody looks how old the snapshot is.
    SnapshotAged,
    /// Whoever asks for a change is told that it is done when it is proposed.
    HastyAnswer,
    /// Of entries that are applied together the last two change places.
    EntriesSwapped,
    /// What is recorded of a cluster leaves out one of its servers.
    MemberUnrecorded,
    /// Whatever the others say of a server counts as that they have lost it, too.
    LoneVerdict,
}

/// A file or folder that is somebody else's, and who this process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// What is there: the folder that was asked about, what is in it, or the nearest one above it that is seen.
    pub path: PathBuf,
    pub owner: User,
    /// The rights, as `chmod` takes them.
    pub mode: u32,
    pub own: User,
}

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub number: u32,
    /// `None`: the machine has no name for it.
    pub name: Option<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (user {})", self.number),
            None => write!(f, "user {}", self.number),
        }
    }
}

/// One kind of world. All functions are associated: an implementation is a marker type, and where several machines
/// share a process (the simulators) the machine is found through the task that asks.
pub trait Env: Debug + Clone + Copy + Default + Eq + Ord + Send + Sync + 'static {
    /// Executor, sleeping clock, channels, and the random generator that raft's timers draw from.
    type Rt: AsyncRuntime;
    /// A listening socket.
    type Listener: Send + 'static;
    /// A connected byte stream. `TCP_NODELAY` is on wherever that has a meaning.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Holds a folder for this process alone; dropping it lets go.
    type DirLock: Send + Sync + 'static;

    /// Listens on `host:port` (IPv6 in brackets; port 0 lets the system choose).
    fn bind(address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// The address a listener is bound to, as `ip:port`.
    fn local_address(listener: &Self::Listener) -> io::Result<String>;
    /// The next connection, with the peer's `ip:port`.
    fn accept(
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, String)>> + Send;
    /// The addresses of a host name, in the resolver's order; an address in text form resolves to itself.
    fn resolve(host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
    /// Connects to `host:port`. A name is resolved at each call and its addresses are tried in turn. Has no deadline of
    /// its own: callers wrap it in [`timeout`].
    fn connect(address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Time since this process started. For waiting; never goes back.
    fn mono() -> Duration;
    /// Time since the Unix epoch. For showing and for stamping commands; may jump either way.
    fn wall() -> Duration;
    /// 64 bits from the operating system: mints identities and seeds generators.
    fn random_seed() -> io::Result<u64>;

    /// Runs something that blocks (a database, a file): on a thread for that purpose in production, at once and with a
    /// modelled latency in simulation.
    fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;

    /// Opens (creating it if missing) the SQLite file at `path`. Blocks: call inside [`Env::blocking`].
    fn open_db(path: &Path) -> rusqlite::Result<rusqlite::Connection>;

    /// The whole of a file. Blocks, like all file functions below: call inside [`Env::blocking`].
    fn read_file(path: &Path) -> io::Result<Vec<u8>>;
    /// Creates a file that must not exist, writes `bytes` and syncs them. On an error the file may be there in part.
    fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file, replacing the target. Atomic, durable after [`Env::sync_dir`].
    fn rename(from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(path: &Path) -> io::Result<()>;
    /// Creates a folder and those above it; one that exists is no error.
    fn create_dir_all(path: &Path) -> io::Result<()>;
    /// Whether a file or folder is there.
    fn exists(path: &Path) -> io::Result<bool>;
    /// The names in a folder, sorted.
    fn list_dir(path: &Path) -> io::Result<Vec<String>>;
    /// Whether this world was given a mistake on purpose. Only simulated worlds are; elsewhere this is a constant, and what
    /// it guards is not in the program.
    #[inline]
    #[must_use]
    fn has(_mistake: Mutant) -> bool {
        false
    }

    /// Who keeps this process from a folder, if that can be told. Blocks.
    fn barred(_folder: &Path) -> Option<Barred> {
        None
    }

    /// Takes a folder for this process alone. [`io::ErrorKind::WouldBlock`] when another process has it.
    fn lock_dir(path: &Path) -> io::Result<Self::DirLock>;
}

/// Runs a task on its own. Its end is not awaited and it cannot be aborted: give it a channel whose closing ends it.
pub fn spawn<E: Env>(task: impl Future<Output = ()> + Send + 'static) {
    drop(E::Rt::spawn(task));
}

/// Waits.
pub async fn sleep<E: Env>(duration: Duration) {
    E::Rt::sleep(duration).await;
}

/// Waits until [`Env::mono`] reaches `at`; returns at once if it has.
pub async fn sleep_until<E: Env>(at: Duration) {
    let now = E::mono();
    if at > now {
        E::Rt::sleep(at - now).await;
    }
}

/// The outcome of `future`, or `None` when `duration` passed first (the future is then dropped).
pub async fn timeout<E: Env, T>(
    duration: Duration,
    future: impl Future<Output = T> + Send,
) -> Option<T> {
    E::Rt::timeout(duration, future).await.ok()
}

/// Like [`timeout`], for outcomes that are results already: a passed deadline becomes [`io::ErrorKind::TimedOut`].
pub async fn timeout_io<E: Env, T>(
    duration: Duration,
    future: impl Future<Output = io::Result<T>> + Send,
) -> io::Result<T> {
    match E::Rt::timeout(duration, future).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", duration.as_millis()),
        )),
    }
}

/// Replaces a file in one step: writes `<path>.tmp`, syncs it, renames it and syncs the folder. Blocks.
pub fn replace_file<E: Env>(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file without a folder"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    if E::exists(temporary)? {
        E::remove_file(temporary)?;
    }
    E::write_new(temporary, bytes)?;
    E::rename(temporary, path)?;
    E::sync_dir(folder)
}
