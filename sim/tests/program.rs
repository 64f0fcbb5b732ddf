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

const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestrator-sim");

fn sim(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

/// A seed without faults beside the script's: what a scenario expects is looked at, and told, with those alone.
const CALM: &str = "3";

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
            CALM,
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
    // The line names the program that failed: another build has other assertions.
    let own = format!("reproduce with: {PROGRAM} run {file} --seed 0 --engine madsim");
    assert!(said.contains(&own), "{said}");
    assert!(said.contains(" # built with"), "{said}");
    check(&["replay", &saved], 11);
    let small = folder.file("small.toml");
    let said = check(&["shrink", &saved, "--into", &small], 0);
    assert!(said.contains("lines are left"), "{said}");
    check(&["replay", &small], 11);
    // It came to what is written in it; what a mistake comes to is not asked of a run without one.
    check(&["regressions", &small], 0);
    let text = std::fs::read_to_string(&saved).unwrap();
    std::fs::write(&saved, text.replace("mistake = \"foreign-backend\"\n", "")).unwrap();
    let said = check(&["regressions", &saved], 2);
    assert!(said.contains("'outcome' is what must come of it"), "{said}");
    // An outcome that outlived its mistake is an outcome that a mended program does not come to.
    let text = text.replace("engine = \"madsim\"", "engine = \"turmoil\"");
    std::fs::write(
        &saved,
        text.replace("safety: own cluster", "safety: something else"),
    )
    .unwrap();
    check(&["regressions", &saved], 11);
}

/// What is not to fail fails because more is expected of it than it can do.
fn failing(folder: &Folder) -> String {
    let path = folder.file("failing.toml");
    let text = "title = 'Nobody dies, and a promotion is expected'\nlength = '9s'\nservers = 2\nengines = ['madsim']\n\
                script = ['at 1s: slow-disk n1 by 5ms']\n[expect]\npromotions = 1\n";
    std::fs::write(&path, text).expect("the folder of tests can be written");
    path
}

#[test]
fn a_shrunk_failure_is_a_test_that_fails_until_it_is_mended() {
    let folder = Folder::make("wanted");
    let (file, small) = (failing(&folder), folder.file("small.toml"));
    check(&["run", &file, "--save", &small], 12);
    let said = check(&["shrink", &small], 0);
    assert!(said.contains("in 'reaches' of the file, name"), "{said}");
    let text = std::fs::read_to_string(&small).unwrap();
    assert!(text.contains("outcome = \"\""), "{text}");
    assert!(
        text.contains("found = \"liveness: promotions: 1 expected"),
        "{text}"
    );
    let said = check(&["regressions", &small], 11);
    assert!(said.contains("wanted ''"), "{said}");
    let mended = text.replace("promotions = 1", "promotions = 0");
    std::fs::write(&small, &mended).unwrap();
    check(&["regressions", &small], 0);
    // What is kept for a situation has to come to it.
    let reaches = |text: &str| {
        let named = mended.replace("reaches = []", &format!("reaches = [\"{text}\"]"));
        std::fs::write(&small, named).unwrap();
    };
    reaches("fault kill m1");
    check(&["regressions", &small], 0);
    reaches("fault kill m2");
    let said = check(&["regressions", &small], 11);
    assert!(said.contains("no line with 'fault kill m2'"), "{said}");
    check(&["replay", &small], 12);
}

#[test]
fn a_quorum_comes_to_rest_before_all_do() {
    let folder = Folder::make("quorum");
    let file = folder.file("quorum.toml");
    let run = |script: &str| {
        let text = format!(
            "title = 'A quorum'\nlength = '9s'\nservers = 2\nengines = ['madsim']\nquorum_first = true\nscript = [{script}]"
        );
        std::fs::write(&file, text).unwrap();
        check(&["run", &file, "--story"], 0)
    };
    let said = run("'at 6s: power-cut leader'");
    for part in [
        "phase all but n",
        "everything is healed",
        ", a quorum without n",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // Somebody was made a member by hand, and might be the one who stays away.
    let said = run("'at 6s: nodes n1 n1,n2,n3'");
    assert!(!said.contains("a quorum without"), "{said}");
}

#[test]
fn a_replay_is_as_calm_as_the_run_was() {
    let folder = Folder::make("calm");
    let (file, saved) = (failing(&folder), folder.file("saved.toml"));
    check(&["run", &file, "--save", &saved], 12);
    check(&["replay", &saved], 12);
    let text = std::fs::read_to_string(&saved).unwrap();
    assert!(text.contains("calm = true"), "{text}");
    // One line of one is what a shrunk plan with a drawn fault looks like, too.
    std::fs::write(&saved, text.replace("calm = true", "calm = false")).unwrap();
    check(&["replay", &saved], 0);
}

#[test]
fn a_sweep_goes_on_without_the_file_of_its_program() {
    let folder = Folder::make("vanished");
    let program = folder.file("program");
    std::fs::hard_link(PROGRAM, &program).unwrap();
    let sweeping = Command::new(&program)
        .args(["sweep", "0..1", "--engine", "madsim", "--processes", "1"])
        .arg(scenario("elections.toml"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    std::fs::remove_file(&program).unwrap();
    let output = sweeping.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1 of 1 runs, 0 failed"), "{said}");
}

#[test]
fn a_failure_outranks_what_could_not_be_written() {
    let folder = Folder::make("outranks");
    let file = failing(&folder);
    let said = check(&["sweep", "0", &file, "--failures", "/proc/failures"], 12);
    assert!(said.contains("/proc/failures: "), "{said}");
    assert!(said.contains("1 of 1 runs, 1 failed"), "{said}");
    let said = check(&["run", &file, "--save", "/proc/saved.toml"], 12);
    assert!(said.contains("/proc/saved.toml: "), "{said}");
}

/// A script in the place of a worker. Another process writes it: nothing that this one starts meanwhile may hold it open for
/// writing, since then it could not be executed.
fn worker(folder: &Folder, name: &str, script: &str) -> String {
    let path = folder.file(name);
    let written = Command::new("sh")
        .args([
            "-c",
            "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod +x \"$1\"",
            "sh",
        ])
        .args([&path, script])
        .status();
    assert!(written.expect("sh starts").success());
    path
}

#[test]
fn what_differs_in_the_other_process_is_found() {
    let folder = Folder::make("differs");
    let (file, traces) = (scenario("elections.toml"), folder.file("traces"));
    let base = [
        "twice", "1", &file, "--engine", "madsim", "--traces", &traces,
    ];
    let with = |program: &str, code| check(&[&base[..], &["--with", program]].concat(), code);

    // All logs are written there, whatever is asked of this one.
    let logs = format!("[ \"$RUST_LOG\" = trace ] && exec {PROGRAM} worker");
    with(&worker(&folder, "logs", &logs), 0);
    let left = std::fs::read_dir(&traces).unwrap().count();
    assert_eq!(left, 0, "traces that are equal go");

    // Another seed is what a run that is not repeatable looks like.
    let other = format!("sed -u 's/\"seed\":1,/\"seed\":2,/' | {PROGRAM} worker");
    let other = worker(&folder, "other", &other);
    let said = with(&other, 13);
    for part in [
        "of the traces is the first that differs",
        "\n  one:   ",
        "\n  other: ",
        "/traces/elections-madsim-1.one",
        "/traces/elections-madsim-1.other",
        &format!("reproduce with: {PROGRAM} twice 1 {file} --engine madsim --with {other}"),
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let lines = |side: &str| {
        let path = format!("{traces}/elections-madsim-1.{side}");
        std::fs::read_to_string(path).unwrap().lines().count()
    };
    assert!(lines("one") > 1_000 && lines("other") > 1_000);

    // A process that dies is a crash of its run.
    let dies = worker(&folder, "dies", "read -r job; exit 1");
    let said = with(&dies, 10);
    assert!(said.contains("the process of the run ended"), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::make("refused");
    let wrong = folder.file("wrong.toml");
    let text = "title = 'x'\nlength = '1s'\nscript = ['at 1s: explode m1']";
    std::fs::write(&wrong, text).unwrap();
    let (killed, empty) = (scenario("primary_killed.toml"), folder.file("empty"));
    std::fs::create_dir(&empty).unwrap();
    let one_engine = failing(&folder);
    let turmoil = ["--engine", "turmoil"];
    let regression =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions/log_lost_its_end.toml");
    let regression = regression.display().to_string();
    for (arguments, why) in [
        (vec!["sweep", "9..3"], "holds no seed"),
        (vec!["run", &wrong], "explode"),
        (vec!["run", "nowhere.toml"], "nowhere.toml"),
        (vec!["replay", &killed], "no replay file"),
        (vec!["run", &killed, "--mistake", "none"], "no mistake"),
        (vec!["mutants", "nope"], "'nope' is no mistake"),
        (vec!["mutants", "--seeds", "0"], "--seeds"),
        (vec!["sweep", "1..3", "--scenarios", &empty], "no scenario"),
        (vec!["regressions", &empty], "no replay files"),
        (
            [&["run", &one_engine], &turmoil[..]].concat(),
            "nothing to run",
        ),
        (
            [&["sweep", "1", &one_engine], &turmoil[..]].concat(),
            "nothing to run",
        ),
        (
            [&["twice", "1", &one_engine], &turmoil[..]].concat(),
            "nothing to run",
        ),
        (
            [&["replay", &regression], &turmoil[..]].concat(),
            "recorded on madsim",
        ),
    ] {
        let said = check(&arguments, 2);
        assert!(said.contains(why), "{why} in {said}");
    }
}
