//! The right server is promoted: when it is opened, no replica holds what it lacks, be it running, frozen or dead, but for
//! those that the record names: as lost, or as not halted and not read. An acknowledged write is there at the end. It may be
//! missing if a promotion left it behind on nobody but the deposed primary (and on named replicas) and the record says that
//! something may be lost; or if a deposed primary acknowledged it: how long one may do so is for `one_primary`.
//!
//! Where servers do not sync their logs, a power cut takes what the primary acknowledged last. Whoever had it lost it with
//! the power, and a promotion since then says that something may be lost; or the primary itself came back without it before
//! anybody was promoted. For what it lost it commits others, under the same GTIDs: a replica that received the first is told from
//! one that received the second by no reading, and whichever is promoted is not judged for it. No other loss is excused by that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::{Recovery, Statement, StepKind};
use orchestrator_core::replicated::Command;

use super::{Ended, held, log_of};
use crate::model::Host;
use crate::model::server::TransactionId;
use crate::witness::{Cause, Event};

/// How the record begins to name replicas that may hold more.
const NOT_READ: &str = "not halted and not read, may hold more: ";

/// A promotion, as the servers were when it took effect.
#[derive(Debug)]
struct Promoted {
    at: Duration,
    uid: Uid,
    server: InstanceKey,
    /// Of which server the recovery is.
    deposed: Option<InstanceKey>,
    /// What the promoted server held.
    held: BTreeSet<u64>,
    /// What each other server held beyond it; none of those that held nothing more.
    beyond: Vec<Beyond>,
}

#[derive(Debug)]
struct Beyond {
    server: InstanceKey,
    /// Where it replicated from.
    source: Option<InstanceKey>,
    writes: BTreeSet<u64>,
    /// Of some of them, the one that the promoted server has under the same GTID.
    twins: BTreeMap<u64, u64>,
}

impl Beyond {
    /// Whether this write of `source` and another one, of which it lost one with its power, have one GTID.
    fn is_hidden(&self, ended: &Ended, write: u64, source: &InstanceKey) -> bool {
        let Some(twin) = self.twins.get(&write) else {
            return false;
        };
        let mut hosts = ended.hosts.iter().filter(|host| host.key() == source);
        hosts.any(|host| {
            host.look(|server| {
                let lost = server.lost_with_power();
                lost.contains(&write) || lost.contains(twin)
            })
        })
    }
}

/// What promotions left behind, to be judged when the record is complete.
#[derive(Debug, Default)]
pub struct NothingLost {
    promoted: Vec<Promoted>,
    /// Of which server each recovery is.
    about: BTreeMap<Uid, InstanceKey>,
    /// When a committed step opened a server.
    opened: Vec<(Duration, InstanceKey)>,
}

impl NothingLost {
    pub fn observe(&mut self, at: Duration, event: &Event, hosts: &[Host]) {
        if let Event::Committed {
            command: Command::BeginRecovery { uid, server, .. },
            ..
        } = event
        {
            self.about.insert(uid.clone(), server.clone());
        }
        let Event::Executed {
            server,
            statement: Statement::MakeWriteable,
            cause: Some(Cause::Step { uid, kind, .. }),
            ..
        } = event
        else {
            return;
        };
        self.opened.push((at, server.clone()));
        let is_again = |known: &Promoted| known.uid == *uid && known.server == *server;
        if *kind != StepKind::Promote || self.promoted.iter().any(is_again) {
            return;
        }
        let Some(promoted) = hosts.iter().find(|host| host.key() == server) else {
            return;
        };
        let of_promoted = held(promoted);
        let by_gtid: BTreeMap<TransactionId, u64> =
            promoted.look(|server| log_of(server).map(|one| (one.id, one.write)).collect());
        let beyond = hosts.iter().filter_map(|host| {
            let writes: BTreeSet<u64> = held(host).difference(&of_promoted).copied().collect();
            (!writes.is_empty()).then(|| Beyond {
                server: host.key().clone(),
                source: host.look(|server| server.source().cloned()),
                twins: host.look(|server| {
                    let mine = log_of(server).filter(|one| writes.contains(&one.write));
                    mine.filter_map(|one| Some((one.write, *by_gtid.get(&one.id)?)))
                        .collect()
                }),
                writes,
            })
        });
        self.promoted.push(Promoted {
            at,
            uid: uid.clone(),
            server: server.clone(),
            deposed: self.about.get(uid).cloned(),
            beyond: beyond.collect(),
            held: of_promoted,
        });
    }

    /// # Errors
    /// What is missing where.
    pub fn end(&self, ended: &Ended) -> Result<(), String> {
        for (place, promoted) in self.promoted.iter().enumerate() {
            for beyond in &promoted.beyond {
                // Who replicates from nobody is the deposed one, or one that was deposed before.
                let Some(source) = &beyond.source else {
                    continue;
                };
                if promoted.deposed.as_ref() == Some(&beyond.server)
                    || (beyond.writes.iter()).all(|write| beyond.is_hidden(ended, *write, source))
                {
                    continue;
                }
                // One that was named before and never pointed anywhere since is named once.
                let since = if promoted.deposed.as_ref() == Some(source) {
                    place
                } else {
                    0
                };
                let is_named = self.promoted[since..=place]
                    .iter()
                    .filter_map(|earlier| record_of(ended, &earlier.uid))
                    .any(|recovery| names(recovery, &beyond.server));
                if !is_named {
                    return Err(format!(
                        "nothing lost: {} was promoted without {:?}, which {} had received from {source}, and the record does not \
                         name it",
                        promoted.server, beyond.writes, beyond.server
                    ));
                }
            }
        }
        let Some(primary) = ended.primary() else {
            return Ok(());
        };
        let of_primary = held(primary);
        for (write, at, by) in ended.ledger.acknowledged() {
            if of_primary.contains(&write) || self.was_deposed(&by, at) {
                continue;
            }
            if went_with_power(&ended.hosts, write) && self.is_stated(ended, at) {
                continue;
            }
            let is_its_own = by == *primary.key()
                && primary.look(|server| server.lost_with_power().contains(&write));
            if is_its_own && self.promoted.iter().all(|promoted| promoted.at < at) {
                continue;
            }
            let mut beyond = self.promoted.iter().flat_map(|promoted| &promoted.beyond);
            if beyond.any(|beyond| beyond.is_hidden(ended, write, &by)) {
                continue;
            }
            self.left_behind(ended, write, at).map_err(|why| {
                format!(
                    "nothing lost: {by} acknowledged write {write} at {} ms, {} does not have it, and {why}",
                    at.as_millis(),
                    primary.key()
                )
            })?;
        }
        Ok(())
    }

    /// Whether a promotion had deposed a server by then, and no committed step had opened it again.
    fn was_deposed(&self, server: &InstanceKey, by: Duration) -> bool {
        let deposed = self
            .promoted
            .iter()
            .filter(|promoted| promoted.at < by && promoted.deposed.as_ref() == Some(server))
            .map(|promoted| promoted.at)
            .max();
        let opened = self
            .opened
            .iter()
            .filter(|(at, opened)| *at < by && opened == server)
            .map(|(at, _)| *at)
            .max();
        deposed.is_some() && deposed > opened
    }

    /// Whether the first promotion since then says that something may be lost; where there was none, nobody was to say it.
    fn is_stated(&self, ended: &Ended, at: Duration) -> bool {
        let mut promotions = self.promoted.iter();
        let next = promotions.find(|promoted| promoted.at >= at);
        next.is_none_or(|promoted| states_loss(ended, promoted))
    }

    /// A promotion left the write behind on the primary that it deposed, and the record says that this may be. Which replicas
    /// held it is judged of each promotion.
    fn left_behind(&self, ended: &Ended, write: u64, at: Duration) -> Result<(), String> {
        let Some(promoted) = self
            .promoted
            .iter()
            .find(|promoted| promoted.at >= at && !promoted.held.contains(&write))
        else {
            return Err(String::from("no promotion left it behind"));
        };
        let of_deposed = promoted
            .beyond
            .iter()
            .find(|beyond| promoted.deposed.as_ref() == Some(&beyond.server));
        if !of_deposed.is_some_and(|beyond| beyond.writes.contains(&write)) {
            return Err(format!(
                "the primary before {} did not have it when it was deposed",
                promoted.server
            ));
        }
        if states_loss(ended, promoted) {
            Ok(())
        } else {
            Err(format!(
                "the record of {} states no loss that is possible",
                promoted.uid
            ))
        }
    }
}

fn states_loss(ended: &Ended, promoted: &Promoted) -> bool {
    record_of(ended, &promoted.uid).is_some_and(|recovery| !recovery.possible_loss.is_empty())
}

/// Whether every server that ever held a write lost it in a power cut, and one did.
fn went_with_power(hosts: &[Host], write: u64) -> bool {
    let fates = hosts.iter().map(|host| {
        host.look(|server| {
            let is_lost = server.lost_with_power().contains(&write);
            (is_lost, is_lost || !server.ever_held().contains(&write))
        })
    });
    let fates: Vec<(bool, bool)> = fates.collect();
    fates.iter().any(|(is_lost, _)| *is_lost) && fates.iter().all(|(_, has_none)| *has_none)
}

fn record_of<'a>(ended: &'a Ended, uid: &Uid) -> Option<&'a Recovery> {
    ended.recoveries().find(|recovery| recovery.uid == *uid)
}

/// Whether a record names a server as lost or as not read.
fn names(recovery: &Recovery, server: &InstanceKey) -> bool {
    let name = server.to_string();
    let mut not_read = recovery
        .possible_loss
        .iter()
        .filter_map(|text| text.strip_prefix(NOT_READ));
    recovery.lost.contains(server)
        || not_read.any(|names| names.split(", ").any(|named| named == name))
}
