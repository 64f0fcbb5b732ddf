//! Daemons compare what they hold, and a difference is an alarm.

use orchestrator_core::{
    id::{LogPosition, NodeId},
    node::PeerMessage,
    replicated::{Command, Stamped},
    time::Wall,
    topology::Flavour,
};

use crate::world::{SEC, World, key};

fn alarms(world: &World) -> usize {
    world
        .trace
        .iter()
        .filter(|line| line.contains("ALARM"))
        .count()
}

fn differs(world: &World, number: usize) -> Vec<NodeId> {
    world.daemons[number]
        .node
        .disagreements()
        .keys()
        .copied()
        .collect()
}

fn digest_of(world: &World, number: usize) -> (LogPosition, [u8; 32]) {
    let node = &world.daemons[number].node;
    (node.replicated().applied(), node.digest())
}

#[test]
fn daemons_that_hold_the_same_say_nothing() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(20 * SEC);
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.run(30 * SEC);
    for number in 0..3 {
        let told = world.digests_told.iter();
        let positions = told.filter(|(by, _)| *by == number).count();
        assert!(
            positions >= 3,
            "daemon{number} told of {positions} positions"
        );
        assert_eq!(differs(&world, number), []);
    }
    assert_eq!(alarms(&world), 0, "{}", world.story());
}

#[test]
fn another_digest_at_the_same_entry_is_one_alarm() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(SEC);
    let (at, mut digest) = digest_of(&world, 0);
    digest[0] ^= 1;
    for _ in 0..3 {
        world.hear(0, NodeId(2), PeerMessage::Digest { at, digest });
    }
    assert_eq!(differs(&world, 0), [NodeId(2)]);
    assert_eq!(alarms(&world), 1, "{}", world.story());
    assert_eq!(differs(&world, 1), []);
}

#[test]
fn another_entry_at_the_same_index_is_an_alarm() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(SEC);
    let (mut at, digest) = digest_of(&world, 0);
    at.term += 1;
    world.hear(0, NodeId(3), PeerMessage::Digest { at, digest });
    assert_eq!(differs(&world, 0), [NodeId(3)]);
    assert_eq!(alarms(&world), 1, "{}", world.story());
}

/// What a peer says of an entry that is not here yet is compared when it is.
#[test]
fn a_position_that_is_ahead_is_compared_later() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(SEC);
    let (mut next, _) = digest_of(&world, 0);
    next.index += 1;
    let mut ahead = world.oracle.clone();
    let disable = Command::SetRecoveriesEnabled { enabled: false };
    let stamped = Stamped {
        wall: Wall::from_nanos(1),
        command: disable,
    };
    let _ = ahead.apply(next, &stamped);
    let digest = ahead.digest();
    world.hear(0, NodeId(2), PeerMessage::Digest { at: next, digest });
    assert_eq!(alarms(&world), 0, "{}", world.story());
    // Another command takes that place.
    world.ask(orchestrator_core::node::Request::Decide(Command::PutTag {
        key: key(1),
        name: String::from("role"),
        value: String::from("main"),
    }));
    world.run(SEC);
    assert_eq!(differs(&world, 0), [NodeId(2)]);
    assert_eq!(alarms(&world), 1, "{}", world.story());
}
