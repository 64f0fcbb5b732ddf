//! All of the replicated state at one position, as bytes: a contract like the commands' (`wire`).
//!
//! Magic (8 bytes), version (1 byte), SHA-256 of what follows (32 bytes), then scalars and tables in a fixed order.
//! Written in the version that is switched on, so that every member reads what a leader sends it. Restoring equals
//! replaying: same digest, same answers from there on. Encode a clone, away from the driver.

use alloc::{sync::Arc, vec::Vec};
use sha2::{Digest as _, Sha256};

use super::{
    codec::{Reader, Wire, WireError, Writer},
    state::{Index, Replicated},
};

/// The newest snapshot version that this release reads and, once `SetVersion` has switched it on, writes. Version 2 tells of
/// each member which raft protocols it speaks, and of each detection where its hooks stand.
pub const SNAPSHOT_VERSION: u8 = 2;

const MAGIC: &[u8; 8] = b"orchsnap";
const HEADER_BYTES: usize = MAGIC.len() + 1 + 32;

impl Replicated {
    /// Encodes the state at its position.
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut out = Writer::new(self.form, Vec::with_capacity(64 * 1_024));
        out.extend_from_slice(MAGIC);
        // Never above the newest version, which is a byte.
        out.push(self.form as u8);
        out.extend_from_slice(&[0; 32]);
        self.put_scalars(&mut out);
        self.members.put(&mut out);
        self.declarations.put(&mut out);
        self.known.put(&mut out);
        self.forgotten.put(&mut out);
        self.clusters.put(&mut out);
        self.downtimes.put(&mut out);
        self.maintenance.put(&mut out);
        self.candidates.put(&mut out);
        self.tags.put(&mut out);
        self.detections.put(&mut out);
        self.recoveries.put(&mut out);
        self.blocked.put(&mut out);
        self.deposed.put(&mut out);
        let mut out = out.finish().expect(
            "the state holds what the version in force can say: no other command brings it",
        );
        let checksum = Sha256::digest(&out[HEADER_BYTES..]);
        out[MAGIC.len() + 1..HEADER_BYTES].copy_from_slice(&checksum);
        out
    }

    /// Restores a state from a snapshot's bytes.
    ///
    /// # Errors
    /// Bytes that are no snapshot, are damaged, come from a later release, or contradict themselves.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_snapshot_up_to(SNAPSHOT_VERSION, bytes)
    }

    /// The same for a daemon that reads snapshots up to this version.
    ///
    /// # Errors
    /// As above.
    pub fn decode_snapshot_up_to(newest: u8, bytes: &[u8]) -> Result<Self, WireError> {
        let newest = newest.min(SNAPSHOT_VERSION);
        let (magic, rest) = bytes
            .split_at_checked(MAGIC.len())
            .ok_or(WireError::Short)?;
        if magic != MAGIC {
            return Err(WireError::Magic);
        }
        let (found, rest) = rest.split_first().ok_or(WireError::Short)?;
        let found = *found;
        if found == 0 || found > newest {
            return Err(WireError::Version { found, newest });
        }
        let form = u32::from(found);
        let mut from = Reader::new(form, rest);
        let checksum = from.bytes(32)?;
        let contents = bytes.get(HEADER_BYTES..).ok_or(WireError::Short)?;
        if Sha256::digest(contents)[..] != *checksum {
            return Err(WireError::Checksum);
        }
        let mut state = Self {
            applied: Wire::take(&mut from)?,
            time: Wire::take(&mut from)?,
            versions: Wire::take(&mut from)?,
            form,
            policy: Wire::take(&mut from)?,
            is_policy_set: Wire::take(&mut from)?,
            stopped: Wire::take(&mut from)?,
            last_detection: Wire::take(&mut from)?,
            last_recovery: Wire::take(&mut from)?,
            last_maintenance: Wire::take(&mut from)?,
            membership: Wire::take(&mut from)?,
            change: Wire::take(&mut from)?,
            given_up: Wire::take(&mut from)?,
            swaps: Wire::take(&mut from)?,
            adoption: Wire::take(&mut from)?,
            members: Wire::take(&mut from)?,
            declarations: Wire::take(&mut from)?,
            known: Wire::take(&mut from)?,
            forgotten: Wire::take(&mut from)?,
            clusters: Wire::take(&mut from)?,
            downtimes: Wire::take(&mut from)?,
            maintenance: Wire::take(&mut from)?,
            candidates: Wire::take(&mut from)?,
            tags: Wire::take(&mut from)?,
            detections: Wire::take(&mut from)?,
            recoveries: Wire::take(&mut from)?,
            blocked: Wire::take(&mut from)?,
            deposed: Wire::take(&mut from)?,
            index: Arc::default(),
        };
        from.end()?;
        state.index = Arc::new(Index::of(&state).map_err(WireError::Contradiction)?);
        Ok(state)
    }
}
