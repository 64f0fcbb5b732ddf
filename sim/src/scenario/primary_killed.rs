//! Three daemons, one primary with three replicas, a client that writes; the primary's process is killed at a time drawn
//! from the seed, and stays dead. After 15 simulated seconds one replica, the right one, has taken its place.
//!
//! At wish the daemon that leads loses power at the same time, and comes back three seconds later.

use std::net::IpAddr;
use std::time::Duration;

use orchestrator::env::{sleep, spawn};
use orchestrator_core::id::InstanceKey;

use super::{Script, Summary};
use crate::browser;
use crate::daemon::Daemons;
use crate::engine::{Engine, Machine};
use crate::model::client::write_for_ever;
use crate::model::{Host, Kind, Ledger, Server};
use crate::oracle::{self, Ended, same_digest::Digests};
use crate::outcome::Failure;
use crate::random::SplitMix;

/// How long it lasts.
const LENGTH: Duration = Duration::from_secs(15);
/// No run takes longer.
pub const LIMIT: Duration = Duration::from_secs(20);
/// All daemons must see the whole fleet by then.
const DISCOVERED_BY: Duration = Duration::from_secs(8);
/// When the primary is killed, in milliseconds: from, to.
const KILL_MILLISECONDS: (u64, u64) = (8_000, 10_000);
/// A daemon that lost power comes back after so long.
const OUTAGE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);
const DAEMONS: u8 = 3;
const SERVERS: u32 = 4;
const PURPOSE: u64 = 0x0dead;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Victims {
    Primary,
    PrimaryAndLeader,
}

/// The machines and the scenario of a seed. Even seeds have MySQL servers, odd ones MariaDB's.
pub fn world<E: Engine>(victims: Victims, seed: u64) -> (Vec<Machine>, Script) {
    let kind = if seed.is_multiple_of(2) {
        Kind::Mysql
    } else {
        Kind::Mariadb
    };
    let daemons = Daemons::default();
    let hosts = fleet(kind, seed);
    let mut machines = daemons.machines::<E>(DAEMONS);
    for (host, last) in hosts.iter().zip(1..) {
        let program = host.clone();
        machines.push(Machine::new(
            host.key().host.clone(),
            IpAddr::from([10, 0, 1, last]),
            move |_| program.clone().run::<E>(),
        ));
    }
    (machines, Box::pin(play::<E>(victims, seed, daemons, hosts)))
}

fn key(number: u32) -> InstanceKey {
    InstanceKey::new(format!("m{number}"), 3306)
}

fn fleet(kind: Kind, seed: u64) -> Vec<Host> {
    (1..=SERVERS)
        .map(|number| {
            let mut server = Server::new(key(number), kind, number, number > 1);
            if number > 1 {
                server.replicate_from(key(1));
            }
            Host::new(server, seed)
        })
        .collect()
}

async fn play<E: Engine>(
    victims: Victims,
    seed: u64,
    daemons: Daemons,
    hosts: Vec<Host>,
) -> Result<Summary, Failure> {
    let mut random = SplitMix::new(seed, PURPOSE);
    let (low, high) = KILL_MILLISECONDS;
    let kill_at = Duration::from_millis(random.between(low, high));
    let ledger = Ledger::default();
    let servers = hosts.iter().map(|host| host.key().clone()).collect();
    spawn::<E>(write_for_ever::<E>(servers, ledger.clone(), 1));

    discover::<E>(&daemons, hosts.len()).await?;
    let mut digests = Digests::default();
    let mut killed_at = None;
    let mut returns: Option<(Duration, String)> = None;
    while E::elapsed() < LENGTH {
        if killed_at.is_none() && E::elapsed() + LOOK > kill_at {
            sleep::<E>(kill_at.saturating_sub(E::elapsed())).await;
            hosts[0].change(Server::kill);
            orchestrator::trace::event("fault", format_args!("kill {}", hosts[0].key()));
            killed_at = Some(E::elapsed());
            if victims == Victims::PrimaryAndLeader {
                let leader = strike_leader::<E>(&daemons).await?;
                returns = Some((E::elapsed() + OUTAGE, leader));
            }
        }
        if let Some((_, daemon)) = returns.take_if(|(at, _)| *at <= E::elapsed()) {
            E::boot(&daemon);
        }
        let views = daemons.views().await;
        digests.look(&views).map_err(Failure::Safety)?;
        still_up(&daemons)?;
        sleep::<E>(LOOK).await;
    }

    let ended = Ended {
        killed: hosts[0].key().clone(),
        hosts,
        ledger,
        daemons: settled::<E>(&daemons, &mut digests).await?,
    };
    judge(&ended)?;
    let killed_at = killed_at.unwrap_or_default();
    let audited = browser::get::<E>("n1", "/api/audit-recovery")
        .await
        .map_err(|error| Failure::Liveness(format!("no audit over HTTP: {error}")))?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&audited.1)
        .map_err(|error| Failure::Safety(format!("{audited:?} is no audit: {error}")))?;
    if audited.0 != 200 || rows.len() != 1 {
        return Err(Failure::Safety(format!(
            "one recovery, and the audit over HTTP shows {audited:?}"
        )));
    }
    let writable = first_write_after(&ended, killed_at);
    Ok(format!(
        "killed at {} ms, writable after {} ms, {} writes acknowledged",
        killed_at.as_millis(),
        writable.map_or(0, |after| after.as_millis()),
        ended.ledger.acknowledged().len()
    ))
}

/// Cuts the power of the daemon that leads.
async fn strike_leader<E: Engine>(daemons: &Daemons) -> Result<String, Failure> {
    let views = daemons.views().await;
    let Some(leader) = views.into_iter().find(|view| view.leads) else {
        return Err(Failure::Liveness("no daemon leads".to_owned()));
    };
    orchestrator::trace::event("fault", format_args!("power cut of {}", leader.name));
    E::power_cut(&leader.name);
    Ok(leader.name)
}

/// Names one replica to a daemon and waits until every daemon sees the whole fleet.
async fn discover<E: Engine>(daemons: &Daemons, servers: usize) -> Result<(), Failure> {
    let mut is_named = false;
    loop {
        sleep::<E>(LOOK).await;
        still_up(daemons)?;
        if !is_named {
            let answer = browser::get::<E>("n1", "/api/discover/m2/3306").await;
            is_named = matches!(answer, Ok((200, _)));
        }
        let views = daemons.views().await;
        let sees_all = views.iter().filter(|view| view.servers_seen == servers);
        if sees_all.count() == usize::from(DAEMONS) {
            return Ok(());
        }
        if E::elapsed() > DISCOVERED_BY {
            let seen: Vec<_> = views
                .iter()
                .map(|view| (&view.name, view.servers_seen))
                .collect();
            return Err(Failure::Liveness(format!(
                "not every daemon sees {servers} servers after {} s: {seen:?}, named: {is_named}",
                DISCOVERED_BY.as_secs()
            )));
        }
    }
}

fn still_up(daemons: &Daemons) -> Result<(), Failure> {
    match daemons.ended().first() {
        None => Ok(()),
        Some(reason) => Err(Failure::Crash(reason.clone())),
    }
}

/// All daemons at one position.
async fn settled<E: Engine>(
    daemons: &Daemons,
    digests: &mut Digests,
) -> Result<Vec<crate::daemon::DaemonView>, Failure> {
    let until = E::elapsed() + Duration::from_secs(2);
    loop {
        let views = daemons.views().await;
        digests.look(&views).map_err(Failure::Safety)?;
        let first = views.first().map(|view| view.at);
        if views.len() == usize::from(DAEMONS) && views.iter().all(|view| Some(view.at) == first) {
            return Ok(views);
        }
        if E::elapsed() > until {
            let at: Vec<_> = views.iter().map(|view| (&view.name, view.at)).collect();
            return Err(Failure::Liveness(format!(
                "the daemons do not come to one position: {at:?}"
            )));
        }
        sleep::<E>(Duration::from_millis(20)).await;
    }
}

fn judge(ended: &Ended) -> Result<(), Failure> {
    // Nothing promoted at all is a matter of time, not of safety.
    let opened = ended
        .hosts
        .iter()
        .any(|host| host.look(|server| !server.opened().is_empty()));
    if !opened {
        let recoveries: Vec<_> = ended
            .daemons
            .first()
            .map(|daemon| {
                daemon
                    .recoveries
                    .iter()
                    .map(|one| (one.stage, &one.end, &one.errors))
                    .collect()
            })
            .unwrap_or_default();
        return Err(Failure::Liveness(format!(
            "no server was promoted; recoveries: {recoveries:?}"
        )));
    }
    for check in [
        oracle::one_primary::check,
        oracle::nothing_lost::check,
        oracle::no_errant::check,
        oracle::one_recovery::check,
    ] {
        check(ended).map_err(Failure::Safety)?;
    }
    Ok(())
}

/// How long after the kill a write was acknowledged by another server.
fn first_write_after(ended: &Ended, killed_at: Duration) -> Option<Duration> {
    ended
        .ledger
        .acknowledged()
        .into_iter()
        .filter(|(_, _, by)| *by != ended.killed)
        .map(|(_, at, _)| at.saturating_sub(killed_at))
        .min()
}
