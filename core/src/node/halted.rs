//! Replicas that a recovery left halted which promoted nobody: it stopped their receivers, and they did not answer, or refused,
//! while it was undone, or it failed at the promotion. The leader starts them when they answer and their primary does, unless
//! people have touched them since.
//!
//! Holds between calls: what is held was halted by a recovery of its cluster, nobody was promoted since, and it was not seen
//! receiving since, unless the stop was not answered and may come late.

use alloc::{collections::BTreeMap, format, vec::Vec};
use core::time::Duration;

use super::{Level, Node, Output, backoff::Backoff, note};
use crate::{
    id::{ClusterKey, InstanceKey},
    recovery::{Outcome, Phase, Purpose, Recovery, Statement, StepKind, dead_primary::may_receive},
    replicated::{ClusterRecord, Replicated},
    time::{Now, Wall},
    topology::ThreadState,
};

/// One that could not be started is tried again after this time, which doubles so often.
const RESUME_AGAIN: Duration = Duration::from_secs(5);
const RESUME_DOUBLINGS: u32 = 6;
/// What stands for so long was seen by people, and is theirs.
const RESUMED_WITHIN: Duration = Duration::from_secs(3600);
/// A stop whose answer was never heard may take effect so long after the recovery's end: it was on its way from a leader that
/// was cut off, and the next one saw the replica receive.
const LATE_WITHIN: Duration = Duration::from_secs(30);
/// A receiver that was stopped while it tried to connect shows the last of these ever since: it did not stop by itself. Errors of
/// the client library, and what a server says that lets nobody in (8.4 Reference Manual, "Server Error Message Reference"): too
/// many connections, access denied, being shut down, a host that is blocked or not allowed.
const fn is_of_connecting(errno: u32) -> bool {
    matches!(
        errno,
        2000..=2999 | 1040 | 1045 | 1053 | 1129 | 1130 | 1203 | 1226
    )
}

#[derive(Debug, Default)]
pub(super) struct LeftHalted {
    replicas: BTreeMap<InstanceKey, Halted>,
}

#[derive(Debug)]
struct Halted {
    cluster: ClusterKey,
    /// When the recovery ended.
    since: Wall,
    /// It may be stopped yet.
    may_be_late: bool,
    start: Backoff,
}

/// What is to be done about a replica that was left halted.
enum Look {
    Wait,
    /// It receives, or it is none of this program's business any more.
    Over,
    Start {
        source: InstanceKey,
    },
}

impl LeftHalted {
    pub(super) fn of(replicated: &Replicated) -> Self {
        let mut left = Self::default();
        let mut ended: Vec<&Recovery> = replicated.recoveries_newest_first().collect();
        ended.reverse();
        for recovery in ended {
            left.ended(recovery);
        }
        left
    }

    /// A recovery or an operation has ended.
    pub(super) fn ended(&mut self, recovery: &Recovery) {
        let Some((since, _)) = &recovery.end else {
            return;
        };
        if let Purpose::Rejoin { .. } = recovery.purpose {
            if recovery.is_successful() {
                self.replicas.remove(&recovery.server);
            }
            return;
        }
        if !recovery.purpose.is_recovery() {
            return;
        }
        let is_promoted = recovery.steps_of(StepKind::Promote).next().is_some();
        if recovery.is_successful() || is_promoted && recovery.successor.is_some() {
            self.replicas
                .retain(|_, halted| halted.cluster != recovery.cluster);
            return;
        }
        let mut halted: BTreeMap<&InstanceKey, bool> = BTreeMap::new();
        for (step, phase) in recovery.steps_of(StepKind::Halt) {
            if step.statements.contains(&Statement::StopIoThread) {
                let is_answered = matches!(
                    phase,
                    Phase::Settled(Outcome::Done | Outcome::Refused { .. })
                );
                *halted.entry(&step.server).or_default() |= !is_answered;
            }
        }
        for (key, may_be_late) in halted {
            let resumed = recovery
                .steps_of(StepKind::Resume)
                .filter(|(step, _)| step.server == *key)
                .last();
            let is_resumed = matches!(resumed, Some((_, Phase::Settled(Outcome::Done))));
            if is_resumed && !may_be_late {
                self.replicas.remove(key);
            } else {
                let halted = Halted {
                    cluster: recovery.cluster,
                    since: *since,
                    may_be_late,
                    start: Backoff::default(),
                };
                self.replicas.insert(key.clone(), halted);
            }
        }
    }
}

impl Node {
    pub(super) fn start_left_halted(&mut self, now: Now, out: &mut Output) {
        let keys: Vec<InstanceKey> = self.left_halted.replicas.keys().cloned().collect();
        for key in keys {
            match self.look_at_halted(now, &key) {
                Look::Wait => {}
                Look::Over => {
                    self.left_halted.replicas.remove(&key);
                }
                Look::Start { source } => {
                    if let Some(halted) = self.left_halted.replicas.get_mut(&key) {
                        halted.start.tried(now.mono, RESUME_AGAIN, RESUME_DOUBLINGS);
                    }
                    note(
                        out,
                        Level::Warning,
                        None,
                        format!(
                            "{key} was left halted by a recovery that promoted nobody, and answers: starting its IO thread"
                        ),
                    );
                    self.open(now, &key, Purpose::Rejoin { primary: source }, "", out);
                }
            }
        }
    }

    fn look_at_halted(&self, now: Now, key: &InstanceKey) -> Look {
        let Some(halted) = self.left_halted.replicas.get(key) else {
            return Look::Over;
        };
        let (Some(record), Some(instance)) = (
            self.replicated.cluster(halted.cluster),
            self.observed.instances.get(key),
        ) else {
            return Look::Over;
        };
        if now.wall.since(halted.since) > RESUMED_WITHIN {
            return Look::Over;
        }
        if !halted.start.is_due(now.mono)
            || self.beginning.contains(key)
            || self.replicated.running_on(record.key).is_some()
            || !instance.is_last_check_valid()
            || instance.seen <= self.learned.settled_since(record.key)
        {
            return Look::Wait;
        }
        let Some(report) = &instance.report else {
            return Look::Wait;
        };
        let Some(status) = &report.replication else {
            return Look::Over;
        };
        if status.source != record.primary {
            return Look::Over;
        }
        if status.io != ThreadState::Stopped {
            let may_stop = halted.may_be_late && now.wall.since(halted.since) <= LATE_WITHIN;
            return if may_stop { Look::Wait } else { Look::Over };
        }
        // Its applier ran on: whoever stopped that as well is not this program.
        let is_as_left = status.io_errno == 0
            || is_of_connecting(status.io_errno) && status.sql == ThreadState::Running;
        if !is_as_left {
            return Look::Over;
        }
        if !self.serves(record)
            || !self.may_change(record)
            || !may_receive(report)
            || self.replicated.downtime_of(key, now.wall).is_some()
            || self.replicated.maintenance_of(key, now.wall).is_some()
        {
            return Look::Wait;
        }
        Look::Start {
            source: record.primary.clone(),
        }
    }

    /// The primary is open, by a reading since everything that was done to its cluster, and no other server of its cluster is
    /// known to take writes.
    fn serves(&self, record: &ClusterRecord) -> bool {
        let settled = self.learned.settled_since(record.key);
        let primary = self.observed.instances.get(&record.primary);
        let is_open = primary.is_some_and(|primary| {
            primary.is_last_check_valid()
                && primary.seen > settled
                && primary.identity() == record.identity.as_ref()
                && !primary.read_only()
        });
        let mut others = record.members.iter().filter(|key| **key != record.primary);
        is_open && !others.any(|key| self.takes_writes(key, settled) == Some(true))
    }
}
