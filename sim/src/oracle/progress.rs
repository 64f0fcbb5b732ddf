//! Progress: so long after everything was healed, the cluster is at rest. What is missing until then is said in words, after
//! the word that names it: every daemon is up, one leads, all hear it and are at one; nothing runs; one server takes writes,
//! every replica follows it, applications get through to it, and the key-value store names it.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator_core::id::InstanceKey;

use crate::daemon::DaemonView;
use crate::model::Host;
use crate::model::server::Process;
use crate::store::{PREFIX, Store};

/// An application's writes get through if one did within so long.
const WRITING: Duration = Duration::from_secs(1);

/// What is looked at, beside the daemons.
#[derive(Debug)]
pub struct Rest<'a> {
    /// The machines whose daemons are members in the end.
    pub members: &'a [String],
    /// Daemons that ended by themselves as expected.
    pub expected_ends: &'a BTreeSet<String>,
    /// The members, and nobody else, are the voters.
    pub are_the_voters: bool,
    pub hosts: &'a [Host],
    /// Who was deposed replicates from nobody.
    pub deposed: &'a BTreeSet<InstanceKey>,
    pub store: Option<&'a Store>,
    /// The newest write was acknowledged so long ago.
    pub since_written: Option<Duration>,
    /// A server that was struck and cannot be the primary.
    pub struck: Option<&'a str>,
}

impl Rest<'_> {
    /// The first thing that is missing.
    #[must_use]
    pub fn missing(&self, views: &[DaemonView]) -> Option<String> {
        for name in self.members {
            let is_up = views.iter().any(|view| view.name == *name);
            if !is_up && !self.expected_ends.contains(name) {
                return Some(format!("daemons: {name} is not up"));
            }
        }
        if let Some(leader) = views
            .iter()
            .find(|view| view.leads && !self.members.contains(&view.name))
        {
            return Some(format!(
                "members: {} leads and is to be no member",
                leader.name
            ));
        }
        let views: Vec<&DaemonView> = views
            .iter()
            .filter(|view| self.members.contains(&view.name))
            .collect();
        let Some(first) = views.first() else {
            return Some("leader: no daemon is up".to_owned());
        };
        self.of_daemons(first, &views)
            .or_else(|| of_recoveries(first))
            .or_else(|| self.of_servers(first))
    }

    fn of_daemons(&self, first: &DaemonView, views: &[&DaemonView]) -> Option<String> {
        let leaders: Vec<&str> = views
            .iter()
            .filter(|view| view.leads)
            .map(|view| view.name.as_str())
            .collect();
        if leaders.len() != 1 {
            return Some(format!("leader: not one daemon leads: {leaders:?}"));
        }
        let mut identities: Vec<_> = views.iter().map(|view| view.node).collect();
        identities.sort();
        if self.are_the_voters {
            let mut voters = first.voters.clone();
            voters.sort();
            if voters != identities {
                return Some(format!(
                    "members: the voters are {voters:?}, and {:?} are {identities:?}",
                    self.members
                ));
            }
        }
        if let Some(deaf) = views.iter().find(|view| !view.hears_leader) {
            return Some(format!("leader: {} does not hear it", deaf.name));
        }
        if views.iter().any(|view| view.at != first.at) {
            let at: Vec<String> = views
                .iter()
                .map(|view| format!("{} {}", view.name, view.at))
                .collect();
            return Some(format!(
                "position: the daemons are not at one: {}",
                at.join(", ")
            ));
        }
        None
    }

    fn of_servers(&self, first: &DaemonView) -> Option<String> {
        let writable: Vec<_> = self
            .hosts
            .iter()
            .filter(|host| host.look(|server| server.is_writable()))
            .collect();
        let [primary] = writable.as_slice() else {
            let names: Vec<String> = writable.iter().map(|host| host.key().to_string()).collect();
            return Some(format!(
                "primary: not one server takes writes: [{}]",
                names.join(", ")
            ));
        };
        if self.struck == Some(primary.key().host.as_str()) {
            return Some(format!(
                "primary: {} was struck and takes writes",
                primary.key()
            ));
        }
        if let Some(store) = self.store {
            let mut shown = first.named.iter();
            let own = shown.find(|(_, shown)| shown == primary.key());
            let Some((alias, _)) = own else {
                return Some(format!(
                    "publications: the cluster of {} has no alias",
                    primary.key()
                ));
            };
            let told = store.value(&format!("{PREFIX}{alias}"));
            if told != Some(primary.key().to_string()) {
                return Some(format!(
                    "publications: {alias} is {told:?}, and the primary is {}",
                    primary.key()
                ));
            }
        }
        for host in self.hosts {
            let (process, source, replicates) = host.look(|server| {
                (
                    server.process(),
                    server.source().cloned(),
                    server.is_replicating(),
                )
            });
            let is_lost = first
                .recoveries
                .iter()
                .any(|recovery| recovery.lost.contains(host.key()));
            // It holds what the primary lost with its power, and is turned away: it is for people to rebuild one of them.
            let lost = primary.look(|primary| primary.lost_with_power().clone());
            let is_ahead = host.look(|server| !server.ever_held().is_disjoint(&lost));
            if host.key() == primary.key()
                || is_ahead
                || process == Process::Killed
                || self.deposed.contains(host.key())
                || is_lost
            {
                continue;
            }
            if source.as_ref() != Some(primary.key()) || !replicates {
                return Some(format!(
                    "replica: {} does not replicate from {}: its source is {}, its threads {}",
                    host.key(),
                    primary.key(),
                    source.map_or_else(|| "nobody".to_owned(), |source| source.to_string()),
                    if replicates { "run" } else { "do not both run" }
                ));
            }
        }
        if self.since_written.is_none_or(|since| since > WRITING) {
            return Some("writes: no application's gets through".to_owned());
        }
        None
    }
}

fn of_recoveries(first: &DaemonView) -> Option<String> {
    if let Some(running) = first.recoveries.iter().find(|one| one.is_running()) {
        return Some(format!(
            "recovery: {:?} {} of {} runs, in {}",
            running.purpose, running.uid, running.server, running.stage
        ));
    }
    let announced = first.recoveries.iter().find(|one| one.is_announced())?;
    Some(format!(
        "hooks: those of {} have not all ended, it is in {}",
        announced.uid, announced.stage
    ))
}
