//! What the audit of a recovery says of its steps: which statements were intended for which server, in which stage and
//! under which epoch, and how each step ended.
//!
//! Words for people, made by whoever proposes the command that they go with, so that every daemon records the same ones.
//! They never hold the values of a channel's options. Hooks have words of their own.

use alloc::{format, string::String, vec::Vec};

use super::{
    document::{Outcome, Recovery, Stage, Step, StepKind},
    hook,
};
use crate::id::{Epoch, StepId};

/// For the record of steps that are intended.
#[must_use]
pub fn intent_lines(stage: Stage, epoch: Epoch, steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .filter(|step| step.kind != StepKind::Hook)
        .map(|step| format!("{stage}: intended {step} (epoch {epoch})"))
        .collect()
}

/// For the record of outcomes.
#[must_use]
pub fn outcome_lines(recovery: &Recovery, outcomes: &[(StepId, Outcome)]) -> Vec<String> {
    outcomes
        .iter()
        .filter_map(|(id, outcome)| {
            let (step, _) = recovery.steps.get(id)?;
            Some(match step.kind {
                StepKind::Hook => {
                    let what = step.statements.first()?;
                    match hook::failure_of(outcome) {
                        None => format!("{what}: done"),
                        Some(why) => format!("{what}: {why}"),
                    }
                }
                StepKind::Fence
                | StepKind::KillClients
                | StepKind::Halt
                | StepKind::Drain
                | StepKind::Promote
                | StepKind::Reset
                | StepKind::Repoint
                | StepKind::Resume
                | StepKind::Reopen
                | StepKind::Operate => match outcome {
                    Outcome::Done => format!("{step}: done"),
                    Outcome::Refused { code: 0, reason } => format!("{step}: refused: {reason}"),
                    Outcome::Refused { code, reason } => {
                        format!("{step}: refused ({code}): {reason}")
                    }
                    Outcome::Unknown { reason } => format!("{step}: outcome unknown: {reason}"),
                },
            })
        })
        .collect()
}

/// For the record of a recovery that ends before a step has an outcome, or one that is known: what its server showed.
#[must_use]
pub fn seen_line(step: &Step, seen: &str) -> String {
    format!("{step}: no outcome is known; {seen}")
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};
    use core::time::Duration;

    use super::super::statement::{Lane, SourcePosition, Statement};
    use super::*;
    use crate::id::{InstanceKey, NodeId};

    #[test]
    fn the_values_of_options_are_in_no_line() {
        let step = Step {
            id: StepId(7),
            kind: StepKind::Repoint,
            server: InstanceKey::new("db3", 3306),
            identity: None,
            lane: Lane::Act,
            statements: vec![Statement::ChangeSource {
                source: InstanceKey::new("db2", 3306),
                position: SourcePosition::OracleAuto,
                options: vec![("SOURCE_PASSWORD".to_string(), "'secret'".to_string())],
            }],
            deadline: Duration::from_secs(1),
            read_after: true,
        };
        let epoch = Epoch {
            term: 3,
            node: NodeId(1),
            boot: 2,
        };
        let lines = intent_lines(Stage::Regroup, epoch, &[step]);
        let expected = format!(
            "regroup: intended step-7 on db3:3306: change source to db2:3306, by GTID auto position, 1 channel options \
             stated again (epoch {epoch})"
        );
        assert_eq!(lines, [expected]);
    }
}
