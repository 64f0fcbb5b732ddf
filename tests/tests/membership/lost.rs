//! More is lost than a minority: two of three machines are gone for good, or every raft directory is. One machine that has its raft
//! directory, or its backend alone, goes on when somebody says so, and others take the places of those that were lost.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use orchestrator_tests::backends;
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_applied};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::Sql;
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, Strike, World};

use super::{
    PATIENCE, WATCHED, change_members, holds, members, options, says, says_unhealthy,
    shows_stranger, tagged_in_file, write, write_each_kind,
};

const PACE: Duration = Duration::from_millis(100);
const OF_DIRECTORY: [&str; 3] = ["raft", "recover", "--from-raft-dir"];
const OF_BACKEND: [&str; 3] = ["raft", "recover", "--from-backend"];
const MEANT: &str = "--yes";
/// What each daemon says where none has a raft directory left.
const ALL_LOST: &str = "this node is not empty: it does not form a cluster, a member must let it in, and no entry of RaftNodes is \
    one; if the raft directories of all are lost, decide which data counts and use `orchestrator raft recover --from-backend` on \
    one node, then provision the others anew";
/// What is said of a daemon whose backend is of before the recovery.
const NOT_EMPTY: &str = "Give it an empty backend";
const NEVER_JOINED: &str = "two clusters are never joined";

async fn logs(daemon: &Daemon, wanted: &str) -> Result<()> {
    let what = format!("the log of {} says '{wanted}'", daemon.url());
    until(&what, PATIENCE, PACE, async || {
        match fs::read_to_string(daemon.log()) {
            Ok(log) if log.contains(wanted) => Look::Holds(()),
            Ok(log) => Look::not(log),
            Err(error) => Look::not(error),
        }
    })
    .await
}

/// The backend of each of these, which is a file, has exactly these servers tagged: it has them itself, and not by asking.
async fn all_hold(daemons: &[&Daemon], names: &[&str]) -> Result<()> {
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    for daemon in daemons {
        let what = format!("{} holds {wanted:?}", daemon.url());
        until(&what, PATIENCE, PACE, async || {
            match tagged_in_file(daemon) {
                Ok(names) if names == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// Two machines are gone for good. The third says whom it misses and decides nothing, until that is typed there which the README
/// says; then it is the whole cluster, with this list.
async fn go_on_alone(left: &Daemon, lost: [&Daemon; 2], nodes: &[&Daemon]) -> Result<()> {
    let former = left.status().await?;
    for daemon in lost {
        daemon.kill().await?;
        daemon.wipe()?;
    }
    left.wait_status("/api/raft-health", 500, PATIENCE).await?;
    let addresses = lost.map(Daemon::raft);
    until("both are missed", PATIENCE, PACE, async || {
        let status = match left.status().await {
            Ok(status) => status,
            Err(error) => return Look::not(format!("{error:#}")),
        };
        let missing = status["Missing"].as_array().cloned().unwrap_or_default();
        let is_missed = |address: &String| missing.iter().any(|missed| missed == address);
        if missing.len() == addresses.len() && addresses.iter().all(is_missed) {
            Look::Holds(())
        } else {
            Look::not(format!("{status:#}"))
        }
    })
    .await?;
    let change = "/api/tag/refused/3306/written/once";
    let refused = left.get(change, PATIENCE).await?;
    ensure!(refused.status == 503, "{refused:?}");

    left.kill().await?;
    let (is_done, said) = left.run(&OF_DIRECTORY)?;
    ensure!(is_done && said.contains("nothing was changed"), "{said}");
    ensure!(
        said.contains("LOST is whatever the other members decided")
            && addresses.iter().all(|address| said.contains(address)),
        "{said}"
    );
    let (is_done, said) = left.run(&[OF_DIRECTORY.as_slice(), &[MEANT]].concat())?;
    ensure!(is_done && said.contains("before-recovery-"), "{said}");
    left.set_nodes(nodes)?;
    left.start()?;
    members(&[left]).await?;
    left.wait_status("/api/leader-check", 200, PATIENCE).await?;
    let status = left.status().await?;
    ensure!(
        status["Cluster"] != former["Cluster"] && status["Node"] != former["Node"],
        "{former:#} {status:#}"
    );
    Ok(())
}

#[tokio::test]
async fn one_machine_of_three_goes_on_and_two_at_other_addresses_join_it() -> Result<()> {
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let mut world = World::start(fleet, &options(2, 0)).await?;
    {
        let [n1, n2, n3, n4, n5] = world.daemons.all() else {
            bail!("five daemons");
        };
        members(&[n1, n2, n3]).await?;
        write(&world.daemons, "kept").await?;
        wait_applied(&world.daemons, n1, PATIENCE).await?;
        go_on_alone(n1, [n2, n3], &[n1, n4, n5]).await?;
        write(&world.daemons, "alone").await?;
        holds(&world.daemons, &["kept", "alone"]).await?;
    }

    // It knows the fleet, and mends it with nobody's help.
    world.wait_settled(&[]).await?;
    let expectation = Expectation::default();
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &expectation)
        .await?;
    ensure!(aftermath.wrongs().is_empty(), "{:?}", aftermath.wrongs());

    // One is there before the other: it waits, and so does the list.
    let daemons = &world.daemons;
    let [n1, _, _, n4, n5] = daemons.all() else {
        bail!("five daemons");
    };
    for newcomer in [n4, n5] {
        newcomer.set_nodes(&[n1, n4, n5])?;
    }
    n4.start()?;
    says_unhealthy(n4, "no member has").await?;
    ensure!(n4.get("/api/leader-check", PATIENCE).await?.status == 404);
    shows_stranger(n1, Some((n4, "no member has"))).await?;
    let awaited = format!("every entry answers, and {} does not", n5.raft());
    says(n1, "/api/raft-status", &awaited).await?;
    members(&[n1]).await?;
    n5.start()?;
    members(&[n1, n4, n5]).await?;
    shows_stranger(n1, None).await?;
    write(daemons, "joined").await?;
    all_hold(&[n1, n4, n5], &["kept", "alone", "joined"]).await?;
    world.wait_settled(&[aftermath.old]).await?;

    // It is needed no more than any other.
    n1.kill().await?;
    write(daemons, "without-n1").await?;
    n1.start()?;
    members(&[n1, n4, n5]).await?;
    let all = ["kept", "alone", "joined", "without-n1"];
    holds(daemons, &all).await?;
    all_hold(&[n1, n4, n5], &all).await
}

#[tokio::test]
async fn one_of_two_lost_machines_that_returns_waits_for_the_other_or_for_a_word() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    let [n1, n2, n3] = daemons.all() else {
        bail!("three daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "kept").await?;
    wait_applied(&daemons, n1, PATIENCE).await?;
    go_on_alone(n1, [n2, n3], &[n1, n2, n3]).await?;
    write(&daemons, "alone").await?;

    // Both say who is waited for, and what may be typed instead.
    n2.start()?;
    says_unhealthy(n2, &format!("waiting for {}", n3.raft())).await?;
    says_unhealthy(n2, "raft-add-peer").await?;
    shows_stranger(n1, Some((n2, "raft-add-peer"))).await?;
    let awaited = format!(
        "RaftNodes was changed; it is declared once every entry answers, and {} does not",
        n3.raft()
    );
    says(n1, "/api/raft-status", &awaited).await?;
    let before = n1.status().await?;
    let began = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    while began.elapsed() < WATCHED {
        pace.tick().await;
        let health = n2.get("/api/raft-health", PATIENCE).await?;
        ensure!(health.status == 500, "{health:?}");
        let health = n1.get("/api/raft-health", PATIENCE).await?;
        ensure!(health.status == 200, "{health:?}");
        let peers = n1.get("/api/raft-peers", PATIENCE).await?;
        ensure!(!peers.body.contains(&n2.raft()), "{peers:?}");
    }
    let status = n1.status().await?;
    ensure!(status["Term"] == before["Term"], "{before:#} {status:#}");
    write(&daemons, "meanwhile").await?;

    let add = |daemon: &Daemon| format!("/api/raft-add-peer/{}", daemon.raft());
    change_members(&daemons, &add(n2), &[n1]).await?;
    members(&[n1, n2]).await?;
    write(&daemons, "two").await?;
    // The other one returns at last. A change of members voids what lists asked for, so it needs a word too.
    n3.start()?;
    change_members(&daemons, &add(n3), &[n1, n2]).await?;
    members(&[n1, n2, n3]).await?;
    let mut all = vec!["kept", "alone", "meanwhile", "two"];
    all_hold(&[n1, n2, n3], &all).await?;
    n1.kill().await?;
    write(&daemons, "without-n1").await?;
    all.push("without-n1");
    n1.start()?;
    members(&[n1, n2, n3]).await?;
    all_hold(&[n1, n2, n3], &all).await
}

#[tokio::test]
async fn where_all_raft_directories_are_lost_each_daemon_names_the_way_out() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let [n1, n2, n3] = all[..] else {
        bail!("three daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&all).await?;
    write(&daemons, "kept").await?;
    for daemon in &all {
        wait_applied(&daemons, daemon, PATIENCE).await?;
    }
    let former = n1.status().await?;
    for daemon in &all {
        daemon.signal(Signal::Terminate);
    }
    for daemon in &all {
        daemon.wait_ended(PATIENCE).await?;
        daemon.wipe_raft()?;
    }
    for daemon in &all {
        daemon.start()?;
    }
    // Nobody forms a cluster beside what the backends remember.
    for daemon in &all {
        says_unhealthy(daemon, ALL_LOST).await?;
        logs(daemon, ALL_LOST).await?;
        let status = daemon.status().await?;
        ensure!(status["Cluster"] != former["Cluster"], "{status:#}");
        let check = daemon.get("/api/leader-check", PATIENCE).await?;
        ensure!(check.status == 404, "{check:?}");
    }

    // What they say is done.
    for daemon in &all {
        daemon.kill().await?;
    }
    let (is_done, said) = n1.run(&OF_BACKEND)?;
    ensure!(
        is_done && said.contains("1 of database_instance_tags"),
        "{said}"
    );
    // The directory that the daemon made meanwhile holds nothing.
    ensure!(!said.contains("would lose less"), "{said}");
    let (is_done, said) = n1.run(&[OF_DIRECTORY.as_slice(), &[MEANT]].concat())?;
    ensure!(
        !is_done && said.contains("holds no entry of any cluster"),
        "{said}"
    );
    let (is_done, said) = n1.run(&[OF_BACKEND.as_slice(), &[MEANT]].concat())?;
    ensure!(is_done && said.contains("before-recovery-"), "{said}");
    for daemon in [n2, n3] {
        daemon.wipe()?;
    }
    for daemon in &all {
        daemon.start()?;
    }
    members(&all).await?;
    ensure!(n1.status().await?["Cluster"] != former["Cluster"]);
    all_hold(&all, &["kept"]).await
}

/// A machine that takes a lost one's place has a schema and an account of its own.
async fn make_schema(sql: &mut Sql, number: u8) -> Result<()> {
    sql.run_all([
        format!("CREATE DATABASE orc{number}"),
        format!("CREATE USER 'orc{number}'@'%' IDENTIFIED BY 'secret{number}'"),
        format!("GRANT ALL PRIVILEGES ON orc{number}.* TO 'orc{number}'@'%'"),
    ])
    .await
}

/// A schema is put aside under another name, as people do it: there is no statement for that.
async fn rename_schema(sql: &mut Sql, from: &str, to: &str) -> Result<()> {
    let tables = format!(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = '{from}'"
    );
    let tables = sql.rows(&tables).await?;
    ensure!(!tables.is_empty(), "{from} has no tables");
    sql.run(&format!("CREATE DATABASE {to}")).await?;
    for table in tables.iter().map(|row| row.only()) {
        sql.run(&format!("RENAME TABLE {from}.{table} TO {to}.{table}"))
            .await?;
    }
    sql.run(&format!("DROP DATABASE {from}")).await?;
    Ok(())
}

/// What people said, as a schema has it.
const SAID: [&str; 4] = [
    "SELECT group_concat(hostname, ':', tag_name, '=', tag_value ORDER BY hostname) FROM database_instance_tags",
    "SELECT group_concat(hostname, owner, reason, end_timestamp) FROM database_instance_downtime",
    "SELECT group_concat(hostname, promotion_rule) FROM candidate_database_instance",
    "SELECT group_concat(disable_recovery) FROM global_recovery_disable",
];

async fn said_in(server: &Fleet, schema: &str) -> Result<Vec<String>> {
    let mut sql = server.servers()[0].harness().await?;
    sql.run(&format!("USE {schema}")).await?;
    let mut said = Vec::new();
    for query in SAID {
        said.push(sql.value(query).await?);
    }
    sql.close().await;
    Ok(said)
}

/// One machine of three is left, without its raft directory, and with the schema that is its backend. Of the two that were lost, one
/// is installed anew at its address, and still has its schema; in the place of the other one comes another.
async fn one_schema_is_left(flavour: Flavour) -> Result<()> {
    let server = backends::serve(flavour).await?;
    let mut sql = server.servers()[0].harness().await?;
    make_schema(&mut sql, 4).await?;
    let mut options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::steady()
    };
    options.settings.extend(backends::settings(&server));
    let daemons = Daemons::start(&options)?;
    let [n1, n2, n3, n4] = daemons.all() else {
        bail!("four daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write_each_kind(&daemons, "kept").await?;
    wait_applied(&daemons, n1, PATIENCE).await?;
    let former = n1.status().await?;
    // Told to stop, it writes its backend first.
    n1.signal(Signal::Terminate);
    n1.wait_ended(PATIENCE).await?;
    for lost in [n2, n3] {
        lost.kill().await?;
    }
    for daemon in [n1, n2, n3] {
        daemon.wipe_raft()?;
    }
    let said_before = said_in(&server, "orc1").await?;
    ensure!(
        said_before[0] == "kept:written=once"
            && said_before[1].starts_with("keptannadisk")
            && said_before[2] == "keptprefer_not"
            && said_before[3] == "1",
        "{said_before:?}"
    );

    let (is_done, said) = n1.run(&OF_DIRECTORY)?;
    ensure!(!is_done && said.contains("holds no raft node"), "{said}");
    let place = format!("orc1 at 127.0.0.1:{}", server.ports()[0]);
    let (is_done, said) = n1.run(&OF_BACKEND)?;
    ensure!(is_done && said.contains("nothing was changed"), "{said}");
    for kept in [
        "database_instance_tags",
        "database_instance_downtime",
        "candidate_database_instance",
        "global_recovery_disable",
    ] {
        ensure!(said.contains(&format!("1 of {kept}")), "{kept}: {said}");
    }
    let holds_state = format!("{place} holds the state of cluster");
    ensure!(said.contains(&holds_state), "{said}");
    let (is_done, said) = n1.run(&[OF_BACKEND.as_slice(), &[MEANT]].concat())?;
    let by_hand = format!(
        "the schema {place} belongs to the former cluster: rename or drop it before the next start"
    );
    ensure!(is_done && said.contains(&by_hand), "{said}");

    // Whoever forgets that is told so, and nothing is written over.
    n1.set_nodes(&[n1, n2, n4])?;
    n1.start()?;
    let code = n1.wait_ended(PATIENCE).await?;
    ensure!(code.is_some_and(|code| code > 0), "{code:?}");
    let log = fs::read_to_string(n1.log())?;
    let last = log.lines().last().unwrap_or_default();
    ensure!(
        last.contains("belongs to ") && last.contains(&place),
        "{last}"
    );
    ensure!(said_in(&server, "orc1").await? == said_before);
    rename_schema(&mut sql, "orc1", "orc1_former").await?;
    n1.start()?;
    members(&[n1]).await?;
    ensure!(n1.status().await?["Cluster"] != former["Cluster"]);
    holds(&daemons, &["kept"]).await?;
    write(&daemons, "alone").await?;

    // A machine that still has its former schema is not let in with it, and both sides say so.
    for newcomer in [n2, n4] {
        newcomer.set_nodes(&[n1, n2, n4])?;
    }
    n2.start()?;
    says_unhealthy(n2, NOT_EMPTY).await?;
    logs(n2, NOT_EMPTY).await?;
    shows_stranger(n1, Some((n2, NEVER_JOINED))).await?;
    n4.start()?;
    let waits = format!(
        "{} (node {}) belongs to cluster",
        n2.raft(),
        n2.node().await?
    );
    says(n1, "/api/raft-status", &waits).await?;
    members(&[n1]).await?;
    n2.kill().await?;
    sql.run("DROP DATABASE orc2").await?;
    n2.start()?;
    members(&[n1, n2, n4]).await?;
    holds(&daemons, &["kept", "alone"]).await?;
    let stop = daemons.ask_leader("/api/check-global-recoveries").await?;
    ensure!(stop.to_string().contains("disabled"), "{stop}");

    // It is in the schemas of all, as it was said.
    let said_after: [&str; 4] = [
        "alone:written=once,kept:written=once",
        &said_before[1],
        &said_before[2],
        &said_before[3],
    ];
    for schema in ["orc1", "orc2", "orc4"] {
        until(schema, PATIENCE, PACE, async || {
            match said_in(&server, schema).await {
                Ok(said) if said == said_after => Look::Holds(()),
                other => Look::not(format!("{other:?}, not {said_after:?}")),
            }
        })
        .await?;
    }
    ensure!(said_in(&server, "orc1_former").await? == said_before);
    sql.close().await;
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_which_one_mysql_schema_is_left_is_recovered_by_hand() -> Result<()> {
    one_schema_is_left(Flavour::MySql).await
}

#[tokio::test]
async fn a_cluster_of_which_one_mariadb_schema_is_left_is_recovered_by_hand() -> Result<()> {
    one_schema_is_left(Flavour::MariaDb).await
}
