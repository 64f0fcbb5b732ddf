//! Members that come, go and come back, on whole daemons in simulated time: machines provisioned anew, one replaced by
//! another by restarts in any order, lists with mistakes in them. In every world a client writes all the while; at most
//! one daemon leads a term; the same position of the log is the same state; nothing that was acknowledged is lost; and in
//! the end the members bear one more loss.

mod world;

use world::{World, are_members, secs, tell};

/// A few seeds of each story: the sweeps are for other hours.
fn seeds(story: impl Fn(u64)) {
    for seed in 1..=3 {
        story(seed);
    }
}

async fn wiped(world: World, seed: u64) {
    let victim = match seed % 3 {
        0 => world.leader().await,
        1 => String::from("n3"),
        _ => String::from("n1"),
    };
    world.wipe(&victim).await;
    world.live(secs(2)).await;
    world.start(&victim);
    world.live(secs(10)).await;
    // It waits for its old place, unhealthy, and both sides say why.
    let (status, health) = world.get(&victim, "/api/raft-health").await;
    assert_eq!(status, 500, "{health}");
    assert!(health.contains("RaftReplaceSilentSeconds"), "{health}");
    let leader = world.leader().await;
    let shown = world.get(&leader, "/api/raft-status").await.1;
    assert!(shown.contains("RaftReplaceSilentSeconds"), "{shown}");
    world.all_is_well(&["n1", "n2", "n3"]).await;
}

#[test]
fn a_machine_that_was_provisioned_anew_comes_back() {
    seeds(|seed| tell(seed, wiped));
}

async fn wiped_again(world: World, seed: u64) {
    world.wipe("n3").await;
    world.start("n3");
    // While it waits, or while it is let in.
    world.live(secs(25 + seed * 4)).await;
    world.wipe("n3").await;
    world.live(secs(1)).await;
    world.start("n3");
    world.all_is_well(&["n1", "n2", "n3"]).await;
}

#[test]
fn a_machine_that_is_provisioned_anew_twice_comes_back() {
    seeds(|seed| tell(seed, wiped_again));
}

/// Node 3 is replaced by node 4: the lists of nodes 1 and 2 are changed and both are restarted.
async fn replaced(world: World, seed: u64) {
    let is_stopped = !seed.is_multiple_of(2);
    let order = if seed.is_multiple_of(3) {
        ["n2", "n1"]
    } else {
        ["n1", "n2"]
    };
    if is_stopped {
        world.kill("n3").await;
    }
    for name in ["n1", "n2", "n4"] {
        world.set_list(name, &["n1", "n2", "n4"]);
    }
    world.start("n4");
    world.live(secs(10)).await;
    let term = world.highest_term();
    world.live(secs(40)).await;
    // Rejected: it stays outside, alive, says why, and disturbs nobody.
    assert_eq!(world.highest_term(), term, "a term was added by a stranger");
    assert_eq!(world.ended("n4"), None);
    let (status, health) = world.get("n4", "/api/raft-health").await;
    assert!(
        status == 500 && health.contains("no member has n4:10008"),
        "{health}"
    );
    assert_eq!(world.get("n4", "/api/leader-check").await.0, 404);
    world.restart(order[0]).await;
    world.live(secs(12)).await;
    let seen = world.look().await;
    assert!(
        !are_members(&seen, &["n1", "n2", "n4"]),
        "one list of three was enough"
    );
    let (_, health) = world.get("n4", "/api/raft-health").await;
    assert!(health.contains("1 of 3 members"), "{health}");
    world.restart(order[1]).await;
    world.until_members(secs(30), &["n1", "n2", "n4"]).await;
    if !is_stopped {
        // The old one still runs: it leads nothing, and says that it is no member.
        world.live(secs(10)).await;
        let (status, health) = world.get("n3", "/api/raft-health").await;
        assert!(
            status == 500 && health.contains("no member has n3:10008"),
            "{health}"
        );
    }
    world.all_is_well(&["n1", "n2", "n4"]).await;
}

#[test]
fn one_is_replaced_by_another_by_restarts_in_any_order() {
    seeds(|seed| tell(seed, replaced));
}

/// The same while links fail and a daemon is started twice.
async fn replaced_in_a_storm(world: World, seed: u64) {
    for name in ["n1", "n2", "n4"] {
        world.set_list(name, &["n1", "n2", "n4"]);
    }
    world.start("n4");
    world.restart("n1").await;
    world.cut("n1", if seed.is_multiple_of(2) { "n2" } else { "n4" });
    world.restart("n2").await;
    world.live(secs(2 + seed)).await;
    world.restart("n1").await;
    world.cut("n4", "n2");
    world.live(secs(6)).await;
    world.heal("n1", "n2");
    world.heal("n1", "n4");
    world.live(secs(3)).await;
    world.restart("n4").await;
    world.heal("n4", "n2");
    world.all_is_well(&["n1", "n2", "n4"]).await;
}

#[test]
fn a_replacement_bears_partitions_and_restarts() {
    seeds(|seed| tell(seed, replaced_in_a_storm));
}

async fn mistaken(world: World, _seed: u64) {
    // One entry too few.
    for name in ["n1", "n2"] {
        world.set_list(name, &["n1", "n2"]);
        world.restart(name).await;
        world.live(secs(5)).await;
    }
    world.live(secs(15)).await;
    let seen = world.look().await;
    assert!(
        are_members(&seen, &["n1", "n2", "n3"]),
        "a list made the cluster shrink"
    );
    let leader = world.leader().await;
    let shown = world.get(&leader, "/api/raft-status").await.1;
    assert!(shown.contains("raft-remove-peer"), "{shown}");
    // A name that nobody has.
    for name in ["n1", "n2"] {
        world.set_list(name, &["n1", "n2", "m4"]);
        world.restart(name).await;
        world.live(secs(5)).await;
    }
    world.live(secs(15)).await;
    let seen = world.look().await;
    assert!(are_members(&seen, &["n1", "n2", "n3"]));
    let shown = world.get("n1", "/api/raft-status").await.1;
    assert!(shown.contains("m4:10008 does not"), "{shown}");
    // A list without the daemon that reads it.
    world.set_list("n3", &["n1", "n2"]);
    world.restart("n3").await;
    world
        .until(secs(60), "node 3 ends", |_| world.ended("n3").is_some())
        .await;
    let why = world.ended("n3").unwrap_or_default();
    assert!(why.contains("leads to this node"), "{why}");
    world.set_list("n3", &["n1", "n2", "n3"]);
    world.kill("n3").await;
    world.start("n3");
    world.all_is_well(&["n1", "n2", "n3"]).await;
}

#[test]
fn mistakes_in_a_list_change_nothing() {
    tell(1, mistaken);
}

async fn by_verb(world: World, _seed: u64) {
    world.set_list("n4", &["n1", "n2", "n3", "n4"]);
    world.start("n4");
    world.live(secs(6)).await;
    let (status, said) = world.get("n1", "/api/raft-add-peer/n4").await;
    // A change takes longer than this client waits, at times; then it is looked at.
    assert!(status == 200 || status == 0, "{status} {said}");
    world
        .until_members(secs(20), &["n1", "n2", "n3", "n4"])
        .await;
    assert_eq!(world.get("n1", "/api/raft-add-peer/n4").await.0, 500);
    assert_eq!(world.get("n1", "/api/raft-remove-peer/n9").await.0, 500);
    let leader = world.leader().await;
    let (status, said) = world
        .get("n4", &format!("/api/raft-remove-peer/{leader}"))
        .await;
    assert!([0, 200, 502, 504].contains(&status), "{status} {said}");
    let left: Vec<&str> = ["n1", "n2", "n3", "n4"]
        .into_iter()
        .filter(|name| **name != *leader)
        .collect();
    world.until_members(secs(20), &left).await;
    world.kill(&leader).await;
    world.all_is_well(&left).await;
}

#[test]
fn peers_are_added_and_removed_online_the_leader_too() {
    seeds(|seed| tell(seed, by_verb));
}

async fn majority_lost(world: World, _seed: u64) {
    for name in ["n2", "n3"] {
        world.wipe(name).await;
        world.start(name);
    }
    world.live(secs(45)).await;
    // Nothing is formed anew and nobody leads; the one that remembers names the way out.
    let seen = world.look().await;
    assert!(seen.iter().all(|seen| seen.leads.is_none()));
    let (status, health) = world.get("n1", "/api/raft-health").await;
    assert!(status == 500 && health.contains("raft recover"), "{health}");
    let (status, health) = world.get("n2", "/api/raft-health").await;
    assert!(
        status == 500 && health.contains("belongs to cluster"),
        "{health}"
    );
}

#[test]
fn a_majority_without_memory_forms_nothing_and_says_so() {
    tell(1, majority_lost);
}
