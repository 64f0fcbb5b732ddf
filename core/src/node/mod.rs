//! The step function: one way in, one struct out.

pub mod effect;
pub mod input;

pub use effect::{Effect, Note, Output, PeerMessage, Reply};
pub use input::{Input, Opinion, OpinionKind, ProbeEnd, RaftView, Request, Sign, StepEnd};
