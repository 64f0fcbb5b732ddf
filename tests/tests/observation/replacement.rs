//! A member is replaced by restarts. First while everything goes wrong that may: it is left running, the network is cut, commands
//! are sent, logs are cut to snapshots of before the change, and the newcomer's database is a copy of a member's. Then while
//! nothing goes wrong: neither the newcomer that nobody knows so far nor the former member costs the others an election.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orchestrator_tests::commands::{Acknowledged, Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, Reply, wait_members};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::network::{Gate, Machine, Network};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Map, Value, json};

use super::DEADLINE;

/// A change of members that was given up once is tried again after 60 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// Polls, elections and dials of a stranger happen many times in it.
const WATCHED: Duration = Duration::from_secs(300);
/// Those of a former member some times: it is three of its election timeouts.
const WATCHED_AFTER: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(100);
/// A leader is given up after 60 % of it, less a heartbeat: no machine stands still for so long, and who costs a term is a daemon.
const PATIENT_MILLIS: u64 = 20_000;
const SOME: usize = 40;

async fn ask(daemon: &Daemon, path: &str) -> Reply {
    daemon.get(path, DEADLINE).await.expect("an answer")
}

async fn wait_says(daemon: &Daemon, wanted: &str) {
    let what = format!("{} says '{wanted}'", daemon.url());
    let looked = until(
        &what,
        PATIENCE,
        Duration::from_millis(50),
        async || match daemon.get("/api/raft-health", DEADLINE).await {
            Ok(reply) if reply.body.contains(wanted) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect(&what);
}

/// Four machines, each with a way to a model fleet's primary, and daemons on them of which the last is no member.
struct Site {
    daemons: Daemons,
    /// In the order of the machines.
    gates: Vec<Gate>,
    _fleet: Fleet,
    network: Network,
}

impl Site {
    /// With these settings beside those that make daemons steady, and those of single ones.
    async fn build(settings: &Value, own: Vec<Map<String, Value>>) -> Site {
        let network = Network::lay(4).expect("a network");
        let fleet = FleetOptions {
            flavour: Flavour::MySql,
            servers: 2,
            timing: ReplicationTiming::Quick,
        };
        let fleet = Fleet::start_models(fleet, "shop").await.expect("a fleet");
        let port = fleet.ports()[0];
        let gate = |machine: &Machine| machine.gate(port).expect("a gate");
        let gates = network.machines().iter().map(gate).collect();
        let mut options = DaemonOptions {
            spare: 1,
            own,
            ..DaemonOptions::steady()
        };
        for (key, value) in [
            ("DiscoverySeeds", json!([format!("127.0.0.1:{port}")])),
            ("InstancePollSeconds", json!(1)),
        ] {
            options.settings.insert(key.to_owned(), value);
        }
        let settings = settings.as_object().expect("an object").clone();
        options.settings.extend(settings);
        let daemons = Daemons::start_on(&network, &options).expect("daemons");
        wait_members(&all(&daemons)[..3], PATIENCE)
            .await
            .expect("three members");
        Site {
            daemons,
            gates,
            _fleet: fleet,
            network,
        }
    }

    /// Waits until the daemon of this machine has read the fleet.
    async fn wait_reads(&self, machine: usize) {
        let what = format!("{machine} has dialled the fleet");
        let looked = until(&what, PATIENCE, PACE, async || {
            match self.gates[machine].connections() {
                0 => Look::not("it has not"),
                _ => Look::Holds(()),
            }
        });
        looked.await.expect("a connection");
    }
}

fn all(daemons: &Daemons) -> Vec<&Daemon> {
    daemons.all().iter().collect()
}

#[tokio::test]
async fn a_member_left_running_is_replaced_under_partitions() {
    let logs = json!({"RaftSnapshotEntries": 30, "RaftLogKeepEntries": 10});
    let site = Site::build(&logs, Vec::new()).await;
    let (network, daemons) = (&site.network, &site.daemons);
    let [n1, n2, n3, n4] = all(daemons)[..] else {
        panic!("four daemons");
    };
    let mut acknowledged = Acknowledged::default();

    // Snapshots of before the change; the newcomer gets a copy of a database.
    let commands = Commands::start(daemons, "before");
    commands
        .wait_more(2 * SOME, PATIENCE)
        .await
        .expect("acknowledged");
    acknowledged.take_in(commands.end().await);
    let copy = n1.copy_database("copy.db").expect("a copy");
    n4.put_database(&copy).expect("put");
    for daemon in [n1, n2, n4] {
        daemon.set_nodes(&[n1, n2, n4]).expect("written");
    }

    n4.start().expect("started");
    wait_says(n4, "RaftNodes").await;
    assert_eq!(site.gates[3].connections(), 0);
    let commands = Commands::start(daemons, "stranger");
    // The first reaches the leader alone when it comes back, then nobody but the newcomer.
    n1.signal(Signal::Terminate);
    n1.wait_ended(PATIENCE).await.expect("ended");
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let (leads, other) = if leader.http() == n2.http() {
        (1, 2)
    } else {
        (2, 1)
    };
    network.cut(0, other).expect("cut");
    n1.start().expect("started");
    n1.wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    network.cut(0, leads).expect("cut");
    n2.kill().await.expect("killed");
    n2.start().expect("started");
    n2.wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    n1.wait_status("/api/raft-health", 500, PATIENCE)
        .await
        .expect("so");
    network.join(0, 1).expect("joined");
    network.isolate(2).expect("cut");
    wait_members(&[n1, n2, n4], PATIENCE)
        .await
        .expect("the members are changed");
    network.rejoin(2).expect("joined");
    wait_says(n3, "no member has").await;
    site.wait_reads(3).await;

    // Any of them may be lost, with what the newcomer was told of the members; nobody brings the former one back.
    commands
        .wait_more(SOME, PATIENCE)
        .await
        .expect("acknowledged");
    for lost in [n4, n1, n2] {
        lost.kill().await.expect("killed");
        commands
            .wait_more(SOME, PATIENCE)
            .await
            .expect("acknowledged");
        lost.start().expect("started");
        wait_members(&[n1, n2, n4], PATIENCE)
            .await
            .expect("the members stay");
    }
    acknowledged.take_in(commands.end().await);
    for daemon in [n1, n2, n4] {
        let what = format!("{} holds everything", daemon.url());
        let looked = until(
            &what,
            PATIENCE,
            Duration::from_millis(50),
            async || match held_in_file(daemon).map(|held| acknowledged.wrongs(&held)) {
                Ok(wrongs) if wrongs.is_empty() => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        );
        looked.await.expect(&what);
        let log = std::fs::read_to_string(daemon.log()).expect("a log");
        assert!(
            daemon.http() != n4.http() || log.contains("a snapshot was received"),
            "{log}"
        );
    }
    assert_eq!(acknowledged.split(), []);
    println!(
        "{} commands, led: {:?}",
        acknowledged.count, acknowledged.led
    );
}

/// Who leads by what each of these says of itself, and the terms that they are in.
async fn look(members: &[&Daemon]) -> (Vec<String>, BTreeSet<u64>) {
    let (mut led, mut terms) = (Vec::new(), BTreeSet::new());
    for member in members {
        let check = ask(member, "/api/leader-check").await;
        // Term and leadership come in one answer.
        let health = ask(member, "/api/v2/health").await;
        let health: Value = health.json().expect("a document");
        let leads = health["IsLeading"] == true;
        let status = if leads { 200 } else { 404 };
        assert_eq!(check.status, status, "{check:?}, {health:#}");
        if leads {
            led.push(health["Node"].as_str().expect("a node").to_owned());
        }
        terms.insert(health["Term"].as_u64().expect("a term"));
    }
    (led, terms)
}

/// Nobody strikes anything for so long: at each look the same one leads, alone and in the same term, and does what each of them
/// is asked for. Whoever is no member leads nobody, says that it is not well, and is named to nobody.
async fn assert_undisturbed(
    members: &[&Daemon],
    outsider: &Daemon,
    long: Duration,
    name: &str,
    mut also: impl AsyncFnMut(),
) {
    let before = look(members).await;
    assert_eq!((before.0.len(), before.1.len()), (1, 1), "{before:?}");
    let began = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    let mut looks = 0;
    while began.elapsed() < long {
        pace.tick().await;
        looks += 1;
        assert_eq!(look(members).await, before, "look {looks}");
        let check = ask(outsider, "/api/leader-check").await;
        assert_eq!(check.status, 404);
        let health = ask(outsider, "/api/raft-health").await;
        assert_eq!(health.status, 500);
        also().await;
        for member in members {
            let peers = ask(member, "/api/raft-peers").await;
            assert!(!peers.body.contains(&outsider.raft()), "{peers:?}");
        }
        if looks % 10 == 0 {
            let member = members[looks / 10 % members.len()];
            let change = ask(member, &format!("/api/tag/db{looks}/3306?tag={name}")).await;
            assert_eq!(change.status, 200, "look {looks}: {change:?}");
        }
    }
    println!("{looks} looks beside the {name}, led: {before:?}");
}

/// A newcomer that no member knows waits for five minutes, and would campaign many times a second; then it takes the place of a
/// member that is left running. Neither costs the members a term, or a moment without their leader.
#[tokio::test]
async fn a_stranger_and_a_former_member_disturb_nobody() {
    let timers = json!({"RaftHeartbeatMillis": 300, "RaftElectionTimeoutMillis": PATIENT_MILLIS});
    let hasty = json!({"RaftHeartbeatMillis": 50, "RaftElectionTimeoutMillis": 250});
    let mut own = vec![Map::new(); 3];
    own.push(hasty.as_object().expect("an object").clone());
    let site = Site::build(&timers, own).await;
    let [n1, n2, n3, n4] = all(&site.daemons)[..] else {
        panic!("four daemons");
    };
    let copy = n1.copy_database("copy.db").expect("a copy");
    n4.put_database(&copy).expect("put");
    for daemon in [n1, n2, n4] {
        daemon.set_nodes(&[n1, n2, n4]).expect("written");
    }
    n4.start().expect("started");
    wait_says(n4, "RaftNodes").await;
    site.wait_reads(0).await;
    let refuses = async || {
        let change = ask(n4, "/api/tag/db1/3306?tag=no").await;
        assert_eq!(change.status, 503, "{change:?}");
    };
    assert_undisturbed(&[n1, n2, n3], n4, WATCHED, "stranger", refuses).await;
    assert_eq!(
        site.gates[3].connections(),
        0,
        "the stranger dialled the fleet"
    );
    let log = std::fs::read_to_string(n4.log()).expect("a log");
    assert!(log.contains("RaftNodes"), "{log}");

    // As a member it has their timers.
    let led = look(&[n1, n2, n3]).await;
    n4.signal(Signal::Terminate);
    n4.wait_ended(PATIENCE).await.expect("ended");
    for (key, value) in timers.as_object().expect("an object") {
        n4.set(key, value.clone()).expect("written");
    }
    n4.start().expect("started");
    wait_says(n4, "RaftNodes").await;
    assert_eq!(look(&[n1, n2, n3]).await, led);

    for member in [n1, n2] {
        member.restart(PATIENCE).await.expect("restarted");
    }
    wait_members(&[n1, n2, n4], PATIENCE)
        .await
        .expect("the members are changed");
    wait_says(n3, "no member has").await;
    site.wait_reads(3).await;
    // It knows who leads, and passes on what it is asked for.
    let nothing = async || {};
    assert_undisturbed(&[n1, n2, n4], n3, WATCHED_AFTER, "former-member", nothing).await;
}
