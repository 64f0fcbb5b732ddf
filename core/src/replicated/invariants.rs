//! What holds between calls of apply, checked. A breach is a bug of this program: whoever finds one stops, and names the
//! entry after which it was found.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
};

use super::{
    change::Change,
    state::{ClusterRecord, Index, Replicated},
};
use crate::{id::ClusterKey, recovery::Recovery};

impl Replicated {
    /// Looks at the rows that a command changed, and at the indexes that lead to them: the cost is that of the changes.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_changes(&self, changes: &[Change]) -> Result<(), String> {
        // One command may change a row and then remove it: what holds afterwards is the last that was said of it.
        let (mut clusters, mut recoveries) = (BTreeSet::new(), BTreeSet::new());
        let (mut known, mut deposed) = (BTreeSet::new(), BTreeSet::new());
        for change in changes.iter().rev() {
            let is_last = match change {
                Change::Cluster(key, _) => clusters.insert(key),
                Change::Recovery(number, _) => recoveries.insert(number),
                Change::Known(key, _) => known.insert(key),
                Change::Deposed(identity, _) => deposed.insert(identity),
                Change::Version(_)
                | Change::Member(..)
                | Change::Declaration(..)
                | Change::Policy(_)
                | Change::Forgotten(..)
                | Change::ClusterAlias { .. }
                | Change::ClusterAliasOverride { .. }
                | Change::ClusterDomain { .. }
                | Change::Downtime(..)
                | Change::Maintenance(..)
                | Change::Candidate(..)
                | Change::Tag { .. }
                | Change::GlobalStop(_)
                | Change::Detection(..)
                | Change::RecoveryLine { .. }
                | Change::Blocked(..) => true,
            };
            if !is_last {
                continue;
            }
            match change {
                Change::Cluster(key, row) => match (row, self.clusters.get(key)) {
                    (Some(_), Some(record)) => self.check_cluster(key, record)?,
                    (None, None) => {
                        if self.index.running.contains_key(key) {
                            return Err(format!("cluster {key} is gone and a recovery runs on it"));
                        }
                    }
                    (Some(_), None) | (None, Some(_)) => {
                        return Err(format!("cluster {key} is not as its change says"));
                    }
                },
                Change::Recovery(number, row) => match (row, self.recoveries.get(number)) {
                    (Some(_), Some(recovery)) => self.check_recovery(*number, recovery)?,
                    (None, None) => {
                        if self.index.running.values().any(|running| running == number) {
                            return Err(format!("recovery {number} is gone and runs"));
                        }
                    }
                    (Some(_), None) | (None, Some(_)) => {
                        return Err(format!("recovery {number} is not as its change says"));
                    }
                },
                Change::Detection(number, Some(_)) => {
                    if *number == 0 || *number > self.last_detection {
                        return Err(format!("detection {number} is misnumbered"));
                    }
                }
                Change::Known(key, row) => {
                    if row.is_some() != self.known.contains(key) {
                        return Err(format!("{key} is not known as its change says"));
                    }
                }
                Change::Deposed(identity, row) => {
                    if row.is_some() != self.deposed.contains(identity) {
                        return Err(format!("{identity} is not deposed as its change says"));
                    }
                }
                Change::Version(_)
                | Change::Member(..)
                | Change::Declaration(..)
                | Change::Policy(_)
                | Change::Forgotten(..)
                | Change::ClusterAlias { .. }
                | Change::ClusterAliasOverride { .. }
                | Change::ClusterDomain { .. }
                | Change::Downtime(..)
                | Change::Maintenance(..)
                | Change::Candidate(..)
                | Change::Tag { .. }
                | Change::GlobalStop(_)
                | Change::Detection(_, None)
                | Change::RecoveryLine { .. }
                | Change::Blocked(..) => {}
            }
        }
        Ok(())
    }

    fn check_cluster(&self, key: &ClusterKey, record: &ClusterRecord) -> Result<(), String> {
        if record.key != *key {
            return Err(format!("cluster {key} says it is {}", record.key));
        }
        if !record.members.contains(&record.primary) {
            return Err(format!("primary of {key} is not its member"));
        }
        if record.name != record.primary.to_string() {
            return Err(format!("cluster {key} is not named by its primary"));
        }
        for member in &record.members {
            if self.index.cluster_of.get(member) != Some(key) {
                return Err(format!(
                    "{member} of cluster {key} is not found by its name"
                ));
            }
        }
        Ok(())
    }

    fn check_recovery(&self, number: u64, recovery: &Recovery) -> Result<(), String> {
        if recovery.number != number || number == 0 || number > self.last_recovery {
            return Err(format!("recovery {number} is misnumbered"));
        }
        if self.index.recovery_by_uid.get(&recovery.uid) != Some(&number) {
            return Err(format!("recovery {number} is not found by its uid"));
        }
        if recovery.is_running() {
            if !self.clusters.contains(&recovery.cluster) {
                return Err(format!("recovery {number} runs on an unknown cluster"));
            }
            if self.index.running.get(&recovery.cluster) != Some(&number) {
                return Err(format!(
                    "recovery {number} runs on {} beside another one",
                    recovery.cluster
                ));
            }
        }
        Ok(())
    }

    /// Looks at everything: the cost is that of the whole state.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        let index = Index::of(self)?;
        if index != *self.index {
            return Err("an index differs from what the rows say".to_string());
        }
        for (key, record) in self.clusters.iter() {
            self.check_cluster(key, record)?;
        }
        for (number, recovery) in self.recoveries.iter() {
            self.check_recovery(*number, recovery)?;
        }
        for (number, detection) in self.detections.iter() {
            if detection.number != *number || *number == 0 || *number > self.last_detection {
                return Err(format!("detection {number} is misnumbered"));
            }
        }
        let afresh = [
            self.members.hash_afresh(),
            self.declarations.hash_afresh(),
            self.known.hash_afresh(),
            self.forgotten.hash_afresh(),
            self.clusters.hash_afresh(),
            self.downtimes.hash_afresh(),
            self.maintenance.hash_afresh(),
            self.candidates.hash_afresh(),
            self.tags.hash_afresh(),
            self.detections.hash_afresh(),
            self.recoveries.hash_afresh(),
            self.blocked.hash_afresh(),
            self.deposed.hash_afresh(),
        ];
        if afresh != self.table_hashes() {
            return Err("a table's hash differs from its rows".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{sync::Arc, vec};

    use super::*;
    use crate::{
        id::{InstanceKey, LogPosition},
        replicated::{Applied, Command, Stamped},
        time::Wall,
    };

    fn apply(state: &mut Replicated, index: u64, command: Command) -> Applied {
        let at = LogPosition {
            index,
            ..LogPosition::default()
        };
        state.apply(
            at,
            &Stamped {
                wall: Wall::from_nanos(index),
                command,
            },
        )
    }

    /// A cluster of two servers, and what recording it changed.
    fn recorded() -> (Replicated, Applied) {
        let mut state = Replicated::default();
        let members = vec![InstanceKey::new("db1", 3306), InstanceKey::new("db2", 3306)];
        let know = Command::Know {
            keys: members.clone(),
            by_operator: true,
        };
        apply(&mut state, 1, know);
        let record = Command::RecordCluster {
            primary: members[0].clone(),
            identity: None,
            members,
        };
        let applied = apply(&mut state, 2, record);
        assert!(
            applied
                .changes
                .iter()
                .any(|change| matches!(change, Change::Cluster(_, Some(_))))
        );
        assert_eq!(state.check_changes(&applied.changes), Ok(()));
        assert_eq!(state.check_invariants(), Ok(()));
        (state, applied)
    }

    #[test]
    fn a_row_that_is_changed_and_removed_by_one_command_is_sound() {
        let mut state = Replicated::default();
        let key = |name: &str| InstanceKey::new(name, 3306);
        let record = |primary: &str, members: &[&str]| Command::RecordCluster {
            primary: key(primary),
            identity: None,
            members: members.iter().map(|name| key(name)).collect(),
        };
        // The last one takes the members of the one before it, and then its row.
        let commands = [
            record("db5", &["db5"]),
            record("db4", &["db2", "db4"]),
            record("db5", &["db2", "db4", "db5"]),
        ];
        for (index, command) in (1..).zip(commands) {
            let applied = apply(&mut state, index, command);
            assert_eq!(state.check_changes(&applied.changes), Ok(()), "{index}");
        }
        assert_eq!(state.clusters().count(), 1);
        assert_eq!(state.check_invariants(), Ok(()));
    }

    #[test]
    fn a_member_that_leads_elsewhere_is_found() {
        let (mut state, applied) = recorded();
        Arc::make_mut(&mut state.index)
            .cluster_of
            .remove(&InstanceKey::new("db2", 3306));
        assert!(state.check_changes(&applied.changes).is_err());
        assert!(state.check_invariants().is_err());
    }

    #[test]
    fn a_row_that_its_change_does_not_tell_of_is_found() {
        let (mut state, applied) = recorded();
        // A primary ends its cluster only as its last member.
        let forget = Command::Forget {
            keys: vec![InstanceKey::new("db2", 3306), InstanceKey::new("db1", 3306)],
        };
        apply(&mut state, 3, forget);
        assert!(state.check_changes(&applied.changes).is_err());
        assert_eq!(state.check_invariants(), Ok(()));
    }
}
