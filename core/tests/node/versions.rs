//! What two releases may say to each other in one log.

use orchestrator_core::{
    id::{LogPosition, NodeId},
    node::{Identification, Input, Node, Output, Reply, Request},
    policy::Policy,
    replicated::{
        Answer, Command, Entry, Protocols, Refusal, Replicated, Stamped, Versions,
        wire::encode_command,
    },
    time::{Mono, Now, Wall},
    topology::Flavour,
};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::world::{SEC, World};

const SPEAKS: Command = Command::DescribeProtocols {
    node: NodeId(1),
    protocols: Protocols {
        oldest: 2,
        newest: 3,
    },
};
const SWITCH_ON: Command = Command::SetVersion {
    command: 2,
    snapshot: 2,
};

fn refusal(world: &mut World, command: Command) -> Option<Refusal> {
    let request = world.ask(Request::Decide(command));
    world.run(SEC);
    match world.replies.get(&request) {
        Some(Reply::Refused(refusal) | Reply::Decided(Answer::Refused(refusal))) => {
            Some(refusal.clone())
        }
        Some(Reply::Decided(_)) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_of_a_later_version_is_refused_in_words_until_it_is_switched_on() {
    let mut world = World::new(Flavour::Mysql, 1);
    let Some(Refusal::Invalid(why)) = refusal(&mut world, SPEAKS) else {
        panic!("version 1 has no such command");
    };
    assert!(why.contains("DescribeProtocols needs version 2"), "{why}");
    assert!(why.contains("1 is in force"), "{why}");
    let proposed = |world: &World| {
        let mut lines = world.trace.iter();
        lines.any(|line| line.contains("proposes DescribeProtocols"))
    };
    assert!(!proposed(&world));

    assert_eq!(refusal(&mut world, SWITCH_ON), None);
    // It is proposed; the state knows no such member.
    let found = refusal(&mut world, SPEAKS);
    assert!(matches!(found, Some(Refusal::NotFound(_))), "{found:?}");
    assert!(proposed(&world));
    for daemon in &world.daemons {
        let versions = daemon.node.replicated().versions();
        assert_eq!((versions.command, versions.snapshot), (2, 2));
    }
}

/// What a daemon of the release before comes to when it is given this.
fn told_to_the_release_before(version: u32, command: Command) -> Output {
    let mut node = Node::new(
        Identification::default(),
        Policy::default(),
        Replicated::default(),
    )
    .reading(Versions {
        command: 1,
        snapshot: 1,
    });
    let stamped = Stamped {
        wall: Wall::from_secs(1_800_000_000),
        command,
    };
    let bytes = encode_command(version, &stamped).expect("of this version");
    let at = LogPosition {
        index: 1,
        term: 1,
        node: NodeId(1),
    };
    let now = Now {
        mono: Mono::ZERO,
        wall: stamped.wall,
    };
    let mut out = Output::default();
    let entries = vec![(at, Entry::Command(bytes))];
    let mut rng = StdRng::seed_from_u64(1);
    node.step(now, &mut rng, Input::Committed(entries), &mut out);
    out
}

#[test]
fn the_release_before_stops_at_what_it_does_not_read() {
    let fine = told_to_the_release_before(1, Command::SetRecoveriesEnabled { enabled: false });
    assert_eq!((fine.fatal, fine.applied.len()), (None, 1));
    // Read by it, and a word that it is not meant any more.
    for (version, command, wanted) in [
        (1, SWITCH_ON, "too old for its cluster"),
        (2, SPEAKS, "upgrade this daemon"),
        (
            2,
            Command::SetRecoveriesEnabled { enabled: false },
            "upgrade this daemon",
        ),
    ] {
        let out = told_to_the_release_before(version, command);
        let fatal = out.fatal.expect("it stops");
        assert!(fatal.reason.contains(wanted), "{}", fatal.reason);
        assert_eq!(out.applied, [], "nothing is acknowledged");
    }
}
