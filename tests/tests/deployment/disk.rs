//! The disk of the raft data directory fails, on real file systems.

use std::fs;
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_applied, wait_members};
use orchestrator_tests::disk::Disk;
use orchestrator_tests::process::Scratch;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

use super::{DEADLINE, PATIENCE, TURN};

/// A change that takes longer counts as not acknowledged.
const GLANCE: Duration = Duration::from_secs(2);

/// Three daemons, each with its raft data directory on one of these.
async fn start(disks: &[Disk]) -> Daemons {
    let mut options = DaemonOptions::default_configuration();
    for disk in disks {
        let own = json!({"RaftDataDir": disk.path().join("raft")});
        options
            .own
            .push(own.as_object().expect("an object").clone());
    }
    let daemons = Daemons::start(&options).expect("daemons");
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    wait_members(&all, PATIENCE).await.expect("three members");
    daemons
}

/// Tags servers at the leader until the condition holds; how many of them were acknowledged.
async fn tag_until(daemons: &Daemons, what: &str, mut holds: impl AsyncFnMut() -> bool) -> usize {
    let (began, mut acknowledged) = (Instant::now(), 0);
    while !holds().await {
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        if let Some(leader) = daemons.leader().await {
            let tag = format!("/api/tag/db{acknowledged}/3306?tag=kept");
            let reply = leader.get(&tag, GLANCE).await;
            acknowledged += usize::from(reply.is_ok_and(|reply| reply.status == 200));
        }
    }
    acknowledged
}

async fn holds_all(daemon: &Daemon, acknowledged: usize) {
    let looked = until(
        "what was acknowledged is there",
        PATIENCE,
        Duration::from_millis(100),
        async || match daemon.get("/api/tagged?tag=kept", DEADLINE).await {
            Ok(reply) => {
                let tagged: Value = reply.json().unwrap_or_default();
                let found = tagged.as_array().map_or(0, Vec::len);
                if found >= acknowledged {
                    Look::Holds(())
                } else {
                    Look::not(format!("{found} of {acknowledged}"))
                }
            }
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    looked.await.expect("nothing lost");
}

/// The leader's disk is full: it ends and says what to do, another one leads, and it comes back when there is room. One whose
/// disk can only be read is not started, and says so.
#[tokio::test]
async fn a_full_disk_ends_a_daemon_and_loses_nothing() {
    let _turn = TURN.lock().await;
    let scratch = Scratch::create("disks").expect("a folder");
    let disks = [1, 2, 3].map(|number| {
        Disk::in_memory(&scratch.path().join(format!("disk{number}")), 8).expect("a disk")
    });
    let daemons = start(&disks).await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let place = daemons
        .all()
        .iter()
        .position(|one| one.url() == leader.url());
    let disk = &disks[place.expect("one of them")];
    disk.fill().expect("filled");
    let before = tag_until(&daemons, "it ends", async || !leader.is_running()).await;
    let log = fs::read_to_string(leader.log()).expect("a log");
    assert!(log.contains("free the disk or replace it"), "{log}");
    let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
    holds_all(next, before).await;

    disk.make_room().expect("room");
    disk.protect().expect("protected");
    leader.start().expect("started");
    let code = leader.wait_ended(PATIENCE).await.expect("it ends");
    assert!(code.is_some_and(|code| code > 0), "{code:?}");
    let log = fs::read_to_string(leader.log()).expect("a log");
    let last = log.lines().last().unwrap_or_default();
    let named = disk.path().display().to_string();
    assert!(last.contains(&named) && last.contains("ead-only"), "{last}");

    disk.unprotect().expect("unprotected");
    leader.start().expect("started");
    wait_applied(&daemons, leader, PATIENCE)
        .await
        .expect("back");
    holds_all(leader, before).await;
}

/// The leader's disk hangs, and its network does not: its followers hear it, and it leads no more all the same.
#[tokio::test]
async fn a_leader_whose_disk_hangs_leads_no_more() {
    let _turn = TURN.lock().await;
    let scratch = Scratch::create("disks").expect("a folder");
    let disks = [1, 2, 3].map(|number| {
        Disk::in_file(&scratch.path().join(format!("disk{number}")), 32).expect("a disk")
    });
    let daemons = start(&disks).await;
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let place = daemons
        .all()
        .iter()
        .position(|one| one.url() == leader.url());
    let disk = &disks[place.expect("one of them")];
    let hung = disk.freeze().expect("frozen");
    let frozen = Instant::now();
    let mut led_after = None;
    let is_led = async || {
        let next = daemons.leader().await;
        let is_other = next.is_some_and(|next| next.url() != leader.url());
        if is_other && led_after.is_none() {
            led_after = Some(frozen.elapsed());
        }
        is_other
    };
    let acknowledged = tag_until(&daemons, "another one leads", is_led).await;
    println!("another one leads {led_after:?} after the disk hung");
    let more = tag_until(&daemons, "more is decided", {
        let began = Instant::now();
        async move || began.elapsed() > Duration::from_secs(10)
    })
    .await;
    assert!(more > 0, "nothing is decided");
    let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
    holds_all(next, acknowledged.max(more)).await;

    drop(hung);
    let starts = leader.start_until_healthy(PATIENCE).await.expect("healthy");
    println!("healthy again after {starts} starts");
    wait_applied(&daemons, leader, PATIENCE)
        .await
        .expect("back");
}

/// A daemon whose file system fails under it says so with its last words and ends; the other two go on, and lose nothing. On
/// the mended file system it is what it was.
async fn a_file_system_fails(fail: fn(&Disk) -> anyhow::Result<()>) {
    let _turn = TURN.lock().await;
    let scratch = Scratch::create("disks").expect("a folder");
    let disks = [1, 2, 3].map(|number| {
        Disk::in_file(&scratch.path().join(format!("disk{number}")), 32).expect("a disk")
    });
    let daemons = start(&disks).await;
    // First of the leader, then of a follower.
    for is_leader in [true, false] {
        let leader = daemons.wait_leader(PATIENCE).await.expect("a leader").url();
        let mut places = daemons.all().iter();
        let place = places
            .position(|one| (one.url() == leader) == is_leader)
            .expect("one of them");
        let (struck, disk) = (&daemons.all()[place], &disks[place]);
        let node = struck.node().await.expect("an identity");
        fail(disk).expect("it fails");
        let before = tag_until(&daemons, "it ends", async || !struck.is_running()).await;
        let code = struck.wait_ended(PATIENCE).await.expect("it ends");
        assert!(code.is_some_and(|code| code > 0), "{code:?}");
        let log = fs::read_to_string(struck.log()).expect("a log");
        let last = log.lines().last().unwrap_or_default();
        let named = disk.path().display().to_string();
        assert!(
            [
                "cannot be written",
                "free the disk or replace it",
                named.as_str()
            ]
            .iter()
            .all(|part| last.contains(part)),
            "{last}"
        );
        // It is not started on what failed, either, and says which directory that is.
        struck.start().expect("started");
        let code = struck.wait_ended(PATIENCE).await.expect("it ends");
        assert!(code.is_some_and(|code| code > 0), "{code:?}");
        let log = fs::read_to_string(struck.log()).expect("a log");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(&named), "{last}");
        let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
        holds_all(next, before).await;
        let more = tag_until(&daemons, "more is decided", {
            let mut asked = 0;
            async move || {
                asked += 1;
                asked > 5
            }
        })
        .await;
        assert!(more > 0, "nothing is decided by the other two");

        disk.mend().expect("mended");
        struck.start().expect("started");
        wait_applied(&daemons, struck, PATIENCE)
            .await
            .expect("back");
        holds_all(struck, before.max(more)).await;
        assert_eq!(struck.node().await.expect("an identity"), node);
        let all: Vec<&Daemon> = daemons.all().iter().collect();
        wait_members(&all, PATIENCE).await.expect("three members");
    }
}

#[tokio::test]
async fn a_file_system_that_turns_read_only_ends_its_daemon_and_loses_nothing() {
    a_file_system_fails(Disk::damage).await;
}

#[tokio::test]
async fn a_file_system_with_errors_ends_its_daemon_and_loses_nothing() {
    a_file_system_fails(Disk::break_off).await;
}
