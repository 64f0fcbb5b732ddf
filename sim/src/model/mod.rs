//! MySQL and MariaDB servers as models: what they hold, what they refuse, what they lose when they are killed, and how
//! they look from outside, over simulated sockets, to the daemon's fleet adapter.
//!
//! [`server`], [`statement`] and [`replication`] are data without a clock of its own and without a socket; [`host`] is the
//! program of the machine that carries one; [`fleet`] is the daemon's side, [`client`] an application that writes. What a
//! model does was measured on real servers, and one script is run on both (`tests/tests/facts.rs`).

pub mod client;
pub mod fleet;
pub mod host;
pub mod replication;
pub mod server;
pub mod statement;
pub mod told;
pub mod wire;

pub use client::Ledger;
pub use fleet::SimFleet;
pub use host::{Host, World};
pub use server::{Kind, Server};

#[cfg(test)]
mod facts;
#[cfg(test)]
mod planner;
#[cfg(test)]
#[cfg(feature = "engines")]
mod tests;
