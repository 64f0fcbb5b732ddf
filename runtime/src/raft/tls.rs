//! Mutual TLS on the raft port.
//!
//! Each side shows a certificate of the cluster's authority and demands one. Who is dialled must have a certificate for the
//! address that was dialled; who dials, for the address that it says others reach it at; and neither may be an identity that
//! is known elsewhere, while its certificate is another's (`Peers::impostor`). The files are read again for a
//! connection that comes a while after the last, so that certificates are renewed without a restart; connections that are
//! open stay so.
//!
//! While a cluster is moved to TLS member by member, with certificates and `RaftTLSRefusePlainText: false`, both kinds of
//! connections are taken, told apart by their first byte. Certificates alone end that. A frame of ours begins with the high byte of a small length, a
//! TLS record with 22.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::env::Env;
use crate::tls::{self, Renewed};

/// The first byte of a TLS connection: a handshake record.
const TLS_RECORD: u8 = 22;

/// The certificates of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `RaftTLSCertFile`: PEM, this node's first.
    pub certificate: PathBuf,
    /// `RaftTLSKeyFile`
    pub key: PathBuf,
    /// `RaftTLSCAFile`: who may vouch for members.
    pub authorities: PathBuf,
}

/// How connections are made safe.
#[derive(Debug)]
pub(super) struct Security {
    configurations: Option<Renewed<Configurations>>,
    refuses_plain: bool,
}

/// For those who dial in, and for dialling out.
type Configurations = (Arc<ServerConfig>, Arc<ClientConfig>);

impl Security {
    pub(super) fn new(files: Option<TlsFiles>, refuses_plain: bool) -> Self {
        let configurations = files.map(|files| {
            let named = vec![
                ("RaftTLSCertFile", files.certificate),
                ("RaftTLSKeyFile", files.key),
                ("RaftTLSCAFile", files.authorities),
            ];
            Renewed::new("the raft port", named, |contents| match contents {
                [certificate, key, authorities] => configure(certificate, key, authorities),
                _ => Err(String::from("three files were to be read")),
            })
        });
        Security {
            configurations,
            refuses_plain,
        }
    }

    /// Reads the files; without any there is nothing to read.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub(super) async fn check<E: Env>(&self) -> Result<(), String> {
        match &self.configurations {
            None if self.refuses_plain => Err(String::from(
                "RaftTLSRefusePlainText is set and RaftTLSCertFile is not: set RaftTLSCertFile, RaftTLSKeyFile and RaftTLSCAFile",
            )),
            None => Ok(()),
            Some(configurations) => configurations.get::<E>().await.map(drop),
        }
    }

    /// Dials. The caller bounds it in time.
    pub(super) async fn connect<E: Env>(&self, address: &str) -> io::Result<Wire<E::Stream>> {
        let Some(configurations) = &self.configurations else {
            return Ok(Wire::Plain(Prefixed::new(E::connect(address).await?)));
        };
        let (_, client) = configurations.get::<E>().await.map_err(io::Error::other)?;
        let host = tls::host_of(address);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::other(format!("{host}: {error}")))?;
        let stream = Prefixed::new(E::connect(address).await?);
        let secured = TlsConnector::from(client).connect(name, stream).await;
        match secured {
            Ok(stream) => Ok(Wire::Client(Box::new(stream))),
            // A member that has no certificates so far closes the connection. One whose certificate is wrong is not spoken to.
            Err(error) if !self.refuses_plain && was_closed(&error) => {
                Ok(Wire::Plain(Prefixed::new(E::connect(address).await?)))
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("TLS with {address}: {error}"),
            )),
        }
    }

    /// Takes a connection in. The caller bounds it in time.
    pub(super) async fn accept<E: Env>(&self, stream: E::Stream) -> io::Result<Wire<E::Stream>> {
        let mut stream = Prefixed::new(stream);
        let Some(configurations) = &self.configurations else {
            return Ok(Wire::Plain(stream));
        };
        if stream.peek().await? != TLS_RECORD {
            if self.refuses_plain {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it came without TLS, and RaftTLSRefusePlainText is true, as by default where certificates are set",
                ));
            }
            return Ok(Wire::Plain(stream));
        }
        let (server, _) = configurations.get::<E>().await.map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(server).accept(stream).await?;
        Ok(Wire::Server(Box::new(stream)))
    }
}

fn configure(certificate: &[u8], key: &[u8], authorities: &[u8]) -> Result<Configurations, String> {
    let chain = tls::certificates("RaftTLSCertFile", certificate)?;
    let key = tls::private_key("RaftTLSKeyFile", key)?;
    let (roots, provider) = (
        Arc::new(tls::authorities("RaftTLSCAFile", authorities)?),
        Arc::new(rustls::crypto::ring::default_provider()),
    );
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| format!("RaftTLSCAFile: {error}"))?;
    let wrong = |error: rustls::Error| format!("RaftTLSCertFile and RaftTLSKeyFile: {error}");
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(wrong)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(wrong)?;
    Ok((Arc::new(server), Arc::new(client)))
}

/// The peer ended the connection instead of an answer: unread bytes make a reset of it.
fn was_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// A connection of the raft port.
pub(super) enum Wire<S> {
    Plain(Prefixed<S>),
    Server(Box<tokio_rustls::server::TlsStream<Prefixed<S>>>),
    Client(Box<tokio_rustls::client::TlsStream<Prefixed<S>>>),
}

impl<S> Wire<S> {
    /// Whom the peer is, by its certificate. Without TLS nobody vouches for anybody.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let shown = match self {
            Wire::Plain(_) => return None,
            Wire::Server(stream) => stream.get_ref().1.peer_certificates(),
            Wire::Client(stream) => stream.get_ref().1.peer_certificates(),
        };
        let first = shown.and_then(<[_]>::first).cloned();
        Some(Certificate(first.map(CertificateDer::into_owned)))
    }

    /// Whoever dialled has a certificate for the address that it names as its own. Without TLS nobody vouches for anybody.
    ///
    /// # Errors
    /// What is wrong, for the refusal.
    pub(super) fn vouches_for(&self, address: &str) -> Result<(), String> {
        let (Wire::Server(_), Some(certificate)) = (self, self.certificate()) else {
            return Ok(());
        };
        certificate.check(address).map_err(|why| {
            format!(
                "its certificate is not for {}, where it says it is reached (RaftAdvertise): {why}",
                tls::host_of(address)
            )
        })
    }
}

/// What a peer showed.
#[derive(Debug)]
pub(super) struct Certificate(Option<CertificateDer<'static>>);

impl Certificate {
    /// Whether it is for the host of this address.
    pub(super) fn is_for(&self, address: &str) -> bool {
        self.check(address).is_ok()
    }

    fn check(&self, address: &str) -> Result<(), String> {
        let certificate = self.0.as_ref().ok_or("it showed none")?;
        let name =
            ServerName::try_from(tls::host_of(address)).map_err(|error| error.to_string())?;
        webpki::EndEntityCert::try_from(certificate)
            .and_then(|certificate| certificate.verify_is_valid_for_subject_name(&name))
            .map_err(|error| error.to_string())
    }
}

/// A stream of which the first byte may have been looked at.
pub(super) struct Prefixed<S> {
    first: Option<u8>,
    stream: S,
}

impl<S> Prefixed<S> {
    const fn new(stream: S) -> Self {
        Prefixed {
            first: None,
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// The first byte, which stays to be read.
    async fn peek(&mut self) -> io::Result<u8> {
        let first = self.stream.read_u8().await?;
        self.first = Some(first);
        Ok(first)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Server(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Client(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Server(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Client(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Server(stream) => Pin::new(stream).poll_flush(context),
            Wire::Client(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Server(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Client(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
