//! The madsim engine: a random ready task runs at each step, time jumps, the clock and the system's randomness are the
//! simulation's.
//!
//! Channels are tokio's (they need no runtime); executor, timers and generator are madsim's. A few of tokio's own
//! decisions (which waiter of a watch wakes first) are drawn from a generator of the runtime it finds around itself,
//! hence the seeded tokio runtime around the whole run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use madsim::net::{NetSim, TcpListener, TcpStream};
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::{Sleep, TimeHandle};
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioWatch};
use orchestrator::env::{Env, Mutant};
use rand::{Rng as _, TryRng};

use super::local_time::{LocalInstant, right_span, right_span_until};
use super::place::{Placed, SCENARIO, here};
use super::{Engine, Machine, TracedStream, WALL_AT_START};
use crate::model::host::World;
use crate::{disk, mutant, network};

/// One way, in microseconds: from, to.
const MESSAGE_MICROSECONDS: (u64, u64) = (200, 3_000);

/// openraft's idea of a runtime, on madsim.
#[derive(Debug)]
pub struct MadsimRuntime;

/// A deadline passed.
#[derive(Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline elapsed")
    }
}

/// madsim's own timeout is not `Send`; this one is.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    deadline: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        self.deadline.as_mut().poll(context).map(|()| Err(Elapsed))
    }
}

/// The run's generator in the words of this workspace's `rand`; madsim speaks an older one.
#[derive(Debug, Clone, Copy)]
pub struct Rng;

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(madsim::rand::RngCore::next_u32(
            &mut madsim::rand::thread_rng(),
        ))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(madsim::rand::RngCore::next_u64(
            &mut madsim::rand::thread_rng(),
        ))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        madsim::rand::RngCore::fill_bytes(&mut madsim::rand::thread_rng(), bytes);
        Ok(())
    }
}

impl AsyncRuntime for MadsimRuntime {
    type JoinError = madsim::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = madsim::task::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = LocalInstant<MadsimEnv>;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Rng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        madsim::task::spawn(Placed::new(here(), future))
    }

    fn sleep(duration: Duration) -> Sleep {
        madsim::time::sleep(right_span(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Sleep {
        madsim::time::sleep(right_span_until(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout {
            future: Box::pin(future),
            deadline: Box::pin(Self::sleep(duration)),
        }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Timeout<F> {
        Timeout {
            future: Box::pin(future),
            deadline: Box::pin(Self::sleep_until(deadline)),
        }
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Rng {
        Rng
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        Runtime::new().block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(work())
    }
}

/// The world of madsim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MadsimEnv;

#[derive(Debug, Default)]
struct Machines {
    by_name: BTreeMap<String, NodeId>,
    /// When the process of a machine began.
    began: BTreeMap<IpAddr, Duration>,
    /// Who listens where, and how many do.
    listening: BTreeMap<SocketAddr, usize>,
}

thread_local! {
    static MACHINES: RefCell<Machines> = RefCell::new(Machines::default());
}

/// A listening socket. madsim takes connections at a port for as long as one that was accepted there lives; a dial to a port
/// that nobody listens at any more is refused.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    at: SocketAddr,
}

impl Listener {
    fn new(inner: TcpListener) -> io::Result<Self> {
        let at = SocketAddr::new(here(), inner.local_addr()?.port());
        MACHINES.with_borrow_mut(|machines| *machines.listening.entry(at).or_default() += 1);
        Ok(Self { inner, at })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // At the end of a thread there is nothing left to tell.
        let _ = MACHINES.try_with(|machines| {
            let mut machines = machines.borrow_mut();
            if let Some(count) = machines.listening.get_mut(&self.at) {
                *count -= 1;
                if *count == 0 {
                    machines.listening.remove(&self.at);
                }
            }
        });
    }
}

fn node_of(name: &str) -> NodeId {
    MACHINES.with_borrow(|machines| {
        *machines
            .by_name
            .get(name)
            .unwrap_or_else(|| panic!("the world has no machine {name}"))
    })
}

fn one_way() -> Duration {
    let (low, high) = MESSAGE_MICROSECONDS;
    Duration::from_micros(low + Rng.next_u64() % (high - low))
}

async fn dial(to: SocketAddr) -> io::Result<TracedStream<MadsimRuntime, TcpStream>> {
    let from = here();
    super::until_answered::<MadsimEnv>(from, to.ip()).await?;
    // madsim connects in no time; the handshake takes one round trip.
    madsim::time::sleep(one_way() + one_way()).await;
    if !MACHINES.with_borrow(|machines| machines.listening.contains_key(&to)) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let stream = TcpStream::connect(to).await?;
    let near = stream.local_addr()?;
    Ok(TracedStream::new(stream, near, to))
}

impl Env for MadsimEnv {
    type Rt = MadsimRuntime;
    type Listener = Listener;
    type Stream = TracedStream<MadsimRuntime, TcpStream>;
    type DirLock = disk::FolderLock;

    async fn bind(address: &str) -> io::Result<Listener> {
        let addresses = network::socket_addresses(address)?;
        let first = addresses.first().expect("a resolved name has an address");
        Listener::new(TcpListener::bind(*first).await?)
    }

    fn local_address(listener: &Listener) -> io::Result<String> {
        let mut address = listener.inner.local_addr()?;
        if address.ip().is_unspecified() {
            address.set_ip(here());
        }
        Ok(address.to_string())
    }

    async fn accept(listener: &mut Listener) -> io::Result<(Self::Stream, String)> {
        let (stream, peer) = listener.inner.accept().await?;
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
        let began = MACHINES.with_borrow(|machines| machines.began.get(&here()).copied());
        let now = Self::elapsed();
        let right = now.saturating_sub(began.unwrap_or_default());
        network::mono(here(), right, now)
    }

    fn wall() -> Duration {
        let now = Self::elapsed();
        network::wall(here(), WALL_AT_START + now, now)
    }

    fn random_seed() -> io::Result<u64> {
        Ok(Rng.next_u64())
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let value = work();
        let latency = disk::take_latency();
        if !latency.is_zero() {
            madsim::time::sleep(latency).await;
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

impl World for MadsimEnv {
    fn elapsed() -> Duration {
        TimeHandle::try_current().map_or(Duration::ZERO, |time| time.elapsed())
    }
}

impl Engine for MadsimEnv {
    const NAME: &'static str = "madsim";

    fn run<T: Send + 'static>(
        seed: u64,
        limit: Duration,
        machines: Vec<Machine>,
        scenario: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let seed_bytes: [u8; 32] = std::array::from_fn(|index| (seed >> (index % 8 * 8)) as u8);
        let around = tokio::runtime::Builder::new_current_thread()
            .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed_bytes))
            .build()
            .expect("a tokio runtime without drivers asks nothing of the system");
        let mut config = madsim::Config::default();
        let (low, high) = MESSAGE_MICROSECONDS;
        config.net.send_latency = Duration::from_micros(low)..Duration::from_micros(high);
        let inside = Runtime::with_seed_and_config(seed, config);
        // Unconstrained: the one poll around the whole run would use up tokio's budget of a task.
        around.block_on(tokio::task::unconstrained(async {
            let value = inside.block_on(live(limit, machines, scenario));
            inside.block_on(end_all());
            value
        }))
    }

    fn end_process(name: &str) {
        Handle::current().kill(node_of(name));
    }

    fn begin_process(name: &str) {
        Handle::current().restart(node_of(name));
    }
}

/// Ends every process. A task and what wakes it hold each other: left to itself the world would never be freed.
async fn end_all() {
    let nodes = MACHINES.with_borrow(|machines| machines.by_name.clone());
    for node in nodes.into_values() {
        Handle::current().kill(node);
    }
}

async fn live<T: Send + 'static>(
    limit: Duration,
    machines: Vec<Machine>,
    scenario: impl Future<Output = T> + 'static,
) -> Option<T> {
    let handle = Handle::current();
    MACHINES.set(Machines::default());
    let mut nodes = Vec::new();
    for machine in machines {
        network::add_machine(&machine.name, machine.address);
        let boots = std::sync::atomic::AtomicU64::new(0);
        let (boot, address) = (machine.boot, machine.address);
        let node = handle
            .create_node()
            .name(machine.name.clone())
            .ip(address)
            .init(move || {
                let count = boots.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                let program = boot(count);
                Placed::new(address, async move {
                    MACHINES.with_borrow_mut(|machines| {
                        machines.began.insert(address, MadsimEnv::elapsed());
                    });
                    program.await;
                })
            })
            .build();
        MACHINES.with_borrow_mut(|machines| machines.by_name.insert(machine.name, node.id()));
        nodes.push(node);
    }
    network::add_machine("scenario", SCENARIO);
    NetSim::current().set_ip(madsim::plugin::node(), SCENARIO);
    let deadline = madsim::time::sleep(limit);
    tokio::select! {
        biased;
        value = scenario => Some(value),
        () = deadline => None,
    }
}
