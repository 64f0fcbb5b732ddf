//! What a deployment relies on, on real processes: the files in `runtime/packaging`, proxies, HTTPS, the command line; and
//! the demonstration.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::Duration;

use orchestrator_tests::reserve::free_ports;

mod cluster;
mod command_line;
mod demo;
mod disk;
mod failover;
mod far;
mod guide;
mod https;
mod kubernetes;
mod names;
mod network;
mod package;
mod proxy;
mod raft_directory;
mod raft_port;
mod service;
mod start;
mod versions;

/// Held while a test owns daemons.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const PATIENCE: Duration = Duration::from_secs(30);
/// A request that waits this long was not answered.
const DEADLINE: Duration = Duration::from_secs(10);

/// An address on which nothing listens.
fn free_address() -> SocketAddr {
    let ports = free_ports(1).expect("a port");
    SocketAddr::from(([127, 0, 0, 1], ports[0]))
}
