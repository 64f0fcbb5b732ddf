//! Real daemons on real fleets: the situations that the first issue is done by, on both flavours.
//!
//! Clients with data rights only write throughout; afterwards the servers are read and every
//! acknowledged write is accounted for. The fleets take turns: two cores cannot carry two of them
//! and keep honest times.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use orchestrator_tests::checks::{greatest_number, origin};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Recovery, wait_applied};
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming, Server, Thread};
use orchestrator_tests::ledger::WriteOutcome;
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::{APP, HARNESS, REPLICATION, Sql};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Aftermath, Expectation, PATIENCE, Strike, World};

/// Held while a test owns a fleet.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn world(flavour: Flavour, timing: ReplicationTiming) -> World {
    let fleet = FleetOptions {
        flavour,
        servers: 4,
        timing,
    };
    World::start(fleet, &DaemonOptions::default_configuration())
        .await
        .expect("a fleet that the daemons know")
}

/// Nothing wrong, the verdict seen, and something to judge by: writes on both sides of the strike.
fn check(aftermath: &Aftermath) {
    assert_eq!(
        aftermath.wrongs(),
        Vec::<String>::new(),
        "{:#?}",
        aftermath.judgement
    );
    assert!(
        aftermath.verdict.is_some(),
        "no dead-primary code was ever shown for {}",
        aftermath.old
    );
    for port in [aftermath.old, aftermath.promoted] {
        assert!(
            aftermath
                .journal
                .acknowledged()
                .any(|write| write.port == port),
            "no writes on {port}"
        );
    }
}

/// The audit says which statements ran on which server, under which epoch, and what came of them; it knows no password.
async fn check_audit(world: &World, aftermath: &Aftermath) {
    let uid = &aftermath.recoveries[0].uid;
    let steps = world.daemons.recovery_steps(uid).await.expect("steps");
    let intended: Vec<&str> = steps
        .iter()
        .filter_map(|step| Some(step.split_once(": intended ")?.1))
        .filter_map(|step| Some(step.rsplit_once(" (epoch ")?.0))
        .collect();
    let is_done = |step: &str| steps.iter().any(|line| *line == format!("{step}: done"));
    let promoted = format!("127.0.0.1:{}", aftermath.promoted);
    let opened = intended.iter().filter(|step| {
        step.contains(&format!(" on {promoted}: stop IO thread; make writeable")) && is_done(step)
    });
    let opened: Vec<_> = opened.collect();
    let distinct: BTreeSet<_> = opened.iter().collect();
    assert_eq!(distinct.len(), 1, "{steps:#?}");
    // A leader that takes a recovery over intends what is under way under an epoch of its own.
    let epochs: BTreeSet<_> = steps
        .iter()
        .filter(|step| step.contains(": intended "))
        .filter_map(|step| Some(step.rsplit_once(" (epoch ")?.1))
        .collect();
    assert!(opened.len() <= epochs.len(), "{steps:#?}");
    let followers = world.fleet.ports().into_iter();
    for port in followers.filter(|port| ![aftermath.old, aftermath.promoted].contains(port)) {
        let halted = format!(" on 127.0.0.1:{port}: stop IO thread");
        let pointed = format!("change source to {promoted}, ");
        for (on, what) in [
            (&halted, ""),
            (&format!(" on 127.0.0.1:{port}: "), &*pointed),
        ] {
            assert!(
                intended
                    .iter()
                    .any(|step| step.contains(on) && step.contains(what) && is_done(step)),
                "{on}{what}: {steps:#?}"
            );
        }
    }
    assert!(
        !steps.iter().any(|step| step.contains(REPLICATION.password)),
        "{steps:#?}"
    );
}

async fn primary_killed(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::ServerDefaults).await;
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    check(&aftermath);
    check_audit(&world, &aftermath).await;

    // And once more: the promoted server dies too, after the operator replaced the first.
    world.restore(aftermath.old).await.expect("restored");
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("second recovery");
    check(&aftermath);
}

async fn primary_and_leader_killed(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::Quick).await;
    let aftermath = world
        .strike(
            Strike::KillPrimaryAndLeader,
            Duration::ZERO,
            &Expectation::default(),
        )
        .await
        .expect("recovery");
    check(&aftermath);
}

/// A session that keeps a replica from applying what it receives.
struct Held {
    port: u16,
    sql: Sql,
}

/// Keeps every replica from applying: each has received a transaction, which it waits to apply.
async fn hold_appliers(world: &World) -> Vec<Held> {
    let flavour = world.fleet.flavour();
    let primary = world.fleet.server(world.primary()).expect("server");
    let origin = origin(primary).await.expect("an origin");
    let mut held = Vec::new();
    for server in world.fleet.live_except(world.primary()) {
        let mut sql = server.harness().await.expect("login");
        sql.run("LOCK TABLES app.ledger READ, app.note READ")
            .await
            .expect("locked");
        held.push(Held {
            port: server.port(),
            sql,
        });
    }
    let (committed, received) = match flavour {
        Flavour::MariaDb => ("SELECT @@GLOBAL.gtid_binlog_state", "Gtid_IO_Pos"),
        Flavour::MySql => ("SELECT @@GLOBAL.gtid_executed", "Retrieved_Gtid_Set"),
    };
    let mut sql = primary.harness().await.expect("login");
    sql.run("INSERT INTO app.note (text) VALUES ('received')")
        .await
        .expect("committed");
    let committed = sql.value(committed).await.expect("a set");
    let last = greatest_number(flavour, &committed, &origin);
    for one in &mut held {
        let what = format!("{} has received what it cannot apply", one.port);
        let pace = Duration::from_millis(10);
        let looked = until(&what, PATIENCE, pace, async || {
            match one.sql.rows(flavour.show_replica_status()).await {
                Ok(rows) => {
                    let received = rows.first().map_or("", |row| row.text(&[received]));
                    if greatest_number(flavour, received, &origin) >= last {
                        Look::Holds(())
                    } else {
                        Look::not(format!("{received}, not {last}"))
                    }
                }
                Err(error) => Look::not(error),
            }
        });
        looked.await.expect("received");
    }
    held
}

/// Somebody's stop of that replica's applier, which waits for it as long as it is held, and a start of it afterwards, since what
/// was received is not to be left behind with both threads stopped (F1). Meanwhile every other stop of a thread there waits, too.
async fn stop_in_vain(world: &World, port: u16) -> tokio::task::JoinHandle<()> {
    let server = world.fleet.server(port).expect("server");
    let mut stopping = Sql::connect(port, HARNESS, PATIENCE).await.expect("login");
    let waits = tokio::spawn(async move {
        stopping
            .run_all(["STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"])
            .await
            .expect("stopped and started");
        stopping.close().await;
    });
    let mut sql = server.harness().await.expect("login");
    let text =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'STOP SLAVE SQL_THREAD'";
    let pace = Duration::from_millis(5);
    let looked = until("a stop that waits", PATIENCE, pace, async || {
        match sql.value(text).await {
            Ok(count) if count == "1" => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("it waits");
    sql.close().await;
    waits
}

/// A session of the leader's on a replica: its number, whether it was killed or is gone, and what it does.
async fn session(sql: &mut Sql, id: &str) -> anyhow::Result<(bool, String)> {
    let text = format!("SELECT command, info FROM information_schema.processlist WHERE id = {id}");
    let rows = sql.rows(&text).await?;
    let ended = rows
        .first()
        .is_none_or(|row| row.text(&["command", "COMMAND"]) == "Killed");
    let does = rows.first().map_or("", |row| row.text(&["info", "INFO"]));
    Ok((ended, does.to_owned()))
}

/// The leader is stopped in the midst of a recovery, when it has every replica's lock, and goes on when another has ended that
/// recovery: neither what it left in the servers nor what it still had in mind does harm. On MariaDB it leaves a statement that
/// waits in a server.
async fn leader_frozen_amid_a_recovery(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::Quick).await;
    // The recovery cannot get beyond the drain, and on MariaDB one halt waits.
    let mut held = hold_appliers(&world).await;
    let waits = match flavour {
        Flavour::MariaDb => {
            let port = held.last().expect("a replica").port;
            Some((held.len() - 1, stop_in_vain(&world, port).await))
        }
        Flavour::MySql => None,
    };
    let (mut frozen, mut sessions) = (None, Vec::new());
    let expectation = Expectation::default();
    let then = async |world: &World| {
        let pace = Duration::from_millis(1);
        sessions = until(
            "the leader acts on each replica",
            PATIENCE,
            pace,
            async || {
                let mut holders = Vec::new();
                for (place, one) in held.iter_mut().enumerate() {
                    let holder = one.sql.value("SELECT IS_USED_LOCK('orchestrator/act')");
                    let id = match holder.await {
                        Ok(id) if !id.is_empty() => id,
                        other => return Look::not(format!("{}: {other:?}", one.port)),
                    };
                    if waits.as_ref().is_some_and(|(waiting, _)| *waiting == place) {
                        match session(&mut one.sql, &id).await {
                            Ok((_, does)) if does == "STOP SLAVE IO_THREAD" => {}
                            other => return Look::not(format!("{}: {other:?}", one.port)),
                        }
                    }
                    holders.push((one.port, id));
                }
                Look::Holds(holders)
            },
        )
        .await?;
        let leader = world.daemons.wait_leader(PATIENCE).await?;
        leader.signal(Signal::Stop);
        frozen = Some(leader.url());
        // Whoever is frozen does not say that it leads.
        world.daemons.wait_leader(PATIENCE).await?;
        if let Some((place, _)) = waits.as_ref() {
            let (_, id) = &sessions[*place];
            let sql = &mut held[*place].sql;
            until(
                "the next leader evicts the former",
                PATIENCE,
                pace,
                async || match session(sql, id).await {
                    Ok((true, _)) => Look::Holds(()),
                    other => Look::not(format!("{other:?}")),
                },
            )
            .await?;
        }
        for one in held {
            one.sql.close().await;
        }
        if let Some((_, waits)) = waits {
            waits.await?;
        }
        Ok(())
    };
    let strike = world.strike_and(Strike::KillPrimary, Duration::ZERO, &expectation, then);
    let aftermath = strike.await.expect("recovery");
    check(&aftermath);
    let url = frozen.expect("a frozen leader");
    let mut daemons = world.daemons.all().iter();
    let former = daemons.find(|one| one.url() == url).expect("a daemon");
    assert!(former.is_running());
    // Two leaders had a part in it, and one made one server writeable.
    let intended = || {
        let steps = aftermath.steps.iter();
        steps.filter(|step| step.contains(": intended "))
    };
    let epochs: BTreeSet<&str> = intended()
        .filter_map(|step| Some(step.rsplit_once(" (epoch ")?.1))
        .collect();
    assert!(epochs.len() > 1, "{:#?}", aftermath.steps);
    let opened = intended().filter(|step| step.contains("make writeable"));
    assert_eq!(opened.count(), 1, "{:#?}", aftermath.steps);
    // Its sessions are gone, although its end of them is open.
    for (port, id) in &sessions {
        let server = world.fleet.server(*port).expect("server");
        let mut sql = server.harness().await.expect("login");
        let (ended, does) = session(&mut sql, id).await.expect("a list");
        assert!(ended, "session {id} of {port} goes on: {does}");
        sql.close().await;
    }

    // It goes on with what it had in mind, under the eyes of clients.
    let ledger = world.clients();
    ledger
        .wait_acknowledged(Instant::now(), Some(aftermath.promoted), PATIENCE)
        .await
        .expect("the promoted server serves");
    former.signal(Signal::Continue);
    let next = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let term = next.status().await.expect("a status")["Term"].as_u64();
    let what = "the former leader follows";
    let pace = Duration::from_millis(50);
    let follows = until(what, PATIENCE, pace, async || match former.status().await {
        Ok(status)
            if status["Healthy"] == true
                && status["State"] == "Follower"
                && status["Term"].as_u64() >= term =>
        {
            Look::Holds(())
        }
        other => Look::not(format!("{other:?}")),
    });
    follows.await.expect("it follows");
    wait_applied(&world.daemons, former, PATIENCE)
        .await
        .expect("it knows what was decided meanwhile");
    world
        .wait_settled(&[aftermath.old])
        .await
        .expect("three daemons watch the fleet");
    ledger
        .wait_acknowledged(Instant::now(), Some(aftermath.promoted), PATIENCE)
        .await
        .expect("the promoted server serves");
    let journal = ledger.end().await;
    let mut writes = journal.acknowledged();
    assert!(writes.all(|write| write.port == aftermath.promoted));
    assert_eq!(wait_one_primary(&world).await, aftermath.promoted);
    wait_equal(&world).await;
    let recoveries = world.daemons.audit_recovery().await.expect("audit");
    assert_eq!(recoveries, aftermath.recoveries);
}

/// Waits until every live server holds the same transactions.
async fn wait_equal(world: &World) {
    let held = match world.fleet.flavour() {
        Flavour::MariaDb => "SELECT @@GLOBAL.gtid_binlog_state",
        Flavour::MySql => "SELECT @@GLOBAL.gtid_executed",
    };
    let pace = Duration::from_millis(100);
    let looked = until("equal servers", PATIENCE, pace, async || {
        let mut sets = BTreeMap::new();
        for server in world.fleet.servers() {
            if !server.is_running() {
                continue;
            }
            let looked: anyhow::Result<String> = async {
                let mut sql = server.harness().await?;
                let held = sql.value(held).await?;
                sql.close().await;
                Ok(held)
            }
            .await;
            match looked {
                Ok(held) => {
                    let mut held: Vec<_> = held.split(',').map(str::trim).collect();
                    held.sort_unstable();
                    sets.entry(held.join(","))
                        .or_insert_with(Vec::new)
                        .push(server.port());
                }
                Err(error) => return Look::not(format!("{error:#}")),
            }
        }
        if sets.len() == 1 {
            Look::Holds(())
        } else {
            Look::not(format!("{sets:?}"))
        }
    });
    looked.await.expect("no transaction of its own anywhere");
}

/// The leader dies and the primary lives: another daemon leads, clients notice nothing, nothing is
/// recovered.
async fn leader_killed(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let world = world(flavour, ReplicationTiming::Quick).await;
    let primary = world.primary();
    let ledger = world.clients();
    ledger
        .wait_acknowledged(Instant::now(), Some(primary), PATIENCE)
        .await
        .expect("writes");
    let killed = world
        .signal(Strike::KillLeader)
        .await
        .expect("a leader to kill");
    let leader = world
        .daemons
        .wait_leader(PATIENCE)
        .await
        .expect("another leader");
    assert!(leader.is_running());
    ledger
        .wait_acknowledged(Instant::now(), Some(primary), PATIENCE)
        .await
        .expect("writes go on");
    for daemon in world.daemons.all() {
        daemon.start().expect("daemon starts again");
    }
    world
        .wait_settled(&[])
        .await
        .expect("three daemons watch again");
    assert_eq!(
        world.daemons.audit_recovery().await.expect("audit"),
        Vec::<Recovery>::new()
    );
    let journal = ledger.end().await;
    assert!(
        journal.acknowledged().all(|write| write.port == primary),
        "another server took writes"
    );
    assert!(journal.acknowledged().any(|write| write.sent > killed));
    // A disk that was slow is nobody's fault; a connection that was ended would be.
    let disturbed = journal.writes.iter().find(|write| match &write.outcome {
        WriteOutcome::Acknowledged => false,
        WriteOutcome::Unknown(why) => !why.contains("deadline"),
    });
    assert!(disturbed.is_none(), "a client was disturbed: {disturbed:?}");
}

/// The primary freezes, is failed over, and thaws: it is fenced before clients can use it again.
async fn primary_frozen(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::ServerDefaults).await;
    let aftermath = world
        .strike(
            Strike::FreezePrimary,
            Duration::ZERO,
            &Expectation::default(),
        )
        .await
        .expect("recovery");
    check(&aftermath);

    let old = world.fleet.server(aftermath.old).expect("server");
    let ledger = world.clients();
    let thawed = old.signal(Signal::Continue);
    let fenced = world.wait_fenced(aftermath.old).await;
    fenced.expect("the old primary is fenced");
    let fenced = Instant::now();
    ledger
        .wait_acknowledged(fenced, Some(aftermath.promoted), PATIENCE)
        .await
        .expect("the promoted server serves");
    let journal = ledger.end().await;
    let after_fence = journal
        .acknowledged()
        .filter(|write| write.port == aftermath.old && write.sent > fenced)
        .count();
    assert_eq!(after_fence, 0, "writes after the fence");
    // How many slip through before is measured by failover-bench; that it is the waiting fence which closes the server is said by
    // whoever left it there.
    let slipped = journal
        .acknowledged()
        .filter(|write| write.port == aftermath.old && write.sent > thawed);
    println!("{} writes between thaw and fence", slipped.count());
    let looked = until(
        "the waiting fence was executed",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            let logs = world.daemons.all().iter().map(Daemon::log);
            let executed = logs.filter(|log| {
                std::fs::read_to_string(log)
                    .is_ok_and(|text| text.contains("the waiting fence was executed"))
            });
            match executed.count() {
                0 => Look::not("no daemon says so"),
                count => Look::Holds(count),
            }
        },
    );
    let executed = looked.await.expect("the fence was left there");
    println!("{executed} daemons had left a fence that was executed");
}

/// Only one replica has the last transactions, and it had applied none of them.
async fn unapplied_relay_log(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::Quick).await;
    let [primary, holder, others @ ..] = &world.fleet.ports()[..] else {
        panic!("four servers")
    };
    let (primary, holder) = (*primary, *holder);
    for other in others {
        let mut sql = world
            .fleet
            .server(*other)
            .expect("server")
            .harness()
            .await
            .expect("login");
        sql.run(flavour.stop_replica(Thread::Io))
            .await
            .expect("stop");
    }
    let mut sql = world
        .fleet
        .server(holder)
        .expect("server")
        .harness()
        .await
        .expect("login");
    sql.run(flavour.stop_replica(Thread::Sql))
        .await
        .expect("stop");
    let before = rows(&mut sql).await;
    let ledger = world.clients();
    let began = Instant::now();
    let backlog = until(
        "a backlog",
        PATIENCE,
        Duration::from_millis(10),
        async || match ledger.acknowledged_since(began).get(&primary) {
            Some(writes) if *writes >= 100 => Look::Holds(()),
            Some(_) | None => Look::not("too few writes"),
        },
    );
    backlog.await.expect("writes");
    ledger.end().await;
    assert_eq!(rows(&mut sql).await, before, "the holder applied nothing");
    sql.close().await;

    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    check(&aftermath);
    assert_eq!(aftermath.promoted, holder);
    let mut sql = world
        .fleet
        .server(holder)
        .expect("server")
        .harness()
        .await
        .expect("login");
    assert!(
        rows(&mut sql).await >= before + 100,
        "what it had received is applied"
    );
}

async fn rows(sql: &mut Sql) -> u64 {
    sql.value("SELECT COUNT(*) FROM app.ledger")
        .await
        .expect("rows")
        .parse()
        .expect("a number")
}

/// A replica with transactions of its own is not promoted in place of one that holds the same, and its transactions spread to
/// nobody.
async fn errant_replica(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::Quick).await;
    let errant = world.fleet.ports()[1];
    let mut sql = world
        .fleet
        .server(errant)
        .expect("server")
        .harness()
        .await
        .expect("login");
    sql.run_all([
        "SET GLOBAL read_only=0",
        "INSERT INTO app.note (text) VALUES ('errant')",
        "SET GLOBAL read_only=1",
    ])
    .await
    .expect("errant transaction");
    sql.close().await;
    let expectation = Expectation {
        errant_before: vec![errant],
        no_candidates: vec![errant],
        not_regrouped: vec![errant],
    };
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &expectation)
        .await
        .expect("recovery");
    check(&aftermath);
    if aftermath.promoted == errant {
        // Received writes that it alone holds outweigh a clean history; then the record says so of each other replica.
        let uid = &aftermath.recoveries[0].uid;
        let steps = world.daemons.recovery_steps(uid).await.expect("steps");
        let over = format!(":{errant} over ");
        let mut comparisons = steps.iter().filter(|step| step.contains(&over)).peekable();
        assert!(comparisons.peek().is_some(), "{steps:?}");
        assert!(comparisons.all(|step| step.contains("lacks")), "{steps:?}");
        return;
    }
    for port in world.fleet.ports() {
        if port != errant && port != aftermath.old {
            let mut sql = world
                .fleet
                .server(port)
                .expect("server")
                .harness()
                .await
                .expect("login");
            let spread = sql
                .value("SELECT COUNT(*) FROM app.note WHERE text = 'errant'")
                .await
                .expect("rows");
            assert_eq!(spread, "0", "the errant transaction reached {port}");
        }
    }
}

/// The primary is killed and its supervisor starts it again at once. Whoever wins that race: one
/// writable server in the end, the others below it, and no acknowledged write of a survivor lost.
async fn primary_restarts_at_once(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let world = world(flavour, ReplicationTiming::Quick).await;
    let old = world.primary();
    let ledger = world.clients();
    ledger
        .wait_acknowledged(Instant::now(), Some(old), PATIENCE)
        .await
        .expect("writes");
    let server = world.fleet.server(old).expect("server");
    let killed = server.signal(Signal::Kill);
    server.wait_ended().await.expect("ended");
    server.start().expect("started again");
    ledger
        .wait_acknowledged(killed, None, PATIENCE)
        .await
        .expect("writable again");
    let primary = wait_one_primary(&world).await;
    let settled = Instant::now();
    let write = ledger
        .wait_acknowledged(settled, Some(primary), PATIENCE)
        .await
        .expect("the primary serves");
    let journal = ledger.end().await;
    assert!(
        journal
            .acknowledged()
            .all(|other| other.sent < settled || other.port == primary),
        "two servers took writes"
    );

    // Every write that the winner acknowledged is there; those of the other are there as far as the
    // winner's side had received them, which shows in there being no holes.
    let mut sql = world
        .fleet
        .server(primary)
        .expect("server")
        .harness()
        .await
        .expect("login");
    let present = sql
        .rows("SELECT client, number FROM app.ledger")
        .await
        .expect("rows");
    let present: BTreeSet<(String, String)> = present
        .iter()
        .map(|row| {
            (
                row.text(&["client"]).to_owned(),
                row.text(&["number"]).to_owned(),
            )
        })
        .collect();
    let there = |lane: u32, number: u64| present.contains(&(lane.to_string(), number.to_string()));
    assert!(there(write.id.lane, write.id.number));
    let missing: Vec<_> = journal
        .acknowledged()
        .filter(|write| !there(write.id.lane, write.id.number))
        .collect();
    assert!(
        missing
            .iter()
            .all(|write| write.port == old && primary != old),
        "lost: {missing:?}"
    );
    let last_arrived = journal
        .acknowledged()
        .filter(|write| {
            write.port == old && write.sent < killed && there(write.id.lane, write.id.number)
        })
        .map(|write| write.sent)
        .max();
    assert!(
        missing
            .iter()
            .all(|write| last_arrived.is_none_or(|last| write.answered > last)),
        "a hole: {missing:?}"
    );
}

/// Waits until exactly one running server is writable, and every other replicates from it or is read-only
/// and replicates from nobody (the deposed primary).
async fn wait_one_primary(world: &World) -> u16 {
    let looked = until(
        "one primary",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let mut writable = Vec::new();
            let mut sources = Vec::new();
            for server in world.fleet.servers().iter().filter(|one| one.is_running()) {
                let looked: anyhow::Result<_> = async {
                    let mut sql = server.harness().await?;
                    let read_only = sql.value("SELECT @@GLOBAL.read_only").await?;
                    sql.close().await;
                    Ok((read_only == "0", server.replica_status().await?))
                }
                .await;
                match looked {
                    Ok((true, _)) => writable.push(server.port()),
                    Ok((false, Some(status))) if status.runs() => sources.push(status.source_port),
                    Ok((false, Some(status))) => {
                        return Look::not(format!("{} {status}", server.port()));
                    }
                    Ok((false, None)) => {}
                    Err(error) => return Look::not(format!("{error:#}")),
                }
            }
            match writable[..] {
                [one] if sources.len() >= 2 && sources.iter().all(|source| *source == one) => {
                    Look::Holds(one)
                }
                _ => Look::not(format!("writable {writable:?}, sources {sources:?}")),
            }
        },
    );
    looked.await.expect("the race has a winner")
}

/// The old primary comes back after the failover, writable by its own configuration: it is fenced,
/// and people may then rebuild it as a replica.
async fn old_primary_returns(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let mut world = world(flavour, ReplicationTiming::Quick).await;
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    check(&aftermath);

    let ledger = world.clients();
    let old = world.fleet.server(aftermath.old).expect("server");
    old.start().expect("started again");
    let fenced = world.wait_fenced(aftermath.old).await;
    fenced.expect("the old primary is fenced");
    let fenced = Instant::now();
    ledger
        .wait_acknowledged(fenced, Some(aftermath.promoted), PATIENCE)
        .await
        .expect("the promoted server serves");
    // Its clients are cut with the fence, and one that comes at this moment may be among them.
    let refused = until(
        "a write is refused",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            let mut client = match Sql::connect(aftermath.old, APP, Duration::from_secs(5)).await {
                Ok(client) => client,
                Err(error) => return Look::not(format!("{error:#}")),
            };
            let insert = "INSERT INTO app.note (text) VALUES ('after the fence')";
            match client.run(insert).await {
                Ok(_) => panic!("it took a write"),
                Err(refusal) if refusal.code() == Some(1290) => Look::Holds(()),
                Err(refusal) => Look::not(refusal),
            }
        },
    );
    refused.await.expect("fenced");
    let journal = ledger.end().await;
    let on_old = || {
        let writes = journal.acknowledged();
        writes.filter(|write| write.port == aftermath.old)
    };
    let after = on_old().filter(|write| write.sent > fenced).count();
    assert_eq!(after, 0, "writes on the fenced server");
    // It takes writes from its start to the fence, which nobody else has: how long is bounded.
    let first = on_old().map(|write| write.sent).min();
    let last = on_old().map(|write| write.answered).max();
    let slip = first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
    println!(
        "{flavour}: {} writes slipped in within {slip:?} before the fence",
        on_old().count()
    );
    assert!(slip <= SLIP_MAX, "the old primary took writes for {slip:?}");

    world
        .restore(aftermath.old)
        .await
        .expect("an operator rebuilds it, and it is left in peace");
}

/// How long a primary that was replaced may take writes when it comes back: it is dialled every 50 ms, and closed by a
/// recorded step, on two busy cores and a disk on which a killed server is repairing its own files.
const SLIP_MAX: Duration = Duration::from_secs(15);

/// What replicas without GTID hold cannot be compared: nobody is promoted, nothing is done to any of them, and it is said.
async fn without_gtid(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let world = world(flavour, ReplicationTiming::Quick).await;
    let replicas = world.fleet.live_except(world.primary());
    let each = async |servers: &[&Server], statements: &[&str]| {
        for server in servers {
            let mut sql = server.harness().await.expect("login");
            sql.run_all(statements).await.expect("done");
            sql.close().await;
        }
    };
    match flavour {
        Flavour::MariaDb => {
            let by_position = [
                "STOP SLAVE",
                "CHANGE MASTER TO MASTER_USE_GTID=no",
                "START SLAVE",
            ];
            each(&replicas, &by_position).await;
        }
        Flavour::MySql => {
            let by_position = [
                "STOP REPLICA",
                "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=0",
                "START REPLICA",
            ];
            each(&replicas, &by_position).await;
            let all: Vec<&Server> = world.fleet.servers().iter().collect();
            for mode in ["ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"] {
                each(&all, &[&*format!("SET GLOBAL gtid_mode={mode}")]).await;
            }
        }
    }
    let shown = until(
        "a cluster that would not be failed over",
        PATIENCE,
        Duration::from_millis(100),
        async || match world.daemons.ask_leader("/api/v2/would-fail-over").await {
            Ok(told) if told.to_string().contains("does not use GTID") => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    shown.await.expect("said beforehand");

    world.signal(Strike::KillPrimary).await.expect("killed");
    let refused = until(
        "a refused recovery",
        PATIENCE,
        Duration::from_millis(100),
        async || match world.daemons.audit_recovery().await {
            Ok(recoveries) => match recoveries.iter().find(|recovery| !recovery.active) {
                Some(recovery) => Look::Holds(recovery.clone()),
                None => Look::not(format!("{recoveries:?}")),
            },
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    let refused = refused.await.expect("a recovery that ended");
    assert!(!refused.successful, "{refused:?}");
    let steps = world.daemons.recovery_steps(&refused.uid).await;
    let steps = steps.expect("steps").join("\n");
    let said = format!("{}\n{steps}", refused.errors.join("\n"));
    assert!(said.contains("does not use GTID"), "{said}");
    assert!(!steps.contains(": intended "), "{steps}");
    for replica in replicas {
        let status = replica.replica_status().await.expect("an answer");
        let status = status.expect("a replica");
        assert_eq!(status.source_port, world.primary(), "{status}");
        assert!(status.io != "No" && status.sql == "Yes", "{status}");
        let mut sql = replica.harness().await.expect("login");
        let read_only = sql.value("SELECT @@GLOBAL.read_only").await;
        assert_eq!(read_only.expect("a value"), "1");
        sql.close().await;
    }
}

/// As package upgrades do. MySQL's stop takes 10 s, for 8 of which it keeps its replicas; it is back before an orderly stop
/// counts as a death.
async fn primary_is_restarted_in_an_orderly_way(flavour: Flavour) {
    let _turn = TURN.lock().await;
    let fleet = FleetOptions {
        flavour,
        servers: 4,
        timing: ReplicationTiming::Quick,
    };
    let mut options = DaemonOptions::default_configuration();
    // By default 15 s, of which a MySQL that comes back on a slow disk needs most.
    let patience = String::from("PlannedStopPatienceSeconds");
    options.settings.insert(patience, 60.into());
    let world = World::start(fleet, &options)
        .await
        .expect("a fleet that the daemons know");
    let old = world.primary();
    let ledger = world.clients();
    ledger
        .wait_acknowledged(Instant::now(), Some(old), PATIENCE)
        .await
        .expect("writes");
    let server = world.fleet.server(old).expect("server");
    let stopped = server.signal(Signal::Terminate);
    server.wait_ended().await.expect("ended");
    server.start().expect("started again");
    let ended = Instant::now();
    assert!(
        ended - stopped > Duration::from_secs(5),
        "it let go of its replicas at once: {:?}",
        ended - stopped
    );
    ledger
        .wait_acknowledged(ended, Some(old), PATIENCE)
        .await
        .expect("the old primary serves");
    assert_eq!(wait_one_primary(&world).await, old);
    let recoveries = world.daemons.audit_recovery().await.expect("an audit");
    assert!(recoveries.is_empty(), "{recoveries:?}");
    ledger.end().await;
}

#[tokio::test]
async fn mysql_primary_is_restarted_in_an_orderly_way() {
    primary_is_restarted_in_an_orderly_way(Flavour::MySql).await;
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test] async fn $name() { super::$name(super::Flavour::MariaDb).await; })*
        }
        mod mysql {
            $(#[tokio::test] async fn $name() { super::$name(super::Flavour::MySql).await; })*
        }
    };
}

on_both!(
    primary_killed,
    primary_and_leader_killed,
    leader_killed,
    leader_frozen_amid_a_recovery,
    primary_frozen,
    unapplied_relay_log,
    errant_replica,
    primary_restarts_at_once,
    old_primary_returns,
    without_gtid,
);
