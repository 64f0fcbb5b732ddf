//! The one table of every key that may stand in a configuration file.
//!
//! It decides which names exist, what type and range each value has, what holds when no file sets it, whether
//! and whether this program obeys it. It never looks at a value: [`super::values`]
//! decodes by this table, [`super::check`] holds the rules that concern more than one key.
//!
//! What holds: names are unique without regard to case, every default passes its own rule, and every key that
//! is neither dead nor a synonym is read by [`super::settings`] (all three are tested).

/// What JSON a key takes. The names are those of the original's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Uint,
    Int32,
    Int64,
    Float32,
    Text,
    List,
    Map,
}

impl Kind {
    /// The documentation's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Float32 => "float32",
            Kind::Text => "string",
            Kind::List => "list of string",
            Kind::Map => "map",
        }
    }

    /// What a person is told to write, as it reads after "must be".
    pub fn wanted(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Int | Kind::Int32 | Kind::Int64 => "a whole number",
            Kind::Uint => "a whole number that is not negative",
            Kind::Float32 => "a number",
            Kind::Text => "a text in quotes",
            Kind::List => "a list of texts",
            Kind::Map => "an object whose values are texts",
        }
    }
}

/// The value that holds when no file sets the key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(&'static str),
    List(&'static [&'static str]),
    EmptyMap,
}

/// What a single value must satisfy beyond its type. For a list it concerns each entry, for a map each key.
/// Rules that an empty text could not meet let it pass: empty means off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Any,
    /// The least and the greatest number.
    Range(i32, i32),
    /// The least number.
    AtLeast(i32),
    Regex,
    /// A regular expression with at least one group: the group is what is taken from the host name.
    RegexWithGroup,
    /// `*`, `alias=TEXT`, `alias~=REGEX`, a cluster's name or alias, or a regular expression on the name.
    ClusterFilter,
    /// One of these, without regard to case.
    OneOf(&'static [&'static str]),
    /// `mysql`, empty, or anything with `sqlite` in it.
    Backend,
    /// `host:port` or `:port`.
    Listen,
    /// `host` or `host:port`.
    Instance,
    /// `scheme://host:port` and nothing behind it.
    HttpUrl,
    /// Begins with a slash.
    RoutePath,
}

/// Whether this program obeys a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Effective,
    /// Known and checked, obeyed by nothing so far: reported at start when a file sets it.
    NotYet,
    /// The original never obeyed it either.
    Dead,
    /// An older name: its value is folded into the key named here.
    SynonymOf(&'static str),
}

/// Where a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Original,
    Percona,
    Ours,
}

/// One key of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub preset: Preset,
    pub rule: Rule,
    pub effect: Effect,
    pub origin: Origin,
    /// Shown only as asterisks.
    pub secret: bool,
    /// Closes something when set. While it is not obeyed, setting it deserves more than a line among others.
    pub guards: bool,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, preset: Preset) -> Key {
        Key {
            name,
            kind,
            preset,
            rule: Rule::Any,
            effect: Effect::NotYet,
            origin: Origin::Original,
            secret: false,
            guards: false,
        }
    }

    const fn rule(self, rule: Rule) -> Key {
        Key { rule, ..self }
    }

    const fn effective(self) -> Key {
        Key {
            effect: Effect::Effective,
            ..self
        }
    }

    const fn dead(self) -> Key {
        Key {
            effect: Effect::Dead,
            ..self
        }
    }

    const fn synonym_of(self, name: &'static str) -> Key {
        Key {
            effect: Effect::SynonymOf(name),
            ..self
        }
    }

    const fn percona(self) -> Key {
        Key {
            origin: Origin::Percona,
            ..self
        }
    }

    const fn ours(self) -> Key {
        Key {
            origin: Origin::Ours,
            ..self
        }
    }

    const fn secret(self) -> Key {
        Key {
            secret: true,
            ..self
        }
    }

    const fn guards(self) -> Key {
        Key {
            guards: true,
            ..self
        }
    }
}

const fn flag(name: &'static str, preset: bool) -> Key {
    Key::new(name, Kind::Bool, Preset::Bool(preset))
}

const fn int(name: &'static str, preset: i64) -> Key {
    Key::new(name, Kind::Int, Preset::Int(preset))
}

const fn uint(name: &'static str, preset: u64) -> Key {
    Key::new(name, Kind::Uint, Preset::Uint(preset))
}

const fn int32(name: &'static str, preset: i64) -> Key {
    Key::new(name, Kind::Int32, Preset::Int(preset))
}

const fn int64(name: &'static str, preset: i64) -> Key {
    Key::new(name, Kind::Int64, Preset::Int(preset))
}

const fn float32(name: &'static str, preset: f64) -> Key {
    Key::new(name, Kind::Float32, Preset::Float(preset))
}

const fn text(name: &'static str, preset: &'static str) -> Key {
    Key::new(name, Kind::Text, Preset::Text(preset))
}

const fn list(name: &'static str, preset: &'static [&'static str]) -> Key {
    Key::new(name, Kind::List, Preset::List(preset))
}

const fn map(name: &'static str) -> Key {
    Key::new(name, Kind::Map, Preset::EmptyMap)
}

/// The key of this name, without regard to case.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name.eq_ignore_ascii_case(name))
}

/// The historic name as documented, if `name` is one: accepted, read by nothing, here or in the original.
pub fn find_historic(name: &str) -> Option<&'static str> {
    HISTORIC
        .iter()
        .copied()
        .find(|historic| historic.eq_ignore_ascii_case(name))
}

/// Names that files written for old versions, and the original's own samples, still carry.
pub const HISTORIC: [&str; 18] = [
    "ActiveNodeExpireSeconds",
    "AgentAutoDiscover",
    "AuditPageSize",
    "BinlogFileHistoryDays",
    "BufferBinlogEvents",
    "DatabaselessMode__experimental",
    "DiscoveryPollSeconds",
    "HttpTimeoutSeconds",
    "MaintenanceExpireMinutes",
    "MaintenanceOwner",
    "MaintenancePurgeDays",
    "MaxOutdatedKeysToShow",
    "MySQLTopologyMaxPoolConnections",
    "PseudoGTIDCoordinatesHistoryHeuristicMinutes",
    "PseudoGTIDPreferIndependentMultiMatch",
    "ReadLongRunningQueries",
    "SlaveStartPostWaitMilliseconds",
    "StatusSimpleHealth",
];

/// Every key, by subject, in the order of the documentation. One line a key, whatever its length.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    // Process, listeners, display.
    flag("Debug", false).effective(),
    flag("EnableSyslog", false),
    text("ListenAddress", ":3000").rule(Rule::Listen).effective(),
    text("ListenSocket", ""),
    text("URLPrefix", "").effective(),
    text("WebMessage", ""),
    text("RemoveTextFromHostnameDisplay", ""),
    flag("ReadOnly", false).effective().guards(),
    text("StatusEndpoint", "/api/status").rule(Rule::RoutePath).effective(),
    flag("StatusOUVerify", false).effective().guards(),
    text("PrependMessagesWithOrcIdentity", "").rule(Rule::OneOf(&["", "none", "FQDN", "hostname", "custom"])).effective().percona(),
    text("CustomOrcIdentity", "").effective().percona(),
    // HTTP authentication and TLS.
    text("AuthenticationMethod", "").rule(Rule::OneOf(&["", "basic", "multi", "proxy", "token", "oauth"])).effective().guards(),
    text("HTTPAuthUser", "").effective(),
    text("HTTPAuthPassword", "").effective().secret(),
    text("AuthUserHeader", "X-Forwarded-User").effective(),
    list("PowerAuthUsers", &["*"]).effective(),
    list("PowerAuthGroups", &[]),
    uint("AccessTokenUseExpirySeconds", 60),
    uint("AccessTokenExpiryMinutes", 1440),
    text("OAuthClientId", "").dead(),
    text("OAuthClientSecret", "").dead().secret(),
    list("OAuthScopes", &[]).dead(),
    flag("UseSSL", false).effective().guards(),
    flag("UseMutualTLS", false).effective().guards(),
    flag("SSLSkipVerify", false).effective(),
    text("SSLPrivateKeyFile", "").effective(),
    text("SSLCertFile", "").effective(),
    text("SSLCAFile", "").effective(),
    list("SSLValidOUs", &[]).effective().guards(),
    // Backend database.
    text("BackendDB", "mysql").rule(Rule::Backend).effective(),
    text("SQLite3DataFile", "").effective(),
    flag("SkipOrchestratorDatabaseUpdate", false).effective(),
    flag("PanicIfDifferentDatabaseDeploy", false).effective(),
    text("MySQLOrchestratorHost", "").effective(),
    uint("MySQLOrchestratorPort", 3306).rule(Rule::Range(1, 65_535)).effective(),
    text("MySQLOrchestratorDatabase", "").effective(),
    text("MySQLOrchestratorUser", "").effective(),
    text("MySQLOrchestratorPassword", "").secret().effective(),
    text("MySQLOrchestratorCredentialsConfigFile", "").effective(),
    int("MySQLOrchestratorMaxPoolConnections", 128).rule(Rule::AtLeast(0)),
    int("MySQLOrchestratorReadTimeoutSeconds", 30).rule(Rule::AtLeast(0)).effective(),
    flag("MySQLOrchestratorRejectReadOnly", false).effective(),
    int32("MySQLOrchestratorMaxAllowedPacket", -1).rule(Rule::Range(-1, 1_073_741_824)).percona().effective(),
    flag("MySQLOrchestratorUseMutualTLS", false).effective(),
    flag("MySQLOrchestratorSSLSkipVerify", false).effective(),
    text("MySQLOrchestratorSSLPrivateKeyFile", "").effective(),
    text("MySQLOrchestratorSSLCertFile", "").effective(),
    text("MySQLOrchestratorSSLCAFile", "").effective(),
    int("MySQLConnectTimeoutSeconds", 2).rule(Rule::AtLeast(0)).effective(),
    int("MySQLConnectionLifetimeSeconds", 0).rule(Rule::AtLeast(0)),
    // Raft.
    flag("RaftEnabled", false).effective(),
    text("RaftBind", "127.0.0.1:10008").effective(),
    text("RaftAdvertise", "").effective(),
    text("RaftDataDir", "").effective(),
    int("DefaultRaftPort", 10_008).rule(Rule::Range(0, 65_535)).effective(),
    list("RaftNodes", &[]).effective(),
    text("HTTPAdvertise", "").rule(Rule::HttpUrl).effective(),
    flag("ExpectFailureAnalysisConcensus", true).dead(),
    // Topology connections and TLS.
    text("MySQLTopologyUser", "").effective(),
    text("MySQLTopologyPassword", "").effective().secret(),
    text("MySQLTopologyCredentialsConfigFile", "").effective(),
    int("MySQLDiscoveryReadTimeoutSeconds", 10).rule(Rule::AtLeast(0)).effective(),
    int("MySQLTopologyReadTimeoutSeconds", 600).rule(Rule::AtLeast(0)),
    int32("MySQLTopologyMaxAllowedPacket", -1).rule(Rule::Range(-1, 1_073_741_824)).effective().percona(),
    flag("MySQLTopologyUseMutualTLS", false).effective(),
    flag("MySQLTopologyUseMixedTLS", true).effective(),
    flag("MySQLTopologySSLSkipVerify", false).effective(),
    text("MySQLTopologySSLPrivateKeyFile", "").effective(),
    text("MySQLTopologySSLCertFile", "").effective(),
    text("MySQLTopologySSLCAFile", "").effective(),
    uint("TLSCacheTTLFactor", 100),
    // Discovery.
    int("DefaultInstancePort", 3306).rule(Rule::Range(1, 65_535)).effective(),
    uint("InstancePollSeconds", 5).rule(Rule::AtLeast(1)).effective(),
    uint("ReasonableInstanceCheckSeconds", 1).effective(),
    float32("DeadInstancePollSecondsMultiplyFactor", 1.0).rule(Rule::AtLeast(1)).percona(),
    uint("DeadInstancePollSecondsMax", 300).percona(),
    uint("DeadInstanceDiscoveryMaxConcurrency", 0).percona(),
    flag("DeadInstanceDiscoveryLogsEnabled", false).percona(),
    uint("DiscoveryMaxConcurrency", 300).rule(Rule::AtLeast(1)).effective(),
    uint("DiscoveryQueueCapacity", 100_000).rule(Rule::AtLeast(1)),
    int("DiscoveryQueueMaxStatisticsSize", 120).rule(Rule::AtLeast(0)),
    uint("DiscoveryCollectionRetentionSeconds", 120),
    list("DiscoverySeeds", &[]).rule(Rule::Instance).effective(),
    flag("DiscoverByShowSlaveHosts", false).effective(),
    list("DiscoveryIgnoreHostnameFilters", &[]).rule(Rule::Regex).effective(),
    list("DiscoveryIgnoreReplicaHostnameFilters", &[]).rule(Rule::Regex).effective(),
    list("DiscoveryIgnoreMasterHostnameFilters", &[]).rule(Rule::Regex).effective(),
    list("DiscoveryIgnoreReplicationUsernameFilters", &[]).rule(Rule::Regex).percona(),
    flag("EnableDiscoveryFiltersLogs", true).percona(),
    flag("SkipMaxScaleCheck", true),
    flag("LowerReplicaVersionAllowed", false).percona(),
    uint("UnseenInstanceForgetHours", 240).effective(),
    uint("SnapshotTopologiesIntervalHours", 0),
    flag("BufferInstanceWrites", false),
    int("InstanceWriteBufferSize", 100),
    int("InstanceFlushIntervalMilliseconds", 100).rule(Rule::AtLeast(0)),
    uint("InstanceBulkOperationsWaitTimeoutSeconds", 10),
    int("MaxConcurrentReplicaOperations", 5).rule(Rule::AtLeast(1)),
    // Names, classification, lag.
    text("HostnameResolveMethod", "default").rule(Rule::OneOf(&["", "none", "default", "cname", "ip"])),
    text("MySQLHostnameResolveMethod", "@@hostname").rule(Rule::OneOf(&["", "none", "default", "hostname", "@@hostname", "report_host", "@@report_host"])).effective(),
    flag("SkipBinlogServerUnresolveCheck", true),
    int("ExpiryHostnameResolvesMinutes", 60).rule(Rule::AtLeast(0)),
    text("RejectHostnameResolvePattern", "").rule(Rule::Regex),
    text("SlaveLagQuery", "").synonym_of("ReplicationLagQuery"),
    text("ReplicationLagQuery", "").effective(),
    text("ReplicationCredentialsQuery", "").effective(),
    map("ClusterNameToAlias").rule(Rule::Regex).effective(),
    text("DetectClusterAliasQuery", "").effective(),
    text("DetectClusterDomainQuery", "").effective(),
    text("DetectInstanceAliasQuery", "").effective(),
    text("DetectPromotionRuleQuery", "").effective(),
    text("DataCenterPattern", "").rule(Rule::RegexWithGroup).effective(),
    text("RegionPattern", "").rule(Rule::RegexWithGroup).effective(),
    text("PhysicalEnvironmentPattern", "").rule(Rule::RegexWithGroup).effective(),
    text("DetectDataCenterQuery", "").effective(),
    text("DetectRegionQuery", "").effective(),
    text("DetectPhysicalEnvironmentQuery", "").effective(),
    text("DetectSemiSyncEnforcedQuery", "").effective(),
    int("ReasonableReplicationLagSeconds", 10).rule(Rule::AtLeast(0)).effective(),
    int("ReasonableMaintenanceReplicationLagSeconds", 20).rule(Rule::AtLeast(0)).effective(),
    list("ProblemIgnoreHostnameFilters", &[]).rule(Rule::Regex).effective(),
    flag("VerifyReplicationFilters", false),
    flag("UseSuperReadOnly", false).effective(),
    // Pools, candidates, tags.
    flag("SupportFuzzyPoolHostnames", true),
    uint("InstancePoolExpiryMinutes", 60),
    list("PromotionIgnoreHostnameFilters", &[]).rule(Rule::Regex).effective(),
    uint("CandidateInstanceExpireMinutes", 60).effective(),
    // Audit.
    text("AuditLogFile", ""),
    flag("AuditToSyslog", false),
    flag("AuditToBackendDB", false),
    uint("AuditPurgeDays", 7).effective(),
    // Pseudo-GTID and binlog scanning.
    flag("AutoPseudoGTID", false),
    text("PseudoGTIDPattern", ""),
    flag("PseudoGTIDPatternIsFixedSubstring", false),
    text("PseudoGTIDMonotonicHint", ""),
    text("DetectPseudoGTIDQuery", ""),
    int("BinlogEventsChunkSize", 10_000).rule(Rule::AtLeast(1)),
    list("SkipBinlogEventsContaining", &[]),
    // Failure detection and recovery.
    flag("ReduceReplicationAnalysisCount", true).effective(),
    int("FailureDetectionPeriodBlockMinutes", 60).rule(Rule::AtLeast(0)).effective(),
    int("RecoveryPeriodBlockMinutes", 60).rule(Rule::AtLeast(0)).synonym_of("RecoveryPeriodBlockSeconds"),
    int("RecoveryPeriodBlockSeconds", 3600).rule(Rule::AtLeast(0)).effective(),
    list("RecoveryIgnoreHostnameFilters", &[]).rule(Rule::Regex).effective(),
    list("RecoverMasterClusterFilters", &[]).rule(Rule::ClusterFilter).effective(),
    list("RecoverIntermediateMasterClusterFilters", &[]).rule(Rule::ClusterFilter),
    text("ProcessesShellCommand", "bash").effective(),
    list("OnFailureDetectionProcesses", &[]).effective(),
    list("PreGracefulTakeoverProcesses", &[]),
    list("PreFailoverProcesses", &[]).effective(),
    list("PostFailoverProcesses", &[]).effective(),
    list("PostUnsuccessfulFailoverProcesses", &[]).effective(),
    list("PostMasterFailoverProcesses", &[]).effective(),
    list("PostIntermediateMasterFailoverProcesses", &[]),
    list("PostGracefulTakeoverProcesses", &[]),
    list("PostTakeMasterProcesses", &[]),
    flag("RecoverNonWriteableMaster", false).effective(),
    flag("CoMasterRecoveryMustPromoteOtherCoMaster", true),
    flag("DetachLostSlavesAfterMasterFailover", true).synonym_of("DetachLostReplicasAfterMasterFailover"),
    flag("DetachLostReplicasAfterMasterFailover", false),
    flag("ApplyMySQLPromotionAfterMasterFailover", true).effective(),
    flag("PreventCrossDataCenterMasterFailover", false).effective(),
    flag("PreventCrossRegionMasterFailover", false).effective(),
    uint("MasterFailoverLostInstancesDowntimeMinutes", 0).effective(),
    flag("MasterFailoverDetachSlaveMasterHost", false).synonym_of("MasterFailoverDetachReplicaMasterHost"),
    flag("MasterFailoverDetachReplicaMasterHost", false),
    uint("FailMasterPromotionOnLagMinutes", 0).effective(),
    flag("FailMasterPromotionIfSQLThreadNotUpToDate", false).effective(),
    flag("DelayMasterPromotionIfSQLThreadNotUpToDate", false).effective(),
    uint("PostponeSlaveRecoveryOnLagMinutes", 0).synonym_of("PostponeReplicaRecoveryOnLagMinutes"),
    uint("PostponeReplicaRecoveryOnLagMinutes", 0),
    list("OSCIgnoreHostnameFilters", &[]).rule(Rule::Regex),
    flag("EnforceExactSemiSyncReplicas", false).effective(),
    flag("RecoverLockedSemiSyncMaster", false),
    uint("ReasonableLockedSemiSyncMasterSeconds", 0).effective(),
    // Metrics export and key-value stores.
    text("GraphiteAddr", ""),
    text("GraphitePath", ""),
    flag("GraphiteConvertHostnameDotsToUnderscores", true),
    int("GraphitePollSeconds", 60),
    text("KVClusterMasterPrefix", "mysql/master").effective(),
    text("ConsulAddress", "").effective(),
    text("ConsulScheme", "http").rule(Rule::OneOf(&["http", "https"])).effective(),
    text("ConsulAclToken", "").secret().effective(),
    flag("ConsulCrossDataCenterDistribution", false).effective(),
    text("ConsulKVStoreProvider", "consul").rule(Rule::OneOf(&["", "consul", "consul-txn", "consul_txn"])).effective(),
    int("ConsulMaxKVsPerTransaction", 5),
    text("ZkAddress", ""),
    // Agents and seeding.
    flag("ServeAgentsHttp", false),
    text("AgentsServerPort", ":3001"),
    flag("AgentsUseSSL", false),
    flag("AgentsUseMutualTLS", false),
    flag("AgentSSLSkipVerify", false),
    text("AgentSSLPrivateKeyFile", ""),
    text("AgentSSLCertFile", ""),
    text("AgentSSLCAFile", ""),
    list("AgentSSLValidOUs", &[]),
    uint("AgentPollMinutes", 60),
    uint("UnseenAgentForgetHours", 6),
    uint("StaleSeedFailMinutes", 60),
    int64("SeedAcceptableBytesDiff", 8192).rule(Rule::AtLeast(0)).dead(),
    int64("SeedWaitSecondsBeforeSend", 2).rule(Rule::AtLeast(0)),
    // The log and failover: the keys that the original does not have.
    text("LogFormat", "text").rule(Rule::OneOf(&["text", "json"])).effective().ours(),
    text("SafetyProfile", "successor").rule(Rule::OneOf(&["successor", "original"])).effective().ours(),
    flag("ObserveOnly", false).effective().ours().guards(),
    uint("PrimaryGonePatienceMilliseconds", 0).effective().ours(),
    uint("PlannedStopPatienceSeconds", 15).effective().ours(),
    text("PrimaryReturnPolicy", "resume").rule(Rule::OneOf(&["resume", "continue"])).effective().ours(),
    flag("ReopenRestartedPrimary", true).effective().ours(),
    uint("HaltDeadlineMilliseconds", 1500).rule(Rule::AtLeast(1)).effective().ours(),
    uint("DonorCatchupSeconds", 30).ours(),
    uint("PromotionDrainSecondsMax", 60).effective().ours(),
    uint("ProcessesTimeoutSeconds", 600).rule(Rule::AtLeast(1)).effective().ours(),
    flag("RefuseLossyPromotion", false).effective().ours(),
    flag("UseDelayedReplicaAsDonor", false).ours(),
    uint("WitnessQuorum", 0).effective().ours(),
    text("DeposedPrimaryAction", "read-only-and-kill").rule(Rule::OneOf(&["read-only-and-kill", "read-only", "report"])).effective().ours(),
    list("QuarantineSpareUsers", &[]).effective().ours(),
    // Raft: the keys that the original does not have.
    uint("RaftHeartbeatMillis", 50).rule(Rule::AtLeast(1)).effective().ours(),
    uint("RaftElectionTimeoutMillis", 250).rule(Rule::AtLeast(1)).effective().ours(),
    text("RaftTLSCertFile", "").effective().ours(),
    text("RaftTLSKeyFile", "").effective().ours(),
    text("RaftTLSCAFile", "").effective().ours(),
    flag("RaftTLSRefusePlainText", false).effective().ours().guards(),
    uint("RaftReplaceSilentSeconds", 30).effective().ours(),
    text("ConsulSSLCAFile", "").effective().ours(),
    uint("RaftReplacePerHour", 3).effective().ours(),
    uint("RaftSnapshotEntries", 5_000).rule(Rule::AtLeast(1)).effective().ours(),
    uint("RaftSnapshotHours", 24).rule(Rule::AtLeast(1)).effective().ours(),
    uint("RaftLogKeepEntries", 10_000).effective().ours(),
    uint("RaftLogMegabytesMax", 64).rule(Rule::Range(1, 65_536)).effective().ours(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Copied from the documentation of the original and of its fork: name, type, default, restart (what needs one here
    /// is another matter: [`super::super::policy::KEYS_OF_POLICY`]), fork, status.
    const DOCUMENTED: &str = include_str!("testdata/known-keys.tsv");

    fn preset_as_json(key: &Key) -> String {
        match key.preset {
            Preset::Bool(value) => value.to_string(),
            Preset::Int(value) => value.to_string(),
            Preset::Uint(value) => value.to_string(),
            Preset::Float(value) => value.to_string(),
            Preset::Text(value) => format!("{value:?}"),
            Preset::List(values) => format!("{values:?}"),
            Preset::EmptyMap => "{}".to_owned(),
        }
    }

    #[test]
    fn every_documented_key_is_known_with_its_type_and_default() {
        let mut documented = BTreeSet::new();
        for line in DOCUMENTED.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let column = |index: usize| columns.get(index).copied().unwrap_or_default();
            let key = find(column(0)).unwrap_or_else(|| panic!("{} is not known", column(0)));
            assert_eq!(key.name, column(0));
            assert_eq!(key.kind.name(), column(1), "type of {}", key.name);
            assert_eq!(preset_as_json(key), column(2), "default of {}", key.name);
            assert_eq!(
                key.origin == Origin::Percona,
                column(4) == "percona",
                "origin of {}",
                key.name
            );
            assert_eq!(
                key.effect == Effect::Dead,
                column(5) == "dead",
                "status of {}",
                key.name
            );
            assert_eq!(
                matches!(key.effect, Effect::SynonymOf(_)),
                column(5) == "synonym",
                "status of {}",
                key.name
            );
            documented.insert(key.name);
        }
        assert_eq!(documented.len(), 201);
        for key in KEYS {
            assert_eq!(
                key.origin == Origin::Ours,
                !documented.contains(key.name),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn names_are_unique_and_synonyms_lead_somewhere() {
        let mut seen = BTreeMap::new();
        for key in KEYS {
            assert_eq!(
                seen.insert(key.name.to_ascii_lowercase(), key.name),
                None,
                "{} twice",
                key.name
            );
            assert_eq!(
                find_historic(key.name),
                None,
                "{} is also historic",
                key.name
            );
            match key.effect {
                Effect::SynonymOf(name) => {
                    let target = find(name).unwrap_or_else(|| panic!("{name} is not known"));
                    assert!(
                        !matches!(target.effect, Effect::SynonymOf(_)),
                        "{name} is a synonym itself"
                    );
                }
                Effect::Effective | Effect::NotYet | Effect::Dead => {}
            }
        }
    }
}
