//! Two releases in one cluster: members are upgraded one after the other, and go back, while the fleet is repaired; from
//! the moment on at which all are new, the old one cannot come back, and says so.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, Release};
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, Strike, World};
use serde_json::{Value, json};

use super::{DEADLINE, TURN};

const PATIENCE: Duration = Duration::from_secs(60);
/// In this time the leader would have switched a version on several times.
const WATCHED: Duration = Duration::from_secs(6);

/// Every daemon answers for every tag that was acknowledged.
struct Tags(BTreeSet<String>);

impl Tags {
    /// Writes one, through whoever leads.
    async fn put(&mut self, world: &World, name: &str) {
        let port = world.fleet.ports()[0];
        let path = format!("/api/tag/127.0.0.1/{port}?tag={name}%3Dx");
        let said = world.daemons.ask_leader(&path).await.expect("a tag");
        assert_eq!(said["Code"], "OK", "{said}");
        self.0.insert(name.to_owned());
    }

    async fn are_everywhere(&self, world: &World) {
        let port = world.fleet.ports()[0];
        for daemon in world
            .daemons
            .all()
            .iter()
            .filter(|daemon| daemon.is_running())
        {
            let what = format!("{} holds what was acknowledged", daemon.url());
            let path = format!("/api/tags/127.0.0.1/{port}");
            let looked = until(&what, PATIENCE, Duration::from_millis(50), async || {
                let reply = match daemon.get(&path, DEADLINE).await {
                    Ok(reply) => reply,
                    Err(error) => return Look::not(format!("{error:#}")),
                };
                let held: Vec<String> = serde_json::from_str(&reply.body).unwrap_or_default();
                let lacks = |name: &&String| !held.contains(&format!("{name}=x"));
                match self.0.iter().find(lacks) {
                    None => Look::Holds(()),
                    Some(name) => Look::not(format!("without {name}: {}", reply.body)),
                }
            });
            looked.await.expect(&what);
        }
    }
}

async fn restart(daemon: &Daemon, release: Release) {
    daemon.signal(Signal::Terminate);
    daemon.wait_ended(PATIENCE).await.expect("ended");
    daemon.install(release);
    daemon.start().expect("started");
    daemon
        .wait_status("/api/raft-health", 200, PATIENCE)
        .await
        .expect("a healthy member");
}

async fn wait_status(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let looked = until(
        what,
        PATIENCE,
        Duration::from_millis(50),
        async || match daemon.status().await {
            Ok(status) if holds(&status) => Look::Holds(status),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect(what)
}

/// What each member is known to read, by the daemon that is asked.
fn reads(status: &Value) -> Vec<u64> {
    let members = status["Members"].as_array().cloned().unwrap_or_default();
    let mut reads: Vec<u64> = members
        .iter()
        .map(|member| member["ReadsVersion"].as_u64().unwrap_or_default())
        .collect();
    reads.sort_unstable();
    reads
}

fn versions(status: &Value) -> (u64, u64) {
    let version = |key: &str| status[key].as_u64().unwrap_or_default();
    (version("CommandVersion"), version("SnapshotVersion"))
}

/// All members read these, and nothing but version 1 is written.
async fn all_know(daemons: &Daemons, wanted: &[u64]) {
    for daemon in daemons.all() {
        let says = wait_status(daemon, "it answers", |_| true).await;
        if says.get("CommandVersion").is_none() {
            // A program of the release before, which does not show it.
            continue;
        }
        let status = wait_status(daemon, &format!("members read {wanted:?}"), |status| {
            reads(status) == wanted
        })
        .await;
        assert_eq!(versions(&status), (1, 1), "{status}");
    }
}

async fn strike(world: &mut World, strike: Strike) {
    let aftermath = world
        .strike(strike, Duration::ZERO, &Expectation::default())
        .await
        .expect("a recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    let (old, promoted) = (aftermath.old, aftermath.promoted);
    world.set_primary(promoted);
    world.restore(old).await.expect("the fleet is whole again");
    // It may be promoted again.
    let looked = until(
        "nobody counts as lost",
        PATIENCE,
        Duration::from_millis(50),
        async || match world.daemons.ask_leader("/api/downtimed").await {
            Ok(Value::Array(lost)) if lost.is_empty() => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("the fleet is whole again");
}

#[tokio::test]
async fn members_are_upgraded_one_by_one_and_do_not_come_back_older() {
    let _turn = TURN.lock().await;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 4,
        timing: ReplicationTiming::Quick,
    };
    let mut options = DaemonOptions::steady();
    options.release = Release::Before;
    let settings = json!({"RecoveryPeriodBlockSeconds": 1, "RaftSnapshotEntries": 100});
    let settings = settings.as_object().expect("an object").clone();
    options.settings.extend(settings);
    let mut world = World::start(fleet, &options)
        .await
        .expect("a fleet that the daemons know");
    let mut tags = Tags(BTreeSet::new());
    tags.put(&world, "before").await;
    all_know(&world.daemons, &[1, 1, 1]).await;

    // One is new: a primary dies, and the leader with it, in whichever release that is.
    restart(&world.daemons.all()[0], Release::This).await;
    all_know(&world.daemons, &[1, 1, 2]).await;
    strike(&mut world, Strike::KillPrimaryAndLeader).await;
    world
        .daemons
        .wait_whole(PATIENCE)
        .await
        .expect("all of them");
    tags.put(&world, "one").await;

    // Two are new, the new ones lead, and one of them goes back to the release before.
    restart(&world.daemons.all()[1], Release::This).await;
    all_know(&world.daemons, &[1, 2, 2]).await;
    let upgrade = world.daemons.all()[1].status().await.expect("a status")["Upgrade"].clone();
    let text = upgrade.as_str().expect("words");
    assert!(
        text.contains(&format!("{} reads 1", world.daemons.all()[2].raft())),
        "{text}"
    );
    strike(&mut world, Strike::KillPrimary).await;
    tags.put(&world, "two").await;
    restart(&world.daemons.all()[1], Release::Before).await;
    all_know(&world.daemons, &[1, 1, 2]).await;
    tags.put(&world, "back").await;
    tags.are_everywhere(&world).await;

    // Most are old again: a primary dies, and the leader with it, in whichever release the next one is.
    strike(&mut world, Strike::KillPrimaryAndLeader).await;
    world
        .daemons
        .wait_whole(PATIENCE)
        .await
        .expect("all of them");
    all_know(&world.daemons, &[1, 1, 2]).await;
    tags.put(&world, "struck_on_the_way_back").await;
    tags.are_everywhere(&world).await;

    // The last old ones are down: whoever is down may come back as it was, and is waited for.
    restart(&world.daemons.all()[1], Release::This).await;
    let last = &world.daemons.all()[2];
    last.signal(Signal::Terminate);
    last.wait_ended(PATIENCE).await.expect("ended");
    tags.put(&world, "without_the_last").await;
    let waited = Instant::now();
    while waited.elapsed() < WATCHED {
        let status = world.daemons.all()[0].status().await.expect("a status");
        assert_eq!(versions(&status), (1, 1), "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // All are new: the leader switches the later version on, and each member says in it what it had no words for.
    last.install(Release::This);
    last.start().expect("started");
    for daemon in world.daemons.all() {
        let status = wait_status(daemon, "version 2 is switched on", |status| {
            let members = status["Members"].as_array();
            let all_say = members.is_some_and(|members| {
                members
                    .iter()
                    .all(|member| member["RaftProtocols"] == "2-3")
            });
            versions(status) == (2, 2) && all_say
        })
        .await;
        assert_eq!(status["Upgrade"], "", "{status}");
    }
    world
        .daemons
        .wait_whole(PATIENCE)
        .await
        .expect("all of them");
    strike(&mut world, Strike::KillPrimaryAndLeader).await;
    let leads = world
        .daemons
        .wait_whole(PATIENCE)
        .await
        .expect("all of them");
    tags.put(&world, "all").await;

    // One comes back as it was before: it ends and says why, and nobody is disturbed.
    let term = world.daemons.all()[leads].status().await.expect("a status")["Term"].clone();
    let old = &world.daemons.all()[(leads + 1) % 3];
    old.signal(Signal::Terminate);
    old.wait_ended(PATIENCE).await.expect("ended");
    tags.put(&world, "meanwhile").await;
    old.install(Release::Before);
    old.start().expect("started");
    let code = old.wait_ended(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(1));
    let log = fs::read_to_string(old.log()).expect("a log");
    let line = log.lines().last().unwrap_or_default();
    assert!(
        line.contains("too old for its cluster") || line.contains("upgrade this daemon"),
        "{line}"
    );
    tags.put(&world, "after").await;
    let status = world.daemons.all()[leads].status().await.expect("a status");
    assert_eq!(
        status["Term"], term,
        "an election was held for it: {status}"
    );

    old.install(Release::This);
    old.start().expect("started");
    world
        .daemons
        .wait_whole(PATIENCE)
        .await
        .expect("all of them");
    tags.are_everywhere(&world).await;
}
