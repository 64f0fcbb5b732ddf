//! Daemons whose backends are schemas of a MySQL or MariaDB server: the projection, what is refused at start, a server
//! that goes away, a schema that the original program made.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_tests::authority::Authority;
use orchestrator_tests::backends::settings;
use orchestrator_tests::daemons::{
    Daemon, DaemonOptions, Daemons, get, steady_timers, wait_members,
};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::{Scratch, Signal};
use orchestrator_tests::relay;
use orchestrator_tests::sql::{HARNESS, Sql};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, PATIENCE, Strike, World};
use serde_json::{Map, Value, json};

/// Held while a test owns servers.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn backends(flavour: Flavour) -> Fleet {
    let server = orchestrator_tests::backends::serve(flavour).await;
    server.expect("a server for the backends")
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

    // Frozen, not dead: nothing refuses anything, everything waits. Nothing of the recovery waits for it: it stays frozen until
    // that is over, and for less than the 30 s after which daemons end.
    let server = &backends.servers()[0];
    server.signal(Signal::Stop);
    let frozen = Instant::now();
    let addresses: Vec<_> = world.daemons.all().iter().map(Daemon::http).collect();
    let thaw = async {
        let recovered = until(
            "a recovery is at its end while the server is frozen",
            Duration::from_secs(28),
            Duration::from_millis(50),
            async || {
                for address in &addresses {
                    let reply = get(*address, "/api/audit-recovery", Duration::from_secs(5)).await;
                    let audit = reply.and_then(|reply| reply.json());
                    let recoveries = audit.as_ref().ok().and_then(Value::as_array);
                    let is_done = |recovery: &Value| recovery["IsSuccessful"] == true;
                    if recoveries.is_some_and(|recoveries| recoveries.iter().any(is_done)) {
                        return Look::Holds(frozen.elapsed());
                    }
                }
                Look::not("none is")
            },
        )
        .await;
        server.signal(Signal::Continue);
        recovered
    };
    let expectation = Expectation::default();
    let strike = world.strike(Strike::KillPrimary, Duration::ZERO, &expectation);
    let (aftermath, recovered) = tokio::join!(strike, thaw);
    let recovered = recovered.expect("nothing waits for the server");
    let aftermath = aftermath.expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    println!(
        "writable after {:?}, thawed after {recovered:?}",
        aftermath.writable
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
    let tag = format!("/api/tag/127.0.0.1/{}?tag=role=main", aftermath.promoted);
    world.daemons.ask_leader(&tag).await.expect("tagged");
    wait_each(
        &backends,
        "SELECT concat(tag_name, '=', tag_value) FROM database_instance_tags",
        "role=main",
    )
    .await;

    // What the leader tells of all this, each follower passes on to the byte.
    let (port, cluster) = (
        aftermath.promoted.to_string(),
        format!("127.0.0.1:{}", aftermath.promoted),
    );
    let began = Instant::now();
    let values = [
        (":host", "127.0.0.1"),
        (":port", &port),
        (":clusterHint", &cluster),
        (":clusterName", &cluster),
        (":clusterAlias", "fleet"),
        (":searchString", "127.0.0.1"),
        (":tagName", "role"),
        (":page", "0"),
        (":uid", &uid),
    ];
    let compared = relay::compare(&world.daemons, &values, "tag=role&s=127.0.0.1")
        .await
        .expect("the same answers");
    println!("{compared:?} within {:?}", began.elapsed());
    assert!(compared.telling > 50, "{compared:?}");
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

    // One whose clock is an hour behind or ahead writes no less: it is the test that goes on in its place.
    leader.kill().await.expect("killed");
    let mut sql = backends.servers()[0].harness().await.expect("login");
    for hour in ["- INTERVAL 1 HOUR", "+ INTERVAL 1 HOUR"] {
        let third = one(with(json!({})));
        let beats = async {
            for second in 0..60 {
                let beat = format!(
                    "UPDATE orc1.orchestrator_projection SET written_at = utc_timestamp() {hour} + INTERVAL {second} SECOND"
                );
                sql.run(&beat).await.expect("written");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let last = tokio::select! {
            last = refusal(&third.all()[0]) => last,
            () = beats => panic!("{hour}: it is not refused"),
        };
        assert!(
            last.contains("is in use by another daemon"),
            "{hour}: {last}"
        );
    }
    sql.close().await;
    // It is silent, and its row says that it wrote in the future.
    let began = Instant::now();
    let next = one(with(json!({})));
    let next = &next.all()[0];
    next.wait_status("/api/lb-check", 200, PATIENCE)
        .await
        .expect("it runs");
    assert!(began.elapsed() >= Duration::from_secs(10));
}

/// A schema of another cluster, and one that a later release changed so that this one must not write to it.
async fn foreign_schema(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let backends = backends(flavour).await;
    let daemons = one(settings(&backends));
    let daemon = daemons.wait_leader(PATIENCE).await.expect("it runs alone");
    let mut sql = backends.servers()[0].harness().await.expect("login");
    let named = "SELECT cluster_id <> '' FROM orc1.orchestrator_projection";
    let looked = until(
        named,
        PATIENCE,
        Duration::from_millis(100),
        async || match sql.value(named).await {
            Ok(found) if found == "1" => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("the schema says whose it is");
    daemon.kill().await.expect("killed");
    let place = format!(
        "MySQLOrchestratorDatabase: orc1 at 127.0.0.1:{}",
        backends.ports()[0]
    );
    for (change, words) in [
        (
            "UPDATE orc1.orchestrator_projection SET cluster_id = repeat('0f', 32)",
            [
                "belongs to the raft cluster 0f0f0f0f",
                "this daemon to ",
                "name another schema, or move this one away",
            ],
        ),
        (
            "INSERT INTO orc1.orchestrator_migrations (version, name, checksum, oldest_reader, app_version) VALUES (99, 'x', 'x', 99, 'x')",
            [
                "version 99",
                "install that release again",
                "an empty database",
            ],
        ),
    ] {
        sql.run(change).await.expect("changed");
        daemon.start().expect("started");
        let code = daemon.wait_ended(PATIENCE).await.expect("it refuses");
        assert_ne!(code, Some(0));
        let log = std::fs::read_to_string(daemon.log()).expect("a log");
        let last = log.lines().next_back().unwrap_or_default();
        for word in words.iter().chain([&place.as_str()]) {
            assert!(last.contains(word), "{word} is not in: {last}");
        }
    }
    sql.close().await;
}

#[tokio::test]
async fn a_mariadb_schema_of_another_cluster_or_release_is_refused() {
    foreign_schema(Flavour::MariaDb).await;
}

#[tokio::test]
async fn a_mysql_schema_of_another_cluster_or_release_is_refused() {
    foreign_schema(Flavour::MySql).await;
}

/// The daemon's own command line, forced, writes to the schema beside the running daemon, which knows nothing of it and
/// discards it when it is started again.
async fn forced_change(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let backends = backends(flavour).await;
    let daemons = one(settings(&backends));
    let daemon = daemons.wait_leader(PATIENCE).await.expect("it runs alone");
    daemons
        .ask_leader("/api/tag/db1/3306?tag=decided")
        .await
        .expect("tagged");
    let mut sql = backends.servers()[0].harness().await.expect("login");
    let tags = "SELECT coalesce(group_concat(tag_name ORDER BY tag_name), '') FROM orc1.database_instance_tags";
    let mut wait_tags = async |wanted: &str| {
        let looked = until(
            tags,
            PATIENCE,
            Duration::from_millis(100),
            async || match sql.value(tags).await {
                Ok(found) if found == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}, wanted {wanted}")),
            },
        );
        looked.await.expect("tags");
    };
    wait_tags("decided").await;
    let forced = ["--ignore-raft-setup", "-c", "tag", "-i", "db1:3306"];
    let (is_done, said) = daemon
        .run(&[forced.as_slice(), &["-tag", "by=ha'nd"]].concat())
        .expect("it runs");
    assert!(is_done && said.contains("NO DAEMON KNOWS OF IT"), "{said}");
    wait_tags("by,decided").await;
    daemons
        .ask_leader("/api/tag/db1/3306?tag=later")
        .await
        .expect("tagged");
    wait_tags("by,decided,later").await;
    let tagged = daemons.ask_leader("/api/tagged?tag=by").await;
    assert_eq!(tagged.expect("an answer"), json!([]));

    daemon.kill().await.expect("killed");
    daemon.start().expect("started");
    wait_tags("decided,later").await;
}

#[tokio::test]
async fn a_forced_change_is_in_a_mysql_schema_until_the_next_start() {
    forced_change(Flavour::MySql).await;
}

#[tokio::test]
async fn a_forced_change_is_in_a_mariadb_schema_until_the_next_start() {
    forced_change(Flavour::MariaDb).await;
}

/// MariaDB's programs for people, at the server of the backends.
fn mariadb(program: &str, backends: &Fleet) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"])
        .arg(format!("--port={}", backends.ports()[0]))
        .arg(format!("--user={}", HARNESS.user))
        .arg(format!("--password={}", HARNESS.password));
    command
}

/// How each table of a schema is made, and a sum of its rows.
async fn tables(sql: &mut Sql) -> BTreeMap<String, (String, String)> {
    let query =
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database()";
    let names = sql.rows(query).await.expect("tables");
    let mut tables = BTreeMap::new();
    for table in names.iter().map(|row| row.text(&["name"])) {
        let made = sql.rows(&format!("SHOW CREATE TABLE {table}")).await;
        let made = made.expect("a table")[0].text(&["Create Table"]).to_owned();
        let sum = sql.rows(&format!("CHECKSUM TABLE {table}")).await;
        let sum = sum.expect("a sum")[0].text(&["Checksum"]).to_owned();
        tables.insert(table.to_owned(), (made, sum));
    }
    tables
}

/// The tables of the original program: what this one needs is added, what they hold is kept aside and taken over, the original's
/// queries are still answered, and the backup brings the original's tables back as they were.
async fn adoption(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let backends = backends(flavour).await;
    let mut sql = backends.servers()[0].harness().await.expect("login");
    sql.run("USE orc1").await.expect("the schema");
    let made = include_str!("original-mysql.sql").split(";\n");
    let made = made
        .map(str::trim)
        .filter(|statement| !statement.is_empty());
    sql.run_all(made).await.expect("the original's tables");
    let before = tables(&mut sql).await;
    let mut command = mariadb("mariadb-dump", &backends);
    let backup = command.args(["--single-transaction", "orc1"]).output();
    let backup = backup.expect("mariadb-dump; type:  tests/setup.sh mariadb");
    assert!(backup.status.success(), "{backup:?}");

    let daemons = one(settings(&backends));
    daemons.wait_leader(PATIENCE).await.expect("it runs");
    let looked = until(
        "the schema is taken over",
        PATIENCE,
        Duration::from_millis(100),
        async || match daemons.ask_leader("/api/raft-status").await {
            Ok(status) if status["Originals"][0]["State"] == "adopted" => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("adopted");
    let ask = async |path: &str| daemons.ask_leader(path).await.expect(path);
    assert_eq!(ask("/api/tag-value/db2/3306/rack").await, "7");
    let downtimed = ask("/api/downtimed").await;
    assert_eq!(downtimed.as_array().map(Vec::len), Some(1), "{downtimed:#}");
    assert_eq!(downtimed[0]["Key"]["Hostname"], "db1", "{downtimed:#}");
    assert_eq!(downtimed[0]["DowntimeOwner"], "anna", "{downtimed:#}");
    assert_eq!(downtimed[0]["DowntimeReason"], "disk", "{downtimed:#}");
    assert_eq!(
        ask("/api/check-global-recoveries").await["Details"],
        "disabled"
    );
    let recoveries = ask("/api/audit-recovery").await;
    assert_eq!(recoveries[0]["Id"], 8, "{recoveries:#}");
    assert_eq!(recoveries[1]["Id"], 3, "{recoveries:#}");
    assert_eq!(recoveries[1]["SuccessorKey"]["Hostname"], "db2");
    assert_eq!(recoveries[1]["AcknowledgedBy"], "bert");
    let steps = ask("/api/audit-recovery-steps/1604192401000000000:5e4f").await;
    assert_eq!(steps[0]["Message"], "will handle DeadMaster", "{steps:#}");
    let detections = ask("/api/audit-failure-detection").await;
    assert_eq!(detections[0]["Id"], 17, "{detections:#}");

    // What the original asks of its tables, and what it is told of what was taken over.
    for (query, wanted) in [
        (
            "SELECT concat_ws(' ', hostname, port, owner, reason, end_timestamp) FROM database_instance_downtime WHERE \
             downtime_active = 1 AND end_timestamp > now()",
            "db1 3306 anna disk 2037-01-01 00:00:00",
        ),
        (
            "SELECT concat_ws(' ', hostname, port, promotion_rule) FROM candidate_database_instance",
            "db3 3307 prefer_not",
        ),
        (
            "SELECT concat_ws(' ', cluster_name, alias) FROM cluster_alias_override",
            "db2:3306 shop",
        ),
        (
            "SELECT concat_ws(' ', hostname, port, tag_name, tag_value) FROM database_instance_tags",
            "db2 3306 rack 7",
        ),
        (
            "SELECT concat_ws(' ', database_instance_maintenance_id, hostname, port, owner, reason) FROM \
             database_instance_maintenance WHERE maintenance_active = 1",
            "5 db3 3307 bert upgrade",
        ),
        (
            "SELECT count(*) FROM global_recovery_disable WHERE disable_recovery = 1",
            "1",
        ),
        (
            "SELECT concat_ws(' ', recovery_id, hostname, port, in_active_period = 1 AND end_active_period_unixtime = 0, \
             is_successful, successor_hostname, successor_port, successor_alias, analysis, cluster_name, cluster_alias, \
             count_affected_slaves, slave_hosts, participating_instances, lost_slaves, all_errors, acknowledged, \
             acknowledged_by, acknowledge_comment, last_detection_id, uid) FROM topology_recovery WHERE \
             acknowledged = 1 ORDER BY recovery_id DESC",
            "3 db1 3306 0 1 db2 3306 db2 DeadMaster db1:3306 shop 2 db2:3306,db3:3307 db1:3306,db2:3306 db1:3306  1 bert \
             seen 17 1604192401000000000:5e4f",
        ),
        (
            "SELECT concat_ws(' ', detection_id, hostname, port, is_actionable, analysis, cluster_name, count_affected_slaves, \
             slave_hosts, processing_node_hostname, processcing_node_token) FROM topology_failure_detection",
            "17 db1 3306 1 DeadMaster db1:3306 2 db2:3306,db3:3307 orc1 tok",
        ),
        (
            "SELECT message FROM topology_recovery_steps ORDER BY recovery_step_id LIMIT 1",
            "will handle DeadMaster",
        ),
    ] {
        let looked = until(
            query,
            PATIENCE,
            Duration::from_millis(100),
            async || match sql.value(query).await {
                Ok(said) if said == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}, wanted {wanted}")),
            },
        );
        looked.await.expect("the original's query");
    }
    // No column of the original's is gone, its rows are kept, and none of its keys refuses what is written now.
    let adopted = tables(&mut sql).await;
    for table in before.keys() {
        let query = |name: &str| {
            format!(
                "SELECT group_concat(column_name ORDER BY ordinal_position) FROM information_schema.columns WHERE \
                 table_schema = database() AND table_name = '{name}'"
            )
        };
        let kept = format!("{table}_original");
        assert!(adopted.contains_key(&kept), "{kept}");
        let of_original = sql.value(&query(&kept)).await.expect("columns");
        let of_ours = sql.value(&query(table)).await.expect("columns");
        let missing = of_original
            .split(',')
            .find(|column| !of_ours.split(',').any(|ours| ours == *column));
        assert_eq!(missing, None, "{table}: {of_ours}");
    }
    for (table, rows) in [
        ("topology_recovery", "2"),
        ("database_instance", "3"),
        ("database_instance_downtime", "2"),
    ] {
        let count = sql
            .value(&format!("SELECT count(*) FROM {table}_original"))
            .await;
        assert_eq!(count.expect("rows"), rows, "{table}");
    }
    let unique = "SELECT count(*) FROM information_schema.statistics WHERE table_schema = 'orc1' AND table_name = \
         'topology_recovery' AND non_unique = 0 AND index_name <> 'PRIMARY'";
    assert_eq!(sql.value(unique).await.expect("a count"), "0");
    // The original's texts end at 64 kB, which a set of GTIDs may not fit into.
    let narrow = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'orc1' AND table_name = \
         'topology_recovery' AND data_type = 'text'";
    assert_eq!(sql.value(narrow).await.expect("a count"), "0");

    // Back again, as the README says.
    daemons.all()[0].signal(Signal::Terminate);
    daemons.all()[0].wait_ended(PATIENCE).await.expect("ended");
    let file = daemons.all()[0].folder().join("orc1.sql");
    std::fs::write(&file, backup.stdout).expect("written");
    sql.run_all(["DROP DATABASE orc1", "CREATE DATABASE orc1"])
        .await
        .expect("an empty schema");
    let backup = std::fs::File::open(&file).expect("the backup");
    let loaded = mariadb("mariadb", &backends)
        .arg("orc1")
        .stdin(backup)
        .output();
    let loaded = loaded.expect("mariadb");
    assert!(loaded.status.success(), "{loaded:?}");
    sql.run("USE orc1").await.expect("the schema");
    assert_eq!(tables(&mut sql).await, before);
    sql.close().await;
}

#[tokio::test]
async fn a_mariadb_schema_of_the_original_is_adopted_in_place() {
    adoption(Flavour::MariaDb).await;
}

#[tokio::test]
async fn a_mysql_schema_of_the_original_is_adopted_in_place() {
    adoption(Flavour::MySql).await;
}

/// The account needs a certificate, its password is in a file, and the server must be who it says it is.
#[tokio::test]
async fn a_backend_is_reached_by_tls_with_credentials_from_a_file() {
    let _turn = TURN.lock().await;
    let backends = backends(Flavour::MySql).await;
    let folder = Scratch::create("backend-tls").expect("a folder");
    let theirs = folder.path().join("theirs");
    std::fs::create_dir(&theirs).expect("made");
    let authority = Authority::new(folder.path());
    authority.certify("server", "127.0.0.1", "mysql");
    authority.certify("client", "127.0.0.1", "orchestrator");
    Authority::new(&theirs).certify("client", "127.0.0.1", "orchestrator");
    let path = |name: &str| folder.path().join(name);
    let mut sql = backends.servers()[0].harness().await.expect("login");
    sql.run_all([
        format!("SET GLOBAL ssl_ca = '{}'", path("ca.pem").display()),
        format!("SET GLOBAL ssl_cert = '{}'", path("server.pem").display()),
        format!("SET GLOBAL ssl_key = '{}'", path("server.key").display()),
        String::from("ALTER INSTANCE RELOAD TLS"),
        String::from("ALTER USER 'orc1'@'%' REQUIRE X509"),
    ])
    .await
    .expect("TLS");
    std::fs::write(
        path("credentials"),
        "[client]\nuser = orc1\npassword = secret1\n",
    )
    .expect("written");
    let with = |changes: Value| {
        let mut settings = settings(&backends);
        settings.remove("MySQLOrchestratorUser");
        settings.remove("MySQLOrchestratorPassword");
        let tls = json!({
            "MySQLOrchestratorCredentialsConfigFile": path("credentials"),
            "MySQLOrchestratorUseMutualTLS": true,
            "MySQLOrchestratorSSLCAFile": path("ca.pem"),
            "MySQLOrchestratorSSLCertFile": path("client.pem"),
            "MySQLOrchestratorSSLPrivateKeyFile": path("client.key"),
        });
        settings.extend(tls.as_object().expect("an object").clone());
        settings.extend(changes.as_object().expect("an object").clone());
        settings
    };
    for (changes, words) in [
        (
            json!({"MySQLOrchestratorUseMutualTLS": false}),
            ["1045", "GRANT ALL PRIVILEGES ON `orc1`.* TO 'orc1'@'%'"],
        ),
        (
            json!({"MySQLOrchestratorSSLCAFile": theirs.join("ca.pem")}),
            ["certificate", "MySQLOrchestratorSSLCAFile must vouch"],
        ),
        (
            json!({
                "MySQLOrchestratorSSLCertFile": theirs.join("client.pem"),
                "MySQLOrchestratorSSLPrivateKeyFile": theirs.join("client.key"),
            }),
            ["MySQLOrchestrator", "orc1"],
        ),
    ] {
        let daemons = one(with(changes));
        let last = refusal(&daemons.all()[0]).await;
        for word in words {
            assert!(last.contains(word), "{word} is not in: {last}");
        }
    }
    let daemons = one(with(json!({})));
    daemons.wait_leader(PATIENCE).await.expect("it runs");
    let tag = daemons.ask_leader("/api/tag/db1/3306?tag=by-tls").await;
    tag.expect("tagged");
    let query = "SELECT tag_name FROM orc1.database_instance_tags";
    let looked = until(
        query,
        PATIENCE,
        Duration::from_millis(100),
        async || match sql.value(query).await {
            Ok(said) if said == "by-tls" => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("written");
    sql.close().await;
}

/// One daemon with a file, one with a MariaDB server and one with a MySQL server, each its own: what is decided is in each of
/// them, and a server that dies for good costs the cluster one daemon.
#[tokio::test]
async fn each_daemon_has_a_database_of_its_own() {
    let _turn = TURN.lock().await;
    let servers = [
        backends(Flavour::MariaDb).await,
        backends(Flavour::MySql).await,
    ];
    let mut options = DaemonOptions::default_configuration();
    options.own = vec![Map::new(), settings(&servers[0]), settings(&servers[1])];
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let mut world = World::start(fleet, &options)
        .await
        .expect("a fleet that the daemons know");
    // What the database of a daemon says, of the first row.
    let says = async |daemon: usize, query: &str| -> String {
        if daemon == 0 {
            let file = world.daemons.all()[0].folder().join("orchestrator.db");
            let read = rusqlite::Connection::open(file).and_then(|database| {
                database.query_row(query, [], |row| row.get::<_, rusqlite::types::Value>(0))
            });
            return match read {
                Ok(rusqlite::types::Value::Integer(number)) => number.to_string(),
                Ok(rusqlite::types::Value::Text(text)) => text,
                other => format!("{other:?}"),
            };
        }
        of_each(&servers[daemon - 1], query).await[daemon].clone()
    };
    let all_say = async |query: &str, wanted: &str, daemons: &[usize]| {
        let looked = until(query, PATIENCE, Duration::from_millis(100), async || {
            for daemon in daemons {
                let said = says(*daemon, query).await;
                if said != wanted {
                    return Look::not(format!("daemon {daemon}: {said}, wanted {wanted}"));
                }
            }
            Look::Holds(())
        });
        looked.await.expect("each database says so");
    };
    all_say("SELECT count(*) FROM database_instance", "3", &[0, 1, 2]).await;
    let primary = world.primary();
    for path in [
        format!("/api/tag/127.0.0.1/{primary}?tag=role=main"),
        format!("/api/begin-downtime/127.0.0.1/{primary}/ann/because/1h"),
        format!("/api/end-downtime/127.0.0.1/{primary}"),
        format!("/api/register-candidate/127.0.0.1/{primary}/prefer"),
    ] {
        world.daemons.ask_leader(&path).await.expect(&path);
    }
    let tag = "SELECT tag_value FROM database_instance_tags";
    all_say(tag, "main", &[0, 1, 2]).await;
    let rule = "SELECT promotion_rule FROM candidate_database_instance";
    all_say(rule, "prefer", &[0, 1, 2]).await;
    let downtimes = "SELECT count(*) FROM database_instance_downtime";
    all_say(downtimes, "0", &[0, 1, 2]).await;
    let identities = "SELECT count(DISTINCT hostname) FROM node_health";
    all_say(identities, "1", &[0, 1, 2]).await;

    // Nobody replicates, and each server knows one daemon.
    for (place, server) in servers.iter().enumerate() {
        let status = server.servers()[0].replica_status().await.expect("answers");
        assert!(status.is_none());
        let mut sql = server.servers()[0].harness().await.expect("login");
        let query = "SELECT group_concat(DISTINCT user) FROM information_schema.processlist WHERE user LIKE 'orc_'";
        let users = sql.value(query).await.expect("users");
        assert_eq!(users, format!("orc{}", place + 2));
        sql.close().await;
    }

    // The leader is one whose database is a server: until it is, leaders are killed.
    let led = loop {
        let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
        let http = leader.http();
        let daemons = world.daemons.all();
        let place = daemons.iter().position(|daemon| daemon.http() == http);
        match place.expect("one of them") {
            0 => {
                leader.kill().await.expect("killed");
                world.daemons.wait_leader(PATIENCE).await.expect("a leader");
                leader.start().expect("started");
            }
            place => break place,
        }
    };
    world.wait_settled(&[]).await.expect("settled");
    let server = &servers[led - 1].servers()[0];
    server.kill_and_wait().await.expect("killed");
    let killed = Instant::now();
    let leader = &world.daemons.all()[led];
    let looked = until(
        "leadership is yielded",
        Duration::from_secs(25),
        Duration::from_millis(50),
        async || match leader.is_leader().await {
            true => Look::not("it leads"),
            false => Look::Holds(()),
        },
    );
    looked.await.expect("yielded");
    println!(
        "yielded {:?} after the death of its database",
        killed.elapsed()
    );

    // While it still runs, another one leads, and the others go on reading each server.
    let looked = until(
        "another one leads",
        PATIENCE,
        Duration::from_millis(50),
        async || match world.daemons.leader().await {
            Some(next) if next.http() != leader.http() => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("a leader");
    assert!(leader.is_running(), "{:?}", killed.elapsed());
    for daemon in (0..3).filter(|daemon| *daemon != led) {
        let latest = says(daemon, "SELECT max(last_seen) FROM database_instance").await;
        let all_later = format!("SELECT min(last_seen) > '{latest}' FROM database_instance");
        all_say(&all_later, "1", &[daemon]).await;
    }

    let code = leader.wait_ended(PATIENCE * 2).await.expect("it ends");
    println!("ended {:?} after it", killed.elapsed());
    assert_ne!(code, Some(0));
    assert!(
        killed.elapsed() >= Duration::from_secs(20),
        "{:?}",
        killed.elapsed()
    );
    let log = std::fs::read_to_string(leader.log()).expect("a log");
    let last = log.lines().next_back().unwrap_or_default();
    assert!(
        last.contains("the backend could not be written for over 30 s"),
        "{last}"
    );

    // The others repair the fleet.
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());

    // Both come back, without a word.
    server.start().expect("started");
    server.wait_up().await.expect("up");
    let leader = &world.daemons.all()[led];
    leader.start().expect("started");
    let recovery = "SELECT concat(successor_port, ' ', is_successful) FROM topology_recovery";
    let wanted = format!("{} 1", aftermath.promoted);
    let looked = until(
        "the recovery is in the database that was away",
        PATIENCE,
        Duration::from_millis(100),
        async || match of_each(&servers[led - 1], recovery).await[led].clone() {
            said if said == wanted => Look::Holds(()),
            said => Look::not(said),
        },
    );
    looked.await.expect("it holds it");
    wait_healthy(leader).await;
    world.daemons.wait_whole(PATIENCE).await.expect("whole");
}

async fn wait_healthy(daemon: &Daemon) {
    let what = format!("{} is healthy", daemon.url());
    let looked = until(
        &what,
        PATIENCE,
        Duration::from_millis(100),
        async || match daemon.get("/api/raft-health", Duration::from_secs(5)).await {
            Ok(reply) if reply.status == 200 => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("it is a member");
}

/// One of three has a brand-new server: it ends with what is to be granted, disturbs nobody, and joins by itself once the
/// grants are there and somebody starts it again.
#[tokio::test]
async fn a_new_server_without_grants_joins_once_they_are_there() {
    let _turn = TURN.lock().await;
    let backends = backends(Flavour::MariaDb).await;
    let mut options = options(&backends);
    options.settings.extend(steady_timers());
    let silent = String::from("RaftReplaceSilentSeconds");
    options.settings.insert(silent, json!(5));
    let daemons = Daemons::start(&options).expect("daemons");
    for daemon in daemons.all() {
        wait_healthy(daemon).await;
    }
    // A member is known by its address a moment after it is one, and whoever comes in its place has that address.
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    wait_members(&all, PATIENCE).await.expect("members");
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    daemons
        .ask_leader("/api/tag/db1/3306?tag=kept")
        .await
        .expect("tagged");
    let http = leader.http();
    let place = daemons
        .all()
        .iter()
        .position(|daemon| daemon.http() != http);
    let place = place.expect("a follower");
    let (number, new) = (place + 1, &daemons.all()[place]);
    let term = async || {
        let health = leader.get("/api/v2/health", Duration::from_secs(5)).await;
        health.expect("an answer").json().expect("a document")["Term"].clone()
    };
    let before = term().await;
    let mut sql = backends.servers()[0].harness().await.expect("login");

    // Its configuration is the leader's: it is refused while that one writes there.
    new.kill().await.expect("killed");
    let led = daemons
        .all()
        .iter()
        .position(|daemon| daemon.http() == http);
    let configure = |number: usize| {
        for (key, value) in [
            ("MySQLOrchestratorDatabase", format!("orc{number}")),
            ("MySQLOrchestratorUser", format!("orc{number}")),
            ("MySQLOrchestratorPassword", format!("secret{number}")),
        ] {
            new.set(key, value).expect("written");
        }
    };
    let shared = led.expect("one of them") + 1;
    configure(shared);
    new.start().expect("started");
    let last = refusal(new).await;
    assert!(last.contains("is in use by another daemon"), "{last}");
    assert!(last.contains(&format!("orc{shared}")), "{last}");
    assert!(last.contains("a schema of its own"), "{last}");
    assert_eq!(term().await, before);
    configure(number);

    // A right that is taken away: the next start names it.
    let revoke = format!("REVOKE ALL PRIVILEGES ON orc{number}.* FROM 'orc{number}'@'%'");
    sql.run(&revoke).await.expect("revoked");
    new.start().expect("started");
    let last = refusal(new).await;
    let grant = format!("GRANT ALL PRIVILEGES ON `orc{number}`.* TO 'orc{number}'@'%'");
    assert!(last.contains(&grant), "{last}");
    assert!(
        last.contains(&format!("127.0.0.1:{}", backends.servers()[0].port())),
        "{last}"
    );

    // Everything of it is new: server, machine, and nobody has granted anything.
    new.wipe_raft().expect("wiped");
    sql.run_all([
        format!("DROP DATABASE orc{number}"),
        format!("DROP USER 'orc{number}'@'%'"),
    ])
    .await
    .expect("dropped");
    new.start().expect("started");
    let last = refusal(new).await;
    assert!(last.contains("CREATE USER"), "{last}");
    daemons
        .ask_leader("/api/tag/db2/3306?tag=kept")
        .await
        .expect("tagged");
    assert_eq!(term().await, before);

    sql.run_all([
        format!("CREATE DATABASE orc{number}"),
        format!("CREATE USER 'orc{number}'@'%' IDENTIFIED BY 'secret{number}'"),
        format!("GRANT ALL PRIVILEGES ON orc{number}.* TO 'orc{number}'@'%'"),
    ])
    .await
    .expect("granted");
    sql.close().await;
    new.start().expect("started");
    wait_healthy(new).await;
    wait_each(
        &backends,
        "SELECT count(*) FROM database_instance_tags",
        "2",
    )
    .await;
}

/// Three daemons of the original are replaced: what their databases say is known to the new ones.
#[tokio::test]
async fn the_newest_of_the_originals_databases_is_taken_over() {
    let options = DaemonOptions {
        late: 3,
        ..DaemonOptions::default_configuration()
    };
    let daemons = Daemons::start(&options).expect("daemons that are not started");
    for (number, daemon) in daemons.all().iter().enumerate() {
        let file = daemon.folder().join("orchestrator.db");
        let database = rusqlite::Connection::open(file).expect("a file");
        database
            .execute_batch(include_str!(
                "../../runtime/src/backend/testdata/original.sql"
            ))
            .expect("the original's tables");
        // The second is the newest; each says which it is.
        let seen = ["03:00:00", "04:00:00", "03:59:59"][number];
        database
            .execute_batch(&format!(
                "UPDATE database_instance SET last_seen = '2020-11-01 {seen}';
                 UPDATE database_instance_tags SET tag_value = 'of daemon {number}';
                 UPDATE topology_recovery SET start_active_period = datetime('now', '-2 hours'),
                     end_recovery = datetime('now', '-1 hours')"
            ))
            .expect("rows");
    }
    for daemon in daemons.all() {
        daemon.start().expect("a daemon");
    }
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    let adopted = async |states: [&str; 3]| {
        until(
            "the database is taken over",
            PATIENCE,
            Duration::from_millis(100),
            async || {
                let Ok(status) = daemons.ask_leader("/api/raft-status").await else {
                    return Look::not("no answer");
                };
                let mut held = status["Originals"].as_array().cloned().unwrap_or_default();
                held.sort_by_key(|row| row["LastSeen"].as_str().map(str::to_owned));
                let found: Vec<&str> = held
                    .iter()
                    .filter_map(|row| row["State"].as_str())
                    .collect();
                if found == states {
                    Look::Holds(())
                } else {
                    Look::not(format!("{held:?}"))
                }
            },
        )
        .await
    };
    adopted(["kept aside", "kept aside", "adopted"])
        .await
        .expect("adopted");
    let ask = async |path: &str| daemons.ask_leader(path).await.expect(path);
    let tag = ask("/api/tag-value/db2/3306/rack").await;
    assert_eq!(tag, "of daemon 1");
    let downtimed = ask("/api/downtimed").await;
    assert_eq!(downtimed[0]["DowntimeOwner"], "anna", "{downtimed:#}");
    assert_eq!(
        ask("/api/check-global-recoveries").await["Details"],
        "disabled"
    );
    let recoveries = ask("/api/audit-recovery").await;
    let ids: Vec<i64> = recoveries
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["Id"].as_i64())
        .collect();
    assert_eq!(ids, [8, 3], "{recoveries:#}");
    assert_eq!(recoveries[1]["SuccessorKey"]["Hostname"], "db2");
    let steps = ask("/api/audit-recovery-steps/1604192401000000000:5e4f").await;
    assert_eq!(steps[0]["Message"], "will handle DeadMaster", "{steps:#}");

    // People know better which of them is right.
    let first = daemons.all()[0].raft();
    ask(&format!("/api/v2/adopt-original/{first}")).await;
    adopted(["adopted", "kept aside", "kept aside"])
        .await
        .expect("adopted");
}
