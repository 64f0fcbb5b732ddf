//! `orchestrator-sim` as people use it: runs that repeat, failures that are told apart, replay files that shrink.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn make(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder of tests can be written");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

fn scenario(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    folder.join(name).display().to_string()
}

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator-sim"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

/// What was printed, when the exit code is this.
#[track_caller]
fn check(arguments: &[&str], code: i32) -> String {
    let output = sim(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}{complained}");
    said + &complained
}

#[test]
fn a_run_tells_its_story_and_draws_itself() {
    let folder = Folder::make("story");
    let page = folder.file("page.html");
    let file = scenario("primary_killed.toml");
    let said = check(
        &[
            "run",
            &file,
            "--seed",
            "4",
            "--engine",
            "madsim",
            "--story",
            "--timeline",
            &page,
        ],
        0,
    );
    for part in [
        "fault kill m1",
        "sql make writeable",
        "commit ",
        " leads ",
        "writable after",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains(" wire "));
    assert!(std::fs::read_to_string(page).unwrap().contains("kill m1"));
}

#[test]
fn each_engine_repeats_a_run_in_another_process() {
    let file = scenario("primary_killed.toml");
    let said = check(&["twice", "1..3", &file], 0);
    let agreed = said.lines().filter(|line| line.ends_with(", twice"));
    assert_eq!(agreed.count(), 4, "{said}");
}

#[test]
fn a_failure_is_saved_shrunk_and_found_again() {
    let folder = Folder::make("shrink");
    let (file, saved) = (scenario("foreign_backend.toml"), folder.file("saved.toml"));
    let run = ["run", &file, "--engine", "madsim", "--save", &saved];
    let said = check(&[&run[..], &["--mistake", "foreign-backend"]].concat(), 11);
    assert!(
        said.contains("reproduce with: orchestrator-sim run"),
        "{said}"
    );
    check(&["replay", &saved], 11);
    let small = folder.file("small.toml");
    let said = check(&["shrink", &saved, "--into", &small], 0);
    assert!(said.contains("lines are left"), "{said}");
    check(&["replay", &small], 11);
    // It came to what is written in it; without the mistake it does not.
    check(&["regressions", &small], 0);
    let text = std::fs::read_to_string(&saved).unwrap();
    std::fs::write(&saved, text.replace("mistake = \"foreign-backend\"\n", "")).unwrap();
    check(&["regressions", &saved], 11);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::make("refused");
    let wrong = folder.file("wrong.toml");
    let text = "title = 'x'\nlength = '1s'\nscript = ['at 1s: explode m1']";
    std::fs::write(&wrong, text).unwrap();
    let killed = scenario("primary_killed.toml");
    for (arguments, why) in [
        (vec!["sweep", "9..3"], "holds no seed"),
        (vec!["run", &wrong], "explode"),
        (vec!["run", "nowhere.toml"], "nowhere.toml"),
        (vec!["replay", &killed], "no replay file"),
        (vec!["run", &killed, "--mistake", "none"], "no mistake"),
    ] {
        let said = check(&arguments, 2);
        assert!(said.contains(why), "{why} in {said}");
    }
}
