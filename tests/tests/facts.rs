//! What real servers do, as far as recoveries are planned on it. Where a version differs, the plan must.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, Thread};
use orchestrator_tests::sql::Sql;
use orchestrator_tests::wait::{Look, until};

const DEADLINE: Duration = Duration::from_secs(30);

async fn fleet(flavour: Flavour, servers: usize) -> Fleet {
    Fleet::start(FleetOptions {
        flavour,
        servers,
        timing: ReplicationTiming::Quick,
    })
    .await
    .expect("fleet")
}

async fn note(sql: &mut Sql, text: &str) {
    sql.run(&format!("INSERT INTO app.note (text) VALUES ('{text}')"))
        .await
        .expect("write");
}

async fn wait_notes(sql: &mut Sql, count: u64) {
    let looked = until(
        "the notes arrive",
        DEADLINE,
        Duration::from_millis(10),
        async || {
            let rows = sql
                .value("SELECT COUNT(*) FROM app.note")
                .await
                .expect("rows");
            if rows == count.to_string() {
                Look::Holds(())
            } else {
                Look::not(rows)
            }
        },
    );
    looked.await.expect("replication runs");
}

/// Waits until the replica's received position (the column of this name) is what the query says on the primary.
async fn wait_received(replica: &mut Sql, flavour: Flavour, column: &str, wanted: &str) {
    let looked = until(
        "the replica receives",
        DEADLINE,
        Duration::from_millis(10),
        async || {
            let status = replica
                .rows(flavour.show_replica_status())
                .await
                .expect("status");
            let received = status[0].text(&[column]);
            if received == wanted {
                Look::Holds(())
            } else {
                Look::not(format!("{received}, not {wanted}"))
            }
        },
    );
    looked.await.expect("the IO thread runs");
}

/// MySQL: a replica is pointed elsewhere while its applier runs, provided that auto position is on already
/// and is not stated again: stating it asks for both threads to be stopped (error 3081, MySQL 8.4 manual
/// 15.4.2.2). That matters because STOP REPLICA SQL_THREAD takes 60 s when the relay log ends in the middle
/// of a transaction, which a stopped IO thread or a killed primary leaves about one time in four under load
/// (9.7.4: "stopped in the middle of assigning a group of events; deferring to exit").
#[tokio::test]
async fn mysql_changes_source_while_the_applier_runs() {
    let flavour = Flavour::MySql;
    let fleet = fleet(flavour, 3).await;
    let [primary, other, replica] = fleet.ports()[..] else {
        panic!("three servers")
    };
    let mut writer = fleet
        .server(primary)
        .expect("server")
        .harness()
        .await
        .expect("login");
    let mut sql = fleet
        .server(replica)
        .expect("server")
        .orchestrator()
        .await
        .expect("login");
    note(&mut writer, "before").await;
    wait_notes(
        &mut fleet
            .server(replica)
            .expect("server")
            .harness()
            .await
            .expect("login"),
        1,
    )
    .await;

    sql.run(flavour.stop_replica(Thread::Io))
        .await
        .expect("stop");
    let change =
        format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={other}");
    let refusal = sql
        .run(&format!("{change}, SOURCE_AUTO_POSITION=1"))
        .await
        .expect_err("stated with the applier running");
    assert_eq!(refusal.code(), Some(3081), "{refusal}");
    sql.run(&change).await.expect("the applier runs on");
    sql.run(flavour.start_replica(Thread::Io))
        .await
        .expect("start");
    fleet
        .wait_replicates(replica, other, DEADLINE)
        .await
        .expect("repointed");
    note(&mut writer, "after").await;
    wait_notes(
        &mut fleet
            .server(replica)
            .expect("server")
            .harness()
            .await
            .expect("login"),
        2,
    )
    .await;
}

/// MySQL opens for writes while replication threads run: a promotion need not wait for STOP REPLICA.
#[tokio::test]
async fn mysql_opens_while_replication_runs() {
    let fleet = fleet(Flavour::MySql, 2).await;
    let replica = fleet.server(fleet.ports()[1]).expect("server");
    let mut sql = replica.orchestrator().await.expect("login");
    sql.run("SET GLOBAL read_only=0").await.expect("open");
    let mut client = replica.harness().await.expect("login");
    note(&mut client, "opened").await;
    assert!(
        replica
            .replica_status()
            .await
            .expect("status")
            .expect("a replica")
            .runs()
    );
}

/// A replica with 20 transactions received and none of them applied; its connection, and the fleet.
async fn with_backlog(flavour: Flavour) -> (Fleet, Sql) {
    let fleet = fleet(flavour, 2).await;
    let [primary, replica] = fleet.ports()[..] else {
        panic!("two servers")
    };
    let mut writer = fleet
        .server(primary)
        .expect("server")
        .harness()
        .await
        .expect("login");
    let mut sql = fleet
        .server(replica)
        .expect("server")
        .harness()
        .await
        .expect("login");
    note(&mut writer, "applied").await;
    wait_notes(&mut sql, 1).await;
    sql.run(flavour.stop_replica(Thread::Sql))
        .await
        .expect("stop");
    for number in 0..20 {
        note(&mut writer, &format!("backlog {number}")).await;
    }
    let (query, column) = match flavour {
        Flavour::MariaDb => ("SELECT @@GLOBAL.gtid_binlog_pos", "Gtid_IO_Pos"),
        Flavour::MySql => ("SELECT @@GLOBAL.gtid_executed", "Retrieved_Gtid_Set"),
    };
    let wanted = writer.value(query).await.expect("position");
    wait_received(&mut sql, flavour, column, &wanted).await;
    fleet
        .server(primary)
        .expect("server")
        .kill_and_wait()
        .await
        .expect("killed");
    (fleet, sql)
}

/// F1: MariaDB with GTID throws the relay log away when a thread is started with both stopped.
#[tokio::test]
async fn mariadb_purges_the_relay_log_when_both_threads_were_stopped() {
    let flavour = Flavour::MariaDb;
    let (_fleet, mut sql) = with_backlog(flavour).await;
    sql.run(flavour.stop_replica(Thread::Both))
        .await
        .expect("stop");
    sql.run(flavour.start_replica(Thread::Sql))
        .await
        .expect("start");
    // The applier is idle when it has read what is left; then nothing more can come.
    let looked = until(
        "the applier is idle",
        DEADLINE,
        Duration::from_millis(20),
        async || {
            let state = sql.rows("SHOW SLAVE STATUS").await.expect("status");
            let state = state[0].text(&["Slave_SQL_Running_State"]).to_owned();
            if state.starts_with("Slave has read all relay log") {
                Look::Holds(())
            } else {
                Look::not(state)
            }
        },
    );
    looked.await.expect("idle");
    assert_eq!(
        sql.value("SELECT COUNT(*) FROM app.note")
            .await
            .expect("rows"),
        "1",
        "the backlog is gone"
    );
}

/// F2: started first, the applier drains what was received.
#[tokio::test]
async fn mariadb_drains_when_the_applier_is_started_first() {
    let flavour = Flavour::MariaDb;
    let (_fleet, mut sql) = with_backlog(flavour).await;
    sql.run(flavour.start_replica(Thread::Sql))
        .await
        .expect("start");
    sql.run(flavour.stop_replica(Thread::Io))
        .await
        .expect("stop");
    wait_notes(&mut sql, 21).await;
}

/// F3: MariaDB found with both threads stopped is drained through file and position.
#[tokio::test]
async fn mariadb_drains_by_position_when_both_threads_were_stopped() {
    let flavour = Flavour::MariaDb;
    let (_fleet, mut sql) = with_backlog(flavour).await;
    sql.run(flavour.stop_replica(Thread::Both))
        .await
        .expect("stop");
    let status = sql.rows("SHOW SLAVE STATUS").await.expect("status");
    let (file, position) = (
        status[0].text(&["Relay_Log_File"]),
        status[0].text(&["Relay_Log_Pos"]),
    );
    sql.run(&format!(
        "CHANGE MASTER TO MASTER_USE_GTID=no, RELAY_LOG_FILE='{file}', RELAY_LOG_POS={position}"
    ))
    .await
    .expect("by position");
    sql.run(flavour.start_replica(Thread::Sql))
        .await
        .expect("start");
    wait_notes(&mut sql, 21).await;
}

/// F6: MySQL keeps the relay log when the applier is started after both threads were stopped.
#[tokio::test]
async fn mysql_drains_after_both_threads_were_stopped() {
    let flavour = Flavour::MySql;
    let (_fleet, mut sql) = with_backlog(flavour).await;
    sql.run(flavour.stop_replica(Thread::Both))
        .await
        .expect("stop");
    sql.run(flavour.start_replica(Thread::Sql))
        .await
        .expect("start");
    wait_notes(&mut sql, 21).await;
}

/// F6: MySQL throws the relay log away on a change of source with both threads stopped.
#[tokio::test]
async fn mysql_purges_the_relay_log_on_change_with_both_threads_stopped() {
    let flavour = Flavour::MySql;
    let (_fleet, mut sql) = with_backlog(flavour).await;
    sql.run(flavour.stop_replica(Thread::Both))
        .await
        .expect("stop");
    sql.run("CHANGE REPLICATION SOURCE TO SOURCE_DELAY=0")
        .await
        .expect("change");
    let status = sql.rows("SHOW REPLICA STATUS").await.expect("status");
    assert_eq!(
        status[0].text(&["Retrieved_Gtid_Set"]),
        "",
        "what was received is forgotten"
    );
}
