//! Our own actions create no errant transaction: at the end every server that was not deposed and is not recorded as
//! lost replicates from the one that takes writes, and holds nothing that it lacks. A deposed server keeps what it
//! committed, and takes no writes.

use std::collections::BTreeSet;

use orchestrator_core::id::InstanceKey;

use super::Ended;

/// # Errors
/// Which server holds what.
pub fn end(ended: &Ended, deposed: &BTreeSet<InstanceKey>) -> Result<(), String> {
    let Some(primary) = ended.primary() else {
        return Err("no errant: not exactly one server takes writes".to_owned());
    };
    let of_primary = primary.look(|server| server.executed());
    for host in &ended.hosts {
        let is_killed =
            host.look(|server| server.process() == crate::model::server::Process::Killed);
        if host.key() == primary.key()
            || is_killed
            || deposed.contains(host.key())
            || ended.is_recorded_lost(host.key())
        {
            continue;
        }
        let (executed, source) = host.look(|server| (server.executed(), server.source().cloned()));
        if source.as_ref() != Some(primary.key()) {
            return Err(format!(
                "no errant: {} replicates from {} and not from {}",
                host.key(),
                source.map_or_else(|| "nobody".to_owned(), |source| source.to_string()),
                primary.key()
            ));
        }
        match executed.subtract(&of_primary) {
            Ok(errant) if errant.is_empty() => {}
            Ok(errant) => {
                return Err(format!(
                    "no errant: {} holds the errant {errant}",
                    host.key()
                ));
            }
            Err(mismatch) => return Err(mismatch.to_string()),
        }
    }
    Ok(())
}
