//! Raft as a whole, on loopback and real files: what this daemon relies on, shown on three nodes in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

use super::tls::{Security, Wire};
use super::wire::{self, Hello, HelloAnswer};
use super::*;
use crate::env::{DedicatedRuntime, Env, TokioEnv, sleep, sleep_until, spawn, timeout};
use crate::raft::test_folder::Folder;
use crate::tls::host_of;

/// Longer than anything here takes on a machine that is busy with other things; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether what is waited for is so.
const LOOK: Duration = Duration::from_millis(20);

/// An election timeout for tests that hold a leader to lead on: a busy machine is rarely silent for so long. The others have
/// a short one, since they wait for elections or get over them.
const STEADY_MS: u64 = 8_000;
const HASTY_MS: u64 = 1_000;

/// The state of a test's driver: every command in order. Its image is the list, one command a line.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
struct Lines {
    lines: Vec<String>,
    at: LogPosition,
    /// Snapshots that were installed in this run.
    installed: u64,
    seated: Seated,
}

struct Daemon {
    handle: RaftHandle<TokioEnv>,
    report: StartReport,
    state: watch::Receiver<Lines>,
}

/// Serves raft's requests until raft ends.
async fn drive(mut requests: mpsc::Receiver<ReplicaRequest>, state: watch::Sender<Lines>) {
    while let Some(request) = requests.recv().await {
        match request {
            ReplicaRequest::Apply { entries, reply } => {
                let mut answers = Vec::new();
                state.send_modify(|state| {
                    for (at, entry) in entries {
                        assert!(
                            at.index > state.at.index || state.at.index == 0,
                            "{at} is applied after {}",
                            state.at
                        );
                        state.at = at;
                        match entry {
                            Entry::Command(command) => {
                                state.lines.push(String::from_utf8(command).unwrap());
                            }
                            Entry::Members(members) => state.seated = Seated { members, at },
                            Entry::Blank => {}
                        }
                        answers.push(state.lines.len().to_string().into_bytes());
                    }
                });
                let _ = reply.send(answers);
            }
            ReplicaRequest::Alive { reply } => {
                let _ = reply.send(());
            }
            ReplicaRequest::Snapshot { reply } => {
                let lines = state.borrow().lines.clone();
                let _ = reply.send(Box::new(move || lines.join("\n").into_bytes()));
            }
            ReplicaRequest::Install { at, bytes, reply } => {
                state.send_modify(|state| {
                    let text = String::from_utf8(bytes).unwrap();
                    state.lines = text.lines().map(str::to_owned).collect();
                    state.at = at;
                    state.installed += 1;
                });
                let _ = reply.send(Ok(()));
            }
        }
    }
}

async fn try_start(settings: RaftSettings) -> Result<Daemon, StartError> {
    let (replica, requests) = mpsc::channel(16);
    let (sender, state) = watch::channel(Lines::default());
    spawn::<TokioEnv>(drive(requests, sender));
    let (handle, report) = start::<TokioEnv>(settings, replica).await?;
    Ok(Daemon {
        handle,
        report,
        state,
    })
}

/// Starts once what it needs is free: the listener of a daemon that was ended goes a moment after it, and a process that
/// another test is starting holds listeners and locks until it is another program.
async fn start_when_free(settings: &RaftSettings) -> Result<Daemon, StartError> {
    let limit = TokioEnv::mono() + PATIENCE;
    loop {
        let started = try_start(settings.clone()).await;
        let is_taken = match &started {
            Err(StartError::InUse(_)) => true,
            Err(StartError::Settings(why)) => why.contains("cannot be listened on"),
            Err(_) | Ok(_) => false,
        };
        if !is_taken || TokioEnv::mono() > limit {
            return started;
        }
        sleep::<TokioEnv>(LOOK).await;
    }
}

async fn begin(settings: &RaftSettings) -> Daemon {
    start_when_free(settings).await.unwrap()
}

/// Why it does not start, once what it needs is free.
async fn refused_start(settings: &RaftSettings) -> StartError {
    start_when_free(settings).await.err().unwrap()
}

/// A loopback host at which nobody else listens: no test takes a port that another one has let go of for a moment.
fn own_host() -> String {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    format!("127.0.1.{}", TAKEN.fetch_add(1, Ordering::Relaxed))
}

/// Settings for nodes on ports of their own, at one host.
async fn settings(folders: &[Folder]) -> Vec<RaftSettings> {
    settings_of(folders, HASTY_MS).await
}

async fn settings_of(folders: &[Folder], election_timeout_ms: u64) -> Vec<RaftSettings> {
    let hosts = vec![own_host(); folders.len()];
    settings_at(&hosts, folders, election_timeout_ms).await
}

async fn settings_at(
    hosts: &[String],
    folders: &[Folder],
    election_timeout_ms: u64,
) -> Vec<RaftSettings> {
    let mut listeners = Vec::new();
    for host in hosts {
        listeners.push(TokioEnv::bind(&format!("{host}:0")).await.unwrap());
    }
    let nodes: Vec<String> = listeners
        .iter()
        .map(|listener| TokioEnv::local_address(listener).unwrap())
        .collect();
    drop(listeners);
    let one = |(place, folder): (usize, &Folder)| RaftSettings {
        nodes: nodes.clone(),
        http_uri: format!("http://node{place}:3000"),
        heartbeat_ms: 100,
        election_timeout_ms,
        check_image: any_image,
        ..RaftSettings::new(&folder.0, nodes[place].clone())
    };
    folders.iter().enumerate().map(one).collect()
}

/// The images of this driver do not say where they stand.
fn any_image(
    _: &[u8],
    _: LogPosition,
    _: orchestrator_core::replicated::Versions,
) -> Result<(), String> {
    Ok(())
}

fn folders<const N: usize>(name: &str) -> [Folder; N] {
    std::array::from_fn(|_| Folder::make(name))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = DedicatedRuntime::start("raft-test", 2).unwrap();
    runtime.run(test);
    runtime.stop();
}

async fn within<T>(what: &str, future: impl Future<Output = T> + Send) -> T {
    timeout::<TokioEnv, _>(PATIENCE, future)
        .await
        .unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// The daemon that leads, once one does.
async fn leader(daemons: &[&Daemon]) -> usize {
    let mut waits: Vec<_> = daemons.iter().map(|daemon| daemon.handle.watch()).collect();
    let leads = futures_util::future::select_all(
        waits
            .iter_mut()
            .map(|watch| Box::pin(watch.wait_for(|summary| summary.leading.is_some()))),
    );
    let leads = leads.map(|(summary, place, _)| {
        drop(summary.unwrap());
        place
    });
    within("a leader", leads.boxed()).await
}

/// The daemon that leads, and the epoch in which it does: what it told of may be over when it is asked.
async fn led(daemons: &[&Daemon]) -> (usize, Epoch) {
    let look = async {
        loop {
            let place = leader(daemons).await;
            if let Some(epoch) = daemons[place].handle.leading() {
                return (place, epoch);
            }
            sleep::<TokioEnv>(LOOK).await;
        }
    };
    within("a leader", look).await
}

/// The start in which one daemon heard another one last, as far as it has noted.
fn boot_heard(by: &Daemon, of: NodeId) -> Option<u64> {
    let peers = by.handle.node.peers.lock().unwrap();
    peers.get(of.0).map(|peer| peer.record.seen.boot)
}

/// Waits until a daemon has noted that it heard another one in this start of it.
async fn hears(daemon: &Daemon, other: &Daemon) {
    let look = async {
        while boot_heard(daemon, other.report.node) != Some(other.report.boot) {
            sleep::<TokioEnv>(LOOK).await;
        }
    };
    within("it is heard", look).await;
}

async fn healthy(daemons: &[&Daemon]) {
    for daemon in daemons {
        let mut watch = daemon.handle.watch();
        drop(
            within(
                "every member is healthy",
                watch.wait_for(|summary| summary.healthy),
            )
            .await
            .unwrap(),
        );
    }
}

/// Proposes on whichever daemon leads until it is done; a refusal or an unknown outcome is what elections bring, and the
/// command is then proposed again. A machine that is slow brings none, so that nothing is there twice because of it.
async fn propose(daemons: &[&Daemon], text: &str) -> LogPosition {
    loop {
        let place = leader(daemons).await;
        let proposed = daemons[place]
            .handle
            .propose(text.as_bytes().to_vec(), PATIENCE)
            .await;
        match proposed {
            Proposed::Done { at, .. } => return at,
            Proposed::Refused { .. } | Proposed::Unknown { .. } => {
                let mut watch = daemons[place].handle.watch();
                let lost = watch.wait_for(|summary| summary.leading.is_none());
                let _ = timeout::<TokioEnv, _>(Duration::from_secs(1), lost).await;
            }
        }
    }
}

/// Waits until every daemon has applied `at`, and gives back what they all hold.
async fn same(daemons: &[&Daemon], at: LogPosition) -> Vec<String> {
    let mut all = Vec::new();
    for daemon in daemons {
        let mut state = daemon.state.clone();
        let held = within(
            "every member applies",
            state.wait_for(|state| state.at.index >= at.index),
        )
        .await;
        all.push(held.unwrap().lines.clone());
    }
    let first = all.swap_remove(0);
    assert!(
        all.iter().all(|held| *held == first),
        "{first:?} against {all:?}"
    );
    first
}

#[test]
fn three_nodes_form_elect_replicate_and_survive_restarts() {
    run(async {
        let folders: [Folder; 3] = folders("three");
        let settings = settings_of(&folders, STEADY_MS).await;
        let (a, b) = (begin(&settings[0]).await, begin(&settings[1]).await);
        assert_eq!(a.report.cluster, None);
        assert_eq!(a.report.decision, StartDecision::Replay { from: None });
        let mut watch = a.handle.watch();
        let waits = watch.wait_for(|summary| {
            summary
                .reason
                .as_ref()
                .is_some_and(|reason| reason.contains("waiting for"))
        });
        drop(
            within("the first two wait for the third", waits)
                .await
                .unwrap(),
        );
        let c = begin(&settings[2]).await;
        let mut daemons = vec![a, b, c];

        // One cluster, known alike to all.
        healthy(&daemons.iter().collect::<Vec<_>>()).await;
        let cluster = daemons[0].handle.cluster().unwrap();
        assert!(
            daemons
                .iter()
                .all(|daemon| daemon.handle.cluster() == Some(cluster))
        );
        let first = propose(&daemons.iter().collect::<Vec<_>>(), "one").await;
        assert_eq!(
            same(&daemons.iter().collect::<Vec<_>>(), first).await,
            ["one"]
        );

        // Followers know who leads and where its HTTP service is; they refuse proposals with its name.
        let leads = leader(&daemons.iter().collect::<Vec<_>>()).await;
        let leader_id = daemons[leads].handle.node_id();
        let follower = (leads + 1) % 3;
        let status = daemons[follower].handle.status();
        assert_eq!(status.summary.leader, Some(leader_id));
        assert_eq!(
            status.leader_http_uri,
            Some(format!("http://node{leads}:3000"))
        );
        assert_eq!(
            status.members.iter().filter(|member| member.voter).count(),
            3
        );
        let refused = daemons[follower]
            .handle
            .propose(b"no".to_vec(), Duration::from_secs(5))
            .await;
        assert!(
            matches!(refused, Proposed::Refused { leader, .. } if leader == Some(leader_id)),
            "{refused:?}"
        );
        assert!(
            daemons[follower]
                .handle
                .confirm_leadership(Duration::from_secs(5))
                .await
                .is_err()
        );

        // A node goes and comes back under its identity, with a later boot number.
        let gone = daemons.remove(follower);
        gone.handle.shutdown().await;
        let second = propose(&daemons.iter().collect::<Vec<_>>(), "two").await;
        let back = begin(&settings[follower]).await;
        assert_eq!(back.report.node, gone.report.node);
        assert_eq!(back.report.boot, gone.report.boot + 1);
        assert_eq!(back.report.cluster, Some(cluster));
        daemons.insert(follower, back);
        assert_eq!(
            same(&daemons.iter().collect::<Vec<_>>(), second).await,
            ["one", "two"]
        );

        // All go and come back.
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
        let mut again = Vec::new();
        for one in &settings {
            let hasty = RaftSettings {
                election_timeout_ms: HASTY_MS,
                ..one.clone()
            };
            again.push(begin(&hasty).await);
        }
        let third = propose(&again.iter().collect::<Vec<_>>(), "three").await;
        assert_eq!(
            same(&again.iter().collect::<Vec<_>>(), third).await,
            ["one", "two", "three"]
        );
        for daemon in &again {
            daemon.handle.shutdown().await;
        }
    });
}

/// Members of two releases talk in the newest protocol that both speak, whoever dials whom, and through a rolling upgrade.
#[test]
fn two_releases_are_one_cluster() {
    run(async {
        let folders: [Folder; 3] = folders("two-releases");
        let mut settings = settings(&folders).await;
        settings[1].release = Release::BEFORE;
        settings[2].release = Release::BEFORE;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        let mut at = propose(&daemons.iter().collect::<Vec<_>>(), "mixed").await;
        let mut lines = vec!["mixed".to_owned()];
        let steps = [
            (1, Release::THIS),
            (0, Release::BEFORE),
            (2, Release::THIS),
            (0, Release::THIS),
        ];
        for (step, (place, release)) in steps.into_iter().enumerate() {
            assert_eq!(
                same(&daemons.iter().collect::<Vec<_>>(), at).await,
                lines,
                "before step {step}"
            );
            let gone = daemons.remove(place);
            gone.handle.shutdown().await;
            settings[place].release = release;
            daemons.insert(place, begin(&settings[place]).await);
            healthy(&daemons.iter().collect::<Vec<_>>()).await;
            lines.push(format!("step {step}"));
            at = propose(&daemons.iter().collect::<Vec<_>>(), &lines[step + 1]).await;
        }
        assert_eq!(same(&daemons.iter().collect::<Vec<_>>(), at).await, lines);
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

/// Two that have no protocol in common do not talk, and both say why.
#[test]
fn releases_too_far_apart_say_so() {
    run(async {
        let folders: [Folder; 2] = folders("far-apart");
        let mut settings = settings(&folders).await;
        settings[1].release.protocols = Protocols {
            oldest: 4,
            newest: 5,
        };
        let (this, later) = (begin(&settings[0]).await, begin(&settings[1]).await);
        for daemon in [&this, &later] {
            let mut watch = daemon.handle.watch();
            let told = watch.wait_for(|summary| {
                let reason = summary.reason.as_deref().unwrap_or_default();
                reason.contains("they have none in common; upgrade")
            });
            let told = within("both know why", told).await.unwrap().clone();
            assert_eq!(told.leader, None);
        }
        assert_eq!(
            (this.handle.cluster(), later.handle.cluster()),
            (None, None)
        );
        this.handle.shutdown().await;
        later.handle.shutdown().await;
    });
}

#[test]
fn a_node_alone_forms_at_once_and_leads() {
    run(async {
        let folder = Folder::make("alone");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        assert_eq!(leader(&[&alone]).await, 0);
        let at = propose(&[&alone], "x").await;
        assert_eq!(same(&[&alone], at).await, ["x"]);
        let before = TokioEnv::mono();
        let confirmed = alone
            .handle
            .confirm_leadership(Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(Some(confirmed.epoch), alone.handle.leading());
        assert_eq!(confirmed.epoch.boot, 1);
        assert!(confirmed.valid_until >= before + Duration::from_millis(150));
        alone.handle.shutdown().await;
        assert_eq!(alone.handle.leading(), None);
        assert_eq!(alone.handle.summary().state, RaftState::Shutdown);
    });
}

/// Three daemons, of which one was away while the others cut the log that it lacks.
struct OneBehind {
    here: Vec<Daemon>,
    away: RaftSettings,
    /// Lines written so far, and the last of them.
    count: usize,
    last: LogPosition,
}

async fn one_behind(folders: &[Folder; 3]) -> OneBehind {
    let mut settings = settings(folders).await;
    for one in &mut settings {
        one.log = LogBounds {
            snapshot_entries: 20,
            keep_entries: 5,
            ..LogBounds::default()
        };
    }
    let mut here = Vec::new();
    for one in &settings {
        here.push(begin(one).await);
    }
    healthy(&here.iter().collect::<Vec<_>>()).await;
    let behind = (leader(&here.iter().collect::<Vec<_>>()).await + 1) % 3;
    here.remove(behind).handle.shutdown().await;
    let mut last = LogPosition::default();
    let mut count = 0;
    // Until both have cut what the third one lacks: when they do is openraft's choice.
    while count < 100
        || here
            .iter()
            .any(|daemon| daemon.handle.status().purged < Some(50))
    {
        last = propose(&here.iter().collect::<Vec<_>>(), &format!("line {count}")).await;
        count += 1;
        assert!(count < 10_000, "the log is never cut");
    }
    OneBehind {
        here,
        away: settings.swap_remove(behind),
        count,
        last,
    }
}

#[test]
fn a_follower_that_is_far_behind_gets_a_snapshot() {
    run(async {
        let folders: [Folder; 3] = folders("behind");
        let OneBehind {
            here,
            away,
            count,
            last,
        } = one_behind(&folders).await;
        let back = begin(&away).await;
        let all: Vec<&Daemon> = here.iter().chain([&back]).collect();
        assert_eq!(same(&all, last).await.len(), count);
        assert!(
            back.state.borrow().installed > 0,
            "it was sent the log, so the log was not cut"
        );
        // The snapshot is durable: a restart begins from it.
        back.handle.shutdown().await;
        let again = begin(&away).await;
        assert!(again.state.borrow().installed > 0);
        assert_eq!(same(&[&again], last).await.len(), count);
        again.handle.shutdown().await;
        for daemon in &here {
            daemon.handle.shutdown().await;
        }
    });
}

/// A leader that is to send it reads the file, and the state that it is of is in memory.
#[test]
fn a_snapshot_that_is_damaged_while_a_daemon_runs_is_written_anew() {
    run(async {
        let folders: [Folder; 3] = folders("rotten");
        let OneBehind {
            here,
            away,
            count,
            last,
        } = one_behind(&folders).await;
        // No daemon has a reason of its own to write another one after it was damaged.
        same(&here.iter().collect::<Vec<_>>(), last).await;
        for daemon in &here {
            daemon.handle.make_snapshot().await.unwrap();
        }
        let mut files = Vec::new();
        for folder in &folders {
            let path = folder.0.join("snapshot");
            if folder.0 == away.data_dir {
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            files.push((path, bytes));
        }
        let back = begin(&away).await;
        let all: Vec<&Daemon> = here.iter().chain([&back]).collect();
        assert_eq!(same(&all, last).await.len(), count);
        let is_mended = files
            .iter()
            .any(|(path, damaged)| std::fs::read(path).unwrap() != *damaged);
        assert!(is_mended, "the leader's file is as it was damaged");
        for daemon in all {
            daemon.handle.shutdown().await;
        }
    });
}

#[test]
fn leadership_is_given_away_on_a_clean_stop() {
    run(async {
        let folders: [Folder; 3] = folders("transfer");
        let settings = settings_of(&folders, STEADY_MS).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        healthy(&daemons.iter().collect::<Vec<_>>()).await;
        let (leads, epoch) = led(&daemons.iter().collect::<Vec<_>>()).await;
        let old = daemons.remove(leads);
        old.handle.step_down().await.unwrap();
        let here: Vec<&Daemon> = daemons.iter().collect();
        let (_, next) = led(&here).await;
        assert!(next.term > epoch.term);
        old.handle.shutdown().await;
        // A hand-over that nobody is left for would take its whole time.
        for daemon in &daemons {
            daemon.handle.vanish().await;
        }
    });
}

/// A hand-over that ran out of time before anybody was asked to take over is none.
#[test]
fn leadership_that_nobody_was_asked_to_take_stays() {
    run(async {
        let folders: [Folder; 3] = folders("handover");
        let settings = settings_of(&folders, STEADY_MS).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        let all: Vec<&Daemon> = daemons.iter().collect();
        healthy(&all).await;
        let (leads, epoch) = led(&all).await;
        let leads = all[leads];
        // Somebody was promised more time than the hand-over has.
        let promised = TokioEnv::mono() + PATIENCE;
        leads.handle.confirm_until(promised);
        let why = leads.handle.step_down().await.unwrap_err();
        assert!(why.contains("no voter took over"), "{why}");
        let mut watch = leads.handle.watch();
        let again = watch.wait_for(|summary| summary.leading.is_some());
        let again = within("it leads again", again).await.unwrap().leading;
        assert_eq!(again, Some(epoch));
        // A hand-over that nobody is left for would take its whole time.
        for daemon in &daemons {
            daemon.handle.vanish().await;
        }
    });
}

#[test]
fn messages_of_the_layer_above_travel() {
    run(async {
        let folders: [Folder; 3] = folders("messages");
        let settings = settings_of(&folders, STEADY_MS).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        healthy(&daemons.iter().collect::<Vec<_>>()).await;
        let from = daemons[0].handle.node_id();
        daemons[0].handle.broadcast(b"hello");
        for daemon in &mut daemons[1..] {
            let message = within("a broadcast arrives", daemon.report.messages.recv())
                .await
                .unwrap();
            assert_eq!((message.from, message.bytes), (from, b"hello".to_vec()));
            assert!(message.reply.is_none());
        }
        let (to, asker) = (daemons[1].handle.node_id(), daemons[0].handle.clone());
        let (answered, answer) = oneshot::channel();
        spawn::<TokioEnv>(async move {
            let _ = answered.send(asker.ask(to, b"how".to_vec(), PATIENCE).await);
        });
        let question = within("a question arrives", daemons[1].report.messages.recv())
            .await
            .unwrap();
        question.reply.unwrap().send(b"well".to_vec()).unwrap();
        assert_eq!(
            within("an answer", answer).await.unwrap(),
            Ok(b"well".to_vec())
        );
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

/// Getting past an entry at which this daemon failed once clears the record; a second failure ends the trying.
#[test]
fn an_entry_that_failed_twice_is_not_tried_again() {
    run(async {
        let folder = Folder::make("failed-entry");
        let settings = RaftSettings::new(&folder.0, "127.0.0.1:0");
        let alone = begin(&settings).await;
        leader(&[&alone]).await;
        let at = propose(&[&alone], "x").await;
        alone.handle.failed_at(at, "it broke").await;
        alone.handle.shutdown().await;

        let again = begin(&settings).await;
        leader(&[&again]).await;
        propose(&[&again], "y").await;
        assert!(!folder.0.join("broken-entry").exists());
        for _ in 0..2 {
            again.handle.failed_at(at, "it broke").await;
        }
        again.handle.shutdown().await;
        let held = refused_start(&settings).await;
        assert!(matches!(held, StartError::Held(_)), "{held}");
        assert!(held.to_string().contains("it broke"), "{held}");

        std::fs::remove_file(folder.0.join("broken-entry")).unwrap();
        let freed = begin(&settings).await;
        leader(&[&freed]).await;
        freed.handle.shutdown().await;
    });
}

#[test]
fn a_directory_belongs_to_one_process_and_one_cluster() {
    run(async {
        let folder = Folder::make("directory");
        let settings = RaftSettings::new(&folder.0, "127.0.0.1:0");
        let mut looked = settings.clone();
        let known = look::<TokioEnv>(&mut looked).await.unwrap();
        let alone = begin(&looked).await;
        assert_eq!(alone.report.node, known.node);
        leader(&[&alone]).await;
        let at = propose(&[&alone], "x").await;
        let twice = try_start(settings.clone()).await.err().unwrap();
        assert!(matches!(twice, StartError::InUse(_)), "{twice}");
        let checked = look::<TokioEnv>(&mut looked).await;
        assert!(matches!(checked, Err(StartError::InUse(_))), "{checked:?}");
        alone.handle.shutdown().await;
        let look = async {
            loop {
                match look::<TokioEnv>(&mut looked).await {
                    Ok(known) => return known,
                    Err(error) => assert!(matches!(error, StartError::InUse(_)), "{error}"),
                }
                sleep::<TokioEnv>(LOOK).await;
            }
        };
        let again = within("it is unused", look).await;
        assert_eq!(again.node, known.node);
        assert_eq!(again.cluster, alone.handle.cluster());

        let cluster = alone.handle.cluster();
        let with = |cluster, at| RaftSettings {
            backend: Some(BackendPosition {
                cluster,
                at: Some(at),
                digest_ok: true,
            }),
            ..settings.clone()
        };
        let foreign = refused_start(&with(Some(ClusterId([9; 32])), at)).await;
        assert!(matches!(foreign, StartError::Refused(_)), "{foreign}");
        let ahead = LogPosition {
            index: at.index + 1000,
            ..at
        };
        let ahead = refused_start(&with(cluster, ahead)).await;
        assert!(matches!(ahead, StartError::Refused(_)), "{ahead}");
        assert!(ahead.to_string().contains("went back"), "{ahead}");
        // A refused start lets go of everything.
        let again = begin(&with(cluster, at)).await;
        assert_eq!(
            again.report.decision,
            StartDecision::Replay { from: Some(at) }
        );
        again.handle.shutdown().await;
    });
}

#[test]
fn an_identity_that_went_back_is_refused_and_retires() {
    run(async {
        let folders: [Folder; 3] = folders("back");
        let settings = settings(&folders).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        healthy(&daemons.iter().collect::<Vec<_>>()).await;
        // A backup of a follower's directory is taken, life goes on through two more starts, the backup is restored.
        let victim = (leader(&daemons.iter().collect::<Vec<_>>()).await + 1) % 3;
        daemons.remove(victim).handle.shutdown().await;
        let backup = copy(&folders[victim]);
        for _ in 0..2 {
            let back = begin(&settings[victim]).await;
            let here = [daemons.iter().collect(), vec![&back]].concat();
            healthy(&here).await;
            // It was heard by the others in this start before it goes.
            let at = propose(&here, "more").await;
            same(&here, at).await;
            for daemon in &daemons {
                hears(daemon, &back).await;
            }
            back.handle.shutdown().await;
        }
        restore(&backup, &folders[victim]);
        let back = begin(&settings[victim]).await;
        let reason = within("it ends", back.handle.failed()).await;
        assert!(
            reason.contains("went back") && reason.contains("retired"),
            "{reason}"
        );
        assert!(!back.handle.summary().healthy);
        back.handle.shutdown().await;
        // The next start sets its files aside and is somebody else, who waits to be let in.
        let again = begin(&settings[victim]).await;
        assert_ne!(again.report.node, back.report.node);
        assert_eq!(again.report.cluster, None);
        let aside = folders[victim]
            .0
            .join(format!("retired-{}", back.report.node));
        assert!(aside.join("identity").exists() && aside.join("raft.sqlite").exists());
        again.handle.shutdown().await;
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

fn copy(folder: &Folder) -> BTreeMap<String, Vec<u8>> {
    let names = TokioEnv::list_dir(&folder.0).unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(folder.0.join(name)).unwrap()))
        .collect()
}

fn restore(files: &BTreeMap<String, Vec<u8>>, folder: &Folder) {
    for name in TokioEnv::list_dir(&folder.0).unwrap() {
        std::fs::remove_file(folder.0.join(name)).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.0.join(name), bytes).unwrap();
    }
}

#[test]
fn damage_is_a_refused_start_that_names_the_remedy() {
    run(async {
        let damage = |name: &'static str| async move {
            let folder = Folder::make("damage");
            let settings = RaftSettings {
                log: LogBounds {
                    snapshot_entries: 3,
                    keep_entries: 0,
                    ..LogBounds::default()
                },
                ..RaftSettings::new(&folder.0, "127.0.0.1:0")
            };
            let alone = begin(&settings).await;
            // Until the log was cut, so that the snapshot is needed.
            let mut count = 0;
            while count < 10 || alone.handle.status().purged.is_none() {
                propose(&[&alone], &count.to_string()).await;
                count += 1;
                assert!(count < 10_000, "the log is never cut");
            }
            // One that is being written takes the place of the damaged one.
            alone.handle.make_snapshot().await.unwrap();
            alone.handle.shutdown().await;
            let path = folder.0.join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let error = refused_start(&settings).await;
            assert!(matches!(error, StartError::Damaged(_)), "{name}: {error}");
            assert!(
                error.to_string().contains("move the directory away"),
                "{error}"
            );
            std::fs::remove_file(&path).unwrap();
            let error = refused_start(&settings).await;
            assert!(
                matches!(error, StartError::Damaged(_)),
                "{name} missing: {error}"
            );
        };
        damage("identity").await;
        damage("snapshot").await;
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_a_refused_start_that_names_it() {
    run(async {
        let folder = Folder::make("no-directory");
        let file = folder.0.join("file");
        std::fs::write(&file, b"").unwrap();
        let settings = RaftSettings::new(file.join("raft"), "127.0.0.1:0");
        let error = try_start(settings).await.err().unwrap();
        let text = error.to_string();
        assert!(
            matches!(error, StartError::Io(_))
                && text.contains(&file.display().to_string())
                && text.contains("start again"),
            "{text}"
        );
    });
}

#[test]
fn strangers_and_noise_do_not_disturb() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let folder = Folder::make("noise");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        leader(&[&alone]).await;
        let term = alone.handle.leading().unwrap().term;
        let (own, cluster) = (alone.report.node.0, alone.handle.cluster());
        let hello = wire::encode_frame(
            &Hello {
                sender: stranger(77, Some(ClusterId([9; 32]))),
                to: own,
                invites: false,
            },
            wire::HANDSHAKE,
        )
        .unwrap();
        let version = wire::HANDSHAKE;
        let mut noises = vec![
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![255; 100],
            // Another version, and ours with nothing behind it, less than was promised, or more than is allowed.
            vec![0, 0, 0, 1, version + 1],
            vec![0, 0, 0, 1, version],
            vec![0, 0, 0, 9, version, 2, 3],
            vec![0, 0, 0x40, 1, version, 0, 0],
            vec![0xff, 0xff, 0xff, 0xff, version],
        ];
        // What the decoder makes of a frame of ours in which one bit is wrong, that ends early, or goes on.
        for place in 5..hello.len() {
            let mut changed = hello.clone();
            changed[place] ^= 1 << (place % 8);
            noises.push(changed);
            let short = u8::try_from(place - 4).unwrap();
            noises.push([&[0, 0, 0, short], &hello[4..place]].concat());
        }
        let mut long = hello.clone();
        long[3] += 1;
        long.push(0);
        noises.push(long);
        for noise in &noises {
            let mut stream = TokioEnv::connect(&alone.report.listening).await.unwrap();
            stream.write_all(noise).await.unwrap();
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            // Closed by the daemon, with or without an answer that says why.
            let _ = within("the daemon closes", stream.read_to_end(&mut rest)).await;
        }
        // Behind a handshake that is accepted, where requests are decoded: the connection ends, and nothing else.
        let request = wire::encode_frame(&ask_for_vote(77), wire::HANDSHAKE).unwrap();
        let mut noises = vec![
            vec![0, 0, 0, 1, version],
            vec![0x00, 0x80, 0x00, 0x01, version],
            [&[0, 0, 1, 0, version][..], &[255; 255]].concat(),
            vec![0, 0, 1, 0, version, 1],
        ];
        for place in 5..request.len() {
            let short = u8::try_from(place - 4).unwrap();
            noises.push([&[0, 0, 0, short], &request[4..place]].concat());
        }
        for noise in &noises {
            let hello = Hello {
                sender: stranger(77, cluster),
                to: own,
                invites: false,
            };
            let (answer, mut stream) = knock(plain(&alone.report.listening).await, &hello).await;
            assert_eq!(answer.refusal, None);
            stream.write_all(noise).await.unwrap();
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = within("the daemon closes", stream.read_to_end(&mut rest)).await;
            assert_eq!(rest, Vec::<u8>::new(), "{noise:?}");
        }
        propose(&[&alone], "still here").await;
        assert_eq!(alone.handle.leading().unwrap().term, term);
        alone.handle.shutdown().await;
    });
}

/// A connection that nothing was said on, without TLS.
async fn plain(address: &str) -> <TokioEnv as Env>::Stream {
    TokioEnv::connect(address).await.unwrap()
}

/// Says this on a connection; what it is answered.
async fn knock<S>(mut stream: S, hello: &Hello) -> (HelloAnswer, S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let form = wire::opening(wire::PROTOCOLS);
    let hello = wire::encode_handshake(hello, form, wire::PROTOCOLS).unwrap();
    wire::write_frame(&mut stream, &hello).await.unwrap();
    let frame = within(
        "an answer",
        wire::read_frame(&mut stream, wire::HELLO_BYTES_MAX),
    )
    .await
    .unwrap();
    let (answer, _) = wire::decode_handshake(&frame, wire::PROTOCOLS).unwrap();
    (answer.message, stream)
}

/// Takes what somebody says who opens a connection, and answers this.
async fn reply_to_knock<S>(mut stream: S, answer: &HelloAnswer) -> S
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let frame = wire::read_frame(&mut stream, wire::HELLO_BYTES_MAX)
        .await
        .unwrap();
    let (_, form) = wire::decode_handshake::<Hello>(&frame, wire::PROTOCOLS).unwrap();
    let answer = wire::encode_handshake(answer, form, wire::PROTOCOLS).unwrap();
    wire::write_frame(&mut stream, &answer).await.unwrap();
    stream
}

/// The answer to one request, or the error with which the connection ended.
async fn request(
    stream: &mut <TokioEnv as Env>::Stream,
    request: &wire::Request,
) -> std::io::Result<wire::Response> {
    let protocol = wire::HANDSHAKE;
    wire::write_frame(stream, &wire::encode_frame(request, protocol)?).await?;
    let frame = within("an answer", wire::read_frame(stream, wire::FRAME_BYTES_MAX)).await?;
    wire::decode_frame(&frame, protocol)
}

/// An introduction as a node that is not running, with a log that is beyond everybody's.
fn stranger(node: u64, cluster: Option<ClusterId>) -> wire::Introduction {
    wire::Introduction {
        node,
        cluster: cluster.map(|cluster| cluster.0),
        boot: 1_000,
        instance: 1,
        term: 1_000,
        last: Some(wire::LogIdV1 {
            term: 1_000,
            index: 1_000,
        }),
        advertise: String::new(),
        http_uri: String::new(),
        version: 1,
        empty: false,
        listed: Vec::new(),
    }
}

fn ask_for_vote(node: u64) -> wire::Request {
    let last = Some(wire::LogIdV1 {
        term: 1_000,
        index: 1_000,
    });
    wire::Request::Vote {
        vote: wire::VoteV1 {
            term: 1_001,
            node,
            committed: false,
        },
        last,
        transfer: true,
    }
}

#[test]
fn nobody_is_listened_to_before_both_sides_are_named() {
    run(async {
        let folder = Folder::make("handshake");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        leader(&[&alone]).await;
        let (own, cluster, address) = (
            alone.report.node.0,
            alone.handle.cluster(),
            alone.report.listening.as_str(),
        );
        let check = |to: u64, cluster: Option<ClusterId>, wanted: Option<wire::RefusalKind>| async move {
            let hello = Hello {
                sender: stranger(77, cluster),
                to,
                invites: false,
            };
            let (answer, mut stream) = knock(plain(address).await, &hello).await;
            assert_eq!(answer.sender.node, own);
            assert_eq!(answer.refusal.map(|refusal| refusal.kind), wanted);
            if wanted.is_some() || to == 0 {
                // Nothing that follows is processed.
                assert!(request(&mut stream, &ask_for_vote(77)).await.is_err());
            }
        };
        check(own + 1, cluster, Some(wire::RefusalKind::OtherNode)).await;
        check(
            own,
            Some(ClusterId([9; 32])),
            Some(wire::RefusalKind::OtherCluster),
        )
        .await;
        check(own, None, Some(wire::RefusalKind::OtherCluster)).await;
        check(0, cluster, None).await;
        check(own, cluster, None).await;
        // A later start from elsewhere, while the one before was heard a moment ago, may be a copy. Whoever asks who is here hears it.
        let sender = stranger(77, cluster);
        let hello = Hello {
            sender: wire::Introduction {
                boot: sender.boot + 1,
                instance: sender.instance + 1,
                advertise: "127.0.0.1:9".to_owned(),
                ..sender
            },
            to: 0,
            invites: false,
        };
        let (answer, _) = knock(plain(address).await, &hello).await;
        assert_eq!(answer.refusal, None);
        let why = answer.remark.expect("it is not listened to");
        assert!(
            why.contains("is listened to once that one is silent"),
            "{why}"
        );
        assert_eq!(
            alone.handle.summary().term,
            alone.handle.leading().unwrap().term
        );
        assert!(
            alone.handle.summary().term < 1_000,
            "a request was processed that must not be"
        );
        alone.handle.shutdown().await;
    });
}

/// Whoever is heard is obeyed for itself only: no request in which another's name decides who leads is processed.
#[test]
fn nobody_speaks_for_another() {
    run(async {
        let folder = Folder::make("in-the-name-of");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        leader(&[&alone]).await;
        let (own, term) = (alone.report.node.0, alone.handle.summary().term);
        let hello = Hello {
            sender: stranger(77, alone.handle.cluster()),
            to: own,
            invites: false,
        };
        let (answer, mut stream) = knock(plain(&alone.report.listening).await, &hello).await;
        assert_eq!(answer.refusal, None);
        let last = hello.sender.last;
        let by = |node: u64, committed: bool| wire::VoteV1 {
            term: 1_001,
            node,
            committed,
        };
        // Also in the name of who is asked.
        for node in [88, own] {
            let requests = [
                wire::Request::Append {
                    vote: by(node, true),
                    prev: None,
                    entries: Vec::new(),
                    commit: None,
                },
                ask_for_vote(node),
                wire::Request::PreVote {
                    vote: by(node, false),
                    last,
                },
                wire::Request::Transfer {
                    from: by(node, true),
                    to: own,
                    last,
                },
                wire::Request::SnapshotBegin {
                    vote: by(node, true),
                    last,
                    membership: wire::StoredMembershipV1 {
                        at: last,
                        membership: wire::MembershipV1 {
                            voters: vec![BTreeSet::from([77])],
                            members: BTreeSet::from([77]),
                        },
                    },
                    bytes: 0,
                    digest: [0; 32],
                },
            ];
            for asked in requests {
                let answer = request(&mut stream, &asked).await.unwrap();
                let wire::Response::Failed(why) = answer else {
                    panic!("{asked:?} was answered with {answer:?}");
                };
                assert!(
                    why.contains(&format!("in the name of node {}", NodeId(node))),
                    "{why}"
                );
            }
        }
        assert_eq!(alone.handle.summary().term, term);
        // For itself it is heard.
        let answer = request(&mut stream, &ask_for_vote(77)).await.unwrap();
        assert!(matches!(answer, wire::Response::Vote { .. }), "{answer:?}");
        alone.handle.shutdown().await;
    });
}

/// Connects as a node that is not running; the answers to what it says follow on the stream.
async fn as_stranger(daemon: &Daemon, node: u64) -> <TokioEnv as Env>::Stream {
    let hello = Hello {
        sender: stranger(node, daemon.handle.cluster()),
        to: daemon.report.node.0,
        invites: false,
    };
    let (answer, stream) = knock(plain(&daemon.report.listening).await, &hello).await;
    assert_eq!(answer.refusal, None);
    stream
}

fn begin_snapshot(term: u64, last: Option<wire::LogIdV1>, data: &[u8]) -> wire::Request {
    begin_snapshot_of(77, term, last, data)
}

/// The beginning of a snapshot of a node that leads in `term`, up to `last`.
fn begin_snapshot_of(
    node: u64,
    term: u64,
    last: Option<wire::LogIdV1>,
    data: &[u8],
) -> wire::Request {
    wire::Request::SnapshotBegin {
        vote: wire::VoteV1 {
            term,
            node,
            committed: true,
        },
        last,
        membership: wire::StoredMembershipV1 {
            at: last,
            membership: wire::MembershipV1 {
                voters: vec![BTreeSet::from([77])],
                members: BTreeSet::from([77]),
            },
        },
        bytes: data.len() as u64,
        digest: Sha256::digest(data).into(),
    }
}

/// Sends a snapshot whole, as node 77; what its end is answered.
async fn send_snapshot(
    stream: &mut <TokioEnv as Env>::Stream,
    term: u64,
    last: wire::LogIdV1,
    data: &[u8],
) -> wire::Response {
    let piece = wire::Request::SnapshotPiece {
        offset: 0,
        bytes: data.to_vec(),
    };
    for (asked, held) in [
        (begin_snapshot(term, Some(last), data), 0),
        (piece, data.len()),
    ] {
        let answer = request(stream, &asked).await.unwrap();
        assert_eq!(answer, wire::Response::SnapshotHeld(held as u64));
    }
    request(stream, &wire::Request::SnapshotEnd).await.unwrap()
}

/// A leader of an earlier term is told of the later one at once: what its snapshot covers never comes.
#[test]
fn a_snapshot_of_a_former_leader_is_answered_with_the_higher_vote() {
    run(async {
        let folder = Folder::make("former-leader");
        let settings = RaftSettings {
            check_image: any_image,
            ..RaftSettings::new(&folder.0, "127.0.0.1:0")
        };
        let alone = begin(&settings).await;
        leader(&[&alone]).await;
        let mut stream = as_stranger(&alone, 77).await;
        let last = wire::LogIdV1 {
            term: 0,
            index: 1_000,
        };
        let answer = send_snapshot(&mut stream, 0, last, b"12345678").await;
        let wire::Response::SnapshotInstalled(vote) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(
            (vote.term, vote.node),
            (alone.handle.summary().term, alone.report.node.0)
        );
        alone.handle.shutdown().await;
    });
}

/// A daemon starts from its snapshot: one that it cannot read does not replace it, and its sender is told.
#[test]
fn a_snapshot_that_cannot_be_read_is_not_kept() {
    use orchestrator_core::replicated::Replicated;
    run(async {
        let folder = Folder::make("unreadable");
        let settings = RaftSettings::new(&folder.0, "127.0.0.1:0");
        let alone = begin(&settings).await;
        leader(&[&alone]).await;
        propose(&[&alone], "x").await;
        let last = wire::LogIdV1 {
            term: 1_000,
            index: 1_000,
        };
        let mut stream = as_stranger(&alone, 77).await;
        // No state, and one that stands elsewhere.
        let elsewhere = [&[0; 8][..], &Replicated::default().encode_snapshot()].concat();
        for data in [b"12345678rubbish".to_vec(), elsewhere] {
            let answer = send_snapshot(&mut stream, 1_001, last, &data).await;
            let wire::Response::Failed(why) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains("up to entry 1000 cannot be read"), "{why}");
        }
        assert!(!folder.0.join("snapshot").exists());
        let at = propose(&[&alone], "y").await;
        assert_eq!(same(&[&alone], at).await, ["x", "y"]);
        alone.handle.shutdown().await;
        let again = begin(&settings).await;
        leader(&[&again]).await;
        again.handle.shutdown().await;
    });
}

/// Each is held in memory whole: there is room for two, and those whose senders may be gone make it.
#[test]
fn few_snapshots_are_received_at_one_time() {
    run(async {
        let folder = Folder::make("many-snapshots");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        leader(&[&alone]).await;
        let last = Some(wire::LogIdV1 {
            term: 1_000,
            index: 1_000,
        });
        let mut streams = Vec::new();
        for node in [77, 77, 78, 79] {
            streams.push((node, as_stranger(&alone, node).await));
        }
        let taken = wire::Response::SnapshotHeld;
        let mut sent = [0; 4];
        // Whose the places are after each has begun.
        for (begins, have) in [
            (0, &[0][..]),
            (1, &[1]),
            (2, &[1, 2]),
            (3, &[2, 3]),
            (0, &[3, 0]),
        ] {
            let (node, stream) = &mut streams[begins];
            let asked = begin_snapshot_of(*node, 1_001, last, b"12345678");
            assert_eq!(request(stream, &asked).await.unwrap(), taken(0));
            sent[begins] = 0;
            for place in 0..streams.len() {
                let has_begun = sent[place] > 0 || place == begins;
                if !has_begun {
                    continue;
                }
                let piece = wire::Request::SnapshotPiece {
                    offset: sent[place],
                    bytes: b"1".to_vec(),
                };
                let answer = request(&mut streams[place].1, &piece).await.unwrap();
                if have.contains(&place) {
                    sent[place] += 1;
                    assert_eq!(answer, taken(sent[place]), "{begins}: {place}");
                } else {
                    let wire::Response::Failed(why) = answer else {
                        panic!("{begins}: {place}: {answer:?}");
                    };
                    assert!(why.contains("gave way"), "{why}");
                }
            }
        }
        alone.handle.shutdown().await;
    });
}

/// What would be a fault of a log is refused in words, and the daemon goes on.
#[test]
fn a_snapshot_that_contradicts_what_is_known_ends_nobody() {
    run(async {
        let folder = Folder::make("contradiction");
        let settings = RaftSettings {
            check_image: any_image,
            ..RaftSettings::new(&folder.0, "127.0.0.1:0")
        };
        let alone = begin(&settings).await;
        leader(&[&alone]).await;
        propose(&[&alone], "x").await;
        let term = alone.handle.summary().term;
        let mut stream = as_stranger(&alone, 77).await;
        let id = |term: u64, index: u64| wire::LogIdV1 { term, index };
        let later = begin_snapshot(1_001, Some(id(1_002, 1_000)), b"12345678");
        let nothing = begin_snapshot(1_001, None, b"12345678");
        let short = begin_snapshot(1_001, Some(id(1_000, 1_000)), b"1234567");
        for (asked, wanted) in [
            (later, "a snapshot of a later term than its own"),
            (nothing, "a snapshot of no entries"),
            (short, "a snapshot that is too short"),
        ] {
            let answer = request(&mut stream, &asked).await.unwrap();
            let wire::Response::Failed(why) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains(wanted), "{why}");
        }
        // Another entry where one is committed.
        let answer = send_snapshot(&mut stream, 1_001, id(1_000, 1), b"12345678").await;
        let wire::Response::Failed(why) = answer else {
            panic!("{answer:?}");
        };
        assert!(why.contains("entry 1 of term 1000"), "{why}");
        let at = propose(&[&alone], "y").await;
        assert_eq!(same(&[&alone], at).await, ["x", "y"]);
        assert_eq!(alone.handle.summary().term, term);
        alone.handle.shutdown().await;
    });
}

/// A refusal that ends a daemon, or its identity for good, is not taken from whoever answers at an address.
#[test]
fn nobody_is_ended_by_who_is_no_member() {
    run(async {
        let folder = Folder::make("ended-by");
        let alone = begin(&RaftSettings::new(&folder.0, "127.0.0.1:0")).await;
        leader(&[&alone]).await;
        let node = &alone.handle.node;
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let place = TokioEnv::local_address(&listener).unwrap();
        let mut refuse = async |wanted: u64, kind: wire::RefusalKind| {
            let answer = HelloAnswer {
                sender: stranger(77, alone.handle.cluster()),
                refusal: Some(wire::Refusal {
                    kind,
                    text: "go away".to_owned(),
                }),
                remark: None,
            };
            let answering = async {
                let (stream, _) = TokioEnv::accept(&mut listener).await.unwrap();
                reply_to_knock(stream, &answer).await
            };
            let dialling = link::greet(node, &place, wanted);
            let (_stream, greeted) =
                within("a greeting", async { tokio::join!(answering, dialling) }).await;
            let why = greeted.err().expect("it is refused").to_string();
            assert!(why.contains("go away"), "{why}");
            let retired = node.identity.lock().unwrap().retired.clone();
            retired.or_else(|| node.fatal.borrow().clone())
        };
        let kinds = [wire::RefusalKind::WentBack, wire::RefusalKind::Twice];
        for kind in kinds {
            assert_eq!(refuse(0, kind).await, None, "{kind:?}");
        }
        assert!(alone.handle.leading().is_some());
        // Who was meant is believed.
        let why = refuse(77, wire::RefusalKind::Twice).await;
        assert!(why.is_some_and(|why| why.contains("go away")));
        alone.handle.shutdown().await;
    });
}

#[test]
fn a_restarted_voter_gives_no_vote_at_first() {
    run(async {
        let folders: [Folder; 3] = folders("withheld");
        let settings = settings(&folders).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        healthy(&daemons.iter().collect::<Vec<_>>()).await;
        let other = daemons[1].report.node.0;
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
        // Alone again, with a timeout that no test outlasts: a candidate with every right to its vote does not get it.
        let patient = RaftSettings {
            election_timeout_ms: 3_600_000,
            ..settings[0].clone()
        };
        let voter = begin(&patient).await;
        let hello = Hello {
            sender: stranger(other, voter.handle.cluster()),
            to: voter.report.node.0,
            invites: false,
        };
        let (answer, mut stream) = knock(plain(&voter.report.listening).await, &hello).await;
        assert_eq!(answer.refusal, None);
        let vote = request(&mut stream, &ask_for_vote(other)).await.unwrap();
        assert!(
            matches!(vote, wire::Response::Vote { granted: false, .. }),
            "{vote:?}"
        );
        let wire::Request::Vote { vote, last, .. } = ask_for_vote(other) else {
            unreachable!()
        };
        let asked = request(&mut stream, &wire::Request::PreVote { vote, last })
            .await
            .unwrap();
        assert!(
            matches!(asked, wire::Response::Vote { granted: false, .. }),
            "{asked:?}"
        );
        assert!(voter.handle.summary().term < 1_000);
        voter.handle.shutdown().await;
        // The same request to the same voter once its promises have run out is granted, so it was a good one.
        let voter = begin(&settings[0]).await;
        let (_, mut stream) = knock(plain(&voter.report.listening).await, &hello).await;
        sleep_until::<TokioEnv>(voter.handle.votes_from()).await;
        let vote = request(&mut stream, &ask_for_vote(other)).await.unwrap();
        assert!(
            matches!(vote, wire::Response::Vote { granted: true, .. }),
            "{vote:?}"
        );
        voter.handle.shutdown().await;
    });
}

#[test]
fn a_restarted_leader_is_elected_anew() {
    run(async {
        let folder = Folder::make("restore");
        let settings = RaftSettings::new(&folder.0, "127.0.0.1:0");
        let alone = begin(&settings).await;
        leader(&[&alone]).await;
        let before = alone.handle.leading().unwrap();
        alone.handle.shutdown().await;
        let again = begin(&settings).await;
        leader(&[&again]).await;
        let after = again.handle.leading().unwrap();
        assert!(
            after.term > before.term && after.boot == before.boot + 1,
            "{before} then {after}"
        );
        again.handle.shutdown().await;
    });
}

#[test]
fn a_leader_that_vanishes_is_replaced() {
    run(async {
        let folders: [Folder; 3] = folders("vanish");
        let settings = settings(&folders).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        let everybody: Vec<&Daemon> = daemons.iter().collect();
        healthy(&everybody).await;
        let (leads, epoch) = led(&everybody).await;
        let gone = daemons.remove(leads);
        let begun = TokioEnv::mono();
        gone.handle.vanish().await;
        let here: Vec<&Daemon> = daemons.iter().collect();
        let (_, next) = led(&here).await;
        assert!(next.term > epoch.term);
        println!("a new leader after {:?}", TokioEnv::mono() - begun);
        let at = propose(&here, "goes on").await;
        same(&here, at).await;
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

/// What the function that says who leads is for: openraft's leader goes on in that state without a quorum, for ever.
#[test]
fn a_leader_that_is_cut_off_is_openrafts_leader_and_does_not_lead() {
    run(async {
        let folders: [Folder; 3] = folders("cut-off");
        let settings = settings_of(&folders, STEADY_MS).await;
        let mut daemons = Vec::new();
        for one in &settings {
            daemons.push(begin(one).await);
        }
        let everybody: Vec<&Daemon> = daemons.iter().collect();
        healthy(&everybody).await;
        let leads = leader(&everybody).await;
        let alone = daemons.remove(leads);
        assert!(alone.handle.is_openrafts_leader());
        for gone in &daemons {
            gone.handle.vanish().await;
        }
        let mut watch = alone.handle.watch();
        let deposed = watch.wait_for(|summary| summary.leading.is_none());
        drop(within("it notices", deposed).await.unwrap());
        let proposed = alone
            .handle
            .propose(b"nobody hears".to_vec(), Duration::from_secs(3))
            .await;
        assert!(!matches!(proposed, Proposed::Done { .. }));
        assert!(alone.handle.is_openrafts_leader());
        assert!(alone.handle.leading().is_none());
        alone.handle.vanish().await;
    });
}

/// The members as this daemon's raft committed them last, and the entry that made them so.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
struct Seated {
    members: Members,
    at: LogPosition,
}

/// Waits until a daemon applied these voters.
async fn seated(daemon: &Daemon, voters: &[&[NodeId]]) -> Seated {
    let wanted: Vec<BTreeSet<NodeId>> = voters
        .iter()
        .map(|set| set.iter().copied().collect())
        .collect();
    let mut state = daemon.state.clone();
    let held = within(
        "the voters are these",
        state.wait_for(|state| state.seated.members.voters == wanted),
    )
    .await;
    held.unwrap().seated.clone()
}

fn members_of(voters: &[&[NodeId]], learners: &[NodeId]) -> Members {
    Members {
        voters: voters
            .iter()
            .map(|set| set.iter().copied().collect())
            .collect(),
        learners: learners.iter().copied().collect(),
    }
}

/// Three that are a cluster, and a fourth that is not.
async fn three_and_a_stranger(folders: &[Folder; 4]) -> (Vec<Daemon>, Daemon) {
    let all = settings(folders).await;
    let mut three = Vec::new();
    for one in &all[..3] {
        let mut one = one.clone();
        one.nodes.truncate(3);
        three.push(begin(&one).await);
    }
    healthy(&three.iter().collect::<Vec<_>>()).await;
    (three, begin(&all[3]).await)
}

/// Waits until a daemon sees another one answer at its address.
async fn sees(daemon: &Daemon, other: NodeId) {
    let look = async {
        loop {
            let sight = daemon.handle.sight();
            let seen = sight.nodes.get(&other);
            if seen.is_some_and(|seen| seen.answers.is_some()) {
                return;
            }
            sleep::<TokioEnv>(LOOK).await;
        }
    };
    within("a newcomer is seen", look).await;
}

const SEAT: Duration = Duration::from_secs(30);

/// Asks whoever leads until these are the members. It may stop leading meanwhile, and what it was asked may then be done, or
/// not.
async fn make(daemons: &[&Daemon], wanted: &Members, invited: &BTreeSet<NodeId>) -> Seated {
    let asking = async {
        loop {
            let leading = daemons[leader(daemons).await];
            let held = leading.state.borrow().seated.clone();
            if held.members == *wanted {
                return held;
            }
            let seating = leading.handle.seat(held.at, wanted, invited, SEAT);
            if seating.await.is_err() {
                sleep::<TokioEnv>(LOOK).await;
            }
        }
    };
    within("these are the members", asking).await
}

/// Whoever leads refuses these members: not because it leads no more.
async fn is_refused(daemons: &[&Daemon], base: LogPosition, members: &Members) {
    let nobody = BTreeSet::new();
    let asking = async {
        loop {
            let (leads, epoch) = led(daemons).await;
            let handle = &daemons[leads].handle;
            let seating = handle.seat(base, members, &nobody, SEAT);
            assert!(seating.await.is_err(), "{members:?} from {base}");
            if handle.leading() == Some(epoch) {
                return;
            }
        }
    };
    within("somebody refuses", asking).await;
}

#[test]
fn a_newcomer_joins_as_a_learner_gets_the_log_and_votes() {
    run(async {
        let folders: [Folder; 4] = folders("joins");
        let (three, fourth) = three_and_a_stranger(&folders).await;
        let everybody: Vec<&Daemon> = three.iter().collect();
        let at = propose(&everybody, "before").await;
        let leading = &three[leader(&everybody).await];
        let newcomer = fourth.report.node;
        // It waits, and says for what; nobody was disturbed by it.
        let mut watch = fourth.handle.watch();
        let waits = watch.wait_for(|summary| {
            let reason = summary.reason.as_deref().unwrap_or_default();
            reason.contains("waits for a member of it to let it in")
        });
        drop(within("it waits", waits).await.unwrap());
        sees(leading, newcomer).await;
        let ids: Vec<NodeId> = three.iter().map(|daemon| daemon.report.node).collect();
        let first = seated(leading, &[&ids]).await;
        let nobody = BTreeSet::new();

        // A learner holds the log and has no vote.
        let learning = members_of(&[&ids], &[newcomer]);
        let held = make(&everybody, &learning, &BTreeSet::from([newcomer])).await;
        assert_eq!(same(&[leading, &fourth], at).await, ["before"]);
        assert_eq!(fourth.handle.cluster(), leading.handle.cluster());
        assert_eq!(fourth.handle.summary().state, RaftState::Learner);
        assert!(!fourth.handle.summary().healthy);

        // Decided from an entry that is not the last one: refused, whatever it says.
        is_refused(&everybody, first.at, &members_of(&[&ids], &[])).await;

        // Voters are changed by way of both sets, one entry at a time.
        let gone = &three[(leader(&everybody).await + 1) % 3];
        let stay: Vec<&Daemon> = three
            .iter()
            .filter(|daemon| daemon.report.node != gone.report.node)
            .chain([&fourth])
            .collect();
        let next: Vec<NodeId> = stay.iter().map(|daemon| daemon.report.node).collect();
        is_refused(&everybody, held.at, &members_of(&[&next], &[])).await;
        let all: Vec<&Daemon> = three.iter().chain([&fourth]).collect();
        let both = members_of(&[&ids, &next], &[]);
        make(&all, &both, &nobody).await;
        // There it stays until somebody finishes it.
        make(&all, &members_of(&[&next], &[]), &nobody).await;
        seated(&fourth, &[&next]).await;
        healthy(&[&fourth]).await;
        let at = propose(&stay, "after").await;
        assert_eq!(same(&stay, at).await, ["before", "after"]);

        // The one that was removed still runs and disturbs nobody: no election is won and no term grows by it. A busy machine
        // may bring elections, but not for ever.
        let terms = || stay.iter().map(|daemon| daemon.handle.summary().term);
        let calm = async || {
            let (leads, epoch) = led(&stay).await;
            let before: Vec<u64> = terms().collect();
            sleep::<TokioEnv>(Duration::from_secs(5)).await;
            terms().eq(before) && stay[leads].handle.leading() == Some(epoch)
        };
        let mut windows = 0;
        while !calm().await {
            windows += 1;
            assert!(windows < 12, "there are elections without end");
        }
        assert_eq!(gone.handle.leading(), None);
        assert!(!gone.handle.summary().healthy);
        for daemon in three.iter().chain([&fourth]) {
            daemon.handle.shutdown().await;
        }
    });
}

#[test]
fn the_next_leader_finishes_what_another_left_in_two_sets() {
    run(async {
        let folders: [Folder; 4] = folders("halves");
        let (three, fourth) = three_and_a_stranger(&folders).await;
        let everybody: Vec<&Daemon> = three.iter().collect();
        let newcomer = fourth.report.node;
        sees(&three[leader(&everybody).await], newcomer).await;
        let ids: Vec<NodeId> = three.iter().map(|daemon| daemon.report.node).collect();
        let next: Vec<NodeId> = ids.iter().copied().chain([newcomer]).collect();
        let (nobody, invited) = (BTreeSet::new(), BTreeSet::from([newcomer]));
        make(&everybody, &members_of(&[&ids], &[newcomer]), &invited).await;
        let mut left: Vec<&Daemon> = three.iter().chain([&fourth]).collect();
        make(&left, &members_of(&[&ids, &next], &[]), &nobody).await;
        let (leads, left_by) = led(&left).await;
        left.remove(leads).handle.vanish().await;
        let (leads, finished_by) = led(&left).await;
        assert_ne!(finished_by.node, left_by.node);
        seated(left[leads], &[&ids, &next]).await;
        make(&left, &members_of(&[&next], &[]), &nobody).await;
        let at = propose(&left, "goes on").await;
        same(&left, at).await;
        for daemon in left {
            daemon.handle.shutdown().await;
        }
    });
}

#[test]
fn nobody_is_let_into_a_cluster_that_its_list_does_not_lead_to() {
    run(async {
        let folder = Folder::make("uninvited");
        let alone = RaftSettings {
            nodes: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
            ..RaftSettings::new(&folder.0, "127.0.0.1:0")
        };
        let waiting = begin(&alone).await;
        let hello = Hello {
            sender: stranger(77, Some(ClusterId([9; 32]))),
            to: waiting.report.node.0,
            invites: true,
        };
        let (answer, mut stream) = knock(plain(&waiting.report.listening).await, &hello).await;
        let refusal = answer.refusal.unwrap();
        assert!(
            refusal.text.contains("none of this node's RaftNodes"),
            "{}",
            refusal.text
        );
        assert!(request(&mut stream, &ask_for_vote(77)).await.is_err());
        assert_eq!(waiting.handle.cluster(), None);
        waiting.handle.shutdown().await;
    });
}

/// Keeps the compiler honest: what the driver holds must be usable from any thread.
#[test]
fn a_handle_is_shared_between_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<RaftHandle<TokioEnv>>();
}
/// Certificates of one authority for a host.
fn certificates(folder: &Folder, host: &str) -> TlsFiles {
    init_certificates(&folder.0, &[String::from(host)]).unwrap();
    TlsFiles {
        certificate: folder.0.join(format!("{host}.pem")),
        key: folder.0.join(format!("{host}.key")),
        authorities: folder.0.join("ca.pem"),
    }
}

#[test]
fn members_with_certificates_speak_tls() {
    run(async {
        let folders = folders::<3>("tls");
        let keys = Folder::make("tls-keys");
        let settings = settings(&folders).await;
        let files = certificates(&keys, host_of(&settings[0].bind));
        let settings: Vec<RaftSettings> = settings
            .into_iter()
            .map(|settings| RaftSettings {
                tls: Some(files.clone()),
                tls_refuses_plain: true,
                ..settings
            })
            .collect();
        let mut daemons = Vec::new();
        for settings in &settings {
            daemons.push(begin(settings).await);
        }
        let all: Vec<&Daemon> = daemons.iter().collect();
        leader(&all).await;
        propose(&all, "x").await;
        healthy(&all).await;

        // Without TLS nobody is heard, not even to be introduced: the connection ends without a word.
        let mut plain = TokioEnv::connect(&settings[0].nodes[0]).await.unwrap();
        wire::write_frame(&mut plain, &[0; 64]).await.unwrap();
        let answer = within(
            "an end",
            wire::read_frame(&mut plain, wire::HELLO_BYTES_MAX),
        )
        .await;
        assert!(answer.is_err());
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

/// A cluster is moved to TLS member by member: who has certificates goes on with who has none.
#[test]
fn a_cluster_may_be_half_way_to_tls() {
    run(async {
        let folders = folders::<3>("half-tls");
        let keys = Folder::make("half-tls-keys");
        let mut settings = settings(&folders).await;
        let files = certificates(&keys, host_of(&settings[0].bind));
        settings[0].tls = Some(files.clone());
        settings[1].tls = Some(files);
        let mut daemons = Vec::new();
        for settings in &settings {
            daemons.push(begin(settings).await);
        }
        let all: Vec<&Daemon> = daemons.iter().collect();
        leader(&all).await;
        propose(&all, "x").await;
        healthy(&all).await;
        for daemon in &daemons {
            daemon.handle.shutdown().await;
        }
    });
}

type Met = (io::Result<Result<(), String>>, io::Result<()>);

/// Has one side dial the other; what each of them makes of it.
async fn meet(
    listener: &mut <TokioEnv as Env>::Listener,
    server: &Security,
    client: &Security,
) -> Met {
    let address = TokioEnv::local_address(listener).unwrap();
    let accept = async {
        let (stream, _) = TokioEnv::accept(listener).await.unwrap();
        let mut wire = server.accept::<TokioEnv>(stream).await?;
        // TLS 1.3 tells of a refused certificate with what comes next.
        let read = wire::read_frame(&mut wire, 64).await;
        read.map(|_| wire.vouches_for(&address))
    };
    let connect = async {
        let mut wire = client.connect::<TokioEnv>(&address).await?;
        wire::write_frame(&mut wire, &wire::encode_frame(&7_u64, 3).unwrap()).await
    };
    within("a meeting", async { tokio::join!(accept, connect) }).await
}

/// A connection that nothing was said on, of whoever has these certificates.
async fn secured(security: &Security, address: &str) -> Wire<<TokioEnv as Env>::Stream> {
    let connecting = security.connect::<TokioEnv>(address);
    within("a connection", connecting).await.unwrap()
}

/// Members at hosts of their own, each with its own certificate. A node that was one of them keeps a certificate that is
/// valid, and is not heard as another: neither when it dials nor when it is dialled, and nothing that is kept of that one
/// changes.
#[test]
fn a_node_is_no_other_by_its_certificate() {
    run(async {
        let folders = folders::<3>("impostor");
        let keys = Folder::make("impostor-keys");
        let hosts: [String; 3] = std::array::from_fn(|_| own_host());
        let mut settings = settings_at(&hosts, &folders, HASTY_MS).await;
        for (one, host) in settings.iter_mut().zip(&hosts) {
            one.tls = Some(certificates(&keys, host));
            one.tls_refuses_plain = true;
        }
        let nodes = settings[0].nodes.clone();
        let mut daemons = Vec::new();
        for settings in &settings {
            daemons.push(begin(settings).await);
        }
        let all: Vec<&Daemon> = daemons.iter().collect();
        leader(&all).await;
        healthy(&all).await;
        let (n1, n2) = (&daemons[0], &daemons[1]);
        let (own, other, cluster) = (n1.report.node.0, n2.report.node.0, n1.handle.cluster());
        let boot_of = |node: u64| boot_heard(n1, NodeId(node));
        hears(n1, n2).await;

        // It was a member once: it is known where it is.
        let host = own_host();
        let listener = TokioEnv::bind(&format!("{host}:0")).await.unwrap();
        let place = TokioEnv::local_address(&listener).unwrap();
        let security = Security::new(Some(certificates(&keys, &host)), true);
        let hello = |node: u64, to: u64| Hello {
            sender: wire::Introduction {
                advertise: place.clone(),
                ..stranger(node, cluster)
            },
            to,
            invites: false,
        };
        let (answer, _) = knock(secured(&security, &nodes[0]).await, &hello(77, own)).await;
        assert_eq!(answer.refusal, None);
        assert_eq!(boot_of(77), Some(1_000));
        // As another it is refused, also when it only asks who is there.
        for to in [own, 0] {
            let (answer, _) = knock(secured(&security, &nodes[0]).await, &hello(other, to)).await;
            let refusal = answer.refusal.expect("it is refused");
            assert_eq!(refusal.kind, wire::RefusalKind::OtherNode);
            assert!(
                refusal.text.contains(&NodeId(77).to_string()),
                "{}",
                refusal.text
            );
            assert_eq!(boot_of(other), Some(n2.report.boot));
        }
        // It is shown with the one that it claims to be, which is as healthy as before.
        let shown = n1.handle.peers();
        let shown = shown.iter().find(|member| member.node.0 == other).unwrap();
        let why = shown.impostor.as_deref().unwrap_or_default();
        assert!(why.contains(&NodeId(77).to_string()), "{why}");
        assert_eq!(shown.refusal, None);
        // Neither is it heard as another where it answers.
        let answering = async {
            let mut listener = listener;
            let (stream, _) = TokioEnv::accept(&mut listener).await.unwrap();
            let stream = security.accept::<TokioEnv>(stream).await.unwrap();
            let answer = HelloAnswer {
                sender: hello(other, 0).sender,
                refusal: None,
                remark: None,
            };
            reply_to_knock(stream, &answer).await
        };
        let dialling = link::greet(&n1.handle.node, &place, 0);
        let (_stream, greeted) =
            within("a greeting", async { tokio::join!(answering, dialling) }).await;
        let why = greeted.err().expect("it is not believed").to_string();
        assert!(why.contains("its certificate is for"), "{why}");
        assert_eq!(boot_of(other), Some(n2.report.boot));

        // The members go on, and one that is started again is who it was.
        n2.handle.shutdown().await;
        let again = begin(&settings[1]).await;
        let all = [n1, &again, &daemons[2]];
        leader(&all).await;
        healthy(&all).await;
        hears(n1, &again).await;
        for daemon in all {
            daemon.handle.shutdown().await;
        }
    });
}

/// A certificate of the right authority for another host is nobody's here, whichever side shows it.
#[test]
fn a_certificate_is_for_one_host() {
    run(async {
        let keys = Folder::make("one-host");
        let right = Security::new(Some(certificates(&keys, "127.0.0.1")), true);
        let wrong = Security::new(Some(certificates(&keys, "node9")), true);
        let elsewhere = Folder::make("another-authority");
        let foreign = Security::new(Some(certificates(&elsewhere, "127.0.0.1")), true);
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let (accepted, connected) = meet(&mut listener, &right, &right).await;
        assert_eq!((accepted.unwrap(), connected.unwrap()), (Ok(()), ()));
        let (_, connected) = meet(&mut listener, &wrong, &right).await;
        assert!(connected.is_err(), "it is not the host that was dialled");
        let (accepted, _) = meet(&mut listener, &right, &wrong).await;
        let why = accepted.unwrap().unwrap_err();
        assert!(why.contains("is not for 127.0.0.1"), "{why}");
        let (accepted, _) = meet(&mut listener, &right, &foreign).await;
        assert!(accepted.is_err(), "it is another authority's");
    });
}
