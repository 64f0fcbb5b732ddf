//! The fleet over the wire: probes, watches, steps and the fence in real MySQL and MariaDB servers.
//!
//! Decides nothing about servers. No retry of its own, with one exception: a persistent probe connection that was found
//! closed is dialled again once, since its end tells of the past. Each call has a deadline; a connection whose call
//! timed out is dropped.
//!
//! Connections to one server, and who may use them:
//!
//! | connection | opened | in flight |
//! |---|---|---|
//! | probe | at the first probe, kept | one probe at a time |
//! | pulse | with the watch | always one `SELECT SLEEP(1)`, with a look at the fence connection's lock |
//! | fence | with the watch | nothing, until the fence; holds `orchestrator/idle/N` |
//! | action, one a lane and epoch | by the first step | one step at a time |
//!
//! Holds between calls: a connection that lies in a slot has no answer outstanding; an action connection in its slot
//! belongs to the epoch of its lanes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mysql_async::Conn;
use orchestrator_core::id::{Epoch, Identity, InstanceKey, Uid};
use orchestrator_core::node::{ProbeEnd, StepEnd};
use orchestrator_core::recovery::Step;
use orchestrator_core::time::Mono;
use orchestrator_core::topology::{ProbeFailure, ProbeReport};

mod check;
pub(crate) mod connect;
mod dialect;
mod grants;
mod read;
mod report;
mod run;
mod settings;
mod table;
mod watch;

pub use check::check_tables;
pub use dialect::fence_text;
pub use settings::{DetectQueries, OwnName, ProbeSettings, TlsMode};

use self::connect::Dialer;
use self::read::{ReadFailure, Reader, Whose};
use self::run::Lanes;
use self::watch::Watched;
use crate::env::{Env, spawn, timeout};
use crate::fleet::{Fleet, Gate, SignSender};

/// How long a login on a watched server may take (`FAILOVER.md` section 1); longer where it always does.
const LOGIN: Duration = Duration::from_millis(800);

/// The adapter. Clones share everything.
#[derive(Debug)]
pub struct Mysql<E: Env> {
    shared: Arc<Shared<E>>,
}

impl<E: Env> Clone for Mysql<E> {
    fn clone(&self) -> Self {
        Mysql {
            shared: self.shared.clone(),
        }
    }
}

#[derive(Debug)]
struct Shared<E> {
    settings: Arc<ProbeSettings>,
    servers: Mutex<BTreeMap<InstanceKey, Arc<Server>>>,
    env: std::marker::PhantomData<E>,
}

/// What is kept to one server.
#[derive(Debug)]
struct Server {
    key: InstanceKey,
    settings: Arc<ProbeSettings>,
    dialer: Dialer,
    probe: tokio::sync::Mutex<Option<Persistent>>,
    /// How to read it, from the newest probe; for readings over other connections.
    reader: Mutex<Option<Reader>>,
    /// Which server it was in the newest reading.
    identity: Mutex<Option<Identity>>,
    watched: Mutex<Option<Arc<Watched>>>,
    lanes: Mutex<Option<Arc<Lanes>>>,
}

/// The persistent probe connection.
#[derive(Debug)]
struct Persistent {
    conn: Conn,
    reader: Reader,
}

/// A poisoned lock is of a task that panicked between two plain assignments; the data is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<E: Env> Mysql<E> {
    /// An adapter that has no connection so far.
    #[must_use]
    pub fn new(settings: ProbeSettings) -> Self {
        Mysql {
            shared: Arc::new(Shared {
                settings: Arc::new(settings),
                servers: Mutex::new(BTreeMap::new()),
                env: std::marker::PhantomData,
            }),
        }
    }

    fn server(&self, key: &InstanceKey) -> Arc<Server> {
        let mut servers = lock(&self.shared.servers);
        if let Some(server) = servers.get(key) {
            return server.clone();
        }
        let server = Arc::new(Server {
            key: key.clone(),
            settings: self.shared.settings.clone(),
            dialer: Dialer::new(key, &self.shared.settings),
            probe: tokio::sync::Mutex::new(None),
            reader: Mutex::new(None),
            identity: Mutex::new(None),
            watched: Mutex::new(None),
            lanes: Mutex::new(None),
        });
        servers.insert(key.clone(), server.clone());
        server
    }

    fn known(&self, key: &InstanceKey) -> Option<Arc<Server>> {
        lock(&self.shared.servers).get(key).cloned()
    }
}

impl Server {
    async fn probe<E: Env>(self: &Arc<Self>) -> Result<ProbeReport, ReadFailure> {
        let whole = self.settings.connect_timeout + self.settings.read_timeout;
        // Whoever holds it is bounded by the same deadlines, twice over where it dials again.
        let Some(mut slot) = timeout::<E, _>(whole * 3, self.probe.lock()).await else {
            return Err(ReadFailure {
                failure: ProbeFailure::Stalled,
                partial: false,
            });
        };
        let until = E::mono() + self.settings.read_timeout;
        if let Some(mut kept) = slot.take() {
            let left = until.saturating_sub(E::mono());
            let read = kept.reader.read::<E>(&mut kept.conn, Whose::All, left);
            match read.await {
                Ok(report) => {
                    self.keep::<E>(&mut slot, kept, &report);
                    return Ok(report);
                }
                Err(ReadFailure { failure, partial }) => {
                    if failure == ProbeFailure::Stalled {
                        self.let_go::<E>(kept);
                    }
                    // Its end is old news: what counts is what a fresh dial finds.
                    let is_over = matches!(
                        failure,
                        ProbeFailure::Closed | ProbeFailure::Unreachable
                    ) || matches!(&failure, ProbeFailure::ServerError { code, .. } if [1927, 3169, 4031].contains(code));
                    if !is_over {
                        return Err(ReadFailure { failure, partial });
                    }
                }
            }
        }
        let nothing = |failure| ReadFailure {
            failure,
            partial: false,
        };
        let mut conn = self
            .dialer
            .dial::<E>(&self.settings, self.settings.connect_timeout)
            .await
            .map_err(nothing)?;
        let until = E::mono() + self.settings.read_timeout;
        let reader = Reader::introduce::<E>(
            &self.key,
            &self.settings,
            &mut conn,
            self.settings.read_timeout,
        )
        .await
        .map_err(nothing)?;
        let mut fresh = Persistent { conn, reader };
        let left = until.saturating_sub(E::mono());
        let read = fresh.reader.read::<E>(&mut fresh.conn, Whose::All, left);
        match read.await {
            Ok(report) => {
                self.keep::<E>(&mut slot, fresh, &report);
                Ok(report)
            }
            Err(failed) => {
                if failed.failure == ProbeFailure::Stalled {
                    self.let_go::<E>(fresh);
                }
                Err(failed)
            }
        }
    }

    fn keep<E: Env>(
        self: &Arc<Self>,
        slot: &mut Option<Persistent>,
        mut kept: Persistent,
        report: &ProbeReport,
    ) {
        let broken = kept.reader.take_broken();
        *lock(&self.reader) = Some(kept.reader.clone());
        *lock(&self.identity) = Some(report.identity.clone());
        if broken {
            self.let_go::<E>(kept);
        } else {
            *slot = Some(kept);
        }
    }

    /// Drops a connection on which a query did not end, and kills its session, in the background: the server would keep it
    /// until that ends, and one more with each poll.
    fn let_go<E: Env>(self: &Arc<Self>, kept: Persistent) {
        let (server, id) = (self.clone(), u64::from(kept.conn.id()));
        drop(kept);
        spawn::<E>(async move {
            let Some(identity) = lock(&server.identity).clone() else {
                return;
            };
            if let Err(failure) = run::kill_late::<E>(&server, id, &identity).await {
                tracing::warn!(server = %server.key, id, %failure, "a late reading could not be killed");
            }
        });
    }

    fn unwatch(&self) {
        if let Some(watched) = lock(&self.watched).take() {
            watched.stop();
        }
    }
}

impl<E: Env> Fleet for Mysql<E> {
    async fn probe(&self, key: InstanceKey) -> ProbeEnd {
        let began = E::mono();
        let result = if key.is_valid() {
            self.server(&key).probe::<E>().await
        } else {
            Err(ReadFailure {
                failure: ProbeFailure::Garbled("no key of a server".to_owned()),
                partial: false,
            })
        };
        let (result, partial_success) = match result {
            Ok(mut report) => {
                report.latency = E::mono().saturating_sub(began);
                (Ok(Box::new(report)), true)
            }
            Err(ReadFailure { failure, partial }) => (Err(failure), partial),
        };
        ProbeEnd {
            key,
            began: Mono::from_elapsed(began),
            result,
            partial_success,
        }
    }

    fn watch(&self, key: InstanceKey, redial: Duration, signs: SignSender) {
        if !key.is_valid() {
            return;
        }
        let server = self.server(&key);
        let mut watched = lock(&server.watched);
        if let Some(watched) = watched.as_ref() {
            watched.change(redial, signs);
            return;
        }
        let fresh = Arc::new(Watched::new(redial, signs));
        *watched = Some(fresh.clone());
        crate::env::spawn::<E>(watch::run::<E>(server.clone(), fresh));
    }

    fn unwatch(&self, key: &InstanceKey) {
        if let Some(server) = self.known(key) {
            server.unwatch();
        }
    }

    fn drop_server(&self, key: &InstanceKey) {
        let server = lock(&self.shared.servers).remove(key);
        if let Some(server) = server {
            server.unwatch();
            if let Some(lanes) = lock(&server.lanes).take() {
                lanes.stop();
            }
        }
    }

    async fn run(&self, uid: Uid, epoch: Epoch, step: Step, gate: impl Gate + 'static) -> StepEnd {
        let server = self.server(&step.server);
        run::step::<E>(&server, uid, epoch, &step, &gate).await
    }

    fn fence_frozen(&self, uid: &Uid, key: &InstanceKey) {
        let Some(server) = self.known(key) else {
            tracing::warn!(recovery = %uid, server = %key, "no idle fence connection: not known");
            return;
        };
        let watched = lock(&server.watched).clone();
        match watched {
            Some(watched) => watch::fence::<E>(&server, &watched, uid),
            None => {
                tracing::warn!(recovery = %uid, server = %key, "no idle fence connection: not watched");
            }
        }
    }
}
