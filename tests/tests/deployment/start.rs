//! How a daemon starts: what it tells, and what it refuses.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orchestrator_tests::daemons::{self, Daemon, DaemonOptions, Daemons, get};
use orchestrator_tests::nobody;
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use serde_json::json;

use super::{DEADLINE, PATIENCE, TURN, free_address};

/// What systemd waits for and Kubernetes asks: a daemon that waits for the others is ready and alive, and unhealthy. One that
/// does not start tells systemd why.
#[tokio::test]
async fn a_daemon_that_waits_for_the_others_is_ready_and_alive() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("waiting").expect("a folder");
    // As systemd gives it on a machine, and in a container: of the abstract namespace.
    let path = folder.path().join("notify");
    let of_a_machine = SocketAddr::from_pathname(&path).expect("a path");
    waits(&of_a_machine, &path.display().to_string()).await;
    let name = format!("orchestrator-tests-{}", std::process::id());
    let of_a_container = SocketAddr::from_abstract_name(&name).expect("a name");
    waits(&of_a_container, &format!("@{name}")).await;
}

async fn waits(socket: &SocketAddr, notify_socket: &str) {
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
    let notified = UnixDatagram::bind_addr(socket).expect("a socket");
    notified.set_nonblocking(true).expect("set");
    let start = || {
        let mut command = Command::new(daemons::binary().expect("built"));
        command
            .arg("-config")
            .arg(&configuration)
            .arg("http")
            .env("NOTIFY_SOCKET", notify_socket)
            .current_dir(folder.path());
        Process::start(command, &folder.path().join("daemon.log")).expect("started")
    };
    let told = async || {
        let told = until(
            "something is told",
            PATIENCE,
            Duration::from_millis(10),
            async || {
                let mut told = [0; 4_096];
                match notified.recv(&mut told) {
                    Ok(length) => {
                        Look::Holds(String::from_utf8_lossy(&told[..length]).into_owned())
                    }
                    Err(error) => Look::not(error),
                }
            },
        );
        told.await.expect("told")
    };
    let mut daemon = start();
    assert_eq!(told().await, "READY=1");
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

    text["SQLite3DataFile"] = json!(folder.path().join("raft"));
    fs::write(&configuration, text.to_string()).expect("written");
    let mut daemon = start();
    let ended = daemon.wait(PATIENCE).await.expect("it ends");
    assert_eq!(ended.code(), Some(1));
    let status = told().await;
    let why = format!("SQLite3DataFile: {}", folder.path().join("raft").display());
    assert!(
        status.starts_with("STATUS=") && status.contains(&why),
        "{status}"
    );
}

/// A member whose configuration names the SQLite file of another one is refused, with the reason, and the other two go on. On a file
/// of its own it is what it was.
#[tokio::test]
async fn a_database_file_is_used_by_one_daemon() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&DaemonOptions::steady()).expect("daemons");
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let first = &daemons.all()[led];
    let later = &daemons.all()[(led + 1) % 3];
    later.kill().await.expect("killed");
    let of = |daemon: &Daemon| daemon.database().display().to_string();
    later.set("SQLite3DataFile", of(first)).expect("written");
    later.start().expect("started");
    let code = later.wait_ended(PATIENCE).await.expect("it refuses");
    assert_ne!(code, Some(0));
    let log = fs::read_to_string(later.log()).expect("a log");
    let last = log.lines().next_back().unwrap_or_default();
    assert!(last.contains("is in use by another daemon"), "{last}");
    assert!(last.contains(&of(first)), "{last}");
    assert!(last.contains("a file of its own"), "{last}");
    first
        .wait_status("/api/tag/db1/3306?tag=kept", 200, PATIENCE)
        .await
        .expect("the others go on");

    later.set("SQLite3DataFile", of(later)).expect("written");
    later.start().expect("started");
    daemons.wait_whole(PATIENCE).await.expect("whole");
}

/// A file of another cluster is refused, with what to do; so is one that a later release changed.
#[tokio::test]
async fn a_database_file_of_another_cluster_or_release_is_refused() {
    let _turn = TURN.lock().await;
    let alone = DaemonOptions {
        count: 1,
        ..DaemonOptions::steady()
    };
    let (ours, theirs) = (Daemons::start(&alone), Daemons::start(&alone));
    let (ours, theirs) = (ours.expect("a daemon"), theirs.expect("a daemon"));
    for daemons in [&ours, &theirs] {
        let daemon = daemons.wait_whole(PATIENCE).await.expect("whole");
        let daemon = &daemons.all()[daemon];
        daemon
            .wait_status("/api/tag/db1/3306?tag=known", 200, PATIENCE)
            .await
            .expect("taken");
        // An orderly end leaves the whole state in the file.
        daemon.signal(Signal::Terminate);
        daemon.wait_ended(PATIENCE).await.expect("ended");
    }
    let (ours, theirs) = (&ours.all()[0], &theirs.all()[0]);
    let own = ours.copy_database("own.db").expect("a copy");
    let foreign = theirs.copy_database("foreign.db").expect("a copy");
    let refused = async || {
        ours.start().expect("started");
        let code = ours.wait_ended(PATIENCE).await.expect("it refuses");
        assert_ne!(code, Some(0));
        let log = fs::read_to_string(ours.log()).expect("a log");
        let last = log.lines().next_back().unwrap_or_default().to_owned();
        let place = format!("SQLite3DataFile: {}", ours.database().display());
        assert!(last.contains(&place), "{last}");
        last
    };
    ours.put_database(&foreign).expect("put");
    let last = refused().await;
    assert!(last.contains("belongs to the raft cluster"), "{last}");
    assert!(
        last.contains("name another file, or move this one away"),
        "{last}"
    );
    // It stays the other cluster's.
    let owner = |file: &Path| {
        let file = rusqlite::Connection::open(file).expect("opened");
        let row = "select daemon || ' ' || token || ' ' || digest from orchestrator_projection";
        file.query_row(row, [], |row| row.get::<_, String>(0))
            .expect("a row")
    };
    assert_eq!(owner(&ours.database()), owner(&foreign));

    ours.put_database(&own).expect("put");
    let file = rusqlite::Connection::open(ours.database()).expect("opened");
    file.execute(
        "INSERT INTO orchestrator_migrations (version, name, checksum, oldest_reader, app_version, applied_at) VALUES \
         (99, 'x', 'x', 99, 'x', '2026-01-01 00:00:00')",
        [],
    )
    .expect("written");
    drop(file);
    let last = refused().await;
    assert!(last.contains("install that release again"), "{last}");

    // What was its own is as it was.
    ours.put_database(&own).expect("put");
    ours.start().expect("started");
    ours.wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("it runs");
}

/// A raft directory that is another user's is named, with its owner and the user that the daemon runs as; it is made where it is
/// missing.
#[tokio::test]
async fn a_raft_directory_of_another_user_is_the_reason_of_an_end() {
    let _turn = TURN.lock().await;
    let folder = nobody::folder("barred").expect("a folder");
    let (folder, raft) = (folder.path(), folder.path().join("raft"));
    let file = folder.join("orchestrator.db");
    for (mode, is_barred) in [(0o555, true), (0o777, false)] {
        fs::set_permissions(&raft, fs::Permissions::from_mode(mode)).expect("set");
        let patience = if is_barred {
            PATIENCE
        } else {
            Duration::from_secs(10)
        };
        let ended = nobody::run(folder, &file, patience).await.expect("started");
        // Else it runs for as long as it is let.
        assert_eq!(ended.code, is_barred.then_some(1), "{ended:?}");
        if is_barred {
            let named = format!(
                "RaftDataDir {0}: permission denied: {0} belongs to ",
                raft.display()
            );
            assert!(ended.last.contains(&named), "{ended:?}");
            assert!(ended.last.contains("and this daemon runs as "), "{ended:?}");
        }
    }
}

/// The file is made where it is missing; where it cannot be made or written the daemon ends at once, and names it.
#[tokio::test]
async fn a_database_file_is_made_or_is_the_reason_of_an_end() {
    let _turn = TURN.lock().await;
    let folder = nobody::folder("unwritable").expect("a folder");
    let folder = folder.path();
    let closed = folder.join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("set");
    let read_only = folder.join("read-only.db");
    fs::write(&read_only, "").expect("written");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).expect("set");
    let (barred, missing) = (closed.join("orchestrator.db"), folder.join("missing"));
    for (file, named) in [
        (&barred, &barred),
        (&read_only, &read_only),
        (&missing.join("orchestrator.db"), &missing),
    ] {
        let ended = nobody::run(folder, file, PATIENCE).await.expect("started");
        assert!(
            ended.code.is_some_and(|code| code != 0),
            "{file:?}: {ended:?}"
        );
        let named = named.display().to_string();
        assert!(ended.last.contains(&named), "{ended:?}");
        println!("{:?}: {}", ended.took, ended.last);
    }

    let file = folder.join("orchestrator.db");
    let ran = nobody::run(folder, &file, Duration::from_secs(10)).await;
    let ran = ran.expect("started");
    // It runs for as long as it is let.
    assert_eq!(ran.code, None, "{ran:?}");
    assert!(file.exists());
}
