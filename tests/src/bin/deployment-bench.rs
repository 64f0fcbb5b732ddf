//! The times that a deployment is promised, on real daemons at their default configuration.
//!
//! Each of [`MEASUREMENTS`] is made in every run, and its median held against its bound: a machine that stands still once costs
//! nothing. What mostly waits is measured side by side, beside the others, one after another. Ends with failure when a median
//! is beyond its bound, or when something was wrong: a change that was acknowledged is lost, one that was refused is there, a
//! leader that was cut off said OK, or what was waited for did not come at all.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use orchestrator_tests::commands::{Acknowledged, TAG, held_in_file};
use orchestrator_tests::daemons::{
    Daemon, DaemonOptions, Daemons, binary, wait_applied, wait_members,
};
use orchestrator_tests::figures::{Random, machine, quantile, until_interrupted};
use orchestrator_tests::fleet::{
    Flavour, Fleet, FleetOptions, MARIADB_PROBE, ReplicationTiming, Server,
};
use orchestrator_tests::haproxy::Proxy;
use orchestrator_tests::network::{Machine, Network};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::{backends, nobody};
use tokio::net::TcpListener;

/// One of the times.
struct Measurement {
    name: &'static str,
    /// The number of the row in `requirements.md`.
    requirement: u8,
    what: &'static str,
    bound: Bound,
}

/// What a median must keep.
#[derive(Clone, Copy)]
enum Bound {
    Seconds(f64),
    /// Seconds, not less and not more.
    Between(f64, f64),
    /// Terms of raft.
    Terms(f64),
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "cut_off_is_unhealthy",
        requirement: 14,
        what: "a daemon is cut off: its raft-health is 500",
        bound: Bound::Seconds(5.0),
    },
    Measurement {
        name: "cut_off_leader_answers",
        requirement: 19,
        what: "a leader is cut off: a change is answered, not with OK",
        bound: Bound::Seconds(15.0),
    },
    Measurement {
        name: "another_leads",
        requirement: 10,
        what: "a leader is cut off: another one leads",
        bound: Bound::Seconds(10.0),
    },
    Measurement {
        name: "crashed_is_healthy",
        requirement: 44,
        what: "a crashed follower is started: it is healthy",
        bound: Bound::Seconds(15.0),
    },
    Measurement {
        name: "all_crash_and_lead",
        requirement: 48,
        what: "all crashed and are started: one leads",
        bound: Bound::Seconds(15.0),
    },
    Measurement {
        name: "next_call_of_the_client",
        requirement: 25,
        what: "the leader is killed: the client's call has succeeded",
        bound: Bound::Seconds(10.0),
    },
    Measurement {
        name: "unreachable_address_costs",
        requirement: 25,
        what: "the client's first address says nothing: what that costs",
        bound: Bound::Seconds(1.0),
    },
    Measurement {
        name: "proxy_follows",
        requirement: 12,
        what: "the leader is killed: HAProxy takes the next one alone",
        bound: Bound::Seconds(10.0),
    },
    Measurement {
        name: "unusable_file_ends_it",
        requirement: 8,
        what: "a file that cannot be written: the daemon ends",
        bound: Bound::Seconds(5.0),
    },
    Measurement {
        name: "stranger_costs_no_term",
        requirement: 57,
        what: "a stranger waits for 10 s: terms that pass",
        bound: Bound::Terms(0.0),
    },
    Measurement {
        name: "replaced_is_whole",
        requirement: 59,
        what: "the second member is restarted: the new three are whole",
        bound: Bound::Seconds(30.0),
    },
    Measurement {
        name: "provisioned_anew_is_whole",
        requirement: 49,
        what: "an emptied daemon is started: the three are whole",
        bound: Bound::Seconds(60.0),
    },
    Measurement {
        name: "lost_backend_costs_leadership",
        requirement: 9,
        what: "the leader's MariaDB is killed: it leads no more",
        bound: Bound::Seconds(8.0),
    },
    Measurement {
        name: "lost_backend_ends_daemon",
        requirement: 9,
        what: "the leader's MariaDB is killed: it has ended",
        bound: Bound::Between(20.0, 45.0),
    },
    Measurement {
        name: "cut_off_stops_probing",
        requirement: 43,
        what: "a daemon is cut off: its last probe of a server",
        bound: Bound::Between(25.0, 40.0),
    },
    Measurement {
        name: "probes_again",
        requirement: 43,
        what: "it is joined again: its next probe",
        bound: Bound::Seconds(5.0),
    },
];

const PATIENCE: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(5);
/// A change is answered within this time, or it is not answered.
const ANSWERED: Duration = Duration::from_secs(60);
/// Between two looks: what the figures are precise to.
const LOOK: Duration = Duration::from_millis(10);
/// Some heartbeats.
const HEARTBEATS: Duration = Duration::from_millis(500);
/// Between two probes of a server (`InstancePollSeconds`).
const POLL: Duration = Duration::from_secs(5);
/// Changes that a crashed follower misses.
const MISSED: u32 = 200;
/// A stranger waits so long.
const STRANGER: Duration = Duration::from_secs(10);
/// A daemon that did not read a server for so long stopped.
const RESTS: Duration = Duration::from_secs(2 * POLL.as_secs());
/// HAProxy's backend that takes the leader alone.
const LEADER_ONLY: &str = "orchestrator-leader";

/// Measures what the deployment guide names.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// A measurement by its name; may be repeated. By default all.
    #[arg(long)]
    only: Vec<String>,
    /// Of the moments, and of who is struck; by default from the clock.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    until_interrupted("deployment-bench", bench(&arguments)).await
}

async fn bench(arguments: &Arguments) -> Result<bool> {
    let names: Vec<&str> = MEASUREMENTS.iter().map(|one| one.name).collect();
    for name in &arguments.only {
        ensure!(
            names.contains(&name.as_str()),
            "--only {name}: it is none of {}",
            names.join(", ")
        );
    }
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(clock);
    println!("daemon     {}", binary()?.display());
    println!("machine    {}", machine());
    println!("seed       {seed}");
    let sheet = Sheet {
        runs: arguments.runs,
        only: &arguments.only,
        random: RefCell::new(Random::new(seed)),
        values: RefCell::default(),
        wrongs: RefCell::default(),
    };
    let began = Instant::now();
    let busy = async {
        let names = [
            "cut_off_is_unhealthy",
            "cut_off_leader_answers",
            "another_leads",
        ];
        sheet.course(&names, cuts(&sheet)).await;
        let names = [
            "crashed_is_healthy",
            "all_crash_and_lead",
            "next_call_of_the_client",
            "unreachable_address_costs",
            "proxy_follows",
        ];
        sheet.course(&names, crashes(&sheet)).await;
        let names = ["unusable_file_ends_it"];
        sheet.course(&names, unusable_files(&sheet)).await;
        let names = ["stranger_costs_no_term", "replaced_is_whole"];
        sheet.course(&names, replacements(&sheet)).await;
    };
    tokio::join!(
        busy,
        sheet.course(&["provisioned_anew_is_whole"], provisionings(&sheet)),
        sheet.course(
            &["lost_backend_costs_leadership", "lost_backend_ends_daemon"],
            lost_backends(&sheet)
        ),
        sheet.course(&["cut_off_stops_probing", "probes_again"], rests(&sheet)),
    );
    println!("\nmeasured within {} s", began.elapsed().as_secs());
    Ok(sheet.report())
}

/// What was measured so far.
struct Sheet<'a> {
    runs: u32,
    only: &'a [String],
    random: RefCell<Random>,
    values: RefCell<BTreeMap<&'static str, Vec<f64>>>,
    wrongs: RefCell<Vec<String>>,
}

impl Sheet<'_> {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    /// Goes a course on which these are measured, if one of them is wanted.
    async fn course(&self, names: &[&str], course: impl Future<Output = Result<()>>) {
        if names.iter().any(|name| self.wants(name))
            && let Err(error) = course.await
        {
            self.wrong(format!("{}: {error:#}", names.join(", ")));
        }
    }

    fn note(&self, name: &str, value: f64) {
        let one = MEASUREMENTS.iter().find(|one| one.name == name);
        let one = one.expect("each that is noted is in the table");
        if self.wants(name) {
            println!("{name:<30}{value:>7.2}");
            let mut values = self.values.borrow_mut();
            values.entry(one.name).or_default().push(value);
        }
    }

    fn wrong(&self, what: String) {
        println!("WRONG      {what}");
        self.wrongs.borrow_mut().push(what);
    }

    fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end)
    }

    /// Some moment of this time comes.
    async fn moment(&self, of: Duration) {
        let fraction = self.random.borrow_mut().fraction();
        tokio::time::sleep(of.mul_f64(fraction)).await;
    }

    /// The place of one of three that does not lead.
    fn follower(&self, led: usize) -> usize {
        (led + 1 + self.below(2)) % 3
    }

    /// Whether all went well.
    fn report(&self) -> bool {
        let (mut values, wrongs) = (self.values.borrow_mut(), self.wrongs.borrow());
        println!(
            "\n{:<30}{:<6}{:>11} {:>5}{:>8}{:>8}",
            "what", "", "bound", "runs", "median", "max"
        );
        let mut beyond = Vec::new();
        for one in MEASUREMENTS.iter().filter(|one| self.wants(one.name)) {
            let values = values.entry(one.name).or_default();
            let (least, most, bound) = match one.bound {
                Bound::Seconds(most) => (0.0, most, format!("{most} s")),
                Bound::Between(least, most) => (least, most, format!("{least} to {most} s")),
                Bound::Terms(most) => (0.0, most, format!("{most} terms")),
            };
            let median = quantile(values, 0.5);
            let [shown, max] = [median, quantile(values, 1.0)]
                .map(|value| value.map_or("-".to_owned(), |value| format!("{value:.2}")));
            println!(
                "{:<30}SR-{:02} {bound:>11} {:>5}{shown:>8}{max:>8}  {}",
                one.name,
                one.requirement,
                values.len(),
                one.what
            );
            if median.is_some_and(|median| median < least || median > most) {
                beyond.push(format!("{}: {shown}, bound {bound}", one.name));
            }
        }
        println!("machine    {}", machine());
        for one in &beyond {
            println!("BEYOND     the median of {one}");
        }
        for wrong in wrongs.iter() {
            println!("WRONG      {wrong}");
        }
        beyond.is_empty() && wrongs.is_empty()
    }

    /// Each of these holds in its own file what was acknowledged, and not what was refused.
    async fn check(&self, daemons: &[&Daemon], acknowledged: &Acknowledged) {
        for daemon in daemons {
            let what = format!("{} holds what was acknowledged", daemon.url());
            let looked = until(&what, PATIENCE, LOOK, async || {
                match held_in_file(daemon).map(|held| acknowledged.wrongs(&held)) {
                    Ok(wrongs) if wrongs.is_empty() => Look::Holds(()),
                    other => Look::not(format!("{other:?}")),
                }
            });
            if let Err(error) = looked.await {
                self.wrong(format!("{error:#}"));
            }
        }
    }
}

fn tagging(server: &str) -> String {
    format!("/api/tag/{server}/3306?tag={TAG}")
}

async fn tag(daemons: &Daemons, acknowledged: &mut Acknowledged, server: String) -> Result<()> {
    daemons.ask_leader(&tagging(&server)).await?;
    acknowledged.tagged.insert(server);
    Ok(())
}

/// Seconds from a moment until a path is answered so.
async fn answers(
    daemon: &Daemon,
    path: &str,
    status: u16,
    body: &str,
    since: Instant,
) -> Result<f64> {
    let what = format!("{}{path} is {status} {body}", daemon.url());
    until(&what, PATIENCE, LOOK, async || {
        match daemon.get(path, ASK).await {
            Ok(reply) if reply.status == status && reply.body.contains(body) => {
                Look::Holds(since.elapsed().as_secs_f64())
            }
            other => Look::not(format!("{other:?}")),
        }
    })
    .await
}

/// The place of another one that leads, and the seconds from a moment until it did.
async fn another_leads(daemons: &Daemons, former: usize, since: Instant) -> Result<(usize, f64)> {
    until("another one leads", PATIENCE, LOOK, async || {
        for (place, daemon) in daemons.all().iter().enumerate() {
            if place != former && daemon.is_leader().await {
                return Look::Holds((place, since.elapsed().as_secs_f64()));
            }
        }
        Look::not("none does")
    })
    .await
}

/// Daemons are cut off, a follower or the leader.
async fn cuts(sheet: &Sheet<'_>) -> Result<()> {
    let network = Network::lay(3)?;
    let daemons = Daemons::start_on(&network, &DaemonOptions::default_configuration())?;
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let mut acknowledged = Acknowledged::default();
    for run in 0..sheet.runs {
        let is_of_follower = run % 2 == 0;
        if is_of_follower && sheet.wants("cut_off_is_unhealthy") {
            sheet.moment(HEARTBEATS).await;
            let struck = sheet.follower(daemons.wait_whole(PATIENCE).await?);
            let cut = Instant::now();
            network.isolate(struck)?;
            let took = answers(all[struck], "/api/raft-health", 500, "", cut).await?;
            sheet.note("cut_off_is_unhealthy", took);
            network.rejoin(struck)?;
        }

        sheet.moment(HEARTBEATS).await;
        let led = daemons.wait_whole(PATIENCE).await?;
        let server = format!("cut-off-{run}");
        let path = tagging(&server);
        let cut = Instant::now();
        network.isolate(led)?;
        let (asked, next, unhealthy) = tokio::join!(
            async {
                let reply = all[led].get(&path, ANSWERED).await;
                (reply, cut.elapsed().as_secs_f64())
            },
            another_leads(&daemons, led, cut),
            answers(all[led], "/api/raft-health", 500, "", cut),
        );
        let (reply, took) = asked;
        let (reply, (next, leads)) = (reply?, next?);
        sheet.note("cut_off_leader_answers", took);
        sheet.note("another_leads", leads);
        if !is_of_follower {
            sheet.note("cut_off_is_unhealthy", unhealthy?);
        }
        let meanwhile = format!("meanwhile-{run}");
        answers(all[next], &tagging(&meanwhile), 200, "", cut).await?;
        acknowledged.tagged.insert(meanwhile);
        network.rejoin(led)?;
        daemons.wait_whole(PATIENCE).await?;
        match reply.status {
            503 => drop(acknowledged.untagged.insert(server.clone())),
            504 => {}
            _ => sheet.wrong(format!("a leader that was cut off answered {reply:?}")),
        }
        // What came later is there: so is whatever will be.
        sheet.check(&all, &acknowledged).await;
        let mut held = Vec::new();
        for daemon in &all {
            let what = format!("what {} holds", daemon.url());
            let looked = until(&what, PATIENCE, LOOK, async || match held_in_file(daemon) {
                Ok(held) => Look::Holds(held.contains(&server)),
                Err(error) => Look::not(format!("{error:#}")),
            });
            held.push(looked.await?);
        }
        if held.iter().any(|is_held| *is_held != held[0]) {
            sheet.wrong(format!("{server} ({}): {held:?}", reply.status));
        }
    }
    Ok(())
}

/// Daemons are killed, on one machine.
async fn crashes(sheet: &Sheet<'_>) -> Result<()> {
    let daemons = Daemons::start(&DaemonOptions::default_configuration())?;
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let mut acknowledged = Acknowledged::default();
    daemons.wait_whole(PATIENCE).await?;
    let proxy = match sheet.wants("proxy_follows") {
        true => Some(Proxy::start(&daemons).await?),
        false => None,
    };
    for run in 0..sheet.runs {
        if sheet.wants("crashed_is_healthy") {
            let led = daemons.wait_whole(PATIENCE).await?;
            let crashed = all[sheet.follower(led)];
            crashed.kill().await?;
            for number in 0..MISSED {
                let server = format!("missed-{run}-{number}");
                tag(&daemons, &mut acknowledged, server).await?;
            }
            let started = Instant::now();
            crashed.start()?;
            answers(crashed, "/api/raft-health", 200, "", started).await?;
            let took = answers(crashed, "/api/raft-state", 200, "Follower", started).await?;
            sheet.note("crashed_is_healthy", took);
        }
        if sheet.wants("all_crash_and_lead") {
            daemons.wait_whole(PATIENCE).await?;
            tag(&daemons, &mut acknowledged, format!("before-{run}")).await?;
            for daemon in &all {
                daemon.signal(Signal::Kill);
            }
            for daemon in &all {
                daemon.wait_ended(PATIENCE).await?;
            }
            let started = Instant::now();
            for daemon in &all {
                daemon.start()?;
            }
            daemons.wait_leader(PATIENCE).await?;
            sheet.note("all_crash_and_lead", started.elapsed().as_secs_f64());
        }
        if sheet.wants("next_call_of_the_client") {
            next_call(sheet, &daemons, &mut acknowledged, run).await?;
        }
        if sheet.wants("unreachable_address_costs") {
            daemons.wait_whole(PATIENCE).await?;
            let silent = TcpListener::bind("127.0.0.1:0").await?;
            let silent = format!("http://{}", silent.local_addr()?);
            let words = ["-c", "which-api"];
            let (without, known) = client(&addresses(&daemons), &words).await?;
            let with = format!("{silent} {}", addresses(&daemons));
            let (with, found) = client(&with, &words).await?;
            ensure!(known.is_ok() && known == found, "{known:?}, {found:?}");
            sheet.note("unreachable_address_costs", with - without);
        }
        if let Some(proxy) = &proxy {
            daemons.wait_whole(PATIENCE).await?;
            sheet.moment(HEARTBEATS).await;
            let leader = takes_leader_alone(proxy, &daemons).await?;
            let killed = Instant::now();
            leader.kill().await?;
            takes_leader_alone(proxy, &daemons).await?;
            sheet.note("proxy_follows", killed.elapsed().as_secs_f64());
            leader.start()?;
        }
        daemons.wait_whole(PATIENCE).await?;
        sheet.check(&all, &acknowledged).await;
    }
    Ok(())
}

/// The client that knows all is called when the leader was killed.
async fn next_call(
    sheet: &Sheet<'_>,
    daemons: &Daemons,
    acknowledged: &mut Acknowledged,
    run: u32,
) -> Result<()> {
    daemons.wait_whole(PATIENCE).await?;
    sheet.moment(HEARTBEATS).await;
    let leader = daemons.wait_leader(PATIENCE).await?;
    let server = format!("client-{run}");
    let words = ["-c", "tag", "-i", &server, "-t", TAG];
    leader.signal(Signal::Kill);
    let (took, said) = client(&addresses(daemons), &words).await?;
    match said {
        Ok(_) => {
            sheet.note("next_call_of_the_client", took);
            acknowledged.tagged.insert(server);
        }
        Err(said) => {
            println!("the client's call failed: {said}");
            sheet.note("next_call_of_the_client", f64::INFINITY);
        }
    }
    leader.wait_ended(PATIENCE).await?;
    leader.start()
}

fn addresses(daemons: &Daemons) -> String {
    let urls = daemons.all().iter().map(Daemon::url);
    urls.collect::<Vec<_>>().join(" ")
}

/// Seconds that the client takes, as it is delivered, and what it prints: on standard error where it fails.
async fn client(addresses: &str, words: &[&str]) -> Result<(f64, Result<String, String>)> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/bin/orchestrator-client");
    let mut command = tokio::process::Command::new(script);
    command
        .args(words)
        .env("ORCHESTRATOR_API", addresses)
        .env("ORCHESTRATOR_CLIENT_PROFILE", "/nonexistent")
        .env_remove("ORCHESTRATOR_CLIENT_PATIENCE")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let began = Instant::now();
    let output = command.output().await;
    let took = began.elapsed().as_secs_f64();
    let output = output.context("bash, curl and jq; type:  tests/setup.sh client")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let said = match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    };
    Ok((took, said))
}

/// Waits until HAProxy takes one daemon and no other, and that one leads.
async fn takes_leader_alone<'a>(proxy: &Proxy, daemons: &'a Daemons) -> Result<&'a Daemon> {
    let what = "HAProxy takes the leader alone";
    until(what, PATIENCE, LOOK, async || {
        let up = match proxy.up(LEADER_ONLY).await {
            Ok(up) => up,
            Err(error) => return Look::not(format!("{error:#}")),
        };
        match (up.as_slice(), daemons.leader().await) {
            ([one], Some(leader)) if daemons.all()[one - 1].http() == leader.http() => {
                Look::Holds(leader)
            }
            (up, leader) => Look::not(format!(
                "it takes {up:?}, and {:?} leads",
                leader.map(Daemon::url)
            )),
        }
    })
    .await
}

/// A file that exists, and that its daemon may not write.
async fn unusable_files(sheet: &Sheet<'_>) -> Result<()> {
    let folder = nobody::folder("unusable")?;
    let file = folder.path().join("read-only.db");
    fs::write(&file, "")?;
    fs::set_permissions(&file, Permissions::from_mode(0o444))?;
    for _ in 0..sheet.runs {
        let ended = nobody::run(folder.path(), &file, PATIENCE).await?;
        sheet.note("unusable_file_ends_it", ended.took.as_secs_f64());
        let is_told = ended.last.contains(&file.display().to_string());
        if !is_told || ended.code.is_none_or(|code| code == 0) {
            sheet.wrong(format!("a file that cannot be written: {ended:?}"));
        }
    }
    Ok(())
}

/// A member is replaced by restarts, as the guide has it; whoever was replaced replaces the next one.
async fn replacements(sheet: &Sheet<'_>) -> Result<()> {
    let options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::default_configuration()
    };
    let daemons = Daemons::start(&options)?;
    let all = daemons.all();
    let mut acknowledged = Acknowledged::default();
    let mut spare = 3;
    for run in 0..sheet.runs {
        let mut places: Vec<usize> = (0..all.len()).filter(|place| *place != spare).collect();
        let members: Vec<&Daemon> = places.iter().map(|place| &all[*place]).collect();
        wait_members(&members, PATIENCE).await?;
        tag(&daemons, &mut acknowledged, format!("replaced-{run}")).await?;
        let former = places.remove(sheet.below(3));
        if sheet.below(2) == 1 {
            places.reverse();
        }
        let (first, second, newcomer) = (&all[places[0]], &all[places[1]], &all[spare]);
        let wanted = [first, second, newcomer];

        all[former].signal(Signal::Terminate);
        all[former].wait_ended(PATIENCE).await?;
        for daemon in wanted {
            daemon.set_nodes(&wanted)?;
        }
        daemons.wait_leader(PATIENCE).await?;
        let now = Instant::now();
        for daemon in [first, second] {
            answers(daemon, "/api/raft-health", 200, "", now).await?;
        }
        let terms = stranger(sheet, [first, second], newcomer).await?;
        sheet.note("stranger_costs_no_term", terms);

        first.restart(PATIENCE).await?;
        let restarted = Instant::now();
        second.restart(PATIENCE).await?;
        wait_members(&wanted, PATIENCE).await?;
        // The newcomer has it itself, and not by asking the leader.
        sheet.check(&[newcomer], &acknowledged).await;
        sheet.note("replaced_is_whole", restarted.elapsed().as_secs_f64());
        tag(&daemons, &mut acknowledged, format!("after-{run}")).await?;
        sheet.check(&wanted, &acknowledged).await;
        all[former].wipe()?;
        spare = former;
    }
    Ok(())
}

/// A newcomer that no member knows is started; the terms that pass while it waits.
async fn stranger(sheet: &Sheet<'_>, members: [&Daemon; 2], newcomer: &Daemon) -> Result<f64> {
    let term = async || -> Result<u64> {
        let mut term = 0;
        for member in members {
            let said = member.status().await?["Term"].as_u64();
            term = term.max(said.context("no term")?);
        }
        Ok(term)
    };
    let before = term().await?;
    newcomer.start()?;
    newcomer.wait_status("/api/lb-check", 200, PATIENCE).await?;
    let began = Instant::now();
    while began.elapsed() < STRANGER {
        for (path, status) in [("/api/raft-health", 500), ("/api/leader-check", 404)] {
            let reply = newcomer.get(path, ASK).await?;
            if reply.status != status {
                sheet.wrong(format!("a stranger's {path}: {reply:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok((term().await? - before) as f64)
}

/// A follower loses its database and raft's directory.
async fn provisionings(sheet: &Sheet<'_>) -> Result<()> {
    for run in 0..sheet.runs {
        // Others each time: one place is provisioned anew so often and no more (`RaftReplacePerHour`).
        let daemons = Daemons::start(&DaemonOptions::default_configuration())?;
        let all: Vec<&Daemon> = daemons.all().iter().collect();
        wait_members(&all, PATIENCE).await?;
        let mut acknowledged = Acknowledged::default();
        tag(&daemons, &mut acknowledged, format!("kept-{run}")).await?;
        let anew = all[sheet.follower(daemons.wait_whole(PATIENCE).await?)];
        anew.kill().await?;
        anew.wipe()?;
        let started = Instant::now();
        anew.start()?;
        answers(anew, "/api/raft-health", 200, "", started).await?;
        wait_members(&all, PATIENCE).await?;
        wait_applied(&daemons, anew, PATIENCE).await?;
        sheet.check(&all, &acknowledged).await;
        sheet.note("provisioned_anew_is_whole", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Each daemon has a MariaDB server of its own for its backend; the leader's is killed.
async fn lost_backends(sheet: &Sheet<'_>) -> Result<()> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(backends::serve(Flavour::MariaDb).await?);
    }
    let mut options = DaemonOptions::default_configuration();
    options.own = servers.iter().map(backends::settings).collect();
    let daemons = Daemons::start(&options)?;
    for _ in 0..sheet.runs {
        let led = daemons.wait_whole(PATIENCE).await?;
        let (leader, server) = (&daemons.all()[led], &servers[led].servers()[0]);
        let killed = server.signal(Signal::Kill);
        let took = answers(leader, "/api/leader-check", 404, "", killed).await?;
        sheet.note("lost_backend_costs_leadership", took);
        let code = leader.wait_ended(PATIENCE).await?;
        let took = killed.elapsed().as_secs_f64();
        sheet.note("lost_backend_ends_daemon", took);
        if code == Some(0) {
            sheet.wrong("a daemon that lost its backend says that it ended well".to_owned());
        }
        server.wait_ended().await?;
        server.start()?;
        server.wait_up().await?;
        leader.start()?;
    }
    daemons.wait_whole(PATIENCE).await.map(drop)
}

/// A daemon without its quorum leaves a server in peace, and reads it again when it is back; as that server sees it.
async fn rests(sheet: &Sheet<'_>) -> Result<()> {
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 1,
        timing: ReplicationTiming::Quick,
    };
    let fleet = Fleet::start(fleet).await?;
    let server = &fleet.servers()[0];
    let mut sql = server.harness().await?;
    sql.run_all([
        "SET GLOBAL log_output = 'TABLE'",
        "SET GLOBAL general_log = ON",
    ])
    .await?;
    sql.close().await;
    let network = Network::lay(3)?;
    let mut gates = Vec::new();
    for machine in network.machines() {
        gates.push(machine.gate(server.port())?);
    }
    let daemons = Daemons::start_on(&network, &DaemonOptions::default_configuration())?;
    daemons.wait_discovered(server.port()).await?;
    for run in 0..sheet.runs {
        let led = daemons.wait_whole(PATIENCE).await?;
        let struck = match run % 2 {
            0 => led,
            _ => sheet.follower(led),
        };
        let machine = &network.machines()[struck];
        newest_probe(server, machine, "it is read", |seconds| seconds > 0.0).await?;
        sheet.moment(POLL).await;
        let cut = seconds_of_the_clock();
        network.isolate(struck)?;
        let what = "it is left in peace";
        let last = newest_probe(server, machine, what, |seconds| {
            let silent = seconds_of_the_clock() - seconds.max(cut);
            silent > RESTS.as_secs_f64()
        })
        .await?;
        sheet.note("cut_off_stops_probing", last - cut);
        let joined = seconds_of_the_clock();
        network.rejoin(struck)?;
        let what = "it is read again";
        let next = newest_probe(server, machine, what, |seconds| seconds > joined).await?;
        sheet.note("probes_again", next - joined);
    }
    Ok(())
}

fn seconds_of_the_clock() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Waits until the newest probe of a machine's daemon in the server's log is such a one, in seconds of the clock, which both go by.
async fn newest_probe(
    server: &Server,
    machine: &Machine,
    what: &str,
    is_wanted: impl Fn(f64) -> bool,
) -> Result<f64> {
    let query = format!(
        "SELECT coalesce(unix_timestamp(max(event_time)), 0) FROM mysql.general_log WHERE user_host LIKE 'orchestrator[%[{}]' \
         AND argument LIKE '{MARIADB_PROBE}%'",
        machine.address_here()
    );
    let mut sql = server.harness().await?;
    let looked = until(what, PATIENCE, Duration::from_millis(50), async || {
        let newest = match sql.value(&query).await {
            Ok(newest) => newest,
            Err(error) => return Look::not(error),
        };
        match newest.parse() {
            Ok(seconds) if is_wanted(seconds) => Look::Holds(seconds),
            other => Look::not(format!("{other:?}")),
        }
    });
    let found = looked.await;
    sql.close().await;
    found
}
