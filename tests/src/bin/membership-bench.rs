//! Members that are replaced and provisioned anew, one after another, while commands are sent and failovers go on.
//!
//! Four daemons on loopback, of which three are members, and a fleet of three servers. A replacement puts the one that is
//! none in the place of a member, in one of the ways that the guide has: by other lists of nodes and restarts in some order,
//! online, or half of each. A re-provisioning takes from a member its database, its raft directory or both, or gives it
//! copies, of another member's database or of its own files of a while ago. Without options there is one round of each kind. In
//! every third round the fleet's primary is killed, and recovered, meanwhile. Ends with failure when a command
//! that was acknowledged is not in the database of each member, when a term had two leaders, or when the members are not
//! healthy without anything else being done.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use orchestrator_tests::commands::{Acknowledged, Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, binary, wait_members};
use orchestrator_tests::figures::{Random, machine, quantile};
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming, tail};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Strike, World};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);
const ASK: Duration = Duration::from_secs(5);
/// A change of members online may be asked for this long.
const CHANGE: Duration = Duration::from_secs(60);
/// Commands before, amid and after.
const SOME: usize = 15;

/// Replaces members and provisions them anew.
#[derive(Debug, Parser)]
struct Arguments {
    /// One kind after the other; by default each of them once.
    #[arg(long, default_value_t = REPLACEMENTS.len())]
    replacements: usize,
    /// The same.
    #[arg(long, default_value_t = LOSSES.len())]
    reprovisionings: usize,
    /// Of who is struck; by default from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// A key of the daemons' configuration and its JSON value, as KEY=VALUE; may be repeated.
    #[arg(long = "set")]
    settings: Vec<String>,
}

/// How a member is replaced.
#[derive(Clone, Copy, Debug)]
enum Replacement {
    /// The former is stopped, the newcomer started, the others restarted one by one.
    NewcomerFirst,
    /// The former is stopped, the others are restarted, the second of them twice, the newcomer started.
    NewcomerLast,
    /// As the first, with the former left running by mistake.
    FormerRuns,
    /// `raft-add-peer`, then `raft-remove-peer`.
    AddAndRemove,
    /// In one step, the former alive.
    OneStep,
    /// In one step, the former dead.
    OneStepOfDead,
    /// One of the others is restarted with the other list, and the rest is done in one step online.
    Mixed,
}

const REPLACEMENTS: [Replacement; 7] = [
    Replacement::NewcomerFirst,
    Replacement::OneStepOfDead,
    Replacement::AddAndRemove,
    Replacement::FormerRuns,
    Replacement::OneStep,
    Replacement::Mixed,
    Replacement::NewcomerLast,
];

/// What a member loses, or is given.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Database,
    RaftDirectory,
    Both,
    /// The database is a copy of another member's, of this moment.
    Copied,
    /// The same, and the raft directory is new.
    CopiedAndNew,
    /// Database and raft directory are of a while ago.
    BackInTime,
    /// The raft directory is of a while ago, and the database is not.
    RaftBackInTime,
}

const LOSSES: [Loss; 7] = [
    Loss::RaftDirectory,
    Loss::Copied,
    Loss::Both,
    Loss::Database,
    Loss::BackInTime,
    Loss::CopiedAndNew,
    Loss::RaftBackInTime,
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = async {
        tokio::select! {
            done = bench(&arguments) => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    };
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("membership-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The world, and who of its daemons is no member.
struct Course {
    world: World,
    spare: usize,
    random: Random,
    acknowledged: Acknowledged,
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(clock);
    println!("daemon     {}", binary()?.display());
    println!("machine    {}", machine());
    println!("seed       {seed}");
    let mut options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::default_configuration()
    };
    for (key, value) in [
        ("RaftReplaceSilentSeconds", json!(2)),
        ("RaftReplacePerHour", json!(1_000)),
        ("RaftHeartbeatMillis", json!(100)),
        ("RaftElectionTimeoutMillis", json!(1_000)),
        // Members that come late get snapshots too.
        ("RaftSnapshotEntries", json!(200)),
        ("RaftLogKeepEntries", json!(100)),
        // The fleet fails again and again.
        ("RecoveryPeriodBlockSeconds", json!(1)),
    ] {
        options.settings.insert(key.to_owned(), value);
    }
    options.set_all(&arguments.settings)?;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let mut course = Course {
        world: World::start(fleet, &options).await?,
        spare: 3,
        random: Random::new(seed),
        acknowledged: Acknowledged::default(),
    };
    course.wait_whole().await?;

    let (mut replaced, mut provisioned) = (Vec::new(), Vec::new());
    let rounds = arguments.replacements.max(arguments.reprovisionings);
    let mut round = 0;
    for number in 0..rounds {
        if number < arguments.replacements {
            let way = *pick(&REPLACEMENTS, number);
            let took = course.round(round, Round::Replace(way)).await;
            replaced.push(took.with_context(|| format!("round {round}, {way:?}"))?);
            round += 1;
        }
        if number < arguments.reprovisionings {
            let loss = *pick(&LOSSES, number);
            let took = course.round(round, Round::Lose(loss)).await;
            provisioned.push(took.with_context(|| format!("round {round}, {loss:?}"))?);
            round += 1;
        }
    }

    println!(
        "\n{} commands were acknowledged, and are in the database of each member; {} terms had a leader, none had two",
        course.acknowledged.count,
        course.acknowledged.led.len()
    );
    println!("seconds until the members are whole    min  median     max");
    for (name, values) in [
        ("replaced", &mut replaced),
        ("provisioned anew", &mut provisioned),
    ] {
        let cells: Vec<String> = [0.0, 0.5, 1.0]
            .map(|at| {
                quantile(values, at).map_or("       -".to_owned(), |value| format!("{value:>8.1}"))
            })
            .to_vec();
        println!("  {name:<33}{} (n={})", cells.concat(), values.len());
    }
    println!("machine    {}", machine());
    Ok(())
}

fn pick<T>(of: &[T], number: usize) -> &T {
    &of[number % of.len()]
}

#[derive(Clone, Copy, Debug)]
enum Round {
    Replace(Replacement),
    Lose(Loss),
}

impl Course {
    fn daemons(&self) -> &[Daemon] {
        self.world.daemons.all()
    }

    fn members(&self) -> Vec<&Daemon> {
        let members = self.daemons().iter().enumerate();
        members
            .filter(|(place, _)| *place != self.spare)
            .map(|(_, daemon)| daemon)
            .collect()
    }

    async fn wait_whole(&self) -> Result<()> {
        wait_members(&self.members(), PATIENCE).await
    }

    /// Seconds until the members were whole.
    async fn round(&mut self, number: u32, round: Round) -> Result<f64> {
        let commands = Commands::start(&self.world.daemons, &format!("round-{number}"));
        commands.wait_more(SOME, PATIENCE).await?;
        let struck = self.random.fraction() * 3.0;
        let struck = (0..self.daemons().len())
            .filter(|place| *place != self.spare)
            .nth(struck as usize)
            .context("a member")?;
        let http = self.world.daemons.wait_leader(PATIENCE).await?.http();
        let leads = if self.daemons()[struck].http() == http {
            "the leader"
        } else {
            "a follower"
        };
        let fails = number % 3 == 1;
        let killed = self.world.primary();
        if fails {
            self.world.signal(Strike::KillPrimary).await?;
        }
        let began = Instant::now();
        match round {
            Round::Replace(way) => self.replace(way, struck, &commands).await?,
            Round::Lose(loss) => self.lose(loss, struck, &commands).await?,
        }
        let whole = self.wait_whole().await;
        whole.with_context(|| {
            let logs: Vec<_> = self.daemons().iter().map(Daemon::log).collect();
            tail(&logs)
        })?;
        let took = began.elapsed().as_secs_f64();
        if fails {
            self.wait_recovered(killed).await?;
        }
        commands.wait_more(SOME, PATIENCE).await?;
        self.acknowledged.take_in(commands.end().await);
        self.check().await?;
        let failover = if fails { ", and a failover" } else { "" };
        println!("{number:3} {round:?} of {leads}{failover}: whole after {took:.1} s");
        Ok(took)
    }

    /// Puts the spare one in the place of the one at `former`, which is the spare one from then on.
    async fn replace(
        &mut self,
        way: Replacement,
        former: usize,
        commands: &Commands,
    ) -> Result<()> {
        let (newcomer, daemons) = (self.spare, self.world.daemons.all());
        let others: Vec<&Daemon> = (0..daemons.len())
            .filter(|place| *place != former && *place != newcomer)
            .map(|place| &daemons[place])
            .collect();
        let (former, newcomer) = (&daemons[former], &daemons[newcomer]);
        let wanted = [others.as_slice(), &[newcomer]].concat();
        let everybody = [wanted.as_slice(), &[former]].concat();
        let name_wanted = || {
            wanted
                .iter()
                .try_for_each(|daemon| daemon.set_nodes(&wanted))
        };
        match way {
            Replacement::NewcomerFirst | Replacement::FormerRuns => {
                if matches!(way, Replacement::NewcomerFirst) {
                    former.kill().await?;
                }
                name_wanted()?;
                newcomer.start()?;
                wait_answers(newcomer).await?;
                for other in &others {
                    other.restart(PATIENCE).await?;
                }
            }
            Replacement::NewcomerLast => {
                former.signal(Signal::Terminate);
                former.wait_ended(PATIENCE).await?;
                name_wanted()?;
                for other in others.iter().chain(others.last()) {
                    other.restart(PATIENCE).await?;
                }
                newcomer.start()?;
            }
            Replacement::AddAndRemove => {
                newcomer.set_nodes(&everybody)?;
                newcomer.start()?;
                wait_answers(newcomer).await?;
                let add = format!("/api/raft-add-peer/{}", newcomer.raft());
                self.change(&add).await?;
                commands.wait_more(SOME, PATIENCE).await?;
                let remove = format!("/api/raft-remove-peer/{}", former.raft());
                self.change(&remove).await?;
                name_wanted()?;
            }
            Replacement::OneStep | Replacement::OneStepOfDead => {
                if matches!(way, Replacement::OneStepOfDead) {
                    former.kill().await?;
                }
                newcomer.set_nodes(&everybody)?;
                newcomer.start()?;
                wait_answers(newcomer).await?;
                self.replace_online(former, newcomer).await?;
                name_wanted()?;
            }
            Replacement::Mixed => {
                name_wanted()?;
                newcomer.set_nodes(&everybody)?;
                newcomer.start()?;
                wait_answers(newcomer).await?;
                for other in others.iter().take(1) {
                    other.restart(PATIENCE).await?;
                }
                self.replace_online(former, newcomer).await?;
                newcomer.set_nodes(&wanted)?;
            }
        }
        wait_members(&wanted, PATIENCE).await?;
        former.kill().await?;
        former.wipe()?;
        let former = former.http();
        let mut places = daemons.iter();
        let former = places.position(|daemon| daemon.http() == former);
        self.spare = former.context("one of them")?;
        Ok(())
    }

    async fn replace_online(&self, former: &Daemon, newcomer: &Daemon) -> Result<()> {
        let path = format!(
            "/api/v2/raft-replace-peer/{}/{}",
            former.raft(),
            newcomer.raft()
        );
        self.change(&path).await
    }

    /// Asks for a change of members until it is done; to ask once more is to go on waiting.
    async fn change(&self, path: &str) -> Result<()> {
        until(path, CHANGE, Duration::from_millis(200), async || {
            let leader = match self.world.daemons.wait_leader(PATIENCE).await {
                Ok(leader) => leader,
                Err(error) => return Look::not(error),
            };
            match leader.get(path, CHANGE).await {
                Ok(reply) if reply.status == 200 => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            }
        })
        .await
    }

    async fn lose(&self, loss: Loss, place: usize, commands: &Commands) -> Result<()> {
        let daemon = &self.daemons()[place];
        let other = (0..self.daemons().len()).find(|other| *other != place && *other != self.spare);
        let other = &self.daemons()[other.context("another member")?];
        if matches!(loss, Loss::BackInTime | Loss::RaftBackInTime) {
            return self.go_back(loss, daemon, commands).await;
        }
        daemon.kill().await?;
        commands.wait_more(SOME, PATIENCE).await?;
        if matches!(loss, Loss::RaftDirectory | Loss::Both | Loss::CopiedAndNew) {
            daemon.wipe_raft()?;
        }
        if matches!(loss, Loss::Database | Loss::Both) {
            daemon.wipe_database()?;
        }
        if matches!(loss, Loss::Copied | Loss::CopiedAndNew) {
            let copy = other.copy_database("copy.db")?;
            daemon.put_database(&copy)?;
            std::fs::remove_file(copy)?;
        }
        daemon.start()
    }

    /// The raft directory is put back as it was a while ago, and with [`Loss::BackInTime`] the database too.
    async fn go_back(&self, loss: Loss, daemon: &Daemon, commands: &Commands) -> Result<()> {
        daemon.signal(Signal::Terminate);
        daemon.wait_ended(PATIENCE).await?;
        daemon.keep_raft()?;
        let copy = daemon.copy_database("own.db")?;
        daemon.start()?;
        self.wait_whole().await?;
        commands.wait_more(SOME, PATIENCE).await?;
        daemon.kill().await?;
        daemon.restore_raft()?;
        if matches!(loss, Loss::BackInTime) {
            daemon.put_database(&copy)?;
        }
        std::fs::remove_file(copy)?;
        // It ends where that is found out, and is started again.
        daemon.start_until_healthy(PATIENCE).await.map(drop)
    }

    /// The fleet's primary that was killed was replaced; brings it back as a replica.
    async fn wait_recovered(&mut self, killed: u16) -> Result<()> {
        let what = format!("the recovery of {killed}");
        let promoted = until(&what, PATIENCE, Duration::from_millis(100), async || {
            match self.world.daemons.audit_recovery().await {
                // Newest first.
                Ok(recoveries) => match recoveries.first() {
                    Some(recovery)
                        if recovery.failed_port == killed
                            && recovery.successful
                            && !recovery.active =>
                    {
                        Look::Holds(recovery.successor_port)
                    }
                    newest => Look::not(format!("{newest:?}")),
                },
                Err(error) => Look::not(format!("{error:#}")),
            }
        })
        .await?;
        self.world.set_primary(promoted);
        self.world.fleet.replace(killed, promoted).await?;
        let acknowledge = "/api/ack-all-recoveries?comment=tested";
        self.world.daemons.ask_leader(acknowledge).await?;
        self.world.wait_settled(&[]).await
    }

    /// The database of each member shows what was acknowledged; no term had two leaders.
    async fn check(&self) -> Result<()> {
        for daemon in self.members() {
            let what = format!("{} holds every acknowledged command", daemon.url());
            until(
                &what,
                PATIENCE,
                Duration::from_millis(50),
                async || match held_in_file(daemon).map(|held| self.acknowledged.wrongs(&held)) {
                    Ok(wrongs) if wrongs.is_empty() => Look::Holds(()),
                    other => Look::not(format!("{other:?}")),
                },
            )
            .await?;
        }
        let split = self.acknowledged.split();
        ensure!(split.is_empty(), "several led in one term: {split:?}");
        Ok(())
    }
}

async fn wait_answers(daemon: &Daemon) -> Result<()> {
    let what = format!("{} answers", daemon.url());
    until(
        &what,
        PATIENCE,
        Duration::from_millis(20),
        async || match daemon.get("/api/raft-status", ASK).await {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::not(error),
        },
    )
    .await
}
