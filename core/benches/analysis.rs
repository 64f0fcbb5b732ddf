//! What judging costs: 10,000 servers in 1,000 clusters from nothing, and news of one server.
//!
//! To reach: under 20 ms for all, under 50 microseconds for one.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use orchestrator_core::{
    analysis::{Context, Diagnosis, Filters, Hints, Judging, View, diagnose_all},
    id::InstanceKey,
    policy::Policy,
    time::{Mono, Now, Wall},
    topology::{Edges, Instance, ProbeReport, ReplicaStatus, ThreadState, Version},
};

const CLUSTERS: usize = 1_000;
const SERVERS_PER_CLUSTER: usize = 10;
/// One cluster in so many has a dead primary.
const DEAD_EVERY: usize = 50;
/// One replica in so many has a downtime.
const DOWNTIMED_EVERY: usize = 100;

const NOW: Now = Now {
    mono: Mono::from_nanos(1_000_000_000_000),
    wall: Wall::from_secs(1_700_000_000),
};

struct Decided {
    downtimes: BTreeMap<InstanceKey, Wall>,
}

impl Context for Decided {
    fn downtime_end(&self, key: &InstanceKey) -> Option<Wall> {
        self.downtimes.get(key).copied()
    }
}

struct Fleet {
    instances: BTreeMap<InstanceKey, Instance>,
    edges: Edges,
    decided: Decided,
    policy: Policy,
    filters: Filters,
}

impl Fleet {
    fn view(&self) -> View<'_> {
        View {
            instances: &self.instances,
            edges: &self.edges,
        }
    }

    fn judging(&self) -> Judging<'_, Decided> {
        Judging {
            policy: &self.policy,
            filters: &self.filters,
            context: &self.decided,
            now: NOW,
        }
    }
}

fn key(cluster: usize, server: usize) -> InstanceKey {
    InstanceKey::new(
        format!("db{server}.shard{cluster:04}.fleet.example.net"),
        3306,
    )
}

/// Each cluster: a primary, an intermediate source with two replicas below it, and seven more replicas.
fn source(server: usize) -> Option<usize> {
    match server {
        0 => None,
        8 | 9 => Some(1),
        _ => Some(0),
    }
}

fn instance(cluster: usize, server: usize) -> Instance {
    let is_dead = cluster.is_multiple_of(DEAD_EVERY) && server == 0;
    let is_broken = cluster.is_multiple_of(DEAD_EVERY) && source(server) == Some(0);
    let mut instance = Instance::new(key(cluster, server), NOW);
    instance.report = Some(Arc::new(ProbeReport {
        version: Version::parse("8.0.36"),
        read_only: server != 0,
        log_bin: true,
        log_replica_updates: true,
        binlog_format: "ROW".into(),
        gtid_mode: "ON".into(),
        replication: source(server).map(|source| ReplicaStatus {
            source: key(cluster, source),
            io: if is_broken {
                ThreadState::Other
            } else {
                ThreadState::Running
            },
            sql: ThreadState::Running,
            io_error: if is_broken {
                "error connecting to source 'repl@db0:3306' - retry-time: 1 retries: 7".into()
            } else {
                String::new()
            },
            seconds_behind: Some(0),
            auto_position: true,
            ..ReplicaStatus::default()
        }),
        ..ProbeReport::default()
    }));
    instance.attempted = Some(NOW.mono);
    instance.checked = Some(NOW.mono);
    instance.seen = Some(if is_dead { Mono::ZERO } else { NOW.mono });
    instance.place.cluster_name = key(cluster, 0).to_string();
    instance.place.depth = source(server).map_or(0, |source| if source == 0 { 1 } else { 2 });
    instance
}

fn fleet() -> Fleet {
    let instances: BTreeMap<InstanceKey, Instance> = (0..CLUSTERS)
        .flat_map(|cluster| (0..SERVERS_PER_CLUSTER).map(move |server| instance(cluster, server)))
        .map(|instance| (instance.key.clone(), instance))
        .collect();
    assert_eq!(instances.len(), CLUSTERS * SERVERS_PER_CLUSTER);
    let policy = Policy {
        recover_primary_filters: vec!["*".into()],
        recovery_ignore_hosts: vec!["^lab".into()],
        ..Policy::default()
    };
    Fleet {
        edges: Edges::of(instances.values()),
        decided: Decided {
            downtimes: instances
                .keys()
                .step_by(DOWNTIMED_EVERY)
                .map(|key| (key.clone(), Wall::from_secs(1_700_003_600)))
                .collect(),
        },
        instances,
        filters: Filters::compile(&policy).expect("these patterns compile"),
        policy,
    }
}

fn judge(criterion: &mut Criterion) {
    let mut fleet = fleet();
    let hints = Hints {
        include_downtimed: true,
        ..Hints::default()
    };
    let found = diagnose_all(fleet.view(), fleet.judging(), hints);
    let dead = CLUSTERS / DEAD_EVERY;
    // The dead primaries and their seven direct replicas.
    assert_eq!(
        found.len(),
        dead * 8,
        "the model says something else than it did"
    );

    let mut group = criterion.benchmark_group("analysis");
    group.bench_function("10,000 servers from nothing", |bench| {
        bench.iter(|| black_box(diagnose_all(fleet.view(), fleet.judging(), hints)));
    });
    group.bench_function("10,000 servers kept: rebuild", |bench| {
        bench.iter_batched_ref(
            || Diagnosis::of(fleet.view(), fleet.judging()),
            |diagnosis| black_box(diagnosis.rebuild(fleet.view(), fleet.judging())),
            BatchSize::LargeInput,
        );
    });
    let mut diagnosis = Diagnosis::of(fleet.view(), fleet.judging());
    for (name, changed) in [
        ("one healthy replica", key(501, 4)),
        ("one replica of a dead primary", key(500, 4)),
        ("one dead primary", key(500, 0)),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let source = fleet.instances.get(&changed).and_then(Instance::source);
                let former = fleet.edges.update(&changed, source);
                black_box(diagnosis.refresh(
                    &changed,
                    former.as_ref(),
                    View {
                        instances: &fleet.instances,
                        edges: &fleet.edges,
                    },
                    Judging {
                        policy: &fleet.policy,
                        filters: &fleet.filters,
                        context: &fleet.decided,
                        now: NOW,
                    },
                ))
            });
        });
    }
    group.bench_function("the list of entries", |bench| {
        bench.iter(|| black_box(diagnosis.entries(hints).len()));
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
