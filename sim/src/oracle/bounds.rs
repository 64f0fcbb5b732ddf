//! Bounds hold: however often connections break and leaders change, what the daemons hold open on a server stays within
//! what a few of each kind need.

use crate::model::Host;

/// A daemon's connections to a server: a probe, a pulse and a spare one, an idle fence and a pending one, an action
/// connection for each of three lanes, and the same again of an epoch that is being let go.
const SESSIONS_A_DAEMON_MAX: usize = 16;
/// Replicas, applications, and connections that were cut off and that the server does not know to be dead.
const SESSIONS_OF_OTHERS_MAX: usize = 64;

/// # Errors
/// A server on which too many sessions are open.
pub fn look(hosts: &[Host], daemons: usize) -> Result<(), String> {
    for host in hosts {
        let sessions = host.look(|server| server.sessions_open());
        let most = SESSIONS_OF_OTHERS_MAX + SESSIONS_A_DAEMON_MAX * daemons.max(3);
        if sessions > most {
            return Err(format!(
                "bounds: {} has {sessions} sessions, at most {most} make sense",
                host.key()
            ));
        }
    }
    Ok(())
}
