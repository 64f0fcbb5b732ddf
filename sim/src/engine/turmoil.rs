//! The turmoil engine: real tokio scheduling and timers on a paused clock of one millisecond, with sockets that close,
//! hold and lose as TCP does.

#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use openraft_rt::AsyncRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use orchestrator::env::Env;
use rand::Rng as _;
use turmoil::net::{TcpListener, TcpStream};

use super::{Engine, Machine, TracedStream, WALL_AT_START};
use crate::model::host::World;
use crate::{disk, network};

/// One way: from, to.
const MESSAGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(3));
const SCENARIO_ADDRESS: [u8; 4] = [10, 0, 255, 1];

/// The world of turmoil.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TurmoilEnv;

/// What a scenario asked of the simulation: turmoil crashes and boots machines only between its steps.
#[derive(Debug)]
enum Wish {
    PowerCut(IpAddr),
    Boot(IpAddr),
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

impl Env for TurmoilEnv {
    type Rt = DeterministicRng<TokioRuntime>;
    type Listener = TcpListener;
    type Stream = TracedStream<TcpStream>;
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
            if !network::is_machine(to.ip()) {
                // Nobody is there to refuse.
                std::future::pending::<()>().await;
            }
            match TcpStream::connect(to).await {
                Ok(stream) => {
                    let near = stream.local_addr()?;
                    return Ok(TracedStream::new(stream, near, to));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a resolved name has an address"))
    }

    fn mono() -> Duration {
        turmoil::elapsed()
    }

    fn wall() -> Duration {
        turmoil::since_epoch().unwrap_or(WALL_AT_START)
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
            .tick_duration(Duration::from_millis(1))
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
                DeterministicRng::<TokioRuntime>::scope(seed, async move {
                    program.await;
                    Ok(())
                })
            });
        }
        let value = Rc::new(RefCell::new(None));
        let address = IpAddr::from(SCENARIO_ADDRESS);
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
            DeterministicRng::<TokioRuntime>::scope(seed, async move {
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

    fn power_cut(name: &str) {
        let address = address(name);
        disk::power_cut(name);
        CONTROL.with(|control| control.borrow_mut().wishes.push(Wish::PowerCut(address)));
    }

    fn boot(name: &str) {
        let address = address(name);
        CONTROL.with(|control| control.borrow_mut().wishes.push(Wish::Boot(address)));
    }

    fn cut(from: &str, to: &str) {
        // What is held arrives when healed, as segments that TCP sends again do.
        turmoil::hold(address(from), address(to));
    }

    fn heal(from: &str, to: &str) {
        turmoil::release(address(from), address(to));
    }
}

fn grant(simulation: &mut turmoil::Sim<'_>, machines: &[IpAddr], wish: Wish) {
    match wish {
        Wish::PowerCut(address) => {
            // Without power there is no FIN either. Tokio drops the tasks of a machine in the order of their ids, which
            // come from a counter of the process: FINs would go out in another order from run to run.
            let others = || machines.iter().filter(move |other| **other != address);
            for other in others() {
                simulation.partition(address, *other);
            }
            simulation.crash(address);
            for other in others() {
                simulation.repair(address, *other);
            }
        }
        Wish::Boot(address) => simulation.bounce(address),
    }
}
