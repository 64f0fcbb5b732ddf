//! GTID sets of MySQL and Percona Server.
//!
//! Decides set algebra over (server UUID, tag, number) and which of a replica's transactions are errant. Never
//! treats two tags of one UUID as the same origin, and never accepts text that the manual's grammar does not
//! (MySQL 8.4 manual, section 19.1.3.1 "GTID Format and Storage").
//!
//! What holds between calls: no origin has an empty interval list; intervals are sorted, disjoint and not
//! adjacent; numbers are within `1..=NUMBER_MAX`.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::SetOrder;

/// Greatest transaction number.
pub const NUMBER_MAX: u64 = (1 << 63) - 1;

/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 32;

/// Most intervals read from one text, counted before merging. A text with more is refused whole.
pub const INTERVALS_MAX: usize = 65_536;

/// A server's UUID. Printed in lower case with hyphens, read in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// The optional name within one server's UUID, MySQL 8.3 and later. Always lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Whose counter a number belongs to: untagged and each tag of one UUID count on their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub uuid: Uuid,
    pub tag: Option<Tag>,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    origin: Origin,
    number: u64,
}

/// Consecutive numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    first: u64,
    last: u64,
}

/// A set of transactions. Its `Ord` is for keys only; [`OracleGtidSet::compare`] tells what is held.
///
/// `{}` prints on one line; `{:#}` breaks the line after each comma, as the server does.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OracleGtidSet {
    origins: BTreeMap<Origin, Vec<Interval>>,
}

/// Why a text is no GTID or GTID set. `at` is the byte where the part at fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not 32 hexadecimal digits in groups of 8-4-4-4-12.
    BadUuid { at: usize },
    /// A UUID or tag that no interval follows.
    MissingInterval { at: usize },
    /// Nothing between two separators.
    EmptyItem { at: usize },
    /// Not a number within `1..=NUMBER_MAX`.
    BadNumber { at: usize },
    /// The interval ends before it begins.
    ReversedInterval { at: usize },
    /// Not a letter or underscore and then up to 31 letters, digits or underscores.
    BadTag { at: usize },
    /// More than one transaction where one was asked for.
    NotSingle { at: usize },
    /// More intervals than `limit`.
    TooManyIntervals { limit: usize },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::BadUuid { at } => write!(f, "no UUID at byte {at}"),
            ParseError::MissingInterval { at } => {
                write!(f, "no interval follows the name at byte {at}")
            }
            ParseError::EmptyItem { at } => write!(f, "nothing between separators at byte {at}"),
            ParseError::BadNumber { at } => {
                write!(f, "no number within 1..={NUMBER_MAX} at byte {at}")
            }
            ParseError::ReversedInterval { at } => {
                write!(f, "interval at byte {at} ends before it begins")
            }
            ParseError::BadTag { at } => write!(f, "no tag at byte {at}"),
            ParseError::NotSingle { at } => write!(f, "more than one transaction at byte {at}"),
            ParseError::TooManyIntervals { limit } => write!(f, "more than {limit} intervals"),
        }
    }
}

impl core::error::Error for ParseError {}

/// The original's rule for errant transactions: those of the replica's own UUID or of a server that is no
/// ancestor, unless the parent has them too. Those of ancestors never count.
///
/// `ancestry` are the UUIDs from the root down and may include `own_uuid`. Empty when either set is empty, for
/// then nothing is known. [`surplus`] is the stricter test.
pub fn errant(
    replica: &OracleGtidSet,
    own_uuid: Uuid,
    ancestry: &[Uuid],
    parent: &OracleGtidSet,
    parent_uuid: Uuid,
) -> OracleGtidSet {
    errant_among(
        replica,
        |uuid| uuid == own_uuid || !ancestry.contains(&uuid),
        parent,
        parent_uuid,
    )
}

/// As [`errant`] for one of two co-primaries: its own transactions are lawful and do not count.
pub fn errant_of_co_primary(
    replica: &OracleGtidSet,
    own_uuid: Uuid,
    ancestry: &[Uuid],
    parent: &OracleGtidSet,
    parent_uuid: Uuid,
) -> OracleGtidSet {
    errant_among(
        replica,
        |uuid| uuid != own_uuid && !ancestry.contains(&uuid),
        parent,
        parent_uuid,
    )
}

fn errant_among(
    replica: &OracleGtidSet,
    suspect: impl Fn(Uuid) -> bool,
    parent: &OracleGtidSet,
    parent_uuid: Uuid,
) -> OracleGtidSet {
    if replica.is_empty() || parent.is_empty() {
        return OracleGtidSet::new();
    }
    replica
        .filtered(suspect)
        .subtract(&parent.without_uuid(parent_uuid))
}

/// All that the replica holds and the primary lacks, whoever wrote it. Exact when the primary was read after the
/// replica; when it was read before, transactions that were on their way show up too.
pub fn surplus(replica: &OracleGtidSet, primary: &OracleGtidSet) -> OracleGtidSet {
    replica.subtract(primary)
}

impl Tag {
    /// The tag's text, always in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origin {
    pub fn untagged(uuid: Uuid) -> Origin {
        Origin { uuid, tag: None }
    }

    pub fn tagged(uuid: Uuid, tag: Tag) -> Origin {
        Origin {
            uuid,
            tag: Some(tag),
        }
    }
}

impl Gtid {
    /// None unless the number is within `1..=NUMBER_MAX`.
    pub fn new(origin: Origin, number: u64) -> Option<Gtid> {
        (1..=NUMBER_MAX)
            .contains(&number)
            .then_some(Gtid { origin, number })
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Interval {
    /// None unless `1 <= first <= last <= NUMBER_MAX`.
    pub fn new(first: u64, last: u64) -> Option<Interval> {
        (1 <= first && first <= last && last <= NUMBER_MAX).then_some(Interval { first, last })
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// Transactions, at least one.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl OracleGtidSet {
    pub fn new() -> OracleGtidSet {
        OracleGtidSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Transactions; saturates at `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.origins
            .values()
            .flatten()
            .fold(0, |sum, interval| sum.saturating_add(interval.count()))
    }

    /// Intervals over all origins: what the size of the printed form goes by.
    pub fn interval_count(&self) -> usize {
        self.origins.values().map(Vec::len).sum()
    }

    /// Origins in canonical order, each with its intervals.
    pub fn origins(&self) -> impl Iterator<Item = (&Origin, &[Interval])> {
        self.origins
            .iter()
            .map(|(origin, intervals)| (origin, intervals.as_slice()))
    }

    /// The intervals of one origin, none if it is unknown.
    pub fn intervals(&self, origin: &Origin) -> &[Interval] {
        self.origins.get(origin).map_or(&[], Vec::as_slice)
    }

    /// Each UUID once, ascending.
    pub fn uuids(&self) -> impl Iterator<Item = Uuid> {
        let mut before = None;
        self.origins.keys().filter_map(move |origin| {
            let fresh = before != Some(origin.uuid);
            before = Some(origin.uuid);
            fresh.then_some(origin.uuid)
        })
    }

    /// Each transaction in canonical order. Lazy, and there can be 2^63 an origin: the caller bounds it.
    pub fn gtids(&self) -> impl Iterator<Item = Gtid> {
        self.origins.iter().flat_map(|(origin, intervals)| {
            intervals
                .iter()
                .flat_map(|interval| interval.first..=interval.last)
                .map(|number| Gtid {
                    origin: origin.clone(),
                    number,
                })
        })
    }

    /// The greatest number of one origin.
    pub fn last_number(&self, origin: &Origin) -> Option<u64> {
        self.intervals(origin).last().map(Interval::last)
    }

    /// The number that a server with this executed set gives its next transaction: the smallest that is free.
    /// None when the origin is used up.
    pub fn next_number(&self, origin: &Origin) -> Option<u64> {
        match self.intervals(origin).first() {
            Some(interval) if interval.first == 1 => {
                (interval.last < NUMBER_MAX).then(|| interval.last + 1)
            }
            Some(_) | None => Some(1),
        }
    }

    pub fn insert(&mut self, gtid: Gtid) {
        self.insert_interval(
            gtid.origin,
            Interval {
                first: gtid.number,
                last: gtid.number,
            },
        );
    }

    pub fn insert_interval(&mut self, origin: Origin, interval: Interval) {
        insert_interval(self.origins.entry(origin).or_default(), interval);
    }

    pub fn contains_gtid(&self, gtid: &Gtid) -> bool {
        let intervals = self.intervals(&gtid.origin);
        let at = intervals.partition_point(|interval| interval.last < gtid.number);
        intervals
            .get(at)
            .is_some_and(|interval| interval.first <= gtid.number)
    }

    /// Whether all of the other is in this set. Everything contains the empty set.
    pub fn contains(&self, other: &OracleGtidSet) -> bool {
        other
            .origins
            .iter()
            .all(|(origin, inner)| contains_intervals(self.intervals(origin), inner))
    }

    /// What either holds.
    pub fn union(&self, other: &OracleGtidSet) -> OracleGtidSet {
        let mut union = self.clone();
        union.add(other);
        union
    }

    /// Adds all of the other.
    pub fn add(&mut self, other: &OracleGtidSet) {
        for (origin, added) in &other.origins {
            match self.origins.entry(origin.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(added.clone());
                }
                Entry::Occupied(mut occupied) => {
                    let held = occupied.get_mut();
                    held.extend_from_slice(added);
                    normalise(held);
                }
            }
        }
    }

    /// What this set holds and the other lacks.
    pub fn subtract(&self, other: &OracleGtidSet) -> OracleGtidSet {
        self.per_origin(|origin, held| subtract_intervals(held, other.intervals(origin)))
    }

    /// What both hold.
    pub fn intersect(&self, other: &OracleGtidSet) -> OracleGtidSet {
        self.per_origin(|origin, held| intersect_intervals(held, other.intervals(origin)))
    }

    /// How many transactions the other holds that this set lacks; saturates at `u64::MAX`.
    pub fn missing_count(&self, other: &OracleGtidSet) -> u64 {
        other.subtract(self).count()
    }

    /// How this set stands to the other.
    pub fn compare(&self, other: &OracleGtidSet) -> SetOrder {
        SetOrder::from_contains(other.contains(self), self.contains(other))
    }

    /// This set but for one server's transactions, tagged ones included.
    pub fn without_uuid(&self, uuid: Uuid) -> OracleGtidSet {
        self.filtered(|candidate| candidate != uuid)
    }

    /// This set but for the transactions of these servers, tagged ones included.
    pub fn without_uuids(&self, uuids: &[Uuid]) -> OracleGtidSet {
        self.filtered(|candidate| !uuids.contains(&candidate))
    }

    /// Only one server's transactions, tagged ones included.
    pub fn restricted_to_uuid(&self, uuid: Uuid) -> OracleGtidSet {
        self.filtered(|candidate| candidate == uuid)
    }

    /// Only the transactions of these servers, tagged ones included.
    pub fn restricted_to_uuids(&self, uuids: &[Uuid]) -> OracleGtidSet {
        self.filtered(|candidate| uuids.contains(&candidate))
    }

    fn filtered(&self, keep: impl Fn(Uuid) -> bool) -> OracleGtidSet {
        let kept = self.origins.iter().filter(|(origin, _)| keep(origin.uuid));
        OracleGtidSet {
            origins: kept
                .map(|(origin, intervals)| (origin.clone(), intervals.clone()))
                .collect(),
        }
    }

    fn per_origin(&self, change: impl Fn(&Origin, &[Interval]) -> Vec<Interval>) -> OracleGtidSet {
        let changed = self
            .origins
            .iter()
            .map(|(origin, held)| (origin, change(origin, held)));
        OracleGtidSet {
            origins: changed
                .filter(|(_, intervals)| !intervals.is_empty())
                .map(|(origin, intervals)| (origin.clone(), intervals))
                .collect(),
        }
    }
}

impl FromIterator<Gtid> for OracleGtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> OracleGtidSet {
        let mut origins: BTreeMap<Origin, Vec<Interval>> = BTreeMap::new();
        for Gtid { origin, number } in gtids {
            origins.entry(origin).or_default().push(Interval {
                first: number,
                last: number,
            });
        }
        for intervals in origins.values_mut() {
            normalise(intervals);
        }
        OracleGtidSet { origins }
    }
}

// Intervals ------------------------------------------------------------------------------------------------

/// Sorts, and merges what overlaps or touches. `last + 1` cannot overflow, `NUMBER_MAX` being far below.
fn normalise(intervals: &mut Vec<Interval>) {
    // A stable sort, because it is linear on two sorted runs end to end, which is what a union hands over.
    intervals.sort();
    intervals.dedup_by(|later, earlier| {
        let touches = later.first <= earlier.last + 1;
        if touches {
            earlier.last = earlier.last.max(later.last);
        }
        touches
    });
}

fn insert_interval(intervals: &mut Vec<Interval>, added: Interval) {
    let from = intervals.partition_point(|held| held.last + 1 < added.first);
    let until = from + intervals[from..].partition_point(|held| held.first <= added.last + 1);
    match intervals.get(from..until) {
        Some([first, .., last]) => {
            let merged = Interval {
                first: first.first.min(added.first),
                last: last.last.max(added.last),
            };
            intervals[from] = merged;
            intervals.drain(from + 1..until);
        }
        Some([only]) => {
            intervals[from] = Interval {
                first: only.first.min(added.first),
                last: only.last.max(added.last),
            };
        }
        Some([]) | None => intervals.insert(from, added),
    }
}

fn contains_intervals(outer: &[Interval], inner: &[Interval]) -> bool {
    let mut outer = outer.iter().peekable();
    inner.iter().all(|wanted| {
        while outer.next_if(|held| held.last < wanted.first).is_some() {}
        // Adjacent intervals are merged, so that one interval has to hold all of the wanted one.
        outer
            .peek()
            .is_some_and(|held| held.first <= wanted.first && wanted.last <= held.last)
    })
}

fn subtract_intervals(held: &[Interval], taken: &[Interval]) -> Vec<Interval> {
    let mut left = Vec::new();
    let mut taken = taken.iter().peekable();
    for interval in held {
        let mut first = interval.first;
        while taken.next_if(|hole| hole.last < first).is_some() {}
        while let Some(hole) = taken.peek().filter(|hole| hole.first <= interval.last) {
            if first < hole.first {
                left.push(Interval {
                    first,
                    last: hole.first - 1,
                });
            }
            first = hole.last + 1;
            if first > interval.last {
                // The hole may reach into the next interval, so it stays.
                break;
            }
            taken.next();
        }
        if first <= interval.last {
            left.push(Interval {
                first,
                last: interval.last,
            });
        }
    }
    left
}

fn intersect_intervals(first: &[Interval], second: &[Interval]) -> Vec<Interval> {
    let mut both = Vec::new();
    let (mut first, mut second) = (first.iter().peekable(), second.iter().peekable());
    while let (Some(one), Some(two)) = (first.peek(), second.peek()) {
        both.extend(Interval::new(
            one.first.max(two.first),
            one.last.min(two.last),
        ));
        if one.last < two.last {
            first.next();
        } else {
            second.next();
        }
    }
    both
}

// Text -----------------------------------------------------------------------------------------------------

/// A part of the text read and where it begins in it, for errors.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Part<'a> {
    fn trimmed(self) -> Part<'a> {
        let text = self.text.trim_ascii_start();
        Part {
            text: text.trim_ascii_end(),
            at: self.at + self.text.len() - text.len(),
        }
    }

    fn split(self, separator: char) -> impl Iterator<Item = Part<'a>> {
        let mut at = self.at;
        self.text.split(separator).map(move |text| {
            let part = Part { text, at };
            at += text.len() + separator.len_utf8();
            part.trimmed()
        })
    }

    fn uuid(self) -> Result<Uuid, ParseError> {
        let bad = ParseError::BadUuid { at: self.at };
        if self.text.len() != 36 {
            return Err(bad);
        }
        let mut value: u128 = 0;
        for (index, byte) in self.text.bytes().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(bad);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(bad)?;
            value = value << 4 | u128::from(digit);
        }
        Ok(Uuid(value))
    }

    fn tag(self) -> Result<Tag, ParseError> {
        let bytes = self.text.as_bytes();
        let starts_well = bytes
            .first()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        let goes_on_well = bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if bytes.len() > TAG_BYTES_MAX || !starts_well || !goes_on_well {
            return Err(ParseError::BadTag { at: self.at });
        }
        Ok(Tag(self.text.to_ascii_lowercase()))
    }

    fn number(self) -> Result<u64, ParseError> {
        let bad = ParseError::BadNumber { at: self.at };
        // `u64::from_str` would take a sign.
        if !self.text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad);
        }
        let number = self.text.parse().map_err(|_| bad)?;
        if (1..=NUMBER_MAX).contains(&number) {
            Ok(number)
        } else {
            Err(bad)
        }
    }

    fn interval(self) -> Result<Interval, ParseError> {
        let Some((first, last)) = self.text.split_once('-') else {
            let number = self.number()?;
            return Ok(Interval {
                first: number,
                last: number,
            });
        };
        let last_at = self.at + first.len() + 1;
        let first = Part {
            text: first,
            at: self.at,
        }
        .trimmed()
        .number()?;
        let last = Part {
            text: last,
            at: last_at,
        }
        .trimmed()
        .number()?;
        Interval::new(first, last).ok_or(ParseError::ReversedInterval { at: self.at })
    }

    /// An item after the UUID is an interval if it begins with a digit and else a tag, which cannot.
    fn is_interval(self) -> bool {
        self.text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit())
    }
}

fn parse_entry(
    entry: Part<'_>,
    limit: usize,
    count: &mut usize,
    origins: &mut BTreeMap<Origin, Vec<Interval>>,
) -> Result<(), ParseError> {
    let mut items = entry.split(':');
    let name = items.next().unwrap_or(entry);
    if name.text.is_empty() {
        return Err(ParseError::EmptyItem { at: name.at });
    }
    let uuid = name.uuid()?;
    let mut tag = None;
    let mut intervals = Vec::new();
    // Where the name is that still needs an interval.
    let mut bare = Some(name.at);
    for item in items {
        if item.text.is_empty() {
            return Err(ParseError::EmptyItem { at: item.at });
        }
        if item.is_interval() {
            intervals.push(item.interval()?);
            *count += 1;
            if *count > limit {
                return Err(ParseError::TooManyIntervals { limit });
            }
            bare = None;
            continue;
        }
        let next_tag = item.tag()?;
        // Intervals of the UUID itself may be absent when a tag follows it; those of a tag may not.
        if let (Some(at), Some(_)) = (bare, &tag) {
            return Err(ParseError::MissingInterval { at });
        }
        store(
            origins,
            Origin {
                uuid,
                tag: tag.replace(next_tag),
            },
            &mut intervals,
        );
        bare = Some(item.at);
    }
    if let Some(at) = bare {
        return Err(ParseError::MissingInterval { at });
    }
    store(origins, Origin { uuid, tag }, &mut intervals);
    Ok(())
}

/// Appends without merging: that is done once, after the last entry.
fn store(
    origins: &mut BTreeMap<Origin, Vec<Interval>>,
    origin: Origin,
    intervals: &mut Vec<Interval>,
) {
    if !intervals.is_empty() {
        origins.entry(origin).or_default().append(intervals);
    }
}

fn parse_bounded(text: &str, limit: usize) -> Result<OracleGtidSet, ParseError> {
    let mut origins = BTreeMap::new();
    let whole = Part { text, at: 0 }.trimmed();
    if whole.text.is_empty() {
        return Ok(OracleGtidSet::new());
    }
    let mut count = 0;
    for entry in whole.split(',') {
        parse_entry(entry, limit, &mut count, &mut origins)?;
    }
    for intervals in origins.values_mut() {
        normalise(intervals);
    }
    Ok(OracleGtidSet { origins })
}

/// What was saved is bounded by its own length. A union can lawfully hold more than `INTERVALS_MAX`, and what was
/// written has to be readable.
fn parse_saved(text: &str) -> Result<OracleGtidSet, ParseError> {
    parse_bounded(text, usize::MAX)
}

impl FromStr for Uuid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Uuid, ParseError> {
        Part { text, at: 0 }.trimmed().uuid()
    }
}

impl FromStr for Tag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Tag, ParseError> {
        Part { text, at: 0 }.trimmed().tag()
    }
}

impl FromStr for Gtid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Gtid, ParseError> {
        let mut items = Part { text, at: 0 }.trimmed().split(':');
        let name = items.next().unwrap_or(Part { text, at: 0 });
        let uuid = name.uuid()?;
        let item = items
            .next()
            .ok_or(ParseError::MissingInterval { at: name.at })?;
        let (tag, number) = if item.is_interval() {
            (None, item)
        } else {
            (
                Some(item.tag()?),
                items
                    .next()
                    .ok_or(ParseError::MissingInterval { at: item.at })?,
            )
        };
        if let Some(more) = items.next() {
            return Err(ParseError::NotSingle { at: more.at });
        }
        if number.text.contains('-') {
            return Err(ParseError::NotSingle { at: number.at });
        }
        Ok(Gtid {
            origin: Origin { uuid, tag },
            number: number.number()?,
        })
    }
}

impl FromStr for OracleGtidSet {
    type Err = ParseError;

    /// Reads at most [`INTERVALS_MAX`] intervals. White space around any part is ignored, entries of one UUID are
    /// merged, an empty text is the empty set.
    fn from_str(text: &str) -> Result<OracleGtidSet, ParseError> {
        parse_bounded(text, INTERVALS_MAX)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            value >> 96,
            value >> 80 & 0xffff,
            value >> 64 & 0xffff,
            value >> 48 & 0xffff,
            value & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => write!(f, "{}", self.uuid),
            Some(tag) => write!(f, "{}:{tag}", self.uuid),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for OracleGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        for (origin, intervals) in &self.origins {
            if before != Some(origin.uuid) {
                match before {
                    None => {}
                    Some(_) if f.alternate() => f.write_str(",\n")?,
                    Some(_) => f.write_str(",")?,
                }
                write!(f, "{}", origin.uuid)?;
                before = Some(origin.uuid);
            }
            if let Some(tag) = &origin.tag {
                write!(f, ":{tag}")?;
            }
            for interval in intervals {
                write!(f, ":{interval}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for OracleGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OracleGtidSet({self})")
    }
}

serde_as_text!(Uuid, str::parse::<Uuid>, "a UUID");
serde_as_text!(Tag, str::parse::<Tag>, "a GTID tag");
serde_as_text!(Gtid, str::parse::<Gtid>, "a GTID");
serde_as_text!(OracleGtidSet, parse_saved, "a GTID set of MySQL");
