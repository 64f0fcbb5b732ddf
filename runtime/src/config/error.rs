//! What can be wrong with a configuration, and where.
//!
//! A problem never shows a value of a secret key, and never more than [`EXCERPT_CHARS_MAX`] characters of any.

use std::fmt;
use std::sync::Arc;

/// How much of a text from a file is repeated in a message, in characters.
pub const EXCERPT_CHARS_MAX: usize = 60;

/// How many problems, and how many warnings, are kept; the rest is counted.
pub const MESSAGES_MAX: usize = 200;

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    /// Line and column; none when the file as a whole is meant.
    pub position: Option<(usize, usize)>,
}

impl Place {
    pub(super) fn whole(file: &Arc<str>) -> Place {
        Place {
            file: Arc::clone(file),
            position: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => write!(f, "{}", self.file),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The file is missing, cannot be read, or is too large.
    Unreadable(String),
    /// The text is not JSON, or not an object.
    Syntax(String),
    /// The JSON is of another type than the key takes.
    WrongType {
        wanted: &'static str,
        found: &'static str,
    },
    /// Of the right type, and yet no possible value of this key.
    Impossible(String),
    /// Keys that do not go together.
    Conflict(String),
    /// A credentials file that cannot be read or understood.
    Credentials(String),
    /// More problems than are kept.
    More(usize),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Cause::Syntax(reason) => write!(f, "not valid JSON: {reason}"),
            Cause::WrongType { wanted, found } => write!(f, "must be {wanted}, and is {found}"),
            Cause::Impossible(reason) | Cause::Conflict(reason) | Cause::Credentials(reason) => {
                f.write_str(reason)
            }
            Cause::More(count) => write!(f, "and {count} more problems"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// None when the value at fault is a default.
    pub place: Option<Place>,
    pub key: Option<&'static str>,
    pub cause: Cause,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(key) = self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}", self.cause)
    }
}

/// Everything that is wrong, in the order of the files and then of the rules. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where problems and warnings are collected while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) warnings: Vec<String>,
    problems: Vec<Problem>,
    problems_dropped: usize,
    warnings_dropped: usize,
}

impl Findings {
    pub(super) fn problem(
        &mut self,
        place: Option<Place>,
        key: Option<&'static str>,
        cause: Cause,
    ) {
        if self.problems.len() < MESSAGES_MAX {
            self.problems.push(Problem { place, key, cause });
        } else {
            self.problems_dropped += 1;
        }
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    pub(super) fn has_room_for_warnings(&self) -> bool {
        self.warnings.len() < MESSAGES_MAX
    }

    pub(super) fn warn(&mut self, place: Option<&Place>, text: impl fmt::Display) {
        if !self.has_room_for_warnings() {
            self.warnings_dropped += 1;
            return;
        }
        self.warnings.push(match place {
            Some(place) => format!("{place}: {text}"),
            None => text.to_string(),
        });
    }

    /// The warnings, when nothing is wrong.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConfigErrors> {
        if self.problems.is_empty() {
            if self.warnings_dropped > 0 {
                self.warnings
                    .push(format!("and {} more warnings", self.warnings_dropped));
            }
            return Ok(self.warnings);
        }
        if self.problems_dropped > 0 {
            let cause = Cause::More(self.problems_dropped);
            self.problems.push(Problem {
                place: None,
                key: None,
                cause,
            });
        }
        Err(ConfigErrors {
            problems: self.problems,
        })
    }
}

/// A text from a file as it may be shown: quoted, escaped, cut.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}
