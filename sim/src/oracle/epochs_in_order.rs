//! No statement takes effect on a server after a statement of a later epoch took effect there: a leader that was
//! paused, cut off or deposed does not come back to undo what its successor did. The fence that waited in a frozen
//! server never closes what a committed step opened after the promotion that it was left for.

use std::collections::BTreeMap;

use orchestrator_core::id::{Epoch, InstanceKey, Uid};
use orchestrator_core::recovery::{Statement, StepKind};
use orchestrator_core::replicated::Command;

use crate::witness::{Cause, Event};

/// The latest epoch that acted on each server, and whether what it did last opened the server, which no promotion deposed since.
#[derive(Debug, Default)]
pub struct EpochsInOrder {
    about: BTreeMap<Uid, InstanceKey>,
    last: BTreeMap<InstanceKey, (Epoch, bool)>,
}

impl EpochsInOrder {
    /// # Errors
    /// An overtaken epoch acted.
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
            Command::Intend { uid, steps, .. }
                if steps.iter().any(|step| step.kind == StepKind::Promote) =>
            {
                let deposed = self.about.get(uid).and_then(|key| self.last.get_mut(key));
                if let Some((_, is_opened)) = deposed {
                    *is_opened = false;
                }
            }
            _ => {}
        }
    }

    fn executed(
        &mut self,
        server: &InstanceKey,
        statement: &Statement,
        cause: Option<&Cause>,
    ) -> Result<(), String> {
        let last = self.last.get(server).copied();
        match cause {
            Some(Cause::Step { epoch, .. }) => {
                if let Some((later, _)) = last
                    && *epoch < later
                {
                    return Err(format!(
                        "epochs in order: {statement} of epoch {epoch} took effect on {server} after epoch {later} had acted there"
                    ));
                }
                let opens = *statement == Statement::MakeWriteable;
                self.last.insert(server.clone(), (*epoch, opens));
                Ok(())
            }
            Some(Cause::FrozenFence) => match last {
                Some((epoch, true)) => Err(format!(
                    "epochs in order: a fence that waited in an idle connection closed {server}, which epoch {epoch} had opened"
                )),
                Some((_, false)) | None => Ok(()),
            },
            None => Ok(()),
        }
    }
}
