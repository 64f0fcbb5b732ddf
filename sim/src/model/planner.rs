//! The planners of a dead primary's recovery and of operations against the model servers, whatever the replicas are like and
//! whatever comes of a step: what must hold of every stage is that it can be got through (a step that was done looks done, one
//! that was not is done again or given up), that nothing that a server received is forgotten, and that what is said to have
//! succeeded can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_core::id::{Epoch, InstanceKey, LogPosition, NodeId, Uid};
use orchestrator_core::policy::Policy;
use orchestrator_core::recovery::dead_primary::{self, Move, Progress, Reading, View};
use orchestrator_core::recovery::{
    DeadKind, End, HookCounts, Outcome, Purpose, Recovery, Stage, Statement, Step, hook, operation,
};
use orchestrator_core::replicated::{Answer, Command, Replicated, Stamped};
use orchestrator_core::time::{Mono, Now, Wall};
use orchestrator_core::topology::{ProbeReport, PromotionRule};
use proptest::prelude::*;

use super::server::{Kind, Process, Server};

const MOVES_MAX: usize = 3_000;
const WALL: u64 = 1_800_000_000;

fn key(number: usize) -> InstanceKey {
    InstanceKey::new(format!("m{number}"), 3306)
}

fn uid() -> Uid {
    Uid("u".to_owned())
}

/// A replica as the primary's death finds it.
#[derive(Debug, Clone)]
struct Replica {
    received: usize,
    applied: usize,
    /// What people had done there before.
    stopped: Option<Statement>,
    /// Milliseconds for one transaction.
    applies_in: u64,
}

/// What comes of a step.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Done,
    /// Nothing was sent.
    Refused,
    /// It was done, and nobody knows.
    Unseen,
    /// Its first statement was done, and nobody knows.
    Cut,
    /// The leader ends before it is sent, or behind it.
    LeaderEnds {
        sent: bool,
    },
}

fn replica() -> impl Strategy<Value = Replica> {
    let stopped = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Statement::StopIoThread)),
        1 => Just(Some(Statement::StopSqlThread)),
        1 => Just(Some(Statement::StopReplication)),
    ];
    (0..=12usize, 0..=12usize, stopped, 1..80u64).prop_map(
        |(received, applied, stopped, applies_in)| Replica {
            received,
            applied: applied.min(received),
            stopped,
            applies_in,
        },
    )
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        8 => Just(Trouble::Done),
        2 => Just(Trouble::Refused),
        2 => Just(Trouble::Unseen),
        2 => Just(Trouble::Cut),
        1 => any::<bool>().prop_map(|sent| Trouble::LeaderEnds { sent }),
    ]
}

struct World {
    now: Duration,
    servers: BTreeMap<InstanceKey, Server>,
    applied_at: BTreeMap<InstanceKey, Duration>,
    readings: BTreeMap<InstanceKey, (ProbeReport, Mono)>,
    state: Replicated,
    index: u64,
    term: u64,
    policy: Policy,
    hooks: HookCounts,
    story: Vec<String>,
}

impl View for World {
    fn now(&self) -> Now {
        Now {
            mono: Mono::from_elapsed(self.now),
            wall: self.wall(),
        }
    }
    fn policy(&self) -> &Policy {
        &self.policy
    }
    fn reading(&self, key: &InstanceKey) -> Option<Reading<'_>> {
        let (report, seen) = self.readings.get(key)?;
        Some(Reading {
            report,
            seen: *seen,
        })
    }
    fn checked(&self, key: &InstanceKey) -> Option<Mono> {
        self.readings.get(key).map(|(_, seen)| *seen)
    }
    fn replicas_of(&self, key: &InstanceKey) -> Vec<InstanceKey> {
        let of = |server: &&Server| server.source() == Some(key);
        let replicas = self.servers.values().filter(of);
        replicas.map(|server| server.key.clone()).collect()
    }
    fn members_of(&self, _: &InstanceKey) -> Vec<InstanceKey> {
        self.readings.keys().cloned().collect()
    }
    fn rule(&self, _: &InstanceKey) -> PromotionRule {
        PromotionRule::Neutral
    }
    fn names_whom_it_replaced(&self, _: &InstanceKey) -> bool {
        false
    }

    fn is_ignored_for_promotion(&self, _: &InstanceKey) -> bool {
        false
    }
    fn is_downtimed(&self, _: &InstanceKey) -> bool {
        false
    }
    fn has_returned(&self) -> bool {
        false
    }
    fn last_failed_dial(&self) -> Option<Mono> {
        Some(Mono::from_elapsed(self.now))
    }
    fn hooks(&self) -> &HookCounts {
        &self.hooks
    }
    fn detection_hooks(&self) -> hook::Next {
        hook::Next::Finished
    }
}

impl World {
    /// `m1` is the primary.
    fn fleet(kind: Kind, replicas: &[Replica]) -> Self {
        let primary = Server::new(key(1), kind, 1, false);
        let mut world = Self {
            now: Duration::from_secs(1),
            servers: BTreeMap::from([(key(1), primary)]),
            applied_at: BTreeMap::new(),
            readings: BTreeMap::new(),
            state: Replicated::default(),
            index: 0,
            term: 1,
            policy: Policy::default(),
            hooks: HookCounts::default(),
            story: Vec::new(),
        };
        let primary = world.servers.get_mut(&key(1)).unwrap();
        for write in 1..=12 {
            primary.write(write, Duration::ZERO).unwrap();
        }
        let sent = primary.transactions().to_vec();
        let identity = primary.identity();
        for (at, replica) in replicas.iter().enumerate() {
            let mut server = Server::new(key(at + 2), kind, at as u32 + 2, true);
            server.replicate_from(key(1));
            server.receiver_connected(&identity, 1);
            for transaction in &sent[..replica.received] {
                server.receive(*transaction);
            }
            for _ in 0..replica.applied {
                server.apply(Duration::ZERO);
            }
            server.set_apply_takes(Some(Duration::from_millis(replica.applies_in)));
            if let Some(statement) = &replica.stopped {
                server.execute(statement, Duration::ZERO).unwrap();
            }
            world.servers.insert(server.key.clone(), server);
        }
        let keys: Vec<InstanceKey> = world.servers.keys().cloned().collect();
        for key in &keys {
            world.read(key);
        }
        world.commit(Command::RecordCluster {
            primary: key(1),
            identity: Some(identity),
            members: keys,
        });
        world
    }

    /// `m1` is dead.
    fn new(kind: Kind, replicas: &[Replica]) -> Self {
        let mut world = Self::fleet(kind, replicas);
        world.primary_dies();
        let kind = DeadKind::Gone;
        world.begin(Purpose::DeadPrimary { kind }, &key(1));
        world
    }

    fn primary_dies(&mut self) {
        self.servers.get_mut(&key(1)).unwrap().kill();
        for server in self.servers.values_mut() {
            if server.receiver_target().is_some() {
                server.receiver_lost(true);
            }
        }
    }

    fn begin(&mut self, purpose: Purpose, server: &InstanceKey) {
        let replicas = self.servers.keys().filter(|replica| **replica != key(1));
        let replicas = replicas.cloned().collect();
        self.commit(Command::BeginRecovery {
            uid: uid(),
            purpose,
            epoch: self.epoch(),
            server: server.clone(),
            identity: Some(self.servers[server].identity()),
            cluster_name: key(1).to_string(),
            analysis: "DeadMaster".to_owned(),
            replicas,
            processing_node: "n1".to_owned(),
            processing_token: "t".to_owned(),
            forced: false,
            was_read_only: false,
        });
    }

    /// As people change it, or a recovery that went before.
    fn change(&mut self, server: &InstanceKey, statements: &[Statement]) {
        let server = self.servers.get_mut(server).expect("one of them");
        for statement in statements {
            server.execute(statement, self.now).unwrap();
        }
    }

    fn wall(&self) -> Wall {
        Wall::from_secs(WALL + self.now.as_secs())
    }

    fn epoch(&self) -> Epoch {
        Epoch {
            term: self.term,
            node: NodeId(self.term),
            boot: 1,
        }
    }

    fn recovery(&self) -> &Recovery {
        self.state.recovery(&uid()).expect("it was begun")
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        let at = LogPosition {
            index: self.index,
            term: self.term,
            node: NodeId(0),
        };
        self.story
            .push(format!("{} ms {command:?}", self.now.as_millis()));
        let wall = self.wall();
        let applied = self.state.apply(at, &Stamped { wall, command });
        if let Answer::Refused(refusal) = applied.answer {
            panic!("{refusal}\n{}", self.story.join("\n"));
        }
        assert_eq!(self.state.check_invariants(), Ok(()));
    }

    fn read(&mut self, key: &InstanceKey) {
        let server = &self.servers[key];
        if server.process() == Process::Running {
            let seen = Mono::from_elapsed(self.now);
            self.readings
                .insert(key.clone(), (server.report(self.now), seen));
        }
    }

    /// Threads do their work for as long.
    fn pass(&mut self, until: Duration) {
        while self.now < until {
            self.now = until.min(self.now + Duration::from_millis(5));
            let keys: Vec<InstanceKey> = self.servers.keys().cloned().collect();
            for key in keys {
                self.receive(&key);
                let server = self.servers.get_mut(&key).expect("one of them");
                server.proceed(self.now);
                let takes = server.apply_takes().unwrap_or_default();
                let last = self.applied_at.entry(key.clone()).or_default();
                while server.can_apply(self.now) && *last + takes <= self.now {
                    *last = self.now.max(*last + takes);
                    server.apply(self.now);
                }
            }
        }
    }

    fn receive(&mut self, key: &InstanceKey) {
        let Some((source, held)) = self.servers[key].receiver_target() else {
            return;
        };
        let Some(source) = self.servers.get(&source) else {
            return;
        };
        if source.process() != Process::Running {
            let receiver = self.servers.get_mut(key).expect("one of them");
            receiver.receiver_lost(true);
            return;
        }
        let (identity, server_id) = (source.identity(), source.server_id);
        let sent = source.dump(&held, 0);
        let receiver = self.servers.get_mut(key).expect("one of them");
        match sent {
            Ok((transactions, _)) => {
                receiver.receiver_connected(&identity, server_id);
                receiver.log_arrives();
                for transaction in transactions {
                    receiver.receive(transaction);
                }
            }
            Err(refusal) => receiver.receiver_refused(&refusal),
        }
    }

    fn send(&mut self, step: &Step, count: usize) -> Result<(), Outcome> {
        let server = self.servers.get_mut(&step.server).expect("one of them");
        for statement in step.statements.iter().take(count) {
            if server.process() != Process::Running {
                let reason = "nobody answers".to_owned();
                return Err(Outcome::Refused { code: 0, reason });
            }
            // What the adapter makes of it is not looked at here: no client is connected.
            if matches!(statement, Statement::KillClients { .. }) {
                continue;
            }
            if let Err(refusal) = server.execute(statement, self.now) {
                return Err(Outcome::Refused {
                    code: refusal.code,
                    reason: refusal.message,
                });
            }
        }
        Ok(())
    }

    fn lose_leader(&mut self, progress: &mut Progress) {
        self.term += 1;
        self.pass(self.now + Duration::from_millis(400));
        let epoch = self.epoch();
        self.commit(Command::TakeOver { uid: uid(), epoch });
        *progress = Progress::new(Mono::from_elapsed(self.now));
    }

    fn run(&mut self, step: &Step, trouble: Trouble, progress: &mut Progress) -> bool {
        let unknown = || Outcome::Unknown {
            reason: "the connection ended".to_owned(),
        };
        self.pass(self.now + Duration::from_millis(3));
        let outcome = match trouble {
            Trouble::Done => self.send(step, usize::MAX).err().unwrap_or(Outcome::Done),
            Trouble::Refused => Outcome::Refused {
                code: 0,
                reason: "not sent".to_owned(),
            },
            Trouble::Unseen => {
                let _ = self.send(step, usize::MAX);
                unknown()
            }
            Trouble::Cut => {
                let _ = self.send(step, 1);
                unknown()
            }
            Trouble::LeaderEnds { sent } => {
                if sent {
                    let _ = self.send(step, usize::MAX);
                }
                self.lose_leader(progress);
                return false;
            }
        };
        if step.read_after && outcome == Outcome::Done {
            self.read(&step.server);
        }
        progress
            .ended_at
            .insert(step.id, Mono::from_elapsed(self.now));
        let epoch = self.epoch();
        self.commit(Command::Settle {
            uid: uid(),
            epoch,
            outcomes: vec![(step.id, outcome)],
            lines: Vec::new(),
        });
        true
    }

    /// Commits steps, and runs them.
    fn intend(
        &mut self,
        (stage, candidate, ending): (Stage, Option<InstanceKey>, Option<Box<End>>),
        steps: Vec<Step>,
        lines: Vec<String>,
        troubles: &mut impl Iterator<Item = Trouble>,
        progress: &mut Progress,
    ) {
        self.commit(Command::Intend {
            uid: uid(),
            epoch: self.epoch(),
            stage,
            candidate,
            steps: steps.clone(),
            ending,
            lines,
        });
        for step in &steps {
            let trouble = troubles.next().unwrap_or(Trouble::Done);
            self.story.push(format!("{trouble:?} of {step}"));
            if !self.run(step, trouble, progress) {
                break;
            }
        }
    }

    /// Until the recovery ends.
    fn recover(&mut self, troubles: &[Trouble]) {
        let mut troubles = troubles.iter().copied();
        let mut progress = Progress::new(Mono::from_elapsed(self.now));
        for _ in 0..MOVES_MAX {
            let mine = self.epoch();
            let recovery = self.recovery();
            let next = if recovery.purpose.is_recovery() {
                dead_primary::next(recovery, self, &mut progress, mine)
            } else {
                operation::next(recovery, self, &mut progress)
            };
            match next {
                Move::Wait { until } => self.wait(until),
                Move::Look { keys, until } => {
                    self.wait(until);
                    for key in keys {
                        self.read(&key);
                    }
                }
                Move::Intend {
                    stage,
                    candidate,
                    steps,
                    lines,
                } => self.intend(
                    (stage, candidate, None),
                    steps,
                    lines,
                    &mut troubles,
                    &mut progress,
                ),
                Move::Undo {
                    ending,
                    steps,
                    lines,
                } => {
                    let intent = (Stage::Undo, None, Some(Box::new(ending)));
                    self.intend(intent, steps, lines, &mut troubles, &mut progress);
                }
                Move::Remark {
                    lines,
                    errors,
                    possible_loss,
                } => self.commit(Command::Remark {
                    uid: uid(),
                    epoch: mine,
                    lines,
                    errors,
                    possible_loss,
                }),
                Move::End {
                    end,
                    successor,
                    lost,
                    participants,
                    lines,
                } => {
                    let successor_identity = successor
                        .as_ref()
                        .map(|successor| self.servers[successor].identity());
                    return self.commit(Command::EndRecovery {
                        uid: uid(),
                        epoch: mine,
                        end,
                        successor,
                        successor_identity,
                        successor_alias: String::new(),
                        lost,
                        participants,
                        lines,
                    });
                }
            }
        }
        panic!(
            "stuck in {}\n{}",
            self.recovery().stage,
            self.story.join("\n")
        );
    }

    fn wait(&mut self, until: Mono) {
        let now = Mono::from_elapsed(self.now);
        let left = until.since(now).max(Duration::from_millis(1));
        self.pass(self.now + left.min(Duration::from_secs(1)));
    }

    /// The writes that a server holds, applied or not.
    fn held(&self, key: &InstanceKey) -> BTreeSet<u64> {
        let server = &self.servers[key];
        let all = server.transactions().iter().chain(server.unapplied());
        all.map(|transaction| transaction.write).collect()
    }
}

/// How it ended.
fn check(kind: Kind, replicas: &[Replica], troubles: &[Trouble], skips_drain: bool) -> Recovery {
    let mut world = World::new(kind, replicas);
    world.policy.skip_drain = skips_drain;
    let before: BTreeMap<InstanceKey, BTreeSet<u64>> = world
        .servers
        .keys()
        .map(|key| (key.clone(), world.held(key)))
        .collect();
    world.recover(troubles);
    let story = || world.story.join("\n");
    for (key, server) in &world.servers {
        assert_eq!(server.forgotten_ever(), 0, "{key} forgot\n{}", story());
        assert!(
            world.held(key).is_superset(&before[key]),
            "{key} lost what it had\n{}",
            story()
        );
    }
    let recovery = world.recovery().clone();
    let writable: Vec<&InstanceKey> = world
        .servers
        .values()
        .filter(|server| server.is_writable())
        .map(|server| &server.key)
        .collect();
    let Some(successor) = recovery
        .successor
        .clone()
        .filter(|_| recovery.is_successful())
    else {
        assert!(
            recovery.is_past_return() || writable.is_empty(),
            "{writable:?} was opened\n{}",
            story()
        );
        return recovery;
    };
    assert_eq!(writable, [&successor], "{}", story());
    let of_successor = world.held(&successor);
    for (key, server) in &world.servers {
        if *key == successor || *key == self::key(1) || recovery.lost.contains(key) {
            continue;
        }
        assert_eq!(server.source(), Some(&successor), "{key}\n{}", story());
        assert!(server.follows_its_source(), "{key}\n{}", story());
        let named = recovery
            .possible_loss
            .iter()
            .any(|text| text.contains(&key.to_string()));
        assert!(
            named || of_successor.is_superset(&before[key]),
            "{successor} lacks what {key} had received\n{}",
            story()
        );
    }
    recovery
}

/// What is done to a server beside recoveries.
#[derive(Debug, Clone, Copy)]
enum Operation {
    SetReadOnly,
    SetWriteable,
    Quarantine,
    /// Of a primary that restarted.
    Reopen,
    /// Of `m2`, which still names the dead `m1`, below `m3`.
    Rejoin,
}

const OPERATIONS: [Operation; 5] = [
    Operation::SetReadOnly,
    Operation::SetWriteable,
    Operation::Quarantine,
    Operation::Reopen,
    Operation::Rejoin,
];

/// How it ended. `m3` holds everything.
fn check_operation(
    kind: Kind,
    operation: Operation,
    replicas: &[Replica; 2],
    troubles: &[Trouble],
) -> Recovery {
    let whole = Replica {
        received: 12,
        applied: 12,
        stopped: None,
        applies_in: 1,
    };
    let [first, last] = replicas.clone();
    let mut world = World::fleet(kind, &[first, whole, last]);
    let (purpose, server) = match operation {
        Operation::SetReadOnly => (Purpose::SetReadOnly, key(1)),
        Operation::SetWriteable => (Purpose::SetWriteable, key(2)),
        Operation::Quarantine => {
            let deposed_by = Uid("before".to_owned());
            (Purpose::Quarantine { deposed_by }, key(1))
        }
        Operation::Reopen => {
            world.change(&key(1), &[Statement::Fence]);
            (Purpose::Reopen, key(1))
        }
        Operation::Rejoin => {
            world.primary_dies();
            let promotion = [
                Statement::StopReplication,
                Statement::ResetReplicaAll,
                Statement::MakeWriteable,
            ];
            world.change(&key(3), &promotion);
            let primary = key(3);
            (Purpose::Rejoin { primary }, key(2))
        }
    };
    for number in 1..=4 {
        world.read(&key(number));
    }
    let shown = |world: &World, key: &InstanceKey| {
        let server = &world.servers[key];
        (server.source().cloned(), server.is_writable())
    };
    let keys: Vec<InstanceKey> = world.servers.keys().cloned().collect();
    let before: Vec<_> = keys
        .iter()
        .map(|key| (world.held(key), shown(&world, key)))
        .collect();
    world.begin(purpose, &server);
    world.recover(troubles);
    let story = || world.story.join("\n");
    for (key, (held, was_shown)) in keys.iter().zip(before) {
        let forgotten = world.servers[key].forgotten_ever();
        assert_eq!(forgotten, 0, "{key} forgot\n{}", story());
        assert!(world.held(key).is_superset(&held), "{key}\n{}", story());
        if *key != server {
            assert_eq!(shown(&world, key), was_shown, "{key}\n{}", story());
        }
    }
    let recovery = world.recovery().clone();
    if recovery.is_successful() {
        let (source, is_writable) = shown(&world, &server);
        match operation {
            Operation::SetReadOnly | Operation::Quarantine => {
                assert!(!is_writable, "{}", story());
            }
            Operation::SetWriteable | Operation::Reopen => assert!(is_writable, "{}", story()),
            Operation::Rejoin => assert_eq!(source, Some(key(3)), "{}", story()),
        }
    }
    recovery
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_recovery_gets_through_whatever_comes_of_its_steps(
        kind in prop_oneof![Just(Kind::Mysql), Just(Kind::Mariadb)],
        replicas in prop::collection::vec(replica(), 1..5),
        troubles in prop::collection::vec(trouble(), 0..16),
        skips_drain in any::<bool>(),
    ) {
        check(kind, &replicas, &troubles, skips_drain);
    }

    #[test]
    fn an_operation_gets_through_whatever_comes_of_its_steps(
        kind in prop_oneof![Just(Kind::Mysql), Just(Kind::Mariadb)],
        operation in prop::sample::select(OPERATIONS.as_slice()),
        replicas in [replica(), replica()],
        troubles in prop::collection::vec(trouble(), 0..6),
    ) {
        check_operation(kind, operation, &replicas, &troubles);
    }

    /// Nothing goes wrong, and nobody had stopped anything: it succeeds.
    #[test]
    fn an_undisturbed_operation_succeeds(
        kind in prop_oneof![Just(Kind::Mysql), Just(Kind::Mariadb)],
        operation in prop::sample::select(OPERATIONS.as_slice()),
        replicas in [replica(), replica()],
    ) {
        let mut replicas = replicas;
        for replica in &mut replicas {
            replica.stopped = None;
        }
        let recovery = check_operation(kind, operation, &replicas, &[]);
        assert!(recovery.is_successful(), "{:?}", recovery.end);
    }

    /// Nothing goes wrong, and nobody had stopped anything: somebody is promoted, and nobody is lost.
    #[test]
    fn an_undisturbed_recovery_succeeds(
        kind in prop_oneof![Just(Kind::Mysql), Just(Kind::Mariadb)],
        replicas in prop::collection::vec(replica(), 1..5),
        skips_drain in any::<bool>(),
    ) {
        let mut replicas = replicas;
        for replica in &mut replicas {
            replica.stopped = None;
        }
        let recovery = check(kind, &replicas, &[], skips_drain);
        assert!(recovery.is_successful(), "{:?}", recovery.end);
        assert_eq!(recovery.lost, []);
    }
}
