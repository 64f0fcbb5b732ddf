//! Who replicates from whom, by what replicas say of themselves.
//!
//! An index over [`Instance::source`](super::Instance::source), kept beside the instances and updated with each of
//! them. It knows names only: a source may be named here that no instance stands for (unseen, detached), and it then
//! simply has replicas. Between calls both directions say the same, and no source is listed without replicas.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::InstanceKey;

/// The replicas of a server that has none.
static NOBODY: BTreeSet<InstanceKey> = BTreeSet::new();

/// The edges of all topologies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edges {
    replicas_of: BTreeMap<InstanceKey, BTreeSet<InstanceKey>>,
    source_of: BTreeMap<InstanceKey, InstanceKey>,
}

impl Edges {
    /// The edges of a whole set of instances.
    #[must_use]
    pub fn of<'a>(instances: impl IntoIterator<Item = &'a super::Instance>) -> Self {
        let mut edges = Self::default();
        for instance in instances {
            edges.update(&instance.key, instance.source());
        }
        edges
    }

    /// States the source that `key` names (none: it names none, or is forgotten). Returns the source it named before
    /// if that was another: whoever judges by these edges has to look at that one too.
    pub fn update(
        &mut self,
        key: &InstanceKey,
        source: Option<&InstanceKey>,
    ) -> Option<InstanceKey> {
        if self.source_of.get(key) == source {
            return None;
        }
        let former = match source {
            Some(source) => {
                self.replicas_of
                    .entry(source.clone())
                    .or_default()
                    .insert(key.clone());
                self.source_of.insert(key.clone(), source.clone())
            }
            None => self.source_of.remove(key),
        };
        if let Some(former) = &former
            && let Some(replicas) = self.replicas_of.get_mut(former)
        {
            replicas.remove(key);
            if replicas.is_empty() {
                self.replicas_of.remove(former);
            }
        }
        former
    }

    /// The source that `key` names.
    #[must_use]
    pub fn source_of(&self, key: &InstanceKey) -> Option<&InstanceKey> {
        self.source_of.get(key)
    }

    /// Whoever names `key` as its source, in the order of keys.
    #[must_use]
    pub fn replicas_of(&self, key: &InstanceKey) -> &BTreeSet<InstanceKey> {
        self.replicas_of.get(key).unwrap_or(&NOBODY)
    }

    /// Every source with its replicas, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceKey, &BTreeSet<InstanceKey>)> {
        self.replicas_of.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};
    use proptest::prelude::*;

    fn key(name: u8) -> InstanceKey {
        InstanceKey::new(format!("s{name}"), 3306)
    }

    proptest! {
        /// Whatever the order of moves, the index is what the newest statements of all servers make it.
        #[test]
        fn edges_follow_the_newest_statements(
            moves in prop::collection::vec((0u8..6, prop::option::of(0u8..6)), 0..60),
        ) {
            let mut edges = Edges::default();
            let mut model: BTreeMap<InstanceKey, InstanceKey> = BTreeMap::new();
            for (server, source) in moves {
                let (server, source) = (key(server), source.map(key));
                let before = match &source {
                    Some(source) => model.insert(server.clone(), source.clone()),
                    None => model.remove(&server),
                };
                let former = edges.update(&server, source.as_ref());
                prop_assert_eq!(former, before.filter(|before| Some(before) != source.as_ref()));
            }
            for name in 0..6 {
                let source = key(name);
                let expected: Vec<&InstanceKey> =
                    model.iter().filter(|(_, s)| **s == source).map(|(r, _)| r).collect();
                prop_assert_eq!(edges.replicas_of(&source).iter().collect::<Vec<_>>(), expected);
                prop_assert_eq!(edges.source_of(&source), model.get(&source));
            }
            prop_assert!(edges.iter().all(|(_, replicas)| !replicas.is_empty()));
        }
    }
}
