//! No promise, but what others leave out: a replica that was unknown while a recovery ran, because people had the daemons forget
//! it, or because it was down or turned them away whenever they looked, is left where it was. Nobody halts it, reads it or points it at the
//! promoted server, and it is for people to mend. One that is found in time is a replica like the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::Statement;
use orchestrator_core::replicated::Command;

use super::Truth;
use crate::model::Host;
use crate::witness::Event;

/// A server that became known so long ago has been read by every daemon: one poll, and a little more.
const READ_WITHIN: Duration = Duration::from_secs(6);

/// Who was forgotten, and whom a recovery missed.
#[derive(Debug, Default)]
pub struct LeftToPeople {
    /// When each was known again, if it is.
    forgotten: BTreeMap<InstanceKey, Option<Duration>>,
    running: BTreeSet<Uid>,
    missed: BTreeSet<InstanceKey>,
}

impl LeftToPeople {
    pub fn observe(&mut self, event: &Event, truth: &Truth<'_>) {
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
            return;
        };
        match command {
            Command::Forget { keys } => {
                for key in keys.iter().filter(|key| !truth.decided.is_known(key)) {
                    self.forgotten.insert(key.clone(), None);
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
            }
            _ => {}
        }
    }

    /// Whom nobody but people can bring back.
    #[must_use]
    pub fn missed(&self) -> &BTreeSet<InstanceKey> {
        &self.missed
    }
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
            let is_deposed = truth.decided.deposed_at(source.key()).next().is_some();
            !is_deposed && source.look(|server| server.is_writable())
        })
    };
    !of(key).is_some_and(follows)
}
