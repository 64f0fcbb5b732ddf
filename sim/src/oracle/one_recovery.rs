//! One recovery a cluster: nothing that is committed makes two run, and no daemon's record ever shows two. At the end none
//! runs, and each that succeeded promoted exactly one server, which its record names.

use std::collections::BTreeSet;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::Recovery;

use super::{Ended, Truth};
use crate::daemon::DaemonView;
use crate::witness::Event;

/// # Errors
/// Since this was committed two run.
pub fn observe(event: &Event, truth: &Truth<'_>) -> Result<(), String> {
    match event {
        Event::Committed { at, .. } | Event::Seated { at } => {
            match two_of_one(truth.decided.running()) {
                Some((first, second)) => Err(format!(
                    "one recovery: since {at} {} and {} run on one cluster",
                    first.uid, second.uid
                )),
                None => Ok(()),
            }
        }
        Event::Refused { .. }
        | Event::Leads { .. }
        | Event::NoLongerLeads { .. }
        | Event::Votes { .. }
        | Event::HookBegan { .. }
        | Event::HookEnded { .. }
        | Event::Published { .. }
        | Event::Executed { .. } => Ok(()),
    }
}

/// # Errors
/// Two run.
pub fn look(daemons: &[DaemonView]) -> Result<(), String> {
    for daemon in daemons {
        let running = daemon.recoveries.iter().filter(|one| one.is_running());
        if let Some((first, second)) = two_of_one(running) {
            return Err(format!(
                "one recovery: {} shows {} and {} running on one cluster",
                daemon.name, first.uid, second.uid
            ));
        }
    }
    Ok(())
}

/// Two recoveries of the same cluster, or of the same server, whatever its cluster is called.
fn two_of_one<'a>(
    running: impl Iterator<Item = &'a Recovery>,
) -> Option<(&'a Recovery, &'a Recovery)> {
    let mut before: Vec<&Recovery> = Vec::new();
    for second in running.filter(|one| one.purpose.is_recovery()) {
        let is_same =
            |one: &&Recovery| one.cluster == second.cluster || one.server == second.server;
        if let Some(first) = before.iter().copied().find(is_same) {
            return Some((first, second));
        }
        before.push(second);
    }
    None
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
        // One that is opened again, because it lost power a moment after, is one.
        let promoted: BTreeSet<&InstanceKey> = ended
            .promotions
            .iter()
            .filter(|promotion| promotion.uid == recovery.uid)
            .map(|promotion| &promotion.server)
            .collect();
        let named: BTreeSet<&InstanceKey> = recovery.successor.iter().collect();
        if recovery.is_successful() && (promoted.is_empty() || promoted != named) {
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
