//! Judging: signs become opinions, opinions of a majority become a verdict, and a verdict of the leader opens a
//! recovery. Reading the replicas again is part of it; nothing here changes a server.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::time::Duration;

use super::{
    Cause, Effect, Level, Node, Opinion, OpinionKind, Output, PeerMessage, Sign, Suspicion, note,
};
use crate::{
    analysis::{
        code::Repair,
        diagnose::{Hints, diagnose},
        evidence::Judging,
        verdict::{LOGIN_POLLS_MAX, ReplicaSigns, Verdict, Watched, verdict},
    },
    id::{InstanceKey, NodeId, Uid},
    recovery::{DeadKind, Purpose, kind::unknown_kind},
    replicated::{Command, Detection},
    time::{Mono, Now},
    topology::{Instance, ProbeFailure, ThreadState},
};

/// How often a server whose pulse is broken is dialled.
const REDIAL: Duration = Duration::from_millis(250);
/// The same while it matters (`FAILOVER.md` section 2).
const REDIAL_URGENT: Duration = Duration::from_millis(50);
/// An old primary is dialled without pause for so long after the promotion.
pub(super) const DIAL_AFTER_PROMOTION: Duration = Duration::from_secs(600);
/// Replicas of a suspect are read again so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The other daemons are asked again so often.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// A replica that cannot be read within this time of the suspicion is counted without being read.
const REPLICA_PATIENCE: Duration = Duration::from_secs(1);
/// The same of a member of its cluster that this process could not read so far: it may answer by now, and a machine that is gone
/// does not hold a verdict up for long.
const NEVER_READ_PATIENCE: Duration = Duration::from_millis(250);
/// A running replica that received something, or a heartbeat, after the suspicion began proves its source's life for so
/// long: longer than the silence after which the source would be judged.
const GROWTH_COUNTS: Duration = Duration::from_secs(5);
/// A receiver notices that its source died within a tenth of this time (F11). One that is seen running later, while its
/// source refuses every dial, is attached to one that is being stopped (F12).
const RUNS_ON: Duration = Duration::from_secs(1);
/// A verdict that opened nothing is acted on again after this time.
pub(super) const VERDICT_AGAIN: Duration = Duration::from_secs(5);
/// A daemon that was not heard for so long abstains; it is asked more often than that.
const OPINION_FRESH: Duration = Duration::from_secs(1);
/// A suspicion that is older than this is followed at a tenth of the pace.
const SUSPICION_OLD: Duration = Duration::from_secs(30);
/// An opinion that was sent before our own suspicion by no more than this may be about the same event.
const OPINION_SLACK: Duration = Duration::from_millis(500);
/// Late timers make evidence worthless for so long.
const LATE_FOR: Duration = Duration::from_secs(3);

impl Node {
    pub(super) fn ran_late(&mut self, now: Now, out: &mut Output) {
        self.late_at = Some(now.mono);
        note(
            out,
            Level::Warning,
            None,
            String::from(
                "timers of this process ran late by more than 500 ms; it abstains from judging for 3 s",
            ),
        );
    }

    /// Whether this daemon's evidence may be used against a server.
    pub(super) fn is_credible(&self, now: Mono) -> bool {
        if self.late_at.is_some_and(|at| now.since(at) < LATE_FOR) {
            return false;
        }
        if self.failing_since.is_empty() {
            return true;
        }
        // Lost is what this process read before: a server that it never saw says nothing of its network.
        let window = self.policy().poll * 2;
        let read = |instance: &&Instance| instance.report.is_some();
        let total = self.observed.instances.values().filter(read).count();
        let lost = self
            .failing_since
            .iter()
            .filter(|(_, since)| now.since(**since) < window)
            .filter_map(|(key, _)| self.observed.instances.get(key))
            .filter(read)
            .count();
        lost * 2 <= total || total < 2
    }

    pub(super) fn signed(&mut self, now: Now, key: &InstanceKey, sign: &Sign, out: &mut Output) {
        let Some(watched) = self.watched.get_mut(key) else {
            return;
        };
        if watched.sign(now.mono, sign) {
            note(
                out,
                Level::Warning,
                None,
                format!("another server answers at {key}: its evidence starts anew"),
            );
            self.told.remove(key);
        }
        let deposed = match sign {
            Sign::PulseUp(identity) | Sign::DialAnswered(identity) => {
                self.replicated.is_deposed(identity)
            }
            Sign::PulseBeat
            | Sign::PulseClosed
            | Sign::PulseShutdown
            | Sign::PulseLate
            | Sign::PulseSilent
            | Sign::DialRefused
            | Sign::DialUnreachable
            | Sign::DialNoLogin
            | Sign::DialError(_) => false,
        };
        if deposed {
            // First contact: read at once, so that the quarantine sees it.
            self.probe(now, key, true, out);
            self.house_at = now.mono;
        }
        self.judge(now, key, out);
    }

    pub(super) fn peer_said(
        &mut self,
        now: Now,
        from: NodeId,
        message: PeerMessage,
        out: &mut Output,
    ) {
        match message {
            PeerMessage::Opinions(opinions) => {
                for opinion in opinions.into_iter().take(crate::limits::INSTANCES_MAX) {
                    let key = opinion.key.clone();
                    let is_alive = opinion.kind == OpinionKind::Alive;
                    if !self.watched.contains_key(&key) {
                        continue;
                    }
                    self.heard
                        .entry(key.clone())
                        .or_default()
                        .insert(from, (opinion, now.mono));
                    if is_alive {
                        self.wake_recovery_of(now, &key);
                    }
                    self.judge(now, &key, out);
                }
            }
            PeerMessage::AskOpinion(key) => {
                let opinion = self.own_opinion(now, &key);
                out.effects.push(Effect::TellOne(
                    from,
                    PeerMessage::Opinions(alloc::vec![opinion]),
                ));
            }
            PeerMessage::Digest { at, digest } => self.digest_heard(from, at, digest, out),
            PeerMessage::Propose(word) => self.propose_for(now, from, word, out),
        }
    }

    fn own_opinion(&self, now: Now, key: &InstanceKey) -> Opinion {
        let watched = self.watched.get(key);
        let kind = self.opinion_of(now.mono, key);
        Opinion {
            key: key.clone(),
            identity: watched.and_then(|watched| watched.identity.clone()),
            kind: kind.unwrap_or(OpinionKind::Abstain),
            life_ms_ago: watched
                .and_then(Watched::last_life)
                .map(|at| u64::try_from(now.mono.since(at).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// It is on record that this daemon could log in to the primary that is missing.
    pub(super) fn is_vouched_for(&self, key: &InstanceKey) -> bool {
        let answered = self
            .watched
            .get(key)
            .and_then(|watched| watched.identity.as_ref());
        self.replicated.cluster_of(key).is_some_and(|record| {
            record.primary == *key
                && record.witnesses.contains(&self.raft.node)
                && answered.is_none_or(|identity| record.identity.as_ref() == Some(identity))
        })
    }

    /// Keeps pulse and fence connections to every server that has replicas, and to primaries deposed lately.
    pub(super) fn keep_watches(&mut self, now: Now, out: &mut Output) {
        self.dialled_until.retain(|_, until| *until > now.mono);
        let is_resting = self.is_resting(now.mono);
        let poll = self.policy().poll;
        let wanted: BTreeSet<InstanceKey> = self
            .observed
            .edges
            .iter()
            .map(|(key, _)| key.clone())
            .chain(self.dialled_until.keys().cloned())
            // Also when all of its replicas are pointed elsewhere already: it may come back.
            .chain(
                self.replicated
                    .running()
                    .map(|recovery| recovery.server.clone()),
            )
            .filter(|key| !is_resting && self.observed.instances.contains_key(key))
            .collect();
        let ended: Vec<InstanceKey> = self
            .watched
            .keys()
            .filter(|key| !wanted.contains(*key))
            .cloned()
            .collect();
        for key in ended {
            self.watched.remove(&key);
            self.watching.remove(&key);
            self.suspicions.remove(&key);
            self.heard.remove(&key);
            self.told.remove(&key);
            out.effects.push(Effect::Unwatch { key });
        }
        for key in wanted {
            let mut fresh = false;
            self.watched.entry(key.clone()).or_insert_with(|| {
                fresh = true;
                Watched::default()
            });
            if fresh
                && let Some(instance) = self.observed.instances.get(&key)
                && let Some(identity) = instance.identity().cloned()
                && instance.is_last_check_valid()
                && let Some(seen) = instance.seen
                && now.mono.since(seen) <= poll * LOGIN_POLLS_MAX
                && let Some(watched) = self.watched.get_mut(&key)
            {
                // What the probe saw counts as a login.
                watched.probed(seen, &identity);
            }
            let urgent =
                self.suspicions.contains_key(&key) || self.dialled_until.contains_key(&key);
            self.watch(&key, if urgent { REDIAL_URGENT } else { REDIAL }, out);
        }
    }

    fn watch(&mut self, key: &InstanceKey, redial: Duration, out: &mut Output) {
        if self.watching.insert(key.clone(), redial) != Some(redial) {
            out.effects.push(Effect::Watch {
                key: key.clone(),
                redial,
            });
        }
    }

    pub(super) fn judge_all(&mut self, now: Now, out: &mut Output) {
        let keys: Vec<InstanceKey> = self.suspicions.keys().cloned().collect();
        for key in keys {
            self.judge(now, &key, out);
        }
    }

    pub(super) fn next_judgement(&self) -> Option<Mono> {
        self.suspicions
            .iter()
            .map(|(key, suspicion)| {
                let by_look = suspicion.looked + paced(suspicion, suspicion.judged, LOOK_INTERVAL);
                let by_sign = self
                    .watched
                    .get(key)
                    .and_then(|watched| watched.next_change(self.policy()));
                let by_sign = by_sign.filter(|at| *at > suspicion.judged);
                by_sign.map_or(by_look, |at| at.min(by_look))
            })
            .min()
    }

    fn judge(&mut self, now: Now, key: &InstanceKey, out: &mut Output) {
        let opinion = self.own_opinion(now, key);
        let kind = opinion.kind;
        let before = self.told.insert(key.clone(), kind);
        if before != Some(kind) {
            if before.is_some() || !matches!(kind, OpinionKind::Alive | OpinionKind::Abstain) {
                note(
                    out,
                    Level::Info,
                    None,
                    format!("{key} is thought {kind} here"),
                );
            }
            out.effects
                .push(Effect::Tell(PeerMessage::Opinions(alloc::vec![opinion])));
        }
        match kind {
            OpinionKind::Alive => {
                if self.suspicions.remove(key).is_some() {
                    self.wake_recovery_of(now, key);
                    self.cleared(now, key, out);
                }
                return;
            }
            OpinionKind::Abstain => {
                // Looked at again in a while: whether this daemon may judge changes by time.
                if let Some(suspicion) = self.suspicions.get_mut(key) {
                    suspicion.looked = now.mono;
                    suspicion.judged = now.mono;
                }
                return;
            }
            OpinionKind::Suspect
            | OpinionKind::Gone
            | OpinionKind::Leaving
            | OpinionKind::Silent => {}
        }
        if !self.suspicions.contains_key(key) {
            let since = self
                .watched
                .get(key)
                .and_then(Watched::missing_since)
                .unwrap_or(now.mono);
            self.suspicions.insert(
                key.clone(),
                Suspicion {
                    since,
                    looked: Mono::ZERO,
                    judged: now.mono,
                    asked: None,
                    received: BTreeMap::new(),
                    ran_on: false,
                    again: Mono::ZERO,
                    is_held_up: false,
                    verdicts: 0,
                    failures: 0,
                    uid: None,
                },
            );
            self.watch(key, REDIAL_URGENT, out);
            self.probe(now, key, true, out);
        }
        if let Some(suspicion) = self.suspicions.get_mut(key) {
            suspicion.judged = now.mono;
        }
        let signs = self.replica_signs(now, key, out);
        if self.leading().is_none() {
            return;
        }
        let Some(suspicion) = self.suspicions.get(key) else {
            return;
        };
        let since = suspicion.since;
        if suspicion
            .asked
            .is_none_or(|at| now.mono.since(at) >= paced(suspicion, now.mono, ASK_INTERVAL))
        {
            if let Some(suspicion) = self.suspicions.get_mut(key) {
                suspicion.asked = Some(now.mono);
            }
            out.effects
                .push(Effect::Tell(PeerMessage::AskOpinion(key.clone())));
        }
        let mut opinions: BTreeMap<NodeId, OpinionKind> = BTreeMap::new();
        let own_identity = self
            .watched
            .get(key)
            .and_then(|watched| watched.identity.clone());
        for (node, (opinion, at)) in self.heard.get(key).into_iter().flatten() {
            let about_the_same = opinion.identity.is_none()
                || own_identity.is_none()
                || opinion.identity == own_identity;
            // Silence is abstention, whatever was said before it.
            let heard_lately = now.mono.since(*at) <= OPINION_FRESH;
            let fresh = if opinion.kind == OpinionKind::Alive {
                life_of(opinion, *at).is_some_and(|life| life > since)
            } else {
                *at + OPINION_SLACK >= since
            };
            if about_the_same && heard_lately && fresh {
                opinions.insert(*node, opinion.kind);
            }
        }
        opinions.insert(self.raft.node, kind);
        let suspected = now.mono.since(since);
        let verdict = verdict(
            &opinions,
            &self.raft.voters,
            signs,
            suspected,
            self.policy(),
        );
        if let Verdict::Dead(kind) = verdict
            && self.suspicions.get(key).is_some_and(|suspicion| {
                now.mono >= suspicion.again || (suspicion.is_held_up && self.is_admitted(now, key))
            })
        {
            if let Some(suspicion) = self.suspicions.get_mut(key) {
                suspicion.again = now.mono + VERDICT_AGAIN;
                suspicion.is_held_up = false;
            }
            self.declare_dead(now, key, kind, &opinions, signs, out);
        }
    }

    /// The recovery of this server is thought over again at once.
    fn wake_recovery_of(&mut self, now: Now, key: &InstanceKey) {
        let uid = self
            .replicated
            .running()
            .find(|recovery| recovery.server == *key)
            .map(|recovery| recovery.uid.clone());
        if let Some(uid) = uid {
            self.wait_until.insert(uid, now.mono);
        }
    }

    /// A suspect gave a sign of life.
    fn cleared(&mut self, now: Now, key: &InstanceKey, out: &mut Output) {
        note(out, Level::Info, None, format!("{key} gave a sign of life"));
        let replicas: Vec<InstanceKey> = self
            .observed
            .edges
            .replicas_of(key)
            .iter()
            .cloned()
            .collect();
        for replica in replicas {
            self.observed.standing_still.remove(&replica);
        }
        if !self.dialled_until.contains_key(key) {
            self.watch(key, REDIAL, out);
        }
        self.probe(now, key, true, out);
        self.refresh(now, key, None);
    }

    /// Reads the replicas of a suspect again, and counts what they show.
    fn replica_signs(&mut self, now: Now, key: &InstanceKey, out: &mut Output) -> ReplicaSigns {
        let replicas: Vec<InstanceKey> = self
            .observed
            .edges
            .replicas_of(key)
            .iter()
            .cloned()
            .collect();
        let Some(mut suspicion) = self.suspicions.remove(key) else {
            return ReplicaSigns::default();
        };
        let refused = self.watched.get(key).and_then(Watched::refused_since);
        let mut signs = ReplicaSigns::default();
        let mut look: Vec<InstanceKey> = Vec::new();
        for replica in &replicas {
            let Some(instance) = self.observed.instances.get(replica) else {
                continue;
            };
            let read = instance.seen.is_some_and(|seen| seen >= suspicion.since);
            let failed = instance
                .checked
                .is_some_and(|checked| checked >= suspicion.since)
                && !instance.is_last_check_valid();
            if failed {
                signs.read += 1;
                continue;
            }
            if !read {
                if now.mono.since(suspicion.since) >= REPLICA_PATIENCE {
                    signs.read += 1;
                } else {
                    signs.unread += 1;
                    look.push(replica.clone());
                }
                continue;
            }
            signs.read += 1;
            let status = instance
                .report
                .as_ref()
                .and_then(|report| report.replication.as_ref());
            let received = received_mark(instance);
            let seen = instance.seen.unwrap_or(now.mono);
            let mark = suspicion
                .received
                .entry(replica.clone())
                .or_insert((received, suspicion.since));
            if mark.0 != received {
                *mark = (received, seen);
            }
            if status.is_some_and(|status| status.io == ThreadState::Running) {
                signs.io_running += 1;
                let runs_on = refused.is_some_and(|refused| seen >= refused + RUNS_ON);
                if runs_on && !suspicion.ran_on {
                    suspicion.ran_on = true;
                    note(
                        out,
                        Level::Warning,
                        None,
                        format!(
                            "{key} refuses every dial, and {replica} is still attached to it: that is an orderly stop; if it is \
                             not back within {} s, it counts as dead",
                            self.policy().planned_stop_patience.as_secs()
                        ),
                    );
                }
                // Growth counts while it is fresh: what lay in buffers when the primary died still trickles in.
                if mark.1 > suspicion.since && now.mono.since(mark.1) < GROWTH_COUNTS {
                    signs.io_growing += 1;
                }
                look.push(replica.clone());
            }
        }
        self.look_at_members(now, key, suspicion.since, &mut signs, &mut look);
        signs.ran_on = suspicion.ran_on;
        if now.mono.since(suspicion.looked) >= paced(&suspicion, now.mono, LOOK_INTERVAL) {
            suspicion.looked = now.mono;
            self.suspicions.insert(key.clone(), suspicion);
            for replica in look {
                self.probe(now, &replica, true, out);
            }
        } else {
            self.suspicions.insert(key.clone(), suspicion);
        }
        signs
    }

    /// Members of the cluster that are not known to replicate from the suspect may have been attached a moment ago, or were not
    /// read since this process started: each is read once. So is one that stood alone when it was read last, and is recorded as
    /// having left the cluster since.
    fn look_at_members(
        &self,
        now: Now,
        key: &InstanceKey,
        since: Mono,
        signs: &mut ReplicaSigns,
        look: &mut Vec<InstanceKey>,
    ) {
        let record = self.replicated.cluster_of(key);
        let Some(record) = record.filter(|record| record.primary == *key) else {
            return;
        };
        let left = self
            .replicated
            .clusters()
            .filter(|other| other.split_from == Some(record.key) && other.members.len() == 1);
        let replicas = self.observed.edges.replicas_of(key);
        for member in left.chain([record]).flat_map(|cluster| &cluster.members) {
            if member == key || replicas.contains(member) {
                continue;
            }
            let Some(instance) = self.observed.instances.get(member) else {
                continue;
            };
            if instance.checked.is_some_and(|checked| checked >= since) {
                continue;
            }
            let patience = if instance.is_last_check_valid() {
                REPLICA_PATIENCE
            } else if instance.report.is_none() {
                NEVER_READ_PATIENCE
            } else {
                Duration::ZERO
            };
            if now.mono.since(since) < patience {
                signs.unread += 1;
            }
            if instance.attempted.is_none_or(|attempted| attempted < since) {
                look.push(member.clone());
            }
        }
    }

    /// It was deposed, and either has not lived since or heads nothing.
    fn is_no_news(&self, key: &InstanceKey) -> bool {
        let instance = self.observed.instances.get(key);
        instance
            .and_then(Instance::identity)
            .filter(|identity| self.replicated.is_deposed(identity))
            .is_some_and(|identity| {
                let has_lived = self
                    .watched
                    .get(key)
                    .and_then(Watched::last_life)
                    .is_some_and(|life| life > self.learned.deposed_since(identity));
                !has_lived || self.observed.edges.replicas_of(key).is_empty()
            })
    }

    /// The leader found a primary dead: the row says so, the code is computed, and a recovery is asked for.
    fn declare_dead(
        &mut self,
        now: Now,
        key: &InstanceKey,
        kind: DeadKind,
        opinions: &BTreeMap<NodeId, OpinionKind>,
        signs: ReplicaSigns,
        out: &mut Output,
    ) {
        let Some(epoch) = self.leading() else { return };
        // What is being repaired, or was replaced already, is no news.
        let is_repaired = self
            .replicated
            .running()
            .any(|recovery| recovery.server == *key && recovery.purpose.is_recovery());
        if is_repaired || self.is_no_news(key) {
            return;
        }
        let uid = self.next_uid(epoch, now.wall);
        let level = match self.suspicions.get_mut(key) {
            Some(suspicion) => {
                suspicion.uid = Some(uid.clone());
                suspicion.verdicts = suspicion.verdicts.saturating_add(1);
                if suspicion.verdicts == 1 {
                    Level::Warning
                } else {
                    Level::Debug
                }
            }
            None => Level::Warning,
        };
        // An error that it gave while it lived says nothing any more.
        if let Some(instance) = self.observed.instances.get_mut(key)
            && (instance.is_last_check_valid()
                || instance
                    .failure
                    .as_ref()
                    .is_some_and(ProbeFailure::proves_life))
        {
            instance.checked = Some(now.mono);
            instance.checked_at = now.wall;
            instance.partial_success = false;
            instance.failure = Some(match kind {
                DeadKind::Gone => ProbeFailure::Refused,
                DeadKind::Silent => ProbeFailure::NoLogin,
            });
            self.failing_since.entry(key.clone()).or_insert(now.mono);
        }
        if kind == DeadKind::Silent {
            let still: Vec<InstanceKey> = self
                .observed
                .edges
                .replicas_of(key)
                .iter()
                .cloned()
                .collect();
            self.observed.standing_still.extend(still);
        }
        self.refresh(now, key, None);
        let dead = opinions
            .values()
            .filter(|kind| matches!(kind, OpinionKind::Gone | OpinionKind::Silent))
            .count();
        let Some(problem) = self.problem_of(now, key) else {
            note(
                out,
                level,
                Some(&uid),
                format!("{key} is dead ({kind}), but analysis finds no problem"),
            );
            return;
        };
        note(
            out,
            level,
            Some(&uid),
            format!(
                "{key} is dead ({kind}): {dead} of {} daemons agree, {} replica(s) read, {} with a running IO thread; analysis {}",
                self.raft.voters.len(),
                signs.read,
                signs.io_running,
                problem.code.name(),
            ),
        );
        if problem.repair != Repair::DeadPrimary {
            self.register_detection(now, &problem, out);
            return;
        }
        if self.beginning.contains(key) {
            return;
        }
        if let Err(why) = self.admit(key, &problem) {
            self.register_detection(now, &problem, out);
            note(out, level, Some(&uid), format!("{key}: no recovery: {why}"));
            if let Some(suspicion) = self.suspicions.get_mut(key) {
                suspicion.is_held_up = true;
            }
            return;
        }
        let identity = self
            .observed
            .instances
            .get(key)
            .and_then(Instance::identity)
            .cloned()
            .or_else(|| self.identity_by_replicas(key));
        let command = Command::BeginRecovery {
            uid: uid.clone(),
            purpose: Purpose::DeadPrimary { kind },
            epoch,
            server: key.clone(),
            identity,
            cluster_name: problem.cluster.name.clone(),
            analysis: String::from(problem.code.name()),
            replicas: problem.replicas.clone(),
            processing_node: self.identification.host_name.clone(),
            processing_token: self.identification.token.clone(),
            forced: false,
            was_read_only: self.was_closed_by_people(key),
        };
        let is_proposed = match self.unregistered_detection(now, &problem) {
            None => self.propose(now, Cause::Begin(key.clone(), uid), command, out),
            Some(detection) => {
                let cause = Cause::Detection {
                    key: key.clone(),
                    uid,
                    begin: Box::new(command),
                };
                self.propose(now, cause, detection, out)
            }
        };
        if is_proposed {
            self.beginning.insert(key.clone());
        }
    }

    /// The detection that a recovery waited for is on record, or cannot be.
    pub(super) fn detection_proposed(
        &mut self,
        now: Now,
        key: &InstanceKey,
        uid: Uid,
        begin: Command,
        is_committed: bool,
        out: &mut Output,
    ) {
        let goes_on = is_committed && self.suspicions.contains_key(key);
        if !goes_on || !self.propose(now, Cause::Begin(key.clone(), uid), begin, out) {
            self.beginning.remove(key);
        }
    }

    fn problem_of(
        &self,
        now: Now,
        key: &InstanceKey,
    ) -> Option<crate::analysis::diagnose::Problem> {
        let context = self.context(now);
        diagnose(
            key,
            self.view(),
            Judging {
                policy: self.policy(),
                filters: &self.filters,
                context: &context,
                now,
            },
            Hints {
                include_downtimed: true,
                ..Hints::default()
            },
        )
    }

    /// Whether a recovery that was held up may begin by now.
    fn is_admitted(&self, now: Now, key: &InstanceKey) -> bool {
        self.problem_of(now, key)
            .is_some_and(|problem| self.admit(key, &problem).is_ok())
    }

    /// Whether a recovery may begin by itself; apply decides on what is replicated (cool-down, the global stop, a
    /// recovery that runs).
    fn admit(
        &self,
        key: &InstanceKey,
        problem: &crate::analysis::diagnose::Problem,
    ) -> Result<(), String> {
        let policy = self.policy();
        if policy.observe_only {
            return Err(String::from("ObserveOnly is set"));
        }
        let Some(instance) = self.observed.instances.get(key) else {
            return Err(String::from("it is not known"));
        };
        // Before the downtime, which its recovery began.
        if let Some(identity) = instance.identity()
            && self.replicated.is_deposed(identity)
        {
            return Err(String::from(
                "it was deposed; its cluster has another primary",
            ));
        }
        if !problem.cluster.recovers_primary {
            return Err(format!(
                "cluster {} matches no RecoverMasterClusterFilters",
                problem.cluster.name
            ));
        }
        if problem.is_skippable {
            return Err(String::from("it is in a downtime"));
        }
        let replicas = problem.replicas.iter().filter_map(|replica| {
            let instance = self.observed.instances.get(replica)?;
            Some((replica, instance.report.as_deref()?))
        });
        match unknown_kind((key, instance.report.as_deref()), replicas) {
            Some(unknown) => Err(unknown),
            None => Ok(()),
        }
    }

    /// Registers a failure, once while it lasts.
    pub(super) fn register_detection(
        &mut self,
        now: Now,
        problem: &crate::analysis::diagnose::Problem,
        out: &mut Output,
    ) {
        if let Some(detection) = self.unregistered_detection(now, problem) {
            self.propose(now, Cause::House, detection, out);
        }
    }

    /// The command that registers a failure, unless that is on record.
    fn unregistered_detection(
        &self,
        now: Now,
        problem: &crate::analysis::diagnose::Problem,
    ) -> Option<Command> {
        let actionable = problem.is_actionable();
        let known = self
            .replicated
            .active_detection(&problem.key, problem.code.name(), actionable, now.wall)
            .is_some();
        if known || !problem.registers_detection() {
            return None;
        }
        Some(Command::RegisterDetection(Detection {
            number: 0,
            server: problem.key.clone(),
            analysis: String::from(problem.code.name()),
            cluster_name: problem.cluster.name.clone(),
            cluster_alias: problem.cluster.alias.clone(),
            replicas: problem.replicas.clone(),
            is_actionable: actionable,
            processing_node: self.identification.host_name.clone(),
            processing_token: self.identification.token.clone(),
            at: now.wall,
            is_active: true,
            telling: self.first_telling(),
        }))
    }
}

/// When a daemon last had a sign of life of a server, by the opinion that was heard of it at `heard`.
pub(super) fn life_of(opinion: &Opinion, heard: Mono) -> Option<Mono> {
    opinion
        .life_ms_ago
        .map(|ago| heard - Duration::from_millis(ago))
}

/// An old suspicion is no emergency any more.
fn paced(suspicion: &Suspicion, at: Mono, interval: Duration) -> Duration {
    if at.since(suspicion.since) > SUSPICION_OLD {
        interval * 10
    } else {
        interval
    }
}

/// Grows with what a replica received and the heartbeats it counted.
fn received_mark(instance: &Instance) -> u64 {
    instance
        .report
        .as_ref()
        .and_then(|report| report.replication.as_ref())
        .map_or(0, |status| {
            let received = status
                .received
                .as_ref()
                .map_or(0, crate::gtid::GtidSet::count);
            received
                .wrapping_mul(31)
                .wrapping_add(status.read.position)
                .wrapping_mul(31)
                .wrapping_add(status.heartbeats_received.unwrap_or(0))
        })
}
