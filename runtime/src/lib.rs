//! Adapters and the daemon: everything that touches the world, generic over [`env::Env`].

pub mod backend;
pub mod command_line;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod env;
pub mod fleet;
pub mod forced;
pub mod hooks;
pub mod http;
pub mod kv;
pub mod mysql;
pub mod raft;
mod roll;
mod seeds;
mod tls;
pub mod trace;
pub mod wiring;
