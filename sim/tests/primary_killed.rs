//! *Primary killed* through the program, on both engines: every promise kept, and each seed twice alike.

use std::process::Command;

/// Even seeds have MySQL servers, odd ones MariaDB's.
fn check(seeds: &str, engine: &str, kill: &str, count: usize) {
    let program = env!("CARGO_BIN_EXE_orchestrator-sim");
    let output = Command::new(program)
        .args(["twice", seeds, "--engine", engine, "--kill", kill])
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let agreed = said
        .lines()
        .filter(|line| line.ends_with(", twice"))
        .count();
    assert_eq!(agreed, count, "{said}");
}

#[test]
fn on_madsim() {
    check("1..5", "madsim", "primary", 4);
}

#[test]
fn on_turmoil() {
    check("1..3", "turmoil", "primary", 2);
}

#[test]
fn with_the_leading_daemon_on_madsim() {
    check("0..2", "madsim", "primary-and-leader", 2);
}

#[test]
fn with_the_leading_daemon_on_turmoil() {
    check("0..1", "turmoil", "primary-and-leader", 1);
}

#[test]
fn a_wrong_range_is_refused() {
    let program = env!("CARGO_BIN_EXE_orchestrator-sim");
    let output = Command::new(program)
        .args(["sweep", "9..3"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
}
