//! The liveness half of a run: everything is healed and no further fault comes; the cluster must come to rest within a
//! bound, and what is missing is said in words. Then one more primary is killed, and it must do it once more.
//!
//! In some runs a quorum of the daemons is healed before: all servers and links, and exactly as many daemons as are a
//! majority. The others stay as the script left them, down or frozen, and whoever runs is cut off. The quorum must come to
//! rest without them within the same bound.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator::env::sleep;
use orchestrator::trace::event;

use super::action::{Action, Logins};
use super::play::{Down, LOOK, Player, set_logins};
use crate::daemon::DaemonView;
use crate::engine::Engine;
use crate::model::Host;
use crate::model::server::Process;
use crate::oracle::progress::Rest;
use crate::outcome::Failure;
use crate::random::SplitMix;
use crate::{browser, disk, network, operator, witness};

/// Everything must have come to rest so long after it was healed. A recovery that was begun is driven to its end, one
/// more may be needed, a drain may have to catch up, and what was tried and failed is tried again after some seconds.
const REST: Duration = Duration::from_secs(60);
/// A failover of a cluster at rest.
const FAILOVER: Duration = Duration::from_secs(30);
/// At rest means: for so long.
const AT_REST: Duration = Duration::from_millis(400);

const PURPOSE: u64 = 0xab5e;

/// Where the seed has it so, and the daemons are such that a quorum can do without the others: heals a quorum, and waits
/// until it is at rest; what is to be said of that.
pub(super) async fn quorum_comes_to_rest<E: Engine>(
    player: &mut Player,
) -> Result<String, Failure> {
    let absent = who_stays_away(player);
    if absent.is_empty() {
        return Ok(String::new());
    }
    player.absent.clone_from(&absent);
    let without = names(&absent);
    event("phase", format_args!("all but {without} is healed"));
    heal::<E>(player);
    for name in &absent {
        if !player.down.contains_key(name) {
            player.act::<E>(&Action::Isolate(name.clone())).await;
        }
    }
    let rest = come_to_rest::<E>(player).await?;
    player.absent.clear();
    let rest = rest.as_millis();
    Ok(format!(
        "a quorum without {without} at rest after {rest} ms, "
    ))
}

fn names(of: &BTreeSet<String>) -> String {
    let names: Vec<&str> = of.iter().map(String::as_str).collect();
    names.join(" and ")
}

/// The daemons that are not healed at first. None where the cluster was not formed so far, where people changed its members or
/// one's memory by hand, and where more than a minority may have lost its memory: who is a quorum is not plain there.
fn who_stays_away(player: &Player) -> BTreeSet<String> {
    let (scenario, plan) = (&player.scenario, &player.plan);
    let members = scenario.member_names();
    let is_plain = witness::ask(|_, truth| {
        let mut voters = truth.decided.membership().members.voters.iter();
        let is_formed = voters.len() > 0;
        is_formed && voters.all(|set| set.len() == members.len())
    });
    let by_hand = plan.lines.iter().any(|line| line.action.is_of_members());
    if by_hand || is_plain != Some(true) || !scenario.heals_quorum_first(plan.seed) {
        return BTreeSet::new();
    }
    minority(&members, &player.forgetful, plan.seed)
}

/// As many as a majority can do without: those that may have lost their memory, and others by the seed.
fn minority(members: &[String], forgetful: &BTreeSet<String>, seed: u64) -> BTreeSet<String> {
    let most = members.len().saturating_sub(1) / 2;
    if forgetful.len() > most {
        return BTreeSet::new();
    }
    let mut random = SplitMix::new(seed, PURPOSE);
    let mut absent = forgetful.clone();
    while absent.len() < most {
        let place = random.between(0, members.len() as u64) as usize;
        absent.insert(members[place].clone());
    }
    absent
}

/// Heals every link, disk and clock, starts and thaws everybody who is not absent; servers let everybody in, and no backup
/// runs.
pub(super) fn heal<E: Engine>(player: &mut Player) {
    network::heal_all();
    player.daemons.heal();
    player.is_healed = true;
    for name in player.candidates() {
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
    let members = player.candidates();
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
    player.recovered_from_faults();
    Ok(E::elapsed().saturating_sub(began))
}

async fn wait_for_rest<E: Engine>(
    player: &mut Player,
    within: Duration,
    struck: Option<&str>,
) -> Result<(), Failure> {
    let began = E::elapsed();
    let mut since = None;
    loop {
        let views = player.wait::<E>().await?;
        let now = E::elapsed();
        match missing(player, &views, now, struck) {
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
                        "{missing}, {} s after healing{}; {}",
                        within.as_secs(),
                        without(&player.absent),
                        recoveries_in_words(&views)
                    )));
                }
            }
        }
    }
}

/// Who was healed, where not everybody was.
fn without(absent: &BTreeSet<String>) -> String {
    if absent.is_empty() {
        return String::new();
    }
    let (names, is) = (names(absent), if absent.len() == 1 { "is" } else { "are" });
    format!(" a quorum ({names} {is} away)")
}

/// What is still missing, in words. `struck`: a server that cannot be the primary.
fn missing(
    player: &Player,
    views: &[DaemonView],
    now: Duration,
    struck: Option<&str>,
) -> Option<String> {
    let deposed = witness::ask(|oracles, _| oracles.deposed_or_missed());
    let written = player.ledger.acknowledged().last().map(|(_, at, _)| *at);
    let rest = Rest {
        members: &player.seated(player.present(), views),
        expected_ends: &player.expected_ends,
        are_the_voters: player.scenario.expect.members.is_some(),
        hosts: &player.hosts,
        deposed: &deposed.unwrap_or_default(),
        store: player.store.as_ref(),
        since_written: written.map(|at| now.saturating_sub(at)),
        struck,
    };
    rest.missing(views)
}

/// Kills the primary of a cluster at rest, if there is somebody to take its place.
pub(super) async fn one_more_failover<E: Engine>(player: &mut Player) -> Result<String, Failure> {
    let Some(primary) = player
        .hosts
        .iter()
        .find(|host| host.look(|server| server.is_writable()))
        .map(|host| host.key().clone())
    else {
        return Err(Failure::Liveness(
            "primary: at rest, and nobody takes writes".to_owned(),
        ));
    };
    let views = player.members::<E>().await?;
    let lost = |host: &Host| {
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
    let mut paths = vec![
        String::from("/api/enable-global-recoveries"),
        String::from("/api/ack-all-recoveries?comment=simulated"),
    ];
    if player.scenario.semi_sync.is_some() {
        // It was switched off by hand, maybe since the leader read it last.
        paths.push(format!("/api/refresh/{}/{}", primary.host, primary.port));
    }
    for path in &paths {
        let answer = browser::get::<E>(&leader, path).await;
        if !matches!(answer, Ok((200, _))) {
            return Err(Failure::Liveness(format!(
                "http: {leader} does not answer to {path}: {answer:?}"
            )));
        }
    }
    name_again::<E>(player, &leader).await;
    // Operators' downtimes end, what they forgot is found, and every daemon has logged in everywhere lately.
    wait_for_views::<E>(player).await?;
    let began = E::elapsed();
    event("phase", format_args!("one more failover, of {primary}"));
    player.act::<E>(&Action::Kill(primary.host.clone())).await;
    wait_for_rest::<E>(player, FAILOVER, Some(&primary.host)).await?;
    let took = E::elapsed().saturating_sub(began + AT_REST);
    Ok(format!("one more failover in {} ms", took.as_millis()))
}

/// People name the servers again that they had forgotten and that nobody else can find: those that replicate from none that
/// is read, and, where a clock had leapt and log time with it, all: a forget counts in log time.
async fn name_again<E: Engine>(player: &Player, leader: &str) {
    let mut lines = player.plan.lines.iter();
    let has_leapt = lines.any(|line| matches!(line.action, Action::Clock(..)));
    let unfound = witness::ask(|oracles, truth| {
        let missed = oracles.left_to_people.missed();
        let hosts = player.hosts.iter().map(Host::key);
        let unfound = hosts.filter(|key| !truth.decided.is_known(key));
        let unfound = unfound.filter(|key| has_leapt || missed.contains(*key));
        unfound.cloned().collect::<Vec<_>>()
    });
    for server in unfound.unwrap_or_default() {
        operator::discover::<E>(&[leader.to_owned()], server).await;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_never_without_a_majority_that_remembers() {
        let members = |count: usize| -> Vec<String> {
            (1..=count).map(|number| format!("n{number}")).collect()
        };
        let forgetful = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let mut seen = BTreeSet::new();
        for seed in 0..40 {
            for (count, most) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
                let absent = minority(&members(count), &forgetful(&[]), seed);
                assert_eq!(absent.len(), most, "{count} daemons");
                if count == 3 {
                    seen.extend(absent);
                }
            }
            let one = forgetful(&["n2"]);
            assert_eq!(minority(&members(3), &one, seed), one);
            let of_five = minority(&members(5), &one, seed);
            assert!(of_five.len() == 2 && of_five.contains("n2"), "{of_five:?}");
            let two = forgetful(&["n2", "n3"]);
            assert_eq!(minority(&members(3), &two, seed), forgetful(&[]));
        }
        assert_eq!(seen, forgetful(&["n1", "n2", "n3"]));
    }

    #[test]
    fn who_is_away_is_said() {
        assert_eq!(without(&BTreeSet::new()), "");
        let two = BTreeSet::from(["n1".to_owned(), "n5".to_owned()]);
        assert!(without(&two).contains("n1 and n5 are away"));
    }
}
