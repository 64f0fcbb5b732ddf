//! Daemons that are heard and belong to another cluster or to none: who they say they are, and whether their address leads
//! to them.
//!
//! Decides nothing. What is kept of them is bounded and is gone with the process: a stranger says it again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::peers::ADDRESS_BYTES_MAX;
use super::wire::Introduction;

/// Strangers kept, at most; the one that was heard longest ago makes room.
const STRANGERS_MAX: usize = 32;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Stranger {
    pub(super) introduction: Introduction,
    pub(super) heard: Duration,
    /// The address that led to it when it was dialled last, and when.
    pub(super) answered: Option<(String, Duration)>,
}

/// All of them, by identity.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeMap<u64, Stranger>);

impl Strangers {
    /// Takes in an introduction; `dialled` is the address that led to it, if it was dialled.
    pub(super) fn introduce(&mut self, from: &Introduction, dialled: Option<&str>, now: Duration) {
        if from.advertise.len() > ADDRESS_BYTES_MAX {
            return;
        }
        if !self.0.contains_key(&from.node)
            && self.0.len() >= STRANGERS_MAX
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, stranger)| stranger.heard)
                .map(|(node, _)| *node)
        {
            self.0.remove(&oldest);
        }
        if let Some(address) = dialled {
            // An address leads to one daemon at a time.
            for stranger in self.0.values_mut() {
                stranger.answered.take_if(|(known, _)| known == address);
            }
        }
        let answered = match dialled {
            Some(address) => Some((address.to_owned(), now)),
            None => self
                .0
                .get(&from.node)
                .and_then(|known| known.answered.clone()),
        };
        self.0.insert(
            from.node,
            Stranger {
                introduction: from.clone(),
                heard: now,
                answered,
            },
        );
    }

    /// It is a stranger no more.
    pub(super) fn forget(&mut self, node: u64) {
        self.0.remove(&node);
    }

    pub(super) fn get(&self, node: u64) -> Option<&Stranger> {
        self.0.get(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Stranger)> {
        self.0.iter().map(|(node, stranger)| (*node, stranger))
    }
}
