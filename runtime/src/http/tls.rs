//! HTTPS: for whoever asks this daemon, and towards the leader's API.
//!
//! Decides whether a certificate lets its bearer in. A client's certificate is verified whenever one is shown; that one of
//! the wanted organizational units must be shown is a matter of each request, since the status endpoint may be free of it.
//! The files are read again for connections that come a while after the last.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Settings;
use super::answer::Failure;
use crate::env::{Env, timeout_io};
use crate::tls::{self, Renewed};

/// How long the greeting of a connection may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Where systems keep the authorities that they trust, one of which is there.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the configuration says of HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// `UseSSL`: whoever asks speaks TLS.
    pub is_served: bool,
    /// `SSLCertFile`, `SSLPrivateKeyFile`
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// `SSLCAFile`: who may vouch for clients and for the leader; without it, whom the system trusts.
    pub authorities: Option<PathBuf>,
    /// `SSLSkipVerify`: the leader is not asked who it is.
    pub skips_verification: bool,
    /// `UseMutualTLS`: only bearers of a certificate of one of these units (`SSLValidOUs`) are let in.
    pub units: Option<Vec<String>>,
    /// `StatusOUVerify`: to the status endpoint too.
    pub status_needs_unit: bool,
}

/// The certificate that came with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// The connection has no TLS.
    Plain,
    /// Its organizational units; none when no certificate was shown.
    Units(Arc<[String]>),
}

/// How connections are made safe.
#[derive(Debug)]
pub(super) struct Security {
    server: Option<Renewed<Arc<ServerConfig>>>,
    client: Renewed<Arc<ClientConfig>>,
}

impl Security {
    pub(super) fn new<E: Env>(settings: &TlsSettings) -> Self {
        let mut own = Vec::new();
        if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
            own.push(("SSLCertFile", certificate.clone()));
            own.push(("SSLPrivateKeyFile", key.clone()));
        }
        let of_clients = settings.units.as_ref().and(settings.authorities.clone());
        let server = settings.is_served.then(|| {
            let mut files = own.clone();
            files.extend(of_clients.map(|path| ("SSLCAFile", path)));
            Renewed::new("the HTTP API", files, |contents| match contents {
                [certificate, key, authorities @ ..] => {
                    serving(certificate, key, authorities.first().map(Vec::as_slice))
                }
                _ => Err(String::from(
                    "SSLCertFile and SSLPrivateKeyFile are not set",
                )),
            })
        });
        let skips_verification = settings.skips_verification;
        let mut files = Vec::new();
        if !skips_verification {
            let system = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from);
            let path = settings.authorities.clone().or_else(|| {
                let there = system().find(|path| E::exists(path).unwrap_or(false));
                there.or_else(|| system().next())
            });
            files.extend(path.map(|path| ("SSLCAFile", path)));
        }
        if settings.units.is_some() {
            files.extend(own);
        }
        let client = Renewed::new("the way to the leader", files, move |contents| {
            let (authorities, own) = if skips_verification {
                (None, contents)
            } else {
                contents
                    .split_first()
                    .map_or((None, contents), |(first, rest)| {
                        (Some(first.as_slice()), rest)
                    })
            };
            asking(authorities, own)
        });
        Security { server, client }
    }

    /// Reads the files that are needed to serve.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub(super) async fn check<E: Env>(&self) -> Result<(), String> {
        match &self.server {
            Some(server) => server.get::<E>().await.map(drop),
            None => Ok(()),
        }
    }

    /// What makes connections that come in safe; none where that is not wanted.
    pub(super) const fn serves(&self) -> bool {
        self.server.is_some()
    }

    /// Takes a connection in.
    pub(super) async fn accept<E: Env, S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        stream: S,
    ) -> io::Result<(tokio_rustls::server::TlsStream<S>, Shown)> {
        let Some(server) = &self.server else {
            return Err(io::Error::other("HTTPS is not served"));
        };
        let server = server.get::<E>().await.map_err(io::Error::other)?;
        let accepted = TlsAcceptor::from(server).accept(stream);
        let stream = timeout_io::<E, _>(HANDSHAKE_TIME_MAX, accepted).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let units = certificates
            .and_then(<[_]>::first)
            .map_or_else(Vec::new, |certificate| units_of(certificate));
        Ok((stream, Shown::Units(units.into())))
    }

    /// Speaks TLS to the host that was dialled. The caller bounds it in time.
    pub(super) async fn connect<E: Env>(
        &self,
        host: &str,
        stream: E::Stream,
    ) -> io::Result<tokio_rustls::client::TlsStream<E::Stream>> {
        let client = self.client.get::<E>().await.map_err(io::Error::other)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::other(format!("{host}: {error}")))?;
        TlsConnector::from(client).connect(name, stream).await
    }
}

fn serving(
    certificate: &[u8],
    key: &[u8],
    authorities: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, String> {
    let chain = tls::certificates("SSLCertFile", certificate)?;
    let key = tls::private_key("SSLPrivateKeyFile", key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| format!("SSLCertFile and SSLPrivateKeyFile: {error}");
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let roots = Arc::new(tls::authorities("SSLCAFile", authorities)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("SSLCAFile: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(wrong)
}

/// Without authorities everybody is believed.
fn asking(authorities: Option<&[u8]>, own: &[Vec<u8>]) -> Result<Arc<ClientConfig>, String> {
    let builder = tls::client("SSLCAFile", authorities)?;
    let client = match own {
        [certificate, key] => builder
            .with_client_auth_cert(
                tls::certificates("SSLCertFile", certificate)?,
                tls::private_key("SSLPrivateKeyFile", key)?,
            )
            .map_err(|error| format!("SSLCertFile and SSLPrivateKeyFile: {error}"))?,
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

/// The organizational units of a certificate's subject.
fn units_of(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    certificate
        .subject()
        .iter_organizational_unit()
        .filter_map(|unit| unit.as_str().ok())
        .map(str::to_owned)
        .collect()
}

/// Why the bearer of a certificate, or of none, is not let in to a path; none: it is.
pub(super) fn refusal(settings: &Settings, shown: &Shown, path: &str) -> Option<Failure> {
    let wanted = settings.tls.units.as_ref()?;
    // The whole path, not a part of it: what is free must not be a key to the rest.
    let is_status = path.trim_end_matches('/') == settings.status_path();
    if is_status && !settings.tls.status_needs_unit {
        return None;
    }
    match shown {
        Shown::Plain => Some(Failure::not_admitted("No TLS")),
        Shown::Units(units) if units.iter().any(|unit| wanted.contains(unit)) => None,
        Shown::Units(_) => Some(Failure::not_admitted("Invalid OU")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn who_is_let_in() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![String::from("ann")]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "dba");
        let certificate = params.self_signed(&key).unwrap();
        let units = units_of(certificate.der());
        assert_eq!(units, ["dba"]);
        assert_eq!(units_of(b"nonsense"), Vec::<String>::new());

        let mut settings = Settings {
            url_prefix: String::from("/orc"),
            ..Settings::default()
        };
        let check = |settings: &Settings, units: &[&str], path: &str, why: Option<&str>| {
            let units: Vec<String> = units.iter().map(|unit| String::from(*unit)).collect();
            let refused = refusal(settings, &Shown::Units(units.into()), path);
            assert_eq!(refused.map(|failure| failure.message).as_deref(), why);
        };
        check(&settings, &[], "/orc/api/clusters", None);
        settings.tls.units = Some(vec![String::from("dba"), String::from("ops")]);
        check(&settings, &["dev", "ops"], "/orc/api/clusters", None);
        check(&settings, &["dev"], "/orc/api/clusters", Some("Invalid OU"));
        check(&settings, &[], "/orc/api/clusters", Some("Invalid OU"));
        check(&settings, &[], "/orc/api/status", None);
        check(&settings, &[], "/orc/api/status/", None);
        check(
            &settings,
            &[],
            "/orc/api/forget/api/status",
            Some("Invalid OU"),
        );
        settings.tls.status_needs_unit = true;
        check(&settings, &[], "/orc/api/status", Some("Invalid OU"));
        let plain = refusal(&settings, &Shown::Plain, "/orc/api/status");
        assert_eq!(plain.unwrap().message, "No TLS");
    }
}
