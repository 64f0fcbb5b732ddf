//! What was decided: the replicated half, changed only by applying commands in log order.
//!
//! Apply is total: no clock, no randomness, no knowledge of which daemon it runs on. Same position, same digest.

pub mod command;

pub use command::{AckScope, Answer, Command, Detection, Refusal, Stamped};
