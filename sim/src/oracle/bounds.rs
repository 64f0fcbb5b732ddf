//! Bounds hold: however often connections break and leaders change, what the daemons hold open on a server stays within
//! what a few of each kind need; and so does what replicas and applications hold, who dial anew when they are cut off.
//!
//! A daemon's log is cut when it holds too many bytes, and a snapshot is made when the last one is too old. Neither cuts
//! more than it has to: so many entries are kept behind a snapshot, or half of the bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator::raft::LogBounds;
use orchestrator_core::id::{LogPosition, NodeId};

use crate::daemon::{DaemonView, LogView};
use crate::model::Host;
use crate::model::server::{Account, Server};

/// A daemon's connections to a server: a probe, a pulse and a spare one, an idle fence and a pending one, an action
/// connection for each of three lanes, and the same again of an epoch that is being let go.
const OF_A_DAEMON_MAX: usize = 16;
/// What a daemon leaves behind when its machine loses power: nobody tells the server that the other end is gone.
const LEFT_BEHIND_MAX: usize = 8;
/// Applications, and their connections that were cut off and that the server does not know to be dead.
const OF_APPLICATIONS_MAX: usize = 16;
/// The same of each replica.
const OF_A_REPLICA_MAX: usize = 2;

/// A daemon looks at its log every second: once it finds that a snapshot is needed, and once that it can cut. A leader
/// cuts nothing that is on its way to a follower: to one that does not answer it is on its way until a second request has
/// failed (of two one may carry no entries), each a quarter of a second after a pause of up to one second. What is written
/// while a cut waits is cut by the next one, within as much again.
const LOG_CUT_WITHIN: Duration = Duration::from_secs(5);
/// It looks every second whether the snapshot is too old. The disk may be slow.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(5);
/// The log is cut behind an entry: what is left is less than half by at most so many bytes.
const OF_AN_ENTRY_MAX: u64 = 1024;

/// A daemon's log as it was seen last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    log: LogView,
    of: NodeId,
    /// Since when it holds too many bytes and nothing was cut of them.
    too_large_since: Option<Duration>,
    /// Since when the newest snapshot is the one that it is.
    snapshot_since: Duration,
    /// Since when there is something that the newest snapshot does not cover.
    uncovered_since: Option<Duration>,
    /// What is before this one may be missing, however many entries are to be kept: the log was too large, or a snapshot of
    /// another daemon's was installed.
    excused: u64,
}

/// The most that was seen open on a server, and the daemons' logs.
#[derive(Debug, Default)]
pub struct Bounds {
    /// How the daemons' logs are bounded.
    pub log: LogBounds,
    logs: BTreeMap<String, Seen>,
    /// What is before is in a snapshot that the daemon was sent.
    installed: BTreeMap<String, u64>,
    /// How often a daemon's machine lost power.
    pub power_cuts: usize,
    pub of_daemons: usize,
    pub of_others: usize,
}

impl Bounds {
    /// # Errors
    /// A server on which too many sessions are open.
    pub fn look(&mut self, hosts: &[Host], daemons: usize) -> Result<(), String> {
        for host in hosts {
            let (of_daemons, of_others) = host.look(sessions);
            self.of_daemons = self.of_daemons.max(of_daemons);
            self.of_others = self.of_others.max(of_others);
            let limits = [
                (
                    of_daemons,
                    OF_A_DAEMON_MAX * daemons.max(3) + LEFT_BEHIND_MAX * self.power_cuts,
                    "of daemons",
                ),
                (
                    of_others,
                    OF_APPLICATIONS_MAX + OF_A_REPLICA_MAX * hosts.len(),
                    "of replicas and applications",
                ),
            ];
            for (count, most, whose) in limits {
                if count > most {
                    return Err(format!(
                        "bounds: {} has {count} sessions {whose}, at most {most} make sense",
                        host.key()
                    ));
                }
            }
        }
        Ok(())
    }

    /// A daemon was sent a snapshot of this position.
    pub fn installed(&mut self, daemon: &str, at: LogPosition) {
        self.installed.insert(daemon.to_owned(), at.index + 1);
    }

    /// # Errors
    /// A log that is too large for too long or that was cut too far, or a snapshot that is too old.
    pub fn look_at_logs(&mut self, at: Duration, daemons: &[DaemonView]) -> Result<(), String> {
        // Of those that are down or frozen nothing is known, and nothing is demanded.
        let before = std::mem::take(&mut self.logs);
        for daemon in daemons {
            let seen = before
                .get(&daemon.name)
                .filter(|seen| (seen.of, seen.log.boot) == (daemon.node, daemon.log.boot));
            let seen = match seen {
                Some(seen) => self.look_again(at, daemon, seen)?,
                None => Seen {
                    log: daemon.log,
                    of: daemon.node,
                    too_large_since: None,
                    snapshot_since: at,
                    uncovered_since: None,
                    excused: daemon.log.first,
                },
            };
            self.logs.insert(daemon.name.clone(), seen);
        }
        Ok(())
    }

    fn look_again(&self, at: Duration, daemon: &DaemonView, before: &Seen) -> Result<Seen, String> {
        let mut seen = Seen {
            log: daemon.log,
            ..*before
        };
        self.look_at_cut(daemon, before, &mut seen)?;
        self.look_at_bytes(at, daemon, before, &mut seen)?;
        self.look_at_snapshot(at, daemon, before, &mut seen)?;
        Ok(seen)
    }

    fn look_at_cut(
        &self,
        daemon: &DaemonView,
        before: &Seen,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let (name, now, bounds) = (&daemon.name, daemon.log, self.log);
        // What was cut when it was last looked: of a snapshot that it was sent one hears a moment after the log was cut.
        let installed = self.installed.get(name).copied().unwrap_or_default();
        let cut = before.log.first;
        let is_near = cut <= now.snapshot_end && cut + bounds.keep_entries > now.snapshot_end;
        if cut > before.excused.max(installed) && is_near {
            return Err(format!(
                "bounds: {name} cut its log up to {cut}, with a snapshot up to {}: {} entries are kept behind it",
                now.snapshot_end, bounds.keep_entries
            ));
        }
        // What came and was cut between two looks was not seen: the log held no more than what it held then and holds now,
        // unless of what came something is cut already.
        let may_have_been_too_large = before.log.bytes > bounds.bytes_max / 2
            || before.log.bytes + now.bytes > bounds.bytes_max
            || now.first > before.log.end;
        if now.first > before.log.first && may_have_been_too_large {
            seen.excused = now.first;
            let is_near = now.first + bounds.keep_entries > now.snapshot_end;
            // What another leader took back was not cut.
            let is_whole = now.end >= before.log.end;
            if is_near
                && is_whole
                && now.first > installed
                && now.bytes + OF_AN_ENTRY_MAX < bounds.bytes_max / 2
            {
                return Err(format!(
                    "bounds: {name} cut its log to {} bytes; it may hold {}, and keeps half of it",
                    now.bytes, bounds.bytes_max
                ));
            }
        }
        Ok(())
    }

    fn look_at_bytes(
        &self,
        at: Duration,
        daemon: &DaemonView,
        before: &Seen,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let (name, now, bounds) = (&daemon.name, daemon.log, self.log);
        // Who hears no leader has entries that are committed nowhere, and cuts none of them.
        let is_too_large = now.bytes > bounds.bytes_max && daemon.hears_leader;
        let since = before
            .too_large_since
            .filter(|_| now.first == before.log.first);
        seen.too_large_since = is_too_large.then(|| since.unwrap_or(at));
        if let Some(since) = seen.too_large_since
            && at > since + LOG_CUT_WITHIN
        {
            return Err(format!(
                "bounds: the log of {name} holds {} bytes, more than {} for {} ms, and is not cut",
                now.bytes,
                bounds.bytes_max,
                at.saturating_sub(since).as_millis()
            ));
        }
        Ok(())
    }

    fn look_at_snapshot(
        &self,
        at: Duration,
        daemon: &DaemonView,
        before: &Seen,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let (name, now, bounds) = (&daemon.name, daemon.log, self.log);
        if now.snapshot_end != before.log.snapshot_end {
            seen.snapshot_since = at;
        }
        let is_uncovered = now.applied_end > now.snapshot_end;
        seen.uncovered_since = is_uncovered.then(|| seen.uncovered_since.unwrap_or(at));
        if let Some(since) = seen.uncovered_since
            && at > since.max(seen.snapshot_since + bounds.snapshot_age_max) + SNAPSHOT_WITHIN
        {
            return Err(format!(
                "bounds: the snapshot of {name} is {} ms old, and is to be made anew after {} ms",
                at.saturating_sub(seen.snapshot_since).as_millis(),
                bounds.snapshot_age_max.as_millis()
            ));
        }
        Ok(())
    }
}

/// The daemons' and the others'.
fn sessions(server: &Server) -> (usize, usize) {
    let (daemons, others): (Vec<_>, Vec<_>) = server
        .accounts()
        .partition(|account| matches!(account, Account::Orchestrator));
    (daemons.len(), others.len())
}
