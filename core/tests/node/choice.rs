//! A deposed primary that people choose again, and what looks like it and is not (`FAILOVER.md` section 5).

use core::time::Duration;

use orchestrator_core::{
    analysis::StructureCode, node::Request, policy::Policy, recovery::Purpose, replicated::Command,
    topology::Flavour,
};

use crate::{
    fleet::Channel,
    world::{SEC, World, key},
};

const FLAVOURS: [Flavour; 2] = [Flavour::Mariadb, Flavour::Mysql];

/// db1 was replaced by db2, has come back, and was closed.
fn replaced(flavour: Flavour, replicas: u16, change: impl FnOnce(&mut Policy)) -> World {
    let mut world = World::with(flavour, replicas, change);
    world.run(5 * SEC);
    world.kill(1);
    world.expect_succeeded(10 * SEC, 2);
    world.run(15 * SEC);
    world.restart(1);
    world.run(15 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    assert!(is_deposed(&mut world, 1));
    world
}

fn no_cool_down(policy: &mut Policy) {
    policy.cool_down = Duration::ZERO;
}

fn is_deposed(world: &mut World, number: u16) -> bool {
    let identity = world.server(number).identity();
    world.oracle.is_deposed(&identity)
}

fn primary(world: &World) -> String {
    let record = world.oracle.cluster_of(&key(1));
    record.map_or_else(String::new, |record| record.primary.to_string())
}

/// As people do it: CHANGE MASTER, START SLAVE, and closed as replicas are.
fn point(world: &mut World, number: u16, source: u16) {
    world.say(format!("people point db{number} at db{source}"));
    let server = world.server(number);
    server.read_only = true;
    server.starts_read_only = true;
    server.channel = Some(Channel::to(key(source)));
}

fn open(world: &mut World, number: u16) {
    world.say(format!("people open db{number}"));
    let server = world.server(number);
    server.read_only = false;
    server.starts_read_only = false;
}

fn quarantines(world: &World) -> usize {
    let recoveries = world.oracle.recoveries_newest_first();
    recoveries
        .filter(|recovery| matches!(recovery.purpose, Purpose::Quarantine { .. }))
        .count()
}

fn told(world: &World, what: &str) -> usize {
    let lines = world.trace.iter();
    lines.filter(|line| line.contains(what)).count()
}

/// It is the primary for the daemons too: nobody closes it when it restarts, and it is replaced when it dies.
#[track_caller]
fn assert_protected(world: &mut World, number: u16, successors: &[u16]) {
    assert!(!is_deposed(world, number), "{}", world.story());
    assert_eq!(primary(world), key(number).to_string());
    world.run(10 * SEC);
    world.restart(number);
    world.run(20 * SEC);
    assert_eq!(world.writeable(), [key(number)], "{}", world.story());
    let before = world.recoveries().len();
    world.kill(number);
    world.expect(30 * SEC, "a promotion", |world| {
        world.running().is_none() && world.recoveries().len() > before
    });
    let successor = world.last().successor.clone();
    let expected: Vec<_> = successors.iter().map(|number| key(*number)).collect();
    assert!(
        successor.is_some_and(|successor| expected.contains(&successor)),
        "{:?}\n{}",
        world.last().end,
        world.story()
    );
}

#[test]
fn one_from_which_the_recorded_primary_replicates_is_the_primary_again() {
    for flavour in FLAVOURS {
        // With and without others.
        for replicas in [1, 3] {
            let mut world = replaced(flavour, replicas, no_cool_down);
            for number in 2..=replicas + 1 {
                point(&mut world, number, 1);
            }
            open(&mut world, 1);
            world.run(15 * SEC);
            assert_eq!(quarantines(&world), 1, "{}", world.story());
            assert_protected(&mut world, 1, &[2, 3, 4]);
        }
    }
}

/// The one that took its place is dead by then, and the cool-down keeps it from being replaced.
#[test]
fn one_from_which_most_servers_replicate_is_the_primary_again() {
    for flavour in FLAVOURS {
        for replicas in [2, 3, 4] {
            let mut world = replaced(flavour, replicas, |_| {});
            world.kill(2);
            world.run(20 * SEC);
            for number in 3..=replicas + 1 {
                point(&mut world, number, 1);
            }
            open(&mut world, 1);
            world.run(25 * SEC);
            assert_eq!(quarantines(&world), 1, "{}", world.story());
            let policy = Policy {
                cool_down: Duration::ZERO,
                ..world.policy.clone()
            };
            world.set_policy(&policy);
            assert_protected(&mut world, 1, &[3, 4, 5]);
        }
    }
}

/// Most of them moved, though the primary that is recorded lives and is left behind.
#[test]
fn most_servers_count_while_the_recorded_primary_lives() {
    let mut world = replaced(Flavour::Mysql, 3, no_cool_down);
    point(&mut world, 3, 1);
    world.run(15 * SEC);
    assert!(is_deposed(&mut world, 1), "one of three\n{}", world.story());
    point(&mut world, 4, 1);
    world.run(15 * SEC);
    assert!(!is_deposed(&mut world, 1), "{}", world.story());
    assert_eq!(primary(&world), "db1:3306");
}

/// Below a server that was moved there are more.
#[test]
fn servers_below_one_that_was_moved_count_with_it() {
    let mut world = replaced(Flavour::Mysql, 4, no_cool_down);
    point(&mut world, 4, 3);
    point(&mut world, 5, 3);
    world.run(15 * SEC);
    assert!(is_deposed(&mut world, 1));
    point(&mut world, 3, 1);
    world.run(15 * SEC);
    assert!(!is_deposed(&mut world, 1), "{}", world.story());
}

/// People stop the daemons to work in peace: these find the work done when they start, and undo none of it.
#[test]
fn a_choice_that_was_made_while_all_daemons_were_down_is_found() {
    for flavour in FLAVOURS {
        let mut world = replaced(flavour, 3, no_cool_down);
        for number in 0..3 {
            world.kill_daemon(number);
        }
        world.run(10 * SEC);
        for number in 2..=4 {
            point(&mut world, number, 1);
        }
        open(&mut world, 1);
        world.run(30 * SEC);
        world.restart(1);
        world.run(2 * SEC);
        for number in 0..3 {
            world.restart_daemon(number);
        }
        world.elect(1);
        world.run(20 * SEC);
        assert_eq!(quarantines(&world), 1, "{}", world.story());
        assert_protected(&mut world, 1, &[2, 3, 4]);
    }
}

/// Recoveries are disabled while people work. When they are enabled again the work is not undone.
#[test]
fn a_choice_that_was_made_while_recoveries_were_disabled_counts() {
    let mut world = replaced(Flavour::Mysql, 3, no_cool_down);
    world.ask(Request::Decide(Command::SetRecoveriesEnabled {
        enabled: false,
    }));
    for number in 2..=4 {
        point(&mut world, number, 1);
    }
    world.server(1).starts_read_only = false;
    world.restart(1);
    world.run(20 * SEC);
    world.ask(Request::Decide(Command::SetRecoveriesEnabled {
        enabled: true,
    }));
    world.run(20 * SEC);
    assert_eq!(quarantines(&world), 1, "{}", world.story());
    assert_protected(&mut world, 1, &[2, 3, 4]);
}

/// Half is not most. That nothing protects such a server is shown and told, and so is its death; people may release it.
#[test]
fn one_from_which_half_replicate_is_not_protected_and_that_is_told_until_it_is_released() {
    let mut world = replaced(Flavour::Mysql, 2, no_cool_down);
    assert_eq!(told(&world, "is not protected"), 0);
    point(&mut world, 3, 1);
    world.run(30 * SEC);
    assert!(is_deposed(&mut world, 1), "{}", world.story());
    assert_eq!(told(&world, "is not protected"), 1, "{}", world.story());
    for daemon in 0..3 {
        let (_, structure, details) = world.found(daemon, 1).expect("a finding");
        assert_eq!(
            structure.first(),
            Some(&StructureCode::ReplacedPrimaryHasReplicasStructureWarning)
        );
        assert!(
            details.contains("a recovery made db2:3306 the primary in its place, and 1 server(s)"),
            "{details}"
        );
    }
    world.kill(1);
    world.run(10 * SEC);
    assert_ne!(told(&world, "db1:3306: no recovery: it was deposed"), 0);
    let detection = world.oracle.detections_newest_first().next();
    let detection = detection.expect("its death is registered");
    assert_eq!(detection.server, key(1));
    assert_eq!(world.recoveries().len(), 1);
    // Restarted it is closed as before.
    world.server(1).starts_read_only = false;
    world.restart(1);
    world.run(15 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    let identity = world.server(1).identity();
    world.ask(Request::Decide(Command::LiftQuarantine {
        identity,
        reason: String::from("released"),
    }));
    open(&mut world, 1);
    world.run(10 * SEC);
    world.restart(1);
    world.run(15 * SEC);
    assert!(!world.server(1).read_only, "{}", world.story());
}

/// Servers that the recovery left behind go on replicating from the old primary when it returns: nobody put them there.
#[test]
fn replicas_that_were_left_behind_choose_nobody() {
    for flavour in FLAVOURS {
        let mut world = World::with(flavour, 3, no_cool_down);
        world.run(5 * SEC);
        // They hold more than the promoted one, so that they can never follow it.
        world.server(2).deaf = true;
        world.run(2 * SEC);
        world.server(3).frozen = true;
        world.server(4).frozen = true;
        world.kill(1);
        world.expect_succeeded(60 * SEC, 2);
        assert_eq!(world.last().lost, [key(3), key(4)], "{}", world.story());
        world.server(3).frozen = false;
        world.server(4).frozen = false;
        world.server(1).starts_read_only = false;
        world.restart(1);
        world.run(60 * SEC);
        for number in [3, 4] {
            let channel = world.server(number).channel.clone().expect("a replica");
            assert_eq!(channel.source, key(1), "{}", world.story());
            world.server(number).channel.as_mut().expect("a replica").io = true;
        }
        world.run(60 * SEC);
        assert!(is_deposed(&mut world, 1), "{}", world.story());
        world.restart(1);
        world.expect(15 * SEC, "the fence", |world| world.writeable() == [key(2)]);
    }
}

/// It kept the settings of its former source, and begins to replicate by itself when it restarts.
#[test]
fn a_promoted_server_that_a_restart_makes_follow_its_former_source_chooses_nobody() {
    let mut world = World::new(Flavour::Mysql, 1);
    world.run(5 * SEC);
    world
        .server(2)
        .refuses
        .insert("reset replica all".to_string(), 1227);
    world.kill(1);
    world.expect_succeeded(30 * SEC, 2);
    world.restart(1);
    world.run(15 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    let channel = world.server(2).channel.as_mut().expect("it is kept");
    channel.io = true;
    channel.sql = true;
    world.restart(2);
    world.run(30 * SEC);
    assert!(is_deposed(&mut world, 1), "{}", world.story());
}

/// The leader that was away knows the servers as they were: it reads them again before it says who chose whom.
#[test]
fn what_was_read_long_ago_lifts_nothing() {
    let mut world = replaced(Flavour::Mysql, 3, no_cool_down);
    point(&mut world, 3, 1);
    world.run(15 * SEC);
    let leader = world.leader.expect("a leader");
    // What it read of db4 last is as good as true, and old.
    point(&mut world, 4, 1);
    world.run(100 * 1_000_000);
    for daemon in 0..3 {
        world.cut.insert((daemon, key(4)));
    }
    world.run(15 * SEC);
    assert!(is_deposed(&mut world, 1), "{}", world.story());
    assert_eq!(world.leader, Some(leader));
    world.cut.clear();
    world.run(15 * SEC);
    assert!(!is_deposed(&mut world, 1), "{}", world.story());
}

/// Of a cluster that people took out of the filters nothing is changed, whatever was begun there.
#[test]
fn a_deposed_primary_outside_the_filters_is_left_open_and_told_of() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.run(5 * SEC);
    world.kill(1);
    world.expect_succeeded(10 * SEC, 2);
    let inside = world.policy.clone();
    let outside = Policy {
        recover_primary_filters: vec![String::from("other")],
        ..inside.clone()
    };
    world.set_policy(&outside);
    world.run(5 * SEC);
    world.restart(1);
    world.run(30 * SEC);
    assert_eq!(world.writeable(), [key(1), key(2)], "{}", world.story());
    assert_eq!(quarantines(&world), 0);
    assert_eq!(told(&world, "two writeable primaries"), 1);
    world.set_policy(&inside);
    world.expect(15 * SEC, "the fence", |world| world.writeable() == [key(2)]);
}

#[test]
fn a_lost_replica_outside_the_filters_is_left_as_it_is() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(5 * SEC);
    world.kill(4);
    world.kill(1);
    world.expect_succeeded(60 * SEC, 2);
    assert_eq!(world.last().lost, [key(4)]);
    let inside = world.policy.clone();
    let outside = Policy {
        recover_primary_filters: vec![String::from("other")],
        ..inside.clone()
    };
    world.set_policy(&outside);
    world.run(5 * SEC);
    let before = world.server(4).statements.len();
    world.restart(4);
    world.run(60 * SEC);
    assert_eq!(
        world.server(4).statements.len(),
        before,
        "{}",
        world.story()
    );
    world.set_policy(&inside);
    world.expect(60 * SEC, "db4 below db2", |world| {
        let channel = world.fleet.servers[&key(4)].channel.as_ref();
        channel.is_some_and(|channel| channel.source == key(2))
    });
}

/// Maintenance is people at work, like a downtime.
#[test]
fn what_is_under_maintenance_is_neither_closed_nor_pointed_elsewhere_nor_opened() {
    let begin = |world: &mut World, number: u16| {
        let until = world.time().wall + Duration::from_secs(60);
        world.ask(Request::Decide(Command::BeginMaintenance {
            key: key(number),
            owner: String::from("dba"),
            reason: String::from("looking at it"),
            until,
        }));
        world.run(SEC);
    };
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(5 * SEC);
    world.kill(4);
    world.kill(1);
    world.expect_succeeded(60 * SEC, 2);
    // The lost one replicates from whoever is open, and could not follow another after that.
    world.writes = false;
    begin(&mut world, 1);
    begin(&mut world, 4);
    begin(&mut world, 2);
    world.server(2).starts_read_only = true;
    world.restart(1);
    world.restart(4);
    world.restart(2);
    world.run(40 * SEC);
    assert_eq!(world.writeable(), [key(1)], "{}", world.story());
    let follows = world.server(4).channel.clone().expect("a replica").source;
    assert_eq!(follows, key(1));
    assert_eq!(told(&world, "no recovery"), 0, "{}", world.story());
    world.expect(60 * SEC, "everything as it is to be", |world| {
        let channel = world.fleet.servers[&key(4)].channel.as_ref();
        world.writeable() == [key(2)] && channel.is_some_and(|channel| channel.source == key(2))
    });
}
