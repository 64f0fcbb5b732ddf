//! How long real fleets are without a writable primary, and whether every recovery was right.
//!
//! Each kill: clients write, the primary is struck at a random phase of the poll, and the clocks run.
//! Then the fleet is judged, the old primary is replaced by an empty replica, the recovery is
//! acknowledged, and the next kill hits the server that was promoted. `FAILOVER.md` section 8 defines
//! the terms. Ends with failure when a recovery was wrong or did not come.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Parser, ValueEnum};

use orchestrator_tests::daemons::{DaemonOptions, binary};
use orchestrator_tests::figures::{Random, machine, quantile, until_interrupted};
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming};
use orchestrator_tests::world::{Aftermath, Expectation, Strike, World};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum How {
    /// `kill -9` of the primary.
    Kill9,
    /// SIGSTOP of the primary.
    Sigstop,
    /// `kill -9` of the primary and of the raft leader.
    WithLeader,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Share {
    None,
    Half,
    All,
}

/// Kills primaries of a real fleet and measures.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value = "mariadb")]
    flavour: Flavour,
    #[arg(long, default_value_t = 20)]
    kills: u32,
    #[arg(long, value_enum, default_value = "kill9")]
    how: How,
    /// In which of the runs the servers keep their own replication timeouts (60 s) instead of quick ones.
    #[arg(long, value_enum, default_value = "half")]
    server_defaults: Share,
    /// Servers of the fleet, the primary included.
    #[arg(long, default_value_t = 4)]
    servers: usize,
    /// Of the moments at which it strikes; by default from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// A key of the daemons' configuration and its JSON value, as KEY=VALUE; may be repeated.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// Fails when it takes longer until the fleet is writable than so many times what is promised on two quiet cores: a median
    /// of 2 s after a kill, 8 s at most after a stop, 6 s at most when the leader dies too.
    #[arg(long, default_value_t = 1.0)]
    times: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    until_interrupted("failover-bench", bench(&arguments)).await
}

/// What a primary that was replaced may take when it comes back, in the median: writes of one that was frozen, seconds of one that
/// was dead.
const SLIPPED_MAX: f64 = 4.0;
const SLIPPED_FOR_MAX: f64 = 0.5;
/// The poll of the default configuration (`InstancePollSeconds`), whose phases are struck at.
const POLL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Tally {
    verdict: Vec<f64>,
    writable: Vec<f64>,
    replicating: Vec<f64>,
    /// What the old primary took when it came back: how long, and how many writes.
    slipped_for: Vec<f64>,
    slipped: Vec<f64>,
    right: u32,
    no_errant: u32,
    nothing_lost: u32,
    only_on_dead: usize,
    acknowledged: usize,
    runs: u32,
    wrong: Vec<String>,
}

async fn bench(arguments: &Arguments) -> Result<bool> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(clock);
    let mut random = Random::new(seed);
    let mut daemons = DaemonOptions::default_configuration();
    daemons.set_all(&arguments.settings)?;
    println!("daemon     {}", binary()?.display());
    println!("machine    {}", machine());
    println!("seed       {seed}");
    let slow = match arguments.server_defaults {
        Share::None => 0,
        Share::Half => arguments.kills / 2,
        Share::All => arguments.kills,
    };
    let mut tally = Tally::default();
    for (timing, kills) in [
        (ReplicationTiming::Quick, arguments.kills - slow),
        (ReplicationTiming::ServerDefaults, slow),
    ] {
        if kills > 0 {
            let fleet = FleetOptions {
                flavour: arguments.flavour,
                servers: arguments.servers,
                timing,
            };
            strike_often(arguments, fleet, &daemons, kills, &mut random, &mut tally).await?;
        }
    }
    Ok(report(arguments, &mut tally))
}

async fn strike_often(
    arguments: &Arguments,
    fleet: FleetOptions,
    daemons: &DaemonOptions,
    kills: u32,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<()> {
    let strike = match arguments.how {
        How::Kill9 => Strike::KillPrimary,
        How::Sigstop => Strike::FreezePrimary,
        How::WithLeader => Strike::KillPrimaryAndLeader,
    };
    let mut world: Option<World> = None;
    for _ in 0..kills {
        tally.runs += 1;
        let run = tally.runs;
        let mut at_rest = match world.take() {
            Some(world) => world,
            None => World::start(fleet, daemons).await?,
        };
        if run == 1 {
            let version = at_rest
                .fleet
                .server(at_rest.primary())?
                .harness()
                .await?
                .value("SELECT @@version")
                .await?;
            println!(
                "servers    1 + {} x {} {version}",
                fleet.servers - 1,
                fleet.flavour
            );
        }
        let delay = POLL.mul_f64(random.fraction());
        match at_rest.strike(strike, delay, &Expectation::default()).await {
            Ok(aftermath) => {
                count(tally, run, fleet.timing, &aftermath);
                match at_rest.come_back(aftermath.old, strike).await {
                    Ok(back) => {
                        println!(
                            "    back again: {} writes in {:.3} s before the fence",
                            back.writes,
                            back.span.as_secs_f64()
                        );
                        tally.slipped_for.push(back.span.as_secs_f64());
                        tally.slipped.push(f64::from(u32::try_from(back.writes)?));
                    }
                    Err(error) => tally
                        .wrong
                        .push(format!("run {run}: not fenced again: {error:#}")),
                }
                if !aftermath.wrongs().is_empty() {
                    at_rest.keep();
                }
                match at_rest.restore(aftermath.old).await {
                    Ok(()) => world = Some(at_rest),
                    Err(error) => {
                        tally
                            .wrong
                            .push(format!("run {run}: not at rest again: {error:#}"));
                        at_rest.keep();
                    }
                }
            }
            Err(error) => {
                println!("{run:3} {:?} failed: {error:#}", fleet.timing);
                tally
                    .wrong
                    .push(format!("run {run}: no recovery: {error:#}"));
                at_rest.keep();
            }
        }
    }
    Ok(())
}

fn count(tally: &mut Tally, run: u32, timing: ReplicationTiming, aftermath: &Aftermath) {
    let judgement = &aftermath.judgement;
    tally
        .verdict
        .extend(aftermath.verdict.map(|verdict| verdict.as_secs_f64()));
    tally.writable.push(aftermath.writable.as_secs_f64());
    tally.replicating.push(aftermath.replicating.as_secs_f64());
    tally.right += u32::from(judgement.is_right());
    tally.no_errant += u32::from(judgement.errant.is_empty());
    tally.nothing_lost += u32::from(judgement.lost.is_empty());
    tally.only_on_dead += judgement.only_on_dead;
    tally.acknowledged += judgement.acknowledged;
    let wrongs = aftermath.wrongs();
    tally
        .wrong
        .extend(wrongs.iter().map(|wrong| format!("run {run}: {wrong}")));
    let verdict = aftermath.verdict.map_or("   -".to_owned(), |verdict| {
        format!("{:.2}", verdict.as_secs_f64())
    });
    println!(
        "{run:3} {timing:?} {} -> {}: verdict {verdict} writable {:.2} replicating {:.2} s, {} writes, {} only on the dead{}",
        aftermath.old,
        aftermath.promoted,
        aftermath.writable.as_secs_f64(),
        aftermath.replicating.as_secs_f64(),
        judgement.acknowledged,
        judgement.only_on_dead,
        if wrongs.is_empty() {
            String::new()
        } else {
            format!(", WRONG: {}", wrongs.join("; "))
        }
    );
}

/// Prints the sums; whether all was well.
fn report(arguments: &Arguments, tally: &mut Tally) -> bool {
    let runs = tally.runs;
    println!(
        "\n{} kills of a {} primary ({:?})",
        runs, arguments.flavour, arguments.how
    );
    println!("seconds from the kill to      min  median     p90     max");
    let median = quantile(&mut tally.writable, 0.5);
    let longest = quantile(&mut tally.writable, 1.0);
    for (name, values) in [
        ("verdict", &mut tally.verdict),
        ("writable", &mut tally.writable),
        ("all replicating", &mut tally.replicating),
        ("(old one takes writes)", &mut tally.slipped_for),
        ("(how many)", &mut tally.slipped),
    ] {
        let cell = |values: &mut Vec<f64>, at| {
            quantile(values, at).map_or("-".to_owned(), |value| format!("{value:.2}"))
        };
        let cells: Vec<String> = [0.0, 0.5, 0.9, 1.0]
            .map(|at| format!("{:>8}", cell(values, at)))
            .to_vec();
        println!("  {name:<22}{} (n={})", cells.concat(), values.len());
    }
    println!(
        "right {}/{runs}, no errant {}/{runs}, nothing lost {}/{runs}",
        tally.right, tally.no_errant, tally.nothing_lost
    );
    println!(
        "{} writes acknowledged, {} of them only the dead primaries had (asynchronous replication)",
        tally.acknowledged, tally.only_on_dead
    );
    println!("machine    {}", machine());
    let mut well = tally.wrong.is_empty();
    for wrong in &tally.wrong {
        println!("WRONG      {wrong}");
    }
    let (what, measured, promised) = match arguments.how {
        How::Kill9 => ("median", median, 2.0),
        How::Sigstop => ("maximum", longest, 8.0),
        How::WithLeader => ("maximum", longest, 6.0),
    };
    let bound = promised * arguments.times;
    if let Some(measured) = measured
        && measured > bound
    {
        println!("TOO SLOW   {what} of kill to writable {measured:.2} s, bound {bound} s");
        well = false;
    }
    // FAILOVER.md section 2: a fence that waits in a frozen server lets 0 to 4 writes through, a fresh dial dozens.
    let (what, measured, promised) = match arguments.how {
        How::Sigstop => ("writes", quantile(&mut tally.slipped, 0.5), SLIPPED_MAX),
        How::Kill9 | How::WithLeader => (
            "seconds of writes",
            quantile(&mut tally.slipped_for, 0.5),
            SLIPPED_FOR_MAX,
        ),
    };
    let bound = promised * arguments.times;
    if let Some(measured) = measured
        && measured > bound
    {
        println!(
            "TOO SLOW   the old primary came back: median of {measured:.2} {what} before the fence, bound {bound}"
        );
        well = false;
    }
    well
}
