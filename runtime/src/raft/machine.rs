//! openraft's state machine, without a state: what is applied, imaged and installed belongs to the driver's task, which is
//! asked through a channel and answers in order.
//!
//! Apply waits for the driver and for the own log, whose end ends raft anyway, and for nothing else. A snapshot's image is
//! taken between two applies and is encoded and written outside the driver.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use orchestrator_core::replicated::{Command, Stamped, wire as command_wire};
use tokio::sync::{mpsc, oneshot};

use super::broken::Broken;
use super::id::{LogPosition, NodeId};
use super::log::LogStore;
use super::snapshot::{Head, SnapshotFile};
use super::types::{Answer, Config, LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership};
use super::wire::{self, invalid};
use super::{Entry, Image, ReplicaRequest};
use crate::env::{Env, Mutant};

/// Entries handed over at once, at most.
const APPLY_ENTRIES_MAX: usize = 256;
/// Bytes of commands handed over at once, at most (one command may exceed it).
const APPLY_BYTES_MAX: usize = 1 << 20;
/// A snapshot's data begins with the leader that wrote its last entry; then comes the driver's image.
pub(super) const LEADER_BYTES: usize = 8;

/// The adapter that openraft holds.
pub(super) struct Machine<E: Env> {
    log: LogStore<E>,
    replica: mpsc::Sender<ReplicaRequest>,
    file: SnapshotFile,
    applied: Option<LogId<E>>,
    /// The leader that wrote the entry at `applied`; 0 for an entry without a command.
    leader: u64,
    membership: StoredMembership<E>,
    directory: PathBuf,
    /// Where this daemon failed before: entries are handed over one by one until it is past that.
    broken: Option<Broken>,
}

impl<E: Env> Machine<E> {
    pub(super) fn new(
        log: LogStore<E>,
        replica: mpsc::Sender<ReplicaRequest>,
        file: SnapshotFile,
        directory: PathBuf,
        broken: Option<Broken>,
    ) -> Self {
        Machine {
            log,
            directory,
            broken,
            replica,
            file,
            applied: None,
            leader: 0,
            membership: StoredMembership::<E>::default(),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> ReplicaRequest,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.replica
            .send(request(reply))
            .await
            .map_err(|_| driver_gone())?;
        answer.await.map_err(|_| driver_gone())
    }

    async fn hand_over(
        &mut self,
        mut entries: Vec<(LogPosition, Entry)>,
        responders: Vec<Option<openraft::storage::ApplyResponder<Config<E>>>>,
    ) -> io::Result<()> {
        // A leader's entry is committed by its followers' disks, perhaps before its own has it. What is applied goes to
        // the backend, and a backend that is ahead of its raft data directory means that the directory went back.
        if let Some((at, _)) = entries.last()
            && !E::has(Mutant::AppliedUnsynced)
        {
            self.log.flushed_to(at.index).await?;
        }
        if E::has(Mutant::EntriesSwapped) {
            swap_last(&mut entries);
        }
        let count = entries.len();
        let answers = self
            .ask(|reply| ReplicaRequest::Apply { entries, reply })
            .await?;
        assert_eq!(
            answers.len(),
            count,
            "the driver answered for another number of entries than it was given"
        );
        for (answer, responder) in answers.into_iter().zip(responders) {
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        self.forget_broken().await;
        Ok(())
    }

    /// Whoever builds a snapshot of what was applied so far, and how it gets into the file.
    async fn builder(&self, put: Put) -> Builder<E> {
        // openraft calls this between two applies, so the image is of exactly `applied`.
        let image = self.ask(|reply| ReplicaRequest::Snapshot { reply }).await;
        Builder {
            file: self.file.clone(),
            put,
            meta: SnapshotMeta::<E> {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            leader: self.leader,
            image: Mutex::new(Some(image)),
        }
    }

    /// Past the entry at which this daemon failed, the failure is history.
    async fn forget_broken(&mut self) {
        let applied = self.applied.map_or(0, |id| id.index);
        if self
            .broken
            .take_if(|broken| broken.last <= applied)
            .is_some()
        {
            let directory = self.directory.clone();
            if let Err(error) = E::blocking(move || Broken::forget::<E>(&directory)).await {
                tracing::warn!("the record of an entry that failed before is not removed: {error}");
            }
        }
    }
}

/// For mistakes that are made as entries are applied.
fn changed(command: Vec<u8>, change: impl FnOnce(Stamped) -> Stamped) -> Vec<u8> {
    let version = command.first().copied().unwrap_or_default();
    let stamped = command_wire::decode_command(&command).ok();
    stamped
        .and_then(|stamped| command_wire::encode_command(version.into(), &change(stamped)).ok())
        .unwrap_or(command)
}

/// For [`Mutant::MisnamedEnd`].
fn misnamed(mut stamped: Stamped) -> Stamped {
    if let Command::EndRecovery {
        successor: Some(successor),
        participants,
        ..
    } = &mut stamped.command
        && let Some(another) = participants.iter().find(|other| **other != *successor)
    {
        *successor = another.clone();
    }
    stamped
}

/// For [`Mutant::MemberUnrecorded`].
fn without_one(mut stamped: Stamped) -> Stamped {
    if let Command::RecordCluster {
        primary, members, ..
    } = &mut stamped.command
        && let Some(last) = members.iter().filter(|member| *member != primary).max()
    {
        let last = last.clone();
        members.retain(|member| *member != last);
    }
    stamped
}

/// For [`Mutant::EntriesSwapped`].
fn swap_last(entries: &mut [(LogPosition, Entry)]) {
    if let [
        ..,
        (_, one @ Entry::Command(_)),
        (_, other @ Entry::Command(_)),
    ] = entries
    {
        std::mem::swap(one, other);
    }
}

/// The driver's task is gone: the daemon is ending, or has a fault that ends it.
fn driver_gone() -> io::Error {
    io::Error::other("the task that holds the state has ended")
}

impl<E: Env> RaftStateMachine<Config<E>> for Machine<E> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder<E>;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<E>>, StoredMembership<E>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut stream: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Config<E>>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut entries, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((entry, responder)) = stream.try_next().await? {
            let id = entry.log_id;
            let (leader, entry) = match entry.payload {
                EntryPayload::Blank => (0, Entry::Blank),
                EntryPayload::Normal(proposal) => {
                    bytes += proposal.command.len();
                    let command = if E::has(Mutant::MisnamedEnd) {
                        changed(proposal.command, misnamed)
                    } else if E::has(Mutant::MemberUnrecorded) {
                        changed(proposal.command, without_one)
                    } else {
                        proposal.command
                    };
                    (proposal.leader, Entry::Command(command))
                }
                EntryPayload::Membership(membership) => {
                    let members = wire::members(&membership);
                    self.membership = StoredMembership::<E>::new(Some(id), membership);
                    (0, Entry::Members(members))
                }
            };
            self.applied = Some(id);
            self.leader = leader;
            entries.push((position::<E>(&id, leader), entry));
            responders.push(responder);
            if self.broken.is_some()
                || entries.len() >= APPLY_ENTRIES_MAX
                || bytes >= APPLY_BYTES_MAX
            {
                bytes = 0;
                self.hand_over(
                    std::mem::take(&mut entries),
                    std::mem::take(&mut responders),
                )
                .await?;
            }
        }
        if !entries.is_empty() {
            self.hand_over(entries, responders).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<E> {
        self.builder(SnapshotFile::write::<E>).await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<E>,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let (leader, image) = parts(&data)?;
        let image = image.to_vec();
        let (file, head) = (self.file.clone(), head::<E>(meta));
        // Written first, so that no position is ever held in memory only. At a start this finds its own file and is done.
        E::blocking(move || file.write::<E>(head, &data)).await?;
        if let Some(last) = meta.last_log_id {
            let at = position::<E>(&last, leader);
            self.ask(|reply| ReplicaRequest::Install {
                at,
                bytes: image,
                reply,
            })
            .await?
            .map_err(invalid)?;
        }
        self.applied = meta.last_log_id;
        self.leader = leader;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<E>>, io::Error> {
        let file = self.file.clone();
        let (head, snapshot) = match E::blocking(move || file.read::<E>()).await {
            Ok(None) => return Ok(None),
            Ok(Some(held)) => held,
            // openraft asks for it at a start too, before there is a state; the file was checked a moment earlier then.
            Err(error) if self.applied.is_none() => return Err(error),
            Err(error) => {
                tracing::warn!(
                    "the newest snapshot, which a member is to get, cannot be read: {error}. It is written anew from memory; \
                     the disk of RaftDataDir loses what it holds: replace it"
                );
                let mut builder = self.builder(SnapshotFile::mend::<E>).await;
                return builder.build_snapshot().await.map(Some);
            }
        };
        let meta = SnapshotMeta::<E> {
            last_log_id: head.last.map(wire::log_id::<E>),
            last_membership: wire::stored_membership::<E>(head.membership)?,
        };
        Ok(Some(Snapshot::<E> { meta, snapshot }))
    }
}

/// Writes a snapshot to the file.
type Put = fn(&SnapshotFile, Head, &[u8]) -> io::Result<()>;

/// Encodes one image and writes it to the file.
pub(super) struct Builder<E: Env> {
    file: SnapshotFile,
    put: Put,
    meta: SnapshotMeta<E>,
    leader: u64,
    /// In a mutex because openraft wants builders to be `Sync`, which an image need not be.
    image: Mutex<Option<io::Result<Image>>>,
}

impl<E: Env> RaftSnapshotBuilder<Config<E>> for Builder<E> {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot<E>, io::Error> {
        let image = self
            .image
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let image = image.unwrap_or_else(|| Err(io::Error::other("a snapshot is built once")))?;
        let (file, put) = (self.file.clone(), self.put);
        let (head, leader) = (head::<E>(&self.meta), self.leader);
        let snapshot = E::blocking(move || {
            let mut data = leader.to_be_bytes().to_vec();
            data.extend(image());
            put(&file, head, &data).map(|()| data)
        })
        .await?;
        Ok(Snapshot::<E> {
            meta: self.meta.clone(),
            snapshot,
        })
    }
}

/// The leader that wrote a snapshot's last entry, and the driver's image.
pub(super) fn parts(data: &[u8]) -> io::Result<(u64, &[u8])> {
    let (leader, image) = data
        .split_first_chunk::<LEADER_BYTES>()
        .ok_or_else(|| invalid("the snapshot is too short"))?;
    Ok((u64::from_be_bytes(*leader), image))
}

fn head<E: Env>(meta: &SnapshotMeta<E>) -> Head {
    Head {
        last: meta.last_log_id.as_ref().map(wire::mirror_log_id::<E>),
        membership: wire::mirror_stored_membership::<E>(&meta.last_membership),
    }
}

fn position<E: Env>(id: &LogId<E>, leader: u64) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        node: NodeId(leader),
        index: id.index,
    }
}
