//! Machines with networks of their own: a namespace each, joined by a bridge to this one, or by long wires. Needs root.
//!
//! A machine is cut from another by telling it a wrong hardware address of it: what it sends goes nowhere, without an error,
//! as through a firewall that drops. Nothing of the host's own network is touched, and everything goes with its owner.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::reserve::reserve;

mod distance;

/// Where nobody listens.
const NOWHERE: &str = "02:00:00:00:00:fe";
/// The routing table of a machine by which all goes there.
const NOWHERE_TABLE: &str = "100";

/// Machines that are joined. Their addresses are 10.D.S.1 and on, this process's own is 10.D.S.254.
#[derive(Debug)]
pub struct Network {
    /// The device by which this process is joined to them.
    near: String,
    machines: Vec<Machine>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    namespace: String,
    address: Ipv4Addr,
    /// In the place of its `/etc/hosts`.
    hosts: Option<PathBuf>,
}

/// What a firewall between two machines lets pass, by the TCP ports of either end.
#[derive(Clone, Copy, Debug)]
pub enum Firewall<'a> {
    /// Everything else.
    Without(u16),
    /// Nothing else.
    Only(&'a [u16]),
}

/// The names and addresses of one network.
struct Plan {
    name: String,
    block: (u8, u8),
}

impl Plan {
    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block.0, self.block.1, last)
    }

    /// The end of a machine's wire that it does not see.
    fn device(&self, last: u8) -> String {
        format!("ov{}{last}", self.name)
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output();
    let output = output.context("ip; as root, type:  apt-get install iproute2")?;
    ensure!(
        output.status.success(),
        "ip {}: {} (network namespaces need root)",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

impl Network {
    /// Lays the wires of so many machines.
    pub fn lay(machines: u8) -> Result<Network> {
        let (network, plan) = Network::plan()?;
        ip(&["link", "add", &network.near, "type", "bridge"])?;
        let mut network = network.here(&plan)?;
        for last in 1..=machines {
            let machine = network.add(&plan, last)?;
            let outer = plan.device(last);
            let inner = ["veth", "peer", "name", "eth0", "netns", &machine.namespace];
            ip(&[["link", "add", &outer, "type"].as_slice(), &inner].concat())?;
            ip(&["link", "set", &outer, "master", &network.near, "up"])?;
            machine.join()?;
        }
        Ok(network)
    }

    /// The same, and what one machine sends another arrives so much later.
    pub fn lay_far(machines: u8, one_way: Duration) -> Result<Network> {
        let (network, plan) = Network::plan()?;
        let mut wires = vec![distance::Wire::make(&network.near)?];
        let mut network = network.here(&plan)?;
        for last in 1..=machines {
            let machine = network.add(&plan, last)?;
            let outer = plan.device(last);
            wires.push(distance::Wire::make(&outer)?);
            let inner = ["netns", &machine.namespace, "name", "eth0"];
            ip(&[["link", "set", &outer].as_slice(), &inner].concat())?;
            machine.join()?;
        }
        distance::join(wires, one_way);
        Ok(network)
    }

    fn plan() -> Result<(Network, Plan)> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let pid = std::process::id();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut blocks =
            (64..128).flat_map(|second| (0..=u8::MAX).map(move |third| (second, third)));
        // Runs side by side do not meet, nor what one left behind that was killed.
        let block = blocks.find(|(second, third)| {
            let own = Ipv4Addr::new(10, *second, *third, 254);
            TcpListener::bind((own, 0)).is_err() && reserve(&format!("network {second}.{third}"))
        });
        let block = block.context("no network of 10.64.0.0/24 to 10.127.255.0/24 is free")?;
        let network = Network {
            near: format!("ob{pid}x{number}"),
            machines: Vec::new(),
        };
        let plan = Plan {
            name: format!("{pid}x{number}"),
            block,
        };
        Ok((network, plan))
    }

    /// The device by which this process is joined exists.
    fn here(self, plan: &Plan) -> Result<Network> {
        let own = format!("{}/24", plan.address(254));
        ip(&["address", "add", &own, "dev", &self.near])?;
        ip(&["link", "set", &self.near, "up"])?;
        Ok(self)
    }

    /// One more machine, without a wire.
    fn add(&mut self, plan: &Plan, last: u8) -> Result<Machine> {
        let machine = Machine {
            namespace: format!("on{}x{last}", plan.name),
            address: plan.address(last),
            hosts: None,
        };
        self.machines.push(machine.clone());
        ip(&["netns", "add", &machine.namespace])?;
        Ok(machine)
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Where the machines find this process.
    pub fn own_address(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.machines[0].address.octets();
        Ipv4Addr::new(a, b, c, 254)
    }

    /// Programs that are started from here on read this file in the place of `/etc/hosts`. It may be written anew while they
    /// run, not replaced.
    pub fn set_hosts(&mut self, hosts: &Path) {
        for machine in &mut self.machines {
            machine.hosts = Some(hosts.to_owned());
        }
    }

    /// What two machines send each other is lost, until it is [`Network::join`]ed.
    pub fn cut(&self, one: usize, other: usize) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// What `from` sends `to` is lost.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        self.machines[from].loses(self.machines[to].address)
    }

    pub fn join(&self, one: usize, other: usize) -> Result<()> {
        self.machines[one].finds(self.machines[other].address)?;
        self.machines[other].finds(self.machines[one].address)
    }

    /// What the firewall does not let pass is lost both ways, without an error, until it is [removed](Network::remove).
    pub fn put(&self, one: usize, other: usize, firewall: Firewall) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (&self.machines[from], self.machines[to].address);
            from.lay_nowhere()?;
            from.filter("add", to, firewall)?;
        }
        Ok(())
    }

    /// Takes away what was [put](Network::put) there.
    pub fn remove(&self, one: usize, other: usize, firewall: Firewall) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            self.machines[from].filter("delete", self.machines[to].address, firewall)?;
        }
        Ok(())
    }

    /// Cuts one machine from all others; this process still reaches it.
    pub fn isolate(&self, one: usize) -> Result<()> {
        self.others(one).try_for_each(|other| self.cut(one, other))
    }

    pub fn rejoin(&self, one: usize) -> Result<()> {
        self.others(one).try_for_each(|other| self.join(one, other))
    }

    fn others(&self, one: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.machines.len()).filter(move |other| *other != one)
    }
}

impl Machine {
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What it calls itself.
    pub fn host_name(&self) -> &str {
        &self.namespace
    }

    /// A program that is to run on it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "unshare", "--uts"])
            .args(["sh", "-c"])
            // `ip netns exec` has made the mounts the program's own.
            .arg("hostname \"$0\" && { [ -z \"$1\" ] || mount --bind \"$1\" /etc/hosts; } && shift && exec \"$@\"")
            .arg(&self.namespace)
            .arg(self.hosts.clone().unwrap_or_default())
            .arg(program);
        command
    }

    /// It has its end of a wire.
    fn join(&self) -> Result<()> {
        let address = format!("{}/24", self.address);
        for words in [
            ["address", "add", &address, "dev", "eth0"].as_slice(),
            &["link", "set", "lo", "up"],
            &["link", "set", "eth0", "up"],
        ] {
            ip(&[&["-n", &self.namespace], words].concat())?;
        }
        Ok(())
    }

    /// It has this address too.
    pub fn add_address(&self, address: Ipv6Addr) -> Result<()> {
        // Nobody else has it, which the kernel would look for.
        let address = format!("{address}/64");
        let words = ["address", "add", &address, "dev", "eth0", "nodad"];
        ip(&[["-n", &self.namespace].as_slice(), &words].concat())
    }

    /// What it sends to an address is lost.
    pub fn loses(&self, address: Ipv4Addr) -> Result<()> {
        self.neighbour(&[
            "replace",
            &address.to_string(),
            "lladdr",
            NOWHERE,
            "nud",
            "permanent",
        ])
    }

    /// What it sends there arrives again.
    pub fn finds(&self, address: Ipv4Addr) -> Result<()> {
        self.neighbour(&["delete", &address.to_string()])
    }

    /// It has the table by which all goes nowhere.
    fn lay_nowhere(&self) -> Result<()> {
        let [a, b, c, _] = self.address.octets();
        let nobody = Ipv4Addr::new(a, b, c, 253);
        self.loses(nobody)?;
        let nobody = nobody.to_string();
        let by = ["route", "replace", "default", "via", &nobody];
        let table = ["dev", "eth0", "table", NOWHERE_TABLE];
        ip(&[["-n", &self.namespace].as_slice(), &by, &table].concat())
    }

    /// Adds or deletes the rules by which what it sends to an address goes nowhere. They hold for connections that there are, too.
    fn filter(&self, verb: &str, to: Ipv4Addr, firewall: Firewall) -> Result<()> {
        let to = to.to_string();
        let rule = |priority: &str, of: &[&str], table: &str| {
            let words = ["-n", &self.namespace, "rule", verb, "priority", priority];
            let to = ["to", to.as_str()];
            ip(&[words.as_slice(), &to, of, &["lookup", table]].concat())
        };
        let (ports, table) = match &firewall {
            Firewall::Without(port) => (std::slice::from_ref(port), NOWHERE_TABLE),
            Firewall::Only(ports) => (*ports, "main"),
        };
        for port in ports.iter().map(u16::to_string) {
            for end in ["dport", "sport"] {
                rule("10", &["ipproto", "tcp", end, &port], table)?;
            }
        }
        match firewall {
            Firewall::Without(_) => Ok(()),
            Firewall::Only(_) => rule("20", &[], NOWHERE_TABLE),
        }
    }

    fn neighbour(&self, words: &[&str]) -> Result<()> {
        let namespace = ["-n", &self.namespace, "neighbour"];
        ip(&[namespace.as_slice(), words, &["dev", "eth0"]].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in &self.machines {
            // The wires go with it.
            ip(&["netns", "delete", &machine.namespace]).ok();
        }
        ip(&["link", "delete", &self.near]).ok();
    }
}

/// The way from a machine to a port of 127.0.0.1 here, by the same address there. Whoever listens here sees the machine's
/// connections come from [`Machine::address_here`].
#[derive(Debug)]
pub struct Gate {
    open: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Machine {
    /// The address of its own by which it is seen at the end of its gates: 127.D.S.1 and on.
    pub fn address_here(&self) -> Ipv4Addr {
        let [_, second, third, last] = self.address.octets();
        Ipv4Addr::new(127, second, third, last)
    }

    /// Listens on the machine. What is accepted there is a socket of the machine's, whoever has it.
    pub fn listen(&self, address: SocketAddrV4) -> Result<TcpListener> {
        let namespace = File::open(Path::new("/var/run/netns").join(&self.namespace))?;
        // The thread is of that network for good: what it dialled would be dialled there.
        let thread = std::thread::spawn(move || -> Result<TcpListener> {
            // SAFETY: a plain system call on a descriptor that is open.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(entered == 0, std::io::Error::last_os_error());
            Ok(TcpListener::bind(address)?)
        });
        let listener = thread.join();
        listener.map_err(|_| anyhow!("the thread that listens panicked"))?
    }

    /// Opens a way.
    pub fn gate(&self, port: u16) -> Result<Gate> {
        let gate = Gate {
            open: Arc::new(AtomicBool::new(true)),
            ended: Arc::default(),
            connections: Arc::default(),
        };
        let listener = self.listen(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let (open, ended, count) = (
            gate.open.clone(),
            gate.ended.clone(),
            gate.connections.clone(),
        );
        let from = self.address_here();
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let open = open.clone();
                        std::thread::spawn(move || pass(stream, from, port, &open).ok());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(gate)
    }
}

impl Gate {
    /// What is sent either way is lost from here on, without an error; connections are taken and hear nothing.
    pub fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// New connections pass again; those that lost something end.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Connects from an address of this machine to 127.0.0.1.
fn dial(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        stream.into_std()
    })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn pass(near: TcpStream, from: Ipv4Addr, port: u16, open: &Arc<AtomicBool>) -> std::io::Result<()> {
    near.set_nonblocking(false)?;
    if !open.load(Ordering::Relaxed) {
        // Until whoever dialled gives up.
        return pump(&near, None, open);
    }
    let far = dial(from, port)?;
    let (there, back) = ((near.try_clone()?, far.try_clone()?), open.clone());
    std::thread::spawn(move || {
        let (near, far) = there;
        let ended = pump(&far, Some(&near), &back);
        near.shutdown(Shutdown::Both).ok();
        ended
    });
    let ended = pump(&near, Some(&far), open);
    far.shutdown(Shutdown::Both).ok();
    ended
}

/// Passes bytes on while the way is open.
fn pump(
    mut from: &TcpStream,
    mut to: Option<&TcpStream>,
    open: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut has_lost = false;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        match (&mut to, open.load(Ordering::Relaxed)) {
            (Some(to), true) if !has_lost => to.write_all(&buffer[..count])?,
            // Half of a conversation is none.
            (_, true) => return Ok(()),
            (_, false) => has_lost = true,
        }
    }
}
