//! The configuration as the daemon uses it: plain types, by subject.
//!
//! [`Settings`] is a pure function of settled values; nothing is judged here. Numbers whose range was checked
//! are narrowed, texts that mean "off" when empty become `None`, spans of time become [`Duration`]. Every
//! pattern in a list compiled when it was read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::address::{self, Address};
use super::check::{raft_port_default, unguarded};
use super::error::Place;
use super::keys::KEYS;
use super::values::{Secrets, Values};

/// The longest span of time a setting can mean, in seconds: a hundred years. Longer ones are taken as this, so
/// that adding one to any time of day stays in range.
pub const SPAN_SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// The longest deadline of a statement or of a connection attempt, in seconds.
pub const TIMEOUT_SECONDS_MAX: u64 = 86_400;

/// How long a lost server is in downtime when `MasterFailoverLostInstancesDowntimeMinutes` is 0, in seconds.
const LOST_DOWNTIME_SECONDS: u64 = 365 * 86_400;

/// A password or token. It shows itself only through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "Secret(empty)"
        } else {
            "Secret(set)"
        })
    }
}

/// The whole configuration. The parts are for reading; dumps and comparisons look at the values they were made of.
#[derive(Clone, Debug)]
pub struct Settings {
    pub process: ProcessSettings,
    pub listen: ListenSettings,
    pub http_auth: HttpAuthSettings,
    pub http_tls: HttpTlsSettings,
    pub backend: BackendSettings,
    /// None when `RaftEnabled` is false.
    pub raft: Option<RaftSettings>,
    pub topology: TopologySettings,
    pub discovery: DiscoverySettings,
    pub names: NameSettings,
    pub classification: ClassificationSettings,
    pub lag: LagSettings,
    pub pools: PoolSettings,
    pub audit: AuditSettings,
    pub pseudo_gtid: PseudoGtidSettings,
    pub analysis: AnalysisSettings,
    pub recovery: RecoverySettings,
    pub failover: FailoverSettings,
    pub hooks: HookSettings,
    pub graphite: Option<GraphiteSettings>,
    pub kv: KvSettings,
    pub agents: AgentSettings,
    values: Values,
}

/// The process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    pub debug: bool,
    pub log_format: LogFormat,
    pub syslog: bool,
    /// Every privileged action is refused.
    pub read_only: bool,
    /// Analyse, detect, notify; change nothing.
    pub observe_only: bool,
    pub message_identity: MessageIdentity,
    pub custom_identity: String,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What precedes the message of an API answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageIdentity {
    None,
    Fqdn,
    Hostname,
    Custom,
}

/// The HTTP listener and what its pages show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// None only when there is a socket instead.
    pub address: Option<Address>,
    /// A Unix socket; with one, nothing listens on the address.
    pub socket: Option<PathBuf>,
    /// Empty, or a slash and a path without a slash at its end.
    pub url_prefix: String,
    pub status_endpoint: String,
    pub status_ou_verify: bool,
    pub web_message: String,
    pub remove_text_from_hostname_display: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationMethod {
    None,
    Basic,
    Multi,
    Proxy,
    Token,
    /// `oauth`: every action is denied.
    Deny,
}

/// Who may do what over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAuthSettings {
    pub method: AuthenticationMethod,
    pub user: String,
    pub password: Secret,
    pub user_header: String,
    pub power_users: Vec<String>,
    pub power_groups: Vec<String>,
    pub token_use_expiry: Duration,
    pub token_expiry: Duration,
}

/// TLS of the HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTlsSettings {
    pub enabled: bool,
    pub mutual: bool,
    pub valid_organizational_units: Vec<String>,
    pub material: TlsMaterial,
}

/// Certificates, and whether those of the other side are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMaterial {
    pub skip_verify: bool,
    pub key: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub authorities: Option<PathBuf>,
}

/// `max_allowed_packet` of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxAllowedPacket {
    DriverDefault,
    AskServer,
    Bytes(u32),
}

/// Where the projection of the replicated state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    pub kind: BackendKind,
    pub skip_schema_update: bool,
    pub panic_if_different_deploy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// A path, or a text containing `:memory:`.
    Sqlite {
        data_file: String,
    },
    Mysql(Box<MysqlBackend>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlBackend {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub credentials: Credentials,
    /// None is without bound.
    pub connections_max: Option<u64>,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    /// None is for ever.
    pub connection_lifetime: Option<Duration>,
    pub reject_read_only: bool,
    pub max_allowed_packet: MaxAllowedPacket,
    pub tls: bool,
    pub tls_material: TlsMaterial,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
}

/// Consensus among the daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftSettings {
    /// May name every interface.
    pub bind: Address,
    /// What others dial; never every interface.
    pub advertise: Address,
    pub data_dir: PathBuf,
    /// As written, with ports; empty is a cluster of this node alone.
    pub nodes: Vec<Address>,
    /// Of addresses without one.
    pub default_port: Option<u16>,
    /// `scheme://host:port`.
    pub http_advertise: Option<String>,
    pub heartbeat: Duration,
    /// The longest wait before a vote; the shortest is 60 % of it.
    pub election_timeout: Duration,
    pub replace_silent: Duration,
    pub replace_per_hour: u64,
    pub log: RaftLog,
    pub tls: RaftTls,
}

/// How much log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftLog {
    /// A snapshot is made after so many entries, and after so long.
    pub snapshot_entries: u64,
    pub snapshot_age_max: Duration,
    /// So many entries are kept behind a snapshot.
    pub keep_entries: u64,
    /// Beyond so many bytes a snapshot is made and the log is cut, whatever the others say.
    pub bytes_max: u64,
}

/// TLS between the daemons.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftTls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub authorities: Option<PathBuf>,
    pub refuses_plain: bool,
}

/// When TLS is used towards monitored servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyTls {
    Never,
    /// Where a server refuses a plain connection.
    Mixed,
    Always,
}

/// Connections to monitored servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologySettings {
    pub credentials: Credentials,
    pub connect_timeout: Duration,
    pub discovery_read_timeout: Duration,
    pub read_timeout: Duration,
    /// None is for ever.
    pub connection_lifetime: Option<Duration>,
    pub max_allowed_packet: MaxAllowedPacket,
    pub tls: TopologyTls,
    pub tls_material: TlsMaterial,
    /// How long it is remembered that a server demands TLS.
    pub tls_memory: Duration,
}

/// Finding and probing servers.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoverySettings {
    pub default_port: u16,
    pub poll: Duration,
    /// Grace beyond the poll before an unfinished check counts as failed.
    pub check_grace: Duration,
    /// At least 1: how much longer each further wait for an unreachable server is.
    pub dead_poll_factor: f64,
    pub dead_poll_max: Duration,
    /// 0: unreachable servers share the common queue.
    pub dead_concurrency_max: u64,
    pub dead_logs: bool,
    pub concurrency_max: u64,
    pub queue_capacity: u64,
    pub queue_statistics_max: u64,
    pub metrics_retention: Duration,
    pub seeds: Vec<Address>,
    pub by_show_replica_hosts: bool,
    pub ignore_hosts: Vec<String>,
    pub ignore_replica_hosts: Vec<String>,
    pub ignore_source_hosts: Vec<String>,
    pub ignore_replication_users: Vec<String>,
    pub filter_logs: bool,
    pub skip_maxscale_check: bool,
    pub lower_replica_version_allowed: bool,
    pub forget_unseen: Duration,
    /// None is never.
    pub topology_snapshot_interval: Option<Duration>,
    /// None: each server is written as it is seen.
    pub write_buffer: Option<WriteBuffer>,
    pub bulk_operation_wait: Duration,
    pub replica_operations_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBuffer {
    pub rows_max: u64,
    pub age_max: Duration,
}

/// How the name under which a server was found becomes its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostnameResolveMethod {
    /// Never resolved, nothing remembered.
    None,
    /// Kept.
    Keep,
    Cname,
    Ip,
}

/// What a server is asked for its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MysqlHostnameResolveMethod {
    /// Nothing: the name it was dialled by.
    None,
    Hostname,
    ReportHost,
}

/// Names of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSettings {
    pub resolve: HostnameResolveMethod,
    pub mysql_resolve: MysqlHostnameResolveMethod,
    pub skip_binlog_server_unresolve_check: bool,
    pub resolve_expiry: Duration,
    pub reject_pattern: Option<String>,
    pub problem_ignore_hosts: Vec<String>,
}

/// What a server is: its cluster's alias, its place. Queries and patterns; `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassificationSettings {
    /// Pattern on the cluster's name to alias.
    pub cluster_name_to_alias: BTreeMap<String, String>,
    pub cluster_alias_query: Option<String>,
    pub cluster_domain_query: Option<String>,
    pub instance_alias_query: Option<String>,
    pub promotion_rule_query: Option<String>,
    pub semi_sync_query: Option<String>,
    pub data_center_pattern: Option<String>,
    pub region_pattern: Option<String>,
    pub physical_environment_pattern: Option<String>,
    pub data_center_query: Option<String>,
    pub region_query: Option<String>,
    pub physical_environment_query: Option<String>,
}

/// Replication lag, and how replication is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagSettings {
    pub query: Option<String>,
    pub reasonable: Duration,
    pub reasonable_maintenance: Duration,
    pub replication_credentials_query: Option<String>,
    pub verify_replication_filters: bool,
    pub use_super_read_only: bool,
}

/// Pools and candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    pub fuzzy_hostnames: bool,
    pub pool_expiry: Duration,
    pub candidate_expiry: Duration,
    pub never_promote_hosts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    pub log_file: Option<PathBuf>,
    pub to_syslog: bool,
    pub to_backend: bool,
    pub purge_after: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PseudoGtidSettings {
    pub inject: bool,
    pub pattern: Option<String>,
    pub pattern_is_fixed_substring: bool,
    pub monotonic_hint: String,
    pub detect_query: Option<String>,
    pub events_chunk: u64,
    pub skip_events_containing: Vec<String>,
}

/// What is worth reporting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisSettings {
    pub reduce: bool,
    pub detection_block: Duration,
    pub ignore_hosts: Vec<String>,
    pub schema_change_ignore_hosts: Vec<String>,
    pub locked_semi_sync: Duration,
}

/// What a promotion does about a relay log that is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnappliedRelayLog {
    Promote,
    Wait,
    Fail,
}

/// Repairs as the original knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverySettings {
    pub block: Duration,
    /// Cluster filters, see the key.
    pub primary_filters: Vec<String>,
    pub intermediate_filters: Vec<String>,
    pub recover_non_writeable_primary: bool,
    pub co_primary_must_promote_other: bool,
    pub detach_lost_replicas: bool,
    pub apply_promotion: bool,
    pub prevent_cross_data_center: bool,
    pub prevent_cross_region: bool,
    pub lost_downtime: Duration,
    pub detach_promoted_source_host: bool,
    /// None: no lag keeps a server from promotion.
    pub fail_promotion_on_lag: Option<Duration>,
    pub unapplied_relay_log: UnappliedRelayLog,
    /// None: no replica is handled late.
    pub postpone_replica_on_lag: Option<Duration>,
    pub exact_semi_sync_replicas: bool,
    pub recover_locked_semi_sync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SafetyProfile {
    Successor,
    Original,
}

/// What happens when a primary that was judged dead answers before the promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryReturnPolicy {
    Resume,
    Continue,
}

/// What is done to a deposed primary at its first contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeposedPrimaryAction {
    ReadOnlyAndKill,
    ReadOnly,
    Report,
}

/// Judging deaths and keeping data: the settings that the original does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverSettings {
    pub profile: SafetyProfile,
    pub primary_gone_patience: Duration,
    pub planned_stop_patience: Duration,
    pub primary_return: PrimaryReturnPolicy,
    pub reopen_restarted_primary: bool,
    pub halt_deadline: Duration,
    pub donor_catchup: Duration,
    pub promotion_drain_max: Duration,
    pub refuse_lossy_promotion: bool,
    pub use_delayed_replica_as_donor: bool,
    /// None is a majority of the voters.
    pub witness_quorum: Option<u64>,
    pub deposed_primary_action: DeposedPrimaryAction,
    pub quarantine_spare_users: Vec<String>,
}

/// Commands run around detections and recoveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    pub shell: String,
    /// A hook that runs longer is ended.
    pub deadline: Duration,
    pub on_failure_detection: Vec<String>,
    pub pre_graceful_takeover: Vec<String>,
    pub pre_failover: Vec<String>,
    pub post_failover: Vec<String>,
    pub post_unsuccessful_failover: Vec<String>,
    pub post_primary_failover: Vec<String>,
    pub post_intermediate_failover: Vec<String>,
    pub post_graceful_takeover: Vec<String>,
    pub post_take_primary: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphiteSettings {
    pub address: String,
    pub path: String,
    pub convert_hostname_dots: bool,
    pub interval: Duration,
}

/// Key-value stores that learn who is primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSettings {
    /// Ends with exactly one slash.
    pub prefix: String,
    pub consul: Option<ConsulSettings>,
    /// `server[:port]`, several separated by commas.
    pub zookeeper: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsulWrites {
    Single,
    Transactions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulSettings {
    pub address: String,
    pub https: bool,
    /// Who vouches for it; none: anybody is believed to be it.
    pub authorities: Option<PathBuf>,
    pub token: Secret,
    pub cross_data_center: bool,
    pub writes: ConsulWrites,
    pub operations_per_transaction: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    pub serve: bool,
    pub listen: String,
    pub tls: bool,
    pub mutual_tls: bool,
    pub valid_organizational_units: Vec<String>,
    pub tls_material: TlsMaterial,
    pub poll: Duration,
    pub forget_unseen: Duration,
    pub stale_seed_fail: Duration,
    pub seed_wait_before_send: Duration,
}

impl Default for Settings {
    /// What holds without any file.
    fn default() -> Settings {
        match super::parse_files(&[], &|_| None) {
            Ok(loaded) => loaded.settings,
            Err(errors) => panic!("the defaults contradict each other: {errors}"),
        }
    }
}

impl Settings {
    pub(super) fn of(values: Values) -> Settings {
        Reader::new(&values).settings(values.clone())
    }

    /// Every key with its effective value, under the original's names. Historic names are not in it.
    pub fn dump_json(&self, secrets: Secrets) -> Json {
        self.values.to_json(secrets)
    }

    /// Keys that differ between two configurations and are obeyed only after a restart, in the table's order. Those that
    /// nothing obeys are told of when the file is read.
    pub fn reloadable_diff(old: &Settings, new: &Settings) -> Vec<&'static str> {
        Settings::changed(old, new)
            .into_iter()
            .filter(|name| !is_reloaded(name))
            .filter(|name| super::values::known(name).effect == super::keys::Effect::Effective)
            .collect()
    }

    /// Keys that differ between two configurations and are obeyed at once, in the table's order.
    pub fn reloaded_diff(old: &Settings, new: &Settings) -> Vec<&'static str> {
        Settings::changed(old, new)
            .into_iter()
            .filter(|name| is_reloaded(name))
            .collect()
    }

    /// Keys that differ between two configurations, in the table's order.
    pub fn changed(old: &Settings, new: &Settings) -> Vec<&'static str> {
        let differs = |name: &str| old.values.get(name) != new.values.get(name);
        KEYS.iter()
            .map(|key| key.name)
            .filter(|name| differs(name))
            .collect()
    }

    /// What a running process obeys after a reload: `new`, but for the keys that need a restart, which stay as
    /// they are in `self`.
    pub fn reloaded(&self, new: &Settings) -> Settings {
        let mut values = new.values.clone();
        for name in Settings::reloadable_diff(self, new) {
            values.adjust(name, self.values.get(name).clone());
        }
        Settings::of(values)
    }

    /// Where a key's value was set; none when it is a default, or no key.
    pub fn place(&self, name: &str) -> Option<&Place> {
        super::keys::find(name).and_then(|key| self.values.place(key.name))
    }

    /// Keys that are set so as to close something (access control, TLS), and are obeyed by nothing so far.
    pub fn unguarded(&self) -> Vec<&'static str> {
        unguarded(&self.values)
    }
}

/// Obeyed at once when the files are read again.
fn is_reloaded(name: &str) -> bool {
    super::policy::KEYS_OF_POLICY.contains(&name) || KEYS_OF_HOOKS.contains(&name)
}

/// The keys that [`HookSettings`] follows from.
pub const KEYS_OF_HOOKS: [&str; 11] = [
    "ProcessesShellCommand",
    "ProcessesTimeoutSeconds",
    "OnFailureDetectionProcesses",
    "PreGracefulTakeoverProcesses",
    "PreFailoverProcesses",
    "PostFailoverProcesses",
    "PostUnsuccessfulFailoverProcesses",
    "PostMasterFailoverProcesses",
    "PostIntermediateMasterFailoverProcesses",
    "PostGracefulTakeoverProcesses",
    "PostTakeMasterProcesses",
];

/// Reads settled values into types, and remembers which keys were asked for.
struct Reader<'v> {
    values: &'v Values,
    asked: RefCell<BTreeSet<String>>,
}

impl<'v> Reader<'v> {
    fn new(values: &'v Values) -> Reader<'v> {
        Reader {
            values,
            asked: RefCell::new(BTreeSet::new()),
        }
    }

    fn ask(&self, name: &str) -> &'v Values {
        self.asked.borrow_mut().insert(name.to_owned());
        self.values
    }

    fn flag(&self, name: &str) -> bool {
        self.ask(name).flag(name)
    }

    fn count(&self, name: &str) -> u64 {
        self.ask(name).count(name)
    }

    fn text(&self, name: &str) -> String {
        self.ask(name).text(name).to_owned()
    }

    fn lower(&self, name: &str) -> String {
        self.text(name).to_ascii_lowercase()
    }

    fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    fn secret(&self, name: &str) -> Secret {
        Secret(self.text(name))
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.ask(name).list(name).to_vec()
    }

    fn port(&self, name: &str) -> u16 {
        u16::try_from(self.count(name)).expect("the key's rule keeps a port within its range")
    }

    /// A span given in units of this many seconds.
    fn span(&self, name: &str, unit_seconds: u64) -> Duration {
        Duration::from_secs(
            self.count(name)
                .saturating_mul(unit_seconds)
                .min(SPAN_SECONDS_MAX),
        )
    }

    fn seconds(&self, name: &str) -> Duration {
        self.span(name, 1)
    }

    fn minutes(&self, name: &str) -> Duration {
        self.span(name, 60)
    }

    fn hours(&self, name: &str) -> Duration {
        self.span(name, 3600)
    }

    fn milliseconds(&self, name: &str) -> Duration {
        Duration::from_millis(self.count(name).min(SPAN_SECONDS_MAX * 1000))
    }

    /// A deadline; 0 is the longest there is.
    fn deadline(&self, name: &str) -> Duration {
        match self.count(name) {
            0 => Duration::from_secs(TIMEOUT_SECONDS_MAX),
            seconds => Duration::from_secs(seconds.min(TIMEOUT_SECONDS_MAX)),
        }
    }

    fn max_allowed_packet(&self, name: &str) -> MaxAllowedPacket {
        match self.ask(name).int(name) {
            0 => MaxAllowedPacket::AskServer,
            bytes => u32::try_from(bytes)
                .map_or(MaxAllowedPacket::DriverDefault, MaxAllowedPacket::Bytes),
        }
    }

    fn tls_material(
        &self,
        skip_verify: &str,
        key: &str,
        certificate: &str,
        authorities: &str,
    ) -> TlsMaterial {
        TlsMaterial {
            skip_verify: self.flag(skip_verify),
            key: self.path(key),
            certificate: self.path(certificate),
            authorities: self.path(authorities),
        }
    }

    fn settings(&self, values: Values) -> Settings {
        Settings {
            process: self.process(),
            listen: self.listen(),
            http_auth: self.http_auth(),
            http_tls: self.http_tls(),
            backend: self.backend(),
            raft: self.raft(),
            topology: self.topology(),
            discovery: self.discovery(),
            names: self.names(),
            classification: self.classification(),
            lag: self.lag(),
            pools: self.pools(),
            audit: self.audit(),
            pseudo_gtid: self.pseudo_gtid(),
            analysis: self.analysis(),
            recovery: self.recovery(),
            failover: self.failover(),
            hooks: self.hooks(),
            graphite: self.graphite(),
            kv: self.kv(),
            agents: self.agents(),
            values,
        }
    }

    fn process(&self) -> ProcessSettings {
        ProcessSettings {
            debug: self.flag("Debug"),
            log_format: match self.lower("LogFormat").as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            syslog: self.flag("EnableSyslog"),
            read_only: self.flag("ReadOnly"),
            observe_only: self.flag("ObserveOnly"),
            message_identity: match self.lower("PrependMessagesWithOrcIdentity").as_str() {
                "fqdn" => MessageIdentity::Fqdn,
                "hostname" => MessageIdentity::Hostname,
                "custom" => MessageIdentity::Custom,
                _ => MessageIdentity::None,
            },
            custom_identity: self.text("CustomOrcIdentity"),
        }
    }

    fn listen(&self) -> ListenSettings {
        ListenSettings {
            address: address::listen(&self.text("ListenAddress")).ok(),
            socket: self.path("ListenSocket"),
            url_prefix: self.text("URLPrefix"),
            status_endpoint: self.text("StatusEndpoint"),
            status_ou_verify: self.flag("StatusOUVerify"),
            web_message: self.text("WebMessage"),
            remove_text_from_hostname_display: self.text("RemoveTextFromHostnameDisplay"),
        }
    }

    fn http_auth(&self) -> HttpAuthSettings {
        HttpAuthSettings {
            method: match self.lower("AuthenticationMethod").as_str() {
                "" => AuthenticationMethod::None,
                "basic" => AuthenticationMethod::Basic,
                "multi" => AuthenticationMethod::Multi,
                "proxy" => AuthenticationMethod::Proxy,
                "token" => AuthenticationMethod::Token,
                _ => AuthenticationMethod::Deny,
            },
            user: self.text("HTTPAuthUser"),
            password: self.secret("HTTPAuthPassword"),
            user_header: self.text("AuthUserHeader"),
            power_users: self.list("PowerAuthUsers"),
            power_groups: self.list("PowerAuthGroups"),
            token_use_expiry: self.seconds("AccessTokenUseExpirySeconds"),
            token_expiry: self.minutes("AccessTokenExpiryMinutes"),
        }
    }

    fn http_tls(&self) -> HttpTlsSettings {
        HttpTlsSettings {
            enabled: self.flag("UseSSL"),
            mutual: self.flag("UseMutualTLS"),
            valid_organizational_units: self.list("SSLValidOUs"),
            material: self.tls_material(
                "SSLSkipVerify",
                "SSLPrivateKeyFile",
                "SSLCertFile",
                "SSLCAFile",
            ),
        }
    }

    fn backend(&self) -> BackendSettings {
        let data_file = self.text("SQLite3DataFile");
        let mysql = self.mysql_backend();
        BackendSettings {
            kind: if self.lower("BackendDB").contains("sqlite") {
                BackendKind::Sqlite { data_file }
            } else {
                BackendKind::Mysql(Box::new(mysql))
            },
            skip_schema_update: self.flag("SkipOrchestratorDatabaseUpdate"),
            panic_if_different_deploy: self.flag("PanicIfDifferentDatabaseDeploy"),
        }
    }

    fn mysql_backend(&self) -> MysqlBackend {
        MysqlBackend {
            host: self.text("MySQLOrchestratorHost"),
            port: self.port("MySQLOrchestratorPort"),
            database: self.text("MySQLOrchestratorDatabase"),
            credentials: Credentials {
                user: self.text("MySQLOrchestratorUser"),
                password: self.secret("MySQLOrchestratorPassword"),
            },
            connections_max: Some(self.count("MySQLOrchestratorMaxPoolConnections"))
                .filter(|most| *most > 0),
            connect_timeout: self.deadline("MySQLConnectTimeoutSeconds"),
            read_timeout: self.deadline("MySQLOrchestratorReadTimeoutSeconds"),
            connection_lifetime: some_span(self.seconds("MySQLConnectionLifetimeSeconds")),
            reject_read_only: self.flag("MySQLOrchestratorRejectReadOnly"),
            max_allowed_packet: self.max_allowed_packet("MySQLOrchestratorMaxAllowedPacket"),
            tls: self.flag("MySQLOrchestratorUseMutualTLS"),
            tls_material: self.tls_material(
                "MySQLOrchestratorSSLSkipVerify",
                "MySQLOrchestratorSSLPrivateKeyFile",
                "MySQLOrchestratorSSLCertFile",
                "MySQLOrchestratorSSLCAFile",
            ),
        }
    }

    fn raft(&self) -> Option<RaftSettings> {
        let enabled = self.flag("RaftEnabled");
        let port_default = raft_port_default(self.ask("DefaultRaftPort"));
        let address = |name: &str| address::bind(&self.text(name), port_default);
        let (bind, advertise) = (address("RaftBind"), address("RaftAdvertise"));
        let nodes: Result<Vec<Address>, String> = self
            .list("RaftNodes")
            .iter()
            .map(|text| address::dial(text, port_default))
            .collect();
        let settings = |bind, advertise, nodes| RaftSettings {
            bind,
            advertise,
            nodes,
            default_port: port_default,
            data_dir: PathBuf::from(self.text("RaftDataDir")),
            http_advertise: self.optional("HTTPAdvertise"),
            heartbeat: self.milliseconds("RaftHeartbeatMillis"),
            election_timeout: self.milliseconds("RaftElectionTimeoutMillis"),
            replace_silent: self.seconds("RaftReplaceSilentSeconds"),
            replace_per_hour: self.count("RaftReplacePerHour"),
            log: RaftLog {
                snapshot_entries: self.count("RaftSnapshotEntries"),
                snapshot_age_max: self.hours("RaftSnapshotHours"),
                keep_entries: self.count("RaftLogKeepEntries"),
                bytes_max: self.count("RaftLogMegabytesMax").saturating_mul(1 << 20),
            },
            tls: RaftTls {
                certificate: self.optional("RaftTLSCertFile").map(PathBuf::from),
                key: self.optional("RaftTLSKeyFile").map(PathBuf::from),
                authorities: self.optional("RaftTLSCAFile").map(PathBuf::from),
                refuses_plain: self.flag("RaftTLSRefusePlainText"),
            },
        };
        // Placeholders are common in files that do not enable raft: only an enabled raft has checked addresses.
        enabled.then(|| match (bind, advertise, nodes) {
            (Ok(bind), Ok(advertise), Ok(nodes)) => settings(bind, advertise, nodes),
            refused => {
                panic!("addresses of raft passed the check and are refused now: {refused:?}")
            }
        })
    }

    fn topology(&self) -> TopologySettings {
        let (always, mixed) = (
            self.flag("MySQLTopologyUseMutualTLS"),
            self.flag("MySQLTopologyUseMixedTLS"),
        );
        let memory_seconds = self
            .count("TLSCacheTTLFactor")
            .saturating_mul(self.count("InstancePollSeconds"));
        TopologySettings {
            credentials: Credentials {
                user: self.text("MySQLTopologyUser"),
                password: self.secret("MySQLTopologyPassword"),
            },
            connect_timeout: self.deadline("MySQLConnectTimeoutSeconds"),
            discovery_read_timeout: self.deadline("MySQLDiscoveryReadTimeoutSeconds"),
            read_timeout: self.deadline("MySQLTopologyReadTimeoutSeconds"),
            connection_lifetime: some_span(self.seconds("MySQLConnectionLifetimeSeconds")),
            max_allowed_packet: self.max_allowed_packet("MySQLTopologyMaxAllowedPacket"),
            tls: match (always, mixed) {
                (true, _) => TopologyTls::Always,
                (false, true) => TopologyTls::Mixed,
                (false, false) => TopologyTls::Never,
            },
            tls_material: self.tls_material(
                "MySQLTopologySSLSkipVerify",
                "MySQLTopologySSLPrivateKeyFile",
                "MySQLTopologySSLCertFile",
                "MySQLTopologySSLCAFile",
            ),
            tls_memory: Duration::from_secs(memory_seconds.min(SPAN_SECONDS_MAX)),
        }
    }

    fn discovery(&self) -> DiscoverySettings {
        let default_port = self.port("DefaultInstancePort");
        let seed = |text: &String| address::dial(text, Some(default_port)).ok();
        let rows_max = self
            .ask("InstanceWriteBufferSize")
            .int("InstanceWriteBufferSize");
        let age_max = self.milliseconds("InstanceFlushIntervalMilliseconds");
        let buffered = self.flag("BufferInstanceWrites");
        DiscoverySettings {
            default_port,
            poll: self.seconds("InstancePollSeconds"),
            check_grace: self.seconds("ReasonableInstanceCheckSeconds"),
            dead_poll_factor: self
                .ask("DeadInstancePollSecondsMultiplyFactor")
                .float("DeadInstancePollSecondsMultiplyFactor"),
            dead_poll_max: self.seconds("DeadInstancePollSecondsMax"),
            dead_concurrency_max: self.count("DeadInstanceDiscoveryMaxConcurrency"),
            dead_logs: self.flag("DeadInstanceDiscoveryLogsEnabled"),
            concurrency_max: self.count("DiscoveryMaxConcurrency"),
            queue_capacity: self.count("DiscoveryQueueCapacity"),
            queue_statistics_max: self.count("DiscoveryQueueMaxStatisticsSize"),
            metrics_retention: self.seconds("DiscoveryCollectionRetentionSeconds"),
            seeds: self
                .list("DiscoverySeeds")
                .iter()
                .filter_map(seed)
                .collect(),
            by_show_replica_hosts: self.flag("DiscoverByShowSlaveHosts"),
            ignore_hosts: self.list("DiscoveryIgnoreHostnameFilters"),
            ignore_replica_hosts: self.list("DiscoveryIgnoreReplicaHostnameFilters"),
            ignore_source_hosts: self.list("DiscoveryIgnoreMasterHostnameFilters"),
            ignore_replication_users: self.list("DiscoveryIgnoreReplicationUsernameFilters"),
            filter_logs: self.flag("EnableDiscoveryFiltersLogs"),
            skip_maxscale_check: self.flag("SkipMaxScaleCheck"),
            lower_replica_version_allowed: self.flag("LowerReplicaVersionAllowed"),
            forget_unseen: self.hours("UnseenInstanceForgetHours"),
            topology_snapshot_interval: some_span(self.hours("SnapshotTopologiesIntervalHours")),
            write_buffer: u64::try_from(rows_max)
                .ok()
                .filter(|rows_max| buffered && *rows_max > 0)
                .map(|rows_max| WriteBuffer { rows_max, age_max }),
            bulk_operation_wait: self.seconds("InstanceBulkOperationsWaitTimeoutSeconds"),
            replica_operations_max: self.count("MaxConcurrentReplicaOperations"),
        }
    }

    fn names(&self) -> NameSettings {
        NameSettings {
            resolve: match self.lower("HostnameResolveMethod").as_str() {
                "none" => HostnameResolveMethod::None,
                "cname" => HostnameResolveMethod::Cname,
                "ip" => HostnameResolveMethod::Ip,
                _ => HostnameResolveMethod::Keep,
            },
            mysql_resolve: match self.lower("MySQLHostnameResolveMethod").as_str() {
                "default" | "hostname" | "@@hostname" => MysqlHostnameResolveMethod::Hostname,
                "report_host" | "@@report_host" => MysqlHostnameResolveMethod::ReportHost,
                _ => MysqlHostnameResolveMethod::None,
            },
            skip_binlog_server_unresolve_check: self.flag("SkipBinlogServerUnresolveCheck"),
            resolve_expiry: self.minutes("ExpiryHostnameResolvesMinutes"),
            reject_pattern: self.optional("RejectHostnameResolvePattern"),
            problem_ignore_hosts: self.list("ProblemIgnoreHostnameFilters"),
        }
    }

    fn classification(&self) -> ClassificationSettings {
        ClassificationSettings {
            cluster_name_to_alias: self
                .ask("ClusterNameToAlias")
                .map("ClusterNameToAlias")
                .clone(),
            cluster_alias_query: self.optional("DetectClusterAliasQuery"),
            cluster_domain_query: self.optional("DetectClusterDomainQuery"),
            instance_alias_query: self.optional("DetectInstanceAliasQuery"),
            promotion_rule_query: self.optional("DetectPromotionRuleQuery"),
            semi_sync_query: self.optional("DetectSemiSyncEnforcedQuery"),
            data_center_pattern: self.optional("DataCenterPattern"),
            region_pattern: self.optional("RegionPattern"),
            physical_environment_pattern: self.optional("PhysicalEnvironmentPattern"),
            data_center_query: self.optional("DetectDataCenterQuery"),
            region_query: self.optional("DetectRegionQuery"),
            physical_environment_query: self.optional("DetectPhysicalEnvironmentQuery"),
        }
    }

    fn lag(&self) -> LagSettings {
        LagSettings {
            query: self.optional("ReplicationLagQuery"),
            reasonable: self.seconds("ReasonableReplicationLagSeconds"),
            reasonable_maintenance: self.seconds("ReasonableMaintenanceReplicationLagSeconds"),
            replication_credentials_query: self.optional("ReplicationCredentialsQuery"),
            verify_replication_filters: self.flag("VerifyReplicationFilters"),
            use_super_read_only: self.flag("UseSuperReadOnly"),
        }
    }

    fn pools(&self) -> PoolSettings {
        PoolSettings {
            fuzzy_hostnames: self.flag("SupportFuzzyPoolHostnames"),
            pool_expiry: self.minutes("InstancePoolExpiryMinutes"),
            candidate_expiry: self.minutes("CandidateInstanceExpireMinutes"),
            never_promote_hosts: self.list("PromotionIgnoreHostnameFilters"),
        }
    }

    fn audit(&self) -> AuditSettings {
        AuditSettings {
            log_file: self.path("AuditLogFile"),
            to_syslog: self.flag("AuditToSyslog"),
            to_backend: self.flag("AuditToBackendDB"),
            purge_after: self.span("AuditPurgeDays", 86_400),
        }
    }

    fn pseudo_gtid(&self) -> PseudoGtidSettings {
        PseudoGtidSettings {
            inject: self.flag("AutoPseudoGTID"),
            pattern: self.optional("PseudoGTIDPattern"),
            pattern_is_fixed_substring: self.flag("PseudoGTIDPatternIsFixedSubstring"),
            monotonic_hint: self.text("PseudoGTIDMonotonicHint"),
            detect_query: self.optional("DetectPseudoGTIDQuery"),
            events_chunk: self.count("BinlogEventsChunkSize"),
            skip_events_containing: self.list("SkipBinlogEventsContaining"),
        }
    }

    fn analysis(&self) -> AnalysisSettings {
        AnalysisSettings {
            reduce: self.flag("ReduceReplicationAnalysisCount"),
            detection_block: self.minutes("FailureDetectionPeriodBlockMinutes"),
            ignore_hosts: self.list("RecoveryIgnoreHostnameFilters"),
            schema_change_ignore_hosts: self.list("OSCIgnoreHostnameFilters"),
            locked_semi_sync: self.seconds("ReasonableLockedSemiSyncMasterSeconds"),
        }
    }

    fn recovery(&self) -> RecoverySettings {
        let wait = self.flag("DelayMasterPromotionIfSQLThreadNotUpToDate");
        let fail = self.flag("FailMasterPromotionIfSQLThreadNotUpToDate");
        RecoverySettings {
            block: self.seconds("RecoveryPeriodBlockSeconds"),
            primary_filters: self.list("RecoverMasterClusterFilters"),
            intermediate_filters: self.list("RecoverIntermediateMasterClusterFilters"),
            recover_non_writeable_primary: self.flag("RecoverNonWriteableMaster"),
            co_primary_must_promote_other: self.flag("CoMasterRecoveryMustPromoteOtherCoMaster"),
            detach_lost_replicas: self.flag("DetachLostReplicasAfterMasterFailover"),
            apply_promotion: self.flag("ApplyMySQLPromotionAfterMasterFailover"),
            prevent_cross_data_center: self.flag("PreventCrossDataCenterMasterFailover"),
            prevent_cross_region: self.flag("PreventCrossRegionMasterFailover"),
            lost_downtime: some_span(self.minutes("MasterFailoverLostInstancesDowntimeMinutes"))
                .unwrap_or(Duration::from_secs(LOST_DOWNTIME_SECONDS)),
            detach_promoted_source_host: self.flag("MasterFailoverDetachReplicaMasterHost"),
            fail_promotion_on_lag: some_span(self.minutes("FailMasterPromotionOnLagMinutes")),
            unapplied_relay_log: match (wait, fail) {
                (_, true) => UnappliedRelayLog::Fail,
                (true, false) => UnappliedRelayLog::Wait,
                (false, false) => UnappliedRelayLog::Promote,
            },
            postpone_replica_on_lag: some_span(self.minutes("PostponeReplicaRecoveryOnLagMinutes")),
            exact_semi_sync_replicas: self.flag("EnforceExactSemiSyncReplicas"),
            recover_locked_semi_sync: self.flag("RecoverLockedSemiSyncMaster"),
        }
    }

    fn failover(&self) -> FailoverSettings {
        FailoverSettings {
            profile: match self.lower("SafetyProfile").as_str() {
                "original" => SafetyProfile::Original,
                _ => SafetyProfile::Successor,
            },
            primary_gone_patience: self.milliseconds("PrimaryGonePatienceMilliseconds"),
            planned_stop_patience: self.seconds("PlannedStopPatienceSeconds"),
            primary_return: match self.lower("PrimaryReturnPolicy").as_str() {
                "continue" => PrimaryReturnPolicy::Continue,
                _ => PrimaryReturnPolicy::Resume,
            },
            reopen_restarted_primary: self.flag("ReopenRestartedPrimary"),
            halt_deadline: self.milliseconds("HaltDeadlineMilliseconds"),
            donor_catchup: self.seconds("DonorCatchupSeconds"),
            promotion_drain_max: self.seconds("PromotionDrainSecondsMax"),
            refuse_lossy_promotion: self.flag("RefuseLossyPromotion"),
            use_delayed_replica_as_donor: self.flag("UseDelayedReplicaAsDonor"),
            witness_quorum: Some(self.count("WitnessQuorum")).filter(|quorum| *quorum > 0),
            deposed_primary_action: match self.lower("DeposedPrimaryAction").as_str() {
                "report" => DeposedPrimaryAction::Report,
                "read-only" => DeposedPrimaryAction::ReadOnly,
                _ => DeposedPrimaryAction::ReadOnlyAndKill,
            },
            quarantine_spare_users: self.list("QuarantineSpareUsers"),
        }
    }

    fn hooks(&self) -> HookSettings {
        HookSettings {
            shell: self.text("ProcessesShellCommand"),
            deadline: self.seconds("ProcessesTimeoutSeconds"),
            on_failure_detection: self.list("OnFailureDetectionProcesses"),
            pre_graceful_takeover: self.list("PreGracefulTakeoverProcesses"),
            pre_failover: self.list("PreFailoverProcesses"),
            post_failover: self.list("PostFailoverProcesses"),
            post_unsuccessful_failover: self.list("PostUnsuccessfulFailoverProcesses"),
            post_primary_failover: self.list("PostMasterFailoverProcesses"),
            post_intermediate_failover: self.list("PostIntermediateMasterFailoverProcesses"),
            post_graceful_takeover: self.list("PostGracefulTakeoverProcesses"),
            post_take_primary: self.list("PostTakeMasterProcesses"),
        }
    }

    fn graphite(&self) -> Option<GraphiteSettings> {
        let settings = GraphiteSettings {
            address: self.text("GraphiteAddr"),
            path: self.text("GraphitePath"),
            convert_hostname_dots: self.flag("GraphiteConvertHostnameDotsToUnderscores"),
            interval: self.seconds("GraphitePollSeconds"),
        };
        let on = !settings.address.is_empty()
            && !settings.path.is_empty()
            && !settings.interval.is_zero();
        on.then_some(settings)
    }

    fn kv(&self) -> KvSettings {
        let consul = ConsulSettings {
            address: self.text("ConsulAddress"),
            https: self.lower("ConsulScheme") == "https",
            authorities: Some(self.text("ConsulSSLCAFile"))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            token: self.secret("ConsulAclToken"),
            cross_data_center: self.flag("ConsulCrossDataCenterDistribution"),
            writes: match self.lower("ConsulKVStoreProvider").as_str() {
                "consul-txn" | "consul_txn" => ConsulWrites::Transactions,
                _ => ConsulWrites::Single,
            },
            operations_per_transaction: self.count("ConsulMaxKVsPerTransaction"),
        };
        KvSettings {
            prefix: self.text("KVClusterMasterPrefix"),
            consul: Some(consul).filter(|consul| !consul.address.is_empty()),
            zookeeper: self.optional("ZkAddress"),
        }
    }

    fn agents(&self) -> AgentSettings {
        AgentSettings {
            serve: self.flag("ServeAgentsHttp"),
            listen: self.text("AgentsServerPort"),
            tls: self.flag("AgentsUseSSL"),
            mutual_tls: self.flag("AgentsUseMutualTLS"),
            valid_organizational_units: self.list("AgentSSLValidOUs"),
            tls_material: self.tls_material(
                "AgentSSLSkipVerify",
                "AgentSSLPrivateKeyFile",
                "AgentSSLCertFile",
                "AgentSSLCAFile",
            ),
            poll: self.minutes("AgentPollMinutes"),
            forget_unseen: self.hours("UnseenAgentForgetHours"),
            stale_seed_fail: self.minutes("StaleSeedFailMinutes"),
            seed_wait_before_send: self.seconds("SeedWaitSecondsBeforeSend"),
        }
    }
}

fn some_span(span: Duration) -> Option<Duration> {
    Some(span).filter(|span| !span.is_zero())
}

#[cfg(test)]
mod tests {
    use super::super::keys::Effect;
    use super::super::values::Value;
    use super::*;

    #[test]
    fn every_living_key_is_read() {
        // Settled before the types are made: the file names, and what only chooses among them.
        const SETTLED: [&str; 2] = [
            "MySQLOrchestratorCredentialsConfigFile",
            "MySQLTopologyCredentialsConfigFile",
        ];
        let mut values = Values::presets();
        values.adjust("RaftEnabled", Value::Bool(true));
        values.adjust("RaftAdvertise", Value::Text("127.0.0.1".to_owned()));
        let reader = Reader::new(&values);
        let _ = reader.settings(values.clone());
        let asked = reader.asked.borrow();
        for key in KEYS {
            let expected = match key.effect {
                Effect::Effective | Effect::NotYet => !SETTLED.contains(&key.name),
                Effect::Dead | Effect::SynonymOf(_) => false,
            };
            assert_eq!(asked.contains(key.name), expected, "{}", key.name);
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!("{:?} {:?}", Secret("hunter2".to_owned()), Secret::default());
        assert_eq!(shown, "Secret(set) Secret(empty)");
    }
}
