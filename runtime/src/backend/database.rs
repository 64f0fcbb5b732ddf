//! The database of a backend, whichever kind it is: what the writer asks of it.
//!
//! Both kinds promise the same. Rows, where they stand and whose they are change in one transaction; nothing is written on
//! an error; who has not written for a while may be taken over by another daemon, and a daemon that was taken over writes
//! no more.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator_core::id::{ClusterId, InstanceKey, LogPosition, NodeId};
use orchestrator_core::time::Wall;

use super::question::Texts;
use super::rows::{Write, unhex};
use super::{Adopted, BackendError, IN_USE, Place, Position, Settings, mysql, sqlite};
use crate::env::Env;

/// What goes to the database with the rows of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub cluster: Option<ClusterId>,
    /// Where the rows stand after it; none: where they stood.
    pub applied: Option<(LogPosition, [u8; 32])>,
    pub wall: Wall,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub position: Option<Position>,
    /// People wrote rows beside the daemon: all are to be written anew.
    pub is_by_hand: bool,
    pub adopted: Option<Adopted>,
    /// The servers that have a row in `database_instance`.
    pub instances: BTreeSet<InstanceKey>,
    /// Answers to [`super::original::QUESTIONS`].
    pub original: Vec<Vec<Texts>>,
}

/// Which tables are emptied before rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    Nothing,
    Replicated,
}

/// The row of `orchestrator_projection`.
pub(super) struct Held {
    pub daemon: String,
    pub token: String,
    pub written_at: String,
    pub cluster: String,
    pub index: Option<i64>,
    pub term: Option<i64>,
    pub leader: String,
    pub digest: String,
}

/// What its owner changes in that row each second: which process it is, and when by its own clock it wrote last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub token: String,
    pub written_at: String,
}

/// Whether another daemon's row stands still. Its time is compared with nothing but itself: the clocks of two machines may
/// differ by any amount.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// As it was seen last, and since when it has been so, by this process's monotonic clock.
    seen: Option<(Mark, Duration)>,
}

/// What a look at such a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    First,
    Still,
    Moved,
}

impl Watch {
    pub fn saw(&mut self, mark: Mark, now: Duration) -> Look {
        let look = match &self.seen {
            Some((before, _)) if *before == mark => return Look::Still,
            Some(_) => Look::Moved,
            None => Look::First,
        };
        self.seen = Some((mark, now));
        look
    }

    /// The row that may be claimed if it still is as it was: its owner was silent for long enough.
    pub fn silent(&self, now: Duration) -> Option<Mark> {
        let (mark, since) = self.seen.as_ref()?;
        (now.saturating_sub(*since) >= IN_USE).then(|| mark.clone())
    }
}

impl Held {
    /// Whether this daemon wrote it, wherever it was then.
    pub fn is_own(&self, settings: &Settings) -> bool {
        match settings.identity {
            None => self.daemon == settings.owner(),
            Some(identity) => {
                let last = self.daemon.rsplit(' ').next();
                last.is_some_and(|last| last == identity.to_string())
            }
        }
    }

    /// Why it is not this daemon's to take: it is of another cluster, or another daemon has it that is not known to be
    /// `silent`.
    pub fn not_to_be_taken(
        &self,
        settings: &Settings,
        silent: Option<&Mark>,
    ) -> Option<BackendError> {
        if let Some(own) = settings.cluster
            && unhex(&self.cluster).is_some_and(|found| found != own.0)
        {
            return Some(BackendError::OtherCluster {
                place: settings.place.clone(),
                found: self.cluster.clone(),
                own,
            });
        }
        let is_silent = silent
            .is_some_and(|mark| mark.token == self.token && mark.written_at == self.written_at);
        (!self.is_own(settings) && !is_silent).then(|| BackendError::InUse {
            place: settings.place.clone(),
            daemon: self.daemon.clone(),
            token: self.token.clone(),
            written_at: self.written_at.clone(),
        })
    }

    /// What the rows are worth to this daemon. Those that another one wrote are a copy, or were moved here: they say which
    /// cluster they are of, and nothing about what this daemon once knew, so they are written anew.
    pub fn position(&self, is_own: bool) -> Option<Position> {
        let cluster = unhex(&self.cluster).map(ClusterId);
        let at = self.index.zip(self.term).map(|(index, term)| LogPosition {
            index: index.unsigned_abs(),
            term: term.unsigned_abs(),
            node: NodeId(u64::from_str_radix(&self.leader, 16).unwrap_or(0)),
        });
        (cluster.is_some() || at.is_some()).then(|| Position {
            cluster,
            at,
            digest: unhex(&self.digest).filter(|_| is_own),
        })
    }
}

/// An open database.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(sqlite::Database),
    Mysql(mysql::Database),
}

/// Opens the database, creating it if missing, and brings its tables to this release's. Another daemon's is left alone unless
/// that one was found to be `silent`.
pub(super) async fn open<E: Env>(
    settings: &Settings,
    silent: Option<Mark>,
    wall: Wall,
) -> Result<(Database, Found), BackendError> {
    match &settings.place {
        Place::Sqlite(path) => {
            let (path, settings) = (path.clone(), settings.clone());
            let opened =
                E::blocking(move || sqlite::open::<E>(path, &settings, silent.as_ref(), wall))
                    .await;
            opened.map(|(database, found)| (Database::Sqlite(database), found))
        }
        Place::Mysql(backend) => mysql::open::<E>(backend, settings, silent.as_ref(), wall)
            .await
            .map(|(database, found)| (Database::Mysql(database), found)),
    }
}

/// Where the rows of a transaction come from.
pub(super) trait Source: Send + Sync + 'static {
    fn writes(&self) -> Box<dyn Iterator<Item = Write> + Send + '_>;
}

/// How writing went.
#[derive(Debug)]
pub(super) enum Attempt {
    Written(Database),
    Failed(Database, BackendError),
    /// The database is not where it was opened, or the connection to it is lost: it is to be opened again.
    Lost(Option<BackendError>),
}

impl Database {
    /// Writes rows, where they stand and whose they are in one transaction; with `rewrite`, over emptied tables. Nothing is
    /// written on an error. The rows come back.
    pub(super) async fn write<E: Env, S: Source>(
        self,
        source: S,
        rewrite: Rewrite,
        stamp: Stamp,
    ) -> (S, Attempt) {
        match self {
            Self::Sqlite(mut database) => {
                E::blocking(move || {
                    if !database.is_there::<E>() {
                        return (source, Attempt::Lost(None));
                    }
                    let outcome = database.write(rewrite, &source, stamp);
                    let database = Self::Sqlite(database);
                    let attempt = match outcome {
                        Ok(()) => Attempt::Written(database),
                        Err(error) => Attempt::Failed(database, error),
                    };
                    (source, attempt)
                })
                .await
            }
            Self::Mysql(database) => {
                let attempt = database.write::<E>(&source, rewrite, stamp).await;
                (source, attempt)
            }
        }
    }
}
