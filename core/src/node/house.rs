//! What the leader looks after twice a second: the policy in force, clusters and their names, detections, the
//! quarantine of deposed primaries, and servers long unseen.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};

use core::time::Duration;

use super::{Cause, Effect, Level, Node, OpinionKind, Output, PeerMessage, note, restart::Fence};
use crate::{
    analysis::{diagnose::Problem, verdict::Watched},
    id::{Identity, InstanceKey, NodeId},
    policy::DeposedAction,
    recovery::{
        Purpose,
        dead_primary::{self, Ready},
    },
    replicated::{ClusterRecord, Command, Deposed},
    time::{Now, Wall},
    topology::Instance,
};

/// Most proposals one round makes.
pub(super) const PROPOSALS_PER_ROUND: usize = 32;
/// Log time moves only with commands: in a quiet log one without content is written so often.
const TICK: Duration = Duration::from_secs(60);
/// A clock that moves the log's time ahead by more than this is worth a word: every window is counted in it.
const LEAP: Duration = Duration::from_secs(3600);
/// A lost replica that could not be pointed at its primary is tried again after this time, which doubles so often.
const REJOIN_AGAIN: Duration = Duration::from_secs(5);
const REJOIN_DOUBLINGS: u32 = 5;
/// A deposed primary that could not be closed is tried again after this time, which doubles so often.
const FENCE_AGAIN: Duration = Duration::from_secs(1);
const FENCE_DOUBLINGS: u32 = 6;
/// A deposed primary that could not be closed so often is told of as one that is left open.
const FENCES_UNTOLD: u32 = 4;
/// A daemon without a sign of life of a server for so long cannot see it.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// How often the leader asks the others whether they see a server, and of how many servers at once.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const ASKED_PER_ROUND: usize = 32;
/// A primary that somebody saw alive within this time is well.
const WELL_FOR: Duration = Duration::from_secs(2);
/// For so long after a recovery a replica that it did not know of is looked for.
const OVERLOOKED_FOR: Duration = Duration::from_secs(600);
/// So long after a recovery its replicas may still be dialling their new source.
const REGROUPED_FOR: Duration = Duration::from_secs(10);

impl Node {
    pub(super) fn keep_house(&mut self, now: Now, out: &mut Output) {
        self.repaired_at
            .retain(|_, at| now.mono.since(*at) < REGROUPED_FOR);
        self.look_at_witnesses(now, out);
        self.watch_choices();
        self.tell_differing(now, out);
        if self.leading().is_none() {
            self.left_open.clear();
            self.forget_told_choices();
            return;
        }
        self.tell_left_open(now, out);
        self.tell_unprotected(out);
        // Nothing is proposed twice: what the last round proposed is waited for.
        if self
            .proposals
            .values()
            .any(|(cause, _)| *cause == Cause::House)
        {
            return;
        }
        let before = out.effects.len();
        self.tick(now, out);
        if *self.replicated.policy() != self.local_policy {
            self.propose(
                now,
                Cause::House,
                Command::SetPolicy(alloc::boxed::Box::new(self.local_policy.clone())),
                out,
            );
        }
        self.follow_known(now, out);
        self.record_clusters(now, out, before);
        self.register_detections(now, out, before);
        self.quarantine(now, out);
        self.keep_primaries_open(now, out, before);
        self.record_witnesses(now, out, before);
        self.end_lost_downtimes(now, out);
        self.rejoin_lost(now, out);
        self.start_left_halted(now, out);
        self.forget_unseen(now, out);
    }

    /// Who could agree on the death of each watched server, should it die: "n of m daemons can see this server". The
    /// leader asks the others now and then, lest what was lost on the way stands for ever.
    fn look_at_witnesses(&mut self, now: Now, out: &mut Output) {
        let voters = self.raft.voters.len();
        let mut partly_seen = BTreeMap::new();
        if voters > 1 {
            for key in self.watched.keys() {
                let seeing = self
                    .raft
                    .voters
                    .iter()
                    .filter(|voter| !self.is_blind(now, **voter, key))
                    .count();
                // What nobody sees is no matter of who sees it.
                if seeing > 0 && seeing < voters {
                    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                    partly_seen.insert(key.clone(), (count(seeing), count(voters)));
                }
            }
        }
        if partly_seen != self.partly_seen {
            let former = core::mem::replace(&mut self.partly_seen, partly_seen);
            let changed: Vec<InstanceKey> = former
                .keys()
                .chain(self.partly_seen.keys())
                .filter(|key| former.get(*key) != self.partly_seen.get(*key))
                .cloned()
                .collect();
            for key in changed {
                self.refresh(now, &key, None);
            }
        }
        if self.leading().is_none() {
            self.asked_about.clear();
            return;
        }
        let watched = &self.watched;
        self.asked_about.retain(|key, _| watched.contains_key(key));
        let due: Vec<InstanceKey> = watched
            .keys()
            .filter(|key| {
                self.asked_about
                    .get(*key)
                    .is_none_or(|at| now.mono.since(*at) >= ASK_AGAIN)
            })
            .take(ASKED_PER_ROUND)
            .cloned()
            .collect();
        for key in due {
            self.asked_about.insert(key.clone(), now.mono);
            out.effects.push(Effect::Tell(PeerMessage::AskOpinion(key)));
        }
    }

    /// A daemon says that it had no sign of life of the server for a while, or never had one. Of one that says nothing
    /// nothing is said.
    fn is_blind(&self, now: Now, voter: NodeId, key: &InstanceKey) -> bool {
        let (kind, life) = if voter == self.raft.node {
            let life = self.watched.get(key).and_then(Watched::last_life);
            (self.opinion_of(now.mono, key), life)
        } else {
            let heard = self.heard.get(key).and_then(|heard| heard.get(&voter));
            let life = heard.and_then(|(opinion, at)| super::judge::life_of(opinion, *at));
            (heard.map(|(opinion, _)| opinion.kind), life)
        };
        kind.is_some_and(|kind| kind != OpinionKind::Alive)
            && life.is_none_or(|life| now.mono.since(life) >= BLIND_AFTER)
    }

    /// Who can see a primary that is well. A daemon that is down loses nothing by it; one that says that it is blind does.
    fn record_witnesses(&mut self, now: Now, out: &mut Output, before: usize) {
        let mut commands = Vec::new();
        for record in self.replicated.clusters() {
            if commands.len() + out.effects.len() - before >= PROPOSALS_PER_ROUND {
                break;
            }
            let key = &record.primary;
            let Some(identity) = record.identity.clone() else {
                continue;
            };
            // When a voter last said that this very server is alive.
            let saw = |voter: &NodeId| {
                let (is_alive, meant, at) = if *voter == self.raft.node {
                    let watched = self.watched.get(key)?;
                    (watched.is_alive(), watched.identity.as_ref(), now.mono)
                } else {
                    let (opinion, at) = self.heard.get(key)?.get(voter)?;
                    let is_alive = opinion.kind == OpinionKind::Alive;
                    (is_alive, opinion.identity.as_ref(), *at)
                };
                (is_alive && meant == Some(&identity)).then_some(at)
            };
            let voters = self.raft.voters.iter();
            let is_well = voters
                .clone()
                .filter_map(saw)
                .any(|at| now.mono.since(at) <= WELL_FOR);
            if !is_well {
                continue;
            }
            let witnesses: BTreeSet<NodeId> = voters
                .filter(|voter| {
                    saw(voter).is_some()
                        || (record.witnesses.contains(*voter) && !self.is_blind(now, **voter, key))
                })
                .copied()
                .collect();
            if witnesses != record.witnesses {
                commands.push(Command::MarkWitnesses {
                    primary: key.clone(),
                    identity,
                    nodes: witnesses.into_iter().collect(),
                });
            }
        }
        for command in commands {
            self.propose(now, Cause::House, command, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Output) {
        let log_time = self.replicated.log_time();
        let behind = now.wall.since(log_time);
        if behind < TICK {
            return;
        }
        if behind >= LEAP && log_time != Wall::EPOCH {
            note(
                out,
                Level::Warning,
                None,
                format!(
                    "by this daemon's clock {} s have passed since the newest entry of the log ({log_time}): cool-downs, \
                     downtimes and the like end by the log's time, which moves ahead by as much",
                    behind.as_secs()
                ),
            );
        }
        self.propose(
            now,
            Cause::House,
            Command::Know {
                keys: Vec::new(),
                by_operator: false,
            },
            out,
        );
    }

    /// Sources and replicas that were read before this daemon led are proposed too.
    fn follow_known(&mut self, now: Now, out: &mut Output) {
        let mut keys: Vec<InstanceKey> = Vec::new();
        for instance in self.observed.instances.values() {
            let Some(report) = instance.report.as_ref() else {
                continue;
            };
            let source = report.replication.as_ref().map(|status| &status.source);
            let found = report
                .replicas
                .iter()
                .filter(|key| !self.filters.discovery_ignore_replica.matches_key(key))
                .chain(source.filter(|key| !self.filters.discovery_ignore_source.matches_key(key)));
            for key in found {
                if self.may_know(now, key) && !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
            if keys.len() >= crate::limits::KNOWN_PER_COMMAND_MAX {
                break;
            }
        }
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

    fn record_clusters(&mut self, now: Now, out: &mut Output, before: usize) {
        let mut members: BTreeMap<InstanceKey, Vec<InstanceKey>> = BTreeMap::new();
        for instance in self.observed.instances.values() {
            if instance.report.is_some() {
                members
                    .entry(instance.place.root.clone())
                    .or_default()
                    .push(instance.key.clone());
            }
        }
        let mut commands: Vec<Command> = Vec::new();
        for (root, members) in members {
            if commands.len() + out.effects.len() - before >= PROPOSALS_PER_ROUND {
                break;
            }
            let Some(instance) = self.observed.instances.get(&root) else {
                continue;
            };
            let identity = instance.identity().cloned();
            if self.cluster_that_deposed(&root).is_some()
                || identity
                    .as_ref()
                    .is_some_and(|identity| self.replicated.is_deposed(identity))
            {
                continue;
            }
            let record = self.replicated.cluster_of(&root);
            if record.is_some_and(|record| self.replicated.running_on(record.key).is_some()) {
                continue;
            }
            let is_current = record.is_some_and(|record| {
                record.primary == root
                    && (record.identity == identity || identity.is_none())
                    && members.iter().all(|member| record.members.contains(member))
            });
            // A lone server that is dead says nothing of who its cluster's primary is.
            if !is_current && instance.is_last_check_valid() {
                commands.push(Command::RecordCluster {
                    primary: root.clone(),
                    identity,
                    members,
                });
            }
            let Some(report) = instance.report.as_ref().filter(|_| is_current) else {
                continue;
            };
            let Some(record) = record else { continue };
            let alias = self.alias_of(&record.name, &instance.place.suggested_alias);
            if !alias.is_empty() && record.alias != alias {
                commands.push(Command::SetClusterAlias {
                    cluster_name: record.name.clone(),
                    alias,
                    by_operator: false,
                });
            }
            let domain = &report.classification.cluster_domain;
            if !domain.is_empty() && record.domain != *domain {
                commands.push(Command::SetClusterDomain {
                    cluster_name: record.name.clone(),
                    domain: domain.clone(),
                });
            }
        }
        for command in commands {
            self.propose(now, Cause::House, command, out);
        }
    }

    fn alias_of(&self, cluster_name: &str, suggested: &str) -> String {
        if !suggested.is_empty() {
            return suggested.to_string();
        }
        self.aliases
            .iter()
            .find(|(pattern, _)| pattern.is_match(cluster_name))
            .map(|(_, alias)| alias.clone())
            .unwrap_or_default()
    }

    fn register_detections(&mut self, now: Now, out: &mut Output, before: usize) {
        let problems: Vec<_> = self
            .diagnosis
            .problems()
            .filter(|problem| problem.registers_detection() && !problem.is_skippable)
            // A dead primary is detected by the verdict.
            .filter(|problem| problem.repair != crate::analysis::code::Repair::DeadPrimary)
            .filter(|problem| !self.is_of_our_doing(now, problem))
            .cloned()
            .collect();
        for problem in problems {
            if out.effects.len() - before >= PROPOSALS_PER_ROUND {
                return;
            }
            self.register_detection(now, &problem, out);
        }
    }

    /// Replicas that a recovery halts and points elsewhere do not replicate for a moment.
    fn is_of_our_doing(&self, now: Now, problem: &Problem) -> bool {
        let lies_with_replicas = problem.code.is_excused_by_replicas_downtime()
            || problem.repair == crate::analysis::code::Repair::LockedSemiSync;
        lies_with_replicas
            && self
                .replicated
                .cluster_of(&problem.key)
                .is_some_and(|record| {
                    let is_repaired = self
                        .replicated
                        .running_on(record.key)
                        .is_some_and(|recovery| recovery.purpose.is_recovery());
                    is_repaired
                        || self
                            .repaired_at
                            .get(&record.key)
                            .is_some_and(|at| now.mono.since(*at) < REGROUPED_FOR)
                })
    }

    /// Closes deposed primaries that are back, and lifts the mark of those that replicate cleanly or that people chose.
    fn quarantine(&mut self, now: Now, out: &mut Output) {
        let rows: Vec<(Identity, Deposed)> = self
            .replicated
            .deposed()
            .map(|(identity, row)| (identity.clone(), row.clone()))
            .collect();
        self.fenced_again
            .retain(|identity, _| self.replicated.is_deposed(identity));
        for (identity, row) in rows {
            let Some((instance, record)) = self.returned(&identity, &row) else {
                continue;
            };
            let Some(report) = instance.report.clone() else {
                continue;
            };
            let follows = report
                .replication
                .as_ref()
                .is_some_and(|status| status.source == record.primary && status.is_running());
            // Else the two would be each other's source, for a primary that will not forget it.
            let is_still_named =
                self.observed
                    .instances
                    .get(&record.primary)
                    .is_some_and(|primary| {
                        primary.left_source && primary.configured_source() == Some(&row.key)
                    });
            let fence = self.fence_of(now, &identity, &row, instance);
            let may_fence = self.may_change(record) && !self.is_left_to_people(now, &row);
            // An old setting may have it follow as soon as it starts, open to whoever still knows it as the primary.
            let fenced = self.fenced_again.get(&identity);
            let is_fenced_first = fence == Fence::Missing
                && may_fence
                && self.policy().deposed_action != DeposedAction::Report
                && fenced.is_none_or(|fenced| fenced.tries() < FENCES_UNTOLD);
            let is_clean = !is_still_named && instance.place.errant.is_empty();
            let reason = if follows && is_clean && !is_fenced_first {
                Some(format!("it replicates from {}", record.primary))
            } else {
                self.chosen(now, &identity, &row, record)
            };
            // That is no change of a server: it is recorded whether or not anything may be changed.
            if let Some(reason) = reason {
                self.propose(
                    now,
                    Cause::House,
                    Command::LiftQuarantine { identity, reason },
                    out,
                );
                continue;
            }
            if !may_fence || self.beginning.contains(&row.key) {
                continue;
            }
            match fence {
                Fence::Missing => {}
                // Opened by hand: told ([`Node::tell_left_open`]) and shown, not fought.
                Fence::Holds | Fence::OpenedByPeople => continue,
                Fence::Unrecorded => {
                    self.fenced_again.remove(&identity);
                    let command = Command::MarkFenced {
                        identity,
                        at_uptime_s: report.uptime_s,
                    };
                    self.propose(now, Cause::House, command, out);
                    continue;
                }
            }
            if self.policy().deposed_action == DeposedAction::Report {
                continue;
            }
            let fenced = self.fenced_again.get(&identity);
            if fenced.is_some_and(|fenced| !fenced.is_due(now.mono)) {
                continue;
            }
            let unread = self.to_be_read_first(now, &identity, &row, record);
            if !unread.is_empty() {
                for key in unread {
                    self.probe(now, &key, true, out);
                }
                continue;
            }
            let fenced = self.fenced_again.entry(identity.clone()).or_default();
            fenced.tried(now.mono, FENCE_AGAIN, FENCE_DOUBLINGS);
            note(
                out,
                Level::Warning,
                Some(&row.by),
                format!(
                    "{} is back and writeable, and was deposed: fencing it",
                    row.key
                ),
            );
            self.open(
                now,
                &row.key,
                Purpose::Quarantine {
                    deposed_by: row.by.clone(),
                },
                "",
                out,
            );
        }
    }

    /// A deposed primary that was read since this daemon knows that it was deposed, and its cluster, on which nothing is
    /// under way. This daemon's own clock tells: log time may be far ahead of every wall clock, for as long as one daemon's
    /// clock once was.
    fn returned(&self, identity: &Identity, row: &Deposed) -> Option<(&Instance, &ClusterRecord)> {
        let instance = self.observed.instances.get(&row.key)?;
        let is_read =
            instance.identity() == Some(identity) && self.is_read_since_deposed(instance, identity);
        let record = self.replicated.cluster(row.cluster)?;
        (is_read && self.replicated.running_on(record.key).is_none()).then_some((instance, record))
    }

    /// Whether a server was read since this daemon knows that the primary `deposed` was deposed.
    pub(super) fn is_read_since_deposed(&self, instance: &Instance, deposed: &Identity) -> bool {
        instance.is_last_check_valid()
            && instance
                .seen
                .is_some_and(|seen| seen > self.learned.deposed_since(deposed))
    }

    /// People began a downtime after it was deposed, or maintenance, under which no recovery would have begun.
    fn is_left_to_people(&self, now: Now, row: &Deposed) -> bool {
        self.replicated
            .downtime_of(&row.key, now.wall)
            .is_some_and(|downtime| !downtime.is_lost_in_recovery() && downtime.began > row.at)
            || self.replicated.maintenance_of(&row.key, now.wall).is_some()
    }

    /// Says once, when it begins, that a deposed primary takes writes and is not going to be closed: two servers of one
    /// cluster take writes until people end it.
    fn tell_left_open(&mut self, now: Now, out: &mut Output) {
        let is_only_reported = self.policy().deposed_action == DeposedAction::Report;
        let mut left_open = BTreeSet::new();
        for (identity, row) in self.replicated.deposed() {
            let Some((instance, record)) = self.returned(identity, row) else {
                // Of what is not seen nothing is known, nor while something is under way there.
                if self.left_open.contains(identity) {
                    left_open.insert(identity.clone());
                }
                continue;
            };
            let is_open = match self.fence_of(now, identity, row, instance) {
                Fence::Holds | Fence::Unrecorded => false,
                Fence::OpenedByPeople => true,
                Fence::Missing => {
                    let fenced = self.fenced_again.get(identity);
                    is_only_reported
                        || !self.may_change(record)
                        || self.is_left_to_people(now, row)
                        || fenced.is_some_and(|fenced| fenced.tries() >= FENCES_UNTOLD)
                }
            };
            if !is_open {
                continue;
            }
            if !self.left_open.contains(identity) {
                let (key, primary, name) = (&row.key, &record.primary, &record.name);
                note(
                    out,
                    Level::Error,
                    Some(&row.by),
                    format!(
                        "two writeable primaries in cluster {name}: {key} takes writes, though {primary} was made the \
                         primary in its place; set-read-only closes it"
                    ),
                );
            }
            left_open.insert(identity.clone());
        }
        self.left_open = left_open;
    }

    /// A server that was lost in a recovery, or took the place of one, and replicates from its cluster's primary is lost
    /// no more. Deposed ones have [`Node::quarantine`].
    fn end_lost_downtimes(&mut self, now: Now, out: &mut Output) {
        let keys: Vec<InstanceKey> = self
            .replicated
            .downtimes(now.wall)
            .filter(|(_, downtime)| downtime.is_lost_in_recovery())
            .filter(|(key, _)| {
                let Some(instance) = self.observed.instances.get(*key) else {
                    return false;
                };
                let status = instance
                    .report
                    .as_ref()
                    .and_then(|report| report.replication.as_ref());
                let primary = self
                    .replicated
                    .cluster_of(key)
                    .map(|record| &record.primary);
                instance.is_last_check_valid()
                    && status.is_some_and(|status| {
                        status.is_running() && Some(&status.source) == primary
                    })
                    && !instance
                        .identity()
                        .is_some_and(|identity| self.replicated.is_deposed(identity))
            })
            .map(|(key, _)| key.clone())
            .take(PROPOSALS_PER_ROUND)
            .collect();
        for key in keys {
            self.propose(now, Cause::House, Command::EndDowntime { key }, out);
        }
    }

    /// Replicas that were lost when their cluster was regrouped, or that no recovery knew of, and can follow its primary by
    /// now, are pointed at it. Those that people took care of are not lost any more.
    fn rejoin_lost(&mut self, now: Now, out: &mut Output) {
        let mut lost: BTreeMap<InstanceKey, &'static str> = self.overlooked(now);
        lost.extend(
            self.replicated
                .downtimes(now.wall)
                .filter(|(_, downtime)| downtime.is_lost_in_recovery())
                .map(|(key, _)| (key.clone(), "was lost in a recovery and answers again")),
        );
        self.rejoined.retain(|key, _| lost.contains_key(key));
        for (key, how) in lost {
            let rejoined = self.rejoined.get(&key);
            if rejoined.is_some_and(|rejoined| !rejoined.is_due(now.mono))
                || self.beginning.contains(&key)
            {
                continue;
            }
            let Some(primary) = self.may_rejoin(now, &key) else {
                continue;
            };
            let rejoined = self.rejoined.entry(key.clone()).or_default();
            rejoined.tried(now.mono, REJOIN_AGAIN, REJOIN_DOUBLINGS);
            note(
                out,
                Level::Warning,
                None,
                format!("{key} {how}: pointing it at {primary}"),
            );
            self.open(now, &key, Purpose::Rejoin { primary }, "", out);
        }
    }

    /// Members that name a deposed primary as their source ever since it was deposed, without being lost: they were attached to
    /// it a moment before, and the leader that recovered had not read that. Whom people pointed at it afterwards stays there, as
    /// does everybody when some time has passed.
    fn overlooked(&self, now: Now) -> BTreeMap<InstanceKey, &'static str> {
        let mut overlooked = BTreeMap::new();
        for (identity, row) in self.replicated.deposed() {
            let Some(record) = self.replicated.cluster(row.cluster) else {
                continue;
            };
            let lost = match self.replicated.recovery(&row.by) {
                Some(recovery) if recovery.is_successful() => &recovery.lost,
                Some(_) | None => continue,
            };
            if self.replicated.log_time().since(row.at) >= OVERLOOKED_FOR
                || self.is_left_to_people(now, row)
            {
                continue;
            }
            // Another server that was set up at its address is nobody's mistake.
            let is_replaced = self
                .observed
                .instances
                .get(&row.key)
                .and_then(Instance::identity)
                .is_some_and(|there| there != identity);
            if is_replaced {
                continue;
            }
            for key in &record.members {
                let names_it = self.observed.instances.get(key).is_some_and(|instance| {
                    self.is_read_since_deposed(instance, identity)
                        && instance.source() == Some(&row.key)
                });
                if names_it
                    && *key != row.key
                    && !lost.contains(key)
                    && !self.was_apart(identity, row, key)
                {
                    let how = "still names the deposed primary, which no recovery knew";
                    overlooked.insert(key.clone(), how);
                }
            }
        }
        overlooked
    }

    /// The primary that a lost replica can follow: the one that took the place of the source that it names.
    fn may_rejoin(&self, now: Now, key: &InstanceKey) -> Option<InstanceKey> {
        let instance = self.observed.instances.get(key)?;
        let former = instance.source()?;
        let (deposed, row) = self
            .replicated
            .deposed_at(former)
            .find(|(_, row)| self.replicated.cluster(row.cluster).is_some())?;
        let record = self.replicated.cluster(row.cluster)?;
        let is_fresh = self.is_read_since_deposed(instance, deposed);
        let is_deposed = instance
            .identity()
            .is_none_or(|identity| self.replicated.is_deposed(identity));
        let has_primary = self
            .observed
            .instances
            .get(&record.primary)
            .is_some_and(|primary| {
                primary.is_last_check_valid() && primary.identity() == record.identity.as_ref()
            });
        let is_in_downtime = self
            .replicated
            .downtime_of(key, now.wall)
            .is_some_and(|downtime| !downtime.is_lost_in_recovery());
        if !self.may_change(record)
            || is_in_downtime
            || self.replicated.maintenance_of(key, now.wall).is_some()
            || !is_fresh
            || is_deposed
            || !has_primary
            || record.primary == *key
            || self.replicated.running_on(record.key).is_some()
        {
            return None;
        }
        let recovery = self.replicated.recovery(&row.by)?;
        let view = self.planners_view(now, recovery);
        match dead_primary::repoint(&view, former, key, &record.primary) {
            Ready::Now(_) => Some(record.primary.clone()),
            // An applier that stands still would hold up the halt, too.
            Ready::Halt(_) if !instance.report.as_ref()?.has_unapplied() => {
                Some(record.primary.clone())
            }
            Ready::Halt(_) | Ready::Already | Ready::Later | Ready::Never(_) => None,
        }
    }

    pub(super) fn open(
        &mut self,
        now: Now,
        key: &InstanceKey,
        purpose: Purpose,
        variant: &str,
        out: &mut Output,
    ) {
        let Some(epoch) = self.leading() else { return };
        let Some(instance) = self.observed.instances.get(key) else {
            return;
        };
        let cluster_name = self.replicated.cluster_of(key).map_or_else(
            || instance.place.cluster_name.clone(),
            |record| record.name.clone(),
        );
        let command = Command::BeginRecovery {
            uid: crate::id::Uid::default(),
            purpose,
            epoch,
            server: key.clone(),
            identity: Instance::identity(instance).cloned(),
            cluster_name,
            analysis: variant.to_string(),
            replicas: Vec::new(),
            processing_node: self.identification.host_name.clone(),
            processing_token: self.identification.token.clone(),
            // What people do meanwhile is in its way: it is this program's own idea.
            forced: false,
            was_read_only: false,
        };
        self.beginning.insert(key.clone());
        // If it was not proposed, a note says why.
        let _ = self.begin(now, key, command, out);
    }

    /// A recovery or operation runs on its cluster.
    fn is_being_changed(&self, key: &InstanceKey) -> bool {
        let record = self.replicated.cluster_of(key);
        record.is_some_and(|record| self.replicated.running_on(record.key).is_some())
    }

    fn forget_unseen(&mut self, now: Now, out: &mut Output) {
        let limit = self.policy().unseen_forget;
        let keys: Vec<InstanceKey> = self
            .observed
            .instances
            .values()
            .filter(|instance| {
                let since = instance.seen.unwrap_or(instance.known_since);
                now.mono.since(since) > limit
                    && !instance.is_last_check_valid()
                    && self.replicated.is_known(&instance.key)
                    && !self.is_being_changed(&instance.key)
            })
            .map(|instance| instance.key.clone())
            .take(crate::limits::KNOWN_PER_COMMAND_MAX)
            .collect();
        if !keys.is_empty() {
            self.propose(now, Cause::House, Command::Forget { keys }, out);
        }
    }
}
