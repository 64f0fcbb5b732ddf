//! The oracle sees what it is there to see: failovers made by hand on real servers, one done well
//! and some done badly on purpose, without any daemon.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use orchestrator_tests::checks::{Evidence, Judgement, ReceivedWatch, judge, origin};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, Thread};
use orchestrator_tests::ledger::{Journal, Ledger};
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::Sql;
use orchestrator_tests::wait::{Look, until};

const DEADLINE: Duration = Duration::from_secs(30);

/// How the failover is made by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hand {
    /// The first replica is promoted with all that it received.
    Careful,
    /// The first replica's relay log is thrown away with what it had not applied.
    PurgesRelayLog,
    /// The second replica commits a transaction of its own.
    WritesOnReplica,
    /// The second replica is promoted although the first is as good and comes first.
    IgnoresTieBreak,
}

async fn fail_over(flavour: Flavour, hand: Hand) -> (Judgement, Journal) {
    let options = FleetOptions {
        flavour,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let fleet = Fleet::start(options).await.expect("fleet");
    let [old, first, second] = fleet.ports()[..] else {
        panic!("three servers")
    };
    let origin = origin(fleet.server(old).expect("server"))
        .await
        .expect("origin");
    let ledger = Ledger::start(&fleet.ports(), 1, 1);
    let began = Instant::now();
    ledger
        .wait_acknowledged(began, Some(old), DEADLINE)
        .await
        .expect("a first write");
    let received = ReceivedWatch::start(&fleet, old, &origin)
        .await
        .expect("watch");

    let (promoted, other) = match hand {
        Hand::Careful | Hand::PurgesRelayLog | Hand::WritesOnReplica => (first, second),
        Hand::IgnoresTieBreak => (second, first),
    };
    let mut candidate = fleet
        .server(promoted)
        .expect("server")
        .harness()
        .await
        .expect("login");
    // Clients pause until both replicas have everything: from here on the two are equals.
    let mut primary = fleet
        .server(old)
        .expect("server")
        .harness()
        .await
        .expect("login");
    primary.run(read_only(flavour, true)).await.expect("pause");
    wait_same_rows(&fleet, &mut primary).await;
    if hand == Hand::PurgesRelayLog {
        // The second replica stays as it is, so that it can follow what is left of the first. Its IO
        // thread is stopped between transactions: MySQL's STOP waits for the rest of one that was cut.
        let mut second = fleet
            .server(second)
            .expect("server")
            .harness()
            .await
            .expect("login");
        second
            .run(flavour.stop_replica(Thread::Io))
            .await
            .expect("stop");
        candidate
            .run(flavour.stop_replica(Thread::Sql))
            .await
            .expect("stop");
        let resumed = Instant::now();
        primary
            .run(read_only(flavour, false))
            .await
            .expect("resume");
        let backlog = until(
            "a backlog",
            DEADLINE,
            Duration::from_millis(10),
            async || match ledger.acknowledged_since(resumed).get(&old) {
                Some(writes) if *writes >= 50 => Look::Holds(()),
                Some(_) | None => Look::not("too few writes"),
            },
        );
        backlog.await.expect("the primary is written to");
        primary.run(read_only(flavour, true)).await.expect("pause");
        wait_received(&mut primary, &mut candidate, flavour).await;
    }
    let struck = fleet.server(old).expect("server").signal(Signal::Kill);
    wait_io_down(&mut candidate, flavour).await;
    if hand == Hand::WritesOnReplica {
        let mut replica = fleet
            .server(other)
            .expect("server")
            .harness()
            .await
            .expect("login");
        replica
            .run_all([
                read_only(flavour, false),
                "INSERT INTO app.note (text) VALUES ('errant')",
                read_only(flavour, true),
            ])
            .await
            .expect("errant write");
    }
    if hand != Hand::PurgesRelayLog {
        wait_applied(&mut candidate, flavour).await;
    }
    let forget = match flavour {
        Flavour::MariaDb => "RESET SLAVE ALL",
        Flavour::MySql => "RESET REPLICA ALL",
    };
    candidate
        .run_all([
            flavour.stop_replica(Thread::Both),
            forget,
            read_only(flavour, false),
        ])
        .await
        .expect("promotion");
    fleet.attach(other, promoted).await.expect("repoint");
    fleet
        .wait_replicates(other, promoted, DEADLINE)
        .await
        .expect("regrouped");
    let write = ledger
        .wait_acknowledged(struck, Some(promoted), DEADLINE)
        .await
        .expect("writable");
    assert!(write.sent > struck);
    let journal = ledger.end().await;
    let received = received.end();
    let evidence = Evidence {
        old,
        origin: &origin,
        promoted,
        struck,
        received: &received,
        journal: &journal,
        errant_before: &[],
        no_candidates: &[],
    };
    (judge(&fleet, evidence).await.expect("judgement"), journal)
}

fn read_only(flavour: Flavour, on: bool) -> &'static str {
    match (flavour, on) {
        (Flavour::MariaDb, true) => "SET GLOBAL read_only=1",
        (Flavour::MariaDb, false) => "SET GLOBAL read_only=0",
        (Flavour::MySql, true) => "SET GLOBAL super_read_only=1",
        // Clearing read_only clears super_read_only too (MySQL manual, super_read_only).
        (Flavour::MySql, false) => "SET GLOBAL read_only=0",
    }
}

/// Waits until every replica has the rows of a primary that takes no writes.
async fn wait_same_rows(fleet: &Fleet, primary: &mut Sql) {
    let count = "SELECT COUNT(*) FROM app.ledger";
    let all = primary.value(count).await.expect("rows");
    for server in &fleet.servers()[1..] {
        let mut replica = server.harness().await.expect("login");
        let looked = until(
            "the replica has all rows",
            DEADLINE,
            Duration::from_millis(10),
            async || {
                let rows = replica.value(count).await.expect("rows");
                if rows == all {
                    Look::Holds(())
                } else {
                    Look::not(format!("{rows} of {all}"))
                }
            },
        );
        looked.await.expect("replication runs");
    }
}

/// Waits until a replica has received, not applied, what a paused primary has.
async fn wait_received(primary: &mut Sql, replica: &mut Sql, flavour: Flavour) {
    let query = match flavour {
        Flavour::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
        Flavour::MySql => "SELECT @@GLOBAL.gtid_executed",
    };
    let all = primary.value(query).await.expect("position");
    let looked = until(
        "the replica has received it",
        DEADLINE,
        Duration::from_millis(10),
        async || {
            let status = replica
                .rows(flavour.show_replica_status())
                .await
                .expect("status");
            let received = status[0].text(&["Gtid_IO_Pos", "Retrieved_Gtid_Set"]);
            if received == all {
                Look::Holds(())
            } else {
                Look::not(format!("{received} of {all}"))
            }
        },
    );
    looked.await.expect("the IO thread runs");
}

async fn wait_io_down(sql: &mut Sql, flavour: Flavour) {
    let looked = until(
        "the IO thread notices",
        DEADLINE,
        Duration::from_millis(10),
        async || {
            let rows = sql
                .rows(flavour.show_replica_status())
                .await
                .expect("status");
            match rows
                .first()
                .map(|row| row.text(&["Replica_IO_Running", "Slave_IO_Running"]))
            {
                Some("Yes") => Look::not("it runs"),
                Some(_) | None => Look::Holds(()),
            }
        },
    );
    looked.await.expect("the source is dead");
}

async fn wait_applied(sql: &mut Sql, flavour: Flavour) {
    let query = match flavour {
        Flavour::MariaDb => "SELECT @@GLOBAL.gtid_slave_pos",
        Flavour::MySql => "SELECT @@GLOBAL.gtid_executed",
    };
    let looked = until(
        "the replica applies",
        DEADLINE,
        Duration::from_millis(10),
        async || {
            let status = sql
                .rows(flavour.show_replica_status())
                .await
                .expect("status");
            let received = status[0]
                .text(&["Gtid_IO_Pos", "Retrieved_Gtid_Set"])
                .to_owned();
            let applied = sql.value(query).await.expect("position");
            let done = match flavour {
                Flavour::MariaDb => received == applied,
                Flavour::MySql => {
                    sql.value(&format!("SELECT GTID_SUBSET('{received}', '{applied}')"))
                        .await
                        .expect("subset")
                        == "1"
                }
            };
            if done {
                Look::Holds(())
            } else {
                Look::not(format!("{received} against {applied}"))
            }
        },
    );
    looked.await.expect("applied");
}

async fn careful_is_right(flavour: Flavour) {
    let (judgement, journal) = fail_over(flavour, Hand::Careful).await;
    assert_eq!(judgement.wrongs(), Vec::<String>::new());
    assert!(
        judgement.acknowledged > 0 && journal.refused > 0,
        "{judgement:?}: replicas refuse the clients' writes"
    );
}

async fn purged_relay_log_is_seen(flavour: Flavour) {
    let (judgement, _) = fail_over(flavour, Hand::PurgesRelayLog).await;
    assert!(!judgement.not_right.is_empty(), "{judgement:?}");
}

async fn errant_transaction_is_seen(flavour: Flavour) {
    let (judgement, _) = fail_over(flavour, Hand::WritesOnReplica).await;
    assert!(!judgement.errant.is_empty(), "{judgement:?}");
}

async fn wrong_choice_among_equals_is_seen(flavour: Flavour) {
    let (judgement, _) = fail_over(flavour, Hand::IgnoresTieBreak).await;
    assert!(
        judgement.tie.is_some() && judgement.not_right.is_empty(),
        "{judgement:?}"
    );
    assert!(
        judgement.lost.is_empty() && judgement.errant.is_empty(),
        "{judgement:?}"
    );
}

macro_rules! on_both {
    ($($name:ident),*) => {
        mod mariadb {
            $(#[tokio::test] async fn $name() { super::$name(super::Flavour::MariaDb).await; })*
        }
        mod mysql {
            $(#[tokio::test] async fn $name() { super::$name(super::Flavour::MySql).await; })*
        }
    };
}

on_both!(
    careful_is_right,
    purged_relay_log_is_seen,
    errant_transaction_is_seen,
    wrong_choice_among_equals_is_seen
);
