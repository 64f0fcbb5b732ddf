//! Every daemon's audit shows one recovery, of the killed primary, that succeeded with the server that takes writes.

use super::Ended;

/// # Errors
/// What a daemon's audit shows instead.
pub fn check(ended: &Ended) -> Result<(), String> {
    let Some(primary) = ended.primary() else {
        return Err("no single survivor takes writes".to_owned());
    };
    for daemon in &ended.daemons {
        let recoveries: Vec<_> = daemon
            .recoveries
            .iter()
            .filter(|recovery| recovery.purpose.is_recovery())
            .collect();
        let [recovery] = recoveries.as_slice() else {
            let shown: Vec<_> = recoveries
                .iter()
                .map(|recovery| (&recovery.server, &recovery.end, &recovery.errors))
                .collect();
            return Err(format!(
                "{} shows {} recoveries: {shown:?}",
                daemon.name,
                recoveries.len()
            ));
        };
        if recovery.server != ended.killed
            || !recovery.is_successful()
            || recovery.successor.as_ref() != Some(primary.key())
        {
            return Err(format!(
                "{} shows a recovery of {} that ended {:?} with {:?}; {} was killed and {} takes writes",
                daemon.name,
                recovery.server,
                recovery.end,
                recovery.successor,
                ended.killed,
                primary.key()
            ));
        }
    }
    Ok(())
}
