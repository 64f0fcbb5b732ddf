//! From the configuration to what each part is set up with, and the process's own affairs: log, names, readiness.

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use orchestrator_core::id::InstanceKey;
use orchestrator_core::node::Identification;
use regex::Regex;

use crate::config::{
    Address, BackendKind, LogFormat, MaxAllowedPacket, MysqlHostnameResolveMethod, Settings,
    TopologyTls,
};
use crate::daemon::DaemonSettings;
use crate::env::Env;
use crate::hooks::Hooks;
use crate::http;
use crate::mysql::{DetectQueries, OwnName, ProbeSettings, TlsMode};
use crate::raft::{LogBounds, RaftSettings, Release, TlsFiles};

/// Logs go to standard error, one line each; `RUST_LOG` refines the level.
pub fn start_log(level: &str, format: LogFormat) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| format!("{level},openraft=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // Fails only where a log was started already, which then stays.
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// The host name of this machine.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| String::from("localhost"))
}

/// The name with its domain as `/etc/hosts` has it; empty when it is not known.
fn full_host_name(host_name: &str) -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let prefix = format!("{host_name}.");
    hosts
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with(&prefix))
        .unwrap_or_default()
        .to_owned()
}

/// 64 hex digits, drawn at each start.
///
/// # Errors
/// The operating system gives no randomness.
pub fn process_token<E: Env>() -> anyhow::Result<String> {
    let mut token = String::new();
    for _ in 0..4 {
        token.push_str(&format!("{:016x}", E::random_seed()?));
    }
    Ok(token)
}

/// Tells systemd that the listeners are up; nothing without one.
pub fn notify_ready() {
    tell_manager("READY=1");
}

/// Tells the service manager why this daemon serves less than it should, or ends: `systemctl status` does not show its last
/// lines while it is tried again.
pub fn notify_status(text: &str) {
    tell_manager(&format!("STATUS={}", text.replace('\n', " ")));
}

fn tell_manager(what: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = notify(&path, what.as_bytes()) {
        let _ = writeln!(std::io::stderr(), "NOTIFY_SOCKET {path}: {error}");
    }
}

/// A name that begins with `@` is of the abstract namespace (unix(7)), as `systemd-nspawn` and containers give it.
fn notify(path: &str, what: &[u8]) -> std::io::Result<()> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(what, &address)?;
    Ok(())
}

/// # Errors
/// A setting that this version cannot obey, in words.
pub fn daemon_settings(
    settings: &Settings,
    host_name: &str,
    token: &str,
    hooks: Arc<dyn Hooks>,
) -> anyhow::Result<DaemonSettings> {
    let listen = match &settings.listen.address {
        Some(address) if address.host.is_empty() => format!("0.0.0.0:{}", address.port),
        Some(address) => address.to_string(),
        None => bail!("ListenAddress is not set"),
    };
    let process = http::Process {
        host_name: host_name.to_owned(),
        token: token.to_owned(),
        full_host_name: full_host_name(host_name),
    };
    let http = http::Settings::of(settings, process)?;
    Ok(DaemonSettings {
        identification: Identification {
            host_name: host_name.to_owned(),
            token: token.to_owned(),
        },
        policy: settings.policy(),
        release: release(),
        listen,
        http,
        probes_max: usize::try_from(settings.discovery.concurrency_max).unwrap_or(300),
        seeds: settings
            .discovery
            .seeds
            .iter()
            .map(|address| InstanceKey::new(address.host.clone(), address.port))
            .collect(),
        hooks,
        publication: None,
        reloads: None,
    })
}

/// For tests only, and not a setting: a daemon that has it in its environment reads, writes and speaks what the release
/// before did, so that two releases can be tested in one cluster.
const AS_THE_RELEASE_BEFORE: &str = "ORCHESTRATOR_TEST_AS_THE_RELEASE_BEFORE";

fn release() -> Release {
    match std::env::var_os(AS_THE_RELEASE_BEFORE) {
        Some(set) if set == "1" => Release::BEFORE,
        Some(_) | None => Release::THIS,
    }
}

/// Which daemon writes to a backend: the address is no other member's, though the folder may be the same on every machine.
#[must_use]
pub fn daemon_name(raft: &RaftSettings) -> String {
    let folder = raft.data_dir.display();
    if raft.advertise.is_empty() {
        folder.to_string()
    } else {
        format!("{} {folder}", raft.advertise)
    }
}

/// Without `RaftEnabled` the daemon is a raft cluster of one, kept beside its SQLite file.
///
/// # Errors
/// A setting that this version cannot obey, in words.
pub fn raft_settings(settings: &Settings) -> anyhow::Result<RaftSettings> {
    let listen_port = settings
        .listen
        .address
        .as_ref()
        .map_or(3000, |address| address.port);
    let scheme = if settings.http_tls.enabled {
        "https"
    } else {
        "http"
    };
    let Some(raft) = &settings.raft else {
        let BackendKind::Sqlite { data_file } = &settings.backend.kind else {
            bail!("{}", mysql_alone(settings));
        };
        if data_file.contains(":memory:") {
            bail!(
                "SQLite3DataFile is in memory: what was decided would be lost with the process; name a file"
            );
        }
        let mut alone = RaftSettings::new(format!("{data_file}.raft"), "127.0.0.1:0");
        alone.http_uri = format!("{scheme}://127.0.0.1:{listen_port}");
        alone.release = release();
        return Ok(alone);
    };
    let mut result = RaftSettings::new(&raft.data_dir, raft.bind.to_string());
    result.advertise = raft.advertise.to_string();
    result.release = release();
    result.http_uri = raft.http_advertise.clone().unwrap_or_else(|| {
        let advertised = Address {
            host: raft.advertise.host.clone(),
            port: listen_port,
        };
        format!("{scheme}://{advertised}")
    });
    result.nodes = raft.nodes.iter().map(ToString::to_string).collect();
    result.default_port = raft.default_port.unwrap_or(result.default_port);
    result.heartbeat_ms = millis(raft.heartbeat);
    result.election_timeout_ms = millis(raft.election_timeout);
    let tls = &raft.tls;
    result.tls_refuses_plain = tls.refuses_plain;
    result.tls = match (&tls.certificate, &tls.key, &tls.authorities) {
        (None, None, None) => None,
        (Some(certificate), Some(key), Some(authorities)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
        }),
        _ => bail!(
            "RaftTLSCertFile, RaftTLSKeyFile and RaftTLSCAFile belong together: set all three or none"
        ),
    };
    if result.tls.is_none() && !tls.refuses_plain && result.nodes.len() > 1 {
        tracing::warn!(
            "NOT PROTECTED: whoever reaches the raft port can join in and read everything; make certificates (orchestrator raft \
             init-certs) and set RaftTLSCertFile, RaftTLSKeyFile and RaftTLSCAFile, or keep the port on a trusted network"
        );
    }
    if result.tls.is_some() && tls.refuses_plain {
        tracing::info!(
            "on the raft port only bearers of certificates are spoken to (RaftTLSRefusePlainText: true, as by default where \
             certificates are set); while a cluster is moved to certificates it is to be false"
        );
    } else if result.tls.is_some() {
        tracing::warn!(
            "NOT PROTECTED: RaftTLSRefusePlainText is false, and whoever reaches the raft port without a certificate can join in as \
             before; remove it from the file once every daemon has its certificate"
        );
    }
    result.replace_silent = raft.replace_silent;
    result.replace_per_hour = raft.replace_per_hour;
    result.log = LogBounds {
        snapshot_entries: raft.log.snapshot_entries,
        keep_entries: raft.log.keep_entries,
        bytes_max: raft.log.bytes_max,
        snapshot_age_max: raft.log.snapshot_age_max,
    };
    Ok(result)
}

/// Why a daemon that is alone does not start with a MySQL backend, and what to add.
fn mysql_alone(settings: &Settings) -> String {
    let found = match settings.place("BackendDB") {
        Some(place) => format!("{place}: BackendDB is mysql"),
        None => String::from("BackendDB is not set, and then it is mysql"),
    };
    format!(
        "{found}, which this version has with RaftEnabled only. For a daemon that is alone, or for each of a cluster, add \
         \"BackendDB\": \"sqlite\", \"SQLite3DataFile\": \"/var/lib/orchestrator/orchestrator.db\". For a schema on a MySQL server add \
         \"RaftEnabled\": true, \"RaftDataDir\": \"/var/lib/orchestrator/raft\", and MySQLOrchestratorHost, \
         MySQLOrchestratorDatabase, MySQLOrchestratorUser and MySQLOrchestratorPassword"
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// # Errors
/// A pattern that does not compile.
pub fn probe_settings(settings: &Settings) -> anyhow::Result<ProbeSettings> {
    let topology = &settings.topology;
    let classification = &settings.classification;
    let pattern = |text: &Option<String>| -> anyhow::Result<Option<Regex>> {
        text.as_ref()
            .map(|text| Regex::new(text).with_context(|| format!("the pattern {text}")))
            .transpose()
    };
    let defaults = ProbeSettings::default();
    Ok(ProbeSettings {
        user: topology.credentials.user.clone(),
        password: topology.credentials.password.expose().to_owned(),
        connect_timeout: topology.connect_timeout,
        read_timeout: topology.discovery_read_timeout,
        max_allowed_packet: match topology.max_allowed_packet {
            MaxAllowedPacket::DriverDefault | MaxAllowedPacket::AskServer => {
                defaults.max_allowed_packet
            }
            MaxAllowedPacket::Bytes(bytes) => {
                usize::try_from(bytes).unwrap_or(defaults.max_allowed_packet)
            }
        },
        tls: match topology.tls {
            TopologyTls::Never => TlsMode::Off,
            TopologyTls::Mixed => TlsMode::Mixed,
            TopologyTls::Always => TlsMode::Required,
        },
        tls_ca: topology.tls_material.authorities.clone(),
        tls_cert: topology.tls_material.certificate.clone(),
        tls_key: topology.tls_material.key.clone(),
        tls_skip_verify: topology.tls_material.skip_verify,
        discover_by_show_replicas: settings.discovery.by_show_replica_hosts,
        own_name: match settings.names.mysql_resolve {
            MysqlHostnameResolveMethod::None => OwnName::None,
            MysqlHostnameResolveMethod::Hostname => OwnName::HostName,
            MysqlHostnameResolveMethod::ReportHost => OwnName::ReportHost,
        },
        data_center_pattern: pattern(&classification.data_center_pattern)?,
        region_pattern: pattern(&classification.region_pattern)?,
        physical_environment_pattern: pattern(&classification.physical_environment_pattern)?,
        detect: DetectQueries {
            cluster_alias: classification.cluster_alias_query.clone(),
            cluster_domain: classification.cluster_domain_query.clone(),
            instance_alias: classification.instance_alias_query.clone(),
            promotion_rule: classification.promotion_rule_query.clone(),
            data_center: classification.data_center_query.clone(),
            region: classification.region_query.clone(),
            physical_environment: classification.physical_environment_query.clone(),
            semi_sync_enforced: classification.semi_sync_query.clone(),
        },
        lag_query: settings.lag.query.clone(),
        credentials_query: settings.lag.replication_credentials_query.clone(),
        slow_interval: defaults.slow_interval,
        rare_interval: defaults.rare_interval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_files;

    #[test]
    fn a_daemon_alone_without_a_file_for_its_backend_says_what_to_add() {
        for (text, wanted) in [
            ("{}", "BackendDB is not set, and then it is mysql, which"),
            (
                r#"{"BackendDB": "mysql"}"#,
                "o.json:1:2: BackendDB is mysql, which",
            ),
        ] {
            let loaded = parse_files(&[("o.json", text.as_bytes())], &|_| None).unwrap();
            let refused = raft_settings(&loaded.settings).unwrap_err().to_string();
            assert!(refused.starts_with(wanted), "{refused}");
            let line = r#""BackendDB": "sqlite", "SQLite3DataFile": "#;
            assert!(refused.contains(line), "{refused}");
        }
    }
}
