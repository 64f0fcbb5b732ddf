//! Every survivor replicates from the promoted server and holds nothing that it lacks.

use super::Ended;

/// # Errors
/// Which server holds what.
pub fn check(ended: &Ended) -> Result<(), String> {
    let Some(primary) = ended.primary() else {
        return Err("no single survivor takes writes".to_owned());
    };
    let of_primary = primary.look(|server| server.executed());
    for survivor in ended.survivors() {
        if survivor.key() == primary.key() {
            continue;
        }
        let (executed, source) =
            survivor.look(|server| (server.executed(), server.source().cloned()));
        if source.as_ref() != Some(primary.key()) {
            return Err(format!(
                "{} replicates from {source:?} and not from {}",
                survivor.key(),
                primary.key()
            ));
        }
        match executed.subtract(&of_primary) {
            Ok(errant) if errant.is_empty() => {}
            Ok(errant) => return Err(format!("{} holds the errant {errant}", survivor.key())),
            Err(mismatch) => return Err(mismatch.to_string()),
        }
    }
    Ok(())
}
