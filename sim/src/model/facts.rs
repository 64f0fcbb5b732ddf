//! What was measured on real servers, on the model without a socket. The same facts are run on real servers, and on the
//! model over the MySQL protocol, in `tests/tests/facts.rs`.

use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{SourcePosition, Statement};
use orchestrator_core::topology::{Purpose, ThreadState};

use super::replication::{Change, Position};
use super::server::{Access, Account, Process, ServerError, Table, code, error};
use super::statement::{Answer, Operation, Outcome};
use super::{Kind, Server};

const ZERO: Duration = Duration::ZERO;

fn key(name: &str) -> InstanceKey {
    InstanceKey::new(name, 3306)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A source with ten writes and a replica that received them all and applied four.
fn pair(kind: Kind) -> (Server, Server) {
    let mut source = Server::new(key("p"), kind, 1, false);
    let mut replica = Server::new(key("r"), kind, 2, true);
    replica.replicate_from(key("p"));
    for write in 1..=10 {
        source.write(write, ZERO).unwrap();
    }
    let (_, held) = replica.receiver_target().unwrap();
    replica.receiver_connected(&source.identity(), 1);
    for transaction in source.dump(&held, 0).unwrap().0 {
        replica.receive(transaction);
    }
    for _ in 0..4 {
        replica.apply(ZERO);
    }
    (source, replica)
}

fn run(server: &mut Server, statements: &[Statement]) {
    for statement in statements {
        server.execute(statement, ZERO).unwrap();
    }
}

fn drained(server: &mut Server) -> u64 {
    while server.can_apply(ZERO) {
        server.apply(ZERO);
    }
    server.executed().count()
}

fn app() -> Account {
    Account::Application("app".to_owned())
}

fn insert(row: u64) -> Operation {
    Operation::Write {
        table: Table::Ledger,
        row,
        takes: ZERO,
    }
}

/// A session asks; what it is told at once.
fn ask(server: &mut Server, session: u64, operation: Operation, now: Duration) -> Option<Outcome> {
    server.ask(session, operation, now);
    server.take_outcome(session)
}

const DONE: Option<Outcome> = Some(Ok(Answer::Done));

fn refused(outcome: Option<Outcome>) -> u16 {
    outcome.unwrap().unwrap_err().code
}

/// A source that waits for one semi-synchronous replica; the replica's session and two clients'.
fn semi_synchronous(kind: Kind) -> (Server, u64, [u64; 2]) {
    let mut source = Server::new(key("p"), kind, 1, false);
    let mut settings = source.semi_sync().clone();
    settings.source_enabled = true;
    source.set_semi_sync(settings);
    let replica = source.log_in(Account::Replication(key("r")));
    source.begin_dump(replica, true);
    let clients = [source.log_in(app()), source.log_in(app())];
    (source, replica, clients)
}

#[test]
fn mariadb_forgets_what_it_received_when_both_threads_were_stopped() {
    use Statement::{StartIoThread, StartSqlThread, StopReplication};
    for start in [StartSqlThread, StartIoThread] {
        let (_, mut replica) = pair(Kind::Mariadb);
        run(&mut replica, &[StopReplication, start, StartSqlThread]);
        assert_eq!(drained(&mut replica), 4);
    }
    let (_, mut replica) = pair(Kind::Mysql);
    run(&mut replica, &[StopReplication, StartSqlThread]);
    assert_eq!(drained(&mut replica), 10, "MySQL keeps it");
}

#[test]
fn the_safe_order_keeps_everything() {
    use Statement::{StartIoThread, StartSqlThread, StopIoThread, StopSqlThread};
    let (_, mut replica) = pair(Kind::Mariadb);
    run(&mut replica, &[StopSqlThread, StartSqlThread, StopIoThread]);
    assert_eq!(drained(&mut replica), 10);
    let (_, mut replica) = pair(Kind::Mariadb);
    run(&mut replica, &[StopIoThread, StartIoThread, StopIoThread]);
    assert_eq!(drained(&mut replica), 10, "while the applier runs");
}

#[test]
fn file_and_position_salvage_a_mariadb_relay_log() {
    let (_, mut replica) = pair(Kind::Mariadb);
    run(&mut replica, &[Statement::StopReplication]);
    let session = replica.log_in(Account::Orchestrator);
    let by_file = Change {
        position: Some(Position::File),
        keeps_relay_log: true,
        ..Change::default()
    };
    assert_eq!(
        ask(&mut replica, session, Operation::Change(by_file), ZERO),
        DONE
    );
    run(&mut replica, &[Statement::StartSqlThread]);
    assert_eq!(drained(&mut replica), 10);
}

#[test]
fn changing_the_source_drops_the_relay_log() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (_, mut replica) = pair(kind);
        let change = Statement::ChangeSource {
            source: key("q"),
            position: match kind {
                Kind::Mysql => SourcePosition::OracleAuto,
                Kind::Mariadb => SourcePosition::MariadbSlavePos,
            },
            options: Vec::new(),
        };
        let must_stop = match kind {
            Kind::Mysql => code::CHANNEL_MUST_STOP,
            Kind::Mariadb => code::SLAVE_MUST_STOP,
        };
        assert_eq!(replica.execute(&change, ZERO).unwrap_err().code, must_stop);
        run(&mut replica, &[Statement::StopReplication, change]);
        let report = replica.report(ZERO);
        let says = report.replication.as_ref().unwrap().received.clone();
        match kind {
            Kind::Mysql => assert!(says.unwrap().is_empty()),
            Kind::Mariadb => assert_eq!(says.unwrap().count(), 10, "Gtid_IO_Pos lies"),
        }
        assert_eq!(report.held().unwrap().count(), 4, "and is not believed");
    }
}

#[test]
fn mysql_is_pointed_elsewhere_while_its_applier_runs() {
    let (_, mut replica) = pair(Kind::Mysql);
    let change = |position| Statement::ChangeSource {
        source: key("q"),
        position,
        options: Vec::new(),
    };
    let kept = change(SourcePosition::OracleKept);
    let refusal = replica.execute(&kept, ZERO).unwrap_err();
    assert_eq!(refusal.code, code::RECEIVER_MUST_STOP);
    run(&mut replica, &[Statement::StopIoThread]);
    let stated = replica.execute(&change(SourcePosition::OracleAuto), ZERO);
    assert_eq!(stated.unwrap_err().code, code::CHANNEL_MUST_STOP);
    run(&mut replica, &[kept]);
    assert_eq!(replica.source(), Some(&key("q")));
    assert_eq!(drained(&mut replica), 10);
}

#[test]
fn a_change_of_host_or_port_resets_the_heartbeat_alone_and_on_mariadb_every_change_does() {
    for (kind, source) in [(Kind::Mysql, "SOURCE"), (Kind::Mariadb, "MASTER")] {
        let (_, mut replica) = pair(kind);
        replica.set_net_timeout(seconds(4));
        run(&mut replica, &[Statement::StopReplication]);
        let session = replica.log_in(Account::Orchestrator);
        let port = Change {
            port: Some(3307),
            ..Change::default()
        };
        let mut retry = Change::default();
        retry.option("CONNECT_RETRY", "2");
        for (change, heartbeat) in [
            (port, "2.000"),
            (
                retry,
                match kind {
                    Kind::Mysql => "1.000",
                    Kind::Mariadb => "2.000",
                },
            ),
        ] {
            let rest = [("RETRY_COUNT", "86400"), ("CONNECTION_AUTO_FAILOVER", "1")];
            for (name, literal) in rest {
                replica.set_channel_option(name, literal);
            }
            replica.set_channel_option("HEARTBEAT_PERIOD", "1.000");
            assert_eq!(
                ask(&mut replica, session, Operation::Change(change), ZERO),
                DONE
            );
            let options = replica.report(ZERO).replication.unwrap().options;
            for (name, literal) in [("HEARTBEAT_PERIOD", heartbeat)].into_iter().chain(rest) {
                let stated = (format!("{source}_{name}"), literal.to_owned());
                assert!(options.contains(&stated), "{stated:?}: {options:?}");
            }
        }
    }
}

#[test]
fn a_killed_replica_keeps_or_loses_its_relay_log() {
    for (kind, recovery, left) in [
        (Kind::Mysql, false, 10),
        (Kind::Mysql, true, 4),
        (Kind::Mariadb, false, 4),
    ] {
        let (_, mut replica) = pair(kind);
        replica.set_relay_log_recovery(recovery);
        let session = replica.log_in(app());
        assert!(replica.get_lock("orchestrator/act", session));
        replica.kill();
        assert!(!replica.can_apply(ZERO));
        replica.start(seconds(1));
        assert_eq!(drained(&mut replica), left, "{kind:?}");
        assert!(!replica.has_session(session));
        assert_eq!(replica.lock_holder("orchestrator/act"), None);
        assert!(!replica.is_writable(), "read-only is in its configuration");
    }
}

#[test]
fn a_fenced_server_takes_no_writes_and_a_promoted_one_does() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (mut source, mut replica) = pair(kind);
        run(&mut source, &[Statement::Fence]);
        assert_eq!(source.write(11, ZERO).unwrap_err().code, code::READ_ONLY);
        assert_eq!(drained(&mut replica), 10);
        run(
            &mut replica,
            &[
                Statement::StopReplication,
                Statement::ResetReplicaAll,
                Statement::MakeWriteable,
            ],
        );
        replica.write(11, ZERO).unwrap();
        assert_eq!(replica.executed().count(), 11);
        assert!(replica.receiver_target().is_none());
    }
}

#[test]
fn a_source_refuses_a_replica_that_is_ahead() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (source, replica) = pair(kind);
        let fresh = Server::new(key("p"), kind, 1, false);
        let (_, held) = replica.receiver_target().unwrap();
        assert!(source.dump(&held, 0).unwrap().0.is_empty());
        assert_eq!(fresh.dump(&held, 0).unwrap_err().code, 1236, "{kind:?}");
    }
}

#[test]
fn read_only_waits_for_acknowledgements_and_writes_wait_for_it() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (mut source, replica, [one, other]) = semi_synchronous(kind);
        let daemon = source.log_in(Account::Orchestrator);
        assert_eq!(ask(&mut source, one, insert(1), ZERO), None);
        // Received and acknowledged: all go on.
        source.acknowledge(replica, 1);
        source.proceed(ZERO);
        assert_eq!(source.take_outcome(one), DONE);

        assert_eq!(ask(&mut source, one, insert(2), ZERO), None);
        let committed = source.rows(Table::Ledger).count();
        assert_eq!(committed, if kind == Kind::Mysql { 1 } else { 2 });
        let fence = Operation::Access(match kind {
            Kind::Mysql => Access::SuperReadOnly,
            Kind::Mariadb => Access::ReadOnly,
        });
        assert_eq!(ask(&mut source, daemon, fence, seconds(1)), None);
        assert_eq!(ask(&mut source, other, insert(3), seconds(2)), None);
        // Looking hangs nowhere.
        let report = source.report(seconds(2));
        assert!(!report.read_only);
        assert_eq!(report.super_read_only, kind == Kind::Mysql);

        source.kill_session(one).unwrap();
        source.proceed(seconds(3));
        match kind {
            Kind::Mariadb => {
                assert_eq!(source.take_outcome(daemon), DONE);
                assert_eq!(refused(source.take_outcome(other)), code::READ_ONLY);
            }
            Kind::Mysql => {
                assert!(source.is_busy(daemon) && !source.is_answered(daemon));
                let daemon_too = source.log_in(Account::Orchestrator);
                let off = Operation::SemiSyncSource(false);
                assert_eq!(ask(&mut source, daemon_too, off, seconds(4)), DONE);
                assert_eq!(source.take_outcome(daemon), DONE);
                assert_eq!(refused(source.take_outcome(other)), code::READ_ONLY);
            }
        }
        assert!(
            source.rows(Table::Ledger).eq([1, 2]),
            "committed here alone"
        );
    }
}

#[test]
fn a_wait_that_took_too_long_switches_semi_sync_off_until_replicas_catch_up() {
    let (mut source, replica, [client, _]) = semi_synchronous(Kind::Mysql);
    assert_eq!(ask(&mut source, client, insert(1), seconds(1)), None);
    assert_eq!(source.next_event(), Some(seconds(11)));
    assert!(!source.proceed(seconds(10)));
    assert!(source.proceed(seconds(11)));
    assert_eq!(source.take_outcome(client), DONE);
    assert!(!source.report(seconds(11)).semi_sync.source_status);
    assert_eq!(ask(&mut source, client, insert(2), seconds(12)), DONE);
    source.acknowledge(replica, 2);
    assert!(source.report(seconds(12)).semi_sync.source_status);
    assert_eq!(ask(&mut source, client, insert(3), seconds(13)), None);
}

#[test]
fn as_many_replicas_as_are_asked_for_acknowledge() {
    let (mut source, first, [client, _]) = semi_synchronous(Kind::Mysql);
    let second = source.log_in(Account::Replication(key("s")));
    source.begin_dump(second, true);
    let lazy = source.log_in(Account::Replication(key("t")));
    source.begin_dump(lazy, false);
    assert_eq!(
        ask(&mut source, client, Operation::SemiSyncCount(2), ZERO),
        DONE
    );
    assert_eq!(source.report(ZERO).semi_sync.source_clients, 2);
    assert_eq!(ask(&mut source, client, insert(1), ZERO), None);
    for (session, enough) in [(lazy, false), (first, false), (second, true)] {
        source.acknowledge(session, 1);
        source.proceed(ZERO);
        assert_eq!(source.is_answered(client), enough);
    }
}

#[test]
fn an_unacknowledged_transaction_survives_a_kill() {
    let (mut source, _, [client, _]) = semi_synchronous(Kind::Mysql);
    assert_eq!(ask(&mut source, client, insert(1), ZERO), None);
    assert_eq!(source.executed().count(), 0);
    source.kill();
    source.start(seconds(1));
    assert_eq!(source.executed().count(), 1);
    assert!(source.rows(Table::Ledger).eq([1]));
}

#[test]
fn read_only_waits_for_a_slow_write_and_not_for_an_idle_transaction() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let mut server = Server::new(key("p"), kind, 1, false);
        let [slow, idle, daemon] =
            [app(), app(), Account::Orchestrator].map(|account| server.log_in(account));
        assert_eq!(ask(&mut server, idle, Operation::Begin, ZERO), DONE);
        assert_eq!(ask(&mut server, idle, insert(1), ZERO), DONE);
        let write = Operation::Write {
            table: Table::Ledger,
            row: 2,
            takes: seconds(4),
        };
        assert_eq!(ask(&mut server, slow, write, ZERO), None);
        let close = Operation::Access(Access::ReadOnly);
        assert_eq!(ask(&mut server, daemon, close, seconds(1)), None);
        assert_eq!(server.next_event(), Some(seconds(4)));
        server.proceed(seconds(4));
        assert_eq!(server.take_outcome(slow), DONE);
        assert_eq!(server.take_outcome(daemon), DONE);
        let commit = ask(&mut server, idle, Operation::Commit, seconds(5));
        assert_eq!(refused(commit), code::READ_ONLY);
        assert!(server.rows(Table::Ledger).eq([2]));
        server.grant("root", ["ALL PRIVILEGES"]);
        let root = server.log_in(Account::Application("root".to_owned()));
        assert_eq!(ask(&mut server, root, insert(3), seconds(6)), DONE);
        run(&mut server, &[Statement::Fence]);
        let last = ask(&mut server, root, insert(4), seconds(7));
        match kind {
            Kind::Mysql => assert_eq!(refused(last), code::READ_ONLY),
            Kind::Mariadb => assert_eq!(last, DONE, "there is nothing stronger"),
        }
    }
}

#[test]
fn an_orderly_stop_keeps_mysql_replicas_for_a_while() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (mut source, replica, [client, _]) = semi_synchronous(kind);
        let daemon = source.log_in(Account::Orchestrator);
        server_sleeps(&mut source, daemon);
        source.stop(seconds(1));
        assert!(!source.listens() && !source.has_session(client));
        if kind == Kind::Mariadb {
            assert_eq!(source.process(), Process::Killed);
            continue;
        }
        for (second, replica_lives, daemon_lives) in
            [(8, true, true), (9, false, true), (11, false, false)]
        {
            source.proceed(seconds(second));
            assert_eq!(source.has_session(replica), replica_lives, "{second}");
            assert_eq!(source.has_session(daemon), daemon_lives, "{second}");
        }
        assert_eq!(source.process(), Process::Killed);
        let mut alone = Server::new(key("p"), kind, 1, false);
        alone.stop(seconds(1));
        assert_eq!(alone.next_event(), Some(seconds(3)));
    }
}

fn server_sleeps(server: &mut Server, session: u64) {
    let sleep = Operation::Sleep(seconds(3_600));
    assert_eq!(ask(server, session, sleep, ZERO), None);
}

#[test]
fn what_arrived_at_a_frozen_server_runs_in_order_at_the_thaw() {
    let mut server = Server::new(key("p"), Kind::Mysql, 1, false);
    let [one, daemon, other] =
        [app(), Account::Orchestrator, app()].map(|account| server.log_in(account));
    server.freeze();
    assert_eq!(ask(&mut server, one, insert(1), ZERO), None);
    let fence = Operation::Access(Access::SuperReadOnly);
    assert_eq!(ask(&mut server, daemon, fence, ZERO), None);
    assert_eq!(ask(&mut server, other, insert(2), ZERO), None);
    assert!(!server.proceed(seconds(9)));
    assert_eq!(server.next_event(), None);
    server.thaw();
    server.proceed(seconds(10));
    assert_eq!(server.take_outcome(one), DONE);
    assert_eq!(server.take_outcome(daemon), DONE);
    assert_eq!(refused(server.take_outcome(other)), code::READ_ONLY);
}

#[test]
fn a_session_takes_its_locks_and_its_statement_along() {
    let mut server = Server::new(key("p"), Kind::Mysql, 1, false);
    let [holder, waiter, killer] = [(); 3].map(|()| server.log_in(Account::Orchestrator));
    let get = |within| Operation::GetLock {
        name: "orchestrator/act".to_owned(),
        within,
    };
    let locked = |got| Some(Ok(Answer::Locked(Some(got))));
    assert_eq!(ask(&mut server, holder, get(ZERO), ZERO), locked(true));
    assert_eq!(ask(&mut server, waiter, get(seconds(1)), ZERO), None);
    server.proceed(seconds(1));
    assert_eq!(server.take_outcome(waiter), locked(false));
    assert_eq!(ask(&mut server, waiter, get(seconds(9)), seconds(2)), None);
    let write = Operation::Write {
        table: Table::Ledger,
        row: 1,
        takes: seconds(4),
    };
    assert_eq!(ask(&mut server, holder, write, seconds(2)), None);
    let kill = Operation::Kill(holder);
    assert_eq!(ask(&mut server, killer, kill.clone(), seconds(3)), DONE);
    assert_eq!(server.take_outcome(waiter), locked(true));
    assert_eq!(server.lock_holder("orchestrator/act"), Some(waiter));
    server.proceed(seconds(9));
    assert_eq!(server.rows(Table::Ledger).count(), 0);
    assert_eq!(
        refused(ask(&mut server, killer, kill, seconds(9))),
        code::NO_SUCH_THREAD
    );
}

#[test]
fn a_read_lock_stops_the_applier_and_the_stop_of_it() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (_, mut replica) = pair(kind);
        let [backup, daemon] = [app(), Account::Orchestrator].map(|one| replica.log_in(one));
        assert_eq!(
            ask(&mut replica, backup, Operation::FlushWithReadLock, ZERO),
            DONE
        );
        assert!(!replica.can_apply(ZERO));
        let status = replica.report(seconds(7)).replication.unwrap();
        assert_eq!(status.sql, ThreadState::Running);
        assert_eq!(status.seconds_behind, Some(7));
        run(
            &mut replica,
            &[Statement::StopIoThread, Statement::MakeWriteable],
        );
        let stop = Operation::Threads {
            receiver: None,
            applier: Some(false),
        };
        assert_eq!(ask(&mut replica, daemon, stop, ZERO), None);
        replica.log_out(backup);
        replica.proceed(ZERO);
        assert_eq!(replica.take_outcome(daemon), DONE);
    }
}

#[test]
fn stopping_a_receiver_that_dials_into_silence_takes_mysql_two_seconds() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        let (_, mut replica) = pair(kind);
        replica.receiver_lost(false);
        replica.receiver_dials(seconds(1));
        let status = replica.report(seconds(2)).replication.unwrap();
        assert_eq!(status.io, ThreadState::Other);
        assert_eq!(status.io_error, "");
        let daemon = replica.log_in(Account::Orchestrator);
        let stop = Operation::Threads {
            receiver: Some(false),
            applier: None,
        };
        let told = ask(&mut replica, daemon, stop, seconds(3));
        if kind == Kind::Mariadb {
            assert_eq!(told, DONE);
            continue;
        }
        assert_eq!(told, None);
        assert_eq!(replica.next_event(), Some(seconds(5)));
        replica.proceed(seconds(5));
        assert_eq!(replica.take_outcome(daemon), DONE);
    }
}

#[test]
fn offline_mode_drops_the_replicas() {
    let (mut source, replica, [client, _]) = semi_synchronous(Kind::Mysql);
    let daemon = source.log_in(Account::Orchestrator);
    assert_eq!(
        ask(&mut source, daemon, Operation::Offline(true), ZERO),
        DONE
    );
    assert!(!source.has_session(replica) && !source.has_session(client));
    let again = source.try_log_in(Account::Replication(key("r")), ZERO);
    assert_eq!(again.unwrap_err().code, code::OFFLINE);
    source.try_log_in(Account::Orchestrator, ZERO).unwrap();
}

#[test]
fn logins_are_refused_for_a_reason() {
    let mut server = Server::new(key("p"), Kind::Mysql, 1, false);
    server.set_connections_max(1);
    server.try_log_in(app(), ZERO).unwrap();
    let refusal = |server: &mut Server| server.try_log_in(app(), ZERO).unwrap_err().code;
    assert_eq!(refusal(&mut server), code::TOO_MANY_CONNECTIONS);
    server.refuse_logins(Some(error(code::ACCESS_DENIED, "Access denied")));
    assert_eq!(refusal(&mut server), code::ACCESS_DENIED);
}

#[test]
fn a_delayed_replica_waits_and_a_failing_one_stops() {
    let (_, mut replica) = pair(Kind::Mysql);
    replica.set_delay(seconds(60));
    assert_eq!(replica.applies_at(), Some(seconds(60)));
    replica.apply(seconds(59));
    assert_eq!(replica.unapplied().count(), 6);
    replica.apply(seconds(60));
    assert_eq!(replica.unapplied().count(), 5);

    let fault = ServerError {
        code: 1032,
        message: "Can't find record".to_owned(),
    };
    replica.set_applier_fault(Some(fault));
    replica.apply(seconds(61));
    let status = replica.report(seconds(61)).replication.unwrap();
    assert_eq!((status.sql, status.sql_errno), (ThreadState::Stopped, 1032));
    replica.set_applier_fault(None);
    replica.set_delay(ZERO);
    run(&mut replica, &[Statement::StartSqlThread]);
    assert_eq!(drained(&mut replica), 10);
}

#[test]
fn a_row_that_was_written_here_stops_the_applier() {
    let (_, mut replica) = pair(Kind::Mysql);
    run(&mut replica, &[Statement::MakeWriteable]);
    replica.write(7, ZERO).unwrap();
    drained(&mut replica);
    let status = replica.report(ZERO).replication.unwrap();
    assert_eq!(status.sql_errno, u32::from(code::DUPLICATE_KEY));
    assert_eq!(replica.unapplied().count(), 4);
}

#[test]
fn a_backup_holds_the_applier_until_it_ends() {
    let (_, mut replica) = pair(Kind::Mysql);
    assert!(replica.set_backup(true, ZERO) && !replica.set_backup(true, ZERO));
    assert!(!replica.can_apply(ZERO));
    assert!(replica.set_backup(false, ZERO) && !replica.set_backup(false, ZERO));
    assert!(replica.can_apply(ZERO));
}

#[test]
fn an_account_that_only_looks_says_what_it_lacks() {
    let mut server = Server::new(key("m"), Kind::Mysql, 1, false);
    assert!(server.report(ZERO).missing_privileges.is_empty());
    server.set_only_looks(true);
    let purposes = server.report(ZERO).missing_privileges;
    let purposes: Vec<Purpose> = purposes.iter().map(|missing| missing.purpose).collect();
    assert_eq!(
        purposes,
        [
            Purpose::Halt,
            Purpose::Fence,
            Purpose::Promote,
            Purpose::Kill
        ]
    );
}
