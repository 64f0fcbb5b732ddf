//! The demonstration, as the README has people type it: it comes to its end, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::sql::Sql;
use orchestrator_tests::wait::{Look, until};

use super::{DEADLINE, TURN};

/// It waits 60 s itself for each thing that it shows.
const SHOW: Duration = Duration::from_secs(180);
/// From Ctrl-C to the prompt.
const END: Duration = Duration::from_secs(60);

/// A demonstration whose folders are in one of ours, so that they, and the processes that use them, are known.
struct Demo {
    scratch: Scratch,
    process: Process,
}

impl Demo {
    fn start(words: &[&str]) -> Demo {
        let scratch = Scratch::create("demo").expect("a folder");
        let folders = scratch.path().join("folders");
        fs::create_dir(&folders).expect("made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(words).env("TMPDIR", &folders);
        let process = Process::start(command, &scratch.path().join("out")).expect("a demo");
        Demo { scratch, process }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.scratch.path().join("out")).expect("read")
    }

    /// What it made: its folders, and the processes that have one of them in their words.
    fn things(&self) -> (Vec<PathBuf>, Vec<String>) {
        let folders = self.scratch.path().join("folders");
        let made = fs::read_dir(&folders).expect("a folder");
        let made = made.map(|entry| entry.expect("an entry").path());
        (made.collect(), processes_with(&folders))
    }
}

/// Port, user and password of the line that tells how to log in.
fn login(said: &str) -> Option<(u16, &str, &str)> {
    let line = said
        .lines()
        .find(|line| line.contains("  login    mysql "))?;
    let mut words = line.split_whitespace();
    let mut after = |option: &str| words.find_map(|word| word.strip_prefix(option));
    Some((after("-P")?.parse().ok()?, after("-u")?, after("-p")?))
}

/// The words of each process that has this folder in them.
fn processes_with(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .filter(|words| words.contains(&folder))
        .collect()
}

#[tokio::test]
async fn the_demonstration_shows_a_failover_and_ends_well() {
    let _turn = TURN.lock().await;
    let mut demo = Demo::start(&["--kill", "primary"]);
    let ended = demo.process.wait(SHOW).await;
    let said = demo.said();
    let ended = ended.unwrap_or_else(|| panic!("it goes on: {said}"));
    assert_eq!(ended.code(), Some(0), "{said}");
    for wanted in [
        "kill -9 of shop's primary",
        "shop: done, ",
        "every live replica replicates from 127.0.0.1:",
    ] {
        assert!(said.contains(wanted), "no '{wanted}': {said}");
    }
    assert_eq!(demo.things(), (vec![], vec![]), "{said}");
}

#[tokio::test]
async fn an_interrupted_demonstration_leaves_nothing_behind() {
    let _turn = TURN.lock().await;
    let mut demo = Demo::start(&[]);
    let ready = until(
        "the show begins",
        SHOW,
        Duration::from_millis(50),
        async || {
            let said = demo.said();
            if said.contains("quit (Ctrl-C too)") {
                Look::Holds(())
            } else {
                Look::not(said)
            }
        },
    );
    ready.await.expect("ready");
    let said = demo.said();
    let told = login(&said).unwrap_or_else(|| panic!("no login: {said}"));
    let (port, user, password) = told;
    let mut server = Sql::connect_as(port, user, password, DEADLINE)
        .await
        .expect("let in");
    let writable = server.value("SELECT @@GLOBAL.read_only").await;
    assert_eq!(writable.expect("an answer"), "0");
    let (folders, processes) = demo.things();
    assert!(!folders.is_empty(), "{}", demo.said());
    assert_eq!(processes.len(), 3, "three daemons: {processes:?}");
    demo.process.signal(Signal::Interrupt);
    let ended = demo.process.wait(END).await;
    let said = demo.said();
    let ended = ended.unwrap_or_else(|| panic!("it goes on: {said}"));
    // It ended by itself; what was to be shown was not.
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(demo.things(), (vec![], vec![]), "{said}");
}
