//! Snapshots that peers send, in pieces. Each is held in memory whole, hence few at one time: of each peer the one that it
//! began last; and where there is no room, the one that was begun first makes it, whose sender may be gone without a word.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::node::locked;
use super::wire::{LogIdV1, StoredMembershipV1, VoteV1};

/// So many are held while their pieces come.
const INCOMING_MAX: usize = 2;

/// A snapshot that is being received.
pub(super) struct Incoming {
    pub(super) vote: VoteV1,
    pub(super) last: LogIdV1,
    pub(super) membership: StoredMembershipV1,
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
    pub(super) data: Vec<u8>,
}

#[derive(Clone, Default)]
pub(super) struct Receiving(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    begun: u64,
    /// With their numbers and their senders, oldest first.
    snapshots: VecDeque<(u64, u64, Incoming)>,
}

/// The place of a snapshot whose pieces follow; given away when it is dropped.
pub(super) struct Place {
    all: Receiving,
    number: u64,
}

impl Receiving {
    pub(super) fn begin(&self, from: u64, incoming: Incoming) -> Place {
        let mut held = locked(&self.0);
        held.snapshots.retain(|(_, sender, _)| *sender != from);
        while held.snapshots.len() >= INCOMING_MAX {
            held.snapshots.pop_front();
        }
        held.begun += 1;
        let number = held.begun;
        held.snapshots.push_back((number, from, incoming));
        Place {
            all: self.clone(),
            number,
        }
    }
}

impl Place {
    /// Takes the next bytes, and says how many there are; `None` when it had to make room, an error when they do not fit.
    pub(super) fn push(&self, offset: u64, bytes: &[u8]) -> Option<Result<u64, ()>> {
        let mut held = locked(&self.all.0);
        let (.., incoming) = held
            .snapshots
            .iter_mut()
            .find(|(number, ..)| *number == self.number)?;
        let had = incoming.data.len() as u64;
        if offset != had || had + bytes.len() as u64 > incoming.bytes {
            return Some(Err(()));
        }
        incoming.data.extend_from_slice(bytes);
        Some(Ok(incoming.data.len() as u64))
    }

    /// What was received; `None` when it had to make room.
    pub(super) fn take(self) -> Option<Incoming> {
        let mut held = locked(&self.all.0);
        let mut snapshots = held.snapshots.iter();
        let at = snapshots.position(|(number, ..)| *number == self.number)?;
        held.snapshots.remove(at).map(|(.., incoming)| incoming)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = locked(&self.all.0);
        held.snapshots.retain(|(number, ..)| *number != self.number);
    }
}
