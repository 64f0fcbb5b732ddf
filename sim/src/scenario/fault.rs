//! Faults around a scenario, drawn from the seed: whole kinds are switched off at random and the others come with very
//! different frequencies (swarm testing), within a budget that says what the cluster must survive.
//!
//! The budget counts what is down, frozen or cut off at one time. Within it, and outside of it alike, no promise may be
//! broken; progress is demanded only once everything has been healed. Nothing is drawn that takes from a majority of
//! daemons what they had put on stable storage, and nothing that kills the last server that holds what was received.
//!
//! A replica counts as down as well while nobody can log in there, while a backup stops its applier, and while it hears
//! nothing of another server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Logins, Part, Planned, When, Window};
use super::file::Scenario;
use crate::disk;
use crate::random::SplitMix;

const PURPOSE: u64 = 0xfa17;
/// Of every eight seeds these are left without faults: one with each kind of servers, and in turn with hooks and without. Both
/// builds that `tests/run.sh` has play one of them, in the halves of four seeds from a multiple of eight on.
const CALM_OF_EIGHT: [u64; 2] = [0, 3];
/// A kind that is on is drawn at most so often.
const OF_A_KIND_MAX: u64 = 4;

/// What may go wrong beside the script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Kinds that are never drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// So many daemons may be down, frozen or cut off at one time.
    #[serde(default)]
    pub daemons_down: u8,
    /// So many replicas may be.
    #[serde(default)]
    pub servers_down: u32,
    /// All daemons may lose power at once, and where servers may be down, these with them.
    #[serde(default)]
    pub together: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Messages between daemons, and between daemons and servers, have to be sent again.
    Loss,
    /// They come late, and thereby in another order.
    Delay,
    /// One direction of one link is cut.
    Cut,
    Isolation,
    DaemonKill,
    DaemonPowerCut,
    DaemonFreeze,
    AllPowerCut,
    Clock,
    SlowDisk,
    /// Statements and their answers are delayed.
    SlowSql,
    /// A daemon does not reach a server.
    ServerCut,
    ReplicaKill,
    ReplicaFreeze,
    SlowApplier,
    /// One daemon's disk is full, or mounted read-only, for a while.
    DiskState,
    /// A sync of one daemon's fails, and what it was to make durable is lost.
    SyncFails,
    /// What one daemon's disk holds is damaged.
    Rot,
    /// A daemon's clocks go too fast or too slow.
    Drift,
    /// A server lets nobody log in.
    LoginRefused,
    /// As many are logged in on a server as may be.
    ConnectionsFull,
    /// A backup holds a replica's applier.
    ReadLock,
    /// What one server sends does not reach another.
    ReplicationCut,
    /// It comes late there.
    ReplicationSlow,
    /// Everything loses power at once, servers too.
    WholePowerCut,
}

const KINDS: [(Kind, &str); 25] = [
    (Kind::Loss, "loss"),
    (Kind::Delay, "delay"),
    (Kind::Cut, "cut"),
    (Kind::Isolation, "isolation"),
    (Kind::DaemonKill, "daemon-kill"),
    (Kind::DaemonPowerCut, "daemon-power-cut"),
    (Kind::DaemonFreeze, "daemon-freeze"),
    (Kind::AllPowerCut, "all-power-cut"),
    (Kind::Clock, "clock"),
    (Kind::SlowDisk, "slow-disk"),
    (Kind::SlowSql, "slow-sql"),
    (Kind::ServerCut, "server-cut"),
    (Kind::ReplicaKill, "replica-kill"),
    (Kind::ReplicaFreeze, "replica-freeze"),
    (Kind::SlowApplier, "slow-applier"),
    (Kind::DiskState, "disk-state"),
    (Kind::SyncFails, "sync-fails"),
    (Kind::Rot, "rot"),
    (Kind::Drift, "drift"),
    (Kind::LoginRefused, "login-refused"),
    (Kind::ConnectionsFull, "connections-full"),
    (Kind::ReadLock, "read-lock"),
    (Kind::ReplicationCut, "replication-cut"),
    (Kind::ReplicationSlow, "replication-slow"),
    (Kind::WholePowerCut, "whole-power-cut"),
];

/// Who is down when, in milliseconds.
#[derive(Debug, Default)]
struct Spent(Vec<(u64, u64)>);

impl Spent {
    /// Takes a span, unless more than `most` would be down at one time.
    fn take(&mut self, from: u64, to: u64, most: usize) -> bool {
        let overlapping = self
            .0
            .iter()
            .filter(|(begin, end)| *begin < to && from < *end)
            .count();
        let fits = overlapping < most;
        if fits {
            self.0.push((from, to));
        }
        fits
    }
}

impl Faults {
    pub(super) fn check(&self) -> Result<(), String> {
        for name in &self.without {
            if !KINDS.iter().any(|(_, known)| known == name) {
                let all: Vec<&str> = KINDS.iter().map(|(_, name)| *name).collect();
                return Err(format!("faults: '{name}' is no kind: {}", all.join(", ")));
            }
        }
        if self.daemons_down > 9 || self.servers_down > 9 {
            return Err("faults: daemons_down and servers_down: 0 to 9".to_owned());
        }
        Ok(())
    }

    /// The faults of a seed, each with its end; none for two seeds of eight.
    pub(super) fn draw(&self, seed: u64, scenario: &Scenario) -> Vec<Planned> {
        let mut random = SplitMix::new(seed, PURPOSE);
        if CALM_OF_EIGHT.contains(&(seed % 8)) {
            return Vec::new();
        }
        let mut drawn = Vec::new();
        let (mut daemons, mut servers) = (Spent::default(), Spent::default());
        for (kind, name) in KINDS {
            let (is_off, count) = (random.one_in(2), random.between(1, OF_A_KIND_MAX + 1));
            if is_off || self.without.iter().any(|without| without == name) {
                continue;
            }
            for _ in 0..count {
                let lasts = lasting(&mut random);
                let end = scenario.length().as_millis() as u64;
                let from = random.between(300, end.saturating_sub(500).max(301));
                let action = self.action(kind, scenario, &mut random);
                let span = (from, from + lasts);
                let fits = match kind {
                    Kind::DaemonKill
                    | Kind::DaemonPowerCut
                    | Kind::DaemonFreeze
                    | Kind::Isolation => {
                        daemons.take(span.0, span.1, usize::from(self.daemons_down))
                    }
                    // It is down at the latest when it is started next, and a damaged one until people do something.
                    Kind::DiskState | Kind::SyncFails | Kind::Rot => {
                        daemons.take(span.0, u64::MAX, usize::from(self.daemons_down))
                    }
                    Kind::AllPowerCut => self.together && daemons.take(span.0, span.1, 1),
                    Kind::ReplicaKill
                    | Kind::ReplicaFreeze
                    | Kind::LoginRefused
                    | Kind::ConnectionsFull
                    | Kind::ReadLock
                    | Kind::ReplicationCut => {
                        servers.take(span.0, span.1, self.servers_down as usize)
                    }
                    Kind::WholePowerCut => {
                        self.together
                            && self.servers_down > 0
                            && servers.take(span.0, span.1, 1)
                            && daemons.take(span.0, span.1, 1)
                    }
                    Kind::Loss
                    | Kind::Delay
                    | Kind::Cut
                    | Kind::Clock
                    | Kind::Drift
                    | Kind::SlowDisk
                    | Kind::SlowSql
                    | Kind::ServerCut
                    | Kind::ReplicationSlow
                    | Kind::SlowApplier => true,
                };
                if let (true, Some(action)) = (fits, action) {
                    let point = |at| Window(Duration::from_millis(at), Duration::from_millis(at));
                    drawn.push(Planned {
                        when: When::At(point(from)),
                        lasts: action.reverse().map(|_| point(lasts)),
                        action,
                    });
                }
            }
        }
        drawn
    }

    fn action(&self, kind: Kind, scenario: &Scenario, random: &mut SplitMix) -> Option<Action> {
        let mut one_of = |names: &[String]| {
            let place = random.between(0, names.len() as u64) as usize;
            names.get(place).cloned()
        };
        let daemons = scenario.daemon_names();
        let servers = scenario.server_names();
        let replicas = servers.get(1..).unwrap_or_default();
        let daemon = one_of(&daemons)?;
        let others: Vec<String> = daemons
            .iter()
            .filter(|other| **other != daemon)
            .cloned()
            .collect();
        let other = one_of(&others);
        let server = one_of(&servers)?;
        let replica = one_of(replicas);
        let other_servers: Vec<String> = servers
            .iter()
            .filter(|other| **other != server)
            .cloned()
            .collect();
        let either = |random: &mut SplitMix, one: String, other: String| {
            if random.one_in(2) {
                (one, other)
            } else {
                (other, one)
            }
        };
        Some(match kind {
            Kind::Loss => {
                let percent = [2, 10, 30, 60][random.between(0, 4) as usize];
                let far = if random.one_in(2) { server } else { other? };
                let (from, to) = either(random, daemon, far);
                Action::Lose(from, to, percent)
            }
            Kind::Delay => {
                let by = [5, 30, 120, 600][random.between(0, 4) as usize];
                let (from, to) = either(random, daemon, other?);
                Action::Slow(from, to, Duration::from_millis(by))
            }
            Kind::SlowSql => {
                let by = [20, 200, 900, 2_500][random.between(0, 4) as usize];
                let (from, to) = either(random, daemon, server);
                Action::Slow(from, to, Duration::from_millis(by))
            }
            Kind::Cut => Action::Cut(daemon, other?),
            Kind::ServerCut => {
                let (from, to) = either(random, daemon, server);
                Action::Cut(from, to)
            }
            Kind::Isolation => Action::Isolate(daemon),
            Kind::DaemonKill => Action::Kill(daemon),
            Kind::DaemonPowerCut => Action::PowerCut(daemon),
            Kind::DaemonFreeze => Action::Freeze(daemon),
            Kind::AllPowerCut => Action::PowerCut("daemons".to_owned()),
            Kind::Clock => {
                let by = [200, 5_000, 70_000, 7_200_000][random.between(0, 4) as usize];
                let sign = if random.one_in(2) { 1 } else { -1 };
                Action::Clock(daemon, sign * by)
            }
            Kind::SlowDisk => {
                let by = [5, 50, 300, 1_200][random.between(0, 4) as usize];
                Action::SlowDisk(daemon, Duration::from_millis(by))
            }
            Kind::ReplicaKill => Action::Kill(replica?),
            Kind::ReplicaFreeze => Action::Freeze(replica?),
            Kind::DiskState => {
                let full = random.one_in(2);
                let state = if full {
                    disk::State::Full
                } else {
                    disk::State::ReadOnly
                };
                Action::Disk(daemon, state)
            }
            Kind::Drift => {
                let by = [200, 5_000, 50_000][random.between(0, 3) as usize];
                let sign = if random.one_in(2) { 1 } else { -1 };
                Action::Drift(daemon, sign * by)
            }
            Kind::SyncFails => Action::FailSync(daemon, part(random)),
            Kind::Rot => Action::Rot(daemon, part(random)),
            Kind::LoginRefused => Action::Logins(server, Logins::Denied),
            Kind::ConnectionsFull => Action::Logins(server, Logins::Full),
            Kind::ReadLock => Action::ReadLock(replica?, true),
            Kind::ReplicationCut => {
                let place = random.between(0, other_servers.len() as u64) as usize;
                Action::Cut(server, other_servers.get(place)?.clone())
            }
            Kind::ReplicationSlow => {
                // A receiver that runs and says nothing for 2 s is believed to have got through: links are faster.
                let by = [5, 50, 300, 900][random.between(0, 4) as usize];
                let place = random.between(0, other_servers.len() as u64) as usize;
                let far = other_servers.get(place)?.clone();
                Action::Slow(server, far, Duration::from_millis(by))
            }
            Kind::WholePowerCut => Action::PowerCut("all".to_owned()),
            Kind::SlowApplier => {
                let by = [5, 20, 100][random.between(0, 3) as usize];
                Action::SlowApplier(replica?, Duration::from_millis(by))
            }
        })
    }
}

fn part(random: &mut SplitMix) -> Part {
    let parts = [
        Part::Log,
        Part::Log,
        Part::Snapshot,
        Part::Identity,
        Part::Backend,
    ];
    parts[random.between(0, parts.len() as u64) as usize]
}

/// From 30 ms to 8 s, short ones as often as long ones.
fn lasting(random: &mut SplitMix) -> u64 {
    let least = 30_u64 << random.between(0, 8);
    random.between(least, least * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(faults: &str) -> Scenario {
        Scenario::parse(&format!(
            "title = \"t\"\nlength = \"15s\"\nscript = []\n[faults]\n{faults}"
        ))
        .unwrap()
    }

    fn daemons_down_at_once(lines: &[Planned]) -> usize {
        let spans: Vec<(u64, u64)> = lines
            .iter()
            .filter(|line| {
                matches!(&line.action,
                    Action::Kill(who) | Action::PowerCut(who) | Action::Freeze(who) | Action::Isolate(who)
                        if who.starts_with('n'))
            })
            .map(|line| {
                let When::At(at) = &line.when else { panic!("{line}") };
                let from = at.0.as_millis() as u64;
                (from, from + line.lasts.unwrap().0.as_millis() as u64)
            })
            .collect();
        spans
            .iter()
            .map(|(at, _)| {
                let down = spans.iter().filter(|(from, to)| from <= at && at < to);
                down.count()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn the_budget_holds_and_every_kind_comes() {
        let scenario = scenario("daemons_down = 1\nservers_down = 1\ntogether = true");
        let mut words = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let lines = scenario.plan(seed, None).unwrap().lines;
            assert!(lines.is_empty() || !CALM_OF_EIGHT.contains(&(seed % 8)));
            assert!(daemons_down_at_once(&lines) <= 1, "seed {seed}");
            for line in lines {
                let again: Planned = line.to_string().parse().unwrap();
                assert_eq!(again, line);
                let action = line.action.to_string();
                words.insert(action.split(' ').next().unwrap_or_default().to_owned());
            }
        }
        let expected = [
            "clock",
            "cut",
            "disk",
            "drift",
            "fail-sync",
            "freeze",
            "isolate",
            "kill",
            "logins",
            "lose",
            "power-cut",
            "read-lock",
            "rot",
            "slow",
            "slow-applier",
            "slow-disk",
        ];
        assert_eq!(Vec::from_iter(words), expected);
    }

    /// As `tests/run.sh` plays four seeds: two in a build with assertions, two in one without.
    #[test]
    fn each_half_of_four_seeds_has_one_without_faults() {
        let scenario = scenario("daemons_down = 1");
        for first in [0, 8, 4_711 * 8] {
            for half in [first..first + 2, first + 2..first + 4] {
                let calm = |seed| scenario.plan(seed, None).unwrap().is_calm;
                assert!(half.clone().any(calm), "{half:?}");
            }
        }
    }

    #[test]
    fn without_a_budget_nobody_goes_down() {
        let scenario = scenario("without = [\"clock\", \"loss\"]");
        for seed in 0..100 {
            for line in scenario.plan(seed, None).unwrap().lines {
                let text = line.action.to_string();
                for word in [
                    "kill",
                    "power-cut",
                    "freeze",
                    "isolate",
                    "clock",
                    "lose",
                    "logins",
                    "read-lock",
                ] {
                    assert!(!text.starts_with(word), "{text}");
                }
            }
        }
    }
}
