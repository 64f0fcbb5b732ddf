//! A promotion waits for the drain: a server is opened by one only when it has applied all that it received. Else clients
//! would read the past there, and write beside what is still to be applied.

use orchestrator_core::recovery::{Statement, StepKind};

use crate::model::Host;
use crate::witness::{Cause, Event};

/// # Errors
/// What was opened, and what it had not applied.
pub fn observe(event: &Event, hosts: &[Host]) -> Result<(), String> {
    let Event::Executed {
        server,
        statement: Statement::MakeWriteable,
        cause: Some(Cause::Step {
            kind: StepKind::Promote,
            ..
        }),
        ..
    } = event
    else {
        return Ok(());
    };
    let unapplied = hosts
        .iter()
        .find(|host| host.key() == server)
        .map_or(0, |host| host.look(|server| server.unapplied().count()));
    if unapplied == 0 {
        Ok(())
    } else {
        Err(format!(
            "drained first: {server} was opened by a promotion with {unapplied} transactions received and not applied"
        ))
    }
}
