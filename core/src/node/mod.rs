//! The step function: one way in, one struct out.
//!
//! A [`Node`] holds two halves: what it observes of the fleet itself, and what was decided, which raft applies. It
//! decides; it never blocks, fails or acts. Only a node that is *leading* proposes and repairs; every node probes,
//! judges for itself, and tells the others what it thinks.

mod agreement;
mod backoff;
mod beside;
mod choice;
mod clock;
pub mod effect;
mod halted;
mod hooks;
mod house;
pub mod input;
mod invariants;
mod judge;
mod members;
mod names;
mod observe;
mod original;
mod repair;
mod request;
mod restart;

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use agreement::Agreement;
use backoff::Backoff;
pub use effect::{Effect, Fatal, HookRun, Level, Note, Output, PeerMessage, Reply, Word};
use hooks::{Remembered, Unrecorded};
pub use input::{
    Input, Opinion, OpinionKind, ProbeEnd, Proposal, RaftView, Request, Sign, StepEnd,
};
pub use members::MembersView;
use observe::Adopt;
pub use original::LocalOriginal;
use rand_core::Rng;

use crate::{
    analysis::{
        diagnose::{self, Diagnosis, Hints, Problem},
        evidence::{Context, Judging},
        filters::Filters,
        verdict::Watched,
    },
    id::{
        ClusterKey, Epoch, Identity, InstanceKey, LogPosition, NodeId, ProposalId, RequestId,
        StepId, Uid,
    },
    limits,
    policy::Policy,
    recovery::{HookCounts, Outcome, dead_primary::Progress},
    replicated::{
        Command, Entry, Refusal, Replicated, Stamped, Versions, snapshot::SNAPSHOT_VERSION, wire,
    },
    time::{Mono, Now, Wall},
    topology::{Edges, Instance},
};

/// A proposal whose fate raft did not tell by then is unknown.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(10);
/// The adapter tells of the deadline itself; a proposal of which nothing is heard for so long is taken for unknown.
const PROPOSAL_LOST: Duration = Duration::from_secs(12);
/// How often the leader looks after what is not urgent.
const HOUSE_INTERVAL: Duration = Duration::from_millis(500);
/// For so long a file must differ from what all obey before it is told of: a new leader's policy is in the log by then.
const DIFFERS_FOR: Duration = Duration::from_secs(3);

/// Who this daemon is, for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identification {
    pub host_name: String,
    /// Random, one a process; 64 hex digits.
    pub token: String,
}

/// What this node observes. Volatile: rebuilt by probing.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub instances: BTreeMap<InstanceKey, Instance>,
    /// Of the same instances.
    pub edges: Edges,
    /// Replicas of a silent primary that claim to replicate and stand still.
    standing_still: BTreeSet<InstanceKey>,
}

/// What an outstanding proposal is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    Request(RequestId),
    /// A server that was read for these requests is to be known.
    Discover(InstanceKey, Vec<RequestId>),
    /// The next move of a recovery; nothing else is planned for it meanwhile.
    Recovery(Uid),
    /// Opening a recovery or an operation of this server.
    Begin(InstanceKey, Uid),
    /// A detection that must be on record before this recovery of the server is opened: two proposals that are on their way
    /// at once may be committed in any order, and a recovery waits for the hooks of the detection that it finds.
    Detection {
        key: InstanceKey,
        uid: Uid,
        begin: Box<Command>,
    },
    /// How the hooks of this detection go on; nothing else is planned for them meanwhile.
    Telling(u64),
    /// A change of the daemons' own membership, or of what is known of them.
    Members,
    /// The same, begun for an operator.
    MembersFor(RequestId, BTreeSet<NodeId>),
    House,
}

/// What a suspicion of a server has gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspicion {
    since: Mono,
    /// The replicas were last asked for at this time.
    looked: Mono,
    /// It was last thought over at this time.
    judged: Mono,
    asked: Option<Mono>,
    /// What each replica had received, and when that last changed.
    received: BTreeMap<InstanceKey, (u64, Mono)>,
    /// A replica's receiver ran on while dials were refused.
    ran_on: bool,
    /// A verdict was acted on; not before this again.
    again: Mono,
    /// It was not, for a downtime, a filter or the like.
    is_held_up: bool,
    /// Verdicts that were acted on: only the first is worth a warning.
    verdicts: u32,
    /// Recoveries that failed since.
    failures: u32,
    /// Under which the newest verdict is told, and which the recovery that it opens has.
    uid: Option<Uid>,
}

/// In which of the configuration's keys this daemon's own file differs from the policy that another leader has all obey.
#[derive(Debug, Clone, Default)]
struct Differing {
    keys: Vec<&'static str>,
    since: Option<Mono>,
    is_told: bool,
}

/// The decision core of one daemon.
#[derive(Debug)]
pub struct Node {
    identification: Identification,
    /// The newest versions that this daemon reads.
    reads: Versions,
    local_policy: Policy,
    /// The policy in force, as it was told of last.
    obeyed: Policy,
    differing: Differing,
    raft: RaftView,
    /// Since when this daemon has had no quorum, by its own sight.
    alone_since: Option<Mono>,
    replicated: Replicated,
    log_clock: clock::LogClock,
    observed: Observed,
    filters: Filters,
    /// (`ClusterNameToAlias`), compiled.
    aliases: Vec<(regex::Regex, String)>,
    diagnosis: Diagnosis,

    watched: BTreeMap<InstanceKey, Watched>,
    watching: BTreeMap<InstanceKey, Duration>,
    suspicions: BTreeMap<InstanceKey, Suspicion>,
    heard: BTreeMap<InstanceKey, BTreeMap<NodeId, (Opinion, Mono)>>,
    told: BTreeMap<InstanceKey, OpinionKind>,
    late_at: Option<Mono>,
    failing_since: BTreeMap<InstanceKey, Mono>,

    due: BTreeSet<(Mono, InstanceKey)>,
    due_of: BTreeMap<InstanceKey, Mono>,
    in_flight: BTreeMap<InstanceKey, Mono>,
    again: BTreeSet<InstanceKey>,

    proposals: BTreeMap<ProposalId, (Cause, Mono)>,
    last_proposal: u64,
    discovering: BTreeMap<InstanceKey, Vec<(RequestId, bool)>>,
    operations: BTreeMap<Uid, RequestId>,
    learned: restart::Learned,
    choices: choice::Choices,
    original: Option<Box<LocalOriginal>>,
    /// When a deposed primary may be closed again.
    fenced_again: BTreeMap<Identity, Backoff>,
    /// Deposed primaries that take writes and are left to people, of which this leader has told.
    left_open: BTreeSet<Identity>,
    /// When a lost replica may be pointed at its primary again.
    rejoined: BTreeMap<InstanceKey, Backoff>,
    left_halted: halted::LeftHalted,
    names: names::Names,
    beginning: BTreeSet<InstanceKey>,
    last_uid: u64,

    progress: BTreeMap<Uid, Progress>,
    /// How steps ended, until the record says so.
    outcomes: BTreeMap<Uid, Vec<(StepId, Outcome)>>,
    /// The epoch under which this daemon leads, or led last: it leads on under it if it finds its quorum again before
    /// another is elected.
    last_led: Option<Epoch>,
    wait_until: BTreeMap<Uid, Mono>,
    house_at: Mono,
    members: members::Keeping,
    /// Primaries that were promoted away from lately, dialled without pause until this time.
    dialled_until: BTreeMap<InstanceKey, Mono>,
    agreement: Agreement,
    /// Of this daemon's own file.
    hooks: HookCounts,
    /// Detections that this leader registered while there was no place on record for where their hooks stand.
    remembered: BTreeMap<u64, Remembered>,
    /// Of detections whose hooks are on record.
    unrecorded: BTreeMap<u64, Unrecorded>,
    /// It was told which right is missing to see whom a fence would not stop.
    is_told_of_fences: bool,
    /// Steps taken so far.
    steps: u64,
    /// How many daemons can see a watched server, of how many, where not all can.
    partly_seen: BTreeMap<InstanceKey, (u32, u32)>,
    /// When the others were last asked whether they see a watched server.
    asked_about: BTreeMap<InstanceKey, Mono>,
    /// When the newest recovery of a cluster ended.
    repaired_at: BTreeMap<ClusterKey, Mono>,
}

impl Node {
    #[must_use]
    pub fn new(
        identification: Identification,
        local_policy: Policy,
        replicated: Replicated,
    ) -> Self {
        let (filters, _) = Filters::compile_or_skip(replicated.policy());
        let left_halted = halted::LeftHalted::of(&replicated);
        let obeyed = replicated.policy().clone();
        Self {
            identification,
            reads: Versions {
                command: u32::from(wire::COMMAND_VERSION),
                snapshot: u32::from(SNAPSHOT_VERSION),
            },
            local_policy,
            obeyed,
            differing: Differing::default(),
            raft: RaftView::default(),
            alone_since: None,
            replicated,
            log_clock: clock::LogClock::default(),
            observed: Observed::default(),
            filters,
            aliases: Vec::new(),
            diagnosis: Diagnosis::default(),
            watched: BTreeMap::new(),
            watching: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            heard: BTreeMap::new(),
            told: BTreeMap::new(),
            late_at: None,
            failing_since: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            again: BTreeSet::new(),
            proposals: BTreeMap::new(),
            last_proposal: 0,
            discovering: BTreeMap::new(),
            operations: BTreeMap::new(),
            learned: restart::Learned::default(),
            choices: choice::Choices::default(),
            original: None,
            fenced_again: BTreeMap::new(),
            left_open: BTreeSet::new(),
            rejoined: BTreeMap::new(),
            left_halted,
            names: names::Names::default(),
            beginning: BTreeSet::new(),
            last_uid: 0,
            progress: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            last_led: None,
            wait_until: BTreeMap::new(),
            house_at: Mono::ZERO,
            members: members::Keeping::default(),
            dialled_until: BTreeMap::new(),
            agreement: Agreement::default(),
            hooks: HookCounts::default(),
            remembered: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            is_told_of_fences: false,
            steps: 0,
            partly_seen: BTreeMap::new(),
            asked_about: BTreeMap::new(),
            repaired_at: BTreeMap::new(),
        }
    }

    /// The same node, which reads these versions and no later ones: as one of an earlier release would, for tests.
    #[must_use]
    pub fn reading(mut self, reads: Versions) -> Self {
        self.reads = reads;
        self
    }

    /// The newest versions that this daemon reads.
    #[must_use]
    pub const fn reads(&self) -> Versions {
        self.reads
    }

    /// Takes one input in. Total: never fails, never blocks.
    pub fn step(&mut self, read: Now, rng: &mut impl Rng, input: Input, out: &mut Output) {
        self.follow_own_clock(read);
        let now = self.time(read);
        match input {
            Input::Wake => {}
            Input::RanLate => self.ran_late(now, out),
            Input::Probed(end) => self.probed(now, end, out),
            Input::Signed(key, sign) => self.signed(now, &key, &sign, out),
            Input::Committed(entries) => self.committed(now, rng, entries, out),
            Input::Proposed(id, outcome) => self.proposed(now, id, outcome, out),
            Input::Raft(view) => self.raft_changed(now, view, out),
            Input::StepEnded(end) => self.step_ended(now, end, out),
            Input::Sight(sight) => self.members.sight = *sight,
            Input::Seated(ended) => self.seat_ended(now, ended, out),
            Input::Peer(from, message) => self.peer_said(now, from, message, out),
            Input::Asked(id, request) => self.asked(now, id, request, out),
            Input::DetectionHookEnded {
                number,
                epoch,
                hook,
                outcome,
            } => self.detection_hook_ended(now, (number, epoch, hook), outcome, out),
            Input::LocalPolicy(policy) => self.local_policy = *policy,
            Input::LocalHooks(counts) => self.hooks = counts,
            Input::LocalOriginal(original) => self.original = Some(original),
        }
        self.follow_log_time(now);
        self.advance(now, rng, out);
        self.end_step(out);
    }

    /// What time alone makes due.
    fn advance(&mut self, now: Now, rng: &mut impl Rng, out: &mut Output) {
        self.probe_due(now, rng, out);
        self.refresh_by_time(now);
        self.judge_all(now, out);
        if now.mono >= self.house_at {
            self.house_at = now.mono + HOUSE_INTERVAL;
            self.drop_lost(now, out);
            self.keep_watches(now, out);
            self.tell_digest(now, out);
            self.keep_members(now, out);
            self.keep_house(now, out);
        }
        self.drive_all(now, out);
    }

    /// When to call [`Node::step`] with [`Input::Wake`] at the latest, and why.
    #[must_use]
    pub fn next_deadline(&self) -> (Mono, &'static str) {
        let mut next = (self.house_at, "housekeeping");
        let mut consider = |at: Option<Mono>, why| {
            if let Some(at) = at
                && at < next.0
            {
                next = (at, why);
            }
        };
        consider(self.due.first().map(|(at, _)| *at), "poll");
        consider(self.next_move(), "recovery");
        consider(self.next_judgement(), "judgement");
        next
    }

    /// Replaces the replicated half by a snapshot's.
    pub fn install(
        &mut self,
        read: Now,
        rng: &mut impl Rng,
        replicated: Replicated,
        out: &mut Output,
    ) {
        self.replicated = replicated;
        if let Err(fatal) = self.check_versions(self.replicated.applied()) {
            out.fatal = Some(fatal);
            return;
        }
        self.follow_log_time(read);
        let now = self.time(read);
        self.installed();
        self.learn_all(now);
        self.left_halted = halted::LeftHalted::of(&self.replicated);
        self.policy_changed(now);
        let known: Vec<InstanceKey> = self.replicated.known().cloned().collect();
        let gone: Vec<InstanceKey> = self
            .observed
            .instances
            .keys()
            .filter(|key| !self.replicated.is_known(key))
            .cloned()
            .collect();
        for key in gone {
            self.forget(now, &key, out);
        }
        for key in known {
            self.know(now, rng, &key);
        }
        let clusters: Vec<ClusterKey> = self
            .replicated
            .clusters()
            .map(|record| record.key)
            .collect();
        for cluster in clusters {
            self.place_primary(now, cluster);
        }
    }

    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed
    }

    #[must_use]
    pub const fn replicated(&self) -> &Replicated {
        &self.replicated
    }

    #[must_use]
    pub const fn raft(&self) -> &RaftView {
        &self.raft
    }

    #[must_use]
    pub const fn identification(&self) -> &Identification {
        &self.identification
    }

    #[must_use]
    pub const fn local_policy(&self) -> &Policy {
        &self.local_policy
    }

    /// The configuration's keys in which this daemon's own file differs from the policy that all obey.
    #[must_use]
    pub fn differing_settings(&self) -> Vec<&'static str> {
        self.local_policy.differs_in(self.policy())
    }

    #[must_use]
    pub const fn filters(&self) -> &Filters {
        &self.filters
    }

    #[must_use]
    pub const fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.replicated.policy()
    }

    /// The newest analysis of the whole fleet.
    #[must_use]
    pub fn problems(&self, now: Now, hints: Hints<'_>) -> Vec<Problem> {
        let context = self.context(now);
        diagnose::diagnose_all(
            self.view(),
            Judging {
                policy: self.policy(),
                filters: &self.filters,
                context: &context,
                now,
            },
            hints,
        )
    }

    /// What this daemon thinks of a server that it watches.
    #[must_use]
    pub fn opinion_of(&self, now: Mono, key: &InstanceKey) -> Option<OpinionKind> {
        let watched = self.watched.get(key)?;
        let credible = self.is_credible(now);
        Some(watched.opinion(now, self.policy(), credible, self.is_vouched_for(key)))
    }

    /// A hash of the replicated half: equal at equal positions on all daemons.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.replicated.digest()
    }

    // --- shared by the parts ---

    fn view(&self) -> diagnose::View<'_> {
        diagnose::View {
            instances: &self.observed.instances,
            edges: &self.observed.edges,
        }
    }

    fn context(&self, now: Now) -> Judged<'_> {
        Judged {
            replicated: &self.replicated,
            standing_still: &self.observed.standing_still,
            partly_seen: &self.partly_seen,
            now,
        }
    }

    fn refresh(&mut self, now: Now, key: &InstanceKey, former_source: Option<&InstanceKey>) {
        self.rejudge(now, |diagnosis, view, judging| {
            diagnosis.refresh(key, former_source, view, judging);
        });
    }

    fn refresh_by_time(&mut self, now: Now) {
        self.rejudge(now, |diagnosis, view, judging| {
            diagnosis.advance(view, judging);
        });
    }

    fn policy_changed(&mut self, now: Now) {
        let (filters, _) = Filters::compile_or_skip(self.replicated.policy());
        self.filters = filters;
        self.aliases = self
            .policy()
            .cluster_name_to_alias
            .iter()
            .filter_map(|(pattern, alias)| Some((regex::Regex::new(pattern).ok()?, alias.clone())))
            .collect();
        // A verdict that opened nothing under the policy before may open a recovery under this one.
        for suspicion in self.suspicions.values_mut() {
            suspicion.again = suspicion.again.min(now.mono);
        }
        self.rejudge(now, |diagnosis, view, judging| {
            diagnosis.rebuild(view, judging);
        });
    }

    /// What changed in the policy in force.
    fn tell_policy(&mut self, out: &mut Output) {
        let obeyed = self.policy().clone();
        let changed = obeyed.differs_in(&self.obeyed);
        if !changed.is_empty() {
            let text = format!(
                "the leader's file is obeyed: {} changed",
                changed.join(", ")
            );
            // The first one changes what nobody had said.
            let level = match self.obeyed == Policy::default() {
                true => Level::Info,
                false => Level::Warning,
            };
            note(out, level, None, text);
        }
        self.obeyed = obeyed;
    }

    /// What this daemon's own file says otherwise than the policy that another leader has all obey; once, when it has been so
    /// for a moment: who leads anew has its own obeyed first.
    fn tell_differing(&mut self, now: Now, out: &mut Output) {
        if self.raft.leader.is_none() || self.leading().is_some() {
            self.differing = Differing::default();
            return;
        }
        let keys = self.differing_settings();
        if self.differing.since.is_none() || keys != self.differing.keys {
            self.differing = Differing {
                keys,
                since: Some(now.mono),
                is_told: false,
            };
        }
        let differing = &mut self.differing;
        let is_settled =
            (differing.since).is_some_and(|since| now.mono.since(since) >= DIFFERS_FOR);
        if is_settled && !differing.is_told && !differing.keys.is_empty() {
            differing.is_told = true;
            let text = format!(
                "this daemon's file differs from the leader's in {}: another leader would change what all obey; make the files the same",
                differing.keys.join(", ")
            );
            note(out, Level::Warning, None, text);
        }
    }

    /// Brings the diagnosis up to what this node knows.
    fn rejudge(
        &mut self,
        now: Now,
        judge: impl FnOnce(&mut Diagnosis, diagnose::View<'_>, Judging<'_, Judged<'_>>),
    ) {
        let context = Judged {
            replicated: &self.replicated,
            standing_still: &self.observed.standing_still,
            partly_seen: &self.partly_seen,
            now,
        };
        let judging = Judging {
            policy: self.replicated.policy(),
            filters: &self.filters,
            context: &context,
            now,
        };
        let view = diagnose::View {
            instances: &self.observed.instances,
            edges: &self.observed.edges,
        };
        judge(&mut self.diagnosis, view, judging);
    }

    /// The epoch under which this node may act.
    const fn leading(&self) -> Option<Epoch> {
        self.raft.leading
    }

    /// Whether it was proposed; if not, a note says why.
    fn propose(&mut self, now: Now, cause: Cause, command: Command, out: &mut Output) -> bool {
        self.try_propose(now, cause, command, out).is_ok()
    }

    /// # Errors
    /// Why nothing was proposed; a note says it too.
    fn try_propose(
        &mut self,
        now: Now,
        cause: Cause,
        command: Command,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        if self.proposals.len() >= limits::PROPOSALS_PENDING_MAX {
            note(
                out,
                Level::Warning,
                None,
                "too many proposals are on their way; one more was not made".to_owned(),
            );
            return Err(Refusal::Full {
                what: "proposals on their way".to_owned(),
                limit: limits::PROPOSALS_PENDING_MAX as u64,
            });
        }
        let stamped = Stamped {
            wall: now.wall,
            command,
        };
        // Versions only go up, so whatever is in force here is in force where this is applied.
        let version = self.replicated.versions().command;
        let bytes = match wire::encode_command(version, &stamped) {
            Ok(bytes) => bytes,
            Err(not_yet) => {
                let why = not_yet.to_string();
                note(out, Level::Warning, None, format!("not proposed: {why}"));
                return Err(Refusal::Invalid(why));
            }
        };
        self.last_proposal += 1;
        let id = ProposalId(self.last_proposal);
        self.proposals.insert(id, (cause, now.mono));
        out.effects.push(Effect::Propose {
            id,
            bytes,
            deadline: PROPOSAL_DEADLINE,
        });
        Ok(())
    }

    fn next_uid(&mut self, epoch: Epoch, at: Wall) -> Uid {
        self.last_uid += 1;
        Uid::of(epoch, self.last_uid, at)
    }
}

fn note(out: &mut Output, level: Level, uid: Option<&Uid>, text: String) {
    out.notes.push(Note {
        level,
        uid: uid.cloned(),
        text,
    });
}

/// What diagnosis asks beside the probes.
struct Judged<'a> {
    replicated: &'a Replicated,
    standing_still: &'a BTreeSet<InstanceKey>,
    partly_seen: &'a BTreeMap<InstanceKey, (u32, u32)>,
    now: Now,
}

impl Context for Judged<'_> {
    fn downtime_end(&self, key: &InstanceKey) -> Option<Wall> {
        self.replicated
            .downtime_of(key, self.now.wall)
            .map(|downtime| downtime.until)
    }

    fn is_in_maintenance(&self, key: &InstanceKey) -> bool {
        self.replicated.maintenance_of(key, self.now.wall).is_some()
    }

    fn cluster_alias(&self, cluster_name: &str) -> Option<&str> {
        self.replicated
            .cluster_named(cluster_name)
            .map(|record| record.shown_alias())
            .filter(|alias| !alias.is_empty())
    }

    fn cluster_domain(&self, cluster_name: &str) -> Option<&str> {
        self.replicated
            .cluster_named(cluster_name)
            .map(|record| record.domain.as_str())
            .filter(|domain| !domain.is_empty())
    }

    fn daemons_seeing(&self, key: &InstanceKey) -> Option<(u32, u32)> {
        self.partly_seen.get(key).copied()
    }

    fn primary_in_place_of(&self, replaced: &Identity) -> Option<&InstanceKey> {
        let row = self.replicated.deposed_of(replaced)?;
        let record = self.replicated.cluster(row.cluster)?;
        Some(&record.primary)
    }

    fn is_standing_still(&self, replica: &InstanceKey) -> bool {
        self.standing_still.contains(replica)
    }
}

/// Committed entries as raft delivers them.
type Entries = Vec<(LogPosition, Entry)>;

/// Keeps a box out of the signatures of the parts.
type Report = Box<crate::topology::ProbeReport>;
