//! What a run's oracles are told as it happens: what raft committed, who leads and votes, which statements went to which
//! server and took effect there. Each oracle judges on the spot, so that what it sees is what was true then; the first
//! broken promise ends the run.
//!
//! One witness a thread, as with the disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use orchestrator::kv::Version;
use orchestrator_core::id::{ClusterId, InstanceKey, LogPosition, Uid};
use orchestrator_core::recovery::{Hook, Statement, StepKind};
use orchestrator_core::replicated::{Answer, Command, Members, Replicated, wire};
use tokio::sync::watch;

use crate::hooks::HooksSetup;
use crate::model::Host;
pub use crate::model::told::Cause;
use crate::network;
use crate::oracle::{Oracles, Truth, own_cluster, same_log};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Raft gave a committed entry to a daemon; told at the first daemon that is given it.
    Committed {
        at: LogPosition,
        command: Command,
        /// What applying it came to: no refusal.
        answer: Answer,
    },
    /// The same of an entry whose command is refused wherever it is applied: it decides nothing.
    Refused { at: LogPosition },
    /// A daemon became the leader of a term.
    Leads {
        daemon: String,
        /// Which process of its machine.
        process: usize,
        cluster: String,
        term: u64,
    },
    /// A daemon stopped leading, or is down or frozen.
    NoLongerLeads { daemon: String },
    /// An identity promised its vote, and its promise is on stable storage: to itself, or in an answer.
    Votes {
        daemon: String,
        voter: String,
        term: u64,
        candidate: String,
    },
    /// Raft's members were changed; told at the first daemon that is given the entry.
    Seated { at: LogPosition },
    /// A daemon began a hook.
    HookBegan {
        daemon: String,
        hook: Hook,
        environment: BTreeMap<&'static str, String>,
    },
    /// A hook ended while its daemon ran.
    HookEnded {
        daemon: String,
        hook: Hook,
        /// Its `ORC_IDEMPOTENCY_KEY`.
        key: String,
        is_done: bool,
    },
    /// A pair was written to the key-value store.
    Published {
        key: String,
        value: String,
        version: Version,
    },
    /// A statement took effect on a server.
    Executed {
        server: InstanceKey,
        statement: Statement,
        cause: Option<Cause>,
        /// Transactions that were received and not applied, and that the statement made the server forget.
        forgotten: usize,
    },
}

/// A promotion as it happened on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    pub at: Duration,
    pub uid: Uid,
    pub server: InstanceKey,
}

struct Witness {
    clock: fn() -> Duration,
    hosts: Vec<Host>,
    oracles: Oracles,
    violation: Option<String>,
    /// Sent over a session and not executed so far, in order.
    sent: BTreeMap<(InstanceKey, u64), VecDeque<(Statement, Cause)>>,
    /// What came of it: a command that is refused decides nothing.
    decided: Replicated,
    /// What actions wait for, and how often it happened.
    moments: BTreeMap<&'static str, u64>,
    promotions: Vec<Promotion>,
    leader: Option<String>,
    changed: watch::Sender<u64>,
}

thread_local! {
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
}

/// Begins to listen. `clock` gives the simulated time.
pub(crate) fn begin(clock: fn() -> Duration, hosts: Vec<Host>, hooks: HooksSetup) {
    WITNESS.set(Some(Witness {
        clock,
        hosts,
        oracles: Oracles::of(hooks),
        violation: None,
        sent: BTreeMap::new(),
        decided: Replicated::default(),
        moments: BTreeMap::new(),
        promotions: Vec::new(),
        leader: None,
        changed: watch::Sender::new(0),
    }));
}

pub(crate) fn end() {
    let _ = WITNESS.take();
}

fn with<T>(act: impl FnOnce(&mut Witness) -> T) -> Option<T> {
    WITNESS
        .try_with(|witness| witness.borrow_mut().as_mut().map(act))
        .ok()
        .flatten()
}

/// Wakes when something happened.
pub(crate) fn subscribe() -> watch::Receiver<u64> {
    with(|witness| witness.changed.subscribe()).unwrap_or_else(|| watch::Sender::new(0).subscribe())
}

/// The first promise that was broken.
pub(crate) fn violation() -> Option<String> {
    with(|witness| witness.violation.clone()).flatten()
}

/// How often a moment came.
pub(crate) fn count(moment: &'static str) -> u64 {
    with(|witness| witness.moments.get(moment).copied())
        .flatten()
        .unwrap_or(0)
}

pub(crate) fn promotions() -> Vec<Promotion> {
    with(|witness| witness.promotions.clone()).unwrap_or_default()
}

/// Who led last.
pub(crate) fn leader() -> Option<String> {
    with(|witness| witness.leader.clone()).flatten()
}

/// Asks the oracles something of what they gathered.
pub(crate) fn ask<T>(question: impl FnOnce(&mut Oracles, &Truth<'_>) -> T) -> Option<T> {
    with(|witness| {
        let (oracles, truth) = witness.oracles_and_truth();
        question(oracles, &truth)
    })
}

impl Witness {
    fn oracles_and_truth(&mut self) -> (&mut Oracles, Truth<'_>) {
        let truth = Truth {
            at: (self.clock)(),
            hosts: &self.hosts,
            decided: &self.decided,
            is_whole: network::is_whole,
        };
        (&mut self.oracles, truth)
    }

    fn happened(&mut self, moment: &'static str) {
        *self.moments.entry(moment).or_default() += 1;
    }

    fn observe(&mut self, event: &Event) {
        let at = (self.clock)();
        match event {
            Event::Committed { command, .. } => {
                for moment in moments_of(command) {
                    self.happened(moment);
                }
            }
            Event::Leads { daemon, .. } => {
                self.leader = Some(daemon.clone());
                self.happened("leader");
            }
            Event::Executed {
                server,
                statement,
                cause,
                ..
            } => {
                self.happened("effect");
                if let Some(Cause::Step { uid, kind, .. }) = cause
                    && *kind == StepKind::Promote
                    && *statement == Statement::MakeWriteable
                {
                    self.happened("promoted");
                    self.promotions.push(Promotion {
                        at,
                        uid: uid.clone(),
                        server: server.clone(),
                    });
                }
            }
            Event::Seated { .. } => self.happened("members"),
            Event::HookBegan { .. } => self.happened("hook"),
            Event::Refused { .. }
            | Event::NoLongerLeads { .. }
            | Event::Votes { .. }
            | Event::HookEnded { .. }
            | Event::Published { .. } => {}
        }
        let (oracles, truth) = self.oracles_and_truth();
        if let Err(broken) = oracles.observe(event, &truth) {
            self.violation.get_or_insert(broken);
        }
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The moments that a scenario can name, by the commands of recoveries that bring them.
fn moments_of(command: &Command) -> Vec<&'static str> {
    use orchestrator_core::recovery::Stage;
    match command {
        Command::BeginRecovery { purpose, .. } if purpose.is_recovery() => {
            vec!["recovery", "commit"]
        }
        Command::Intend { stage, .. } => vec![
            match stage {
                Stage::Begun => "begun",
                Stage::FenceAndHalt => "fence-and-halt",
                Stage::Drain => "drain",
                Stage::Promote => "promote",
                Stage::Regroup => "regroup",
                Stage::Tidy => "tidy",
                Stage::Undo => "undo",
                Stage::Operate => "operate",
                Stage::Ended => "ended",
                Stage::PreHooks => "pre-hooks",
                Stage::PostHooks => "post-hooks",
                Stage::Closed => "closed",
            },
            "commit",
        ],
        Command::TakeOver { .. } => vec!["taken-over", "commit"],
        Command::EndRecovery { .. } => vec!["end", "commit"],
        Command::Settle { .. } | Command::Remark { .. } | Command::BeginRecovery { .. } => {
            vec!["commit"]
        }
        _ => Vec::new(),
    }
}

/// The names of moments that a scenario may wait for.
pub const MOMENTS: [&str; 21] = [
    "begun",
    "closed",
    "commit",
    "drain",
    "effect",
    "end",
    "ended",
    "fence-and-halt",
    "hook",
    "leader",
    "members",
    "operate",
    "post-hooks",
    "pre-hooks",
    "promote",
    "promoted",
    "recovery",
    "regroup",
    "taken-over",
    "tidy",
    "undo",
];

pub(crate) fn tell(event: &Event) {
    with(|witness| witness.observe(event));
}

/// A daemon began to run, with the backend of one cluster and the raft data directory of another, or the same.
pub(crate) fn began(daemon: &str, held: Option<ClusterId>, own: Option<ClusterId>) {
    if let Err(broken) = own_cluster::began(daemon, held, own) {
        violated(broken);
    }
}

/// A daemon told somebody that a change is done, which was asked for at this time.
pub(crate) fn acknowledged(daemon: &str, path: &str, sent: Duration) {
    with(|witness| {
        let answered = witness.oracles.acknowledged.answered(daemon, path, sent);
        if let Err(broken) = answered {
            witness.violation.get_or_insert(broken);
        }
    });
}

/// Raft gave an entry to a daemon: the same at the same place on every daemon, in every life of it. Whether it is the first
/// that was given this one.
fn is_first(daemon: &str, at: LogPosition, bytes: &[u8]) -> bool {
    let given = |witness: &mut Witness| {
        let given = witness.oracles.same_log.given(daemon, at, bytes);
        given.unwrap_or_else(|broken| {
            witness.violation.get_or_insert(broken);
            false
        })
    };
    with(given) == Some(true)
}

/// Raft gave members to a daemon.
pub(crate) fn seated(daemon: &str, at: LogPosition, members: &Members) {
    let text = members.to_string();
    if is_first(daemon, at, text.as_bytes()) {
        orchestrator::trace::event("members", format_args!("{at} {text}"));
        with(|witness| witness.decided.seat(at, members));
        tell(&Event::Seated { at });
    }
}

/// Raft gave a daemon the entry with which a leader begins.
pub(crate) fn begins(daemon: &str, at: LogPosition) {
    with(|witness| {
        if let Err(broken) = witness.oracles.nothing_uncommitted.begins(daemon, at) {
            witness.violation.get_or_insert(broken);
        }
    });
}

/// Raft gave a command to a daemon.
pub(crate) fn committed(daemon: &str, at: LogPosition, bytes: &[u8]) {
    if !is_first(daemon, at, bytes) {
        return;
    }
    match wire::decode_command(bytes) {
        Ok(stamped) => {
            orchestrator::trace::event("commit", format_args!("{at} {}", Short(&stamped.command)));
            let answer = with(|witness| witness.decided.apply(at, &stamped).answer);
            match answer {
                Some(Answer::Refused(refusal)) => {
                    orchestrator::trace::event(
                        "commit",
                        format_args!("{at} is refused: {refusal}"),
                    );
                    tell(&Event::Refused { at });
                }
                Some(answer) => tell(&Event::Committed {
                    at,
                    command: stamped.command,
                    answer,
                }),
                None => {}
            }
        }
        Err(error) => violated(same_log::unreadable(at, &error)),
    }
}

/// People made another cluster of what one daemon held.
pub(crate) fn recovered(state: Replicated, at: LogPosition) {
    with(|witness| {
        witness.decided = state;
        witness.oracles.same_log.cut(at);
        witness.oracles.nothing_uncommitted.cut(at);
        witness.oracles.left_to_people.cut();
    });
}

fn violated(broken: String) {
    with(|witness| {
        witness.violation.get_or_insert(broken);
    });
}

/// A command in one line of a trace.
struct Short<'a>(&'a Command);

impl std::fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Command::Intend {
                uid, stage, steps, ..
            } => {
                write!(f, "[{uid}] intends {stage}:")?;
                for step in steps {
                    write!(f, " {step};")?;
                }
                Ok(())
            }
            Command::Settle { uid, outcomes, .. } => {
                write!(f, "[{uid}] settles")?;
                for (step, outcome) in outcomes {
                    write!(f, " {step} {outcome:?};")?;
                }
                Ok(())
            }
            Command::BeginRecovery {
                uid,
                purpose,
                server,
                ..
            } => write!(f, "[{uid}] begins {purpose:?} of {server}"),
            Command::EndRecovery { uid, end, .. } => write!(f, "[{uid}] ends: {end:?}"),
            Command::SetPolicy(_) => f.write_str("the policy"),
            other => {
                let text = format!("{other:?}");
                f.write_str(text.split_inclusive('\n').next().unwrap_or_default())
            }
        }
    }
}

/// A statement is about to be sent over a session.
pub(crate) fn sent(server: &InstanceKey, session: u64, statement: &Statement, cause: Cause) {
    with(|witness| {
        witness
            .sent
            .entry((server.clone(), session))
            .or_default()
            .push_back((statement.clone(), cause));
    });
}

/// A statement of a session took effect, and made the server forget so many transactions that it had received and not
/// applied; or none: the server refused it.
pub(crate) fn executed(
    server: &InstanceKey,
    session: u64,
    statement: &Statement,
    forgotten: Option<usize>,
) {
    let cause = with(|witness| {
        let queue = witness.sent.get_mut(&(server.clone(), session))?;
        let (expected, cause) = queue.pop_front()?;
        (expected == *statement).then_some(cause)
    })
    .flatten();
    if let Some(forgotten) = forgotten {
        orchestrator::trace::event("sql", format_args!("{statement}"));
        tell(&Event::Executed {
            server: server.clone(),
            statement: statement.clone(),
            cause,
            forgotten,
        });
    }
}

/// Hears the trace: what the daemons' own code says of votes and leadership.
pub(crate) fn heard(place: &str, kind: &'static str, text: &str) {
    let daemon = place.to_owned();
    let event = match kind {
        "follows" => Event::NoLongerLeads { daemon },
        "leads" | "vote" => {
            let Some((term, who)) = text.split_once(' ') else {
                return;
            };
            let Ok(term) = term.parse() else { return };
            if kind == "vote" {
                let Some((candidate, voter)) = who.split_once(' ') else {
                    return;
                };
                Event::Votes {
                    daemon,
                    voter: voter.to_owned(),
                    term,
                    candidate: candidate.to_owned(),
                }
            } else {
                Event::Leads {
                    process: network::process(&daemon),
                    cluster: who.to_owned(),
                    daemon,
                    term,
                }
            }
        }
        _ => return,
    };
    tell(&event);
}

#[cfg(test)]
mod tests {
    use orchestrator_core::id::{Epoch, NodeId};
    use orchestrator_core::recovery::Stage;

    use super::*;

    /// A moment that comes and has no name there is one that no scenario can wait for.
    #[test]
    fn every_stage_of_a_recovery_can_be_waited_for() {
        for stage in [
            Stage::Begun,
            Stage::FenceAndHalt,
            Stage::Drain,
            Stage::Promote,
            Stage::Regroup,
            Stage::Tidy,
            Stage::Undo,
            Stage::Operate,
            Stage::Ended,
            Stage::PreHooks,
            Stage::PostHooks,
            Stage::Closed,
        ] {
            let intended = Command::Intend {
                uid: Uid("u".to_owned()),
                epoch: Epoch {
                    term: 1,
                    node: NodeId(1),
                    boot: 1,
                },
                stage,
                candidate: None,
                ending: None,
                steps: Vec::new(),
                lines: Vec::new(),
            };
            for moment in moments_of(&intended) {
                assert!(MOMENTS.contains(&moment), "{moment}");
            }
        }
        assert!(MOMENTS.is_sorted());
    }
}
