//! A raft data directory that is damaged, in use, of a while ago, or a copy of another daemon's: whoever may have forgotten what
//! was promised in its name is not listened to and says what to do, and the others go on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_tests::commands::{Acknowledged, Commands, held_in_file};
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_members};
use orchestrator_tests::process::{Process, Signal};
use orchestrator_tests::wait::{Look, until};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{DEADLINE, PATIENCE, TURN};

/// Commands before and after whatever is done.
const SOME: usize = 10;
/// Commands that a directory of before them does not know.
const MANY: usize = 100;
/// A follower that was given another one's vote would have been elected by then: its timers are a quarter of it.
const ELECTED: Duration = Duration::from_secs(4);
/// Longer than an original must be silent before a copy is listened to that comes from elsewhere (README, "Copied machines").
const SILENCE: Duration = Duration::from_secs(11);
const PACE: Duration = Duration::from_millis(50);
/// A log that did not grow for so long does not, for some time.
const AT_REST: Duration = Duration::from_secs(1);
/// A refusal that takes longer had a reason to wait for something.
const AT_ONCE: Duration = Duration::from_secs(8);

/// What is damaged in a directory.
#[derive(Clone, Copy)]
enum Damage {
    /// What SQLite would drop without a word: a killed daemon's newest entries are in the write-ahead file alone.
    Journal,
    Identity,
    LogEntry,
    Snapshot,
}

impl Damage {
    fn name(self) -> &'static str {
        match self {
            Damage::Journal => "journal",
            Damage::Identity => "identity",
            Damage::LogEntry => "log-entry",
            Damage::Snapshot => "snapshot",
        }
    }

    /// How the daemon is stopped before.
    fn stop(self) -> Signal {
        match self {
            Damage::Journal => Signal::Kill,
            Damage::Identity | Damage::LogEntry | Damage::Snapshot => Signal::Terminate,
        }
    }

    /// Changes one bit of it in a directory that no process has; what must be said of that.
    fn strike(self, raft: &Path) -> String {
        match self {
            Damage::Journal => {
                let path = raft.join("raft.sqlite-wal");
                let length = fs::read(&path).expect("a write-ahead file").len();
                flip(&path, length / 2);
                String::from("of its write-ahead file has rotted: it does not match its checksum")
            }
            Damage::Identity => {
                let path = raft.join("identity");
                let text = fs::read_to_string(&path).expect("a record");
                let key = "\nboot ";
                // What stands there then is another number.
                flip(&path, text.find(key).expect("a number") + key.len());
                String::from("the identity record: its checksum does not match")
            }
            Damage::LogEntry => {
                let path = raft.join("raft.sqlite");
                let (index, entry) = newest_command(&path);
                let file = fs::read(&path).expect("a log");
                let windows = file.windows(entry.len()).enumerate();
                let places: Vec<usize> = windows
                    .filter(|(_, window)| *window == entry)
                    .map(|(place, _)| place)
                    .collect();
                assert!(!places.is_empty(), "entry {index} is not in the file");
                for place in places {
                    flip(&path, place + entry.len() / 2);
                }
                format!("the checksum of log entry {index} does not match")
            }
            Damage::Snapshot => {
                let path = raft.join("snapshot");
                let length = fs::read(&path).expect("a snapshot").len();
                flip(&path, length / 2);
                String::from("the snapshot file is damaged: its checksum does not match")
            }
        }
    }
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// Members come and go often, on a machine that is busy.
fn options() -> DaemonOptions {
    let mut options = DaemonOptions::default_configuration();
    for (key, value) in [
        ("RaftReplaceSilentSeconds", 2),
        ("RaftReplacePerHour", 100),
        ("RaftHeartbeatMillis", 100),
        ("RaftElectionTimeoutMillis", 1_000),
    ] {
        options.settings.insert(key.to_owned(), json!(value));
    }
    options
}

/// The newest entry of a log that is long enough to be one of a kind, and its index.
fn newest_command(path: &Path) -> (i64, Vec<u8>) {
    let log = Connection::open(path).expect("a log");
    let query = "SELECT idx, data FROM log WHERE length(data) > 32 ORDER BY idx DESC LIMIT 1";
    let newest = log.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)));
    newest.expect("an entry")
}

/// Starts a daemon that must end by itself, before it talks with anybody; its last words.
async fn refused(daemon: &Daemon) -> String {
    let before = fs::read_to_string(daemon.log()).map_or(0, |log| log.len());
    let began = Instant::now();
    daemon.start().expect("started");
    let code = daemon.wait_ended(PATIENCE).await.expect("it ends");
    assert!(code.is_some_and(|code| code > 0), "{code:?}");
    let took = began.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    let log = fs::read_to_string(daemon.log()).expect("a log");
    let log = &log[before..];
    assert!(!log.contains("listens on"), "{log}");
    log.lines().last().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_says(said: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(said.contains(words), "not '{words}': {said}");
    }
}

fn others<'a>(daemons: &'a Daemons, but: &[&Daemon]) -> Vec<&'a Daemon> {
    let is_other = |one: &&Daemon| but.iter().all(|other| one.http() != other.http());
    daemons.all().iter().filter(is_other).collect()
}

/// Waits until a daemon is unhealthy for this reason.
async fn wait_unhealthy(daemon: &Daemon, wanted: &str) {
    let what = format!("{} is unhealthy and says '{wanted}'", daemon.url());
    let looked = until(&what, PATIENCE, PACE, async || {
        match daemon.get("/api/raft-health", DEADLINE).await {
            Ok(reply) if reply.status == 500 && reply.body.contains(wanted) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("unhealthy");
}

/// Waits until a daemon's log has these words.
async fn wait_says(daemon: &Daemon, wanted: &str) {
    let what = format!("{} says '{wanted}'", daemon.url());
    let looked = until(&what, PATIENCE, PACE, async || {
        match fs::read_to_string(daemon.log()) {
            Ok(log) if log.contains(wanted) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("said");
}

/// One after the other each kind of damage is done to a member that is stopped. It refuses to start and says what is damaged and
/// what to do, the other two take changes, and after what it said was done it is a member again, as another one.
#[tokio::test]
async fn a_damaged_raft_directory_is_refused_until_it_is_moved_away() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&options()).expect("daemons");
    let mut acknowledged = Acknowledged::default();
    for (damage, is_leader) in [
        // The first, so that the file was not begun anew.
        (Damage::Journal, false),
        (Damage::Identity, false),
        (Damage::LogEntry, true),
        (Damage::Snapshot, false),
    ] {
        let began = Instant::now();
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        let struck = &daemons.all()[(led + usize::from(!is_leader)) % 3];
        let commands = Commands::start(&daemons, damage.name());
        is_damaged(&daemons, struck, damage, &commands).await;
        commands
            .wait_more(SOME, PATIENCE)
            .await
            .expect("acknowledged");
        acknowledged.take_in(commands.end().await);
        all_hold(&daemons, &acknowledged).await;
        println!("{:?}  {}", began.elapsed(), damage.name());
    }
    println!(
        "{} commands acknowledged, leaders by term: {:?}",
        acknowledged.count, acknowledged.led
    );
    assert!(acknowledged.split().is_empty(), "{:?}", acknowledged.led);
}

async fn is_damaged(daemons: &Daemons, struck: &Daemon, damage: Damage, commands: &Commands) {
    let more = async || {
        let more = commands.wait_more(SOME, PATIENCE).await;
        more.expect("acknowledged");
    };
    more().await;
    let before = struck.node().await.expect("an identity");
    struck
        .wait_status("/api/raft-snapshot", 200, PATIENCE)
        .await
        .expect("a snapshot");
    more().await;
    struck.signal(damage.stop());
    struck.wait_ended(PATIENCE).await.expect("ended");
    let raft = struck.folder().join("raft");
    let wanted = damage.strike(&raft);
    let said = refused(struck).await;
    assert_says(
        &said,
        &[
            "the raft data directory is damaged",
            &wanted,
            &raft.display().to_string(),
            "It is not mended",
            "move the directory away and start again with an empty one",
            "the node then comes back as another",
        ],
    );
    more().await;
    match damage {
        Damage::LogEntry => gives_no_vote(daemons, struck).await,
        Damage::Journal | Damage::Identity | Damage::Snapshot => {}
    }

    let away = struck.folder().join(format!("raft-{}", damage.name()));
    fs::rename(&raft, &away).expect("moved");
    fs::create_dir(&raft).expect("an empty one");
    struck.start().expect("started");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    wait_members(&all, PATIENCE).await.expect("three members");
    assert_ne!(struck.node().await.expect("an identity"), before);
}

/// Of the other two one is killed. The one that is left has nobody's vote, as often as the damaged one is started.
async fn gives_no_vote(daemons: &Daemons, damaged: &Daemon) {
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let [left] = others(daemons, &[leader, damaged])[..] else {
        panic!("three");
    };
    leader.kill().await.expect("killed");
    let term = left.status().await.expect("a status")["Term"].clone();
    let again = async || drop(refused(damaged).await);
    gets_no_vote(left, &term, again).await;
    leader.start().expect("started");
}

/// Whoever is left of the members is not elected, and its term stays, while something is done again and again.
async fn gets_no_vote(left: &Daemon, term: &Value, mut again: impl AsyncFnMut()) {
    let began = Instant::now();
    while began.elapsed() < ELECTED {
        again().await;
        let status = left.status().await.expect("a status");
        assert!(!left.is_leader().await, "{status:#}");
        assert_eq!(status["Term"], *term, "{status:#}");
    }
}

async fn all_hold(daemons: &Daemons, acknowledged: &Acknowledged) {
    for daemon in daemons.all() {
        let what = format!("{} holds what was acknowledged", daemon.url());
        let held = until(&what, PATIENCE, PACE, async || {
            match held_in_file(daemon).map(|held| acknowledged.wrongs(&held)) {
                Ok(wrongs) if wrongs.is_empty() => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            }
        });
        held.await.expect("nothing lost");
    }
}

/// The position of a daemon's database, and the digest of the state there.
fn stands(daemon: &Daemon) -> rusqlite::Result<(i64, String)> {
    let file = Connection::open(daemon.database())?;
    let query = "SELECT applied_index, digest FROM orchestrator_projection";
    file.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Waits until all databases are of one state.
async fn all_same(daemons: &Daemons) {
    let what = "the databases are of one state";
    let looked = until(what, PATIENCE, PACE, async || {
        let states: Result<BTreeSet<_>, _> = daemons.all().iter().map(stands).collect();
        match states {
            Ok(states) if states.len() == 1 => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    });
    looked.await.expect("the same");
}

/// What a directory says that was promised last in its name: in which term, and to whom.
fn promised(raft: &Path) -> Vec<u8> {
    let log = Connection::open(raft.join("raft.sqlite")).expect("a log");
    let query = "SELECT data FROM value WHERE key = 'vote'";
    let vote = log.query_row(query, [], |row| row.get(0));
    vote.expect("a vote")
}

/// Has leadership handed over until it is this one's.
async fn wait_led_by(daemons: &Daemons, wanted: &Daemon) {
    let path = format!("/api/raft-yield/{}", wanted.address());
    let what = format!("{} leads", wanted.url());
    let looked = until(&what, PATIENCE, PACE, async || {
        match daemons.wait_leader(PATIENCE).await {
            Ok(leader) if leader.http() == wanted.http() => Look::Holds(()),
            Ok(leader) => Look::not(format!("{:?}", leader.get(&path, DEADLINE).await)),
            Err(error) => Look::not(format!("{error:#}")),
        }
    });
    looked.await.expect("it leads");
}

/// A member's raft directory is put back as it was many commands ago, and its backend is not: the backend knows what the directory
/// forgot. First of one that followed, while the others go on; then of one that led a term since, while one of the others is down,
/// so that an election hangs on its vote.
#[tokio::test]
async fn a_raft_directory_that_its_backend_is_ahead_of_is_retired() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&options()).expect("daemons");
    let mut acknowledged = Acknowledged::default();
    for (name, has_led) in [("follower", false), ("leader", true)] {
        let began = Instant::now();
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        let struck = &daemons.all()[(led + 1) % 3];
        let commands = Commands::start(&daemons, name);
        goes_back(&daemons, struck, has_led, &commands).await;
        commands
            .wait_more(SOME, PATIENCE)
            .await
            .expect("acknowledged");
        acknowledged.take_in(commands.end().await);
        all_hold(&daemons, &acknowledged).await;
        all_same(&daemons).await;
        println!("{:?}  {name}", began.elapsed());
    }
    println!(
        "{} commands acknowledged, leaders by term: {:?}",
        acknowledged.count, acknowledged.led
    );
    assert!(acknowledged.split().is_empty(), "{:?}", acknowledged.led);
}

async fn goes_back(daemons: &Daemons, struck: &Daemon, has_led: bool, commands: &Commands) {
    let more = async |count| {
        let more = commands.wait_more(count, PATIENCE).await;
        more.expect("acknowledged");
    };
    more(SOME).await;
    let before = struck.node().await.expect("an identity");
    struck.signal(Signal::Terminate);
    struck.wait_ended(PATIENCE).await.expect("ended");
    struck.keep_raft().expect("kept");
    let raft = struck.folder().join("raft");
    let (known, promised_then) = (newest_command(&raft.join("raft.sqlite")).0, promised(&raft));
    struck.start().expect("started");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    wait_members(&all, PATIENCE).await.expect("three members");
    if has_led {
        wait_led_by(daemons, struck).await;
    }
    more(MANY).await;
    let many = i64::try_from(MANY).expect("a number");
    let looked = until(
        "its backend is ahead",
        PATIENCE,
        PACE,
        async || match stands(struck) {
            Ok((index, _)) if index > known + many => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect("written");
    let (in_the_midst, orderly) = (Signal::Kill, Signal::Terminate);
    struck.signal(if has_led { in_the_midst } else { orderly });
    struck.wait_ended(PATIENCE).await.expect("ended");
    let promised_since = promised(&raft);
    struck.restore_raft().expect("put back");
    assert_eq!(promised(&raft), promised_then);
    // Whoever led a term has given its vote there, of which the directory does not know.
    assert!(!has_led || promised_since != promised_then);
    more(SOME).await;

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let [left] = others(daemons, &[leader, struck])[..] else {
        panic!("three");
    };
    if has_led {
        leader.kill().await.expect("killed");
    }
    let term = left.status().await.expect("a status")["Term"].clone();
    let said = refused(struck).await;
    let why = "is ahead of the raft data directory, which went back";
    assert_says(
        &said,
        &[
            "this identity is retired: the backend (",
            why,
            "At the next start this node comes back as another",
        ],
    );
    struck.start().expect("started");
    if has_led {
        // Nobody leads who could let it in: it says that it waits, and nobody has its vote.
        wait_unhealthy(struck, "RaftReplaceSilentSeconds").await;
        let mut pace = tokio::time::interval(PACE);
        let waits = async || {
            pace.tick().await;
            let leads = struck.get("/api/leader-check", DEADLINE).await;
            let healthy = struck.get("/api/raft-health", DEADLINE).await;
            let statuses = [leads, healthy].map(|reply| reply.expect("an answer").status);
            assert_eq!(statuses, [404, 500]);
        };
        gets_no_vote(left, &term, waits).await;
        leader.start().expect("started");
    }
    wait_members(&all, PATIENCE).await.expect("three members");
    assert_ne!(struck.node().await.expect("an identity"), before);
    let log = fs::read_to_string(struck.log()).expect("a log");
    let told = log.lines().rfind(|line| line.contains("was retired here"));
    let aside = raft.join(format!("retired-{before}"));
    assert_says(
        told.unwrap_or_default(),
        &[why, &aside.display().to_string(), "comes back as another"],
    );
    assert!(aside.join("identity").exists(), "{aside:?}");
    // In its name nothing was promised any more.
    assert_eq!(promised(&aside), promised_then);
}

/// What must stay as it is while others try to be this daemon.
#[derive(Debug, Eq, PartialEq)]
struct Standing {
    pid: Option<u32>,
    node: Value,
    leader: Value,
    term: Value,
    /// By what its process names itself in its backend.
    token: String,
}

async fn standing(daemon: &Daemon) -> Standing {
    let status = daemon.status().await.expect("a status");
    Standing {
        pid: daemon.pid(),
        node: status["Node"].clone(),
        leader: status["Leader"].clone(),
        term: status["Term"].clone(),
        token: daemon.token().expect("a token"),
    }
}

/// A service that is started twice by hand, and a daemon whose configuration names the directory of another one: both are told at
/// once that it is in use, and the one that runs does not notice.
#[tokio::test]
async fn a_raft_directory_is_used_by_one_process() {
    let _turn = TURN.lock().await;
    let options = DaemonOptions {
        spare: 1,
        ..DaemonOptions::steady()
    };
    let daemons = Daemons::start(&options).expect("daemons");
    let [members @ .., stray] = daemons.all() else {
        panic!("four");
    };
    let members: Vec<&Daemon> = members.iter().collect();
    wait_members(&members, PATIENCE).await.expect("members");
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let follower = others(&daemons, &[leader])[0];
    stray
        .set_nodes(&[&members[..], &[stray]].concat())
        .expect("written");
    for (number, first) in [leader, follower].into_iter().enumerate() {
        let before = standing(first).await;
        let raft = first.folder().join("raft").display().to_string();
        let wanted = format!("RaftDataDir {raft} is in use by another process");

        let (mut command, log) = (first.command(), first.folder().join("second.log"));
        command.arg("http");
        let began = Instant::now();
        let mut second = Process::start(command, &log).expect("started");
        let ended = second.wait(PATIENCE).await.expect("it ends");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert!(ended.code().is_some_and(|code| code > 0), "{ended}");
        let said = fs::read_to_string(&log).expect("a log");
        let last = said.lines().last().unwrap_or_default();
        assert_says(last, &[&wanted, "each daemon has its own"]);

        stray.set("RaftDataDir", raft).expect("written");
        let last = refused(stray).await;
        assert_says(&last, &[&wanted, "each daemon has its own"]);

        let change = format!("/api/tag/db{number}/3306?tag=kept");
        first
            .wait_status(&change, 200, PATIENCE)
            .await
            .expect("it takes changes");
        assert_eq!(standing(first).await, before);
    }
    wait_members(&members, PATIENCE).await.expect("members");
}

/// The directories of a follower and of the leader are copied while they run, and the copies started elsewhere. One that is as new
/// as its original waits, and says for what; it is retired once it is behind, and comes back as somebody else. Nobody is
/// elected meanwhile.
#[tokio::test]
async fn a_copy_of_a_raft_directory_takes_no_seat() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions {
        spare: 2,
        ..DaemonOptions::steady()
    };
    // Whoever is to campaign in spite of all does so soon.
    let hasty = json!({"RaftHeartbeatMillis": 50, "RaftElectionTimeoutMillis": 250});
    let hasty = hasty.as_object().expect("an object");
    options.own = vec![serde_json::Map::new(); 3];
    options.own.extend([hasty.clone(), hasty.clone()]);
    let daemons = Daemons::start(&options).expect("daemons");
    let (members, copies) = daemons.all().split_at(3);
    let members: Vec<&Daemon> = members.iter().collect();
    wait_members(&members, PATIENCE).await.expect("members");
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let follower = others(&daemons, &[leader])[0];
    wait_at_rest(leader).await;
    let (mut before, mut nodes) = (Vec::new(), BTreeSet::new());
    for member in &members {
        before.push(standing(member).await);
        nodes.insert(member.node().await.expect("an identity"));
    }
    let unchanged = async || {
        for (member, before) in members.iter().zip(&before) {
            assert_eq!(standing(member).await, *before);
        }
    };

    let pairs = [(follower, &copies[0]), (leader, &copies[1])];
    for (original, copy) in pairs {
        original.copy_raft_to(copy).await.expect("copied");
        let list = [&members[..], &[copy]].concat();
        copy.set_nodes(&list).expect("written");
        copy.start().expect("started");
    }
    for (original, copy) in pairs {
        let node = original.node().await.expect("an identity");
        let waits = format!(
            "node {node} is heard in its 1. start; its 2. is listened to once that one is silent"
        );
        wait_unhealthy(copy, &waits).await;
        assert_eq!(copy.node().await.expect("an identity"), node);
        let (there, here) = (original.raft(), copy.raft());
        let one = format!("the RaftNodes entries {there} and {here} lead to one node, {node}");
        wait_says(copy, &one).await;
    }
    let began = Instant::now();
    let mut pace = tokio::time::interval(PACE);
    while began.elapsed() < SILENCE {
        pace.tick().await;
        unchanged().await;
        for copy in copies {
            let answers = (
                copy.get("/api/leader-check", DEADLINE).await,
                copy.get("/api/raft-health", DEADLINE).await,
            );
            match answers {
                (Ok(leads), Ok(healthy)) => assert_eq!((leads.status, healthy.status), (404, 500)),
                _ => drop(copy.wait_ended(PATIENCE).await.expect("it ends")),
            }
        }
    }

    // What the copies do not know.
    for (number, member) in members.iter().enumerate() {
        let change = format!("/api/tag/db{number}/3306?tag=kept");
        member
            .wait_status(&change, 200, PATIENCE)
            .await
            .expect("it takes changes");
    }
    for (original, copy) in pairs {
        let node = original.node().await.expect("an identity");
        let code = copy.wait_ended(PATIENCE).await.expect("it ends");
        assert!(code.is_some_and(|code| code > 0), "{code:?}");
        let log = fs::read_to_string(copy.log()).expect("a log");
        let why = format!("node {node} went back");
        let then = "at the next start this node comes back as another";
        assert_says(log.lines().last().unwrap_or_default(), &[&why, then]);

        copy.start().expect("started");
        let asks = format!("no member has {} in RaftNodes", copy.raft());
        wait_unhealthy(copy, &asks).await;
        assert!(nodes.insert(copy.node().await.expect("an identity")));
        let aside = copy.folder().join("raft").join(format!("retired-{node}"));
        assert!(aside.join("identity").exists(), "{aside:?}");
    }
    wait_members(&members, PATIENCE).await.expect("members");
    unchanged().await;
}

/// Waits until nothing is to be decided any more: each member that comes is followed by some entries.
async fn wait_at_rest(leader: &Daemon) {
    let what = "what the members say of themselves is decided, and nothing after it";
    let mut last = (Value::Null, Instant::now());
    let looked = until(what, PATIENCE, PACE, async || {
        let status = leader.status().await.unwrap_or_default();
        let mut members = status["Members"].as_array().into_iter().flatten();
        let is_said = status["Upgrade"] == ""
            && status["DifferingSettings"] == json!([])
            && members.all(|member| member["RaftProtocols"] != "");
        if !is_said || status["LastLogIndex"] != last.0 {
            last = (status["LastLogIndex"].clone(), Instant::now());
        }
        match last.1.elapsed() >= AT_REST {
            true => Look::Holds(()),
            false => Look::not(format!("{status:#}")),
        }
    });
    looked.await.expect("at rest");
}
