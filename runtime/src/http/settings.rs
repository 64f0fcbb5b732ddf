//! What the configuration says of the HTTP API, and what it may not say of it.

use std::fmt;
use std::time::Duration;

use super::tls::TlsSettings;
use crate::config::{AuthenticationMethod, BackendKind, HttpTlsSettings, MessageIdentity};

/// Who gets in, and who may change something.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// Anybody.
    #[default]
    None,
    /// One user.
    Basic { user: String, password: String },
    /// The same, and a user `readonly` with any password, who may only look.
    Multi { user: String, password: String },
    /// A proxy in front says who it is in this header.
    Proxy {
        header: String,
        /// `*`: everybody.
        power_users: Vec<String>,
    },
    /// Everybody may look, nobody may change anything.
    ReadersOnly,
}

/// Without the password.
impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authentication::None => f.write_str("None"),
            Authentication::Basic { user, .. } => write!(f, "Basic({user:?})"),
            Authentication::Multi { user, .. } => write!(f, "Multi({user:?})"),
            Authentication::Proxy {
                header,
                power_users,
            } => write!(f, "Proxy({header:?}, {power_users:?})"),
            Authentication::ReadersOnly => f.write_str("ReadersOnly"),
        }
    }
}

/// What the HTTP API goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Empty, or one slash, a path, and no slash at its end.
    pub url_prefix: String,
    /// `/api/status`, or a path of its own that stands without the prefix.
    pub status_endpoint: String,
    pub authentication: Authentication,
    pub tls: TlsSettings,
    /// `ReadOnly`
    pub is_read_only: bool,
    /// Put before every message as `Orchestrator NAME says: `; none when not wanted.
    pub identity_in_messages: Option<String>,
    /// `ReasonableMaintenanceReplicationLagSeconds`, for the drawings of topologies.
    pub maintenance_lag: Duration,
    /// `DefaultInstancePort`
    pub default_port: u16,
    /// `UseSuperReadOnly`
    pub use_super_read_only: bool,
    pub process: Process,
    /// What the list of nodes calls the backend: `host:port`, or the path of the SQLite file.
    pub backend: String,
}

/// This process, as it names itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub host_name: String,
    /// The host name with its domain; empty when it is not known.
    pub full_host_name: String,
    /// 64 hex digits, drawn at each start.
    pub token: String,
}

/// The version that this program shows.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Default for Settings {
    fn default() -> Self {
        Settings {
            url_prefix: String::new(),
            status_endpoint: String::from("/api/status"),
            authentication: Authentication::None,
            tls: TlsSettings::default(),
            is_read_only: false,
            identity_in_messages: None,
            maintenance_lag: Duration::from_secs(20),
            default_port: 3306,
            use_super_read_only: false,
            process: Process::default(),
            backend: String::new(),
        }
    }
}

/// A setting that this build cannot obey, and would be dangerous to pass over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved(String);

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unserved {}

impl Settings {
    /// The path of the status endpoint as it is asked for.
    pub(super) fn status_path(&self) -> String {
        let path = self.status_endpoint.trim_end_matches('/');
        if path == super::routes::STATUS.path {
            format!("{}{path}", self.url_prefix)
        } else {
            path.to_owned()
        }
    }

    /// The part of the configuration that concerns the HTTP API.
    ///
    /// # Errors
    /// The first setting that this build cannot obey, with what to do instead.
    pub fn of(config: &crate::config::Settings, process: Process) -> Result<Settings, Unserved> {
        let unserved = |text: &str| Err(Unserved(String::from(text)));
        if config.listen.socket.is_some() {
            return unserved(
                "ListenSocket is not served by this version: remove it and set ListenAddress",
            );
        }
        let auth = &config.http_auth;
        let (user, password) = (auth.user.clone(), String::from(auth.password.expose()));
        let authentication = match auth.method {
            AuthenticationMethod::None => Authentication::None,
            AuthenticationMethod::Basic => Authentication::Basic { user, password },
            AuthenticationMethod::Multi if user.is_empty() => {
                return unserved("AuthenticationMethod is multi: set HTTPAuthUser");
            }
            AuthenticationMethod::Multi => Authentication::Multi { user, password },
            AuthenticationMethod::Proxy if !auth.power_groups.is_empty() => {
                return unserved(
                    "PowerAuthGroups is not served by this version: list the users in PowerAuthUsers",
                );
            }
            AuthenticationMethod::Proxy => Authentication::Proxy {
                header: auth.user_header.clone(),
                power_users: auth.power_users.clone(),
            },
            AuthenticationMethod::Token => {
                return unserved(
                    "AuthenticationMethod token is not served by this version: use basic, multi or proxy",
                );
            }
            AuthenticationMethod::Deny => Authentication::ReadersOnly,
        };
        Ok(Settings {
            url_prefix: config.listen.url_prefix.clone(),
            status_endpoint: config.listen.status_endpoint.clone(),
            authentication,
            tls: tls(&config.http_tls, config.listen.status_ou_verify)?,
            is_read_only: config.process.read_only,
            identity_in_messages: identity(config, &process),
            maintenance_lag: config.lag.reasonable_maintenance,
            default_port: config.discovery.default_port,
            use_super_read_only: config.lag.use_super_read_only,
            backend: match &config.backend.kind {
                BackendKind::Sqlite { data_file } => data_file.clone(),
                BackendKind::Mysql(backend) => format!("{}:{}", backend.host, backend.port),
            },
            process,
        })
    }
}

fn tls(config: &HttpTlsSettings, status_needs_unit: bool) -> Result<TlsSettings, Unserved> {
    let unserved = |text: &str| Err(Unserved(String::from(text)));
    if config.mutual && !config.enabled {
        return unserved("UseMutualTLS without UseSSL lets nobody in: set UseSSL");
    }
    if config.mutual && config.material.authorities.is_none() {
        return unserved(
            "UseMutualTLS is set and SSLCAFile is not: name the file with the authority of the clients' certificates",
        );
    }
    if config.mutual && config.valid_organizational_units.is_empty() {
        return unserved(
            "UseMutualTLS is set and SSLValidOUs is empty, which lets nobody in: list the organizational units of the clients' \
             and the daemons' certificates",
        );
    }
    Ok(TlsSettings {
        is_served: config.enabled,
        certificate: config.material.certificate.clone(),
        key: config.material.key.clone(),
        authorities: config.material.authorities.clone(),
        skips_verification: config.material.skip_verify,
        units: config
            .mutual
            .then(|| config.valid_organizational_units.clone()),
        status_needs_unit,
    })
}

/// What messages are preceded by. What is asked for and not known falls back to the next.
fn identity(config: &crate::config::Settings, process: &Process) -> Option<String> {
    let names = [
        (MessageIdentity::Fqdn, &process.full_host_name),
        (MessageIdentity::Hostname, &process.host_name),
        (MessageIdentity::Custom, &config.process.custom_identity),
    ];
    names
        .iter()
        .skip_while(|(wish, _)| *wish != config.process.message_identity)
        .map(|(_, name)| *name)
        .find(|name| !name.is_empty())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_files;

    fn settings(json: &str) -> Result<Settings, Unserved> {
        let loaded = parse_files(&[("test", json.as_bytes())], &|_| None).expect("it loads");
        let process = Process {
            host_name: "orc1".into(),
            full_host_name: String::new(),
            token: "t".into(),
        };
        Settings::of(&loaded.settings, process)
    }

    #[test]
    fn what_the_configuration_says() {
        let settings = settings(
            r#"{"URLPrefix": "orc/", "StatusEndpoint": "/healthz", "ReadOnly": true,
                "AuthenticationMethod": "Basic", "HTTPAuthUser": "ann", "HTTPAuthPassword": "x",
                "PrependMessagesWithOrcIdentity": "FQDN", "DefaultInstancePort": 3307}"#,
        )
        .unwrap();
        assert_eq!(settings.url_prefix, "/orc");
        assert_eq!(settings.status_endpoint, "/healthz");
        assert!(settings.is_read_only);
        assert_eq!(settings.default_port, 3307);
        assert_eq!(settings.identity_in_messages.as_deref(), Some("orc1"));
        let shown = format!("{:?}", settings.authentication);
        assert_eq!(shown, r#"Basic("ann")"#);
    }

    #[test]
    fn what_is_not_served_is_refused_with_a_way_out() {
        for (json, name) in [
            (r#"{"ListenSocket": "/run/o.sock"}"#, "ListenSocket"),
            (r#"{"AuthenticationMethod": "token"}"#, "token"),
            (
                r#"{"AuthenticationMethod": "proxy", "PowerAuthGroups": ["dba"]}"#,
                "PowerAuthGroups",
            ),
        ] {
            let unserved = settings(json).unwrap_err().to_string();
            assert!(unserved.contains(name), "{unserved}");
            assert!(unserved.contains("this version"), "{unserved}");
        }
    }
}
