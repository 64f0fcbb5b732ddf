//! The decisions of orchestrator as pure state transitions.
//!
//! One way in: [`node::Node::step`]. Nothing here knows SQL text, a socket, a file, a clock or a thread; what
//! is to be done in the world comes out as plain data.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod analysis;
pub mod gtid;
pub mod id;
pub mod limits;
pub mod membership;
pub mod node;
pub mod policy;
pub mod recovery;
pub mod replicated;
pub mod time;
pub mod topology;
