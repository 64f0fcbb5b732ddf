//! Diagnosis: which servers have a problem, which one, and what it rests on.
//!
//! [`diagnose`] judges one server and [`diagnose_all`] a whole view, each from nothing but what is passed in.
//! [`Diagnosis`] keeps the findings and re-judges only those servers that some news can concern; it always equals what
//! [`diagnose_all`] would say. A problem never admits a recovery by itself: that is the verdict's part.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::cmp::Reverse;

use super::{
    code::{Code, Emergent, Repair, StructureCode},
    evidence::{Context, Evidence, Judging, gather},
    rules,
};
use crate::{
    id::InstanceKey,
    time::{Mono, Now, Wall},
    topology::{Edges, Instance, ThroughFence},
};

/// The servers to judge and how they hang together.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub instances: &'a BTreeMap<InstanceKey, Instance>,
    /// Of the same instances.
    pub edges: &'a Edges,
}

/// What a caller wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints<'a> {
    /// Entries that a downtime excuses, too.
    pub include_downtimed: bool,
    /// Entries without a problem, too.
    pub include_no_problem: bool,
    /// Of this cluster only, by name.
    pub cluster_name: Option<&'a str>,
}

/// The cluster of a problem (`ClusterDetails` of the HTTP API).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterDetails {
    pub name: String,
    /// The name where no alias is known.
    pub alias: String,
    /// The name where no domain is known.
    pub domain: String,
    /// (`HasAutomatedMasterRecovery`)
    pub recovers_primary: bool,
    /// (`HasAutomatedIntermediateMasterRecovery`)
    pub recovers_intermediate: bool,
}

/// How hooks and messages call the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceType {
    CoMaster,
    GroupMember,
    Master,
    IntermediateMaster,
}

impl InstanceType {
    /// What the server was when it got this code, for whom the evidence is gone.
    #[must_use]
    pub const fn of(code: Code) -> Self {
        match code {
            Code::DeadCoMaster
            | Code::DeadCoMasterAndSomeReplicas
            | Code::UnreachableCoMaster
            | Code::AllCoMasterReplicasNotReplicating => Self::CoMaster,
            Code::DeadReplicationGroupMemberWithReplicas => Self::GroupMember,
            Code::DeadIntermediateMaster
            | Code::DeadIntermediateMasterWithSingleReplica
            | Code::DeadIntermediateMasterWithSingleReplicaFailingToConnect
            | Code::DeadIntermediateMasterAndSomeReplicas
            | Code::DeadIntermediateMasterAndReplicas
            | Code::UnreachableIntermediateMasterWithLaggingReplicas
            | Code::UnreachableIntermediateMaster
            | Code::AllIntermediateMasterReplicasFailingToConnectOrDead
            | Code::AllIntermediateMasterReplicasNotReplicating
            | Code::FirstTierReplicaFailingToConnectToMaster
            | Code::BinlogServerFailingToConnectToMaster => Self::IntermediateMaster,
            Code::NoProblem
            | Code::DeadMasterWithoutReplicas
            | Code::DeadMaster
            | Code::DeadMasterAndReplicas
            | Code::DeadMasterAndSomeReplicas
            | Code::UnreachableMasterWithLaggingReplicas
            | Code::UnreachableMaster
            | Code::MasterSingleReplicaNotReplicating
            | Code::MasterSingleReplicaDead
            | Code::AllMasterReplicasNotReplicating
            | Code::AllMasterReplicasNotReplicatingOrDead
            | Code::LockedSemiSyncMasterHypothesis
            | Code::LockedSemiSyncMaster
            | Code::MasterWithTooManySemiSyncReplicas
            | Code::MasterWithoutReplicas
            | Code::NoWriteableMasterStructureWarning
            | Code::OverloadedPrimary => Self::Master,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CoMaster => "co-master",
            Self::GroupMember => "group-member",
            Self::Master => "master",
            Self::IntermediateMaster => "intermediate-master",
        }
    }
}

/// One entry of the analysis (`ReplicationAnalysis` of the HTTP API).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// (`AnalyzedInstanceKey`)
    pub key: InstanceKey,
    /// (`AnalyzedInstanceMasterKey`): as the server states it; empty when it states none.
    pub source: InstanceKey,
    /// (`Analysis`)
    pub code: Code,
    /// (`StructureAnalysis`)
    pub structure: Vec<StructureCode>,
    pub cluster: ClusterDetails,
    /// (`Replicas`), in the order of keys
    pub replicas: Vec<InstanceKey>,
    pub evidence: Evidence,
    /// The server's key is its cluster's name.
    pub is_cluster_head: bool,
    /// (`IsReplicasDowntimed`): the problem lies with the replicas, and all of them are in a downtime.
    pub is_replicas_downtimed: bool,
    /// (`SkippableDueToDowntime`)
    pub is_skippable: bool,
    /// What repairs it, our own restart of replication considered.
    pub repair: Repair,
}

impl Problem {
    /// (`Description`)
    #[must_use]
    pub const fn description(&self) -> &'static str {
        self.code.description()
    }

    /// What the codes alone do not tell, for people: who is primary in its place, which rights are missing and the
    /// statement that grants each, what it refuses, who does not see the server.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let mut details = Vec::new();
        if let Some(primary) = &self.evidence.other_primary {
            details.push(format!(
                "a recovery made {primary} the primary in its place, and it takes writes all the same"
            ));
        }
        if let Some(primary) = self.evidence.replaced_by.as_ref()
            && self.evidence.is_followed_though_replaced()
        {
            let count = self.evidence.replicating_replicas;
            details.push(format!(
                "a recovery made {primary} the primary in its place, and {count} server(s) replicate from it all the same: it is \
                 not protected, and is closed when it restarts, until {primary} or most servers of the cluster were pointed at \
                 it or it is released (release-deposed)"
            ));
        }
        if let Some(report) = &self.evidence.report {
            for missing in &report.missing_privileges {
                details.push(format!(
                    "our account lacks a right needed to {}: {}",
                    missing.purpose, missing.grant
                ));
            }
            if let Some(why) = &report.privileges_unknown {
                details.push(format!("what our account may do is not known: {why}"));
            }
            details.extend(report.refusals());
            if let ThroughFence::Accounts { named, has_more } = &report.through_fence
                && self.evidence.has_unfenceable_users()
            {
                details.push(format!(
                    "a fence would not stop these accounts, which write in spite of read_only: {}{}; take READ ONLY ADMIN (before \
                     MariaDB 10.11: SUPER) from those that clients use",
                    named.join(", "),
                    if *has_more { " and more" } else { "" },
                ));
            }
        }
        if let Some((seeing, daemons)) = self.evidence.daemons_seeing {
            details.push(format!("{seeing} of {daemons} daemons can see this server"));
        }
        details
    }

    /// (`IsActionableRecovery`): some repair exists. Whether it may run (filters, cool-down, downtime, verdict) is
    /// decided elsewhere.
    #[must_use]
    pub const fn is_actionable(&self) -> bool {
        self.repair.is_actionable()
    }

    /// A detection of it is registered.
    #[must_use]
    pub const fn registers_detection(&self) -> bool {
        self.code.facts().registers_detection
    }

    /// What every daemon does at once.
    #[must_use]
    pub const fn emergent(&self) -> Emergent {
        self.code.facts().emergent
    }

    /// The code, unless there is none, and the structure codes in one text.
    #[must_use]
    pub fn analysis_text(&self) -> String {
        let code = (self.code != Code::NoProblem).then_some(self.code.name());
        let mut text = String::new();
        for name in code
            .into_iter()
            .chain(self.structure.iter().map(|code| code.name()))
        {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
        }
        text
    }

    #[must_use]
    pub const fn instance_type(&self) -> InstanceType {
        if self.evidence.is_co_primary {
            InstanceType::CoMaster
        } else if self.evidence.is_group_member {
            InstanceType::GroupMember
        } else if self.evidence.is_primary {
            InstanceType::Master
        } else {
            InstanceType::IntermediateMaster
        }
    }

    /// Neither a code nor a structure code.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.code, Code::NoProblem) && self.structure.is_empty()
    }

    fn is_wanted(&self, hints: Hints<'_>) -> bool {
        (hints.include_no_problem || !self.is_empty())
            && (hints.include_downtimed || !self.is_skippable)
            && hints
                .cluster_name
                .is_none_or(|name| name == self.cluster.name)
    }

    /// Entries are listed primaries first, then heads of clusters, then by the number of replicas, then by key.
    fn rank(&self) -> (Reverse<bool>, Reverse<bool>, Reverse<u32>, &InstanceKey) {
        (
            Reverse(self.evidence.is_primary),
            Reverse(self.is_cluster_head),
            Reverse(self.evidence.replicas),
            &self.key,
        )
    }
}

/// What was found of one server.
struct Finding {
    /// None: the server is left out, whatever is asked for.
    problem: Option<Problem>,
    /// Without news, it stands until one of these instants.
    stands_until: (Option<Mono>, Option<Wall>),
}

/// Judges one server. None when there is nothing to say of it under these hints: no problem, not wanted, in
/// maintenance, ignored by the policy, or no probe of it has completed yet.
#[must_use]
pub fn diagnose<C: Context + ?Sized>(
    key: &InstanceKey,
    view: View<'_>,
    judging: Judging<'_, C>,
    hints: Hints<'_>,
) -> Option<Problem> {
    let server = view.instances.get(key)?;
    if hints
        .cluster_name
        .is_some_and(|name| name != server.place.cluster_name)
    {
        return None;
    }
    let replicas = view.edges.replicas_of(&joined_as(key, judging));
    find(server, replicas, view, judging, hints.include_no_problem)
        .problem
        .filter(|problem| problem.is_wanted(hints))
}

/// Judges every server, in the order of entries.
#[must_use]
pub fn diagnose_all<C: Context + ?Sized>(
    view: View<'_>,
    judging: Judging<'_, C>,
    hints: Hints<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Servers and sources come in the same order, so that who replicates from whom needs no search.
    let mut sources = view.edges.iter().peekable();
    let nobody = BTreeSet::new();
    for server in view.instances.values() {
        if hints
            .cluster_name
            .is_some_and(|name| name != server.place.cluster_name)
        {
            continue;
        }
        while sources
            .next_if(|(source, _)| **source < server.key)
            .is_some()
        {}
        let replicas = match joined_as(&server.key, judging) {
            Cow::Borrowed(_) => sources
                .next_if(|(source, _)| **source == server.key)
                .map_or(&nobody, |(_, replicas)| replicas),
            Cow::Owned(name) => view.edges.replicas_of(&name),
        };
        let finding = find(server, replicas, view, judging, hints.include_no_problem);
        problems.extend(finding.problem.filter(|problem| problem.is_wanted(hints)));
    }
    sort(&mut problems);
    problems
}

fn sort(problems: &mut [Problem]) {
    problems.sort_unstable_by(|one, other| one.rank().cmp(&other.rank()));
}

/// The name under which replicas know the server.
fn joined_as<'a, C: Context + ?Sized>(
    key: &'a InstanceKey,
    judging: Judging<'_, C>,
) -> Cow<'a, InstanceKey> {
    match judging.context.resolved_host(&key.host) {
        Some(host) if host != key.host => Cow::Owned(InstanceKey::new(host, key.port)),
        _ => Cow::Borrowed(key),
    }
}

fn find<C: Context + ?Sized>(
    server: &Instance,
    replica_keys: &BTreeSet<InstanceKey>,
    view: View<'_>,
    judging: Judging<'_, C>,
    include_no_problem: bool,
) -> Finding {
    let left_out = Finding {
        problem: None,
        stands_until: (None, None),
    };
    // Of a server whose first probe is still under way nothing is known, not even that it does not answer.
    if server.checked.is_none() || judging.context.is_in_maintenance(&server.key) {
        return left_out;
    }
    let replicas = replica_keys
        .iter()
        .filter_map(|key| view.instances.get(key));
    let evidence = gather(server, replicas, judging);
    let stands_until = evidence.stands_until;
    if judging.policy.reduce_analysis && !evidence.is_of_interest() {
        return Finding {
            problem: None,
            stands_until,
        };
    }
    let code =
        rules::first_rule(&evidence, judging.policy).map_or(Code::NoProblem, |rule| rule.code);
    let structure: Vec<StructureCode> = rules::structure(&evidence, judging.policy).collect();
    let is_empty = code == Code::NoProblem && structure.is_empty();
    if (is_empty && !include_no_problem)
        || judging
            .filters
            .recovery_ignore
            .matches_host(&server.key.host)
    {
        return Finding {
            problem: None,
            stands_until,
        };
    }
    let repair = if judging.context.is_in_grace(&server.key) {
        code.facts().repair.in_grace()
    } else {
        code.facts().repair
    };
    let is_replicas_downtimed =
        code.is_excused_by_replicas_downtime() && evidence.downtimed_replicas == evidence.replicas;
    Finding {
        problem: Some(Problem {
            key: server.key.clone(),
            source: server
                .report
                .as_ref()
                .and_then(|report| report.replication.as_ref())
                .map(|status| status.source.clone())
                .unwrap_or_default(),
            code,
            structure,
            cluster: cluster_details(server, judging),
            replicas: replica_keys
                .iter()
                .filter(|key| view.instances.contains_key(key))
                .cloned()
                .collect(),
            is_cluster_head: is_named(&server.place.cluster_name, &server.key),
            is_replicas_downtimed,
            is_skippable: evidence.is_downtimed || is_replicas_downtimed,
            repair,
            evidence,
        }),
        stands_until,
    }
}

fn cluster_details<C: Context + ?Sized>(
    server: &Instance,
    judging: Judging<'_, C>,
) -> ClusterDetails {
    let name = server.place.cluster_name.as_str();
    let alias = judging.context.cluster_alias(name).unwrap_or(name);
    let automated = judging.filters.automated(name, alias);
    ClusterDetails {
        name: String::from(name),
        alias: String::from(alias),
        domain: String::from(judging.context.cluster_domain(name).unwrap_or(name)),
        recovers_primary: automated.primary,
        recovers_intermediate: automated.intermediate,
    }
}

fn is_named(cluster_name: &str, key: &InstanceKey) -> bool {
    cluster_name
        .strip_prefix(key.host.as_str())
        .and_then(|rest| rest.strip_prefix(':'))
        .is_some_and(|port| port.parse() == Ok(key.port))
}

/// The newest finding of every server, kept up by telling it what changed.
///
/// Between calls: every server of the view has been judged since the last news of it, of a replica of it, or of what
/// the context says of either; and no finding is older than the instant until which it stands.
#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    problems: BTreeMap<InstanceKey, Problem>,
    /// Servers that replicas know under another name: that name, and who has it.
    joined: BTreeMap<InstanceKey, BTreeSet<InstanceKey>>,
    join_of: BTreeMap<InstanceKey, InstanceKey>,
    stands_until: BTreeMap<InstanceKey, (Option<Mono>, Option<Wall>)>,
    by_mono: BTreeSet<(Mono, InstanceKey)>,
    by_wall: BTreeSet<(Wall, InstanceKey)>,
    /// The latest wall clock reading judged by.
    wall: Wall,
}

impl Diagnosis {
    /// Judges all servers of the view: at start, and when the policy changed.
    #[must_use]
    pub fn of<C: Context + ?Sized>(view: View<'_>, judging: Judging<'_, C>) -> Self {
        let mut diagnosis = Self::default();
        diagnosis.rebuild(view, judging);
        diagnosis
    }

    /// Judges all servers of the view again. Returns the servers of which something else is found than before.
    pub fn rebuild<C: Context + ?Sized>(
        &mut self,
        view: View<'_>,
        judging: Judging<'_, C>,
    ) -> BTreeSet<InstanceKey> {
        let keys: BTreeSet<InstanceKey> = view
            .instances
            .keys()
            .chain(self.problems.keys())
            .chain(self.stands_until.keys())
            .chain(self.join_of.keys())
            .cloned()
            .collect();
        self.wall = judging.now.wall;
        self.judge(keys, view, judging)
    }

    /// Something about this server changed: a probe of it ended, it came or was forgotten, its place moved, or the
    /// context says something else of it. `former_source` is what [`Edges::update`] returned for it. Judges it and
    /// whatever it replicates from or did; its replicas rest on what they say themselves. Returns the servers of which
    /// something else is found than before.
    pub fn refresh<C: Context + ?Sized>(
        &mut self,
        key: &InstanceKey,
        former_source: Option<&InstanceKey>,
        view: View<'_>,
        judging: Judging<'_, C>,
    ) -> BTreeSet<InstanceKey> {
        let mut concerned = BTreeSet::from([key.clone()]);
        for source in view.edges.source_of(key).into_iter().chain(former_source) {
            concerned.insert(source.clone());
            concerned.extend(self.joined.get(source).into_iter().flatten().cloned());
        }
        self.judge(concerned, view, judging)
    }

    /// The alias or the domain name of a cluster changed.
    pub fn refresh_cluster<C: Context + ?Sized>(
        &mut self,
        cluster_name: &str,
        view: View<'_>,
        judging: Judging<'_, C>,
    ) -> BTreeSet<InstanceKey> {
        let members = self
            .problems
            .values()
            .filter(|problem| problem.cluster.name == cluster_name)
            .map(|problem| problem.key.clone())
            .collect();
        self.judge(members, view, judging)
    }

    /// Time passed: judges the servers whose finding stood until an instant that has come (a downtime ended, a log
    /// stood still for long enough). A wall clock that went back has them all judged again.
    pub fn advance<C: Context + ?Sized>(
        &mut self,
        view: View<'_>,
        judging: Judging<'_, C>,
    ) -> BTreeSet<InstanceKey> {
        if judging.now.wall < self.wall {
            return self.rebuild(view, judging);
        }
        let Now { mono, wall } = judging.now;
        let due: BTreeSet<InstanceKey> = self
            .by_mono
            .iter()
            .take_while(|(until, _)| *until <= mono)
            .map(|(_, key)| key.clone())
            .chain(
                self.by_wall
                    .iter()
                    .take_while(|(until, _)| *until <= wall)
                    .map(|(_, key)| key.clone()),
            )
            .collect();
        self.judge(due, view, judging)
    }

    /// The first instants, of either clock, at which [`Diagnosis::advance`] has something to do.
    #[must_use]
    pub fn stands_until(&self) -> (Option<Mono>, Option<Wall>) {
        (
            self.by_mono.first().map(|(until, _)| *until),
            self.by_wall.first().map(|(until, _)| *until),
        )
    }

    /// The finding of one server, a downtimed one included.
    #[must_use]
    pub fn problem(&self, key: &InstanceKey) -> Option<&Problem> {
        self.problems.get(key)
    }

    /// Every finding, downtimed ones included, in the order of keys.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// The findings a caller wants, in the order of entries. Servers without a problem are not kept here: for
    /// `include_no_problem` use [`diagnose_all`].
    #[must_use]
    pub fn entries(&self, hints: Hints<'_>) -> Vec<&Problem> {
        let mut problems: Vec<&Problem> = self
            .problems
            .values()
            .filter(|problem| problem.is_wanted(hints))
            .collect();
        problems.sort_unstable_by(|one, other| one.rank().cmp(&other.rank()));
        problems
    }

    fn judge<C: Context + ?Sized>(
        &mut self,
        keys: BTreeSet<InstanceKey>,
        view: View<'_>,
        judging: Judging<'_, C>,
    ) -> BTreeSet<InstanceKey> {
        self.wall = self.wall.max(judging.now.wall);
        let mut changed = BTreeSet::new();
        for key in keys {
            let finding = view.instances.get(&key).map(|server| {
                let name = joined_as(&key, judging);
                let replicas = view.edges.replicas_of(&name);
                self.note_name(&key, &name);
                find(server, replicas, view, judging, false)
            });
            if finding.is_none() {
                self.note_name(&key, &key);
            }
            let (problem, stands_until) = finding.map_or((None, (None, None)), |finding| {
                (finding.problem, finding.stands_until)
            });
            self.note_deadline(&key, stands_until);
            let is_changed = match problem {
                Some(problem) => match self.problems.get_mut(&key) {
                    Some(known) if *known == problem => false,
                    Some(known) => {
                        *known = problem;
                        true
                    }
                    None => {
                        self.problems.insert(key.clone(), problem);
                        true
                    }
                },
                None => self.problems.remove(&key).is_some(),
            };
            if is_changed {
                changed.insert(key);
            }
        }
        changed
    }

    fn note_name(&mut self, key: &InstanceKey, name: &InstanceKey) {
        let other = (name != key).then_some(name);
        if self.join_of.get(key) == other {
            return;
        }
        let former = match other {
            Some(other) => {
                self.joined
                    .entry(other.clone())
                    .or_default()
                    .insert(key.clone());
                self.join_of.insert(key.clone(), other.clone())
            }
            None => self.join_of.remove(key),
        };
        if let Some(former) = former
            && let Some(keys) = self.joined.get_mut(&former)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.joined.remove(&former);
            }
        }
    }

    fn note_deadline(&mut self, key: &InstanceKey, until: (Option<Mono>, Option<Wall>)) {
        let none = (None, None);
        let former = self.stands_until.get(key).copied().unwrap_or(none);
        if former == until {
            return;
        }
        if let Some(mono) = former.0 {
            self.by_mono.remove(&(mono, key.clone()));
        }
        if let Some(wall) = former.1 {
            self.by_wall.remove(&(wall, key.clone()));
        }
        if let Some(mono) = until.0 {
            self.by_mono.insert((mono, key.clone()));
        }
        if let Some(wall) = until.1 {
            self.by_wall.insert((wall, key.clone()));
        }
        if until == none {
            self.stands_until.remove(key);
        } else {
            self.stands_until.insert(key.clone(), until);
        }
    }
}
