//! Shows failovers: three daemons on loopback and a few clusters, with what happens printed line by line. Kill a primary or
//! a daemon and watch. The clusters are models of MySQL and MariaDB servers, served out of this process over the real
//! protocol; or one of real servers. Nothing is left behind at the end.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, Server};
use orchestrator_tests::ledger::Ledger;
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::{APP, Account, HARNESS};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{analyses, unsettled};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Kill {
    Primary,
    Daemon,
    Both,
}

/// Three daemons and a few clusters on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Kills this without being asked, and ends with success when the cluster is writable again.
    #[arg(long, value_enum)]
    kill: Option<Kill>,
    /// One cluster of real servers (mariadb or mysql) in place of the models.
    #[arg(long, value_name = "FLAVOUR", conflicts_with = "clusters")]
    real: Option<Flavour>,
    /// Clusters of model servers, MySQL and MariaDB in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    clusters: u8,
    /// Replicas of each primary.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: u8,
}

const NAMES: [&str; 9] = [
    "shop", "billing", "search", "mail", "stock", "forum", "media", "audit", "games",
];
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

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

/// A primary and its replicas, and who writes to them.
struct Cluster {
    name: String,
    fleet: Fleet,
    ledger: Ledger,
}

/// Everything that runs.
struct Show {
    daemons: Daemons,
    clusters: Vec<Cluster>,
}

async fn demo(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let fleets = start_fleets(arguments).await?;
    progress("starting three daemons, which find each cluster from one of its servers");
    let mut options = DaemonOptions::default_configuration();
    if arguments.real.is_none() {
        options.settings.insert(
            "DetectClusterAliasQuery".to_owned(),
            "SELECT name FROM meta.cluster".into(),
        );
    }
    let daemons = Daemons::start(&options)?;
    daemons.wait_leader(PATIENCE).await?;
    for (_, fleet) in &fleets {
        let seed = fleet.ports().last().copied().context("an empty fleet")?;
        daemons
            .ask_leader(&format!("/api/discover/127.0.0.1/{seed}"))
            .await?;
    }
    for (name, fleet) in &fleets {
        wait_settled(&daemons, name, fleet).await?;
        if arguments.real.is_some() {
            // Real servers have no table that names their cluster.
            let primary = fleet.ports().first().copied().context("an empty fleet")?;
            daemons
                .ask_leader(&format!(
                    "/api/set-cluster-alias/127.0.0.1:{primary}?alias={name}"
                ))
                .await?;
        }
    }
    for (name, _) in &fleets {
        wait_named(&daemons, name).await?;
    }
    let mut lane = 1;
    let clusters = fleets
        .into_iter()
        .map(|(name, fleet)| {
            let ports = fleet.ports();
            let ledger = Ledger::start(&ports, 1, lane);
            lane += u32::try_from(ports.len()).unwrap_or(0);
            Cluster {
                name,
                fleet,
                ledger,
            }
        })
        .collect();
    let show = Show { daemons, clusters };
    for cluster in &show.clusters {
        let primary = cluster.fleet.ports().first().copied();
        let began = Instant::now();
        let writes = cluster.ledger.wait_acknowledged(began, primary, PATIENCE);
        writes.await?;
    }
    progress(&format!(
        "ready after {:.1} s\n",
        began.elapsed().as_secs_f64()
    ));
    show.introduce(arguments).await?;
    let mut feed = Feed::new();
    match arguments.kill {
        Some(kill) => show.unattended(&mut feed, kill).await,
        None => show.attended(feed).await,
    }
}

async fn start_fleets(arguments: &Arguments) -> Result<Vec<(String, Fleet)>> {
    let options = |flavour| FleetOptions {
        flavour,
        servers: usize::from(arguments.replicas) + 1,
        timing: ReplicationTiming::ServerDefaults,
    };
    if let Some(flavour) = arguments.real {
        progress(&format!(
            "starting a {flavour} cluster: a primary and {} replicas",
            arguments.replicas
        ));
        let fleet = Fleet::start(options(flavour)).await?;
        return Ok(vec![("fleet".to_owned(), fleet)]);
    }
    progress(&format!(
        "starting {} clusters of model servers: each a primary and {} replicas",
        arguments.clusters, arguments.replicas
    ));
    let mut fleets = Vec::new();
    for (at, name) in NAMES
        .iter()
        .take(usize::from(arguments.clusters))
        .enumerate()
    {
        let flavour = [Flavour::MySql, Flavour::MariaDb][at % 2];
        let fleet = Fleet::start_models(options(flavour), name).await?;
        fleets.push(((*name).to_owned(), fleet));
    }
    Ok(fleets)
}

async fn wait_settled(daemons: &Daemons, name: &str, fleet: &Fleet) -> Result<()> {
    let what = format!("the daemons know {name}");
    let primary = fleet.ports().first().copied().context("an empty fleet")?;
    until(&what, PATIENCE, LOOK_EVERY, async || {
        match unsettled(daemons, fleet, primary, &[]).await {
            Ok(None) => Look::Holds(()),
            Ok(Some(missing)) => Look::not(missing),
            Err(error) => Look::not(format!("{error:#}")),
        }
    })
    .await
    .with_context(|| {
        let logs: Vec<_> = daemons.all().iter().map(Daemon::log).collect();
        orchestrator_tests::fleet::tail(&logs)
    })
}

/// What the show says to try asks for the clusters by these names.
async fn wait_named(daemons: &Daemons, name: &str) -> Result<()> {
    let what = format!("the daemons call a cluster {name}");
    until(&what, PATIENCE, LOOK_EVERY, async || {
        match daemons.ask_leader(&format!("/api/topology/{name}")).await {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::not(format!("{error:#}")),
        }
    })
    .await
}

/// How people get into a server with a client of MySQL or MariaDB.
fn login(port: u16) -> String {
    let Account { user, password } = HARNESS;
    format!("mysql -h127.0.0.1 -P{port} -u{user} -p{password}")
}

fn progress(text: &str) {
    println!("demo: {text}");
    std::io::stdout().flush().ok();
}

fn keys(ports: &[u16]) -> String {
    ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Cluster {
    /// The server that takes the writes at present.
    fn primary(&self) -> Option<&Server> {
        let since = Instant::now().checked_sub(Duration::from_secs(1))?;
        let writes = self.ledger.acknowledged_since(since);
        let (port, _) = writes.into_iter().max_by_key(|(_, writes)| *writes)?;
        let server = self.fleet.server(port).ok()?;
        server.answers().then_some(server)
    }

    fn has(&self, port: u16) -> bool {
        self.fleet.ports().contains(&port)
    }

    /// Every live server but `old` replicates from `primary`.
    async fn follows(&self, primary: u16, old: Option<u16>) -> bool {
        for server in self.fleet.live_except(primary) {
            if old == Some(server.port()) {
                continue;
            }
            let status = server.replica_status().await.ok().flatten();
            if !status.is_some_and(|status| status.runs() && status.source_port == primary) {
                return false;
            }
        }
        true
    }
}

impl Show {
    async fn introduce(&self, arguments: &Arguments) -> Result<()> {
        let leader = self.daemons.wait_leader(PATIENCE).await?.url();
        for daemon in self.daemons.all() {
            let mark = if daemon.url() == leader {
                "  (leads)"
            } else {
                ""
            };
            println!("  daemon   {}{mark}", daemon.url());
        }
        for (at, cluster) in self.clusters.iter().enumerate() {
            let ports = cluster.fleet.ports();
            let (primary, replicas) = ports.split_first().context("an empty fleet")?;
            let replicas: Vec<String> = replicas.iter().map(u16::to_string).collect();
            println!(
                "  cluster {} {:<8} {:<8} primary 127.0.0.1:{primary}, replicas on {}",
                at + 1,
                cluster.name,
                cluster.fleet.flavour().to_string(),
                replicas.join(" ")
            );
        }
        let name = &self.clusters[0].name;
        let primary = self.clusters[0].fleet.ports().first().copied();
        let primary = primary.context("an empty fleet")?;
        println!("\n  login    {}", login(primary));
        println!(
            "           and the other ports; it has all rights. The writing clients: {}, with {}",
            APP.user, APP.password
        );
        if arguments.real.is_none() {
            println!(
                "           A model knows few statements: SHOW PROCESSLIST, SELECT @@read_only, SELECT COUNT(*) FROM app.ledger"
            );
        }
        println!("\n  try      curl -s {leader}/api/clusters-info");
        println!("           curl -s {leader}/api/topology/{name}");
        println!("           curl -s {leader}/api/replication-analysis");
        println!("           curl -s {leader}/api/audit-recovery");
        println!(
            "           curl -s {leader}/api/audit-recovery-steps/UID      # each statement of it"
        );
        if arguments.kill.is_none() {
            let clusters = match self.clusters.len() {
                1 => "1".to_owned(),
                count => format!("1 to {count}"),
            };
            println!(
                "\n  keys     {clusters}  kill -9 the primary of that cluster (k: of one in turn)"
            );
            println!("           f  freeze (SIGSTOP) a primary        d  kill -9 the raft leader");
            println!(
                "           o  start and thaw servers as they were (an old primary is fenced: read-only)"
            );
            println!("           r  revive: daemons start, servers return as empty replicas");
            println!(
                "           a  acknowledge all recoveries: a cluster is recovered again within the hour"
            );
            println!("           q  quit (Ctrl-C too); nothing is left behind");
        }
        println!();
        Ok(())
    }

    async fn unattended(&self, feed: &mut Feed, kill: Kill) -> Result<bool> {
        let cluster = &self.clusters[0];
        let old = cluster.fleet.ports()[0];
        cluster
            .ledger
            .wait_acknowledged(Instant::now(), Some(old), PATIENCE)
            .await?;
        feed.look(self).await;
        let struck = Instant::now();
        if kill != Kill::Primary {
            let leader = self.daemons.wait_leader(PATIENCE).await?;
            feed.line(
                "you",
                &format!("kill -9 of the leading daemon {}", leader.url()),
            );
            leader.signal(Signal::Kill);
        }
        if kill != Kill::Daemon {
            self.strike(feed, cluster, cluster.fleet.server(old)?, Signal::Kill);
        }
        let mut writable = None;
        while struck.elapsed() < PATIENCE {
            feed.look(self).await;
            let write = match kill {
                Kill::Daemon => cluster.ledger.first_acknowledged(struck, Some(old)),
                Kill::Primary | Kill::Both => {
                    cluster.ledger.first_acknowledged_elsewhere(struck, old)
                }
            };
            if writable.is_none()
                && let Some(write) = write
            {
                let after = write.answered.duration_since(struck);
                feed.line(
                    "clients",
                    &format!(
                        "{}: 127.0.0.1:{} took a write {:.2} s after the kill",
                        cluster.name,
                        write.port,
                        after.as_secs_f64()
                    ),
                );
                writable = Some(write.port);
            }
            let dead = (kill != Kill::Daemon).then_some(old);
            let recorded =
                kill == Kill::Daemon || feed.recoveries.values().any(|(_, ended)| *ended);
            if let Some(port) = writable
                && feed.leader.is_some()
                && recorded
                && cluster.follows(port, dead).await
            {
                feed.line(
                    "demo",
                    &format!("every live replica replicates from 127.0.0.1:{port}"),
                );
                feed.look(self).await;
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        feed.line("demo", "the cluster did not recover");
        println!("{}", cluster.fleet.describe().await);
        for daemon in self.daemons.all() {
            println!("{}", orchestrator_tests::fleet::tail(&[daemon.log()]));
        }
        Ok(false)
    }

    fn strike(&self, feed: &Feed, cluster: &Cluster, server: &Server, signal: Signal) {
        let word = if signal == Signal::Stop {
            "freeze"
        } else {
            "kill -9 of"
        };
        feed.line(
            "you",
            &format!("{word} {}'s primary {}", cluster.name, server.key()),
        );
        server.signal(signal);
    }

    /// Strikes the first cluster from `turn` on that has a primary; the turn after it.
    fn strike_in_turn(&self, feed: &Feed, turn: usize, signal: Signal) -> usize {
        for step in 0..self.clusters.len() {
            let at = (turn + step) % self.clusters.len();
            let cluster = &self.clusters[at];
            if let Some(server) = cluster.primary() {
                self.strike(feed, cluster, server, signal);
                return at + 1;
            }
        }
        feed.line("demo", "there is no writable primary at present");
        turn
    }

    async fn attended(&self, mut feed: Feed) -> Result<bool> {
        let _terminal = Terminal::single_keys();
        let mut keys = read_keys();
        let mut keys_ended = false;
        let mut turn = 0;
        loop {
            feed.look(self).await;
            let key = tokio::select! {
                key = keys.recv(), if !keys_ended => key,
                () = tokio::time::sleep(LOOK_EVERY) => continue,
            };
            match key {
                Some(digit @ b'1'..=b'9') => {
                    let cluster = self.clusters.get(usize::from(digit - b'1'));
                    match cluster.map(|cluster| (cluster, cluster.primary())) {
                        Some((cluster, Some(server))) => {
                            self.strike(&feed, cluster, server, Signal::Kill);
                        }
                        Some((cluster, None)) => feed.line(
                            "demo",
                            &format!("{} has no writable primary at present", cluster.name),
                        ),
                        None => {}
                    }
                }
                Some(b'k') => turn = self.strike_in_turn(&feed, turn, Signal::Kill),
                Some(b'f') => turn = self.strike_in_turn(&feed, turn, Signal::Stop),
                Some(b'd') => match self.daemons.leader().await {
                    Some(leader) => {
                        feed.line(
                            "you",
                            &format!("kill -9 of the leading daemon {}", leader.url()),
                        );
                        leader.signal(Signal::Kill);
                    }
                    None => feed.line("demo", "no daemon leads at present"),
                },
                Some(b'o') => self.return_all(&feed)?,
                Some(b'r') => self.revive(&feed).await?,
                Some(b'a') => self.acknowledge(&feed).await,
                // The end of input ends the keys, not the show.
                None => keys_ended = true,
                Some(b'q') => return Ok(true),
                Some(_) => {}
            }
        }
    }

    /// Starts what was killed and thaws what was frozen, with the data that is there.
    fn return_all(&self, feed: &Feed) -> Result<()> {
        for server in self.clusters.iter().flat_map(|one| one.fleet.servers()) {
            if !server.is_running() {
                feed.line("you", &format!("start {} as it was", server.key()));
                server.start()?;
            } else if !server.answers() {
                feed.line("you", &format!("thaw {}", server.key()));
                server.signal(Signal::Continue);
            }
        }
        Ok(())
    }

    /// Starts ended daemons, and rebuilds servers that do not replicate from their cluster's primary.
    async fn revive(&self, feed: &Feed) -> Result<()> {
        for daemon in self.daemons.all().iter().filter(|one| !one.is_running()) {
            feed.line("you", &format!("start the daemon {}", daemon.url()));
            daemon.start()?;
        }
        for cluster in &self.clusters {
            let Some(primary) = cluster.primary().map(Server::port) else {
                feed.line(
                    "demo",
                    &format!(
                        "{} has no writable primary to replicate from; wait (if its recovery is held back, press a), then press r again",
                        cluster.name
                    ),
                );
                continue;
            };
            for server in cluster.fleet.servers() {
                if server.port() == primary {
                    continue;
                }
                if server.answers() {
                    let status = server.replica_status().await.ok().flatten();
                    if status.is_some_and(|status| status.source_port == primary) {
                        continue;
                    }
                }
                feed.line(
                    "you",
                    &format!(
                        "rebuild {} as a replica of 127.0.0.1:{primary}",
                        server.key()
                    ),
                );
                if let Err(error) = cluster.fleet.replace(server.port(), primary).await {
                    feed.line("demo", &format!("{error:#}"));
                }
            }
        }
        self.acknowledge(feed).await;
        Ok(())
    }

    /// The next failure of a cluster is not held back as a flapping one.
    async fn acknowledge(&self, feed: &Feed) {
        let acknowledge = "/api/ack-all-recoveries?comment=demo";
        match self.daemons.ask_leader(acknowledge).await {
            Ok(_) => feed.line("you", "acknowledge all recoveries"),
            Err(error) => feed.line("demo", &format!("{error:#}")),
        }
    }
}

/// Prints what changes.
struct Feed {
    began: Instant,
    leader: Option<String>,
    problems: Vec<(u16, String)>,
    /// Servers whose recovery is held back.
    held_back: Vec<u16>,
    writes_to: BTreeMap<String, Vec<u16>>,
    /// How all clusters together were told to be.
    told: Outlook,
    /// Lines of each recovery's record that were printed, and whether its end was.
    recoveries: BTreeMap<String, (usize, bool)>,
    rate_shown: Instant,
}

impl Feed {
    fn new() -> Feed {
        Feed {
            began: Instant::now(),
            leader: None,
            problems: Vec::new(),
            held_back: Vec::new(),
            writes_to: BTreeMap::new(),
            told: Outlook::Well,
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
    async fn look(&mut self, show: &Show) {
        self.look_at_clients(show);
        let leader = show.daemons.leader().await;
        let url = leader.map(Daemon::url);
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
                self.look_at_problems(show, analyses(&value));
            }
            self.look_at_recoveries(show).await;
            let reply = leader
                .get("/api/blocked-recoveries", Duration::from_secs(1))
                .await;
            if let Ok(value) = reply.and_then(|reply| reply.json()) {
                self.look_at_held_back(show, &value);
            }
        }
        self.look_at_clients(show);
        self.conclude();
    }

    /// Says when nothing is wrong any more, and when something is that no analysis names.
    fn conclude(&mut self) {
        let outlook = Outlook::of(!self.problems.is_empty(), &self.writes_to);
        if outlook != self.told {
            if let Some(text) = outlook.text() {
                self.line("analysis", &text);
            }
            self.told = outlook;
        }
    }

    fn look_at_clients(&mut self, show: &Show) {
        let window = Duration::from_millis(300);
        let Some(since) = Instant::now().checked_sub(window) else {
            return;
        };
        let mut all = 0;
        for cluster in &show.clusters {
            let writes = cluster.ledger.acknowledged_since(since);
            all += writes.values().sum::<u64>();
            let mut to: Vec<u16> = writes.keys().copied().collect();
            // Where one took the place of another within the window, they do not take writes at once.
            if let (2.., Some(since)) = (to.len(), Instant::now().checked_sub(window / 3)) {
                let newest = cluster.ledger.acknowledged_since(since);
                to.retain(|port| newest.contains_key(port));
            }
            let before = self.writes_to.get(&cluster.name);
            if before != Some(&to) {
                self.line(
                    "clients",
                    &match &to[..] {
                        [] => format!("{}: nobody takes writes", cluster.name),
                        ports => format!("{}: writes go to {}", cluster.name, keys(ports)),
                    },
                );
                self.writes_to.insert(cluster.name.clone(), to);
            }
        }
        if self.rate_shown.elapsed() > Duration::from_secs(5) && all > 0 {
            let rate = all as f64 / window.as_secs_f64();
            self.line("clients", &format!("{rate:.0} writes/s in all"));
            self.rate_shown = Instant::now();
        }
    }

    fn look_at_problems(&mut self, show: &Show, problems: Vec<(u16, String)>) {
        let problems: Vec<_> = problems
            .into_iter()
            .filter(|(port, _)| name_of(show, *port).is_some())
            .collect();
        for (port, code) in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            let name = name_of(show, *port).unwrap_or_default();
            self.line("analysis", &format!("{name}: 127.0.0.1:{port} {code}"));
        }
        self.problems = problems;
    }

    /// What is dead and not recovered, because its cluster was a short while ago.
    fn look_at_held_back(&mut self, show: &Show, blocked: &serde_json::Value) {
        let rows = blocked.as_array().into_iter().flatten();
        let ports = rows.filter_map(|row| row["FailedInstanceKey"]["Port"].as_u64());
        let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port).ok()).collect();
        for port in ports.iter().filter(|port| !self.held_back.contains(port)) {
            let name = name_of(show, *port).unwrap_or_default();
            self.line(
                "recovery",
                &format!(
                    "{name}: of 127.0.0.1:{port} is not begun: the last one is not an hour ago, and nobody acknowledged it (press a)"
                ),
            );
        }
        self.held_back = ports;
    }

    async fn look_at_recoveries(&mut self, show: &Show) {
        let Ok(recoveries) = show.daemons.audit_recovery().await else {
            return;
        };
        for recovery in recoveries.iter().rev() {
            let name = name_of(show, recovery.failed_port).unwrap_or_default();
            if !self.recoveries.contains_key(&recovery.uid) {
                self.line(
                    "recovery",
                    &format!(
                        "{name}: of 127.0.0.1:{}: {}",
                        recovery.failed_port, recovery.analysis
                    ),
                );
            }
            let (mut shown, mut ended) = self
                .recoveries
                .get(&recovery.uid)
                .copied()
                .unwrap_or_default();
            if ended {
                continue;
            }
            let steps = show
                .daemons
                .recovery_steps(&recovery.uid)
                .await
                .unwrap_or_default();
            // Each statement of it is in the audit; here is told what it came to.
            let told = |step: &&String| !step.contains("step-");
            for step in steps.iter().skip(shown).filter(told) {
                self.line("", &format!("{name}: {step}"));
            }
            shown = shown.max(steps.len());
            if recovery.successful {
                self.line(
                    "recovery",
                    &format!(
                        "{name}: done, 127.0.0.1:{} is the primary",
                        recovery.successor_port
                    ),
                );
                ended = true;
            }
            self.recoveries.insert(recovery.uid.clone(), (shown, ended));
        }
    }
}

/// How all clusters together are.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outlook {
    Well,
    /// The analysis says what is wrong.
    Analysed,
    /// It says nothing, and several servers of these clusters take writes.
    Several(Vec<(String, Vec<u16>)>),
}

impl Outlook {
    fn of(is_analysed: bool, writes_to: &BTreeMap<String, Vec<u16>>) -> Outlook {
        if is_analysed {
            return Outlook::Analysed;
        }
        let several: Vec<_> = writes_to
            .iter()
            .filter(|(_, ports)| ports.len() > 1)
            .map(|(name, ports)| (name.clone(), ports.clone()))
            .collect();
        if several.is_empty() {
            Outlook::Well
        } else {
            Outlook::Several(several)
        }
    }

    /// What is said when it has become so; each problem of the analysis was.
    fn text(&self) -> Option<String> {
        match self {
            Outlook::Well => Some("no problem left".to_owned()),
            Outlook::Analysed => None,
            Outlook::Several(several) => {
                let several = several
                    .iter()
                    .map(|(name, ports)| format!("{name}: {}", keys(ports)));
                let several: Vec<String> = several.collect();
                Some(format!(
                    "no failure is left, and yet several servers of a cluster take writes at once: {}",
                    several.join("; ")
                ))
            }
        }
    }
}

/// The name of the cluster that a server belongs to.
fn name_of(show: &Show, port: u16) -> Option<&str> {
    show.clusters
        .iter()
        .find(|cluster| cluster.has(port))
        .map(|cluster| cluster.name.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_analysed: bool, writes_to: &[(&str, &[u16])], wanted: Option<&str>) {
        let writes_to = writes_to
            .iter()
            .map(|(name, ports)| ((*name).to_owned(), ports.to_vec()))
            .collect();
        let text = Outlook::of(is_analysed, &writes_to).text();
        assert_eq!(text.as_deref(), wanted);
    }

    #[test]
    fn no_problem_is_left_when_one_server_of_each_cluster_takes_writes() {
        let well: &[(&str, &[u16])] = &[("billing", &[4]), ("shop", &[1])];
        check(false, well, Some("no problem left"));
        check(true, well, None);
        let several: &[(&str, &[u16])] = &[("billing", &[4]), ("shop", &[1, 2])];
        check(true, several, None);
        check(
            false,
            several,
            Some(
                "no failure is left, and yet several servers of a cluster take writes at once: shop: 127.0.0.1:1, 127.0.0.1:2",
            ),
        );
    }
}
