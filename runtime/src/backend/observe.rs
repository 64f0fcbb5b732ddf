//! Which observed servers are to be written: those that a probe looked at since they were last written, and those that
//! are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::replicated::Replicated;
use orchestrator_core::time::Mono;
use orchestrator_core::topology::Instance;

/// Servers that one look brings: the node waits while it is taken.
pub(super) const ROWS_PER_LOOK_MAX: usize = 2_000;

/// What is to be written of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub key: InstanceKey,
    /// None: it is not observed any more.
    pub instance: Option<Instance>,
}

/// When a probe of it began, ended and succeeded: a row is as new as that.
type Stamp = (Option<Mono>, Option<Mono>, Option<Mono>);

fn stamp(instance: &Instance) -> Stamp {
    (instance.attempted, instance.checked, instance.seen)
}

/// What of the observed servers was taken to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Servers that have a row; none: the row is an earlier process's.
    rows: BTreeMap<InstanceKey, Option<Stamp>>,
    /// Before this entry was applied, the node may not know servers that it is going to know.
    since_index: u64,
    /// Where the next look begins: after this server.
    after: Option<InstanceKey>,
}

impl Seen {
    /// These servers have rows, written when this entry had been applied.
    pub(super) fn new(rows: BTreeSet<InstanceKey>, since_index: u64) -> Self {
        Self {
            rows: rows.into_iter().map(|key| (key, None)).collect(),
            since_index,
            after: None,
        }
    }

    /// What is different, at most [`ROWS_PER_LOOK_MAX`] servers; the next look goes on from there. A server is gone when it
    /// is neither observed nor known.
    pub fn look(
        &mut self,
        replicated: &Replicated,
        instances: &BTreeMap<InstanceKey, Instance>,
    ) -> Vec<Observation> {
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        for (key, instance) in instances.range((from, Bound::Unbounded)) {
            let stamp = stamp(instance);
            if self.rows.get(key) == Some(&Some(stamp)) {
                continue;
            }
            if found.len() == ROWS_PER_LOOK_MAX {
                return found;
            }
            self.rows.insert(key.clone(), Some(stamp));
            self.after = Some(key.clone());
            found.push(Observation {
                key: key.clone(),
                instance: Some(instance.clone()),
            });
        }
        self.after = None;
        if self.rows.len() > instances.len() && replicated.applied().index >= self.since_index {
            let is_gone =
                |key: &&InstanceKey| !instances.contains_key(*key) && !replicated.is_known(key);
            let gone: Vec<InstanceKey> = self.rows.keys().filter(is_gone).cloned().collect();
            for key in gone {
                self.rows.remove(&key);
                found.push(Observation {
                    key,
                    instance: None,
                });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::id::LogPosition;
    use orchestrator_core::replicated::{Command, Stamped};
    use orchestrator_core::time::{Now, Wall};

    use super::*;

    fn key(number: usize) -> InstanceKey {
        InstanceKey::new(format!("db{number:05}"), 3306)
    }

    fn fleet(count: usize) -> BTreeMap<InstanceKey, Instance> {
        (0..count)
            .map(|number| (key(number), Instance::new(key(number), Now::default())))
            .collect()
    }

    fn knowing(keys: Vec<InstanceKey>) -> Replicated {
        let mut state = Replicated::default();
        let at = LogPosition {
            index: 5,
            term: 1,
            ..LogPosition::default()
        };
        state.apply(
            at,
            &Stamped {
                wall: Wall::from_secs(1),
                command: Command::Know {
                    keys,
                    by_operator: true,
                },
            },
        );
        state
    }

    fn keys(found: &[Observation]) -> Vec<(&str, bool)> {
        found
            .iter()
            .map(|row| (row.key.host.as_str(), row.instance.is_some()))
            .collect()
    }

    #[test]
    fn only_what_was_probed_since_is_taken() {
        let state = knowing(vec![]);
        let mut instances = fleet(3);
        let mut seen = Seen::default();
        assert_eq!(seen.look(&state, &instances).len(), 3);
        assert_eq!(seen.look(&state, &instances), []);
        instances.get_mut(&key(1)).unwrap().attempted = Some(Mono::from_nanos(7));
        assert_eq!(keys(&seen.look(&state, &instances)), [("db00001", true)]);
        instances.remove(&key(2));
        assert_eq!(keys(&seen.look(&state, &instances)), [("db00002", false)]);
        assert_eq!(seen.look(&state, &instances), []);
    }

    #[test]
    fn rows_of_an_earlier_process_stay_while_their_servers_are_known() {
        let rows = || BTreeSet::from([key(0), key(1), key(2)]);
        let instances = fleet(1);
        // The log is not replayed yet: nothing is known to be gone.
        let mut seen = Seen::new(rows(), 5);
        assert_eq!(
            keys(&seen.look(&Replicated::default(), &instances)),
            [("db00000", true)]
        );
        let state = knowing(vec![key(1)]);
        assert_eq!(keys(&seen.look(&state, &instances)), [("db00002", false)]);
    }

    #[test]
    fn a_large_fleet_is_taken_in_parts() {
        let state = knowing(vec![]);
        let instances = fleet(ROWS_PER_LOOK_MAX * 2 + 1);
        let mut seen = Seen::default();
        assert_eq!(seen.look(&state, &instances).len(), ROWS_PER_LOOK_MAX);
        assert_eq!(seen.look(&state, &instances).len(), ROWS_PER_LOOK_MAX);
        assert_eq!(seen.look(&state, &instances).len(), 1);
        assert_eq!(seen.look(&state, &instances), []);
    }
}
