//! The program of a machine that carries a model server: it listens while the process runs, serves sessions, pulls from
//! the source's log and applies what came.
//!
//! What holds: the connections of a process end when it is killed, in no order that depends on the machine; a frozen
//! process keeps them and its kernel goes on accepting, and what arrived meanwhile is executed at the thaw in the order of
//! its arrival; every change of the server wakes what waits for one. Most of what waits does so for the end of a life (of
//! the process, a session or the receiver), which is rare: that has a signal of its own, so that not each row wakes all.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::env::{Env, Mutant, sleep, spawn, timeout};
use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::Statement;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::replication::HEARTBEAT;
use super::server::{Account, Process, Server, Table, code, error};
use super::statement::{Answer, Operation, Outcome};
use super::told;
use super::wire::{Greeting, Reply, Request, receive, send};
use crate::random::SplitMix;

/// What a model server's machine needs beside the daemon's seam: one clock for the whole world.
pub trait World: Env {
    /// Time since the world began.
    fn elapsed() -> Duration;
}

/// How long a statement takes, in microseconds: from, to.
const STATEMENT_MICROSECONDS: (u64, u64) = (100, 1_000);
/// How long the applier takes for a transaction, in microseconds: from, to.
const APPLY_MICROSECONDS: (u64, u64) = (200, 1_500);
/// The receiver dials again after so long, where the channel does not state it (`SOURCE_CONNECT_RETRY`).
const CONNECT_RETRY: Duration = Duration::from_secs(1);
/// A port that was taken, or a connection that could not be, is tried again after so long.
const BIND_AGAIN: Duration = Duration::from_millis(20);
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
    /// The same for what [`Server::lives`] tells.
    lives_changed: watch::Sender<u64>,
    random: Mutex<SplitMix>,
    /// What these machines send arrives and is not read, until they are let go.
    held: Mutex<BTreeSet<IpAddr>>,
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
                lives_changed: watch::Sender::new(0),
                held: Mutex::default(),
            }),
        }
    }

    /// From here on what this machine sends is delivered late: when it is let go, and even if the machine hung up
    /// meanwhile. A session that is killed before takes its statement along.
    pub fn hold_from(&self, machine: IpAddr) {
        self.held().insert(machine);
    }

    /// Delivers what was held.
    pub fn release_from(&self, machine: IpAddr) {
        self.held().remove(&machine);
        self.notify();
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.shared
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
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
        let value = self.change_unheard(change);
        self.notify();
        value
    }

    /// Changes the server and wakes nobody but who waits for the end of a life.
    fn change_unheard<T>(&self, change: impl FnOnce(&mut Server) -> T) -> T {
        let mut server = self.server();
        let before = server.lives();
        let value = change(&mut server);
        let is_other_life = server.lives() != before;
        drop(server);
        if is_other_life {
            self.shared.lives_changed.send_modify(|count| *count += 1);
        }
        value
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.shared
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, (low, high): (u64, u64)) -> Duration {
        let mut random = self
            .shared
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(random.between(low, high))
    }

    /// Bytes for a login, none of them 0.
    pub(crate) fn draw_nonce(&self) -> [u8; 20] {
        let mut random = self
            .shared
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|_| random.between(33, 127) as u8)
    }

    /// Waits until `wanted` says something of the server.
    pub(crate) async fn until<T>(&self, wanted: impl FnMut(&Server) -> Option<T> + Send) -> T {
        self.until_on(&self.shared.changed, wanted).await
    }

    /// The same, where `wanted` asks for nothing but what [`Server::lives`] tells.
    async fn until_life<T>(&self, wanted: impl FnMut(&Server) -> Option<T> + Send) -> T {
        self.until_on(&self.shared.lives_changed, wanted).await
    }

    async fn until_on<T>(
        &self,
        signal: &watch::Sender<u64>,
        mut wanted: impl FnMut(&Server) -> Option<T> + Send,
    ) -> T {
        let mut changed = signal.subscribe();
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
    pub async fn run<E: World>(self) {
        self.work::<E>();
        spawn::<E>(self.clone().receive_for_ever::<E>());
        let address = format!("0.0.0.0:{}", self.key().port);
        self.listen::<E, _>(address, |host, stream, peer, boot| {
            host.serve::<E>(stream, machine_of(&peer), boot)
        })
        .await;
    }

    /// Listens while the process does, and serves who comes, for ever.
    pub(crate) async fn listen<E: World, F: Future<Output = ()> + Send + 'static>(
        self,
        address: String,
        serve: impl Fn(Self, E::Stream, String, u64) -> F,
    ) {
        loop {
            let boot = self
                .until_life(|server| server.listens().then(|| server.boot()))
                .await;
            let mut listener = loop {
                match E::bind(&address).await {
                    Ok(listener) => break listener,
                    // Somebody else has the port for a while.
                    Err(_) => sleep::<E>(BIND_AGAIN).await,
                }
            };
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = self.until_deaf(boot) => break,
                    accepted = E::accept(&mut listener) => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        spawn::<E>(serve(self.clone(), stream, peer, boot));
                    }
                    Err(_) => sleep::<E>(BIND_AGAIN).await,
                }
            }
        }
    }

    /// What goes on whoever asks: the applier, and the passing of time.
    pub(crate) fn work<E: World>(&self) {
        spawn::<E>(self.clone().apply_for_ever::<E>());
        spawn::<E>(self.clone().keep_time::<E>());
    }

    /// Carries statements on when something changed or their time came.
    async fn keep_time<E: World>(self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let now = E::elapsed();
            let (moved, next) =
                self.change_unheard(|server| (server.proceed(now), server.next_event()));
            if moved {
                self.notify();
                continue;
            }
            // The sender lives in `self`.
            match next {
                Some(at) => {
                    let left = at.saturating_sub(E::elapsed());
                    let _ = timeout::<E, _>(left, changed.changed()).await;
                }
                None => {
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// Nobody is let in any more.
    pub(crate) async fn until_deaf(&self, boot: u64) {
        self.until_life(|server| (!server.listens() || server.boot() != boot).then_some(()))
            .await;
    }

    pub(crate) async fn until_dead(&self, boot: u64) {
        self.until_life(|server| {
            (server.process() == Process::Killed || server.boot() != boot).then_some(())
        })
        .await;
    }

    /// Waits until a session is no more.
    pub(crate) async fn until_over(&self, session: u64, boot: u64) {
        self.until_life(|server| {
            let lives = server.process() != Process::Killed
                && server.boot() == boot
                && server.has_session(session);
            (!lives).then_some(())
        })
        .await;
    }

    /// Waits while the process is frozen.
    pub(crate) async fn until_awake(&self) {
        self.until_life(|server| (server.process() != Process::Frozen).then_some(()))
            .await;
    }

    /// Waits while what this machine sent is held up.
    async fn until_delivered(&self, machine: Option<IpAddr>) {
        let Some(machine) = machine else { return };
        self.until(|_| (!self.held().contains(&machine)).then_some(()))
            .await;
    }

    /// Carries a statement of a session to its end; none when the session ended before.
    pub(crate) async fn perform<E: World>(
        &self,
        session: u64,
        operation: Operation,
    ) -> Option<Outcome> {
        let now = E::elapsed();
        self.change(|server| server.ask(session, operation, now));
        self.until(|server| {
            (!server.has_session(session) || server.is_answered(session)).then_some(())
        })
        .await;
        self.server().take_outcome(session)
    }

    async fn serve<E: World>(self, mut stream: E::Stream, machine: Option<IpAddr>, boot: u64) {
        let logged_in = tokio::select! {
            biased;
            () = self.until_dead(boot) => return,
            logged_in = self.log_in::<E>(&mut stream, machine) => logged_in,
        };
        let Ok(Some(session)) = logged_in else {
            return;
        };
        tokio::select! {
            biased;
            () = self.until_over(session, boot) => {}
            // Whatever ended it, the stream is closed.
            _ = self.converse::<E>(&mut stream, machine, session) => {
                self.change(|server| {
                    if server.boot() == boot {
                        server.log_out(session);
                    }
                });
                return;
            }
        }
        if self.look(Server::is_stopping) {
            let farewell = error(code::SERVER_SHUTDOWN, "Server shutdown in progress");
            let _ = send(&mut stream, &Reply::Error(farewell)).await;
        }
    }

    async fn log_in<E: World>(
        &self,
        stream: &mut E::Stream,
        machine: Option<IpAddr>,
    ) -> io::Result<Option<u64>> {
        self.until_awake().await;
        let greeting = self.look(|server| Greeting {
            identity: server.identity(),
            server_id: server.server_id,
        });
        send(stream, &greeting).await?;
        let Request::LogIn(account) = receive(stream).await? else {
            return Err(io::Error::other("a request before the login"));
        };
        self.until_delivered(machine).await;
        self.until_awake().await;
        match self.change(|server| server.try_log_in(account, E::elapsed())) {
            Ok(session) => {
                send(stream, &Reply::LoggedIn(session)).await?;
                Ok(Some(session))
            }
            Err(refusal) => {
                send(stream, &Reply::Error(refusal)).await?;
                Ok(None)
            }
        }
    }

    async fn converse<E: World>(
        &self,
        stream: &mut E::Stream,
        machine: Option<IpAddr>,
        session: u64,
    ) -> io::Result<()> {
        loop {
            let request: Request = receive(stream).await?;
            self.until_delivered(machine).await;
            sleep::<E>(self.draw(STATEMENT_MICROSECONDS)).await;
            let reply = match request {
                Request::Dump { held, acknowledges } => {
                    self.change(|server| server.begin_dump(session, acknowledges));
                    return self.dump::<E>(stream, session, held).await;
                }
                other => self.answer::<E>(other, session).await,
            };
            let Some(reply) = reply else {
                return Ok(());
            };
            send(stream, &reply).await?;
            if self.look(Server::is_stopping) {
                return Ok(());
            }
        }
    }

    /// None: the session is over.
    async fn answer<E: World>(&self, request: Request, session: u64) -> Option<Reply> {
        let operation = match request {
            Request::Execute(statement) => {
                if self.look(Server::only_looks) {
                    self.until_awake().await;
                    told::executed(self.key(), session, &statement, None);
                    return Some(Reply::Error(error(
                        code::ACCESS_DENIED_SPECIFIC,
                        "Access denied; you need (at least one of) the privilege(s) for this operation",
                    )));
                }
                let kind = self.look(|server| server.kind);
                // As if the daemon's dialect had left a word out.
                let meant = if E::has(Mutant::BothStopped) && statement == Statement::StopIoThread {
                    &Statement::StopReplication
                } else {
                    &statement
                };
                let operations = match Operation::of(kind, meant) {
                    Ok(operations) => operations,
                    Err(refusal) => return Some(Reply::Error(refusal)),
                };
                let before = self.look(Server::forgotten_ever);
                for operation in operations {
                    if let Err(refusal) = self.perform::<E>(session, operation).await? {
                        told::executed(self.key(), session, &statement, None);
                        return Some(Reply::Error(refusal));
                    }
                }
                let forgotten = self.look(Server::forgotten_ever) - before;
                told::executed(self.key(), session, &statement, Some(forgotten));
                return Some(Reply::Done);
            }
            Request::Probe => {
                self.until_awake().await;
                let now = E::elapsed();
                return Some(Reply::Report(Box::new(
                    self.look(|server| server.report(now)),
                )));
            }
            Request::ClientSessions { spared } => {
                self.until_awake().await;
                return Some(Reply::Sessions(
                    self.look(|server| server.client_sessions(&spared)),
                ));
            }
            Request::LockHolders(names) => {
                self.until_awake().await;
                return Some(Reply::Holders(self.look(|server| {
                    names.iter().map(|name| server.lock_holder(name)).collect()
                })));
            }
            Request::KillSession(other) => Operation::Kill(other),
            Request::GetLock(name) => Operation::GetLock {
                name,
                within: Duration::ZERO,
            },
            Request::Sleep(duration) => Operation::Sleep(duration),
            Request::Write(row) => Operation::Write {
                table: Table::Ledger,
                row,
                takes: Duration::ZERO,
            },
            Request::LogIn(_) | Request::Dump { .. } | Request::Acknowledge(_) => {
                return Some(Reply::Error(error(
                    code::UNKNOWN_STATEMENT,
                    "not at this place",
                )));
            }
        };
        Some(match self.perform::<E>(session, operation).await? {
            Ok(Answer::Done | Answer::Interrupted) => Reply::Done,
            Ok(Answer::Locked(got)) => Reply::Locked(got == Some(true)),
            Err(refusal) => Reply::Error(refusal),
        })
    }

    /// The source's side of replication: the log one way, acknowledgements the other.
    async fn dump<E: World>(
        &self,
        stream: &mut E::Stream,
        session: u64,
        held: GtidSet,
    ) -> io::Result<()> {
        let (mut reading, mut writing) = tokio::io::split(stream);
        tokio::select! {
            biased;
            ended = self.hear_acknowledgements(&mut reading, session) => ended,
            ended = self.send_log::<E>(&mut writing, held) => ended,
        }
    }

    async fn hear_acknowledgements(
        &self,
        reading: &mut (impl AsyncRead + Unpin),
        session: u64,
    ) -> io::Result<()> {
        loop {
            let Request::Acknowledge(count) = receive(reading).await? else {
                return Err(io::Error::other("no acknowledgement"));
            };
            self.until_awake().await;
            self.change(|server| server.acknowledge(session, count));
        }
    }

    async fn send_log<E: World>(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        held: GtidSet,
    ) -> io::Result<()> {
        let mut place = 0;
        let mut has_begun = false;
        loop {
            self.until_awake().await;
            match self.look(|server| server.dump(&held, place)) {
                Err(refusal) => {
                    send(stream, &Reply::Error(refusal)).await?;
                    return Ok(());
                }
                Ok((transactions, next)) => {
                    place = next;
                    if !transactions.is_empty() {
                        has_begun = true;
                        send(stream, &Reply::Transactions { transactions, next }).await?;
                        continue;
                    }
                    // The rotation that every log begins with.
                    if !has_begun {
                        has_begun = true;
                        let (transactions, next) = (Vec::new(), 0);
                        send(stream, &Reply::Transactions { transactions, next }).await?;
                    }
                }
            }
            if !self.until_log_beyond::<E>(place, HEARTBEAT).await {
                self.until_awake().await;
                send(stream, &Reply::Heartbeat).await?;
            }
        }
    }

    /// Waits until the log is longer. False: it was not, for so long.
    pub(crate) async fn until_log_beyond<E: World>(&self, place: usize, within: Duration) -> bool {
        let longer = self.until(|server| (server.transactions().len() > place).then_some(()));
        timeout::<E, _>(within, longer).await.is_some()
    }

    /// The receiver's thread, whoever is its source.
    async fn receive_for_ever<E: World>(self) {
        loop {
            let (source, held) = self.until(Server::receiver_target).await;
            let pulled = self.while_received(self.pull::<E>(&source, held)).await;
            let Some(ended) = pulled else { continue };
            let refused = ended.is_err_and(|error| {
                error.kind() == io::ErrorKind::ConnectionRefused
                    || error.kind() == io::ErrorKind::UnexpectedEof
            });
            self.change(|server| server.receiver_lost(refused));
            self.rest_between_dials::<E>().await;
        }
    }

    /// The outcome, unless the receiver was stopped meanwhile.
    pub(crate) async fn while_received<T>(&self, receiving: impl Future<Output = T>) -> Option<T> {
        let life = self.look(Server::receiver_life);
        let over = self.until_life(|server| {
            let lives = life.is_some() && server.receiver_life() == life;
            (!lives).then_some(())
        });
        tokio::select! {
            biased;
            () = over => None,
            ended = receiving => Some(ended),
        }
    }

    pub(crate) async fn rest_between_dials<E: World>(&self) {
        let retry = self.look(|server| {
            server.channel().map_or(CONNECT_RETRY, |channel| {
                channel.connect_retry(CONNECT_RETRY)
            })
        });
        let rest = sleep::<E>(retry);
        let _ = self.while_received(rest).await;
    }

    async fn pull<E: World>(&self, source: &InstanceKey, held: GtidSet) -> io::Result<()> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no word from the source");
        let patience = self.look(Server::net_timeout);
        self.change(|server| server.receiver_dials(E::elapsed()));
        let mut stream = timeout::<E, _>(patience, E::connect(&source.to_string()))
            .await
            .ok_or_else(late)??;
        let greeting: Greeting = timeout::<E, _>(patience, receive(&mut stream))
            .await
            .ok_or_else(late)??;
        send(
            &mut stream,
            &Request::LogIn(Account::Replication(self.key().clone())),
        )
        .await?;
        let reply: Reply = timeout::<E, _>(patience, receive(&mut stream))
            .await
            .ok_or_else(late)??;
        if let Reply::Error(refusal) = reply {
            return Err(io::Error::other(refusal.message));
        }
        self.until_awake().await;
        let acknowledges = self.look(|server| server.semi_sync().replica_enabled);
        send(&mut stream, &Request::Dump { held, acknowledges }).await?;
        self.change(|server| {
            server.receiver_connected(&greeting.identity, greeting.server_id);
        });
        loop {
            let reply: Reply = timeout::<E, _>(patience, receive(&mut stream))
                .await
                .ok_or_else(late)??;
            self.until_awake().await;
            match reply {
                Reply::Transactions { transactions, next } => {
                    self.change(|server| {
                        server.log_arrives();
                        for transaction in transactions {
                            server.receive(transaction);
                        }
                    });
                    if acknowledges && next > 0 {
                        send(&mut stream, &Request::Acknowledge(next)).await?;
                    }
                }
                Reply::Heartbeat => self.change(Server::heartbeat),
                // Its session was ended by somebody: it dials again.
                Reply::Error(refusal) if refusal.code == code::SERVER_SHUTDOWN => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
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

    async fn apply_for_ever<E: World>(self) {
        loop {
            let at = self.until(Server::applies_at).await;
            let now = E::elapsed();
            if at > now {
                // Unless something happens before.
                let sooner = self.until(|server| {
                    let next = server.applies_at();
                    (next != Some(at)).then_some(())
                });
                let _ = timeout::<E, _>(at - now, sooner).await;
                continue;
            }
            let takes = self.look(Server::apply_takes);
            let takes = takes.unwrap_or_else(|| self.draw(APPLY_MICROSECONDS));
            sleep::<E>(takes).await;
            self.change(|server| server.apply(E::elapsed()));
        }
    }
}

/// The machine of an `ip:port`.
fn machine_of(peer: &str) -> Option<IpAddr> {
    let (address, _) = peer.rsplit_once(':')?;
    address
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}
