//! Which seeds a process runs, how the run of one ended, and what the process says of it.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// As a shell shows who was ended by SIGPIPE: 128 and the signal's number.
const ENDED_BY_PIPE: i32 = 141;

/// Why a run is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// A panic, or a daemon that ended by itself.
    Crash(String),
    /// An oracle's promise is broken.
    Safety(String),
    /// Something that had to happen did not within its bound.
    Liveness(String),
    /// Two runs of one seed differ.
    NonDeterminism(String),
}

impl Failure {
    /// 10 crash, 11 safety, 12 liveness, 13 non-determinism.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Crash(_) => 10,
            Self::Safety(_) => 11,
            Self::Liveness(_) => 12,
            Self::NonDeterminism(_) => 13,
        })
    }
}

/// What tells one failure from another, of its text: the kind, and for safety and liveness which oracle speaks or what is
/// missing. What exactly, and where it crashed, differs from run to run.
#[must_use]
pub fn class(failure: &str) -> String {
    let mut parts = failure.split(": ");
    let kind = parts.next().unwrap_or_default();
    if kind == "safety" || kind == "liveness" {
        format!("{kind}: {}", parts.next().unwrap_or_default())
    } else {
        kind.to_owned()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, what) = match self {
            Self::Crash(what) => ("crash", what),
            Self::Safety(what) => ("safety", what),
            Self::Liveness(what) => ("liveness", what),
            Self::NonDeterminism(what) => ("non-determinism", what),
        };
        write!(f, "{kind}: {what}")
    }
}

/// Says a line. Nobody reads any more what a program says whose reader has gone (`| head`): it ends.
pub fn say(line: fmt::Arguments<'_>) {
    // What else may be wrong with the output can be said nowhere.
    if let Err(error) = writeln!(io::stdout().lock(), "{line}")
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(ENDED_BY_PIPE);
    }
}

/// One seed, or `FROM..TO` without TO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl std::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|error| format!("'{text}' is no seed: {error}"))
        };
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => {
                let seed = number(text)?;
                seed..seed.checked_add(1).ok_or("the seed is too great")?
            }
        };
        if range.is_empty() {
            return Err(format!("{text} holds no seed"));
        }
        Ok(Self(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_kind_and_oracle() {
        let class_of = |failure: Failure| class(&failure.to_string());
        let safety = |text: &str| class_of(Failure::Safety(text.to_owned()));
        assert_eq!(safety("one primary: a"), safety("one primary: b: c"));
        assert_ne!(safety("one primary: a"), safety("one leader: a"));
        let liveness = |text: &str| class_of(Failure::Liveness(text.to_owned()));
        assert_eq!(liveness("primary: a"), liveness("primary: b"));
        assert_ne!(liveness("primary: a"), liveness("leader: a"));
    }

    #[test]
    fn seeds_are_one_or_a_range() {
        let parse = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(parse("7"), Ok(7..8));
        assert_eq!(parse("3..9"), Ok(3..9));
        for wrong in ["", "x", "9..3", "3..3", "1..y", "18446744073709551615"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
