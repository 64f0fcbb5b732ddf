//! Names and cuts of the simulated network, beside what the engines keep of it: both engines resolve names here, so that
//! an address behind a name can change, and what neither engine models by itself is told to it from here.
//!
//! One network a thread, as with the disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

#[derive(Debug, Default)]
struct Network {
    names: BTreeMap<String, Vec<IpAddr>>,
    machines: BTreeSet<IpAddr>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
}

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::new(Network::default());
}

pub(crate) fn reset() {
    NETWORK.with(|network| *network.borrow_mut() = Network::default());
}

/// A machine with this address exists. Nobody answers at other addresses.
pub(crate) fn add_machine(name: &str, address: IpAddr) {
    NETWORK.with(|network| {
        network.borrow_mut().machines.insert(address);
    });
    set_name(name, vec![address]);
}

pub(crate) fn is_machine(address: IpAddr) -> bool {
    address.is_loopback() || NETWORK.with(|network| network.borrow().machines.contains(&address))
}

/// From here on `name` resolves to these addresses; to none: the name is unknown.
pub fn set_name(name: &str, addresses: Vec<IpAddr>) {
    NETWORK.with(|network| {
        network
            .borrow_mut()
            .names
            .insert(name.to_owned(), addresses);
    });
}

/// Notes whether nothing sent from `from` arrives at `to`.
pub(crate) fn set_cut(from: IpAddr, to: IpAddr, cut: bool) {
    NETWORK.with(|network| {
        let cuts = &mut network.borrow_mut().cuts;
        if cut {
            cuts.insert((from, to));
        } else {
            cuts.remove(&(from, to));
        }
    });
}

/// Whether a dial between the two gets no answer.
pub(crate) fn is_cut(one: IpAddr, other: IpAddr) -> bool {
    NETWORK.with(|network| {
        let cuts = &network.borrow().cuts;
        cuts.contains(&(one, other)) || cuts.contains(&(other, one))
    })
}

pub(crate) fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    NETWORK
        .with(|network| network.borrow().names.get(host).cloned())
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
