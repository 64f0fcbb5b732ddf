use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use orchestrator::env::{replace_file, sleep, spawn, timeout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// A machine that keeps a durable counter and answers each connection with it, raised by one.
async fn counter<E: Engine>(name: String) {
    let folder = format!("/{name}/data");
    let path = Path::new(&folder).join("counter.db");
    let connection = E::blocking(move || {
        E::create_dir_all(Path::new(&folder)).unwrap();
        let connection = E::open_db(&path).unwrap();
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .unwrap();
        connection
            .pragma_update(None, "synchronous", "FULL")
            .unwrap();
        connection
            .execute_batch("create table if not exists answers(at integer)")
            .unwrap();
        connection
    })
    .await;
    let mut connection = Some(connection);
    let mut listener = E::bind("0.0.0.0:7000").await.unwrap();
    loop {
        let (mut stream, _) = E::accept(&mut listener).await.unwrap();
        let taken = connection.take().unwrap();
        let (back, count) = E::blocking(move || {
            taken
                .execute(
                    "insert into answers values(?1)",
                    [E::wall().as_nanos() as i64],
                )
                .unwrap();
            let count: i64 = taken
                .query_row("select count(*) from answers", [], |row| row.get(0))
                .unwrap();
            (taken, count.unsigned_abs())
        })
        .await;
        connection = Some(back);
        spawn::<E>(async move {
            let _ = stream.write_u64(count).await;
            let _ = stream.flush().await;
        });
    }
}

async fn ask<E: Engine>(host: &str) -> Option<u64> {
    timeout::<E, _>(Duration::from_millis(500), async {
        let mut stream = E::connect(&format!("{host}:7000")).await.ok()?;
        stream.read_u64().await.ok()
    })
    .await
    .flatten()
}

/// One client, two counters; one of them loses power in the middle; a link is cut and healed.
fn world<E: Engine>() -> (Vec<Machine>, Pin<Box<dyn Future<Output = [Vec<u64>; 2]>>>) {
    let machines = ["a", "b"]
        .into_iter()
        .zip(1..)
        .map(|(name, last)| {
            Machine::new(name, address(last), move |_| counter::<E>(name.to_owned()))
        })
        .collect();
    let scenario = async {
        let mut heard = [Vec::new(), Vec::new()];
        sleep::<E>(Duration::from_millis(200)).await;
        for round in 0..20 {
            for (heard, host) in heard.iter_mut().zip(["a", "b"]) {
                heard.extend(ask::<E>(host).await);
            }
            match round {
                5 => E::power_cut("a"),
                8 => E::boot("a"),
                12 => network::cut("scenario", "b"),
                14 => network::heal("scenario", "b"),
                _ => {}
            }
            sleep::<E>(Duration::from_millis(50)).await;
        }
        heard
    };
    (machines, Box::pin(scenario))
}

fn check<E: Engine>() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 1..=3 {
        let run = || run_traced::<E, _>(seed, Duration::from_secs(30), true, world::<E>);
        let (first, first_trace) = run();
        let (second, second_trace) = run();
        let heard = first.unwrap().expect("the scenario ends in time");
        assert_eq!(heard, second.unwrap().unwrap());
        assert!(
            first_trace == second_trace,
            "{} seed {seed}: {:?}",
            E::NAME,
            first_trace
                .lines
                .iter()
                .zip(&second_trace.lines)
                .find(|(one, other)| one != other)
        );
        for heard in &heard {
            // No answer twice: what was answered is on the disk, across the power cut.
            assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
            assert!((17..20).contains(&heard.len()), "{heard:?}");
        }
        assert!(first_trace.events > 30);
        hashes.insert(first_trace.hash);
    }
    assert_eq!(hashes.len(), 3, "seeds make different runs");
}

#[test]
fn madsim_runs_twice_alike() {
    check::<MadsimEnv>();
}

#[test]
fn turmoil_runs_twice_alike() {
    check::<TurmoilEnv>();
}

/// What a dial and a file look like from inside.
fn senses<E: Engine>() {
    let world = || {
        let machines = vec![
            Machine::new("quiet", address(1), |_| std::future::pending::<()>()),
            Machine::new("loud", address(2), |_| counter::<E>("loud".to_owned())),
        ];
        let scenario = async {
            sleep::<E>(Duration::from_millis(200)).await;
            let refused = E::connect("quiet:7000").await.map(drop).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let unknown = E::connect("nobody:7000").await.map(drop).unwrap_err();
            assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
            let silent = timeout::<E, _>(Duration::from_secs(2), E::connect("10.9.9.9:7000")).await;
            assert!(silent.is_none());
            network::cut("scenario", "loud");
            network::cut("loud", "scenario");
            let cut = timeout::<E, _>(Duration::from_secs(2), E::connect("loud:7000")).await;
            assert!(cut.is_none(), "a cut link refuses nothing");
            network::heal("scenario", "loud");
            network::heal("loud", "scenario");
            assert!(ask::<E>("loud").await.is_some());
            network::set_name("moved", vec![address(2)]);
            assert!(ask::<E>("moved").await.is_some());
            let folder = Path::new("/scenario/data");
            E::create_dir_all(folder).unwrap();
            replace_file::<E>(&folder.join("record"), b"one").unwrap();
            replace_file::<E>(&folder.join("record"), b"two").unwrap();
            assert_eq!(E::read_file(&folder.join("record")).unwrap(), b"two");
            assert_eq!(E::list_dir(folder).unwrap(), ["record"]);
            assert_ne!(E::random_seed().unwrap(), E::random_seed().unwrap());
            assert!(E::wall() > WALL_AT_START && E::mono() > Duration::from_secs(4));
        };
        (
            machines,
            Box::pin(scenario) as Pin<Box<dyn Future<Output = ()>>>,
        )
    };
    let (ended, _) = run_traced::<E, _>(7, Duration::from_secs(30), false, world);
    assert_eq!(ended, Ok(Some(())), "{}", E::NAME);
}

#[test]
fn madsim_shows_refusals_and_silence() {
    senses::<MadsimEnv>();
}

#[test]
fn turmoil_shows_refusals_and_silence() {
    senses::<TurmoilEnv>();
}

/// A task of a machine panics; nobody awaits its end.
fn doomed<E: Engine>() {
    let world = || {
        let machines = vec![Machine::new("doomed", address(1), |_| async {
            spawn::<E>(async { panic!("found by the simulation") });
            std::future::pending::<()>().await;
        })];
        let scenario = async { sleep::<E>(Duration::from_secs(1)).await };
        (
            machines,
            Box::pin(scenario) as Pin<Box<dyn Future<Output = ()>>>,
        )
    };
    let (ended, _) = run_traced::<E, _>(1, Duration::from_secs(30), false, world);
    let panic = ended.unwrap_err();
    assert!(panic.contains("found by the simulation"), "{panic}");
}

#[test]
fn madsim_reports_a_panic() {
    doomed::<MadsimEnv>();
}

#[test]
fn turmoil_reports_a_panic() {
    doomed::<TurmoilEnv>();
}

/// A stream to the counter, and what a read of it gives within half a second.
async fn dialled<E: Engine>(host: &str) -> io::Result<E::Stream> {
    timeout::<E, _>(HALF_A_SECOND, E::connect(&format!("{host}:7000")))
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

async fn read_on<E: Engine>(stream: &mut E::Stream) -> io::Result<usize> {
    let mut buffer = [0; 64];
    timeout::<E, _>(HALF_A_SECOND, stream.read(&mut buffer))
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// What the ends of processes and machines look like to a peer, and what a pause and a bad link do.
fn ends<E: Engine>() {
    let world = || {
        // Says something every 100 ms.
        let talker = |_| async {
            let mut listener = E::bind("0.0.0.0:7000").await.unwrap();
            while let Ok((mut stream, _)) = E::accept(&mut listener).await {
                spawn::<E>(async move {
                    while stream.write_u64(1).await.is_ok() && stream.flush().await.is_ok() {
                        sleep::<E>(Duration::from_millis(100)).await;
                    }
                });
            }
        };
        let machines = vec![Machine::new("talker", address(1), talker)];
        let scenario = async {
            sleep::<E>(Duration::from_millis(200)).await;
            let mut stream = dialled::<E>("talker").await.unwrap();
            assert_eq!(read_on::<E>(&mut stream).await.unwrap(), 8);
            pause("talker");
            while read_on::<E>(&mut stream).await.is_ok() {}
            let still = read_on::<E>(&mut stream).await.unwrap_err();
            assert_eq!(still.kind(), io::ErrorKind::TimedOut, "paused, not gone");
            resume("talker");
            assert_eq!(read_on::<E>(&mut stream).await.unwrap(), 8);

            network::cut("talker", "scenario");
            while read_on::<E>(&mut stream).await.is_ok() {}
            network::heal("talker", "scenario");
            assert!(
                read_on::<E>(&mut stream).await.unwrap() >= 8,
                "late, not lost"
            );
            let slow = Duration::from_millis(400);
            network::change_quality("talker", "scenario", |quality| quality.delay = slow);
            let began = E::elapsed();
            for _ in 0..4 {
                assert!(read_on::<E>(&mut stream).await.unwrap() >= 8);
            }
            assert!(E::elapsed() - began > slow, "{:?}", E::elapsed() - began);
            network::heal_all();

            E::kill("talker");
            let mut end = 1;
            while end > 0 {
                end = read_on::<E>(&mut stream).await.unwrap();
            }
            sleep::<E>(Duration::from_millis(10)).await;
            let refused = dialled::<E>("talker").await.map(drop).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            E::boot("talker");
            sleep::<E>(Duration::from_millis(100)).await;
            let mut stream = dialled::<E>("talker").await.unwrap();
            assert_eq!(read_on::<E>(&mut stream).await.unwrap(), 8);

            E::power_cut("talker");
            while read_on::<E>(&mut stream).await.is_ok() {}
            let silent = dialled::<E>("talker").await.map(drop).unwrap_err();
            assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
            stream.write_u64(1).await.unwrap();
            E::boot("talker");
            let silent = read_on::<E>(&mut stream).await.unwrap_err();
            assert_eq!(
                silent.kind(),
                io::ErrorKind::TimedOut,
                "nobody asked it so far"
            );
            let _ = stream.write_u64(1).await;
            let reset = read_on::<E>(&mut stream).await.unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);

            step_both_clocks::<E>();
        };
        (
            machines,
            Box::pin(scenario) as Pin<Box<dyn Future<Output = ()>>>,
        )
    };
    let (ended, _) = run_traced::<E, _>(3, Duration::from_secs(60), false, world);
    assert_eq!(ended, Ok(Some(())), "{}", E::NAME);
}

/// Longer than Linux tries on with what nobody acknowledges (`tcp_retries2`), let alone keepalive.
const TCP_PATIENCE: Duration = Duration::from_secs(16 * 60);

/// A machine that went dark ends no connection and refuses no dial: whoever waits for it needs a deadline of its own, as on a real
/// network (`tests/tests/black_hole.rs`), where the kernel's come too late to be of use.
fn dark<E: Engine>() {
    let world = || {
        let quiet = |_| async {
            let mut listener = E::bind("0.0.0.0:7000").await.unwrap();
            let mut held = Vec::new();
            while let Ok((stream, _)) = E::accept(&mut listener).await {
                held.push(stream);
            }
        };
        let machines = vec![Machine::new("quiet", address(1), quiet)];
        let scenario = async {
            sleep::<E>(Duration::from_millis(200)).await;
            let mut idle = dialled::<E>("quiet").await.unwrap();
            let mut busy = dialled::<E>("quiet").await.unwrap();
            E::power_cut("quiet");
            busy.write_u64(1).await.unwrap();
            busy.flush().await.unwrap();
            let (idle, busy, dial) = tokio::join!(
                timeout::<E, _>(TCP_PATIENCE, idle.read_u8()),
                timeout::<E, _>(TCP_PATIENCE, busy.read_u8()),
                timeout::<E, _>(TCP_PATIENCE, E::connect("quiet:7000")),
            );
            assert!(idle.is_none(), "{idle:?}");
            assert!(busy.is_none(), "{busy:?}");
            assert!(dial.is_none(), "accepted or refused");
        };
        (
            machines,
            Box::pin(scenario) as Pin<Box<dyn Future<Output = ()>>>,
        )
    };
    let (ended, _) = run_traced::<E, _>(5, 2 * TCP_PATIENCE, false, world);
    assert_eq!(ended, Ok(Some(())), "{}", E::NAME);
}

#[test]
fn madsim_keeps_connections_to_a_dark_machine() {
    dark::<MadsimEnv>();
}

#[test]
fn turmoil_keeps_connections_to_a_dark_machine() {
    dark::<TurmoilEnv>();
}

fn step_both_clocks<E: Engine>() {
    let before = E::wall();
    network::step_clock("scenario", -5_000);
    assert_eq!(E::wall() + Duration::from_secs(5), before);
    network::step_clock("talker", 90_000);
    assert_eq!(
        E::wall() + Duration::from_secs(5),
        before,
        "each has its own"
    );
}

#[test]
fn madsim_shows_how_processes_and_machines_end() {
    ends::<MadsimEnv>();
}

#[test]
fn turmoil_shows_how_processes_and_machines_end() {
    ends::<TurmoilEnv>();
}
