//! What is known about one server and those that replicate from it, counted once.
//!
//! [`gather`] is the only place where probe facts, their ages and what was decided about servers (downtimes, stale
//! log positions) come together; the rules read nothing but the [`Evidence`] it returns and the policy. It judges
//! nothing. What was never read is unknown: a comparison with it does not hold, and it adds to no count.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::time::Duration;

use super::{filters::Filters, verdict};
use crate::{
    id::{Identity, InstanceKey},
    policy::Policy,
    time::{Mono, Now, Wall},
    topology::{
        BinlogCoordinates, Flavour, Instance, ProbeFailure, ProbeReport, SemiSync, ThroughFence,
        UsingGtid,
    },
};

/// Where a server's log stood when it was first seen to stand still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleCoordinates {
    pub coordinates: BinlogCoordinates,
    pub first_seen: Mono,
}

/// What judging needs to know beside the probes: supplied by whoever holds it, without copying.
pub trait Context {
    /// The end of the server's active downtime.
    fn downtime_end(&self, _key: &InstanceKey) -> Option<Wall> {
        None
    }

    /// The server has an active maintenance entry, whatever its end.
    fn is_in_maintenance(&self, _key: &InstanceKey) -> bool {
        false
    }

    /// Where the server's log was noted to stand still.
    fn stale_coordinates(&self, _key: &InstanceKey) -> Option<&StaleCoordinates> {
        None
    }

    /// The alias of a cluster.
    fn cluster_alias(&self, _cluster_name: &str) -> Option<&str> {
        None
    }

    /// The domain name of a cluster.
    fn cluster_domain(&self, _cluster_name: &str) -> Option<&str> {
        None
    }

    /// The name that replicas of this host state as their source's, where that is another name.
    fn resolved_host(&self, _host: &str) -> Option<&str> {
        None
    }

    /// Pseudo-GTID entries are written on this server.
    fn uses_pseudo_gtid(&self, _key: &InstanceKey) -> bool {
        false
    }

    /// The replica claims to replicate, but what it received and the heartbeats it counted stood still since its
    /// source's last sign of life (`FAILOVER.md` section 1): it counts as not replicating.
    fn is_standing_still(&self, _replica: &InstanceKey) -> bool {
        false
    }

    /// How many daemons can see the server, of how many; none while all can.
    fn daemons_seeing(&self, _key: &InstanceKey) -> Option<(u32, u32)> {
        None
    }

    /// The primary of the cluster in which a recovery replaced this server; none where none did.
    fn primary_in_place_of(&self, _replaced: &Identity) -> Option<&InstanceKey> {
        None
    }

    /// Replication was just restarted on the server's replicas by ourselves.
    fn is_in_grace(&self, _key: &InstanceKey) -> bool {
        false
    }
}

/// Nothing was decided about any server.
impl Context for () {}

/// What one round of judging goes by.
pub struct Judging<'a, C: Context + ?Sized> {
    pub policy: &'a Policy,
    /// Of the same policy.
    pub filters: &'a Filters,
    pub context: &'a C,
    pub now: Now,
}

impl<C: Context + ?Sized> Clone for Judging<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Context + ?Sized> Copy for Judging<'_, C> {}

/// All counts and facts that the rules go by; in parentheses the member of the HTTP API's `ReplicationAnalysis`.
/// *Valid* is a server whose newest completed probe succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The server's newest report, for what is shown and never counted. None: it never answered this node.
    pub report: Option<Arc<ProbeReport>>,
    /// When it last answered; none if it never did.
    pub seen: Option<Mono>,
    /// (`IsMaster`): names no source, or a detached one, and is no secondary of a group. A server that never answered
    /// names none.
    pub is_primary: bool,
    /// (`IsReplicationGroupMember`)
    pub is_group_member: bool,
    /// (`IsCoMaster`): by itself or by one of its replicas.
    pub is_co_primary: bool,
    /// (`LastCheckValid`): the newest completed probe succeeded, and no probe has hung since.
    pub last_check_valid: bool,
    /// (`LastCheckPartialSuccess`)
    pub last_check_partial_success: bool,
    /// (`IsFailingToConnectToMaster`), by its newest report, however old.
    pub is_failing_to_connect: bool,
    /// (`IsBinlogServer`)
    pub is_binlog_server: bool,
    /// (`IsReadOnly`)
    pub is_read_only: bool,
    /// (`ReplicationDepth`)
    pub depth: u32,
    /// The newest probe was answered with an error that only a server gives that has too many clients.
    pub is_overloaded: bool,
    /// How many daemons can see it, of how many; none while all can.
    pub daemons_seeing: Option<(u32, u32)>,
    /// The primary of its cluster, which a recovery put in its place.
    pub replaced_by: Option<InstanceKey>,
    /// The same of one that takes writes all the same.
    pub other_primary: Option<InstanceKey>,
    /// Its log stands where it was noted to stand, for longer than the policy allows a semi-sync source.
    pub is_stale: bool,

    /// (`CountReplicas`)
    pub replicas: u32,
    /// (`CountValidReplicas`)
    pub valid_replicas: u32,
    /// (`CountValidReplicatingReplicas`)
    pub replicating_replicas: u32,
    /// (`CountReplicasFailingToConnectToMaster`), valid ones
    pub failing_to_connect_replicas: u32,
    /// (`CountLaggingReplicas`): by the last lag read, configured delay included; valid or not.
    pub lagging_replicas: u32,
    /// (`CountDelayedReplicas`)
    pub delayed_replicas: u32,
    /// (`CountDowntimedReplicas`)
    pub downtimed_replicas: u32,
    /// Valid replicas by how they find their place; they make (`OracleGTIDImmediateTopology`),
    /// (`MariaDBGTIDImmediateTopology`) and (`BinlogServerImmediateTopology`).
    pub oracle_gtid_replicas: u32,
    pub mariadb_gtid_replicas: u32,
    pub binlog_server_replicas: u32,
    /// (`PseudoGTIDImmediateTopology`): the server's own flag.
    pub uses_pseudo_gtid: bool,
    /// (`CountLoggingReplicas`): log what they apply; valid or not.
    pub logging_replicas: u32,
    /// (`CountStatementBasedLoggingReplicas`)
    pub statement_replicas: u32,
    /// (`CountMixedBasedLoggingReplicas`)
    pub mixed_replicas: u32,
    /// (`CountRowBasedLoggingReplicas`)
    pub row_replicas: u32,
    /// (`CountDistinctMajorVersionsLoggingReplicas`)
    pub major_versions: u32,
    /// (`CountSemiSyncReplicasEnabled`)
    pub semi_sync_replicas: u32,
    /// (`MinReplicaGTIDMode`), as text
    pub gtid_mode_min: String,
    /// (`MaxReplicaGTIDMode`), as text
    pub gtid_mode_max: String,
    /// (`MaxReplicaGTIDErrant`): greatest text among replicas without a downtime; empty for none.
    pub errant_max: String,

    /// (`IsDowntimed`)
    pub is_downtimed: bool,
    /// (`DowntimeEndTimestamp`)
    pub downtime_end: Option<Wall>,

    /// Without any news, the evidence stays as it is until one of these instants.
    pub stands_until: (Option<Mono>, Option<Wall>),
}

impl Evidence {
    /// (`GTIDMode`); none when it was never read.
    #[must_use]
    pub fn gtid_mode(&self) -> Option<&str> {
        self.report.as_ref().map(|report| report.gtid_mode.as_str())
    }

    /// (`SemiSyncMasterEnabled`, `...Status`, `...WaitForReplicaCount`, `...Clients`)
    #[must_use]
    pub fn semi_sync(&self) -> Option<&SemiSync> {
        self.report.as_ref().map(|report| &report.semi_sync)
    }

    /// (`OracleGTIDImmediateTopology`)
    #[must_use]
    pub const fn all_use_oracle_gtid(&self) -> bool {
        self.valid_replicas > 0 && self.oracle_gtid_replicas == self.valid_replicas
    }

    /// (`MariaDBGTIDImmediateTopology`)
    #[must_use]
    pub const fn all_use_mariadb_gtid(&self) -> bool {
        self.valid_replicas > 0 && self.mariadb_gtid_replicas == self.valid_replicas
    }

    /// (`BinlogServerImmediateTopology`)
    #[must_use]
    pub const fn all_are_binlog_servers(&self) -> bool {
        self.valid_replicas > 0 && self.binlog_server_replicas == self.valid_replicas
    }

    /// (`DowntimeRemainingSeconds`), as the wire has it: negative while the downtime lasts, 0 without one.
    #[must_use]
    pub fn downtime_remaining_s(&self, now: Wall) -> i64 {
        let seconds = |wall: Wall| i64::try_from(wall.secs()).unwrap_or(i64::MAX);
        self.downtime_end
            .map_or(0, |end| seconds(now).saturating_sub(seconds(end)))
    }

    /// Our account lacks rights there.
    #[must_use]
    pub fn lacks_privileges(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| !report.missing_privileges.is_empty())
    }

    /// It refused statements of the probe.
    #[must_use]
    pub fn refuses_queries(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| !report.refused.is_empty())
    }

    /// Clients of this primary could go on writing when it is fenced. Of replicas it is told once they are promoted: their
    /// accounts are the primary's.
    #[must_use]
    pub fn has_unfenceable_users(&self) -> bool {
        let has = |report: &Arc<ProbeReport>| {
            matches!(report.through_fence, ThroughFence::Accounts { .. })
        };
        self.is_primary && self.report.as_ref().is_some_and(has)
    }

    /// Servers replicate from it, though a recovery replaced it.
    #[must_use]
    pub const fn is_followed_though_replaced(&self) -> bool {
        self.replaced_by.is_some() && self.replicating_replicas > 0
    }

    /// Something about the server or its replicas is worth an entry (`ReduceReplicationAnalysisCount`).
    #[must_use]
    pub fn is_of_interest(&self) -> bool {
        !self.last_check_valid
            || self.is_failing_to_connect
            || self.replicas > 0
            || self.lacks_privileges()
            || self.refuses_queries()
            || self.has_unfenceable_users()
            || self.other_primary.is_some()
    }

    fn stand_until_wall(&mut self, end: Wall) {
        let (_, until) = &mut self.stands_until;
        *until = Some(until.map_or(end, |until| until.min(end)));
    }
}

/// Counts what is known of `server` and `replicas`: all that name it as their source.
pub fn gather<'a, C: Context + ?Sized>(
    server: &Instance,
    replicas: impl IntoIterator<Item = &'a Instance>,
    judging: Judging<'_, C>,
) -> Evidence {
    let Judging {
        policy,
        context,
        now,
        ..
    } = judging;
    let report = server.report.as_deref();
    let group = report
        .and_then(|report| report.group.as_ref())
        .filter(|group| !group.name.is_empty());
    let replaced_by = server
        .identity()
        .filter(|_| server.is_last_check_valid())
        .and_then(|identity| context.primary_in_place_of(identity))
        .filter(|primary| **primary != server.key)
        .cloned();
    let mut evidence = Evidence {
        report: server.report.clone(),
        seen: server.seen,
        is_primary: server.source().is_none_or(InstanceKey::is_detached)
            && group.is_none_or(|group| group.role == "PRIMARY"),
        is_group_member: group.is_some_and(|group| group.state != "OFFLINE"),
        is_co_primary: server.place.is_co_primary,
        last_check_valid: server.is_last_check_valid()
            && is_probed_in_time(server, policy.poll + policy.reasonable_check),
        last_check_partial_success: server.partial_success,
        is_failing_to_connect: is_failing_to_connect(report),
        is_binlog_server: is_binlog_server(report),
        is_read_only: server.read_only(),
        depth: server.place.depth,
        is_overloaded: matches!(
            &server.failure,
            Some(ProbeFailure::ServerError { code, .. }) if verdict::is_overload(*code)
        ),
        daemons_seeing: context.daemons_seeing(&server.key),
        other_primary: replaced_by.clone().filter(|_| !server.read_only()),
        replaced_by,
        uses_pseudo_gtid: context.uses_pseudo_gtid(&server.key),
        downtime_end: context.downtime_end(&server.key),
        ..Evidence::default()
    };
    if let Some(end) = evidence.downtime_end.filter(|end| *end > now.wall) {
        evidence.is_downtimed = true;
        evidence.stand_until_wall(end);
    }
    note_staleness(&mut evidence, server, judging);

    let mut major_versions: Vec<(u32, u32)> = Vec::new();
    let mut gtid_modes: Option<(&str, &str)> = None;
    let mut errant_max = "";
    for replica in replicas {
        let downtime_end = context
            .downtime_end(&replica.key)
            .filter(|end| *end > now.wall);
        evidence.replicas += 1;
        evidence.is_co_primary |= replica.place.is_co_primary;
        if let Some(end) = downtime_end {
            evidence.downtimed_replicas += 1;
            evidence.stand_until_wall(end);
        } else {
            errant_max = errant_max.max(&replica.place.errant);
        }
        let Some(report) = replica.report.as_deref() else {
            continue;
        };
        if replica.is_last_check_valid() {
            evidence.valid_replicas += 1;
            count_valid(&mut evidence, replica, report, context);
        }
        if report
            .lag_s()
            .is_some_and(|lag_s| Duration::from_secs(lag_s) > policy.reasonable_lag)
        {
            evidence.lagging_replicas += 1;
        }
        if report
            .replication
            .as_ref()
            .is_some_and(|status| status.sql_delay_s > 0)
        {
            evidence.delayed_replicas += 1;
        }
        if report.semi_sync.replica_enabled {
            evidence.semi_sync_replicas += 1;
        }
        let mode = report.gtid_mode.as_str();
        gtid_modes =
            Some(gtid_modes.map_or((mode, mode), |(min, max)| (min.min(mode), max.max(mode))));
        if report.log_bin && report.log_replica_updates {
            count_logging(&mut evidence, report);
            if !major_versions.contains(&report.version.major()) {
                major_versions.push(report.version.major());
            }
        }
    }
    evidence.major_versions = u32::try_from(major_versions.len()).unwrap_or(u32::MAX);
    if let Some((min, max)) = gtid_modes {
        evidence.gtid_mode_min = String::from(min);
        evidence.gtid_mode_max = String::from(max);
    }
    evidence.errant_max = String::from(errant_max);
    evidence
}

/// No probe began later than `patience` after the last answer: none hangs.
fn is_probed_in_time(server: &Instance, patience: Duration) -> bool {
    matches!((server.attempted, server.seen), (Some(attempted), Some(seen)) if attempted <= seen + patience)
}

fn is_failing_to_connect(report: Option<&ProbeReport>) -> bool {
    report
        .and_then(|report| report.replication.as_ref())
        .is_some_and(|status| status.is_failing_to_connect())
}

fn is_binlog_server(report: Option<&ProbeReport>) -> bool {
    report.is_some_and(|report| report.flavour == Flavour::MaxScale)
}

fn note_staleness<C: Context + ?Sized>(
    evidence: &mut Evidence,
    server: &Instance,
    judging: Judging<'_, C>,
) {
    let Some(stale) = judging.context.stale_coordinates(&server.key) else {
        return;
    };
    let current = server
        .report
        .as_ref()
        .and_then(|report| report.binlog.as_ref());
    if current != Some(&stale.coordinates) {
        return;
    }
    let patience = if judging.policy.reasonable_locked_semi_sync.is_zero() {
        judging.policy.reasonable_lag
    } else {
        judging.policy.reasonable_locked_semi_sync
    };
    evidence.is_stale = judging.now.mono.since(stale.first_seen) > patience;
    if !evidence.is_stale {
        evidence.stands_until.0 = Some(stale.first_seen + patience + Duration::from_nanos(1));
    }
}

fn count_valid<C: Context + ?Sized>(
    evidence: &mut Evidence,
    replica: &Instance,
    report: &ProbeReport,
    context: &C,
) {
    if is_binlog_server(Some(report)) {
        evidence.binlog_server_replicas += 1;
    }
    let Some(status) = report.replication.as_ref() else {
        return;
    };
    if status.is_running() && !context.is_standing_still(&replica.key) {
        evidence.replicating_replicas += 1;
    }
    if status.is_failing_to_connect() {
        evidence.failing_to_connect_replicas += 1;
    }
    if status.auto_position {
        evidence.oracle_gtid_replicas += 1;
    }
    if status.using_gtid != UsingGtid::No {
        evidence.mariadb_gtid_replicas += 1;
    }
}

fn count_logging(evidence: &mut Evidence, report: &ProbeReport) {
    evidence.logging_replicas += 1;
    match report.binlog_format.as_str() {
        "STATEMENT" => evidence.statement_replicas += 1,
        "MIXED" => evidence.mixed_replicas += 1,
        "ROW" => evidence.row_replicas += 1,
        // A binlog server passes on whatever format its source has.
        _ => {}
    }
}
