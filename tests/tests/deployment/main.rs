//! What a deployment relies on, on real processes: the files in `runtime/packaging`, proxies, HTTPS, the command line.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::Duration;

mod cluster;
mod command_line;
mod disk;
mod failover;
mod far;
mod https;
mod network;
mod package;
mod proxy;
mod raft_port;
mod replacement;
mod start;

/// Held while a test owns daemons.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const PATIENCE: Duration = Duration::from_secs(30);
/// A request that waits this long was not answered.
const DEADLINE: Duration = Duration::from_secs(10);

/// An address on which nothing listens.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}
