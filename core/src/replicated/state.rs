//! The replicated half: what is known, what people said, what was decided. Changed only in `apply`; read by everybody.
//!
//! Between calls this holds (`check_invariants`): the derived indexes are functions of the rows; a server belongs to at
//! most one cluster; a cluster has at most one running recovery or operation; numbers are unique and counted upwards;
//! log time never goes back. Reads that depend on time take it as an argument: a row past its end counts as absent
//! from that moment, whether apply has removed it already or not.
//!
//! A clone shares all rows with the original, so it is cheap at any size.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    adoption::{Adoption, OriginalSummary},
    change::Change,
    codec::{Wire, Writer},
    command::Detection,
    members::{GivenUp, MemberChange, Membership, Swap},
    table::{HashSum, Table},
};
use crate::{
    id::{ClusterKey, Identity, InstanceKey, LogPosition, NodeId, Uid},
    policy::Policy,
    recovery::{Purpose, Recovery},
    time::Wall,
    topology::PromotionRule,
};

/// The reason of a downtime that a recovery began: such a one does not end by itself.
pub const LOST_IN_RECOVERY: &str = "lost-in-recovery";

/// The command and snapshot versions that are switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub command: u32,
    pub snapshot: u32,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            command: 1,
            snapshot: 1,
        }
    }
}

/// The versions of the raft protocol that a daemon speaks, between members: the oldest and the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    pub oldest: u32,
    pub newest: u32,
}

/// What a daemon said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub raft_address: String,
    pub http_uri: String,
    pub host_name: String,
    /// The program's version.
    pub build: String,
    pub reads_command: u32,
    pub reads_snapshot: u32,
    /// Log time.
    pub described: Wall,
    /// What it found in its backend of the original program.
    pub original: Option<OriginalSummary>,
    /// Said once version 2 is in force: whoever installs a release that gives an old protocol up must know that all others
    /// speak a later one, those included that are down.
    pub protocols: Option<Protocols>,
}

/// The members that a daemon's configuration asks for. Worth nothing once the voters were changed after `position`; the
/// list stays known, since only another one is declared again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The list as it is in the file.
    pub entries: Vec<String>,
    /// Who answers there; empty for the list that an identity came with.
    pub identities: BTreeSet<NodeId>,
    pub position: LogPosition,
    pub at: Wall,
}

/// A server that is to be probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Log time.
    pub since: Wall,
}

/// A fleet cluster, whichever server is its primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub key: ClusterKey,
    pub primary: InstanceKey,
    /// Of the primary, once it was identified.
    pub identity: Option<Identity>,
    /// `cluster_name` of the API: the primary as `host:port`.
    pub name: String,
    /// Former primaries, newest last.
    pub former: Vec<InstanceKey>,
    /// The cluster that this one's primary belonged to when it was first seen on its own.
    pub split_from: Option<ClusterKey>,
    /// As detected; empty for none.
    pub alias: String,
    /// As set by an operator, which wins; empty for none.
    pub alias_override: String,
    pub domain: String,
    /// The primary included.
    pub members: BTreeSet<InstanceKey>,
    /// Log time.
    pub recorded: Wall,
    /// The primary as it was last seen writeable, or made so by us. None where it never was, and where people closed it.
    pub opened: Option<Sighting>,
    /// The daemons that could log in to the primary when it was last seen well: what each saw itself is lost with its
    /// process.
    pub witnesses: BTreeSet<NodeId>,
}

impl ClusterRecord {
    /// The alias to show and to match filters with: the operator's, else the detected one, else none (empty).
    #[must_use]
    pub fn shown_alias(&self) -> &str {
        if self.alias_override.is_empty() {
            &self.alias
        } else {
            &self.alias_override
        }
    }

    /// The alias where there is one, else the name: what the wire calls a cluster's alias, and what filters are matched with.
    #[must_use]
    pub fn alias_or_name(&self) -> &str {
        match self.shown_alias() {
            "" => &self.name,
            alias => alias,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downtime {
    pub owner: String,
    pub reason: String,
    /// Log time.
    pub began: Wall,
    pub until: Wall,
}

impl Downtime {
    /// Begun by a recovery: ends when the server is seen to be well or people say so, never by age.
    #[must_use]
    pub fn is_lost_in_recovery(&self) -> bool {
        self.reason == LOST_IN_RECOVERY
    }

    #[must_use]
    pub fn holds_at(&self, at: Wall) -> bool {
        self.is_lost_in_recovery() || self.until > at
    }
}

/// An exclusive lock that people hold on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// `MaintenanceId` of the API.
    pub number: u64,
    pub owner: String,
    pub reason: String,
    /// Log time.
    pub began: Wall,
    pub until: Wall,
}

/// A promotion rule that was registered; forgotten after `Policy::candidate_expiry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub rule: PromotionRule,
    /// Log time.
    pub at: Wall,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub value: String,
    /// Log time.
    pub at: Wall,
}

/// A server that a recovery replaced as primary. Whichever address it returns at, it is to be closed
/// (`FAILOVER.md` section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposed {
    pub by: Uid,
    /// Where it was reached.
    pub key: InstanceKey,
    pub cluster: ClusterKey,
    pub successor: InstanceKey,
    /// Log time.
    pub at: Wall,
    /// As it was last seen closed: a restart may undo it.
    pub fenced: Option<Sighting>,
}

/// What was true of a server in one of its lives; a restart begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Log time at which it was recorded, some time after the server was read.
    pub at: Wall,
    /// How long the server was up when it was read; 0 where it was not.
    pub uptime_s: u64,
}

/// A recovery that was refused; for information only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub cluster_name: String,
    pub analysis: String,
    /// Log time of the newest refusal.
    pub at: Wall,
    /// What blocks it.
    pub by: Uid,
    pub number: u64,
}

/// What was decided.
#[derive(Debug, Clone)]
pub struct Replicated {
    pub(super) applied: LogPosition,
    pub(super) time: Wall,
    pub(super) versions: Versions,
    /// The version in which all of this is written and hashed: the one that is switched on.
    pub(super) form: u32,
    pub(super) policy: Arc<Policy>,
    /// The leader has proposed its policy; until then it is the default.
    pub(super) is_policy_set: bool,
    /// Since when recoveries are disabled.
    pub(super) stopped: Option<Wall>,
    pub(super) last_detection: u64,
    pub(super) last_recovery: u64,
    pub(super) last_maintenance: u64,
    pub(super) membership: Membership,
    pub(super) change: Option<MemberChange>,
    pub(super) given_up: Option<GivenUp>,
    pub(super) swaps: Vec<Swap>,
    pub(super) adoption: Adoption,
    pub(super) members: Table<NodeId, Member>,
    pub(super) declarations: Table<NodeId, Declaration>,
    pub(super) known: Table<InstanceKey, Known>,
    pub(super) forgotten: Table<InstanceKey, Wall>,
    pub(super) clusters: Table<ClusterKey, ClusterRecord>,
    pub(super) downtimes: Table<InstanceKey, Downtime>,
    pub(super) maintenance: Table<InstanceKey, Maintenance>,
    pub(super) candidates: Table<InstanceKey, Candidate>,
    pub(super) tags: Table<(InstanceKey, String), Tag>,
    pub(super) detections: Table<u64, Detection>,
    pub(super) recoveries: Table<u64, Recovery>,
    pub(super) blocked: Table<InstanceKey, Blocked>,
    pub(super) deposed: Table<Identity, Deposed>,
    /// Derived from the rows.
    pub(super) index: Arc<Index>,
}

impl Default for Replicated {
    fn default() -> Self {
        Self {
            applied: LogPosition::default(),
            time: Wall::EPOCH,
            versions: Versions::default(),
            form: 1,
            policy: Arc::new(Policy::default()),
            is_policy_set: false,
            stopped: None,
            last_detection: 0,
            last_recovery: 0,
            last_maintenance: 0,
            membership: Membership::default(),
            change: None,
            given_up: None,
            swaps: Vec::new(),
            adoption: Adoption::default(),
            members: Table::default(),
            declarations: Table::default(),
            known: Table::default(),
            forgotten: Table::default(),
            clusters: Table::default(),
            downtimes: Table::default(),
            maintenance: Table::default(),
            candidates: Table::default(),
            tags: Table::default(),
            detections: Table::default(),
            recoveries: Table::default(),
            blocked: Table::default(),
            deposed: Table::default(),
            index: Arc::default(),
        }
    }
}

/// What ends at a time of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    Forgotten(InstanceKey),
    Downtime(InstanceKey),
    Maintenance(InstanceKey),
}

/// Ways to rows that are not by their keys. Never saved: a function of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    pub(super) cluster_of: BTreeMap<InstanceKey, ClusterKey>,
    pub(super) recovery_by_uid: BTreeMap<Uid, u64>,
    /// Running recoveries and operations.
    pub(super) running: BTreeMap<ClusterKey, u64>,
    /// Recoveries that have ended and have hooks to run.
    pub(super) announced: BTreeSet<u64>,
    pub(super) active_detections: BTreeMap<InstanceKey, BTreeSet<u64>>,
    /// Detections whose hooks have not all run.
    pub(super) telling: BTreeSet<u64>,
    pub(super) ends: BTreeSet<(Wall, Ending)>,
    /// By registration, since their time to live is policy.
    pub(super) candidates_by_age: BTreeSet<(Wall, InstanceKey)>,
    pub(super) active_detections_by_age: BTreeSet<(Wall, u64)>,
}

impl Index {
    /// # Errors
    /// Rows that contradict each other, in words.
    pub(super) fn of(state: &Replicated) -> Result<Self, String> {
        let mut index = Self::default();
        for (key, record) in state.clusters.iter() {
            for member in &record.members {
                if let Some(other) = index.cluster_of.insert(member.clone(), *key) {
                    return Err(alloc::format!("{member} is in clusters {other} and {key}"));
                }
            }
        }
        for (number, recovery) in state.recoveries.iter() {
            if index
                .recovery_by_uid
                .insert(recovery.uid.clone(), *number)
                .is_some()
            {
                return Err(alloc::format!("two recoveries are {}", recovery.uid));
            }
            if recovery.is_announced() {
                index.announced.insert(*number);
            }
            if recovery.is_running()
                && let Some(other) = index.running.insert(recovery.cluster, *number)
            {
                return Err(alloc::format!(
                    "recoveries {other} and {number} both run on cluster {}",
                    recovery.cluster
                ));
            }
        }
        for (number, detection) in state.detections.iter() {
            if detection.telling.is_some() {
                index.telling.insert(*number);
            }
            if detection.is_active {
                index
                    .active_detections
                    .entry(detection.server.clone())
                    .or_default()
                    .insert(*number);
                index
                    .active_detections_by_age
                    .insert((detection.at, *number));
            }
        }
        for (key, until) in state.forgotten.iter() {
            index.ends.insert((*until, Ending::Forgotten(key.clone())));
        }
        for (key, downtime) in state.downtimes.iter() {
            if !downtime.is_lost_in_recovery() {
                index
                    .ends
                    .insert((downtime.until, Ending::Downtime(key.clone())));
            }
        }
        for (key, maintenance) in state.maintenance.iter() {
            index
                .ends
                .insert((maintenance.until, Ending::Maintenance(key.clone())));
        }
        for (key, candidate) in state.candidates.iter() {
            index.candidates_by_age.insert((candidate.at, key.clone()));
        }
        Ok(index)
    }
}

/// A page of rows; pages count from 0.
pub fn page<T>(rows: impl Iterator<Item = T>, page: usize, rows_per_page: usize) -> Vec<T> {
    rows.skip(page.saturating_mul(rows_per_page))
        .take(rows_per_page)
        .collect()
}

impl Replicated {
    /// The newest entry that was applied; index 0 for none.
    #[must_use]
    pub const fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The greatest wall time that any applied command carried.
    #[must_use]
    pub const fn log_time(&self) -> Wall {
        self.time
    }

    #[must_use]
    pub const fn versions(&self) -> Versions {
        self.versions
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy in force was committed; else it is the default.
    #[must_use]
    pub const fn is_policy_set(&self) -> bool {
        self.is_policy_set
    }

    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    #[must_use]
    pub const fn adoption(&self) -> &Adoption {
        &self.adoption
    }

    /// Whose database of the original program is to be taken over next, if one is.
    #[must_use]
    pub fn original_to_adopt(&self) -> Option<NodeId> {
        let adoption = &self.adoption;
        let done = adoption.adopted.as_ref().map(|adopted| adopted.node);
        if let Some(chosen) = adoption.chosen {
            return (done != Some(chosen)).then_some(chosen);
        }
        if done.is_some() {
            return None;
        }
        if let Some((node, _)) = adoption.under_way {
            return Some(node);
        }
        let mut newest = None;
        for node in &adoption.founders {
            // Not before all have said what they hold.
            let member = self.member(*node)?;
            newest = newest.max(member.original.map(|held| (held.newest, *node)));
        }
        newest.map(|(_, node)| node)
    }

    pub fn declarations(&self) -> impl Iterator<Item = (NodeId, &Declaration)> {
        self.declarations.iter().map(|(node, row)| (*node, row))
    }

    #[must_use]
    pub fn declaration(&self, node: NodeId) -> Option<&Declaration> {
        self.declarations.get(&node)
    }

    /// The members as raft committed them last.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The change of members that is under way.
    #[must_use]
    pub const fn member_change(&self) -> Option<&MemberChange> {
        self.change.as_ref()
    }

    /// The last change of members that was given up.
    #[must_use]
    pub const fn given_up(&self) -> Option<&GivenUp> {
        self.given_up.as_ref()
    }

    /// Swaps at an address that were begun in the last hour.
    #[must_use]
    pub fn swaps_of(&self, address: &str, at: Wall) -> usize {
        let hour = Duration::from_secs(3600);
        self.swaps
            .iter()
            .filter(|swap| swap.address == address && swap.at + hour > at)
            .count()
    }

    /// What this node declares, if it votes and the voters were not changed since.
    #[must_use]
    pub fn standing_declaration(&self, node: NodeId) -> Option<&BTreeSet<NodeId>> {
        let row = self.declarations.get(&node)?;
        let stands = row.position.index > self.membership.voters_since.index
            && self.membership.members.is_voter(node)
            && !row.identities.is_empty();
        stands.then_some(&row.identities)
    }

    /// The voters that declare these members.
    #[must_use]
    pub fn declarers_of(&self, wanted: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        self.declarations
            .iter()
            .map(|(node, _)| *node)
            .filter(|node| self.standing_declaration(*node) == Some(wanted))
            .collect()
    }

    // --- the fleet ---

    #[must_use]
    pub fn is_known(&self, key: &InstanceKey) -> bool {
        self.known.contains(key)
    }

    pub fn known(&self) -> impl Iterator<Item = &InstanceKey> {
        self.known.iter().map(|(key, _)| key)
    }

    #[must_use]
    pub fn known_count(&self) -> usize {
        self.known.len()
    }

    /// Not to be taken back by discovery.
    #[must_use]
    pub fn is_forgotten(&self, key: &InstanceKey, at: Wall) -> bool {
        self.forgotten.get(key).is_some_and(|until| *until > at)
    }

    pub fn clusters(&self) -> impl Iterator<Item = &ClusterRecord> {
        self.clusters.iter().map(|(_, record)| record)
    }

    #[must_use]
    pub fn cluster(&self, key: ClusterKey) -> Option<&ClusterRecord> {
        self.clusters.get(&key)
    }

    /// The cluster that this server is a member of.
    #[must_use]
    pub fn cluster_of(&self, server: &InstanceKey) -> Option<&ClusterRecord> {
        self.clusters.get(self.index.cluster_of.get(server)?)
    }

    /// The cluster that a text names: by its name, its alias, a former name, a member, or its key, in that order.
    #[must_use]
    pub fn cluster_named(&self, text: &str) -> Option<&ClusterRecord> {
        let first = |matches: &dyn Fn(&ClusterRecord) -> bool| {
            self.clusters().find(|record| matches(record))
        };
        if text.is_empty() {
            return None;
        }
        first(&|record| record.name == text)
            .or_else(|| first(&|record| record.alias_override == text))
            .or_else(|| first(&|record| record.alias == text))
            .or_else(|| {
                let key = InstanceKey::parse(text, 3306).ok()?;
                first(&|record| record.former.contains(&key)).or_else(|| self.cluster_of(&key))
            })
            .or_else(|| first(&|record| record.key.to_string() == text))
    }

    #[must_use]
    pub fn downtime_of(&self, key: &InstanceKey, at: Wall) -> Option<&Downtime> {
        self.downtimes.get(key).filter(|row| row.holds_at(at))
    }

    pub fn downtimes(&self, at: Wall) -> impl Iterator<Item = (&InstanceKey, &Downtime)> {
        self.downtimes
            .iter()
            .filter(move |(_, row)| row.holds_at(at))
    }

    #[must_use]
    pub fn maintenance_of(&self, key: &InstanceKey, at: Wall) -> Option<&Maintenance> {
        self.maintenance.get(key).filter(|row| row.until > at)
    }

    pub fn maintenances(&self, at: Wall) -> impl Iterator<Item = (&InstanceKey, &Maintenance)> {
        self.maintenance
            .iter()
            .filter(move |(_, row)| row.until > at)
    }

    /// The registered promotion rule, if it has not expired.
    #[must_use]
    pub fn rule_of(&self, key: &InstanceKey, at: Wall) -> Option<PromotionRule> {
        self.candidates
            .get(key)
            .filter(|row| self.holds_candidate(row, at))
            .map(|row| row.rule)
    }

    pub fn candidates(&self, at: Wall) -> impl Iterator<Item = (&InstanceKey, &Candidate)> {
        self.candidates
            .iter()
            .filter(move |(_, row)| self.holds_candidate(row, at))
    }

    fn holds_candidate(&self, row: &Candidate, at: Wall) -> bool {
        row.at + self.policy.candidate_expiry > at
    }

    /// A server's tags by name.
    pub fn tags_of<'a>(
        &'a self,
        key: &'a InstanceKey,
    ) -> impl Iterator<Item = (&'a str, &'a Tag)> + 'a {
        self.tags
            .range((key.clone(), String::new())..)
            .take_while(move |((server, _), _)| server == key)
            .map(|((_, name), tag)| (name.as_str(), tag))
    }

    #[must_use]
    pub fn tag_of(&self, key: &InstanceKey, name: &str) -> Option<&Tag> {
        self.tags.get(&(key.clone(), name.to_string()))
    }

    /// All tags by server and name.
    pub fn tags(&self) -> impl Iterator<Item = (&InstanceKey, &str, &Tag)> {
        self.tags
            .iter()
            .map(|((key, name), tag)| (key, name.as_str(), tag))
    }

    // --- failures and recoveries ---

    #[must_use]
    pub const fn are_recoveries_enabled(&self) -> bool {
        self.stopped.is_none()
    }

    /// Since when recoveries are disabled.
    #[must_use]
    pub const fn stopped_since(&self) -> Option<Wall> {
        self.stopped
    }

    #[must_use]
    pub fn detection(&self, number: u64) -> Option<&Detection> {
        self.detections.get(&number)
    }

    pub fn detections_newest_first(&self) -> impl Iterator<Item = &Detection> {
        self.detections.iter().rev().map(|(_, row)| row)
    }

    /// Detections whose hooks have not all run, newest first.
    pub fn telling_newest_first(&self) -> impl Iterator<Item = &Detection> {
        let numbers = self.index.telling.iter().rev();
        numbers.filter_map(|number| self.detections.get(number))
    }

    /// The active detection of this server with this analysis, unless it is too old to count.
    #[must_use]
    pub fn active_detection(
        &self,
        server: &InstanceKey,
        analysis: &str,
        is_actionable: bool,
        at: Wall,
    ) -> Option<&Detection> {
        self.index
            .active_detections
            .get(server)?
            .iter()
            .rev()
            .filter_map(|number| self.detections.get(number))
            .find(|row| {
                row.analysis == analysis
                    && row.is_actionable == is_actionable
                    && row.at + self.policy.detection_block > at
            })
    }

    /// By uid.
    #[must_use]
    pub fn recovery(&self, uid: &Uid) -> Option<&Recovery> {
        self.recoveries.get(self.index.recovery_by_uid.get(uid)?)
    }

    /// The same to keep.
    #[must_use]
    pub fn recovery_shared(&self, uid: &Uid) -> Option<Arc<Recovery>> {
        self.recoveries.shared(self.index.recovery_by_uid.get(uid)?)
    }

    #[must_use]
    pub fn recovery_numbered(&self, number: u64) -> Option<&Recovery> {
        self.recoveries.get(&number)
    }

    /// Recoveries and operations alike (`Purpose::is_recovery` tells them apart).
    pub fn recoveries_newest_first(&self) -> impl Iterator<Item = &Recovery> {
        self.recoveries.iter().rev().map(|(_, row)| row)
    }

    /// Everything that runs, at most one a cluster.
    pub fn running(&self) -> impl Iterator<Item = &Recovery> {
        self.index
            .running
            .values()
            .filter_map(|number| self.recoveries.get(number))
    }

    /// Recoveries that have ended and have hooks to run, oldest first.
    pub fn announced(&self) -> impl Iterator<Item = &Recovery> {
        self.index
            .announced
            .iter()
            .filter_map(|number| self.recoveries.get(number))
    }

    #[must_use]
    pub fn running_on(&self, cluster: ClusterKey) -> Option<&Recovery> {
        self.recoveries.get(self.index.running.get(&cluster)?)
    }

    /// What keeps this cluster from another automatic recovery, and until when: its newest completed promotion that
    /// nobody acknowledged (`FAILOVER.md` section 4).
    #[must_use]
    pub fn cool_down_of(&self, cluster: ClusterKey, at: Wall) -> Option<(&Recovery, Wall)> {
        self.cool_down_where(at, |recovery| recovery.cluster == cluster)
    }

    pub(super) fn cool_down_where(
        &self,
        at: Wall,
        concerns: impl Fn(&Recovery) -> bool,
    ) -> Option<(&Recovery, Wall)> {
        self.recoveries_newest_first().find_map(|recovery| {
            let (ended, _) = recovery.end.as_ref()?;
            let until = *ended + self.policy.cool_down;
            let blocks = matches!(recovery.purpose, Purpose::DeadPrimary { .. })
                && recovery.is_successful()
                && recovery.acknowledged.is_none()
                && until > at
                && concerns(recovery);
            blocks.then_some((recovery, until))
        })
    }

    pub fn blocked(&self) -> impl Iterator<Item = (&InstanceKey, &Blocked)> {
        self.blocked.iter()
    }

    pub fn deposed(&self) -> impl Iterator<Item = (&Identity, &Deposed)> {
        self.deposed.iter()
    }

    #[must_use]
    pub fn deposed_of(&self, identity: &Identity) -> Option<&Deposed> {
        self.deposed.get(identity)
    }

    #[must_use]
    pub fn is_deposed(&self, identity: &Identity) -> bool {
        self.deposed.contains(identity)
    }

    /// Deposed primaries that were reached at this address.
    pub fn deposed_at<'a>(
        &'a self,
        key: &'a InstanceKey,
    ) -> impl Iterator<Item = (&'a Identity, &'a Deposed)> + 'a {
        self.deposed.iter().filter(move |(_, row)| row.key == *key)
    }

    /// How long a forgotten server is not taken back.
    #[must_use]
    pub fn forget_window(&self) -> Duration {
        self.policy.poll.saturating_mul(3)
    }

    // --- whole-state views ---

    /// Equal on two daemons at the same position, and after restoring from a snapshot. Costs the same at any size.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut out = Writer::new(self.form, Vec::with_capacity(1_024));
        self.put_scalars(&mut out);
        for sum in self.table_hashes() {
            sum.put(&mut out);
        }
        let bytes = out.finish().expect(
            "the state holds what the version in force can say: no other command brings it",
        );
        Sha256::digest(&bytes).into()
    }

    /// Writes and hashes everything in another version from here on.
    pub(super) fn set_form(&mut self, form: u32) {
        self.form = form;
        self.members.set_form(form);
        self.declarations.set_form(form);
        self.known.set_form(form);
        self.forgotten.set_form(form);
        self.clusters.set_form(form);
        self.downtimes.set_form(form);
        self.maintenance.set_form(form);
        self.candidates.set_form(form);
        self.tags.set_form(form);
        self.detections.set_form(form);
        self.recoveries.set_form(form);
        self.blocked.set_form(form);
        self.deposed.set_form(form);
    }

    /// In the order of the snapshot.
    pub(super) fn put_scalars(&self, out: &mut Writer) {
        self.applied.put(out);
        self.time.put(out);
        self.versions.put(out);
        self.policy.put(out);
        self.is_policy_set.put(out);
        self.stopped.put(out);
        self.last_detection.put(out);
        self.last_recovery.put(out);
        self.last_maintenance.put(out);
        self.membership.put(out);
        self.change.put(out);
        self.given_up.put(out);
        self.swaps.put(out);
        self.adoption.put(out);
    }

    pub(super) const fn table_hashes(&self) -> [HashSum; 13] {
        [
            self.members.hash(),
            self.declarations.hash(),
            self.known.hash(),
            self.forgotten.hash(),
            self.clusters.hash(),
            self.downtimes.hash(),
            self.maintenance.hash(),
            self.candidates.hash(),
            self.tags.hash(),
            self.detections.hash(),
            self.recoveries.hash(),
            self.blocked.hash(),
            self.deposed.hash(),
        ]
    }

    /// Every row as a change: what an empty projection needs to become this state.
    pub fn everything(&self) -> impl Iterator<Item = Change> + '_ {
        let scalars = [
            Change::Version(self.versions),
            Change::Policy(Arc::clone(&self.policy)),
            Change::GlobalStop(self.stopped),
        ];
        scalars
            .into_iter()
            .chain(
                self.members
                    .iter()
                    .map(|(key, row)| Change::Member(*key, Some(row.clone()))),
            )
            .chain(
                self.declarations
                    .iter()
                    .map(|(key, row)| Change::Declaration(*key, Some(row.clone()))),
            )
            .chain(
                self.known
                    .iter()
                    .map(|(key, row)| Change::Known(key.clone(), Some(row.clone()))),
            )
            .chain(
                self.forgotten
                    .iter()
                    .map(|(key, until)| Change::Forgotten(key.clone(), Some(*until))),
            )
            .chain(
                self.clusters
                    .iter_shared()
                    .flat_map(|(_, row)| super::apply::cluster_changes(None, Some(&row))),
            )
            .chain(
                self.downtimes
                    .iter()
                    .map(|(key, row)| Change::Downtime(key.clone(), Some(row.clone()))),
            )
            .chain(
                self.maintenance
                    .iter()
                    .map(|(key, row)| Change::Maintenance(key.clone(), Some(row.clone()))),
            )
            .chain(
                self.candidates
                    .iter()
                    .map(|(key, row)| Change::Candidate(key.clone(), Some(row.clone()))),
            )
            .chain(self.tags.iter().map(|((key, name), tag)| Change::Tag {
                key: key.clone(),
                name: name.clone(),
                tag: Some(tag.clone()),
            }))
            .chain(
                self.detections
                    .iter_shared()
                    .map(|(number, row)| Change::Detection(*number, Some(row))),
            )
            .chain(self.recoveries.iter_shared().flat_map(|(number, row)| {
                let lines = super::apply::line_changes(&row, 0);
                core::iter::once(Change::Recovery(*number, Some(row))).chain(lines)
            }))
            .chain(
                self.blocked
                    .iter()
                    .map(|(key, row)| Change::Blocked(key.clone(), Some(row.clone()))),
            )
            .chain(
                self.deposed
                    .iter()
                    .map(|(key, row)| Change::Deposed(key.clone(), Some(row.clone()))),
            )
    }
}
