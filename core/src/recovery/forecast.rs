//! What would become of a cluster if its primary died at this moment: who would be promoted, what would be lost, which
//! rights are missing, or why nothing would be done. Nothing is changed and nobody is asked.
//!
//! The choice is the one that a recovery makes ([`super::candidate::choose`]), on readings that are up to a poll old.
//! Where they contradict each other only because they were taken at different times, replicas that are receiving count
//! as holding the same: by the time they are halted they do.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    candidate::{Choice, Contender, Failed, choose, missing_of},
    dead_primary::semi_sync_refusal,
    kind::unknown_kind,
};
use crate::{
    analysis::{Diagnosis, Filters},
    gtid::GtidSet,
    id::InstanceKey,
    policy::Policy,
    replicated::Replicated,
    time::Now,
    topology::{Instance, MissingPrivilege, ProbeReport, ThreadState},
};

/// What is known beside the servers themselves.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub now: Now,
    pub replicated: &'a Replicated,
    pub diagnosis: &'a Diagnosis,
    /// Of the policy in force.
    pub filters: &'a Filters,
}

/// What would become of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    pub cluster_name: String,
    pub cluster_alias: String,
    pub primary: InstanceKey,
    /// Who would be promoted, if anything were done.
    pub candidate: Option<InstanceKey>,
    /// What decides between the candidate and each other replica.
    pub because: Vec<String>,
    /// What would be lost by it, as far as the readings tell.
    pub losses: Vec<String>,
    /// Rights that our account lacks on the primary and its replicas.
    pub missing_rights: Vec<(InstanceKey, MissingPrivilege)>,
    /// Why nothing would be done; empty if a recovery would begin.
    pub obstacles: Vec<String>,
}

impl Forecast {
    #[must_use]
    pub fn would_fail_over(&self) -> bool {
        self.obstacles.is_empty() && self.candidate.is_some()
    }
}

/// Foretells the failover from `primary` to one of `replicas`: all that name it as their source.
#[must_use]
pub fn forecast(primary: &Instance, replicas: &[&Instance], known: Known<'_>) -> Forecast {
    let cluster_name = primary.place.cluster_name.clone();
    let record = known.replicated.cluster_named(&cluster_name);
    let cluster_alias = record.map_or_else(
        || cluster_name.clone(),
        |record| String::from(record.alias_or_name()),
    );
    let policy = known.replicated.policy();
    let mut forecast = Forecast {
        obstacles: obstacles(primary, replicas, &cluster_name, &cluster_alias, known),
        cluster_name,
        cluster_alias,
        primary: primary.key.clone(),
        ..Forecast::default()
    };
    for instance in [primary].iter().chain(replicas) {
        let missing = instance
            .report
            .iter()
            .flat_map(|report| &report.missing_privileges);
        forecast
            .missing_rights
            .extend(missing.map(|missing| (instance.key.clone(), missing.clone())));
    }
    let (read, unread): (Vec<&Instance>, Vec<&Instance>) = replicas
        .iter()
        .partition(|replica| replica.is_last_check_valid() && replica.report.is_some());
    if !unread.is_empty() {
        let names: Vec<String> = unread
            .iter()
            .map(|replica| replica.key.to_string())
            .collect();
        let loss = format!("cannot be read, may hold more: {}", names.join(", "));
        if policy.refuse_lossy {
            forecast.obstacles.push(format!(
                "possible loss and RefuseLossyPromotion is set: {loss}"
            ));
        }
        forecast.losses.push(loss);
    }
    let failed = Failed {
        report: primary.report.as_deref(),
    };
    match decide(&read, failed, policy, known) {
        Choice::Refuse { reason } => forecast.obstacles.push(reason),
        Choice::Promote {
            candidate,
            because,
            cannot_follow,
            ..
        } => {
            let report = read
                .iter()
                .find(|replica| replica.key == candidate)
                .and_then(|replica| replica.report.as_deref());
            if let Some(missing) = failed
                .report
                .zip(report)
                .and_then(|(failed, report)| missing_of(failed, report))
            {
                forecast.losses.push(format!(
                    "{missing} transaction(s) of the primary were not on {candidate} when the two were last read"
                ));
            }
            forecast.losses.extend(
                cannot_follow
                    .into_iter()
                    .map(|(key, why)| format!("{key} could not follow {candidate}: {why}")),
            );
            forecast.losses.push(String::from(
                "replication is asynchronous: what the primary acknowledged and no replica received",
            ));
            forecast.because = because;
            forecast.candidate = Some(candidate);
        }
    }
    forecast
}

/// Why no recovery would begin, whoever could be promoted.
fn obstacles(
    primary: &Instance,
    replicas: &[&Instance],
    cluster_name: &str,
    cluster_alias: &str,
    known: Known<'_>,
) -> Vec<String> {
    let Known {
        now,
        replicated,
        diagnosis,
        filters,
    } = known;
    let policy = replicated.policy();
    let mut obstacles = Vec::new();
    if !replicated.are_recoveries_enabled() {
        obstacles.push(String::from("recoveries are disabled globally"));
    }
    if policy.observe_only {
        obstacles.push(String::from("ObserveOnly is set"));
    }
    if !filters.recover_primary.matches(cluster_name, cluster_alias) {
        obstacles.push(String::from(
            "the cluster matches no RecoverMasterClusterFilters",
        ));
    }
    if filters.recovery_ignore.matches_host(&primary.key.host) {
        obstacles.push(format!(
            "{} matches RecoveryIgnoreHostnameFilters",
            primary.key
        ));
    }
    if replicated.downtime_of(&primary.key, now.wall).is_some() {
        obstacles.push(format!("{} is in a downtime", primary.key));
    }
    if replicated.maintenance_of(&primary.key, now.wall).is_some() {
        obstacles.push(format!("{} is in maintenance", primary.key));
    }
    if primary
        .identity()
        .is_some_and(|identity| replicated.is_deposed(identity))
    {
        obstacles.push(format!(
            "{} was deposed; its cluster has another primary",
            primary.key
        ));
    }
    if let Some(record) = replicated.cluster_of(&primary.key) {
        if let Some(recovery) = replicated.running_on(record.key) {
            obstacles.push(format!("recovery {} is running", recovery.uid));
        }
        if let Some((recovery, until)) = replicated.cool_down_of(record.key, now.wall) {
            obstacles.push(format!(
                "the cluster cools down after recovery {} until {until}, unless it is acknowledged",
                recovery.uid
            ));
        }
    }
    let failed = (&primary.key, primary.report.as_deref());
    let replicas = replicas
        .iter()
        .filter_map(|replica| Some((&replica.key, replica.report.as_deref()?)));
    let unknown = unknown_kind(failed, replicas.clone());
    obstacles.extend(unknown.or_else(|| semi_sync_refusal(failed, replicas)));
    if let Some(problem) = diagnosis.problem(&primary.key)
        && let Some((seeing, daemons)) = problem.evidence.daemons_seeing
        && seeing < votes_needed(policy, daemons)
    {
        obstacles.push(format!(
            "{seeing} of {daemons} daemons can see {}, and {} must agree that it is dead",
            primary.key,
            votes_needed(policy, daemons)
        ));
    }
    obstacles
}

fn votes_needed(policy: &Policy, daemons: u32) -> u32 {
    match policy.witness_quorum {
        0 => daemons / 2 + 1,
        quorum => quorum.clamp(1, daemons.max(1)),
    }
}

fn decide(read: &[&Instance], failed: Failed<'_>, policy: &Policy, known: Known<'_>) -> Choice {
    let reports: Vec<&ProbeReport> = read
        .iter()
        .filter_map(|replica| replica.report.as_deref())
        .collect();
    let choice = choose(&contenders(read, &reports, known), failed, policy);
    let Choice::Refuse { .. } = choice else {
        return choice;
    };
    let level = leveled(&reports);
    let level: Vec<&ProbeReport> = level.iter().collect();
    choose(&contenders(read, &level, known), failed, policy)
}

fn contenders<'a>(
    read: &[&'a Instance],
    reports: &[&'a ProbeReport],
    known: Known<'_>,
) -> Vec<Contender<'a>> {
    let Known {
        now,
        replicated,
        filters,
        ..
    } = known;
    read.iter()
        .zip(reports)
        .map(|(replica, report)| {
            let rule = replicated
                .rule_of(&replica.key, now.wall)
                .or_else(|| replica.suggested_rule())
                .unwrap_or_default();
            let is_downtimed = replicated
                .downtime_of(&replica.key, now.wall)
                .is_some_and(|downtime| !downtime.is_lost_in_recovery());
            Contender {
                key: &replica.key,
                report,
                rule,
                ignored: filters.promotion_ignore.matches_host(&replica.key.host),
                is_downtimed,
                passed_over: None,
            }
        })
        .collect()
}

/// The same reports with what any receiving replica holds received by all of them.
fn leveled(reports: &[&ProbeReport]) -> Vec<ProbeReport> {
    let is_receiving = |report: &ProbeReport| {
        report
            .replication
            .as_ref()
            .is_some_and(|status| status.io == ThreadState::Running)
    };
    let together = reports
        .iter()
        .filter(|report| is_receiving(report))
        .filter_map(|report| report.held_from_source())
        .fold(None, |together: Option<GtidSet>, held| match together {
            None => Some(held),
            Some(together) => together.union(&held).ok().or(Some(together)),
        });
    reports
        .iter()
        .map(|report| {
            let mut report = (*report).clone();
            if is_receiving(&report)
                && let Some(status) = report.replication.as_mut()
                && let Some(together) = &together
            {
                status.received = Some(together.clone());
            }
            report
        })
        .collect()
}
