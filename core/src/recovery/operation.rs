//! Operations of one step, through intent and lock like everything that changes a server: read-only and writeable by
//! an operator, the quarantine of a deposed primary, the reopening of a primary that restarted, and the return of a replica that was
//! lost in a recovery.

use alloc::{format, string::String, vec, vec::Vec};
use core::time::Duration;

use super::{
    audit,
    dead_primary::{Move, Progress, Ready, View, may_receive, repoint},
    document::{End, Outcome, Phase, Purpose, Recovery, Stage, Step, StepKind},
    statement::{Lane, Statement},
};
use crate::{
    id::{InstanceKey, StepId},
    policy::DeposedAction,
    topology::{ProbeReport, ThreadState},
};

const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
/// A statement that is still blocked then is left pending, and finished by the next attempt.
const FENCE_DEADLINE: Duration = Duration::from_secs(2);

/// Plans the next move of an operation.
#[must_use]
pub fn next(recovery: &Recovery, view: &impl View, progress: &mut Progress) -> Move {
    let now = view.now().mono;
    if recovery.steps.is_empty() {
        let steps = match steps(recovery, view) {
            Ok(steps) => steps,
            Err(end) => return ended_with(recovery, end, Vec::new()),
        };
        return Move::Intend {
            stage: Stage::Operate,
            candidate: None,
            steps,
            lines: Vec::new(),
        };
    }
    let mut problems: Vec<String> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
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
                        if !step.is_meant_for(&reading.report.identity) {
                            problems.push(format!("{step}: another server answers there"));
                        } else if recovery.purpose == Purpose::Reopen {
                            // It also ends what waits there to close it, which does not show.
                            problems.push(format!("{step}: no answer"));
                        } else if is_done(&recovery.purpose, step.kind, reading.report) {
                            seen.push(audit::seen_line(step, "looked at again: done"));
                        } else {
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
    if problems.is_empty()
        && let Some(next) = after_halt(recovery, view, progress)
    {
        return next;
    }
    let end = if problems.is_empty() {
        End::Succeeded
    } else {
        End::Failed {
            reason: problems.join("; "),
        }
    };
    ended_with(recovery, end, seen)
}

fn ended_with(recovery: &Recovery, end: End, lines: Vec<String>) -> Move {
    Move::End {
        end,
        successor: None,
        lost: Vec::new(),
        participants: vec![recovery.server.clone()],
        lines,
    }
}

/// A replica that is to rejoin and was halted is looked at once more, and then pointed at the primary.
fn after_halt(recovery: &Recovery, view: &impl View, progress: &Progress) -> Option<Move> {
    let Purpose::Rejoin { .. } = recovery.purpose else {
        return None;
    };
    if recovery.steps_of(StepKind::Repoint).next().is_some() {
        return None;
    }
    let (halt, _) = recovery.steps_of(StepKind::Halt).last()?;
    let now = view.now().mono;
    let ended = progress.ended_at.get(&halt.id).copied();
    let ended = ended.unwrap_or(progress.began);
    let is_read = view
        .reading(&recovery.server)
        .is_some_and(|reading| reading.seen > ended);
    let steps = if is_read {
        steps(recovery, view)
    } else {
        Err(End::Failed {
            reason: String::from("it was halted, and cannot be read since"),
        })
    };
    Some(match steps {
        Ok(steps) => Move::Intend {
            stage: Stage::Operate,
            candidate: None,
            steps,
            lines: Vec::new(),
        },
        // What it received is being applied, or it is being read.
        Err(End::Failed { .. }) if now.since(ended) < OPERATION_DEADLINE => Move::Look {
            keys: vec![recovery.server.clone()],
            until: now + Duration::from_millis(200),
        },
        Err(end) => ended_with(recovery, end, Vec::new()),
    })
}

/// What the server shows when it was done.
fn is_done(purpose: &Purpose, kind: StepKind, report: &ProbeReport) -> bool {
    match purpose {
        Purpose::Quarantine { .. } | Purpose::SetReadOnly | Purpose::DeadPrimary { .. } => {
            report.read_only
        }
        Purpose::Reopen | Purpose::SetWriteable => !report.read_only,
        Purpose::Rejoin { primary } => {
            let status = report.replication.as_ref();
            status.is_some_and(|status| match kind {
                StepKind::Halt => status.io == ThreadState::Stopped,
                StepKind::Resume => status.io != ThreadState::Stopped,
                _ => status.source == *primary,
            })
        }
    }
}

/// # Errors
/// How it ends without any: there is nothing to do, or it cannot be done at this time.
fn steps(recovery: &Recovery, view: &impl View) -> Result<Vec<Step>, End> {
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
    let steps = match &recovery.purpose {
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
            let mut statements = vec![Statement::MakeWriteable];
            // With them it is no primary that is watched.
            let may_be_reset = view
                .reading(&recovery.server)
                .is_some_and(|reading| !reading.report.has_unapplied());
            if may_be_reset && view.names_whom_it_replaced(&recovery.server) {
                statements.extend([Statement::StopReplication, Statement::ResetReplicaAll]);
            }
            vec![Step {
                statements,
                ..step(
                    1,
                    StepKind::Reopen,
                    Lane::Act,
                    Statement::MakeWriteable,
                    OPERATION_DEADLINE,
                )
            }]
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
        Purpose::Rejoin { primary } => {
            let former = view
                .reading(&recovery.server)
                .and_then(|reading| reading.report.replication.as_ref())
                .map(|status| status.source.clone());
            let Some(former) = former else {
                let reason = String::from("it replicates from nobody");
                return Err(End::Failed { reason });
            };
            // One that was lost is in the downtime of that, and is set up anew whatever it names.
            let is_halted = former == *primary && !view.is_downtimed(&recovery.server);
            let ready = if is_halted {
                resume(view, &recovery.server)
            } else {
                repoint(view, &former, &recovery.server, primary)
            };
            let (kind, statements) = match ready {
                Ready::Now(statements) if is_halted => (StepKind::Resume, statements),
                Ready::Now(statements) => (StepKind::Repoint, statements),
                Ready::Halt(statements) => (StepKind::Halt, statements),
                Ready::Already => return Err(End::Succeeded),
                Ready::Later => {
                    let reason = String::from("it has not applied what it received");
                    return Err(End::Failed { reason });
                }
                Ready::Never(reason) => return Err(End::Failed { reason }),
            };
            vec![Step {
                statements,
                ..step(
                    recovery.next_step_id().0,
                    kind,
                    Lane::Act,
                    Statement::StopIoThread,
                    OPERATION_DEADLINE,
                )
            }]
        }
        // Planned elsewhere.
        Purpose::DeadPrimary { .. } => Vec::new(),
    };
    Ok(steps)
}

/// Of a replica that an undone recovery left halted: it names the right source, and is to receive from it.
fn resume(view: &impl View, replica: &InstanceKey) -> Ready {
    let report = view.reading(replica).map(|reading| reading.report);
    let status = report.and_then(|report| report.replication.as_ref());
    match (report, status) {
        (Some(report), Some(status)) if status.io == ThreadState::Stopped => {
            if may_receive(report) {
                Ready::Now(vec![Statement::StartIoThread])
            } else {
                Ready::Later
            }
        }
        _ => Ready::Already,
    }
}

/// In place of an analysis code, an operation's record holds its variant.
pub const SUPER_READ_ONLY: &str = "super_read_only";
