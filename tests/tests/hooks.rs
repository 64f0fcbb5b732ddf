//! Hooks of real daemons around the failover of a real fleet: the leader alone runs them, in order, once; and a leader
//! that dies in the middle of one leaves the rest to the next.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator_tests::consul::Consul;
use orchestrator_tests::daemons::DaemonOptions;
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::{Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{Expectation, PATIENCE, Strike, World};
use serde_json::{Value, json};

/// Held while a test owns a fleet.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where hooks of all daemons write to.
struct Collector {
    _folder: Scratch,
    path: PathBuf,
}

impl Collector {
    fn new() -> Collector {
        let folder = Scratch::create("hooks").expect("a folder");
        let path = folder.path().join("ran");
        fs::write(&path, "").expect("written");
        Collector {
            _folder: folder,
            path,
        }
    }

    /// A hook that tells its name, the process that runs it (the daemon) and what it is given.
    fn hook(&self, name: &str, rest: &str) -> String {
        format!(
            "echo \"{name} $PPID $ORC_RECOVERY_UID {rest}\" >> {}",
            self.path.display()
        )
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.path).expect("read");
        text.lines()
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect()
    }

    /// Waits until a hook of this name has begun.
    async fn wait_for(&self, name: &str) {
        let what = format!("hook {name} begins");
        let looked = until(&what, PATIENCE, Duration::from_millis(20), async || {
            let names: Vec<String> = self
                .lines()
                .into_iter()
                .map(|line| line[0].clone())
                .collect();
            if names.iter().any(|ran| ran == name) {
                Look::Holds(())
            } else {
                Look::not(format!("{names:?}"))
            }
        });
        looked.await.expect("it ran");
    }
}

/// The code of a primary's death. A replica that is not read at that moment, as on a machine that stands still, is in it.
fn dead_primary(code: &str) -> &str {
    assert!(
        ["DeadMaster", "DeadMasterAndSomeReplicas"].contains(&code),
        "{code}"
    );
    code
}

/// Whether a process runs. One that has ended, and that nobody has asked how, has no command line.
fn runs(pid: &str) -> bool {
    !fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .is_empty()
}

async fn world(settings: Value) -> World {
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 4,
        timing: ReplicationTiming::Quick,
    };
    let mut options = DaemonOptions::steady();
    let settings = settings.as_object().expect("an object").clone();
    options.settings.extend(settings);
    World::start(fleet, &options)
        .await
        .expect("a fleet that the daemons know")
}

#[tokio::test]
async fn the_leader_alone_runs_each_hook_once_and_in_order() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    let mut world = world(json!({
        "OnFailureDetectionProcesses": [collector.hook("detection", "{failureType} {failedPort}")],
        "PreFailoverProcesses": [collector.hook("pre", "{failureType} {failedPort} {countReplicas}")],
        "PostMasterFailoverProcesses": [
            "exit 3",
            collector.hook("post-master", "{failedPort} {successorPort} {isSuccessful}"),
        ],
        "PostFailoverProcesses": [collector.hook("post", "{failedPort} $ORC_SUCCESSOR_PORT $ORC_IDEMPOTENCY_KEY")],
        "PostUnsuccessfulFailoverProcesses": [collector.hook("unsuccessful", "")],
    }))
    .await;
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let leader = leader.pid().expect("it runs").to_string();
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    assert_eq!(aftermath.wrongs(), Vec::<String>::new());
    collector.wait_for("post").await;
    let uid = aftermath.recoveries[0].uid.clone();
    let (old, new) = (aftermath.old.to_string(), aftermath.promoted.to_string());
    let key = format!("{uid}/PostFailoverProcesses[0]");
    let lines = collector.lines();
    let code = dead_primary(&lines[0][3]);
    let wanted = [
        vec!["detection", &leader, "", code, &old],
        vec!["pre", &leader, &uid, code, &old, "3"],
        vec!["post-master", &leader, &uid, &old, &new, "true"],
        vec!["post", &leader, &uid, &old, &new, &key],
    ];
    assert_eq!(collector.lines(), wanted);
    // Killed before a hook is settled, the next leader would run it once more, under the same key.
    let looked = until(
        "the last hook is settled",
        PATIENCE,
        Duration::from_millis(50),
        async || match world.daemons.recovery_steps(&uid).await {
            Ok(steps)
                if steps
                    .iter()
                    .any(|step| step.starts_with("run hook PostFailoverProcesses[0]: ")) =>
            {
                Look::Holds(steps)
            }
            Ok(steps) => Look::not(format!("{steps:#?}")),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    let steps = looked.await.expect("settled");
    let failed = "run hook PostMasterFailoverProcesses[0]: failed (3): exit code 3";
    assert!(steps.iter().any(|step| step == failed), "{steps:#?}");

    // Daemons that start anew replay all of it, and run none of it again.
    for daemon in world.daemons.all() {
        daemon.kill().await.expect("killed");
    }
    for daemon in world.daemons.all() {
        daemon.start().expect("started");
    }
    world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let again = world.daemons.recovery_steps(&uid).await.expect("steps");
    assert!(again.starts_with(&steps), "{again:#?}\n{steps:#?}");
    assert_eq!(collector.lines(), wanted);
}

/// A hook that takes long is interrupted by the death of its leader: the next one runs it again, under the same key, and
/// finishes the failover without anybody's help.
#[tokio::test]
async fn a_leader_killed_during_a_hook_is_followed_by_one_that_finishes() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    let once = collector.path.with_extension("once");
    let slow_once = format!(
        "{}; if [ ! -e {once} ]; then touch {once}; sleep 1000; fi",
        collector.hook("pre", "$ORC_IDEMPOTENCY_KEY"),
        once = once.display()
    );
    let world = world(json!({
        "PreFailoverProcesses": [slow_once],
        "PostFailoverProcesses": [collector.hook("post", "{successorPort}")],
    }))
    .await;
    let old = world.primary();
    let ledger = world.clients();
    ledger
        .wait_acknowledged(Instant::now(), Some(old), PATIENCE)
        .await
        .expect("writes");
    world.signal(Strike::KillPrimary).await.expect("killed");
    collector.wait_for("pre").await;
    let first = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let first_pid = first.pid().expect("it runs").to_string();
    let killed = first.signal(Signal::Kill);
    let write = ledger
        .wait_acknowledged_elsewhere(killed, old, PATIENCE)
        .await
        .expect("another server takes writes");
    collector.wait_for("post").await;
    drop(ledger.end().await);
    let lines = collector.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let (interrupted, again, post) = (&lines[0], &lines[1], &lines[2]);
    assert_eq!((interrupted[0].as_str(), again[0].as_str()), ("pre", "pre"));
    assert_eq!(interrupted[1], first_pid);
    assert_ne!(again[1], first_pid);
    // The same recovery, the same key.
    assert_eq!(interrupted[2..], again[2..]);
    assert_eq!(post[3], write.port.to_string());
    let recoveries = world.daemons.audit_recovery().await.expect("audit");
    assert_eq!(recoveries.len(), 1, "{recoveries:?}");
}

/// Consul is told of a promotion before the hooks are; what somebody wrote of a later decision stays.
#[tokio::test]
async fn consul_is_told_before_the_hooks() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    let consul = Consul::start().expect("a store");
    let url = format!("http://{}/v1/kv/mysql/master/fleet/port", consul.address());
    let ask = format!("$(curl -s {url}?raw)");
    let mut world = world(json!({
        "ConsulAddress": consul.address(),
        "PostMasterFailoverProcesses": [collector.hook("post", &format!("{ask} {{successorPort}}"))],
    }))
    .await;
    let wait_for = async |key: &str, wanted: &str| {
        let looked = until(
            key,
            PATIENCE,
            Duration::from_millis(50),
            async || match consul.value(key) {
                Some(value) if value == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}, wanted {wanted}")),
            },
        );
        looked.await.expect("published");
    };
    let before = format!("127.0.0.1:{}", world.primary());
    wait_for("mysql/master/fleet", &before).await;
    wait_for("mysql/master/fleet/hostname", "127.0.0.1").await;
    wait_for("mysql/master/fleet/ipv4", "127.0.0.1").await;
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    collector.wait_for("post").await;
    let promoted = aftermath.promoted.to_string();
    let post = &collector.lines()[0];
    assert_eq!(post[3..], [promoted.clone(), promoted.clone()]);
    wait_for("mysql/master/fleet", &format!("127.0.0.1:{promoted}")).await;
    // The flags: when it was decided, and in which term it was written.
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let term = leader.status().await.expect("a status")["Term"].clone();
    let flags = consul.flags("mysql/master/fleet").expect("flags");
    assert_eq!(json!(flags & 0xf_ffff), term);
    let decided = Duration::from_millis(flags >> 20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.expect("a clock").abs_diff(decided);
    assert!(age < Duration::from_secs(600), "{age:?}");

    // Nobody who knows less may turn it back: daemons that start anew compare, and leave what is newer.
    consul.put("mysql/master/fleet", "elsewhere:3306", u64::MAX);
    for daemon in world.daemons.all() {
        daemon.signal(Signal::Kill);
        daemon.wait_ended(PATIENCE).await.expect("it ends");
        daemon.start().expect("started again");
    }
    world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let log = world.daemons.all()[0].log();
    let looked = until(
        "a daemon compared and left it",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let text = fs::read_to_string(&log).expect("a log");
            if text.contains("of a later decision") {
                Look::Holds(())
            } else {
                Look::not("not in the log")
            }
        },
    );
    looked.await.expect("compared");
    assert_eq!(
        consul.value("mysql/master/fleet").as_deref(),
        Some("elsewhere:3306")
    );
}

/// A hook that says no before a failover is obeyed: no server is touched, until it says yes.
#[tokio::test]
async fn a_hook_that_says_no_holds_the_failover() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    let gate = collector.path.with_extension("gate");
    let world = world(json!({
        "PreFailoverProcesses": [format!("{}; test -e {}", collector.hook("pre", ""), gate.display())],
    }))
    .await;
    let old = world.primary();
    world.signal(Strike::KillPrimary).await.expect("killed");
    collector.wait_for("pre").await;
    let looked = until(
        "the failover is called off",
        PATIENCE,
        Duration::from_millis(50),
        async || match world.daemons.audit_recovery().await {
            Ok(recoveries) if recoveries.iter().any(|recovery| !recovery.active) => Look::Holds(()),
            Ok(recoveries) => Look::not(format!("{recoveries:?}")),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    looked.await.expect("called off");
    for server in world.fleet.live_except(old) {
        let status = server
            .replica_status()
            .await
            .expect("answers")
            .expect("a replica");
        assert_eq!(status.source_port, old, "{} was touched", server.port());
    }
    fs::write(&gate, "").expect("written");
    let ledger = world.clients();
    ledger
        .wait_acknowledged_elsewhere(Instant::now(), old, PATIENCE)
        .await
        .expect("the next attempt is let through");
    drop(ledger.end().await);
}

/// A failover that was begun and that promotes nobody is told of, once, by the hooks for that. The first of them never ends by
/// itself: it is ended at its deadline, with all that it started, and the next one is run.
#[tokio::test]
async fn a_failed_failover_is_told_and_a_hook_ends_at_its_deadline() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    // One child ends when it is asked to, the other when it is killed.
    let endless = format!(
        "sleep 300 & tame=$!; (trap '' TERM; exec sleep 300) & {}; wait",
        collector.hook("endless", "$$ $tame $!")
    );
    let told = "$ORC_IDEMPOTENCY_KEY $ORC_IS_SUCCESSFUL {isSuccessful} $ORC_FAILED_HOST $ORC_FAILED_PORT $ORC_COUNT_REPLICAS \
                [$ORC_LOST_REPLICAS] ${ORC_SUCCESSOR_PORT-unset} {successorPort} $ORC_FAILURE_TYPE";
    let world = world(json!({
        // Enough for the hook that ends by itself on a machine that stands still for seconds.
        "ProcessesTimeoutSeconds": 5,
        "PostFailoverProcesses": [collector.hook("post", "")],
        "PostUnsuccessfulFailoverProcesses": [endless, collector.hook("unsuccessful", told)],
    }))
    .await;
    let dead = world.primary();
    let replicas = world.fleet.live_except(dead);
    for replica in &replicas {
        let path = format!(
            "/api/register-candidate/127.0.0.1/{}/must_not",
            replica.port()
        );
        world.daemons.ask_leader(&path).await.expect("registered");
    }
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let leader = leader.pid().expect("it runs").to_string();
    world.signal(Strike::KillPrimary).await.expect("killed");
    collector.wait_for("unsuccessful").await;
    let uid = collector.lines()[0][2].clone();
    let of_this = || -> Vec<Vec<String>> {
        let lines = collector.lines().into_iter();
        lines.filter(|line| line[2] == uid).collect()
    };
    let looked = until(
        "the last hook is settled",
        PATIENCE,
        Duration::from_millis(50),
        async || match world.daemons.recovery_steps(&uid).await {
            Ok(steps)
                if steps.iter().any(|step| {
                    step.starts_with("run hook PostUnsuccessfulFailoverProcesses[1]: ")
                }) =>
            {
                Look::Holds(steps)
            }
            Ok(steps) => Look::not(format!("{steps:#?}")),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    let steps = looked.await.expect("settled");
    let outcomes: Vec<&str> = steps
        .iter()
        .filter_map(|step| step.strip_prefix("run hook PostUnsuccessfulFailoverProcesses"))
        .collect();
    assert_eq!(
        outcomes,
        ["[0]: it was ended after 5 s", "[1]: done"],
        "{steps:#?}"
    );
    let ran = of_this();
    let [endless, told] = ran.as_slice() else {
        panic!("two hooks: {ran:?}");
    };
    assert_eq!(endless[..3], ["endless", &leader, &uid]);
    let code = dead_primary(told.last().expect("a code"));
    let key = format!("{uid}/PostUnsuccessfulFailoverProcesses[1]");
    let (port, count) = (dead.to_string(), replicas.len().to_string());
    let wanted = [
        "unsuccessful",
        &leader,
        &uid,
        &key,
        "false",
        "false",
        "127.0.0.1",
        &port,
        &count,
        "[]",
        "unset",
        "{successorPort}",
        code,
    ];
    assert_eq!(told[..], wanted);
    let processes = &endless[3..];
    assert_eq!(processes.len(), 3, "{endless:?}");
    let looked = until(
        "the hook and its children are gone",
        PATIENCE,
        Duration::from_millis(20),
        async || match processes.iter().find(|pid| runs(pid)) {
            None => Look::Holds(()),
            Some(pid) => Look::not(format!("{pid} of {processes:?} runs")),
        },
    );
    looked.await.expect("gone");
    let recoveries = world.daemons.audit_recovery().await.expect("audit");
    let recovery = recoveries.iter().find(|recovery| recovery.uid == uid);
    let recovery = recovery.expect("it is on record");
    assert_eq!((recovery.failed_port, recovery.successor_port), (dead, 0));
    let why = "no replica may be promoted: ";
    assert!(
        recovery.errors.iter().any(|error| error.starts_with(why)),
        "{recovery:?}"
    );

    // The next attempt has hooks of its own, and repeats none.
    let looked = until(
        "the next attempt is told of",
        PATIENCE,
        Duration::from_millis(50),
        async || {
            let lines = collector.lines();
            match lines
                .iter()
                .find(|line| line[0] == "unsuccessful" && line[2] != uid)
            {
                Some(_) => Look::Holds(()),
                None => Look::not(format!("{lines:?}")),
            }
        },
    );
    looked.await.expect("it fails as well");
    assert_eq!(of_this(), ran);
    let names: Vec<String> = collector
        .lines()
        .into_iter()
        .map(|line| line[0].clone())
        .collect();
    assert!(!names.iter().any(|name| name == "post"), "{names:?}");
    let recoveries = world.daemons.audit_recovery().await.expect("audit");
    assert!(
        recoveries.iter().all(|recovery| !recovery.successful),
        "{recoveries:?}"
    );
}

/// With recovery off a death is seen by every daemon, each in what it observed itself; the leader alone records it and tells the
/// hooks of it, once.
#[tokio::test]
async fn a_death_is_seen_by_all_and_told_by_the_leader() {
    let _turn = TURN.lock().await;
    let collector = Collector::new();
    let world = world(json!({
        "RecoverMasterClusterFilters": [],
        "OnFailureDetectionProcesses": [collector.hook("detection", "{failureType} {failedPort}")],
        "PreFailoverProcesses": [collector.hook("pre", "")],
    }))
    .await;
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let acting = leader.token().expect("its row");
    let leader = leader.pid().expect("it runs").to_string();
    let dead = world.primary();
    world.signal(Strike::KillPrimary).await.expect("killed");
    collector.wait_for("detection").await;
    // Where a replica is not read at that moment, its code says that too, at its end.
    let wanted = format!("127.0.0.1:{dead} (cluster 127.0.0.1:{dead}): DeadMaster");
    for daemon in world.daemons.all() {
        let what = format!("{} sees it", daemon.url());
        let looked = until(&what, PATIENCE, Duration::from_millis(200), async || {
            let (is_done, said) = daemon
                .run(&["--ignore-raft-setup", "-c", "replication-analysis"])
                .expect("it runs");
            match is_done && said.contains(&wanted) {
                true => Look::Holds(()),
                false => Look::not(said),
            }
        });
        looked.await.expect("seen");
    }
    let ran = collector.lines();
    let code = dead_primary(&ran[0][3]);
    assert_eq!(
        ran,
        [vec!["detection", &leader, "", code, &dead.to_string()]]
    );
    assert_eq!(world.daemons.audit_recovery().await.expect("audit"), []);
    let detections = world
        .daemons
        .ask_leader("/api/audit-failure-detection")
        .await;
    let detections = detections.expect("an answer");
    assert_eq!(detections.as_array().map(Vec::len), Some(1), "{detections}");
    assert_eq!(
        detections[0]["ProcessingNodeToken"], acting,
        "{detections:#}"
    );
}

/// Consul by HTTPS, here and in another data centre, and the table of each daemon's backend say who is primary; a store that
/// somebody emptied is filled again when it is asked for.
#[tokio::test]
async fn every_store_says_who_is_primary() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("consul").expect("a folder");
    let (certificate, key) = {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params =
            rcgen::CertificateParams::new(vec![String::from("127.0.0.1")]).expect("a host");
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), key.serialize_pem())
    };
    let authorities = folder.path().join("consul.pem");
    fs::write(&authorities, &certificate).expect("written");
    let consul = Consul::start_https(&certificate, &key).expect("a store");
    let mut world = world(json!({
        "ConsulAddress": consul.address(),
        "ConsulScheme": "https",
        "ConsulSSLCAFile": authorities,
        "ConsulCrossDataCenterDistribution": true,
    }))
    .await;
    let wait_for = async |what: &str, wanted: &str, look: &dyn Fn() -> Option<String>| {
        let looked = until(
            what,
            PATIENCE,
            Duration::from_millis(50),
            async || match look() {
                Some(value) if value == wanted => Look::Holds(()),
                other => Look::not(format!("{other:?}, wanted {wanted}")),
            },
        );
        looked.await.expect("published");
    };
    let master = "mysql/master/fleet";
    let tables: Vec<PathBuf> = world
        .daemons
        .all()
        .iter()
        .map(|daemon| daemon.folder().join("orchestrator.db"))
        .collect();
    let all_say = async |primary: u16| {
        let wanted = format!("127.0.0.1:{primary}");
        for data_center in ["east", "west"] {
            wait_for(data_center, &wanted, &|| {
                consul.value_in(data_center, master)
            })
            .await;
            let port = format!("{master}/port");
            wait_for(data_center, &primary.to_string(), &|| {
                consul.value_in(data_center, &port)
            })
            .await;
        }
        for table in &tables {
            wait_for(&table.display().to_string(), &wanted, &|| {
                let query =
                    "SELECT store_value FROM kv_store WHERE store_key = 'mysql/master/fleet'";
                let database = rusqlite::Connection::open(table).ok()?;
                database.query_row(query, [], |row| row.get(0)).ok()
            })
            .await;
        }
    };
    all_say(world.primary()).await;
    let aftermath = world
        .strike(Strike::KillPrimary, Duration::ZERO, &Expectation::default())
        .await
        .expect("recovery");
    all_say(aftermath.promoted).await;

    consul.clear();
    let wanted = format!("127.0.0.1:{}", aftermath.promoted);
    for path in [
        "/api/submit-masters-to-kv-stores",
        "/api/submit-masters-to-kv-stores/fleet",
    ] {
        consul.clear();
        let answer = world.daemons.ask_leader(path).await.expect("an answer");
        assert_eq!(answer["Message"], "Submitted 1 masters", "{answer}");
        let pairs = answer["Details"].as_array().expect("pairs");
        assert_eq!(pairs.len(), 5, "{answer}");
        assert_eq!(pairs[0]["Key"], master, "{answer}");
        assert_eq!(pairs[0]["Value"], wanted.as_str(), "{answer}");
        assert_eq!(consul.value(master), Some(wanted.clone()));
    }
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let unknown = "/api/submit-masters-to-kv-stores/nothing";
    let reply = leader.get(unknown, PATIENCE).await.expect("an answer");
    assert_eq!(reply.status, 500, "{}", reply.body);
}
