//! Hooks of detections and around a recovery: their order, what they are told, what their failure does, and what a leader
//! that ends in the middle of them leaves to the next.

use orchestrator_core::{
    id::{Epoch, NodeId},
    node::Request,
    recovery::{End, Hook, HookList, Outcome, Phase, Stage, StepKind, Telling, hook::Next},
    replicated::Command,
    topology::{Flavour, PromotionRule},
};

use crate::{
    fleet::Channel,
    world::{MS, SEC, World, key},
};

const ALL_OF_A_FAILOVER: [(HookList, usize); 5] = [
    (HookList::OnFailureDetection, 2),
    (HookList::PreFailover, 2),
    (HookList::PostPrimaryFailover, 2),
    (HookList::PostFailover, 1),
    (HookList::PostUnsuccessfulFailover, 1),
];

fn world() -> World {
    let mut world = world_of_version_1();
    world.switch_on_version_2();
    world
}

fn world_of_version_1() -> World {
    let mut world = World::new(Flavour::Mysql, 3);
    world.have_hooks(&ALL_OF_A_FAILOVER);
    world
}

/// Nobody repairs, and the hooks of the detection are about to run.
fn dead_primary_that_is_only_observed() -> World {
    let mut world = world();
    let mut policy = world.policy.clone();
    policy.observe_only = true;
    world.set_policy(&policy);
    world.run(2 * SEC);
    world.hook_takes = SEC;
    world.kill(1);
    world
}

const fn of_detection(place: u32) -> Hook {
    Hook {
        list: HookList::OnFailureDetection,
        place,
    }
}

/// The leader is killed, and another daemon is elected.
fn next_leader(world: &mut World) -> usize {
    let leader = world.leader.expect("a leader");
    world.kill_daemon(leader);
    let next = (leader + 1) % 3;
    world.elect(next);
    next
}

/// By whom each hook of a detection was begun, in this order.
fn told(world: &World) -> Vec<(usize, u32)> {
    let hooks = world.hooks.iter();
    hooks
        .filter(|ran| ran.hook.list == HookList::OnFailureDetection)
        .map(|ran| (ran.by, ran.hook.place))
        .collect()
}

fn is_told(world: &World) -> bool {
    world.oracle.telling_newest_first().next().is_none()
}

fn hook(list: HookList, place: u32) -> Hook {
    Hook { list, place }
}

/// Nothing on any server was changed by a step.
fn nothing_was_done(world: &World) -> bool {
    world.recoveries().iter().all(|recovery| {
        recovery
            .steps
            .values()
            .all(|(step, _)| step.kind == StepKind::Hook)
    })
}

/// What a hook before the failover takes away, one after it gives back: never while the first is still at work.
#[test]
fn a_hook_that_runs_when_the_primary_returns_ends_before_the_next_begins() {
    let mut world = world();
    world.hook_takes = SEC;
    world.kill(1);
    world.expect(3 * SEC, "a hook before the failover", |world| {
        world
            .hooks
            .iter()
            .any(|ran| ran.hook == hook(HookList::PreFailover, 0))
    });
    world.restart(1);
    world.run(6 * SEC);
    let last = world.last();
    assert!(
        matches!(last.end, Some((_, End::Undone { .. }))),
        "{:?}\n{}",
        last.end,
        world.story()
    );
    let at = |list| {
        let mut hooks = world.hooks.iter();
        hooks
            .find(|ran| ran.hook == hook(list, 0))
            .map(|ran| ran.at)
    };
    let (before, after) = (
        at(HookList::PreFailover),
        at(HookList::PostUnsuccessfulFailover),
    );
    assert!(
        before.is_some() && after >= before.map(|before| before + SEC),
        "{before:?} {after:?}\n{}",
        world.story()
    );
    assert!(
        !world
            .ran()
            .contains(&String::from("PreFailoverProcesses[1]")),
        "{:?}",
        world.ran()
    );
}

#[test]
fn hooks_run_in_order_around_a_failover() {
    let mut world = world();
    world.kill(1);
    world.expect_succeeded(3 * SEC, 2);
    world.run(5 * SEC);
    assert_eq!(
        world.ran(),
        [
            "OnFailureDetectionProcesses[0]",
            "OnFailureDetectionProcesses[1]",
            "PreFailoverProcesses[0]",
            "PreFailoverProcesses[1]",
            "PostMasterFailoverProcesses[0]",
            "PostMasterFailoverProcesses[1]",
            "PostFailoverProcesses[0]",
        ],
        "{}",
        world.story()
    );
    for pair in world.hooks.windows(2) {
        assert!(
            pair[1].at >= pair[0].at + world.hook_takes,
            "{} began before {} had ended",
            pair[1].hook,
            pair[0].hook
        );
    }
    let last = world.last().clone();
    assert_eq!(last.stage, Stage::Closed);
    let lines: Vec<&str> = last
        .lines
        .iter()
        .map(|line| line.message.as_str())
        .collect();
    assert!(
        lines.contains(&"run hook PostFailoverProcesses[0]: done"),
        "{lines:#?}"
    );
}

#[test]
fn hooks_are_told_what_happened() {
    let mut world = world();
    world.kill(1);
    world.expect_succeeded(3 * SEC, 2);
    world.run(5 * SEC);
    let of = |list| {
        let ran = world.hooks.iter().find(|ran| ran.hook.list == list);
        ran.expect("it ran").facts.clone()
    };
    let before = of(HookList::OnFailureDetection);
    assert_eq!(before.failure_type, "DeadMaster");
    assert_eq!(before.instance_type, "master");
    assert_eq!(
        (
            before.cluster_alias.as_str(),
            before.cluster_domain.as_str()
        ),
        ("db1:3306", "db1:3306"),
        "where there is none, the name stands for it"
    );
    assert_eq!(before.failed, key(1));
    assert_eq!(before.replicas, [key(2), key(3), key(4)]);
    assert!(before.recovers_primary && before.uid.is_empty() && before.successor.is_none());
    let pre = of(HookList::PreFailover);
    assert_eq!(pre.uid, world.last().uid.to_string());
    assert!(!pre.is_successful && pre.successor.is_none());
    let after = of(HookList::PostPrimaryFailover);
    let successor = after.successor.expect("a successor");
    assert_eq!((successor.key, after.is_successful), (key(2), true));
    let mut keys: Vec<String> = world
        .hooks
        .iter()
        .map(|ran| ran.facts.idempotency_key.clone())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), world.hooks.len());
}

#[test]
fn a_failing_hook_before_a_failover_ends_it_before_anything_is_done() {
    let mut world = world();
    world.hooks_that_fail.insert(hook(HookList::PreFailover, 0));
    world.kill(1);
    world.run(4 * SEC);
    let last = world.last().clone();
    assert!(
        matches!(&last.end, Some((_, End::Failed { reason })) if reason.contains("PreFailoverProcesses[0]")),
        "{:?}",
        last.end
    );
    assert!(nothing_was_done(&world), "{}", world.story());
    assert!(
        !world
            .ran()
            .contains(&String::from("PreFailoverProcesses[1]"))
    );
    // It was not attempted, so nobody is told that it failed.
    assert!(
        !world
            .hooks
            .iter()
            .any(|ran| ran.hook.list == HookList::PostUnsuccessfulFailover)
    );
    // Tried again after a while: a hook that said no once does not leave a cluster without a primary.
    world.hooks_that_fail.clear();
    world.finished = world.recoveries().len();
    world.expect_succeeded(20 * SEC, 2);
}

#[test]
fn a_failing_detection_hook_holds_the_recovery_until_it_passes() {
    let mut world = world();
    world
        .hooks_that_fail
        .insert(hook(HookList::OnFailureDetection, 1));
    world.kill(1);
    world.run(10 * SEC);
    assert!(nothing_was_done(&world), "{}", world.story());
    let count = |world: &World, place| {
        let wanted = hook(HookList::OnFailureDetection, place);
        world.hooks.iter().filter(|ran| ran.hook == wanted).count()
    };
    assert_eq!(count(&world, 0), 1, "what passed is not run again");
    assert!(count(&world, 1) >= 2, "{}", world.story());
    world.hooks_that_fail.clear();
    world.finished = world.recoveries().len();
    world.expect_succeeded(60 * SEC, 2);
    assert_eq!(count(&world, 0), 1);
}

#[test]
fn a_primary_that_returns_during_the_hooks_is_left_alone() {
    let mut world = world();
    world.hook_takes = SEC;
    world.kill(1);
    world.run(1500 * MS);
    assert!(world.running().is_some(), "{}", world.story());
    world.restart(1);
    world.run(10 * SEC);
    assert!(
        matches!(world.last().end, Some((_, End::Undone { .. }))),
        "{}",
        world.story()
    );
    assert!(nothing_was_done(&world), "{}", world.story());
    assert_eq!(world.writeable(), [key(1)]);
    assert_eq!(
        world.ran().last().map(String::as_str),
        Some("PostUnsuccessfulFailoverProcesses[0]")
    );
}

#[test]
fn hooks_after_a_failover_are_all_run_whatever_fails() {
    let mut world = world();
    world
        .hooks_that_fail
        .insert(hook(HookList::PostPrimaryFailover, 0));
    world.kill(1);
    world.expect_succeeded(3 * SEC, 2);
    world.run(5 * SEC);
    let after: Vec<String> = world.ran().split_off(4);
    assert_eq!(
        after,
        [
            "PostMasterFailoverProcesses[0]",
            "PostMasterFailoverProcesses[1]",
            "PostFailoverProcesses[0]"
        ]
    );
    assert!(world.last().is_successful());
}

/// Clients wait for whoever is told by a hook where the primary is, not for a replica that is away.
#[test]
fn hooks_do_not_wait_long_for_a_replica_that_cannot_be_regrouped() {
    let mut world = world();
    world.server(4).stuck = true;
    world.run(SEC);
    world.kill(1);
    world.run(8 * SEC);
    assert!(
        world
            .ran()
            .contains(&String::from("PostFailoverProcesses[0]")),
        "{}",
        world.story()
    );
}

/// Clients wait for whoever is told by a hook where the primary is, not for replicas that have been pointed at it and take
/// their time to get there.
#[test]
fn hooks_do_not_wait_for_replicas_to_connect() {
    for flavour in [Flavour::Mysql, Flavour::Mariadb] {
        let mut world = World::new(flavour, 3);
        world.have_hooks(&ALL_OF_A_FAILOVER);
        world.connect_time = 10 * SEC;
        world.kill(1);
        world.expect(2 * SEC, "a promotion", |world| !world.promoted.is_empty());
        let promoted = world.now;
        world.run(2 * SEC);
        let after = hook(HookList::PostPrimaryFailover, 0);
        let ran = world.hooks.iter().find(|ran| ran.hook == after);
        let waited = ran.expect("a hook after the promotion").at - promoted;
        assert!(waited < 60 * MS, "{waited}\n{}", world.story());
        assert!(world.running().is_some(), "{}", world.story());
        world.expect_succeeded(10 * SEC, 2);
        assert_eq!(world.ran().len(), 7, "{:?}", world.ran());
    }
}

/// The end of a recovery takes a while to be committed, and a hook that began before it may end in that while.
#[test]
fn a_hook_may_end_while_its_recovery_does() {
    // Replicas are looked at each 50 ms, and a commit takes 2 ms: with some of these a hook ends in between.
    for (takes, connects) in (98..104).flat_map(|takes| [20, 45, 120, 145].map(|at| (takes, at))) {
        let mut world = world();
        world.connect_time = connects * MS;
        world.hook_takes = takes * MS;
        world.kill(1);
        world.expect(5 * SEC, "every hook", |world| world.ran().len() == 7);
        world.expect_succeeded(SEC, 2);
    }
}

/// The later ones are told who was turned away by the promoted server, whether that is tried again at that moment or not.
#[test]
fn hooks_are_told_of_replicas_that_are_turned_away() {
    for flavour in [Flavour::Mysql, Flavour::Mariadb] {
        for is_another_waited_for in [true, false] {
            let mut world = World::new(flavour, 4);
            world.have_hooks(&ALL_OF_A_FAILOVER);
            world.server(4).is_denied = true;
            world.server(5).stuck = is_another_waited_for;
            world.run(SEC);
            world.kill(1);
            world.run(8 * SEC);
            let posts = world
                .hooks
                .iter()
                .filter(|ran| ran.facts.successor.is_some());
            let told: Vec<_> = posts.map(|ran| ran.facts.lost.clone()).collect();
            assert_eq!(told.len(), 3, "{}", world.story());
            assert!(
                told.iter().skip(1).all(|lost| *lost == [key(4)]),
                "{told:?}\n{}",
                world.story()
            );
        }
    }
}

/// Killed at each hook in turn: the next leader goes on, runs the interrupted hook once more under the same key, and no
/// other twice.
#[test]
fn a_leader_that_ends_during_a_hook_is_followed_by_one_that_goes_on() {
    for nth in 0..7 {
        let world = world();
        goes_on_after(nth, world, true);
    }
}

/// The record of that version has no place for the hooks of detections.
#[test]
fn under_version_1_the_hooks_of_a_detection_end_with_their_leader() {
    for nth in 0..7 {
        let world = world_of_version_1();
        goes_on_after(nth, world, false);
    }
}

fn goes_on_after(nth: usize, mut world: World, detections_too: bool) {
    world.hook_takes = SEC;
    world.kill(1);
    let reached = world.run_until(30 * SEC, |world| world.hooks.len() > nth);
    assert!(reached, "hook {nth}\n{}", world.story());
    world.run(100 * MS);
    let leader = world.leader.expect("a leader");
    world.kill_daemon(leader);
    world.elect((leader + 1) % 3);
    world.expect_succeeded(60 * SEC, 2);
    world.run(20 * SEC);
    let is_of_detection = world.hooks[nth].hook.list == HookList::OnFailureDetection;
    let mut runs: std::collections::BTreeMap<String, usize> = Default::default();
    for ran in &world.hooks {
        *runs.entry(ran.facts.idempotency_key.clone()).or_default() += 1;
    }
    let interrupted = world.hooks[nth].facts.idempotency_key.clone();
    let by: Vec<usize> = world
        .hooks
        .iter()
        .filter(|ran| ran.facts.idempotency_key == interrupted)
        .map(|ran| ran.by)
        .collect();
    assert_eq!(by[0], leader);
    assert!(!by[1..].contains(&leader), "{by:?}");
    for (ran, count) in &runs {
        let most = if *ran == interrupted && (detections_too || !is_of_detection) {
            2
        } else {
            1
        };
        assert_eq!(
            *count,
            most,
            "{ran} with hook {nth} interrupted\n{}",
            world.story()
        );
    }
    let posts = ["PostMasterFailoverProcesses[1]", "PostFailoverProcesses[0]"];
    for post in posts {
        assert!(world.ran().contains(&String::from(post)), "{post}, {nth}");
    }
    assert_eq!(world.promoted.len(), 1);
    assert_eq!(world.last().stage, Stage::Closed, "{}", world.story());
    if detections_too {
        let places: Vec<u32> = told(&world).iter().map(|(_, place)| *place).collect();
        let wanted: &[u32] = match nth {
            0 => &[0, 0, 1],
            1 => &[0, 1, 1],
            _ => &[0, 1],
        };
        assert_eq!(places, wanted, "{}", world.story());
    }
    assert!(is_told(&world), "{}", world.story());
}

/// The one that was interrupted, then the next, and only then what the recovery itself does.
#[test]
fn a_recovery_waits_for_the_hooks_that_a_former_leader_left() {
    let mut world = world();
    world.hook_takes = SEC;
    world.kill(1);
    world.expect(3 * SEC, "a hook", |world| !world.hooks.is_empty());
    world.run(100 * MS);
    next_leader(&mut world);
    world.expect_succeeded(20 * SEC, 2);
    let ran = world.ran();
    assert_eq!(
        ran[..4],
        [
            "OnFailureDetectionProcesses[0]",
            "OnFailureDetectionProcesses[0]",
            "OnFailureDetectionProcesses[1]",
            "PreFailoverProcesses[0]",
        ],
        "{}",
        world.story()
    );
    let keys: Vec<&str> = world
        .hooks
        .iter()
        .map(|ran| ran.facts.idempotency_key.as_str())
        .collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], "detection-1/OnFailureDetectionProcesses[0]");
    assert_eq!(world.hooks[1].facts.failed, key(1));
    assert_eq!(world.hooks[1].facts.orchestrator_host, "daemon1");
    assert!(world.hooks[3].at >= world.hooks[2].at + SEC);
}

/// What said no to one leader says no to the next one's attempt as well, until it is asked again and says yes.
#[test]
fn a_detection_hook_that_failed_holds_the_recovery_of_the_next_leader() {
    let mut world = world();
    world.hooks_that_fail.insert(of_detection(1));
    world.kill(1);
    world.expect(5 * SEC, "an attempt that ended", |world| {
        let all = world.recoveries();
        all.last().is_some_and(|recovery| recovery.end.is_some())
    });
    let before = told(&world).len();
    let next = next_leader(&mut world);
    world.run(20 * SEC);
    assert!(nothing_was_done(&world), "{}", world.story());
    let later = told(&world).split_off(before);
    assert!(!later.is_empty(), "{}", world.story());
    assert!(later.iter().all(|ran| *ran == (next, 1)), "{later:?}");
    let attempts = world.recoveries().len();
    assert!(attempts >= later.len(), "{attempts} of {later:?}");
    world.hooks_that_fail.clear();
    world.finished = world.recoveries().len();
    world.expect_succeeded(60 * SEC, 2);
    assert!(is_told(&world));
}

/// The leader dies in the attempt whose hook failed, before that is on record as the attempt's end.
#[test]
fn a_recovery_that_is_taken_over_knows_of_a_detection_hook_that_failed() {
    let mut world = world();
    world.hooks_that_fail.insert(of_detection(0));
    world.kill(1);
    world.expect(5 * SEC, "a failure on record", |world| {
        let mut open = world.oracle.telling_newest_first();
        let telling = open.next().and_then(|detection| detection.telling.as_ref());
        telling.is_some_and(|telling| matches!(telling.phase, Phase::Settled(_)))
    });
    assert!(world.running().is_some(), "{}", world.story());
    let uid = world.last().uid.clone();
    next_leader(&mut world);
    world.expect(5 * SEC, "its end", |world| world.running().is_none());
    let ended = world.recoveries().into_iter().find(|one| one.uid == uid);
    assert!(
        matches!(&ended.expect("it is kept").end, Some((_, End::Failed { reason })) if reason.contains("OnFailureDetectionProcesses[0]")),
        "{}",
        world.story()
    );
    world.run(10 * SEC);
    assert!(nothing_was_done(&world), "{}", world.story());
    assert!(told(&world).len() >= 2, "{}", world.story());
}

/// Whoever is paged by such a hook is paged of failures, too, that nobody may repair.
#[test]
fn the_hooks_of_a_detection_without_a_recovery_are_taken_up_as_well() {
    let mut world = dead_primary_that_is_only_observed();
    world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
    world.run(100 * MS);
    let leader = world.leader.expect("a leader");
    let next = next_leader(&mut world);
    world.run(20 * SEC);
    assert_eq!(
        told(&world),
        [(leader, 0), (next, 0), (next, 1)],
        "{}",
        world.story()
    );
    assert!(is_told(&world) && world.recoveries().is_empty());
    // All have run: nothing is left to the one after it.
    world.restart_daemon(leader);
    next_leader(&mut world);
    world.run(20 * SEC);
    assert_eq!(told(&world).len(), 3, "{}", world.story());
}

/// A hook that ends while its daemon has no quorum is not run again if that daemon leads on, and the next one is begun only
/// then.
#[test]
fn a_leader_without_quorum_begins_no_hook_of_a_detection() {
    let mut world = world();
    world.hook_takes = SEC;
    world.kill(1);
    world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
    let former = world.depose();
    world.run(5 * SEC);
    assert_eq!(told(&world), [(former, 0)], "{}", world.story());
    world.regain(former);
    world.expect_succeeded(20 * SEC, 2);
    assert_eq!(
        told(&world),
        [(former, 0), (former, 1)],
        "{}",
        world.story()
    );
}

/// Its beginning is committed while it has no quorum: nobody ran that one.
#[test]
fn a_hook_that_was_committed_without_a_leader_is_run_by_one() {
    for leads_on in [true, false] {
        let mut world = world();
        world.orphans_survive = true;
        world.detection_takes = 40 * MS;
        world.kill(1);
        let proposed = |world: &World| {
            let mut lines = world.trace.iter();
            lines.any(|line| line.contains("proposes RegisterDetection"))
        };
        world.expect(5 * SEC, "a detection on its way", |world| proposed(world));
        let former = world.depose();
        world.run(SEC);
        assert_eq!(told(&world), [], "{}", world.story());
        let leader = if leads_on {
            world.regain(former);
            former
        } else {
            let next = (former + 1) % 3;
            world.elect(next);
            next
        };
        world.expect_succeeded(20 * SEC, 2);
        assert_eq!(
            told(&world),
            [(leader, 0), (leader, 1)],
            "{}",
            world.story()
        );
    }
}

/// It is run once more, and a third time only when a recovery is attempted anew: it may be what ends its leaders.
#[test]
fn a_detection_hook_that_two_leaders_did_not_outlive_failed() {
    let mut world = dead_primary_that_is_only_observed();
    for ran in 1..=2 {
        world.expect(5 * SEC, "a hook", |world| world.hooks.len() == ran);
        let leader = world.leader.expect("a leader");
        next_leader(&mut world);
        world.restart_daemon(leader);
    }
    let given_up =
        "the leaders that ran it ended before it did; it is run again only before a recovery";
    world.run(SEC);
    let story = world.story();
    assert_eq!(story.matches(given_up).count(), 1, "{story}");
    world.run(20 * SEC);
    let places: Vec<u32> = told(&world).iter().map(|(_, place)| *place).collect();
    assert_eq!(places, [0, 0], "{}", world.story());
    let mut policy = world.policy.clone();
    policy.observe_only = false;
    world.set_policy(&policy);
    world.expect_succeeded(60 * SEC, 2);
    let places: Vec<u32> = told(&world).iter().map(|(_, place)| *place).collect();
    assert_eq!(places, [0, 0, 0, 1], "{}", world.story());
}

#[test]
fn nobody_is_told_of_a_detection_of_yesterday() {
    for (hours, wanted) in [(0, 3), (2, 1)] {
        let mut world = dead_primary_that_is_only_observed();
        world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
        let leader = world.leader.expect("a leader");
        world.kill_daemon(leader);
        world.clocks_ahead = hours * 3_600 * SEC;
        world.elect((leader + 1) % 3);
        world.run(5 * SEC);
        let first = told(&world);
        let of_it = world.hooks.iter().filter(|ran| {
            let key = &ran.facts.idempotency_key;
            key.starts_with("detection-1/")
        });
        assert_eq!(of_it.count(), wanted, "{first:?}\n{}", world.story());
    }
}

/// All clocks are ahead for a moment, in which something is committed: log time stays there.
fn log_time_leaps(world: &mut World) {
    world.clocks_ahead = 2 * 3_600 * SEC;
    world.ask(Request::Decide(Command::RegisterCandidate {
        key: key(3),
        rule: PromotionRule::Neutral,
    }));
    world.run(100 * MS);
    world.clocks_ahead = 0;
}

#[test]
fn clocks_that_were_ahead_for_a_moment_cost_no_hook() {
    let mut world = world();
    world.kill(1);
    world.expect(5 * SEC, "a hook of the promotion", |world| {
        let posts = world.hooks.iter();
        posts
            .filter(|ran| ran.hook.list == HookList::PostPrimaryFailover)
            .count()
            == 1
    });
    log_time_leaps(&mut world);
    world.run(5 * SEC);
    let ran = world.ran();
    let posts = ran.iter().filter(|name| name.starts_with("Post"));
    assert_eq!(posts.count(), 3, "{}", world.story());

    let mut world = dead_primary_that_is_only_observed();
    world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
    log_time_leaps(&mut world);
    world.run(SEC);
    next_leader(&mut world);
    world.run(5 * SEC);
    assert!(is_told(&world), "{}", world.story());
}

/// All daemons were down for hours, or the next leader's clock is: what the hooks tell is true still, or they are not run.
#[test]
fn hooks_of_a_promotion_of_yesterday_are_run_if_it_holds_still() {
    let posts = |world: &World| {
        let lists = [HookList::PostPrimaryFailover, HookList::PostFailover];
        let hooks = world.hooks.iter();
        hooks.filter(|ran| lists.contains(&ran.hook.list)).count()
    };
    for people in ["nothing", "move it", "open another", "close it"] {
        let mut world = world();
        world.hook_takes = SEC;
        world.kill(1);
        world.expect_succeeded(20 * SEC, 2);
        world.expect(5 * SEC, "a hook of the promotion", |world| posts(world) > 0);
        let begun = posts(&world);
        assert!(begun < 3, "{}", world.story());
        match people {
            "move it" | "open another" => {
                world.server(3).read_only = false;
                world.server(3).channel = None;
                for number in [2, 4] {
                    world.server(number).read_only = true;
                    let source = (people == "move it").then(|| Channel::to(key(3)));
                    world.server(number).channel = source;
                }
            }
            "close it" => {
                world.server(2).read_only = true;
                world.server(2).channel = Some(Channel::to(key(4)));
            }
            _ => {}
        }
        if people == "open another" {
            world.kill(2);
        }
        world.clocks_ahead = 2 * 3_600 * SEC;
        next_leader(&mut world);
        world.run(10 * SEC);
        // All three, and once more the one during which the leader ended.
        let wanted = if people == "nothing" { 4 } else { begun };
        assert_eq!(posts(&world), wanted, "{people}: {}", world.story());
    }
}

/// What comes next is what the new leader's file has.
#[test]
fn the_next_leader_may_have_other_hooks() {
    for (count, wanted) in [(0, vec![0]), (1, vec![0, 0]), (3, vec![0, 0, 1, 2])] {
        let mut world = world();
        world.hook_takes = SEC;
        world.kill(1);
        world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
        world.have_hooks(&[(HookList::OnFailureDetection, count)]);
        next_leader(&mut world);
        world.expect_succeeded(20 * SEC, 2);
        let places: Vec<u32> = told(&world).iter().map(|(_, place)| *place).collect();
        assert_eq!(places, wanted, "{}", world.story());
        assert!(is_told(&world));
    }
}

/// As many entries as there are hooks, and none for what is not configured.
#[test]
fn the_log_says_of_a_detections_hooks_no_more_than_it_must() {
    for (count, wanted) in [(0, 0), (1, 1), (2, 2)] {
        let mut world = World::new(Flavour::Mysql, 3);
        world.switch_on_version_2();
        world.have_hooks(&[(HookList::OnFailureDetection, count)]);
        world.kill(1);
        world.expect_succeeded(5 * SEC, 2);
        world.run(5 * SEC);
        let lines = world.trace.iter();
        let found = lines.filter(|line| line.contains("proposes TellOfDetection"));
        assert_eq!(found.count(), wanted, "{}", world.story());
        assert_eq!(world.hooks.len(), count);
    }
}

/// Without hooks nothing is added to a failover.
#[test]
fn without_hooks_a_recovery_is_closed_and_nothing_is_run() {
    let mut world = World::new(Flavour::Mariadb, 3);
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.run(SEC);
    assert_eq!(world.last().stage, Stage::Closed);
    assert!(world.hooks.is_empty());
    assert!(world.last().steps_of(StepKind::Hook).next().is_none());
}

/// Two proposals that are on their way at once may be committed in either order.
#[test]
fn a_recovery_has_its_detection_however_late_that_is_committed() {
    let mut world = world();
    world.detection_takes = 40 * MS;
    world
        .hooks_that_fail
        .insert(hook(HookList::OnFailureDetection, 0));
    world.kill(1);
    world.run(2 * SEC);
    let last = world.last().clone();
    assert_ne!(last.detection, 0, "{}", world.story());
    assert!(
        matches!(&last.end, Some((_, End::Failed { reason })) if reason.contains("OnFailureDetectionProcesses[0]")),
        "{:?}",
        last.end
    );
    assert!(nothing_was_done(&world), "{}", world.story());
    world.hooks_that_fail.clear();
    world.finished = world.recoveries().len();
    world.expect_succeeded(20 * SEC, 2);
}

/// What is looked at in each step says the same as what decides.
#[test]
fn hooks_of_a_detection_rest_where_nothing_comes_next() {
    let epoch = |term| Epoch {
        term,
        node: NodeId(1),
        boot: 1,
    };
    let refused = |code| Outcome::Refused {
        code,
        reason: String::from("no"),
    };
    let unknown = Outcome::Unknown {
        reason: String::from("late"),
    };
    let phases = [
        Phase::Intended(epoch(1)),
        Phase::Intended(epoch(2)),
        Phase::Settled(Outcome::Done),
        Phase::Settled(refused(0)),
        Phase::Settled(refused(1)),
        Phase::Settled(unknown),
    ];
    let mut rested = 0;
    for phase in phases {
        for (tries, place) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
            let mut telling = Telling::begun(epoch(1));
            telling.phase = phase.clone();
            (telling.tries, telling.place) = (tries, place);
            let next = telling.next(2, epoch(1));
            let wanted = matches!(next, Next::Wait | Next::Failed(_));
            assert_eq!(telling.rests(2, epoch(1)), wanted, "{telling:?}: {next:?}");
            rested += u32::from(wanted);
        }
    }
    assert_eq!(rested, 18);
}
