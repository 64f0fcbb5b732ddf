//! The table of analysis cases: each line of `data/analysis-cases.jsonl` is a small world and everything that has to be
//! said of it, no more and no less. Where two lineages of the rules differ, `expect` holds and `expect_upstream` is not
//! read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use orchestrator_core::{
    analysis::{
        Code, Context, Diagnosis, Filters, Hints, Judging, Problem, StaleCoordinates,
        StructureCode, View, diagnose_all,
    },
    id::InstanceKey,
    policy::Policy,
    time::{Mono, Now, Wall},
    topology::{
        BinlogCoordinates, Edges, Flavour, GroupMembership, Instance, ProbeReport, ReplicaStatus,
        SemiSync, ThreadState, UsingGtid, Version,
    },
};
use serde::Deserialize;

const NOW: Now = Now {
    mono: Mono::from_nanos(1_000_000_000_000),
    wall: Wall::from_secs(1_700_000_000),
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default, rename = "notes")]
    _notes: String,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    hints: CaseHints,
    instances: Vec<Server>,
    #[serde(default)]
    downtimes: Vec<Downtime>,
    #[serde(default)]
    maintenance: Vec<String>,
    #[serde(default)]
    stale: Vec<Stale>,
    #[serde(default)]
    hostname_resolve: BTreeMap<String, String>,
    #[serde(default)]
    cluster_filter: String,
    expect: Vec<Expected>,
    #[serde(default, rename = "expect_upstream")]
    _expect_upstream: Vec<Expected>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Config {
    instance_poll_seconds: Option<u64>,
    reasonable_instance_check_seconds: Option<u64>,
    reasonable_replication_lag_seconds: Option<u64>,
    reasonable_locked_semi_sync_master_seconds: Option<u64>,
    reduce_replication_analysis_count: Option<bool>,
    enforce_exact_semi_sync_replicas: Option<bool>,
    recover_non_writeable_master: Option<bool>,
    recovery_ignore_hostname_filters: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseHints {
    include_downtimed: bool,
    include_no_problem: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Downtime {
    key: String,
    ends_in: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stale {
    key: String,
    binlog: (String, u64),
    first_seen_age: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    key: String,
    #[serde(default)]
    master: String,
    valid: Option<bool>,
    checked_age: Option<u64>,
    #[serde(default, deserialize_with = "stated")]
    seen_age: Option<Option<u64>>,
    attempted_age: Option<u64>,
    partial: Option<u8>,
    depth: Option<u32>,
    #[serde(default)]
    co_master: bool,
    io: Option<bool>,
    sql: Option<bool>,
    #[serde(default)]
    io_error: String,
    #[serde(default, deserialize_with = "stated")]
    lag: Option<Option<u64>>,
    #[serde(default)]
    sql_delay: u32,
    log_bin: Option<bool>,
    log_updates: Option<bool>,
    binlog_format: Option<String>,
    version: Option<String>,
    read_only: Option<bool>,
    oracle_gtid: Option<bool>,
    #[serde(default)]
    mariadb_gtid: bool,
    #[serde(default)]
    pseudo_gtid: bool,
    #[serde(default)]
    binlog_server: bool,
    gtid_mode: Option<String>,
    #[serde(default)]
    gtid_errant: String,
    #[serde(default)]
    semi_enabled: bool,
    #[serde(default)]
    semi_status: bool,
    #[serde(default)]
    semi_wait: u32,
    #[serde(default)]
    semi_clients: u32,
    #[serde(default)]
    group_name: String,
    #[serde(default)]
    group_state: String,
    #[serde(default)]
    group_role: String,
    binlog: Option<(String, u64)>,
    cluster: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    key: String,
    analysis: String,
    structure: Vec<String>,
    #[serde(default)]
    skippable: bool,
    #[serde(default)]
    replicas_downtimed: bool,
    #[serde(default)]
    actionable: bool,
}

/// Tells a member that is null from one that is absent.
fn stated<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(from).map(Some)
}

fn key(text: &str) -> InstanceKey {
    InstanceKey::parse(text, 0).expect("a case names its servers by key")
}

/// As a server states its source: any text before the last colon.
fn source(text: &str) -> InstanceKey {
    let (host, port) = text.rsplit_once(':').expect("a source has a port");
    InstanceKey::new(host, port.parse().expect("a port is a number"))
}

fn ago(seconds: u64) -> Mono {
    NOW.mono - Duration::from_secs(seconds)
}

fn instance(server: &Server) -> Instance {
    let has_source = !server.master.is_empty();
    let is_dead = server.valid == Some(false);
    let thread = |runs: Option<bool>| {
        if runs.unwrap_or(has_source) {
            ThreadState::Running
        } else {
            ThreadState::Stopped
        }
    };
    let version = server.version.as_deref().unwrap_or("8.0.36");
    let binlog = server.binlog.clone().unwrap_or(("bin.000009".into(), 400));
    let report = ProbeReport {
        flavour: if server.binlog_server {
            Flavour::MaxScale
        } else if version.contains("MariaDB") {
            Flavour::Mariadb
        } else {
            Flavour::Mysql
        },
        version: Version::parse(version),
        read_only: server.read_only.unwrap_or(has_source),
        log_bin: server.log_bin.unwrap_or(true),
        log_replica_updates: server.log_updates.unwrap_or(true),
        binlog_format: server.binlog_format.clone().unwrap_or("ROW".into()),
        binlog: Some(BinlogCoordinates {
            file: binlog.0,
            position: binlog.1,
        }),
        gtid_mode: server.gtid_mode.clone().unwrap_or("ON".into()),
        replication: has_source.then(|| ReplicaStatus {
            source: source(&server.master),
            io: thread(server.io),
            sql: thread(server.sql),
            io_error: server.io_error.clone(),
            seconds_behind: server.lag.unwrap_or(Some(0)),
            sql_delay_s: server.sql_delay,
            auto_position: server.oracle_gtid.unwrap_or(true),
            using_gtid: if server.mariadb_gtid {
                UsingGtid::SlavePos
            } else {
                UsingGtid::No
            },
            ..ReplicaStatus::default()
        }),
        semi_sync: SemiSync {
            source_enabled: server.semi_enabled,
            source_status: server.semi_status,
            source_wait_count: server.semi_wait,
            source_clients: server.semi_clients,
            ..SemiSync::default()
        },
        group: (!server.group_name.is_empty()).then(|| GroupMembership {
            name: server.group_name.clone(),
            state: server.group_state.clone(),
            role: server.group_role.clone(),
            ..GroupMembership::default()
        }),
        ..ProbeReport::default()
    };
    let mut instance = Instance::new(key(&server.key), NOW);
    instance.report = Some(Arc::new(report));
    instance.checked = Some(ago(server.checked_age.unwrap_or(1)));
    instance.attempted = Some(ago(server.attempted_age.unwrap_or(1)));
    instance.seen = server
        .seen_age
        .unwrap_or(Some(if is_dead { 60 } else { 1 }))
        .map(ago);
    instance.partial_success = server.partial.unwrap_or(u8::from(!is_dead)) != 0;
    instance.place.cluster_name = server.cluster.clone().unwrap_or("m1:3306".into());
    instance.place.depth = server.depth.unwrap_or(u32::from(has_source));
    instance.place.is_co_primary = server.co_master;
    instance.place.errant.clone_from(&server.gtid_errant);
    instance
}

#[derive(Default)]
struct World {
    downtimes: BTreeMap<InstanceKey, Wall>,
    maintenance: BTreeSet<InstanceKey>,
    stale: BTreeMap<InstanceKey, StaleCoordinates>,
    names: BTreeMap<String, String>,
    pseudo_gtid: BTreeSet<InstanceKey>,
}

impl Context for World {
    fn downtime_end(&self, key: &InstanceKey) -> Option<Wall> {
        self.downtimes.get(key).copied()
    }

    fn is_in_maintenance(&self, key: &InstanceKey) -> bool {
        self.maintenance.contains(key)
    }

    fn stale_coordinates(&self, key: &InstanceKey) -> Option<&StaleCoordinates> {
        self.stale.get(key)
    }

    fn resolved_host(&self, host: &str) -> Option<&str> {
        self.names.get(host).map(String::as_str)
    }

    fn uses_pseudo_gtid(&self, key: &InstanceKey) -> bool {
        self.pseudo_gtid.contains(key)
    }
}

fn world(case: &Case) -> World {
    World {
        downtimes: case
            .downtimes
            .iter()
            .map(|downtime| {
                let end = NOW
                    .wall
                    .secs()
                    .checked_add_signed(downtime.ends_in)
                    .expect("a downtime ends near the present");
                (key(&downtime.key), Wall::from_secs(end))
            })
            .collect(),
        maintenance: case.maintenance.iter().map(|text| key(text)).collect(),
        stale: case
            .stale
            .iter()
            .map(|stale| {
                let coordinates = BinlogCoordinates {
                    file: stale.binlog.0.clone(),
                    position: stale.binlog.1,
                };
                let first_seen = ago(stale.first_seen_age);
                (
                    key(&stale.key),
                    StaleCoordinates {
                        coordinates,
                        first_seen,
                    },
                )
            })
            .collect(),
        names: case.hostname_resolve.clone(),
        pseudo_gtid: case
            .instances
            .iter()
            .filter(|server| server.pseudo_gtid)
            .map(|server| key(&server.key))
            .collect(),
    }
}

fn policy(config: &Config) -> Policy {
    let mut policy = Policy::default();
    let durations = [
        (&mut policy.poll, config.instance_poll_seconds),
        (
            &mut policy.reasonable_check,
            config.reasonable_instance_check_seconds,
        ),
        (
            &mut policy.reasonable_lag,
            config.reasonable_replication_lag_seconds,
        ),
        (
            &mut policy.reasonable_locked_semi_sync,
            config.reasonable_locked_semi_sync_master_seconds,
        ),
    ];
    for (setting, given) in durations {
        if let Some(seconds) = given {
            *setting = Duration::from_secs(seconds);
        }
    }
    policy.reduce_analysis = config
        .reduce_replication_analysis_count
        .unwrap_or(policy.reduce_analysis);
    policy.enforce_exact_semi_sync = config.enforce_exact_semi_sync_replicas.unwrap_or(false);
    policy.recover_non_writeable = config.recover_non_writeable_master.unwrap_or(false);
    policy.recovery_ignore_hosts = config
        .recovery_ignore_hostname_filters
        .clone()
        .unwrap_or_default();
    policy
}

fn shown(problem: &Problem) -> Expected {
    Expected {
        key: problem.key.to_string(),
        analysis: problem.code.name().into(),
        structure: problem
            .structure
            .iter()
            .map(|code| code.name().into())
            .collect(),
        skippable: problem.is_skippable,
        replicas_downtimed: problem.is_replicas_downtimed,
        actionable: problem.is_actionable(),
    }
}

fn cases() -> Vec<Case> {
    include_str!("data/analysis-cases.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn every_case_is_diagnosed_as_the_table_says() {
    let cases = cases();
    assert_eq!(cases.len(), 176);
    let mut wrong = String::new();
    for case in &cases {
        let policy = policy(&case.config);
        let filters = Filters::compile(&policy).unwrap();
        let context = world(case);
        let instances: BTreeMap<InstanceKey, Instance> = case
            .instances
            .iter()
            .map(instance)
            .map(|instance| (instance.key.clone(), instance))
            .collect();
        let edges = Edges::of(instances.values());
        let view = View {
            instances: &instances,
            edges: &edges,
        };
        let judging = Judging {
            policy: &policy,
            filters: &filters,
            context: &context,
            now: NOW,
        };
        let hints = Hints {
            include_downtimed: case.hints.include_downtimed,
            include_no_problem: case.hints.include_no_problem,
            cluster_name: (!case.cluster_filter.is_empty()).then_some(case.cluster_filter.as_str()),
        };
        let problems = diagnose_all(view, judging, hints);
        if !hints.include_no_problem {
            let kept = Diagnosis::of(view, judging);
            let kept: Vec<Problem> = kept.entries(hints).into_iter().cloned().collect();
            assert_eq!(kept, problems, "{}", case.name);
        }
        let mut found: Vec<Expected> = problems.iter().map(shown).collect();
        let mut expected = case.expect.clone();
        found.sort();
        expected.sort();
        if found != expected {
            writeln!(
                wrong,
                "{}:\n  expected {expected:?}\n  found    {found:?}",
                case.name
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The table would not notice a rule that it never reaches.
#[test]
fn the_cases_reach_every_code() {
    let expected: BTreeSet<String> = cases()
        .into_iter()
        .flat_map(|case| case.expect)
        .flat_map(|expected| expected.structure.into_iter().chain([expected.analysis]))
        .collect();
    let missing: Vec<&str> = Code::ALL
        .iter()
        .map(|code| code.name())
        .chain(StructureCode::ALL.iter().map(|code| code.name()))
        .filter(|name| !expected.contains(*name))
        .collect();
    // Of these the first is never found, and the others are ours (see the scenarios of the node).
    assert_eq!(
        missing,
        [
            "MasterWithoutReplicas",
            "OverloadedPrimary",
            "TwoWriteablePrimariesStructureWarning",
            "ReplacedPrimaryHasReplicasStructureWarning",
            "MissingPrivilegesStructureWarning",
            "UnknownPrivilegesStructureWarning",
            "UnseenByDaemonsStructureWarning",
            "RefusedQueriesStructureWarning",
            "UnfenceableUsersStructureWarning",
        ]
    );
}
