//! What is kept up by news of single servers equals what is judged from nothing: after any sequence of changes to
//! servers, to what was decided about them, and of time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use orchestrator_core::{
    analysis::{
        Context, Diagnosis, Filters, Hints, Judging, Problem, StaleCoordinates, View, diagnose,
        diagnose_all,
    },
    id::InstanceKey,
    policy::Policy,
    time::{Mono, Now, Wall},
    topology::{
        BinlogCoordinates, Edges, Flavour, GroupMembership, Instance, ProbeReport, ReplicaStatus,
        SemiSync, ThreadState,
    },
};
use proptest::prelude::*;

/// Few servers, so that changes meet. Server 7 is known to its replicas by the name of server 0.
const SERVERS: u8 = 8;
const ALIASED: u8 = 7;

const WITH_DOWNTIMED: Hints<'_> = Hints {
    include_downtimed: true,
    include_no_problem: false,
    cluster_name: None,
};

fn key(server: u8) -> InstanceKey {
    InstanceKey::new(format!("s{server}"), 3306)
}

#[derive(Debug, Clone)]
enum Change {
    /// A probe ended well: source, threads run, connect error, lag, read-only, log moves to, semi-sync clients.
    Answers {
        server: u8,
        source: Option<u8>,
        detached: bool,
        io: bool,
        sql: bool,
        cannot_connect: bool,
        lag: Option<u64>,
        position: u64,
        clients: u32,
        kind: u8,
    },
    /// A probe ended, badly.
    Fails {
        server: u8,
        partial: bool,
    },
    /// A probe began.
    Begins {
        server: u8,
    },
    Forgotten {
        server: u8,
    },
    Place {
        server: u8,
        cluster: u8,
        depth: u32,
        co_primary: bool,
        errant: bool,
    },
    Downtime {
        server: u8,
        seconds: Option<u64>,
    },
    Maintenance {
        server: u8,
        on: bool,
    },
    /// The log of the server is noted to stand still where it is.
    Stale {
        server: u8,
        noted: bool,
    },
    StandsStill {
        server: u8,
        on: bool,
    },
    Grace {
        server: u8,
        on: bool,
    },
    Alias {
        cluster: u8,
        on: bool,
    },
    Renamed {
        on: bool,
    },
    Policy {
        reduce: bool,
        ignore: bool,
    },
    Time {
        millis: u64,
    },
    /// Exactly the next instant at which something may change by itself.
    TimeUntilNext,
    WallSteps {
        seconds: i64,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let server = 0..SERVERS;
    prop_oneof![
        6 => (
            (server.clone(), prop::option::weighted(0.8, server.clone()), prop::bool::weighted(0.1)),
            (prop::bool::weighted(0.6), prop::bool::weighted(0.7), any::<bool>()),
            (prop::option::of(prop_oneof![Just(0u64), Just(60)]), 0u64..2, 0u32..3, 0u8..12),
        )
            .prop_map(|((server, source, detached), (io, sql, cannot_connect), (lag, position, clients, kind))| {
                Change::Answers { server, source, detached, io, sql, cannot_connect, lag, position, clients, kind }
            }),
        4 => (server.clone(), any::<bool>()).prop_map(|(server, partial)| Change::Fails { server, partial }),
        2 => server.clone().prop_map(|server| Change::Begins { server }),
        1 => server.clone().prop_map(|server| Change::Forgotten { server }),
        2 => (server.clone(), 0u8..3, 0u32..3, any::<bool>(), any::<bool>()).prop_map(
            |(server, cluster, depth, co_primary, errant)| Change::Place { server, cluster, depth, co_primary, errant }
        ),
        2 => (server.clone(), prop::option::of(0u64..40))
            .prop_map(|(server, seconds)| Change::Downtime { server, seconds }),
        1 => (server.clone(), any::<bool>()).prop_map(|(server, on)| Change::Maintenance { server, on }),
        2 => (server.clone(), prop::bool::weighted(0.8)).prop_map(|(server, noted)| Change::Stale { server, noted }),
        1 => (server.clone(), any::<bool>()).prop_map(|(server, on)| Change::StandsStill { server, on }),
        1 => (server, any::<bool>()).prop_map(|(server, on)| Change::Grace { server, on }),
        1 => (0u8..3, any::<bool>()).prop_map(|(cluster, on)| Change::Alias { cluster, on }),
        1 => any::<bool>().prop_map(|on| Change::Renamed { on }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(reduce, ignore)| Change::Policy { reduce, ignore }),
        4 => (0u64..15_000).prop_map(|millis| Change::Time { millis }),
        2 => Just(Change::TimeUntilNext),
        1 => (-30i64..30).prop_map(|seconds| Change::WallSteps { seconds }),
    ]
}

#[derive(Default)]
struct Decided {
    downtimes: BTreeMap<InstanceKey, Wall>,
    maintenance: BTreeSet<InstanceKey>,
    stale: BTreeMap<InstanceKey, StaleCoordinates>,
    standing_still: BTreeSet<InstanceKey>,
    grace: BTreeSet<InstanceKey>,
    aliases: BTreeMap<String, String>,
    renamed: bool,
}

impl Context for Decided {
    fn downtime_end(&self, key: &InstanceKey) -> Option<Wall> {
        self.downtimes.get(key).copied()
    }

    fn is_in_maintenance(&self, key: &InstanceKey) -> bool {
        self.maintenance.contains(key)
    }

    fn stale_coordinates(&self, key: &InstanceKey) -> Option<&StaleCoordinates> {
        self.stale.get(key)
    }

    fn cluster_alias(&self, cluster_name: &str) -> Option<&str> {
        self.aliases.get(cluster_name).map(String::as_str)
    }

    fn resolved_host(&self, host: &str) -> Option<&str> {
        (self.renamed && host == key(ALIASED).host).then_some("s0")
    }

    fn is_standing_still(&self, replica: &InstanceKey) -> bool {
        self.standing_still.contains(replica)
    }

    fn is_in_grace(&self, key: &InstanceKey) -> bool {
        self.grace.contains(key)
    }
}

struct World {
    now: Now,
    policy: Policy,
    filters: Filters,
    decided: Decided,
    instances: BTreeMap<InstanceKey, Instance>,
    edges: Edges,
    diagnosis: Diagnosis,
}

impl World {
    fn new() -> Self {
        let now = Now {
            mono: Mono::from_nanos(1_000_000_000_000),
            wall: Wall::from_secs(1_700_000_000),
        };
        Self {
            now,
            policy: Policy::default(),
            filters: Filters::default(),
            decided: Decided::default(),
            instances: BTreeMap::new(),
            edges: Edges::default(),
            diagnosis: Diagnosis::default(),
        }
    }

    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut Diagnosis, View<'_>, Judging<'_, Decided>) -> T,
    ) -> T {
        let view = View {
            instances: &self.instances,
            edges: &self.edges,
        };
        let judging = Judging {
            policy: &self.policy,
            filters: &self.filters,
            context: &self.decided,
            now: self.now,
        };
        act(&mut self.diagnosis, view, judging)
    }

    /// News of one server.
    fn refresh(&mut self, key: &InstanceKey) -> BTreeSet<InstanceKey> {
        let source = self.instances.get(key).and_then(Instance::source);
        let former = self.edges.update(key, source);
        self.with(|diagnosis, view, judging| diagnosis.refresh(key, former.as_ref(), view, judging))
    }

    fn apply(&mut self, change: Change) -> BTreeSet<InstanceKey> {
        let now = self.now;
        match change {
            Change::Answers {
                server,
                source,
                detached,
                io,
                sql,
                cannot_connect,
                lag,
                position,
                clients,
                kind,
            } => {
                let thread = |runs: bool| {
                    if runs {
                        ThreadState::Running
                    } else {
                        ThreadState::Other
                    }
                };
                let report = ProbeReport {
                    flavour: if kind == 0 {
                        Flavour::MaxScale
                    } else {
                        Flavour::Mysql
                    },
                    read_only: kind % 2 == 1,
                    log_bin: kind != 2,
                    log_replica_updates: true,
                    binlog_format: if kind == 3 {
                        "STATEMENT".into()
                    } else {
                        "ROW".into()
                    },
                    gtid_mode: if kind == 4 { "OFF".into() } else { "ON".into() },
                    binlog: Some(BinlogCoordinates {
                        file: "bin.000001".into(),
                        position,
                    }),
                    replication: source.map(|source| {
                        let mut source = key(source);
                        if detached {
                            source.host.insert_str(0, "//");
                        }
                        ReplicaStatus {
                            source,
                            io: thread(io),
                            sql: thread(sql),
                            io_error: if cannot_connect {
                                "error connecting to source 'repl@s0:3306'".into()
                            } else {
                                String::new()
                            },
                            seconds_behind: lag,
                            sql_delay_s: u32::from(kind == 5),
                            auto_position: kind != 6,
                            ..ReplicaStatus::default()
                        }
                    }),
                    semi_sync: SemiSync {
                        source_enabled: kind > 6,
                        source_status: kind > 7,
                        source_wait_count: 1,
                        source_clients: clients,
                        ..SemiSync::default()
                    },
                    group: (kind == 8).then(|| GroupMembership {
                        name: "g".into(),
                        state: "ONLINE".into(),
                        role: "PRIMARY".into(),
                        ..GroupMembership::default()
                    }),
                    ..ProbeReport::default()
                };
                let instance = self.instance(server);
                instance.report = Some(Arc::new(report));
                instance.attempted = Some(now.mono);
                instance.checked = Some(now.mono);
                instance.seen = Some(now.mono);
                instance.partial_success = true;
                self.refresh(&key(server))
            }
            Change::Fails { server, partial } => {
                let instance = self.instance(server);
                instance.attempted = Some(now.mono);
                instance.checked = Some(now.mono);
                instance.partial_success = partial;
                self.refresh(&key(server))
            }
            Change::Begins { server } => {
                self.instance(server).attempted = Some(now.mono);
                self.refresh(&key(server))
            }
            Change::Forgotten { server } => {
                self.instances.remove(&key(server));
                self.refresh(&key(server))
            }
            Change::Place {
                server,
                cluster,
                depth,
                co_primary,
                errant,
            } => {
                let place = &mut self.instance(server).place;
                place.cluster_name = key(cluster).to_string();
                place.depth = depth;
                place.is_co_primary = co_primary;
                place.errant = if errant {
                    "aaa:1".into()
                } else {
                    String::new()
                };
                self.refresh(&key(server))
            }
            Change::Downtime { server, seconds } => {
                match seconds {
                    Some(seconds) => self
                        .decided
                        .downtimes
                        .insert(key(server), now.wall + Duration::from_secs(seconds)),
                    None => self.decided.downtimes.remove(&key(server)),
                };
                self.refresh(&key(server))
            }
            Change::Maintenance { server, on } => {
                set(&mut self.decided.maintenance, server, on);
                self.refresh(&key(server))
            }
            Change::Stale { server, noted } => {
                let coordinates = self
                    .instances
                    .get(&key(server))
                    .and_then(|instance| instance.report.as_ref()?.binlog.clone());
                match coordinates.filter(|_| noted) {
                    Some(coordinates) => self.decided.stale.insert(
                        key(server),
                        StaleCoordinates {
                            coordinates,
                            first_seen: now.mono,
                        },
                    ),
                    None => self.decided.stale.remove(&key(server)),
                };
                self.refresh(&key(server))
            }
            Change::StandsStill { server, on } => {
                set(&mut self.decided.standing_still, server, on);
                self.refresh(&key(server))
            }
            Change::Grace { server, on } => {
                set(&mut self.decided.grace, server, on);
                self.refresh(&key(server))
            }
            Change::Alias { cluster, on } => {
                let name = key(cluster).to_string();
                if on {
                    self.decided
                        .aliases
                        .insert(name.clone(), format!("alias{cluster}"));
                } else {
                    self.decided.aliases.remove(&name);
                }
                self.with(|diagnosis, view, judging| {
                    diagnosis.refresh_cluster(&name, view, judging)
                })
            }
            Change::Renamed { on } => {
                self.decided.renamed = on;
                self.refresh(&key(ALIASED))
            }
            Change::Policy { reduce, ignore } => {
                self.policy.reduce_analysis = reduce;
                self.policy.recovery_ignore_hosts =
                    if ignore { vec!["^s1$".into()] } else { vec![] };
                self.policy.recover_primary_filters =
                    if ignore { vec![] } else { vec!["*".into()] };
                self.filters = Filters::compile(&self.policy).expect("these patterns compile");
                self.with(Diagnosis::rebuild)
            }
            Change::Time { millis } => {
                let passed = Duration::from_millis(millis);
                self.now = Now {
                    mono: now.mono + passed,
                    wall: now.wall + passed,
                };
                self.with(Diagnosis::advance)
            }
            Change::TimeUntilNext => {
                let (mono, wall) = self.diagnosis.stands_until();
                let passed = mono
                    .map(|mono| mono.since(now.mono))
                    .into_iter()
                    .chain(wall.map(|wall| wall.since(now.wall)))
                    .min()
                    .unwrap_or_default();
                self.now = Now {
                    mono: now.mono + passed,
                    wall: now.wall + passed,
                };
                self.with(Diagnosis::advance)
            }
            Change::WallSteps { seconds } => {
                let step = Duration::from_secs(seconds.unsigned_abs());
                self.now.wall = if seconds < 0 {
                    now.wall - step
                } else {
                    now.wall + step
                };
                self.with(Diagnosis::advance)
            }
        }
    }

    fn instance(&mut self, server: u8) -> &mut Instance {
        let now = self.now;
        self.instances
            .entry(key(server))
            .or_insert_with(|| Instance::new(key(server), now))
    }

    fn judged_from_nothing(&mut self) -> Vec<Problem> {
        self.with(|_, view, judging| diagnose_all(view, judging, WITH_DOWNTIMED))
    }

    fn kept(&self) -> Vec<Problem> {
        self.diagnosis
            .entries(WITH_DOWNTIMED)
            .into_iter()
            .cloned()
            .collect()
    }
}

fn set(keys: &mut BTreeSet<InstanceKey>, server: u8, on: bool) {
    if on {
        keys.insert(key(server));
    } else {
        keys.remove(&key(server));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeping_up_equals_judging_from_nothing(changes in prop::collection::vec(change(), 1..60)) {
        let mut world = World::new();
        for change in changes {
            let told = format!("{change:?}");
            let before: BTreeMap<InstanceKey, Problem> =
                world.kept().into_iter().map(|problem| (problem.key.clone(), problem)).collect();
            let is_about_time = matches!(
                change,
                Change::Time { .. } | Change::TimeUntilNext | Change::WallSteps { .. }
            );
            let changed = world.apply(change);
            let (mono, wall) = world.diagnosis.stands_until();
            if is_about_time {
                prop_assert!(mono.is_none_or(|until| until > world.now.mono), "after {}", &told);
                prop_assert!(wall.is_none_or(|until| until > world.now.wall), "after {}", &told);
            }
            let problems = world.judged_from_nothing();
            prop_assert_eq!(&world.kept(), &problems, "after {}", &told);

            let after: BTreeMap<InstanceKey, Problem> =
                problems.into_iter().map(|problem| (problem.key.clone(), problem)).collect();
            let differing: BTreeSet<InstanceKey> = before
                .keys()
                .chain(after.keys())
                .filter(|key| before.get(key) != after.get(key))
                .cloned()
                .collect();
            prop_assert_eq!(changed, differing, "after {}", &told);
            prop_assert_eq!(&world.edges, &Edges::of(world.instances.values()));
        }
    }

    /// The list of entries is what single judgements make it, and nobody is listed twice.
    #[test]
    fn a_list_is_its_entries(
        changes in prop::collection::vec(change(), 1..60),
        include_downtimed in any::<bool>(),
        include_no_problem in any::<bool>(),
        cluster in prop::option::of(0u8..3),
    ) {
        let mut world = World::new();
        for change in changes {
            world.apply(change);
        }
        let name = cluster.map(|cluster| key(cluster).to_string());
        let hints = Hints { include_downtimed, include_no_problem, cluster_name: name.as_deref() };
        let keys: Vec<InstanceKey> = world.instances.keys().cloned().collect();
        world.with(|_, view, judging| {
            let listed = diagnose_all(view, judging, hints);
            let mut single: Vec<Problem> =
                keys.iter().filter_map(|key| diagnose(key, view, judging, hints)).collect();
            single.sort_by_key(|problem| listed.iter().position(|other| other.key == problem.key));
            prop_assert_eq!(&listed, &single);
            let ranks: Vec<(bool, bool, u32)> = listed
                .iter()
                .map(|problem| {
                    (
                        !problem.evidence.is_primary,
                        !problem.is_cluster_head,
                        u32::MAX - problem.evidence.replicas,
                    )
                })
                .collect();
            prop_assert!(ranks.is_sorted(), "{:?}", ranks);
            Ok(())
        })?;
    }
}
