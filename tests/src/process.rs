//! Child processes that never outlive the process that started them.
//!
//! Holds between calls: a [`Process`] is the only one that signals its pid, and the pid is not
//! reaped while it may still be signalled, so no signal can reach a stranger that was given the
//! same number.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A signal that the tests send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    Kill,
    Terminate,
    Interrupt,
    Hangup,
    Stop,
    Continue,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Hangup => libc::SIGHUP,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        }
    }
}

/// A child process; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a session of its own, with no input and its output appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Process> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        let errors: File = output.try_clone()?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let program = command.get_program().to_owned();
        let child = spawn(command).with_context(|| format!("cannot start {program:?}"))?;
        Ok(Process { child, ended: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, and tells when. A process that has ended is left alone.
    pub fn signal(&mut self, signal: Signal) -> Instant {
        if self.is_running()
            && let Ok(pid) = libc::pid_t::try_from(self.child.id())
        {
            let at = Instant::now();
            // SAFETY: plain system call; the pid is a child that was not reaped.
            unsafe { libc::kill(pid, signal.number()) };
            return at;
        }
        Instant::now()
    }

    /// Whether it still runs (a stopped one does).
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// How it ended, if it did.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.is_running();
        self.ended
    }

    /// Waits for the end up to `deadline`; `None` when it still runs.
    pub async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while self.is_running() && began.elapsed() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as this process: the parent-death signal is
/// sent when the *thread* that forked ends, and worker threads come and go.
fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let parent = std::process::id();
    // SAFETY: only async-signal-safe system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = orders.recv() {
                answer.send(command.spawn()).ok();
            }
        });
        Mutex::new(sender)
    });
    let (answer, answered) = channel();
    let gone = || io::Error::other("the thread that starts children ended");
    spawner
        .lock()
        .map_err(|_| gone())?
        .send((command, answer))
        .map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

const SCRATCH_PREFIX: &str = "orchestrator-tests-";

/// A temporary folder, removed on drop unless it is kept: then only the servers' data goes. Folders
/// that killed runs left behind are removed by a later one.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    pub fn create(name: &str) -> Result<Scratch> {
        let base = std::env::temp_dir();
        remove_leftovers(&base);
        let pid = std::process::id();
        for number in 0..u32::MAX {
            let path = base.join(format!("{SCRATCH_PREFIX}{pid}-{name}-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path, keep: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        anyhow::bail!("no free name in {}", base.display())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder behind for a person to read.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            for entry in std::fs::read_dir(&self.path)
                .into_iter()
                .flatten()
                .flatten()
            {
                std::fs::remove_dir_all(entry.path().join("data")).ok();
            }
            eprintln!("logs are kept in {}", self.path.display());
        } else {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Removes scratch folders whose process is gone, a day after their last change: until then they may
/// hold the logs of a failed run.
fn remove_leftovers(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.strip_prefix(SCRATCH_PREFIX))
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age > Duration::from_secs(86_400));
        if old && pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}
