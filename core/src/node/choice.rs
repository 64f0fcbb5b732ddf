//! Whether people chose a deposed primary again: the recorded primary, or most servers of the cluster, were pointed at it
//! and replicate from it (`FAILOVER.md` section 5).
//!
//! Replication from the deposed one alone says nothing: what the recovery left behind, or never reached, goes on with it
//! when it returns, and so does a server that a restart makes follow the source that its settings still name. So a server
//! counts only if its settings named somebody else, or nobody, after the recovery: since then nothing but people has made
//! it name the deposed one. This daemon saw that, or the record of the recovery says so. Whoever does not answer, or was
//! read too long ago, speaks for nobody.
//!
//! Never acts on a server; holds no opinion of what people ought to choose.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::time::Duration;

use super::{Level, Node, Output, note};
use crate::{
    id::{Identity, InstanceKey, Uid},
    recovery::{Outcome, Phase, Statement},
    replicated::{ClusterRecord, Deposed},
    time::Now,
    topology::Instance,
};

/// A reading that began longer ago than so many polls is out of date.
const FRESH_POLLS: u32 = 2;
/// A recorded primary that did not answer for so long has no voice; before, it counts as one that was not moved.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// What this daemon saw of clusters that have a deposed primary.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Members that did not name it as their source when they were read after the recovery that deposed it.
    apart: BTreeMap<Identity, (Uid, BTreeSet<InstanceKey>)>,
    /// Those that have replicas, of which this leader has told.
    told: BTreeSet<Identity>,
}

impl Node {
    /// Every daemon keeps in mind which servers were apart from a deposed primary: each may lead tomorrow.
    pub(super) fn watch_choices(&mut self) {
        let mut apart = core::mem::take(&mut self.choices.apart);
        apart.retain(|identity, (by, _)| {
            self.replicated
                .deposed_of(identity)
                .is_some_and(|row| row.by == *by)
        });
        for (identity, row) in self.replicated.deposed() {
            let Some(record) = self.replicated.cluster(row.cluster) else {
                continue;
            };
            let (_, seen) = apart
                .entry(identity.clone())
                .or_insert_with(|| (row.by.clone(), BTreeSet::new()));
            for key in &record.members {
                if *key == row.key || seen.contains(key) {
                    continue;
                }
                let is_apart = self.observed.instances.get(key).is_some_and(|instance| {
                    self.is_read_since_deposed(instance, identity)
                        && instance.configured_source() != Some(&row.key)
                });
                if is_apart {
                    seen.insert(key.clone());
                }
            }
        }
        self.choices.apart = apart;
    }

    /// Why a deposed primary that answers is taken for people's choice; nothing if it is not.
    pub(super) fn chosen(
        &self,
        now: Now,
        identity: &Identity,
        row: &Deposed,
        record: &ClusterRecord,
    ) -> Option<String> {
        // What is being repaired is in nobody's hands.
        if self.beginning.contains(&record.primary) {
            return None;
        }
        self.chosen_by(now, identity, row, record, |instance| {
            self.is_fresh(now, identity, row, instance)
        })
    }

    /// The same by the readings that `counts` admits.
    fn chosen_by(
        &self,
        now: Now,
        identity: &Identity,
        row: &Deposed,
        record: &ClusterRecord,
        counts: impl Fn(&Instance) -> bool,
    ) -> Option<String> {
        let is_head = self
            .observed
            .instances
            .get(&row.key)
            // What replicates from another server is nobody's primary.
            .is_some_and(|instance| counts(instance) && instance.place.root == row.key);
        if !is_head || record.primary == row.key {
            return None;
        }
        let follows = |key: &InstanceKey| self.was_pointed(identity, row, key, &counts);
        if follows(&record.primary) {
            return Some(format!(
                "people chose it: {} replicates from it",
                record.primary
            ));
        }
        let is_silent = self.is_credible(now.mono)
            && self
                .failing_since
                .get(&record.primary)
                .is_some_and(|since| now.mono.since(*since) >= SILENT_AFTER);
        let voters = || {
            record
                .members
                .iter()
                .filter(|key| **key != row.key && !(is_silent && **key == record.primary))
        };
        let all = voters().count();
        let there = voters().filter(|key| follows(key)).count();
        (there * 2 > all).then(|| {
            format!("people chose it: {there} of {all} servers of its cluster replicate from it")
        })
    }

    /// It replicates from the deposed primary, perhaps through others, and people have pointed at that one whichever names
    /// it.
    fn was_pointed(
        &self,
        identity: &Identity,
        row: &Deposed,
        key: &InstanceKey,
        counts: &impl Fn(&Instance) -> bool,
    ) -> bool {
        let mut passed = BTreeSet::new();
        let mut at = key;
        while passed.insert(at) {
            let Some(instance) = self.observed.instances.get(at) else {
                return false;
            };
            let is_running = instance
                .report
                .as_ref()
                .and_then(|report| report.replication.as_ref())
                .is_some_and(crate::topology::ReplicaStatus::is_running);
            let Some(source) = instance.source().filter(|_| is_running) else {
                return false;
            };
            if !counts(instance) {
                return false;
            }
            if *source == row.key {
                return self.was_apart(identity, row, at);
            }
            at = source;
        }
        false
    }

    /// Its settings named somebody else, or nobody, at some time since the recovery that deposed that primary.
    pub(super) fn was_apart(&self, identity: &Identity, row: &Deposed, key: &InstanceKey) -> bool {
        let was_seen = self
            .choices
            .apart
            .get(identity)
            .is_some_and(|(_, seen)| seen.contains(key));
        let is_on_record = || {
            let recovery = self.replicated.recovery(&row.by);
            recovery.is_some_and(|recovery| {
                recovery.steps.values().any(|(step, phase)| {
                    step.server == *key
                        && *phase == Phase::Settled(Outcome::Done)
                        && step.statements.iter().any(|statement| {
                            matches!(
                                statement,
                                Statement::ChangeSource { .. } | Statement::ResetReplicaAll
                            )
                        })
                })
            })
        };
        was_seen || is_on_record()
    }

    /// It was read after everything that was decided of its cluster, and lately.
    fn is_fresh(&self, now: Now, identity: &Identity, row: &Deposed, instance: &Instance) -> bool {
        self.is_read_since_deposed(instance, identity)
            && instance.seen > self.learned.settled_since(row.cluster)
            && self.is_lately_read(now, instance)
    }

    fn is_lately_read(&self, now: Now, instance: &Instance) -> bool {
        instance
            .seen
            .is_some_and(|seen| now.mono.since(seen) <= self.policy().poll * FRESH_POLLS)
    }

    /// The servers that are to be read before anybody can say that people did not choose the deposed primary: those that
    /// were not read yet, or lately, because this daemon was started or found its quorum a moment ago; and all of which
    /// the last reading is out of date, if by these it would be chosen.
    pub(super) fn to_be_read_first(
        &self,
        now: Now,
        identity: &Identity,
        row: &Deposed,
        record: &ClusterRecord,
    ) -> Vec<InstanceKey> {
        let is_perhaps_chosen = self
            .chosen_by(now, identity, row, record, Instance::is_last_check_valid)
            .is_some();
        let is_missing = |instance: &Instance| {
            instance.checked.is_none()
                || (instance.is_last_check_valid()
                    && if is_perhaps_chosen {
                        !self.is_fresh(now, identity, row, instance)
                    } else {
                        !self.is_lately_read(now, instance)
                    })
        };
        record
            .members
            .iter()
            .filter(|key| self.observed.instances.get(*key).is_some_and(is_missing))
            .cloned()
            .collect()
    }

    /// Says once, when it begins, that servers replicate from a deposed primary: nothing protects them.
    pub(super) fn tell_unprotected(&mut self, out: &mut Output) {
        let mut told = BTreeSet::new();
        for (identity, row) in self.replicated.deposed() {
            let Some(problem) = self.diagnosis.problem(&row.key) else {
                continue;
            };
            let Some(primary) = problem
                .evidence
                .replaced_by
                .as_ref()
                .filter(|_| problem.evidence.is_followed_though_replaced())
            else {
                continue;
            };
            if !self.choices.told.contains(identity) {
                let (key, count) = (&row.key, problem.evidence.replicating_replicas);
                note(
                    out,
                    Level::Warning,
                    Some(&row.by),
                    format!(
                        "{key} is not protected, though {count} server(s) replicate from it: {primary} was made the primary in \
                         its place; it counts again when {primary} or most servers of the cluster were pointed at it, or when \
                         it is released (release-deposed)"
                    ),
                );
            }
            told.insert(identity.clone());
        }
        self.choices.told = told;
    }

    pub(super) fn forget_told_choices(&mut self) {
        self.choices.told.clear();
    }
}
