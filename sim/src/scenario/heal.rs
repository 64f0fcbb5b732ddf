//! The liveness half of a run: everything is healed and no further fault comes; the cluster must come to rest within a
//! bound, and what is missing is said in words. Then one more primary is killed, and it must do it once more.

use std::time::Duration;

use orchestrator::env::sleep;
use orchestrator::trace::event;

use super::action::{Action, Logins};
use super::play::{Down, LOOK, Player, set_logins};
use crate::daemon::DaemonView;
use crate::engine::Engine;
use crate::model::server::Process;
use crate::outcome::Failure;
use crate::{browser, disk, network, store, witness};

/// Everything must have come to rest so long after it was healed. A recovery that was begun is driven to its end, one
/// more may be needed, a drain may have to catch up, and what was tried and failed is tried again after some seconds.
const REST: Duration = Duration::from_secs(60);
/// A failover of a cluster at rest.
const FAILOVER: Duration = Duration::from_secs(30);
/// At rest means: for so long.
const AT_REST: Duration = Duration::from_millis(400);
/// An application's writes get through if one did within so long.
const WRITING: Duration = Duration::from_secs(1);

/// Heals every link, disk and clock, starts and thaws everybody; servers let everybody in, and no backup runs.
pub(super) fn heal<E: Engine>(player: &mut Player) {
    network::heal_all();
    player.daemons.heal();
    player.is_healed = true;
    for name in player.scenario.member_names() {
        disk::set_slower(&name, Duration::ZERO);
        network::set_drift(&name, 0, E::elapsed());
        disk::set_state(&name, disk::State::Good);
        disk::fail_no_sync(&name);
        player.daemons.wake(&name);
    }
    let down: Vec<(String, Down)> = player
        .down
        .iter()
        .map(|(name, how)| (name.clone(), *how))
        .collect();
    // Whoever is to be no member any more stays away.
    let members = player.scenario.member_names();
    let returns =
        |name: &String| members.contains(name) || player.scenario.server_names().contains(name);
    let down: Vec<_> = down.into_iter().filter(|(name, _)| returns(name)).collect();
    for (name, how) in down {
        let action = match how {
            Down::Frozen => Action::Thaw(name),
            Down::Killed | Down::Powerless => Action::Start(name),
        };
        player.undo::<E>(&action);
    }
    for host in &player.hosts {
        host.change(|server| {
            server.set_apply_takes(None);
            set_logins(server, Logins::Admitted);
            server.set_backup(false, E::elapsed());
            server.set_only_looks(false);
        });
        // People do what the refusal leaves to them, or nobody could take the primary's place.
        if player.scenario.semi_sync.is_some() {
            host.change(|server| {
                let settings = crate::model::server::SemiSyncSettings {
                    source_enabled: false,
                    ..server.semi_sync().clone()
                };
                server.set_semi_sync(settings);
            });
        }
    }
}

/// Waits until everything is at rest; how long that took.
pub(super) async fn come_to_rest<E: Engine>(player: &mut Player) -> Result<Duration, Failure> {
    let began = E::elapsed();
    wait_for_rest::<E>(player, REST, None).await?;
    Ok(E::elapsed().saturating_sub(began))
}

async fn wait_for_rest<E: Engine>(
    player: &mut Player,
    within: Duration,
    not: Option<&str>,
) -> Result<(), Failure> {
    let began = E::elapsed();
    let mut since = None;
    loop {
        let views = player.wait::<E>().await?;
        let now = E::elapsed();
        match missing(player, &views, now, not) {
            None => {
                let since = *since.get_or_insert(now);
                if now >= since + AT_REST {
                    return Ok(());
                }
            }
            Some(missing) => {
                since = None;
                if now > began + within {
                    return Err(Failure::Liveness(format!(
                        "{missing}, {} s after healing; {}",
                        within.as_secs(),
                        recoveries_in_words(&views)
                    )));
                }
            }
        }
    }
}

/// What is still missing, in words, after the word that names it. `not`: a server that was struck and cannot be the primary.
fn missing(
    player: &Player,
    views: &[DaemonView],
    now: Duration,
    not: Option<&str>,
) -> Option<String> {
    let members = player.scenario.member_names();
    for name in &members {
        let is_up = views.iter().any(|view| view.name == *name);
        if !is_up && !player.expected_ends.contains(name) {
            return Some(format!("daemons: {name} is not up"));
        }
    }
    if let Some(leader) = views
        .iter()
        .find(|view| view.leads && !members.contains(&view.name))
    {
        return Some(format!(
            "members: {} leads and is to be no member",
            leader.name
        ));
    }
    let views: Vec<&DaemonView> = views
        .iter()
        .filter(|view| members.contains(&view.name))
        .collect();
    let leaders: Vec<&str> = views
        .iter()
        .filter(|view| view.leads)
        .map(|view| view.name.as_str())
        .collect();
    if leaders.len() != 1 {
        return Some(format!("leader: not one daemon leads: {leaders:?}"));
    }
    let first = views.first()?;
    let mut identities: Vec<_> = views.iter().map(|view| view.node).collect();
    identities.sort();
    if player.scenario.expect.members.is_some() {
        let mut voters = first.voters.clone();
        voters.sort();
        if voters != identities {
            return Some(format!(
                "members: the voters are {voters:?}, and {members:?} are {identities:?}"
            ));
        }
    }
    if let Some(deaf) = views.iter().find(|view| !view.hears_leader) {
        return Some(format!("leader: {} does not hear it", deaf.name));
    }
    if views.iter().any(|view| view.at != first.at) {
        let at: Vec<String> = views
            .iter()
            .map(|view| format!("{} {}", view.name, view.at))
            .collect();
        return Some(format!(
            "position: the daemons are not at one: {}",
            at.join(", ")
        ));
    }
    if let Some(running) = first.recoveries.iter().find(|one| one.is_running()) {
        return Some(format!(
            "recovery: {:?} {} of {} runs, in {}",
            running.purpose, running.uid, running.server, running.stage
        ));
    }
    if let Some(announced) = first.recoveries.iter().find(|one| one.is_announced()) {
        return Some(format!(
            "hooks: those of {} have not all ended, it is in {}",
            announced.uid, announced.stage
        ));
    }
    let writable: Vec<_> = player
        .hosts
        .iter()
        .filter(|host| host.look(|server| server.is_writable()))
        .collect();
    let [primary] = writable.as_slice() else {
        let names: Vec<String> = writable.iter().map(|host| host.key().to_string()).collect();
        return Some(format!(
            "primary: not one server takes writes: [{}]",
            names.join(", ")
        ));
    };
    if not == Some(primary.key().host.as_str()) {
        return Some(format!(
            "primary: {} was struck and takes writes",
            primary.key()
        ));
    }
    if let Some(store) = &player.store {
        let mut shown = first.named.iter();
        let own = shown.find(|(_, shown)| shown == primary.key());
        let Some((alias, _)) = own else {
            return Some(format!(
                "publications: the cluster of {} has no alias",
                primary.key()
            ));
        };
        let told = store.value(&format!("{}{alias}", store::PREFIX));
        if told != Some(primary.key().to_string()) {
            return Some(format!(
                "publications: {alias} is {told:?}, and the primary is {}",
                primary.key()
            ));
        }
    }
    let deposed = witness::ask(|oracles, _| oracles.one_primary.deposed());
    let deposed = deposed.unwrap_or_default();
    for host in &player.hosts {
        let (process, source, replicates) = host.look(|server| {
            (
                server.process(),
                server.source().cloned(),
                server.is_replicating(),
            )
        });
        let is_lost = first
            .recoveries
            .iter()
            .any(|recovery| recovery.lost.contains(host.key()));
        if host.key() == primary.key()
            || process == Process::Killed
            || deposed.contains(host.key())
            || is_lost
        {
            continue;
        }
        if source.as_ref() != Some(primary.key()) || !replicates {
            return Some(format!(
                "replica: {} does not replicate from {}: its source is {}, its threads {}",
                host.key(),
                primary.key(),
                source.map_or_else(|| "nobody".to_owned(), |source| source.to_string()),
                if replicates { "run" } else { "do not both run" }
            ));
        }
    }
    let written = player.ledger.acknowledged().last().map(|(_, at, _)| *at);
    if written.is_none_or(|at| at + WRITING < now) {
        return Some("writes: no application's gets through".to_owned());
    }
    None
}

/// Kills the primary of a cluster at rest, if there is somebody to take its place.
pub(super) async fn one_more_failover<E: Engine>(player: &mut Player) -> Result<String, Failure> {
    let Some(primary) = player
        .hosts
        .iter()
        .find(|host| host.look(|server| server.is_writable()))
        .map(|host| host.key().clone())
    else {
        return Ok("no primary".to_owned());
    };
    let views = player.members::<E>().await?;
    let lost = |host: &crate::model::Host| {
        views.first().is_some_and(|view| {
            let mut recoveries = view.recoveries.iter();
            recoveries.any(|recovery| recovery.lost.contains(host.key()))
        })
    };
    let followers = player.hosts.iter().filter(|host| {
        !lost(host)
            && host.look(|server| server.source() == Some(&primary) && server.is_replicating())
    });
    if followers.count() == 0 {
        return Ok("nobody left for another failover".to_owned());
    }
    // The cool-down of an earlier recovery is lifted as a person lifts it, and so is a global stop.
    let leader = views.iter().find(|view| view.leads);
    let leader = leader.map_or_else(|| "n1".to_owned(), |view| view.name.clone());
    for path in [
        "/api/enable-global-recoveries",
        "/api/ack-all-recoveries?comment=simulated",
    ] {
        let answer = browser::get::<E>(&leader, path).await;
        if !matches!(answer, Ok((200, _))) {
            return Err(Failure::Liveness(format!(
                "http: {leader} does not answer to {path}: {answer:?}"
            )));
        }
    }
    // Operators' downtimes end, and every daemon has logged in everywhere lately.
    wait_for_views::<E>(player).await?;
    let began = E::elapsed();
    event("phase", format_args!("one more failover, of {primary}"));
    player.act::<E>(&Action::Kill(primary.host.clone())).await;
    wait_for_rest::<E>(player, FAILOVER, Some(&primary.host)).await?;
    let took = E::elapsed().saturating_sub(began + AT_REST);
    Ok(format!("one more failover in {} ms", took.as_millis()))
}

/// Waits until every daemon sees every server that runs.
async fn wait_for_views<E: Engine>(player: &mut Player) -> Result<(), Failure> {
    let until = E::elapsed() + REST;
    loop {
        sleep::<E>(LOOK).await;
        let views = player.members::<E>().await?;
        let running = player
            .hosts
            .iter()
            .filter(|host| host.look(|server| server.process()) == Process::Running)
            .count();
        let Some(blind) = views.iter().find(|view| view.servers_seen < running) else {
            return Ok(());
        };
        if E::elapsed() > until {
            return Err(Failure::Liveness(format!(
                "discovery: {} sees {} of {running} servers",
                blind.name, blind.servers_seen
            )));
        }
    }
}

/// The recoveries of the first daemon's record, for a failure's text.
pub(super) fn recoveries_in_words(views: &[DaemonView]) -> String {
    let Some(view) = views.first() else {
        return "no daemon is up".to_owned();
    };
    let recoveries: Vec<String> = view
        .recoveries
        .iter()
        .take(4)
        .map(|recovery| {
            format!(
                "{:?} of {} in {}, ended {:?}, errors {:?}",
                recovery.purpose,
                recovery.server,
                recovery.stage,
                recovery.end.as_ref().map(|(_, end)| end),
                recovery.errors
            )
        })
        .collect();
    format!("the record of {}: [{}]", view.name, recoveries.join("; "))
}
