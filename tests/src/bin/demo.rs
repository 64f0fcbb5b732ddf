//! Shows a failover: three daemons on loopback and a small real fleet, with what happens printed line
//! by line. Kill the primary or a daemon and watch. Nothing is left behind at the end.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use orchestrator_tests::daemons::DaemonOptions;
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::ledger::Ledger;
use orchestrator_tests::process::Signal;
use orchestrator_tests::world::{World, analyses};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Kill {
    Primary,
    Daemon,
    Both,
}

/// Three daemons and a real fleet on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Kills this without being asked, and ends with success when the fleet is writable again.
    #[arg(long, value_enum)]
    kill: Option<Kill>,
    #[arg(long, default_value = "mariadb")]
    flavour: Flavour,
    /// Replicas of the fleet.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: u8,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = async {
        tokio::select! {
            outcome = demo(&arguments) => outcome,
            interrupted = interrupted() => { interrupted?; println!("\ninterrupted"); Ok(false) }
        }
    }
    .await;
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, SIGTERM or a closed terminal: the servers and daemons end with the drop of their owner.
async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

async fn demo(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    progress(&format!(
        "starting a {} fleet: a primary and {} replicas",
        arguments.flavour, arguments.replicas
    ));
    let fleet = FleetOptions {
        flavour: arguments.flavour,
        servers: usize::from(arguments.replicas) + 1,
        timing: ReplicationTiming::ServerDefaults,
    };
    let fleet = Fleet::start(fleet).await?;
    progress("starting three daemons, which find the fleet from one of its servers");
    let world = World::around(fleet, &DaemonOptions::default_configuration()).await?;
    progress(&format!(
        "ready after {:.1} s\n",
        began.elapsed().as_secs_f64()
    ));
    introduce(&world, arguments.kill.is_some()).await?;
    let ledger = world.clients();
    let mut feed = Feed::new(&world);
    match arguments.kill {
        Some(kill) => unattended(&world, &ledger, &mut feed, kill).await,
        None => attended(world, ledger, feed).await,
    }
}

fn progress(text: &str) {
    println!("demo: {text}");
    std::io::stdout().flush().ok();
}

async fn introduce(world: &World, unattended: bool) -> Result<()> {
    let leader = world
        .daemons
        .wait_leader(Duration::from_secs(30))
        .await?
        .url();
    for daemon in world.daemons.all() {
        let mark = if daemon.url() == leader {
            "  (leads)"
        } else {
            ""
        };
        println!("  daemon   {}{mark}", daemon.url());
    }
    for server in world.fleet.servers() {
        let mark = if server.port() == world.primary() {
            "  (primary)"
        } else {
            ""
        };
        println!("  server   {}{mark}", server.key());
    }
    println!("\n  try      curl -s {leader}/api/clusters-info");
    println!(
        "           curl -s {leader}/api/topology/{}",
        world.fleet.server(world.primary())?.key()
    );
    println!("           curl -s {leader}/api/replication-analysis");
    println!("           curl -s {leader}/api/audit-recovery");
    if !unattended {
        println!("\n  keys     k  kill -9 the primary         d  kill -9 the raft leader");
        println!("           o  start a killed server as it was (it is fenced: read-only)");
        println!("           r  revive: daemons start, servers return as empty replicas");
        println!("           q  quit (Ctrl-C too); nothing is left behind");
    }
    println!();
    Ok(())
}

/// Prints what changes.
struct Feed {
    began: Instant,
    ports: Vec<u16>,
    leader: Option<String>,
    problems: Vec<(u16, String)>,
    writes_to: Vec<u16>,
    /// Lines of each recovery's record that were printed, and whether its end was.
    recoveries: BTreeMap<String, (usize, bool)>,
    rate_shown: Instant,
}

impl Feed {
    fn new(world: &World) -> Feed {
        Feed {
            began: Instant::now(),
            ports: world.fleet.ports(),
            leader: None,
            problems: Vec::new(),
            writes_to: Vec::new(),
            recoveries: BTreeMap::new(),
            rate_shown: Instant::now(),
        }
    }

    fn line(&self, subject: &str, text: &str) {
        println!(
            "[{:7.2}] {subject:<9} {text}",
            self.began.elapsed().as_secs_f64()
        );
        std::io::stdout().flush().ok();
    }

    /// Looks once and prints what is different from the last look.
    async fn look(&mut self, world: &World, ledger: &Ledger) {
        self.look_at_clients(ledger);
        let leader = world.daemons.leader().await;
        let url = leader.map(|leader| leader.url());
        if url != self.leader {
            self.line(
                "raft",
                &url.as_ref()
                    .map_or("no leader".to_owned(), |url| format!("{url} leads")),
            );
            self.leader = url;
        }
        if let Some(leader) = leader {
            let reply = leader
                .get("/api/replication-analysis", Duration::from_secs(1))
                .await;
            if let Ok(value) = reply.and_then(|reply| reply.json()) {
                self.look_at_problems(analyses(&value));
            }
            self.look_at_recoveries(world).await;
        }
        self.look_at_clients(ledger);
    }

    fn look_at_clients(&mut self, ledger: &Ledger) {
        let window = Duration::from_millis(300);
        let Some(since) = Instant::now().checked_sub(window) else {
            return;
        };
        let writes = ledger.acknowledged_since(since);
        let to: Vec<u16> = writes.keys().copied().collect();
        if to != self.writes_to {
            self.line(
                "clients",
                &match &to[..] {
                    [] => "nobody takes writes".to_owned(),
                    ports => format!("writes go to {}", keys(ports)),
                },
            );
            self.writes_to = to;
        } else if self.rate_shown.elapsed() > Duration::from_secs(5) && !writes.is_empty() {
            let all: u64 = writes.values().sum();
            let rate = all as f64 / window.as_secs_f64();
            self.line(
                "clients",
                &format!("{rate:.0} writes/s to {}", keys(&self.writes_to)),
            );
            self.rate_shown = Instant::now();
        }
    }

    fn look_at_problems(&mut self, problems: Vec<(u16, String)>) {
        let problems: Vec<_> = problems
            .into_iter()
            .filter(|(port, _)| self.ports.contains(port))
            .collect();
        for (port, code) in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            self.line("analysis", &format!("127.0.0.1:{port} {code}"));
        }
        if problems.is_empty() && !self.problems.is_empty() {
            self.line("analysis", "no problem left");
        }
        self.problems = problems;
    }

    async fn look_at_recoveries(&mut self, world: &World) {
        let Ok(recoveries) = world.daemons.audit_recovery().await else {
            return;
        };
        for recovery in recoveries.iter().rev() {
            if !self.recoveries.contains_key(&recovery.uid) {
                self.line(
                    "recovery",
                    &format!(
                        "of 127.0.0.1:{}: {}",
                        recovery.failed_port, recovery.analysis
                    ),
                );
            }
            let (mut shown, mut ended) = self
                .recoveries
                .get(&recovery.uid)
                .copied()
                .unwrap_or_default();
            if !ended {
                let steps = world
                    .daemons
                    .recovery_steps(&recovery.uid)
                    .await
                    .unwrap_or_default();
                for step in steps.iter().skip(shown) {
                    self.line("", step);
                }
                shown = shown.max(steps.len());
                if recovery.successful {
                    self.line(
                        "recovery",
                        &format!("done, 127.0.0.1:{} is the primary", recovery.successor_port),
                    );
                    ended = true;
                }
                self.recoveries.insert(recovery.uid.clone(), (shown, ended));
            }
        }
    }
}

fn keys(ports: &[u16]) -> String {
    ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect::<Vec<_>>()
        .join(", ")
}

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The server that takes the writes at present.
fn primary(ledger: &Ledger) -> Option<u16> {
    let since = Instant::now().checked_sub(Duration::from_secs(1))?;
    ledger
        .acknowledged_since(since)
        .into_iter()
        .max_by_key(|(_, writes)| *writes)
        .map(|(port, _)| port)
}

async fn unattended(world: &World, ledger: &Ledger, feed: &mut Feed, kill: Kill) -> Result<bool> {
    let patience = Duration::from_secs(60);
    ledger
        .wait_acknowledged(Instant::now(), Some(world.primary()), patience)
        .await?;
    feed.look(world, ledger).await;
    let old = world.primary();
    let struck = Instant::now();
    if kill != Kill::Primary {
        let leader = world.daemons.wait_leader(patience).await?;
        feed.line(
            "you",
            &format!("kill -9 of the leading daemon {}", leader.url()),
        );
        leader.signal(Signal::Kill);
    }
    if kill != Kill::Daemon {
        feed.line("you", &format!("kill -9 of the primary 127.0.0.1:{old}"));
        world.fleet.server(old)?.signal(Signal::Kill);
    }
    let mut writable = None;
    while struck.elapsed() < patience {
        feed.look(world, ledger).await;
        let write = match kill {
            Kill::Daemon => ledger.first_acknowledged(struck, Some(old)),
            Kill::Primary | Kill::Both => ledger.first_acknowledged_elsewhere(struck, old),
        };
        if writable.is_none()
            && let Some(write) = write
        {
            let after = write.answered.duration_since(struck);
            feed.line(
                "clients",
                &format!(
                    "127.0.0.1:{} took a write {:.2} s after the kill",
                    write.port,
                    after.as_secs_f64()
                ),
            );
            writable = Some(write.port);
        }
        if let Some(port) = writable
            && feed.leader.is_some()
            && regrouped(world, old, port, kill).await
        {
            feed.line(
                "demo",
                &format!("every live replica replicates from 127.0.0.1:{port}"),
            );
            feed.look(world, ledger).await;
            return Ok(true);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    feed.line("demo", "the fleet did not recover");
    println!("{}", world.fleet.describe().await);
    for daemon in world.daemons.all() {
        println!("{}", orchestrator_tests::fleet::tail(&[daemon.log()]));
    }
    Ok(false)
}

async fn regrouped(world: &World, old: u16, primary: u16, kill: Kill) -> bool {
    for server in world.fleet.live_except(primary) {
        if server.port() == old && kill != Kill::Daemon {
            continue;
        }
        let status = server.replica_status().await.ok().flatten();
        if !status.is_some_and(|status| status.runs() && status.source_port == primary) {
            return false;
        }
    }
    true
}

async fn attended(mut world: World, ledger: Ledger, mut feed: Feed) -> Result<bool> {
    let _terminal = Terminal::single_keys();
    let mut keys = read_keys();
    let mut keys_ended = false;
    loop {
        feed.look(&world, &ledger).await;
        let key = tokio::select! {
            key = keys.recv(), if !keys_ended => key,
            () = tokio::time::sleep(LOOK_EVERY) => continue,
        };
        match key {
            Some(b'k') => match primary(&ledger) {
                Some(port) => {
                    feed.line("you", &format!("kill -9 of the primary 127.0.0.1:{port}"));
                    world.fleet.server(port)?.signal(Signal::Kill);
                }
                None => feed.line("demo", "there is no writable primary at present"),
            },
            Some(b'd') => match world.daemons.leader().await {
                Some(leader) => {
                    feed.line(
                        "you",
                        &format!("kill -9 of the leading daemon {}", leader.url()),
                    );
                    leader.signal(Signal::Kill);
                }
                None => feed.line("demo", "no daemon leads at present"),
            },
            Some(b'o') => {
                for server in world
                    .fleet
                    .servers()
                    .iter()
                    .filter(|server| !server.is_running())
                {
                    feed.line("you", &format!("start {} as it was", server.key()));
                    server.start()?;
                }
            }
            Some(b'r') => revive(&mut world, &ledger, &feed).await?,
            // The end of input ends the keys, not the show.
            None => keys_ended = true,
            Some(b'q') => return Ok(true),
            Some(_) => {}
        }
    }
}

/// Starts ended daemons, and rebuilds servers that do not replicate from the primary.
async fn revive(world: &mut World, ledger: &Ledger, feed: &Feed) -> Result<()> {
    for daemon in world
        .daemons
        .all()
        .iter()
        .filter(|daemon| !daemon.is_running())
    {
        feed.line("you", &format!("start the daemon {}", daemon.url()));
        daemon.start()?;
    }
    let Some(primary) = primary(ledger) else {
        feed.line(
            "demo",
            "there is no writable primary to replicate from; wait, then press r again",
        );
        return Ok(());
    };
    world.set_primary(primary);
    for port in world
        .fleet
        .ports()
        .into_iter()
        .filter(|port| *port != primary)
    {
        let server = world.fleet.server(port)?;
        let status = server.replica_status().await.ok().flatten();
        if server.is_running() && status.is_some_and(|status| status.source_port == primary) {
            continue;
        }
        feed.line(
            "you",
            &format!(
                "rebuild {} as a replica of 127.0.0.1:{primary}",
                server.key()
            ),
        );
        if let Err(error) = world.fleet.replace(port, primary).await {
            feed.line("demo", &format!("{error:#}"));
        }
    }
    // So that the next failure of this cluster is not held back as a flapping one.
    if let Err(error) = world
        .daemons
        .ask_leader("/api/ack-all-recoveries?comment=demo")
        .await
    {
        feed.line("demo", &format!("{error:#}"));
    }
    Ok(())
}

/// Bytes from standard input, as they come.
fn read_keys() -> UnboundedReceiver<u8> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for byte in std::io::stdin().lock().bytes() {
            let Ok(byte) = byte else { return };
            if sender.send(byte).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A terminal that hands over single keys, put back as it was on drop. Ctrl-C stays a signal.
struct Terminal {
    before: Option<libc::termios>,
}

impl Terminal {
    fn single_keys() -> Terminal {
        if !std::io::stdin().is_terminal() {
            return Terminal { before: None };
        }
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: plain system calls on standard input; `before` is written by the first one when it succeeds.
        unsafe {
            if libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) != 0 {
                return Terminal { before: None };
            }
            let before = before.assume_init();
            let mut keys = before;
            keys.c_lflag &= !(libc::ICANON | libc::ECHO);
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const keys);
            Terminal {
                before: Some(before),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: puts back what tcgetattr gave.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
        }
    }
}
