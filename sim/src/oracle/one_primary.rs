//! At most one server takes writes, outside of a declared overlap. The overlap is declared by a committed promote intent:
//! from then on the primary that it deposes does not count, until it is opened by a committed step again. No server is
//! opened while another, not deposed, takes writes. At the end exactly one takes writes and no deposed one does.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::{Stage, Statement, StepKind};
use orchestrator_core::replicated::Command;

use super::Ended;
use crate::model::Host;
use crate::witness::Event;

/// Which servers were deposed.
#[derive(Debug, Default)]
pub struct OnePrimary {
    /// Of which server each recovery or operation is.
    about: BTreeMap<Uid, InstanceKey>,
    deposed: BTreeSet<InstanceKey>,
}

impl OnePrimary {
    #[must_use]
    pub fn deposed(&self) -> &BTreeSet<InstanceKey> {
        &self.deposed
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
                        self.deposed.extend(self.about.get(uid).cloned());
                    }
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
            .filter(|key| !self.deposed.contains(key))
    }

    /// # Errors
    /// More than one takes writes.
    pub fn look(&self, hosts: &[Host]) -> Result<(), String> {
        let writable: Vec<String> = self.writable(hosts).map(|key| key.to_string()).collect();
        if writable.len() <= 1 {
            Ok(())
        } else {
            Err(format!(
                "one primary: {} take writes at once",
                writable.join(" and ")
            ))
        }
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
