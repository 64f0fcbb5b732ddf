//! Holds the table `requirements.md` against the sources of the tests: every requirement has a row, every row is complete
//! or stands on later work and says what is missing, and every test and measurement that it names exists and is run by
//! `run.sh`. Every measurement is named in its row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const REQUIREMENTS: usize = 61;
/// What stands on later work: these alone may be partial.
const LATER: [usize; 7] = [1, 15, 16, 26, 32, 39, 40];
/// The benchmark whose measurements are named beside the tests, as `deployment-bench::NAME`.
const BENCH: &str = "deployment-bench";

/// A row of the table, without its number.
struct Row {
    what: String,
    status: String,
    tests: Vec<String>,
    missing: String,
}

/// The rows by their numbers, or what is wrong with a line.
fn rows(table: &str) -> Result<BTreeMap<usize, Row>, String> {
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| SR-")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, what, status, tests, missing, _] = cells[..] else {
            return Err(format!("not five columns: {line}"));
        };
        let number = number
            .strip_prefix("SR-")
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("no number: {line}"))?;
        let mut named = Vec::new();
        for test in tests.split_whitespace() {
            let name = test
                .strip_prefix('`')
                .and_then(|test| test.strip_suffix('`'));
            named.push(
                name.ok_or_else(|| format!("{test} has no backquotes"))?
                    .to_owned(),
            );
        }
        let row = Row {
            what: what.to_owned(),
            status: status.to_owned(),
            tests: named,
            missing: missing.to_owned(),
        };
        if rows.insert(number, row).is_some() {
            return Err(format!("SR-{number:02} has two rows"));
        }
    }
    Ok(rows)
}

/// What is wrong with the table, given all tests that there are, and all measurements with the numbers of their rows.
fn wrongs(
    table: &str,
    tests: &BTreeSet<String>,
    measurements: &BTreeMap<String, usize>,
) -> Vec<String> {
    let rows = match rows(table) {
        Ok(rows) => rows,
        Err(wrong) => return vec![wrong],
    };
    let mut wrongs = Vec::new();
    for number in 1..=REQUIREMENTS {
        if !rows.contains_key(&number) {
            wrongs.push(format!("SR-{number:02} has no row"));
        }
    }
    for (number, row) in rows {
        let mut wrong = |why: String| wrongs.push(format!("SR-{number:02}: {why}"));
        if number == 0 || number > REQUIREMENTS {
            wrong(String::from("there is no such requirement"));
        }
        if row.what.is_empty() {
            wrong(String::from("it says nothing"));
        }
        match row.status.as_str() {
            "complete" if row.tests.is_empty() => wrong(String::from("complete without a test")),
            "complete" if !row.missing.is_empty() => {
                wrong(format!(
                    "complete, and something is missing: {}",
                    row.missing
                ));
            }
            "partial" if !LATER.contains(&number) => {
                wrong(String::from("partial, and no later work completes it"));
            }
            "partial" if row.missing.is_empty() => {
                wrong(String::from("partial, and nothing is missing"));
            }
            "complete" | "partial" => {}
            other => wrong(format!("'{other}' is neither complete nor partial")),
        }
        for name in &row.tests {
            match measurements.get(name) {
                None if tests.contains(name) => {}
                None => wrong(format!("there is no test {name}")),
                Some(of) if *of == number => {}
                Some(of) => wrong(format!("{name} is of SR-{of:02}")),
            }
        }
        for (name, of) in measurements {
            if *of == number && !row.tests.contains(name) {
                wrong(format!("{name} is not named"));
            }
        }
    }
    wrongs
}

/// The measurements in the benchmark's table, as `BINARY::NAME`, with the numbers of their rows.
fn measurements(source: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut last = None;
    for line in source.lines().map(str::trim) {
        let value = |begin: &str, end: &str| line.strip_prefix(begin)?.strip_suffix(end);
        if let Some(name) = value("name: \"", "\",") {
            last = Some(format!("{BENCH}::{name}"));
        } else if let Some(number) = value("requirement: ", ",")
            && let Some(name) = last.take()
        {
            found.insert(name, number.parse().expect("the number of a row"));
        }
    }
    found
}

/// Every measurement that `run.sh` makes.
fn measurements_that_are_made(package: &Path) -> BTreeMap<String, usize> {
    let script = fs::read_to_string(package.join("run.sh")).expect("run.sh");
    let call = format!("\"$target/{BENCH}\"");
    if !script.lines().any(|line| line.trim().starts_with(&call)) {
        return BTreeMap::new();
    }
    let source = package.join(format!("src/bin/{BENCH}.rs"));
    measurements(&fs::read_to_string(source).expect(BENCH))
}

/// The names of the test functions of a source.
fn test_functions(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut is_test, mut in_list) = (false, false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            is_test = true;
        } else if line == "on_both!(" {
            in_list = true;
        } else if in_list {
            in_list = line != ");";
            found.extend(line.strip_suffix(',').map(str::to_owned));
        } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
            is_test = false;
            found.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    found
}

/// Every test on real processes that `run.sh` runs, as `BINARY::NAME`.
fn tests_that_are_run(package: &Path) -> BTreeSet<String> {
    let read = |name: &str| fs::read_to_string(package.join(name)).expect(name);
    let (manifest, script) = (read("Cargo.toml"), read("run.sh"));
    let in_turn = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("for binary in "))
        .flat_map(|line| line.trim_end_matches("; do").split(' '));
    let by_name = script
        .lines()
        .filter_map(|line| line.trim().split_once("cargo test --workspace --test "))
        .filter_map(|(_, rest)| rest.split(' ').next());
    let beside = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("beside "))
        .filter_map(|rest| rest.split(' ').next());
    let run: BTreeSet<&str> = in_turn.chain(by_name).chain(beside).collect();
    let value = |line: &str, key: &str| {
        let text = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        text.strip_suffix('"').map(str::to_owned)
    };
    let mut tests = BTreeSet::new();
    for section in manifest.split("[[test]]").skip(1) {
        let of = |key: &str| {
            section
                .lines()
                .find_map(|line| value(line, key))
                .expect(key)
        };
        let (binary, path) = (of("name"), of("path"));
        if run.contains(binary.as_str()) {
            let mut functions = Vec::new();
            match path.strip_suffix("/main.rs") {
                None => functions.extend(test_functions(&read(&path))),
                Some(folder) => {
                    for entry in fs::read_dir(package.join(folder)).expect(folder) {
                        let path = entry.expect(folder).path();
                        functions.extend(test_functions(&fs::read_to_string(path).expect(folder)));
                    }
                }
            }
            tests.extend(functions.iter().map(|name| format!("{binary}::{name}")));
        }
    }
    tests
}

#[test]
fn every_requirement_is_shown_or_says_what_is_not() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = tests_that_are_run(package);
    assert!(tests.contains("real::primary_killed"), "{tests:?}");
    let measurements = measurements_that_are_made(package);
    let healthy = measurements.get("deployment-bench::cut_off_is_unhealthy");
    assert_eq!(healthy, Some(&14), "{measurements:?}");
    let table = fs::read_to_string(package.join("requirements.md")).expect("the table");
    let wrongs = wrongs(&table, &tests, &measurements);
    assert_eq!(wrongs, Vec::<String>::new());
}

#[test]
fn a_row_that_is_wrong_is_found() {
    let tests = BTreeSet::from([String::from("a::b")]);
    let source = "    name: \"fast\",\n    requirement: 9,\n";
    let measurements = measurements(source);
    let row = |number: usize| match number {
        9 => String::from("| SR-09 | x | complete | `a::b` `deployment-bench::fast` | |"),
        _ => format!("| SR-{number:02} | x | complete | `a::b` | |"),
    };
    let check = |number: usize, other: &str, wanted: &[&str]| {
        let rows = (1..=REQUIREMENTS).map(|of| match of == number {
            true => other.to_owned(),
            false => row(of),
        });
        let table = rows.collect::<Vec<_>>().join("\n");
        assert_eq!(wrongs(&table, &tests, &measurements), wanted, "{other}");
    };
    check(9, &row(9), &[]);
    check(15, "| SR-15 | x | partial | | y |", &[]);
    for (number, other, wrong) in [
        (7, "", "SR-07 has no row"),
        (
            7,
            "| SR-07 | x | complete | `a::c` | |",
            "SR-07: there is no test a::c",
        ),
        (
            7,
            "| SR-07 | x | complete | | |",
            "SR-07: complete without a test",
        ),
        (
            15,
            "| SR-15 | x | partial | `a::b` | |",
            "SR-15: partial, and nothing is missing",
        ),
        (
            7,
            "| SR-07 | x | partial | `a::b` | y |",
            "SR-07: partial, and no later work completes it",
        ),
        (
            7,
            "| SR-07 | x | complete | `a::b` | y |",
            "SR-07: complete, and something is missing: y",
        ),
        (
            7,
            "| SR-07 | x | done | | |",
            "SR-07: 'done' is neither complete nor partial",
        ),
        (15, "| SR-15 | | partial | | y |", "SR-15: it says nothing"),
        (
            7,
            "| SR-08 | x | complete | `a::b` | |",
            "SR-08 has two rows",
        ),
        (
            7,
            "| SR-07 | x | complete | `deployment-bench::slow` | |",
            "SR-07: there is no test deployment-bench::slow",
        ),
        (
            7,
            "| SR-07 | x | complete | `deployment-bench::fast` | |",
            "SR-07: deployment-bench::fast is of SR-09",
        ),
        (
            9,
            "| SR-09 | x | complete | `a::b` | |",
            "SR-09: deployment-bench::fast is not named",
        ),
    ] {
        check(number, other, &[wrong]);
    }
}
