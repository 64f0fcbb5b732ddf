//! Members that are not known by the addresses they have: by names, whose addresses change, by IPv6 addresses with ports, and
//! behind somebody who translates addresses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::network::{Machine, Network};
use orchestrator_tests::process::Scratch;
use orchestrator_tests::wait::{Look, until};
use serde_json::json;

use super::https::forward;
use super::{DEADLINE, PATIENCE, TURN};

fn prepared(settings: serde_json::Value) -> DaemonOptions {
    let mut options = DaemonOptions::default_configuration();
    options.late = options.count;
    options.settings = settings.as_object().expect("an object").clone();
    options
}

/// Each is healthy, and knows the members by these.
async fn wait_known(daemons: &[&Daemon], wanted: &[&str]) {
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    for daemon in daemons {
        let what = format!("{} is healthy and names {wanted:?}", daemon.url());
        let pace = Duration::from_millis(50);
        let looked = until(&what, PATIENCE, pace, async || {
            match daemon.status().await {
                Ok(status) => {
                    let peers = status["Peers"].as_array().into_iter().flatten();
                    let peers: BTreeSet<&str> = peers.filter_map(|peer| peer.as_str()).collect();
                    match status["Healthy"] == true && peers == wanted {
                        true => Look::Holds(()),
                        false => Look::not(format!("{status:#}")),
                    }
                }
                Err(error) => Look::not(format!("{error:#}")),
            }
        });
        looked.await.expect(&what);
    }
}

/// Each takes a change, by way of whoever leads.
async fn change_by_each(daemons: &[&Daemon], tag: &str) {
    for (number, daemon) in daemons.iter().enumerate() {
        let path = format!("/api/tag/{tag}{number}/3306?tag={tag}");
        daemon
            .wait_status(&path, 200, PATIENCE)
            .await
            .expect("tagged");
    }
    for daemon in daemons {
        let path = format!("/api/tagged?tag={tag}");
        let pace = Duration::from_millis(50);
        let looked = until(&path, PATIENCE, pace, async || {
            match daemon.get(&path, DEADLINE).await {
                Ok(reply) if reply.body.matches("\"Hostname\"").count() == daemons.len() => {
                    Look::Holds(())
                }
                other => Look::not(format!("{other:?}")),
            }
        });
        looked.await.expect("each knows all");
    }
}

fn write_hosts(file: &Path, machines: [&Machine; 3]) {
    let mut lines = String::from("127.0.0.1 localhost\n");
    for (number, machine) in (1..).zip(machines) {
        lines += &format!("{} node{number}\n", machine.address());
    }
    fs::write(file, lines).expect("written");
}

/// A machine is provisioned anew under the name of one that is gone, then moves with all it has: the others, which nobody
/// restarts and whose files say the same, find it each time.
#[tokio::test]
async fn a_name_is_looked_up_again_when_its_machine_is_another() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("names").expect("a folder");
    let hosts = folder.path().join("hosts");
    let mut network = Network::lay(4).expect("a network");
    network.set_hosts(&hosts);
    let [m1, m2, m3, m4] = network.machines() else {
        panic!("four machines");
    };
    write_hosts(&hosts, [m1, m2, m3]);
    let mut options = prepared(json!({
        "RaftNodes": ["node1", "node2", "node3"],
        "RaftReplaceSilentSeconds": 2,
    }));
    options.spare = 1;
    let daemons = Daemons::start_on(&network, &options).expect("prepared");
    let [n1, n2, n3, newcomer] = daemons.all() else {
        panic!("four daemons");
    };
    for (daemon, name) in [
        (n1, "node1"),
        (n2, "node2"),
        (n3, "node3"),
        (newcomer, "node3"),
    ] {
        daemon.set("RaftAdvertise", name).expect("written");
        let http = format!("http://{name}:3000");
        daemon.set("HTTPAdvertise", http).expect("written");
    }
    for daemon in [n1, n2, n3] {
        daemon.start().expect("started");
    }
    let names = ["node1:10008", "node2:10008", "node3:10008"];
    wait_known(&[n1, n2, n3], &names).await;
    change_by_each(&[n1, n2, n3], "first").await;
    let (former, stay) = (n3.node().await.expect("one"), [n1.pid(), n2.pid()]);

    n3.kill().await.expect("killed");
    write_hosts(&hosts, [m1, m2, m4]);
    newcomer.start().expect("started");
    wait_known(&[n1, n2, newcomer], &names).await;
    let identity = newcomer.node().await.expect("one");
    assert_ne!(identity, former);
    change_by_each(&[n1, n2, newcomer], "second").await;

    newcomer.kill().await.expect("killed");
    newcomer.keep_raft().expect("kept");
    n3.wipe().expect("wiped");
    fs::create_dir(n3.folder().join("raft")).expect("made");
    let kept = |daemon: &Daemon| daemon.folder().join("raft-kept");
    fs::rename(kept(newcomer), kept(n3)).expect("moved");
    n3.restore_raft().expect("restored");
    write_hosts(&hosts, [m1, m2, m3]);
    n3.start().expect("started");
    wait_known(&[n1, n2, n3], &names).await;
    assert_eq!(n3.node().await.expect("one"), identity);
    change_by_each(&[n1, n2, n3], "third").await;
    assert_eq!([n1.pid(), n2.pid()], stay);
}

/// All that daemons say to each other is said over IPv6, on a port that the entries name.
#[tokio::test]
async fn members_may_have_ipv6_addresses() {
    let _turn = TURN.lock().await;
    let network = Network::lay(3).expect("a network");
    let address = |last: u16| Ipv6Addr::new(0xfd0d, 0, 0, 0, 0, 0, 0, last);
    for (last, machine) in (1..).zip(network.machines()) {
        machine.add_address(address(last)).expect("an address");
    }
    let nodes = [1, 2, 3].map(|last| format!("[{}]:10010", address(last)));
    let options = prepared(json!({
        "RaftNodes": nodes,
        "RaftBind": "[fd0d::{daemon}]:10010",
        "ListenAddress": "[::]:3000",
        "HTTPAdvertise": "http://[fd0d::{daemon}]:3000",
    }));
    let daemons = Daemons::start_on(&network, &options).expect("prepared");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    for daemon in &all {
        daemon.start().expect("started");
    }
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    wait_known(&all, &names).await;
    change_by_each(&all, "by-ipv6").await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.kill().await.expect("killed");
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.start().expect("started");
    wait_known(&all, &names).await;
    change_by_each(&all, "again").await;
}

/// Nobody can dial what the daemons bind: raft and API are reached where they are advertised.
#[tokio::test]
async fn members_may_be_behind_translated_addresses() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&prepared(json!({}))).expect("prepared");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let (mut nodes, mut counts) = (Vec::new(), Vec::new());
    for daemon in &all {
        let (raft, count) = forward(SocketAddr::from((daemon.address(), 10_008))).await;
        let (http, _) = forward(daemon.http()).await;
        daemon
            .set("RaftAdvertise", raft.to_string())
            .expect("written");
        daemon
            .set("HTTPAdvertise", format!("http://{http}"))
            .expect("written");
        nodes.push(raft.to_string());
        counts.push(count);
    }
    for daemon in &all {
        daemon.set("RaftNodes", nodes.clone()).expect("written");
        daemon.start().expect("started");
    }
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    wait_known(&all, &names).await;
    change_by_each(&all, "translated").await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.kill().await.expect("killed");
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.start().expect("started");
    wait_known(&all, &names).await;
    change_by_each(&all, "again").await;
    for count in counts {
        assert!(count.load(Ordering::Relaxed) > 0);
    }
}
