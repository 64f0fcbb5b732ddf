//! The API over real loopback sockets, with a daemon that is a few tables and a list of what it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator_core::analysis::{Context, Diagnosis, Filters, Judging, View};
use orchestrator_core::id::{Epoch, Identity, InstanceKey, LogPosition, NodeId, StepId, Uid};
use orchestrator_core::node::{MembersView, Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::recovery::{
    DeadKind, End, Lane, Outcome, Purpose, Stage, Statement, Step, StepKind,
};
use orchestrator_core::replicated::{Answer, Command, Detection, Members, Replicated, Stamped};
use orchestrator_core::time::{Mono, Now, Wall};
use orchestrator_core::topology::{
    Edges, Instance, Place, ProbeFailure, ProbeReport, ReplicaStatus, ThreadState, Version,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

use super::routes::{Action, Answered, Kind, ROUTES};
use super::*;
use crate::env::{DedicatedRuntime, Env as _, TokioEnv, spawn};

const NOW: Now = Now {
    mono: Mono::from_nanos(1_000_000_000_000),
    wall: Wall::from_secs(1_700_000_000),
};

/// A daemon's facts while it follows another one.
pub(super) fn facts_of_a_follower(leader_uri: &str) -> RaftFacts {
    let peer = |node: u64, http_uri: &str| Peer {
        node: NodeId(node),
        address: format!("10.0.0.{node}:10008"),
        http_uri: String::from(http_uri),
        is_voter: true,
        is_healthy: true,
        heard: Some(Duration::ZERO),
        lacks: None,
        refusal: None,
        impostor: None,
    };
    RaftFacts {
        node: NodeId(1),
        state: RaftState::Follower,
        is_leading: false,
        health: Ok(()),
        leader: Some(peer(2, leader_uri)),
        peers: vec![peer(1, ""), peer(2, leader_uri)],
        bind: String::from("0.0.0.0:10008"),
        advertise: String::from("10.0.0.1:10008"),
        default_port: 10_008,
        cluster: String::from("c1"),
        term: 3,
        first_log: 0,
        last_log: 7,
        committed: 7,
        applied: 7,
    }
}

fn facts_of_the_leader() -> RaftFacts {
    let mut facts = facts_of_a_follower("");
    facts.state = RaftState::Leader;
    facts.is_leading = true;
    facts.leader = Some(facts.peers[0].clone());
    facts
}

#[test]
fn raft_state_has_the_four_words_of_the_wire() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        for (state, word) in [
            (RaftState::Leader, "Leader"),
            (RaftState::Follower, "Follower"),
            (RaftState::Candidate, "Candidate"),
            // One that waits, or is let in.
            (RaftState::Learner, "Candidate"),
            (RaftState::Shutdown, "Shutdown"),
        ] {
            site.fake.with(|world| world.facts.state = state);
            assert_eq!(site.json("/api/raft-state").await, json!(word));
            assert_eq!(site.json("/api/raft-status").await["State"], word);
        }
    });
}

#[test]
fn a_daemon_does_what_it_is_told() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        site.fake.seat_two();
        for (node, host_name) in [(1, "orc1.east"), (2, "orc2.west")] {
            site.fake.apply(Command::DescribeMember {
                node: NodeId(node),
                raft_address: format!("10.0.0.{node}:10008"),
                http_uri: String::new(),
                host_name: String::from(host_name),
                build: String::new(),
                reads_command: 1,
                reads_snapshot: 1,
                original: None,
            });
        }
        let ordered = || site.fake.with(|world| std::mem::take(&mut world.ordered));
        let to = |node| Order::HandOver {
            to: Some(BTreeSet::from([NodeId(node)])),
        };
        let yielded = json!({"Code": "OK", "Message": "Asynchronously yielded", "Details": null});
        assert_eq!(site.json("/api/raft-yield/10.0.0.2").await, yielded);
        assert_eq!(ordered(), [to(2)]);
        let hinted = site.json("/api/raft-yield-hint/west").await;
        assert_eq!(
            hinted,
            json!({"Code": "OK", "Message": "Asynchronously yielded by hint west", "Details": "west"})
        );
        assert_eq!(ordered(), [to(2)]);
        // The one that is wanted leads.
        assert_eq!(site.json("/api/raft-yield/10.0.0.1:10008").await, yielded);
        site.json("/api/raft-yield-hint/orc").await;
        assert_eq!(ordered(), []);
        // Nobody is wanted who could lead: nothing is given away.
        for (path, why) in [
            (
                "/api/raft-yield/10.0.0.9",
                "10.0.0.9:10008 is not the address",
            ),
            ("/api/raft-yield-hint/north", "contains north"),
            ("/api/grab-election", "raft elects the leader"),
            (
                "/api/reload-configuration?config=/etc/passwd",
                "is not read",
            ),
        ] {
            let refused = site.get(path).await;
            refused.expect_error("500 Internal Server Error", why);
        }
        assert_eq!(ordered(), []);

        assert_eq!(
            site.json("/api/reelect").await,
            json!({"Code": "OK", "Message": "Set re-elections", "Details": null})
        );
        assert_eq!(site.json("/api/raft-snapshot").await, "snapshot created");
        assert_eq!(
            site.json("/api/reload-configuration").await,
            json!({"Code": "OK", "Message": "Config reloaded", "Details": ""})
        );
        let all = [Order::HandOver { to: None }, Order::Snapshot, Order::Reload];
        assert_eq!(ordered(), all);
        let waits = Ok(String::from("ListenAddress"));
        site.fake.with(|world| world.performed = waits);
        let said = site.json("/api/reload-configuration").await["Message"].to_string();
        assert!(said.contains("after a restart: ListenAddress"), "{said}");
        site.fake
            .with(|world| world.performed = Err(String::from("it is odd")));
        for (path, why) in [
            ("/api/reelect", "Unable to re-elect: it is odd"),
            ("/api/raft-snapshot", "Cannot create snapshot: it is odd"),
            ("/api/reload-configuration", "it is odd"),
            ("/api/raft-yield/10.0.0.2", "raft-yield: it is odd"),
        ] {
            let failed = site.get(path).await;
            failed.expect_error("500 Internal Server Error", why);
        }
        ordered();

        // A follower gives nothing away, and does the rest itself.
        let follows = facts_of_a_follower("http://127.0.0.1:1");
        site.fake.with(|world| {
            world.facts = follows;
            world.performed = Ok(String::new());
        });
        for path in ["/api/raft-yield/10.0.0.1", "/api/raft-yield-hint/east"] {
            let refused = site.get(path).await;
            refused.expect_error("503 Service Unavailable", "10.0.0.2:10008 does");
        }
        for path in ["/api/raft-snapshot", "/api/reload-configuration"] {
            site.json(path).await;
        }
        assert_eq!(ordered(), [Order::Snapshot, Order::Reload]);
    });
}

fn facts_without_a_leader() -> RaftFacts {
    let mut facts = facts_of_a_follower("");
    facts.state = RaftState::Candidate;
    facts.health = Err(String::from("no leader is known"));
    facts.leader = None;
    facts
}

struct World {
    instances: BTreeMap<InstanceKey, Instance>,
    replicated: Replicated,
    filters: Filters,
    facts: RaftFacts,
    backend: BackendHealth,
    asked: Vec<Request>,
    ordered: Vec<Order>,
    /// How orders end.
    performed: Result<String, String>,
    /// Instead of doing what is asked.
    reply: Option<Reply>,
    disagreements: BTreeMap<NodeId, LogPosition>,
    /// This daemon's own file says otherwise than what is obeyed.
    local_policy: Option<Policy>,
    /// The node has ended, or never began.
    is_gone: bool,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<World>>);

fn key(host: &str) -> InstanceKey {
    InstanceKey::new(host, 3306)
}

fn server(host: &str, source: Option<&str>) -> Instance {
    let mut instance = Instance::new(key(host), NOW);
    instance.checked = Some(NOW.mono - Duration::from_secs(2));
    instance.seen = instance.checked;
    instance.attempted = instance.checked;
    instance.checked_at = NOW.wall - Duration::from_secs(2);
    instance.seen_at = instance.checked_at;
    instance.place = Place {
        cluster_name: String::from("db1.example:3306"),
        root: key("db1.example"),
        depth: u32::from(source.is_some()),
        suggested_alias: String::from("shop"),
        ..Place::default()
    };
    instance.report = Some(Arc::new(ProbeReport {
        server_id: 100,
        version: Version::parse("8.0.36"),
        read_only: source.is_some(),
        log_bin: true,
        log_replica_updates: true,
        binlog_format: String::from("ROW"),
        gtid_mode: String::from("ON"),
        replication: source.map(|source| ReplicaStatus {
            source: key(source),
            io: ThreadState::Running,
            sql: ThreadState::Running,
            seconds_behind: Some(0),
            auto_position: true,
            ..ReplicaStatus::default()
        }),
        replicas: if source.is_some() {
            Vec::new()
        } else {
            vec![key("db3.example"), key("db2.example")]
        },
        ..ProbeReport::default()
    }));
    instance
}

impl Fake {
    /// A leader with a cluster of three and one that was never reached.
    fn new() -> Fake {
        let instances = [
            server("db1.example", None),
            server("db2.example", Some("db1.example")),
            server("db3.example", Some("db1.example")),
            Instance::new(key("lost.example"), NOW),
        ];
        let fake = Fake(Arc::new(Mutex::new(World {
            instances: instances
                .into_iter()
                .map(|instance| (instance.key.clone(), instance))
                .collect(),
            replicated: Replicated::default(),
            filters: Filters::default(),
            facts: facts_of_the_leader(),
            asked: Vec::new(),
            ordered: Vec::new(),
            performed: Ok(String::new()),
            reply: None,
            disagreements: BTreeMap::new(),
            local_policy: None,
            is_gone: false,
            backend: BackendHealth::default(),
        })));
        let policy = Policy {
            recover_primary_filters: vec![String::from("alias=shop")],
            ..Policy::default()
        };
        fake.with(|world| world.filters = Filters::compile(&policy).unwrap());
        fake.apply(Command::SetPolicy(Box::new(policy)));
        let keys = fake.with(|world| world.instances.keys().cloned().collect());
        fake.apply(Command::Know {
            keys,
            by_operator: true,
        });
        fake.apply(Command::RecordCluster {
            primary: key("db1.example"),
            identity: None,
            members: ["db1.example", "db2.example", "db3.example"]
                .map(key)
                .into(),
        });
        fake
    }

    fn following(facts: RaftFacts) -> Fake {
        let fake = Fake::new();
        fake.with(|world| world.facts = facts);
        fake
    }

    fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn apply(&self, command: Command) -> Answer {
        self.with(|world| {
            let position = LogPosition {
                index: world.replicated.applied().index + 1,
                term: 1,
                node: NodeId(1),
            };
            let stamped = Stamped {
                wall: NOW.wall,
                command,
            };
            world.replicated.apply(position, &stamped).answer
        })
    }

    /// Two daemons are the members.
    fn seat_two(&self) {
        self.with(|world| {
            let members = Members {
                voters: vec![[NodeId(1), NodeId(2)].into()],
                learners: BTreeSet::new(),
            };
            let at = LogPosition {
                index: world.replicated.applied().index + 1,
                term: 1,
                node: NodeId(0),
            };
            world.replicated.seat(at, &members);
        });
    }

    /// What was asked since the last look.
    fn asked(&self) -> Vec<Request> {
        self.with(|world| std::mem::take(&mut world.asked))
    }
}

/// Of what was decided, who is primary in the place of whom.
struct Decided<'a>(&'a Replicated);

impl Context for Decided<'_> {
    fn primary_in_place_of(&self, replaced: &Identity) -> Option<&InstanceKey> {
        let row = self.0.deposed_of(replaced)?;
        self.0.cluster(row.cluster).map(|record| &record.primary)
    }
}

impl Daemon for Fake {
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Sight<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        self.with(|world| {
            if world.is_gone {
                return Err(Gone);
            }
            let edges = Edges::of(world.instances.values());
            let view = View {
                instances: &world.instances,
                edges: &edges,
            };
            let judging = Judging {
                policy: world.replicated.policy(),
                filters: &world.filters,
                context: &Decided(&world.replicated),
                now: NOW,
            };
            Ok(look(&Sight {
                now: NOW,
                instances: &world.instances,
                replicated: &world.replicated,
                diagnosis: &Diagnosis::of(view, judging),
                filters: &world.filters,
                local_policy: world
                    .local_policy
                    .as_ref()
                    .unwrap_or_else(|| world.replicated.policy()),
                disagreements: &world.disagreements,
                members: &MembersView::default(),
            }))
        })
    }

    async fn ask(&self, request: Request, _deadline: Duration) -> Reply {
        let reply = self.with(|world| {
            world.asked.push(request.clone());
            world.reply.clone()
        });
        if let Some(reply) = reply {
            return reply;
        }
        match request {
            Request::Decide(command) => Reply::Decided(self.apply(command)),
            Request::Discover(key) | Request::Refresh(key) => Reply::Probed(key),
            Request::SetReadOnly { key, .. } | Request::SetWriteable { key } => {
                Reply::Operated(key)
            }
            Request::BeginDowntime {
                key,
                owner,
                reason,
                lasts_s,
            } => Reply::Decided(self.apply(Command::BeginDowntime {
                key,
                owner,
                reason,
                until: NOW.wall + Duration::from_secs(lasts_s),
            })),
            Request::AddPeer { .. } | Request::RemovePeer { .. } | Request::ReplacePeer { .. } => {
                Reply::Decided(Answer::Done)
            }
            Request::Opinions { .. } => Reply::Failed(String::from("not for HTTP")),
        }
    }

    fn raft(&self) -> RaftFacts {
        self.with(|world| world.facts.clone())
    }

    fn backend(&self) -> BackendHealth {
        self.with(|world| world.backend.clone())
    }

    async fn publish(&self) -> Result<Vec<Told>, String> {
        Ok(Vec::new())
    }

    async fn perform(&self, order: Order) -> Result<String, String> {
        self.with(|world| {
            world.ordered.push(order);
            world.performed.clone()
        })
    }
}

/// A served fake.
struct Site {
    address: String,
    fake: Fake,
    stop: watch::Sender<bool>,
}

async fn site(fake: Fake, settings: Settings) -> Site {
    let listener = listen::<TokioEnv>("127.0.0.1:0").await.unwrap();
    let address = TokioEnv::local_address(&listener).unwrap();
    let (stop, stopped) = watch::channel(false);
    let daemon = fake.clone();
    spawn::<TokioEnv>(async move {
        serve::<TokioEnv, _>(listener, settings, daemon, stopped)
            .await
            .unwrap();
    });
    Site {
        address,
        fake,
        stop,
    }
}

/// An answer as it was on the wire.
#[derive(Debug)]
struct Received {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// An error in an envelope, with this status.
    fn expect_error(&self, status: &str, message: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let json = self.json();
        assert_eq!(json["Code"], "ERROR", "{self:?}");
        let said = json["Message"].as_str().unwrap();
        assert!(
            said.contains(message),
            "{said:?} does not contain {message:?}"
        );
    }
}

async fn send(address: &str, request: &str) -> Received {
    let mut stream = TokioEnv::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    Received {
        status: String::from(status),
        headers: lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(key, value)| (key.to_lowercase(), String::from(value)))
            .collect(),
        body: String::from(body),
    }
}

async fn request(address: &str, method: &str, path: &str, headers: &str) -> Received {
    let text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    send(address, &text).await
}

impl Site {
    async fn get(&self, path: &str) -> Received {
        request(&self.address, "GET", path, "").await
    }

    /// The document that a look or a change that succeeds gives.
    async fn json(&self, path: &str) -> Value {
        let received = self.get(path).await;
        assert_eq!(received.status, "200 OK", "{path}: {received:?}");
        assert_eq!(
            received.header("content-type"),
            Some("application/json; charset=UTF-8")
        );
        received.json()
    }

    /// The hosts of the keys, or of the servers, of a list.
    async fn hosts(&self, path: &str) -> Vec<String> {
        let json = self.json(path).await;
        json.as_array()
            .unwrap()
            .iter()
            .map(|item| {
                let key = if item["Key"].is_null() {
                    item
                } else {
                    &item["Key"]
                };
                String::from(key["Hostname"].as_str().unwrap())
            })
            .collect()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = DedicatedRuntime::start("http-test", 2).unwrap();
    runtime.run(test);
    runtime.stop();
}

fn sample(path: &str) -> String {
    path.split('/')
        .map(|segment| match segment {
            ":host" => "db2.example",
            ":port" => "3306",
            ":clusterHint" | ":clusterName" | ":clusterAlias" => "shop",
            ":promotionRule" => "prefer",
            ":duration" => "1h",
            ":recoveryId" => "7",
            segment if segment.starts_with(':') => "x",
            segment => segment,
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn every_route_answers_with_a_document() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        for route in ROUTES {
            let path = format!("{}?tag=a=b&comment=seen&alias=x", sample(route.path));
            for method in ["GET", "POST"] {
                // What was forgotten before is there again.
                let fresh = Arc::try_unwrap(Fake::new().0).ok().unwrap();
                site.fake.with(|world| *world = fresh.into_inner().unwrap());
                let received = request(&site.address, method, &path, "").await;
                let said = format!("{method} {path}: {received:?}");
                let json = received.json();
                let type_of = received.header("content-type");
                assert_eq!(type_of, Some("application/json; charset=UTF-8"), "{said}");
                match (route.action, route.kind, method) {
                    (_, Kind::Read, "POST") => {
                        assert_eq!(received.status, "404 Not Found", "{said}")
                    }
                    (Action::NotServed, ..) => {
                        assert_eq!(received.status, "501 Not Implemented", "{said}");
                        assert_eq!(json["Code"], "ERROR", "{said}");
                    }
                    // The only ones that find nothing in this world.
                    (Action::TagValue | Action::AcknowledgeRecovery, ..)
                    | (
                        Action::AcknowledgeInstance
                        | Action::AdoptOriginal
                        | Action::ReleaseDeposed,
                        ..,
                    )
                    | (Action::Yield | Action::YieldHint | Action::GrabElection, ..) => {}
                    _ => assert_eq!(received.status, "200 OK", "{said}"),
                }
            }
        }
    });
}

#[test]
fn an_unknown_route_is_not_found() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        for path in [
            "/api",
            "/api/",
            "/api/no-such",
            "/api/Clusters",
            "/api/instance/db1.example",
            "/api/instance/db1.example/3306/x",
            "/api/instance//3306",
            "/api/clusters//",
        ] {
            site.get(path).await.expect_error("404 Not Found", "404");
        }
        assert_eq!(
            site.json("/api/clusters/").await,
            json!(["db1.example:3306"])
        );
        let put = request(&site.address, "PUT", "/api/clusters", "").await;
        put.expect_error("404 Not Found", "404");
    });
}

#[test]
fn path_segments_are_decoded_one_by_one() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        site.json("/api/begin-downtime/db1.example/3306/ann%20b/a%2Fb%3Fc%23d%25+e")
            .await;
        site.json("/api/begin-downtime/db1.example/3306/ann/why?duration=2h")
            .await;
        let downtime = |owner: &str, reason: &str, lasts_s| Request::BeginDowntime {
            key: key("db1.example"),
            owner: owner.into(),
            reason: reason.into(),
            lasts_s,
        };
        assert_eq!(
            site.fake.asked(),
            [
                downtime("ann b", "a/b?c#d%+e", 600),
                downtime("ann", "why", 7200)
            ]
        );
        site.get("/api/begin-downtime/db1.example/3306/ann/why/1y")
            .await
            .expect_error("500 Internal Server Error", "Cannot parse simple time: 1y");
        site.get("/api/instance/%ff/3306")
            .await
            .expect_error("500 Internal Server Error", "not UTF-8");
        site.get("/api/instance/db1.example/http")
            .await
            .expect_error("500 Internal Server Error", "Invalid port: http");
    });
}

#[test]
fn head_looks_and_does_not_change() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let change = "/api/forget/db1.example/3306";
        let head = request(&site.address, "HEAD", change, "").await;
        assert_eq!(head.status, "405 Method Not Allowed");
        assert_eq!(head.header("allow"), Some("GET, POST"));
        assert_eq!(site.fake.asked(), []);
        let head = request(&site.address, "HEAD", "/api/clusters", "").await;
        assert_eq!((head.status.as_str(), head.body.as_str()), ("200 OK", ""));
        assert_eq!(head.header("content-length"), Some("20"));
        let post = request(&site.address, "POST", change, "Content-Length: 0\r\n").await;
        assert_eq!(post.status, "200 OK");
        assert_eq!(site.fake.asked().len(), 1);
    });
}

#[test]
fn without_a_leader_looks_are_stale_and_changes_refused() {
    run(async {
        let site = site(
            Fake::following(facts_without_a_leader()),
            Settings::default(),
        )
        .await;
        let look = site.get("/api/clusters").await;
        assert_eq!(look.status, "200 OK");
        assert_eq!(look.header("x-orchestrator-stale"), Some("no leader"));
        for route in ROUTES {
            let is_leaders = route.answered == Answered::ByLeader;
            if is_leaders && route.kind == Kind::Change && route.action != Action::NotServed {
                let path = format!("{}?tag=a=b&comment=seen&alias=x", sample(route.path));
                let change = site.get(&path).await;
                change.expect_error("503 Service Unavailable", "no raft leader");
                assert_eq!(change.header("retry-after"), Some("1"));
            }
        }
        assert_eq!(site.fake.asked(), []);
        for path in ["/api/leader-check", "/api/routed-leader-check"] {
            let check = site.get(path).await;
            assert_eq!(
                (check.status.as_str(), check.body.as_str()),
                ("404 Not Found", "\"Not leader\"")
            );
        }
        site.get("/api/raft-health")
            .await
            .expect_error("500 Internal Server Error", "no leader is known");
        assert_eq!(site.json("/api/raft-leader").await, json!(""));
        // Waiting for the others is no illness.
        assert_eq!(site.json("/api/health").await["Details"]["Healthy"], true);
    });
}

#[test]
fn a_follower_relays_what_the_leader_answers() {
    run(async {
        let leader = site(Fake::new(), Settings::default()).await;
        let facts = facts_of_a_follower(&format!("http://{}", leader.address));
        let follower = site(Fake::following(facts), Settings::default()).await;
        for path in [
            "/api/all-instances",
            "/api/topology/shop",
            "/api/routed-leader-check",
            "/api/cluster/no-such",
        ] {
            let (one, other) = (follower.get(path).await, leader.get(path).await);
            assert_eq!(one.body, other.body);
            assert_eq!(one.status, other.status);
            assert_eq!(one.header("content-type"), other.header("content-type"));
            assert_eq!(one.header("x-orchestrator-stale"), None);
        }
        let path = "/api/begin-downtime/db2.example/3306/ann/a%2Fb/2h";
        assert_eq!(
            follower.json(path).await,
            json!({"Code": "OK", "Message": "Downtime begun: db2.example:3306",
                "Details": {"Hostname": "db2.example", "Port": 3306}})
        );
        let posted = "POST /api/forget/db3.example/3306 HTTP/1.1\r\nHost: x\r\n\
            Connection: close\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(send(&follower.address, posted).await.status, "200 OK");
        // What is too long is so for both.
        let posted = format!(
            "POST /api/forget/db3.example/3306 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
            (1 << 20) + 1,
            "x".repeat((1 << 20) + 1)
        );
        for site in [&follower, &leader] {
            let received = send(&site.address, &posted).await;
            received.expect_error("500 Internal Server Error", "is longer than 1048576 bytes");
        }
        assert_eq!(follower.fake.asked(), []);
        assert_eq!(leader.fake.asked().len(), 2);
        let head = request(&follower.address, "HEAD", "/api/clusters", "").await;
        assert_eq!(head.status, "200 OK");
        assert_eq!(head.header("content-length"), Some("20"));

        // About itself each answers for itself.
        assert_eq!(follower.json("/api/raft-state").await, json!("Follower"));
        assert_eq!(
            follower.json("/api/raft-leader").await,
            json!("10.0.0.2:10008")
        );
        assert_eq!(
            follower.json("/api/raft-peers").await,
            json!(["10.0.0.1:10008", "10.0.0.2:10008"])
        );
        assert_eq!(follower.json("/api/raft-health").await, json!("healthy"));
        assert_eq!(
            follower.get("/api/leader-check").await.status,
            "404 Not Found"
        );
        assert_eq!(leader.get("/api/leader-check").await.body, "\"OK\"");
    });
}

#[test]
fn a_relayed_request_is_not_relayed_again() {
    run(async {
        let one = site(Fake::new(), Settings::default()).await;
        let other = site(Fake::new(), Settings::default()).await;
        let pointing_at = |site: &Site| facts_of_a_follower(&format!("http://{}", site.address));
        one.fake.with(|world| world.facts = pointing_at(&other));
        other.fake.with(|world| world.facts = pointing_at(&one));
        for path in ["/api/clusters", "/api/forget/db1.example/3306"] {
            one.get(path)
                .await
                .expect_error("503 Service Unavailable", "not relayed again");
        }
        assert_eq!(one.fake.asked(), []);
        assert_eq!(other.fake.asked(), []);
    });
}

/// Waits until nobody listens there: a process that another test is starting holds a listener too, until it is another
/// program.
async fn refused(address: &str) {
    let knocking = async {
        while TokioEnv::connect(address).await.is_ok() {
            crate::env::sleep::<TokioEnv>(Duration::from_millis(20)).await;
        }
    };
    crate::env::timeout::<TokioEnv, _>(Duration::from_secs(60), knocking)
        .await
        .unwrap_or_else(|| panic!("{address} is never refused"));
}

#[test]
fn a_leader_that_cannot_be_reached_or_is_lost() {
    run(async {
        // A port on which nobody listens any more, at a host at which no other test takes it.
        let listener = TokioEnv::bind("127.0.0.2:0").await.unwrap();
        let address = TokioEnv::local_address(&listener).unwrap();
        drop(listener);
        refused(&address).await;
        let uri = format!("http://{address}");
        let follower = site(
            Fake::following(facts_of_a_follower(&uri)),
            Settings::default(),
        )
        .await;
        for path in ["/api/clusters", "/api/forget/db1.example/3306"] {
            follower
                .get(path)
                .await
                .expect_error("502 Bad Gateway", "cannot be reached");
        }
        // One that takes requests and hangs up.
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let address = TokioEnv::local_address(&listener).unwrap();
        spawn::<TokioEnv>(async move {
            while let Ok((mut stream, _)) = TokioEnv::accept(&mut listener).await {
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
            }
        });
        let uri = format!("http://{address}");
        follower
            .fake
            .with(|world| world.facts = facts_of_a_follower(&uri));
        follower
            .get("/api/forget/db1.example/3306")
            .await
            .expect_error("504 Gateway Timeout", "outcome unknown");
        follower
            .get("/api/clusters")
            .await
            .expect_error("502 Bad Gateway", "did not answer");
        follower
            .fake
            .with(|world| world.facts = facts_of_a_follower("gopher://10.0.0.2:3000"));
        follower
            .get("/api/clusters")
            .await
            .expect_error("502 Bad Gateway", "only http");
    });
}

/// A leader whose process is stopped takes connections and never answers.
#[test]
fn a_leader_that_is_replaced_is_not_waited_for() {
    run(async {
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let frozen = TokioEnv::local_address(&listener).unwrap();
        let (asked, mut waits) = mpsc::unbounded_channel();
        spawn::<TokioEnv>(async move {
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = TokioEnv::accept(&mut listener).await {
                stream.read_exact(&mut [0]).await.unwrap();
                asked.send(()).unwrap();
                streams.push(stream);
            }
        });
        let successor = site(Fake::new(), Settings::default()).await;
        let facts = |node: u64, address: &str| {
            let mut facts = facts_of_a_follower(&format!("http://{address}"));
            facts.leader.as_mut().unwrap().node = NodeId(node);
            facts
        };
        let follower = site(Fake::following(facts(2, &frozen)), Settings::default()).await;
        // The leader is replaced once it has the request: before, it would not be the one that is asked.
        let mut ask = async |path: &str, by: RaftFacts| {
            follower.fake.with(|world| world.facts = facts(2, &frozen));
            let answer = request(&follower.address, "GET", path, "");
            let replaced = async {
                waits.recv().await.unwrap();
                follower.fake.with(|world| world.facts = by);
            };
            let both = async { tokio::join!(answer, replaced).0 };
            crate::env::timeout::<TokioEnv, _>(Duration::from_secs(60), both)
                .await
                .unwrap_or_else(|| panic!("{path} was not answered"))
        };
        let (look, change) = ("/api/clusters", "/api/forget/db1.example/3306");

        let answer = ask(look, facts(3, &successor.address)).await;
        assert_eq!(answer.status, "200 OK");
        assert_eq!(answer.header("x-orchestrator-stale"), None);
        ask(change, facts(3, &successor.address))
            .await
            .expect_error("504 Gateway Timeout", "another daemon leads");
        assert_eq!(successor.fake.asked(), []);

        // This daemon itself was elected.
        let answer = ask(look, facts_of_the_leader()).await;
        assert_eq!(answer.status, "200 OK");
        assert_eq!(answer.header("x-orchestrator-stale"), None);

        // Nobody was.
        let answer = ask(look, facts_without_a_leader()).await;
        assert_eq!(answer.header("x-orchestrator-stale"), Some("no leader"));
        ask(change, facts_without_a_leader())
            .await
            .expect_error("504 Gateway Timeout", "outcome unknown");
        assert_eq!(follower.fake.asked(), []);
    });
}

/// A leader whose machine is gone takes no connection: of a change it was asked nothing, and its successor is.
#[test]
fn a_change_goes_to_the_successor_of_a_leader_that_was_not_reached() {
    run(async {
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let frozen = TokioEnv::local_address(&listener).unwrap();
        let (dialled, mut waits) = mpsc::unbounded_channel();
        spawn::<TokioEnv>(async move {
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = TokioEnv::accept(&mut listener).await {
                // The beginning of a handshake, which gets no answer.
                stream.read_exact(&mut [0]).await.unwrap();
                dialled.send(()).unwrap();
                streams.push(stream);
            }
        });
        let successor = site(Fake::new(), Settings::default()).await;
        let facts = |node: u64, uri: String| {
            let mut facts = facts_of_a_follower(&uri);
            facts.leader.as_mut().unwrap().node = NodeId(node);
            facts
        };
        let gone = facts(2, format!("https://{frozen}"));
        let follower = site(Fake::following(gone.clone()), Settings::default()).await;
        let mut ask = async |by: RaftFacts| {
            follower.fake.with(|world| world.facts = gone.clone());
            let answer = request(&follower.address, "GET", "/api/forget/db1.example/3306", "");
            let replaced = async {
                waits.recv().await.unwrap();
                follower.fake.with(|world| world.facts = by);
            };
            let both = async { tokio::join!(answer, replaced).0 };
            crate::env::timeout::<TokioEnv, _>(Duration::from_secs(60), both)
                .await
                .unwrap_or_else(|| panic!("it was not answered"))
        };

        let by = facts(3, format!("http://{}", successor.address));
        assert_eq!(ask(by).await.status, "200 OK");
        assert_eq!(successor.fake.asked().len(), 1);

        ask(facts_without_a_leader())
            .await
            .expect_error("503 Service Unavailable", "leader");
        assert_eq!(follower.fake.asked(), []);
    });
}

#[test]
fn what_replies_come_to() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        for (reply, status, message) in [
            (
                Reply::Unknown("no answer in 10 s".into()),
                "504 Gateway Timeout",
                "outcome unknown",
            ),
            (
                Reply::NotLeading {
                    leader: Some(NodeId(2)),
                },
                "503 Service Unavailable",
                "0000000000000002",
            ),
            (
                Reply::NotLeading { leader: None },
                "503 Service Unavailable",
                "nothing was done",
            ),
            (
                Reply::ProbeFailed(ProbeFailure::Refused),
                "500 Internal Server Error",
                "connection refused",
            ),
            (
                Reply::Failed("broken".into()),
                "500 Internal Server Error",
                "broken",
            ),
        ] {
            site.fake.with(|world| world.reply = Some(reply));
            for path in [
                "/api/discover/db1.example/3306",
                "/api/set-read-only/db1.example/3306",
                "/api/end-downtime/db1.example/3306",
                "/api/ack-all-recoveries?comment=x",
            ] {
                site.get(path).await.expect_error(status, message);
            }
        }
        site.fake
            .with(|world| world.reply = Some(Reply::ProbeFailed(ProbeFailure::Refused)));
        for path in [
            "/api/discover/db9.example/3306",
            "/api/refresh/db9.example/3306",
        ] {
            site.get(path).await.expect_error(
                "500 Internal Server Error",
                "Cannot read instance: db9.example:3306: connection refused",
            );
        }
        site.fake.with(|world| world.reply = None);
        site.get("/api/forget/no.such/3306")
            .await
            .expect_error("500 Internal Server Error", "not found");
    });
}

#[test]
fn who_gets_in() {
    run(async {
        let settings = Settings {
            authentication: Authentication::Multi {
                user: "ann".into(),
                password: "s:cret".into(),
            },
            identity_in_messages: Some("orc1".into()),
            ..Settings::default()
        };
        let site = site(Fake::new(), settings).await;
        let nobody = site.get("/api/lb-check").await;
        nobody.expect_error("401 Unauthorized", "Orchestrator orc1 says: Not Authorized");
        assert_eq!(
            nobody.header("www-authenticate"),
            Some("Basic realm=\"Authorization Required\"")
        );
        let reader = "Authorization: Basic cmVhZG9ubHk6d2hhdGV2ZXI=\r\n";
        let writer = "Authorization: Basic YW5uOnM6Y3JldA==\r\n";
        let look = request(&site.address, "GET", "/api/clusters", reader).await;
        assert_eq!(look.status, "200 OK");
        for path in ["/api/forget/db1.example/3306", "/api/untag-all?tag=a=b"] {
            let change = request(&site.address, "GET", path, reader).await;
            change.expect_error("500 Internal Server Error", "Unauthorized");
        }
        assert_eq!(site.fake.asked(), []);
        let path = "/api/ack-all-recoveries?comment=fixed%20it&owner=bob";
        let change = request(&site.address, "GET", path, writer).await;
        assert_eq!(
            change.json()["Message"],
            "Orchestrator orc1 says: Acknowledged all recoveries: 0"
        );
        let Some(Request::Decide(Command::Acknowledge { owner, comment, .. })) =
            site.fake.asked().pop()
        else {
            panic!("no acknowledgement");
        };
        assert_eq!((owner.as_str(), comment.as_str()), ("ann", "fixed it"));
    });
}

#[test]
fn prefix_and_status_endpoint() {
    run(async {
        let settings = Settings {
            url_prefix: "/orc".into(),
            status_endpoint: "/healthz".into(),
            ..Settings::default()
        };
        let site = site(Fake::new(), settings).await;
        for path in ["/orc/api/clusters", "/orc/api/status", "/healthz"] {
            assert_eq!(site.get(path).await.status, "200 OK", "{path}");
        }
        for path in ["/api/clusters", "/api/status", "/orc/healthz"] {
            site.get(path).await.expect_error("404 Not Found", "404");
        }
        assert_eq!(site.get("/orc").await.status, "501 Not Implemented");
        for endpoint in ["healthz", "", "/orc/api/clusters"] {
            let settings = Settings {
                url_prefix: "/orc".into(),
                status_endpoint: endpoint.into(),
                ..Settings::default()
            };
            assert!(check::<TokioEnv>(&settings).await.is_err(), "{endpoint}");
            let listener = listen::<TokioEnv>("127.0.0.1:0").await.unwrap();
            let (_stop, stopped) = watch::channel(false);
            let refused = serve::<TokioEnv, _>(listener, settings, Fake::new(), stopped).await;
            assert!(refused.is_err(), "{endpoint}");
        }
        let slashed = Settings {
            status_endpoint: "/api/status/".into(),
            ..Settings::default()
        };
        check::<TokioEnv>(&slashed).await.unwrap();
        let site = self::site(Fake::new(), slashed).await;
        for path in ["/api/status", "/api/status/"] {
            assert_eq!(site.get(path).await.status, "200 OK", "{path}");
        }
    });
}

#[test]
fn it_stops_when_told() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        // A connection without a request does not hold the daemon.
        let mut idle = TokioEnv::connect(&site.address).await.unwrap();
        idle.write_all(b"GET /api/lb-check HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        site.stop.send(true).unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"\"OK\""));
        refused(&site.address).await;
    });
}

#[test]
fn leader_check_takes_a_status() {
    run(async {
        let site = site(
            Fake::following(facts_of_a_follower("http://x")),
            Settings::default(),
        )
        .await;
        for (code, status) in [
            ("503", "503 Service Unavailable"),
            ("200", "200 OK"),
            ("99", "404 Not Found"),
            ("204", "404 Not Found"),
            ("1000", "404 Not Found"),
            ("-1", "404 Not Found"),
            ("x", "404 Not Found"),
        ] {
            let check = site.get(&format!("/api/leader-check/{code}")).await;
            assert_eq!(check.status, status, "{code}");
            assert_eq!(check.body, "\"Not leader\"", "{code}");
        }
        let headers = "X-Two: 1\r\nx-two: 2\r\n";
        let shown = request(&site.address, "GET", "/api/headers", headers).await;
        assert_eq!(
            shown.body,
            r#"{"Connection":["close"],"Host":["x"],"X-Two":["1","2"]}"#
        );
    });
}

#[test]
fn clusters_say_by_the_filters_what_is_automated() {
    run(async {
        let fake = Fake::new();
        let policy = Policy {
            recover_intermediate_filters: vec![String::from("alias=shop")],
            ..Policy::default()
        };
        fake.with(|world| world.filters = Filters::compile(&policy).unwrap());
        let site = site(fake, Settings::default()).await;
        for path in ["/api/cluster-info/alias/shop", "/api/clusters-info"] {
            let shown = site.json(path).await;
            let info = shown.get(0).unwrap_or(&shown);
            assert_eq!(info["ClusterAlias"], "shop", "{path}");
            assert_eq!(info["HasAutomatedMasterRecovery"], false, "{path}");
            assert_eq!(
                info["HasAutomatedIntermediateMasterRecovery"], true,
                "{path}"
            );
        }
    });
}

/// Looks, filters and key-value stores would take one for the other.
#[test]
fn no_two_clusters_are_called_the_same() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let wrong = "500 Internal Server Error";
        for (request, why) in [
            ("lost.example:3306?alias=shop", "db1.example:3306 is called"),
            ("shop", "No alias given"),
        ] {
            let refused = site.get(&format!("/api/set-cluster-alias/{request}")).await;
            refused.expect_error(wrong, why);
        }
        assert_eq!(site.fake.asked(), []);
        // What it is called already is no other's.
        site.get("/api/set-cluster-alias/shop?alias=shop").await;
        assert_eq!(site.fake.asked().len(), 1);
    });
}

#[test]
fn servers_and_clusters() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let all = ["db1.example", "db2.example", "db3.example"];
        let hosts = site.hosts("/api/all-instances").await;
        assert_eq!(
            hosts,
            ["db1.example", "lost.example", "db2.example", "db3.example"]
        );
        for hint in [
            "shop",
            "db1.example:3306",
            "db3.example",
            "db3.example:3306",
            "db3",
        ] {
            assert_eq!(
                site.hosts(&format!("/api/cluster/{hint}")).await,
                all,
                "{hint}"
            );
        }
        assert_eq!(site.hosts("/api/cluster/alias/shop").await, all);
        assert_eq!(
            site.hosts("/api/cluster/instance/db2.example/3306").await,
            all
        );
        site.get("/api/cluster/instance/no.such/3306")
            .await
            .expect_error(
                "500 Internal Server Error",
                "Cannot read instance: no.such:3306",
            );
        site.get("/api/cluster/no-such").await.expect_error(
            "500 Internal Server Error",
            "Unable to determine cluster name. clusterHint=no-such",
        );
        let info = json!({"ClusterName": "db1.example:3306", "ClusterAlias": "shop",
            "ClusterDomain": "", "CountInstances": 3, "HeuristicLag": 0,
            "HasAutomatedMasterRecovery": true, "HasAutomatedIntermediateMasterRecovery": false});
        assert_eq!(site.json("/api/clusters-info").await, json!([info]));
        assert_eq!(site.json("/api/cluster-info/db2.example").await, info);
        assert_eq!(site.json("/api/cluster-info/alias/shop").await, info);
        assert_eq!(
            site.hosts("/api/instance-replicas/db1.example/3306").await,
            ["db2.example", "db3.example"]
        );
        assert_eq!(
            site.json("/api/instance-replicas/no.such/3306").await,
            json!([])
        );
        assert_eq!(site.hosts("/api/masters").await, ["db1.example"]);
        assert_eq!(
            site.json("/api/master/shop").await["Key"]["Hostname"],
            "db1.example"
        );
        assert_eq!(site.hosts("/api/problems").await, ["lost.example"]);
        assert_eq!(site.json("/api/problems/shop").await, json!([]));
        assert_eq!(site.hosts("/api/search/db2").await, ["db2.example"]);
        assert_eq!(site.hosts("/api/search?s=shop").await, all);
        assert_eq!(site.hosts("/api/search/100").await, all);
        assert_eq!(site.hosts("/api/search?s=").await.len(), 4);
        let topology = site.json("/api/topology/db2.example/3306").await;
        assert_eq!(topology["Message"], "Topology for cluster db1.example:3306");
        assert_eq!(
            topology["Details"],
            "db1.example:3306   [0s,ok,8.0.36,rw,ROW,>>,GTID]\n\
             + db2.example:3306 [0s,ok,8.0.36,ro,ROW,>>,GTID]\n\
             + db3.example:3306 [0s,ok,8.0.36,ro,ROW,>>,GTID]"
        );
    });
}

#[test]
fn a_replaced_primary_does_not_keep_the_alias() {
    run(async {
        let fake = Fake::new();
        fake.with(|world| {
            let mut replaced = server("aaa.example", None);
            replaced.place.cluster_name = String::from("aaa.example:3306");
            world.instances.insert(replaced.key.clone(), replaced);
        });
        let site = site(fake, Settings::default()).await;
        let infos = site.json("/api/clusters-info").await;
        assert_eq!(infos[0]["ClusterAlias"], "aaa.example:3306");
        assert_eq!(infos[1]["ClusterAlias"], "shop");
        assert_eq!(site.hosts("/api/cluster/shop").await.len(), 3);
        assert_eq!(site.hosts("/api/cluster/aaa.example:3306").await.len(), 1);
    });
}

/// A recovery of db1 was begun.
fn during_a_recovery() -> (Fake, Epoch, Uid) {
    let fake = Fake::new();
    let epoch = Epoch {
        term: 1,
        node: NodeId(1),
        boot: 1,
    };
    let uid = Uid::of(epoch, 1, NOW.wall);
    let begun = fake.apply(Command::BeginRecovery {
        uid: uid.clone(),
        purpose: Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        },
        epoch,
        server: key("db1.example"),
        identity: Some(Identity("db1".into())),
        cluster_name: "db1.example:3306".into(),
        analysis: "DeadMaster".into(),
        replicas: vec![key("db2.example"), key("db3.example")],
        processing_node: "orc1".into(),
        processing_token: "token".into(),
        forced: false,
        was_read_only: false,
    });
    assert!(matches!(begun, Answer::Numbered(_)), "{begun:?}");
    (fake, epoch, uid)
}

/// The recovery that made db2 the primary in the place of db1, which is back and was opened by people.
fn after_a_recovery() -> Fake {
    let (fake, epoch, uid) = during_a_recovery();
    let ended = fake.apply(Command::EndRecovery {
        uid,
        epoch,
        end: End::Succeeded,
        successor: Some(key("db2.example")),
        successor_identity: Some(Identity("db2".into())),
        successor_alias: String::new(),
        lost: Vec::new(),
        participants: Vec::new(),
        lines: Vec::new(),
    });
    assert!(!matches!(ended, Answer::Refused(_)), "{ended:?}");
    fake.with(|world| {
        assert!(world.replicated.is_deposed(&Identity("db1".into())));
        let name = String::from("db2.example:3306");
        for (host, source) in [
            ("db1.example", None),
            ("db2.example", None),
            ("db3.example", Some("db2.example")),
        ] {
            let mut instance = server(host, source);
            instance.place.cluster_name.clone_from(&name);
            let report = Arc::get_mut(instance.report.as_mut().unwrap()).unwrap();
            report.identity = Identity(String::from(&host[..3]));
            world.instances.insert(instance.key.clone(), instance);
        }
    });
    fake
}

/// Clients that ask who is primary are not made to wait for the replicas.
#[test]
fn the_master_is_who_was_opened_while_replicas_are_still_waited_for() {
    run(async {
        let (fake, epoch, uid) = during_a_recovery();
        let promote = Step {
            id: StepId(1),
            kind: StepKind::Promote,
            server: key("db2.example"),
            identity: None,
            lane: Lane::Act,
            statements: vec![Statement::MakeWriteable],
            deadline: Duration::from_secs(1),
            read_after: true,
        };
        for (stage, steps) in [
            (Stage::FenceAndHalt, Vec::new()),
            (Stage::Promote, vec![promote]),
        ] {
            let intended = fake.apply(Command::Intend {
                uid: uid.clone(),
                epoch,
                stage,
                candidate: Some(key("db2.example")),
                steps,
                ending: None,
                lines: Vec::new(),
            });
            assert!(!matches!(intended, Answer::Refused(_)), "{intended:?}");
        }
        fake.with(|world| {
            let mut promoted = server("db2.example", None);
            promoted.place.cluster_name = String::from("db1.example:3306");
            world.instances.insert(promoted.key.clone(), promoted);
        });
        let site = site(fake, Settings::default()).await;
        let master = site.json("/api/master/shop").await;
        assert_eq!(master["Key"]["Hostname"], "db1.example");
        let settled = site.fake.apply(Command::Settle {
            uid,
            epoch,
            outcomes: vec![(StepId(1), Outcome::Done)],
            lines: Vec::new(),
        });
        assert!(!matches!(settled, Answer::Refused(_)), "{settled:?}");
        let master = site.json("/api/master/shop").await;
        assert_eq!(master["Key"]["Hostname"], "db2.example");
        assert_eq!(site.hosts("/api/masters").await, ["db2.example"]);
    });
}

#[test]
fn a_deposed_primary_that_people_opened_is_not_the_master() {
    run(async {
        let site = site(after_a_recovery(), Settings::default()).await;
        assert_eq!(site.hosts("/api/masters").await, ["db2.example"]);
        for hint in ["shop", "db1.example:3306", "db2.example:3306"] {
            let master = site.json(&format!("/api/master/{hint}")).await;
            assert_eq!(master["Key"]["Hostname"], "db2.example", "{hint}");
        }
        // Read-only, the recorded primary is still the cluster's, and nobody else is.
        site.fake.with(|world| {
            let primary = world.instances.get_mut(&key("db2.example")).unwrap();
            Arc::get_mut(primary.report.as_mut().unwrap())
                .unwrap()
                .read_only = true;
        });
        assert_eq!(site.json("/api/masters").await, json!([]));
        let master = site.json("/api/master/shop").await;
        assert_eq!(master["Key"]["Hostname"], "db2.example");
        // Without it there is none.
        site.fake
            .with(|world| world.instances.remove(&key("db2.example")));
        site.get("/api/master/shop")
            .await
            .expect_error("500 Internal Server Error", "No masters found");
    });
}

#[test]
fn two_writeable_primaries_are_shown_with_what_closes_the_one() {
    run(async {
        let fake = after_a_recovery();
        let lost = fake.with(|world| {
            world
                .replicated
                .downtime_of(&key("db1.example"), NOW.wall)
                .is_some()
        });
        assert!(lost, "the recovery leaves a downtime");
        let site = site(fake, Settings::default()).await;
        let found = site.json("/api/replication-analysis/shop").await;
        let entry = found["Details"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["AnalyzedInstanceKey"]["Hostname"] == "db1.example")
            .unwrap();
        assert_eq!(
            entry["StructureAnalysis"][0],
            "TwoWriteablePrimariesStructureWarning"
        );
        assert_eq!(
            entry["Description"],
            "a recovery made db2.example:3306 the primary in its place, and it takes writes all the same; \
             this closes it: SET GLOBAL super_read_only=1"
        );
        let problems = site.json("/api/problems/shop").await;
        assert_eq!(problems[0]["Key"]["Hostname"], "db1.example");
        assert_eq!(problems[0]["Problems"], json!(["two_writeable_primaries"]));
        assert_eq!(problems[0]["IsDowntimed"], true);
        assert_eq!(problems.as_array().unwrap().len(), 1);

        site.fake.with(|world| {
            let closed = world.instances.get_mut(&key("db1.example")).unwrap();
            Arc::get_mut(closed.report.as_mut().unwrap())
                .unwrap()
                .read_only = true;
        });
        assert_eq!(site.json("/api/problems/shop").await, json!([]));
    });
}

#[test]
fn a_replaced_primary_with_replicas_is_shown_and_can_be_released() {
    run(async {
        let fake = after_a_recovery();
        fake.with(|world| {
            let closed = world.instances.get_mut(&key("db1.example")).unwrap();
            Arc::get_mut(closed.report.as_mut().unwrap())
                .unwrap()
                .read_only = true;
            let mut moved = server("db3.example", Some("db1.example"));
            moved.place.cluster_name = String::from("db2.example:3306");
            world.instances.insert(moved.key.clone(), moved);
        });
        let site = site(fake, Settings::default()).await;
        let problems = site.json("/api/problems/shop").await;
        assert_eq!(problems[0]["Key"]["Hostname"], "db1.example");
        assert_eq!(
            problems[0]["Problems"],
            json!(["replaced_primary_has_replicas"])
        );
        let path = "/api/v2/release-deposed/db2.example/3306";
        let refused = site.get(path).await;
        refused.expect_error(
            "500 Internal Server Error",
            "db2.example:3306 is no primary that a recovery replaced",
        );
        let released = site.json("/api/v2/release-deposed/db1.example/3306").await;
        assert_eq!(released["Code"], "OK");
        site.fake.with(|world| {
            assert!(!world.replicated.is_deposed(&Identity("db1".into())));
        });
        assert_eq!(site.json("/api/problems/shop").await, json!([]));
    });
}

#[test]
fn what_a_server_refuses_is_among_its_problems() {
    run(async {
        let fake = Fake::new();
        fake.with(|world| {
            let refusing = world.instances.get_mut(&key("db2.example")).unwrap();
            Arc::get_mut(refusing.report.as_mut().unwrap())
                .unwrap()
                .refused = vec![(1146, String::from("the result of DetectDataCenterQuery"))];
        });
        let site = site(fake, Settings::default()).await;
        let problems = site.json("/api/problems/shop").await;
        assert_eq!(problems[0]["Problems"], json!(["refused_queries"]));
        let found = site.json("/api/replication-analysis").await;
        let entry = &found["Details"][0];
        assert_eq!(
            entry["StructureAnalysis"],
            json!(["RefusedQueriesStructureWarning"])
        );
        assert_eq!(
            entry["Description"],
            "refused with error 1146: the result of DetectDataCenterQuery"
        );
    });
}

#[test]
fn health_lists_the_members_by_name() {
    run(async {
        let fake = Fake::new();
        fake.seat_two();
        fake.apply(Command::DescribeMember {
            node: NodeId(2),
            raft_address: String::from("10.0.0.2:10008"),
            http_uri: String::from("http://10.0.0.2:3000"),
            host_name: String::from("orc2"),
            build: String::from("2.0.0"),
            reads_command: 1,
            reads_snapshot: 1,
            original: None,
        });
        let settings = Settings {
            process: Process {
                host_name: "orc1".into(),
                full_host_name: String::new(),
                token: "9ac1".into(),
            },
            ..Settings::default()
        };
        let site = site(fake, settings).await;
        let health = &site.json("/api/health").await["Details"];
        assert_eq!(health["Hostname"], "orc1");
        assert_eq!(health["IsActiveNode"], true);
        assert_eq!(health["RaftHealthyMembers"].as_array().unwrap().len(), 2);
        let nodes = &health["AvailableNodes"];
        assert_eq!(
            (&nodes[0]["Hostname"], &nodes[0]["Token"]),
            (&json!("orc1"), &json!("9ac1"))
        );
        assert_eq!(
            (&nodes[1]["Hostname"], &nodes[1]["Token"]),
            (&json!("orc2"), &json!(""))
        );
        assert_eq!(nodes[1]["AppVersion"], "2.0.0");
        let status = site.json("/api/raft-status").await;
        assert_eq!(status["Members"][1]["Hostname"], "orc2");
        assert_eq!(status["Members"][1]["Voter"], true);
        assert_eq!(
            (&status["Reason"], &status["Change"]),
            (&json!(""), &json!(""))
        );
    });
}

#[test]
fn peers_are_added_removed_and_replaced_by_their_raft_address() {
    run(async {
        let fake = Fake::new();
        fake.with(|world| world.facts = facts_of_the_leader());
        let site = site(fake, Settings::default()).await;
        assert_eq!(site.json("/api/raft-add-peer/n4").await, "n4:10008");
        assert_eq!(site.json("/api/raft-remove-peer/n3:7").await, "n3:7");
        let replaced = site.json("/api/v2/raft-replace-peer/n3/n4").await;
        assert_eq!(replaced, "n4:10008");
        let address = |text: &str| String::from(text);
        assert_eq!(
            site.fake.asked(),
            [
                Request::AddPeer {
                    address: address("n4:10008")
                },
                Request::RemovePeer {
                    address: address("n3:7")
                },
                Request::ReplacePeer {
                    former: address("n3:10008"),
                    newcomer: address("n4:10008")
                }
            ]
        );
        site.fake.with(|world| {
            world.reply = Some(Reply::Failed(String::from("it did not answer")));
        });
        site.get("/api/raft-add-peer/n4").await.expect_error(
            "500 Internal Server Error",
            "Cannot add raft peer: it did not answer",
        );
    });
}

#[test]
fn health_tells_of_a_member_that_holds_another_state() {
    run(async {
        let fake = Fake::new();
        let at = LogPosition {
            index: 17,
            term: 2,
            node: NodeId(1),
        };
        fake.with(|world| world.disagreements.insert(NodeId(2), at));
        let site = site(fake, Settings::default()).await;
        let alarms = site.json("/api/health").await["Details"]["Alarms"].clone();
        let alarm = alarms[0].as_str().unwrap();
        assert!(alarm.ends_with("differs from this daemon's since entry 17@2 of the raft log"));
    });
}

#[test]
fn a_configuration_file_that_differs_from_the_leaders_is_shown() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let status = site.json("/api/raft-status").await;
        assert_eq!(status["DifferingSettings"], json!([]));
        assert_eq!(site.json("/api/v2/health").await["Warnings"], json!([]));
        site.fake.with(|world| {
            let mut policy = world.replicated.policy().clone();
            policy.recover_primary_filters = vec![String::from("*")];
            policy.observe_only = true;
            world.local_policy = Some(policy);
        });
        let status = site.json("/api/raft-status").await;
        assert_eq!(
            status["DifferingSettings"],
            json!(["RecoverMasterClusterFilters", "ObserveOnly"])
        );
        let health = site.json("/api/v2/health").await;
        let warning = health["Warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("in RecoverMasterClusterFilters, ObserveOnly: make"),
            "{warning}"
        );
    });
}

/// A daemon that failed at an entry of the log twice serves HTTP, and each answer says why it does nothing.
#[test]
fn a_held_daemon_says_why_and_does_nothing() {
    run(async {
        let reason = "this daemon failed 2 times at entry 17";
        let fake = Fake::following(RaftFacts::held(reason));
        fake.with(|world| {
            world.is_gone = true;
            world.reply = Some(Reply::NotLeading { leader: None });
        });
        let site = site(fake, Settings::default()).await;
        for path in ["/api/raft-health", "/api/health"] {
            let answer = site.get(path).await;
            answer.expect_error("500 Internal Server Error", reason);
        }
        assert_eq!(site.json("/api/raft-state").await, json!("Shutdown"));
        assert_eq!(site.get("/api/leader-check").await.status, "404 Not Found");
        let discover = site.get("/api/discover/db9.example/3306").await;
        discover.expect_error("503 Service Unavailable", reason);
        let clusters = site.get("/api/clusters").await;
        assert!(clusters.status.starts_with('5'), "{clusters:?}");
        assert!(!clusters.body.is_empty());
        assert_eq!(site.fake.asked(), []);
    });
}

#[test]
fn a_daemon_whose_backend_is_behind_is_not_healthy() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let late = |seconds| {
            let backend = BackendHealth {
                oldest_unwritten: Duration::from_secs(seconds),
                error: Some(String::from("the server has gone away")),
            };
            site.fake.with(|world| world.backend = backend);
        };
        late(5);
        assert_eq!(site.json("/api/health").await["Details"]["Healthy"], true);
        late(6);
        for path in ["/api/health", "/api/status"] {
            site.get(path)
                .await
                .expect_error("500 Internal Server Error", "the server has gone away");
        }
    });
}

#[test]
fn raft_facts_come_from_what_raft_shows() {
    use crate::raft::{MemberView, RaftStatusView, RaftSummary};
    let member = |node: u64, contact: Option<u64>| MemberView {
        node: NodeId(node),
        voter: true,
        address: Some(format!("10.0.0.{node}:10008")),
        http_uri: (node == 2).then(|| String::from("http://10.0.0.2:3000")),
        last_contact: contact.map(Duration::from_secs),
        lacks: None,
        version: None,
        refusal: None,
        impostor: None,
    };
    let mut status = RaftStatusView {
        node: NodeId(1),
        boot: 1,
        cluster: None,
        default_port: 10_008,
        bind: String::from("0.0.0.0:10008"),
        advertise: String::from("10.0.0.1:10008"),
        summary: RaftSummary {
            state: RaftState::Follower,
            term: 3,
            leader: Some(NodeId(2)),
            leading: None,
            healthy: true,
            reason: None,
            fatal: None,
        },
        leader_address: Some(String::from("10.0.0.2:10008")),
        leader_http_uri: Some(String::from("http://10.0.0.2:3000")),
        members: vec![member(1, Some(0)), member(2, Some(1)), member(3, Some(60))],
        last_log_index: None,
        applied: None,
        committed: None,
        snapshot: None,
        purged: None,
        log_bytes: 0,
    };
    let facts = RaftFacts::of(&status);
    let leader = facts.leader.unwrap();
    assert_eq!(leader.http_uri, "http://10.0.0.2:3000");
    let healthy: Vec<bool> = facts.peers.iter().map(|peer| peer.is_healthy).collect();
    assert_eq!(healthy, [true, true, false]);
    assert_eq!(facts.health, Ok(()));
    assert!(!facts.is_leading);
    // A leader that was not heard for long is none: a daemon alone says so, and shows what it sees itself.
    status.summary.leader = Some(NodeId(3));
    assert_eq!(RaftFacts::of(&status).leader, None);
    // A leader that is no member yet is still the leader.
    status.summary.leader = Some(NodeId(9));
    status.summary.healthy = false;
    let facts = RaftFacts::of(&status);
    assert_eq!(facts.leader.map(|leader| leader.node), Some(NodeId(9)));
    assert_eq!(facts.health, Err(String::from("not part of a quorum")));
}

#[test]
fn a_part_of_a_name_is_enough_to_look_and_never_to_change() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        let found = site.json("/api/instance/b2/3306").await;
        assert_eq!(found["Key"]["Hostname"], "db2.example");
        site.get("/api/instance/example/3306").await.expect_error(
            "500 Internal Server Error",
            "Cannot read instance: example:3306",
        );
        site.get("/api/forget/b2/3306")
            .await
            .expect_error("500 Internal Server Error", "b2:3306");
        site.get("/api/forget-cluster/b2").await.expect_error(
            "500 Internal Server Error",
            "Unable to determine cluster name",
        );
        assert_eq!(site.hosts("/api/all-instances").await.len(), 4);
    });
}

#[test]
fn a_downtime_needs_a_server_that_is_known() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        for path in [
            "/api/begin-downtime/no.such/3306/ann/disk/1h",
            "/api/begin-downtime/no.such/3306/ann/disk",
            "/api/end-downtime/no.such/3306",
            // A part of a name is no name.
            "/api/begin-downtime/db2/3306/ann/disk/1h",
        ] {
            let received = site.get(path).await;
            received.expect_error("500 Internal Server Error", "is not known");
            let named = path.split('/').nth(3).unwrap();
            let said = received.json()["Message"].clone();
            assert!(said.as_str().unwrap().contains(named), "{said}");
        }
        assert_eq!(site.fake.asked(), []);
        // Jobs on the servers' machines tell what they have to tell before the servers are found.
        let registered = site
            .json("/api/register-candidate/no.such/3306/prefer")
            .await;
        assert_eq!(
            registered,
            json!({"Code": "OK",
                "Message": "Registered candidate; no.such:3306 is not known so far",
                "Details": {"Hostname": "no.such", "Port": 3306}})
        );
        let registered = site
            .json("/api/register-candidate/db2.example/3306/prefer")
            .await;
        assert_eq!(registered["Message"], "Registered candidate");
        assert_eq!(
            site.json("/api/tag/no.such/3306?tag=role=web").await["Message"],
            "no.such:3306 tagged with role=web; no.such:3306 is not known so far"
        );
        // What was said of a server that was forgotten since can be taken back.
        site.json("/api/begin-downtime/db2.example/3306/ann/disk/1h")
            .await;
        site.fake.with(|world| {
            world.instances.remove(&key("db2.example"));
        });
        site.json("/api/end-downtime/db2.example/3306").await;
    });
}

#[test]
fn tags_and_downtimes() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        assert_eq!(
            site.json("/api/tag/db2.example/3306?tag=role=backup").await["Message"],
            "db2.example:3306 tagged with role=backup"
        );
        site.json("/api/tag/db3.example/3306/role/web").await;
        site.json("/api/tag/db3.example/3306?tag=slow").await;
        assert_eq!(
            site.json("/api/tags/db3.example/3306").await,
            json!(["role=web", "slow="])
        );
        assert_eq!(
            site.json("/api/tag-value/db3.example/3306/role").await,
            json!("web")
        );
        site.get("/api/tag-value/db3.example/3306?tag=x")
            .await
            .expect_error(
                "500 Internal Server Error",
                "tag x not found for db3.example:3306",
            );
        for (search, hosts) in [
            ("role", vec!["db2.example", "db3.example"]),
            ("role=web", vec!["db3.example"]),
            ("role,~slow", vec!["db2.example"]),
            ("~role", vec!["db1.example", "lost.example"]),
            ("~role=web", vec!["db2.example"]),
        ] {
            assert_eq!(
                site.hosts(&format!("/api/tagged?tag={search}")).await,
                hosts,
                "{search}"
            );
        }
        site.get("/api/tagged")
            .await
            .expect_error("500 Internal Server Error", "Unable to parse tag: ");
        site.get("/api/untag-all?tag=role")
            .await
            .expect_error("500 Internal Server Error", "value of the tag role");
        assert_eq!(
            site.json("/api/untag-all/role/web").await,
            json!({"Code": "OK", "Message": "role removed from 1 instances",
                "Details": [{"Hostname": "db3.example", "Port": 3306}]})
        );
        assert_eq!(
            site.json("/api/untag/db1.example/3306/role").await["Details"],
            json!([])
        );

        site.json("/api/begin-downtime/db2.example/3306/ann/disk/1h")
            .await;
        assert_eq!(site.hosts("/api/downtimed").await, ["db2.example"]);
        assert_eq!(site.hosts("/api/downtimed/shop").await, ["db2.example"]);
        let instance = site.json("/api/instance/db2.example/3306").await;
        assert_eq!(instance["IsDowntimed"], true);
        assert_eq!(instance["DowntimeOwner"], "ann");
        assert_eq!(instance["DowntimeEndTimestamp"], "2023-11-14 23:13:20");
        let drawn = site.json("/api/topology-tags/shop").await;
        let drawn = drawn["Details"].as_str().unwrap();
        assert!(drawn.contains("GTID,downtimed] [role=backup]"), "{drawn}");
        for _ in 0..2 {
            assert_eq!(
                site.json("/api/end-downtime/db2.example/3306").await["Message"],
                "Downtime ended: db2.example:3306"
            );
        }
        assert_eq!(site.json("/api/downtimed").await, json!([]));
    });
}

#[test]
fn failures_and_recoveries() {
    run(async {
        let fake = Fake::new();
        let Answer::Numbered(detection) = fake.apply(Command::RegisterDetection(Detection {
            number: 0,
            server: key("db1.example"),
            analysis: "DeadMaster".into(),
            cluster_name: "db1.example:3306".into(),
            cluster_alias: "shop".into(),
            replicas: vec![key("db3.example"), key("db2.example")],
            is_actionable: true,
            processing_node: "orc1".into(),
            processing_token: "token".into(),
            at: NOW.wall,
            is_active: true,
            telling: None,
        })) else {
            panic!("no detection");
        };
        let epoch = Epoch {
            term: 1,
            node: NodeId(1),
            boot: 1,
        };
        let uid = Uid::of(epoch, 1, NOW.wall);
        let begun = fake.apply(Command::BeginRecovery {
            uid: uid.clone(),
            purpose: Purpose::DeadPrimary {
                kind: DeadKind::Gone,
            },
            epoch,
            server: key("db1.example"),
            identity: None,
            cluster_name: "db1.example:3306".into(),
            analysis: "DeadMaster".into(),
            replicas: vec![key("db2.example"), key("db3.example")],
            processing_node: "orc1".into(),
            processing_token: "token".into(),
            forced: false,
            was_read_only: false,
        });
        let Answer::Numbered(number) = begun else {
            panic!("{begun:?}");
        };
        let site = site(fake, Settings::default()).await;
        assert_eq!(
            site.json("/api/active-cluster-recovery/shop").await[0]["UID"],
            json!(uid.0)
        );
        let ended = site.fake.apply(Command::EndRecovery {
            uid: uid.clone(),
            epoch,
            end: End::Succeeded,
            successor: Some(key("db2.example")),
            successor_identity: None,
            successor_alias: "second".into(),
            lost: vec![key("db3.example")],
            participants: Vec::new(),
            lines: vec!["promoted <it>".into()],
        });
        assert!(!matches!(ended, Answer::Refused(_)), "{ended:?}");
        assert_eq!(
            site.json("/api/active-cluster-recovery/shop").await,
            json!([])
        );
        let listed = site.json("/api/audit-recovery").await;
        let row = &listed[0];
        assert_eq!(row["Id"], number);
        assert_eq!(row["AnalysisEntry"]["Analysis"], "DeadMaster");
        assert_eq!(row["AnalysisEntry"]["CountReplicas"], 2);
        assert_eq!(row["SuccessorKey"]["Hostname"], "db2.example");
        assert_eq!(row["IsSuccessful"], true);
        assert_eq!(row["IsActive"], true);
        assert_eq!(row["Acknowledged"], false);
        assert_eq!(row["RecoveryStartTimestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(row["RecoveryEndTimestamp"], "2023-11-14 22:13:20");
        for same in [
            format!("/api/audit-recovery/id/{number}"),
            format!("/api/audit-recovery/uid/{}", uid.0.replace(':', "%3A")),
            String::from("/api/audit-recovery/cluster/db1.example%3A3306"),
            String::from("/api/audit-recovery/alias/shop/0"),
            String::from("/api/audit-recovery?unacknowledged=true"),
            String::from("/api/recently-active-cluster-recovery/shop"),
            String::from("/api/recently-active-instance-recovery/db2.example/3306"),
        ] {
            assert_eq!(site.json(&same).await, listed, "{same}");
        }
        for none in [
            "/api/audit-recovery/1",
            "/api/audit-recovery/uid/x",
            "/api/audit-recovery/id/99",
            "/api/audit-recovery/cluster/other",
            "/api/recently-active-instance-recovery/db1.example/3306",
        ] {
            assert_eq!(site.json(none).await, json!([]), "{none}");
        }
        let steps = site
            .json(&format!("/api/audit-recovery-steps/{}", uid.0))
            .await;
        let promoted = |step: &&Value| step["Message"] == "promoted <it>";
        let step = steps.as_array().unwrap().iter().find(promoted).unwrap();
        assert_eq!(step["RecoveryUID"], json!(uid.0));
        assert_eq!(step["AuditAt"], "2023-11-14T22:13:20Z");

        let detections = site.json("/api/audit-failure-detection/alias/shop").await;
        assert_eq!(detections[0]["Id"], detection);
        assert_eq!(detections[0]["AllErrors"], json!([]));
        assert_eq!(
            detections[0]["AnalysisEntry"]["StartActivePeriod"],
            "2023-11-14T22:13:20Z"
        );

        site.get(&format!("/api/ack-recovery/{number}"))
            .await
            .expect_error("500 Internal Server Error", "No acknowledge comment given");
        assert_eq!(
            site.json(&format!("/api/ack-recovery/{number}?comment=ok&owner=bob"))
                .await,
            json!({"Code": "OK", "Message": "Acknowledged recovery: 1",
                "Details": number.to_string()})
        );
        let row = &site.json("/api/audit-recovery").await[0];
        assert_eq!(row["AcknowledgedBy"], "bob");
        assert_eq!(row["IsActive"], false);
        assert_eq!(
            site.json("/api/audit-recovery?unacknowledged=true").await,
            json!([])
        );
        for (path, said) in [
            ("/api/ack-recovery/99", "there is no recovery 99"),
            ("/api/ack-recovery/uid/none", "there is no recovery none"),
            (
                "/api/ack-recovery/instance/db2.example/3306",
                "there is no recovery of db2.example:3306",
            ),
            (
                "/api/ack-recovery/instance/no.such/3306",
                "there is no recovery of no.such:3306",
            ),
        ] {
            site.get(&format!("{path}?comment=x"))
                .await
                .expect_error("500 Internal Server Error", said);
        }
        // Whoever asks again, or in case, has what was wanted.
        for (path, said) in [
            (
                format!("/api/ack-recovery/{number}"),
                "Acknowledged recovery: 0",
            ),
            (
                format!("/api/ack-recovery/uid/{}", uid.0),
                "Acknowledged recovery: 0",
            ),
            (
                String::from("/api/ack-recovery/instance/db1.example/3306"),
                "Acknowledged instance recoveries: 0",
            ),
            (
                String::from("/api/ack-recovery/cluster/shop"),
                "Acknowledged cluster recoveries: 0",
            ),
            (
                String::from("/api/ack-all-recoveries"),
                "Acknowledged all recoveries: 0",
            ),
        ] {
            let answer = site.json(&format!("{path}?comment=x")).await;
            assert_eq!(answer["Message"], said, "{path}");
        }
        let row = &site.json("/api/audit-recovery").await[0];
        assert_eq!(row["AcknowledgedBy"], "bob");

        assert_eq!(
            site.json("/api/check-global-recoveries").await["Details"],
            "enabled"
        );
        site.json("/api/disable-global-recoveries").await;
        assert_eq!(
            site.json("/api/check-global-recoveries").await["Message"],
            "Global recoveries disabled"
        );
    });
}

#[test]
fn a_dead_primary_is_analysed() {
    run(async {
        let fake = Fake::new();
        fake.with(|world| {
            let dead = world.instances.get_mut(&key("db1.example")).unwrap();
            dead.seen = Some(NOW.mono - Duration::from_secs(30));
            for host in ["db2.example", "db3.example"] {
                let replica = world.instances.get_mut(&key(host)).unwrap();
                let report = Arc::get_mut(replica.report.as_mut().unwrap()).unwrap();
                let status = report.replication.as_mut().unwrap();
                status.io = ThreadState::Other;
                status.io_error = "error reconnecting to source: error connecting to source".into();
            }
        });
        let settings = Settings {
            process: Process {
                host_name: "orc1".into(),
                full_host_name: String::new(),
                token: "9ac1".into(),
            },
            ..Settings::default()
        };
        let site = site(fake, settings).await;
        let found = site.json("/api/replication-analysis").await;
        assert_eq!(found["Message"], "Analysis");
        let entry = &found["Details"][0];
        assert_eq!(entry["AnalyzedInstanceKey"]["Hostname"], "db1.example");
        assert_eq!(entry["Analysis"], "DeadMaster");
        assert_eq!(entry["CountReplicas"], 2);
        assert_eq!(entry["ProcessingNodeHostname"], "orc1");
        let foretold = site.json("/api/v2/would-fail-over/shop").await;
        assert_eq!(foretold["ClusterName"], "db1.example:3306");
        assert_eq!(foretold["Primary"]["Hostname"], "db1.example");
        assert_eq!(foretold["WouldFailOver"], false);
        assert_eq!(foretold["Candidate"], json!(null));
        let obstacles = foretold["Obstacles"].as_array().unwrap();
        assert!(
            obstacles
                .iter()
                .any(|why| why.as_str().unwrap().contains("does not use GTID"))
        );
        assert_eq!(
            site.json("/api/v2/would-fail-over").await,
            json!([foretold])
        );
        for path in [
            "/api/replication-analysis/shop",
            "/api/replication-analysis/instance/db1.example/3306",
        ] {
            assert_eq!(site.json(path).await["Details"][0], *entry, "{path}");
        }
        for path in [
            "/api/replication-analysis/instance/lost.example/3306",
            "/api/replication-analysis/other",
        ] {
            assert_eq!(site.json(path).await["Details"], json!([]), "{path}");
        }
    });
}

/// The script of the original cannot be changed where it is installed: how it spells requests, and what it needs of answers.
#[test]
fn the_requests_of_the_original_client_are_understood() {
    run(async {
        let site = site(Fake::new(), Settings::default()).await;
        // A cluster by alias, name, server, and server without its port; a slash behind what was left out.
        for hint in [
            "shop",
            "db1.example:3306",
            "db2.example:3306",
            "db2.example",
            "db1.example%3A3306",
        ] {
            for slash in ["", "/"] {
                let info = site.json(&format!("/api/cluster-info/{hint}{slash}")).await;
                assert_eq!(info["ClusterName"], "db1.example:3306", "{hint}");
            }
        }
        for path in [
            "/api/downtimed/",
            "/api/tagged/?tag=a=b,~c",
            "/api/search?s=",
        ] {
            assert!(site.json(path).await.is_array(), "{path}");
        }
        // Texts of the path are percent-encoded, slashes in them too.
        let begun = site
            .json("/api/begin-downtime/db2.example/3306/an%20na/50%25%20%2F%202/10m")
            .await;
        assert_eq!(begun["Details"]["Hostname"], "db2.example");
        let asked = site.fake.with(|world| world.asked.clone());
        let is_whole = |request: &Request| match request {
            Request::BeginDowntime { owner, reason, .. } => owner == "an na" && reason == "50% / 2",
            _ => false,
        };
        assert!(asked.iter().any(is_whole), "{asked:?}");
        // Tags of `untag` come as they were typed.
        for path in [
            "/api/untag/db2.example/3306?tag=a=b",
            "/api/untag-all?tag=a=b",
        ] {
            assert_eq!(site.json(path).await["Details"], json!([]), "{path}");
        }
        // Whatever is not JSON, or empty, is asked for eight times, or taken for a success.
        for path in [
            "/api/no-such-thing",
            "/api/discover/",
            "/api/begin-downtime/db2.example/3306/o//10m",
            "/api/move-gtid/db2.example/3306/db1.example/3306",
            "/api/heuristic-cluster-pool-instances/shop/",
        ] {
            let received = site.get(path).await;
            assert_eq!(received.json()["Code"], "ERROR", "{path}");
        }
        // Its probe: no more than an answer, and nothing done.
        let before = site.fake.with(|world| world.asked.len());
        for path in ["/", "/api", "/api/"] {
            let received = request(&site.address, "HEAD", path, "").await;
            assert!(!received.status.contains("401"), "{received:?}");
        }
        assert_eq!(site.fake.with(|world| world.asked.len()), before);
    });
}
