//! `ClusterInfo`.

use serde::Serialize;

/// A cluster as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterInfo {
    pub cluster_name: String,
    pub cluster_alias: String,
    pub cluster_domain: String,
    pub count_instances: u64,
    /// Never computed: always 0.
    pub heuristic_lag: i64,
    pub has_automated_master_recovery: bool,
    pub has_automated_intermediate_master_recovery: bool,
}
