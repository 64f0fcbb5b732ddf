//! `orchestrator raft form`, `export`, `recover` and `init-certs`: what is done for a raft cluster on an operator's word only.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use orchestrator::command_line::Memory;
use orchestrator::config::{Address, BackendKind, Settings};
use orchestrator::env::{DedicatedRuntime, Env, TokioEnv, sleep};
use orchestrator::{backend, raft, wiring};
use orchestrator_core::time::Wall;

/// A waiting daemon answers within this time.
const FORM_PATIENCE: Duration = Duration::from_secs(75);
const LOOK: Duration = Duration::from_millis(200);
/// What a file that was exported may hold beside the state.
const EXPORT_HEAD_BYTES: u64 = 1 << 20;

/// What is to be done.
pub enum Verb {
    /// Form the cluster with these nodes only.
    Form(String),
    /// Write the replicated state to this file.
    Export(PathBuf),
    Recover {
        from: Memory,
        /// Else it is only said what would be done.
        is_meant: bool,
    },
}

/// # Errors
/// It was not done, in words.
pub fn run(verb: Verb, settings: &Settings) -> anyhow::Result<()> {
    let raft_settings = wiring::raft_settings(settings)?;
    let runtime = DedicatedRuntime::start("raft", 1)?;
    let outcome = match verb {
        Verb::Form(with) => runtime.run(form(raft_settings, with)),
        Verb::Export(file) => {
            let owners = Owners::of(&raft_settings.data_dir, settings);
            let done = runtime.run(export(settings, raft_settings, &file));
            owners.give_back();
            done
        }
        Verb::Recover { from, is_meant } => {
            let directory = raft_settings.data_dir.clone();
            let owners = Owners::of(&directory, settings);
            let done = runtime.run(async {
                let recovery = match from {
                    Memory::RaftDirectory => of_directory(raft_settings).await,
                    Memory::File(file) => of_file(raft_settings, &file).await,
                    Memory::Backend => of_backend(settings, raft_settings).await,
                };
                recover(settings, recovery?, is_meant).await
            });
            // Looking leaves files behind too: a lock, and what a database has beside its file.
            owners.give_back();
            done
        }
    };
    runtime.stop();
    outcome
}

/// # Errors
/// What could not be made, in words.
pub fn init_certificates(folder: &Path, hosts: &[String]) -> anyhow::Result<()> {
    let written = raft::init_certificates(folder, hosts).map_err(anyhow::Error::msg)?;
    if written.is_empty() {
        println!("everything is there already in {}", folder.display());
    }
    for file in written {
        println!("{}", file.display());
    }
    Ok(())
}

async fn form(mut settings: raft::RaftSettings, with: String) -> anyhow::Result<()> {
    let entries: Vec<String> = with
        .split(',')
        .map(|entry| entry.trim().to_owned())
        .filter(|entry| !entry.is_empty())
        .collect();
    if entries.is_empty() {
        bail!("name the nodes to form with: --with A,B; and type the same on each of them");
    }
    // Whoever holds the directory is the daemon that waits.
    match raft::look::<TokioEnv>(&mut settings).await {
        Err(raft::StartError::InUse(_)) => {}
        Ok(_) => bail!("no daemon runs on {}", settings.data_dir.display()),
        Err(error) => return Err(error.into()),
    }
    let directory = settings.data_dir.clone();
    TokioEnv::blocking(move || raft::ask_to_form::<TokioEnv>(&directory, &entries))
        .await
        .with_context(|| settings.data_dir.display().to_string())?;
    println!("asked; type the same on the other nodes of the list within a minute");
    let deadline = TokioEnv::mono() + FORM_PATIENCE;
    while TokioEnv::mono() < deadline {
        let directory = settings.data_dir.clone();
        let outcome =
            TokioEnv::blocking(move || raft::outcome_of_forming::<TokioEnv>(&directory)).await?;
        match outcome.as_deref() {
            None => sleep::<TokioEnv>(LOOK).await,
            Some("formed") => {
                println!("the cluster is formed");
                return Ok(());
            }
            Some(why) => bail!("{why}"),
        }
    }
    bail!("the daemon did not answer: it has a cluster already, or has ended; see its log")
}

/// Writes the state of this machine's daemon to a file, and says what is in it.
async fn export(
    settings: &Settings,
    raft_settings: raft::RaftSettings,
    file: &Path,
) -> anyhow::Result<()> {
    if file.symlink_metadata().is_ok() {
        bail!(
            "{} is there already, and is not written over: name another file",
            file.display()
        );
    }
    let folder = folder_of(file);
    if !folder.is_dir() {
        bail!(
            "{} is no directory that is there: make it first, or name another file",
            folder.display()
        );
    }
    let directory = raft_settings.data_dir.clone();
    let export = raft::export::<TokioEnv>(raft_settings).await?;
    write_new(file, &export.bytes).with_context(|| file.display().to_string())?;
    println!(
        "{} holds the replicated state of {} at entry {}, of {} UTC ({} bytes)",
        file.display(),
        directory.display(),
        export.last,
        export.time,
        export.bytes.len()
    );
    println!("its members: {}", export.members.join(", "));
    if export.is_running {
        let listen = settings.listen.address.as_ref();
        let host = listen.filter(|address| !address.is_unspecified());
        let at = Address {
            host: host.map_or_else(|| "localhost".to_owned(), |address| address.host.clone()),
            port: listen.map_or(3000, |address| address.port),
        };
        println!(
            "a daemon runs on {}: this is its newest snapshot, and NOT what was decided since. For all of it, have a new one \
             written first (curl http://{at}/api/raft-snapshot), and export that to another file",
            directory.display()
        );
    }
    let now = u64::try_from(TokioEnv::wall().as_nanos()).unwrap_or(u64::MAX);
    if let Some(warning) = export.warning(Wall::from_nanos(now)) {
        eprintln!("NOTE: {warning}");
    }
    println!(
        "keep it on another machine; when a majority is lost for good: orchestrator raft recover --from-file FILE"
    );
    Ok(())
}

/// Whole or not at all, and never over a file that is there.
fn write_new(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = with_end(file, &format!(".{}.unfinished", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut open| {
            open.write_all(bytes)?;
            open.sync_all()
        })
        .and_then(|()| name_it(&unfinished, file));
    if written.is_err() {
        // Of no use; whether it can be removed changes nothing.
        let _ = std::fs::remove_file(&unfinished);
    }
    written?;
    std::fs::File::open(folder_of(file))?.sync_all()
}

fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A rename would take the place of a file that came meanwhile; a link does not, where there are links.
fn name_it(unfinished: &Path, file: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::AlreadyExists;
    match std::fs::hard_link(unfinished, file) {
        Ok(()) => std::fs::remove_file(unfinished),
        Err(error) if error.kind() == AlreadyExists => Err(error),
        Err(_) if file.symlink_metadata().is_ok() => Err(AlreadyExists.into()),
        Err(_) => std::fs::rename(unfinished, file),
    }
}

/// A name with this behind it.
fn with_end(name: &Path, end: &str) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Reads a file that was exported, and says what is kept of it and what is lost.
async fn of_file(
    raft_settings: raft::RaftSettings,
    file: &Path,
) -> anyhow::Result<raft::Recovery<TokioEnv>> {
    let held = match raft::examine::<TokioEnv>(raft_settings.clone()).await {
        Ok(recovery) => Some(recovery.last).filter(|last| last.index > 0),
        Err(error @ raft::StartError::InUse(_)) => return Err(error.into()),
        Err(_) => None,
    };
    let bytes = read_bounded(file).with_context(|| file.display().to_string())?;
    let directory = raft_settings.data_dir.clone();
    let recovery = match raft::of_file::<TokioEnv>(raft_settings, bytes).await {
        Err(raft::StartError::Refused(why)) => {
            bail!("{}: {why}. Nothing was changed", file.display())
        }
        other => other?,
    };
    if let Some(held) = held {
        let more = if held.index >= recovery.last.index {
            ": --from-raft-dir would lose less than --from-file"
        } else {
            ", and is kept beside"
        };
        println!(
            "{} can be read and holds the log up to entry {held}{more}",
            directory.display()
        );
    }
    println!(
        "{} holds the whole replicated state of a cluster at entry {}, of {} UTC",
        file.display(),
        recovery.last,
        recovery.state.log_time()
    );
    println!("its members: {}", recovery.members.join(", "));
    let under_way = recovery.state.recoveries_newest_first();
    for open in under_way.filter(|recovery| recovery.end.is_none()) {
        println!(
            "under way in it: recovery {} of {}; the daemon closes it or goes on with it by what it then finds on the servers",
            open.uid, open.server
        );
    }
    println!(
        "LOST is whatever was decided after that entry: also recoveries, and which old primaries are kept read-only since: look \
         that none of them takes writes before this daemon is started"
    );
    Ok(recovery)
}

/// The bytes of a file, of which there are no more than those of a snapshot.
fn read_bounded(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let at_most = raft::SNAPSHOT_BYTES_MAX + EXPORT_HEAD_BYTES;
    let open = std::fs::File::open(file)?;
    open.take(at_most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > at_most {
        return Err(std::io::Error::other(format!(
            "it is longer than {at_most} bytes, which no exported state is"
        )));
    }
    Ok(bytes)
}

/// Looks into the raft directory, and says what is kept of it and what is lost.
async fn of_directory(
    raft_settings: raft::RaftSettings,
) -> anyhow::Result<raft::Recovery<TokioEnv>> {
    let directory = raft_settings.data_dir.clone();
    let recovery = raft::examine::<TokioEnv>(raft_settings).await?;
    if recovery.last.index == 0 {
        bail!(
            "{} holds no entry of any cluster: there is nothing to go on from. See --from-backend and --from-file. Nothing was \
             changed",
            directory.display()
        );
    }
    let committed = recovery
        .committed
        .map_or_else(|| String::from("nothing"), |index| format!("entry {index}"));
    println!(
        "{} is node {} of cluster {}",
        directory.display(),
        recovery.former,
        recovery
            .cluster
            .map_or_else(|| String::from("none"), |cluster| cluster.to_string())
    );
    println!("its members: {}", recovery.members.join(", "));
    println!(
        "it holds the log up to entry {}, of {} UTC; it knows that {committed} was committed",
        recovery.last,
        recovery.state.log_time()
    );
    println!(
        "LOST is whatever the other members decided after that entry; entries that were not known to be committed count"
    );
    Ok(recovery)
}

/// Reads the backend, and says what is kept of it and what is lost.
async fn of_backend(
    settings: &Settings,
    raft_settings: raft::RaftSettings,
) -> anyhow::Result<raft::Recovery<TokioEnv>> {
    let place = backend::Settings::new(&settings.backend).place;
    match raft::examine::<TokioEnv>(raft_settings.clone()).await {
        // As a daemon makes it that waits to be let in.
        Ok(recovery) if recovery.last.index == 0 => {}
        Ok(_) => println!(
            "{} can be read: --from-raft-dir would lose less than --from-backend",
            raft_settings.data_dir.display()
        ),
        Err(error @ raft::StartError::InUse(_)) => return Err(error.into()),
        Err(_) => {}
    }
    let read = backend::read_back::<TokioEnv>(&place).await?;
    println!(
        "{place} holds the state of cluster {} at entry {}, written at {} UTC",
        read.position
            .cluster
            .map_or_else(|| String::from("none"), |cluster| cluster.to_string()),
        read.position.at.unwrap_or_default(),
        read.written
    );
    let rows: Vec<String> = read
        .rows
        .iter()
        .map(|(table, count)| format!("{count} of {table}"))
        .collect();
    println!("kept are these rows: {}", rows.join(", "));
    let recovery = raft::of_backend::<TokioEnv>(raft_settings, read).await?;
    for why in &recovery.refused {
        println!("not kept: {why}");
    }
    println!(
        "LOST is all else: whatever was decided after that entry; recoveries and detections (their rows stay in the former \
         backend); which recoveries were under way; and which old primaries are kept read-only: look that none of them takes \
         writes before this daemon is started"
    );
    Ok(recovery)
}

async fn recover(
    settings: &Settings,
    recovery: raft::Recovery<TokioEnv>,
    is_meant: bool,
) -> anyhow::Result<()> {
    println!(
        "the cluster gets another id and this node as its only member; the others are to be started with empty raft \
         directories and backends, and are let in when all of RaftNodes answer"
    );
    if !is_meant {
        println!("nothing was changed; to do it, type the same with --yes, on ONE node");
        return Ok(());
    }
    let (former, cluster) = recovery.carry_out().await?;
    println!(
        "done: cluster {cluster}; the former directory is {}",
        former.display()
    );
    if let BackendKind::Sqlite { data_file } = &settings.backend.kind {
        for moved in set_backend_aside(Path::new(data_file))? {
            println!(
                "the backend is rebuilt at the next start; its former file is {}",
                moved.display()
            );
        }
    }
    if let BackendKind::Mysql(backend) = &settings.backend.kind {
        println!(
            "the schema {} at {}:{} belongs to the former cluster: rename or drop it before the next start; it is made anew",
            backend.database, backend.host, backend.port
        );
    }
    Ok(())
}

/// Whose the files are: typed by root, a recovery must leave them to the user that the daemon runs as.
struct Owners(Vec<(PathBuf, Owner)>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owners {
    /// Of the raft directory, or of the folder in which it will be made; and of a backend that is a file.
    fn of(directory: &Path, settings: &Settings) -> Self {
        let mut owners = Vec::new();
        let existing = directory.ancestors().find(|path| path.exists());
        if let Some(owner) = existing.and_then(owner) {
            owners.push((directory.to_path_buf(), owner));
        }
        if let BackendKind::Sqlite { data_file } = &settings.backend.kind
            && let Some(owner) = owner(Path::new(data_file))
        {
            for end in ["", "-wal", "-shm"] {
                owners.push((PathBuf::from(format!("{data_file}{end}")), owner));
            }
        }
        Self(owners)
    }

    fn give_back(&self) {
        for (path, owner) in &self.0 {
            let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
            let inside: Vec<PathBuf> = inside.map(|entry| entry.path()).collect();
            for path in inside.iter().chain([path]) {
                let is_theirs = self::owner(path).is_none_or(|found| found == *owner);
                if is_theirs {
                    continue;
                }
                if let Err(error) = lchown(path, Some(owner.user), Some(owner.group)) {
                    println!(
                        "give {} to user {} and group {}, or the daemon cannot open it: {error}",
                        path.display(),
                        owner.user,
                        owner.group
                    );
                }
            }
        }
    }
}

fn owner(path: &Path) -> Option<Owner> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some(Owner {
        user: found.uid(),
        group: found.gid(),
    })
}

/// The rows belong to the former cluster: they are rewritten from the raft directory.
fn set_backend_aside(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    let seconds = TokioEnv::wall().as_secs();
    for end in ["-wal", "-shm", ""] {
        let from = with_end(file, end);
        if !from.exists() {
            continue;
        }
        let former = with_end(file, &format!(".before-recovery-{seconds}"));
        let to = with_end(&former, end);
        std::fs::rename(&from, &to).with_context(|| from.display().to_string())?;
        if end.is_empty() {
            moved.push(to);
        }
    }
    Ok(moved)
}
