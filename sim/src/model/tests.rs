use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::env::{Env, sleep};
use orchestrator::fleet::{Fleet, Gate, SignSender};
use orchestrator_core::id::{Epoch, InstanceKey, NodeId, StepId, Uid};
use orchestrator_core::node::Sign;
use orchestrator_core::recovery::{Lane, Outcome, SourcePosition, Statement, Step, StepKind};
use orchestrator_core::time::Mono;
use orchestrator_core::topology::ProbeFailure;

use super::client::write_for_ever;
use super::server::{Account, Table};
use super::wire::{Greeting, Reply, Request, receive, send};
use super::*;
use crate::engine::{Engine, Machine, MadsimEnv, TurmoilEnv, run_traced};

fn key(name: &str) -> InstanceKey {
    InstanceKey::new(name, 3306)
}

/// A primary `m1` and replicas `m2`, `m3`, each on its machine.
fn hosts(kind: Kind, seed: u64) -> Vec<Host> {
    (1..=3)
        .map(|id| {
            let mut server = Server::new(key(&format!("m{id}")), kind, id, id > 1);
            if id > 1 {
                server.replicate_from(key("m1"));
            }
            Host::new(server, seed)
        })
        .collect()
}

fn machines<E: Engine>(hosts: &[Host]) -> Vec<Machine> {
    hosts
        .iter()
        .zip(1..)
        .map(|(host, last)| {
            let program = host.clone();
            Machine::new(
                host.key().host.clone(),
                IpAddr::from([10, 0, 1, last]),
                move |_| program.clone().run::<E>(),
            )
        })
        .collect()
}

/// Everybody may act, for a second.
struct Open<E>(std::marker::PhantomData<E>);

impl<E: Env> Gate for Open<E> {
    async fn confirm(&self, _: Epoch) -> Result<Mono, String> {
        Ok(Mono::from_elapsed(E::mono() + Duration::from_secs(1)))
    }
}

async fn run_step<E: Engine>(
    fleet: &SimFleet<E>,
    term: u64,
    server: &str,
    lane: Lane,
    statements: Vec<Statement>,
) -> Outcome {
    let step = Step {
        id: StepId(1),
        kind: StepKind::Operate,
        server: key(server),
        identity: None,
        lane,
        statements,
        deadline: Duration::from_secs(1),
        read_after: true,
    };
    let epoch = Epoch {
        term,
        node: NodeId(1),
        boot: 1,
    };
    let end = fleet
        .run(
            Uid("u".to_owned()),
            epoch,
            step,
            Open(std::marker::PhantomData::<E>),
        )
        .await;
    assert_eq!(end.report.is_some(), end.outcome == Outcome::Done);
    end.outcome
}

/// A failover by hand: the primary dies, `m2` drains and is promoted, `m3` follows, the old primary returns and is
/// fenced.
async fn failover<E: Engine>(hosts: Vec<Host>, kind: Kind) -> usize {
    let ledger = Ledger::default();
    let keys = hosts.iter().map(|host| host.key().clone()).collect();
    orchestrator::env::spawn::<E>(write_for_ever::<E>(keys, ledger.clone(), 1));
    let fleet = SimFleet::<E>::default();
    let signs: Arc<Mutex<Vec<Sign>>> = Arc::default();
    let heard = signs.clone();
    let sender = SignSender::new(move |_, sign| heard.lock().unwrap().push(sign));
    fleet.watch(key("m1"), Duration::from_millis(50), sender);
    sleep::<E>(Duration::from_secs(3)).await;

    let primary = fleet.probe(key("m1")).await.result.unwrap();
    let names: BTreeSet<_> = primary
        .replicas
        .iter()
        .map(|key| key.host.as_str())
        .collect();
    assert_eq!(names, BTreeSet::from(["m2", "m3"]));
    let replica = fleet.probe(key("m2")).await.result.unwrap();
    let status = replica.replication.as_ref().unwrap();
    assert!(status.is_running() && replica.read_only);
    assert_eq!(status.source, key("m1"));
    assert!(replica.executed.as_ref().unwrap().count() > 50);
    assert!(signs.lock().unwrap().contains(&Sign::PulseBeat));
    signs.lock().unwrap().clear();

    hosts[0].change(Server::kill);
    sleep::<E>(Duration::from_millis(200)).await;
    let mut seen = std::mem::take(&mut *signs.lock().unwrap());
    // The answer that was on its way.
    seen.retain(|sign| *sign != Sign::PulseBeat);
    assert_eq!(seen[0], Sign::PulseClosed, "{seen:?}");
    assert_eq!(seen[1], Sign::DialRefused, "{seen:?}");
    let dead = fleet.probe(key("m1")).await.result.unwrap_err();
    assert_eq!(dead, ProbeFailure::Refused);
    let replica = fleet.probe(key("m2")).await.result.unwrap();
    assert!(replica.replication.unwrap().is_failing_to_connect());

    for server in ["m2", "m3"] {
        let halt = vec![Statement::StartSqlThread, Statement::StopIoThread];
        let done = run_step(&fleet, 1, server, Lane::Act, halt).await;
        assert_eq!(done, Outcome::Done);
    }
    sleep::<E>(Duration::from_millis(500)).await;
    let received = |host: &Host| host.look(|server| server.transactions().len());
    let (candidate, sibling) = if received(&hosts[1]) >= received(&hosts[2]) {
        (1, 2)
    } else {
        (2, 1)
    };
    let (candidate, sibling) = (&hosts[candidate], &hosts[sibling]);
    let promote = vec![
        Statement::StopReplication,
        Statement::ResetReplicaAll,
        Statement::MakeWriteable,
    ];
    let name = candidate.key().host.clone();
    let done = run_step(&fleet, 1, &name, Lane::Act, promote).await;
    assert_eq!(done, Outcome::Done);
    let repoint = vec![
        Statement::StopReplication,
        Statement::ChangeSource {
            source: candidate.key().clone(),
            position: match kind {
                Kind::Mysql => SourcePosition::OracleAuto,
                Kind::Mariadb => SourcePosition::MariadbSlavePos,
            },
            options: Vec::new(),
        },
        Statement::StartReplication,
    ];
    let done = run_step(&fleet, 1, &sibling.key().host, Lane::Act, repoint).await;
    assert_eq!(done, Outcome::Done);
    sleep::<E>(Duration::from_secs(3)).await;

    // Nothing that a survivor had received is missing, and the sibling follows.
    let known: BTreeSet<u64> =
        candidate.look(|server| server.transactions().iter().map(|t| t.write).collect());
    let acknowledged = ledger.acknowledged();
    let after = acknowledged
        .iter()
        .filter(|(_, _, by)| by == candidate.key());
    assert!(after.count() > 50, "the client found the new primary");
    assert!(sibling.look(Server::is_replicating));
    assert!(known.len() > 100);
    let elapsed = E::elapsed();
    hosts[0].change(|server| server.start(elapsed));
    sleep::<E>(Duration::from_millis(200)).await;
    assert!(matches!(
        signs.lock().unwrap().last(),
        Some(Sign::PulseUp(_))
    ));
    let fence = vec![
        Statement::Fence,
        Statement::KillClients {
            spare_users: Vec::new(),
        },
    ];
    let done = run_step(&fleet, 2, "m1", Lane::Fence, fence).await;
    assert_eq!(done, Outcome::Done);
    assert!(!hosts[0].look(Server::is_writable));
    // An epoch that was overtaken does nothing.
    let late = run_step(&fleet, 1, "m1", Lane::Fence, vec![Statement::MakeWriteable]).await;
    assert!(matches!(late, Outcome::Refused { code: 0, .. }), "{late:?}");

    // A frozen server looks like a silent one, and executes what waits in it when it thaws.
    signs.lock().unwrap().clear();
    let thawed = run_step(&fleet, 2, "m1", Lane::Act, vec![Statement::MakeWriteable]).await;
    assert_eq!(thawed, Outcome::Done);
    // The idle fence connection, killed with all others, is dialled again at the next beat.
    sleep::<E>(Duration::from_secs(2)).await;
    hosts[0].change(Server::freeze);
    sleep::<E>(Duration::from_secs(4)).await;
    let seen = std::mem::take(&mut *signs.lock().unwrap());
    for sign in [Sign::PulseLate, Sign::PulseSilent, Sign::DialNoLogin] {
        assert!(seen.contains(&sign), "{sign:?} in {seen:?}");
    }
    fleet.fence_frozen(&Uid::default(), &key("m1"));
    sleep::<E>(Duration::from_millis(100)).await;
    assert!(!hosts[0].look(|server| server.report(elapsed).read_only));
    hosts[0].change(Server::thaw);
    sleep::<E>(Duration::from_millis(100)).await;
    assert!(!hosts[0].look(Server::is_writable));
    acknowledged.len()
}

fn check<E: Engine>() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        for seed in 1..=2 {
            let run = || {
                run_traced::<E, _>(seed, Duration::from_secs(60), true, move || {
                    let hosts = hosts(kind, seed);
                    let machines = machines::<E>(&hosts);
                    let scenario = Box::pin(failover::<E>(hosts, kind));
                    (machines, scenario as Pin<Box<dyn Future<Output = usize>>>)
                })
            };
            let (first, first_trace) = run();
            first.unwrap().expect("the scenario ends in time");
            let (_, second_trace) = run();
            assert!(
                first_trace == second_trace,
                "{} {kind:?} seed {seed}: {:?}",
                E::NAME,
                first_trace
                    .lines
                    .iter()
                    .zip(&second_trace.lines)
                    .find(|(one, other)| one != other)
            );
        }
    }
}

/// A connection of the daemons' account from the scenario's machine.
async fn connect<E: Engine>() -> (E::Stream, u64) {
    let mut stream = E::connect("m1:3306").await.unwrap();
    let _: Greeting = receive(&mut stream).await.unwrap();
    send(&mut stream, &Request::LogIn(Account::Orchestrator))
        .await
        .unwrap();
    let reply = receive(&mut stream).await.unwrap();
    let Reply::LoggedIn(session) = reply else {
        panic!("{reply:?}");
    };
    (stream, session)
}

/// What a machine sent arrives when it is let go, although it hung up; unless its session was ended before.
async fn late_delivery<E: Engine>(host: Host) {
    let here = IpAddr::from([10, 0, 255, 1]);
    for killed in [true, false] {
        let (mut stream, session) = connect::<E>().await;
        host.hold_from(here);
        send(&mut stream, &Request::Execute(Statement::Fence))
            .await
            .unwrap();
        drop(stream);
        sleep::<E>(Duration::from_secs(2)).await;
        assert!(host.look(Server::is_writable), "not delivered");
        assert!(host.look(|server| server.has_session(session)));
        if killed {
            host.change(|server| server.kill_session(session)).unwrap();
        }
        host.release_from(here);
        sleep::<E>(Duration::from_secs(1)).await;
        assert_eq!(host.look(Server::is_writable), killed);
        assert!(!host.look(|server| server.has_session(session)));
    }
}

fn check_late_delivery<E: Engine>() {
    let hosts = hosts(Kind::Mysql, 1);
    let (ended, _) = run_traced::<E, _>(1, Duration::from_secs(30), false, move || {
        let machines = machines::<E>(&hosts);
        let scenario = Box::pin(late_delivery::<E>(hosts[0].clone()));
        (machines, scenario as Pin<Box<dyn Future<Output = ()>>>)
    });
    ended.unwrap().expect("the scenario ends in time");
}

#[test]
fn statements_arrive_late_on_both_engines() {
    check_late_delivery::<MadsimEnv>();
    check_late_delivery::<TurmoilEnv>();
}

#[test]
fn madsim_fails_over_by_hand() {
    check::<MadsimEnv>();
}

#[test]
fn turmoil_fails_over_by_hand() {
    check::<TurmoilEnv>();
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_a_kill_does_not() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let mut server = Server::new(key("m1"), kind, 1, false);
        for write in 1..=10 {
            server
                .write(write, Duration::from_millis(100 * write))
                .unwrap();
        }
        let held = |server: &Server| server.transactions().len();
        let all = server.executed();
        let again = |server: &mut Server| server.start(Duration::from_secs(2));
        server.lose_power(Duration::from_secs(1));
        again(&mut server);
        assert_eq!((held(&server), server.executed()), (10, all.clone()));
        server.set_unsynced(Some(Duration::from_millis(250)));
        server.kill();
        again(&mut server);
        assert_eq!(held(&server), 10);
        // What a replica has by now it gets back when it follows again, and not before.
        let mut replica = Server::new(key("m2"), kind, 2, true);
        replica.set_unsynced(Some(Duration::from_millis(450)));
        replica.replicate_from(key("m1"));
        for transaction in server.transactions() {
            replica.receive(*transaction);
        }
        for _ in 0..8 {
            replica.apply(Duration::from_secs(1));
        }
        let applied = replica.executed();
        replica.lose_power(Duration::from_secs(1));
        again(&mut replica);
        assert_eq!(held(&replica), 5);
        assert!(replica.lost_with_power().iter().eq(&[6, 7, 8, 9, 10]));
        let (_, place) = replica.receiver_target().unwrap();
        let (sent, _) = server.dump(&place, 0).unwrap();
        assert_eq!(sent.len(), 5);
        for transaction in sent {
            replica.receive(transaction);
            replica.apply(Duration::from_secs(3));
        }
        assert_eq!(replica.executed(), all);
        assert!(applied != all && replica.lost_with_power().is_empty());
        // The source loses the last three, and turns its replica away; what it writes next has their numbers.
        server.lose_power(Duration::from_secs(1));
        again(&mut server);
        assert_eq!(held(&server), 7);
        assert!(server.dump(&replica.executed(), 0).is_err());
        for write in 11..=13 {
            server.write(write, Duration::from_secs(3)).unwrap();
        }
        assert_eq!(server.executed(), all);
        assert!(
            server
                .rows(Table::Ledger)
                .eq([1, 2, 3, 4, 5, 6, 7, 11, 12, 13])
        );
    }
}
