//! Certificates in files: how they are read, and that they are read again when they are renewed.
//!
//! Decides nothing about whom to trust. Holds between calls: what was read once stays in use until something else could be
//! read whole, so that a half-written file costs no connection.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::env::{Env, timeout};

/// Files are read again when they were read longer ago than this.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// For that; then what was read before stays in use.
const READ_MAX: Duration = Duration::from_secs(1);

/// A file, and the key of the configuration that names it.
pub(crate) type Named = (&'static str, PathBuf);

type Make<T> = Arc<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// Something that is made of files.
pub(crate) struct Renewed<T> {
    /// Whose certificates they are, for the log.
    whose: &'static str,
    files: Vec<Named>,
    make: Make<T>,
    held: Mutex<Option<Held<T>>>,
    /// Somebody reads them again. A disk may never answer, and then one thread waits for it, not one a connection.
    is_reading: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Held<T> {
    /// By [`Env::mono`].
    at: Duration,
    contents: Vec<Vec<u8>>,
    made: T,
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewed({}, {:?})", self.whose, self.files)
    }
}

impl<T: Clone + Send + 'static> Renewed<T> {
    /// `make` is given the contents of the files in their order.
    pub(crate) fn new(
        whose: &'static str,
        files: Vec<Named>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Renewed {
            whose,
            files,
            make: Arc::new(make),
            held: Mutex::new(None),
            is_reading: Arc::default(),
        }
    }

    /// What the files make, as they are or were a few seconds ago.
    ///
    /// # Errors
    /// Which file is wrong, and how; only as long as nothing could be made of them.
    pub(crate) fn get<E: Env>(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<T, String>> + Send + '_>> {
        // Boxed: the compiler cannot prove of the bare future that it may go to another thread.
        Box::pin(self.read_again::<E>())
    }

    async fn read_again<E: Env>(&self) -> Result<T, String> {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let now = E::mono();
        if let Some(held) = &held
            && (now.saturating_sub(held.at) < READ_AGAIN
                || self.is_reading.swap(true, Ordering::Relaxed))
        {
            return Ok(held.made.clone());
        }
        let (files, make) = (self.files.clone(), self.make.clone());
        let before = held.as_ref().map(|held| held.contents.clone());
        let is_reading = self.is_reading.clone();
        let reading = E::blocking(move || {
            let read = read::<E, T>(&files, &make, before.as_deref());
            is_reading.store(false, Ordering::Relaxed);
            read
        });
        let late = || Err(format!("not read within {} s", READ_MAX.as_secs()));
        let read = timeout::<E, _>(READ_MAX, reading).await;
        let fresh = match (read.unwrap_or_else(late), held) {
            (Ok(Some((contents, made))), held) => {
                if held.is_some() {
                    tracing::info!("the certificates of {} were read again", self.whose);
                }
                Held {
                    at: now,
                    contents,
                    made,
                }
            }
            (Ok(None), Some(held)) => Held { at: now, ..held },
            (Err(why), Some(held)) => {
                tracing::error!(
                    "the former certificates of {} stay in use: {why}",
                    self.whose
                );
                Held { at: now, ..held }
            }
            (Ok(None), None) => return Err(String::from("the certificates were not read")),
            (Err(why), None) => return Err(why),
        };
        let made = fresh.made.clone();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(made)
    }
}

/// The contents and what they make, if they are other ones than `before`. Blocks.
fn read<E: Env, T>(
    files: &[Named],
    make: &Make<T>,
    before: Option<&[Vec<u8>]>,
) -> Result<Option<(Vec<Vec<u8>>, T)>, String> {
    let contents = files
        .iter()
        .map(|(key, path)| {
            E::read_file(path).map_err(|error| format!("{key} {}: {error}", path.display()))
        })
        .collect::<Result<Vec<_>, String>>()?;
    if before == Some(contents.as_slice()) {
        return Ok(None);
    }
    let made = make(&contents)?;
    Ok(Some((contents, made)))
}

/// The certificates of a PEM file; `key` names it.
pub(crate) fn certificates(
    key: &str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{key} holds no certificate")),
        Err(error) => Err(format!("{key}: {error}")),
    }
}

/// The private key of a PEM file; `key` names it.
pub(crate) fn private_key(key: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(bytes);
        if text.contains("ENCRYPTED") {
            format!(
                "{key} is encrypted, and nobody is there to type its password at a start: decrypt it (openssl pkey -in FILE \
                 -out FILE) and let only the daemon's user read it"
            )
        } else {
            format!("{key}: {error}")
        }
    })
}

/// Who may vouch for others, of a PEM file; `key` names it.
pub(crate) fn authorities(key: &str, bytes: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(key, bytes)? {
        roots
            .add(authority)
            .map_err(|error| format!("{key}: {error}"))?;
    }
    Ok(roots)
}

/// For a client that shows no certificate; without authorities everybody is believed.
pub(crate) fn asking(key: &str, authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    Ok(Arc::new(client(key, authorities)?.with_no_client_auth()))
}

/// A client that is still to say which certificate it shows; without authorities everybody is believed.
pub(crate) fn client(
    key: &str,
    authorities_of: Option<&[u8]>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match authorities_of {
        None => Arc::new(Unverified(provider.clone())),
        Some(bytes) => {
            let roots = Arc::new(authorities(key, bytes)?);
            WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| format!("{key}: {error}"))?
        }
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// The host of `host:port`, without brackets.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Takes every certificate, as an operator asked for.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
