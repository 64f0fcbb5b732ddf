//! Daemons that are provisioned anew while commands are sent and a fleet fails: what one of three loses (its database, its
//! raft directory, both), or is given (a copy or a dump of another member's database, a raft directory of last week), is made good
//! without a word of an operator.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orchestrator_tests::commands::{Acknowledged, Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, wait_members};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::HARNESS;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, Strike, World};
use serde_json::{Map, Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// Commands before and after whatever is done.
const SOME: usize = 20;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn options() -> DaemonOptions {
    DaemonOptions {
        settings: object(json!({
            "RaftReplaceSilentSeconds": 2,
            "RaftReplacePerHour": 100,
            // A machine that is busy with other things does not lose its leader by it.
            "RaftHeartbeatMillis": 100,
            "RaftElectionTimeoutMillis": 1000,
        })),
        ..DaemonOptions::default_configuration()
    }
}

fn servers(flavour: Flavour, servers: usize) -> FleetOptions {
    FleetOptions {
        flavour,
        servers,
        timing: ReplicationTiming::Quick,
    }
}

/// Whether the daemon is the same member after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    Kept,
    Another,
}

/// Three daemons and what holds of each of them.
struct Trial<Held> {
    world: World,
    /// The acknowledged commands that a daemon's database shows, by its place.
    held: Held,
    acknowledged: Acknowledged,
}

impl<Held: AsyncFn(&World, usize) -> Result<BTreeSet<String>>> Trial<Held> {
    async fn start(options: &DaemonOptions, held: Held) -> Result<Self> {
        let world = World::start(servers(Flavour::MariaDb, 3), options).await?;
        let trial = Trial {
            world,
            held,
            acknowledged: Acknowledged::default(),
        };
        trial.wait_whole().await?;
        Ok(trial)
    }

    fn daemon(&self, place: usize) -> &Daemon {
        &self.world.daemons.all()[place]
    }

    async fn wait_whole(&self) -> Result<()> {
        let daemons: Vec<&Daemon> = self.world.daemons.all().iter().collect();
        wait_members(&daemons, PATIENCE).await
    }

    async fn leader(&self) -> Result<usize> {
        let http = self.world.daemons.wait_leader(PATIENCE).await?.http();
        let mut daemons = self.world.daemons.all().iter();
        daemons
            .position(|daemon| daemon.http() == http)
            .context("one of them")
    }

    async fn follower(&self) -> Result<usize> {
        Ok((self.leader().await? + 1) % self.world.daemons.all().len())
    }

    /// Does something to the daemon at this place, which is stopped and in the end started by it, while commands are sent.
    async fn round(
        &mut self,
        what: &str,
        place: usize,
        identity: Identity,
        act: impl AsyncFnOnce(&mut World, &Commands) -> Result<()>,
    ) -> Result<()> {
        let began = Instant::now();
        let names = what.replace([' ', ',', '\''], "-");
        let commands = Commands::start(&self.world.daemons, &names);
        commands.wait_more(SOME, PATIENCE).await?;
        let before = self.daemon(place).node().await?;
        act(&mut self.world, &commands).await?;
        let ended = self.wait_whole().await;
        let log = || orchestrator_tests::fleet::tail(&[self.daemon(place).log()]);
        ended.with_context(log)?;
        let after = self.daemon(place).node().await?;
        ensure!(
            (before == after) == (identity == Identity::Kept),
            "{what}: it was {before} and is {after}\n{}",
            log()
        );
        commands.wait_more(SOME, PATIENCE).await?;
        self.acknowledged.take_in(commands.end().await);
        self.check().await.with_context(|| what.to_owned())?;
        println!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Every daemon's database shows what was acknowledged, and all show the same; no term had two leaders.
    async fn check(&self) -> Result<()> {
        let places = 0..self.world.daemons.all().len();
        let what = "each database shows every acknowledged command";
        until(what, PATIENCE, Duration::from_millis(50), async || {
            let mut first = None;
            for place in places.clone() {
                let held = match (self.held)(&self.world, place).await {
                    Ok(held) => held,
                    Err(error) => return Look::not(format!("daemon {place}: {error:#}")),
                };
                let wrongs = self.acknowledged.wrongs(&held);
                if !wrongs.is_empty() {
                    return Look::not(format!("daemon {place}: {wrongs:?}"));
                }
                if *first.get_or_insert_with(|| held.clone()) != held {
                    return Look::not(format!("daemon {place} holds something else"));
                }
            }
            Look::Holds(())
        })
        .await?;
        ensure!(
            self.acknowledged.split().is_empty(),
            "{:?}",
            self.acknowledged.split()
        );
        Ok(())
    }

    fn end(&self) {
        println!(
            "{} commands acknowledged, leaders by term: {:?}",
            self.acknowledged.count, self.acknowledged.led
        );
    }
}

/// Waits until this daemon holds what the leader holds at present, and the leader knows it: who goes back to before that has
/// forgotten something. A member that was just started is healthy before it is sent what it missed.
async fn wait_held(world: &World, daemon: &Daemon) -> Result<()> {
    let leader = world.daemons.wait_leader(PATIENCE).await?;
    let number = |value: &Value| value.as_u64().context("a number");
    let wanted = number(&leader.status().await?["LastLogIndex"])?;
    let what = format!("{} is known to hold {wanted}", daemon.url());
    until(&what, PATIENCE, Duration::from_millis(50), async || {
        let status = match leader.status().await {
            Ok(status) => status,
            Err(error) => return Look::not(format!("{error:#}")),
        };
        let mut members = status["Members"].as_array().into_iter().flatten();
        let behind = members
            .find(|member| member["Address"] == daemon.raft())
            .and_then(|member| member["EntriesBehind"].as_u64());
        match (status["LastLogIndex"].as_u64(), behind) {
            (Some(last), Some(behind)) if last >= wanted + behind => Look::Holds(()),
            _ => Look::not(format!("{status:#}")),
        }
    })
    .await
}

#[tokio::test]
async fn what_a_daemon_with_a_file_loses_comes_back() -> Result<()> {
    let mut trial = Trial::start(&options(), async |world: &World, place: usize| {
        held_in_file(&world.daemons.all()[place])
    })
    .await?;

    let one = trial.leader().await?;
    let what = "the database of the leader is lost";
    let act = async |world: &mut World, commands: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.wipe_database()?;
        commands.wait_more(SOME, PATIENCE).await?;
        daemon.start()
    };
    trial.round(what, one, Identity::Kept, act).await?;

    let one = trial.follower().await?;
    let what = "the raft directory is lost";
    let act = async |world: &mut World, _: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.wipe_raft()?;
        daemon.start()
    };
    trial.round(what, one, Identity::Another, act).await?;

    let one = trial.leader().await?;
    let what = "both are lost by the leader";
    let act = async |world: &mut World, _: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.wipe()?;
        daemon.start()
    };
    trial.round(what, one, Identity::Another, act).await?;

    // The older copy is of before that round's commands, and the daemon's own log goes beyond it.
    let one = trial.follower().await?;
    let other = trial.leader().await?;
    let older = trial.daemon(other).copy_database("older.db")?;
    let what = "the database is an older copy of another member's";
    let act = async |world: &mut World, _: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.put_database(&older)?;
        daemon.start()
    };
    trial.round(what, one, Identity::Kept, act).await?;

    let what = "the database is a copy that is ahead, and the fleet fails meanwhile";
    let act = async |world: &mut World, commands: &Commands| {
        world.daemons.all()[one].kill().await?;
        commands.wait_more(SOME, PATIENCE).await?;
        let aftermath = world
            .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
            .await?;
        ensure!(aftermath.wrongs().is_empty(), "{:?}", aftermath.wrongs());
        // The member that is not the victim, and perhaps leads.
        let other = &world.daemons.all()[(one + 1) % 3];
        let copy = other.copy_database("ahead.db")?;
        let daemon = &world.daemons.all()[one];
        daemon.put_database(&copy)?;
        daemon.start()
    };
    trial.round(what, one, Identity::Kept, act).await?;

    let what = "the raft directory is new and the database a copy of another member's";
    let act = async |world: &mut World, _: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.wipe_raft()?;
        daemon.put_database(&older)?;
        daemon.start()
    };
    trial.round(what, one, Identity::Another, act).await?;

    let what = "both are lost, and the database is a dump of another member's that runs";
    let act = async |world: &mut World, commands: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        daemon.wipe()?;
        let other = &world.daemons.all()[(one + 1) % 3];
        dump_file(&other.database(), &daemon.database())?;
        commands.wait_more(SOME, PATIENCE).await?;
        daemon.start()
    };
    trial.round(what, one, Identity::Another, act).await?;
    wait_same(&trial.world).await?;

    // Whoever starts services starts it again after it ended.
    let what = "the whole machine goes back in time";
    let act = async |world: &mut World, commands: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.signal(Signal::Terminate);
        daemon.wait_ended(PATIENCE).await?;
        daemon.keep_raft()?;
        let copy = daemon.copy_database("own.db")?;
        daemon.start()?;
        let daemons: Vec<&Daemon> = world.daemons.all().iter().collect();
        wait_members(&daemons, PATIENCE).await?;
        commands.wait_more(SOME, PATIENCE).await?;
        wait_held(world, daemon).await?;
        daemon.kill().await?;
        daemon.restore_raft()?;
        daemon.put_database(&copy)?;
        // Its start has a number that the members heard before: for them there are two of it, until the next start.
        daemon.start_until_healthy(PATIENCE).await?;
        let log = std::fs::read_to_string(daemon.log())?;
        ensure!(log.contains("went back"), "{log}");
        Ok(())
    };
    trial.round(what, one, Identity::Another, act).await?;
    trial.end();
    Ok(())
}

/// Copies a database as people type it.
fn dump_file(from: &Path, to: &Path) -> Result<()> {
    let typed = format!(
        "sqlite3 {} .dump | sqlite3 {}",
        from.display(),
        to.display()
    );
    let lacks = "sqlite3; type:  tests/setup.sh network";
    let version = Command::new("sqlite3").arg("-version").output();
    ensure!(version.context(lacks)?.status.success(), lacks);
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &typed])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "{typed}: {said}"
    );
    Ok(())
}

/// Waits until all databases are of one state, and each names the daemon that writes it, and no other, as alive: a copy brings
/// along the row of the daemon that it was made of.
async fn wait_same(world: &World) -> Result<()> {
    let what = "the databases are the same, and each is its daemon's own";
    until(what, PATIENCE, Duration::from_millis(50), async || {
        let looked: Result<BTreeSet<_>> = world.daemons.all().iter().map(stands).collect();
        match looked {
            Ok(states) if states.len() == 1 => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    })
    .await
}

/// The position of a daemon's database, and the digest of the state there.
fn stands(daemon: &Daemon) -> Result<(i64, String)> {
    let file = rusqlite::Connection::open(daemon.database())?;
    let alive = "SELECT group_concat(token) FROM node_health";
    let alive: Option<String> = file.query_row(alive, [], |row| row.get(0))?;
    let token = daemon.token()?;
    ensure!(alive.as_ref() == Some(&token), "{alive:?}, not {token}");
    let state = "SELECT applied_index, digest FROM orchestrator_projection";
    Ok(file.query_row(state, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn schema(place: usize) -> String {
    format!("orc{}", place + 1)
}

/// MariaDB's programs for people, at a server.
fn mariadb(program: &str, server: &Fleet) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"])
        .arg(format!("--port={}", server.ports()[0]))
        .arg(format!("--user={}", HARNESS.user))
        .arg(format!("--password={}", HARNESS.password));
    command
}

/// What a backup of a schema is.
fn dump(server: &Fleet, place: usize) -> Result<Vec<u8>> {
    let mut command = mariadb("mariadb-dump", server);
    let output = command
        .args(["--single-transaction", &schema(place)])
        .output()
        .context("mariadb-dump; type:  tests/setup.sh mariadb")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mariadb-dump: {said}");
    Ok(output.stdout)
}

/// Puts a backup in the place of a schema.
fn load(server: &Fleet, place: usize, backup: &[u8], world: &World) -> Result<()> {
    let path = world.daemons.all()[place].folder().join("backup.sql");
    let name = schema(place);
    let begin = format!("DROP DATABASE {name}; CREATE DATABASE {name}; USE {name};\n");
    std::fs::write(&path, [begin.as_bytes(), backup].concat())?;
    let mut command = mariadb("mariadb", server);
    let output = command.stdin(File::open(&path)?).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mariadb: {said}");
    Ok(())
}

#[tokio::test]
async fn what_a_daemon_with_a_mysql_backend_loses_comes_back() -> Result<()> {
    let server = Fleet::start(servers(Flavour::MariaDb, 1)).await?;
    let mut sql = server.servers()[0].harness().await?;
    for place in 0..3 {
        let name = schema(place);
        sql.run_all([
            format!("CREATE DATABASE {name}"),
            format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'secret'"),
            format!("GRANT ALL PRIVILEGES ON {name}.* TO '{name}'@'%'"),
        ])
        .await?;
    }
    sql.close().await;
    let mut options = options();
    options.settings.extend(object(json!({
        "BackendDB": "mysql",
        "MySQLOrchestratorHost": "127.0.0.1",
        "MySQLOrchestratorPort": server.ports()[0],
        "MySQLOrchestratorDatabase": "orc{daemon}",
        "MySQLOrchestratorUser": "orc{daemon}",
        "MySQLOrchestratorPassword": "secret",
    })));
    let held = async |_: &World, place: usize| {
        let mut sql = server.servers()[0].harness().await?;
        sql.run(&format!("USE {}", schema(place))).await?;
        let rows = sql.rows(Acknowledged::QUERY).await?;
        sql.close().await;
        Ok(rows.iter().map(|row| row.only().to_owned()).collect())
    };
    let mut trial = Trial::start(&options, held).await?;

    let one = trial.leader().await?;
    let what = "the schema of the leader is dropped";
    let act = async |world: &mut World, commands: &Commands| {
        let daemon = &world.daemons.all()[one];
        daemon.kill().await?;
        let mut sql = server.servers()[0].harness().await?;
        let name = schema(one);
        sql.run(&format!("DROP DATABASE {name}")).await?;
        sql.close().await;
        commands.wait_more(SOME, PATIENCE).await?;
        daemon.start()
    };
    trial.round(what, one, Identity::Kept, act).await?;

    let one = trial.follower().await?;
    let what = "the raft directory is lost, and the fleet fails meanwhile";
    let act = async |world: &mut World, _: &Commands| {
        world.daemons.all()[one].kill().await?;
        let aftermath = world
            .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
            .await?;
        ensure!(aftermath.wrongs().is_empty(), "{:?}", aftermath.wrongs());
        let daemon = &world.daemons.all()[one];
        daemon.wipe_raft()?;
        daemon.start()
    };
    trial.round(what, one, Identity::Another, act).await?;

    let what = "the schema is a dump of another member's that is ahead";
    let act = async |world: &mut World, commands: &Commands| {
        world.daemons.all()[one].kill().await?;
        commands.wait_more(SOME, PATIENCE).await?;
        let backup = dump(&server, (one + 1) % 3)?;
        load(&server, one, &backup, world)?;
        world.daemons.all()[one].start()
    };
    trial.round(what, one, Identity::Kept, act).await?;

    // By then whoever wrote the backup's rows has been silent there for long.
    let backup = dump(&server, (one + 1) % 3)?;
    let one = trial.follower().await?;
    let what = "both are lost, and the schema is a dump of another member's";
    let act = async |world: &mut World, commands: &Commands| {
        world.daemons.all()[one].kill().await?;
        world.daemons.all()[one].wipe_raft()?;
        commands.wait_more(SOME, PATIENCE).await?;
        load(&server, one, &backup, world)?;
        world.daemons.all()[one].start()
    };
    trial.round(what, one, Identity::Another, act).await?;
    trial.end();
    Ok(())
}
