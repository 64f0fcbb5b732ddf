//! Bounds hold: however often connections break and leaders change, what the daemons hold open on a server stays within
//! what a few of each kind need; and so does what replicas and applications hold, who dial anew when they are cut off.

use crate::model::Host;
use crate::model::server::{Account, Server};

/// A daemon's connections to a server: a probe, a pulse and a spare one, an idle fence and a pending one, an action
/// connection for each of three lanes, and the same again of an epoch that is being let go.
const OF_A_DAEMON_MAX: usize = 16;
/// What a daemon leaves behind when its machine loses power: nobody tells the server that the other end is gone.
const LEFT_BEHIND_MAX: usize = 8;
/// Applications, and their connections that were cut off and that the server does not know to be dead.
const OF_APPLICATIONS_MAX: usize = 16;
/// The same of each replica.
const OF_A_REPLICA_MAX: usize = 2;

/// The most that was seen open on a server.
#[derive(Debug, Default)]
pub struct Bounds {
    /// How often a daemon's machine lost power.
    pub power_cuts: usize,
    pub of_daemons: usize,
    pub of_others: usize,
}

impl Bounds {
    /// # Errors
    /// A server on which too many sessions are open.
    pub fn look(&mut self, hosts: &[Host], daemons: usize) -> Result<(), String> {
        for host in hosts {
            let (of_daemons, of_others) = host.look(sessions);
            self.of_daemons = self.of_daemons.max(of_daemons);
            self.of_others = self.of_others.max(of_others);
            let limits = [
                (
                    of_daemons,
                    OF_A_DAEMON_MAX * daemons.max(3) + LEFT_BEHIND_MAX * self.power_cuts,
                    "of daemons",
                ),
                (
                    of_others,
                    OF_APPLICATIONS_MAX + OF_A_REPLICA_MAX * hosts.len(),
                    "of replicas and applications",
                ),
            ];
            for (count, most, whose) in limits {
                if count > most {
                    return Err(format!(
                        "bounds: {} has {count} sessions {whose}, at most {most} make sense",
                        host.key()
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The daemons' and the others'.
fn sessions(server: &Server) -> (usize, usize) {
    let (daemons, others): (Vec<_>, Vec<_>) = server
        .accounts()
        .partition(|account| matches!(account, Account::Orchestrator));
    (daemons.len(), others.len())
}
