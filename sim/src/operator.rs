//! People and their scripts, over the daemons' HTTP service: the first discovery, and at wish the small changes that go
//! on all day (downtimes, tags, promotion rules, acknowledgements, discoveries, an edited configuration), at any daemon.
//!
//! They forget a replica at times, one after another, and name it again or leave it to be found by its primary's list. They
//! forget no primary, switch no recoveries off and release no old primary: two primaries that people let be are theirs to
//! mend, and nothing here does.

use std::time::Duration;

use orchestrator::env::sleep;
use orchestrator::trace::event;
use orchestrator_core::id::InstanceKey;

use crate::engine::Engine;
use crate::model::Host;
use crate::random::SplitMix;
use crate::{browser, witness};

const PURPOSE: u64 = 0x09e7;
const RETRY: Duration = Duration::from_millis(100);
const PRESS_AGAIN: Duration = Duration::from_secs(1);
/// Of tags, of lengths of downtimes and the like.
const KINDS: u64 = 5;
/// Nothing is forgotten before the whole fleet is discovered, which takes so long at most.
const DISCOVERED_BY: Duration = Duration::from_secs(8);
/// So many others must replicate.
const SPARE_REPLICAS: usize = 2;
/// Between two changes, in milliseconds: from, to.
const PAUSE_MILLISECONDS: (u64, u64) = (50, 900);

/// Names one server to the daemons, one after another, until one takes it.
pub async fn discover<E: Engine>(daemons: &[String], server: InstanceKey) {
    ask_until_done::<E>(
        daemons,
        &format!("/api/discover/{}/{}", server.host, server.port),
    )
    .await;
}

/// A server that dies in a downtime is left alone until that ends, so long after they stopped at the latest.
pub const LONGEST_DOWNTIME: Duration = Duration::from_secs(KINDS);

/// Gives the cluster of this primary an alias.
pub async fn name_cluster<E: Engine>(daemons: &[String], primary: &InstanceKey, alias: &str) {
    ask_until_done::<E>(
        daemons,
        &format!("/api/set-cluster-alias/{primary}?alias={alias}"),
    )
    .await;
}

/// Asks the daemons, one after another, until one has done it.
async fn ask_until_done<E: Engine>(daemons: &[String], path: &str) {
    for daemon in daemons.iter().cycle() {
        sleep::<E>(RETRY).await;
        let answer = browser::get::<E>(daemon, path).await;
        if matches!(answer, Ok((200, _))) {
            event("operator", format_args!("{daemon} {path}: done"));
            return;
        }
    }
}

/// Asks the daemons, one after another, until one has done it, or it is this late.
pub async fn press<E: Engine>(daemons: Vec<String>, path: String, until: Duration) {
    for daemon in daemons.iter().cycle() {
        if E::elapsed() >= until {
            return;
        }
        let answer = browser::get::<E>(daemon, &path).await;
        event("operator", format_args!("{daemon} {path}: {answer:?}"));
        if matches!(answer, Ok((200, _))) {
            return;
        }
        sleep::<E>(PRESS_AGAIN).await;
    }
}

/// Changes things until it is this late. What is said to be done must be; whether it is done does not matter.
pub async fn work<E: Engine>(
    daemons: Vec<String>,
    servers: Vec<String>,
    seed: u64,
    until: Duration,
) {
    let mut random = SplitMix::new(seed, PURPOSE);
    while E::elapsed() < until {
        let (low, high) = PAUSE_MILLISECONDS;
        sleep::<E>(Duration::from_millis(random.between(low, high))).await;
        let daemon = &daemons[random.between(0, daemons.len() as u64) as usize];
        let server = &servers[random.between(0, servers.len() as u64) as usize];
        let number = random.between(0, KINDS);
        let path = match random.between(0, 12) {
            0 => format!(
                "/api/begin-downtime/{server}/3306/operator/test/{}s",
                1 + number
            ),
            1 => format!("/api/end-downtime/{server}/3306"),
            2 => format!("/api/tag/{server}/3306?tag=key{number}=value{number}"),
            3 => format!("/api/untag/{server}/3306?tag=key{number}"),
            4 => format!("/api/register-candidate/{server}/3306/prefer"),
            5 => format!("/api/register-candidate/{server}/3306/neutral"),
            6 => format!("/api/discover/{server}/3306"),
            7 => format!("/api/set-cluster-alias/m1:3306?alias=alias{number}"),
            8 => "/api/ack-all-recoveries?comment=seen".to_owned(),
            9 => "/api/audit-recovery".to_owned(),
            10 => {
                let replica = forgettable(number).filter(|_| E::elapsed() > DISCOVERED_BY);
                let whom =
                    replica.unwrap_or_else(|| InstanceKey::new(format!("absent{number}"), 3306));
                format!("/api/forget/{}/{}", whom.host, whom.port)
            }
            _ => "/api/reload-configuration".to_owned(),
        };
        let sent = E::elapsed();
        let answer = browser::get::<E>(daemon, &path).await;
        let status = answer.map_or(0, |(status, _)| status);
        if status == 200 {
            witness::acknowledged(daemon, &path, sent);
        }
        event("operator", format_args!("{daemon} {path}: {status}"));
    }
}

/// A replica that may be forgotten: all servers are known, and two others replicate from the same primary.
fn forgettable(number: u64) -> Option<InstanceKey> {
    witness::ask(|_, truth| {
        let mut hosts = truth.hosts.iter();
        let primary = hosts.find(|host| host.look(|server| server.is_writable()))?;
        let mut hosts = truth.hosts.iter();
        let all_known = hosts.all(|host| truth.decided.is_known(host.key()));
        let follows = |host: &&Host| {
            host.look(|server| server.source() == Some(primary.key()) && server.is_replicating())
        };
        let replicas: Vec<&Host> = truth.hosts.iter().filter(follows).collect();
        let is_spare = all_known && replicas.len() > SPARE_REPLICAS;
        let replica = replicas.get(number as usize % replicas.len().max(1))?;
        is_spare.then(|| replica.key().clone())
    })
    .flatten()
}
