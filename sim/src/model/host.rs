//! The program of a machine that carries a model server: it listens while the process runs, serves sessions, pulls from
//! the source's log and applies what came.
//!
//! What holds: the connections of a process end when it is killed, in no order that depends on the machine; a frozen
//! process keeps them and its kernel goes on accepting (F14); every change of the server wakes what waits for one.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orchestrator::env::{sleep, spawn, timeout};
use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::InstanceKey;
use tokio::sync::watch;

use super::server::{Account, HEARTBEAT, Process, Server};
use super::wire::{Greeting, Reply, Request, receive, send};
use crate::engine::Engine;
use crate::random::SplitMix;

/// How long a statement takes, in microseconds: from, to.
const STATEMENT_MICROSECONDS: (u64, u64) = (100, 1_000);
/// How long the applier takes for a transaction, in microseconds: from, to.
const APPLY_MICROSECONDS: (u64, u64) = (200, 1_500);
/// The receiver gives its source up after so long without a word (`replica_net_timeout`).
const NET_TIMEOUT: Duration = Duration::from_secs(60);
/// The receiver dials again after so long (`SOURCE_CONNECT_RETRY`).
const CONNECT_RETRY: Duration = Duration::from_secs(1);
const PURPOSE: u64 = 0x5e7e;

/// A server and who waits for it to change. Clones are the same server: the machine's program, the scenario and the
/// oracles hold one each.
#[derive(Debug, Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    key: InstanceKey,
    server: Mutex<Server>,
    changed: watch::Sender<u64>,
    random: Mutex<SplitMix>,
}

impl Host {
    #[must_use]
    pub fn new(server: Server, seed: u64) -> Self {
        let purpose = PURPOSE ^ (u64::from(server.server_id) << 16);
        Self {
            shared: Arc::new(Shared {
                key: server.key.clone(),
                random: Mutex::new(SplitMix::new(seed, purpose)),
                server: Mutex::new(server),
                changed: watch::Sender::new(0),
            }),
        }
    }

    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        &self.shared.key
    }

    /// Looks at the server.
    pub fn look<T>(&self, look: impl FnOnce(&Server) -> T) -> T {
        look(&self.server())
    }

    /// Changes the server and wakes who waits for that.
    pub fn change<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let value = change(&mut self.server());
        self.shared.changed.send_modify(|count| *count += 1);
        value
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.shared
            .server
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn draw(&self, (low, high): (u64, u64)) -> Duration {
        let mut random = self
            .shared
            .random
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        Duration::from_micros(random.between(low, high))
    }

    /// Waits until `wanted` says something of the server.
    async fn until<T>(&self, mut wanted: impl FnMut(&Server) -> Option<T> + Send) -> T {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(value) = self.look(&mut wanted) {
                return value;
            }
            // The sender lives in `self`.
            let _ = changed.changed().await;
        }
    }

    /// The machine's program: it never ends.
    pub async fn run<E: Engine>(self) {
        spawn::<E>(self.clone().receive_for_ever::<E>());
        spawn::<E>(self.clone().apply_for_ever::<E>());
        loop {
            let boot = self
                .until(|server| (server.process() != Process::Killed).then(|| server.boot()))
                .await;
            let listener = E::bind(&format!("0.0.0.0:{}", self.key().port)).await;
            let mut listener = listener.expect("a machine of its own has the port free");
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = self.until_dead(boot) => break,
                    accepted = E::accept(&mut listener) => accepted,
                };
                if let Ok((stream, _)) = accepted {
                    spawn::<E>(self.clone().serve::<E>(stream, boot));
                }
            }
        }
    }

    async fn until_dead(&self, boot: u64) {
        self.until(|server| {
            (server.process() == Process::Killed || server.boot() != boot).then_some(())
        })
        .await;
    }

    /// Waits while the process is frozen.
    async fn until_awake(&self) {
        self.until(|server| (server.process() != Process::Frozen).then_some(()))
            .await;
    }

    async fn serve<E: Engine>(self, mut stream: E::Stream, boot: u64) {
        let logged_in = tokio::select! {
            biased;
            () = self.until_dead(boot) => return,
            logged_in = self.log_in::<E>(&mut stream) => logged_in,
        };
        let Ok(session) = logged_in else {
            return;
        };
        let over = self.until(|server| {
            let lives = server.process() != Process::Killed
                && server.boot() == boot
                && server.has_session(session);
            (!lives).then_some(())
        });
        tokio::select! {
            biased;
            () = over => {}
            // Whatever ended it, the stream is closed.
            _ = self.converse::<E>(&mut stream, session) => {
                self.change(|server| {
                    if server.boot() == boot {
                        server.log_out(session);
                    }
                });
            }
        }
    }

    async fn log_in<E: Engine>(&self, stream: &mut E::Stream) -> io::Result<u64> {
        self.until_awake().await;
        let greeting = self.look(|server| Greeting {
            identity: server.identity(),
            server_id: server.server_id,
        });
        send(stream, &greeting).await?;
        let Request::LogIn(account) = receive(stream).await? else {
            return Err(io::Error::other("a request before the login"));
        };
        self.until_awake().await;
        let session = self.change(|server| server.log_in(account));
        send(stream, &Reply::LoggedIn(session)).await?;
        Ok(session)
    }

    async fn converse<E: Engine>(&self, stream: &mut E::Stream, session: u64) -> io::Result<()> {
        loop {
            let request: Request = receive(stream).await?;
            self.until_awake().await;
            sleep::<E>(self.draw(STATEMENT_MICROSECONDS)).await;
            self.until_awake().await;
            let reply = match request {
                Request::Sleep(duration) => {
                    sleep::<E>(duration).await;
                    self.until_awake().await;
                    Reply::Done
                }
                Request::Dump { held } => return self.dump::<E>(stream, held).await,
                other => self.answer::<E>(other, session),
            };
            send(stream, &reply).await?;
        }
    }

    fn answer<E: Engine>(&self, request: Request, session: u64) -> Reply {
        let now = E::elapsed();
        let done = |result: Result<_, _>| match result {
            Ok(_) => Reply::Done,
            Err(error) => Reply::Error(error),
        };
        match request {
            Request::Probe => Reply::Report(Box::new(self.look(|server| server.report(now)))),
            Request::Execute(statement) => done(
                self.change(|server| server.execute(&statement, now))
                    .map(|()| 0),
            ),
            Request::KillSession(other) => {
                done(self.change(|server| server.kill_session(other)).map(|()| 0))
            }
            Request::ClientSessions { spared } => {
                Reply::Sessions(self.look(|server| server.client_sessions(&spared)))
            }
            Request::GetLock(name) => {
                Reply::Locked(self.change(|server| server.get_lock(&name, session)))
            }
            Request::LockHolders(names) => Reply::Holders(
                self.look(|server| names.iter().map(|name| server.lock_holder(name)).collect()),
            ),
            Request::Write(write) => {
                done(self.change(|server| server.write(write, now)).map(|_| 0))
            }
            Request::LogIn(_) | Request::Sleep(_) | Request::Dump { .. } => {
                unreachable!("handled by the caller")
            }
        }
    }

    /// The source's side of replication.
    async fn dump<E: Engine>(&self, stream: &mut E::Stream, held: GtidSet) -> io::Result<()> {
        let mut changed = self.shared.changed.subscribe();
        let mut place = 0;
        loop {
            changed.mark_unchanged();
            self.until_awake().await;
            match self.look(|server| server.dump(&held, place)) {
                Err(refusal) => {
                    send(stream, &Reply::Error(refusal)).await?;
                    return Ok(());
                }
                Ok((transactions, next)) => {
                    place = next;
                    if !transactions.is_empty() {
                        send(stream, &Reply::Transactions(transactions)).await?;
                        continue;
                    }
                }
            }
            let quiet = timeout::<E, _>(HEARTBEAT, async {
                loop {
                    let _ = changed.changed().await;
                    if self.look(|server| server.transactions().len()) > place {
                        return;
                    }
                }
            });
            if quiet.await.is_none() {
                self.until_awake().await;
                send(stream, &Reply::Heartbeat).await?;
            }
        }
    }

    /// The receiver's thread, whoever is its source.
    async fn receive_for_ever<E: Engine>(self) {
        loop {
            let (source, held) = self.until(Server::receiver_target).await;
            let over = self.until(|server| {
                let target = server.receiver_target().map(|(source, _)| source);
                (target.as_ref() != Some(&source)).then_some(())
            });
            let ended = tokio::select! {
                biased;
                () = over => continue,
                ended = self.pull::<E>(&source, held) => ended,
            };
            let refused = ended.is_err_and(|error| {
                error.kind() == io::ErrorKind::ConnectionRefused
                    || error.kind() == io::ErrorKind::UnexpectedEof
            });
            self.change(|server| server.receiver_lost(refused));
            let target = source.clone();
            let stopped = self.until(|server| {
                let now = server.receiver_target().map(|(source, _)| source);
                (now.as_ref() != Some(&target)).then_some(())
            });
            let _ = timeout::<E, _>(CONNECT_RETRY, stopped).await;
        }
    }

    async fn pull<E: Engine>(&self, source: &InstanceKey, held: GtidSet) -> io::Result<()> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no word from the source");
        let mut stream = timeout::<E, _>(NET_TIMEOUT, E::connect(&source.to_string()))
            .await
            .ok_or_else(late)??;
        let greeting: Greeting = timeout::<E, _>(NET_TIMEOUT, receive(&mut stream))
            .await
            .ok_or_else(late)??;
        send(
            &mut stream,
            &Request::LogIn(Account::Replication(self.key().clone())),
        )
        .await?;
        let _: Reply = timeout::<E, _>(NET_TIMEOUT, receive(&mut stream))
            .await
            .ok_or_else(late)??;
        send(&mut stream, &Request::Dump { held }).await?;
        self.until_awake().await;
        self.change(|server| {
            server.receiver_connected(&greeting.identity, greeting.server_id);
        });
        loop {
            let reply: Reply = timeout::<E, _>(NET_TIMEOUT, receive(&mut stream))
                .await
                .ok_or_else(late)??;
            self.until_awake().await;
            match reply {
                Reply::Transactions(transactions) => self.change(|server| {
                    for transaction in transactions {
                        server.receive(transaction);
                    }
                }),
                Reply::Heartbeat => self.change(Server::heartbeat),
                Reply::Error(refusal) => {
                    self.change(|server| server.receiver_refused(&refusal));
                    return Ok(());
                }
                Reply::Done
                | Reply::LoggedIn(_)
                | Reply::Report(_)
                | Reply::Sessions(_)
                | Reply::Locked(_)
                | Reply::Holders(_) => {
                    return Err(io::Error::other("an answer to something else"));
                }
            }
        }
    }

    async fn apply_for_ever<E: Engine>(self) {
        loop {
            self.until(|server| server.can_apply().then_some(())).await;
            sleep::<E>(self.draw(APPLY_MICROSECONDS)).await;
            self.change(Server::apply);
        }
    }
}
