//! Three nodes over a model raft log and a model fleet, in one thread, driven by `next_deadline`. Everything that holds
//! always is asserted here: no effect without its committed intent, one recovery a cluster, equal digests, and no node
//! that wants to be called again at the instant at which it was just called.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use orchestrator_core::{
    analysis::{Code, StructureCode},
    id::{Epoch, InstanceKey, LogPosition, NodeId, ProposalId, RequestId, Uid},
    node::{
        Effect, HookRun, Identification, Input, Level, Node, Output, PeerMessage, ProbeEnd,
        Proposal, RaftView, Reply, Request, Sign, StepEnd,
    },
    policy::Policy,
    recovery::{
        End, Hook, HookCounts, HookFacts, HookList, Outcome, Phase, Recovery, Statement, Step,
        StepKind,
        forecast::{Forecast, Known, forecast},
    },
    replicated::{Answer, Command, Entry, Replicated, wire},
    time::{Mono, Now, Wall},
    topology::{Flavour, Instance, ProbeFailure, ThroughFence},
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::fleet::{Channel, Fleet, Server, Txn};

pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1000 * MS;
/// Most times that a node may be called in a simulated second.
const STEPS_PER_SECOND_MAX: u32 = 3000;
const WALL_BASE: u64 = 1_800_000_000 * SEC;

#[derive(Debug)]
enum Event {
    /// An input for one run of a daemon.
    Input(usize, u64, Input),
    Commit {
        by: usize,
        boot: u64,
        id: ProposalId,
        term: u64,
        bytes: Vec<u8>,
    },
    Deliver(usize, u64),
    ProbeAt(usize, u64, InstanceKey, u64),
    Dial(usize, u64, InstanceKey),
    Beat(usize, u64, InstanceKey),
    Late(usize, u64, InstanceKey, u64),
    Silent(usize, u64, InstanceKey, u64),
    Closed(usize, u64, InstanceKey),
    Statement {
        by: usize,
        boot: u64,
        uid: Uid,
        epoch: Epoch,
        step: Step,
        at: usize,
    },
    Write,
}

#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    redial: Duration,
    is_up: bool,
    /// When the last beat came.
    beat: u64,
    dialling: bool,
}

pub struct Daemon {
    pub node: Node,
    pub up: bool,
    pub boot: u64,
    applied: usize,
    rng: StdRng,
    watches: BTreeMap<InstanceKey, Watch>,
    /// Names that its adapter keeps something to: they were read or watched, and not dropped.
    pub kept: BTreeSet<InstanceKey>,
    second: u64,
    steps: u32,
    /// Raised by each step, in order.
    answers: Vec<Answer>,
}

/// A hook that was run.
#[derive(Debug, Clone)]
pub struct RanHook {
    pub by: usize,
    pub hook: Hook,
    pub facts: HookFacts,
    /// When it began.
    pub at: u64,
}

pub struct World {
    pub now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub daemons: Vec<Daemon>,
    log: Vec<(LogPosition, Option<Vec<u8>>)>,
    pub leader: Option<usize>,
    pub term: u64,
    /// Until then the leader takes no proposals, as one that hands over.
    pub hands_over_until: u64,
    /// Readings of servers that were asked for.
    pub probes: usize,
    /// How many it did not take.
    pub proposals_refused: usize,
    pub fleet: Fleet,
    /// Other names, and the servers that answer there.
    pub aliases: BTreeMap<InstanceKey, InstanceKey>,
    /// Daemon and server that cannot reach each other.
    pub cut: BTreeSet<(usize, InstanceKey)>,
    /// What was decided, as a further member would have it.
    pub oracle: Replicated,
    pub trace: Vec<String>,
    /// What daemons logged as warnings and errors.
    pub warnings: Vec<String>,
    pub replies: BTreeMap<RequestId, Reply>,
    pub policy: Policy,
    last_request: u64,
    pub acknowledged: BTreeSet<Txn>,
    /// What is sent to these servers arrives so many nanoseconds late.
    pub late_steps: BTreeMap<InstanceKey, u64>,
    /// Effects of recoveries so far (steps and proposals of the leader), for tests that stop it after the k-th.
    pub moves: usize,
    /// Depose the leader when so many moves were made: and bring it back after it, or kill it.
    pub depose_after: Option<usize>,
    /// Whether proposals on their way survive the end of their leader.
    pub orphans_survive: bool,
    pub writes: bool,
    /// The daemons' clocks are ahead by so many nanoseconds.
    pub clocks_ahead: u64,
    /// How long a replica dials its source when replication is started.
    pub connect_time: u64,
    /// How long its source looks for the place in its log then.
    pub seek_time: u64,
    /// Recoveries that a test has waited for.
    pub finished: usize,
    /// Servers that a Promote step opened, with the uid.
    pub promoted: Vec<(Uid, InstanceKey)>,
    /// The hooks of the daemons' files.
    pub hook_counts: HookCounts,
    /// How long each takes, in nanoseconds.
    pub hook_takes: u64,
    /// From the proposal of a detection to its commit.
    pub detection_takes: u64,
    pub hooks_that_fail: BTreeSet<Hook>,
    /// Hooks that were run, in the order in which they began.
    pub hooks: Vec<RanHook>,
    /// Of which positions each daemon told its digest.
    pub digests_told: BTreeSet<(usize, LogPosition)>,
}

pub fn key(number: u16) -> InstanceKey {
    InstanceKey::new(format!("db{number}"), 3306)
}

impl World {
    pub fn new(flavour: Flavour, replicas: u16) -> Self {
        Self::with(flavour, replicas, |_| {})
    }

    pub fn with(flavour: Flavour, replicas: u16, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy {
            recover_primary_filters: vec![String::from("*")],
            ..Policy::default()
        };
        change(&mut policy);
        let mut fleet = Fleet::default();
        for number in 1..=replicas + 1 {
            let server = Server {
                key: key(number),
                flavour,
                server_id: u32::from(number),
                up: true,
                frozen: false,
                started: 0,
                read_only: number != 1,
                starts_read_only: number != 1,
                applied: BTreeSet::new(),
                channel: (number != 1).then(|| Channel::to(key(1))),
                purged: BTreeSet::new(),
                is_denied: false,
                deaf: false,
                believes: false,
                stuck: false,
                sql_error: None,
                fences: 0,
                flowed: None,
                log_bin: true,
                without_gtid: false,
                options: Vec::new(),
                overloaded: false,
                missing_privileges: Vec::new(),
                through_fence: ThroughFence::Nobody,
                acknowledges: false,
                refused: Vec::new(),
                connects_at: 0,
                arrives_at: 0,
                statements: Vec::new(),
                refuses: BTreeMap::new(),
                applier_stops_with: None,
            };
            fleet.servers.insert(server.key.clone(), server);
        }
        let daemons = (0..3)
            .map(|number| Self::daemon(&policy, number, 1))
            .collect();
        let mut world = Self {
            now: 1000 * SEC,
            seq: 0,
            queue: BTreeMap::new(),
            daemons,
            log: Vec::new(),
            leader: None,
            term: 0,
            hands_over_until: 0,
            proposals_refused: 0,
            probes: 0,
            fleet,
            aliases: BTreeMap::new(),
            cut: BTreeSet::new(),
            oracle: Replicated::default(),
            trace: Vec::new(),
            warnings: Vec::new(),
            replies: BTreeMap::new(),
            policy,
            last_request: 0,
            acknowledged: BTreeSet::new(),
            late_steps: BTreeMap::new(),
            moves: 0,
            depose_after: None,
            orphans_survive: true,
            writes: true,
            clocks_ahead: 0,
            connect_time: 0,
            seek_time: 0,
            promoted: Vec::new(),
            hook_counts: HookCounts::default(),
            hook_takes: 100 * MS,
            detection_takes: 2 * MS,
            hooks_that_fail: BTreeSet::new(),
            hooks: Vec::new(),
            digests_told: BTreeSet::new(),
            finished: 0,
        };
        world.at(0, Event::Write);
        for number in 0..3 {
            world.start(number);
        }
        world.elect(0);
        let request = world.ask(Request::Discover(key(1)));
        world.run(12 * SEC);
        assert!(
            matches!(world.replies.get(&request), Some(Reply::Probed(_))),
            "the discovery was answered with {:?}",
            world.replies.get(&request)
        );
        assert_eq!(world.oracle.known_count(), usize::from(replicas) + 1);
        assert!(world.oracle.cluster_of(&key(1)).is_some());
        world
    }

    fn daemon(policy: &Policy, number: usize, boot: u64) -> Daemon {
        let _ = policy;
        Daemon {
            node: Node::new(
                Identification {
                    host_name: format!("daemon{number}"),
                    token: format!("t{number}-{boot}"),
                },
                Policy::default(),
                Replicated::default(),
            ),
            up: true,
            boot,
            applied: 0,
            rng: StdRng::seed_from_u64(number as u64),
            watches: BTreeMap::new(),
            kept: BTreeSet::new(),
            second: 0,
            steps: 0,
            answers: Vec::new(),
        }
    }

    fn start(&mut self, number: usize) {
        let policy = self.policy.clone();
        self.step(number, Input::LocalPolicy(Box::new(policy)));
        self.step(number, Input::LocalHooks(self.hook_counts));
        self.deliver(number);
        self.tell_raft(number);
    }

    // --- what tests do ---

    pub fn run(&mut self, nanos: u64) {
        let until = self.now + nanos;
        while self.one(until) {}
        self.now = until;
    }

    /// Runs until the condition holds, at most so long; false if it did not.
    pub fn run_until(&mut self, nanos: u64, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now + nanos;
        loop {
            if holds(self) {
                return true;
            }
            if !self.one(until) {
                self.now = until;
                return holds(self);
            }
        }
    }

    pub fn server(&mut self, number: u16) -> &mut Server {
        self.fleet
            .servers
            .get_mut(&key(number))
            .expect("a server of this world")
    }

    pub fn kill(&mut self, number: u16) {
        self.fleet.flow(self.now);
        self.say(format!("kill -9 of {}", key(number)));
        let server = self.server(number);
        server.up = false;
        server.frozen = false;
        server.fences = 0;
        for daemon in 0..3 {
            let boot = self.daemons[daemon].boot;
            if self.daemons[daemon]
                .watches
                .get(&key(number))
                .is_some_and(|watch| watch.is_up)
            {
                self.after(
                    (14 + 20 * daemon as u64) * MS,
                    Event::Closed(daemon, boot, key(number)),
                );
            }
        }
    }

    /// Every connection of ours there is lost, and no other is taken.
    pub fn overload(&mut self, number: u16) {
        self.say(format!("{} takes no more connections", key(number)));
        self.server(number).overloaded = true;
        for daemon in 0..3 {
            let boot = self.daemons[daemon].boot;
            self.after(MS, Event::Closed(daemon, boot, key(number)));
        }
    }

    /// What a daemon finds of a server: the analysis code, its structure codes, and the details.
    pub fn found(&self, daemon: usize, number: u16) -> Option<(Code, Vec<StructureCode>, String)> {
        let problem = self.daemons[daemon]
            .node
            .diagnosis()
            .problem(&key(number))?;
        Some((
            problem.code,
            problem.structure.clone(),
            problem.details().join("; "),
        ))
    }

    /// Where this daemon shows a server.
    pub fn cluster_name(&self, daemon: usize, number: u16) -> String {
        let node = &self.daemons[daemon].node;
        node.observed().instances[&key(number)]
            .place
            .cluster_name
            .clone()
    }

    /// What a daemon foretells for the primary of that number.
    pub fn foretold(&self, daemon: usize, number: u16) -> Forecast {
        let now = self.time();
        let node = &self.daemons[daemon].node;
        let instances = &node.observed().instances;
        let replicas: Vec<&Instance> = instances
            .values()
            .filter(|instance| instance.source() == Some(&key(number)))
            .collect();
        let known = Known {
            now,
            replicated: node.replicated(),
            diagnosis: node.diagnosis(),
            filters: node.filters(),
        };
        forecast(&instances[&key(number)], &replicas, known)
    }

    pub fn restart(&mut self, number: u16) {
        self.say(format!("start of {}", key(number)));
        let now = self.now;
        self.server(number).restart(now);
    }

    pub fn freeze(&mut self, number: u16) {
        self.fleet.flow(self.now);
        self.say(format!("SIGSTOP of {}", key(number)));
        self.server(number).frozen = true;
    }

    pub fn thaw(&mut self, number: u16) {
        self.say(format!("SIGCONT of {}", key(number)));
        self.server(number).frozen = false;
        self.fences_arrive(number);
    }

    /// Its network is slower than its clients: the fences are on their way.
    pub fn thaw_before_fences(&mut self, number: u16) {
        self.say(format!("SIGCONT of {}, fences later", key(number)));
        self.server(number).frozen = false;
    }

    /// Those whose sessions are there.
    pub fn fences_arrive(&mut self, number: u16) {
        let server = self.server(number);
        if core::mem::take(&mut server.fences) > 0 {
            server.read_only = true;
        }
    }

    /// Every daemon's file has so many hooks in these lists.
    pub fn have_hooks(&mut self, counts: &[(HookList, usize)]) {
        self.hook_counts = HookCounts::of(|list| {
            counts
                .iter()
                .find(|(counted, _)| *counted == list)
                .map_or(0, |(_, count)| *count)
        });
        for number in 0..3 {
            self.step(number, Input::LocalHooks(self.hook_counts));
        }
    }

    /// Version 2 of commands and snapshots is switched on.
    pub fn switch_on_version_2(&mut self) {
        self.ask(Request::Decide(Command::SetVersion {
            command: 2,
            snapshot: 2,
        }));
        self.expect(SEC, "version 2", |world| {
            world.daemons.iter().all(|daemon| {
                let versions = daemon.node.replicated().versions();
                (versions.command, versions.snapshot) == (2, 2)
            })
        });
    }

    /// The hooks that were run so far, as text.
    pub fn ran(&self) -> Vec<String> {
        self.hooks.iter().map(|ran| ran.hook.to_string()).collect()
    }

    /// A message arrives at a daemon as if a member had sent it.
    pub fn hear(&mut self, number: usize, from: NodeId, message: PeerMessage) {
        self.step(number, Input::Peer(from, message));
    }

    pub fn ask(&mut self, request: Request) -> RequestId {
        let leader = self.leader.expect("a leader");
        self.ask_of(leader, request)
    }

    pub fn ask_of(&mut self, daemon: usize, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.step(daemon, Input::Asked(id, request));
        id
    }

    pub fn elect(&mut self, number: usize) {
        self.term += 1;
        self.leader = Some(number);
        self.say(format!("daemon{number} leads term {}", self.term));
        for daemon in 0..3 {
            self.tell_raft(daemon);
        }
    }

    /// One that led before finds its quorum again before another was elected: it leads on in its term.
    pub fn regain(&mut self, number: usize) {
        self.leader = Some(number);
        self.say(format!("daemon{number} leads on in term {}", self.term));
        for daemon in 0..3 {
            self.tell_raft(daemon);
        }
    }

    /// The leader leads no more; the next one is elected after 400 ms.
    pub fn depose(&mut self) -> usize {
        let former = self.leader.take().expect("a leader");
        self.say(format!("daemon{former} leads no more"));
        // What it proposed lately is in the log, or is not; it does not know.
        let on_their_way: Vec<(u64, u64)> = self
            .queue
            .iter()
            .filter(|(_, event)| matches!(event, Event::Commit { .. }))
            .map(|(at, _)| *at)
            .collect();
        for at in on_their_way {
            let Some(Event::Commit {
                by,
                boot,
                id,
                term,
                bytes,
            }) = self.queue.remove(&at)
            else {
                continue;
            };
            if self.orphans_survive {
                self.append(term, Some(bytes));
            }
            self.after(
                5 * MS,
                Event::Input(by, boot, Input::Proposed(id, Proposal::Unknown)),
            );
        }
        self.tell_raft(former);
        for daemon in 0..3 {
            self.tell_raft(daemon);
        }
        former
    }

    pub fn kill_daemon(&mut self, number: usize) {
        if self.leader == Some(number) {
            self.depose();
        }
        self.say(format!("kill -9 of daemon{number}"));
        self.daemons[number].up = false;
    }

    pub fn restart_daemon(&mut self, number: usize) {
        self.say(format!("start of daemon{number}"));
        let boot = self.daemons[number].boot + 1;
        let policy = self.policy.clone();
        self.daemons[number] = Self::daemon(&policy, number, boot);
        self.start(number);
    }

    /// All daemons are told to read their files again.
    pub fn set_policy(&mut self, policy: &Policy) {
        self.policy = policy.clone();
        for number in 0..3 {
            self.step(number, Input::LocalPolicy(Box::new(policy.clone())));
        }
    }

    /// One daemon's file is another one.
    pub fn set_policy_of(&mut self, number: usize, policy: &Policy) {
        self.step(number, Input::LocalPolicy(Box::new(policy.clone())));
    }

    pub fn running(&self) -> Option<&Recovery> {
        self.oracle.running().next()
    }

    pub fn recoveries(&self) -> Vec<&Recovery> {
        let mut all: Vec<&Recovery> = self
            .oracle
            .recoveries_newest_first()
            .filter(|recovery| recovery.purpose.is_recovery())
            .collect();
        all.reverse();
        all
    }

    pub fn last(&self) -> &Recovery {
        self.recoveries().last().copied().expect("a recovery")
    }

    /// Whether its receiver is on.
    pub fn receives(&self, number: u16) -> bool {
        let channel = self.fleet.servers[&key(number)].channel.as_ref();
        channel.is_some_and(|channel| channel.io)
    }

    pub fn writeable(&self) -> Vec<InstanceKey> {
        self.fleet
            .servers
            .values()
            .filter(|server| server.answers() && !server.read_only)
            .map(|server| server.key.clone())
            .collect()
    }

    /// The story so far, for a failure's message.
    pub fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(250);
        self.trace[from..].join("\n")
    }

    #[track_caller]
    pub fn expect(&mut self, nanos: u64, what: &str, holds: impl FnMut(&Self) -> bool) {
        let held = self.run_until(nanos, holds);
        assert!(
            held,
            "not within {} ms: {what}\n{}",
            nanos / MS,
            self.story()
        );
    }

    #[track_caller]
    pub fn expect_succeeded(&mut self, nanos: u64, number: u16) {
        self.expect(nanos, "a recovery that ended", |world| {
            world.running().is_none()
                && world.recoveries().len() > world.finished
                && world
                    .recoveries()
                    .last()
                    .is_some_and(|recovery| recovery.end.is_some())
        });
        self.finished = self.recoveries().len();
        let recovery = self.last();
        assert!(
            matches!(recovery.end, Some((_, End::Succeeded)))
                && recovery.successor == Some(key(number)),
            "{:?} with successor {:?}, expected db{number}\n{}",
            recovery.end,
            recovery.successor,
            self.story()
        );
        let server = &self.fleet.servers[&key(number)];
        assert!(
            !server.read_only,
            "{} is not writeable\n{}",
            server.key,
            self.story()
        );
    }

    // --- the machinery ---

    pub fn say(&mut self, text: String) {
        self.trace
            .push(format!("{:>10} {text}", (self.now - 1000 * SEC) / 1000));
    }

    fn after(&mut self, nanos: u64, event: Event) {
        self.at(nanos, event);
    }

    fn at(&mut self, nanos: u64, event: Event) {
        self.seq += 1;
        self.queue.insert((self.now + nanos, self.seq), event);
    }

    pub fn time(&self) -> Now {
        Now {
            mono: Mono::from_nanos(self.now),
            wall: Wall::from_nanos(WALL_BASE + self.clocks_ahead + self.now),
        }
    }

    /// One event or one deadline, if there is any before `until`.
    fn one(&mut self, until: u64) -> bool {
        let next_event = self.queue.first_key_value().map(|(at, _)| *at);
        let next_wake = (0..3)
            .filter(|number| self.daemons[*number].up)
            .map(|number| (self.daemons[number].node.next_deadline().0.nanos(), number))
            .min();
        let wake_at = next_wake.map_or(u64::MAX, |(at, _)| at.max(self.now));
        let event_at = next_event.map_or(u64::MAX, |(at, _)| at);
        if wake_at.min(event_at) > until {
            return false;
        }
        self.fleet.flow(self.now);
        if event_at <= wake_at {
            let (at, _) = next_event.expect("the earliest");
            let event = self
                .queue
                .remove(&next_event.expect("the earliest"))
                .expect("it is there");
            self.now = at;
            self.happen(event);
        } else if let Some((_, number)) = next_wake {
            self.now = wake_at;
            self.step(number, Input::Wake);
            let (again, why) = self.daemons[number].node.next_deadline();
            assert!(
                again.nanos() > self.now,
                "daemon{number} was called and wants to be called at once again for: {why}\n{}",
                self.story()
            );
        }
        true
    }

    fn step(&mut self, number: usize, input: Input) {
        let now = self.time();
        let second = self.now / SEC;
        let daemon = &mut self.daemons[number];
        if daemon.second != second {
            daemon.second = second;
            daemon.steps = 0;
        }
        daemon.steps += 1;
        let is_hot = daemon.steps > STEPS_PER_SECOND_MAX;
        let mut out = Output::default();
        daemon.node.step(now, &mut daemon.rng, input, &mut out);
        daemon.answers.extend(out.applied);
        assert!(!is_hot, "daemon{number} loops\n{}", self.story());
        assert_eq!(out.fatal, None);
        for note in out.notes {
            if note.level >= Level::Warning {
                self.warnings.push(note.text.clone());
            }
            self.say(format!("daemon{number}: {note}"));
        }
        for effect in out.effects {
            self.effect(number, effect);
        }
    }

    fn is_this_run(&self, number: usize, boot: u64) -> bool {
        self.daemons[number].up && self.daemons[number].boot == boot
    }

    fn epoch_of(&self, number: usize) -> Option<Epoch> {
        (self.leader == Some(number) && self.daemons[number].up).then(|| Epoch {
            term: self.term,
            node: NodeId(number as u64 + 1),
            boot: self.daemons[number].boot,
        })
    }

    fn tell_raft(&mut self, number: usize) {
        if !self.daemons[number].up {
            return;
        }
        let view = RaftView {
            node: NodeId(number as u64 + 1),
            leading: self.epoch_of(number),
            leader: self.leader.map(|leader| NodeId(leader as u64 + 1)),
            voters: (1..=3).map(NodeId).collect(),
            healthy: self.leader.is_some(),
        };
        self.step(number, Input::Raft(view));
    }

    fn append(&mut self, term: u64, bytes: Option<Vec<u8>>) {
        let at = LogPosition {
            index: self.log.len() as u64 + 1,
            term,
            node: NodeId(0),
        };
        if let Some(bytes) = &bytes {
            let stamped = wire::decode_command(bytes).expect("a command of ours");
            let applied = self.oracle.apply(at, &stamped);
            if let Answer::Refused(refusal) = applied.answer {
                self.say(format!("refused: {refusal}: {:?}", stamped.command));
            }
            self.oracle
                .check_invariants()
                .expect("replicated invariants");
            assert!(self.oracle.running().count() <= 1, "two recoveries run");
        }
        self.log.push((at, bytes));
        for daemon in 0..3 {
            let boot = self.daemons[daemon].boot;
            self.after(0, Event::Deliver(daemon, boot));
        }
    }

    fn deliver(&mut self, number: usize) {
        let from = self.daemons[number].applied;
        if from >= self.log.len() {
            return;
        }
        let entries = self.log[from..]
            .iter()
            .map(|(at, bytes)| (*at, bytes.clone().map_or(Entry::Blank, Entry::Command)))
            .collect();
        self.daemons[number].applied = self.log.len();
        self.step(number, Input::Committed(entries));
        if self.daemons[number].applied == self.log.len() {
            assert_eq!(
                self.daemons[number].node.digest(),
                self.oracle.digest(),
                "same position, same digest"
            );
        }
    }

    fn is_reachable(&self, number: usize, key: &InstanceKey) -> Option<&Server> {
        self.fleet
            .servers
            .get(key)
            .filter(|_| !self.cut.contains(&(number, key.clone())))
    }

    fn count_move(&mut self) {
        self.moves += 1;
        if self.depose_after == Some(self.moves) {
            self.depose_after = None;
            self.depose();
        }
    }

    fn effect(&mut self, number: usize, effect: Effect) {
        let boot = self.daemons[number].boot;
        match effect {
            Effect::Probe { key, .. } => {
                self.probes += 1;
                self.daemons[number].kept.insert(key.clone());
                let began = self.now;
                let after = match self.is_reachable(number, &key) {
                    Some(server) if server.frozen => SEC,
                    Some(_) => MS,
                    None => SEC,
                };
                self.after(after, Event::ProbeAt(number, boot, key, began));
            }
            Effect::Watch { key, redial } => {
                self.daemons[number].kept.insert(key.clone());
                let watch = self.daemons[number].watches.entry(key.clone()).or_default();
                watch.redial = redial;
                if !watch.is_up && !watch.dialling {
                    watch.dialling = true;
                    self.after(MS / 2, Event::Dial(number, boot, key));
                }
            }
            Effect::Unwatch { key } => {
                self.daemons[number].watches.remove(&key);
            }
            Effect::Drop { key } => {
                self.daemons[number].watches.remove(&key);
                self.daemons[number].kept.remove(&key);
            }
            Effect::Run { uid, epoch, step } => {
                self.say(format!("daemon{number} runs {step}"));
                let intended = self
                    .oracle
                    .recovery(&uid)
                    .and_then(|recovery| recovery.steps.get(&step.id));
                assert!(
                    matches!(intended, Some((held, Phase::Intended(by))) if *held == step && *by == epoch),
                    "{step} has no committed intent under {epoch}\n{}",
                    self.story()
                );
                let late = self.late_steps.get(&step.server).copied();
                self.after(
                    3 * MS + late.unwrap_or_default(),
                    Event::Statement {
                        by: number,
                        boot,
                        uid,
                        epoch,
                        step,
                        at: 0,
                    },
                );
                self.count_move();
            }
            Effect::RunHook {
                run,
                epoch,
                hook,
                facts,
            } => {
                let held = match &run {
                    HookRun::Step { uid, step } => self
                        .oracle
                        .recovery(uid)
                        .and_then(|recovery| recovery.steps.get(step))
                        .map(|(_, phase)| phase),
                    HookRun::Detection(number) => self
                        .oracle
                        .detection(*number)
                        .and_then(|detection| detection.telling.as_ref())
                        .filter(|telling| telling.hook() == hook)
                        .map(|telling| &telling.phase),
                };
                let needs_none =
                    matches!(run, HookRun::Detection(_)) && self.oracle.versions().command < 2;
                assert!(
                    needs_none || held == Some(&Phase::Intended(epoch)),
                    "{hook} has no committed intent under {epoch}\n{}",
                    self.story()
                );
                self.say(format!("daemon{number} runs {hook}"));
                let led = self.epoch_of(number) == Some(epoch);
                if led {
                    self.hooks.push(RanHook {
                        by: number,
                        hook,
                        facts: *facts,
                        at: self.now,
                    });
                }
                let outcome = if !led {
                    Outcome::Refused {
                        code: 0,
                        reason: String::from("not leading"),
                    }
                } else if self.hooks_that_fail.contains(&hook) {
                    Outcome::Refused {
                        code: 1,
                        reason: String::from("exit code 1"),
                    }
                } else {
                    Outcome::Done
                };
                let input = match run {
                    HookRun::Step { uid, step } => Input::StepEnded(StepEnd {
                        uid,
                        step,
                        epoch,
                        outcome,
                        identity: None,
                        report: None,
                    }),
                    HookRun::Detection(number) => Input::DetectionHookEnded {
                        number,
                        epoch,
                        hook,
                        outcome,
                    },
                };
                let takes = self.hook_takes;
                self.after(takes, Event::Input(number, boot, input));
                self.count_move();
            }
            Effect::FenceFrozen { key, .. } => {
                self.say(format!(
                    "daemon{number} leaves a fence in its connection to {key}"
                ));
                let is_up = self.daemons[number]
                    .watches
                    .get(&key)
                    .is_some_and(|watch| watch.is_up || watch.beat > 0);
                if let Some(server) = self.fleet.servers.get_mut(&key)
                    && is_up
                {
                    if server.frozen {
                        server.fences += 1;
                    } else if server.up {
                        server.read_only = true;
                    }
                }
            }
            Effect::Propose { id, bytes, .. } => {
                let stamped = wire::decode_command(&bytes).expect("a command of ours");
                self.say(format!(
                    "daemon{number} proposes {}",
                    short(&format!("{:?}", stamped.command))
                ));
                if self.leader == Some(number) && self.now < self.hands_over_until {
                    self.proposals_refused += 1;
                    self.after(
                        MS / 100,
                        Event::Input(number, boot, Input::Proposed(id, Proposal::Refused)),
                    );
                } else if self.leader == Some(number) {
                    let term = self.term;
                    let takes = match stamped.command {
                        Command::RegisterDetection(_) => self.detection_takes,
                        _ => 2 * MS,
                    };
                    self.after(
                        takes,
                        Event::Commit {
                            by: number,
                            boot,
                            id,
                            term,
                            bytes,
                        },
                    );
                    self.count_move();
                } else {
                    self.after(
                        MS,
                        Event::Input(number, boot, Input::Proposed(id, Proposal::Refused)),
                    );
                }
            }
            Effect::Tell(message) => {
                if let PeerMessage::Digest { at, .. } = &message {
                    self.digests_told.insert((number, *at));
                }
                for other in (0..3).filter(|other| *other != number) {
                    let boot = self.daemons[other].boot;
                    let from = NodeId(number as u64 + 1);
                    self.after(
                        MS,
                        Event::Input(other, boot, Input::Peer(from, message.clone())),
                    );
                }
            }
            Effect::TellOne(to, message) => {
                let other = to.0 as usize - 1;
                let boot = self.daemons[other].boot;
                let from = NodeId(number as u64 + 1);
                self.after(MS, Event::Input(other, boot, Input::Peer(from, message)));
            }
            Effect::Seat { .. }
            | Effect::HandOver { .. }
            | Effect::Explain(_)
            | Effect::Greet(_) => {
                panic!("the members of this world are not changed")
            }
            Effect::Answer(id, reply) => {
                self.say(format!("daemon{number} answers {id}: {reply:?}"));
                let before = self.replies.insert(id, reply);
                assert_eq!(before, None, "{id} was answered twice");
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(number, boot, input) => {
                if self.is_this_run(number, boot) {
                    self.step(number, input);
                }
            }
            Event::Commit {
                by,
                boot,
                id,
                term,
                bytes,
            } => {
                if self.leader != Some(by) || self.term != term {
                    self.after(
                        0,
                        Event::Input(by, boot, Input::Proposed(id, Proposal::Unknown)),
                    );
                    return;
                }
                self.append(term, Some(bytes));
                self.daemons[by].answers.clear();
                self.deliver(by);
                if let Some(answer) = self.daemons[by].answers.last().cloned() {
                    self.step(by, Input::Proposed(id, Proposal::Committed(answer)));
                }
            }
            Event::Deliver(number, boot) => {
                if self.is_this_run(number, boot) {
                    self.deliver(number);
                }
            }
            Event::ProbeAt(number, boot, key, began) => {
                if !self.is_this_run(number, boot) {
                    return;
                }
                let name = self.aliases.get(&key).unwrap_or(&key);
                let result = match self.is_reachable(number, name) {
                    None => Err(ProbeFailure::Unreachable),
                    Some(server) if !server.up => Err(ProbeFailure::Refused),
                    Some(server) if server.frozen => Err(ProbeFailure::NoLogin),
                    Some(server) if server.overloaded => Err(ProbeFailure::ServerError {
                        code: 1040,
                        message: String::from("Too many connections"),
                    }),
                    Some(server) => Ok(Box::new(self.fleet.report(&server.key, self.now))),
                };
                let partial_success = result.is_ok();
                let end = ProbeEnd {
                    key,
                    began: Mono::from_nanos(began),
                    result,
                    partial_success,
                };
                // The answer travels.
                self.after(MS, Event::Input(number, boot, Input::Probed(end)));
            }
            Event::Dial(number, boot, key) => self.dial(number, boot, key),
            Event::Beat(number, boot, key) => self.beat(number, boot, key),
            Event::Late(number, boot, key, beat) => {
                if self.is_missing(number, boot, &key, beat) {
                    self.step(number, Input::Signed(key.clone(), Sign::PulseLate));
                    self.after(1250 * MS, Event::Silent(number, boot, key, beat));
                }
            }
            Event::Silent(number, boot, key, beat) => {
                if self.is_missing(number, boot, &key, beat) {
                    if let Some(watch) = self.daemons[number].watches.get_mut(&key) {
                        watch.is_up = false;
                        watch.dialling = true;
                    }
                    self.step(number, Input::Signed(key.clone(), Sign::PulseSilent));
                    self.after(0, Event::Dial(number, boot, key));
                }
            }
            Event::Closed(number, boot, key) => {
                if !self.is_this_run(number, boot) {
                    return;
                }
                let Some(watch) = self.daemons[number].watches.get_mut(&key) else {
                    return;
                };
                watch.is_up = false;
                watch.dialling = true;
                self.step(number, Input::Signed(key.clone(), Sign::PulseClosed));
                self.after(MS, Event::Dial(number, boot, key));
            }
            Event::Statement {
                by,
                boot,
                uid,
                epoch,
                step,
                at,
            } => self.statement(by, boot, uid, epoch, step, at),
            Event::Write => {
                if self.writes {
                    let primary = self.writeable();
                    if let [primary] = &primary[..]
                        && let Some(server) = self.fleet.servers.get_mut(primary)
                        && let Some(txn) = server.write()
                    {
                        self.acknowledged.insert(txn);
                    }
                }
                self.after(100 * MS, Event::Write);
            }
        }
    }

    fn is_missing(&self, number: usize, boot: u64, key: &InstanceKey, beat: u64) -> bool {
        self.is_this_run(number, boot)
            && self.daemons[number]
                .watches
                .get(key)
                .is_some_and(|watch| watch.is_up && watch.beat == beat)
            && !self.is_reachable(number, key).is_some_and(Server::answers)
    }

    fn dial(&mut self, number: usize, boot: u64, key: InstanceKey) {
        if !self.is_this_run(number, boot) || !self.daemons[number].watches.contains_key(&key) {
            return;
        }
        let redial =
            u64::try_from(self.daemons[number].watches[&key].redial.as_nanos()).expect("short");
        let (sign, again) = match self.is_reachable(number, &key) {
            None => (Sign::DialUnreachable, 800 * MS),
            Some(server) if !server.up => (Sign::DialRefused, redial),
            Some(server) if server.frozen => (Sign::DialNoLogin, 800 * MS),
            Some(server) if server.overloaded => (Sign::DialError(1040), redial),
            Some(server) => (Sign::PulseUp(server.identity()), 0),
        };
        if again == 0 {
            let now = self.now;
            if let Some(watch) = self.daemons[number].watches.get_mut(&key) {
                *watch = Watch {
                    is_up: true,
                    beat: now,
                    dialling: false,
                    ..*watch
                };
            }
            self.after(SEC, Event::Beat(number, boot, key.clone()));
            self.step(number, Input::Signed(key, sign));
        } else if matches!(sign, Sign::DialRefused | Sign::DialError(_)) {
            self.after(again, Event::Dial(number, boot, key.clone()));
            self.step(number, Input::Signed(key, sign));
        } else {
            // Told when its deadline has passed.
            self.after(
                again,
                Event::Input(number, boot, Input::Signed(key.clone(), sign)),
            );
            self.after(again + redial, Event::Dial(number, boot, key));
        }
    }

    fn beat(&mut self, number: usize, boot: u64, key: InstanceKey) {
        if !self.is_this_run(number, boot) {
            return;
        }
        let answers = self.is_reachable(number, &key).is_some_and(Server::answers);
        let silent = self
            .is_reachable(number, &key)
            .is_none_or(|server| server.frozen);
        let now = self.now;
        let Some(watch) = self.daemons[number].watches.get_mut(&key) else {
            return;
        };
        if !watch.is_up {
            return;
        }
        if answers {
            watch.beat = now;
            self.after(SEC, Event::Beat(number, boot, key.clone()));
            self.step(number, Input::Signed(key, Sign::PulseBeat));
        } else if silent {
            let beat = watch.beat;
            self.after(250 * MS, Event::Late(number, boot, key.clone(), beat));
            self.after(SEC, Event::Beat(number, boot, key));
        }
    }

    fn statement(&mut self, by: usize, boot: u64, uid: Uid, epoch: Epoch, step: Step, at: usize) {
        let end = |outcome, report| {
            let end = StepEnd {
                uid: uid.clone(),
                step: step.id,
                epoch,
                outcome,
                identity: None,
                report,
            };
            Event::Input(by, boot, Input::StepEnded(end))
        };
        let refused = |code, reason: &str| Outcome::Refused {
            code,
            reason: reason.to_string(),
        };
        if self.epoch_of(by) != Some(epoch) || self.daemons[by].boot != boot {
            self.after(0, end(refused(0, "leadership is not confirmed"), None));
            return;
        }
        let server = match self.is_reachable(by, &step.server) {
            Some(server) if server.answers() => server,
            Some(server) if !server.up => {
                self.after(MS, end(refused(0, "connection refused"), None));
                return;
            }
            _ => {
                let deadline = u64::try_from(step.deadline.as_nanos()).expect("short");
                self.after(
                    deadline,
                    end(
                        Outcome::Unknown {
                            reason: String::from("no answer"),
                        },
                        None,
                    ),
                );
                return;
            }
        };
        if step
            .identity
            .as_ref()
            .is_some_and(|wanted| *wanted != server.identity())
        {
            self.after(0, end(refused(0, "another server answers"), None));
            return;
        }
        let Some(statement) = step.statements.get(at).cloned() else {
            let report = Box::new(self.fleet.report(&step.server, self.now));
            self.after(MS, end(Outcome::Done, Some(report)));
            return;
        };
        let server = self
            .fleet
            .servers
            .get_mut(&step.server)
            .expect("it answered");
        let result = server.run(&statement);
        if matches!(
            statement,
            Statement::StartReplication | Statement::StartIoThread
        ) {
            server.connects_at = self.now + self.connect_time;
            server.arrives_at = server.connects_at + self.seek_time;
        }
        self.fleet.flow(self.now);
        if step.kind == StepKind::Promote && statement == Statement::MakeWriteable && result.is_ok()
        {
            self.assert_holds_most(by, &step.server, &uid);
            self.promoted.push((uid.clone(), step.server.clone()));
            self.say(format!("{} is open", step.server));
        }
        match result {
            Ok(()) => self.after(
                MS,
                Event::Statement {
                    by,
                    boot,
                    uid,
                    epoch,
                    step,
                    at: at + 1,
                },
            ),
            Err((code, reason)) => {
                let report = Box::new(self.fleet.report(&step.server, self.now));
                self.after(MS, end(refused(code, &reason), Some(report)));
            }
        }
    }

    /// No replica that could be halted and read had received what the promoted one lacks.
    fn assert_holds_most(&self, by: usize, promoted: &InstanceKey, uid: &Uid) {
        let held = self.fleet.servers[promoted].held();
        let failed = self
            .oracle
            .recovery(uid)
            .map(|recovery| recovery.server.clone());
        for server in self.fleet.servers.values() {
            let is_halted = server
                .channel
                .as_ref()
                .is_some_and(|channel| Some(&channel.source) == failed.as_ref() && !channel.io);
            let was_stopped_before = !server
                .statements
                .iter()
                .any(|text| text == "stop IO thread");
            if !is_halted
                || was_stopped_before
                || !server.answers()
                || self.cut.contains(&(by, server.key.clone()))
            {
                continue;
            }
            let more: Vec<Txn> = server
                .held()
                .difference(&held)
                .copied()
                .filter(|(origin, _)| *origin != server.server_id)
                .collect();
            assert!(
                more.is_empty(),
                "{promoted} was promoted, and {} holds {more:?} beside it\n{}",
                server.key,
                self.story()
            );
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(220).collect()
}
