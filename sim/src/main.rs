//! `orchestrator-sim`: plays scenarios in simulated worlds, once, twice, many times, or again from a replay file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use orchestrator::trace::Trace;
use orchestrator_sim::engine::{MadsimEnv, TurmoilEnv};
use orchestrator_sim::outcome::{Failure, Seeds, class};
use orchestrator_sim::scenario::{self, Plan, Scenario, Summary};
use orchestrator_sim::sweep::{self, Answer, Job, Worker};
use orchestrator_sim::{mutant, shrink, timeline};

/// Plays scenarios of daemons and a model fleet in simulated worlds.
///
/// Exit codes: 0 all promises kept, 2 wrong arguments or files, 10 a crash, 11 safety, 12 liveness, 13 two runs of one
/// seed differ.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-sim", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Which simulator; a sweep takes each that the scenario is for.
    #[arg(long, value_enum, global = true)]
    engine: Option<EngineName>,
    /// A mistake put back on purpose.
    #[arg(long, global = true)]
    mistake: Option<String>,
    /// Where the scenarios are.
    #[arg(long, global = true, default_value = "sim/scenarios")]
    scenarios: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Madsim,
    Turmoil,
}

impl EngineName {
    const fn name(self) -> &'static str {
        match self {
            Self::Madsim => "madsim",
            Self::Turmoil => "turmoil",
        }
    }

    fn named(name: &str) -> Self {
        if name == "turmoil" {
            Self::Turmoil
        } else {
            Self::Madsim
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Plays a scenario with one seed, or a replay file as it was, and says what came of it.
    Run {
        file: PathBuf,
        #[arg(long)]
        seed: Option<u64>,
        /// Prints who did what, when and why.
        #[arg(long)]
        story: bool,
        /// Prints every line that the run is compared by.
        #[arg(long)]
        trace: bool,
        /// Writes a replay file: the plan as it was drawn, and what came of it.
        #[arg(long)]
        save: Option<PathBuf>,
        /// Writes the run as a drawing, an HTML page.
        #[arg(long)]
        timeline: Option<PathBuf>,
    },
    /// The same as `run`, for replay files only.
    Replay {
        file: PathBuf,
        #[arg(long)]
        story: bool,
        #[arg(long)]
        timeline: Option<PathBuf>,
    },
    /// Plays scenarios with each seed of FROM..TO, on all cores. Replay files of failures go to --failures.
    Sweep {
        seeds: Seeds,
        /// Scenario files; none: all.
        files: Vec<PathBuf>,
        /// How many processes; none: one a core.
        #[arg(long)]
        processes: Option<usize>,
        /// Where replay files of failures are written.
        #[arg(long)]
        failures: Option<PathBuf>,
    },
    /// Plays each seed twice, the second time in another process, and compares the traces.
    Twice {
        seeds: Seeds,
        files: Vec<PathBuf>,
        /// Another build of this program to compare with, such as one without debug assertions.
        #[arg(long)]
        with: Option<PathBuf>,
    },
    /// Plays replay files again, all below the folders that are named: each must come to what is written in it. Those of
    /// faults that were mended come to nothing, those of mistakes put back on purpose to what finds them.
    Regressions {
        #[arg(default_value = "sim/regressions")]
        folders: Vec<PathBuf>,
    },
    /// Takes lines out of a failing replay file while it fails in the same way.
    Shrink {
        file: PathBuf,
        /// Where the result goes; none: over the file.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Looks for a seed that finds each mistake, in scenarios that are made for it; at most so many seeds each.
    Mutants {
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Only this one.
        name: Option<String>,
        /// Where a replay file of each is written.
        #[arg(long)]
        save: Option<PathBuf>,
    },
    /// A worker of a sweep.
    #[command(hide = true)]
    Worker,
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
    match act(&arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(failure)) => failure.exit_code(),
        Err(wrong) => {
            eprintln!("orchestrator-sim: {wrong}");
            ExitCode::from(2)
        }
    }
}

/// What came of it: none when all promises were kept.
fn act(arguments: &Arguments) -> Result<Option<Failure>, String> {
    match &arguments.verb {
        Verb::Run {
            file,
            seed,
            story,
            trace,
            save,
            timeline,
        } => {
            let show = Show {
                story: *story,
                trace: *trace,
                save: save.as_deref(),
                timeline: timeline.as_deref(),
            };
            run_file(arguments, file, *seed, &show)
        }
        Verb::Replay {
            file,
            story,
            timeline,
        } => {
            if Scenario::read(file)?.replay.is_none() {
                return Err(format!("{} is no replay file", file.display()));
            }
            let show = Show {
                story: *story,
                trace: false,
                save: None,
                timeline: timeline.as_deref(),
            };
            run_file(arguments, file, None, &show)
        }
        Verb::Sweep {
            seeds,
            files,
            processes,
            failures,
        } => {
            let files = files_or_all(arguments, files)?;
            let jobs = jobs(arguments, &files, seeds, false)?;
            let processes = processes.unwrap_or_else(cores);
            sweep_jobs(jobs, processes, failures.as_deref())
        }
        Verb::Twice { seeds, files, with } => {
            let files = files_or_all(arguments, files)?;
            let jobs = jobs(arguments, &files, seeds, true)?;
            twice(jobs, with.as_deref())
        }
        Verb::Regressions { folders } => regressions(arguments, folders),
        Verb::Shrink { file, into } => shrink_file(file, into.as_deref().unwrap_or(file)),
        Verb::Mutants { seeds, name, save } => {
            mutants(arguments, *seeds, name.as_deref(), save.as_deref())
        }
        Verb::Worker => sweep::work(run_job)
            .map(|()| None)
            .map_err(|error| error.to_string()),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn files_or_all(arguments: &Arguments, files: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    if !files.is_empty() {
        return Ok(files.to_vec());
    }
    let folder = &arguments.scenarios;
    let bad = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(bad)? {
        let path = entry.map_err(bad)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The engines that a file is to be played on.
fn engines(arguments: &Arguments, scenario: &Scenario) -> Vec<EngineName> {
    let of_file = || scenario.engines.iter().map(|name| EngineName::named(name));
    match (&scenario.replay, arguments.engine) {
        (Some(replay), _) => vec![EngineName::named(&replay.engine)],
        (None, Some(engine)) => of_file().filter(|one| *one == engine).collect(),
        (None, None) => of_file().collect(),
    }
}

fn run_on(
    engine: EngineName,
    scenario: &Arc<Scenario>,
    plan: &Plan,
    keep_lines: bool,
) -> (Result<Summary, Failure>, Trace) {
    match engine {
        EngineName::Madsim => scenario::run::<MadsimEnv>(scenario, plan, keep_lines),
        EngineName::Turmoil => scenario::run::<TurmoilEnv>(scenario, plan, keep_lines),
    }
}

struct Show<'a> {
    story: bool,
    trace: bool,
    save: Option<&'a Path>,
    timeline: Option<&'a Path>,
}

fn run_file(
    arguments: &Arguments,
    file: &Path,
    seed: Option<u64>,
    show: &Show<'_>,
) -> Result<Option<Failure>, String> {
    let scenario = Arc::new(Scenario::read(file)?);
    let of_replay = scenario.replay.as_ref().map(|replay| replay.seed);
    let seed = seed.or(of_replay).unwrap_or(0);
    let mistake = arguments
        .mistake
        .as_deref()
        .map(mutant::named)
        .transpose()?;
    let plan = scenario.plan(seed, mistake)?;
    let mut first = None;
    for engine in engines(arguments, &scenario) {
        let keep_lines = show.story || show.trace || show.timeline.is_some();
        let (outcome, trace) = run_on(engine, &scenario, &plan, keep_lines);
        for line in &trace.lines {
            if show.trace || (show.story && timeline::is_told(line)) {
                println!("{line}");
            }
        }
        let said = match &outcome {
            Ok(summary) => summary.clone(),
            Err(failure) => format!("FAILED: {failure}"),
        };
        println!(
            "{} {} seed {seed}: {said}; {} events, hash {:016x}",
            engine.name(),
            file.display(),
            trace.events,
            trace.hash
        );
        if let Some(path) = show.save {
            let told = outcome
                .as_ref()
                .err()
                .map_or_else(String::new, Failure::to_string);
            write(
                path,
                &scenario.with_replay(&plan, engine.name(), &told).write()?,
            )?;
        }
        if let Some(path) = show.timeline {
            let page = timeline::page(&scenario, &plan, &said, &trace.lines);
            write(path, &page)?;
        }
        if let Err(failure) = outcome {
            println!(
                "reproduce with: {}",
                reproduction(&job_of(file, engine, &plan))
            );
            first.get_or_insert(failure);
        }
    }
    Ok(first)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn job_of(file: &Path, engine: EngineName, plan: &Plan) -> Job {
    Job {
        file: file.display().to_string(),
        engine: engine.name().to_owned(),
        seed: plan.seed,
        mistake: plan.mistake.map(|mistake| mutant::name(mistake).to_owned()),
        twice: false,
    }
}

/// The one line that repeats a run.
fn reproduction(job: &Job) -> String {
    let mistake = job
        .mistake
        .as_ref()
        .map_or_else(String::new, |name| format!(" --mistake {name}"));
    format!(
        "orchestrator-sim run {} --seed {} --engine {}{mistake} --story",
        job.file, job.seed, job.engine
    )
}

fn jobs(
    arguments: &Arguments,
    files: &[PathBuf],
    seeds: &Seeds,
    twice: bool,
) -> Result<Vec<Job>, String> {
    let mistake = arguments
        .mistake
        .as_deref()
        .map(mutant::named)
        .transpose()?;
    let mut scenarios = Vec::new();
    for file in files {
        scenarios.push((file, Scenario::read(file)?));
    }
    let mut jobs = Vec::new();
    for seed in seeds.0.clone() {
        for (file, scenario) in &scenarios {
            for engine in engines(arguments, scenario) {
                let of_replay = scenario.replay.as_ref().map(|replay| replay.seed);
                if of_replay.is_some() && seed != seeds.0.start {
                    continue;
                }
                let plan = scenario.plan(of_replay.unwrap_or(seed), mistake)?;
                jobs.push(Job {
                    twice,
                    ..job_of(file, engine, &plan)
                });
            }
        }
    }
    Ok(jobs)
}

fn run_job(job: &Job) -> Answer {
    let answer = || -> Result<Answer, String> {
        let scenario = Arc::new(Scenario::read(Path::new(&job.file))?);
        let mistake = job.mistake.as_deref().map(mutant::named).transpose()?;
        let plan = scenario.plan(job.seed, mistake)?;
        let engine = EngineName::named(&job.engine);
        let (outcome, trace) = run_on(engine, &scenario, &plan, job.twice);
        Ok(Answer {
            outcome,
            hash: trace.hash,
            events: trace.events,
            simulated_ms: u64::try_from(trace.ended_at.as_millis()).unwrap_or(u64::MAX),
            processor_ms: 0,
        })
    };
    answer().unwrap_or_else(|wrong| Answer {
        outcome: Err(Failure::Crash(wrong)),
        hash: 0,
        events: 0,
        simulated_ms: 0,
        processor_ms: 0,
    })
}

fn sweep_jobs(
    jobs: Vec<Job>,
    processes: usize,
    failures: Option<&Path>,
) -> Result<Option<Failure>, String> {
    let all = jobs.len();
    let (mut first, mut failed) = (None, 0_usize);
    let (mut simulated_ms, mut processor_ms) = (0, 0);
    let (mut done, mut wrong) = (0_usize, None);
    let clock = Clock::start();
    sweep::sweep(jobs, processes, |job, answer| {
        done += 1;
        simulated_ms += answer.simulated_ms;
        processor_ms += answer.processor_ms;
        match answer.outcome {
            Ok(summary) => println!(
                "{done}/{all} {} {} seed {}: {summary}",
                job.engine, job.file, job.seed
            ),
            Err(failure) => {
                failed += 1;
                println!(
                    "{done}/{all} {} {} seed {}: FAILED: {failure}\n  reproduce with: {}",
                    job.engine,
                    job.file,
                    job.seed,
                    reproduction(job)
                );
                if let Some(folder) = failures {
                    wrong = wrong.take().or(save_failure(folder, job, &failure).err());
                }
                first.get_or_insert(failure);
            }
        }
        true
    })
    .map_err(|error| error.to_string())?;
    let worked = processor_ms.max(1) as f64 / 1_000.0;
    println!(
        "{all} runs, {failed} failed, in {:.1} s; a core makes {:.0} runs a minute, {:.0} simulated seconds a second ({})",
        clock.elapsed().as_secs_f64(),
        all as f64 * 60.0 / worked,
        simulated_ms as f64 / 1_000.0 / worked,
        build()
    );
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok(first),
    }
}

/// How this program was built.
const fn build() -> &'static str {
    if cfg!(debug_assertions) {
        "built with debug assertions"
    } else {
        "built without debug assertions"
    }
}

fn save_failure(folder: &Path, job: &Job, failure: &Failure) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let scenario = Scenario::read(Path::new(&job.file))?;
    let mistake = job.mistake.as_deref().map(mutant::named).transpose()?;
    let plan = scenario.plan(job.seed, mistake)?;
    let name = Path::new(&job.file)
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let path = folder.join(format!("{name}-{}-{}.toml", job.engine, job.seed));
    let replay = scenario.with_replay(&plan, &job.engine, &failure.to_string());
    write(&path, &replay.write()?)
}

/// Each job here, keeping its lines, and again in worker processes, without: of this program or of another build.
fn twice(jobs: Vec<Job>, with: Option<&Path>) -> Result<Option<Failure>, String> {
    let mut first = None;
    let mut count = 0;
    let mut other_process = Worker::start(with).map_err(|error| error.to_string())?;
    for job in jobs {
        count += 1;
        let own = run_job(&job);
        let other = other_process
            .run(&Job {
                twice: false,
                ..job.clone()
            })
            .map_err(|error| error.to_string())?;
        let failure = if (own.hash, own.events, &own.outcome)
            == (other.hash, other.events, &other.outcome)
        {
            own.outcome.clone().err()
        } else {
            Some(Failure::NonDeterminism(format!(
                "{} events, hash {:016x}, {:?} here; {} events, hash {:016x}, {:?} in the other process",
                own.events, own.hash, own.outcome, other.events, other.hash, other.outcome
            )))
        };
        match failure {
            None => println!(
                "{} {} seed {}: {} events, hash {:016x}, twice",
                job.engine, job.file, job.seed, own.events, own.hash
            ),
            Some(failure) => {
                println!(
                    "{} {} seed {}: FAILED: {failure}\n  reproduce with: {}",
                    job.engine,
                    job.file,
                    job.seed,
                    reproduction(&job)
                );
                first.get_or_insert(failure);
            }
        }
    }
    other_process.end();
    println!("{count} runs twice");
    Ok(first)
}

/// All TOML files in a folder and below it, or the file itself.
fn files_below(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let bad = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(bad)? {
        let entry = entry.map_err(bad)?.path();
        if entry.is_dir()
            || entry
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            files_below(&entry, files)?;
        }
    }
    files.sort();
    Ok(())
}

fn regressions(arguments: &Arguments, folders: &[PathBuf]) -> Result<Option<Failure>, String> {
    let mut files = Vec::new();
    for folder in folders {
        files_below(folder, &mut files)?;
    }
    let mut wanted = std::collections::BTreeMap::new();
    for file in &files {
        let scenario = Scenario::read(file)?;
        let Some(replay) = scenario.replay else {
            return Err(format!("{} is no replay file", file.display()));
        };
        wanted.insert(file.display().to_string(), replay.outcome);
    }
    let jobs = jobs(arguments, &files, &Seeds(0..1), false)?;
    let mut first = None;
    sweep::sweep(jobs, cores(), |job, answer| {
        let wanted = wanted.get(&job.file).map_or("", String::as_str);
        let came = match answer.outcome {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        };
        if class(&came) == class(wanted) {
            println!("{}: as it is to be: {}", job.file, class(wanted));
        } else {
            let differs = format!("{}: wanted '{wanted}', came to '{came}'", job.file);
            println!("FAILED: {differs}\n  reproduce with: {}", reproduction(job));
            first.get_or_insert(Failure::Safety(differs));
        }
        true
    })
    .map_err(|error| error.to_string())?;
    println!("{} replay files", files.len());
    Ok(first)
}

fn shrink_file(file: &Path, into: &Path) -> Result<Option<Failure>, String> {
    let scenario = Arc::new(Scenario::read(file)?);
    let Some(replay) = scenario.replay.clone() else {
        return Err(format!(
            "{} is no replay file; write one with: orchestrator-sim run {} --seed N --save FILE",
            file.display(),
            file.display()
        ));
    };
    let engine = EngineName::named(&replay.engine);
    let plan = scenario.plan(replay.seed, None)?;
    let run = |plan: &Plan| run_on(engine, &scenario, plan, false).0.err();
    let Some(shrunk) = shrink::shrink(&plan, run, |text| println!("{text}")) else {
        return Err("this does not fail".to_owned());
    };
    let replay = scenario.with_replay(&shrunk.plan, engine.name(), &shrunk.failure.to_string());
    write(into, &replay.write()?)?;
    println!(
        "{} of {} lines are left, in {}: {}",
        shrunk.plan.lines.len(),
        plan.lines.len(),
        into.display(),
        shrunk.failure
    );
    println!(
        "reproduce with: orchestrator-sim replay {} --story",
        into.display()
    );
    Ok(None)
}

/// Looks for seeds that find each mistake.
fn mutants(
    arguments: &Arguments,
    seeds: u64,
    only: Option<&str>,
    save: Option<&Path>,
) -> Result<Option<Failure>, String> {
    let mut missed = None;
    for found_by in mutant::ALL {
        let name = mutant::name(found_by.mistake);
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let file = arguments.scenarios.join(found_by.scenario);
        let scenario = Scenario::read(&file)?;
        let engine = arguments.engine.unwrap_or(EngineName::Madsim);
        let jobs = (0..seeds).map(|seed| Job {
            file: file.display().to_string(),
            engine: engine.name().to_owned(),
            seed,
            mistake: Some(name.to_owned()),
            twice: false,
        });
        let mut caught = None;
        let mut tried = 0_u64;
        sweep::sweep(jobs.collect(), cores(), |job, answer| {
            tried += 1;
            if let Err(failure) = answer.outcome {
                let text = failure.to_string();
                if found_by.is_found_in(&text) {
                    caught.get_or_insert((job.seed, failure));
                } else {
                    println!("{name} seed {}: something else: {text}", job.seed);
                }
            }
            caught.is_none()
        })
        .map_err(|error| error.to_string())?;
        match caught {
            Some((seed, failure)) => {
                println!("{name}: caught by seed {seed}, {tried} runs: {failure}");
                if let Some(folder) = save {
                    let plan = scenario.plan(seed, Some(found_by.mistake))?;
                    let replay = scenario.with_replay(&plan, engine.name(), &failure.to_string());
                    write(&folder.join(format!("{name}.toml")), &replay.write()?)?;
                }
            }
            None => {
                println!("{name}: NOT caught in {tried} runs of {}", file.display());
                missed.get_or_insert(Failure::Safety(format!("{name} is not found")));
            }
        }
    }
    Ok(missed)
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
