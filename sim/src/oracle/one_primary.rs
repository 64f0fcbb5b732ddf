//! At most one server takes writes, outside of a declared overlap. The overlap is declared by a committed promote intent:
//! from then on the primary that it deposes does not count, until it is opened by a committed step again, or the recovery
//! ends and names no successor. No server is opened while another, not deposed, takes writes. A deposed one that the leader
//! can reach is closed within a bound. At the end exactly one takes writes and no deposed one does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::{Stage, Statement, StepKind};
use orchestrator_core::replicated::{Command, Replicated};
use orchestrator_core::time::Wall;

use super::{Ended, Truth};
use crate::daemon::DaemonView;
use crate::model::Host;
use crate::witness::Event;

/// A deposed server that one and the same leader can reach over good links, and that lets it in, is closed within this time.
/// A new leader first takes over what runs; a recovery fences once and leaves the rest to the quarantine, which comes when it
/// has waited for the replicas that it cannot reach.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// One that could not be closed is tried again after ever longer waits, the longest of which is 80 s.
const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(90);

/// Which servers were deposed.
#[derive(Debug, Default)]
pub struct OnePrimary {
    /// Of which server each recovery or operation is.
    about: BTreeMap<Uid, InstanceKey>,
    /// By which recovery last.
    deposed: BTreeMap<InstanceKey, Uid>,
    /// Deposed servers that take writes and that this leader can close, and since when.
    closable: BTreeMap<InstanceKey, (String, Duration)>,
    /// Those that kept the daemons out, or had no right for them, since they were deposed.
    refused: BTreeSet<InstanceKey>,
}

impl OnePrimary {
    #[must_use]
    pub fn deposed(&self) -> BTreeSet<InstanceKey> {
        self.deposed.keys().cloned().collect()
    }

    /// # Errors
    /// A server was opened beside another.
    pub fn observe(&mut self, event: &Event, hosts: &[Host]) -> Result<(), String> {
        match event {
            Event::Committed { command, .. } => {
                match command {
                    Command::BeginRecovery { uid, server, .. } => {
                        self.about.insert(uid.clone(), server.clone());
                    }
                    Command::Intend {
                        uid, stage, steps, ..
                    } if *stage == Stage::Promote
                        || steps.iter().any(|step| step.kind == StepKind::Promote) =>
                    {
                        if let Some(server) = self.about.get(uid) {
                            self.deposed.insert(server.clone(), uid.clone());
                        }
                    }
                    Command::EndRecovery {
                        uid,
                        successor: None,
                        ..
                    } => self.deposed.retain(|_, by| by != uid),
                    _ => {}
                }
                Ok(())
            }
            Event::Executed {
                server, statement, ..
            } if *statement == Statement::MakeWriteable => {
                self.deposed.remove(server);
                let others: Vec<String> = self
                    .writable(hosts)
                    .filter(|other| other != server)
                    .map(|other| other.to_string())
                    .collect();
                if others.is_empty() {
                    Ok(())
                } else {
                    Err(format!(
                        "one primary: {server} was opened while {} takes writes and is not deposed",
                        others.join(", ")
                    ))
                }
            }
            Event::Executed { .. }
            | Event::Leads { .. }
            | Event::NoLongerLeads { .. }
            | Event::Refused { .. }
            | Event::Votes { .. }
            | Event::HookBegan { .. }
            | Event::HookEnded { .. }
            | Event::Published { .. }
            | Event::Seated { .. } => Ok(()),
        }
    }

    fn writable<'a>(&'a self, hosts: &'a [Host]) -> impl Iterator<Item = InstanceKey> + 'a {
        hosts
            .iter()
            .filter(|host| host.look(|server| server.is_writable()))
            .map(|host| host.key().clone())
            .filter(|key| !self.deposed.contains_key(key))
    }

    /// # Errors
    /// More than one takes writes.
    pub fn look(&mut self, daemons: &[DaemonView], truth: &Truth<'_>) -> Result<(), String> {
        let writable: Vec<String> = self
            .writable(truth.hosts)
            .map(|key| key.to_string())
            .collect();
        if writable.len() > 1 {
            return Err(format!(
                "one primary: {} take writes at once",
                writable.join(" and ")
            ));
        }
        self.look_at_deposed(daemons, truth)
    }

    fn look_at_deposed(&mut self, daemons: &[DaemonView], truth: &Truth<'_>) -> Result<(), String> {
        let mut leaders = daemons.iter().filter(|daemon| daemon.leads);
        let leader = match (leaders.next(), leaders.next()) {
            (Some(leader), None) => leader.name.as_str(),
            (None, _) | (Some(_), Some(_)) => {
                self.closable.clear();
                return Ok(());
            }
        };
        for host in truth.hosts {
            let key = host.key();
            let is_deposed = self.deposed.contains_key(key);
            let (is_writable, can_be_closed) =
                host.look(|server| (server.is_writable(), server.can_be_closed()));
            if !is_deposed {
                self.refused.remove(key);
            } else if is_writable && !can_be_closed {
                self.refused.insert(key.clone());
            }
            let is_closable = is_deposed
                && is_writable
                && can_be_closed
                && (truth.is_whole)(leader, &key.host)
                && !is_left_to_people(truth.decided, key);
            if !is_closable {
                self.closable.remove(key);
                continue;
            }
            let now = || (leader.to_owned(), truth.at);
            let (by, since) = self.closable.entry(key.clone()).or_insert_with(now);
            if *by != leader {
                (*by, *since) = now();
            }
            let open_for = truth.at.saturating_sub(*since);
            let most = if self.refused.contains(key) {
                TRIED_AGAIN_WITHIN
            } else {
                CLOSED_WITHIN
            };
            if open_for > most {
                return Err(format!(
                    "one primary: {key} was deposed and takes writes, though {leader} leads and can reach it for {} ms",
                    open_for.as_millis()
                ));
            }
        }
        Ok(())
    }

    /// # Errors
    /// Not exactly one takes writes.
    pub fn end(&self, ended: &Ended) -> Result<(), String> {
        let writable: Vec<String> = ended
            .hosts
            .iter()
            .filter(|host| host.look(|server| server.is_writable()))
            .map(|host| host.key().to_string())
            .collect();
        if writable.len() == 1 {
            Ok(())
        } else {
            Err(format!(
                "one primary: at the end these take writes: [{}]",
                writable.join(", ")
            ))
        }
    }
}

/// People began a downtime of a server, over or not: the daemons' clocks do not tell when.
fn is_left_to_people(decided: &Replicated, key: &InstanceKey) -> bool {
    decided
        .downtime_of(key, Wall::EPOCH)
        .is_some_and(|downtime| !downtime.is_lost_in_recovery())
}
