//! The fleet as the driver sees it: what may be asked of MySQL servers, whatever plays them.
//!
//! Decides nothing: no policy, no retry. Production implements it over the wire ([`crate::mysql`]), the simulator with
//! a model. Every future ends by itself within deadlines that the implementation knows; dropping one abandons the
//! connection it used, never leaves it to somebody else half read.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{Epoch, InstanceKey, Uid};
use orchestrator_core::node::{ProbeEnd, Sign, StepEnd};
use orchestrator_core::recovery::Step;
use orchestrator_core::time::Mono;

/// Where signs of watched servers go. Called from tasks of the fleet; must not block.
#[derive(Clone)]
pub struct SignSender(Arc<dyn Fn(InstanceKey, Sign) + Send + Sync>);

impl SignSender {
    /// Signs go to this function.
    pub fn new(send: impl Fn(InstanceKey, Sign) + Send + Sync + 'static) -> Self {
        SignSender(Arc::new(send))
    }

    /// Reports one sign.
    pub fn send(&self, key: &InstanceKey, sign: Sign) {
        (self.0)(key.clone(), sign);
    }
}

impl std::fmt::Debug for SignSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignSender")
    }
}

/// Whether statements of an epoch may still be sent (`RAFT.md` section 6). Asked before each statement.
pub trait Gate: Send + Sync {
    /// Confirms that this daemon still leads under `epoch`. The answer is the instant, on [`crate::env::Env::mono`]'s
    /// clock, until which a statement may be put on the wire; the fleet compares it once more just before it writes.
    ///
    /// # Errors
    /// Why nothing may be sent, in words for the step's outcome.
    fn confirm(&self, epoch: Epoch) -> impl Future<Output = Result<Mono, String>> + Send;
}

/// What may be asked of the servers.
pub trait Fleet: Clone + Send + Sync + 'static {
    /// Reads one server. At most one probe of a server runs at a time: a second waits for the first.
    fn probe(&self, key: InstanceKey) -> impl Future<Output = ProbeEnd> + Send;

    /// Keeps a pulse and an idle fence connection to a server and reports signs. While the pulse is broken it is dialled
    /// again every `redial`, one dial in flight. For a server that is watched already only the interval and the
    /// receiver of signs change.
    fn watch(&self, key: InstanceKey, redial: Duration, signs: SignSender);

    /// Ends [`Fleet::watch`]: closes the pulse and the fence connection, a pending fence statement with it.
    fn unwatch(&self, key: &InstanceKey);

    /// Closes everything kept to a forgotten server.
    fn drop_server(&self, key: &InstanceKey);

    /// Runs a step that was intended under `epoch`. Steps of one server, lane and epoch run one after another; one of an
    /// older epoch than was seen on that server is refused.
    fn run(
        &self,
        uid: Uid,
        epoch: Epoch,
        step: Step,
        gate: impl Gate + 'static,
    ) -> impl Future<Output = StepEnd> + Send;

    /// Writes the fence statement into the idle fence connection of a server whose promote intent is committed, for this
    /// recovery. Nothing is awaited; without such a connection nothing happens.
    fn fence_frozen(&self, uid: &Uid, key: &InstanceKey);
}
