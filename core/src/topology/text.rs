//! A topology as text: the tree of `topology`, `topology-tabulated` and `topology-tags`.
//!
//! Decides only how a cluster is drawn. Every server given is drawn exactly once, whatever its replication looks like:
//! what hangs below no root (a ring, a source outside of the list) starts a branch of its own.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{Instance, ThreadState};
use crate::{
    id::InstanceKey,
    time::{Mono, Now},
};

/// Which of the three drawings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// `host:port [tokens]`, brackets aligned.
    Plain,
    /// Tokens in columns separated by `|`.
    Tabulated,
    /// As plain, followed by the tags in brackets.
    Tags,
}

/// What the tokens are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// `InstancePollSeconds`: a server not checked within five of these is *unchecked*.
    pub poll: Duration,
    /// `ReasonableMaintenanceReplicationLagSeconds`: beyond it a replica is *lagging*.
    pub lag: Duration,
}

/// A server to draw, with what replicated state says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    pub instance: Instance,
    pub is_downtimed: bool,
    /// `name` or `name=value`, in the order to show.
    pub tags: Vec<String>,
}

/// How a server does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The newest check failed.
    Invalid,
    /// Not checked within five polls.
    Unchecked,
    /// It has replication threads and not both run.
    NonReplicating,
    Lag,
    Ok,
}

impl Status {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unchecked => "unchecked",
            Self::NonReplicating => "nonreplicating",
            Self::Lag => "lag",
            Self::Ok => "ok",
        }
    }
}

/// Checked within `polls` polls, well or not.
#[must_use]
pub fn is_checked_within(instance: &Instance, polls: u32, poll: Duration, now: Mono) -> bool {
    instance
        .checked
        .is_some_and(|checked| now.since(checked) <= poll.saturating_mul(polls))
}

/// The status of a server by a lag that is still reasonable; a configured delay does not count as lag.
#[must_use]
pub fn status(instance: &Instance, scale: Scale, now: Mono) -> Status {
    if !instance.is_last_check_valid() {
        return Status::Invalid;
    }
    if !is_checked_within(instance, 5, scale.poll, now) {
        return Status::Unchecked;
    }
    let threads = [instance.io(), instance.sql()];
    if threads.iter().all(|state| *state != ThreadState::NoThread)
        && threads.iter().any(|state| *state != ThreadState::Running)
    {
        return Status::NonReplicating;
    }
    let delay = delay_s(instance);
    match lag_s(instance) {
        Some(lag) if lag.abs_diff(delay) > scale.lag.as_secs() => Status::Lag,
        Some(_) | None => Status::Ok,
    }
}

fn lag_s(instance: &Instance) -> Option<u64> {
    instance.report.as_ref()?.lag_s()
}

fn delay_s(instance: &Instance) -> u64 {
    instance
        .report
        .as_ref()
        .and_then(|report| report.replication.as_ref())
        .map_or(0, |replication| u64::from(replication.sql_delay_s))
}

/// The cluster as text: lines joined by a line feed, none at the end. Siblings are drawn in the order of their keys.
#[must_use]
pub fn draw(servers: &[Drawn], drawing: Drawing, scale: Scale, now: Now) -> String {
    let lines = lines(servers, scale, now.mono);
    match drawing {
        Drawing::Plain => aligned(&lines, false),
        Drawing::Tags => aligned(&lines, true),
        Drawing::Tabulated => tabulated(&lines),
    }
}

/// One line before it is laid out.
struct Line<'a> {
    /// Blanks, marker, key and alias.
    name: String,
    /// Lag, status, version, ro/rw, binlog format.
    tokens: [String; 5],
    extras: Vec<&'static str>,
    tags: &'a [String],
}

fn lines<'a>(servers: &'a [Drawn], scale: Scale, now: Mono) -> Vec<Line<'a>> {
    let by_key: BTreeMap<&InstanceKey, &Drawn> = servers
        .iter()
        .map(|drawn| (&drawn.instance.key, drawn))
        .collect();
    let mut below: BTreeMap<&InstanceKey, Vec<&'a Drawn>> = BTreeMap::new();
    let mut roots: Vec<&Drawn> = Vec::new();
    for drawn in by_key.values() {
        match above(&drawn.instance) {
            // Co-primaries hang below nobody here: each starts a branch.
            Some(source) if by_key.contains_key(source) && !drawn.instance.place.is_co_primary => {
                below.entry(source).or_default().push(drawn);
            }
            Some(_) | None => roots.push(drawn),
        }
    }
    let mut lines = Vec::with_capacity(servers.len());
    let mut seen = BTreeSet::new();
    let mut start = |root: &'a Drawn, depth: usize, lines: &mut Vec<Line<'a>>| {
        let mut stack = Vec::from([(root, depth)]);
        while let Some((drawn, depth)) = stack.pop() {
            if !seen.insert(&drawn.instance.key) {
                continue;
            }
            lines.push(line(drawn, depth, scale, now));
            for replica in below.get(&drawn.instance.key).into_iter().flatten().rev() {
                stack.push((replica, depth + 1));
            }
        }
    };
    for root in roots {
        let depth = usize::from(root.instance.place.is_co_primary);
        start(root, depth, &mut lines);
    }
    for drawn in by_key.values() {
        start(drawn, 1, &mut lines);
    }
    lines
}

/// The server drawn above: the group's primary for a group's secondary, the source otherwise.
fn above(instance: &Instance) -> Option<&InstanceKey> {
    group_primary(instance).or_else(|| instance.source())
}

/// The primary of the group in which this server is a secondary.
fn group_primary(instance: &Instance) -> Option<&InstanceKey> {
    let group = instance.report.as_ref()?.group.as_ref()?;
    (!group.name.is_empty() && !group.primary.host.is_empty() && group.primary != instance.key)
        .then_some(&group.primary)
}

fn line<'a>(drawn: &'a Drawn, depth: usize, scale: Scale, now: Mono) -> Line<'a> {
    let instance = &drawn.instance;
    let mut name = String::new();
    if depth > 0 {
        (1..depth).for_each(|_| name.push_str("  "));
        name.push(marker(instance, scale, now));
        name.push(' ');
    }
    name.push_str(&instance.key.to_string());
    if let Some(report) = &instance.report
        && !report.classification.instance_alias.is_empty()
    {
        name.push_str(&format!(" ({})", report.classification.instance_alias));
    }
    Line {
        name,
        tokens: tokens(instance, scale, now),
        extras: extras(drawn),
        tags: &drawn.tags,
    }
}

fn marker(instance: &Instance, scale: Scale, now: Mono) -> char {
    if group_primary(instance).is_some() {
        return '‡';
    }
    let is_replicating =
        instance.io() == ThreadState::Running && instance.sql() == ThreadState::Running;
    let is_checked =
        instance.is_last_check_valid() && is_checked_within(instance, 5, scale.poll, now);
    if is_replicating && is_checked {
        '+'
    } else {
        '-'
    }
}

fn tokens(instance: &Instance, scale: Scale, now: Mono) -> [String; 5] {
    let status = status(instance, scale, now);
    let report = instance.report.as_ref();
    [
        lag_text(instance, status),
        status.name().to_string(),
        report.map_or_else(String::new, |report| report.version.text.clone()),
        report.map_or_else(String::new, |report| {
            String::from(if report.read_only { "ro" } else { "rw" })
        }),
        report.map_or_else(String::new, |report| {
            if report.log_bin {
                report.binlog_format.clone()
            } else {
                String::from("nobinlog")
            }
        }),
    ]
}

fn lag_text(instance: &Instance, status: Status) -> String {
    if instance.source().is_some_and(InstanceKey::is_detached) {
        return String::from("detached");
    }
    match status {
        Status::Invalid | Status::Unchecked => String::from("unknown"),
        Status::NonReplicating | Status::Lag | Status::Ok => match lag_s(instance) {
            Some(lag) => format!("{lag}s"),
            None if instance.source().is_some() => String::from("null"),
            None => String::from("0s"),
        },
    }
}

fn extras(drawn: &Drawn) -> Vec<&'static str> {
    let instance = &drawn.instance;
    let mut extras = Vec::new();
    if let Some(report) = &instance.report {
        if report.log_bin && report.log_replica_updates {
            extras.push(">>");
        }
        let uses_gtid = report
            .replication
            .as_ref()
            .is_some_and(super::ReplicaStatus::uses_any_gtid);
        if uses_gtid || !matches!(report.gtid_mode.as_str(), "" | "OFF") {
            extras.push(if instance.place.errant.is_empty() {
                "GTID"
            } else {
                "GTID:errant"
            });
        }
        if report.semi_sync.source_status {
            extras.push("semi:master");
        }
        if report.semi_sync.replica_status {
            extras.push("semi:replica");
        }
    }
    if drawn.is_downtimed {
        extras.push("downtimed");
    }
    extras
}

fn aligned(lines: &[Line<'_>], with_tags: bool) -> String {
    let width = lines.iter().map(|line| width(&line.name)).max();
    let mut text = String::new();
    for line in lines {
        if !text.is_empty() {
            text.push('\n');
        }
        push_padded(&mut text, &line.name, width.unwrap_or(0));
        text.push_str(" [");
        let shown = line.tokens.iter().map(String::as_str);
        let shown = shown.chain(line.extras.iter().copied());
        push_joined(&mut text, shown.filter(|token| !token.is_empty()));
        text.push(']');
        if with_tags {
            text.push_str(" [");
            push_joined(&mut text, line.tags.iter().map(String::as_str));
            text.push(']');
        }
    }
    text
}

fn tabulated(lines: &[Line<'_>]) -> String {
    let rows: Vec<[String; 7]> = lines
        .iter()
        .map(|line| {
            let [lag, status, version, mode, format] = line.tokens.clone();
            let mut extras = String::new();
            push_joined(&mut extras, line.extras.iter().copied());
            [
                line.name.clone(),
                lag,
                status,
                version,
                mode,
                format,
                extras,
            ]
        })
        .collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    for row in &rows {
        if !text.is_empty() {
            text.push('\n');
        }
        for (column, (cell, widest)) in row.iter().zip(widths).enumerate() {
            if column > 0 {
                text.push('|');
            }
            if column == 1 {
                (width(cell)..widest).for_each(|_| text.push(' '));
                text.push_str(cell);
            } else {
                push_padded(&mut text, cell, widest);
            }
        }
    }
    text
}

/// In characters: the marker of a group's secondary takes three bytes.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn push_padded(text: &mut String, cell: &str, widest: usize) {
    text.push_str(cell);
    (width(cell)..widest).for_each(|_| text.push(' '));
}

fn push_joined<'a>(text: &mut String, parts: impl Iterator<Item = &'a str>) {
    for (n, part) in parts.enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{GroupMembership, ProbeReport, ReplicaStatus, SemiSync, Version};
    use alloc::sync::Arc;

    const NOW: Now = Now {
        mono: Mono::from_nanos(100_000_000_000),
        wall: crate::time::Wall::EPOCH,
    };
    const SCALE: Scale = Scale {
        poll: Duration::from_secs(5),
        lag: Duration::from_secs(20),
    };

    fn key(host: &str) -> InstanceKey {
        InstanceKey::new(host, 3306)
    }

    /// A MySQL server, replicating from `source` if one is named.
    fn server(host: &str, source: Option<&str>) -> Drawn {
        let mut instance = Instance::new(key(host), Now::default());
        instance.checked = Some(NOW.mono - Duration::from_secs(1));
        instance.seen = instance.checked;
        instance.report = Some(Arc::new(ProbeReport {
            version: Version::parse("8.0.36"),
            read_only: source.is_some(),
            log_bin: true,
            log_replica_updates: true,
            binlog_format: String::from("ROW"),
            gtid_mode: String::from("ON"),
            replication: source.map(|source| ReplicaStatus {
                source: key(source),
                io: ThreadState::Running,
                sql: ThreadState::Running,
                seconds_behind: Some(0),
                auto_position: true,
                ..ReplicaStatus::default()
            }),
            ..ProbeReport::default()
        }));
        Drawn {
            instance,
            is_downtimed: false,
            tags: Vec::new(),
        }
    }

    fn with(mut drawn: Drawn, change: impl FnOnce(&mut ProbeReport)) -> Drawn {
        let report = drawn.instance.report.as_mut().expect("it has a report");
        change(Arc::get_mut(report).expect("it is not shared"));
        drawn
    }

    fn replication(report: &mut ProbeReport) -> &mut ReplicaStatus {
        report.replication.as_mut().expect("it is a replica")
    }

    fn check(servers: &[Drawn], drawing: Drawing, expected: &[&str]) {
        let text = draw(servers, drawing, SCALE, NOW);
        assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_primary_and_its_replicas() {
        let mut third = with(server("db3", Some("db1")), |report| {
            replication(report).sql = ThreadState::Stopped;
            replication(report).seconds_behind = None;
        });
        third.is_downtimed = true;
        let servers = [server("db1", None), server("db2", Some("db1")), third];
        check(
            &servers,
            Drawing::Plain,
            &[
                "db1:3306   [0s,ok,8.0.36,rw,ROW,>>,GTID]",
                "+ db2:3306 [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "- db3:3306 [null,nonreplicating,8.0.36,ro,ROW,>>,GTID,downtimed]",
            ],
        );
        check(
            &servers,
            Drawing::Tabulated,
            &[
                "db1:3306  |  0s|ok            |8.0.36|rw|ROW|>>,GTID          ",
                "+ db2:3306|  0s|ok            |8.0.36|ro|ROW|>>,GTID          ",
                "- db3:3306|null|nonreplicating|8.0.36|ro|ROW|>>,GTID,downtimed",
            ],
        );
    }

    #[test]
    fn depth_alias_tags_errant_and_semi_sync() {
        let mut leaf = with(server("db9", Some("db10")), |report| {
            report.log_bin = false;
            report.classification.instance_alias = String::from("reports");
        });
        leaf.tags = Vec::from([String::from("role=reports"), String::from("slow")]);
        let mut middle = with(server("db10", Some("db1")), |report| {
            report.semi_sync = SemiSync {
                source_status: true,
                replica_status: true,
                ..SemiSync::default()
            };
        });
        middle.instance.place.errant = String::from("aaaa:1");
        check(
            &[leaf, middle, server("db1", None)],
            Drawing::Tags,
            &[
                "db1:3306               [0s,ok,8.0.36,rw,ROW,>>,GTID] []",
                "+ db10:3306            [0s,ok,8.0.36,ro,ROW,>>,GTID:errant,semi:master,semi:replica] []",
                "  + db9:3306 (reports) [0s,ok,8.0.36,ro,nobinlog,GTID] [role=reports,slow]",
            ],
        );
    }

    #[test]
    fn co_primaries_start_a_branch_each() {
        let mut one = server("a", Some("b"));
        let mut two = server("b", Some("a"));
        one.instance.place.is_co_primary = true;
        two.instance.place.is_co_primary = true;
        check(
            &[one, two, server("c", Some("b"))],
            Drawing::Plain,
            &[
                "+ a:3306   [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "+ b:3306   [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "  + c:3306 [0s,ok,8.0.36,ro,ROW,>>,GTID]",
            ],
        );
    }

    #[test]
    fn a_ring_and_a_stranger_are_drawn_once_each() {
        check(
            &[
                server("a", Some("c")),
                server("b", Some("a")),
                server("c", Some("b")),
                server("d", Some("elsewhere")),
                server("e", Some("e")),
            ],
            Drawing::Plain,
            &[
                "d:3306       [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "+ a:3306     [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "  + b:3306   [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "    + c:3306 [0s,ok,8.0.36,ro,ROW,>>,GTID]",
                "+ e:3306     [0s,ok,8.0.36,ro,ROW,>>,GTID]",
            ],
        );
    }

    #[test]
    fn a_group_hangs_below_its_primary() {
        let group = |primary: &str| {
            Some(GroupMembership {
                name: String::from("g"),
                primary: key(primary),
                ..GroupMembership::default()
            })
        };
        check(
            &[
                with(server("a", None), |report| report.group = group("a")),
                with(server("b", None), |report| report.group = group("a")),
            ],
            Drawing::Plain,
            &[
                "a:3306   [0s,ok,8.0.36,rw,ROW,>>,GTID]",
                "‡ b:3306 [0s,ok,8.0.36,rw,ROW,>>,GTID]",
            ],
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut failed = server("b", Some("a"));
        failed.instance.seen = Some(NOW.mono - Duration::from_secs(9));
        let mut old = server("c", Some("a"));
        old.instance.checked = Some(NOW.mono - Duration::from_secs(26));
        old.instance.seen = old.instance.checked;
        let late = with(server("d", Some("a")), |report| {
            replication(report).seconds_behind = Some(21);
        });
        let delayed = with(server("e", Some("a")), |report| {
            replication(report).seconds_behind = Some(3620);
            replication(report).sql_delay_s = 3600;
        });
        let detached = server("f", Some("//a"));
        let never = Drawn {
            instance: Instance::new(key("g"), Now::default()),
            is_downtimed: false,
            tags: Vec::new(),
        };
        check(
            &[
                server("a", None),
                failed,
                old,
                late,
                delayed,
                detached,
                never,
            ],
            Drawing::Plain,
            &[
                "a:3306   [0s,ok,8.0.36,rw,ROW,>>,GTID]",
                "- b:3306 [unknown,invalid,8.0.36,ro,ROW,>>,GTID]",
                "- c:3306 [unknown,unchecked,8.0.36,ro,ROW,>>,GTID]",
                "+ d:3306 [21s,lag,8.0.36,ro,ROW,>>,GTID]",
                "+ e:3306 [3620s,ok,8.0.36,ro,ROW,>>,GTID]",
                "f:3306   [detached,ok,8.0.36,ro,ROW,>>,GTID]",
                "g:3306   [unknown,invalid]",
            ],
        );
        check(&[], Drawing::Plain, &[""]);
    }
}
