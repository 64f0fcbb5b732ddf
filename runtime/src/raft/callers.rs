//! Connections to the raft port that have not said who they are.
//!
//! Their number is bounded, in all and from one host. The hosts of members are known beforehand, and have places of their own:
//! whoever else calls can keep no member away, not even from a daemon that was just started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use openraft_rt::{AsyncRuntime, Select2};

use super::node::{Node, locked};
use crate::env::{Env, sleep, timeout};
use crate::tls::host_of;

/// In all but the hosts of members, and from one host.
const CALLERS_MAX: usize = 128;
const CALLERS_PER_HOST_MAX: usize = 32;
/// Between two rounds of finding out where the members' names lead to.
const LOOK: Duration = Duration::from_secs(30);
/// For a name to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);
/// What goes on is told of once in so long.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

/// Clones are one count.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    by_host: BTreeMap<String, usize>,
    /// As [`host`] writes them.
    members: BTreeSet<String>,
    turned_away: Option<Duration>,
    without_tls: Option<Duration>,
}

/// One of them; it counts until it is dropped.
pub(super) struct Caller {
    all: Callers,
    host: String,
}

/// The host of a socket's address: one machine is one host, whichever family it calls by.
fn host(peer: &str) -> String {
    match peer.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_canonical().to_string(),
        Err(_) => host_of(peer).to_owned(),
    }
}

impl Callers {
    /// Counts one more, unless there are too many; that is told of.
    pub(super) fn enter<E: Env>(&self, peer: &str) -> Option<Caller> {
        let host = host(peer);
        let mut counts = locked(&self.0);
        let held = counts.by_host.get(&host).copied().unwrap_or(0);
        let strangers = || {
            let strangers = counts.by_host.iter();
            let strangers = strangers.filter(|(host, _)| !counts.members.contains(*host));
            strangers.map(|(_, count)| count).sum::<usize>()
        };
        let is_full = !counts.members.contains(&host) && strangers() >= CALLERS_MAX;
        if held >= CALLERS_PER_HOST_MAX || is_full {
            if is_due::<E>(&mut counts.turned_away) {
                tracing::warn!(
                    peer,
                    "connections to the raft port are turned away: {held} from this host have not said so far who they are, or \
                     {CALLERS_MAX} in all; the hosts of members have places of their own"
                );
            }
            return None;
        }
        *counts.by_host.entry(host.clone()).or_default() += 1;
        let all = self.clone();
        Some(Caller { all, host })
    }

    /// Tells of a connection that was refused because it came without TLS.
    pub(super) fn came_without_tls<E: Env>(&self, peer: &str, why: &str) {
        if is_due::<E>(&mut locked(&self.0).without_tls) {
            tracing::warn!(peer, "raft connection refused: {why}");
        }
    }

    /// Keeps known where members are, until raft ends.
    pub(super) async fn know_members<E: Env>(self, node: Arc<Node<E>>) {
        let mut stop = node.stop.subscribe();
        let mut places = BTreeMap::new();
        loop {
            let round = async {
                self.look(&node, &mut places).await;
                sleep::<E>(LOOK).await;
            };
            if let Select2::First(_) = E::Rt::select2(stop.wait_for(|stop| *stop), round).await {
                return;
            }
        }
    }

    /// A name that leads nowhere at present is where it was.
    async fn look<E: Env>(&self, node: &Node<E>, places: &mut BTreeMap<String, Vec<IpAddr>>) {
        let mut names: BTreeSet<String> = node
            .settings
            .nodes
            .iter()
            .map(|entry| host_of(entry).to_owned())
            .collect();
        for member in super::sight::members(node) {
            let addresses = locked(&node.peers).addresses(member);
            names.extend(addresses.iter().map(|address| host_of(address).to_owned()));
        }
        places.retain(|name, _| names.contains(name));
        let resolved = names.into_iter().map(async |name| {
            let found = timeout::<E, _>(RESOLVE, E::resolve(&name)).await;
            Some((name, found?.ok()?))
        });
        places.extend(join_all(resolved).await.into_iter().flatten());
        let found = places.values().flatten();
        locked(&self.0).members = found
            .map(|address| address.to_canonical().to_string())
            .collect();
    }
}

/// Whether something is to be told of again.
fn is_due<E: Env>(told: &mut Option<Duration>) -> bool {
    let now = E::mono();
    let is_due = told.is_none_or(|at| now >= at + TOLD_AGAIN);
    if is_due {
        *told = Some(now);
    }
    is_due
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut counts = locked(&self.all.0);
        if let Some(count) = counts.by_host.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.by_host.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::TokioEnv;

    fn enter(callers: &Callers, peer: &str) -> Option<Caller> {
        callers.enter::<TokioEnv>(peer)
    }

    #[test]
    fn one_host_has_its_share() {
        let callers = Callers::default();
        let mut held: Vec<Caller> = (0..CALLERS_PER_HOST_MAX)
            .map(|port| enter(&callers, &format!("10.0.0.9:{}", 1_000 + port)).unwrap())
            .collect();
        assert!(enter(&callers, "10.0.0.9:7").is_none());
        // The same machine by another family.
        assert!(enter(&callers, "[::ffff:10.0.0.9]:7").is_none());
        assert!(enter(&callers, "[fd00::1]:7").is_some());
        held.pop();
        assert!(enter(&callers, "10.0.0.9:7").is_some());
    }

    #[test]
    fn strangers_take_no_members_place() {
        let callers = Callers::default();
        locked(&callers.0).members = BTreeSet::from([String::from("10.0.0.1")]);
        let held: Vec<Caller> = (0..CALLERS_MAX)
            .map(|number| enter(&callers, &format!("10.0.1.{number}:7")).unwrap())
            .collect();
        assert!(enter(&callers, "10.0.2.1:7").is_none());
        let members: Vec<Caller> = (0..CALLERS_PER_HOST_MAX)
            .map(|port| enter(&callers, &format!("10.0.0.1:{}", 1_000 + port)).unwrap())
            .collect();
        assert!(enter(&callers, "10.0.0.1:7").is_none());
        // Nor the other way round.
        drop(held);
        assert!(enter(&callers, "10.0.2.1:7").is_some());
        drop(members);
        assert!(locked(&callers.0).by_host.is_empty());
    }
}
