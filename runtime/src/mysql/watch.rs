//! What is kept to a watched server: the pulse, whose end or silence tells at once of a dead or frozen server, and the
//! idle fence connection (`FAILOVER.md` section 1, F11, F14, F15).
//!
//! Judges nothing: it reports signs. One task a server; it ends with the watch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::Conn;
use orchestrator_core::id::{Identity, Uid};
use orchestrator_core::node::Sign;
use orchestrator_core::topology::ProbeFailure;

use super::connect::query_within;
use super::dialect::{Dialect, IDLE_LOCKS, PERFORMANCE_SCHEMA, PULSE, YEAR_SECONDS, idle_lock};
use super::report;
use super::table::Table;
use super::{LOGIN, Server, lock};
use crate::env::{Env, sleep, spawn, timeout};
use crate::fleet::SignSender;

/// When a statement in flight is late, and when it is given up.
const LATE: Duration = Duration::from_millis(1300);
const SILENT: Duration = Duration::from_millis(2500);
/// An answer that came sooner (the sleep was interrupted) is waited out, lest the pulse races.
const BEAT: Duration = Duration::from_secs(1);
/// How old an idle fence connection may grow before another takes its place: nothing in flight on it tells of its end.
const FENCE_AGE: Duration = Duration::from_secs(300);
/// The server would close an idle session after `wait_timeout`: this is the greatest value it takes (a year).
const IDLE_SESSION: Duration = Duration::from_secs(YEAR_SECONDS);

/// A watch and what it keeps.
#[derive(Debug)]
pub(super) struct Watched {
    redial_nanos: AtomicU64,
    signs: Mutex<SignSender>,
    stopped: tokio::sync::watch::Sender<bool>,
    fence: Mutex<Option<Fence>>,
    fence_dialling: AtomicBool,
    /// How long the last login took that was complete.
    login_took: Mutex<Option<Duration>>,
}

/// An idle connection, nothing ever in flight on it.
#[derive(Debug)]
pub(super) struct Fence {
    pub conn: Conn,
    pub dialect: Dialect,
    pub identity: Identity,
    /// The session's number there, and the number of the lock by which it is known as an idle fence connection.
    id: u64,
    lock: u32,
    since: Duration,
}

impl Watched {
    pub fn new(redial: Duration, signs: SignSender) -> Self {
        Watched {
            redial_nanos: AtomicU64::new(nanos(redial)),
            signs: Mutex::new(signs),
            stopped: tokio::sync::watch::Sender::new(false),
            fence: Mutex::new(None),
            fence_dialling: AtomicBool::new(false),
            login_took: Mutex::new(None),
        }
    }

    pub fn change(&self, redial: Duration, signs: SignSender) {
        self.redial_nanos.store(nanos(redial), Ordering::Relaxed);
        *lock(&self.signs) = signs;
    }

    /// Ends the pulse, the fence connection and a fence that is pending on it.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
        *lock(&self.fence) = None;
    }

    /// Takes the idle fence connection for the fence.
    pub fn take_fence(&self) -> Option<Fence> {
        lock(&self.fence).take()
    }

    /// The idle connection with this session is no more.
    fn forget_fence(&self, id: u64) {
        let mut fence = lock(&self.fence);
        if fence.as_ref().is_some_and(|fence| fence.id == id) {
            *fence = None;
        }
    }

    fn redial(&self) -> Duration {
        Duration::from_nanos(self.redial_nanos.load(Ordering::Relaxed))
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    async fn until_stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        // An error means that the sender is gone, which it is not while `self` is borrowed.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    fn sign(&self, server: &Server, sign: Sign) {
        if self.is_stopped() {
            return;
        }
        let signs = lock(&self.signs).clone();
        signs.send(&server.key, sign);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The task of a watch.
pub(super) async fn run<E: Env>(server: Arc<Server>, watched: Arc<Watched>) {
    tokio::select! {
        biased;
        () = watched.until_stopped() => {}
        () = pulse::<E>(&server, &watched) => {}
    }
}

/// A connection of the pulse, logged in and identified.
struct Pulse {
    conn: Conn,
    dialect: Dialect,
    identity: Identity,
    id: u64,
}

async fn pulse<E: Env>(server: &Arc<Server>, watched: &Arc<Watched>) {
    let mut up = dial_until_up::<E>(server, watched, |_| {}).await;
    loop {
        watched.sign(server, Sign::PulseUp(up.identity.clone()));
        // The old one may be of a process that is no more.
        refresh_fence::<E>(server, watched);
        up = beat::<E>(server, watched, up).await;
    }
}

/// Keeps the statement in flight until the connection is over, and dials the next one.
async fn beat<E: Env>(server: &Arc<Server>, watched: &Arc<Watched>, mut up: Pulse) -> Pulse {
    loop {
        let began = E::mono();
        // Nothing may be in flight on the idle connection: its lock, seen from here, tells whether it is still there.
        let idle = lock(&watched.fence)
            .as_ref()
            .map(|fence| (fence.id, fence.lock));
        let text = match idle {
            Some((_, number)) => format!("{PULSE}, IS_USED_LOCK('{}')", idle_lock(number)),
            None => PULSE.to_owned(),
        };
        let mut answer = Box::pin(async {
            let mut tables = Vec::new();
            let ended = super::connect::query(&mut up.conn, &text, &mut tables).await;
            ended.map(|()| tables)
        });
        let mut spare = None;
        let mut dials = None;
        let ended = match timeout::<E, _>(LATE, &mut answer).await {
            Some(ended) => Some(ended),
            None => {
                watched.sign(server, Sign::PulseLate);
                // Only a completed login counts; it waits to become the next pulse.
                let mut dial = Box::pin(dial_until_up::<E>(server, watched, |identity| {
                    watched.sign(server, Sign::DialAnswered(identity.clone()));
                }));
                let late = async {
                    tokio::select! {
                        biased;
                        ended = &mut answer => return ended,
                        found = &mut dial => spare = Some(found),
                    }
                    answer.await
                };
                let ended = timeout::<E, _>(SILENT - LATE, late).await;
                dials = Some(dial);
                ended
            }
        };
        let mut tables = None;
        let is_over = match ended {
            Some(Ok(answer)) => {
                tables = Some(answer);
                watched.sign(server, Sign::PulseBeat);
                false
            }
            Some(Err((_, ProbeFailure::ServerError { code: 1053, .. }))) => {
                watched.sign(server, Sign::PulseShutdown);
                true
            }
            // Any other complete packet is a beat: an interrupted query, a limit on time.
            Some(Err((_, ProbeFailure::ServerError { code, .. })))
                if ![1927, 3169, 4031].contains(&code) =>
            {
                watched.sign(server, Sign::PulseBeat);
                false
            }
            Some(Err(_)) => {
                watched.sign(server, Sign::PulseClosed);
                true
            }
            None => {
                watched.sign(server, Sign::PulseSilent);
                true
            }
        };
        if is_over {
            // A dial under way goes on: each failed login is evidence.
            return match (spare, dials) {
                (Some(found), _) => found,
                (None, Some(dial)) => dial.await,
                (None, None) => dial_until_up::<E>(server, watched, |_| {}).await,
            };
        }
        if let (Some((id, _)), Some(tables)) = (idle, tables) {
            let row = tables.first().and_then(Table::first);
            let holder = row.and_then(|row| row.at(1)?.parse::<u64>().ok());
            if holder != Some(id) {
                watched.forget_fence(id);
            }
        }
        if fence_is_due::<E>(watched) {
            refresh_fence::<E>(server, watched);
        }
        let rest = BEAT.saturating_sub(E::mono().saturating_sub(began));
        if !rest.is_zero() {
            sleep::<E>(rest).await;
        }
    }
}

/// Dials, one dial in flight, one each interval, until a login is complete. Each failure is a sign.
async fn dial_until_up<E: Env>(
    server: &Arc<Server>,
    watched: &Arc<Watched>,
    answered: impl Fn(&Identity) + Send,
) -> Pulse {
    loop {
        let began = E::mono();
        let took = *lock(&watched.login_took);
        match log_in::<E>(server, patience(took, server.settings.connect_timeout)).await {
            Ok(up) => {
                *lock(&watched.login_took) = Some(E::mono().saturating_sub(began));
                answered(&up.identity);
                return up;
            }
            Err(failure) => watched.sign(
                server,
                match failure {
                    ProbeFailure::Refused => Sign::DialRefused,
                    ProbeFailure::Unreachable | ProbeFailure::Unresolved(_) => {
                        Sign::DialUnreachable
                    }
                    ProbeFailure::ServerError { code, .. } => Sign::DialError(code),
                    // A proxy in front accepts and closes; a frozen server says nothing.
                    ProbeFailure::NoLogin
                    | ProbeFailure::Stalled
                    | ProbeFailure::Closed
                    | ProbeFailure::Garbled(_) => Sign::DialNoLogin,
                },
            ),
        }
        let rest = watched
            .redial()
            .saturating_sub(E::mono().saturating_sub(began));
        if !rest.is_zero() {
            sleep::<E>(rest).await;
        }
    }
}

/// How long a login may take by how long the last one took: [`LOGIN`], or as long as a probe's where one takes longer, as
/// from another continent, or was not seen so far.
fn patience(took: Option<Duration>, connect_timeout: Duration) -> Duration {
    let longest = connect_timeout.max(LOGIN);
    took.map_or(longest, |took| (took * 3).clamp(LOGIN, longest))
}

/// A login, and which server answered; `within` bounds the two together.
async fn log_in<E: Env>(server: &Server, within: Duration) -> Result<Pulse, ProbeFailure> {
    let until = E::mono() + within;
    let mut conn = server.dialer.dial::<E>(&server.settings, within).await?;
    let mut left = || {
        until
            .saturating_sub(E::mono())
            .max(Duration::from_millis(50))
    };
    let (dialect, identity, id) = identify::<E>(&mut conn, &mut left).await?;
    Ok(Pulse {
        conn,
        dialect,
        identity,
        id,
    })
}

/// Which server a connection leads to, and the connection's id there.
pub(super) async fn identify<E: Env>(
    conn: &mut Conn,
    left: &mut (dyn FnMut() -> Duration + Send),
) -> Result<(Dialect, Identity, u64), ProbeFailure> {
    let first = query_within::<E>(
        conn,
        "SELECT @@global.version, @@global.version_comment, CONNECTION_ID()",
        left(),
    )
    .await?;
    let row = first.first().and_then(Table::first);
    let Some((dialect, id)) = row.and_then(|row| {
        let dialect = Dialect::new(row.at(0)?, row.at(1).unwrap_or_default());
        Some((dialect, row.at(2)?.parse().ok()?))
    }) else {
        return Err(ProbeFailure::Garbled("no version in the answer".to_owned()));
    };
    let text = if dialect.is_mariadb() {
        "SELECT @@global.server_id, @@global.hostname, @@global.port".to_owned()
    } else if dialect.has_two_process_lists() {
        format!("SELECT @@global.server_uuid, {PERFORMANCE_SCHEMA}")
    } else {
        "SELECT @@global.server_uuid".to_owned()
    };
    let second = query_within::<E>(conn, &text, left()).await?;
    let (row, identity) = second
        .first()
        .and_then(Table::first)
        .and_then(|row| Some((row, report::identity(&dialect, row)?)))
        .ok_or_else(|| ProbeFailure::Garbled("the server does not say who it is".to_owned()))?;
    let dialect = if dialect.has_two_process_lists() {
        dialect.with_performance_schema(row.is_on(&[PERFORMANCE_SCHEMA]))
    } else {
        dialect
    };
    Ok((dialect, identity, id))
}

fn fence_is_due<E: Env>(watched: &Watched) -> bool {
    lock(&watched.fence)
        .as_ref()
        .is_none_or(|fence| E::mono().saturating_sub(fence.since) > FENCE_AGE)
}

/// Dials another fence connection in the background and puts it in the place of the old one.
fn refresh_fence<E: Env>(server: &Arc<Server>, watched: &Arc<Watched>) {
    if watched.fence_dialling.swap(true, Ordering::AcqRel) {
        return;
    }
    let (server, watched) = (server.clone(), watched.clone());
    spawn::<E>(async move {
        match dial_fence::<E>(&server).await {
            Ok(fence) => {
                let mut slot = lock(&watched.fence);
                if !watched.is_stopped() {
                    *slot = Some(fence);
                }
            }
            Err(failure) => {
                tracing::debug!(server = %server.key, %failure, "no fence connection");
            }
        }
        watched.fence_dialling.store(false, Ordering::Release);
    });
}

/// A connection that is known as an idle fence connection by a lock it holds: before a later epoch makes a server
/// writable it kills whoever holds one of these locks, and nobody else. (All sessions of our account would do as well,
/// but every daemon's pulse would break with them, which looks like a death, and so would whatever people run under
/// that account.)
async fn dial_fence<E: Env>(server: &Server) -> Result<Fence, ProbeFailure> {
    let within = server.settings.connect_timeout;
    let mut up = log_in::<E>(server, within).await?;
    let session = up.dialect.session(IDLE_SESSION);
    query_within::<E>(&mut up.conn, &session, within).await?;
    for number in 0..IDLE_LOCKS {
        let text = format!("SELECT GET_LOCK('{}', 0)", idle_lock(number));
        let tables = query_within::<E>(&mut up.conn, &text, within).await?;
        let got = tables
            .first()
            .and_then(Table::first)
            .and_then(|row| row.at(0));
        if got == Some("1") {
            return Ok(Fence {
                conn: up.conn,
                dialect: up.dialect,
                identity: up.identity,
                id: up.id,
                lock: number,
                since: E::mono(),
            });
        }
    }
    Err(ProbeFailure::Garbled(format!(
        "all {IDLE_LOCKS} locks of idle fence connections are taken"
    )))
}

/// Writes the fence statement into the idle connection. It stays there until the server executes it, the watch ends, or
/// a later epoch kills the session.
pub(super) fn fence<E: Env>(server: &Arc<Server>, watched: &Arc<Watched>, uid: &Uid) {
    let Some(mut idle) = watched.take_fence() else {
        tracing::warn!(recovery = %uid, server = %server.key, "no idle fence connection to write the fence into");
        return;
    };
    tracing::info!(recovery = %uid, server = %server.key, "the fence is left in the idle connection");
    let (server, watched, uid) = (server.clone(), watched.clone(), uid.clone());
    spawn::<E>(async move {
        let text = idle.dialect.fence_text();
        let mut tables = Vec::new();
        tokio::select! {
            biased;
            ended = super::connect::query(&mut idle.conn, text, &mut tables) => match ended {
                Ok(()) => {
                    tracing::warn!(recovery = %uid, server = %server.key, "the waiting fence was executed");
                }
                Err((_, failure)) => {
                    tracing::warn!(recovery = %uid, server = %server.key, %failure, "the waiting fence is over");
                }
            },
            () = watched.until_stopped() => {}
        }
    });
}
