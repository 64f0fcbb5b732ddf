//! The grants files are enough: every kind of statement that the daemon sends is run on a real
//! server by an account that has exactly those rights, and the fence they allow holds against a
//! client that has data rights only.
//!
//! A missing server program fails the test with the command that installs it.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::time::Duration;

use orchestrator::env::TokioEnv;
use orchestrator::fleet::Fleet as _;
use orchestrator::mysql::{Mysql, ProbeSettings, TlsMode};
use orchestrator::raft::init_certificates;
use orchestrator_core::id::InstanceKey;
use orchestrator_core::topology::{ProbeReport, ThroughFence};
use orchestrator_tests::fleet::{
    Flavour, Fleet, FleetOptions, ReplicationTiming, grant_statements,
};
use orchestrator_tests::process::Scratch;
use orchestrator_tests::sql::{APP, Account, ORCHESTRATOR, Sql};

/// Error codes that mean "this account may not": access denied in its forms (ER_ACCESS_DENIED_ERROR
/// 1045, ER_DBACCESS_DENIED_ERROR 1044, ER_TABLEACCESS_DENIED_ERROR 1142, ER_COLUMNACCESS_DENIED_ERROR
/// 1143, ER_SPECIFIC_ACCESS_DENIED_ERROR 1227, ER_KILL_DENIED_ERROR 1095, MySQL's 3619 and 3879).
const DENIED: [u16; 8] = [1044, 1045, 1095, 1142, 1143, 1227, 3619, 3879];

async fn pair(flavour: Flavour) -> Fleet {
    Fleet::start(FleetOptions {
        flavour,
        servers: 2,
        timing: ReplicationTiming::Quick,
    })
    .await
    .expect("fleet")
}

/// Runs the statements in order as the daemons' account; a list of those refused. Any other error
/// is listed too, so that a misspelt statement does not pass for an allowed one.
async fn refused(fleet: &Fleet, port: u16, statements: &[&str]) -> Vec<String> {
    let mut sql = fleet
        .server(port)
        .expect("server")
        .orchestrator()
        .await
        .expect("login");
    let mut refused = Vec::new();
    for statement in statements {
        if let Err(error) = sql.rows(statement).await {
            let kind = if error.code().is_some_and(|code| DENIED.contains(&code)) {
                "denied"
            } else {
                "failed"
            };
            refused.push(format!("{kind}: {statement}: {error}"));
        }
    }
    sql.close().await;
    refused
}

const LOOK_BOTH: &[&str] = &[
    "SELECT @@GLOBAL.read_only, @@GLOBAL.server_id, @@GLOBAL.version, @@GLOBAL.hostname, @@GLOBAL.report_host, @@GLOBAL.report_port",
    "SHOW GLOBAL STATUS LIKE 'Uptime'",
    "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync%'",
    "SHOW GLOBAL STATUS LIKE 'rpl_semi_sync%'",
    "SHOW PROCESSLIST",
    "SELECT id, user, host, command, time FROM information_schema.processlist WHERE command IN ('Binlog Dump', 'Binlog Dump GTID')",
    "SHOW BINARY LOGS",
    "SHOW BINLOG EVENTS LIMIT 1",
    "SHOW PLUGINS",
    "SELECT SLEEP(0.01)",
    "SELECT GET_LOCK('orchestrator/act', 1)",
    "SELECT IS_USED_LOCK('orchestrator/act')",
    "SELECT RELEASE_LOCK('orchestrator/act')",
    "FLUSH BINARY LOGS",
    "PURGE BINARY LOGS BEFORE '2000-01-01 00:00:00'",
    "SELECT user, password FROM meta.replication_account",
];

const MARIADB_LOOK: &[&str] = &[
    "SHOW ALL SLAVES STATUS",
    "SHOW SLAVE STATUS",
    "SHOW MASTER STATUS",
    "SHOW SLAVE HOSTS",
    "SHOW RELAYLOG EVENTS LIMIT 1",
    "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_current_pos, @@GLOBAL.gtid_binlog_state",
    "SELECT @@GLOBAL.rpl_semi_sync_master_enabled, @@GLOBAL.event_scheduler",
];

const MYSQL_LOOK: &[&str] = &[
    "SHOW REPLICA STATUS",
    "SHOW REPLICAS",
    "SHOW BINARY LOG STATUS",
    "SHOW RELAYLOG EVENTS LIMIT 1",
    "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.server_uuid, @@GLOBAL.super_read_only, @@GLOBAL.offline_mode",
    "SELECT * FROM performance_schema.replication_connection_status",
    "SELECT * FROM performance_schema.replication_connection_configuration",
    "SELECT * FROM performance_schema.replication_applier_status",
    "SELECT * FROM performance_schema.replication_applier_status_by_coordinator",
    "SELECT * FROM performance_schema.replication_applier_status_by_worker",
    "SELECT * FROM performance_schema.replication_group_members",
    "SELECT * FROM performance_schema.processlist LIMIT 1",
    "SELECT * FROM performance_schema.threads LIMIT 1",
    "SELECT * FROM performance_schema.global_variables LIMIT 1",
    "SELECT * FROM performance_schema.persisted_variables LIMIT 1",
    "SELECT Host, User_name, User_password FROM mysql.slave_master_info",
];

/// On the replica, in an order that loses nothing: the halt, the repoint, the promotion, the tidy-up.
const MARIADB_REPLICA: &[&str] = &[
    "START SLAVE SQL_THREAD",
    "STOP SLAVE IO_THREAD",
    "START SLAVE IO_THREAD",
    "STOP SLAVE",
    "CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD=2, MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
    "RESET SLAVE",
    "START SLAVE",
    "STOP SLAVE",
    "SET GLOBAL gtid_slave_pos=@@GLOBAL.gtid_slave_pos",
    "SET GLOBAL rpl_semi_sync_slave_enabled=0",
    "SET GLOBAL rpl_semi_sync_master_enabled=0",
    "SET GLOBAL rpl_semi_sync_master_timeout=10000",
    "SET GLOBAL slave_net_timeout=60",
    "RESET SLAVE ALL",
    "SET GLOBAL read_only=0",
    "SET GLOBAL event_scheduler=OFF",
    "SET GLOBAL read_only=1",
    "SET SESSION sql_log_bin=0",
    "SET SESSION sql_log_bin=1",
    "RESET MASTER",
];

const MYSQL_REPLICA: &[&str] = &[
    "START REPLICA SQL_THREAD",
    "STOP REPLICA IO_THREAD",
    "START REPLICA IO_THREAD",
    "STOP REPLICA",
    "CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD=2, SOURCE_CONNECT_RETRY=1",
    "RESET REPLICA",
    "START REPLICA",
    "STOP REPLICA",
    "SET GLOBAL rpl_semi_sync_replica_enabled=0",
    "SET GLOBAL rpl_semi_sync_source_enabled=0",
    "SET GLOBAL rpl_semi_sync_source_timeout=10000",
    "SET GLOBAL rpl_semi_sync_source_wait_for_replica_count=1",
    "SET GLOBAL replica_net_timeout=60",
    "RESET REPLICA ALL",
    "SET GLOBAL super_read_only=0",
    "SET GLOBAL read_only=0",
    "SET GLOBAL event_scheduler=OFF",
    "SET GLOBAL super_read_only=1",
    "SET SESSION sql_log_bin=0",
    "SET SESSION sql_log_bin=1",
    "SET GLOBAL read_only=0",
    "SET GTID_NEXT='aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1'",
    "BEGIN",
    "COMMIT",
    "SET GTID_NEXT='AUTOMATIC'",
    "RESET BINARY LOGS AND GTIDS",
];

async fn everything_is_allowed(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let [primary, replica] = fleet.ports()[..] else {
        panic!("two servers")
    };
    let (look, repair) = match flavour {
        Flavour::MariaDb => (MARIADB_LOOK, MARIADB_REPLICA),
        Flavour::MySql => (MYSQL_LOOK, MYSQL_REPLICA),
    };
    let mut refusals = Vec::new();
    for port in [primary, replica] {
        refusals.extend(refused(&fleet, port, LOOK_BOTH).await);
        refusals.extend(refused(&fleet, port, look).await);
    }
    refusals.extend(refused(&fleet, replica, repair).await);
    assert!(refusals.is_empty(), "{flavour}:\n{}", refusals.join("\n"));
}

/// Fences a primary under a client: after it the client's session is gone and it cannot write, while
/// replication still runs.
async fn the_fence_holds(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let [primary, replica] = fleet.ports()[..] else {
        panic!("two servers")
    };
    let deadline = Duration::from_secs(10);
    let mut client = Sql::connect(primary, APP, deadline).await.expect("client");
    client
        .run("INSERT INTO app.ledger VALUES (1, 1)")
        .await
        .expect("write before the fence");

    let mut fence = fleet
        .server(primary)
        .expect("server")
        .orchestrator()
        .await
        .expect("login");
    fence.run(fence_of(flavour)).await.expect("read-only");
    let refusal = client
        .run("INSERT INTO app.ledger VALUES (1, 2)")
        .await
        .expect_err("write after the fence");
    assert_eq!(refusal.code(), Some(1290), "{refusal}");

    let session = client
        .value("SELECT CONNECTION_ID()")
        .await
        .expect("session");
    fence
        .run(&format!("KILL {session}"))
        .await
        .expect("kill of a client's session");
    let ended = client
        .run("SELECT 1")
        .await
        .expect_err("the session was killed");
    assert!(ended.code() != Some(1290), "{ended}");

    fleet
        .wait_replicates(replica, primary, deadline)
        .await
        .expect("replication goes on");
    fleet
        .server(primary)
        .expect("server")
        .harness()
        .await
        .expect("login");
}

/// The client's account has data rights in its schema and no others: a ledger written with more
/// rights would walk through MariaDB's read_only and hide a broken fence.
async fn clients_have_data_rights_only(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let port = fleet.ports()[0];
    let Account { user, .. } = APP;
    let mut client = Sql::connect(port, APP, Duration::from_secs(10))
        .await
        .expect("client");
    for statement in [
        "SET GLOBAL read_only=0",
        "CREATE TABLE app.other (id INT)",
        "SELECT * FROM meta.replication_account",
    ] {
        let error = client.run(statement).await.expect_err(statement);
        assert!(
            error.code().is_some_and(|code| DENIED.contains(&code)),
            "{user}: {statement}: {error}"
        );
    }
}

/// No right is asked for that nothing needs: each is taken away in turn, and something more is
/// refused. MariaDB 10.11 lets SUPER stand for rights that 11.0 wants by name, so they are judged
/// without it.
async fn every_right_is_needed(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let port = fleet.ports()[1];
    let mut harness = fleet
        .server(port)
        .expect("server")
        .harness()
        .await
        .expect("login");
    let from = format!("ON *.* FROM '{}'@'%'", ORCHESTRATOR.user);
    let without_super: &[String] = match flavour {
        Flavour::MariaDb => &[format!("REVOKE SUPER {from}")],
        Flavour::MySql => &[],
    };
    let all = denied_without(&fleet, port, &mut harness, &[]).await;
    assert_eq!(all, 0, "with every right nothing is denied");
    let fewer = denied_without(&fleet, port, &mut harness, without_super).await;
    let mut idle = Vec::new();
    for (right, level) in granted_rights(flavour) {
        let revoke = format!("REVOKE {right} ON {level} FROM '{}'@'%'", ORCHESTRATOR.user);
        let (revokes, baseline) = if right == "SUPER" {
            (vec![revoke], all)
        } else {
            (
                without_super.iter().cloned().chain([revoke]).collect(),
                fewer,
            )
        };
        if denied_without(&fleet, port, &mut harness, &revokes).await <= baseline {
            idle.push(format!("{right} ON {level}"));
        }
    }
    assert_eq!(idle, Vec::<String>::new(), "{flavour}: nothing needs these");
}

/// Each right of the grants file with its level.
fn granted_rights(flavour: Flavour) -> Vec<(String, String)> {
    grant_statements(flavour)
        .iter()
        .filter_map(|statement| statement.strip_prefix("GRANT "))
        .flat_map(|grant| {
            let (rights, rest) = grant.split_once(" ON ").expect("GRANT rights ON level");
            let (level, _) = rest.split_once(" TO ").expect("GRANT ... TO account");
            rights
                .split(", ")
                .map(|right| (right.to_owned(), level.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// How many statements are denied after these rights were taken away, which are then given back.
async fn denied_without(fleet: &Fleet, port: u16, harness: &mut Sql, revokes: &[String]) -> usize {
    let flavour = fleet.flavour();
    harness.run_all(revokes).await.expect("revoke");
    let (look, repair) = match flavour {
        Flavour::MariaDb => (MARIADB_LOOK, MARIADB_REPLICA),
        Flavour::MySql => (MYSQL_LOOK, MYSQL_REPLICA),
    };
    let mut denied = usize::from(!sees_and_ends_sessions(fleet, port).await);
    for statements in [LOOK_BOTH, look, repair] {
        let refusals = refused(fleet, port, statements).await;
        denied += refusals
            .iter()
            .filter(|refusal| refusal.starts_with("denied"))
            .count();
    }
    harness
        .run_all(["SET GLOBAL read_only=0"])
        .await
        .expect("writable");
    harness
        .run_all(grant_statements(flavour))
        .await
        .expect("grants");
    denied
}

/// Whether the daemons' account sees a client's session in the process list and may end it.
async fn sees_and_ends_sessions(fleet: &Fleet, port: u16) -> bool {
    let mut client = Sql::connect(port, APP, Duration::from_secs(10))
        .await
        .expect("client");
    let session = client
        .value("SELECT CONNECTION_ID()")
        .await
        .expect("session");
    let mut sql = fleet
        .server(port)
        .expect("server")
        .orchestrator()
        .await
        .expect("login");
    let seen = sql
        .value(&format!(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE id = {session}"
        ))
        .await
        .is_ok_and(|count| count == "1");
    seen && sql.run(&format!("KILL {session}")).await.is_ok()
}

/// Whom a fence does not stop: those accounts write in spite of it, and are named where our account may read them, which
/// nothing needs. MySQL's fence stops everybody.
async fn who_writes_through_the_fence_is_named(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let server = fleet.server(fleet.ports()[0]).expect("server");
    let mut harness = server.harness().await.expect("login");
    let (role, read_only, mighty) = match flavour {
        Flavour::MariaDb => ("openers", "READ_ONLY ADMIN", "SUPER"),
        Flavour::MySql => (
            "'openers'@'%'",
            "SYSTEM_VARIABLES_ADMIN",
            "SUPER, CONNECTION_ADMIN",
        ),
    };
    let default_role = match flavour {
        Flavour::MariaDb => format!("SET DEFAULT ROLE {role} FOR 'roled'@'%'"),
        Flavour::MySql => format!("SET DEFAULT ROLE {role} TO 'roled'@'%'"),
    };
    let users = ["mighty", "narrow", "roled", "single", "wide"];
    let mut statements = vec![
        format!("CREATE ROLE {role}"),
        format!("GRANT {read_only} ON *.* TO {role}"),
    ];
    for user in users {
        statements.push(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'"));
        statements.push(format!("GRANT INSERT ON app.* TO '{user}'@'%'"));
    }
    statements.extend([
        format!("GRANT {role} TO 'roled'@'%'"),
        default_role,
        format!("GRANT {mighty} ON *.* TO 'mighty'@'%'"),
        format!("GRANT {read_only} ON *.* TO 'single'@'%'"),
        "GRANT ALL PRIVILEGES ON *.* TO 'wide'@'%'".to_owned(),
        "CREATE USER 'locked'@'%' IDENTIFIED BY 'secret' ACCOUNT LOCK".to_owned(),
        "GRANT ALL PRIVILEGES ON *.* TO 'locked'@'%'".to_owned(),
        fence_of(flavour).to_owned(),
    ]);
    harness.run_all(statements).await.expect("accounts");

    let mut writers = Vec::new();
    for user in users {
        let account = Account {
            user,
            password: "secret",
        };
        let mut client = Sql::connect(server.port(), account, Duration::from_secs(10))
            .await
            .expect("login");
        let write = "INSERT INTO app.note (text) VALUES ('in spite of the fence')";
        match client.run(write).await {
            Ok(_) => writers.push(format!("'{user}'@'%'")),
            Err(error) => assert_eq!(error.code(), Some(1290), "{user}: {error}"),
        }
    }
    harness.run("SET GLOBAL read_only=0").await.expect("open");

    let found = report_of(server.port(), ORCHESTRATOR.user, ORCHESTRATOR.password).await;
    let found = found.expect("a report");
    assert_eq!(found.missing_privileges, []);
    assert_eq!(found.refused, []);
    let Flavour::MariaDb = flavour else {
        assert_eq!(writers, Vec::<String>::new());
        assert_eq!(found.through_fence, ThroughFence::Nobody);
        return;
    };
    assert_eq!(writers, ["'roled'@'%'", "'single'@'%'", "'wide'@'%'"]);
    let ThroughFence::Unknown { grant } = found.through_fence else {
        panic!("{:?}", found.through_fence)
    };
    // The statement that is named mends it.
    harness.run(&grant).await.expect("the named grant");
    let found = report_of(server.port(), ORCHESTRATOR.user, ORCHESTRATOR.password).await;
    // The harness may do everything too.
    writers.insert(0, "'harness'@'%'".to_owned());
    assert_eq!(
        found.expect("a report").through_fence,
        ThroughFence::Accounts {
            named: writers,
            has_more: false
        }
    );
}

/// The daemons' fence.
const fn fence_of(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::MariaDb => "SET GLOBAL read_only=1",
        Flavour::MySql => "SET GLOBAL super_read_only=1",
    }
}

/// A login on a machine that stands still takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a probe by that account finds.
async fn report_of(port: u16, user: &str, password: &str) -> Result<ProbeReport, String> {
    let fleet = Mysql::<TokioEnv>::new(ProbeSettings {
        user: user.to_owned(),
        password: password.to_owned(),
        discover_by_show_replicas: true,
        tls_skip_verify: true,
        connect_timeout: PATIENCE,
        ..ProbeSettings::default()
    });
    let end = fleet.probe(InstanceKey::new("127.0.0.1", port)).await;
    end.result
        .map(|report| *report)
        .map_err(|failure| failure.to_string())
}

/// What the daemon finds that an account of this name lacks, or why it cannot tell.
async fn judged(port: u16, user: &str) -> Result<Vec<String>, String> {
    let report = report_of(port, user, "secret").await?;
    match report.privileges_unknown {
        Some(why) => Err(why),
        None => Ok(report
            .missing_privileges
            .iter()
            .map(|missing| missing.grant.clone())
            .collect()),
    }
}

/// Rights that an account has by its role count while the role is active, and only then.
async fn rights_by_roles_count(flavour: Flavour) {
    let fleet = pair(flavour).await;
    let port = fleet.ports()[0];
    let mut harness = fleet
        .server(port)
        .expect("server")
        .harness()
        .await
        .expect("login");
    let (role, account) = match flavour {
        Flavour::MariaDb => ("failover", "'roled'@'%'"),
        Flavour::MySql => ("'failover'@'%'", "'roled'@'%'"),
    };
    let mut statements = vec![
        format!("CREATE ROLE {role}"),
        format!("CREATE USER {account} IDENTIFIED BY 'secret'"),
        format!("GRANT {role} TO {account}"),
    ];
    for (right, level) in granted_rights(flavour) {
        statements.push(format!("GRANT {right} ON {level} TO {role}"));
    }
    harness.run_all(statements).await.expect("a role");

    // Granted, and not active at login: as good as nothing, and no statement of a probe is allowed.
    let inactive = judged(port, "roled").await;
    assert!(
        inactive
            .as_ref()
            .is_err_and(|failure| failure.contains("1227"))
            || inactive.as_ref().is_ok_and(|missing| missing.len() > 5),
        "{flavour}: {inactive:?}"
    );

    let by_default = match flavour {
        Flavour::MariaDb => format!("SET DEFAULT ROLE {role} FOR {account}"),
        Flavour::MySql => format!("SET DEFAULT ROLE {role} TO {account}"),
    };
    harness.run(&by_default).await.expect("a default role");
    assert_eq!(
        judged(port, "roled").await,
        Ok(Vec::new()),
        "{flavour}: the role holds all"
    );

    let right = match flavour {
        Flavour::MariaDb => "READ_ONLY ADMIN",
        Flavour::MySql => "SYSTEM_VARIABLES_ADMIN",
    };
    harness
        .run(&format!("REVOKE {right} ON *.* FROM {role}"))
        .await
        .expect("revoke");
    let missing = judged(port, "roled").await.expect("judged");
    assert!(
        !missing.is_empty()
            && missing
                .iter()
                .all(|grant| grant.starts_with(&format!("GRANT {right} ON *.* TO "))),
        "{flavour}: {missing:?}"
    );
    // The statement that is named mends it.
    harness.run(&missing[0]).await.expect("the named grant");
    assert_eq!(judged(port, "roled").await, Ok(Vec::new()), "{flavour}");
}

/// A server is believed by a certificate of the authority that is given, for the name that was dialled, and by no other; one
/// that asks for ours believes it by its own authority. Each refusal is one by a server that lives.
#[tokio::test]
async fn mysql_certificates_of_both_sides_are_checked() {
    let fleet = pair(Flavour::MySql).await;
    let port = fleet.ports()[0];
    let server = fleet.server(port).expect("server");
    let mut harness = server.harness().await.expect("login");
    let scratch = Scratch::create("certificates").expect("a folder");
    let (ours, strange) = (scratch.path().join("ours"), scratch.path().join("strange"));
    let hosts = ["127.0.0.1", "daemon"].map(str::to_owned);
    for folder in [&ours, &strange] {
        init_certificates(folder, &hosts).expect("certificates");
    }
    let file = |folder: &Path, name: &str| folder.join(name);
    let set = |variable: &str, name: &str| {
        format!("SET GLOBAL {variable}='{}'", file(&ours, name).display())
    };
    harness
        .run_all([
            set("ssl_ca", "ca.pem"),
            set("ssl_cert", "127.0.0.1.pem"),
            set("ssl_key", "127.0.0.1.key"),
            "ALTER INSTANCE RELOAD TLS".to_owned(),
            "CREATE USER 'certified'@'%' IDENTIFIED BY 'secret' REQUIRE X509".to_owned(),
            "GRANT ALL ON *.* TO 'certified'@'%'".to_owned(),
        ])
        .await
        .expect("TLS with certificates of ours");

    let probe = async |authority: Option<&Path>, identity: Option<&Path>| {
        let fleet = Mysql::<TokioEnv>::new(ProbeSettings {
            user: "certified".to_owned(),
            password: "secret".to_owned(),
            tls: TlsMode::Required,
            tls_ca: authority.map(|folder| file(folder, "ca.pem")),
            tls_cert: identity.map(|folder| file(folder, "daemon.pem")),
            tls_key: identity.map(|folder| file(folder, "daemon.key")),
            connect_timeout: PATIENCE,
            ..ProbeSettings::default()
        });
        let end = fleet.probe(InstanceKey::new("127.0.0.1", port)).await;
        end.result.map(drop).map_err(|failure| failure.to_string())
    };
    assert_eq!(probe(Some(&ours), Some(&ours)).await, Ok(()));
    for (authority, identity, said) in [
        (Some(&strange), Some(&ours), "error 2026"),
        (None, Some(&ours), "error 2026"),
        (Some(&ours), None, "error 1045"),
        (Some(&ours), Some(&strange), "error 2026"),
    ] {
        let outcome = probe(authority.map(|path| &**path), identity.map(|path| &**path)).await;
        println!("authority {authority:?}, identity {identity:?}: {outcome:?}");
        assert!(
            outcome
                .as_ref()
                .is_err_and(|failure| failure.contains(said)),
            "authority {authority:?}, identity {identity:?}: {outcome:?}"
        );
    }
    // A certificate for another name than was dialled.
    harness
        .run_all([
            set("ssl_cert", "daemon.pem"),
            set("ssl_key", "daemon.key"),
            "ALTER INSTANCE RELOAD TLS".to_owned(),
        ])
        .await
        .expect("another certificate of ours");
    let outcome = probe(Some(&ours), Some(&ours)).await;
    assert!(
        outcome
            .as_ref()
            .is_err_and(|failure| failure.contains("error 2026")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn mariadb_who_writes_through_the_fence_is_named() {
    who_writes_through_the_fence_is_named(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_who_writes_through_the_fence_is_named() {
    who_writes_through_the_fence_is_named(Flavour::MySql).await;
}

#[tokio::test]
async fn mariadb_rights_by_roles_count() {
    rights_by_roles_count(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_rights_by_roles_count() {
    rights_by_roles_count(Flavour::MySql).await;
}

#[tokio::test]
async fn mariadb_grants_allow_every_statement() {
    everything_is_allowed(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_grants_allow_every_statement() {
    everything_is_allowed(Flavour::MySql).await;
}

#[tokio::test]
async fn mariadb_fence_holds() {
    the_fence_holds(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_fence_holds() {
    the_fence_holds(Flavour::MySql).await;
}

#[tokio::test]
async fn mariadb_clients_have_data_rights_only() {
    clients_have_data_rights_only(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_clients_have_data_rights_only() {
    clients_have_data_rights_only(Flavour::MySql).await;
}

#[tokio::test]
async fn mariadb_needs_every_right() {
    every_right_is_needed(Flavour::MariaDb).await;
}

#[tokio::test]
async fn mysql_needs_every_right() {
    every_right_is_needed(Flavour::MySql).await;
}
