//! What a scenario does, and when: one line of text each, the same in scenario files, in replay files and in traces.
//!
//! `at 8s..10s: kill primary` | `when commit 3 + 0ms..200ms: power-cut leader for 3s` | `at 0ms: start n2`

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::disk;
use crate::random::SplitMix;
use crate::witness::MOMENTS;

/// A time as people write it: `250ms`, `3s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1_000),
        (None, None) => return Err(format!("'{text}' is no time: 250ms or 3s")),
    };
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is no time: 250ms or 3s"))
}

/// From, to (excluded); both the same: a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(pub Duration, pub Duration);

impl Window {
    const fn point(at: Duration) -> Self {
        Self(at, at)
    }

    fn draw(self, random: &mut SplitMix) -> Self {
        let (low, high) = (self.0.as_millis() as u64, self.1.as_millis() as u64);
        Self::point(Duration::from_millis(random.between(low, high)))
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("..") {
            None => parse_duration(text).map(Self::point),
            Some((low, high)) => {
                let window = Self(parse_duration(low)?, parse_duration(high)?);
                if window.0 <= window.1 {
                    Ok(window)
                } else {
                    Err(format!("'{text}' ends before it begins"))
                }
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())?;
        if self.1 > self.0 {
            write!(f, "..{}ms", self.1.as_millis())?;
        }
        Ok(())
    }
}

/// When something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Since the run began.
    At(Window),
    /// So long after a moment came for the n-th time; the n is drawn from `counts`.
    Moment {
        moment: &'static str,
        counts: (u64, u64),
        after: Window,
    },
}

impl When {
    /// One time of those that it stands for.
    #[must_use]
    pub fn draw(&self, random: &mut SplitMix) -> Self {
        match self {
            Self::At(window) => Self::At(window.draw(random)),
            Self::Moment {
                moment,
                counts: (low, high),
                after,
            } => {
                let count = random.between(*low, *high + 1);
                Self::Moment {
                    moment,
                    counts: (count, count),
                    after: after.draw(random),
                }
            }
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(window) => write!(f, "at {window}"),
            Self::Moment {
                moment,
                counts: (low, high),
                after,
            } => {
                write!(f, "when {moment}")?;
                if (*low, *high) != (1, 1) {
                    write!(f, " {low}")?;
                }
                if high > low {
                    write!(f, "..{high}")?;
                }
                if after.1 > Duration::ZERO {
                    write!(f, " + {after}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(window) = text.strip_prefix("at ") {
            return window.parse().map(Self::At);
        }
        let Some(rest) = text.strip_prefix("when ") else {
            return Err(format!("'{text}' begins neither with 'at' nor with 'when'"));
        };
        let (what, after) = match rest.split_once('+') {
            None => (rest, Window::point(Duration::ZERO)),
            Some((what, after)) => (what, after.parse()?),
        };
        let mut words = what.split_whitespace();
        let name = words.next().unwrap_or_default();
        let moment = MOMENTS
            .iter()
            .find(|moment| **moment == name)
            .ok_or_else(|| format!("'{name}' is no moment: {}", MOMENTS.join(", ")))?;
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|error| format!("'{text}' is no number: {error}"))
        };
        let counts = match words.next() {
            None => (1, 1),
            Some(text) => match text.split_once("..") {
                None => (number(text)?, number(text)?),
                Some((low, high)) => (number(low)?, number(high)?),
            },
        };
        if let Some(surplus) = words.next() {
            return Err(format!("'{surplus}' is too much in '{text}'"));
        }
        Ok(Self::Moment {
            moment,
            counts,
            after,
        })
    }
}

/// What lies on a daemon's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Directory {
    Raft,
    Backend,
    Both,
}

impl Directory {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Raft, "raft"),
        (Self::Backend, "backend"),
        (Self::Both, "both"),
    ];

    fn name(self) -> &'static str {
        let row = Self::ALL.iter().find(|(known, _)| *known == self);
        row.map_or("", |(_, name)| name)
    }

    /// # Errors
    /// There is none of this name; the text of the action that has it is told.
    fn named(name: &str, action: &str) -> Result<Self, String> {
        let row = Self::ALL.iter().find(|(_, known)| *known == name);
        row.map(|(known, _)| *known)
            .ok_or_else(|| format!("'{action}': raft, backend or both"))
    }

    /// Where it lies in the daemon's folder.
    pub const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Raft => &["raft"],
            Self::Backend => &["orchestrator.sqlite3"],
            Self::Both => &["raft", "orchestrator.sqlite3"],
        }
    }
}

/// A part of what a daemon keeps on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Log,
    Snapshot,
    Identity,
    Backend,
}

impl Part {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Log, "log", "raft/raft.sqlite"),
        (Self::Snapshot, "snapshot", "raft/snapshot"),
        (Self::Identity, "identity", "raft/identity"),
        (Self::Backend, "backend", "orchestrator.sqlite3"),
    ];

    fn row(self) -> &'static (Self, &'static str, &'static str) {
        let mut rows = Self::ALL.iter();
        rows.find(|(part, ..)| *part == self)
            .unwrap_or(&Self::ALL[0])
    }

    /// How the paths of its files begin.
    #[must_use]
    pub fn path(self, machine: &str) -> String {
        format!("/{machine}/{}", self.row().2)
    }

    /// What people empty when it is damaged.
    #[must_use]
    pub const fn directory(self) -> Directory {
        match self {
            Self::Log | Self::Snapshot | Self::Identity => Directory::Raft,
            Self::Backend => Directory::Backend,
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        let mut rows = Self::ALL.iter();
        rows.find(|(_, known, _)| *known == name)
            .map(|(part, ..)| *part)
            .ok_or_else(|| format!("'{name}': log, snapshot, identity or backend"))
    }
}

/// In millionths.
const DRIFT_MAX: i64 = 500_000;

/// How a server answers to whoever logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logins {
    Admitted,
    /// Somebody changed the passwords: error 1045.
    Denied,
    /// As many are logged in as may be: error 1040.
    Full,
}

impl Logins {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Admitted, "admitted"),
        (Self::Denied, "denied"),
        (Self::Full, "full"),
    ];
}

const DISK_STATES: [(disk::State, &str); 3] = [
    (disk::State::Good, "good"),
    (disk::State::Full, "full"),
    (disk::State::ReadOnly, "read-only"),
];

/// What is done. Names are machines (`n1`, `m2`) or roles, which are looked up when it is done: `leader`, `follower`,
/// `last-follower`, `primary`, `replica`, and for groups `daemons`, `followers`, `servers`, `replicas`, `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `kill -9`.
    Kill(String),
    PowerCut(String),
    /// Starts what was killed or has no power, or was not started so far.
    Start(String),
    /// SIGTERM. A server that has not ended when it is started again is killed first, as service managers do.
    Stop(String),
    /// SIGSTOP.
    Freeze(String),
    /// SIGCONT.
    Thaw(String),
    /// Nothing that the first sends reaches the second.
    Cut(String, String),
    Heal(String, String),
    /// Nothing reaches it, nothing that it sends arrives.
    Isolate(String),
    Rejoin(String),
    /// What the first sends comes to the second later, by up to so much.
    Slow(String, String, Duration),
    /// So many percent of what the first sends to the second have to be sent again.
    Lose(String, String, u32),
    SlowDisk(String, Duration),
    Disk(String, disk::State),
    /// The next sync there fails.
    FailSync(String, Part),
    /// One bit there is another one.
    Rot(String, Part),
    /// Moves a clock by so many milliseconds.
    Clock(String, i64),
    /// A machine's clocks go so many millionths too fast, or too slow.
    Drift(String, i64),
    /// Removes directories of a daemon that does not run.
    Wipe(String, Directory),
    /// Puts a copy of one daemon's backend in the place of another's, which does not run.
    CloneBackend(String, String),
    /// Somebody stops or starts a replica's applier by hand.
    Applier(String, bool),
    /// A server's binary logs are purged up to this moment.
    PurgeLogs(String),
    /// A server's next transactions take so long to apply.
    SlowApplier(String, Duration),
    /// Who comes to log in on a server is let in, or refused. Who is logged in stays so.
    Logins(String, Logins),
    /// A backup holds `FLUSH TABLES WITH READ LOCK` on a server.
    ReadLock(String, bool),
    /// The daemons' account has all rights on a server, or only those to look; of a daemon: its account may write to its
    /// backend, or not even look there, from its next start on.
    Rights(String, bool),
    /// Somebody edits `RaftNodes` of a daemon; it counts from its next start.
    Nodes(String, Vec<String>),
    /// The program of a daemon is replaced by that of this release, or (false) of the one before; it runs from the next
    /// start on.
    Install(String, bool),
    /// The name of the first leads to the machine of the second.
    Name(String, String),
    /// A request to a daemon's HTTP service.
    Ask(String, String),
    /// The same by somebody who does not give up: of one daemon after another until one says that it is done, or the script
    /// is over.
    Press(String),
    /// Somebody keeps a copy of what a daemon has on its disk, as it is at this moment.
    Keep(String),
    /// What was kept of one daemon is put in the place of what another has, which does not run.
    Restore(String, String, Directory),
    /// `orchestrator raft form --with` these, typed on a daemon's machine.
    Form(String, Vec<String>),
    /// `orchestrator raft recover` from the raft directory or from the backend, typed on a daemon's machine; the daemon
    /// does not run.
    Recover(String, Directory),
}

impl Action {
    /// Whether somebody forms or changes the cluster of the daemons, or takes its memory from one of them, by hand: which of
    /// them can go on without the others is then another thing than how many there are.
    #[must_use]
    pub fn is_of_members(&self) -> bool {
        let asks =
            matches!(self, Self::Ask(_, path) | Self::Press(path) if path.contains("/raft-"));
        asks || matches!(
            self,
            Self::Nodes(..)
                | Self::Form(..)
                | Self::Recover(..)
                | Self::Wipe(..)
                | Self::CloneBackend(..)
        )
    }

    /// What ends this, where it is something that lasts.
    #[must_use]
    pub fn reverse(&self) -> Option<Self> {
        Some(match self {
            Self::Kill(who) | Self::PowerCut(who) | Self::Stop(who) => Self::Start(who.clone()),
            Self::Freeze(who) => Self::Thaw(who.clone()),
            Self::Cut(from, to) => Self::Heal(from.clone(), to.clone()),
            Self::Isolate(who) => Self::Rejoin(who.clone()),
            Self::Slow(from, to, _) => Self::Slow(from.clone(), to.clone(), Duration::ZERO),
            Self::Lose(from, to, _) => Self::Lose(from.clone(), to.clone(), 0),
            Self::SlowDisk(who, _) => Self::SlowDisk(who.clone(), Duration::ZERO),
            Self::Drift(who, _) => Self::Drift(who.clone(), 0),
            Self::Disk(who, state) if *state != disk::State::Good => {
                Self::Disk(who.clone(), disk::State::Good)
            }
            Self::Clock(who, milliseconds) => Self::Clock(who.clone(), -milliseconds),
            Self::Applier(who, on) => Self::Applier(who.clone(), !on),
            Self::SlowApplier(who, _) => Self::SlowApplier(who.clone(), Duration::ZERO),
            Self::Logins(who, Logins::Denied | Logins::Full) => {
                Self::Logins(who.clone(), Logins::Admitted)
            }
            Self::ReadLock(who, true) => Self::ReadLock(who.clone(), false),
            Self::Rights(who, false) => Self::Rights(who.clone(), true),
            Self::Name(name, to) if name != to => Self::Name(name.clone(), name.clone()),
            Self::Name(..)
            | Self::Logins(_, Logins::Admitted)
            | Self::ReadLock(_, false)
            | Self::Rights(_, true)
            | Self::Recover(..)
            | Self::Disk(..)
            | Self::FailSync(..)
            | Self::Rot(..)
            | Self::Start(_)
            | Self::Thaw(_)
            | Self::Heal(..)
            | Self::Rejoin(_)
            | Self::Wipe(..)
            | Self::CloneBackend(..)
            | Self::PurgeLogs(_)
            | Self::Nodes(..)
            | Self::Install(..)
            | Self::Form(..)
            | Self::Press(_)
            | Self::Keep(_)
            | Self::Restore(..)
            | Self::Ask(..) => return None,
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "kill {who}"),
            Self::PowerCut(who) => write!(f, "power-cut {who}"),
            Self::Start(who) => write!(f, "start {who}"),
            Self::Stop(who) => write!(f, "stop {who}"),
            Self::Freeze(who) => write!(f, "freeze {who}"),
            Self::Thaw(who) => write!(f, "thaw {who}"),
            Self::Cut(from, to) => write!(f, "cut {from}>{to}"),
            Self::Heal(from, to) => write!(f, "heal {from}>{to}"),
            Self::Isolate(who) => write!(f, "isolate {who}"),
            Self::Rejoin(who) => write!(f, "rejoin {who}"),
            Self::Slow(from, to, by) => write!(f, "slow {from}>{to} by {}ms", by.as_millis()),
            Self::Lose(from, to, percent) => write!(f, "lose {from}>{to} {percent}%"),
            Self::SlowDisk(who, by) => write!(f, "slow-disk {who} by {}ms", by.as_millis()),
            Self::Disk(who, state) => {
                let name = DISK_STATES.iter().find(|(known, _)| known == state);
                write!(f, "disk {who} {}", name.map_or("", |(_, name)| name))
            }
            Self::FailSync(who, part) => write!(f, "fail-sync {who} {}", part.row().1),
            Self::Rot(who, part) => write!(f, "rot {who} {}", part.row().1),
            Self::Drift(who, rate) => write!(f, "drift {who} by {rate}ppm"),
            Self::Clock(who, milliseconds) => write!(f, "clock {who} by {milliseconds}ms"),
            Self::Wipe(who, what) => write!(f, "wipe {who} {}", what.name()),
            Self::CloneBackend(from, to) => write!(f, "clone-backend {from}>{to}"),
            Self::Applier(who, on) => {
                write!(f, "applier {who} {}", if *on { "on" } else { "off" })
            }
            Self::PurgeLogs(who) => write!(f, "purge-logs {who}"),
            Self::SlowApplier(who, by) => {
                write!(f, "slow-applier {who} by {}ms", by.as_millis())
            }
            Self::Nodes(who, nodes) => write!(f, "nodes {who} {}", nodes.join(",")),
            Self::Install(who, is_this) => {
                write!(
                    f,
                    "install {who} {}",
                    if *is_this { "this" } else { "before" }
                )
            }
            Self::Name(name, to) => write!(f, "name {name}>{to}"),
            Self::Ask(who, path) => write!(f, "ask {who} {path}"),
            Self::Press(path) => write!(f, "press {path}"),
            Self::Keep(who) => write!(f, "keep {who}"),
            Self::Restore(from, to, what) => {
                write!(f, "restore {from}>{to} {}", what.name())
            }
            Self::Form(who, with) => write!(f, "form {who} {}", with.join(",")),
            Self::Logins(who, how) => {
                let name = Logins::ALL.iter().find(|(known, _)| known == how);
                write!(f, "logins {who} {}", name.map_or("", |(_, name)| name))
            }
            Self::ReadLock(who, on) => {
                write!(f, "read-lock {who} {}", if *on { "on" } else { "off" })
            }
            Self::Rights(who, all) => write!(f, "{} {who}", if *all { "grant" } else { "revoke" }),
            Self::Recover(who, from) => write!(f, "recover {who} {}", from.name()),
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let pair = |text: &str| {
            text.split_once('>')
                .map(|(from, to)| (from.to_owned(), to.to_owned()))
                .ok_or_else(|| format!("'{text}' is no link: n1>n2"))
        };
        let own = |who: &str| who.to_owned();
        Ok(match words.as_slice() {
            ["kill", who] => Self::Kill(own(who)),
            ["power-cut", who] => Self::PowerCut(own(who)),
            ["start", who] => Self::Start(own(who)),
            ["stop", who] => Self::Stop(own(who)),
            ["freeze", who] => Self::Freeze(own(who)),
            ["thaw", who] => Self::Thaw(own(who)),
            ["cut", link] => pair(link).map(|(from, to)| Self::Cut(from, to))?,
            ["heal", link] => pair(link).map(|(from, to)| Self::Heal(from, to))?,
            ["isolate", who] => Self::Isolate(own(who)),
            ["rejoin", who] => Self::Rejoin(own(who)),
            ["slow", link, "by", by] => {
                let (from, to) = pair(link)?;
                Self::Slow(from, to, parse_duration(by)?)
            }
            ["lose", link, percent] => {
                let (from, to) = pair(link)?;
                let percent = percent.strip_suffix('%').and_then(|text| text.parse().ok());
                let percent = percent.filter(|percent| *percent <= 100);
                Self::Lose(
                    from,
                    to,
                    percent.ok_or_else(|| format!("'{text}': 0% to 100%"))?,
                )
            }
            ["slow-disk", who, "by", by] => Self::SlowDisk(own(who), parse_duration(by)?),
            ["drift", who, "by", by] => {
                let rate = by.strip_suffix("ppm").and_then(|text| text.parse().ok());
                let rate = rate.filter(|rate: &i64| rate.abs() <= DRIFT_MAX);
                Self::Drift(
                    own(who),
                    rate.ok_or_else(|| format!("'{by}': -{DRIFT_MAX}ppm to {DRIFT_MAX}ppm"))?,
                )
            }
            ["disk", who, state] => {
                let known = DISK_STATES.iter().find(|(_, name)| name == state);
                let (state, _) =
                    known.ok_or_else(|| format!("'{state}': good, full or read-only"))?;
                Self::Disk(own(who), *state)
            }
            ["fail-sync", who, part] => Self::FailSync(own(who), Part::named(part)?),
            ["rot", who, part] => Self::Rot(own(who), Part::named(part)?),
            ["clock", who, "by", by] => {
                let (sign, by) = by.strip_prefix('-').map_or((1, *by), |by| (-1, by));
                let by = parse_duration(by)?.as_millis();
                Self::Clock(own(who), sign * i64::try_from(by).unwrap_or(i64::MAX))
            }
            ["wipe", who, what] => Self::Wipe(own(who), Directory::named(what, text)?),
            ["keep", who] => Self::Keep(own(who)),
            ["restore", link, what] => {
                let what = Directory::named(what, text)?;
                pair(link).map(|(from, to)| Self::Restore(from, to, what))?
            }
            ["clone-backend", link] => pair(link).map(|(from, to)| Self::CloneBackend(from, to))?,
            ["name", link] => pair(link).map(|(name, to)| Self::Name(name, to))?,
            ["applier", who, "on"] => Self::Applier(own(who), true),
            ["applier", who, "off"] => Self::Applier(own(who), false),
            ["purge-logs", who] => Self::PurgeLogs(own(who)),
            ["slow-applier", who, "by", by] => Self::SlowApplier(own(who), parse_duration(by)?),
            ["nodes", who, nodes] => {
                Self::Nodes(own(who), nodes.split(',').map(str::to_owned).collect())
            }
            ["install", who, "this"] => Self::Install(own(who), true),
            ["install", who, "before"] => Self::Install(own(who), false),
            ["ask", who, path] => Self::Ask(own(who), own(path)),
            ["press", path] => Self::Press(own(path)),
            ["form", who, with] => {
                Self::Form(own(who), with.split(',').map(str::to_owned).collect())
            }
            ["logins", who, how] => {
                let known = Logins::ALL.iter().find(|(_, name)| name == how);
                let (how, _) =
                    known.ok_or_else(|| format!("'{text}': admitted, denied or full"))?;
                Self::Logins(own(who), *how)
            }
            ["read-lock", who, "on"] => Self::ReadLock(own(who), true),
            ["read-lock", who, "off"] => Self::ReadLock(own(who), false),
            ["grant", who] => Self::Rights(own(who), true),
            ["revoke", who] => Self::Rights(own(who), false),
            ["recover", who, "raft"] => Self::Recover(own(who), Directory::Raft),
            ["recover", who, "backend"] => Self::Recover(own(who), Directory::Backend),
            _ => return Err(format!("'{text}' is nothing that can be done")),
        })
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub when: When,
    pub action: Action,
    /// It is ended after so long.
    pub lasts: Option<Window>,
}

impl Planned {
    /// One of the times that it stands for.
    #[must_use]
    pub fn draw(&self, random: &mut SplitMix) -> Self {
        Self {
            when: self.when.draw(random),
            action: self.action.clone(),
            lasts: self.lasts.map(|window| window.draw(random)),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.when, self.action)?;
        match self.lasts {
            Some(lasts) => write!(f, " for {lasts}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Planned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (when, what) = text
            .split_once(": ")
            .ok_or_else(|| format!("'{text}': expected 'WHEN: WHAT'"))?;
        let (what, lasts) = match what.rsplit_once(" for ") {
            Some((what, lasts)) => (what, Some(lasts.parse()?)),
            None => (what, None),
        };
        let action: Action = what.trim().parse()?;
        if lasts.is_some() && action.reverse().is_none() {
            return Err(format!("'{text}': this does not last"));
        }
        Ok(Self {
            when: when.trim().parse()?,
            action,
            lasts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_as_it_is_written() {
        for line in [
            "at 8000ms..10000ms: kill primary",
            "when commit 3 + 0ms..200ms: power-cut leader for 3000ms",
            "when effect 2..9: freeze leader for 100ms..5000ms",
            "at 0ms: start n2",
            "at 9000ms: cut n1>n2 for 1000ms",
            "at 9000ms: heal n1>n2",
            "at 9000ms: isolate n1",
            "at 9000ms: rejoin n1",
            "at 9000ms: slow n1>m2 by 30ms for 1000ms",
            "at 9000ms: lose n1>n2 30% for 1000ms",
            "at 9000ms: slow-disk n1 by 20ms",
            "at 9000ms: drift n1 by -20000ppm for 1000ms",
            "at 9000ms: disk n1 full for 1000ms",
            "at 9000ms: disk n1 read-only",
            "at 9000ms: fail-sync n1 log",
            "at 9000ms: rot n1 snapshot",
            "at 9000ms: clock n1 by -5000ms for 10ms",
            "at 9000ms: wipe n3 both",
            "at 9000ms: clone-backend n1>n3",
            "at 9000ms: name n2>n1 for 1000ms",
            "at 9000ms: applier m2 off",
            "at 9000ms: slow-applier m2 by 40ms",
            "at 9000ms: purge-logs m2",
            "at 9000ms: nodes n1 n1,n2,n4",
            "at 9000ms: install n1 before",
            "at 9000ms: ask leader /api/ack-all-recoveries?comment=x",
            "at 9000ms: form n1 n1,n2",
            "at 9000ms: logins m2 full for 1000ms",
            "at 9000ms: logins m2 admitted",
            "at 9000ms: read-lock m2 on for 1000ms",
            "at 9000ms: read-lock m2 off",
            "at 9000ms: revoke servers for 1000ms",
            "at 9000ms: grant m2",
            "at 9000ms: revoke n3 for 1000ms",
            "at 9000ms: recover n1 raft",
            "at 9000ms: recover n1 backend",
            "when members 3: kill leader for 1000ms",
            "when promoted: stop follower",
            "at 9000ms: thaw m1",
        ] {
            let planned: Planned = line.parse().unwrap();
            assert_eq!(planned.to_string(), line);
        }
        let seconds: Planned = "at 8s..10s: kill m1 for 2s".parse().unwrap();
        assert_eq!(
            seconds.to_string(),
            "at 8000ms..10000ms: kill m1 for 2000ms"
        );
    }

    #[test]
    fn what_is_drawn_is_a_point_within_the_window() {
        let planned: Planned = "when commit 2..9 + 0ms..200ms: kill leader for 1s..3s"
            .parse()
            .unwrap();
        let mut random = SplitMix::new(7, 1);
        for _ in 0..50 {
            let drawn = planned.draw(&mut random);
            let again: Planned = drawn.to_string().parse().unwrap();
            assert_eq!(drawn, again);
            let When::Moment { counts, after, .. } = drawn.when else {
                panic!("{drawn}");
            };
            assert!(
                counts.0 == counts.1 && (2..=9).contains(&counts.0),
                "{drawn}"
            );
            assert_eq!(after.0, after.1);
            assert!(drawn.lasts.unwrap().0 >= Duration::from_secs(1));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "kill m1",
            "at 8: kill m1",
            "at 9s..8s: kill m1",
            "when nothing: kill m1",
            "when commit x: kill m1",
            "when commit 1 2: kill m1",
            "at 8s: explode m1",
            "at 8s: cut m1",
            "at 8s: lose n1>n2 130%",
            "at 8s: start m1 for 3s",
            "at 8s: wipe n1 everything",
            "at 8s: drift n1 by 5ms",
            "at 8s: rot n1 everything",
            "at 8s: rot n1 log for 1s",
            "at 8s: recover n1 both",
            "at 8s: logins m1 shut",
            "at 8s: logins m1 admitted for 1s",
            "at 8s: grant m1 for 1s",
        ] {
            assert!(line.parse::<Planned>().is_err(), "{line}");
        }
    }
}
