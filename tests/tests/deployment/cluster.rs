//! One cluster of three without a fleet: what each daemon says of itself, and of the others; and daemons that crash, one and
//! all, and catch up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestrator_tests::backends;
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, get, steady_timers};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Strike, World};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{DEADLINE, PATIENCE, TURN};

fn start(settings: Value) -> Daemons {
    let mut options = DaemonOptions::default_configuration();
    options.settings = settings.as_object().expect("an object").clone();
    Daemons::start(&options).expect("daemons")
}

async fn document(daemon: &Daemon, path: &str) -> Value {
    let reply = daemon.get(path, DEADLINE).await.expect("an answer");
    reply.json().expect("a document")
}

async fn wait_for(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Look<()>) {
    let looked = until(what, patience, Duration::from_millis(50), async || {
        look().await
    });
    looked.await.expect(what);
}

async fn wait_healthy(daemon: &Daemon, patience: Duration) {
    let what = format!("{} is healthy", daemon.url());
    wait_for(&what, patience, async || {
        match daemon.get("/api/raft-health", DEADLINE).await {
            Ok(reply) if reply.status == 200 => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    })
    .await;
}

fn database(daemon: &Daemon) -> Connection {
    Connection::open(daemon.folder().join("orchestrator.db")).expect("a database")
}

/// The rows of a table, as text, in order.
fn rows(daemon: &Daemon, table: &str) -> Vec<String> {
    let database = database(daemon);
    let mut statement = database
        .prepare(&format!("SELECT * FROM {table}"))
        .expect(table);
    let columns = statement.column_count();
    let read = statement.query_map([], |row| {
        let values: Result<Vec<rusqlite::types::Value>, _> =
            (0..columns).map(|column| row.get(column)).collect();
        Ok(format!("{:?}", values?))
    });
    let read: Result<Vec<String>, _> = read.expect(table).collect();
    let mut rows = read.expect(table);
    rows.sort();
    rows
}

/// Tables that are the same on each daemon.
const REPLICATED: &[&str] = &[
    "database_instance_tags",
    "database_instance_downtime",
    "candidate_database_instance",
    "cluster_alias",
    "cluster_alias_override",
    "topology_failure_detection",
    "topology_recovery",
    "topology_recovery_steps",
    "blocked_topology_recovery",
    "global_recovery_disable",
];

async fn wait_same(daemons: &Daemons) {
    let [one, others @ ..] = daemons.all() else {
        panic!("daemons");
    };
    for table in REPLICATED {
        let what = format!("{table} is the same everywhere");
        wait_for(&what, PATIENCE, async || {
            let wanted = rows(one, table);
            match others.iter().find(|other| rows(other, table) != wanted) {
                None => Look::Holds(()),
                Some(other) => Look::not(format!("{wanted:?} and {:?}", rows(other, table))),
            }
        })
        .await;
    }
}

/// Asks whoever leads, until it is done.
async fn change(daemons: &Daemons, path: &str) {
    wait_for(path, PATIENCE, async || {
        match daemons.ask_leader(path).await {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::not(format!("{error:#}")),
        }
    })
    .await;
}

#[tokio::test]
async fn each_daemon_answers_for_itself() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::steady();
    let port = String::from("DefaultRaftPort");
    options.settings.insert(port, json!(10_009));
    let daemons = Daemons::start(&options).expect("daemons");
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    for daemon in daemons.all() {
        wait_healthy(daemon, PATIENCE).await;
    }
    let raft = |daemon: &Daemon| format!("{}:10009", daemon.address());
    let everybody: BTreeSet<String> = daemons.all().iter().map(raft).collect();

    // The port of every address without one.
    for daemon in daemons.all() {
        let address = daemon.address();
        assert!(TcpStream::connect((address, 10_009)).await.is_ok());
        assert!(TcpStream::connect((address, 10_008)).await.is_err());
    }

    // The same members and leader everywhere, one leader and two followers.
    wait_for("the same everywhere", PATIENCE, async || {
        let mut states = Vec::new();
        for daemon in daemons.all() {
            let status = document(daemon, "/api/raft-status").await;
            let peers: BTreeSet<String> =
                serde_json::from_value(status["Peers"].clone()).expect("names");
            let is_so = peers == everybody
                && status["Leader"] == raft(leader)
                && status["RaftAdvertise"] == raft(daemon)
                && status["LeaderURI"] == leader.url();
            if !is_so {
                return Look::not(format!("{status:#}"));
            }
            states.push(status["State"].as_str().unwrap_or_default().to_owned());
        }
        states.sort();
        match states == ["Follower", "Follower", "Leader"] {
            true => Look::Holds(()),
            false => Look::not(format!("{states:?}")),
        }
    })
    .await;

    // What is asked about a daemon is answered by that daemon, to HEAD too, and with a status of choice.
    for daemon in daemons.all() {
        let leads = daemon.http() == leader.http();
        let refused = |status| if leads { 200 } else { status };
        for (path, status, body) in [
            (
                "/api/leader-check",
                refused(404),
                if leads { "\"OK\"" } else { "\"Not leader\"" },
            ),
            (
                "/api/leader-check/503",
                refused(503),
                if leads { "\"OK\"" } else { "\"Not leader\"" },
            ),
            ("/api/routed-leader-check", 200, "\"OK\""),
            (
                "/api/raft-state",
                200,
                if leads { "\"Leader\"" } else { "\"Follower\"" },
            ),
            ("/api/raft-health", 200, "\"healthy\""),
            ("/api/raft-leader", 200, &format!("\"{}\"", raft(leader))),
            ("/api/lb-check", 200, "\"OK\""),
            ("/api/_ping", 200, "\"OK\""),
        ] {
            let reply = daemon.get(path, DEADLINE).await.expect("an answer");
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (status, body),
                "{path}"
            );
            let head = Command::new("curl")
                .args(["--silent", "--head", "--output", "/dev/null"])
                .args(["--write-out", "%{http_code}"])
                .arg(format!("{}{path}", daemon.url()))
                .output();
            let head = head.await.expect("curl; type:  tests/setup.sh client");
            assert_eq!(
                String::from_utf8_lossy(&head.stdout),
                status.to_string(),
                "HEAD {path}"
            );
        }
        for path in ["/api/health", "/api/status"] {
            let health = document(daemon, path).await;
            let details = &health["Details"];
            assert_eq!(details["RaftAdvertise"], raft(daemon), "{health:#}");
            assert_eq!(details["IsRaftLeader"], leads, "{health:#}");
            assert_eq!(details["RaftLeader"], raft(leader), "{health:#}");
            assert_eq!(details["Healthy"], true, "{health:#}");
            // One of them is this daemon itself: no other one writes that row.
            let own = daemon.token().expect("its row");
            let nodes = details["AvailableNodes"].as_array().cloned();
            let is_listed =
                nodes.is_some_and(|nodes| nodes.iter().any(|node| node["Token"] == own));
            assert!(is_listed, "{own}: {health:#}");
        }
    }

    // And of those that a request names.
    let path = "/api/raft-remove-peer/127.0.0.99";
    let reply = leader.get(path, DEADLINE).await.expect("an answer");
    assert!(reply.body.contains("127.0.0.99:10009"), "{}", reply.body);

    // A member that is away is missed by the leader's list, and comes back to it.
    let follower = daemons
        .all()
        .iter()
        .find(|daemon| daemon.http() != leader.http())
        .expect("a follower");
    let healthy_members = async |patience: Duration, wanted: usize| {
        wait_for("the leader's list", patience, async || {
            let health = document(leader, "/api/health").await;
            match &health["Details"]["RaftHealthyMembers"] {
                Value::Array(members) if members.len() == wanted => Look::Holds(()),
                other => Look::not(other),
            }
        })
        .await;
    };
    healthy_members(Duration::from_secs(20), 3).await;
    follower.kill().await.expect("killed");
    healthy_members(Duration::from_secs(30), 2).await;
    for daemon in daemons.all().iter().filter(|daemon| daemon.is_running()) {
        let what = format!("{} misses the member", daemon.url());
        wait_for(&what, PATIENCE, async || {
            let health = document(daemon, "/api/v2/health").await;
            let said = health["Warnings"].to_string();
            let is_missed = health["Missing"] == json!([raft(follower)])
                && health["Healthy"] == true
                && health["Leader"]["Address"] == raft(leader)
                && said.contains("it was heard of last")
                && said.contains("no further one may be lost");
            match is_missed {
                true => Look::Holds(()),
                false => Look::not(format!("{health:#}")),
            }
        })
        .await;
    }
    follower.start().expect("started");
    healthy_members(Duration::from_secs(30), 3).await;

    // Two are away: what is left says what keeps it from being healthy.
    for daemon in daemons
        .all()
        .iter()
        .filter(|daemon| daemon.http() != follower.http())
    {
        daemon.kill().await.expect("killed");
    }
    wait_for("the last one says why", PATIENCE, async || {
        let reply = follower.get("/api/v2/health", DEADLINE).await;
        let reply = reply.expect("an answer");
        let health = reply.json().expect("a document");
        let is_said = reply.status == 500
            && health["Leader"] == Value::Null
            && health["Missing"]
                .as_array()
                .is_some_and(|missing| missing.len() == 2)
            && health["Reasons"]
                .as_array()
                .is_some_and(|reasons| !reasons.is_empty());
        match is_said {
            true => Look::Holds(()),
            false => Look::not(format!("{health:#}")),
        }
    })
    .await;
}

/// Each daemon writes into its backend that it lives, each second; what somebody else writes there reaches nobody.
#[tokio::test]
async fn a_backend_is_written_by_its_daemon_alone() {
    let _turn = TURN.lock().await;
    let daemons = start(json!({}));
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    change(&daemons, "/api/tag/db1/3306?tag=known").await;
    wait_same(&daemons).await;
    for daemon in daemons.all() {
        let seen = || rows(daemon, "node_health");
        wait_for("a row of its own", PATIENCE, async || match seen().len() {
            1 => Look::Holds(()),
            rows => Look::not(rows),
        })
        .await;
        let before = seen();
        wait_for("it is refreshed", PATIENCE, async || {
            match seen() != before {
                true => Look::Holds(()),
                false => Look::not("the same"),
            }
        })
        .await;
        assert_eq!(seen().len(), 1);
    }

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let follower = daemons
        .all()
        .iter()
        .find(|daemon| daemon.http() != leader.http())
        .expect("a follower");
    let inserted = database(follower).execute(
        "INSERT INTO database_instance_tags (hostname, port, tag_name, tag_value, last_updated) VALUES ('db2', 3306, 'by-hand', \
         '', '2026-01-01 00:00:00')",
        [],
    );
    assert_eq!(inserted.expect("written"), 1);
    change(&daemons, "/api/tag/db3/3306?tag=after").await;
    wait_for("the change is everywhere", PATIENCE, async || {
        let has = |daemon: &Daemon| {
            rows(daemon, "database_instance_tags")
                .iter()
                .any(|row| row.contains("after"))
        };
        match daemons.all().iter().all(has) {
            true => Look::Holds(()),
            false => Look::not("not yet"),
        }
    })
    .await;
    for daemon in daemons.all() {
        let tagged = document(daemon, "/api/tagged?tag=by-hand").await;
        assert_eq!(tagged, json!([]));
        let is_there = rows(daemon, "database_instance_tags")
            .iter()
            .any(|row| row.contains("by-hand"));
        assert_eq!(is_there, daemon.http() == follower.http());
    }
}

/// Three servers of which none replicates from another, each with the backend of one daemon: each holds what was decided while it
/// stands, and no longer.
#[tokio::test]
async fn each_standalone_server_holds_what_is_decided_while_it_stands() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::default_configuration();
    let mut servers = Vec::new();
    for flavour in [Flavour::MariaDb, Flavour::MySql, Flavour::MariaDb] {
        let server = backends::serve(flavour).await.expect("a server");
        options.own.push(backends::settings(&server));
        servers.push(server);
    }
    let daemons = Daemons::start(&options).expect("daemons");
    daemons.wait_whole(PATIENCE).await.expect("whole");
    let known = "SELECT count(*) FROM database_instance";
    let downtime = "SELECT concat(owner, ' ', reason) FROM database_instance_downtime";
    let tag = "SELECT tag_value FROM database_instance_tags";
    let candidate = "SELECT promotion_rule FROM candidate_database_instance";
    for (decided, query, wanted) in [
        // A server that nobody reaches is known all the same.
        ("async-discover/127.0.0.1/1", known, "1"),
        (
            "begin-downtime/127.0.0.1/1/ann/because/1h",
            downtime,
            "ann because",
        ),
        ("tag/127.0.0.1/1?tag=role=main", tag, "main"),
        ("register-candidate/127.0.0.1/1/prefer", candidate, "prefer"),
        ("end-downtime/127.0.0.1/1", downtime, ""),
        ("untag/127.0.0.1/1?tag=role", tag, ""),
        ("forget/127.0.0.1/1", known, "0"),
    ] {
        change(&daemons, &format!("/api/{decided}")).await;
        for (number, server) in (1..).zip(&servers) {
            let what = format!("the server of daemon {number} holds what came of {decided}");
            wait_for(&what, PATIENCE, async || {
                let mut sql = server.servers()[0].harness().await.expect("login");
                let schema = sql.run(&format!("USE orc{number}")).await;
                schema.expect("a schema");
                let said = sql.value(query).await.expect("a table");
                sql.close().await;
                match said == wanted {
                    true => Look::Holds(()),
                    false => Look::not(said),
                }
            })
            .await;
        }
    }
    for server in &servers {
        let status = server.servers()[0].replica_status().await;
        assert!(status.expect("an answer").is_none());
    }
}

/// The daemon's own command line, forced on a follower's machine, writes to that one's backend: no daemon knows of it, not even
/// that one's own, which discards it when it is started again.
#[tokio::test]
async fn a_forced_change_is_in_one_backend_and_gone_with_the_next_start() {
    let _turn = TURN.lock().await;
    let daemons = start(json!({}));
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    // A server that nobody reaches is known all the same.
    change(&daemons, "/api/async-discover/127.0.0.1/1").await;
    change(&daemons, "/api/tag/127.0.0.1/1?tag=decided").await;
    for daemon in daemons.all() {
        wait_for("the server is known", PATIENCE, async || {
            match is_known(daemon, 1) {
                true => Look::Holds(()),
                false => Look::not("not yet"),
            }
        })
        .await;
    }
    wait_same(&daemons).await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let follower = daemons
        .all()
        .iter()
        .find(|daemon| daemon.http() != leader.http())
        .expect("a follower");
    let forced = |words: &[&str]| {
        let mut command = follower.command();
        command.arg("--ignore-raft-setup").args(words);
        let output = command.output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let server = "127.0.0.1:1";
    for words in [
        [
            "-c",
            "begin-downtime",
            "-i",
            server,
            "-reason",
            "a disk",
            "-owner",
            "anna",
            "-duration",
            "2h",
        ]
        .as_slice(),
        &["-c", "tag", "-i", server, "-tag", "by=hand"],
        &["-c", "untag", "-i", server, "-tag", "decided"],
        &[
            "-c",
            "register-candidate",
            "-i",
            server,
            "-promotion-rule",
            "must_not",
        ],
    ] {
        let (is_done, out, err) = forced(words);
        assert!(is_done, "{words:?}: {err}");
        assert_eq!(out, format!("{server}\n"), "{words:?}");
        assert!(err.contains("NO DAEMON KNOWS OF IT"), "{words:?}: {err}");
        assert!(err.contains("discarded"), "{words:?}: {err}");
    }
    for (words, why) in [
        (
            ["-c", "begin-downtime", "-i", server].as_slice(),
            "-reason is needed",
        ),
        (
            &["-c", "begin-downtime", "-i", "nowhere:1", "-reason", "x"],
            "is not known",
        ),
        (&["-c", "tag", "-i", server], "-tag is needed"),
        (
            &["-c", "disable-global-recoveries"],
            "running daemons would not see",
        ),
        (
            &["-c", "ack-all-recoveries", "-reason", "x"],
            "running daemons would not see",
        ),
    ] {
        let (is_done, out, err) = forced(words);
        assert_eq!((is_done, out.as_str()), (false, ""), "{words:?}");
        assert!(err.contains(why), "{words:?}: {err}");
    }

    // While they run and go on writing: it is there, and there only.
    let said = |daemon: &Daemon| {
        [
            "database_instance_downtime",
            "candidate_database_instance",
            "database_instance_tags",
        ]
        .map(|table| rows(daemon, table).concat())
    };
    let is_there = |daemon: &Daemon| {
        let [downtime, candidate, tags] = said(daemon);
        [
            downtime.contains("anna") && downtime.contains("a disk"),
            candidate.contains("must_not"),
            tags.contains("hand"),
            !tags.contains("decided"),
        ]
    };
    change(&daemons, "/api/tag/db2/3306?tag=after").await;
    for daemon in daemons.all() {
        wait_for("the change is everywhere", PATIENCE, async || {
            match said(daemon).concat().contains("after") {
                true => Look::Holds(()),
                false => Look::not(format!("{:?}", said(daemon))),
            }
        })
        .await;
        let is_follower = daemon.http() == follower.http();
        assert_eq!(is_there(daemon), [is_follower; 4], "{:?}", said(daemon));
        assert_eq!(document(daemon, "/api/tagged?tag=by").await, json!([]));
        assert_eq!(document(daemon, "/api/downtimed").await, json!([]));
        let decided = document(daemon, "/api/tagged?tag=decided").await;
        assert_eq!(decided.as_array().map(Vec::len), Some(1), "{decided}");
    }
    let (_, out, err) = forced(&["-c", "which-downtimed-instances"]);
    assert_eq!(out, format!("{server}\n"), "{err}");
    let (is_done, out, err) = forced(&["-c", "end-downtime", "-i", server]);
    assert!(is_done && out == format!("{server}\n"), "{err}");
    assert_eq!(rows(follower, "database_instance_downtime").len(), 0);

    // Killed, so that nothing tidies up: the next start does.
    follower.kill().await.expect("killed");
    follower.start().expect("started");
    wait_healthy(follower, PATIENCE).await;
    wait_for("it is discarded", PATIENCE, async || {
        match is_there(follower) {
            [false, false, false, false] => Look::Holds(()),
            still => Look::not(format!("{still:?}")),
        }
    })
    .await;
    wait_same(&daemons).await;
}

/// A change that is taken: whoever leads says so.
async fn taken(daemons: &Daemons, path: &str) {
    let answer = daemons.ask_leader(path).await.expect(path);
    assert_eq!(answer["Code"], "OK", "{path}: {answer:#}");
}

/// Whether a daemon's database knows a server of this machine.
fn is_known(daemon: &Daemon, port: u16) -> bool {
    let query = "SELECT count(*) FROM database_instance WHERE hostname = '127.0.0.1' AND port = ?1";
    let count = database(daemon).query_row(query, [port], |row| row.get::<_, i64>(0));
    count.expect("a table") > 0
}

/// The position of a daemon's database, and the digest of the state there: of all of it, also what is in no table.
fn stands(daemon: &Daemon) -> (Option<i64>, String) {
    let query = "SELECT applied_index, digest FROM orchestrator_projection";
    let stands = database(daemon).query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)));
    stands.expect("a row")
}

/// A member that crashed and was away while things were changed and removed, and a fleet was repaired, is healthy soon, and holds what the others hold: by the log, or by a snapshot where the log was cut meanwhile.
async fn comes_back(settings: Value, by_snapshot: bool) {
    let _turn = TURN.lock().await;
    let models = |servers| FleetOptions {
        flavour: Flavour::MariaDb,
        servers,
        timing: ReplicationTiming::Quick,
    };
    let fleet = Fleet::start_models(models(3), "shop").await;
    let lone = Fleet::start_models(models(1), "lone").await;
    let (fleet, lone) = (fleet.expect("a fleet"), lone.expect("a server"));
    let (ports, lone) = (fleet.ports(), lone.ports()[0]);
    let world = World::of(fleet, start(settings))
        .await
        .expect("a fleet that the daemons know");
    let daemons = &world.daemons;
    daemons.wait_discovered(lone).await.expect("discovered");
    let clusters = daemons
        .ask_leader(&format!("/api/instance/127.0.0.1/{}", ports[0]))
        .await;
    let cluster = clusters.expect("a server")["ClusterName"].clone();
    let cluster = cluster.as_str().expect("a name");
    let downtime =
        |port: u16, reason: &str| format!("/api/begin-downtime/127.0.0.1/{port}/ann/{reason}/1h");
    for number in 0..25 {
        taken(daemons, &format!("/api/tag/db{number}/3306?tag=before")).await;
    }
    taken(daemons, &downtime(ports[2], "before")).await;
    taken(
        daemons,
        &format!("/api/set-cluster-alias/{cluster}?alias=before"),
    )
    .await;
    taken(daemons, "/api/disable-global-recoveries").await;
    wait_same(daemons).await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let away = daemons
        .all()
        .iter()
        .find(|daemon| daemon.http() != leader.http())
        .expect("a follower");
    wait_for("the server is known", PATIENCE, async || {
        match is_known(away, lone) {
            true => Look::Holds(()),
            false => Look::not("not yet"),
        }
    })
    .await;
    let index = async |daemon: &Daemon, which: &str| {
        let status = document(daemon, "/api/raft-status").await;
        status[which].as_u64().expect(which)
    };
    let last_held = index(away, "LastLogIndex").await;
    away.kill().await.expect("killed");
    for number in 0..200 {
        let path = match number % 8 {
            0 => format!("/api/untag/db{}/3306?tag=before", number / 8),
            1 => format!("/api/register-candidate/db{number}/3306/prefer"),
            2 => downtime(ports[1], "meanwhile"),
            3 => format!("/api/end-downtime/127.0.0.1/{}", ports[1]),
            4 => format!("/api/set-cluster-alias/{cluster}?alias=alias{number}"),
            5 => format!("/api/register-candidate/db{}/3306/must_not", number - 4),
            _ => format!("/api/tag/db{number}/3306?tag=while=away"),
        };
        taken(daemons, &path).await;
    }
    taken(
        daemons,
        &format!("/api/end-downtime/127.0.0.1/{}", ports[2]),
    )
    .await;
    taken(daemons, &downtime(ports[1], "at-last")).await;
    taken(
        daemons,
        &format!("/api/set-cluster-alias/{cluster}?alias=after"),
    )
    .await;
    taken(daemons, &format!("/api/forget/127.0.0.1/{lone}")).await;
    taken(daemons, "/api/enable-global-recoveries").await;
    world.signal(Strike::KillPrimary).await.expect("killed");
    wait_for("the fleet is repaired", PATIENCE, async || {
        match daemons.audit_recovery().await {
            Ok(recoveries) if recoveries.iter().any(|recovery| recovery.successful) => {
                Look::Holds(())
            }
            other => Look::not(format!("{other:?}")),
        }
    })
    .await;
    if by_snapshot {
        // A log is not cut while some of it is on the way to a member, and that it does not arrive takes a moment to be told.
        // Whoever leads by then has cut it.
        for daemon in daemons.all().iter().filter(|daemon| daemon.is_running()) {
            let what = format!("the log of {} was cut", daemon.url());
            wait_for(&what, PATIENCE, async || {
                match index(daemon, "FirstLogIndex").await {
                    first if first > last_held + 50 => Look::Holds(()),
                    first => Look::not(format!("it begins at {first}, {last_held} is held")),
                }
            })
            .await;
        }
    }
    let log_before = std::fs::read_to_string(away.log()).expect("a log").len();
    let started = Instant::now();
    away.start().expect("started");
    wait_healthy(away, Duration::from_secs(60)).await;
    println!("healthy after {:?}", started.elapsed());
    wait_same(daemons).await;
    wait_for("the digests are the same", PATIENCE, async || {
        let (one, other) = (stands(leader), stands(away));
        if one.0 != other.0 {
            return Look::not(format!("{one:?} and {other:?}"));
        }
        assert_eq!(one, other);
        Look::Holds(())
    })
    .await;
    let has = |table: &str, words: &str| rows(away, table).iter().any(|row| row.contains(words));
    for (table, words, is_there) in [
        ("database_instance_tags", "away", true),
        ("database_instance_tags", "before", false),
        ("database_instance_downtime", "at-last", true),
        ("database_instance_downtime", "before", false),
        ("database_instance_downtime", "meanwhile", false),
        ("candidate_database_instance", "must_not", true),
        ("candidate_database_instance", "prefer", false),
        ("cluster_alias_override", "after", true),
        ("cluster_alias_override", "before", false),
        ("cluster_alias_override", "alias196", false),
        ("topology_recovery", "DeadMaster", true),
    ] {
        assert_eq!(
            has(table, words),
            is_there,
            "{table} {words}: {:?}",
            rows(away, table)
        );
    }
    assert_eq!(rows(away, "global_recovery_disable"), Vec::<String>::new());
    wait_for(
        "the server is forgotten",
        PATIENCE,
        async || match is_known(away, lone) {
            true => Look::not("it is not"),
            false => Look::Holds(()),
        },
    )
    .await;
    let log = std::fs::read_to_string(away.log()).expect("a log");
    let log = &log[log_before..];
    assert_eq!(
        log.contains("a snapshot was received"),
        by_snapshot,
        "{log}"
    );
}

#[tokio::test]
async fn a_crashed_daemon_catches_up_by_the_log() {
    comes_back(json!({}), false).await;
}

#[tokio::test]
async fn a_crashed_daemon_catches_up_by_a_snapshot() {
    let mut settings = steady_timers();
    settings.insert(String::from("RaftSnapshotEntries"), json!(20));
    settings.insert(String::from("RaftLogKeepEntries"), json!(10));
    comes_back(settings.into(), true).await;
}

/// All lose their power while clients write: soon after their return there is a leader, and all that was acknowledged.
#[tokio::test]
async fn all_crash_at_once_and_nothing_acknowledged_is_lost() {
    let _turn = TURN.lock().await;
    let daemons = start(json!({}));
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    let acknowledged = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let (ended, number) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut writers = Vec::new();
    for daemon in daemons.all() {
        let (address, acknowledged) = (daemon.http(), acknowledged.clone());
        let (ended, number) = (ended.clone(), number.clone());
        writers.push(tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let path = format!("/api/tag/db{number}/3306?tag=written");
                match get(address, &path, DEADLINE).await {
                    Ok(reply) if reply.status == 200 => {
                        let mut acknowledged = acknowledged.lock().expect("nobody panicked");
                        acknowledged.insert(format!("db{number}"), Instant::now());
                    }
                    // Not done, or not known.
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        }));
    }
    for round in 0..3 {
        let before = acknowledged.lock().expect("nobody panicked").len();
        wait_for("writes are acknowledged", PATIENCE, async || {
            let count = acknowledged.lock().expect("nobody panicked").len();
            match count >= before + 30 {
                true => Look::Holds(()),
                false => Look::not(count),
            }
        })
        .await;
        for daemon in daemons.all() {
            daemon.signal(Signal::Kill);
        }
        for daemon in daemons.all() {
            daemon.wait_ended(PATIENCE).await.expect("ended");
        }
        let started = Instant::now();
        for daemon in daemons.all() {
            daemon.start().expect("started");
        }
        daemons
            .wait_leader(Duration::from_secs(60))
            .await
            .expect("a leader");
        println!("round {round}: a leader after {:?}", started.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("it ends");
    }
    let tagged = daemons.ask_leader("/api/tagged?tag=written").await;
    let tagged = tagged.expect("an answer").to_string();
    let acknowledged = acknowledged.lock().expect("nobody panicked");
    let lost: Vec<&String> = acknowledged
        .keys()
        .filter(|name| !tagged.contains(&format!("\"{name}\"")))
        .collect();
    println!("{} writes were acknowledged", acknowledged.len());
    assert_eq!(lost, Vec::<&String>::new());
}

/// A follower that hears its leader and does not reach the leader's API says so, and does nothing itself.
#[tokio::test]
async fn a_follower_that_does_not_reach_the_leaders_api_does_nothing() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::steady();
    options.late = options.count;
    let daemons = Daemons::start(&options).expect("prepared");
    for daemon in daemons.all() {
        // Nobody listens there.
        let nowhere = format!("http://{}:1", daemon.address());
        daemon.set("HTTPAdvertise", nowhere).expect("written");
        daemon.start().expect("started");
    }
    for daemon in daemons.all() {
        wait_healthy(daemon, PATIENCE).await;
    }
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    for daemon in daemons.all() {
        let reply = daemon.get("/api/tag/db1/3306?tag=x", DEADLINE).await;
        let reply = reply.expect("an answer");
        let routed = daemon.get("/api/routed-leader-check", DEADLINE).await;
        let routed = routed.expect("an answer").status;
        if daemon.http() == leader.http() {
            assert_eq!((reply.status, routed), (200, 200), "{}", reply.body);
            change(&daemons, "/api/untag/db1/3306?tag=x").await;
        } else {
            assert_eq!((reply.status, routed), (502, 502), "{}", reply.body);
            assert!(reply.body.contains("cannot be reached"), "{}", reply.body);
        }
    }
    // What is decided afterwards is everywhere, and nothing else is.
    change(&daemons, "/api/tag/db2/3306?tag=y").await;
    for daemon in daemons.all() {
        wait_for("the one tag", PATIENCE, async || {
            match rows(daemon, "database_instance_tags").as_slice() {
                [tag] if tag.contains("db2") => Look::Holds(()),
                tags => Look::not(format!("{tags:?}")),
            }
        })
        .await;
    }
}
