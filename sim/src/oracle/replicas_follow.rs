//! When a recovery ends well, every running server that is pointed at the promoted one got through to it and was not turned
//! away there, but for those that the record names (as lost, or in its errors).

use std::collections::BTreeMap;

use orchestrator_core::id::Uid;
use orchestrator_core::recovery::End;
use orchestrator_core::replicated::Command;

use crate::model::Host;
use crate::model::server::Process;
use crate::witness::Event;

/// What records say of servers.
#[derive(Debug, Default)]
pub struct ReplicasFollow {
    errors: BTreeMap<Uid, Vec<String>>,
}

impl ReplicasFollow {
    /// # Errors
    /// Who does not follow, and is not named.
    pub fn observe(&mut self, event: &Event, hosts: &[Host]) -> Result<(), String> {
        let Event::Committed { command, .. } = event else {
            return Ok(());
        };
        if let Command::Remark { uid, errors, .. } = command {
            let held = self.errors.entry(uid.clone()).or_default();
            held.extend(errors.iter().cloned());
            return Ok(());
        }
        let Command::EndRecovery {
            uid,
            end: End::Succeeded,
            successor: Some(successor),
            lost,
            ..
        } = command
        else {
            return Ok(());
        };
        let errors = self.errors.get(uid).map_or(&[][..], Vec::as_slice);
        for host in hosts {
            let name = host.key().to_string();
            let is_named =
                lost.contains(host.key()) || errors.iter().any(|error| error.contains(&name));
            let strays = host.look(|server| {
                server.process() != Process::Killed
                    && server.source() == Some(successor)
                    && !server.follows_its_source()
            });
            if strays && !is_named {
                return Err(format!(
                    "replicas follow: recovery {uid} ended well, {name} is pointed at {successor} and does not get through to \
                     it, and the record says nothing of it"
                ));
            }
        }
        Ok(())
    }
}
