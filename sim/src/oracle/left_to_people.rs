//! A server that can be found is known, and on record as one of its cluster, when a recovery begins: the leader could read it, and
//! one that names it, without a break for so long.
//!
//! And what others leave out: a replica that was unknown while a recovery ran, because people had the daemons forget it, or
//! because it could not be found, is left where it was. Nobody halts it, reads it or points it at the promoted server, and it
//! is for people to mend. One that is found in time is a replica like the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::Statement;
use orchestrator_core::replicated::Command;

use super::Truth;
use crate::daemon::DaemonView;
use crate::model::Host;
use crate::model::server::Process;
use crate::witness::Event;

/// A server that became known so long ago has been read by every daemon: one poll, and a little more.
const READ_WITHIN: Duration = Duration::from_secs(6);

/// A server that can be found for so long is on record: a poll of the one that names it, a poll of its own, and what a commit
/// takes.
const FOUND_WITHIN: Duration = Duration::from_secs(7);

/// Who was forgotten, and whom a recovery missed.
#[derive(Debug, Default)]
pub struct LeftToPeople {
    /// When each was known again, if it is.
    forgotten: BTreeMap<InstanceKey, Option<Duration>>,
    running: BTreeSet<Uid>,
    missed: BTreeSet<InstanceKey>,
    /// By which leader each can be found, and since when.
    findable: BTreeMap<InstanceKey, (String, Duration)>,
    /// Those that could be found for long enough since the last recovery ended.
    due: BTreeSet<InstanceKey>,
}

impl LeftToPeople {
    /// # Errors
    /// A recovery begins without one that could have been known.
    pub fn observe(&mut self, event: &Event, truth: &Truth<'_>) -> Result<(), String> {
        if let Event::Executed {
            server,
            statement: Statement::MakeWriteable,
            ..
        } = event
        {
            // It was found in time to be chosen.
            self.missed.remove(server);
        }
        let Event::Committed { command, .. } = event else {
            return Ok(());
        };
        match command {
            Command::Forget { keys } => {
                for key in keys.iter().filter(|key| !truth.decided.is_known(key)) {
                    self.forgotten.insert(key.clone(), None);
                    self.findable.remove(key);
                    self.due.remove(key);
                    if !self.running.is_empty() {
                        self.missed.insert(key.clone());
                    }
                }
            }
            Command::Know { keys, .. } => {
                for (key, found) in &mut self.forgotten {
                    if keys.contains(key) && truth.decided.is_known(key) {
                        found.get_or_insert(truth.at);
                    }
                }
            }
            Command::BeginRecovery { uid, purpose, .. } if purpose.is_recovery() => {
                self.running.insert(uid.clone());
                let keys = truth.hosts.iter().map(Host::key);
                // Of one that was known and never read nobody knows whose replica it is.
                let (known, unknown): (Vec<_>, Vec<_>) = keys.partition(|key| {
                    truth.decided.is_known(key) && truth.decided.cluster_of(key).is_some()
                });
                let overlooked = (unknown.iter().copied())
                    .find(|key| self.due.contains(*key) && !is_deposed(key, truth));
                if let Some(key) = overlooked {
                    return Err(format!(
                        "left to people: {key} could be found for {} s, and is on no record when recovery {uid} begins",
                        FOUND_WITHIN.as_secs()
                    ));
                }
                if !known.is_empty() {
                    self.missed.extend(unknown.into_iter().cloned());
                }
                for (key, found) in &self.forgotten {
                    if found.is_none_or(|at| truth.at < at + READ_WITHIN) {
                        self.missed.insert(key.clone());
                    }
                }
            }
            Command::EndRecovery { uid, .. } => {
                self.running.remove(uid);
                self.missed.retain(|key| is_stray(key, truth));
                // Who is whose replica is another thing from here on.
                self.findable.clear();
                self.due.clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks who can be found.
    pub fn look(&mut self, daemons: &[DaemonView], truth: &Truth<'_>) {
        let mut leaders = daemons.iter().filter(|daemon| daemon.leads);
        let (Some(leader), None) = (leaders.next(), leaders.next()) else {
            self.findable.clear();
            return;
        };
        for host in truth.hosts {
            let key = host.key();
            let is_forgotten = matches!(self.forgotten.get(key), Some(None));
            if is_forgotten || !can_be_found(host, &leader.name, truth) {
                self.findable.remove(key);
                continue;
            }
            let now = || (leader.name.clone(), truth.at);
            let (by, since) = self.findable.entry(key.clone()).or_insert_with(now);
            if *by != leader.name {
                (*by, *since) = now();
            }
            if truth.at >= *since + FOUND_WITHIN {
                self.due.insert(key.clone());
            }
        }
    }

    /// People made a new cluster of what one daemon held: who is known in it is another thing.
    pub fn cut(&mut self) {
        self.findable.clear();
        self.due.clear();
    }

    /// Whom nobody but people can bring back.
    #[must_use]
    pub fn missed(&self) -> &BTreeSet<InstanceKey> {
        &self.missed
    }
}

/// Whether a leader can read a server, and another that is known and names it: as its source, or as its replica.
fn can_be_found(host: &Host, leader: &str, truth: &Truth<'_>) -> bool {
    let is_read = |host: &Host| {
        (truth.is_whole)(leader, &host.key().host)
            && host.look(|server| server.process() == Process::Running && server.can_be_closed())
    };
    let follows = |replica: &Host, source: &Host| {
        (truth.is_whole)(&replica.key().host, &source.key().host)
            && replica
                .look(|replica| replica.source() == Some(source.key()) && replica.is_replicating())
    };
    let mut others = truth.hosts.iter();
    is_read(host)
        && others.any(|other| {
            truth.decided.is_known(other.key())
                && !is_deposed(other.key(), truth)
                && is_read(other)
                && (follows(host, other) || follows(other, host))
        })
}

fn is_deposed(key: &InstanceKey, truth: &Truth<'_>) -> bool {
    truth.decided.deposed_at(key).next().is_some()
}

/// Whether a server replicates from none that is a primary and takes writes. A deposed one that came back open is closed soon, and
/// whoever follows it stays where it is.
fn is_stray(key: &InstanceKey, truth: &Truth<'_>) -> bool {
    let of = |key: &InstanceKey| truth.hosts.iter().find(|host| host.key() == key);
    let follows = |host: &Host| {
        let source = host.look(|server| server.is_replicating().then(|| server.source().cloned()));
        let source = source.flatten();
        let source = source.and_then(|source| of(&source));
        source.is_some_and(|source| {
            !is_deposed(source.key(), truth) && source.look(|server| server.is_writable())
        })
    };
    !of(key).is_some_and(follows)
}
