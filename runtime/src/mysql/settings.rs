//! What the adapter has to know to reach and to read servers. Taken from the configuration by whoever starts it.

use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

/// How the own connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    Off,
    /// `MySQLTopologyUseMutualTLS`
    Required,
    /// `MySQLTopologyUseMixedTLS`: plain first; a server that answers error 3159 or 1045 is dialled with TLS from then on.
    #[default]
    Mixed,
}

/// `MySQLHostnameResolveMethod`: the name by which a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnName {
    /// The name that was dialled.
    None,
    #[default]
    HostName,
    ReportHost,
}

/// One column of one row, asked of every server; overrides what the pattern found.
#[derive(Debug, Clone, Default)]
pub struct DetectQueries {
    pub cluster_alias: Option<String>,
    pub cluster_domain: Option<String>,
    pub instance_alias: Option<String>,
    pub promotion_rule: Option<String>,
    pub data_center: Option<String>,
    pub region: Option<String>,
    pub physical_environment: Option<String>,
    pub semi_sync_enforced: Option<String>,
}

/// Everything configurable about reading servers.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    pub user: String,
    pub password: String,
    /// `MySQLConnectTimeoutSeconds`: from the first packet to the completed login.
    pub connect_timeout: Duration,
    /// `MySQLDiscoveryReadTimeoutSeconds`: for the whole of a probe after the login.
    pub read_timeout: Duration,
    /// `MySQLTopologyMaxAllowedPacket` in bytes.
    pub max_allowed_packet: usize,
    pub tls: TlsMode,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_skip_verify: bool,
    /// `DiscoverByShowSlaveHosts`; otherwise, or where the list is empty, by the process list.
    pub discover_by_show_replicas: bool,
    pub own_name: OwnName,
    pub data_center_pattern: Option<Regex>,
    pub region_pattern: Option<Regex>,
    pub physical_environment_pattern: Option<Regex>,
    pub detect: DetectQueries,
    /// `ReplicationLagQuery`: asked of replicas at each probe.
    pub lag_query: Option<String>,
    /// `ReplicationCredentialsQuery`: user, password, and optionally TLS CA, certificate and key.
    pub credentials_query: Option<String>,
    /// How often the process list, the list of replicas, the channel's configuration and the detection queries are read
    /// without a reason.
    pub slow_interval: Duration,
    /// How often rights and installed plugins are read, and refused statements tried again, without a reason.
    pub rare_interval: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        ProbeSettings {
            user: String::new(),
            password: String::new(),
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(10),
            max_allowed_packet: 64 << 20,
            tls: TlsMode::Mixed,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_skip_verify: false,
            discover_by_show_replicas: false,
            own_name: OwnName::HostName,
            data_center_pattern: None,
            region_pattern: None,
            physical_environment_pattern: None,
            detect: DetectQueries::default(),
            lag_query: None,
            credentials_query: None,
            slow_interval: Duration::from_secs(60),
            rare_interval: Duration::from_secs(3600),
        }
    }
}
