//! The Debian packages: built, installed on three bare machines (folders that hold the C library and nothing else), and
//! started there with one file of configuration each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use orchestrator_tests::bare::Bare;
use orchestrator_tests::daemons::{self, Daemon, DaemonOptions, Daemons, get};
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use serde_json::Value;

use super::{DEADLINE, PATIENCE, TURN};

fn ran(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// The packages of the program that was built; what the daemon's is called, and the client's.
pub(super) fn packages(folder: &Path) -> (PathBuf, PathBuf) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/debian/build");
    ran(Command::new(script)
        .arg(daemons::binary().expect("built"))
        .arg(folder)
        // The program is large as it is built for tests, and packed for a minute otherwise.
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none"));
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("read")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    let [client, daemon] = found.as_slice() else {
        panic!("two packages: {found:?}");
    };
    (daemon.clone(), client.clone())
}

/// A machine on which packages can be installed.
fn machine(root: &Path) -> Bare {
    let program = daemons::binary().expect("built").display().to_string();
    let bare = Bare::make(root, &[&program]).expect("made");
    for folder in ["info", "updates"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).expect("made");
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").expect("written");
    }
    bare
}

fn install(root: &Path, package: &Path) -> String {
    let mut command = Command::new("dpkg");
    command
        .arg(format!("--root={}", root.display()))
        // The C library is there as a file, not as a package; and scripts have no shell there.
        .args([
            "--force-depends",
            "--force-script-chrootless",
            "--force-not-root",
        ])
        .arg("--install")
        .arg(package);
    String::from_utf8_lossy(&ran(&mut command).stdout).into_owned()
}

async fn leader(daemons: &Daemons) -> &Daemon {
    let looked = until(
        "one of the machines leads",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            for (number, daemon) in daemons.all().iter().enumerate() {
                if daemon.is_leader().await {
                    return Look::Holds(number);
                }
            }
            Look::not("none")
        },
    );
    &daemons.all()[looked.await.expect("a leader")]
}

#[tokio::test]
async fn three_bare_machines_need_the_package_and_a_configuration() {
    let _turn = TURN.lock().await;
    let scratch = Scratch::create("package").expect("a folder");
    let built = scratch.path().join("built");
    fs::create_dir(&built).expect("made");
    let (package, client) = packages(&built);
    let contents = ran(Command::new("dpkg-deb").arg("--contents").arg(&client));
    let contents = String::from_utf8_lossy(&contents.stdout).into_owned();
    assert!(
        contents.contains("./usr/bin/orchestrator-client"),
        "{contents}"
    );

    // Configurations for three free addresses, whose daemons are not started here.
    let mut options = DaemonOptions::default_configuration();
    options.late = options.count;
    let daemons = Daemons::start(&options).expect("prepared");
    let mut machines = Vec::new();
    for daemon in daemons.all() {
        let root = scratch.path().join(daemon.address().to_string());
        let bare = machine(&root);
        let said = install(&root, &package);
        assert!(said.contains("write /etc/orchestrator.conf.json"), "{said}");
        let users = fs::read_to_string(root.join("etc/passwd")).expect("read");
        assert!(users.contains("orchestrator:"), "{users}");
        // Nothing of a database but the program itself.
        let files = ran(Command::new("find").arg(&root).args(["-type", "f"]));
        let files = String::from_utf8_lossy(&files.stdout).to_lowercase();
        let of_databases = |line: &&str| {
            let name = line.rsplit('/').next().unwrap_or_default();
            ["sqlite", "mysqlclient", "mariadb.so", "libmaria"]
                .iter()
                .any(|word| name.contains(word))
        };
        assert_eq!(files.lines().find(of_databases), None);

        // As systemd's StateDirectory makes it.
        fs::create_dir_all(root.join("var/lib/orchestrator")).expect("made");
        let text = fs::read_to_string(daemon.folder().join("orchestrator.conf.json"));
        let mut configuration: Value = serde_json::from_str(&text.expect("read")).expect("JSON");
        configuration["SQLite3DataFile"] = "/var/lib/orchestrator/orchestrator.db".into();
        configuration["RaftDataDir"] = "/var/lib/orchestrator/raft".into();
        fs::write(
            root.join("etc/orchestrator.conf.json"),
            configuration.to_string(),
        )
        .expect("written");
        let mut command = bare.command("/usr/bin/orchestrator");
        command.args(["--config=/etc/orchestrator.conf.json", "http"]);
        machines.push(Process::start(command, &root.join("daemon.log")).expect("started"));
    }
    let tag = "/api/tag/db1/3306?tag=packaged";
    let looked = until(
        "the leader takes a change",
        PATIENCE,
        Duration::from_millis(50),
        async || match get(leader(&daemons).await.http(), tag, DEADLINE).await {
            Ok(reply) if reply.status == 200 => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("taken");
    // A daemon that knows no leader so far answers by what it has itself.
    for daemon in daemons.all() {
        let looked = until(
            "the tag is known",
            PATIENCE,
            Duration::from_millis(50),
            async || match daemon.get("/api/tagged?tag=packaged", DEADLINE).await {
                Ok(reply) if reply.status == 200 && reply.body.contains("db1") => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        );
        looked.await.expect("known");
    }

    // The next release is installed over it; the configuration stays, and nothing is asked for.
    for (machine, daemon) in machines.iter_mut().zip(daemons.all()) {
        machine.signal(Signal::Terminate);
        let ended = machine.wait(PATIENCE).await.expect("it ends");
        assert_eq!(ended.code(), Some(0));
        let root = scratch.path().join(daemon.address().to_string());
        assert!(!install(&root, &package).contains("write"));
    }
}
