//! Many runs on all cores: worker processes of this same program, each fed with one job a line and answering with one
//! line a job. A run that takes its process down with it is a crash of that run and of nothing else.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::outcome::Failure;

/// So many runs has a process before another takes its place: what the engines leave behind of a world stays bounded.
const RUNS_A_PROCESS_MAX: usize = 100;
/// The program that runs as this process, also when its file was replaced or removed since it began.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The scenario's file.
    pub file: String,
    pub engine: String,
    pub seed: u64,
    pub mistake: Option<String>,
    /// The file that the lines of the trace are written to; none: they are not kept.
    pub trace: Option<String>,
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

impl Answer {
    /// Of a run that came to nothing that could be looked at.
    #[must_use]
    pub const fn crash(why: String) -> Self {
        Self {
            outcome: Err(Failure::Crash(why)),
            hash: 0,
            events: 0,
            simulated_ms: 0,
            processor_ms: 0,
        }
    }
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

/// What the daemons of a worker's runs log. Nobody reads it: whether it is written must make no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    Off,
    Everything,
}

/// A worker process; it ends with this.
struct Worker {
    child: Child,
    /// None: it is told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(program: &Path, logs: Logs) -> io::Result<Self> {
        let mut command = Command::new(program);
        match logs {
            Logs::Off => command.env_remove("RUST_LOG"),
            Logs::Everything => command.env("RUST_LOG", "trace"),
        };
        let mut child = command
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What panics say is in the answer.
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
        let (input, Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a worker without pipes"));
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn run(&mut self, job: &Job) -> io::Result<Answer> {
        let line = serde_json::to_string(job).map_err(io::Error::other)?;
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")?;
        input.flush()?;
        let mut answer = String::new();
        if self.output.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&answer).map_err(io::Error::other)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// A process that makes runs, and another one in its place when it ended or has made its share.
pub struct Hand<'a> {
    program: &'a Path,
    logs: Logs,
    worker: Option<Worker>,
    runs: usize,
}

impl<'a> Hand<'a> {
    /// Of [`OWN_PROGRAM`], or of another build of it.
    #[must_use]
    pub const fn new(program: &'a Path, logs: Logs) -> Self {
        Self {
            program,
            logs,
            worker: None,
            runs: 0,
        }
    }

    /// Makes a run. A process that ends with it is a crash of the run.
    ///
    /// # Errors
    /// No process can be started.
    pub fn run(&mut self, job: &Job) -> io::Result<Answer> {
        if self.runs == RUNS_A_PROCESS_MAX {
            self.worker = None;
            self.runs = 0;
        }
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => none.insert(Worker::start(self.program, self.logs)?),
        };
        self.runs += 1;
        Ok(worker.run(job).unwrap_or_else(|error| {
            self.worker = None;
            self.runs = 0;
            Answer::crash(format!("the process of the run ended: {error}"))
        }))
    }
}

/// Runs all jobs on so many processes of a program at once; each end is told as it comes. `tell` says whether to go on.
/// Jobs are begun in their order, and what has begun is told.
///
/// # Errors
/// No process can be started, or a job was not run although nobody said to stop.
pub fn sweep(
    jobs: Vec<Job>,
    program: &Path,
    processes: usize,
    tell: impl FnMut(&Job, Answer) -> bool,
) -> io::Result<()> {
    let hand = || Hand::new(program, Logs::Off);
    spread(jobs, processes, hand, Hand::run, tell)
}

/// The same, of whatever makes the runs.
///
/// # Errors
/// A run could not be made, or was not although nobody said to stop.
pub fn spread<H, T: Send>(
    jobs: Vec<Job>,
    hands: usize,
    hand: impl Fn() -> H + Sync,
    run: impl Fn(&mut H, &Job) -> io::Result<T> + Sync,
    mut tell: impl FnMut(&Job, T) -> bool,
) -> io::Result<()> {
    let all = jobs.len();
    let jobs = Mutex::new(jobs.into_iter());
    let stopped = AtomicBool::new(false);
    let mut told = 0;
    let (ends, ended) = mpsc::channel();
    let work = |ends: mpsc::Sender<(Job, T)>| -> io::Result<()> {
        let mut hand = hand();
        while !stopped.load(Ordering::Relaxed) {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(job) = next else { break };
            let came = run(&mut hand, &job)?;
            // The receiver lives as long as the scope.
            let _ = ends.send((job, came));
        }
        Ok(())
    };
    let worked = thread::scope(|scope| {
        let threads: Vec<_> = (0..hands.max(1))
            .map(|_| {
                let (work, ends) = (&work, ends.clone());
                scope.spawn(move || work(ends))
            })
            .collect();
        drop(ends);
        for (job, came) in ended {
            told += 1;
            if !tell(&job, came) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
        let ends = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a thread of the sweep panicked")))
        });
        // All are waited for, also behind one that failed.
        ends.fold(Ok(()), io::Result::and)
    });
    let unfinished = |why: &str| io::Error::other(format!("{told} of {all} runs were made: {why}"));
    worked.map_err(|error| unfinished(&error.to_string()))?;
    if told != all && !stopped.load(Ordering::Relaxed) {
        return Err(unfinished("the others were lost"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A program that answers every job at once.
    fn program(name: &str, begins_with: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let answer = serde_json::to_string(&Answer {
            outcome: Ok(String::new()),
            ..Answer::crash(String::new())
        });
        let text = format!(
            "#!/bin/sh\n{begins_with}\nwhile read -r job; do echo '{}'; done\n",
            answer.unwrap()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn jobs(count: usize) -> Vec<Job> {
        let job = |seed| Job {
            file: String::new(),
            engine: String::new(),
            seed,
            mistake: None,
            trace: None,
        };
        (0..count as u64).map(job).collect()
    }

    /// How many runs were told, and what went wrong.
    fn swept(program: &Path, count: usize) -> (usize, Option<String>) {
        let mut told = 0;
        let swept = sweep(jobs(count), program, 1, |_, answer| {
            assert!(answer.outcome.is_ok());
            told += 1;
            true
        });
        (told, swept.err().map(|error| error.to_string()))
    }

    /// One test: a script cannot be started while another test's child holds it open for writing.
    #[test]
    fn all_runs_are_made_or_it_is_an_error() {
        let whole = program("sweep-whole", ":");
        let count = RUNS_A_PROCESS_MAX * 2 + 1;
        assert_eq!(swept(&whole, count), (count, None));
        std::fs::remove_file(whole).unwrap();

        let vanishes = program("sweep-vanishes", "rm \"$0\"");
        let (told, wrong) = swept(&vanishes, RUNS_A_PROCESS_MAX + 30);
        assert_eq!(told, RUNS_A_PROCESS_MAX);
        let wrong = wrong.unwrap();
        assert!(wrong.starts_with("100 of 130 runs were made: "), "{wrong}");
        assert!(wrong.contains("No such file"), "{wrong}");
    }
}
