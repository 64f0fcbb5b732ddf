//! Whether a server was restarted since something was recorded of it, and what the leader does with a primary that a
//! restart has closed: it opens it again.
//!
//! That a primary was writeable, and that people closed it, is replicated, so that a leader that never saw it writeable
//! knows as much as the one that did. A restart shows in the uptime: it is less than what was recorded and the time since
//! then come to. That time is this process's own, from when it learned of the record on; of wall clocks, which are wrong
//! now and then, only what lies beyond their usual differences counts. So a restart may remain unseen by a daemon that
//! was started after it, once the server has been up for longer than recorded: records are renewed as the server ages.
//!
//! Holds between calls: `Learned` has each row as it was applied last, or nothing for what this process began with.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::time::Duration;

use super::{
    Cause, Level, Node, Output, backoff::Backoff, beside::Beside, house::PROPOSALS_PER_ROUND, note,
};
use crate::{
    id::{ClusterKey, Identity, InstanceKey},
    recovery::{End, Outcome, Phase, Purpose, Recovery, StepKind},
    replicated::{Change, ClusterRecord, Command, Deposed, Sighting},
    time::{Mono, Now},
    topology::Instance,
};

/// Uptimes are whole seconds, and readings take a while.
pub(super) const UPTIME_SLACK_S: u64 = 2;
/// A server that is up for no longer than this is as its start has left it: nobody is so quick.
const YOUNG_S: u64 = 10;
/// A primary that could not be opened is tried again after this time, which doubles so often.
const REOPEN_AGAIN: Duration = Duration::from_secs(5);
const REOPEN_DOUBLINGS: u32 = 4;
/// A primary that a recovery closed and that stays closed for so long was seen by people, and is theirs.
const LEFT_CLOSED_FOR: Duration = Duration::from_secs(3600);
/// What is not known of the other servers of a cluster is waited for so long: they are all read meanwhile.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// Wall clocks of daemons may differ by so much without a word.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

/// When this daemon learned what is recorded of lives of servers.
#[derive(Debug, Default)]
pub(super) struct Learned {
    opened: BTreeMap<ClusterKey, LearnedOpened>,
    deposed: BTreeMap<Identity, LearnedDeposed>,
    /// When the newest recovery or operation on a cluster ended: what was read before may be of before it.
    settled: BTreeMap<ClusterKey, Mono>,
}

#[derive(Debug)]
struct LearnedOpened {
    opened: Option<Sighting>,
    since: Mono,
    /// It was found closed by a restart, which its uptime may not tell any more when it may be opened.
    was_found_closed: bool,
    reopen: Backoff,
    /// Why it is not opened, as it was said last.
    held_up: Option<String>,
}

#[derive(Debug)]
struct LearnedDeposed {
    row: Deposed,
    /// That it was deposed by this recovery.
    since: Mono,
    /// That it was seen closed.
    fenced: Mono,
}

impl Learned {
    /// A row was applied.
    pub(super) fn follow(&mut self, now: Mono, change: &Change) {
        if let Change::Cluster(key, record) = change {
            match record {
                Some(record) => self.follow_cluster(now, record.opened, *key),
                None => {
                    self.opened.remove(key);
                    self.settled.remove(key);
                }
            }
        } else if let Change::Deposed(identity, row) = change {
            match row {
                Some(row) => self.follow_deposed(now, identity, row),
                None => {
                    self.deposed.remove(identity);
                }
            }
        }
    }

    fn follow_cluster(&mut self, now: Mono, opened: Option<Sighting>, key: ClusterKey) {
        let held = self
            .opened
            .entry(key)
            .or_insert_with(|| LearnedOpened::at(now, opened));
        if held.opened != opened {
            *held = LearnedOpened::at(now, opened);
        }
    }

    fn follow_deposed(&mut self, now: Mono, identity: &Identity, row: &Deposed) {
        let held = self
            .deposed
            .entry(identity.clone())
            .or_insert_with(|| LearnedDeposed {
                row: row.clone(),
                since: now,
                fenced: now,
            });
        if held.row.by != row.by {
            held.since = now;
        }
        if held.row.fenced != row.fenced {
            held.fenced = now;
        }
        held.row = row.clone();
    }

    /// A recovery or operation on a cluster has ended.
    pub(super) fn settle(&mut self, now: Mono, cluster: ClusterKey) {
        self.settled.insert(cluster, now);
    }

    /// When the newest recovery or operation on a cluster ended, if one did since this process learned of the cluster.
    pub(super) fn settled_since(&self, cluster: ClusterKey) -> Option<Mono> {
        self.settled.get(&cluster).copied()
    }

    /// Since when this daemon knows that a server was deposed by the recovery that is recorded.
    pub(super) fn deposed_since(&self, identity: &Identity) -> Mono {
        self.deposed
            .get(identity)
            .map_or(Mono::ZERO, |held| held.since)
    }

    fn opened_since(&self, cluster: ClusterKey) -> Mono {
        self.opened
            .get(&cluster)
            .map_or(Mono::ZERO, |held| held.since)
    }

    fn was_found_closed(&self, cluster: ClusterKey) -> bool {
        self.opened
            .get(&cluster)
            .is_some_and(|held| held.was_found_closed)
    }

    fn of(&mut self, record: &ClusterRecord) -> &mut LearnedOpened {
        self.opened
            .entry(record.key)
            .or_insert_with(|| LearnedOpened::at(Mono::ZERO, record.opened))
    }
}

impl LearnedOpened {
    fn at(since: Mono, opened: Option<Sighting>) -> Self {
        Self {
            opened,
            since,
            was_found_closed: false,
            reopen: Backoff::default(),
            held_up: None,
        }
    }
}

/// The server was restarted after it was seen so. `learned` is when this daemon heard of it.
fn was_restarted_since(now: Now, sighting: Sighting, learned: Mono, server: &Instance) -> bool {
    let (Some(report), Some(seen)) = (&server.report, server.seen) else {
        return false;
    };
    let seen_at = now.wall - now.mono.since(seen);
    let passed = seen
        .since(learned)
        .max(seen_at.since(sighting.at).saturating_sub(CLOCKS_DIFFER));
    report.uptime_s + UPTIME_SLACK_S < sighting.uptime_s.saturating_add(passed.as_secs())
}

/// A record of a server that has aged so much since tells little of a restart that nobody sees.
fn is_worth_renewing(sighting: Sighting, uptime_s: u64) -> bool {
    uptime_s >= sighting.uptime_s + YOUNG_S.max(sighting.uptime_s / 2)
}

/// Where a deposed primary stands that answers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// It is closed, and the record says so.
    Holds,
    /// It is closed, which is to be recorded.
    Unrecorded,
    /// It is open, and nobody has closed it since it started.
    Missing,
    /// It is open, and was seen closed in this life.
    OpenedByPeople,
}

/// What is to be recorded of a primary, or done with it.
enum Standing {
    AsRecorded,
    /// Writeable with this uptime; without one, people closed it.
    Mark(Option<u64>),
    /// It is to be opened.
    Open(Closed),
}

/// Why a primary is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    ByRestart,
    /// By a recovery that promoted nobody.
    ByRecovery,
    /// It is open, and such a recovery may have left statements in its connections that close it yet.
    Soon,
}

impl Node {
    pub(super) fn learn_all(&mut self, now: Now) {
        let mut learned = core::mem::take(&mut self.learned);
        learned
            .opened
            .retain(|key, _| self.replicated.cluster(*key).is_some());
        learned
            .settled
            .retain(|key, _| self.replicated.cluster(*key).is_some());
        learned
            .deposed
            .retain(|identity, _| self.replicated.is_deposed(identity));
        for record in self.replicated.clusters() {
            learned.follow_cluster(now.mono, record.opened, record.key);
        }
        for (identity, row) in self.replicated.deposed() {
            learned.follow_deposed(now.mono, identity, row);
        }
        self.learned = learned;
    }

    /// Of a deposed primary that was read.
    pub(super) fn fence_of(
        &self,
        now: Now,
        identity: &Identity,
        row: &Deposed,
        server: &Instance,
    ) -> Fence {
        let uptime_s = server.report.as_ref().map_or(0, |report| report.uptime_s);
        let learned = self
            .learned
            .deposed
            .get(identity)
            .map_or(Mono::ZERO, |held| held.fenced);
        let held = row
            .fenced
            .filter(|fenced| !was_restarted_since(now, *fenced, learned, server));
        match (server.read_only(), held) {
            (true, Some(fenced)) if !is_worth_renewing(fenced, uptime_s) => Fence::Holds,
            (true, _) => Fence::Unrecorded,
            (false, Some(_)) if uptime_s > YOUNG_S => Fence::OpenedByPeople,
            (false, _) => Fence::Missing,
        }
    }

    fn standing_of(&self, now: Now, record: &ClusterRecord) -> Standing {
        let Some(server) = self.observed.instances.get(&record.primary) else {
            return Standing::AsRecorded;
        };
        let learned = self.learned.opened_since(record.key);
        let settled = self.learned.settled_since(record.key);
        let is_news = server.is_last_check_valid()
            && server.seen > Some(learned).max(settled)
            && server.identity() == record.identity.as_ref()
            && server
                .source()
                .is_none_or(|source| self.is_left_behind(record, source));
        let Some(report) = server.report.as_ref().filter(|_| is_news) else {
            return Standing::AsRecorded;
        };
        let uptime_s = report.uptime_s;
        let is_restarted = |opened| was_restarted_since(now, opened, learned, server);
        let was_found_closed = self.learned.was_found_closed(record.key);
        match (report.read_only, record.opened) {
            (false, None) => Standing::Mark(Some(uptime_s)),
            // Nothing outlives a restart.
            (false, Some(opened)) if is_restarted(opened) => Standing::Mark(Some(uptime_s)),
            (false, Some(opened)) => {
                let newest = self.failed_since_opened(record).next();
                let left = newest.and_then(|newest| Some((newest, self.left_closed_by(record)?)));
                match left {
                    Some((newest, recovery)) => {
                        self.standing_of_open(now, record, newest, recovery, uptime_s)
                    }
                    None if was_found_closed
                        || is_worth_renewing(opened, uptime_s)
                        || newest.is_some() =>
                    {
                        Standing::Mark(Some(uptime_s))
                    }
                    None => Standing::AsRecorded,
                }
            }
            (true, None) => Standing::AsRecorded,
            // Opened by a recovery and never seen open: how long it had been up is not known, and people are not that quick.
            (true, Some(opened))
                if opened.uptime_s == 0
                    || uptime_s <= YOUNG_S
                    || was_found_closed
                    || is_restarted(opened) =>
            {
                Standing::Open(Closed::ByRestart)
            }
            (true, Some(_)) => match self.left_closed_by(record) {
                Some(recovery) => match self.beside(record, recovery) {
                    Beside::Nobody | Beside::Unknown(_) => Standing::Open(Closed::ByRecovery),
                    Beside::Another(_) => Standing::Mark(None),
                },
                None => Standing::Mark(None),
            },
        }
    }

    /// Of a primary that is open, and that `recovery` may close yet; `newest` failed last. Whoever closes it after it was marked is not
    /// that recovery: so it is marked when nothing may be done about it.
    fn standing_of_open(
        &self,
        now: Now,
        record: &ClusterRecord,
        newest: &Recovery,
        recovery: &Recovery,
        uptime_s: u64,
    ) -> Standing {
        // What was done since makes all that was read before of no worth.
        let ended = newest.end.as_ref().map(|(ended, _)| *ended);
        let is_recent = ended.is_some_and(|ended| now.wall.since(ended) < UNKNOWN_FOR);
        match self.beside(record, recovery) {
            _ if !self.may_reopen(now, record) => Standing::Mark(Some(uptime_s)),
            Beside::Nobody => Standing::Open(Closed::Soon),
            Beside::Unknown(_) if is_recent => Standing::AsRecorded,
            Beside::Unknown(_) | Beside::Another(_) => Standing::Mark(Some(uptime_s)),
        }
    }

    /// The recorded primary names this source because the recovery that made it the primary could not remove that setting: it
    /// died a moment later.
    pub(super) fn is_left_behind(&self, record: &ClusterRecord, source: &InstanceKey) -> bool {
        self.replicated.deposed_at(source).any(|(identity, row)| {
            row.cluster == record.key
                // Without its record nobody can say what it could not remove.
                && self.replicated.recovery(&row.by).is_some()
                && !self.was_apart(identity, row, &record.primary)
        })
    }

    /// Records which primaries are writeable, and which people closed. One that a restart closed is made writeable again.
    pub(super) fn keep_primaries_open(&mut self, now: Now, out: &mut Output, before: usize) {
        let mut marks: Vec<Command> = Vec::new();
        let mut to_open: Vec<(ClusterKey, Closed)> = Vec::new();
        for record in self.replicated.clusters() {
            if marks.len() + to_open.len() + out.effects.len() - before >= PROPOSALS_PER_ROUND {
                break;
            }
            let Some(identity) = record.identity.clone() else {
                continue;
            };
            if self.replicated.running_on(record.key).is_some()
                || self.beginning.contains(&record.primary)
                || self.replicated.is_deposed(&identity)
            {
                continue;
            }
            match self.standing_of(now, record) {
                Standing::AsRecorded => {}
                Standing::Mark(writeable_at_uptime_s) => marks.push(Command::MarkPrimary {
                    primary: record.primary.clone(),
                    identity,
                    writeable_at_uptime_s,
                }),
                Standing::Open(closed) => to_open.push((record.key, closed)),
            }
        }
        for command in marks {
            self.propose(now, Cause::House, command, out);
        }
        for (cluster, closed) in to_open {
            self.open_again(now, cluster, closed, out);
        }
    }

    /// Opens a primary, which ends what waits in its connections to close it.
    fn open_again(&mut self, now: Now, cluster: ClusterKey, closed: Closed, out: &mut Output) {
        let Some(record) = self.replicated.cluster(cluster).cloned() else {
            return;
        };
        let may_reopen = self.may_reopen(now, &record);
        let held_up = self.held_up_by(&record);
        let held = self.learned.of(&record);
        held.was_found_closed |= closed == Closed::ByRestart;
        if !may_reopen || !held.reopen.is_due(now.mono) {
            return;
        }
        let key = record.primary;
        if let Some(why) = held_up {
            if held.held_up.as_ref() != Some(&why) {
                let text = format!("{key} is read-only and was writeable; it is not opened: {why}");
                note(out, Level::Warning, None, text);
                held.held_up = Some(why);
            }
            return;
        }
        held.reopen.tried(now.mono, REOPEN_AGAIN, REOPEN_DOUBLINGS);
        let text = match closed {
            Closed::ByRestart => {
                format!("{key} restarted read-only and was writeable: making it writeable again")
            }
            Closed::ByRecovery => format!(
                "{key} was closed by a recovery that promoted nobody: making it writeable again"
            ),
            Closed::Soon => format!(
                "{key} is writeable, and a recovery that promoted nobody may have left statements there that close it: ending them"
            ),
        };
        note(out, Level::Warning, None, text);
        self.open(now, &key, Purpose::Reopen, "", out);
    }

    /// People may have chosen another primary after a recovery that failed; none has to be chosen after one that was undone, since
    /// the primary answered. An operator who knows better opens it.
    fn held_up_by(&self, record: &ClusterRecord) -> Option<String> {
        let is_undone = |recovery: &Recovery| matches!(recovery.end, Some((_, End::Undone { .. })));
        let recovery = self
            .failed_since_opened(record)
            .find(|recovery| recovery.purpose.is_recovery() && !is_undone(recovery))?;
        match self.beside(record, recovery) {
            Beside::Nobody => None,
            Beside::Another(key) => Some(format!("{key} is writeable and replicates from nobody")),
            Beside::Unknown(key) => Some(format!(
                "whether {key} takes writes in its place is not known since recovery {} failed",
                recovery.uid
            )),
        }
    }

    fn may_reopen(&self, now: Now, record: &ClusterRecord) -> bool {
        self.policy().reopen_restarted_primary
            && self.may_change(record)
            && self.is_primary_of_its_servers(record)
            && self
                .replicated
                .downtime_of(&record.primary, now.wall)
                .is_none()
            && self
                .replicated
                .maintenance_of(&record.primary, now.wall)
                .is_none()
    }

    /// Whether servers of the cluster may be changed without being asked: where people did not ask for recoveries, or
    /// stopped them, nothing is.
    pub(super) fn may_change(&self, record: &ClusterRecord) -> bool {
        self.replicated.are_recoveries_enabled()
            && !self.policy().observe_only
            && self
                .filters
                .recover_primary
                .matches(&record.name, record.alias_or_name())
    }

    /// The recoveries of a primary, and the attempts to open it, that failed after it was last seen open; newest first.
    fn failed_since_opened<'a>(
        &'a self,
        record: &ClusterRecord,
    ) -> impl Iterator<Item = &'a Recovery> + use<'a> {
        let (cluster, primary) = (record.key, record.primary.clone());
        let opened = record.opened.map(|opened| opened.at);
        self.replicated
            .recoveries_newest_first()
            .filter(move |recovery| {
                (recovery.purpose.is_recovery() || recovery.purpose == Purpose::Reopen)
                    && recovery.cluster == cluster
                    && recovery.server == primary
            })
            .take_while(move |recovery| {
                let ended = recovery.end.as_ref().map(|(ended, _)| *ended);
                !recovery.is_successful() && ended > opened
            })
    }

    /// A recovery of the cluster that may have closed its primary after that was last seen open, promoted nobody, and did not
    /// open it again; nor did those since, all of which failed.
    fn left_closed_by(&self, record: &ClusterRecord) -> Option<&Recovery> {
        record.opened?;
        let was_opened = |recovery: &Recovery| {
            let is_done = |(_, phase): (_, &Phase)| *phase == Phase::Settled(Outcome::Done);
            recovery.steps_of(StepKind::Reopen).any(is_done)
        };
        let is_recent = |recovery: &Recovery| {
            recovery.end.as_ref().is_some_and(|(ended, _)| {
                self.replicated.log_time().since(*ended) < LEFT_CLOSED_FOR
            })
        };
        self.failed_since_opened(record)
            .take_while(|recovery| !was_opened(recovery) && is_recent(recovery))
            .find(|recovery| recovery.purpose.is_recovery() && recovery.may_have_closed())
    }

    /// The failed primary was closed when it was last read, and no restart had made it so.
    pub(super) fn was_closed_by_people(&self, primary: &InstanceKey) -> bool {
        let was_open = self
            .replicated
            .cluster_of(primary)
            .is_some_and(|record| record.primary == *primary && record.opened.is_some());
        !was_open
            && self
                .observed
                .instances
                .get(primary)
                .is_some_and(Instance::read_only)
    }
}
