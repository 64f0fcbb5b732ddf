//! Each oracle is seen to let a good run pass, and to find what it is there for.

use std::sync::LazyLock;
use std::time::Duration;

use orchestrator::kv::Version;
use orchestrator::raft::LogBounds;
use orchestrator_core::id::{ClusterId, ClusterKey, Epoch, LogPosition, NodeId, StepId, Uid};
use orchestrator_core::recovery::{
    DeadKind, End, Hook, HookList, Lane, Outcome, Purpose, Stage, Statement, Step, StepKind,
    Telling,
};
use orchestrator_core::replicated::{Answer, Command, Detection, Stamped};
use orchestrator_core::time::Wall;

use super::acknowledged::Acknowledged;
use super::*;
use crate::daemon::LogView;
use crate::model::server::Account;
use crate::model::{Kind, Server};
use crate::store::Store;
use crate::witness::Cause;

fn key(number: u32) -> InstanceKey {
    InstanceKey::new(format!("m{number}"), 3306)
}

fn epoch(term: u64) -> Epoch {
    Epoch {
        term,
        node: NodeId(1),
        boot: 1,
    }
}

fn uid() -> Uid {
    Uid("u".to_owned())
}

/// `m1` wrote ten times. `m2` received all, `m3` eight; both applied what they had.
fn hosts(kind: Kind) -> Vec<Host> {
    let mut servers: Vec<Server> = (1..=3)
        .map(|number| Server::new(key(number), kind, number, number > 1))
        .collect();
    for write in 1..=10 {
        servers[0].write(write, Duration::from_secs(1)).unwrap();
    }
    let sent = servers[0].transactions().to_vec();
    for (replica, count) in [(1, 10), (2, 8)] {
        servers[replica].replicate_from(key(1));
        for transaction in &sent[..count] {
            servers[replica].receive(*transaction);
        }
        while servers[replica].can_apply(Duration::ZERO) {
            servers[replica].apply(Duration::ZERO);
        }
    }
    servers.into_iter().map(|one| Host::new(one, 1)).collect()
}

fn run(host: &Host, statements: &[Statement]) {
    for statement in statements {
        host.change(|server| server.execute(statement, Duration::from_secs(9)))
            .unwrap();
    }
}

const PROMOTE: [Statement; 3] = [
    Statement::StopReplication,
    Statement::ResetReplicaAll,
    Statement::MakeWriteable,
];

fn committed(command: Command) -> Event {
    answered(command, Answer::Done)
}

fn answered(command: Command, answer: Answer) -> Event {
    Event::Committed {
        at: LogPosition {
            index: 1,
            term: 1,
            node: NodeId(0),
        },
        command,
        answer,
    }
}

fn begun() -> Event {
    committed(Command::BeginRecovery {
        uid: uid(),
        purpose: Purpose::Reopen,
        epoch: epoch(1),
        server: key(1),
        identity: None,
        cluster_name: String::new(),
        analysis: String::new(),
        replicas: Vec::new(),
        processing_node: String::new(),
        processing_token: String::new(),
        forced: false,
        was_read_only: false,
    })
}

fn intended(server: u32, term: u64) -> Event {
    committed(Command::Intend {
        uid: uid(),
        epoch: epoch(term),
        stage: Stage::Promote,
        candidate: None,
        ending: None,
        steps: vec![Step {
            id: StepId(1),
            kind: StepKind::Promote,
            server: key(server),
            identity: None,
            lane: Lane::Act,
            statements: PROMOTE.to_vec(),
            deadline: Duration::from_secs(1),
            read_after: false,
        }],
        lines: Vec::new(),
    })
}

fn opened(server: u32, term: u64) -> Event {
    Event::Executed {
        server: key(server),
        statement: Statement::MakeWriteable,
        cause: Some(Cause::Step {
            uid: uid(),
            step: StepId(1),
            kind: StepKind::Promote,
            epoch: epoch(term),
        }),
        forgotten: 0,
    }
}

/// These servers at 9 s, with good links; nothing decided.
fn truth(hosts: &[Host]) -> Truth<'_> {
    static NOTHING: LazyLock<Replicated> = LazyLock::new(Replicated::default);
    Truth {
        at: Duration::from_secs(9),
        hosts,
        decided: &NOTHING,
        is_whole: |_, _| true,
    }
}

/// What the oracles say of events, one after the other; the servers change as the last one says.
fn check(hosts: &[Host], events: &[Event]) -> Result<(), String> {
    let mut oracles = Oracles::default();
    for event in events {
        oracles.observe(event, &truth(hosts))?;
    }
    oracles.look(&[], &truth(hosts))
}

#[track_caller]
fn finds(found: Result<(), String>, oracle: &str) {
    let text = found.unwrap_err();
    assert!(text.starts_with(oracle), "{text}, wanted {oracle}");
}

#[test]
fn a_promotion_as_it_is_to_be_passes() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let hosts = hosts(kind);
        hosts[0].change(Server::kill);
        run(&hosts[1], &PROMOTE);
        assert_eq!(
            check(&hosts, &[begun(), intended(2, 1), opened(2, 1)]),
            Ok(())
        );
        // The deposed one comes back and is not fenced so far.
        hosts[0].change(|server| server.start(Duration::ZERO));
        assert_eq!(
            check(&hosts, &[begun(), intended(2, 1), opened(2, 1)]),
            Ok(())
        );
    }
}

#[test]
fn two_primaries_are_found() {
    let hosts = hosts(Kind::Mysql);
    run(&hosts[1], &PROMOTE);
    // Nothing that is committed deposed m1.
    finds(check(&hosts, &[]), "one primary");
    let mut oracle = one_primary::OnePrimary::default();
    finds(oracle.observe(&opened(2, 1), &hosts), "one primary");
    // Both replicas were opened.
    run(&hosts[2], &PROMOTE);
    finds(
        check(&hosts, &[begun(), intended(2, 1), opened(2, 1)]),
        "one primary",
    );
}

/// The recovery ends, with this successor.
fn over(successor: Option<u32>) -> Event {
    committed(Command::EndRecovery {
        uid: uid(),
        epoch: epoch(1),
        end: End::Succeeded,
        successor: successor.map(key),
        successor_identity: None,
        successor_alias: String::new(),
        lost: Vec::new(),
        participants: Vec::new(),
        lines: Vec::new(),
    })
}

#[test]
fn a_primary_whose_recovery_promoted_nobody_counts_again() {
    let hosts = hosts(Kind::Mysql);
    let judge = |successor| {
        let mut oracle = one_primary::OnePrimary::default();
        for event in [begun(), intended(2, 1), over(successor)] {
            oracle.observe(&event, &hosts).unwrap();
        }
        (
            oracle.deposed().contains(&key(1)),
            oracle.look(&[], &truth(&hosts)),
        )
    };
    assert_eq!(judge(None), (false, Ok(())));
    run(&hosts[1], &PROMOTE);
    assert_eq!(judge(Some(2)), (true, Ok(())));
    let (is_deposed, found) = judge(None);
    assert!(!is_deposed);
    finds(found, "one primary");
}

#[test]
fn a_deposed_server_that_is_reached_and_stays_open_is_found() {
    let leader = |name: &str| {
        let mut view = view(name, 7, 1);
        view.leads = true;
        vec![view, self::view("n9", 7, 1)]
    };
    /// A leader, a second, and whether the link is whole.
    type Look<'a> = (&'a str, u64, bool);
    let judge = |hosts: &[Host], looks: &[Look<'_>], decided: &Replicated| {
        let mut oracle = one_primary::OnePrimary::default();
        for event in [begun(), intended(2, 1), opened(2, 1)] {
            oracle.observe(&event, hosts).unwrap();
        }
        looks.iter().try_for_each(|(name, at, is_whole)| {
            let truth = Truth {
                at: Duration::from_secs(*at),
                is_whole: if *is_whole { |_, _| true } else { |_, _| false },
                decided,
                ..truth(hosts)
            };
            oracle.look(&leader(name), &truth)
        })
    };
    let nothing = Replicated::default();
    let hosts = hosts(Kind::Mysql);
    run(&hosts[1], &PROMOTE);
    let long = [("n1", 1, true), ("n1", 5, true), ("n1", 99, true)];
    finds(judge(&hosts, &long, &nothing), "one primary");
    // Not reached, another leader, not for long.
    let cut = [("n1", 1, true), ("n1", 50, false), ("n1", 99, true)];
    assert_eq!(judge(&hosts, &cut, &nothing), Ok(()));
    let changed = [("n1", 1, true), ("n2", 99, true)];
    assert_eq!(judge(&hosts, &changed, &nothing), Ok(()));
    assert_eq!(judge(&hosts, &long[..2], &nothing), Ok(()));
    // People began a downtime of it.
    let mut left_to_people = Replicated::default();
    let downtime = Command::BeginDowntime {
        key: key(1),
        owner: "somebody".to_owned(),
        reason: "a test".to_owned(),
        until: Wall::from_secs(2),
    };
    let at = view("n1", 1, 1).at;
    let stamped = Stamped {
        wall: Wall::from_secs(1),
        command: downtime,
    };
    left_to_people.apply(at, &stamped);
    assert_eq!(judge(&hosts, &long, &left_to_people), Ok(()));
    // It lets nobody in, or is closed.
    hosts[0].change(|server| server.set_connections_max(0));
    assert_eq!(judge(&hosts, &long, &nothing), Ok(()));
    hosts[0].change(|server| server.set_connections_max(300));
    run(&hosts[0], &[Statement::Fence]);
    assert_eq!(judge(&hosts, &long, &nothing), Ok(()));
}

#[test]
fn an_effect_without_its_intent_is_found() {
    let hosts = hosts(Kind::Mysql);
    hosts[0].change(Server::kill);
    finds(check(&hosts, &[begun(), opened(2, 1)]), "intent first");
    // Intended for another server, or under another epoch.
    finds(
        check(&hosts, &[begun(), intended(3, 1), opened(2, 1)]),
        "intent first",
    );
    finds(
        check(&hosts, &[begun(), intended(2, 1), opened(2, 2)]),
        "intent first",
    );
    let frozen = || Event::Executed {
        server: key(1),
        statement: Statement::Fence,
        cause: Some(Cause::FrozenFence),
        forgotten: 0,
    };
    finds(check(&hosts, &[begun(), frozen()]), "intent first");
    assert_eq!(check(&hosts, &[begun(), intended(2, 1), frozen()]), Ok(()));
    let unknown = Event::Executed {
        server: key(1),
        statement: Statement::Fence,
        cause: None,
        forgotten: 0,
    };
    finds(check(&hosts, &[unknown]), "intent first");
}

#[test]
fn an_overtaken_epoch_is_found() {
    let hosts = hosts(Kind::Mysql);
    hosts[0].change(Server::kill);
    let events = [
        begun(),
        intended(2, 1),
        intended(2, 2),
        opened(2, 2),
        opened(2, 1),
    ];
    finds(check(&hosts, &events), "epochs in order");
    // The fence that waited in a server that was opened meanwhile.
    let frozen = || Event::Executed {
        server: key(1),
        statement: Statement::Fence,
        cause: Some(Cause::FrozenFence),
        forgotten: 0,
    };
    let events = [begun(), intended(1, 1), opened(1, 1), frozen()];
    finds(check(&hosts, &events), "epochs in order");
    // It was left for a promotion that came later.
    let events = [
        begun(),
        intended(1, 1),
        opened(1, 1),
        intended(2, 1),
        frozen(),
    ];
    assert_eq!(check(&hosts, &events), Ok(()));
}

#[test]
fn a_forgotten_relay_log_is_found() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let hosts = hosts(kind);
        let late = *hosts[0]
            .look(|server| server.transactions().last().copied())
            .as_ref()
            .unwrap();
        hosts[2].change(|server| server.receive(late));
        run(
            &hosts[2],
            &[Statement::StopReplication, Statement::ResetReplicaAll],
        );
        assert_eq!(hosts[2].look(Server::forgotten_ever), 1, "{kind:?}");
        let event = Event::Executed {
            server: key(3),
            statement: Statement::ResetReplicaAll,
            cause: None,
            forgotten: 1,
        };
        finds(nothing_forgotten::observe(&event), "nothing forgotten");
    }
}

fn ended(hosts: Vec<Host>) -> Ended {
    Ended {
        hosts,
        ledger: Ledger::default(),
        daemons: Vec::new(),
        promotions: Vec::new(),
    }
}

/// What a record says of every recovery.
const ASYNCHRONOUS: &str = "replication was asynchronous: what the primary acknowledged and no replica received is lost, if there was any";

/// What the oracle of losses says when `promoted` was opened in place of `m1` and the record is as `record` makes it; then
/// `m1` acknowledged these writes, each at its second. The promotion is at 5 s.
fn judge_losses(
    hosts: &[Host],
    promoted: u32,
    acknowledged: &[(u64, u64)],
    record: impl FnOnce(&mut Recovery),
) -> Result<(), String> {
    let mut oracle = nothing_lost::NothingLost::default();
    oracle.observe(Duration::ZERO, &begun(), hosts);
    oracle.observe(Duration::from_secs(5), &opened(promoted, 1), hosts);
    let mut of_record = recovery("u", Some(key(promoted)), Some(End::Succeeded));
    of_record.possible_loss = vec![ASYNCHRONOUS.to_owned()];
    record(&mut of_record);
    let end = Ended {
        hosts: hosts.to_vec(),
        ..ended_with(vec![of_record], Some(promoted))
    };
    for (write, at) in acknowledged {
        let at = Duration::from_secs(*at);
        end.ledger.note_acknowledged(*write, at, key(1));
    }
    oracle.end(&end)
}

#[test]
fn a_received_write_that_a_promotion_left_behind_is_found_unless_its_holder_is_named() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        // m2 holds what m3 lacks, whatever state it is in.
        let states: [fn(&mut Server); 3] = [|_| {}, Server::kill, Server::freeze];
        for state in states {
            let hosts = hosts(kind);
            hosts[0].change(Server::kill);
            hosts[1].change(state);
            run(&hosts[2], &PROMOTE);
            let judge =
                |record: &dyn Fn(&mut Recovery)| judge_losses(&hosts, 3, &[(10, 1)], record);
            finds(judge(&|_| {}), "nothing lost");
            // Named in an error, or beside others that were not read.
            finds(
                judge(&|record| record.errors = vec![format!("{} is passed over", key(2))]),
                "nothing lost",
            );
            let not_read = |name: &str| {
                vec![
                    format!("not halted and not read, may hold more: m9:3306, {name}"),
                    ASYNCHRONOUS.to_owned(),
                ]
            };
            finds(
                judge(&|record| record.possible_loss = not_read("m22:3306")),
                "nothing lost",
            );
            assert_eq!(
                judge(&|record| record.possible_loss = not_read("m2:3306")),
                Ok(())
            );
            assert_eq!(judge(&|record| record.lost = vec![key(2)]), Ok(()));
        }
        let hosts = hosts(kind);
        hosts[0].change(Server::kill);
        run(&hosts[1], &PROMOTE);
        assert_eq!(judge_losses(&hosts, 2, &[(10, 1)], |_| {}), Ok(()));
    }
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    let hosts = hosts(Kind::Mysql);
    let end = ended(hosts.clone());
    let oracle = nothing_lost::NothingLost::default();
    end.ledger
        .note_acknowledged(10, Duration::from_secs(1), key(1));
    assert_eq!(oracle.end(&end), Ok(()));
    end.ledger
        .note_acknowledged(11, Duration::from_secs(1), key(1));
    finds(oracle.end(&end), "nothing lost");
    // Nobody but the deposed primary had it: the record must say that this may be.
    hosts[0]
        .change(|server| server.write(11, Duration::ZERO))
        .unwrap();
    hosts[0].change(Server::kill);
    run(&hosts[1], &PROMOTE);
    assert_eq!(judge_losses(&hosts, 2, &[(11, 1)], |_| {}), Ok(()));
    let is_silent = |record: &mut Recovery| record.possible_loss.clear();
    finds(
        judge_losses(&hosts, 2, &[(11, 1)], is_silent),
        "nothing lost",
    );
    // Nobody had it, not even the primary.
    finds(judge_losses(&hosts, 2, &[(12, 1)], |_| {}), "nothing lost");
    // Acknowledged by a primary that was deposed before.
    assert_eq!(judge_losses(&hosts, 2, &[(12, 6)], |_| {}), Ok(()));
}

/// A power cut excuses what nobody else held, and what everybody lost with it; and nothing that somebody has.
#[test]
fn what_went_with_the_power_is_excused_and_no_more() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let judge = |is_unsynced: bool, cut: &[usize], record: &dyn Fn(&mut Recovery)| {
            let hosts = hosts(kind);
            for host in &hosts {
                let within = is_unsynced.then_some(Duration::from_millis(500));
                host.change(|server| server.set_unsynced(within));
            }
            // Nobody has it but m1, which loses all that it wrote in the last half second.
            let later = Duration::from_secs(2);
            hosts[0].change(|server| server.write(11, later)).unwrap();
            for cut in cut {
                hosts[*cut].change(|server| server.lose_power(later));
            }
            hosts[0].change(Server::kill);
            run(&hosts[1], &PROMOTE);
            judge_losses(&hosts, 2, &[(11, 2)], record)
        };
        let nothing_said = |record: &mut Recovery| record.possible_loss.clear();
        assert_eq!(judge(true, &[0], &|_| {}), Ok(()));
        finds(judge(true, &[0], &nothing_said), "nothing lost");
        // Without the power cut, it is on m1.
        assert_eq!(judge(true, &[], &|_| {}), Ok(()));
        finds(judge(false, &[0], &nothing_said), "nothing lost");
    }
    let hosts = hosts(Kind::Mysql);
    hosts[0].change(|server| server.set_unsynced(Some(Duration::from_secs(9))));
    hosts[0].change(|server| server.lose_power(Duration::from_secs(2)));
    // m1 lost all ten. m3 is promoted and lacks two that m2 has.
    run(&hosts[2], &PROMOTE);
    let named = |record: &mut Recovery| record.lost = vec![key(2)];
    assert_eq!(judge_losses(&hosts, 3, &[(8, 1)], named), Ok(()));
    finds(judge_losses(&hosts, 3, &[(10, 1)], named), "nothing lost");
}

/// It came back before anybody was promoted, and its replicas have what it lost.
#[test]
fn what_the_primary_lost_with_its_own_power_is_excused_without_a_promotion() {
    let judge = |write: u64, by: u32, opened: Option<u32>| {
        let hosts = hosts(Kind::Mysql);
        hosts[0].change(|server| server.set_unsynced(Some(Duration::from_secs(9))));
        hosts[0].change(|server| server.lose_power(Duration::from_secs(2)));
        hosts[0].change(|server| server.start(Duration::from_secs(3)));
        run(&hosts[0], &[Statement::MakeWriteable]);
        let mut oracle = nothing_lost::NothingLost::default();
        if opened.is_some() {
            oracle.observe(Duration::ZERO, &begun(), &hosts);
            oracle.observe(Duration::from_secs(5), &self::opened(1, 1), &hosts);
        }
        let end = Ended {
            hosts,
            ..ended_with(Vec::new(), None)
        };
        assert_eq!(end.primary().map(|host| host.key().clone()), Some(key(1)));
        end.ledger
            .note_acknowledged(write, Duration::from_secs(1), key(by));
        oracle.end(&end)
    };
    assert_eq!(judge(8, 1, None), Ok(()));
    finds(judge(99, 1, None), "nothing lost");
    finds(judge(8, 2, None), "nothing lost");
    finds(judge(8, 1, Some(1)), "nothing lost");
}

/// A replica receives the last transaction of m1.
fn pass_on(hosts: &[Host], replica: usize) {
    let last = hosts[0].look(|server| server.transactions().last().copied());
    hosts[replica].change(|server| server.receive(last.expect("a transaction")));
}

/// One replica has received what the primary lost with its power, and the other what that one committed in its place under the
/// same GTID; either is promoted.
#[test]
fn a_replica_that_no_gtid_tells_from_the_promoted_one_is_excused_and_no_other() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let judge = |is_lost: bool, again: bool, promoted: usize| {
            let hosts = hosts(kind);
            let seconds = Duration::from_secs;
            let write = |write, at| hosts[0].change(|server| server.write(write, at)).unwrap();
            // All have the same.
            for transaction in hosts[0].look(|server| server.transactions()[8..].to_vec()) {
                hosts[2].change(|server| server.receive(transaction));
            }
            hosts[0].change(|server| server.set_unsynced(Some(seconds(3))));
            write(21, seconds(2));
            pass_on(&hosts, 2);
            if is_lost {
                hosts[0].change(|server| server.lose_power(seconds(4)));
                hosts[0].change(|server| server.start(seconds(4)));
                run(&hosts[0], &[Statement::MakeWriteable]);
            }
            if again {
                write(31, seconds(4));
                pass_on(&hosts, 1);
            }
            hosts[0].change(Server::kill);
            let open = [Statement::StopIoThread, Statement::MakeWriteable];
            run(&hosts[promoted], &open);
            let number = u32::try_from(promoted + 1).unwrap();
            judge_losses(
                &hosts,
                number,
                &[(21, 2), (31, 4)][..1 + usize::from(again)],
                |_| {},
            )
        };
        for promoted in [1, 2] {
            assert_eq!(judge(true, true, promoted), Ok(()));
            // The primary still has both.
            finds(judge(false, true, promoted), "nothing lost");
        }
        // Its GTID says that m3 holds more.
        finds(judge(true, false, 1), "nothing lost");
    }
}

#[test]
fn a_lost_write_of_a_server_that_was_opened_again_is_found() {
    let hosts = hosts(Kind::Mysql);
    run(&hosts[1], &PROMOTE);
    run(&hosts[0], &[Statement::Fence]);
    let mut oracle = nothing_lost::NothingLost::default();
    let seconds = Duration::from_secs;
    for (at, event) in [(1, begun()), (2, opened(2, 1)), (4, opened(1, 2))] {
        oracle.observe(seconds(at), &event, &hosts);
    }
    let judge = |at, by| {
        let end = ended_with(Vec::new(), None);
        let end = Ended {
            hosts: hosts.clone(),
            ..end
        };
        end.ledger.note_acknowledged(11, seconds(at), key(by));
        oracle.end(&end)
    };
    assert_eq!(judge(3, 1), Ok(()));
    finds(judge(5, 1), "nothing lost");
    finds(judge(3, 2), "nothing lost");
}

/// What is said of a recovery of m1 that begins at this second, after looks by two of three voters, of which these reach it; this
/// was done to it before the last look.
fn judge_need(
    second: u64,
    is_whole: fn(&str, &str) -> bool,
    by_people: bool,
    done: fn(&mut Server),
) -> Result<(), String> {
    let hosts = hosts(Kind::Mysql);
    let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let daemons = [("n1", 1), ("n2", 2)].map(|(name, node)| DaemonView {
        node: NodeId(node),
        voters: voters.clone(),
        ..view(name, 7, 1)
    });
    let truth = |at| Truth {
        at: Duration::from_secs(at),
        is_whole,
        ..truth(&hosts)
    };
    let mut oracle = needed::Needed::default();
    for at in 0..second {
        if at + 1 == second {
            hosts[0].change(done);
        }
        oracle.look(&daemons, &truth(at));
    }
    let mut begins = dies();
    if let Event::Committed {
        command: Command::BeginRecovery { forced, .. },
        ..
    } = &mut begins
    {
        *forced = by_people;
    }
    oracle.observe(&begins, &truth(second))
}

#[test]
fn a_recovery_of_a_primary_that_most_voters_reach_is_found() {
    let all = |_: &str, _: &str| true;
    let nothing = |_: &mut Server| {};
    finds(judge_need(9, all, false, nothing), "needed");
    // People asked for it.
    assert_eq!(judge_need(9, all, true, nothing), Ok(()));
    // It was thought dead before the first look, and there was no time to find that it is not.
    assert_eq!(judge_need(2, all, false, nothing), Ok(()));
    // One of three reaches it.
    let one = |daemon: &str, _: &str| daemon == "n1";
    assert_eq!(judge_need(9, one, false, nothing), Ok(()));
    // It died, stands still, or lives since a moment ago.
    assert_eq!(judge_need(9, all, false, Server::kill), Ok(()));
    assert_eq!(judge_need(9, all, false, Server::freeze), Ok(()));
    let restarted = |server: &mut Server| {
        server.kill();
        server.start(Duration::from_secs(8));
    };
    assert_eq!(judge_need(9, all, false, restarted), Ok(()));
}

/// Nothing is asked of a replica that was unknown while a recovery ran, until it follows again; and of no other.
#[test]
fn a_replica_that_people_had_forgotten_is_theirs() {
    let hosts = hosts(Kind::Mysql);
    let source = hosts[0].look(Server::identity);
    for replica in &hosts[1..] {
        replica.change(|server| server.receiver_connected(&source, 1));
    }
    let forget = |number| {
        committed(Command::Forget {
            keys: vec![key(number)],
        })
    };
    let missed = |events: &[Event]| -> Vec<InstanceKey> {
        let mut oracle = left_to_people::LeftToPeople::default();
        for event in events {
            oracle.observe(event, &truth(&hosts)).unwrap();
        }
        oracle.missed().iter().cloned().collect()
    };
    assert!(missed(&[dies(), over(None)]).is_empty());
    assert!(missed(&[forget(3)]).is_empty());
    // Before it began, and while it ran; it is done with when the replica follows whoever takes writes.
    assert_eq!(missed(&[forget(3), dies()]), [key(3)]);
    assert_eq!(missed(&[dies(), forget(2)]), [key(2)]);
    assert!(missed(&[forget(3), dies(), over(None)]).is_empty());
    hosts[0].change(Server::kill);
    assert_eq!(missed(&[forget(3), dies(), over(None)]), [key(3)]);
}

/// A recovery begins, and the leader could read all servers for so many seconds before; these are on record.
fn judge_record(seconds: u64, members: &[u32]) -> Result<Vec<InstanceKey>, String> {
    let hosts = hosts(Kind::Mysql);
    let source = hosts[0].look(Server::identity);
    for replica in &hosts[1..] {
        replica.change(|server| server.receiver_connected(&source, 1));
    }
    let mut decided = Replicated::default();
    let keys = vec![key(1), key(2), key(3)];
    let commands = [
        Command::Know {
            keys,
            by_operator: false,
        },
        Command::RecordCluster {
            primary: key(1),
            identity: Some(source),
            members: members.iter().map(|number| key(*number)).collect(),
        },
    ];
    for (index, command) in (1..).zip(commands) {
        let wall = Wall::from_secs(1);
        decided.apply(view("n1", index, 1).at, &Stamped { wall, command });
    }
    let leader = DaemonView {
        leads: true,
        ..view("n1", 2, 1)
    };
    let truth = |at| Truth {
        at: Duration::from_secs(at),
        decided: &decided,
        ..truth(&hosts)
    };
    let mut oracle = left_to_people::LeftToPeople::default();
    for at in 0..=seconds {
        oracle.look(std::slice::from_ref(&leader), &truth(at));
    }
    oracle.observe(&dies(), &truth(seconds))?;
    Ok(oracle.missed().iter().cloned().collect())
}

#[test]
fn a_server_that_could_be_found_and_is_on_no_record_is_found() {
    assert_eq!(judge_record(20, &[1, 2, 3]), Ok(Vec::new()));
    assert_eq!(judge_record(3, &[1, 2]), Ok(vec![key(3)]));
    finds(judge_record(20, &[1, 2]).map(|_| ()), "left to people");
}

#[test]
fn an_errant_transaction_and_a_stray_replica_are_found() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let nobody = std::collections::BTreeSet::new();
        let good = ended(hosts(kind));
        assert_eq!(no_errant::end(&good, &nobody), Ok(()));
        let stray = ended(hosts(kind));
        stray.hosts[2].change(|server| server.replicate_from(key(2)));
        finds(no_errant::end(&stray, &nobody), "no errant");
        let errant = ended(hosts(kind));
        run(&errant.hosts[2], &[Statement::MakeWriteable]);
        for write in 20..24 {
            errant.hosts[2]
                .change(|server| server.write(write, Duration::ZERO))
                .unwrap();
        }
        run(&errant.hosts[2], &[Statement::Fence]);
        finds(no_errant::end(&errant, &nobody), "no errant");
        // What a deposed server committed is its own.
        assert_eq!(
            no_errant::end(&errant, &std::collections::BTreeSet::from([key(3)])),
            Ok(())
        );
    }
}

#[test]
fn two_leaders_and_two_votes_are_found() {
    let leads = |daemon: &str, process, term| Event::Leads {
        daemon: daemon.to_owned(),
        process,
        cluster: "c".to_owned(),
        term,
    };
    let votes = |term, candidate: &str| Event::Votes {
        daemon: "n1".to_owned(),
        voter: "1".to_owned(),
        term,
        candidate: candidate.to_owned(),
    };
    let newcomer_votes = |term, candidate: &str| Event::Votes {
        daemon: "n1".to_owned(),
        voter: "11".to_owned(),
        term,
        candidate: candidate.to_owned(),
    };
    let stands = |daemon: &str| Event::NoLongerLeads {
        daemon: daemon.to_owned(),
    };
    let check = |events: &[Event]| {
        let mut oracle = one_leader::OneLeader::default();
        let mut at = Duration::ZERO;
        events.iter().try_for_each(|event| {
            at += Duration::from_millis(50);
            oracle.observe(at, event)
        })
    };
    assert_eq!(check(&[leads("n1", 0, 3), leads("n1", 0, 3)]), Ok(()));
    finds(
        check(&[leads("n1", 0, 3), stands("n1"), leads("n2", 0, 3)]),
        "one leader",
    );
    // A restarted leader leads on in its old term.
    finds(
        check(&[leads("n1", 0, 3), stands("n1"), leads("n1", 1, 3)]),
        "one leader",
    );
    // Two believe at once that they lead.
    let two = || [leads("n1", 0, 3), leads("n2", 0, 4)];
    let later = || [votes(5, "a"), votes(5, "a")];
    finds(
        check(&two().into_iter().chain(later()).collect::<Vec<_>>()),
        "one leader",
    );
    // The first looked at itself so shortly before that it says so a little later.
    let in_time = two().into_iter().chain([stands("n1")]).chain(later());
    assert_eq!(check(&in_time.collect::<Vec<_>>()), Ok(()));
    assert_eq!(
        check(&[leads("n1", 0, 3), stands("n1"), leads("n2", 0, 4)]),
        Ok(())
    );
    assert_eq!(
        check(&[votes(3, "a"), votes(3, "a"), votes(4, "b")]),
        Ok(())
    );
    finds(check(&[votes(3, "a"), votes(3, "b")]), "one leader");
    finds(check(&[votes(3, "a"), votes(2, "a")]), "one leader");
    assert_eq!(check(&[votes(3, "a"), newcomer_votes(3, "b")]), Ok(()));
}

#[test]
fn too_many_sessions_are_found() {
    let look = |hosts: &[Host]| bounds::Bounds::default().look(hosts, 3);
    for account in [
        Account::Orchestrator,
        Account::Application("app".to_owned()),
    ] {
        let hosts = hosts(Kind::Mysql);
        assert_eq!(look(&hosts), Ok(()));
        for _ in 0..100 {
            hosts[1].change(|server| server.log_in(account.clone()));
        }
        finds(look(&hosts), "bounds");
    }
}

fn view(name: &str, index: u64, digest: u8) -> DaemonView {
    DaemonView {
        name: name.to_owned(),
        at: LogPosition {
            index,
            term: 1,
            node: NodeId(1),
        },
        digest: [digest; 32],
        leads: false,
        node: NodeId(1),
        voters: Vec::new(),
        log: LogView {
            boot: 1,
            bytes: 0,
            first: 0,
            end: index + 1,
            applied_end: index + 1,
            snapshot_end: 0,
        },
        hears_leader: true,
        recoveries: Vec::new(),
        servers_seen: 3,
        named: Vec::new(),
    }
}

/// A daemon's log, looked at every tenth of a second: it gets an entry of 100 bytes each time, and `change` cuts it and makes
/// snapshots. At one time the daemon is sent one.
fn logs(change: impl Fn(u64, &mut LogView)) -> Result<(), String> {
    let mut bounds = bounds::Bounds::default();
    bounds.log = LogBounds {
        snapshot_entries: 1_000,
        keep_entries: 20,
        bytes_max: 12_000,
        snapshot_age_max: Duration::from_secs(10),
    };
    let sent = view("n1", 400, 1).at;
    bounds.installed("n1", sent);
    let mut log = view("n1", 0, 1).log;
    (0..500).try_for_each(|look| {
        (log.end, log.applied_end) = (look + 1, look + 1);
        change(look, &mut log);
        log.bytes = 100 * (log.end - log.first);
        let daemon = DaemonView {
            log,
            ..view("n1", look, 1)
        };
        bounds.look_at_logs(Duration::from_millis(100 * look), &[daemon])
    })
}

#[test]
fn a_log_that_is_cut_behind_snapshots_keeps_entries() {
    let keeps = |kept: u64| {
        move |look: u64, log: &mut LogView| {
            if look % 30 == 29 {
                log.snapshot_end = look;
                log.first = log.first.max(look.saturating_sub(kept));
            }
        }
    };
    assert_eq!(logs(keeps(20)), Ok(()));
    finds(logs(keeps(5)), "bounds: n1 cut its log up to 414");
    // A snapshot that is sent takes the place of what was there.
    let is_sent = |look: u64, log: &mut LogView| {
        keeps(20)(look, log);
        if look == 401 {
            (log.first, log.snapshot_end) = (401, 401);
        }
    };
    assert_eq!(logs(is_sent), Ok(()));
}

#[test]
fn a_log_that_is_too_large_or_cut_too_far_is_found() {
    let leaves = |left: u64| {
        move |_: u64, log: &mut LogView| {
            if log.end - log.first > 125 {
                log.first = log.end - left;
                log.snapshot_end = log.first + 5;
            }
        }
    };
    assert_eq!(logs(leaves(60)), Ok(()));
    finds(logs(leaves(5)), "bounds: n1 cut its log to 500 bytes");
    let never = |look: u64, log: &mut LogView| log.snapshot_end = look;
    finds(logs(never), "bounds: the log of n1 holds");
    // What comes while a cut waits is left to the next one, which comes as soon.
    let trails = |looks: u64| {
        move |look: u64, log: &mut LogView| {
            log.snapshot_end = look;
            if look.is_multiple_of(looks) {
                log.first = log.first.max(log.end.saturating_sub(130));
            }
        }
    };
    assert_eq!(logs(trails(45)), Ok(()));
    finds(logs(trails(55)), "bounds: the log of n1 holds");
}

/// A daemon that was away gets many entries between two looks.
#[test]
fn a_log_that_was_too_large_for_a_moment_may_be_cut() {
    let gets = |count: u64, left: u64| {
        move |look: u64, log: &mut LogView| {
            if look < 420 {
                log.first = log.first.max(look.saturating_sub(20));
            } else {
                log.end += count;
                log.applied_end = log.end;
                log.first = log.first.max(log.end - left);
            }
            log.snapshot_end = log.end;
        }
    };
    assert_eq!(logs(gets(100, 110)), Ok(()));
    finds(logs(gets(10, 15)), "bounds: n1 cut its log up to 416");
}

#[test]
fn an_old_snapshot_is_found_where_there_is_something_to_cover() {
    let holds = |end: u64| {
        move |_: u64, log: &mut LogView| {
            (log.end, log.applied_end, log.snapshot_end) = (end, end, 100);
        }
    };
    assert_eq!(logs(holds(100)), Ok(()));
    finds(logs(holds(101)), "bounds: the snapshot of n1 is");
    // It is as old as it may be long before it is needed.
    let late = |look: u64, log: &mut LogView| holds(if look < 460 { 100 } else { 101 })(look, log);
    assert_eq!(logs(late), Ok(()));
}

#[test]
fn a_difference_at_one_position_is_found_even_later() {
    let mut digests = same_digest::Digests::default();
    digests.look(&[view("n1", 7, 1), view("n2", 6, 9)]).unwrap();
    digests.look(&[view("n1", 8, 2), view("n2", 7, 1)]).unwrap();
    finds(
        digests.look(&[view("n2", 8, 3)]),
        "same digest: n1 and n2 differ",
    );
}

/// A world whose lists have one hook each.
fn told(events: &[Event]) -> Result<(), String> {
    let mut oracles = Oracles::of(HooksSetup {
        each: 1,
        ..HooksSetup::default()
    });
    let hosts = hosts(Kind::Mysql);
    hosts[0].change(Server::kill);
    for event in events {
        if matches!(event, Event::Executed { .. }) {
            run(&hosts[1], &PROMOTE);
        }
        oracles.observe(event, &truth(&hosts))?;
    }
    Ok(())
}

fn leads(daemon: &str, term: u64) -> Event {
    Event::Leads {
        daemon: daemon.to_owned(),
        process: 0,
        cluster: "c".to_owned(),
        term,
    }
}

fn dies() -> Event {
    let Event::Committed { command, .. } = begun() else {
        panic!("a commit");
    };
    let Command::BeginRecovery { .. } = &command else {
        panic!("a beginning");
    };
    let mut command = command;
    if let Command::BeginRecovery { purpose, .. } = &mut command {
        *purpose = Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        };
    }
    committed(command)
}

const fn first(list: HookList) -> Hook {
    Hook { list, place: 0 }
}

/// The step is the list's place among all, so that each hook has its own.
fn step_of(hook: Hook) -> StepId {
    StepId(10 + hook.list as u64)
}

fn hook_intended(list: HookList, term: u64) -> Event {
    let hook = first(list);
    committed(Command::Intend {
        uid: uid(),
        epoch: epoch(term),
        stage: Stage::PreHooks,
        candidate: None,
        ending: None,
        steps: vec![Step {
            id: step_of(hook),
            kind: StepKind::Hook,
            server: key(1),
            identity: None,
            lane: Lane::Act,
            statements: vec![Statement::RunHook { hook }],
            deadline: Duration::from_secs(1),
            read_after: false,
        }],
        lines: Vec::new(),
    })
}

fn hook_begins(daemon: &str, list: HookList) -> Event {
    let hook = first(list);
    let is_after = matches!(list, HookList::PostPrimaryFailover | HookList::PostFailover);
    let mut environment = std::collections::BTreeMap::from([
        ("ORC_IDEMPOTENCY_KEY", format!("{}/{hook}", uid())),
        ("ORC_RECOVERY_UID", uid().to_string()),
        ("ORC_ORCHESTRATOR_HOST", daemon.to_owned()),
        ("ORC_FAILED_HOST", "m1".to_owned()),
        ("ORC_IS_SUCCESSFUL", is_after.to_string()),
    ]);
    if is_after {
        environment.insert("ORC_SUCCESSOR_HOST", "m2".to_owned());
    }
    Event::HookBegan {
        daemon: daemon.to_owned(),
        hook,
        environment,
    }
}

fn hook_ends(daemon: &str, list: HookList, is_done: bool) -> Event {
    let hook = first(list);
    Event::HookEnded {
        daemon: daemon.to_owned(),
        hook,
        key: format!("{}/{hook}", uid()),
        is_done,
    }
}

#[test]
fn hooks_as_they_are_to_be_pass() {
    use HookList::{PostFailover, PostPrimaryFailover, PreFailover};
    assert_eq!(
        told(&[
            leads("n1", 1),
            dies(),
            hook_intended(PreFailover, 1),
            hook_begins("n1", PreFailover),
            // The leader ends; the next one runs it once more.
            leads("n2", 2),
            hook_intended(PreFailover, 2),
            hook_begins("n2", PreFailover),
            hook_ends("n2", PreFailover, true),
            intended(2, 2),
            opened(2, 2),
            hook_intended(PostPrimaryFailover, 2),
            hook_begins("n2", PostPrimaryFailover),
            hook_ends("n2", PostPrimaryFailover, false),
            hook_intended(PostFailover, 2),
            hook_begins("n2", PostFailover),
        ]),
        Ok(())
    );
}

#[test]
fn hooks_out_of_their_turn_are_found() {
    use HookList::{PostFailover, PostPrimaryFailover, PreFailover};
    let before = |more: Vec<Event>| {
        let mut events = vec![leads("n1", 1), dies(), hook_intended(PreFailover, 1)];
        events.extend(more);
        told(&events)
    };
    let finds = |found, why: &str| {
        let text: String = Result::<(), String>::unwrap_err(found);
        assert!(
            text.starts_with("hooks in order: ") && text.contains(why),
            "{text}, wanted {why}"
        );
    };
    finds(
        told(&[leads("n1", 1), dies(), hook_begins("n1", PreFailover)]),
        "nothing committed",
    );
    finds(
        before(vec![
            hook_begins("n1", PreFailover),
            hook_ends("n1", PreFailover, false),
            hook_begins("n1", PreFailover),
        ]),
        "nothing committed",
    );
    finds(
        before(vec![leads("n2", 2), hook_begins("n1", PreFailover)]),
        "n2 leads in term 2",
    );
    // A change on a server while the hook runs, and after it said no.
    for said in [None, Some(hook_ends("n1", PreFailover, false))] {
        let mut events = vec![hook_begins("n1", PreFailover)];
        events.extend(said);
        events.extend([intended(2, 1), opened(2, 1)]);
        finds(before(events), "was done");
    }
    finds(
        before(vec![
            hook_intended(PostPrimaryFailover, 1),
            hook_begins("n1", PostPrimaryFailover),
        ]),
        "None was promoted",
    );
    finds(
        before(vec![
            hook_begins("n1", PreFailover),
            hook_ends("n1", PreFailover, true),
            intended(2, 1),
            opened(2, 1),
            hook_intended(PostFailover, 1),
            hook_begins("n1", PostFailover),
        ]),
        "PostMasterFailoverProcesses[0] was not run",
    );
    finds(
        before(vec![
            hook_intended(HookList::PostUnsuccessfulFailover, 1),
            hook_begins("n1", HookList::PostUnsuccessfulFailover),
        ]),
        "its end is None",
    );
    finds(
        before(vec![
            hook_begins("n1", PreFailover),
            hook_ends("n1", PreFailover, true),
            committed(Command::Settle {
                uid: uid(),
                epoch: epoch(1),
                outcomes: vec![(step_of(first(PreFailover)), Outcome::Done)],
                lines: Vec::new(),
            }),
            leads("n2", 2),
            hook_intended(PreFailover, 2),
            hook_begins("n2", PreFailover),
        ]),
        "on record as done",
    );
}

/// What the oracle of the store says when the cluster `shop` had `m1` as primary from 1 s on and, in term 2, `m2` from 2 s on,
/// and then this happens.
fn judge_store(events: &[Event]) -> Result<(), String> {
    let record = |primary| Command::RecordCluster {
        primary: key(primary),
        identity: None,
        members: vec![key(1), key(2), key(3)],
    };
    let alias = Command::SetClusterAlias {
        cluster_name: key(1).to_string(),
        alias: "shop".to_owned(),
        by_operator: true,
    };
    let mut decided = Replicated::default();
    let mut oracle = publications::Publications::default();
    let entries = [(1, 1, 1, record(1)), (2, 1, 1, alias), (3, 2, 2, record(2))];
    for (index, term, second, command) in entries {
        let at = LogPosition {
            term,
            ..view("n1", index, 1).at
        };
        let stamped = Stamped {
            wall: Wall::from_secs(second),
            command,
        };
        decided.apply(at, &stamped);
        let truth = Truth {
            decided: &decided,
            ..truth(&[])
        };
        for event in [votes(term), committed(stamped.command)] {
            oracle.observe(&event, &truth)?;
        }
    }
    let truth = Truth {
        decided: &decided,
        ..truth(&[])
    };
    events
        .iter()
        .try_for_each(|event| oracle.observe(event, &truth))
}

fn votes(term: u64) -> Event {
    Event::Votes {
        daemon: "n1".to_owned(),
        voter: "v1".to_owned(),
        term,
        candidate: "v1".to_owned(),
    }
}

/// Said in term 2.
fn says(key: &str, value: &str, decided: u64) -> Event {
    says_in(2, key, value, decided)
}

fn says_in(term: u64, key: &str, value: &str, decided: u64) -> Event {
    Event::Published {
        key: format!("mysql/master/{key}"),
        value: value.to_owned(),
        version: Version { decided, term },
    }
}

#[test]
fn a_store_that_goes_backwards_is_found() {
    assert_eq!(
        judge_store(&[
            says_in(1, "shop", "m1:3306", 1_000),
            opened(2, 1),
            says("shop", "m2:3306", 2_000),
            says("shop/hostname", "m2", 2_000),
            opened(1, 2),
            says("shop", "m1:3306", 2_000)
        ]),
        Ok(())
    );
    finds(
        judge_store(&[
            says("shop", "m2:3306", 2_000),
            says("shop", "m1:3306", 1_000),
        ]),
        "publications",
    );
    finds(
        judge_store(&[
            opened(2, 1),
            says("shop", "m2:3306", 2_000),
            says("shop", "m1:3306", 2_000),
        ]),
        "publications",
    );
}

/// Of one primary more may be said in an earlier term, of who it is not.
#[test]
fn a_store_that_goes_back_to_an_earlier_term_is_found() {
    let later = |key, value| [votes(3), says_in(3, key, value, 2_000)];
    let [vote, said] = later("shop", "m1:3306");
    finds(
        judge_store(&[vote, said, says("shop", "m2:3306", 2_000)]),
        "publications",
    );
    let [vote, said] = later("shop/ipv4", "10.0.0.1");
    assert_eq!(
        judge_store(&[vote, said, says("shop/ipv4", "10.0.0.2", 2_000)]),
        Ok(())
    );
}

#[test]
fn a_publication_that_nobody_decided_is_found() {
    for (key, value, decided) in [
        ("shop", "m3:3306", 2_000),
        ("shop", "m2:3306", 1_500),
        ("shop", "m2:3306", 9_000),
        ("shop/hostname", "m3", 2_000),
        ("shop/port", "3307", 2_000),
        ("shop/weight", "1", 2_000),
        ("shelf", "m2:3306", 2_000),
    ] {
        finds(judge_store(&[says(key, value, decided)]), "publications");
    }
    for term in [1, 3] {
        finds(
            judge_store(&[says_in(term, "shop", "m2:3306", 2_000)]),
            "publications",
        );
    }
    let addressless = [
        says("shop/ipv4", "", 2_000),
        says("shop/port", "3306", 2_000),
    ];
    assert_eq!(judge_store(&addressless), Ok(()));
}

#[test]
fn another_entry_at_one_place_is_found() {
    let at = |index, term| LogPosition {
        index,
        term,
        node: NodeId(1),
    };
    let mut oracle = same_log::SameLog::default();
    let mut given = |daemon, at, bytes: &[u8]| oracle.given(daemon, at, bytes);
    assert_eq!(given("n1", at(1, 1), b"one"), Ok(true));
    assert_eq!(given("n1", at(3, 1), b"three"), Ok(true));
    // Another daemon, and another life of the same.
    assert_eq!(given("n2", at(1, 1), b"one"), Ok(false));
    assert_eq!(given("n1", at(1, 1), b"one"), Ok(false));
    for (place, bytes) in [
        (at(1, 1), b"eno".as_slice()),
        (at(1, 2), b"one"),
        (at(2, 1), b"two"),
    ] {
        finds(given("n2", place, bytes).map(|_| ()), "same log");
    }
}

#[test]
fn an_end_without_a_word_of_what_to_do_is_found() {
    let full = "cannot write /n1/raft: no space left on device; make room, then start again";
    assert_eq!(last_words::judge("n1", full), Ok(()));
    finds(
        last_words::judge("n1", "cannot write /n1/raft: no space left on device"),
        "last words",
    );
}

/// What is missing of a cluster at rest: three daemons, `m1` with two replicas; then these are changed.
fn missing(change: impl FnOnce(&mut Vec<DaemonView>, &[Host], &mut progress::Rest<'_>)) -> String {
    let hosts = hosts(Kind::Mysql);
    let source = hosts[0].look(Server::identity);
    for replica in &hosts[1..] {
        replica.change(|server| server.receiver_connected(&source, 1));
    }
    let mut views: Vec<DaemonView> = (1..=3)
        .map(|number| {
            let mut view = view(&format!("n{number}"), 7, 1);
            view.node = NodeId(number);
            view.voters = vec![NodeId(1), NodeId(2), NodeId(3)];
            view.leads = number == 2;
            view
        })
        .collect();
    let (ends, deposed) = Default::default();
    let members = ["n1", "n2", "n3"].map(str::to_owned);
    let mut rest = progress::Rest {
        members: &members,
        expected_ends: &ends,
        are_the_voters: true,
        hosts: &hosts,
        deposed: &deposed,
        store: None,
        since_written: Some(Duration::from_millis(20)),
        struck: None,
    };
    change(&mut views, &hosts, &mut rest);
    rest.missing(&views).unwrap_or_default()
}

#[track_caller]
fn is(found: &str, wanted: &str) {
    assert!(found.starts_with(wanted), "'{found}', wanted '{wanted}'");
}

#[test]
fn what_is_missing_of_the_daemons_is_named() {
    assert_eq!(missing(|_, _, _| ()), "");
    let found = missing(|views, _, _| drop(views.pop()));
    is(&found, "daemons: n3");
    let found = missing(|views, _, _| {
        views[1].leads = false;
        views.push(view("n4", 7, 1));
        views[3].leads = true;
    });
    is(&found, "members: n4 leads");
    let found = missing(|views, _, _| views[0].voters.push(NodeId(4)));
    is(&found, "members: the voters");
    let found = missing(|views, _, _| views[1].leads = false);
    is(&found, "leader: not one");
    let found = missing(|views, _, _| views[0].leads = true);
    is(&found, "leader: not one");
    let found = missing(|views, _, _| views[2].hears_leader = false);
    is(&found, "leader: n3 does not hear");
    let found = missing(|views, _, _| views[2].at.index = 6);
    is(&found, "position");
    let found = missing(|views, _, _| views[0].recoveries = vec![recovery("u", None, None)]);
    is(&found, "recovery");
    let found = missing(|views, _, _| {
        let mut over = recovery("u", None, Some(End::Succeeded));
        over.stage = Stage::PostHooks;
        views[0].recoveries = vec![over];
    });
    is(&found, "hooks");
}

#[test]
fn what_is_missing_of_the_servers_is_named() {
    let found = missing(|_, hosts, _| hosts[0].change(Server::kill));
    is(&found, "primary: not one");
    let found = missing(|_, hosts, _| run(&hosts[1], &PROMOTE));
    is(&found, "primary: not one");
    let found = missing(|_, _, rest| rest.struck = Some("m1"));
    is(&found, "primary: m1:3306 was struck");
    let found = missing(|_, hosts, _| run(&hosts[2], &[Statement::StopSqlThread]));
    is(&found, "replica: m3");
    let stray = |hosts: &[Host]| hosts[2].change(|server| server.replicate_from(key(2)));
    let found = missing(|_, hosts, _| stray(hosts));
    is(&found, "replica: m3");
    let found = missing(|_, _, rest| rest.since_written = None);
    is(&found, "writes");
    let found = missing(|_, _, rest| rest.since_written = Some(Duration::from_secs(2)));
    is(&found, "writes");
    let store: &Store = Box::leak(Box::default());
    let found = missing(|_, _, rest| rest.store = Some(store));
    is(&found, "publications: the cluster");
    let found = missing(|views, _, rest| {
        views[0].named = vec![("shop".to_owned(), key(1))];
        rest.store = Some(store);
    });
    is(&found, "publications: shop is None");
    // A replica that is lost or down is not waited for.
    let lost = missing(|views, hosts, _| {
        stray(hosts);
        let mut over = recovery("u", None, Some(End::Succeeded));
        over.stage = Stage::Closed;
        over.lost = vec![key(3)];
        views[0].recoveries = vec![over];
    });
    assert_eq!(lost, "");
    let killed = missing(|_, hosts, _| {
        stray(hosts);
        hosts[2].change(Server::kill);
    });
    assert_eq!(killed, "");
}

#[test]
fn a_promotion_before_the_drain_is_found() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let hosts = hosts(kind);
        hosts[0].change(Server::kill);
        let next = hosts[0].look(|server| server.transactions()[8]);
        hosts[2].change(|server| server.receive(next));
        run(&hosts[2], &[Statement::MakeWriteable]);
        let events = [begun(), intended(3, 1), opened(3, 1)];
        finds(check(&hosts, &events), "drained first");
        hosts[2].change(|server| server.apply(Duration::ZERO));
        assert_eq!(check(&hosts, &events), Ok(()), "{kind:?}");
    }
}

#[test]
fn a_replica_that_does_not_follow_and_is_not_named_is_found() {
    let ends = |lost: &[u32]| {
        committed(Command::EndRecovery {
            uid: uid(),
            epoch: epoch(1),
            end: End::Succeeded,
            successor: Some(key(2)),
            successor_identity: None,
            successor_alias: String::new(),
            lost: lost.iter().map(|number| key(*number)).collect(),
            participants: Vec::new(),
            lines: Vec::new(),
        })
    };
    let named = committed(Command::Remark {
        uid: uid(),
        epoch: epoch(1),
        lines: Vec::new(),
        errors: vec![format!("{} does not follow", key(3))],
        possible_loss: Vec::new(),
    });
    let check = |hosts: &[Host], events: &[&Event]| {
        let mut oracle = replicas_follow::ReplicasFollow::default();
        let mut events = events.iter();
        events.try_for_each(|event| oracle.observe(event, hosts))
    };
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let hosts = hosts(kind);
        hosts[0].change(Server::kill);
        // Of another source, and of none, nothing is said here.
        assert_eq!(check(&hosts, &[&ends(&[])]), Ok(()), "{kind:?}");
        hosts[2].change(|server| server.replicate_from(key(2)));
        finds(check(&hosts, &[&ends(&[])]), "replicas follow");
        assert_eq!(check(&hosts, &[&ends(&[3])]), Ok(()), "{kind:?}");
        assert_eq!(check(&hosts, &[&named, &ends(&[])]), Ok(()), "{kind:?}");
        let identity = hosts[1].look(Server::identity);
        hosts[2].change(|server| server.receiver_connected(&identity, 2));
        finds(check(&hosts, &[&ends(&[])]), "replicas follow");
        hosts[2].change(Server::log_arrives);
        assert_eq!(check(&hosts, &[&ends(&[])]), Ok(()), "{kind:?}");
        // The promoted server purged what it lacks.
        hosts[1].change(Server::purge_logs);
        let held = hosts[2].look(|server| server.receiver_target().unwrap().1);
        let refusal = hosts[1].look(|server| server.dump(&held, 0)).unwrap_err();
        assert_eq!(refusal.code, 1236, "{kind:?}");
        hosts[2].change(|server| server.receiver_refused(&refusal));
        finds(check(&hosts, &[&ends(&[])]), "replicas follow");
    }
}

/// A recovery of `m1`, as a record shows it.
fn recovery(name: &str, successor: Option<InstanceKey>, end: Option<End>) -> Recovery {
    Recovery {
        uid: Uid(name.to_owned()),
        number: 1,
        purpose: Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        },
        cluster: ClusterKey(1),
        cluster_name: String::new(),
        cluster_alias: String::new(),
        server: key(1),
        identity: None,
        analysis: String::new(),
        replicas: Vec::new(),
        owner: epoch(1),
        processing_node: String::new(),
        processing_token: String::new(),
        began: Wall::from_secs(1),
        stage: Stage::Regroup,
        steps: std::collections::BTreeMap::new(),
        candidate: None,
        successor,
        successor_alias: String::new(),
        lost: Vec::new(),
        participants: Vec::new(),
        possible_loss: Vec::new(),
        errors: Vec::new(),
        lines: Vec::new(),
        end: end.map(|end| (Wall::from_secs(2), end)),
        acknowledged: None,
        detection: 0,
        was_read_only: false,
        ending: None,
    }
}

/// The end of a run whose record shows this, and in which `u` opened this server.
fn ended_with(recoveries: Vec<Recovery>, opened: Option<u32>) -> Ended {
    let mut view = view("n1", 7, 1);
    view.recoveries = recoveries;
    Ended {
        daemons: vec![view],
        promotions: opened
            .map(|server| Promotion {
                at: Duration::from_secs(9),
                server: key(server),
                uid: uid(),
            })
            .into_iter()
            .collect(),
        ..ended(hosts(Kind::Mysql))
    }
}

#[test]
fn two_recoveries_of_one_cluster_are_found() {
    let of = |recoveries: Vec<Recovery>| ended_with(recoveries, None).daemons;
    let runs = |name: &str| recovery(name, None, None);
    assert_eq!(one_recovery::look(&of(vec![runs("u")])), Ok(()));
    finds(
        one_recovery::look(&of(vec![runs("u"), runs("v")])),
        "one recovery",
    );
    let over = recovery("u", Some(key(2)), Some(End::Succeeded));
    assert_eq!(one_recovery::look(&of(vec![over, runs("v")])), Ok(()));
    let mut elsewhere = runs("v");
    elsewhere.cluster = ClusterKey(9);
    finds(
        one_recovery::look(&of(vec![runs("u"), elsewhere.clone()])),
        "one recovery",
    );
    elsewhere.server = key(9);
    assert_eq!(one_recovery::look(&of(vec![runs("u"), elsewhere])), Ok(()));
}

#[test]
fn a_record_that_tells_another_story_is_found() {
    let succeeded = |successor| recovery("u", Some(key(successor)), Some(End::Succeeded));
    let failed = || {
        let reason = String::from("nobody can");
        recovery("u", None, Some(End::Failed { reason }))
    };
    let judge = |recovery, opened| one_recovery::end(&ended_with(vec![recovery], opened));
    assert_eq!(judge(succeeded(2), Some(2)), Ok(()));
    assert_eq!(judge(failed(), None), Ok(()));
    // It runs for ever, names another server than was opened, or knows nothing of it.
    finds(judge(recovery("u", None, None), None), "one recovery");
    finds(judge(succeeded(3), Some(2)), "one recovery");
    finds(judge(failed(), Some(2)), "one recovery");
    // It names one that was never opened, or nobody at all.
    finds(judge(succeeded(2), None), "one recovery");
    let nobody = || recovery("u", None, Some(End::Succeeded));
    finds(judge(nobody(), None), "one recovery");
    finds(judge(nobody(), Some(2)), "one recovery");
    // It opened two; one that is opened again is one.
    let opened = |servers: &[u32]| {
        let mut end = ended_with(vec![succeeded(2)], None);
        end.promotions = (servers.iter())
            .map(|server| Promotion {
                at: Duration::from_secs(9),
                server: key(*server),
                uid: uid(),
            })
            .collect();
        one_recovery::end(&end)
    };
    assert_eq!(opened(&[2, 2]), Ok(()));
    finds(opened(&[3, 2]), "one recovery");
}

#[test]
fn a_daemon_on_the_backend_of_another_cluster_is_found() {
    let cluster = |byte| Some(ClusterId([byte; 32]));
    for (held, own) in [(None, None), (None, cluster(1)), (cluster(1), cluster(1))] {
        assert_eq!(own_cluster::began("n1", held, own), Ok(()));
    }
    // It waits to be let in, and nothing is taken from its rows.
    assert_eq!(own_cluster::began("n1", cluster(2), None), Ok(()));
    finds(
        own_cluster::began("n1", cluster(2), cluster(1)),
        "own cluster",
    );
}

#[test]
fn what_was_committed_and_is_gone_is_found() {
    let mut oracle = nothing_uncommitted::NothingUncommitted::default();
    oracle.observe(&Event::Seated {
        at: view("n1", 7, 1).at,
    });
    let end = ended_with(Vec::new(), None);
    assert_eq!(oracle.end(&end), Ok(()));
    oracle.observe(&Event::Seated {
        at: view("n1", 8, 1).at,
    });
    finds(oracle.end(&end), "nothing uncommitted");
    // What is committed after the end was called is not asked for.
    let mut called = nothing_uncommitted::NothingUncommitted::default();
    called.observe(&Event::Seated {
        at: view("n1", 7, 1).at,
    });
    assert_eq!(called.call().map(|at| at.index), Some(7));
    called.observe(&Event::Seated {
        at: view("n1", 8, 1).at,
    });
    assert_eq!(called.end(&end), Ok(()));
    // A daemon that is no part of the cluster may lag.
    let mut stranger = end;
    stranger.daemons[0].hears_leader = false;
    assert_eq!(oracle.end(&stranger), Ok(()));
}

#[test]
fn a_leader_that_begins_where_something_was_committed_is_found() {
    let at = |index, term| LogPosition {
        index,
        term,
        node: NodeId(1),
    };
    let mut oracle = nothing_uncommitted::NothingUncommitted::default();
    let begins = |oracle: &nothing_uncommitted::NothingUncommitted, index, term| {
        oracle.begins("n2", at(index, term))
    };
    assert_eq!(begins(&oracle, 1, 1), Ok(()));
    oracle.observe(&Event::Refused { at: at(7, 2) });
    // The one that came after it, and those that came before and are given to whoever is behind.
    for (index, term) in [(8, 3), (2, 1), (5, 2)] {
        assert_eq!(begins(&oracle, index, term), Ok(()), "{index}@{term}");
    }
    for (index, term) in [(7, 3), (4, 3)] {
        finds(begins(&oracle, index, term), "nothing uncommitted");
    }
    oracle.cut(at(3, 2));
    assert_eq!(begins(&oracle, 4, 1), Ok(()));
}

#[test]
fn an_end_without_one_primary_is_found() {
    let judge = |end: &Ended| one_primary::OnePrimary::default().end(end);
    let nobody = std::collections::BTreeSet::new();
    let end = ended(hosts(Kind::Mysql));
    assert_eq!(judge(&end), Ok(()));
    // A deposed server that was not fenced counts at the end.
    run(&end.hosts[1], &PROMOTE);
    finds(judge(&end), "one primary");
    finds(no_errant::end(&end, &nobody), "no errant");
    end.hosts[0].change(Server::kill);
    assert_eq!(judge(&end), Ok(()));
    end.hosts[1].change(Server::kill);
    finds(judge(&end), "one primary");
}

#[test]
fn a_hook_that_was_never_run_is_found() {
    let setup = HooksSetup {
        each: 1,
        ..HooksSetup::default()
    };
    let judge = |setup, end| {
        let mut oracles = Oracles::of(setup);
        oracles.observe(&dies(), &truth(&[])).unwrap();
        let recovery = recovery("u", Some(key(2)), Some(end));
        oracles
            .hooks_in_order
            .end(&ended_with(vec![recovery], Some(2)))
    };
    assert_eq!(judge(HooksSetup::default(), End::Succeeded), Ok(()));
    finds(judge(setup, End::Succeeded), "hooks in order");
    let reason = || String::from("nobody can");
    finds(
        judge(setup, End::Failed { reason: reason() }),
        "hooks in order",
    );
    finds(
        judge(setup, End::Undone { reason: reason() }),
        "hooks in order",
    );
}

/// On no record, or begun under this epoch.
fn detected(daemon: &str, number: u64, under: Option<u64>) -> Event {
    let command = Command::RegisterDetection(Detection {
        number: 0,
        server: key(1),
        analysis: String::new(),
        cluster_name: String::new(),
        cluster_alias: String::new(),
        replicas: Vec::new(),
        is_actionable: true,
        is_active: true,
        at: Wall::from_secs(1),
        processing_node: daemon.to_owned(),
        processing_token: format!("token-of-{daemon}"),
        telling: under.map(|term| Telling::begun(epoch(term))),
    });
    answered(command, Answer::Numbered(number))
}

fn tells(number: u64, term: u64, ended: Option<Outcome>, next: Option<u32>) -> Event {
    committed(Command::TellOfDetection {
        number,
        epoch: epoch(term),
        run: 1,
        ended,
        next,
    })
}

fn detection_begins(daemon: &str, number: u64, place: u32) -> Event {
    let hook = of_detection(place);
    Event::HookBegan {
        daemon: daemon.to_owned(),
        hook,
        environment: std::collections::BTreeMap::from([
            ("ORC_IDEMPOTENCY_KEY", format!("detection-{number}/{hook}")),
            ("ORC_ORCHESTRATOR_HOST", daemon.to_owned()),
            ("ORC_FAILED_HOST", "m1".to_owned()),
        ]),
    }
}

fn detection_ends(daemon: &str, number: u64, place: u32, is_done: bool) -> Event {
    let hook = of_detection(place);
    Event::HookEnded {
        daemon: daemon.to_owned(),
        hook,
        key: format!("detection-{number}/{hook}"),
        is_done,
    }
}

const fn of_detection(place: u32) -> Hook {
    Hook {
        list: HookList::OnFailureDetection,
        place,
    }
}

#[test]
fn the_hooks_of_a_detection_on_no_record_come_before_those_of_its_recovery_and_of_no_other() {
    let pre = HookList::PreFailover;
    let before = || {
        vec![
            leads("n1", 1),
            detected("n1", 1, None),
            detection_begins("n1", 1, 0),
            dies(),
        ]
    };
    let and = |more: Vec<Event>| told(&before().into_iter().chain(more).collect::<Vec<_>>());
    finds(
        and(vec![hook_intended(pre, 1), hook_begins("n1", pre)]),
        "hooks in order",
    );
    assert_eq!(
        and(vec![
            detection_ends("n1", 1, 0, true),
            hook_intended(pre, 1),
            hook_begins("n1", pre),
        ]),
        Ok(())
    );
    // The next leader takes the recovery over, and detects something of its own at the same server.
    assert_eq!(
        and(vec![
            leads("n2", 2),
            detected("n2", 2, None),
            detection_begins("n2", 2, 0),
            hook_intended(pre, 2),
            hook_begins("n2", pre),
        ]),
        Ok(())
    );
    finds(
        and(vec![leads("n2", 2), detection_begins("n2", 1, 0)]),
        "hooks in order",
    );
}

#[test]
fn the_hooks_of_a_detection_are_run_as_its_record_says() {
    let pre = HookList::PreFailover;
    let before = || {
        vec![
            leads("n1", 1),
            detected("n1", 1, Some(1)),
            detection_begins("n1", 1, 0),
            dies(),
            leads("n2", 2),
        ]
    };
    let and = |more: Vec<Event>| told(&before().into_iter().chain(more).collect::<Vec<_>>());
    let again = || vec![tells(1, 2, None, Some(0)), detection_begins("n2", 1, 0)];
    let and_again = |more: Vec<Event>| and(again().into_iter().chain(more).collect());
    let done = || Some(Outcome::Done);
    assert_eq!(
        and_again(vec![
            detection_ends("n2", 1, 0, true),
            tells(1, 2, done(), Some(1)),
            detection_begins("n2", 1, 1),
            detection_ends("n2", 1, 1, true),
            tells(1, 2, done(), None),
            hook_intended(pre, 2),
            hook_begins("n2", pre),
        ]),
        Ok(())
    );
    for (found, why) in [
        (
            and(vec![detection_begins("n2", 1, 0)]),
            "nothing committed in term 2",
        ),
        (
            and_again(vec![detection_begins("n2", 1, 0)]),
            "has not ended",
        ),
        // The recovery goes on without them.
        (
            and(vec![hook_intended(pre, 2), hook_begins("n2", pre)]),
            "of detection 1 is not done",
        ),
        (
            and_again(vec![hook_intended(pre, 2), hook_begins("n2", pre)]),
            "of detection 1 is not done",
        ),
        // Out of order.
        (
            and_again(vec![
                detection_ends("n2", 1, 0, false),
                tells(1, 2, done(), Some(1)),
                detection_begins("n2", 1, 1),
            ]),
            "is not done",
        ),
        // Done on record, and by another leader once more.
        (
            and_again(vec![
                detection_ends("n2", 1, 0, true),
                tells(1, 2, done(), Some(1)),
                leads("n3", 3),
                tells(1, 3, None, Some(0)),
                detection_begins("n3", 1, 0),
            ]),
            "on record as done",
        ),
    ] {
        let text: String = found.expect_err(why);
        assert!(
            text.starts_with("hooks in order: ") && text.contains(why),
            "{text}, wanted {why}"
        );
    }
}

/// Whoever leads at the end has taken up what an earlier leader had begun.
#[test]
fn hooks_of_a_detection_that_no_next_leader_took_up_are_found() {
    let judge = |events: &[Event]| {
        let mut oracle = hooks_in_order::HooksInOrder::default();
        for event in events {
            oracle.observe(event)?;
        }
        oracle.end(&ended(Vec::new()))
    };
    let and = |more: Vec<Event>| {
        let mut events = vec![
            leads("n1", 1),
            detected("n1", 1, Some(1)),
            detection_begins("n1", 1, 0),
        ];
        events.extend(more);
        judge(&events)
    };
    assert_eq!(and(Vec::new()), Ok(()));
    finds(and(vec![leads("n2", 2)]), "hooks in order");
    assert_eq!(
        and(vec![
            leads("n2", 2),
            tells(1, 2, None, Some(0)),
            detection_begins("n2", 1, 0),
        ]),
        Ok(())
    );
    // Its end is known, or two leaders tried.
    assert_eq!(
        and(vec![detection_ends("n1", 1, 0, false), leads("n2", 2)]),
        Ok(())
    );
    assert_eq!(
        and(vec![
            leads("n2", 2),
            tells(1, 2, None, Some(0)),
            leads("n3", 3),
        ]),
        Ok(())
    );
}

#[test]
fn an_answer_without_its_commit_is_found() {
    let mut oracle = Acknowledged::default();
    let key = key(1);
    let put = |value: &str| Command::PutTag {
        key: key.clone(),
        name: "k".to_owned(),
        value: value.to_owned(),
    };
    let ask = format!("/api/tag/{}/{}?tag=k=v", key.host, key.port);
    let second = Duration::from_secs;
    oracle.observe(second(1), &committed(put("v")));
    oracle.observe(second(3), &committed(put("other")));
    assert_eq!(oracle.answered("n1", &ask, second(1)), Ok(()));
    finds(oracle.answered("n1", &ask, second(2)), "acknowledged");
    oracle.observe(second(4), &committed(put("v")));
    assert_eq!(oracle.answered("n1", &ask, second(2)), Ok(()));
    // A read is not judged.
    assert_eq!(
        oracle.answered("n1", "/api/audit-recovery", second(9)),
        Ok(())
    );
}
