//! Operations of one step, through intent and lock like everything that changes a server: read-only and writeable by
//! an operator, the quarantine of a deposed primary, and the reopening of a primary that restarted.

use alloc::{format, string::String, vec, vec::Vec};
use core::time::Duration;

use super::{
    dead_primary::{Move, Progress, View},
    document::{End, Outcome, Phase, Purpose, Recovery, Stage, Step, StepKind},
    statement::{Lane, Statement},
};
use crate::{id::StepId, policy::DeposedAction};

const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
/// A statement that is still blocked then is left pending, and finished by the next attempt.
const FENCE_DEADLINE: Duration = Duration::from_secs(2);

/// Plans the next move of an operation.
#[must_use]
pub fn next(recovery: &Recovery, view: &impl View, progress: &mut Progress) -> Move {
    let now = view.now().mono;
    if recovery.steps.is_empty() {
        let steps = steps(recovery, view);
        return Move::Intend {
            stage: Stage::Operate,
            candidate: None,
            steps,
            lines: Vec::new(),
        };
    }
    let mut problems: Vec<String> = Vec::new();
    for (step, phase) in recovery.steps.values() {
        match phase {
            Phase::Intended(epoch) if *epoch == recovery.owner => {
                return Move::Wait {
                    until: now + step.deadline,
                };
            }
            Phase::Intended(_) | Phase::Settled(Outcome::Unknown { .. }) => {
                // Looked at again: what the server shows is what happened.
                let since = progress
                    .ended_at
                    .get(&step.id)
                    .copied()
                    .unwrap_or(progress.began);
                match view.reading(&step.server) {
                    Some(reading) if reading.seen > since => {
                        if reading.report.read_only != wants_read_only(&recovery.purpose) {
                            problems.push(format!(
                                "{step}: no answer, and looked at again it is not done"
                            ));
                        }
                    }
                    _ if now.since(since) < OPERATION_DEADLINE => {
                        return Move::Look {
                            keys: vec![step.server.clone()],
                            until: now + Duration::from_millis(200),
                        };
                    }
                    _ => problems.push(format!("{step}: no answer, and it cannot be read")),
                }
            }
            Phase::Settled(Outcome::Refused { code, reason }) => {
                problems.push(format!("{step}: refused ({code}): {reason}"));
            }
            Phase::Settled(Outcome::Done) => {}
        }
    }
    let end = if problems.is_empty() {
        End::Succeeded
    } else {
        End::Failed {
            reason: problems.join("; "),
        }
    };
    Move::End {
        end,
        successor: None,
        lost: Vec::new(),
        participants: vec![recovery.server.clone()],
        lines: Vec::new(),
    }
}

fn wants_read_only(purpose: &Purpose) -> bool {
    match purpose {
        Purpose::Quarantine { .. } | Purpose::SetReadOnly | Purpose::DeadPrimary { .. } => true,
        Purpose::Reopen | Purpose::SetWriteable => false,
    }
}

fn steps(recovery: &Recovery, view: &impl View) -> Vec<Step> {
    let step =
        |number: u64, kind: StepKind, lane: Lane, statement: Statement, deadline: Duration| Step {
            id: StepId(number),
            kind,
            server: recovery.server.clone(),
            identity: recovery.identity.clone(),
            lane,
            statements: vec![statement],
            deadline,
            read_after: true,
        };
    match recovery.purpose {
        Purpose::Quarantine { .. } => {
            let mut steps = vec![step(
                1,
                StepKind::Fence,
                Lane::Fence,
                Statement::Fence,
                FENCE_DEADLINE,
            )];
            if view.policy().deposed_action == DeposedAction::ReadOnlyAndKill {
                let spare_users = view.policy().spare_users.clone();
                steps.push(step(
                    2,
                    StepKind::KillClients,
                    Lane::Kill,
                    Statement::KillClients { spare_users },
                    FENCE_DEADLINE,
                ));
            }
            steps
        }
        Purpose::Reopen => {
            vec![step(
                1,
                StepKind::Reopen,
                Lane::Act,
                Statement::MakeWriteable,
                OPERATION_DEADLINE,
            )]
        }
        Purpose::SetReadOnly => {
            let super_read_only = recovery.analysis == SUPER_READ_ONLY;
            vec![step(
                1,
                StepKind::Operate,
                Lane::Act,
                Statement::MakeReadOnly { super_read_only },
                OPERATION_DEADLINE,
            )]
        }
        Purpose::SetWriteable => {
            vec![step(
                1,
                StepKind::Operate,
                Lane::Act,
                Statement::MakeWriteable,
                OPERATION_DEADLINE,
            )]
        }
        // Planned elsewhere.
        Purpose::DeadPrimary { .. } => Vec::new(),
    }
}

/// In place of an analysis code, an operation's record holds its variant.
pub const SUPER_READ_ONLY: &str = "super_read_only";
