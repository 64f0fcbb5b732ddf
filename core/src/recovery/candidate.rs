//! Who is promoted: by what each replica holds first, by preference second (`FAILOVER.md` sections 3 and 4).
//!
//! A preference never costs a received transaction. Every tie-break is named in [`TIE_BREAKS`] and goes into the
//! audit; the last one is the key, so that the choice is total.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use core::cmp::Ordering;

use crate::{
    gtid::{GtidSet, MariadbGtidSet, SetOrder},
    id::InstanceKey,
    policy::Policy,
    topology::{Classification, Flavour, ProbeReport, PromotionRule, Purpose, ThreadState},
};

/// The order of preference among replicas that hold the same, best first.
pub const TIE_BREAKS: [&str; 10] = [
    "no errant transaction",
    "not in a downtime",
    "promotion rule",
    "same data center as the failed primary",
    "same physical environment",
    "same region",
    "lower major version",
    "binary log format closest to STATEMENT",
    "least left to apply",
    "host and port",
];

/// A halted replica, as it was read after its IO thread was stopped.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    pub key: &'a InstanceKey,
    pub report: &'a ProbeReport,
    pub rule: PromotionRule,
    /// Its host matches `PromotionIgnoreHostnameFilters`.
    pub ignored: bool,
    /// People are at work there: at best it counts as one with the rule `prefer_not`.
    pub is_downtimed: bool,
    /// Why it was given up earlier in the same recovery.
    pub passed_over: Option<&'a str>,
}

impl Contender<'_> {
    fn effective_rule(&self) -> PromotionRule {
        if self.is_downtimed {
            self.rule.max(PromotionRule::PreferNot)
        } else {
            self.rule
        }
    }
}

/// What is known of the failed primary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failed<'a> {
    pub report: Option<&'a ProbeReport>,
}

/// What the choice came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Promote {
        candidate: InstanceKey,
        /// Others that hold the same and may be promoted instead, best first.
        equals: Vec<InstanceKey>,
        /// Replicas that hold what the candidate lacks although it does not count (errant), or that cannot follow.
        cannot_follow: Vec<(InstanceKey, String)>,
        /// What decided, and against whom.
        because: Vec<String>,
    },
    /// Promoting anybody would lose what somebody received, or nobody may be promoted: nothing is changed.
    Refuse { reason: String },
}

/// Chooses among halted replicas. `unread` were not halted or not read: they can be neither candidate nor counted.
#[must_use]
pub fn choose(contenders: &[Contender<'_>], failed: Failed<'_>, policy: &Policy) -> Choice {
    let mut held: BTreeMap<&InstanceKey, GtidSet> = BTreeMap::new();
    let mut errant: BTreeMap<&InstanceKey, bool> = BTreeMap::new();
    let mut refusals: Vec<String> = Vec::new();
    for contender in contenders {
        let known = contender
            .report
            .held_from_source()
            .filter(|_| contender.report.knows_what_it_holds_of(failed.report));
        match known {
            Some(set) => {
                let (clean, is_errant) = without_errant(contender.report, set, failed);
                held.insert(contender.key, clean);
                errant.insert(contender.key, is_errant);
            }
            None => refusals.push(without_gtid(contender.key)),
        }
    }
    if contenders.is_empty() {
        return Choice::Refuse {
            reason: String::from("no replica could be halted and read"),
        };
    }
    // Positions that are not sets cannot be compared: without GTID everywhere nothing is known about loss.
    if !refusals.is_empty() {
        return Choice::Refuse {
            reason: refusals.join("; "),
        };
    }

    let mut eligible: Vec<&Contender<'_>> = Vec::new();
    for contender in contenders {
        match ineligible(contender, policy, failed) {
            None => eligible.push(contender),
            Some(why) => refusals.push(format!("{} {why}", contender.key)),
        }
    }
    // Holders of everything that any halted replica holds.
    let holds_all = |key: &InstanceKey| {
        held.get(key).is_some_and(|mine| {
            held.values().all(|theirs| {
                matches!(
                    mine.compare(theirs),
                    Ok(SetOrder::Equal | SetOrder::Superset)
                )
            })
        })
    };
    let mut full: Vec<&Contender<'_>> = eligible
        .iter()
        .copied()
        .filter(|contender| holds_all(contender.key))
        .collect();
    if full.is_empty() {
        let holder = contenders.iter().find(|contender| holds_all(contender.key));
        let best = eligible
            .iter()
            .copied()
            .max_by(|a, b| order_of(&held, a.key, b.key).then_with(|| b.key.cmp(a.key)));
        let reason = match (holder, best) {
            (_, None) => format!("no replica may be promoted: {}", refusals.join("; ")),
            (Some(holder), Some(best)) => {
                let missing = missing(&held, best.key, holder.key);
                format!(
                    "{} holds {missing} received transaction(s) that {} lacks, but may not be promoted itself ({}); \
                     a donor that is not the candidate is not supported by this version",
                    holder.key,
                    best.key,
                    ineligible(holder, policy, failed).unwrap_or_default()
                )
            }
            (None, Some(best)) => format!(
                "no single replica holds everything that was received: {}; collecting from several donors is not \
                 supported by this version",
                contenders
                    .iter()
                    .filter_map(|contender| {
                        let lacks = missing(&held, best.key, contender.key);
                        if lacks > 0 {
                            Some(format!(
                                "{} holds {lacks} transaction(s) that {} lacks",
                                contender.key, best.key
                            ))
                        } else if held[best.key].compare(&held[contender.key])
                            == Ok(SetOrder::Diverged)
                        {
                            Some(format!(
                                "{} and {} hold different transactions of one number",
                                best.key, contender.key
                            ))
                        } else {
                            None
                        }
                    })
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        return Choice::Refuse { reason };
    }
    full.sort_by(|a, b| prefer(a, b, &errant, failed).0);

    let candidate = full[0];
    let mut because = Vec::new();
    for other in contenders.iter().filter(|other| other.key != candidate.key) {
        let lacks = missing(&held, other.key, candidate.key);
        let why = if let Some(why) = ineligible(other, policy, failed) {
            format!("not eligible: {why}")
        } else if lacks > 0 {
            format!("lacks {lacks} received transaction(s)")
        } else {
            format!(
                "holds the same; {} decides",
                prefer(candidate, other, &errant, failed).1
            )
        };
        because.push(format!("{} over {}: {why}", candidate.key, other.key));
    }
    let cannot_follow = contenders
        .iter()
        .filter(|other| other.key != candidate.key)
        .filter_map(|other| cannot_replicate(other, candidate).map(|why| (other.key.clone(), why)))
        .collect();
    Choice::Promote {
        candidate: candidate.key.clone(),
        equals: full[1..]
            .iter()
            .map(|contender| contender.key.clone())
            .collect(),
        cannot_follow,
        because,
    }
}

/// Why nothing is decided about this replica, nor about others beside it.
pub(super) fn without_gtid(key: &InstanceKey) -> String {
    format!("{key} does not use GTID, so what it holds is not known")
}

fn order_of(held: &BTreeMap<&InstanceKey, GtidSet>, a: &InstanceKey, b: &InstanceKey) -> Ordering {
    match held[a].compare(&held[b]) {
        Ok(SetOrder::Superset) => Ordering::Greater,
        Ok(SetOrder::Subset) => Ordering::Less,
        Ok(SetOrder::Equal | SetOrder::Diverged) | Err(_) => held[a].count().cmp(&held[b].count()),
    }
}

/// How many transactions `there` holds that `here` lacks.
fn missing(held: &BTreeMap<&InstanceKey, GtidSet>, here: &InstanceKey, there: &InstanceKey) -> u64 {
    held[here].missing_count(&held[there]).unwrap_or(u64::MAX)
}

/// Takes out what cannot have come from the failed primary: on MySQL what carries neither its UUID nor is among what
/// it was last seen to have; so nothing where it was never read, since whatever a replica holds beyond the others may be the
/// primary's of before. MariaDB's [`ProbeReport::held_from_source`] has nothing written locally to begin with.
pub(super) fn without_errant(
    report: &ProbeReport,
    held: GtidSet,
    failed: Failed<'_>,
) -> (GtidSet, bool) {
    let Some(primary) = failed.report else {
        return (held, false);
    };
    match (&held, &primary.executed) {
        (GtidSet::Oracle(set), Some(GtidSet::Oracle(primary_set))) => {
            let Ok(uuid) = primary.server_uuid.parse() else {
                return (held, false);
            };
            let errant = set.subtract(primary_set).without_uuid(uuid);
            let clean = GtidSet::Oracle(set.subtract(&errant));
            (clean, !errant.is_empty())
        }
        (GtidSet::Mariadb(set), Some(GtidSet::Mariadb(_))) => {
            let written_here = !report.written_here_beyond(primary).is_empty();
            let (common, is_foreign) = on_the_line_of(primary, set);
            (GtidSet::Mariadb(common), written_here || is_foreign)
        }
        _ => (held, false),
    }
}

/// MariaDB: a position whose last transaction the primary never had, though it had earlier ones of the same server, is taken
/// back to those: a deposed primary wrote on, and this replica was still attached to it. Its number says nothing of what the
/// primary wrote since, however high it is. Only a primary that was read open counts: one that was to be promoted may have
/// applied more after it was read.
fn on_the_line_of(primary: &ProbeReport, position: &MariadbGtidSet) -> (MariadbGtidSet, bool) {
    let mut common = MariadbGtidSet::new();
    let mut is_foreign = false;
    for (domain, mut last) in position.domains() {
        let known = primary
            .binlog_state
            .iter()
            .find(|known| known.domain == domain.0 && known.server_id == last.server_id.0);
        if let Some(known) = known
            && !primary.read_only
            && last.server_id.0 != primary.server_id
            && known.sequence < last.sequence
        {
            last.sequence = known.sequence;
            is_foreign = true;
        }
        common.advance(domain, last);
    }
    (common, is_foreign)
}

/// MariaDB: both threads are stopped above relay logs that are not applied, and starting either would throw them away (F1).
/// So does somebody's stop of the applier leave it that takes effect while a recovery halts it.
pub(super) fn cannot_apply(report: &ProbeReport) -> Option<String> {
    let status = report.replication.as_ref()?;
    let are_stopped = status.io == ThreadState::Stopped && status.sql == ThreadState::Stopped;
    if report.flavour != Flavour::Mariadb || !are_stopped || !report.has_unapplied() {
        return None;
    }
    Some(format!(
        "holds unapplied relay logs with both threads stopped; salvaging them is not supported by this version: starting either \
         thread would throw them away, unless CHANGE MASTER TO MASTER_USE_GTID=no, RELAY_LOG_FILE='{}', RELAY_LOG_POS={} comes \
         first",
        status.relay.file, status.relay.position
    ))
}

fn is_needed_in_a_recovery(purpose: Purpose) -> bool {
    match purpose {
        Purpose::Halt | Purpose::Fence | Purpose::Promote | Purpose::Kill => true,
        // Without the rights to read it at all there is no report; without the others less is known of it, and it can be
        // promoted and closed again. A repoint leaves credentials as they are.
        Purpose::Probe | Purpose::Credentials => false,
    }
}

/// Why a replica may not be promoted; none if it may.
#[must_use]
pub fn ineligible(
    contender: &Contender<'_>,
    policy: &Policy,
    failed: Failed<'_>,
) -> Option<String> {
    let report = contender.report;
    let replication = report.replication.as_ref();
    if let Some(why) = contender.passed_over {
        return Some(format!("was passed over: {why}"));
    }
    if contender.rule == PromotionRule::MustNot {
        return Some(String::from("has promotion rule must_not"));
    }
    if contender.ignored {
        return Some(String::from("matches PromotionIgnoreHostnameFilters"));
    }
    if !report.log_bin {
        return Some(String::from("has no binary log"));
    }
    if !report.log_replica_updates {
        return Some(String::from(
            "does not log replicated changes (log_slave_updates)",
        ));
    }
    if !report.other_channels.is_empty() {
        return Some(format!(
            "replicates on other channels too ({})",
            report.other_channels.join(", ")
        ));
    }
    if report.galera {
        return Some(String::from("is a Galera node"));
    }
    if report
        .group
        .as_ref()
        .is_some_and(|group| !group.name.is_empty() && group.state != "OFFLINE")
    {
        return Some(String::from("is a member of a replication group"));
    }
    if let Some(why) = cannot_apply(report) {
        return Some(why);
    }
    if let Some(status) = replication
        && status.sql_delay_s > 0
    {
        return Some(format!("is delayed by {} s", status.sql_delay_s));
    }
    if let Some(status) = replication
        && status.sql_errno != 0
        && status.sql != ThreadState::Running
    {
        return Some(format!(
            "stopped applying on error {}: {}",
            status.sql_errno, status.sql_error
        ));
    }
    if replication.is_some_and(|status| status.has_filters) {
        return Some(String::from("has replication filters"));
    }
    // It may have to be fenced or rid of its clients one day, too.
    let lacking: Vec<String> = report
        .missing_privileges
        .iter()
        .filter(|missing| is_needed_in_a_recovery(missing.purpose))
        .map(|missing| format!("to {}: {}", missing.purpose, missing.grant))
        .collect();
    if !lacking.is_empty() {
        return Some(format!("lacks a right needed {}", lacking.join("; ")));
    }
    if report.flavour == Flavour::MaxScale {
        return Some(String::from("is a binlog server"));
    }
    if let Some(why) = crosses(report, failed, policy) {
        return Some(why);
    }
    if !policy.fail_promotion_on_lag.is_zero() {
        match report.lag_s() {
            Some(lag) if lag < policy.fail_promotion_on_lag.as_secs() => {}
            Some(lag) => return Some(format!("lags by {lag} s (FailMasterPromotionOnLagMinutes)")),
            None => {
                return Some(String::from(
                    "has an unknown lag (FailMasterPromotionOnLagMinutes)",
                ));
            }
        }
    }
    if policy.fail_promotion_if_not_applied && report.has_unapplied() {
        return Some(String::from(
            "has not applied what it received (FailMasterPromotionIfSQLThreadNotUpToDate)",
        ));
    }
    None
}

/// Why a promotion would leave the place that the failed primary was in, or may, where that is not allowed.
fn crosses(report: &ProbeReport, failed: Failed<'_>, policy: &Policy) -> Option<String> {
    let places: [(bool, &str, &str, fn(&Classification) -> &String); 2] = [
        (
            policy.prevent_cross_data_center,
            "data center",
            "PreventCrossDataCenterMasterFailover",
            |place| &place.data_center,
        ),
        (
            policy.prevent_cross_region,
            "region",
            "PreventCrossRegionMasterFailover",
            |place| &place.region,
        ),
    ];
    places
        .into_iter()
        .filter(|(is_asked, ..)| *is_asked)
        .find_map(|(_, what, key, of)| match failed.report {
            None => Some(format!(
                "may be in another {what}: the failed primary was never read ({key})"
            )),
            Some(primary) => (of(&primary.classification) != of(&report.classification))
                .then(|| format!("is in another {what} ({key})")),
        })
}

/// Why `replica` cannot replicate from `source`.
fn cannot_replicate(replica: &Contender<'_>, source: &Contender<'_>) -> Option<String> {
    if replica.report.server_id == source.report.server_id {
        return Some(String::from("has the same server_id"));
    }
    if replica.report.flavour == Flavour::Mariadb && source.report.flavour != Flavour::Mariadb
        || replica.report.flavour != Flavour::Mariadb && source.report.flavour == Flavour::Mariadb
    {
        return Some(String::from("is of another flavour"));
    }
    lacks_purged(replica.report, source.report)
}

/// How many transactions the failed primary was seen to have that this replica did not receive; none if none.
pub(super) fn missing_of(primary: &ProbeReport, replica: &ProbeReport) -> Option<u64> {
    let executed = primary.executed.as_ref()?;
    let missing = replica.held_from_source()?.missing_count(executed).ok()?;
    (missing > 0).then_some(missing)
}

/// What a replica lacks and its source has purged from its binary logs, so that it would be refused with error 1236
/// (MySQL 8.4, 19.1.3.3 "GTID Auto-Positioning"). MariaDB does not tell what it has purged.
pub(super) fn lacks_purged(replica: &ProbeReport, source: &ProbeReport) -> Option<String> {
    let purged = source.purged.as_ref()?;
    let missing = replica.held()?.missing_count(purged).ok()?;
    (missing > 0).then(|| {
        format!("lacks {missing} transaction(s) that the promoted server has purged from its binary logs (gtid_purged)")
    })
}

/// Orders two that hold the same, and says by which criterion.
fn prefer(
    a: &Contender<'_>,
    b: &Contender<'_>,
    errant: &BTreeMap<&InstanceKey, bool>,
    failed: Failed<'_>,
) -> (Ordering, &'static str) {
    let place = failed.report.map(|report| &report.classification);
    let same = |contender: &Contender<'_>, pick: fn(&Classification) -> &String| {
        place.is_some_and(|place| pick(place) == pick(&contender.report.classification))
    };
    let rules = a.effective_rule().cmp(&b.effective_rule());
    let by: [Ordering; TIE_BREAKS.len()] = [
        errant.get(a.key).cmp(&errant.get(b.key)),
        if a.is_downtimed == b.is_downtimed {
            Ordering::Equal
        } else {
            rules
        },
        rules,
        same(b, |place| &place.data_center).cmp(&same(a, |place| &place.data_center)),
        same(b, |place| &place.physical_environment)
            .cmp(&same(a, |place| &place.physical_environment)),
        same(b, |place| &place.region).cmp(&same(a, |place| &place.region)),
        a.report.version.major().cmp(&b.report.version.major()),
        format_rank(a.report).cmp(&format_rank(b.report)),
        left_to_apply(a.report).cmp(&left_to_apply(b.report)),
        a.key.cmp(b.key),
    ];
    by.iter()
        .zip(TIE_BREAKS)
        .find(|(ordering, _)| ordering.is_ne())
        .map_or((Ordering::Equal, "nothing"), |(ordering, name)| {
            (*ordering, name)
        })
}

fn format_rank(report: &ProbeReport) -> u8 {
    match report.binlog_format.as_str() {
        "STATEMENT" => 0,
        "MIXED" => 1,
        _ => 2,
    }
}

fn left_to_apply(report: &ProbeReport) -> u64 {
    unapplied(report).unwrap_or(u64::MAX)
}

/// How many transactions it received and did not apply; none where that cannot be counted.
pub(super) fn unapplied(report: &ProbeReport) -> Option<u64> {
    let applied = report.replicated_gtid.as_ref().or(report.executed.as_ref());
    let received = report
        .replication
        .as_ref()
        .and_then(|status| status.received.as_ref());
    match (applied, received) {
        (Some(applied), Some(received)) => applied.missing_count(received).ok(),
        _ => Some(0),
    }
}
