//! What must hold, one promise a file. An oracle looks at the servers themselves and at what raft committed, not at what
//! the daemons believe.
//!
//! Most are told of each event as it happens and judge what is true then; some look again at intervals; some judge the
//! end, when everything has been healed and has come to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::Replicated;

use crate::daemon::DaemonView;
use crate::hooks::HooksSetup;
use crate::model::server::{Server, Transaction};
use crate::model::{Host, Ledger};
use crate::witness::{Event, Promotion};

pub mod acknowledged;
pub mod bounds;
pub mod drained_first;
pub mod epochs_in_order;
pub mod hooks_in_order;
pub mod intent_first;
pub mod last_words;
pub mod left_to_people;
pub mod needed;
pub mod no_errant;
pub mod nothing_forgotten;
pub mod nothing_lost;
pub mod nothing_uncommitted;
pub mod one_leader;
pub mod one_primary;
pub mod one_recovery;
pub mod own_cluster;
pub mod progress;
pub mod publications;
pub mod replicas_follow;
pub mod same_digest;
pub mod same_log;

/// The world as it is, whatever its daemons believe.
#[derive(Debug, Clone, Copy)]
pub struct Truth<'a> {
    /// Simulated time.
    pub at: Duration,
    pub hosts: &'a [Host],
    /// What came of all that was committed so far.
    pub decided: &'a Replicated,
    /// Whether two machines, by their names, reach each other without loss or delay.
    pub is_whole: fn(&str, &str) -> bool,
}

/// All oracles of a run that listen.
#[derive(Debug, Default)]
pub struct Oracles {
    pub one_leader: one_leader::OneLeader,
    pub one_primary: one_primary::OnePrimary,
    pub intent_first: intent_first::IntentFirst,
    pub epochs_in_order: epochs_in_order::EpochsInOrder,
    pub nothing_lost: nothing_lost::NothingLost,
    pub same_digest: same_digest::Digests,
    pub same_log: same_log::SameLog,
    pub bounds: bounds::Bounds,
    pub nothing_uncommitted: nothing_uncommitted::NothingUncommitted,
    pub acknowledged: acknowledged::Acknowledged,
    pub hooks_in_order: hooks_in_order::HooksInOrder,
    pub publications: publications::Publications,
    pub replicas_follow: replicas_follow::ReplicasFollow,
    pub left_to_people: left_to_people::LeftToPeople,
    pub needed: needed::Needed,
}

impl Oracles {
    /// For a world with these hooks.
    #[must_use]
    pub fn of(hooks: HooksSetup) -> Self {
        let mut oracles = Self::default();
        oracles.hooks_in_order.setup = hooks;
        oracles
    }

    /// # Errors
    /// The first promise that this event breaks.
    pub fn observe(&mut self, event: &Event, truth: &Truth<'_>) -> Result<(), String> {
        let Truth { at, hosts, .. } = *truth;
        self.left_to_people.observe(event, truth)?;
        self.needed.observe(event, truth)?;
        let missed = self.left_to_people.missed();
        let is_missed = |host: &&Host| missed.contains(host.key());
        let cared_for: Vec<Host> = hosts
            .iter()
            .filter(|host| !is_missed(host))
            .cloned()
            .collect();
        self.one_leader.observe(at, event)?;
        self.nothing_uncommitted.observe(event);
        self.acknowledged.observe(at, event);
        self.intent_first.observe(event)?;
        self.epochs_in_order.observe(event)?;
        nothing_forgotten::observe(event)?;
        drained_first::observe(event, hosts)?;
        one_recovery::observe(event, truth)?;
        self.one_primary.observe(event, hosts)?;
        self.nothing_lost.observe(at, event, &cared_for);
        self.hooks_in_order.observe(event)?;
        self.publications.observe(event, truth)?;
        self.replicas_follow.observe(event, &cared_for)?;
        Ok(())
    }

    /// Those that replicate from nobody, and those that people have to bring back.
    #[must_use]
    pub fn deposed_or_missed(&self) -> BTreeSet<InstanceKey> {
        let mut servers = self.one_primary.deposed();
        servers.extend(self.left_to_people.missed().iter().cloned());
        servers
    }

    /// Looks again, at intervals.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn look(&mut self, daemons: &[DaemonView], truth: &Truth<'_>) -> Result<(), String> {
        self.same_digest.look(daemons)?;
        self.left_to_people.look(daemons, truth);
        self.needed.look(daemons, truth);
        self.one_primary.look(daemons, truth)?;
        one_recovery::look(daemons)?;
        self.bounds.look(truth.hosts, daemons.len())?;
        self.bounds.look_at_logs(truth.at, daemons)
    }

    /// Judges the end.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn end(&mut self, ended: &Ended) -> Result<(), String> {
        self.nothing_uncommitted.end(ended)?;
        one_recovery::end(ended)?;
        self.one_primary.end(ended)?;
        // What it finds, the next one may find lost.
        no_errant::end(ended, &self.deposed_or_missed())?;
        self.nothing_lost.end(ended)?;
        self.hooks_in_order.end(ended)
    }
}

/// The end of a run, healed and at rest.
#[derive(Debug)]
pub struct Ended {
    pub hosts: Vec<Host>,
    pub ledger: Ledger,
    pub daemons: Vec<DaemonView>,
    pub promotions: Vec<Promotion>,
}

impl Ended {
    /// The server that takes writes, if it is one.
    #[must_use]
    pub fn primary(&self) -> Option<&Host> {
        let mut writable = self
            .hosts
            .iter()
            .filter(|host| host.look(|server| server.is_writable()));
        let first = writable.next()?;
        writable.next().is_none().then_some(first)
    }

    /// The recoveries in the record of the first daemon: all have the same.
    pub fn recoveries(&self) -> impl Iterator<Item = &Recovery> {
        self.daemons
            .first()
            .into_iter()
            .flat_map(|daemon| &daemon.recoveries)
            .filter(|recovery| recovery.purpose.is_recovery())
    }

    /// Whether a server was given up: the record names it as lost.
    #[must_use]
    pub fn is_recorded_lost(&self, server: &InstanceKey) -> bool {
        self.recoveries()
            .any(|recovery| recovery.lost.contains(server))
    }
}

/// The writes that a server holds: committed, and received.
fn held(host: &Host) -> BTreeSet<u64> {
    host.look(|server| {
        log_of(server)
            .map(|transaction| transaction.write)
            .collect()
    })
}

/// What is in its log, and what it received and has not applied.
fn log_of(server: &Server) -> impl Iterator<Item = &Transaction> {
    server.transactions().iter().chain(server.unapplied())
}

#[cfg(test)]
mod tests;
