//! Daemons that are far from each other: 100 ms from one to another and back, with the values that the README gives for that.

use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{DaemonOptions, Daemons, wait_applied, wait_members};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::network::Network;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, Strike, World};
use serde_json::json;

use super::{DEADLINE, TURN};

const PATIENCE: Duration = Duration::from_secs(60);
const ONE_WAY: Duration = Duration::from_millis(50);
const WATCHED: Duration = Duration::from_secs(20);
/// In one of so many times leadership stays where it is, and every change is taken. A machine that stands still costs it, with
/// these values.
const WINDOWS: usize = 3;

async fn term(daemons: &Daemons) -> u64 {
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let status = leader.status().await.expect("an answer");
    status["Term"].as_u64().expect("a term")
}

/// Leadership stays where it is while changes are asked for and a fleet is watched and repaired; when the leader is killed
/// another one leads, and nothing that was acknowledged is lost.
#[tokio::test]
async fn members_may_be_far_from_each_other() {
    let _turn = TURN.lock().await;
    let network = Network::lay_far(3, ONE_WAY).expect("a network");
    let fleet = Fleet::start(FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    });
    let fleet = fleet.await.expect("a fleet");
    let ports = fleet.ports();
    let _gates: Vec<_> = network
        .machines()
        .iter()
        .flat_map(|machine| {
            ports
                .iter()
                .map(|port| machine.gate(*port).expect("a gate"))
        })
        .collect();
    let mut options = DaemonOptions::default_configuration();
    for (key, value) in [
        ("RaftHeartbeatMillis", json!(300)),
        ("RaftElectionTimeoutMillis", json!(1800)),
    ] {
        options.settings.insert(key.to_owned(), value);
    }
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    let mut world = World::of(fleet, daemons)
        .await
        .expect("a fleet that the daemons know");
    let all = world.daemons.all();
    wait_members(&all.iter().collect::<Vec<_>>(), PATIENCE)
        .await
        .expect("three members");

    // The wire is as long as it should be.
    let [near, far, ..] = network.machines() else {
        panic!("machines");
    };
    let dialling = format!("exec 3<>/dev/tcp/{}/3000", far.address());
    let began = Instant::now();
    let dialled = near.command("bash").args(["-c", &dialling]).status();
    assert!(dialled.expect("bash").success(), "{dialling}");
    assert!(began.elapsed() >= 2 * ONE_WAY, "{:?}", began.elapsed());

    let mut kept = Vec::new();
    let mut asked = 0;
    let mut disturbed = Vec::new();
    loop {
        let before = term(&world.daemons).await;
        let began = Instant::now();
        let (first, mut refused) = (asked, Vec::new());
        while began.elapsed() < WATCHED {
            // Whoever is asked: a follower asks the leader, which asks a majority.
            let daemon = &all[asked % 3];
            let tag = format!("/api/tag/db{asked}/3306?tag=far");
            let reply = daemon.get(&tag, DEADLINE).await.expect("an answer");
            match reply.status {
                200 => kept.push(format!("\"db{asked}\"")),
                502..=504 => refused.push(reply),
                _ => panic!("{reply:?}"),
            }
            asked += 1;
        }
        println!(
            "{} changes, {:?} each",
            asked - first,
            began.elapsed() / u32::try_from(asked - first).expect("few")
        );
        let after = term(&world.daemons).await;
        if before == after && refused.is_empty() {
            break;
        }
        disturbed.push((before, after, refused));
        assert!(disturbed.len() < WINDOWS, "{disturbed:#?}");
    }
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    println!("writable after {:?}", aftermath.writable);
    world.set_primary(aftermath.promoted);

    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.kill().await.expect("killed");
    let killed = Instant::now();
    let next = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    println!("another one leads after {:?}", killed.elapsed());
    let held = until(
        "everything that was acknowledged is there",
        PATIENCE,
        Duration::from_millis(100),
        async || match next.get("/api/tagged?tag=far", DEADLINE).await {
            Ok(reply) if kept.iter().all(|name| reply.body.contains(name)) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    held.await.expect("nothing lost");
    leader.start().expect("started");
    wait_applied(&world.daemons, leader, PATIENCE)
        .await
        .expect("it is back");
}
