//! Repairs as replicated documents: what a recovery is, what its steps are, and (in the planners) what comes next.
//!
//! A recovery is held by the epoch that owns it and planned a stage at a time. No outward effect without its
//! committed intent; the next leader resumes by looking again; before the promote intent everything can be undone.

pub mod audit;
pub mod candidate;
pub mod dead_primary;
pub mod document;
pub mod forecast;
pub mod hook;
pub mod kind;
pub mod operation;
pub mod statement;

pub use document::{
    AuditLine, DeadKind, End, Outcome, Phase, Purpose, Recovery, Stage, Step, StepKind,
};
pub use hook::{Hook, HookCounts, HookFacts, HookList, Telling};
pub use statement::{Lane, SourcePosition, Statement};
