//! What a recovery is judged by, as `FAILOVER.md` section 8 defines the terms.
//!
//! The oracle shares no code with the daemon: it reads the servers itself, with an account of its
//! own, and counts transactions by the numbers that the servers print.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::fleet::{Flavour, Fleet, Server};
use crate::ledger::{Journal, Write, WriteId};
use crate::sql::Sql;

/// Who a primary is in the transactions that it originates: MySQL's server_uuid, MariaDB's server_id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(String);

/// Reads the origin of a running server.
pub async fn origin(server: &Server) -> Result<Origin> {
    let mut sql = server.harness().await?;
    let query = match server.flavour() {
        Flavour::MariaDb => "SELECT @@GLOBAL.server_id",
        Flavour::MySql => "SELECT @@GLOBAL.server_uuid",
    };
    let name = sql.value(query).await?;
    sql.close().await;
    Ok(Origin(name))
}

/// How many of a primary's transactions a replica was seen to hold, by their greatest number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// At any time, from whomever.
    pub ever: u64,
    /// While it replicated from that primary: what a candidate is chosen by.
    pub from_primary: u64,
}

/// Samples, throughout a recovery, how many of a primary's transactions each replica was seen to
/// hold, applied or only received. The greatest number seen counts: what was received and then
/// purged by somebody's hand is a loss, and shows.
#[derive(Debug)]
pub struct ReceivedWatch {
    seen: Arc<Mutex<BTreeMap<u16, Seen>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl ReceivedWatch {
    pub async fn start(fleet: &Fleet, primary: u16, origin: &Origin) -> Result<ReceivedWatch> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let mut tasks = Vec::new();
        for server in fleet.live_except(primary) {
            let mut sql = server.harness().await?;
            let (port, flavour, origin, seen) = (
                server.port(),
                server.flavour(),
                origin.clone(),
                seen.clone(),
            );
            tasks.push(tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(15));
                loop {
                    pace.tick().await;
                    // A server that does not answer has no more to say: the greatest number stays.
                    let Ok((number, source)) = held(&mut sql, flavour, &origin).await else {
                        return;
                    };
                    let mut all = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let mine: &mut Seen = all.entry(port).or_default();
                    mine.ever = mine.ever.max(number);
                    if source == Some(primary) {
                        mine.from_primary = mine.from_primary.max(number);
                    }
                }
            }));
        }
        Ok(ReceivedWatch { seen, tasks })
    }

    pub fn end(self) -> BTreeMap<u16, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for ReceivedWatch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The greatest number of a transaction of `origin` that a server holds, applied or received, and
/// where it replicates from. What is applied is read first: all of it came from that source or
/// from before.
async fn held(sql: &mut Sql, flavour: Flavour, origin: &Origin) -> Result<(u64, Option<u16>)> {
    let (applied, column) = match flavour {
        Flavour::MariaDb => (
            sql.value("SELECT CONCAT_WS(',', @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_state)")
                .await?,
            "Gtid_IO_Pos",
        ),
        Flavour::MySql => (
            sql.value("SELECT @@GLOBAL.gtid_executed").await?,
            "Retrieved_Gtid_Set",
        ),
    };
    let status = sql.rows(flavour.show_replica_status()).await?;
    let received = status.first().map_or("", |row| row.text(&[column]));
    let source = status
        .first()
        .and_then(|row| row.text(&["Source_Port", "Master_Port"]).parse().ok());
    let number =
        greatest_number(flavour, received, origin).max(greatest_number(flavour, &applied, origin));
    Ok((number, source))
}

/// The greatest transaction number of an origin in a GTID set as its flavour prints it.
pub fn greatest_number(flavour: Flavour, set: &str, origin: &Origin) -> u64 {
    let entries = set.split(',').map(str::trim);
    let numbers: Vec<u64> = match flavour {
        // domain-server-sequence
        Flavour::MariaDb => entries
            .filter_map(|entry| {
                let mut parts = entry.split('-').skip(1);
                let server = parts.next()?;
                (server == origin.0).then(|| parts.next()?.parse().ok())?
            })
            .collect(),
        // uuid:first-last:tag:first-last...
        Flavour::MySql => entries
            .filter_map(|entry| entry.split_once(':'))
            .filter(|(uuid, _)| uuid.eq_ignore_ascii_case(&origin.0))
            .flat_map(|(_, intervals)| intervals.split(':'))
            .filter_map(|interval| interval.rsplit('-').next()?.parse().ok())
            .collect(),
    };
    numbers.into_iter().max().unwrap_or(0)
}

/// A choice among equals that a criterion before the last one, which is host and port, has to explain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tie {
    pub promoted: u16,
    pub lowest: u16,
    pub received: BTreeMap<u16, Seen>,
}

/// What is wrong after a recovery, and what is known to be lost without being wrong.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// *Right replica* did not hold: who had received more.
    pub not_right: Vec<String>,
    /// Another server among equals was promoted than the one with the lowest port.
    pub tie: Option<Tie>,
    /// *No errant transaction* did not hold.
    pub errant: Vec<String>,
    /// *Nothing lost* did not hold.
    pub lost: Vec<String>,
    /// Acknowledged writes that only the dead primary had: what asynchronous replication may lose.
    pub only_on_dead: usize,
    /// Acknowledged writes.
    pub acknowledged: usize,
}

impl Judgement {
    pub fn wrongs(&self) -> Vec<String> {
        let tie = self
            .tie
            .as_ref()
            .map(|tie| format!("unexplained choice among equals: {tie:?}"));
        [&self.not_right, &self.errant, &self.lost]
            .into_iter()
            .flatten()
            .cloned()
            .chain(tie)
            .collect()
    }

    /// Whether *right replica* held.
    pub fn is_right(&self) -> bool {
        self.not_right.is_empty() && self.tie.is_none()
    }
}

/// What a judgement is made of.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The primary that was struck, and its name in transactions.
    pub old: u16,
    pub origin: &'a Origin,
    pub promoted: u16,
    pub struck: Instant,
    pub received: &'a BTreeMap<u16, Seen>,
    pub journal: &'a Journal,
    /// Servers whose errant transactions were there before.
    pub errant_before: &'a [u16],
    /// Replicas that the tie-break may not choose (errant, delayed, a rule against them).
    pub no_candidates: &'a [u16],
}

/// Judges a recovery when the fleet has come to rest and its clients have ended.
pub async fn judge(fleet: &Fleet, evidence: Evidence<'_>) -> Result<Judgement> {
    let flavour = fleet.flavour();
    let mut judgement = Judgement {
        acknowledged: evidence.journal.acknowledged().count(),
        ..Judgement::default()
    };
    let promoted = fleet.server(evidence.promoted)?;
    let mut primary = promoted.harness().await?;

    // Right: nothing that any replica had received is missing.
    let most = evidence
        .received
        .values()
        .map(|seen| seen.ever)
        .max()
        .unwrap_or(0);
    let executed = executed(&mut primary, flavour).await?;
    let has = greatest_number(flavour, &executed, evidence.origin);
    if evidence.promoted != evidence.old && has < most {
        judgement.not_right.push(format!(
            "promoted {} has {has} of the old primary's transactions, received were {:?}",
            evidence.promoted, evidence.received
        ));
    }
    judgement.tie = tie(&evidence);

    // No errant transaction on what replicates from it. The replica is read first, so that a write of
    // this moment is no false alarm.
    let mut survivors = BTreeMap::new();
    for server in fleet.live_except(evidence.promoted) {
        let replicates = server
            .replica_status()
            .await?
            .is_some_and(|status| status.source_port == evidence.promoted);
        if replicates && !evidence.errant_before.contains(&server.port()) {
            let mut replica = server.harness().await?;
            let theirs = self::executed(&mut replica, flavour).await?;
            let extra = beyond(&mut primary, flavour, &theirs).await?;
            if !extra.is_empty() {
                judgement.errant.push(format!(
                    "{} has {extra}, which {} has not",
                    server.port(),
                    evidence.promoted
                ));
            }
            replica.close().await;
        }
        if replicates || server.port() != evidence.old {
            survivors.insert(server.port(), rows(server).await?);
        }
    }

    judge_writes(&mut judgement, evidence, &rows(promoted).await?, &survivors);
    Ok(judgement)
}

/// Among equals the lowest port, unless another criterion of the documented order decides: in these
/// fleets that can only be how much is left to apply.
fn tie(evidence: &Evidence<'_>) -> Option<Tie> {
    let most = evidence
        .received
        .values()
        .map(|seen| seen.from_primary)
        .max()?;
    let lowest = evidence
        .received
        .iter()
        .filter(|(port, seen)| seen.from_primary == most && !evidence.no_candidates.contains(port))
        .map(|(port, _)| *port)
        .min()?;
    let as_named = evidence.promoted == evidence.old || evidence.promoted == lowest;
    (!as_named).then(|| Tie {
        promoted: evidence.promoted,
        lowest,
        received: evidence.received.clone(),
    })
}

/// *Nothing lost*, by the rows: each acknowledged write is on the promoted server, or no surviving
/// server had received it. Commit order is what tells: a write that is missing although a later
/// one arrived was received and lost.
fn judge_writes(
    judgement: &mut Judgement,
    evidence: Evidence<'_>,
    present: &BTreeSet<WriteId>,
    survivors: &BTreeMap<u16, BTreeSet<WriteId>>,
) {
    let acknowledged: Vec<&Write> = evidence.journal.acknowledged().collect();
    let last_arrived = acknowledged
        .iter()
        .filter(|write| {
            write.port == evidence.old
                && write.sent < evidence.struck
                && present.contains(&write.id)
        })
        .map(|write| write.sent)
        .max();
    for write in acknowledged
        .iter()
        .filter(|write| !present.contains(&write.id))
    {
        let holder = survivors
            .iter()
            .find(|(_, rows)| rows.contains(&write.id))
            .map(|(port, _)| *port);
        if let Some(holder) = holder {
            judgement.lost.push(format!(
                "{:?} acknowledged by {} is on {holder} only",
                write.id, write.port
            ));
        } else if write.port != evidence.old {
            judgement.lost.push(format!(
                "{:?} acknowledged by {} is nowhere",
                write.id, write.port
            ));
        } else if last_arrived.is_some_and(|arrived| write.answered < arrived) {
            judgement.lost.push(format!(
                "{:?} is missing, but a later write of the same primary arrived",
                write.id
            ));
        } else {
            judgement.only_on_dead += 1;
        }
    }
}

async fn rows(server: &Server) -> Result<BTreeSet<WriteId>> {
    let mut sql = server.harness().await?;
    let rows = sql
        .rows("SELECT client, number FROM app.ledger")
        .await
        .context("reading the ledger")?;
    sql.close().await;
    Ok(rows
        .iter()
        .filter_map(|row| {
            Some(WriteId {
                lane: row.get(&["client"])?.parse().ok()?,
                number: row.get(&["number"])?.parse().ok()?,
            })
        })
        .collect())
}

async fn executed(sql: &mut Sql, flavour: Flavour) -> Result<String> {
    let query = match flavour {
        Flavour::MariaDb => "SELECT @@GLOBAL.gtid_binlog_state",
        Flavour::MySql => "SELECT @@GLOBAL.gtid_executed",
    };
    Ok(sql.value(query).await?)
}

/// What is in `set` and not on this server.
async fn beyond(sql: &mut Sql, flavour: Flavour, set: &str) -> Result<String> {
    match flavour {
        Flavour::MySql => Ok(sql
            .value(&format!(
                "SELECT GTID_SUBTRACT('{set}', @@GLOBAL.gtid_executed)"
            ))
            .await?),
        Flavour::MariaDb => {
            let mine = sql.value("SELECT @@GLOBAL.gtid_binlog_state").await?;
            let mine = by_origin(&mine);
            let beyond: Vec<String> = by_origin(set)
                .into_iter()
                .filter(|(origin, number)| mine.get(origin).is_none_or(|mine| mine < number))
                .map(|(origin, number)| format!("{origin}-{number}"))
                .collect();
            Ok(beyond.join(","))
        }
    }
}

/// A MariaDB binlog state: the last sequence number by domain and server.
fn by_origin(state: &str) -> BTreeMap<String, u64> {
    state
        .split(',')
        .filter_map(|entry| {
            let (origin, number) = entry.trim().rsplit_once('-')?;
            Some((origin.to_owned(), number.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::WriteOutcome;

    #[test]
    fn numbers_are_read_from_both_flavours() {
        let server = Origin("20011".to_owned());
        assert_eq!(
            greatest_number(Flavour::MariaDb, "0-20012-7,0-20011-42,1-20011-3", &server),
            42
        );
        assert_eq!(greatest_number(Flavour::MariaDb, "", &server), 0);
        let uuid = Origin("2c71d0aa-0b7d-11ef-8f10-0242ac110002".to_owned());
        let set = "00000000-0b7d-11ef-8f10-0242ac110002:1-99,\n2C71D0AA-0b7d-11ef-8f10-0242ac110002:1-5:7-9:tag:1-3";
        assert_eq!(greatest_number(Flavour::MySql, set, &uuid), 9);
        assert_eq!(
            greatest_number(
                Flavour::MySql,
                "2c71d0aa-0b7d-11ef-8f10-0242ac110002:4",
                &uuid
            ),
            4
        );
    }

    fn journal(struck: Instant) -> Journal {
        let write = |number: u64, port, sent: Instant| Write {
            id: WriteId { lane: 1, number },
            port,
            sent,
            answered: sent + Duration::from_millis(1),
            outcome: WriteOutcome::Acknowledged,
        };
        let before = |ms| {
            struck
                .checked_sub(Duration::from_millis(ms))
                .expect("the clock is older than a second")
        };
        Journal {
            writes: vec![
                write(1, 1, before(30)),
                write(2, 1, before(20)),
                write(3, 1, before(10)),
                write(4, 2, struck + Duration::from_millis(500)),
            ],
            refused: 0,
        }
    }

    fn lost(present: &[u64], survivor: &[u64]) -> (usize, usize) {
        let struck = Instant::now();
        let journal = journal(struck);
        let ids = |numbers: &[u64]| {
            numbers
                .iter()
                .map(|number| WriteId {
                    lane: 1,
                    number: *number,
                })
                .collect()
        };
        let evidence = Evidence {
            old: 1,
            origin: &Origin("1".to_owned()),
            promoted: 2,
            struck,
            received: &BTreeMap::new(),
            journal: &journal,
            errant_before: &[],
            no_candidates: &[],
        };
        let mut judgement = Judgement::default();
        judge_writes(
            &mut judgement,
            evidence,
            &ids(present),
            &BTreeMap::from([(3, ids(survivor))]),
        );
        (judgement.lost.len(), judgement.only_on_dead)
    }

    #[test]
    fn a_write_that_a_survivor_has_and_the_promoted_lacks_is_lost() {
        assert_eq!(lost(&[1, 2, 3, 4], &[1, 2, 3, 4]), (0, 0));
        assert_eq!(lost(&[1, 2, 4], &[1, 2, 3]), (1, 0));
    }

    #[test]
    fn a_write_that_only_the_dead_primary_had_is_told_apart() {
        assert_eq!(lost(&[1, 2, 4], &[1, 2, 4]), (0, 1));
    }

    #[test]
    fn a_hole_is_a_loss() {
        assert_eq!(lost(&[1, 3, 4], &[1, 3, 4]), (1, 0));
    }

    #[test]
    fn a_write_of_the_promoted_server_that_is_gone_is_lost() {
        assert_eq!(lost(&[1, 2, 3], &[1, 2, 3]), (1, 0));
    }
}
