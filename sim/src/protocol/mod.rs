//! Model servers behind the real MySQL protocol: each on a port of its own, to daemons, clients and each other like a
//! MySQL or MariaDB server, as far as the daemons' adapter and simple clients can tell.
//!
//! What it understands is what the adapter sends (`runtime/src/mysql`), rows written to `app.ledger` and `app.note`, and the
//! statements of the scripts of facts. What holds: a killed server's sockets are closed and its port refuses; a frozen one
//! accepts and is silent; every input is bounded, and garbage ends its connection and nothing else.

mod command;
pub mod fleet;
mod login;
mod packet;
mod replica;
mod rights;
mod serve;
mod syntax;
mod tables;

pub use command::prepare;

use orchestrator::env::spawn;

use crate::model::Host;
use crate::model::host::World;

/// The program of a model server: it never ends. `address` is `host:port`, the server's key as others dial it.
pub async fn run<E: World>(host: Host, address: String) {
    host.work::<E>();
    spawn::<E>(replica::receive_for_ever::<E>(host.clone()));
    host.listen::<E, _>(address, |host, stream, _, boot| {
        serve::serve::<E>(host, stream, boot)
    })
    .await;
}

#[cfg(test)]
mod tests;
