//! What was decided: the replicated half, changed only by applying commands in log order.
//!
//! Apply is total: no clock, no randomness, no knowledge of which daemon it runs on. Same position, same digest.

pub mod adoption;
pub mod apply;
pub mod change;
mod codec;
pub mod command;
mod invariants;
pub mod members;
pub mod snapshot;
pub mod state;
mod table;
pub mod wire;

pub use adoption::{Adopted, Adoption, OriginalCluster, OriginalRows, OriginalSummary};
pub use apply::Applied;
pub use change::Change;
pub use codec::{NotYet, WireError};
pub use command::{AckScope, Answer, Command, Detection, Refusal, Stamped};
pub use members::{ChangeCause, Entry, GivenUp, MemberChange, Members, Membership, Swap};
pub use state::{
    Blocked, Candidate, ClusterRecord, Declaration, Deposed, Downtime, Known, LOST_IN_RECOVERY,
    Maintenance, Member, Protocols, Replicated, Sighting, Tag, Versions,
};
