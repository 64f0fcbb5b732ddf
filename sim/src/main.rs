//! `orchestrator-sim`: runs seeds of the simulated world, once, twice, or many.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use orchestrator_sim::engine::{Engine, MadsimEnv, TurmoilEnv};
use orchestrator_sim::outcome::{Failure, Seeds};
use orchestrator_sim::scenario::{self, Victims};

/// Runs the daemons and a model fleet in a simulated world.
///
/// Exit codes: 0 all promises kept, 10 a crash, 11 safety, 12 liveness, 13 two runs of one seed differ.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-sim", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Which simulator.
    #[arg(long, value_enum, default_value_t = EngineName::Madsim, global = true)]
    engine: EngineName,
    /// Who is struck.
    #[arg(long, value_enum, default_value_t = Victims::Primary, global = true)]
    kill: Victims,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Madsim,
    Turmoil,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs one seed and says what came of it.
    Run {
        seed: u64,
        /// Prints the trace as well.
        #[arg(long)]
        trace: bool,
    },
    /// Runs a seed, or each seed of FROM..TO, twice and compares the traces.
    Twice { seeds: Seeds },
    /// Runs each seed of FROM..TO.
    Sweep { seeds: Seeds },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time()
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
    match arguments.engine {
        EngineName::Madsim => act::<MadsimEnv>(arguments.verb, arguments.kill),
        EngineName::Turmoil => act::<TurmoilEnv>(arguments.verb, arguments.kill),
    }
}

fn act<E: Engine>(verb: Verb, kill: Victims) -> ExitCode {
    match verb {
        Verb::Run { seed, trace } => {
            each::<E>(Seeds(seed..seed.saturating_add(1)), "run", kill, |seed| {
                let (outcome, run) = scenario::run::<E>(kill, seed, trace);
                for line in &run.lines {
                    println!("{line}");
                }
                outcome.map(|summary| {
                    format!("{summary}; {} events, hash {:016x}", run.events, run.hash)
                })
            })
        }
        Verb::Twice { seeds } => each::<E>(seeds, "twice", kill, |seed| {
            scenario::twice::<E>(kill, seed)
        }),
        Verb::Sweep { seeds } => each::<E>(seeds, "run", kill, |seed| {
            scenario::run::<E>(kill, seed, false).0
        }),
    }
}

/// Runs every seed; the first failure decides the exit code.
fn each<E: Engine>(
    seeds: Seeds,
    verb: &str,
    kill: Victims,
    run: impl Fn(u64) -> Result<String, Failure>,
) -> ExitCode {
    let mut first = None;
    let (mut count, mut failures) = (0_u64, 0_u64);
    let clock = Clock::start();
    for seed in seeds.0 {
        count += 1;
        match run(seed) {
            Ok(summary) => println!("{} seed {seed}: {summary}", E::NAME),
            Err(failure) => {
                failures += 1;
                println!("{} seed {seed}: FAILED: {failure}", E::NAME);
                let kill = kill
                    .to_possible_value()
                    .map_or_else(String::new, |value| value.get_name().to_owned());
                println!(
                    "reproduce with: orchestrator-sim {verb} {seed} --engine {} --kill {kill}",
                    E::NAME
                );
                first.get_or_insert(failure);
            }
        }
    }
    println!(
        "{count} seeds, {failures} failed, {:.1} s",
        clock.elapsed().as_secs_f64()
    );
    first.map_or(ExitCode::SUCCESS, |failure| failure.exit_code())
}

/// The real clock: how long a sweep took is for people, outside every simulation.
struct Clock(std::time::Instant);

impl Clock {
    #[allow(clippy::disallowed_methods)]
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
