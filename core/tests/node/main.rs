//! The whole decision core: three nodes over a model raft log and a model fleet of MySQL or MariaDB servers.

mod agreement;
mod choice;
mod fleet;
mod hooks;
mod members;
mod random;
mod scenarios;
mod versions;
mod world;
