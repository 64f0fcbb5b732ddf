//! The turmoil engine: real tokio scheduling and timers on a paused clock of one millisecond, with sockets that close,
//! hold and lose as TCP does.

#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use orchestrator::env::{Env, Mutant};
use rand::Rng as _;
use turmoil::net::{TcpListener, TcpStream};

use super::local_time::{LocalInstant, right_span, right_span_until};
use super::place::{Placed, SCENARIO, here};
use super::{Engine, Machine, TracedStream, WALL_AT_START};
use crate::model::host::World;
use crate::{disk, mutant, network};

/// A step of the world. Each runs every machine, also one that has nothing to do: they are most of what a run costs, and their
/// number is its speed.
const TICK: Duration = Duration::from_millis(2);
/// One way: from, to.
const MESSAGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(3));

type Rt = DeterministicRng<TokioRuntime>;

/// openraft's idea of a runtime, on turmoil: tokio's with a seeded generator, its tasks on their machines.
#[derive(Debug)]
pub struct TurmoilRuntime(Rt);

impl AsyncRuntime for TurmoilRuntime {
    type JoinError = <Rt as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Rt as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Rt as AsyncRuntime>::Sleep;
    type Instant = LocalInstant<TurmoilEnv>;
    type TimeoutError = <Rt as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Rt as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Rt as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Rt as AsyncRuntime>::Mpsc;
    type Watch = <Rt as AsyncRuntime>::Watch;
    type Oneshot = <Rt as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Rt as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Rt::spawn(Placed::new(here(), future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Rt::sleep(right_span(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Rt::sleep(right_span_until(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Rt::timeout(right_span(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Rt::timeout(right_span_until(deadline), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Rt::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Rt::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Rt::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(work())
    }
}

/// The world of turmoil.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TurmoilEnv;

/// What a scenario asked of the simulation: turmoil crashes and boots machines only between its steps.
#[derive(Debug)]
enum Wish {
    End(IpAddr),
    Begin(IpAddr),
}

#[derive(Debug, Default)]
struct Control {
    addresses: BTreeMap<String, IpAddr>,
    wishes: Vec<Wish>,
    /// For asking the time between steps and at the end.
    elapsed: Duration,
}

thread_local! {
    static CONTROL: RefCell<Control> = RefCell::new(Control::default());
}

fn address(name: &str) -> IpAddr {
    CONTROL.with(|control| {
        *control
            .borrow()
            .addresses
            .get(name)
            .unwrap_or_else(|| panic!("the world has no machine {name}"))
    })
}

async fn dial(to: SocketAddr) -> io::Result<TracedStream<TurmoilRuntime, TcpStream>> {
    super::until_answered::<TurmoilEnv>(here(), to.ip()).await?;
    let stream = TcpStream::connect(to).await?;
    let near = stream.local_addr()?;
    Ok(TracedStream::new(stream, near, to))
}

impl Env for TurmoilEnv {
    type Rt = TurmoilRuntime;
    type Listener = TcpListener;
    type Stream = TracedStream<TurmoilRuntime, TcpStream>;
    type DirLock = disk::FolderLock;

    async fn bind(address: &str) -> io::Result<TcpListener> {
        let mut bound = *network::socket_addresses(address)?
            .first()
            .expect("a resolved name has an address");
        // turmoil knows no other addresses to listen on, and a machine has only one.
        if !bound.ip().is_loopback() {
            bound.set_ip(IpAddr::from([0, 0, 0, 0]));
        }
        TcpListener::bind(bound).await
    }

    fn local_address(listener: &TcpListener) -> io::Result<String> {
        Ok(listener.local_addr()?.to_string())
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<(Self::Stream, String)> {
        let (stream, peer) = listener.accept().await?;
        let near = stream.local_addr()?;
        Ok((TracedStream::new(stream, near, peer), peer.to_string()))
    }

    async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
        network::resolve(host)
    }

    async fn connect(address: &str) -> io::Result<Self::Stream> {
        let mut last = None;
        for to in network::socket_addresses(address)? {
            match dial(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a resolved name has an address"))
    }

    fn mono() -> Duration {
        network::mono(here(), turmoil::elapsed(), Self::elapsed())
    }

    fn wall() -> Duration {
        let right = turmoil::since_epoch().unwrap_or(WALL_AT_START);
        network::wall(here(), right, Self::elapsed())
    }

    fn random_seed() -> io::Result<u64> {
        Ok(Self::Rt::thread_rng().next_u64())
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let value = work();
        let latency = disk::take_latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        value
    }

    fn open_db(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
        disk::open_db(path)
    }

    fn read_file(path: &Path) -> io::Result<Vec<u8>> {
        disk::read_file(path)
    }

    fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
        disk::write_new(path, bytes)
    }

    fn rename(from: &Path, to: &Path) -> io::Result<()> {
        disk::rename(from, to)
    }

    fn sync_dir(path: &Path) -> io::Result<()> {
        disk::sync_dir(path)
    }

    fn remove_file(path: &Path) -> io::Result<()> {
        disk::remove_file(path)
    }

    fn create_dir_all(path: &Path) -> io::Result<()> {
        disk::create_dir_all(path)
    }

    fn exists(path: &Path) -> io::Result<bool> {
        disk::exists(path)
    }

    fn list_dir(path: &Path) -> io::Result<Vec<String>> {
        disk::list_dir(path)
    }

    fn lock_dir(path: &Path) -> io::Result<disk::FolderLock> {
        disk::lock_dir(path)
    }

    fn has(mistake: Mutant) -> bool {
        mutant::is_on(mistake)
    }
}

impl World for TurmoilEnv {
    fn elapsed() -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| CONTROL.with(|control| control.borrow().elapsed))
    }
}

impl Engine for TurmoilEnv {
    const NAME: &'static str = "turmoil";

    fn run<T: Send + 'static>(
        seed: u64,
        limit: Duration,
        machines: Vec<Machine>,
        scenario: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        CONTROL.set(Control::default());
        let mut simulation = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + WALL_AT_START)
            .simulation_duration(limit + Duration::from_secs(1))
            .tick_duration(TICK)
            .min_message_latency(MESSAGE.0)
            .max_message_latency(MESSAGE.1)
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let mut addresses = Vec::new();
        for (index, machine) in machines.into_iter().enumerate() {
            network::add_machine(&machine.name, machine.address);
            CONTROL.with(|control| {
                control
                    .borrow_mut()
                    .addresses
                    .insert(machine.name.clone(), machine.address);
            });
            addresses.push(machine.address);
            let boots = Cell::new(0_u64);
            let boot = machine.boot;
            simulation.host(machine.address, move || {
                boots.set(boots.get() + 1);
                let seed = seed ^ ((index as u64 + 1) << 32) ^ (boots.get() << 48);
                let program = boot(boots.get());
                let program = Placed::new(machine.address, program);
                Rt::scope(seed, async move {
                    program.await;
                    Ok(())
                })
            });
        }
        let value = Rc::new(RefCell::new(None));
        let address = SCENARIO;
        network::add_machine("scenario", address);
        CONTROL.with(|control| {
            control
                .borrow_mut()
                .addresses
                .insert("scenario".to_owned(), address);
        });
        let result = value.clone();
        simulation.client(
            address,
            Rt::scope(seed, async move {
                let ended = scenario.await;
                *result.borrow_mut() = Some(ended);
                Ok(())
            }),
        );
        addresses.push(address);
        while value.borrow().is_none() && simulation.elapsed() < limit {
            simulation
                .step()
                .unwrap_or_else(|error| panic!("a program ended with an error: {error}"));
            let elapsed = simulation.elapsed();
            let wishes = CONTROL.with(|control| {
                let mut control = control.borrow_mut();
                control.elapsed = elapsed;
                std::mem::take(&mut control.wishes)
            });
            for wish in wishes {
                grant(&mut simulation, &addresses, wish);
            }
        }
        value.take()
    }

    fn end_process(name: &str) {
        let address = address(name);
        CONTROL.with_borrow_mut(|control| control.wishes.push(Wish::End(address)));
    }

    fn begin_process(name: &str) {
        let address = address(name);
        CONTROL.with_borrow_mut(|control| control.wishes.push(Wish::Begin(address)));
    }
}

fn grant(simulation: &mut turmoil::Sim<'_>, machines: &[IpAddr], wish: Wish) {
    match wish {
        Wish::End(address) => {
            // What its peers see of the end is the network's to say. Tokio drops the tasks of a machine in the order of
            // their ids, which come from a counter of the process: FINs would go out in another order from run to run.
            let others = || machines.iter().filter(move |other| **other != address);
            for other in others() {
                simulation.partition(address, *other);
            }
            simulation.crash(address);
            for other in others() {
                simulation.repair(address, *other);
            }
        }
        Wish::Begin(address) => simulation.bounce(address),
    }
}
