//! The primitive encoding under `replicated::wire` and `replicated::snapshot`: postcard's wire format (varints, lengths
//! before contents), written out by hand.
//!
//! Serde would tie the bytes to the order of the live enums' variants and structs' fields. Here every type states its
//! tags and its order of fields in `wire.rs`, in one place that nothing else has a reason to touch, and a field that is
//! added to a live type does not compile until it has been given a place there. Decoding is total: any bytes give a
//! value or a [`WireError`], and never allocate more than their own length calls for. Encodings are canonical: equal
//! values give equal bytes and only those bytes decode to them, which the digest relies on.
//!
//! Bytes are written in one version and read as what was written in it. A kind of an enum or a field of a struct that
//! came with a later version says so where it has its place (`since 2`); what says nothing is of version 1. In an older
//! version such a kind is not there, and such a field is read as its default. Whoever writes more than the version can
//! say is told ([`NotYet`]): nothing is left out in silence.

use alloc::{
    boxed::Box, collections::BTreeMap, collections::BTreeSet, string::String, sync::Arc, vec::Vec,
};
use core::{fmt, time::Duration};

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// Written by a later release: this one must stop rather than guess.
    Version {
        found: u8,
        newest: u8,
    },
    /// A kind that this release does not have.
    Kind {
        of: &'static str,
        found: u64,
    },
    /// Ends in the middle.
    Short,
    /// A number that is too long for its type, or not written in its shortest form.
    Number,
    Text,
    /// Keys of a map that do not ascend.
    Order,
    /// Well-formed, but not a value of this type.
    Value(&'static str),
    /// Bytes behind the end.
    Trailing(usize),
    /// Not a snapshot of this program.
    Magic,
    /// The contents do not match their checksum.
    Checksum,
    /// Contents that contradict themselves.
    Contradiction(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found, newest } => write!(
                f,
                "encoding version {found} was written by a later release; this one reads up to {newest}: upgrade this daemon"
            ),
            Self::Kind { of, found } => write!(
                f,
                "unknown kind {found} of {of}: written by a later release, or damaged"
            ),
            Self::Short => f.write_str("ends in the middle"),
            Self::Number => f.write_str("a number out of its range or not in its shortest form"),
            Self::Text => f.write_str("a text that is not UTF-8"),
            Self::Order => f.write_str("keys of a map out of order"),
            Self::Value(what) => write!(f, "not a valid {what}"),
            Self::Trailing(bytes) => write!(f, "{bytes} bytes behind the end"),
            Self::Magic => f.write_str("not a snapshot of orchestrator"),
            Self::Checksum => f.write_str("checksum mismatch: the snapshot is damaged"),
            Self::Contradiction(what) => write!(f, "contradicts itself: {what}"),
        }
    }
}

impl core::error::Error for WireError {}

/// Something that the version in force cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet {
    pub what: &'static str,
    /// The version that it came with.
    pub since: u32,
    pub in_force: u32,
}

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            since,
            in_force,
        } = self;
        write!(
            f,
            "{what} needs version {since} of commands and snapshots, and {in_force} is in force: the later one is switched \
             on once every member runs a release that reads it (raft-status shows what each reads)"
        )
    }
}

impl core::error::Error for NotYet {}

/// Bytes of one version, as far as they are written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    version: u32,
    /// The first thing that this version cannot say.
    not_yet: Option<NotYet>,
}

impl Writer {
    /// Goes on behind these bytes.
    pub(super) const fn new(version: u32, bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            version,
            not_yet: None,
        }
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) const fn has(&self, since: u32) -> bool {
        self.version >= since
    }

    /// What this version cannot say was to be written.
    pub(super) fn lacks(&mut self, what: &'static str, since: u32) {
        let in_force = self.version;
        self.not_yet.get_or_insert(NotYet {
            what,
            since,
            in_force,
        });
    }

    /// # Errors
    /// What this version cannot say.
    pub(super) fn finish(self) -> Result<Vec<u8>, NotYet> {
        match self.not_yet {
            None => Ok(self.bytes),
            Some(not_yet) => Err(not_yet),
        }
    }
}

/// Bytes of one version, as far as they are still to be read.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    version: u32,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(version: u32, rest: &'a [u8]) -> Self {
        Self { rest, version }
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    pub(super) const fn has(&self, since: u32) -> bool {
        self.version >= since
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.rest.split_first().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    /// A count of things of at least one byte each.
    pub(super) fn count(&mut self) -> Result<usize, WireError> {
        let count = usize::try_from(u64::take(self)?).map_err(|_| WireError::Short)?;
        if count > self.rest.len() {
            return Err(WireError::Short);
        }
        Ok(count)
    }

    pub(super) const fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing(self.rest.len()))
        }
    }
}

/// A type with a place in the contract.
pub(super) trait Wire: Sized {
    fn put(&self, out: &mut Writer);
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError>;
}

impl Wire for u64 {
    fn put(&self, out: &mut Writer) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = from.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(WireError::Number);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(WireError::Number);
                }
                return Ok(value);
            }
        }
        Err(WireError::Number)
    }
}

macro_rules! smaller_number {
    ($($type:ident),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Writer) {
                u64::from(*self).put(out);
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Self::try_from(u64::take(from)?).map_err(|_| WireError::Number)
            }
        }
    )*};
}
smaller_number!(u32, u16);

impl Wire for bool {
    fn put(&self, out: &mut Writer) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value("truth value")),
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Writer) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count()?;
        let bytes = from.bytes(count)?;
        Ok(Self::from(
            core::str::from_utf8(bytes).map_err(|_| WireError::Text)?,
        ))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Writer) {
        (self.len() as u64).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count()?;
        // Grown as it is read: a count is no promise.
        let mut items = Self::with_capacity(count.min(1_024));
        for _ in 0..count {
            items.push(T::take(from)?);
        }
        Ok(items)
    }
}

impl<T: Wire + Ord> Wire for BTreeSet<T> {
    fn put(&self, out: &mut Writer) {
        (self.len() as u64).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count()?;
        let mut items = Self::new();
        for _ in 0..count {
            let item = T::take(from)?;
            if items.last().is_some_and(|last| *last >= item) {
                return Err(WireError::Order);
            }
            items.insert(item);
        }
        Ok(items)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn put(&self, out: &mut Writer) {
        (self.len() as u64).put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count()?;
        let mut items = Self::new();
        for _ in 0..count {
            let key = K::take(from)?;
            if items.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(WireError::Order);
            }
            let value = V::take(from)?;
            items.insert(key, value);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Writer) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match from.byte()? {
            0 => Ok(None),
            1 => Ok(Some(T::take(from)?)),
            _ => Err(WireError::Value("option")),
        }
    }
}

macro_rules! pointer {
    ($($type:ident),*) => {$(
        impl<T: Wire> Wire for $type<T> {
            fn put(&self, out: &mut Writer) {
                T::put(self, out);
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self::new(T::take(from)?))
            }
        }
    )*};
}
pointer!(Box, Arc);

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Writer) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// Seconds, then nanoseconds.
impl Wire for Duration {
    fn put(&self, out: &mut Writer) {
        self.as_secs().put(out);
        self.subsec_nanos().put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let (secs, nanos) = (u64::take(from)?, u32::take(from)?);
        if nanos >= 1_000_000_000 {
            return Err(WireError::Value("duration"));
        }
        Ok(Self::new(secs, nanos))
    }
}

/// The version that a kind or a field came with.
macro_rules! since {
    () => {
        1
    };
    ($since:literal) => {
        $since
    };
}

/// A struct: its fields in the order written here. A field of a later version: `field since 2`; it has a default, which is
/// what its absence in older bytes means.
macro_rules! record {
    (@put $out:ident, $field:ident, $what:expr) => {
        $field.put($out)
    };
    (@put $out:ident, $field:ident, $what:expr, $since:literal) => {
        if $out.has($since) {
            $field.put($out);
        } else if *$field != Default::default() {
            $out.lacks($what, $since);
        }
    };
    (@take $from:ident) => {
        Wire::take($from)?
    };
    (@take $from:ident, $since:literal) => {
        if $from.has($since) {
            Wire::take($from)?
        } else {
            Default::default()
        }
    };
    ($type:ty { $($field:ident $(since $since:literal)?),* $(,)? }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Writer) {
                let Self { $($field),* } = self;
                $(record!(@put out, $field, concat!(stringify!($type), ".", stringify!($field)) $(, $since)?);)*
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self { $($field: record!(@take from $(, $since)?)),* })
            }
        }
    };
}

/// A newtype: its contents.
macro_rules! newtype {
    ($($type:ident),* $(,)?) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Writer) {
                self.0.put(out);
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self(Wire::take(from)?))
            }
        }
    )*};
}

/// An enum: the tag written here, then the fields in the order written here. A kind of a later version says so behind its
/// fields: `33 => Kind { field } since 2`.
macro_rules! choice {
    ($type:ident { $($tag:literal => $variant:ident $({ $($field:ident),* $(,)? })? $(( $($item:ident),* ))? $(since $since:literal)?),* $(,)? }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Writer) {
                let (since, what) = match self {
                    $(Self::$variant { .. } => (
                        since!($($since)?),
                        concat!(stringify!($type), " ", stringify!($variant)),
                    ),)*
                };
                if !out.has(since) {
                    return out.lacks(what, since);
                }
                match self {
                    $(Self::$variant $({ $($field),* })? $(( $($item),* ))? => {
                        u64::put(&$tag, out);
                        $($($field.put(out);)*)?
                        $($($item.put(out);)*)?
                    })*
                }
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(match u64::take(from)? {
                    $($tag if from.has(since!($($since)?)) => Self::$variant
                        $({ $($field: Wire::take(from)?),* })?
                        $(( $({ let $item = Wire::take(from)?; $item }),* ))?,)*
                    found => return Err(WireError::Kind { of: stringify!($type), found }),
                })
            }
        }
    };
}

pub(super) use {choice, newtype, record, since};

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<T: Wire>(version: u32, value: &T) -> Result<Vec<u8>, NotYet> {
        let mut out = Writer::new(version, Vec::new());
        value.put(&mut out);
        out.finish()
    }

    /// Kinds and fields as a later release might have them.
    #[derive(Debug, PartialEq)]
    enum Colour {
        Red,
        Mixed { parts: Vec<u64> },
    }
    choice!(Colour {
        0 => Red,
        1 => Mixed { parts } since 3,
    });

    #[derive(Debug, PartialEq)]
    struct Paint {
        litres: u64,
        colour: Option<Colour>,
        dries: Option<u64>,
    }
    record!(Paint {
        litres,
        colour,
        dries since 2,
    });

    #[test]
    fn what_a_version_cannot_say_is_not_written() {
        let paint = |colour, dries| Paint {
            litres: 5,
            colour,
            dries,
        };
        let plain = paint(Some(Colour::Red), None);
        assert_eq!(bytes_of(1, &plain), Ok(alloc::vec![5, 1, 0]));
        assert_eq!(bytes_of(2, &plain), Ok(alloc::vec![5, 1, 0, 0]));
        let dries = paint(None, Some(9));
        assert_eq!(bytes_of(2, &dries), Ok(alloc::vec![5, 0, 1, 9]));
        let refused = bytes_of(1, &dries).expect_err("a field of version 2");
        assert_eq!((refused.what, refused.since), ("Paint.dries", 2));
        // A kind, however deep it is.
        let mixed = paint(Some(Colour::Mixed { parts: Vec::new() }), None);
        for version in [1, 2] {
            let refused = bytes_of(version, &mixed).expect_err("a kind of version 3");
            assert_eq!((refused.what, refused.since), ("Colour Mixed", 3));
            assert_eq!(refused.in_force, version);
        }
        assert_eq!(bytes_of(3, &mixed), Ok(alloc::vec![5, 1, 1, 0, 0]));
    }

    #[test]
    fn bytes_are_read_in_their_version() {
        let take = |version, bytes: &[u8]| {
            let mut from = Reader::new(version, bytes);
            Paint::take(&mut from).and_then(|paint| from.end().map(|()| paint))
        };
        let plain = Paint {
            litres: 5,
            colour: Some(Colour::Red),
            dries: None,
        };
        assert_eq!(take(1, &[5, 1, 0]), Ok(plain));
        assert_eq!(take(2, &[5, 1, 0]), Err(WireError::Short));
        assert_eq!(take(1, &[5, 1, 0, 0]), Err(WireError::Trailing(1)));
        let unknown = WireError::Kind {
            of: "Colour",
            found: 1,
        };
        assert_eq!(take(2, &[5, 1, 1, 0, 0]), Err(unknown));
        assert!(take(3, &[5, 1, 1, 0, 0]).is_ok());
    }

    fn there_and_back<T: Wire + PartialEq + fmt::Debug>(value: &T) {
        let bytes = bytes_of(1, value).expect("of version 1");
        let mut from = Reader::new(1, &bytes);
        assert_eq!(&T::take(&mut from).expect("own bytes"), value);
        assert_eq!(from.end(), Ok(()));
        for cut in 0..bytes.len() {
            assert!(
                T::take(&mut Reader::new(1, &bytes[..cut])).is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn values_come_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            there_and_back(&number);
        }
        there_and_back(&alloc::vec![Some(String::from("ä")), None]);
        there_and_back(&Duration::new(3, 999_999_999));
        there_and_back(&BTreeMap::from([(1u64, true), (2, false)]));
    }

    /// The primitives are postcard's, so that another tool can read them.
    #[test]
    fn primitives_are_postcards() {
        let value = (300u64, (String::from("abc"), alloc::vec![1u16, 70_00]));
        let bytes = bytes_of(1, &value).expect("of version 1");
        assert_eq!(bytes, postcard::to_allocvec(&value).expect("encodes"));
    }

    #[test]
    fn bad_bytes_are_refused() {
        let take = |bytes: &[u8]| u64::take(&mut Reader::new(1, bytes));
        assert_eq!(take(&[0x80, 0x00]), Err(WireError::Number), "not shortest");
        assert_eq!(take(&[0xff; 10]), Err(WireError::Number), "too long");
        assert_eq!(
            u16::take(&mut Reader::new(1, &[0x80, 0x80, 0x04])),
            Err(WireError::Number)
        );
        assert_eq!(
            Vec::<u64>::take(&mut Reader::new(1, &[0xff, 0xff, 0x7f, 1])),
            Err(WireError::Short),
            "a count beyond the bytes"
        );
        assert_eq!(
            BTreeMap::<u64, u64>::take(&mut Reader::new(1, &[2, 5, 0, 5, 0])),
            Err(WireError::Order)
        );
        assert_eq!(
            String::take(&mut Reader::new(1, &[1, 0xff])),
            Err(WireError::Text)
        );
    }
}
