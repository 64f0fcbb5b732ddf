//! The part of Consul's HTTP API that the daemons use, on loopback: `GET` and `PUT /v1/kv/KEY` with check-and-set, and
//! `GET /v1/catalog/datacenters`. The agent's own data centre is `east`; there is another one, `west`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// By data centre and key: value, flags, index.
type Pairs = BTreeMap<(String, String), (String, u64, u64)>;

const OWN: &str = "east";

/// A store; it serves until the process ends, on a thread of its own: daemons ask it while a test waits for a program.
#[derive(Clone, Debug)]
pub struct Consul {
    address: SocketAddr,
    pairs: Arc<Mutex<Pairs>>,
}

impl Consul {
    pub fn start() -> Result<Consul> {
        Consul::listen(None)
    }

    /// By HTTPS, with a certificate and its key in PEM.
    pub fn start_https(certificate: &str, key: &str) -> Result<Consul> {
        let chain =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Consul::listen(Some(TlsAcceptor::from(Arc::new(server))))
    }

    fn listen(tls: Option<TlsAcceptor>) -> Result<Consul> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let consul = Consul {
            address: listener.local_addr()?,
            pairs: Arc::default(),
        };
        let serving = consul.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || runtime.block_on(serving.serve_all(listener, tls)));
        Ok(consul)
    }

    async fn serve_all(self, listener: std::net::TcpListener, tls: Option<TlsAcceptor>) {
        let listener = TcpListener::from_std(listener).expect("a listener that does not block");
        while let Ok((stream, _)) = listener.accept().await {
            let (consul, tls) = (self.clone(), tls.clone());
            // One that breaks off is its own affair.
            tokio::spawn(async move {
                match tls {
                    None => consul.serve(stream).await.ok(),
                    Some(tls) => consul.serve(tls.accept(stream).await.ok()?).await.ok(),
                }
            });
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn value(&self, key: &str) -> Option<String> {
        self.value_in(OWN, key)
    }

    /// What a data centre says.
    pub fn value_in(&self, data_center: &str, key: &str) -> Option<String> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = pairs.get(&(data_center.to_owned(), key.to_owned()));
        pair.map(|(value, ..)| value.clone())
    }

    /// The flags of a pair here.
    pub fn flags(&self, key: &str) -> Option<u64> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = pairs.get(&(OWN.to_owned(), key.to_owned()));
        pair.map(|(_, flags, _)| *flags)
    }

    /// Somebody empties it.
    pub fn clear(&self) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.clear();
    }

    /// Somebody else's write.
    pub fn put(&self, key: &str, value: &str, flags: u64) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let index = pairs.values().map(|(.., index)| *index).max().unwrap_or(0) + 1;
        pairs.insert(
            (OWN.to_owned(), key.to_owned()),
            (value.to_owned(), flags, index),
        );
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            if header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let (status, answer) = self.answer(&method, &target, &String::from_utf8_lossy(&body))?;
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(())
    }

    fn answer(&self, method: &str, target: &str, body: &str) -> Result<(&'static str, String)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path == "/v1/catalog/datacenters" {
            return Ok(("200 OK", String::from("[\"east\",\"west\"]")));
        }
        let data_center = query.split('&').find_map(|part| part.strip_prefix("dc="));
        let data_center = data_center.unwrap_or(OWN).to_owned();
        let key = path.strip_prefix("/v1/kv/").context("a key")?.to_owned();
        let place = (data_center, key.clone());
        let number = |name: &str| {
            query
                .split('&')
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse::<u64>().ok())
                .context("a number")
        };
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if method == "GET" {
            return Ok(match pairs.get(&place) {
                None => ("404 Not Found", String::new()),
                Some((value, ..)) if query == "raw" => ("200 OK", value.clone()),
                Some((value, flags, index)) => {
                    let value = base64(value.as_bytes());
                    let row = serde_json::json!([{"Key": key, "Value": value, "Flags": flags, "ModifyIndex": index}]);
                    ("200 OK", row.to_string())
                }
            });
        }
        let (wanted, flags) = (number("cas")?, number("flags")?);
        let held = pairs.get(&place).map_or(0, |(.., index)| *index);
        if held != wanted {
            return Ok(("200 OK", String::from("false")));
        }
        let index = pairs.values().map(|(.., index)| *index).max().unwrap_or(0) + 1;
        pairs.insert(place, (body.to_owned(), flags, index));
        Ok(("200 OK", String::from("true")))
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (place, byte)| {
            bits | u32::from(*byte) << (16 - 8 * place)
        });
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}
