//! Hooks: the operators' own commands, run by the leading daemon when the node says so.
//!
//! Decides nothing: which hook runs, and what its failure means, is decided in the core. What it holds to: a hook that
//! began ends by itself or at its deadline, with everything it started; what it says is kept, up to a bound; nothing
//! that came from a server is ever read as shell text.

mod process;
mod text;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use orchestrator_core::recovery::{Hook, HookCounts, HookFacts, Outcome};

pub use process::Processes;
pub use text::environment;

/// Whoever runs hooks.
pub trait Hooks: Debug + Send + Sync + 'static {
    /// How many there are in each list.
    fn counts(&self) -> HookCounts;

    /// What a hook waits for before it may be run. Awaited before leadership is confirmed, since it may take its time.
    fn prepare(&self, _hook: Hook) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    /// Runs one. [`Outcome::Refused`]: it could not be started, or said no (its exit code). [`Outcome::Unknown`]: it was
    /// ended at its deadline.
    fn run(&self, hook: Hook, facts: HookFacts) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

/// A daemon without hooks.
#[derive(Debug, Clone, Copy)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn counts(&self) -> HookCounts {
        HookCounts::default()
    }

    fn run(&self, hook: Hook, _facts: HookFacts) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(std::future::ready(Outcome::Refused {
            code: 0,
            reason: format!("{hook} is in no file of this daemon"),
        }))
    }
}
