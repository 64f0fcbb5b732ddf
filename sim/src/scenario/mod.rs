//! What is done to a world, and what must come of it: files, plans drawn from seeds, and their play on an engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use orchestrator::trace::Trace;

use crate::engine::{Engine, run_traced};
use crate::mutant;
use crate::outcome::Failure;

pub mod action;
pub mod fault;
pub mod file;
mod heal;
mod names;
mod play;

pub use file::{Plan, Scenario};

/// What a run that kept all promises came to, in one line.
pub type Summary = String;

/// A scenario as it is handed to an engine.
pub type Script = Pin<Box<dyn Future<Output = Result<Summary, Failure>>>>;

/// Plays a plan on an engine.
pub fn run<E: Engine>(
    scenario: &Arc<Scenario>,
    plan: &Plan,
    keep_lines: bool,
) -> (Result<Summary, Failure>, Trace) {
    let limit = play::limit(scenario);
    let (own, plan) = (scenario.clone(), plan.clone());
    let seed = plan.seed;
    let world = move || {
        mutant::set(plan.mistake);
        play::world::<E>(own, plan)
    };
    let (ended, trace) = run_traced::<E, _>(seed, limit, keep_lines, world);
    let outcome = match ended {
        Err(panic) => Err(Failure::Crash(panic)),
        Ok(None) => Err(Failure::Liveness(format!(
            "end: the scenario did not come to it within {} s",
            limit.as_secs()
        ))),
        Ok(Some(outcome)) => outcome,
    };
    (outcome, trace)
}
