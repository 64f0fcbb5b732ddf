//! One recovery a cluster: no daemon's record ever shows two that run. At the end none runs, and each that succeeded
//! promoted exactly one server, which its record names.

use super::Ended;
use crate::daemon::DaemonView;

/// # Errors
/// Two run.
pub fn look(daemons: &[DaemonView]) -> Result<(), String> {
    for daemon in daemons {
        let mut running = daemon
            .recoveries
            .iter()
            .filter(|recovery| recovery.purpose.is_recovery() && recovery.is_running());
        if let Some(first) = running.next()
            && let Some(second) = running.find(|second| second.cluster == first.cluster)
        {
            return Err(format!(
                "one recovery: {} shows {} and {} running on one cluster",
                daemon.name, first.uid, second.uid
            ));
        }
    }
    Ok(())
}

/// # Errors
/// What the record shows instead.
pub fn end(ended: &Ended) -> Result<(), String> {
    for recovery in ended.recoveries() {
        if recovery.is_running() {
            return Err(format!(
                "one recovery: {} of {} still runs at the end, in {}",
                recovery.uid, recovery.server, recovery.stage
            ));
        }
        let promoted: Vec<_> = ended
            .promotions
            .iter()
            .filter(|promotion| promotion.uid == recovery.uid)
            .map(|promotion| &promotion.server)
            .collect();
        let is_named = promoted
            .iter()
            .all(|server| recovery.successor.as_ref() == Some(*server));
        if recovery.is_successful() && !is_named {
            return Err(format!(
                "one recovery: {} of {} opened {promoted:?} and its record names {:?}",
                recovery.uid, recovery.server, recovery.successor
            ));
        }
        if !recovery.is_successful() && !promoted.is_empty() && !recovery.is_past_return() {
            return Err(format!(
                "one recovery: {} of {} opened {promoted:?} and its record knows no promotion: {:?}",
                recovery.uid, recovery.server, recovery.end
            ));
        }
    }
    Ok(())
}
