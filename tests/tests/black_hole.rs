//! How a machine that is cut off is noticed (F15): that is not a server's doing but the network's, and no script of facts. On a
//! network of its own another machine stops answering, without an error.
//!
//! TCP alone needs two seconds at its most impatient, and with the settings of a daemon's connections minutes. So it is the
//! pulse's own deadline that notices, and what a daemon sees is silence: never the end of a connection.
#![allow(clippy::disallowed_methods)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orchestrator::env::TokioEnv;
use orchestrator::fleet::{Fleet as _, SignSender};
use orchestrator::mysql::{Mysql, ProbeSettings};
use orchestrator_core::id::InstanceKey;
use orchestrator_core::node::Sign;
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::network::Network;
use orchestrator_tests::sql::ORCHESTRATOR;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A port that is free on every machine of a fresh network.
const PORT: u16 = 3306;
const DEADLINE: Duration = Duration::from_secs(60);
/// What a clock of the kernel's ticks may take off.
const TICKS: Duration = Duration::from_millis(50);

/// When a connection on which nothing happens is asked for a sign of life, in seconds (they can be no shorter), and how often it is
/// asked before it ends.
#[derive(Clone, Copy)]
struct Keepalive {
    idle: libc::c_int,
    interval: libc::c_int,
    probes: libc::c_int,
}

const IMPATIENT: Keepalive = Keepalive {
    idle: 1,
    interval: 1,
    probes: 1,
};
const PATIENT: Keepalive = Keepalive {
    probes: 9,
    ..IMPATIENT
};

fn set(stream: &TcpStream, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small");
    // SAFETY: a plain system call on a descriptor that is open, with a value of the size that it says.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// A connection to the other machine that works, and its other end.
fn connect(
    listener: &TcpListener,
    keepalive: Option<Keepalive>,
    user_timeout: Duration,
) -> Result<(TcpStream, TcpStream)> {
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    if let Some(keepalive) = keepalive {
        set(&near, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        for (option, value) in [
            (libc::TCP_KEEPIDLE, keepalive.idle),
            (libc::TCP_KEEPINTVL, keepalive.interval),
            (libc::TCP_KEEPCNT, keepalive.probes),
        ] {
            set(&near, libc::IPPROTO_TCP, option, value);
        }
    }
    let milliseconds = libc::c_int::try_from(user_timeout.as_millis())?;
    let option = libc::TCP_USER_TIMEOUT;
    set(&near, libc::IPPROTO_TCP, option, milliseconds);
    let (mut far, _) = listener.accept()?;
    let mut heard = [0];
    far.write_all(b"!")?;
    near.read_exact(&mut heard)?;
    near.set_read_timeout(Some(DEADLINE))?;
    Ok((near, far))
}

/// Reads until something comes of it; what did, and when.
fn read_on(stream: &TcpStream) -> Result<JoinHandle<(std::io::Result<usize>, Instant)>> {
    let mut stream = stream.try_clone()?;
    Ok(std::thread::spawn(move || {
        let outcome = stream.read(&mut [0]);
        (outcome, Instant::now())
    }))
}

/// TCP gave this one up.
fn gave_up((outcome, at): (std::io::Result<usize>, Instant)) -> Result<Instant> {
    let error = outcome.err().context("something was read")?;
    ensure!(error.raw_os_error() == Some(libc::ETIMEDOUT), "{error}");
    Ok(at)
}

fn is_open(stream: &TcpStream) -> Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    Ok(peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

/// Orders and least times only: a busy machine makes all of it longer.
#[test]
fn tcp_alone_is_slow_to_notice_it() {
    let network = Network::lay(1).expect("a network");
    let machine = &network.machines()[0];
    let listener = machine.listen(SocketAddrV4::new(machine.address(), PORT));
    let listener = listener.expect("a listener");
    let connect = |keepalive, user_timeout| {
        connect(&listener, keepalive, Duration::from_millis(user_timeout)).expect("a connection")
    };
    // As the client library makes those of the daemons: the kernel's own interval and number of probes.
    let (of_daemons, _far) = connect(None, 0);
    set(&of_daemons, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    set(&of_daemons, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 5);
    let (patient, _far) = connect(Some(PATIENT), 0);
    let (mut busy, _far) = connect(Some(PATIENT), 600);
    let began = Instant::now();
    let (idle, _far) = connect(Some(IMPATIENT), 0);
    let (hurried, _far) = connect(Some(IMPATIENT), 500);
    let read = |stream| read_on(stream).expect("a thread");
    let reads = [&idle, &hurried, &busy, &patient].map(read);
    // Nothing that it sends arrives.
    machine.loses(network.own_address()).expect("cut off");
    busy.write_all(b"?").expect("written");

    let [idle, hurried, busy, patient] = reads;
    for (what, read) in [("idle", idle), ("with a user timeout", hurried)] {
        let ended = gave_up(read.join().expect("no panic"));
        let took = ended.expect("a time-out").duration_since(began);
        println!("{what}: given up after {took:?}");
        assert!(took + TICKS > Duration::from_secs(2), "{what}: {took:?}");
    }
    // What was sent and not acknowledged has a clock of its own.
    let patient = gave_up(patient.join().expect("no panic")).expect("a time-out");
    assert!(
        busy.is_finished(),
        "a byte that is not acknowledged is as slow as keepalive"
    );
    let busy = gave_up(busy.join().expect("no panic")).expect("a time-out");
    println!(
        "with a byte under way: given up after {:?}; without, after nine probes: {:?}",
        busy.duration_since(began),
        patient.duration_since(began)
    );
    assert!(
        is_open(&of_daemons).expect("a socket"),
        "the deadline of a pulse is not needed"
    );
}

/// A model server that listens on the machine: there its connections are taken, and passed on to where it is served.
async fn serve_on(listener: TcpListener, served: SocketAddr) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut far = tokio::net::TcpStream::connect(served).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}

/// The next sign that is wanted.
async fn sign(signs: &mut UnboundedReceiver<Sign>, is_wanted: impl Fn(&Sign) -> bool) -> Sign {
    let mut skipped = Vec::new();
    let found = tokio::time::timeout(DEADLINE, async {
        while let Some(sign) = signs.recv().await {
            if is_wanted(&sign) {
                return Some(sign);
            }
            skipped.push(sign);
        }
        None
    });
    let found = found.await.ok().flatten();
    found.unwrap_or_else(|| panic!("nothing that was wanted among {skipped:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_notices_it_by_silence_and_never_by_an_end() {
    let network = Network::lay(1).expect("a network");
    let machine = &network.machines()[0];
    let options = FleetOptions {
        flavour: Flavour::MySql,
        servers: 1,
        timing: ReplicationTiming::Quick,
    };
    let servers = Fleet::start_models(options, "dark").await;
    let servers = servers.expect("a server");
    let served = SocketAddr::from(([127, 0, 0, 1], servers.ports()[0]));
    let listener = machine.listen(SocketAddrV4::new(machine.address(), PORT));
    tokio::spawn(serve_on(listener.expect("a listener"), served));

    let fleet = Mysql::<TokioEnv>::new(ProbeSettings {
        user: ORCHESTRATOR.user.to_owned(),
        password: ORCHESTRATOR.password.to_owned(),
        ..ProbeSettings::default()
    });
    let (sender, mut signs) = unbounded_channel();
    let key = InstanceKey::new(machine.address().to_string(), PORT);
    let sender = SignSender::new(move |_, sign| {
        // Nobody hears what comes after the test.
        let _ = sender.send(sign);
    });
    fleet.watch(key.clone(), Duration::from_millis(250), sender);
    sign(&mut signs, |sign| *sign == Sign::PulseBeat).await;

    machine.loses(network.own_address()).expect("cut off");
    let is_end =
        |sign: &Sign| [Sign::PulseSilent, Sign::PulseClosed, Sign::PulseShutdown].contains(sign);
    assert_eq!(sign(&mut signs, is_end).await, Sign::PulseSilent);
    // Dials are met by the same silence.
    for _ in 0..3 {
        assert_eq!(sign(&mut signs, |_| true).await, Sign::DialUnreachable);
    }
    machine.finds(network.own_address()).expect("joined");
    sign(&mut signs, |sign| {
        let is_other = [Sign::DialRefused, Sign::PulseClosed].contains(sign);
        assert!(!is_other, "{sign:?}");
        matches!(sign, Sign::PulseUp(_))
    })
    .await;
    fleet.unwatch(&key);
}
