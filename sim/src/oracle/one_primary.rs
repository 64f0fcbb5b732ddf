//! Exactly one surviving server takes writes, it was opened exactly once, and no other was ever opened: one promotion.

use super::Ended;

/// # Errors
/// Which servers were opened, and when.
pub fn check(ended: &Ended) -> Result<(), String> {
    let opened: Vec<_> = ended
        .hosts
        .iter()
        .flat_map(|host| {
            let times = host.look(|server| server.opened().to_vec());
            times.into_iter().map(|at| (host.key().clone(), at))
        })
        .collect();
    match (ended.primary(), opened.as_slice()) {
        (Some(primary), [(only, _)]) if primary.key() == only => Ok(()),
        (Some(primary), _) => Err(format!(
            "{} takes writes, and these were opened: {opened:?}",
            primary.key()
        )),
        (None, _) => Err(format!(
            "not exactly one survivor takes writes; these were opened: {opened:?}"
        )),
    }
}
