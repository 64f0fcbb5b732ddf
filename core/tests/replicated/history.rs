//! Random histories: applying is deterministic, a snapshot stands for what came before it, and the rules hold.

use orchestrator_core::{
    id::{Epoch, InstanceKey, LogPosition, NodeId, StepId},
    recovery::{DeadKind, End, Outcome, Phase, Purpose, Stage, StepKind, Telling},
    replicated::{AckScope, Answer, Change, Command, Detection, Replicated, Stamped, wire},
    time::Wall,
    topology::PromotionRule,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use crate::samples::{identity, key, step, uid};

/// One entry of a log: how far time and term moved since the last, and the command.
#[derive(Debug, Clone)]
struct Entry {
    secs: i64,
    new_term: bool,
    command: Command,
}

fn server() -> impl Strategy<Value = InstanceKey> {
    prop::sample::select(vec!["p", "a", "b", "c", "q", "r"]).prop_map(key)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["r1", "r2", "r3", "r4"]).prop_map(String::from)
}

/// Mostly of the entry's own term: `fix` below writes the term in where 0 stands.
fn epoch() -> impl Strategy<Value = Epoch> {
    (
        prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1]),
        prop::sample::select(vec![1, 1, 1, 1, 2]),
    )
        .prop_map(|(term, node)| Epoch {
            term,
            node: NodeId(node),
            boot: 1,
        })
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        4 => Just(Purpose::DeadPrimary { kind: DeadKind::Gone }),
        1 => Just(Purpose::Quarantine { deposed_by: uid("r1") }),
        1 => Just(Purpose::SetReadOnly),
        1 => Just(Purpose::Reopen),
    ]
}

fn stage() -> impl Strategy<Value = (Stage, StepKind)> {
    prop::sample::select(vec![
        (Stage::FenceAndHalt, StepKind::Halt),
        (Stage::Drain, StepKind::Drain),
        (Stage::Promote, StepKind::Promote),
        (Stage::Regroup, StepKind::Repoint),
        (Stage::Undo, StepKind::Resume),
    ])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Done),
        Just(Outcome::Refused {
            code: 1,
            reason: "no".into()
        }),
        Just(Outcome::Unknown {
            reason: "late".into()
        }),
    ]
}

fn scope() -> impl Strategy<Value = AckScope> {
    prop_oneof![
        Just(AckScope::All),
        (1..4u64).prop_map(AckScope::Number),
        name().prop_map(|name| AckScope::Uid(uid(&name))),
        server().prop_map(AckScope::Instance),
        server().prop_map(|key| AckScope::Cluster {
            name: key.to_string(),
            alias: "main".into()
        }),
    ]
}

fn recovery_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (name(), purpose(), epoch(), server(), prop::collection::vec(server(), 0..3), any::<bool>(), any::<bool>())
            .prop_map(|(name, purpose, epoch, server, replicas, forced, is_identified)| Command::BeginRecovery {
                was_read_only: is_identified,
                uid: uid(&name),
                purpose,
                epoch,
                identity: is_identified.then(|| identity(&server.host)),
                cluster_name: server.to_string(),
                server,
                analysis: "DeadMaster".into(),
                replicas,
                processing_node: "n".into(),
                processing_token: "t".into(),
                forced,
            }),
        1 => (name(), epoch()).prop_map(|(name, epoch)| Command::TakeOver { uid: uid(&name), epoch }),
        4 => (name(), epoch(), stage(), 1..5u64, server()).prop_map(|(name, epoch, (stage, kind), id, server)| {
            Command::Intend {
                uid: uid(&name),
                epoch,
                stage,
                candidate: Some(server.clone()),
                steps: vec![step(id, kind, &server.host, Vec::new())],
                ending: None,
                lines: vec!["intended".into()],
            }
        }),
        3 => (name(), epoch(), 1..5u64, outcome()).prop_map(|(name, epoch, id, outcome)| Command::Settle {
            uid: uid(&name),
            epoch,
            outcomes: vec![(StepId(id), outcome)],
            lines: Vec::new(),
        }),
        1 => (name(), epoch()).prop_map(|(name, epoch)| Command::Remark {
            uid: uid(&name),
            epoch,
            lines: vec!["remark".into()],
            errors: vec!["error".into()],
            possible_loss: Vec::new(),
        }),
        3 => (name(), epoch(), prop::option::of(server()), prop::option::of(server()), 0..3).prop_map(
            |(name, epoch, successor, lost, end)| Command::EndRecovery {
                uid: uid(&name),
                epoch,
                end: match end {
                    0 => End::Succeeded,
                    1 => End::Undone { reason: "back".into() },
                    _ => End::Failed { reason: "none".into() },
                },
                successor_identity: successor.as_ref().map(|key| identity(&key.host)),
                successor,
                successor_alias: String::new(),
                lost: lost.into_iter().collect(),
                participants: Vec::new(),
                lines: vec!["ended".into()],
            }
        ),
        1 => (scope(), prop::sample::select(vec!["", "seen"])).prop_map(|(scope, comment)| Command::Acknowledge {
            scope,
            owner: "dba".into(),
            comment: comment.into(),
        }),
        1 => server().prop_map(|key| Command::LiftQuarantine {
            identity: identity(&key.host),
            reason: "rejoined".into()
        }),
        1 => server().prop_map(|key| Command::MarkFenced { identity: identity(&key.host), at_uptime_s: 3 }),
        1 => (server(), prop::option::of(0..9u64)).prop_map(|(key, writeable_at_uptime_s)| Command::MarkPrimary {
            identity: identity(&key.host),
            primary: key,
            writeable_at_uptime_s,
        }),
        1 => (server(), prop::collection::vec((0..4u64).prop_map(NodeId), 0..3)).prop_map(|(key, nodes)| Command::MarkWitnesses {
            identity: identity(&key.host),
            primary: key,
            nodes,
        }),
        1 => any::<bool>().prop_map(|enabled| Command::SetRecoveriesEnabled { enabled }),
        1 => (server(), any::<bool>()).prop_map(|(server, is_actionable)| {
            let mut detection = crate::samples::detection();
            detection.server = server;
            detection.is_actionable = is_actionable;
            Command::RegisterDetection(detection)
        }),
        2 => (server(), epoch()).prop_map(|(server, epoch)| Command::RegisterDetection(Detection {
            server,
            telling: Some(Telling::begun(epoch)),
            ..crate::samples::detection()
        })),
        4 => (1..4u64, epoch(), 1..4u32, prop::option::of(outcome()), prop::option::of(0..3u32)).prop_map(
            |(number, epoch, run, ended, next)| Command::TellOfDetection { number, epoch, run, ended, next }
        ),
    ]
}

fn record_cluster() -> impl Strategy<Value = Command> {
    (
        server(),
        any::<bool>(),
        prop::collection::vec(server(), 0..5),
    )
        .prop_map(|(primary, is_identified, members)| Command::RecordCluster {
            identity: is_identified.then(|| identity(&primary.host)),
            primary,
            members,
        })
}

fn fleet_command() -> impl Strategy<Value = Command> {
    let until = |secs: u64| Wall::from_secs(START + secs);
    prop_oneof![
        (prop::collection::vec(server(), 0..4), any::<bool>())
            .prop_map(|(keys, by_operator)| Command::Know { keys, by_operator }),
        prop::collection::vec(server(), 0..3).prop_map(|keys| Command::Forget { keys }),
        record_cluster(),
        record_cluster(),
        record_cluster(),
        (
            server(),
            prop::sample::select(vec!["", "main", "other"]),
            any::<bool>()
        )
            .prop_map(|(key, alias, by_operator)| Command::SetClusterAlias {
                cluster_name: key.to_string(),
                alias: alias.into(),
                by_operator
            }),
        server().prop_map(|key| Command::SetClusterDomain {
            cluster_name: key.to_string(),
            domain: "d".into()
        }),
        (server(), 0..20_000u64).prop_map(move |(key, secs)| Command::BeginDowntime {
            key,
            owner: "dba".into(),
            reason: "disk".into(),
            until: until(secs)
        }),
        server().prop_map(|key| Command::EndDowntime { key }),
        (server(), 0..20_000u64).prop_map(move |(key, secs)| Command::BeginMaintenance {
            key,
            owner: "dba".into(),
            reason: "disk".into(),
            until: until(secs)
        }),
        server().prop_map(|key| Command::EndMaintenance { key }),
        server().prop_map(|key| Command::RegisterCandidate {
            key,
            rule: PromotionRule::Prefer
        }),
        (server(), prop::sample::select(vec!["x", "y"])).prop_map(|(key, value)| Command::PutTag {
            key,
            name: "t".into(),
            value: value.into()
        }),
        (
            prop::option::of(server()),
            prop::option::of(Just("x".to_string()))
        )
            .prop_map(|(key, value)| Command::DeleteTag {
                key,
                name: "t".into(),
                value
            }),
        (1..4u64).prop_map(|node| Command::Declare {
            node: NodeId(node),
            entries: vec![format!("n{node}:1")],
            identities: vec![NodeId(1), NodeId(node)]
        }),
        (1..4u32).prop_map(|version| Command::SetVersion {
            command: version,
            snapshot: version
        }),
        Just(Command::SetPolicy(Box::new(crate::samples::policy()))),
    ]
}

const START: u64 = 1_800_000_000;

fn entry() -> impl Strategy<Value = Entry> {
    (
        prop_oneof![8 => 0..5i64, 2 => 0..4_000i64, 1 => -100..0i64, 1 => Just(800_000)],
        prop::sample::select(vec![false, false, false, false, false, false, false, true]),
        prop_oneof![3 => recovery_command(), 2 => fleet_command()],
    )
        .prop_map(|(secs, new_term, command)| Entry {
            secs,
            new_term,
            command,
        })
}

/// Writes an entry's term into an epoch that stands for it.
fn fix(command: &mut Command, term: u64) {
    if let Command::BeginRecovery { epoch, .. }
    | Command::TakeOver { epoch, .. }
    | Command::Intend { epoch, .. }
    | Command::Settle { epoch, .. }
    | Command::Remark { epoch, .. }
    | Command::TellOfDetection { epoch, .. }
    | Command::RegisterDetection(Detection {
        telling: Some(Telling {
            phase: Phase::Intended(epoch),
            ..
        }),
        ..
    })
    | Command::EndRecovery { epoch, .. } = command
        && epoch.term == 0
    {
        epoch.term = term;
    }
}

/// Positions, and what the log holds at them.
fn log(entries: Vec<Entry>) -> Vec<(LogPosition, Stamped)> {
    let mut now = i64::try_from(START).expect("fits");
    let mut term = 1;
    (1..)
        .zip(entries)
        .map(|(index, mut entry)| {
            now += entry.secs;
            term += u64::from(entry.new_term);
            fix(&mut entry.command, term);
            (
                LogPosition {
                    index,
                    term,
                    node: NodeId(0),
                },
                Stamped {
                    wall: Wall::from_secs(now.unsigned_abs()),
                    command: entry.command,
                },
            )
        })
        .collect()
}

/// Keeps a projection from changes alone.
#[derive(Debug, Default, PartialEq)]
struct Projection(BTreeMap<String, Change>);

impl Projection {
    fn take(&mut self, change: Change) {
        let (row, is_there) = match &change {
            Change::Version(_) => ("version".into(), true),
            Change::Member(node, row) => (format!("member {node}"), row.is_some()),
            Change::Declaration(node, row) => (format!("declaration {node}"), row.is_some()),
            Change::Policy(_) => ("policy".into(), true),
            Change::Known(key, row) => (format!("known {key}"), row.is_some()),
            Change::Forgotten(key, row) => (format!("forgotten {key}"), row.is_some()),
            Change::Cluster(key, row) => (format!("cluster {key}"), row.is_some()),
            Change::ClusterAlias {
                cluster_name,
                alias,
            } => (format!("alias {cluster_name}"), alias.is_some()),
            Change::ClusterAliasOverride {
                cluster_name,
                alias,
            } => (format!("override {cluster_name}"), alias.is_some()),
            Change::ClusterDomain {
                cluster_name,
                domain,
            } => (format!("domain {cluster_name}"), domain.is_some()),
            Change::Downtime(key, row) => (format!("downtime {key}"), row.is_some()),
            Change::Maintenance(key, row) => (format!("maintenance {key}"), row.is_some()),
            Change::Candidate(key, row) => (format!("candidate {key}"), row.is_some()),
            Change::Tag { key, name, tag } => (format!("tag {key} {name}"), tag.is_some()),
            Change::GlobalStop(_) => ("stop".into(), true),
            Change::Detection(number, row) => (format!("detection {number}"), row.is_some()),
            Change::Recovery(number, row) => {
                if row.is_none() {
                    let lines = format!("line {number} ");
                    self.0.retain(|row, _| !row.starts_with(&lines));
                }
                (format!("recovery {number}"), row.is_some())
            }
            Change::RecoveryLine { number, index, .. } => (format!("line {number} {index}"), true),
            Change::Blocked(key, row) => (format!("blocked {key}"), row.is_some()),
            Change::Deposed(identity, row) => (format!("deposed {identity}"), row.is_some()),
        };
        if is_there {
            self.0.insert(row, change);
        } else {
            self.0.remove(&row);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_deterministic_and_keeps_the_rules(
        entries in prop::collection::vec(entry(), 1..70),
        cut in any::<prop::sample::Index>(),
    ) {
        let log = log(entries);
        let cut = cut.index(log.len());
        let mut state = Replicated::default();
        let mut twin = Replicated::default();
        let mut restored: Option<Replicated> = None;
        let mut projection = Projection::default();
        for change in state.everything() {
            projection.take(change);
        }
        let mut owners = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        for (n, (at, stamped)) in log.iter().enumerate() {
            if n == cut {
                let bytes = state.encode_snapshot();
                let copy = Replicated::decode_snapshot(&bytes).expect("own snapshot");
                prop_assert_eq!(copy.digest(), state.digest());
                prop_assert_eq!(copy.encode_snapshot(), bytes);
                restored = Some(copy);
            }
            let before = state.clone();
            let digest_before = before.digest();
            let time_before = state.log_time();
            let applied = state.apply(*at, stamped);
            prop_assert_eq!(before.digest(), digest_before, "a clone is not changed by what comes after");

            // The same from bytes, on another daemon, and after a snapshot.
            let read = wire::decode_command(&wire::encode_command(2, stamped).expect("of version 2")).expect("own command");
            prop_assert_eq!(&applied, &twin.apply(*at, &read));
            prop_assert_eq!(state.digest(), twin.digest());
            if let Some(copy) = &mut restored {
                prop_assert_eq!(&applied, &copy.apply(*at, stamped));
                prop_assert_eq!(state.digest(), copy.digest());
            }
            let again = state.apply(*at, stamped);
            prop_assert!(again.changes.is_empty(), "an entry is applied once");
            prop_assert_eq!(state.digest(), twin.digest());

            prop_assert_eq!(state.check_invariants(), Ok(()));
            prop_assert!(state.log_time() >= time_before);
            for recovery in state.recoveries_newest_first() {
                let owner = owners.entry(recovery.number).or_insert(recovery.owner);
                prop_assert!(*owner <= recovery.owner, "owners are ever later epochs");
                *owner = recovery.owner;
            }
            if let (Command::BeginRecovery { .. }, Answer::Numbered(number)) = (&stamped.command, &applied.answer) {
                let is_repeated = numbers.contains(number);
                prop_assert!(is_repeated || numbers.last().is_none_or(|last| last < number), "numbers go up");
                numbers.insert(*number);
            }
            for change in applied.changes {
                projection.take(change);
            }
        }
        // What changes tell adds up to what is there.
        let mut whole = Projection::default();
        for change in state.everything() {
            whole.take(change);
        }
        prop_assert_eq!(projection, whole);
    }
}
