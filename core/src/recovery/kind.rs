//! Kinds of servers, and of replication, that no plan here knows. A cluster that has one is named, and left to people: a plan
//! that does not know what else moves servers about would fight it.

use alloc::{format, string::String};

use crate::{id::InstanceKey, topology::ProbeReport};

/// The option of a channel by which MySQL chooses another source by itself.
const AUTO_FAILOVER: &str = "SOURCE_CONNECTION_AUTO_FAILOVER";

/// What keeps plans from a cluster with this primary, as it was last read if it was, and these replicas.
pub fn unknown_kind<'a>(
    primary: (&InstanceKey, Option<&ProbeReport>),
    replicas: impl IntoIterator<Item = (&'a InstanceKey, &'a ProbeReport)>,
) -> Option<String> {
    let (key, report) = primary;
    if let Some(unknown) = report.and_then(|report| unknown_server(key, report)) {
        return Some(unknown);
    }
    // Whether one that was never read is of such a kind does not show in its replicas.
    replicas
        .into_iter()
        .find_map(|(replica, report)| chooses_by_itself(replica, report))
}

fn unknown_server(key: &InstanceKey, report: &ProbeReport) -> Option<String> {
    if report.galera {
        return Some(format!("{key} is a Galera node, which no plan here knows"));
    }
    let group = report.group.as_ref();
    let group = group.filter(|group| !group.name.is_empty())?;
    Some(format!(
        "{key} is a member of replication group {}, which chooses its primary by itself; no plan here knows groups",
        group.name
    ))
}

fn chooses_by_itself(key: &InstanceKey, report: &ProbeReport) -> Option<String> {
    let status = report.replication.as_ref()?;
    let chooses = status
        .options
        .iter()
        .any(|(option, value)| option == AUTO_FAILOVER && value != "0");
    chooses.then(|| {
        format!(
            "{key} chooses another source by itself ({AUTO_FAILOVER} = 1), which no plan here knows; to have this \
             cluster repaired here, type on {key}:  STOP REPLICA; CHANGE REPLICATION SOURCE TO {AUTO_FAILOVER} = 0; \
             START REPLICA"
        )
    })
}
