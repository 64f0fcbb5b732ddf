//! Daemons on machines of their own, and networks that are cut between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, get};
use orchestrator_tests::network::Network;
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

use super::{DEADLINE, PATIENCE, TURN};

/// How long somebody who looks waits for an answer; less than it takes to lead again.
const GLANCE: Duration = Duration::from_millis(500);
/// Within this a change is answered, whatever happens to the network.
const ANSWERED: Duration = Duration::from_secs(15);

fn start(network: &Network) -> Daemons {
    Daemons::start_on(network, &DaemonOptions::default_configuration()).expect("daemons")
}

/// Waits until one leads and all know it; its place.
async fn wait_whole(daemons: &Daemons) -> usize {
    for daemon in daemons.all() {
        wait_status(daemon, "/api/raft-health", 200, PATIENCE).await;
    }
    let leader = daemons
        .wait_leader(PATIENCE)
        .await
        .expect("a leader")
        .http();
    let place = daemons
        .all()
        .iter()
        .position(|daemon| daemon.http() == leader);
    place.expect("one of them")
}

async fn wait_status(daemon: &Daemon, path: &str, wanted: u16, patience: Duration) {
    let what = format!("{wanted} of {}{path}", daemon.url());
    let looked = until(
        &what,
        patience,
        Duration::from_millis(50),
        async || match daemon.get(path, DEADLINE).await {
            Ok(reply) if reply.status == wanted => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect(&what);
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
    let led = wait_whole(&daemons).await;
    let follower = (led + 1) % 3;

    // A follower.
    network.isolate(follower).expect("cut");
    let cut = Instant::now();
    wait_status(
        &all[follower],
        "/api/raft-health",
        500,
        Duration::from_secs(5),
    )
    .await;
    println!(
        "a follower knows after {:?} that it is cut off",
        cut.elapsed()
    );
    wait_status(&all[led], "/api/raft-health", 200, Duration::ZERO).await;
    // For a moment it still tries the last leader it heard, which it does not reach.
    let stranded = "/api/tag/db1/3306?tag=stranded";
    let reply = all[follower].get(stranded, ANSWERED).await;
    let reply = reply.expect("an answer");
    assert!(matches!(reply.status, 502..=504), "{reply:?}");
    wait_status(&all[follower], "/api/routed-leader-check", 404, PATIENCE).await;
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
    wait_status(&all[follower], "/api/raft-health", 200, PATIENCE).await;
    let after = all[led]
        .get("/api/v2/health", DEADLINE)
        .await
        .expect("an answer");
    let after = after.json().expect("a document")["Term"].clone();
    assert_eq!(term, after, "its return cost a term");
    assert!(!tagged(&all[led], "stranded").await);

    // The leader, which is asked for a change at the moment of the cut, and after it.
    let led = wait_whole(&daemons).await;
    let leader = &all[led];
    network.isolate(led).expect("cut");
    let cut = Instant::now();
    let (one, other) = tokio::join!(
        leader.get("/api/tag/db1/3306?tag=at-once", ANSWERED),
        async {
            wait_status(leader, "/api/leader-check", 404, Duration::from_secs(5)).await;
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
    wait_status(leader, "/api/raft-health", 500, Duration::from_secs(5)).await;
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
    wait_status(leader, "/api/raft-health", 200, PATIENCE).await;
    wait_whole(&daemons).await;
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
    let led = wait_whole(&daemons).await;
    for other in [(led + 1) % 3, (led + 2) % 3] {
        network.cut_one_way(other, led).expect("cut");
    }
    wait_status(&all[led], "/api/leader-check", 404, Duration::from_secs(5)).await;
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

/// Under kills and cuts of every kind no two daemons say that they lead in one term, and no two say so at one time.
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
        let led = wait_whole(&daemons).await;
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
        let leads = wait_whole(&daemons).await;
        match how {
            "anybody" => assert_ne!(leads, led),
            _ => assert_eq!(leads, to, "{how}: {}", asked.1),
        }
    }

    // It stays where it is.
    let led = wait_whole(&daemons).await;
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
    assert_eq!(wait_whole(&daemons).await, led);

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

#[tokio::test]
async fn never_two_leaders_whatever_is_cut_or_killed() {
    let _turn = TURN.lock().await;
    let network = Network::lay(3).expect("a network");
    let daemons = start(&network);
    wait_whole(&daemons).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut lookers = Vec::new();
    for (place, daemon) in daemons.all().iter().enumerate() {
        let (address, ended) = (daemon.http(), ended.clone());
        lookers.push(tokio::spawn(async move {
            let mut led: Vec<(u64, Instant, Instant)> = Vec::new();
            let mut looks = 0;
            while !ended.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // Term and leadership in one answer, and the answer that proxies go by.
                if let Ok(reply) = get(address, "/api/v2/health", GLANCE).await
                    && let Ok(health) = reply.json()
                    && health["IsLeading"] == Value::Bool(true)
                {
                    let term = health["Term"].as_u64().expect("a term");
                    led.push((term, asked, Instant::now()));
                }
                if let Ok(reply) = get(address, "/api/leader-check", GLANCE).await {
                    let wanted = if reply.status == 200 {
                        "\"OK\""
                    } else {
                        "\"Not leader\""
                    };
                    assert_eq!(reply.body, wanted);
                    looks += 1;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (place, looks, led)
        }));
    }
    // Each kind of trouble twice, at whoever leads.
    for round in 0..10 {
        let led = daemons
            .wait_leader(PATIENCE)
            .await
            .expect("a leader")
            .http();
        let led = daemons.all().iter().position(|daemon| daemon.http() == led);
        let led = led.expect("one of them");
        let (one, other) = ((led + 1) % 3, (led + 2) % 3);
        let leader = &daemons.all()[led];
        match round % 5 {
            0 => network.isolate(led).expect("cut"),
            1 => drop(leader.signal(Signal::Kill)),
            2 => network.cut(led, one).expect("cut"),
            3 => {
                network.cut_one_way(led, one).expect("cut");
                network.cut_one_way(led, other).expect("cut");
            }
            _ => drop(leader.signal(Signal::Stop)),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        match round % 5 {
            0 => network.rejoin(led).expect("joined"),
            1 => leader.start().expect("started"),
            2 => network.join(led, one).expect("joined"),
            3 => {
                for machine in [one, other] {
                    let address = network.machines()[machine].address();
                    network.machines()[led].finds(address).expect("joined");
                }
            }
            _ => drop(leader.signal(Signal::Continue)),
        }
        wait_whole(&daemons).await;
    }
    ended.store(true, Ordering::Relaxed);
    let mut by_term: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut all, mut looks) = (Vec::new(), 0);
    for looker in lookers {
        let (place, looked, led) = looker.await.expect("it ends");
        looks += looked;
        for (term, asked, answered) in led {
            let first = *by_term.entry(term).or_insert(place);
            assert_eq!(first, place, "two lead in term {term}");
            all.push((asked, answered, place, term));
        }
    }
    println!("{looks} looks, {} terms: {by_term:?}", by_term.len());
    assert!(by_term.len() >= 5, "{by_term:?}");
    // Each answer holds for some moment between its request and itself: one leader's moments end before another's begin.
    all.sort();
    let mut ends: BTreeMap<u64, Instant> = BTreeMap::new();
    for (asked, answered, _, term) in all {
        let later = ends.range(term + 1..).map(|(_, at)| *at).min();
        assert!(
            later.is_none_or(|later| asked < later),
            "term {term} led after a later one did"
        );
        ends.entry(term).or_insert(answered);
    }
}
