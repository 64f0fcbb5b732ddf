//! Who watches and repairs a fleet when daemons are dead, are replaced, or are cut from each other or from a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_members};
use orchestrator_tests::fleet::{
    Flavour, Fleet, FleetOptions, MARIADB_PROBE, ReplicationTiming, Server,
};
use orchestrator_tests::network::{Gate, Machine, Network};
use orchestrator_tests::process::{Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, Strike, World};
use serde_json::{Map, Value, json};

use super::{DEADLINE, TURN};

const PATIENCE: Duration = Duration::from_secs(60);
/// In this time everything is looked at several times, and judged.
const WATCHED: Duration = Duration::from_secs(12);
/// In one of so many times nothing is looked at too often.
const WINDOWS: usize = 3;
/// For so long a member is away that is restarted, as with its machine: not long enough for one that is left alone to rest.
const AWAY: Duration = Duration::from_secs(8);
/// For so long, in seconds, a daemon that reads every server each second may be seen to read one of them not once.
const UNREAD_MAX: f64 = 5.0;

fn fleet_options(servers: usize) -> FleetOptions {
    FleetOptions {
        flavour: Flavour::MariaDb,
        servers,
        timing: ReplicationTiming::Quick,
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

async fn place_of_leader(daemons: &Daemons) -> usize {
    let leader = daemons
        .wait_leader(PATIENCE)
        .await
        .expect("a leader")
        .http();
    let mut all = daemons.all().iter();
    all.position(|daemon| daemon.http() == leader)
        .expect("one of them")
}

/// With as many daemons left as make a majority a fleet is repaired; with one less nothing is changed, and what died
/// meanwhile is repaired once somebody is back.
async fn majority(count: u8) {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::default_configuration();
    options.count = count;
    options.settings = object(json!({"RecoveryPeriodBlockSeconds": 1}));
    let mut world = World::start(fleet_options(4), &options)
        .await
        .expect("a fleet that the daemons know");
    let may_die = usize::from(count) / 2;
    for _ in 0..may_die {
        let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
        leader.kill().await.expect("killed");
    }
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    let dead = aftermath.promoted;
    world.set_primary(dead);

    let last = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    last.kill().await.expect("killed");
    let left: Vec<_> = world
        .daemons
        .all()
        .iter()
        .filter(|daemon| daemon.is_running())
        .collect();
    for daemon in &left {
        let looked = until(
            "it knows",
            PATIENCE,
            Duration::from_millis(50),
            async || match daemon.get("/api/raft-health", DEADLINE).await {
                Ok(reply) if reply.status == 500 => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        );
        looked.await.expect("no quorum");
    }
    world.signal(Strike::KillPrimary).await.expect("killed");
    let killed = Instant::now();
    while killed.elapsed() < WATCHED {
        for daemon in &left {
            let check = daemon.get("/api/leader-check", DEADLINE).await;
            assert_eq!(check.expect("an answer").status, 404);
            // For a moment the leader that died is still tried.
            let tag = daemon.get("/api/tag/db1/3306?tag=no", DEADLINE).await;
            let tag = tag.expect("an answer");
            assert!(matches!(tag.status, 502 | 503), "{tag:?}");
        }
        for server in world.fleet.live_except(dead) {
            let status = server.replica_status().await.expect("answers");
            let source = status.map(|status| status.source_port);
            assert!(
                source == Some(dead) || server.port() == aftermath.old,
                "{} was touched: {source:?}",
                server.port()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    last.start().expect("started");
    // Whoever is back sees it silent for 10 s first, and a server that nobody reads is waited for at the end, for 20 s.
    let looked = until(
        "the failure is repaired",
        2 * PATIENCE,
        Duration::from_millis(100),
        async || match world.daemons.audit_recovery().await {
            Ok(recoveries) => match recoveries
                .iter()
                .find(|recovery| recovery.failed_port == dead)
            {
                Some(recovery) if recovery.successful => Look::Holds(recovery.successor_port),
                _ => Look::not(format!("{recoveries:?}")),
            },
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    let promoted = looked.await.expect("repaired");
    println!("repaired {:?} after the failure", killed.elapsed());
    assert!(promoted != dead && promoted != aftermath.old);
}

#[tokio::test]
async fn two_of_three_repair_and_one_waits() {
    majority(3).await;
}

#[tokio::test]
async fn three_of_five_repair_and_two_wait() {
    majority(5).await;
}

/// Each line that a hook wrote: the number of the daemon.
fn told(collector: &Path) -> Vec<String> {
    let text = fs::read_to_string(collector).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Each server keeps what it is asked, and by whom.
async fn log_statements(fleet: &Fleet) {
    for server in fleet.servers() {
        let mut sql = server.harness().await.expect("login");
        sql.run_all([
            "SET GLOBAL log_output = 'TABLE'",
            "SET GLOBAL general_log = ON",
        ])
        .await
        .expect("each statement is logged");
        sql.close().await;
    }
}

/// Server by server, how many probes of each daemon its log has since it was `since` there.
async fn probes(network: &Network, fleet: &Fleet, since: &[String]) -> Vec<Vec<u64>> {
    let mut counts = Vec::new();
    for (server, since) in fleet.servers().iter().zip(since) {
        let mut sql = server.harness().await.expect("login");
        let mut of_server = Vec::new();
        for machine in network.machines() {
            let query = format!(
                "SELECT count(*) FROM mysql.general_log WHERE event_time >= '{since}' AND user_host LIKE 'orchestrator[%[{}]' \
                 AND argument LIKE '{MARIADB_PROBE}%'",
                machine.address_here()
            );
            let count = sql.value(&query).await.expect("a count");
            of_server.push(count.parse().expect("a number"));
        }
        sql.close().await;
        counts.push(of_server);
    }
    counts
}

/// The time at each server.
async fn clocks(fleet: &Fleet) -> Vec<String> {
    let mut clocks = Vec::new();
    for server in fleet.servers() {
        let mut sql = server.harness().await.expect("login");
        clocks.push(sql.value("SELECT now(6)").await.expect("a time"));
        sql.close().await;
    }
    clocks
}

/// Three machines, each with its database on 127.0.0.1, that reach each other and the fleet. Every daemon watches every
/// server; what one of them alone does not see is not repaired, be it the leader; and a leader that is cut off
/// before a failure leaves it to the next.
#[tokio::test]
async fn what_one_daemon_alone_does_not_see_is_not_repaired() {
    let _turn = TURN.lock().await;
    let scratch = Scratch::create("hooks").expect("a folder");
    let collector = scratch.path().join("ran");
    let network = Network::lay(3).expect("a network");
    let fleet = Fleet::start(fleet_options(3)).await.expect("a fleet");
    let database = Fleet::start(fleet_options(1)).await.expect("a database");
    let database_port = database.servers()[0].port();
    let mut sql = database.servers()[0].harness().await.expect("login");
    let mut options = DaemonOptions::default_configuration();
    options.settings = object(json!({"InstancePollSeconds": 1}));
    for number in 1..=3 {
        sql.run_all([
            format!("CREATE DATABASE orc{number}"),
            format!("CREATE USER 'orc{number}'@'%' IDENTIFIED BY 'secret{number}'"),
            format!("GRANT ALL PRIVILEGES ON orc{number}.* TO 'orc{number}'@'%'"),
        ])
        .await
        .expect("schemas and accounts");
        options.own.push(object(json!({
            "BackendDB": "mysql",
            "MySQLOrchestratorHost": "127.0.0.1",
            "MySQLOrchestratorPort": database_port,
            "MySQLOrchestratorDatabase": format!("orc{number}"),
            "MySQLOrchestratorUser": format!("orc{number}"),
            "MySQLOrchestratorPassword": format!("secret{number}"),
            "PreFailoverProcesses": [format!("echo {number} >> {}", collector.display())],
        })));
    }
    let mut gates: Vec<Vec<Gate>> = Vec::new();
    let mut of_databases = Vec::new();
    for machine in network.machines() {
        let ports = fleet.ports();
        gates.push(
            ports
                .iter()
                .map(|port| machine.gate(*port).expect("a gate"))
                .collect(),
        );
        of_databases.push(machine.gate(database_port).expect("a gate"));
    }
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    let world = World::of(fleet, daemons)
        .await
        .expect("a fleet that the daemons know");
    let ports = world.fleet.ports();
    let primary = world.primary();
    let place = ports
        .iter()
        .position(|port| *port == primary)
        .expect("one of them");

    // Every daemon is connected to every server, and reads it again and again.
    for gate in gates.iter().flatten().chain(&of_databases) {
        assert!(gate.connections() > 0, "{gates:?}");
    }
    let mut seen = async |number: usize, query: &str| -> String {
        let query = query.replace("FROM ", &format!("FROM orc{number}."));
        sql.value(&query)
            .await
            .unwrap_or_else(|error| format!("{error:#}"))
    };
    for number in 1..=3 {
        let query = "SELECT group_concat(last_seen ORDER BY port) FROM database_instance";
        let what = format!("daemon {number} has read each server");
        let looked = until(&what, PATIENCE, Duration::from_millis(100), async || {
            let said = seen(number, query).await;
            let times: Vec<String> = said.split(',').map(str::to_owned).collect();
            match times.len() {
                3 => Look::Holds(times),
                _ => Look::not(said),
            }
        });
        let first = looked.await.expect(&what);
        let what = format!("daemon {number} reads each server again");
        let looked = until(&what, PATIENCE, Duration::from_millis(100), async || {
            let next = seen(number, query).await;
            let is_fresh = next
                .split(',')
                .zip(&first)
                .all(|(next, first)| next > first.as_str());
            if is_fresh {
                Look::Holds(())
            } else {
                Look::not(next)
            }
        });
        looked.await.expect(&what);
    }

    log_statements(&world.fleet).await;

    // The primary is lost to a follower, then to the leader.
    for of_leader in [false, true] {
        let led = place_of_leader(&world.daemons).await;
        let blind = if of_leader { led } else { (led + 1) % 3 };
        gates[blind][place].close();
        let mut cut = Instant::now();
        let mut since = clocks(&world.fleet).await;
        let query = format!(
            "SELECT last_seen < last_checked FROM database_instance WHERE port = {primary}"
        );
        let looked = until(
            "it sees no answer",
            PATIENCE,
            Duration::from_millis(100),
            async || match seen(blind + 1, &query).await {
                said if said == "1" => Look::Holds(()),
                said => Look::not(said),
            },
        );
        looked.await.expect("unseen");
        println!("unseen after {:?}", cut.elapsed());
        let mut busy = Vec::new();
        loop {
            while cut.elapsed() < WATCHED {
                for number in (1..=3).filter(|number| *number != blind + 1) {
                    let what = format!("daemon {number} sees it");
                    let looked =
                        until(
                            &what,
                            PATIENCE,
                            Duration::from_millis(100),
                            async || match seen(number, &query).await {
                                said if said == "0" => Look::Holds(()),
                                said => Look::not(said),
                            },
                        );
                    looked.await.expect(&what);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert_eq!(world.daemons.audit_recovery().await.expect("audit"), []);
            // The servers saw each daemon about every `InstancePollSeconds`, but for the one that did not see the primary,
            // which looks all the more at the others meanwhile.
            let counts = probes(&network, &world.fleet, &since).await;
            let seconds = cut.elapsed().as_secs();
            println!("in {seconds} s the servers were probed {counts:?} times");
            let mut too_many = Vec::new();
            for (server, of_server) in counts.iter().enumerate() {
                for (daemon, count) in of_server.iter().enumerate() {
                    let (least, most) = match (server == place, daemon == blind) {
                        (true, true) => (0, 0),
                        (false, true) => (seconds / 4, u64::MAX),
                        (true | false, false) => (seconds / 4, seconds * 3 / 2),
                    };
                    let is_unseen = (least, most) == (0, 0);
                    let said = format!("{counts:?}: {count} is not {least} to {most}");
                    assert!(*count >= least && (*count == 0 || !is_unseen), "{said}");
                    if *count > most {
                        too_many.push(said);
                    }
                }
            }
            // A machine that stands still makes up for it with probes afterwards: once it did not.
            if too_many.is_empty() {
                break;
            }
            busy.push(too_many);
            assert!(busy.len() < WINDOWS, "{busy:#?}");
            cut = Instant::now();
            since = clocks(&world.fleet).await;
        }
        gates[blind][place].open();
        world.wait_settled(&[]).await.expect("settled");
    }
    assert_eq!(told(&collector), Vec::<String>::new());

    // The leader is cut off, and the primary dies.
    let led = place_of_leader(&world.daemons).await;
    network.isolate(led).expect("cut");
    world.signal(Strike::KillPrimary).await.expect("killed");
    let ledger = world.clients();
    ledger
        .wait_acknowledged_elsewhere(Instant::now(), primary, PATIENCE)
        .await
        .expect("another server takes writes");
    drop(ledger.end().await);
    let looked = until(
        "one recovery",
        PATIENCE,
        Duration::from_millis(100),
        async || match world.daemons.audit_recovery().await {
            Ok(recoveries) if recoveries.iter().any(|recovery| recovery.successful) => {
                Look::Holds(recoveries)
            }
            Ok(recoveries) => Look::not(format!("{recoveries:?}")),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    let recoveries = looked.await.expect("recovered");
    assert_eq!(recoveries.len(), 1, "{recoveries:?}");
    let acted = told(&collector);
    assert_eq!(acted.len(), 1, "{acted:?}");
    assert_ne!(
        acted[0],
        (led + 1).to_string(),
        "the leader that was cut off acted"
    );
    network.rejoin(led).expect("joined");
    // The one that was away has it as the others have it, and did not act on it.
    let query =
        "SELECT concat(uid, ' ', successor_port, ' ', is_successful) FROM topology_recovery";
    let wanted = format!("{} {} 1", recoveries[0].uid, recoveries[0].successor_port);
    for number in 1..=3 {
        let what = format!("daemon {number} has the recovery");
        let looked = until(
            &what,
            PATIENCE,
            Duration::from_millis(100),
            async || match seen(number, query).await {
                said if said == wanted => Look::Holds(()),
                said => Look::not(said),
            },
        );
        looked.await.expect(&what);
    }
    assert_eq!(told(&collector), acted);
}

fn seconds_of_the_clock() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs_f64()
}

/// When a server was probed by a machine's daemon, in seconds of the clock, which both go by.
async fn times(server: &Server, machine: &Machine, since: f64) -> Vec<f64> {
    let query = format!(
        "SELECT unix_timestamp(event_time) FROM mysql.general_log WHERE unix_timestamp(event_time) >= {since} AND user_host LIKE \
         'orchestrator[%[{}]' AND argument LIKE '{MARIADB_PROBE}%' ORDER BY event_time",
        machine.address_here()
    );
    let mut sql = server.harness().await.expect("login");
    let rows = sql.rows(&query).await.expect("times");
    sql.close().await;
    let times = rows.iter().map(|row| row.only().parse());
    times.collect::<Result<_, _>>().expect("numbers")
}

fn living(fleet: &Fleet) -> impl Iterator<Item = &Server> {
    fleet.servers().iter().filter(|server| server.is_running())
}

/// Waits until a machine's daemon has read every server that lives again and again.
async fn wait_reads(fleet: &Fleet, machine: &Machine) {
    let since = seconds_of_the_clock();
    for server in living(fleet) {
        let what = format!("{} reads {}", machine.host_name(), server.port());
        let pace = Duration::from_millis(100);
        let looked = until(&what, PATIENCE, pace, async || {
            match times(server, machine, since).await.len() {
                times @ 0..3 => Look::not(times),
                _ => Look::Holds(()),
            }
        });
        looked.await.expect("read");
    }
}

/// Every server that lives was read by a machine's daemon again and again, from then to then.
async fn assert_covered(fleet: &Fleet, machine: &Machine, (from, to): (f64, f64)) {
    for server in living(fleet) {
        let mut moments = vec![from];
        let read = times(server, machine, from).await;
        moments.extend(read.into_iter().filter(|at| *at < to));
        moments.push(to);
        let gaps = moments.windows(2).map(|two| two[1] - two[0]);
        let longest = gaps.fold(0.0, f64::max);
        println!(
            "{} read {} {} times in {:.1} s, once not for {longest:.1} s",
            machine.host_name(),
            server.port(),
            moments.len() - 2,
            to - from
        );
        assert!(longest <= UNREAD_MAX, "{from} to {to}: {moments:?}");
    }
}

/// Who said that it leads, by term.
type Led = BTreeMap<u64, BTreeSet<String>>;

/// Looks at each daemon that runs: no term has two leaders. How many of them are healthy.
async fn healthy(daemons: &Daemons, led: &mut Led) -> usize {
    let mut healthy = 0;
    for daemon in daemons.all().iter().filter(|daemon| daemon.is_running()) {
        let reply = daemon.get("/api/v2/health", DEADLINE).await;
        let reply = reply.expect("an answer");
        healthy += usize::from(reply.status == 200);
        let health = reply.json().expect("a document");
        if health["IsLeading"] == true {
            let term = health["Term"].as_u64().expect("a term");
            let node = health["Node"].as_str().expect("a node");
            led.entry(term).or_default().insert(node.to_owned());
        }
    }
    assert!(led.values().all(|nodes| nodes.len() == 1), "{led:?}");
    healthy
}

async fn wait_says(daemon: &Daemon, wanted: &str) {
    let what = format!("{} says '{wanted}'", daemon.url());
    let pace = Duration::from_millis(50);
    let looked = until(&what, PATIENCE, pace, async || {
        match daemon.get("/api/raft-health", DEADLINE).await {
            Ok(reply) if reply.body.contains(wanted) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("said");
}

/// A member is replaced by restarts, twice: the one that goes is stopped, or left running. As the servers see it, each member that is
/// not the one that is restarted goes on reading all of them; the newcomer reads none before it is a member, and all of them
/// after. With the former left running somebody is healthy all the while, and the fleet is repaired while one is away.
#[tokio::test]
async fn a_fleet_stays_covered_while_a_member_is_replaced() {
    let _turn = TURN.lock().await;
    let network = Network::lay(4).expect("a network");
    let fleet = Fleet::start(fleet_options(3)).await.expect("a fleet");
    let mut gates = Vec::new();
    for machine in network.machines() {
        for port in fleet.ports() {
            gates.push(machine.gate(port).expect("a gate"));
        }
    }
    let mut options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::steady()
    };
    let poll = String::from("InstancePollSeconds");
    options.settings.insert(poll, json!(1));
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    let world = World::of(fleet, daemons)
        .await
        .expect("a fleet that the daemons know");
    log_statements(&world.fleet).await;
    let (daemons, machines) = (world.daemons.all(), network.machines());
    // The pace at which they read is the leader's, which they are told after their first reading.
    for machine in &machines[..3] {
        wait_reads(&world.fleet, machine).await;
    }
    let mut led = Led::new();
    for (former, newcomer, runs_on) in [(2, 3, false), (3, 2, true)] {
        let wanted = [&daemons[0], &daemons[1], &daemons[newcomer]];
        if runs_on {
            daemons[newcomer].wipe().expect("wiped");
        } else {
            daemons[former].signal(Signal::Terminate);
            daemons[former].wait_ended(PATIENCE).await.expect("ended");
        }
        for daemon in wanted {
            daemon.set_nodes(&wanted).expect("written");
        }
        let started = seconds_of_the_clock();
        daemons[newcomer].start().expect("started");
        wait_says(&daemons[newcomer], "RaftNodes").await;
        for (restarted, other) in [(0, 1), (1, 0)] {
            let from = seconds_of_the_clock();
            daemons[restarted].signal(Signal::Terminate);
            let ended = daemons[restarted].wait_ended(PATIENCE).await;
            ended.expect("ended");
            if runs_on {
                // One that led has handed that over, or is followed by election.
                let next = world.daemons.wait_leader(PATIENCE).await;
                next.expect("a leader");
            }
            let began = Instant::now();
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            while began.elapsed() < AWAY {
                pace.tick().await;
                let healthy = healthy(&world.daemons, &mut led).await;
                assert!(healthy > 0 || !runs_on, "{:?}", began.elapsed());
            }
            if runs_on && restarted == 0 {
                world.signal(Strike::KillPrimary).await.expect("killed");
                let pace = Duration::from_millis(100);
                let looked = until("a recovery", PATIENCE, pace, async || {
                    match world.daemons.audit_recovery().await {
                        Ok(recoveries) if recoveries.iter().any(|one| one.successful) => {
                            Look::Holds(())
                        }
                        other => Look::not(format!("{other:?}")),
                    }
                });
                looked.await.expect("recovered");
                assert!(!daemons[restarted].is_running());
            }
            for server in living(&world.fleet) {
                let read = times(server, &machines[newcomer], started).await;
                assert_eq!(read, Vec::<f64>::new(), "{}", server.port());
            }
            daemons[restarted].start().expect("started");
            let healthy_again = daemons[restarted].start_until_healthy(PATIENCE).await;
            assert_eq!(healthy_again.expect("healthy"), 0);
            let span = (from, seconds_of_the_clock());
            assert_covered(&world.fleet, &machines[other], span).await;
            if runs_on {
                assert_covered(&world.fleet, &machines[former], span).await;
            }
        }
        wait_members(&wanted, PATIENCE).await.expect("members");
        for place in [0, 1, newcomer] {
            wait_reads(&world.fleet, &machines[place]).await;
        }
    }
    println!("led: {led:?}");
}
