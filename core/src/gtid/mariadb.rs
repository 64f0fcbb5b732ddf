//! GTID positions of MariaDB.
//!
//! Decides, domain by domain, who is further on and by how much. A position names only the last transaction of
//! each domain, so everything before it is taken as held: with `gtid_strict_mode` off, or after writes on two
//! servers of one domain, a greater sequence number does not prove that the lesser one's transaction is there.
//! Whoever needs proof looks at [`errant`] and [`MariadbGtidSet::conflicts`] too.
//!
//! What holds between calls: one entry a domain, its sequence number at least 1. (MariaDB documentation, "Global
//! Transaction ID"; 10.0 and later.)

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SetOrder;

/// Most entries read from one text. `gtid_binlog_state` has one for each server id of each domain.
pub const ENTRIES_MAX: usize = 65_536;

/// A replication domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Domain(pub u32);

/// The server that wrote a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(pub u32);

/// The last transaction of a domain. Greater means later; server ids break ties, so that a union does not depend
/// on the order of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Last {
    /// At least 1.
    pub sequence: u64,
    pub server_id: ServerId,
}

/// A position: the last transaction of each domain. Its `Ord` is for keys only; [`MariadbGtidSet::compare`] tells
/// what is held.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MariadbGtidSet {
    domains: BTreeMap<Domain, Last>,
}

/// What one position holds of a domain and another lacks: the sequence numbers in `after + 1 ..= upto`, where not
/// every number need have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gap {
    pub domain: Domain,
    /// The last that both hold; 0 if the other knows nothing of the domain.
    pub after: u64,
    pub upto: u64,
    /// Who wrote the transaction `upto`.
    pub server_id: ServerId,
}

/// A domain in which a replica holds what its primary does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ErrantDomain {
    pub domain: Domain,
    pub replica: Last,
    /// None if the primary knows nothing of the domain.
    pub primary: Option<Last>,
}

/// Why a text is no position. `at` is the byte where the entry at fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Nothing between two commas.
    EmptyItem { at: usize },
    /// Not three numbers joined by hyphens.
    BadEntry { at: usize },
    /// Domain or server id over 32 bits, or sequence number over 64.
    NumberTooLarge { at: usize },
    /// More entries than `limit`.
    TooManyEntries { limit: usize },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::EmptyItem { at } => write!(f, "nothing between commas at byte {at}"),
            ParseError::BadEntry { at } => write!(f, "no domain-server-sequence at byte {at}"),
            ParseError::NumberTooLarge { at } => write!(f, "number too large at byte {at}"),
            ParseError::TooManyEntries { limit } => write!(f, "more than {limit} entries"),
        }
    }
}

impl core::error::Error for ParseError {}

/// The domains in which the replica is ahead of the primary, or at the same number written by another server.
///
/// A replica that is behind can hold errant transactions too; a position does not show them. Exact when the
/// primary was read after the replica.
pub fn errant(replica: &MariadbGtidSet, primary: &MariadbGtidSet) -> Vec<ErrantDomain> {
    let errant = |(domain, last): (Domain, Last)| {
        let primary = primary.last(domain);
        let lawful =
            primary.is_some_and(|primary| last == primary || last.sequence < primary.sequence);
        (!lawful).then_some(ErrantDomain {
            domain,
            replica: last,
            primary,
        })
    };
    replica.domains().filter_map(errant).collect()
}

impl Gap {
    /// Sequence numbers, at least one.
    pub fn count(&self) -> u64 {
        self.upto.saturating_sub(self.after)
    }
}

impl MariadbGtidSet {
    pub fn new() -> MariadbGtidSet {
        MariadbGtidSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The sum of the sequence numbers; saturates at `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.domains
            .values()
            .fold(0, |sum, last| sum.saturating_add(last.sequence))
    }

    /// By domain.
    pub fn domains(&self) -> impl Iterator<Item = (Domain, Last)> {
        self.domains.iter().map(|(domain, last)| (*domain, *last))
    }

    pub fn last(&self, domain: Domain) -> Option<Last> {
        self.domains.get(&domain).copied()
    }

    /// Moves a domain on to this transaction; one that is not later leaves it as it is. Sequence number 0 stands
    /// for no transaction and is ignored.
    pub fn advance(&mut self, domain: Domain, last: Last) {
        if last.sequence == 0 {
            return;
        }
        let held = self.domains.entry(domain).or_insert(last);
        *held = (*held).max(last);
    }

    /// Per domain the later of the two.
    pub fn union(&self, other: &MariadbGtidSet) -> MariadbGtidSet {
        let mut union = self.clone();
        for (domain, last) in other.domains() {
            union.advance(domain, last);
        }
        union
    }

    /// Per domain the earlier of the two; domains that only one knows are left out.
    pub fn intersect(&self, other: &MariadbGtidSet) -> MariadbGtidSet {
        let both = self
            .domains()
            .filter_map(|(domain, last)| Some((domain, last.min(other.last(domain)?))));
        MariadbGtidSet {
            domains: both.collect(),
        }
    }

    /// What this position holds and the other lacks, by domain.
    pub fn subtract(&self, other: &MariadbGtidSet) -> Vec<Gap> {
        let gap = |(domain, last): (Domain, Last)| {
            let after = other.last(domain).map_or(0, |last| last.sequence);
            (after < last.sequence).then_some(Gap {
                domain,
                after,
                upto: last.sequence,
                server_id: last.server_id,
            })
        };
        self.domains().filter_map(gap).collect()
    }

    /// Whether this position is as far on as the other in each of the other's domains. By sequence number alone:
    /// see [`MariadbGtidSet::conflicts`].
    pub fn contains(&self, other: &MariadbGtidSet) -> bool {
        other.domains().all(|(domain, last)| {
            self.last(domain)
                .is_some_and(|held| last.sequence <= held.sequence)
        })
    }

    /// How many sequence numbers the other holds that this position lacks; saturates at `u64::MAX`.
    pub fn missing_count(&self, other: &MariadbGtidSet) -> u64 {
        other
            .subtract(self)
            .iter()
            .fold(0, |sum, gap| sum.saturating_add(gap.count()))
    }

    /// Domains in which both stand at the same number, written by different servers: two histories.
    pub fn conflicts(&self, other: &MariadbGtidSet) -> Vec<Domain> {
        let conflict = |(domain, last): (Domain, Last)| {
            let other = other.last(domain)?;
            (last.sequence == other.sequence && last.server_id != other.server_id).then_some(domain)
        };
        self.domains().filter_map(conflict).collect()
    }

    /// How this position stands to the other. A conflict makes it `Diverged`, whatever the other domains say.
    pub fn compare(&self, other: &MariadbGtidSet) -> SetOrder {
        if !self.conflicts(other).is_empty() {
            return SetOrder::Diverged;
        }
        SetOrder::from_contains(other.contains(self), self.contains(other))
    }
}

fn parse_entry(entry: &str, at: usize) -> Result<(Domain, Last), ParseError> {
    let text = entry.trim_ascii();
    if text.is_empty() {
        return Err(ParseError::EmptyItem { at });
    }
    let mut numbers = text.split('-').map(|number| number_of(number, at));
    let (Some(domain), Some(server_id), Some(sequence), None) = (
        numbers.next(),
        numbers.next(),
        numbers.next(),
        numbers.next(),
    ) else {
        return Err(ParseError::BadEntry { at });
    };
    let narrow = |number: u64| u32::try_from(number).map_err(|_| ParseError::NumberTooLarge { at });
    Ok((
        Domain(narrow(domain?)?),
        Last {
            server_id: ServerId(narrow(server_id?)?),
            sequence: sequence?,
        },
    ))
}

fn number_of(text: &str, at: usize) -> Result<u64, ParseError> {
    let text = text.trim_ascii();
    // `u64::from_str` would take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::BadEntry { at });
    }
    text.parse().map_err(|_| ParseError::NumberTooLarge { at })
}

fn parse_bounded(text: &str, limit: usize) -> Result<MariadbGtidSet, ParseError> {
    let mut set = MariadbGtidSet::new();
    if text.trim_ascii().is_empty() {
        return Ok(set);
    }
    let mut at = 0;
    for (index, entry) in text.split(',').enumerate() {
        if index >= limit {
            return Err(ParseError::TooManyEntries { limit });
        }
        let (domain, last) = parse_entry(entry, at)?;
        set.advance(domain, last);
        at += entry.len() + 1;
    }
    Ok(set)
}

/// What was saved is bounded by its own length. A union can lawfully hold more than `ENTRIES_MAX`, and what was
/// written has to be readable.
fn parse_saved(text: &str) -> Result<MariadbGtidSet, ParseError> {
    parse_bounded(text, usize::MAX)
}

impl FromStr for MariadbGtidSet {
    type Err = ParseError;

    /// Reads at most [`ENTRIES_MAX`] entries: a position, or a `gtid_binlog_state`, of which the latest entry of
    /// each domain is kept. White space is ignored, an empty text is the empty position, and a sequence number of
    /// 0 stands for no transaction.
    fn from_str(text: &str) -> Result<MariadbGtidSet, ParseError> {
        parse_bounded(text, ENTRIES_MAX)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.server_id, self.sequence)
    }
}

/// `domain-server-from..upto`, with both ends included.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.after.saturating_add(1);
        write!(
            f,
            "{}-{}-{first}..{}",
            self.domain, self.server_id, self.upto
        )
    }
}

impl fmt::Display for ErrantDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} where the primary ", self.domain, self.replica)?;
        match self.primary {
            None => f.write_str("has nothing"),
            Some(last) => write!(f, "is at {}-{last}", self.domain),
        }
    }
}

impl fmt::Display for MariadbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (domain, last)) in self.domains().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{domain}-{last}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MariadbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MariadbGtidSet({self})")
    }
}

serde_as_text!(MariadbGtidSet, parse_saved, "a GTID position of MariaDB");
