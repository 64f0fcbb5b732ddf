//! HAProxy by the example, in both set-ups, while leaders die.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{DaemonOptions, Daemons, get};
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::wait::{Look, until};

use super::{DEADLINE, PATIENCE, TURN, free_address};

/// HAProxy by the example, with the addresses of these daemons: leader only, and any healthy one.
fn haproxy(daemons: &Daemons, folder: &Path) -> (Process, SocketAddr, SocketAddr) {
    let mut configuration =
        include_str!("../../../runtime/packaging/haproxy/orchestrator.cfg").to_owned();
    let (leader_only, any) = (free_address(), free_address());
    let mut replace = |from: &str, to: String| {
        assert!(configuration.contains(from), "{from} is not in the example");
        configuration = configuration.replace(from, &to);
    };
    replace("bind :80\n", format!("bind {leader_only}\n"));
    replace("bind :81\n", format!("bind {any}\n"));
    for (number, daemon) in daemons.all().iter().enumerate() {
        replace(
            &format!("10.0.0.{}:3000", number + 1),
            daemon.http().to_string(),
        );
    }
    let path = folder.join("haproxy.cfg");
    fs::write(&path, configuration).expect("written");
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("haproxy");
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&path);
    let process = Process::start(command, &folder.join("haproxy.log"))
        .expect("haproxy; type:  tests/setup.sh haproxy");
    (process, leader_only, any)
}

/// Waits until a path is answered with 200 through the proxy; its body, and how long it took.
async fn answered(proxy: SocketAddr, path: &str) -> (String, Duration) {
    let began = Instant::now();
    let what = format!("{path} through {proxy}");
    let body = until(
        &what,
        PATIENCE,
        Duration::from_millis(20),
        async || match get(proxy, path, DEADLINE).await {
            Ok(reply) if reply.status == 200 => Look::Holds(reply.body),
            Ok(reply) => Look::not(format!("{} {}", reply.status, reply.body)),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    (body.await.expect("answered"), began.elapsed())
}

/// What the client prints that knows this address only.
fn client(proxy: SocketAddr, arguments: &[&str]) -> String {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/bin/orchestrator-client");
    let output = Command::new(script)
        .args(arguments)
        .env("ORCHESTRATOR_API", format!("http://{proxy}"))
        .env("ORCHESTRATOR_CLIENT_PROFILE", "/nonexistent")
        .output()
        .expect("bash, curl and jq; type:  tests/setup.sh client");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn haproxy_follows_the_leader() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&DaemonOptions::default_configuration()).expect("daemons");
    let folder = Scratch::create("haproxy").expect("a folder");
    let (_haproxy, leader_only, any) = haproxy(&daemons, folder.path());
    answered(leader_only, "/api/leader-check").await;
    answered(any, "/api/raft-health").await;
    let (state, _) = answered(leader_only, "/api/raft-state").await;
    assert_eq!(state, "\"Leader\"");
    for (number, proxy) in [leader_only, any].into_iter().enumerate() {
        answered(proxy, &format!("/api/tag/db{number}/3306?tag=before")).await;
    }

    // The client behind the proxy knows one address.
    for proxy in [leader_only, any] {
        assert_eq!(
            client(proxy, &["-c", "tagged", "-t", "before"]),
            "db0:3306\ndb1:3306\n"
        );
        assert_eq!(
            client(proxy, &["-c", "which-api"]),
            format!("http://{proxy}/api\n")
        );
        assert_eq!(client(proxy, &["-c", "raft-health"]), "healthy\n");
    }

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let killed = leader.http();
    leader.signal(Signal::Kill);
    // Whoever answers on the first port leads, from the first answer on.
    let (state, gap) = answered(leader_only, "/api/raft-state").await;
    assert_eq!(state, "\"Leader\"");
    let (_, writable) = answered(leader_only, "/api/tag/db3/3306?tag=after").await;
    let (_, writable_by_any) = answered(any, "/api/tag/db4/3306?tag=after").await;
    println!(
        "leader only: {gap:?} until answered, {writable:?} more until written; any: {writable_by_any:?} more"
    );
    assert!(gap + writable + writable_by_any < Duration::from_secs(10));
    for proxy in [leader_only, any] {
        let (tagged, _) = answered(proxy, "/api/tagged?tag=before").await;
        assert!(tagged.contains("db0") && tagged.contains("db1"), "{tagged}");
        let (tagged, _) = answered(proxy, "/api/tagged?tag=after").await;
        assert!(tagged.contains("db3") && tagged.contains("db4"), "{tagged}");
    }

    // Two of three are gone: both ports say so, and nothing is taken.
    let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
    assert_ne!(next.http(), killed);
    next.signal(Signal::Kill);
    for proxy in [leader_only, any] {
        let what = format!("{proxy} has no server left");
        let looked = until(
            &what,
            PATIENCE,
            Duration::from_millis(20),
            async || match get(proxy, "/api/tag/db5/3306?tag=lost", DEADLINE).await {
                Ok(reply) if reply.status == 503 && !reply.body.contains("Code") => Look::Holds(()),
                Ok(reply) if reply.status == 200 => {
                    panic!("taken without a quorum: {}", reply.body)
                }
                other => Look::not(format!("{other:?}")),
            },
        );
        looked.await.expect("503 of the proxy");
    }

    // One comes back: both serve again, without what was refused.
    for daemon in daemons.all() {
        daemon.start().expect("started");
    }
    for proxy in [leader_only, any] {
        let (tagged, _) = answered(proxy, "/api/tagged?tag=lost").await;
        assert_eq!(tagged, "[]");
    }
}
