//! No effect without its committed intent: a statement that takes effect on a server belongs to a step that raft had
//! committed before, for that server, under the epoch that sent it. The one exception is the fence in a frozen server's
//! idle connection, and it has its own: a committed promote intent that deposes this server. Hooks are `hooks_in_order`'s,
//! and what is written to the key-value store is `publications`'.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::id::{Epoch, InstanceKey, StepId, Uid};
use orchestrator_core::recovery::{Statement, Step, StepKind};
use orchestrator_core::replicated::Command;

use crate::witness::{Cause, Event};

/// What was intended.
#[derive(Debug, Default)]
pub struct IntentFirst {
    about: BTreeMap<Uid, InstanceKey>,
    intended: BTreeMap<(Uid, StepId, Epoch), Step>,
    /// Servers that a committed promote intent deposed.
    deposed: BTreeSet<InstanceKey>,
}

impl IntentFirst {
    /// # Errors
    /// A statement that nothing committed stands behind.
    pub fn observe(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Committed { command, .. } => {
                self.committed(command);
                Ok(())
            }
            Event::Executed {
                server,
                statement,
                cause,
                ..
            } => self.executed(server, statement, cause.as_ref()),
            Event::Leads { .. }
            | Event::NoLongerLeads { .. }
            | Event::Refused { .. }
            | Event::Votes { .. }
            | Event::HookBegan { .. }
            | Event::HookEnded { .. }
            | Event::Published { .. }
            | Event::Seated { .. } => Ok(()),
        }
    }

    fn committed(&mut self, command: &Command) {
        match command {
            Command::BeginRecovery { uid, server, .. } => {
                self.about.insert(uid.clone(), server.clone());
            }
            Command::Intend {
                uid, epoch, steps, ..
            } => {
                for step in steps {
                    if step.kind == StepKind::Promote {
                        self.deposed.extend(self.about.get(uid).cloned());
                    }
                    self.intended
                        .insert((uid.clone(), step.id, *epoch), step.clone());
                }
            }
            _ => {}
        }
    }

    fn executed(
        &self,
        server: &InstanceKey,
        statement: &Statement,
        cause: Option<&Cause>,
    ) -> Result<(), String> {
        let bad = |why: String| Err(format!("intent first: {statement} on {server}: {why}"));
        match cause {
            None => bad("nobody knows who sent it".to_owned()),
            Some(Cause::FrozenFence) if *statement != Statement::Fence => {
                bad("something else than the fence waited in a frozen server".to_owned())
            }
            Some(Cause::FrozenFence) if !self.deposed.contains(server) => {
                bad("left in an idle connection without a committed promote intent".to_owned())
            }
            Some(Cause::FrozenFence) => Ok(()),
            Some(Cause::Step {
                uid, step, epoch, ..
            }) => match self.intended.get(&(uid.clone(), *step, *epoch)) {
                None => bad(format!(
                    "step {step} of {uid} was not intended under epoch {epoch}"
                )),
                Some(intended) if intended.server != *server => {
                    bad(format!("step {step} of {uid} is for {}", intended.server))
                }
                Some(intended) if !intended.statements.contains(statement) => {
                    bad(format!("step {step} of {uid} is {intended}"))
                }
                Some(_) => Ok(()),
            },
        }
    }
}
