//! HAProxy by the example, in both set-ups, while leaders die.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{
    Daemon, DaemonOptions, Daemons, Reply, get, get_with_head, wait_applied,
};
use orchestrator_tests::haproxy::{Proxy, SERVER, noticed_within};
use orchestrator_tests::network::Network;
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};

use super::{DEADLINE, PATIENCE, TURN};

/// Waits until a path is answered with 200 through the proxy; its body, and how long it took.
async fn answered(proxy: SocketAddr, path: &str) -> (String, Duration) {
    let began = Instant::now();
    let what = format!("{path} through {proxy}");
    let body = until(
        &what,
        PATIENCE,
        Duration::from_millis(20),
        async || match get(proxy, path, DEADLINE).await {
            Ok(reply) if reply.status == 200 => Look::Holds(reply.body),
            Ok(reply) => Look::not(format!("{} {}", reply.status, reply.body)),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    (body.await.expect("answered"), began.elapsed())
}

/// What the client prints that knows this address only.
fn client(proxy: SocketAddr, arguments: &[&str]) -> String {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/bin/orchestrator-client");
    let output = Command::new(script)
        .args(arguments)
        .env("ORCHESTRATOR_API", format!("http://{proxy}"))
        .env("ORCHESTRATOR_CLIENT_PROFILE", "/nonexistent")
        .env("ORCHESTRATOR_CLIENT_PATIENCE", "60")
        .output()
        .expect("bash, curl and jq; type:  tests/setup.sh client");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn haproxy_follows_the_leader() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&DaemonOptions::steady()).expect("daemons");
    let proxy = Proxy::start(&daemons).await.expect("HAProxy");
    let (leader_only, any) = (proxy.leader_only, proxy.any);
    answered(leader_only, "/api/leader-check").await;
    answered(any, "/api/raft-health").await;
    // Until HAProxy has noticed, one that led a moment ago may be asked.
    let looked = until(
        "whoever answers leads",
        PATIENCE,
        LOOK,
        async || match answered(leader_only, "/api/raft-state").await {
            (state, _) if state == "\"Leader\"" => Look::Holds(()),
            (state, _) => Look::not(state),
        },
    );
    looked.await.expect("the leader");
    for (number, proxy) in [leader_only, any].into_iter().enumerate() {
        answered(proxy, &format!("/api/tag/db{number}/3306?tag=before")).await;
    }

    // The client behind the proxy knows one address.
    for proxy in [leader_only, any] {
        assert_eq!(
            client(proxy, &["-c", "tagged", "-t", "before"]),
            "db0:3306\ndb1:3306\n"
        );
        assert_eq!(
            client(proxy, &["-c", "which-api"]),
            format!("http://{proxy}/api\n")
        );
        assert_eq!(client(proxy, &["-c", "raft-health"]), "healthy\n");
    }

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let killed = leader.http();
    leader.signal(Signal::Kill);
    // Whoever answers on the first port leads, from the first answer on.
    let (state, gap) = answered(leader_only, "/api/raft-state").await;
    assert_eq!(state, "\"Leader\"");
    let (_, writable) = answered(leader_only, "/api/tag/db3/3306?tag=after").await;
    let (_, writable_by_any) = answered(any, "/api/tag/db4/3306?tag=after").await;
    println!(
        "leader only: {gap:?} until answered, {writable:?} more until written; any: {writable_by_any:?} more"
    );
    for proxy in [leader_only, any] {
        let (tagged, _) = answered(proxy, "/api/tagged?tag=before").await;
        assert!(tagged.contains("db0") && tagged.contains("db1"), "{tagged}");
        let (tagged, _) = answered(proxy, "/api/tagged?tag=after").await;
        assert!(tagged.contains("db3") && tagged.contains("db4"), "{tagged}");
    }

    // Two of three are gone: both ports say so, and nothing is taken.
    let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
    assert_ne!(next.http(), killed);
    next.signal(Signal::Kill);
    for proxy in [leader_only, any] {
        let what = format!("{proxy} has no server left");
        let looked = until(
            &what,
            PATIENCE,
            Duration::from_millis(20),
            async || match get(proxy, "/api/tag/db5/3306?tag=lost", DEADLINE).await {
                Ok(reply) if reply.status == 503 && !reply.body.contains("Code") => Look::Holds(()),
                Ok(reply) if reply.status == 200 => {
                    panic!("taken without a quorum: {}", reply.body)
                }
                other => Look::not(format!("{other:?}")),
            },
        );
        looked.await.expect("503 of the proxy");
    }

    // One comes back: both serve again, without what was refused.
    for daemon in daemons.all() {
        daemon.start().expect("started");
    }
    for proxy in [leader_only, any] {
        let (tagged, _) = answered(proxy, "/api/tagged?tag=lost").await;
        assert_eq!(tagged, "[]");
    }
}

/// Of each kind of set-up.
const CLIENTS: usize = 3;
/// Between two looks at a daemon's health.
const LOOK: Duration = Duration::from_millis(25);
/// The machine may stand still for so long while HAProxy notices that a daemon is not to be used.
const SLACK: Duration = Duration::from_secs(3);
/// So many changes are acknowledged by way of each set-up while HAProxy knows that a daemon is not to be used.
const MANY: usize = 500;
/// HAProxy cuts within this time whoever waits for a daemon that it marks down.
const STRUCK: Duration = Duration::from_secs(2);
/// So many it may cut besides, as when a machine stands still.
const CUTS_MAX: usize = 5;
/// A client gives a request up after this.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// The set-ups, and what HAProxy asks in each.
const SET_UPS: [(&str, &str); 2] = [("leader", "/api/leader-check"), ("any", "/api/raft-health")];
const ANY: usize = 1;

/// Whom something happens to.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Leader,
    /// The one that HAProxy sends to what any healthy daemon may take.
    Taker,
}

/// From one moment to another HAProxy knew that a daemon was not to be used.
#[derive(Debug)]
struct Out {
    how: &'static str,
    place: usize,
    from: Instant,
    to: Instant,
}

/// A change that a client asked for.
#[derive(Debug)]
struct Asked {
    set_up: usize,
    /// What is to be there when it was acknowledged: a table, and a server of nobody else's.
    row: (&'static str, String),
    /// It is to be there no more.
    is_removal: bool,
    sent: Instant,
    answered: Instant,
    /// Whoever answered, by its place.
    by: Option<usize>,
    outcome: Outcome,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Acknowledged,
    /// A daemon says that nothing was done.
    Refused,
    /// By the words of whoever answered, if somebody did.
    Unknown(String),
    /// The connection ended without a word.
    Cut(String),
    /// An answer without a body.
    Empty(String),
}

/// What a daemon said to what HAProxy asks, and between which moments.
#[derive(Clone, Copy, Debug)]
struct Looked {
    sent: Instant,
    answered: Instant,
    is_good: bool,
}

#[derive(Debug, Default)]
struct Watched {
    asked: Mutex<Vec<Asked>>,
    /// By place and set-up.
    looked: Mutex<BTreeMap<(usize, usize), Vec<Looked>>>,
    /// When a daemon was struck.
    struck: Mutex<Vec<Instant>>,
    ended: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    fn acknowledged(&self, set_up: usize) -> usize {
        let asked = locked(&self.asked);
        let of_it = asked.iter().filter(|asked| asked.set_up == set_up);
        of_it
            .filter(|asked| asked.outcome == Outcome::Acknowledged)
            .count()
    }

    /// Waits until changes are acknowledged by way of both.
    async fn wait_more(&self, count: usize) {
        for (set_up, (name, _)) in SET_UPS.iter().enumerate() {
            let before = self.acknowledged(set_up);
            let what = format!("{name}: {count} more are acknowledged");
            let looked = until(&what, PATIENCE, LOOK, async || {
                match self.acknowledged(set_up) - before {
                    more if more >= count => Look::Holds(()),
                    more => Look::not(more),
                }
            });
            looked.await.expect("acknowledged");
        }
    }

    /// Waits until HAProxy takes all daemons, and what any of them may take goes to one: its place.
    async fn taker(&self, proxy: &Proxy) -> usize {
        let backend = backend(ANY);
        let looked = until("HAProxy takes all", PATIENCE, LOOK, async || {
            match proxy.up(&backend).await {
                Ok(up) if up.len() == 3 => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            }
        });
        looked.await.expect("all are up");
        let looked = until("one takes all", PATIENCE, LOOK, async || {
            self.wait_more(20).await;
            let asked = locked(&self.asked);
            let to_any = asked.iter().rev().filter(|one| one.set_up == ANY);
            let takers: BTreeSet<Option<usize>> = to_any.take(20).map(|one| one.by).collect();
            match (takers.len(), takers.first()) {
                (1, Some(Some(place))) => Look::Holds(*place),
                _ => Look::not(format!("{takers:?}")),
            }
        });
        looked.await.expect("one")
    }
}

/// What the example calls a set-up.
fn backend(set_up: usize) -> String {
    format!("orchestrator-{}", SET_UPS[set_up].0)
}

/// How often HAProxy has sent something to the daemon of this place, in each set-up.
async fn chosen(proxy: &Proxy, place: usize) -> [u64; 2] {
    let mut counts = [0; 2];
    for (set_up, count) in counts.iter_mut().enumerate() {
        let chosen = proxy.chosen(&backend(set_up), place + 1).await;
        *count = chosen.expect("HAProxy knows it");
    }
    counts
}

/// Whether every look between two moments, and those around them, said no.
fn was_bad(looks: &[Looked], from: Instant, to: Instant) -> bool {
    let before = looks.iter().rposition(|look| look.answered <= from);
    let after = looks.iter().position(|look| look.sent >= to);
    match (before, after) {
        (Some(before), Some(after)) if before <= after => {
            looks[before..=after].iter().all(|look| !look.is_good)
        }
        _ => false,
    }
}

/// Whether for a moment nobody said that it leads, though no leader was struck: the machine stood still.
fn hesitated(looked: &BTreeMap<(usize, usize), Vec<Looked>>, one: &Asked) -> bool {
    let mut good: Vec<Looked> = looked
        .iter()
        .filter(|((_, set_up), _)| *set_up == one.set_up)
        .flat_map(|(_, looks)| looks.iter().filter(|look| look.is_good).copied())
        .collect();
    good.sort_by_key(|look| look.sent);
    let near = |pair: &&[Looked]| {
        pair[0].answered <= one.answered && pair[1].sent + STRUCK >= one.answered
    };
    good.windows(2)
        .filter(near)
        .any(|pair| pair[1].sent.duration_since(pair[0].answered) > 4 * LOOK)
}

/// Asks for changes, one after another: tags, promotion rules, and tags that are taken away again.
async fn ask(watched: Arc<Watched>, set_up: usize, proxy: SocketAddr, name: String) {
    let mut number = 0;
    while !watched.ended.load(Ordering::Relaxed) {
        number += 1;
        let server = format!("{name}-{number}");
        let (tags, candidates) = ("database_instance_tags", "candidate_database_instance");
        let mut steps = vec![match number % 3 {
            0 => (
                candidates,
                format!("/api/register-candidate/{server}/3306/prefer"),
                false,
            ),
            _ => (tags, format!("/api/tag/{server}/3306?tag=load"), false),
        }];
        if number % 3 == 1 {
            steps.push((tags, format!("/api/untag/{server}/3306?tag=load"), true));
        }
        for (table, path, is_removal) in steps {
            let sent = Instant::now();
            let answer = get_with_head(proxy, &path, GIVEN_UP).await;
            let (by, outcome) = judge(answer);
            let is_acknowledged = outcome == Outcome::Acknowledged;
            locked(&watched.asked).push(Asked {
                set_up,
                row: (table, server.clone()),
                is_removal,
                sent,
                answered: Instant::now(),
                by,
                outcome,
            });
            if !is_acknowledged {
                // Whoever is told to come back later does.
                tokio::time::sleep(LOOK).await;
                break;
            }
        }
    }
}

fn judge(answer: anyhow::Result<(String, Reply)>) -> (Option<usize>, Outcome) {
    let (head, reply) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let words = format!("{error:#}");
            let outcome = match words.contains("no reply within") {
                true => Outcome::Unknown(words),
                false => Outcome::Cut(words),
            };
            return (None, outcome);
        }
    };
    let by = head
        .lines()
        .find_map(|line| {
            line.strip_prefix(&SERVER.to_lowercase())
                .or(line.strip_prefix(SERVER))
        })
        .and_then(|number| number.trim().parse::<usize>().ok())
        .map(|number| number - 1);
    let code = reply.json().map(|document| document["Code"].clone());
    let outcome = match (reply.status, code) {
        _ if reply.body.trim().is_empty() => Outcome::Empty(head),
        (200, Ok(code)) if code == "OK" => Outcome::Acknowledged,
        (503, Ok(_)) if by.is_some() && reply.body.contains("nothing was done") => Outcome::Refused,
        (status, _) => Outcome::Unknown(format!("{status} {}", reply.body)),
    };
    (by, outcome)
}

async fn look(watched: Arc<Watched>, set_up: usize, place: usize, address: SocketAddr) {
    while !watched.ended.load(Ordering::Relaxed) {
        let sent = Instant::now();
        if let Ok(reply) = get(address, SET_UPS[set_up].1, DEADLINE).await {
            let looked = Looked {
                sent,
                answered: Instant::now(),
                is_good: reply.status == 200,
            };
            let mut all = locked(&watched.looked);
            all.entry((place, set_up)).or_default().push(looked);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The servers that have a row.
fn servers(daemon: &Daemon, table: &str) -> BTreeSet<String> {
    let file = rusqlite::Connection::open(daemon.database()).expect("a database");
    let query = format!("SELECT hostname FROM {table}");
    let mut statement = file.prepare(&query).expect("a table");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<rusqlite::Result<_>>().expect("names")
}

/// Clients change things through both set-ups while the leader, and whoever takes what any daemon may take, is killed, frozen and
/// cut off: every change that was acknowledged is there in the end, none that was refused; every request is answered, by a
/// daemon that HAProxy had reason to take, or cut by HAProxy as that leader is marked down; nothing is sent to one that is frozen
/// or cut off, once HAProxy's checks had the time to show that; nothing is acknowledged by one that was no healthy member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_through_haproxy_is_lost() {
    let _turn = TURN.lock().await;
    let network = Network::lay(3).expect("a network");
    let options = DaemonOptions::default_configuration();
    let daemons = Daemons::start_on(&network, &options).expect("daemons");
    daemons.wait_whole(PATIENCE).await.expect("whole");
    let proxy = Proxy::start(&daemons).await.expect("HAProxy");
    let proxies = [proxy.leader_only, proxy.any];
    for (proxy, (_, path)) in proxies.into_iter().zip(SET_UPS) {
        answered(proxy, path).await;
    }
    let watched = Arc::new(Watched::default());
    let mut tasks = Vec::new();
    for (set_up, (name, _)) in SET_UPS.iter().enumerate() {
        for (place, daemon) in daemons.all().iter().enumerate() {
            tasks.push(tokio::spawn(look(
                watched.clone(),
                set_up,
                place,
                daemon.http(),
            )));
        }
        for client in 0..CLIENTS {
            let name = format!("{name}-{client}");
            tasks.push(tokio::spawn(ask(
                watched.clone(),
                set_up,
                proxies[set_up],
                name,
            )));
        }
    }
    watched.wait_more(30).await;
    let lag = noticed_within().expect("checks") + SLACK;
    let mut out = Vec::new();
    for (how, whom) in [
        ("kill", Whom::Leader),
        ("stop", Whom::Leader),
        ("kill", Whom::Leader),
        ("cut", Whom::Leader),
        ("kill", Whom::Leader),
        ("stop", Whom::Taker),
        ("kill", Whom::Leader),
        ("cut", Whom::Taker),
    ] {
        let led = daemons.wait_whole(PATIENCE).await.expect("whole");
        let place = match whom {
            Whom::Leader => led,
            Whom::Taker => watched.taker(&proxy).await,
        };
        let struck = &daemons.all()[place];
        let began = Instant::now();
        locked(&watched.struck).push(began);
        match how {
            "stop" => drop(struck.signal(Signal::Stop)),
            "cut" => network.isolate(place).expect("cut"),
            _ => struck.kill().await.expect("killed"),
        }
        let others = daemons.all().iter().enumerate();
        let others: Vec<&Daemon> = others
            .filter(|(other, _)| *other != place)
            .map(|(_, daemon)| daemon)
            .collect();
        let looked = until("another one leads", PATIENCE, LOOK, async || {
            for daemon in &others {
                if daemon.is_leader().await {
                    return Look::Holds(());
                }
            }
            Look::not("none")
        });
        looked.await.expect("a leader");
        let leads = began.elapsed();
        if how != "kill" {
            let mut unfit = began;
            if how == "cut" {
                struck
                    .wait_status("/api/raft-health", 500, PATIENCE)
                    .await
                    .expect("so");
                unfit = Instant::now();
            }
            // Also while every client waits for one that is frozen: who gives up asks again, of HAProxy.
            let looked = until(
                "the time to notice is over",
                PATIENCE,
                LOOK,
                async || match unfit.elapsed() {
                    so_far if so_far >= lag => Look::Holds(()),
                    so_far => Look::not(format!("{so_far:?}")),
                },
            );
            looked.await.expect("time goes on");
            // Long enough for HAProxy to be wrong about it, if it is.
            let (from, before) = (Instant::now(), chosen(&proxy, place).await);
            watched.wait_more(MANY).await;
            assert_eq!(
                chosen(&proxy, place).await,
                before,
                "{how}, {whom:?}: HAProxy sends to daemon {place}"
            );
            out.push(Out {
                how,
                place,
                from,
                to: Instant::now(),
            });
        }
        watched.wait_more(20).await;
        println!(
            "{how}, {whom:?} (place {place}, {led} led): another one leads after {leads:?}, both go on after {:?}",
            began.elapsed()
        );
        match how {
            "stop" => drop(struck.signal(Signal::Continue)),
            "cut" => network.rejoin(place).expect("joined"),
            _ => struck.start().expect("started"),
        }
    }
    daemons.wait_whole(PATIENCE).await.expect("whole");
    watched.wait_more(20).await;
    watched.ended.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("it ends");
    }

    let asked = std::mem::take(&mut *locked(&watched.asked));
    let looked = std::mem::take(&mut *locked(&watched.looked));
    let struck = std::mem::take(&mut *locked(&watched.struck));
    let count =
        |wanted: fn(&Outcome) -> bool| asked.iter().filter(|one| wanted(&one.outcome)).count();
    println!(
        "{} acknowledged, {} refused, {} unknown, {} cut",
        count(|outcome| *outcome == Outcome::Acknowledged),
        count(|outcome| *outcome == Outcome::Refused),
        count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        count(|outcome| matches!(outcome, Outcome::Cut(_)))
    );
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    for one in &asked {
        if let Outcome::Unknown(why) = &one.outcome {
            let begin: String = why.chars().take(60).collect();
            let who = one.by.map_or("HAProxy", |_| "a daemon");
            *unknown
                .entry(format!("{}: {who}: {begin:?}", SET_UPS[one.set_up].0))
                .or_default() += 1;
        }
    }
    println!("{unknown:#?}");
    let (mut wrongs, mut cuts) = (Vec::new(), Vec::new());
    let mut there: BTreeMap<(&str, &str), Option<bool>> = BTreeMap::new();
    for one in &asked {
        let was_struck = struck
            .iter()
            .any(|at| *at <= one.answered && one.answered <= *at + STRUCK)
            || hesitated(&looked, one);
        match one.outcome {
            // As HAProxy cuts whoever waits for a daemon that it marks down (on-marked-down shutdown-sessions), and does not
            // always say 502 first. A daemon that ends a connection without a word is a 502 of HAProxy's.
            Outcome::Cut(_) if SET_UPS[one.set_up].0 == "leader" && was_struck => {}
            Outcome::Cut(_) if SET_UPS[one.set_up].0 == "leader" => {
                cuts.push(format!("no answer: {one:?}"));
            }
            Outcome::Cut(_) | Outcome::Empty(_) => wrongs.push(format!("no answer: {one:?}")),
            _ => {}
        }
        let key = (one.row.0, one.row.1.as_str());
        match one.outcome {
            Outcome::Acknowledged => drop(there.insert(key, Some(!one.is_removal))),
            Outcome::Refused if !one.is_removal => drop(there.insert(key, Some(false))),
            // Refused, so it stays as it was.
            Outcome::Refused => {}
            _ => drop(there.insert(key, None)),
        }
        let Some(by) = one.by else {
            if one.outcome == Outcome::Acknowledged {
                wrongs.push(format!("by nobody: {one:?}"));
            }
            continue;
        };
        // HAProxy may have waited a while before it took one.
        if was_bad(&looked[&(by, one.set_up)], one.sent - lag, one.answered) {
            wrongs.push(format!("it landed on a daemon that was out: {one:?}"));
        }
        // Who is frozen says nothing, and answers late.
        let meanwhile = |out: &&Out| out.place == by && out.from <= one.sent && one.sent <= out.to;
        if let Some(out) = out.iter().find(meanwhile) {
            wrongs.push(format!(
                "it landed on a daemon that was out ({}): {one:?}",
                out.how
            ));
        }
        let is_acknowledged = one.outcome == Outcome::Acknowledged;
        if is_acknowledged && was_bad(&looked[&(by, 1)], one.sent, one.answered) {
            wrongs.push(format!("acknowledged by an unhealthy daemon: {one:?}"));
        }
    }
    if cuts.len() > CUTS_MAX {
        wrongs.extend(cuts);
    }
    for daemon in daemons.all() {
        wait_applied(&daemons, daemon, PATIENCE)
            .await
            .expect("all of it");
        let what = format!("{} has written it all", daemon.url());
        let looked = until(&what, PATIENCE, LOOK, async || {
            let mut missing = Vec::new();
            for table in ["database_instance_tags", "candidate_database_instance"] {
                let held = servers(daemon, table);
                for ((of, server), is_there) in &there {
                    if *of == table && is_there.is_some_and(|there| there != held.contains(*server))
                    {
                        missing.push(format!("{table} {server}: {is_there:?}"));
                    }
                }
            }
            match missing.is_empty() {
                true => Look::Holds(()),
                false => Look::not(format!("{missing:?}")),
            }
        });
        if let Err(error) = looked.await {
            wrongs.push(format!("{error:#}"));
        }
    }
    assert_eq!(wrongs, Vec::<String>::new());
}
