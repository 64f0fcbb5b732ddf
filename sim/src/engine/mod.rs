//! The two engines behind one face: machines with an address and a program that starts at each boot, a scenario that
//! runs among them, and what a scenario may do to them.
//!
//! What holds: a run is alone in its process and has a thread of its own (std's hash maps, SQLite's generator, disks,
//! names and traces are the thread's or the process's), so that nothing of an earlier run is left in it.

#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::panic;
use std::pin::Pin;
use std::sync::{Mutex, Once};
use std::time::Duration;

use orchestrator::env::sleep;
use orchestrator::trace;

use crate::model::host::World;
use crate::{disk, network, witness};

mod local_time;
pub mod madsim;
pub mod place;
mod stream;
pub mod turmoil;

pub use self::madsim::MadsimEnv;
pub use self::turmoil::TurmoilEnv;
pub use stream::TracedStream;

/// What the clocks of machines show when a run begins: 2026-01-01T00:00:00Z.
pub const WALL_AT_START: Duration = Duration::from_secs(1_767_225_600);

/// A program: it runs until it ends or its machine's process is killed.
pub type Program = Pin<Box<dyn Future<Output = ()>>>;

/// A machine of a world.
pub struct Machine {
    pub name: String,
    pub address: IpAddr,
    /// Makes the program of each boot, counted from 1.
    pub boot: Box<dyn Fn(u64) -> Program + Send + Sync>,
}

impl Machine {
    pub fn new<F>(
        name: impl Into<String>,
        address: IpAddr,
        boot: impl Fn(u64) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self {
            name: name.into(),
            address,
            boot: Box::new(move |count| Box::pin(boot(count))),
        }
    }
}

/// An environment that can be simulated.
pub trait Engine: World {
    const NAME: &'static str;

    /// Runs the machines and the scenario until the scenario ends, for at most `limit` of simulated time; none then. The
    /// scenario runs on a machine of its own, `scenario`.
    fn run<T: Send + 'static>(
        seed: u64,
        limit: Duration,
        machines: Vec<Machine>,
        scenario: impl Future<Output = T> + 'static,
    ) -> Option<T>;

    /// The program of a machine is gone, with all its tasks. Takes effect within 2 ms.
    fn end_process(machine: &str);
    /// Starts a machine's program again. Takes effect within 2 ms.
    fn begin_process(machine: &str);

    /// `kill -9` of the machine's program: the machine stays up, its peers see their connections end, dials are refused.
    fn kill(machine: &str) {
        network::process_killed(machine);
        disk::kill(machine);
        Self::end_process(machine);
    }

    /// The machine loses power: its program is gone, unsynced writes are lost, its peers hear nothing of it.
    fn power_cut(machine: &str) {
        network::power_lost(machine);
        disk::power_cut(machine);
        Self::end_process(machine);
    }

    /// Starts the machine after a power cut, or its program after a kill.
    fn boot(machine: &str) {
        // A paused process was killed without running again.
        place::resume(network::address(machine));
        network::powered(machine);
        network::process_begins(machine, Self::elapsed());
        Self::begin_process(machine);
    }

    /// What `from` sends no longer reaches `to`, until healed; dials between the two get no answer.
    fn cut(from: &str, to: &str) {
        network::cut(from, to);
    }

    fn heal(from: &str, to: &str) {
        network::heal(from, to);
    }
}

/// SIGSTOP: the program does nothing, its connections stay.
pub fn pause(machine: &str) {
    place::pause(network::address(machine));
}

/// SIGCONT.
pub fn resume(machine: &str) {
    place::resume(network::address(machine));
}

/// A dial into nothing is tried again after so long, as SYN segments are.
const DIAL_RETRY: Duration = Duration::from_secs(1);

/// Waits until somebody is there to answer or to refuse a dial, and for as long as the link delays it.
///
/// # Errors
/// The machine is up and its process is not.
async fn until_answered<E: Engine>(from: IpAddr, to: IpAddr) -> io::Result<()> {
    while !network::is_machine(to) || network::is_silent(from, to) {
        sleep::<E>(DIAL_RETRY).await;
    }
    let delay = network::draw_delay(from, to) + network::draw_delay(to, from);
    if !delay.is_zero() {
        sleep::<E>(delay).await;
    }
    if network::refuses(to) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    /// The first panic of this thread's run, wherever a task hid it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How a run on a thread of its own ended: with its value, or with the first panic.
pub type Ended<T> = Result<T, String>;

/// Runs one seed on a fresh thread, while no other runs.
pub fn on_fresh_thread<T: Send + 'static>(
    seed: u64,
    run: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    note_panics();
    let _alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
    let thread = std::thread::Builder::new()
        .name(format!("seed-{seed}"))
        .stack_size(16 << 20)
        .spawn(move || {
            disk::reset(seed);
            network::reset(seed);
            place::reset();
            let value = panic::catch_unwind(panic::AssertUnwindSafe(run));
            match (PANIC.take(), value) {
                (None, Ok(value)) => Ok(value),
                (Some(panic), _) => Err(panic),
                (None, Err(_)) => Err("a panic without a message".to_owned()),
            }
        })
        .expect("the operating system gives a thread");
    match thread.join() {
        Ok(ended) => ended,
        Err(_) => Err("the thread's own data panicked as it went".to_owned()),
    }
}

/// Remembers a thread's first panic: an engine may hide it in a task whose end nobody awaits.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_seed = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("seed-"));
            if is_seed {
                let _ = PANIC.try_with(|first| {
                    first.borrow_mut().get_or_insert_with(|| info.to_string());
                });
            }
            earlier(info);
        }));
    });
}

/// Runs a world on its own thread and gives what it came to, with its trace.
pub fn run_traced<E: Engine, T: Send + 'static>(
    seed: u64,
    limit: Duration,
    keep_lines: bool,
    world: impl FnOnce() -> (Vec<Machine>, Pin<Box<dyn Future<Output = T>>>) + Send + 'static,
) -> (Ended<Option<T>>, trace::Trace) {
    let ended = on_fresh_thread(seed, move || {
        let sources = trace::Sources {
            clock: E::elapsed,
            place: |line| network::write_name(place::here(), line),
            listener: witness::heard,
        };
        trace::start(sources, keep_lines);
        let ran = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let (machines, scenario) = world();
            E::run(seed, limit, machines, scenario)
        }));
        let trace = trace::stop().expect("started above");
        let panic = PANIC.take();
        let ended = match (panic, ran) {
            (None, Ok(value)) => Ok(value),
            (Some(panic), _) => Err(panic),
            (None, Err(_)) => Err("a panic without a message".to_owned()),
        };
        (ended, trace)
    });
    match ended {
        Ok(ended) => ended,
        Err(panic) => (
            Err(panic),
            trace::Trace {
                hash: 0,
                events: 0,
                ended_at: Duration::ZERO,
                lines: Vec::new(),
            },
        ),
    }
}

/// For tests of parts that need no engine.
#[cfg(test)]
pub(crate) fn alone(seed: u64, test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = on_fresh_thread(seed, test) {
        panic!("{panic}");
    }
}

#[cfg(test)]
mod tests;
