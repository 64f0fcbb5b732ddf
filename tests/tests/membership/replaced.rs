//! A member is replaced in one step, and in the middle of it somebody dies whom it needs: the leader, which may be the one that is
//! to go, or the newcomer. The change is finished without another word, and nothing that was acknowledged is lost.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orchestrator_tests::commands::{Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, Reply, get};
use orchestrator_tests::fleet::tail;
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{LEFT, PATIENCE, members, says, shows_stranger};

/// Commands before and after.
const SOME: usize = 20;
const PACE: Duration = Duration::from_millis(50);
/// A change goes through all of its steps within a few of these.
const GLANCE: Duration = Duration::from_millis(2);
/// A newcomer that goes on is heard within this time.
const HEARD: Duration = Duration::from_millis(1_500);

/// Who is to be replaced.
#[derive(Clone, Copy, Debug)]
enum Former {
    Leader,
    Follower,
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader,
    Newcomer,
}

/// What `raft-status` shows when somebody is struck.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The change is under way, and nothing of it done: the newcomer stands still, and nobody but the log knows of it.
    Begun,
    /// The newcomer is among the members: it gets the log, is about to vote, or does so.
    LetIn,
}

impl Moment {
    fn is_shown(self, status: &Value, newcomer: &str) -> bool {
        match self {
            Moment::Begun => status["Change"] != "",
            Moment::LetIn => {
                let mut rows = status["Members"].as_array().into_iter().flatten();
                rows.any(|row| row["Node"] == newcomer)
            }
        }
    }
}

#[tokio::test]
async fn the_leader_dies_while_a_member_is_replaced_in_one_step() -> Result<()> {
    replace(Former::Follower, Victim::Leader, Moment::Begun).await?;
    replace(Former::Leader, Victim::Leader, Moment::Begun).await?;
    replace(Former::Follower, Victim::Leader, Moment::LetIn).await
}

#[tokio::test]
async fn the_newcomer_dies_while_it_replaces_a_member_in_one_step() -> Result<()> {
    replace(Former::Follower, Victim::Newcomer, Moment::Begun).await?;
    replace(Former::Follower, Victim::Newcomer, Moment::LetIn).await
}

fn options() -> DaemonOptions {
    let mut options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::default_configuration()
    };
    // A machine that is busy with other things does not lose its leader by it, and another one is elected soon.
    for (key, value) in [
        ("RaftHeartbeatMillis", 100),
        ("RaftElectionTimeoutMillis", 1_000),
    ] {
        options.settings.insert(key.to_owned(), json!(value));
    }
    options
}

async fn replace(former: Former, victim: Victim, moment: Moment) -> Result<()> {
    let began = Instant::now();
    let daemons = Daemons::start(&options())?;
    let replaced = replace_in(&daemons, former, victim, moment).await;
    replaced.with_context(|| {
        let logs: Vec<_> = daemons.all().iter().map(Daemon::log).collect();
        format!("{former:?} {victim:?} {moment:?}\n{}", tail(&logs))
    })?;
    let took = began.elapsed().as_secs_f64();
    println!("{took:5.1} s  {former:?} replaced, {victim:?} killed, {moment:?}");
    Ok(())
}

async fn replace_in(
    daemons: &Daemons,
    former: Former,
    victim: Victim,
    moment: Moment,
) -> Result<()> {
    let everybody: Vec<&Daemon> = daemons.all().iter().collect();
    let (founders, newcomer) = (&everybody[..3], everybody[3]);
    daemons.wait_leader(PATIENCE).await?;
    members(founders).await?;
    newcomer.set_nodes(&everybody)?;
    newcomer.start()?;
    says(newcomer, "/api/raft-health", "no member has").await?;
    let commands = Commands::start(daemons, "replaced");
    commands.wait_more(SOME, PATIENCE).await?;

    let leader = daemons.wait_leader(PATIENCE).await?;
    let is = |one: &Daemon, other: &Daemon| one.http() == other.http();
    let mut followers = founders.iter().copied();
    let follower = followers.find(|daemon| !is(daemon, leader));
    let former = match former {
        Former::Leader => leader,
        Former::Follower => follower.context("a follower")?,
    };
    let stay = founders.iter().filter(|daemon| !is(daemon, former));
    let wanted: Vec<&Daemon> = stay.copied().chain([newcomer]).collect();
    shows_stranger(leader, Some((newcomer, "no member has"))).await?;
    let mut voters = Vec::new();
    for daemon in &wanted {
        voters.push(daemon.node().await?);
    }
    voters.sort();
    let status = begin(leader, former, newcomer, moment).await?;
    match victim {
        Victim::Leader => {
            leader.signal(Signal::Kill);
            newcomer.signal(Signal::Continue);
            leader.wait_ended(PATIENCE).await?;
        }
        Victim::Newcomer => newcomer.kill().await?,
    }
    let rows = status["Members"].as_array().into_iter().flatten();
    let rows: Vec<String> = rows
        .map(|row| format!("{} votes: {}", row["Address"], row["Voter"]))
        .collect();
    println!("struck at the change {}, {rows:?}", status["Change"]);

    match victim {
        Victim::Leader => {
            // The next leader goes on with it while the last one is away, and that one finds the members changed.
            for daemon in wanted.iter().filter(|daemon| !is(daemon, leader)) {
                shows_voters(daemon, &voters).await?;
            }
            names_all(newcomer).await?;
            if !is(former, leader) {
                leader.start()?;
            }
        }
        Victim::Newcomer => newcomer.start()?,
    }
    members(&wanted).await?;
    if former.is_running() {
        says(former, "/api/raft-health", LEFT).await?;
    }

    commands.wait_more(SOME, PATIENCE).await?;
    let acknowledged = commands.end().await;
    for daemon in wanted {
        let what = format!("{} holds every acknowledged command", daemon.url());
        let held = || held_in_file(daemon).map(|held| acknowledged.wrongs(&held));
        until(&what, PATIENCE, PACE, async || match held() {
            Ok(wrongs) if wrongs.is_empty() => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        })
        .await?;
    }
    let split = acknowledged.split();
    ensure!(split.is_empty(), "several led in one term: {split:?}");
    Ok(())
}

/// It knows where each member is, the one that died before they met included.
async fn names_all(daemon: &Daemon) -> Result<()> {
    let what = format!("{} names every member", daemon.url());
    until(&what, PATIENCE, PACE, async || {
        match daemon.status().await {
            Ok(status) => {
                let mut rows = status["Members"].as_array().into_iter().flatten();
                if rows.all(|row| row["Address"].as_str().is_some_and(|at| !at.is_empty())) {
                    Look::Holds(())
                } else {
                    Look::not(format!("{status:#}"))
                }
            }
            Err(error) => Look::not(format!("{error:#}")),
        }
    })
    .await
}

/// Asks the leader for the change, and looks at it until that is shown; what it shows then. Where the newcomer was not heard for a
/// moment nothing is begun, and it is asked for again.
async fn begin(
    leader: &Daemon,
    former: &Daemon,
    newcomer: &Daemon,
    moment: Moment,
) -> Result<Value> {
    let node = newcomer.node().await?;
    let path = format!(
        "/api/v2/raft-replace-peer/{}/{}",
        former.raft(),
        newcomer.raft()
    );
    until(&path, PATIENCE, HEARD, async || {
        if matches!(moment, Moment::Begun) {
            newcomer.signal(Signal::Stop);
        }
        let asked = ask(leader.http(), path.clone());
        let shown = until("it is shown", PATIENCE, GLANCE, async || {
            let is_answered = asked.is_finished();
            match leader.status().await {
                Ok(status) if moment.is_shown(&status, &node) => Look::Holds(Some(status)),
                Ok(_) if is_answered => Look::Holds(None),
                other => Look::not(format!("{other:?}")),
            }
        })
        .await;
        match shown {
            Ok(Some(status)) => Look::Holds(status),
            other => {
                newcomer.signal(Signal::Continue);
                asked.abort();
                Look::not(format!("{other:?} {:?}", asked.await))
            }
        }
    })
    .await
}

fn ask(address: SocketAddr, path: String) -> JoinHandle<Result<Reply>> {
    tokio::spawn(async move { get(address, &path, PATIENCE).await })
}

/// Waits until this daemon shows exactly these nodes as voters, whether they are there or not, and no change under way.
async fn shows_voters(daemon: &Daemon, wanted: &[String]) -> Result<()> {
    let what = format!("{} shows the voters {wanted:?}", daemon.url());
    until(&what, PATIENCE, PACE, async || {
        let status = match daemon.status().await {
            Ok(status) => status,
            Err(error) => return Look::not(format!("{error:#}")),
        };
        let rows = status["Members"].as_array().cloned().unwrap_or_default();
        let voters = rows.iter().filter(|row| row["Voter"] == true);
        let mut found: Vec<&str> = voters.filter_map(|row| row["Node"].as_str()).collect();
        found.sort_unstable();
        if found == wanted && rows.len() == wanted.len() && status["Change"] == "" {
            Look::Holds(())
        } else {
            Look::not(format!("{status:#}"))
        }
    })
    .await
}
