//! The simulated network beside what the engines keep of it: names, machines that are up or without power, links that
//! are cut, slow or lossy. Both engines ask here, so that the same faults look the same on both.
//!
//! What holds: streams keep their order and lose nothing while both processes live, as TCP does. A message lost on a
//! link comes late, by the time a sender waits before it sends again; behind a cut it comes when the link is healed.
//! The end of a process is seen by its peers as the end of the stream; the end of a machine's power is not seen: its
//! peers hear nothing until the machine is up again and answers what they send with a reset.
//!
//! One network a thread, as with the disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use crate::random::SplitMix;

const PURPOSE: u64 = 0x0e7;
const MILLION: i128 = 1_000_000;
/// A lost segment is sent again after so long, and after twice as long when it is lost again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
const RETRANSMISSIONS_MAX: u32 = 5;

/// What one direction between two machines does to what is sent over it, beside the engine's own latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// Each message comes later by up to this, and by half of it at least.
    pub delay: Duration,
    pub loss_percent: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    PowerLost,
}

/// How fast a machine's clocks go.
#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    /// Above zero: too fast.
    parts_per_million: i64,
    /// From then on.
    since: Duration,
    /// What the clocks had gained by then, in nanoseconds.
    gained: i128,
    /// What they had gained when the process that runs was started.
    gained_at_start: i128,
}

impl Drift {
    fn gained(&self, now: Duration) -> i128 {
        let nanos = now.saturating_sub(self.since).as_nanos();
        let span = i128::try_from(nanos).unwrap_or(i128::MAX);
        self.gained + span * i128::from(self.parts_per_million) / MILLION
    }
}

fn shifted(time: Duration, by: i128) -> Duration {
    let nanos = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX) + by;
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

#[derive(Debug)]
struct Machine {
    name: String,
    /// Its clock is ahead by so many nanoseconds.
    clock_ahead: i128,
    drift: Drift,
    has_power: bool,
    runs: bool,
    /// How each process that is over ended; its length is the number of the one that runs.
    ends: Vec<End>,
}

#[derive(Debug)]
struct Network {
    /// What names lead to, rightly or not.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Where each machine is.
    addresses: BTreeMap<String, IpAddr>,
    machines: BTreeMap<IpAddr, Machine>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    qualities: BTreeMap<(IpAddr, IpAddr), Quality>,
    random: SplitMix,
    /// Who reads from a stream that gives nothing: by the number of the stream, with the machine at its other end.
    waiting: BTreeMap<u64, (IpAddr, Waker)>,
    streams: u64,
}

impl Network {
    fn new(seed: u64) -> Self {
        Self {
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            machines: BTreeMap::new(),
            cuts: BTreeSet::new(),
            qualities: BTreeMap::new(),
            random: SplitMix::new(seed, PURPOSE),
            waiting: BTreeMap::new(),
            streams: 0,
        }
    }

    fn address(&self, name: &str) -> IpAddr {
        self.addresses
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("the world has no machine {name}"))
    }

    /// Wakers are called outside: a task that wakes may ask the network.
    fn take_waiting(&mut self, is_concerned: impl Fn(IpAddr) -> bool) -> Vec<Waker> {
        let numbers: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, (far, _))| is_concerned(*far))
            .map(|(number, _)| *number)
            .collect();
        numbers
            .into_iter()
            .filter_map(|number| self.waiting.remove(&number))
            .map(|(_, waker)| waker)
            .collect()
    }
}

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::new(Network::new(0));
}

fn with<T>(act: impl FnOnce(&mut Network) -> T) -> T {
    NETWORK.with(|network| act(&mut network.borrow_mut()))
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

pub(crate) fn reset(seed: u64) {
    // What waits is dropped outside of the borrow: it may be a stream that signs itself off.
    let old = NETWORK.with(|network| network.replace(Network::new(seed)));
    drop(old);
}

/// A machine with this address exists. Nobody answers at other addresses.
pub(crate) fn add_machine(name: &str, address: IpAddr) {
    with(|network| {
        let machine = Machine {
            name: name.to_owned(),
            clock_ahead: 0,
            drift: Drift::default(),
            has_power: true,
            runs: true,
            ends: Vec::new(),
        };
        network.machines.insert(address, machine);
        network.addresses.insert(name.to_owned(), address);
    });
    set_name(name, vec![address]);
}

pub(crate) fn is_machine(address: IpAddr) -> bool {
    address.is_loopback() || with(|network| network.machines.contains_key(&address))
}

/// The name of the machine at an address; empty when there is none.
pub(crate) fn write_name(address: IpAddr, line: &mut String) {
    with(|network| match network.machines.get(&address) {
        Some(machine) => line.push_str(&machine.name),
        None => line.push('-'),
    });
}

/// The address of a machine.
pub(crate) fn address(machine: &str) -> IpAddr {
    with(|network| network.address(machine))
}

/// From here on `name` resolves to these addresses; to none: the name is unknown.
pub fn set_name(name: &str, addresses: Vec<IpAddr>) {
    with(|network| network.names.insert(name.to_owned(), addresses));
}

/// Moves a machine's clock by so many milliseconds.
pub fn step_clock(machine: &str, milliseconds: i64) {
    with(|network| {
        let address = network.address(machine);
        if let Some(machine) = network.machines.get_mut(&address) {
            machine.clock_ahead += i128::from(milliseconds) * 1_000_000;
        }
    });
}

/// From `now` on a machine's clocks go so many millionths too fast, or too slow.
pub fn set_drift(machine: &str, parts_per_million: i64, now: Duration) {
    with(|network| {
        let address = network.address(machine);
        if let Some(machine) = network.machines.get_mut(&address) {
            machine.drift = Drift {
                parts_per_million,
                since: now,
                gained: machine.drift.gained(now),
                gained_at_start: machine.drift.gained_at_start,
            };
        }
    });
}

/// A process begins to count the time since its start.
pub(crate) fn process_begins(machine: &str, now: Duration) {
    with(|network| {
        let address = network.address(machine);
        if let Some(machine) = network.machines.get_mut(&address) {
            machine.drift.gained_at_start = machine.drift.gained(now);
        }
    });
}

fn of_machine<T: Default>(address: IpAddr, ask: impl FnOnce(&Machine) -> T) -> T {
    with(|network| network.machines.get(&address).map(ask).unwrap_or_default())
}

/// What a machine's clock shows when the right time is `right`, at this moment of the run.
pub(crate) fn wall(address: IpAddr, right: Duration, now: Duration) -> Duration {
    let ahead = of_machine(address, |machine| {
        machine.clock_ahead + machine.drift.gained(now)
    });
    shifted(right, ahead)
}

/// How long the process of a machine has run by its own clock, when that is `right` in truth.
pub(crate) fn mono(address: IpAddr, right: Duration, now: Duration) -> Duration {
    let gained = of_machine(address, |machine| {
        machine.drift.gained(now) - machine.drift.gained_at_start
    });
    shifted(right, gained)
}

/// A time that passes at this machine as its clocks count it, beginning at `origin`.
pub(crate) fn local(address: IpAddr, origin: Duration, now: Duration) -> Duration {
    let gained = of_machine(address, |machine| machine.drift.gained(now));
    shifted(origin + now, gained)
}

/// How long it truly takes until a machine's clock has counted this.
pub(crate) fn right_span(address: IpAddr, local: Duration) -> Duration {
    let rate = of_machine(address, |machine| machine.drift.parts_per_million);
    if rate == 0 {
        return local;
    }
    let nanos = i128::try_from(local.as_nanos()).unwrap_or(i128::MAX / MILLION);
    let right = nanos.saturating_mul(MILLION) / (MILLION + i128::from(rate)).max(1);
    Duration::from_nanos(u64::try_from(right).unwrap_or(u64::MAX))
}

/// The process on a machine ended while the machine runs on.
pub(crate) fn process_killed(machine: &str) {
    end_process(machine, End::Killed);
}

/// The machine lost power.
pub(crate) fn power_lost(machine: &str) {
    end_process(machine, End::PowerLost);
}

fn end_process(machine: &str, end: End) {
    let woken = with(|network| {
        let address = network.address(machine);
        if let Some(machine) = network.machines.get_mut(&address) {
            machine.ends.push(end);
            machine.has_power = end == End::Killed;
            machine.runs = false;
        }
        network.take_waiting(|far| far == address)
    });
    wake(woken);
}

/// Which process of a machine runs: so many ended before it.
pub(crate) fn process(machine: &str) -> usize {
    with(|network| {
        let address = network.address(machine);
        network
            .machines
            .get(&address)
            .map_or(0, |machine| machine.ends.len())
    })
}

/// The machine runs again.
pub(crate) fn powered(machine: &str) {
    let woken = with(|network| {
        let address = network.address(machine);
        if let Some(machine) = network.machines.get_mut(&address) {
            machine.has_power = true;
            machine.runs = true;
        }
        network.take_waiting(|far| far == address)
    });
    wake(woken);
}

/// What `from` sends no longer reaches `to`, until healed; dials between the two get no answer.
pub fn cut(from: &str, to: &str) {
    with(|network| {
        let pair = (network.address(from), network.address(to));
        network.cuts.insert(pair);
    });
}

pub fn heal(from: &str, to: &str) {
    let woken = with(|network| {
        let pair = (network.address(from), network.address(to));
        network.cuts.remove(&pair);
        network.take_waiting(|far| far == pair.0)
    });
    wake(woken);
}

/// Changes what the link does to what `from` sends to `to`.
pub fn change_quality(from: &str, to: &str, change: impl FnOnce(&mut Quality)) {
    with(|network| {
        let pair = (network.address(from), network.address(to));
        let quality = network.qualities.entry(pair).or_default();
        change(quality);
        if *quality == Quality::default() {
            network.qualities.remove(&pair);
        }
    });
}

/// The name of the first machine leads to the second.
pub fn mislead(name: &str, machine: &str) {
    let address = address(machine);
    set_name(name, vec![address]);
}

/// Every link is whole and fast, every clock right, and every name leads to its machine.
pub fn heal_all() {
    let woken = with(|network| {
        let addresses = network.addresses.iter();
        let right = addresses.map(|(name, address)| (name.clone(), vec![*address]));
        network.names = right.collect();
        network.cuts.clear();
        network.qualities.clear();
        for machine in network.machines.values_mut() {
            machine.clock_ahead = 0;
        }
        network.take_waiting(|_| true)
    });
    wake(woken);
}

/// Whether a dial between the two gets no answer at all, not even a refusal.
pub(crate) fn is_silent(from: IpAddr, to: IpAddr) -> bool {
    if to.is_loopback() {
        return false;
    }
    with(|network| {
        network.cuts.contains(&(from, to))
            || network.cuts.contains(&(to, from))
            || !network
                .machines
                .get(&to)
                .is_some_and(|machine| machine.has_power)
    })
}

/// Whether the machine is up and no process of it listens anywhere.
pub(crate) fn refuses(to: IpAddr) -> bool {
    with(|network| {
        let machine = network.machines.get(&to);
        machine.is_some_and(|machine| machine.has_power && !machine.runs)
    })
}

/// Whether what either of two machines sends to the other's name comes there without loss or delay.
pub(crate) fn is_whole(one: &str, other: &str) -> bool {
    with(|network| {
        let (one_at, other_at) = (network.address(one), network.address(other));
        let leads = |name: &str, to: IpAddr| network.names.get(name).is_none_or(|at| *at == [to]);
        let is_whole = |link: (IpAddr, IpAddr)| {
            !network.cuts.contains(&link) && !network.qualities.contains_key(&link)
        };
        leads(one, one_at)
            && leads(other, other_at)
            && is_whole((one_at, other_at))
            && is_whole((other_at, one_at))
    })
}

/// How much later a message of `from` comes at `to`.
pub(crate) fn draw_delay(from: IpAddr, to: IpAddr) -> Duration {
    with(|network| {
        let Some(quality) = network.qualities.get(&(from, to)).copied() else {
            return Duration::ZERO;
        };
        let most = quality.delay.as_micros() as u64;
        let mut delay = Duration::from_micros(network.random.between(most / 2, most + 1));
        let mut again = RETRANSMISSION;
        for _ in 0..RETRANSMISSIONS_MAX {
            if network.random.between(0, 100) >= u64::from(quality.loss_percent) {
                break;
            }
            delay += again;
            again *= 2;
        }
        delay
    })
}

/// What the reader of a stream finds before it looks into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What arrived, the end of the stream included.
    Possible,
    /// Nothing comes; the reader is woken when that changes.
    Held,
    /// The process at the other end is gone: what arrived can be read, then the stream ends.
    Ended,
    /// The machine at the other end came back and does not know this stream.
    Reset,
}

/// One end of a stream, as the network knows it.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    number: u64,
    near: IpAddr,
    far: IpAddr,
    /// Which process of the machine at the other end it leads to.
    process: usize,
    /// Something was sent to a machine that came back.
    is_probed: bool,
}

impl StreamEnd {
    pub(crate) fn new(near: SocketAddr, far: SocketAddr) -> Self {
        with(|network| {
            network.streams += 1;
            Self {
                number: network.streams,
                near: near.ip(),
                far: far.ip(),
                process: network
                    .machines
                    .get(&far.ip())
                    .map_or(0, |machine| machine.ends.len()),
                is_probed: false,
            }
        })
    }

    /// How much later what arrived comes to be read.
    pub(crate) fn delay(&self) -> Duration {
        draw_delay(self.far, self.near)
    }

    /// Whether the link does nothing to what arrives.
    pub(crate) fn is_plain(&self) -> bool {
        with(|network| !network.qualities.contains_key(&(self.far, self.near)))
    }

    pub(crate) fn reading(&self, waker: &Waker) -> Reading {
        with(|network| {
            let machine = network.machines.get(&self.far);
            let end = machine.and_then(|machine| machine.ends.get(self.process).copied());
            let has_power = machine.is_none_or(|machine| machine.has_power);
            let reading = match end {
                _ if network.cuts.contains(&(self.far, self.near)) => Reading::Held,
                None => return Reading::Possible,
                Some(End::Killed) => return Reading::Ended,
                Some(End::PowerLost) if has_power && self.is_probed => return Reading::Reset,
                Some(End::PowerLost) => Reading::Held,
            };
            network
                .waiting
                .insert(self.number, (self.far, waker.clone()));
            reading
        })
    }

    /// Waits for a change of what the network says, beside what the stream itself waits for.
    pub(crate) fn wait(&self, waker: &Waker) {
        with(|network| {
            network
                .waiting
                .insert(self.number, (self.far, waker.clone()));
        });
    }

    /// Something was written: a machine that came back answers it with a reset.
    pub(crate) fn written(&mut self) {
        let (is_answered, woken) = with(|network| {
            let machine = network.machines.get(&self.far);
            let is_answered = machine.is_some_and(|machine| {
                machine.has_power && machine.ends.get(self.process) == Some(&End::PowerLost)
            });
            let woken = is_answered.then(|| network.waiting.remove(&self.number));
            (is_answered, woken.flatten())
        });
        self.is_probed |= is_answered;
        if let Some((_, waker)) = woken {
            waker.wake();
        }
    }

    /// Whether what is written goes nowhere, unnoticed.
    pub(crate) fn is_lost(&self) -> bool {
        !self.is_probed
            && with(|network| {
                network
                    .machines
                    .get(&self.far)
                    .is_some_and(|machine| machine.ends.get(self.process) == Some(&End::PowerLost))
            })
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        // The thread may be ending, its network gone before the streams.
        let _ = NETWORK.try_with(|network| {
            if let Ok(mut network) = network.try_borrow_mut() {
                network.waiting.remove(&self.number);
            }
        });
    }
}

pub(crate) fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    with(|network| network.names.get(host).cloned())
        .filter(|addresses| !addresses.is_empty())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} is not known")))
}

/// The addresses of a `host:port`.
pub(crate) fn socket_addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} is no host:port"),
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Ok(resolve(host)?
        .into_iter()
        .map(|found| SocketAddr::new(found, port))
        .collect())
}
