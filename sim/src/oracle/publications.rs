//! What the key-value store says never goes backwards: no pair is replaced by one of an earlier decision, and no cluster's
//! primary by a server whose promotion came before that of the one that is there.

use std::collections::BTreeMap;

use orchestrator_core::recovery::{Statement, StepKind};

use crate::store::PREFIX;
use crate::witness::{Cause, Event};

/// What the store says.
#[derive(Debug, Default)]
pub struct Publications {
    held: BTreeMap<String, (String, u64)>,
    /// The servers that were promoted, in their order.
    promoted: Vec<String>,
}

impl Publications {
    /// # Errors
    /// The store went backwards.
    pub fn observe(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Executed {
                server,
                statement: Statement::MakeWriteable,
                cause: Some(Cause::Step { kind, .. }),
                ..
            } if *kind == StepKind::Promote => self.promoted.push(server.to_string()),
            Event::Published {
                key,
                value,
                version,
            } => {
                let held = self.held.insert(key.clone(), (value.clone(), *version));
                if let Some((held, held_version)) = held {
                    if *version < held_version {
                        return Err(format!(
                            "publications: {key} went back from {held} of {held_version} to {value} of {version}"
                        ));
                    }
                    let is_address = key
                        .strip_prefix(PREFIX)
                        .is_some_and(|alias| !alias.contains('/'));
                    if is_address && self.place(value) < self.place(&held) {
                        return Err(format!(
                            "publications: {key} went back from {held}, which was promoted later, to {value}"
                        ));
                    }
                }
            }
            Event::Executed { .. }
            | Event::Committed { .. }
            | Event::Leads { .. }
            | Event::NoLongerLeads { .. }
            | Event::Refused { .. }
            | Event::Votes { .. }
            | Event::HookBegan { .. }
            | Event::HookEnded { .. }
            | Event::Seated { .. } => {}
        }
        Ok(())
    }

    /// When a server was last promoted; none: never.
    fn place(&self, server: &str) -> Option<usize> {
        self.promoted
            .iter()
            .rposition(|promoted| promoted == server)
    }
}
