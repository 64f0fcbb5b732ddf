//! Daemons on machines of their own, and networks that are cut between them.

use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_applied};
use orchestrator_tests::network::{Firewall, Machine, Network};
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

use super::{DEADLINE, TURN};

/// Who is cut off, and who leads instead, is known after some of the daemons' election timeouts.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within this a change is answered, whatever happens to the network.
const ANSWERED: Duration = Duration::from_secs(40);
/// `DefaultRaftPort` of these daemons, and the port of their API.
const RAFT_PORT: u16 = 10_008;
const HTTP_PORT: u16 = 3000;
/// Leadership is handed over in one of so many attempts.
const ATTEMPTS: usize = 3;
/// The machine on which no daemon runs.
const CLIENT: usize = 3;
/// The pairs of daemons.
const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

fn start(network: &Network) -> Daemons {
    // Terms and leaders are compared: a machine that stands still for a moment is to cost none.
    let mut options = DaemonOptions::steady();
    // Each request is in the log of whoever was asked.
    options.settings.insert(String::from("Debug"), true.into());
    Daemons::start_on(network, &options).expect("daemons")
}

async fn tagged(daemon: &Daemon, tag: &str) -> bool {
    let path = format!("/api/tagged?tag={tag}");
    let pace = Duration::from_millis(50);
    let looked = until(&path, PATIENCE, pace, async || {
        match daemon.get(&path, DEADLINE).await {
            Ok(reply) if reply.status == 200 => Look::Holds(reply.body.contains("Hostname")),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("an answer")
}

/// Waits until another one than `led` leads; its place.
async fn wait_another_leads(daemons: &Daemons, led: usize) -> usize {
    let looked = until(
        "another one leads",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            for (place, daemon) in daemons.all().iter().enumerate() {
                if place != led && daemon.is_running() && daemon.is_leader().await {
                    return Look::Holds(place);
                }
            }
            Look::not("none")
        },
    );
    looked.await.expect("a leader")
}

async fn term(daemon: &Daemon) -> Value {
    let health = daemon.get("/api/v2/health", DEADLINE).await;
    health.expect("an answer").json().expect("a document")["Term"].clone()
}

/// What the client prints on a machine, when it knows these daemons.
async fn client(machine: &Machine, daemons: &[&Daemon], arguments: &[&str]) -> String {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/bin/orchestrator-client");
    let apis: Vec<String> = daemons.iter().map(|daemon| daemon.url()).collect();
    let output = tokio::process::Command::from(machine.command(script))
        .args(arguments)
        .env("ORCHESTRATOR_API", apis.join(" "))
        .env("ORCHESTRATOR_CLIENT_PROFILE", "/nonexistent")
        .env("ORCHESTRATOR_CLIENT_PATIENCE", "60")
        .output()
        .await
        .expect("bash, curl and jq; type:  tests/setup.sh client");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything works where daemons reach each other's raft port and nothing else, and a client's machine reaches their API and
/// nothing else; where they reach each other's API too, each of them takes what a client asks for and passes it on.
async fn works_behind_firewalls(network: &Network, daemons: &Daemons) {
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let machine = &network.machines()[CLIENT];
    let (raft, http) = (Firewall::Only(&[RAFT_PORT]), Firewall::Only(&[HTTP_PORT]));
    for (one, other) in PAIRS {
        network.put(one, other, raft).expect("firewalls");
    }
    for place in 0..3 {
        network.put(place, CLIENT, http).expect("firewalls");
    }
    // The raft port is not there for the client, and the API is.
    for (port, code) in [(RAFT_PORT, 28), (HTTP_PORT, 0)] {
        let url = format!("http://{}:{port}/api/lb-check", all[0].address());
        let seconds = if code == 0 { "20" } else { "1" };
        let ended = tokio::process::Command::from(machine.command("curl"))
            .args(["--silent", "--output", "/dev/null"])
            .args(["--connect-timeout", seconds, &url])
            .status();
        let ended = ended.await.expect("curl; type:  tests/setup.sh client");
        assert_eq!(ended.code(), Some(code), "{url}");
    }
    let tag = ["-c", "tag", "-i", "db1", "-t", "by-client"];
    assert_eq!(client(machine, &all, &tag).await, "db1:3306\n");
    // So much is open that leaders are elected, and that whoever comes back catches up.
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    all[led].kill().await.expect("killed");
    let tag = ["-c", "tag", "-i", "db2", "-t", "by-client"];
    assert_eq!(client(machine, &all, &tag).await, "db2:3306\n");
    all[led].start().expect("started");
    let looked = wait_applied(daemons, all[led], PATIENCE).await;
    looked.expect("it catches up");
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");

    let both = Firewall::Only(&[RAFT_PORT, HTTP_PORT]);
    for (one, other) in PAIRS {
        network.remove(one, other, raft).expect("firewalls");
        network.put(one, other, both).expect("firewalls");
    }
    let mut passed_on = 0;
    for (place, daemon) in all.iter().enumerate() {
        let server = format!("passed-on-by-{place}");
        let tag = ["-c", "tag", "-i", &server, "-t", "by-client"];
        let said = client(machine, &[daemon], &tag).await;
        assert_eq!(said, format!("{server}:3306\n"));
        let asked_in = |daemon: &Daemon| {
            let log = std::fs::read_to_string(daemon.log()).expect("a log");
            let line = log.lines().find(|line| line.contains(&server));
            line.map(str::to_owned)
        };
        // Whoever else was asked led; where nobody else was, this one did.
        let mut others = all.iter().filter(|other| other.http() != daemon.http());
        let by_another = others.find_map(|other| asked_in(other));
        let from = if by_another.is_some() { place } else { CLIENT };
        passed_on += usize::from(by_another.is_some());
        let asked = by_another.or_else(|| asked_in(daemon));
        let asked = asked.expect("the leader was asked");
        let from = format!("peer={}", network.machines()[from].address());
        assert!(asked.contains(&from), "not {from}: {asked}");
    }
    let leads = daemons.wait_whole(PATIENCE).await.expect("whole");
    assert!(passed_on == 2 || leads != led, "{passed_on} passed it on");
    for (one, other) in PAIRS {
        network.remove(one, other, both).expect("firewalls");
    }
    for place in 0..3 {
        network.remove(place, CLIENT, http).expect("firewalls");
    }
}

/// A daemon whose raft port is blocked, and which the others reach otherwise, says that it is cut off, and takes no change; the
/// others go on, be it a follower or the leader.
async fn is_cut_off_without_its_raft_port(network: &Network, daemons: &Daemons) {
    let all = daemons.all();
    let ask = async |place: usize, path: &str| {
        let reply = all[place].get(path, ANSWERED).await;
        reply.expect("an answer")
    };
    for is_leader in [false, true] {
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        let struck = if is_leader { led } else { (led + 1) % 3 };
        let others = [(struck + 1) % 3, (struck + 2) % 3];
        let before = term(&all[led]).await;
        for other in others {
            let blocked = Firewall::Without(RAFT_PORT);
            network.put(struck, other, blocked).expect("blocked");
        }
        all[struck]
            .wait_status("/api/raft-health", 500, PATIENCE)
            .await
            .expect("unhealthy");
        let leads = if is_leader {
            wait_another_leads(daemons, led).await
        } else {
            led
        };
        for other in others {
            all[other]
                .wait_status("/api/routed-leader-check", 200, PATIENCE)
                .await
                .expect("it knows the leader");
            for path in ["/api/raft-health", "/api/tag/db1/3306?tag=with-two"] {
                all[other]
                    .wait_status(path, 200, PATIENCE)
                    .await
                    .expect("the others go on");
            }
        }
        // It reaches the API of the last leader it heard, for as long as it takes that for the leader.
        all[struck]
            .wait_status("/api/routed-leader-check", 404, PATIENCE)
            .await
            .expect("it knows no leader");
        let reply = ask(struck, "/api/tag/db1/3306?tag=alone").await;
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert!(reply.body.contains("nothing was done"), "{}", reply.body);
        for other in others {
            let blocked = Firewall::Without(RAFT_PORT);
            network.remove(struck, other, blocked).expect("opened");
        }
        assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), leads);
        if !is_leader {
            assert_eq!(term(&all[led]).await, before, "its return cost a term");
        }
        assert!(tagged(&all[struck], "with-two").await);
        assert!(!tagged(&all[struck], "alone").await);
    }
}

/// A daemon that is cut off says so, and takes no change; what the others decide meanwhile it learns when it is back. Cut off
/// or not, a change is answered, and never with OK by a leader that lost its quorum.
#[tokio::test]
async fn whoever_is_cut_off_says_so_and_changes_nothing() {
    let _turn = TURN.lock().await;
    let network = Network::lay(4).expect("a network");
    let daemons = start(&network);
    let all = daemons.all();
    daemons.wait_whole(PATIENCE).await.expect("whole");
    let began = Instant::now();
    is_cut_off_without_its_raft_port(&network, &daemons).await;
    println!("ports are blocked for {:?}", began.elapsed());
    works_behind_firewalls(&network, &daemons).await;
    println!("firewalls are up until {:?}", began.elapsed());
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let follower = (led + 1) % 3;

    // A follower.
    network.isolate(follower).expect("cut");
    let cut = Instant::now();
    all[follower]
        .wait_status("/api/raft-health", 500, PATIENCE)
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
    let before = term(&all[led]).await;
    network.rejoin(follower).expect("joined");
    all[follower]
        .wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("so");
    assert_eq!(term(&all[led]).await, before, "its return cost a term");
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
                .wait_status("/api/leader-check", 404, PATIENCE)
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
        .wait_status("/api/raft-health", 500, PATIENCE)
        .await
        .expect("so");
    let next = wait_another_leads(&daemons, led).await;
    println!("another one leads after {:?}", cut.elapsed());
    all[next]
        .wait_status("/api/tag/db1/3306?tag=meanwhile", 200, PATIENCE)
        .await
        .expect("taken");
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
        .wait_status("/api/leader-check", 404, PATIENCE)
        .await
        .expect("so");
    wait_another_leads(&daemons, led).await;
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
        // Who is asked to lead and stands still meanwhile does not.
        let mut attempts = Vec::new();
        loop {
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
                        .env("ORCHESTRATOR_CLIENT_PATIENCE", "60")
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
            let leads = daemons.wait_whole(PATIENCE).await.expect("whole");
            let is_there = match how {
                "anybody" => leads != led,
                _ => leads == to,
            };
            if asked.0 == 200 && is_there {
                break;
            }
            attempts.push(format!("{led} led, {leads} leads, not {to}: {asked:?}"));
            assert!(attempts.len() < ATTEMPTS, "{how}: {attempts:#?}");
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
