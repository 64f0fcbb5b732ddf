//! `would-fail-over`: what would become of clusters if their primaries died.

use std::collections::BTreeMap;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::forecast::{Forecast, Known, forecast};
use orchestrator_core::topology::Instance;
use serde::Serialize;

use super::Daemon;
use super::answer::{Answer, Failure};
use super::json::Key;
use super::names::{self, Matching};
use super::server::Asked;
use super::sight::Sight;

/// A right that the daemon's account lacks somewhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MissingRight {
    key: Key,
    purpose: String,
    grant: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WouldFailOver {
    cluster_name: String,
    cluster_alias: String,
    primary: Key,
    would_fail_over: bool,
    candidate: Option<Key>,
    because: Vec<String>,
    losses: Vec<String>,
    missing_rights: Vec<MissingRight>,
    obstacles: Vec<String>,
}

impl WouldFailOver {
    fn of(forecast: Forecast) -> WouldFailOver {
        WouldFailOver {
            would_fail_over: forecast.would_fail_over(),
            cluster_name: forecast.cluster_name,
            cluster_alias: forecast.cluster_alias,
            primary: Key::from(&forecast.primary),
            candidate: forecast.candidate.as_ref().map(Key::from),
            because: forecast.because,
            losses: forecast.losses,
            missing_rights: forecast
                .missing_rights
                .iter()
                .map(|(key, missing)| MissingRight {
                    key: Key::from(key),
                    purpose: missing.purpose.to_string(),
                    grant: missing.grant.clone(),
                })
                .collect(),
            obstacles: forecast.obstacles,
        }
    }
}

/// Of one cluster, or of all in the order of their names.
pub(super) async fn would_fail_over<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let hint = names::cluster_hint(&asked.params);
    let port = asked.shared.settings.default_port;
    let daemon = &asked.shared.daemon;
    let forecasts = daemon
        .read(move |sight| {
            let cluster = match &hint {
                Some(hint) => Some(names::cluster(sight, hint, port, Matching::Completed)?),
                None => None,
            };
            Ok::<_, Failure>((cluster.is_some(), forecasts(sight, cluster.as_deref())))
        })
        .await??;
    let (is_one, forecasts) = forecasts;
    let mut entries: Vec<WouldFailOver> = forecasts.into_iter().map(WouldFailOver::of).collect();
    if !is_one {
        return Ok(Answer::bare(&entries));
    }
    match entries.pop() {
        Some(entry) => Ok(Answer::bare(&entry)),
        None => Err(Failure::plain("the cluster has no primary in view")),
    }
}

fn forecasts(sight: &Sight<'_>, cluster: Option<&str>) -> Vec<Forecast> {
    let mut replicas: BTreeMap<&InstanceKey, Vec<&Instance>> = BTreeMap::new();
    for instance in sight.instances.values() {
        if let Some(source) = instance.source() {
            replicas.entry(source).or_default().push(instance);
        }
    }
    let known = Known {
        now: sight.now,
        replicated: sight.replicated,
        diagnosis: sight.diagnosis,
        filters: sight.filters,
    };
    let mut forecasts: BTreeMap<&str, Forecast> = BTreeMap::new();
    for instance in sight.instances.values() {
        let name = instance.place.cluster_name.as_str();
        // A lone server is no cluster whose primary could be replaced, unless it is recorded as one.
        let is_primary = instance.source().is_none()
            && instance.report.is_some()
            && (replicas.contains_key(&instance.key)
                || sight
                    .replicated
                    .cluster_named(name)
                    .is_some_and(|record| record.primary == instance.key));
        if !is_primary || cluster.is_some_and(|cluster| cluster != name) {
            continue;
        }
        let below = replicas.get(&instance.key).map_or(&[][..], Vec::as_slice);
        let found = forecast(instance, below, known);
        // A deposed primary that is back goes by its cluster's name beside the one that counts.
        let is_recorded = sight
            .replicated
            .cluster_named(name)
            .is_some_and(|record| record.primary == instance.key);
        if is_recorded || !forecasts.contains_key(name) {
            forecasts.insert(name, found);
        }
    }
    forecasts.into_values().collect()
}
