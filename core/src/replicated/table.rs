//! A table of replicated state: ordered rows, copy-on-write as a whole and by row, and a hash kept as rows change.
//!
//! Cloning a table is cloning two pointers, so a snapshot can be encoded elsewhere while apply goes on. The hash is the
//! sum of the rows' hashes, so it does not depend on the order of changes, and costs one row to keep. Rows are hashed as
//! the version in force writes them, so that daemons of two releases come to the same sum.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::ops::RangeBounds;
use sha2::{Digest as _, Sha256};

use super::codec::{Reader, Wire, WireError, Writer};

/// A sum of hashes, as four numbers that wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HashSum([u64; 4]);

impl HashSum {
    fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(hash.chunks_exact(8)) {
            *lane = bytes
                .iter()
                .fold(0u64, |lane, byte| lane << 8 | u64::from(*byte));
        }
        Self(lanes)
    }

    fn add(&mut self, other: Self) {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(other);
        }
    }

    fn subtract(&mut self, other: Self) {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(other);
        }
    }

    pub(super) fn put(self, out: &mut Writer) {
        for lane in self.0 {
            out.extend_from_slice(&lane.to_be_bytes());
        }
    }
}

#[derive(Debug)]
struct Row<V> {
    value: Arc<V>,
    hash: HashSum,
}

impl<V> Clone for Row<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            hash: self.hash,
        }
    }
}

/// Ordered rows.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: Arc<BTreeMap<K, Row<V>>>,
    hash: HashSum,
    /// The version in which rows are hashed.
    form: u32,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            rows: Arc::clone(&self.rows),
            hash: self.hash,
            form: self.form,
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: Arc::new(BTreeMap::new()),
            hash: HashSum::default(),
            form: 1,
        }
    }
}

impl<K: Wire + Ord + Clone, V: Wire + Clone> Table<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|row| &*row.value)
    }

    pub(super) fn shared(&self, key: &K) -> Option<Arc<V>> {
        self.rows.get(key).map(|row| Arc::clone(&row.value))
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.rows.iter().map(|(key, row)| (key, &*row.value))
    }

    pub(super) fn iter_shared(&self) -> impl DoubleEndedIterator<Item = (&K, Arc<V>)> {
        self.rows
            .iter()
            .map(|(key, row)| (key, Arc::clone(&row.value)))
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range).map(|(key, row)| (key, &*row.value))
    }

    pub(super) fn put(&mut self, key: K, value: V) -> Arc<V> {
        let hash = Self::row_hash(self.form, &key, &value);
        let value = Arc::new(value);
        let row = Row {
            value: Arc::clone(&value),
            hash,
        };
        if let Some(old) = Arc::make_mut(&mut self.rows).insert(key, row) {
            self.hash.subtract(old.hash);
        }
        self.hash.add(hash);
        value
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        if !self.rows.contains_key(key) {
            return None;
        }
        let old = Arc::make_mut(&mut self.rows).remove(key)?;
        self.hash.subtract(old.hash);
        Some(old.value)
    }

    /// Changes a row in place.
    pub(super) fn edit<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        if !self.rows.contains_key(key) {
            return None;
        }
        let row = Arc::make_mut(&mut self.rows).get_mut(key)?;
        let result = change(Arc::make_mut(&mut row.value));
        self.hash.subtract(row.hash);
        row.hash = Self::row_hash(self.form, key, &row.value);
        self.hash.add(row.hash);
        Some(result)
    }

    pub(super) const fn hash(&self) -> HashSum {
        self.hash
    }

    /// The hash computed anew: equal to [`Self::hash`] unless there is a bug.
    pub(super) fn hash_afresh(&self) -> HashSum {
        let mut sum = HashSum::default();
        for (key, row) in self.rows.iter() {
            sum.add(Self::row_hash(self.form, key, &row.value));
        }
        sum
    }

    /// Hashes all rows as another version writes them.
    pub(super) fn set_form(&mut self, form: u32) {
        if self.form == form {
            return;
        }
        self.form = form;
        let mut sum = HashSum::default();
        for (key, row) in Arc::make_mut(&mut self.rows) {
            row.hash = Self::row_hash(form, key, &row.value);
            sum.add(row.hash);
        }
        self.hash = sum;
    }

    fn row_hash(form: u32, key: &K, value: &V) -> HashSum {
        let mut out = Writer::new(form, Vec::with_capacity(128));
        key.put(&mut out);
        value.put(&mut out);
        let bytes = out
            .finish()
            .expect("a row holds what the version in force can say: no other command brings it");
        HashSum::of(&bytes)
    }
}

impl<K: Wire + Ord + Clone, V: Wire + Clone> Wire for Table<K, V> {
    fn put(&self, out: &mut Writer) {
        (self.rows.len() as u64).put(out);
        for (key, value) in self.iter() {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count()?;
        let mut rows = BTreeMap::new();
        let mut sum = HashSum::default();
        for _ in 0..count {
            let key = K::take(from)?;
            if rows
                .last_key_value()
                .is_some_and(|(last, _): (&K, &Row<V>)| *last >= key)
            {
                return Err(WireError::Order);
            }
            let value = V::take(from)?;
            let hash = Self::row_hash(from.version(), &key, &value);
            sum.add(hash);
            rows.insert(
                key,
                Row {
                    value: Arc::new(value),
                    hash,
                },
            );
        }
        Ok(Self {
            rows: Arc::new(rows),
            hash: sum,
            form: from.version(),
        })
    }
}
