//! Every route as data: its path, where it is answered, what it needs, and what answers it.
//!
//! Decides nothing at run time: the router, the relay, authority and the treatment of `HEAD` read this table, and a test
//! holds it against the list of all routes that programs may ask for.

use orchestrator_core::topology::text::Drawing;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The leader; a follower relays.
    ByLeader,
    /// The daemon that was asked.
    Here,
}

/// What a route does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Looks. `GET` and `HEAD`.
    Read,
    /// Changes something: needs the right to write and, where the leader answers, a leader. `GET` and `POST`; `HEAD` does
    /// nothing.
    Change,
}

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Discover,
    AsyncDiscover,
    Refresh,
    Forget,
    ForgetCluster,
    Instance,
    InstanceReplicas,
    AllInstances,
    Search,
    Problems,
    Cluster,
    ClusterInfo,
    Clusters,
    ClustersInfo,
    Masters,
    Master,
    Downtimed,
    Topology(Drawing),
    SetClusterAlias,
    Tag,
    Untag,
    UntagAll,
    Tags,
    TagValue,
    Tagged,
    BeginDowntime,
    EndDowntime,
    Analysis,
    RegisterCandidate,
    RecoveryFilters,
    WouldFailOver,
    AuditDetections,
    AuditRecoveries,
    AuditSteps,
    ActiveRecoveries,
    RecentRecoveries,
    RecentSuccessor,
    AcknowledgeCluster,
    AcknowledgeInstance,
    AcknowledgeRecovery,
    AcknowledgeAll,
    BlockedRecoveries,
    DisableRecoveries,
    EnableRecoveries,
    CheckRecoveries,
    SetReadOnly,
    SetWriteable,
    SubmitMasters,
    AddPeer,
    RemovePeer,
    ReplacePeer,
    AdoptOriginal,
    ReleaseDeposed,
    Reelect,
    Yield,
    YieldHint,
    GrabElection,
    Snapshot,
    Reload,
    Alive,
    LeaderCheck,
    Health,
    Condition,
    Headers,
    RaftState,
    RaftLeader,
    RaftHealth,
    RaftStatus,
    RaftPeers,
    /// Known, and not built: 501.
    NotServed,
}

/// One row. Parameters of the path begin with a colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub path: &'static str,
    pub answered: Answered,
    pub kind: Kind,
    pub action: Action,
}

const fn row(path: &'static str, answered: Answered, kind: Kind, action: Action) -> Route {
    Route {
        path,
        answered,
        kind,
        action,
    }
}

const fn read(path: &'static str, action: Action) -> Route {
    row(path, Answered::ByLeader, Kind::Read, action)
}

const fn change(path: &'static str, action: Action) -> Route {
    row(path, Answered::ByLeader, Kind::Change, action)
}

const fn local(path: &'static str, action: Action) -> Route {
    row(path, Answered::Here, Kind::Read, action)
}

const fn local_change(path: &'static str, action: Action) -> Route {
    row(path, Answered::Here, Kind::Change, action)
}

const fn later(path: &'static str) -> Route {
    row(path, Answered::ByLeader, Kind::Read, Action::NotServed)
}

const fn later_change(path: &'static str) -> Route {
    row(path, Answered::ByLeader, Kind::Change, Action::NotServed)
}

const fn later_local(path: &'static str) -> Route {
    row(path, Answered::Here, Kind::Read, Action::NotServed)
}

const fn later_local_change(path: &'static str) -> Route {
    row(path, Answered::Here, Kind::Change, Action::NotServed)
}

/// The route of the full status check; `StatusEndpoint` may name another path for it, which then stands beside it.
pub const STATUS: Route = local("/api/status", Action::Health);

/// All routes, without the URL prefix.
pub const ROUTES: &[Route] = &[
    later_change("/api/relocate/:host/:port/:belowHost/:belowPort"),
    later_change("/api/relocate-below/:host/:port/:belowHost/:belowPort"),
    later_change("/api/relocate-slaves/:host/:port/:belowHost/:belowPort"),
    later_change("/api/relocate-replicas/:host/:port/:belowHost/:belowPort"),
    later_change("/api/regroup-slaves/:host/:port"),
    later_change("/api/regroup-replicas/:host/:port"),
    later_change("/api/move-up/:host/:port"),
    later_change("/api/move-up-slaves/:host/:port"),
    later_change("/api/move-up-replicas/:host/:port"),
    later_change("/api/move-below/:host/:port/:siblingHost/:siblingPort"),
    later_change("/api/move-equivalent/:host/:port/:belowHost/:belowPort"),
    later_change("/api/repoint/:host/:port/:belowHost/:belowPort"),
    later_change("/api/repoint-slaves/:host/:port"),
    later_change("/api/repoint-replicas/:host/:port"),
    later_change("/api/make-co-master/:host/:port"),
    later_change("/api/enslave-siblings/:host/:port"),
    later_change("/api/take-siblings/:host/:port"),
    later_change("/api/enslave-master/:host/:port"),
    later_change("/api/take-master/:host/:port"),
    later_change("/api/master-equivalent/:host/:port/:logFile/:logPos"),
    later_change("/api/regroup-slaves-bls/:host/:port"),
    later_change("/api/regroup-replicas-bls/:host/:port"),
    later_change("/api/move-below-gtid/:host/:port/:belowHost/:belowPort"),
    later_change("/api/move-slaves-gtid/:host/:port/:belowHost/:belowPort"),
    later_change("/api/move-replicas-gtid/:host/:port/:belowHost/:belowPort"),
    later_change("/api/regroup-slaves-gtid/:host/:port"),
    later_change("/api/regroup-replicas-gtid/:host/:port"),
    later_change("/api/match/:host/:port/:belowHost/:belowPort"),
    later_change("/api/match-below/:host/:port/:belowHost/:belowPort"),
    later_change("/api/match-up/:host/:port"),
    later_change("/api/match-slaves/:host/:port/:belowHost/:belowPort"),
    later_change("/api/match-replicas/:host/:port/:belowHost/:belowPort"),
    later_change("/api/match-up-slaves/:host/:port"),
    later_change("/api/match-up-replicas/:host/:port"),
    later_change("/api/regroup-slaves-pgtid/:host/:port"),
    later_change("/api/regroup-replicas-pgtid/:host/:port"),
    later_change("/api/make-master/:host/:port"),
    later_change("/api/make-local-master/:host/:port"),
    later_change("/api/enable-gtid/:host/:port"),
    later_change("/api/disable-gtid/:host/:port"),
    later("/api/locate-gtid-errant/:host/:port"),
    later_change("/api/gtid-errant-reset-master/:host/:port"),
    later_change("/api/gtid-errant-inject-empty/:host/:port"),
    later_change("/api/skip-query/:host/:port"),
    later_change("/api/start-slave/:host/:port"),
    later_change("/api/start-replica/:host/:port"),
    later_change("/api/restart-slave/:host/:port"),
    later_change("/api/restart-replica/:host/:port"),
    later_change("/api/stop-slave/:host/:port"),
    later_change("/api/stop-replica/:host/:port"),
    later_change("/api/stop-slave-nice/:host/:port"),
    later_change("/api/stop-replica-nice/:host/:port"),
    later_change("/api/reset-slave/:host/:port"),
    later_change("/api/reset-replica/:host/:port"),
    later_change("/api/detach-slave/:host/:port"),
    later_change("/api/detach-replica/:host/:port"),
    later_change("/api/detach-slave-master-host/:host/:port"),
    later_change("/api/detach-replica-master-host/:host/:port"),
    later_change("/api/reattach-slave/:host/:port"),
    later_change("/api/reattach-replica/:host/:port"),
    later_change("/api/reattach-slave-master-host/:host/:port"),
    later_change("/api/reattach-replica-master-host/:host/:port"),
    later_change("/api/flush-binary-logs/:host/:port"),
    later_change("/api/purge-binary-logs/:host/:port/:logFile"),
    later_change("/api/restart-slave-statements/:host/:port"),
    later_change("/api/restart-replica-statements/:host/:port"),
    later_change("/api/enable-semi-sync-master/:host/:port"),
    later_change("/api/disable-semi-sync-master/:host/:port"),
    later_change("/api/enable-semi-sync-replica/:host/:port"),
    later_change("/api/disable-semi-sync-replica/:host/:port"),
    later_change("/api/delay-replication/:host/:port/:seconds"),
    later("/api/can-replicate-from/:host/:port/:belowHost/:belowPort"),
    later("/api/can-replicate-from-gtid/:host/:port/:belowHost/:belowPort"),
    change("/api/set-read-only/:host/:port", Action::SetReadOnly),
    change("/api/set-writeable/:host/:port", Action::SetWriteable),
    later_change("/api/kill-query/:host/:port/:process"),
    later_change("/api/last-pseudo-gtid/:host/:port"),
    read("/api/instance/:host/:port", Action::Instance),
    read(
        "/api/instance-replicas/:host/:port",
        Action::InstanceReplicas,
    ),
    change("/api/discover/:host/:port", Action::Discover),
    change("/api/async-discover/:host/:port", Action::AsyncDiscover),
    change("/api/refresh/:host/:port", Action::Refresh),
    change("/api/forget/:host/:port", Action::Forget),
    change("/api/forget-cluster/:clusterHint", Action::ForgetCluster),
    later("/api/resolve/:host/:port"),
    read("/api/all-instances", Action::AllInstances),
    read("/api/search/:searchString", Action::Search),
    read("/api/search", Action::Search),
    read("/api/problems", Action::Problems),
    read("/api/problems/:clusterName", Action::Problems),
    read("/api/cluster/:clusterHint", Action::Cluster),
    read("/api/cluster/alias/:clusterAlias", Action::Cluster),
    read("/api/cluster/instance/:host/:port", Action::Cluster),
    read("/api/cluster-info/:clusterHint", Action::ClusterInfo),
    read("/api/cluster-info/alias/:clusterAlias", Action::ClusterInfo),
    read("/api/clusters", Action::Clusters),
    read("/api/clusters-info", Action::ClustersInfo),
    later("/api/cluster-osc-slaves/:clusterHint"),
    later("/api/cluster-osc-replicas/:clusterHint"),
    read("/api/masters", Action::Masters),
    read("/api/master/:clusterHint", Action::Master),
    read("/api/downtimed", Action::Downtimed),
    read("/api/downtimed/:clusterHint", Action::Downtimed),
    read(
        "/api/topology/:clusterHint",
        Action::Topology(Drawing::Plain),
    ),
    read(
        "/api/topology/:host/:port",
        Action::Topology(Drawing::Plain),
    ),
    read(
        "/api/topology-tabulated/:clusterHint",
        Action::Topology(Drawing::Tabulated),
    ),
    read(
        "/api/topology-tabulated/:host/:port",
        Action::Topology(Drawing::Tabulated),
    ),
    read(
        "/api/topology-tags/:clusterHint",
        Action::Topology(Drawing::Tags),
    ),
    read(
        "/api/topology-tags/:host/:port",
        Action::Topology(Drawing::Tags),
    ),
    later_change("/api/snapshot-topologies"),
    change(
        "/api/set-cluster-alias/:clusterName",
        Action::SetClusterAlias,
    ),
    later_change("/api/bulk-instances"),
    later_change("/api/bulk-promotion-rules"),
    change("/api/tag/:host/:port", Action::Tag),
    change("/api/tag/:host/:port/:tagName/:tagValue", Action::Tag),
    change("/api/untag/:host/:port", Action::Untag),
    change("/api/untag/:host/:port/:tagName", Action::Untag),
    change("/api/untag-all", Action::UntagAll),
    change("/api/untag-all/:tagName/:tagValue", Action::UntagAll),
    read("/api/tags/:host/:port", Action::Tags),
    read("/api/tag-value/:host/:port", Action::TagValue),
    read("/api/tag-value/:host/:port/:tagName", Action::TagValue),
    read("/api/tagged", Action::Tagged),
    later_change("/api/begin-maintenance/:host/:port/:owner/:reason"),
    later_change("/api/end-maintenance/:host/:port"),
    later_change("/api/end-maintenance/:maintenanceKey"),
    later("/api/in-maintenance/:host/:port"),
    later("/api/maintenance"),
    change(
        "/api/begin-downtime/:host/:port/:owner/:reason",
        Action::BeginDowntime,
    ),
    change(
        "/api/begin-downtime/:host/:port/:owner/:reason/:duration",
        Action::BeginDowntime,
    ),
    change("/api/end-downtime/:host/:port", Action::EndDowntime),
    later_change("/api/submit-pool-instances/:pool"),
    later_change("/api/cluster-pool-instances/:clusterName"),
    later_change("/api/cluster-pool-instances/:clusterName/:pool"),
    later_change("/api/heuristic-cluster-pool-instances/:clusterName"),
    later_change("/api/heuristic-cluster-pool-instances/:clusterName/:pool"),
    later_change("/api/heuristic-cluster-pool-lag/:clusterName"),
    later_change("/api/heuristic-cluster-pool-lag/:clusterName/:pool"),
    change("/api/submit-masters-to-kv-stores", Action::SubmitMasters),
    change(
        "/api/submit-masters-to-kv-stores/:clusterHint",
        Action::SubmitMasters,
    ),
    later_change("/api/register-hostname-unresolve/:host/:port/:virtualname"),
    later_change("/api/deregister-hostname-unresolve/:host/:port"),
    later_local("/api/hostname-resolve-cache"),
    later_local_change("/api/reset-hostname-resolve-cache"),
    later_change("/api/reload-cluster-alias"),
    read("/api/replication-analysis", Action::Analysis),
    read("/api/replication-analysis/:clusterName", Action::Analysis),
    read(
        "/api/replication-analysis/instance/:host/:port",
        Action::Analysis,
    ),
    read("/api/v2/would-fail-over", Action::WouldFailOver),
    read(
        "/api/v2/would-fail-over/:clusterHint",
        Action::WouldFailOver,
    ),
    later("/api/replication-analysis-changelog"),
    later_change("/api/recover/:host/:port"),
    later_change("/api/recover/:host/:port/:candidateHost/:candidatePort"),
    later_change("/api/recover-lite/:host/:port"),
    later_change("/api/recover-lite/:host/:port/:candidateHost/:candidatePort"),
    later_change("/api/graceful-master-takeover/:clusterHint"),
    later_change("/api/graceful-master-takeover/:clusterHint/:designatedHost/:designatedPort"),
    later_change("/api/graceful-master-takeover/:host/:port"),
    later_change("/api/graceful-master-takeover/:host/:port/:designatedHost/:designatedPort"),
    later_change("/api/graceful-master-takeover-auto/:clusterHint"),
    later_change("/api/graceful-master-takeover-auto/:clusterHint/:designatedHost/:designatedPort"),
    later_change("/api/graceful-master-takeover-auto/:host/:port"),
    later_change("/api/graceful-master-takeover-auto/:host/:port/:designatedHost/:designatedPort"),
    later_change("/api/force-master-failover/:clusterHint"),
    later_change("/api/force-master-failover/:host/:port"),
    later_change("/api/force-master-takeover/:clusterHint/:designatedHost/:designatedPort"),
    later_change("/api/force-master-takeover/:host/:port/:designatedHost/:designatedPort"),
    change(
        "/api/register-candidate/:host/:port/:promotionRule",
        Action::RegisterCandidate,
    ),
    read("/api/automated-recovery-filters", Action::RecoveryFilters),
    read("/api/audit-failure-detection", Action::AuditDetections),
    read(
        "/api/audit-failure-detection/:page",
        Action::AuditDetections,
    ),
    read(
        "/api/audit-failure-detection/id/:id",
        Action::AuditDetections,
    ),
    read(
        "/api/audit-failure-detection/alias/:clusterAlias",
        Action::AuditDetections,
    ),
    read(
        "/api/audit-failure-detection/alias/:clusterAlias/:page",
        Action::AuditDetections,
    ),
    read("/api/audit-recovery", Action::AuditRecoveries),
    read("/api/audit-recovery/:page", Action::AuditRecoveries),
    read("/api/audit-recovery/id/:id", Action::AuditRecoveries),
    read("/api/audit-recovery/uid/:uid", Action::AuditRecoveries),
    read(
        "/api/audit-recovery/cluster/:clusterName",
        Action::AuditRecoveries,
    ),
    read(
        "/api/audit-recovery/cluster/:clusterName/:page",
        Action::AuditRecoveries,
    ),
    read(
        "/api/audit-recovery/alias/:clusterAlias",
        Action::AuditRecoveries,
    ),
    read(
        "/api/audit-recovery/alias/:clusterAlias/:page",
        Action::AuditRecoveries,
    ),
    read("/api/audit-recovery-steps/:uid", Action::AuditSteps),
    read(
        "/api/active-cluster-recovery/:clusterName",
        Action::ActiveRecoveries,
    ),
    read(
        "/api/recently-active-cluster-recovery/:clusterName",
        Action::RecentRecoveries,
    ),
    read(
        "/api/recently-active-instance-recovery/:host/:port",
        Action::RecentSuccessor,
    ),
    change(
        "/api/ack-recovery/cluster/:clusterHint",
        Action::AcknowledgeCluster,
    ),
    change(
        "/api/ack-recovery/cluster/alias/:clusterAlias",
        Action::AcknowledgeCluster,
    ),
    change(
        "/api/ack-recovery/instance/:host/:port",
        Action::AcknowledgeInstance,
    ),
    change("/api/ack-recovery/:recoveryId", Action::AcknowledgeRecovery),
    change("/api/ack-recovery/uid/:uid", Action::AcknowledgeRecovery),
    change("/api/ack-all-recoveries", Action::AcknowledgeAll),
    read("/api/blocked-recoveries", Action::BlockedRecoveries),
    read(
        "/api/blocked-recoveries/cluster/:clusterName",
        Action::BlockedRecoveries,
    ),
    change("/api/disable-global-recoveries", Action::DisableRecoveries),
    change("/api/enable-global-recoveries", Action::EnableRecoveries),
    read("/api/check-global-recoveries", Action::CheckRecoveries),
    later("/api/audit"),
    later("/api/audit/:page"),
    later("/api/audit/instance/:host/:port"),
    later("/api/audit/instance/:host/:port/:page"),
    local("/api/lb-check", Action::Alive),
    local("/api/_ping", Action::Alive),
    local("/api/leader-check", Action::LeaderCheck),
    local("/api/leader-check/:errorStatusCode", Action::LeaderCheck),
    read("/api/routed-leader-check", Action::LeaderCheck),
    local("/api/health", Action::Health),
    local("/api/status", Action::Health),
    local("/api/v2/health", Action::Condition),
    local("/api/headers", Action::Headers),
    local_change("/api/grab-election", Action::GrabElection),
    change("/api/reelect", Action::Reelect),
    local_change("/api/reload-configuration", Action::Reload),
    local("/api/raft-state", Action::RaftState),
    local("/api/raft-leader", Action::RaftLeader),
    local("/api/raft-health", Action::RaftHealth),
    local("/api/raft-status", Action::RaftStatus),
    local("/api/raft-peers", Action::RaftPeers),
    local_change("/api/raft-yield/:node", Action::Yield),
    local_change("/api/raft-yield-hint/:hint", Action::YieldHint),
    local_change("/api/raft-snapshot", Action::Snapshot),
    change("/api/raft-add-peer/:addr", Action::AddPeer),
    change("/api/raft-remove-peer/:addr", Action::RemovePeer),
    change("/api/v2/raft-replace-peer/:addr/:by", Action::ReplacePeer),
    change("/api/v2/adopt-original/:addr", Action::AdoptOriginal),
    change(
        "/api/v2/release-deposed/:host/:port",
        Action::ReleaseDeposed,
    ),
    later_local("/api/raft-follower-health-report/:authenticationToken/:raftBind/:raftAdvertise"),
    later("/api/discovery-metrics-raw/:seconds"),
    later("/api/discovery-metrics-aggregated/:seconds"),
    later("/api/discovery-queue-metrics-raw/:seconds"),
    later("/api/discovery-queue-metrics-aggregated/:seconds"),
    later("/api/backend-query-metrics-raw/:seconds"),
    later("/api/backend-query-metrics-aggregated/:seconds"),
    later("/api/write-buffer-metrics-raw/:seconds"),
    later("/api/write-buffer-metrics-aggregated/:seconds"),
    later_change("/api/agents"),
    later_change("/api/agent/:host"),
    later_change("/api/agent-umount/:host"),
    later_change("/api/agent-mount/:host"),
    later_change("/api/agent-create-snapshot/:host"),
    later_change("/api/agent-removelv/:host"),
    later_change("/api/agent-mysql-stop/:host"),
    later_change("/api/agent-mysql-start/:host"),
    later_change("/api/agent-custom-command/:host/:command"),
    later_change("/api/agent-seed/:targetHost/:sourceHost"),
    later_change("/api/agent-active-seeds/:host"),
    later_change("/api/agent-recent-seeds/:host"),
    later_change("/api/agent-seed-details/:seedId"),
    later_change("/api/seeds"),
    later_change("/api/agent-seed-states/:seedId"),
    later_change("/api/agent-abort-seed/:seedId"),
    // --- Percona's ---
    later_change("/api/change-master-credentials/:host/:port"),
    later_change("/api/enable-semi-sync-source/:host/:port"),
    later_change("/api/disable-semi-sync-source/:host/:port"),
    later("/api/discovery-queue-metrics-raw/:queue/:seconds"),
    later("/api/discovery-queue-metrics-aggregated/:queue/:seconds"),
    // --- what the stock client asks for beside them ---
    later_change("/api/move-gtid/:host/:port/:belowHost/:belowPort"),
    read("/api/tagged/:host/:port", Action::Tagged),
    later_change("/api/repoint-replicas/:host/:port/:belowHost/:belowPort"),
    later_change("/api/move-up-replicas/:host/:port/:belowHost/:belowPort"),
    later_change("/api/match-up-replicas/:host/:port/:belowHost/:belowPort"),
    // --- pages ---
    later("/"),
    later("/web"),
    later("/web/access-token"),
    later("/web/home"),
    later("/web/about"),
    later("/web/keep-calm"),
    later("/web/faq"),
    later("/web/status"),
    later("/web/clusters"),
    later("/web/clusters-analysis"),
    later("/web/discover"),
    later("/web/agents"),
    later("/web/seeds"),
    later("/web/cluster/:clusterName"),
    later("/web/cluster/alias/:clusterAlias"),
    later("/web/cluster/instance/:host/:port"),
    later("/web/cluster-pools/:clusterName"),
    later("/web/search/:searchString"),
    later("/web/search"),
    later("/web/audit"),
    later("/web/audit/:page"),
    later("/web/audit/instance/:host/:port"),
    later("/web/audit/instance/:host/:port/:page"),
    later("/web/audit-recovery"),
    later("/web/audit-recovery/:page"),
    later("/web/audit-recovery/id/:id"),
    later("/web/audit-recovery/uid/:uid"),
    later("/web/audit-recovery/cluster/:clusterName"),
    later("/web/audit-recovery/cluster/:clusterName/:page"),
    later("/web/audit-recovery/alias/:clusterAlias"),
    later("/web/audit-recovery/alias/:clusterAlias/:page"),
    later("/web/audit-recovery-steps/:uid"),
    later("/web/audit-failure-detection"),
    later("/web/audit-failure-detection/:page"),
    later("/web/audit-failure-detection/id/:id"),
    later("/web/audit-failure-detection/alias/:clusterAlias"),
    later("/web/audit-failure-detection/alias/:clusterAlias/:page"),
    later("/web/agent/:host"),
    later("/web/seed-details/:seedId"),
    // --- debug ---
    later_local("/debug/vars"),
    later_local("/debug/metrics"),
    later_local("/debug/pprof"),
    later_local("/debug/pprof/cmdline"),
    later_local("/debug/pprof/profile"),
    later_local("/debug/pprof/symbol"),
    later_local("/debug/pprof/block"),
    later_local("/debug/pprof/heap"),
    later_local("/debug/pprof/goroutine"),
    later_local("/debug/pprof/threadcreate"),
];

/// Whether this path, which ends in no slash, is that of a row when all of them stand below `prefix`.
#[must_use]
pub fn is_taken(prefix: &str, path: &str) -> bool {
    ROUTES.iter().any(|route| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest == route.path.trim_end_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Routes that ask for more than they did: a change needs the right to write, whatever the original asked.
    const NEWLY_GUARDED: &[&str] = &[
        "tag",
        "untag",
        "untag-all",
        "snapshot-topologies",
        "submit-masters-to-kv-stores",
        "raft-snapshot",
    ];

    #[test]
    fn the_table_has_every_route_that_may_be_asked_for() {
        let mut listed = BTreeMap::new();
        for line in include_str!("original-routes.txt").lines() {
            if line.starts_with('#') {
                continue;
            }
            let parts: Vec<&str> = line.split(' ').collect();
            let [path, answered, write] = parts[..] else {
                panic!("{line}");
            };
            assert!(
                listed
                    .insert(path, (answered == "P", write == "W"))
                    .is_none(),
                "{path}"
            );
        }
        assert!(listed.len() > 290, "{}", listed.len());
        // What the original has not is under a version of its own.
        let theirs = ROUTES
            .iter()
            .filter(|route| !route.path.starts_with("/api/v2/"));
        for route in theirs {
            let (by_leader, write) = listed.remove(route.path).expect(route.path);
            assert_eq!(
                route.answered == Answered::ByLeader,
                by_leader,
                "{}",
                route.path
            );
            let name = route.path.split('/').nth(2).unwrap_or_default();
            let guarded = write || NEWLY_GUARDED.contains(&name);
            assert_eq!(route.kind == Kind::Change, guarded, "{}", route.path);
        }
        assert!(listed.is_empty(), "not in the table: {listed:?}");
    }
}
