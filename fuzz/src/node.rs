//! Inputs of the decision core in any order and at any time: two nodes that are given the same do the same, what they
//! hold stays whole, and what one step comes to is bounded.

use std::{collections::BTreeMap, time::Duration};

use orchestrator_core::{
    gtid::{self, GtidSet},
    id::{Epoch, Identity, InstanceKey, LogPosition, NodeId, ProposalId, RequestId, Uid},
    node::{
        Effect, HookRun, Identification, Input, Node, Opinion, OpinionKind, Output, PeerMessage,
        ProbeEnd, Proposal, RaftView, Request, Sign, StepEnd,
    },
    policy::Policy,
    recovery::{Hook, HookCounts, HookList, Outcome, Step},
    replicated::{Answer, Command, Entry, Replicated, wire},
    time::{Mono, Now, Wall},
    topology::{
        Flavour, ProbeFailure, ProbeReport, PromotionRule, ReplicaStatus, ThreadState, UsingGtid,
        Version,
    },
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::bytes::Bytes;

/// Servers there are.
const SERVERS: u8 = 5;
/// Most steps of one input.
const STEPS_MAX: u32 = 400;
/// Most effects and notes of one step.
const OUTPUT_MAX: usize = 2000;

/// Choices, one after another.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(&mut bytes);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        world.choose(&mut bytes);
    }
    for node in &world.nodes {
        node.check_invariants().expect("whatever was put in");
    }
}

/// An effect whose end is told.
enum Running {
    Step {
        uid: Uid,
        epoch: Epoch,
        step: Step,
    },
    Hook {
        run: HookRun,
        epoch: Epoch,
        hook: Hook,
    },
}

struct World {
    nodes: [Node; 2],
    random: [StdRng; 2],
    now: Mono,
    wall: Wall,
    index: u64,
    term: u64,
    /// What was proposed and has not ended.
    proposed: BTreeMap<ProposalId, Vec<u8>>,
    /// Steps whose effects are out.
    running: Vec<Running>,
    last_request: u64,
    /// What was put in so far, for the message of a failure.
    story: Vec<String>,
}

fn key(number: u8) -> InstanceKey {
    InstanceKey::new(format!("db{number}"), 3306)
}

fn identity(number: u8) -> Identity {
    Identity(format!("{number:08x}-0000-0000-0000-000000000000"))
}

fn server(bytes: &mut Bytes<'_>) -> u8 {
    1 + bytes.below(SERVERS)
}

impl World {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let policy = Policy {
            recover_primary_filters: vec![String::from("*")],
            observe_only: bytes.below(8) == 7,
            ..Policy::default()
        };
        let node = || {
            Node::new(
                Identification {
                    host_name: String::from("here"),
                    token: String::from("t"),
                },
                policy.clone(),
                Replicated::default(),
            )
        };
        let mut world = Self {
            nodes: [node(), node()],
            random: [StdRng::seed_from_u64(1), StdRng::seed_from_u64(1)],
            now: Mono::from_nanos(1_000_000_000_000),
            wall: Wall::from_secs(1_700_000_000),
            index: 0,
            term: 0,
            proposed: BTreeMap::new(),
            running: Vec::new(),
            last_request: 0,
            story: Vec::new(),
        };
        if bytes.below(4) == 3 {
            world.step(Input::LocalHooks(HookCounts::of(|list| {
                usize::from(list != HookList::PostFailover)
            })));
        }
        world.lead(true);
        world
    }

    fn choose(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(16) {
            0 | 1 => self.pass(bytes),
            2 | 3 => {
                let number = server(bytes);
                self.probed(number, bytes);
            }
            4 => {
                let number = server(bytes);
                let failure = failure(bytes);
                self.end_probe(number, Err(failure), bytes.flag());
            }
            5 => {
                let number = server(bytes);
                let sign = sign(number, bytes);
                self.step(Input::Signed(key(number), sign));
            }
            6 => {
                let message = opinions(bytes);
                self.step(Input::Peer(NodeId(u64::from(2 + bytes.below(2))), message));
            }
            7 => {
                let is_leading = bytes.below(4) != 0;
                self.lead(is_leading);
            }
            8..=10 => self.commit(bytes),
            11 => {
                if let Ok(command) = wire::decode_command(bytes.piece()) {
                    let bytes = wire::encode_command(wire::COMMAND_VERSION.into(), &command);
                    self.apply(bytes.expect("a kind of this release"));
                }
            }
            12 | 13 => self.end_step(bytes),
            14 => {
                let request = request(bytes);
                self.last_request += 1;
                self.step(Input::Asked(RequestId(self.last_request), request));
            }
            _ => match bytes.below(4) {
                0 => self.step(Input::RanLate),
                1 => {
                    let policy = Policy {
                        recover_primary_filters: vec![String::from("*")],
                        refuse_lossy: bytes.flag(),
                        apply_promotion: !bytes.flag(),
                        witness_quorum: u32::from(bytes.below(4)),
                        poll: Duration::from_secs(u64::from(bytes.below(10)) + 1),
                        ..Policy::default()
                    };
                    self.step(Input::LocalPolicy(Box::new(policy)));
                }
                2 => {
                    // A wall clock goes where it likes.
                    self.wall = Wall::from_secs(u64::from(bytes.short()) * 60_000);
                    self.step(Input::Wake);
                }
                _ => self.step(Input::Wake),
            },
        }
    }

    fn step(&mut self, input: Input) {
        let now = Now {
            mono: self.now,
            wall: self.wall,
        };
        let mut outputs = [Output::default(), Output::default()];
        let told = match &input {
            Input::Committed(entries) => entries
                .iter()
                .filter_map(|(_, entry)| match entry {
                    Entry::Command(bytes) => wire::decode_command(bytes).ok(),
                    Entry::Blank | Entry::Members(_) => None,
                })
                .map(|stamped| format!("committed {:?}", stamped.command))
                .collect::<Vec<_>>()
                .join(", "),
            other => format!("{other:?}"),
        };
        self.story.push(told);
        for ((node, random), out) in self
            .nodes
            .iter_mut()
            .zip(&mut self.random)
            .zip(&mut outputs)
        {
            node.step(now, random, input.clone(), out);
        }
        let [one, other] = outputs;
        assert_eq!(
            one, other,
            "the same inputs, and something else came of them"
        );
        assert!(
            one.effects.len() <= OUTPUT_MAX,
            "{} effects",
            one.effects.len()
        );
        assert!(one.notes.len() <= OUTPUT_MAX, "{} notes", one.notes.len());
        assert!(
            one.fatal.is_none(),
            "{:?} after\n{}",
            one.fatal,
            self.story.join("\n")
        );
        for effect in one.effects {
            match effect {
                Effect::Propose { id, bytes, .. } => {
                    wire::decode_command(&bytes).expect("a command of its own");
                    self.proposed.insert(id, bytes);
                }
                Effect::Run { uid, epoch, step } => {
                    self.running.push(Running::Step { uid, epoch, step })
                }
                Effect::RunHook {
                    run, epoch, hook, ..
                } => self.running.push(Running::Hook { run, epoch, hook }),
                Effect::Probe { .. }
                | Effect::Watch { .. }
                | Effect::Unwatch { .. }
                | Effect::Drop { .. }
                | Effect::FenceFrozen { .. }
                | Effect::Tell(_)
                | Effect::TellOne(..)
                | Effect::Answer(..)
                | Effect::Greet(_)
                | Effect::Seat { .. }
                | Effect::HandOver { .. }
                | Effect::Explain(_) => {}
            }
        }
    }

    /// To the next deadline, or for some time.
    fn pass(&mut self, bytes: &mut Bytes<'_>) {
        let (deadline, why) = self.nodes[0].next_deadline();
        assert_eq!(self.nodes[1].next_deadline(), (deadline, why));
        let wanted = if bytes.flag() {
            deadline.since(self.now)
        } else {
            Duration::from_millis(u64::from(bytes.short()))
        };
        let wanted = wanted.min(Duration::from_secs(3600));
        self.now = self.now + wanted;
        self.wall = self.wall + wanted;
        self.step(Input::Wake);
        let (again, why) = self.nodes[0].next_deadline();
        assert!(
            again > self.now,
            "wants to be called again at once for: {why}"
        );
    }

    fn lead(&mut self, is_leading: bool) {
        self.term += 1;
        let view = RaftView {
            node: NodeId(1),
            leading: is_leading.then_some(Epoch {
                term: self.term,
                node: NodeId(1),
                boot: 1,
            }),
            leader: is_leading.then_some(NodeId(1)),
            voters: (1..=3).map(NodeId).collect(),
            healthy: true,
        };
        self.step(Input::Raft(view));
    }

    /// What was proposed is committed, refused or of unknown fate, in any order.
    fn commit(&mut self, bytes: &mut Bytes<'_>) {
        let place = usize::from(bytes.byte());
        let how = bytes.below(8);
        let Some(id) = self
            .proposed
            .keys()
            .copied()
            .nth(place % self.proposed.len().max(1))
        else {
            return;
        };
        let command = self.proposed.remove(&id).expect("one of them");
        let outcome = match how {
            0 => Proposal::Refused,
            1 => Proposal::Unknown,
            2 => {
                self.apply(command);
                Proposal::Unknown
            }
            _ => Proposal::Committed(self.apply(command)),
        };
        self.step(Input::Proposed(id, outcome));
    }

    fn apply(&mut self, command: Vec<u8>) -> Answer {
        self.index += 1;
        let at = LogPosition {
            index: self.index,
            term: self.term,
            node: NodeId(1),
        };
        // The answer is what a further member would give.
        let mut further = self.nodes[0].replicated().clone();
        let decoded = wire::decode_command(&command).expect("a command");
        let answer = further.apply(at, &decoded).answer;
        self.step(Input::Committed(vec![(at, Entry::Command(command))]));
        assert_eq!(self.nodes[0].digest(), further.digest());
        answer
    }

    fn probed(&mut self, number: u8, bytes: &mut Bytes<'_>) {
        let report = report(number, bytes);
        self.end_probe(number, Ok(Box::new(report)), true);
    }

    fn end_probe(
        &mut self,
        number: u8,
        result: Result<Box<ProbeReport>, ProbeFailure>,
        partial_success: bool,
    ) {
        self.step(Input::Probed(ProbeEnd {
            key: key(number),
            began: self.now,
            result,
            partial_success,
        }));
    }

    fn end_step(&mut self, bytes: &mut Bytes<'_>) {
        let place = usize::from(bytes.byte());
        if self.running.is_empty() {
            return;
        }
        let running = self.running.remove(place % self.running.len());
        let outcome = match bytes.below(6) {
            0 => Outcome::Refused {
                code: 0,
                reason: String::from("nothing was sent"),
            },
            1 => Outcome::Refused {
                code: 1227,
                reason: String::from("no right"),
            },
            2 => Outcome::Unknown {
                reason: String::from("no answer"),
            },
            _ => Outcome::Done,
        };
        let (uid, epoch, step) = match running {
            Running::Step { uid, epoch, step } => (uid, epoch, step),
            Running::Hook {
                run: HookRun::Detection(number),
                epoch,
                hook,
            } => {
                self.step(Input::DetectionHookEnded {
                    number,
                    epoch,
                    hook,
                    outcome,
                });
                return;
            }
            Running::Hook {
                run: HookRun::Step { uid, step },
                epoch,
                ..
            } => {
                self.step(Input::StepEnded(StepEnd {
                    uid,
                    step,
                    epoch,
                    outcome,
                    identity: None,
                    report: None,
                }));
                return;
            }
        };
        let number = (1..=SERVERS).find(|number| key(*number) == step.server);
        let report = number
            .filter(|_| bytes.flag())
            .map(|number| Box::new(report(number, bytes)));
        self.step(Input::StepEnded(StepEnd {
            uid,
            step: step.id,
            epoch,
            outcome,
            identity: None,
            report,
        }));
    }
}

fn failure(bytes: &mut Bytes<'_>) -> ProbeFailure {
    match bytes.below(7) {
        0 => ProbeFailure::Refused,
        1 => ProbeFailure::Unreachable,
        2 => ProbeFailure::NoLogin,
        3 => ProbeFailure::Stalled,
        4 => ProbeFailure::Closed,
        5 => ProbeFailure::Garbled(String::from("garbled")),
        _ => ProbeFailure::ServerError {
            code: [1040, 1045, 1053, 1227][usize::from(bytes.below(4))],
            message: String::from("an error"),
        },
    }
}

fn sign(number: u8, bytes: &mut Bytes<'_>) -> Sign {
    let who = identity(if bytes.below(8) == 7 { 99 } else { number });
    match bytes.below(11) {
        0 => Sign::PulseUp(who),
        1 => Sign::PulseBeat,
        2 => Sign::PulseClosed,
        3 => Sign::PulseShutdown,
        4 => Sign::PulseLate,
        5 => Sign::PulseSilent,
        6 => Sign::DialRefused,
        7 => Sign::DialUnreachable,
        8 => Sign::DialNoLogin,
        9 => Sign::DialAnswered(who),
        _ => Sign::DialError([1040, 1045, 1053, 1203][usize::from(bytes.below(4))]),
    }
}

fn opinions(bytes: &mut Bytes<'_>) -> PeerMessage {
    let number = server(bytes);
    if bytes.below(8) == 7 {
        return PeerMessage::AskOpinion(key(number));
    }
    let kind = match bytes.below(6) {
        0 => OpinionKind::Alive,
        1 => OpinionKind::Suspect,
        2 => OpinionKind::Leaving,
        3 => OpinionKind::Silent,
        4 => OpinionKind::Abstain,
        _ => OpinionKind::Gone,
    };
    PeerMessage::Opinions(vec![Opinion {
        key: key(number),
        identity: bytes.flag().then(|| identity(number)),
        kind,
        life_ms_ago: match bytes.below(4) {
            0 => None,
            1 => Some(u64::MAX),
            _ => Some(u64::from(bytes.short())),
        },
    }])
}

fn request(bytes: &mut Bytes<'_>) -> Request {
    let key = key(server(bytes));
    match bytes.below(8) {
        0 => Request::Refresh(key),
        1 => Request::SetReadOnly {
            key,
            super_read_only: bytes.flag(),
        },
        2 => Request::SetWriteable { key },
        3 => Request::BeginDowntime {
            key,
            owner: String::from("me"),
            reason: String::from("because"),
            lasts_s: u64::from(bytes.short()),
        },
        4 => Request::Decide(Command::Forget { keys: vec![key] }),
        5 => Request::Decide(Command::RegisterCandidate {
            key,
            rule: [
                PromotionRule::Must,
                PromotionRule::Prefer,
                PromotionRule::PreferNot,
                PromotionRule::MustNot,
            ][usize::from(bytes.below(4))],
        }),
        6 => Request::Decide(Command::SetRecoveriesEnabled {
            enabled: bytes.flag(),
        }),
        _ => Request::Discover(key),
    }
}

fn thread(bytes: &mut Bytes<'_>) -> ThreadState {
    match bytes.below(6) {
        0 => ThreadState::Stopped,
        1 => ThreadState::NoThread,
        2 => ThreadState::Other,
        _ => ThreadState::Running,
    }
}

fn set(flavour: Flavour, source: u8, last: u8) -> Option<GtidSet> {
    if flavour == Flavour::Mariadb {
        let text = if last == 0 {
            String::new()
        } else {
            format!("0-{source}-{last}")
        };
        GtidSet::parse(gtid::Flavour::Mariadb, &text).ok()
    } else if last == 0 {
        Some(GtidSet::empty(gtid::Flavour::Oracle))
    } else {
        let text = format!("{}:1-{last}", identity(source).0);
        GtidSet::parse(gtid::Flavour::Oracle, &text).ok()
    }
}

fn report(number: u8, bytes: &mut Bytes<'_>) -> ProbeReport {
    let flags = bytes.byte();
    let flavour = if flags & 1 == 1 {
        Flavour::Mariadb
    } else {
        Flavour::Mysql
    };
    let who = if flags & 0b1110 == 0b1110 { 99 } else { number };
    let source = bytes.below(SERVERS + 1);
    let writer = bytes.below(SERVERS) + 1;
    let executed = set(flavour, writer, bytes.byte());
    let received = set(flavour, writer, bytes.byte());
    ProbeReport {
        identity: identity(who),
        self_key: if flags & 0b1110_0000 == 0b1110_0000 {
            key(server(bytes))
        } else {
            key(number)
        },
        server_id: u32::from(who),
        server_uuid: if flavour == Flavour::Mariadb {
            String::new()
        } else {
            identity(who).0
        },
        flavour,
        version: Version::parse(if flavour == Flavour::Mariadb {
            "10.11.19-MariaDB"
        } else {
            "8.0.36"
        }),
        uptime_s: u64::from(bytes.byte()) * 10,
        read_only: flags & 0b1_0000 != 0,
        log_bin: bytes.below(8) != 7,
        log_replica_updates: true,
        binlog_format: String::from("ROW"),
        gtid_mode: String::from("ON"),
        replicated_gtid: (flavour == Flavour::Mariadb)
            .then(|| executed.clone())
            .flatten(),
        executed,
        replication: (source != 0).then(|| ReplicaStatus {
            source: key(source),
            io: thread(bytes),
            sql: thread(bytes),
            io_errno: u32::from(bytes.below(8) == 7) * 2003,
            sql_errno: u32::from(bytes.below(16) == 15) * 1062,
            relay_log_space: u64::from(bytes.byte()) * 100,
            received,
            auto_position: flavour == Flavour::Mysql,
            using_gtid: if flavour == Flavour::Mariadb {
                UsingGtid::SlavePos
            } else {
                UsingGtid::No
            },
            heartbeats_received: Some(u64::from(bytes.byte())),
            ..ReplicaStatus::default()
        }),
        replicas: (1..=SERVERS)
            .filter(|_| bytes.below(4) == 0)
            .map(key)
            .collect(),
        ..ProbeReport::default()
    }
}
