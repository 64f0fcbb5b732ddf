//! Situations of `FAILOVER.md`, one test each.

use std::collections::BTreeSet;

use orchestrator_core::{
    analysis::{Code, StructureCode},
    id::InstanceKey,
    node::{Reply, Request},
    policy::DeposedAction,
    recovery::{End, Outcome, Phase, Purpose, Stage, Statement, StepKind, hook::HookList},
    replicated::{AckScope, Command},
    topology::{self, Flavour, MissingPrivilege, PromotionRule, ThroughFence},
};

use crate::fleet::{Channel, Server};
use crate::world::{MS, SEC, World, key};

const FLAVOURS: [Flavour; 2] = [Flavour::Mariadb, Flavour::Mysql];

fn for_both(check: impl Fn(Flavour)) {
    for flavour in FLAVOURS {
        check(flavour);
    }
}

/// All replicas that are up follow that server.
#[track_caller]
fn assert_follow(world: &mut World, numbers: &[u16], source: u16) {
    for number in numbers {
        let server = world.server(*number);
        let channel = server.channel.clone();
        assert!(
            channel.as_ref().is_some_and(|channel| {
                channel.source == key(source) && channel.io && channel.sql
            }),
            "db{number} does not follow db{source}: {channel:?}\n{}",
            world.story()
        );
    }
}

/// Every acknowledged write is on that server.
#[track_caller]
fn assert_nothing_lost(world: &mut World, number: u16) {
    let acknowledged = world.acknowledged.clone();
    let applied = world.server(number).applied.clone();
    let lost: Vec<_> = acknowledged.difference(&applied).collect();
    assert!(lost.is_empty(), "lost: {lost:?}\n{}", world.story());
}

/// The audit of each recovery that has ended names every step: when it was intended, under which epoch, and what came of it.
#[track_caller]
fn assert_audited(world: &World) {
    for recovery in world.recoveries() {
        let lines: Vec<&str> = recovery
            .lines
            .iter()
            .map(|line| line.message.as_str())
            .collect();
        for (step, phase) in recovery.steps.values() {
            if step.kind == StepKind::Hook {
                continue;
            }
            let intended = format!(": intended {step} (epoch ");
            assert!(
                lines.iter().any(|line| line.contains(&intended)),
                "{intended}: {lines:#?}"
            );
            let outcome = match phase {
                Phase::Settled(Outcome::Done) => format!("{step}: done"),
                Phase::Settled(Outcome::Refused { .. }) => format!("{step}: refused"),
                Phase::Settled(Outcome::Unknown { .. }) | Phase::Intended(_) => {
                    format!("{step}: no outcome is known; ")
                }
            };
            assert!(
                recovery.is_running() || lines.iter().any(|line| line.starts_with(&outcome)),
                "{outcome}: {lines:#?}"
            );
        }
    }
}

#[test]
fn the_audit_says_which_statements_ran_where_and_what_came_of_them() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 2);
        world.run(5 * SEC);
        assert_audited(&world);
        let recovery = world.last().clone();
        let epoch = recovery.owner;
        let at = |wanted: &str| {
            let found = recovery
                .lines
                .iter()
                .position(|line| line.message == wanted);
            found.unwrap_or_else(|| panic!("{wanted}: {:#?}", recovery.lines))
        };
        let of = |kind: StepKind, number: u16| {
            let steps = recovery.steps_of(kind);
            let step = steps
                .map(|(step, _)| step)
                .find(|step| step.server == key(number));
            step.expect("a step").id
        };
        let (promote, repoint) = (of(StepKind::Promote, 2), of(StepKind::Repoint, 3));
        let promotion = format!("{promote} on db2:3306: stop IO thread; make writeable");
        let intended = at(&format!("promote: intended {promotion} (epoch {epoch})"));
        let done = at(&format!("{promotion}: done"));
        assert!(intended < done);
        let change = match flavour {
            Flavour::Mariadb => {
                "stop SQL thread; change source to db2:3306, by gtid_slave_pos, 0 channel options stated again; start replication"
            }
            _ => {
                "change source to db2:3306, position kept, 0 channel options stated again; start replication"
            }
        };
        let change = format!("{repoint} on db3:3306: {change}");
        assert!(done < at(&format!("regroup: intended {change} (epoch {epoch})")));
        at(&format!("{change}: done"));
    });
}

#[test]
fn primary_killed() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 2);
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [key(2)]);
        assert_follow(&mut world, &[3, 4], 2);
        assert_nothing_lost(&mut world, 2);
        assert_eq!(world.promoted.len(), 1);
        assert_eq!(world.recoveries().len(), 1);
    });
}

#[test]
fn a_leader_that_hands_over_does_not_repeat_its_proposals_without_pause() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.kill(1);
    world.run_until(2 * SEC, |world| !world.recoveries().is_empty());
    world.hands_over_until = world.now + SEC;
    world.expect_succeeded(3 * SEC, 2);
    assert!(world.proposals_refused > 0, "{}", world.story());
    assert!(
        world.proposals_refused < 50,
        "{} times in a second",
        world.proposals_refused
    );
}

#[test]
fn a_replica_that_received_most_is_promoted() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).deaf = true;
        world.server(4).deaf = true;
        world.run(SEC);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 3);
        world.server(2).deaf = false;
        world.server(4).deaf = false;
        world.run(10 * SEC);
        assert_follow(&mut world, &[2, 4], 3);
        assert_nothing_lost(&mut world, 3);
    });
}

#[test]
fn a_replica_that_the_leader_never_read_is_regrouped_when_it_returns() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 5);
        let leader = world.depose();
        world.kill_daemon(leader);
        world.cut.insert((leader, key(3)));
        world.restart_daemon(leader);
        world.run(SEC);
        world.elect(leader);
        world.run(SEC);
        world.kill(1);
        world.expect(2 * SEC, "a promotion", |world| !world.promoted.is_empty());
        world.run(SEC);
        world.cut.clear();
        world.expect_succeeded(10 * SEC, 2);
        world.run(SEC);
        assert_follow(&mut world, &[3, 4, 5, 6], 2);
        assert_eq!(world.last().lost, []);
    });
}

#[test]
fn a_stopped_applier_is_drained_and_its_relay_log_kept() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.server(2).channel.as_mut().expect("a replica").sql = false;
        world.server(3).deaf = true;
        world.run(6 * SEC);
        assert!(world.server(2).has_unapplied());
        world.kill(1);
        world.expect_succeeded(3 * SEC, 2);
        world.server(3).deaf = false;
        world.run(10 * SEC);
        assert_nothing_lost(&mut world, 2);
        assert_follow(&mut world, &[3], 2);
    });
}

/// Its leader ends before it has done what it intended, and the next one does it: the record says so, and not that it was never
/// done.
#[test]
fn a_halt_that_the_next_leader_does_again_reads_as_done_later() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.late_steps.insert(key(3), 4 * SEC);
        world.kill(1);
        world.expect(3 * SEC, "a halt on its way", |world| {
            world
                .running()
                .is_some_and(|recovery| recovery.stage == Stage::FenceAndHalt)
        });
        let leader = world.depose();
        world.kill_daemon(leader);
        world.late_steps.clear();
        world.elect((leader + 1) % 3);
        world.expect_succeeded(20 * SEC, 2);
        assert_follow(&mut world, &[3], 2);
        let lines = lines_of(&world);
        assert!(
            says(
                &lines,
                "on db3:3306: stop IO thread: no outcome is known; step-",
                "was done there later"
            ),
            "{lines:#?}"
        );
        assert!(!says(&lines, "not done", ""), "{lines:#?}");
    });
}

/// MariaDB, with two replicas of which the first received what it cannot apply, and the second less where it is `deaf`.
fn an_applier_is_held(deaf: bool) -> World {
    let mut world = World::new(Flavour::Mariadb, 2);
    world.server(2).stuck = true;
    world.server(3).deaf = deaf;
    world.run(SEC);
    assert!(world.server(2).has_unapplied());
    world
}

/// Its relay log is whole (the model of the servers asserts that), and nothing was done that would have thrown it away.
#[track_caller]
fn assert_left_with_its_relay_log(world: &mut World, number: u16) {
    let server = world.server(number);
    let channel = server.channel.as_ref().expect("a replica");
    assert!(!channel.io && !channel.sql, "{channel:?}");
    assert_eq!(channel.source, key(1));
    assert!(server.has_unapplied());
}

const BOTH_STOPPED: &str = "holds unapplied relay logs with both threads stopped";

/// Somebody's stop of the applier that had waited for it takes effect with the halt: both threads are stopped, and starting
/// either would purge the relay log (F1). It alone holds the most.
#[test]
fn an_applier_that_somebody_stops_during_the_halt_keeps_its_relay_log() {
    let mut world = an_applier_is_held(true);
    world.server(2).applier_stops_with = Some(Statement::StopIoThread.to_string());
    world.kill(1);
    world.expect(3 * SEC, "a refused recovery", |world| {
        world.running().is_none() && !world.recoveries().is_empty()
    });
    let reason = match &world.last().end {
        Some((_, End::Failed { reason })) => reason.clone(),
        other => panic!("{other:?}\n{}", world.story()),
    };
    assert!(reason.contains(BOTH_STOPPED), "{reason}");
    assert!(reason.contains("RELAY_LOG_FILE"), "{reason}");
    world.run(60 * SEC);
    assert_left_with_its_relay_log(&mut world, 2);
    assert_eq!(world.promoted, []);
}

/// Another holds the same and is promoted: it is lost, at once and for that reason.
#[test]
fn a_replica_whose_applier_somebody_stopped_during_the_halt_is_lost_and_named() {
    let mut world = an_applier_is_held(false);
    world.server(2).applier_stops_with = Some(Statement::StopIoThread.to_string());
    world.kill(1);
    world.expect_succeeded(5 * SEC, 3);
    assert_eq!(world.last().lost, [key(2)]);
    let errors = &world.last().errors;
    assert!(
        says(errors, "db2:3306 is not pointed at", BOTH_STOPPED),
        "{errors:?}"
    );
    world.run(60 * SEC);
    assert_left_with_its_relay_log(&mut world, 2);
    assert_nothing_lost(&mut world, 3);
}

/// It takes effect a moment later, while the candidate is drained: nothing can be expected of it any more.
#[test]
fn a_candidate_whose_applier_somebody_stops_is_left_for_its_equal_at_once() {
    let mut world = World::new(Flavour::Mariadb, 2);
    for number in 2..=3 {
        world.server(number).stuck = true;
    }
    world.run(SEC);
    world.kill(1);
    world.expect(3 * SEC, "a drain", |world| {
        world
            .running()
            .is_some_and(|recovery| recovery.candidate == Some(key(2)))
    });
    world.run(SEC);
    world.server(2).channel.as_mut().expect("a replica").sql = false;
    world.server(3).stuck = false;
    world.expect(SEC, "the promotion of its equal", |world| {
        world.writeable() == [key(3)]
    });
    world.expect_succeeded(5 * SEC, 3);
    let lines = lines_of(&world);
    let passed_over = format!("was passed over: it {BOTH_STOPPED}");
    assert!(
        says(&lines, "db3:3306 over db2:3306", &passed_over),
        "{lines:#?}"
    );
    world.run(60 * SEC);
    assert_left_with_its_relay_log(&mut world, 2);
    assert_nothing_lost(&mut world, 3);
}

/// The halt waits behind the stop when nobody can be promoted, and what was read before shows an applier that runs: the receiver
/// is not started on the strength of that.
#[test]
fn a_receiver_whose_halt_waits_behind_a_stop_of_its_applier_is_not_started_unread() {
    for returns in [false, true] {
        let mut world = World::with(Flavour::Mariadb, 2, |policy| {
            policy.promotion_ignore_hosts = vec![String::from(".")];
        });
        world.server(2).stuck = true;
        world.run(SEC);
        world.server(2).applier_stops_with = Some(Statement::StopIoThread.to_string());
        world.late_steps.insert(key(2), 4 * SEC);
        world.kill(1);
        world.expect(6 * SEC, "an undo", |world| {
            world
                .running()
                .is_some_and(|recovery| recovery.stage == Stage::Undo)
        });
        assert!(world.server(2).channel.as_ref().expect("a replica").io);
        if returns {
            world.restart(1);
        }
        world.expect(60 * SEC, "an end", |world| world.running().is_none());
        world.run(60 * SEC);
        assert_left_with_its_relay_log(&mut world, 2);
    }
}

/// Past the point of no return nobody else is promoted: a refusal that passes is waited for.
#[test]
fn a_promotion_that_is_refused_for_a_while_is_tried_on() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        let text = Statement::MakeWriteable.to_string();
        world.server(2).refuses.insert(text, 1045);
        world.kill(1);
        world.run(8 * SEC);
        assert_eq!(world.promoted, [], "{}", world.story());
        world.server(2).refuses.clear();
        world.expect_succeeded(5 * SEC, 2);
        assert_eq!(world.recoveries().len(), 1, "{}", world.story());
        assert_follow(&mut world, &[3, 4], 2);
        assert_nothing_lost(&mut world, 2);
    });
}

/// `DelayMasterPromotionIfSQLThreadNotUpToDate` is false in the file. On MariaDB that would lose writes, and is not obeyed.
#[test]
fn a_promotion_that_does_not_wait_for_the_applier_throws_nothing_away() {
    for_both(|flavour| {
        let mut world = World::with(flavour, 2, |policy| policy.skip_drain = true);
        for number in 2..=3 {
            world.server(number).stuck = true;
        }
        world.server(2).channel.as_mut().expect("a replica").sql = false;
        world.run(SEC);
        world.kill(1);
        world.run(2 * SEC);
        let is_open = world.writeable() == [key(2)];
        assert_eq!(is_open, flavour == Flavour::Mysql, "{}", world.story());
        if is_open {
            assert!(world.server(2).has_unapplied());
            assert!(says(
                &lines_of(&world),
                "db2:3306 is opened before it has applied ",
                ""
            ));
        }
        for number in 2..=3 {
            world.server(number).stuck = false;
        }
        world.expect_succeeded(30 * SEC, 2);
        world.run(10 * SEC);
        assert_nothing_lost(&mut world, 2);
        assert_follow(&mut world, &[3], 2);
        assert_eq!(
            world
                .server(2)
                .channel
                .as_ref()
                .map(|channel| &channel.source),
            None
        );
    });
}

/// A leader that has not read the promoted server does not know that it applies on.
#[test]
fn the_next_leader_throws_nothing_away_of_what_a_promoted_server_applies() {
    let mut world = World::with(Flavour::Mysql, 2, |policy| policy.skip_drain = true);
    for number in 2..=3 {
        world.server(number).stuck = true;
    }
    world.run(SEC);
    world.kill(1);
    world.expect(3 * SEC, "a promotion", |world| !world.promoted.is_empty());
    let leader = world.depose();
    world.kill_daemon(leader);
    let next = (leader + 1) % 3;
    world.kill_daemon(next);
    world.restart_daemon(next);
    world.elect(next);
    world.run(10 * SEC);
    assert!(world.server(2).has_unapplied());
    for number in 2..=3 {
        world.server(number).stuck = false;
    }
    world.expect_succeeded(60 * SEC, 2);
    assert_nothing_lost(&mut world, 2);
}

/// Its relay log is kept, however long it takes.
#[test]
fn a_promoted_server_that_applies_on_for_long_keeps_its_relay_log() {
    let mut world = World::with(Flavour::Mysql, 2, |policy| policy.skip_drain = true);
    for number in 2..=3 {
        world.server(number).stuck = true;
    }
    world.run(SEC);
    world.kill(1);
    world.expect_succeeded(90 * SEC, 2);
    assert!(world.server(2).has_unapplied());
    assert!(
        says(
            &world.last().errors,
            "db2:3306 has not applied all it received",
            "RESET REPLICA ALL"
        ),
        "{:#?}",
        lines_of(&world)
    );
    world.server(2).stuck = false;
    world.run(10 * SEC);
    assert_nothing_lost(&mut world, 2);
}

#[test]
fn an_applier_that_stops_on_an_error_is_passed_over_for_its_equal() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.server(2).sql_error = Some(1062);
        world.run(6 * SEC);
        world.kill(1);
        world.expect_succeeded(3 * SEC, 3);
        world.run(60 * SEC);
        assert_nothing_lost(&mut world, 3);
        assert_eq!(world.writeable(), [key(3)]);
    });
}

#[test]
fn a_stuck_applier_is_given_up_for_its_equal() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.server(2).stuck = true;
        world.server(3).stuck = true;
        world.run(SEC);
        world.kill(1);
        world.run(3 * SEC);
        world.server(3).stuck = false;
        world.expect(12 * SEC, "the promotion of its equal", |world| {
            world.writeable() == [key(3)]
        });
        world.expect_succeeded(30 * SEC, 3);
        assert!(
            says(
                &lines_of(&world),
                "db3:3306 over db2:3306",
                "was passed over: its applier makes no progress"
            ),
            "{:#?}",
            lines_of(&world)
        );
    });
}

#[test]
fn a_drain_that_takes_long_is_told_of_with_what_is_left_and_how_long_that_takes() {
    for_both(|flavour| {
        let mut world = World::with(flavour, 2, |policy| {
            policy.drain_max = std::time::Duration::from_secs(10);
        });
        for number in 2..=3 {
            world.server(number).stuck = true;
        }
        world.run(10 * SEC);
        world.kill(1);
        // Two transactions a second.
        for _ in 0..25 {
            world.run(500 * MS);
            let server = world.server(2);
            let channel = server.channel.as_ref().expect("a replica");
            let next = channel.received.difference(&server.applied).min().copied();
            server.applied.extend(next);
        }
        let left = {
            let server = &world.fleet.servers[&key(2)];
            let channel = server.channel.as_ref().expect("a replica");
            channel.received.difference(&server.applied).count()
        };
        let recovery = world.running().expect("a drain").clone();
        let told = recovery
            .errors
            .iter()
            .find(|error| error.contains("after PromotionDrainSecondsMax (10 s): "));
        let told = told.unwrap_or_else(|| panic!("{:?}", recovery.errors));
        let numbers: Vec<usize> = told
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect();
        let [.., 10, told_left, applied, 10, more_s] = numbers[..] else {
            panic!("{told}");
        };
        assert!((left..left + 6).contains(&told_left), "{left}: {told}");
        assert!((18..=21).contains(&applied), "{told}");
        assert!(more_s.abs_diff(told_left / 2) <= 2, "{told}");
        assert!(
            told.contains("possible loss in any case: replication was asynchronous"),
            "{told}"
        );
    });
}

#[test]
fn an_errant_replica_is_not_promoted() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).write_anyway();
        world.run(6 * SEC);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 3);
        assert_nothing_lost(&mut world, 3);
    });
}

#[test]
fn who_alone_holds_transactions_and_must_not_be_promoted_stops_the_recovery() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.ask(Request::Decide(Command::RegisterCandidate {
            key: key(2),
            rule: PromotionRule::MustNot,
        }));
        world.server(3).deaf = true;
        world.run(SEC);
        world.kill(1);
        world.expect(3 * SEC, "a refused recovery", |world| {
            world
                .recoveries()
                .first()
                .is_some_and(|recovery| recovery.end.is_some())
        });
        let reason = match &world.last().end {
            Some((_, End::Failed { reason })) => reason.clone(),
            other => panic!("{other:?}\n{}", world.story()),
        };
        assert!(reason.contains("must_not"), "{reason}");
        assert_eq!(world.promoted, []);
        for number in 2..=3 {
            let channel = world.server(number).channel.clone().expect("a replica");
            assert!(channel.io && channel.sql, "db{number} was left halted");
            assert_eq!(channel.source, key(1));
        }
        // Tried again, at a calmer pace each time.
        world.run(60 * SEC);
        let count = world.recoveries().len();
        assert!(
            (2..=5).contains(&count),
            "{count} recoveries in a minute\n{}",
            world.story()
        );
    });
}

/// The primary was killed, and whoever is to take its place has to apply what it received, which goes nowhere so far.
fn draining_for_a_dead_one(flavour: Flavour) -> World {
    let mut world = World::new(flavour, 2);
    for number in 2..=3 {
        world.server(number).stuck = true;
    }
    world.run(SEC);
    world.kill(1);
    world.expect(2 * SEC, "a drain", |world| {
        world
            .running()
            .is_some_and(|recovery| recovery.candidate.is_some())
    });
    world
}

#[test]
fn a_primary_that_returns_before_the_promotion_stays_the_primary() {
    for_both(|flavour| {
        let mut world = draining_for_a_dead_one(flavour);
        world.restart(1);
        world.expect(3 * SEC, "an end", |world| world.running().is_none());
        assert!(
            matches!(world.last().end, Some((_, End::Undone { .. }))),
            "{:?}\n{}",
            world.last().end,
            world.story()
        );
        // A leader that does not see it would promote somebody without what it takes meanwhile.
        let kinds: Vec<StepKind> = world
            .last()
            .steps
            .values()
            .filter(|(step, _)| step.server == key(1))
            .map(|(step, _)| step.kind)
            .collect();
        assert_eq!(
            kinds,
            [StepKind::Fence, StepKind::Reopen],
            "{}",
            world.story()
        );
        for number in 2..=3 {
            world.server(number).stuck = false;
        }
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)]);
        assert_eq!(world.promoted, []);
        assert_follow(&mut world, &[2, 3], 1);
        assert_eq!(world.recoveries().len(), 1);
    });
}

/// What closed it opens it, however long that is refused, and whoever leads.
#[test]
fn a_primary_that_was_closed_when_it_returned_is_opened_whenever_it_can_be() {
    for_both(|flavour| {
        for (refused_for, takes_over) in [(6, false), (40, false), (40, true)] {
            let mut world = draining_for_a_dead_one(flavour);
            let text = Statement::MakeWriteable.to_string();
            world.server(1).refuses.insert(text, 1040);
            world.restart(1);
            world.expect(3 * SEC, "a fence", |world| {
                world.fleet.servers[&key(1)].read_only
            });
            for number in 2..=3 {
                world.server(number).stuck = false;
            }
            world.run(refused_for * SEC);
            assert_eq!(world.writeable(), [], "{}", world.story());
            if takes_over {
                let leader = world.depose();
                world.kill_daemon(leader);
                world.elect((leader + 1) % 3);
                world.run(SEC);
            }
            world.server(1).refuses.clear();
            world.expect(100 * SEC, "an open primary", |world| {
                world.writeable() == [key(1)]
            });
            assert_eq!(world.promoted, []);
            assert_follow(&mut world, &[2, 3], 1);
        }
    });
}

#[test]
fn a_return_that_only_another_daemon_sees_undoes_it_too() {
    for_both(|flavour| {
        let mut world = draining_for_a_dead_one(flavour);
        world.cut.insert((0, key(1)));
        world.restart(1);
        world.expect(SEC, "replicas that receive again", |world| {
            (2..=3).all(|number| {
                world.fleet.servers[&key(number)]
                    .channel
                    .as_ref()
                    .is_some_and(|channel| channel.io)
            })
        });
        // It cannot tell whether it closed the primary, and tries to open it for a while.
        world.expect(40 * SEC, "an end", |world| world.running().is_none());
        assert!(
            matches!(world.last().end, Some((_, End::Undone { .. }))),
            "{:?}\n{}",
            world.last().end,
            world.story()
        );
        assert_eq!(world.promoted, []);
    });
}

#[test]
fn a_primary_that_was_read_only_before_stays_so_when_it_returns() {
    for_both(|flavour| {
        // With the leader that began the recovery, and with one that never saw the primary alive.
        for next_leader in [false, true] {
            let mut world = World::new(flavour, 2);
            for number in 2..=3 {
                world.server(number).stuck = true;
            }
            world.run(SEC);
            world.server(1).read_only = true;
            world.server(1).starts_read_only = true;
            world.run(6 * SEC);
            if next_leader {
                world.cut.insert((1, key(1)));
                world.restart_daemon(1);
                world.run(6 * SEC);
            }
            world.kill(1);
            world.expect(2 * SEC, "a drain", |world| {
                world
                    .running()
                    .is_some_and(|recovery| recovery.candidate.is_some())
            });
            if next_leader {
                world.depose();
                world.elect(1);
                world.cut.clear();
            }
            world.restart(1);
            world.expect(20 * SEC, "an end", |world| world.running().is_none());
            assert!(
                matches!(world.last().end, Some((_, End::Undone { .. }))),
                "{:?}\n{}",
                world.last().end,
                world.story()
            );
            world.run(30 * SEC);
            assert!(world.server(1).read_only, "{}", world.story());
            assert_follow(&mut world, &[2, 3], 1);
        }
    });
}

#[test]
fn a_primary_closed_by_its_restart_and_killed_at_once_is_opened_when_it_returns() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        for number in 2..=3 {
            world.server(number).stuck = true;
        }
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: false,
        }));
        world.run(SEC);
        world.server(1).starts_read_only = true;
        world.restart(1);
        world.run(6 * SEC);
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: true,
        }));
        world.run(100 * MS);
        world.kill(1);
        world.expect(2 * SEC, "a drain", |world| {
            world
                .recoveries()
                .last()
                .is_some_and(|recovery| recovery.candidate.is_some())
        });
        world.restart(1);
        world.expect(10 * SEC, "the primary open again", |world| {
            world.writeable() == [key(1)]
        });
    });
}

#[test]
fn replicas_pointed_elsewhere_a_moment_ago_are_no_failure() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.connect_time = 3 * SEC;
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        world.run(30 * SEC);
        let detected = |world: &World| -> Vec<String> {
            world
                .oracle
                .detections_newest_first()
                .map(|detection| detection.analysis.clone())
                .collect()
        };
        assert_eq!(detected(&world), ["DeadMaster"], "{}", world.story());
        // What lasts is one.
        for number in 3..=4 {
            world.server(number).channel.as_mut().expect("a replica").io = false;
        }
        world.run(20 * SEC);
        assert_eq!(
            detected(&world),
            ["AllMasterReplicasNotReplicating", "DeadMaster"]
        );
    });
}

#[test]
fn the_death_of_a_replaced_primary_is_told_once() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        world.run(30 * SEC);
        world.depose();
        world.elect(1);
        world.run(30 * SEC);
        world.restart_daemon(1);
        world.restart_daemon(0);
        world.elect(0);
        world.run(60 * SEC);
        let told: Vec<&String> = world
            .trace
            .iter()
            .filter(|line| line.contains(" is dead ("))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}\n{}", world.story());
    });
}

#[test]
fn every_line_of_a_recovery_carries_its_uid() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        world.run(100 * MS);
        let uid = world.last().uid.clone();
        let told: Vec<&String> = world
            .trace
            .iter()
            .filter(|line| {
                // The leader's, which gave the verdict, and everybody's of what was committed.
                line.contains(" is dead (")
                    || line.contains("daemon0") && line.contains(" detected DeadMaster")
                    || line.contains("it was detected as DeadMaster")
                    || line.contains(" recovery (primary gone) of ")
                    || line.contains(" ended: ")
            })
            .filter(|line| !line.contains("proposes"))
            .collect();
        assert_eq!(told.len(), 2 + 3 * 3, "{told:?}");
        for line in told {
            assert!(line.contains(&format!("[{uid}]")), "{line}");
        }
    });
}

#[test]
fn a_verdict_that_opens_nothing_is_told_under_one_uid() {
    let mut world = World::with(Flavour::Mysql, 2, |policy| {
        policy.recover_primary_filters.clear();
    });
    world.kill(1);
    world.run(3 * SEC);
    let uids: std::collections::BTreeSet<&str> = world
        .trace
        .iter()
        .filter(|line| line.contains(" is dead (") || line.contains("no recovery"))
        .map(|line| {
            line.split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'))
                .map_or("", |(uid, _)| uid)
        })
        .collect();
    assert_eq!(uids.len(), 1, "{}", world.story());
    assert!(!uids.contains(""), "{}", world.story());
}

#[test]
fn an_overloaded_primary_is_named_and_nobody_is_promoted() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.overload(1);
        world.run(60 * SEC);
        assert_eq!(world.recoveries().len(), 0, "{}", world.story());
        assert_eq!(world.writeable(), [key(1)]);
        for daemon in 0..3 {
            let found = world.found(daemon, 1).expect("a problem");
            assert_eq!(found.0, Code::OverloadedPrimary);
        }
        let detected: Vec<String> = world
            .oracle
            .detections_newest_first()
            .map(|detection| detection.analysis.clone())
            .collect();
        assert_eq!(detected, ["OverloadedPrimary"]);
        // It dies of it.
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
    });
}

#[test]
fn a_server_that_not_every_daemon_can_see_is_told_of() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        assert_eq!(world.found(0, 1), None);
        world.cut.insert((1, key(1)));
        world.run(30 * SEC);
        let found = world.found(0, 1).expect("a warning");
        assert_eq!(found.0, Code::NoProblem);
        assert_eq!(found.1, [StructureCode::UnseenByDaemonsStructureWarning]);
        assert_eq!(found.2, "2 of 3 daemons can see this server");
        assert!(world.foretold(0, 1).would_fail_over());
        world.cut.insert((2, key(1)));
        world.run(30 * SEC);
        let foretold = world.foretold(0, 1);
        assert!(
            foretold.obstacles[0].starts_with("1 of 3 daemons can see"),
            "{foretold:?}"
        );
        // Also by a leader that heard of it before it led.
        world.depose();
        world.elect(2);
        world.cut.remove(&(2, key(1)));
        world.run(70 * SEC);
        let found = world.found(2, 1).expect("a warning");
        assert_eq!(found.2, "2 of 3 daemons can see this server");
        world.cut.clear();
        world.run(30 * SEC);
        for daemon in 0..3 {
            assert_eq!(world.found(daemon, 1), None);
        }
        // Nor is a dead one a matter of who sees it.
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        world.run(30 * SEC);
        for daemon in 0..3 {
            for number in 1..=4 {
                let found = world.found(daemon, number);
                assert!(
                    found.is_none_or(|found| found.2.is_empty()),
                    "{}",
                    world.story()
                );
            }
        }
    });
}

#[test]
fn missing_rights_are_shown_and_the_server_is_no_candidate() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).missing_privileges = vec![MissingPrivilege {
            purpose: topology::Purpose::Promote,
            grant: String::from("GRANT RELOAD ON *.* TO `o`@`%`"),
        }];
        world.run(6 * SEC);
        for daemon in 0..3 {
            let found = world.found(daemon, 2).expect("a warning of a leaf, too");
            assert_eq!(found.0, Code::NoProblem);
            assert_eq!(found.1, [StructureCode::MissingPrivilegesStructureWarning]);
            assert_eq!(
                found.2,
                "our account lacks a right needed to promote: GRANT RELOAD ON *.* TO `o`@`%`"
            );
        }
        let foretold = world.foretold(0, 1);
        assert_eq!(foretold.candidate, Some(key(3)));
        assert_eq!(foretold.missing_rights.len(), 1);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 3);
        world.server(2).missing_privileges.clear();
        world.run(6 * SEC);
        assert_eq!(world.found(0, 2), None);
    });
}

#[test]
fn a_host_filter_for_promotions_is_about_the_host_alone() {
    for (filter, promoted) in [("db2$", 3), (":3306", 2)] {
        let mut world = World::with(Flavour::Mysql, 3, |policy| {
            policy.promotion_ignore_hosts = vec![String::from(filter)];
        });
        assert_eq!(world.foretold(0, 1).candidate, Some(key(promoted)));
        world.kill(1);
        world.expect_succeeded(3 * SEC, promoted);
    }
}

#[test]
fn accounts_that_a_fence_does_not_stop_are_shown_and_change_nothing() {
    let mut world = World::new(Flavour::Mariadb, 3);
    for number in 1..=4 {
        world.server(number).through_fence = ThroughFence::Accounts {
            named: vec!["'app'@'%'".to_string(), "'batch'@'10.%'".to_string()],
            has_more: true,
        };
    }
    world.run(7 * SEC);
    for daemon in 0..3 {
        let found = world.found(daemon, 1).expect("a problem");
        assert_eq!(found.0, Code::NoProblem);
        assert_eq!(found.1, [StructureCode::UnfenceableUsersStructureWarning]);
        assert!(
            found.2.contains("'app'@'%', 'batch'@'10.%' and more;"),
            "{}",
            found.2
        );
        assert_eq!(world.found(daemon, 2), None, "told of the primary alone");
    }
    assert_eq!(world.oracle.detections_newest_first().count(), 0);
    world.kill(1);
    world.expect_succeeded(3 * SEC, 2);
}

#[test]
fn a_right_that_nothing_needs_is_asked_for_once_and_quietly() {
    let mut world = World::new(Flavour::Mariadb, 3);
    for number in 1..=4 {
        world.server(number).through_fence = ThroughFence::Unknown {
            grant: "GRANT SELECT ON mysql.global_priv TO 'o'@'%'".to_string(),
        };
    }
    world.run(30 * SEC);
    for daemon in 0..3 {
        assert!(
            world
                .found(daemon, 1)
                .is_none_or(|found| found.1.is_empty() && found.2.is_empty()),
            "{}",
            world.story()
        );
        let name = format!("daemon{daemon}");
        let told = |line: &&String| line.contains(&name) && line.contains("mysql.global_priv");
        let told: Vec<&String> = world.trace.iter().filter(told).collect();
        assert_eq!(told.len(), 1, "{told:?}");
    }
    world.kill(1);
    world.expect_succeeded(3 * SEC, 2);
}

#[test]
fn a_cluster_without_an_alias_goes_by_its_name() {
    let mut world = World::new(Flavour::Mysql, 1);
    assert_eq!(world.foretold(0, 1).cluster_alias, "db1:3306");
    // A problem of its own, which is registered as a detection.
    world.server(2).channel.as_mut().expect("a replica").sql = false;
    world.run(20 * SEC);
    let problem = world.daemons[1].node.diagnosis().problem(&key(1));
    assert_eq!(
        problem.map(|problem| problem.cluster.alias.as_str()),
        Some("db1:3306")
    );
    world.ask(Request::Decide(Command::SetClusterAlias {
        cluster_name: String::from("db1:3306"),
        alias: String::from("shop"),
        by_operator: true,
    }));
    world.run(20 * SEC);
    let problem = world.daemons[1].node.diagnosis().problem(&key(1));
    assert_eq!(
        problem.map(|problem| problem.cluster.alias.as_str()),
        Some("shop")
    );
    assert_eq!(world.foretold(0, 1).cluster_alias, "shop");
}

#[test]
fn what_is_foretold_comes_true() {
    for_both(|flavour| {
        // Readings of a busy fleet never agree to the last transaction.
        let mut world = World::new(flavour, 3);
        world.ask(Request::Decide(Command::RegisterCandidate {
            key: key(4),
            rule: PromotionRule::Prefer,
        }));
        for _ in 0..20 {
            world.run(700 * MS);
            let foretold = world.foretold(0, 1);
            assert!(foretold.would_fail_over(), "{foretold:?}");
            assert_eq!(
                foretold
                    .losses
                    .last()
                    .map(|loss| loss.starts_with("replication is asynchronous")),
                Some(true)
            );
        }
        assert_eq!(world.foretold(0, 1).candidate, Some(key(4)));
        world.kill(1);
        world.expect_succeeded(10 * SEC, 4);
        let foretold = world.foretold(0, 4);
        assert!(
            foretold.obstacles[0].starts_with("the cluster cools down after recovery"),
            "{foretold:?}"
        );

        let mut world = World::with(flavour, 2, |policy| policy.observe_only = true);
        assert_eq!(world.foretold(1, 1).obstacles, ["ObserveOnly is set"]);
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: false,
        }));
        world.run(SEC);
        assert_eq!(world.foretold(1, 1).obstacles.len(), 2);
    });
}

#[test]
fn another_server_at_the_address_of_the_dead_one_is_no_return() {
    for_both(|flavour| {
        let mut world = draining_for_a_dead_one(flavour);
        world.server(1).server_id = 99;
        world.server(1).starts_read_only = true;
        world.restart(1);
        world.run(100 * MS);
        assert!(
            world
                .running()
                .is_some_and(|recovery| recovery.steps_of(StepKind::Reopen).count() == 0),
            "{}",
            world.story()
        );
        world.run(5 * SEC);
        assert!(
            world.server(1).read_only,
            "a stranger was opened\n{}",
            world.story()
        );
        // Nobody will ever refuse a dial there.
        for number in 2..=3 {
            world.server(number).stuck = false;
        }
        world.expect_succeeded(10 * SEC, 2);
    });
}

/// A container that was made anew has another name, and the same data.
#[test]
fn nobody_is_promoted_beside_the_dead_ones_data_under_another_identity() {
    for_both(|flavour| {
        let mut world = draining_for_a_dead_one(flavour);
        world.server(1).server_id = 99;
        world.restart(1);
        world.run(SEC);
        for number in 2..=3 {
            world.server(number).stuck = false;
        }
        world.run(10 * SEC);
        assert_eq!(world.promoted, [], "{}", world.story());
        // Another server with nothing of it.
        world.server(1).applied.clear();
        world.server(1).server_id = 98;
        world.restart(1);
        world.expect_succeeded(10 * SEC, 2);
    });
}

/// A replica's transactions of its own say nothing of whose data it is.
#[test]
fn the_dead_ones_data_under_another_identity_are_known_beside_an_errant_replica() {
    for_both(|flavour| {
        let mut world = draining_for_a_dead_one(flavour);
        world.server(3).applied.insert((77, 1));
        world.run(6 * SEC);
        world.server(1).server_id = 99;
        world.restart(1);
        world.run(SEC);
        for number in 2..=3 {
            world.server(number).stuck = false;
        }
        world.run(10 * SEC);
        assert_eq!(world.promoted, [], "{}", world.story());
    });
}

#[test]
fn a_primary_that_returns_after_the_promotion_is_closed_and_no_cluster_of_its_own() {
    for_both(|flavour| {
        for after in [0, 20 * MS, 200 * MS, 5 * SEC, 100 * SEC] {
            let mut world = World::new(flavour, 3);
            world.kill(1);
            world.expect(2 * SEC, "a promotion", |world| !world.promoted.is_empty());
            world.run(after);
            world.restart(1);
            world.run(MS);
            world.expect(200 * MS, "the fence", |world| world.writeable() == [key(2)]);
            world.run(30 * SEC);
            assert_eq!(world.writeable(), [key(2)], "{}", world.story());
            assert_eq!(world.promoted.len(), 1);
            assert_eq!(world.oracle.clusters().count(), 1);
            assert_eq!(world.recoveries().len(), 1);
            // Restarted once more, it is closed once more.
            world.kill(1);
            world.run(SEC);
            world.restart(1);
            world.run(MS);
            world.expect(200 * MS, "the second fence", |world| {
                world.writeable() == [key(2)]
            });
        }
    });
}

/// The promoted server is restarted while the others are regrouped, and comes back closed, as its file says; the leader that
/// opened it is gone. It is opened again before the recovery ends.
#[test]
fn a_promoted_server_that_restarts_during_the_regroup_is_opened_again() {
    for_both(|flavour| {
        for with_leader in [false, true] {
            let mut world = World::new(flavour, 3);
            // One that cannot be regrouped keeps the recovery open for a while.
            world.server(4).stuck = true;
            world.run(SEC);
            world.kill(1);
            world.expect(5 * SEC, "a promotion", |world| {
                world.writeable().contains(&key(2))
            });
            if with_leader {
                let leader = world.leader.expect("a leader");
                world.kill_daemon(leader);
            }
            world.kill(2);
            world.restart(2);
            if with_leader {
                world.run(400 * MS);
                let next = (0..3).find(|number| world.daemons[*number].up);
                world.elect(next.expect("one is up"));
            }
            world.expect(60 * SEC, "a finished recovery", |world| {
                world.running().is_none()
            });
            assert_eq!(world.writeable(), [key(2)], "{}", world.story());
        }
    });
}

/// The daemon that promoted it is gone, and no other one has read it since.
#[test]
fn a_promoted_server_closed_by_a_restart_is_opened_by_who_never_saw_it_writeable() {
    for_both(|flavour| {
        for all_down_for in [None, Some(4 * SEC), Some(40 * SEC)] {
            let mut world = World::new(flavour, 3);
            world.server(2).starts_read_only = true;
            world.run(20 * SEC);
            world.kill(1);
            world.expect_succeeded(2 * SEC, 2);
            world.kill(2);
            let leader = world.leader.expect("a leader");
            world.kill_daemon(leader);
            if all_down_for.is_some() {
                for other in (0..3).filter(|number| *number != leader) {
                    world.kill_daemon(other);
                }
            }
            world.run(2 * SEC);
            world.restart(2);
            if let Some(down) = all_down_for {
                world.run(down);
                for number in 0..3 {
                    world.restart_daemon(number);
                }
            }
            world.elect((leader + 1) % 3);
            world.expect(10 * SEC, "the promoted server open again", |world| {
                world.writeable() == [key(2)]
            });
            assert_eq!(world.recoveries().len(), 1);
        }
    });
}

/// Replicas state it by a name that it does not call itself, and a daemon may never have met it.
#[test]
fn a_primary_that_its_replicas_call_otherwise_is_replaced_when_it_dies() {
    for_both(|flavour| {
        for all_restart_after_its_death in [false, true] {
            let mut world = World::new(flavour, 3);
            let name = InstanceKey::new("db.example.com", 3306);
            world.fleet.called.insert(key(1), name.clone());
            world.aliases.insert(name.clone(), key(1));
            world.run(20 * SEC);
            for daemon in 0..3 {
                assert_eq!(world.cluster_name(daemon, 2), world.cluster_name(daemon, 1));
            }
            assert!(!world.oracle.is_known(&name), "{}", world.story());
            let probes = world.probes;
            world.run(30 * SEC);
            // Of four servers by three daemons, each 5 s.
            assert!(world.probes - probes < 90, "{}", world.probes - probes);
            if all_restart_after_its_death {
                for number in 0..3 {
                    world.kill_daemon(number);
                }
                world.kill(1);
                for number in 0..3 {
                    world.restart_daemon(number);
                }
                world.elect(1);
            } else {
                world.kill(1);
            }
            world.expect_succeeded(20 * SEC, 2);
        }
    });
}

#[test]
fn another_leader_with_another_file_changes_what_is_obeyed_and_says_so() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.run(SEC);
    let leader = world.leader.expect("a leader");
    let other = (leader + 1) % 3;
    let mut policy = world.daemons[other].node.local_policy().clone();
    policy.observe_only = true;
    world.set_policy_of(other, &policy);
    assert_eq!(
        world.daemons[other].node.differing_settings(),
        ["ObserveOnly"]
    );
    assert_eq!(world.daemons[leader].node.differing_settings().len(), 0);
    world.kill_daemon(leader);
    world.elect(other);
    world.run(2 * SEC);
    assert_eq!(world.daemons[other].node.differing_settings().len(), 0);
    let third = (leader + 2) % 3;
    let obeyed = format!("daemon{third}: the leader's file is obeyed: ObserveOnly changed");
    let differs =
        format!("daemon{third}: this daemon's file differs from the leader's in ObserveOnly");
    assert_eq!(world.story().matches(&obeyed).count(), 1);
    world.run(20 * SEC);
    let story = world.story();
    assert_eq!(story.matches(&differs).count(), 1, "{story}");
    // Who leads is obeyed.
    let of_leader = format!("daemon{other}: this daemon's file differs");
    assert_eq!(story.matches(&of_leader).count(), 0, "{story}");
}

/// Who is started later, and reads of the change in the log, says what is so now and not when the change was made.
#[test]
fn a_daemon_that_is_started_later_says_what_its_file_says_otherwise() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.run(SEC);
    let leader = world.leader.expect("a leader");
    let other = (leader + 1) % 3;
    let mut policy = world.daemons[other].node.local_policy().clone();
    policy.observe_only = true;
    world.kill_daemon(other);
    world.run(100 * SEC);
    world.restart_daemon(other);
    world.set_policy_of(other, &policy);
    world.run(10 * SEC);
    let story = world.story();
    let differs =
        format!("daemon{other}: this daemon's file differs from the leader's in ObserveOnly");
    assert_eq!(story.matches(&differs).count(), 1, "{story}");
}

/// While the recovery was undone it refused to be started.
#[test]
fn a_replica_that_an_undone_recovery_left_halted_is_started_when_it_can_be() {
    for_both(|flavour| {
        for daemons_restart in [false, true] {
            let mut world = World::with(flavour, 2, |policy| {
                policy.promotion_ignore_hosts = vec![String::from(".")];
            });
            world.run(SEC);
            world
                .server(3)
                .refuses
                .insert(String::from("start IO thread"), 1872);
            world.kill(1);
            world.expect(20 * SEC, "a failed recovery", |world| {
                world.running().is_none() && !world.recoveries().is_empty()
            });
            // The dial that it was halted in failed: nobody answered, or there was no room.
            let code = if daemons_restart { 2003 } else { 1040 };
            world
                .server(3)
                .channel
                .as_mut()
                .expect("a replica")
                .io_error = Some((code, "error connecting to master"));
            world.restart(1);
            world.run(20 * SEC);
            assert!(!world.receives(3), "{}", world.story());
            assert!(world.receives(2), "{}", world.story());
            // It died once more, in vain, and was halted by nobody this time.
            world.kill(1);
            world.run(40 * SEC);
            world.restart(1);
            world.run(20 * SEC);
            assert!(!world.receives(3), "{}", world.story());
            if daemons_restart {
                let leader = world.leader.expect("a leader");
                for number in 0..3 {
                    world.kill_daemon(number);
                }
                for number in 0..3 {
                    world.restart_daemon(number);
                }
                world.elect((leader + 1) % 3);
            }
            world.server(3).refuses.clear();
            world.expect(100 * SEC, "a replica that receives", |world| {
                world.receives(3)
            });
            // People may stop it now.
            world.run(10 * SEC);
            world.server(3).channel.as_mut().expect("a replica").io = false;
            world.run(200 * SEC);
            assert!(!world.receives(3), "{}", world.story());
        }
    });
}

/// What that was seen to be before it died, open and nobody's replica, is of long ago.
/// The leader was killed while its stops were on their way, the next one saw all receive, and then they came.
#[test]
fn a_replica_that_a_late_halt_stops_after_the_recovery_was_undone_is_started() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.run(SEC);
        world.freeze(1);
        world.expect(20 * SEC, "halts", |world| {
            world
                .running()
                .is_some_and(|recovery| recovery.steps_of(StepKind::Halt).next().is_some())
        });
        let leader = world.leader.expect("a leader");
        world.kill_daemon(leader);
        world.thaw(1);
        world.elect((leader + 1) % 3);
        world.expect(20 * SEC, "an undone recovery", |world| {
            world.running().is_none()
        });
        assert!(world.promoted.is_empty(), "{}", world.story());
        world.run(7 * SEC);
        assert!(world.receives(2), "{}", world.story());
        world.server(2).channel.as_mut().expect("a replica").io = false;
        world.run(10 * SEC);
        assert!(world.receives(2), "{}", world.story());
        // Whoever stops it later means it.
        world.run(30 * SEC);
        world.server(2).channel.as_mut().expect("a replica").io = false;
        world.run(60 * SEC);
        assert!(!world.receives(2), "{}", world.story());
    });
}

#[test]
fn a_replica_that_was_left_halted_is_started_although_a_dead_primary_is_remembered() {
    for_both(|flavour| {
        let mut world = World::with(flavour, 3, |policy| {
            policy.cool_down = core::time::Duration::ZERO;
        });
        world.run(20 * SEC);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        world.run(20 * SEC);
        assert_follow(&mut world, &[3, 4], 2);
        for number in 3..=4 {
            let server = world.server(number);
            server.stuck = true;
            server.refuses.insert(String::from("start IO thread"), 1872);
        }
        world.run(SEC);
        world.kill(2);
        world.expect(20 * SEC, "a drain", |world| {
            world
                .running()
                .is_some_and(|recovery| recovery.candidate.is_some())
        });
        world.restart(2);
        world.run(20 * SEC);
        assert!(
            !world.receives(3) && !world.receives(4),
            "{}",
            world.story()
        );
        for number in 3..=4 {
            world.server(number).stuck = false;
            world.server(number).refuses.clear();
        }
        world.expect(200 * SEC, "replicas that receive", |world| {
            world.receives(3) && world.receives(4)
        });
        assert_eq!(world.writeable(), [key(2)]);
    });
}

#[test]
fn a_primary_closed_by_its_restart_that_cannot_be_opened_is_not_tried_without_pause() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.run(20 * SEC);
    world
        .server(1)
        .refuses
        .insert(String::from("make writeable"), 1227);
    world.server(1).starts_read_only = true;
    world.restart(1);
    world.run(60 * SEC);
    let tries = world
        .oracle
        .recoveries_newest_first()
        .filter(|recovery| recovery.purpose == Purpose::Reopen)
        .count();
    assert!((2..=6).contains(&tries), "{tries} tries in a minute");
    world.server(1).refuses.clear();
    world.expect(90 * SEC, "the primary open again", |world| {
        world.writeable() == [key(1)]
    });
}

/// Of its cluster's servers there is one left.
#[test]
fn a_server_that_was_promoted_and_restarts_read_only_is_opened_without_a_replica() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 1);
        world.run(20 * SEC);
        world.kill(1);
        world.expect_succeeded(30 * SEC, 2);
        world.run(300 * SEC);
        world.server(2).starts_read_only = true;
        world.restart(2);
        world.expect(20 * SEC, "the primary open again", |world| {
            world.writeable() == [key(2)]
        });
        // Later nobody can tell what people did meanwhile.
        world.run(600 * SEC);
        world.restart(2);
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [], "{}", world.story());
    });
}

/// They went back to the former primary, and it may be away when the promoted one restarts.
#[test]
fn a_server_that_was_promoted_and_restarts_read_only_is_not_opened_beside_its_predecessor() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 1);
        world.run(20 * SEC);
        world.kill(1);
        world.expect_succeeded(30 * SEC, 2);
        world.restart(1);
        world.run(20 * SEC);
        assert_eq!(world.writeable(), [key(2)]);
        world.server(1).read_only = false;
        world.server(2).starts_read_only = true;
        world.run(20 * SEC);
        world.restart(2);
        world.run(10 * SEC);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
        world.freeze(1);
        world.run(30 * SEC);
        // Nor by daemons that never saw it open.
        for number in 0..3 {
            world.kill_daemon(number);
        }
        world.restart(2);
        for number in 0..3 {
            world.restart_daemon(number);
        }
        world.elect(1);
        world.run(60 * SEC);
        world.thaw(1);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
    });
}

/// They took its replica away from it.
#[test]
fn a_server_that_was_promoted_and_restarts_read_only_is_not_opened_when_people_serve_from_another()
{
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.run(20 * SEC);
        world.kill(1);
        world.expect_succeeded(30 * SEC, 2);
        world.run(20 * SEC);
        world.server(3).channel = None;
        world.server(3).read_only = false;
        world.run(20 * SEC);
        world.server(2).starts_read_only = true;
        world.restart(2);
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [key(3)], "{}", world.story());
    });
}

/// While it is in a downtime nobody opens it, and when that ends its uptime says little.
#[test]
fn a_primary_that_was_opened_a_moment_before_its_restart_is_opened_after_its_downtime() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.server(1).starts_read_only = true;
    world.run(20 * SEC);
    world.restart(1);
    world.expect(10 * SEC, "the primary open", |world| {
        world.writeable() == [key(1)]
    });
    world.run(100 * MS);
    world.ask(Request::BeginDowntime {
        key: key(1),
        owner: String::from("dba"),
        reason: String::from("looking at it"),
        lasts_s: 30,
    });
    world.restart(1);
    world.run(25 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    world.expect(20 * SEC, "the primary open again", |world| {
        world.writeable() == [key(1)]
    });
}

/// Each daemon that could tell a restart from people's work was started since.
#[test]
fn a_primary_closed_by_people_stays_closed_under_daemons_that_did_not_see_it() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.run(60 * SEC);
    world.server(1).read_only = true;
    world.run(100 * MS);
    let leader = world.leader.expect("a leader");
    for number in 0..3 {
        world.kill_daemon(number);
    }
    world.run(60 * SEC);
    for number in 0..3 {
        world.restart_daemon(number);
    }
    world.elect((leader + 1) % 3);
    world.run(30 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    world.server(1).starts_read_only = true;
    world.restart(1);
    world.run(30 * SEC);
    assert!(
        world.server(1).read_only,
        "people closed it before\n{}",
        world.story()
    );
}

/// It came back while no daemon reached it, and was up for longer than when it was closed before anybody did.
#[test]
fn a_deposed_primary_that_restarted_unseen_is_closed_whatever_the_log_says_of_time() {
    for ahead in [0, 7_200 * SEC] {
        let mut world = World::new(Flavour::Mysql, 3);
        world.clocks_ahead = ahead;
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: true,
        }));
        world.run(SEC);
        world.clocks_ahead = 0;
        world.kill(1);
        world.expect_succeeded(2 * SEC, 2);
        world.restart(1);
        world.run(15 * SEC);
        assert!(world.server(1).read_only, "{}", world.story());
        for daemon in 0..3 {
            world.cut.insert((daemon, key(1)));
        }
        world.run(10 * SEC);
        world.restart(1);
        world.run(40 * SEC);
        world.cut.clear();
        world.expect(15 * SEC, "the fence", |world| world.writeable() == [key(2)]);
    }
}

/// Log time never goes back: it stays where a clock that was ahead for a moment has brought it.
#[test]
fn a_clock_that_was_ahead_leaves_no_deposed_primary_open() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.clocks_ahead = 7_200 * SEC;
    world.ask(Request::Decide(Command::SetRecoveriesEnabled {
        enabled: true,
    }));
    world.run(SEC);
    world.clocks_ahead = 0;
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.restart(1);
    world.expect(15 * SEC, "the fence", |world| world.writeable() == [key(2)]);
}

/// One is fenced at a time; the next one's turn comes as soon as the one before is closed, not with the next round.
#[test]
fn deposed_primaries_that_return_together_are_closed_one_right_after_another() {
    for_both(|flavour| {
        let mut world = World::with(flavour, 4, |policy| {
            policy.cool_down = std::time::Duration::ZERO;
        });
        for number in 1..=3 {
            world.kill(number);
            world.expect_succeeded(5 * SEC, number + 1);
            world.run(11 * SEC);
        }
        for number in 1..=3 {
            world.server(number).starts_read_only = false;
            world.restart(number);
        }
        world.expect(5 * SEC, "the first one back", |world| {
            world.writeable().len() > 1
        });
        world.expect(300 * MS, "all of them closed", |world| {
            world.writeable() == [key(4)]
        });
        assert_eq!(
            world
                .oracle
                .recoveries_newest_first()
                .filter(|recovery| matches!(recovery.purpose, Purpose::Quarantine { .. }))
                .count(),
            3
        );
    });
}

#[test]
fn a_deposed_primary_that_cannot_be_closed_is_not_tried_without_pause() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world
        .server(1)
        .refuses
        .insert(String::from("fence (read-only)"), 1227);
    world.restart(1);
    world.run(60 * SEC);
    let tries = world
        .oracle
        .recoveries_newest_first()
        .filter(|recovery| matches!(recovery.purpose, Purpose::Quarantine { .. }))
        .count();
    assert!((2..=6).contains(&tries), "{tries} tries in a minute");
    world.server(1).refuses.clear();
    world.expect(90 * SEC, "the fence", |world| world.writeable() == [key(2)]);
}

#[test]
fn a_deposed_primary_opened_by_hand_is_not_fought() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.restart(1);
    world.run(10 * SEC);
    assert!(world.server(1).read_only);
    let told = |world: &World| {
        let lines = world.trace.iter();
        lines
            .filter(|line| line.contains("two writeable primaries in cluster db2:3306: db1:3306"))
            .count()
    };
    assert_eq!(told(&world), 0);
    world.server(1).read_only = false;
    world.run(20 * SEC);
    assert!(!world.server(1).read_only);
    assert_two_primaries(&world, 1);
    assert_eq!(told(&world), 1, "{}", world.story());
    // Closed by the command that the line names, it is over; opened once more, it is told once more.
    world.ask(Request::SetReadOnly {
        key: key(1),
        super_read_only: true,
    });
    world.run(10 * SEC);
    assert!(world.server(1).read_only, "{}", world.story());
    assert_one_primary(&world, 1);
    world.server(1).read_only = false;
    world.run(20 * SEC);
    assert_two_primaries(&world, 1);
    assert_eq!(told(&world), 2, "{}", world.story());
}

/// Every daemon shows that the deposed server takes writes beside the primary, though it is in a downtime.
#[track_caller]
fn assert_two_primaries(world: &World, deposed: u16) {
    for daemon in 0..3 {
        let (_, structure, details) = world.found(daemon, deposed).expect("a finding");
        assert_eq!(
            structure.first(),
            Some(&StructureCode::TwoWriteablePrimariesStructureWarning)
        );
        assert!(
            details.contains("a recovery made db2:3306 the primary in its place"),
            "{details}"
        );
    }
}

#[track_caller]
fn assert_one_primary(world: &World, deposed: u16) {
    for daemon in 0..3 {
        let structure = world.found(daemon, deposed).map(|found| found.1);
        assert!(
            !structure.as_ref().is_some_and(|structure| {
                structure.contains(&StructureCode::TwoWriteablePrimariesStructureWarning)
            }),
            "{structure:?}"
        );
    }
}

#[test]
fn a_deposed_primary_that_is_only_reported_is_told_of_once() {
    let mut world = World::with(Flavour::Mariadb, 2, |policy| {
        policy.deposed_action = DeposedAction::Report;
    });
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.server(1).starts_read_only = false;
    world.restart(1);
    world.run(30 * SEC);
    assert_eq!(world.writeable(), [key(1), key(2)]);
    assert_two_primaries(&world, 1);
    let told = |world: &World| {
        let lines = world.trace.iter();
        lines
            .filter(|line| line.contains("two writeable primaries"))
            .count()
    };
    assert_eq!(told(&world), 1, "{}", world.story());
    // It follows: the mark is lifted, and nothing is left to tell.
    let deposed = world.server(1);
    deposed.read_only = true;
    deposed.channel = Some(crate::fleet::Channel::to(key(2)));
    world.run(20 * SEC);
    assert_one_primary(&world, 1);
}

#[test]
fn what_a_server_refuses_is_told_once_and_shown() {
    let mut world = World::new(Flavour::Mysql, 1);
    world.server(2).refused = vec![(1146, String::from("the result of DetectDataCenterQuery"))];
    world.run(60 * SEC);
    let (code, structure, details) = world.found(0, 2).expect("a finding");
    assert_eq!(code, Code::NoProblem);
    assert_eq!(structure, [StructureCode::RefusedQueriesStructureWarning]);
    let refusal = "refused with error 1146: the result of DetectDataCenterQuery";
    assert_eq!(details, refusal);
    let told = format!("daemon0: db2:3306: {refusal}");
    let lines = world.trace.iter();
    assert_eq!(lines.filter(|line| line.ends_with(&told)).count(), 1);
    world.server(2).refused.clear();
    world.run(10 * SEC);
    assert_eq!(world.found(0, 2), None);
}

/// The primary came back after its machine lost power, and dies before one of its replicas noticed the first loss: that one
/// is believed for as long as an orderly stop is waited for, and not for a minute.
#[test]
fn a_replica_that_noticed_nothing_holds_a_recovery_up_for_a_while_only() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(4).believes = true;
        world.server(4).deaf = true;
        world.run(SEC);
        world.kill(1);
        world.run(14 * SEC);
        assert!(world.recoveries().is_empty(), "{}", world.story());
        world.expect_succeeded(10 * SEC, 2);
    });
}

/// MySQL keeps its replicas attached for 8 s of an orderly stop (F12), which is not over then.
#[test]
fn a_primary_that_is_restarted_in_an_orderly_way_has_its_time() {
    for returns in [true, false] {
        let mut world = World::new(Flavour::Mysql, 3);
        for number in 2..=4 {
            world.server(number).believes = true;
        }
        world.kill(1);
        world.run(8 * SEC);
        for number in 2..=4 {
            world.server(number).believes = false;
        }
        world.run(4 * SEC);
        assert_eq!(world.promoted, [], "{}", world.story());
        if returns {
            world.restart(1);
            world.run(30 * SEC);
            assert_eq!(world.writeable(), [key(1)]);
            assert_eq!(world.promoted, [], "{}", world.story());
        } else {
            world.expect_succeeded(5 * SEC, 2);
        }
    }
}

#[test]
fn a_frozen_primary_is_replaced_and_closed_when_it_thaws() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.freeze(1);
        world.expect_succeeded(8 * SEC, 2);
        world.thaw(1);
        assert!(
            world.server(1).read_only,
            "the fence waited in its sockets\n{}",
            world.story()
        );
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(2)]);
        assert_follow(&mut world, &[3, 4], 2);
        assert_eq!(world.recoveries().len(), 1);
    });
}

/// It replicated from the promoted server once, and its settings were never removed.
#[test]
fn a_deposed_primary_that_follows_as_soon_as_it_starts_is_closed_before_it_is_forgiven() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.run(SEC);
        world.kill(1);
        world.expect_succeeded(5 * SEC, 2);
        world.run(SEC);
        world.server(1).channel = Some(Channel::to(key(2)));
        world.restart(1);
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(2)], "{}", world.story());
        assert_follow(&mut world, &[1, 3], 2);
        assert_eq!(world.oracle.deposed().count(), 0, "{}", world.story());
    });
}

/// The fence waits in its sockets, the promotion is given up, and its replicas were halted for it.
fn frozen_and_nobody_can_be_promoted(flavour: Flavour) -> World {
    let mut world = World::new(flavour, 2);
    world.run(20 * SEC);
    for number in 2..=3 {
        let refuses = &mut world.server(number).refuses;
        refuses.insert(String::from("make writeable"), 1227);
    }
    world.freeze(1);
    world.expect(60 * SEC, "a failed promotion", |world| {
        world.running().is_none() && !world.recoveries().is_empty()
    });
    assert!(world.last().is_past_return(), "{}", world.story());
    world
}

/// An operator decided for another one.
#[test]
fn a_frozen_primary_that_thaws_after_the_promotion_failed_stays_closed_beside_another() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        let chosen = world.server(2);
        chosen.channel = None;
        chosen.read_only = false;
        world.run(SEC);
        world.thaw(1);
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [key(2)], "{}", world.story());
        assert!(!world.receives(3), "{}", world.story());
    });
}

/// The fence never came to it; people close it later.
#[test]
fn a_primary_that_was_open_after_the_promotion_failed_is_not_opened_against_people() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        world.server(1).fences = 0;
        world.thaw(1);
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
        world.server(1).read_only = true;
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [], "{}", world.story());
    });
}

#[test]
fn a_frozen_primary_that_thaws_after_the_promotion_failed_is_the_primary_again() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        world.thaw(1);
        world.expect(10 * SEC, "the primary open", |world| {
            world.writeable() == [key(1)]
        });
        world.run(20 * SEC);
        assert_eq!(world.writeable(), [key(1)]);
        assert_follow(&mut world, &[2, 3], 1);
    });
}

/// It dies, comes back closed by its file, and an operator decided for another one meanwhile.
#[test]
fn a_killed_primary_that_returns_after_the_promotion_failed_stays_closed_beside_another() {
    for_both(|flavour| {
        for is_another in [true, false] {
            let mut world = World::new(flavour, 2);
            world.run(20 * SEC);
            for number in 2..=3 {
                let refuses = &mut world.server(number).refuses;
                refuses.insert(String::from("make writeable"), 1227);
            }
            world.server(1).starts_read_only = true;
            world.kill(1);
            world.expect(60 * SEC, "a failed promotion", |world| {
                world.running().is_none() && !world.recoveries().is_empty()
            });
            assert!(world.last().is_past_return(), "{}", world.story());
            if is_another {
                let chosen = world.server(2);
                chosen.channel = None;
                chosen.read_only = false;
            }
            world.run(SEC);
            world.restart(1);
            world.run(60 * SEC);
            let open = if is_another { key(2) } else { key(1) };
            assert_eq!(world.writeable(), [open], "{}", world.story());
        }
    });
}

/// A member that is down takes no writes of its cluster.
#[test]
fn a_primary_that_thaws_after_the_promotion_failed_is_opened_beside_a_dead_replica() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        world.kill(3);
        world.run(10 * SEC);
        world.thaw(1);
        world.expect(20 * SEC, "the primary open", |world| {
            world.writeable() == [key(1)]
        });
        world.run(20 * SEC);
        assert_follow(&mut world, &[2], 1);
    });
}

/// Whether an operator opened a halted replica, which keeps its channel, does not show.
#[test]
fn a_primary_that_thaws_after_the_promotion_failed_stays_closed_beside_a_replica_that_was_opened() {
    for_both(|flavour| {
        for is_killed in [false, true] {
            let mut world = frozen_and_nobody_can_be_promoted(flavour);
            if is_killed {
                world.server(1).starts_read_only = true;
                world.kill(1);
            }
            let chosen = world.server(2);
            chosen.read_only = false;
            assert!(chosen.channel.is_some());
            world.run(SEC);
            if is_killed {
                world.restart(1);
            } else {
                world.thaw(1);
            }
            world.run(60 * SEC);
            assert_eq!(world.writeable(), [key(2)], "{}", world.story());
            assert!(!world.receives(3), "{}", world.story());
            let told = "db1:3306 is read-only and was writeable; it is not opened: whether db2:3306 takes writes";
            let story = world.story();
            assert_eq!(story.matches(told).count(), 1, "{story}");
        }
    });
}

/// They do so while the program may change nothing.
#[test]
fn a_primary_that_people_close_after_the_promotion_failed_is_not_opened_when_recoveries_are_enabled()
 {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: false,
        }));
        world.server(1).fences = 0;
        world.thaw(1);
        world.run(20 * SEC);
        world.server(1).read_only = true;
        world.run(20 * SEC);
        world.ask(Request::Decide(Command::SetRecoveriesEnabled {
            enabled: true,
        }));
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [], "{}", world.story());
    });
}

/// The leader that was to open it did not live to do so.
#[test]
fn a_fence_that_arrives_late_is_ended_by_the_next_leader_too() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        world.run(70 * SEC);
        world.thaw_before_fences(1);
        world.expect(20 * SEC, "an intent to open it", |world| {
            world.running().is_some_and(|recovery| {
                recovery.purpose == Purpose::Reopen
                    && recovery.steps_of(StepKind::Reopen).next().is_some()
            })
        });
        let leader = world.leader.expect("a leader");
        let had = world.server(1).fences;
        world.kill_daemon(leader);
        world.elect((leader + 1) % 3);
        world.run(20 * SEC);
        if had > 0 {
            world.fences_arrive(1);
        }
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
    });
}

/// Its recovery was undone before anything was changed: nobody had a reason to choose another one.
#[test]
fn a_primary_closed_by_its_restart_is_opened_at_once_after_a_recovery_that_changed_nothing() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.have_hooks(&[(HookList::PreFailover, 1)]);
        world.hook_takes = 2 * SEC;
        world.run(20 * SEC);
        world.server(1).starts_read_only = true;
        world.kill(1);
        world.expect(5 * SEC, "a hook", |world| !world.hooks.is_empty());
        world.restart(1);
        world.expect(3 * SEC, "an undone recovery", |world| {
            world.running().is_none() && !world.recoveries().is_empty()
        });
        world.expect(2 * SEC, "the primary open", |world| {
            world.writeable() == [key(1)]
        });
    });
}

/// It is open before the statements arrive that were left in its connections.
#[test]
fn a_fence_that_arrives_late_does_not_close_a_primary_that_nobody_replaced() {
    for_both(|flavour| {
        let mut world = frozen_and_nobody_can_be_promoted(flavour);
        assert!(world.server(1).fences > 0, "{}", world.story());
        world.thaw_before_fences(1);
        world.run(10 * SEC);
        world.fences_arrive(1);
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
        assert_follow(&mut world, &[2, 3], 1);
    });
}

#[test]
fn a_primary_that_thaws_in_time_is_left_alone() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.freeze(1);
        world.run(2 * SEC);
        world.thaw(1);
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)]);
        assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    });
}

/// The primary dies unseen, after so many daemons could not see it for a while; the daemons come back.
fn dies_while_all_daemons_are_down(world: &mut World, blind: usize) {
    for daemon in 0..blind {
        world.cut.insert((daemon, key(1)));
    }
    world.run(70 * SEC);
    world.depose();
    for daemon in 0..3 {
        world.kill_daemon(daemon);
    }
    world.kill(1);
    world.run(SEC);
    for daemon in 0..3 {
        world.restart_daemon(daemon);
    }
    world.run(SEC);
    world.elect(1);
}

#[test]
fn a_primary_that_died_while_all_daemons_were_down_is_replaced() {
    for_both(|flavour| {
        for blind in [0, 1] {
            let mut world = World::new(flavour, 3);
            // Who could not see it before has no voice after.
            dies_while_all_daemons_are_down(&mut world, blind);
            world.expect_succeeded(10 * SEC, 2);
            world.run(10 * SEC);
            assert_follow(&mut world, &[3, 4], 2);
            assert_nothing_lost(&mut world, 2);
        }
    });
}

/// What a plan refuses for what the primary is, it refuses for what its replicas are where that was never read.
#[test]
fn a_primary_that_was_never_read_is_judged_by_its_replicas() {
    type Change = fn(&mut Server);
    let kinds: [(Change, &str); 2] = [
        (
            |server| server.acknowledges = true,
            "db3:3306 acknowledges what it receives",
        ),
        (
            |server| {
                let option = String::from("SOURCE_CONNECTION_AUTO_FAILOVER");
                server.options = vec![(option, String::from("1"))];
            },
            "db3:3306 chooses another source by itself",
        ),
    ];
    for (change, why) in kinds {
        let mut world = World::new(Flavour::Mysql, 3);
        change(world.server(3));
        dies_while_all_daemons_are_down(&mut world, 0);
        world.run(30 * SEC);
        let foretold = world.foretold(1, 1);
        let obstacles = foretold.obstacles.join("; ");
        assert!(obstacles.contains(why), "{why}: {foretold:?}");
        assert!(world.promoted.is_empty(), "{why}: {}", world.story());
        let halted = |number| {
            let statements = &world.fleet.servers[&key(number)].statements;
            !statements.is_empty()
        };
        assert!(![2, 3, 4].into_iter().any(halted), "{}", world.story());
        assert!(
            world.oracle.detections_newest_first().next().is_some(),
            "{why}: {}",
            world.story()
        );
    }
}

/// MySQL: whether what one replica alone holds was written to itself, or is the primary's of before, nobody knows who never read the
/// primary: it is not given up.
#[test]
fn what_one_replica_alone_holds_of_a_primary_that_was_never_read_is_kept() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.run(5 * SEC);
    world.server(4).write_anyway();
    dies_while_all_daemons_are_down(&mut world, 0);
    world.expect_succeeded(10 * SEC, 4);
    world.run(10 * SEC);
    assert_follow(&mut world, &[2, 3], 4);
    assert_nothing_lost(&mut world, 4);
}

#[test]
fn a_promoted_server_that_does_not_forget_its_source_at_once_is_asked_again() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world
            .server(2)
            .refuses
            .insert("reset replica all".to_string(), 1205);
        world.kill(1);
        world.expect(2 * SEC, "a promotion", |world| !world.promoted.is_empty());
        world.run(700 * MS);
        world.server(2).refuses.clear();
        world.expect_succeeded(5 * SEC, 2);
        assert!(world.server(2).channel.is_none(), "{}", world.story());
    });
}

/// The former primary is dead still: what the promoted one names is of no use to anybody, and would be followed when that returns.
#[test]
fn a_promoted_server_that_restarts_closed_is_opened_and_freed_of_its_former_source() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world
            .server(2)
            .refuses
            .insert("reset replica all".to_string(), 1227);
        world.kill(1);
        world.expect(30 * SEC, "a recovery that ended", |world| {
            let recoveries = world.recoveries();
            world.running().is_none() && recoveries.iter().any(|one| one.end.is_some())
        });
        assert_eq!(world.last().successor, Some(key(2)), "{}", world.story());
        world.finished = world.recoveries().len();
        world.server(2).refuses.clear();
        assert!(world.server(2).channel.is_some(), "{}", world.story());
        world.run(SEC);
        world.restart(2);
        world.server(2).read_only = true;
        world.expect(20 * SEC, "an open server that names nobody", |world| {
            let server = &world.fleet.servers[&key(2)];
            !server.read_only && server.channel.is_none()
        });
    });
}

/// It names its dead source for good: because it refuses to forget it, or because policy leaves that to people.
#[test]
fn a_promoted_server_that_keeps_its_former_source_is_replaced_when_it_dies_too() {
    for_both(|flavour| {
        for refuses in [true, false] {
            let mut world = World::with(flavour, 3, |policy| {
                policy.apply_promotion = refuses;
                policy.cool_down = core::time::Duration::ZERO;
            });
            if refuses {
                world
                    .server(2)
                    .refuses
                    .insert("reset replica all".to_string(), 1227);
            }
            world.kill(1);
            world.expect(30 * SEC, "a recovery that ended", |world| {
                world.running().is_none()
                    && world
                        .recoveries()
                        .iter()
                        .any(|recovery| recovery.end.is_some())
            });
            assert_eq!(world.last().successor, Some(key(2)), "{}", world.story());
            world.finished = world.recoveries().len();
            world.server(2).read_only = false;
            assert!(world.server(2).channel.is_some(), "{}", world.story());
            world.run(20 * SEC);
            world.kill(2);
            world.expect(30 * SEC, "a second recovery that ended", |world| {
                world.running().is_none() && world.recoveries().len() == 2
            });
            assert_eq!(world.last().successor, Some(key(3)), "{}", world.story());
            world.run(10 * SEC);
            assert_follow(&mut world, &[4], 3);
            assert_nothing_lost(&mut world, 3);
        }
    });
}

#[test]
fn without_a_quorum_servers_are_left_in_peace_and_read_at_once_when_it_is_found_again() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.depose();
    world.run(40 * SEC);
    world.probes = 0;
    world.kill(1);
    world.run(600 * SEC);
    assert_eq!(world.probes, 0, "{}", world.story());
    world.elect(1);
    world.run(SEC);
    assert!(world.probes >= 12, "{} readings", world.probes);
    // Whoever was let in by the primary that died meanwhile has not lost its vote by resting.
    world.expect_succeeded(10 * SEC, 2);
}

#[test]
fn a_policy_that_lets_a_dead_primary_be_replaced_is_acted_on_at_once() {
    let mut world = World::with(Flavour::Mysql, 3, |policy| {
        policy.recover_primary_filters = vec!["another".to_string()];
    });
    world.kill(1);
    world.run(SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    let mut policy = world.policy.clone();
    policy.recover_primary_filters = vec!["*".to_string()];
    world.set_policy(&policy);
    world.expect_succeeded(2 * SEC, 2);
}

#[test]
fn daemons_that_never_saw_a_primary_do_not_bury_it() {
    let mut world = World::new(Flavour::Mysql, 3);
    dies_while_all_daemons_are_down(&mut world, 2);
    world.run(60 * SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
}

#[test]
fn a_primary_that_one_daemon_cannot_reach_is_alive() {
    for_both(|flavour| {
        for daemon in 0..3 {
            let mut world = World::new(flavour, 3);
            world.cut.insert((daemon, key(1)));
            world.run(60 * SEC);
            assert_eq!(world.writeable(), [key(1)]);
            assert_eq!(world.recoveries().len(), 0, "{}", world.story());
        }
    });
}

#[test]
fn a_primary_that_the_daemons_cannot_reach_is_alive_while_its_replicas_receive() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        for daemon in 0..3 {
            world.cut.insert((daemon, key(1)));
        }
        world.run(60 * SEC);
        assert_eq!(world.writeable(), [key(1)]);
        assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    });
}

#[test]
fn a_daemon_that_died_after_it_saw_the_primary_alive_does_not_hold_up_the_verdict() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.cut.insert((0, key(1)));
        // The others are asked, and say that it lives.
        world.run(10 * SEC);
        world.kill_daemon(2);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
    });
}

/// A server that was down when they started is nothing that they lost: it does not count with the primary.
#[test]
fn daemons_that_started_beside_a_dead_replica_have_a_voice_at_once() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.run(20 * SEC);
        world.kill(2);
        world.run(20 * SEC);
        world.depose();
        for daemon in [0, 1] {
            world.kill_daemon(daemon);
            world.restart_daemon(daemon);
        }
        world.elect(2);
        world.run(3 * SEC);
        world.kill(1);
        world.expect(2 * SEC, "a promotion", |world| {
            world.writeable() == [key(3)]
        });
    });
}

#[test]
fn a_replica_that_does_not_answer_is_not_waited_for() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).frozen = true;
        world.run(20 * SEC);
        world.kill(1);
        world.expect_succeeded(40 * SEC, 3);
        assert!(world.last().lost.contains(&key(2)));
        assert!(!world.last().possible_loss.is_empty());
    });
}

/// People, or a tool that builds servers, attached it when the primary was about to die.
#[test]
fn a_replica_that_was_attached_a_moment_before_is_regrouped_too() {
    for_both(|flavour| {
        for is_away in [false, true] {
            let mut world = World::new(flavour, 3);
            world.server(4).channel = Some(Channel::to(key(2)));
            world.run(12 * SEC);
            world.server(4).channel = Some(Channel::to(key(1)));
            world.server(4).frozen = is_away;
            world.kill(1);
            world.expect_succeeded(30 * SEC, 2);
            if is_away {
                world.run(30 * SEC);
                assert_follow(&mut world, &[4], 1);
                world.server(4).frozen = false;
                world.run(30 * SEC);
            } else {
                assert_eq!(world.recoveries().len(), 1, "{}", world.story());
            }
            assert_follow(&mut world, &[3, 4], 2);
            assert_nothing_lost(&mut world, 2);
        }
    });
}

/// It was read last while it replicated from nobody, as whoever builds servers leaves it.
#[test]
fn a_member_that_was_attached_again_a_moment_before_is_regrouped_too() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.run(12 * SEC);
        world.server(4).channel = None;
        world.run(6 * SEC);
        world.server(4).channel = Some(Channel::to(key(1)));
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        assert_follow(&mut world, &[3, 4], 2);
        assert_nothing_lost(&mut world, 2);
    });
}

/// The dead primary's machine was set up anew, and the leader that saw it attached dies with the next primary.
#[test]
fn a_replica_that_only_the_dead_leader_saw_is_regrouped_too() {
    for_both(|flavour| {
        for passed in [0, 300, 1_000, 3_000] {
            let mut world = World::with(flavour, 3, |policy| {
                policy.cool_down = core::time::Duration::ZERO;
            });
            world.run(20 * SEC);
            world.kill(1);
            world.expect_succeeded(10 * SEC, 2);
            let server = world.server(1);
            server.server_id = 91;
            server.starts_read_only = true;
            world.restart(1);
            world.run(passed * MS);
            let leader = world.leader.expect("a leader");
            world.server(1).channel = Some(Channel::to(key(2)));
            world.ask_of(leader, Request::Refresh(key(1)));
            world.run(200 * MS);
            world.kill(2);
            world.kill_daemon(leader);
            world.elect((leader + 1) % 3);
            world.expect(30 * SEC, "a recovery that ended", |world| {
                world.running().is_none() && world.recoveries().len() == 2
            });
            let promoted = world.last().successor.clone().expect("a successor");
            world.run(10 * SEC);
            let numbers: Vec<u16> = [1, 3, 4]
                .into_iter()
                .filter(|number| key(*number) != promoted)
                .collect();
            let successor = [1, 3, 4]
                .into_iter()
                .find(|number| key(*number) == promoted)
                .expect("one of them");
            assert_follow(&mut world, &numbers, successor);
        }
    });
}

/// It was down when the daemons started, and is back a moment before the primary dies.
#[test]
fn a_member_that_the_daemons_never_read_is_chosen_if_it_answers() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.run(20 * SEC);
        world.kill(2);
        world.run(20 * SEC);
        world.depose();
        for daemon in 0..3 {
            world.kill_daemon(daemon);
            world.restart_daemon(daemon);
        }
        world.elect(2);
        world.run(2 * SEC);
        world.restart(2);
        world.run(500 * MS);
        world.kill(1);
        world.expect_succeeded(10 * SEC, 2);
        assert_follow(&mut world, &[3, 4], 2);
    });
}

/// It does not take its halt, but was read.
#[test]
fn what_a_replica_that_cannot_be_halted_was_seen_to_hold_is_a_loss_that_is_named() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).deaf = true;
        world.server(3).deaf = true;
        world.run(12 * SEC);
        world.late_steps.insert(key(4), 2500 * MS);
        world.kill(1);
        // It takes a second longer than the others are waited for, and is worth it.
        world.expect_succeeded(30 * SEC, 4);
        assert_nothing_lost(&mut world, 4);
        let mut world = World::new(flavour, 3);
        world.server(2).deaf = true;
        world.server(3).deaf = true;
        world.run(12 * SEC);
        world.late_steps.insert(key(4), 10 * SEC);
        world.kill(1);
        world.expect(6 * SEC, "a promotion", |world| !world.promoted.is_empty());
        let loss = &world.last().possible_loss;
        assert!(
            says(
                loss,
                "db4:3306 was seen to hold ",
                "db2:3306 did not receive, and could not be halted"
            ),
            "{loss:?}"
        );
    });
}

#[test]
fn a_replica_that_was_away_and_holds_more_is_not_made_to_follow() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(2).deaf = true;
        world.server(3).deaf = true;
        world.run(2 * SEC);
        world.server(4).frozen = true;
        world.kill(1);
        world.expect(10 * SEC, "a promotion", |world| !world.promoted.is_empty());
        world.server(4).frozen = false;
        world.server(2).deaf = false;
        world.server(3).deaf = false;
        world.expect_succeeded(40 * SEC, 2);
        assert_eq!(
            world.server(4).channel.as_ref().expect("a replica").source,
            key(1)
        );
        assert!(world.last().lost.contains(&key(4)));
    });
}

/// A backup holds its applier for longer than the recovery waits, or its machine is away.
#[test]
fn a_replica_that_was_lost_joins_its_cluster_again_when_it_can() {
    for_both(|flavour| {
        for is_away in [true, false] {
            let mut world = World::new(flavour, 3);
            world.run(5 * SEC);
            if is_away {
                world.kill(4);
            } else {
                world.server(4).stuck = true;
                world.run(SEC);
            }
            world.kill(1);
            world.expect(60 * SEC, "a recovery that ended", |world| {
                world.running().is_none()
                    && world
                        .recoveries()
                        .iter()
                        .any(|recovery| recovery.end.is_some())
            });
            let recovery = world.last().clone();
            assert!(matches!(recovery.end, Some((_, End::Succeeded))));
            let was_lost = recovery.lost.contains(&key(4));
            // MySQL's receiver is pointed elsewhere beside an applier that stands still.
            assert_eq!(was_lost, is_away || flavour == Flavour::Mariadb);
            assert_eq!(
                recovery.errors.iter().any(|error| error.contains("db4")),
                was_lost,
                "{:?}",
                recovery.errors
            );
            world.run(60 * SEC);
            if is_away {
                world.restart(4);
            } else {
                world.server(4).stuck = false;
            }
            world.run(30 * SEC);
            assert_follow(&mut world, &[3, 4], 2);
            assert_eq!(world.oracle.downtime_of(&key(4), world.time().wall), None);
            for daemon in 0..3 {
                assert_eq!(world.cluster_name(daemon, 4), "db2:3306");
            }
            assert_nothing_lost(&mut world, 2);
        }
    });
}

/// Until it follows, it is shown where it belongs.
#[test]
fn a_lost_replica_is_no_cluster_of_its_own() {
    let mut world = World::new(Flavour::Mariadb, 3);
    world.run(5 * SEC);
    world.server(4).stuck = true;
    world.run(SEC);
    world.kill(1);
    world.expect_succeeded(60 * SEC, 2);
    world.run(30 * SEC);
    for daemon in 0..3 {
        assert_eq!(world.cluster_name(daemon, 4), "db2:3306");
    }
    assert_eq!(world.oracle.clusters().count(), 1);
}

#[test]
fn a_replica_that_was_not_halted_in_time_is_read_again_before_it_is_made_to_follow() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.late_steps.insert(key(4), 4 * SEC);
    world.freeze(1);
    world.expect(10 * SEC, "a promotion", |world| !world.promoted.is_empty());
    world.run(SEC);
    // The old primary thaws and takes one more write before it is fenced: the replica that still listens to it gets it.
    let written = world.server(1).applied.iter().filter(|(by, _)| *by == 1);
    let last = written.map(|(_, number)| *number).max().unwrap_or_default();
    let channel = world.server(4).channel.as_mut().expect("a replica");
    channel.received.insert((1, last + 1));
    world.expect_succeeded(40 * SEC, 2);
    let follows = world.server(4).channel.clone().expect("a replica").source;
    assert_eq!(follows, key(1), "{}", world.story());
    assert!(world.last().lost.contains(&key(4)), "{}", world.story());
}

/// The steps that point it elsewhere were decided when it was halted, and are on their way.
#[test]
fn a_replica_that_is_restarted_after_its_halt_is_halted_and_read_again() {
    for_both(|flavour| {
        for receives in [false, true] {
            let mut world = World::new(flavour, 3);
            world.freeze(1);
            world.expect(10 * SEC, "a promotion", |world| !world.promoted.is_empty());
            world.late_steps.insert(key(4), SEC);
            world.expect(2 * SEC, "a step that is under way", |world| {
                let mut steps = world.last().steps_of(StepKind::Repoint);
                steps.any(|(step, phase)| {
                    step.server == key(4) && matches!(phase, Phase::Intended(_))
                })
            });
            world.kill(4);
            world.restart(4);
            world.late_steps.remove(&key(4));
            let written = world.server(1).applied.iter();
            let last = written
                .filter(|(by, _)| *by == 1)
                .map(|(_, number)| *number);
            let next = (1, last.max().unwrap_or_default() + 1);
            let channel = world.server(4).channel.as_mut().expect("a replica");
            assert!(!channel.io, "{}", world.story());
            channel.io = true;
            channel.sql = true;
            // The old primary thaws and takes one more write before it is fenced.
            if receives {
                channel.received.insert(next);
            }
            world.expect_succeeded(40 * SEC, 2);
            let follows = world.server(4).channel.clone().expect("a replica").source;
            let (source, is_lost) = if receives { (1, true) } else { (2, false) };
            assert_eq!(follows, key(source), "{}", world.story());
            let channel = world.server(4).channel.as_ref();
            assert!(channel.expect("a replica").sql, "{}", world.story());
            assert_eq!(
                world.last().lost.contains(&key(4)),
                is_lost,
                "{}",
                world.story()
            );
        }
    });
}

/// MySQL's receivers that dial a dark host take 2 s to stop (F16).
#[test]
fn halts_that_take_longer_than_the_halt_deadline_are_waited_for_if_there_is_no_other() {
    for_both(|flavour| {
        for refuse_lossy in [false, true] {
            let mut world = World::with(flavour, 3, |policy| policy.refuse_lossy = refuse_lossy);
            for number in 2..=4 {
                world.late_steps.insert(key(number), 2 * SEC);
            }
            world.freeze(1);
            world.expect_succeeded(30 * SEC, 2);
            assert_eq!(world.recoveries().len(), 1, "{}", world.story());
            assert_follow(&mut world, &[3, 4], 2);
        }
        // They end at about the same time, and the last may hold most.
        let mut world = World::new(flavour, 3);
        for (number, late) in [(2, 2000), (3, 2100), (4, 2050)] {
            world.late_steps.insert(key(number), late * MS);
            world.server(number).deaf = number != 3;
        }
        world.run(SEC);
        world.kill(1);
        world.expect_succeeded(30 * SEC, 3);
        assert_nothing_lost(&mut world, 3);
        // Longer than that is not waited for.
        let mut world = World::new(flavour, 3);
        for number in 2..=4 {
            world.late_steps.insert(key(number), 4 * SEC);
        }
        world.kill(1);
        world.expect(4 * SEC, "an undo", |world| {
            world
                .running()
                .is_some_and(|recovery| recovery.stage == Stage::Undo)
        });
        assert_eq!(world.promoted, []);
    });
}

/// One that is halted in time is enough.
#[test]
fn a_halt_that_takes_long_is_not_waited_for_if_there_is_another() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        for number in 3..=4 {
            world.late_steps.insert(key(number), 2 * SEC);
        }
        world.kill(1);
        world.expect(1900 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.expect_succeeded(20 * SEC, 2);
    });
}

/// Nothing on any server says what a replica holds that replicates by file and position.
#[test]
fn a_fleet_without_gtid_is_left_alone_and_nothing_is_halted() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        for number in 1..=4 {
            world.server(number).without_gtid = true;
        }
        world.run(6 * SEC);
        // Their appliers stand still, so that each has something in its relay log.
        for number in 2..=4 {
            world.server(number).stuck = true;
        }
        world.run(6 * SEC);
        let foretold = world.foretold(0, 1);
        assert!(!foretold.would_fail_over());
        let reasons = foretold.obstacles;
        assert!(
            says(
                &reasons,
                "db2:3306 does not use GTID, so what it holds",
                "db4:3306"
            ),
            "{reasons:?}"
        );
        world.kill(1);
        world.run(30 * SEC);
        assert_eq!(world.promoted, []);
        for recovery in world.recoveries() {
            let Some((_, End::Failed { reason })) = &recovery.end else {
                panic!("{:?}\n{}", recovery.end, world.story());
            };
            assert!(reason.contains("does not use GTID"), "{reason}");
        }
        assert!(!world.recoveries().is_empty(), "{}", world.story());
        for number in 2..=4 {
            assert!(world.server(number).statements.is_empty(), "db{number}");
        }
    });
}

/// It is away when the primary dies, and answers while the others are regrouped.
#[test]
fn a_replica_without_gtid_that_joins_late_is_left_as_it_is_and_named() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(4).without_gtid = true;
        world.run(6 * SEC);
        assert!(!world.foretold(0, 1).would_fail_over());
        world.server(4).frozen = true;
        world.run(20 * SEC);
        assert!(world.foretold(0, 1).would_fail_over());
        world.kill(1);
        world.expect(10 * SEC, "a promotion", |world| !world.promoted.is_empty());
        world.server(4).frozen = false;
        world.expect_succeeded(40 * SEC, 2);
        world.run(60 * SEC);
        assert!(
            world.fleet.servers[&key(4)].statements.is_empty(),
            "{}",
            world.story()
        );
        let recovery = world.last();
        assert_eq!(recovery.lost, [key(4)]);
        assert!(
            says(
                &recovery.errors,
                "db4:3306 is not pointed at db2:3306",
                "does not use GTID"
            ),
            "{:?}",
            recovery.errors
        );
        assert_follow(&mut world, &[3], 2);
    });
}

/// The binary logs of the promoted server begin behind what one replica has.
fn a_replica_lacks_what_was_purged(flavour: Flavour) -> World {
    let mut world = World::new(flavour, 3);
    world.server(4).deaf = true;
    world.run(6 * SEC);
    for number in 2..=3 {
        let purged = world.server(number).applied.clone();
        world.server(number).purged = purged;
    }
    world.run(6 * SEC);
    world
}

fn says(texts: &[String], one: &str, other: &str) -> bool {
    texts
        .iter()
        .any(|text| text.contains(one) && text.contains(other))
}

fn lines_of(world: &World) -> Vec<String> {
    let lines = world.last().lines.iter();
    lines.map(|line| line.message.clone()).collect()
}

/// MySQL says beforehand what it has purged, MariaDB only to who asks for it, and only after a while in which the receiver
/// runs.
#[test]
fn a_replica_that_lacks_what_the_promoted_server_has_purged_is_lost_and_named() {
    for_both(|flavour| {
        let mut world = a_replica_lacks_what_was_purged(flavour);
        world.seek_time = 300 * MS;
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.expect_succeeded(4 * SEC, 2);
        assert_follow(&mut world, &[3], 2);
        let last = world.last().clone();
        assert_eq!(last.lost, [key(4)], "{}", world.story());
        let (why, tries) = match flavour {
            Flavour::Mariadb => ("its receiver has stopped: error 1236: Got fatal", 3),
            _ => ("the promoted server has purged from its binary logs", 0),
        };
        assert!(says(&last.errors, "db4:3306", why), "{:#?}", last.errors);
        assert!(
            says(&lines_of(&world), "db4:3306", why),
            "{:#?}",
            last.lines
        );
        let repointed = last.steps_of(StepKind::Repoint);
        let repointed = repointed.filter(|(step, _)| step.server == key(4)).count();
        assert_eq!(repointed, tries, "{}", world.story());
        world.run(60 * SEC);
        assert_audited(&world);
        let follows = world.server(4).channel.clone().expect("a replica");
        assert!(!follows.io, "{follows:?}");
        assert!(
            world
                .oracle
                .downtime_of(&key(4), world.time().wall)
                .is_some()
        );
    });
}

#[test]
fn what_will_be_refused_is_foretold_and_said_when_the_choice_is_made() {
    let mut world = a_replica_lacks_what_was_purged(Flavour::Mysql);
    let why = "the promoted server has purged from its binary logs";
    let losses = world.foretold(0, 1).losses;
    assert!(
        says(&losses, "db4:3306 could not follow db2:3306", why),
        "{losses:#?}"
    );
    world.kill(1);
    world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
    let lines = lines_of(&world);
    assert!(
        says(&lines, "db4:3306 cannot follow db2:3306", why),
        "{lines:#?}"
    );
}

/// Its account is refused: the receiver dials on, once a minute.
#[test]
fn a_replica_that_the_promoted_server_does_not_let_in_is_lost_and_named() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.server(4).is_denied = true;
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.expect_succeeded(4 * SEC, 2);
        assert_follow(&mut world, &[3], 2);
        let last = world.last().clone();
        assert_eq!(last.lost, [key(4)], "{}", world.story());
        let why = "its receiver is still connecting: error 1045: Access denied";
        assert!(says(&last.errors, "db4:3306", why), "{:#?}", last.errors);
        // People mend it, and it is lost no more.
        world.server(4).is_denied = false;
        world
            .server(4)
            .channel
            .as_mut()
            .expect("a replica")
            .io_error = None;
        world.run(20 * SEC);
        assert_eq!(world.oracle.downtime_of(&key(4), world.time().wall), None);
    });
}

#[test]
fn a_recovery_ends_when_its_replicas_are_connected_and_its_promotion_does_not_wait() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.connect_time = 5 * SEC;
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.run(3 * SEC);
        assert!(world.running().is_some(), "{}", world.story());
        world.expect_succeeded(3 * SEC, 2);
        assert_eq!(world.last().lost, []);
        // Longer than anybody waits.
        let mut world = World::new(flavour, 3);
        world.connect_time = 40 * SEC;
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.expect_succeeded(25 * SEC, 2);
        let last = world.last().clone();
        assert_eq!(last.lost, [key(3), key(4)], "{}", world.story());
        let why = "does not follow db2:3306: its receiver is still connecting";
        assert!(says(&last.errors, "db3:3306", why), "{:#?}", last.errors);
        world.run(40 * SEC);
        assert_follow(&mut world, &[3, 4], 2);
        assert_eq!(world.oracle.downtime_of(&key(4), world.time().wall), None);
    });
}

/// Those that wait for it do not keep it from being replaced.
#[test]
fn a_promoted_server_that_dies_during_the_regroup_is_not_waited_for() {
    for_both(|flavour| {
        let mut world = World::with(flavour, 3, |policy| {
            policy.cool_down = core::time::Duration::ZERO;
        });
        world.connect_time = 5 * SEC;
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.run(SEC);
        world.kill(2);
        world.connect_time = 0;
        world.expect(4 * SEC, "an end", |world| {
            world.recoveries()[0].end.is_some()
        });
        let first = world.recoveries()[0].clone();
        assert_eq!(first.lost, [], "{}", world.story());
        let why = "whether these follow it is not known: db3:3306, db4:3306";
        assert!(says(&first.errors, "db2:3306", why), "{:#?}", first.errors);
        world.expect(10 * SEC, "another promotion", |world| {
            world.promoted.len() == 2
        });
        world.run(10 * SEC);
        assert_eq!(world.writeable(), [key(3)], "{}", world.story());
        assert_follow(&mut world, &[4], 3);
    });
}

/// A replica that died with the promoted server keeps the recovery, and with it the next one, waiting as little as one that
/// lives.
#[test]
fn a_promoted_server_that_dies_with_one_of_its_replicas_is_not_waited_for() {
    for_both(|flavour| {
        for freezes in [true, false] {
            let mut world = World::with(flavour, 4, |policy| {
                policy.cool_down = core::time::Duration::ZERO;
            });
            world.connect_time = 100 * MS;
            world.kill(1);
            world.expect(2 * SEC, "repointed replicas", |world| {
                world.running().is_some_and(|recovery| {
                    let repoints = recovery.steps_of(StepKind::Repoint);
                    let done =
                        repoints.filter(|(_, phase)| **phase == Phase::Settled(Outcome::Done));
                    done.count() == 3
                })
            });
            world.kill(2);
            if freezes {
                world.freeze(5);
            } else {
                world.kill(5);
            }
            world.expect(3 * SEC, "an end", |world| {
                world.recoveries()[0].end.is_some()
            });
            let first = world.recoveries()[0].clone();
            let why = "whether these follow it is not known: db3:3306, db4:3306, db5:3306";
            assert!(says(&first.errors, "db2:3306", why), "{:#?}", first.errors);
        }
    });
}

/// Its error counts the attempts; the record has it once.
#[test]
fn a_replica_that_is_left_behind_is_told_of_once() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 4);
        world.server(4).is_denied = true;
        world.server(5).stuck = true;
        world.run(SEC);
        world.kill(1);
        world.expect(500 * MS, "a promotion", |world| !world.promoted.is_empty());
        world.server(5).connects_at = u64::MAX;
        world.expect_succeeded(25 * SEC, 2);
        let errors = &world.last().errors;
        let told = errors.iter().filter(|error| error.contains("error 1045"));
        assert_eq!(told.count(), 1, "{errors:#?}");
    });
}

/// What its statements came to says nothing of a replica that dies, or freezes, before it is seen to be connected.
#[test]
fn a_replica_that_dies_behind_its_repoint_is_lost() {
    for_both(|flavour| {
        for freezes in [true, false] {
            for next_leader in [true, false] {
                let mut world = World::new(flavour, 3);
                world.connect_time = 100 * MS;
                world.kill(1);
                world.expect(2 * SEC, "a repointed replica", |world| {
                    let running = world.running();
                    running.is_some_and(|recovery| {
                        recovery.steps_of(StepKind::Repoint).any(|(step, phase)| {
                            step.server == key(4) && *phase == Phase::Settled(Outcome::Done)
                        })
                    })
                });
                if freezes {
                    world.freeze(4);
                } else {
                    world.kill(4);
                }
                if next_leader {
                    world.depose();
                    world.run(400 * MS);
                    world.elect(1);
                }
                world.expect_succeeded(25 * SEC, 2);
                assert_eq!(world.last().lost, [key(4)], "{}", world.story());
                assert!(
                    says(&world.last().errors, "db4:3306", "read"),
                    "{:?}",
                    world.last().errors
                );
                assert_follow(&mut world, &[3], 2);
            }
        }
    });
}

/// What the primary was seen to have and nobody received is counted in the record.
#[test]
fn a_loss_that_was_seen_is_in_the_record() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        for number in 2..=3 {
            world.server(number).deaf = true;
        }
        world.run(10 * SEC);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 2);
        let loss = &world.last().possible_loss;
        assert!(
            says(
                loss,
                "db1:3306 was seen to have ",
                " transaction(s) that db2:3306 did not receive"
            ),
            "{loss:?}"
        );
        assert!(says(loss, "replication was asynchronous", ""), "{loss:?}");
    });
}

#[test]
fn no_replica_answers_and_nothing_is_promoted() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        world.kill(2);
        world.kill(3);
        world.run(20 * SEC);
        world.kill(1);
        world.run(60 * SEC);
        assert_eq!(world.promoted, []);
        for number in 1..=3 {
            world.restart(number);
        }
        world.run(30 * SEC);
        assert_eq!(world.writeable(), [key(1)], "{}", world.story());
    });
}

#[test]
fn a_second_failure_waits_for_the_cool_down_or_an_acknowledgement() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(2 * SEC, 2);
        world.run(20 * SEC);
        world.kill(2);
        world.run(60 * SEC);
        assert_eq!(world.recoveries().len(), 1);
        assert_eq!(world.promoted.len(), 1);
        world.ask(Request::Decide(Command::Acknowledge {
            scope: AckScope::All,
            owner: String::from("dba"),
            comment: String::from("seen"),
        }));
        world.expect_succeeded(15 * SEC, 3);
        world.run(30 * SEC);
        assert_follow(&mut world, &[4], 3);
    });
}

#[test]
fn the_cool_down_ends_by_itself_in_a_quiet_log() {
    let mut world = World::with(Flavour::Mariadb, 3, |policy| {
        policy.cool_down = std::time::Duration::from_secs(60);
    });
    world.kill(1);
    world.expect_succeeded(2 * SEC, 2);
    world.run(52 * SEC);
    world.kill(2);
    world.run(5 * SEC);
    assert_eq!(world.recoveries().len(), 1);
    world.expect_succeeded(60 * SEC, 3);
}

#[test]
fn log_time_moves_in_a_quiet_log() {
    let mut world = World::new(Flavour::Mysql, 2);
    let before = world.oracle.log_time();
    let index = world.oracle.applied().index;
    world.run(300 * SEC);
    assert!(world.oracle.log_time().since(before).as_secs() >= 240);
    assert!(
        world.oracle.applied().index - index <= 20,
        "the log is not quiet"
    );
}

#[test]
fn observe_only_changes_nothing() {
    let mut world = World::with(Flavour::Mysql, 2, |policy| policy.observe_only = true);
    world.kill(1);
    world.run(60 * SEC);
    assert_eq!(world.recoveries().len(), 0);
    assert!(world.server(2).statements.is_empty());
    assert!(world.oracle.detections_newest_first().next().is_some());
}

#[test]
fn a_cluster_outside_the_filters_is_left_alone() {
    let mut world = World::with(Flavour::Mysql, 2, |policy| {
        policy.recover_primary_filters = vec![String::from("other")];
    });
    world.kill(1);
    world.run(60 * SEC);
    assert_eq!(world.recoveries().len(), 0);
    assert!(world.server(2).statements.is_empty());
}

/// A replica that chooses its source by itself would fight whoever repoints it.
#[test]
fn a_cluster_with_a_kind_of_replication_that_no_plan_knows_is_left_alone_and_named() {
    let mut world = World::new(Flavour::Mysql, 2);
    let option = String::from("SOURCE_CONNECTION_AUTO_FAILOVER");
    world.server(3).options = vec![(option.clone(), String::from("0"))];
    world.run(10 * SEC);
    assert!(world.foretold(0, 1).would_fail_over());
    world.server(3).options = vec![(option, String::from("1"))];
    world.run(10 * SEC);
    let foretold = world.foretold(0, 1);
    assert!(
        foretold.obstacles[0].starts_with("db3:3306 chooses another source by itself"),
        "{foretold:?}"
    );
    world.kill(1);
    world.run(60 * SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    assert!(world.oracle.detections_newest_first().next().is_some());
}

#[test]
fn a_downtime_is_respected() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.ask(Request::BeginDowntime {
        key: key(1),
        owner: String::from("dba"),
        reason: String::from("moving house"),
        lasts_s: 30,
    });
    world.run(SEC);
    world.kill(1);
    world.run(20 * SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    world.expect_succeeded(90 * SEC, 2);
}

/// A downtime that is over holds nothing up, and neither does a filter or a switch that people take away.
#[test]
fn a_recovery_that_was_held_up_begins_when_nothing_holds_it_any_more() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.ask(Request::BeginDowntime {
        key: key(1),
        owner: String::from("dba"),
        reason: String::from("moving house"),
        lasts_s: 600,
    });
    world.run(SEC);
    world.kill(1);
    world.run(2 * SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    world.ask(Request::Decide(Command::EndDowntime { key: key(1) }));
    world.expect_succeeded(SEC, 2);
}

#[test]
fn a_downtime_that_began_while_a_clock_was_ahead_lasts_no_longer_for_it() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.clocks_ahead = 7_200 * SEC;
    world.ask(Request::BeginDowntime {
        key: key(1),
        owner: String::from("dba"),
        reason: String::from("moving house"),
        lasts_s: 30,
    });
    world.run(SEC);
    world.clocks_ahead = 0;
    world.kill(1);
    world.run(20 * SEC);
    assert_eq!(world.recoveries().len(), 0, "{}", world.story());
    world.expect_succeeded(15 * SEC, 2);
}

/// In a quiet log as well, in which no entry moves its time.
#[test]
fn a_forgotten_server_that_is_there_is_found_again_when_the_forgetting_ends() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.ask(Request::Decide(Command::Forget { keys: vec![key(3)] }));
    world.run(14 * SEC);
    assert!(!world.oracle.is_known(&key(3)), "{}", world.story());
    world.run(7 * SEC);
    assert!(world.oracle.is_known(&key(3)), "{}", world.story());
}

/// The server is read for the request, which takes its time: the daemon may lead no more when that is done.
#[test]
fn a_discover_is_answered_when_it_is_committed() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.ask(Request::Decide(Command::Forget { keys: vec![key(3)] }));
    world.run(SEC);
    assert!(!world.oracle.is_known(&key(3)));
    let leader = world.leader.expect("a leader");
    let asked = world.ask(Request::Discover(key(3)));
    world.elect((leader + 1) % 3);
    world.run(SEC);
    let reply = world.replies.get(&asked);
    assert!(
        matches!(reply, Some(Reply::NotLeading { .. })),
        "{reply:?}\n{}",
        world.story()
    );
    assert!(!world.oracle.is_known(&key(3)));
    let asked = world.ask(Request::Discover(key(3)));
    world.run(SEC);
    assert_eq!(world.replies.get(&asked), Some(&Reply::Probed(key(3))));
    assert!(world.oracle.is_known(&key(3)));
}

/// A connection that is kept to a name by which nobody is known is never used again.
#[test]
fn nothing_is_kept_to_names_that_become_no_server() {
    let mut world = World::new(Flavour::Mysql, 2);
    let leader = world.leader.expect("a leader");
    let follower = (leader + 1) % 3;
    let address = InstanceKey::new("192.0.2.1", 3306);
    world.aliases.insert(address.clone(), key(1));
    let nowhere = InstanceKey::new("nowhere", 3306);
    let by_address = world.ask(Request::Discover(address.clone()));
    let again = world.ask(Request::Discover(address.clone()));
    let of_follower = world.ask_of(follower, Request::Refresh(address));
    let of_nowhere = world.ask_of(follower, Request::Refresh(nowhere));
    world.run(5 * SEC);
    for asked in [by_address, again, of_follower] {
        assert_eq!(world.replies.get(&asked), Some(&Reply::Probed(key(1))));
    }
    assert!(
        matches!(world.replies.get(&of_nowhere), Some(Reply::ProbeFailed(_))),
        "{:?}",
        world.replies.get(&of_nowhere)
    );
    let known: BTreeSet<InstanceKey> = world.oracle.known().cloned().collect();
    assert_eq!(known, (1..=3).map(key).collect());
    for daemon in &world.daemons {
        assert_eq!(daemon.kept, known, "{}", world.story());
    }
}

#[test]
fn operations_of_one_step_answer_whoever_asked() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 2);
        let closing = world.ask(Request::SetReadOnly {
            key: key(1),
            super_read_only: false,
        });
        let busy = world.ask(Request::SetReadOnly {
            key: key(1),
            super_read_only: false,
        });
        world.run(SEC);
        assert_eq!(world.replies.get(&closing), Some(&Reply::Operated(key(1))));
        assert!(
            matches!(world.replies.get(&busy), Some(Reply::Refused(_))),
            "{:?}",
            world.replies.get(&busy)
        );
        assert!(world.server(1).read_only);
        world.run(30 * SEC);
        assert!(
            world.server(1).read_only,
            "closed by people, opened by nobody"
        );
        let opening = world.ask(Request::SetWriteable { key: key(1) });
        world.run(SEC);
        assert_eq!(world.replies.get(&opening), Some(&Reply::Operated(key(1))));
        assert!(!world.server(1).read_only);
        let unknown = world.ask(Request::SetWriteable { key: key(9) });
        assert!(matches!(
            world.replies.get(&unknown),
            Some(Reply::Refused(_))
        ));
    });
}

#[test]
fn a_primary_closed_by_its_restart_is_opened_and_one_closed_by_people_is_not() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.server(1).starts_read_only = true;
    world.restart(1);
    world.expect(10 * SEC, "the primary open again", |world| {
        world.writeable() == [key(1)]
    });
    world.run(10 * SEC);
    world.server(1).read_only = true;
    world.run(12 * SEC);
    world.restart(1);
    world.run(30 * SEC);
    assert!(
        world.server(1).read_only,
        "people closed it\n{}",
        world.story()
    );
}

/// A deposed primary returns at the same moment as the primary that was closed by its restart: while the one is fenced the
/// other cannot be opened, and is opened afterwards.
#[test]
fn a_primary_closed_by_its_restart_is_opened_though_a_deposed_one_returns_with_it() {
    for_both(|flavour| {
        let mut world = World::new(flavour, 3);
        world.kill(1);
        world.expect_succeeded(5 * SEC, 2);
        world.run(5 * SEC);
        world.server(2).starts_read_only = true;
        // In its cool-down the cluster is not recovered again.
        world.kill(2);
        world.run(SEC);
        world.restart(1);
        world.restart(2);
        world.expect(15 * SEC, "the newer primary open again", |world| {
            world.writeable() == [key(2)]
        });
    });
}

#[test]
fn whoever_asked_is_answered_when_the_leader_goes() {
    let mut world = World::new(Flavour::Mysql, 2);
    world.orphans_survive = false;
    let request = world.ask(Request::SetReadOnly {
        key: key(1),
        super_read_only: false,
    });
    world.depose();
    world.run(20 * SEC);
    assert!(
        matches!(world.replies.get(&request), Some(Reply::Unknown(_))),
        "{:?}",
        world.replies.get(&request)
    );
}

/// The leader goes after each move of a recovery, in each way; the next one finishes it.
fn deposed_at_every_move(flavour: Flavour, way: Way) {
    let mut last = 0;
    for at in 1.. {
        let mut world = World::new(flavour, 3);
        world.orphans_survive = matches!(way, Way::Deposed | Way::Killed | Way::RegainedLate);
        // The second is behind, so that it matters who is promoted.
        world.server(2).deaf = true;
        world.run(SEC);
        world.moves = 0;
        world.depose_after = Some(at);
        world.kill(1);
        let deposed = world.run_until(10 * SEC, |world| {
            world.leader.is_none() || !world.promoted.is_empty() && world.running().is_none()
        });
        assert!(deposed, "at {at}\n{}", world.story());
        if world.leader.is_some() {
            last = at;
            break;
        }
        if way == Way::Killed {
            world.kill_daemon(0);
        }
        world.run(400 * MS);
        if way.leads_on() {
            world.regain(0);
        } else {
            world.elect(1);
        }
        world.server(2).deaf = false;
        world.expect(60 * SEC, "a finished recovery", |world| {
            world.running().is_none()
                && world
                    .recoveries()
                    .iter()
                    .any(|recovery| matches!(recovery.end, Some((_, End::Succeeded))))
        });
        world.run(5 * SEC);
        assert_eq!(
            world.writeable(),
            [key(3)],
            "at {at} ({way:?})\n{}",
            world.story()
        );
        // Steps of a leader without a quorum are refused: then the recovery fails, is undone, and is begun again.
        let counted = world.recoveries().into_iter().filter(|recovery| {
            !way.leads_on() || matches!(recovery.end, Some((_, End::Succeeded)))
        });
        assert_eq!(counted.count(), 1, "at {at} ({way:?})\n{}", world.story());
        let promoted: std::collections::BTreeSet<&InstanceKey> =
            world.promoted.iter().map(|(_, key)| key).collect();
        assert_eq!(promoted.len(), 1, "at {at} ({way:?})\n{}", world.story());
        assert_nothing_lost(&mut world, 3);
        assert_follow(&mut world, &[2, 4], 3);
        assert_audited(&world);
        let stated = !world.last().possible_loss.is_empty();
        assert!(stated, "at {at} ({way:?})\n{}", world.story());
        let seconds = world
            .last()
            .end
            .as_ref()
            .map_or(0, |(at, _)| at.since(world.last().began).as_secs());
        assert!(
            seconds <= 12,
            "at {at} ({way:?}) it took {seconds} s\n{}",
            world.story()
        );
    }
    assert!(last > 10, "only {last} moves");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What it proposed is committed all the same.
    Deposed,
    /// What it proposed is lost.
    Forgotten,
    Killed,
    /// It leads on under its epoch when it finds its quorum again; what it proposed is lost.
    Regained,
    /// The same, and what it proposed was committed while it had none.
    RegainedLate,
}

impl Way {
    const fn leads_on(self) -> bool {
        matches!(self, Self::Regained | Self::RegainedLate)
    }
}

#[test]
fn the_leader_loses_its_quorum_at_every_move_and_leads_on() {
    deposed_at_every_move(Flavour::Mariadb, Way::Regained);
    deposed_at_every_move(Flavour::Mysql, Way::Regained);
}

#[test]
fn the_leader_loses_its_quorum_at_every_move_and_leads_on_with_what_it_proposed() {
    for_both(|flavour| deposed_at_every_move(flavour, Way::RegainedLate));
}

#[test]
fn the_leader_is_deposed_at_every_move_mariadb() {
    deposed_at_every_move(Flavour::Mariadb, Way::Deposed);
}

#[test]
fn the_leader_is_deposed_at_every_move_mysql() {
    deposed_at_every_move(Flavour::Mysql, Way::Deposed);
}

#[test]
fn the_leader_is_deposed_at_every_move_and_its_proposals_are_lost() {
    for_both(|flavour| deposed_at_every_move(flavour, Way::Forgotten));
}

#[test]
fn the_leader_is_killed_at_every_move() {
    for_both(|flavour| deposed_at_every_move(flavour, Way::Killed));
}

#[test]
fn an_undo_is_finished_by_the_next_leader() {
    for_both(|flavour| {
        for at in 1..12 {
            let mut world = draining_for_a_dead_one(flavour);
            world.moves = 0;
            world.depose_after = Some(at);
            world.restart(1);
            world.run(300 * MS);
            for number in 2..=3 {
                world.server(number).stuck = false;
            }
            if world.leader.is_none() {
                world.elect(2);
            } else {
                world.depose_after = None;
            }
            world.run(60 * SEC);
            assert!(world.running().is_none());
            assert_eq!(world.writeable(), [key(1)], "at {at}\n{}", world.story());
            assert_eq!(world.promoted, []);
            assert_follow(&mut world, &[2, 3], 1);
            assert_audited(&world);
        }
    });
}

#[test]
fn a_daemon_that_replays_the_log_fences_nobody() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.freeze(1);
    world.expect_succeeded(8 * SEC, 2);
    world.thaw(1);
    world.run(10 * SEC);
    world.trace.clear();
    world.restart_daemon(1);
    world.run(10 * SEC);
    assert!(
        !world
            .trace
            .iter()
            .any(|line| line.contains("leaves a fence in its connection to")),
        "{}",
        world.story()
    );
}

/// Whoever is woken by what a daemon logs is not woken by what it reads in its log once more.
#[test]
fn what_a_daemon_replays_is_told_as_old_news() {
    let mut world = World::new(Flavour::Mysql, 3);
    world.kill(1);
    world.expect_succeeded(8 * SEC, 2);
    let detected = |world: &World| {
        let lines = world.trace.iter();
        lines
            .filter(|line| line.contains("detected DeadMaster on db1"))
            .cloned()
            .collect::<Vec<_>>()
    };
    let at_first = detected(&world);
    let is_old_news = |line: &String| line.contains(" s ago: ");
    let is_detection = |text: &String| text.contains("detected DeadMaster on db1");
    assert!(world.warnings.iter().any(is_detection) && !at_first.iter().any(is_old_news));
    world.run(90 * SEC);
    world.trace.clear();
    world.warnings.clear();
    world.restart_daemon(1);
    world.run(SEC);
    let later = detected(&world);
    assert_eq!((at_first.len(), later.len()), (3, 1), "{}", world.story());
    assert!(later.iter().all(is_old_news) && !world.warnings.iter().any(is_detection));
}
