//! Production: tokio, the machine's sockets, clocks and files.

#![allow(clippy::disallowed_methods)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openraft_rt_tokio::TokioRuntime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Barred, Env, User};

/// The name of the lock file inside a locked folder.
const LOCK_FILE: &str = "lock";

/// The world of the production daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokioEnv;

static START: OnceLock<Instant> = OnceLock::new();
/// Lookups of names at a time.
static LOOKUPS: Semaphore = Semaphore::const_new(64);

impl Env for TokioEnv {
    type Rt = TokioRuntime;
    type Listener = TcpListener;
    type Stream = TcpStream;
    type DirLock = File;

    async fn bind(address: &str) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    fn local_address(listener: &TcpListener) -> io::Result<String> {
        Ok(listener.local_addr()?.to_string())
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<(TcpStream, String)> {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer.to_string()))
    }

    async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        // A name server that answers nobody holds each lookup for many seconds, whoever gave it up meanwhile, on a thread of
        // the pool that databases are written with.
        let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        Self::blocking(move || {
            let _permit = permit;
            let found = (host.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
        .await
    }

    async fn connect(address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn mono() -> Duration {
        START.get_or_init(Instant::now).elapsed()
    }

    fn wall() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn random_seed() -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the whole runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn open_db(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
        rusqlite::Connection::open(path)
    }

    fn read_file(path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove_file(path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn exists(path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list_dir(path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn barred(folder: &Path) -> Option<Barred> {
        // The folder of the process belongs to the user that its rights are looked up by.
        let own = fs::metadata("/proc/self").ok()?.uid();
        let folder = std::path::absolute(folder).ok()?;
        let lock = folder.join(LOCK_FILE);
        // A lock that is our own says nothing of the folder that it is in, or was to be in.
        let of_lock = fs::metadata(&lock).ok().filter(|found| found.uid() != own);
        let (path, found) = match of_lock {
            Some(found) => (lock, found),
            None => folder
                .ancestors()
                .find_map(|path| Some((path.to_owned(), fs::metadata(path).ok()?)))?,
        };
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |number| User {
            number,
            name: user_name(&users, number),
        };
        Some(Barred {
            path,
            owner: user(found.uid()),
            mode: found.mode() & 0o7777,
            own: user(own),
        })
    }

    fn lock_dir(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The name of a user, as a file of users (passwd(5)) has it.
fn user_name(users: &str, number: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_its = fields.nth(1)?.parse() == Ok(number);
        is_its.then(|| name.to_owned())
    })
}

/// Worker threads of their own for one part of the daemon: raft must not wait for a thread that a probe, a database or an
/// HTTP request holds. Tasks spawned by what was started inside stay inside.
///
/// Dropping it stops those tasks; it must not be dropped from within an async context of another runtime's worker (tokio
/// panics when a blocking shutdown runs there), hence [`DedicatedRuntime::stop`].
#[derive(Debug)]
pub struct DedicatedRuntime(tokio::runtime::Runtime);

impl DedicatedRuntime {
    /// Starts `threads` workers whose names begin with `name`.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(DedicatedRuntime(runtime))
    }

    /// Runs `start` to its end on these threads while the calling thread waits; what it spawned goes on afterwards.
    /// The future need not be `Send`. Call it outside any runtime: in `main`, before the daemon's own is entered.
    pub fn run<T>(&self, start: impl Future<Output = T>) -> T {
        self.0.block_on(start)
    }

    /// Ends all tasks without waiting for blocking calls that are under way.
    pub fn stop(self) {
        self.0.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::replace_file;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A folder that is removed at the end of the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn make(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("orchestrator-env-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            TokioEnv::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_literal_address_needs_no_name_server_and_an_unknown_name_is_an_error() {
        let runtime = crate::env::DedicatedRuntime::start("resolve-test", 1).unwrap();
        runtime.run(async {
            let literal = TokioEnv::resolve("::1").await.unwrap();
            assert_eq!(literal, ["::1".parse::<IpAddr>().unwrap()]);
            assert!(TokioEnv::resolve("nobody.invalid").await.is_err());
        });
        runtime.stop();
    }

    #[test]
    fn files_are_replaced_whole() {
        let folder = Folder::make("replace");
        let path = folder.0.join("record");
        // A leftover of an interrupted replacement does not stand in the way.
        TokioEnv::write_new(&folder.0.join("record.tmp"), b"torn").unwrap();
        replace_file::<TokioEnv>(&path, b"one").unwrap();
        replace_file::<TokioEnv>(&path, b"two").unwrap();
        assert_eq!(TokioEnv::read_file(&path).unwrap(), b"two");
        assert_eq!(TokioEnv::list_dir(&folder.0).unwrap(), ["record"]);
        let twice = TokioEnv::write_new(&path, b"three").unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = Folder::make("lock");
        let held = TokioEnv::lock_dir(&folder.0).unwrap();
        assert_eq!(
            TokioEnv::lock_dir(&folder.0).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(held);
        // A process that another test is starting holds the lock too, until it is another program.
        let limit = Instant::now() + Duration::from_secs(60);
        while let Err(error) = TokioEnv::lock_dir(&folder.0) {
            assert!(Instant::now() < limit, "it is never free: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn whoever_bars_a_folder_is_named() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\norchestrator:x:998:997::/:/usr/sbin/nologin\n";
        assert_eq!(user_name(users, 998).as_deref(), Some("orchestrator"));
        assert_eq!(user_name(users, 9), None);
        let folder = Folder::make("barred");
        // Of what is not there, the nearest folder above it counts.
        let deep = folder.0.join("none/raft");
        let barred = TokioEnv::barred(&deep).unwrap();
        assert_eq!(barred.path, folder.0);
        assert_eq!(barred.owner, barred.own, "made by this process");
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(
            TokioEnv::random_seed().unwrap(),
            TokioEnv::random_seed().unwrap()
        );
    }

    #[test]
    fn streams_names_and_deadlines() {
        let runtime = DedicatedRuntime::start("env-test", 1).unwrap();
        runtime.run(async {
            let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
            let address = TokioEnv::local_address(&listener).unwrap();
            let port = address.rsplit(':').next().unwrap();
            let mut near = TokioEnv::connect(&format!("127.0.0.1:{port}"))
                .await
                .unwrap();
            let (mut far, peer) = TokioEnv::accept(&mut listener).await.unwrap();
            assert!(peer.starts_with("127.0.0.1:"), "{peer}");
            near.write_all(b"x").await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'x');
            assert_eq!(
                TokioEnv::resolve("127.0.0.9").await.unwrap(),
                ["127.0.0.9".parse::<IpAddr>().unwrap()]
            );
            let late =
                crate::env::timeout::<TokioEnv, _>(Duration::from_millis(5), far.read_u8()).await;
            assert!(late.is_none());
            assert_eq!(TokioEnv::blocking(|| 7).await, 7);
        });
        runtime.stop();
    }
}
