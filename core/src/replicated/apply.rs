//! How the replicated state changes: one committed command after another, in log order.
//!
//! Total and deterministic: no clock but log time, no randomness, no knowledge of which daemon this is; whatever a
//! command holds, the same answer and the same changes come out everywhere. A refused command changes nothing but log
//! time, the position and, for a refused recovery, the note that it was blocked.
//!
//! Three rules carry the safety of recoveries. Only an entry written in an epoch's own term may speak for that epoch
//! (`RAFT.md` section 5): a proposal that a deposed leader's successor happened to commit is void. Only the owner of a
//! recovery may change it, and ownership moves only to later epochs. `BeginRecovery` is the one gate: everything that
//! could let two recoveries act on one cluster, or one follow another too soon, is decided there.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use sha2::{Digest as _, Sha256};

use super::members::{ChangeCause, GivenUp, MemberChange, Members, Membership, Swap};
use super::{
    change::Change,
    command::{AckScope, Answer, Command, Detection, Refusal, Stamped},
    snapshot::SNAPSHOT_VERSION,
    state::{
        Blocked, Candidate, ClusterRecord, Declaration, Deposed, Downtime, Ending, Index, Known,
        LOST_IN_RECOVERY, Maintenance, Member, Protocols, Replicated, Sighting, Tag, Versions,
    },
};

use crate::{
    id::{ClusterKey, Epoch, Identity, InstanceKey, LogPosition, NodeId, Uid},
    limits::{
        AUDIT_ENTRIES_MAX, ERROR_TEXT_BYTES_MAX, INSTANCES_MAX, KNOWN_PER_COMMAND_MAX,
        STEPS_PER_RECOVERY_MAX, TAGS_PER_INSTANCE_MAX, TEXT_BYTES_MAX, WITNESSES_PER_CLUSTER_MAX,
        bounded,
    },
    recovery::{
        AuditLine, End, Outcome, Phase, Purpose, Recovery, Stage, Statement, Step, StepKind,
        Telling, document::Acknowledgement,
    },
    time::Wall,
};

mod adoption;
mod members;

/// Most rows of each kind that one command removes because their time is over.
const PURGES_PER_COMMAND_MAX: usize = 32;
/// Most daemons that are described, or may declare. Raft clusters have three or five.
const MEMBERS_MAX: usize = 64;
/// Most former primaries kept of a cluster.
const FORMER_PRIMARIES_MAX: usize = 32;
/// Who acknowledges what nobody did.
const OURSELVES: &str = "orchestrator";

/// What applying a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub answer: Answer,
    /// In the order in which they are to be written.
    pub changes: Vec<Change>,
}

impl Replicated {
    /// Applies a committed command. An entry at or before the newest applied position is ignored.
    pub fn apply(&mut self, at: LogPosition, stamped: &Stamped) -> Applied {
        if at.index <= self.applied.index {
            return Applied {
                answer: refuse(format!("entry {at} was applied already")),
                changes: Vec::new(),
            };
        }
        self.applied = at;
        self.time = self.time.max(stamped.wall);
        let mut application = Application {
            at,
            now: self.time,
            state: self,
            changes: Vec::new(),
        };
        let answer = application
            .decide(&stamped.command)
            .unwrap_or_else(Answer::Refused);
        application.purge();
        Applied {
            answer,
            changes: application.changes,
        }
    }

    /// Goes past an entry that holds no command of ours.
    pub fn pass(&mut self, at: LogPosition) {
        if at.index > self.applied.index {
            self.applied = at;
        }
    }
}

/// The rows of a cluster's record that differ.
pub(super) fn cluster_changes(
    old: Option<&Arc<ClusterRecord>>,
    new: Option<&Arc<ClusterRecord>>,
) -> Vec<Change> {
    let Some(key) = new.or(old).map(|record| record.key) else {
        return Vec::new();
    };
    let mut changes = vec![Change::Cluster(key, new.cloned())];
    let mut row = |text: fn(&ClusterRecord) -> &str,
                   change: fn(String, Option<String>) -> Change| {
        let side = |record: Option<&Arc<ClusterRecord>>| {
            record
                .map(|record| (record.name.clone(), text(record).to_string()))
                .filter(|(_, text)| !text.is_empty())
        };
        let (old, new) = (side(old), side(new));
        if old == new {
            return;
        }
        if let Some((name, _)) = old
            && new.as_ref().is_none_or(|(new, _)| *new != name)
        {
            changes.push(change(name, None));
        }
        if let Some((name, text)) = new {
            changes.push(change(name, Some(text)));
        }
    };
    row(ClusterRecord::shown_alias, |cluster_name, alias| {
        Change::ClusterAlias {
            cluster_name,
            alias,
        }
    });
    row(
        |record| &record.alias_override,
        |cluster_name, alias| Change::ClusterAliasOverride {
            cluster_name,
            alias,
        },
    );
    row(
        |record| &record.domain,
        |cluster_name, domain| Change::ClusterDomain {
            cluster_name,
            domain,
        },
    );
    changes
}

/// A recovery's audit lines from the `first`-th on.
pub(super) fn line_changes(recovery: &Recovery, first: usize) -> Vec<Change> {
    recovery
        .lines
        .iter()
        .enumerate()
        .skip(first)
        .map(|(index, line)| Change::RecoveryLine {
            uid: recovery.uid.clone(),
            number: recovery.number,
            index: index as u64,
            line: line.clone(),
        })
        .collect()
}

fn refuse(why: impl Into<String>) -> Answer {
    Answer::Refused(Refusal::Invalid(why.into()))
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::Invalid(why.into())
}

fn full(what: &str, limit: usize) -> Refusal {
    Refusal::Full {
        what: what.to_string(),
        limit: limit as u64,
    }
}

fn text(text: &str) -> String {
    bounded(text.to_string(), TEXT_BYTES_MAX)
}

fn check_key(key: &InstanceKey) -> Result<(), Refusal> {
    if key.is_valid() && key.host.len() <= crate::limits::HOST_NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(invalid(format!("{key} is not the address of a server")))
    }
}

type Decision = Result<Answer, Refusal>;

/// One command on its way in.
struct Application<'a> {
    state: &'a mut Replicated,
    at: LogPosition,
    /// Log time, this command's included.
    now: Wall,
    changes: Vec<Change>,
}

impl Application<'_> {
    fn decide(&mut self, command: &Command) -> Decision {
        match command {
            Command::Declare {
                node,
                entries,
                identities,
            } => self.declare(*node, entries, identities),
            Command::BeginMemberChange {
                epoch,
                base,
                wanted,
                cause,
            } => self.begin_member_change(*epoch, *base, wanted, cause),
            Command::EndMemberChange {
                epoch,
                base,
                reason,
            } => self.end_member_change(*epoch, *base, reason),
            Command::SetVersion { command, snapshot } => self.set_version(*command, *snapshot),
            Command::DescribeMember {
                node,
                raft_address,
                http_uri,
                host_name,
                build,
                reads_command,
                reads_snapshot,
                original,
            } => self.describe_member(
                *node,
                Member {
                    raft_address: text(raft_address),
                    http_uri: text(http_uri),
                    host_name: text(host_name),
                    build: text(build),
                    reads_command: *reads_command,
                    reads_snapshot: *reads_snapshot,
                    described: self.now,
                    original: *original,
                    protocols: None,
                },
            ),
            Command::DescribeProtocols { node, protocols } => {
                self.describe_protocols(*node, *protocols)
            }
            Command::Adopt {
                node,
                part,
                is_last,
                rows,
            } => self.adopt(*node, *part, *is_last, rows),
            Command::ChooseOriginal { node } => self.choose_original(*node),
            Command::SetPolicy(policy) => {
                self.state.is_policy_set = true;
                if *self.state.policy != **policy {
                    self.state.policy = Arc::new((**policy).clone());
                    self.changes
                        .push(Change::Policy(Arc::clone(&self.state.policy)));
                }
                Ok(Answer::Done)
            }
            Command::Know { keys, by_operator } => self.know(keys, *by_operator),
            Command::Forget { keys } => self.forget(keys),
            Command::RecordCluster {
                primary,
                identity,
                members,
            } => self.record_cluster(primary, identity.as_ref(), members),
            Command::SetClusterAlias {
                cluster_name,
                alias,
                by_operator,
            } => self.set_cluster_alias(cluster_name, alias, *by_operator),
            Command::SetClusterDomain {
                cluster_name,
                domain,
            } => {
                let mut record = self.cluster_named(cluster_name)?;
                record.domain = text(domain);
                self.put_cluster(record);
                Ok(Answer::Done)
            }
            Command::BeginDowntime {
                key,
                owner,
                reason,
                until,
            } => self.begin_downtime(key, owner, reason, *until),
            Command::EndDowntime { key } => {
                let held = self.state.downtime_of(key, self.now).is_some();
                self.put_downtime(key, None);
                Ok(Answer::Changed(u64::from(held)))
            }
            Command::BeginMaintenance {
                key,
                owner,
                reason,
                until,
            } => self.begin_maintenance(key, owner, reason, *until),
            Command::EndMaintenance { key } => {
                let held = self.state.maintenance_of(key, self.now).is_some();
                self.put_maintenance(key, None);
                Ok(Answer::Changed(u64::from(held)))
            }
            Command::RegisterCandidate { key, rule } => {
                check_key(key)?;
                if !self.state.candidates.contains(key)
                    && self.state.candidates.len() >= INSTANCES_MAX
                {
                    return Err(full("registered candidates", INSTANCES_MAX));
                }
                self.put_candidate(
                    key,
                    Some(Candidate {
                        rule: *rule,
                        at: self.now,
                    }),
                );
                Ok(Answer::Done)
            }
            Command::PutTag { key, name, value } => self.put_tag(key, name, value),
            Command::DeleteTag { key, name, value } => {
                self.delete_tag(key.as_ref(), name, value.as_deref())
            }
            Command::SetRecoveriesEnabled { enabled } => {
                let stopped = match (*enabled, self.state.stopped) {
                    (true, _) => None,
                    (false, None) => Some(self.now),
                    (false, since) => since,
                };
                if self.state.stopped != stopped {
                    self.state.stopped = stopped;
                    self.changes.push(Change::GlobalStop(stopped));
                }
                Ok(Answer::Done)
            }
            Command::RegisterDetection(detection) => self.register_detection(detection),
            Command::TellOfDetection {
                number,
                epoch,
                run,
                ended,
                next,
            } => self.tell_of_detection((*number, *run), *epoch, ended.as_ref(), *next),
            Command::BeginRecovery {
                uid,
                purpose,
                epoch,
                server,
                identity,
                cluster_name,
                analysis,
                replicas,
                processing_node,
                processing_token,
                forced,
                was_read_only,
            } => self.begin_recovery(Beginning {
                uid,
                purpose,
                epoch: *epoch,
                server,
                identity: identity.as_ref(),
                cluster_name,
                analysis,
                replicas,
                processing_node,
                processing_token,
                forced: *forced,
                was_read_only: *was_read_only,
            }),
            Command::TakeOver { uid, epoch } => self.take_over(uid, *epoch),
            Command::Intend {
                uid,
                epoch,
                stage,
                candidate,
                steps,
                ending,
                lines,
            } => self.intend(
                uid,
                *epoch,
                Intent {
                    stage: *stage,
                    candidate: candidate.as_ref(),
                    steps,
                    ending: ending.as_deref(),
                    lines,
                },
            ),
            Command::Settle {
                uid,
                epoch,
                outcomes,
                lines,
            } => self.settle(uid, *epoch, outcomes, lines),
            Command::Remark {
                uid,
                epoch,
                lines,
                errors,
                possible_loss,
            } => self.remark(uid, *epoch, lines, errors, possible_loss),
            Command::EndRecovery {
                uid,
                epoch,
                end,
                successor,
                successor_identity,
                successor_alias,
                lost,
                participants,
                lines,
            } => self.end_recovery(
                uid,
                *epoch,
                Ended {
                    end,
                    successor: successor.as_ref(),
                    successor_identity: successor_identity.as_ref(),
                    successor_alias,
                    lost,
                    participants,
                    lines,
                },
            ),
            Command::Acknowledge {
                scope,
                owner,
                comment,
            } => self.acknowledge(scope, owner, comment),
            Command::LiftQuarantine { identity, reason } => self.lift_quarantine(identity, reason),
            Command::MarkFenced {
                identity,
                at_uptime_s,
            } => {
                let mut row = self
                    .state
                    .deposed_of(identity)
                    .cloned()
                    .ok_or_else(|| Refusal::NotFound(format!("deposed primary {identity}")))?;
                row.fenced = Some(Sighting {
                    at: self.now,
                    uptime_s: *at_uptime_s,
                });
                self.put_deposed(identity, Some(row));
                Ok(Answer::Done)
            }
            Command::MarkPrimary {
                primary,
                identity,
                writeable_at_uptime_s,
            } => self.mark_primary(primary, identity, *writeable_at_uptime_s),
            Command::MarkWitnesses {
                primary,
                identity,
                nodes,
            } => self.mark_witnesses(primary, identity, nodes),
        }
    }

    fn index(&mut self) -> &mut Index {
        Arc::make_mut(&mut self.state.index)
    }

    // --- the fleet ---

    fn know(&mut self, keys: &[InstanceKey], by_operator: bool) -> Decision {
        if keys.len() > KNOWN_PER_COMMAND_MAX {
            return Err(full("servers in one command", KNOWN_PER_COMMAND_MAX));
        }
        let mut added = 0;
        let mut is_full = false;
        for key in keys {
            if check_key(key).is_err()
                || (!by_operator && self.state.is_forgotten(key, self.now))
                || self.state.is_known(key)
            {
                continue;
            }
            if self.state.known_count() >= INSTANCES_MAX {
                is_full = true;
                continue;
            }
            self.put_forgotten(key, None);
            let row = Known { since: self.now };
            self.state.known.put(key.clone(), row.clone());
            self.changes.push(Change::Known(key.clone(), Some(row)));
            added += 1;
        }
        if is_full && added == 0 {
            return Err(full("known servers", INSTANCES_MAX));
        }
        Ok(Answer::Changed(added))
    }

    /// A server of a cluster that is being recovered stays known until that has ended: the recovery reads it, or waits for it.
    fn forget(&mut self, keys: &[InstanceKey]) -> Decision {
        let mut removed = 0;
        let mut busy = None;
        let until = self.now + self.state.forget_window();
        for key in keys {
            if let Some(running) = self.running_with(key) {
                busy = Some(running);
                continue;
            }
            if self.state.known.remove(key).is_none() {
                continue;
            }
            removed += 1;
            self.changes.push(Change::Known(key.clone(), None));
            self.put_forgotten(key, Some(until));
            self.leave_cluster(key);
        }
        match (keys.first(), busy) {
            (_, Some(by)) if removed == 0 => Err(Refusal::ClusterBusy { by }),
            (Some(key), None) if removed == 0 => Err(Refusal::NotFound(key.to_string())),
            _ => Ok(Answer::Changed(removed)),
        }
    }

    /// What runs on the cluster that a server is recorded in, or came upon it.
    fn running_with(&self, key: &InstanceKey) -> Option<Uid> {
        let cluster = self.state.cluster_of(key).map(|record| record.key);
        let mut running = self.state.running();
        let with = running.find(|one| Some(one.cluster) == cluster || one.involves(key))?;
        Some(with.uid.clone())
    }

    /// A forgotten server is no member any more, unless it is what its cluster hangs on.
    fn leave_cluster(&mut self, key: &InstanceKey) {
        let Some(record) = self.state.cluster_of(key) else {
            return;
        };
        if record.primary != *key {
            let mut record = record.clone();
            record.members.remove(key);
            self.put_cluster(record);
        } else if record.members.len() == 1 {
            self.remove_cluster(record.key);
        }
    }

    fn put_forgotten(&mut self, key: &InstanceKey, until: Option<Wall>) {
        if let Some(old) = self.state.forgotten.get(key).copied() {
            self.index()
                .ends
                .remove(&(old, Ending::Forgotten(key.clone())));
            self.state.forgotten.remove(key);
        } else if until.is_none() {
            return;
        }
        if let Some(until) = until {
            self.state.forgotten.put(key.clone(), until);
            self.index()
                .ends
                .insert((until, Ending::Forgotten(key.clone())));
        }
        self.changes.push(Change::Forgotten(key.clone(), until));
    }

    /// Gives a topology its stable key, or follows it to a primary that people chose.
    ///
    /// A record follows when its primary replicates from the one seen, or when most of its other members do
    /// (`FAILOVER.md` section 5, which servers people chose). Else a primary that was a member elsewhere founds a record
    /// of its own; if the rest joins it later, the elder record moves there after all and keeps its key and alias.
    fn record_cluster(
        &mut self,
        primary: &InstanceKey,
        identity: Option<&Identity>,
        members: &[InstanceKey],
    ) -> Decision {
        check_key(primary)?;
        let is_deposed = match identity {
            Some(identity) => self.state.is_deposed(identity),
            None => self.state.deposed_at(primary).next().is_some(),
        };
        if is_deposed {
            return Err(invalid(format!(
                "{primary} is a deposed primary: it counts again when people chose or released it"
            )));
        }
        let mut seen: BTreeSet<InstanceKey> = members
            .iter()
            .filter(|key| check_key(key).is_ok())
            .cloned()
            .collect();
        seen.insert(primary.clone());
        if self.state.index.cluster_of.len() + seen.len() > 2 * INSTANCES_MAX {
            return Err(full("members of clusters", 2 * INSTANCES_MAX));
        }

        let home = self.state.cluster_of(primary).cloned();
        let own = home.clone().filter(|record| record.primary == *primary);
        let mut touched: BTreeSet<ClusterKey> = seen
            .iter()
            .filter_map(|key| self.state.cluster_of(key))
            .map(|record| record.key)
            .collect();
        if let Some(own) = &own {
            touched.remove(&own.key);
        }
        if let Some(running) = touched.iter().find_map(|key| self.state.running_on(*key)) {
            return Err(Refusal::ClusterBusy {
                by: running.uid.clone(),
            });
        }

        let followed = touched
            .iter()
            .filter_map(|key| self.state.cluster(*key))
            .filter_map(|record| {
                let others = |keys: &BTreeSet<InstanceKey>| {
                    keys.iter()
                        .filter(|key| **key != *primary && **key != record.primary)
                        .filter(|key| record.members.contains(key))
                        .count()
                };
                let (there, all) = (others(&seen), others(&record.members));
                let by_primary = seen.contains(&record.primary);
                (by_primary || there * 2 > all).then_some((by_primary, there, record))
            })
            .max_by_key(|(by_primary, there, record)| {
                (
                    *by_primary,
                    *there,
                    core::cmp::Reverse((record.recorded, record.key)),
                )
            })
            .map(|(_, _, record)| record.clone());

        let mut record = match (own, followed) {
            (Some(own), Some(elder)) if own.split_from == Some(elder.key) => {
                if let Some(running) = self.state.running_on(own.key) {
                    return Err(Refusal::ClusterBusy {
                        by: running.uid.clone(),
                    });
                }
                seen.extend(own.members.iter().cloned());
                self.remove_cluster(own.key);
                elder
            }
            (Some(own), _) => own,
            (None, Some(followed)) => followed,
            (None, None) => ClusterRecord {
                key: self.mint_cluster_key(),
                primary: primary.clone(),
                identity: None,
                name: primary.to_string(),
                former: Vec::new(),
                split_from: home.map(|record| record.key),
                alias: String::new(),
                alias_override: String::new(),
                domain: String::new(),
                members: BTreeSet::new(),
                recorded: self.now,
                opened: None,
                witnesses: BTreeSet::new(),
            },
        };
        self.take_members(&mut record, seen);
        set_primary(&mut record, primary, identity);
        let changed = self.put_cluster(record);
        Ok(Answer::Changed(u64::from(changed)))
    }

    fn mark_primary(
        &mut self,
        primary: &InstanceKey,
        identity: &Identity,
        writeable_at_uptime_s: Option<u64>,
    ) -> Decision {
        let record = self.primary_of(primary, identity)?;
        if let Some(running) = self.state.running_on(record.key) {
            // It may be what changes the server.
            return Err(Refusal::ClusterBusy {
                by: running.uid.clone(),
            });
        }
        self.put_opened(record.key, primary, writeable_at_uptime_s);
        Ok(Answer::Done)
    }

    fn mark_witnesses(
        &mut self,
        primary: &InstanceKey,
        identity: &Identity,
        nodes: &[NodeId],
    ) -> Decision {
        let mut record = self.primary_of(primary, identity)?;
        let nodes = nodes.iter().take(WITNESSES_PER_CLUSTER_MAX);
        record.witnesses = nodes.copied().collect();
        let changed = self.put_cluster(record);
        Ok(Answer::Changed(u64::from(changed)))
    }

    /// The cluster of which this very server is the primary.
    fn primary_of(
        &self,
        primary: &InstanceKey,
        identity: &Identity,
    ) -> Result<ClusterRecord, Refusal> {
        self.state
            .cluster_of(primary)
            .filter(|record| record.primary == *primary)
            .filter(|record| record.identity.as_ref() == Some(identity))
            .cloned()
            .ok_or_else(|| Refusal::NotFound(format!("primary {primary} ({identity})")))
    }

    /// Records that a server, if it is its cluster's primary, was writeable when it was up for so long, or is meant to be
    /// closed.
    fn put_opened(&mut self, cluster: ClusterKey, server: &InstanceKey, uptime_s: Option<u64>) {
        if let Some(mut record) = self.state.cluster(cluster).cloned()
            && record.primary == *server
        {
            let at = self.now;
            record.opened = uptime_s.map(|uptime_s| Sighting { at, uptime_s });
            self.put_cluster(record);
        }
    }

    /// A hash of the position at which the cluster is first recorded.
    fn mint_cluster_key(&self) -> ClusterKey {
        let mut hash = Sha256::new();
        hash.update(self.at.index.to_le_bytes());
        hash.update(self.at.term.to_le_bytes());
        let mut key = hash
            .finalize()
            .iter()
            .take(8)
            .fold(0u64, |key, byte| key << 8 | u64::from(*byte));
        while self.state.clusters.contains(&ClusterKey(key)) {
            key = key.wrapping_add(1);
        }
        ClusterKey(key)
    }

    /// Moves servers into a record, out of whichever they are in. A record whose primary moves is absorbed with all of
    /// its members.
    fn take_members(&mut self, record: &mut ClusterRecord, wanted: BTreeSet<InstanceKey>) {
        for key in wanted {
            let Some(other) = self
                .state
                .cluster_of(&key)
                .filter(|other| other.key != record.key)
            else {
                record.members.insert(key);
                continue;
            };
            if other.primary == key && self.state.running_on(other.key).is_none() {
                let other = other.clone();
                self.remove_cluster(other.key);
                record.members.extend(other.members);
                // A name that people know the servers by is not lost with the record.
                if record.shown_alias().is_empty() {
                    record.alias = other.alias;
                    record.alias_override = other.alias_override;
                }
                if record.domain.is_empty() {
                    record.domain = other.domain;
                }
            } else if other.primary != key {
                let mut other = other.clone();
                other.members.remove(&key);
                self.put_cluster(other);
                record.members.insert(key);
            }
        }
    }

    fn put_cluster(&mut self, record: ClusterRecord) -> bool {
        let key = record.key;
        let old = self.state.clusters.shared(&key);
        if old.as_deref() == Some(&record) {
            return false;
        }
        let gone: Vec<InstanceKey> = old
            .iter()
            .flat_map(|old| old.members.difference(&record.members))
            .cloned()
            .collect();
        let new = self.state.clusters.put(key, record);
        let index = self.index();
        for member in gone {
            index.cluster_of.remove(&member);
        }
        for member in &new.members {
            if index.cluster_of.get(member) != Some(&key) {
                index.cluster_of.insert(member.clone(), key);
            }
        }
        self.changes
            .extend(cluster_changes(old.as_ref(), Some(&new)));
        true
    }

    fn remove_cluster(&mut self, key: ClusterKey) {
        if let Some(old) = self.state.clusters.remove(&key) {
            let index = self.index();
            for member in &old.members {
                index.cluster_of.remove(member);
            }
            self.changes.extend(cluster_changes(Some(&old), None));
        }
    }

    fn cluster_named(&self, name: &str) -> Result<ClusterRecord, Refusal> {
        self.state
            .cluster_named(name)
            .cloned()
            .ok_or_else(|| Refusal::NotFound(format!("cluster {}", text(name))))
    }

    fn set_cluster_alias(
        &mut self,
        cluster_name: &str,
        alias: &str,
        by_operator: bool,
    ) -> Decision {
        let mut record = self.cluster_named(cluster_name)?;
        let alias = text(alias);
        let field = |record: &mut ClusterRecord| {
            core::mem::take(if by_operator {
                &mut record.alias_override
            } else {
                &mut record.alias
            })
        };
        // An alias names one cluster; the newest word counts.
        let others: Vec<ClusterRecord> = self
            .state
            .clusters()
            .filter(|other| other.key != record.key && !alias.is_empty())
            .filter(|other| {
                *(if by_operator {
                    &other.alias_override
                } else {
                    &other.alias
                }) == alias
            })
            .cloned()
            .collect();
        for mut other in others {
            field(&mut other);
            self.put_cluster(other);
        }
        if by_operator {
            record.alias_override = alias;
        } else {
            record.alias = alias;
        }
        let changed = self.put_cluster(record);
        Ok(Answer::Changed(u64::from(changed)))
    }

    fn begin_downtime(
        &mut self,
        key: &InstanceKey,
        owner: &str,
        reason: &str,
        until: Wall,
    ) -> Decision {
        check_key(key)?;
        if until <= self.now {
            return Err(invalid(format!(
                "the downtime would end at {until}, in the past"
            )));
        }
        if !self.state.downtimes.contains(key) && self.state.downtimes.len() >= INSTANCES_MAX {
            return Err(full("downtimes", INSTANCES_MAX));
        }
        self.put_downtime(
            key,
            Some(Downtime {
                owner: text(owner),
                reason: text(reason),
                began: self.now,
                until,
            }),
        );
        Ok(Answer::Done)
    }

    fn put_downtime(&mut self, key: &InstanceKey, row: Option<Downtime>) {
        if let Some(old) = self.state.downtimes.remove(key) {
            self.index()
                .ends
                .remove(&(old.until, Ending::Downtime(key.clone())));
        } else if row.is_none() {
            return;
        }
        if let Some(row) = &row {
            self.state.downtimes.put(key.clone(), row.clone());
            if !row.is_lost_in_recovery() {
                self.index()
                    .ends
                    .insert((row.until, Ending::Downtime(key.clone())));
            }
        }
        self.changes.push(Change::Downtime(key.clone(), row));
    }

    fn begin_maintenance(
        &mut self,
        key: &InstanceKey,
        owner: &str,
        reason: &str,
        until: Wall,
    ) -> Decision {
        check_key(key)?;
        if until <= self.now {
            return Err(invalid(format!(
                "the maintenance would end at {until}, in the past"
            )));
        }
        if let Some(held) = self.state.maintenance_of(key, self.now) {
            return Err(invalid(format!(
                "{key} is under maintenance by {} until {}: {}",
                held.owner, held.until, held.reason
            )));
        }
        if !self.state.maintenance.contains(key) && self.state.maintenance.len() >= INSTANCES_MAX {
            return Err(full("servers under maintenance", INSTANCES_MAX));
        }
        self.state.last_maintenance += 1;
        let number = self.state.last_maintenance;
        self.put_maintenance(
            key,
            Some(Maintenance {
                number,
                owner: text(owner),
                reason: text(reason),
                began: self.now,
                until,
            }),
        );
        Ok(Answer::Numbered(number))
    }

    fn put_maintenance(&mut self, key: &InstanceKey, row: Option<Maintenance>) {
        if let Some(old) = self.state.maintenance.remove(key) {
            self.index()
                .ends
                .remove(&(old.until, Ending::Maintenance(key.clone())));
        } else if row.is_none() {
            return;
        }
        if let Some(row) = &row {
            self.state.maintenance.put(key.clone(), row.clone());
            self.index()
                .ends
                .insert((row.until, Ending::Maintenance(key.clone())));
        }
        self.changes.push(Change::Maintenance(key.clone(), row));
    }

    fn put_candidate(&mut self, key: &InstanceKey, row: Option<Candidate>) {
        if let Some(old) = self.state.candidates.remove(key) {
            self.index()
                .candidates_by_age
                .remove(&(old.at, key.clone()));
        } else if row.is_none() {
            return;
        }
        if let Some(row) = &row {
            self.state.candidates.put(key.clone(), row.clone());
            self.index().candidates_by_age.insert((row.at, key.clone()));
        }
        self.changes.push(Change::Candidate(key.clone(), row));
    }

    fn put_tag(&mut self, key: &InstanceKey, name: &str, value: &str) -> Decision {
        check_key(key)?;
        if name.is_empty() {
            return Err(invalid("a tag without a name"));
        }
        let (name, value) = (text(name), text(value));
        if self.state.tag_of(key, &name).is_none() {
            if self.state.tags_of(key).count() >= TAGS_PER_INSTANCE_MAX {
                return Err(full("tags of a server", TAGS_PER_INSTANCE_MAX));
            }
            if self.state.tags.len() >= TAGS_PER_INSTANCE_MAX * INSTANCES_MAX / 16 {
                return Err(full("tags", TAGS_PER_INSTANCE_MAX * INSTANCES_MAX / 16));
            }
        }
        let tag = Tag {
            value,
            at: self.now,
        };
        self.state
            .tags
            .put((key.clone(), name.clone()), tag.clone());
        self.changes.push(Change::Tag {
            key: key.clone(),
            name,
            tag: Some(tag),
        });
        Ok(Answer::Done)
    }

    fn delete_tag(
        &mut self,
        key: Option<&InstanceKey>,
        name: &str,
        value: Option<&str>,
    ) -> Decision {
        let matches = |tag: &Tag| value.is_none_or(|value| tag.value == text(value));
        let name = text(name);
        let gone: Vec<InstanceKey> = match key {
            Some(key) => self
                .state
                .tag_of(key, &name)
                .filter(|tag| matches(tag))
                .map(|_| key.clone())
                .into_iter()
                .collect(),
            None => self
                .state
                .tags()
                .filter(|(_, other, tag)| *other == name && matches(tag))
                .map(|(key, _, _)| key.clone())
                .collect(),
        };
        for key in &gone {
            self.state.tags.remove(&(key.clone(), name.clone()));
            self.changes.push(Change::Tag {
                key: key.clone(),
                name: name.clone(),
                tag: None,
            });
        }
        Ok(Answer::Changed(gone.len() as u64))
    }

    // --- failures ---

    /// Numbered when it is new; Changed(0) when an equal one is active: only the first has hooks run.
    fn register_detection(&mut self, detection: &Detection) -> Decision {
        check_key(&detection.server)?;
        let telling = match &detection.telling {
            // Its registration is not refused for it: its leader runs them, as with every one of version 1.
            Some(_) if self.state.form < 2 => None,
            Some(Telling {
                phase: Phase::Intended(epoch),
                ..
            }) => {
                self.check_term(*epoch)?;
                Some(Telling::begun(*epoch))
            }
            Some(Telling {
                phase: Phase::Settled(_),
                ..
            }) => return Err(invalid("a detection's hooks are begun with it")),
            None => None,
        };
        if self
            .state
            .active_detection(
                &detection.server,
                &detection.analysis,
                detection.is_actionable,
                self.now,
            )
            .is_some()
        {
            return Ok(Answer::Changed(0));
        }
        self.state.last_detection += 1;
        let number = self.state.last_detection;
        let row = Detection {
            number,
            server: detection.server.clone(),
            analysis: text(&detection.analysis),
            cluster_name: text(&detection.cluster_name),
            cluster_alias: text(&detection.cluster_alias),
            replicas: detection
                .replicas
                .iter()
                .take(INSTANCES_MAX)
                .cloned()
                .collect(),
            is_actionable: detection.is_actionable,
            processing_node: text(&detection.processing_node),
            processing_token: text(&detection.processing_token),
            at: self.now,
            is_active: true,
            telling,
        };
        let now = self.now;
        let is_telling = row.telling.is_some();
        let index = self.index();
        if is_telling {
            index.telling.insert(number);
        }
        index
            .active_detections
            .entry(detection.server.clone())
            .or_default()
            .insert(number);
        index.active_detections_by_age.insert((now, number));
        let row = self.state.detections.put(number, row);
        self.changes.push(Change::Detection(number, Some(row)));
        Ok(Answer::Numbered(number))
    }

    /// Everything is looked at before anything is changed. Who says it twice changes nothing by it: a run is settled once,
    /// and a hook that is begun, done or closed is not begun or closed again.
    fn tell_of_detection(
        &mut self,
        (number, run): (u64, u32),
        epoch: Epoch,
        ended: Option<&Outcome>,
        next: Option<u32>,
    ) -> Decision {
        self.check_term(epoch)?;
        let row = self
            .state
            .detections
            .get(&number)
            .ok_or_else(|| Refusal::NotFound(format!("detection {number}")))?;
        let held = row.telling.as_ref().ok_or(Refusal::Ended)?;
        let mut telling = held.clone();
        let hook = held.hook();
        if run != held.run {
            return Err(invalid(format!(
                "run {run} of the hooks of detection {number} is not the newest"
            )));
        }
        if let Some(outcome) = ended {
            let outcome = bounded_outcome(outcome);
            match &held.phase {
                Phase::Intended(by) if *by != epoch => {
                    return Err(Refusal::NotOwner { owner: *by });
                }
                Phase::Settled(held) if *held != outcome => {
                    return Err(invalid(format!(
                        "{hook} of detection {number} is settled already"
                    )));
                }
                Phase::Intended(_) | Phase::Settled(_) => {
                    telling.phase = Phase::Settled(outcome);
                }
            }
        }
        match &telling.phase {
            Phase::Intended(by) if *by == epoch => {
                return Err(invalid(format!(
                    "{hook} of detection {number} is intended under this epoch already"
                )));
            }
            Phase::Intended(by) if *by > epoch => {
                return Err(Refusal::NotOwner { owner: *by });
            }
            Phase::Intended(_) | Phase::Settled(_) => {}
        }
        let is_done = telling.phase == Phase::Settled(Outcome::Done);
        let telling = match next {
            Some(place) => {
                let wanted = telling.place.checked_add(u32::from(is_done));
                if Some(place) != wanted {
                    return Err(invalid(format!(
                        "hook {place} of detection {number} is out of order after {hook}"
                    )));
                }
                telling.begin(place, epoch);
                Some(telling)
            }
            None if ended.is_some() && !is_done => Some(telling),
            None => None,
        };
        if telling.as_ref() == Some(held) {
            return Ok(Answer::Done);
        }
        if telling.is_none() {
            self.index().telling.remove(&number);
        }
        self.state
            .detections
            .edit(&number, |row| row.telling = telling);
        let row = self.state.detections.shared(&number);
        self.changes.push(Change::Detection(number, row));
        Ok(Answer::Done)
    }

    fn deactivate_detection(&mut self, number: u64) {
        let Some(row) = self.state.detections.get(&number) else {
            return;
        };
        let (server, at) = (row.server.clone(), row.at);
        self.state
            .detections
            .edit(&number, |row| row.is_active = false);
        self.unindex_detection(&server, at, number);
        let row = self.state.detections.shared(&number);
        self.changes.push(Change::Detection(number, row));
    }

    fn unindex_detection(&mut self, server: &InstanceKey, at: Wall, number: u64) {
        let index = self.index();
        index.active_detections_by_age.remove(&(at, number));
        if let Some(numbers) = index.active_detections.get_mut(server) {
            numbers.remove(&number);
            if numbers.is_empty() {
                index.active_detections.remove(server);
            }
        }
    }

    fn deactivate_detections_where(&mut self, matches: impl Fn(&Detection) -> bool) {
        let numbers: Vec<u64> = self
            .state
            .index
            .active_detections_by_age
            .iter()
            .filter_map(|(_, number)| self.state.detections.get(number))
            .filter(|row| matches(row))
            .map(|row| row.number)
            .collect();
        for number in numbers {
            self.deactivate_detection(number);
        }
    }

    // --- recoveries ---

    /// An entry may speak for an epoch only if it was written in that epoch's term.
    ///
    /// The leader's id of the position is not compared: openraft's standard leader ids do not carry it, and a term has
    /// one leader.
    fn check_term(&self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch.term == self.at.term {
            Ok(())
        } else {
            Err(Refusal::NotOwner {
                owner: Epoch {
                    term: self.at.term,
                    node: self.at.node,
                    boot: 0,
                },
            })
        }
    }

    /// The recovery, if this epoch may change it; also one that has ended and has hooks to run.
    fn held(&self, uid: &Uid, epoch: Epoch) -> Result<&Recovery, Refusal> {
        match self.state.recovery(uid) {
            Some(recovery) if recovery.is_announced() => {
                self.check_term(epoch)?;
                if recovery.owner == epoch {
                    Ok(recovery)
                } else {
                    Err(Refusal::NotOwner {
                        owner: recovery.owner,
                    })
                }
            }
            Some(_) | None => self.owned(uid, epoch),
        }
    }

    /// The recovery, if it runs and this epoch may change it.
    fn owned(&self, uid: &Uid, epoch: Epoch) -> Result<&Recovery, Refusal> {
        self.check_term(epoch)?;
        let recovery = self
            .state
            .recovery(uid)
            .ok_or_else(|| Refusal::NotFound(format!("recovery {uid}")))?;
        if recovery.owner != epoch {
            return Err(Refusal::NotOwner {
                owner: recovery.owner,
            });
        }
        if !recovery.is_running() {
            return Err(Refusal::Ended);
        }
        Ok(recovery)
    }

    /// Changes a recovery and tells of it, the lines that it gained included.
    fn edit_recovery(&mut self, number: u64, lines: &[String], change: impl FnOnce(&mut Recovery)) {
        let now = self.now;
        let first = self
            .state
            .recoveries
            .edit(&number, |recovery| {
                let first = recovery.lines.len();
                change(recovery);
                add_lines(recovery, now, lines);
                first
            })
            .unwrap_or(0);
        if let Some(row) = self.state.recoveries.shared(&number) {
            let lines = line_changes(&row, first);
            self.changes.push(Change::Recovery(number, Some(row)));
            self.changes.extend(lines);
        }
    }

    fn begin_recovery(&mut self, beginning: Beginning<'_>) -> Decision {
        let Beginning {
            uid,
            purpose,
            epoch,
            server,
            ..
        } = beginning;
        self.check_term(epoch)?;
        check_key(server)?;
        if let Some(known) = self.state.recovery(uid) {
            // Proposed twice because the first answer got lost.
            return if known.owner == epoch && known.is_running() && known.purpose == *purpose {
                Ok(Answer::Numbered(known.number))
            } else {
                Err(Refusal::Ended)
            };
        }
        let cluster = self
            .state
            .cluster_of(server)
            .or_else(|| {
                self.state
                    .clusters()
                    .find(|record| record.name == *beginning.cluster_name)
            })
            .or_else(|| {
                beginning
                    .replicas
                    .iter()
                    .find_map(|replica| self.state.cluster_of(replica))
            })
            .cloned();
        self.check_gate(&beginning, cluster.as_ref())?;

        if beginning.forced && purpose.is_recovery() {
            let reason = "implicitly: a recovery of the same server was asked for";
            self.acknowledge_where(OURSELVES, reason, |recovery| {
                recovery.server == *server && !recovery.is_running()
            });
        }
        let cluster = match cluster {
            Some(cluster) => cluster,
            None => self.found_cluster(&beginning),
        };
        self.state.last_recovery += 1;
        let number = self.state.last_recovery;
        let detection = self
            .state
            .index
            .active_detections
            .get(server)
            .and_then(|numbers| numbers.last().copied())
            .unwrap_or(0);
        let row = Recovery {
            uid: uid.clone(),
            number,
            purpose: purpose.clone(),
            cluster: cluster.key,
            cluster_name: cluster.name.clone(),
            cluster_alias: cluster.shown_alias().to_string(),
            server: server.clone(),
            identity: beginning.identity.cloned(),
            analysis: text(beginning.analysis),
            replicas: beginning
                .replicas
                .iter()
                .take(INSTANCES_MAX)
                .cloned()
                .collect(),
            owner: epoch,
            processing_node: text(beginning.processing_node),
            processing_token: text(beginning.processing_token),
            began: self.now,
            stage: Stage::Begun,
            steps: BTreeMap::new(),
            candidate: None,
            successor: None,
            successor_alias: String::new(),
            lost: Vec::new(),
            participants: Vec::new(),
            possible_loss: Vec::new(),
            errors: Vec::new(),
            lines: Vec::new(),
            end: None,
            acknowledged: None,
            detection,
            was_read_only: beginning.was_read_only,
            ending: None,
        };
        let index = self.index();
        index.recovery_by_uid.insert(uid.clone(), number);
        index.running.insert(cluster.key, number);
        let row = self.state.recoveries.put(number, row);
        self.changes.push(Change::Recovery(number, Some(row)));
        if *purpose == Purpose::SetReadOnly {
            self.put_opened(cluster.key, server, None);
        }
        Ok(Answer::Numbered(number))
    }

    /// The gate. What runs blocks everything; the rest blocks what was not asked for by people.
    fn check_gate(
        &mut self,
        beginning: &Beginning<'_>,
        cluster: Option<&ClusterRecord>,
    ) -> Result<(), Refusal> {
        let Beginning {
            purpose,
            server,
            cluster_name,
            forced,
            ..
        } = *beginning;
        // A cluster may have gone by another key or name when the other recovery began.
        let concerns = |recovery: &Recovery| {
            cluster.is_some_and(|cluster| cluster.key == recovery.cluster)
                || recovery.server == *server
                || recovery.successor.as_ref() == Some(server)
                || (!cluster_name.is_empty() && recovery.cluster_name == cluster_name)
        };
        let running = self
            .state
            .running()
            .find(|running| concerns(running))
            .map(|running| (running.uid.clone(), running.number));
        if let Some((by, number)) = running {
            self.note_blocked(beginning, by.clone(), number);
            return Err(Refusal::ClusterBusy { by });
        }
        if self.state.recoveries.len() >= 2 * AUDIT_ENTRIES_MAX {
            return Err(full("recoveries", 2 * AUDIT_ENTRIES_MAX));
        }
        // What an operator asked for by name is not the program's own idea.
        let is_own_idea = match purpose {
            Purpose::DeadPrimary { .. }
            | Purpose::Quarantine { .. }
            | Purpose::Reopen
            | Purpose::Rejoin { .. } => !forced,
            Purpose::SetReadOnly | Purpose::SetWriteable => false,
        };
        if !is_own_idea {
            return Ok(());
        }
        if self.state.stopped.is_some() {
            return Err(Refusal::RecoveriesDisabled);
        }
        if purpose.is_recovery() {
            let replaced = match beginning.identity {
                Some(identity) => self.state.deposed_of(identity),
                None => self
                    .state
                    .deposed_at(server)
                    .map(|(_, row)| row)
                    .find(|_| cluster.is_none_or(|cluster| cluster.primary != *server)),
            };
            if let Some(replaced) = replaced {
                return Err(invalid(format!(
                    "{server} was replaced by {} already, in recovery {}",
                    replaced.successor, replaced.by
                )));
            }
            if let Some((recovery, until)) = self.state.cool_down_where(self.now, concerns) {
                let (by, number) = (recovery.uid.clone(), recovery.number);
                self.note_blocked(beginning, by.clone(), number);
                return Err(Refusal::CoolDown { by, until });
            }
        }
        if let Some(downtime) = self.state.downtime_of(server, self.now) {
            // What was lost is in the downtime that its own recovery began; people's, begun later, is respected.
            let is_in_the_way = match purpose {
                Purpose::Quarantine { .. } | Purpose::Rejoin { .. } => {
                    !downtime.is_lost_in_recovery()
                }
                Purpose::DeadPrimary { .. }
                | Purpose::Reopen
                | Purpose::SetReadOnly
                | Purpose::SetWriteable => true,
            };
            if is_in_the_way {
                return Err(Refusal::InDowntime {
                    until: downtime.until,
                });
            }
        }
        if let Some(maintenance) = self.state.maintenance_of(server, self.now) {
            return Err(Refusal::InMaintenance {
                until: maintenance.until,
            });
        }
        Ok(())
    }

    fn note_blocked(&mut self, beginning: &Beginning<'_>, by: Uid, number: u64) {
        let key = beginning.server;
        if !beginning.purpose.is_recovery()
            || (!self.state.blocked.contains(key) && self.state.blocked.len() >= INSTANCES_MAX)
        {
            return;
        }
        let row = Blocked {
            cluster_name: text(beginning.cluster_name),
            analysis: text(beginning.analysis),
            at: self.now,
            by,
            number,
        };
        self.state.blocked.put(key.clone(), row.clone());
        self.changes.push(Change::Blocked(key.clone(), Some(row)));
    }

    fn unblock(&mut self, by: &BTreeSet<u64>) {
        let gone: Vec<InstanceKey> = self
            .state
            .blocked()
            .filter(|(_, row)| by.contains(&row.number))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.state.blocked.remove(&key);
            self.changes.push(Change::Blocked(key, None));
        }
    }

    /// A record for a cluster that nobody recorded before it failed.
    fn found_cluster(&mut self, beginning: &Beginning<'_>) -> ClusterRecord {
        let mut record = ClusterRecord {
            key: self.mint_cluster_key(),
            primary: beginning.server.clone(),
            identity: beginning.identity.cloned(),
            name: beginning.server.to_string(),
            former: Vec::new(),
            split_from: None,
            alias: String::new(),
            alias_override: String::new(),
            domain: String::new(),
            members: BTreeSet::from([beginning.server.clone()]),
            recorded: self.now,
            opened: None,
            witnesses: BTreeSet::new(),
        };
        let free = beginning
            .replicas
            .iter()
            .take(INSTANCES_MAX)
            .filter(|key| check_key(key).is_ok() && self.state.cluster_of(key).is_none());
        record.members.extend(free.cloned());
        self.put_cluster(record.clone());
        record
    }

    fn take_over(&mut self, uid: &Uid, epoch: Epoch) -> Decision {
        self.check_term(epoch)?;
        let recovery = self
            .state
            .recovery(uid)
            .ok_or_else(|| Refusal::NotFound(format!("recovery {uid}")))?;
        if !recovery.is_running() && !recovery.is_announced() {
            return Err(Refusal::Ended);
        }
        if recovery.owner > epoch {
            return Err(Refusal::NotOwner {
                owner: recovery.owner,
            });
        }
        if recovery.owner < epoch {
            let line = format!("taken over by epoch {epoch} from {}", recovery.owner);
            self.edit_recovery(recovery.number, &[line], |recovery| recovery.owner = epoch);
        }
        Ok(Answer::Done)
    }

    fn intend(&mut self, uid: &Uid, epoch: Epoch, intent: Intent<'_>) -> Decision {
        let Intent {
            stage,
            candidate,
            steps,
            ending,
            lines,
        } = intent;
        let recovery = self.held(uid, epoch)?;
        check_intent(recovery, epoch, stage, steps)?;
        let number = recovery.number;
        if stage == Stage::Closed {
            self.index().announced.remove(&number);
        }
        self.edit_recovery(number, lines, |recovery| {
            recovery.stage = stage;
            if let Some(ending) = ending {
                recovery.ending = Some(bounded_end(ending));
            }
            if let Some(candidate) = candidate {
                recovery.candidate = Some(candidate.clone());
            }
            for step in steps {
                recovery
                    .steps
                    .insert(step.id, (step.clone(), Phase::Intended(epoch)));
            }
        });
        Ok(Answer::Done)
    }

    fn settle(
        &mut self,
        uid: &Uid,
        epoch: Epoch,
        outcomes: &[(crate::id::StepId, Outcome)],
        lines: &[String],
    ) -> Decision {
        let recovery = self.held(uid, epoch)?;
        for (id, outcome) in outcomes {
            match recovery.steps.get(id) {
                None => return Err(Refusal::NotFound(format!("{id} of recovery {uid}"))),
                Some((_, Phase::Intended(_) | Phase::Settled(Outcome::Unknown { .. }))) => {}
                Some((_, Phase::Settled(held))) if held == outcome => {}
                Some((_, Phase::Settled(_))) => {
                    return Err(invalid(format!(
                        "{id} of recovery {uid} is settled already"
                    )));
                }
            }
        }
        self.edit_recovery(recovery.number, lines, |recovery| {
            for (id, outcome) in outcomes {
                if let Some((_, phase)) = recovery.steps.get_mut(id) {
                    *phase = Phase::Settled(bounded_outcome(outcome));
                }
            }
        });
        Ok(Answer::Done)
    }

    /// Also of a recovery that has ended: hooks run on after it, and their words belong to its record.
    fn remark(
        &mut self,
        uid: &Uid,
        epoch: Epoch,
        lines: &[String],
        errors: &[String],
        possible_loss: &[String],
    ) -> Decision {
        self.check_term(epoch)?;
        let recovery = self
            .state
            .recovery(uid)
            .ok_or_else(|| Refusal::NotFound(format!("recovery {uid}")))?;
        let may = if recovery.is_running() {
            recovery.owner == epoch
        } else {
            recovery.owner <= epoch
        };
        if !may {
            return Err(Refusal::NotOwner {
                owner: recovery.owner,
            });
        }
        self.edit_recovery(recovery.number, lines, |recovery| {
            add_texts(&mut recovery.errors, errors);
            add_texts(&mut recovery.possible_loss, possible_loss);
        });
        Ok(Answer::Done)
    }

    fn end_recovery(&mut self, uid: &Uid, epoch: Epoch, ended: Ended<'_>) -> Decision {
        let recovery = self.owned(uid, epoch)?;
        let is_recovery = recovery.purpose.is_recovery();
        match ended.end {
            End::Succeeded if is_recovery && ended.successor.is_none() => {
                return Err(invalid("a recovery that succeeded has a successor"));
            }
            End::Undone { .. } if ended.successor.is_some() => {
                return Err(invalid("a recovery that was undone has no successor"));
            }
            End::Undone { .. } if recovery.is_past_return() => {
                return Err(invalid(
                    "the promotion was intended: there is no way back to undo",
                ));
            }
            End::Succeeded | End::Undone { .. } | End::Failed { .. } => {}
        }
        if let Some(successor) = ended.successor {
            check_key(successor)?;
            if *successor == recovery.server && is_recovery {
                return Err(invalid(format!("{successor} cannot succeed itself")));
            }
        }
        let (number, cluster, server) =
            (recovery.number, recovery.cluster, recovery.server.clone());
        let is_opened = *ended.end == End::Succeeded
            && match recovery.purpose {
                Purpose::Reopen | Purpose::SetWriteable => true,
                Purpose::DeadPrimary { .. } => recovery
                    .steps_of(StepKind::Promote)
                    .any(|(step, _)| step.statements.contains(&Statement::MakeWriteable)),
                Purpose::Quarantine { .. } | Purpose::SetReadOnly | Purpose::Rejoin { .. } => false,
            };
        let failed_identity = recovery.identity.clone().or_else(|| {
            self.state
                .cluster(cluster)
                .filter(|record| record.primary == server)
                .and_then(|record| record.identity.clone())
        });
        let now = self.now;
        let mut lines = ended.lines.to_vec();
        if is_recovery && ended.successor.is_some() && failed_identity.is_none() {
            lines.push(format!(
                "{server} was never identified: it will not be recognised, and not closed, when it returns"
            ));
        }
        self.edit_recovery(number, &lines, |recovery| {
            recovery.stage = Stage::Ended;
            recovery.end = Some((now, bounded_end(ended.end)));
            recovery.successor = ended.successor.cloned();
            recovery.successor_alias = text(ended.successor_alias);
            recovery.lost = ended.lost.iter().take(INSTANCES_MAX).cloned().collect();
            let left: Vec<String> = ended
                .lost
                .iter()
                .map(|key| format!("{key} was left behind: it does not follow the promoted server"))
                .collect();
            add_texts(&mut recovery.errors, &left);
            recovery.participants = ended
                .participants
                .iter()
                .take(INSTANCES_MAX)
                .cloned()
                .collect();
        });
        self.index().running.remove(&cluster);
        if is_recovery {
            self.index().announced.insert(number);
        }
        if is_recovery && let Some(successor) = ended.successor {
            self.enthrone(uid, cluster, &server, failed_identity, successor, &ended);
        }
        if is_opened {
            self.put_opened(cluster, ended.successor.unwrap_or(&server), Some(0));
        }
        Ok(Answer::Numbered(number))
    }

    /// Everything that follows from a promotion, in one entry: no daemon ever sees a part of it.
    fn enthrone(
        &mut self,
        uid: &Uid,
        cluster: ClusterKey,
        server: &InstanceKey,
        failed: Option<Identity>,
        successor: &InstanceKey,
        ended: &Ended<'_>,
    ) {
        if let Some(mut record) = self.state.cluster(cluster).cloned() {
            self.take_members(
                &mut record,
                BTreeSet::from([server.clone(), successor.clone()]),
            );
            // A successor that is the primary of another cluster with a recovery of its own stays there.
            if record.members.contains(successor) {
                set_primary(&mut record, successor, ended.successor_identity);
                note_former(&mut record, server);
                self.put_cluster(record);
            }
        }
        if let Some(identity) = ended.successor_identity {
            self.put_deposed(identity, None);
        }
        if let Some(identity) = failed
            && ended.successor_identity != Some(&identity)
            && (self.state.is_deposed(&identity) || self.state.deposed.len() < INSTANCES_MAX)
        {
            self.put_deposed(
                &identity,
                Some(Deposed {
                    by: uid.clone(),
                    key: server.clone(),
                    cluster,
                    successor: successor.clone(),
                    at: self.now,
                    fenced: None,
                }),
            );
        }
        for key in core::iter::once(server).chain(ended.lost) {
            if check_key(key).is_ok() && key != successor {
                self.put_downtime(
                    key,
                    Some(Downtime {
                        owner: OURSELVES.to_string(),
                        reason: LOST_IN_RECOVERY.to_string(),
                        began: self.now,
                        until: self.now + self.state.policy.lost_downtime,
                    }),
                );
            }
        }
        self.put_downtime(successor, None);
        self.deactivate_detections_where(|row| row.server == *server);
    }

    fn put_deposed(&mut self, identity: &Identity, row: Option<Deposed>) {
        match &row {
            Some(row) => {
                self.state.deposed.put(identity.clone(), row.clone());
            }
            None => {
                if self.state.deposed.remove(identity).is_none() {
                    return;
                }
            }
        }
        self.changes.push(Change::Deposed(identity.clone(), row));
    }

    fn acknowledge(&mut self, scope: &AckScope, owner: &str, comment: &str) -> Decision {
        if comment.trim().is_empty() {
            return Err(invalid("an acknowledgement needs a comment"));
        }
        let count = match scope {
            AckScope::All => self.acknowledge_where(owner, comment, |_| true),
            AckScope::Number(number) => {
                self.acknowledge_where(owner, comment, |row| row.number == *number)
            }
            AckScope::Uid(uid) => self.acknowledge_where(owner, comment, |row| row.uid == *uid),
            AckScope::Cluster { name, alias } => {
                // The cluster may have another name by this time: its key stays.
                let cluster = self.state.cluster_named(name).map(|record| record.key);
                let named = |cluster_name: &str, cluster_alias: &str| {
                    (!name.is_empty() && cluster_name == name)
                        || (!alias.is_empty() && cluster_alias == alias)
                };
                self.deactivate_detections_where(|row| {
                    named(&row.cluster_name, &row.cluster_alias)
                });
                self.acknowledge_where(owner, comment, |row| {
                    named(&row.cluster_name, &row.cluster_alias) || cluster == Some(row.cluster)
                })
            }
            AckScope::Instance(key) => {
                self.deactivate_detections_where(|row| row.server == *key);
                self.acknowledge_where(owner, comment, |row| row.server == *key)
            }
        };
        Ok(Answer::Changed(count))
    }

    /// Acknowledging lifts the cool-down; what runs goes on running (unlike the original, where it made room for a
    /// second recovery beside the first).
    fn acknowledge_where(
        &mut self,
        owner: &str,
        comment: &str,
        concerns: impl Fn(&Recovery) -> bool,
    ) -> u64 {
        let numbers: BTreeSet<u64> = self
            .state
            .recoveries_newest_first()
            .filter(|row| row.purpose.is_recovery() && row.acknowledged.is_none() && concerns(row))
            .map(|row| row.number)
            .collect();
        for number in &numbers {
            let acknowledgement = Acknowledgement {
                at: self.now,
                by: text(owner),
                comment: text(comment),
            };
            self.edit_recovery(*number, &[], |row| {
                row.acknowledged = Some(acknowledgement);
            });
        }
        self.unblock(&numbers);
        numbers.len() as u64
    }

    fn lift_quarantine(&mut self, identity: &Identity, reason: &str) -> Decision {
        let row = self
            .state
            .deposed_of(identity)
            .cloned()
            .ok_or_else(|| Refusal::NotFound(format!("deposed primary {identity}")))?;
        self.put_deposed(identity, None);
        if self
            .state
            .downtime_of(&row.key, self.now)
            .is_some_and(Downtime::is_lost_in_recovery)
        {
            self.put_downtime(&row.key, None);
        }
        if let Some(number) = self.state.recovery(&row.by).map(|row| row.number) {
            let line = format!("quarantine of {} lifted: {}", row.key, text(reason));
            self.edit_recovery(number, &[line], |_| {});
        }
        Ok(Answer::Done)
    }

    // --- ageing ---

    /// Removes rows whose time is over, a bounded number of each kind.
    fn purge(&mut self) {
        let policy = Arc::clone(&self.state.policy);
        for _ in 0..PURGES_PER_COMMAND_MAX {
            let Some((at, ending)) = self.state.index.ends.first().cloned() else {
                break;
            };
            if at > self.now {
                break;
            }
            match ending {
                Ending::Forgotten(key) => self.put_forgotten(&key, None),
                Ending::Downtime(key) => self.put_downtime(&key, None),
                Ending::Maintenance(key) => self.put_maintenance(&key, None),
            }
        }
        for _ in 0..PURGES_PER_COMMAND_MAX {
            match self.state.index.candidates_by_age.first().cloned() {
                Some((at, key)) if at + policy.candidate_expiry <= self.now => {
                    self.put_candidate(&key, None);
                }
                _ => break,
            }
        }
        for _ in 0..PURGES_PER_COMMAND_MAX {
            match self.state.index.active_detections_by_age.first() {
                Some((at, number)) if *at + policy.detection_block <= self.now => {
                    self.deactivate_detection(*number);
                }
                _ => break,
            }
        }
        self.purge_detections();
        self.purge_recoveries();
    }

    fn purge_detections(&mut self) {
        let keep = self.state.policy.audit_purge;
        for _ in 0..PURGES_PER_COMMAND_MAX {
            let is_over = self.state.detections.len() > AUDIT_ENTRIES_MAX;
            let Some(row) = self.state.detections.iter().next().map(|(_, row)| row) else {
                break;
            };
            let (number, at, server) = (row.number, row.at, row.server.clone());
            if !is_over && (row.is_active || at + keep > self.now) {
                break;
            }
            self.unindex_detection(&server, at, number);
            self.index().telling.remove(&number);
            self.state.detections.remove(&number);
            self.changes.push(Change::Detection(number, None));
        }
    }

    fn purge_recoveries(&mut self) {
        let policy = &self.state.policy;
        let mut over = self
            .state
            .recoveries
            .len()
            .saturating_sub(AUDIT_ENTRIES_MAX);
        let gone: BTreeSet<u64> = self
            .state
            .recoveries
            .iter()
            .take(PURGES_PER_COMMAND_MAX)
            .filter_map(|(number, row)| {
                let (ended, _) = row.end.as_ref()?;
                // What still blocks others is not forgotten, whatever the limits say.
                let may_block = row.purpose.is_recovery() && *ended + policy.cool_down > self.now;
                let is_old = *ended + policy.audit_purge <= self.now;
                if may_block || !(is_old || over > 0) {
                    return None;
                }
                over = over.saturating_sub(1);
                Some(*number)
            })
            .collect();
        if gone.is_empty() {
            return;
        }
        for number in &gone {
            if let Some(row) = self.state.recoveries.remove(number) {
                self.index().recovery_by_uid.remove(&row.uid);
                self.index().announced.remove(number);
                self.changes.push(Change::Recovery(*number, None));
            }
        }
        self.unblock(&gone);
    }
}

/// `Command::BeginRecovery`, unpacked.
#[derive(Clone, Copy)]
struct Beginning<'a> {
    uid: &'a Uid,
    purpose: &'a Purpose,
    epoch: Epoch,
    server: &'a InstanceKey,
    identity: Option<&'a Identity>,
    cluster_name: &'a str,
    analysis: &'a str,
    replicas: &'a [InstanceKey],
    processing_node: &'a str,
    processing_token: &'a str,
    forced: bool,
    was_read_only: bool,
}

/// `Command::Intend`, unpacked.
#[derive(Clone, Copy)]
struct Intent<'a> {
    stage: Stage,
    candidate: Option<&'a InstanceKey>,
    steps: &'a [Step],
    ending: Option<&'a End>,
    lines: &'a [String],
}

/// `Command::EndRecovery`, unpacked.
struct Ended<'a> {
    end: &'a End,
    successor: Option<&'a InstanceKey>,
    successor_identity: Option<&'a Identity>,
    successor_alias: &'a str,
    lost: &'a [InstanceKey],
    participants: &'a [InstanceKey],
    lines: &'a [String],
}

/// What may be intended next. Everything is looked at before anything is changed.
fn check_intent(
    recovery: &Recovery,
    epoch: Epoch,
    stage: Stage,
    steps: &[Step],
) -> Result<(), Refusal> {
    match stage {
        Stage::Begun | Stage::Ended => {
            return Err(invalid(format!("stage {stage} has no steps to intend")));
        }
        Stage::PostHooks | Stage::Closed if recovery.is_running() => {
            return Err(invalid(format!("stage {stage} comes after the end")));
        }
        Stage::PreHooks if recovery.has_acted() => {
            return Err(invalid(
                "something was done already: it is too late for hooks before it",
            ));
        }
        Stage::PostHooks | Stage::PreHooks => {
            if let Some(step) = steps.iter().find(|step| step.kind != StepKind::Hook) {
                return Err(invalid(format!("{} is no hook", step.id)));
            }
        }
        Stage::Closed => {
            if let Some(step) = steps.first() {
                return Err(invalid(format!("{} comes after everything", step.id)));
            }
        }
        Stage::FenceAndHalt
        | Stage::Drain
        | Stage::Promote
        | Stage::Regroup
        | Stage::Tidy
        | Stage::Undo
        | Stage::Operate
            if !recovery.is_running() =>
        {
            return Err(Refusal::Ended);
        }
        Stage::Undo if recovery.is_past_return() => {
            return Err(invalid(
                "the promotion was intended: there is no way back to undo",
            ));
        }
        Stage::FenceAndHalt
        | Stage::Drain
        | Stage::Promote
        | Stage::Regroup
        | Stage::Tidy
        | Stage::Undo
        | Stage::Operate => {}
    }
    let mut fresh = 0;
    let mut last = None;
    for step in steps {
        if last.is_some_and(|last| last >= step.id) {
            return Err(invalid(format!("{} is out of order", step.id)));
        }
        last = Some(step.id);
        match recovery.steps.get(&step.id) {
            None => fresh += 1,
            Some((held, _)) if held.kind != step.kind || held.server != step.server => {
                return Err(invalid(format!("{} is another step already", step.id)));
            }
            Some((_, Phase::Intended(by))) if *by == epoch => {
                return Err(invalid(format!(
                    "{} is intended under this epoch already",
                    step.id
                )));
            }
            Some((_, Phase::Settled(Outcome::Done))) => {
                return Err(invalid(format!("{} is done already", step.id)));
            }
            Some((
                _,
                Phase::Intended(_)
                | Phase::Settled(Outcome::Refused { .. } | Outcome::Unknown { .. }),
            )) => {}
        }
        if step.kind == StepKind::Promote {
            check_promotion(recovery, step)?;
        }
    }
    if recovery.steps.len() + fresh > STEPS_PER_RECOVERY_MAX {
        return Err(full("steps of a recovery", STEPS_PER_RECOVERY_MAX));
    }
    Ok(())
}

/// One recovery promotes one server: another one only after it is proven that the first promotion did not happen.
fn check_promotion(recovery: &Recovery, step: &Step) -> Result<(), Refusal> {
    if recovery.stage == Stage::Undo {
        return Err(invalid("the recovery is being undone: nothing is promoted"));
    }
    let other = recovery.steps_of(StepKind::Promote).find(|(held, phase)| {
        held.server != step.server && !matches!(phase, Phase::Settled(Outcome::Refused { .. }))
    });
    match other {
        Some((held, _)) => Err(invalid(format!(
            "{} may have been promoted by {}: {} is not promoted beside it",
            held.server, held.id, step.server
        ))),
        None => Ok(()),
    }
}

/// Makes a member the primary; the one before it is remembered.
fn set_primary(record: &mut ClusterRecord, primary: &InstanceKey, identity: Option<&Identity>) {
    record.members.insert(primary.clone());
    let is_another = record.primary != *primary
        || record
            .identity
            .as_ref()
            .is_some_and(|held| identity.is_some_and(|identity| identity != held));
    if is_another {
        record.opened = None;
        record.witnesses.clear();
    }
    if record.primary == *primary {
        if identity.is_some() {
            record.identity = identity.cloned();
        }
        return;
    }
    let former = core::mem::replace(&mut record.primary, primary.clone());
    record.identity = identity.cloned();
    record.name = primary.to_string();
    note_former(record, &former);
}

fn note_former(record: &mut ClusterRecord, former: &InstanceKey) {
    let primary = record.primary.clone();
    record.former.retain(|key| key != former && *key != primary);
    if *former != primary {
        record.former.push(former.clone());
    }
    if record.former.len() > FORMER_PRIMARIES_MAX {
        record.former.remove(0);
    }
}

fn add_lines(recovery: &mut Recovery, at: Wall, lines: &[String]) {
    for line in lines {
        let held = recovery.lines.len();
        if held >= AUDIT_ENTRIES_MAX {
            return;
        }
        let message = if held + 1 == AUDIT_ENTRIES_MAX {
            format!("the audit of this recovery is full at {AUDIT_ENTRIES_MAX} lines")
        } else {
            text(line)
        };
        recovery.lines.push(AuditLine { at, message });
    }
}

fn add_texts(held: &mut Vec<String>, texts: &[String]) {
    let room = AUDIT_ENTRIES_MAX.saturating_sub(held.len());
    held.extend(texts.iter().take(room).map(|line| text(line)));
}

fn bounded_outcome(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Done => Outcome::Done,
        Outcome::Refused { code, reason } => Outcome::Refused {
            code: *code,
            reason: bounded(reason.clone(), ERROR_TEXT_BYTES_MAX),
        },
        Outcome::Unknown { reason } => Outcome::Unknown {
            reason: bounded(reason.clone(), ERROR_TEXT_BYTES_MAX),
        },
    }
}

fn bounded_end(end: &End) -> End {
    match end {
        End::Succeeded => End::Succeeded,
        End::Undone { reason } => End::Undone {
            reason: text(reason),
        },
        End::Failed { reason } => End::Failed {
            reason: text(reason),
        },
    }
}
