//! What holds at the end of every step. A breach is a bug of this program: the daemon ends, and names the entry of the
//! log after which it was found.

use alloc::{format, string::String};

use super::{Fatal, Node, Output};
use crate::{id::LogPosition, topology::Edges};

/// Where assertions are on (tests, simulations), the whole state is looked at once in so many steps. A daemon in
/// production has its driver look at intervals, beside its work.
const STEPS_BETWEEN_LOOKS: u64 = 256;

impl Node {
    /// Ends a step: looks at what it touched.
    pub(super) fn end_step(&mut self, out: &mut Output) {
        self.steps = self.steps.wrapping_add(1);
        if out.fatal.is_some() {
            return;
        }
        let mut checked = self.check_counts();
        if cfg!(debug_assertions) && self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) {
            checked = checked.and_then(|()| self.check_invariants());
        }
        if let Err(breach) = checked {
            out.fatal = Some(Fatal {
                entry: None,
                reason: format!("a bug of this program: {breach}"),
            });
        }
    }

    /// Looks at the rows that an entry changed.
    ///
    /// # Errors
    /// What is to be the daemon's end.
    pub(super) fn check_entry(
        &self,
        at: LogPosition,
        changes: &[crate::replicated::Change],
    ) -> Result<(), Fatal> {
        self.replicated
            .check_changes(changes)
            .map_err(|breach| Fatal {
                entry: Some(at),
                reason: format!("a bug of this program: after entry {at} of the raft log {breach}"),
            })
    }

    /// What costs nothing to look at.
    fn check_counts(&self) -> Result<(), String> {
        let within = |what: &str, count: usize, limit: usize| {
            if count > limit {
                return Err(format!("{count} {what}, and at most {limit} may be"));
            }
            Ok(())
        };
        let servers = self.observed.instances.len();
        within("servers", servers, crate::limits::INSTANCES_MAX)?;
        within(
            "proposals",
            self.proposals.len(),
            crate::limits::PROPOSALS_PENDING_MAX,
        )?;
        within("servers to be read", self.due.len(), servers)?;
        within("connections kept", self.watching.len(), self.watched.len())?;
        within("suspicions", self.suspicions.len(), self.watched.len())?;
        if self.due.len() != self.due_of.len() {
            return Err(format!(
                "{} readings are due for {} servers",
                self.due.len(),
                self.due_of.len()
            ));
        }
        Ok(())
    }

    /// Looks at everything: the cost is that of the whole state.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_counts()?;
        self.replicated.check_invariants()?;
        for (key, at) in &self.due_of {
            if !self.due.contains(&(*at, key.clone())) {
                return Err(format!("{key} is due at {at:?} and not in the queue"));
            }
            if !self.observed.instances.contains_key(key) {
                return Err(format!("{key} is due and not observed"));
            }
        }
        for key in self.watched.keys() {
            if !self.observed.instances.contains_key(key) {
                return Err(format!("{key} is watched and not observed"));
            }
        }
        for key in self.suspicions.keys().chain(self.watching.keys()) {
            if !self.watched.contains_key(key) {
                return Err(format!("{key} is suspected or dialled and not watched"));
            }
        }
        for (key, instance) in &self.observed.instances {
            if instance.key != *key {
                return Err(format!("{key} is filed as {}", instance.key));
            }
        }
        let edges = Edges::of(self.observed.instances.values());
        if edges != self.observed.edges {
            return Err(String::from(
                "the edges are not those of the servers' sources",
            ));
        }
        Ok(())
    }
}
