//! What is done to a world, and what must come of it.

use std::future::Future;
use std::pin::Pin;

use crate::engine::{Engine, Machine, run_traced};
use crate::outcome::Failure;
use orchestrator::trace::Trace;

pub mod primary_killed;

pub use primary_killed::Victims;

/// What a run that kept all promises came to, in one line.
pub type Summary = String;

/// A scenario as it is handed to an engine.
pub type Script = Pin<Box<dyn Future<Output = Result<Summary, Failure>>>>;

/// Runs *primary killed* with a seed on an engine.
pub fn run<E: Engine>(
    victims: Victims,
    seed: u64,
    keep_lines: bool,
) -> (Result<Summary, Failure>, Trace) {
    let world = move || -> (Vec<Machine>, Script) { primary_killed::world::<E>(victims, seed) };
    let (ended, trace) = run_traced::<E, _>(seed, primary_killed::LIMIT, keep_lines, world);
    let outcome = match ended {
        Err(panic) => Err(Failure::Crash(panic)),
        Ok(None) => Err(Failure::Liveness(format!(
            "the scenario did not end within {} s",
            primary_killed::LIMIT.as_secs()
        ))),
        Ok(Some(outcome)) => outcome,
    };
    (outcome, trace)
}

/// Runs a seed twice and compares.
pub fn twice<E: Engine>(victims: Victims, seed: u64) -> Result<Summary, Failure> {
    let (first, first_trace) = run::<E>(victims, seed, true);
    let (second, second_trace) = run::<E>(victims, seed, true);
    if first_trace != second_trace || first != second {
        let at = first_trace
            .lines
            .iter()
            .zip(&second_trace.lines)
            .position(|(one, other)| one != other);
        let line = |trace: &Trace, at: usize| {
            trace
                .lines
                .get(at)
                .map_or("(the run ended)", String::as_str)
                .to_owned()
        };
        let at = at.unwrap_or(first_trace.lines.len().min(second_trace.lines.len()));
        return Err(Failure::NonDeterminism(format!(
            "line {} of the trace differs:\n  first:  {}\n  second: {}",
            at + 1,
            line(&first_trace, at),
            line(&second_trace, at)
        )));
    }
    first.map(|summary| {
        format!(
            "{summary}; {} events, hash {:016x}, twice",
            first_trace.events, first_trace.hash
        )
    })
}
