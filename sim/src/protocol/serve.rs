//! One connection of a client to a model server: login, commands, and the binary log for replicas.
//!
//! A replica asks with COM_BINLOG_DUMP_GTID as a real one does; the request and the stream carry the model's own frames,
//! since only models read them.

use std::io;
use std::time::Duration;

use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::{Identity, InstanceKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{Conversation, Reply, Stop};
use super::login::{self, Login};
use super::packet::{Packets, read_packet};
use super::syntax;
use crate::model::Host;
use crate::model::host::World;
use crate::model::replication::HEARTBEAT;
use crate::model::server::{Account, Server, ServerError, Transaction, code, error};

const QUIT: u8 = 0x01;
const INIT_DB: u8 = 0x02;
const QUERY: u8 = 0x03;
const PING: u8 = 0x0e;
const BINLOG_DUMP_GTID: u8 = 0x1e;
const RESET_CONNECTION: u8 = 0x1f;

/// How long a client may take for its login.
const LOGIN: Duration = Duration::from_secs(10);
/// Statements of one text.
const STATEMENTS_MAX: usize = 256;

/// What a replica asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub replica: InstanceKey,
    pub held: GtidSet,
    pub acknowledges: bool,
}

/// What a replica is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    Introduction {
        identity: Identity,
        server_id: u32,
    },
    Transactions {
        transactions: Vec<Transaction>,
        next: usize,
    },
    Heartbeat,
}

pub(super) fn encode(header: u8, frame: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_extend(frame, vec![header]).map_err(io::Error::other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Serves one connection until it ends, is ended, or the process is no more.
pub(super) async fn serve<E: World>(host: Host, mut stream: E::Stream, boot: u64) {
    let logged_in = tokio::select! {
        biased;
        () = host.until_dead(boot) => return,
        logged_in = log_in::<E>(&host, &mut stream) => logged_in,
    };
    let Ok(Some((login, session))) = logged_in else {
        return;
    };
    let conversation = Conversation {
        host: host.clone(),
        session,
        user: login.user.clone(),
    };
    tokio::select! {
        biased;
        () = host.until_over(session, boot) => {}
        // Whatever ended it, the stream is closed.
        _ = converse::<E>(&conversation, &mut stream, login.deprecate_eof) => {
            host.change(|server| {
                if server.boot() == boot {
                    server.log_out(session);
                }
            });
            return;
        }
    }
    if host.look(Server::is_stopping) {
        let mut farewell = Packets::after(0);
        farewell.error(&error(code::SERVER_SHUTDOWN, "Server shutdown in progress"));
        let _ = farewell.send(&mut stream).await;
    }
}

/// None: refused, and told so.
async fn log_in<E: World>(host: &Host, stream: &mut E::Stream) -> io::Result<Option<(Login, u64)>> {
    host.until_awake().await;
    let kind = host.look(|server| server.kind);
    let nonce = host.draw_nonce();
    // The number of the session is known before its account is: it is only shown.
    let mut greeting = Packets::after(u8::MAX);
    let number = u32::try_from(host.look(|server| server.next_session())).unwrap_or(0);
    greeting.push(&login::greeting(kind, number, &nonce));
    greeting.send(stream).await?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no login");
    let heard = orchestrator::env::timeout::<E, _>(LOGIN, login::hear_login(stream, kind, &nonce));
    let login = heard.await.ok_or_else(late)??;
    host.until_awake().await;
    let outcome = host.change(|server| {
        let known = server
            .passwords
            .get(&login.user)
            .is_some_and(|password| login::is_proven(&login, kind, password, &nonce));
        if !known {
            return Err(login::denied(&login.user, "127.0.0.1"));
        }
        let account = match login.user.as_str() {
            "orchestrator" => Account::Orchestrator,
            user => Account::Application(user.to_owned()),
        };
        server.try_log_in(account, E::elapsed())
    });
    match outcome {
        Ok(session) => {
            login::welcome(&login, kind).send(stream).await?;
            Ok(Some((login, session)))
        }
        Err(refusal) => {
            let mut packets = Packets::after(login.number);
            packets.error(&refusal);
            packets.send(stream).await?;
            Ok(None)
        }
    }
}

async fn converse<E: World>(
    conversation: &Conversation,
    stream: &mut E::Stream,
    deprecate_eof: bool,
) -> io::Result<()> {
    loop {
        let (number, bytes) = read_packet(stream).await?;
        let mut packets = Packets::after(number);
        let (command, body) = bytes.split_first().unwrap_or((&0, &[]));
        match *command {
            QUIT => return Ok(()),
            QUERY => {
                let text = String::from_utf8_lossy(body);
                let alive = query::<E>(conversation, &text, deprecate_eof, &mut packets).await;
                if !alive {
                    return Ok(());
                }
            }
            PING | INIT_DB | RESET_CONNECTION => {
                conversation.host.until_awake().await;
                packets.ok(0, 0, false);
            }
            BINLOG_DUMP_GTID => {
                let subscription = decode(body)?;
                return dump::<E>(conversation, stream, packets, subscription).await;
            }
            _ => packets.error(&error(1047, "Unknown command")),
        }
        packets.send(stream).await?;
        if conversation.host.look(Server::is_stopping) {
            return Ok(());
        }
    }
}

/// Carries out the statements of a text; the first that fails ends it. False: the session is over.
async fn query<E: World>(
    conversation: &Conversation,
    text: &str,
    deprecate_eof: bool,
    packets: &mut Packets,
) -> bool {
    let statements = syntax::statements(text);
    if statements.is_empty() {
        packets.error(&error(1065, "Query was empty"));
        return true;
    }
    let count = statements.len();
    for (at, statement) in statements.into_iter().enumerate() {
        let more = at + 1 < count;
        let outcome = match statement {
            Ok(_) if at >= STATEMENTS_MAX => Err(Stop::Refused(error(
                code::UNKNOWN_STATEMENT,
                "too many statements in one text",
            ))),
            Ok(tokens) => conversation.execute::<E>(text, &tokens).await,
            Err(refusal) => Err(Stop::Refused(refusal)),
        };
        match outcome {
            Ok(Reply::Done { affected }) => packets.ok(affected, 0, more),
            Ok(Reply::Rows(rows)) => {
                packets.rows(&rows.columns, &rows.rows, deprecate_eof, more);
            }
            Err(Stop::Refused(refusal)) => {
                packets.error(&refusal);
                return true;
            }
            Err(Stop::Over) => return false,
        }
    }
    true
}

/// The log one way, acknowledgements the other.
async fn dump<E: World>(
    conversation: &Conversation,
    stream: &mut E::Stream,
    mut packets: Packets,
    subscription: Subscription,
) -> io::Result<()> {
    let host = &conversation.host;
    let session = conversation.session;
    let may = host.look(|server| {
        server.holds_any(
            &conversation.user,
            &["REPLICATION SLAVE", "REPLICATION_SLAVE"],
        )
    });
    if !may {
        packets.error(&error(
            code::ACCESS_DENIED_SPECIFIC,
            "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s) for this operation",
        ));
        return packets.send(stream).await;
    }
    let (identity, server_id) = host.change(|server| {
        server.register_replica(session, subscription.replica.clone());
        server.begin_dump(session, subscription.acknowledges);
        (server.identity(), server.server_id)
    });
    let introduction = Event::Introduction {
        identity,
        server_id,
    };
    packets.push(&encode(0, &introduction)?);
    packets.send(stream).await?;
    let (mut reading, mut writing) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = hear_acknowledgements(host, &mut reading, session) => ended,
        ended = send_log::<E>(host, &mut writing, packets, &subscription.held) => ended,
    }
}

async fn hear_acknowledgements(
    host: &Host,
    reading: &mut (impl AsyncRead + Unpin),
    session: u64,
) -> io::Result<()> {
    loop {
        let (_, bytes) = read_packet(reading).await?;
        let count: usize = decode(&bytes)?;
        host.until_awake().await;
        host.change(|server| server.acknowledge(session, count));
    }
}

async fn send_log<E: World>(
    host: &Host,
    stream: &mut (impl AsyncWrite + Unpin),
    mut packets: Packets,
    held: &GtidSet,
) -> io::Result<()> {
    let mut place = 0;
    let mut has_begun = false;
    loop {
        host.until_awake().await;
        match host.look(|server| server.dump(held, place)) {
            Err(refusal) => {
                packets.error(&refusal);
                return packets.send(stream).await;
            }
            Ok((transactions, next)) => {
                place = next;
                // The rotation that every log begins with.
                if !has_begun {
                    has_begun = true;
                    let (transactions, next) = (Vec::new(), 0);
                    packets.push(&encode(0, &Event::Transactions { transactions, next })?);
                    packets.send(stream).await?;
                }
                if !transactions.is_empty() {
                    for (first, some) in parts(&transactions, next) {
                        packets.push(&encode(
                            0,
                            &Event::Transactions {
                                transactions: some.to_vec(),
                                next: first,
                            },
                        )?);
                    }
                    packets.send(stream).await?;
                    continue;
                }
            }
        }
        if !host.until_log_beyond::<E>(place, HEARTBEAT).await {
            host.until_awake().await;
            packets.push(&encode(0, &Event::Heartbeat)?);
            packets.send(stream).await?;
        }
    }
}

/// Transactions of one packet.
const TRANSACTIONS_MAX: usize = 4_096;

/// The transactions in parts that fit a packet, each with how much of the log has been sent with it: only the last says.
fn parts(transactions: &[Transaction], next: usize) -> Vec<(usize, &[Transaction])> {
    let count = transactions.len().div_ceil(TRANSACTIONS_MAX);
    transactions
        .chunks(TRANSACTIONS_MAX)
        .enumerate()
        .map(|(at, part)| (if at + 1 == count { next } else { 0 }, part))
        .collect()
}

/// The refusal of a source, as its replica reads it.
pub(super) fn refusal(bytes: &[u8]) -> Option<ServerError> {
    login::read_error(bytes)
}
