//! No statement takes effect on a server after a statement of a later epoch took effect there: a leader that was
//! paused, cut off or deposed does not come back to undo what its successor did. The fence that waited in a frozen
//! server never closes what a committed step opened meanwhile.

use std::collections::BTreeMap;

use orchestrator_core::id::{Epoch, InstanceKey};
use orchestrator_core::recovery::Statement;

use crate::witness::{Cause, Event};

/// The latest epoch that acted on each server, and whether what it did last opened the server.
#[derive(Debug, Default)]
pub struct EpochsInOrder {
    last: BTreeMap<InstanceKey, (Epoch, bool)>,
}

impl EpochsInOrder {
    /// # Errors
    /// An overtaken epoch acted.
    pub fn observe(&mut self, event: &Event) -> Result<(), String> {
        let Event::Executed {
            server,
            statement,
            cause,
            ..
        } = event
        else {
            return Ok(());
        };
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
