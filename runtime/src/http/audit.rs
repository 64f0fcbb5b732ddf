//! Looks at failures and recoveries: what is wrong, what was detected, what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_core::analysis::{Hints, Problem};
use orchestrator_core::id::{InstanceKey, Uid};
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::Detection;
use orchestrator_core::time::Wall;
use serde::Serialize;

use super::Daemon;
use super::answer::{Answer, Failure};
use super::json::analysis::Judged;
use super::json::recovery::{Flags, recovery_row, recovery_steps};
use super::json::{BlockedTopologyRecovery, Key, TopologyRecovery, column_time};
use super::names::{self, Matching};
use super::server::Asked;
use super::sight::Sight;

/// Rows on a page of a list.
const PAGE_ROWS: usize = 20;
/// A recovery that ended within this time is a recent one.
const RECENT: Duration = Duration::from_secs(300);

pub(super) async fn analysis<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = match asked.params.path("host") {
        Some(_) => Some(names::key(&asked.params)?),
        None => None,
    };
    let cluster = asked.params.get("clusterName").map(String::from);
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let (problems, now) = daemon
        .read(move |sight| {
            let cluster = cluster.map(|hint| literally_or_by_hint(sight, hint, port));
            let key = key.map(|key| names::completed(sight, key));
            let problems: Vec<Problem> = sight
                .diagnosis
                .entries(Hints {
                    include_downtimed: true,
                    include_no_problem: false,
                    cluster_name: cluster.as_deref(),
                })
                .into_iter()
                .filter(|problem| key.as_ref().is_none_or(|key| problem.key == *key))
                .cloned()
                .collect();
            (problems, sight.now)
        })
        .await?;
    let settings = &asked.shared.settings;
    let entries: Vec<_> = problems
        .iter()
        .map(|problem| {
            Judged {
                problem,
                now: now.wall,
                host_name: &settings.process.host_name,
                process_token: &settings.process.token,
            }
            .to_wire()
        })
        .collect();
    Ok(Answer::ok("Analysis", &entries))
}

/// A cluster named by hint; a text that means none is taken literally, and finds nothing.
fn literally_or_by_hint(sight: &Sight<'_>, hint: String, default_port: u16) -> String {
    names::cluster(sight, &hint, default_port, Matching::Completed).unwrap_or(hint)
}

pub(super) async fn recovery_filters<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Configured {
        recover_intermediate_master_cluster_filters: Vec<String>,
        recover_master_cluster_filters: Vec<String>,
        recovery_ignore_hostname_filters: Vec<String>,
    }
    let daemon = &asked.shared.daemon;
    let configured = daemon
        .read(|sight| {
            let policy = sight.policy();
            Configured {
                recover_intermediate_master_cluster_filters: policy
                    .recover_intermediate_filters
                    .clone(),
                recover_master_cluster_filters: policy.recover_primary_filters.clone(),
                recovery_ignore_hostname_filters: policy.recovery_ignore_hosts.clone(),
            }
        })
        .await?;
    Ok(Answer::ok(
        "Automated recovery configuration details",
        &configured,
    ))
}

pub(super) async fn check_recoveries<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let daemon = &asked.shared.daemon;
    let are_enabled = daemon
        .read(|sight| sight.replicated.are_recoveries_enabled())
        .await?;
    let state = if are_enabled { "enabled" } else { "disabled" };
    Ok(Answer::ok(format!("Global recoveries {state}"), &state))
}

/// Which rows of a list are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    Page(usize),
    Number(u64),
    Uid(Uid),
    /// Of a cluster, by a text that names it.
    Cluster(String, usize),
}

fn selection<D: Daemon>(asked: &Asked<'_, D>) -> Selection {
    let params = &asked.params;
    let page = params.page();
    if let Some(uid) = params.path("uid") {
        return Selection::Uid(Uid(String::from(uid)));
    }
    if let Some(id) = params.path("id") {
        return match id.parse() {
            Ok(number) if number > 0 => Selection::Number(number),
            Ok(_) | Err(_) => Selection::Page(page),
        };
    }
    let cluster = params
        .path("clusterName")
        .or_else(|| params.path("clusterAlias"));
    match cluster {
        Some(cluster) => Selection::Cluster(String::from(cluster), page),
        None => Selection::Page(page),
    }
}

/// Recoveries of the audit, newest first.
fn select_recoveries<'a>(
    sight: &Sight<'a>,
    selection: &Selection,
    default_port: u16,
    is_wanted: impl Fn(&Recovery) -> bool,
) -> Vec<&'a Recovery> {
    let rows = sight
        .replicated
        .recoveries_newest_first()
        .filter(|recovery| recovery.purpose.is_recovery() && is_wanted(recovery));
    match selection {
        Selection::Page(page) => page_of(rows, *page),
        Selection::Number(number) => rows.filter(|row| row.number == *number).collect(),
        Selection::Uid(uid) => rows.filter(|row| row.uid == *uid).collect(),
        Selection::Cluster(text, page) => {
            let of_cluster = OfCluster::named(sight, text, default_port);
            page_of(
                rows.filter(|row| of_cluster.has(&row.cluster_name, &row.cluster_alias)),
                *page,
            )
        }
    }
}

fn page_of<T>(rows: impl Iterator<Item = T>, page: usize) -> Vec<T> {
    rows.skip(page.saturating_mul(PAGE_ROWS))
        .take(PAGE_ROWS)
        .collect()
}

/// Rows whose cluster has a name: the text itself, as name or alias at that time, or what the text means today.
struct OfCluster {
    text: String,
    name: Option<String>,
}

impl OfCluster {
    fn named(sight: &Sight<'_>, text: &str, default_port: u16) -> OfCluster {
        OfCluster {
            text: String::from(text),
            name: names::cluster(sight, text, default_port, Matching::Completed).ok(),
        }
    }

    fn has(&self, cluster_name: &str, cluster_alias: &str) -> bool {
        cluster_name == self.text
            || cluster_alias == self.text
            || self.name.as_deref() == Some(cluster_name)
    }
}

/// Recoveries as the list of the audit shows them.
fn rows(sight: &Sight<'_>, recoveries: &[&Recovery]) -> Vec<TopologyRecovery> {
    recoveries
        .iter()
        .map(|recovery| {
            let mut row = recovery_row(recovery, flags(sight, recovery_names(recovery)));
            row.is_active = is_active(sight, recovery);
            row
        })
        .collect()
}

fn recovery_names(recovery: &Recovery) -> (&str, &str) {
    (&recovery.cluster_name, &recovery.cluster_alias)
}

fn flags(sight: &Sight<'_>, (name, alias): (&str, &str)) -> Flags {
    let automated = sight.filters.automated(name, alias);
    Flags {
        recovers_primary: automated.primary,
        recovers_intermediate: automated.intermediate,
    }
}

/// Runs, or keeps its cluster from another automatic recovery.
fn is_active(sight: &Sight<'_>, recovery: &Recovery) -> bool {
    match &recovery.end {
        None => true,
        Some((ended, _)) => {
            recovery.is_successful()
                && recovery.acknowledged.is_none()
                && *ended + sight.policy().cool_down > sight.now.wall
        }
    }
}

async fn answer_recoveries<D: Daemon>(
    asked: &Asked<'_, D>,
    selection: Selection,
    is_wanted: impl Fn(&Sight<'_>, &Recovery) -> bool + Send + 'static,
) -> Result<Answer, Failure> {
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let rows = daemon
        .read(move |sight| {
            let chosen = select_recoveries(sight, &selection, port, |recovery| {
                is_wanted(sight, recovery)
            });
            rows(sight, &chosen)
        })
        .await?;
    Ok(Answer::bare(&rows))
}

pub(super) async fn recoveries<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let only_unacknowledged = asked.params.is_true("unacknowledged");
    answer_recoveries(asked, selection(asked), move |_, recovery| {
        !only_unacknowledged || recovery.acknowledged.is_none()
    })
    .await
}

pub(super) async fn active<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    answer_recoveries(asked, selection(asked), |_, recovery| recovery.is_running()).await
}

fn is_recent(ended: Option<Wall>, now: Wall) -> bool {
    ended.is_some_and(|ended| now.since(ended) <= RECENT)
}

pub(super) async fn recent<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    answer_recoveries(asked, selection(asked), |sight, recovery| {
        is_recent(recovery.end.as_ref().map(|(at, _)| *at), sight.now.wall)
    })
    .await
}

pub(super) async fn recent_successor<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    answer_recoveries(asked, Selection::Page(0), move |sight, recovery| {
        // The name is looked for among all servers, and of recoveries there may be thousands.
        is_recent(recovery.end.as_ref().map(|(at, _)| *at), sight.now.wall)
            && recovery.successor.as_ref() == Some(&names::completed(sight, key.clone()))
    })
    .await
}

pub(super) async fn steps<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let uid = Uid(String::from(asked.params.get("uid").unwrap_or_default()));
    let daemon = &asked.shared.daemon;
    let recovery = daemon
        .read(move |sight| sight.replicated.recovery_shared(&uid))
        .await?;
    let steps = recovery.map_or_else(Vec::new, |recovery| recovery_steps(&recovery));
    Ok(Answer::bare(&steps))
}

pub(super) async fn detections<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let selection = selection(asked);
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let rows = daemon
        .read(move |sight| {
            let rows = sight.replicated.detections_newest_first();
            let chosen: Vec<&Detection> = match &selection {
                Selection::Page(page) => page_of(rows, *page),
                Selection::Number(number) => rows.filter(|row| row.number == *number).collect(),
                Selection::Uid(_) => Vec::new(),
                Selection::Cluster(text, page) => {
                    let of_cluster = OfCluster::named(sight, text, port);
                    page_of(
                        rows.filter(|row| of_cluster.has(&row.cluster_name, &row.cluster_alias)),
                        *page,
                    )
                }
            };
            let recovery_of: BTreeMap<u64, u64> = sight
                .replicated
                .recoveries_newest_first()
                .filter(|recovery| recovery.detection != 0)
                .map(|recovery| (recovery.detection, recovery.number))
                .collect();
            chosen
                .into_iter()
                .map(|row| {
                    let flags = flags(sight, (&row.cluster_name, &row.cluster_alias));
                    let related = recovery_of.get(&row.number).copied().unwrap_or(0);
                    super::json::recovery::detection_row(row, flags, related)
                })
                .collect::<Vec<_>>()
        })
        .await?;
    Ok(Answer::bare(&rows))
}

pub(super) async fn blocked<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let cluster = asked.params.get("clusterName").map(String::from);
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let mut rows = daemon
        .read(move |sight| {
            let of_cluster = cluster.map(|text| OfCluster::named(sight, &text, port));
            sight
                .replicated
                .blocked()
                .filter(|(_, row)| {
                    of_cluster
                        .as_ref()
                        .is_none_or(|of_cluster| of_cluster.has(&row.cluster_name, ""))
                })
                .map(|(key, row)| {
                    let shown = BlockedTopologyRecovery {
                        failed_instance_key: Key::from(key),
                        cluster_name: row.cluster_name.clone(),
                        analysis: row.analysis.clone(),
                        last_blocked_timestamp: column_time(Some(row.at)),
                        blocking_recovery_id: row.number,
                    };
                    (row.at, shown)
                })
                .collect::<Vec<(Wall, BlockedTopologyRecovery)>>()
        })
        .await?;
    rows.sort_by(|(one, row), (other, other_row)| {
        other
            .cmp(one)
            .then_with(|| row.failed_instance_key.cmp(&other_row.failed_instance_key))
    });
    let rows: Vec<BlockedTopologyRecovery> = rows.into_iter().map(|(_, row)| row).collect();
    Ok(Answer::bare(&rows))
}

/// The servers that carry a tag, with this value where one is given.
pub(super) fn tagged_with(
    sight: &Sight<'_>,
    key: Option<&InstanceKey>,
    name: &str,
    value: Option<&str>,
) -> Vec<Key> {
    sight
        .replicated
        .tags()
        .filter(|(server, tag_name, tag)| {
            key.is_none_or(|key| key == *server)
                && *tag_name == name
                && value.is_none_or(|value| tag.value == value)
        })
        .map(|(server, _, _)| Key::from(server))
        .collect()
}
