//! The receiver of a model server whose source is another model server behind the MySQL protocol.

use std::io;

use orchestrator::env::timeout;
use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::InstanceKey;

use super::login;
use super::packet::{Packets, read_packet};
use super::serve::{Event, Subscription, decode, encode, refusal};
use crate::model::Host;
use crate::model::host::World;
use crate::model::server::{Server, ServerError, code};

const BINLOG_DUMP_GTID: u8 = 0x1e;

/// How a connection to the source ended.
enum End {
    /// An error that it dials again after.
    Failed(Option<(u32, String)>),
    /// An error that stops it.
    Refused(ServerError),
}

/// Dials, reads, and dials again, for ever.
pub(super) async fn receive_for_ever<E: World>(host: Host) {
    loop {
        let (source, held) = host.until(Server::receiver_target).await;
        let pulled = host.while_received(pull::<E>(&host, &source, held)).await;
        match pulled {
            None => continue,
            Some(End::Refused(refusal)) => host.change(|server| server.receiver_refused(&refusal)),
            Some(End::Failed(reason)) => host.change(|server| server.receiver_failed(reason)),
        }
        host.rest_between_dials::<E>().await;
    }
}

async fn pull<E: World>(host: &Host, source: &InstanceKey, held: GtidSet) -> End {
    match attempt::<E>(host, source, held).await {
        Ok(end) => end,
        Err(error) => End::Failed(match error.kind() {
            // A dial into silence leaves no error.
            io::ErrorKind::TimedOut => None,
            _ => Some((
                code::CANNOT_CONNECT,
                format!("Can't connect to server on '{source}' ({error})"),
            )),
        }),
    }
}

async fn attempt<E: World>(host: &Host, source: &InstanceKey, held: GtidSet) -> io::Result<End> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no word from the source");
    let patience = host.look(Server::net_timeout);
    host.change(|server| server.receiver_dials(E::elapsed()));
    let (user, password) = host.look(|server| {
        server.channel().map_or_else(Default::default, |channel| {
            (channel.user.clone(), channel.password.clone())
        })
    });
    let mut stream = timeout::<E, _>(patience, E::connect(&source.to_string()))
        .await
        .ok_or_else(late)??;
    let logged_in = timeout::<E, _>(patience, login::log_in(&mut stream, &user, &password))
        .await
        .ok_or_else(late)??;
    if let Err(refusal) = logged_in {
        return Ok(End::Failed(Some((
            u32::from(refusal.code),
            refusal.message,
        ))));
    }
    host.until_awake().await;
    let acknowledges = host.look(|server| server.semi_sync().replica_enabled);
    let subscription = Subscription {
        replica: host.key().clone(),
        held,
        acknowledges,
    };
    let mut packets = Packets::after(u8::MAX);
    packets.push(&encode(BINLOG_DUMP_GTID, &subscription)?);
    packets.send(&mut stream).await?;
    loop {
        let (_, bytes) = timeout::<E, _>(patience, read_packet(&mut stream))
            .await
            .ok_or_else(late)??;
        host.until_awake().await;
        let event = match bytes.split_first() {
            Some((0, frame)) => decode(frame)?,
            _ => {
                let Some(refusal) = refusal(&bytes) else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no event"));
                };
                // Its session was ended by somebody: it dials again.
                if [code::SERVER_SHUTDOWN, code::OFFLINE].contains(&refusal.code) {
                    return Ok(End::Failed(Some((
                        u32::from(refusal.code),
                        refusal.message,
                    ))));
                }
                return Ok(End::Refused(refusal));
            }
        };
        match event {
            Event::Introduction {
                identity,
                server_id,
            } => host.change(|server| server.receiver_connected(&identity, server_id)),
            Event::Transactions { transactions, next } => {
                host.change(|server| {
                    server.log_arrives();
                    for transaction in transactions {
                        server.receive(transaction);
                    }
                });
                if acknowledges && next > 0 {
                    let mut packets = Packets::after(u8::MAX);
                    packets.push(&postcard::to_stdvec(&next).map_err(io::Error::other)?);
                    packets.send(&mut stream).await?;
                }
            }
            Event::Heartbeat => host.change(Server::heartbeat),
        }
    }
}
