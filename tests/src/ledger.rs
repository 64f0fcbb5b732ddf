//! What clients of a fleet were told: each write uniquely named, each answer kept.
//!
//! A client tries every server at a steady pace, as an application with a list of servers would: it
//! has one lane a server, so that a frozen server does not keep it from the others. A write is the
//! row (lane, number). Refused writes (read-only) are counted; acknowledged ones and those whose
//! outcome is unknown are kept, to be compared with what the servers hold afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::sql::{APP, Sql, SqlError};
use crate::wait::{Look, until};

/// The pace of a client: `FAILOVER.md` measures *writable* with a try every 10 ms.
pub const PACE: Duration = Duration::from_millis(10);

/// How long a client waits for an answer before it gives the connection up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of a write: the row it inserts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct WriteId {
    pub lane: u32,
    pub number: u64,
}

/// A write that was acknowledged, or whose outcome is unknown.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: WriteId,
    pub port: u16,
    pub sent: Instant,
    pub answered: Instant,
    pub outcome: WriteOutcome,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WriteOutcome {
    Acknowledged,
    /// The connection broke, the deadline passed, or the server answered with something else than
    /// a plain refusal.
    Unknown(String),
}

#[derive(Debug, Default)]
struct Shared {
    writes: Mutex<Vec<Write>>,
    refused: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn writes(&self) -> MutexGuard<'_, Vec<Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients that are writing.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<()>>,
}

/// What clients did, after they ended.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub writes: Vec<Write>,
    pub refused: u64,
}

impl Ledger {
    /// Starts this many clients on these servers. `first_lane` keeps the names of several ledgers on
    /// one fleet apart: a ledger uses `clients * ports` lanes from there.
    pub fn start(ports: &[u16], clients: u32, first_lane: u32) -> Ledger {
        let shared = Arc::new(Shared::default());
        let mut lanes = Vec::new();
        let mut lane = first_lane;
        for _ in 0..clients {
            for port in ports {
                lanes.push(tokio::spawn(write(shared.clone(), *port, lane)));
                lane += 1;
            }
        }
        Ledger { shared, lanes }
    }

    /// The first write that was sent after `since` and acknowledged, by this server or by any.
    pub fn first_acknowledged(&self, since: Instant, port: Option<u16>) -> Option<Write> {
        self.shared
            .writes()
            .iter()
            .filter(|write| write.sent > since && write.outcome == WriteOutcome::Acknowledged)
            .filter(|write| port.is_none_or(|port| write.port == port))
            .min_by_key(|write| write.answered)
            .cloned()
    }

    /// The first write that was sent after `since` and acknowledged by another server than `old`.
    pub fn first_acknowledged_elsewhere(&self, since: Instant, old: u16) -> Option<Write> {
        self.shared
            .writes()
            .iter()
            .filter(|write| write.sent > since && write.port != old)
            .filter(|write| write.outcome == WriteOutcome::Acknowledged)
            .min_by_key(|write| write.answered)
            .cloned()
    }

    /// Waits for a write that was acknowledged, by this server or by any.
    pub async fn wait_acknowledged(
        &self,
        since: Instant,
        port: Option<u16>,
        deadline: Duration,
    ) -> Result<Write> {
        until(
            "a client's write is acknowledged",
            deadline,
            Duration::from_millis(5),
            async || match self.first_acknowledged(since, port) {
                Some(write) => Look::Holds(write),
                None => Look::not("every server refuses or is silent"),
            },
        )
        .await
    }

    /// Acknowledged writes by server since a moment.
    pub fn acknowledged_since(&self, since: Instant) -> BTreeMap<u16, u64> {
        let mut counts = BTreeMap::new();
        for write in self
            .shared
            .writes()
            .iter()
            .rev()
            .take_while(|write| write.answered > since)
        {
            if write.outcome == WriteOutcome::Acknowledged {
                *counts.entry(write.port).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Ends the clients; each finishes or gives up the write that it has in flight.
    pub async fn end(mut self) -> Journal {
        self.shared.ended.store(true, Ordering::Relaxed);
        for lane in self.lanes.drain(..) {
            lane.await.ok();
        }
        let writes = std::mem::take(&mut *self.shared.writes());
        Journal {
            writes,
            refused: self.shared.refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.abort();
        }
    }
}

impl Journal {
    pub fn acknowledged(&self) -> impl Iterator<Item = &Write> {
        self.writes
            .iter()
            .filter(|write| write.outcome == WriteOutcome::Acknowledged)
    }
}

async fn write(shared: Arc<Shared>, port: u16, lane: u32) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<Sql> = None;
    let mut number = 0;
    while !shared.ended.load(Ordering::Relaxed) {
        pace.tick().await;
        let sql = match connection.as_mut() {
            Some(sql) => sql,
            None => match Sql::connect(port, APP, PATIENCE).await {
                Ok(sql) => connection.insert(sql),
                Err(_) => continue,
            },
        };
        number += 1;
        let sent = Instant::now();
        let answer = sql
            .run(&format!("INSERT INTO app.ledger VALUES ({lane}, {number})"))
            .await;
        let answered = Instant::now();
        let outcome = match answer {
            Ok(()) => WriteOutcome::Acknowledged,
            Err(error) if is_refusal(&error) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(error) => {
                connection = None;
                WriteOutcome::Unknown(error.to_string())
            }
        };
        let id = WriteId { lane, number };
        shared.writes().push(Write {
            id,
            port,
            sent,
            answered,
            outcome,
        });
    }
}

/// Whether the server says that nothing was written: ER_OPTION_PREVENTS_STATEMENT 1290 (read_only and
/// super_read_only) and ER_READ_ONLY_MODE 1836.
fn is_refusal(error: &SqlError) -> bool {
    matches!(error.code(), Some(1290 | 1836))
}
