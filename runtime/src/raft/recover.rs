//! Recovery of a cluster that lost its majority for good: what one node holds becomes the state of another cluster, of
//! which it is the only member.
//!
//! Offline, on an operator's word, never by itself. Everything that this node's directory holds is taken, also entries of
//! which it does not know whether they were committed: what was acknowledged is among them, if this node had it at all.
//! Where no directory is left, a file that was exported earlier is taken, which is a snapshot like a directory's own, or
//! what people said, from a backend's rows.
//! The node gets another identity and the cluster another id, so that nothing of the former cluster is ever taken for
//! this one's. The former directory is kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use orchestrator_core::id::{ClusterId, LogPosition, NodeId};
use orchestrator_core::replicated::snapshot::SNAPSHOT_VERSION;
use orchestrator_core::replicated::{
    Answer, Members, Replicated, Stamped, Versions, wire as commands,
};
use orchestrator_core::time::Wall;

use super::handle::{
    check_snapshot, checked, damaged_or_io, identity_error, io_error, open_directory,
};
use super::identity::{Identity, cluster_of};
use super::log::{LogError, LogStore};
use super::snapshot::{self, Head, SnapshotFile};
use super::types::Entry;
use super::wire::{self, LogIdV1, MembershipV1, StoredMembershipV1, VoteV1};
use super::{RaftSettings, StartError};
use crate::backend::ReadBack;
use crate::env::Env;

/// Entries read from the log at once.
const READ_AT_ONCE: u64 = 1_000;
/// A running daemon's snapshot whose last entry is older than this is worth a word.
const OLD: Duration = Duration::from_mins(5);

/// What a directory holds, and what it would become.
pub struct Recovery<E: Env> {
    directory: PathBuf,
    advertise: String,
    pub former: NodeId,
    pub cluster: Option<ClusterId>,
    /// Up to here this node knew that entries were committed.
    pub committed: Option<u64>,
    /// The last entry that it holds.
    pub last: LogPosition,
    /// The members of the former cluster, by address where it is known.
    pub members: Vec<String>,
    pub state: Replicated,
    /// Commands of a backend that the state did not take, and why.
    pub refused: Vec<String>,
    lock: E::DirLock,
}

/// Makes a state of what was read back from a backend. The raft data directory may hold anything, or nothing; no daemon
/// may use it. Changes nothing but that the directory is there.
///
/// # Errors
/// The directory is in use, or cannot be made.
pub async fn of_backend<E: Env>(
    settings: RaftSettings,
    read: ReadBack,
) -> Result<Recovery<E>, StartError> {
    let settings = checked(settings)?;
    let directory = settings.data_dir.clone();
    let lock = open_directory::<E>(&directory).await?;
    let held = read.position.at.unwrap_or_default();
    let wall = Wall::from_nanos(u64::try_from(E::wall().as_nanos()).unwrap_or(u64::MAX));
    let mut state = Replicated::default();
    // A later term than any that wrote an entry of the former cluster.
    let mut at = LogPosition {
        index: held.index,
        term: held.term + 1,
        node: held.node,
    };
    let mut refused = Vec::new();
    for command in read.commands {
        at.index += 1;
        let stamped = Stamped { wall, command };
        if let Answer::Refused(why) = state.apply(at, &stamped).answer {
            refused.push(why.to_string());
        }
    }
    Ok(Recovery {
        directory,
        advertise: settings.advertise,
        former: held.node,
        cluster: read.position.cluster,
        committed: None,
        last: at,
        members: Vec::new(),
        state,
        refused,
        lock,
    })
}

/// Makes a state of a file that [`export`] gave. The raft data directory may hold anything, or nothing; no daemon may use it.
/// Changes nothing but that the directory is there.
///
/// # Errors
/// The directory is in use, or cannot be made; or these bytes are no such file, damaged, or a later release's; or no member
/// that they name is this daemon or one of its `RaftNodes`.
pub async fn of_file<E: Env>(
    settings: RaftSettings,
    bytes: Vec<u8>,
) -> Result<Recovery<E>, StartError> {
    let settings = checked(settings)?;
    let directory = settings.data_dir.clone();
    let lock = open_directory::<E>(&directory).await?;
    let (state, last) = E::blocking(move || read_export(&bytes))
        .await
        .map_err(|why| {
            StartError::Refused(format!(
                "{why}. Take another copy of the file, or what another member exported; if a later release wrote it, use that \
                 release's program"
            ))
        })?;
    if let Some(why) = foreign(&state, &settings) {
        return Err(StartError::Refused(why));
    }
    Ok(Recovery {
        directory,
        advertise: settings.advertise,
        former: last.node,
        cluster: None,
        committed: None,
        last,
        members: described_members(&state),
        state,
        refused: Vec::new(),
        lock,
    })
}

/// Why a state is not of the cluster that these settings are for. One in which no member said where it is may be anybody's.
fn foreign(state: &Replicated, settings: &RaftSettings) -> Option<String> {
    let members = state.membership().members.all();
    let addresses: Vec<&str> = members
        .iter()
        .filter_map(|node| state.member(*node))
        .map(|member| member.raft_address.as_str())
        .collect();
    let is_ours = |address: &&str| {
        let mut ours = [&settings.advertise].into_iter().chain(&settings.nodes);
        ours.any(|own| own == address)
    };
    if addresses.is_empty() || addresses.iter().any(is_ours) {
        return None;
    }
    Some(format!(
        "it is of another cluster, whose members were at {}: none of them is this daemon ({}) or one of its RaftNodes. Take what \
         a member of this cluster exported; if all of its members have moved since, name one of those addresses in RaftNodes \
         for this command",
        addresses.join(", "),
        settings.advertise
    ))
}

/// The state that a file holds, and the entry at which it stands.
fn read_export(bytes: &[u8]) -> Result<(Replicated, LogPosition), String> {
    let (head, data) = snapshot::decode(bytes).map_err(|error| error.to_string())?;
    let (leader, image) = data
        .split_first_chunk::<LEADER_BYTES>()
        .ok_or("it holds no state")?;
    let last = head.last.ok_or("it holds no state")?;
    let at = LogPosition {
        index: last.index,
        term: last.term,
        node: NodeId(u64::from_be_bytes(*leader)),
    };
    let state = state_at(image, at, SNAPSHOT_VERSION)?;
    Ok((state, at))
}

/// Whether this is an image of the replicated state at this position, in a version that is read.
pub(super) fn check_image(image: &[u8], at: LogPosition, reads: Versions) -> Result<(), String> {
    let newest = u8::try_from(reads.snapshot).unwrap_or(u8::MAX);
    state_at(image, at, newest).map(drop)
}

fn state_at(image: &[u8], at: LogPosition, newest: u8) -> Result<Replicated, String> {
    let state =
        Replicated::decode_snapshot_up_to(newest, image).map_err(|error| error.to_string())?;
    if (state.applied().index, state.applied().term) != (at.index, at.term) {
        return Err(format!(
            "its state stands at entry {}, and its head says {at}",
            state.applied()
        ));
    }
    Ok(state)
}

/// The replicated state of one node, for a file.
#[derive(Debug)]
pub struct Export {
    /// What [`of_file`] takes.
    pub bytes: Vec<u8>,
    /// The last entry in it.
    pub last: LogPosition,
    /// The time of that entry.
    pub time: Wall,
    /// By address where it is known.
    pub members: Vec<String>,
    /// A daemon runs on the directory: this is its newest snapshot, and it may know more.
    pub is_running: bool,
}

impl Export {
    /// What to say if it may lack much: a daemon runs on the directory, and the snapshot's last entry is old.
    #[must_use]
    pub fn warning(&self, now: Wall) -> Option<String> {
        let age = now.since(self.time);
        (self.is_running && age >= OLD).then(|| {
            format!(
                "the newest that it holds is {} minutes old, and the daemon may have decided more since",
                age.as_secs() / 60
            )
        })
    }
}

/// Takes the state of a raft data directory: all that it holds or, while a daemon runs on it, the newest snapshot. Changes
/// nothing.
///
/// # Errors
/// It is not there, there is nothing in it, or it is damaged.
pub async fn export<E: Env>(settings: RaftSettings) -> Result<Export, StartError> {
    let settings = checked(settings)?;
    let directory = settings.data_dir.clone();
    let path = directory.clone();
    // Who opens it makes it.
    let is_there = E::blocking(move || E::exists(&path)).await;
    if !is_there.map_err(io_error)? {
        return Err(StartError::Refused(format!(
            "RaftDataDir {} is not there",
            directory.display()
        )));
    }
    let recovery = match examine::<E>(settings).await {
        Ok(recovery) => recovery,
        Err(StartError::InUse(_)) => return export_running::<E>(directory).await,
        Err(error) => return Err(error),
    };
    let Recovery { state, last, .. } = recovery;
    if last.index == 0 {
        return Err(StartError::Refused(format!(
            "{} holds no state so far",
            directory.display()
        )));
    }
    let members = described_members(&state);
    let time = state.log_time();
    let bytes = E::blocking(move || {
        let mut data = last.node.0.to_be_bytes().to_vec();
        data.extend(state.encode_snapshot());
        snapshot::encode(&head_of(&state, last), &data)
    })
    .await
    .map_err(io_error)?;
    Ok(Export {
        bytes,
        last,
        time,
        members,
        is_running: false,
    })
}

/// The file is replaced whole by the daemon, so that it can be read at any time.
async fn export_running<E: Env>(directory: PathBuf) -> Result<Export, StartError> {
    let path = directory.clone();
    let held = E::blocking(move || SnapshotFile::open::<E>(&path)?.read::<E>())
        .await
        .map_err(damaged_or_io)?;
    let Some((head, data)) = held else {
        return Err(StartError::Refused(format!(
            "a daemon runs on {}, and has written no snapshot so far: ask it for one (/api/raft-snapshot of its HTTP \
             address), and type this again",
            directory.display()
        )));
    };
    let read = E::blocking(move || {
        let bytes = snapshot::encode(&head, &data).map_err(|error| error.to_string())?;
        let (state, last) = read_export(&bytes)?;
        Ok((bytes, state, last))
    });
    let (bytes, state, last) = read.await.map_err(StartError::Damaged)?;
    Ok(Export {
        bytes,
        last,
        time: state.log_time(),
        members: described_members(&state),
        is_running: true,
    })
}

fn head_of(state: &Replicated, last: LogPosition) -> Head {
    let membership = state.membership();
    let voters = membership.members.voters.iter();
    let plain = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.0).collect();
    Head {
        last: Some(LogIdV1 {
            term: last.term,
            index: last.index,
        }),
        membership: StoredMembershipV1 {
            at: Some(LogIdV1 {
                term: membership.at.term,
                index: membership.at.index,
            }),
            membership: MembershipV1 {
                voters: voters.map(plain).collect(),
                members: plain(&membership.members.all()),
            },
        },
    }
}

fn described_members(state: &Replicated) -> Vec<String> {
    let described = |node: &NodeId| match state.member(*node) {
        Some(member) => format!("{} ({node})", member.raft_address),
        None => node.to_string(),
    };
    let members = state.membership().members.all();
    members.iter().map(described).collect()
}

/// Reads a raft data directory that no daemon uses. Changes nothing.
///
/// # Errors
/// It is in use, is damaged, or there is nothing in it.
pub async fn examine<E: Env>(settings: RaftSettings) -> Result<Recovery<E>, StartError> {
    let directory = settings.data_dir.clone();
    let examined = examine_directory(settings).await;
    examined.map_err(|error| error.of(&directory))
}

async fn examine_directory<E: Env>(settings: RaftSettings) -> Result<Recovery<E>, StartError> {
    let settings = checked(settings)?;
    let directory = settings.data_dir.clone();
    let lock = open_directory::<E>(&directory).await?;
    let path = directory.clone();
    let identity = E::blocking(move || Identity::read::<E>(&path))
        .await
        .map_err(identity_error)?;
    let Some(identity) = identity else {
        return Err(StartError::Refused(format!(
            "{} holds no raft node",
            directory.display()
        )));
    };
    let opened = LogStore::<E>::open(&directory, identity.node.0, false)
        .await
        .map_err(log_error)?;
    let read = read::<E>(&directory, &opened.store).await;
    let committed = opened.store.committed().map(|id| id.index);
    opened.store.close().await;
    let (state, last) = read?;
    let members = described_members(&state);
    Ok(Recovery {
        directory,
        advertise: settings.advertise,
        former: identity.node,
        cluster: identity.cluster,
        committed,
        last,
        members,
        state,
        refused: Vec::new(),
        lock,
    })
}

/// The state with everything applied that the directory holds, and the last entry.
async fn read<E: Env>(
    directory: &Path,
    store: &LogStore<E>,
) -> Result<(Replicated, LogPosition), StartError> {
    let path = directory.to_path_buf();
    let file = E::blocking(move || SnapshotFile::open::<E>(&path))
        .await
        .map_err(damaged_or_io)?;
    check_snapshot(&file, store)?;
    let held = E::blocking(move || file.read::<E>())
        .await
        .map_err(damaged_or_io)?;
    let mut state = Replicated::default();
    if let Some((_, data)) = held {
        let image = data.get(LEADER_BYTES..).unwrap_or_default();
        state = Replicated::decode_snapshot(image)
            .map_err(|error| StartError::Damaged(format!("the snapshot: {error}")))?;
    }
    let Some(last) = store.last().map(|id| id.index) else {
        let at = state.applied();
        return Ok((state, at));
    };
    let mut reader = store.clone();
    let mut next = if state.applied().index == 0 {
        0
    } else {
        state.applied().index + 1
    };
    let mut at = state.applied();
    while next <= last {
        let upto = last.min(next + READ_AT_ONCE - 1);
        let entries = reader
            .try_get_log_entries(next..=upto)
            .await
            .map_err(damaged_or_io)?;
        for entry in entries {
            at = apply::<E>(&mut state, entry)?;
        }
        next = upto + 1;
    }
    Ok((state, at))
}

/// A snapshot's data begins with the leader that wrote its last entry.
const LEADER_BYTES: usize = 8;

fn apply<E: Env>(state: &mut Replicated, entry: Entry<E>) -> Result<LogPosition, StartError> {
    let id = wire::mirror_log_id::<E>(&entry.log_id);
    let position = |node: u64| LogPosition {
        index: id.index,
        term: id.term,
        node: NodeId(node),
    };
    let at = match entry.payload {
        openraft::EntryPayload::Blank => {
            state.pass(position(0));
            position(0)
        }
        openraft::EntryPayload::Membership(membership) => {
            state.seat(position(0), &wire::members(&membership));
            position(0)
        }
        openraft::EntryPayload::Normal(proposal) => {
            let at = position(proposal.leader);
            let command = commands::decode_command(&proposal.command)
                .map_err(|error| StartError::Damaged(format!("entry {at}: {error}")))?;
            state.apply(at, &command);
            at
        }
    };
    Ok(at)
}

fn log_error(error: LogError) -> StartError {
    match error {
        LogError::Io(what) => StartError::Io(what),
        LogError::Damaged(what) => StartError::Damaged(what),
    }
}

impl<E: Env> Recovery<E> {
    /// Makes the directory of a cluster with this node as its only member, and keeps the former one under the name that is
    /// given back, with the cluster's id.
    ///
    /// # Errors
    /// The machine did not do what was asked; the former directory is then where it was, or under its other name.
    pub async fn carry_out(self) -> Result<(PathBuf, ClusterId), StartError> {
        let mut identity = E::blocking(Identity::mint::<E>).await.map_err(io_error)?;
        let node = identity.node.0;
        let cluster = cluster_of(&[node]);
        identity.cluster = Some(cluster);
        identity.entries = vec![self.advertise.clone()];
        // One entry further, so that no position of the former cluster means this state.
        let at = LogIdV1 {
            term: self.last.term,
            index: self.last.index + 1,
        };
        let mut state = self.state;
        let members = Members {
            voters: vec![BTreeSet::from([NodeId(node)])],
            learners: BTreeSet::new(),
        };
        let position = LogPosition {
            index: at.index,
            term: at.term,
            node: NodeId(0),
        };
        state.seat(position, &members);
        let head = Head {
            last: Some(at),
            membership: StoredMembershipV1 {
                at: Some(at),
                membership: MembershipV1 {
                    voters: vec![BTreeSet::from([node])],
                    members: BTreeSet::from([node]),
                },
            },
        };
        let mut data = vec![0; LEADER_BYTES];
        data.extend(state.encode_snapshot());

        let made = beside(&self.directory, "recovering");
        let (path, record) = (made.clone(), identity.clone());
        E::blocking(move || {
            E::create_dir_all(&path)?;
            for name in E::list_dir(&path)? {
                E::remove_file(&path.join(name))?;
            }
            SnapshotFile::open::<E>(&path)?.write::<E>(head, &data)?;
            record.save::<E>(&path)
        })
        .await
        .map_err(io_error)?;
        let opened = LogStore::<E>::open(&made, node, true)
            .await
            .map_err(log_error)?;
        // The next term is a later one than any that wrote an entry.
        let vote = VoteV1 {
            term: at.term,
            node,
            committed: false,
        };
        let mut store = opened.store;
        let voted = store.save_vote(&wire::vote::<E>(vote)).await;
        store.close().await;
        voted.map_err(io_error)?;

        let former = beside(
            &self.directory,
            &format!("before-recovery-{}", E::wall().as_secs()),
        );
        let (directory, kept) = (self.directory, former.clone());
        E::blocking(move || {
            E::rename(&directory, &kept)?;
            E::rename(&made, &directory)?;
            match directory.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => E::sync_dir(parent),
                Some(_) | None => Ok(()),
            }
        })
        .await
        .map_err(io_error)?;
        drop(self.lock);
        Ok((former, cluster))
    }
}

/// `<directory>.<what>`
fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use orchestrator_core::id::InstanceKey;
    use orchestrator_core::replicated::Command;

    use sha2::{Digest as _, Sha256};

    use super::super::snapshot::MAGIC;
    use super::super::test_folder::Folder;
    use super::*;
    use crate::env::TokioEnv;

    const AT: LogPosition = LogPosition {
        index: 7,
        term: 3,
        node: NodeId(5),
    };

    fn state() -> Replicated {
        let mut state = Replicated::default();
        let command = Command::PutTag {
            key: InstanceKey::new("db1", 3306),
            name: "rack".to_owned(),
            value: "7".to_owned(),
        };
        let wall = Wall::from_secs(1_800_000_000);
        state.apply(AT, &Stamped { wall, command });
        state
    }

    /// The file with this image of the state, said to stand at this index.
    fn file(image: &[u8], index: u64) -> Vec<u8> {
        let mut data = AT.node.0.to_be_bytes().to_vec();
        data.extend(image);
        let head = head_of(&state(), LogPosition { index, ..AT });
        snapshot::encode(&head, &data).unwrap()
    }

    /// The file of a cluster with one member, at this address.
    fn file_of(address: &str) -> Vec<u8> {
        let mut state = Replicated::default();
        let members = Members {
            voters: vec![BTreeSet::from([AT.node])],
            learners: BTreeSet::new(),
        };
        state.seat(LogPosition { index: 6, ..AT }, &members);
        let command = Command::DescribeMember {
            node: AT.node,
            raft_address: address.to_owned(),
            http_uri: String::new(),
            host_name: String::new(),
            build: String::new(),
            reads_command: 1,
            reads_snapshot: 1,
            original: None,
        };
        let wall = Wall::from_secs(1_800_000_000);
        let applied = state.apply(AT, &Stamped { wall, command });
        assert_eq!(applied.answer, Answer::Done);
        file(&state.encode_snapshot(), AT.index)
    }

    #[tokio::test]
    async fn a_file_of_another_cluster_is_refused() {
        let folder = Folder::make("another-cluster");
        let settings = RaftSettings {
            nodes: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
            ..RaftSettings::new(&folder.0, "10.0.0.1")
        };
        for (address, is_taken) in [
            ("10.0.0.1:10008", true),
            ("10.0.0.2:10008", true),
            ("10.0.0.2:10009", false),
            ("10.9.0.1:10008", false),
        ] {
            let taken = of_file::<TokioEnv>(settings.clone(), file_of(address)).await;
            match taken.map(|recovery| recovery.members) {
                Ok(members) => assert!(is_taken, "{members:?}"),
                Err(StartError::Refused(why)) => {
                    assert!(!is_taken && why.contains(address), "{address}: {why}");
                }
                Err(error) => panic!("{address}: {error}"),
            }
        }
    }

    #[tokio::test]
    async fn an_export_makes_no_directory() {
        let folder = Folder::make("export-nowhere");
        let missing = folder.0.join("raft");
        let settings = RaftSettings::new(&missing, "10.0.0.1");
        let error = export::<TokioEnv>(settings).await.err().unwrap();
        let text = error.to_string();
        assert!(
            matches!(error, StartError::Refused(_))
                && text.contains(&format!("{} is not there", missing.display())),
            "{text}"
        );
        assert!(!missing.exists());
    }

    #[test]
    fn an_old_snapshot_is_worth_a_word() {
        let time = Wall::from_secs(1_800_000_000);
        let check = |age_s: u64, is_running: bool, wanted: Option<&str>| {
            let export = Export {
                bytes: Vec::new(),
                last: AT,
                time,
                members: Vec::new(),
                is_running,
            };
            let said = export.warning(Wall::from_secs(1_800_000_000 + age_s));
            match (&said, wanted) {
                (Some(said), Some(wanted)) => assert!(said.contains(wanted), "{said}"),
                (said, wanted) => assert_eq!(said.as_deref(), wanted, "{age_s} s"),
            }
        };
        check(299, true, None);
        check(300, true, Some("5 minutes old"));
        check(86_400, true, Some("1440 minutes old"));
        check(86_400, false, None);
    }

    #[track_caller]
    fn check(bytes: &[u8], wanted: &str) {
        let why = read_export(bytes).expect_err("it is refused");
        assert!(why.contains(wanted), "{why}");
    }

    #[test]
    fn what_is_exported_is_read() {
        let (read, at) = read_export(&file(&state().encode_snapshot(), AT.index)).unwrap();
        assert_eq!(at, AT);
        assert_eq!(read.digest(), state().digest());
    }

    #[test]
    fn an_image_is_taken_where_it_stands_and_in_a_version_that_is_read() {
        let image = state().encode_snapshot();
        let reads = |snapshot: u32| Versions {
            command: 1,
            snapshot,
        };
        let newest = u32::from(SNAPSHOT_VERSION);
        assert_eq!(check_image(&image, AT, reads(newest)), Ok(()));
        let check = |image: &[u8], at: LogPosition, snapshot: u32, wanted: &str| {
            let why = check_image(image, at, reads(snapshot)).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        };
        let later = LogPosition { index: 8, ..AT };
        check(&image, later, newest, "its head says");
        check(
            &image,
            LogPosition { term: 4, ..AT },
            newest,
            "its head says",
        );
        check(&image, AT, 0, "was written by a later release");
        check(b"12345678", AT, newest, "");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_what_is_wrong() {
        let image = state().encode_snapshot();
        let good = file(&image, AT.index);
        for length in 0..good.len() {
            check(&good[..length], "damaged");
        }
        check(&file(&image, AT.index + 1), "its head says");
        check(&file(b"", AT.index), "ends in the middle");
        // A later release's file, and a later release's state in a file of this format.
        let mut newer = good;
        newer.truncate(newer.len() - 32);
        newer[MAGIC.len() - 1] += 1;
        let digest = Sha256::digest(&newer);
        newer.extend_from_slice(&digest);
        check(&newer, "has format 2, and this program reads 1");
        let mut newer = image;
        newer[8] = SNAPSHOT_VERSION + 1;
        check(&file(&newer, AT.index), "was written by a later release");
    }
}
