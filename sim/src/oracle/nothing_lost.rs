//! The promoted server was the right one: it has every transaction that any survivor had ever received. Every
//! acknowledged write that a survivor had received is there, and every write that it acknowledged itself.

use std::collections::BTreeSet;

use super::Ended;

/// # Errors
/// The writes that are missing.
pub fn check(ended: &Ended) -> Result<(), String> {
    let Some(primary) = ended.primary() else {
        return Err("no single survivor takes writes".to_owned());
    };
    let held: BTreeSet<u64> =
        primary.look(|server| server.transactions().iter().map(|one| one.write).collect());
    for survivor in ended.survivors() {
        let missing: Vec<u64> =
            survivor.look(|server| server.ever_held().difference(&held).copied().collect());
        if !missing.is_empty() {
            return Err(format!(
                "{} had received {missing:?}, which the promoted {} lacks",
                survivor.key(),
                primary.key()
            ));
        }
    }
    let missing: Vec<u64> = ended
        .ledger
        .acknowledged()
        .into_iter()
        .filter(|(write, _, by)| by == primary.key() && !held.contains(write))
        .map(|(write, _, _)| write)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{} acknowledged {missing:?} and does not have it",
            primary.key()
        ))
    }
}
