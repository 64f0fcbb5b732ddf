//! Daemons on loopback: one raft cluster, each with a folder, an SQLite backend and a log of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::network::{Machine, Network};
use crate::process::{Process, Scratch, Signal};
use crate::reserve::reserve;
use crate::sql::ORCHESTRATOR;
use crate::wait::{Look, until};

const HTTP_PORT: u16 = 3000;
const RAFT_PORT: u16 = 10_008;

/// What to start.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    pub count: u8,
    /// Daemons that are configured with the others, in whose `RaftNodes` they are not, and not started.
    pub spare: u8,
    /// So many of the `count` are not started.
    pub late: u8,
    /// All of them are of the release before, until [`Daemon::install`].
    pub release: Release,
    /// Keys beside those that `FAILOVER.md` section 8 calls the default configuration. `{daemon}` in a text stands for the
    /// daemon's number, from 1.
    pub settings: Map<String, Value>,
    /// Keys of single daemons, in their order; they count for more than the others.
    pub own: Vec<Map<String, Value>>,
}

impl DaemonOptions {
    /// Three daemons in default configuration.
    pub fn default_configuration() -> DaemonOptions {
        DaemonOptions {
            count: 3,
            spare: 0,
            late: 0,
            release: Release::This,
            settings: Map::new(),
            own: Vec::new(),
        }
    }

    /// The same with timers that bear a machine that stands still for seconds: for tests that compare leaders, terms or single
    /// answers, and measure no election.
    pub fn steady() -> DaemonOptions {
        let mut options = DaemonOptions::default_configuration();
        options.settings.extend(steady_timers());
        options
    }

    /// Takes keys of the configuration as `KEY=VALUE`, with values in JSON.
    pub fn set_all(&mut self, settings: &[String]) -> Result<()> {
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .with_context(|| format!("--set {setting}: not KEY=VALUE"))?;
            self.settings
                .insert(key.to_owned(), serde_json::from_str(value)?);
        }
        Ok(())
    }
}

/// What makes daemons [steady](DaemonOptions::steady).
pub fn steady_timers() -> Map<String, Value> {
    [
        ("RaftHeartbeatMillis", 300),
        // A leader that stands still for 60 % of it, less a heartbeat, is replaced.
        ("RaftElectionTimeoutMillis", 6_000),
    ]
    .map(|(key, value)| (key.to_owned(), Value::from(value)))
    .into_iter()
    .collect()
}

/// Which release a daemon is of. The one before is the program that `ORCHESTRATOR_BINARY_BEFORE` names; without that, it
/// is this program, which behaves as the release before did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    This,
    Before,
}

/// The answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {}, not JSON: {}", self.status, self.body))
    }
}

/// GET over a connection of its own. HTTP/1.0, so that the body ends where the connection does.
pub async fn get(address: SocketAddr, path: &str, deadline: Duration) -> Result<Reply> {
    let (_, reply) = get_with_head(address, path, deadline).await?;
    Ok(reply)
}

/// The same, and before it the status line and the headers of the answer.
pub async fn get_with_head(
    address: SocketAddr,
    path: &str,
    deadline: Duration,
) -> Result<(String, Reply)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        anyhow::Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let text = tokio::time::timeout(deadline, exchange)
        .await
        .map_err(|_| anyhow!("no reply within {deadline:?}"))
        .and_then(|reply| reply)
        .with_context(|| format!("http://{address}{path}"))?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("http://{address}{path}: no HTTP reply"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| anyhow!("http://{address}{path}: no status in {head}"))?;
    let reply = Reply {
        status,
        body: body.to_owned(),
    };
    Ok((head.to_owned(), reply))
}

/// One daemon.
#[derive(Debug)]
pub struct Daemon {
    address: Ipv4Addr,
    folder: PathBuf,
    binary: PathBuf,
    /// Where it runs, if not here.
    machine: Option<Machine>,
    process: Mutex<Option<Process>>,
    release: Mutex<Release>,
}

impl Daemon {
    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.address, HTTP_PORT))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http())
    }

    /// Its configuration, raft directory, backend file and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request is answered with this status.
    ///
    /// # Errors
    /// It is not within `patience`; the last answer is told.
    pub async fn wait_status(&self, path: &str, wanted: u16, patience: Duration) -> Result<()> {
        let what = format!("{wanted} of {}{path}", self.url());
        let pace = Duration::from_millis(50);
        until(&what, patience, pace, async || {
            match self.get(path, Duration::from_secs(10)).await {
                Ok(reply) if reply.status == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            }
        })
        .await
    }

    /// Its raft address, with port.
    pub fn raft(&self) -> String {
        format!("{}:{RAFT_PORT}", self.address)
    }

    /// Puts another release in the place of its program; it runs from the next start on.
    pub fn install(&self, release: Release) {
        *self.release.lock().unwrap_or_else(PoisonError::into_inner) = release;
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Writes a value into its file; obeyed at the next start or reload.
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        let path = self.folder.join("orchestrator.conf.json");
        let mut configuration: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        configuration[key] = value.into();
        fs::write(path, format!("{configuration:#}\n"))?;
        Ok(())
    }

    /// Writes another `RaftNodes` into its file; obeyed at the next start.
    pub fn set_nodes(&self, nodes: &[&Daemon]) -> Result<()> {
        let nodes = nodes.iter().map(|node| node.address.to_string());
        self.set("RaftNodes", nodes.collect::<Vec<_>>())
    }

    /// Removes its raft directory. It must not run.
    pub fn wipe_raft(&self) -> Result<()> {
        ensure!(!self.is_running(), "{} runs", self.url());
        fs::remove_dir_all(self.folder.join("raft"))?;
        Ok(())
    }

    /// Removes its raft directory and its backend, as when the machine is provisioned anew. It must not run.
    pub fn wipe(&self) -> Result<()> {
        self.wipe_raft()?;
        self.wipe_database()
    }

    /// By what its process names itself, as its backend has it, where that is a file.
    pub fn token(&self) -> Result<String> {
        let file = rusqlite::Connection::open(self.database())?;
        let query = "SELECT token FROM orchestrator_projection WHERE anchor = 1";
        Ok(file.query_row(query, [], |row| row.get(0))?)
    }

    /// Its backend, where that is a file.
    pub fn database(&self) -> PathBuf {
        self.folder.join("orchestrator.db")
    }

    /// Removes that file. It must not run.
    pub fn wipe_database(&self) -> Result<()> {
        ensure!(!self.is_running(), "{} runs", self.url());
        for end in ["", "-wal", "-shm"] {
            let path = self.folder.join(format!("orchestrator.db{end}"));
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Puts a copy of another one's file, as [`Daemon::copy_database`] makes it, in the place of its own. It must not run.
    pub fn put_database(&self, copy: &Path) -> Result<()> {
        self.wipe_database()?;
        fs::copy(copy, self.database())?;
        Ok(())
    }

    /// A backup of the file of a daemon that may run, which is whole.
    pub fn copy_database(&self, name: &str) -> Result<PathBuf> {
        let copy = self.folder.join(name);
        let file = rusqlite::Connection::open(self.database())?;
        file.execute("VACUUM INTO ?1", [copy.display().to_string()])?;
        Ok(copy)
    }

    /// Its raft directory is put beside, or back from there, as a machine's snapshot does it. It must not run.
    pub fn keep_raft(&self) -> Result<()> {
        ensure!(!self.is_running(), "{} runs", self.url());
        copy_folder(&self.folder.join("raft"), &self.folder.join("raft-kept"))
    }

    /// See [`Daemon::keep_raft`].
    pub fn restore_raft(&self) -> Result<()> {
        self.wipe_raft()?;
        fs::rename(self.folder.join("raft-kept"), self.folder.join("raft"))?;
        Ok(())
    }

    /// Puts a copy of its raft directory where another one's is to be, which has none. It may run: it stands still meanwhile, so
    /// that the copy is of one moment, as that of a machine is.
    pub async fn copy_raft_to(&self, other: &Daemon) -> Result<()> {
        let pid = self.pid().context("it runs")?;
        self.signal(Signal::Stop);
        let stopped = until(
            "every thread stands still",
            Duration::from_secs(60),
            Duration::from_millis(1),
            async || match is_stopped(pid) {
                Ok(true) => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        )
        .await;
        let copied = stopped
            .and_then(|()| copy_folder(&self.folder.join("raft"), &other.folder.join("raft")));
        self.signal(Signal::Continue);
        copied
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::Kill);
        self.wait_ended(Duration::from_secs(60)).await.map(drop)
    }

    /// Runs the program with its configuration and other words, to its end; what it said, and whether it succeeded.
    pub fn run(&self, words: &[&str]) -> Result<(bool, String)> {
        let output = self.command().args(words).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// The program with its configuration.
    pub fn command(&self) -> Command {
        let release = *self.release.lock().unwrap_or_else(PoisonError::into_inner);
        let older = std::env::var_os("ORCHESTRATOR_BINARY_BEFORE").map(PathBuf::from);
        let binary = match (release, &older) {
            (Release::Before, Some(older)) => older,
            (Release::Before, None) | (Release::This, _) => &self.binary,
        };
        let mut command = match &self.machine {
            None => Command::new(binary),
            Some(machine) => machine.command(binary),
        };
        command
            .arg(format!(
                "--config={}",
                self.folder.join("orchestrator.conf.json").display()
            ))
            .current_dir(&self.folder);
        if release == Release::Before && older.is_none() {
            command.env("ORCHESTRATOR_TEST_AS_THE_RELEASE_BEFORE", "1");
        }
        command
    }

    pub fn start(&self) -> Result<()> {
        let mut process = self.process();
        if process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        let mut command = self.command();
        command.arg("http");
        *process = Some(Process::start(command, &self.log())?);
        Ok(())
    }

    /// Starts it, and again whenever it has ended, as a service manager does, until it is a healthy member; how often it
    /// was started.
    pub async fn start_until_healthy(&self, patience: Duration) -> Result<u32> {
        let mut starts = 0;
        let what = format!("{} is healthy", self.url());
        until(&what, patience, Duration::from_millis(50), async || {
            if !self.is_running() {
                starts += 1;
                if let Err(error) = self.start() {
                    return Look::not(error);
                }
            }
            match self.get("/api/raft-health", Duration::from_secs(5)).await {
                Ok(reply) if reply.status == 200 => Look::Holds(starts),
                other => Look::not(format!("after {starts} starts: {other:?}")),
            }
        })
        .await
    }

    /// As a service manager does it, and an operator who waits until the member is healthy.
    pub async fn restart(&self, patience: Duration) -> Result<()> {
        self.signal(Signal::Terminate);
        self.wait_ended(patience).await?;
        self.start_until_healthy(patience).await.map(drop)
    }

    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(Process::is_running)
    }

    pub fn pid(&self) -> Option<u32> {
        let mut process = self.process();
        let process = process.as_mut()?;
        process.is_running().then(|| process.pid())
    }

    pub fn signal(&self, signal: Signal) -> Instant {
        match self.process().as_mut() {
            Some(process) => process.signal(signal),
            None => Instant::now(),
        }
    }

    /// Waits until the process is gone; its exit code when it had one.
    pub async fn wait_ended(&self, deadline: Duration) -> Result<Option<i32>> {
        until(
            "daemon ends",
            deadline,
            Duration::from_millis(5),
            async || match self.process().as_mut().map(|process| process.status()) {
                Some(None) => Look::not("it runs"),
                Some(Some(status)) => Look::Holds(status.code()),
                None => Look::Holds(None),
            },
        )
        .await
    }

    pub async fn get(&self, path: &str, deadline: Duration) -> Result<Reply> {
        get(self.http(), path, deadline).await
    }

    /// What it says of raft.
    pub async fn status(&self) -> Result<Value> {
        self.get("/api/raft-status", Duration::from_secs(5))
            .await?
            .json()
    }

    /// Its raft identity.
    pub async fn node(&self) -> Result<String> {
        let status = self.status().await?;
        let node = status["Node"].as_str();
        node.map(str::to_owned)
            .with_context(|| format!("no node in {status}"))
    }

    pub async fn is_leader(&self) -> bool {
        let reply = self
            .get("/api/leader-check", Duration::from_millis(500))
            .await;
        reply.is_ok_and(|reply| reply.status == 200)
    }
}

/// Whether each thread of a process is stopped (`man 5 proc`): one that waits for a disk stops after that.
fn is_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let after_name = stat.rsplit_once(')').context("a name")?.1;
        if !after_name.trim_start().starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), there)?;
        }
    }
    Ok(())
}

/// Waits until each of these says that exactly these are the members, all of them voters, and that it is healthy.
pub async fn wait_members(daemons: &[&Daemon], patience: Duration) -> Result<()> {
    let mut wanted: Vec<String> = daemons.iter().map(|daemon| daemon.raft()).collect();
    wanted.sort();
    for daemon in daemons {
        let what = format!("{} shows the members {wanted:?}", daemon.url());
        until(&what, patience, Duration::from_millis(100), async || {
            let status = match daemon.status().await {
                Ok(status) => status,
                Err(error) if daemon.is_running() => return Look::not(format!("{error:#}")),
                Err(_) => return Look::not("it has ended"),
            };
            let rows = status["Members"].as_array().cloned().unwrap_or_default();
            let mut found: Vec<&str> = rows
                .iter()
                .filter(|row| row["Voter"] == true)
                .filter_map(|row| row["Address"].as_str())
                .collect();
            found.sort_unstable();
            if found == wanted && rows.len() == wanted.len() && status["Healthy"] == true {
                Look::Holds(())
            } else {
                Look::not(format!("{status:#}"))
            }
        })
        .await
        .with_context(|| crate::fleet::tail(&[daemon.log()]))?;
    }
    Ok(())
}

/// Waits until this daemon has applied all that the leader has at present: what was acknowledged is on a majority, which
/// may be the others.
pub async fn wait_applied(daemons: &Daemons, daemon: &Daemon, patience: Duration) -> Result<()> {
    let leader = daemons.wait_leader(patience).await?.status().await?;
    let wanted = leader["AppliedIndex"].as_u64().context("no AppliedIndex")?;
    let what = format!("{} has applied {wanted}", daemon.url());
    until(
        &what,
        patience,
        Duration::from_millis(50),
        async || match daemon.status().await {
            Ok(status) if status["AppliedIndex"].as_u64() >= Some(wanted) => Look::Holds(()),
            Ok(status) => Look::not(format!("{status:#}")),
            Err(error) => Look::not(format!("{error:#}")),
        },
    )
    .await
}

/// The daemons of one raft cluster; ended, and their folders removed, on drop.
#[derive(Debug)]
pub struct Daemons {
    daemons: Vec<Daemon>,
    scratch: Scratch,
}

impl Daemons {
    /// Writes the configuration files and starts the daemons.
    pub fn start(options: &DaemonOptions) -> Result<Daemons> {
        let addresses = free_addresses(options.count + options.spare)?;
        let places = addresses.into_iter().map(|address| (address, None));
        Daemons::at(places.collect(), options)
    }

    /// The same, each on a machine of the network.
    pub fn start_on(network: &Network, options: &DaemonOptions) -> Result<Daemons> {
        let machines = network.machines().iter();
        let places: Vec<_> = machines
            .take(usize::from(options.count + options.spare))
            .map(|machine| (machine.address(), Some(machine.clone())))
            .collect();
        Daemons::at(places, options)
    }

    fn at(places: Vec<(Ipv4Addr, Option<Machine>)>, options: &DaemonOptions) -> Result<Daemons> {
        let binary = binary()?;
        let scratch = Scratch::create("daemons")?;
        let members: Vec<Ipv4Addr> = places
            .iter()
            .map(|(address, _)| *address)
            .take(usize::from(options.count))
            .collect();
        let mut daemons = Vec::new();
        for (number, (address, machine)) in (1u8..).zip(places) {
            let folder = scratch.path().join(address.to_string());
            fs::create_dir(&folder)?;
            let configuration = configuration(number, address, &members, &folder, options);
            fs::write(
                folder.join("orchestrator.conf.json"),
                format!("{configuration:#}\n"),
            )?;
            daemons.push(Daemon {
                address,
                folder,
                binary: binary.clone(),
                machine,
                process: Mutex::new(None),
                release: Mutex::new(options.release),
            });
        }
        for daemon in &daemons[..members.len() - usize::from(options.late)] {
            daemon.start()?;
        }
        Ok(Daemons { daemons, scratch })
    }

    pub fn all(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Leaves the folders behind for a person to read.
    pub fn keep(&mut self) {
        self.scratch.keep();
    }

    /// The daemon that says it leads, if one does at present.
    pub async fn leader(&self) -> Option<&Daemon> {
        for daemon in self.daemons.iter().filter(|daemon| daemon.is_running()) {
            if daemon.is_leader().await {
                return Some(daemon);
            }
        }
        None
    }

    /// Waits until all belong to one quorum and know who leads; the leader's place.
    ///
    /// # Errors
    /// One does not within `patience`.
    pub async fn wait_whole(&self, patience: Duration) -> Result<usize> {
        for daemon in &self.daemons {
            daemon
                .wait_status("/api/raft-health", 200, patience)
                .await?;
        }
        let leader = self.wait_leader(patience).await?.address;
        let place = self
            .daemons
            .iter()
            .position(|daemon| daemon.address == leader);
        place.context("the leader is one of them")
    }

    /// Waits for a leader; an error with the logs' ends when there is none, at once when no daemon runs.
    pub async fn wait_leader(&self, deadline: Duration) -> Result<&Daemon> {
        let leader = until(
            "a daemon leads",
            deadline,
            Duration::from_millis(20),
            async || match self.leader().await {
                Some(leader) => Look::Holds(Ok(leader)),
                None if self.daemons.iter().any(Daemon::is_running) => Look::not("none does"),
                None => Look::Holds(Err(anyhow!("every daemon has ended"))),
            },
        )
        .await
        .flatten();
        leader.with_context(|| {
            let logs: Vec<PathBuf> = self.daemons.iter().map(Daemon::log).collect();
            crate::fleet::tail(&logs)
        })
    }

    /// GET of a JSON document at the leader; an error when it is not answered with 200. It is asked for again where nothing
    /// was done, as while another one is elected, and where nobody knows whether it was: no change that tests ask for does
    /// harm twice. Whoever forgets a server for the second time is told that there is none.
    pub async fn ask_leader(&self, path: &str) -> Result<Value> {
        let patience = Duration::from_secs(60);
        let mut may_be_done = false;
        until(path, patience, Duration::from_millis(50), async || {
            let leader = match self.wait_leader(patience).await {
                Ok(leader) => leader,
                Err(error) => return Look::Holds(Err(error)),
            };
            match leader.get(path, Duration::from_secs(40)).await {
                Ok(reply) if reply.status == 200 => Look::Holds(reply.json()),
                Ok(reply) if matches!(reply.status, 502..=504) => {
                    may_be_done |= reply.status != 503;
                    Look::not(reply.body)
                }
                Ok(reply)
                    if may_be_done
                        && path.starts_with("/api/forget/")
                        && reply.body.contains("not found") =>
                {
                    Look::Holds(Ok(json!({"Code": "OK", "Message": reply.body})))
                }
                Ok(reply) => Look::Holds(Err(anyhow!(
                    "{}{path}: {} {}",
                    leader.url(),
                    reply.status,
                    reply.body
                ))),
                Err(error) if self.daemons.iter().any(Daemon::is_running) => {
                    may_be_done = true;
                    Look::not(format!("{error:#}"))
                }
                Err(error) => Look::Holds(Err(error)),
            }
        })
        .await?
    }

    /// Has a server of this machine discovered. It is asked for until it is: a server that does not answer in time, as on a
    /// machine that stands still, is told to be out of reach.
    ///
    /// # Errors
    /// It is not within a minute.
    pub async fn wait_discovered(&self, port: u16) -> Result<()> {
        let path = format!("/api/discover/127.0.0.1/{port}");
        let (patience, pace) = (Duration::from_secs(60), Duration::from_millis(200));
        until(&path, patience, pace, async || {
            match self.ask_leader(&path).await {
                Ok(_) => Look::Holds(Ok(())),
                Err(error) if self.daemons.iter().any(Daemon::is_running) => {
                    Look::not(format!("{error:#}"))
                }
                Err(error) => Look::Holds(Err(error)),
            }
        })
        .await?
    }

    /// The recoveries in the audit, newest first.
    pub async fn audit_recovery(&self) -> Result<Vec<Recovery>> {
        let value = self.ask_leader("/api/audit-recovery").await?;
        let rows = value
            .as_array()
            .ok_or_else(|| anyhow!("audit-recovery is no list: {value}"))?;
        Ok(rows.iter().map(Recovery::read).collect())
    }

    /// The lines of a recovery's record.
    pub async fn recovery_steps(&self, uid: &str) -> Result<Vec<String>> {
        let value = self
            .ask_leader(&format!("/api/audit-recovery-steps/{uid}"))
            .await?;
        let rows = value
            .as_array()
            .ok_or_else(|| anyhow!("audit-recovery-steps is no list: {value}"))?;
        Ok(rows
            .iter()
            .map(|row| row["Message"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}

/// What the audit says about a recovery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recovery {
    pub uid: String,
    pub analysis: String,
    pub failed_port: u16,
    pub successor_port: u16,
    pub active: bool,
    pub successful: bool,
    pub errors: Vec<String>,
}

impl Recovery {
    fn read(value: &Value) -> Recovery {
        let port = |key: &Value| {
            key["Port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(0)
        };
        let errors = value["AllErrors"].as_array().into_iter().flatten();
        Recovery {
            uid: value["UID"].as_str().unwrap_or_default().to_owned(),
            analysis: value["AnalysisEntry"]["Analysis"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            failed_port: port(&value["AnalysisEntry"]["AnalyzedInstanceKey"]),
            successor_port: port(&value["SuccessorKey"]),
            active: value["IsActive"].as_bool().unwrap_or(false),
            successful: value["IsSuccessful"].as_bool().unwrap_or(false),
            errors: errors
                .filter_map(Value::as_str)
                .filter(|error| !error.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }
}

fn configuration(
    number: u8,
    address: Ipv4Addr,
    all: &[Ipv4Addr],
    folder: &Path,
    options: &DaemonOptions,
) -> Value {
    let nodes: Vec<String> = all.iter().map(Ipv4Addr::to_string).collect();
    let mut configuration = json!({
        "Debug": false,
        "ListenAddress": format!("{address}:{HTTP_PORT}"),
        "BackendDB": "sqlite",
        "SQLite3DataFile": folder.join("orchestrator.db"),
        "MySQLTopologyUser": ORCHESTRATOR.user,
        "MySQLTopologyPassword": ORCHESTRATOR.password,
        "HostnameResolveMethod": "none",
        "MySQLHostnameResolveMethod": "@@report_host",
        "DiscoverByShowSlaveHosts": true,
        "DefaultInstancePort": 3306,
        "RecoverMasterClusterFilters": ["*"],
        "DetectClusterAliasQuery": "SELECT 'fleet'",
        "RaftEnabled": true,
        "RaftDataDir": folder.join("raft"),
        "RaftBind": address.to_string(),
        "DefaultRaftPort": RAFT_PORT,
        "RaftNodes": nodes,
        "HTTPAdvertise": format!("http://{address}:{HTTP_PORT}"),
    });
    if let Some(members) = configuration.as_object_mut() {
        let own = options.own.get(usize::from(number) - 1);
        for (key, value) in options.settings.iter().chain(own.into_iter().flatten()) {
            let value = match value {
                Value::String(text) => json!(text.replace("{daemon}", &number.to_string())),
                other => other.clone(),
            };
            members.insert(key.clone(), value);
        }
    }
    configuration
}

/// The daemon's program: `ORCHESTRATOR_BINARY`, else what cargo built beside this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORCHESTRATOR_BINARY") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "ORCHESTRATOR_BINARY: no program {}",
            path.display()
        );
        return Ok(path);
    }
    let here = std::env::current_exe()?;
    for folder in here.ancestors().skip(1).take(2) {
        let path = folder.join("orchestrator");
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no orchestrator beside {}; type:  cargo build -p orchestrator",
        here.display()
    )
}

/// Addresses of the loopback network on which both ports are free: 127.0.0.1 and on when they are,
/// else a block of their own, so that several clusters run side by side.
fn free_addresses(count: u8) -> Result<Vec<Ipv4Addr>> {
    let pid = std::process::id().to_le_bytes();
    let blocks = std::iter::once((0, 0))
        .chain((0..=u8::MAX).map(|step| (pid[1] % 200 + 10, pid[0].wrapping_add(step))));
    for (second, third) in blocks {
        let block: Vec<Ipv4Addr> = (1..=count)
            .map(|last| Ipv4Addr::new(127, second, third, last))
            .collect();
        let free = |address: &Ipv4Addr, port: u16| TcpListener::bind((*address, port)).is_ok();
        let is_free = |address| free(address, HTTP_PORT) && free(address, RAFT_PORT);
        if block.iter().all(is_free) && reserve(&format!("loopback {second}.{third}")) {
            return Ok(block);
        }
    }
    bail!("no {count} free loopback addresses with ports {HTTP_PORT} and {RAFT_PORT}")
}
