//! What follows from settings that are possible, and that whoever begins with this program may not expect.
//!
//! Nothing is refused here, and nothing is found wrong: a file like these is one that the original runs with. Mistakes are told
//! of when the file is read ([`super::check`]); this is told when a daemon is started with it, and when it is read again.

use super::address::Address;
use super::{RaftSettings, Settings};

/// Something that deserves a line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// It is hardly meant.
    pub is_warning: bool,
    pub text: String,
}

impl Settings {
    /// What deserves a line of the log when a daemon goes by these settings.
    pub fn remarks(&self) -> Vec<Remark> {
        let warnings = [
            self.servers_without_login(),
            self.raft
                .as_ref()
                .and_then(|raft| self.bound_to_itself(raft)),
        ];
        let warnings = warnings.into_iter().flatten();
        let told = self.watches_only().into_iter();
        let remark = |is_warning| move |text: String| Remark { is_warning, text };
        warnings
            .map(remark(true))
            .chain(told.map(remark(false)))
            .collect()
    }

    fn servers_without_login(&self) -> Option<String> {
        self.topology.credentials.user.is_empty().then(|| {
            String::from(
                "MySQLTopologyUser is not set: no server lets this daemon in, so that none can be read and none is recovered; add \
                 \"MySQLTopologyUser\": \"orchestrator\", \"MySQLTopologyPassword\": \"...\" (or MySQLTopologyCredentialsConfigFile) of an \
                 account that the servers have; what it is to be granted is in grants, of the package's examples \
                 (/usr/share/doc/orchestrator/examples) or of runtime/packaging",
            )
        })
    }

    /// What the leader's file says counts, and each may lead.
    fn watches_only(&self) -> Option<String> {
        if self.process.observe_only {
            return Some(String::from(
                "ObserveOnly is set: while this daemon leads failures are detected and recorded, and no recovery is begun",
            ));
        }
        self.recovery.primary_filters.is_empty().then(|| {
            String::from(
                "RecoverMasterClusterFilters is empty: while this daemon leads failures are detected and recorded, and no dead \
                 primary is replaced; add \"RecoverMasterClusterFilters\": [\"*\"] to have those of all clusters replaced, or name \
                 clusters there",
            )
        })
    }

    /// The default of `RaftBind` serves daemons of one machine.
    fn bound_to_itself(&self, raft: &RaftSettings) -> Option<String> {
        let is_elsewhere = |node: &Address| {
            node.host != "localhost" && !node.ip().is_some_and(|ip| ip.is_loopback())
        };
        let others = raft.nodes.iter().any(is_elsewhere);
        (self.place("RaftBind").is_none() && others).then(|| {
            format!(
                "RaftBind is not set, so that this daemon listens for the others at {}, where only its own machine reaches it: they, \
                 and it, wait for ever; add \"RaftBind\": \"ADDRESS\" with this machine's own entry of RaftNodes, or with \"0.0.0.0\" \
                 and that entry for RaftAdvertise",
                raft.bind
            )
        })
    }
}
