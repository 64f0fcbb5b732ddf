//! Random schedules of faults in servers, daemons and networks. What holds in each: everything that the world asserts,
//! and that after all is healed one server at most is writeable and nothing is left halfway.

use std::collections::BTreeSet;

use orchestrator_core::{recovery::End, topology::Flavour};
use proptest::prelude::*;

use crate::world::{MS, SEC, World, key};

#[derive(Debug, Clone)]
enum Fault {
    KillPrimary,
    Kill(u16),
    Restart(u16),
    Freeze(u16),
    Thaw(u16),
    /// Receives nothing for a while.
    Deaf(u16),
    Stuck(u16),
    Hears(u16),
    Depose(usize),
    KillDaemon(usize),
    RestartDaemon(usize),
    Cut(usize, u16),
}

fn faults() -> impl Strategy<Value = Vec<(u64, Fault)>> {
    let fault = prop_oneof![
        3 => Just(Fault::KillPrimary),
        1 => (1..=4u16).prop_map(Fault::Kill),
        3 => (1..=4u16).prop_map(Fault::Restart),
        1 => (1..=4u16).prop_map(Fault::Freeze),
        2 => (1..=4u16).prop_map(Fault::Thaw),
        1 => (1..=4u16).prop_map(Fault::Deaf),
        1 => (1..=4u16).prop_map(Fault::Stuck),
        2 => (1..=4u16).prop_map(Fault::Hears),
        3 => (0..3usize).prop_map(Fault::Depose),
        1 => (0..3usize).prop_map(Fault::KillDaemon),
        2 => (0..3usize).prop_map(Fault::RestartDaemon),
        1 => (0..3usize, 1..=4u16).prop_map(|(daemon, server)| Fault::Cut(daemon, server)),
    ];
    let pause = prop_oneof![3 => 0..100u64, 2 => 100..3000u64, 1 => 3000..8000u64];
    prop::collection::vec((pause, fault), 1..10)
}

fn strike(world: &mut World, fault: &Fault) {
    match *fault {
        Fault::KillPrimary => {
            let primary = world
                .oracle
                .clusters()
                .next()
                .map(|record| record.primary.clone());
            let number = (1..=4).find(|number| Some(key(*number)) == primary);
            if let Some(number) = number.filter(|number| world.server(*number).up) {
                world.kill(number);
            }
        }
        Fault::Kill(number) => {
            if world.server(number).up {
                world.kill(number);
            }
        }
        Fault::Restart(number) => {
            if !world.server(number).up {
                world.restart(number);
            }
        }
        Fault::Freeze(number) => {
            if world.server(number).answers() {
                world.freeze(number);
            }
        }
        Fault::Thaw(number) => {
            if world.server(number).frozen {
                world.thaw(number);
            }
        }
        Fault::Deaf(number) => world.server(number).deaf = true,
        Fault::Stuck(number) => world.server(number).stuck = true,
        Fault::Hears(number) => {
            world.server(number).deaf = false;
            world.server(number).stuck = false;
        }
        Fault::Depose(next) => {
            if world.leader.is_some() {
                world.orphans_survive = next % 2 == 0;
                world.depose();
                world.run(300 * MS);
            }
            elect_somebody(world, next);
        }
        Fault::KillDaemon(number) => {
            let others = (0..3)
                .filter(|other| *other != number && world.daemons[*other].up)
                .count();
            if world.daemons[number].up && others == 2 {
                world.kill_daemon(number);
                world.run(300 * MS);
                elect_somebody(world, number + 1);
            }
        }
        Fault::RestartDaemon(number) => {
            if !world.daemons[number].up {
                world.restart_daemon(number);
            }
        }
        Fault::Cut(daemon, number) => {
            if !world.cut.remove(&(daemon, key(number))) {
                world.cut.insert((daemon, key(number)));
            }
        }
    }
}

fn elect_somebody(world: &mut World, from: usize) {
    if world.leader.is_none()
        && let Some(next) = (from..from + 3)
            .map(|number| number % 3)
            .find(|number| world.daemons[*number].up)
    {
        world.elect(next);
    }
}

fn check(flavour: Flavour, faults: &[(u64, Fault)]) {
    let mut world = World::new(flavour, 3);
    for (pause, fault) in faults {
        world.run(pause * MS);
        world.say(format!("{fault:?}"));
        strike(&mut world, fault);
    }
    world.run(3 * SEC);
    world.say("healed".to_string());
    world.cut.clear();
    for number in 0..3 {
        if !world.daemons[number].up {
            world.restart_daemon(number);
        }
    }
    elect_somebody(&mut world, 0);
    for number in 1..=4 {
        strike(&mut world, &Fault::Restart(number));
        strike(&mut world, &Fault::Thaw(number));
        strike(&mut world, &Fault::Hears(number));
    }
    world.run(90 * SEC);
    assert!(
        world.running().is_none(),
        "{:?} is left\n{}",
        world.running(),
        world.story()
    );
    let writeable = world.writeable();
    assert_eq!(
        writeable.len(),
        1,
        "{writeable:?} are writeable\n{}",
        world.story()
    );
    for recovery in world.recoveries() {
        if matches!(recovery.end, Some((_, End::Succeeded))) {
            // One that is opened again is one.
            let opened: BTreeSet<_> = world
                .promoted
                .iter()
                .filter(|(uid, _)| *uid == recovery.uid)
                .map(|(_, key)| key)
                .collect();
            assert!(
                opened.len() == 1 && opened.first().copied() == recovery.successor.as_ref(),
                "{opened:?}, not {:?}\n{}",
                recovery.successor,
                world.story()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_mariadb(faults in faults()) {
        check(Flavour::Mariadb, &faults);
    }

    #[test]
    fn any_schedule_mysql(faults in faults()) {
        check(Flavour::Mysql, &faults);
    }
}
