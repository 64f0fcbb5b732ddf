//! SQLite's door to the simulated disks: a VFS that reads, writes, syncs and locks files of [`super`].
//!
//! A database is opened under a name that begins with the number of the process that opens it (`3@n1/raft/log.db`):
//! SQLite derives the names of journals from it, so that nothing a dead process's connection does while it is dropped,
//! with or without a handle, reaches the disk.
//!
//! The VFS is the process's default one, so that SQLite's own generator is seeded from the simulation, and a database
//! opened around the seam does not get at the machine's files.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Once;

use rusqlite::ffi;
use rusqlite::{Connection, OpenFlags};

use super::{Change, DISKS, Disks, FileId, NameChange, State, name_of};

const VFS_NAME: &CStr = c"orchestrator-sim";
const PATH_BYTES_MAX: c_int = 512;
/// Julian day of 2026-01-01 in milliseconds: SQLite's clock stands still. Nothing may use it.
const JULIAN_MILLISECONDS: i64 = 2_461_041 * 86_400_000 - 43_200_000;
const SHM_LOCKS: usize = 8;

/// Opens, creating it if missing, a database on the simulated disk of the machine that the path begins with.
pub fn open_db(path: &Path) -> rusqlite::Result<Connection> {
    register();
    let name = name_of(path).map_err(|error| refused(&error.to_string()))?;
    let process = super::with(|disks| disks.machine(&name).process);
    Connection::open_with_flags_and_vfs(
        format!("{process}@{name}"),
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        VFS_NAME,
    )
}

fn refused(reason: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_CANTOPEN),
        Some(reason.to_owned()),
    )
}

/// Seeds SQLite's generator, which is the process's, from this thread's simulation.
pub(super) fn reset() {
    register();
    LOCKS.with(|locks| locks.borrow_mut().clear());
    HANDLES.set(0);
    // SAFETY: a length of zero only resets the generator; no buffer is touched.
    unsafe { ffi::sqlite3_randomness(0, std::ptr::null_mut()) };
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sqlite3_vfs` is plain data of integers, pointers and optional functions, for all of which zero is a
        // value; it is leaked, as SQLite keeps the pointer.
        let vfs = Box::leak(Box::new(unsafe { std::mem::zeroed::<ffi::sqlite3_vfs>() }));
        vfs.iVersion = 2;
        vfs.szOsFile = size_of::<Slot>() as c_int;
        vfs.mxPathname = PATH_BYTES_MAX;
        vfs.zName = VFS_NAME.as_ptr();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_path);
        vfs.xRandomness = Some(randomness);
        vfs.xSleep = Some(sleep);
        vfs.xCurrentTime = Some(current_time);
        vfs.xCurrentTimeInt64 = Some(current_time_milliseconds);
        vfs.xGetLastError = Some(last_error);
        // SAFETY: `vfs` is complete and lives for ever.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
        assert_eq!(code, ffi::SQLITE_OK, "registering a VFS only needs memory");
    });
}

/// A name as SQLite hands it over: the process that opened the database, and the file.
struct Name<'a> {
    process: u64,
    file: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (process, file) = text.split_once('@')?;
        Some(Self {
            process: process.parse().ok()?,
            file,
        })
    }

    fn is_alive(&self, disks: &mut Disks) -> bool {
        disks.machine(self.file).process == self.process
    }
}

/// SQLite's file object: it allocates `szOsFile` bytes, of which the first are its own.
#[repr(C)]
struct Slot {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

struct Handle {
    id: u64,
    file: FileId,
    name: String,
    process: u64,
    remove_on_close: bool,
    shared_memory: Option<Arc<SharedMemory>>,
}

thread_local! {
    /// Counts the handles opened.
    static HANDLES: Cell<u64> = const { Cell::new(0) };
    static LOCKS: RefCell<BTreeMap<(FileId, u64), Locks>> = const { RefCell::new(BTreeMap::new()) };
}

/// Who holds what on one file within one process's life.
#[derive(Default)]
struct Locks {
    /// The level of each handle that holds a lock (`SQLITE_LOCK_*`).
    levels: BTreeMap<u64, c_int>,
    /// Holders of each slot of the write-ahead log's index: shared ones, or one exclusive.
    shared: [Vec<u64>; SHM_LOCKS],
    exclusive: [Option<u64>; SHM_LOCKS],
    memory: Option<Arc<SharedMemory>>,
}

/// The write-ahead log's index. Freed when the last handle that mapped it is closed, dead or alive.
#[derive(Default)]
struct SharedMemory {
    regions: Mutex<Vec<Region>>,
}

struct Region {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is reached through SQLite only, on the one thread that runs the simulation.
unsafe impl Send for Region {}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let regions = self
            .regions
            .get_mut()
            .unwrap_or_else(|poison| poison.into_inner());
        for region in regions.drain(..) {
            // SAFETY: made by `Box::into_raw` of a slice of that length, and no handle has it mapped.
            drop(unsafe {
                Box::from_raw(std::ptr::slice_from_raw_parts_mut(
                    region.start,
                    region.bytes,
                ))
            });
        }
    }
}

/// Runs `act` on this thread's disks if the handle's process is alive.
fn alive<T>(handle: &Handle, act: impl FnOnce(&mut Disks) -> T) -> Option<T> {
    DISKS
        .try_with(|disks| {
            let disks = &mut *disks.borrow_mut();
            (disks.machine(&handle.name).process == handle.process).then(|| act(disks))
        })
        .ok()
        .flatten()
}

fn locks<T>(handle: &Handle, act: impl FnOnce(&mut Locks) -> T) -> Option<T> {
    LOCKS
        .try_with(|locks| {
            act(locks
                .borrow_mut()
                .entry((handle.file, handle.process))
                .or_default())
        })
        .ok()
}

/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: by the caller; SQLite uses a connection's files from one thread at a time and not re-entrantly.
    unsafe { &mut *(*file.cast::<Slot>()).handle }
}

/// # Safety
/// `text` is a C string that outlives the use of the result, as SQLite's names do within a call.
unsafe fn text<'a>(text: *const c_char) -> &'a str {
    // SAFETY: by the caller. Names come from `open_db`, hence are UTF-8.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a slot of `szOsFile` bytes; without methods it is not closed.
    unsafe { (*file).pMethods = std::ptr::null() };
    // A file without a name is a sorter's or a statement's spill: its machine does not matter, it goes with its handle.
    let spill;
    let name = if name.is_null() {
        spill = format!("spill/{}", HANDLES.get());
        Name {
            process: 0,
            file: &spill,
        }
    } else {
        // SAFETY: SQLite's name lives as long as the file.
        match Name::parse(unsafe { text(name) }) {
            Some(name) => name,
            None => return ffi::SQLITE_CANTOPEN,
        }
    };
    let found = super::with(|disks| {
        if !name.is_alive(disks)
            || !disks
                .machine(name.file)
                .has_folder(super::parent(name.file))
        {
            return None;
        }
        let state = disks.machine(name.file).state;
        match disks.find(name.file) {
            Some(found) => Some((found, state)),
            None if flags & ffi::SQLITE_OPEN_CREATE != 0 && state == State::Good => {
                Some((disks.create(name.file), state))
            }
            None => None,
        }
    });
    let Some((found, state)) = found else {
        return ffi::SQLITE_CANTOPEN;
    };
    // As SQLite's own VFS does where a file cannot be opened for writing.
    let flags = if state == State::ReadOnly {
        flags & !(ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE) | ffi::SQLITE_OPEN_READONLY
    } else {
        flags
    };
    let id = HANDLES.get();
    HANDLES.set(id + 1);
    let handle = Box::new(Handle {
        id,
        file: found,
        name: name.file.to_owned(),
        process: name.process,
        remove_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        shared_memory: None,
    });
    // SAFETY: the slot has room for `Slot`; `out_flags` may be null.
    unsafe {
        (*file.cast::<Slot>()).handle = Box::into_raw(handle);
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: a name of SQLite's, for this call.
    let Some(name) = Name::parse(unsafe { text(name) }) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    super::with(|disks| {
        if !name.is_alive(disks) {
            return ffi::SQLITE_IOERR_DELETE;
        }
        if disks.find(name.file).is_none() {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        if disks.machine(name.file).state == State::ReadOnly {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let machine = disks.machine(name.file);
        machine.rename(NameChange::Remove {
            name: name.file.to_owned(),
        });
        if sync != 0 {
            let folder = super::parent(name.file);
            machine.sync_names(|change| change.is_in(folder));
            disks.synced(name.file);
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: a name of SQLite's, for this call.
    let name = Name::parse(unsafe { text(name) });
    let found = name.is_some_and(|name| {
        super::with(|disks| name.is_alive(disks) && disks.find(name.file).is_some())
    });
    // SAFETY: SQLite's out parameter.
    unsafe { *out = c_int::from(found) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: a name of SQLite's, for this call.
    let bytes = CString::from(unsafe { CStr::from_ptr(name) }).into_bytes_with_nul();
    if bytes.len() > usize::try_from(room).unwrap_or(0) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    super::with(|disks| {
        for index in 0..usize::try_from(bytes).unwrap_or(0) {
            // SAFETY: `out` has `bytes` bytes.
            unsafe { *out.add(index) = (disks.random.draw() & 0xff) as u8 as c_char };
        }
    });
    bytes
}

/// SQLite's busy handler waits by this: the time passes after the call.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    super::with(|disks| {
        disks.latency += std::time::Duration::from_micros(microseconds.max(0) as u64);
    });
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite's out parameter.
    unsafe { *out = JULIAN_MILLISECONDS as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_milliseconds(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite's out parameter.
    unsafe { *out = JULIAN_MILLISECONDS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: made by `open`, and SQLite does not use the slot after this call.
    let handle = unsafe { Box::from_raw((*file.cast::<Slot>()).handle) };
    locks(&handle, |locks| {
        locks.levels.remove(&handle.id);
        release_shm(locks, handle.id);
    });
    if handle.remove_on_close {
        alive(&handle, |disks| {
            disks.machine(&handle.name).rename(NameChange::Remove {
                name: handle.name.clone(),
            });
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open file; `out` has `bytes` bytes.
    let (handle, out) = unsafe {
        (
            handle(file),
            std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize),
        )
    };
    let read = alive(handle, |disks| {
        let content = &disks.files[&handle.file].current;
        let start = (offset as usize).min(content.len());
        let count = (content.len() - start).min(out.len());
        out[..count].copy_from_slice(&content[start..start + count]);
        out[count..].fill(0);
        count == out.len()
    });
    match read {
        Some(true) => ffi::SQLITE_OK,
        Some(false) => ffi::SQLITE_IOERR_SHORT_READ,
        None => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open file; `bytes` has `length` bytes.
    let (handle, bytes) = unsafe {
        (
            handle(file),
            std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize),
        )
    };
    let change = Change::Write {
        offset: offset as usize,
        bytes: bytes.to_vec(),
    };
    changed(handle, change, ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    changed(
        handle,
        Change::Resize(length as usize),
        ffi::SQLITE_IOERR_TRUNCATE,
    )
}

fn changed(handle: &Handle, change: Change, failure: c_int) -> c_int {
    alive(handle, |disks| {
        let state = disks.machine(&handle.name).state;
        let Some(file) = disks.files.get_mut(&handle.file) else {
            return ffi::SQLITE_OK;
        };
        match state {
            State::ReadOnly => failure,
            State::Full if file.grows_by(&change) => ffi::SQLITE_FULL,
            State::Full | State::Good => {
                file.change(change);
                ffi::SQLITE_OK
            }
        }
    })
    .unwrap_or(failure)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    alive(handle, |disks| {
        if disks.fails_to_sync(&handle.name) {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        if let Some(file) = disks.files.get_mut(&handle.file) {
            file.sync();
        }
        // SQLite's own VFS syncs the folder of a file that it created, at the file's first sync.
        let machine = disks.machine(&handle.name);
        let is_new = machine.pending_names.iter().any(
            |change| matches!(change, NameChange::Create { file, .. } if *file == handle.file),
        );
        if is_new {
            let folder = super::parent(&handle.name);
            machine.sync_names(|change| change.is_in(folder));
        }
        disks.synced(&handle.name);
        ffi::SQLITE_OK
    })
    .unwrap_or(ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    match alive(handle, |disks| disks.files[&handle.file].current.len()) {
        Some(length) => {
            // SAFETY: SQLite's out parameter.
            unsafe { *out = length as i64 };
            ffi::SQLITE_OK
        }
        None => ffi::SQLITE_IOERR_FSTAT,
    }
}

/// SQLite's five levels: any number of SHARED, one RESERVED beside them, PENDING lets no further SHARED in, EXCLUSIVE
/// stands alone (SQLite documentation, "File Locking And Concurrency", section 3).
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let granted = locks(handle, |locks| {
        let others = || {
            locks
                .levels
                .iter()
                .filter(|(id, _)| **id != handle.id)
                .map(|(_, level)| *level)
        };
        let granted = if wanted <= ffi::SQLITE_LOCK_SHARED {
            others().all(|level| level < ffi::SQLITE_LOCK_PENDING)
        } else if wanted < ffi::SQLITE_LOCK_EXCLUSIVE {
            others().all(|level| level < ffi::SQLITE_LOCK_RESERVED)
        } else {
            others().next().is_none()
        };
        if granted {
            let level = locks.levels.entry(handle.id).or_default();
            *level = (*level).max(wanted);
        }
        granted
    });
    match granted {
        Some(true) => ffi::SQLITE_OK,
        Some(false) => ffi::SQLITE_BUSY,
        None => ffi::SQLITE_IOERR_LOCK,
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    locks(handle, |locks| {
        if wanted <= ffi::SQLITE_LOCK_NONE {
            locks.levels.remove(&handle.id);
        } else if let Some(level) = locks.levels.get_mut(&handle.id) {
            *level = (*level).min(wanted);
        }
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let reserved = locks(handle, |locks| {
        locks
            .levels
            .values()
            .any(|level| *level >= ffi::SQLITE_LOCK_RESERVED)
    });
    // SAFETY: SQLite's out parameter.
    unsafe { *out = c_int::from(reserved.unwrap_or(false)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let memory = match &handle.shared_memory {
        Some(memory) => memory.clone(),
        None => {
            let Some(memory) = locks(handle, |locks| locks.memory.get_or_insert_default().clone())
            else {
                return ffi::SQLITE_IOERR_SHMMAP;
            };
            handle.shared_memory = Some(memory.clone());
            memory
        }
    };
    let mut regions = memory
        .regions
        .lock()
        .unwrap_or_else(|poison| poison.into_inner());
    let region = region as usize;
    let bytes = bytes as usize;
    while extend != 0 && regions.len() <= region {
        let start = Box::into_raw(vec![0_u8; bytes].into_boxed_slice()).cast::<u8>();
        regions.push(Region { start, bytes });
    }
    let start = regions
        .get(region)
        .map_or(std::ptr::null_mut(), |region| region.start.cast());
    // SAFETY: SQLite's out parameter.
    unsafe { *out = start };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let slots = offset as usize..(offset + count) as usize;
    let granted = locks(handle, |locks| {
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for slot in slots {
                locks.shared[slot].retain(|id| *id != handle.id);
                locks.exclusive[slot].take_if(|id| *id == handle.id);
            }
            return true;
        }
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        let free = slots.clone().all(|slot| {
            locks.exclusive[slot].is_none_or(|id| id == handle.id)
                && (!exclusive || locks.shared[slot].iter().all(|id| *id == handle.id))
        });
        if free {
            for slot in slots {
                if exclusive {
                    locks.exclusive[slot] = Some(handle.id);
                } else if !locks.shared[slot].contains(&handle.id) {
                    locks.shared[slot].push(handle.id);
                }
            }
        }
        free
    });
    match granted {
        Some(true) => ffi::SQLITE_OK,
        Some(false) => ffi::SQLITE_BUSY,
        None => ffi::SQLITE_IOERR_SHMLOCK,
    }
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, remove: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    handle.shared_memory = None;
    locks(handle, |locks| {
        release_shm(locks, handle.id);
        if remove != 0 {
            locks.memory = None;
        }
    });
    ffi::SQLITE_OK
}

fn release_shm(locks: &mut Locks, id: u64) {
    for shared in &mut locks.shared {
        shared.retain(|holder| *holder != id);
    }
    for exclusive in &mut locks.exclusive {
        exclusive.take_if(|holder| *holder == id);
    }
}
