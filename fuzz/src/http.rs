//! HTTP requests, as they come over a connection: answered or refused, never in silence, and never carried out by a
//! method that must not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use orchestrator::{
    backend::BackendHealth,
    env::{TokioEnv, timeout},
    http::{Daemon, Gone, Order, RaftFacts, Settings, Sight, converse},
    kv::Told,
    raft::RaftState,
};
use orchestrator_core::{
    analysis::{Diagnosis, Filters, Judging, View},
    id::{InstanceKey, LogPosition, NodeId},
    node::{MembersView, Reply, Request},
    replicated::{Answer, Command, Replicated, Stamped},
    time::{Mono, Now, Wall},
    topology::{Edges, Instance, Place, ProbeReport, ReplicaStatus, ThreadState, Version},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// One connection may take so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes that are answered to an input.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

const NOW: Now = Now {
    mono: Mono::from_nanos(1_000_000_000_000),
    wall: Wall::from_secs(1_700_000_000),
};

/// The bytes that a client sends before it closes its side.
pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let fake = Fake::new();
    let answer = runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let daemon = fake.clone();
        let serving = async move {
            converse::<TokioEnv, _, _>(
                server,
                String::from("192.0.2.1:1"),
                Settings::default(),
                daemon,
            )
            .await
            .expect("settings of our own");
        };
        let asking = async move {
            let mut answer = Vec::new();
            // The other side may close before it has read all.
            let _ = client.write_all(data).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut answer).await;
            answer
        };
        let both = async { tokio::join!(serving, asking).1 };
        timeout::<TokioEnv, _>(PATIENCE, both)
            .await
            .expect("a connection ends")
    });
    assert!(answer.len() <= ANSWER_BYTES_MAX);
    if !answer.is_empty() {
        assert!(
            answer.starts_with(b"HTTP/1.1 ") || answer.starts_with(b"HTTP/1.0 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let status = std::str::from_utf8(&answer[9..12])
            .ok()
            .and_then(|text| text.parse::<u16>().ok());
        assert!(status.is_some_and(|status| (200..=599).contains(&status)));
    }
    // What changes something takes GET and POST.
    let text = String::from_utf8_lossy(data);
    if !text.contains("GET") && !text.contains("POST") {
        let asked = fake.0.lock().expect("nobody panicked");
        assert!(asked.changes.is_empty(), "{:?} by {text:?}", asked.changes);
    }
}

struct World {
    instances: BTreeMap<InstanceKey, Instance>,
    replicated: Replicated,
    changes: Vec<String>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<World>>);

fn key(host: &str) -> InstanceKey {
    InstanceKey::new(host, 3306)
}

fn server(host: &str, source: Option<&str>) -> Instance {
    let mut instance = Instance::new(key(host), NOW);
    instance.checked = Some(NOW.mono);
    instance.seen = instance.checked;
    instance.checked_at = NOW.wall;
    instance.seen_at = NOW.wall;
    instance.place = Place {
        cluster_name: String::from("db1.example:3306"),
        root: key("db1.example"),
        depth: u32::from(source.is_some()),
        ..Place::default()
    };
    instance.report = Some(Arc::new(ProbeReport {
        server_id: 100,
        version: Version::parse("8.0.36"),
        read_only: source.is_some(),
        log_bin: true,
        replication: source.map(|source| ReplicaStatus {
            source: key(source),
            io: ThreadState::Running,
            sql: ThreadState::Running,
            ..ReplicaStatus::default()
        }),
        ..ProbeReport::default()
    }));
    instance
}

impl Fake {
    fn new() -> Self {
        let instances = [
            server("db1.example", None),
            server("db2.example", Some("db1.example")),
            Instance::new(key("lost.example"), NOW),
        ];
        let instances: BTreeMap<InstanceKey, Instance> = instances
            .into_iter()
            .map(|instance| (instance.key.clone(), instance))
            .collect();
        let mut replicated = Replicated::default();
        let commands = [
            Command::Know {
                keys: instances.keys().cloned().collect(),
                by_operator: true,
            },
            Command::RecordCluster {
                primary: key("db1.example"),
                identity: None,
                members: vec![key("db1.example"), key("db2.example")],
            },
        ];
        for (index, command) in (1..).zip(commands) {
            let position = LogPosition {
                index,
                term: 1,
                node: NodeId(1),
            };
            let stamped = Stamped {
                wall: NOW.wall,
                command,
            };
            let _ = replicated.apply(position, &stamped);
        }
        Self(Arc::new(Mutex::new(World {
            instances,
            replicated,
            changes: Vec::new(),
        })))
    }
}

impl Daemon for Fake {
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Sight<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let world = self.0.lock().expect("nobody panicked");
        let edges = Edges::of(world.instances.values());
        let filters = Filters::default();
        let view = View {
            instances: &world.instances,
            edges: &edges,
        };
        let judging = Judging {
            policy: world.replicated.policy(),
            filters: &filters,
            context: &(),
            now: NOW,
        };
        Ok(look(&Sight {
            now: NOW,
            instances: &world.instances,
            replicated: &world.replicated,
            diagnosis: &Diagnosis::of(view, judging),
            filters: &filters,
            local_policy: world.replicated.policy(),
            disagreements: &BTreeMap::new(),
            members: &MembersView::default(),
        }))
    }

    async fn ask(&self, request: Request, _deadline: Duration) -> Reply {
        let mut world = self.0.lock().expect("nobody panicked");
        if !matches!(request, Request::Refresh(_) | Request::Opinions { .. }) {
            world.changes.push(format!("{request:?}"));
        }
        Reply::Decided(Answer::Done)
    }

    fn raft(&self) -> RaftFacts {
        RaftFacts {
            node: NodeId(1),
            state: RaftState::Leader,
            is_leading: true,
            health: Ok(()),
            leader: None,
            peers: Vec::new(),
            bind: String::from("127.0.0.1:10008"),
            advertise: String::from("127.0.0.1:10008"),
            default_port: 10_008,
            cluster: String::from("c1"),
            term: 3,
            first_log: 0,
            last_log: 7,
            committed: 7,
            applied: 7,
        }
    }

    fn backend(&self) -> BackendHealth {
        BackendHealth::default()
    }

    async fn publish(&self) -> Result<Vec<Told>, String> {
        Ok(Vec::new())
    }

    async fn perform(&self, order: Order) -> Result<String, String> {
        let mut world = self.0.lock().expect("nobody panicked");
        world.changes.push(format!("{order:?}"));
        Ok(String::new())
    }
}
