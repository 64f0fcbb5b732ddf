//! A fleet on 127.0.0.1: one primary and its replicas, with GTIDs; real servers, or models of them that are served over
//! the same protocol out of this process.
//!
//! Real servers have a data folder each, copied from a template that is initialised once per server
//! version and kept in the cache beside the server programs. The accounts are in the template, and the same on models:
//! the daemons' account is made from the very grants file that the README documents.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use orchestrator_sim::model::server::Process as ModelProcess;
use orchestrator_sim::model::{Host, Kind, Server as Model};
use orchestrator_sim::protocol::fleet::{self as models, Running};
use tokio::net::TcpStream;

use crate::process::{Process, Scratch, Signal};
use crate::reserve::free_ports;
use crate::sql::{APP, Account, HARNESS, ORCHESTRATOR, REPLICATION, Row, STATEMENT_DEADLINE, Sql};
use crate::wait::{Look, until};

/// Which family of servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavour {
    MariaDb,
    MySql,
}

impl fmt::Display for Flavour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Flavour::MariaDb => "mariadb",
            Flavour::MySql => "mysql",
        })
    }
}

impl Flavour {
    fn kind(self) -> Kind {
        match self {
            Flavour::MariaDb => Kind::Mariadb,
            Flavour::MySql => Kind::Mysql,
        }
    }
}

impl std::str::FromStr for Flavour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mariadb" => Ok(Flavour::MariaDb),
            "mysql" => Ok(Flavour::MySql),
            other => Err(format!("{other}: neither mariadb nor mysql")),
        }
    }
}

impl Flavour {
    /// The documented rights of the daemons' account, as SQL.
    pub fn grants(self) -> &'static str {
        match self {
            Flavour::MariaDb => include_str!("../../runtime/packaging/grants/mariadb-10.5.sql"),
            Flavour::MySql => include_str!("../../runtime/packaging/grants/mysql-8.sql"),
        }
    }

    pub fn show_replica_status(self) -> &'static str {
        match self {
            Flavour::MariaDb => "SHOW SLAVE STATUS",
            Flavour::MySql => "SHOW REPLICA STATUS",
        }
    }

    pub fn start_replica(self, thread: Thread) -> &'static str {
        match (self, thread) {
            (Flavour::MariaDb, Thread::Both) => "START SLAVE",
            (Flavour::MariaDb, Thread::Io) => "START SLAVE IO_THREAD",
            (Flavour::MariaDb, Thread::Sql) => "START SLAVE SQL_THREAD",
            (Flavour::MySql, Thread::Both) => "START REPLICA",
            (Flavour::MySql, Thread::Io) => "START REPLICA IO_THREAD",
            (Flavour::MySql, Thread::Sql) => "START REPLICA SQL_THREAD",
        }
    }

    pub fn stop_replica(self, thread: Thread) -> &'static str {
        match (self, thread) {
            (Flavour::MariaDb, Thread::Both) => "STOP SLAVE",
            (Flavour::MariaDb, Thread::Io) => "STOP SLAVE IO_THREAD",
            (Flavour::MariaDb, Thread::Sql) => "STOP SLAVE SQL_THREAD",
            (Flavour::MySql, Thread::Both) => "STOP REPLICA",
            (Flavour::MySql, Thread::Io) => "STOP REPLICA IO_THREAD",
            (Flavour::MySql, Thread::Sql) => "STOP REPLICA SQL_THREAD",
        }
    }
}

/// A replication thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Thread {
    Both,
    Io,
    Sql,
}

/// Whose replication settings the replicas have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplicationTiming {
    /// Net timeout 4 s, heartbeat and connect retry 1 s.
    Quick,
    /// What the server does when nothing is said: net timeout and connect retry 60 s, heartbeat 30 s.
    ServerDefaults,
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions {
    pub flavour: Flavour,
    /// The primary included.
    pub servers: usize,
    pub timing: ReplicationTiming,
}

/// The first words of each probe of a MariaDB server.
pub const MARIADB_PROBE: &str = "SELECT @@global.server_id, @@global.hostname";

/// How long a server may take for what it is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder outside the clone where the set-up script keeps MySQL, and this module its templates.
pub fn cache() -> Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("ORCHESTRATOR_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("orchestrator")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/orchestrator")))
        .ok_or_else(|| anyhow!("neither ORCHESTRATOR_CACHE, XDG_CACHE_HOME nor HOME is set"))
}

/// A server program and how it is run.
#[derive(Clone, Debug)]
struct Program {
    flavour: Flavour,
    /// The words before the server's own options.
    command: Vec<OsString>,
    /// What MySQL is unpacked under.
    root: PathBuf,
}

impl Program {
    fn find(flavour: Flavour) -> Result<Program> {
        match flavour {
            Flavour::MariaDb => {
                let found = std::env::var_os("PATH")
                    .iter()
                    .flat_map(std::env::split_paths)
                    .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
                    .map(|folder| folder.join("mariadbd"))
                    .find(|path| path.is_file());
                let Some(path) = found else {
                    bail!("no mariadbd on this machine; type:  tests/setup.sh mariadb");
                };
                Ok(Program {
                    flavour,
                    command: vec![path.into()],
                    root: PathBuf::from("/"),
                })
            }
            Flavour::MySql => {
                let root = cache()?.join("mysql9");
                ensure!(
                    root.join("complete").is_file(),
                    "no MySQL in {}; type:  tests/setup.sh mysql",
                    root.display()
                );
                let libraries = [
                    "lib/x86_64-linux-gnu",
                    "usr/lib/x86_64-linux-gnu",
                    "usr/lib/mysql/private",
                ]
                .map(|folder| root.join(folder).display().to_string())
                .join(":");
                let command = vec![
                    root.join("lib64/ld-linux-x86-64.so.2").into(),
                    "--library-path".into(),
                    libraries.into(),
                    root.join("usr/sbin/mysqld").into(),
                ];
                Ok(Program {
                    flavour,
                    command,
                    root,
                })
            }
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .arg(format!(
                "--defaults-file={}",
                folder.join("my.cnf").display()
            ))
            .current_dir(folder);
        command
    }

    fn version(&self) -> Result<String> {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .args(["--no-defaults", "--version"]);
        let output = command
            .output()
            .with_context(|| format!("{:?}", self.command))?;
        ensure!(
            output.status.success(),
            "{:?} --version: {}",
            self.command,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The options every server has, the template's included.
fn common_options(program: &Program, folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut lines = vec![
        "[mysqld]".to_owned(),
        format!("datadir={}", at("data")),
        format!("socket={}", at("s.sock")),
        format!("pid-file={}", at("server.pid")),
        format!("log-error={}", at("error.log")),
        "skip-name-resolve".to_owned(),
        "innodb-buffer-pool-size=32M".to_owned(),
        // A killed process loses nothing that it gave to the operating system, and no test cuts the power.
        "innodb-flush-log-at-trx-commit=2".to_owned(),
        "sync-binlog=0".to_owned(),
        "character-set-server=utf8mb4".to_owned(),
    ];
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } == 0 {
        lines.push("user=root".to_owned());
    }
    match program.flavour {
        Flavour::MariaDb => lines.extend([
            "innodb-log-file-size=16M".to_owned(),
            // A server that starts removes what looks like a temporary table there, and one that uses it crashes.
            format!("tmpdir={}", at("data")),
        ]),
        Flavour::MySql => {
            let under = |name: &str| program.root.join(name).display().to_string();
            lines.extend([
                format!("basedir={}", under("usr")),
                format!("lc-messages-dir={}", under("usr/share/mysql")),
                format!("plugin-dir={}", under("usr/lib/mysql/plugin")),
                format!("character-sets-dir={}", under("usr/share/mysql/charsets")),
                "mysqlx=0".to_owned(),
                "secure-file-priv=".to_owned(),
                "innodb-redo-log-capacity=16M".to_owned(),
                "performance-schema-max-table-instances=500".to_owned(),
                "table-open-cache=400".to_owned(),
            ]);
        }
    }
    lines
}

fn server_options(
    program: &Program,
    folder: &Path,
    port: u16,
    server_id: u32,
    timing: ReplicationTiming,
) -> String {
    let mut lines = common_options(program, folder);
    lines.extend([
        format!("port={port}"),
        "bind-address=127.0.0.1".to_owned(),
        format!("server-id={server_id}"),
        "report-host=127.0.0.1".to_owned(),
        format!("report-port={port}"),
        "log-bin=binlog".to_owned(),
        "relay-log=relay".to_owned(),
        "binlog-format=ROW".to_owned(),
        "max-connections=300".to_owned(),
    ]);
    match program.flavour {
        Flavour::MariaDb => lines.push("log-slave-updates=1".to_owned()),
        Flavour::MySql => lines.extend(
            [
                "gtid-mode=ON",
                "enforce-gtid-consistency=ON",
                "plugin-load-add=semisync_source.so",
                "plugin-load-add=semisync_replica.so",
            ]
            .map(str::to_owned),
        ),
    }
    match (program.flavour, timing) {
        (Flavour::MariaDb, ReplicationTiming::Quick) => {
            lines.push("slave-net-timeout=4".to_owned())
        }
        (Flavour::MySql, ReplicationTiming::Quick) => {
            lines.push("replica-net-timeout=4".to_owned())
        }
        (Flavour::MariaDb | Flavour::MySql, ReplicationTiming::ServerDefaults) => {}
    }
    lines.join("\n") + "\n"
}

/// The statements of a grants file, for the daemons' account and its password.
pub fn grant_statements(flavour: Flavour) -> Vec<String> {
    flavour
        .grants()
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("'change-me'", &format!("'{}'", ORCHESTRATOR.password))
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}

fn account_statements(flavour: Flavour) -> Vec<String> {
    let create = |account: Account| {
        format!(
            "CREATE USER '{}'@'%' IDENTIFIED BY '{}'",
            account.user, account.password
        )
    };
    let mut statements = vec![
        create(HARNESS),
        format!("GRANT ALL PRIVILEGES ON *.* TO '{}'@'%' WITH GRANT OPTION", HARNESS.user),
        create(REPLICATION),
        format!("GRANT REPLICATION SLAVE ON *.* TO '{}'@'%'", REPLICATION.user),
        create(APP),
        "CREATE DATABASE app".to_owned(),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON app.* TO '{}'@'%'", APP.user),
        "CREATE TABLE app.ledger (client BIGINT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (client, number))".to_owned(),
        "CREATE TABLE app.note (id BIGINT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200) NOT NULL)".to_owned(),
        "CREATE DATABASE meta".to_owned(),
        "CREATE TABLE meta.replication_account (user VARCHAR(64) NOT NULL, password VARCHAR(64) NOT NULL)".to_owned(),
        format!("INSERT INTO meta.replication_account VALUES ('{}', '{}')", REPLICATION.user, REPLICATION.password),
    ];
    statements.extend(grant_statements(flavour));
    statements
}

/// The data folder that every server begins with, made when the cache has none for this program
/// and these accounts.
async fn template(program: &Program) -> Result<PathBuf> {
    /// Held while this process looks for one and makes it.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let version = program.version()?;
    let accounts = account_statements(program.flavour);
    let mut hasher = DefaultHasher::new();
    (
        &version,
        &accounts,
        common_options(program, Path::new("/")),
        1_u32,
    )
        .hash(&mut hasher);
    let templates = cache()?.join("templates");
    let path = templates.join(format!("{}-{:016x}", program.flavour, hasher.finish()));
    if path.is_dir() {
        return Ok(path);
    }
    let scratch = Scratch::create("template")?;
    initialise(program, scratch.path(), &accounts)
        .await
        .with_context(|| format!("initialising a data folder for {version}"))?;
    fs::create_dir_all(&templates)?;
    // Built beside its place and renamed into it, so that another run sees all of it or nothing.
    let beside = templates.join(format!("new-{}", std::process::id()));
    copy_folder(&scratch.path().join("data"), &beside)?;
    if fs::rename(&beside, &path).is_err() {
        fs::remove_dir_all(&beside).ok();
        ensure!(path.is_dir(), "cannot create {}", path.display());
    }
    Ok(path)
}

async fn initialise(program: &Program, folder: &Path, accounts: &[String]) -> Result<()> {
    let mut options = common_options(program, folder);
    options.push("skip-log-bin".to_owned());
    options.push("skip-networking".to_owned());
    fs::write(folder.join("my.cnf"), options.join("\n") + "\n")?;
    let log = folder.join("out.log");
    let mut command = match program.flavour {
        Flavour::MariaDb => {
            let mut command = Command::new("mariadb-install-db");
            command
                .arg(format!(
                    "--defaults-file={}",
                    folder.join("my.cnf").display()
                ))
                .args([
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    // No look-up of this machine's name, which a fresh tree has not.
                    "--force",
                ]);
            command
        }
        Flavour::MySql => {
            let mut command = program.command(folder);
            command.arg("--initialize-insecure");
            command
        }
    };
    command.current_dir(folder);
    let mut install = Process::start(command, &log)?;
    let status = install.wait(Duration::from_secs(180)).await;
    ensure!(
        status.is_some_and(|status| status.success()),
        "ended with {status:?}: {}",
        tail(&[log, folder.join("error.log")])
    );
    let log = folder.join("out.log");
    let mut server = Process::start(program.command(folder), &log)?;
    let socket = folder.join("s.sock");
    let mut sql = until(
        "template server",
        Duration::from_secs(90),
        Duration::from_millis(50),
        async || match Sql::connect_socket(&socket).await {
            Ok(sql) => Look::Holds(Ok(sql)),
            Err(error) if !server.is_running() => Look::Holds(Err(error)),
            Err(error) => Look::not(error),
        },
    )
    .await?
    .with_context(|| tail(&[log.clone(), folder.join("error.log")]))?;
    sql.run_all(accounts).await?;
    sql.close().await;
    server.signal(Signal::Terminate);
    let status = server.wait(Duration::from_secs(90)).await;
    ensure!(status.is_some(), "the template server does not stop");
    // Each server mints an identity of its own.
    fs::remove_file(folder.join("data/auto.cnf")).ok();
    Ok(())
}

/// Of a data folder. What describes tables is never written in place (a server that changes a table writes another file), so
/// one file serves all: most of a folder's files are such, and to make and remove them took a fifth of the tests' time.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)
        .and_then(|()| fs::set_permissions(to, fs::metadata(from)?.permissions()))
        .with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&source, &target)?;
            continue;
        }
        let describes = source
            .extension()
            .is_some_and(|extension| extension == "frm" || extension == "sdi");
        // Not across file systems.
        if !describes || fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
}

/// The last lines of logs, for an error message.
pub fn tail(logs: &[PathBuf]) -> String {
    logs.iter()
        .filter_map(|log| fs::read_to_string(log).ok().map(|text| (log, text)))
        .map(|(log, text)| {
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "{}:\n{}",
                log.display(),
                lines[lines.len().saturating_sub(12)..].join("\n")
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// One server of a fleet.
#[derive(Debug)]
pub struct Server {
    port: u16,
    flavour: Flavour,
    body: Body,
    /// Stopped by a signal: it runs and answers nobody.
    frozen: AtomicBool,
}

/// What plays a server.
#[derive(Debug)]
enum Body {
    Real {
        folder: PathBuf,
        program: Program,
        process: Mutex<Option<Process>>,
    },
    Model {
        host: Host,
        /// Between a start and the first login.
        starting: Arc<AtomicBool>,
    },
}

impl Server {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Host and port as the daemons name it.
    pub fn key(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn logs(&self) -> Vec<PathBuf> {
        match &self.body {
            Body::Real { folder, .. } => vec![folder.join("out.log"), folder.join("error.log")],
            Body::Model { .. } => Vec::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        match &self.body {
            Body::Real { process, .. } => locked(process).as_mut().is_some_and(Process::is_running),
            Body::Model { host, starting } => {
                starting.load(Ordering::Relaxed)
                    || host.look(|server| server.process() != ModelProcess::Killed)
            }
        }
    }

    /// It runs and is not frozen.
    pub fn answers(&self) -> bool {
        self.is_running() && !self.frozen.load(Ordering::Relaxed)
    }

    /// Sends a signal; the moment at which it was sent.
    pub fn signal(&self, signal: Signal) -> Instant {
        match signal {
            Signal::Stop => self.frozen.store(true, Ordering::Relaxed),
            Signal::Continue | Signal::Kill => self.frozen.store(false, Ordering::Relaxed),
            Signal::Terminate | Signal::Interrupt | Signal::Hangup => {}
        }
        match &self.body {
            Body::Real { process, .. } => match locked(process).as_mut() {
                Some(process) => process.signal(signal),
                None => Instant::now(),
            },
            Body::Model { host, starting } => {
                let at = Instant::now();
                if signal == Signal::Kill {
                    starting.store(false, Ordering::Relaxed);
                }
                host.change(|server| match (signal, server.process()) {
                    (Signal::Kill, _) => server.kill(),
                    (Signal::Terminate, ModelProcess::Running) => server.stop(models::now()),
                    (Signal::Stop, ModelProcess::Running) => server.freeze(),
                    (Signal::Continue, ModelProcess::Frozen) => server.thaw(),
                    (
                        Signal::Terminate
                        | Signal::Interrupt
                        | Signal::Stop
                        | Signal::Continue
                        | Signal::Hangup,
                        ModelProcess::Running
                        | ModelProcess::Frozen
                        | ModelProcess::Stopping(_)
                        | ModelProcess::Killed,
                    ) => {}
                });
                at
            }
        }
    }

    /// One line more in its configuration file, from its next start on. A model server has some of them.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        match &self.body {
            Body::Real { folder, .. } => {
                let file = folder.join("my.cnf");
                let options = fs::read_to_string(&file)?;
                fs::write(file, format!("{options}{name}={value}\n"))?;
            }
            Body::Model { host, .. } => match name {
                "relay_log_recovery" => {
                    host.change(|server| server.set_relay_log_recovery(value == "1"));
                }
                _ => bail!("a model server has no option {name}"),
            },
        }
        Ok(())
    }

    /// Starts it, or starts it again, and does not wait for it to answer.
    pub fn start(&self) -> Result<()> {
        match &self.body {
            Body::Real {
                folder,
                program,
                process,
            } => {
                let mut process = locked(process);
                if !process.as_mut().is_some_and(Process::is_running) {
                    *process = Some(Process::start(
                        program.command(folder),
                        &folder.join("out.log"),
                    )?);
                }
            }
            Body::Model { host, starting } => {
                if !self.is_running() {
                    starting.store(true, Ordering::Relaxed);
                    let (host, starting) = (host.clone(), starting.clone());
                    let takes = self.flavour.kind().start_takes();
                    tokio::spawn(async move {
                        tokio::time::sleep(takes).await;
                        // Unless it was killed meanwhile.
                        if starting.load(Ordering::Relaxed) {
                            host.change(|server| {
                                if server.process() == ModelProcess::Killed {
                                    server.start(models::now());
                                }
                            });
                            starting.store(false, Ordering::Relaxed);
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// Waits until a login completes.
    pub async fn wait_up(&self) -> Result<()> {
        let what = format!("server {} answers", self.port);
        until(
            &what,
            Duration::from_secs(90),
            Duration::from_millis(20),
            async || match Sql::connect(self.port, HARNESS, Duration::from_secs(5)).await {
                Ok(sql) => {
                    sql.close().await;
                    Look::Holds(Ok(()))
                }
                Err(error) if !self.is_running() => Look::Holds(Err(
                    error.context(format!("it ended: {}", tail(&self.logs())))
                )),
                Err(error) => Look::not(error),
            },
        )
        .await?
    }

    /// Ends it at once and waits until it is gone.
    pub async fn kill_and_wait(&self) -> Result<()> {
        self.signal(Signal::Kill);
        self.wait_ended().await
    }

    /// Waits until the process is gone, and its port with it: the kernel sees to that for a real one, and a model's task does.
    pub async fn wait_ended(&self) -> Result<()> {
        until(
            "server ends",
            Duration::from_secs(90),
            Duration::from_millis(5),
            async || {
                if self.is_running() {
                    return Look::not("it runs");
                }
                match TcpStream::connect(("127.0.0.1", self.port())).await {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => Look::Holds(()),
                    dialled => Look::not(format!("its port does not refuse: {dialled:?}")),
                }
            },
        )
        .await
    }

    /// A connection with all privileges.
    pub async fn harness(&self) -> Result<Sql> {
        Sql::connect(self.port, HARNESS, STATEMENT_DEADLINE).await
    }

    /// A connection with the rights of the daemons.
    pub async fn orchestrator(&self) -> Result<Sql> {
        Sql::connect(self.port, ORCHESTRATOR, STATEMENT_DEADLINE).await
    }

    /// What it replicates from, `None` when it is no replica.
    pub async fn replica_status(&self) -> Result<Option<ReplicaStatus>> {
        let mut sql = self.harness().await?;
        let status = replica_status(&mut sql, self.flavour()).await?;
        sql.close().await;
        Ok(status)
    }

    /// Everything wiped, the template's data in place, not started.
    async fn wipe(
        &self,
        template: Option<&Path>,
        server_id: u32,
        timing: ReplicationTiming,
    ) -> Result<()> {
        self.kill_and_wait().await?;
        match &self.body {
            Body::Real {
                folder, program, ..
            } => {
                let template = template.ok_or_else(|| anyhow!("a real fleet has a template"))?;
                let options = server_options(program, folder, self.port, server_id, timing);
                fs::write(folder.join("my.cnf"), options)?;
                fs::remove_dir_all(folder.join("data")).ok();
                copy_folder(template, &folder.join("data"))
            }
            Body::Model { host, .. } => {
                host.change(|server| server.wipe(server_id));
                Ok(())
            }
        }
    }
}

/// A poisoned lock is of a thread that panicked between two plain assignments.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a replica's status that the tests judge by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplicaStatus {
    pub source_port: u16,
    pub io: String,
    pub sql: String,
    pub error: String,
}

impl ReplicaStatus {
    pub fn runs(&self) -> bool {
        self.io == "Yes" && self.sql == "Yes"
    }
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "<- {} io {} sql {} {}",
            self.source_port, self.io, self.sql, self.error
        )
    }
}

/// Reads a replica's status over an open connection.
pub async fn replica_status(sql: &mut Sql, flavour: Flavour) -> Result<Option<ReplicaStatus>> {
    let rows: Vec<Row> = sql.rows(flavour.show_replica_status()).await?;
    Ok(rows.first().map(|row| ReplicaStatus {
        source_port: row
            .text(&["Source_Port", "Master_Port"])
            .parse()
            .unwrap_or(0),
        io: row
            .text(&["Replica_IO_Running", "Slave_IO_Running"])
            .to_owned(),
        sql: row
            .text(&["Replica_SQL_Running", "Slave_SQL_Running"])
            .to_owned(),
        error: [row.text(&["Last_IO_Error"]), row.text(&["Last_SQL_Error"])]
            .join(" ")
            .trim()
            .to_owned(),
    }))
}

/// A primary and its replicas; every server is ended and its data removed on drop.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    servers: Vec<Server>,
    /// How many servers were replaced.
    replaced: AtomicU32,
    ground: Ground,
}

/// What a fleet stands on. Goes after its servers.
#[derive(Debug)]
enum Ground {
    Real { template: PathBuf, scratch: Scratch },
    Models { _running: Running },
}

impl Fleet {
    /// Starts the servers and builds replication: the first server is the primary.
    pub async fn start(options: FleetOptions) -> Result<Fleet> {
        ensure!(options.servers >= 1, "a fleet has at least one server");
        let program = Program::find(options.flavour)?;
        let template = template(&program).await?;
        let scratch = Scratch::create(&options.flavour.to_string())?;
        let mut servers = Vec::new();
        for port in free_ports(options.servers)? {
            let folder = scratch.path().join(port.to_string());
            fs::create_dir(&folder)?;
            copy_folder(&template, &folder.join("data"))?;
            fs::write(
                folder.join("my.cnf"),
                server_options(&program, &folder, port, u32::from(port), options.timing),
            )?;
            servers.push(Server {
                port,
                flavour: options.flavour,
                body: Body::Real {
                    folder,
                    program: program.clone(),
                    process: Mutex::new(None),
                },
                frozen: AtomicBool::new(false),
            });
        }
        let fleet = Fleet {
            options,
            servers,
            replaced: AtomicU32::new(0),
            ground: Ground::Real { template, scratch },
        };
        for server in &fleet.servers {
            server.start()?;
        }
        fleet.build().await
    }

    /// The same of model servers. `name` is what `meta.cluster` says on each.
    pub async fn start_models(options: FleetOptions, name: &str) -> Result<Fleet> {
        ensure!(options.servers >= 1, "a fleet has at least one server");
        let running = Running::start()?;
        let mut servers = Vec::new();
        for port in free_ports(options.servers)? {
            let host = running.serve(model(&options, port, name)?);
            servers.push(Server {
                port,
                flavour: options.flavour,
                body: Body::Model {
                    host,
                    starting: Arc::default(),
                },
                frozen: AtomicBool::new(false),
            });
        }
        let fleet = Fleet {
            options,
            servers,
            replaced: AtomicU32::new(0),
            ground: Ground::Models { _running: running },
        };
        fleet.build().await
    }

    /// Waits for the servers and builds replication.
    async fn build(self) -> Result<Fleet> {
        for server in &self.servers {
            server.wait_up().await?;
        }
        let primary = self.servers[0].port;
        for replica in &self.servers[1..] {
            self.attach(replica.port, primary).await?;
        }
        for replica in &self.servers[1..] {
            self.wait_replicates(replica.port, primary, Duration::from_secs(30))
                .await?;
        }
        Ok(self)
    }

    pub fn options(&self) -> FleetOptions {
        self.options
    }

    pub fn flavour(&self) -> Flavour {
        self.options.flavour
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(Server::port).collect()
    }

    /// The servers that run and are not frozen, but for one.
    pub fn live_except(&self, port: u16) -> Vec<&Server> {
        self.servers
            .iter()
            .filter(|server| {
                server.port != port && !server.frozen.load(Ordering::Relaxed) && server.is_running()
            })
            .collect()
    }

    pub fn server(&self, port: u16) -> Result<&Server> {
        self.servers
            .iter()
            .find(|server| server.port == port)
            .ok_or_else(|| anyhow!("no server on port {port} in this fleet"))
    }

    /// Leaves the servers' folders behind for a person to read.
    pub fn keep(&mut self) {
        match &mut self.ground {
            Ground::Real { scratch, .. } => scratch.keep(),
            Ground::Models { .. } => {}
        }
    }

    /// Makes a running server a read-only replica of another one, by GTID, from its present position.
    pub async fn attach(&self, port: u16, source: u16) -> Result<()> {
        let mut sql = self.server(port)?.harness().await?;
        let Account { user, password } = REPLICATION;
        let statements = match self.flavour() {
            Flavour::MariaDb => {
                let quick = match self.options.timing {
                    ReplicationTiming::Quick => {
                        "MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1, "
                    }
                    ReplicationTiming::ServerDefaults => "",
                };
                [
                    "STOP SLAVE".to_owned(),
                    format!(
                        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={source}, MASTER_USER='{user}', \
                         MASTER_PASSWORD='{password}', {quick}MASTER_USE_GTID=slave_pos"
                    ),
                    "SET GLOBAL read_only=1".to_owned(),
                    "START SLAVE".to_owned(),
                ]
            }
            Flavour::MySql => {
                let quick = match self.options.timing {
                    ReplicationTiming::Quick => {
                        "SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, SOURCE_HEARTBEAT_PERIOD=1, "
                    }
                    ReplicationTiming::ServerDefaults => "",
                };
                [
                    "STOP REPLICA".to_owned(),
                    format!(
                        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={source}, \
                         SOURCE_USER='{user}', SOURCE_PASSWORD='{password}', GET_SOURCE_PUBLIC_KEY=1, \
                         {quick}SOURCE_AUTO_POSITION=1"
                    ),
                    "SET GLOBAL super_read_only=1".to_owned(),
                    "START REPLICA".to_owned(),
                ]
            }
        };
        sql.run_all(statements).await?;
        sql.close().await;
        Ok(())
    }

    /// Replaces a server (ended or not) by an empty one at the same address, which replicates from
    /// `source` from the beginning: what an operator does with a lost primary.
    pub async fn replace(&self, port: u16, source: u16) -> Result<()> {
        let server = self.server(port)?;
        // Another server_id: a replica skips events that bear its own, and the history may hold
        // transactions that this server originated before it was lost.
        let generation = self.replaced.fetch_add(1, Ordering::Relaxed) + 1;
        let server_id = u32::from(port) + 100_000 * generation;
        let template = match &self.ground {
            Ground::Real { template, .. } => Some(template.as_path()),
            Ground::Models { .. } => None,
        };
        server
            .wipe(template, server_id, self.options.timing)
            .await?;
        server.start()?;
        server.wait_up().await?;
        // Daemons that still hold the address in quarantine may end this session meanwhile: an operator
        // would type it again.
        let what = format!("{port} is attached to {source}");
        until(
            &what,
            PATIENCE,
            Duration::from_millis(100),
            async || match self.attach(port, source).await {
                Ok(()) => Look::Holds(()),
                Err(error) => Look::not(format!("{error:#}")),
            },
        )
        .await?;
        self.wait_replicates(port, source, PATIENCE).await
    }

    /// Waits until a server replicates from another with both threads running.
    pub async fn wait_replicates(&self, port: u16, source: u16, deadline: Duration) -> Result<()> {
        let server = self.server(port)?;
        let what = format!("{port} replicates from {source}");
        until(
            &what,
            deadline,
            Duration::from_millis(10),
            async || match server.replica_status().await {
                Ok(Some(status)) if status.runs() && status.source_port == source => {
                    Look::Holds(())
                }
                Ok(Some(status)) => Look::not(status),
                Ok(None) => Look::not("it is no replica"),
                Err(error) => Look::not(error),
            },
        )
        .await
    }

    /// One line a server, for people and error messages.
    pub async fn describe(&self) -> String {
        let mut lines = Vec::new();
        for server in &self.servers {
            let line = match describe(server).await {
                Ok(line) => line,
                Err(error) => format!("{error:#}"),
            };
            lines.push(format!("{} {line}", server.port));
        }
        lines.join("\n")
    }
}

async fn describe(server: &Server) -> Result<String> {
    if !server.is_running() {
        return Ok("down".to_owned());
    }
    let mut sql = Sql::connect(server.port, HARNESS, Duration::from_secs(1)).await?;
    let read_only = sql.value("SELECT @@GLOBAL.read_only").await?;
    let status = replica_status(&mut sql, server.flavour()).await?;
    sql.close().await;
    let access = if read_only == "0" {
        "writable"
    } else {
        "read-only"
    };
    Ok(match status {
        Some(status) => format!("{access} {status}"),
        None => access.to_owned(),
    })
}

/// A model server without data, with the accounts of the real ones.
fn model(options: &FleetOptions, port: u16, name: &str) -> Result<Model> {
    let login = |account: Account| models::Login {
        user: account.user,
        password: account.password,
    };
    let mut statements = grant_statements(options.flavour);
    statements.retain(|statement| !statement.is_empty());
    let template = models::Template {
        kind: options.flavour.kind(),
        administrator: login(HARNESS),
        replication: login(REPLICATION),
        application: login(APP),
        statements: &statements,
        net_timeout: match options.timing {
            ReplicationTiming::Quick => Duration::from_secs(4),
            ReplicationTiming::ServerDefaults => Duration::from_secs(60),
        },
    };
    let mut server = models::server(&template, port, u32::from(port), false)
        .map_err(|refusal| anyhow!("{}", refusal.message))?;
    server.set_cluster_name(name);
    Ok(server)
}
