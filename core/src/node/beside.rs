//! Who takes the writes of clients beside, or in the place of, the server that is on record as the primary, as far as
//! this daemon can know: people may have chosen another one after a recovery that failed, or after a promotion.

use alloc::collections::BTreeSet;
use core::time::Duration;

use super::Node;
use crate::{
    id::InstanceKey,
    recovery::Recovery,
    replicated::ClusterRecord,
    time::Mono,
    topology::{ProbeFailure, ProbeReport, ThreadState},
};

/// A server that has no replica is opened so long after a recovery promoted it; later, people may serve from another.
const PROMOTED_WITHIN: Duration = Duration::from_secs(600);

/// Whether another server of a cluster than its primary takes the writes of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beside {
    Nobody,
    /// This one was not looked at since everything that was done to the cluster, or what was seen can mean both.
    Unknown(InstanceKey),
    Another(InstanceKey),
}

impl Node {
    /// Whether another server of the cluster takes writes after a recovery that promoted nobody.
    pub(super) fn beside(&self, record: &ClusterRecord, recovery: &Recovery) -> Beside {
        let settled = self.learned.settled_since(record.key);
        let others = record.members.iter().chain(&recovery.replicas);
        let mut beside = Beside::Nobody;
        for key in others.filter(|key| **key != record.primary) {
            match self.takes_writes(key, settled) {
                Some(true) => return Beside::Another(key.clone()),
                Some(false) => {}
                None => beside = Beside::Unknown(key.clone()),
            }
        }
        beside
    }

    /// Whether the recorded primary takes the writes of clients, and nobody else of its cluster, or of one that was split off from
    /// it. None: that may show yet, since not every one of them was looked at after everything that was done to the cluster, or
    /// because the primary is away or closed, or one that was deposed is not fenced.
    pub(super) fn serves_alone(&self, record: &ClusterRecord) -> Option<bool> {
        let settled = self.learned.settled_since(record.key);
        let clusters = self.replicated.clusters();
        let split = clusters.filter(|other| other.split_from == Some(record.key));
        let members = split.chain([record]).flat_map(|cluster| &cluster.members);
        let others = members.filter(|key| **key != record.primary && self.replicated.is_known(key));
        for key in others {
            let server = self.observed.instances.get(key)?;
            (server.checked > settled).then_some(())?;
            if self.takes_writes(key, settled) == Some(true) {
                let mut deposed = self.replicated.deposed_at(key);
                let is_to_be_fenced = deposed.any(|(_, row)| row.fenced.is_none());
                return (!is_to_be_fenced).then_some(false);
            }
        }
        let primary = self.observed.instances.get(&record.primary)?;
        let is_open = primary.is_last_check_valid()
            && primary.seen > settled
            && primary.identity() == record.identity.as_ref()
            && !primary.read_only();
        is_open.then_some(true)
    }

    /// Whether a server that is not the recorded primary takes writes of clients as one: it is open and replicates from nobody.
    /// None if it was not looked at since, or what it shows can mean both.
    pub(super) fn takes_writes(&self, key: &InstanceKey, since: Option<Mono>) -> Option<bool> {
        let Some(server) = self.observed.instances.get(key) else {
            return Some(false);
        };
        let by_report = |report: &ProbeReport| match &report.replication {
            _ if report.read_only => Some(false),
            None => Some(true),
            Some(status) if status.io != ThreadState::Stopped => Some(false),
            // A recovery halted it, and whether it was open before, or people opened it since, does not show.
            Some(_) => None,
        };
        let report = server.report.as_deref();
        if server.is_last_check_valid() && server.seen > since {
            return by_report(report?);
        }
        // One that does not answer takes none that this program could know of, unless it was seen to before.
        let is_away = !server.is_last_check_valid()
            && server.checked > since
            && !server
                .failure
                .as_ref()
                .is_some_and(ProbeFailure::proves_life);
        let mut deposed = self.replicated.deposed_at(key).peekable();
        let took_none = match report.map(by_report) {
            None | Some(Some(false)) => true,
            // A deposed one that never came back was open when it died.
            Some(Some(true) | None) => {
                deposed.peek().is_some() && deposed.all(|(_, row)| row.fenced.is_none())
            }
        };
        (is_away && took_none).then_some(false)
    }

    /// Servers follow it; or it was promoted a moment ago, and none of those that might follow it is another's.
    pub(super) fn is_primary_of_its_servers(&self, record: &ClusterRecord) -> bool {
        let primary = &record.primary;
        if !self.observed.edges.replicas_of(primary).is_empty() {
            return true;
        }
        let promotion = self.replicated.recoveries_newest_first().find(|recovery| {
            recovery.cluster == record.key
                && recovery.is_successful()
                && recovery.successor.is_some()
        });
        let Some(promotion) = promotion.filter(|promotion| {
            let is_recent = promotion.end.as_ref().is_some_and(|(ended, _)| {
                self.replicated.log_time().since(*ended) < PROMOTED_WITHIN
            });
            promotion.successor.as_ref() == Some(primary) && is_recent
        }) else {
            return false;
        };
        let split = self
            .replicated
            .clusters()
            .filter(|other| other.split_from == Some(record.key));
        let others: BTreeSet<&InstanceKey> = split
            .chain([record])
            .flat_map(|cluster| &cluster.members)
            .chain(&promotion.replicas)
            .chain([&promotion.server])
            .filter(|key| *key != primary)
            .collect();
        others.iter().all(|key| self.is_free(promotion, key))
    }

    /// By its last reading a server takes no writes that is closed and replicates from nobody else than the one that failed, or
    /// from another replica. One that does not answer since the promotion takes none that this program could know of, unless it
    /// is one that was deposed and came back meanwhile; one that was not looked at since may.
    fn is_free(&self, promotion: &Recovery, key: &InstanceKey) -> bool {
        let promoted = promotion.identity.as_ref();
        let promoted = promoted.map(|identity| self.learned.deposed_since(identity));
        let came_back = self
            .replicated
            .deposed_at(key)
            .any(|(_, row)| row.fenced.is_some());
        let Some(server) = self.observed.instances.get(key) else {
            return !came_back;
        };
        let Some(report) = server.report.as_ref().filter(|_| server.seen > promoted) else {
            return server.checked > promoted && !came_back;
        };
        let replicates = |key: &InstanceKey| {
            let server = self.observed.instances.get(key);
            let report = server.and_then(|server| server.report.as_ref());
            report.is_some_and(|report| report.replication.is_some())
        };
        let replication = report.replication.as_ref();
        let is_fed_by_another = replication.is_some_and(|status| {
            let source = &status.source;
            let is_fed = status.io == ThreadState::Running;
            is_fed && *source != promotion.server && !replicates(source)
        });
        report.read_only && !is_fed_by_another
    }
}
