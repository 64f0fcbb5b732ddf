//! GTID sets of both flavours: which transactions a server holds, as plain algebra.
//!
//! Decides containment, difference and the errant part of what two servers report. Never asks a server, never
//! guesses a flavour from the text, and never compares across flavours: that is a [`FlavourMismatch`].
//!
//! What holds: every set is canonical (sorted, merged, lower case), so two sets are equal exactly when they
//! print the same; parsing is total, linear in the text but for one sort, and bounded by named limits; the sums
//! saturate at `u64::MAX`.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A value whose saved form is its text: `Display` out, the given function in.
macro_rules! serde_as_text {
    ($type:ty, $parse:expr, $expecting:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        $parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

pub mod mariadb;
pub mod oracle;

pub use mariadb::{Gap, MariadbGtidSet};
pub use oracle::{Gtid, Interval, OracleGtidSet, Origin, Tag, Uuid};

/// Whose GTIDs they are. Oracle's are those of MySQL and Percona Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Flavour {
    Oracle,
    Mariadb,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Oracle => "Oracle",
            Flavour::Mariadb => "MariaDB",
        })
    }
}

/// How one set stands to another, by what is held. Not a total order, hence not [`core::cmp::Ordering`]; the
/// `Ord` of the sets themselves is for keys of maps only and says nothing about what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SetOrder {
    /// Both hold the same.
    Equal,
    /// The first holds all of the second and more.
    Superset,
    /// The second holds all of the first and more.
    Subset,
    /// Each holds something that the other lacks.
    Diverged,
}

impl SetOrder {
    fn from_contains(first_in_second: bool, second_in_first: bool) -> SetOrder {
        match (first_in_second, second_in_first) {
            (true, true) => SetOrder::Equal,
            (false, true) => SetOrder::Superset,
            (true, false) => SetOrder::Subset,
            (false, false) => SetOrder::Diverged,
        }
    }

    /// The same relation seen from the other side.
    pub fn reverse(self) -> SetOrder {
        match self {
            SetOrder::Equal => SetOrder::Equal,
            SetOrder::Superset => SetOrder::Subset,
            SetOrder::Subset => SetOrder::Superset,
            SetOrder::Diverged => SetOrder::Diverged,
        }
    }
}

impl fmt::Display for SetOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetOrder::Equal => "equal",
            SetOrder::Superset => "superset",
            SetOrder::Subset => "subset",
            SetOrder::Diverged => "diverged",
        })
    }
}

/// Two sets of different flavours cannot be compared or combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlavourMismatch {
    pub first: Flavour,
    pub second: Flavour,
}

impl fmt::Display for FlavourMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GTIDs of {} and of {} cannot be compared",
            self.first, self.second
        )
    }
}

impl core::error::Error for FlavourMismatch {}

/// Why a text is no GTID set of the flavour asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    Oracle(oracle::ParseError),
    Mariadb(mariadb::ParseError),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Oracle(error) => error.fmt(f),
            ParseError::Mariadb(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ParseError {}

/// What one server holds, in its own flavour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GtidSet {
    Oracle(OracleGtidSet),
    Mariadb(MariadbGtidSet),
}

/// What the first of two sets holds and the second lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Difference {
    Oracle(OracleGtidSet),
    /// One a domain, by domain.
    Mariadb(alloc::vec::Vec<Gap>),
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        match self {
            Difference::Oracle(set) => set.is_empty(),
            Difference::Mariadb(gaps) => gaps.is_empty(),
        }
    }

    /// Transactions; saturates at `u64::MAX`.
    pub fn count(&self) -> u64 {
        match self {
            Difference::Oracle(set) => set.count(),
            Difference::Mariadb(gaps) => gaps
                .iter()
                .fold(0, |sum, gap| sum.saturating_add(gap.count())),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Oracle(set) => set.fmt(f),
            Difference::Mariadb(gaps) => {
                for (index, gap) in gaps.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    gap.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl GtidSet {
    pub fn empty(flavour: Flavour) -> GtidSet {
        match flavour {
            Flavour::Oracle => GtidSet::Oracle(OracleGtidSet::new()),
            Flavour::Mariadb => GtidSet::Mariadb(MariadbGtidSet::new()),
        }
    }

    /// Reads what a server of this flavour prints. The flavour is never taken from the text: an empty text is
    /// the empty set of either.
    pub fn parse(flavour: Flavour, text: &str) -> Result<GtidSet, ParseError> {
        match flavour {
            Flavour::Oracle => text
                .parse()
                .map(GtidSet::Oracle)
                .map_err(ParseError::Oracle),
            Flavour::Mariadb => text
                .parse()
                .map(GtidSet::Mariadb)
                .map_err(ParseError::Mariadb),
        }
    }

    pub fn flavour(&self) -> Flavour {
        match self {
            GtidSet::Oracle(_) => Flavour::Oracle,
            GtidSet::Mariadb(_) => Flavour::Mariadb,
        }
    }

    pub fn as_oracle(&self) -> Option<&OracleGtidSet> {
        match self {
            GtidSet::Oracle(set) => Some(set),
            GtidSet::Mariadb(_) => None,
        }
    }

    pub fn as_mariadb(&self) -> Option<&MariadbGtidSet> {
        match self {
            GtidSet::Oracle(_) => None,
            GtidSet::Mariadb(set) => Some(set),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            GtidSet::Oracle(set) => set.is_empty(),
            GtidSet::Mariadb(set) => set.is_empty(),
        }
    }

    /// Transactions; saturates at `u64::MAX`.
    pub fn count(&self) -> u64 {
        match self {
            GtidSet::Oracle(set) => set.count(),
            GtidSet::Mariadb(set) => set.count(),
        }
    }

    /// What either holds.
    pub fn union(&self, other: &GtidSet) -> Result<GtidSet, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => {
                Ok(GtidSet::Oracle(first.union(second)))
            }
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => {
                Ok(GtidSet::Mariadb(first.union(second)))
            }
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    /// What both hold.
    pub fn intersect(&self, other: &GtidSet) -> Result<GtidSet, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => {
                Ok(GtidSet::Oracle(first.intersect(second)))
            }
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => {
                Ok(GtidSet::Mariadb(first.intersect(second)))
            }
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    /// What this set holds and the other lacks.
    pub fn subtract(&self, other: &GtidSet) -> Result<Difference, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => {
                Ok(Difference::Oracle(first.subtract(second)))
            }
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => {
                Ok(Difference::Mariadb(first.subtract(second)))
            }
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    /// Whether this set holds all of the other. Equal sets are supersets of each other.
    pub fn is_superset(&self, other: &GtidSet) -> Result<bool, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => Ok(first.contains(second)),
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => Ok(first.contains(second)),
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    /// How many transactions the other holds that this set lacks; saturates at `u64::MAX`.
    pub fn missing_count(&self, other: &GtidSet) -> Result<u64, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => Ok(first.missing_count(second)),
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => Ok(first.missing_count(second)),
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    /// How this set stands to the other. `Equal` exactly when the sets are equal.
    pub fn compare(&self, other: &GtidSet) -> Result<SetOrder, FlavourMismatch> {
        match (self, other) {
            (GtidSet::Oracle(first), GtidSet::Oracle(second)) => Ok(first.compare(second)),
            (GtidSet::Mariadb(first), GtidSet::Mariadb(second)) => Ok(first.compare(second)),
            (GtidSet::Oracle(_), GtidSet::Mariadb(_))
            | (GtidSet::Mariadb(_), GtidSet::Oracle(_)) => Err(self.mismatch(other)),
        }
    }

    fn mismatch(&self, other: &GtidSet) -> FlavourMismatch {
        FlavourMismatch {
            first: self.flavour(),
            second: other.flavour(),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidSet::Oracle(set) => set.fmt(f),
            GtidSet::Mariadb(set) => set.fmt(f),
        }
    }
}

impl From<OracleGtidSet> for GtidSet {
    fn from(set: OracleGtidSet) -> GtidSet {
        GtidSet::Oracle(set)
    }
}

impl From<MariadbGtidSet> for GtidSet {
    fn from(set: MariadbGtidSet) -> GtidSet {
        GtidSet::Mariadb(set)
    }
}

/// For fuzzing: any bytes go through every parser without a panic, and what parses prints and parses to itself.
///
/// Panics only if one of these promises is broken.
pub fn check_parse(bytes: &[u8]) {
    use alloc::string::ToString;

    let text = String::from_utf8_lossy(bytes);
    for flavour in [Flavour::Oracle, Flavour::Mariadb] {
        if let Ok(set) = GtidSet::parse(flavour, &text) {
            let printed = set.to_string();
            assert_eq!(
                GtidSet::parse(flavour, &printed),
                Ok(set),
                "printed as {printed:?}"
            );
        }
    }
    if let Ok(gtid) = text.parse::<Gtid>() {
        assert_eq!(gtid.to_string().parse::<Gtid>(), Ok(gtid));
    }
}
