//! Names by which replicas call their source. People state it as they like (a full name, an address, the name of a proxy),
//! which need not be what the source calls itself; everything else here knows servers by their own names. So the source in
//! a reading is put into its own name before anybody looks at it: by the source's UUID, which MySQL's replicas tell; by what
//! answered at that name; or as the primary that is recorded of the replica's cluster, if it has the server id that the
//! replica tells. The last one works where the source is dead and this daemon never met it.
//!
//! Holds between calls: a name is held with the server that answered there last.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
};
use core::time::Duration;

use super::{Node, Output};
use crate::{
    id::{Identity, InstanceKey},
    limits,
    time::{Mono, Now},
    topology::{ProbeReport, ReplicaStatus},
};

/// A name at which nobody answered is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Names {
    /// Who answered at a name that is not its own.
    own: BTreeMap<InstanceKey, InstanceKey>,
    /// When a name was asked last.
    asked: BTreeMap<InstanceKey, Mono>,
}

impl Node {
    /// A server answered at another name than its own. Returns whether that is news.
    pub(super) fn answered_at(&mut self, name: &InstanceKey, own: &InstanceKey) -> bool {
        self.names.asked.remove(name);
        if self.names.own.len() >= limits::INSTANCES_MAX && !self.names.own.contains_key(name) {
            return false;
        }
        self.names.own.insert(name.clone(), own.clone()).as_ref() != Some(own)
    }

    /// Puts the source that a replica states into the source's own name. One that nobody knows is asked who it is.
    pub(super) fn name_source(
        &mut self,
        now: Now,
        replica: &InstanceKey,
        report: &mut ProbeReport,
        out: &mut Output,
    ) {
        let Some(status) = &mut report.replication else {
            return;
        };
        if !status.source.is_valid() || self.has_report(&status.source) {
            return;
        }
        if let Some(own) = self.own_name_of_source(replica, status) {
            self.names.own.insert(status.source.clone(), own.clone());
            status.source = own;
            return;
        }
        let name = status.source.clone();
        let is_ignored = self.filters.discovery_ignore.matches_key(&name)
            || self.filters.discovery_ignore_source.matches_key(&name);
        let asked = self.names.asked.get(&name);
        if is_ignored || asked.is_some_and(|at| now.mono.since(*at) < ASK_AGAIN) {
            return;
        }
        self.names
            .asked
            .retain(|_, at| now.mono.since(*at) < ASK_AGAIN);
        self.names.asked.insert(name.clone(), now.mono);
        self.probe(now, &name, false, out);
    }

    /// Whoever was read as a replica of this name is read again: its source has a name of its own.
    pub(super) fn read_replicas_of(&mut self, now: Now, name: &InstanceKey, out: &mut Output) {
        for replica in self.observed.edges.replicas_of(name).clone() {
            self.probe(now, &replica, true, out);
        }
    }

    fn has_report(&self, key: &InstanceKey) -> bool {
        let instance = self.observed.instances.get(key);
        instance.is_some_and(|instance| instance.report.is_some())
    }

    fn own_name_of_source(
        &self,
        replica: &InstanceKey,
        status: &ReplicaStatus,
    ) -> Option<InstanceKey> {
        if let Some(own) = self.names.own.get(&status.source)
            && self.is_source(own, status)
        {
            return Some(own.clone());
        }
        if !status.source_uuid.is_empty() {
            let uuid = Identity(status.source_uuid.clone());
            let observed = self.observed.instances.values();
            let mut known = observed.filter(|instance| instance.identity() == Some(&uuid));
            if let Some(instance) = known.next() {
                return Some(instance.key.clone());
            }
        }
        let record = self.replicated.cluster_of(replica)?;
        let identity = record.identity.as_ref()?;
        let is_recorded = if status.source_uuid.is_empty() {
            status.source_server_id != 0
                && identity
                    .0
                    .starts_with(&format!("{}@", status.source_server_id))
        } else {
            identity.0 == status.source_uuid
        };
        (is_recorded && record.primary != *replica).then(|| record.primary.clone())
    }

    /// Who a server is that no daemon could read, by what its replicas say of their source, if they agree. MariaDB's identity holds
    /// the name that a server gives itself: where replicas are known by theirs, so is their source.
    pub(super) fn identity_by_replicas(&self, source: &InstanceKey) -> Option<Identity> {
        let replicas = self.observed.edges.replicas_of(source);
        let said = replicas.iter().filter_map(|replica| {
            let report = self.observed.instances.get(replica)?.report.as_ref()?;
            let status = report.replication.as_ref()?;
            if !status.source_uuid.is_empty() {
                return Some(Identity(status.source_uuid.clone()));
            }
            let is_named_so = report.identity.0 == format!("{}@{replica}", report.server_id);
            (is_named_so && status.source_server_id != 0)
                .then(|| Identity(format!("{}@{source}", status.source_server_id)))
        });
        let distinct: BTreeSet<Identity> = said.collect();
        let mut distinct = distinct.into_iter();
        distinct.next().filter(|_| distinct.next().is_none())
    }

    /// Whether a replica's source can be this server: a name may have come to another one meanwhile.
    fn is_source(&self, own: &InstanceKey, status: &ReplicaStatus) -> bool {
        let instance = self.observed.instances.get(own);
        let Some(report) = instance.and_then(|instance| instance.report.as_ref()) else {
            return self.replicated.is_known(own);
        };
        if status.source_uuid.is_empty() {
            status.source_server_id == 0 || status.source_server_id == report.server_id
        } else {
            report.identity.0 == status.source_uuid
        }
    }
}
