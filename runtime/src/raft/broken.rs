//! The entry of the log at which this daemon failed.
//!
//! A committed entry that breaks a rule of the state (a bug) breaks it again at each start, on every daemon. So who fails
//! at an entry writes down which, and who failed at the same one twice does not start raft again with the same program:
//! it says so, and acts on nothing. A daemon that gets past the entry forgets the record.
//!
//! The record is a guard, not a promise: one that cannot be read counts as none.

use std::io;
use std::path::{Path, PathBuf};

use super::id::LogPosition;
use crate::env::{Env, replace_file};

const FILE: &str = "broken-entry";
const FIRST_LINE: &str = "orchestrator broken entry 1";
/// Failures at one entry after which it is not tried again.
const TRIES_MAX: u32 = 2;
/// Another program may get past the entry.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// Longest reason kept, in bytes.
const REASON_BYTES_MAX: usize = 4_096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// The entries that were being applied: one, or a few where it is not known which of them.
    pub(super) first: u64,
    pub(super) last: u64,
    failures: u32,
    program: String,
    reason: String,
}

impl Broken {
    /// What is on record, if this program wrote it. Blocks.
    pub(super) fn read<E: Env>(directory: &Path) -> io::Result<Option<Self>> {
        let path = path(directory);
        if !E::exists(&path)? {
            return Ok(None);
        }
        let record = decode(&E::read_file(&path)?);
        Ok(record.filter(|broken| broken.program == PROGRAM))
    }

    /// Blocks.
    pub(super) fn forget<E: Env>(directory: &Path) -> io::Result<()> {
        E::remove_file(&path(directory))?;
        E::sync_dir(directory)
    }

    /// Why raft is not to be started, once the entry was tried often enough.
    pub(super) fn verdict(&self, directory: &Path) -> Option<String> {
        (self.failures >= TRIES_MAX).then(|| {
            let which = if self.first == self.last {
                format!("entry {}", self.first)
            } else {
                format!("one of the entries {} to {}", self.first, self.last)
            };
            format!(
                "this daemon failed {} times at {which} of the raft log and acts on nothing: {}. Install a version that gets \
                 past it, or remove {} to try again",
                self.failures,
                self.reason,
                path(directory).display()
            )
        })
    }
}

/// Writes down that applying these entries ended this daemon. Blocks.
///
/// # Errors
/// The record cannot be written.
pub fn note_broken<E: Env>(
    directory: &Path,
    first: LogPosition,
    last: LogPosition,
    reason: &str,
) -> io::Result<()> {
    let before = Broken::read::<E>(directory)?
        .filter(|before| before.first <= last.index && first.index <= before.last);
    let reason: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let broken = Broken {
        first: before
            .as_ref()
            .map_or(first.index, |before| before.first.max(first.index)),
        last: before
            .as_ref()
            .map_or(last.index, |before| before.last.min(last.index)),
        failures: before.map_or(1, |before| before.failures.saturating_add(1)),
        program: PROGRAM.to_owned(),
        reason: orchestrator_core::limits::bounded(reason, REASON_BYTES_MAX),
    };
    replace_file::<E>(&path(directory), encode(&broken).as_bytes())
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

fn encode(broken: &Broken) -> String {
    format!(
        "{FIRST_LINE}\nfirst {}\nlast {}\nfailures {}\nprogram {}\nreason {}\n",
        broken.first, broken.last, broken.failures, broken.program, broken.reason
    )
}

fn decode(bytes: &[u8]) -> Option<Broken> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let mut value = |name: &str| {
        let (key, value) = lines.next()?.split_once(' ')?;
        (key == name).then(|| value.to_owned())
    };
    Some(Broken {
        first: value("first")?.parse().ok()?,
        last: value("last")?.parse().ok()?,
        failures: value("failures")?.parse().ok()?,
        program: value("program")?,
        reason: value("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::TokioEnv;
    use crate::raft::test_folder::Folder;

    fn at(index: u64) -> LogPosition {
        LogPosition {
            index,
            ..LogPosition::default()
        }
    }

    fn read(folder: &Folder) -> Option<Broken> {
        Broken::read::<TokioEnv>(&folder.0).expect("the folder is read")
    }

    fn fail(folder: &Folder, first: u64, last: u64) {
        note_broken::<TokioEnv>(&folder.0, at(first), at(last), "it broke\nhere")
            .expect("the record is written");
    }

    #[test]
    fn the_second_failure_at_one_entry_is_the_last() {
        let folder = Folder::make("broken");
        assert_eq!(read(&folder), None);
        fail(&folder, 10, 20);
        assert_eq!(
            read(&folder).and_then(|broken| broken.verdict(&folder.0)),
            None
        );
        fail(&folder, 17, 17);
        let verdict = read(&folder)
            .and_then(|broken| broken.verdict(&folder.0))
            .expect("two failures");
        assert!(verdict.contains("failed 2 times at entry 17"), "{verdict}");
        assert!(verdict.contains("it broke here"), "{verdict}");
    }

    #[test]
    fn failures_at_different_entries_are_counted_apart() {
        let folder = Folder::make("broken-apart");
        fail(&folder, 10, 10);
        fail(&folder, 11, 11);
        assert_eq!(
            read(&folder).and_then(|broken| broken.verdict(&folder.0)),
            None
        );
        Broken::forget::<TokioEnv>(&folder.0).expect("the record is removed");
        assert_eq!(read(&folder), None);
    }

    #[test]
    fn another_program_tries_anew_and_damage_counts_as_none() {
        let folder = Folder::make("broken-other");
        fail(&folder, 10, 10);
        fail(&folder, 10, 10);
        let file = folder.0.join(FILE);
        let text = std::fs::read_to_string(&file).expect("the record");
        std::fs::write(&file, text.replace(PROGRAM, "0.0.0")).expect("written");
        assert_eq!(read(&folder), None);
        std::fs::write(&file, b"\xff").expect("written");
        assert_eq!(read(&folder), None);
    }
}
