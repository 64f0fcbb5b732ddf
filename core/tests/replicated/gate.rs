//! The gate of recoveries and what a promotion does, one situation a test.

use core::time::Duration;
use orchestrator_core::{
    id::{Epoch, LogPosition, NodeId},
    recovery::{DeadKind, End, Outcome, Purpose, Stage, Statement, Step, StepKind},
    replicated::{AckScope, Answer, Applied, Change, Command, Refusal, Replicated, Stamped},
    time::Wall,
};

use crate::samples::{identity, key, uid};

const START: u64 = 1_800_000_000;

/// A log that writes itself: one state, one position after another.
pub struct Log {
    pub state: Replicated,
    pub index: u64,
    pub term: u64,
    pub secs: u64,
}

impl Log {
    pub fn new() -> Self {
        let mut log = Self {
            state: Replicated::default(),
            index: 0,
            term: 1,
            secs: START,
        };
        log.done(Command::RecordCluster {
            primary: key("p"),
            identity: Some(identity("p")),
            members: vec![key("p"), key("a"), key("b")],
        });
        log
    }

    pub fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let at = LogPosition {
            index: self.index,
            term: self.term,
            node: NodeId(0),
        };
        let wall = Wall::from_secs(self.secs);
        let applied = self.state.apply(at, &Stamped { wall, command });
        assert_eq!(self.state.check_invariants(), Ok(()));
        applied
    }

    pub fn answer(&mut self, command: Command) -> Answer {
        self.apply(command).answer
    }

    pub fn done(&mut self, command: Command) -> Applied {
        let applied = self.apply(command.clone());
        assert!(
            !matches!(applied.answer, Answer::Refused(_)),
            "{command:?} came to {:?}",
            applied.answer
        );
        applied
    }

    pub fn refused(&mut self, command: Command) -> Refusal {
        match self.answer(command.clone()) {
            Answer::Refused(refusal) => refusal,
            answer => panic!("{command:?} came to {answer:?}"),
        }
    }

    pub fn epoch(&self) -> Epoch {
        Epoch {
            term: self.term,
            node: NodeId(self.term),
            boot: 1,
        }
    }

    pub fn begin(&self, name: &str, server: &str) -> Command {
        self.begin_as(
            name,
            server,
            Purpose::DeadPrimary {
                kind: DeadKind::Gone,
            },
            false,
        )
    }

    pub fn begin_as(&self, name: &str, server: &str, purpose: Purpose, forced: bool) -> Command {
        Command::BeginRecovery {
            uid: uid(name),
            purpose,
            epoch: self.epoch(),
            server: key(server),
            identity: Some(identity(server)),
            cluster_name: key(server).to_string(),
            analysis: "DeadMaster".into(),
            replicas: vec![key("a"), key("b")],
            processing_node: "n1".into(),
            processing_token: "t".into(),
            forced,
            was_read_only: false,
        }
    }

    pub fn end(&self, name: &str, end: End, successor: Option<&str>, lost: &[&str]) -> Command {
        Command::EndRecovery {
            uid: uid(name),
            epoch: self.epoch(),
            end,
            successor: successor.map(key),
            successor_identity: successor.map(identity),
            successor_alias: String::new(),
            lost: lost.iter().map(|name| key(name)).collect(),
            participants: Vec::new(),
            lines: vec!["ended".into()],
        }
    }

    pub fn intend(&self, name: &str, stage: Stage, steps: Vec<Step>) -> Command {
        Command::Intend {
            uid: uid(name),
            epoch: self.epoch(),
            stage,
            candidate: None,
            steps,
            ending: None,
            lines: Vec::new(),
        }
    }

    pub fn settle(&self, name: &str, id: u64, outcome: Outcome) -> Command {
        Command::Settle {
            uid: uid(name),
            epoch: self.epoch(),
            outcomes: vec![(orchestrator_core::id::StepId(id), outcome)],
            lines: Vec::new(),
        }
    }
}

fn step(id: u64, kind: StepKind, server: &str) -> Step {
    Step {
        id: orchestrator_core::id::StepId(id),
        kind,
        server: key(server),
        identity: Some(identity(server)),
        lane: orchestrator_core::recovery::Lane::Act,
        statements: vec![Statement::MakeWriteable],
        deadline: Duration::from_millis(300),
        read_after: false,
    }
}

fn failed() -> End {
    End::Failed {
        reason: "none left".into(),
    }
}

#[test]
fn a_running_recovery_blocks_all_others_even_forced_ones() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    for (n, (server, purpose, forced)) in [
        (
            "p",
            Purpose::DeadPrimary {
                kind: DeadKind::Silent,
            },
            false,
        ),
        (
            "p",
            Purpose::DeadPrimary {
                kind: DeadKind::Silent,
            },
            true,
        ),
        ("a", Purpose::SetReadOnly, true),
        (
            "b",
            Purpose::Quarantine {
                deposed_by: uid("x"),
            },
            false,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let command = log.begin_as(&format!("other{n}"), server, purpose, forced);
        assert_eq!(log.refused(command), Refusal::ClusterBusy { by: uid("r1") });
    }
    assert_eq!(log.state.running().count(), 1);
    assert_eq!(log.state.blocked().count(), 1, "information is kept");
}

#[test]
fn an_operation_blocks_a_recovery() {
    let mut log = Log::new();
    log.done(log.begin_as("o1", "a", Purpose::SetReadOnly, true));
    let refusal = log.refused(log.begin("r1", "p"));
    assert_eq!(refusal, Refusal::ClusterBusy { by: uid("o1") });
    log.done(log.end("o1", End::Succeeded, None, &[]));
    assert_eq!(log.answer(log.begin("r1", "p")), Answer::Numbered(2));
}

#[test]
fn other_clusters_are_not_concerned() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(Command::RecordCluster {
        primary: key("q"),
        identity: None,
        members: vec![key("q"), key("q2")],
    });
    let mut command = log.begin("r2", "q");
    if let Command::BeginRecovery { replicas, .. } = &mut command {
        *replicas = vec![key("q2")];
    }
    assert_eq!(log.answer(command), Answer::Numbered(2));
}

#[test]
fn proposing_twice_begins_once() {
    let mut log = Log::new();
    assert_eq!(log.answer(log.begin("r1", "p")), Answer::Numbered(1));
    assert_eq!(log.answer(log.begin("r1", "p")), Answer::Numbered(1));
    log.done(log.end("r1", failed(), None, &[]));
    assert_eq!(log.refused(log.begin("r1", "p")), Refusal::Ended);
}

#[test]
fn the_cool_down_counts_from_the_end_of_a_completed_promotion() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.secs += 1_000;
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    let until = Wall::from_secs(log.secs + 3_600);
    log.secs += 3_599;
    assert_eq!(
        log.refused(log.begin("r2", "a")),
        Refusal::CoolDown {
            by: uid("r1"),
            until
        }
    );
    log.secs += 1;
    assert_eq!(log.answer(log.begin("r2", "a")), Answer::Numbered(2));
}

#[test]
fn a_failed_recovery_and_an_operation_leave_no_cool_down() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.end("r1", failed(), None, &[]));
    log.done(log.begin_as("o1", "p", Purpose::SetWriteable, true));
    log.done(log.end("o1", End::Succeeded, None, &[]));
    assert_eq!(log.answer(log.begin("r2", "p")), Answer::Numbered(3));
}

#[test]
fn acknowledging_or_forcing_lifts_the_cool_down() {
    for scope in [
        AckScope::All,
        AckScope::Number(1),
        AckScope::Uid(uid("r1")),
        AckScope::Instance(key("p")),
        AckScope::Cluster {
            name: "p:3306".into(),
            alias: String::new(),
        },
        AckScope::Cluster {
            name: "a:3306".into(),
            alias: String::new(),
        },
    ] {
        let mut log = Log::new();
        log.done(log.begin("r1", "p"));
        log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
        assert!(matches!(
            log.refused(log.begin("r2", "a")),
            Refusal::CoolDown { .. }
        ));
        assert_eq!(log.state.blocked().count(), 1);
        assert!(matches!(
            log.refused(Command::Acknowledge {
                scope: scope.clone(),
                owner: "dba".into(),
                comment: " ".into()
            }),
            Refusal::Invalid(_)
        ));
        let acknowledge = Command::Acknowledge {
            scope: scope.clone(),
            owner: "dba".into(),
            comment: "seen".into(),
        };
        assert_eq!(
            log.answer(acknowledge.clone()),
            Answer::Changed(1),
            "{scope:?}"
        );
        assert_eq!(log.answer(acknowledge), Answer::Changed(0), "only once");
        assert_eq!(log.state.blocked().count(), 0);
        assert_eq!(log.answer(log.begin("r3", "a")), Answer::Numbered(2));
    }
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    let dead = Purpose::DeadPrimary {
        kind: DeadKind::Gone,
    };
    assert_eq!(
        log.answer(log.begin_as("r2", "a", dead, true)),
        Answer::Numbered(2)
    );
}

#[test]
fn acknowledging_what_runs_does_not_make_room_beside_it() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(Command::Acknowledge {
        scope: AckScope::All,
        owner: "dba".into(),
        comment: "seen".into(),
    });
    assert_eq!(
        log.refused(log.begin("r2", "p")),
        Refusal::ClusterBusy { by: uid("r1") }
    );
}

#[test]
fn the_global_stop_holds_back_what_people_did_not_ask_for() {
    let mut log = Log::new();
    log.done(Command::SetRecoveriesEnabled { enabled: false });
    assert_eq!(
        log.refused(log.begin("r1", "p")),
        Refusal::RecoveriesDisabled
    );
    let quarantine = Purpose::Quarantine {
        deposed_by: uid("x"),
    };
    assert_eq!(
        log.refused(log.begin_as("q1", "p", quarantine, false)),
        Refusal::RecoveriesDisabled
    );
    log.done(log.begin_as("o1", "p", Purpose::SetReadOnly, true));
    log.done(log.end("o1", End::Succeeded, None, &[]));
    let dead = Purpose::DeadPrimary {
        kind: DeadKind::Gone,
    };
    log.done(log.begin_as("r2", "p", dead, true));
    log.done(log.end("r2", failed(), None, &[]));
    log.done(Command::SetRecoveriesEnabled { enabled: true });
    log.done(log.begin("r3", "p"));
}

#[test]
fn downtime_and_maintenance_hold_back_until_they_end() {
    let mut log = Log::new();
    let until = Wall::from_secs(log.secs + 600);
    log.done(Command::BeginDowntime {
        key: key("p"),
        owner: "dba".into(),
        reason: "disk".into(),
        until,
    });
    assert_eq!(
        log.refused(log.begin("r1", "p")),
        Refusal::InDowntime { until }
    );
    log.secs += 600;
    log.done(Command::BeginMaintenance {
        key: key("p"),
        owner: "dba".into(),
        reason: "disk".into(),
        until: Wall::from_secs(log.secs + 60),
    });
    assert!(matches!(
        log.refused(log.begin("r1", "p")),
        Refusal::InMaintenance { .. }
    ));
    log.secs += 60;
    log.done(log.begin("r1", "p"));
}

#[test]
fn an_entry_of_another_term_does_not_speak_for_an_epoch() {
    let mut log = Log::new();
    let stale = log.begin("r1", "p");
    log.done(log.begin("r0", "p"));
    let intend = log.intend("r0", Stage::Drain, vec![step(1, StepKind::Drain, "a")]);
    let end = log.end("r0", failed(), None, &[]);
    log.term = 2;
    for command in [stale, intend, end] {
        assert!(matches!(log.refused(command), Refusal::NotOwner { owner } if owner.term == 2));
    }
}

#[test]
fn ownership_moves_to_later_epochs_only() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    let first = log.epoch();
    log.term = 2;
    assert_eq!(
        log.refused(log.intend("r1", Stage::Drain, Vec::new())),
        Refusal::NotOwner { owner: first }
    );
    let second = log.epoch();
    log.done(Command::TakeOver {
        uid: uid("r1"),
        epoch: second,
    });
    log.done(Command::TakeOver {
        uid: uid("r1"),
        epoch: second,
    });
    let earlier = Epoch { boot: 0, ..second };
    assert_eq!(
        log.refused(Command::TakeOver {
            uid: uid("r1"),
            epoch: earlier
        }),
        Refusal::NotOwner { owner: second }
    );
    log.done(log.intend("r1", Stage::Drain, vec![step(1, StepKind::Drain, "a")]));
    log.done(log.end("r1", failed(), None, &[]));
    log.done(log.intend("r1", Stage::Closed, Vec::new()));
    log.term = 3;
    let third = log.epoch();
    assert_eq!(
        log.refused(Command::TakeOver {
            uid: uid("r1"),
            epoch: third
        }),
        Refusal::Ended
    );
}

/// What has ended runs hooks and does nothing else, under whoever leads, until it is closed; its cluster is free.
#[test]
fn after_the_end_there_are_hooks_only() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.intend("r1", Stage::PreHooks, vec![step(1, StepKind::Hook, "p")]));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::PreHooks, vec![step(2, StepKind::Halt, "a")])),
        Refusal::Invalid(_)
    ));
    log.done(log.settle("r1", 1, Outcome::Done));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::PostHooks, vec![step(2, StepKind::Hook, "p")])),
        Refusal::Invalid(_)
    ));
    log.done(log.intend(
        "r1",
        Stage::FenceAndHalt,
        vec![step(2, StepKind::Halt, "a")],
    ));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::PreHooks, vec![step(3, StepKind::Hook, "p")])),
        Refusal::Invalid(_)
    ));
    log.done(log.end("r1", failed(), None, &[]));
    assert_eq!(log.state.announced().count(), 1);
    assert_eq!(log.state.running().count(), 0);

    let halt = vec![step(3, StepKind::Halt, "a")];
    assert_eq!(
        log.refused(log.intend("r1", Stage::Drain, halt.clone())),
        Refusal::Ended
    );
    assert!(matches!(
        log.refused(log.intend("r1", Stage::PostHooks, halt)),
        Refusal::Invalid(_)
    ));
    log.term = 2;
    let hook = vec![step(3, StepKind::Hook, "p")];
    assert!(matches!(
        log.refused(log.intend("r1", Stage::PostHooks, hook.clone())),
        Refusal::NotOwner { .. }
    ));
    let epoch = log.epoch();
    log.done(Command::TakeOver {
        uid: uid("r1"),
        epoch,
    });
    log.done(log.intend("r1", Stage::PostHooks, hook));
    log.done(log.settle("r1", 3, Outcome::Done));
    log.done(log.intend("r1", Stage::Closed, Vec::new()));
    assert_eq!(log.state.announced().count(), 0);
    assert_eq!(
        log.refused(log.intend("r1", Stage::PostHooks, vec![step(4, StepKind::Hook, "p")])),
        Refusal::Ended
    );
}

#[test]
fn steps_are_intended_once_an_epoch_and_settled_once() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    let halt = || vec![step(1, StepKind::Halt, "a")];
    log.done(log.intend("r1", Stage::FenceAndHalt, halt()));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::FenceAndHalt, halt())),
        Refusal::Invalid(_)
    ));
    let unknown = || Outcome::Unknown {
        reason: "deadline".into(),
    };
    log.done(log.settle("r1", 1, unknown()));
    log.done(log.intend("r1", Stage::FenceAndHalt, halt()));
    log.term = 2;
    let epoch = log.epoch();
    log.done(Command::TakeOver {
        uid: uid("r1"),
        epoch,
    });
    log.done(log.intend("r1", Stage::FenceAndHalt, halt()));
    log.done(log.settle("r1", 1, Outcome::Done));
    log.done(log.settle("r1", 1, Outcome::Done));
    assert!(matches!(
        log.refused(log.settle("r1", 1, unknown())),
        Refusal::Invalid(_)
    ));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::FenceAndHalt, halt())),
        Refusal::Invalid(_)
    ));
    assert!(matches!(
        log.refused(log.settle("r1", 9, Outcome::Done)),
        Refusal::NotFound(_)
    ));
    let other = vec![step(1, StepKind::Halt, "b")];
    assert!(matches!(
        log.refused(log.intend("r1", Stage::FenceAndHalt, other)),
        Refusal::Invalid(_)
    ));
}

#[test]
fn after_the_promote_intent_there_is_no_way_back() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.intend("r1", Stage::Promote, vec![step(1, StepKind::Promote, "a")]));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::Undo, Vec::new())),
        Refusal::Invalid(_)
    ));
    let undone = End::Undone {
        reason: "back".into(),
    };
    assert!(matches!(
        log.refused(log.end("r1", undone, None, &[])),
        Refusal::Invalid(_)
    ));
    assert!(
        matches!(
            log.refused(log.intend("r1", Stage::Promote, vec![step(2, StepKind::Promote, "b")])),
            Refusal::Invalid(_)
        ),
        "one recovery promotes one server"
    );
    let no = Outcome::Refused {
        code: 1227,
        reason: "no right".into(),
    };
    log.done(log.settle("r1", 1, no));
    log.done(log.intend("r1", Stage::Promote, vec![step(2, StepKind::Promote, "b")]));
}

#[test]
fn nothing_is_promoted_while_it_is_undone() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.intend("r1", Stage::Undo, vec![step(1, StepKind::Resume, "a")]));
    assert!(matches!(
        log.refused(log.intend("r1", Stage::Promote, vec![step(2, StepKind::Promote, "a")])),
        Refusal::Invalid(_)
    ));
}

#[test]
fn a_promotion_moves_the_cluster_and_deposes_the_old_primary() {
    let mut log = Log::new();
    let cluster = log.state.cluster_of(&key("p")).expect("recorded").key;
    log.done(Command::SetClusterAlias {
        cluster_name: "p:3306".into(),
        alias: "main".into(),
        by_operator: false,
    });
    log.done(Command::BeginDowntime {
        key: key("a"),
        owner: "dba".into(),
        reason: "disk".into(),
        until: Wall::from_secs(log.secs + 600),
    });
    log.done(log.begin("r1", "p"));
    let applied = log.done(log.end("r1", End::Succeeded, Some("a"), &["b"]));
    assert_eq!(applied.answer, Answer::Numbered(1));

    let record = log.state.cluster(cluster).expect("the key stays");
    assert_eq!(
        (record.name.as_str(), record.alias.as_str()),
        ("a:3306", "main")
    );
    assert_eq!(record.former, [key("p")]);
    assert_eq!(record.identity, Some(identity("a")));
    for name in ["a:3306", "p:3306", "main", "b:3306"] {
        assert_eq!(
            log.state.cluster_named(name).map(|c| c.key),
            Some(cluster),
            "{name}"
        );
    }
    assert!(log.state.is_deposed(&identity("p")));
    assert!(!log.state.is_deposed(&identity("a")));
    // Lost servers stay in downtime whatever the time.
    let late = Wall::from_secs(log.secs + 3_000_000_000);
    for name in ["p", "b"] {
        assert!(log.state.downtime_of(&key(name), late).is_some(), "{name}");
    }
    assert!(
        log.state
            .downtime_of(&key("a"), log.state.log_time())
            .is_none()
    );
    let renamed: Vec<_> = applied
        .changes
        .iter()
        .filter(|change| matches!(change, Change::ClusterAlias { .. }))
        .collect();
    assert_eq!(
        renamed,
        [
            &Change::ClusterAlias {
                cluster_name: "p:3306".into(),
                alias: None
            },
            &Change::ClusterAlias {
                cluster_name: "a:3306".into(),
                alias: Some("main".into())
            },
        ]
    );

    // The old primary, on its own again, is no cluster until it is released.
    let alone = Command::RecordCluster {
        primary: key("p"),
        identity: Some(identity("p")),
        members: vec![key("p")],
    };
    assert!(matches!(log.refused(alone.clone()), Refusal::Invalid(_)));
    let quarantine = Purpose::Quarantine {
        deposed_by: uid("r1"),
    };
    log.done(log.begin_as("q1", "p", quarantine, false));
    log.done(log.end("q1", End::Succeeded, None, &[]));
    log.done(Command::MarkFenced {
        identity: identity("p"),
        at_uptime_s: 4,
    });
    assert_eq!(
        log.state
            .deposed_of(&identity("p"))
            .and_then(|row| row.fenced)
            .map(|f| f.uptime_s),
        Some(4)
    );
    log.done(Command::LiftQuarantine {
        identity: identity("p"),
        reason: "rejoined".into(),
    });
    assert!(!log.state.is_deposed(&identity("p")));
    assert!(
        log.state
            .downtime_of(&key("p"), log.state.log_time())
            .is_none()
    );
}

#[test]
fn a_replaced_primary_is_not_recovered_again() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    log.secs += 86_400;
    assert!(matches!(
        log.refused(log.begin("r2", "p")),
        Refusal::Invalid(_)
    ));
}

#[test]
fn undone_and_failed_recoveries_leave_the_cluster_as_it_was() {
    for end in [
        failed(),
        End::Undone {
            reason: "came back".into(),
        },
    ] {
        let mut log = Log::new();
        let before = log.state.cluster_of(&key("p")).cloned();
        log.done(log.begin("r1", "p"));
        log.done(log.end("r1", end, None, &["b"]));
        assert_eq!(log.state.cluster_of(&key("p")).cloned(), before);
        assert_eq!(log.state.deposed().count(), 0);
        assert_eq!(log.state.downtimes(log.state.log_time()).count(), 0);
    }
}

/// What is known of the cluster's primary: at which uptime it was writeable.
fn opened(log: &Log, server: &str) -> Option<u64> {
    log.state
        .cluster_of(&key(server))
        .and_then(|record| record.opened)
        .map(|opened| opened.uptime_s)
}

fn mark(server: &str, writeable_at_uptime_s: Option<u64>) -> Command {
    Command::MarkPrimary {
        primary: key(server),
        identity: identity(server),
        writeable_at_uptime_s,
    }
}

#[test]
fn who_is_primary_and_open_follows_marks_promotions_and_operations() {
    let mut log = Log::new();
    assert_eq!(opened(&log, "p"), None);
    log.done(mark("p", Some(86_400)));
    assert_eq!(opened(&log, "p"), Some(86_400));
    assert!(matches!(
        log.refused(mark("a", Some(1))),
        Refusal::NotFound(_)
    ));
    log.done(log.begin_as("o1", "p", Purpose::SetReadOnly, true));
    assert_eq!(opened(&log, "p"), None);
    assert!(matches!(
        log.refused(mark("p", Some(1))),
        Refusal::ClusterBusy { .. }
    ));
    log.done(log.end("o1", End::Succeeded, None, &[]));
    assert_eq!(opened(&log, "p"), None);
    log.done(log.begin_as("o2", "p", Purpose::SetWriteable, true));
    log.done(log.end("o2", End::Succeeded, None, &[]));
    assert_eq!(opened(&log, "p"), Some(0));
    log.done(mark("p", Some(86_400)));
    // An operation on a replica says nothing of the primary.
    log.done(log.begin_as("o3", "a", Purpose::SetReadOnly, true));
    log.done(log.end("o3", End::Succeeded, None, &[]));
    assert_eq!(opened(&log, "p"), Some(86_400));
    log.done(log.begin("r1", "p"));
    let promote = vec![step(1, StepKind::Promote, "a")];
    log.done(log.intend("r1", Stage::Promote, promote));
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    assert_eq!(opened(&log, "a"), Some(0));
    // What was promoted without being opened is not known to be open.
    let mut log = Log::new();
    log.done(mark("p", Some(86_400)));
    log.done(log.begin("r1", "p"));
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    assert_eq!(opened(&log, "a"), None);
}

#[test]
fn a_recovery_of_a_cluster_that_nobody_recorded_records_it() {
    let mut log = Log::new();
    let mut command = log.begin("r1", "x");
    if let Command::BeginRecovery { replicas, .. } = &mut command {
        *replicas = vec![key("x1")];
    }
    log.done(command);
    assert_eq!(
        log.state.cluster_of(&key("x1")).map(|c| c.primary.clone()),
        Some(key("x"))
    );
    log.done(log.end("r1", End::Succeeded, Some("x1"), &[]));
    assert_eq!(
        log.state.cluster_of(&key("x")).map(|c| c.primary.clone()),
        Some(key("x1"))
    );
}
