//! Each oracle is seen to let a good end pass, and to find what it is there for.

use std::time::Duration;

use orchestrator_core::id::{LogPosition, NodeId};
use orchestrator_core::recovery::Statement;

use super::*;
use crate::model::{Kind, Server};

fn key(number: u32) -> InstanceKey {
    InstanceKey::new(format!("m{number}"), 3306)
}

fn run(server: &mut Server, statements: &[Statement]) {
    for statement in statements {
        server.execute(statement, Duration::from_secs(9)).unwrap();
    }
}

const PROMOTE: [Statement; 3] = [
    Statement::StopReplication,
    Statement::ResetReplicaAll,
    Statement::MakeWriteable,
];

/// `m1` wrote ten times and died. `m2` received all, `m3` eight; both applied what they had; `m2` was promoted and `m3`
/// follows it, behind by two.
fn good(kind: Kind) -> Ended {
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
    servers[0].kill();
    run(&mut servers[1], &PROMOTE);
    servers[2].replicate_from(key(2));
    Ended {
        hosts: servers.into_iter().map(|one| Host::new(one, 1)).collect(),
        killed: key(1),
        ledger: Ledger::default(),
        daemons: Vec::new(),
    }
}

fn all(ended: &Ended) -> [Result<(), String>; 3] {
    [
        one_primary::check(ended),
        nothing_lost::check(ended),
        no_errant::check(ended),
    ]
}

fn check(change: impl Fn(&Ended), expected: [bool; 3]) {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let ended = good(kind);
        change(&ended);
        let found = all(&ended);
        assert_eq!(found.each_ref().map(Result::is_ok), expected, "{found:?}");
    }
}

#[test]
fn a_good_end_passes() {
    check(|_| {}, [true, true, true]);
}

#[test]
fn a_second_promotion_is_found() {
    check(
        |ended| ended.hosts[2].change(|server| run(server, &PROMOTE)),
        [false, false, false],
    );
    // Opened and closed again.
    check(
        |ended| {
            ended.hosts[2].change(|server| {
                run(server, &[Statement::MakeWriteable, Statement::Fence]);
            });
        },
        [false, true, true],
    );
}

#[test]
fn nobody_promoted_is_found() {
    check(
        |ended| ended.hosts[1].change(|server| run(server, &[Statement::Fence])),
        [false, false, false],
    );
}

#[test]
fn a_transaction_that_a_survivor_had_received_is_missed() {
    check(
        |ended| {
            let late = ended.hosts[0].change(|server| {
                server.start(Duration::ZERO);
                server.write(11, Duration::ZERO).unwrap();
                server.kill();
                *server.transactions().last().unwrap()
            });
            // Received, and purged again by a restart or a change of source.
            ended.hosts[2].change(|server| server.receive(late));
        },
        [true, false, true],
    );
}

#[test]
fn an_errant_transaction_and_a_stray_replica_are_found() {
    check(
        |ended| {
            ended.hosts[2].change(|server| {
                run(server, &[Statement::MakeWriteable]);
                for write in 20..24 {
                    server.write(write, Duration::ZERO).unwrap();
                }
                run(server, &[Statement::Fence]);
            });
        },
        [false, false, false],
    );
    check(
        |ended| ended.hosts[2].change(|server| server.replicate_from(key(1))),
        [true, true, false],
    );
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
        recoveries: Vec::new(),
        servers_seen: 3,
    }
}

#[test]
fn an_audit_without_the_recovery_is_found() {
    let mut ended = good(Kind::Mysql);
    assert_eq!(one_recovery::check(&ended), Ok(()));
    ended.daemons.push(view("n1", 7, 1));
    let found = one_recovery::check(&ended).unwrap_err();
    assert!(found.contains("n1 shows 0 recoveries"), "{found}");
}

#[test]
fn a_difference_at_one_position_is_found_even_later() {
    let mut digests = same_digest::Digests::default();
    digests.look(&[view("n1", 7, 1), view("n2", 6, 9)]).unwrap();
    digests.look(&[view("n1", 8, 2), view("n2", 7, 1)]).unwrap();
    let found = digests.look(&[view("n2", 8, 3)]).unwrap_err();
    assert!(found.contains("n1 and n2 differ"), "{found}");
}
