//! `orchestrator-sim`: plays scenarios in simulated worlds, once, twice, many times, or again from a replay file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use orchestrator::env::Mutant;
use orchestrator::trace::Trace;
use orchestrator_sim::engine::{MadsimEnv, TurmoilEnv};
use orchestrator_sim::outcome::{self, Failure, Seeds, class};
use orchestrator_sim::scenario::{self, Plan, Scenario, Summary};
use orchestrator_sim::sweep::{self, Answer, Job, OWN_PROGRAM};
use orchestrator_sim::twice::{self, Compared, Pair};
use orchestrator_sim::{mutant, shrink, timeline};

macro_rules! say {
    ($($said:tt)*) => {
        outcome::say(format_args!($($said)*))
    };
}

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

    fn named(name: &str) -> Result<Self, String> {
        Self::from_str(name, false).map_err(|_| format!("'{name}' is no engine"))
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
    /// Plays each seed twice, the second time in another process that writes all logs, and compares the traces.
    Twice {
        seeds: Seeds,
        files: Vec<PathBuf>,
        /// Another build of this program to compare with, such as one without debug assertions.
        #[arg(long)]
        with: Option<PathBuf>,
        /// Where traces that differ are written.
        #[arg(long, default_value = "target/traces")]
        traces: PathBuf,
    },
    /// Plays replay files again, all below the folders that are named: each must come to what is written in it. Those of
    /// faults that were mended come to nothing, those of mistakes put back on purpose to what finds them; and the former to
    /// the situation in which the fault was, as 'reaches' names it.
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
    /// Looks for the first seed that finds each mistake, in scenarios that are made for it; at most so many seeds each. One
    /// that is found later than it should be is a failure, too.
    Mutants {
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
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
            let jobs = jobs(arguments, &files, seeds)?;
            let processes = processes.unwrap_or_else(cores);
            sweep_jobs(jobs, processes, failures.as_deref())
        }
        Verb::Twice {
            seeds,
            files,
            with,
            traces,
        } => {
            let files = files_or_all(arguments, files)?;
            let jobs = jobs(arguments, &files, seeds)?;
            twice(jobs, with.as_deref(), traces)
        }
        Verb::Regressions { folders } => regressions(arguments, folders),
        Verb::Shrink { file, into } => {
            shrink_file(arguments, file, into.as_deref().unwrap_or(file))
        }
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
    if files.is_empty() {
        return Err(format!("{} holds no scenario", folder.display()));
    }
    files.sort();
    Ok(files)
}

/// The engines that a file is to be played on: those that it names, or the one of them that was asked for.
fn engines(
    arguments: &Arguments,
    file: &Path,
    scenario: &Scenario,
) -> Result<Vec<EngineName>, String> {
    if let Some(replay) = &scenario.replay {
        let engine = EngineName::named(&replay.engine)?;
        if arguments.engine.is_some_and(|asked| asked != engine) {
            return Err(format!(
                "{} was recorded on {}, and cannot be replayed on the other engine",
                file.display(),
                engine.name()
            ));
        }
        return Ok(vec![engine]);
    }
    let mut engines = Vec::new();
    for name in &scenario.engines {
        let engine = EngineName::named(name)?;
        if arguments.engine.is_none_or(|asked| asked == engine) {
            engines.push(engine);
        }
    }
    Ok(engines)
}

fn mistake(arguments: &Arguments) -> Result<Option<Mutant>, String> {
    arguments.mistake.as_deref().map(mutant::named).transpose()
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

/// Plays a plan as its file means it: one that a replay file is kept for has to come to what makes it so.
fn run_whole(
    engine: EngineName,
    scenario: &Arc<Scenario>,
    plan: &Plan,
    keep_lines: bool,
) -> (Result<Summary, Failure>, Trace) {
    let replay = scenario.replay.as_ref();
    let replay = replay.filter(|replay| replay.seed == plan.seed && !replay.reaches.is_empty());
    let (outcome, trace) = run_on(engine, scenario, plan, keep_lines || replay.is_some());
    let outcome = outcome.and_then(|summary| {
        let reached = replay.map_or(Ok(()), |replay| replay.reached(&trace.lines));
        reached.map(|()| summary).map_err(Failure::Liveness)
    });
    (outcome, trace)
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
    let plan = scenario.plan(seed, mistake(arguments)?)?;
    let (mut first, mut wrong) = (None, None);
    let engines = engines(arguments, file, &scenario)?;
    if engines.is_empty() {
        return Err(nothing_to_run(arguments));
    }
    for engine in engines {
        let keep_lines = show.story || show.trace || show.timeline.is_some();
        let (outcome, trace) = run_whole(engine, &scenario, &plan, keep_lines);
        for line in &trace.lines {
            if show.trace || (show.story && timeline::is_told(line)) {
                say!("{line}");
            }
        }
        let said = match &outcome {
            Ok(summary) => summary.clone(),
            Err(failure) => format!("FAILED: {failure}"),
        };
        say!(
            "{} {} seed {seed}: {said}; {} events, hash {:016x}",
            engine.name(),
            file.display(),
            trace.events,
            trace.hash
        );
        if let Some(path) = show.save {
            let replay = scenario.with_replay(&plan, engine.name(), outcome.as_ref().err());
            wrong = wrong.or(write(path, &replay.write()?).err());
        }
        if let Some(path) = show.timeline {
            let page = timeline::page(&scenario, &plan, &said, &trace.lines);
            wrong = wrong.or(write(path, &page).err());
        }
        if let Err(failure) = outcome {
            say!("{}", reproduction(&job_of(file, engine, &plan)));
            first.get_or_insert(failure);
        }
    }
    ended(first, wrong)
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
        trace: None,
    }
}

/// The one line that repeats a run, with the build that failed: another one has other assertions, or none.
fn reproduction(job: &Job) -> String {
    let Job {
        file, engine, seed, ..
    } = job;
    let mistake = with_mistake(job);
    reproduced_by(&format!(
        "run {file} --seed {seed} --engine {engine}{mistake} --story"
    ))
}

fn with_mistake(job: &Job) -> String {
    let name = job.mistake.as_ref();
    name.map_or_else(String::new, |name| format!(" --mistake {name}"))
}

fn reproduced_by(arguments: &str) -> String {
    let program = std::env::args().next();
    format!(
        "  reproduce with: {} {arguments}  # {}",
        program.as_deref().unwrap_or("orchestrator-sim"),
        build()
    )
}

fn nothing_to_run(arguments: &Arguments) -> String {
    match arguments.engine {
        Some(engine) => format!("nothing to run: no file is for {}", engine.name()),
        None => "nothing to run".to_owned(),
    }
}

fn jobs(arguments: &Arguments, files: &[PathBuf], seeds: &Seeds) -> Result<Vec<Job>, String> {
    let mistake = mistake(arguments)?;
    let mut scenarios = Vec::new();
    for file in files {
        scenarios.push((file, Scenario::read(file)?));
    }
    let mut jobs = Vec::new();
    for seed in seeds.0.clone() {
        for (file, scenario) in &scenarios {
            for engine in engines(arguments, file, scenario)? {
                let of_replay = scenario.replay.as_ref().map(|replay| replay.seed);
                if of_replay.is_some() && seed != seeds.0.start {
                    continue;
                }
                let plan = scenario.plan(of_replay.unwrap_or(seed), mistake)?;
                jobs.push(job_of(file, engine, &plan));
            }
        }
    }
    if jobs.is_empty() {
        return Err(nothing_to_run(arguments));
    }
    Ok(jobs)
}

fn run_job(job: &Job) -> Answer {
    let run = || -> Result<Answer, String> {
        let scenario = Arc::new(Scenario::read(Path::new(&job.file))?);
        let mistake = job.mistake.as_deref().map(mutant::named).transpose()?;
        let plan = scenario.plan(job.seed, mistake)?;
        let engine = EngineName::named(&job.engine)?;
        let (outcome, trace) = run_whole(engine, &scenario, &plan, job.trace.is_some());
        if let Some(path) = &job.trace {
            twice::write_lines(Path::new(path), &trace.lines).map_err(|error| error.to_string())?;
        }
        Ok(Answer {
            outcome,
            hash: trace.hash,
            events: trace.events,
            simulated_ms: u64::try_from(trace.ended_at.as_millis()).unwrap_or(u64::MAX),
            processor_ms: 0,
        })
    };
    run().unwrap_or_else(Answer::crash)
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
    let swept = sweep::sweep(jobs, Path::new(OWN_PROGRAM), processes, |job, answer| {
        done += 1;
        simulated_ms += answer.simulated_ms;
        processor_ms += answer.processor_ms;
        match answer.outcome {
            Ok(summary) => say!(
                "{done}/{all} {} {} seed {}: {summary}",
                job.engine,
                job.file,
                job.seed
            ),
            Err(failure) => {
                failed += 1;
                say!(
                    "{done}/{all} {} {} seed {}: FAILED: {failure}\n{}",
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
    });
    let worked = processor_ms.max(1) as f64 / 1_000.0;
    say!(
        "{done} of {all} runs, {failed} failed, in {:.1} s; a core makes {:.0} runs a minute, {:.0} simulated seconds a second ({})",
        clock.elapsed().as_secs_f64(),
        done as f64 * 60.0 / worked,
        simulated_ms as f64 / 1_000.0 / worked,
        build()
    );
    ended(first, swept.err().map(|error| error.to_string()).or(wrong))
}

/// What runs came to: a promise that is broken outranks what went wrong beside it, which is said all the same.
fn ended(first: Option<Failure>, wrong: Option<String>) -> Result<Option<Failure>, String> {
    match (first, wrong) {
        (Some(failure), Some(wrong)) => {
            eprintln!("orchestrator-sim: {wrong}");
            Ok(Some(failure))
        }
        (None, Some(wrong)) => Err(wrong),
        (first, None) => Ok(first),
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
    let replay = scenario.with_replay(&plan, &job.engine, Some(failure));
    write(&path, &replay.write()?)
}

/// Each job in two processes, the second of this program or of another build.
fn twice(jobs: Vec<Job>, with: Option<&Path>, traces: &Path) -> Result<Option<Failure>, String> {
    std::fs::create_dir_all(traces).map_err(|error| format!("{}: {error}", traces.display()))?;
    let program = with.unwrap_or_else(|| Path::new(OWN_PROGRAM));
    let with = with.map_or_else(String::new, |path| format!(" --with {}", path.display()));
    let (mut first, mut count) = (None, 0);
    let pair = || Pair::new(program, traces);
    let spread = sweep::spread(jobs, cores(), pair, Pair::compare, |job, compared| {
        count += 1;
        let Job {
            engine, file, seed, ..
        } = job;
        let (failure, again) = match compared {
            Compared::Same(answer) => match answer.outcome {
                Ok(_) => {
                    let (events, hash) = (answer.events, answer.hash);
                    say!("{engine} {file} seed {seed}: {events} events, hash {hash:016x}, twice");
                    return true;
                }
                Err(failure) => (failure, reproduction(job)),
            },
            Compared::Differs(failure) => {
                let mistake = with_mistake(job);
                let again = format!("twice {seed} {file} --engine {engine}{mistake}{with}");
                (failure, reproduced_by(&again))
            }
        };
        say!("{engine} {file} seed {seed}: FAILED: {failure}\n{again}");
        first.get_or_insert(failure);
        true
    });
    say!("{count} runs twice");
    ended(first, spread.err().map(|error| error.to_string()))
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
    if files.is_empty() {
        return Err("there are no replay files".to_owned());
    }
    let mut wanted = std::collections::BTreeMap::new();
    for file in &files {
        let scenario = Scenario::read(file)?;
        let Some(replay) = scenario.replay else {
            return Err(format!("{} is no replay file", file.display()));
        };
        if replay.mistake.is_some() == replay.outcome.is_empty() {
            return Err(format!(
                "{}: 'outcome' is what must come of it: a failure with a mistake, and none without one",
                file.display()
            ));
        }
        wanted.insert(file.display().to_string(), replay.outcome);
    }
    let jobs = jobs(arguments, &files, &Seeds(0..1))?;
    let mut first = None;
    let swept = sweep::sweep(jobs, Path::new(OWN_PROGRAM), cores(), |job, answer| {
        let wanted = wanted.get(&job.file).map_or("", String::as_str);
        let came = match answer.outcome {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        };
        if class(&came) == class(wanted) {
            say!("{}: as it is to be: {}", job.file, class(wanted));
        } else {
            let differs = format!("{}: wanted '{wanted}', came to '{came}'", job.file);
            say!("FAILED: {differs}\n{}", reproduction(job));
            first.get_or_insert(Failure::Safety(differs));
        }
        true
    });
    say!("{} replay files", files.len());
    ended(first, swept.err().map(|error| error.to_string()))
}

fn shrink_file(arguments: &Arguments, file: &Path, into: &Path) -> Result<Option<Failure>, String> {
    let scenario = Arc::new(Scenario::read(file)?);
    let Some(replay) = scenario.replay.clone() else {
        return Err(format!(
            "{} is no replay file; write one with: orchestrator-sim run {} --seed N --save FILE",
            file.display(),
            file.display()
        ));
    };
    let engines = engines(arguments, file, &scenario)?;
    let engine = *engines.first().ok_or_else(|| nothing_to_run(arguments))?;
    let plan = scenario.plan(replay.seed, mistake(arguments)?)?;
    let run = |plan: &Plan| run_on(engine, &scenario, plan, false).0.err();
    let Some(shrunk) = shrink::shrink(&plan, run, |text| say!("{text}")) else {
        return Err("this does not fail".to_owned());
    };
    let replay = scenario.with_replay(&shrunk.plan, engine.name(), Some(&shrunk.failure));
    write(into, &replay.write()?)?;
    say!(
        "{} of {} lines are left, in {}: {}",
        shrunk.plan.lines.len(),
        plan.lines.len(),
        into.display(),
        shrunk.failure
    );
    say!(
        "{}",
        reproduced_by(&format!("replay {} --story", into.display()))
    );
    if replay.replay.is_none_or(|replay| replay.reaches.is_empty()) {
        say!(
            "  in 'reaches' of the file, name what of that story makes it what it is: texts in its lines, in their order. A run \
             that keeps all promises without coming there says so, and is no success"
        );
    }
    Ok(None)
}

/// Looks for the first seed that finds each mistake.
fn mutants(
    arguments: &Arguments,
    seeds: u64,
    only: Option<&str>,
    save: Option<&Path>,
) -> Result<Option<Failure>, String> {
    if arguments.mistake.is_some() {
        return Err("each mistake is put back in its turn; one alone: mutants NAME".to_owned());
    }
    let only = only.map(mutant::named).transpose()?;
    let mut missed = None;
    for found_by in mutant::ALL {
        if only.is_some_and(|only| only != found_by.mistake) {
            continue;
        }
        let name = found_by.name;
        let file = arguments.scenarios.join(found_by.scenario);
        let scenario = Scenario::read(&file)?;
        let engine = arguments.engine.unwrap_or(EngineName::Madsim);
        if !engines(arguments, &file, &scenario)?.contains(&engine) {
            return Err(format!("{} is not for {}", file.display(), engine.name()));
        }
        let jobs = (0..seeds).map(|seed| Job {
            file: file.display().to_string(),
            engine: engine.name().to_owned(),
            seed,
            mistake: Some(name.to_owned()),
            trace: None,
        });
        let mut caught: Option<(u64, Failure)> = None;
        let mut tried = 0_u64;
        let program = Path::new(OWN_PROGRAM);
        sweep::sweep(jobs.collect(), program, cores(), |job, answer| {
            tried += 1;
            if let Err(failure) = answer.outcome {
                let text = failure.to_string();
                if !found_by.is_found_in(&text) {
                    say!("{name} seed {}: something else: {text}", job.seed);
                } else if caught.as_ref().is_none_or(|(first, _)| job.seed < *first) {
                    // The other processes end what they have begun: the first seed is the lowest, not the quickest.
                    caught = Some((job.seed, failure));
                }
            }
            caught.is_none()
        })
        .map_err(|error| error.to_string())?;
        let Some((seed, failure)) = caught else {
            say!("{name}: NOT caught in {tried} runs of {}", file.display());
            missed.get_or_insert(Failure::Safety(format!("{name} is not found")));
            continue;
        };
        say!("{name}: caught by seed {seed}, {tried} runs: {failure}");
        if found_by.is_late(seed) {
            say!(
                "{name}: NOT caught by one of the first {} seeds",
                found_by.within
            );
            missed.get_or_insert(Failure::Safety(format!("{name} is found too late")));
        }
        if let Some(folder) = save {
            let plan = scenario.plan(seed, Some(found_by.mistake))?;
            let replay = scenario.with_replay(&plan, engine.name(), Some(&failure));
            write(&folder.join(format!("{name}.toml")), &replay.write()?)?;
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
