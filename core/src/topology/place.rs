//! Where a server stands in its topology: its cluster's head, how far below it, and what it has that its cluster's
//! primary has not (`spec/probing.md` sections 7 and 8). Followed upward over what servers say of their sources, so
//! that it is right at once and not one hop a poll.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    instance::{Instance, Place},
    report::ProbeReport,
};
use crate::{
    gtid::{GtidSet, oracle},
    id::InstanceKey,
};

/// Deepest chain of replication followed upward.
const DEPTH_MAX: usize = 64;

/// The place of a server. An unknown server stands alone.
#[must_use]
pub fn place_of(instances: &BTreeMap<InstanceKey, Instance>, key: &InstanceKey) -> Place {
    let mut chain: Vec<&Instance> = Vec::new();
    let mut at = instances.get(key);
    let mut ring_from = None;
    while let Some(instance) = at {
        if let Some(position) = chain.iter().position(|seen| seen.key == instance.key) {
            ring_from = Some(position);
            break;
        }
        if chain.len() >= DEPTH_MAX {
            break;
        }
        chain.push(instance);
        at = instance.source().and_then(|source| instances.get(source));
    }
    let Some(last) = chain.last() else {
        return Place {
            cluster_name: key.to_string(),
            root: key.clone(),
            ..Place::default()
        };
    };
    // Co-primaries: the ring's members head the cluster, the one with the smallest key gives the name.
    let (root, depth, is_co_primary) = match ring_from {
        Some(from) => {
            let head = chain[from..]
                .iter()
                .map(|instance| &instance.key)
                .min()
                .unwrap_or(&last.key);
            let depth = if head == key { 0 } else { from.max(1) };
            (head.clone(), depth, from == 0)
        }
        None => (last.key.clone(), chain.len() - 1, false),
    };
    let alias = chain
        .iter()
        .rev()
        .filter_map(|instance| instance.report.as_ref())
        .map(|report| &report.classification.cluster_alias)
        .find(|alias| !alias.is_empty())
        .cloned()
        .unwrap_or_default();
    let ancestry: Vec<&str> = chain
        .iter()
        .rev()
        .filter_map(|instance| instance.report.as_ref())
        .map(|report| report.server_uuid.as_str())
        .filter(|uuid| !uuid.is_empty())
        .collect();
    let errant = chain
        .get(1)
        .and_then(|parent| parent.report.as_deref())
        .zip(chain[0].report.as_deref())
        .map(|(parent, own)| errant(own, parent, &ancestry, is_co_primary))
        .unwrap_or_default();
    Place {
        cluster_name: root.to_string(),
        root,
        depth: u32::try_from(depth).unwrap_or(u32::MAX),
        is_co_primary,
        suggested_alias: alias,
        errant,
        ancestry: ancestry.join(","),
    }
}

fn errant(
    own: &ProbeReport,
    parent: &ProbeReport,
    ancestry: &[&str],
    is_co_primary: bool,
) -> String {
    match (&own.executed, &parent.executed) {
        (Some(GtidSet::Oracle(mine)), Some(GtidSet::Oracle(theirs))) => {
            let (Ok(own_uuid), Ok(parent_uuid)) =
                (own.server_uuid.parse(), parent.server_uuid.parse())
            else {
                return String::new();
            };
            let ancestry: Vec<oracle::Uuid> = ancestry
                .iter()
                .filter_map(|uuid| uuid.parse().ok())
                .collect();
            let errant = if is_co_primary {
                oracle::errant_of_co_primary(mine, own_uuid, &ancestry, theirs, parent_uuid)
            } else {
                oracle::errant(mine, own_uuid, &ancestry, theirs, parent_uuid)
            };
            errant.to_string()
        }
        // MariaDB: what was written here, by this server's own id, and is not in the parent's log.
        (Some(GtidSet::Mariadb(_)), Some(GtidSet::Mariadb(_))) if !is_co_primary => {
            let errant: Vec<String> = own
                .written_here_beyond(parent)
                .into_iter()
                .map(|last| alloc::format!("{}-{}-{}", last.domain, last.server_id, last.sequence))
                .collect();
            errant.join(",")
        }
        _ => String::new(),
    }
}
