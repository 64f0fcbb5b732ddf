//! An application that writes: it looks for the server that takes writes, and keeps a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::env::{sleep, timeout};
use orchestrator_core::id::InstanceKey;

use super::host::World;
use super::server::Account;
use super::wire::{Greeting, Reply, Request, receive, send};

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(10);
/// A write, and a login, that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Committed, and the client was told so: when, and by whom.
    Acknowledged(Duration, InstanceKey),
    /// Sent; no answer came.
    Unknown,
}

/// Every write that was sent and not refused, by its number.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    writes: Arc<Mutex<BTreeMap<u64, Fate>>>,
}

impl Ledger {
    fn writes(&self) -> MutexGuard<'_, BTreeMap<u64, Fate>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn entries(&self) -> BTreeMap<u64, Fate> {
        self.writes().clone()
    }

    /// A write was acknowledged.
    pub(crate) fn note_acknowledged(&self, write: u64, at: Duration, by: InstanceKey) {
        self.writes().insert(write, Fate::Acknowledged(at, by));
    }

    /// The numbers of acknowledged writes, with when and where.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(u64, Duration, InstanceKey)> {
        self.writes()
            .iter()
            .filter_map(|(write, fate)| match fate {
                Fate::Acknowledged(at, server) => Some((*write, *at, server.clone())),
                Fate::Unknown => None,
            })
            .collect()
    }
}

/// Writes for ever, one at a time; numbers begin with `first`. Goes on to the next server when one refuses or fails.
pub async fn write_for_ever<E: World>(servers: Vec<InstanceKey>, ledger: Ledger, first: u64) {
    let mut write = first;
    let mut at = 0;
    loop {
        let server = &servers[at % servers.len()];
        let _ = write_to::<E>(server, &ledger, &mut write).await;
        at += 1;
        sleep::<E>(PAUSE).await;
    }
}

/// Writes over one connection until it fails or the server refuses.
async fn write_to<E: World>(
    server: &InstanceKey,
    ledger: &Ledger,
    write: &mut u64,
) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
    let mut stream = timeout::<E, _>(PATIENCE, E::connect(&server.to_string()))
        .await
        .ok_or_else(late)??;
    let account = Account::Application("app".to_owned());
    let log_in = async {
        let _: Greeting = receive(&mut stream).await?;
        send(&mut stream, &Request::LogIn(account)).await?;
        receive::<Reply>(&mut stream).await
    };
    timeout::<E, _>(PATIENCE, log_in).await.ok_or_else(late)??;
    loop {
        let number = *write;
        *write += 1;
        ledger.writes().insert(number, Fate::Unknown);
        let answer = async {
            send(&mut stream, &Request::Write(number)).await?;
            receive::<Reply>(&mut stream).await
        };
        match timeout::<E, _>(PATIENCE, answer).await.ok_or_else(late)?? {
            Reply::Done => {
                ledger.note_acknowledged(number, E::elapsed(), server.clone());
            }
            _ => {
                // Refused: surely not committed.
                ledger.writes().remove(&number);
                return Ok(());
            }
        }
        sleep::<E>(PAUSE).await;
    }
}
