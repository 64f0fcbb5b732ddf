//! The backend on real files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use orchestrator_core::id::{Epoch, Identity, NodeId, Uid};
use orchestrator_core::recovery::{DeadKind, End, Purpose};
use orchestrator_core::replicated::{Command, Detection, Stamped};
use orchestrator_core::time::{Mono, Now};
use orchestrator_core::topology::{
    Instance, ProbeReport, PromotionRule, ReplicaStatus, ThreadState,
};
use rusqlite::Connection;

use super::*;
use crate::env::{DedicatedRuntime, TokioEnv, sleep, timeout};

type E = TokioEnv;

const CLUSTER: ClusterId = ClusterId([7; 32]);
/// 2026-01-01 00:00:00
const BEGINNING: u64 = 1_767_225_600;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A folder of its own, removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn make(name: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "orchestrator-backend-{name}-{}-{count}",
            std::process::id()
        ));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("orchestrator.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test under a limit that only a test that hangs reaches.
fn run(test: impl Future<Output = ()> + Send) {
    let runtime = DedicatedRuntime::start("backend-test", 2).unwrap();
    let ended = runtime.run(timeout::<E, _>(Duration::from_secs(60), test));
    runtime.stop();
    assert!(ended.is_some(), "the test did not end");
}

fn settings(file: &Path) -> Settings {
    Settings {
        place: Place::Sqlite(file.to_owned()),
        deploy: Deploy::Apply,
        daemon: String::from("/var/lib/orc1"),
        identity: None,
        cluster: None,
        host_name: String::from("orc1"),
        token: String::from("token1"),
        app_version: String::from("1.2.3"),
        extra_info: String::from("HttpMode"),
        command: String::new(),
    }
}

/// A node whose state is changed by commands, and the log that they would be in.
#[derive(Clone, Default)]
struct Model {
    state: Arc<Mutex<Replicated>>,
    instances: Arc<Mutex<BTreeMap<InstanceKey, Instance>>>,
}

impl View for Model {
    async fn replicated(&self) -> Option<Replicated> {
        Some(self.state.lock().unwrap().clone())
    }

    async fn observe(&self, mut seen: Seen) -> Option<(Seen, Vec<Observation>)> {
        let found = seen.look(&self.state.lock().unwrap(), &self.instances.lock().unwrap());
        Some((seen, found))
    }
}

impl Model {
    fn apply(&self, command: Command) -> Batch {
        let mut state = self.state.lock().unwrap();
        let at = LogPosition {
            index: state.applied().index + 1,
            term: 1,
            node: NodeId(9),
        };
        let wall = Wall::from_secs(BEGINNING + at.index);
        let applied = state.apply(at, &Stamped { wall, command });
        Batch::changes(at, state.digest(), applied.changes)
    }

    fn place(&self) -> (LogPosition, [u8; 32]) {
        let state = self.state.lock().unwrap();
        (state.applied(), state.digest())
    }
}

fn key(host: &str) -> InstanceKey {
    InstanceKey::new(host, 3306)
}

fn uid(number: u64) -> Uid {
    Uid::of(EPOCH, number, Wall::from_secs(BEGINNING))
}

const EPOCH: Epoch = Epoch {
    term: 1,
    node: NodeId(9),
    boot: 1,
};

/// A history in which every table gets rows, and some of them go again.
fn history() -> Vec<Command> {
    let until = Wall::from_secs(BEGINNING + 3_600);
    let text = |text: &str| text.to_owned();
    let mut commands = vec![
        Command::Know {
            keys: vec![key("db1"), key("db2"), key("db3"), key("x1")],
            by_operator: false,
        },
        Command::RecordCluster {
            primary: key("db1"),
            identity: Some(Identity(text("uuid1"))),
            members: vec![key("db1"), key("db2"), key("db3")],
        },
        Command::RecordCluster {
            primary: key("x1"),
            identity: None,
            members: vec![key("x1")],
        },
        // Two clusters may call themselves the same.
        Command::SetClusterAlias {
            cluster_name: text("x1:3306"),
            alias: text("shop"),
            by_operator: false,
        },
        Command::SetClusterAlias {
            cluster_name: text("db1:3306"),
            alias: text("shop"),
            by_operator: false,
        },
        Command::SetClusterAlias {
            cluster_name: text("x1:3306"),
            alias: text("other"),
            by_operator: true,
        },
        Command::SetClusterDomain {
            cluster_name: text("db1:3306"),
            domain: text("shop.example"),
        },
        Command::PutTag {
            key: key("db1"),
            name: text("a"),
            value: text("1"),
        },
        Command::PutTag {
            key: key("db1"),
            name: text("b"),
            value: text("it's 2"),
        },
        Command::DeleteTag {
            key: Some(key("db1")),
            name: text("a"),
            value: None,
        },
        Command::RegisterCandidate {
            key: key("db2"),
            rule: PromotionRule::Prefer,
        },
    ];
    for host in ["db2", "db3"] {
        commands.push(Command::BeginDowntime {
            key: key(host),
            owner: text("me"),
            reason: text("work"),
            until,
        });
        commands.push(Command::BeginMaintenance {
            key: key(host),
            owner: text("me"),
            reason: text("lock"),
            until,
        });
    }
    commands.push(Command::EndDowntime { key: key("db3") });
    commands.push(Command::EndMaintenance { key: key("db3") });
    commands.push(Command::EndMaintenance { key: key("db2") });
    commands.push(Command::EndDowntime { key: key("db2") });
    commands.push(Command::BeginDowntime {
        key: key("x1"),
        owner: text("me"),
        reason: text("later"),
        until,
    });
    commands.push(Command::BeginMaintenance {
        key: key("x1"),
        owner: text("me"),
        reason: text("again"),
        until,
    });
    for (analysis, is_actionable) in [("UnreachableMaster", false), ("DeadMaster", true)] {
        commands.push(Command::RegisterDetection(Detection {
            number: 0,
            server: key("db1"),
            analysis: text(analysis),
            cluster_name: text("db1:3306"),
            cluster_alias: text("shop"),
            replicas: vec![key("db3"), key("db2")],
            is_actionable,
            processing_node: text("orc1"),
            processing_token: text("token1"),
            at: Wall::EPOCH,
            is_active: true,
            telling: None,
        }));
    }
    commands.push(Command::SetRecoveriesEnabled { enabled: false });
    commands.push(Command::SetRecoveriesEnabled { enabled: true });
    for number in [1, 2] {
        commands.push(Command::BeginRecovery {
            uid: uid(number),
            purpose: Purpose::DeadPrimary {
                kind: DeadKind::Gone,
            },
            epoch: EPOCH,
            server: key("db1"),
            identity: Some(Identity(text("uuid1"))),
            cluster_name: text("db1:3306"),
            analysis: text("DeadMaster"),
            replicas: vec![key("db3"), key("db2")],
            processing_node: text("orc1"),
            processing_token: text("token1"),
            forced: false,
            was_read_only: false,
        });
    }
    commands.push(Command::Remark {
        uid: uid(1),
        epoch: EPOCH,
        lines: vec![text("looked"), text("looked again")],
        errors: vec![text("first"), text("second")],
        possible_loss: vec![],
    });
    commands.push(Command::EndRecovery {
        uid: uid(1),
        epoch: EPOCH,
        end: End::Succeeded,
        successor: Some(key("db2")),
        successor_identity: Some(Identity(text("uuid2"))),
        successor_alias: text("two"),
        lost: vec![key("db3")],
        participants: vec![key("db2"), key("db1")],
        lines: vec![text("done")],
    });
    // Within the cool-down.
    commands.push(Command::BeginRecovery {
        uid: uid(3),
        purpose: Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        },
        epoch: EPOCH,
        server: key("db2"),
        identity: Some(Identity(text("uuid2"))),
        cluster_name: text("db2:3306"),
        analysis: text("DeadMaster"),
        replicas: vec![],
        processing_node: text("orc1"),
        processing_token: text("token1"),
        forced: false,
        was_read_only: false,
    });
    commands.push(Command::BeginRecovery {
        uid: uid(4),
        purpose: Purpose::SetReadOnly,
        epoch: EPOCH,
        server: key("x1"),
        identity: None,
        cluster_name: text("x1:3306"),
        analysis: String::new(),
        replicas: vec![],
        processing_node: text("orc1"),
        processing_token: text("token1"),
        forced: true,
        was_read_only: false,
    });
    commands
}

/// The tables' rows as text, without those that tell of the process.
fn dump(file: &Path) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    tables::TABLES
        .iter()
        .filter(|table| table.role == tables::Role::Replicated)
        .flat_map(|table| rows_of(&connection, table.name))
        .collect()
}

fn rows_of(connection: &Connection, table: &str) -> Vec<String> {
    let mut statement = connection
        .prepare(&format!("select * from {table} order by 1, 2"))
        .or_else(|_| connection.prepare(&format!("select * from {table} order by 1")))
        .unwrap();
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| {
            let mut line = table.to_owned();
            for column in 0..columns {
                let value: rusqlite::types::Value = row.get(column)?;
                line.push_str(&match value {
                    rusqlite::types::Value::Null => String::from("|NULL"),
                    rusqlite::types::Value::Integer(number) => format!("|{number}"),
                    rusqlite::types::Value::Real(number) => format!("|{number}"),
                    rusqlite::types::Value::Text(text) => format!("|{text}"),
                    rusqlite::types::Value::Blob(bytes) => format!("|{bytes:?}"),
                });
            }
            Ok(line)
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection
        .query_row(&format!("select count(*) from {table}"), [], |row| {
            row.get(0)
        })
        .unwrap()
}

/// Starts to write to a file.
async fn start(settings: Settings, model: &Model) -> Backend {
    let backend = open::<E>(settings)
        .await
        .unwrap()
        .start::<E, _>(model.clone());
    backend.set_cluster(CLUSTER);
    backend
}

fn send(backend: &Backend, batches: impl IntoIterator<Item = Batch>) {
    let sender = backend.batches();
    for batch in batches {
        sender.send(batch).unwrap();
    }
}

/// Waits until this is wrong. On a busy machine something else may be told before it.
async fn says(backend: &Backend, what: &str) {
    let mut health = backend.health();
    let told = health.wait_for(|health| {
        let error = health.error.as_deref();
        error.is_some_and(|error| error.contains(what))
    });
    drop(told.await.unwrap());
}

/// A file that was written from the state, then closed.
async fn rewritten(file: &Path, model: &Model) {
    let backend = start(settings(file), model).await;
    until(file, "rewritten", |file| stands_at(file, model.place())).await;
    assert_eq!(backend.close().await, Ok(()));
}

/// Waits until a question to the file is answered as wanted.
async fn until(file: &Path, what: &str, holds: impl Fn(&Connection) -> bool) {
    let connection = Connection::open(file).unwrap();
    for _ in 0..5_000 {
        if holds(&connection) {
            return;
        }
        sleep::<E>(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

fn stands_at(connection: &Connection, (at, digest): (LogPosition, [u8; 32])) -> bool {
    connection
        .query_row(
            "select applied_index, digest from orchestrator_projection",
            [],
            |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, String>(1)?)),
        )
        .is_ok_and(|(index, held)| {
            index == i64::try_from(at.index).ok() && held == rows::hex(&digest)
        })
}

fn text_at(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The rows that the history leaves.
const HISTORY: &[&str] = &[
    "cluster_alias|db2:3306|shop|2026-01-01 00:00:02",
    "cluster_alias|x1:3306|other|2026-01-01 00:00:03",
    "cluster_alias_override|x1:3306|other",
    "cluster_domain_name|db2:3306|shop.example|2026-01-01 00:00:02",
    "database_instance_tags|db1|3306|b|it's 2|2026-01-01 00:00:09",
    "candidate_database_instance|db2|3306|2026-01-01 00:00:11|1|prefer",
    "topology_failure_detection|1|db1|3306|0|2026-01-01 00:00:22|1767225622|orc1|token1|UnreachableMaster|db1:3306|shop|2|db2:3306,db3:3306|0",
    "topology_failure_detection|2|db1|3306|0|2026-01-01 00:00:23|1767225623|orc1|token1|DeadMaster|db1:3306|shop|2|db2:3306,db3:3306|1",
    "topology_recovery|1|db1|3306|0|2026-01-01 00:00:26|1767225629|2026-01-01 00:00:29|orc1|token1|db2|3306|two|DeadMaster|db1:3306|shop|2|db2:3306,db3:3306|db1:3306,db2:3306|db3:3306|first\nsecond\ndb3:3306 was left behind: it does not follow the promoted server|1|0|NULL|||2|UID",
    "topology_recovery_steps|1000000|UID|2026-01-01 00:00:28|looked",
    "topology_recovery_steps|1000001|UID|2026-01-01 00:00:28|looked again",
    "topology_recovery_steps|1000002|UID|2026-01-01 00:00:29|done",
    "blocked_topology_recovery|db1|3306|db1:3306|DeadMaster|2026-01-01 00:00:27|1",
    "blocked_topology_recovery|db2|3306|db2:3306|DeadMaster|2026-01-01 00:00:30|1",
    "database_instance_downtime|db1|3306|1|2026-01-01 00:00:29|2027-01-01 00:00:29|orchestrator|lost-in-recovery",
    "database_instance_downtime|db3|3306|1|2026-01-01 00:00:29|2027-01-01 00:00:29|orchestrator|lost-in-recovery",
    "database_instance_downtime|x1|3306|1|2026-01-01 00:00:20|2026-01-01 01:00:00|me|later",
    "database_instance_maintenance|3|x1|3306|1|2026-01-01 00:00:21|2026-01-01 01:00:00|me|again|||1",
];

#[test]
fn following_changes_gives_the_rows_of_a_rewrite() {
    run(async {
        let folder = Folder::make("incremental");
        let model = Model::default();
        let mut commands = history().into_iter();
        model.apply(commands.next().unwrap());
        rewritten(&folder.file(), &model).await;
        assert_eq!(dump(&folder.file()), Vec::<String>::new());

        // One batch a command, and a stop in the middle.
        for part in [20, usize::MAX] {
            let backend = start(settings(&folder.file()), &model).await;
            let batches: Vec<Batch> = commands
                .by_ref()
                .take(part)
                .map(|command| model.apply(command))
                .collect();
            send(&backend, batches);
            assert_eq!(backend.close().await, Ok(()));
            let connection = Connection::open(folder.file()).unwrap();
            assert!(stands_at(&connection, model.place()));
        }
        let followed = dump(&folder.file());

        let other = Folder::make("rewritten");
        rewritten(&other.file(), &model).await;
        assert_eq!(dump(&other.file()), followed);

        let shown: Vec<String> = followed
            .iter()
            .map(|line| line.replace(&uid(1).0, "UID"))
            .collect();
        assert_eq!(shown, HISTORY);
    });
}

#[test]
fn a_recovery_that_is_forgotten_takes_its_lines_along() {
    run(async {
        let folder = Folder::make("forgotten");
        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        rewritten(&folder.file(), &model).await;
        let connection = Connection::open(folder.file()).unwrap();
        assert_eq!(count(&connection, "topology_recovery"), 1);
        assert_eq!(count(&connection, "topology_recovery_steps"), 3);

        let (mut at, digest) = model.place();
        at.index += 1;
        let backend = start(settings(&folder.file()), &model).await;
        send(
            &backend,
            [Batch::changes(at, digest, vec![Change::Recovery(1, None)])],
        );
        assert_eq!(backend.close().await, Ok(()));
        assert_eq!(count(&connection, "topology_recovery"), 0);
        assert_eq!(count(&connection, "topology_recovery_steps"), 0);
    });
}

#[test]
fn others_read_while_it_writes() {
    run(async {
        let folder = Folder::make("readers");
        let model = Model::default();
        let mut commands = history().into_iter();
        model.apply(commands.next().unwrap());
        rewritten(&folder.file(), &model).await;
        let reader = Connection::open(folder.file()).unwrap();
        reader.execute_batch("begin").unwrap();
        assert_eq!(count(&reader, "cluster_domain_name"), 0);

        let backend = start(settings(&folder.file()), &model).await;
        send(
            &backend,
            commands
                .map(|command| model.apply(command))
                .collect::<Vec<_>>(),
        );
        until(&folder.file(), "written", |file| {
            stands_at(file, model.place())
        })
        .await;
        // The reader's transaction sees one state to its end.
        assert_eq!(count(&reader, "cluster_domain_name"), 0);
        reader.execute_batch("commit").unwrap();
        assert_eq!(count(&reader, "cluster_domain_name"), 1);
        assert_eq!(backend.close().await, Ok(()));
    });
}

#[test]
fn positions_are_found_again_and_passed_over() {
    run(async {
        let folder = Folder::make("positions");
        let model = Model::default();
        let batches: Vec<Batch> = history()
            .into_iter()
            .map(|command| model.apply(command))
            .collect();
        rewritten(&folder.file(), &model).await;
        let before = dump(&folder.file());

        let opened = open::<E>(settings(&folder.file())).await.unwrap();
        let (at, digest) = model.place();
        assert_eq!(
            opened.position,
            Some(Position {
                cluster: Some(CLUSTER),
                at: Some(at),
                digest: Some(digest),
            })
        );
        assert!(opened.for_start().unwrap().digest_ok);
        assert_eq!(opened.adopted, None);
        let backend = opened.start::<E, _>(model.clone());
        // The log is replayed from its beginning, from a snapshot even.
        send(
            &backend,
            [Batch::replaced(batches[2].at, batches[2].digest)],
        );
        send(&backend, batches);
        assert_eq!(backend.close().await, Ok(()));
        assert_eq!(dump(&folder.file()), before);
    });
}

#[test]
fn rows_that_contradict_the_log_are_rewritten() {
    run(async {
        let folder = Folder::make("contradiction");
        let other = Model::default();
        other.apply(history().remove(0));
        other.apply(Command::SetRecoveriesEnabled { enabled: false });
        rewritten(&folder.file(), &other).await;
        assert_eq!(dump(&folder.file()), ["global_recovery_disable|1"]);

        let model = Model::default();
        let backend = start(settings(&folder.file()), &model).await;
        // The same position and another digest.
        let batches: Vec<Batch> = history()[..2]
            .iter()
            .map(|command| model.apply(command.clone()))
            .collect();
        send(&backend, batches);
        until(&folder.file(), "rewritten", |file| {
            stands_at(file, model.place())
        })
        .await;
        assert_eq!(dump(&folder.file()), Vec::<String>::new());

        // By its owner's will, too, and whatever the position is.
        Connection::open(folder.file())
            .unwrap()
            .execute_batch("insert into global_recovery_disable values (1)")
            .unwrap();
        backend.rebuild("the file was edited by hand");
        until(&folder.file(), "rewritten", |file| {
            count(file, "global_recovery_disable") == 0
        })
        .await;

        // A snapshot from a peer replaces the state.
        let at = LogPosition {
            index: 50,
            term: 3,
            node: NodeId(4),
        };
        model.state.lock().unwrap().apply(
            at,
            &Stamped {
                wall: Wall::from_secs(BEGINNING),
                command: Command::SetRecoveriesEnabled { enabled: false },
            },
        );
        send(&backend, [Batch::replaced(at, model.place().1)]);
        until(&folder.file(), "rewritten", |file| {
            stands_at(file, model.place())
        })
        .await;
        assert_eq!(dump(&folder.file()), ["global_recovery_disable|1"]);
        assert_eq!(backend.close().await, Ok(()));
    });
}

#[test]
fn a_backlog_beyond_its_bound_becomes_a_rewrite() {
    run(async {
        let folder = Folder::make("backlog");
        let model = Model::default();
        model.apply(history().remove(0));
        let backend = start(settings(&folder.file()), &model).await;
        until(&folder.file(), "written", |file| {
            stands_at(file, model.place())
        })
        .await;

        // Somebody holds the file: what comes waits, and is told of. Whenever the state is read for the rewrite, both
        // commands are in it.
        let holder = Connection::open(folder.file()).unwrap();
        holder.execute_batch("begin immediate").unwrap();
        let stop = model.apply(Command::SetRecoveriesEnabled { enabled: false });
        let next = model.apply(Command::SetRecoveriesEnabled { enabled: true });
        let Contents::Changes(changes) = &stop.contents else {
            panic!("{stop:?}")
        };
        let many = changes
            .iter()
            .cycle()
            .take(BACKLOG_CHANGES_MAX + 1)
            .cloned()
            .collect();
        // These changes are wrong on purpose: only a rewrite from the state can undo them.
        let wrong = vec![Change::Tag {
            key: key("db9"),
            name: String::from("wrong"),
            tag: None,
        }];
        send(&backend, [Batch::changes(stop.at, stop.digest, many)]);
        send(&backend, [Batch::changes(next.at, next.digest, wrong)]);
        let mut health = backend.health();
        let late = health
            .wait_for(|health| health.oldest_unwritten >= Duration::from_millis(500))
            .await
            .unwrap()
            .clone();
        assert!(late.oldest_unwritten < Duration::from_secs(30), "{late:?}");
        holder.execute_batch("rollback").unwrap();
        until(&folder.file(), "rewritten", |file| {
            stands_at(file, model.place())
        })
        .await;
        assert_eq!(dump(&folder.file()), Vec::<String>::new());
        let well = health
            .wait_for(|health| *health == BackendHealth::default())
            .await
            .unwrap()
            .clone();
        assert_eq!(well.error, None);
        assert_eq!(backend.close().await, Ok(()));
    });
}

fn probed(host: &str, seconds: u64) -> Instance {
    let mono = Mono::from_elapsed(E::mono());
    let mut instance = Instance::new(
        key(host),
        Now {
            mono,
            wall: Wall::from_secs(BEGINNING),
        },
    );
    instance.attempted = Some(mono);
    instance.checked = Some(mono);
    instance.seen = Some(mono);
    instance.checked_at = Wall::from_secs(BEGINNING + seconds);
    instance.seen_at = instance.checked_at;
    instance.place.cluster_name = String::from("db1:3306");
    instance.report = Some(Arc::new(ProbeReport {
        server_id: 12,
        read_only: true,
        replicas: vec![key("db3"), key("db2")],
        replication: Some(ReplicaStatus {
            source: key("db0"),
            io: ThreadState::Other,
            sql: ThreadState::Running,
            io_error: String::from("error \"connecting\""),
            seconds_behind: Some(3),
            ..ReplicaStatus::default()
        }),
        ..ProbeReport::default()
    }));
    instance
}

#[test]
fn observed_servers_are_shown() {
    run(async {
        let folder = Folder::make("observed");
        let model = Model::default();
        model.apply(history().remove(0));
        let put = |instance: Instance| {
            model
                .instances
                .lock()
                .unwrap()
                .insert(instance.key.clone(), instance)
        };
        put(probed("db1", 10));
        put(Instance::new(key("db2"), Now::default()));
        let backend = start(settings(&folder.file()), &model).await;
        until(&folder.file(), "seen", |file| {
            count(file, "database_instance") == 2
        })
        .await;
        let connection = Connection::open(folder.file()).unwrap();
        let shown = text_at(
            &connection,
            "select server_id || '|' || read_only || '|' || slave_hosts || '|' || num_slave_hosts || '|' || master_host \
             || '|' || slave_io_running || slave_sql_running || replication_io_thread_state || '|' || last_io_error \
             || '|' || seconds_behind_master || '|' || cluster_name || '|' || last_checked || '|' || last_seen \
             from database_instance where hostname = 'db1' and port = 3306",
        );
        assert_eq!(
            shown,
            r#"12|1|[{"Hostname":"db2","Port":3306},{"Hostname":"db3","Port":3306}]|2|db0|012|"error \"connecting\""|3|db1:3306|2026-01-01 00:00:10|2026-01-01 00:00:10"#
        );
        let never = text_at(
            &connection,
            "select last_checked || coalesce(last_seen, '|NULL') from database_instance where hostname = 'db2'",
        );
        assert_eq!(never, "1971-01-01 00:00:00|NULL");

        // The next look brings what changed.
        put(probed("db1", 15));
        until(&folder.file(), "seen again", |file| {
            text_at(
                file,
                "select last_seen from database_instance where hostname = 'db1'",
            ) == "2026-01-01 00:00:15"
        })
        .await;
        assert_eq!(backend.close().await, Ok(()));

        // Another run knows db1 and did not reach it: what was seen of it stays. It does not know db2 any more.
        let forgetting = model.apply(Command::Forget {
            keys: vec![key("db2")],
        });
        model.instances.lock().unwrap().clear();
        let mut unreached = Instance::new(key("db1"), Now::default());
        unreached.attempted = Some(Mono::from_elapsed(E::mono()));
        unreached.checked = unreached.attempted;
        unreached.checked_at = Wall::from_secs(BEGINNING + 60);
        put(unreached);
        let backend = start(settings(&folder.file()), &model).await;
        send(&backend, [forgetting]);
        until(&folder.file(), "gone", |file| {
            count(file, "database_instance") == 1
        })
        .await;
        until(&folder.file(), "checked", |file| {
            text_at(file, "select last_checked || '|' || last_seen || '|' || server_id from database_instance")
                == "2026-01-01 00:01:00|2026-01-01 00:00:15|12"
        })
        .await;
        assert_eq!(backend.close().await, Ok(()));
    });
}

#[test]
fn the_daemon_shows_that_it_is_alive() {
    run(async {
        let folder = Folder::make("alive");
        let model = Model::default();
        let backend = start(settings(&folder.file()), &model).await;
        until(&folder.file(), "two beats", |file| {
            file.query_row(
                "select incrementing_indicator from node_health",
                [],
                |row| row.get::<_, i64>(0),
            )
            .is_ok_and(|beats| beats >= 1)
        })
        .await;
        let connection = Connection::open(folder.file()).unwrap();
        assert_eq!(
            text_at(
                &connection,
                "select hostname || '|' || token || '|' || extra_info || '|' || app_version from node_health"
            ),
            "orc1|token1|HttpMode|1.2.3"
        );
        assert_eq!(count(&connection, "node_health_history"), 1);
        assert_eq!(
            text_at(
                &connection,
                "select deployed_version from orchestrator_db_deployments"
            ),
            "1.2.3"
        );
        // A state of which nothing was applied is not written.
        assert_eq!(
            connection
                .query_row(
                    "select applied_index from orchestrator_projection",
                    [],
                    |row| row.get::<_, Option<i64>>(0)
                )
                .unwrap(),
            None
        );
        assert_eq!(backend.health().borrow().clone(), BackendHealth::default());
        assert_eq!(backend.close().await, Ok(()));
    });
}

#[test]
fn a_file_has_one_writer_and_one_cluster() {
    run(async {
        let folder = Folder::make("owner");
        let model = Model::default();
        model.apply(history().remove(0));
        let backend = start(settings(&folder.file()), &model).await;
        until(&folder.file(), "written", |file| {
            stands_at(file, model.place())
        })
        .await;

        let other = Settings {
            daemon: String::from("/var/lib/orc2"),
            token: String::from("token2"),
            ..settings(&folder.file())
        };
        let refused = open::<E>(other.clone()).await.unwrap_err();
        assert!(matches!(refused, BackendError::InUse { .. }), "{refused}");
        // The same daemon may come back at once.
        let again = Settings {
            token: String::from("token3"),
            ..settings(&folder.file())
        };
        let opened = open::<E>(again).await.unwrap();
        assert!(opened.for_start().unwrap().digest_ok);
        says(&backend, "token3").await;
        drop(opened);
        assert!(backend.close().await.is_err());

        let backend = start(settings(&folder.file()), &model).await;
        backend.set_cluster(ClusterId([8; 32]));
        says(&backend, "belongs to the raft cluster 0707").await;
        assert!(backend.close().await.is_err());
    });
}

/// A daemon that was given another one's configuration, or lost its identity, is not that one as long as it writes.
#[test]
fn a_file_is_its_identitys() {
    run(async {
        let folder = Folder::make("identity");
        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        let known = |identity, token: &str| Settings {
            identity,
            token: token.to_owned(),
            ..settings(&folder.file())
        };
        let opened = open::<E>(known(Some(NodeId(1)), "token1")).await.unwrap();
        let backend = opened.start::<E, _>(model.clone());
        backend.set_cluster(CLUSTER);
        until(&folder.file(), "written", |file| {
            stands_at(file, model.place())
        })
        .await;
        assert_eq!(backend.close().await, Ok(()));
        // It has moved.
        let moved = Settings {
            daemon: String::from("/mnt/orc1"),
            ..known(Some(NodeId(1)), "token2")
        };
        let opened = open::<E>(moved).await.unwrap();
        assert!(opened.for_start().unwrap().digest_ok);
        let backend = opened.start::<E, _>(model.clone());
        for other in [None, Some(NodeId(2))] {
            let refused = open::<E>(known(other, "token3")).await.unwrap_err();
            assert!(matches!(refused, BackendError::InUse { .. }), "{refused}");
            assert!(
                refused
                    .to_string()
                    .contains("(/mnt/orc1 0000000000000001, process token2"),
                "{refused}"
            );
        }
        assert_eq!(backend.close().await, Ok(()));
        // At once, whoever has it: it is refused before it is anybody's.
        let foreign = Settings {
            cluster: Some(ClusterId([8; 32])),
            ..known(Some(NodeId(2)), "token3")
        };
        let began = E::mono();
        let refused = open::<E>(foreign).await.unwrap_err();
        assert!(
            matches!(refused, BackendError::OtherCluster { .. }),
            "{refused}"
        );
        assert!(E::mono() - began < IN_USE);
        let opened = open::<E>(known(Some(NodeId(1)), "token4")).await.unwrap();
        assert!(opened.for_start().unwrap().digest_ok);
    });
}

/// Its clock is an hour behind ours, or ahead, and all that says that it lives is that its row changes.
#[test]
fn a_file_is_in_use_whatever_the_clock_of_its_daemon_says() {
    run(async {
        let folder = Folder::make("clocks");
        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        rewritten(&folder.file(), &model).await;
        let other = Settings {
            daemon: String::from("/var/lib/orc2"),
            token: String::from("token2"),
            ..settings(&folder.file())
        };
        for hour in ["-1 hours", "+1 hours"] {
            let connection = Connection::open(folder.file()).unwrap();
            let beats = async move {
                for second in 0..30 {
                    connection
                        .execute(
                            "update orchestrator_projection set written_at = datetime('now', ?1, ?2)",
                            (hour, format!("+{second} seconds")),
                        )
                        .unwrap();
                    sleep::<E>(Duration::from_millis(500)).await;
                }
            };
            let refused = tokio::select! {
                opened = open::<E>(other.clone()) => opened.unwrap_err(),
                () = beats => panic!("{hour}: neither refused nor taken"),
            };
            assert!(matches!(refused, BackendError::InUse { .. }), "{refused}");
        }
    });
}

#[test]
fn a_copy_of_another_daemons_file_is_written_anew() {
    run(async {
        let folder = Folder::make("copy");
        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        rewritten(&folder.file(), &model).await;
        let before = dump(&folder.file());
        let copy = folder.file().with_file_name("copy.db");
        // Whole, whatever of it is in the write-ahead log still.
        Connection::open(folder.file())
            .unwrap()
            .execute_batch(&format!("vacuum into '{}'", copy.display()))
            .unwrap();

        // Who wrote it is silent there, which takes a while to see, whatever that one's clock said. That this daemon opened it
        // once before, and wrote nothing, makes the rows no better.
        Connection::open(&copy)
            .unwrap()
            .execute_batch(
                "update orchestrator_projection set written_at = datetime(written_at, '-1 hours')",
            )
            .unwrap();
        let own = Settings {
            daemon: String::from("/var/lib/orc2"),
            token: String::from("token2"),
            ..settings(&copy)
        };
        let began = E::mono();
        drop(open::<E>(own.clone()).await.unwrap());
        assert!(E::mono() - began >= IN_USE, "{:?}", E::mono() - began);
        let opened = open::<E>(own.clone()).await.unwrap();
        let position = opened.for_start().unwrap();
        assert_eq!(position.cluster, Some(CLUSTER));
        assert!(!position.digest_ok);

        // Its own state is older, and is what the file shows in the end.
        let older = Model::default();
        older.apply(history().remove(0));
        let backend = opened.start::<E, _>(older.clone());
        backend.set_cluster(CLUSTER);
        until(&copy, "written anew", |file| stands_at(file, older.place())).await;
        assert_ne!(dump(&copy), before);
        assert_eq!(backend.close().await, Ok(()));
        let opened = open::<E>(own).await.unwrap();
        assert!(opened.for_start().unwrap().digest_ok);
    });
}

/// The running daemon writes on beside such rows and keeps none of them at its next start, once.
#[test]
fn what_people_write_is_discarded_at_the_next_start() {
    run(async {
        let folder = Folder::make("by-hand");
        let file = folder.file();
        let place = Place::Sqlite(file.clone());
        let tag = |host: &str, value: &str| Command::PutTag {
            key: key(host),
            name: String::from("by"),
            value: value.to_owned(),
        };
        let changes_of = |command: Command| match Model::default().apply(command).contents {
            Contents::Changes(changes) => changes,
            Contents::Replaced => panic!("a command"),
        };
        let by_hand = changes_of(tag("db9", "hand"));
        let refused = write_by_hand::<E>(&place, &by_hand).await.unwrap_err();
        assert!(refused.to_string().contains("does not exist"), "{refused}");
        assert!(!file.exists());

        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        let backend = start(settings(&file), &model).await;
        until(&file, "written", |file| stands_at(file, model.place())).await;
        let decided = dump(&file);
        write_by_hand::<E>(&place, &by_hand).await.unwrap();
        // One that is decided too, said otherwise.
        let known = changes_of(tag("db1", "hand"));
        write_by_hand::<E>(&place, &known).await.unwrap();
        let at_hand = "select count(*) from database_instance_tags where tag_value = 'hand'";
        let hands = |file: &Connection| file.query_row(at_hand, [], |row| row.get::<_, i64>(0));
        send(&backend, [model.apply(tag("db2", "daemon"))]);
        until(&file, "written on", |file| stands_at(file, model.place())).await;
        let connection = Connection::open(&file).unwrap();
        assert_eq!(hands(&connection), Ok(2));
        let read = read_back::<E>(&place).await.unwrap();
        assert_eq!(read.position.at, Some(model.place().0));
        assert_eq!(backend.close().await, Ok(()));

        let backend = start(settings(&file), &model).await;
        until(&file, "written anew", |file| hands(file) == Ok(0)).await;
        assert!(stands_at(&connection, model.place()));
        assert_eq!(dump(&file).len(), decided.len() + 1);
        assert_eq!(backend.close().await, Ok(()));
        // The mark went with them.
        let opened = open::<E>(settings(&file)).await.unwrap();
        assert!(!opened.is_by_hand);
        assert!(opened.for_start().unwrap().digest_ok);
    });
}

#[test]
fn a_file_that_vanishes_is_made_again() {
    run(async {
        let folder = Folder::make("vanished");
        let model = Model::default();
        for command in history() {
            model.apply(command);
        }
        model
            .instances
            .lock()
            .unwrap()
            .insert(key("db1"), probed("db1", 1));
        let backend = start(settings(&folder.file()), &model).await;
        until(&folder.file(), "written", |file| {
            stands_at(file, model.place()) && count(file, "database_instance") == 1
        })
        .await;
        let before = dump(&folder.file());
        std::fs::remove_file(folder.file()).unwrap();
        // Not through `until`, which would make the file.
        while !folder.file().exists() {
            sleep::<E>(Duration::from_millis(5)).await;
        }
        until(&folder.file(), "written again", |file| {
            file.query_row(
                "select 1 from sqlite_master where name = 'orchestrator_projection'",
                [],
                |_| Ok(()),
            )
            .is_ok()
                && stands_at(file, model.place())
                && count(file, "database_instance") == 1
        })
        .await;
        assert_eq!(dump(&folder.file()), before);
        assert_eq!(backend.close().await, Ok(()));
    });
}

#[test]
fn what_cannot_be_used_is_named_with_its_remedy() {
    run(async {
        let folder = Folder::make("refused");
        let check = async |path: PathBuf, words: &[&str]| {
            let error = open::<E>(settings(&path)).await.unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error}: {word}");
            }
        };
        check(
            folder.0.join("missing/orchestrator.db"),
            &[
                folder.0.join("missing").to_str().unwrap(),
                "does not exist",
                "create it",
            ],
        )
        .await;
        check(
            folder.0.clone(),
            &[
                folder.0.to_str().unwrap(),
                "cannot be written",
                "right to write",
            ],
        )
        .await;
        let noise = folder.0.join("noise");
        std::fs::write(&noise, "This is a letter and no database. ".repeat(100)).unwrap();
        check(
            noise,
            &[
                "damaged or no SQLite file",
                "move it",
                "rebuilt from RaftDataDir",
            ],
        )
        .await;
        // Nobody can write to a folder of the kernel's, root included.
        check(
            PathBuf::from("/proc/orchestrator.db"),
            &["/proc/orchestrator.db", "cannot be written"],
        )
        .await;
        let refusing = Settings::new(&BackendSettings {
            kind: BackendKind::Sqlite {
                data_file: String::from("/var/lib/orchestrator/orchestrator.db"),
            },
            skip_schema_update: true,
            panic_if_different_deploy: false,
        });
        assert_eq!(
            refusing.deploy,
            Deploy::Refuse {
                key: "SkipOrchestratorDatabaseUpdate"
            }
        );
    });
}

#[test]
fn migrations_run_once_and_are_checked() {
    run(async {
        let folder = Folder::make("migrations");
        let model = Model::default();
        let refusing = Settings {
            deploy: Deploy::Refuse {
                key: "SkipOrchestratorDatabaseUpdate",
            },
            ..settings(&folder.file())
        };
        let refused = open::<E>(refusing.clone()).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("SkipOrchestratorDatabaseUpdate"),
            "{refused}"
        );
        rewritten_empty(&folder.file(), &model).await;
        let connection = Connection::open(folder.file()).unwrap();
        let schema = rows_of(&connection, "sqlite_master");
        assert_eq!(count(&connection, "orchestrator_migrations"), 1);
        // With nothing to change, nothing is refused or changed.
        drop(open::<E>(refusing).await.unwrap());
        assert_eq!(rows_of(&connection, "sqlite_master"), schema);

        connection
            .execute_batch("insert into orchestrator_migrations values (99, 'later', 'x', 1, '9.9', '2030-01-01 00:00:00')")
            .unwrap();
        // It only added something.
        drop(open::<E>(settings(&folder.file())).await.unwrap());
        connection
            .execute_batch(
                "update orchestrator_migrations set oldest_reader = 98 where version = 99",
            )
            .unwrap();
        let refused = open::<E>(settings(&folder.file())).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("a later release changed its tables (to version 99)"),
            "{refused}"
        );
        connection
            .execute_batch(
                "update orchestrator_migrations set oldest_reader = 1 where version = 99",
            )
            .unwrap();
        connection
            .execute_batch("update orchestrator_migrations set checksum = 'y' where version = 1")
            .unwrap();
        let refused = open::<E>(settings(&folder.file())).await.unwrap_err();
        assert!(refused.to_string().contains("checksum y"), "{refused}");
    });
}

async fn rewritten_empty(file: &Path, model: &Model) {
    let backend = start(settings(file), model).await;
    assert_eq!(backend.close().await, Ok(()));
}

/// A database as another program made it: older columns, unique indexes, columns of its own.
const FOREIGN: &str = "
create table database_instance (
  hostname varchar(128) NOT NULL, port smallint NOT NULL, last_checked timestamp NOT NULL, last_seen timestamp NULL,
  server_id int NOT NULL, version varchar(128) not null default '', their_own_column int not null default 3,
  PRIMARY KEY (hostname, port));
insert into database_instance (hostname, port, last_checked, server_id)
  values ('old1', 3306, '2020-01-01 00:00:00', 7), ('old2', 3307, '2020-01-01 00:00:00', 8);
create table cluster_alias (cluster_name varchar(128) NOT NULL, alias varchar(128) NOT NULL, PRIMARY KEY (cluster_name));
create unique index alias_uidx_cluster_alias on cluster_alias (alias);
insert into cluster_alias values ('old1:3306', 'shop');
create table topology_recovery (
  recovery_id integer primary key autoincrement, hostname varchar(128) not null, port smallint not null,
  in_active_period tinyint not null default 0, start_active_period timestamp not null default '',
  end_active_period_unixtime int, end_recovery timestamp null);
create unique index in_active_uidx on topology_recovery (hostname, port, in_active_period, end_active_period_unixtime);
insert into topology_recovery (hostname, port) values ('old1', 3306);
create table topology_failure_detection (
  detection_id integer primary key autoincrement, hostname varchar(128) not null, mandatory text not null,
  unique (hostname));
insert into topology_failure_detection (hostname, mandatory) values ('old1', 'x');
create table audit (audit_id integer primary key autoincrement, message text not null);
insert into audit (message) values ('something happened');
create table their_table (a int);
insert into their_table values (1);
";

#[test]
fn a_database_of_the_original_is_adopted_in_place() {
    run(async {
        let folder = Folder::make("adopted");
        let connection = Connection::open(folder.file()).unwrap();
        connection.execute_batch(FOREIGN).unwrap();
        let opened = open::<E>(settings(&folder.file())).await.unwrap();
        assert_eq!(opened.position, None);
        assert_eq!(opened.for_start(), None);
        let adopted = opened.adopted.clone().unwrap();
        assert_eq!(
            adopted.instances,
            BTreeSet::from([key("old1"), InstanceKey::new("old2", 3307)])
        );
        assert_eq!(adopted.rows.get("topology_recovery"), Some(&1));
        assert_eq!(
            adopted.set_aside.keys().copied().collect::<Vec<_>>(),
            [
                "cluster_alias",
                "database_instance",
                "topology_failure_detection",
                "topology_recovery"
            ]
        );
        // Every column is there to be asked for.
        for table in tables::TABLES {
            let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            connection
                .prepare(&format!(
                    "select {} from {}",
                    columns.join(", "),
                    table.name
                ))
                .unwrap_or_else(|error| panic!("{}: {error}", table.name));
        }

        let model = Model::default();
        let backend = opened.start::<E, _>(model.clone());
        backend.set_cluster(CLUSTER);
        let batches: Vec<Batch> = history()
            .into_iter()
            .map(|command| model.apply(command))
            .collect();
        send(&backend, batches);
        until(&folder.file(), "rewritten", |file| {
            stands_at(file, model.place())
        })
        .await;
        assert_eq!(backend.close().await, Ok(()));

        // The rows are those of a file of our own, whatever the order of the columns is.
        let fresh = Folder::make("fresh");
        rewritten(&fresh.file(), &model).await;
        assert_eq!(named(&folder.file()), named(&fresh.file()));
        // Nothing of theirs is lost.
        for table in [
            "cluster_alias_original",
            "topology_recovery_original",
            "topology_failure_detection_original",
            "audit",
            "their_table",
        ] {
            assert_eq!(count(&connection, table), 1, "{table}");
        }
        assert_eq!(count(&connection, "database_instance_original"), 2);
        // The second start finds a database of ours.
        assert_eq!(
            open::<E>(settings(&folder.file())).await.unwrap().adopted,
            None
        );
    });
}

/// What the original's rows say is read at each start, from where they were set aside.
#[test]
fn the_rows_of_the_original_are_read() {
    run(async {
        let folder = Folder::make("original");
        let connection = Connection::open(folder.file()).unwrap();
        connection
            .execute_batch(include_str!("testdata/original.sql"))
            .unwrap();
        for start in ["first", "second"] {
            let opened = open::<E>(settings(&folder.file())).await.unwrap();
            let original = opened.original.clone().unwrap_or_else(|| panic!("{start}"));
            assert_eq!(original.summary.servers, 3);
            assert_eq!(original.summary.newest, Wall::from_secs(1_604_200_205));
            let [rows] = original.parts.as_slice() else {
                panic!("{} parts", original.parts.len());
            };
            assert_eq!(
                rows.known,
                [
                    InstanceKey::new("db1", 3306),
                    InstanceKey::new("db2", 3306),
                    InstanceKey::new("db3", 3307)
                ]
            );
            let [cluster] = rows.clusters.as_slice() else {
                panic!("{:?}", rows.clusters);
            };
            assert_eq!(cluster.primary, key("db2"));
            assert_eq!(cluster.members.len(), 3);
            assert_eq!(cluster.alias, "shop");
            let [(server, downtime)] = rows.downtimes.as_slice() else {
                panic!("the inactive one is left out: {:?}", rows.downtimes);
            };
            assert_eq!((server, downtime.owner.as_str()), (&key("db1"), "anna"));
            assert_eq!(downtime.until, Wall::from_secs(4_102_444_800));
            assert_eq!(rows.maintenance.len(), 1);
            assert_eq!(rows.candidates[0].1.rule, PromotionRule::PreferNot);
            assert_eq!(rows.tags[0].0.1, "rack");
            assert_eq!(rows.stopped, Some(original.summary.newest));
            assert_eq!(rows.detections[0].number, 17);
            let [first, second] = rows.recoveries.as_slice() else {
                panic!("{:?}", rows.recoveries);
            };
            assert_eq!((first.number, second.number), (3, 8));
            assert!(first.is_successful() && !second.is_successful());
            assert_eq!(first.successor, Some(key("db2")));
            assert_eq!(first.replicas, [key("db2"), InstanceKey::new("db3", 3307)]);
            assert_eq!(first.acknowledged.as_ref().unwrap().by, "bert");
            let said: Vec<&str> = first
                .lines
                .iter()
                .map(|line| line.message.as_str())
                .collect();
            assert_eq!(said, ["will handle DeadMaster", "promoted db2:3306"]);
            assert_eq!(second.errors, ["no candidate"]);
            assert_eq!(second.uid.0, "original:8");
        }
    });
}

/// The rows of the replicated state with our columns, in our order.
fn named(file: &Path) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    let mut lines = Vec::new();
    for table in tables::TABLES
        .iter()
        .filter(|table| table.role == tables::Role::Replicated)
    {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| format!("coalesce({}, 'NULL')", column.name))
            .collect();
        let sql = format!(
            "select {} from {} order by {}",
            columns.join(" || '|' || "),
            table.name,
            table.key.join(", ")
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap();
        lines.extend(rows.map(|row| format!("{}|{}", table.name, row.unwrap())));
    }
    lines
}
