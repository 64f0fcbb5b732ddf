//! What a process chose for itself until it ends, of all that this machine has once: what is free when it is chosen stays
//! free until it is used, whatever tests run beside this one.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

/// Names without files, which the kernel takes back.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Whether it is this process's from here on. It is not when somebody has it, this process too.
#[must_use]
pub fn reserve(what: &str) -> bool {
    let name = SocketAddr::from_abstract_name(format!("orchestrator-tests/{what}"));
    let Some(listener) = name.and_then(|name| UnixListener::bind_addr(&name)).ok() else {
        return false;
    };
    HELD.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(listener);
    true
}

/// Ports of 127.0.0.1 below the range that the kernel gives to outgoing connections, so that a server that is down does not
/// lose its port to somebody's connection.
///
/// # Errors
/// There are not so many.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let spread = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 11;
    let mut ports = Vec::new();
    for port in (20_000 + spread..32_000).chain(20_000..20_000 + spread) {
        if ports.len() == count {
            break;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && reserve(&format!("port {port}"))
        {
            ports.push(port);
        }
    }
    ensure!(
        ports.len() == count,
        "no {count} free ports between 20000 and 32000"
    );
    ports.sort_unstable();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::{free_ports, reserve};

    #[test]
    fn what_is_reserved_is_given_once() {
        let what = format!("a test of {}", std::process::id());
        assert!(reserve(&what));
        assert!(!reserve(&what));
        let (one, two) = (free_ports(3).unwrap(), free_ports(3).unwrap());
        assert!(
            one.iter().all(|port| !two.contains(port)),
            "{one:?} {two:?}"
        );
    }
}
