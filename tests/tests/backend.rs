//! Daemons whose backends are schemas of a MySQL or MariaDB server: the projection, what is refused at start, a server
//! that goes away, a schema that the original program made.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, PATIENCE, Strike, World};
use serde_json::{Map, Value, json};

/// Held while a test owns servers.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server with a schema and an account for each of three daemons: full rights on that schema, and no other.
async fn backends(flavour: Flavour) -> Fleet {
    let server = Fleet::start(FleetOptions {
        flavour,
        servers: 1,
        timing: ReplicationTiming::Quick,
    })
    .await
    .expect("a server for the backends");
    let mut sql = server.servers()[0].harness().await.expect("login");
    for daemon in 1..=3 {
        sql.run_all([
            format!("CREATE DATABASE orc{daemon}"),
            format!("CREATE USER 'orc{daemon}'@'%' IDENTIFIED BY 'secret{daemon}'"),
            format!("GRANT ALL PRIVILEGES ON orc{daemon}.* TO 'orc{daemon}'@'%'"),
        ])
        .await
        .expect("schemas and accounts");
    }
    sql.close().await;
    server
}

fn settings(backends: &Fleet) -> Map<String, Value> {
    let settings = json!({
        "BackendDB": "mysql",
        "MySQLOrchestratorHost": "127.0.0.1",
        "MySQLOrchestratorPort": backends.servers()[0].port(),
        "MySQLOrchestratorDatabase": "orc{daemon}",
        "MySQLOrchestratorUser": "orc{daemon}",
        "MySQLOrchestratorPassword": "secret{daemon}",
    });
    settings.as_object().expect("an object").clone()
}

fn options(backends: &Fleet) -> DaemonOptions {
    let mut options = DaemonOptions::default_configuration();
    options.settings = settings(backends);
    options
}

/// A value of the first row, from each daemon's schema.
async fn of_each(backends: &Fleet, query: &str) -> Vec<String> {
    let mut values = Vec::new();
    for daemon in 1..=3 {
        let looked: anyhow::Result<String> = async {
            let mut sql = backends.servers()[0].harness().await?;
            sql.run(&format!("USE orc{daemon}")).await?;
            let value = sql.value(query).await?;
            sql.close().await;
            Ok(value)
        }
        .await;
        values.push(looked.unwrap_or_else(|error| format!("{error:#}")));
    }
    values
}

async fn wait_each(backends: &Fleet, query: &str, wanted: &str) {
    let looked = until(query, PATIENCE, Duration::from_millis(100), async || {
        let values = of_each(backends, query).await;
        if values.iter().all(|value| value == wanted) {
            Look::Holds(())
        } else {
            Look::not(format!("{values:?}, wanted {wanted}"))
        }
    });
    looked.await.expect("each schema says so");
}

/// A failover is in each daemon's schema; while the server of the schemas is away for a moment nothing stops, and what was
/// decided meanwhile is written when it is back.
async fn failover(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let backends = backends(flavour).await;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 4,
        timing: ReplicationTiming::Quick,
    };
    let mut world = World::start(fleet, &options(&backends))
        .await
        .expect("a fleet that the daemons know");
    wait_each(&backends, "SELECT count(*) FROM database_instance", "4").await;

    // Frozen, not dead: nothing refuses anything, everything waits. Less than the 5 s after which leadership is yielded.
    let server = &backends.servers()[0];
    server.signal(Signal::Stop);
    let frozen = Instant::now();
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    assert!(
        aftermath.writable < Duration::from_secs(3),
        "{:?}",
        aftermath.writable
    );
    server.signal(Signal::Continue);
    assert!(
        frozen.elapsed() < Duration::from_secs(25),
        "{:?}",
        frozen.elapsed()
    );

    let uid = aftermath.recoveries[0].uid.clone();
    let query =
        "SELECT concat(uid, ' ', successor_port, ' ', is_successful) FROM topology_recovery";
    wait_each(&backends, query, &format!("{uid} {} 1", aftermath.promoted)).await;
    let query = "SELECT count(DISTINCT hostname) FROM node_health";
    wait_each(&backends, query, "1").await;
    for daemon in world.daemons.all() {
        assert!(daemon.is_running());
    }

    // Killed and started again: the daemons go on with it.
    server.kill_and_wait().await.expect("killed");
    server.start().expect("started");
    server.wait_up().await.expect("up");
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let tag = format!("/api/tag/127.0.0.1/{}?tag=role=main", aftermath.promoted);
    let reply = leader
        .get(&tag, Duration::from_secs(5))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    wait_each(
        &backends,
        "SELECT concat(tag_name, '=', tag_value) FROM database_instance_tags",
        "role=main",
    )
    .await;
}

#[tokio::test]
async fn failover_with_mariadb_backends() {
    failover(Flavour::MariaDb).await;
}

#[tokio::test]
async fn failover_with_mysql_backends() {
    failover(Flavour::MySql).await;
}

/// Waits until the daemon ends, and returns the end of its log.
async fn refusal(daemon: &Daemon) -> String {
    let code = daemon
        .wait_ended(PATIENCE)
        .await
        .expect("it refuses to start");
    assert_ne!(code, Some(0));
    let log = std::fs::read_to_string(daemon.log()).expect("a log");
    log.lines().next_back().unwrap_or_default().to_owned()
}

fn one(settings: Map<String, Value>) -> Daemons {
    let mut options = DaemonOptions::default_configuration();
    options.count = 1;
    options.settings = settings;
    Daemons::start(&options).expect("started")
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_what_to_do() {
    let _turn = TURN.lock().await;
    let backends = backends(Flavour::MariaDb).await;
    let with = |changes: Value| {
        let mut settings = settings(&backends);
        settings.extend(changes.as_object().expect("an object").clone());
        settings
    };
    let check = async |changes: Value, words: &[&str]| {
        let daemons = one(with(changes));
        let last = refusal(&daemons.all()[0]).await;
        for word in words {
            assert!(last.contains(word), "{word} is not in: {last}");
        }
    };
    check(
        json!({"MySQLOrchestratorPassword": "wrong"}),
        &[
            "1045",
            "CREATE USER",
            "GRANT ALL PRIVILEGES ON `orc1`.* TO 'orc1'@'%'",
        ],
    )
    .await;
    check(
        json!({"MySQLOrchestratorDatabase": "orc2"}),
        &["1044", "GRANT ALL PRIVILEGES ON `orc2`.* TO 'orc1'@'%'"],
    )
    .await;
    check(
        json!({"MySQLOrchestratorPort": 1}),
        &["cannot be reached", "MySQLOrchestratorPort"],
    )
    .await;

    // Two members, one schema: the second is refused while the first writes.
    let first = one(with(json!({})));
    let leader = first.wait_leader(PATIENCE).await.expect("it runs alone");
    let second = one(with(json!({})));
    let last = refusal(&second.all()[0]).await;
    assert!(last.contains("is in use by another daemon"), "{last}");
    assert!(last.contains("a schema of its own"), "{last}");
    assert!(leader.is_running());
}

/// The tables of the original program: what it needs is added, what it holds is kept.
#[tokio::test]
async fn a_schema_of_the_original_is_adopted_in_place() {
    let _turn = TURN.lock().await;
    let backends = backends(Flavour::MariaDb).await;
    let mut sql = backends.servers()[0].harness().await.expect("login");
    sql.run("USE orc1").await.expect("the schema");
    sql.run_all([
        "CREATE TABLE topology_recovery (recovery_id bigint unsigned NOT NULL AUTO_INCREMENT, hostname varchar(128) NOT NULL, \
         port smallint unsigned NOT NULL, in_active_period tinyint unsigned NOT NULL DEFAULT 0, start_active_period timestamp \
         NOT NULL DEFAULT CURRENT_TIMESTAMP, end_active_period_unixtime int unsigned, PRIMARY KEY (recovery_id), UNIQUE KEY \
         in_active_end_period_uidx_topology_recovery (hostname, port, in_active_period, end_active_period_unixtime)) \
         ENGINE=InnoDB DEFAULT CHARSET=ascii",
        "INSERT INTO topology_recovery (hostname, port, in_active_period) VALUES ('old1', 3306, 0), ('old2', 3306, 0)",
        "CREATE TABLE database_instance (hostname varchar(128) NOT NULL, port smallint unsigned NOT NULL, last_checked timestamp \
         NOT NULL DEFAULT CURRENT_TIMESTAMP, server_id int unsigned NOT NULL DEFAULT 0, PRIMARY KEY (hostname, port)) \
         ENGINE=InnoDB DEFAULT CHARSET=ascii",
        "INSERT INTO database_instance (hostname, port) VALUES ('db1', 3306)",
    ])
    .await
    .expect("the original's tables");
    let daemons = one(settings(&backends));
    daemons.wait_leader(PATIENCE).await.expect("it runs");
    let looked = until(
        "the state is written",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let query = "SELECT count(*) FROM orchestrator_projection WHERE applied_index > 0";
            match sql.value(query).await {
                Ok(rows) if rows == "1" => Look::Holds(()),
                Ok(rows) => Look::not(rows),
                Err(error) => Look::not(error),
            }
        },
    );
    looked.await.expect("written");
    let check = [
        ("SELECT count(*) FROM topology_recovery_original", "2"),
        ("SELECT count(*) FROM topology_recovery", "0"),
        ("SELECT hostname FROM database_instance_original", "db1"),
        (
            "SELECT count(*) FROM information_schema.statistics WHERE table_schema = 'orc1' AND table_name = 'topology_recovery' \
             AND non_unique = 0 AND index_name <> 'PRIMARY'",
            "0",
        ),
        (
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'orc1' AND table_name = 'topology_recovery' AND \
          column_name = 'uid'",
            "1",
        ),
    ];
    for (query, wanted) in check {
        assert_eq!(sql.value(query).await.expect(query), wanted, "{query}");
    }
    sql.close().await;
}
