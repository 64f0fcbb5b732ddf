//! What must hold when a scenario has ended, one promise a file. An oracle looks at the servers themselves, not at what
//! the daemons believe of them.

use crate::daemon::DaemonView;
use crate::model::{Host, Ledger};
use orchestrator_core::id::InstanceKey;

pub mod no_errant;
pub mod nothing_lost;
pub mod one_primary;
pub mod one_recovery;
pub mod same_digest;

/// The end of a scenario.
pub struct Ended {
    pub hosts: Vec<Host>,
    /// The primary that was killed.
    pub killed: InstanceKey,
    pub ledger: Ledger,
    pub daemons: Vec<DaemonView>,
}

impl Ended {
    /// The servers other than the killed one.
    fn survivors(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| *host.key() != self.killed)
    }

    /// The survivor that takes writes, if it is one.
    fn primary(&self) -> Option<&Host> {
        let mut writable = self
            .survivors()
            .filter(|host| host.look(|server| server.is_writable()));
        let first = writable.next()?;
        writable.next().is_none().then_some(first)
    }
}

#[cfg(test)]
mod tests;
