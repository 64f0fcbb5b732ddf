//! Consul's key-value store, by its HTTP API (`/v1/kv`, `/v1/txn`).
//!
//! A pair's `Flags` hold its [`Version`]. A pair is read before it is written, and written
//! only against the index that was read, so that two daemons cannot undo each other.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Pairs, Version};
use crate::config::{ConsulSettings, ConsulWrites};
use crate::env::{Env, Mutant, spawn, timeout};
use crate::tls::{self, Renewed};

/// For one request and its answer. No test waits for it to pass, and a busy machine must not make one do so.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Attempts while others write the same pair.
const TRIES: usize = 5;

#[derive(Debug)]
pub(super) struct Consul {
    address: String,
    /// For HTTPS.
    client: Option<Renewed<Arc<ClientConfig>>>,
    token: String,
    writes: ConsulWrites,
    /// Which one is asked; none: the agent's own.
    data_center: Option<String>,
}

/// A pair as the store has it.
struct Held {
    value: String,
    version: Version,
    index: u64,
}

impl Held {
    /// The later term decides who is primary. What is said of one primary (its addresses) is by the same decision, and
    /// renewed whatever the term: where a cluster went on from an older export, terms are lower than they were.
    fn stands_against(&self, version: Version, names_another: bool) -> bool {
        if names_another {
            self.version > version
        } else {
            self.version.decided > version.decided
        }
    }
}

impl Consul {
    pub(super) fn new(settings: &ConsulSettings) -> Self {
        let client = settings.https.then(|| {
            let files = settings.authorities.iter();
            let files: Vec<_> = files
                .map(|path| ("ConsulSSLCAFile", path.clone()))
                .collect();
            Renewed::new("Consul", files, |contents| {
                tls::asking("ConsulSSLCAFile", contents.first().map(Vec::as_slice))
            })
        });
        Consul {
            address: settings.address.clone(),
            client,
            token: settings.token.expose().to_owned(),
            writes: settings.writes,
            data_center: None,
        }
    }

    /// The same store, in another data centre.
    pub(super) fn of_data_center(settings: &ConsulSettings, name: &str) -> Self {
        Consul {
            data_center: Some(name.to_owned()),
            ..Consul::new(settings)
        }
    }

    /// The data centres that the agent knows, nearest first.
    pub(super) async fn data_centers<E: Env>(&self) -> Result<Vec<String>, String> {
        let path = "/v1/catalog/datacenters";
        let (status, body) = self.ask::<E>(Method::GET, path, Bytes::new()).await?;
        let wrong = || format!("{}: GET {path} was answered with {status}", self.address);
        if !status.is_success() {
            return Err(wrong());
        }
        serde_json::from_slice(&body).map_err(|_| wrong())
    }

    /// Makes the store say this, unless it says something of a later decision.
    pub(super) async fn put<E: Env>(&self, pairs: &Pairs, version: Version) -> Result<(), String> {
        let empty = String::new();
        for _ in 0..TRIES {
            let mut writes = Vec::new();
            // The first one names the primary.
            let mut names_another = true;
            for (place, (key, value)) in pairs.0.iter().enumerate() {
                let value = match value {
                    Some(value) => value,
                    None if names_another => &empty,
                    None => continue,
                };
                match self.read::<E>(key).await? {
                    Some(held) if held.value == *value => names_another &= place > 0,
                    Some(held)
                        if held.stands_against(version, names_another)
                            && !E::has(Mutant::AnyPublication) =>
                    {
                        tracing::info!(
                            "{key} in Consul is {}, of a later decision or raft term than {value}: it is left",
                            held.value
                        );
                        return Ok(());
                    }
                    Some(held) => writes.push((key, value, held.index)),
                    // 0: only if it does not exist.
                    None => writes.push((key, value, 0)),
                }
            }
            if writes.is_empty() {
                return Ok(());
            }
            let written = match self.writes {
                ConsulWrites::Transactions => self.write_together::<E>(&writes, version).await?,
                ConsulWrites::Single => self.write_singly::<E>(&writes, version).await?,
            };
            if written {
                for (key, value, _) in writes {
                    tracing::info!("{key} in Consul is {value}");
                }
                return Ok(());
            }
        }
        Err(format!(
            "{}: others write the same pairs all the time",
            self.address
        ))
    }

    async fn read<E: Env>(&self, key: &str) -> Result<Option<Held>, String> {
        let path = format!("/v1/kv/{}", escaped(key));
        let (status, body) = self.ask::<E>(Method::GET, &path, Bytes::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let wrong = || format!("{}: GET {path} was answered with {status}", self.address);
        if !status.is_success() {
            return Err(wrong());
        }
        let rows: Value = serde_json::from_slice(&body).map_err(|_| wrong())?;
        let row = rows.get(0).ok_or_else(wrong)?;
        // An empty value is null.
        let value = row["Value"].as_str().unwrap_or_default();
        let value = STANDARD.decode(value).map_err(|_| wrong())?;
        Ok(Some(Held {
            value: String::from_utf8_lossy(&value).into_owned(),
            version: Version::unpacked(row["Flags"].as_u64().unwrap_or(0)),
            index: row["ModifyIndex"].as_u64().ok_or_else(wrong)?,
        }))
    }

    /// False: somebody else wrote in between.
    async fn write_singly<E: Env>(
        &self,
        writes: &[(&String, &String, u64)],
        version: Version,
    ) -> Result<bool, String> {
        let flags = version.packed();
        for (key, value, index) in writes {
            let path = format!("/v1/kv/{}?cas={index}&flags={flags}", escaped(key));
            let body = Bytes::from((*value).clone());
            let (status, body) = self.ask::<E>(Method::PUT, &path, body).await?;
            if !status.is_success() {
                return Err(refused(&self.address, &path, status, &body));
            }
            if body.trim_ascii() != b"true" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All or nothing. False: somebody else wrote in between.
    async fn write_together<E: Env>(
        &self,
        writes: &[(&String, &String, u64)],
        version: Version,
    ) -> Result<bool, String> {
        let operations: Vec<Value> = writes
            .iter()
            .map(|(key, value, index)| {
                json!({"KV": {
                    "Verb": "cas",
                    "Key": key,
                    "Value": STANDARD.encode(value),
                    "Flags": version.packed(),
                    "Index": index,
                }})
            })
            .collect();
        let body = Bytes::from(Value::Array(operations).to_string());
        let (status, body) = self.ask::<E>(Method::PUT, "/v1/txn", body).await?;
        match status {
            status if status.is_success() => Ok(true),
            // The transaction was rolled back.
            StatusCode::CONFLICT => Ok(false),
            status => Err(refused(&self.address, "/v1/txn", status, &body)),
        }
    }

    async fn ask<E: Env>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let path = match &self.data_center {
            None => path.to_owned(),
            Some(name) => {
                let sign = if path.contains('?') { '&' } else { '?' };
                format!("{path}{sign}dc={}", escaped(name))
            }
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&path)
            .header("host", &self.address);
        if !self.token.is_empty() {
            request = request.header("x-consul-token", &self.token);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| format!("{path}: {error}"))?;
        let exchange = async {
            let stream = E::connect(&self.address)
                .await
                .map_err(|error| error.to_string())?;
            let mut sender = match &self.client {
                None => converse::<E, _>(stream).await?,
                Some(client) => {
                    let client = client.get::<E>().await?;
                    let host = tls::host_of(&self.address);
                    let name = ServerName::try_from(host.to_owned())
                        .map_err(|error| format!("{host}: {error}"))?;
                    let stream = TlsConnector::from(client).connect(name, stream).await;
                    converse::<E, _>(stream.map_err(|error| error.to_string())?).await?
                }
            };
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        timeout::<E, _>(REQUEST_TIME_MAX, exchange)
            .await
            .unwrap_or_else(|| Err(format!("no answer within {} s", REQUEST_TIME_MAX.as_secs())))
            .map_err(|error: String| format!("ConsulAddress {}: {error}", self.address))
    }
}

async fn converse<E: Env, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    spawn::<E>(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to Consul ended");
        }
    });
    Ok(sender)
}

fn refused(address: &str, path: &str, status: StatusCode, body: &[u8]) -> String {
    let said = String::from_utf8_lossy(&body[..body.len().min(200)])
        .trim()
        .to_owned();
    format!("ConsulAddress {address}: PUT {path} was answered with {status}: {said}")
}

/// A key as part of a path: slashes stay.
fn escaped(key: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                path.push(char::from(byte));
            }
            other => {
                let _ = write!(path, "%{other:02X}");
            }
        }
    }
    path
}
