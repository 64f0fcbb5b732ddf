//! Real servers and real daemons for tests, benchmarks and the demonstration.
//!
//! Nothing here touches a process that it did not start: children are held by their handles, live
//! in sessions of their own, and are killed by the kernel when the process that started them ends.
//! Every wait is for a condition, has a deadline, and says what was still missing when it ends.
//!
//! Real time is the subject here, so the ban on clocks and threads outside the runtime's
//! environment does not hold for this package.
#![allow(clippy::disallowed_methods)]

pub mod authority;
pub mod backends;
pub mod bare;
pub mod checks;
pub mod commands;
pub mod consul;
pub mod daemons;
pub mod disk;
pub mod figures;
pub mod fleet;
pub mod haproxy;
pub mod ledger;
pub mod network;
pub mod nobody;
pub mod process;
pub mod relay;
#[cfg(test)]
mod requirements;
pub mod reserve;
pub mod sql;
pub mod wait;
pub mod world;
