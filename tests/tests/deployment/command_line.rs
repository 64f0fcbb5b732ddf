//! A command line that keeps its hands off a raft set-up.

use std::fs;
use std::process::Command;

use orchestrator::command_line::command_names;
use orchestrator_tests::daemons::{self, DaemonOptions, Daemons};
use orchestrator_tests::process::Scratch;
use serde_json::json;

use super::PATIENCE;

/// Every command is refused in a raft set-up; forced, those that are there need a backend that is there. No file is made.
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
            "orchestrator.db: it does not exist",
        ),
        (
            &[
                "--ignore-raft-setup",
                "-c",
                "begin-downtime",
                "-i",
                "db1",
                "-reason",
                "x",
            ],
            1,
            "orchestrator.db: it does not exist",
        ),
        (
            &["--ignore-raft-setup", "-c", "forget", "-i", "db1"],
            1,
            "running daemons would not see",
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
    let files = || {
        let files = fs::read_dir(folder.path()).expect("read").flatten();
        let mut names: Vec<_> = files.map(|file| file.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(), ["orchestrator.conf.json"]);

    // None is exempt, and where there is a database of a daemon's it stays as it is.
    let database = folder.path().join("orchestrator.db");
    let alone = DaemonOptions {
        count: 1,
        ..DaemonOptions::steady()
    };
    let other = Daemons::start(&alone).expect("a daemon");
    other.wait_whole(PATIENCE).await.expect("whole");
    let copy = other.all()[0].copy_database("copy.db").expect("a copy");
    fs::copy(copy, &database).expect("copied");
    let before = fs::read(&database).expect("read");
    let mut count = 0;
    for name in command_names() {
        let output = Command::new(&binary)
            .arg("-config")
            .arg(&configuration)
            .args(["-c", name, "-i", "db1", "-alias", "shop"])
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.contains("--ignore-raft-setup"), "{name}: {errors}");
        assert!(output.stdout.is_empty(), "{name}");
        count += 1;
    }
    assert!(count > 100, "{count}");
    assert!(fs::read(&database).expect("read") == before);
    assert_eq!(files(), ["orchestrator.conf.json", "orchestrator.db"]);
}
