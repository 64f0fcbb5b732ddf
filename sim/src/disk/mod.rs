//! The disks of all simulated machines: what a power cut leaves of a file that was written but not synced.
//!
//! One disk set a thread: a simulation never shares a thread with another. The first component of a path names the
//! machine (`/n1/raft/log.db` lies on machine `n1`).
//!
//! What holds: a write is seen at once by every reader of the machine and is kept by [`power_cut`] only if the file was
//! synced after it; of the others each is kept with probability one half, and a kept write may be torn. A created,
//! renamed or removed name is kept if its folder (for SQLite's files: the file) was synced after it; of the others, in
//! their order, a random number of the first is kept, as on a file system with a journal. Folders are kept at once.
//! A disk may be full, mounted read-only, or fail a sync: what that sync was to make durable is then lost with the next power
//! cut, although every reader sees it until then, and a later sync does not say so. Its bytes may rot.
//! [`kill`] loses nothing but locks: the machine stays up. After either, every handle and lock of the earlier process
//! is dead: what its destructors still try has no effect.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::random::SplitMix;

mod vfs;

pub use vfs::open_db;

/// How long a sync takes, in microseconds: from, to.
const SYNC_MICROSECONDS: (u64, u64) = (300, 1_500);
/// One write in so many of those that a power cut keeps without a sync is torn.
const TORN_ONE_IN: u64 = 8;
const PURPOSE: u64 = 0xd15c;

/// A change of a file that is not on stable storage.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Debug, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl File {
    fn change(&mut self, change: Change) {
        apply(&mut self.current, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    fn grows_by(&self, change: &Change) -> bool {
        match change {
            Change::Write { offset, bytes } => offset + bytes.len() > self.current.len(),
            Change::Resize(length) => *length > self.current.len(),
        }
    }
}

/// What a disk refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Good,
    /// Nothing is created, no file grows.
    Full,
    /// Mounted anew, read-only, as Linux does after an error of the file system.
    ReadOnly,
}

impl State {
    fn allows_change(self) -> io::Result<()> {
        match self {
            Self::Good | Self::Full => Ok(()),
            Self::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    fn allows_growth(self) -> io::Result<()> {
        match self {
            Self::Good => Ok(()),
            Self::Full => Err(io::ErrorKind::StorageFull.into()),
            Self::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Change::Resize(length) => content.resize(*length, 0),
    }
}

/// Names a file of this thread's disks, under whatever name it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

/// A change of names that is not on stable storage.
#[derive(Debug, Clone)]
enum NameChange {
    Create { name: String, file: FileId },
    Remove { name: String },
    Rename { from: String, to: String },
    RenameFolder { from: String, to: String },
}

impl NameChange {
    fn is_in(&self, folder: &str) -> bool {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => parent(name) == folder,
            Self::Rename { from, to } | Self::RenameFolder { from, to } => {
                parent(from) == folder || parent(to) == folder
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::RenameFolder { from, to } => {
                let moved: Vec<String> = names
                    .keys()
                    .filter(|name| lies_in(name, from))
                    .cloned()
                    .collect();
                for name in moved {
                    if let Some(file) = names.remove(&name) {
                        names.insert(format!("{to}{}", &name[from.len()..]), file);
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Machine {
    /// Counts the processes that ran here: what belongs to an earlier one is dead.
    process: u64,
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    pending_names: Vec<NameChange>,
    folders: BTreeSet<String>,
    locked_folders: BTreeSet<String>,
    /// Each sync takes so much longer.
    slower: Duration,
    state: State,
    /// The next sync of a file or folder whose name begins so fails.
    fails_to_sync: Option<String>,
}

impl Machine {
    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn sync_names(&mut self, concerns: impl Fn(&NameChange) -> bool) {
        let changes = std::mem::take(&mut self.pending_names);
        // A folder's new name takes along what happened in it before, which a journal keeps in this order.
        let moves = |change: &NameChange| matches!(change, NameChange::RenameFolder { .. });
        let moved = changes
            .iter()
            .rposition(|change| moves(change) && concerns(change));
        for (place, change) in changes.into_iter().enumerate() {
            if concerns(&change) || moved.is_some_and(|moved| place < moved) {
                change.apply(&mut self.durable_names);
            } else {
                self.pending_names.push(change);
            }
        }
    }

    fn has_folder(&self, folder: &str) -> bool {
        !folder.contains('/') || self.folders.contains(folder)
    }
}

#[derive(Debug)]
struct Disks {
    machines: BTreeMap<String, Machine>,
    files: BTreeMap<FileId, File>,
    files_created: u64,
    random: SplitMix,
    latency: Duration,
    counts: Counts,
}

/// What the disks went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub syncs: u64,
    /// Changes, of content and of names, that power cuts took.
    pub changes_lost: u64,
}

thread_local! {
    static DISKS: RefCell<Disks> = RefCell::new(Disks::new(0));
}

impl Disks {
    fn new(seed: u64) -> Self {
        Self {
            machines: BTreeMap::new(),
            files: BTreeMap::new(),
            files_created: 0,
            random: SplitMix::new(seed, PURPOSE),
            latency: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    fn machine(&mut self, path: &str) -> &mut Machine {
        self.machines
            .entry(machine_of(path).to_owned())
            .or_default()
    }

    fn find(&mut self, path: &str) -> Option<FileId> {
        self.machine(path).names.get(path).copied()
    }

    fn create(&mut self, path: &str) -> FileId {
        self.files_created += 1;
        let file = FileId(self.files_created);
        self.files.insert(file, File::default());
        self.machine(path).rename(NameChange::Create {
            name: path.to_owned(),
            file,
        });
        file
    }

    /// Whether this sync fails. What it was to make durable never will be.
    fn fails_to_sync(&mut self, path: &str) -> bool {
        let machine = self.machine(path);
        if machine.state == State::ReadOnly {
            return true;
        }
        let fails = machine
            .fails_to_sync
            .take_if(|begin| path.starts_with(begin.as_str()))
            .is_some();
        if fails {
            let folder = parent(path).to_owned();
            machine
                .pending_names
                .retain(|change| !change.is_in(&folder) && !change.is_in(path));
            let file = machine.names.get(path).copied();
            if let Some(file) = file.and_then(|id| self.files.get_mut(&id)) {
                file.pending.clear();
            }
        }
        fails
    }

    fn synced(&mut self, path: &str) {
        self.counts.syncs += 1;
        let (low, high) = SYNC_MICROSECONDS;
        self.latency += Duration::from_micros(self.random.between(low, high));
        let slower = self.machine(path).slower;
        self.latency += slower;
    }

    fn power_cut(&mut self, machine: &str) {
        let random = &mut self.random;
        let Some(machine) = self.machines.get_mut(machine) else {
            return;
        };
        machine.process += 1;
        machine.locked_folders.clear();
        let pending = std::mem::take(&mut machine.pending_names);
        let kept = random.between(0, pending.len() as u64 + 1) as usize;
        self.counts.changes_lost += (pending.len() - kept) as u64;
        for change in &pending[..kept] {
            change.apply(&mut machine.durable_names);
        }
        machine.names = machine.durable_names.clone();
        // A folder whose new name was lost is where it was.
        for name in machine.names.keys() {
            let mut folder = parent(name);
            while folder.contains('/') {
                machine.folders.insert(folder.to_owned());
                folder = parent(folder);
            }
        }
        for id in machine.names.values() {
            let Some(file) = self.files.get_mut(id) else {
                continue;
            };
            for mut change in std::mem::take(&mut file.pending) {
                if random.one_in(2) {
                    self.counts.changes_lost += 1;
                    continue;
                }
                if let Change::Write { bytes, .. } = &mut change
                    && random.one_in(TORN_ONE_IN)
                {
                    bytes.truncate(random.between(0, bytes.len() as u64) as usize);
                }
                apply(&mut file.durable, &change);
            }
            file.current = file.durable.clone();
        }
    }
}

fn with<T>(act: impl FnOnce(&mut Disks) -> T) -> T {
    DISKS.with(|disks| act(&mut disks.borrow_mut()))
}

/// Empty disks for the run of a seed on this thread. Runs of one process must not overlap: SQLite's generator is the
/// process's.
pub fn reset(seed: u64) {
    with(|disks| *disks = Disks::new(seed));
    vfs::reset();
}

/// The time that what was done since the last call would have taken.
pub fn take_latency() -> Duration {
    with(|disks| std::mem::take(&mut disks.latency))
}

pub fn counts() -> Counts {
    with(|disks| disks.counts)
}

/// The process of this machine ended; the machine runs on.
pub fn kill(machine: &str) {
    with(|disks| {
        if let Some(machine) = disks.machines.get_mut(machine) {
            machine.process += 1;
            machine.locked_folders.clear();
        }
    });
}

/// The machine lost power.
pub fn power_cut(machine: &str) {
    with(|disks| disks.power_cut(machine));
}

/// The machine was replaced: everything on it is gone.
pub fn wipe(machine: &str) {
    with(|disks| {
        if let Some(machine) = disks.machines.get_mut(machine) {
            *machine = Machine {
                process: machine.process + 1,
                ..Machine::default()
            };
        }
    });
}

/// From here on each sync of the machine takes so much longer.
pub fn set_slower(machine: &str, by: Duration) {
    with(|disks| disks.machine(machine).slower = by);
}

pub fn set_state(machine: &str, state: State) {
    with(|disks| disks.machine(machine).state = state);
}

/// The next sync of a file or folder whose path begins so fails.
pub fn fail_next_sync(path: &str) {
    if let Ok(begin) = name_of(Path::new(path)) {
        with(|disks| disks.machine(&begin).fails_to_sync = Some(begin.clone()));
    }
}

/// No sync is to fail any more.
pub fn fail_no_sync(machine: &str) {
    with(|disks| disks.machine(machine).fails_to_sync = None);
}

/// One bit of one of the files whose paths begin so is another one from here on; which, if there is such a file.
pub fn rot(path: &str) -> Option<String> {
    let begin = name_of(Path::new(path)).ok()?;
    with(|disks| {
        let mut names: Vec<(String, FileId)> = disks
            .machine(&begin)
            .names
            .iter()
            .filter(|(name, _)| belongs(name, &begin))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        names.retain(|(_, id)| !disks.files[id].current.is_empty());
        let place = disks.random.between(0, names.len() as u64) as usize;
        let (name, id) = names.get(place)?;
        let length = disks.files[id].current.len() as u64;
        let (place, bit) = (
            disks.random.between(0, length) as usize,
            disks.random.between(0, 8),
        );
        let file = disks.files.get_mut(id)?;
        for content in [&mut file.current, &mut file.durable] {
            if let Some(byte) = content.get_mut(place) {
                *byte ^= 1 << bit;
            }
        }
        Some(format!("bit {bit} of byte {place} of {length} of {name}"))
    })
}

/// Whether a name is this folder or file, or lies in it, or is a companion of it (`-wal`, `.raft`).
fn belongs(name: &str, to: &str) -> bool {
    name.starts_with(to)
}

/// Whether a name is of something in this folder, or in one in it.
fn lies_in(name: &str, folder: &str) -> bool {
    let rest = name.strip_prefix(folder);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Somebody removed what begins with this name, durably, while no process of the machine ran.
pub fn remove_all(path: &str) {
    let Ok(path) = name_of(Path::new(path)) else {
        return;
    };
    with(|disks| {
        let machine = disks.machine(&path);
        machine.pending_names.clear();
        machine.names.retain(|name, _| !belongs(name, &path));
        machine.durable_names = machine.names.clone();
        machine.folders.retain(|name| !belongs(name, &path));
    });
}

/// Somebody copied what begins with `from` to names that begin with `to`, durably, while neither machine's process ran.
pub fn copy_all(from: &str, to: &str) {
    let (Ok(from), Ok(to)) = (name_of(Path::new(from)), name_of(Path::new(to))) else {
        return;
    };
    with(|disks| {
        let source = disks.machine(&from);
        let named = |name: &String| format!("{to}{}", &name[from.len()..]);
        let folders: Vec<String> = source
            .folders
            .iter()
            .filter(|name| belongs(name, &from))
            .map(named)
            .collect();
        let files: Vec<(String, FileId)> = source
            .names
            .iter()
            .filter(|(name, _)| belongs(name, &from))
            .map(|(name, file)| (named(name), *file))
            .collect();
        for (name, file) in files {
            let content = disks.files[&file].current.clone();
            disks.files_created += 1;
            let copy = FileId(disks.files_created);
            disks.files.insert(
                copy,
                File {
                    current: content.clone(),
                    durable: content,
                    pending: Vec::new(),
                },
            );
            let machine = disks.machine(&name);
            machine.names.insert(name.clone(), copy);
            machine.durable_names.insert(name, copy);
        }
        disks.machine(&to).folders.extend(folders);
    });
}

/// A folder taken by a process; dropping it lets go.
#[derive(Debug)]
pub struct FolderLock {
    folder: String,
    process: u64,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // The thread may be ending, its disks gone before the process that held the lock.
        let _ = DISKS.try_with(|disks| {
            let mut disks = disks.borrow_mut();
            let machine = disks.machine(&self.folder);
            if machine.process == self.process {
                machine.locked_folders.remove(&self.folder);
            }
        });
    }
}

pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let path = name_of(path)?;
    with(|disks| {
        let file = disks.find(&path).ok_or_else(|| missing(&path))?;
        Ok(disks.files[&file].current.clone())
    })
}

pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = name_of(path)?;
    with(|disks| {
        if disks.find(&path).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.clone()));
        }
        if !disks.machine(&path).has_folder(parent(&path)) {
            return Err(missing(parent(&path)));
        }
        disks.machine(&path).state.allows_growth()?;
        let id = disks.create(&path);
        let file = disks.files.get_mut(&id).expect("just created");
        file.change(Change::Write {
            offset: 0,
            bytes: bytes.to_vec(),
        });
        if disks.fails_to_sync(&path) {
            return Err(sync_failed());
        }
        if let Some(file) = disks.files.get_mut(&id) {
            file.sync();
        }
        disks.synced(&path);
        Ok(())
    })
}

pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (name_of(from)?, name_of(to)?);
    with(|disks| {
        let is_file = disks.find(&from).is_some();
        let machine = disks.machine(&from);
        if !is_file && !machine.has_folder(&from) {
            return Err(missing(&from));
        }
        machine.state.allows_change()?;
        if is_file {
            machine.rename(NameChange::Rename { from, to });
            return Ok(());
        }
        if machine.names.keys().any(|name| lies_in(name, &to)) {
            return Err(io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                format!("{to} is not empty"),
            ));
        }
        let moved = machine
            .folders
            .iter()
            .filter(|name| **name == from || lies_in(name, &from));
        let moved: Vec<String> = moved.cloned().collect();
        for name in moved {
            machine.folders.remove(&name);
            machine
                .folders
                .insert(format!("{to}{}", &name[from.len()..]));
        }
        machine.rename(NameChange::RenameFolder { from, to });
        Ok(())
    })
}

pub fn sync_dir(path: &Path) -> io::Result<()> {
    let path = name_of(path)?;
    with(|disks| {
        if !disks.machine(&path).has_folder(&path) {
            return Err(missing(&path));
        }
        if disks.fails_to_sync(&path) {
            return Err(sync_failed());
        }
        disks
            .machine(&path)
            .sync_names(|change| change.is_in(&path));
        disks.synced(&path);
        Ok(())
    })
}

pub fn remove_file(path: &Path) -> io::Result<()> {
    let path = name_of(path)?;
    with(|disks| {
        disks.find(&path).ok_or_else(|| missing(&path))?;
        disks.machine(&path).state.allows_change()?;
        disks
            .machine(&path)
            .rename(NameChange::Remove { name: path });
        Ok(())
    })
}

pub fn create_dir_all(path: &Path) -> io::Result<()> {
    let path = name_of(path)?;
    with(|disks| {
        let machine = disks.machine(&path);
        if machine.has_folder(&path) {
            return Ok(());
        }
        machine.state.allows_growth()?;
        let mut folder = path.as_str();
        while folder.contains('/') {
            machine.folders.insert(folder.to_owned());
            folder = parent(folder);
        }
        Ok(())
    })
}

pub fn exists(path: &Path) -> io::Result<bool> {
    let path = name_of(path)?;
    Ok(with(|disks| {
        disks.find(&path).is_some() || disks.machine(&path).has_folder(&path)
    }))
}

pub fn list_dir(path: &Path) -> io::Result<Vec<String>> {
    let path = name_of(path)?;
    with(|disks| {
        let machine = disks.machine(&path);
        if !machine.has_folder(&path) {
            return Err(missing(&path));
        }
        let names: BTreeSet<String> = machine
            .names
            .keys()
            .chain(&machine.folders)
            .filter(|name| parent(name) == path)
            .filter_map(|name| name.rsplit('/').next())
            .map(str::to_owned)
            .collect();
        Ok(names.into_iter().collect())
    })
}

pub fn lock_dir(path: &Path) -> io::Result<FolderLock> {
    let folder = name_of(path)?;
    with(|disks| {
        let machine = disks.machine(&folder);
        if !machine.has_folder(&folder) {
            return Err(missing(&folder));
        }
        // The lock is a file that is opened for writing.
        machine.state.allows_change()?;
        if !machine.locked_folders.insert(folder.clone()) {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{folder} is in use by another process"),
            ));
        }
        let process = machine.process;
        Ok(FolderLock { folder, process })
    })
}

/// The key of a path: no leading slash, no `.` and no doubled slashes.
fn name_of(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path that is not UTF-8"))?;
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path that names no machine",
        ));
    }
    Ok(parts.join("/"))
}

fn machine_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn sync_failed() -> io::Error {
    io::Error::other("Input/output error (os error 5)")
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("/{name} does not exist"))
}

#[cfg(test)]
mod tests;
