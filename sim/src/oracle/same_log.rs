//! Same log: raft gives the same entry at the same place to every daemon, in every life of it, and to nobody for the first
//! time what stands before an entry that somebody was given already. What is committed can be read.

use std::collections::BTreeMap;
use std::fmt::Display;

use orchestrator_core::id::LogPosition;

/// The term and the hash of what was committed at each index.
#[derive(Debug, Default)]
pub struct SameLog {
    entries: BTreeMap<u64, (u64, u64)>,
}

impl SameLog {
    /// People made a new cluster of what one daemon held at this position: what came behind it is given up.
    pub fn cut(&mut self, at: LogPosition) {
        self.entries.split_off(&(at.index + 1));
    }

    /// A daemon was given an entry; whether it is the first that was given this one.
    ///
    /// # Errors
    /// Another was given something else.
    pub fn given(&mut self, daemon: &str, at: LogPosition, bytes: &[u8]) -> Result<bool, String> {
        let of_bytes = orchestrator::trace::hash(orchestrator::trace::HASH_START, bytes);
        match self.entries.get(&at.index) {
            Some(known) if *known == (at.term, of_bytes) => Ok(false),
            Some((term, _)) => Err(format!(
                "same log: {daemon} was given another committed entry at {at} than was committed there first, of term {term}"
            )),
            None => {
                let last = self.entries.last_key_value().map(|(index, _)| *index);
                self.entries.insert(at.index, (at.term, of_bytes));
                match last {
                    Some(later) if later > at.index => Err(format!(
                        "same log: {daemon} was given an entry at {at} that nobody was given before the one at {later}"
                    )),
                    Some(_) | None => Ok(true),
                }
            }
        }
    }
}

/// What is said of an entry that cannot be read.
#[must_use]
pub fn unreadable(at: LogPosition, why: &impl Display) -> String {
    format!("same log: the committed entry at {at} cannot be read: {why}")
}
