//! The newest snapshot, as a file of a raft data directory.
//!
//! Written whole (temporary name, sync, rename, sync of the folder) before it is installed and before any log is purged;
//! replaced only by one of a later position. A file that does not match its checksum is a refused start, never a missing
//! snapshot: the log was purged in reliance on it. While the daemon runs, the state itself is in memory, and a file that is
//! found damaged then is written anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::wire::{LogIdV1, StoredMembershipV1, invalid};
use crate::env::{Env, Mutant, replace_file};

const FILE: &str = "snapshot";
/// The last byte is the format's version.
pub(super) const MAGIC: &[u8; 8] = b"ORCSNAP\x01";
const DIGEST_BYTES: usize = 32;

/// Where a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) last: Option<LogIdV1>,
    pub(super) membership: StoredMembershipV1,
}

/// The file, shared by those who build, install and send snapshots.
#[derive(Clone)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    /// The head of what the file holds at least.
    newest: Arc<Mutex<Option<Head>>>,
    /// Held while the file is replaced: the replacement takes as long as the disk does, and readers need not wait for it.
    replacing: Arc<Mutex<()>>,
}

impl SnapshotFile {
    /// Looks for the file and checks it. Blocks.
    pub(super) fn open<E: Env>(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let newest = if E::exists(&path)? {
            Some(decode(&E::read_file(&path)?)?.0)
        } else {
            None
        };
        Ok(SnapshotFile {
            path,
            newest: Arc::new(Mutex::new(newest)),
            replacing: Arc::default(),
        })
    }

    /// The head of what the file holds.
    pub(super) fn newest(&self) -> Option<Head> {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the file, unless it holds this position or a later one already. Blocks.
    pub(super) fn write<E: Env>(&self, head: Head, data: &[u8]) -> io::Result<()> {
        let _replacing = self.lock();
        if self.newest().is_some_and(|held| held.last >= head.last) {
            return Ok(());
        }
        self.replace::<E>(head, data)
    }

    /// Replaces a file that cannot be read, unless it was replaced by one of a later position meanwhile. Blocks.
    pub(super) fn mend<E: Env>(&self, head: Head, data: &[u8]) -> io::Result<()> {
        let _replacing = self.lock();
        if self.newest().is_some_and(|held| held.last > head.last) {
            return Ok(());
        }
        self.replace::<E>(head, data)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn replace<E: Env>(&self, head: Head, data: &[u8]) -> io::Result<()> {
        if !E::has(Mutant::PurgeBeyondSnapshot) {
            replace_file::<E>(&self.path, &encode(&head, data)?).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "the snapshot {} cannot be written ({error}); free the disk or replace it, then start again: what \
                         was acknowledged is kept",
                        self.path.display()
                    ),
                )
            })?;
        }
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        Ok(())
    }

    /// Reads the file. Blocks.
    pub(super) fn read<E: Env>(&self) -> io::Result<Option<(Head, Vec<u8>)>> {
        if self.newest().is_none() {
            return Ok(None);
        }
        decode(&E::read_file(&self.path)?).map(Some)
    }
}

pub(super) fn encode(head: &Head, data: &[u8]) -> io::Result<Vec<u8>> {
    let head = postcard::to_stdvec(head).map_err(invalid)?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + head.len() + data.len() + DIGEST_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(head.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(data);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> io::Result<(Head, Vec<u8>)> {
    let damaged = |what: &str| invalid(format!("the snapshot file is damaged: {what}"));
    let (prefix, version) = MAGIC.split_at(7);
    if bytes.len() < MAGIC.len() + 4 + DIGEST_BYTES {
        return Err(damaged("it is too short"));
    }
    if &bytes[..7] != prefix {
        return Err(damaged("it does not begin as one"));
    }
    let (body, digest) = bytes.split_at(bytes.len() - DIGEST_BYTES);
    if Sha256::digest(body).as_slice() != digest {
        return Err(damaged("its checksum does not match"));
    }
    if body[7..8] != *version {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the snapshot file has format {}, and this program reads {}",
                body[7], version[0]
            ),
        ));
    }
    let rest = &body[12..];
    let length = u32::from_be_bytes([body[8], body[9], body[10], body[11]]) as usize;
    if length > rest.len() {
        return Err(damaged("its head is cut"));
    }
    let (head, data) = rest.split_at(length);
    Ok((postcard::from_bytes(head).map_err(invalid)?, data.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::env::TokioEnv;
    use crate::raft::test_folder::Folder;
    use crate::raft::wire::MembershipV1;

    fn head(index: u64) -> Head {
        let membership = MembershipV1 {
            voters: vec![BTreeSet::from([7])],
            members: BTreeSet::from([7]),
        };
        Head {
            last: Some(LogIdV1 { term: 1, index }),
            membership: StoredMembershipV1 {
                at: Some(LogIdV1 { term: 0, index: 0 }),
                membership,
            },
        }
    }

    #[test]
    fn the_newest_is_kept() {
        let folder = Folder::make("snapshot");
        let file = SnapshotFile::open::<TokioEnv>(&folder.0).unwrap();
        assert_eq!(file.read::<TokioEnv>().unwrap(), None);
        file.write::<TokioEnv>(head(5), b"five").unwrap();
        file.write::<TokioEnv>(head(9), b"nine").unwrap();
        file.write::<TokioEnv>(head(7), b"seven").unwrap();
        let again = SnapshotFile::open::<TokioEnv>(&folder.0).unwrap();
        assert_eq!(again.newest(), Some(head(9)));
        assert_eq!(
            again.read::<TokioEnv>().unwrap(),
            Some((head(9), b"nine".to_vec()))
        );
    }

    #[test]
    fn any_damage_is_noticed() {
        let folder = Folder::make("snapshot-damage");
        let file = SnapshotFile::open::<TokioEnv>(&folder.0).unwrap();
        file.write::<TokioEnv>(head(5), b"content").unwrap();
        let bytes = std::fs::read(folder.0.join(FILE)).unwrap();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            std::fs::write(folder.0.join(FILE), damaged).unwrap();
            assert!(
                SnapshotFile::open::<TokioEnv>(&folder.0).is_err(),
                "byte {place} changed unnoticed"
            );
        }
        for length in 0..bytes.len() {
            std::fs::write(folder.0.join(FILE), &bytes[..length]).unwrap();
            assert!(
                SnapshotFile::open::<TokioEnv>(&folder.0).is_err(),
                "{length} bytes were read"
            );
        }
    }
}
