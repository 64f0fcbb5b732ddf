//! Daemons on machines of their own, and networks that are cut between them.

use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::network::Network;
use orchestrator_tests::wait::{Look, until};
use serde_json::json;

use super::{DEADLINE, PATIENCE, TURN};

/// Within this a change is answered, whatever happens to the network.
const ANSWERED: Duration = Duration::from_secs(15);

fn start(network: &Network) -> Daemons {
    let mut options = DaemonOptions::default_configuration();
    // Terms and leaders are compared: a machine that stands still for a moment is to cost none.
    for (key, value) in [
        ("RaftHeartbeatMillis", 100),
        ("RaftElectionTimeoutMillis", 1_000),
    ] {
        options.settings.insert(key.to_owned(), value.into());
    }
    Daemons::start_on(network, &options).expect("daemons")
}

async fn tagged(daemon: &Daemon, tag: &str) -> bool {
    let reply = daemon
        .get(&format!("/api/tagged?tag={tag}"), DEADLINE)
        .await;
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body.contains("Hostname")
}

/// A daemon that is cut off says so, and takes no change; what the others decide meanwhile it learns when it is back. Cut off
/// or not, a change is answered, and never with OK by a leader that lost its quorum.
#[tokio::test]
async fn whoever_is_cut_off_says_so_and_changes_nothing() {
    let _turn = TURN.lock().await;
    let network = Network::lay(3).expect("a network");
    let daemons = start(&network);
    let all = daemons.all();
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let follower = (led + 1) % 3;

    // A follower.
    network.isolate(follower).expect("cut");
    let cut = Instant::now();
    all[follower]
        .wait_status("/api/raft-health", 500, Duration::from_secs(5))
        .await
        .expect("so");
    println!(
        "a follower knows after {:?} that it is cut off",
        cut.elapsed()
    );
    all[led]
        .wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    // For a moment it still tries the last leader it heard, which it does not reach.
    let stranded = "/api/tag/db1/3306?tag=stranded";
    let reply = all[follower].get(stranded, ANSWERED).await;
    let reply = reply.expect("an answer");
    assert!(matches!(reply.status, 502..=504), "{reply:?}");
    all[follower]
        .wait_status("/api/routed-leader-check", 404, PATIENCE)
        .await
        .expect("so");
    let reply = all[follower].get(stranded, ANSWERED).await;
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.body.contains("nothing was done"), "{}", reply.body);
    let term = all[led]
        .get("/api/v2/health", DEADLINE)
        .await
        .expect("an answer");
    let term = term.json().expect("a document")["Term"].clone();
    network.rejoin(follower).expect("joined");
    all[follower]
        .wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    let after = all[led]
        .get("/api/v2/health", DEADLINE)
        .await
        .expect("an answer");
    let after = after.json().expect("a document")["Term"].clone();
    assert_eq!(term, after, "its return cost a term");
    assert!(!tagged(&all[led], "stranded").await);

    // The leader, which is asked for a change at the moment of the cut, and after it.
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let leader = &all[led];
    network.isolate(led).expect("cut");
    let cut = Instant::now();
    let (one, other) = tokio::join!(
        leader.get("/api/tag/db1/3306?tag=at-once", ANSWERED),
        async {
            leader
                .wait_status("/api/leader-check", 404, Duration::from_secs(5))
                .await
                .expect("so");
            println!(
                "a leader knows after {:?} that it is cut off",
                cut.elapsed()
            );
            leader.get("/api/tag/db1/3306?tag=later", ANSWERED).await
        }
    );
    let (one, other) = (one.expect("an answer"), other.expect("an answer"));
    assert!(one.status == 503 || one.status == 504, "{one:?}");
    assert_eq!(other.status, 503, "{other:?}");
    leader
        .wait_status("/api/raft-health", 500, Duration::from_secs(5))
        .await
        .expect("so");
    let looked = until(
        "another one leads",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            for (place, daemon) in all.iter().enumerate() {
                if place != led && daemon.is_leader().await {
                    return Look::Holds(place);
                }
            }
            Look::not("none")
        },
    );
    let next = looked.await.expect("a leader");
    println!("another one leads after {:?}", cut.elapsed());
    let reply = all[next]
        .get("/api/tag/db1/3306?tag=meanwhile", DEADLINE)
        .await;
    assert_eq!(reply.expect("an answer").status, 200);
    network.rejoin(led).expect("joined");
    leader
        .wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    daemons.wait_whole(PATIENCE).await.expect("whole");
    let mut held = Vec::new();
    for daemon in all {
        assert!(tagged(daemon, "meanwhile").await);
        assert!(!tagged(daemon, "later").await);
        held.push(tagged(daemon, "at-once").await);
    }
    // Refused is nowhere; what is not known is everywhere or nowhere.
    assert!(held.iter().all(|is_held| *is_held == held[0]), "{held:?}");
    assert!(one.status == 504 || !held[0], "{one:?}");

    // Members that the leader does not reach, and that reach it: one way is not enough to lead.
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    for other in [(led + 1) % 3, (led + 2) % 3] {
        network.cut_one_way(other, led).expect("cut");
    }
    all[led]
        .wait_status("/api/leader-check", 404, Duration::from_secs(5))
        .await
        .expect("so");
    let looked = until(
        "another one leads",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            for (place, daemon) in all.iter().enumerate() {
                if place != led && daemon.is_leader().await {
                    return Look::Holds(());
                }
            }
            Look::not("none")
        },
    );
    looked.await.expect("a leader");
}

/// Leadership goes where people ask for it, by address or host name, and nowhere when nobody is there who is meant.
#[tokio::test]
async fn leadership_goes_where_it_is_asked_to() {
    let _turn = TURN.lock().await;
    let network = Network::lay(3).expect("a network");
    let daemons = start(&network);
    let ask = async |place: usize, path: &str| {
        let reply = daemons.all()[place].get(path, DEADLINE).await;
        let reply = reply.expect("an answer");
        (reply.status, reply.body)
    };
    // Members are known by name a moment after the cluster was formed.
    let looked = until(
        "every member has a name",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            for daemon in daemons.all() {
                let status = match daemon.status().await {
                    Ok(status) => status,
                    Err(error) => return Look::not(format!("{error:#}")),
                };
                let members = status["Members"].as_array().cloned().unwrap_or_default();
                if members.len() < 3 || members.iter().any(|member| member["Hostname"] == "") {
                    return Look::not(format!("{members:?}"));
                }
            }
            Look::Holds(())
        },
    );
    looked.await.expect("names");
    for how in ["address", "host name", "client", "anybody"] {
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        let to = (led + 1) % 3;
        let wanted = &daemons.all()[to];
        let name = network.machines()[to].host_name();
        let asked = match how {
            "address" => ask(led, &format!("/api/raft-yield/{}", wanted.address())).await,
            "host name" => ask(led, &format!("/api/raft-yield-hint/{name}")).await,
            "client" => {
                let client = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../runtime/packaging/bin/orchestrator-client");
                let apis: Vec<String> = daemons.all().iter().map(Daemon::url).collect();
                let output = tokio::process::Command::new(client)
                    .env("ORCHESTRATOR_API", apis.join(" "))
                    .args(["-c", "raft-elect-leader", "-H", name])
                    .output();
                let output = output.await.expect("the client");
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                (if output.status.success() { 200 } else { 500 }, said)
            }
            // By way of a follower.
            _ => ask(to, "/api/reelect").await,
        };
        assert_eq!(asked.0, 200, "{how}: {}", asked.1);
        let leads = daemons.wait_whole(PATIENCE).await.expect("whole");
        match how {
            "anybody" => assert_ne!(leads, led),
            _ => assert_eq!(leads, to, "{how}: {}", asked.1),
        }
    }

    // It stays where it is.
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let (status, said) = ask((led + 1) % 3, "/api/raft-yield-hint/x").await;
    assert!(status == 503 && said.contains("does not lead"), "{said}");
    for path in [
        "/api/raft-yield-hint/nobody",
        "/api/raft-yield/10.9.9.9",
        "/api/grab-election",
    ] {
        let (status, said) = ask(led, path).await;
        assert_eq!(status, 500, "{path}: {said}");
    }
    let own = format!(
        "/api/raft-yield-hint/{}",
        network.machines()[led].host_name()
    );
    assert_eq!(ask(led, &own).await.0, 200);
    assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), led);

    // Each daemon writes a snapshot, and reads its own file again.
    for (place, daemon) in daemons.all().iter().enumerate() {
        let (status, said) = ask(place, "/api/raft-snapshot").await;
        assert_eq!((status, said.as_str()), (200, "\"snapshot created\""));
        let mut files = std::fs::read_dir(daemon.folder().join("raft")).expect("files");
        assert!(
            files.any(|file| file
                .is_ok_and(|file| { file.file_name().to_string_lossy().contains("snapshot") })),
            "{place} has no snapshot"
        );
        daemon.set("ListenAddress", ":1").expect("written");
        daemon
            .set("RecoverMasterClusterFilters", json!(["shop"]))
            .expect("written");
        let (status, said) = ask(place, "/api/reload-configuration").await;
        assert!(status == 200 && said.contains("ListenAddress"), "{said}");
    }
    let looked = until(
        "the filters are obeyed",
        PATIENCE,
        Duration::from_millis(50),
        async || match ask(led, "/api/automated-recovery-filters").await {
            (200, said) if said.contains("shop") => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("obeyed");
    daemons.all()[led]
        .set("RecoverMasterClusterFilters", json!(7))
        .expect("written");
    let (status, said) = ask(led, "/api/reload-configuration").await;
    assert!(
        status == 500 && said.contains("RecoverMasterClusterFilters"),
        "{said}"
    );
    assert!(daemons.all()[led].is_running());
}
