//! Which server and which cluster a request means.
//!
//! A server named exactly is always that one. Completing a part of a host name is for looks only: a change acts on what
//! was named, or on nothing.

use std::collections::BTreeMap;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::limits::HOST_NAME_BYTES_MAX;
use orchestrator_core::replicated::ClusterRecord;

use super::answer::Failure;
use super::params::Params;
use super::sight::Sight;

/// The key that `:host/:port` of the path spell.
pub(super) fn key(params: &Params) -> Result<InstanceKey, Failure> {
    let host = params.get("host").unwrap_or_default().trim();
    let port = params.get("port").unwrap_or_default();
    let port: u16 = port
        .parse()
        .map_err(|_| Failure::plain(format!("Invalid port: {port}")))?;
    let key = InstanceKey::new(host, port);
    if host.is_empty() {
        return Err(Failure::plain("Empty hostname"));
    }
    if host.len() > HOST_NAME_BYTES_MAX {
        return Err(Failure::plain(format!(
            "Hostname is longer than {HOST_NAME_BYTES_MAX} bytes"
        )));
    }
    if host.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
        return Err(Failure::plain(format!("Invalid hostname: {key}")));
    }
    Ok(key)
}

/// The same for something that is to be probed or changed.
pub(super) fn usable_key(params: &Params) -> Result<InstanceKey, Failure> {
    let key = key(params)?;
    if key.is_valid() {
        Ok(key)
    } else {
        Err(Failure::plain(format!("Invalid instance key: {key}")))
    }
}

/// For looks: the only known server whose host name contains the given one, at the same port, where the given one is not
/// known itself and is no IPv4 address.
pub(super) fn completed(sight: &Sight<'_>, key: InstanceKey) -> InstanceKey {
    if sight.instances.contains_key(&key) || key.host.parse::<std::net::Ipv4Addr>().is_ok() {
        return key;
    }
    let mut matches = sight
        .instances
        .keys()
        .filter(|known| known.port == key.port && known.host.contains(&key.host));
    match (matches.next(), matches.next()) {
        (Some(only), None) => only.clone(),
        (Some(_), Some(_)) | (None, _) => key,
    }
}

/// The text that names a cluster in a request: a hint, a name, an alias, or a server's `host:port`.
pub(super) fn cluster_hint(params: &Params) -> Option<String> {
    let named = params
        .get("clusterHint")
        .or_else(|| params.get("clusterName"))
        .or_else(|| params.get("clusterAlias"));
    if let Some(hint) = named {
        return Some(String::from(hint));
    }
    let (host, port) = (params.get("host")?, params.get("port")?);
    Some(format!("{host}:{port}"))
}

/// How a name is matched with what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matching {
    Exact,
    /// A part of a host name will do when only one server has it: for looks.
    Completed,
}

/// The name of the cluster that a hint means: a name, an alias, a member, or what replicated state remembers (former
/// names).
pub(super) fn cluster(
    sight: &Sight<'_>,
    hint: &str,
    default_port: u16,
    matching: Matching,
) -> Result<String, Failure> {
    if hint.is_empty() {
        return Err(Failure::plain(
            "Unable to determine cluster name by empty hint",
        ));
    }
    let clusters = Clusters::of(sight);
    if clusters.rows.contains_key(hint) {
        return Ok(String::from(hint));
    }
    if let Some((name, _)) = clusters.rows.iter().find(|(_, row)| row.alias == hint) {
        return Ok(String::from(*name));
    }
    let member = InstanceKey::parse(hint, default_port)
        .ok()
        .map(|key| match matching {
            Matching::Exact => key,
            Matching::Completed => completed(sight, key),
        })
        .and_then(|key| sight.instances.get(&key));
    if let Some(member) = member
        && !member.place.cluster_name.is_empty()
    {
        return Ok(member.place.cluster_name.clone());
    }
    if let Some(record) = sight.replicated.cluster_named(hint) {
        return Ok(record.name.clone());
    }
    Err(Failure::plain(format!(
        "Unable to determine cluster name. clusterHint={hint}"
    )))
}

/// The clusters that have servers in view.
pub(super) struct Clusters<'a> {
    pub(super) rows: BTreeMap<&'a str, ClusterRow<'a>>,
}

/// A cluster as it is shown.
pub(super) struct ClusterRow<'a> {
    pub(super) alias: &'a str,
    pub(super) domain: &'a str,
    pub(super) servers: u64,
    /// The alias is what replicated state says, not only what servers suggest.
    is_alias_recorded: bool,
}

/// An alias means one cluster: the one it is recorded for, else the largest. (A primary that was replaced goes on
/// suggesting the alias that its cluster has.) The others go by their names.
fn keep_aliases_unique<'a>(rows: &mut BTreeMap<&'a str, ClusterRow<'a>>) {
    let mut owners: BTreeMap<&str, (&str, (bool, u64))> = BTreeMap::new();
    for (name, row) in &*rows {
        let claim = (row.is_alias_recorded, row.servers);
        let owner = owners.entry(row.alias).or_insert((name, claim));
        if owner.1 < claim {
            *owner = (name, claim);
        }
    }
    for (name, row) in rows {
        if owners
            .get(row.alias)
            .is_some_and(|(owner, _)| owner != name)
        {
            row.alias = name;
        }
    }
}

impl<'a> Clusters<'a> {
    /// In one pass over all servers.
    pub(super) fn of(sight: &Sight<'a>) -> Clusters<'a> {
        let records: BTreeMap<&str, &ClusterRecord> = sight
            .replicated
            .clusters()
            .map(|record| (record.name.as_str(), record))
            .collect();
        let mut rows: BTreeMap<&str, ClusterRow<'a>> = BTreeMap::new();
        for instance in sight.instances.values() {
            let place = &instance.place;
            if place.cluster_name.is_empty() {
                continue;
            }
            let row = rows.entry(&place.cluster_name).or_insert(ClusterRow {
                alias: "",
                domain: "",
                servers: 0,
                is_alias_recorded: false,
            });
            row.servers += 1;
            // The primary's suggestion is worth more than that of any other.
            if !place.suggested_alias.is_empty() && (row.alias.is_empty() || place.depth == 0) {
                row.alias = &place.suggested_alias;
            }
        }
        for (name, row) in &mut rows {
            if let Some(record) = records.get(name) {
                row.domain = &record.domain;
                row.is_alias_recorded = !record.shown_alias().is_empty();
                if row.is_alias_recorded {
                    row.alias = record.shown_alias();
                }
            }
            if row.alias.is_empty() {
                row.alias = name;
            }
        }
        keep_aliases_unique(&mut rows);
        Clusters { rows }
    }

    /// The cluster other than this one that has this alias or, without an alias, this name.
    pub(super) fn other_called(&self, alias: &str, name: &str) -> Option<String> {
        let mut others = self.rows.iter().filter(|(other, _)| **other != name);
        let holder = others.find(|(_, row)| row.alias == alias)?;
        Some(String::from(*holder.0))
    }

    /// The alias that a cluster is shown with.
    pub(super) fn alias(&self, name: &str) -> String {
        self.rows
            .get(name)
            .map_or_else(|| String::from(name), |row| String::from(row.alias))
    }
}
