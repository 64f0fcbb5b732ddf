//! MySQL and MariaDB servers as models: what they hold, what they refuse, what they lose when they are killed, and how
//! they look from outside, over simulated sockets, to the daemon's fleet adapter.
//!
//! [`server`] is data without a clock of its own and without a socket; [`host`] is the program of the machine that
//! carries one; [`fleet`] is the daemon's side, [`client`] an application that writes. What a model does is taken from
//! measurements on real servers (F1 to F21 in the code).

pub mod client;
pub mod fleet;
pub mod host;
pub mod server;
pub mod wire;

pub use client::Ledger;
pub use fleet::SimFleet;
pub use host::Host;
pub use server::{Kind, Server};

#[cfg(test)]
mod tests;
