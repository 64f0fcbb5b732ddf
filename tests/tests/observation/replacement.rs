//! A member is replaced by restarts while everything goes wrong that may: it is left running, the network is cut, commands
//! are sent, logs are cut to snapshots of before the change, and the newcomer's database is a copy of a member's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use orchestrator_tests::commands::{Acknowledged, Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, Reply, wait_members};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::network::Network;
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

use super::DEADLINE;

/// A change of members that was given up once is tried again after 60 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// Polls, elections and dials happen many times in it.
const WATCHED: Duration = Duration::from_secs(300);
const SOME: usize = 40;
/// So many terms a machine that stands still may cost meanwhile. A stranger that does harm costs dozens.
const TERMS_MAX: u64 = 3;

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

#[tokio::test]
async fn a_member_left_running_is_replaced_under_partitions() {
    let network = Network::lay(4).expect("a network");
    let fleet = FleetOptions {
        flavour: Flavour::MySql,
        servers: 2,
        timing: ReplicationTiming::Quick,
    };
    let fleet = Fleet::start_models(fleet, "shop").await.expect("a fleet");
    let port = fleet.ports()[0];
    let gates: Vec<_> = network
        .machines()
        .iter()
        .map(|machine| machine.gate(port).expect("a gate"))
        .collect();
    // Whatever runs beside it, no member is late for so long: who disturbs them is the stranger.
    let mut options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::steady()
    };
    for (key, value) in [
        ("DiscoverySeeds", json!([format!("127.0.0.1:{port}")])),
        ("InstancePollSeconds", json!(1)),
        ("RaftSnapshotEntries", json!(30)),
        ("RaftLogKeepEntries", json!(10)),
    ] {
        options.settings.insert(key.to_owned(), value);
    }
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    let [n1, n2, n3, n4] = daemons.all() else {
        panic!("four daemons");
    };
    wait_members(&[n1, n2, n3], PATIENCE)
        .await
        .expect("three members");
    let mut acknowledged = Acknowledged::default();

    // Snapshots of before the change; the newcomer gets a copy of a database.
    let commands = Commands::start(&daemons, "before");
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

    // Nobody knows it: it waits, touches nothing, and costs the members nothing.
    let term = async || {
        let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
        let status = leader.status().await.expect("a status");
        status["Term"].as_u64().expect("a term")
    };
    let before = term().await;
    n4.start().expect("started");
    wait_says(n4, "RaftNodes").await;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut looks = 0_u64;
    let mut led: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    while began.elapsed() < WATCHED {
        pace.tick().await;
        looks += 1;
        let mut is_led = false;
        for daemon in [n1, n2, n3] {
            // Term and leadership come in one answer: one may lead later than another was asked.
            let health = ask(daemon, "/api/v2/health").await;
            let health: Value = health.json().expect("a document");
            if health["IsLeading"] == true {
                is_led = true;
                let term = health["Term"].as_u64().expect("a term");
                let node = health["Node"].as_str().expect("a node");
                led.entry(term).or_default().insert(node.to_owned());
            }
        }
        assert!(
            led.values().all(|nodes| nodes.len() == 1),
            "look {looks}: {led:?}"
        );
        if !is_led {
            // The whole machine stood still for longer than a lease lasts; what that cost is counted in the end.
            daemons.wait_leader(PATIENCE).await.expect("a leader");
        }
        let check = ask(n4, "/api/leader-check").await;
        assert_eq!(check.status, 404);
        let health = ask(n4, "/api/raft-health").await;
        assert_eq!(health.status, 500);
        let change = ask(n4, "/api/tag/db1/3306?tag=no").await;
        assert_eq!(change.status, 503, "{change:?}");
        for member in [n1, n2] {
            let peers = ask(member, "/api/raft-peers").await;
            assert!(!peers.body.contains(&n4.raft()), "{peers:?}");
        }
        // Every member takes changes meanwhile.
        if looks.is_multiple_of(10) {
            let path = format!("/api/tag/db{looks}/3306?tag=meanwhile");
            let looked = until(
                "a change",
                PATIENCE,
                Duration::from_millis(100),
                async || match ask(n1, &path).await {
                    change if change.status == 200 => Look::Holds(()),
                    change if matches!(change.status, 502..=504) => Look::not(change.body),
                    change => panic!("{change:?}"),
                },
            );
            looked.await.expect("taken");
        }
    }
    println!("{looks} looks, led: {led:?}");
    assert!(gates[0].connections() > 0);
    assert_eq!(gates[3].connections(), 0, "the stranger dialled the fleet");
    let after = term().await;
    assert!(after <= before + TERMS_MAX, "from {before} to {after}");

    let commands = Commands::start(&daemons, "stranger");
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
