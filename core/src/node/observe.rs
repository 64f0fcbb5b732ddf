//! Probing: which server is read when, and what a reading changes.

use alloc::{format, string::ToString, sync::Arc, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use super::{
    Cause, Effect, Level, Node, Output, ProbeEnd, Proposal, Reply, Report, RequestId, note,
    repair::unknown, restart::UPTIME_SLACK_S,
};
use crate::{
    id::{ClusterKey, InstanceKey},
    limits,
    replicated::{Answer, Change, ClusterRecord, Command},
    time::{Mono, Now},
    topology::{Instance, ProbeFailure, ThreadState, ThroughFence, place},
};

/// A probe that its adapter did not end by then is forgotten: the adapter's own deadlines are far shorter.
const PROBE_LOST: Duration = Duration::from_secs(60);
/// A daemon without a quorum reads servers for so long.
const RESTS_AFTER: Duration = Duration::from_secs(30);

/// Whether a reading makes its server seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopt {
    /// Only a server that is known.
    IfKnown,
    /// Also one that is about to become known.
    Yes,
}

impl Node {
    /// A server is to be probed from now on.
    pub(super) fn know(&mut self, now: Now, rng: &mut impl Rng, key: &InstanceKey) {
        if self.observed.instances.len() >= limits::INSTANCES_MAX || !key.is_valid() {
            return;
        }
        if !self.observed.instances.contains_key(key) {
            self.observed
                .instances
                .insert(key.clone(), Instance::new(key.clone(), now));
            self.place(now, key);
        }
        if !self.due_of.contains_key(key) {
            // The first polls of a fleet are spread, so that they do not come in a burst each period.
            let spread = if self.due_of.len() < 16 {
                0
            } else {
                rng.next_u64() % nanos(self.policy().poll).max(1)
            };
            self.schedule(key, now.mono + Duration::from_nanos(spread));
        }
    }

    pub(super) fn forget(&mut self, now: Now, key: &InstanceKey, out: &mut Output) {
        if self.observed.instances.remove(key).is_none() {
            return;
        }
        let former = self.observed.edges.update(key, None);
        self.unschedule(key);
        if !self.discovering.contains_key(key) {
            self.in_flight.remove(key);
        }
        self.again.remove(key);
        self.watched.remove(key);
        self.watching.remove(key);
        self.suspicions.remove(key);
        self.heard.remove(key);
        self.told.remove(key);
        self.failing_since.remove(key);
        self.observed.standing_still.remove(key);
        self.refresh(now, key, former.as_ref());
        out.effects.push(Effect::Drop { key: key.clone() });
    }

    fn schedule(&mut self, key: &InstanceKey, at: Mono) {
        self.unschedule(key);
        self.due.insert((at, key.clone()));
        self.due_of.insert(key.clone(), at);
    }

    fn unschedule(&mut self, key: &InstanceKey) {
        if let Some(at) = self.due_of.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    /// Without a quorum nothing that is read serves anybody: after a while the servers are left in peace.
    pub(super) fn is_resting(&self, now: Mono) -> bool {
        self.alone_since
            .is_some_and(|since| now.since(since) >= RESTS_AFTER)
    }

    /// Everything is read at once when the quorum is found again.
    pub(super) fn quorum_changed(&mut self, now: Now, out: &mut Output) {
        if !self.raft.healthy {
            self.alone_since.get_or_insert(now.mono);
            return;
        }
        if self.is_resting(now.mono) {
            let text = "a quorum is found again: servers are read again".to_string();
            note(out, Level::Info, None, text);
            let keys: Vec<InstanceKey> = self.due_of.keys().cloned().collect();
            for key in keys {
                self.schedule(&key, now.mono);
            }
            self.house_at = now.mono;
        }
        self.alone_since = None;
    }

    pub(super) fn probe_due(&mut self, now: Now, _rng: &mut impl Rng, out: &mut Output) {
        let is_resting = self.is_resting(now.mono);
        while let Some((at, key)) = self.due.first().cloned() {
            if at > now.mono {
                break;
            }
            let poll = self.policy().poll;
            self.schedule(&key, now.mono + poll);
            if !is_resting {
                self.probe(now, &key, false, out);
            }
        }
    }

    /// Reads a server, unless a reading is on its way. An urgent one that finds another on its way is repeated after it.
    pub(super) fn probe(&mut self, now: Now, key: &InstanceKey, urgent: bool, out: &mut Output) {
        if let Some(began) = self.in_flight.get(key)
            && now.mono.since(*began) < PROBE_LOST
        {
            if urgent {
                self.again.insert(key.clone());
            }
            return;
        }
        self.in_flight.insert(key.clone(), now.mono);
        if let Some(instance) = self.observed.instances.get_mut(key) {
            instance.attempted = Some(now.mono);
        }
        out.effects.push(Effect::Probe {
            key: key.clone(),
            urgent,
        });
    }

    pub(super) fn probed(&mut self, now: Now, end: ProbeEnd, out: &mut Output) {
        let ProbeEnd {
            key,
            began,
            result,
            partial_success,
        } = end;
        self.in_flight.remove(&key);
        if self.again.remove(&key) {
            self.probe(now, &key, true, out);
        }
        let waiting = self.discovering.remove(&key).unwrap_or_default();
        // What an operator asked for is shown at once, and known as soon as the command is committed.
        let adopt = if waiting.iter().any(|(_, by_operator)| *by_operator) {
            Adopt::Yes
        } else {
            Adopt::IfKnown
        };
        match result {
            Ok(report) => {
                let self_key = if report.self_key.is_valid() {
                    report.self_key.clone()
                } else {
                    key.clone()
                };
                // What an alias led to is filed under the server's own name.
                if self_key == key {
                    self.seen(now, &key, began, report, adopt, out);
                } else {
                    self.alias(now, &key, &self_key, began, report, adopt, out);
                }
                self.discovered(now, &self_key, waiting, out);
            }
            Err(failure) => {
                self.failed(now, &key, began, &failure, partial_success, out);
                for (request, _) in waiting {
                    out.effects
                        .push(Effect::Answer(request, Reply::ProbeFailed(failure.clone())));
                }
            }
        }
        self.drop_unobserved(&key, out);
    }

    /// Nothing is kept to a name that did not become that of a server: an alias, or one that was asked for and is not known.
    fn drop_unobserved(&self, key: &InstanceKey, out: &mut Output) {
        let is_in_use = self.observed.instances.contains_key(key)
            || self.in_flight.contains_key(key)
            || self.discovering.contains_key(key)
            || self
                .replicated
                .running()
                .any(|recovery| recovery.involves(key));
        if !is_in_use {
            out.effects.push(Effect::Drop { key: key.clone() });
        }
    }

    /// A reading of a server, however it came.
    pub(super) fn seen(
        &mut self,
        now: Now,
        key: &InstanceKey,
        began: Mono,
        report: Report,
        adopt: Adopt,
        out: &mut Output,
    ) {
        if !self.observed.instances.contains_key(key) {
            let may_add = adopt == Adopt::Yes
                && self.observed.instances.len() < limits::INSTANCES_MAX
                && key.is_valid();
            if self.replicated.is_known(key) || may_add {
                self.observed
                    .instances
                    .insert(key.clone(), Instance::new(key.clone(), now));
            } else {
                return;
            }
        }
        let mut report = report;
        self.name_source(now, key, &mut report, out);
        let report: Arc<crate::topology::ProbeReport> = Arc::from(report);
        let identity = report.identity.clone();
        let former_source = {
            let Some(instance) = self.observed.instances.get_mut(key) else {
                return;
            };
            // A reading on its way may be overtaken by the one after a step: what it says is older.
            if instance.seen.is_some_and(|seen| seen > began)
                && instance.identity() == Some(&identity)
            {
                return;
            }
            if instance.failure.is_some() {
                note(out, Level::Info, None, format!("{key} answers again"));
            }
            if let Some(known) = instance.identity()
                && *known != identity
            {
                note(
                    out,
                    Level::Warning,
                    None,
                    format!("another server answers at {key}: {identity} instead of {known}"),
                );
            }
            if let Some(before) = &instance.report
                && before.identity == identity
            {
                let between = instance.seen.map_or(0, |seen| began.since(seen).as_secs());
                let restarted =
                    report.uptime_s + UPTIME_SLACK_S < before.uptime_s.saturating_add(between);
                if restarted {
                    note(out, Level::Warning, None, format!("{key} was restarted"));
                }
            }
            let lacked = instance
                .report
                .as_ref()
                .map(|before| &before.missing_privileges);
            if !report.missing_privileges.is_empty() && lacked != Some(&report.missing_privileges) {
                for missing in &report.missing_privileges {
                    let text = format!(
                        "{key}: our account lacks a right needed to {}: {}",
                        missing.purpose, missing.grant
                    );
                    note(out, Level::Warning, None, text);
                }
            }
            // Told of one server, since it is the same on all: it is a choice, and no fault.
            if let ThroughFence::Unknown { grant } = &report.through_fence
                && !core::mem::replace(&mut self.is_told_of_fences, true)
            {
                let text = format!(
                    "{key}: whether clients could write through its fence is not known: {grant} (optional, on every server that is \
                     like this one)"
                );
                note(out, Level::Info, None, text);
            }
            for refusal in report.refusals() {
                let was_told = instance
                    .report
                    .as_ref()
                    .is_some_and(|before| before.refusals().any(|told| told == refusal));
                if !was_told {
                    note(out, Level::Warning, None, format!("{key}: {refusal}"));
                }
            }
            instance.report = Some(report.clone());
            // What a reading says was true when it began, at the earliest.
            instance.seen = Some(began);
            instance.checked = Some(began);
            instance.seen_at = now.wall;
            instance.checked_at = now.wall;
            instance.partial_success = true;
            instance.failure = None;
            self.join(key)
        };
        self.failing_since.remove(key);
        if self.observed.standing_still.contains(key) && former_source.is_some() {
            self.observed.standing_still.remove(key);
        }
        if let Some(watched) = self.watched.get_mut(key)
            && watched.probed(now.mono, &identity)
        {
            self.told.remove(key);
        }
        // It is closed by the next round of housekeeping, and clients may be writing there.
        if !report.read_only && self.replicated.is_deposed(&identity) {
            self.house_at = now.mono;
        }
        self.place(now, key);
        self.refresh(now, key, former_source.as_ref());
        self.follow(now, &report, out);
    }

    /// Puts a server below the source that it replicates from. Returns the source that it had before if that was another.
    fn join(&mut self, key: &InstanceKey) -> Option<InstanceKey> {
        let left_source = self
            .observed
            .instances
            .get(key)
            .is_some_and(|instance| self.has_left_its_source(instance));
        let instance = self.observed.instances.get_mut(key)?;
        instance.left_source = left_source;
        self.observed.edges.update(key, instance.source())
    }

    /// A recovery made it the primary in the place of the source that its settings name. Whoever replicates from that one
    /// again was put there by people.
    fn has_left_its_source(&self, instance: &Instance) -> bool {
        instance.io() != ThreadState::Running
            && instance.configured_source().is_some_and(|source| {
                self.replicated
                    .cluster_of(&instance.key)
                    .filter(|record| {
                        record.primary == instance.key
                            && record.identity.as_ref() == instance.identity()
                    })
                    .is_some_and(|record| {
                        self.replicated
                            .deposed_at(source)
                            .any(|(_, row)| row.cluster == record.key)
                    })
            })
    }

    /// A change of what is recorded of clusters changes what is observed: their primaries may stand elsewhere, and another
    /// primary than before may be the one beside whom a deposed one takes writes.
    pub(super) fn follow_record(&mut self, now: Now, change: &Change) {
        match change {
            Change::Cluster(key, _) => {
                self.place_primary(now, *key);
                let rows = self.replicated.deposed();
                let deposed: Vec<InstanceKey> = rows
                    .filter(|(_, row)| row.cluster == *key)
                    .map(|(_, row)| row.key.clone())
                    .collect();
                self.refresh_all(now, &deposed);
            }
            Change::Deposed(identity, row) => {
                if let Some(row) = row {
                    self.place_primary(now, row.cluster);
                }
                let instances = self.observed.instances.values();
                let known_as: Vec<InstanceKey> = instances
                    .filter(|instance| instance.identity() == Some(identity))
                    .map(|instance| instance.key.clone())
                    .collect();
                self.refresh_all(now, &known_as);
            }
            _ => {}
        }
    }

    fn refresh_all(&mut self, now: Now, keys: &[InstanceKey]) {
        for key in keys {
            self.refresh(now, key, None);
        }
    }

    /// The primary of a cluster heads it, whatever source it was left with: by what is recorded, which has changed.
    pub(super) fn place_primary(&mut self, now: Now, cluster: ClusterKey) {
        let Some(record) = self.replicated.cluster(cluster) else {
            return;
        };
        let key = record.primary.clone();
        if let Some(instance) = self.observed.instances.get(&key)
            && instance.left_source != self.has_left_its_source(instance)
        {
            let former_source = self.join(&key);
            self.place(now, &key);
            self.refresh(now, &key, former_source.as_ref());
        }
    }

    fn failed(
        &mut self,
        now: Now,
        key: &InstanceKey,
        began: Mono,
        failure: &ProbeFailure,
        partial_success: bool,
        out: &mut Output,
    ) {
        let Some(instance) = self.observed.instances.get_mut(key) else {
            return;
        };
        if instance.failure.is_none() {
            note(
                out,
                Level::Info,
                None,
                format!("{key} cannot be read: {failure}"),
            );
        }
        // A reading that began later may have brought facts over another connection.
        if instance.seen.is_none_or(|seen| seen < began) {
            instance.checked = Some(now.mono.max(began));
            instance.checked_at = now.wall;
            instance.partial_success = partial_success;
            instance.failure = Some(failure.clone());
            self.failing_since.entry(key.clone()).or_insert(now.mono);
        }
        if *failure == ProbeFailure::Closed
            && let Some(watched) = self.watched.get_mut(key)
        {
            watched.probe_closed(now.mono);
        }
        if failure.proves_life()
            && let Some(watched) = self.watched.get_mut(key)
            && let ProbeFailure::ServerError { code, .. } = failure
        {
            watched.sign(now.mono, &super::Sign::DialError(*code));
        }
        self.refresh(now, key, None);
    }

    /// A server answered at a name that is not its own: the reading is filed under its own name, and the other name is
    /// given up.
    fn alias(
        &mut self,
        now: Now,
        alias: &InstanceKey,
        self_key: &InstanceKey,
        began: Mono,
        report: Report,
        adopt: Adopt,
        out: &mut Output,
    ) {
        if self.answered_at(alias, self_key) {
            note(
                out,
                Level::Info,
                None,
                format!("{alias} calls itself {self_key}"),
            );
        }
        let mut adopt = adopt;
        if self.leading().is_some() {
            if !self.replicated.is_known(self_key) && self.may_know(now, self_key) {
                adopt = Adopt::Yes;
                self.propose(
                    now,
                    Cause::House,
                    Command::Know {
                        keys: alloc::vec![self_key.clone()],
                        by_operator: false,
                    },
                    out,
                );
            }
            if self.replicated.is_known(alias) {
                self.propose(
                    now,
                    Cause::House,
                    Command::Forget {
                        keys: alloc::vec![alias.clone()],
                    },
                    out,
                );
            }
        }
        self.seen(now, self_key, began, report, adopt, out);
        self.read_replicas_of(now, alias, out);
    }

    /// Gives up what the adapters or raft never told the end of, and servers that were adopted and never became known.
    pub(super) fn drop_lost(&mut self, now: Now, out: &mut Output) {
        let lost: Vec<_> = self
            .proposals
            .iter()
            .filter(|(_, (_, at))| now.mono.since(*at) >= super::PROPOSAL_LOST)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.proposed(now, id, super::Proposal::Unknown, out);
        }
        let lost: Vec<InstanceKey> = self
            .in_flight
            .iter()
            .filter(|(_, began)| now.mono.since(**began) >= PROBE_LOST)
            .map(|(key, _)| key.clone())
            .collect();
        for key in lost {
            self.in_flight.remove(&key);
            self.again.remove(&key);
            for (request, _) in self.discovering.remove(&key).unwrap_or_default() {
                out.effects.push(Effect::Answer(
                    request,
                    Reply::ProbeFailed(ProbeFailure::Stalled),
                ));
            }
        }
        if self.observed.instances.len() > self.replicated.known_count() {
            let strangers: Vec<InstanceKey> = self
                .observed
                .instances
                .values()
                .filter(|instance| {
                    !self.replicated.is_known(&instance.key)
                        && now.mono.since(instance.known_since) >= PROBE_LOST
                })
                .map(|instance| instance.key.clone())
                .collect();
            for key in strangers {
                self.forget(now, &key, out);
            }
        }
    }

    /// Discovery: sources and replicas of what was read become known. The leader proposes them.
    fn follow(&mut self, now: Now, report: &crate::topology::ProbeReport, out: &mut Output) {
        if self.leading().is_none() {
            return;
        }
        let source = report.replication.as_ref().map(|status| &status.source);
        let keys: Vec<InstanceKey> = report
            .replicas
            .iter()
            .filter(|key| !self.filters.discovery_ignore_replica.matches_key(key))
            .chain(source.filter(|key| !self.filters.discovery_ignore_source.matches_key(key)))
            .filter(|key| self.may_know(now, key))
            .take(limits::KNOWN_PER_COMMAND_MAX)
            .cloned()
            .collect();
        if !keys.is_empty() {
            self.propose(
                now,
                Cause::House,
                Command::Know {
                    keys,
                    by_operator: false,
                },
                out,
            );
        }
    }

    /// What is proposed now is applied as of now: in a quiet log log time is behind.
    pub(super) fn may_know(&self, now: Now, key: &InstanceKey) -> bool {
        key.is_valid()
            && !self.replicated.is_known(key)
            && !self.replicated.is_forgotten(key, now.wall)
            && !self.filters.discovery_ignore.matches_key(key)
    }

    fn discovered(
        &mut self,
        now: Now,
        key: &InstanceKey,
        waiting: Vec<(RequestId, bool)>,
        out: &mut Output,
    ) {
        let is_known = self.replicated.is_known(key);
        let (to_be_known, refreshed): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, by_operator)| *by_operator && !is_known);
        for (request, _) in refreshed {
            out.effects
                .push(Effect::Answer(request, Reply::Probed(key.clone())));
        }
        if to_be_known.is_empty() {
            return;
        }
        // Whoever asked is answered when that is committed: this daemon may lead no more.
        let requests: Vec<RequestId> = to_be_known
            .into_iter()
            .map(|(request, _)| request)
            .collect();
        let command = Command::Know {
            keys: alloc::vec![key.clone()],
            by_operator: true,
        };
        let cause = Cause::Discover(key.clone(), requests.clone());
        if let Err(refusal) = self.try_propose(now, cause, command, out) {
            for request in requests {
                let refused = Reply::Refused(refusal.clone());
                out.effects.push(Effect::Answer(request, refused));
            }
        }
    }

    /// The server was read for these requests; this is what came of the command by which it is known.
    pub(super) fn discover_proposed(
        &self,
        key: &InstanceKey,
        requests: Vec<RequestId>,
        outcome: &Proposal,
        out: &mut Output,
    ) {
        let reply = match outcome {
            Proposal::Committed(Answer::Refused(refusal)) => Reply::Refused(refusal.clone()),
            Proposal::Committed(_) => {
                note(
                    out,
                    Level::Info,
                    None,
                    format!("{key} is known by an operator's discover"),
                );
                Reply::Probed(key.clone())
            }
            Proposal::Refused => Reply::NotLeading {
                leader: self.raft.leader,
            },
            Proposal::Unknown => unknown(),
        };
        for request in requests {
            out.effects.push(Effect::Answer(request, reply.clone()));
        }
    }

    /// The cluster that replaced this server as its primary, or the one that it names as its source and nobody knows.
    pub(super) fn cluster_that_deposed(&self, root: &InstanceKey) -> Option<&ClusterRecord> {
        let instance = self.observed.instances.get(root)?;
        let by_identity = instance
            .identity()
            .and_then(|identity| self.replicated.deposed_of(identity));
        let by_source = || {
            let source = instance.source()?;
            let is_unknown = !self.observed.instances.contains_key(source);
            let mut rows = self.replicated.deposed_at(source).filter(|_| is_unknown);
            rows.next().map(|(_, row)| row)
        };
        self.replicated
            .cluster(by_identity.or_else(by_source)?.cluster)
    }

    /// Computes the place of a server anew, and of those below it where it moved.
    pub(super) fn place(&mut self, now: Now, key: &InstanceKey) {
        let mut todo = alloc::vec![key.clone()];
        let mut done = alloc::collections::BTreeSet::new();
        while let Some(key) = todo.pop() {
            if !done.insert(key.clone()) {
                continue;
            }
            let mut place = place::place_of(&self.observed.instances, &key);
            // A deposed primary, with what was lost with it, is no cluster of its own.
            if let Some(record) = self.cluster_that_deposed(&place.root) {
                place.cluster_name = record.name.clone();
            }
            let Some(instance) = self.observed.instances.get_mut(&key) else {
                continue;
            };
            if instance.place == place {
                continue;
            }
            let moved = instance.place.root != place.root
                || instance.place.cluster_name != place.cluster_name;
            instance.place = place;
            if moved {
                todo.extend(self.observed.edges.replicas_of(&key).iter().cloned());
            }
            self.refresh(now, &key, None);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
