//! What the files in `runtime/packaging` promise, on real processes: HAProxy in both set-ups while a leader dies, readiness
//! and liveness of a daemon that waits for the others, and a command line that keeps its hands off a raft set-up.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{self, DaemonOptions, Daemons, get};
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use serde_json::json;

/// Held while a test owns daemons.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const PATIENCE: Duration = Duration::from_secs(30);
/// A request that waits this long was not answered.
const DEADLINE: Duration = Duration::from_secs(10);

/// An address on which nothing listens.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// HAProxy by the example, with the addresses of these daemons: leader only, and any healthy one.
fn haproxy(daemons: &Daemons, folder: &Path) -> (Process, SocketAddr, SocketAddr) {
    let mut configuration =
        include_str!("../../runtime/packaging/haproxy/orchestrator.cfg").to_owned();
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

/// What systemd waits for and Kubernetes asks: a daemon that waits for the others is ready and alive, and unhealthy.
#[tokio::test]
async fn a_daemon_that_waits_for_the_others_is_ready_and_alive() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("waiting").expect("a folder");
    let http = free_address();
    let configuration = folder.path().join("orchestrator.conf.json");
    let text = json!({
        "ListenAddress": http.to_string(),
        "BackendDB": "sqlite",
        "SQLite3DataFile": folder.path().join("orchestrator.db"),
        "RaftEnabled": true,
        "RaftDataDir": folder.path().join("raft"),
        "RaftBind": free_address().to_string(),
        "RaftNodes": [],
    });
    let mut text = text;
    let bind = text["RaftBind"].clone();
    text["RaftNodes"] = json!([bind, "127.0.0.1:1", "127.0.0.1:2"]);
    fs::write(&configuration, text.to_string()).expect("written");
    let socket = folder.path().join("notify");
    let notified = UnixDatagram::bind(&socket).expect("a socket");
    notified.set_nonblocking(true).expect("set");
    let mut command = Command::new(daemons::binary().expect("built"));
    command
        .arg("-config")
        .arg(&configuration)
        .arg("http")
        .env("NOTIFY_SOCKET", &socket)
        .current_dir(folder.path());
    let mut daemon = Process::start(command, &folder.path().join("daemon.log")).expect("started");
    let ready = until(
        "readiness is told",
        PATIENCE,
        Duration::from_millis(10),
        async || {
            let mut told = [0; 64];
            match notified.recv(&mut told) {
                Ok(length) => Look::Holds(String::from_utf8_lossy(&told[..length]).into_owned()),
                Err(error) => Look::not(error),
            }
        },
    );
    assert_eq!(ready.await.expect("told"), "READY=1");
    for (path, status) in [
        ("/api/lb-check", 200),
        ("/api/raft-health", 500),
        ("/api/leader-check", 404),
    ] {
        let reply = get(http, path, DEADLINE).await.expect("an answer");
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
    }
    daemon.signal(Signal::Terminate);
    let ended = daemon.wait(PATIENCE).await.expect("it ends");
    assert_eq!(ended.code(), Some(0));
}

/// A command in a raft set-up, and any command so far, is refused; no file is made.
#[tokio::test]
async fn a_command_is_refused_and_writes_nothing() {
    let folder = Scratch::create("command").expect("a folder");
    let configuration = folder.path().join("orchestrator.conf.json");
    let text = json!({
        "BackendDB": "sqlite",
        "SQLite3DataFile": folder.path().join("orchestrator.db"),
        "RaftEnabled": true,
        "RaftDataDir": folder.path().join("raft"),
        "RaftBind": "127.0.0.1",
        "RaftNodes": ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
    });
    fs::write(&configuration, text.to_string()).expect("written");
    let binary = daemons::binary().expect("built");
    for (arguments, code, wanted) in [
        (
            ["-c", "clusters"].as_slice(),
            1,
            "orchestrator-client -c COMMAND",
        ),
        (
            &["-c", "forget", "-i", "db1"],
            1,
            "the others would not know of it",
        ),
        (
            &["--ignore-raft-setup", "-c", "clusters"],
            1,
            "the command clusters is not there so far",
        ),
        (&["help"], 1, "RaftEnabled"),
        (&["-nonsense"], 2, "unexpected argument"),
        (&["-version"], 0, ""),
        (&[], 0, ""),
    ] {
        let output = Command::new(&binary)
            .arg("-config")
            .arg(&configuration)
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(wanted), "{arguments:?}: {errors}");
        assert_eq!(output.stdout.is_empty(), code != 0, "{arguments:?}");
    }
    let files: Vec<_> = fs::read_dir(folder.path())
        .expect("read")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(files, ["orchestrator.conf.json"]);
}
