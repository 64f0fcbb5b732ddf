//! No recovery begins of a primary that lives and that a majority of the voters can reach, unless people ask for one: it ran,
//! let the daemons in, and nothing was lost or late on the way to it and back, without a break for so long. Whoever leads may
//! have lost it, and its replicas too; the faults of daemons, of their clocks and of raft are no reason.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::replicated::Command;

use super::Truth;
use crate::daemon::DaemonView;
use crate::model::Host;
use crate::model::server::Process;
use crate::witness::Event;

/// A daemon that thought a server dead has found it alive and told the others within this time: a dial a second, each given up
/// after a second.
const FOUND_WITHIN: Duration = Duration::from_secs(3);

/// Which servers are well.
#[derive(Debug, Default)]
pub struct Needed {
    /// The machines of the voters, at the last look.
    voters: Vec<String>,
    /// Since when, and in which of its lives.
    well: BTreeMap<InstanceKey, (u64, Duration)>,
}

impl Needed {
    /// # Errors
    /// A recovery begins of one that is well.
    pub fn observe(&mut self, event: &Event, truth: &Truth<'_>) -> Result<(), String> {
        let Event::Committed {
            command:
                Command::BeginRecovery {
                    uid,
                    purpose,
                    server,
                    forced: false,
                    ..
                },
            ..
        } = event
        else {
            return Ok(());
        };
        let Some(host) = truth.hosts.iter().find(|host| host.key() == server) else {
            return Ok(());
        };
        if !purpose.is_recovery() || !self.is_well(host, truth) {
            return Ok(());
        }
        let boot = host.look(|server| server.boot());
        match self.well.get(server) {
            Some((life, since)) if *life == boot && truth.at >= *since + FOUND_WITHIN => {
                Err(format!(
                    "needed: recovery {uid} of {server} begins, which lives, and which a majority of {} could reach for {} ms",
                    self.voters.join(", "),
                    truth.at.saturating_sub(*since).as_millis()
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks who is well.
    pub fn look(&mut self, daemons: &[DaemonView], truth: &Truth<'_>) {
        let newest = daemons.iter().max_by_key(|daemon| daemon.at);
        let voters = newest.map_or(&[][..], |daemon| &daemon.voters);
        // Those that are down count as if they could not reach it: how many there are is known.
        let of = |node| daemons.iter().find(|daemon| daemon.node == node);
        self.voters = voters
            .iter()
            .map(|node| of(*node).map_or_else(String::new, |daemon| daemon.name.clone()))
            .collect();
        for host in truth.hosts {
            let key = host.key();
            let boot = host.look(|server| server.boot());
            if !self.is_well(host, truth) {
                self.well.remove(key);
                continue;
            }
            let known = self.well.entry(key.clone()).or_insert((boot, truth.at));
            if known.0 != boot {
                *known = (boot, truth.at);
            }
        }
    }

    fn is_well(&self, host: &Host, truth: &Truth<'_>) -> bool {
        let lives =
            host.look(|server| server.process() == Process::Running && server.can_be_closed());
        let reached = self
            .voters
            .iter()
            .filter(|voter| !voter.is_empty() && (truth.is_whole)(voter, &host.key().host));
        lives && reached.count() > self.voters.len() / 2
    }
}
