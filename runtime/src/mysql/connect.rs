//! Dialling, deadlines and the reading of result sets; what the client library reports becomes one of our own failures
//! here, by error code and kind, never by the text of a message.
//!
//! A connection whose call timed out is dropped by whoever called: its stream is in an unknown place.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, Value};
use orchestrator_core::id::InstanceKey;
use orchestrator_core::limits::{ERROR_TEXT_BYTES_MAX, bounded};
use orchestrator_core::topology::ProbeFailure;

use super::settings::{ProbeSettings, TlsMode};
use super::table::Table;
use crate::env::{Env, timeout};

/// How long a look at whether TCP is accepted at all may take, after a login ran out of time.
const TCP_CHECK: Duration = Duration::from_millis(150);
/// When an idle connection is asked for a sign of life by the kernel.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// CR_SSL_CONNECTION_ERROR of the client's error numbers: a TLS refusal, which is a sign of life.
const TLS_ERROR: u16 = 2026;
/// CR_AUTH_PLUGIN_CANNOT_LOAD of the same: a sign of life, too.
const AUTH_PLUGIN_ERROR: u16 = 2059;

/// How one server is dialled. Holds no connection.
#[derive(Debug)]
pub(crate) struct Dialer {
    key: InstanceKey,
    plain: Opts,
    secure: OnceLock<Opts>,
    needs_tls: AtomicBool,
}

impl Dialer {
    pub fn new(key: &InstanceKey, settings: &ProbeSettings) -> Self {
        let plain = OptsBuilder::default()
            .ip_or_hostname(key.host.clone())
            .tcp_port(key.port)
            .user(Some(settings.user.clone()))
            .pass(Some(settings.password.clone()))
            .prefer_socket(false)
            // Stated, or the library would spend a round trip on asking for them.
            .max_allowed_packet(Some(settings.max_allowed_packet))
            .wait_timeout(Some(28_800))
            .stmt_cache_size(0)
            .tcp_keepalive(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .connect_attribute("program_name", "orchestrator");
        Dialer {
            key: key.clone(),
            plain: plain.into(),
            secure: OnceLock::new(),
            needs_tls: AtomicBool::new(settings.tls == TlsMode::Required),
        }
    }

    fn secure(&self, settings: &ProbeSettings) -> Opts {
        self.secure
            .get_or_init(|| {
                let mut tls = SslOpts::default()
                    .with_danger_accept_invalid_certs(settings.tls_skip_verify)
                    .with_danger_skip_domain_validation(settings.tls_skip_verify);
                if let Some(ca) = &settings.tls_ca {
                    tls = tls.with_root_certs(vec![ca.clone().into()]);
                }
                if let (Some(cert), Some(key), false) = (
                    &settings.tls_cert,
                    &settings.tls_key,
                    settings.tls_skip_verify,
                ) {
                    tls = tls.with_client_identity(Some(mysql_async::ClientIdentity::new(
                        cert.clone().into(),
                        key.clone().into(),
                    )));
                }
                OptsBuilder::from_opts(self.plain.clone())
                    .ssl_opts(Some(tls))
                    .into()
            })
            .clone()
    }

    /// Connects and logs in within `deadline`; the name is resolved at each dial.
    ///
    /// # Errors
    /// [`ProbeFailure`] says how far it came.
    pub async fn dial<E: Env>(
        &self,
        settings: &ProbeSettings,
        deadline: Duration,
    ) -> Result<Conn, ProbeFailure> {
        let until = E::mono() + deadline;
        let opts = if self.needs_tls.load(Ordering::Relaxed) {
            self.secure(settings)
        } else {
            self.plain.clone()
        };
        match self.login::<E>(opts, deadline).await {
            Err(ProbeFailure::ServerError {
                // ER_SECURE_TRANSPORT_REQUIRED, ER_ACCESS_DENIED_ERROR.
                code: code @ (3159 | 1045),
                message,
            }) if settings.tls == TlsMode::Mixed && !self.needs_tls.load(Ordering::Relaxed) => {
                let left = until.saturating_sub(E::mono());
                match self.login::<E>(self.secure(settings), left).await {
                    Ok(conn) => {
                        self.needs_tls.store(true, Ordering::Relaxed);
                        Ok(conn)
                    }
                    // The first answer says more than that there is no TLS either.
                    Err(_) => Err(ProbeFailure::ServerError { code, message }),
                }
            }
            outcome => outcome,
        }
    }

    async fn login<E: Env>(&self, opts: Opts, deadline: Duration) -> Result<Conn, ProbeFailure> {
        let until = E::mono() + deadline;
        // Not by the library, which takes a thread of ours for each lookup.
        let unresolved = |why: &dyn fmt::Display| {
            Err(ProbeFailure::Unresolved(bounded(
                why.to_string(),
                ERROR_TEXT_BYTES_MAX,
            )))
        };
        let addresses = match timeout::<E, _>(deadline, E::resolve(&self.key.host)).await {
            Some(Ok(addresses)) => addresses,
            Some(Err(error)) => return unresolved(&error),
            None => return unresolved(&"no answer within the deadline of the dial"),
        };
        let Some(first) = addresses.first().copied() else {
            return unresolved(&"it has no address");
        };
        let opts = OptsBuilder::from_opts(opts).resolved_ips(Some(addresses));
        let left = until.saturating_sub(E::mono());
        match timeout::<E, _>(left, Conn::new(opts)).await {
            Some(Ok(conn)) => Ok(conn),
            Some(Err(error)) => Err(failure(error)),
            // The library does not say where it stood. A server that does not read cannot count this against us.
            None => {
                let address = SocketAddr::new(first, self.key.port).to_string();
                match timeout::<E, _>(TCP_CHECK, E::connect(&address)).await {
                    Some(Ok(_)) => Err(ProbeFailure::NoLogin),
                    Some(Err(error)) => Err(io_failure(&error)),
                    None => Err(ProbeFailure::Unreachable),
                }
            }
        }
    }
}

/// The library's error as one of ours.
pub(super) fn failure(error: mysql_async::Error) -> ProbeFailure {
    use mysql_async::{DriverError, Error, IoError};
    match error {
        Error::Server(error) => ProbeFailure::ServerError {
            code: error.code,
            message: bounded(error.message, ERROR_TEXT_BYTES_MAX),
        },
        Error::Io(IoError::Io(error)) => io_failure(&error),
        Error::Io(IoError::Tls(error)) => ProbeFailure::ServerError {
            code: TLS_ERROR,
            message: bounded(error.to_string(), ERROR_TEXT_BYTES_MAX),
        },
        Error::Driver(DriverError::ConnectionClosed) => ProbeFailure::Closed,
        Error::Driver(DriverError::NoClientSslFlagFromServer) => ProbeFailure::ServerError {
            code: TLS_ERROR,
            message: "the server does not offer TLS".to_owned(),
        },
        // It greeted, and asked for what this client does not do: that is an answer.
        Error::Driver(
            error @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::CleartextPluginDisabled
            | DriverError::MysqlOldPasswordDisabled),
        ) => ProbeFailure::ServerError {
            code: AUTH_PLUGIN_ERROR,
            message: bounded(error.to_string(), ERROR_TEXT_BYTES_MAX),
        },
        error @ (Error::Driver(_) | Error::Other(_) | Error::Url(_)) => {
            ProbeFailure::Garbled(bounded(error.to_string(), ERROR_TEXT_BYTES_MAX))
        }
    }
}

fn io_failure(error: &io::Error) -> ProbeFailure {
    // What the handshake fails with comes wrapped: a certificate that is not believed, an alert of the server.
    let is_of_tls = error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    match error.kind() {
        _ if is_of_tls => ProbeFailure::ServerError {
            code: TLS_ERROR,
            message: bounded(error.to_string(), ERROR_TEXT_BYTES_MAX),
        },
        io::ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => ProbeFailure::Closed,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            ProbeFailure::Garbled(bounded(error.to_string(), ERROR_TEXT_BYTES_MAX))
        }
        // No route, out of time.
        _ => ProbeFailure::Unreachable,
    }
}

/// Sends one text of one or several statements and stores every row in `tables` as it arrives, so that what came before
/// a deadline is there although the future was dropped. One table a statement that brings rows or columns.
///
/// # Errors
/// The index of the statement that failed (those before it are complete) and the failure.
pub(super) async fn query(
    conn: &mut Conn,
    sql: &str,
    tables: &mut Vec<Table>,
) -> Result<(), (usize, ProbeFailure)> {
    let mut result = match conn.query_iter(sql).await {
        Ok(result) => result,
        Err(error) => return Err((0, failure(error))),
    };
    // An error of a later statement hides behind `is_empty` until the result is dropped.
    while let Some(columns) = result.columns() {
        let at = tables.len();
        tables.push(Table {
            columns: columns
                .iter()
                .map(|column| column.name_str().into_owned())
                .collect(),
            rows: Vec::new(),
        });
        let rows = &mut tables[at].rows;
        let ended = result
            .for_each(|row| rows.push(row.unwrap().into_iter().map(text).collect()))
            .await;
        if let Err(error) = ended {
            tables.truncate(at);
            return Err((at, failure(error)));
        }
        if result.is_empty() {
            break;
        }
    }
    let done = tables.len();
    result
        .drop_result()
        .await
        .map_err(|error| (done, failure(error)))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
        // The text protocol sends nothing else.
        other => Some(other.as_sql(true)),
    }
}

/// [`query`] with a deadline. The connection must be dropped unless this says `Ok` or a server's error.
///
/// # Errors
/// As [`query`]; a passed deadline is [`ProbeFailure::Stalled`].
pub(crate) async fn query_within<E: Env>(
    conn: &mut Conn,
    sql: &str,
    deadline: Duration,
) -> Result<Vec<Table>, ProbeFailure> {
    let mut tables = Vec::new();
    match timeout::<E, _>(deadline, query(conn, sql, &mut tables)).await {
        Some(Ok(())) => Ok(tables),
        Some(Err((_, failure))) => Err(failure),
        None => Err(ProbeFailure::Stalled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{DedicatedRuntime, TokioEnv};

    #[test]
    fn a_name_that_does_not_resolve_is_not_a_server_that_is_silent() {
        let runtime = DedicatedRuntime::start("dial-test", 1).unwrap();
        let settings = ProbeSettings::default();
        let key = InstanceKey::new("nobody.invalid", 3306);
        let dialed = runtime.run(async {
            let dialer = Dialer::new(&key, &settings);
            let ended = dialer.dial::<TokioEnv>(&settings, Duration::from_secs(5));
            ended.await.map(drop)
        });
        runtime.stop();
        let failure = dialed.expect_err("nobody is there");
        assert!(matches!(failure, ProbeFailure::Unresolved(_)), "{failure}");
    }
}
