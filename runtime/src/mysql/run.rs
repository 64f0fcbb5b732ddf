//! Running a step: action connections, their named locks, and statements under the gate (`RAFT.md` section 6).
//!
//! What is never done: a statement is sent without a confirmation of its epoch just before; a connection is reopened to
//! repeat a statement; an outcome that was not seen is called done or refused.
//!
//! What an outcome says of a step of several statements: the first that does not end well ends the step, and the reason
//! names it; what came before it was done.
//!
//! Holds between calls: a connection in a lane's slot holds that lane's lock in its session, and the epoch of its
//! [`Lanes`] has evicted every other holder of the three locks that was there when it came.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::Conn;
use orchestrator_core::id::{Epoch, Identity, Uid};
use orchestrator_core::limits::{ERROR_TEXT_BYTES_MAX, bounded};
use orchestrator_core::node::StepEnd;
use orchestrator_core::recovery::{Lane, Outcome, Statement, Step};
use orchestrator_core::time::Mono;
use orchestrator_core::topology::{ProbeFailure, ProbeReport, SemiSync};

use super::connect::query_within;
use super::dialect::{Dialect, IDLE_LOCKS, Sql, idle_lock, quoted};
use super::read::{Reader, Whose};
use super::table::{RowView, Table};
use super::watch::identify;
use super::{LOGIN, Server, lock};
use crate::env::{Env, sleep, spawn, timeout};
use crate::fleet::Gate;

/// How long the locks may take, evictions included.
const LOCKING: Duration = Duration::from_secs(3);
/// How long a look is left between two questions whether a killed session is gone.
const LOOK: Duration = Duration::from_millis(10);
/// How long the reading after a step may take.
const READING: Duration = Duration::from_secs(2);
/// After which an action connection that nothing happens on is closed by the server, its lock with it.
const OPEN_SESSION: Duration = Duration::from_secs(600);
/// ER_NO_SUCH_THREAD: whoever was to be killed is gone.
const NO_SUCH_THREAD: u16 = 1094;

const LOCKS: [&str; 3] = [
    "orchestrator/act",
    "orchestrator/fence",
    "orchestrator/kill",
];

const fn lock_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Act => LOCKS[0],
        Lane::Fence => LOCKS[1],
        Lane::Kill => LOCKS[2],
    }
}

/// The action connections of one epoch to one server.
#[derive(Debug)]
pub(super) struct Lanes {
    epoch: Epoch,
    act: tokio::sync::Mutex<Option<Action>>,
    fence: tokio::sync::Mutex<Option<Action>>,
    kill: tokio::sync::Mutex<Option<Action>>,
    /// Ids of this epoch's own sessions there.
    own: Mutex<BTreeSet<u64>>,
    /// Changed whenever what is pending here is to end.
    stopped: tokio::sync::watch::Sender<()>,
}

/// An action connection that holds its lane's lock.
#[derive(Debug)]
struct Action {
    conn: Conn,
    id: u64,
    dialect: Dialect,
    identity: Identity,
}

impl Lanes {
    fn new(epoch: Epoch) -> Self {
        Lanes {
            epoch,
            act: tokio::sync::Mutex::new(None),
            fence: tokio::sync::Mutex::new(None),
            kill: tokio::sync::Mutex::new(None),
            own: Mutex::new(BTreeSet::new()),
            stopped: tokio::sync::watch::Sender::new(()),
        }
    }

    /// Ends a fence that is pending for this epoch; one written later stays.
    pub fn stop(&self) {
        self.stopped.send_replace(());
    }

    fn slot(&self, lane: Lane) -> &tokio::sync::Mutex<Option<Action>> {
        match lane {
            Lane::Act => &self.act,
            Lane::Fence => &self.fence,
            Lane::Kill => &self.kill,
        }
    }
}

/// Why a statement did not end well.
enum Stop {
    /// Nothing was sent, or the server said no.
    Refused {
        code: u16,
        reason: String,
    },
    Unknown {
        reason: String,
    },
    /// The connection has been given away with the statement still on it.
    Pending {
        reason: String,
    },
}

impl Stop {
    fn unsent(reason: impl Into<String>) -> Self {
        Stop::Refused {
            code: 0,
            reason: reason.into(),
        }
    }

    /// A failure before anything was sent that changes the server.
    fn before(failure: ProbeFailure) -> Self {
        match failure {
            ProbeFailure::ServerError { code, message } => Stop::Refused {
                code,
                reason: message,
            },
            other => Stop::unsent(format!("nothing was sent: {other}")),
        }
    }
}

/// A step's confirmations, and what it belongs to.
struct Pass<'a, G> {
    gate: &'a G,
    epoch: Epoch,
    uid: &'a Uid,
}

impl<G: Gate> Pass<'_, G> {
    /// Confirms the epoch; the statement must be written at once.
    async fn confirm<E: Env>(&self) -> Result<Mono, Stop> {
        let until = self.gate.confirm(self.epoch).await.map_err(Stop::unsent)?;
        self.check::<E>(until)?;
        Ok(until)
    }

    fn check<E: Env>(&self, until: Mono) -> Result<(), Stop> {
        if Mono::from_elapsed(E::mono()) < until {
            Ok(())
        } else {
            Err(Stop::unsent("the confirmation of leadership ran out"))
        }
    }
}

/// Runs one step.
pub(super) async fn step<E: Env>(
    server: &Arc<Server>,
    uid: Uid,
    epoch: Epoch,
    step: &Step,
    gate: &impl Gate,
) -> StepEnd {
    let mut end = StepEnd {
        uid: uid.clone(),
        step: step.id,
        epoch,
        outcome: Outcome::Done,
        identity: None,
        report: None,
    };
    let pass = Pass {
        gate,
        epoch,
        uid: &uid,
    };
    if let Err(stop) = attempt::<E>(server, step, &pass, &mut end).await {
        end.outcome = match stop {
            Stop::Refused { code, reason } => Outcome::Refused {
                code,
                reason: bounded(reason, ERROR_TEXT_BYTES_MAX),
            },
            Stop::Unknown { reason } | Stop::Pending { reason } => Outcome::Unknown {
                reason: bounded(reason, ERROR_TEXT_BYTES_MAX),
            },
        };
    }
    end
}

async fn attempt<E: Env>(
    server: &Arc<Server>,
    step: &Step,
    pass: &Pass<'_, impl Gate>,
    end: &mut StepEnd,
) -> Result<(), Stop> {
    if !step.server.is_valid() {
        return Err(Stop::unsent("no key of a server"));
    }
    let lanes = lanes_of(server, pass.epoch)?;
    let patience = server.settings.connect_timeout + LOCKING + step.deadline;
    let Some(mut slot) = timeout::<E, _>(patience, lanes.slot(step.lane).lock()).await else {
        return Err(Stop::unsent("an earlier step of this lane goes on"));
    };
    let mut action = match slot.take() {
        Some(action) => {
            let id = action.id;
            match still_there::<E>(action, step.lane).await {
                Some(action) => action,
                None => {
                    lock(&lanes.own).remove(&id);
                    open::<E>(server, &lanes, step, pass).await?
                }
            }
        }
        None => open::<E>(server, &lanes, step, pass).await?,
    };
    end.identity = Some(action.identity.clone());
    if step
        .identity
        .as_ref()
        .is_some_and(|wanted| *wanted != action.identity)
    {
        let reason = format!("another server answers: {}", action.identity);
        *slot = Some(action);
        return Err(Stop::unsent(reason));
    }
    let until = E::mono() + step.deadline;
    let mut ended = Ok(());
    for (at, statement) in step.statements.iter().enumerate() {
        let (kept, outcome) = run_one::<E>(server, &lanes, action, statement, pass, until).await;
        ended = outcome.map_err(|stop| name_it(stop, at, step));
        match kept {
            Some(kept) => action = kept,
            // The connection is gone, and the outcome says why.
            None => return ended,
        }
        if ended.is_err() {
            break;
        }
    }
    if step.read_after {
        let id = action.id;
        let (kept, report) = read_after::<E>(server, action).await;
        end.report = report.map(Box::new);
        match kept {
            Some(kept) => action = kept,
            None => {
                // It may live on there with the lock: whoever opens the next one ends it.
                lock(&lanes.own).remove(&id);
                return ended;
            }
        }
    }
    *slot = Some(action);
    ended
}

/// Says which statement it was.
fn name_it(stop: Stop, at: usize, step: &Step) -> Stop {
    let name = |reason: String| {
        let statement = &step.statements[at];
        match step.statements.len() {
            1 => format!("{statement}: {reason}"),
            count => format!("{statement} (statement {} of {count}): {reason}", at + 1),
        }
    };
    match stop {
        Stop::Refused { code, reason } => Stop::Refused {
            code,
            reason: name(reason),
        },
        Stop::Unknown { reason } => Stop::Unknown {
            reason: name(reason),
        },
        Stop::Pending { reason } => Stop::Pending {
            reason: name(reason),
        },
    }
}

/// The lanes of this epoch; those of an earlier one are let go, and a fence pending there ended.
fn lanes_of(server: &Server, epoch: Epoch) -> Result<Arc<Lanes>, Stop> {
    let mut current = lock(&server.lanes);
    if let Some(lanes) = current.as_ref() {
        if lanes.epoch == epoch {
            return Ok(lanes.clone());
        }
        if lanes.epoch > epoch {
            return Err(Stop::unsent("a later epoch acts on this server"));
        }
        lanes.stop();
    }
    let fresh = Arc::new(Lanes::new(epoch));
    *current = Some(fresh.clone());
    Ok(fresh)
}

/// Whether a kept action connection is alive and has its lock. Nothing is repeated over another one in its place: no
/// statement was sent.
async fn still_there<E: Env>(mut action: Action, lane: Lane) -> Option<Action> {
    let text = format!(
        "SELECT IS_USED_LOCK('{}') = CONNECTION_ID()",
        lock_name(lane)
    );
    let tables = query_within::<E>(&mut action.conn, &text, LOGIN)
        .await
        .ok()?;
    let held = tables.first()?.first()?.at(0)? == "1";
    held.then_some(action)
}

/// Opens an action connection: login, identity, eviction of whoever holds one of the three locks, the lane's own lock.
async fn open<E: Env>(
    server: &Arc<Server>,
    lanes: &Arc<Lanes>,
    step: &Step,
    pass: &Pass<'_, impl Gate>,
) -> Result<Action, Stop> {
    let until = E::mono() + server.settings.connect_timeout + LOCKING;
    let mut left = || until.saturating_sub(E::mono());
    let mut action = match idle_fence::<E>(server, step, &mut left).await {
        Some(action) => action,
        None => {
            let mut conn = server
                .dialer
                .dial::<E>(&server.settings, server.settings.connect_timeout)
                .await
                .map_err(Stop::before)?;
            let (dialect, identity, id) = identify::<E>(&mut conn, &mut left)
                .await
                .map_err(Stop::before)?;
            Action {
                conn,
                id,
                dialect,
                identity,
            }
        }
    };
    let ask = |failure| Stop::before(failure);
    let session = action.dialect.session(OPEN_SESSION);
    query_within::<E>(&mut action.conn, &session, left())
        .await
        .map_err(ask)?;
    lock(&lanes.own).insert(action.id);
    let locked = take_lock::<E>(lanes, &mut action, step.lane, pass, &mut left).await;
    if let Err(stop) = locked {
        lock(&lanes.own).remove(&action.id);
        return Err(stop);
    }
    Ok(action)
}

/// The connection that was opened beforehand, for a step of the fence lane, if it answers.
async fn idle_fence<E: Env>(
    server: &Server,
    step: &Step,
    left: &mut (dyn FnMut() -> Duration + Send),
) -> Option<Action> {
    if step.lane != Lane::Fence {
        return None;
    }
    let idle = lock(&server.watched).as_ref()?.take_fence()?;
    let mut conn = idle.conn;
    let mut within = || left().min(LOGIN);
    let (dialect, identity, id) = identify::<E>(&mut conn, &mut within).await.ok()?;
    (identity == idle.identity).then_some(Action {
        conn,
        id,
        dialect,
        identity,
    })
}

async fn take_lock<E: Env>(
    lanes: &Lanes,
    action: &mut Action,
    lane: Lane,
    pass: &Pass<'_, impl Gate>,
    left: &mut (dyn FnMut() -> Duration + Send),
) -> Result<(), Stop> {
    let holders = format!(
        "SELECT IS_USED_LOCK('{}'), IS_USED_LOCK('{}'), IS_USED_LOCK('{}')",
        LOCKS[0], LOCKS[1], LOCKS[2]
    );
    let mut killed = BTreeSet::new();
    loop {
        let tables = query_within::<E>(&mut action.conn, &holders, left())
            .await
            .map_err(Stop::before)?;
        let row = tables.first().and_then(Table::first);
        let strangers: BTreeSet<u64> = (0..LOCKS.len())
            .filter_map(|at| row?.at(at)?.parse().ok())
            .filter(|id| !lock(&lanes.own).contains(id))
            .collect();
        if strangers.is_empty() {
            break;
        }
        if left().is_zero() {
            return Err(Stop::unsent(format!(
                "session {strangers:?} keeps a lock and does not go"
            )));
        }
        for id in &strangers {
            if killed.insert(*id) {
                pass.confirm::<E>().await?;
                kill::<E>(&mut action.conn, *id, left())
                    .await
                    .map_err(Stop::before)?;
            }
        }
        sleep::<E>(LOOK).await;
    }
    pass.confirm::<E>().await?;
    let text = format!("SELECT GET_LOCK('{}', 1)", lock_name(lane));
    let tables = query_within::<E>(&mut action.conn, &text, left().min(LOCKING))
        .await
        .map_err(Stop::before)?;
    let got = tables
        .first()
        .and_then(Table::first)
        .and_then(|row| row.at(0));
    if got == Some("1") {
        Ok(())
    } else {
        Err(Stop::unsent(format!(
            "{} is held by another session",
            lock_name(lane)
        )))
    }
}

/// Ends a session. One that is gone already is no failure.
async fn kill<E: Env>(conn: &mut Conn, id: u64, within: Duration) -> Result<(), ProbeFailure> {
    match query_within::<E>(conn, &format!("KILL CONNECTION {id}"), within).await {
        Ok(_) => Ok(()),
        Err(ProbeFailure::ServerError { code, .. }) if code == NO_SUCH_THREAD => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Runs one statement. The connection comes back unless it is lost.
async fn run_one<E: Env>(
    server: &Arc<Server>,
    lanes: &Arc<Lanes>,
    mut action: Action,
    statement: &Statement,
    pass: &Pass<'_, impl Gate>,
    until: Duration,
) -> (Option<Action>, Result<(), Stop>) {
    let texts = match texts::<E>(server, &mut action, statement, until).await {
        Ok(texts) => texts,
        Err((stop, usable)) => return (usable.then_some(action), Err(stop)),
    };
    match statement {
        Statement::KillClients { spare_users } => {
            return kill_clients::<E>(server, lanes, action, spare_users, pass, until).await;
        }
        Statement::MakeWriteable => {
            // A fence that waits in another session of our account must not close what is opened here.
            lanes.stop();
            let (kept, ended) = clear_fences::<E>(server, lanes, action, pass, until).await;
            match (kept, ended) {
                (Some(kept), Ok(())) => action = kept,
                (kept, ended) => return (kept, ended),
            }
        }
        Statement::Fence
        | Statement::MakeReadOnly { .. }
        | Statement::StopIoThread
        | Statement::StartIoThread
        | Statement::StopSqlThread
        | Statement::StartSqlThread
        | Statement::StopReplication
        | Statement::StartReplication
        | Statement::ChangeSource { .. }
        | Statement::ResetReplicaAll
        | Statement::SetGtidSlavePos { .. }
        | Statement::SemiSyncSource { .. }
        | Statement::SemiSyncReplica { .. }
        | Statement::RunHook { .. } => {}
    }
    let outlives = matches!(statement, Statement::Fence);
    let mut texts = texts.into_iter();
    while let Some(sql) = texts.next() {
        if let Err(stop) = pass.confirm::<E>().await {
            return (Some(action), Err(stop));
        }
        let left = until.saturating_sub(E::mono());
        if left.is_zero() {
            return (
                Some(action),
                Err(Stop::unsent(
                    "the step's deadline passed before it was sent",
                )),
            );
        }
        let (kept, ended) = if outlives {
            let (rest, uid) = (texts.as_slice().to_vec(), pass.uid.clone());
            leave_pending::<E>(server, lanes, action, (sql.text.clone(), rest), uid, left).await
        } else {
            send::<E>(server, lanes, action, &sql, pass.uid, left).await
        };
        match (kept, ended) {
            (Some(kept), Ok(())) => {
                if let Some(remark) = sql.remark {
                    tracing::warn!(recovery = %pass.uid, server = %server.key, "{remark}");
                }
                action = kept;
            }
            (Some(kept), Err(Stop::Refused { code, .. }))
                if code != 0 && (sql.optional || sql.benign.contains(&code)) =>
            {
                if sql.optional {
                    tracing::warn!(recovery = %pass.uid, server = %server.key, code, statement = sql.text, "left out");
                }
                action = kept;
            }
            (kept, ended) => return (kept, ended.map_err(|stop| without_secrets(stop, &sql))),
        }
    }
    (Some(action), Ok(()))
}

/// ER_PARSE_ERROR, ER_SYNTAX_ERROR: servers quote the statement in these.
const PARSE_ERRORS: [u16; 2] = [1064, 1149];

/// What a server says of a statement goes into the record of the recovery, the backend and the log: its quotations must
/// not hold a password.
fn without_secrets(stop: Stop, sql: &Sql) -> Stop {
    match stop {
        Stop::Refused { code, .. } if sql.holds_password && PARSE_ERRORS.contains(&code) => {
            Stop::Refused {
                code,
                reason: "the server does not understand the statement (what it says is left out, since it may quote a \
                         password)"
                    .to_owned(),
            }
        }
        stop => stop,
    }
}

/// The statement in this server's words. What has to be read for it is read first; `true` beside a failure means that
/// the connection can still be used.
async fn texts<E: Env>(
    server: &Server,
    action: &mut Action,
    statement: &Statement,
    until: Duration,
) -> Result<Vec<Sql>, (Stop, bool)> {
    let mut semi_sync = SemiSync::default();
    let left = || until.saturating_sub(E::mono());
    let fails = |failure: ProbeFailure| {
        let usable = matches!(failure, ProbeFailure::ServerError { .. });
        (Stop::before(failure), usable)
    };
    if let Statement::SemiSyncSource { .. } | Statement::SemiSyncReplica { .. } = statement {
        let text = "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%_enabled'";
        let tables = query_within::<E>(&mut action.conn, text, left())
            .await
            .map_err(fails)?;
        let has = |name: &str| {
            tables
                .first()
                .is_some_and(|table| table.variable(name).is_some())
        };
        semi_sync.source_spelling = has("rpl_semi_sync_source_enabled");
        semi_sync.replica_spelling = has("rpl_semi_sync_replica_enabled");
    }
    let mut statement = statement.clone();
    if let Statement::ChangeSource { options, .. } = &mut statement {
        let stated = options.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("SOURCE_USER") || name.eq_ignore_ascii_case("MASTER_USER")
        });
        if !stated {
            let credentials = credentials::<E>(server, action, until).await?;
            options.extend(credentials);
        }
    }
    action
        .dialect
        .texts(&statement, &semi_sync)
        .map_err(|reason| (Stop::unsent(reason), true))
}

/// User and password for a server whose channel has none: an ex-primary, or one whose settings were reset.
async fn credentials<E: Env>(
    server: &Server,
    action: &mut Action,
    until: Duration,
) -> Result<Vec<(String, String)>, (Stop, bool)> {
    let left = || until.saturating_sub(E::mono());
    let fails = |failure: ProbeFailure| {
        let usable = matches!(failure, ProbeFailure::ServerError { .. });
        (Stop::before(failure), usable)
    };
    let text = action.dialect.show_replica_status();
    let tables = query_within::<E>(&mut action.conn, text, left())
        .await
        .map_err(fails)?;
    let has_user = tables.first().into_iter().flat_map(Table::iter).any(|row| {
        row.text(&["Channel_Name", "Connection_name"]).is_empty()
            && !row.text(&["Source_User", "Master_User"]).is_empty()
    });
    if has_user {
        return Ok(Vec::new());
    }
    let text = match (
        &server.settings.credentials_query,
        action.dialect.is_mariadb(),
    ) {
        (Some(query), _) => query.trim().trim_end_matches(';'),
        (None, false) => {
            "SELECT User_name, User_password FROM mysql.slave_master_info WHERE Channel_name = ''"
        }
        (None, true) => "",
    };
    let tables = if text.is_empty() {
        Vec::new()
    } else {
        query_within::<E>(&mut action.conn, text, left())
            .await
            .map_err(fails)?
    };
    let row = tables.first().and_then(Table::first);
    let value = |at: usize| row.and_then(|row| row.at(at)).unwrap_or_default();
    if value(0).is_empty() {
        return Err((
            Stop::unsent(
                "no replication user is set here and none can be read: set ReplicationCredentialsQuery",
            ),
            true,
        ));
    }
    let mut options = Vec::new();
    for (at, name) in [
        "MASTER_USER",
        "MASTER_PASSWORD",
        "MASTER_SSL_CA",
        "MASTER_SSL_CERT",
        "MASTER_SSL_KEY",
    ]
    .into_iter()
    .enumerate()
    {
        if at < 2 || !value(at).is_empty() {
            options.push((name.to_owned(), quoted(value(at))));
        }
    }
    if !value(2).is_empty() {
        options.push(("MASTER_SSL".to_owned(), "1".to_owned()));
    }
    Ok(options)
}

/// Sends one text. One that does not end in time is killed from a second connection.
async fn send<E: Env>(
    server: &Arc<Server>,
    lanes: &Lanes,
    mut action: Action,
    sql: &Sql,
    uid: &Uid,
    left: Duration,
) -> (Option<Action>, Result<(), Stop>) {
    match query_within::<E>(&mut action.conn, &sql.text, left).await {
        Ok(_) => (Some(action), Ok(())),
        Err(ProbeFailure::ServerError { code, message }) => {
            let stop = Stop::Refused {
                code,
                reason: message,
            };
            (Some(action), Err(stop))
        }
        Err(ProbeFailure::Stalled) => {
            lock(&lanes.own).remove(&action.id);
            abandon::<E>(server, action, uid);
            let reason = format!("no answer within {} ms", left.as_millis());
            (None, Err(Stop::Unknown { reason }))
        }
        Err(failure) => {
            lock(&lanes.own).remove(&action.id);
            let reason = failure.to_string();
            (None, Err(Stop::Unknown { reason }))
        }
    }
}

/// Drops a connection with a statement on it and kills its session, in the background: a frozen server must not hold
/// up the step's end.
fn abandon<E: Env>(server: &Arc<Server>, action: Action, uid: &Uid) {
    let (server, id, identity) = (server.clone(), action.id, action.identity.clone());
    let uid = uid.clone();
    drop(action);
    spawn::<E>(async move {
        if let Err(failure) = kill_late::<E>(&server, id, &identity).await {
            tracing::warn!(recovery = %uid, server = %server.key, id, %failure, "a late statement could not be killed");
        }
    });
}

/// Kills a session that was left with a statement on it, over a connection of its own. Another server's session of that
/// number is none of ours.
pub(super) async fn kill_late<E: Env>(
    server: &Server,
    id: u64,
    identity: &Identity,
) -> Result<(), ProbeFailure> {
    let within = server.settings.connect_timeout;
    let mut conn = server.dialer.dial::<E>(&server.settings, within).await?;
    let (_, found, _) = identify::<E>(&mut conn, &mut || within).await?;
    if found == *identity {
        kill::<E>(&mut conn, id, within).await?;
    }
    Ok(())
}

/// The one statement that outlives its deadline: it stays on its connection until it is executed, its session is killed
/// by a later epoch, or the lanes are let go. If nobody waits any more when it is executed, what belongs to it follows.
async fn leave_pending<E: Env>(
    server: &Arc<Server>,
    lanes: &Arc<Lanes>,
    mut action: Action,
    (text, rest): (String, Vec<Sql>),
    uid: Uid,
    left: Duration,
) -> (Option<Action>, Result<(), Stop>) {
    let (done, waiting) = tokio::sync::oneshot::channel();
    let mut stopped = lanes.stopped.subscribe();
    let (keeper, server) = (lanes.clone(), server.clone());
    spawn::<E>(async move {
        // The sender lives as long as somebody may have to end this.
        let _keeper = keeper;
        let mut tables = Vec::new();
        let ended = tokio::select! {
            biased;
            ended = super::connect::query(&mut action.conn, &text, &mut tables) => Some(ended),
            _ = stopped.changed() => None,
        };
        // Nobody waits any more once the deadline has passed; the connection ends here then.
        if let Some(ended) = ended
            && let Err((mut action, ended)) = done.send((action, ended))
        {
            match ended {
                Ok(()) => {
                    tracing::warn!(recovery = %uid, server = %server.key, "what was left pending was executed: {text}");
                    follow_pending::<E>(&server, &mut action, rest, &uid).await;
                }
                Err((_, failure)) => {
                    tracing::warn!(recovery = %uid, server = %server.key, %failure, "what was left pending is over: {text}");
                }
            }
        }
    });
    match timeout::<E, _>(left, waiting).await {
        Some(Ok((action, Ok(())))) => (Some(action), Ok(())),
        Some(Ok((action, Err((_, ProbeFailure::ServerError { code, message }))))) => {
            let stop = Stop::Refused {
                code,
                reason: message,
            };
            (Some(action), Err(stop))
        }
        Some(Ok((action, Err((_, failure))))) => {
            lock(&lanes.own).remove(&action.id);
            let reason = failure.to_string();
            (None, Err(Stop::Unknown { reason }))
        }
        Some(Err(_)) => {
            let reason = "ended by a later step or epoch".to_owned();
            (None, Err(Stop::Unknown { reason }))
        }
        None => {
            let reason = format!("left pending after {} ms", left.as_millis());
            (None, Err(Stop::Pending { reason }))
        }
    }
}

/// What comes after a statement that nobody waited for.
async fn follow_pending<E: Env>(server: &Server, action: &mut Action, rest: Vec<Sql>, uid: &Uid) {
    for sql in rest {
        match query_within::<E>(&mut action.conn, &sql.text, server.settings.connect_timeout).await
        {
            Ok(_) => {
                let remark = sql.remark.unwrap_or(&sql.text);
                tracing::warn!(recovery = %uid, server = %server.key, "{remark}");
            }
            Err(failure) => {
                tracing::warn!(recovery = %uid, server = %server.key, statement = sql.text, %failure, "left out");
            }
        }
    }
}

/// A session of the process list.
struct Session {
    id: u64,
    user: String,
    command: String,
}

/// A client's session: not replication, not the system's, not ours, not spared.
fn is_client(session: &Session, own_user: &str, spare_users: &[String]) -> bool {
    let replication = [
        "Binlog Dump",
        "Binlog Dump GTID",
        "Register Slave",
        "Register Replica",
    ];
    let system = [
        "system user",
        "event_scheduler",
        "mysql.session",
        "mysql.infoschema",
    ];
    !(replication
        .iter()
        .any(|command| session.command.eq_ignore_ascii_case(command))
        || ["Daemon", "Slave_IO", "Slave_SQL", "Slave_worker"].contains(&session.command.as_str())
        || system.contains(&session.user.as_str())
        || session.user == own_user
        || spare_users.contains(&session.user))
}

/// Lists and kills until none is left.
async fn kill_clients<E: Env>(
    server: &Arc<Server>,
    lanes: &Lanes,
    action: Action,
    spare_users: &[String],
    pass: &Pass<'_, impl Gate>,
    until: Duration,
) -> (Option<Action>, Result<(), Stop>) {
    let text = format!(
        "SELECT ID, USER, COMMAND FROM {} WHERE ID != CONNECTION_ID()",
        action.dialect.process_list()
    );
    let own_user = &server.settings.user;
    kill_all::<E>(lanes, action, pass, until, &text, |table| {
        let session = |row: RowView<'_>| {
            Some(Session {
                id: row.at(0)?.parse().ok()?,
                user: row.at(1).unwrap_or_default().to_owned(),
                command: row.at(2).unwrap_or_default().to_owned(),
            })
        };
        table
            .iter()
            .filter_map(session)
            .filter(|session| is_client(session, own_user, spare_users))
            .map(|session| session.id)
            .collect()
    })
    .await
}

/// Kills every other session that a fence may wait in, and looks until they are gone: the idle fence connections of all
/// daemons, known by their locks, and a fence left pending by this epoch.
async fn clear_fences<E: Env>(
    server: &Arc<Server>,
    lanes: &Lanes,
    action: Action,
    pass: &Pass<'_, impl Gate>,
    until: Duration,
) -> (Option<Action>, Result<(), Stop>) {
    let looks: Vec<String> = (0..IDLE_LOCKS)
        .map(idle_lock)
        .chain([lock_name(Lane::Fence).to_owned()])
        .map(|name| format!("IS_USED_LOCK('{name}')"))
        .collect();
    let text = format!("SELECT {}", looks.join(", "));
    let own = action.id;
    // The own idle one is dialled again at the next beat.
    let watched = lock(&server.watched).clone();
    drop(watched.and_then(|watched| watched.take_fence()));
    kill_all::<E>(lanes, action, pass, until, &text, |table| {
        let row = table.first();
        (0..looks.len())
            .filter_map(|at| row?.at(at)?.parse().ok())
            .filter(|id| *id != own)
            .collect()
    })
    .await
}

/// Asks `text` who is meant, kills them, and asks again until nobody is.
async fn kill_all<E: Env>(
    lanes: &Lanes,
    mut action: Action,
    pass: &Pass<'_, impl Gate>,
    until: Duration,
    text: &str,
    is_meant: impl Fn(&Table) -> BTreeSet<u64>,
) -> (Option<Action>, Result<(), Stop>) {
    let left = || until.saturating_sub(E::mono());
    let mut killed = BTreeSet::new();
    let lost = |action: Action, failure: ProbeFailure, killed: &BTreeSet<u64>| match failure {
        ProbeFailure::ServerError { code, message } => {
            let stop = Stop::Refused {
                code,
                reason: message,
            };
            (Some(action), Err(stop))
        }
        failure => {
            lock(&lanes.own).remove(&action.id);
            let reason = format!("{failure}, after {} sessions were killed", killed.len());
            (None, Err(Stop::Unknown { reason }))
        }
    };
    loop {
        let asked = query_within::<E>(&mut action.conn, text, left())
            .await
            .map(|tables| tables.first().map(&is_meant).unwrap_or_default());
        let meant = match asked {
            Ok(meant) => meant,
            Err(failure) => return lost(action, failure, &killed),
        };
        if meant.is_empty() {
            return (Some(action), Ok(()));
        }
        if left().is_zero() {
            let reason = format!("{} sessions are left", meant.len());
            return (Some(action), Err(Stop::Unknown { reason }));
        }
        let mut token = match pass.confirm::<E>().await {
            Ok(token) => token,
            Err(stop) => return (Some(action), Err(stop)),
        };
        for id in meant {
            if !killed.insert(id) {
                continue;
            }
            if pass.check::<E>(token).is_err() {
                token = match pass.confirm::<E>().await {
                    Ok(token) => token,
                    Err(stop) => return (Some(action), Err(stop)),
                };
            }
            match kill::<E>(&mut action.conn, id, left()).await {
                Ok(()) => {}
                // ER_KILL_DENIED_ERROR, or a system session: it stays, and the others go first.
                Err(ProbeFailure::ServerError { code: 1095, .. }) => {}
                Err(failure) => return lost(action, failure, &killed),
            }
        }
        sleep::<E>(LOOK).await;
    }
}

/// Reads the server over the same connection.
async fn read_after<E: Env>(
    server: &Server,
    mut action: Action,
) -> (Option<Action>, Option<ProbeReport>) {
    let known = lock(&server.reader).clone();
    let (mut reader, whose) = match known {
        // What the operators' own queries said last stands: nobody waits for these in a recovery.
        Some(reader) if reader.dialect == action.dialect => (reader, Whose::Ours),
        Some(_) | None => {
            match Reader::introduce::<E>(&server.key, &server.settings, &mut action.conn, READING)
                .await
            {
                Ok(reader) => (reader, Whose::All),
                Err(ProbeFailure::ServerError { .. }) => return (Some(action), None),
                Err(_) => return (None, None),
            }
        }
    };
    match reader.read::<E>(&mut action.conn, whose, READING).await {
        Ok(report) if reader.take_broken() => (None, Some(report)),
        Ok(report) => (Some(action), Some(report)),
        Err(failure) if matches!(failure.failure, ProbeFailure::ServerError { .. }) => {
            (Some(action), None)
        }
        Err(_) => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_core::id::InstanceKey;
    use orchestrator_core::recovery::SourcePosition;

    /// What becomes of a server's refusal of a change of source with these options.
    fn recorded(options: &[(&str, &str)], code: u16, said: &str) -> String {
        let statement = Statement::ChangeSource {
            source: InstanceKey::new("db2", 3306),
            position: SourcePosition::OracleAuto,
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let dialect = Dialect::new("8.4.0", "");
        let texts = dialect.texts(&statement, &SemiSync::default()).unwrap();
        let stop = Stop::Refused {
            code,
            reason: said.to_owned(),
        };
        match without_secrets(stop, &texts[0]) {
            Stop::Refused { code: kept, reason } if kept == code => reason,
            _ => panic!("it was refused with {code}"),
        }
    }

    #[test]
    fn a_server_that_quotes_a_password_has_it_in_no_record() {
        let with = [("MASTER_USER", "'repl'"), ("MASTER_PASSWORD", "'secret'")];
        let said = "You have an error in your SQL syntax; ... near 'SOURCE_PASSWORD='secret''";
        let reason = recorded(&with, 1064, said);
        assert!(!reason.contains("secret"), "{reason}");
        assert!(reason.contains("left out"), "{reason}");
        // What quotes nothing, and what holds none, is told as it is.
        assert_eq!(recorded(&with, 1227, "Access denied"), "Access denied");
        let without = [("MASTER_SSL", "1")];
        assert_eq!(recorded(&without, 1064, said), said);
    }
}
