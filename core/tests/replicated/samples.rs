//! One of everything that can be written down.

use core::time::Duration;
use std::collections::BTreeMap;

use orchestrator_core::{
    gtid::{Flavour, GtidSet},
    id::{ClusterKey, Epoch, Identity, InstanceKey, NodeId, StepId, Uid},
    policy::{DeposedAction, Policy, ReturnPolicy},
    recovery::{
        AuditLine, DeadKind, End, Hook, HookList, Lane, Outcome, Purpose, Recovery, SourcePosition,
        Stage, Statement, Step, StepKind, Telling,
    },
    replicated::{
        AckScope, Answer, Candidate, ChangeCause, Command, Detection, Downtime, Maintenance,
        OriginalCluster, OriginalRows, OriginalSummary, Protocols, Refusal, Tag,
    },
    time::Wall,
    topology::PromotionRule,
};

pub fn key(name: &str) -> InstanceKey {
    InstanceKey::new(name, 3306)
}

pub fn identity(name: &str) -> Identity {
    Identity(format!("uuid-{name}"))
}

pub fn uid(name: &str) -> Uid {
    Uid(name.into())
}

pub fn epoch(term: u64) -> Epoch {
    Epoch {
        term,
        node: NodeId(0xfeed_0000 + term),
        boot: 7,
    }
}

pub fn step(id: u64, kind: StepKind, server: &str, statements: Vec<Statement>) -> Step {
    Step {
        id: StepId(id),
        kind,
        server: key(server),
        identity: Some(identity(server)),
        lane: Lane::Act,
        statements,
        deadline: Duration::from_millis(1_500),
        read_after: true,
    }
}

fn statements() -> Vec<Statement> {
    vec![
        Statement::Fence,
        Statement::MakeWriteable,
        Statement::MakeReadOnly {
            super_read_only: true,
        },
        Statement::KillClients {
            spare_users: vec!["backup".into()],
        },
        Statement::StopIoThread,
        Statement::StartIoThread,
        Statement::StopSqlThread,
        Statement::StartSqlThread,
        Statement::StopReplication,
        Statement::StartReplication,
        Statement::ChangeSource {
            source: key("a"),
            position: SourcePosition::OracleAuto,
            options: vec![("SOURCE_SSL".into(), "1".into())],
        },
        Statement::ChangeSource {
            source: key("b"),
            position: SourcePosition::MariadbSlavePos,
            options: Vec::new(),
        },
        Statement::ResetReplicaAll,
        Statement::SetGtidSlavePos {
            position: GtidSet::parse(Flavour::Mariadb, "0-1-270").expect("a position"),
        },
        Statement::SetGtidSlavePos {
            position: GtidSet::parse(
                Flavour::Oracle,
                "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:11",
            )
            .expect("a set"),
        },
        Statement::SemiSyncSource { enabled: true },
        Statement::SemiSyncReplica { enabled: false },
    ]
}

fn steps() -> Vec<Step> {
    let kinds = [
        StepKind::Fence,
        StepKind::KillClients,
        StepKind::Halt,
        StepKind::Drain,
        StepKind::Promote,
        StepKind::Repoint,
        StepKind::Resume,
        StepKind::Reopen,
        StepKind::Operate,
    ];
    let mut steps: Vec<Step> = (1..)
        .zip(kinds)
        .map(|(id, kind)| step(id, kind, "a", Vec::new()))
        .collect();
    steps[0].lane = Lane::Fence;
    steps[1].lane = Lane::Kill;
    steps[2].identity = None;
    steps[2].read_after = false;
    steps[3].statements = statements();
    steps
}

pub fn detection() -> Detection {
    Detection {
        number: 0,
        server: key("p"),
        analysis: "DeadMaster".into(),
        cluster_name: "p:3306".into(),
        cluster_alias: "main".into(),
        replicas: vec![key("a"), key("b")],
        is_actionable: true,
        processing_node: "n1".into(),
        processing_token: "token".into(),
        at: Wall::from_nanos(1_800_000_000_123_456_789),
        is_active: true,
        telling: None,
    }
}

/// A policy that differs from the default in every field, so that a swap of fields shows.
pub fn policy() -> Policy {
    let mut secs = 100;
    let mut next = || {
        secs += 1;
        Duration::new(secs, 5)
    };
    let texts = |name: &str| vec![name.to_string(), "*".to_string()];
    Policy {
        poll: next(),
        reasonable_check: next(),
        reasonable_lag: next(),
        reasonable_locked_semi_sync: next(),
        reduce_analysis: false,
        enforce_exact_semi_sync: true,
        recover_non_writeable: true,
        recover_primary_filters: texts("primary"),
        recover_intermediate_filters: texts("intermediate"),
        recovery_ignore_hosts: texts("recovery"),
        promotion_ignore_hosts: texts("promotion"),
        problem_ignore_hosts: texts("problem"),
        cool_down: next(),
        detection_block: next(),
        apply_promotion: false,
        prevent_cross_data_center: true,
        prevent_cross_region: true,
        fail_promotion_on_lag: next(),
        fail_promotion_if_not_applied: true,
        skip_drain: true,
        lost_downtime: next(),
        candidate_expiry: next(),
        unseen_forget: next(),
        audit_purge: next(),
        cluster_name_to_alias: vec![("^p".into(), "main".into())],
        ignore_hosts: texts("any"),
        ignore_replica_hosts: texts("replica"),
        ignore_source_hosts: texts("source"),
        gone_patience: next(),
        planned_stop_patience: next(),
        return_policy: ReturnPolicy::Continue,
        reopen_restarted_primary: false,
        halt_deadline: next(),
        donor_catchup: next(),
        drain_max: next(),
        refuse_lossy: true,
        witness_quorum: 2,
        deposed_action: DeposedAction::Report,
        spare_users: texts("user"),
        observe_only: true,
    }
}

/// The kind of a command: what its golden file is called. Exhaustive, so that a new kind asks for a sample.
pub const fn kind(command: &Command) -> &'static str {
    match command {
        Command::Declare { .. } => "declare",
        Command::SetVersion { .. } => "set_version",
        Command::DescribeMember { .. } => "describe_member",
        Command::DescribeProtocols { .. } => "describe_protocols",
        Command::BeginMemberChange { .. } => "begin_member_change",
        Command::EndMemberChange { .. } => "end_member_change",
        Command::SetPolicy(_) => "set_policy",
        Command::Know { .. } => "know",
        Command::Forget { .. } => "forget",
        Command::RecordCluster { .. } => "record_cluster",
        Command::SetClusterAlias { .. } => "set_cluster_alias",
        Command::SetClusterDomain { .. } => "set_cluster_domain",
        Command::BeginDowntime { .. } => "begin_downtime",
        Command::EndDowntime { .. } => "end_downtime",
        Command::BeginMaintenance { .. } => "begin_maintenance",
        Command::EndMaintenance { .. } => "end_maintenance",
        Command::RegisterCandidate { .. } => "register_candidate",
        Command::PutTag { .. } => "put_tag",
        Command::DeleteTag { .. } => "delete_tag",
        Command::SetRecoveriesEnabled { .. } => "set_recoveries_enabled",
        Command::RegisterDetection(_) => "register_detection",
        Command::TellOfDetection { .. } => "tell_of_detection",
        Command::BeginRecovery { .. } => "begin_recovery",
        Command::TakeOver { .. } => "take_over",
        Command::Intend { .. } => "intend",
        Command::Settle { .. } => "settle",
        Command::Remark { .. } => "remark",
        Command::EndRecovery { .. } => "end_recovery",
        Command::Acknowledge { .. } => "acknowledge",
        Command::LiftQuarantine { .. } => "lift_quarantine",
        Command::MarkFenced { .. } => "mark_fenced",
        Command::MarkPrimary { .. } => "mark_primary",
        Command::MarkWitnesses { .. } => "mark_witnesses",
        Command::Adopt { .. } => "adopt",
        Command::ChooseOriginal { .. } => "choose_original",
    }
}

pub const KINDS: usize = 35;

fn begin(name: &str, purpose: Purpose) -> Command {
    Command::BeginRecovery {
        uid: uid(name),
        purpose,
        epoch: epoch(3),
        server: key("p"),
        identity: Some(identity("p")),
        cluster_name: "p:3306".into(),
        analysis: "DeadMaster".into(),
        replicas: vec![key("a"), key("b")],
        processing_node: "n1".into(),
        processing_token: "token".into(),
        forced: false,
        was_read_only: false,
    }
}

fn intend(stage: Stage, steps: Vec<Step>) -> Command {
    Command::Intend {
        uid: uid("r1"),
        epoch: epoch(3),
        stage,
        candidate: Some(key("a")),
        steps,
        ending: (stage == Stage::Undo).then(|| {
            Box::new(End::Failed {
                reason: "nobody can be promoted".into(),
            })
        }),
        lines: vec!["chosen: a".into()],
    }
}

fn end(end: End) -> Command {
    Command::EndRecovery {
        uid: uid("r1"),
        epoch: epoch(3),
        end,
        successor: Some(key("a")),
        successor_identity: Some(identity("a")),
        successor_alias: "main".into(),
        lost: vec![key("b")],
        participants: vec![key("a"), key("c")],
        lines: vec!["done".into()],
    }
}

fn acknowledge(scope: AckScope) -> Command {
    Command::Acknowledge {
        scope,
        owner: "dba".into(),
        comment: "seen".into(),
    }
}

/// A recovery of the original, as its rows tell of it.
pub fn original_recovery(number: u64, ended: Wall) -> Recovery {
    Recovery {
        uid: Uid(format!("original:{number}")),
        number,
        purpose: Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        },
        cluster: ClusterKey(0),
        cluster_name: "p:3306".into(),
        cluster_alias: "main".into(),
        server: key("p"),
        identity: None,
        analysis: "DeadMaster".into(),
        replicas: vec![key("a"), key("b")],
        owner: Epoch::default(),
        processing_node: "n1".into(),
        processing_token: "token".into(),
        began: ended,
        stage: Stage::Closed,
        steps: BTreeMap::new(),
        candidate: None,
        successor: Some(key("a")),
        successor_alias: "db-a".into(),
        lost: vec![key("b")],
        participants: Vec::new(),
        possible_loss: Vec::new(),
        errors: vec!["could not repoint b".into()],
        lines: vec![AuditLine {
            at: ended,
            message: "found 2 replicas".into(),
        }],
        end: Some((ended, End::Succeeded)),
        acknowledged: None,
        detection: 4,
        was_read_only: false,
        ending: None,
    }
}

/// One of everything that a database of the original may say.
pub fn original_rows(now: Wall) -> OriginalRows {
    let hour = Duration::from_secs(3600);
    OriginalRows {
        known: vec![key("p"), key("a"), key("b")],
        clusters: vec![OriginalCluster {
            primary: key("a"),
            members: vec![key("a"), key("b"), key("p")],
            alias: "shop".into(),
        }],
        downtimes: vec![(
            key("b"),
            Downtime {
                owner: "anna".into(),
                reason: "disk".into(),
                began: now - hour,
                until: now + hour,
            },
        )],
        maintenance: vec![(
            key("a"),
            Maintenance {
                number: 12,
                owner: "bert".into(),
                reason: "upgrade".into(),
                began: now - hour,
                until: now + hour,
            },
        )],
        candidates: vec![(
            key("b"),
            Candidate {
                rule: PromotionRule::PreferNot,
                at: now,
            },
        )],
        tags: vec![(
            (key("a"), "rack".into()),
            Tag {
                value: "7".into(),
                at: now - hour,
            },
        )],
        detections: vec![Detection {
            number: 4,
            is_active: false,
            ..detection()
        }],
        recoveries: vec![original_recovery(9, now - hour / 4)],
        stopped: Some(now - hour),
    }
}

/// Every kind of command with every kind of thing in it.
pub fn commands() -> Vec<Command> {
    let until = Wall::from_nanos(1_800_000_600_000_000_001);
    let mut commands = vec![
        Command::Adopt {
            node: NodeId(2),
            part: 1,
            is_last: true,
            rows: Box::new(original_rows(until)),
        },
        Command::ChooseOriginal { node: NodeId(3) },
        Command::Declare {
            node: NodeId(u64::MAX),
            entries: vec!["n1:10008".into(), "[::1]:7".into()],
            identities: vec![NodeId(1), NodeId(300)],
        },
        Command::BeginMemberChange {
            epoch: epoch(3),
            base: 300,
            wanted: vec![NodeId(1), NodeId(2)],
            cause: ChangeCause::Declared,
        },
        Command::BeginMemberChange {
            epoch: epoch(3),
            base: 0,
            wanted: vec![NodeId(1)],
            cause: ChangeCause::Swapped {
                former: NodeId(2),
                newcomer: NodeId(3),
                address: "n3:10008".into(),
            },
        },
        Command::BeginMemberChange {
            epoch: epoch(3),
            base: 7,
            wanted: vec![NodeId(1)],
            cause: ChangeCause::Operator {
                request: "an operator adds n4:10008".into(),
            },
        },
        Command::EndMemberChange {
            epoch: epoch(3),
            base: 301,
            reason: "it was not done within 600 s".into(),
        },
        Command::SetVersion {
            command: 2,
            snapshot: 3,
        },
        Command::DescribeMember {
            node: NodeId(1),
            raft_address: "n1:10008".into(),
            http_uri: "http://n1:3000".into(),
            host_name: "n1".into(),
            build: "1.0.0".into(),
            reads_command: 1,
            reads_snapshot: 1,
            original: Some(OriginalSummary {
                newest: Wall::from_secs(1_790_000_000),
                servers: 3,
            }),
        },
        Command::DescribeProtocols {
            node: NodeId(1),
            protocols: Protocols {
                oldest: 2,
                newest: 300,
            },
        },
        Command::SetPolicy(Box::new(policy())),
        Command::SetPolicy(Box::new(Policy {
            deposed_action: DeposedAction::ReadOnly,
            ..Policy::default()
        })),
        Command::SetPolicy(Box::default()),
        Command::Know {
            keys: vec![key("p"), InstanceKey::new("2001:db8::1", 65_535)],
            by_operator: true,
        },
        Command::Forget {
            keys: vec![key("p")],
        },
        Command::RecordCluster {
            primary: key("p"),
            identity: Some(identity("p")),
            members: vec![key("a"), key("p")],
        },
        Command::RecordCluster {
            primary: key("p"),
            identity: None,
            members: Vec::new(),
        },
        Command::SetClusterAlias {
            cluster_name: "p:3306".into(),
            alias: "главный".into(),
            by_operator: true,
        },
        Command::SetClusterDomain {
            cluster_name: "p:3306".into(),
            domain: "main.example".into(),
        },
        Command::BeginDowntime {
            key: key("a"),
            owner: "dba".into(),
            reason: "disk".into(),
            until,
        },
        Command::EndDowntime { key: key("a") },
        Command::BeginMaintenance {
            key: key("a"),
            owner: "dba".into(),
            reason: "disk".into(),
            until,
        },
        Command::EndMaintenance { key: key("a") },
        Command::PutTag {
            key: key("a"),
            name: "role".into(),
            value: "backup".into(),
        },
        Command::DeleteTag {
            key: Some(key("a")),
            name: "role".into(),
            value: None,
        },
        Command::DeleteTag {
            key: None,
            name: "role".into(),
            value: Some("backup".into()),
        },
        Command::SetRecoveriesEnabled { enabled: false },
        Command::SetRecoveriesEnabled { enabled: true },
        Command::RegisterDetection(detection()),
        // Of another server, so that it is another failure.
        Command::RegisterDetection(Detection {
            server: key("q"),
            telling: Some(Telling::begun(epoch(3))),
            ..detection()
        }),
        Command::TellOfDetection {
            number: 300,
            epoch: epoch(3),
            run: 300,
            ended: None,
            next: None,
        },
        Command::TellOfDetection {
            number: 6,
            epoch: epoch(3),
            run: 1,
            ended: Some(Outcome::Done),
            next: Some(1),
        },
        Command::TellOfDetection {
            number: 6,
            epoch: epoch(3),
            run: 2,
            ended: Some(Outcome::Refused {
                code: 1,
                reason: "exit code 1".into(),
            }),
            next: None,
        },
        begin(
            "r1",
            Purpose::DeadPrimary {
                kind: DeadKind::Gone,
            },
        ),
        begin(
            "r2",
            Purpose::DeadPrimary {
                kind: DeadKind::Silent,
            },
        ),
        begin(
            "r3",
            Purpose::Quarantine {
                deposed_by: uid("r1"),
            },
        ),
        begin("r4", Purpose::Reopen),
        begin("r5", Purpose::SetReadOnly),
        begin("r6", Purpose::SetWriteable),
        begin("r7", Purpose::Rejoin { primary: key("a") }),
        Command::TakeOver {
            uid: uid("r1"),
            epoch: epoch(4),
        },
        intend(Stage::FenceAndHalt, steps()),
        Command::Settle {
            uid: uid("r1"),
            epoch: epoch(3),
            outcomes: vec![
                (StepId(1), Outcome::Done),
                (
                    StepId(2),
                    Outcome::Refused {
                        code: 1_227,
                        reason: "no right".into(),
                    },
                ),
                (
                    StepId(3),
                    Outcome::Unknown {
                        reason: "deadline".into(),
                    },
                ),
            ],
            lines: vec!["settled".into()],
        },
        Command::Remark {
            uid: uid("r1"),
            epoch: epoch(3),
            lines: vec!["line".into()],
            errors: vec!["error".into()],
            possible_loss: vec!["loss".into()],
        },
        end(End::Succeeded),
        end(End::Undone {
            reason: "it came back".into(),
        }),
        end(End::Failed {
            reason: "none left".into(),
        }),
        acknowledge(AckScope::All),
        acknowledge(AckScope::Number(300)),
        acknowledge(AckScope::Uid(uid("r1"))),
        acknowledge(AckScope::Cluster {
            name: "p:3306".into(),
            alias: "main".into(),
        }),
        acknowledge(AckScope::Instance(key("p"))),
        Command::LiftQuarantine {
            identity: identity("p"),
            reason: "rejoined".into(),
        },
        Command::MarkFenced {
            identity: identity("p"),
            at_uptime_s: 86_400,
        },
        Command::MarkPrimary {
            primary: key("p"),
            identity: identity("p"),
            writeable_at_uptime_s: Some(86_400),
        },
        Command::MarkPrimary {
            primary: key("p"),
            identity: identity("p"),
            writeable_at_uptime_s: None,
        },
        Command::MarkWitnesses {
            primary: key("p"),
            identity: identity("p"),
            nodes: vec![NodeId(1), NodeId(2)],
        },
    ];
    commands.extend(
        [
            PromotionRule::Must,
            PromotionRule::Prefer,
            PromotionRule::Neutral,
            PromotionRule::PreferNot,
            PromotionRule::MustNot,
        ]
        .map(|rule| Command::RegisterCandidate {
            key: key("a"),
            rule,
        }),
    );
    commands.extend(
        [
            Stage::Begun,
            Stage::Drain,
            Stage::Promote,
            Stage::Regroup,
            Stage::Tidy,
            Stage::Undo,
            Stage::Operate,
            Stage::Ended,
        ]
        .map(|stage| intend(stage, Vec::new())),
    );
    let hooks = HookList::ALL.map(|list| {
        let hook = Hook { list, place: 2 };
        step(1, StepKind::Hook, "p", vec![Statement::RunHook { hook }])
    });
    commands.push(intend(Stage::PreHooks, hooks.to_vec()));
    commands.extend([Stage::PostHooks, Stage::Closed].map(|stage| intend(stage, Vec::new())));
    commands
}

/// Every kind of answer.
pub fn answers() -> Vec<Answer> {
    let until = Wall::from_secs(1_800_000_000);
    let mut answers = vec![Answer::Done, Answer::Changed(0), Answer::Numbered(u64::MAX)];
    answers.extend(
        [
            Refusal::NotFound("p:3306".into()),
            Refusal::ClusterBusy { by: uid("r1") },
            Refusal::CoolDown {
                by: uid("r1"),
                until,
            },
            Refusal::RecoveriesDisabled,
            Refusal::NotOwner { owner: epoch(3) },
            Refusal::Ended,
            Refusal::Full {
                what: "tags".into(),
                limit: 256,
            },
            Refusal::Invalid("why".into()),
            Refusal::InDowntime { until },
            Refusal::InMaintenance { until },
        ]
        .map(Answer::Refused),
    );
    answers
}
