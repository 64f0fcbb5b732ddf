//! The right server is promoted: when it is opened, every running replica of the deposed one holds nothing that it lacks, but for those
//! that the record names (as lost, or as not read). An acknowledged write is there at the end, unless the server that
//! acknowledged it was deposed later by a recovery whose record states a possible loss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::{Recovery, Statement, StepKind};
use orchestrator_core::replicated::Command;

use super::{Ended, held};
use crate::model::Host;
use crate::witness::{Cause, Event};

/// What a promotion left behind.
#[derive(Debug)]
struct LeftBehind {
    uid: Uid,
    promoted: InstanceKey,
    replica: InstanceKey,
    writes: BTreeSet<u64>,
}

/// What promotions left behind, to be judged when the record is complete.
#[derive(Debug, Default)]
pub struct NothingLost {
    left_behind: Vec<LeftBehind>,
    /// Of which server each recovery is.
    about: BTreeMap<Uid, InstanceKey>,
}

impl NothingLost {
    pub fn observe(&mut self, _at: Duration, event: &Event, hosts: &[Host]) {
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
            cause:
                Some(Cause::Step {
                    uid,
                    kind: StepKind::Promote,
                    ..
                }),
            ..
        } = event
        else {
            return;
        };
        let Some(promoted) = hosts.iter().find(|host| host.key() == server) else {
            return;
        };
        let of_promoted = held(promoted);
        let deposed = self.about.get(uid);
        for host in hosts {
            let is_running_replica = host.look(|server| {
                server.process() != crate::model::server::Process::Killed
                    && server.source().is_some()
                    && server.source() == deposed
            });
            if host.key() == server || !is_running_replica {
                continue;
            }
            let writes: BTreeSet<u64> = held(host).difference(&of_promoted).copied().collect();
            if !writes.is_empty() {
                self.left_behind.push(LeftBehind {
                    uid: uid.clone(),
                    promoted: server.clone(),
                    replica: host.key().clone(),
                    writes,
                });
            }
        }
    }

    /// # Errors
    /// What is missing where.
    pub fn end(&self, ended: &Ended) -> Result<(), String> {
        for left in &self.left_behind {
            let is_recorded = ended
                .recoveries()
                .filter(|recovery| recovery.uid == left.uid)
                .any(|recovery| names(recovery, &left.replica));
            if !is_recorded {
                return Err(format!(
                    "nothing lost: {} was promoted without {:?}, which {} held, and the record says nothing of it",
                    left.promoted, left.writes, left.replica
                ));
            }
        }
        let Some(primary) = ended.primary() else {
            return Ok(());
        };
        let of_primary = held(primary);
        for (write, at, by) in ended.ledger.acknowledged() {
            if of_primary.contains(&write) {
                continue;
            }
            let is_recorded = ended.promotions.iter().any(|promotion| {
                promotion.at >= at
                    && ended.recoveries().any(|recovery| {
                        recovery.uid == promotion.uid
                            && recovery.server == by
                            && !recovery.possible_loss.is_empty()
                    })
            });
            // A deposed server that came back takes a few writes before it is fenced: the declared overlap.
            let is_overlap = ended.promotions.iter().any(|promotion| {
                promotion.at < at
                    && ended
                        .recoveries()
                        .any(|recovery| recovery.uid == promotion.uid && recovery.server == by)
            });
            if !is_recorded && !is_overlap {
                return Err(format!(
                    "nothing lost: {by} acknowledged write {write} at {} ms, {} does not have it, and no record states a loss",
                    at.as_millis(),
                    primary.key()
                ));
            }
        }
        Ok(())
    }
}

/// Whether a recovery's record names a server as lost or speaks of it.
fn names(recovery: &Recovery, server: &InstanceKey) -> bool {
    let name = server.to_string();
    recovery.lost.contains(server)
        || recovery
            .possible_loss
            .iter()
            .chain(&recovery.errors)
            .any(|text| text.contains(&name))
}
