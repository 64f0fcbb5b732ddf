//! Members that come and go, with real daemons on loopback: a wiped one, one replaced by another by restarts or in one step,
//! one that is missing at first, and a cluster of which only one memory or one backend is left.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orchestrator_tests::daemons::{
    Daemon, DaemonOptions, Daemons, Reply, wait_applied, wait_members,
};
use orchestrator_tests::process::Signal;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

mod lost;
mod replaced;

const PATIENCE: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(5);
/// Whoever would campaign does so some times in it.
const WATCHED: Duration = Duration::from_secs(15);
/// What one is told that was taken out online, whose former members' files still name it.
const LEFT: &str = "is no member since the members were changed last";
/// A user, and a group, that every machine has and nobody is.
const NOBODY: u32 = 65_534;

fn options(spare: u8, late: u8) -> DaemonOptions {
    // A machine that is busy with other things does not lose its members by it.
    let mut options = DaemonOptions {
        spare,
        late,
        ..DaemonOptions::steady()
    };
    let silent = String::from("RaftReplaceSilentSeconds");
    options.settings.insert(silent, json!(8));
    options
}

async fn members(daemons: &[&Daemon]) -> Result<()> {
    wait_members(daemons, PATIENCE).await
}

async fn says(daemon: &Daemon, path: &str, wanted: &str) -> Result<()> {
    let what = format!("{}{path} says '{wanted}'", daemon.url());
    until(
        &what,
        PATIENCE,
        Duration::from_millis(100),
        async || match daemon.get(path, ASK).await {
            Ok(reply) if reply.body.contains(wanted) => Look::Holds(()),
            Ok(reply) => Look::not(format!("{} {}", reply.status, reply.body)),
            Err(error) => Look::not(error),
        },
    )
    .await
}

/// The same of its health, with status 500: both are of one answer.
async fn says_unhealthy(daemon: &Daemon, wanted: &str) -> Result<()> {
    let what = format!("{} is unhealthy and says '{wanted}'", daemon.url());
    let pace = Duration::from_millis(100);
    until(&what, PATIENCE, pace, async || {
        match daemon.get("/api/raft-health", ASK).await {
            Ok(reply) if reply.status == 500 && reply.body.contains(wanted) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        }
    })
    .await
}

/// Has something decided that must not be lost.
async fn write(daemons: &Daemons, name: &str) -> Result<()> {
    daemons
        .ask_leader(&format!("/api/tag/{name}/3306/written/once"))
        .await
        .map(drop)
}

/// The same, and whatever else people say of a server.
async fn write_each_kind(daemons: &Daemons, name: &str) -> Result<()> {
    write(daemons, name).await?;
    for change in [
        format!("/api/async-discover/{name}/3306"),
        format!("/api/begin-downtime/{name}/3306/anna/disk/2h"),
        format!("/api/register-candidate/{name}/3306/prefer_not"),
        String::from("/api/disable-global-recoveries"),
    ] {
        daemons.ask_leader(&change).await?;
    }
    Ok(())
}

/// The leader knows all that was decided.
async fn holds(daemons: &Daemons, names: &[&str]) -> Result<()> {
    let tagged = daemons.ask_leader("/api/tagged?tag=written").await?;
    let found: Vec<&str> = tagged
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| key["Hostname"].as_str())
        .collect();
    for name in names {
        ensure!(found.contains(name), "{name} is lost: {tagged}");
    }
    Ok(())
}

/// The servers that are tagged by what the daemon has in its own file.
fn tagged_in_file(daemon: &Daemon) -> Result<Vec<String>> {
    let file = rusqlite::Connection::open(daemon.database())?;
    let query = "SELECT DISTINCT hostname FROM database_instance_tags ORDER BY hostname";
    let mut query = file.prepare(query)?;
    let names = query.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

#[tokio::test]
async fn a_hangup_has_the_file_read_again() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    daemons.wait_leader(PATIENCE).await?;
    for daemon in daemons.all() {
        says(daemon, "/api/automated-recovery-filters", r#"["*"]"#).await?;
    }
    for daemon in daemons.all() {
        daemon.set("RecoverMasterClusterFilters", json!(["shop"]))?;
        daemon.set("ListenAddress", json!(":1"))?;
        daemon.signal(Signal::Hangup);
    }
    // The policy is obeyed by all; what waits for a restart is named.
    for daemon in daemons.all() {
        says(daemon, "/api/automated-recovery-filters", r#"["shop"]"#).await?;
        let what = "what waits for a restart is named";
        until(
            what,
            PATIENCE,
            Duration::from_millis(50),
            async || match std::fs::read_to_string(daemon.log()) {
                Ok(log) if log.contains("ListenAddress") => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        )
        .await?;
    }
    // A file that cannot be used changes nothing, and ends nobody.
    for daemon in daemons.all() {
        daemon.set("RecoverMasterClusterFilters", json!(7))?;
        daemon.signal(Signal::Hangup);
    }
    for daemon in daemons.all() {
        let what = format!("{} refuses its file", daemon.url());
        until(
            &what,
            PATIENCE,
            Duration::from_millis(50),
            async || match std::fs::read_to_string(daemon.log()) {
                Ok(log) if log.contains("configuration not reloaded") => Look::Holds(()),
                Ok(log) => Look::not(log),
                Err(error) => Look::not(error),
            },
        )
        .await?;
        says(daemon, "/api/automated-recovery-filters", r#"["shop"]"#).await?;
        ensure!(daemon.is_running(), "{} ended", daemon.url());
    }
    Ok(())
}

#[tokio::test]
async fn a_wiped_daemon_comes_back_and_one_is_replaced_by_another() -> Result<()> {
    let daemons = Daemons::start(&options(1, 0))?;
    let [n1, n2, n3, n4] = daemons.all() else {
        anyhow::bail!("four daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    // Everybody is known by name.
    until(
        "every member is described",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let Ok(status) = n1.status().await else {
                return Look::not("no answer");
            };
            let rows = status["Members"].as_array().cloned().unwrap_or_default();
            if rows
                .iter()
                .all(|row| row["AppVersion"] != "" && row["Hostname"] != "")
            {
                Look::Holds(())
            } else {
                Look::not(format!("{rows:?}"))
            }
        },
    )
    .await?;
    write(&daemons, "before").await?;

    // Killed and provisioned anew: it waits for its place, unhealthy, with the reason on both sides.
    n3.kill().await?;
    n3.wipe()?;
    n3.start()?;
    says_unhealthy(n3, "RaftReplaceSilentSeconds").await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "between").await?;

    // Node 4 takes the place of node 3, which is stopped.
    n3.kill().await?;
    for daemon in [n1, n2, n4] {
        daemon.set_nodes(&[n1, n2, n4])?;
    }
    // The one that was stopped may have led.
    let leader = daemons.wait_leader(PATIENCE).await?;
    let before = leader.status().await?["Term"].clone();
    n4.start()?;
    says(n4, "/api/raft-health", "RaftNodes").await?;
    ensure!(n4.get("/api/leader-check", PATIENCE).await?.status == 404);
    ensure!(
        leader.status().await?["Term"] == before,
        "the stranger cost a term"
    );
    n1.kill().await?;
    n1.start()?;
    says(n4, "/api/raft-health", "1 of 3 members").await?;
    n2.kill().await?;
    let restarted = Instant::now();
    n2.start()?;
    members(&[n1, n2, n4]).await?;
    println!("whole after {:?}", restarted.elapsed());
    write(&daemons, "after").await?;
    // The newcomer has everything itself, and not by asking the leader.
    until(
        "node 4 holds all data",
        PATIENCE,
        Duration::from_millis(100),
        async || match tagged_in_file(n4) {
            Ok(names) if names == ["after", "before", "between"] => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    )
    .await?;

    // Any one of them may be lost, the leader too, and comes back.
    let mut names = vec!["before", "between", "after"];
    for (lost, name) in [(n4, "without-n4"), (n1, "without-n1"), (n2, "without-n2")] {
        lost.kill().await?;
        write(&daemons, name).await?;
        names.push(name);
        holds(&daemons, &names).await?;
        lost.start()?;
        members(&[n1, n2, n4]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_which_one_memory_is_left_is_recovered_by_hand() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    let [n1, n2, n3] = daemons.all() else {
        anyhow::bail!("three daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "kept").await?;
    wait_applied(&daemons, n1, PATIENCE).await?;
    for daemon in [n2, n3] {
        daemon.kill().await?;
        daemon.wipe()?;
        daemon.start()?;
    }
    says(n1, "/api/raft-health", "raft recover").await?;
    let former = n1.status().await?;

    // Refused while the daemon runs; says what it would do; does it.
    let recover = ["raft", "recover", "--from-raft-dir"];
    let (is_done, said) = n1.run(&recover)?;
    ensure!(!is_done && said.contains("in use"), "{said}");
    n1.kill().await?;
    // Typed by root, it leaves what it makes to the user that the daemon runs as.
    let files = || -> Result<Vec<PathBuf>> {
        let folder = n1.folder().join("raft");
        let mut files = vec![folder.clone(), n1.database()];
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
        Ok(files)
    };
    for file in files()? {
        chown(file, Some(NOBODY), Some(NOBODY))?;
    }
    let are_nobodys = || -> Result<()> {
        for file in files()?.iter().filter(|file| file.exists()) {
            let found = fs::metadata(file)?;
            let owner = (found.uid(), found.gid());
            ensure!(owner == (NOBODY, NOBODY), "{}: {owner:?}", file.display());
        }
        Ok(())
    };
    let (is_done, said) = n1.run(&recover)?;
    ensure!(is_done && said.contains("nothing was changed"), "{said}");
    are_nobodys()?;
    let (is_done, said) = n1.run(&["raft", "recover", "--from-raft-dir", "--yes"])?;
    ensure!(is_done && said.contains("before-recovery-"), "{said}");
    are_nobodys()?;
    n1.start()?;
    // The others wait with empty directories, and are let in since the list of the only member names them.
    members(&[n1, n2, n3]).await?;
    let status = n1.status().await?;
    ensure!(status["Cluster"] != former["Cluster"] && status["Node"] != former["Node"]);
    holds(&daemons, &["kept"]).await
}

#[tokio::test]
async fn two_of_three_form_a_cluster_on_an_operators_word() -> Result<()> {
    let daemons = Daemons::start(&options(0, 1))?;
    let [n1, n2, n3] = daemons.all() else {
        anyhow::bail!("three daemons");
    };
    for daemon in [n1, n2] {
        says(daemon, "/api/raft-health", "waiting for").await?;
    }
    ensure!(
        daemons.leader().await.is_none(),
        "two of three formed by themselves"
    );
    let with = format!("{},{}", n1.raft(), n2.raft());
    let words = ["raft", "form", "--with", &with];
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| n1.run(&words));
        let second = scope.spawn(|| n2.run(&words));
        (first.join(), second.join())
    });
    for outcome in [first, second] {
        let (is_done, said) = outcome.ok().context("a thread ended")??;
        ensure!(is_done && said.contains("the cluster is formed"), "{said}");
    }
    members(&[n1, n2]).await?;
    write(&daemons, "before").await?;
    // The third one is in everybody's list, and is let in when it comes.
    n3.start()?;
    members(&[n1, n2, n3]).await?;
    holds(&daemons, &["before"]).await
}

#[tokio::test]
async fn a_cluster_of_which_one_backend_is_left_is_recovered_by_hand() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    let [n1, n2, n3] = daemons.all() else {
        anyhow::bail!("three daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "kept").await?;
    daemons.ask_leader("/api/disable-global-recoveries").await?;
    wait_applied(&daemons, n1, PATIENCE).await?;
    let former = n1.status().await?;
    // Told to stop, it writes its backend first.
    n1.signal(Signal::Terminate);
    n1.wait_ended(PATIENCE).await?;
    n1.wipe_raft()?;
    for daemon in [n2, n3] {
        daemon.kill().await?;
        daemon.wipe()?;
    }

    let (is_done, said) = n1.run(&["raft", "recover", "--from-raft-dir"])?;
    ensure!(!is_done && said.contains("holds no raft node"), "{said}");
    let (is_done, said) = n2.run(&["raft", "recover", "--from-backend", "--yes"])?;
    ensure!(!is_done && said.contains("does not exist"), "{said}");
    let (is_done, said) = n1.run(&["raft", "recover", "--from-backend"])?;
    ensure!(is_done && said.contains("nothing was changed"), "{said}");
    ensure!(said.contains("1 of database_instance_tags"), "{said}");
    let (is_done, said) = n1.run(&["raft", "recover", "--from-backend", "--yes"])?;
    ensure!(is_done && said.contains("before-recovery-"), "{said}");
    for daemon in [n1, n2, n3] {
        daemon.start()?;
    }
    members(&[n1, n2, n3]).await?;
    ensure!(n1.status().await?["Cluster"] != former["Cluster"]);
    holds(&daemons, &["kept"]).await?;
    let stop = daemons.ask_leader("/api/check-global-recoveries").await?;
    ensure!(
        stop.to_string().contains("disabled"),
        "the stop of all recoveries is lost: {stop}"
    );
    Ok(())
}

/// The rows of a daemon's backend.
fn rows(daemon: &Daemon, query: &str) -> Result<Vec<String>> {
    let database = rusqlite::Connection::open(daemon.database())?;
    let mut statement = database.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn a_cluster_of_which_one_file_is_left_is_recovered_by_hand() -> Result<()> {
    let daemons = Daemons::start(&options(0, 0))?;
    let [n1, n2, n3] = daemons.all() else {
        anyhow::bail!("three daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write_each_kind(&daemons, "kept").await?;
    wait_applied(&daemons, n1, PATIENCE).await?;
    let former = n1.status().await?;

    // Of a running daemon its newest snapshot is taken, of which there is none at first; never over a file.
    let file = n1.folder().join("kept");
    let name = file.display().to_string();
    let export = ["raft", "export", name.as_str()];
    let (is_done, said) = n1.run(&export)?;
    ensure!(
        !is_done && said.contains("/api/raft-snapshot") && !file.exists(),
        "{said}"
    );
    let nowhere = n1.folder().join("no-such-folder");
    let (is_done, said) = n1.run(&[
        "raft",
        "export",
        &nowhere.join("kept").display().to_string(),
    ])?;
    ensure!(
        !is_done && said.contains(&nowhere.display().to_string()) && !nowhere.exists(),
        "{said}"
    );
    let reply = n1.get("/api/raft-snapshot", PATIENCE).await?;
    ensure!(reply.status == 200, "{}", reply.body);
    let (is_done, said) = n1.run(&export)?;
    ensure!(
        is_done && said.contains("NOT what was decided since") && said.contains(&n3.raft()),
        "{said}"
    );
    let bytes = fs::read(&file)?;
    let (is_done, said) = n1.run(&export)?;
    ensure!(!is_done && said.contains("is there already"), "{said}");
    ensure!(fs::read(&file)? == bytes, "the file was written over");
    write(&daemons, "later").await?;
    wait_applied(&daemons, n2, PATIENCE).await?;

    // Of one that does not run, all that its directory holds.
    n2.kill().await?;
    let all = n2.folder().join("all");
    let (is_done, said) = n2.run(&["raft", "export", &all.display().to_string()])?;
    ensure!(is_done && !said.contains("NOT"), "{said}");
    ensure!(
        fs::read(&all)?.windows(5).any(|part| part == b"later"),
        "what was decided last is not exported"
    );

    // Two machines are gone for good, and the third has lost its disk.
    for daemon in [n1, n3] {
        daemon.kill().await?;
    }
    for daemon in [n1, n2, n3] {
        daemon.wipe()?;
    }
    let from = |file: &str| n1.run(&["raft", "recover", "--from-file", file, "--yes"]);
    for (what, bytes, wanted) in [
        ("cut", bytes[..bytes.len() - 1].to_vec(), "damaged"),
        ("empty", Vec::new(), "damaged"),
        ("changed", changed(&bytes, bytes.len() / 2), "damaged"),
        ("foreign", vec![b'{'; 5_000], "damaged"),
    ] {
        let wrong = n1.folder().join(what);
        fs::write(&wrong, bytes)?;
        let (is_done, said) = from(&wrong.display().to_string())?;
        ensure!(
            !is_done && said.contains(wanted) && said.contains("Nothing was changed"),
            "{what}: {said}"
        );
    }
    let (is_done, said) = from("missing")?;
    ensure!(!is_done && said.contains("missing"), "{said}");
    let recover = ["raft", "recover", "--from-file", name.as_str()];
    let (is_done, said) = n1.run(&recover)?;
    ensure!(
        is_done && said.contains("nothing was changed") && said.contains("LOST"),
        "{said}"
    );
    let (is_done, said) = from(&name)?;
    ensure!(is_done && said.contains("before-recovery-"), "{said}");
    for daemon in [n1, n2, n3] {
        daemon.start()?;
    }
    members(&[n1, n2, n3]).await?;
    ensure!(n1.status().await?["Cluster"] != former["Cluster"]);
    // All of it is with all of them, and nothing else.
    holds(&daemons, &["kept"]).await?;
    for daemon in [n1, n2, n3] {
        wait_applied(&daemons, daemon, PATIENCE).await?;
        for (query, wanted) in [
            ("select hostname from database_instance_tags", "kept"),
            (
                "select hostname || owner || reason from database_instance_downtime",
                "keptannadisk",
            ),
            (
                "select hostname || promotion_rule from candidate_database_instance",
                "keptprefer_not",
            ),
            (
                "select cast(disable_recovery as text) from global_recovery_disable",
                "1",
            ),
        ] {
            let what = format!("{}: {query}", daemon.url());
            until(
                &what,
                PATIENCE,
                Duration::from_millis(100),
                async || match rows(daemon, query) {
                    Ok(rows) if rows == [wanted] => Look::Holds(()),
                    other => Look::not(format!("{other:?}")),
                },
            )
            .await?;
        }
    }
    Ok(())
}

/// The same bytes but one.
fn changed(bytes: &[u8], place: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place] ^= 0x10;
    bytes
}

#[tokio::test]
async fn a_daemon_is_replaced_by_another_in_one_step() -> Result<()> {
    let daemons = Daemons::start(&options(1, 0))?;
    let [n1, n2, n3, n4] = daemons.all() else {
        anyhow::bail!("four daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "before").await?;
    // The one that is to go may lead, and must hear of the newcomer.
    n4.set_nodes(&[n1, n2, n3, n4])?;
    n4.start()?;
    says(n4, "/api/raft-health", "no member has").await?;
    let replace = format!("/api/v2/raft-replace-peer/{}/{}", n3.raft(), n4.raft());
    change_members(&daemons, &replace, &[n1, n2]).await?;
    members(&[n1, n2, n4]).await?;
    says(n3, "/api/raft-health", LEFT).await?;
    holds(&daemons, &["before"]).await
}

/// Asks for a change of members until it is done, and once more of each member that is named: it is done already.
async fn change_members(daemons: &Daemons, path: &str, again: &[&Daemon]) -> Result<()> {
    let of_leader = async || {
        daemons
            .wait_leader(PATIENCE)
            .await?
            .get(path, PATIENCE)
            .await
    };
    answers_ok(path, of_leader).await?;
    for member in again {
        answers_ok(path, async || member.get(path, PATIENCE).await).await?;
    }
    Ok(())
}

async fn answers_ok(path: &str, mut ask: impl AsyncFnMut() -> Result<Reply>) -> Result<()> {
    until(
        path,
        PATIENCE,
        Duration::from_millis(200),
        async || match ask().await {
            Ok(reply) if reply.status == 200 => Look::Holds(()),
            Ok(reply) => Look::not(format!("{} {}", reply.status, reply.body)),
            Err(error) => Look::not(format!("{error:#}")),
        },
    )
    .await
}

/// Waits until this daemon's `raft-status` shows exactly this stranger with this reason, or with `None` no stranger.
async fn shows_stranger(daemon: &Daemon, wanted: Option<(&Daemon, &str)>) -> Result<()> {
    let wanted = match wanted {
        None => Vec::new(),
        Some((stranger, why)) => vec![(stranger.raft(), stranger.node().await?, why)],
    };
    let what = format!("{} shows the strangers {wanted:?}", daemon.url());
    until(&what, PATIENCE, Duration::from_millis(100), async || {
        let status = match daemon.status().await {
            Ok(status) => status,
            Err(error) => return Look::not(format!("{error:#}")),
        };
        let rows = status["Strangers"].as_array().cloned().unwrap_or_default();
        let is_wanted = |row: &Value, (address, node, why): &(String, String, &str)| {
            row["Address"] == *address
                && row["Node"] == *node
                && row["Reason"]
                    .as_str()
                    .is_some_and(|said| said.contains(why))
        };
        if rows.len() == wanted.len()
            && rows
                .iter()
                .zip(&wanted)
                .all(|(row, one)| is_wanted(row, one))
        {
            Look::Holds(())
        } else {
            Look::not(format!("{:#}", status))
        }
    })
    .await
}

/// What was changed online stands, though no file shows it: not one member that is started again with its old list brings back
/// whom the others removed, or loses whom they let in.
#[tokio::test]
async fn members_changed_online_stay_so_whatever_their_files_say() -> Result<()> {
    let daemons = Daemons::start(&options(1, 0))?;
    let [n1, n2, n3, n4] = daemons.all() else {
        anyhow::bail!("four daemons");
    };
    daemons.wait_leader(PATIENCE).await?;
    members(&[n1, n2, n3]).await?;
    write(&daemons, "before").await?;

    // The stranger is shown with the reason, to itself and to each member, and costs them no term.
    let before = n1.status().await?["Term"].clone();
    n4.set_nodes(&[n1, n2, n3, n4])?;
    n4.start()?;
    says_unhealthy(n4, "no member has").await?;
    let status = n4.status().await?;
    let reason = status["Reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("waits for a member"), "{status:#}");
    for member in [n1, n2, n3] {
        shows_stranger(member, Some((n4, "no member has"))).await?;
    }
    ensure!(
        n1.status().await?["Term"] == before,
        "the stranger cost a term"
    );
    change_members(
        &daemons,
        &format!("/api/raft-add-peer/{}", n4.raft()),
        &[n1, n2, n3],
    )
    .await?;
    members(&[n1, n2, n3, n4]).await?;
    for member in [n1, n2, n3, n4] {
        shows_stranger(member, None).await?;
    }
    write(&daemons, "between").await?;
    change_members(
        &daemons,
        &format!("/api/raft-remove-peer/{}", n3.raft()),
        &[n1, n2, n4],
    )
    .await?;
    members(&[n1, n2, n4]).await?;
    says(n3, "/api/raft-health", LEFT).await?;
    write(&daemons, "after").await?;

    // One after the other, as an upgrade does it, then all at once, as a power cut does.
    for daemon in [n1, n2, n4] {
        daemon.signal(Signal::Terminate);
        daemon.wait_ended(PATIENCE).await?;
        daemon.start_until_healthy(PATIENCE).await?;
        members(&[n1, n2, n4]).await?;
    }
    for daemon in [n1, n2, n4] {
        daemon.kill().await?;
    }
    for daemon in [n1, n2, n4] {
        daemon.start()?;
    }
    members(&[n1, n2, n4]).await?;
    holds(&daemons, &["before", "between", "after"]).await?;

    // The one that was removed goes on dialling them, and is told why; that costs no term, however long.
    for member in [n1, n2, n4] {
        shows_stranger(member, Some((n3, LEFT))).await?;
    }
    says(n3, "/api/raft-health", LEFT).await?;
    let led = n1.status().await?;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    while began.elapsed() < WATCHED {
        pace.tick().await;
        let health = n3.get("/api/raft-health", PATIENCE).await?;
        ensure!(health.status == 500, "{health:?}");
        let check = n3.get("/api/leader-check", PATIENCE).await?;
        ensure!(check.status == 404, "{check:?}");
    }
    says(n3, "/api/raft-status", LEFT).await?;
    for member in [n1, n2, n4] {
        let status = member.status().await?;
        ensure!(
            (&status["Term"], &status["Leader"]) == (&led["Term"], &led["Leader"]),
            "{led:#} {status:#}"
        );
    }
    members(&[n1, n2, n4]).await?;

    // It is let in again when somebody says so.
    change_members(
        &daemons,
        &format!("/api/raft-add-peer/{}", n3.raft()),
        &[n1, n4],
    )
    .await?;
    members(&[n1, n2, n3, n4]).await?;
    holds(&daemons, &["before", "between", "after"]).await
}
