//! Many runs on all cores: worker processes of this same program, each fed with one job a line and answering with one
//! line a job. A run that takes its process down with it is a crash of that run and of nothing else.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::outcome::Failure;

/// So many runs has a process before another takes its place: what the engines leave behind of a world stays bounded.
const RUNS_A_PROCESS_MAX: usize = 100;

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The scenario's file.
    pub file: String,
    pub engine: String,
    pub seed: u64,
    pub mistake: Option<String>,
    pub twice: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub outcome: Result<String, Failure>,
    /// Of the trace.
    pub hash: u64,
    pub events: u64,
    /// How long the world lived, in simulated milliseconds.
    pub simulated_ms: u64,
    /// How long the processor worked for it, in milliseconds.
    pub processor_ms: u64,
}

/// How long the processor has worked for this process, in milliseconds; zero where the system does not tell.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2);
    // A tick of Linux's interface is a hundredth of a second.
    ticks
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}

/// Runs jobs that come line by line until there are no more.
///
/// # Errors
/// Standard input or output fails.
pub fn work(run: impl Fn(&Job) -> Answer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?).map_err(io::Error::other)?;
        let before = processor_ms();
        let mut answer = run(&job);
        answer.processor_ms = processor_ms().saturating_sub(before);
        let answer = serde_json::to_string(&answer).map_err(io::Error::other)?;
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// A worker process.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Of this program, or of another build of it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: Option<&Path>) -> io::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?,
        };
        let mut child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What panics say is in the answer.
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a worker without pipes"));
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// # Errors
    /// The process ended.
    pub fn run(&mut self, job: &Job) -> io::Result<Answer> {
        let line = serde_json::to_string(job).map_err(io::Error::other)?;
        writeln!(self.input, "{line}")?;
        self.input.flush()?;
        let mut answer = String::new();
        if self.output.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&answer).map_err(io::Error::other)
    }

    pub fn end(mut self) {
        drop(self.input);
        let _ = self.child.wait();
    }
}

/// Runs all jobs on so many processes at once; each end is told as it comes. `tell` says whether to go on.
///
/// # Errors
/// No process can be started.
pub fn sweep(
    jobs: Vec<Job>,
    processes: usize,
    mut tell: impl FnMut(&Job, Answer) -> bool,
) -> io::Result<()> {
    let jobs = std::sync::Mutex::new(jobs.into_iter());
    let stopped = std::sync::atomic::AtomicBool::new(false);
    let (ends, ended) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..processes.max(1) {
            let (jobs, stopped, ends) = (&jobs, &stopped, ends.clone());
            scope.spawn(move || -> io::Result<()> {
                let mut worker = Worker::start(None)?;
                let mut runs = 0;
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    let next = jobs
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .next();
                    let Some(job) = next else { break };
                    if runs == RUNS_A_PROCESS_MAX {
                        worker.end();
                        worker = Worker::start(None)?;
                        runs = 0;
                    }
                    runs += 1;
                    let answer = match worker.run(&job) {
                        Ok(answer) => answer,
                        Err(error) => {
                            worker.end();
                            worker = Worker::start(None)?;
                            Answer {
                                outcome: Err(Failure::Crash(format!(
                                    "the process of the run ended: {error}"
                                ))),
                                hash: 0,
                                events: 0,
                                simulated_ms: 0,
                                processor_ms: 0,
                            }
                        }
                    };
                    // The receiver lives as long as this scope.
                    let _ = ends.send((job, answer));
                }
                worker.end();
                Ok(())
            });
        }
        drop(ends);
        for (job, answer) in ended {
            if !tell(&job, answer) {
                stopped.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    Ok(())
}
