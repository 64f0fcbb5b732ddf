//! How long daemons are without a leader when theirs is killed, and whether they keep one when nothing happens.
//!
//! Three daemons on loopback, at their default timers, without servers or with clusters of model servers to probe. Each
//! kill: a tag is written, the leader is killed with `kill -9` at a random moment, the others are asked without pause who
//! leads, a tag is written through the successor, and the killed daemon is started again. Ends with failure when a tag that
//! was acknowledged is lost, when no leader comes, or when a bound that was given is missed.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, binary};
use orchestrator_tests::figures::{Random, machine, quantile, until_interrupted};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const DISCOVERY: Duration = Duration::from_secs(300);
/// Of a cluster.
const SERVERS: usize = 4;
const ASK: Duration = Duration::from_millis(500);
/// Between two questions of who leads: what the figures are precise to.
const LOOK: Duration = Duration::from_millis(2);

/// Kills leading daemons and measures.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Watches so many seconds before the kills, and fails if the leader or its term changes.
    #[arg(long, default_value_t = 0)]
    quiet_seconds: u64,
    /// Clusters of four model servers each (MySQL and MariaDB in turn) that are probed meanwhile, served by this process.
    #[arg(long, default_value_t = 0)]
    clusters: u16,
    /// Of the moments at which it strikes; by default from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// A key of the daemons' configuration and its JSON value, as KEY=VALUE; may be repeated.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// Fails when the median of kill to new leader is longer.
    #[arg(long)]
    median_seconds_max: Option<f64>,
    /// Fails when one takes longer.
    #[arg(long)]
    seconds_max: Option<f64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    until_interrupted("leader-bench", bench(&arguments)).await
}

async fn bench(arguments: &Arguments) -> Result<bool> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(clock);
    let mut random = Random::new(seed);
    let mut options = DaemonOptions::default_configuration();
    options.set_all(&arguments.settings)?;
    println!("daemon     {}", binary()?.display());
    println!("machine    {}", machine());
    println!("seed       {seed}");
    let mut fleets = Vec::new();
    for number in 0..arguments.clusters {
        let models = FleetOptions {
            flavour: [Flavour::MySql, Flavour::MariaDb][usize::from(number % 2)],
            servers: SERVERS,
            timing: ReplicationTiming::ServerDefaults,
        };
        fleets.push(Fleet::start_models(models, &format!("c{number}")).await?);
    }
    let daemons = Daemons::start(&options)?;
    daemons.wait_leader(PATIENCE).await?;
    discover(&daemons, &fleets).await?;
    for daemon in daemons.all() {
        wait_healthy(daemon).await?;
    }
    if arguments.quiet_seconds > 0 {
        watch(&daemons, Duration::from_secs(arguments.quiet_seconds)).await?;
    }
    let (mut elected, mut written) = (Vec::new(), Vec::new());
    for run in 1..=arguments.kills {
        let times = kill_leader(&daemons, run, random.fraction()).await;
        let (leads, writes) = times.with_context(|| format!("kill {run}"))?;
        println!("{run:3} new leader after {leads:.3} s, a change after {writes:.3} s");
        elected.push(leads);
        written.push(writes);
    }
    let held = daemons.ask_leader("/api/tagged?tag=bench").await?;
    let held = held.as_array().map_or(0, Vec::len);
    println!("\n{} kills of the leading daemon", arguments.kills);
    println!("seconds from the kill to    min  median     p90     max");
    for (name, values) in [("a new leader", &mut elected), ("a change", &mut written)] {
        let cells: Vec<String> = [0.0, 0.5, 0.9, 1.0]
            .map(|at| {
                quantile(values, at).map_or("       -".to_owned(), |value| format!("{value:>8.2}"))
            })
            .to_vec();
        println!("  {name:<20}{} (n={})", cells.concat(), values.len());
    }
    println!("machine    {}", machine());
    let expected = usize::try_from(arguments.kills * 2)?;
    let mut well = true;
    if held != expected {
        println!("WRONG      {held} of {expected} changes that were acknowledged are there");
        well = false;
    }
    for (what, bound, at) in [
        ("median", arguments.median_seconds_max, 0.5),
        ("maximum", arguments.seconds_max, 1.0),
    ] {
        if let (Some(bound), Some(value)) = (bound, quantile(&mut elected, at))
            && value > bound
        {
            println!("TOO SLOW   {what} of kill to new leader {value:.2} s, bound {bound} s");
            well = false;
        }
    }
    Ok(well)
}

/// Every daemon probes every server.
async fn discover(daemons: &Daemons, fleets: &[Fleet]) -> Result<()> {
    for fleet in fleets {
        let seed = fleet.ports().last().copied().context("an empty fleet")?;
        daemons
            .ask_leader(&format!("/api/async-discover/127.0.0.1/{seed}"))
            .await?;
    }
    let wanted = fleets.len() * SERVERS;
    for daemon in daemons.all() {
        let what = format!("{} reads {wanted} servers", daemon.url());
        until(
            &what,
            DISCOVERY,
            Duration::from_millis(500),
            async || match daemon.get("/api/all-instances", PATIENCE).await {
                Ok(reply) => {
                    let servers = serde_json::from_str::<Value>(&reply.body).unwrap_or_default();
                    let read = servers.as_array().map_or(0, |servers| {
                        let fresh = |server: &&Value| server["IsLastCheckValid"] == true;
                        servers.iter().filter(fresh).count()
                    });
                    if read == wanted {
                        Look::Holds(())
                    } else {
                        Look::not(format!("{read} are read"))
                    }
                }
                Err(error) => Look::not(error),
            },
        )
        .await?;
    }
    if wanted > 0 {
        println!("servers    {wanted}, in {} clusters", fleets.len());
    }
    Ok(())
}

/// Kills the leader at a moment of its heartbeats; seconds to the next leader, and to the first change that one takes.
async fn kill_leader(daemons: &Daemons, run: u32, moment: f64) -> Result<(f64, f64)> {
    write(daemons.wait_leader(PATIENCE).await?, run, "before").await?;
    tokio::time::sleep(Duration::from_millis(500).mul_f64(moment)).await;
    let leader = daemons.wait_leader(PATIENCE).await?;
    let others: Vec<&Daemon> = daemons
        .all()
        .iter()
        .filter(|daemon| daemon.url() != leader.url())
        .collect();
    let killed = leader.signal(Signal::Kill);
    let next = until("another daemon leads", PATIENCE, LOOK, async || {
        for daemon in &others {
            if daemon.is_leader().await {
                return Look::Holds(*daemon);
            }
        }
        Look::not("none does")
    })
    .await?;
    let leads = killed.elapsed().as_secs_f64();
    write(next, run, "after").await?;
    let writes = killed.elapsed().as_secs_f64();
    leader.wait_ended(PATIENCE).await?;
    leader.start()?;
    wait_healthy(leader).await?;
    Ok((leads, writes))
}

async fn write(daemon: &Daemon, run: u32, when: &str) -> Result<()> {
    let path = format!("/api/tag/db-{run}-{when}/3306/bench/{run}");
    // It may have lost its lead on the way, or the others: the wait counts.
    until(&path, PATIENCE, LOOK, async || {
        match daemon.get(&path, Duration::from_secs(10)).await {
            Ok(reply) if reply.status == 200 => Look::Holds(Ok(())),
            Ok(reply) if matches!(reply.status, 502..=504) => Look::not(reply.body),
            Ok(reply) => Look::Holds(Err(anyhow!("{path}: {} {}", reply.status, reply.body))),
            Err(error) => Look::Holds(Err(error)),
        }
    })
    .await?
}

async fn wait_healthy(daemon: &Daemon) -> Result<()> {
    let what = format!("{} is healthy", daemon.url());
    until(
        &what,
        PATIENCE,
        Duration::from_millis(20),
        async || match daemon.get("/api/raft-health", ASK).await {
            Ok(reply) if reply.status == 200 => Look::Holds(()),
            Ok(reply) => Look::not(reply.body),
            Err(error) => Look::not(error),
        },
    )
    .await
}

/// Nothing is done, and the leader stays the same in the same term.
async fn watch(daemons: &Daemons, length: Duration) -> Result<()> {
    let leadership = async || -> Result<(Value, Value)> {
        let status = daemons.ask_leader("/api/raft-status").await?;
        let (leader, term) = (status["Leader"].clone(), status["Term"].clone());
        ensure!(leader.is_string() && term.is_u64(), "{status:#}");
        Ok((leader, term))
    };
    let first = leadership().await?;
    let began = Instant::now();
    while began.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let found = leadership().await?;
        ensure!(
            found == first,
            "after {} s leader and term are {found:?}, and were {first:?}",
            began.elapsed().as_secs()
        );
    }
    println!("one leader in one term for {} s", length.as_secs());
    Ok(())
}
