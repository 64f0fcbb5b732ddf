//! Looks at servers, clusters and tags.
//!
//! What is wanted is chosen and copied inside the node's task; ordering and writing it happen outside.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::Replicated;
use orchestrator_core::time::Now;
use orchestrator_core::topology::Instance;
use orchestrator_core::topology::text::{Drawing, Drawn, Scale, draw};

use super::answer::{Answer, Failure};
use super::json::cluster::ClusterInfo;
use super::json::instance::{Downtime, Facts, problems as problems_of};
use super::json::{self, Key};
use super::names::{self, Clusters, Matching};
use super::params::TagText;
use super::server::Asked;
use super::sight::Sight;
use super::{Daemon, Gone};

/// Servers as they were at one moment.
pub(super) struct Chosen {
    now: Now,
    scale: Scale,
    servers: Vec<Facts>,
}

impl Chosen {
    pub(super) fn of<'a>(
        sight: &Sight<'a>,
        instances: impl Iterator<Item = &'a Instance>,
    ) -> Chosen {
        Chosen {
            now: sight.now,
            scale: scale(sight),
            servers: instances.map(|instance| facts(sight, instance)).collect(),
        }
    }

    fn to_wire(&self) -> Vec<json::Instance> {
        self.servers
            .iter()
            .map(|server| server.to_wire(self.scale, self.now))
            .collect()
    }

    /// The first of them.
    pub(super) fn first(&self) -> Option<json::Instance> {
        let server = self.servers.first()?;
        Some(server.to_wire(self.scale, self.now))
    }

    /// By depth, then the busiest, then by cluster and key.
    fn sort_for_lists(&mut self) {
        self.servers.sort_by(|one, other| {
            fn rank(server: &Facts) -> (u32, Reverse<usize>, &str, &InstanceKey) {
                let instance = &server.instance;
                let replicas = instance.report.as_ref().map_or(0, |r| r.replicas.len());
                let place = &instance.place;
                (
                    place.depth,
                    Reverse(replicas),
                    &place.cluster_name,
                    &instance.key,
                )
            }
            rank(one).cmp(&rank(other))
        });
    }
}

/// The scale of the wire's problems.
fn scale(sight: &Sight<'_>) -> Scale {
    Scale {
        poll: sight.policy().poll,
        lag: sight.policy().reasonable_lag,
    }
}

fn facts(sight: &Sight<'_>, instance: &Instance) -> Facts {
    let replicated = sight.replicated;
    Facts {
        instance: instance.clone(),
        rule: replicated.rule_of(&instance.key, sight.now.wall),
        is_second_primary: is_second_primary(sight, instance),
        is_followed_though_replaced: is_followed_though_replaced(sight, instance),
        downtime: replicated
            .downtime_of(&instance.key, sight.now.wall)
            .map(|downtime| Downtime {
                owner: downtime.owner.clone(),
                reason: downtime.reason.clone(),
                began: downtime.began,
                until: downtime.until,
            }),
    }
}

/// A recovery replaced it as primary, and it takes writes all the same.
fn is_second_primary(sight: &Sight<'_>, instance: &Instance) -> bool {
    let problem = sight.diagnosis.problem(&instance.key);
    problem.is_some_and(|problem| problem.evidence.other_primary.is_some())
}

/// A recovery replaced it as primary, and servers replicate from it all the same.
fn is_followed_though_replaced(sight: &Sight<'_>, instance: &Instance) -> bool {
    let problem = sight.diagnosis.problem(&instance.key);
    problem.is_some_and(|problem| problem.evidence.is_followed_though_replaced())
}

/// Servers in the order of their keys.
async fn choose<D: Daemon>(
    asked: &Asked<'_, D>,
    is_wanted: impl Fn(&Sight<'_>, &Instance) -> bool + Send + 'static,
) -> Result<Chosen, Gone> {
    let daemon = &asked.shared.daemon;
    daemon
        .read(move |sight| {
            let wanted = sight
                .instances
                .values()
                .filter(|instance| is_wanted(sight, instance));
            Chosen::of(sight, wanted)
        })
        .await
}

/// One known server.
pub(super) async fn one<D: Daemon>(
    asked: &Asked<'_, D>,
    key: InstanceKey,
) -> Result<Option<json::Instance>, Gone> {
    let daemon = &asked.shared.daemon;
    let chosen = daemon
        .read(move |sight| Chosen::of(sight, sight.instances.get(&key).into_iter()))
        .await?;
    Ok(chosen.first())
}

pub(super) async fn instance<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let daemon = &asked.shared.daemon;
    let (key, chosen) = daemon
        .read(move |sight| {
            let key = names::completed(sight, key);
            let chosen = Chosen::of(sight, sight.instances.get(&key).into_iter());
            (key, chosen)
        })
        .await?;
    match chosen.first() {
        Some(instance) => Ok(Answer::bare(&instance)),
        None => Err(cannot_read(&key)),
    }
}

pub(super) fn cannot_read(key: &InstanceKey) -> Failure {
    Failure::plain(format!("Cannot read instance: {key}"))
}

pub(super) async fn instance_replicas<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let daemon = &asked.shared.daemon;
    let chosen = daemon
        .read(move |sight| {
            let key = names::completed(sight, key);
            let replicas = sight.instances.values();
            let replicas = replicas.filter(|instance| instance.source() == Some(&key));
            Chosen::of(sight, replicas)
        })
        .await?;
    Ok(Answer::bare(&chosen.to_wire()))
}

pub(super) async fn all_instances<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let mut chosen = choose(asked, |_, _| true).await?;
    chosen.sort_for_lists();
    Ok(Answer::bare(&chosen.to_wire()))
}

pub(super) async fn search<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let params = &asked.params;
    let text = params.path("searchString").or_else(|| params.query("s"));
    let text = String::from(text.unwrap_or_default().trim());
    let mut chosen = choose(asked, move |_, instance| is_found(instance, &text)).await?;
    chosen.sort_for_lists();
    Ok(Answer::bare(&chosen.to_wire()))
}

/// The text is part of a name or a version of the server, or equals one of its numbers. An empty text finds all.
fn is_found(instance: &Instance, text: &str) -> bool {
    let place = &instance.place;
    let key = instance.key.to_string();
    if [key.as_str(), &place.cluster_name, &place.suggested_alias]
        .iter()
        .any(|name| name.contains(text))
        || instance.key.port.to_string() == text
    {
        return true;
    }
    instance.report.as_ref().is_some_and(|report| {
        report.version.text.contains(text)
            || report.version_comment.contains(text)
            || report.server_id.to_string() == text
    })
}

pub(super) async fn problems<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let cluster = asked.params.get("clusterName").map(String::from);
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let mut chosen = daemon
        .read(move |sight| {
            // A name that means nothing is taken literally: no server is in it.
            let cluster = cluster.map(|hint| {
                names::cluster(sight, &hint, port, Matching::Completed).unwrap_or(hint)
            });
            let scale = scale(sight);
            let wanted = sight.instances.values().filter(|instance| {
                let is_inside = cluster
                    .as_ref()
                    .is_none_or(|cluster| instance.place.cluster_name == *cluster);
                let downtime = || sight.replicated.downtime_of(&instance.key, sight.now.wall);
                // A replaced primary in use is shown whatever downtime the recovery left behind.
                let is_shown = || {
                    is_second_primary(sight, instance)
                        || is_followed_though_replaced(sight, instance)
                        || (!problems_of(instance, scale, sight.now).is_empty()
                            && downtime().is_none())
                };
                is_inside
                    && is_shown()
                    && !sight
                        .filters
                        .problem_ignore
                        .matches_host(&instance.key.host)
            });
            Chosen::of(sight, wanted)
        })
        .await?;
    chosen.sort_for_lists();
    Ok(Answer::bare(&chosen.to_wire()))
}

/// What [`choose_cluster`] does with each server of the cluster.
type IsWanted = fn(&Sight<'_>, &Instance) -> bool;

/// The name of the cluster that the request means, and servers of it in the order of their keys.
async fn choose_cluster<D: Daemon>(
    asked: &Asked<'_, D>,
    is_wanted: IsWanted,
) -> Result<(String, Chosen), Failure> {
    let hint = names::cluster_hint(&asked.params).unwrap_or_default();
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    daemon
        .read(move |sight| {
            let cluster = names::cluster(sight, &hint, port, Matching::Completed)?;
            let wanted = sight.instances.values().filter(|instance| {
                instance.place.cluster_name == cluster && is_wanted(sight, instance)
            });
            let chosen = Chosen::of(sight, wanted);
            Ok((cluster, chosen))
        })
        .await?
}

pub(super) async fn cluster<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    // By a server, the server must be known.
    if asked.params.path("host").is_some() {
        let key = names::key(&asked.params)?;
        let daemon = &asked.shared.daemon;
        let is_known = daemon
            .read(move |sight| {
                let key = names::completed(sight, key);
                match sight.instances.contains_key(&key) {
                    true => Ok(()),
                    false => Err(cannot_read(&key)),
                }
            })
            .await?;
        is_known?;
    }
    let (_, chosen) = choose_cluster(asked, |_, _| true).await?;
    Ok(Answer::bare(&chosen.to_wire()))
}

pub(super) async fn cluster_info<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let hint = names::cluster_hint(&asked.params).unwrap_or_default();
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let info = daemon
        .read(move |sight| {
            let cluster = names::cluster(sight, &hint, port, Matching::Completed)?;
            let infos = cluster_infos(sight);
            let info = infos.into_iter().find(|info| info.cluster_name == cluster);
            Ok::<_, Failure>(info.unwrap_or_else(|| empty_info(sight, &cluster)))
        })
        .await??;
    Ok(Answer::bare(&info))
}

/// A cluster that replicated state remembers, of which no server is in view.
fn empty_info(sight: &Sight<'_>, cluster: &str) -> ClusterInfo {
    let record = sight.replicated.cluster_named(cluster);
    let alias = record.map_or(cluster, |record| record.alias_or_name());
    let domain = record.map_or("", |record| record.domain.as_str());
    cluster_info_of(sight, cluster, alias, domain, 0)
}

fn cluster_info_of(
    sight: &Sight<'_>,
    name: &str,
    alias: &str,
    domain: &str,
    servers: u64,
) -> ClusterInfo {
    let automated = sight.filters.automated(name, alias);
    ClusterInfo {
        cluster_name: String::from(name),
        cluster_alias: String::from(alias),
        cluster_domain: String::from(domain),
        count_instances: servers,
        heuristic_lag: 0,
        has_automated_master_recovery: automated.primary,
        has_automated_intermediate_master_recovery: automated.intermediate,
    }
}

fn cluster_infos(sight: &Sight<'_>) -> Vec<ClusterInfo> {
    Clusters::of(sight)
        .rows
        .iter()
        .map(|(name, row)| cluster_info_of(sight, name, row.alias, row.domain, row.servers))
        .collect()
}

pub(super) async fn clusters<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let daemon = &asked.shared.daemon;
    let names: Vec<String> = daemon
        .read(|sight| {
            let clusters = Clusters::of(sight);
            clusters.rows.keys().map(|name| (*name).into()).collect()
        })
        .await?;
    Ok(Answer::bare(&names))
}

pub(super) async fn clusters_info<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let daemon = &asked.shared.daemon;
    let infos = daemon.read(cluster_infos).await?;
    Ok(Answer::bare(&infos))
}

/// Heads a cluster, alone or with others. A primary that was replaced heads none, whatever it says of itself: it stands in
/// its cluster beside the one that counts.
fn is_head(sight: &Sight<'_>, instance: &Instance) -> bool {
    let is_deposed = || {
        instance
            .identity()
            .is_some_and(|identity| sight.replicated.is_deposed(identity))
    };
    instance.report.is_some()
        && (instance.place.depth == 0 || instance.place.is_co_primary)
        && !is_deposed()
}

/// Whether a server is the primary that is on record for its cluster: what a running recovery has opened counts already.
fn is_recorded_primary(sight: &Sight<'_>, instance: &Instance) -> bool {
    let record = sight.replicated.cluster_of(&instance.key);
    record.is_some_and(|record| {
        let running = sight.replicated.running_on(record.key);
        let opened = running.and_then(Recovery::opened);
        *opened.unwrap_or(&record.primary) == instance.key
    })
}

pub(super) async fn masters<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let daemon = &asked.shared.daemon;
    let chosen = daemon
        .read(|sight| {
            // One a cluster, in the order of names: the recorded one, and a reachable one rather than another.
            let mut masters: BTreeMap<&str, ((bool, bool), &Instance)> = BTreeMap::new();
            for instance in sight.instances.values() {
                let cluster = instance.place.cluster_name.as_str();
                if cluster.is_empty() || instance.read_only() || !is_head(sight, instance) {
                    continue;
                }
                let rank = (
                    is_recorded_primary(sight, instance),
                    instance.is_last_check_valid(),
                );
                let best = masters.entry(cluster).or_insert((rank, instance));
                if rank > best.0 {
                    *best = (rank, instance);
                }
            }
            Chosen::of(sight, masters.into_values().map(|(_, instance)| instance))
        })
        .await?;
    Ok(Answer::bare(&chosen.to_wire()))
}

pub(super) async fn master<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let hint = names::cluster_hint(&asked.params).unwrap_or_default();
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let (cluster, chosen) = daemon
        .read(move |sight| {
            let cluster = names::cluster(sight, &hint, port, Matching::Completed)?;
            let master = sight
                .instances
                .values()
                .filter(|instance| {
                    instance.place.cluster_name == cluster && is_head(sight, instance)
                })
                .min_by_key(|instance| {
                    (
                        instance.read_only(),
                        !is_recorded_primary(sight, instance),
                        !instance.is_last_check_valid(),
                    )
                });
            let chosen = Chosen::of(sight, master.into_iter());
            Ok::<_, Failure>((cluster, chosen))
        })
        .await??;
    match chosen.first() {
        Some(master) => Ok(Answer::bare(&master)),
        None => Err(Failure::plain(format!("No masters found for {cluster}"))),
    }
}

fn is_downtimed(sight: &Sight<'_>, instance: &Instance) -> bool {
    let replicated = sight.replicated;
    replicated
        .downtime_of(&instance.key, sight.now.wall)
        .is_some()
}

pub(super) async fn downtimed<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let chosen = if asked.params.get("clusterHint").is_some() {
        choose_cluster(asked, is_downtimed).await?.1
    } else {
        choose(asked, is_downtimed).await?
    };
    Ok(Answer::bare(&chosen.to_wire()))
}

pub(super) async fn topology<D: Daemon>(
    asked: &Asked<'_, D>,
    drawing: Drawing,
) -> Result<Answer, Failure> {
    let hint = names::cluster_hint(&asked.params).unwrap_or_default();
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let (cluster, servers, poll, now) = daemon
        .read(move |sight| {
            let cluster = names::cluster(sight, &hint, port, Matching::Completed)?;
            let servers: Vec<Drawn> = sight
                .instances
                .values()
                .filter(|instance| instance.place.cluster_name == cluster)
                .map(|instance| Drawn {
                    instance: instance.clone(),
                    is_downtimed: is_downtimed(sight, instance),
                    tags: drawn_tags(sight.replicated, &instance.key),
                })
                .collect();
            Ok::<_, Failure>((cluster, servers, sight.policy().poll, sight.now))
        })
        .await??;
    let scale = Scale {
        poll,
        lag: asked.shared.settings.maintenance_lag,
    };
    Ok(Answer::ok(
        format!("Topology for cluster {cluster}"),
        &draw(&servers, drawing, scale, now),
    ))
}

/// A server's tags by name, as a drawing shows them: without a value, the name alone.
fn drawn_tags(replicated: &Replicated, key: &InstanceKey) -> Vec<String> {
    replicated
        .tags_of(key)
        .map(|(name, tag)| match tag.value.as_str() {
            "" => String::from(name),
            value => format!("{name}={value}"),
        })
        .collect()
}

pub(super) async fn tags<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let daemon = &asked.shared.daemon;
    let tags: Vec<String> = daemon
        .read(move |sight| {
            let key = names::completed(sight, key);
            let tags = sight.replicated.tags_of(&key);
            tags.map(|(name, tag)| format!("{name}={}", tag.value))
                .collect()
        })
        .await?;
    Ok(Answer::bare(&tags))
}

pub(super) async fn tag_value<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let text = asked.params.query("tag");
    let text = text.or_else(|| asked.params.get("tagName"));
    let tag = TagText::parse(text.unwrap_or_default())?;
    let daemon = &asked.shared.daemon;
    let value = daemon
        .read(move |sight| {
            let key = names::completed(sight, key);
            let found = sight.replicated.tag_of(&key, &tag.name);
            found
                .map(|found| found.value.clone())
                .ok_or_else(|| Failure::plain(format!("tag {} not found for {key}", tag.name)))
        })
        .await??;
    Ok(Answer::bare(&value))
}

pub(super) async fn tagged<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let terms = TagText::parse_search(asked.params.query("tag").unwrap_or_default())?;
    let daemon = &asked.shared.daemon;
    let keys: Vec<Key> = daemon
        .read(move |sight| {
            let mut keys: Vec<&InstanceKey> = sight.instances.keys().collect();
            keys.extend(sight.replicated.known());
            keys.extend(sight.replicated.tags().map(|(key, _, _)| key));
            keys.sort_unstable();
            keys.dedup();
            keys.into_iter()
                .filter(|key| terms.iter().all(|term| fits(sight.replicated, key, term)))
                .map(Key::from)
                .collect()
        })
        .await?;
    Ok(Answer::bare(&keys))
}

/// Whether a server satisfies a term. Negated without a value: it lacks the tag; with one: it has the tag with another.
fn fits(replicated: &Replicated, key: &InstanceKey, term: &TagText) -> bool {
    let tag = replicated.tag_of(key, &term.name);
    match (tag, &term.value, term.is_negated) {
        (Some(_), None, is_negated) => !is_negated,
        (None, None, is_negated) => is_negated,
        (Some(tag), Some(value), is_negated) => (tag.value == *value) != is_negated,
        (None, Some(_), _) => false,
    }
}
