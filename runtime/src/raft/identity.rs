//! Who this daemon is: the identity record of a raft data directory.
//!
//! Decides nothing about peers. An identity is minted once for a directory, from the operating system's randomness, and
//! never reused; the boot number grows durably before anything else of a start happens, so that no two runs of one
//! identity share it. The record is a small text file, so that an operator can read it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::id::{ClusterId, NodeId};
use crate::env::{Env, replace_file};

const FILE: &str = "identity";
/// How the folder of a retired identity begins.
const RETIRED: &str = "retired-";
/// It stays where it is: this process holds it.
const LOCK_FILE: &str = "lock";
const FIRST_LINE: &str = "orchestrator raft identity 1";
/// How the first line of any version begins.
const FIRST_WORDS: &str = "orchestrator raft identity ";

/// What the record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// The cluster this node was formed with or has joined.
    pub(super) cluster: Option<ClusterId>,
    /// The number of this run, counted from 1.
    pub(super) boot: u64,
    /// The members the cluster was formed with, sorted; kept so that an interrupted formation is completed alike.
    pub(super) founders: Vec<u64>,
    /// The list of nodes that the cluster was formed with, or with which this node was let in.
    pub(super) entries: Vec<String>,
    /// Why this identity must not be used again.
    pub(super) retired: Option<String>,
}

/// Why there is no usable record.
#[derive(Debug)]
pub(super) enum IdentityError {
    Io(io::Error),
    /// The file is there and is not what this program wrote.
    Damaged(String),
}

impl From<io::Error> for IdentityError {
    fn from(error: io::Error) -> Self {
        IdentityError::Io(error)
    }
}

impl Identity {
    /// Reads the record and counts this start, or mints one for a directory that has none; the flag says which (`true`:
    /// minted). Nothing is written: the caller prepares the log first and then calls [`Identity::save`], so that a
    /// directory with a record always has a log. `minted`: what was drawn for it already. Blocks.
    pub(super) fn read_or_mint<E: Env>(
        directory: &Path,
        minted: Option<NodeId>,
    ) -> Result<(Self, bool), IdentityError> {
        let path = path(directory);
        if E::exists(&path)? {
            let bytes = E::read_file(&path)?;
            check_version(&bytes)?;
            let mut identity = decode(&bytes).map_err(IdentityError::Damaged)?;
            identity.boot += 1;
            Ok((identity, false))
        } else {
            let identity = Identity {
                node: match minted {
                    Some(node) => node,
                    None => mint::<E>()?,
                },
                cluster: None,
                boot: 1,
                founders: Vec::new(),
                entries: Vec::new(),
                retired: None,
            };
            Ok((identity, true))
        }
    }

    /// Another identity for a directory that has none. Nothing is written. Blocks.
    pub(super) fn mint<E: Env>() -> io::Result<Self> {
        Ok(Identity {
            node: mint::<E>()?,
            cluster: None,
            boot: 0,
            founders: Vec::new(),
            entries: Vec::new(),
            retired: None,
        })
    }

    /// Reads the record as it is. Blocks.
    pub(super) fn read<E: Env>(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = path(directory);
        if !E::exists(&path)? {
            return Ok(None);
        }
        let bytes = E::read_file(&path)?;
        check_version(&bytes)?;
        decode(&bytes).map(Some).map_err(IdentityError::Damaged)
    }

    /// Moves everything of a retired identity into a folder of its own, the record last, so that an interrupted move is
    /// gone on with. Blocks.
    pub(super) fn set_aside<E: Env>(&self, directory: &Path) -> io::Result<PathBuf> {
        let aside = directory.join(format!("{RETIRED}{}", self.node));
        E::create_dir_all(&aside)?;
        let names = E::list_dir(directory)?;
        let others = names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != FILE && *name != LOCK_FILE && !name.starts_with(RETIRED));
        for name in others.chain([FILE]) {
            E::rename(&directory.join(name), &aside.join(name))?;
        }
        E::sync_dir(&aside)?;
        E::sync_dir(directory)?;
        Ok(aside)
    }

    /// Writes the record durably. Blocks.
    pub(super) fn save<E: Env>(&self, directory: &Path) -> io::Result<()> {
        let path = path(directory);
        replace_file::<E>(&path, &encode(self))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// 0 means "anyone" in a handshake, and the top bit is kept clear so that the number fits SQLite's integers.
fn mint<E: Env>() -> io::Result<NodeId> {
    loop {
        let drawn = E::random_seed()? >> 1;
        if drawn != 0 {
            return Ok(NodeId(drawn));
        }
    }
}

/// The id of the cluster that these identities form, in whatever order and by whichever of them.
pub(super) fn cluster_of(members: &[u64]) -> ClusterId {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for member in sorted {
        hash.update(member.to_be_bytes());
    }
    ClusterId(hash.finalize().into())
}

/// A record that a later program wrote is no damage.
fn check_version(bytes: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next().unwrap_or_default();
    let version = first
        .strip_prefix(FIRST_WORDS)
        .filter(|version| version.parse::<u64>().is_ok());
    if version.is_some() && first != FIRST_LINE {
        let what = format!(
            "the identity record begins with '{first}', and this program reads '{FIRST_LINE}'"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

pub(super) fn encode(identity: &Identity) -> Vec<u8> {
    let mut text = format!("{FIRST_LINE}\nnode {}\n", identity.node);
    if let Some(cluster) = identity.cluster {
        let _ = writeln!(text, "cluster {cluster}");
    }
    let _ = writeln!(text, "boot {}", identity.boot);
    for founder in &identity.founders {
        let _ = writeln!(text, "founder {}", NodeId(*founder));
    }
    for entry in &identity.entries {
        let _ = writeln!(text, "entry {entry}");
    }
    if let Some(reason) = &identity.retired {
        let _ = writeln!(text, "retired {}", reason.replace('\n', " "));
    }
    let sum = checksum(&text);
    let _ = writeln!(text, "sum {sum}");
    text.into_bytes()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let start = text.rfind("sum ").ok_or("its checksum is missing")?;
    let (body, sum) = text.split_at(start);
    if sum.trim_end() != format!("sum {}", checksum(body)) {
        return Err("its checksum does not match".to_owned());
    }
    let mut lines = body.lines();
    let first = lines.next().unwrap_or_default();
    if first != FIRST_LINE {
        return Err(format!(
            "it begins with '{first}', and this program reads '{FIRST_LINE}'"
        ));
    }
    let (mut node, mut cluster, mut boot, mut retired) = (None, None, None, None);
    let (mut founders, mut entries) = (Vec::new(), Vec::new());
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let wrong = || format!("the value of '{key}' is '{value}'");
        match key {
            "node" => node = Some(NodeId(u64::from_str_radix(value, 16).map_err(|_| wrong())?)),
            "cluster" => cluster = Some(parse_cluster(value).ok_or_else(wrong)?),
            "boot" => boot = Some(value.parse().map_err(|_| wrong())?),
            "founder" => founders.push(u64::from_str_radix(value, 16).map_err(|_| wrong())?),
            "entry" => entries.push(value.to_owned()),
            "retired" => retired = Some(value.to_owned()),
            _ => return Err(format!("the line '{line}' is not known")),
        }
    }
    Ok(Identity {
        node: node.ok_or("it names no node")?,
        cluster,
        boot: boot.ok_or("it has no boot number")?,
        founders,
        entries,
        retired,
    })
}

fn parse_cluster(text: &str) -> Option<ClusterId> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut id = [0; 32];
    for (place, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).ok()?;
    }
    Some(ClusterId(id))
}

pub(super) fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::TokioEnv;
    use crate::raft::test_folder::Folder;

    #[test]
    fn an_identity_is_minted_once_and_counts_its_boots() {
        let folder = Folder::make("identity");
        let (first, minted) = Identity::read_or_mint::<TokioEnv>(&folder.0, None).unwrap();
        assert!(minted);
        first.save::<TokioEnv>(&folder.0).unwrap();
        let (second, minted) = Identity::read_or_mint::<TokioEnv>(&folder.0, None).unwrap();
        assert!(!minted);
        assert_eq!(first.node, second.node);
        assert_eq!((first.boot, second.boot), (1, 2));
        let (other, _) =
            Identity::read_or_mint::<TokioEnv>(&Folder::make("identity-other").0, None).unwrap();
        assert_ne!(first.node, other.node);
    }

    #[test]
    fn everything_is_read_as_it_was_written() {
        let identity = Identity {
            node: NodeId(0x1234),
            cluster: Some(cluster_of(&[3, 1, 2])),
            boot: 9,
            founders: vec![1, 2, 0x1234],
            entries: vec!["n1:10008".to_owned(), "[::1]:7".to_owned()],
            retired: Some("went back".to_owned()),
        };
        assert_eq!(decode(&encode(&identity)).unwrap(), identity);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let identity = Identity {
            node: NodeId(7),
            cluster: Some(cluster_of(&[7])),
            boot: 3,
            founders: vec![7],
            entries: Vec::new(),
            retired: None,
        };
        let bytes = encode(&identity);
        for place in 0..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {place} changed unnoticed");
        }
        for length in 0..bytes.len() - 1 {
            assert!(
                decode(&bytes[..length]).is_err(),
                "a record of {length} bytes was read"
            );
        }
    }

    #[test]
    fn a_later_version_is_no_damage() {
        let folder = Folder::make("identity-version");
        std::fs::write(path(&folder.0), "orchestrator raft identity 2\nmore\n").unwrap();
        assert!(matches!(
            Identity::read_or_mint::<TokioEnv>(&folder.0, None),
            Err(IdentityError::Io(_))
        ));
        std::fs::write(path(&folder.0), "orchestrator raft identity 1\nmore\n").unwrap();
        assert!(matches!(
            Identity::read_or_mint::<TokioEnv>(&folder.0, None),
            Err(IdentityError::Damaged(_))
        ));
    }

    #[test]
    fn a_cluster_id_does_not_depend_on_the_order() {
        assert_eq!(cluster_of(&[1, 2, 3]), cluster_of(&[3, 1, 2]));
        assert_ne!(cluster_of(&[1, 2]), cluster_of(&[1, 2, 3]));
    }
}
