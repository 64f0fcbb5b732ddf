//! What the oracles of a simulated world are told by the models as it happens. Without the simulators nobody listens.

use orchestrator_core::id::{Epoch, InstanceKey, StepId, Uid};
use orchestrator_core::recovery::{Statement, StepKind};

/// Why a statement was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A step of a recovery or an operation.
    Step {
        uid: Uid,
        step: StepId,
        kind: StepKind,
        epoch: Epoch,
    },
    /// Left in the idle connection of a frozen server (`RAFT.md` section 6, the one exception).
    FrozenFence,
}

/// A statement is about to be sent over a session.
pub(super) fn sent(server: &InstanceKey, session: u64, statement: &Statement, cause: Cause) {
    #[cfg(feature = "engines")]
    crate::witness::sent(server, session, statement, cause);
    #[cfg(not(feature = "engines"))]
    let _ = (server, session, statement, cause);
}

/// A statement of a session took effect, and made the server forget so many transactions that it had received and not
/// applied; or none: the server refused it.
pub(super) fn executed(
    server: &InstanceKey,
    session: u64,
    statement: &Statement,
    forgotten: Option<usize>,
) {
    #[cfg(feature = "engines")]
    crate::witness::executed(server, session, statement, forgotten);
    #[cfg(not(feature = "engines"))]
    let _ = (server, session, statement, forgotten);
}
