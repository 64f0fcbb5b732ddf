//! The primitive encoding under `replicated::wire` and `replicated::snapshot`: postcard's wire format (varints, lengths
//! before contents), written out by hand.
//!
//! Serde would tie the bytes to the order of the live enums' variants and structs' fields. Here every type states its
//! tags and its order of fields in `wire.rs`, in one place that nothing else has a reason to touch, and a field that is
//! added to a live type does not compile until it has been given a place there. Decoding is total: any bytes give a
//! value or a [`WireError`], and never allocate more than their own length calls for. Encodings are canonical: equal
//! values give equal bytes and only those bytes decode to them, which the digest relies on.

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

/// Bytes still to be read.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
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
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError>;
}

impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
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
            fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
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
            fn put(&self, out: &mut Vec<u8>) {
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
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// Seconds, then nanoseconds.
impl Wire for Duration {
    fn put(&self, out: &mut Vec<u8>) {
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

/// A struct: its fields in the order written here.
macro_rules! record {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self { $($field: Wire::take(from)?),* })
            }
        }
    };
}

/// A newtype: its contents.
macro_rules! newtype {
    ($($type:ident),* $(,)?) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self(Wire::take(from)?))
            }
        }
    )*};
}

/// An enum: the tag written here, then the fields in the order written here.
macro_rules! choice {
    ($type:ident { $($tag:literal => $variant:ident $({ $($field:ident),* $(,)? })? $(( $($item:ident),* ))?),* $(,)? }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
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
                    $($tag => Self::$variant
                        $({ $($field: Wire::take(from)?),* })?
                        $(( $({ let $item = Wire::take(from)?; $item }),* ))?,)*
                    found => return Err(WireError::Kind { of: stringify!($type), found }),
                })
            }
        }
    };
}

pub(super) use {choice, newtype, record};

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Wire + PartialEq + fmt::Debug>(value: &T) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        let mut from = Reader::new(&bytes);
        assert_eq!(&T::take(&mut from).expect("own bytes"), value);
        assert_eq!(from.end(), Ok(()));
        for cut in 0..bytes.len() {
            assert!(
                T::take(&mut Reader::new(&bytes[..cut])).is_err(),
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
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        assert_eq!(bytes, postcard::to_allocvec(&value).expect("encodes"));
    }

    #[test]
    fn bad_bytes_are_refused() {
        let take = |bytes: &[u8]| u64::take(&mut Reader::new(bytes));
        assert_eq!(take(&[0x80, 0x00]), Err(WireError::Number), "not shortest");
        assert_eq!(take(&[0xff; 10]), Err(WireError::Number), "too long");
        assert_eq!(
            u16::take(&mut Reader::new(&[0x80, 0x80, 0x04])),
            Err(WireError::Number)
        );
        assert_eq!(
            Vec::<u64>::take(&mut Reader::new(&[0xff, 0xff, 0x7f, 1])),
            Err(WireError::Short),
            "a count beyond the bytes"
        );
        assert_eq!(
            BTreeMap::<u64, u64>::take(&mut Reader::new(&[2, 5, 0, 5, 0])),
            Err(WireError::Order)
        );
        assert_eq!(
            String::take(&mut Reader::new(&[1, 0xff])),
            Err(WireError::Text)
        );
    }
}
