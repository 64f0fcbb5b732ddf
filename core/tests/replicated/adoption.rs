//! A cluster that is formed on daemons of the original takes over what one of their databases says.

use core::time::Duration;
use std::collections::BTreeSet;

use orchestrator_core::{
    id::{LogPosition, NodeId, Uid},
    recovery::Purpose,
    replicated::{
        Answer, Command, Members, OriginalRows, OriginalSummary, Refusal, Replicated, Stamped,
    },
    time::Wall,
};

use crate::samples::{epoch, key, original_rows};

const NOW: Wall = Wall::from_secs(1_800_000_000);

struct World {
    state: Replicated,
    index: u64,
}

impl World {
    /// Three founders; those with a time hold a database that was written last so many minutes ago.
    fn new(written: [Option<u64>; 3]) -> Self {
        let mut state = Replicated::default();
        let members = Members {
            voters: vec![(1..=3).map(NodeId).collect()],
            learners: BTreeSet::new(),
        };
        state.seat(LogPosition::default(), &members);
        let mut world = Self { state, index: 0 };
        for (node, minutes) in (1..).zip(written) {
            world.describe(node, minutes);
        }
        world
    }

    fn describe(&mut self, node: u64, minutes: Option<u64>) {
        let done = self.apply(Command::DescribeMember {
            node: NodeId(node),
            raft_address: format!("n{node}:10008"),
            http_uri: String::new(),
            host_name: format!("n{node}"),
            build: String::new(),
            reads_command: 1,
            reads_snapshot: 1,
            original: minutes.map(|minutes| OriginalSummary {
                newest: NOW - Duration::from_secs(60 * minutes),
                servers: 3,
            }),
        });
        assert_eq!(done, Answer::Done);
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.index += 1;
        let at = LogPosition {
            index: self.index,
            term: 3,
            node: epoch(3).node,
        };
        let applied = self.state.apply(at, &Stamped { wall: NOW, command });
        self.state
            .check_changes(&applied.changes)
            .expect("sound changes");
        self.state.check_invariants().expect("a sound state");
        applied.answer
    }

    fn adopt(&mut self, node: u64, part: u32, is_last: bool, rows: OriginalRows) -> Answer {
        self.apply(Command::Adopt {
            node: NodeId(node),
            part,
            is_last,
            rows: Box::new(rows),
        })
    }
}

fn is_invalid(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Refusal::Invalid(_)))
}

#[test]
fn the_database_that_was_written_last_is_chosen_once_all_founders_are_described() {
    let mut world = World::new([None, None, None]);
    assert_eq!(world.state.original_to_adopt(), None);
    let mut world2 = World::new([Some(5), Some(1), None]);
    assert_eq!(world2.state.original_to_adopt(), Some(NodeId(2)));
    assert!(is_invalid(&world2.adopt(1, 0, true, original_rows(NOW))));
    assert_eq!(world2.state.known_count(), 0);

    // A newcomer's database is not older than the cluster.
    let members = Members {
        voters: vec![[1, 2, 4].into_iter().map(NodeId).collect()],
        learners: BTreeSet::new(),
    };
    world.index += 1;
    let at = LogPosition {
        index: world.index,
        ..LogPosition::default()
    };
    world.state.seat(at, &members);
    world.describe(4, Some(0));
    assert_eq!(world.state.original_to_adopt(), None);
}

#[test]
fn what_the_database_says_is_taken_over() {
    let mut world = World::new([Some(5), Some(1), Some(2)]);
    assert_eq!(world.adopt(2, 0, true, original_rows(NOW)), Answer::Done);
    let state = &world.state;
    assert_eq!(state.original_to_adopt(), None);
    assert_eq!(
        state
            .adoption()
            .adopted
            .as_ref()
            .map(|adopted| adopted.node),
        Some(NodeId(2))
    );
    for name in ["p", "a", "b"] {
        assert!(state.is_known(&key(name)));
    }
    let record = state.cluster_named("shop").expect("the alias");
    assert_eq!(record.primary, key("a"));
    assert_eq!(record.members.len(), 3);
    let downtime = state.downtime_of(&key("b"), NOW).expect("a downtime");
    assert_eq!(
        (downtime.owner.as_str(), downtime.reason.as_str()),
        ("anna", "disk")
    );
    assert!(downtime.began < NOW);
    assert_eq!(
        state.maintenance_of(&key("a"), NOW).map(|row| row.number),
        Some(12)
    );
    assert_eq!(
        state
            .tag_of(&key("a"), "rack")
            .map(|tag| tag.value.as_str()),
        Some("7")
    );
    assert!(!state.are_recoveries_enabled());
    let recovery = state.recovery(&Uid("original:9".into())).expect("a record");
    assert_eq!(recovery.number, 9);
    assert_eq!(recovery.cluster, record.key);
    assert!(!recovery.is_announced() && recovery.is_successful());
    assert_eq!(
        state.detections_newest_first().next().map(|row| row.number),
        Some(4)
    );
}

#[test]
fn a_recovery_that_was_taken_over_still_begins_a_cool_down() {
    let mut world = World::new([None, Some(1), None]);
    let rows = OriginalRows {
        stopped: None,
        ..original_rows(NOW)
    };
    assert_eq!(world.adopt(2, 0, true, rows), Answer::Done);
    let begin = Command::BeginRecovery {
        uid: Uid("r1".into()),
        purpose: Purpose::DeadPrimary {
            kind: orchestrator_core::recovery::DeadKind::Gone,
        },
        epoch: epoch(3),
        server: key("a"),
        identity: None,
        cluster_name: "a:3306".into(),
        analysis: "DeadMaster".into(),
        replicas: vec![key("b")],
        processing_node: String::new(),
        processing_token: String::new(),
        forced: false,
        was_read_only: false,
    };
    let answer = world.apply(begin);
    assert!(
        matches!(&answer, Answer::Refused(Refusal::CoolDown { by, .. }) if by.0 == "original:9"),
        "{answer:?}"
    );
}

#[test]
fn what_is_known_already_is_newer_and_stays() {
    let mut world = World::new([None, Some(1), None]);
    let until = NOW + Duration::from_secs(60);
    let said = [
        Command::Know {
            keys: vec![key("a"), key("b")],
            by_operator: true,
        },
        Command::RecordCluster {
            primary: key("b"),
            identity: None,
            members: vec![key("a")],
        },
        Command::SetClusterAlias {
            cluster_name: "b:3306".into(),
            alias: "store".into(),
            by_operator: true,
        },
        Command::BeginDowntime {
            key: key("b"),
            owner: "carl".into(),
            reason: "switch".into(),
            until,
        },
        Command::PutTag {
            key: key("a"),
            name: "rack".into(),
            value: "8".into(),
        },
    ];
    for command in said {
        let answer = world.apply(command);
        assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
    assert_eq!(world.adopt(2, 0, true, original_rows(NOW)), Answer::Done);
    let state = &world.state;
    let record = state.cluster_of(&key("a")).expect("a cluster");
    assert_eq!(
        (&record.primary, record.shown_alias()),
        (&key("b"), "store")
    );
    assert_eq!(
        state.downtime_of(&key("b"), NOW).map(|row| row.until),
        Some(until)
    );
    assert_eq!(
        state
            .tag_of(&key("a"), "rack")
            .map(|tag| tag.value.as_str()),
        Some("8")
    );
}

#[test]
fn parts_come_in_order_and_people_may_choose_another_database() {
    let mut world = World::new([Some(5), Some(1), None]);
    let known = |name: &str| OriginalRows {
        known: vec![key(name)],
        ..OriginalRows::default()
    };
    assert!(is_invalid(&world.adopt(2, 1, true, known("x"))));
    assert_eq!(world.adopt(2, 0, false, known("x")), Answer::Done);
    assert!(is_invalid(&world.adopt(2, 0, false, known("x"))));
    assert_eq!(world.adopt(2, 1, true, known("y")), Answer::Done);
    assert!(is_invalid(&world.adopt(2, 0, true, known("z"))));

    let choose = |node: u64| Command::ChooseOriginal { node: NodeId(node) };
    assert!(is_invalid(&world.apply(choose(2))), "taken over already");
    assert!(is_invalid(&world.apply(choose(3))), "holds nothing");
    assert!(matches!(
        world.apply(choose(9)),
        Answer::Refused(Refusal::NotFound(_))
    ));
    assert_eq!(world.apply(choose(1)), Answer::Done);
    assert_eq!(world.state.original_to_adopt(), Some(NodeId(1)));
    assert_eq!(world.adopt(1, 0, true, known("z")), Answer::Done);
    assert_eq!(world.state.original_to_adopt(), None);
    assert_eq!(world.state.known_count(), 3);
}
