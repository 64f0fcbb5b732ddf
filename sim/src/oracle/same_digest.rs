//! Daemons at the same log position have the same state. Fed throughout a run: a difference that heals is one.

use std::collections::BTreeMap;

use orchestrator_core::id::LogPosition;

use crate::daemon::DaemonView;

/// The digest at each position, and who showed it first.
#[derive(Debug, Default)]
pub struct Digests {
    seen: BTreeMap<LogPosition, ([u8; 32], String)>,
}

impl Digests {
    /// # Errors
    /// Two daemons differ at one position.
    pub fn look(&mut self, daemons: &[DaemonView]) -> Result<(), String> {
        for daemon in daemons {
            let (digest, first) = self
                .seen
                .entry(daemon.at)
                .or_insert_with(|| (daemon.digest, daemon.name.clone()));
            if *digest != daemon.digest {
                return Err(format!(
                    "same digest: {first} and {} differ at position {}",
                    daemon.name, daemon.at
                ));
            }
        }
        Ok(())
    }
}
