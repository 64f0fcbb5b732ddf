//! No statement of ours makes a server forget a transaction that it received and did not apply (F1, F3 to F6 and
//! `RESET REPLICA ALL`): what reached a server is not lost by our own hand.

use crate::witness::Event;

/// # Errors
/// The statement and how much was forgotten.
pub fn observe(event: &Event) -> Result<(), String> {
    match event {
        Event::Executed {
            server,
            statement,
            forgotten,
            ..
        } if *forgotten > 0 => Err(format!(
            "nothing forgotten: {statement} made {server} forget {forgotten} transactions that it had received and not applied"
        )),
        Event::Executed { .. }
        | Event::Committed { .. }
        | Event::Leads { .. }
        | Event::NoLongerLeads { .. }
        | Event::Refused { .. }
        | Event::Votes { .. }
        | Event::HookBegan { .. }
        | Event::HookEnded { .. }
        | Event::Published { .. }
        | Event::Seated { .. } => Ok(()),
    }
}
