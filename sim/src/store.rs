//! A key-value store as a machine of the simulated world: the part of Consul's HTTP API that the daemons use. It tells
//! the oracles of each write.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orchestrator::config::{ConsulSettings, ConsulWrites, KvSettings, Secret};
use orchestrator::env::spawn;
use orchestrator::kv::Version;
use orchestrator::trace::event;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::engine::{Engine, Machine};
use crate::witness::{self, Event};

/// The machine's name.
pub const NAME: &str = "kv";
const ADDRESS: [u8; 4] = [10, 0, 2, 1];
const PORT: u16 = 8500;
/// Where the names of clusters are.
pub const PREFIX: &str = "mysql/master/";
const BODY_BYTES_MAX: usize = 1 << 20;

/// A value, its packed [`Version`], and which write it was.
#[derive(Debug, Clone)]
struct Pair {
    value: String,
    flags: u64,
    index: u64,
}

#[derive(Debug, Default)]
struct Pairs {
    pairs: BTreeMap<String, Pair>,
    writes: u64,
}

/// Clones are the same store. It keeps what it has when its process is killed.
#[derive(Debug, Clone, Default)]
pub struct Store {
    shared: Arc<Mutex<Pairs>>,
}

/// What a daemon is told of the store. `together`: several pairs in one transaction.
#[must_use]
pub fn settings(together: bool) -> KvSettings {
    KvSettings {
        prefix: PREFIX.to_owned(),
        consul: Some(ConsulSettings {
            address: format!("{NAME}:{PORT}"),
            https: false,
            authorities: None,
            token: Secret::default(),
            cross_data_center: false,
            writes: if together {
                ConsulWrites::Transactions
            } else {
                ConsulWrites::Single
            },
            operations_per_transaction: 5,
        }),
        zookeeper: None,
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Pairs> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a key says.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<String> {
        self.lock().pairs.get(key).map(|pair| pair.value.clone())
    }

    #[must_use]
    pub fn machine<E: Engine>(&self) -> Machine {
        let store = self.clone();
        Machine::new(NAME, IpAddr::from(ADDRESS), move |_| {
            store.clone().run::<E>()
        })
    }

    async fn run<E: Engine>(self) {
        let mut listener = E::bind(&format!("0.0.0.0:{PORT}"))
            .await
            .expect("a fresh process of a machine finds its port free");
        while let Ok((stream, _)) = E::accept(&mut listener).await {
            let store = self.clone();
            spawn::<E>(async move {
                // One that breaks off is the caller's affair.
                let _ = store.serve::<E>(stream).await;
            });
        }
    }

    async fn serve<E: Engine>(&self, stream: E::Stream) -> io::Result<()> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP");
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        stream.read_line(&mut first).await?;
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
                length = value.trim().parse::<usize>().map_err(|_| bad())?;
            }
        }
        let mut body = vec![0; length.min(BODY_BYTES_MAX)];
        stream.read_exact(&mut body).await?;
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(bad());
        };
        let (status, answer) = self.answer(method, target, &body).ok_or_else(bad)?;
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    }

    fn answer(&self, method: &str, target: &str, body: &[u8]) -> Option<(&'static str, String)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path == "/v1/txn" {
            let is_written = self.transact(&serde_json::from_slice(body).ok()?)?;
            let status = if is_written { "200 OK" } else { "409 Conflict" };
            return Some((status, "{}".to_owned()));
        }
        let key = path.strip_prefix("/v1/kv/")?;
        if method == "GET" {
            return Some(match self.lock().pairs.get(key) {
                None => ("404 Not Found", String::new()),
                Some(pair) => {
                    let row = json!([{
                        "Key": key,
                        "Value": STANDARD.encode(&pair.value),
                        "Flags": pair.flags,
                        "ModifyIndex": pair.index,
                    }]);
                    ("200 OK", row.to_string())
                }
            });
        }
        let number = |name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            let (_, value) = parts.find(|(key, _)| *key == name)?;
            value.parse::<u64>().ok()
        };
        let value = String::from_utf8(body.to_vec()).ok()?;
        let write = (key.to_owned(), value, number("flags")?, number("cas")?);
        Some(("200 OK", self.write(vec![write]).to_string()))
    }

    fn transact(&self, operations: &Value) -> Option<bool> {
        let mut writes = Vec::new();
        for operation in operations.as_array()? {
            let pair = operation.get("KV")?;
            let value = STANDARD.decode(pair.get("Value")?.as_str()?).ok()?;
            writes.push((
                pair.get("Key")?.as_str()?.to_owned(),
                String::from_utf8(value).ok()?,
                pair.get("Flags")?.as_u64()?,
                pair.get("Index")?.as_u64()?,
            ));
        }
        Some(self.write(writes))
    }

    /// All, if each key is at the index that is expected; 0: it does not exist.
    fn write(&self, writes: Vec<(String, String, u64, u64)>) -> bool {
        let mut shared = self.lock();
        let index_of = |pairs: &BTreeMap<String, Pair>, key: &String| {
            pairs.get(key).map_or(0, |pair| pair.index)
        };
        if writes
            .iter()
            .any(|(key, _, _, expected)| index_of(&shared.pairs, key) != *expected)
        {
            return false;
        }
        let mut written = Vec::new();
        for (key, value, flags, _) in writes {
            shared.writes += 1;
            let index = shared.writes;
            let version = Version::unpacked(flags);
            event("kv", format_args!("{key} is {value} of {version}"));
            shared.pairs.insert(
                key.clone(),
                Pair {
                    value: value.clone(),
                    flags,
                    index,
                },
            );
            written.push(Event::Published {
                key,
                value,
                version,
            });
        }
        drop(shared);
        for event in &written {
            witness::tell(event);
        }
        true
    }
}
